"""Every way in which an asynchronous reader may end: closed, left, dropped or forgotten, nothing of it stays behind."""

import asyncio
import contextlib
import contextvars
import gc
import platform
import socket
import threading
import warnings
import weakref
from typing import Any, AsyncGenerator, Callable, Iterator, List
from unittest import mock

import pytest
from loops import ASYNCIO, THREADS, Run, helpers, in_thread, runner
from streams import ONE
from support import PATIENCE, Peer, Server, Worker, collect_garbage, nothing_left_open, wait_for, wait_until

from copilot_sync import Client, GithubCopilot, Stream, StreamClosedError, os_threads, provider
from copilot_sync.aio import AsyncReader, helper_queue, iterate_stream
from copilot_sync.aio.reader import text_of
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.stepping import Watch

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
BEFORE_THE_HEAD, BETWEEN_TWO_PIECES = Fault.stall(), Fault.stall(("after_events", 1))


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


async def is_stalled(emulator: Emulator) -> bool:
    return await in_thread(emulator.wait_until, lambda: emulator.stalled, PATIENCE)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """What the block drops has to be free at its end, on CPython by itself."""
    gc.collect()
    gc.disable()
    try:
        yield
        if platform.python_implementation() != "CPython":  # pragma: no cover - only there it needs a collection
            collect_garbage()
    finally:
        gc.enable()


def test_an_exception_of_the_consumer_closes_the_stream(emulator: Emulator, client: Client, run: Run) -> None:
    """With ``aclosing`` or its like, which every loop that can be left early should have."""
    emulator.fail("message", BETWEEN_TWO_PIECES)

    async def main() -> None:
        pieces = iterate_stream(client.stream("hi"))
        try:
            async for piece in pieces:
                raise KeyError(piece)
        finally:
            await pieces.aclose()

    with pytest.raises(KeyError, match="one"):
        run(main())
    assert emulator.wait_until(lambda: emulator.disconnects)


@pytest.mark.parametrize("fault", [BEFORE_THE_HEAD, BETWEEN_TWO_PIECES], ids=["before the head", "between two pieces"])
@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["in the loop", "in another thread"])
def test_closing_the_stream_itself_ends_the_task(
    emulator: Emulator, client: Client, run: Run, fault: Fault, is_elsewhere: bool
) -> None:
    """A task that reads is another reader than whoever closes, so it is told, with the text so far."""
    emulator.fail("message", fault)

    async def main() -> None:
        stream = client.stream("hi")
        task = asyncio.ensure_future(collect(iterate_stream(stream)))
        assert await is_stalled(emulator)
        if fault is BETWEEN_TWO_PIECES:
            await in_thread(wait_until, lambda: stream.text == "one")
        if is_elsewhere:
            await in_thread(stream.close)
        else:
            stream.close()
        with pytest.raises(StreamClosedError, match="another task or thread") as caught:
            await task
        assert caught.value.partial == stream.text
        assert await in_thread(emulator.wait_until, lambda: emulator.disconnects, PATIENCE)

    run(main())


def test_closing_the_reader_ends_the_task_in_silence(emulator: Emulator, client: Client, run: Run) -> None:
    """Whoever closes what it reads wants no more of it. It may be closed any number of times, from anywhere."""
    emulator.fail("message", BETWEEN_TWO_PIECES)

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        assert await pieces.__anext__() == "one"
        waiting = asyncio.ensure_future(pieces.__anext__())
        await asyncio.sleep(0)
        await in_thread(pieces.close)
        with pytest.raises(StopAsyncIteration):
            await waiting
        pieces.close()
        await pieces.aclose()
        await pieces.aclose()
        with pytest.raises(StopAsyncIteration):
            await pieces.__anext__()

    run(main())
    assert emulator.wait_until(lambda: emulator.disconnects)


def test_items_that_had_come_are_there_after_closing(client: Client, run: Run) -> None:
    """What was read is not taken back."""

    async def main() -> None:
        stream = client.stream("hi")
        pieces = AsyncReader(stream, text_of)
        assert await pieces.__anext__() == "one"
        await in_thread(wait_until, lambda: stream.text == "onetwo")
        await pieces.aclose()
        assert [piece async for piece in pieces] == ["two"]

    run(main())


