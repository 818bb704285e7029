"""A blocking stream as an async iterator: the loop itself reads it, never waits, and loses nothing."""

import asyncio
import contextlib
import contextvars
import threading
import time
from pathlib import Path
from typing import Any, AsyncGenerator, Awaitable, Callable, Iterator, List
from unittest import mock

import pytest
from loops import KINDS, THREADS, Run, have_patience_with_threads, helpers, in_thread, runner
from streams import ONE
from support import PATIENCE, Peer, Server, authority_file, nothing_left_open, server_context, wait_for, wait_until

from copilot_sync import Client, RequestTimeoutError, ServerError, Stream, Timeout
from copilot_sync.aio import AsyncReader, iterate_stream, loop_watch
from copilot_sync.aio.reader import text_of, text_or_conversation
from copilot_sync.aio.threads import run_in_thread
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.stream_steps import READ_AHEAD

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one", "two"])) as served:
            yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None) as opened:
        yield opened


async def collect(items: "AsyncGenerator[Any, None]") -> List[Any]:
    return [item async for item in items]


def stream_from(client: Client, **options: Any) -> Stream:
    """A stream of a service that knows nothing but the message."""
    return client.stream("hi", conversation="t-1", parent_message_id="root", **options)


def test_a_task_gets_the_very_pieces_that_a_thread_would(emulator: Emulator, client: Client, run: Run) -> None:
    """One implementation, two colours."""
    emulator.reply = Reply(["Hel", "lo", " 🎉"])
    assert run(collect(iterate_stream(client.stream("hi")))) == list(client.stream("hi")) == ["Hel", "lo", " 🎉"]


def test_all_items_come_once_and_in_order(emulator: Emulator, client: Client, run: Run) -> None:
    """However the service and the task fall behind each other."""
    count = 20 * READ_AHEAD
    emulator.reply = Reply(map("{} ".format, range(count)))

    async def main() -> List[int]:
        received: List[int] = []
        async for piece in iterate_stream(client.stream("hi")):
            received.append(int(piece))
            if received[-1] % 1000 == 0:
                await asyncio.sleep(0.001)
        return received

    assert run(main()) == list(range(count))


def test_an_answer_over_tls_is_whole(run: Run, tmp_path: Path) -> None:
    """OpenSSL may hold bytes already of which the kernel says nothing any more."""
    pieces = ["x" * 60_000, "y" * 60_000, "z"]
    ca = authority_file(tmp_path)
    with nothing_left_open(), Emulator(reply=Reply(pieces), ssl_context=server_context()) as emulator:
        with Client(emulator.api_key, api_url=emulator.api_url, verify=ca, retry=None) as client:
            assert run(collect(iterate_stream(client.stream("hi")))) == pieces


def test_nothing_happens_before_the_first_item_is_asked_for(emulator: Emulator, client: Client, run: Run) -> None:
    """No thread is started and nothing is sent."""

    async def main() -> None:
        threads = threading.active_count()
        pieces = iterate_stream(client.stream("hi"))
        await asyncio.sleep(0)
        assert (threading.active_count(), emulator.requests) == (threads, [])
        assert await pieces.__anext__() == "one"
        assert emulator.requests != []
        await pieces.aclose()

    run(main())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != THREADS])
@pytest.mark.parametrize("stage", ["before the head", "between two pieces"])
def test_no_thread_waits_for_the_service(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch, kind: str, stage: str
) -> None:
    """From the moment the question is sent there is none, however long the service thinks."""
    emulator.fail("message", Fault.stall() if stage == "before the head" else Fault.stall(("after_events", 1)))

    async def main() -> None:
        task = asyncio.ensure_future(collect(iterate_stream(client.stream("hi"))))
        assert await in_thread(emulator.wait_until, lambda: emulator.stalled, PATIENCE)
        await in_thread(wait_until, lambda: not helpers())
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})

    runner(kind, monkeypatch)(main())


