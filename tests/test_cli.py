"""The program: its commands, its help, its exit statuses. What each command does is in a file of its own."""

import importlib
import io
import re
import subprocess
import sys
from typing import Any, Dict, List, Tuple

import click
import pytest
from command_line import ALL, Keys, command, each_command, environment
from terminals import CTRL_C, Terminal

from copilot_sync.cli import main
from copilot_sync.cli.program import COMMANDS, run
from copilot_sync.emulator import Emulator, Fault


@pytest.fixture(autouse=True)
def _nobody_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Keys())


def test_help_and_version_are_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` shows the commands and ``--version`` the version, with status 0."""
    assert run(["--help"]) == 0
    assert run(["--version"]) == 0
    out = capsys.readouterr().out
    assert "ask" in out
    assert "  COPILOT_SYNC_API_KEY   a token\n" in out
    assert "emulator" in out
    assert re.search(r"copilot-sync \d+\.\d+", out)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    """The list is written down so that nothing has to be imported for it; it begins as the command's own help does."""
    own = ALL[(name,)].get_short_help_str(limit=1000)
    assert COMMANDS[name].split()[0] == own.split()[0]
    assert ALL[(name,)].name == name
    assert COMMANDS[name].endswith(".")


@each_command
def test_every_help_reads_alike(
    path: Tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 80 columns: usage, a sentence, a line for each option, examples at the end that call this very command."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*path, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: {' '.join(('copilot-sync', *path))} ")
    options = re.search(r"\nOptions:\n((?:  .*\n)+)", out)
    assert options is not None
    assert [line for line in options.group(1).splitlines() if not line.startswith(("  -", "      --"))] == []
    assert max(map(len, out.splitlines())) <= 80
    examples = out.partition("  Examples:\n")[2].splitlines()
    assert examples
    assert all(" ".join(("copilot-sync", *path)) in line for line in examples)


@each_command
def test_every_option_says_its_default(path: Tuple[str, ...]) -> None:
    """Unless it is a switch, whose default is off, or may be given any number of times."""
    for option in ALL[path].params:
        if isinstance(option, click.Option) and not (option.is_flag or option.multiple):
            record = option.get_help_record(click.Context(ALL[path]))
            assert record is not None
            assert "[required]" in record[1] or "[default: " in record[1]


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["threads"], []])
def test_wrong_usage_is_status_2_and_says_so_on_stderr(
    arguments: List[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be understood is told; a group without a command shows its help."""
    status = run(arguments)
    out, err = capsys.readouterr()
    assert "Usage: copilot-sync" in out + err
    assert status in (0, 2)
    assert status == 2 or not arguments or arguments == ["threads"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("chta", "No such command 'chta'. Did you mean chat?"),
        ("thread", "No such command 'thread'. Did you mean threads?"),
        ("xyzzy", "No such command 'xyzzy'."),
        ("--xyzzy", "No such option"),
    ],
)
def test_a_command_that_is_mistyped_is_suggested(capsys: pytest.CaptureFixture[str], typed: str, words: str) -> None:
    """If there is one that it may have been meant for."""
    assert run([typed]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in last
    assert ("Did you mean" in last) == ("Did you mean" in words)


@pytest.mark.parametrize("arguments", [["--help"], ["chat", "--help"]])
def test_help_imports_nothing_that_draws(arguments: List[str]) -> None:
    """It stays quick: neither rich nor the emulator nor another command is loaded."""
    code = (
        "import sys; from copilot_sync.cli.program import run; run(sys.argv[1:]);"
        "print(*(name for name in sys.modules if name.split('.')[0] in ('rich', 'markdown_it', 'asyncio')"
        " or name.startswith(('copilot_sync.cli.', 'copilot_sync.emulator'))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    loaded = set(done.stderr.decode().split())
    named = {f"copilot_sync.cli.{name}" for name in COMMANDS}
    assert loaded & named == {f"copilot_sync.cli.{arguments[0]}"} & named
    assert len(arguments) > 1 or loaded <= {
        f"copilot_sync.cli.{name}"
        for name in ("failures", "help_texts", "language", "log", "profile_option", "program", "terminal")
    }
    assert [name for name in loaded if not name.startswith("copilot_sync.cli.")] == []


def test_a_failure_is_status_1(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is on stderr, in one line."""
    served.fail("models", Fault.status(402, message="monthly quota"))
    assert run(["models"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: the account's quota is used up")
    assert err.count("\n") == 1


def test_missing_credentials_are_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: Any) -> None:
    """Without credentials the status is 1, and stderr names every way to give them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(["ask", "x"]) == 1
    assert "COPILOT_SYNC_COOKIES" in capsys.readouterr().err


def test_a_wrong_environment_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting that can't be used is named."""
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "ftp://example.com")
    assert run(["ask", "x"]) == 1
    assert "api_url" in capsys.readouterr().err


def test_ctrl_c_and_a_closed_pipe_have_their_statuses(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes up while the answer is printed ends the program, not with a traceback."""
    for failure, status in ((KeyboardInterrupt(), 130), (BrokenPipeError(), 1)):
        monkeypatch.setattr(sys, "stdout", _Failing(failure))
        assert run(["ask", "x"]) == status


def test_a_full_disk_is_told(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer that can't be written is a failure, with its reason."""
    monkeypatch.setattr(sys, "stdout", _Failing(OSError(28, "No space left on device")))
    assert run(["ask", "x"]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_a_closed_stdout_is_no_traceback(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who closes it wants to see nothing."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run(["ask", "x"]) == 0
    sys.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["chat"], 0),
        (["ask"], 2),
        (["login", "--stdin"], 2),
        (["batch", "-", "-o", "-", "--format", "text"], 0),
        (["threads", "delete", "0b0f"], 2),
    ],
)
def test_a_closed_stdin_holds_nothing(
    arguments: List[str], status: int, served: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as if it were ``/dev/null``."""
    monkeypatch.setattr(sys, "stdin", None)
    assert run(arguments) == status
    sys.stdin.close()


class _Failing(io.StringIO):
    def __init__(self, failure: BaseException) -> None:
        super().__init__()
        self._failure = failure

    def write(self, text: str) -> int:
        raise self._failure


@pytest.mark.parametrize("arguments", [["models"], ["--help"]])
def test_a_pipe_that_nobody_reads_is_quiet(arguments: List[str], served: Emulator) -> None:
    """Every command ends without a word, as before ``| head -1``."""
    with subprocess.Popen(
        command(*arguments),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(20) in (0, 1)
        assert process.stderr.read() == b""


@pytest.mark.parametrize("arguments", [["threads", "list"], ["doctor"], ["ask", "x"]])
def test_ctrl_c_is_130_everywhere(arguments: List[str], served: Emulator) -> None:
    """While the service is silent, and without a traceback."""
    for stage in ("models", "threads", "message"):
        served.fail(stage, Fault.stall())
    with Terminal(*arguments, environment={}) as terminal:
        assert served.wait_until(lambda: served.stalled, timeout=10)
        terminal.send(CTRL_C)
        assert terminal.status() == 130
        assert "Traceback" not in "\n".join(terminal.lines())


@pytest.mark.parametrize("variables, columns", [({"TERM": "dumb"}, 80), ({"LC_ALL": "POSIX"}, 20)])
def test_help_suits_every_terminal(variables: Dict[str, str], columns: int) -> None:
    """No control sequence is in it, and every option is."""
    with Terminal("ask", "--help", environment=variables, columns=columns, rows=100) as terminal:
        assert terminal.status() == 0
        assert max(map(len, terminal.lines())) <= columns
    assert b"\x1b" not in terminal.seen
    for option in ALL[("ask",)].params:
        assert all(name.encode() in terminal.seen for name in option.opts if name.startswith("-"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_be_taught_to_complete(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By click's own means: a variable has the program print the script for the shell."""
    if shell == "bash":
        monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda *_: None)
    monkeypatch.setenv("_COPILOT_SYNC_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit) as exit_info:
        run([])
    assert exit_info.value.code == 0
    assert "copilot-sync" in capsys.readouterr().out


@pytest.mark.parametrize(
    "typed, offered",
    [
        ("copilot-sync ", list(COMMANDS)),
        ("copilot-sync th", ["threads"]),
        ("copilot-sync threads d", ["delete"]),
        ("copilot-sync ask --no", ["--no-stream"]),
    ],
)
def test_commands_and_options_are_completed(
    typed: str, offered: List[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though commands are imported only when they are used."""
    words = typed.split(" ")
    monkeypatch.setenv("_COPILOT_SYNC_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit):
        run([])
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(",")[2] for line in lines) == sorted(offered)


def test_main_ends_the_process_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point takes the process's arguments and exits with what ``run`` gives."""
    monkeypatch.setattr(sys, "argv", ["copilot-sync", "nonsense"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2


def test_ctrl_c_while_the_program_is_loaded_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes his mind at once sees no traceback either."""

    def interrupted(arguments: List[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("copilot_sync.cli.program.run", interrupted)
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 130


def test_the_package_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m copilot_sync`` is the same program."""
    monkeypatch.setattr(sys, "argv", ["copilot-sync", "--version"])
    monkeypatch.delitem(sys.modules, "copilot_sync.__main__", raising=False)
    with pytest.raises(SystemExit) as exit_info:
        importlib.import_module("copilot_sync.__main__")
    assert exit_info.value.code == 0
    assert capsys.readouterr().out.startswith("copilot-sync ")


def test_without_click_there_is_a_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the extra is not installed the program says what to install."""
    monkeypatch.setitem(sys.modules, "click", None)
    for name in [name for name in sys.modules if name.startswith("copilot_sync.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 1
    assert 'pip install "copilot-sync[cli]"' in capsys.readouterr().err
