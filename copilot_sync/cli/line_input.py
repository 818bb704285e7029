"""The input of ``chat``: lines typed at a prompt, with the history of earlier ones, or read from a pipe.

Three double quotes at the beginning of a line open a block of several lines. The block ends with a line that ends in
three double quotes. ``line_editor`` edits lines; a terminal that can't be drawn on gives them as they are typed.
"""

import contextlib
import io
import os
import stat
import sys
from typing import Callable, List, NamedTuple, Optional

import click

from copilot_sync.cli.language import _
from copilot_sync.cli.terminal import is_terminal
from copilot_sync.safe_files import make_folder
from copilot_sync.safe_text import well_formed
from copilot_sync.terminal_text import printable
from copilot_sync.text_files import decoded

QUOTES = '"""'
PROMPT = "> "
_MORE = ". "
#: Lines to keep in the history.
HISTORY_LIMIT = 1000
#: Bytes to read from the end of a history file.
_HISTORY_BYTES = 1024 * 1024

#: Shows a prompt if somebody types, and returns the next line without its end; ``None`` at the end of input.
ReadLine = Callable[[str], Optional[str]]


class Entry(NamedTuple):
    """What was entered. A block is always a question, even if it looks like a command."""

    text: str
    is_block: bool = False


def read_entry(read_line: ReadLine) -> Optional[Entry]:
    """Read a line, or the block that it opens; ``None`` at the end of input."""
    line = read_line(PROMPT)
    if line is None or not line.lstrip().startswith(QUOTES):
        return None if line is None else Entry(line)
    lines = [line.lstrip()[len(QUOTES) :]]
    while not lines[-1].rstrip().endswith(QUOTES):
        more = read_line(_MORE)
        if more is None:
            return Entry("\n".join(lines).strip("\n"), is_block=True)
        lines.append(more)
    lines[-1] = lines[-1].rstrip()[: -len(QUOTES)]
    return Entry("\n".join(lines).strip("\n"), is_block=True)


def piped_line(prompt: str) -> Optional[str]:
    """Read a line of stdin that nobody types.

    Raises:
        click.UsageError: The line is not text.
    """
    line = sys.stdin.buffer.readline()
    try:
        return decoded(line).rstrip("\r\n") if line else None
    except ValueError as error:
        raise click.UsageError(_("stdin can't be sent: {error}").format(error=error)) from error


def plain_line(prompt: str) -> str:
    """Read a line that is edited by the terminal itself, if at all.

    Raises:
        EOFError: It is the end of input.
    """
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.errors != "surrogateescape":
        sys.stdin.reconfigure(errors="surrogateescape")  # pasted bytes that are no text are no reason to fail
    click.echo(prompt, nl=False, err=not is_terminal(sys.stdout))  # never on a stdout that somebody else reads
    line = sys.stdin.readline()
    if not line:
        click.echo(err=True)  # the shell's prompt gets a line of its own
        raise EOFError
    return line.rstrip("\n")


class Keyboard:
    """Reads lines that somebody types, and saves them to be offered again.

    Args:
        history: The lines typed before.
        read: Reads one, or raises ``EOFError``.
    """

    def __init__(self, history: "History", read: Callable[[str], str] = plain_line) -> None:
        self._history = history
        self._read = read

    def line(self, prompt: str) -> Optional[str]:
        """Read a line.

        Raises:
            KeyboardInterrupt: Ctrl-C was typed.
        """
        try:
            line = well_formed(self._read(prompt))
        except EOFError:
            return None
        self._history.add(line)
        return line


class History:
    """The lines of earlier chats, in a file that only its owner can read. Never a reason to fail.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self) -> List[str]:
        """Return the latest lines, the oldest first."""
        try:
            with open(self._path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _HISTORY_BYTES))
                lines = file.read(_HISTORY_BYTES).decode("utf-8", "replace").split("\n")[:-1]
        except (OSError, ValueError):
            return []
        if len(lines) > 2 * HISTORY_LIMIT or size > _HISTORY_BYTES:
            self._shorten(lines[-HISTORY_LIMIT:])
        return [printable(line) for line in lines[-HISTORY_LIMIT:]]

    def add(self, text: str) -> None:
        """Save a line, if possible."""
        if text.strip():
            self._write(os.O_APPEND, [text.replace("\n", " ")])

    def _shorten(self, lines: List[str]) -> None:
        self._write(os.O_TRUNC, lines)

    def _write(self, how: int, lines: List[str]) -> None:
        with contextlib.suppress(OSError):
            make_folder(os.path.dirname(self._path))
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | how, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                _close_to_others(self._path, descriptor)
                file.writelines(f"{line}\n" for line in lines)


def _close_to_others(path: str, descriptor: int) -> None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) and mode & 0o077:  # a backup or an editor may have changed it
        os.chmod(path, 0o600)
