"""The emulator as a program sees it: two listeners, their connections, and the end of them all.

`Emulator` is a `Scenario` that is being served: one thread accepts on both ports, and each
connection has a thread of its own. Its promise is that after `close` nothing is left, neither a
thread nor a socket, whatever the clients were doing.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import ssl
import threading
from types import TracebackType
from typing import Dict, Optional, Set, Type

from .connection import Connection, Crew
from .http1 import Wire
from .replies import Reply, Script
from .scenario import Scenario
from .service import Host, Options, Service, StoredThread

_ADDRESS = "127.0.0.1"
_BACKLOG = 2048
_BREATH = 0.02
_CTRL_C_INTERVAL = 0.5


class Emulator(Scenario):
    """A Copilot of your own, on loopback.

    Serves from `start` (or `with`) until `close`. All of it may be used from any thread.

    Args:
        port: the port of `github_url`; 0 takes a free one.
        api_port: the port of `api_url`; 0 takes a free one.
        hostname: what the URLs name; the listeners are on 127.0.0.1 whatever it is.
        ssl_context: a server's context; with one, the URLs are `https://`.
        reply: what is said to messages for which nothing is scripted; by default their own words.
        options: how the service behaves.

    Example:
        >>> with Emulator() as emulator:
        ...     emulator.script("Hello!")
        ...     emulator.github_url.startswith("http://127.0.0.1:")
        True
    """

    def __init__(
        self,
        *,
        port: int = 0,
        api_port: int = 0,
        hostname: str = _ADDRESS,
        ssl_context: Optional[ssl.SSLContext] = None,
        reply: Optional[Script] = None,
        options: Optional[Options] = None,
    ) -> None:
        super().__init__(options or Options(), Reply() if reply is None else reply)
        self._ports: Dict[Host, int] = {"github": port, "api": api_port}
        self._hostname = hostname
        self._ssl_context = ssl_context
        self._cookies = {"user_session": secrets.token_urlsafe(24)}
        self._api_key = f"emulated-key-{secrets.token_hex(16)}"
        self._service = Service(self.options, self._cookies, self._api_key, self._lock, self.changed)
        self._listening: Optional[_Listening] = None
        self._closed = threading.Event()
        self._open: Set[Connection] = set()
        self._accepted = 0
        self._past_events = 0

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def start(self) -> Emulator:
        """Starts to serve, and returns the emulator; without effect while it does.

        After `close` it serves the same ports and the same threads again.

        Raises:
            OSError: a port is taken.
        """
        with self._lock:
            if self._listening is None:
                self._listening = _Listening(self._ports)
                self._ports = self._listening.ports
                self._closed.clear()
                listening = self._listening
                listening.crew.start(lambda: self._accept_all(listening), "acceptor")
        return self

    def close(self) -> None:
        """Ends every connection, stall and thread, and gives the ports back; any number of times.

        Waits until all have ended: not longer than it takes a scripted function or generator to
        return, and not longer than five seconds.
        """
        with self._lock:
            listening, self._listening = self._listening, None
        if listening is None:
            return
        listening.crew.dismiss()
        listening.stop()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.wire.shutdown()
        listening.crew.join()
        listening.close()
        self._closed.set()

    def serve_forever(self) -> None:
        """Serves until another thread calls `close`, or an exception such as Ctrl-C comes.

        Raises:
            KeyboardInterrupt: after everything has ended.
        """
        try:
            self.start()
            while not self._closed.wait(_CTRL_C_INTERVAL):
                pass
        finally:
            self.close()

    @property
    def github_url(self) -> str:
        """Where the token is to be had, without a slash at the end."""
        return self._url("github")

    @property
    def api_url(self) -> str:
        """Where everything else is, without a slash at the end."""
        return self._url("api")

    @property
    def cookies(self) -> Dict[str, str]:
        """The cookies that it takes for valid; the dictionary may be changed."""
        return self._cookies

    @property
    def api_key(self) -> str:
        """A bearer that is always valid."""
        return self._api_key

    @property
    def environment(self) -> Dict[str, str]:
        """The environment variables that point the library here."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        return {
            "COPILOT_SYNC_GITHUB_URL": self.github_url,
            "COPILOT_SYNC_API_URL": self.api_url,
            "COPILOT_SYNC_COOKIES": cookies,
        }

    @property
    def threads(self) -> Dict[str, StoredThread]:
        """The threads that exist, by id."""
        return self._service.threads

    @property
    def tokens_issued(self) -> int:
        """How many tokens were handed out."""
        return self._service.tokens_issued

    @property
    def connections(self) -> int:
        """How many connections were accepted so far, on both ports."""
        return self._accepted

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        """How many open connections are between requests."""
        with self._lock:
            return sum(connection.idle for connection in self._open)

    @property
    def stalled(self) -> int:
        """How many connections a stall keeps silent now."""
        with self._lock:
            return sum(connection.stalled for connection in self._open)

    @property
    def events_sent(self) -> int:
        """How many events were sent so far, on all connections."""
        with self._lock:
            return self._past_events + sum(each.events_sent for each in self._open)

    def expire_tokens(self) -> None:
        """Makes all tokens invalid that were issued so far; `api_key` stays valid."""
        self._service.expire_tokens()

    def release(self) -> None:
        """Ends the stalls of the moment; what was stalled goes on.

        One that is about to begin isn't ended: `wait_until(lambda: emulator.stalled)` comes first.
        """
        with self._lock:
            for connection in self._open:
                connection.release()

    def drop_idle_connections(self) -> None:
        """Closes the connections that are between requests, as servers do after a while."""
        with self._lock:
            for connection in self._open:
                if connection.idle:
                    connection.wire.shutdown()

    def _url(self, host: Host) -> str:
        port = self._ports[host]
        if not port:
            raise RuntimeError("the emulator has no URL before it is started")
        scheme = "https" if self._ssl_context else "http"
        return f"{scheme}://{self._hostname}:{port}"

    def _accept_all(self, listening: _Listening) -> None:
        while not listening.crew.leaving.is_set():
            for key, _ in listening.selector.select():
                if key.data is not None:
                    self._admit(key.data, listening)

    def _admit(self, host: Host, listening: _Listening) -> None:
        try:
            wire = self._wire(listening.accept(host))
        except OSError:
            # The client is gone already, or no descriptor is left: not a reason to spin.
            listening.crew.leaving.wait(_BREATH)
            return
        with self._lock:
            self._accepted += 1
            number = self._accepted
            connection = Connection(number, host, wire, self._service, self, listening.crew)
            self._open.add(connection)
        self.changed()
        if not listening.crew.start(lambda: connection.run(self._forget), f"client-{number}"):
            wire.close()
            self._forget(connection)

    def _wire(self, sock: socket.socket) -> Wire:
        try:
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            sock.close()
            raise
        return Wire(sock, self.options.max_body)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
            self._past_events += connection.events_sent
        self.changed()


class _Listening:
    """What exists from `start` to `close`: the listeners, and the threads behind them."""

    def __init__(self, ports: Dict[Host, int]) -> None:
        self.listeners: Dict[Host, socket.socket] = {}
        self.crew = Crew()
        self.selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self.selector.register(self._wake, selectors.EVENT_READ)
        try:
            for host, port in ports.items():
                listener = socket.create_server((_ADDRESS, port), backlog=_BACKLOG)
                self.listeners[host] = listener
                listener.setblocking(False)
                self.selector.register(listener, selectors.EVENT_READ, host)
        except OSError:
            self.close()
            raise
        self.ports = {host: each.getsockname()[1] for host, each in self.listeners.items()}

    def accept(self, host: Host) -> socket.socket:
        return self.listeners[host].accept()[0]

    def stop(self) -> None:
        self._waker.send(b".")

    def close(self) -> None:
        self.selector.close()
        for each in (*self.listeners.values(), self._wake, self._waker):
            each.close()
