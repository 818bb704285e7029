"""The second host of a cold call is connected to while the first one is asked for a token."""

import contextlib
import gc
import json
import platform
import socket
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List, Optional

import pytest
from support import (
    PATIENCE,
    Peer,
    Script,
    Server,
    Worker,
    answering,
    authority_file,
    collect_garbage,
    nothing_left_open,
    reserved_port,
    server_context,
    wait_for,
)

from copilot_sync import (
    AuthenticationError,
    Client,
    NetworkError,
    ProtocolError,
    RequestTimeoutError,
    StreamClosedError,
    Timeout,
)
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.preconnection import Preconnection

REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


def reply(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


NO_MODELS = reply({"data": []})
TOKEN = reply({"token": "t" * 20})


def after(event: threading.Event, answer: bytes) -> Script:
    """The script that answers when something has happened."""

    def script(peer: Peer) -> None:
        peer.receive()
        wait_for(event)
        peer.send(answer)
        peer.wait_closed()

    return script


def silent(peer: Peer) -> None:
    """Take the connection, and say nothing, not even what belongs to TLS."""
    peer.wait_closed()


def resetting(peer: Peer) -> None:
    """Reset in the midst of the handshake: before it, ssl itself leaves the socket to garbage collection."""
    peer.arrived()
    peer.reset()


def wait_for_connecting() -> None:
    """Wait until nothing is being connected any more."""
    for thread in threading.enumerate():
        if thread.name == "copilot-sync-connect":
            thread.join(PATIENCE)


@pytest.fixture
def ca(tmp_path: Path) -> str:
    return authority_file(tmp_path)


@contextlib.contextmanager
def asking(
    github: Server, api_url: str, ca: str, timeout: Optional[Timeout] = None, proxy: Optional[str] = None
) -> Iterator[Client]:
    with Client(
        cookies={"user_session": "s"},
        github_url=github.url,
        api_url=api_url,
        proxy=proxy,
        verify=ca,
        retry=None,
        timeout=timeout or Timeout(),
    ) as client:
        yield client


def test_the_connection_is_made_before_the_token_is_there(ca: str) -> None:
    """That saves its round trips; it is the only one, and what comes over it first is the request."""
    connected = threading.Event()

    def api(peer: Peer) -> None:
        connected.set()
        answering(NO_MODELS)(peer)

    with nothing_left_open(), Server(after(connected, TOKEN), tls=True) as github, Server(api, tls=True) as server:
        with asking(github, server.url, ca) as client:
            assert client.models() == []
        assert (github.connections, server.connections) == (1, 1)
        assert server.received[0].startswith(b"GET /github/chat/models HTTP/1.1\r\n")


def test_the_connection_is_kept_for_the_next_request(ca: str) -> None:
    """It is one of the pool like any other."""
    with Server(answering(TOKEN), tls=True) as github, Server(answering(NO_MODELS, NO_MODELS), tls=True) as server:
        with asking(github, server.url, ca) as client:
            assert client.models() == client.models() == []
        assert server.connections == 1


def test_one_host_for_both_gets_one_connection(ca: str) -> None:
    """Company servers may be both; there is nothing to make ahead."""
    with Server(answering(TOKEN, NO_MODELS), tls=True) as server, asking(server, server.url, ca) as client:
        assert client.models() == []
        assert server.connections == 1


def test_without_tls_nothing_is_connected_ahead(ca: str) -> None:
    """The one round trip of a local server is not worth a thread."""
    seen: List[int] = []

    def github(peer: Peer) -> None:
        peer.receive()
        seen.append(threading.active_count())
        peer.send(TOKEN)

    with Server(answering(NO_MODELS)) as server, Server(github) as first, asking(first, server.url, ca) as client:
        before = threading.active_count()
        assert client.models() == []
        assert seen == [before + 1]  # the server's own


def test_behind_a_socks_proxy_nothing_is_connected_ahead(ca: str) -> None:
    """It is PySocks that connects there, where neither a limit nor a stop would reach the thread."""

    def proxy(peer: Peer) -> None:
        peer.exchange(3, b"\x05\x00")  # no password
        port = int.from_bytes(peer.exchange(10, b"")[-2:], "big")
        if port == github.port:
            peer.send(b"\x05\x00\x00\x01" + bytes(6))
            peer.relay(port)
        peer.wait_closed()

    with nothing_left_open(), Server(answering(TOKEN), tls=True) as github, Server(proxy) as server:
        route = f"socks5://127.0.0.1:{server.port}"
        with asking(github, "https://127.0.0.1:9", ca, Timeout(connect=0.5, total=PATIENCE), proxy=route) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                client.models()
        assert (caught.value.phase, server.connections) == ("connect", 2)


def test_a_token_that_is_refused_closes_the_connection(ca: str) -> None:
    """Nobody will need it."""
    connected = threading.Event()

    def api(peer: Peer) -> None:
        connected.set()
        silent(peer)

    with nothing_left_open(), Server(after(connected, REFUSED), tls=True) as github, Server(api, tls=True) as server:
        with asking(github, server.url, ca) as client:
            with pytest.raises(AuthenticationError):
                client.models()
            wait_for(server.peer_closed)
        assert server.received == []


def test_a_connection_that_can_not_be_made_is_the_failure_of_the_request(ca: str) -> None:
    """It is met once, by the stage that it belongs to; nothing is tried again behind the caller's back."""
    with reserved_port() as port, Server(answering(TOKEN), tls=True) as github:
        with asking(github, f"https://127.0.0.1:{port}", ca) as client:
            with pytest.raises(NetworkError, match="nothing listens there") as caught:
                client.models()
        assert (caught.value.stage, caught.value.may_have_been_sent, caught.value.attempts) == ("models", False, 1)


def test_what_keeps_the_connection_from_being_prepared_is_the_failure_of_a_request(ca: str, tmp_path: Path) -> None:
    """Whoever calls sees errors of ours alone, and of the stage that they belong to."""
    no_certificates = tmp_path / "empty.pem"
    no_certificates.write_text("nothing")
    with Server(answering(TOKEN), tls=True) as github:
        with asking(github, github.url, str(no_certificates)) as client:
            with pytest.raises(NetworkError, match="TLS failed") as caught:
                client.models()
            assert (caught.value.stage, caught.value.attempts) == ("token", 1)
        with asking(github, "https://*.invalid", ca) as client:
            with pytest.raises(NetworkError) as caught:
                client.models()
            assert (caught.value.stage, caught.value.attempts) == ("models", 1)


@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["hangs up", "resets"])
def test_a_server_that_ends_the_connection_is_connected_to_again(ca: str, end: Script) -> None:
    """As it is where an idle connection has ended."""
    ended = threading.Event()

    def api(peer: Peer) -> None:
        if not ended.is_set():
            end(peer)
            ended.set()
        else:
            answering(NO_MODELS)(peer)

    with Server(after(ended, TOKEN), tls=True) as github, Server(api, tls=True) as server:
        with asking(github, server.url, ca) as client:
            assert client.models() == []
        assert server.connections == 2


