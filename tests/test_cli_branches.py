"""Branches on the command line: ``/retry`` and ``/edit`` in ``chat``, and what ``threads show`` draws."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Union

import pytest
from command_line import Keys

from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply

TypeIn = Callable[..., None]


@pytest.fixture(autouse=True)
def _numbered(served: Emulator) -> None:
    """An emulator that numbers its answers."""
    numbers = itertools.count(1)
    served.reply = lambda prompt: f"answer {next(numbers)}"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> TypeIn:
    """Puts somebody at the keyboard of this process, who types these lines."""

    def put(*lines: Union[str, KeyboardInterrupt]) -> None:
        monkeypatch.setattr(sys, "stdin", Keys(*lines))

    return put


def sent(emulator: Emulator) -> List[Dict[str, Any]]:
    return [request.json for request in emulator.requests if request.stage == "message"]


def contents(emulator: Emulator) -> List[str]:
    return [body["content"] for body in sent(emulator)]


def saved(path: Path) -> List[str]:
    """The turns of a transcript, questions and answers by turns."""
    return [line for line in path.read_text().splitlines() if line and not line.startswith("##")]


def test_a_question_is_asked_again(
    served: Emulator, typed: TypeIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the model of the chat, or by another one for this once; the transcript has the answer that is continued."""
    typed("one", "two", "/retry o1-preview", "/model claude-3.5-sonnet", "/retry", "three", f"/save {tmp_path}/chat.md")
    assert run(["chat", "-m", "o1-mini"]) == 0
    assert capsys.readouterr().out == "".join(f"answer {number}\n" for number in range(1, 6))
    assert [(body["content"], body["model"]) for body in sent(served)] == [
        ("one", "o1-mini"), ("two", "o1-mini"), ("two", "o1-preview"), ("two", "claude-3.5-sonnet"),
        ("three", "claude-3.5-sonnet"),
    ]  # fmt: skip
    parents = [body["parentMessageID"] for body in sent(served)]
    assert parents[1] == parents[2] == parents[3] != parents[4]
    assert saved(tmp_path / "chat.md") == ["one", "answer 1", "two", "answer 4", "three", "answer 5"]


def test_a_question_is_edited(served: Emulator, typed: TypeIn, tmp_path: Path) -> None:
    """In the same line, or in the next line or block; other commands may come in between."""
    typed(
        "one", "two", "/edit 2", "/edit", "/model o1-mini", "II", "/edit", '"""a', 'b"""', "/retry",
        f"/save {tmp_path}/chat.md",
    )  # fmt: skip
    assert run(["chat"]) == 0
    assert contents(served) == ["one", "two", "2", "II", "a\nb", "a\nb"]
    assert len({body["parentMessageID"] for body in sent(served)[1:]}) == 1
    assert saved(tmp_path / "chat.md") == ["one", "answer 1", "a", "b", "answer 6"]


