"""A thread that helps may be stuck in what nothing interrupts, such as somebody's token cache. Nobody waits for it."""

import asyncio
import threading
from typing import Any, Callable, Iterator, List

import pytest
from loops import Run, helpers, in_thread
from streams import AT_ONCE
from support import PATIENCE, collect_garbage, nothing_left_open, stages, wait_for, wait_until

from copilot_sync import AsyncClient, AsyncStream, Client, Conversation, StreamClosedError, os_threads
from copilot_sync.aio import iterate_stream
from copilot_sync.emulator import Emulator
from copilot_sync.stepping import Pace


class StuckCache:
    """A token cache in which a thread is stuck until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.is_stuck = True

    def get(self, key: str) -> None:
        self.entered.set()
        try:
            wait_for(self.let_go)
        finally:
            self.is_stuck = False

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep nothing."""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator() as served:
            yield served


@pytest.fixture
def cache() -> Iterator[StuckCache]:
    made = StuckCache()
    yield made
    made.let_go.set()
    wait_until(lambda: not helpers())


@pytest.fixture
def options(emulator: Emulator, cache: StuckCache) -> Any:
    urls = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    return {"cookies": emulator.cookies, "retry": AT_ONCE, "token_cache": cache, **urls}


@pytest.mark.parametrize(
    "call", [lambda client: client.ask("hi"), AsyncClient.models], ids=["a question", "another call"]
)
def test_the_loop_does_not_stand_still_for_a_call_that_is_cancelled(
    run: Run, call: Callable[[AsyncClient], Any], options: Any, cache: StuckCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task gives the thread a moment, in which the loop runs on, and then leaves it to end by itself."""
    monkeypatch.setattr(os_threads, "JOIN_TIMEOUT", 2 * PATIENCE)

    async def main() -> None:
        task = asyncio.ensure_future(call(AsyncClient(**options)))
        await in_thread(wait_for, cache.entered)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cache.is_stuck

    run(main())


@pytest.mark.parametrize("closed", ["the stream", "the client"])
def test_a_stream_that_another_thread_closes_ends_at_once(
    run: Run, closed: str, options: Any, cache: StuckCache
) -> None:
    """The task that waits is told by the loop, not by the thread that helps."""

    async def main() -> None:
        client = AsyncClient(**options)
        stream = client.stream("hi")
        task = asyncio.ensure_future(stream.__anext__())
        await in_thread(wait_for, cache.entered)
        await in_thread(stream.close if closed == "the stream" else client.close)
        with pytest.raises(StreamClosedError):
            await task
        assert cache.is_stuck

    run(main())


def test_a_stream_that_its_own_function_closes_just_ends(run: Run, emulator: Emulator) -> None:
    """Also if that function, which a thread calls, is not yet at its end when the task is told."""
    told = threading.Event()
    ended: List[bool] = []

    def close(conversation: Conversation) -> None:
        stream.close()
        ended.append(told.wait(PATIENCE))

    client = Client(emulator.api_key, api_url=emulator.api_url)
    stream = client.stream("hi", on_start=close)

    async def main() -> None:
        assert [piece async for piece in iterate_stream(stream)] == []
        told.set()

    run(main())
    wait_until(lambda: ended == [True])
    client.close()


def test_closing_a_stream_does_not_change_how_its_thread_waits(run: Run, options: Any, cache: StuckCache) -> None:
    """What it is in the middle of would take for arrived what has not."""

    async def main() -> None:
        stream: AsyncStream = AsyncClient(**options).stream("hi")
        task = asyncio.ensure_future(stream.__anext__())
        await in_thread(wait_for, cache.entered)
        stream.close()
        with pytest.raises(StreamClosedError):
            await task
        assert stream._stream._call.pace is Pace.HELPING

    run(main())


def test_a_stream_that_is_dropped_while_a_thread_helps_to_poll_asks_nothing(
    emulator: Emulator, options: Any, cache: StuckCache
) -> None:
    """The thread holds what sends the question, but not the stream."""
    with Client(**options) as client:
        stream = client.stream("hi")
        assert stream.poll(0) is None
        wait_for(cache.entered)
        del stream
        collect_garbage()  # which CPython does not need
        cache.let_go.set()
        wait_until(lambda: not helpers())
        assert stages(emulator) == []