def test_a_failure_that_nobody_meets_keeps_nothing_alive(emulator: Emulator, client: Client, run: Run) -> None:
    """Leaving a stream early ends it with an error; what it used goes without garbage collection."""
    emulator.fail("message", BETWEEN_TWO_PIECES)
    kept: List[Callable[[], object]] = []

    async def main() -> None:
        stream = client.stream("hi")
        reader = AsyncReader(stream, text_of)
        kept.extend([weakref.ref(stream), weakref.ref(reader)])
        assert await reader.__anext__() == "one"
        assert await is_stalled(emulator)
        await reader.aclose()

    with without_garbage_collection():
        run(main())
    assert [each() for each in kept] == [None, None]


def test_a_stream_that_was_read_keeps_nothing_alive(client: Client, run: Run) -> None:
    """Neither does the loop hold what a context variable held, such as the request of a page, while it runs on."""

    class Page:
        pass

    async def read() -> None:
        contextvars.ContextVar[Page]("variable").set(page())
        reader = AsyncReader(client.stream("hi"), text_of)
        kept.append(weakref.ref(reader))
        assert [piece async for piece in reader] == ["one", "two"]

    def page() -> Page:
        made = Page()
        kept.append(weakref.ref(made))
        return made

    async def main() -> None:
        await contextvars.Context().run(asyncio.ensure_future, read())
        await in_thread(wait_until, is_free)  # a thread that helped may be left

    def is_free() -> bool:
        if platform.python_implementation() != "CPython":  # pragma: no cover - only there it needs a collection
            collect_garbage()
        return [each() for each in kept] == [None, None]

    kept: List[Callable[[], object]] = []
    with without_garbage_collection():
        run(main())
    assert len(kept) == 2


def test_closing_does_not_wait_for_ever(
    emulator: Emulator, client: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread in a DNS look-up can't be interrupted. It is left to end by itself."""
    looking, go_on = threading.Event(), threading.Event()
    look_up = socket.getaddrinfo

    def slow(*args: Any) -> Any:
        looking.set()
        wait_for(go_on)
        return look_up(*args)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def main() -> None:
        pieces = iterate_stream(client.stream("hi"))
        task = asyncio.ensure_future(pieces.__anext__())
        await in_thread(wait_for, looking)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert not go_on.is_set()
        go_on.set()

    run(main())
    assert "message" not in [request.stage for request in emulator.requests]


def test_a_generator_that_is_dropped_closes_its_stream(emulator: Emulator, client: Client, run: Run) -> None:
    """The loop finalizes it, and the server sees it."""
    emulator.fail("message", BETWEEN_TWO_PIECES)

    async def main() -> None:
        async for _ in iterate_stream(client.stream("hi")):  # pragma: no branch - it is left at once
            break
        collect_garbage()
        assert await in_thread(emulator.wait_until, lambda: emulator.disconnects, PATIENCE)

    run(main())


def test_a_reader_that_is_dropped_closes_its_stream(emulator: Emulator, client: Client, run: Run) -> None:
    """Also while the loop watches its connection, and while a thread waits for it."""
    emulator.fail("message", BETWEEN_TWO_PIECES)

    async def main() -> None:
        reader = AsyncReader(client.stream("hi"), text_of)
        assert await reader.__anext__() == "one"
        assert await is_stalled(emulator)
        del reader
        collect_garbage()
        assert await in_thread(emulator.wait_until, lambda: emulator.disconnects, PATIENCE)

    run(main())


def left_between_two_items(loop: asyncio.AbstractEventLoop, items: "AsyncGenerator[str, None]") -> None:
    async def first() -> None:
        assert await items.__anext__() == "one"

    loop.run_until_complete(first())


def left_while_waiting(loop: asyncio.AbstractEventLoop, items: "AsyncGenerator[str, None]") -> None:
    task: Any = loop.create_task(collect(items))
    task._log_destroy_pending = False  # that it is dropped is the point
    loop.run_until_complete(asyncio.sleep(0))


def left_by_a_loop_that_knows_it_not(loop: asyncio.AbstractEventLoop, items: "AsyncGenerator[str, None]") -> None:
    assert loop.run_until_complete(items.__anext__()) == "one"


@pytest.mark.parametrize("kind", [ASYNCIO, THREADS])
@pytest.mark.parametrize(
    "leave, stage, fault",
    [
        (left_between_two_items, "message", BETWEEN_TWO_PIECES),
        (left_by_a_loop_that_knows_it_not, "message", BETWEEN_TWO_PIECES),
        (left_while_waiting, "message", BETWEEN_TWO_PIECES),
        (left_while_waiting, "message", BEFORE_THE_HEAD),
        (left_while_waiting, "thread", BEFORE_THE_HEAD),
    ],
    ids=["between two items", "by a loop that knows it not", "waiting", "before the head", "while a thread helps"],
)
def test_a_loop_that_is_closed_without_a_word_leaves_nothing(
    emulator: Emulator,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    leave: Any,
    stage: str,
    fault: Fault,
    kind: str,
) -> None:
    """Nobody runs the generator to its end then; dropping it is enough."""
    runner(kind, monkeypatch)
    emulator.fail(stage, fault)

    def use_a_loop() -> None:
        loop = asyncio.new_event_loop()
        pieces = iterate_stream(client.stream("hi"))
        leave(loop, pieces)
        assert loop.run_until_complete(is_stalled(emulator))
        loop.close()
        del pieces

    use_a_loop()
    # A thread that helped may hold what is left for a moment longer.
    wait_until(lambda: collect_garbage() or bool(emulator.disconnects))


def test_garbage_collection_comes_to_the_reader_before_its_connection(emulator: Emulator, client: Client) -> None:
    """Whatever is older: a connection that a loop watches is closed by its stream, and not found open."""
    conversation = client.ask("hi").conversation
    emulator.fail("message", BEFORE_THE_HEAD)
    collect_garbage()
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always", ResourceWarning)
        loop = asyncio.new_event_loop()
        left_while_waiting(loop, iterate_stream(client.stream("hi", conversation=conversation)))
        assert loop.run_until_complete(is_stalled(emulator))
        loop.close()
        del loop
        collect_garbage()
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)
    assert [str(complaint.message) for complaint in complaints] == []


