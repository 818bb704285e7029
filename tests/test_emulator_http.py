"""The emulator's HTTP: what it makes of bytes, well-formed or not, and of clients that leave."""

from __future__ import annotations

import socket
from typing import Iterator, List
from urllib.parse import urlsplit

import pytest

from copilot_sync.emulator import Emulator, EmulatorOptions, Fault, Headers, RecordedRequest, http1

MODELS = b"GET /models HTTP/1.1\r\n"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(options=EmulatorOptions(accept_api_keys=["key"])) as served:
        yield served


def connect(emulator: Emulator) -> socket.socket:
    parts = urlsplit(emulator.api_url)
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def talk(emulator: Emulator, data: bytes) -> bytes:
    """Send bytes and return all that comes until the emulator closes the connection."""
    with connect(emulator) as client:
        client.sendall(data)
        return client.makefile("rb").read()


def last_request(emulator: Emulator, data: bytes) -> RecordedRequest:
    talk(emulator, data)
    return emulator.requests[-1]


def test_many_requests_share_a_connection(emulator: Emulator) -> None:
    """Even if they are sent before the first is answered; ``Connection: close`` ends it."""
    received = talk(
        emulator,
        2 * (MODELS + b"Authorization: GitHub-Bearer key\r\n\r\n") + MODELS + b"Connection: Close\r\n\r\n",
    )
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert received.count(b"HTTP/1.1 401 Unauthorized\r\n") == 1
    assert received.count(b"Connection: close\r\n") == 1
    assert [request.connection for request in emulator.requests] == [1, 1, 1]
    assert emulator.connections == 1


def test_every_reply_has_an_id_that_is_kept_with_its_request(emulator: Emulator) -> None:
    """So that a client's logs can be compared with what the emulator saw."""
    received = talk(emulator, MODELS + b"\r\n" + MODELS + b"Connection: close\r\n\r\n")
    first, second = (request.request_id for request in emulator.requests)
    assert first != second
    assert f"x-github-request-id: {first}\r\n".encode() in received
    assert f"x-github-request-id: {second}\r\n".encode() in received


def test_a_request_is_recorded_as_it_came(emulator: Emulator) -> None:
    """Path, query, the fields in order and in their own case, and the body."""
    request = last_request(
        emulator,
        b"PATCH /github/chat/threads/a%2Fb/name?x=1 HTTP/1.1\r\n"
        b"X-Twice: 1\r\nCookie: a=b=c; d; e=\r\nx-twice:2 \r\nConnection: close\r\n"
        b'Content-Length: 8\r\n\r\n{"n": 1}',
    )
    assert (request.stage, request.host, request.thread_id) == ("rename", "api", "a/b")
    assert (request.method, request.path) == ("PATCH", "/github/chat/threads/a%2Fb/name")
    assert (request.query, request.version) == ("x=1", "HTTP/1.1")
    assert (request.body, request.json) == (b'{"n": 1}', {"n": 1})
    assert request.headers.pairs[0] == ("X-Twice", "1")
    assert request.headers["X-TWICE"] == "1, 2"
    assert request.cookies == {"a": "b=c", "e": ""}
    assert request.bearer is None


def test_a_request_without_a_body_has_no_json(emulator: Emulator) -> None:
    """``None``, not an error."""
    request = last_request(emulator, MODELS + b"Connection: close\r\n\r\n")
    assert (request.body, request.json, request.cookies) == (b"", None, {})


def test_headers_are_a_mapping_that_ignores_case() -> None:
    """With the pairs as they came."""
    headers = Headers([("Accept", "a"), ("Host", "h"), ("accept", "b")])
    assert (len(headers), list(headers), "HOST" in headers) == (2, ["accept", "host"], True)
    assert headers.get("none") is None
    assert repr(headers) == "Headers([('Accept', 'a'), ('Host', 'h'), ('accept', 'b')])"


def test_only_the_latest_requests_are_kept() -> None:
    """As many as the options allow."""
    with Emulator(options=EmulatorOptions(max_records=2)) as emulator:
        talk(emulator, 2 * (MODELS + b"\r\n") + b"GET /x HTTP/1.0\r\n\r\n")
        assert [request.path for request in emulator.requests] == ["/models", "/x"]


