"""A server on a plain socket that does with each connection exactly what a test scripts, byte by byte.

A script is a function of a ``Peer``, one end of a connection, and runs in a thread of its own; when it returns, the
connection is closed. Nothing here sleeps: scripts and tests wait for events, and every wait ends.
"""

import contextlib
import functools
import gc
import io
import json
import os
import select
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set

import pytest
import sseclient

from copilot_sync.emulator import Emulator

#: Seconds after which a wait has failed.
PATIENCE = 10.0
#: Seconds for what another program may have to start for: beside other work, that alone can take most of ten.
_LONG = 3 * PATIENCE
#: A message as the page of the service sends it.
MESSAGE: Mapping[str, Any] = {
    "content": "Hi",
    "intent": "conversation",
    "references": [],
    "context": [],
    "currentURL": "https://github.com/copilot",
    "streaming": True,
    "confirmations": [],
    "customInstructions": [],
    "model": "gpt-4o",
    "mode": "immersive",
}


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: Any, server: "Server") -> None:
        self._sock = sock
        self._server = server
        self._unread = b""
        #: Set when the client closed the connection.
        self.gone = server.peer_closed

    def receive(self) -> bytes:
        """Read one whole request and record it; ``b""`` where the client closed the connection instead."""
        length = None
        while length is None or len(self._unread) < length:
            if not self._more():
                return b""
            length = _length(self._unread)
        request, self._unread = self._unread[:length], self._unread[length:]
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
            self.gone.set()
        return bool(data)

    def arrived(self) -> bytes:
        """Read what one read gives."""
        return bytes(self._sock.recv(65536))

    def exchange(self, length: int, reply: bytes) -> bytes:
        """Read so many bytes of what is not HTTP, and answer them."""
        data: bytes = self._sock.recv(length, socket.MSG_WAITALL)
        self.send(reply)
        return data

    def send(self, data: bytes) -> None:
        """Send bytes; where the client has gone, that is recorded."""
        try:
            self._sock.sendall(data)
        except OSError:
            self.gone.set()

    def can_send(self, seconds: float) -> bool:
        """Wait until there is room for what is sent next, but no longer than so many seconds."""
        return bool(select.select([], [self._sock], [], seconds)[1])

    def wait_closed(self) -> None:
        """Wait until the client closes the connection."""
        while self._more():
            pass

    def peek(self) -> None:
        """Wait until something comes, and leave it there."""
        self._sock.recv(1, socket.MSG_PEEK)

    def secure(self, context: ssl.SSLContext) -> None:
        """Go on with TLS."""
        self._sock = context.wrap_socket(self._sock, server_side=True)

    def reset(self) -> None:
        """Cut the connection so that the client sees a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def relay(self, port: int, size: int = 65536) -> None:
        """Pass on everything to and from another server on this machine until one of the two closes.

        What comes from there goes on in pieces of so many bytes.
        """

        def send(data: bytes) -> None:
            for place in range(0, len(data), size):
                self.send(data[place : place + size])

        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as other:
            back = threading.Thread(target=_copy, args=(other.recv, send))
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
        self._context = server_context() if tls else None
        self.received: List[bytes] = []
        self.connections = 0
        self.asked = threading.Event()
        self.peer_closed = threading.Event()
        self._peers: List[Peer] = []
        self._threads: List[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Each send goes out as it is; connections inherit it.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
            if self._context is not None:
                peer.secure(self._context)
            self._script(peer)
        except OSError:  # the client went away, or refused the certificate
            self.peer_closed.set()
        finally:
            peer.close()


def answering(*replies: bytes) -> Script:
    """The script that answers one request of a connection after the other, then waits for the client to close it."""

    def script(peer: Peer) -> None:
        for reply in replies:
            peer.receive()
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
    assert event.wait(_LONG), "what was waited for did not happen"


def wait_until(predicate: Callable[[], bool]) -> None:
    """Wait for what only looking can tell."""
    end = time.monotonic() + _LONG
    while not predicate():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.005)


def keepers_of(limiter: object) -> List[threading.Thread]:
    """Return the threads that keep the slots of a limiter: those of other limiters are none of its test's business."""
    targets = ((thread, getattr(thread, "_target", None)) for thread in threading.enumerate())  # it has none at its end
    return [thread for thread, target in targets if getattr(target, "__self__", None) is limiter]


def wait_until_blocked(process: int, thread: int) -> None:
    """Wait until a thread stays in the system: a signal that comes just before that is put off until it is out again.

    A thread that waits for the GIL is in the system as well, and wakes every 5 ms, which its counters tell.
    """
    status = Path(f"/proc/{process}/task/{thread}/status")

    def state() -> List[str]:
        return [line for line in status.read_text().splitlines() if line.startswith(("State:", "voluntary_ctxt"))]

    def is_blocked() -> bool:
        before = state()
        time.sleep(0.03)
        return "\tS" in before[0] and state() == before

    wait_until(is_blocked)


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port where nothing listens, and which no other program is given meanwhile.

    A program that has to be told its port can listen there: both reuse the address.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        yield port


def _length(data: bytes) -> Optional[int]:
    """The length of the request that some bytes begin with; ``None`` where its head isn't whole."""
    head, end, _ = data.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(head + end) + sum(lengths) if end else None


