"""What goes to stdout: drawn where a person looks at a terminal, plain and untouched where a program reads.

The rules: no colours and no movement where stdout is no terminal, none on a dumb one, no colours under ``NO_COLOR``.
What comes from the service is never trusted with a terminal: control characters, with which a text could rewrite the
screen or the clipboard, and those that turn the direction of what follows, with which it could show something else
than it says, are shown as U+FFFD. A pipe gets every character of an answer as it came. Names, ids and messages are one
line wherever they are shown, so none can pass for another line, another cell or another question.
"""

import contextlib
import json
import logging
import os
import re
import sys
from typing import Any, Iterable, Iterator, List, Optional, Protocol, Sequence, TextIO

import click

from copilot_sync.terminal_text import one_line, printable

_DUMB = ("", "dumb", "unknown")
#: What JSON may hold as it is but a terminal or an encoding may not.
_UNSHOWABLE = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def is_terminal(stream: Optional[TextIO]) -> bool:
    """Whether a person looks at a stream."""
    return stream is not None and stream.isatty()


def is_utf8(stream: TextIO) -> bool:
    """Whether a stream takes every character."""
    return (getattr(stream, "encoding", None) or "").lower().replace("_", "-") in ("utf-8", "utf8")


def is_dumb() -> bool:
    """Whether the terminal does not say that it knows control sequences. Windows Terminal says so in its own way."""
    return os.environ.get("TERM", "") in _DUMB and "WT_SESSION" not in os.environ


def is_animated(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which lines can be drawn anew, with all the characters that takes."""
    return is_terminal(stream) and not is_dumb() and is_utf8(stream)


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that may be coloured."""
    return is_terminal(stream) and not is_dumb() and not os.environ.get("NO_COLOR")


def show_answer(pieces: Iterable[str], raw: bool) -> None:
    """Show an answer while it comes, and what the library warns of afterwards.

    Args:
        pieces: The pieces of text.
        raw: Whether a terminal, too, shows the text as it is.
    """
    with _warnings_afterwards(), _view(raw) as view:
        for piece in pieces:
            view.add(piece)


def show_heading(text: str) -> None:
    """Show a line that stands above others."""
    shown = one_line(text) if is_terminal(sys.stdout) else " ".join(text.split())
    click.echo(click.style(shown, bold=True) if has_colours(sys.stdout) else shown)


def show_json(value: Any) -> None:
    """Print a value as one line of JSON, in ASCII where stdout takes no more."""
    text = json.dumps(value, ensure_ascii=not is_utf8(sys.stdout))
    click.echo(_UNSHOWABLE.sub(lambda match: json.dumps(match.group())[1:-1], text))


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows: aligned under headings in a terminal, with tabs and nothing else for a program."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if not is_terminal(sys.stdout):
        for row in cells:
            click.echo("\t".join(row))
        return
    table = [list(headings), *cells]
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


class _View(Protocol):
    """Where the pieces of one answer go."""

    def add(self, piece: str) -> None:
        """Show the next piece."""


class _PlainView:
    """Prints pieces as they come, and ends the line also where the answer breaks off."""

    def __init__(self) -> None:
        self._filter = printable if is_terminal(sys.stdout) else str
        self._last = "\n"

    def add(self, piece: str) -> None:
        sys.stdout.write(self._filter(piece))
        sys.stdout.flush()
        self._last = piece or self._last

    def close(self) -> None:
        if not self._last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


@contextlib.contextmanager
def _view(raw: bool) -> Iterator[_View]:
    if not raw and is_animated(sys.stdout):
        from copilot_sync.cli.live_markdown import MarkdownView  # it loads rich, which takes its time

        with MarkdownView(sys.stdout, has_colours(sys.stdout)) as view:
            yield view
        return
    with contextlib.closing(_PlainView()) as plain:
        yield plain


class _Held(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: List[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _warnings_afterwards() -> Iterator[None]:
    """Hold back what the library warns of: a line in the middle of the answer would spoil both."""
    library, held = logging.getLogger("copilot_sync"), _Held()
    library.addHandler(held)
    try:
        yield
    finally:
        library.removeHandler(held)
        for message in dict.fromkeys(held.messages):
            click.echo(f"copilot-sync: {one_line(message)}", err=True)
