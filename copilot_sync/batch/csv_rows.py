"""CSV as RFC 4180 has it, with commas, semicolons or tabs, read line by line.

The module ``csv`` is not used: its limit on the size of a cell belongs to the whole process, and it goes on behind an
error as if nothing had happened. Here an error ends the file: a quote in the wrong place may have swallowed any number
of rows, so nothing behind it is a row.
"""

import contextlib
import re
from typing import Iterator, List, Optional, Tuple

from copilot_sync.text_files import Line

_DELIMITERS = (",", ";", "\t")
#: The line with which Excel is told the delimiter.
_DIRECTIVE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


class CsvError(ValueError):
    """A fault that spoils a file from some line on.

    Attributes:
        number: The line, from 1.
        reason: What is wrong there.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")
        self.number = number
        self.reason = reason


class Table:
    """A CSV whose first row names the columns.

    Args:
        lines: Its lines, from the first one on.
        wanted: A column that it must have. The delimiter is the one that makes it a column.
        limit: Bytes of a row.

    Attributes:
        columns: Their names, in lower case.

    Raises:
        CsvError: The columns can't be told.
    """

    def __init__(self, lines: Iterator[Line], wanted: str, limit: int) -> None:
        self._lines = lines
        self._limit = limit
        self._ends_with_cr: Optional[bool] = None
        header = self._next_line()
        told = _DIRECTIVE.fullmatch(header.text) if header else None
        if told:
            header = self._next_line()
        self._delimiter, self.columns = self._header(header, (told.group(1),) if told else _DELIMITERS, wanted)

    def rows(self) -> Iterator[Tuple[int, List[str]]]:
        """Yield the rows that are not blank, each with the number of the line in which it begins.

        Raises:
            CsvError: From some line on there are none.
        """
        while True:
            line = self._next_line()
            if line is None:
                return
            cells = self._cells(line, self._lines, self._delimiter)
            if any(cells):
                yield line.number, cells

    def _next_line(self) -> Optional[Line]:
        return next((line for line in self._lines if not line.is_blank), None)

    def _header(self, line: Optional[Line], delimiters: Tuple[str, ...], wanted: str) -> Tuple[str, List[str]]:
        words = f"the first line of a CSV must name the columns, and one of them must be {wanted}"
        if line is None:
            raise CsvError(1, words)
        for delimiter in delimiters:
            columns = self._names(line, delimiter)
            if wanted in columns:
                twice = next((name for name in columns if name and columns.count(name) > 1), None)
                if twice is not None:
                    raise CsvError(line.number, f"two columns are called {twice!r}")
                return delimiter, columns
        raise CsvError(line.number, words)

    def _names(self, line: Line, delimiter: str) -> List[str]:
        with contextlib.suppress(CsvError):  # another delimiter may read it
            return [name.strip().lower() for name in self._cells(line, iter(()), delimiter)]
        return []

    def _cells(self, first: Line, rest: Iterator[Line], delimiter: str) -> List[str]:
        """Read the row that begins in a line and may go on in those behind it."""
        line, size, place = first, first.size, 0
        cells: List[str] = []
        parts: List[str] = []  # of a cell in quotes
        while True:
            self._check_size(first, line, size)
            is_quoted = bool(parts) or line.text.startswith('"', place)
            if is_quoted:
                part, place, is_closed = _quoted(line.text, place if parts else place + 1)
                parts.append(part)
                if not is_closed:
                    line, size = self._next_of(first, rest, size)
                    parts.append("\n")
                    place = 0
                    continue
                cells.append("".join(parts))
                parts = []
            else:
                end = line.text.find(delimiter, place)
                cell = line.text[place:] if end < 0 else line.text[place:end]
                if cell.lstrip(" ").startswith('"'):
                    raise CsvError(first.number, "a space stands between a delimiter and a quote")
                cells.append(cell)
                place += len(cell)
            if place == len(line.text):
                self._check_end(line)
                return cells
            if line.text[place] != delimiter:
                raise CsvError(first.number, "a cell goes on behind its closing quote")
            place += 1

    def _next_of(self, first: Line, rest: Iterator[Line], size: int) -> Tuple[Line, int]:
        """The next line of a row, and the size of all that belongs to the row."""
        line = next(rest, None)
        if line is None:
            raise CsvError(first.number, "a quote opens a cell here and none closes it")
        return line, size + line.size + 1

    def _check_size(self, first: Line, line: Line, size: int) -> None:
        if line.too_long or size > self._limit:
            raise CsvError(first.number, f"the row is longer than {self._limit} bytes; perhaps a quote is not closed")

    def _check_end(self, line: Line) -> None:
        if not line.end:
            return
        if self._ends_with_cr is None:
            self._ends_with_cr = line.end == "\r"
        if self._ends_with_cr != (line.end == "\r"):
            raise CsvError(line.number, "its end is of another kind than those before: some end with CR, some with LF")


def _quoted(text: str, place: int) -> Tuple[str, int, bool]:
    """Read a cell in quotes, or as much as stands in this line: what it holds, the place behind it, if it is whole."""
    parts: List[str] = []
    while True:
        end = text.find('"', place)
        if end < 0:
            return "".join([*parts, text[place:]]), len(text), False
        if not text.startswith('"', end + 1):
            return "".join([*parts, text[place:end]]), end + 1, True
        parts.append(text[place : end + 1])
        place = end + 2
