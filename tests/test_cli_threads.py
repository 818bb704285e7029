"""``copilot-sync threads``: list, show, rename and delete."""

import json
import sys
import time
from pathlib import Path
from typing import Any, List, Optional

import click
import pytest
from command_line import Keys
from terminals import CTRL_C, Terminal

from copilot_sync.cli.backend import _full_id
from copilot_sync.cli.output import ago
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def thread(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """A conversation with one answer; its id."""
    monkeypatch.setattr(sys, "stdin", Keys())
    served.script("- **one**\n- two\x07")
    assert run(["ask", "What is there?"]) == 0
    return next(iter(served.threads))


@pytest.fixture
def _read(thread: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()


pytestmark = pytest.mark.usefixtures("_read")


def test_conversations_are_listed(thread: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each with tabs: id, time to the minute, name."""
    assert run(["threads", "rename", thread, "My\tthread"]) == 0
    assert run(["threads", "list"]) == 0
    identifier, time, name = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (identifier, name) == (thread, "My thread")
    assert len(time) == len("2026-04-15 09:16")
    assert time.count(":") == 1


def test_conversations_are_listed_as_json(thread: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is known of each."""
    assert run(["threads", "rename", thread, "é"]) == 0
    assert run(["threads", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert sorted(listed) == ["created_at", "id", "manually_named", "name", "shared_at", "updated_at"]
    assert (listed["id"], listed["name"], listed["manually_named"]) == (thread, "é", True)


def test_an_account_without_conversations_lists_nothing(
    thread: str, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is no failure."""
    assert run(["threads", "delete", "--yes", thread]) == 0
    assert run(["threads", "list"]) == 0
    assert run(["threads", "list", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_a_conversation_is_shown(thread: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Message by message, each under its role; a pipe gets the text as it is."""
    assert run(["threads", "show", thread]) == 0
    assert capsys.readouterr().out == "user:\nWhat is there?\n\nassistant:\n- **one**\n- two\x07\n"


def test_a_conversation_is_shown_as_json(thread: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every field of every message."""
    assert run(["threads", "show", "--json", thread]) == 0
    asked, answered = json.loads(capsys.readouterr().out)
    assert (asked["role"], asked["content"]) == ("user", "What is there?")
    assert (answered["role"], answered["content"], answered["parent_id"]) == (
        "assistant",
        "- **one**\n- two\x07",
        asked["id"],
    )
    assert {"model", "usage", "references"} <= set(answered)
    assert "data" not in answered


def test_a_name_is_given(thread: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Quietly, or with an object that says so."""
    assert run(["threads", "rename", thread, "first"]) == 0
    assert capsys.readouterr() == ("", "")
    assert run(["threads", "rename", thread, "second", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": thread, "name": "second"}
    assert served.threads[thread].name == "second"


def test_deleting_without_a_question(thread: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """``--yes`` deletes any number; with ``--json`` an object tells of each as it is done."""
    assert run(["threads", "delete", "-y", thread, UNKNOWN, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"id": thread, "deleted": True}
    assert UNKNOWN in err
    assert served.threads == {}


@pytest.mark.parametrize("answer, status", [("y", 0), ("YES", 0), ("", 1), ("n", 1), ("yesterday", 1)])
def test_deleting_is_asked_about(
    answer: str,
    status: int,
    thread: str,
    served: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a terminal, with the id and the name; anything but yes deletes nothing, and that is status 1."""
    assert run(["threads", "rename", thread, "My\x1b[2J name"]) == 0
    monkeypatch.setattr(sys, "stdin", Keys(answer))
    assert run(["threads", "delete", thread]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{thread}  My\ufffd[2J name\nDelete for good? [y/N] " in err
    assert ("nothing was deleted" in err) is bool(status)
    assert (thread in served.threads) is bool(status)


def test_without_a_terminal_deleting_takes_a_yes(
    thread: str, served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is there to ask: it is refused, and nothing is asked of the service."""
    before = len(served.requests)
    monkeypatch.setattr(sys, "stdin", None)
    assert run(["threads", "delete", thread]) == 2
    sys.stdin.close()
    assert "--yes" in capsys.readouterr().err
    assert len(served.requests) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", ".."],
        ["show"],
        ["rename", "..", "name"],
        ["rename", UNKNOWN, " "],
        ["rename", UNKNOWN],
        ["delete", "--yes"],
        ["delete", "--yes", UNKNOWN, ".."],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_status_2(arguments: List[str], served: Emulator) -> None:
    """What can't be a conversation or a name is refused before anything is sent."""
    before = len(served.requests)
    assert run(["threads", *arguments]) == 2
    assert len(served.requests) == before


@pytest.mark.parametrize("arguments", [["show", UNKNOWN], ["rename", UNKNOWN, "name"], ["delete", "-y", UNKNOWN]])
def test_a_conversation_that_is_gone_is_told(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With its id, and status 1."""
    assert run(["threads", *arguments]) == 1
    assert UNKNOWN in capsys.readouterr().err


def test_the_question_in_a_terminal(thread: str, served: Emulator) -> None:
    """Ctrl-C is 130, Ctrl-D is no, and y deletes."""
    for keys, status, deleted in ((CTRL_C, 130, False), ("\x04", 1, False), ("y\r", 0, True)):
        with Terminal("threads", "delete", thread, environment={}) as terminal:
            terminal.expect("[y/N] ")
            terminal.send(keys)
            assert terminal.status() == status
            assert "Traceback" not in "\n".join(terminal.lines())
        assert (thread not in served.threads) is deleted


def test_a_name_cannot_forge_the_question(thread: str, served: Emulator) -> None:
    """It comes from the service: one line, nothing of it obeyed, whatever stands in it."""
    served.threads[thread].name = "harmless\nDelete for good? [y/N] n\r\x1b[2K\u202eother\u200b"
    with Terminal("threads", "delete", thread, environment={}, columns=200) as terminal:
        terminal.expect("other\ufffd")
        terminal.expect("[y/N] ")
        terminal.send("\x04")
        assert terminal.status() == 1
        first, second, *_ = terminal.lines()
    assert first == f"{thread}  harmless Delete for good? [y/N] n \ufffd[2K\ufffdother\ufffd"
    assert second.startswith("Delete for good? [y/N]")
    assert thread in served.threads


def test_a_list_in_a_terminal_has_headings(thread: str) -> None:
    """Above columns that are aligned."""
    with Terminal("threads", "list", environment={}) as terminal:
        assert terminal.status() == 0
        heading, row = terminal.lines()
    assert heading.split() == ["ID", "CHANGED", "NAME"]
    assert row.startswith(thread)
    assert heading.index("CHANGED") == len(thread) + 2


@pytest.mark.parametrize(
    "arguments, shown",
    [([], ["assistant:", " • one", " • two\ufffd"]), (["--raw"], ["assistant:", "- **one**", "- two\ufffd"])],
)
def test_a_conversation_in_a_terminal(arguments: List[str], shown: List[str], thread: str) -> None:
    """Is drawn as Markdown, unless raw text is asked for, and has nothing that the terminal would obey."""
    with Terminal("threads", "show", *arguments, thread, environment={}) as terminal:
        assert terminal.status() == 0
        assert terminal.lines() == ["user:", "What is there?", "", *shown]
    assert b"\x07" not in terminal.seen


def test_a_failure_is_status_1(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """With its reason on stderr."""
    served.fail("threads", Fault.status(403, message="not for you"))
    assert run(["threads", "list"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "not for you" in err


def test_the_service_chooses_a_name(thread: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """``--generate`` prints it, as one line without anything that a terminal would obey."""
    served.fail("rename", *[Fault.status(200, body={"name": "Lists\n\x1b[2J"})] * 2)
    assert run(["threads", "rename", thread, "--generate"]) == 0
    assert capsys.readouterr() == ("Lists \ufffd[2J\n", "")
    assert run(["threads", "rename", "--json", "--generate", thread]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": thread, "name": "Lists\n\x1b[2J"}
    sent = [request.json for request in served.requests if request.stage == "rename"]
    assert sent == [{"name": "", "generate": True}] * 2


def test_a_service_that_chooses_no_name_is_a_failure(
    thread: str, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name was all that was wanted."""
    served.fail("rename", Fault.status(200, body={}))
    assert run(["threads", "rename", thread, "--generate"]) == 1
    assert "the service returned no name" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["WSGI", "--generate"]], ids=["neither", "both"])
def test_a_name_is_given_or_chosen(thread: str, arguments: List[str], served: Emulator) -> None:
    """Anything else is wrong usage, and nothing is sent."""
    assert run(["threads", "rename", thread, *arguments]) == 2
    assert [request.stage for request in served.requests].count("rename") == 0


def test_a_list_can_be_narrowed(thread: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """By a text in the name, in either case, and to so many."""
    assert run(["threads", "rename", thread, "About WSGI"]) == 0
    assert run(["ask", "other"]) == 0
    capsys.readouterr()
    for arguments, count in ((["--search", "wsgi"], 1), (["--search", "asgi"], 0), (["--limit", "1"], 1), ([], 2)):
        assert run(["threads", "list", *arguments]) == 0
        assert len(capsys.readouterr().out.splitlines()) == count
    assert run(["threads", "list", "--limit", "0"]) == 2


def test_a_person_sees_how_long_ago_and_no_line_that_is_too_long(thread: str, served: Emulator) -> None:
    """A program sees the time itself, and the whole name."""
    assert run(["threads", "rename", thread, "A name that is longer than a narrow terminal " * 2]) == 0
    with Terminal("threads", "list", environment=served.environment, columns=70) as terminal:
        assert terminal.status() == 0
        heading, line = terminal.lines()
    assert heading.split() == ["ID", "CHANGED", "NAME"]
    assert "just now" in line
    assert line.endswith("…")
    assert len(line) == 70


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (5, "just now"),
        (60, "1 minute ago"),
        (7300, "2 hours ago"),
        (3 * 86400, "3 days ago"),
        (40 * 86400, None),
        (-600, None),
    ],
)
def test_times_are_told_as_people_do(before: int, words: Optional[str]) -> None:
    """A time that is long past, or to come, as a date."""
    at = time.gmtime(time.time() - before - 1)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", at)
    assert ago(moment) == (words or time.strftime("%Y-%m-%d %H:%M", at))
    assert ago(None) == ""


def test_the_beginning_of_an_id_will_do(thread: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """If no other id begins like that. A whole id costs no look at the list."""
    assert run(["threads", "rename", thread[:8], "named"]) == 0
    assert run(["ask", "--conversation", thread[:6], "again"]) == 0
    assert len(served.threads) == 1
    count = len(served.requests)
    assert run(["threads", "show", thread]) == 0
    assert len(served.requests) == count + 1
    capsys.readouterr()
    missing = "0000" if not thread.startswith("0000") else "1111"
    assert run(["threads", "show", missing]) == 2
    assert f"begins with {missing}" in capsys.readouterr().err
    assert run(["threads", "show", "zzz"]) == 1
    count = len(served.requests)
    assert run(["threads", "show", "abc"]) == 1
    assert len(served.requests) == count + 1
    assert run(["threads", "delete", "--yes", thread[:4]]) == 0
    assert served.threads == {}


def test_a_beginning_of_several_ids_is_refused() -> None:
    """Unless it is one of them itself."""
    known = ["abcd-1", "abcd-2", "abcd"]
    assert _full_id("abcd-1", known) == "abcd-1"
    assert _full_id("abcd", known) == "abcd"
    with pytest.raises(click.UsageError, match="2 conversations have ids that begin with abc"):
        _full_id("abc", known[:2])


def test_the_last_conversation_needs_no_id(thread: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of ``ask`` or ``chat``. One is named in one way."""
    assert run(["threads", "show", "--last"]) == 0
    assert "What is there?" in capsys.readouterr().out
    assert run(["threads", "show"]) == 2
    assert run(["threads", "show", "--last", thread]) == 2
    assert "--last" in capsys.readouterr().err


@pytest.mark.usefixtures("served")
def test_there_may_be_no_last_conversation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """Then the error says where to find one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert run(["threads", "show", "--last"]) == 1
    assert "threads list" in capsys.readouterr().err


def test_a_conversation_is_exported(thread: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As Markdown, as JSON, and as role messages."""
    assert run(["threads", "export", thread]) == 0
    assert capsys.readouterr().out == "## user\n\nWhat is there?\n\n## assistant\n\n- **one**\n- two\x07\n"
    assert run(["threads", "export", "--format", "json", "--last"]) == 0
    assert [message["role"] for message in json.loads(capsys.readouterr().out)] == ["user", "assistant"]
    assert run(["threads", "export", "--format", "openai", thread]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "messages": [
            {"role": "user", "content": "What is there?"},
            {"role": "assistant", "content": "- **one**\n- two\x07"},
        ]
    }