def test_a_loop_that_can_not_watch_has_a_thread_wait(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of Windows. There is one at most, and closing waits for its end."""
    have_patience_with_threads(monkeypatch)
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        assert await pieces.__anext__() == "one"
        waiting = asyncio.ensure_future(pieces.__anext__())
        assert await in_thread(emulator.wait_until, lambda: emulator.stalled, PATIENCE)
        await in_thread(wait_until, lambda: len(helpers()) == 1)
        waiting.cancel()
        await asyncio.wait({waiting})
        helper = pieces._helper
        assert helper is not None
        await pieces.aclose()
        assert not helper._thread.is_alive()
        await in_thread(wait_until, lambda: not helpers())  # the one before it may need a moment on a busy machine

    runner(THREADS, monkeypatch)(main())


def test_loops_say_whether_they_can_watch() -> None:
    """What has nothing of its own to watch a socket with can't."""

    class Proactor(asyncio.BaseEventLoop):
        """As that of Windows is made."""

    class Foreign:
        """Not even made of asyncio's."""

    with contextlib.closing(asyncio.SelectorEventLoop()) as loop:
        assert loop_watch.watches_sockets(loop)
    with contextlib.closing(Proactor()) as other:
        assert not loop_watch.watches_sockets(other)
    assert not loop_watch.watches_sockets(Foreign())  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OSError("too many"), ValueError("too high"), RuntimeError("a transport's")], ids=str)
def test_a_loop_that_refuses_a_socket_has_a_thread_wait(emulator: Emulator, client: Client, error: Exception) -> None:
    """Such as one that is full: ``select`` knows no descriptor above 1023."""
    refused = threading.Event()

    def pieces() -> Iterator[str]:
        yield "one"
        wait_for(refused)
        yield "two"

    def refuse(*args: Any) -> None:
        refused.set()
        raise error

    async def main() -> None:
        with mock.patch.object(asyncio.get_running_loop(), "add_reader", refuse):
            assert await collect(iterate_stream(client.stream("hi"))) == ["one", "two"]

    emulator.reply = Reply(pieces())
    asyncio.run(main())


@pytest.mark.parametrize("known", [False, True], ids=["a new conversation", "a known one"])
def test_what_the_stream_calls_sees_the_context_of_who_asks_first(client: Client, run: Run, known: bool) -> None:
    """Context variables are those of the task that iterates; what the callback sets stays its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: List[str] = []

    def note(conversation: Any) -> None:
        seen.append(variable.get())
        variable.set("the callback's")

    conversation = client.create_thread() if known else None

    async def main() -> None:
        pieces = iterate_stream(client.stream("hi", conversation=conversation, on_start=note))
        variable.set("the task's")
        assert await collect(pieces) == ["one", "two"]
        assert variable.get() == "the task's"

    run(main())
    assert seen == ["the task's"]


@pytest.mark.parametrize("go_on", [True, False], ids=["reading on", "closing"])
def test_only_so_much_is_read_ahead_of_a_task_that_falls_behind(run: Run, go_on: bool) -> None:
    """All of it comes in the end; closing needs no more of it."""
    count = 8 * READ_AHEAD
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(HEAD + ONE * count + b"data: [DONE]\n\n")
        sent.set()

    async def main(stream: Stream) -> None:
        pieces = AsyncReader(stream, text_of)
        assert await pieces.__anext__() == "one"
        await in_thread(wait_for, sent)
        for _ in range(100):  # were it to read on, it would by now
            await asyncio.sleep(0)
        await in_thread(wait_until, lambda: not helpers())
        # The thread that waits for a packet on some loops brings so many items itself.
        assert READ_AHEAD <= len(stream.text) / 3 <= 2 * READ_AHEAD + 1
        if go_on:
            assert [piece async for piece in pieces] == ["one"] * (count - 1)
        await pieces.aclose()

    with nothing_left_open(), Server(script) as server, Client("key", api_url=server.url) as client:
        run(main(stream_from(client)))


def test_the_loop_goes_on_while_the_service_is_silent(emulator: Emulator, client: Client, run: Run) -> None:
    """Other tasks run between two pieces."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> int:
        pieces = iterate_stream(client.stream("hi"))
        assert await pieces.__anext__() == "one"
        task = asyncio.ensure_future(pieces.__anext__())
        stalled = asyncio.ensure_future(in_thread(emulator.wait_until, lambda: emulator.stalled, PATIENCE))
        turns = 0
        while turns < 100 or not stalled.done():
            await asyncio.sleep(0)
            turns += 1
        task.cancel()
        await asyncio.wait({task})
        return turns

    assert run(main()) >= 100


