"""The head of a reply, awaited by steps that poll: wherever it is cut, nothing is lost, and little is read twice."""

import http.client
import socket
import time
from typing import Iterator, List, Tuple

import pytest
from support import PATIENCE

from copilot_sync.settings import Timeout
from copilot_sync.stepping import NothingYet, Pace
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.reply import WatchedResponse

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n"
REPLY = HEAD + b"3\r\none\r\n0\r\n\r\n"


class Pending:
    """A reply whose head is awaited, and the server's end of its connection."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self._theirs = theirs
        self.call = CallContext(Timeout(read=PATIENCE, stall=PATIENCE))
        self.call.begin()
        self.call.phase = "reply"
        with self.call.current():
            self.response = WatchedResponse(ours)
        self.call.defers_reply = True
        self.response.begin()
        self.call.defers_reply = False

    def arrives(self) -> bool:
        """Take a step, and return whether the head is there."""
        self.call.begin_poll()
        try:
            self.response.arrive()
        except NothingYet:
            return False
        return True

    def hears(self, data: bytes) -> bool:
        """Send bytes, and return whether the head is there."""
        self._theirs.sendall(data)
        return self.arrives()

    def body(self) -> bytes:
        """Read the body, which has been sent."""
        self.call.pace = Pace.BLOCKING
        read, parts = self.response.piece_reader(), []
        for part in iter(lambda: read(65536), b""):
            parts.append(part)
        return b"".join(parts)


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pending(pair: Tuple[socket.socket, socket.socket]) -> Iterator[Pending]:
    made = Pending(*pair)
    yield made
    made.response.close()


def test_it_is_nothing_as_long_as_nothing_comes(pending: Pending) -> None:
    """It can be asked for any number of times."""
    assert [pending.arrives() for _ in range(3)] == [False] * 3
    assert (pending.response.status, pending.response.is_deferred) == (0, True)


@pytest.mark.parametrize("ahead", [b"", HINTS, HINTS * 3], ids=["nothing", "hints", "three hints"])
@pytest.mark.parametrize("ends", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_it_may_be_cut_anywhere(pending: Pending, ahead: bytes, ends: bytes, size: int) -> None:
    """What comes with its end is the beginning of the body."""
    head, reply = (part.replace(b"\r\n", ends) for part in (ahead + HEAD, ahead + REPLY))
    seen = [pending.hears(reply[place : place + size]) for place in range(0, len(reply), size)]
    assert seen.index(True) == (len(head) - 1) // size
    assert (pending.response.status, pending.response.getheader("a")) == (200, "b")
    assert pending.body() == b"one"
    pending.response.settle()
    assert pending.response.is_settled


@pytest.mark.parametrize("at", range(1, len(HINTS + HEAD)))
def test_each_cut_in_two_is_the_same(pending: Pending, at: int) -> None:
    """With a head ahead of it that is none."""
    assert [pending.hears((HINTS + REPLY)[:at]), pending.hears((HINTS + REPLY)[at:])] == [False, True]
    assert (pending.response.status, pending.body()) == (200, b"one")


def test_a_step_that_blocks_takes_over(pending: Pending) -> None:
    """What a step that polls has received is not lost."""
    assert not pending.hears(HINTS + HEAD[:20])
    pending._theirs.sendall(REPLY[20:])
    pending.call.pace = Pace.HELPING
    pending.response.arrive()
    assert (pending.response.status, pending.body()) == (200, b"one")


def test_a_long_head_byte_by_byte_is_not_read_over_and_over(pending: Pending) -> None:
    """Its lines are looked at when it is whole."""
    head = HEAD[:-2] + b"".join(b"X-%d: %b\r\n" % (number, b"x" * 700) for number in range(90)) + b"\r\n"
    began = time.monotonic()
    seen: List[bool] = [pending.hears(head[place : place + 1]) for place in range(len(head))]
    assert time.monotonic() - began < PATIENCE
    assert (seen.index(True), pending.response.getheader("x-89")) == (len(head) - 1, "x" * 700)


def test_thousands_of_interim_replies_are_read_once(pending: Pending) -> None:
    """Each by itself, as it comes."""
    began = time.monotonic()
    short = b"HTTP/1.1 102 A\r\n\r\n"
    assert not any(pending.hears(short) for _ in range(3000))
    assert pending.hears(REPLY)
    assert time.monotonic() - began < PATIENCE


def test_interim_replies_without_an_end_are_given_up(pending: Pending) -> None:
    """As by a read that blocks."""
    with pytest.raises(http.client.HTTPException, match="more interim replies"):
        for _ in range(20_000):  # pragma: no branch - it is given up before
            pending.hears(HINTS)


@pytest.mark.parametrize("beginning", [b"HTTP/1.1 200 ", HEAD[:-2] + b"X: ", HINTS[:-2] + b"X: "])
def test_a_line_without_an_end_is_given_up(pending: Pending, beginning: bytes) -> None:
    """However it trickles."""
    pending.hears(beginning)
    with pytest.raises(http.client.HTTPException):
        for _ in range(1000):  # pragma: no branch - it is given up before
            pending.hears(b"x" * 999)


@pytest.mark.parametrize("line", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 abc\r\n", b"\r\n", b"\n"])
def test_what_is_no_http_is_known_by_its_first_line(pending: Pending, line: bytes) -> None:
    """Nothing else need come: such a server may wait for the client."""
    assert not pending.hears(line[:-1])
    with pytest.raises(http.client.BadStatusLine):
        pending.hears(line[-1:])


@pytest.mark.parametrize("line", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 abc\r\n"])
def test_what_is_no_http_is_none_if_the_connection_ends_too(pending: Pending, line: bytes) -> None:
    """It has not ended inside a head."""
    pending._theirs.sendall(line)
    pending._theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(http.client.BadStatusLine) as caught:
        pending.arrives()
    assert not isinstance(caught.value, http.client.RemoteDisconnected)


@pytest.mark.parametrize("at", [0, 4, 20, len(HEAD) - 2, len(HEAD) - 1])
@pytest.mark.parametrize("ahead", [b"", HINTS], ids=["nothing", "hints"])
def test_a_connection_that_ends_inside_a_head_was_closed(pending: Pending, ahead: bytes, at: int) -> None:
    """Whatever of it has come."""
    assert not pending.hears(ahead + HEAD[:at])
    pending._theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(http.client.RemoteDisconnected):
        pending.arrives()


def test_a_connection_that_ends_right_behind_a_head_has_a_head(pending: Pending) -> None:
    """What is missing is missing from the body."""
    pending._theirs.sendall(HEAD)
    pending._theirs.shutdown(socket.SHUT_WR)
    assert pending.arrives()
    with pytest.raises(http.client.IncompleteRead):
        pending.body()