def test_a_thread_that_finds_its_loop_closed_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has nobody to wait for, though somebody still holds the reader. It closes the connection."""
    runner(THREADS, monkeypatch)
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(HEAD + ONE)
        wait_for(go_on)
        peer.send(ONE)
        peer.wait_closed()

    with nothing_left_open(), Server(script) as server, Client("key", api_url=server.url) as client:
        reader = AsyncReader(client.stream("hi", conversation="t-1", parent_message_id="root"), text_of)

        async def first(reader: "AsyncReader[str]") -> None:
            assert await reader.__anext__() == "one"

        loop = asyncio.new_event_loop()
        loop.run_until_complete(first(reader))
        loop.close()
        go_on.set()
        wait_for(server.peer_closed)
        del reader


def test_loops_that_have_ended_are_forgotten(client: Client) -> None:
    """A web worker may run a loop for each request."""
    loops: List[Any] = []
    conversation = client.create_thread().conversation_id

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        streams = [client.stream("hi", conversation=conversation) for _ in range(5)]
        await asyncio.gather(*(collect(iterate_stream(stream)) for stream in streams))

    for _ in range(3):
        asyncio.run(main())
    list(map(threading.Thread.join, helpers()))
    collect_garbage()
    assert [loop() for loop in loops] == [None] * 3


def test_a_loop_that_ends_has_nothing_to_complain_of(emulator: Emulator, client: Client, run: Run) -> None:
    """What is still held when ``asyncio.run`` ends is closed once, in good order, whichever face it came from."""
    emulator.fail("message", *[BETWEEN_TWO_PIECES] * 2)
    complain = mock.Mock()
    held: List[Any] = []
    urls = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    messages = [{"role": "user", "content": "one two"}]

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(complain)
        held.append(iterate_stream(client.stream("one two")))
        held.append(GithubCopilot.create_async_generator("", messages, stream=True, cookies=emulator.cookies, **urls))
        for items in held:
            await items.__anext__()
        assert await in_thread(emulator.wait_until, lambda: emulator.stalled == 2, PATIENCE)

    run(main())
    assert complain.mock_calls == []
    assert emulator.wait_until(lambda: len(emulator.disconnects) == 2)
    provider._clients.close()


def test_a_number_that_is_free_again_is_not_watched(client: Client, run: Run) -> None:
    """The next connection of the loop may well get the number of the one before, and is watched as its own."""
    conversation = client.create_thread().conversation_id

    async def main() -> None:
        for _ in range(10):
            assert await collect(iterate_stream(client.stream("hi", conversation=conversation))) == ["one", "two"]
            client._session._transport.close()

    run(main())


def test_a_stream_that_is_stopped_before_the_head_is_watched_no_more(
    emulator: Emulator, client: Client, run: Run
) -> None:
    """If the loop itself has sent the question, it watches from then on, and forgets the number before it is free."""
    conversation = client.ask("hi").conversation
    emulator.fail("message", BEFORE_THE_HEAD)
    stream = client.stream("hi", conversation=conversation)

    async def main() -> None:
        reader = AsyncReader(stream, text_of)
        assert await reader.take(0.01) == []
        assert await is_stalled(emulator)
        number = stream._call.attached.fileno()
        reader.close()
        assert not asyncio.get_running_loop().remove_reader(number)
        await reader.aclose()

    run(main())
    assert emulator.wait_until(lambda: emulator.disconnects)


def test_what_another_thread_is_about_to_close_is_not_watched(emulator: Emulator, client: Client) -> None:
    """A loop that began to watch at that moment would have its watch ended in the other thread."""
    emulator.fail("message", BETWEEN_TWO_PIECES)
    stream = client.stream("hi")
    assert next(stream) == "one"
    watched: List[Any] = []

    class Hesitating(Watch):
        def begin(self, sock: Any, time_left: Callable[[], float]) -> bool:
            watched.append(sock)  # pragma: no cover - it is not called
            return True  # pragma: no cover

        def closes(self, close: Callable[[], None]) -> bool:
            assert Worker(stream._steps.wait).result()
            return False

    stream._steps.watched_by(Hesitating())
    stream._steps.close_driver()
    assert (watched, emulator.wait_until(lambda: emulator.disconnects)) == ([], True)
    stream.close()


def test_a_reader_that_was_never_asked_has_nothing_to_close(emulator: Emulator, client: Client, run: Run) -> None:
    """Neither when it is closed nor when it is dropped."""

    async def main() -> None:
        reader = AsyncReader(client.stream("hi"), text_of)
        await reader.aclose()
        with pytest.raises(StopAsyncIteration):
            await reader.__anext__()
        AsyncReader(client.stream("hi"), text_of).close()

    run(main())
    assert emulator.requests == []


def test_a_stream_that_another_began_is_read_on(client: Client, run: Run) -> None:
    """``start``, or some of its pieces, may have been asked for by a thread before."""

    def begun() -> Stream:
        stream = client.stream("hi")
        assert stream.start()
        assert next(stream) == "one"
        return stream

    async def main() -> None:
        assert await collect(iterate_stream(await in_thread(begun))) == ["two"]

    run(main())


def test_a_stream_that_is_closed_while_its_events_are_taken_is_over(
    emulator: Emulator, client: Client, run: Run
) -> None:
    """By another thread, which leaves what is open to the loop."""
    closed = threading.Event()

    def script() -> Iterator[str]:
        yield from ("one", "two", "three")
        wait_for(closed)

    emulator.reply = Reply(script())

    async def main() -> None:
        stream = client.stream("hi")

        def pick(item: Any) -> Any:
            text = text_of(item)
            if text == "two":
                Worker(stream.close).result()
                closed.set()
            return text

        pieces = AsyncReader(stream, pick)
        with pytest.raises(StreamClosedError):
            while True:
                assert await pieces.__anext__() in ("one", "two", "three")  # which may have come with "two"
        await pieces.aclose()

    run(main())


def test_of_readers_that_begin_at_once_none_starts_in_vain(
    emulator: Emulator, client: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose turn to start a thread comes when it is over starts none."""
    monkeypatch.setattr(helper_queue, "AT_ONCE", 1)
    monkeypatch.setattr(helper_queue, "MOMENT", PATIENCE)

    async def main() -> None:
        readers = [AsyncReader(client.stream("hi"), text_of) for _ in range(3)]
        waiters = [reader._begin_wait() for reader in readers]
        readers.pop().close()
        collect_garbage()
        readers[1].close()
        while emulator.requests == []:
            await asyncio.sleep(0.001)
        assert await readers[0].__anext__() == "one"
        with pytest.raises(StopAsyncIteration):
            await readers[1].__anext__()
        assert len(waiters) == 3
        for reader in readers:
            await reader.aclose()

    run(main())
    assert len([request for request in emulator.requests if request.stage == "thread"]) == 1


def test_a_reader_that_can_have_no_thread_says_so(client: Client, run: Run) -> None:
    """At once, by the error of the system."""

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        refused = RuntimeError("can't start new thread")
        with mock.patch.object(os_threads._thread, "start_new_thread", side_effect=refused):
            with pytest.raises(RuntimeError, match="can't start"):
                await pieces.__anext__()

    run(main())
