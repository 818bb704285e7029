"""The bytes of a reply as they arrive, how its end is judged, and what becomes of its connection."""

import contextlib
import gzip
import io
import threading
import zlib
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
import responses
from support import Peer, Script, Server, Worker, answering, cutting, wait_for

from copilot_sync.errors import (
    CopilotError,
    NetworkError,
    ProtocolError,
    RequestTimeoutError,
    ResponseTooLargeError,
    StreamClosedError,
)
from copilot_sync.protocol.requests import Request
from copilot_sync.settings import DRAIN_BYTES, Timeout
from copilot_sync.transport.body import PIECE, Body
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Response, Transport

PATIENT = Timeout(connect=60, read=60)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSING = OK + b"\r\n"
LAST = b"0\r\n\r\n"
NEXT = OK + b"Content-Length: 4\r\n\r\nnext"


def opened(transport: Transport, url: str, call: Optional[CallContext] = None) -> Response:
    call = call or CallContext(PATIENT)
    call.begin()
    return transport.open(Request("message", "GET", url, "/", {}), lambda prepared: prepared, call)


@contextlib.contextmanager
def replying(transport: Transport, script: Script, call: Optional[CallContext] = None) -> Iterator[Body]:
    with Server(script) as server:
        body = opened(transport, server.url, call).body
        yield body
        body.close()


def sized(length: int) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % length


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def encoded(encoding: str, more: bytes = b"") -> bytes:
    return OK + b"Content-Encoding: " + encoding.encode() + b"\r\n" + more + b"\r\n"


def flushed(window: int, *pieces: bytes) -> List[bytes]:
    """Compressed pieces, each of which can be unpacked as soon as it is there."""
    packer = zlib.compressobj(wbits=window)
    packed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*packed[:-1], packed[-1] + packer.flush()]


GZIP, DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS
CHUNKS = b"Transfer-Encoding: chunked\r\n"

# Each: the head, what is sent after it one part at a time, and whether the framing vouches for the end.
FRAMINGS: Dict[str, Any] = {
    "chunked": (CHUNKED, [chunk(b"one"), chunk(b"two"), chunk(b"three") + LAST], True),
    "one large chunk": (CHUNKED, [b"b\r\none", b"two", b"three\r\n" + LAST], True),
    "chunked with extensions and trailers": (
        CHUNKED,
        [b"3;a=b\r\none\r\n", b"0003\r\ntwo\r\n", b"5\r\nthree\r\n0;c\r\nX: y\r\nZ: \r\n\r\n"],
        True,
    ),
    "content-length": (sized(11), [b"one", b"two", b"three"], True),
    "close-delimited": (CLOSING, [b"one", b"two", b"three"], False),
    "identity": (encoded("identity", CHUNKS), [chunk(b"one"), chunk(b"two"), chunk(b"three") + LAST], True),
    "gzip": (encoded("gzip"), flushed(GZIP, b"one", b"two", b"three"), False),
    "gzip in chunks": (
        encoded(" GZip ", CHUNKS),
        [chunk(part) for part in flushed(GZIP, b"one", b"two", b"three")] + [LAST],
        True,
    ),
    "many gzip members": (encoded("x-gzip"), [gzip.compress(part) for part in (b"one", b"two", b"three")], False),
    "deflate": (encoded("deflate"), flushed(DEFLATE, b"one", b"two", b"three"), False),
}


@pytest.mark.parametrize(("head", "parts", "framing_complete"), FRAMINGS.values(), ids=FRAMINGS)
def test_each_piece_is_handed_out_when_it_arrives(
    transport: Transport, head: bytes, parts: List[bytes], framing_complete: bool
) -> None:
    """Whatever the framing, without waiting for what comes next: the server sends it only after the piece before."""
    turns = [threading.Event() for _ in parts]

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(head)
        for turn, part in zip(turns, parts):
            wait_for(turn)
            peer.send(part)

    with replying(transport, script) as body:
        pieces = body.pieces()
        for turn, expected in zip(turns, [b"one", b"two", b"three"]):
            turn.set()
            assert next(pieces) == expected
        turns[-1].set()
        assert list(pieces) == []
        assert body.framing_complete is framing_complete


