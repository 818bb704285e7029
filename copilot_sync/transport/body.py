"""The bytes of a reply as they arrive, and how its connection ends.

A body is read from ``http.client`` below ``urllib3``'s own reading, because that is the one place where
every framing hands out what has arrived without waiting for more, in all versions. What it takes over from
``urllib3`` for this is small: undoing ``gzip`` and ``deflate`` (in bounded steps, so that a bomb can't fill
the memory), and giving the connection back.

A body ends in one of three ways: vouched for by its framing, without a word (the connection just ended), or
cut, which raises. It is read by one thread; ``CallContext.cancel`` is the way to end it from another.
"""

import contextlib
import http.client
import io
import zlib
from typing import TYPE_CHECKING, Any, Callable, Generator, Iterator, List, TypeVar

import urllib3

from copilot_sync.errors import NetworkError, ProtocolError, ResponseTooLargeError
from copilot_sync.settings import DRAIN_BYTES, DRAIN_SECONDS
from copilot_sync.stepping import NothingYet, Pace, Pause, without_pauses
from copilot_sync.transport.boundary import FAILURES, map_exception
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.reply import WatchedResponse

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

#: Bytes asked for in one read, and made in one step of decompression.
PIECE = 65536
#: Seconds that an error's body is waited for: its status matters more than its words.
ERROR_SECONDS = 2.0


def unread(reply: "requests.Response") -> Any:
    """Return what a reply's body is read from. A tool for tests that records may have read it, and keeps it then."""
    content: Any = getattr(reply, "_content", False)  # ``False`` as long as nobody has asked for it
    return reply.raw if content is False else urllib3.HTTPResponse(io.BytesIO(content), preload_content=False)


