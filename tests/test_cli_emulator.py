"""``copilot-sync emulator``."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Callable, List

import pytest
from command_line import command, environment, spawn

from copilot_sync.cli.emulator import emulator as emulator_command
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.emulator.state import PLANS


def test_the_emulator_prints_what_to_export_and_ends_quietly() -> None:
    """``emulator`` prints an environment that works, and Ctrl-C ends it with status 0."""
    with spawn("emulator", environment=environment(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(3)]
        variables = dict(re.findall(r"export (\w+)='?([^'\n]*)", "".join(lines)))
        done = subprocess.run(
            command("ask", "hello"), stdin=subprocess.DEVNULL, env=environment(**variables), check=False,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert done.stdout == b"hello\n"


def test_the_emulator_serves_until_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The end of serving is status 0, and stdout holds the three lines to export alone."""

    def interrupted(self: Emulator) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Emulator, "serve_forever", interrupted)
    assert run(["emulator"]) == 0
    assert re.fullmatch(r"(export COPILOT_SYNC_\w+=.+\n){3}", capsys.readouterr().out)


def test_the_account_is_on_the_plan_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each plan that the emulator knows can be chosen, and no other; without a choice it is pro."""
    served = []
    monkeypatch.setattr(Emulator, "serve_forever", lambda self: served.append(self.options.plan))
    for plan in PLANS:
        assert run(["emulator", "--plan", plan]) == 0
    assert run(["emulator"]) == 0
    assert served == [*PLANS, "pro"]
    assert run(["emulator", "--plan", "team"]) == 2
    (option,) = (each for each in emulator_command.params if each.name == "plan")
    assert tuple(option.type.choices) == PLANS


def test_the_emulator_says_when_a_port_is_taken(capsys: pytest.CaptureFixture[str], copilot_emulator: Emulator) -> None:
    """A port that is in use is an error with its reason."""
    port = copilot_emulator.github_url.rpartition(":")[2]
    assert run(["emulator", "--port", port]) == 1
    assert "port" in capsys.readouterr().err


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> List[Emulator]:
    """The emulators that were scripted and would have served."""
    served: List[Emulator] = []
    monkeypatch.setattr(Emulator, "serve_forever", lambda self: served.append(self))
    return served


def test_a_program_in_another_shell_gets_what_the_script_says(tmp_path: Path) -> None:
    """A refusal, then the scripted answers, then the question again; on the ports that were printed."""
    script = tmp_path / "script.jsonl"
    script.write_bytes(
        b'# A refusal first.\r\n{"fault": "rate_limit", "seconds": 0, "stage": "message"}\r\n'
        b'\r\n{"reply": "Scripted \xc3\xa9"}\r\n'
    )
    with spawn("emulator", "--script", str(script), environment=environment(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(3)]
        variables = dict(re.findall(r"export (\w+)='?([^'\n]*)", "".join(lines)))
        done = [
            subprocess.run(
                command("ask", "hello"), stdin=subprocess.DEVNULL, env=environment(**variables), check=False,
                stdout=subprocess.PIPE,
            ) for _ in range(2)
        ]  # fmt: skip
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert [each.stdout.decode() for each in done] == ["Scripted \u00e9\n", "hello\n"]


def test_the_script_may_come_from_stdin(ready: List[Emulator], piped: Callable[[bytes], None]) -> None:
    """It is read to its end before anything is served."""
    piped(b'{"reply": "a"}\n{"fault": "drop", "stage": "message"}')
    assert run(["emulator", "--script", "-"]) == 0
    (server,) = ready
    assert [server.next_reply(), list(server._faults["message"])] == [Reply("a"), [Fault.drop()]]


def test_the_pace_holds_for_the_script_as_well(ready: List[Emulator], piped: Callable[[bytes], None]) -> None:
    """For replies that state no pace, and for the default."""
    piped(b'{"reply": "a"}\n{"reply": "b", "pace": 1}')
    assert run(["emulator", "--script", "-", "--pace", "0.5"]) == 0
    assert [ready[0].next_reply() for _ in range(3)] == [Reply("a", pace=0.5), Reply("b", pace=1), Reply(pace=0.5)]


def test_a_file_named_like_stdin_is_reached_by_its_folder(
    ready: List[Emulator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with other programs: ``./-``."""
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(b'{"reply": "a"}')
    assert run(["emulator", "--script", os.path.join(".", "-")]) == 0
    assert ready[0].next_reply() == Reply("a")


def test_a_script_that_cannot_be_used_is_wrong_usage(
    ready: List[Emulator], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2; the file, the line and the reason are named, and nothing is served or printed to export."""
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_bytes(b'{"reply": "a"}\n{"fault": "dorp", "stage": "message"}\n')
    said = {}
    for path in (tmp_path, tmp_path / "missing", wrong):
        assert run(["emulator", "--script", str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        said[path] = " ".join(err.split())
    assert f"--script {tmp_path}: " in said[tmp_path]
    assert "No such file" in said[tmp_path / "missing"]
    assert f"--script {wrong}: line 2: a fault is one of cut, " in said[wrong]
    assert 'not "dorp"' in said[wrong]
    assert ready == []
