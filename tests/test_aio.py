"""A blocking stream as an async iterator: the loop never waits, and no thread is left."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import platform
import threading
import time
import weakref
from typing import Any, AsyncGenerator, Iterator, List
from unittest import mock

import pytest
from copilot_sync.reader_thread import READ_AHEAD
from support import PATIENCE, collect_garbage, nothing_left_open, wait_for

from copilot_sync import Client, GithubCopilot, ServerError, StreamClosedError, aio, provider
from copilot_sync.aio import AsyncReader, iterate_stream
from copilot_sync.emulator import Emulator, Fault, Reply


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one", "two"])) as served:
            yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None) as opened:
        yield opened


def do_nothing() -> None:
    """Closes nothing."""


async def collect(items: "AsyncGenerator[Any, None]") -> List[Any]:
    return [item async for item in items]


@contextlib.contextmanager
def joined_threads() -> Iterator[None]:
    """Check that all threads that the block began end."""
    threads = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - threads
    list(map(functools.partial(threading.Thread.join, timeout=PATIENCE), left))
    assert not any(map(threading.Thread.is_alive, left))


class RateLimiter:
    """An iterator that blocks until it is closed, as a read of a socket does."""

    def __init__(self, *first: str) -> None:
        self._first = list(first)
        self.closed = threading.Event()
        self.blocked = threading.Event()
        self.ended = threading.Event()

    def __iter__(self) -> "RateLimiter":
        return self

    def __next__(self) -> str:
        if self._first:
            return self._first.pop(0)
        self.blocked.set()
        wait_for(self.closed)
        self.ended.set()
        raise StopIteration

    def close(self) -> None:
        self.closed.set()


class Choir:
    """Readers whose items all come at once, as often as ``sing`` is called."""

    def __init__(self, count: int) -> None:
        self._ended = threading.Semaphore(0)
        self._begin, self._is_out = (threading.Barrier(count + 1, timeout=3 * PATIENCE) for _ in range(2))
        self.readers = [AsyncReader(self._items(), do_nothing) for _ in range(count)]

    def _items(self) -> Iterator[str]:
        with contextlib.suppress(threading.BrokenBarrierError):
            try:
                while True:
                    self._begin.wait()
                    yield "item"
                    self._is_out.wait()  # asked for the next one, the reader has handed this one over
            finally:
                self._ended.release()

    async def assemble(self) -> None:
        """Wait until all have been asked for their first item."""
        while self._begin.n_waiting < len(self.readers):
            await asyncio.sleep(0)

    def begin(self) -> None:
        """Have each give an item."""
        self._begin.wait()

    def sing(self) -> None:
        """Have each give an item, and wait until all are handed over."""
        self.begin()
        self._is_out.wait()

    def stop(self) -> None:
        """Have all end."""
        self._begin.abort()

    def wait_for_the_end(self) -> None:
        """Wait until all have ended."""
        for _ in self.readers:
            assert self._ended.acquire(timeout=PATIENCE)


def test_a_task_gets_the_very_pieces_that_a_thread_would(emulator: Emulator, client: Client) -> None:
    """One implementation, two colours."""
    emulator.reply = Reply(["Hel", "lo", " 🎉"])
    assert (
        asyncio.run(collect(iterate_stream(client.stream("hi")))) == list(client.stream("hi")) == ["Hel", "lo", " 🎉"]
    )


def test_all_items_come_once_and_in_order() -> None:
    """However the thread and the loop fall behind each other."""
    count = 20 * READ_AHEAD

    async def main() -> List[int]:
        received: List[int] = []
        async for item in AsyncReader(iter(range(count)), do_nothing):
            received.append(item)
            if item % 1000 == 0:
                await asyncio.sleep(0.001)
        return received

    with nothing_left_open():
        assert asyncio.run(main()) == list(range(count))


def test_nothing_happens_before_the_first_item_is_asked_for(emulator: Emulator, client: Client) -> None:
    """No thread is started and nothing is sent."""

    async def main() -> None:
        threads = threading.active_count()
        pieces = iterate_stream(client.stream("hi"))
        await asyncio.sleep(0)
        assert (threading.active_count(), emulator.requests) == (threads, [])
        assert await pieces.__anext__() == "one"
        assert emulator.requests != []
        await pieces.aclose()

    asyncio.run(main())


def test_the_thread_sees_the_context_of_who_asks_first() -> None:
    """Context variables are those of the task that iterates; what the thread sets stays its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def items() -> Iterator[str]:
        yield variable.get()
        variable.set("the thread's")
        yield variable.get()

    async def main() -> None:
        generator = AsyncReader(items(), do_nothing)
        variable.set("the task's")
        assert await collect(generator) == ["the task's", "the thread's"]
        assert variable.get() == "the task's"

    asyncio.run(main())


