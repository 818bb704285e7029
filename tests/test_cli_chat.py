"""``copilot-sync chat``: from a pipe, at a keyboard of this process, and in a terminal of its own."""

import io
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, List, Union

import pytest
from command_line import Keys, environment, spawn
from support import PATIENCE, Worker, wait_for, wait_until
from terminals import OwnTerminal

from copilot_sync.cli import chat
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.emulator.demo import demo_answer
from copilot_sync.naming import NAMING_TIMEOUT

STALLED = Fault.stall(("after_events", 1))
TypeIn = Callable[..., None]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> TypeIn:
    """Puts somebody at the keyboard of this process, who types these lines."""

    def put(*lines: Union[str, KeyboardInterrupt]) -> None:
        monkeypatch.setattr(sys, "stdin", Keys(*lines))

    return put


def sent(emulator: Emulator) -> List[Any]:
    """What was asked, in order."""
    return [request.json["content"] for request in emulator.requests if request.stage == "message"]


def test_each_line_of_a_pipe_is_a_question(
    served: Emulator, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one conversation, whose id comes last; blank lines ask nothing, and three quotes hold lines together."""
    piped(b'one\n\n  \n"""\ntwo\n\nthree"""\n')
    assert run(["chat"]) == 0
    (thread,) = served.threads
    assert capsys.readouterr() == ("one\ntwo\n\nthree\n", f"conversation {thread}\n")
    assert sent(served) == ["one", "two\n\nthree"]


def test_the_first_failure_ends_a_piped_chat(
    served: Emulator, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """What follows may depend on it: status 1, the reason, and the conversation to go on with."""
    served.fail("message", None, Fault.status(402))
    piped(b"one\ntwo\nthree\n")
    assert run(["chat"]) == 1
    out, err = capsys.readouterr()
    assert out == "one\n"
    assert err.startswith("conversation ")
    assert "quota" in err
    assert len(sent(served)) == 2


def test_commands_work_in_a_pipe(
    served: Emulator, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """What begins like one but is a path, or stands in a block, is a question."""
    piped(b'/model o1-mini\none\n/etc/hosts?\n/new\n"""/new"""\n/nonsense\n/quit\nnever\n')
    assert run(["chat"]) == 0
    assert sent(served) == ["one", "/etc/hosts?", "/new"]
    assert {request.json["model"] for request in served.requests if request.stage == "message"} == {"o1-mini"}
    assert len(served.threads) == 2
    err = capsys.readouterr().err
    assert "the model is o1-mini" in err
    assert "no command /nonsense" in err
    assert [f"conversation {thread}" in err for thread in served.threads] == [True, True]


def test_a_piped_chat_of_bytes_is_wrong_usage(
    served: Emulator, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not text is refused, after what came before it."""
    piped(b"one\n\xff\n")
    assert run(["chat"]) == 2
    out, err = capsys.readouterr()
    assert out == "one\n"
    assert "not UTF-8" in err


def test_ctrl_c_ends_a_piped_chat(served: Emulator) -> None:
    """130 in mid-answer, and the conversation's id all the same."""
    served.script(Reply(["first", "second"]))
    served.fail("message", STALLED)
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\n")
    with spawn("chat", environment=environment(), stdin=reading) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read().strip() == f"conversation {next(iter(served.threads))}".encode()
    os.close(reading)
    os.close(writing)
    assert sent(served) == ["one"]


class Watched(io.StringIO):
    """A stdout that tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        length = super().write(text)
        self.written.set()
        return length


def interrupt(emulator: Emulator, stdout: Watched) -> None:
    """Press Ctrl-C when the beginning of the answer was written and it does not go on, until the answer is stopped.

    A signal that comes just before the thread blocks is seen when the next one comes.
    """
    wait_for(stdout.written)
    assert emulator.wait_until(lambda: emulator.stalled)
    for _ in range(int(PATIENCE)):  # pragma: no branch - the answer is stopped at some time
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        if emulator.wait_until(lambda: emulator.disconnects, timeout=5):  # pragma: no branch - as above
            break


def test_an_interrupted_chat_in_this_process_is_130(
    served: Emulator, piped: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe has nobody who could go on."""
    watched = Watched()
    monkeypatch.setattr(sys, "stdout", watched)
    served.script(Reply(["first", "second"]))
    served.fail("message", STALLED)
    piped(b"one\ntwo\n")
    interrupting = Worker(lambda: interrupt(served, watched))
    assert run(["chat"]) == 130
    interrupting.result()
    assert watched.getvalue() == "first\n"


def test_a_typed_chat_goes_on_until_ctrl_d(served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]) -> None:
    """The model, the prompts and the id are on stderr where stdout is no terminal; the answers alone are on stdout."""
    typed("one", "", "two")
    assert run(["chat", "-m", "o1-mini"]) == 0
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n"
    assert err == (f"o1-mini: ask, or type /help; Ctrl-D ends\n> > > > \nconversation {next(iter(served.threads))}\n")


