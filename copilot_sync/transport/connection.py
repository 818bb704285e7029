"""Connections that obey the call they are used for.

``urllib3`` makes them, ``http.client`` reads from them; this module puts a few things in between, at the
seams that both offer for it. Before a connection blocks (connecting, TLS, sending), its socket
is shown to the current ``Call``, so that another thread can end it. A reply is read through
``_TimedReader``, which asks the call before each read how long it may block: heads, chunks
and bodies that come byte by byte are all under the same deadline. A request's head goes out together with
its body, and a pool may have its first connection made ahead of the request that needs it.

Connections of a SOCKS proxy are made by PySocks, which shows its socket only when it is connected: there,
a stop is obeyed after the connection's own time-out at the latest. So is one during a DNS look-up, which
no thread can interrupt.
"""

import contextlib
import http.client
import io
import socket
from collections import deque
from typing import Any, Deque, Dict, Optional, cast

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from copilot_sync.transport.ahead import Ahead
from copilot_sync.transport.call import Call, current_call, shut_down

#: The part of a socket's time-out that is left of it when it is set anew.
_ABOUT = 0.99


def watch(manager: urllib3.PoolManager) -> None:
    """Make all connections of a pool manager obey the current call. Doing it again changes nothing."""
    # urllib3 annotates this attribute more narrowly than it uses it.
    holder = cast(Any, manager)
    holder.pool_classes_by_scheme = {
        scheme: _watched_pool(pool) for scheme, pool in holder.pool_classes_by_scheme.items()
    }


_pools: Dict[type, type] = {}


def _watched_pool(pool: Any) -> type:
    if issubclass(pool.ConnectionCls, _Watched):
        return cast(type, pool)
    if pool not in _pools:
        connection = pool.ConnectionCls
        makes_own_socket = connection._new_conn is HTTPConnection._new_conn
        bases = (_OpenedHere, _Watched) if makes_own_socket else (_Watched,)
        watched = type(f"Watched{connection.__name__}", (*bases, connection), {})
        _pools[pool] = type(f"Watched{pool.__name__}", (_Pool, pool), {"ConnectionCls": watched})
    return _pools[pool]


class _Pool:
    """A pool whose first connection may be made before a request needs it."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ahead: Deque[Ahead] = deque()

    def connect_ahead(self: Any, call: Call) -> None:
        """Make the first connection, where that takes long and needs nobody else: TLS, without a proxy."""
        # A pool behind a SOCKS proxy doesn't know of it: there it is the connection that makes its socket otherwise.
        direct = self.proxy is None and issubclass(self.ConnectionCls, _OpenedHere)
        if self.scheme == "https" and direct and not self.num_connections:
            with contextlib.suppress(RuntimeError):  # where there can't be another thread, the request connects
                self._ahead.append(Ahead(self._new_conn(), call))

    def drop_ahead(self) -> None:
        """End the connection that nobody has needed so far."""
        ahead = self._popped()
        if ahead is not None:
            ahead.drop()

    def _get_conn(self: Any, *args: Any, **kwargs: Any) -> Any:
        connection = super()._get_conn(*args, **kwargs)  # type: ignore[misc]
        ahead = self._popped() if connection.sock is None else None
        return (ahead and ahead.taken(current_call())) or connection

    def _popped(self) -> Optional[Ahead]:
        try:
            return self._ahead.pop()
        except IndexError:
            return None

    def close(self) -> None:
        self.drop_ahead()
        super().close()  # type: ignore[misc]


class _TimedReader(io.RawIOBase):
    """The bytes of one reply; each read is bounded by its call."""

    def __init__(self, sock: socket.socket, call: Call) -> None:
        self._sock = sock
        self._call = call
        # Holds the socket open until the reply is closed, as http.client expects of what makefile() gives.
        self._hold = sock.makefile("rb", buffering=0)
        self._time_out = 0.0
        self.at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._allow_for_call()
        count = self._sock.recv_into(buffer)
        self.at_end = count == 0
        return count

    def read1(self, size: int) -> bytes:
        """Give what there is, past whatever buffers are made on top of this."""
        self._allow_for_call()
        data = self._sock.recv(size)
        self.at_end = not data
        return data

    def _allow_for_call(self) -> None:
        seconds = self._call.read_seconds()
        # Setting the time-out is a call of the system, so it stays where it is about the same already.
        if not _ABOUT * self._time_out <= seconds <= self._time_out:
            self._sock.settimeout(seconds)
            self._time_out = seconds

    def close(self) -> None:
        self._hold.close()
        super().close()


class _Source:
    """Stands in for the socket where ``http.client`` asks it for a file."""

    def __init__(self, reader: _TimedReader) -> None:
        self._reader = reader

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader)


class _Response(http.client.HTTPResponse):
    """A reply that is read under a call's deadline, and whose head must be whole and nothing but a head."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self._reader = _TimedReader(sock, current_call())
        super().__init__(cast(socket.socket, _Source(self._reader)), *args, **kwargs)

    def begin(self) -> None:
        # http.client takes the end of the connection for the end of the head.
        try:
            super().begin()
        except http.client.BadStatusLine:
            if not self._reader.at_end:
                raise
        if self._reader.at_end:
            raise http.client.RemoteDisconnected("the connection ended inside the head of the reply")
        # http.client leaves out everything after a line that is no field, and urllib3 logs what that line says.
        if self.msg.defects:
            raise http.client.HTTPException("there is a line in the head of the reply that is no field")