class Body:
    """A reply's body.

    Args:
        raw: The ``urllib3`` response.
        call: The call it belongs to.
        stage: The stage, for errors.
    """

    def __init__(self, raw: Any, call: CallContext, stage: str) -> None:
        self._raw = raw
        self._source = getattr(raw, "_fp", raw)
        self._read1 = _piece_reader(self._source)
        self._call = call
        self.stage = stage
        self._encoding = raw.headers.get("content-encoding", "").strip().lower()
        #: Whether the body's framing said that this is its end. Only meaningful once ``pieces`` has ended.
        self.framing_complete = False

    def pieces(self) -> Iterator[bytes]:
        """Yield what arrives, when it arrives, until the end. ``b""`` says that a step that polls has to pause.

        Raises:
            NetworkError: The body was cut or the connection failed.
            RequestTimeoutError: Nothing came for too long.
            StreamClosedError: The call was stopped.
            ProtocolError: The framing or the compression is broken.
        """
        self._call.enter("read")
        if self._encoding in ("", "identity"):
            return self._arriving()
        return self._unpacked()

    def _arriving(self) -> Iterator[bytes]:
        call, read1, stage = self._call, self._read1, self.stage
        error = None
        source = self._source if isinstance(self._source, WatchedResponse) else None
        while True:
            if call.turn_is_over and call.pace is Pace.POLLING and (source is None or source.has_to_wait):
                yield b""
                continue
            try:
                data = read1(PIECE)
                if not data:
                    self.framing_complete = self._is_vouched()
            except NothingYet:
                yield b""
                continue
            except FAILURES as failure:
                error = map_exception(failure, call, stage)
            if error is not None:  # raised out here, so that the foreign error is not its context
                raise error
            call.check(stage)
            if not data:
                return
            yield data

    def _unpacked(self) -> Iterator[bytes]:
        decoder = self._new_decoder()
        unfinished = False
        is_plain = None
        for data in self._arriving():
            if data and is_plain is None:
                is_plain = self._was_unpacked(data)
            if is_plain or not data:
                yield data
                continue
            unfinished = unfinished or bool(data)
            piece = b""
            while data or len(piece) == PIECE:
                piece = self._decompressed(decoder, data)
                data = decoder.unconsumed_tail or decoder.unused_data
                if decoder.eof:
                    decoder = self._new_decoder()
                    unfinished = bool(data)
                self._call.check(self.stage)
                if piece:
                    yield piece
                    if len(piece) == PIECE and self._call.pace is Pace.POLLING:
                        self._call.has_more = True  # what came at once may be a thousand times as much
                        yield b""
        # The framing vouches for the compressed bytes alone.
        self.framing_complete = self.framing_complete and not unfinished

    def _was_unpacked(self, beginning: bytes) -> bool:
        """Whether a tool for tests has unpacked the body and left the header that says how it was packed."""
        is_plain = not _GZIP_BEGINS.startswith(beginning[: len(_GZIP_BEGINS)])
        return is_plain and self._encoding in _GZIP and type(self._source) not in _READ_FROM_A_SOCKET

    def _decompressed(self, decoder: Any, data: bytes) -> bytes:
        try:
            return decoder.decompress(data, PIECE)  # type: ignore[no-any-return]
        except zlib.error:
            raise ProtocolError("the reply is not compressed as it says", stage=self.stage) from None

    def _new_decoder(self) -> Any:
        if self._encoding not in _WINDOWS:
            raise ProtocolError("the reply came in an encoding that was not asked for", stage=self.stage)
        return zlib.decompressobj(_WINDOWS[self._encoding])

    def _is_vouched(self) -> bool:
        """Whether the end that was just read is the one that the framing announced."""
        source = self._source
        # What tools for tests hand out may be a subclass that has nothing but its name from http.client.
        if type(source) not in _READ_FROM_A_SOCKET or source.chunked:
            return True
        if source.length:
            raise http.client.IncompleteRead(b"", source.length)
        return bool(source.length == 0)

    def read(self, limit: int, understand: Callable[[bytes], T] = bytes) -> T:  # type: ignore[assignment]
        """Do what ``reading`` does, at once."""
        return without_pauses(self.reading(limit, understand))

    def reading(
        self,
        limit: int,
        understand: Callable[[bytes], T] = bytes,  # type: ignore[assignment]
    ) -> Generator[Pause, None, T]:
        """Read the whole body in steps, and return what ``understand`` makes of it. Free the connection.

        If ``understand`` raises, the connection serves no other request.

        Raises:
            ResponseTooLargeError: It is longer than ``limit`` bytes.
            CopilotError: As ``pieces`` raises them.
        """
        parts: List[bytes] = []
        size = 0
        try:
            for piece in self.pieces():
                if not piece:
                    yield Pause.NOTHING_YET
                    continue
                self._call.hear()
                parts.append(piece)
                size += len(piece)
                if size > limit:
                    raise ResponseTooLargeError(f"the reply is longer than {limit} bytes", stage=self.stage)
            understood = understand(b"".join(parts))
            self._give_back()
        finally:
            self.close()
        return understood

    def read_some(self, limit: int, understand: Callable[[bytes], T] = bytes) -> T:  # type: ignore[assignment]
        """Read as much of a body's beginning as can be had, whatever is wrong with the rest, as ``read`` does."""
        parts: List[bytes] = []
        size, is_whole = 0, False
        try:
            with self._call.window(ERROR_SECONDS), contextlib.suppress(NetworkError, ProtocolError):
                for piece in self.pieces():
                    parts.append(piece)
                    size += len(piece)
                    if size > limit or self._call.window_closed:
                        break
                else:
                    is_whole = True
            understood = understand(b"".join(parts)[:limit])
            if is_whole:
                self._give_back()
        finally:
            self.close()
        return understood

    def finishing(self) -> Iterator[Pause]:
        """Return the connection to its pool once the answer is whole, reading the little that may still follow it."""
        try:
            is_drained = yield from self._drained()
            if is_drained:
                self._give_back()
        finally:
            self.close()

    def _drained(self) -> Generator[Pause, None, bool]:
        """Whether the body ended, as its framing announced, within what may follow an answer."""
        size = 0
        with self._call.window(DRAIN_SECONDS), contextlib.suppress(*FAILURES):
            while size <= DRAIN_BYTES:
                try:
                    data = self._read1(PIECE)
                except NothingYet:
                    yield Pause.NOTHING_YET
                    continue
                if not data:
                    self.framing_complete = self._is_vouched()
                    return True
                size += len(data)
                if self._call.window_closed:
                    break
        return False

    def _give_back(self) -> None:
        """Let go of the connection: from here on the call must not touch its socket. The pool decides its fate."""
        self._call.detach_socket()
        if self.framing_complete and isinstance(self._source, WatchedResponse):
            self._source.settle()
        self._source.close()
        release = getattr(self._raw, "release_conn", None)
        if release is not None:
            release()

    def close(self) -> None:
        """Close the connection unless it was given back. For the reading thread; never blocks."""
        self._call.detach_socket()  # first: its number may belong to another connection at once
        self._raw.close()


#: The replies whose framing is known here.
_READ_FROM_A_SOCKET = (WatchedResponse, http.client.HTTPResponse)


def _piece_reader(source: Any) -> Callable[[int], bytes]:
    """What reads as much of a body as has arrived."""
    if isinstance(source, WatchedResponse):
        return source.piece_reader()
    return getattr(source, "read1", None) or source.read  # type: ignore[no-any-return]


_GZIP = ("gzip", "x-gzip")
_GZIP_BEGINS = b"\x1f\x8b"
#: The window of zlib for each encoding that can be undone.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