def test_a_chat_without_a_question_has_no_conversation(
    served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent, and no id told."""
    typed("/exit")
    assert run(["chat"]) == 0
    assert "conversation" not in capsys.readouterr().err
    assert served.requests == []


def test_a_chat_goes_on_with_a_conversation(served: Emulator, typed: TypeIn) -> None:
    """With one that is named, or with the last one, whichever command had it."""
    assert run(["ask", "--raw", "one"]) == 0
    (identifier,) = served.threads
    for arguments in (["-c"], ["--conversation", identifier]):
        typed("more")
        assert run(["chat", *arguments]) == 0
    assert run(["ask", "-c", "last"]) == 0
    assert list(served.threads) == [identifier]
    assert len(served.threads[identifier].messages) == 8


def test_a_failure_does_not_end_a_typed_chat(
    served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is told, and the next question goes to the same conversation."""
    served.fail("message", Fault.status(402), None)
    typed("one", "two")
    assert run(["chat"]) == 0
    out, err = capsys.readouterr()
    assert out == "two\n"
    assert "Error: the account's quota is used up" in err
    assert len(served.threads) == 1


def test_a_failure_before_the_conversation_began_does_not_end_it_either(
    served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next question begins it."""
    served.fail("token", Fault.status(403, message="not now"))
    typed("one", "two")
    assert run(["chat"]) == 0
    out, err = capsys.readouterr()
    assert out == "two\n"
    assert err.count("Error: ") == 1
    assert len(served.threads) == 1


def test_ctrl_c_stops_an_answer_and_not_the_chat(
    served: Emulator, typed: TypeIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came of the answer stays, and the next question is answered in the same conversation."""
    watched = Watched()
    monkeypatch.setattr(sys, "stdout", watched)
    served.script(Reply(["first", "second"]))
    served.fail("message", STALLED)
    typed("one", "two")
    interrupting = Worker(lambda: interrupt(served, watched))
    assert run(["chat"]) == 0
    interrupting.result()
    assert watched.getvalue() == "first\ntwo\n"
    assert "(stopped)" in capsys.readouterr().err
    assert served.wait_until(lambda: bool(served.disconnects))
    assert len(served.threads) == 1


def test_ctrl_c_at_the_prompt_drops_the_line(
    served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the block that it belongs to; a hint says how the chat ends."""
    typed(KeyboardInterrupt(), '"""', "lost", KeyboardInterrupt(), "asked")
    assert run(["chat"]) == 0
    assert capsys.readouterr().err.count("Ctrl-D or /quit ends") == 2
    assert sent(served) == ["asked"]


def test_instructions_are_told_to_each_conversation_once(served: Emulator, typed: TypeIn) -> None:
    """With the first question that is answered, and again after ``/new``."""
    served.fail("message", Fault.status(402))
    typed("one", "two", "three", "/new", "four")
    assert run(["chat", "--system", "Be brief"]) == 0
    told = "System: Be brief\nUser: {}\nAssistant:"
    assert sent(served) == [told.format("one"), told.format("two"), "three", told.format("four")]


def test_the_model_can_be_shown_and_changed(
    served: Emulator, typed: TypeIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the next question on, in the same conversation."""
    monkeypatch.setenv("COPILOT_SYNC_MODEL", "o1-preview")
    typed("/model", "one", "/model claude-3.5-sonnet ", "two")
    assert run(["chat"]) == 0
    err = capsys.readouterr().err
    assert "the model is o1-preview\n" in err
    assert "the model is claude-3.5-sonnet\n" in err
    models = [request.json["model"] for request in served.requests if request.stage == "message"]
    assert models == ["o1-preview", "claude-3.5-sonnet"]
    assert len(served.threads) == 1


def test_help_shows_every_command(served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]) -> None:
    """And how several lines are entered."""
    typed("/help")
    assert run(["chat"]) == 0
    err = capsys.readouterr().err
    for word in ("/model [ID]", "/new", "/save FILE", "/help", "/quit", '"""', "Ctrl-C"):
        assert word in err
    typed(*re.findall(r"^(/\w+)", chat._HELP, re.MULTILINE))
    assert run(["chat"]) == 0
    assert "there is no command" not in capsys.readouterr().err


def test_a_chat_can_be_saved(
    served: Emulator, typed: TypeIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """This conversation, as Markdown, what failed left out; again under the same name, never over another file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("mine.md").write_text("mine")
    served.fail("message", None, None, Fault.status(402))
    typed(
        "before", "/new", "one é", "lost", "/save chat.md", "two", "/save ~/chat.md", "/save chat.md",
        "/save mine.md", "/save", "/save missing/chat.md",
    )  # fmt: skip
    assert run(["chat"]) == 0
    err = capsys.readouterr().err
    for words in (
        "saved to chat.md\n> ",
        "~/chat.md is there already",
        "mine.md is there already",
        "/save needs",
        "missing/chat.md can't be written: No such file",
    ):
        assert words in err
    turns = ["## user\n\none é\n", "## assistant\n\none é\n", "## user\n\ntwo\n", "## assistant\n\ntwo\n"]
    assert Path("chat.md").read_text(encoding="utf-8") == "\n".join(turns)
    assert Path("mine.md").read_text() == "mine"


def test_the_embedded_emulator_can_be_talked_to(typed: TypeIn, capsys: pytest.CaptureFixture[str]) -> None:
    """Without account and network, and nothing of it is kept but the lines that were typed."""
    typed("one", "two")
    assert run(["chat", "--emulator"]) == 0
    assert capsys.readouterr().out == demo_answer("one") + demo_answer("two")
    assert os.listdir(Path(os.environ["XDG_STATE_HOME"], "copilot-sync")) == ["chat-history"]


@pytest.mark.parametrize("arguments", [["--conversation", ".."], ["-c", "--conversation", "a"], ["question"]])
def test_wrong_usage_is_status_2(served: Emulator, typed: TypeIn, arguments: List[str]) -> None:
    """Before anything is asked."""
    typed()
    assert run(["chat", *arguments]) == 2
    assert served.requests == []


def test_answers_are_drawn_in_a_terminal(
    served: Emulator, typed: TypeIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Markdown, unless raw text is asked for."""
    for arguments, line in (([], "bold"), (["--raw"], "**bold**")):
        typed("**bold**")
        with OwnTerminal() as terminal:
            with monkeypatch.context() as patch:
                patch.setenv("TERM", "xterm")
                patch.setattr(sys, "stdout", terminal.file)
                assert run(["chat", *arguments]) == 0
            drawn, prompt = terminal.finish()
            # No terminal has echoed what was typed, so that an answer which is drawn again covers the first prompt.
            assert (drawn.lstrip("> "), prompt) == (line, ">")


def test_ctrl_c_pressed_again_at_once_does_not_end_the_chat(
    served: Emulator, typed: TypeIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the hint about the first one is being written."""
    presses, note = 2, chat._note

    def pressed(text: str, **values: object) -> None:
        nonlocal presses
        if "ends the chat" in text and presses:
            presses -= 1
            raise KeyboardInterrupt
        note(text, **values)

    monkeypatch.setattr(chat, "_note", pressed)
    typed(KeyboardInterrupt(), "one")
    assert run(["chat"]) == 0
    assert (presses, sent(served)) == (0, ["one"])
    assert capsys.readouterr().err.count("(Ctrl-D or /quit ends the chat)") == 1


def named(emulator: Emulator) -> List[Any]:
    """The conversations for which a name was asked, in order."""
    requests = [request for request in emulator.requests if request.stage == "rename"]
    assert all(request.json == {"name": "", "generate": True} for request in requests)
    return [request.thread_id for request in requests]


class WaitingKeys(Keys):  # type: ignore[misc] # of a module that is not checked
    """Somebody who types the next line when something has happened, and who ends the chat after that as well."""

    def __init__(self, happened: Callable[[], object], *lines: str) -> None:
        super().__init__(*lines)
        self._happened = happened
        self._typed = False

    def readline(self, size: Any = -1) -> Any:
        if self._typed:
            assert self._happened()
        self._typed = True
        return super().readline(size)


def test_a_new_conversation_is_named_while_the_next_question_is_typed(
    served: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each conversation, after its first whole answer."""
    served.script(Reply(["one"], error="boom"), "two", "three", "four")
    counts = iter([0, 1, 1, 1, 2])

    def happened() -> bool:
        count = next(counts)
        return served.wait_until(lambda: len(named(served)) == count)

    monkeypatch.setattr(sys, "stdin", WaitingKeys(happened, "fails", "first", "second", "/new", "other"))
    assert run(["chat"]) == 0
    first, second = served.threads
    assert named(served) == [first, second]


def test_a_conversation_that_is_continued_keeps_its_name(served: Emulator, typed: TypeIn) -> None:
    """Somebody may have chosen it."""
    typed("one")
    assert run(["ask", "hi"]) == 0
    typed("two")
    assert run(["chat", "--continue"]) == 0
    assert named(served) == []


def test_a_piped_chat_names_nothing(served: Emulator, piped: Callable[[bytes], None]) -> None:
    """Its program asked for answers alone."""
    piped(b"one\ntwo\n")
    assert run(["chat"]) == 0
    assert named(served) == []


def test_a_name_holds_up_nobody(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next question is asked, other conversations begin and the chat ends while the service still thinks."""
    served.fail("rename", Fault.stall(), Fault.stall())
    before = set(threading.enumerate())
    happened = iter([lambda: served.stalled == 1, lambda: True, lambda: True, lambda: len(named(served)) == 2])
    keys = WaitingKeys(lambda: served.wait_until(next(happened)), "one", "two", "/new", "three")
    monkeypatch.setattr(sys, "stdin", keys)
    began = time.monotonic()
    assert run(["chat"]) == 0
    assert time.monotonic() - began < NAMING_TIMEOUT / 2
    assert sent(served) == ["one", "two", "three"]
    wait_until(lambda: not {thread for thread in threading.enumerate() if "naming" in thread.name} - before)


def test_a_name_that_could_not_be_had_is_not_spoken_of(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody asked for it."""
    served.fail("rename", Fault.status(500))
    keys = WaitingKeys(lambda: served.wait_until(lambda: len(named(served)) == 1), "one")
    monkeypatch.setattr(sys, "stdin", keys)
    assert run(["chat"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("one\n")
    assert err.splitlines()[-1].startswith("conversation ")
    assert "500" not in err


def test_a_file_goes_with_the_next_question(
    served: Emulator, typed: TypeIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With that one alone, be it new or in the place of the last one."""
    path = tmp_path / "app.py"
    path.write_text("x = 1\n")
    typed("/file", f"/file {path}", "one", "two", f"/file {path}", "/edit three", f"/file {tmp_path}")
    assert run(["chat"]) == 0
    bodies = [request.json for request in served.requests if request.stage == "message"]
    assert [body["content"] for body in bodies] == ["one", "two", "three"]
    assert [len(body["references"]) for body in bodies] == [1, 0, 1]
    err = capsys.readouterr().err
    assert "needs the name of a file" in err
    assert err.count("goes with the next question") == 2
    assert f"--file {tmp_path}" in err


def test_instructions_can_be_changed(served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]) -> None:
    """They begin a new conversation, which gets them, and so do those after it."""
    typed("/system", "one", "/system Be brief", "/system", "two", "/new", "three")
    assert run(["chat"]) == 0
    assert sent(served) == ["one", *(f"System: Be brief\nUser: {each}\nAssistant:" for each in ("two", "three"))]
    assert len(served.threads) == 3
    err = capsys.readouterr().err
    assert "there are no instructions" in err
    assert "the instructions are: Be brief" in err


def test_another_conversation_is_found_and_gone_on_with(
    served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the first characters of its id. Its last answer is shown, and the next question belongs to it."""
    served.script("first answer")
    assert run(["ask", "first question"]) == 0
    (thread,) = served.threads
    assert run(["threads", "rename", thread, "About WSGI"]) == 0
    capsys.readouterr()
    typed("/copy", "other", "/list wsgi", "/list nothing", f"/resume {thread[:8]}", "/copy", "again")
    assert run(["chat", "--system", "Be brief"]) == 0
    out, err = capsys.readouterr()
    assert re.search(rf"{thread[:8]}  \S.*  About WSGI$", err, re.MULTILINE)
    assert "there is no such conversation" in err
    assert "user:\nfirst question\nassistant:\nfirst answer\n" in out
    assert f"going on with {thread}" in err
    assert err.index("there is no answer yet") < err.index("there is no terminal here that has a clipboard")
    last = [request for request in served.requests if request.stage == "message"][-1]
    assert last.json["content"] == "again"
    assert thread in last.path
    assert run(["ask", "--continue", "and again"]) == 0
    assert len(served.threads) == 2


def test_a_list_of_conversations_is_not_endless(
    served: Emulator, typed: TypeIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many are left out is said."""
    monkeypatch.setattr(chat, "_LISTED", 1)
    for question in ("one", "two"):
        assert run(["ask", question]) == 0
    typed("/list")
    assert run(["chat"]) == 0
    assert "and 1 more" in capsys.readouterr().err


def test_what_cannot_be_listed_or_resumed_ends_no_chat(
    served: Emulator, typed: TypeIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each says why, and the conversation stays what it was."""
    served.fail("threads", Fault.status(404), Fault.status(404))
    typed("one", "/resume", "/resume ..", "/resume 0000", "/list", "/resume no-such-thread", "two")
    assert run(["chat"]) == 0
    err = capsys.readouterr().err
    assert "/resume needs the id" in err
    assert err.count("Error: ") >= 2
    assert len(served.threads) == 1
    assert sent(served) == ["one", "two"]
