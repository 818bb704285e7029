"""Prompts as they come in: values, and files of them that are read line by line.

A file is JSON Lines, CSV with named columns, or plain text with a prompt a line. It is never held in memory: it is read
anew each time it is iterated, so that it can be gone through once for its ids before the first prompt is
sent. What can't be read as a prompt becomes a ``BadLine``, a value like any other, and does not stop the rest.
"""

import csv
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from copilot_sync import protocol
from copilot_sync.models import Conversation

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
#: Bytes. A longer line is no prompt that any model would read.
_LONGEST_LINE = 16 * 1024 * 1024
_DELIMITERS = (",", ";", "\t")
_BOM = b"\xef\xbb\xbf"


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
    """

    id: Id
    prompt: Union[str, Sequence[Mapping[str, Any]]]
    model: Optional[str] = None
    system: Optional[str] = None
    conversation: Union[None, str, Conversation] = None

    def content(self, system: Optional[str] = None) -> str:
        """The one text that is sent: instructions are a role message at a conversation's beginning, else a paragraph.

        Args:
            system: Instructions where the prompt has none of its own.

        Raises:
            TypeError: The prompt has the wrong type.
            ValueError: There is nothing in it to send.
        """
        instructions = self.system or system
        if Conversation.of(self.conversation) is not None:
            text = self._last_turn()
            return f"{instructions}\n\n{text}" if instructions else text
        if isinstance(self.prompt, str) and not instructions:
            return protocol.check_prompt(self.prompt)
        before = [{"role": "system", "content": instructions}] if instructions else []
        return protocol.format_prompt([*before, *self._messages()])

    def _last_turn(self) -> str:
        if isinstance(self.prompt, (list, tuple)):
            return protocol.last_user_turn(self.prompt)
        return protocol.check_prompt(self.prompt)

    def _messages(self) -> Sequence[Mapping[str, Any]]:
        if isinstance(self.prompt, (list, tuple)):
            return self.prompt
        return [{"role": "user", "content": protocol.check_prompt(self.prompt)}]


@dataclass(frozen=True)
class BadLine:
    """What stands where a prompt should.

    Attributes:
        id: Its id, where that much could be read, else the number of the line.
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
        number: Its place among the others, which is its id where it has none.
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
        ValueError: The format is none of these, or the suffix does not tell it.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"a format is one of {', '.join(FORMATS)}, not {format!r}")
    if not isinstance(source, (str, os.PathLike)):
        return PromptFile(_Spooled(source), format or "jsonl")
    path = os.fspath(source)
    if not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "rb") as stream:
            return PromptFile(_Spooled(stream), format or "jsonl")
    suffix = os.path.splitext(path)[1].lower()
    if format is None and suffix not in _SUFFIXES:
        raise ValueError(f"the suffix {suffix!r} does not tell the format: say jsonl, csv or text")
    return PromptFile(_Named(path), format or _SUFFIXES[suffix])


class PromptFile:
    """A file of prompts, read line by line each time it is iterated. For one thread at a time.

    Files are opened by ``read``.
    """

    def __init__(self, source: "Union[_Named, _Spooled]", format: str) -> None:
        self._source = source
        self.format = format

    def __iter__(self) -> Iterator[Union[Prompt, BadLine]]:
        with self._source.open() as file:
            yield from _READERS[self.format](file)

    def close(self) -> None:
        """Remove the temporary file, where there is one."""
        self._source.close()

    def __enter__(self) -> "PromptFile":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Named:
    def __init__(self, path: str) -> None:
        self._path = path
        self.open().close()  # what can't be read is told at once

    def open(self) -> IO[bytes]:
        return open(self._path, "rb")

    def close(self) -> None:
        """Nothing is held open between two readings."""


class _Spooled:
    """A stream that was copied to a file without a name."""

    def __init__(self, stream: BinaryIO) -> None:
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


# Lines


def _lines(file: IO[bytes]) -> Iterator[Tuple[int, Union[str, BadLine]]]:
    """The lines that are not blank, with their numbers."""
    number = 0
    while True:
        line = file.readline(_LONGEST_LINE + 1)
        if not line:
            return
        number += 1
        if len(line) > _LONGEST_LINE:
            _skip_line(file, line)
            yield number, _bad_line(number, f"it is longer than {_LONGEST_LINE} bytes")
            continue
        if number == 1 and line.startswith(_BOM):
            line = line[len(_BOM) :]
        if line.strip():
            yield number, _decoded(line, number)


def _skip_line(file: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(_LONGEST_LINE)


def _bad_line(number: int, reason: str) -> BadLine:
    return BadLine(number, number, f"line {number}: {reason}")


def _decoded(line: bytes, number: int) -> Union[str, BadLine]:
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return _bad_line(number, "it is not UTF-8 text")


def _read_text(file: IO[bytes]) -> Iterator[Union[Prompt, BadLine]]:
    for number, line in _lines(file):
        yield _checked(Prompt(number, line), number, f"line {number}") if isinstance(line, str) else line


def _read_jsonl(file: IO[bytes]) -> Iterator[Union[Prompt, BadLine]]:
    for number, line in _lines(file):
        yield _prompt_of_json(line, number) if isinstance(line, str) else line


def _prompt_of_json(line: str, number: int) -> Union[Prompt, BadLine]:
    try:
        fields = protocol.loads(line)
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
    return protocol.check_text("id", id) if isinstance(id, str) else id


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
    return protocol.check_text(name, value)


def _conversation_of(fields: Mapping[str, Any]) -> Optional[Conversation]:
    value = fields.get("conversation")
    known = Conversation.from_dict(value) if isinstance(value, Mapping) else Conversation.of(value)
    if known is not None:
        protocol.segment(known.conversation_id)  # refuses what is no id
    return known


# CSV


def _read_csv(file: IO[bytes]) -> Iterator[Union[Prompt, BadLine]]:
    first = file.readline(_LONGEST_LINE)
    header = _header(first)
    if header is None:
        raise ValueError("the first line of the CSV must name the columns, and one of them must be prompt")
    delimiter, columns = header
    rows = csv.reader(_texts(file), delimiter=delimiter, strict=True)
    while True:
        number = rows.line_num + 2  # the header is the first line
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield _bad_line(number, f"it is not valid CSV: {error}")
            continue
        if any(row):
            yield _prompt_of_row(columns, row, number)


def _header(line: bytes) -> Optional[Tuple[str, List[str]]]:
    """The delimiter and the columns: the delimiter is the one that makes ``prompt`` a column."""
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    for delimiter in _DELIMITERS:
        columns = [name.strip().lower() for name in next(csv.reader([text], delimiter=delimiter), [])]
        if "prompt" in columns:
            return delimiter, columns
    return None


def _texts(file: IO[bytes]) -> Iterator[str]:
    # What is not UTF-8 shows in the row that holds it, and only there.
    for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
        yield line.decode("utf-8", "surrogateescape")


def _prompt_of_row(columns: List[str], row: List[str], number: int) -> Union[Prompt, BadLine]:
    if len(row) > len(columns):
        return _bad_line(number, f"it has {len(row)} fields, and there are {len(columns)} columns")
    fields = dict(zip(columns, row))
    fields.pop("messages", None)
    return _read_fields(fields, number, f"line {number}")


_READERS = {"jsonl": _read_jsonl, "csv": _read_csv, "text": _read_text}
