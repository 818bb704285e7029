"""The asynchronous face of a blocking stream: a thread reads it, an asyncio event loop waits for the thread.

``AsyncReader`` works on any asyncio event loop. The loop is woken once for everything that has come since it was woken
last. A loop with many busy readers is not woken at all; it polls them every millisecond. Closing shuts the connection
down, which ends the thread. This module knows nothing of the protocol.

Threads: the news of a loop are locked, its waker is atomic, and the rest is confined to the loop.
"""

import asyncio
import contextlib
import contextvars
import sys
import threading
import weakref
from collections import deque
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterator,
    Callable,
    ClassVar,
    Deque,
    Generic,
    Iterator,
    List,
    MutableMapping,
    Optional,
    Set,
    TypeVar,
)

from copilot_sync.reader_thread import JOIN_TIMEOUT, ReaderThread
from copilot_sync.stream import Stream

T = TypeVar("T")

#: Seconds from one poll of a busy loop to the next.
POLL_INTERVAL = 0.001
#: How many readers with news within that time make a loop busy.
MANY = 4


async def iterate_stream(stream: Stream) -> "AsyncGenerator[str, None]":
    """Iterate a stream's text without blocking the event loop.

    >>> async for piece in iterate_stream(client.stream("Explain WSGI")):  # doctest: +SKIP
    ...     print(piece)

    Raises:
        CopilotError: The same errors as from iterating the stream.
    """
    pieces = AsyncReader(stream, stream.close)
    try:
        async for piece in pieces:
            yield piece
    finally:
        await pieces.aclose()


class AsyncReader(AsyncIterator[T]):
    """Reads a blocking iterator without blocking the event loop.

    The thread starts when the first item is asked for, and sees the context variables of whoever asks for it. This is
    no async generator: an event loop that ends closes all of those at once, and one inside another twice.

    Args:
        items: The iterator, which is read in a thread of its own.
        close: Interrupts a blocked read of ``items``, from any thread, without blocking.
    """

    def __init__(self, items: Iterator[T], close: Callable[[], None]) -> None:
        self._items = items
        self._close = close
        self._bridge: Optional[_LoopBridge[T]] = None
        self._batch: Deque[T] = deque()

    async def __anext__(self) -> T:
        if not self._batch:
            self._batch = await self._next_batch(None)
        return self._batch.popleft()

    async def take(self, timeout: float) -> "List[T]":
        """Wait up to ``timeout`` seconds for items, and return all there are: an empty list if none came in time.

        Raises:
            StopAsyncIteration: There are no more items.
        """
        batch = self._batch or await self._next_batch(timeout)
        self._batch = deque()
        return list(batch)

    async def _next_batch(self, timeout: Optional[float]) -> Deque[T]:
        if self._bridge is None:
            self._bridge = _LoopBridge(self._items, self._close, asyncio.get_running_loop())
            await self._bridge.start()
        batch = await self._bridge.take(timeout)
        if batch is None:
            await self._bridge.stop()
            self._bridge.thread.raise_failure()
            raise StopAsyncIteration
        return batch

    async def aclose(self) -> None:
        """End the thread and free the connection. May be called any number of times."""
        if self._bridge is not None:
            await self._bridge.stop()

    def close(self) -> None:
        """Tell the thread to end, and wait for nothing. Safe from any thread."""
        if self._bridge is not None:
            self._bridge.thread.close()

    def __del__(self) -> None:
        # If its loop was closed first, nobody awaits aclose any more.
        self.close()
        if self._bridge is not None:
            self._bridge.thread.drop_failure()


