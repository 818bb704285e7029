"""What the lines of a batch's output and of its journal look like: how one is written, read, and told from other text.

A line of the output is a result as JSON, in one of two forms. A line of the journal is the checksum of a JSON object,
and the object.
"""

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional

from copilot_sync.batch.results import is_openai_result, is_result
from copilot_sync.safe_text import loads

Fields = Dict[str, Any]

_RESULT_START = re.compile(rb'\{"id": ["\d-].*', re.DOTALL)
_NOTE_START = re.compile(rb"[0-9a-f]{0,8}|[0-9a-f]{8} .*", re.DOTALL)


@dataclass(frozen=True)
class LineFormat:
    """The lines of a file, without their ends.

    Attributes:
        write: Writes a line.
        read: Reads a line. Raises ``ValueError`` if it is not in this format.
        may_be_torn: Whether some bytes may be the start of a line in this format, and not the whole of something else.
        header: The bytes that the file begins with.
    """

    write: Callable[[Fields], bytes]
    read: Callable[[bytes], Fields]
    may_be_torn: Callable[[bytes], bool]
    header: bytes = b""

    def parse(self, line: bytes) -> Optional[Fields]:
        """Read a line that may be anything. Return ``None`` if it is not in this format."""
        try:
            return self.read(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


def _write_json(fields: Fields) -> bytes:
    try:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # the service may send half of a surrogate pair, which can only be escaped
        return json.dumps(fields).encode("ascii")


def _read_result(line: bytes) -> Fields:
    fields: Fields = loads(line.decode("utf-8"))
    if not is_result(fields):
        raise ValueError("it is no result")
    return fields


def _read_openai_result(line: bytes) -> Fields:
    fields: Fields = loads(line.decode("utf-8"))
    if not is_openai_result(fields):
        raise ValueError("it is no result")
    return fields


def _may_be_torn_result(start: bytes) -> bool:
    has_start = b'{"id": '.startswith(start) or _RESULT_START.fullmatch(start) is not None
    return has_start and not _is_json(start)


def _write_note(note: Fields) -> bytes:
    line = _write_json(note)
    return b"%08x %s" % (zlib.crc32(line), line)


def _read_note(line: bytes) -> Fields:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise ValueError("its checksum is wrong")
    note: Fields = json.loads(text.decode("utf-8"))
    return note


def _may_be_torn_note(start: bytes) -> bool:
    return _NOTE_START.fullmatch(start) is not None and not _is_json(start[9:])


def _is_json(text: bytes) -> bool:
    try:
        loads(text.decode("utf-8"))
    except ValueError:
        return False
    return True


OUTPUT = LineFormat(_write_json, _read_result, _may_be_torn_result)
OPENAI_OUTPUT = LineFormat(_write_json, _read_openai_result, _may_be_torn_result)
JOURNAL = LineFormat(_write_note, _read_note, _may_be_torn_note, _write_note({"journal": "copilot-sync batch"}) + b"\n")