def _copy(receive: Callable[[int], bytes], send: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        for data in iter(lambda: receive(65536), b""):
            send(data)


@functools.lru_cache(maxsize=None)
def authority() -> Any:
    """The CA that signs the servers' certificates."""
    with warnings.catch_warnings():
        # The library below warns, when it is imported, on each Python that it is going to leave behind.
        warnings.simplefilter("ignore")
        import trustme
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


def collect_garbage() -> None:
    """Free what nobody holds any more. PyPy frees one link of a chain of finalizers at a time."""
    for _ in range(1 if sys.implementation.name == "cpython" else 5):
        gc.collect()


def what_is_open() -> Set[Any]:
    """The threads and descriptors of this process. One that gets the number of another later is not the same."""
    found: Set[Any] = set(threading.enumerate())
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the folder's own descriptor, which is closed by now
            found.add((name, os.readlink(f"/dev/fd/{name}")))
    return found


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """Check that the block leaves no thread and no file descriptor behind. What was there before may go or stay."""
    before = what_is_open()
    yield
    # A thread that was told to end may need a moment on a busy machine.
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and what_is_open() - before:  # pragma: no branch - nor does it run or end elsewhere
        if sys.implementation.name != "cpython":  # pragma: no cover - only there it needs a collection
            collect_garbage()
        time.sleep(0.01)  # pragma: no cover - on a busy machine alone
    left = what_is_open() - before
    assert not left, f"left open: {left}"


def variables_with(word: str, error: BaseException) -> List[str]:
    """What of an error, of those it came of, and of the variables of their frames shows a word; test files aside."""
    found: List[str] = []
    chain: Optional[BaseException] = error
    while chain is not None:
        stack = traceback.StackSummary.extract(traceback.walk_tb(chain.__traceback__), capture_locals=True)
        frames = [frame for frame in stack if not os.path.basename(frame.filename).startswith("test_")]
        texts = [f"{frame.name}: {name} = {text}" for frame in frames for name, text in (frame.locals or {}).items()]
        found += [text for text in [*texts, str(chain)] if word in text]
        chain = chain.__cause__ or chain.__context__
    return found


@functools.lru_cache(maxsize=None)
def configure_django() -> None:
    """Set Django up as a site with the views of ``test_contrib_django``, once in a process."""
    import asyncio

    import django
    from django.conf import settings

    memory = "django.core.cache.backends.locmem.LocMemCache"
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        CACHES={name: {"BACKEND": memory, "LOCATION": name} for name in ("default", "tokens")},
        COPILOT_SYNC={},
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "of each test"}},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "copilot_sync.contrib.django",
            "copilot_sync.contrib.django.ledger",
        ],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[
            "django.middleware.gzip.GZipMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        ROOT_URLCONF="test_contrib_django",
        SECRET_KEY="a key for signing",
        STATIC_URL="/static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        USE_TZ=True,
    )
    django.setup()
    # Django 3.2 asks for the thread's event loop, and Python 3.8 would make one that nobody closes.
    asyncio.set_event_loop(None)


def stages(emulator: Emulator) -> List[str]:
    """What was asked of an emulator, in order."""
    return [request.stage for request in emulator.requests]


def events(body: bytes) -> List[Dict[str, Any]]:
    """What a browser makes of a body: another program reads the format, as its standard says."""
    return [json.loads(event.data) for event in sseclient.SSEClient(iter([body])).events()]


@dataclass(frozen=True)
class Trouble:
    """What keeps a page from its answer.

    Attributes:
        settings: What the site has to be set to, so that it happens.
        code: What the page is told.
        logged: What the log says.
        secrets: What neither of the two may say.
        retry_after: Seconds, where the page is told of any.
    """

    settings: Dict[str, Any]
    code: str
    logged: str
    secrets: Sequence[str]
    retry_after: Optional[int] = None

    def check_told(self, body: bytes, log: str) -> None:
        """Check that a page was told in words for a person, and the log of the error and its cause."""
        (event,) = events(body)
        assert (event["type"], event["code"], event.get("retry_after")) == ("error", self.code, self.retry_after)
        assert event["message"].endswith(".")
        assert self.logged in log
        assert [words for words in (self.logged, *self.secrets) if words in body.decode()] == []
        assert [secret for secret in self.secrets if secret in log] == []


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
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the result is wanted
            self._error = error

    def ended_within(self, seconds: float) -> bool:
        """Wait no longer than so many seconds, and tell whether the function has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> Any:
        """Wait for the end; return what the function returned, or raise what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the thread is still blocked"
        if self._error is not None:
            raise self._error
        return self._value


class Sink(io.TextIOWrapper):
    """A stdout in an encoding, which may be a terminal."""

    def __init__(self, encoding: str, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="replace", newline="\n")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def written(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[no-any-return]


def fork() -> int:
    """Call ``os.fork`` without the warning of threads, which the tests are about.

    Where warnings are errors, Python 3.15 raises it in the parent after it has forked.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


#: For tests in which ``multiprocessing`` forks.
may_fork = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


#: Texts that try to pass for something else than they are: another line, another cell, another direction.
FORGERIES = [
    "two\nlines",
    "a\r\nb",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe",
    "\u2066isolated\u2069",
    "zero\u200bwidth\u200d\u2060\ufeff",
    "line\u2028and\u2029paragraph\x85",
    "tab\tand\x0bmore\x1c",
    "\U000e0041\u00ad",
    "\x9b31m",
]