@pytest.mark.parametrize("go_on", [True, False], ids=["reading on", "closing"])
def test_the_thread_waits_for_a_consumer_that_falls_behind(go_on: bool) -> None:
    """Only so many items are read ahead; all of them come in the end, and closing ends the wait."""
    full = threading.Event()
    made: List[int] = []

    def items() -> Iterator[int]:
        for number in range(4 * READ_AHEAD):
            made.append(number)
            if number == READ_AHEAD:
                full.set()
            yield number

    async def main() -> None:
        generator = AsyncReader(items(), do_nothing)
        assert await generator.__anext__() == 0
        wait_for(full)
        time.sleep(0.05)  # were the thread not waiting, it would be through by now
        assert len(made) <= 2 * READ_AHEAD + 1
        if go_on:
            assert await collect(generator) == list(range(1, 4 * READ_AHEAD))
        await generator.aclose()

    with nothing_left_open():
        asyncio.run(main())
    assert (len(made) == 4 * READ_AHEAD) == go_on


def test_the_loop_goes_on_while_the_thread_is_blocked() -> None:
    """Other tasks run between two pieces."""

    async def main() -> int:
        gate = RateLimiter("one")
        generator = AsyncReader(gate, gate.close)
        assert await generator.__anext__() == "one"
        task = asyncio.ensure_future(generator.__anext__())
        turns = 0
        while turns < 100 or not gate.blocked.is_set():
            await asyncio.sleep(0)
            turns += 1
        gate.close()
        with pytest.raises(StopAsyncIteration):
            await task
        return turns

    with nothing_left_open():
        assert asyncio.run(main()) >= 100


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__
)
def test_what_the_thread_raises_comes_after_the_items_before_it(error: BaseException) -> None:
    """It is the very exception, whatever its kind, and the task may catch it."""

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    async def main() -> List[int]:
        received: List[int] = []
        with pytest.raises(type(error)) as caught:
            async for item in AsyncReader(items(), do_nothing):
                received.append(item)
        assert caught.value is error
        return received

    with nothing_left_open():
        assert asyncio.run(main()) == [1, 2]


def test_an_error_of_the_service_reaches_the_task(emulator: Emulator, client: Client) -> None:
    """With the text so far, as in a thread."""
    emulator.script(Reply(["one"], error="boom"))
    with pytest.raises(ServerError, match="boom") as caught:
        asyncio.run(collect(iterate_stream(client.stream("hi"))))
    assert caught.value.partial == "one"


def test_an_exception_of_the_consumer_closes_the_stream(emulator: Emulator, client: Client) -> None:
    """With ``aclosing`` or its like, which every loop that can be left early should have."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        pieces = iterate_stream(client.stream("hi"))
        try:
            async for piece in pieces:
                raise KeyError(piece)
        finally:
            await pieces.aclose()

    with pytest.raises(KeyError, match="one"):
        asyncio.run(main())
    assert emulator.wait_until(lambda: emulator.disconnects)


def test_closing_the_stream_itself_ends_the_task(emulator: Emulator, client: Client) -> None:
    """A task that reads is another reader than whoever closes, so it is told."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        stream = client.stream("hi")
        task = asyncio.ensure_future(collect(iterate_stream(stream)))
        await asyncio.sleep(0)
        assert emulator.wait_until(lambda: emulator.stalled)
        stream.close()
        with pytest.raises(StreamClosedError):
            await task

    asyncio.run(main())


