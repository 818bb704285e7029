"""Every way of stopping, at every point of a call: the server sees the close, and nothing is left."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Coroutine, Dict, Iterator, List, NamedTuple

import pytest
from loops import FACES, Run, in_thread
from support import (
    PATIENCE,
    Peer,
    Server,
    Worker,
    authority_file,
    nothing_left_open,
    server_context,
    wait_for,
    wait_until,
    wait_until_blocked,
)

from copilot_sync import Client, Conversation, RetryPolicy, Stream, StreamClosedError
from copilot_sync.aio import iterate_stream
from copilot_sync.emulator import Emulator, Fault, Reply

CONNECTING, BEFORE_THE_HEAD, MID_STREAM, ASLEEP = "connecting", "before the head", "mid-stream", "in a back-off"
FAULTS = {
    BEFORE_THE_HEAD: Fault.stall(),
    MID_STREAM: Fault.stall(("after_events", 1)),
    ASLEEP: Fault.status(503, retry_after=50),
}


class Scene(NamedTuple):
    """A server at which a call gets stuck at one point."""

    url: str
    key: str
    #: Waits until the call is stuck.
    reached: Callable[[], None]
    #: Waits until the server has seen that the call let go.
    let_go: Callable[[], None]
    #: Set when a call goes to sleep.
    asleep: threading.Event


@contextlib.contextmanager
def stuck(stage: str, tls: bool) -> Iterator[Scene]:
    with nothing_left_open():
        if stage != CONNECTING:
            with at_emulator(FAULTS[stage], tls) as scene:
                yield scene
        elif tls:
            with at_handshake() as scene:
                yield scene
        else:
            with at_full_queue() as scene:
                yield scene


@contextlib.contextmanager
def at_emulator(fault: Fault, tls: bool) -> Iterator[Scene]:
    asleep = threading.Event()
    with Emulator(reply=Reply(["one", "two"]), ssl_context=server_context() if tls else None) as emulator:
        emulator.fail("message", fault)

        def reached() -> None:
            if fault.action == "stall":
                assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
            else:
                wait_for(asleep)

        def let_go() -> None:
            assert emulator.wait_until(lambda: emulator.idle_connections == emulator.open_connections, PATIENCE)

        yield Scene(emulator.api_url, emulator.api_key, reached, let_go, asleep)


@contextlib.contextmanager
def at_handshake() -> Iterator[Scene]:
    """A server that takes connections and says nothing, as one that should speak TLS."""
    connected = threading.Event()

    def script(peer: Peer) -> None:
        connected.set()
        peer.wait_closed()

    with Server(script) as server:
        yield Scene(
            server.url.replace("http:", "https:"),
            "key",
            lambda: wait_for(connected),
            lambda: wait_for(server.peer_closed),
            threading.Event(),
        )


@contextlib.contextmanager
def at_full_queue() -> Iterator[Scene]:
    """A port whose queue of connections is full, so that the system leaves further ones without an answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        fillers = connecting_to(port)

        def reached() -> None:
            wait_until(lambda: connecting_to(port) > fillers)

        def let_go() -> None:
            """The server has seen nothing, and the descriptors are counted at the end."""

        yield Scene(f"http://127.0.0.1:{port}", "key", reached, let_go, threading.Event())


def connecting_to(port: int) -> int:
    """How many sockets of this machine wait for a connection to a port to be made."""
    return Path("/proc/net/tcp").read_text().count(f":{port:04X} 02 ")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    return authority_file(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[CONNECTING, BEFORE_THE_HEAD, MID_STREAM, ASLEEP])
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scene(stage: str, tls: bool, ca: str) -> Iterator[Scene]:
    with stuck(stage, tls) as entered:
        yield entered


@pytest.fixture
def client(scene: Scene, ca: str) -> Iterator[Client]:
    retry = RetryPolicy(on_retry=lambda error, seconds: scene.asleep.set())
    with Client(scene.key, api_url=scene.url, verify=ca, retry=retry) as opened:
        yield opened


at_mid_stream = pytest.mark.parametrize("stage", [MID_STREAM])


@pytest.mark.parametrize("close", ["stream", "client"])
def test_another_thread_ends_a_blocked_reader(scene: Scene, client: Client, close: str) -> None:
    """``Stream.close`` and ``Client.close`` end it at once, wherever it is; it gets ``StreamClosedError``."""
    stream = client.stream("hi")
    reader = Worker(lambda: list(stream))
    scene.reached()
    (stream if close == "stream" else client).close()
    with pytest.raises(StreamClosedError) as caught:
        reader.result()
    assert caught.value.partial == stream.text
    scene.let_go()


