"""``copilot-sync chat`` in a terminal of its own: what is typed and pasted, and what each key does in each state."""

import os
import re
import stat
from base64 import b64decode
from pathlib import Path
from typing import Any, Dict, List

import pytest
from terminals import CTRL_C, CTRL_D, TAB, UP, Terminal, has_colours

from copilot_sync.cli.clipboard import LONGEST
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply

#: The line editor has taken over, and what is pasted comes as one text.
READY = "\x1b[?2004h"
HINT = "(Ctrl-D or /quit ends the chat)"


def sent(emulator: Emulator) -> List[Any]:
    """What was asked, in order."""
    return [request.json["content"] for request in emulator.requests if request.stage == "message"]


def pasted(text: str) -> str:
    """A text as a terminal delivers it that marks what is pasted."""
    return f"\x1b[200~{text}\x1b[201~"


def test_a_chat_in_a_terminal(served: Emulator, tmp_path: Path) -> None:
    """Line editing, the history, a block, Markdown while it comes, Ctrl-C in mid-answer, /new, /save, Ctrl-D."""
    served.script(Reply(["half an **ans", "wer**"]), "- one\n- two", "edited", "block", "anew")
    served.fail("message", Fault.stall(("after_events", 1)))
    path = tmp_path / "chat.md"
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.line("first é")
        terminal.expect("ans")
        assert served.wait_until(lambda: served.stalled)
        terminal.send(CTRL_C)
        terminal.expect("(stopped)")
        terminal.expect(READY)
        terminal.line("second")
        terminal.expect(READY)
        terminal.send(UP + UP)
        terminal.expect("first é")
        terminal.line(", again")
        terminal.expect(READY)
        for line in ('"""', "a", 'b"""', f"/save {path}", "/new", "last"):
            terminal.line(line)
            terminal.expect(READY)
        terminal.send(CTRL_D)
        assert terminal.status() == 0
        lines = terminal.lines()
    assert sent(served) == ["first é", "second", "first é, again", "a\nb", "last"]
    first, second = served.threads
    assert [line for line in lines if line.startswith("conversation ")] == [
        f"conversation {first}",
        f"conversation {second}",
    ]
    assert lines[lines.index("> second") :][1:3] == [" • one", " • two"]
    assert lines[lines.index('> """') :][1:3] == [". a", '. b"""']
    assert "half an **ans" in lines
    assert path.read_text(encoding="utf-8").count("## user") == 4
    history = Path(os.environ["XDG_STATE_HOME"], "copilot-sync", "chat-history")
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert history.read_text(encoding="utf-8").splitlines()[:2] == ["first é", "second"]


def test_the_history_outlives_the_chat(served: Emulator) -> None:
    """The next one offers the lines of the last one."""
    for keys in ("asked before", UP):
        with Terminal("chat", environment={}) as terminal:
            terminal.expect(READY)
            terminal.line(keys)
            terminal.expect(READY)
            terminal.send(CTRL_D)
            assert terminal.status() == 0
    assert sent(served) == ["asked before", "asked before"]


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    return 1",
        "if x:\r\n\treturn 1".replace("\r", ""),
        "".join(f"line {number} é\n" for number in range(1500)) + "end",
        "word " * 4000 + "end",
    ],
    ids=["two lines", "a tab", "20 KB in lines", "20 KB in one line"],
)
@pytest.mark.parametrize("columns", [80, 20])
def test_what_is_pasted_is_one_question(text: str, columns: int, served: Emulator) -> None:
    """Whatever lines it has, however long it is; Return sends it."""
    served.reply = "taken"
    with Terminal("chat", environment={}, columns=columns) as terminal:
        terminal.expect(READY)
        terminal.send(pasted(text))
        terminal.line("")
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
        lines = terminal.lines()
    assert sent(served) == [text]
    assert "taken" in lines


def test_an_editor_can_be_opened(served: Emulator) -> None:
    """With what was typed so far; what it saves is asked."""
    with Terminal("chat", environment={"EDITOR": "sed -i s/one/two/", "VISUAL": ""}) as terminal:
        terminal.expect(READY)
        terminal.send("one and more\x18\x05")
        terminal.expect("two and more")
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    assert sent(served) == ["two and more"]


def test_a_question_that_is_edited_stands_in_the_line(served: Emulator) -> None:
    """As it was asked, to be changed there or in an editor; the next line is empty again."""
    with Terminal("chat", environment={"EDITOR": "sed -i s/more/most/", "VISUAL": ""}) as terminal:
        terminal.expect(READY)
        terminal.line("one and more")
        terminal.expect(READY)
        terminal.line("/edit")
        terminal.expect("> one and more")
        terminal.send("\x18\x05")
        terminal.expect("one and most")
        terminal.expect(READY)
        terminal.line("two")
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    assert sent(served) == ["one and more", "one and most", "two"]


