"""Connections that end when their call ends: while they are made, while a reply is waited for, while it is read."""

import contextlib
import itertools
import socket
import threading
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
import requests
import requests.adapters
from support import (
    Peer,
    Script,
    Server,
    Worker,
    answering,
    authority_file,
    collect_garbage,
    cutting,
    nothing_left_open,
    reserved_port,
    wait_for,
)
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from copilot_sync.errors import NetworkError, ProtocolError, RequestTimeoutError, StreamClosedError
from copilot_sync.protocol.requests import Request
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import Timeout
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.connection import watch
from copilot_sync.transport.session import Transport

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
OK = HEAD + b"ok"
LONG = Timeout(connect=60, read=60)

either_wire = pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[Transport]:
    made = Transport(verify=authority_file(tmp_path))
    yield made
    made.close()


def fetch(transport: Transport, url: str, call: Optional[CallContext] = None) -> bytes:
    request = Request("threads", "GET", f"{url}/threads", "/threads", {})
    return transport.fetch(request, lambda prepared: prepared, call or CallContext(LONG)).body


class HeldCall(CallContext):
    """A call that tells when something is about to block on a socket."""

    def __init__(self, timeout: Timeout = LONG) -> None:
        super().__init__(timeout)
        self.held = threading.Event()

    def attach_socket(self, sock: socket.socket) -> None:
        super().attach_socket(sock)
        self.held.set()


@contextlib.contextmanager
def unanswering() -> Iterator[str]:
    """A port that takes no more connections: its queue is full, and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def silent(peer: Peer) -> None:
    """Takes a request, and says nothing."""
    peer.receive()
    peer.wait_closed()


@either_wire
@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nX-Half: ", HEAD + b"o"], ids=["nothing", "half a head", "half a body"]
)
def test_a_blocked_read_ends_when_the_call_is_stopped(transport: Transport, tls: bool, said: bytes) -> None:
    """At once, from another thread, and the server sees the end of the connection."""
    told = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(said)
        told.set()
        peer.wait_closed()

    with Server(script, tls=tls) as server:
        call = CallContext(LONG)
        reading = Worker(lambda: fetch(transport, server.url, call))
        wait_for(told)
        call.cancel()
        with pytest.raises(StreamClosedError) as caught:
            reading.result()
        wait_for(server.peer_closed)
        assert caught.value.stage == "threads"


@either_wire
def test_a_stopped_call_leaves_no_thread_and_no_socket(transport: Transport, tls: bool) -> None:
    """Whoever closes a thousand streams has a thousand descriptors to spare."""
    with nothing_left_open(), Server(silent, tls=tls) as server:
        call = CallContext(LONG)
        reading = Worker(lambda: fetch(transport, server.url, call))
        wait_for(server.asked)
        call.cancel()
        with pytest.raises(StreamClosedError):
            reading.result()
        transport.close()


def test_connecting_ends_when_the_call_is_stopped(transport: Transport) -> None:
    """To a host that doesn't answer at all."""
    with nothing_left_open(), unanswering() as url:
        call = HeldCall()
        connecting = Worker(lambda: fetch(transport, url, call))
        wait_for(call.held)
        call.cancel()
        with pytest.raises(StreamClosedError):
            connecting.result()


def test_a_handshake_ends_when_the_call_is_stopped(transport: Transport) -> None:
    """With a server that takes the connection and never says hello."""
    hello = threading.Event()

    def script(peer: Peer) -> None:
        peer.peek()
        hello.set()
        peer.wait_closed()

    with nothing_left_open(), Server(script) as server:
        call = CallContext(LONG)
        connecting = Worker(lambda: fetch(transport, server.url.replace("http:", "https:"), call))
        wait_for(hello)
        call.cancel()
        with pytest.raises(StreamClosedError):
            connecting.result()
        wait_for(server.peer_closed)


class _StoppedThere(CallContext):
    """A call that is stopped at the moment at which it is shown its n-th socket."""

    def __init__(self, stop_at: int) -> None:
        super().__init__(LONG)
        self._until_stop = stop_at

    def attach_socket(self, sock: socket.socket) -> None:
        super().attach_socket(sock)
        self._until_stop -= 1
        if not self._until_stop:
            self.cancel()


@either_wire
@pytest.mark.parametrize("moment", [1, 2, 3], ids=["to connect", "connected", "ready"])
def test_no_moment_is_too_early_or_too_late_to_stop(transport: Transport, tls: bool, moment: int) -> None:
    """Not even the one just before the connection begins to be made: no stop is ever lost."""
    with Server(answering(), tls=tls) as server, pytest.raises(StreamClosedError):
        fetch(transport, server.url, _StoppedThere(moment))


