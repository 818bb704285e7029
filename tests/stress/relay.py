"""What can stand between a client and a service, and what it does to requests and replies: ``Relay``."""

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from typing import BinaryIO, Callable, Dict, List, NamedTuple, Optional

from copilot_sync.emulator import Emulator

#: Seconds by which a request is late that the client has given up.
LATE = 0.5
#: Seconds between the parts of a reply, at most: an interim one and the real one, a 204 and its body.
MOMENT = 0.1

_EVENTS = b'data: {"type":"content","body":"the answer to another one"}\n\ndata: {"type":"complete"}\n\n'
#: An answer that nobody asked for.
SOMEBODY_ELSES = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(_EVENTS) + _EVENTS
)
INTERIM = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
)
TIMED_OUT = b"HTTP/1.1 504 Gateway Time-out\r\nContent-Type: text/html\r\nContent-Length: 17\r\n\r\n<h1>Time-out</h1>"


class Asked(NamedTuple):
    """A request as it came: its first line, its fields and its body."""

    method: str
    path: str
    headers: Dict[str, str]
    body: bytes

    @property
    def asks(self) -> bool:
        """Whether it sends a message."""
        return self.method == "POST" and self.path.endswith("/messages")


class Relay:
    """Stands in front of a Copilot's API and treats each request by chance.

    Args:
        emulator: The Copilot.
        chance: What chooses.
        share: Of requests that something is done to.
    """

    def __init__(self, emulator: Emulator, chance: random.Random, share: float) -> None:
        self._target = emulator.api_url.partition("//")[2]
        self._chance, self._share = chance, share
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.done: Counter[str] = Counter()
        self.late: List[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock = self._listener.accept()[0]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        upstream = http.client.HTTPConnection(self._target)
        with contextlib.suppress(OSError), contextlib.closing(upstream), sock, sock.makefile("rb") as lines:
            while True:
                request = _read(lines)
                if request is None or not self._treatment(request)(sock, upstream, request):
                    return

    def _treatment(self, request: Asked) -> Callable[[socket.socket, http.client.HTTPConnection, Asked], bool]:
        """Choose what is done to a request; it tells whether the connection goes on."""
        treatments = [self.interim, self.surplus]
        if request.asks:
            treatments += [self.cut_and_late, self.timed_out_and_late, self.cut, self.timed_out, self.half]
        if request.method == "DELETE":
            treatments = [self.late_body]
        chosen = self._chance.choice(treatments) if self._chance.random() < self._share else self.plain
        self.done[chosen.__name__] += 1
        return chosen

    def plain(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Pass everything on."""
        sock.sendall(_reply(upstream, request))
        return True

    def interim(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Say something before the reply, which takes a moment, as what an early word is said for does."""
        before = b"".join(self._chance.choice(INTERIM) for _ in range(self._chance.randint(1, 3)))
        sock.sendall(before)
        time.sleep(self._chance.uniform(0, MOMENT))
        return self.plain(sock, upstream, request)

    def surplus(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Send more than the reply."""
        sock.sendall(_reply(upstream, request) + SOMEBODY_ELSES)
        return True

    def late_body(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Send a reply that has no body, and then one."""
        sock.sendall(_reply(upstream, request))
        time.sleep(self._chance.uniform(0, MOMENT))
        sock.sendall(SOMEBODY_ELSES)
        return True

    def cut(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Lose the request, and the client."""
        return False

    def timed_out(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Lose the request, and say that nobody answered."""
        sock.sendall(TIMED_OUT)
        return True

    def cut_and_late(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Lose the client, and deliver the request late."""
        self._deliver_late(request)
        return False

    def timed_out_and_late(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Say that nobody answered, and deliver the request late."""
        self._deliver_late(request)
        return self.timed_out(sock, upstream, request)

    def half(self, sock: socket.socket, upstream: http.client.HTTPConnection, request: Asked) -> bool:
        """Cut an answer anywhere and end it as if that were all, as nginx does for a server that died."""
        head, _, body = _reply(upstream, request).partition(b"\r\n\r\n")
        fields = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
        events = body[: self._chance.randrange(len(body))]
        if self._chance.random() < 0.5:  # between two events
            events = events[: events.rfind(b"\n\n") + 2] if b"\n\n" in events else b""
        chunk = b"%x\r\n%b\r\n" % (len(events), events) if events else b""
        sock.sendall(b"\r\n".join([*fields, b"Transfer-Encoding: chunked", b"", chunk + b"0\r\n\r\n"]))
        return True

    def _deliver_late(self, request: Asked) -> None:
        def deliver() -> None:
            time.sleep(LATE)
            with contextlib.closing(http.client.HTTPConnection(self._target)) as upstream:
                _reply(upstream, request)

        self.late.append(threading.Thread(target=deliver))
        self.late[-1].start()


def _read(lines: BinaryIO) -> Optional[Asked]:
    first = lines.readline().split()
    if len(first) != 3:
        return None
    headers = http.client.parse_headers(lines)
    body = lines.read(int(headers.get("Content-Length", 0)))
    return Asked(first[0].decode(), first[1].decode(), dict(headers.items()), body)


def _reply(upstream: http.client.HTTPConnection, request: Asked) -> bytes:
    """Have the Copilot answer, and give its whole reply, its length told."""
    upstream.request(request.method, request.path, request.body or None, request.headers)
    reply = upstream.getresponse()
    body = reply.read()
    left_out = ("transfer-encoding", "content-length", "connection")
    fields = [f"{name}: {value}" for name, value in reply.getheaders() if name.lower() not in left_out]
    length = [] if reply.status == 204 else [f"Content-Length: {len(body)}"]
    head = [f"HTTP/1.1 {reply.status} {reply.reason}", *fields, *length, "", ""]
    return "\r\n".join(head).encode("latin-1") + body