class _LoopBridge(Generic[T]):
    """A ``ReaderThread`` whose consumer waits on an event loop.

    ``_notify`` runs in the thread, everything else in the loop.
    """

    def __init__(self, items: Iterator[T], close: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.thread = ReaderThread(items, close, self._notify)
        self._loop = loop
        self._waker = _LoopWaker.for_loop(loop)
        # Weak, so that the thread does not keep alive a task of a loop that was closed.
        self._waiter: Callable[[], Optional[asyncio.Future[bool]]] = _none
        self._is_waking = False
        self._thread_ended: asyncio.Future[None] = loop.create_future()

    async def start(self) -> None:
        """Start the thread. Many are started one after the other, and the loop gets its turn in between."""
        async with self._waker.turn():
            self.thread.start()
            await asyncio.sleep(0)

    def _notify(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            try:
                self._waker.wake(self)
            except RuntimeError:  # the loop was closed, so nobody will read any more
                self.thread.close()

    def on_wake(self) -> None:
        """Resume whoever waits, after the thread has read something or has ended."""
        self._is_waking = False  # first: what the thread does from now on wakes the loop again
        if self.thread.ended and not self._thread_ended.done():
            self._thread_ended.set_result(None)
        _resolve(self._waiter, True)

    async def take(self, timeout: Optional[float]) -> Optional[Deque[T]]:
        """Wait for items and return all there are; none if none came in time, ``None`` after the last item."""
        while True:
            batch = self.thread.take()
            if batch is None or batch or not await self._wait_for_data(timeout):
                return batch

    async def _wait_for_data(self, timeout: Optional[float]) -> bool:
        """Wait for the thread. Return ``False`` if the time was up first."""
        waiter = self._loop.create_future()
        self._waiter = weakref.ref(waiter)
        timer = None if timeout is None else self._loop.call_later(timeout, _resolve, self._waiter, False)
        try:
            return bool(await waiter)
        finally:
            if timer is not None:
                timer.cancel()

    async def stop(self) -> None:
        """End the thread and wait until it has ended, unless the loop has ended before."""
        self.thread.close()
        if not self.thread.is_alive or not self._loop.is_running():
            return
        await asyncio.wait({self._thread_ended}, timeout=JOIN_TIMEOUT)
        if self._thread_ended.done():
            self.thread.join()


class _LoopWaker:
    """Wakes one event loop for all of its bridges, and lets them start their threads one after the other.

    A thread wakes a loop through a socket, which costs more than reading an event. When many bridges have news within
    a moment, the loop polls them instead, until there are few again.

    ``wake`` is safe from any thread; everything else belongs to the loop.
    """

    #: Weak both ways: a waker refers to its loop, and lives as long as the bridges that share it.
    _by_loop: ClassVar[MutableMapping[Any, "weakref.ref[_LoopWaker]"]] = weakref.WeakKeyDictionary()

    @classmethod
    def for_loop(cls, loop: asyncio.AbstractEventLoop) -> "_LoopWaker":
        """Return the waker of a loop. The first caller creates it."""
        waker = cls._by_loop.get(loop, _none)()
        if waker is None:
            waker = cls(loop)
            cls._by_loop[loop] = weakref.ref(waker)
        return waker

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._with_news: List[_LoopBridge[Any]] = []
        self._poll_is_due = False
        self._recent: Set[int] = set()
        self._recent_since = 0.0
        self._last_turn: Optional[asyncio.Future[None]] = None
        # Otherwise each poll would hand on to the next the context of the reader that the first one was for.
        self._empty_context = contextvars.Context()

    def wake(self, bridge: "_LoopBridge[Any]") -> None:
        """Have the loop call ``on_wake`` of a bridge soon.

        Raises:
            RuntimeError: The loop was closed.
        """
        with self._lock:
            self._with_news.append(bridge)
            is_needed = not self._poll_is_due
            self._poll_is_due = True
        if is_needed or self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._poll)

    def _poll(self) -> None:
        with self._lock:
            bridges, self._with_news = self._with_news, []
            self._note_recent(bridges)
            self._poll_is_due = is_busy = self._is_busy()
        if is_busy:
            self._empty_context.run(self._loop.call_later, POLL_INTERVAL, self._poll)
        for bridge in bridges:
            bridge.on_wake()

    def _note_recent(self, bridges: "List[_LoopBridge[Any]]") -> None:
        now = self._loop.time()
        if now - self._recent_since > POLL_INTERVAL:
            self._recent, self._recent_since = set(), now
        self._recent.update(map(id, bridges))

    def _is_busy(self) -> bool:
        return len(self._recent) >= MANY and sys.platform != "win32"  # whose timers may be 16 ms late

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until everyone who came earlier has had their turn."""
        before, end = self._last_turn, self._loop.create_future()
        self._last_turn = end
        try:
            if before is not None and not before.done():
                await asyncio.wait({before})
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                end.set_result(None)


def _resolve(waiter: "Callable[[], Optional[asyncio.Future[bool]]]", result: bool) -> None:
    """End a wait, unless it has ended."""
    future = waiter()
    if future is not None and not future.done():
        future.set_result(result)


def _none() -> None:
    """A weak reference to nothing."""
