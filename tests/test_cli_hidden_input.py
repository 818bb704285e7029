"""What is typed or pasted at ``login`` is read whole and never seen, and the terminal is as it was afterwards."""

import os
import pty
import select
import sys
import termios
import threading
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional

import click
import pytest
from support import PATIENCE, wait_until
from terminals import CTRL_C, CTRL_D, OwnTerminal, Terminal

from copilot_sync.auth.stored_logins import load_login
from copilot_sync.cli import hidden_input
from copilot_sync.cli.hidden_input import read_hidden
from copilot_sync.cli.program import INTERRUPTED
from copilot_sync.emulator import Emulator, Fault

PASTE = "\x1b[200~{}\x1b[201~"
#: Types something, and returns what ``read_hidden`` makes of it.
Type = Callable[[str], str]


def shows_nothing(descriptor: int) -> bool:
    """Whether a terminal does not show what is typed."""
    return not termios.tcgetattr(descriptor)[3] & termios.ECHO


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dict[str, int]]:
    """The two ends of a terminal that is stdin."""
    master, slave = pty.openpty()
    with open(slave, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield {"master": master, "slave": slave}
    os.close(master)


@pytest.fixture
def type_in(descriptors: Dict[str, int]) -> Type:
    """Types when the terminal shows nothing any more. Afterwards it is as it was, and nothing waits to be read."""
    master, slave = descriptors["master"], descriptors["slave"]
    before = termios.tcgetattr(slave)

    def type_it(keys: str) -> None:
        wait_until(lambda: shows_nothing(slave))
        data = keys.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(master, data) :]

    def read(keys: str) -> str:
        typist = threading.Thread(target=type_it, args=[keys])
        typist.start()
        try:
            return read_hidden("secret: ").reveal()
        finally:
            typist.join(PATIENCE)
            assert termios.tcgetattr(slave) == before
            assert select.select([slave], [], [], 0)[0] == []

    return read


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("abc\r", "abc"),
        ("x" * 20000 + "\n", "x" * 20000),
        (PASTE.format("x" * 20000) + "\r", "x" * 20000),
        (PASTE.format('{\n "a": 1\n}') + "\r", '{\n "a": 1\n}'),
        ('{\n "a": 1\n}\n', '{\n "a": 1\n}'),
        (PASTE.format("one\ntwo") + "\x1b[D\x1bOA\x1b\r", "one\ntwo"),
        ("wrong\x15abx\x7fc\x08\x1a\x1c\td\r", "ab\td"),
        ("abc\x04", "abc"),
        ("\r", ""),
        ("abc\rthe rest of a paste\r", "abc"),
        ("abc\r" + "the rest of a paste\r" * 1000, "abc"),
        ("é\udcff\r", "é\udcff"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_is_typed_is_read_whole(keys: str, text: str, type_in: Type, capsys: pytest.CaptureFixture[str]) -> None:
    """Also beyond what a terminal hands over in one line, with the line ends of a paste, and as it was corrected."""
    assert type_in(keys) == text
    assert capsys.readouterr() == ("", "secret: \n")


@pytest.mark.parametrize("keys", ["abc" + CTRL_C, PASTE[:6] + "abc" + CTRL_C, "abc\r" + CTRL_C])
def test_ctrl_c_ends_it(keys: str, type_in: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a paste that does not end, and while its rest is dropped."""
    read = os.read
    monkeypatch.setattr(hidden_input.os, "read", lambda descriptor, _: read(descriptor, 1))
    with pytest.raises(KeyboardInterrupt):
        type_in(keys)


def test_ctrl_d_ends_it_if_nothing_was_typed(type_in: Type) -> None:
    """As at any prompt."""
    with pytest.raises(click.Abort):
        type_in("a\x7f" + CTRL_D)


def test_what_is_too_long_is_refused(type_in: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret has so many characters."""
    monkeypatch.setattr(hidden_input, "LARGEST_SECRET", 100)
    with pytest.raises(click.ClickException, match="longer than any cookie or token"):
        type_in("x" * 101)


@pytest.mark.parametrize(("sent", "text"), [(b"abc", "abc"), (b"abc\x1b[", "abc"), (b"", None)])
def test_a_terminal_that_goes_away_ends_it(
    sent: bytes, text: Optional[str], descriptors: Dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was typed counts, if there is anything."""
    pieces = [sent, b""] if sent else [b""]
    monkeypatch.setattr(hidden_input.os, "read", lambda *_: pieces.pop(0))
    if text is None:
        with pytest.raises(click.Abort):
            read_hidden("")
    else:
        assert read_hidden("").reveal() == text


@pytest.mark.parametrize(("kind", "marked"), [("xterm", True), ("dumb", False)])
def test_a_terminal_is_asked_to_mark_what_is_pasted(
    kind: str, marked: bool, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it knows such things; and then not any more."""
    with OwnTerminal() as terminal:
        with monkeypatch.context() as patch:
            patch.setenv("TERM", kind)
            patch.setattr(sys, "stderr", terminal.file)
            assert type_in("abc\r") == "abc"
        terminal.finish()
    assert (b"\x1b[?2004h" in terminal.seen and b"\x1b[?2004l" in terminal.seen) is marked
    assert (b"\x1b" in terminal.seen) is marked


def hosts(emulator: Emulator) -> Dict[str, str]:
    return {"COPILOT_SYNC_GITHUB_URL": emulator.github_url, "COPILOT_SYNC_API_URL": emulator.api_url}


@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_a_login_by_paste(kind: str, emulator: Emulator) -> None:
    """A whole header of 20 KB, of which nothing is seen; the next command uses what was stored."""
    secret = f"Cookie: big={'x' * 20000}; user_session={emulator.cookies['user_session']}"
    with Terminal("login", environment={**hosts(emulator), "TERM": kind}) as terminal:
        terminal.expect(f"To log in to {emulator.github_url[len('http://') :]}, there are these ways:")
        terminal.expect("Which [1]: ")
        terminal.line("")
        terminal.expect("(hidden): ")
        if kind != "dumb":
            terminal.expect("\x1b[?2004h")
            terminal.line(PASTE.format(secret))
        else:
            wait_until(lambda: shows_nothing(terminal._master))
            terminal.line(secret)
        terminal.expect("logged in (plan pro); stored in ")
        assert terminal.status() == 0
    assert b"xxx" not in terminal.seen
    assert emulator.cookies["user_session"].encode() not in terminal.seen
    with Terminal("ask", "hi", environment=hosts(emulator)) as terminal:
        assert terminal.status() == 0


def test_stdin_that_is_a_terminal_is_asked_without_being_shown(emulator: Emulator) -> None:
    """With ``--stdin`` too, at once."""
    with Terminal("login", "--stdin", environment={**hosts(emulator), "TERM": "xterm"}) as terminal:
        terminal.expect("\x1b[?2004h")
        terminal.line(f"user_session={emulator.cookies['user_session']}")
        assert terminal.status() == 0
    assert emulator.cookies["user_session"].encode() not in terminal.seen


@pytest.mark.parametrize("state", ["menu", "paste", "check"])
def test_ctrl_c_stores_nothing(state: str, emulator: Emulator) -> None:
    """At each point, with the status of an interruption and without a trace of Python's."""
    emulator.fail("models", Fault.delay(PATIENCE))
    with Terminal("login", environment={**hosts(emulator), "TERM": "xterm"}) as terminal:
        terminal.expect("Which [1]: ")
        if state != "menu":
            terminal.line("1")
            terminal.expect("\x1b[?2004h")
        if state == "check":
            terminal.line(f"user_session={emulator.cookies['user_session']}")
            terminal.expect("\x1b[?2004l")
            wait_until(lambda: any(request.path.endswith("/models") for request in emulator.requests))
        terminal.send(CTRL_C)
        assert terminal.status() == INTERRUPTED
        assert b"Traceback" not in terminal.seen
    assert load_login("default") is None
    assert not Path(os.environ["XDG_CONFIG_HOME"]).exists()