def test_a_call_that_was_stopped_before_makes_no_connection(transport: Transport) -> None:
    """There is nothing to connect for."""
    call = CallContext(LONG)
    call.cancel()
    with Server(silent) as server:
        with pytest.raises(StreamClosedError):
            fetch(transport, server.url, call)
        assert server.connections == 0


def test_stopping_after_the_reply_does_not_touch_the_next_one(transport: Transport) -> None:
    """The connection belongs to the pool again, and to whoever uses it now."""
    first, second = CallContext(LONG), CallContext(LONG)
    asked_twice, stopped = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(OK)
        peer.receive()
        asked_twice.set()
        wait_for(stopped)
        peer.send(OK)
        peer.wait_closed()

    with Server(script) as server:
        assert fetch(transport, server.url, first) == b"ok"
        reading = Worker(lambda: fetch(transport, server.url, second))
        wait_for(asked_twice)
        first.cancel()
        stopped.set()
        assert reading.result() == b"ok"
        assert server.connections == 1


def dripping(begin: bytes, drop: bytes) -> Script:
    """Sends one small piece after the other, a few milliseconds apart, until the client has had enough."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(begin)
        while not peer.gone.wait(0.005):
            peer.send(drop)

    return script


# fmt: off
LIMITS = [
    # the limits                            what drips in                           phase    seconds
    (Timeout(connect=9, read=0.4),           dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "reply", 0.4),
    (Timeout(connect=9, read=9, total=0.4),  dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "total", 0.4),
    (Timeout(connect=9, read=9, total=0.4),  dripping(HEAD[:-5] + b"999\r\n\r\n", b"x"), "total", 0.4),
    (Timeout(connect=9, read=0.4),           silent,                                    "reply", 0.4),
    (Timeout(connect=9, read=9, total=0.4),  silent,                                    "total", 0.4),
    (Timeout(connect=9, read=0.4),           answering(HEAD),                           "read",  0.4),
]
# fmt: on
_IDS = ["a head: read", "a head: total", "a body: total", "no head: read", "no head: total", "no body: read"]


@either_wire
@pytest.mark.parametrize(("timeout", "script", "phase", "seconds"), LIMITS, ids=_IDS)
def test_silence_and_dripping_end_at_their_limit(
    transport: Transport, tls: bool, timeout: Timeout, script: Script, phase: str, seconds: float
) -> None:
    """Bytes that keep coming are no excuse for a head that never ends; and the error says which limit it was."""
    with Server(script, tls=tls) as server:
        call = CallContext(timeout)
        call.begin()
        with pytest.raises(RequestTimeoutError) as caught:
            fetch(transport, server.url, call)
        wait_for(server.peer_closed)
    assert (caught.value.phase, caught.value.seconds, caught.value.may_have_been_sent) == (phase, seconds, True)


# fmt: off
CONNECT_LIMITS = [
    # the limits                                phase
    (Timeout(connect=0.4, read=60),             "connect"),
    (Timeout(connect=60, read=60, total=0.4),   "total"),
]
# fmt: on


@pytest.mark.parametrize(("timeout", "phase"), CONNECT_LIMITS)
@pytest.mark.parametrize("way", ["connection", "handshake", "proxy"])
def test_a_connection_that_is_not_made_ends_at_its_limit(
    transport: Transport, timeout: Timeout, phase: str, way: str
) -> None:
    """Be it the host, its TLS or a proxy that doesn't answer: nothing was sent, so it may be tried again."""
    call = CallContext(timeout)
    call.begin()
    with unanswering() as nowhere, Server(lambda peer: peer.wait_closed()) as server:
        url = nowhere if way == "connection" else server.url.replace("http:", "https:")
        used = Transport(proxy=server.url) if way == "proxy" else transport
        with pytest.raises(RequestTimeoutError) as caught:
            fetch(used, url, call)
    assert (caught.value.phase, caught.value.seconds) == (phase, 0.4)
    assert caught.value.may_have_been_sent is (phase == "total")


def test_all_addresses_and_tls_share_the_time_for_connecting(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One budget, not one for each address; the first that doesn't answer leaves the others their share."""
    granted: List[Optional[float]] = []
    clock = itertools.count()
    call = CallContext(Timeout(connect=12), clock=lambda: float(next(clock)) / 1000)

    class Unreachable(socket.socket):
        def connect(self, address: Any) -> None:
            granted.append(self.gettimeout())
            raise socket.timeout("timed out")

    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 9))] * 3
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: addresses)
    monkeypatch.setattr(socket, "socket", Unreachable)
    with pytest.raises(RequestTimeoutError, match="no connection was made within 12 s"):
        fetch(transport, "http://many.example", call)
    assert granted == pytest.approx([4, 6, 12], abs=0.1)


