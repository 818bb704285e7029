"""``copilot-sync emulator``."""

import re
import signal
import subprocess

import pytest
from command_line import command, environment, spawn

from copilot_sync.cli.emulator import emulator as emulator_command
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator
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
