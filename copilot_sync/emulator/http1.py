"""The part of HTTP/1.1 that the emulator speaks: whole requests in, replies out.

``HttpSocket`` is one client's socket. It reads whole requests within fixed bounds, sends bytes as they are,
and notices when a client goes away while it is being answered. It knows nothing of Copilot.

Rules: whatever a client sends, the result is a whole request, ``BadRequestError``, or, if the client went
away, ``ClientGoneError``. Any other exception is a defect here.

Threads: a socket is confined to the thread of its connection, but for its end, which is locked.
"""

from __future__ import annotations

import contextlib
import http
import json
import re
import selectors
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, Union
from urllib.parse import urlsplit

MAX_HEAD = 65_536
"""Bytes allowed for a request line and its header fields together."""

MAX_BODY = 32 * 1024 * 1024
"""Bytes allowed for a request body, unless the emulator's options say otherwise."""

_DRAIN_SECONDS = 1.0
_RECEIVE_BYTES = 65_536
# poll() takes milliseconds as a C int, which is 24 days.
_LONGEST_WAIT = 86_400.0
_REASONS = {int(status): status.phrase for status in http.HTTPStatus}
_REQUEST_LINE = re.compile(r"([!-~]+) (\S+) (HTTP/1\.[01])\Z")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*\Z")

# poll() has no upper bound on descriptors, which select() has; Windows has only the latter.
_Selector: Type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class BadRequestError(Exception):
    """The bytes received aren't a request that can be answered; the text says why."""


class ClientGoneError(Exception):
    """The client closed its connection, or the connection was lost."""


class Headers(Mapping[str, str]):
    """The header fields of a request, as they were received.

    Lookup ignores case. The values of a repeated field are joined with ``", "``.

    Attributes:
        pairs: every field as it was received, in order.

    Example:
        >>> Headers([("Accept", "text/html")])["accept"]
        'text/html'
    """

    def __init__(self, pairs: Sequence[Tuple[str, str]]) -> None:
        self.pairs = tuple(pairs)
        self._values: Dict[str, str] = {}
        for name, value in self.pairs:
            key = name.lower()
            known = self._values.get(key)
            self._values[key] = value if known is None else f"{known}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({list(self.pairs)!r})"


@dataclass(frozen=True)
class HttpRequest:
    """One request as it was received.

    Attributes:
        method: e.g. ``"POST"``, as sent.
        path: the path as sent, percent-encoded, without the query.
        query: what follows the ``?``, or ``""``.
        version: ``"HTTP/1.1"`` or ``"HTTP/1.0"``.
        headers: the header fields.
        body: the whole body.
    """

    method: str
    path: str
    query: str
    version: str
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        """The body parsed as JSON, ``None`` if it is empty; ``ValueError`` if it isn't JSON."""
        return json.loads(self.body) if self.body else None

    @property
    def cookies(self) -> Dict[str, str]:
        """The cookies that were sent, by name."""
        pairs = (part.split("=", 1) for part in self.headers.get("cookie", "").split(";"))
        return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}

    @property
    def bearer(self) -> Optional[str]:
        """What follows the scheme ``GitHub-Bearer`` in the Authorization header; ``None`` without one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme == "GitHub-Bearer" else None

    @property
    def keep_alive(self) -> bool:
        """Whether the client means to use the connection again."""
        return self.version == "HTTP/1.1" and self.headers.get("connection", "").lower() != "close"


@dataclass(frozen=True)
class HttpResponse:
    """An ordinary reply: a status, header fields, and a body that is known from the start."""

    status: int
    body: bytes = b""
    headers: Tuple[Tuple[str, str], ...] = ()


def json_response(status: int, payload: object, headers: Sequence[Tuple[str, str]] = ()) -> HttpResponse:
    """Return a reply whose body is ``payload`` as JSON."""
    fields = (("Content-Type", "application/json; charset=utf-8"), *headers)
    return HttpResponse(status, json.dumps(payload).encode("ascii"), fields)


def response_head(status: int, headers: Sequence[Tuple[str, str]]) -> bytes:
    """Return a status line and header fields as bytes, with the empty line that ends them."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


