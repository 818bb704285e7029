"""Connections that obey the call they are used for, and the pools that keep them.

``urllib3`` makes the connections and ``http.client`` reads from them. This module puts a few things in between, at
the seams that both offer. Before a connection blocks (connecting, TLS, sending), it shows its socket to the current
``CallContext``, so that another thread can end it. ``reply.py`` bounds what it reads. The head of a request goes out
together with its body, and a pool may have its first connection made ahead of the request that needs it.

A pool keeps a connection only if its last reply was settled, which ``reply.py`` decides. It keeps them on a
``deque``, because the queue of ``urllib3`` has a lock. An exception out of a signal handler, or a fork, at the
wrong moment would leave that lock locked.

Tools that replay requests in tests replace the connections of ``urllib3`` by their own. Then nothing is put in
between.

PySocks makes the connections of a SOCKS proxy and shows a socket only when it is connected. There a stop is obeyed
after the time-out for connecting at the latest. The same holds for a DNS look-up, which no thread can interrupt.

Threads: what waits in a pool is atomic, and a connection is confined to the call that took it. If two threads come
first at once, each makes the class of a pool, and one of them is used.
"""

import contextlib
import http.client
import socket
import weakref
from collections import deque
from typing import Any, Deque, Dict, Optional, Tuple, cast

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ClosedPoolError, ConnectTimeoutError, NewConnectionError
from urllib3.util.connection import is_connection_dropped

from copilot_sync.secret import MaskedBytes, MaskedText
from copilot_sync.stepping import WouldBlockError
from copilot_sync.transport.call import CallContext, current_call, leave_to_parent, shut_down
from copilot_sync.transport.openssl_errors import forget_errors
from copilot_sync.transport.preconnection import Preconnection
from copilot_sync.transport.reply import WatchedResponse

#: Connections that a pool keeps open for its host.
POOL_SIZE = 512
#: The fields of a request that ``urllib3`` and ``http.client`` look for, to add what is missing.
_LOOKED_FOR = frozenset(("accept-encoding", "content-length", "host", "transfer-encoding", "user-agent"))


def seams() -> Tuple[object, ...]:
    """Return what tools for tests replace. When it changes, nothing that was made before is used any more."""
    return HTTPConnectionPool.ConnectionCls, HTTPSConnectionPool.ConnectionCls, socket.socket


def watch(manager: urllib3.PoolManager) -> None:
    """Make all connections of a pool manager obey the current call. Doing it again changes nothing."""
    # urllib3 annotates this attribute more narrowly than it uses it.
    holder = cast(Any, manager)
    holder.pool_classes_by_scheme = {
        scheme: _watched_pool(pool) for scheme, pool in holder.pool_classes_by_scheme.items()
    }


_pools: Dict[Tuple[type, type], type] = {}


def _watched_pool(pool: Any) -> type:
    connection = pool.ConnectionCls
    is_replayed = _is_of_urllib3(pool) and not _is_of_urllib3(connection)
    if is_replayed or not _has_real_sockets() or issubclass(connection, _Watched):
        return cast(type, pool)
    if (pool, connection) not in _pools:
        makes_own_socket = connection._new_conn is HTTPConnection._new_conn
        bases = (_OpenedHere, _Watched) if makes_own_socket else (_Watched,)
        watched = type(f"Watched{connection.__name__}", (*bases, connection), {})
        _pools[pool, connection] = type(f"Watched{pool.__name__}", (_Pool, pool), {"ConnectionCls": watched})
    return _pools[pool, connection]