def test_lines_that_a_terminal_does_not_mark_are_questions(served: Emulator) -> None:
    """Each of them, as if they were typed; a tab in one is not lost."""
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.line("one\ttwo\rthree")
        terminal.expect(READY)
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    assert sent(served) == ["one\ttwo", "three"]


def test_bytes_that_are_no_text_can_be_typed(served: Emulator) -> None:
    """What a terminal in another encoding sends is asked as well as it can be."""
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.line("a\udcffb")
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    assert sent(served) == ["a\ufffdb"]


def test_a_terminal_in_koi8_r_can_chat(served: Emulator) -> None:
    """Its letters arrive, are shown and come back; the history is in UTF-8 all the same."""
    served.reply = "ответ: —"
    question = "Что такое WSGI?"
    for keys in (question.encode("koi8-r"), (UP + UP).encode()):
        with Terminal("chat", environment={"PYTHONIOENCODING": "koi8-r"}) as terminal:
            terminal.expect(READY)
            terminal.line(keys.decode("utf-8", "surrogateescape"))
            terminal.expect(READY)
            terminal.line("/quit")
            assert terminal.status() == 0
        assert question.encode("koi8-r") in re.sub(rb"\x1b\[[\d;?]*\w", b"", terminal.seen)
        assert "ответ: ?".encode("koi8-r") in terminal.seen
    assert sent(served) == [question, question]


@pytest.mark.parametrize(
    "variables, drawn, coloured",
    [
        ({"TERM": "dumb"}, False, False),
        ({"LC_ALL": "POSIX", "NO_COLOR": "1"}, True, False),
    ],
    ids=["dumb", "POSIX"],
)
def test_every_terminal_can_chat(variables: Dict[str, str], drawn: bool, coloured: bool, served: Emulator) -> None:
    """Letters beyond ASCII arrive from each keyboard and on each screen, at 20 columns too."""
    served.script("*é* `code`")
    prompt = READY if drawn else "> "
    with Terminal("chat", environment=variables, columns=20) as terminal:
        terminal.expect(prompt)
        terminal.line("naïve é 🙂?")
        terminal.expect("code")
        terminal.expect(prompt)
        terminal.line("/quit")
        assert terminal.status() == 0
        lines = terminal.lines()
    assert sent(served) == ["naïve é 🙂?"]
    assert ("é code" in lines) is drawn
    assert ("*é* `code`" in lines) is not drawn
    assert has_colours(terminal.seen) is coloured
    assert (b"\x1b" in terminal.seen) is (variables.get("TERM") != "dumb")


def test_ctrl_c_and_ctrl_d_on_a_dumb_terminal(served: Emulator) -> None:
    """The first discards the line, the second ends the chat."""
    with Terminal("chat", environment={"TERM": "dumb"}) as terminal:
        terminal.expect("> ")
        terminal.send(CTRL_C)
        terminal.expect(HINT)
        terminal.expect("> ")
        terminal.line("asked")
        terminal.expect("asked\r\nasked\r\n")
        terminal.expect("> ")
        terminal.send(CTRL_D)
        assert terminal.status() == 0
    assert sent(served) == ["asked"]


def test_answers_may_go_elsewhere(served: Emulator, tmp_path: Path) -> None:
    """Then the line is edited on stderr, and stdout has the answers alone."""
    path = tmp_path / "answers.txt"
    with Terminal("chat", environment={}, stdout=path) as terminal:
        terminal.expect(READY)
        terminal.line("on\x7fne")
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    assert path.read_text() == "one\n"


@pytest.mark.parametrize("lines", [[""], ["typed"], ['"""', "inside", "typed"]], ids=["empty", "line", "block"])
def test_ctrl_c_drops_what_is_typed(lines: List[str], served: Emulator) -> None:
    """A line, or the block that it belongs to; a hint says how the chat ends, and the next line is asked."""
    with Terminal("chat", environment={}) as terminal:
        *entered, last = lines
        for line in entered:
            terminal.expect(READY)
            terminal.line(line)
        terminal.expect(READY)
        terminal.send(last)
        terminal.expect_line(f"{'.' if entered else '>'} {last}".rstrip())
        terminal.send(CTRL_C)
        terminal.expect(HINT)
        terminal.expect(READY)
        terminal.line("asked")
        terminal.expect(READY)
        terminal.send(CTRL_D)
        assert terminal.status() == 0
    assert sent(served) == ["asked"]


@pytest.mark.parametrize("stage", ["token", "thread", "message"])
def test_ctrl_c_while_an_answer_is_waited_for(stage: str, served: Emulator) -> None:
    """In each state that comes before its first word; the chat goes on."""
    served.fail(stage, Fault.stall())
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.line("one")
        assert served.wait_until(lambda: served.stalled)
        terminal.send(CTRL_C)
        terminal.expect("(stopped)")
        terminal.expect(READY)
        terminal.line("two")
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    assert sent(served)[-1:] == ["two"]