def test_a_handshake_has_what_the_connection_left_of_the_time(transport: Transport) -> None:
    """TLS belongs to making the connection, and has no time of its own."""
    now = [0.0]

    class LateCall(CallContext):
        def attach_socket(self, sock: socket.socket) -> None:
            super().attach_socket(sock)
            now[0] = 59.9

    with Server(lambda peer: peer.wait_closed()) as server:
        call = LateCall(LONG, clock=lambda: now[0])
        connecting = Worker(lambda: fetch(transport, server.url.replace("http:", "https:"), call))
        with pytest.raises(RequestTimeoutError, match="no connection was made within 60 s"):
            connecting.result()


def test_each_step_of_a_request_has_its_own_silence(transport: Transport) -> None:
    """However long connecting or sending took, the reply may take its time."""
    granted: Dict[str, float] = {}
    now = [0.0]

    class SlowCall(CallContext):
        def silence_seconds(self) -> float:
            granted.setdefault(self.phase, super().silence_seconds())
            now[0] += 5
            return super().silence_seconds()

    with Server(answering(OK)) as server:
        call = SlowCall(Timeout(connect=40, read=60), clock=lambda: now[0])
        assert fetch(transport, server.url, call) == b"ok"
    assert granted == {"connect": 40, "send": 60, "reply": 60}


@either_wire
def test_a_request_goes_out_in_one_piece(transport: Transport, tls: bool) -> None:
    """Head and body by themselves would be two calls of the system and two packets."""
    heard: List[bytes] = []

    def script(peer: Peer) -> None:
        for _ in range(2):
            heard.append(peer.arrived())
            peer.send(OK)
        peer.wait_closed()

    with Server(script, tls=tls) as server:
        for body in (b"{}", b"[]"):
            request = Request("threads", "POST", server.url, "/", {"Content-Type": "application/json"}, body=body)
            assert transport.fetch(request, lambda prepared: prepared, CallContext(LONG)).body == b"ok"
    assert [data[-6:] for data in heard] == [b"\r\n\r\n{}", b"\r\n\r\n[]"]


@either_wire
def test_a_request_that_can_not_be_sent_ends_at_its_limit(transport: Transport, tls: bool) -> None:
    """A server that takes nothing more off the wire; some of the request may have arrived."""
    finished = threading.Event()
    with Server(lambda peer: wait_for(finished), tls=tls) as server:
        request = Request("threads", "POST", server.url, "/", {}, body=bytes(64_000_000))
        with pytest.raises(RequestTimeoutError, match=r"could not be sent within 0.4 s") as caught:
            transport.fetch(request, lambda prepared: prepared, CallContext(Timeout(read=0.4)))
        finished.set()
    assert (caught.value.phase, caught.value.may_have_been_sent) == ("send", True)


