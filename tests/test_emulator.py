"""The emulator as a whole: its life, its counters, TLS, and that nothing of it is left behind."""

from __future__ import annotations

import ast
import contextlib
import functools
import http.client
import json
import os
import re
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple
from urllib.parse import urlsplit

import pytest
from support import MESSAGE, PATIENCE, authority, server_context

import copilot_sync.emulator
from copilot_sync.emulator import Emulator, EmulatorOptions, Fault, RecordedRequest, Reply, http1, server

MODELS = b"GET /models HTTP/1.1\r\n\r\n"
CLOSING = b"GET /models HTTP/1.1\r\nConnection: close\r\n\r\n"


@pytest.fixture
def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection(("127.0.0.1", parts.port), timeout=5)


def receive_all(client: socket.socket) -> bytes:
    return client.makefile("rb").read()


def message(emulator: Emulator, client: socket.socket) -> bytes:
    """Create a thread over ``client``, and return the request that posts a message to it."""
    bearer = f"Authorization: GitHub-Bearer {emulator.api_key}\r\n".encode()
    client.sendall(b"POST /github/chat/threads HTTP/1.1\r\n" + bearer + b"\r\n")
    reply = b""
    while not reply.endswith(b"}"):
        reply += client.recv(1000)
    thread_id = json.loads(reply.partition(b"\r\n\r\n")[2])["thread_id"]
    data = json.dumps(MESSAGE).encode()
    return (
        f"POST /github/chat/threads/{thread_id}/messages HTTP/1.1\r\n".encode()
        + bearer
        + b"Content-Length: %d\r\n\r\n" % len(data)
        + data
    )


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def emulator_threads() -> List[str]:
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("copilot-emulator-")]


def test_it_tells_where_it_is(emulator: Emulator) -> None:
    """Two ports on loopback, and the environment that points a client there."""
    assert emulator.github_url.startswith("http://127.0.0.1:")
    assert emulator.api_url.startswith("http://127.0.0.1:")
    assert emulator.github_url != emulator.api_url
    emulator.cookies["_octo"] = "GH1"
    assert emulator.environment == {
        "COPILOT_SYNC_GITHUB_URL": emulator.github_url,
        "COPILOT_SYNC_API_URL": emulator.api_url,
        "COPILOT_SYNC_COOKIES": f"user_session={emulator.cookies['user_session']}; _octo=GH1",
    }


def test_before_it_is_started_it_is_nowhere() -> None:
    """There is no port to name yet."""
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = Emulator().github_url


def test_all_that_it_needs_is_there_when_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever counts descriptors before and after something else finds no more of its own."""
    makers: List[threading.Thread] = []
    real = selectors.DefaultSelector

    def made() -> Any:
        makers.append(threading.current_thread())
        return real()

    monkeypatch.setattr(selectors, "DefaultSelector", made)
    with Emulator():
        assert makers == [threading.current_thread()]


def test_starting_and_closing_can_be_repeated() -> None:
    """Both do nothing if there is nothing to do."""
    emulator = Emulator()
    emulator.close()
    assert emulator.start() is emulator.start()
    assert len(emulator_threads()) == 1
    emulator.close()
    emulator.close()
    assert emulator_threads() == []


def test_it_comes_back_on_the_same_ports_with_the_same_threads() -> None:
    """As a server that was away for a while; meanwhile nothing listens."""
    with Emulator() as emulator, connect(emulator.api_url) as client:
        message(emulator, client)
        threads, url = dict(emulator.threads), emulator.api_url
    with pytest.raises(ConnectionRefusedError):
        connect(url)
    with emulator, connect(url) as client:
        client.sendall(CLOSING)
        assert b"401" in receive_all(client)
        assert (emulator.api_url, emulator.threads) == (url, threads)


def test_a_port_can_be_asked_for() -> None:
    """Each of the two."""
    with Emulator() as other:
        port, api_port = (urlsplit(url).port for url in (other.github_url, other.api_url))
    assert port is not None
    assert api_port is not None
    with Emulator(port=port, api_port=api_port) as emulator:
        assert (emulator.github_url, emulator.api_url) == (other.github_url, other.api_url)


def test_a_port_that_is_taken_is_an_error() -> None:
    """``OSError``, and the other port isn't kept either."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = descriptors()
        with pytest.raises(OSError, match="in use"):
            Emulator(api_port=taken.getsockname()[1]).start()
        assert descriptors() == before


