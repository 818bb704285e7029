"""One reply as it comes off a connection: its bytes under a deadline, its head, and whether it was read to its end.

``http.client`` reads the head, and this module gives it what it reads from. Rules:

- No read blocks longer than the call allows, and no byte is lost between the head and the body, however many came
  together: there is one buffer, and everything is read through it.
- Interim replies (1xx but 101, RFC 9110, section 15.2) may come ahead of any reply. They are read past.
- A head must be whole, and nothing but a head.
- A read of a step that polls raises ``NothingYet`` if nothing has arrived. It loses nothing, and can be tried again. A
  head is read when it is whole, and interim replies one by one.
- ``http.client`` reads the fields of a head by a parser of mails, which takes longer than all else about a reply. If
  they are all there and nothing about them is unusual, they are taken apart here; a test holds the two to each other.
- ``settle`` is the one place that decides whether a connection may serve another request. It may if the framing proved
  the end of the body, nothing followed it, and there was nothing odd about either.
"""

import contextlib
import email.errors
import functools
import http.client
import io
import re
import socket
import ssl
from typing import Any, Callable, Optional, Tuple, cast

from copilot_sync.stepping import NothingYet, Pace
from copilot_sync.transport.call import CallContext, current_call
from copilot_sync.transport.chunks import ChunkedReader
from copilot_sync.transport.openssl_errors import WAITING, receive

#: The part of a socket's time-out that is left of it when it is set anew.
_ABOUT = 0.99
#: Bytes asked of the socket at once while a head is read.
_RECEIVE = 65536
#: The most that may come ahead of a reply as interim replies, in bytes.
_INTERIM_LIMIT = 256 * 1024
#: The longest line of an interim reply, in bytes, as ``http.client`` has it for other heads.
_LONGEST_LINE = 65536
#: The fields of a head with nothing unusual about them, which ``http.client`` would read in the same way: no line goes
#: on in the next, and there are no more lines, and no longer ones, than it takes.
_ORDINARY_FIELDS = re.compile(rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,1000}:[^\r\n]{0,60000}\r\n){1,99})\r\n")
#: A length that all agree on. ``http.client`` reads more than that as a number: signs, and blanks of all kinds.
_LENGTH = re.compile(r"[0-9]+[ \t]*\Z")
#: What the parser of mails says of lines that are no field. The rest is about the body of a mail, which is not there.
_NO_FIELD = (
    email.errors.FirstHeaderLineIsContinuationDefect,
    email.errors.InvalidHeaderDefect,
    email.errors.MisplacedEnvelopeHeaderDefect,
    email.errors.MissingHeaderBodySeparatorDefect,
)
#: How many turns of a loop end with the first read, before one looks for more until there is none. As a rule there is
#: no more, and to find that out takes longer than the read did; in a burst of TLS records, turns take longer still.
_SHORT_TURNS = 15


def _nothing() -> int:
    return 0