def _is_of_urllib3(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "urllib3"


def _has_real_sockets() -> bool:
    return hasattr(socket.socket, "shutdown") and hasattr(socket.socket, "dup")


class _Pool:
    """The connections to one host that wait for their next request; the first may be made before a request needs it."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: Deque[Any] = deque()
        weakref.finalize(self, _close_all, self._idle)
        self._preconnections: Deque[Preconnection] = deque()

    def connect_ahead(self: Any, call: CallContext) -> None:
        """Make the first connection, if that takes long and needs nobody else: TLS, without a proxy."""
        # A pool behind a SOCKS proxy doesn't know of it: there it is the connection that makes its socket otherwise.
        direct = self.proxy is None and issubclass(self.ConnectionCls, _OpenedHere)
        if self.scheme == "https" and direct and not self.num_connections:
            with contextlib.suppress(RuntimeError):  # if there can't be another thread, the request connects
                self._preconnections.append(Preconnection(self._new_conn(), call))
                if self.pool is None:  # closed meanwhile, by another thread
                    self.drop_ahead()

    def drop_ahead(self) -> None:
        """End the connection that nobody has needed so far."""
        preconnection = _popped(self._preconnections)
        if preconnection is not None:
            preconnection.abandon()

    def _get_conn(self: Any, timeout: Optional[float] = None) -> Any:
        """Take the connection that was used last, else make one. ``urllib3`` calls this, and the next."""
        if self.pool is None:
            raise ClosedPoolError(self, "the pool is closed")
        for connection in iter(lambda: _popped(self._idle), None):
            if not is_connection_dropped(connection):
                return connection
            connection.close()
        call = current_call()
        if not call.may_connect:
            raise WouldBlockError
        preconnection = _popped(self._preconnections)
        return (preconnection and preconnection.claim(call)) or self._new_conn()

    @property
    def has_idle(self) -> bool:
        """Whether a connection waits for its next request."""
        return bool(self._idle)

    def _put_conn(self: Any, connection: Any) -> None:
        """Keep a connection if its last reply was settled, else close it."""
        if connection is None:
            return
        response, connection.response = connection.response, None
        if response is not None and response.is_settled and len(self._idle) < POOL_SIZE:
            self._idle.append(connection)
            connection = None if self.pool is not None else _popped(self._idle)
        if connection is not None:
            connection.close()

    def leave_to_parent(self) -> None:
        """In a forked child: take the descriptors off the parent's connections. Takes no lock and frees nothing."""
        for connection in list(self._idle):
            leave_to_parent(connection.sock)

    def close(self) -> None:
        self.pool = None  # the queue of urllib3, in which there is nothing
        self.drop_ahead()
        _close_all(self._idle)


def _close_all(connections: "Deque[Any]") -> None:
    for connection in iter(lambda: _popped(connections), None):
        connection.close()


def _popped(items: "Deque[Any]") -> Any:
    try:
        return items.pop()
    except IndexError:
        return None


class _Watched:
    """What a connection does besides its own work."""

    response_class = WatchedResponse
    #: The reply that was read last, until its pool has judged it.
    response: Optional[WatchedResponse] = None
    #: The head of a request that waits for its body; ``None`` if nothing waits.
    _head: Optional[bytes] = None
    #: Fields of a request that wait for the end of its head.
    _fields: Optional[bytes] = None

    def connect(self: Any) -> None:
        call = current_call()
        call.enter("connect")
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

    # That of urllib3 looks at each value for a mark that leaves the header out. None of ours has it.
    putheader = http.client.HTTPConnection.putheader

    def request(self: Any, method: str, url: str, body: Any = None, headers: Any = None, **kwargs: Any) -> None:
        headers, self._fields = _divided(headers)
        self._head = b""
        try:
            super().request(method, url, body, headers, **kwargs)  # type: ignore[misc]
            head = self._head
        finally:
            self._head = self._fields = None
        if head:  # there was no body
            self.send(head)

    def endheaders(self: Any, *args: Any, **kwargs: Any) -> None:
        """End the head with the fields that ``urllib3`` has not seen, all at once."""
        if self._fields:
            self._output(self._fields)
        super().endheaders(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: bytes) -> None:
        """Send the head of a request together with its body: each by itself costs a call of the system and a packet."""
        if self._head == b"":
            self._head = MaskedBytes(data)
            return
        head, self._head = self._head or b"", None
        super().send(MaskedBytes(head + data))  # type: ignore[misc]

    def getresponse(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = current_call()
        call.enter("reply")
        response = super().getresponse(*args, **kwargs)  # type: ignore[misc]
        self.response = getattr(response, "_original_response", response)  # urllib3 2 wraps it already
        return response

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        forget_errors()  # it may have broken


def _divided(headers: Any) -> Tuple[Any, Optional[bytes]]:
    """Divide headers into those that ``urllib3`` has to see, and the bytes of the others; ``None`` if it sees all.

    It sees all if anything about them is unusual, and ``http.client`` judges each of them.
    """
    try:
        names = [name for name in headers if name.lower() not in _LOOKED_FOR]
        fields = MaskedText("\r\n".join([name + ": " + headers[name] for name in names])).encode("latin-1")
    except (TypeError, UnicodeEncodeError):  # there are none, or some are bytes, or not of Latin 1
        return headers, None
    # Whatever has a line break in it makes lines of its own.
    if not fields.count(b"\r") == fields.count(b"\n") == len(names) - 1:
        return headers, None
    return {name: value for name, value in headers.items() if name not in names}, fields


def _begin_to_send(sock: socket.socket, call: CallContext) -> None:
    call.enter("send")
    sock.settimeout(call.silence_seconds())
    call.attach_socket(sock)


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
            call.attach_socket(self.handle)
            if call.cancelled:
                sock.close()  # here, because TLS may lose a socket that is shut down before its handshake
            return sock
        except socket.timeout as error:
            raise ConnectTimeoutError(self, "the connection was not made in time") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error


def _open_socket(host: str, port: int, options: Any, call: CallContext) -> socket.socket:
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


def _connected(sock: socket.socket, address: Any, options: Any, call: CallContext, share: int) -> socket.socket:
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(call.silence_seconds() / share)
        call.attach_socket(sock)
        sock.connect(address)
        sock.settimeout(call.silence_seconds())  # for what still belongs to making the connection: TLS
        return sock
    except BaseException:
        sock.close()
        raise