def test_counters_follow_what_happens(emulator: Emulator) -> None:
    """Connections so far, open and idle now, and events sent."""
    with connect(emulator.api_url) as client, connect(emulator.github_url):
        assert emulator.wait_until(lambda: emulator.idle_connections == 2)
        client.sendall(message(emulator, client))
        assert emulator.wait_until(lambda: emulator.events_sent == 2)
        assert emulator.wait_until(lambda: emulator.idle_connections == 2)
        assert (emulator.connections, emulator.open_connections) == (2, 2)
    assert emulator.wait_until(lambda: emulator.open_connections == 0)
    assert (emulator.connections, emulator.events_sent, emulator.idle_connections) == (2, 2, 0)
    assert [(request.stage, request.connection) for request in emulator.requests] == [
        ("thread", emulator.requests[0].connection),
        ("message", emulator.requests[0].connection),
    ]


def test_waiting_for_what_does_not_happen_has_an_end(emulator: Emulator) -> None:
    """``False`` after the time-out; ``True`` at once if it holds already."""
    assert not emulator.wait_until(lambda: emulator.requests, timeout=0.01)
    assert emulator.wait_until(lambda: not emulator.requests, timeout=0)


def test_idle_connections_can_be_dropped(emulator: Emulator) -> None:
    """As servers do after a while; one that is being answered stays."""
    emulator.fail("models", Fault.stall())
    with connect(emulator.api_url) as idle, connect(emulator.api_url) as busy:
        busy.sendall(CLOSING)
        assert emulator.wait_until(lambda: emulator.stalled and emulator.idle_connections == 1)
        emulator.drop_idle_connections()
        assert receive_all(idle) == b""
        emulator.release()
        assert b"401" in receive_all(busy)
    assert emulator.disconnects == []


def test_releasing_without_a_stall_changes_nothing(emulator: Emulator) -> None:
    """There may be connections, but none that waits for it."""
    with connect(emulator.api_url) as client:
        assert emulator.wait_until(lambda: emulator.open_connections == 1)
        emulator.release()
        client.sendall(CLOSING)
        assert b"401" in receive_all(client)


def _idle(emulator: Emulator, client: socket.socket) -> None:
    client.sendall(MODELS)
    client.recv(1000)


def _half_a_request(emulator: Emulator, client: socket.socket) -> None:
    client.sendall(MODELS[:9])


def _a_stall(emulator: Emulator, client: socket.socket) -> None:
    emulator.fail("models", Fault.stall())
    client.sendall(MODELS)
    assert emulator.wait_until(lambda: emulator.stalled == 1)


def _a_slow_stream(emulator: Emulator, client: socket.socket) -> None:
    emulator.reply = Reply(["one", "two"], pace=60)
    client.sendall(message(emulator, client))
    assert emulator.wait_until(lambda: emulator.events_sent == 1)


def _a_flood_that_nobody_reads(emulator: Emulator, client: socket.socket) -> None:
    emulator.reply = Reply(["x" * 1_000_000] * 50_000)
    client.sendall(message(emulator, client))
    assert emulator.wait_until(lambda: emulator.events_sent)


def _an_answer_that_nobody_hears(emulator: Emulator, client: socket.socket) -> None:
    emulator.reply = Reply(["one", "two"], pace=60)
    emulator.fail("message", Fault.status(502, processed=True))
    client.sendall(message(emulator, client))
    client.recv(1000)