def test_closing_ends_the_wait_for_the_connection(monkeypatch: pytest.MonkeyPatch, ca: str) -> None:
    """A server that never gets through with TLS blocks nobody."""
    waiting, real = threading.Event(), Preconnection.claim

    def claim(preconnection: Preconnection, call: CallContext) -> Any:
        waiting.set()
        return real(preconnection, call)

    monkeypatch.setattr(Preconnection, "claim", claim)
    with nothing_left_open(), Server(answering(TOKEN), tls=True) as github, Server(silent) as server:
        with asking(github, server.url.replace("http", "https"), ca, Timeout(connect=2 * PATIENCE)) as client:
            stream = client.stream("Hi")
            worker = Worker(lambda: next(stream))
            wait_for(waiting)
            stream.close()
            with pytest.raises(StreamClosedError):
                worker.result()
            wait_for(server.peer_closed)


@pytest.mark.parametrize(
    "timeout, phase",
    [(Timeout(connect=0.5), "connect"), (Timeout(connect=20, total=0.5), "total")],
    ids=["connect", "total"],
)
def test_the_limits_of_a_call_hold_while_it_waits(ca: str, timeout: Timeout, phase: str) -> None:
    """The time for connecting is not granted twice."""
    with nothing_left_open(), Server(answering(TOKEN), tls=True) as github, Server(silent) as server:
        with asking(github, server.url.replace("http", "https"), ca, timeout) as client:
            started = time.monotonic()
            stream = client.stream("Hi", timeout=timeout)
            with pytest.raises(RequestTimeoutError) as caught:
                next(stream)
            assert caught.value.phase == phase
            assert time.monotonic() - started < PATIENCE
        assert server.connections == 1


def connected_for_another_call(client: Client) -> None:
    """Begin a connection for a call that ends before its request."""
    with client._session._transport.connecting(client._session.urls.api, CallContext(Timeout(connect=PATIENCE))):
        pass


def test_the_limit_of_the_call_that_waits_holds_whoever_the_connection_was_begun_for() -> None:
    """One client serves calls with limits of their own."""
    with nothing_left_open(), Server(silent) as server:
        with Client("key", api_url=server.url.replace("http", "https"), retry=None) as client:
            connected_for_another_call(client)
            started = time.monotonic()
            with pytest.raises(RequestTimeoutError) as caught:
                next(client.stream("Hi", timeout=Timeout(connect=0.5)))
            assert (caught.value.phase, caught.value.may_have_been_sent) == ("connect", False)
            assert time.monotonic() - started < PATIENCE / 2
        assert server.connections == 1