def test_a_failure_that_nobody_meets_keeps_nothing_alive() -> None:
    """Leaving a stream early makes its thread fail; what the thread used goes without garbage collection."""
    closed, blocked = threading.Event(), threading.Event()
    raised: List[Any] = []

    class ClosedError(Exception):
        def __init__(self) -> None:
            raised.append(weakref.ref(self))

    def items() -> Iterator[str]:
        yield "one"
        blocked.set()
        wait_for(closed)
        raise ClosedError

    async def main() -> None:
        reader = AsyncReader(items(), closed.set)
        assert await reader.__anext__() == "one"
        wait_for(blocked)
        await reader.aclose()

    gc.disable()
    try:
        asyncio.run(main())
        if platform.python_implementation() != "CPython":  # pragma: no cover - only there it needs a collection
            collect_garbage()
        assert [error() for error in raised] == [None]
    finally:
        gc.enable()


def test_closing_does_not_wait_for_ever() -> None:
    """A thread that can't be interrupted, as in a DNS look-up, is left to end by itself."""
    gate = RateLimiter("one")

    async def main() -> None:
        generator = AsyncReader(gate, do_nothing)
        await generator.__anext__()
        wait_for(gate.blocked)
        await generator.aclose()
        assert not gate.ended.is_set()

    with joined_threads():
        asyncio.run(main())
        gate.close()
        wait_for(gate.ended)


def test_a_generator_that_is_dropped_closes_its_stream(emulator: Emulator, client: Client) -> None:
    """The loop finalizes it, and the server sees it."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        async for _ in iterate_stream(client.stream("hi")):
            break
        collect_garbage()
        while not emulator.disconnects:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


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


@pytest.mark.parametrize("leave", [left_between_two_items, left_while_waiting, left_by_a_loop_that_knows_it_not])
def test_a_loop_that_is_closed_without_a_word_leaves_no_thread(leave: Any) -> None:
    """Nobody runs the generator to its end then; dropping it is enough."""
    gate = RateLimiter("one")

    def use_a_loop() -> None:
        loop = asyncio.new_event_loop()
        generator = iterate_stream(gate)
        leave(loop, generator)
        wait_for(gate.blocked)
        loop.close()
        del generator

    with joined_threads():
        use_a_loop()
        collect_garbage()
        wait_for(gate.ended)


def test_a_thread_that_finds_its_loop_closed_ends() -> None:
    """It has nobody to read for, though somebody still holds the generator."""
    go_on, closed = threading.Event(), threading.Event()

    def items() -> Iterator[str]:
        try:
            yield "one"
            wait_for(go_on)
            yield "two"
        finally:
            closed.set()

    loop = asyncio.new_event_loop()
    generator = AsyncReader(items(), do_nothing)
    with joined_threads():
        left_between_two_items(loop, generator)
        loop.close()
        go_on.set()
        wait_for(closed)
    del generator


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
def test_hundreds_of_generators_run_at_once_on_one_loop(emulator: Emulator, client: Client) -> None:
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
    asyncio.run(main())
    assert not all_are_there.broken


def test_the_loop_gets_its_turn_while_many_begin() -> None:
    """Threads are started one at a time, however many generators are asked for their first item at once."""
    turns: List[int] = [0]
    started_in: List[int] = []
    start = threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        started_in.append(turns[0])
        start(thread)

    async def count_turns() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async def main() -> None:
        counter = asyncio.ensure_future(count_turns())
        await asyncio.gather(*(AsyncReader(iter([number]), do_nothing).__anext__() for number in range(20)))
        counter.cancel()

    with nothing_left_open(), mock.patch.object(threading.Thread, "start", noting):
        asyncio.run(main())
    assert len(set(started_in)) == len(started_in) == 20


def test_a_loop_with_many_busy_readers_is_not_woken_by_them() -> None:
    """Waking it takes longer than the items do; it looks for itself, and has them all."""
    times, taken = 40, [0]
    choir = Choir(2 * aio.MANY)

    async def take(reader: "AsyncReader[str]") -> None:
        async for _ in reader:
            taken[0] += 1

    async def main() -> int:
        tasks = [asyncio.ensure_future(take(reader)) for reader in choir.readers]
        loop = asyncio.get_running_loop()
        await choir.assemble()
        with mock.patch.object(loop, "call_soon_threadsafe", wraps=loop.call_soon_threadsafe) as woken:
            for number in range(1, times + 1):
                choir.sing()
                while taken[0] < number * len(tasks):
                    await asyncio.sleep(0)
            count = woken.call_count
        choir.stop()
        await asyncio.gather(*tasks)
        return count

    with nothing_left_open():
        assert 1 <= asyncio.run(main()) <= times / 2


def test_a_busy_loop_keeps_nothing_of_a_reader_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the request of a page in its context variables, however long the streams of others go on."""
    monkeypatch.setattr(aio, "POLL_INTERVAL", 0.05)  # no two looks between two songs, which would end the busy time
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")
    first, others = Choir(1), Choir(2 * aio.MANY)
    rounds, taken = 10, [0]

    async def take(reader: "AsyncReader[str]") -> None:
        async for _ in reader:
            taken[0] += 1

    def begin(reader: "AsyncReader[str]", page: object) -> "asyncio.Task[None]":
        context = contextvars.copy_context()
        context.run(variable.set, page)
        return context.run(asyncio.ensure_future, take(reader))

    async def main() -> None:
        page = RateLimiter()
        kept = weakref.ref(page)
        tasks = [begin(first.readers[0], page), *map(asyncio.ensure_future, map(take, others.readers))]
        del page
        await first.assemble()
        await others.assemble()
        first.sing()  # it is this one that wakes the loop
        first.stop()
        for number in range(1, rounds + 1):
            others.sing()
            while taken[0] < 1 + number * len(others.readers):
                await asyncio.sleep(0)
        await tasks.pop(0)
        collect_garbage()
        assert kept() is None
        others.stop()
        await asyncio.gather(*tasks)

    with nothing_left_open():
        asyncio.run(main())


