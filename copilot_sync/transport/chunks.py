"""The chunked framing of HTTP/1.1 (RFC 9112, section 7.1), undone for everything that has arrived at once.

``http.client`` undoes one chunk per call, which becomes the largest part of an event's cost if a service
sends each event in a chunk of its own. ``ChunkedReader`` reads what there is, cut anywhere, and gives
the bodies of all chunks in it in one piece. It looks at each byte a bounded number of times and keeps nothing but
the beginning of a line. It knows nothing of events.
"""

import http.client
import re
from typing import Any, List, Optional

#: The longest size line, and the most that may follow the last chunk, in bytes.
_LONGEST = 8192

_SIZE = rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n"
_FIRST_SIZE = re.compile(_SIZE)
_NEXT_SIZE = re.compile(rb"\r?\n" + _SIZE)
#: What a chunk that was sent by itself leaves behind its body.
_LINE_END = b"\r\n"
_TRAILERS = re.compile(rb"(?:[^\r\n][^\n]*\n)*\r?\n")
#: How many ends of lines belong to what is expected: with so many, it will not become that any more.
_LINE_ENDS = {_FIRST_SIZE: 1, _NEXT_SIZE: 2}


class ChunkedReader:
    """The body of a chunked reply.

    Args:
        source: What the chunks are read from, with ``read1``, and all of it: no byte may be held back elsewhere.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._expected = _FIRST_SIZE
        self._line = b""  # the beginning of what is expected
        self._left = 0  # bytes that the present chunk still has
        #: Whether the last chunk, and what may follow it, was read.
        self.ended = False
        self._failure: Optional[http.client.HTTPException] = None

    @property
    def has_surplus(self) -> bool:
        """Whether bytes behind the end came with it. They are no part of this body."""
        return self.ended and bool(self._line)

    def read1(self, size: int) -> bytes:
        """Return what arrives next, read with one call if that holds any of the body; nothing at the end.

        Raises:
            http.client.IncompleteRead: The chunks are cut, or are none. What came before has been given.
            http.client.LineTooLong: There is no end to a size or to what follows the last chunk.
        """
        while not self.ended:
            if self._failure is not None:
                raise self._failure
            data = self._source.read1(size)
            if not data:
                raise http.client.IncompleteRead(b"")
            between_chunks = self._line == _LINE_END and self._expected is _NEXT_SIZE
            body = (between_chunks and _single(data)) or self._undone(data)
            if body:
                return body
        return b""

    def _undone(self, data: bytes) -> bytes:
        if len(data) < self._left:
            self._left -= len(data)
            return data
        parts: List[bytes] = []
        data, place = self._line + data, 0
        while place < len(data):
            if self._left:
                end = place + self._left
                parts.append(data[place:end])
                self._left = max(0, end - len(data))
                place = end
                continue
            line = self._expected.match(data, place)
            if line is None:
                break
            place = line.end()
            if self._expected is _TRAILERS:
                self.ended = True
                break
            self._left = int(line.group(1), 16)
            self._expected = _NEXT_SIZE if self._left else _TRAILERS
        self._line = data[place:]
        if self._line not in (b"", _LINE_END) and not self.ended:
            self._check(self._line)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self, line: bytes) -> None:
        """Note if what is expected can't begin like this."""
        line_ends = _LINE_ENDS.get(self._expected)
        if line_ends is not None and line.count(b"\n") >= line_ends:
            self._failure = http.client.IncompleteRead(b"")
        elif len(line) > _LONGEST:
            self._failure = http.client.LineTooLong("chunk")


def _single(data: bytes) -> bytes:
    """The body of a chunk that came by itself, behind another such chunk; nothing if it is not that simple."""
    line = _FIRST_SIZE.match(data)
    if line is None or not data.endswith(_LINE_END):
        return b""
    place = line.end()
    return data[place:-2] if int(line[1], 16) == len(data) - place - 2 else b""
