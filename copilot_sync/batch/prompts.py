"""Prompts as they come in: values, and files of them that are read line by line.

A file is JSON Lines, CSV with named columns, or plain text with a prompt a line. It is never held in memory: it is read
anew each time it is iterated, so that it can be gone through once for its ids before the first prompt is
sent. A fault of the file as a whole (its encoding, its line ends, its quoting) is a ``ValueError`` before its first
prompt. A line that can't be read as a prompt becomes a ``BadLine``, a value like any other, and does not stop the rest.
"""

import functools
import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Callable, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from copilot_sync.batch.csv_rows import CsvError, Table
from copilot_sync.inline_files import NamedText, inline_files
from copilot_sync.message_parts import Attachments
from copilot_sync.models import Conversation
from copilot_sync.prompts import CheckedPrompt, PromptText
from copilot_sync.safe_text import check_id, check_text, loads
from copilot_sync.text_files import HAS_NULS, NOT_TEXT, Line, lines_of

#: What tells a prompt from the others of its batch.
Id = Union[str, int]

FORMATS = ("jsonl", "csv", "text")
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


@dataclass(frozen=True)
class Prompt:
    """One prompt of a batch.

    Args:
        id: What tells it from the others, a string or a whole number; its result has the same.
        prompt: A text, or a list of role messages.
        model: The model's id. Default: the batch's, else the client's.
        system: Instructions for the model. Default: the batch's.
        conversation: A conversation or its id, to go on with it. Default: a new one. Prompts of the same conversation
            are asked one after the other.
        files: Text files to attach: pairs of a name and a text, of at most 1 MiB each. No path is opened, because
            prompts come out of files that must not choose what is read on this machine.
    """

    id: Id
    prompt: Union[str, Sequence[Mapping[str, Any]]]
    model: Optional[str] = None
    system: Optional[str] = None
    conversation: Union[None, str, Conversation] = None
    files: Sequence[NamedText] = ()

    def content(self, system: Optional[str] = None) -> PromptText:
        """Return the one text that is sent. The prompt is checked the first time.

        Args:
            system: Instructions if the prompt has none of its own.

        Raises:
            TypeError: The prompt has the wrong type.
            ValueError: There is nothing in it to send.
        """
        is_new = Conversation.from_value(self.conversation) is None
        text = self._checked_prompt.text(self.system or system, is_new=is_new)
        return text.attach(Attachments(inline_files(self.files))) if self.files else text

    @functools.cached_property
    def _checked_prompt(self) -> CheckedPrompt:
        return CheckedPrompt.from_value(self.prompt)


@dataclass(frozen=True)
class BadLine:
    """What stands in the place of a prompt.

    Attributes:
        id: Its id, if that much could be read, else the number of the line.
        number: The number of the line, from 1.
        reason: Where it stands, and what is wrong with it.
    """

    id: Id
    number: int
    reason: str


#: What a batch is made of.
PromptSource = Iterable[Union[str, Mapping[str, Any], Prompt, BadLine]]


def read_prompt(value: object, number: int) -> Union[Prompt, BadLine]:
    """Read what callers may give for a prompt: a text, a mapping as a line of JSON has it, or a ``Prompt``.

    Args:
        value: The prompt.
        number: Its place among the others, which is its id if it has none.
    """
    if isinstance(value, BadLine):
        return value
    if isinstance(value, str):
        value = Prompt(number, value)
    if isinstance(value, Mapping):
        return _read_fields(value, number, f"prompt {number}")
    if not isinstance(value, Prompt):
        kind = type(value).__name__
        return BadLine(number, number, f"prompt {number} must be a string, a dictionary or a Prompt, not {kind}")
    return _checked(value, number, f"prompt {number}")


def _checked(prompt: Prompt, number: int, place: str) -> Union[Prompt, BadLine]:
    try:
        _checked_id(prompt.id)
        prompt.content()
    except (TypeError, ValueError) as error:
        return BadLine(_readable_id(prompt.id, number), number, f"{place}: {error}")
    return prompt


def read(source: Union[str, "os.PathLike[str]", BinaryIO], format: Optional[str] = None) -> "PromptFile":
    """Open a file of prompts.

    Nothing is read yet, but for what can be read only once, such as stdin or a named pipe: that is copied to a
    temporary file first, up to its end.

    Args:
        source: A path, or a binary stream.
        format: ``jsonl``, ``csv`` or ``text``. Default: what the path's suffix says; ``jsonl`` for a stream.

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
    return _read_lines(file, lambda text, number: _checked(Prompt(number, text), number, f"line {number}"))


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
    return _read_fields(fields, number, f"line {number}")


def _read_fields(fields: Mapping[str, Any], number: int, place: str) -> Union[Prompt, BadLine]:
    id = fields.get("id")
    id = number if id is None or id == "" else id
    try:
        return _checked(_prompt_of_fields(fields, id), number, place)
    except (TypeError, ValueError) as error:
        return BadLine(_readable_id(id, number), number, f"{place}: {error}")


def _readable_id(id: object, number: int) -> Id:
    try:
        return _checked_id(id)
    except (TypeError, ValueError):
        return number


def _checked_id(id: object) -> Id:
    if isinstance(id, bool) or not isinstance(id, (str, int)):
        raise TypeError(f"id must be a string or a whole number, not {type(id).__name__}")
    return check_text("id", id) if isinstance(id, str) else id


def _prompt_of_fields(fields: Mapping[str, Any], id: Id) -> Prompt:
    given = [name for name in ("prompt", "messages") if fields.get(name) is not None]
    if len(given) != 1:
        raise ValueError(f"a prompt has either prompt or messages, and this one has {' and '.join(given) or 'neither'}")
    return Prompt(
        id=id,
        prompt=_content_of(fields, given[0]),
        model=_text_of(fields, "model"),
        system=_text_of(fields, "system"),
        conversation=_conversation_of(fields),
        files=fields.get("files") or (),
    )


def _content_of(fields: Mapping[str, Any], name: str) -> Union[str, List[Mapping[str, Any]]]:
    value: Union[str, List[Mapping[str, Any]]] = fields[name]
    kind, words = (str, "a string") if name == "prompt" else (list, "a list")
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {words}, not {type(value).__name__}")
    return value


def _text_of(fields: Mapping[str, Any], name: str) -> Optional[str]:
    value = fields.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return check_text(name, value)


def _conversation_of(fields: Mapping[str, Any]) -> Optional[Conversation]:
    value = fields.get("conversation")
    known = Conversation.from_dict(value) if isinstance(value, Mapping) else Conversation.from_value(value)
    if known is not None:
        check_id(known.conversation_id)
    return known


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
    fields.pop("messages", None)
    return _read_fields(fields, number, f"line {number}")


#: What reads a format, and what finds the faults of a file as a whole.
_READERS = {
    "jsonl": (_read_jsonl, _check_jsonl),
    "csv": (_read_csv, _check_csv),
    "text": (_read_text, _check_text),
}
