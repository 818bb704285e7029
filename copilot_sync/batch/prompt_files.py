"""Files of prompts, which are read line by line.

A file is JSON Lines, CSV with named columns, plain text with a prompt a line, or OpenAI's requests. It is never held in
memory: it is read anew each time it is iterated, so that it can be gone through once for its ids before the first
prompt is sent. A fault of the file as a whole (its encoding, its line ends, its quoting) is a ``ValueError`` before its
first prompt. A line that can't be read as a prompt becomes a ``BadLine``, a value like any other, and does not stop the
rest.
"""

import os
import re
import shutil
import stat
import tempfile
from typing import IO, BinaryIO, Callable, Iterator, List, Optional, Tuple, Union

from copilot_sync.batch.csv_rows import CsvError, Table
from copilot_sync.batch.openai_lines import check_requests, read_requests
from copilot_sync.batch.prompts import BadLine, Prompt, checked_prompt, read_fields
from copilot_sync.safe_text import loads
from copilot_sync.text_files import HAS_NULS, NOT_TEXT, Line, PathLike, lines_of

FORMATS = ("jsonl", "csv", "text", "openai")
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
}
#: Bytes. A longer line, or row of a CSV, is no prompt that any model would read.
_LONGEST_LINE = 16 * 1024 * 1024
_QUOTE = re.compile(r'(?<!\\)"')


def read(source: Union[str, PathLike, BinaryIO], format: Optional[str] = None) -> "PromptFile":
    """Open a file of prompts.

    Nothing is read yet, but for what can be read only once, such as stdin or a named pipe: that is copied to a
    temporary file first, up to its end.

    Args:
        source: A path, or a binary stream.
        format: ``jsonl``, ``csv``, ``text``, or ``openai`` for the requests of OpenAI's batches. Default: what the
            path's suffix says; ``jsonl`` for a stream.

    Raises:
        OSError: The file can't be read.
        ValueError: The format is none of these, or the suffix does not tell it. What is wrong with the file itself is
            told when it is iterated.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"a format is one of {', '.join(FORMATS)}, not {format!r}")
    if not isinstance(source, (str, os.PathLike)):
        return PromptFile(_Spooled(source, "the input"), format or "jsonl")
    path = os.fspath(source)
    if not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "rb") as stream:
            return PromptFile(_Spooled(stream, path), format or "jsonl")
    suffix = os.path.splitext(path)[1].lower()
    if format is None and suffix not in _SUFFIXES:
        raise ValueError(f"the suffix {suffix!r} does not tell the format: name it with --format, or format=")
    return PromptFile(_Named(path), format or _SUFFIXES[suffix])


class PromptFile:
    """A file of prompts, read line by line each time it is iterated. For one thread at a time.

    Files are opened by ``read``. Iterating one raises ``ValueError`` ahead of its first prompt if the file as a whole
    can't be relied on: it is not text, its quotes do not close, its columns can't be told.
    """

    def __init__(self, source: "Union[_Named, _Spooled]", format: str) -> None:
        self._source = source
        self._checked: Optional[Tuple[int, ...]] = None
        self.format = format

    def __iter__(self) -> Iterator[Union[Prompt, BadLine]]:
        read, check = _READERS[self.format]
        with self._source.open() as file:
            self._check_once(file, check)
            yield from read(file)

    def _check_once(self, file: IO[bytes], check: Callable[[IO[bytes]], None]) -> None:
        """Check a file as a whole, unless it is still as it was when it was checked."""
        info = os.fstat(file.fileno())
        state = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
        if state == self._checked:
            return
        try:
            check(file)
        except ValueError as error:
            raise ValueError(f"{self._source.name}: {error}") from None
        self._checked = state

    def close(self) -> None:
        """Remove the temporary file, if there is one."""
        self._source.close()

    def __enter__(self) -> "PromptFile":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Named:
    def __init__(self, path: str) -> None:
        self.name = path
        self.open().close()  # what can't be read is told at once

    def open(self) -> IO[bytes]:
        return open(self.name, "rb")

    def close(self) -> None:
        """Nothing is held open between two readings."""


class _Spooled:
    """A stream that was copied to a file without a name."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        try:
            shutil.copyfileobj(stream, self._file)
        except BaseException:
            self._file.close()
            raise

    def open(self) -> IO[bytes]:
        # A descriptor of its own would share the place in the file.
        self._file.seek(0)
        return open(os.dup(self._file.fileno()), "rb")

    def close(self) -> None:
        self._file.close()


def _lines(file: IO[bytes]) -> Iterator[Line]:
    return lines_of(file, _LONGEST_LINE)


def _read_lines(
    file: IO[bytes], prompt_of: Callable[[str, int], Union[Prompt, BadLine]]
) -> Iterator[Union[Prompt, BadLine]]:
    for line in _lines(file):
        if line.too_long:
            yield _bad_line(line.number, f"it is longer than {_LONGEST_LINE} bytes")
        elif not line.is_text:
            yield _bad_line(line.number, "it is not UTF-8 text")
        elif not line.is_blank:
            yield prompt_of(line.text, line.number)


