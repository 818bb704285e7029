"""A reply as it came, and safe ways to read parts of it.

Any field may be missing, of another type, or hold text that can't be encoded. A value that is not as expected
is read as if it were not there.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Tuple, Union

from copilot_sync.safe_text import well_formed
from copilot_sync.settings import MAX_ERROR_TEXT
from copilot_sync.times import read_date

#: What may stand in front of a body: blanks and a byte order mark, which may come in single bytes.
_LEADING = re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf|\xef\xbb?\Z)*")


@dataclass(frozen=True)
class RawReply:
    """The head of a reply, and its body if it was read. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


def decoded(body: bytes) -> str:
    """Return the text of a body."""
    return without_leading(body).decode("utf-8", "replace")


def without_leading(body: bytes) -> bytes:
    """Take off what may stand in front of a body: blanks and a byte order mark."""
    leading = _LEADING.match(body)
    return body[leading.end() :] if leading else body


def first_byte(reply: RawReply) -> bytes:
    """Return what a body begins with, blanks and a byte order mark aside."""
    return reply.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]


def text_in(entry: Mapping[str, Any], key: str) -> str:
    """Return the text under a key; ``""`` if there is none."""
    value = entry.get(key)
    return well_formed(value) if isinstance(value, str) else ""


def optional_text_in(entry: Mapping[str, Any], key: str) -> Optional[str]:
    """Return the text under a key; ``None`` if there is none or it is empty."""
    return text_in(entry, key) or None


def mapping_in(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the mapping under a key; an empty one if there is none."""
    value = entry.get(key)
    return value if isinstance(value, Mapping) else {}


def number_in(entry: Mapping[str, Any], key: str) -> Union[None, int, float]:
    """Return the number under a key; ``None`` if there is none, or one that is not finite or too large for a float."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def mappings_in(entry: Mapping[str, Any], key: str) -> Tuple[Mapping[str, Any], ...]:
    """Return the JSON objects of the list under a key, fit to be written as JSON again; none if there is no list."""
    values = entry.get(key)
    return tuple(_writable(value) for value in values if isinstance(value, dict)) if isinstance(values, list) else ()


def _writable(value: Any) -> Any:
    """Return a value that was read from JSON without what Python reads and JSON in UTF-8 does not have."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        return {well_formed(key): _writable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_writable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clean(text: str) -> str:
    """Make a server's text fit for a message: one line, printable, at most 500 characters."""
    printable = "".join(character if character.isprintable() else " " for character in text[: MAX_ERROR_TEXT * 4])
    line = " ".join(printable.split())
    return line if len(line) <= MAX_ERROR_TEXT else line[: MAX_ERROR_TEXT - 1] + "…"


def is_header_value(text: str) -> bool:
    """Whether a text can stand in a header as it is: printable ASCII without blanks at its ends."""
    return text.isascii() and text.isprintable() and text == text.strip()


def server_time(headers: Mapping[str, str], now: float) -> float:
    """Return the server's clock, from its ``Date``; ``now`` if it sent none."""
    moment = read_date(headers.get("date", ""))
    return now if moment is None else moment
