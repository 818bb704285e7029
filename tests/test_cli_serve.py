"""``copilot-sync serve``."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List
from urllib.parse import urlsplit

import pytest
import requests
from command_line import environment, spawn
from support import PATIENCE

from copilot_sync.cli.program import run
from copilot_sync.contrib.openai_gateway.request_body import LIMIT
from copilot_sync.emulator import Emulator

waitress_server = pytest.importorskip("waitress.server")
serve_channel = pytest.importorskip("copilot_sync.cli.serve_channel")


def exported(text: str) -> Dict[str, str]:
    """The environment variables that were printed."""
    return dict(re.findall(r"^export (\w+)='?([^'\n]*)", text, re.MULTILINE))


def ask(variables: Dict[str, str], text: str, **more: Any) -> requests.Response:
    body = {"messages": [{"role": "user", "content": text}], **more}
    headers = {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
    url = f"{variables['OPENAI_BASE_URL']}/chat/completions"
    return requests.post(url, json=body, headers=headers, timeout=PATIENCE, stream=bool(more))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_what_it_prints_and_ends_answers_with_itself(number: int) -> None:
    """The two variables are all that a program needs; an answer under way ends with an error, and at once."""
    with spawn("serve", "--emulator", "--port", "0", environment=environment(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        variables = exported("".join(process.stdout.readline().decode() for _ in range(2)))
        assert ask(variables, "hello").json()["choices"][0]["message"]["content"] == "hello"
        with ask(variables, "word " * 10_000, stream=True) as response:
            lines = response.iter_lines()
            assert next(lines).startswith(b"data: ")
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
            rest = b"".join(lines)
    assert b"[DONE]" not in rest


@pytest.mark.parametrize("more, status", [(0, 401), (1, 413)], ids=["the largest", "one byte more"])
def test_a_body_that_is_too_large_is_not_taken_in(more: int, status: int) -> None:
    """Without a key somebody could fill the disk otherwise. The largest that may be sent is for the gateway."""
    with spawn("serve", "--emulator", "--port", "0", environment=environment(), stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            variables = exported("".join(process.stdout.readline().decode() for _ in range(2)))
            address = urlsplit(variables["OPENAI_BASE_URL"])
            head = f"POST /v1/responses HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {LIMIT + more}\r\n\r\n"
            with socket.create_connection((address.hostname, address.port or 0), PATIENCE) as connection:
                connection.sendall(head.encode() + bytes(0 if more else LIMIT))
                assert int(connection.recv(12).split()[1]) == status
        finally:
            process.terminate()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> List[Any]:
    """Servers that were started, each of which SIGTERM has ended at once."""
    found: List[Any] = []

    def end(self: Any) -> None:
        found.append(self)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:  # as waitress takes it
            return

    monkeypatch.setattr(waitress_server.BaseWSGIServer, "run", end)
    return found


def test_the_key_is_made_once_and_kept(
    served: List[Any], copilot_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A program that has it goes on asking after a restart."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name, value in copilot_emulator.environment.items():
        monkeypatch.setenv(name, value)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert run(["serve", "--port", "0"]) == 0
    first = exported(capsys.readouterr().out)
    assert run(["serve", "--port", "0", "--threads", "--rate", "10"]) == 0
    second = exported(capsys.readouterr().out)
    assert first["OPENAI_API_KEY"] == second["OPENAI_API_KEY"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", first["OPENAI_BASE_URL"])
    assert len(served) == 2
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_the_connections_are_those_that_stay_open(served: List[Any]) -> None:
    """Behind streamed answers, too."""
    assert run(["serve", "--emulator", "--port", "0"]) == 0
    assert served[0].channel_class is serve_channel.StreamingChannel


def test_a_request_that_waits_for_a_thread_is_no_news(served: List[Any]) -> None:
    """waitress would warn of each, on stderr."""
    assert run(["serve", "--emulator", "--port", "0"]) == 0
    assert not logging.getLogger("waitress.queue").isEnabledFor(logging.WARNING)


def test_a_key_can_be_given(served: List[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """One that can't be sent is wrong usage."""
    assert run(["serve", "--emulator", "--port", "0", "--key", "mine"]) == 0
    assert exported(capsys.readouterr().out)["OPENAI_API_KEY"] == "mine"
    assert run(["serve", "--emulator", "--port", "0", "--key", "a b"]) == 2
    assert "without blanks" in capsys.readouterr().err