class _Watched:
    """What a connection does besides its own work."""

    response_class = _Response
    #: The head of a request that waits for its body; ``None`` where nothing waits.
    _head: Optional[bytes] = None

    def connect(self: Any) -> None:
        call = current_call()
        call.phase = "connect"
        call.progress()
        self.handle = None
        try:
            super().connect()  # type: ignore[misc]
            _begin_to_send(self.sock, call)
        except BaseException:
            # An exception that is kept somewhere keeps the socket of a handshake that it ended: Ctrl-C, say.
            if self.handle is not None:
                shut_down(self.handle)
            raise
        finally:
            if self.handle is not None:
                self.handle.close()

    def putrequest(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # else it connects when the first bytes are sent
            _begin_to_send(self.sock, current_call())
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        self._head = b""
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
            head = self._head
        finally:
            self._head = None
        if head:  # there was no body
            self.send(head)

    def send(self, data: bytes) -> None:
        """Send the head of a request together with its body: each by itself costs a call of the system and a packet."""
        if self._head == b"":
            self._head = data
            return
        head, self._head = self._head or b"", None
        super().send(head + data)  # type: ignore[misc]

    def getresponse(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = current_call()
        call.phase = "reply"
        call.progress()
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]


def _begin_to_send(sock: socket.socket, call: Call) -> None:
    call.phase = "send"
    call.progress()
    sock.settimeout(call.silence_seconds())
    call.hold(sock)


class _OpenedHere:
    """Opens the socket where the call can see it while it connects.

    TLS takes the descriptor over into a socket that nobody sees before its handshake is done, so the call
    holds a duplicate until then: shutting it down shuts the connection down.
    """

    def _new_conn(self: Any) -> socket.socket:
        call = current_call()
        try:
            sock = _open_socket(self._dns_host, self.port, self.socket_options or (), call)
            self.handle = sock.dup()
            call.hold(self.handle)
            if call.cancelled:
                sock.close()  # here, because TLS may lose a socket that is shut down before its handshake
            return sock
        except socket.timeout as error:
            raise ConnectTimeoutError(self, "the connection was not made in time") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error


def _open_socket(host: str, port: int, options: Any, call: Call) -> socket.socket:
    """Connect to the first of a host's addresses that answers, each having its share of the time that is left."""
    addresses = socket.getaddrinfo(host.strip("[]"), port, 0, socket.SOCK_STREAM)
    failure = OSError(f"{host} has no address")
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses):
        call.check()
        try:
            return _connected(socket.socket(family, kind, protocol), address, options, call, left)
        except OSError as error:
            failure = error
    raise failure


def _connected(sock: socket.socket, address: Any, options: Any, call: Call, share: int) -> socket.socket:
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(call.silence_seconds() / share)
        call.hold(sock)
        sock.connect(address)
        sock.settimeout(call.silence_seconds())  # for what still belongs to making the connection: TLS
        return sock
    except BaseException:
        sock.close()
        raise