def test_several_gzip_members_may_come_at_once(transport: Transport) -> None:
    """Members follow each other without a gap, an empty one among them."""
    packed = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two")
    with replying(transport, cutting(encoded("gzip") + packed)) as body:
        assert b"".join(body.pieces()) == b"onetwo"


def test_a_framing_does_not_vouch_for_what_is_packed_in_it(transport: Transport) -> None:
    """A gateway may end a body in good order whose compressed bytes were cut behind it."""
    packed = flushed(GZIP, b"one", b"two")[0]
    with replying(transport, cutting(encoded("gzip", CHUNKS) + chunk(packed) + LAST)) as body:
        assert b"".join(body.pieces()) == b"one"
        assert not body.framing_complete


def test_a_body_without_a_connection_behind_it_is_vouched_for(transport: Transport) -> None:
    """As a mock's is: there is nothing that could have been cut."""
    with responses.RequestsMock() as mock:
        mock.get("https://github.example/", body=b"one")
        body = opened(transport, "https://github.example/").body
        assert list(body.pieces()) == [b"one"]
        assert body.framing_complete
        list(body.finishing())


class _Raw:
    """The least that a mock's reply can be: headers, and something to read."""

    def __init__(self, data: bytes) -> None:
        self.headers: Dict[str, str] = {}
        self._data = io.BytesIO(data)
        self.read, self.close = self._data.read, self._data.close


def test_a_body_that_can_only_be_read_will_do() -> None:
    """Not all mocks have more than ``read``, and there is no connection to give back."""
    raw = _Raw(b"x" * (PIECE + 1))
    body = Body(raw, CallContext(PATIENT), "stream")
    assert [len(piece) for piece in body.pieces()] == [PIECE, 1]
    assert body.framing_complete
    list(body.finishing())
    assert raw._data.closed


# fmt: off
CUTS: Dict[str, bytes] = {
    "in a chunk":             CHUNKED + b"9\r\none",
    "after a chunk's data":   CHUNKED + b"3\r\none",
    "after a chunk":          CHUNKED + chunk(b"one"),
    "in a chunk's size":      CHUNKED + chunk(b"one") + b"1",
    "not a chunk's size":     CHUNKED + chunk(b"one") + b"x\r\n",
    "short of its length":    sized(4) + b"one",
    "short of its gzip":      encoded("gzip", b"Content-Length: 99\r\n") + flushed(GZIP, b"one")[0],
}
# fmt: on


@pytest.mark.parametrize("said", CUTS.values(), ids=CUTS)
def test_a_body_that_is_cut_raises_after_what_had_come(transport: Transport, said: bytes) -> None:
    """Nothing of it is lost, and nobody takes it for whole."""
    with replying(transport, cutting(said)) as body:
        pieces = body.pieces()
        assert next(pieces) == b"one"
        with pytest.raises(NetworkError, match="cut in the middle") as caught:
            next(pieces)
        assert (caught.value.stage, caught.value.may_have_been_sent, body.framing_complete) == ("stream", True, False)
        assert caught.value.__context__ is None


def test_a_reset_in_a_body_is_a_network_error(transport: Transport) -> None:
    """As a cut is."""
    read = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(CLOSING + b"one")
        wait_for(read)
        peer.reset()

    with replying(transport, script) as body:
        pieces = body.pieces()
        assert next(pieces) == b"one"
        read.set()
        with pytest.raises(NetworkError, match="the connection was reset"):
            next(pieces)


# fmt: off
BROKEN: Dict[str, Any] = {
    "a size without an end":    (CHUNKED + b"1" * 70_000,                           "not valid HTTP"),
    "a trailer without an end": (CHUNKED + b"0\r\nX: " + b"x" * 70_000,             "not valid HTTP"),
    "not gzip":                 (encoded("gzip", b"Content-Length: 3\r\n") + b"one", "not compressed as it says"),
    "not asked for":            (encoded("s3cret"),                                 "not asked for"),
    "two encodings":            (encoded("gzip, gzip"),                             "not asked for"),
}
# fmt: on


