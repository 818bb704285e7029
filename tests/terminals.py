"""Pseudo-terminals: a program that runs in one of its own, and one for code of this process.

What comes out is drawn on a screen by ``pyte``, a terminal without a window, so that a test sees what a person would
see, scrolled-off lines included. The program is started without a fork of this process, which has threads, and gets the
terminal as its controlling one: a Ctrl-C that is typed becomes a signal, as it does in real life.
"""

import contextlib
import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional

import pexpect
import pyte
import pytest
from pexpect.fdpexpect import fdspawn
from rich.console import Console
from rich.style import Style
from rich.text import Text
from support import PATIENCE, wait_until

from copilot_sync.cli.program import run

CTRL_C = "\x03"
CTRL_D = "\x04"
TAB = "\t"
UP = "\x1b[A"

#: Makes stdin the controlling terminal, then becomes the program.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-W", "error", "-m", "copilot_sync", *sys.argv[1:]])
"""


def has_colours(data: bytes) -> bool:
    """Whether any control sequence sets a colour."""
    codes = [int(code) for codes in re.findall(rb"\x1b\[([\d;]+)m", data) for code in codes.split(b";")]
    return any(30 <= code <= 49 or 90 <= code <= 107 for code in codes)


class Screen:
    """What a terminal of so many rows and columns shows of some bytes, and what has scrolled off its top."""

    def __init__(self, rows: int, columns: int) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=100_000)
        self._stream = pyte.ByteStream(self._screen)
        self._columns = columns

    def feed(self, data: bytes) -> None:
        """Show more."""
        self._stream.feed(data)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size. What was shown stays where it was, cut off at the new border."""
        self._screen.resize(rows, columns)
        self._columns = max(self._columns, columns)

    def lines(self) -> List[str]:
        """All lines from the first to the last, without blanks at their ends and empty lines at the bottom."""
        past = ["".join(line[column].data for column in range(self._columns)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*past, *self._screen.display]).rstrip("\n").split("\n")

    def picture(self) -> str:
        """Draw what is to be seen, as an SVG that needs nothing from elsewhere."""
        drawn = Console(record=True, width=self._columns, file=io.StringIO(), force_terminal=True)
        for row in range(len("\n".join(self._screen.display).rstrip().split("\n"))):
            chars = [self._screen.buffer[row][column] for column in range(self._columns)]
            runs = itertools.groupby(chars, _style)
            drawn.print(Text.assemble(*(("".join(char.data for char in run), style) for style, run in runs)))
        image = drawn.export_svg(title="copilot-sync")
        return re.sub(r"\s*@font-face \{.*?\}|\s*<!--.*?-->", "", image, flags=re.DOTALL)


def _style(char: Any) -> Style:
    names = {"default": None, "brown": "yellow"}
    foreground, background = (
        names.get(name, f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else name) for name in (char.fg, char.bg)
    )
    return Style(color=foreground, bgcolor=background, bold=char.bold, italic=char.italics)


class Terminal:
    """``copilot-sync`` in a terminal of its own.

    Attributes:
        child: The process.
        seen: Every byte that it wrote to the terminal.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Dict[str, str],
        rows: int = 24,
        columns: int = 80,
        stdout: Optional[Path] = None,
    ) -> None:
        self._master, slave = pty.openpty()
        _resize(slave, rows, columns)
        self._screen = Screen(rows, columns)
        self._shown = 0
        self._log = io.BytesIO()
        with contextlib.ExitStack() as stack:
            self.child = subprocess.Popen(
                [sys.executable, "-S", "-c", _TAKE_TERMINAL, *arguments],
                stdin=slave,
                stdout=slave if stdout is None else stack.enter_context(open(stdout, "wb")),
                stderr=slave,
                env={**os.environ, "TERM": "xterm-256color", **environment},
                start_new_session=True,
            )
        os.close(slave)
        self._spawn = fdspawn(self._master, timeout=PATIENCE)
        self._spawn.logfile_read = self._log

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._master)

    @property
    def seen(self) -> bytes:
        return self._log.getvalue()

    def expect(self, text: str) -> None:
        """Wait until a text comes after what was waited for before."""
        self._spawn.expect_exact(text.encode())

    def send(self, text: str) -> None:
        """Type something; surrogates stand for bytes that are no text."""
        self._spawn.send(text.encode("utf-8", "surrogateescape"))

    def line(self, text: str) -> None:
        """Type a line."""
        self.send(text + "\r")

    def expect_line(self, line: str) -> None:
        """Wait until a line that a person sees is this one."""
        wait_until(lambda: self._reads_on() and line in self.lines())

    def _reads_on(self) -> bool:
        self._spawn.expect_exact([pexpect.TIMEOUT], timeout=0.05)
        return True

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window."""
        self.lines()
        self._screen.resize(rows, columns)
        _resize(self._master, rows, columns)

    def status(self) -> int:
        """Wait for the end; give the exit status."""
        self._spawn.expect(pexpect.EOF)
        return self.child.wait(PATIENCE)

    def lines(self) -> List[str]:
        """The lines that a person would see by now, those that scrolled off included."""
        self._screen.feed(self.seen[self._shown :])
        self._shown = len(self.seen)
        return self._screen.lines()

    def picture(self) -> str:
        """Draw what a person would see by now, but what scrolled off."""
        self.lines()
        return self._screen.picture()


class OwnTerminal:
    """A terminal for code of this process to write to: ``file``."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        _resize(slave, rows, columns)
        self.file: Any = open(slave, "w", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by __exit__
        self._screen = Screen(rows, columns)
        self.seen = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while True:
                self.seen += os.read(self._master, 65536)
        except OSError:  # nobody has the other end open any more
            return

    def __enter__(self) -> "OwnTerminal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.finish()
        os.close(self._master)

    def finish(self) -> List[str]:
        """Close the file; give the lines that a person would see."""
        if not self.file.closed:
            self.file.close()
            self._reader.join(PATIENCE)
            self._screen.feed(self.seen)
        return self._screen.lines()


def _resize(descriptor: int, rows: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def run_in_terminal(arguments: List[str], columns: int = 80) -> List[str]:
    """Run the program in this process, with stdout and stderr in a terminal; give the lines that a person would see."""
    with OwnTerminal(columns=columns) as terminal:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("stdout", "stderr"):
                patch.setattr(sys, name, terminal.file)
            assert run(arguments) == 0
        lines = terminal.finish()
    assert b"\x1b" not in terminal.seen
    return lines