class ReplyReader(io.BufferedIOBase):
    """The bytes of one reply. Each read is bounded by its call, and takes what has arrived without waiting for more.

    Args:
        sock: The connection.
        call: What says how long a read may block.
    """

    def __init__(self, sock: socket.socket, call: CallContext) -> None:
        self._sock = sock
        is_plain = isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket)
        self._receive: Callable[[int], bytes] = sock.recv if is_plain else functools.partial(receive, sock)
        # How many bytes the connection holds that the kernel knows nothing of, if that can be told. OpenSSL takes one
        # record at a time out of the kernel, so these are what is left of it.
        self._pending = _nothing if is_plain else sock.pending if isinstance(sock, ssl.SSLSocket) else None
        self._short_turns = 0
        self.call = call
        # Holds the socket open until the reply is closed, as http.client expects of what makefile() gives.
        self._hold = sock.makefile("rb", buffering=0)
        self._time_out = -1.0  # as it was set here
        self._data = b""
        self._place = 0  # what is before it was read
        #: Bytes that have arrived.
        self.received = 0
        #: Whether the connection has ended, and a read came upon its end.
        self.at_end = False
        self._has_ended = False  # as far as steps that poll have seen; there may be bytes that nobody has read
        #: Whether a head is looked for in what has arrived, so that nothing is received.
        self.is_looking = False
        self._has_line = False  # whether the first line of the head is there, and was looked at
        self._next_look = _RECEIVE + 1  # how much has to be there for a look, without an empty line

    @property
    def has_surplus(self) -> bool:
        """Whether bytes have arrived that nobody has read."""
        return self._place < len(self._data)

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def read1(self, size: int = -1) -> bytes:
        """Return what is there, and wait for something if there is nothing."""
        if self._data:
            return self._taken(len(self._data) if size < 0 else size)
        if not size:  # http.client asks for nothing at the end of a body whose length it knows
            return b""
        return self._arriving(_RECEIVE if size < 0 else size)

    def read(self, size: Optional[int] = -1) -> bytes:
        """Return so many bytes, or all up to the end of the connection; fewer only at that end."""
        parts = []
        left = -1 if size is None else size
        while left:
            part = self.read1(left)
            if not part:
                break
            parts.append(part)
            left -= len(part) if left > 0 else 0
        return b"".join(parts)

    def readline(self, size: Optional[int] = -1) -> bytes:
        """Return the next line, or so many bytes of a longer one."""
        data, place = self._data, self._place
        end = data.find(b"\n", place) + 1
        if 0 < end < len(data) and end - place <= (size or 0):  # as nearly all lines of heads are
            self._place = end
            return data[place:end]
        return self._line(size)

    def ordinary_fields(self) -> str:
        """Take the fields of a head, line by line, if they are all there and ordinary. Otherwise return nothing."""
        found = _ORDINARY_FIELDS.match(self._data, self._place)
        if found is None:
            return ""
        self._taken(found.end() - self._place)
        return found[1].decode("iso-8859-1")

    def _line(self, size: Optional[int]) -> bytes:
        limit = -1 if size is None else size
        searched = self._place
        while True:
            end = self._data.find(b"\n", searched) + 1
            if not end and 0 <= limit <= len(self._data) - self._place:
                end = self._place + limit
            if end:
                length = end - self._place
                return self._taken(length if limit < 0 else min(length, limit))
            more = self._arriving(_RECEIVE)
            if not more:
                return self._taken(len(self._data))
            self._data = self._data[self._place :] + more
            self._place, searched = 0, len(self._data) - len(more)

    def _taken(self, size: int) -> bytes:
        """Take bytes out of the buffer."""
        start, end = self._place, self._place + size
        taken = self._data[start:end]
        if end < len(self._data):
            self._place = end
        else:
            self._data, self._place = b"", 0
        return taken

    def _arriving(self, size: int) -> bytes:
        call = self.call
        if call.pace is Pace.POLLING:
            data = self._polled(size)
            self.at_end = not data
            return data
        seconds = call.read_seconds()
        # Setting the time-out is a call of the system, so it stays as it is if it is about right.
        if not _ABOUT * self._time_out <= seconds <= self._time_out:
            self._sock.settimeout(seconds)
            self._time_out = seconds
        data = self._receive(size)
        self.received += len(data)
        self.at_end = not data
        return data

    def _polled(self, size: int) -> bytes:
        """Receive for a step that polls.

        Raises:
            NothingYet: There is nothing, or the step has read its share.
            socket.timeout: There is nothing, and the time is over.
        """
        call = self.call
        if self._has_ended:
            return b""
        if call.turn_is_over or self.is_looking:
            raise NothingYet
        seconds = call.poll_seconds() if call.looks_at_time else 0.0
        if seconds != self._time_out:
            self._sock.settimeout(seconds)
            self._time_out = seconds
        try:
            data = self._receive(size)
        except WAITING:
            self._short_turns = 0
            raise call.heard_nothing() from None
        self.received += len(data)
        self._has_ended = not data
        looks_for_more = seconds or not call.watch.repeats or self._short_turns == _SHORT_TURNS
        if looks_for_more or self._pending is None or self._pending():
            call.note_read(len(data), size)
        else:
            self._short_turns += 1
            call.turn_is_over = True  # the kernel says again if there is more
        return data

    def mark(self) -> Tuple[bytes, int]:
        """Return the place of what is read next, for ``rewind``. What comes meanwhile is not to be lost."""
        return self._data, self._place

    def rewind(self, mark: Tuple[bytes, int]) -> None:
        """Go back to a place. Nothing may have been received since."""
        self._data, self._place = data, place = mark
        self._has_line = data.find(b"\n", place) >= 0
        self._next_look = len(data) - place + _RECEIVE

    def receive_for_head(self) -> None:
        """Receive until there is something to see: the first line, an empty line, the end, or much without any.

        Raises:
            NothingYet: More has to come.
        """
        while not self._has_ended:
            before = self._data[-3:]
            more = self._polled(_RECEIVE)
            self.call.hear()
            self._data, self._place = self._data[self._place :] + more, 0
            tail = before + more
            if not self._has_line and b"\n" in more:
                return
            if b"\n\n" in tail or b"\n\r\n" in tail or len(self._data) >= self._next_look:
                return

    def flush(self) -> None:
        """Do nothing, also once it is closed: a garbage collector may close this before the reply that flushes it."""

    def close(self) -> None:
        """Release the socket."""
        self._hold.close()
        super().close()