def test_a_call_does_not_meet_the_failure_of_a_connection_that_another_one_needed(ca: str) -> None:
    """It may be as old as the client; the host may have come up since."""

    def api(peer: Peer) -> None:
        if server.connections == 1:
            resetting(peer)
        else:
            peer.secure(server_context())
            answering(NO_MODELS)(peer)

    with nothing_left_open(), Server(api) as server:
        with Client("key", api_url=server.url.replace("http", "https"), verify=ca, retry=None) as client:
            connected_for_another_call(client)
            assert client.models() == []
        assert server.connections == 2


def test_an_interruption_closes_the_connection_that_was_just_made(monkeypatch: pytest.MonkeyPatch, ca: str) -> None:
    """Also where somebody keeps the exception, and with it all that its frames hold."""

    def interrupted(sock: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("copilot_sync.transport.preconnection._is_open", interrupted)
    with Server(answering(TOKEN), tls=True) as github, Server(answering(NO_MODELS), tls=True) as server:
        with asking(github, server.url, ca) as client:
            with pytest.raises(KeyboardInterrupt) as kept:
                client.models()
            wait_for(server.peer_closed)
            assert kept.value.__traceback__ is not None


@contextlib.contextmanager
def nothing_left_to_collect() -> Iterator[None]:
    """Check that what the block began ahead is gone at its end, without the help of garbage collection."""
    collect_garbage()
    gc.disable()
    try:
        yield
        if platform.python_implementation() != "CPython":  # pragma: no cover - only there it needs a collection
            collect_garbage()
        left = [kind for kind in map(type, gc.get_objects()) if kind is Preconnection]
    finally:
        gc.enable()
    assert left == []


def test_a_failure_keeps_nothing_alive(ca: str) -> None:
    """What is in its frames goes at once, also where the failure can't be shown as the cause of an error."""
    with Server(answering(TOKEN), tls=True) as github, asking(github, f"https://{70 * 'x'}.invalid", ca) as client:
        with nothing_left_to_collect(), contextlib.suppress(ProtocolError):
            client.models()


@pytest.mark.parametrize("is_asked", [True, False], ids=["the next request connects", "the client is closed"])
def test_a_failure_that_nobody_meets_keeps_nothing_alive(ca: str, is_asked: bool) -> None:
    """It was met by a connection for a call that ended before it needed one."""
    with Server(resetting) as server, nothing_left_to_collect():
        with Client("key", api_url=server.url.replace("http", "https"), verify=ca, retry=None) as client:
            connected_for_another_call(client)
            wait_for_connecting()
            if is_asked:
                with pytest.raises(NetworkError):
                    client.models()


def test_a_client_that_is_closed_ends_what_nobody_waits_for(ca: str) -> None:
    """Its connections go with it, also those that are not made yet."""
    connected = threading.Event()

    def api(peer: Peer) -> None:
        connected.set()
        peer.wait_closed()

    with nothing_left_open(), Server(api) as server:
        client = Client("key", api_url=server.url.replace("http", "https"), verify=ca)
        with client, client._session._transport.connecting(client._session.urls.api, CallContext(Timeout())):
            wait_for(connected)
        wait_for(server.peer_closed)


def test_a_pool_that_was_closed_meanwhile_connects_to_nobody(ca: str) -> None:
    """Another thread may close the client just then, and nobody would end the connection."""
    with nothing_left_open(), Server(silent) as server:
        url = server.url.replace("http", "https")
        with Client("key", api_url=url, verify=ca) as client:
            session = client._session._transport._opened()
            pool = session.pool_of(url, verify=ca, cert=None, proxies=None, stream=True)
            pool.close()
            pool.connect_ahead(CallContext(Timeout()))
            wait_for_connecting()
            assert not pool._preconnections


def test_a_look_up_that_takes_its_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, ca: str) -> None:
    """No thread can be got out of one; its connection is not made when it ends."""
    looked_up, asked, real = threading.Event(), threading.Event(), socket.getaddrinfo

    def slow(*args: Any) -> Any:
        asked.set()
        wait_for(looked_up)
        return real(*args)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with nothing_left_open(), Server(silent) as server:
        client = Client("key", api_url=server.url.replace("http", "https"), verify=ca)
        with client, client._session._transport.connecting(client._session.urls.api, CallContext(Timeout())):
            wait_for(asked)
        looked_up.set()
        wait_for_connecting()
        assert server.connections == 0


def test_where_there_can_be_no_thread_the_request_connects(monkeypatch: pytest.MonkeyPatch, ca: str) -> None:
    """As at the end of the interpreter, or where the system allows no more of them."""

    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "copilot-sync-connect":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with Server(answering(TOKEN), tls=True) as github, Server(answering(NO_MODELS), tls=True) as server:
        with asking(github, server.url, ca) as client:
            assert client.models() == []
        assert server.connections == 1
