"""How many threads help in one event loop at once, and which waits for which."""

import asyncio
import threading
from typing import Any, Awaitable, Callable, Iterator, List

import pytest
from loops import helpers, until
from support import collect_garbage, nothing_left_open, wait_for, wait_until

from copilot_sync import AsyncClient
from copilot_sync.aio import helper_queue
from copilot_sync.aio.helper_queue import AT_ONCE, HelperQueue, queue_of
from copilot_sync.emulator import Emulator

#: Seconds that no test waits.
LONG = 1000.0


class Reader:
    """Counts its threads, of which there may be none."""

    def __init__(self, has_thread: bool = True) -> None:
        self.has_thread = has_thread
        self.started = 0

    def start(self) -> bool:
        self.started += 1
        return self.has_thread


def in_loop(main: Callable[[HelperQueue], Awaitable[None]]) -> None:
    async def called() -> None:
        await main(queue_of(asyncio.get_running_loop()))

    asyncio.run(called())


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_queue, "MOMENT", LONG)


@pytest.mark.usefixtures("no_time")
def test_some_start_at_once_and_the_next_when_one_has_ended() -> None:
    """In the order in which they came."""

    async def main(queue: HelperQueue) -> None:
        first, *others = readers = [Reader() for _ in range(AT_ONCE + 3)]
        assert [queue.may_start(reader.start) for reader in readers] == AT_ONCE * [True] + 3 * [False]
        waiting = others[AT_ONCE - 1 :]
        assert [reader.started for reader in waiting] == [0, 0, 0]
        queue.leave()
        assert [reader.started for reader in waiting] == [1, 0, 0]
        queue.leave()
        queue.leave()
        assert [reader.started for reader in waiting] == [1, 1, 1]
        assert not queue.may_start(first.start)
        for _ in range(AT_ONCE):
            queue.leave()
        assert queue.may_start(first.start)

    in_loop(main)


@pytest.mark.usefixtures("no_time")
def test_those_that_are_over_are_passed_by() -> None:
    """Whether nobody holds them any more, or they find that there is nothing to help with."""

    async def main(queue: HelperQueue) -> None:
        readers = [Reader() for _ in range(AT_ONCE)]
        for reader in readers:
            queue.may_start(reader.start)
        over, last, gone = Reader(has_thread=False), Reader(), [Reader()]
        queue.may_start(gone[0].start)
        queue.may_start(over.start)
        queue.may_start(last.start)
        gone.clear()
        collect_garbage()
        queue.leave()
        assert (over.started, last.started) == (1, 1)

    in_loop(main)


def test_one_more_is_started_after_each_moment() -> None:
    """However long those before it are stuck; the loop is not asked again when nobody waits."""

    async def main(queue: HelperQueue) -> None:
        readers = [Reader() for _ in range(AT_ONCE + 5)]
        for reader in readers:
            queue.may_start(reader.start)
        await until(lambda: sum(reader.started for reader in readers) == 5)
        await until(lambda: not queue._has_timer)
        for _ in range(5):
            queue.leave()
        one_more = Reader()
        assert not queue.may_start(one_more.start)
        queue.leave()
        assert one_more.started

    in_loop(main)


def test_an_interruption_keeps_nobody_waiting() -> None:
    """It comes out of the handler of a signal, while a thread is being started, and goes through the loop."""

    class Interrupted(Reader):
        def start(self) -> bool:
            super().start()
            raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    queue = queue_of(loop)
    readers = [*(Reader() for _ in range(AT_ONCE)), Interrupted(), Reader()]

    async def enter() -> None:
        for reader in readers:
            queue.may_start(reader.start)
        await until(lambda: False)

    async def follow() -> None:
        await until(lambda: bool(readers[-1].started))

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(enter())
    loop.run_until_complete(follow())
    for task in asyncio.all_tasks(loop):
        task.cancel()
        loop.run_until_complete(asyncio.wait({task}))
    loop.close()


def test_a_queue_ends_with_its_loop() -> None:
    """It holds nothing of it."""
    loop = asyncio.new_event_loop()
    queue_of(loop)
    before = len(helper_queue._queues)
    loop.close()
    del loop
    collect_garbage()
    assert len(helper_queue._queues) < before


class CountingCache:
    """A token cache in which all threads are stuck until there are so many."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.all_there = threading.Event()
        self.seen: List[int] = []

    def get(self, key: str) -> None:
        self.seen.append(threading.get_ident())
        if len(self.seen) == self.count:
            self.all_there.set()
        wait_for(self.all_there)

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep nothing."""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator() as served:
            yield served


def test_threads_that_are_stuck_keep_no_other_from_starting(emulator: Emulator) -> None:
    """Clients of their own, because one client has one thread fetch its token: none goes on before all are there."""
    count = AT_ONCE + 4
    cache = CountingCache(count)
    urls: Any = {"github_url": emulator.github_url, "api_url": emulator.api_url}

    async def main() -> None:
        clients = [AsyncClient(cookies=emulator.cookies, token_cache=cache, **urls) for _ in range(count)]
        answers = await asyncio.gather(*(client.ask("hi") for client in clients))
        assert {answer.text for answer in answers} == {"hi"}
        for client in clients:
            await client.aclose()

    asyncio.run(main())
    assert len(set(cache.seen)) == count
    wait_until(lambda: not helpers())
