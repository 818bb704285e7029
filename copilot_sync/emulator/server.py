"""The emulator as a program uses it: its listeners, their connections, and how all of them end.

``Emulator`` is a ``FaultScript`` that is being served: one thread accepts on all ports, and each connection
has a thread of its own.

Rule: after ``close`` nothing is left, neither a thread nor a socket, whatever the clients were doing.

Threads: locked.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import ssl
import threading
from types import TracebackType
from typing import Dict, Optional, Set, Type

from copilot_sync.emulator.account_pages import AccountPages
from copilot_sync.emulator.connection import Connection
from copilot_sync.emulator.fault_script import FaultScript
from copilot_sync.emulator.http1 import HttpSocket
from copilot_sync.emulator.replies import Reply, Script
from copilot_sync.emulator.service import EmulatedService
from copilot_sync.emulator.state import EmulatorOptions, Host, StoredThread
from copilot_sync.emulator.thread_group import CTRL_C_INTERVAL, ThreadGroup

_ADDRESS = "127.0.0.1"
_BACKLOG = 2048
_ACCEPT_RETRY_SECONDS = 0.02


class Emulator(FaultScript):
    """A Copilot of your own, on loopback.

    It serves from ``start`` (or ``with``) until ``close``. All of it is safe to use from any thread.

    Args:
        port: the port of ``github_url``; 0 chooses a free one.
        api_port: the port of ``api_url``; 0 chooses a free one.
        hostname: the host in the URLs; the listeners are always on 127.0.0.1.
        ssl_context: a server's context; with one, the URLs are ``https://``.
        reply: the answer to messages for which nothing is scripted; by default it repeats the message.
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
        options: Optional[EmulatorOptions] = None,
    ) -> None:
        super().__init__(options or EmulatorOptions(), Reply() if reply is None else reply)
        self._ports: Dict[Host, int] = {"github": port, "api": api_port, "plan_api": 0}
        self._hostname = hostname
        self._ssl_context = ssl_context
        self._cookies = {"user_session": secrets.token_urlsafe(24)}
        self._api_key = f"emulated-key-{secrets.token_hex(16)}"
        self._account = AccountPages(self.options, self._cookies, self._api_key, self._url)
        self._service = EmulatedService(self.options, self._account, self._lock, self.notify)
        self._running: Optional[_RunningServer] = None
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
        """Start to serve, and return the emulator; without effect if it already serves.

        After ``close`` it serves the same ports and the same threads again.

        Raises:
            OSError: a port is taken.
        """
        with self._lock:
            if self._running is None:
                self._running = _RunningServer(self._ports)
                self._ports = self._running.ports
                self._closed.clear()
                running = self._running
                running.thread_group.start(lambda: self._accept_all(running), "acceptor")
        return self

    def close(self) -> None:
        """End every connection, stall and thread, and free the ports. You may call it any number of times.

        It waits until all threads have ended, at most five seconds. A scripted function or generator that
        doesn't return can make it wait that long.
        """
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        running.thread_group.stop()
        running.wake()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.sock.shutdown()
        running.thread_group.join()
        running.close()
        self._closed.set()

    def serve_forever(self) -> None:
        """Serve until another thread calls ``close``, or until an exception such as ``KeyboardInterrupt``.

        Raises:
            KeyboardInterrupt: after Ctrl-C, when everything has ended.
        """
        try:
            self.start()
            while not self._closed.wait(CTRL_C_INTERVAL):
                pass
        finally:
            self.close()

    @property
    def github_url(self) -> str:
        """The URL that issues tokens, without a slash at the end."""
        return self._url("github")

    @property
    def api_url(self) -> str:
        """The URL of everything else, without a slash at the end. It is the host of individual plans."""
        return self._url("api")

    @property
    def plan_api_url(self) -> str:
        """The URL that takes the place of ``api_url`` on the plan "business"; on the other plans it answers 421."""
        return self._url("plan_api")

    @property
    def cookies(self) -> Dict[str, str]:
        """The cookies that are valid; you may change the dictionary."""
        return self._cookies

    @property
    def api_key(self) -> str:
        """A bearer that is always valid."""
        return self._api_key

    @property
    def environment(self) -> Dict[str, str]:
        """The environment variables that point the library here."""
        cookies = "; ".join(f"{name}={value}" for name, value in dict(self._cookies).items())
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
        """How many tokens were issued."""
        return self._account.tokens_issued

    @property
    def connections(self) -> int:
        """How many connections were accepted so far, on all ports."""
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
        """How many connections are stalled now."""
        with self._lock:
            return sum(connection.stalled for connection in self._open)

    @property
    def events_sent(self) -> int:
        """How many events were sent so far, on all connections."""
        with self._lock:
            return self._past_events + sum(each.events_sent for each in self._open)

    def expire_tokens(self) -> None:
        """Make all tokens issued so far invalid; ``api_key`` stays valid."""
        self._service.expire_tokens()

    def expire_messages(self, thread_id: str, keep: int = 0) -> None:
        """Forget the messages of a thread, as the service does after 28 days. The thread itself stays.

        Args:
            thread_id: the thread; ``KeyError`` if there is none.
            keep: how many of the newest messages stay. The parent of the oldest of them is gone.
        """
        self._service.expire_messages(thread_id, keep)

    def release(self) -> None:
        """End all current stalls; the stalled replies continue.

        A stall that is about to begin isn't ended: call ``wait_until(lambda: emulator.stalled)`` first.
        """
        with self._lock:
            for connection in self._open:
                connection.release()

    def drop_idle_connections(self) -> None:
        """Close the connections that are between requests, as servers do after a while."""
        with self._lock:
            for connection in self._open:
                if connection.idle:
                    connection.sock.shutdown()

    def _url(self, host: Host) -> str:
        port = self._ports[host]
        if not port:
            raise RuntimeError("the emulator has no URL before it is started")
        scheme = "https" if self._ssl_context else "http"
        return f"{scheme}://{self._hostname}:{port}"

    def _accept_all(self, running: _RunningServer) -> None:
        while not running.thread_group.stopping.is_set():
            for key, _ in running.selector.select():
                if key.data is not None:
                    self._admit(key.data, running)

    def _admit(self, host: Host, running: _RunningServer) -> None:
        try:
            client = self._wrap(running.accept(host))
        except OSError:
            # The client is gone already, or no descriptor is left: wait a little, don't spin.
            running.thread_group.stopping.wait(_ACCEPT_RETRY_SECONDS)
            return
        with self._lock:
            self._accepted += 1
            number = self._accepted
            connection = Connection(number, host, client, self._service, self, running.thread_group)
            self._open.add(connection)
        self.notify()
        if not running.thread_group.start(lambda: connection.run(self._remove), f"client-{number}"):
            client.close()
            self._remove(connection)

    def _wrap(self, sock: socket.socket) -> HttpSocket:
        try:
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            sock.close()
            raise
        return HttpSocket(sock, self.options.max_body)

    def _remove(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
            self._past_events += connection.events_sent
        self.notify()


class _RunningServer:
    """What exists from ``start`` to ``close``: the listeners and all threads."""

    def __init__(self, ports: Dict[Host, int]) -> None:
        self.listeners: Dict[Host, socket.socket] = {}
        self.thread_group = ThreadGroup()
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

    def wake(self) -> None:
        self._waker.send(b".")

    def close(self) -> None:
        self.selector.close()
        for each in (*self.listeners.values(), self._wake, self._waker):
            each.close()
