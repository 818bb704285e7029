"""A server on a plain socket that does with each connection exactly what a test scripts, byte by byte.

A script is a function of a ``Peer``, one end of a connection, and runs in a thread of its own; when it returns, the
connection is closed. Nothing here sleeps: scripts and tests wait for events, and every wait ends.
"""

import contextlib
import functools
import os
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import trustme

#: Seconds after which a wait has failed.
PATIENCE = 10.0


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: Any, server: "Server") -> None:
        self._sock = sock
        self._server = server
        self._unread = b""

    def receive(self) -> bytes:
        """Read one whole request and record it; ``b""`` where the client closed the connection instead."""
        while b"\r\n\r\n" not in self._unread:
            if not self._more():
                return b""
        head, _, rest = self._unread.partition(b"\r\n\r\n")
        length = sum(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(rest) < length and self._more():
            rest = self._unread[len(head) + 4 :]
        self._unread = rest[length:]
        request = head + b"\r\n\r\n" + rest[:length]
        self._server.received.append(request)
        self._server.asked.set()
        return request

    def _more(self) -> bool:
        try:
            data = self._sock.recv(65536)
        except OSError:
            data = b""
        self._unread += data
        if not data:
            self._server.peer_closed.set()
        return bool(data)

    def send(self, data: bytes) -> None:
        """Send bytes; where the client has gone, that is recorded."""
        try:
            self._sock.sendall(data)
        except OSError:
            self._server.peer_closed.set()

    def wait_closed(self) -> None:
        """Wait until the client closes the connection."""
        while self._more():
            pass

    def secure(self) -> None:
        """Go on with TLS."""
        self._sock = server_context().wrap_socket(self._sock, server_side=True)

    def reset(self) -> None:
        """Cut the connection so that the client sees a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def relay(self, port: int) -> None:
        """Pass on everything to and from another server on this machine until one of the two closes."""
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as other:
            back = threading.Thread(target=_copy, args=(other.recv, self.send))
            back.start()
            _copy(self._sock.recv, other.sendall)
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)
            back.join()

    def close(self) -> None:
        """Close the connection, whatever the script is doing with it."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        self._sock.close()


Script = Callable[[Peer], None]


class Server:
    """Runs a script for each connection made to a free port of this machine.

    Attributes:
        received: All requests, whole, in the order of their arrival.
        connections: How many connections were made.
        asked: Set when a request came.
        peer_closed: Set when a client closed a connection before its script did.
    """

    def __init__(self, script: Script, *, tls: bool = False) -> None:
        self._script = script
        self._tls = tls
        self.received: List[bytes] = []
        self.connections = 0
        self.asked = threading.Event()
        self.peer_closed = threading.Event()
        self._peers: List[Peer] = []
        self._threads: List[threading.Thread] = []
        self._failures: List[BaseException] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(PATIENCE)
        self._listener.close()
        for peer in self._peers:
            peer.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a script did not end"
        assert not self._failures, self._failures

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                self.connections += 1
                peer = Peer(sock, self)
                self._peers.append(peer)
                thread = threading.Thread(target=self._serve, args=(peer,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            if self._tls:
                peer.secure()
            self._script(peer)
        except OSError:  # the client went away, or refused the certificate
            self.peer_closed.set()
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            peer.close()


def answering(*replies: bytes) -> Script:
    """The script that answers one request of a connection after the other, then waits for the client to close it."""

    def script(peer: Peer) -> None:
        for reply in replies:
            if not peer.receive():
                return
            peer.send(reply)
        peer.wait_closed()

    return script


def cutting(reply: bytes) -> Script:
    """The script that answers one request and closes the connection."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(reply)

    return script


def wait_for(event: threading.Event) -> None:
    """Wait for an event that has to come."""
    assert event.wait(PATIENCE), "what was waited for did not happen"


def _copy(receive: Callable[[int], bytes], send: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        for data in iter(lambda: receive(65536), b""):
            send(data)


@functools.lru_cache(maxsize=None)
def authority() -> trustme.CA:
    """The CA that signs the servers' certificates."""
    return trustme.CA()


@functools.lru_cache(maxsize=None)
def server_context() -> ssl.SSLContext:
    """What the servers speak TLS with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


def authority_file(folder: Path) -> str:
    """Write the CA's certificate where a client can be pointed to it."""
    path = folder / "authority.pem"
    authority().cert_pem.write_to_path(str(path))
    return str(path)


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """Check that the block leaves no thread and no file descriptor behind."""
    threads, descriptors = threading.active_count(), len(os.listdir("/dev/fd"))
    yield
    assert threading.active_count() == threads
    assert len(os.listdir("/dev/fd")) == descriptors


class Worker:
    """Runs a function in a thread and hands over what it returned or raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._value: Any = None
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Wait for the end; return what the function returned, or raise what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the thread is still blocked"
        if self._error is not None:
            raise self._error
        return self._value
