"""How much of a reply one turn of an event loop takes, over TLS and plain: enough, and not what costs more than it."""

import select
import socket
import ssl
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
from support import PATIENCE, Worker, authority_file, server_context

from copilot_sync.settings import Timeout
from copilot_sync.stepping import NothingYet, Watch
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.reply import _RECEIVE, ReplyReader

Pair = Tuple[socket.socket, socket.socket]


class Told(Watch):
    """As that of a loop that tells again of what was not read."""

    repeats = True


@pytest.fixture(params=["plain", "TLS"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Two ends of a connection: a server's, and ours."""
    server, ours = socket.socketpair()
    if request.param == "TLS":
        context = ssl.create_default_context(cafile=authority_file(tmp_path))
        shaking = Worker(lambda: server_context().wrap_socket(server, server_side=True))
        ours = context.wrap_socket(ours, server_hostname="localhost")
        server = shaking.result()
        ours.settimeout(PATIENCE)
        server.sendall(b"x")
        assert ours.recv(1) == b"x"  # and the tickets, so that all that comes next is data
    with server, ours:
        yield server, ours


def reader_of(sock: socket.socket, watch: Watch) -> ReplyReader:
    call = CallContext(Timeout(read=60))
    call.begin()
    call.phase, call.watch = "read", watch
    return ReplyReader(sock, call)


def turn(reader: ReplyReader) -> List[bytes]:
    """Return what one turn reads, read by read."""
    reader.call.begin_poll()
    parts = []
    while True:
        try:
            parts.append(reader.read1(_RECEIVE))
        except NothingYet:
            return parts


def send(pair: Pair, *records: bytes) -> None:
    for record in records:
        pair[0].sendall(record)
    assert select.select([pair[1]], [], [], PATIENCE)[0]


def test_a_turn_reads_once(pair: Pair) -> None:
    """To look for more takes longer than to read, and there is none as a rule."""
    reader = reader_of(pair[1], Told())
    received: List[int] = []
    receive = reader._receive
    reader._receive = lambda size: received.append(size) or receive(size)  # type: ignore[func-returns-value]
    with reader:
        for _ in range(10):
            send(pair, b"data")
            assert turn(reader) == [b"data"]
    assert len(received) == 10
    assert not reader.call.has_more


def test_in_a_burst_a_turn_reads_on_once_in_a_while(pair: Pair) -> None:
    """Many records lie there, and a turn of the loop for each of them would take longer."""
    reader = reader_of(pair[1], Told())
    sent = [b"%d " % place for place in range(100)]
    with reader:
        send(pair, *sent)
        turns = [turn(reader) for _ in range(16)]
        assert b"".join(b"".join(parts) for parts in turns) == b"".join(sent)
        send(pair, b"one")
        assert turn(reader) == [b"one"]


def test_what_openssl_holds_is_not_left_to_the_kernel(pair: Pair) -> None:
    """A record was read in part. The kernel has nothing more to tell of, so the reader says that there is more."""
    reader = reader_of(pair[1], Told())
    with reader:
        send(pair, b"x" * 3000)
        reader.call.begin_poll()
        received = len(reader._polled(1000))
        while reader.call.has_more or select.select([pair[1]], [], [], 0)[0]:
            reader.call.begin_poll()
            received += len(reader._polled(1000))
    assert received == 3000


@pytest.mark.parametrize("size", [1, 100])
def test_who_polls_reads_all_that_is_there(pair: Pair, size: int) -> None:
    """Nobody watches the connection, and tells of what was left."""
    reader = reader_of(pair[1], Watch())
    with reader:
        send(pair, *[b"x" * size] * 30)
        assert b"".join(turn(reader)) == b"x" * size * 30