def test_what_is_kept_of_requests_is_bounded_in_bytes() -> None:
    """A large body counts for many small ones; leaks and disconnects are bounded alike."""
    options = EmulatorOptions(max_record_bytes=100_000)
    with Emulator(options=options) as emulator:
        large = b"POST /github/chat/threads HTTP/1.1\r\nCookie: a=b\r\nContent-Length: 30000\r\n\r\n" + b"x" * 30_000
        talk(emulator, large * 20 + b"GET /x HTTP/1.0\r\n\r\n")
        assert emulator.requests[-1].path == "/x"
        for kept in (emulator.requests, [leak.request for leak in emulator.leaks]):
            assert 2 <= len(kept) <= 4
            assert sum(request.size for request in kept) <= options.max_record_bytes
        emulator.requests.clear()
        talk(emulator, large * 3 + b"GET /x HTTP/1.0\r\n\r\n")
        assert len(emulator.requests) == 4


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://127.0.0.1:1/models HTTP/1.1",
        b"\r\nGET /models HTTP/1.1",
        b"GET /models HTTP/1.0",
        b"GET /models?page=http://[ HTTP/1.1",
    ],
    ids=["absolute", "empty line before", "HTTP/1.0", "odd query"],
)
def test_unusual_but_right_request_lines_are_understood(emulator: Emulator, line: bytes) -> None:
    """A proxy's absolute form among them."""
    fields = b"\r\nAuthorization: GitHub-Bearer key\r\nConnection: close\r\n\r\n"
    assert talk(emulator, line + fields).startswith(b"HTTP/1.1 200 OK\r\n")
    assert emulator.requests[0].path == "/models"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello\r\n\r\n", b"request line"),
        (b"GET /a b HTTP/1.1\r\n\r\n", b"request line"),
        (b"GET / HTTP/2.0\r\n\r\n", b"request line"),
        (b"GET /\xff HTTP/1.1\n\r\n\r\n", b"request line"),
        (b"GET http://[::1/ HTTP/1.1\r\n\r\n", b"target"),
        (MODELS + b"no colon\r\n\r\n", b"header field"),
        (MODELS + b"Name : x\r\n\r\n", b"header field"),
        (MODELS + b"A: x\r\n folded\r\n\r\n", b"header field"),
        (MODELS + b"A: x\0y\r\n\r\n", b"header field"),
        (MODELS + b"Content-Length: -1\r\n\r\n", b"Content-Length"),
        (MODELS + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"Content-Length"),
        (MODELS + b"Content-Length: 33554433\r\n\r\n", b"33554432 bytes"),
        (MODELS + b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length"),
        (MODELS + b"A: " + 70_000 * b"x", b"65536 bytes"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_no_request_is_refused(emulator: Emulator, data: bytes, words: bytes) -> None:
    """400 that says why, and the connection is closed; nothing is recorded."""
    with connect(emulator) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        received = client.makefile("rb").read()
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in received
    assert words in received
    assert emulator.requests == []


def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    """The rest of a body that is too large is read and thrown away, for a while."""
    with Emulator(options=EmulatorOptions(max_body=10)) as emulator, connect(emulator) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
        assert b"larger than 10 bytes" in client.makefile("rb").read()
        for _ in range(10):
            client.sendall(100_000 * b"x")


def test_a_refused_client_that_stays_is_left_behind(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The courtesy has an end."""
    monkeypatch.setattr(http1, "_DRAIN_SECONDS", 0.02)
    with connect(emulator) as client:
        client.sendall(b"hello\r\n\r\n")
        assert b"400 Bad Request" in client.makefile("rb").read()
        assert emulator.wait_until(lambda: emulator.open_connections == 0)


def test_a_client_that_waits_for_leave_to_send_gets_it(emulator: Emulator) -> None:
    """``Expect: 100-continue``, as curl sends it with a large body."""
    with connect(emulator) as client:
        client.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(100).startswith(b"HTTP/1.1 404 Not Found\r\n")


def test_head_gets_no_body(emulator: Emulator) -> None:
    """Only the length that it would have."""
    received = talk(emulator, b"HEAD /nowhere HTTP/1.0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [b"", b"GET /mod", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"],
    ids=["before", "in the head", "in the body"],
)
def test_a_client_that_leaves_before_it_has_asked_leaves_no_trace(
    emulator: Emulator, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """No request, no disconnect, nothing on stderr."""
    with connect(emulator) as client:
        client.sendall(data)
        assert emulator.wait_until(lambda: emulator.open_connections == 1)
    assert emulator.wait_until(lambda: emulator.open_connections == 0)
    assert (emulator.requests, emulator.disconnects) == ([], [])
    assert capfd.readouterr().err == ""


def test_requests_sent_ahead_are_kept_while_a_reply_waits(emulator: Emulator) -> None:
    """What comes during a stall is the next request."""
    emulator.fail("models", Fault.stall())
    with connect(emulator) as client:
        client.sendall(MODELS + b"\r\n")
        assert emulator.wait_until(lambda: emulator.stalled == 1)
        client.sendall(MODELS + b"Connection: close\r\n\r\n")
        emulator.release()
        assert client.makefile("rb").read().count(b"HTTP/1.1 401") == 2


def test_a_client_that_floods_a_waiting_reply_is_cut_off(emulator: Emulator) -> None:
    """Memory is bounded, whatever is sent ahead."""
    emulator.fail("models", Fault.stall())
    with connect(emulator) as client:
        client.sendall(MODELS + b"\r\n")
        assert emulator.wait_until(lambda: emulator.stalled == 1)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            _send_for_ever(client)
    assert emulator.wait_until(lambda: emulator.open_connections == 0)


def _send_for_ever(client: socket.socket) -> None:
    while True:
        client.sendall(65_536 * b"x")


def test_bodies_of_several_packets_are_put_together(emulator: Emulator) -> None:
    """However they arrive."""
    body = b"[" + 200_000 * b"1," + b"1]"
    head = b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
    pieces: List[bytes] = [head[:10], head[10:-3], head[-3:], body[:5], body[5:]]
    with connect(emulator) as client:
        for piece in pieces:
            client.sendall(piece)
        client.makefile("rb").read()
    assert emulator.requests[0].body == body
