"""A blocking stream as an async iterator: the same generator, run in a thread of its own.

``iterate`` works on any asyncio event loop. One thread reads and hands over what it has; the loop is woken
once for all that has come since the last time, and the thread waits where the consumer falls
behind. Closing shuts the connection down, which ends the thread. Nothing here knows the protocol.
"""

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections import deque
from typing import Any, AsyncGenerator, Callable, Deque, Iterator, List, Optional, TypeVar

from copilot_sync.stream import Stream

T = TypeVar("T")

#: Items that are read ahead of the consumer.
AHEAD = 256
#: Seconds that closing waits for the thread. It ends at once but for a DNS look-up, which can't be interrupted.
PATIENCE = 0.15


def iterate_stream(stream: Stream) -> "AsyncGenerator[str, None]":
    """Iterate a stream's text without blocking the event loop.

    >>> async for piece in iterate_stream(client.stream("Explain WSGI")):  # doctest: +SKIP
    ...     print(piece)

    Raises:
        CopilotError: As iterating the stream does.
    """
    return iterate(stream, stream.close)


async def iterate(items: Iterator[T], close: Callable[[], None]) -> "AsyncGenerator[T, None]":
    """Iterate a blocking iterator without blocking the event loop.

    Nothing happens before the first item is asked for. The thread sees the context variables of whoever asks for it.

    Args:
        items: What is read, in a thread of its own.
        close: Ends a blocked read of it, from any thread, without blocking.
    """
    pump = _Pump(items, close, asyncio.get_running_loop())
    _on_drop = _OnDrop(pump.end)
    pump.start()
    try:
        while True:
            batch = await pump.batch()
            if not batch:
                break
            for item in batch:
                yield item
    finally:
        await pump.stop()
    pump.raise_failure()


class _Pump:
    """The thread that reads, and what it has read.

    ``_run``, ``_read``, ``_wake`` and ``_has_room`` belong to the thread, the rest to the loop.
    """

    def __init__(self, items: Iterator[Any], close: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._close = close
        self._loop = loop
        self._ready: Deque[Any] = deque()
        self._room = threading.Condition()
        # Weak, so that the thread does not keep alive a task of a loop that was closed.
        self._waiter: Callable[[], Optional[asyncio.Future[None]]] = _no_one
        self._woken = False
        self._closing = False
        self._ended = False
        self._failure: Optional[BaseException] = None
        self._done: asyncio.Future[None] = loop.create_future()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="copilot-sync-stream", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the consumer gets it
            self._failure = error
        self._ended = True
        # A loop that was closed meanwhile waits for nothing.
        with contextlib.suppress(RuntimeError):
            self._wake()
            self._loop.call_soon_threadsafe(self._on_done)

    def _read(self) -> None:
        try:
            for item in self._items:
                self._ready.append(item)
                self._wake()
                if len(self._ready) >= AHEAD:
                    with self._room:
                        self._room.wait_for(self._has_room)
                if self._closing:
                    break
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._on_wake)

    def _has_room(self) -> bool:
        return len(self._ready) < AHEAD or self._closing

    def _on_wake(self) -> None:
        self._woken = False
        waiter = self._waiter()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _on_done(self) -> None:
        self._done.set_result(None)

    async def batch(self) -> List[Any]:
        """Wait for what comes next: all that is there, nothing at the end."""
        while True:
            ended = self._ended  # read first: what was appended before the end is then seen
            if self._ready:
                return self._taken()
            if ended:
                return []
            waiter = self._loop.create_future()
            self._waiter = weakref.ref(waiter)
            await waiter

    def _taken(self) -> List[Any]:
        batch = [self._ready.popleft() for _ in range(len(self._ready))]
        self._tell_of_room()
        return batch

    def _tell_of_room(self) -> None:
        with self._room:
            self._room.notify()

    def end(self) -> None:
        """Have the thread end, wherever it is. For any thread; never blocks."""
        if not self._ended:
            self._closing = True
            self._close()
            self._tell_of_room()

    async def stop(self) -> None:
        """End the thread, and wait until it has: not where the generator is dropped after its loop has ended."""
        self.end()
        if not self._loop.is_running():
            return
        await asyncio.wait({self._done}, timeout=PATIENCE)
        if self._done.done():
            self._thread.join()

    def raise_failure(self) -> None:
        """Raise what the thread ended with, if anything."""
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame


class _OnDrop:
    """Ends a pump when its generator is dropped: the generator's ``finally`` may never run once its loop is closed."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def __del__(self) -> None:
        self._end()


def _no_one() -> None:
    """What waits for the thread where nothing does."""