def test_a_wait_that_was_given_up_loses_nothing(run: Run) -> None:
    """What comes after a time-out, or while nobody waits, is handed out to whoever asks next."""
    go_on = [threading.Event() for _ in range(2)]

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(HEAD + ONE)
        for event, piece in zip(go_on, [b"two", b"three"]):
            wait_for(event)
            peer.send(ONE.replace(b"one", piece))

    async def main(stream: Stream) -> None:
        pieces = AsyncReader(stream, text_of)
        assert await pieces.__anext__() == "one"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pieces.__anext__(), 0.01)
        go_on[0].set()
        assert await pieces.__anext__() == "two"
        waiting = asyncio.ensure_future(pieces.__anext__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        go_on[1].set()
        await in_thread(wait_until, lambda: stream.text == "onetwothree")
        assert await pieces.__anext__() == "three"
        await pieces.aclose()

    with nothing_left_open(), Server(script) as server, Client("key", api_url=server.url) as client:
        run(main(stream_from(client)))


def test_a_wait_for_a_while_returns_all_that_has_come(emulator: Emulator, client: Client, run: Run) -> None:
    """Also what iterating has left over; at the end it says so."""
    emulator.reply = Reply(list("0123456789"))

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        assert await pieces.__anext__() == "0"
        rest: List[str] = []
        with pytest.raises(StopAsyncIteration):
            while True:
                rest += await pieces.take(PATIENCE)
        assert rest == list("123456789")

    run(main())


def test_a_wait_for_a_while_ends_without_anything(emulator: Emulator, client: Client, run: Run) -> None:
    """And nothing is lost by it."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        assert await pieces.take(PATIENCE) == ["one"]
        begun = time.monotonic()
        assert await pieces.take(0.05) == []
        assert 0.04 < time.monotonic() - begun < PATIENCE
        waiting = asyncio.ensure_future(pieces.take(PATIENCE))
        await asyncio.sleep(0)
        pieces.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        await pieces.aclose()

    run(main())


def test_a_reader_may_hand_out_the_conversation_as_well(client: Client, run: Run) -> None:
    """It comes first, and is that of the answer."""

    async def main() -> None:
        stream = client.stream("hi")
        conversation, *pieces = [item async for item in AsyncReader(stream, text_or_conversation)]
        assert (conversation, pieces) == (stream.conversation, ["one", "two"])

    run(main())


def test_a_second_task_is_refused(emulator: Emulator, client: Client, run: Run) -> None:
    """As a second thread would be; the first goes on to wait."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        assert await pieces.__anext__() == "one"
        first = asyncio.ensure_future(pieces.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task at a time"):
            await pieces.__anext__()
        with pytest.raises(RuntimeError, match="one task at a time"):
            await pieces.take(0.01)
        assert not first.done()
        await pieces.aclose()
        with pytest.raises(StopAsyncIteration):
            await first

    run(main())


def test_another_loop_is_refused(emulator: Emulator, client: Client, run: Run) -> None:
    """The connection is watched by the one that began; what has come is handed out."""
    emulator.reply = Reply(["piece"] * 8 * READ_AHEAD)

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        assert await pieces.__anext__() == "piece"
        await in_thread(wait_until, lambda: pieces._is_idle)
        with pytest.raises(RuntimeError, match="another event loop"):
            await in_thread(asyncio.run, drain(pieces))
        await pieces.aclose()

    async def drain(pieces: "AsyncReader[str]") -> None:
        while True:
            assert await pieces.__anext__() == "piece"

    run(main())


def test_another_loop_is_refused_while_the_first_reads_on(emulator: Emulator, client: Client, run: Run) -> None:
    """It would wait by what only the first one may touch."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        assert await pieces.__anext__() == "one"
        for ask in (pieces.__anext__, lambda: pieces.take(0.01)):
            with pytest.raises(RuntimeError, match="another event loop"):
                await in_thread(asyncio.run, awaited(ask))
        await pieces.aclose()

    async def awaited(ask: Callable[[], Awaitable[Any]]) -> None:
        await ask()

    run(main())


@pytest.mark.parametrize("known", [False, True], ids=["a new conversation", "a known one"])
@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__
)
def test_what_the_stream_raises_reaches_the_task(client: Client, run: Run, known: bool, error: BaseException) -> None:
    """It is the very exception, whatever its kind, and the task may catch it. Nothing is left open."""
    conversation = client.create_thread() if known else None

    def fail(conversation: Any) -> None:
        raise error

    async def main() -> None:
        with pytest.raises(type(error)) as caught:
            await collect(iterate_stream(client.stream("hi", conversation=conversation, on_start=fail)))
        assert caught.value is error

    run(main())


def test_an_error_of_the_service_comes_after_the_items_before_it(emulator: Emulator, client: Client, run: Run) -> None:
    """With the text so far, as in a thread, and once: then the stream has ended."""
    emulator.script(Reply(["one", "two"], error="boom"))

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        received: List[str] = []
        with pytest.raises(ServerError, match="boom") as caught:
            async for piece in pieces:
                received.append(piece)
        assert (received, caught.value.partial) == (["one", "two"], "onetwo")
        with pytest.raises(StopAsyncIteration):
            await pieces.__anext__()

    run(main())


def test_an_error_that_comes_while_nobody_asks_is_kept(emulator: Emulator, run: Run) -> None:
    """Whoever asks next gets it, after the items."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    limit = Timeout(read=0.2)

    async def main(client: Client) -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        assert await pieces.__anext__() == "one"
        await in_thread(emulator.wait_until, lambda: emulator.disconnects, PATIENCE)
        with pytest.raises(RequestTimeoutError):
            await pieces.__anext__()

    with Client(emulator.api_key, api_url=emulator.api_url, retry=None, resume=False, timeout=limit) as client:
        run(main(client))


@pytest.fixture
def _many_descriptors() -> Iterator[None]:
    """Allow both ends of 500 connections in one process."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("_many_descriptors")
def test_hundreds_of_generators_run_at_once_on_one_loop(emulator: Emulator, client: Client, run: Run) -> None:
    """All answers are whole and their own; threads and descriptors are back where they were."""
    count, events = 300, 10
    all_are_there = threading.Barrier(count, timeout=PATIENCE * 10)

    def answer(prompt: str) -> Iterator[str]:
        all_are_there.wait()
        for number in range(events):
            yield f"{prompt}:{number} "

    async def read(number: int) -> None:
        pieces = await collect(iterate_stream(client.stream(str(number), conversation=thread)))
        assert pieces == [f"{number}:{event} " for event in range(events)]

    async def main() -> None:
        await asyncio.gather(*(read(number) for number in range(count)))

    thread = client.create_thread().conversation_id
    emulator.reply = Reply(answer)
    run(main())
    assert not all_are_there.broken


def test_the_blocking_face_works_inside_a_running_loop(client: Client, run: Run) -> None:
    """As in a notebook: nothing of it touches asyncio."""

    async def main() -> None:
        assert client.ask("hi").text == "onetwo"
        assert list(client.stream("hi")) == ["one", "two"]

    run(main())


def test_bytes_that_come_while_a_thread_helps_are_its_business(client: Client, emulator: Emulator) -> None:
    """Its end goes on."""
    emulator.fail("thread", Fault.delay(0.2))

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi", on_start=bool), text_of)
        waiting = asyncio.ensure_future(pieces.__anext__())
        while not helpers():
            await asyncio.sleep(0.01)
        pieces.on_ready()
        assert not waiting.done()
        assert await waiting == "one"
        await pieces.aclose()

    asyncio.run(main())


def test_a_function_that_has_ended_when_it_is_cancelled_is_not_waited_for() -> None:
    """Its thread has."""
    may_end = threading.Event()

    def cancel() -> None:
        may_end.set()
        wait_until(lambda: not helpers())

    async def main() -> None:
        running = asyncio.ensure_future(run_in_thread(may_end.wait, cancel))
        while not helpers():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
