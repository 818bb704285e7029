"""No delay, whatever the framing: a piece is there when the last byte of its event has arrived."""

import contextlib
import statistics
import threading
import time
import zlib
from typing import Callable, Iterator, List, Tuple

import pytest
from loops import FACES, THREADS, Read
from support import PATIENCE, Peer, Server

from copilot_sync import Client

ONE = b'data: {"type":"content","body":"one"}\n\n'
TWO = b'data: {"type":"content","body":"two"}\n\ndata: {"type":"complete","id":"m-1"}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def gzipped() -> Tuple[bytes, bytes]:
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(ONE) + packer.flush(zlib.Z_SYNC_FLUSH)
    return first, packer.compress(TWO) + packer.flush()


ZIPPED = gzipped()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PARTS = [
    pytest.param(CHUNKED + chunk(ONE), chunk(TWO) + b"0\r\n\r\n", id="chunked"),
    pytest.param(
        CHUNKED + b"%x\r\n" % len(ONE + TWO) + ONE, TWO + b"\r\n0\r\n\r\n", id="one large chunk, sent in parts"
    ),
    pytest.param(
        CHUNKED + chunk(ONE[:20]) + b"%x\r\n" % (len(ONE[20:]) + 9) + ONE[20:],
        b": comment\r\n" + chunk(b"\n" + TWO) + b"0\r\n\r\n",
        id="an event over two chunks",
    ),
    pytest.param(HEAD + b"Connection: close\r\n\r\n" + ONE, TWO, id="close-delimited"),
    pytest.param(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + ONE, TWO, id="HTTP/1.0"),
    pytest.param(HEAD + b"Content-Length: %d\r\n\r\n" % len(ONE + TWO) + ONE, TWO, id="Content-Length"),
    pytest.param(
        HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(ZIPPED[0]),
        chunk(ZIPPED[1]) + b"0\r\n\r\n",
        id="gzip",
    ),
    pytest.param(
        HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + ZIPPED[0], ZIPPED[1], id="gzip, close-delimited"
    ),
]


class Gated:
    """A server that sends the second part once it is told to, and notes whether it was told in time."""

    def __init__(self, first: bytes, second: bytes) -> None:
        self._parts = first, second
        self.gate = threading.Event()
        self.opened_in_time = False

    def __call__(self, peer: Peer) -> None:
        peer.receive()
        peer.send(self._parts[0])
        self.opened_in_time = self.gate.wait(PATIENCE)
        peer.send(self._parts[1])


@pytest.mark.parametrize("first, second", PARTS)
def test_the_first_piece_does_not_wait_for_the_second(first: bytes, second: bytes, read: Read) -> None:
    """The server sends the second event only after the first piece was handed out."""
    script = Gated(first, second)
    with Server(script) as server, Client("key", api_url=server.url) as client:
        stream = client.stream("hi", conversation="t-1", parent_message_id="root")
        pieces = read(stream, lambda piece: script.gate.set())
        assert (pieces, script.opened_in_time) == (["one", "two"], True)


@pytest.mark.parametrize("first, second", PARTS)
def test_an_event_is_there_before_it_is_known_what_follows(first: bytes, second: bytes) -> None:
    """``events()`` waits no longer than iterating does, and the text has the piece already."""
    script = Gated(first, second)
    with Server(script) as server, Client("key", api_url=server.url) as client:
        with client.stream("hi", conversation="t-1", parent_message_id="root") as stream:
            events = stream.events()
            assert (next(events).type, stream.text) == ("content", "one")
            script.gate.set()
            assert [event.type for event in events] == ["content", "complete"]
    assert script.opened_in_time


COUNT, GAP, LIMIT = 10, 0.05, 0.01
ANSWER = [b'data: {"type":"content","body":"piece"}\n\n'] * COUNT + [b'data: {"type":"complete","id":"m-1"}\n\n']


def chunked() -> Iterator[bytes]:
    yield CHUNKED
    yield from map(chunk, ANSWER)
    yield b"0\r\n\r\n"


def close_delimited() -> Iterator[bytes]:
    yield HEAD + b"Connection: close\r\n\r\n"
    yield from ANSWER


def compressed() -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    yield HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    for event in ANSWER:
        yield chunk(packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH))
    yield chunk(packer.flush()) + b"0\r\n\r\n"


class Paced:
    """A server that sends a part at a time, and notes when."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self.sent: List[float] = []

    def __call__(self, peer: Peer) -> None:
        peer.receive()
        peer.send(next(self._parts))
        for part in self._parts:
            time.sleep(GAP)
            self.sent.append(time.monotonic())
            with contextlib.suppress(OSError):  # after the last event the client need not wait for more
                peer.send(part)


# Not on loops that can't watch sockets: there a thread is started for each packet, which takes a busy machine a while.
@pytest.mark.parametrize("read", [face for face in FACES if face != THREADS], indirect=True)
@pytest.mark.parametrize("framing", [chunked, close_delimited, compressed])
def test_a_piece_is_on_its_way_for_a_moment(framing: Callable[[], Iterator[bytes]], read: Read) -> None:
    """With 50 ms between two events, the median from sending one to handing it out is under 10 ms."""
    script = Paced(framing())
    arrived: List[float] = []
    with Server(script) as server, Client("key", api_url=server.url) as client:
        stream = client.stream("hi", conversation="t-1", parent_message_id="root")
        read(stream, lambda piece: arrived.append(time.monotonic()))
    assert len(arrived) == COUNT
    assert statistics.median(there - sent for there, sent in zip(arrived, script.sent)) < LIMIT
