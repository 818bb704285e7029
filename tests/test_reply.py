"""What comes off a connection is the whole reply to what was asked, and nothing is left of it for the next request."""

import contextlib
import io
import socket
import threading
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from support import Peer, Server, Worker, answering, authority_file, cutting, wait_for

from copilot_sync.errors import CopilotError, NetworkError, ProtocolError, RequestTimeoutError
from copilot_sync.protocol.requests import Request
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import Timeout
from copilot_sync.transport import reply
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.reply import ReplyReader
from copilot_sync.transport.session import Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"
WRONG = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
PATIENT = Timeout(connect=60, read=60)


def fetched(transport: Transport, server: Server, call: Optional[CallContext] = None) -> Tuple[int, bytes]:
    request = Request("threads", "GET", f"{server.url}/threads", "/threads", {})
    answered: RawReply = transport.fetch(request, lambda prepared: prepared, call or CallContext(PATIENT))
    return answered.status, answered.body


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
INTERIM: Dict[str, bytes] = {
    "early hints": HINTS,
    "processing": b"HTTP/1.1 102 Processing\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a number of nobody's": b"HTTP/1.1 199 Hm\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "several": HINTS + b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS,
    "a hundred": HINTS * 100,
    "bare line ends": b"HTTP/1.1 103 Early Hints\nLink: <x>\n\n",
}


@pytest.mark.parametrize("interim", INTERIM.values(), ids=INTERIM)
def test_an_interim_reply_is_read_past(transport: Transport, interim: bytes) -> None:
    """The reply is the one behind it, and so it is for the next request over the same connection."""
    with Server(answering(interim + OK, interim + NEXT, OK)) as server:
        assert [fetched(transport, server) for _ in range(3)] == [(200, b"ok"), (200, b"next"), (200, b"ok")]
        assert server.connections == 1


@pytest.mark.parametrize("at", range(1, len(HINTS), 7))
def test_an_interim_reply_may_come_in_parts(transport: Transport, at: int) -> None:
    """Wherever it is torn; what comes later is waited for."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(HINTS[:at])
        peer.send(HINTS[at:])
        peer.send(OK)
        peer.wait_closed()

    with Server(script) as server:
        assert fetched(transport, server) == (200, b"ok")


def test_each_user_gets_the_answer_to_their_own_question(transport: Transport) -> None:
    """Eight at once, over connections that go from one to the other, whatever comes ahead of the replies."""

    def script(peer: Peer) -> None:
        for request in iter(peer.receive, b""):
            path = request.split()[1]
            peer.send(HINTS)
            peer.send(HINTS + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    def ask(user: int) -> List[bytes]:
        answers: List[bytes] = []
        for number in range(20):
            request = Request("threads", "GET", f"{server.url}/{user}/{number}", "/", {})
            answered: RawReply = transport.fetch(request, lambda prepared: prepared, CallContext(PATIENT))
            answers.append(answered.body)
        return answers

    with Server(script) as server:
        users = [Worker(lambda user=user: ask(user)) for user in range(8)]  # type: ignore[misc]
        for user, worker in enumerate(users):
            assert worker.result() == [b"/%d/%d" % (user, number) for number in range(20)]
        transport.close()


def test_interim_replies_without_an_end_are_given_up(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small each of them is: what comes ahead of a reply is bounded."""
    monkeypatch.setattr(reply, "_INTERIM_LIMIT", 10 * len(HINTS))

    def script(peer: Peer) -> None:
        peer.receive()
        for _ in range(1000):
            peer.send(HINTS)

    with Server(script) as server, pytest.raises(ProtocolError, match="not valid HTTP"):
        fetched(transport, server)


@pytest.mark.parametrize(
    ("timeout", "phase"),
    [(Timeout(read=60, stall=0.5), "stall"), (Timeout(read=60, total=0.5), "total")],
    ids=["stall", "total"],
)
def test_interim_replies_are_not_read_for_ever(transport: Transport, timeout: Timeout, phase: str) -> None:
    """They are signs of life, but the reply has to come."""

    def script(peer: Peer) -> None:
        peer.receive()
        while not peer.gone.wait(0.05):
            peer.send(HINTS)

    call = CallContext(timeout)
    call.begin()
    with Server(script) as server, pytest.raises(RequestTimeoutError) as caught:
        fetched(transport, server, call)
    assert caught.value.phase == phase


def test_interim_replies_are_signs_of_life(transport: Transport) -> None:
    """A reply that takes longer than silence may is waited for as long as they come."""
    call = CallContext(Timeout(connect=60, read=1, stall=60))
    call.begin()

    peer_closed = threading.Event()  # which is never set: this is about time

    def script(peer: Peer) -> None:
        peer.receive()
        for _ in range(8):
            peer.send(HINTS)
            peer_closed.wait(0.25)
        peer.send(OK)
        peer.wait_closed()

    with Server(script) as server:
        assert fetched(transport, server, call) == (200, b"ok")