def test_a_reader_that_closes_itself_ends_quietly(scene: Scene, client: Client) -> None:
    """A signal's handler may close the very stream that it interrupts: the loop just ends."""
    stream = client.stream("hi")
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: stream.close())
    reader = threading.current_thread()

    def interrupt() -> None:
        scene.reached()
        assert reader.ident is not None and reader.native_id is not None
        wait_until_blocked(os.getpid(), reader.native_id)
        signal.pthread_kill(reader.ident, signal.SIGUSR1)

    interrupter = Worker(interrupt)
    try:
        assert "".join(stream) == stream.text
    finally:
        signal.signal(signal.SIGUSR1, previous)
    interrupter.result()
    assert list(stream) == []
    scene.let_go()


CHILD = """
import gc, json, os, sys, threading, time
from pytest import MonkeyPatch
from loops import reader
from support import PATIENCE
from copilot_sync import Client, RetryPolicy

def left():
    for _ in range(5):  # PyPy closes a socket that a handshake lost when it finds it
        gc.collect()
    return threading.active_count(), len(os.listdir("/dev/fd"))

def left_after(before):
    end = time.monotonic() + PATIENCE
    while left() != before and time.monotonic() < end:  # a thread may need a moment on a busy machine
        time.sleep(0.01)
    return left()

for line in sys.stdin:
    face, url, key, verify = json.loads(line)
    monkeypatch = MonkeyPatch()
    read = reader(face, monkeypatch)
    before = left()
    with Client(key, api_url=url, verify=verify, retry=RetryPolicy(on_retry=lambda *_: print("asleep"))) as client:
        stream = client.stream("hi")
        try:
            read(stream)
        except KeyboardInterrupt:
            print("interrupted")
    monkeypatch.undo()
    print(json.dumps([before, left_after(before)]))
"""


@pytest.fixture(scope="module")
def child() -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-u", "-W", "error", "-W", "ignore:Python 3.8", "-c", CHILD]
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True, env=environment
    ) as started:
        yield started
        assert started.stdin is not None
        started.stdin.close()
        assert started.wait(PATIENCE) == 0


