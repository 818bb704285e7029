"""What goes to stdout: formatted for a person at a terminal, plain and untouched for a program.

Rules: there are no colours and no redrawing unless stdout is a terminal that can do it, and no colours under
``NO_COLOR``. A pipe gets every character of an answer as it came. Names, ids and messages are one line everywhere.
"""

import contextlib
import json
import logging
import math
import re
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

import click

from copilot_sync.cli import log
from copilot_sync.cli.footnotes import footnotes
from copilot_sync.cli.language import _, ngettext
from copilot_sync.cli.terminal import has_colours, is_animated, is_terminal, is_utf8, size_of
from copilot_sync.models import Message, Model, Thread
from copilot_sync.terminal_text import one_line, write_pieces
from copilot_sync.times import read_time

if TYPE_CHECKING:
    from copilot_sync.cli.waits import WaitLine

#: Characters that JSON may hold as they are, but a terminal or an encoding may not.
_UNPRINTABLE = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def show_answer(pieces: Iterable[str], raw: bool, waits: "Optional[WaitLine]" = None) -> None:
    """Print an answer while it comes, and the warnings of the library after it.

    Args:
        pieces: The answer.
        raw: Print Markdown as it is. Otherwise a terminal that can draw shows it formatted.
        waits: Shows what is waited for before the answer, on the same terminal.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_delayed_warnings())
        if raw or not is_animated(sys.stdout):
            write_pieces(_without_waits(pieces, waits, stack), sys.stdout)
        else:
            if waits is not None:
                stack.enter_context(waits.hidden())
            _draw_markdown(pieces, waits.words if waits is not None and waits.is_shown else str)


def _without_waits(pieces: Iterable[str], waits: "Optional[WaitLine]", stack: contextlib.ExitStack) -> Iterator[str]:
    """Yield the pieces, and hide what is waited for from the first one on if it would stand among them."""
    is_hidden = waits is None or not is_terminal(sys.stdout)
    for piece in pieces:
        if waits is not None and not is_hidden:
            stack.enter_context(waits.hidden())
            is_hidden = True
        yield piece


def _draw_markdown(pieces: Iterable[str], waits: Callable[[], str]) -> None:
    from copilot_sync.cli.live_markdown import MarkdownView  # it loads rich, which takes time

    with MarkdownView(sys.stdout, has_colours(sys.stdout), waits=waits) as view:
        for piece in pieces:
            view.add(piece)


def author_of(role: str) -> str:
    """Return what a person is told who wrote a message; for a program, it is the role."""
    return {"user": _("user"), "assistant": _("assistant")}.get(role, role) if is_terminal(sys.stdout) else role


def show_heading(text: str) -> None:
    """Print a heading."""
    shown = one_line(text) if is_terminal(sys.stdout) else " ".join(text.split())
    click.echo(click.style(shown, bold=True) if has_colours(sys.stdout) else shown)


def show_json(value: Any, *, indent: Optional[int] = None) -> None:
    """Print a value as JSON, in ASCII unless stdout is UTF-8. Numbers that JSON lacks become ``null``.

    It is one line, unless there is an ``indent``.
    """
    text = json.dumps(_finite(value), ensure_ascii=not is_utf8(sys.stdout), indent=indent)
    click.echo(_UNPRINTABLE.sub(lambda match: json.dumps(match.group())[1:-1], text))


def show_data(value: Any) -> None:
    """Print a value as JSON: in lines for a person, as one line for a program."""
    show_json(value, indent=2 if is_terminal(sys.stdout) else None)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def fields_of(value: Union[Message, Model, Thread]) -> Dict[str, Any]:
    """Return the fields of a value for ``show_json``. The raw data, which repeats them, is left out."""
    fields = asdict(replace(value, data={}))
    del fields["data"]
    return fields


def markdown_of(role: str, text: str) -> str:
    """Return a message of a transcript in Markdown."""
    return f"## {role}\n\n{text.strip()}\n"


def minute_of(moment: Optional[str]) -> str:
    """Return the date, hour and minute of a time in ISO 8601."""
    return (moment or "")[:16].replace("T", " ")


def ago(moment: Optional[str]) -> str:
    """Say for a person how long ago a time in ISO 8601 was; a date if that was more than a month ago."""
    at = read_time(moment)
    seconds = -1.0 if at is None else time.time() - at
    if not 0 <= seconds < 30 * 86400:
        return minute_of(moment)
    days, hours, minutes = (int(seconds // size) for size in (86400, 3600, 60))
    if days:
        return ngettext("{count} day ago", "{count} days ago", days).format(count=days)
    if hours:
        return ngettext("{count} hour ago", "{count} hours ago", hours).format(count=hours)
    if minutes:
        return ngettext("{count} minute ago", "{count} minutes ago", minutes).format(count=minutes)
    return _("just now")


def show_references(references: Sequence[Mapping[str, Any]]) -> None:
    """Print what an answer used under it, if a person looks at stdout."""
    if not references or not is_terminal(sys.stdout):
        return
    click.echo()
    for line in footnotes(references, size_of(sys.stdout).columns):
        click.echo(line)


def show_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], optional: Sequence[str] = (), *, cuts: bool = False
) -> None:
    """Print rows: aligned under headings in a terminal, separated by tabs and without headings elsewhere.

    Args:
        headings: The headings; none for rows that need none.
        rows: The cells.
        optional: The headings of columns that a terminal does not show if they are empty, or if it is too narrow: then
            it does without the first of them first.
        cuts: Whether a terminal cuts lines that are longer than it is wide.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    if not is_terminal(sys.stdout):
        for row in cells:
            click.echo("\t".join(row))
        return
    columns = list(zip(*([headings] if headings else []), *cells))
    columns = [column for column in columns if column[0] not in optional or any(column[1:])]
    for heading in optional:
        if sum(2 + max(map(len, column)) for column in columns) - 2 > size_of(sys.stdout).columns:
            columns = [column for column in columns if column[0] != heading]
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        click.echo(_cut(text, size_of(sys.stdout).columns) if cuts else text)


def _cut(text: str, columns: int) -> str:
    """Cut a line that is longer than the terminal is wide."""
    return text if len(text) <= columns else f"{text[: columns - 1]}…"


class _WarningCollector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: List[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _delayed_warnings() -> Iterator[None]:
    """Hold back the warnings of the library: a line in the middle of the answer would spoil both."""
    if log.is_shown():  # whoever wants to see each request sees the warnings among them
        yield
        return
    library, collector = logging.getLogger("copilot_sync"), _WarningCollector()
    library.addHandler(collector)
    try:
        yield
    finally:
        library.removeHandler(collector)
        for message in dict.fromkeys(collector.messages):
            click.echo(f"copilot-sync: {one_line(message)}", err=True)