def _bad_line(number: int, reason: str) -> BadLine:
    return BadLine(number, number, f"line {number}: {reason}")


def _check_encoding(file: IO[bytes]) -> None:
    """Refuse a file of which any line is no text: then it is not in the encoding that it was taken for.

    Raises:
        ValueError: It is refused.
    """
    numbers = _Sample()
    reason = ""
    for line in _lines(file):
        if not line.is_text or "\0" in line.text:
            reason = reason or (HAS_NULS if line.is_text else NOT_TEXT)
            numbers.add(line.number)
    if reason:
        raise ValueError(f"{numbers}: {reason}")


class _Sample:
    """Numbers of lines: the first one, and how many there are."""

    def __init__(self) -> None:
        self._first = 0
        self._count = 0

    def add(self, number: int) -> None:
        self._first = self._first or number
        self._count += 1

    def __bool__(self) -> bool:
        return bool(self._count)

    def __str__(self) -> str:
        others = self._count - 1
        return f"line {self._first}" + (f" and {others} more" if others else "")


def _many_lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _read_text(file: IO[bytes]) -> Iterator[Union[Prompt, BadLine]]:
    return _read_lines(file, lambda text, number: checked_prompt(Prompt(number, text), number, f"line {number}"))


def _check_text(file: IO[bytes]) -> None:
    """Refuse a file that is no text, or of whose lines nobody can tell where they end.

    Raises:
        ValueError: It is refused.
    """
    _check_encoding(file)
    kinds = {False: _Sample(), True: _Sample()}
    for line in _lines(file):
        if line.end:
            kinds[line.end == "\r"].add(line.number)
    if all(kinds[kind] for kind in kinds):
        raise ValueError(f"CR ends {kinds[True]}, and LF {kinds[False]}: let all lines end in the same way")


def _read_jsonl(file: IO[bytes]) -> Iterator[Union[Prompt, BadLine]]:
    return _read_lines(file, _prompt_of_json)


def _check_jsonl(file: IO[bytes]) -> None:
    """Refuse JSON that is not one object a line.

    Raises:
        ValueError: It is refused.
    """
    lines = (line for line in _lines(file) if not line.is_blank)
    first = next(lines, None)
    others = sum(1 for _ in lines)
    if first is not None and _is_other_json(first.text.strip(), others):
        words = f"it is JSON, but not one object on each line; so no prompt can be read ({_many_lines(others + 1)})"
        raise ValueError(f"line {first.number}: {words}: jq -c '.[]' makes such lines of a list, jq -c . of objects")


def _is_other_json(text: str, others: int) -> bool:
    """Whether JSON that goes on over several lines begins like this, or a list of all prompts stands in one line."""
    try:
        value = loads(text)
    except ValueError:
        is_open_string = len(_QUOTE.findall(text)) % 2
        return text.startswith(("[", "{")) and text.endswith(("[", "{", ",", ":")) and not is_open_string
    return isinstance(value, list) and (not others or any(isinstance(item, dict) for item in value))


def _prompt_of_json(line: str, number: int) -> Union[Prompt, BadLine]:
    try:
        fields = loads(line)
    except ValueError:
        return _bad_line(number, "it is not valid JSON")
    if not isinstance(fields, dict):
        return _bad_line(number, "it is not a JSON object")
    return read_fields(fields, number, f"line {number}")


def _table(file: IO[bytes]) -> Table:
    return Table(_lines(file), "prompt", _LONGEST_LINE)


def _read_csv(file: IO[bytes]) -> Iterator[Union[Prompt, BadLine]]:
    table = _table(file)
    for number, row in table.rows():
        yield _prompt_of_row(table.columns, row, number)


def _check_csv(file: IO[bytes]) -> None:
    """Refuse a file that is no text, or in which nobody can tell what is a row from some line on.

    Raises:
        ValueError: It is refused.
    """
    _check_encoding(file)
    try:
        for _ in _table(file).rows():
            pass
    except CsvError as error:
        count = sum(1 for line in _lines(file) if line.number >= error.number)
        raise ValueError(f"{error}; so no prompt can be read from there on ({_many_lines(count)})") from None


def _prompt_of_row(columns: List[str], row: List[str], number: int) -> Union[Prompt, BadLine]:
    if len(row) > len(columns):
        return _bad_line(number, f"it has {len(row)} fields, and there are {len(columns)} columns")
    fields = dict(zip(columns, row))
    for name in ("messages", "schema"):  # which no text can be
        fields.pop(name, None)
    return read_fields(fields, number, f"line {number}")


#: What reads a format, and what finds the faults of a file as a whole.
_READERS = {
    "jsonl": (_read_jsonl, _check_jsonl),
    "csv": (_read_csv, _check_csv),
    "text": (_read_text, _check_text),
    "openai": (read_requests, check_requests),
}