class HttpSocket:
    """One client's socket; for a single thread, except ``shutdown``.

    Args:
        sock: the accepted socket, in blocking mode; a TLS one before its handshake.
        max_body: the largest request body that is read, in bytes.
    """

    def __init__(self, sock: socket.socket, max_body: int = MAX_BODY) -> None:
        self._sock = sock
        self._max_body = max_body
        self._buffer = bytearray()
        self._selector: Optional[selectors.BaseSelector] = None
        # Keeps shutdown from hitting a descriptor that has just been given to someone else.
        self._closing = threading.Lock()

    def handshake(self) -> None:
        """Complete the handshake of a TLS socket; raise ``ClientGoneError`` if it fails."""
        if isinstance(self._sock, ssl.SSLSocket):
            try:
                self._sock.do_handshake()
            except (OSError, ValueError) as error:
                raise ClientGoneError from error

    def read_request(self) -> Optional[HttpRequest]:
        """Wait for the next request and return it whole; return ``None`` if the client sends no more.

        Raises:
            BadRequestError: it is malformed, or larger than the bounds allow.
            ClientGoneError: the connection ended in the middle of a request.
        """
        head = self._read_head()
        if head is None:
            return None
        method, target, version, headers = _parse_head(head)
        path, query = _split_target(target)
        length = _body_length(headers, self._max_body)
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return HttpRequest(method, path, query, version, headers, self._read_exactly(length))

    def send(self, data: bytes) -> None:
        """Send all of ``data``; raise ``ClientGoneError`` if nobody receives it any more."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ClientGoneError from error

    def wait(self, seconds: Optional[float], wake: Optional[socket.socket] = None) -> bool:
        """Wait while the client stays: for ``seconds``, at most a day, or for ever if that is ``None``.

        Bytes that the client sends meanwhile are kept for the next request. They end the wait early.

        Returns:
            Whether ``wake``, a second socket to watch, is readable.

        Raises:
            ClientGoneError: the client closed the connection, or sent more than fits in a head.
        """
        selector = self._get_selector()
        longest = None if seconds is None else min(seconds, _LONGEST_WAIT)
        if wake is not None:
            selector.register(wake, selectors.EVENT_READ)
        try:
            ready = [key.fileobj for key, _ in selector.select(longest)]
        finally:
            if wake is not None:
                selector.unregister(wake)
        if self._sock in ready:
            self._receive_early()
        return wake in ready

    def drain(self) -> None:
        """End the sending side, and read what the client still sends, for at most a second.

        Closing a socket with unread bytes would reset the connection, and lose the reply.
        """
        until = time.monotonic() + _DRAIN_SECONDS
        self._shut_down(socket.SHUT_WR)
        try:
            while time.monotonic() < until:
                self._buffer.clear()
                self.wait(until - time.monotonic())
        except ClientGoneError:
            pass

    def shutdown(self) -> None:
        """End any read, write or wait that is going on; safe from another thread.

        This is the system's own shutdown: a TLS socket's would change state that its thread uses.
        """
        with self._closing:
            self._shut_down(socket.SHUT_RDWR)

    def close(self, *, orderly: bool = True, reset: bool = False) -> None:
        """Close the socket.

        Args:
            orderly: over TLS, send close_notify first.
            reset: send a RST in place of a FIN.
        """
        if self._selector is not None:
            self._selector.close()
        if orderly:
            self._close_tls()
        with self._closing:
            if reset:
                linger = struct.pack("ii", 1, 0)
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            else:
                # Ends the connection even if a forked child holds a copy of the descriptor.
                self._shut_down(socket.SHUT_RDWR)
            self._sock.close()

    def _shut_down(self, how: int) -> None:
        with contextlib.suppress(OSError):  # the other side may be quicker
            if isinstance(self._sock, ssl.SSLSocket):  # its own would drop its TLS state under a thread that reads
                super(ssl.SSLSocket, self._sock).shutdown(how)
            else:
                self._sock.shutdown(how)

    def _close_tls(self) -> None:
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.setblocking(False)
            with contextlib.suppress(OSError, ValueError):
                self._sock.unwrap()

    def _read_head(self) -> Optional[bytes]:
        searched = 0
        while True:
            end = self._buffer.find(b"\r\n\r\n", max(0, searched - 3))
            if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
                raise BadRequestError(f"the request's head is larger than {MAX_HEAD} bytes")
            if end >= 0:
                head = bytes(self._buffer[:end])
                del self._buffer[: end + 4]
                return head
            searched = len(self._buffer)
            if not self._receive():
                if searched:
                    raise ClientGoneError
                return None

    def _read_exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            if not self._receive():
                raise ClientGoneError
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    def _receive(self) -> bool:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except OSError:
            return False
        self._buffer += data
        return bool(data)

    def _get_selector(self) -> selectors.BaseSelector:
        if self._selector is None:
            self._selector = _Selector()
            self._selector.register(self._sock, selectors.EVENT_READ)
        return self._selector

    def _receive_early(self) -> None:
        """Read what a readable socket has: bytes of the next request, or the end."""
        self._sock.setblocking(False)
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except (ssl.SSLWantReadError, BlockingIOError):
            return  # part of a TLS record, or one without data
        except OSError as error:
            raise ClientGoneError from error
        finally:
            self._sock.setblocking(True)
        self._buffer += data
        if not data or len(self._buffer) > MAX_HEAD + _RECEIVE_BYTES:
            raise ClientGoneError


_Head = Tuple[str, str, str, Headers]


def _parse_head(head: bytes) -> _Head:
    lines: List[str] = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    line = _REQUEST_LINE.match(lines[0])
    if line is None:
        raise BadRequestError("the request line is malformed")
    pairs = []
    for text in lines[1:]:
        field = _FIELD.match(text)
        if field is None:
            raise BadRequestError("a header field is malformed")
        pairs.append((field.group(1), field.group(2)))
    return line.group(1), line.group(2), line.group(3), Headers(pairs)


def _split_target(target: str) -> Tuple[str, str]:
    if target.startswith("/"):
        path, _, query = target.partition("?")
        return path, query
    try:
        parts = urlsplit(target)
    except ValueError as error:
        raise BadRequestError("the request target is malformed") from error
    return parts.path, parts.query


def _body_length(headers: Headers, largest: int) -> int:
    if "transfer-encoding" in headers:
        raise BadRequestError("a body needs a Content-Length here")
    text = headers.get("content-length", "0")
    if not re.match(r"[0-9]{1,18}\Z", text):
        raise BadRequestError("Content-Length is malformed")
    if int(text) > largest:
        raise BadRequestError(f"the body is larger than {largest} bytes")
    return int(text)


Body = Union[None, str, bytes, Mapping[str, Any], Sequence[Any]]
"""A body as a caller may pass it: text, bytes, or a value to send as JSON."""


def body_bytes(body: Body) -> bytes:
    """Return ``body`` as it is sent: text as UTF-8, a mapping or sequence as JSON."""
    if body is None:
        return b""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    return (body if isinstance(body, str) else json.dumps(body)).encode("utf-8")