def test_a_loop_that_looks_for_itself_may_be_closed() -> None:
    """Each thread finds out, though somebody still holds its reader."""
    choir = Choir(2 * aio.MANY)

    async def main() -> None:
        tasks = [asyncio.ensure_future(reader.__anext__()) for reader in choir.readers]
        await choir.assemble()
        choir.sing()
        await asyncio.gather(*tasks)

    with joined_threads():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        choir.begin()
        choir.wait_for_the_end()


def test_loops_that_have_ended_are_forgotten() -> None:
    """A web worker may run a loop for each request."""
    loops: List[Any] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(collect(AsyncReader(iter([number]), do_nothing)) for number in range(5)))

    for _ in range(3):
        asyncio.run(main())
    collect_garbage()
    assert [loop() for loop in loops] == [None] * 3


def test_a_turn_that_has_ended_is_not_waited_for() -> None:
    """A stream that is begun while others go on is begun at once."""

    async def main() -> None:
        first, second = RateLimiter("one"), RateLimiter()
        reader = AsyncReader(first, first.close)
        assert await reader.__anext__() == "one"
        waiting = asyncio.ensure_future(AsyncReader(second, second.close).__anext__())
        await asyncio.sleep(0)
        wait_for(second.blocked)  # the loop gets no other turn
        await reader.aclose()
        second.close()
        with pytest.raises(StopAsyncIteration):
            await waiting

    with nothing_left_open():
        asyncio.run(main())


def test_a_turn_may_end_after_its_loop() -> None:
    """Whoever waits for the next one is gone as well."""

    async def have_turn() -> None:
        async with shared.turn():
            await asyncio.sleep(1000)

    loop = asyncio.new_event_loop()
    shared = aio._LoopWaker.for_loop(loop)
    tasks: List[Any] = [loop.create_task(have_turn()) for _ in range(2)]
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    for task in tasks:
        task._log_destroy_pending = False  # that they are dropped is the point
    loop.close()
    tasks.clear()
    del task
    collect_garbage()


