"""``copilot-sync doctor``: the report as a whole."""

import importlib.metadata
import importlib.util
import io
import json
import os
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any, Dict, List

import pytest
from support import reserved_port
from terminals import OwnTerminal, has_colours

from copilot_sync import Client, GithubCopilot, MissingCredentialsError
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator

CHECKED = [
    "copilot-sync", "Python", "requests", "sseclient-py", "tenacity", "click", "rich", "markdown-it-py", "urllib3",
    "config file", "settings", "certificates", "token cache",
]  # fmt: skip
MISSING = importlib.metadata.PackageNotFoundError()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)


def report(capsys: pytest.CaptureFixture[str], status: int) -> Dict[str, str]:
    """What is found, by what was checked; the marks stand before the words."""
    assert run(["doctor"]) == status
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.split(" ", 1) for line in out.splitlines()]
    return {rest.split(": ")[0]: f"{mark} {rest.split(': ', 1)[1]}" for mark, rest in lines}


def test_all_is_well_with_an_emulator(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0, one line each with a tick, no secret; TLS is said to be not used."""
    served.options.models = ["gpt-4o", "gpt-5-mini"]
    found = report(capsys, 0)
    api, github = (url.rpartition("/")[2] for url in (served.api_url, served.github_url))
    assert list(found) == [
        *CHECKED, f"proxy for {github}", f"proxy for {api}", "netrc", "credentials",
        "DNS of 127.0.0.1", f"TLS to {github}", f"TLS to {api}", "token", "models", "quota",
    ]  # fmt: skip
    assert {words[0] for words in found.values()} == {"✓", "-"}
    assert found[f"TLS to {api}"] == "- skipped: http:// on this machine"
    assert found["models"] == "✓ 2 available"
    assert found["credentials"] == "✓ 1 cookie from COPILOT_SYNC_COOKIES"
    for secret in served.cookies.values():
        assert secret not in repr(found)


def test_the_build_of_python_is_told(
    served: Emulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A free-threaded one says how it runs, also if a module has turned the GIL on; any other says nothing of it."""
    found = report(capsys, 0)["Python"]
    assert (", free-threaded, with the GIL" in found) is bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert report(capsys, 0)["Python"].endswith(", free-threaded, with the GIL on")


def test_an_account_without_copilot_is_told_what_helps(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Signing in again would not."""
    served.options.plan = "none"
    token = report(capsys, 1)["token"]
    assert token.startswith("✗ ")
    assert "No access to GitHub Copilot found" in token
    assert token.endswith(" -> get Copilot for this account, or export the cookies of one that has it")


def test_one_token_does_for_doctor_and_the_rest(served: Emulator) -> None:
    """It uses the cache that it reports on."""
    assert [run(["doctor"]), run(["models"]), run(["doctor"])] == [0, 0, 0]
    assert served.tokens_issued == 1


def test_without_credentials_the_network_is_checked_all_the_same(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, a cross, what to set; the account is not tried."""
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    found = report(capsys, 1)
    assert found["credentials"].startswith("✗ no credentials found")
    assert "COPILOT_SYNC_COOKIES" in found["credentials"]
    assert found["token"] == found["quota"] == "- not tried: there are no credentials"
    assert found["DNS of 127.0.0.1"][0] == "✓"


def test_without_a_network_the_rest_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1; each host says that it is not found, and what follows from it is not tried."""

    def offline(*arguments: Any, **options: Any) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "user_session=x")
    found = report(capsys, 1)
    for host in ("github.com", "api.individual.githubcopilot.com"):
        assert found[f"DNS of {host}"].startswith("✗ not found (Temporary failure in name resolution)")
        assert f"TLS to {host}" not in found
    assert found["token"] == found["models"] == "- not tried: the service can't be reached"


def test_a_host_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name is known, but nothing listens."""
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", "key")
    with reserved_port() as port:
        address = f"127.0.0.1:{port}"
        for name in ("API", "GITHUB"):
            monkeypatch.setenv(f"COPILOT_SYNC_{name}_URL", f"https://{address}")
        found = report(capsys, 1)
    assert found[f"TLS to {address}"].startswith("✗ nothing listens there")
    assert found["token"] == "- not tried: the service can't be reached"


def test_urls_that_cannot_be_used_end_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to reach then."""
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "http://api.example")
    found = report(capsys, 1)
    assert list(found) == CHECKED
    assert found["settings"].startswith("✗ api_url must begin with https://")


def test_a_host_of_another_plan_is_told_with_the_right_one(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the report advises to set helps, and so does ``auto``."""
    served.options.plan = "business"
    found = report(capsys, 1)
    assert found["API host"].endswith(f"-> export COPILOT_SYNC_API_URL={served.plan_api_url}")
    assert found["models"] == "- not tried"
    for setting in (served.plan_api_url, "auto"):
        monkeypatch.setenv("COPILOT_SYNC_API_URL", setting)
        found = report(capsys, 0)
        assert found["models"].startswith("✓")
    github = served.github_url.rpartition("/")[2]
    assert found["API host"] == f"✓ {served.plan_api_url}, which the account's page names"
    assert found["settings"].startswith(f"✓ {served.github_url} and the API host that its page names (auto)")
    assert [name for name in found if name.startswith(("proxy", "DNS", "TLS"))] == [
        f"proxy for {github}", "DNS of 127.0.0.1", f"TLS to {github}"
    ]  # fmt: skip


def test_a_token_that_expired_is_told(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is asked with it."""
    pasted = '{"value": "planted-token", "expiration": "2026-06-27T13:15:06.000Z"}'
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", pasted)
    found = report(capsys, 1)
    assert found["credentials"].startswith("✗ COPILOT_SYNC_API_KEY expired on 2026-06-27 13:15 UTC")
    assert found["token"] == "- not tried: there are no credentials"
    assert run(["ask", "hi"]) == 1
    assert "the api_key expired on 2026-06-27 13:15 UTC: copy a new one" in capsys.readouterr().err
    assert served.requests == []


@pytest.mark.parametrize("variable", ["", "NETRC"])
def test_a_netrc_is_looked_for_where_requests_does(
    variable: str, served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At home, or where a variable says."""
    path = tmp_path / (variable or ".netrc")
    path.write_text("machine 127.0.0.1 login me password s3cr3t\n")
    path.chmod(0o600)
    if variable:
        monkeypatch.setenv(variable, str(path))
    found = report(capsys, 0)
    assert found["netrc"] == f"✓ {path} has an entry for 127.0.0.1; it would interfere and is ignored"
    assert "s3cr3t" not in repr(found)


def test_what_is_installed_is_compared_with_what_the_package_declares(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library that is missing or too old is a cross. A source tree declares nothing."""
    versions = {"requests": "2.0.0", "urllib3": "2.0"}

    def version(name: str) -> str:
        if name in versions:
            return versions[name]
        raise MISSING

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["requests>=2.32.4"])
    found = report(capsys, 1)
    assert found["requests"] == '✗ 2.0.0 is too old -> pip install --upgrade "requests>=2.32.4"'
    assert found["click"] == '✗ is not installed -> pip install --upgrade "click"'

    def requires(name: str) -> List[str]:
        raise MISSING

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert report(capsys, 1)["requests"] == "✓ 2.0.0"
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: None)
    assert report(capsys, 1)["requests"] == "✓ 2.0.0"


def test_ascii_has_marks_of_its_own(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ticks and crosses can't be shown, words stand for them."""
    sink = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", sink)
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "http://api.example")
    assert run(["doctor"]) == 1
    marks = [line.split()[0] for line in sink.buffer.getvalue().decode().splitlines()]  # type: ignore[attr-defined]
    assert set(marks) == {"ok", "NO"}


@pytest.mark.parametrize("variables, coloured", [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_marks_are_coloured_in_a_terminal(
    variables: Dict[str, str], coloured: bool, served: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where colours are wanted. At 20 columns nothing is lost."""
    served.options.models = ["gpt-4o", "gpt-5-mini"]
    with OwnTerminal(columns=20, rows=5) as terminal:
        with monkeypatch.context() as patch:
            for name, value in {"TERM": "xterm", **variables}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", terminal.file)
            assert run(["doctor"]) == 0
        text = "".join(terminal.finish())
    assert "✓" in text
    assert "2 available" in text
    assert has_colours(terminal.seen) is coloured


def test_an_extra_that_is_missing_is_noticed(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A SOCKS proxy needs one."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "socks" else find_spec(name))
    monkeypatch.setenv("HTTP_PROXY", "socks5h://127.0.0.1:9")
    found = report(capsys, 1)
    assert any(words.endswith('-> pip install "copilot-sync[socks]"') for words in found.values())


def test_a_folder_that_lies_about_chooses_no_account(
    served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have come with somebody else's code. No program and no class reads it until it is named."""
    monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: iter(()))
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    for place in (tmp_path, tmp_path / "har_and_cookies"):
        place.mkdir(exist_ok=True)
        for name in ("github.com.json", "cookies.json", "cookies.txt", "github.com.har"):
            (place / name).write_text(json.dumps(served.cookies))
    assert report(capsys, 1)["credentials"].startswith("✗ no credentials found")
    assert [run(["ask", "hi"]), run(["models"]), run(["batch", os.devnull, "-o", "out.jsonl"])] == [1, 1, 0]
    with pytest.raises(MissingCredentialsError):
        GithubCopilot.create_completion("", [{"role": "user", "content": "hi"}])
    with Client() as client:
        with pytest.raises(MissingCredentialsError):
            client.ask("hi")
    assert served.requests == []
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "har_and_cookies")
    assert run(["models"]) == 0
