"""Markdown as ``rich`` draws it, but nothing of it is hidden or cut off, however narrow the terminal is.

Headings are at the left. A link shows where it leads, because one that shows only its text may lead anywhere. A table
wraps its cells; one with too many columns for that becomes lines of "heading: cell". What is indented too far for the
terminal is shown as it was written.
"""

import io
import os
from typing import Iterator, Sequence, TextIO, cast

from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Heading, Markdown, TableElement
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from copilot_sync.cli.markdown_blocks import PARSER
from copilot_sync.cli.terminal import size_of

#: Columns of the terminal for a column of a table, at least. Fewer are hard to read.
_LEAST_CELL = 8
#: Columns of the terminal for text, at least, beside its indentation.
_LEAST_TEXT = 4
#: Columns of the terminal that rich takes from what is inside of these. Most numbers have three digits at most.
_INDENTS = {"bullet_list": 3, "ordered_list": 5, "blockquote": 4}
#: Columns of a terminal without an end.
_UNBOUNDED = 100_000


class Renderer:
    """Formats Markdown as lines of a terminal.

    Args:
        file: The terminal.
        colours: Whether to use colours.
    """

    def __init__(self, file: TextIO, colours: bool) -> None:
        self._file = file
        self._console = Console(file=io.StringIO(), force_terminal=True, no_color=not colours, highlight=False)

    def measure(self) -> "os.terminal_size":
        """Return the current size of the terminal, of two lines at least."""
        size = size_of(self._file)
        return os.terminal_size((size.columns, max(size.lines, 2)))

    def markdown(self, text: str) -> str:
        """Format Markdown. Blank text becomes an empty string."""
        if not text.strip():
            return ""
        return self._drawn(_Page(text))

    def text(self, text: str) -> str:
        """Wrap text as it is."""
        return self._drawn(Text(text))

    def _drawn(self, page: RenderableType) -> str:
        self._console.width = self.measure().columns
        with self._console.capture() as captured:
            self._console.print(page)
        # rich puts different numbers of empty lines around blocks, and fills lines with spaces that would be copied.
        lines = captured.get().strip("\n").split("\n")
        return "".join(f"{line.rstrip(' ')}\n" for line in lines)


class _Page(Markdown):
    """A Markdown text to be drawn."""

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self._text = text
        self.parsed = PARSER.parse(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        if options.max_width - _indentation(self.parsed) < _LEAST_TEXT:
            yield Text(self._text)
        else:
            yield from super().__rich_console__(console, options)


def _indentation(tokens: Sequence[Token]) -> int:
    """Return the indentation of the text that is indented most."""
    deepest = now = 0
    for token in tokens:
        now += _INDENTS.get(token.type.rpartition("_")[0], 0) * token.nesting
        deepest = max(deepest, now)
    return deepest


class _LeftHeading(Heading):
    """A heading that is not centred, and has no frame."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _WholeTable(TableElement):
    """A table of which nothing is cut off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = cast(Table, next(iter(super().__rich_console__(console, options))))
        for column in table.columns:
            column.overflow = "fold"
        natural = Measurement.get(console, options.update(max_width=_UNBOUNDED), table).maximum
        if natural <= options.max_width or len(table.columns) * _LEAST_CELL <= options.max_width:
            yield table
        else:
            yield from _records(table)


def _records(table: Table) -> Iterator[Text]:
    """Yield a line for each cell, and an empty one between two rows."""
    headings = [cast(Text, column.header) for column in table.columns]
    for number, row in enumerate(zip(*(column.cells for column in table.columns))):
        if number:
            yield Text()
        for heading, cell in zip(headings, row):
            yield Text.assemble(heading, ": ", cast(Text, cell))
    if not table.rows:
        yield from headings


_Page.elements = {**Markdown.elements, "heading_open": _LeftHeading, "table_open": _WholeTable}
