"""The connections of ``copilot-sync serve``: open behind a stream, and no call of the system for a head alone."""

import contextlib
import socket
import threading
from typing import Any, ClassVar, Iterator, List

import pytest
from support import PATIENCE

waitress = pytest.importorskip("waitress")

from copilot_sync.cli.serve_channel import StreamingChannel  # noqa: E402 - it needs waitress


def application(environ: Any, start_response: Any) -> Iterator[bytes]:
    """Answer with two pieces; with less, if the path says so."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    if environ["PATH_INFO"] != "/nothing":
        yield b"first"
    if environ["PATH_INFO"] == "/broken":
        raise ValueError
    if environ["PATH_INFO"] == "/":
        yield b"second"


class Sent(StreamingChannel):
    """Notes what the system is given, each time."""

    calls: ClassVar[List[bytes]] = []

    def send(self, data: bytes, do_close: bool = True) -> int:
        self.calls.append(bytes(data))
        return int(super().send(data, do_close))


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(Sent, "calls", [])
    listening = socket.create_server(("127.0.0.1", 0))
    server = waitress.create_server(application, sockets=[listening], asyncore_use_poll=True, ident=None)
    server.channel_class = Sent
    thread = threading.Thread(target=server.run)
    thread.start()
    yield listening.getsockname()[1]
    server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(server._map))
    thread.join(PATIENCE)
    assert not thread.is_alive()


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        yield connection


def exchange(connection: socket.socket, line: str, *fields: str) -> bytes:
    """Send a request, and read its reply to the last chunk or the end of the connection."""
    connection.sendall("\r\n".join([line, "Host: localhost", *fields, "", ""]).encode())
    found = b""
    while not found.endswith(b"\r\n0\r\n\r\n"):
        piece = connection.recv(65536)
        if not piece:
            return found
        found += piece
    return found


def test_a_connection_stays_open_behind_chunks(port: int) -> None:
    """They tell the end of the response, so the client can ask again. waitress would close it."""
    with connected(port) as connection:
        for _ in range(2):
            reply = exchange(connection, "GET / HTTP/1.1")
            assert reply.endswith(b"\r\n\r\n5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")
            assert b"\r\nTransfer-Encoding: chunked\r\n" in reply
            assert b"\r\nConnection:" not in reply


def test_a_head_goes_out_with_the_first_piece(port: int) -> None:
    """By itself it would cost as much as the piece does. A response without a body has a head all the same."""
    with connected(port) as connection:
        exchange(connection, "GET / HTTP/1.1")
        assert [call.partition(b"\r\n")[0] for call in Sent.calls] == [b"HTTP/1.1 200 OK", b"6", b"0"]
        assert exchange(connection, "GET /nothing HTTP/1.1").endswith(b"\r\n\r\n0\r\n\r\n")
        connection.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_nothing_follows_the_head_for_a_head(port: int, path: str) -> None:
    """Neither a piece nor a last chunk: the connection is open, and they would be taken for the next reply."""
    with connected(port) as connection:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, reply = exchange(connection, "GET / HTTP/1.1").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
        assert reply.endswith(b"\r\n\r\n5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "line, fields",
    [
        ("GET / HTTP/1.1", ["Connection: close"]),
        ("GET / HTTP/1.1", ["Connection: TE, Close"]),
        ("GET / HTTP/1.0", []),
    ],
)
def test_it_closes_when_the_client_needs_it(port: int, line: str, fields: List[str]) -> None:
    """Because it says so, or knows no chunks and could not tell the end."""
    with connected(port) as connection:
        reply = exchange(connection, line, *fields)
        assert b"second" in reply
        assert b"\r\nConnection: close\r\n" in reply
        assert connection.recv(1) == b""


def test_a_response_that_fails_has_no_last_chunk(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """The connection ends there: what is missing can't be taken for the end."""
    with connected(port) as connection:
        assert exchange(connection, "GET /broken HTTP/1.1").endswith(b"\r\n\r\n5\r\nfirst\r\n")
    assert "Exception while serving /broken" in caplog.text
