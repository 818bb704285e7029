"""Servers that send anything: whatever arrives, an answer or a ``CopilotError`` comes out, promptly."""

import contextlib
import gzip
import random
import socket
import struct
import threading
from typing import Iterator, List

import pytest

import copilot_sync
from copilot_sync import CopilotError, RetryPolicy, Timeout

SEEDS = range(250)

_STATUS_LINES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 201",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 302 Found",
    b"HTTP/1.1 401 Unauthorized",
    b"HTTP/1.1 404 Not Found",
    b"HTTP/1.1 429 Slow",
    b"HTTP/1.1 500 Oops",
    b"HTTP/1.1 520 Odd",
    b"HTTP/1.1 999 What",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching",
    b"HTTP/1.1 abc",
    b"HTTP/9.9 200 OK",
    b"garbage",
    b"",
    b"\x16\x03\x01\x02\x00",
    b"HTTP/1.1 200 " + b"x" * 70000,
]
_HEADERS = [
    b"Content-Type: text/event-stream",
    b"Content-Type: application/json; charset=utf-16",
    b"Content-Type: text/html",
    b"Content-Type: \xff\xfe",
    b"Content-Encoding: gzip",
    b"Content-Encoding: br",
    b"Content-Length: 5, 6",
    b"Content-Length: -1",
    b"Content-Length: abc",
    b"Content-Length: 99999999999999999999",
    b"Location: http://[bad",
    b"Location: /login",
    b"Location: \xc3\xa9://x",
    b"Retry-After: 99999999",
    b"Retry-After: nan",
    b"Retry-After: Tue, 99 Foo 2026",
    b"X-RateLimit-Reset: 1e400",
    b"Date: never",
    b"Set-Cookie: a=b; domain=.com",
    b"X-GitHub-Request-Id: \x01\x02",
    b"no colon here",
    b": no name",
    b" folded",
    b"Connection: close",
    b"Long: " + b"x" * 70000,
]
_BODIES = [
    b"",
    b'{"thread_id": "t"}',
    b'{"thread_id": 5, "thread": [], "id": null}',
    b'{"messages": [{"id": 1}, null, {"id": "m", "role": 5, "content": {}}]}',
    b'data: {"type":"content","body":"hi"}\n\ndata: {"type":"complete","id":"m"}\n\n',
    b'data: {"type":"content","body":"hi"}\n\n',
    b'data: {"type":"content","body":5}\n\ndata: [DONE]\n\n',
    b'data: {"type":"error","code":{},"message":[]}\n\n',
    b'data: {"type":"complete","id":5,"usage":[],"model":{},"copilotAnnotations":"x"}\n\n',
    b"data: " + b"[" * 100000 + b"\n\n",
    b'data: {"type":"content","body":"' + b"9" * 6000 + b'"}\n\n',
    b"data: " + b"9" * 6000 + b"\n\n",
    b'{"message": {"content": "\\ud800"}}',
    b'{"error": {"message": {}, "code": []}}',
    b"<html><title>Sign in</title>",
    b"<!DOCTYPE [<![x",
    b"\xff\xfe\x00\x01",
    b"\x00" * 1000,
    gzip.compress(b"x" * 100000),
    b"[" * 100000,
]


def _reply(rng: random.Random) -> bytes:
    """A reply that may be right, nearly right, or nothing of the kind."""
    head: List[bytes] = [rng.choice(_STATUS_LINES), *rng.sample(_HEADERS, rng.randrange(4))]
    body = rng.choice(_BODIES)
    if rng.random() < 0.4:
        head.append(b"Transfer-Encoding: chunked")
        size = rng.choice([b"%x" % len(body)] * 6 + [b"-5", b"zz", b"%x" % (len(body) + 9), b"f" * 70000])
        body = size + b"\r\n" + body + rng.choice([b"\r\n0\r\n\r\n", b"\r\n0\r\n", b"\r\n", b"", b"0\r\n\r\n"])
    elif rng.random() < 0.5:
        head.append(b"Content-Length: %d" % (len(body) + rng.choice([0, 0, 0, -1, 7])))
    reply = rng.choice([b"\r\n", b"\r\n", b"\n"]).join([*head, b"", b""]) + body
    return reply[: rng.randrange(len(reply) + 1)] if rng.random() < 0.2 else reply


class _HostileServer:
    """Answers each connection's first request with the next reply of a seed, and goes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.rng = random.Random(0)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(_reply(self.rng))
                    if self.rng.random() < 0.2:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[_HostileServer]:
    """One hostile server for all seeds."""
    hostile = _HostileServer()
    yield hostile
    hostile.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_only_our_errors_come_out(seed: int, server: _HostileServer, caplog: pytest.LogCaptureFixture) -> None:
    """An answer, a list or a ``CopilotError`` that prints and pickles: nothing else, and no hang."""
    server.rng = random.Random(seed)
    policy = RetryPolicy(attempts=2, base=0.0, cap=0.0, max_wait=0.1)
    with copilot_sync.Client(
        cookies={"user_session": "planted-session"} if seed % 3 == 0 else None,
        api_key=None if seed % 3 == 0 else "planted-key",
        github_url=server.url,
        api_url=server.url,
        timeout=Timeout(connect=2, read=0.5, total=2),
        retry=policy if seed % 2 else None,
    ) as client:
        for action in (lambda: client.ask("hello"), client.models, lambda: client.messages("t")):
            try:
                action()
            except CopilotError as error:
                assert str(error)
                assert "planted" not in repr(error)