@pytest.mark.parametrize(
    "lines",
    [["/edit", ""], ["/edit", KeyboardInterrupt()], ["/edit", '""""""'], ["/edit", "/retry"], ["/edit", "/edit one"]],
    ids=["blank", "ctrl-c", "empty-block", "retry", "edit"],
)
def test_an_edit_can_be_given_up(
    served: Emulator, typed: TypeIn, lines: List[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The question after it is the next one of the conversation."""
    typed("one", *lines, "two")
    assert run(["chat"]) == 0
    *_, last = sent(served)
    assert last["content"] == "two"
    assert last["parentMessageID"] != "root"


def test_a_new_conversation_ends_an_edit(served: Emulator, typed: TypeIn) -> None:
    typed("one", "/edit", "/new", "two")
    assert run(["chat"]) == 0
    assert len(served.threads) == 2


@pytest.mark.parametrize("command", ["/retry", "/edit", "/edit x"])
def test_there_may_be_nothing_to_ask_again(
    served: Emulator, piped: Callable[[bytes], None], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words, in a pipe as well; nothing is sent."""
    piped(f"{command}\n".encode())
    assert run(["chat"]) == 0
    assert "there is no question yet" in capsys.readouterr().err
    assert served.requests == []


def test_a_pipe_may_ask_again(
    served: Emulator, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    piped(b"one\n/retry\n/edit\ntwo\n")
    assert run(["chat"]) == 0
    assert contents(served) == ["one", "one", "two"]


def test_a_stored_conversation_is_asked_again(
    served: Emulator, typed: TypeIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its last question is looked up, and comes into the transcript."""
    assert run(["ask", "stored"]) == 0
    typed("/retry", f"/save {tmp_path}/chat.md")
    assert run(["chat", "-c"]) == 0
    assert contents(served) == ["stored", "stored"]
    assert sent(served)[1]["parentMessageID"] == "root"
    assert saved(tmp_path / "chat.md") == ["stored", "answer 2"]
    typed("next")
    assert run(["chat", "-c"]) == 0
    assert sent(served)[2]["parentMessageID"] == served.threads[next(iter(served.threads))].messages[3]["id"]


def test_a_look_up_that_fails_is_told(
    served: Emulator, typed: TypeIn, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not end a typed chat, and ends a piped one."""
    assert run(["ask", "stored"]) == 0
    served.fail("messages", Fault.status(403, message="not now"))
    typed("/edit x", "next")
    assert run(["chat", "-c"]) == 0
    assert "not now" in capsys.readouterr().err
    assert contents(served) == ["stored", "next"]
    served.fail("messages", Fault.status(403, message="not now"))
    piped(b"/retry\nnext\n")
    assert run(["chat", "-c"]) == 1
    assert contents(served) == ["stored", "next"]


def test_a_failed_question_is_asked_again(
    served: Emulator, typed: TypeIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the instructions that it carried; and a retry that fails leaves the earlier answer in the transcript."""
    served.fail("message", Fault.status(402), None, Fault.status(402), None)
    typed("one", "/retry", "/retry", "two", f"/save {tmp_path}/chat.md")
    assert run(["chat", "--system", "Be brief"]) == 0
    told = "System: Be brief\nUser: one\nAssistant:"
    assert contents(served) == [told, told, told, "two"]
    assert capsys.readouterr().err.count("Error: ") == 2
    assert saved(tmp_path / "chat.md") == ["one", "answer 1", "two", "answer 2"]


def test_an_edit_brings_the_instructions_of_the_question_in_its_place(served: Emulator, typed: TypeIn) -> None:
    """They would be lost with that; a later question has none."""
    typed("one", "/edit two", "three", "/edit four")
    assert run(["chat", "--system", "Be brief"]) == 0
    told = "System: Be brief\nUser: {}\nAssistant:"
    assert contents(served) == [told.format("one"), told.format("two"), "three", "four"]


def test_an_edit_brings_instructions_that_were_not_sent_yet(served: Emulator, typed: TypeIn) -> None:
    """A retry does not: it sends the text of before."""
    assert run(["ask", "stored"]) == 0
    typed("/retry", "/edit one", "two")
    assert run(["chat", "-c", "--system", "Be brief"]) == 0
    assert contents(served) == ["stored", "stored", "System: Be brief\nUser: one\nAssistant:", "two"]


def branches(emulator: Emulator) -> str:
    """Make a thread of three branches, and return its id."""
    from copilot_sync import Client

    with Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        chat = client.chat()
        chat.ask("first")
        chat.ask("second")
        chat.retry()
        chat.edit("third")
        chat.ask("fourth")
    return next(iter(emulator.threads))


NEWEST = "user:\nfirst\n\nassistant:\nanswer 1\n\nuser:\nthird\n\nassistant:\nanswer 4\n\nuser:\nfourth\n"


def test_the_branch_that_is_continued_is_shown(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """And that there are others; all of them if they are asked for, and with ``--json``."""
    thread = branches(served)
    assert run(["threads", "show", thread]) == 0
    out, err = capsys.readouterr()
    assert out == f"{NEWEST}\nassistant:\nanswer 5\n"
    assert err == "2 other branches; --all shows every message\n"
    assert run(["threads", "show", "--all", thread]) == 0
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line and not line.endswith(":")] == [
        "first", "answer 1", "second", "answer 2", "second", "answer 3", "third", "answer 4", "fourth", "answer 5",
    ]  # fmt: skip
    assert err == ""
    for arguments in ([], ["--all"]):
        assert run(["threads", "show", "--json", *arguments, thread]) == 0
        out, err = capsys.readouterr()
        listed = json.loads(out)
        assert len(listed) == 10
        assert [message["parent_id"] for message in listed[2::2]].count(listed[1]["id"]) == 3
        assert err == ""


def test_a_question_without_an_answer_is_shown(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    thread = branches(served)
    del served.threads[thread].messages[-1]
    assert run(["threads", "show", thread]) == 0
    assert capsys.readouterr() == (NEWEST, "2 other branches; --all shows every message\n")


@pytest.mark.parametrize("parent", [None, "", 5], ids=["null", "empty", "number"])
def test_a_thread_without_parents_is_shown_whole(
    served: Emulator, capsys: pytest.CaptureFixture[str], parent: object
) -> None:
    """In the order in which it is listed."""
    thread = branches(served)
    for message in served.threads[thread].messages:
        message["parentMessageID"] = parent
    assert run(["threads", "show", thread]) == 0
    out, err = capsys.readouterr()
    assert out.count(":\n") == 10
    assert err == ""


def test_a_thread_that_goes_round_is_shown(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """As far as it has a branch; the rest is told of."""
    thread = branches(served)
    messages = served.threads[thread].messages
    first, second, third, fourth = messages[:4]
    first["parentMessageID"], third["parentMessageID"] = second["id"], fourth["id"]
    messages[:] = messages[:4]
    assert run(["threads", "show", thread]) == 0
    out, err = capsys.readouterr()
    assert "answer 2" in out
    assert err == "1 other branch; --all shows every message\n"


def test_an_empty_thread_shows_nothing(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    thread = branches(served)
    served.threads[thread].messages.clear()
    for arguments in ([], ["--all"]):
        assert run(["threads", "show", *arguments, thread]) == 0
        assert capsys.readouterr() == ("", "")


def test_a_retry_that_was_stopped_leaves_the_answer_of_before(
    served: Emulator, typed: TypeIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the transcript and for the next question; what came of a first answer is replaced."""
    from copilot_sync.cli import chat as module

    show, stops = module.show_answer, iter([True, False, True, False])

    def show_until_stopped(stream: Any, raw: bool, waits: Any) -> None:
        if next(stops):
            next(stream)
            raise KeyboardInterrupt
        show(stream, raw, waits)

    monkeypatch.setattr(module, "show_answer", show_until_stopped)
    served.script(*[Reply(["half", " whole"])] * 4)
    typed("one", f"/save {tmp_path}/stopped.md", "/retry", "/retry", "two", f"/save {tmp_path}/chat.md")
    assert run(["chat"]) == 0
    assert saved(tmp_path / "stopped.md") == ["one", "half"]
    assert saved(tmp_path / "chat.md") == ["one", "half whole", "two", "half whole"]
    assert sent(served)[-1]["parentMessageID"] == sent(served)[1]["responseMessageID"]
