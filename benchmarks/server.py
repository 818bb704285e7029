"""The server: ``python -m benchmarks.server [CERTIFICATE]``.

It prints its port, and one for TLS where it is given a certificate, and serves until its input ends. A thread for each
connection reads requests; what is asked for as fast as it goes is sent from there, in bytes made beforehand. What is
paced is sent by one thread for all connections, which puts the time of sending into each event: the
clock is the machine's, so the client can tell how long an event was on its way.

The Copilot's four calls are there, and OpenAI's chat completions with the same pieces of text.
"""

import contextlib
import functools
import heapq
import itertools
import json
import queue
import socket
import ssl
import sys
import threading
import time
import zlib
from typing import Any, Dict, List, Optional, Tuple

from benchmarks.plans import STAMP, Plan

#: Bytes of one chunk at most.
_CHUNK = 65536

_CONTENT = b'data: {"type":"content","body":"%b"}\n\n'
_COMPLETE = (
    b'data: {"type":"complete","id":"11111111-2222-3333-4444-555555555555","parentMessageID":"root","model":"",'
    b'"createdAt":"2026-01-01T00:00:00Z","references":[],"role":"assistant","intent":"conversation",'
    b'"usage":{"inputTokens":12,"outputTokens":2},"copilotAnnotations":{}}\n\n'
)
_DELTA = (
    b'data: {"id":"c-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
)
_DONE = (
    b'data: {"id":"c-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


class Framing:
    """How the events of one answer are put on the wire."""

    def __init__(self, name: str, length: int) -> None:
        self._name = name
        self._length = length
        self._packer = zlib.compressobj(wbits=31) if name == "gzip" else None
        #: Whether the connection serves another request.
        self.keeps_connection = name != "close"

    def head(self) -> bytes:
        """The head of the reply, and what stands before the first event."""
        if self._name == "length":
            return _head(b"Content-Length: %d" % self._length)
        if self._name == "close":
            return _head(b"Connection: close")
        if self._name == "gzip":
            return _head(b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked")
        return _head(b"Transfer-Encoding: chunked") + (b"%x\r\n" % self._length if self._name == "whole" else b"")

    def event(self, data: bytes) -> bytes:
        """An event."""
        if self._packer is not None:
            return _chunk(self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH))
        if self._name == "halves":
            middle = len(data) // 2
            return _chunk(data[:middle]) + _chunk(data[middle:])
        if self._name == "chunked":
            return b"".join(_chunk(data[start : start + _CHUNK]) for start in range(0, len(data), _CHUNK))
        return data

    def last(self, data: bytes) -> bytes:
        """The last event, and what tells the end."""
        if self._packer is not None:
            return _chunk(self._packer.compress(data) + self._packer.flush()) + b"0\r\n\r\n"
        if self._name == "whole":
            return data + b"\r\n0\r\n\r\n"
        return self.event(data) + (b"0\r\n\r\n" if self._name in ("chunked", "halves") else b"")


def _head(fields: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b\r\n\r\n" % fields


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@functools.lru_cache(maxsize=8)
def _same_events(framing: str, event: bytes, size: int, count: int) -> bytes:
    """So many events with the same text, made once. Not for ``gzip``, where no two are alike."""
    return Framing(framing, 0).event(event % (b"x" * size)) * count


class Answer:
    """One answer on its way: what is sent first, again and again, and last."""

    def __init__(self, plan: Plan, sock: socket.socket, event: bytes, last: bytes) -> None:
        self.plan = plan
        self.sock = sock
        self.done = threading.Event()
        self._event = event
        self._last = last
        self._left = plan.events
        size = plan.characters // plan.events
        length = plan.events * (len(event % b"") + size) + len(last)
        self.framing = Framing(plan.framing, length)

    def send_at_once(self) -> None:
        """Send all of it as fast as it is taken."""
        plan, send = self.plan, self.sock.sendall
        event = _same_events(plan.framing, self._event, plan.size, 1)
        packet = _same_events(plan.framing, self._event, plan.size, plan.batch)
        send(self.framing.head())
        for _ in range(plan.events // plan.batch):
            send(packet)
        send(event * (plan.events % plan.batch) + self.framing.last(self._last))

    def begin(self) -> None:
        """Send the head."""
        self.sock.sendall(self.framing.head())

    def go_on(self) -> bool:
        """Send the next events, and tell whether more are to come."""
        count = min(self.plan.batch, self._left)
        self._left -= count
        stamp = b"%0*d" % (STAMP, time.monotonic_ns())
        event = self.framing.event
        self.sock.sendall(b"".join(event(self._event % stamp) for _ in range(count)))
        if not self._left:
            self.sock.sendall(self.framing.last(self._last))
        return self._left > 0


class Pacer:
    """Sends what is paced, all of it in one thread, when its time has come."""

    def __init__(self) -> None:
        self._new: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._due: List[Tuple[float, int, Answer]] = []
        self._numbers = itertools.count()
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, answer: Answer) -> None:
        """Send an answer, and wait until all of it is sent."""
        answer.begin()
        self._new.put(answer)
        answer.done.wait()

    def _run(self) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                answer = self._new.get(timeout=self._seconds_left())
                self._add(time.monotonic() + answer.plan.gap / 1e6, answer)
            while self._due and self._due[0][0] <= time.monotonic():
                due, _, answer = heapq.heappop(self._due)
                self._go_on(due, answer)

    def _seconds_left(self) -> Optional[float]:
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _add(self, due: float, answer: Answer) -> None:
        heapq.heappush(self._due, (due, next(self._numbers), answer))

    def _go_on(self, due: float, answer: Answer) -> None:
        more = False
        with contextlib.suppress(OSError):  # the client has gone
            more = answer.go_on()
        if more:
            self._add(due + answer.plan.gap / 1e6, answer)
        else:
            answer.done.set()


class Server:
    """What all connections share."""

    def __init__(self) -> None:
        self._pacer = Pacer()
        self._counts: Dict[str, int] = {"connections": 0, "tokens": 0, "threads": 0, "messages": 0}

    def listen(self, context: Optional[ssl.SSLContext]) -> int:
        """Begin to serve on a port of its own, and tell it."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        threading.Thread(target=self._accept, args=(listener, context), daemon=True).start()
        return int(listener.getsockname()[1])

    def _accept(self, listener: socket.socket, context: Optional[ssl.SSLContext]) -> None:
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock, context), daemon=True).start()

    def _serve(self, sock: socket.socket, context: Optional[ssl.SSLContext]) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(sock)
            if context is not None:
                sock = stack.enter_context(context.wrap_socket(sock, server_side=True))
            unread = b""
            counted = goes_on = False
            while goes_on or not counted:
                request, unread = _request(sock, unread)
                if not request:
                    return
                if not counted and not request.startswith(b"GET /counts"):
                    self._counts["connections"] += 1
                counted = True
                goes_on = self._reply(sock, request)

    def _reply(self, sock: socket.socket, request: bytes) -> bool:
        """Answer a request, and tell whether the connection serves another one."""
        path = request.split(b" ", 2)[1]
        if path.endswith(b"/messages"):
            self._counts["messages"] += 1
            return self._stream(Answer(Plan.of(request), sock, _CONTENT, _COMPLETE))
        if path.endswith(b"/chat/completions"):
            return self._stream(Answer(Plan.of(request), sock, _DELTA, _DONE))
        sock.sendall(_json_reply(self._plain(path)))
        return True

    def _stream(self, answer: Answer) -> bool:
        if answer.plan.gap:
            self._pacer.send(answer)
        else:
            answer.send_at_once()
        return answer.framing.keeps_connection

    def _plain(self, path: bytes) -> Any:
        if path.endswith(b"/token"):
            self._counts["tokens"] += 1
            return {"token": "token", "expiration": "2099-01-01T00:00:00Z"}
        if path.endswith(b"/threads"):
            self._counts["threads"] += 1
            return {"thread_id": "11111111-2222-3333-4444-666666666666"}
        counts = dict(self._counts)
        self._counts.update(dict.fromkeys(counts, 0))
        return counts


def _request(sock: socket.socket, unread: bytes) -> Tuple[bytes, bytes]:
    """Read a whole request; give it, and what came after it. Nothing where the connection has ended."""
    while True:
        head, end, rest = unread.partition(b"\r\n\r\n")
        if end and len(rest) >= _length(head):
            length = _length(head)
            return head + end + rest[:length], rest[length:]
        data = sock.recv(65536)
        if not data:
            return b"", b""
        unread += data


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def _json_reply(data: Any) -> bytes:
    body = json.dumps(data).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def main(arguments: List[str]) -> None:
    """Serve until the input ends."""
    server = Server()
    ports = [server.listen(None)]
    for certificate in arguments:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        ports.append(server.listen(context))
    print(json.dumps(ports), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