def test_one_that_is_cancelled_before_its_turn_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream is closed, and nobody waits for a thread that there never was."""
    monkeypatch.setattr(aio, "JOIN_TIMEOUT", 1000.0)
    gate, waiting = RateLimiter("one"), RateLimiter("one")

    async def main() -> None:
        first, second = iterate_stream(gate), iterate_stream(waiting)
        begun = asyncio.ensure_future(first.__anext__()), asyncio.ensure_future(second.__anext__())
        await asyncio.sleep(0)
        threads = threading.active_count()
        begun[1].cancel()
        await asyncio.wait(begun)
        assert begun[1].cancelled()
        assert waiting.closed.is_set()
        assert threading.active_count() == threads
        await first.aclose()

    with nothing_left_open():
        asyncio.run(main())


def test_the_blocking_face_works_inside_a_running_loop(emulator: Emulator, client: Client) -> None:
    """As in a notebook: nothing of it touches asyncio."""

    async def main() -> None:
        assert client.ask("hi").text == "onetwo"
        assert list(client.stream("hi")) == ["one", "two"]

    asyncio.run(main())


def test_it_works_on_uvloop() -> None:
    """On any event loop, the fast one included: whole, cancelled and closed."""
    uvloop = pytest.importorskip("uvloop")

    async def main(emulator: Emulator, client: Client) -> None:
        assert await collect(iterate_stream(client.stream("hi"))) == ["hi"]
        emulator.fail("message", *[Fault.stall(("after_events", 1))] * 2)
        task = asyncio.ensure_future(collect(iterate_stream(client.stream("hi"))))
        await asyncio.sleep(0)
        assert emulator.wait_until(lambda: emulator.stalled)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pieces = iterate_stream(client.stream("hi"))
        assert await pieces.__anext__() == "hi"
        await pieces.aclose()
        assert emulator.wait_until(lambda: len(emulator.disconnects) == 2)

    run_on(uvloop.new_event_loop(), asyncio.sleep(0))  # it makes what all of them share
    with nothing_left_open(), Emulator() as emulator, Client(emulator.api_key, api_url=emulator.api_url) as client:
        run_on(uvloop.new_event_loop(), main(emulator, client))


def run_on(loop: asyncio.AbstractEventLoop, work: Any) -> None:
    loop.run_until_complete(work)
    loop.close()


def test_a_loop_that_ends_has_nothing_to_complain_of(emulator: Emulator, client: Client) -> None:
    """What is still held when ``asyncio.run`` ends is closed once, in good order, whichever face it came from."""
    emulator.fail("message", *[Fault.stall(("after_events", 1))] * 2)
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

    asyncio.run(main())
    assert complain.mock_calls == []
    assert emulator.wait_until(lambda: len(emulator.disconnects) == 2)
    provider._clients.close()


def test_a_reader_that_was_never_asked_has_nothing_to_close() -> None:
    """Neither when it is closed nor when it is dropped."""

    async def main() -> None:
        await AsyncReader(iter(()), do_nothing).aclose()

    asyncio.run(main())


def test_a_wait_for_a_while_gives_all_that_has_come() -> None:
    """Also what iterating has left over; at the end it says so."""

    async def main() -> None:
        items = AsyncReader(iter(range(10)), do_nothing)
        assert await items.__anext__() == 0
        rest: List[int] = []
        with pytest.raises(StopAsyncIteration):
            while True:
                rest += await items.take(PATIENCE)
        assert rest == list(range(1, 10))

    asyncio.run(main())


def test_a_wait_for_a_while_ends_without_anything() -> None:
    """And nothing is lost by it."""
    gate = RateLimiter("one")

    async def main() -> None:
        items = AsyncReader(gate, gate.close)
        assert await items.take(PATIENCE) == ["one"]
        begun = time.monotonic()
        assert await items.take(0.05) == []
        assert 0.04 < time.monotonic() - begun < PATIENCE
        waiting = asyncio.ensure_future(items.take(PATIENCE))
        await asyncio.sleep(0)
        items.close()
        with pytest.raises(StopAsyncIteration):
            await waiting

    with nothing_left_open():
        asyncio.run(main())
