"""CSV as in RFC 4180, with commas, semicolons or tabs, read line by line.

The module ``csv`` is not used, because its limit on the size of a cell counts for the whole process, and because it
reads on after an error. Here an error ends the file: a quote in the wrong place may have swallowed any number of rows,
so nothing after it can be trusted.
"""

import contextlib
import re
from typing import Iterator, List, Optional, Tuple

from copilot_sync.text_files import Line

_DELIMITERS = (",", ";", "\t")
#: A line before the header that names the delimiter, as Excel writes it.
_DIRECTIVE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


class CsvError(ValueError):
    """A fault that makes a file unreadable from some line on.

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
        required: The name of a column that it must have. The delimiter is the one with which this column exists.
        limit: The most bytes of a row.

    Attributes:
        columns: The names of the columns, in lower case.

    Raises:
        CsvError: The first row does not name the columns.
    """

    def __init__(self, lines: Iterator[Line], required: str, limit: int) -> None:
        self._lines = lines
        self._limit = limit
        self._ends_with_cr: Optional[bool] = None
        header = self._next_line()
        directive = _DIRECTIVE.fullmatch(header.text) if header else None
        delimiters = (directive.group(1),) if directive else _DELIMITERS
        if directive:
            header = self._next_line()
        self._delimiter, self.columns = self._read_header(header, delimiters, required)

    def rows(self) -> Iterator[Tuple[int, List[str]]]:
        """Yield the rows that are not blank, each with the number of its first line.

        Raises:
            CsvError: The file is unreadable from some line on.
        """
        while True:
            line = self._next_line()
            if line is None:
                return
            cells = self._read_cells(line, self._lines, self._delimiter)
            if any(cells):
                yield line.number, cells

    def _next_line(self) -> Optional[Line]:
        return next((line for line in self._lines if not line.is_blank), None)

    def _read_header(self, line: Optional[Line], delimiters: Tuple[str, ...], required: str) -> Tuple[str, List[str]]:
        reason = f"the first line of a CSV must name the columns, and one of them must be {required}"
        if line is None:
            raise CsvError(1, reason)
        for delimiter in delimiters:
            columns = self._read_names(line, delimiter)
            if required in columns:
                duplicate = next((name for name in columns if name and columns.count(name) > 1), None)
                if duplicate is not None:
                    raise CsvError(line.number, f"two columns are called {duplicate!r}")
                return delimiter, columns
        raise CsvError(line.number, reason)

    def _read_names(self, line: Line, delimiter: str) -> List[str]:
        with contextlib.suppress(CsvError):  # another delimiter may work
            return [name.strip().lower() for name in self._read_cells(line, iter(()), delimiter)]
        return []

    def _read_cells(self, first: Line, rest: Iterator[Line], delimiter: str) -> List[str]:
        """Read the row that begins in a line. It may continue in the next ones."""
        line, size, position = first, first.size, 0
        cells: List[str] = []
        parts: List[str] = []  # of a quoted cell
        while True:
            self._check_size(first, line, size)
            is_quoted = bool(parts) or line.text.startswith('"', position)
            if is_quoted:
                part, position, is_closed = _read_quoted(line.text, position if parts else position + 1)
                parts.append(part)
                if not is_closed:
                    line, size = self._continue_row(first, rest, size)
                    parts.append("\n")
                    position = 0
                    continue
                cells.append("".join(parts))
                parts = []
            else:
                end = line.text.find(delimiter, position)
                cell = line.text[position:] if end < 0 else line.text[position:end]
                if cell.lstrip(" ").startswith('"'):
                    raise CsvError(first.number, "a space stands between a delimiter and a quote")
                cells.append(cell)
                position += len(cell)
            if position == len(line.text):
                self._check_end(line)
                return cells
            if line.text[position] != delimiter:
                raise CsvError(first.number, "a cell goes on behind its closing quote")
            position += 1

    def _continue_row(self, first: Line, rest: Iterator[Line], size: int) -> Tuple[Line, int]:
        """Return the next line of a row, and the size of the row so far."""
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


def _read_quoted(text: str, position: int) -> Tuple[str, int, bool]:
    """Read a quoted cell from behind its opening quote, as far as it goes in this line.

    Returns:
        The text of the cell, the position behind it, and whether its closing quote was found.
    """
    parts: List[str] = []
    while True:
        end = text.find('"', position)
        if end < 0:
            return "".join([*parts, text[position:]]), len(text), False
        if not text.startswith('"', end + 1):
            return "".join([*parts, text[position:end]]), end + 1, True
        parts.append(text[position : end + 1])
        position = end + 2
