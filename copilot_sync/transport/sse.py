r"""Bytes in, the data of events out: ``sseclient-py``, made to follow the WHATWG event stream standard.

By itself ``sseclient-py`` keeps a byte order mark, does not end an event if line ends are mixed, hands out
the half event at the end of a cut stream, fails on bytes that are not UTF-8, and buffers without bound.
``EventParser`` stands in front of it: it takes pieces of any size, cut anywhere, makes all line ends
``\n``, cuts at blank lines and hands on whole events alone.

There are two readings of an event here. The general one is ``sseclient-py``. The short one takes whole events that
are a single ``data:`` line each, as nearly all are, directly: more than half the cost of an event. Both go
through the same tests. ``id`` and ``retry`` mean nothing to this service and are ignored; of the names of events,
``error`` alone means something. A line of words, or a document without a field's name, is what something in between
had to say, so it is handed on like an event.
"""

import codecs
import re
from typing import List, Sequence, Union

from sseclient import SSEClient

from copilot_sync.errors import ResponseTooLargeError

#: More than two line ends in a row, which say no more than two.
_BLANKS = re.compile(rb"\n{3,}")
_END = b"\n\n"
_START = "data: "
_NAME = b"event:"
#: How a line begins that can be no field, but a document or several words.
_STRAY = re.compile(rb"[{\[<]|[A-Za-z][\w'-]*,? +[\w('\"]")
#: Lines that ``sseclient-py`` gets at once.
_GROUP = 256
_Bytes = Union[bytes, bytearray]


class ErrorData(str):
    """The data of an event that is named ``error``; ``""`` if it has none."""


class EventParser:
    """Makes events of pieces of bytes. Knows no socket and no clock.

    Args:
        limit: The largest event, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()  # the beginning of an event that is not whole yet
        self._after_cr = False
        self._at_start = True
        self._too_large = False

    @property
    def torn(self) -> bool:
        """Whether what came last is the beginning of an event that is not whole."""
        return any(line and not line.startswith(b":") for line in self._buffer.split(b"\n"))

    def unfinished(self) -> List[str]:
        """What has come of an event that is not whole: its data, or what stands there without a field's name."""
        text = self._buffer.decode("utf-8", "replace")
        return _general(self._buffer) or [text]

    def feed(self, piece: bytes) -> List[str]:
        """Take the next piece and give the data of all events that are whole with it. ``check`` comes after it.

        The data of an event that is named ``error`` is ``ErrorData``.
        """
        if self._at_start:
            piece = self._without_mark(piece)
        if not self._buffer and not self._after_cr and len(piece) <= self._limit and piece.endswith(_END):
            events = _short(piece)
            if events:  # as nearly all are
                return events
        if self._after_cr or b"\r" in piece:
            piece = self._with_plain_line_ends(piece)
        whole = self._whole_part(piece) if b"\n" in piece else self._kept(piece)
        return _short(whole) or [data for block in whole.split(_END) if block for data in _general(block)]

    def _without_mark(self, piece: bytes) -> bytes:
        """Take a byte order mark off the beginning of the stream, though it may come in several pieces."""
        beginning = bytes(self._buffer) + piece
        self._buffer.clear()
        if len(beginning) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(beginning):
            self._buffer += beginning
            return b""
        self._at_start = False
        return beginning[3:] if beginning.startswith(codecs.BOM_UTF8) else beginning

    def _with_plain_line_ends(self, piece: bytes) -> bytes:
        """Make CR and CRLF to LF: a CR counts at once, and an LF that follows it in the next piece is dropped."""
        if not piece:
            return piece
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _kept(self, piece: bytes) -> bytes:
        """Keep a piece in which no line ends, which is most of a large event; nothing is whole with it."""
        self._buffer += piece
        self._too_large = self._too_large or len(self._buffer) > self._limit
        return b""

    def _whole_part(self, piece: bytes) -> _Bytes:
        """Return what is whole with a piece, and keep the rest. Looks at each byte a bounded number of times."""
        if b"\n\n\n" in piece:
            piece = _BLANKS.sub(b"\n\n", piece)
        buffer = self._buffer
        if not buffer and piece.endswith(_END):
            return piece if len(piece) <= self._limit else self._within_limit(piece)
        before = len(buffer)
        buffer += piece
        if buffer.endswith(_END):  # all of it, which may be much: it is not copied
            self._buffer = bytearray()
            return self._within_limit(buffer)
        end = buffer.rfind(_END, max(0, before - 1))
        whole: _Bytes = b""
        if end >= 0:
            with memoryview(buffer) as view:
                whole = bytes(view[: end + 2])
            del buffer[: end + 2]
        whole = self._within_limit(whole)
        self._too_large = self._too_large or len(buffer) > self._limit
        return whole

    def _within_limit(self, whole: _Bytes) -> _Bytes:
        """Return what stands before the first event that is too large."""
        if len(whole) <= self._limit:
            return whole
        size = 0
        for event in whole.split(_END):
            if len(event) > self._limit:
                self._too_large = True
                return whole[:size]
            size += len(event) + len(_END)
        return whole

    def check(self) -> None:
        """Raise if an event is too large; ``feed`` has given what came before it.

        Raises:
            ResponseTooLargeError: An event is larger than the limit.
        """
        if self._too_large:
            raise ResponseTooLargeError(f"an event is longer than {self._limit} bytes", stage="stream")


def _short(whole: _Bytes) -> List[str]:
    """Read whole events that are one ``data: `` line each; give nothing if one of them is not."""
    text = whole.decode("utf-8", "replace")
    events = text[len(_START) : -len(_END)].split("\n\n" + _START)
    usual = text.startswith(_START) and text.count("\n") == 2 * len(events) and "\r" not in text
    return events if usual else []


def _general(block: _Bytes) -> List[str]:
    """Read the lines of one whole event as the standard says, at a cost that grows with them and no faster.

    ``sseclient-py`` copies what it has with each further line, so it gets the data lines in groups.
    """
    every = block.lstrip(b"\n").split(b"\n")
    lines = [line for line in every if line.startswith(b"data")]
    groups = (b"\n".join(lines[start : start + _GROUP]) for start in range(0, len(lines), _GROUP))
    texts = [group.decode("utf-8", "replace").encode("utf-8") + b"\n\n" for group in groups]
    parts = [event.data for event in SSEClient(iter(texts)).events()]
    if _is_error(every):
        return [ErrorData("\n".join(parts))]
    stray = [line for line in every if _STRAY.match(line)]
    words = [b"\n".join(stray if parts else every).decode("utf-8", "replace")] if stray else []
    return [*words, "\n".join(parts)] if parts else words


def _is_error(lines: Sequence[_Bytes]) -> bool:
    """Whether the name of an event is ``error``: its last name counts, and a blank after the colon does not."""
    names = [line[len(_NAME) :] for line in lines if line.startswith(_NAME)]
    return bool(names) and names[-1].strip().lower() == b"error"