@pytest.mark.parametrize("face", FACES)
def test_ctrl_c_gets_through_wherever_the_call_is(
    child: "subprocess.Popen[str]", scene: Scene, stage: str, ca: str, face: str
) -> None:
    """``KeyboardInterrupt`` leaves sleeps and reads at once, and takes the connection and the thread along."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(json.dumps([face, scene.url, scene.key, ca]) + "\n")
    child.stdin.flush()
    if stage == ASLEEP:
        assert child.stdout.readline() == "asleep\n"
    else:
        scene.reached()
    wait_until_blocked(child.pid, child.pid)
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "interrupted\n"
    scene.let_go()
    before, after = json.loads(child.stdout.readline())
    assert before == after


CallContext = Callable[[Client, Conversation], Any]
CALLS: Dict[str, CallContext] = {
    "thread": lambda client, conversation: client.create_thread(),
    "models": lambda client, conversation: client.models(),
    "threads": lambda client, conversation: client.threads(),
    "messages": lambda client, conversation: client.messages(conversation),
    "rename": lambda client, conversation: client.rename_thread(conversation, "name"),
    "delete": lambda client, conversation: client.delete_thread(conversation),
    "message": lambda client, conversation: client.ask("hi", conversation=conversation),
}
IN_THE_REPLY = "in the reply"
AT = {
    BEFORE_THE_HEAD: Fault.stall(processed=False),
    IN_THE_REPLY: Fault.stall(("after_events", 0)),
    ASLEEP: Fault.status(409),  # no refusal, which would slow all that follows
}
PLACES = [
    (stage, where) for stage in CALLS for where in AT if (stage, where) != ("delete", IN_THE_REPLY)
]  # it has none


@pytest.mark.parametrize(("stage", "where"), PLACES)
def test_closing_the_client_ends_every_call(emulator: Emulator, stage: str, where: str) -> None:
    """Wherever it is; whoever waits for it is told, and the client goes on serving others."""
    asleep = threading.Event()
    retry = RetryPolicy(base=100_000, cap=100_000, on_retry=lambda error, seconds: asleep.set())
    with nothing_left_open(), Client(emulator.api_key, api_url=emulator.api_url, retry=retry) as client:
        conversation = client.create_thread()
        emulator.fail(stage, AT[where])
        call = Worker(lambda: CALLS[stage](client, conversation))
        if where == ASLEEP:
            wait_for(asleep)
        else:
            assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
        began = time.monotonic()
        client.close()
        with pytest.raises(StreamClosedError):
            call.result()
        assert time.monotonic() - began < 1
        assert not client._calls
        assert client.ask("hi").text == "hi"


def test_closing_the_client_ends_the_wait_for_a_token(emulator: Emulator) -> None:
    """That of the call that fetches it, and that of those that wait for this one."""
    emulator.fail("token", Fault.stall())
    urls = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    with nothing_left_open(), Client(cookies=emulator.cookies, **urls) as client:
        calls = [Worker(lambda: client.models())]
        assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
        calls += [Worker(lambda: client.threads()), Worker(lambda: client.ask("hi"))]
        wait_until(lambda: len(client._calls) + len(client._streams) == 3)
        client.close()
        for call in calls:
            with pytest.raises(StreamClosedError):
                call.result()
        assert client.ask("hi").text == "hi"


def test_closing_the_client_ends_the_wait_for_the_end_of_a_pause(emulator: Emulator) -> None:
    """The service had asked everybody to slow down."""
    asleep = threading.Event()
    emulator.fail("threads", Fault.status(429, retry_after=30))
    retry = RetryPolicy(on_retry=lambda error, seconds: asleep.set())
    with nothing_left_open(), Client(emulator.api_key, api_url=emulator.api_url, retry=retry) as client:
        first = Worker(client.threads)
        wait_for(asleep)
        second = Worker(client.models)
        wait_until(lambda: len(client._calls) == 2)
        client.close()
        for call in (first, second):
            with pytest.raises(StreamClosedError):
                call.result()


def test_a_signal_may_close_the_client_inside_of_a_call(emulator: Emulator) -> None:
    """The call that it interrupts is told like any other."""
    emulator.fail("models", Fault.stall())
    with nothing_left_open(), Client(emulator.api_key, api_url=emulator.api_url) as client:
        previous = signal.signal(signal.SIGUSR1, lambda number, frame: client.close())
        caller = threading.current_thread()

        def interrupt() -> None:
            assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
            assert caller.ident is not None and caller.native_id is not None
            wait_until_blocked(os.getpid(), caller.native_id)
            signal.pthread_kill(caller.ident, signal.SIGUSR1)

        interrupter = Worker(interrupt)
        try:
            with pytest.raises(StreamClosedError):
                client.models()
        finally:
            signal.signal(signal.SIGUSR1, previous)
        interrupter.result()
        assert client.models()


async def read(stream: Stream) -> List[str]:
    return [piece async for piece in iterate_stream(stream)]


async def waiting(scene: Scene, stream: Stream) -> "asyncio.Task[Any]":
    """A task that waits for a stream that is stuck."""
    task = asyncio.ensure_future(read(stream))
    await in_thread(scene.reached)
    return task


async def by_cancelling(scene: Scene, stream: Stream) -> None:
    task = await waiting(scene, stream)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_a_time_out(scene: Scene, stream: Stream) -> None:
    task = await waiting(scene, stream)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0.01)


async def by_leaving_the_loop(scene: Scene, stream: Stream) -> None:
    await waiting(scene, stream)


@pytest.mark.parametrize("stop", [by_cancelling, by_a_time_out, by_leaving_the_loop])
def test_a_waiting_task_can_be_stopped(
    scene: Scene, client: Client, run: Run, stop: "Callable[[Scene, Stream], Coroutine[Any, Any, None]]"
) -> None:
    """Cancelling, a time-out and the end of the loop end the thread, if there is one, and close the connection."""
    run(stop(scene, client.stream("hi")))
    scene.let_go()


# Not with TLS: where a connection ends just before the handshake, CPython drops its socket unclosed, and warns of it.
@pytest.mark.parametrize("tls", [False])
def test_a_task_that_is_cancelled_at_once_leaves_nothing(scene: Scene, client: Client, run: Run) -> None:
    """Wherever the thread has got to by then."""

    async def main() -> None:
        task = asyncio.ensure_future(read(client.stream("hi")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@at_mid_stream
def test_closing_an_async_generator_frees_its_connection(scene: Scene, client: Client, run: Run) -> None:
    """``aclose`` stops a thread as well, if one waits for the next packet."""

    async def main() -> None:
        pieces = iterate_stream(client.stream("hi"))
        assert await pieces.__anext__() == "one"
        scene.reached()
        await pieces.aclose()
        scene.let_go()

    run(main())


def by_break(client: Client) -> None:
    with client.stream("hi") as stream:
        for _ in stream:  # pragma: no branch - it is left at once
            break


def by_closing_a_generator(client: Client) -> None:
    def pieces() -> Iterator[str]:
        with client.stream("hi") as stream:
            yield from stream  # pragma: no branch - it is closed at its first piece

    generator: Any = pieces()
    next(generator)
    generator.close()


def by_an_exception(client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        with client.stream("hi") as stream:
            len(next(stream)) / 0


def by_closing_the_stream(client: Client) -> None:
    stream = client.stream("hi")
    next(stream)
    stream.close()
    assert list(stream) == []


def by_closing_the_client(client: Client) -> None:
    stream = client.stream("hi")
    next(stream)
    client.close()
    assert list(stream) == []


def by_dropping_the_stream(client: Client) -> None:
    stream = client.stream("hi")
    next(stream)


def by_dropping_its_events(client: Client) -> None:
    next(client.stream("hi").events())


def by_breaking_without_a_with(client: Client) -> None:
    for _ in client.stream("hi"):  # pragma: no branch - it is left at once
        break


WAYS = [by_break, by_closing_a_generator, by_an_exception, by_closing_the_stream, by_closing_the_client]
if sys.implementation.name == "cpython":  # pragma: no branch - elsewhere what is dropped waits for a collection
    WAYS += [by_dropping_the_stream, by_dropping_its_events, by_breaking_without_a_with]


@at_mid_stream
@pytest.mark.parametrize("stop", WAYS)
def test_a_reader_that_has_enough_frees_the_connection(
    scene: Scene, client: Client, stop: Callable[[Client], None]
) -> None:
    """Leaving in whatever way is enough; the server sees it at once, and the reader sees no error."""
    stop(client)
    scene.let_go()


def test_a_closed_stream_that_is_kept_holds_nothing(tls: bool, ca: str) -> None:
    """Its descriptor is free although somebody still looks at its text."""
    with stuck(MID_STREAM, tls) as scene, Client(scene.key, api_url=scene.url, verify=ca) as client:
        stream = client.stream("hi")
        next(stream)
        stream.close()
    assert stream.text == "one"


def test_a_call_that_was_stopped_does_no_harm_to_the_next(tls: bool, ca: str) -> None:
    """The client goes on with a new connection."""
    with stuck(MID_STREAM, tls) as scene, Client(scene.key, api_url=scene.url, verify=ca) as client:
        by_break(client)
        assert client.ask("hi").text == "onetwo"


def test_closing_may_be_repeated_from_anywhere(tls: bool, ca: str) -> None:
    """Many threads that close the same stream at once do no harm."""
    with stuck(BEFORE_THE_HEAD, tls) as scene, Client(scene.key, api_url=scene.url, verify=ca) as client:
        stream = client.stream("hi")
        reader = Worker(lambda: list(stream))
        scene.reached()
        for closer in [Worker(stream.close) for _ in range(8)]:
            closer.result()
        with pytest.raises(StreamClosedError):
            reader.result()
        scene.let_go()


LOCKED: Dict[str, Callable[[Client], Any]] = {
    "of the connections": lambda client: client._session._transport,
    "of the tokens": lambda client: client._session._tokens._flight,
    "of the cool-down": lambda client: client._session._tokens.cooldown,
}


@pytest.mark.parametrize("owner", LOCKED.values(), ids=LOCKED)
def test_a_signal_handler_may_ask_whatever_it_interrupts(emulator: Emulator, owner: Callable[[Client], Any]) -> None:
    """It runs in the thread that it interrupts, which may hold any lock of ours at that moment."""
    with Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        emulator.fail("models", Fault.status(500))  # so that there is something to take note of
        client.models()
        emulator.expire_tokens()
        client._session._transport.close()
        with owner(client)._lock:
            assert client.ask("Hello").text == "Hello"