@pytest.mark.parametrize(("said", "words"), BROKEN.values(), ids=BROKEN)
def test_a_body_that_makes_no_sense_is_a_protocol_error(transport: Transport, said: bytes, words: str) -> None:
    """With none of its bytes in the error."""
    with replying(transport, answering(said)) as body:
        with pytest.raises(ProtocolError, match=words) as caught:
            list(body.pieces())
    assert caught.value.stage == "stream"
    assert caught.value.__cause__ is None
    assert "s3cret" not in repr(caught.value)


def test_a_bomb_goes_off_in_small_pieces(transport: Transport) -> None:
    """A few kilobytes that unpack to very much never fill the memory: reading stops at its limit."""
    bomb = gzip.compress(bytes(50_000_000))
    with replying(transport, answering(encoded("gzip", b"Content-Length: %d\r\n" % len(bomb)) + bomb)) as body:
        pieces = body.pieces()
        assert max(len(next(pieces)) for _ in range(100)) <= PIECE
    with replying(transport, answering(encoded("gzip", b"Content-Length: %d\r\n" % len(bomb)) + bomb)) as body:
        with pytest.raises(ResponseTooLargeError, match="longer than 1000000 bytes"):
            body.read(1_000_000)


def test_unpacking_stops_with_the_call(transport: Transport) -> None:
    """Though all that is still to be unpacked is here already."""
    bomb = gzip.compress(bytes(50_000_000))
    with replying(transport, answering(encoded("gzip", b"Content-Length: %d\r\n" % len(bomb)) + bomb)) as body:
        pieces = body.pieces()
        next(pieces)
        body._call.cancel()
        with pytest.raises(StreamClosedError):
            next(pieces)


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_nothing_is_left_in_the_unpacking(transport: Transport, size: int) -> None:
    """Also where what was unpacked just fills a piece."""
    packed = gzip.compress(bytes(size)) * 2
    with replying(transport, answering(encoded("gzip", b"Content-Length: %d\r\n" % len(packed)) + packed)) as body:
        assert sum(len(piece) for piece in body.pieces()) == 2 * size


def test_all_that_can_be_unpacked_is_handed_out() -> None:
    """Wherever the compressed bytes stop: what fills a piece exactly may not be all that they hold."""
    packed = gzip.compress(bytes(3 * PIECE))
    for length in range(len(packed) + 1):
        raw = _Raw(packed[:length])
        raw.headers["content-encoding"] = "gzip"
        unpacked = b"".join(Body(raw, CallContext(PATIENT), "stream").pieces())
        assert unpacked == zlib.decompressobj(GZIP).decompress(packed[:length])


def connections(
    transport: Transport, first: bytes, use: Callable[[Body], Any], call: Optional[CallContext] = None
) -> int:
    """How many connections two requests take, after the first of which something was done with its body."""
    with Server(answering(first, NEXT)) as server:
        body = opened(transport, server.url, call).body
        use(body)
        again = opened(transport, server.url).body
        if server.connections == 1:
            assert again.read(100) == b"next"
        again.close()
        return server.connections


@pytest.mark.parametrize("size", [0, 5, 10])
def test_a_body_up_to_its_limit_is_read_and_its_connection_kept(transport: Transport, size: int) -> None:
    """The limit itself is allowed."""
    read: List[bytes] = []
    assert connections(transport, sized(size) + b"x" * size, lambda body: read.append(body.read(10))) == 1
    assert read == [b"x" * size]


def test_a_body_past_its_limit_is_left(transport: Transport) -> None:
    """Its connection too: what else might come is nobody's business."""

    def use(body: Body) -> None:
        with pytest.raises(ResponseTooLargeError, match=r"longer than 10 bytes \[stage stream\]"):
            body.read(10)

    assert connections(transport, sized(11) + b"x" * 11, use) == 2


