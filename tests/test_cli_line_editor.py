"""The line editor of ``chat``, in this process: keys that are typed at once, and what Tab offers."""

import asyncio
import contextlib
import functools
import os
import sys
import threading
import tty
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import click
import pytest
from prompt_toolkit.completion import CompleteEvent, Completer, DummyCompleter
from prompt_toolkit.document import Document
from support import Worker, wait_for, wait_until
from terminals import CTRL_C, CTRL_D, TAB, OwnTerminal

from copilot_sync.cli import main
from copilot_sync.cli.line_editor import CommandCompleter, FetchedWords, LineEditor, PathCompleter
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator
from copilot_sync.errors import NetworkError


class _Keyboard:
    """A terminal that delivers keys as they are: ``file``."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.file: Any = open(slave, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - closed by close

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def close(self) -> None:
        self.file.close()
        os.close(self._master)


@pytest.fixture
def keyboard() -> Iterator[_Keyboard]:
    with contextlib.closing(_Keyboard()) as opened:
        yield opened


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnTerminal]:
    monkeypatch.setenv("TERM", "xterm")
    with OwnTerminal() as terminal:
        yield terminal


def test_lines_are_read_until_the_end_of_input(keyboard: _Keyboard, screen: OwnTerminal) -> None:
    """Keys that came too early belong to the next line; Tab is a character of a question."""
    editor = LineEditor(keyboard.file, screen.file, [], DummyCompleter())
    keyboard.type(f"one{TAB}é\rtwo\rdropped{CTRL_C}{CTRL_D}")
    assert [editor.line("> ") for _ in range(2)] == ["one\té", "two"]
    with pytest.raises(KeyboardInterrupt):
        editor.line("> ")
    with pytest.raises(EOFError):
        editor.line("> ")
    assert screen.finish()[0] == "> one     é"


def test_what_is_printed_meanwhile_stands_above_the_line(
    keyboard: _Keyboard, screen: OwnTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is drawn again below it."""

    def print_meanwhile() -> None:
        wait_until(lambda: b"begun" in screen.seen)
        click.echo("\x1b[1mnews\x1b[0m", err=True)
        wait_until(lambda: b"news" in screen.seen)
        keyboard.type(" and ended\r")

    keyboard.type("begun")
    printing = Worker(print_meanwhile)
    assert LineEditor(keyboard.file, screen.file, [], DummyCompleter()).line("> ") == "begun and ended"
    printing.result()
    assert screen.finish() == ["news", "> begun and ended"]
    assert b"\x1b[1mnews" in screen.seen


def offered(completer: Completer, text: str) -> List[Tuple[str, str]]:
    """What Tab offers after a text: what the text becomes, and what that means."""

    async def collect() -> List[Any]:
        return [each async for each in completer.get_completions_async(Document(text), CompleteEvent())]

    return [
        (text[: len(text) + each.start_position] + each.text, each.display_meta_text) for each in asyncio.run(collect())
    ]


WORDS = [("o1-mini", "small"), ("o1-preview", ""), ("gpt-5", "")]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/", ["/model", "/new"]),
        ("/m", ["/model"]),
        ("/model", ["/model"]),
        ("/x", []),
        ("m", []),
        ("/model o1-p", ["/model o1-preview"]),
        ("/model ", ["/model o1-mini", "/model o1-preview", "/model gpt-5"]),
        ("/new x", []),
        ("/x y", []),
    ],
)
def test_commands_and_their_arguments_are_completed(text: str, expected: List[str]) -> None:
    """By whatever completes what the command takes."""
    completer = CommandCompleter({"/model": FetchedWords(lambda: WORDS), "/new": None})
    assert [line for line, _ in offered(completer, text)] == expected
    assert list(completer.get_completions(Document(text), CompleteEvent())) == []


def test_files_are_completed(tmp_path: Path) -> None:
    """With spaces in their names too."""
    (tmp_path / "a file").write_text("")
    completer = CommandCompleter({"/file": PathCompleter()})
    assert [line for line, _ in offered(completer, f"/file {tmp_path}/a ")] == [f"/file {tmp_path}/a file"]


def test_a_list_is_fetched_once() -> None:
    """When it is first needed; one that fails is fetched again, and no error comes out."""
    answers: List[Any] = [NetworkError("no route", stage="models"), WORDS]
    calls: List[None] = []

    def fetch() -> Any:
        calls.append(None)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    completer = FetchedWords(fetch)
    assert calls == []
    assert offered(completer, "g") == []
    assert [offered(completer, "o1-m"), offered(completer, "g")] == [[("o1-mini", "small")], [("gpt-5", "")]]
    assert len(calls) == 2


def test_a_list_that_is_on_its_way_is_not_fetched_again() -> None:
    """Whoever asks meanwhile waits for the same one."""
    release = threading.Event()
    calls: List[None] = []

    def fetch() -> Any:
        calls.append(None)
        wait_for(release)
        return WORDS

    async def ask_twice() -> List[int]:
        asking = [asyncio.ensure_future(count()) for _ in range(2)]
        await asyncio.sleep(0)
        release.set()
        return [await each for each in asking]

    async def count() -> int:
        return len([each async for each in completer.get_completions_async(Document(""), CompleteEvent())])

    completer = FetchedWords(fetch)
    assert asyncio.run(ask_twice()) == [3, 3]
    assert len(calls) == 1


@pytest.mark.parametrize("to_terminal", [True, False], ids=["stdout", "stderr"])
def test_a_chat_in_a_terminal_edits_its_lines(
    to_terminal: bool, keyboard: _Keyboard, screen: OwnTerminal, served: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And completes what the service knows, and offers a question again that is to be edited.

    It is drawn on stderr if stdout goes elsewhere.
    """

    def type_in() -> None:
        for count, command in enumerate(("/model x", "/resume 0"), 1):
            keyboard.type(command + TAB)
            assert served.wait_until(functools.partial(is_asked, count))
            keyboard.type(CTRL_C)
        keyboard.type("asked\r/edit\r again\r/quit\r")

    def is_asked(count: int) -> bool:
        return len([each for each in served.requests if each.stage in ("models", "threads")]) == count

    monkeypatch.setattr(sys, "stdin", keyboard.file)
    monkeypatch.setattr(sys, "stderr", screen.file)
    if to_terminal:
        monkeypatch.setattr(sys, "stdout", screen.file)
    typing = Worker(type_in)
    assert run(["chat", "--raw"]) == 0
    typing.result()
    assert [each.json["content"] for each in served.requests if each.stage == "message"] == ["asked", "asked again"]
    assert ("asked" in screen.finish()) is to_terminal


def test_an_editor_that_is_not_installed_is_told(
    keyboard: _Keyboard, screen: OwnTerminal, served: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to type: the extra of an earlier release did not bring it."""
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    monkeypatch.delitem(sys.modules, "copilot_sync.cli.line_editor")
    monkeypatch.setattr(sys, "argv", ["copilot-sync", "chat"])
    monkeypatch.setattr(sys, "stdin", keyboard.file)
    monkeypatch.setattr(sys, "stderr", screen.file)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert 'the command line needs prompt_toolkit: pip install "copilot-sync[cli]"' in "".join(screen.finish())