def test_the_next_address_is_tried_where_one_refuses(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with an address of either family is reached where only one of them works."""
    with Server(answering(OK)) as server, reserved_port() as closed:
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in (closed, server.port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args: addresses)
        assert fetch(transport, "http://two.example") == b"ok"


# fmt: off
UNREACHABLE = [
    # what the look-up says                             what the error says
    (socket.gaierror(-2, "Name or service not known"),  "the host was not found: Name or service not known"),
    ([],                                                "the connection failed: nowhere.example has no address"),
]
# fmt: on


@pytest.mark.parametrize(("found", "words"), UNREACHABLE, ids=["no such host", "no address"])
def test_a_host_that_is_nowhere_is_a_network_error(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, found: Any, words: str
) -> None:
    """With the system's own words, and nothing was sent."""

    def look_up(*args: Any) -> Any:
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(NetworkError, match=words) as caught:
        fetch(transport, "http://nowhere.example")
    assert not caught.value.may_have_been_sent


def test_a_port_where_nothing_listens_is_a_network_error(transport: Transport) -> None:
    """The usual case of a wrong URL, said plainly."""
    with reserved_port() as port:
        with pytest.raises(NetworkError, match="nothing listens there: Connection refused") as caught:
            fetch(transport, f"http://127.0.0.1:{port}")
    assert not caught.value.may_have_been_sent
    assert caught.value.attempts == 0


@pytest.mark.parametrize("length", range(len(HEAD)))
def test_a_head_that_is_cut_is_never_a_reply(transport: Transport, length: int) -> None:
    """By itself, http.client takes the end of the connection for the end of the head, and makes it a 200."""
    with Server(cutting(HEAD[:length])) as server, pytest.raises(NetworkError) as caught:
        fetch(transport, server.url)
    assert "closed the connection before its reply was whole" in str(caught.value)
    assert caught.value.may_have_been_sent


# fmt: off
GARBAGE = {
    "not HTTP":               b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "an unknown version":     b"HTTP/9.9 200 OK\r\n\r\n",
    "no status":              b"HTTP/1.1 abc OK\r\n\r\n",
    "too long a status line": b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n",
    "too long a header":      b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "a line that is no field": b"HTTP/1.1 200 OK\r\ns3cret\r\nContent-Length: 0\r\n\r\n",
    "a continuation of nothing": b"HTTP/1.1 200 OK\r\n s3cret\r\nContent-Length: 0\r\n\r\n",
    "too many headers":       b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
}
# fmt: on


@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE)
def test_a_head_that_is_no_http_is_a_protocol_error(
    transport: Transport, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """And neither the error nor a log quotes anything of it."""
    with Server(answering(said)) as server, pytest.raises(ProtocolError, match="not valid HTTP") as caught:
        fetch(transport, server.url)
    assert caught.value.__cause__ is None
    assert "s3cret" not in caplog.text


def test_a_reset_is_a_network_error(transport: Transport) -> None:
    """It may have been taken by then."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.reset()

    with Server(script) as server, pytest.raises(NetworkError, match="the connection was reset") as caught:
        fetch(transport, server.url)
    assert caught.value.may_have_been_sent


def test_an_idle_connection_that_the_server_closed_is_not_used(transport: Transport) -> None:
    """A new one is made, without a failure in between."""
    closing, closed = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(OK)
        wait_for(closing)
        peer.close()
        closed.set()

    with Server(script) as server:
        assert fetch(transport, server.url) == b"ok"
        closing.set()
        wait_for(closed)
        assert fetch(transport, server.url) == b"ok"
        assert server.connections == 2


def tunnelling(port: int, *, tls: bool = False) -> Script:
    """A proxy that connects to one server, whatever it is asked for."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 Connection established\r\nVia: a proxy\r\n\r\n")
        peer.relay(port)

    return script


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["plain proxy", "TLS proxy"])
def test_a_tunnel_leads_through_a_proxy(tmp_path: Path, proxy_tls: bool) -> None:
    """With its credentials for the proxy alone."""
    with Server(answering(OK, OK), tls=True) as server, Server(tunnelling(server.port), tls=proxy_tls) as proxy:
        url = proxy.url.replace("://", "://user:pass@")
        transport = Transport(proxy=url, verify=authority_file(tmp_path))
        with contextlib.closing(transport):
            assert fetch(transport, server.url) == b"ok"
            assert fetch(transport, server.url) == b"ok"
        assert proxy.received[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1." % server.port)
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in proxy.received[0]
        assert b"roxy" not in b"".join(server.received)
        assert (proxy.connections, server.connections) == (1, 1)


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["plain proxy", "TLS proxy"])
def test_a_blocked_read_through_a_tunnel_ends_when_the_call_is_stopped(tmp_path: Path, proxy_tls: bool) -> None:
    """Also where the connection is TLS inside of TLS, which is no socket of the system's."""
    with Server(silent, tls=True) as server, Server(tunnelling(server.port), tls=proxy_tls) as proxy:
        transport = Transport(proxy=proxy.url, verify=authority_file(tmp_path))
        call = CallContext(LONG)
        reading = Worker(lambda: fetch(transport, server.url, call))
        wait_for(server.asked)
        call.cancel()
        with pytest.raises(StreamClosedError):
            reading.result()
        wait_for(server.peer_closed)


def test_a_plain_request_goes_to_the_proxy_itself(transport: Transport) -> None:
    """Whose own refusal is a reply like any other."""
    refusal = b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n"
    with Server(answering(refusal)) as proxy:
        request = Request("threads", "GET", "http://github.example/threads", "/threads", {})
        through = Transport(proxy=proxy.url)
        reply: RawReply = through.fetch(request, lambda prepared: prepared, CallContext(LONG))
        through.close()
        assert reply.status == 407
        assert proxy.received[0].startswith(b"GET http://github.example/threads HTTP/1.1\r\n")


