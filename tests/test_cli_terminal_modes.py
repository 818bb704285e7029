"""A program that is ended by SIGTERM while somebody types leaves a terminal behind that shows what is typed."""

import io
import os
import pty
import signal
import termios
import threading
from typing import Any, Dict, List, Tuple

import pytest
from support import wait_until
from terminals import OwnTerminal, Terminal

from copilot_sync.cli import terminal_modes
from copilot_sync.cli.terminal_modes import restored_by_sigterm
from copilot_sync.emulator import Emulator

MARKS = b"\x1b[?2004h"


def modes_of(terminal: Terminal) -> List[Any]:
    """The modes of a terminal, which both ends share."""
    return termios.tcgetattr(terminal._master)


@pytest.mark.parametrize(
    ("kind", "arguments", "answers"),
    [
        ("xterm-256color", ("chat",), []),
        ("xterm-256color", ("login",), ["Which [1]: "]),
        ("dumb", ("login",), ["Which [1]: "]),
    ],
)
def test_sigterm_restores_the_terminal(
    kind: str, arguments: Tuple[str, ...], answers: List[str], served: Emulator
) -> None:
    """It is what the program ends by, as if there were no handler."""
    with Terminal(*arguments, environment={"TERM": kind}) as terminal:
        before = modes_of(terminal)
        for prompt in answers:
            terminal.expect(prompt)
            terminal.line("1")
        wait_until(lambda: modes_of(terminal) != before)
        if kind != "dumb":
            terminal.expect(MARKS.decode())
        terminal.send("half a line")
        os.kill(terminal.child.pid, signal.SIGTERM)
        assert terminal.status() == -signal.SIGTERM
        assert modes_of(terminal) == before
        assert terminal.seen.count(MARKS) == terminal.seen.count(b"\x1b[?2004l")
    assert b"Traceback" not in terminal.seen
    assert (b"\x1b" in terminal.seen) is (kind != "dumb")


def test_the_handler_restores_the_modes_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it ends the program by the same signal."""
    killed: Dict[int, int] = {}
    monkeypatch.setattr(terminal_modes.os, "kill", killed.__setitem__)
    master, slave = pty.openpty()
    with open(slave, encoding="utf-8") as keyboard, OwnTerminal() as screen:
        before = termios.tcgetattr(slave)
        with restored_by_sigterm(keyboard, screen.file):
            changed = termios.tcgetattr(slave)
            changed[3] &= ~termios.ECHO
            termios.tcsetattr(slave, termios.TCSANOW, changed)
            signal.raise_signal(signal.SIGTERM)
            assert termios.tcgetattr(slave) == before
        assert screen.finish() == [""]
    os.close(master)
    assert killed == {os.getpid(): signal.SIGTERM}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_is_no_terminal_is_left_alone() -> None:
    """And so is everything in another thread, which can't handle signals, and what a program handles itself."""
    found = []

    def read() -> None:
        with restored_by_sigterm(io.StringIO(), io.StringIO()):
            found.append(signal.getsignal(signal.SIGTERM))

    read()
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL, signal.SIG_DFL]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        read()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert found[2:] == [signal.SIG_IGN]