def test_a_body_that_drips_is_given_up(transport: Transport) -> None:
    """Each byte comes in time, but a list has to be there within ``stall``, though the call has no ``total``."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(sized(1_000_000))
        while not over.wait(0.01):
            peer.send(b"x")

    with replying(transport, script, CallContext(Timeout(read=60, stall=0.4))) as body:
        with pytest.raises(RequestTimeoutError, match="came no further for 0.4 s") as caught:
            body.read(2_000_000)
        over.set()
    assert caught.value.phase == "stall"


def test_silence_in_a_body_is_a_time_out(transport: Transport) -> None:
    """In the middle of a body it is the same error as before one."""
    with replying(transport, answering(sized(9) + b"one"), CallContext(Timeout(read=0.4))) as body:
        with pytest.raises(RequestTimeoutError, match="nothing more came for 0.4 s") as caught:
            list(body.pieces())
    assert caught.value.phase == "read"


def test_a_piece_that_comes_after_the_end_of_the_call_is_too_late(transport: Transport) -> None:
    """``total`` ends also an answer whose pieces keep coming."""
    now = [0.0]
    call = CallContext(Timeout(total=10), clock=lambda: now[0])
    call.begin()
    pieces = Body(_Raw(b"one"), call, "stream").pieces()
    now[0] = 10.0
    with pytest.raises(RequestTimeoutError) as caught:
        next(pieces)
    assert caught.value.phase == "total"


def test_reading_ends_when_the_call_is_stopped(transport: Transport) -> None:
    """Also between two pieces."""
    call = CallContext(PATIENT)
    with replying(transport, answering(sized(9) + b"one"), call) as body:
        pieces = body.pieces()
        assert next(pieces) == b"one"
        reading = Worker(lambda: next(pieces))
        call.cancel()
        with pytest.raises(StreamClosedError):
            reading.result()


# fmt: off
SOME: Dict[str, Any] = {
    # the reply                                        what is read     is its connection kept
    "whole":            (sized(3) + b"one",             b"one",          True),
    "too long":         (sized(99) + b"x" * 99,         b"x" * 10,       False),
    "garbage":          (CHUNKED + chunk(b"one") + b"1" * 70_000, b"one", False),
    "an odd encoding":  (encoded("br", b"Content-Length: 3\r\n") + b"one", b"", False),
}
# fmt: on


@pytest.mark.parametrize(("said", "expected", "kept"), SOME.values(), ids=SOME)
def test_the_words_of_an_error_are_read_as_far_as_they_go(
    transport: Transport, said: bytes, expected: bytes, kept: bool
) -> None:
    """Whatever is wrong with them: the status is known by then, and matters more."""
    read: List[bytes] = []
    assert connections(transport, said, lambda body: read.append(body.read_some(10))) == (1 if kept else 2)
    assert read == [expected]


def test_an_error_that_drips_is_not_waited_for(transport: Transport) -> None:
    """Two seconds, whatever keeps coming; then what there is has to do."""
    now = [0.0]

    def read(size: int) -> bytes:
        now[0] += 0.5
        return b"x"

    raw = _Raw(b"")
    raw.read = read  # type: ignore[assignment]
    assert Body(raw, CallContext(PATIENT, clock=lambda: now[0]), "message").read_some(100) == b"xxxx"


@pytest.mark.parametrize("timeout", [Timeout(read=0.4), Timeout(total=0.4)], ids=["read", "total"])
def test_an_error_that_never_ends_is_not_waited_for(transport: Transport, timeout: Timeout) -> None:
    """A limit of the call's that comes first ends the words, not the call."""
    with replying(transport, answering(sized(9) + b"one"), CallContext(timeout)) as body:
        assert body.read_some(100) == b"one"