@pytest.mark.parametrize("command", ["/list", "/resume 0b0f"])
def test_ctrl_c_while_a_command_waits(command: str, served: Emulator) -> None:
    """It is given up, and the chat goes on."""
    served.fail("threads", Fault.stall())
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.line(command)
        assert served.wait_until(lambda: served.stalled)
        terminal.send(CTRL_C)
        terminal.expect(HINT)
        terminal.expect(READY)
        terminal.line("asked")
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    assert sent(served) == ["asked"]


def test_ctrl_c_while_a_name_is_asked_for(served: Emulator) -> None:
    """It discards the line that is being typed, as ever, and the chat goes on and ends at once."""
    served.fail("rename", Fault.stall())
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.line("one")
        assert served.wait_until(lambda: served.stalled)
        terminal.expect(READY)
        terminal.send(CTRL_C)
        terminal.expect("ends the chat")
        terminal.line("/quit")
        assert terminal.status() == 0


def test_a_list_that_waits_leaves_the_line_alone(served: Emulator) -> None:
    """What is typed stays to be seen while Tab asks again for a list, and so does the list when it comes."""
    served.fail("models", Fault.status(503, retry_after=2))
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.send(f"/model gpt-5-m{TAB}")
        terminal.expect_line("> /model gpt-5-mini")
        terminal.send(f"{CTRL_C}{CTRL_D}")
        assert terminal.status() == 0
    assert b"waiting" not in terminal.seen


def test_tab_completes_what_a_command_takes(served: Emulator, tmp_path: Path) -> None:
    """Commands, models, conversations and files; the lists are fetched once."""
    path = tmp_path / "a file.txt"
    path.write_text("content")
    assert run(["ask", "asked before"]) == 0
    (identifier,) = served.threads
    with Terminal("chat", environment={}, columns=200) as terminal:
        for typed, line in (
            ("/mod", "/model"),
            ("/model gpt-5-m", "/model gpt-5-mini"),
            ("/model gpt-5.3", "/model gpt-5.3-codex"),
            (f"/file {path}"[:-6], f"/file {path}"),
            (f"/resume {identifier[:4]}", f"/resume {identifier}"),
        ):
            terminal.expect(READY)
            terminal.send(typed + TAB)
            terminal.expect_line(f"> {line}")
            terminal.line("")
        terminal.expect("going on with")
        terminal.expect(READY)
        terminal.send(CTRL_D)
        assert terminal.status() == 0
    assert [request.stage for request in served.requests].count("models") == 1


def test_a_list_that_does_not_come_holds_up_nobody(served: Emulator) -> None:
    """Typing goes on, Ctrl-C discards the line, and the chat ends at once. Who only types has nothing fetched."""
    served.fail("models", Fault.stall())
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.send("/model o1")
        terminal.expect_line("> /model o1")
        assert served.requests == []
        terminal.send(TAB)
        assert served.wait_until(lambda: served.stalled)
        terminal.send("-x\r")
        terminal.expect("the model is o1-x")
        terminal.expect(READY)
        terminal.send("/model o1" + TAB + CTRL_C)
        terminal.expect(HINT)
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    assert [request.stage for request in served.requests].count("models") == 1


def test_a_terminal_may_change_its_size(served: Emulator) -> None:
    """While a line is typed and while an answer comes: both are drawn anew, and nothing of them is lost."""
    words = [f"word{number}" for number in range(30)]
    served.script(Reply([f"{word} " for word in words]))
    served.fail("message", Fault.stall(("after_events", 25)))
    question = "abcdefghij" * 6
    with Terminal("chat", environment={}) as terminal:
        terminal.expect(READY)
        terminal.send(question)
        terminal.expect_line(f"> {question}")
        terminal.resize(24, 40)
        terminal.expect_line(f"> {question[:38]}")
        terminal.line("")
        terminal.expect("word24")
        terminal.resize(24, 20)
        terminal.expect_line("word0 word1 word2")
        terminal.send(CTRL_C)
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
        shown = "\n".join(terminal.lines())
    assert sent(served) == [question]
    assert shown[shown.rindex("word0 ") : shown.index("(stopped)")].split() == words[:25]


def test_the_last_answer_goes_to_the_clipboard(served: Emulator) -> None:
    """Whole, as the model wrote it; if there is none, or if it is huge, that is told."""
    answers = ["**é** \x1b]52;c;x\x07", "x" * (LONGEST + 1)]
    served.script(*answers)
    with Terminal("chat", environment={}) as terminal:
        for line, told in (
            ("/copy", "no answer yet"),
            ("one", "52"),
            ("/copy", "was sent to the clipboard"),
            ("two", "xx"),
            ("/copy", "too long"),
            ("/new", "a new conversation"),
            ("/copy", "no answer yet"),
        ):
            terminal.expect(READY)
            terminal.line(line)
            terminal.expect(told)
        terminal.expect(READY)
        terminal.line("/quit")
        assert terminal.status() == 0
    (copied,) = re.findall(rb"\x1b\]52;c;([^\x07]*)\x07", terminal.seen)
    assert b64decode(copied).decode() == answers[0]
