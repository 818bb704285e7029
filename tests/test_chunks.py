"""Chunks become a body, however they are cut."""

import http.client
import io
from typing import Iterable, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_sync.transport.chunks import ChunkedReader


class Arriving:
    """Bytes that arrive in given parts."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self.reads = 0

    def read1(self, size: int) -> bytes:
        self.reads += 1
        return next(self._parts, b"")


def undone(*parts: bytes) -> List[bytes]:
    reader = ChunkedReader(Arriving(parts))
    return list(iter(lambda: reader.read1(65536), b""))


# fmt: off
WHOLE: "List[Tuple[bytes, bytes]]" = [
    (b"0\r\n\r\n",                                          b""),
    (b"3\r\none\r\n0\r\n\r\n",                              b"one"),
    (b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",                  b"onetwo"),
    (b"0003\r\none\r\n00\r\n\r\n",                          b"one"),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",    b"01234567890123456789"),
    (b"3 \r\none\r\n0\r\n\r\n",                             b"one"),
    (b"3;name=value\r\none\r\n0;last\r\n\r\n",              b"one"),
    (b"3\r\none\r\n0\r\nDigest: x\r\nAge: 1\r\n\r\n",       b"one"),
    (b"4\r\n\r\n\r\n\r\n0\r\n\r\n",                         b"\r\n\r\n"),
    (b"3\none\n0\n\n",                                      b"one"),
]
# fmt: on


@pytest.mark.parametrize(("stream", "body"), WHOLE, ids=repr)
def test_chunks_are_the_same_at_every_split(stream: bytes, body: bytes) -> None:
    """In one piece, in two, and in single bytes."""
    assert b"".join(undone(stream)) == body
    for at in range(1, len(stream)):
        assert b"".join(undone(stream[:at], stream[at:])) == body
    assert b"".join(undone(*(stream[at : at + 1] for at in range(len(stream))))) == body


@given(st.lists(st.binary(min_size=1, max_size=20)), st.integers(min_value=1, max_value=50))
def test_whatever_is_in_them_comes_out(bodies: List[bytes], size: int) -> None:
    """Also what looks like a chunk itself."""
    stream = b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies) + b"0\r\n\r\n"
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert b"".join(undone(*parts)) == b"".join(bodies)


def test_all_that_arrives_at_once_is_one_piece() -> None:
    """That is what it is for; and nothing is waited for that is not needed."""
    source = Arriving([b"3\r\none\r\n3\r\ntwo\r\n5\r\nth", b"ree\r\n0\r\n\r\n"])
    reader = ChunkedReader(source)
    assert [(reader.read1(100), source.reads) for _ in range(3)] == [(b"onetwoth", 1), (b"ree", 2), (b"", 2)]


def test_the_inside_of_a_large_chunk_is_handed_on_as_it_is() -> None:
    """One read, one piece."""
    part = bytes(1000)
    assert undone(b"bb8\r\n", part, part, part, b"\r\n0\r\n\r\n") == [part] * 3


def test_what_follows_the_end_is_left_alone() -> None:
    """It is no part of this reply."""
    assert undone(b"3\r\none\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n") == [b"one"]


CUT = [stream[:at] for stream, _ in WHOLE[:3] + WHOLE[7:8] for at in range(len(stream))]


@pytest.mark.parametrize("stream", CUT, ids=repr)
def test_a_cut_is_told(stream: bytes) -> None:
    """Wherever it is."""
    with pytest.raises(http.client.IncompleteRead):
        undone(stream)


# fmt: off
GARBAGE = [
    (b"x\r\n",                            b""),
    (b"-1\r\n",                           b""),
    (b"+3\r\none\r\n",                    b""),
    (b"0x3\r\none\r\n",                   b""),
    (b"1_0\r\n",                          b""),
    (b"\r\n\r\n",                         b""),
    (b"1234567890123456\r\n",             b""),
    (b"3\r\none\r\nx\r\n",                b"one"),
    (b"3\r\nonetwo\r\n3\r\nsix\r\n",      b"one"),
    (b"3\r\none3\r\ntwo\r\n0\r\n\r\n",    b"one"),
]
# fmt: on


@pytest.mark.parametrize(("stream", "before"), GARBAGE, ids=repr)
def test_what_is_no_chunk_is_told_after_what_came_before(stream: bytes, before: bytes) -> None:
    """Without waiting for more, and again whenever it is asked."""
    source = Arriving([stream])
    reader = ChunkedReader(source)
    if before:
        assert reader.read1(100) == before
    for _ in range(2):
        with pytest.raises(http.client.IncompleteRead):
            reader.read1(100)
    assert source.reads == 1


@pytest.mark.parametrize(
    "stream", [b"1;" + b"x" * 9000, b"0\r\n" + b"a: b\r\n" * 2000], ids=["a size", "what follows the last chunk"]
)
def test_a_line_without_an_end_is_given_up(stream: bytes) -> None:
    """A server can't fill the memory with what is not the body."""
    with pytest.raises(http.client.LineTooLong):
        undone(stream)


def test_it_reads_what_http_client_reads() -> None:
    """The two readings of this framing agree."""
    stream = b"".join(b"%x;e\r\n%b\r\n" % (n, bytes(n)) for n in range(1, 300)) + b"0\r\nA: b\r\n\r\n"

    class Socket:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + stream)

    reply = http.client.HTTPResponse(Socket())  # type: ignore[arg-type]
    reply.begin()
    assert b"".join(undone(stream)) == reply.read()