class _Fields:
    """Gives the fields of a head to ``http.client``, which would take a carriage return in a line for its end."""

    def __init__(self, reader: ReplyReader) -> None:
        self._reader = reader

    def readline(self, size: int = -1) -> bytes:
        line = self._reader.readline(size)
        if b"\r" in line[:-2]:
            raise http.client.HTTPException("there is a carriage return in the head of the reply that ends no line")
        return line


class _Source:
    """Stands in for the socket when ``http.client`` asks it for a file."""

    def __init__(self, reader: ReplyReader) -> None:
        self._reader = reader

    def makefile(self, mode: str) -> ReplyReader:
        return self._reader


class WatchedResponse(http.client.HTTPResponse):
    """A reply over a connection that obeys the current call."""

    _chunks: Optional[ChunkedReader] = None
    #: Whether the connection may serve another request.
    is_settled = False
    #: Whether the head was left to ``arrive``.
    is_deferred = False

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self._reader = ReplyReader(sock, current_call())
        self._mark: Tuple[bytes, int] = (b"", 0)  # where the head begins, behind interim replies
        super().__init__(cast(socket.socket, _Source(self._reader)), *args, **kwargs)

    def begin(self) -> None:
        """Read the head, or leave it to ``arrive``, if the call defers its reply. Then there is an empty one."""
        if not self._reader.call.defers_reply:
            self._read_head()
            return
        self.is_deferred = True
        self.version, self.status, self.reason = 11, 0, ""
        self.headers = self.msg = http.client.HTTPMessage()
        self.chunked = self.will_close = False
        self.length = None

    def arrive(self) -> None:
        """Read the head that was left to a later step.

        Raises:
            NothingYet: It is not whole yet, and the step polls. Nothing of it is lost.
            OSError: The connection failed.
            http.client.HTTPException: It is no head.
        """
        reader = self._reader
        while self.is_deferred:
            is_polling = reader.call.pace is Pace.POLLING
            if is_polling:
                reader.receive_for_head()
            self._mark, reader.is_looking = reader.mark(), is_polling
            self.headers = self.msg = None  # type: ignore[assignment] # or else there is nothing to read
            try:
                self._read_head()
                self.is_deferred = False
            except NothingYet:
                reader.rewind(self._mark)
            finally:
                reader.is_looking = False

    def _read_head(self) -> None:
        # http.client takes the end of the connection for the end of the head.
        try:
            self._read_status_and_fields()
        except http.client.BadStatusLine:
            if not self._reader.at_end:
                raise
        if self._reader.at_end:
            raise http.client.RemoteDisconnected("the connection ended inside the head of the reply")
        # http.client leaves out everything after a line that is no field, and urllib3 logs what that line says.
        if any(isinstance(defect, _NO_FIELD) for defect in self.msg.defects):
            raise http.client.HTTPException("there is a line in the head of the reply that is no field")
        self._find_framing()

    def _read_status_and_fields(self) -> None:
        version, self.status, reason = self._read_status()
        self.code, self.reason = self.status, reason.strip()
        is_old = version in ("HTTP/1.0", "HTTP/0.9")
        if not is_old and not version.startswith("HTTP/1."):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if is_old else 11
        lines = self._reader.ordinary_fields().split("\r\n")[:-1]
        self.headers = self.msg = (
            http.client.HTTPMessage() if lines else http.client.parse_headers(_Fields(self._reader))
        )
        for line in lines:
            name, _, value = line.partition(":")
            self.msg[name] = value.lstrip(" \t")
        if self.debuglevel > 0:
            for name, value in self.msg.items():
                print("header:", f"{name}:", value)  # noqa: T201 - as http.client does if it is told to

    def _find_framing(self) -> None:
        """Find out how the end of the body is known, as ``http.client`` does."""
        self.chunked = self.msg.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.will_close = self._check_close()  # type: ignore[attr-defined]
        self.length = None
        if not self.chunked:
            with contextlib.suppress(ValueError):
                length = int(self.msg.get("content-length", ""))
                self.length = None if length < 0 else length
        has_none = self.status < 200 or self.status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED)
        if has_none or self._method == "HEAD":  # type: ignore[attr-defined]
            self.length = 0
        if not self.chunked and self.length is None:
            self.will_close = True

    def _read_status(self) -> Any:
        """Read the line with the status, past any interim replies. By itself ``http.client`` knows only 100.

        From the first one on, any byte is a sign of life, and ``stall`` limits how long the reply may take.
        """
        call = self._reader.call
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.client.SWITCHING_PROTOCOLS:
                return version, status, reason
            if call.phase == "reply":  # a proxy that is asked to connect has no longer than connecting may take
                call.enter("read")
            while self._reader.readline(_LONGEST_LINE) not in (b"\r\n", b"\n", b""):
                if self._reader.received > _INTERIM_LIMIT:
                    raise http.client.HTTPException("there are more interim replies than any server sends")
            self._mark = self._reader.mark()

    def piece_reader(self) -> Callable[[int], bytes]:
        """Return what reads as much of the body as has arrived, nothing at its end."""
        if self.chunked and not self.isclosed():
            self._chunks = ChunkedReader(self._reader)
            return self._chunks.read1
        return self.read1

    @property
    def has_to_wait(self) -> bool:
        """Whether a read of the present step would raise ``NothingYet``: it has read its share, and nothing is left."""
        chunks, reader = self._chunks, self._reader
        if reader._place < len(reader._data):  # has_surplus, which is asked for each piece
            return False
        return not chunks.ended if chunks is not None else self.length != 0 and not self.isclosed()

    def settle(self) -> None:
        """Note that the reply was understood, and see whether its end is beyond doubt.

        A 204 has no body by definition, so nothing proves that none follows it: its connection is given up.
        """
        lengths = set(self.msg.get_all("content-length", ()))
        codings = self.msg.get_all("transfer-encoding", ())
        proven = self._chunks.ended if self._chunks is not None else self.length == 0
        self.is_settled = (
            proven
            and not self.will_close
            and not any("close" in value.lower() for value in self.msg.get_all("connection", ()))
            and len(lengths) + self.chunked == 1
            and all(_LENGTH.match(length) for length in lengths)
            and len(codings) == self.chunked
            and not (self.chunked and self.version < 11)  # which knows no chunks
            and 200 <= self.status < 600
            and self.status not in (http.client.NO_CONTENT, http.client.NOT_MODIFIED)
            and not self._reader.has_surplus
            and not (self._chunks is not None and self._chunks.has_surplus)
        )
