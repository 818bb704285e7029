"""``copilot-sync ask``: in this process where words matter, in one of its own where pipes, signals and screens do."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from command_line import Keys, command, environment, in_background, spawn
from support import PATIENCE, reserved_port
from terminals import CTRL_C, Terminal, has_colours

from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.emulator.demo import demo_answer

STALLED = Fault.stall(("after_events", 1))
MARKDOWN = "# Title\n\nSome *words* and `code`.\n\n- one\n- two\n\n```python\nx = 1\n```\n\nThe end."


@pytest.fixture(autouse=True)
def _nobody_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Keys())


def asked(emulator: Emulator) -> Any:
    """The body of the last message."""
    return [request.json for request in emulator.requests if request.stage == "message"][-1]


def test_ask_prints_the_answer(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer goes to stdout with a newline at its end, nothing to stderr, and the status is 0."""
    assert run(["ask", "two words"]) == 0
    assert capsys.readouterr() == ("two words\n", "")


def test_several_arguments_are_one_question(served: Emulator) -> None:
    """Nobody has to quote a question."""
    assert run(["ask", "Explain", "WSGI", "--raw"]) == 0
    assert asked(served)["content"] == "Explain WSGI"


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


def test_a_whole_answer_is_printed_whole_or_not_at_all(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--no-stream`` nothing of an answer that failed is printed."""
    served.script(Reply(["half"], error="broken"))
    assert run(["ask", "--no-stream", "x"]) == 1
    assert capsys.readouterr().out == ""


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
        "references": [],
    }


def test_ask_json_without_usage(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the service counts nothing, ``usage`` is null."""
    served.script(Reply(["x"], usage={}, complete={"usage": None}))
    assert run(["ask", "--json", "x"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"] is None


def test_an_end_that_was_not_announced_is_told(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer may be cut: ``complete`` is false, and without ``--json`` a line on stderr says so."""
    served.reply = Reply(["x"], complete=False)
    served.fail("messages", Fault.status(404), Fault.status(404))
    assert run(["ask", "--json", "x"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is False
    assert run(["ask", "x"]) == 0
    out, err = capsys.readouterr()
    assert out == "x\n"
    assert err == (
        "copilot-sync: the reply ended in good order, but the service did not say that the answer is complete\n"
    )


def test_ask_goes_on_with_a_conversation(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """``--conversation`` sends to that thread."""
    run(["ask", "--json", "one"])
    identifier = json.loads(capsys.readouterr().out)["conversation_id"]
    assert run(["ask", "--conversation", identifier, "two"]) == 0
    assert list(served.threads) == [identifier]


def test_continue_goes_on_with_the_last_conversation(served: Emulator) -> None:
    """Whatever began it, and as an answer to its last message."""
    for arguments in (["--json", "one"], ["-c", "two"], ["--continue", "--no-stream", "three"]):
        assert run(["ask", *arguments]) == 0
    (thread,) = served.threads.values()
    assert [message["content"] for message in thread.messages] == ["one", "one", "two", "two", "three", "three"]
    assert asked(served)["parentMessageID"] == thread.messages[3]["id"]


def test_continue_knows_the_conversation_of_a_host_that_is_looked_up(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the page that names it: another ``github_url`` has other conversations."""
    served.options.plan = "business"
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "auto")
    assert [run(["ask", "one"]), run(["ask", "-c", "two"])] == [0, 0]
    [thread] = served.threads.values()
    assert [message["content"] for message in thread.messages] == ["one", "one", "two", "two"]
    monkeypatch.setenv("COPILOT_SYNC_GITHUB_URL", "http://127.0.0.1:9")
    capsys.readouterr()
    assert run(["ask", "-c", "three"]) == 1
    assert "no last conversation" in capsys.readouterr().err


def test_continue_goes_on_after_a_failure_too(served: Emulator) -> None:
    """The conversation is kept as soon as it has begun."""
    served.script(Reply(["one"], error="it broke"))
    assert run(["ask", "one"]) == 1
    assert run(["ask", "-c", "two"]) == 0
    assert len(served.threads) == 1


def test_a_refused_question_is_no_last_conversation(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Its thread was empty and is deleted; the conversation before it stays the last one."""
    assert run(["ask", "one"]) == 0
    [kept] = served.threads
    served.fail("message", Fault.status(422))
    assert run(["ask", "refused"]) == 1
    assert list(served.threads) == [kept]
    assert run(["ask", "-c", "two"]) == 0
    assert [message["content"] for message in served.threads[kept].user_messages] == ["one", "two"]


def test_the_first_question_that_is_refused_leaves_nothing_to_continue(
    served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a thread nor a last conversation."""
    served.fail("message", Fault.status(422))
    assert run(["ask", "refused"]) == 1
    assert not served.threads
    assert run(["ask", "-c", "two"]) == 1
    assert "no last conversation" in capsys.readouterr().err


def test_continue_needs_something_to_go_on_with(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a last conversation, or with garbage in its place, the reason is told and nothing is sent."""
    assert run(["ask", "-c", "x"]) == 1
    assert "no last conversation" in capsys.readouterr().err
    folder = Path(os.environ["XDG_STATE_HOME"], "copilot-sync")
    folder.mkdir(parents=True)
    (folder / "conversations.json").write_bytes(b"\xff garbage")
    assert run(["ask", "-c", "x"]) == 1
    assert "no last conversation" in capsys.readouterr().err
    assert served.requests == []


def test_another_service_has_another_last_conversation(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation is unknown to every other host, so it is not gone on with there."""
    assert run(["ask", "one"]) == 0
    with Emulator() as other:
        for name, value in other.environment.items():
            monkeypatch.setenv(name, value)
        assert run(["ask", "-c", "x"]) == 1
        assert other.requests == []


def test_without_a_place_to_keep_anything_it_answers(
    served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a file system that takes no files nothing is lost but the convenience."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_STATE_HOME", "/proc")
    assert run(["ask", "x"]) == 0
    assert capsys.readouterr() == ("x\n", "")
    assert run(["ask", "-c", "x"]) == 1


def test_one_token_does_for_many_invocations(served: Emulator) -> None:
    """It is kept in the user's cache folder, for its owner alone; ``off`` keeps none."""
    for _ in range(3):
        assert run(["ask", "x"]) == 0
    assert served.tokens_issued == 1
    (path,) = Path(os.environ["XDG_CACHE_HOME"]).glob("*/*")
    assert path.parts[-2:] == ("copilot-sync", "tokens.json")
    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]


@pytest.mark.parametrize("setting, issued", [("off", 2), ("tokens", 1)])
def test_the_token_cache_can_be_chosen(
    setting: str, issued: int, served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``COPILOT_SYNC_TOKEN_CACHE`` names another file, or turns it off; the usual place is left alone then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COPILOT_SYNC_TOKEN_CACHE", setting)
    for _ in range(2):
        assert run(["ask", "x"]) == 0
    assert served.tokens_issued == issued
    assert os.listdir(tmp_path) == ([] if setting == "off" else ["tokens"])
    assert not Path(os.environ["XDG_CACHE_HOME"]).exists()


def test_files_go_along(served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as a reference of the message, in the order in which they are named."""
    monkeypatch.chdir(tmp_path)
    Path("app.py").write_text("x = 1\n")
    Path("README").write_text("é")
    assert run(["ask", "--file", "app.py", "-f", "README", "What is it?"]) == 0
    assert asked(served)["references"] == [
        {"type": "thread-scoped-file", "name": "app.py", "text": "x = 1\n", "language": "py"},
        {"type": "thread-scoped-file", "name": "README", "text": "é", "language": ""},
    ]


def test_images_go_along(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """By their addresses. One that can't be sent is wrong usage, and nothing is asked."""
    addresses = ["https://example.com/a.png", "https://example.com/b"]
    assert run(["ask", "--image", addresses[0], "--image", addresses[1], "What is it?"]) == 0
    assert asked(served)["content"] == "What is it?"
    assert [image["url"] for image in asked(served)["mediaContent"]] == addresses
    count = len(served.requests)
    assert run(["ask", "--image", "cat.png", "What is it?"]) == 2
    assert "https://" in capsys.readouterr().err
    assert len(served.requests) == count


def test_a_question_may_be_given_up(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """After the seconds of ``--timeout``, whatever the service does meanwhile."""
    served.fail("message", STALLED)
    assert run(["ask", "--timeout", "0.3", "x"]) == 1
    assert "0.3 s" in capsys.readouterr().err
    assert run(["ask", "--timeout", "0", "x"]) == 2


def test_a_proxy_can_be_named(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says which one could not be reached. The emulator inside the program needs none."""
    with reserved_port() as port:
        assert run(["ask", "--proxy", f"http://127.0.0.1:{port}", "--timeout", "1", "x"]) == 1
        assert "proxy" in capsys.readouterr().err
        assert run(["ask", "--emulator", "--proxy", f"http://127.0.0.1:{port}", "x"]) == 0
    assert run(["ask", "--proxy", "ftp://proxy", "x"]) == 2
    assert "proxy must be a URL such as" in capsys.readouterr().err


def test_instructions_go_along(served: Emulator) -> None:
    """As a new conversation's first role, or before the question of one that goes on."""
    assert run(["ask", "--system", "Be brief", "one"]) == 0
    assert asked(served)["content"] == "System: Be brief\nUser: one\nAssistant:"
    assert run(["ask", "-s", "Be brief", "-c", "two"]) == 0
    assert asked(served)["content"] == "Be brief\n\ntwo"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["x", "--nonsense"], "--nonsense"),
        (["x", "--conversation", ".."], ".."),
        (["x", "--conversation", "a", "--continue"], "exclude each other"),
        (["x", "--file", "missing.txt"], "missing.txt"),
        (["x", "--file", "."], "is a directory"),
        (["x", "--file", "logo.png"], "logo.png: it is not UTF-8 text"),
        (["x", "--model", "\ud800"], "Unicode"),
        ([], "nothing to ask"),
    ],
    ids=["option", "conversation", "both", "missing", "folder", "binary", "model", "question"],
)
def test_wrong_usage_is_status_2(
    arguments: List[str],
    words: str,
    served: Emulator,
    tmp_path: Path,
    piped: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What can't be understood is refused before anything is sent, and the reason names it."""
    monkeypatch.chdir(tmp_path)
    Path("logo.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    piped(b"")
    assert run(["ask", *arguments]) == 2
    assert words in capsys.readouterr().err
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


def test_the_embedded_emulator_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--emulator`` answers without account and network, behind a dead proxy too, and says on stderr what it is."""
    for name in ("NO_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    before = dict(os.environ)
    assert run(["ask", "--emulator", "Explain WSGI in one line"]) == 0
    out, err = capsys.readouterr()
    assert out == demo_answer("Explain WSGI in one line")
    assert "emulator" in err
    assert dict(os.environ) == before


def test_the_embedded_emulator_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a token nor a conversation that would be gone with it, wherever they are kept."""
    monkeypatch.setenv("COPILOT_SYNC_TOKEN_CACHE", str(tmp_path / "tokens.json"))
    assert run(["ask", "--emulator", "x"]) == 0
    assert run(["ask", "--emulator", "--continue", "x"]) == 1
    assert os.listdir(tmp_path) == []
    assert not Path(os.environ["XDG_STATE_HOME"]).exists()
    assert not Path(os.environ["XDG_CACHE_HOME"]).exists()


def test_pieces_are_printed_as_they_come(served: Emulator) -> None:
    """The first piece is in the pipe while the second is not sent yet."""
    served.script(Reply(["first", "second"]))
    served.fail("message", STALLED)
    with spawn("ask", "x", environment=environment(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"first"
        assert served.wait_until(lambda: served.stalled)
        served.release()
        assert process.stdout.read() == b"second\n"
        assert process.wait(10) == 0


def test_ctrl_c_is_status_130(served: Emulator) -> None:
    """Ctrl-C in mid-answer: 130, no traceback, and the server sees the connection close."""
    served.script(Reply(["first", "second"]))
    served.fail("message", STALLED)
    with spawn("ask", "x", environment=environment(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert b"Traceback" not in process.stderr.read()
    assert served.wait_until(lambda: bool(served.disconnects))


def test_ctrl_c_stays_ignored_if_it_was_ignored_at_the_start(served: Emulator) -> None:
    """``nohup copilot-sync ask &`` goes on to the end of the answer: the program sets no handler of its own."""
    interrupted = threading.Event()

    def pieces(prompt: str) -> Iterator[str]:
        yield "first "
        interrupted.wait(PATIENCE)
        yield "second"

    served.reply = Reply(pieces)
    arguments = in_background(command("ask", "x"))
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"first"
        process.send_signal(signal.SIGINT)
        interrupted.set()
        assert process.stdout.read() == b" second\n"
        assert process.wait(10) == 0


def test_a_closed_pipe_is_quiet(served: Emulator) -> None:
    """Where nobody reads any more, the program ends without a word."""
    served.script(Reply(["line\n"] * 2000))
    with spawn("ask", "x", environment=environment(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) in (0, 1)
        assert process.stderr.read() == b""


def test_a_narrow_encoding_replaces_what_it_has_not(served: Emulator) -> None:
    """In an ASCII pipe a letter that it lacks becomes ``?``, and nothing fails."""
    served.script("é!")
    done = subprocess.run(
        command("ask", "x"),
        stdin=subprocess.DEVNULL,
        env=environment(PYTHONIOENCODING="ascii"),
        check=False,
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stdout) == (0, b"?!\n")


def test_markdown_is_drawn_live(served: Emulator) -> None:
    """The first words are on the screen while the rest is not sent yet; in the end the answer is there once."""
    served.script(Reply(["# Title\n\nfirst **wor", MARKDOWN[9:]]))
    served.fail("message", STALLED)
    with Terminal("ask", "x", environment={}) as terminal:
        terminal.expect("wor")
        assert served.wait_until(lambda: served.stalled)
        served.release()
        assert terminal.status() == 0
        text = "\n".join(terminal.lines())
    assert [text.count(word) for word in ("Title", "first", "• one", "x = 1", "The end.")] == [1] * 5
    assert has_colours(terminal.seen)


@pytest.mark.parametrize(
    "variables, drawn, coloured",
    [
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"LANG": "C", "LC_ALL": "", "LC_CTYPE": ""}, True, True),
        ({"LC_ALL": "POSIX"}, True, True),
        ({"PYTHONIOENCODING": "latin-1"}, False, False),
    ],
    ids=["NO_COLOR", "dumb", "LANG=C", "POSIX", "latin-1"],
)
def test_every_terminal_gets_what_it_can_show(
    variables: Dict[str, str], drawn: bool, coloured: bool, served: Emulator
) -> None:
    """Markdown where lines can be drawn, else its text; colours where they are wanted; never a failure."""
    served.script(MARKDOWN + " é\x1b[2J\x07")
    with Terminal("ask", "x", environment=variables) as terminal:
        assert terminal.status() == 0
        lines = terminal.lines()
    assert (" • one" in lines) is drawn
    assert ("- one" in lines) is not drawn
    assert has_colours(terminal.seen) is coloured
    assert b"\x1b[2J" not in terminal.seen
    assert b"\x07" not in terminal.seen
    assert "[2J" in lines[-1]


def test_raw_text_is_drawn_on_no_terminal(served: Emulator) -> None:
    """``--raw`` prints what the model wrote."""
    served.script(MARKDOWN)
    with Terminal("ask", "--raw", "x", environment={}) as terminal:
        assert terminal.status() == 0
        assert terminal.lines() == MARKDOWN.split("\n")
    assert b"\x1b" not in terminal.seen


def test_a_narrow_terminal_holds_every_word(served: Emulator) -> None:
    """At 20 columns lines are broken between words, and nothing is lost or doubled."""
    words = [f"word{number}" for number in range(60)]
    served.script(Reply([f"{word} " for word in words], pace=0.005))
    with Terminal("ask", "x", environment={}, rows=8, columns=20) as terminal:
        assert terminal.status() == 0
        assert " ".join(terminal.lines()).split() == words


def test_a_whole_answer_is_drawn_too(served: Emulator) -> None:
    """``--no-stream`` changes when it is drawn, not how."""
    served.script(MARKDOWN)
    with Terminal("ask", "--no-stream", "x", environment={}) as terminal:
        assert terminal.status() == 0
        assert " • two" in terminal.lines()


def test_json_in_a_terminal_is_the_same_object(served: Emulator) -> None:
    """Without anything that the terminal would obey."""
    served.script("\x1b[31mé\x9b")
    with Terminal("ask", "--json", "x", environment={}, columns=500) as terminal:
        assert terminal.status() == 0
    assert json.loads(terminal.seen)["text"] == "\x1b[31mé\x9b"
    assert b"\x1b" not in terminal.seen


def test_a_typed_ctrl_c_leaves_the_terminal_in_order(served: Emulator) -> None:
    """130, what had come stays on the screen, no traceback, and the cursor is where it can be seen."""
    served.script(Reply(["half an **ans", "wer**"]))
    served.fail("message", STALLED)
    with Terminal("ask", "x", environment={}) as terminal:
        terminal.expect("ans")
        assert served.wait_until(lambda: served.stalled)
        terminal.send(CTRL_C)
        assert terminal.status() == 130
        assert terminal.lines() == ["half an **ans"]
    assert b"\x1b[?25l" not in terminal.seen
    assert served.wait_until(lambda: bool(served.disconnects))


def test_a_question_can_be_typed(served: Emulator) -> None:
    """Without an argument the terminal is read to its Ctrl-D, and a hint says so."""
    with Terminal("ask", environment={}) as terminal:
        terminal.expect("Ctrl-D\r\n")
        terminal.line("one")
        terminal.line("two")
        terminal.expect("two")
        terminal.send("\x04")
        assert terminal.status() == 0
    assert asked(served)["content"] == "one\ntwo\n"


USED = Reply(["one"], complete={"references": [{"type": "file", "path": "a\x1b.py"}, {"title": "PEP 3333"}]})


@pytest.mark.parametrize("arguments", [[], ["--raw"], ["--no-stream"]], ids=["drawn", "raw", "whole"])
def test_a_terminal_shows_what_the_answer_used(served: Emulator, arguments: List[str]) -> None:
    """Under it, and with nothing that the terminal would obey."""
    served.script(USED)
    with Terminal("ask", *arguments, "hi", environment={}, columns=40) as terminal:
        assert terminal.status() == 0
        assert terminal.lines() == ["one", "", "[1] a\ufffd.py", "[2] PEP 3333"]


def test_a_pipe_gets_the_answer_alone(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Footnotes are for people; ``--json`` has the references for programs."""
    served.script(USED, USED)
    assert run(["ask", "hi"]) == 0
    assert capsys.readouterr() == ("one\n", "")
    assert run(["ask", "--json", "hi"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["references"] == [{"type": "file", "path": "a\x1b.py"}, {"title": "PEP 3333"}]


def test_an_answer_that_used_nothing_has_no_footnotes(served: Emulator) -> None:
    """Not even an empty line."""
    served.script(Reply(["one"]))
    with Terminal("ask", "hi", environment={}) as terminal:
        assert terminal.status() == 0
        assert terminal.lines() == ["one"]