@pytest.mark.parametrize("said", [HINTS, HINTS[:30], HINTS + b"HTTP/1.1 2"], ids=["behind it", "in it", "in the reply"])
def test_a_connection_that_ends_behind_an_interim_reply_brought_no_reply(transport: Transport, said: bytes) -> None:
    """It is cut, as it is anywhere else in a head."""
    with Server(cutting(said)) as server, pytest.raises(NetworkError, match="before its reply was whole"):
        fetched(transport, server)


def test_another_protocol_is_no_reply_to_read_past(transport: Transport) -> None:
    """101 is final, nobody asked for it, and what follows is not HTTP."""
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n"
    with Server(answering(switched)) as server:
        assert fetched(transport, server) == (101, b"")
        wait_for(server.peer_closed)


OF_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: "
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
CODED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"

# fmt: off
REPLIES: Dict[str, Tuple[bytes, int]] = {
    # the reply                                                              connections for two requests
    "a length":                (OK,                                                                     1),
    "an empty body":           (OF_LENGTH + b"0\r\n\r\n",                                               1),
    "chunks":                  (CHUNKED + b"\r\n" + CHUNKS,                                             1),
    "an error with its words": (b"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\nok",                    1),
    "a redirect":              (b"HTTP/1.1 302 There\r\nContent-Length: 0\r\nLocation: /\r\n\r\n",      1),
    "one length, told twice":  (OF_LENGTH + b"2\r\nContent-Length: 2\r\n\r\nok",                        1),
    "two lengths":             (OF_LENGTH + b"2\r\nContent-Length: 30\r\n\r\nok",                       2),
    "a length and chunks":     (CHUNKED + b"Content-Length: 12\r\n\r\n" + CHUNKS,                       2),
    "a length and a coding":   (CODED + b"Content-Length: 2\r\n\r\nok",                                 2),
    "no content":              (b"HTTP/1.1 204 No Content\r\n\r\n",                                     2),
    "no content, and some":    (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",              2),
    "not modified":            (b"HTTP/1.1 304 Not Modified\r\n\r\n",                                   2),
    "a status that is none":   (b"HTTP/1.1 799 Hm\r\nContent-Length: 2\r\n\r\nok",                      2),
    "more than the length":    (OK + b"x",                                                              2),
    "another reply behind it": (OK + WRONG,                                                             2),
    "more than the chunks":    (CHUNKED + b"\r\n" + CHUNKS + b"x",                                      2),
    "a reply behind chunks":   (CHUNKED + b"\r\n" + CHUNKS + WRONG,                                     2),
    "a close that is told":    (OF_LENGTH + b"2\r\nConnection: close\r\n\r\nok",                        2),
    "an end by the connection": (b"HTTP/1.1 200 OK\r\n\r\nok",                                          2),
    "an older HTTP":           (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",                      2),
    "an older HTTP, kept":     (OF_LENGTH.replace(b"1.1", b"1.0") + b"2\r\nKeep-Alive: 5\r\n\r\nok",      1),
    "chunks of an older HTTP": (CHUNKED.replace(b"1.1", b"1.0") + b"Keep-Alive: 5\r\n\r\n" + CHUNKS,      2),
    "chunks of a coding":      (CHUNKED + b"Transfer-Encoding: gzip\r\n\r\n" + CHUNKS,                   2),
    "a close that is told as well": (
        OF_LENGTH + b"2\r\nConnection: keep-alive\r\nConnection: Close\r\n\r\nok",                    2),
    "a length with blanks":    (OF_LENGTH + b"\t2 \t\r\n\r\nok",                                       1),
    "a length with a sign":    (OF_LENGTH + b"+2\r\n\r\nok",                                            2),
    "a length with a line":    (OF_LENGTH + b"0_2\r\n\r\nok",                                           2),
    "a length with odd blanks": (OF_LENGTH + b"\xa02\x0b\r\n\r\nok",                                   2),
}
# fmt: on


@pytest.mark.parametrize(("said", "connections"), REPLIES.values(), ids=REPLIES)
@pytest.mark.parametrize("is_torn", [False, True], ids=["at once", "torn"])
def test_a_connection_serves_again_if_the_end_of_its_reply_is_beyond_doubt(
    transport: Transport, said: bytes, connections: int, is_torn: bool
) -> None:
    """Whatever the next request gets is the reply to it."""
    asked: List[bytes] = []

    def script(peer: Peer) -> None:
        for request in iter(peer.receive, b""):
            asked.append(request)
            if len(asked) == 2:
                peer.send(NEXT)
            elif said.startswith(b"HTTP/1.1 200 OK\r\n\r\n"):
                peer.send(said)
                return
            else:
                for part in [said[:30], said[30:]] if is_torn else [said]:
                    peer.send(part)

    with Server(script) as server:
        with contextlib.suppress(ProtocolError):
            fetched(transport, server)
        assert fetched(transport, server) == (200, b"next")
        assert server.connections == connections
        transport.close()


@pytest.mark.parametrize("head", [b"HTTP/1.1 204 No Content\r\n\r\n", OF_LENGTH + b"0\r\n\r\n"], ids=["204", "nothing"])
def test_a_body_that_comes_late_is_nobodys_answer(transport: Transport, head: bytes) -> None:
    """Neither of the next request."""
    may_go_on = threading.Event()
    has_gone_on = threading.Event()

    def script(peer: Peer) -> None:
        if server.connections == 1:
            peer.receive()
            peer.send(head)
            wait_for(may_go_on)
            peer.send(WRONG)
            has_gone_on.set()
            peer.wait_closed()
        else:
            answering(NEXT)(peer)

    with Server(script) as server:
        fetched(transport, server)
        may_go_on.set()
        wait_for(has_gone_on)
        assert fetched(transport, server) == (200, b"next")
        transport.close()


def sized(body: bytes) -> bytes:
    return OF_LENGTH + b"%d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    parts = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    return CHUNKED + b"\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def closing(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + body


@pytest.mark.parametrize("framed", [sized, chunked, closing])
@pytest.mark.parametrize("size", [8_000, 70_000, 140_000, 1_000_000])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_no_byte_is_lost_between_the_head_and_the_body(
    tmp_path: Path, framed: Callable[[bytes], bytes], size: int, tls: bool
) -> None:
    """However much comes together with the head, and however large the buffers of the platform are."""
    body = bytes(number % 251 for number in range(size))
    transport = Transport(verify=authority_file(tmp_path))
    with Server(cutting(framed(body)), tls=tls) as server:
        assert fetched(transport, server) == (200, body)
    transport.close()


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, ReplyReader]]:
    """Something to send with, and what reads it."""
    sending, receiving = socket.socketpair()
    call = CallContext(PATIENT)
    call.begin()
    reader = ReplyReader(receiving, call)
    yield sending, reader
    reader.close()
    sending.close()
    receiving.close()


def test_a_reader_reads_as_any_file_does(pair: Tuple[socket.socket, ReplyReader]) -> None:
    """For programs that read a reply in their own way."""
    sending, reader = pair
    sending.sendall(b"one\ntwo\n\nthree and a half\nrest that is longer")
    assert reader.readable()
    assert reader.readline() == b"one\n"
    assert reader.readline(2) == b"tw"
    assert reader.readline(2) == b"o\n"
    assert reader.readline(-1) == b"\n"
    assert reader.read(6) == b"three "
    buffer = bytearray(3)
    assert (reader.readinto(buffer), bytes(buffer)) == (3, b"and")
    assert reader.read1(2) == b" a"
    assert reader.read1() == b" half\nrest that is longer"
    assert not reader.has_surplus
    sending.sendall(b"last")
    assert reader.read1() == b"last"
    sending.sendall(b"no end")
    sending.close()
    assert reader.readline() == b"no end"
    assert (reader.readline(), reader.read(), reader.read(0), reader.at_end) == (b"", b"", b"", True)


def test_a_reader_joins_what_comes_in_parts(pair: Tuple[socket.socket, ReplyReader]) -> None:
    """A line and a number of bytes are waited for."""
    sending, reader = pair

    def send() -> None:
        for number in b"a line\nand what follows":
            sending.send(bytes([number]))
        sending.close()

    sender = Worker(send)
    assert reader.readline(65536) == b"a line\n"
    assert reader.read(8) == b"and what"
    assert reader.read(None) == b" follows"
    sender.result()


def test_lines_are_those_of_any_other_file(pair: Tuple[socket.socket, ReplyReader]) -> None:
    """At every limit."""
    text = b"\n\nab\nabc\nabcdefgh\nx"
    for limit in range(1, 12):
        sending, receiving = socket.socketpair()
        call = CallContext(PATIENT)
        call.begin()
        with sending, receiving, ReplyReader(receiving, call) as reader:
            sending.sendall(text)
            sending.shutdown(socket.SHUT_WR)
            expected = io.BytesIO(text)
            for _ in range(len(text)):
                assert reader.readline(limit) == expected.readline(limit)


@pytest.mark.parametrize("rest", [b"x: y\r\n" * 50, b"x" * 300], ids=["lines", "a line"])
def test_only_our_errors_come_out_of_interim_replies(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    """Whatever stands in one."""
    monkeypatch.setattr(reply, "_INTERIM_LIMIT", 100)
    with Server(cutting(b"HTTP/1.1 103 Early Hints\r\n" + rest)) as server, pytest.raises(CopilotError):
        fetched(transport, server)


def test_a_reply_can_be_closed_after_what_it_reads_from() -> None:
    """A garbage collector that finds both at once closes them in any order."""
    sending, receiving = socket.socketpair()
    call = CallContext(PATIENT)
    with sending, receiving, call.current():
        answered = reply.WatchedResponse(receiving, method="GET")
        answered.fp.close()
        answered.close()
        assert answered.closed