def _a_refusal(emulator: Emulator, client: socket.socket) -> None:
    client.sendall(b"nonsense\r\n\r\n")
    client.recv(1000)


STATES = [
    _idle,
    _half_a_request,
    _a_stall,
    _a_slow_stream,
    _a_flood_that_nobody_reads,
    _an_answer_that_nobody_hears,
    _a_refusal,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_after_closing_nothing_is_left(
    state: Callable[[Emulator, socket.socket], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """No thread, no descriptor, no word on stderr, whatever was going on; and it isn't the
    client who is said to have left."""
    before = descriptors()
    with Emulator() as emulator:
        client = connect(emulator.api_url)
        assert emulator.wait_until(lambda: emulator.open_connections == 1)
        state(emulator, client)
        emulator.close()
        assert emulator_threads() == []
        assert (emulator.open_connections, emulator.disconnects) == (0, [])
        client.close()
    assert descriptors() <= before
    assert capfd.readouterr().err == ""


def test_it_can_be_closed_from_one_of_its_own_threads(emulator: Emulator) -> None:
    """A function that chooses faults may do so: it doesn't wait for itself."""
    closed = threading.Event()

    def choose(stage: str, request: RecordedRequest) -> Optional[Fault]:
        emulator.close()
        closed.set()
        return None

    emulator.choose_fault = choose
    with connect(emulator.api_url) as client:
        client.sendall(MODELS)
        assert closed.wait(5)
        assert receive_all(client) == b""


def test_a_connection_that_comes_while_it_closes_is_closed_too(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted, but too late to be served."""
    accept = server._RunningServer.accept

    def accept_late(running: server._RunningServer, host: Any) -> socket.socket:
        running.thread_group.stop()
        return accept(running, host)

    monkeypatch.setattr(server._RunningServer, "accept", accept_late)
    with connect(emulator.api_url) as client:
        assert receive_all(client) == b""
    assert emulator.wait_until(lambda: emulator.open_connections == 0)


def test_accepting_goes_on_after_a_failure(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """When descriptors run out, say."""
    accept, failures = server._RunningServer.accept, [OSError(24, "Too many open files")]

    def accept_at_last(running: server._RunningServer, host: Any) -> socket.socket:
        if failures:
            raise failures.pop()
        return accept(running, host)

    monkeypatch.setattr(server._RunningServer, "accept", accept_at_last)
    with connect(emulator.api_url) as client:
        client.sendall(CLOSING)
        assert b"401" in receive_all(client)
    assert failures == []


@pytest.mark.timeout(180)  # what a busy machine takes to start so many threads
def test_hundreds_of_streams_go_on_at_once(emulator: Emulator) -> None:
    """Each has its thread, and each gets its own answer whole."""
    go = threading.Event()

    def pieces(prompt: str) -> Iterator[str]:
        go.wait()
        yield from map(str, range(20))

    def asked(number: int) -> bool:
        return sum(each.stage == "message" for each in emulator.requests) == number

    emulator.reply = pieces
    first = connect(emulator.api_url)
    request = message(emulator, first).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    clients: List[socket.socket] = []
    with contextlib.ExitStack() as going_on:
        going_on.callback(go.set)
        # One after the other: without a GIL, a busy machine needs up to a tenth of a second for each.
        for number in range(200):
            clients.append(connect(emulator.api_url) if number else first)
            clients[number].sendall(request)
            assert emulator.wait_until(functools.partial(asked, number + 1), PATIENCE)
        assert emulator.open_connections == 200
    for client in clients:
        assert receive_all(client).count(b"data: ") == 21
        client.close()
    assert emulator.wait_until(lambda: emulator.open_connections == 0)
    assert emulator.events_sent == 200 * 21
    (thread,) = emulator.threads.values()
    assert {answer["content"] for answer in thread.assistant_messages} == {"".join(map(str, range(20)))}


def test_serving_for_ever_ends_when_another_thread_closes(emulator: Emulator) -> None:
    """And returns quietly."""
    serving = threading.Thread(target=emulator.serve_forever)
    serving.start()
    with connect(emulator.api_url) as client:
        client.sendall(CLOSING)
        assert b"401" in receive_all(client)
    emulator.close()
    serving.join(5)
    assert not serving.is_alive()


def test_ctrl_c_ends_serving_for_ever_and_everything_with_it(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``KeyboardInterrupt`` comes out when all has ended."""
    waits: List[Optional[float]] = []

    class Interrupting(threading.Event):
        def wait(self, timeout: Optional[float] = None) -> bool:
            waits.append(timeout)
            if len(waits) == 2:
                signal.raise_signal(signal.SIGINT)
            return False

    monkeypatch.setattr(emulator, "_closed", Interrupting())
    with pytest.raises(KeyboardInterrupt):
        emulator.serve_forever()
    assert emulator_threads() == []


@pytest.fixture
def secure() -> Iterator[Emulator]:
    with Emulator(ssl_context=server_context(), hostname="localhost") as served:
        yield served


def secure_connect(emulator: Emulator, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(connect(emulator.api_url), server_hostname="localhost")


def test_it_serves_over_tls(secure: Emulator, client_context: ssl.SSLContext) -> None:
    """With https URLs, and a certificate that a client can check."""
    parts = urlsplit(secure.api_url)
    assert (parts.scheme, parts.hostname) == ("https", "localhost")
    connection = http.client.HTTPSConnection(parts.netloc, timeout=5, context=client_context)
    for _ in range(2):
        connection.request("GET", "/models")
        reply = connection.getresponse()
        assert (reply.status, json.load(reply)["error"]["code"]) == (401, "unauthorized")
    connection.close()
    assert secure.connections == 1


@pytest.mark.parametrize(("fault", "orderly"), [(None, True), (Fault.cut(1), False)], ids=["whole", "cut"])
def test_tls_is_closed_in_an_orderly_way_but_for_a_cut(
    secure: Emulator, client_context: ssl.SSLContext, fault: Optional[Fault], orderly: bool
) -> None:
    """The last record of a close-delimited body is an alert (close_notify), unless it is cut."""
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2  # which shows a record's type
    secure.reply = Reply(["one"], framing="close")
    secure.fail("message", fault)
    with secure_connect(secure, client_context) as other:
        request = message(secure, other)
    with connect(secure.api_url) as client:
        tls, outgoing = _shake_hands(client_context, client)
        tls.write(request)
        client.sendall(outgoing.read())
        types = list(_record_types(receive_all(client)))
    assert set(types[:-1]) == {23}
    assert types[-1] == (21 if orderly else 23)


def _record_types(data: bytes) -> Iterator[int]:
    while data:
        yield data[0]
        data = data[5 + int.from_bytes(data[3:5], "big") :]


@pytest.mark.parametrize("orderly", [True, False], ids=["announced", "not announced"])
def test_a_client_that_leaves_a_tls_stream_is_noticed(
    secure: Emulator, client_context: ssl.SSLContext, orderly: bool
) -> None:
    """Long before the next event, whichever way it leaves."""
    secure.reply = Reply(["one", "two"], pace=60)
    client = secure_connect(secure, client_context)
    client.sendall(message(secure, client))
    assert secure.wait_until(lambda: secure.events_sent == 1)
    if orderly:
        client.setblocking(False)
        with pytest.raises(ssl.SSLError):
            client.unwrap()
        assert secure.wait_until(lambda: secure.disconnects)
    client.close()
    assert secure.wait_until(lambda: secure.open_connections == 0)
    assert [disconnect.events for disconnect in secure.disconnects] == [1]


def test_half_a_tls_record_is_no_sign_of_life_or_death(
    secure: Emulator, client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stalled reply waits on, and the request is understood when the rest has come."""
    looked = threading.Event()
    receive_early = http1.HttpSocket._receive_early

    def look(sock: http1.HttpSocket) -> None:
        receive_early(sock)
        looked.set()

    monkeypatch.setattr(http1.HttpSocket, "_receive_early", look)
    secure.fail("models", Fault.stall())
    with connect(secure.api_url) as client:
        tls, outgoing = _shake_hands(client_context, client)
        tls.write(MODELS)
        client.sendall(outgoing.read())
        assert secure.wait_until(lambda: secure.stalled == 1)
        tls.write(CLOSING)
        record = outgoing.read()
        client.sendall(record[:9])
        assert looked.wait(5)
        client.sendall(record[9:])
        secure.release()
        assert secure.wait_until(lambda: len(secure.requests) == 2)
        receive_all(client)


def _shake_hands(context: ssl.SSLContext, client: socket.socket) -> Tuple[ssl.SSLObject, ssl.MemoryBIO]:
    """Begin TLS over ``client``; return it, and the buffer of what it wants to send."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    while True:
        try:
            tls.do_handshake()
            client.sendall(outgoing.read())
            return tls, outgoing
        except ssl.SSLWantReadError:
            client.sendall(outgoing.read())
            incoming.write(client.recv(65_536))


def test_who_does_not_speak_tls_is_dropped_quietly(secure: Emulator, capfd: pytest.CaptureFixture[str]) -> None:
    """The handshake fails, and that is all."""
    with connect(secure.api_url) as client:
        client.sendall(MODELS)
        assert secure.wait_until(lambda: secure.connections and not secure.open_connections)
    assert (secure.requests, capfd.readouterr().err) == ([], "")


def test_who_never_shakes_hands_does_not_keep_it_from_closing(secure: Emulator) -> None:
    """Nor from serving others meanwhile."""
    with connect(secure.api_url) as client:
        assert secure.wait_until(lambda: secure.open_connections == 1)
        secure.close()
        assert emulator_threads() == []
        assert receive_all(client) == b""


def test_a_socket_that_cannot_be_wrapped_is_closed(client_context: ssl.SSLContext) -> None:
    """As happens when the client is gone before TLS begins."""

    class Unlucky(ssl.SSLContext):
        def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
            raise OSError("gone")

    with Emulator(ssl_context=Unlucky(ssl.PROTOCOL_TLS_SERVER)) as emulator:
        with connect(emulator.api_url) as client:
            assert receive_all(client) == b""
        assert emulator.open_connections == 0


def test_the_package_offers_its_names_when_they_are_asked_for() -> None:
    """Every name in ``__all__``, and a clear error for any other."""
    names = copilot_sync.emulator.__all__
    assert all(hasattr(copilot_sync.emulator, name) for name in names)
    assert set(names) < set(dir(copilot_sync.emulator))
    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        _ = copilot_sync.emulator.Client


def test_the_plugin_loads_nothing_of_the_emulator() -> None:
    """pytest loads it in every project, so it has to be cheap."""
    loaded = "m for m in sys.modules if m.startswith('copilot_sync.emulator.')"
    code = f"import sys, copilot_sync.emulator.pytest_plugin; print(*({loaded}))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.split() == [b"copilot_sync.emulator.pytest_plugin"]


def test_it_imports_nothing_of_the_client() -> None:
    """It is a second reading of the protocol: only then can it contradict the first."""
    package = Path(copilot_sync.emulator.__file__).parent
    imported = {
        name
        for path in package.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in _imported(node)
    }
    own = {name for name in imported if re.match(r"copilot_sync\.emulator(\.|\Z)", name)}
    assert "copilot_sync.emulator.http1" in own
    assert {name for name in imported if name.startswith((".", "copilot_sync"))} == own


def _imported(node: ast.AST) -> List[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.level * "." + (node.module or "")]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_options_can_be_given_or_changed() -> None:
    """The emulator keeps the object that it was given."""
    options = EmulatorOptions(models=["a"])
    assert Emulator(options=options).options is options