def test_interim_replies_of_a_proxy_give_it_no_more_time_to_connect() -> None:
    """What it may take is the time for connecting, not that for a reply."""

    def script(peer: Peer) -> None:
        peer.receive()
        while not peer.gone.wait(0.02):
            peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    with Server(script) as proxy:
        request = Request("threads", "GET", "https://github.example/threads", "/threads", {})
        through = Transport(proxy=proxy.url)
        with pytest.raises(RequestTimeoutError) as caught:
            through.fetch(request, lambda prepared: prepared, CallContext(Timeout(connect=0.3, read=3, stall=3)))
        through.close()
    assert caught.value.phase == "connect"


# fmt: off
REFUSALS = [
    # the proxy says                                     the error says                                   status
    (b"HTTP/1.1 407 s3cret\r\nX: s3cret\r\n\r\ns3cret",  "the proxy wants a user name and a password",    407),
    (b"HTTP/1.1 502 s3cret\r\nX: s3cret\r\n\r\ns3cret",  "the proxy refused to connect, with status 502", None),
    (b"",                                                "the server closed the connection before",       None),
]
# fmt: on


@pytest.mark.parametrize(("said", "words", "status"), REFUSALS, ids=["407", "502", "nothing"])
def test_a_proxy_that_refuses_is_a_network_error(said: bytes, words: str, status: Optional[int]) -> None:
    """It says what the proxy wants, quotes nothing of it, and tells that nothing was sent."""
    with Server(cutting(said)) as proxy, contextlib.closing(Transport(proxy=proxy.url)) as transport:
        with pytest.raises(NetworkError, match=words) as caught:
            fetch(transport, "https://github.example")
    assert (caught.value.status, caught.value.may_have_been_sent) == (status, False)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "http://", "http://127.0.0.1:port"])
def test_a_proxy_that_can_not_be_used_is_said_to_be_one(proxy: str) -> None:
    """And not the server's fault."""
    with pytest.raises(NetworkError, match="the URL of the proxy can't be used"):
        fetch(Transport(proxy=proxy), "https://github.example")


def test_a_socks_proxy_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PySocks is missing, requests puts this in the place of its proxy."""

    def missing(*args: Any, **kwargs: Any) -> None:
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", missing)
    with pytest.raises(NetworkError, match=r'pip install "copilot-sync\[socks\]"') as caught:
        fetch(Transport(proxy="socks5://127.0.0.1:1"), "https://github.example")
    assert isinstance(caught.value.__cause__, requests.exceptions.InvalidSchema)


class _ForeignConnection(HTTPConnection):
    """A connection that makes its socket in its own way, as one through SOCKS does."""

    def _new_conn(self) -> socket.socket:
        return socket.create_connection((self.host, self.port))


class _ForeignPool(HTTPConnectionPool):
    ConnectionCls = _ForeignConnection


@pytest.fixture
def foreign() -> Iterator[PoolManager]:
    manager = PoolManager(retries=False)
    manager.pool_classes_by_scheme = {"http": _ForeignPool}
    watch(manager)
    yield manager
    manager.clear()


def test_connections_that_make_their_own_sockets_obey_too(foreign: PoolManager) -> None:
    """From the moment at which they are connected."""
    call = HeldCall()

    def ask(url: str) -> None:
        with call.current():
            foreign.request("GET", url)

    with Server(silent) as server:
        reading = Worker(lambda: ask(server.url))
        wait_for(server.asked)
        call.cancel()
        with pytest.raises(Exception, match="Connection aborted"):
            reading.result()
        wait_for(server.peer_closed)


def test_watching_twice_changes_nothing(foreign: PoolManager) -> None:
    """Threads that meet at a new proxy both make sure of it."""
    before = foreign.pool_classes_by_scheme
    watch(foreign)
    assert foreign.pool_classes_by_scheme == before


def test_a_connection_without_a_call_is_a_mistake(foreign: PoolManager) -> None:
    """Nothing could stop it."""
    with Server(silent) as server, pytest.raises(RuntimeError, match="outside of a call"):
        foreign.request("GET", server.url)


def test_a_finished_reply_is_not_kept_alive_by_its_call(transport: Transport) -> None:
    """A call that somebody keeps, in an error or a stream, doesn't keep a connection."""
    call = HeldCall()
    sockets: List[Callable[[], Any]] = []
    call.attach_socket = lambda sock: sockets.append(weakref.ref(sock))  # type: ignore[method-assign]
    with Server(answering(OK)) as server:
        assert fetch(transport, server.url, call) == b"ok"
        transport.close()
        collect_garbage()
        assert [alive() for alive in sockets if alive() is not None] == []
