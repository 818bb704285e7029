r"""Bytes in, the data of events out: ``sseclient-py``, made to follow the WHATWG event stream standard.

By itself ``sseclient-py`` keeps a byte order mark, does not end an event where line ends are mixed, hands out
the half event at the end of a cut stream, fails on bytes that are not UTF-8, and buffers without bound.
``EventParser`` stands in front of it: it takes pieces of any size, cut anywhere, makes all line ends
``\n``, cuts at blank lines and hands on whole events alone.

There are two readings of an event here. The general one is ``sseclient-py``. The short one takes an event that is a
single ``data:`` line, as nearly all are, directly: about half the cost of an event. Both go through the same
tests. ``event``, ``id`` and ``retry`` mean nothing to this service and are ignored.
"""

import codecs
import re
from typing import List

from sseclient import SSEClient

from copilot_sync.errors import ResponseTooLargeError

#: The beginning of a line of data, which may come in single bytes.
_SUBSTANCE = re.compile(rb"^d", re.MULTILINE)
#: More than two line ends in a row, which say no more than two.
_BLANKS = re.compile(rb"\n{3,}")
#: Lines that ``sseclient-py`` gets at once.
_GROUP = 256


class EventParser:
    """Makes events of pieces of bytes. Knows no socket and no clock.

    Args:
        limit: The largest event, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()  # the beginning of an event that is not whole yet
        self._line_start = 0  # where the last line in the buffer begins
        self._after_cr = False
        self._at_start = True
        #: Whether the last piece held anything of an event's data.
        self.progressed = False

    def feed(self, piece: bytes) -> List[str]:
        """Take the next piece and give the data of all events that are whole with it.

        Raises:
            ResponseTooLargeError: An event is larger than the limit.
        """
        if self._at_start:
            piece = self._without_mark(piece)
        if self._after_cr or b"\r" in piece:
            piece = self._with_plain_line_ends(piece)
        if b"\n\n\n" in piece:
            piece = _BLANKS.sub(b"\n\n", piece)
        line_so_far = self._buffer[self._line_start : self._line_start + 1]
        if self._buffer or not piece.endswith(b"\n\n"):
            blocks = self._whole_blocks(piece)
        else:
            blocks = piece[:-2].split(b"\n\n")
        events = [data for block in blocks for data in self._read(block)]
        self.progressed = bool(events) or _SUBSTANCE.search(line_so_far + piece) is not None
        return events

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

    def _whole_blocks(self, piece: bytes) -> List[bytes]:
        """Add a piece to the buffer and take out what is whole. Looks at each byte a bounded number of times."""
        buffer = self._buffer
        before = len(buffer)
        buffer += piece
        end = buffer.rfind(b"\n\n", max(0, before - 1))
        blocks = []
        if end >= 0:
            blocks = bytes(buffer[:end]).split(b"\n\n")
            del buffer[: end + 2]
            before = self._line_start = 0
        newline = buffer.rfind(b"\n", before)
        if newline >= 0:
            self._line_start = newline + 1
        self._check_size(len(buffer))
        return blocks

    def _read(self, block: bytes) -> List[str]:
        self._check_size(len(block))
        if block.startswith(b"data:") and b"\n" not in block:
            start = 6 if block.startswith(b"data: ") else 5
            return [block[start:].decode("utf-8", "replace")]
        return _general(block) if block else []

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise ResponseTooLargeError(f"an event is longer than {self._limit} bytes", stage="stream")


def _general(block: bytes) -> List[str]:
    """Read the lines of one whole event as the standard says, at a cost that grows with them and no faster.

    ``sseclient-py`` copies what it has with each further line, so it gets the data lines in groups.
    """
    lines = [line for line in block.split(b"\n") if line.startswith(b"data")]
    groups = (b"\n".join(lines[start : start + _GROUP]) for start in range(0, len(lines), _GROUP))
    texts = [group.decode("utf-8", "replace").encode("utf-8") + b"\n\n" for group in groups]
    parts = [event.data for event in SSEClient(iter(texts)).events()]
    return ["\n".join(parts)] if parts else []