def test_the_emulator_of_the_gateway_is_scripted(served: List[Any], tmp_path: Path) -> None:
    """With replies and faults of a file, which is for an emulator alone."""
    script = tmp_path / "script.jsonl"
    script.write_text('{"reply": "scripted"}\n')
    assert run(["serve", "--emulator", "--key", "mine", "--port", "0", "--script", str(script)]) == 0
    assert len(served) == 1
    script.write_text("nonsense")
    assert run(["serve", "--emulator", "--key", "mine", "--port", "0", "--script", str(script)]) == 2
    assert run(["serve", "--key", "mine", "--port", "0", "--script", str(script)]) == 2
    assert len(served) == 1


def test_another_address_needs_a_key_and_says_what_it_means(
    served: List[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Everybody who has the key asks with the user's account."""
    assert run(["serve", "--emulator", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "needs --key" in capsys.readouterr().err
    assert run(["serve", "--emulator", "--host", "0.0.0.0", "--port", "0", "--key", "mine"]) == 0
    assert "in the clear" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(copilot_emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """With its reason."""
    port = copilot_emulator.github_url.rpartition(":")[2]
    assert run(["serve", "--emulator", "--port", port]) == 1
    assert f"127.0.0.1:{port} can't be used" in capsys.readouterr().err


def test_a_key_that_can_not_be_kept_is_said(
    copilot_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state folder may not be writable."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert run(["serve", "--port", "0"]) == 1
    assert "the key can't be kept" in capsys.readouterr().err


def test_waitress_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By the name of the extra that brings it."""
    monkeypatch.setitem(sys.modules, "waitress", None)
    assert run(["serve"]) == 1
    assert "copilot-sync[serve]" in capsys.readouterr().err


def test_an_address_of_version_6_is_shown_as_urls_have_it(
    served: List[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """In brackets."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:  # pragma: no cover - on this machine alone
            pytest.skip("there is no IPv6 here")
    assert run(["serve", "--emulator", "--host", "::1", "--port", "0"]) == 0
    assert exported(capsys.readouterr().out)["OPENAI_BASE_URL"].startswith("http://[::1]:")


def test_a_name_of_nobody_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """As a port that is taken is."""
    assert run(["serve", "--emulator", "--key", "mine", "--host", "nobody.invalid"]) == 1
    assert "nobody.invalid:8765 can't be used" in capsys.readouterr().err


def test_batches_are_kept_in_the_state_folder(
    served: List[Any], copilot_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of an emulator are not: they would go on with the account the next time."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert run(["serve", "--emulator", "--port", "0"]) == 0
    assert list(tmp_path.rglob("*")) == []
    for name, value in copilot_emulator.environment.items():
        monkeypatch.setenv(name, value)
    assert run(["serve", "--port", "0", "--key", "mine"]) == 0
    place = tmp_path / "copilot-sync" / "gateway-batches"
    assert sorted(path.name for path in place.iterdir()) == ["batches", "files"]
    assert run(["serve", "--port", "0", "--key", "mine", "--batches", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / "files").is_dir()
    assert len(served) == 3


def test_a_folder_for_batches_that_can_not_be_made_is_said(
    served: List[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is served."""
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "batches"
    assert run(["serve", "--emulator", "--port", "0", "--batches", str(place)]) == 1
    assert f"batches can't be kept in {place}: Not a directory" in capsys.readouterr().err
    assert served == []
