"""The command line: in this process where only words matter, in one of its own where pipes, signals and statuses do."""

import contextlib
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, List

import pytest

from copilot_sync.cli import main
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply


class _Terminal(io.StringIO):
    """Stands for a stdin that is neither a pipe nor a file."""

    def fileno(self) -> int:
        raise OSError("a terminal in this test has no descriptor")


@pytest.fixture(autouse=True)
def _quiet_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal())


@pytest.fixture
def served(copilot_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An emulator that the environment points at."""
    for name, value in copilot_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return copilot_emulator


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Puts bytes into a real pipe that is stdin."""
    with contextlib.ExitStack() as stack:

        def put(content: bytes) -> None:
            reading, writing = os.pipe()
            os.write(writing, content)
            os.close(writing)
            monkeypatch.setattr(sys, "stdin", stack.enter_context(open(reading, encoding="ascii")))

        yield put


def _command(*arguments: str) -> List[str]:
    return [sys.executable, "-m", "copilot_sync", *arguments]


def _environment(**variables: str) -> Dict[str, str]:
    return {**os.environ, **variables}


def _spawn(*arguments: str, environment: Dict[str, str], **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        _command(*arguments), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_ask_prints_the_answer(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer goes to stdout with a newline at its end, nothing to stderr, and the status is 0."""
    assert run(["ask", "two words"]) == 0
    assert capsys.readouterr() == ("two words\n", "")


def test_an_answer_that_ends_its_line_gets_no_second_newline(
    served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newline ends the answer only where it has none."""
    served.script("done\n", "done\n")
    assert run(["ask", "x"]) == 0
    assert run(["ask", "--no-stream", "x"]) == 0
    assert capsys.readouterr().out == "done\ndone\n"


def test_ask_whole_prints_the_same(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """``--no-stream`` prints the answer once it is whole."""
    assert run(["ask", "--no-stream", "two words"]) == 0
    assert capsys.readouterr().out == "two words\n"


def test_ask_json_is_one_object(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` prints text, conversation, message, model, usage and whether the answer is complete."""
    served.script(Reply(["é"], usage={"inputTokens": 3, "outputTokens": 1}))
    assert run(["ask", "--json", "--model", "o1-mini", "x"]) == 0
    out = capsys.readouterr().out
    (thread,) = served.threads
    answer = json.loads(out)
    assert out.count("\n") == 1
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.pop("message_id"))
    assert answer == {
        "text": "é",
        "conversation_id": thread,
        "model": "o1-mini",
        "usage": {"input_tokens": 3, "output_tokens": 1},
        "complete": True,
    }


def test_ask_json_without_usage(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the service counts nothing, ``usage`` is null."""
    served.script(Reply(["x"], usage={}, complete={"usage": None}))
    assert run(["ask", "--json", "x"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"] is None


def test_ask_goes_on_with_a_conversation(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """``--conversation`` sends to that thread."""
    run(["ask", "--json", "one"])
    identifier = json.loads(capsys.readouterr().out)["conversation_id"]
    assert run(["ask", "--conversation", identifier, "two"]) == 0
    assert list(served.threads) == [identifier]


@pytest.mark.parametrize("arguments", [[], ["-"]], ids=["missing", "dash"])
def test_the_prompt_may_come_from_stdin(
    served: Emulator, arguments: List[str], piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an argument, or with ``-``, stdin is the prompt, in UTF-8 whatever the locale."""
    piped("in é put".encode())
    assert run(["ask", *arguments]) == 0
    assert capsys.readouterr() == ("in é put\n", "")


def test_argument_and_stdin_go_together(served: Emulator, piped: Callable[[bytes], None]) -> None:
    """The argument, an empty line, the input."""
    piped(b"+ x = 1")
    assert run(["ask", "Review this"]) == 0
    assert served.requests[-1].json["content"] == "Review this\n\n+ x = 1"


def test_dev_null_is_not_waited_for(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stdin is no pipe and no file, the argument is the whole prompt."""
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert run(["ask", "alone"]) == 0
    assert served.requests[-1].json["content"] == "alone"


@pytest.mark.parametrize(
    ("stdin", "words"),
    [(b"", "nothing to ask"), (b" \n", "nothing to ask"), (b"\xff\xfe\x00", "not UTF-8")],
    ids=["empty", "blank", "binary"],
)
def test_no_prompt_is_wrong_usage(
    stdin: bytes, words: str, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without anything to ask the status is 2, and stderr says why."""
    piped(stdin)
    assert run(["ask"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


@pytest.mark.parametrize(
    "arguments",
    [["ask", "x", "--nonsense"], ["nonsense"], ["ask", "--conversation", "..", "x"]],
    ids=["option", "command", "conversation"],
)
def test_wrong_usage_is_status_2(served: Emulator, arguments: List[str]) -> None:
    """What can't be understood is refused before anything is sent."""
    assert run(arguments) == 2
    assert served.requests == []


def test_a_failure_is_status_1(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is on stderr, in one line."""
    served.fail("message", Fault.status(402, message="monthly quota"))
    assert run(["ask", "x"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: the account's quota is used up")
    assert err.count("\n") == 1


def test_a_torn_answer_ends_its_line_before_the_error(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """What had been printed stays, and the error stands on a line of its own."""
    served.script(Reply(["half"], error="broken"))
    assert run(["ask", "x"]) == 1
    out, err = capsys.readouterr()
    assert out == "half\n"
    assert "broken" in err


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


def test_the_embedded_emulator_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--emulator`` answers without account and network, behind a dead proxy too, and says on stderr what it is."""
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run(["ask", "--emulator", "Explain WSGI in one line"]) == 0
    out, err = capsys.readouterr()
    assert out == "Explain WSGI in one line\n"
    assert "emulator" in err


def test_pieces_are_printed_as_they_come(served: Emulator) -> None:
    """The first piece is in the pipe while the second is not sent yet."""
    served.script(Reply(["first", "second"]))
    served.fail("message", Fault.stall(("after_events", 1)))
    with _spawn("ask", "x", environment=_environment(**served.environment), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"first"
        assert served.wait_until(lambda: served.stalled)
        served.release()
        assert process.stdout.read() == b"second\n"
        assert process.wait(10) == 0


def test_ctrl_c_is_status_130(served: Emulator) -> None:
    """Ctrl-C in mid-answer: 130, no traceback, and the server sees the connection close."""
    served.script(Reply(["first", "second"]))
    served.fail("message", Fault.stall(("after_events", 1)))
    with _spawn("ask", "x", environment=_environment(**served.environment), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert b"Traceback" not in process.stderr.read()
    assert served.wait_until(lambda: bool(served.disconnects))


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


class _Failing(io.StringIO):
    def __init__(self, failure: BaseException) -> None:
        super().__init__()
        self._failure = failure

    def write(self, text: str) -> int:
        raise self._failure


def test_a_closed_pipe_is_quiet(served: Emulator) -> None:
    """Where nobody reads any more, the program ends without a word."""
    served.script(Reply(["line\n"] * 2000))
    with _spawn("ask", "x", environment=_environment(**served.environment), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) in (0, 1)
        assert process.stderr.read() == b""


def test_a_narrow_terminal_encoding_replaces_what_it_has_not(served: Emulator) -> None:
    """On an ASCII terminal a letter that it lacks becomes ``?``, and nothing fails."""
    served.script("é!")
    done = subprocess.run(
        _command("ask", "x"),
        stdin=subprocess.DEVNULL,
        env=_environment(PYTHONIOENCODING="ascii", **served.environment),
        check=False,
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stdout) == (0, b"?!\n")


def test_the_emulator_prints_what_to_export_and_ends_quietly() -> None:
    """``emulator`` prints an environment that works, and Ctrl-C ends it with status 0."""
    with _spawn("emulator", environment=_environment(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(3)]
        variables = dict(re.findall(r"export (\w+)='?([^'\n]*)", "".join(lines)))
        done = subprocess.run(
            _command("ask", "hello"), stdin=subprocess.DEVNULL, env=_environment(**variables), check=False,
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


def test_the_emulator_says_when_a_port_is_taken(capsys: pytest.CaptureFixture[str], copilot_emulator: Emulator) -> None:
    """A port that is in use is an error with its reason."""
    port = copilot_emulator.github_url.rpartition(":")[2]
    assert run(["emulator", "--port", port]) == 1
    assert "port" in capsys.readouterr().err


def test_help_and_version_are_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` shows the commands and ``--version`` the version, with status 0."""
    assert run(["--help"]) == 0
    assert run(["--version"]) == 0
    out = capsys.readouterr().out
    assert "ask" in out
    assert "  COPILOT_SYNC_API_KEY   a token\n" in out
    assert "emulator" in out
    assert re.search(r"copilot-sync \d+\.\d+", out)


def test_main_ends_the_process_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point takes the process's arguments and exits with what ``run`` gives."""
    monkeypatch.setattr(sys, "argv", ["copilot-sync", "nonsense"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2


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