def test_an_error_is_not_read_on_when_the_call_is_stopped(transport: Transport) -> None:
    """Being stopped is nothing that a status could matter more than."""
    call = CallContext(PATIENT)
    with replying(transport, answering(sized(9) + b"one"), call) as body:
        call.cancel()
        with pytest.raises(StreamClosedError):
            body.read_some(100)


def begun(body: Body) -> None:
    """Read the answer, then finish."""
    assert next(body.pieces()).startswith(b"answer")
    list(body.finishing())


ANSWER = chunk(b"answer")

# fmt: off
ENDS: Dict[str, Any] = {
    # the reply                                               connections for two requests
    "the last chunk":           (CHUNKED + ANSWER + LAST,                           1),
    "a little more":            (CHUNKED + ANSWER + chunk(b"x" * 100) + LAST,       1),
    "just enough":              (CHUNKED + ANSWER + chunk(bytes(DRAIN_BYTES)) + LAST, 1),
    "the length":               (sized(6) + b"answer",                              1),
    "too much":                 (CHUNKED + ANSWER + chunk(bytes(3 * DRAIN_BYTES)) + LAST, 2),
    "nothing":                  (CHUNKED + ANSWER,                                  2),
    "half a chunk":             (CHUNKED + ANSWER + b"9\r\nx",                      2),
    "garbage":                  (CHUNKED + ANSWER + b"garbage\r\n",                 2),
    "no end but the connection's": (CLOSING + b"answer",                            2),
    "the end of the connection": (OK + b"Connection: close\r\nContent-Length: 6\r\n\r\nanswer", 2),
}
# fmt: on


@pytest.mark.parametrize(("said", "expected"), ENDS.values(), ids=ENDS)
def test_a_connection_is_used_again_where_its_answer_ended_in_good_order(
    transport: Transport, said: bytes, expected: int
) -> None:
    """64 KiB and a moment are read on for it; else it is closed, and the next request makes a new one."""
    assert connections(transport, said, begun) == expected


def test_a_drain_that_drips_is_given_up(transport: Transport) -> None:
    """After 50 ms, though less than 64 KiB came."""
    now, reads = [0.0], []

    def read(size: int) -> bytes:
        reads.append(size)
        now[0] += 0.02
        return b"x"

    raw = _Raw(b"")
    raw.read = read  # type: ignore[assignment]
    list(Body(raw, CallContext(PATIENT, clock=lambda: now[0]), "stream").finishing())
    assert len(reads) == 3


def test_a_connection_of_a_stopped_call_is_not_used_again(transport: Transport) -> None:
    """It was shut down, or is about to be."""
    call = CallContext(PATIENT)

    def use(body: Body) -> None:
        pieces = body.pieces()
        assert next(pieces) == b"answer"
        call.cancel()
        list(body.finishing())

    assert connections(transport, CHUNKED + ANSWER + LAST, use, call) == 2


def test_a_body_can_be_closed_any_number_of_times(transport: Transport) -> None:
    """Also after its connection was given back, which then stays open."""

    def use(body: Body) -> None:
        begun(body)
        body.close()
        body.close()

    assert connections(transport, CHUNKED + ANSWER + LAST, use) == 1


@pytest.mark.parametrize("end", [begun, Body.close], ids=["given back", "closed"])
def test_a_stop_after_the_end_reaches_no_socket(transport: Transport, end: Callable[[Body], None]) -> None:
    """What had its number may be another connection by then."""
    with Server(answering(CHUNKED + ANSWER + LAST, NEXT)) as server:
        call = CallContext(PATIENT)
        end(opened(transport, server.url, call).body)
        assert call._socket is None


def test_only_our_errors_come_out_of_a_broken_body(transport: Transport) -> None:
    """Whatever stands in the place of a chunk."""
    for rest in (
        b"\r\n",
        b"-1\r\n\r\n",
        b"0x3\r\none\r\n",
        b"\xff\xff\r\n",
        b"ffffffffffffffffffff\r\nx",
        b"3\r\noneXX",
    ):
        with replying(transport, cutting(CHUNKED + rest)) as body, contextlib.suppress(CopilotError):
            list(body.pieces())
