"""A blocking stream as an async iterator: the same generator, run in a thread of its own.

``Reader`` works on any asyncio event loop. One thread reads and hands over what it has; the loop is woken
once for all that has come since the last time, and the thread waits where the consumer falls
behind. A loop with many busy readers is not woken at all: it looks every millisecond or two.
Closing shuts the connection down, which ends the thread. Nothing here knows the protocol.
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
    Iterator,
    List,
    MutableMapping,
    Optional,
    Set,
    TypeVar,
)

from copilot_sync.stream import Stream

T = TypeVar("T")

#: Items that are read ahead of the consumer.
AHEAD = 256
#: Seconds from one look of a busy loop to the next, and how many readers within that time make it busy.
LOOK_STEP, MANY = 0.001, 4
#: Seconds that closing waits for the thread. It ends at once but for a DNS look-up, which can't be interrupted.
PATIENCE = 0.15


async def iterate_stream(stream: Stream) -> "AsyncGenerator[str, None]":
    """Iterate a stream's text without blocking the event loop.

    >>> async for piece in iterate_stream(client.stream("Explain WSGI")):  # doctest: +SKIP
    ...     print(piece)

    Raises:
        CopilotError: As iterating the stream does.
    """
    pieces = Reader(stream, stream.close)
    try:
        async for piece in pieces:
            yield piece
    finally:
        await pieces.aclose()


class Reader(AsyncIterator[T]):
    """A blocking iterator, read without blocking the event loop.

    Nothing happens before the first item is asked for. The thread sees the context variables of whoever asks for it.
    It is no generator, because a loop that ends closes all async generators at once, and one inside another twice.

    Args:
        items: What is read, in a thread of its own.
        close: Ends a blocked read of it, from any thread, without blocking.
    """

    def __init__(self, items: Iterator[T], close: Callable[[], None]) -> None:
        self._items = items
        self._close = close
        self._pump: Optional[_Pump] = None
        self._batch: Deque[T] = deque()

    async def __anext__(self) -> T:
        if not self._batch:
            self._batch = await self._more(None)
        return self._batch.popleft()

    async def within(self, seconds: float) -> "List[T]":
        """Wait for items, no longer than so many seconds, and give all that have come: none where none came in time.

        Raises:
            StopAsyncIteration: There are no more.
        """
        batch = self._batch or await self._more(seconds)
        self._batch = deque()
        return list(batch)

    async def _more(self, seconds: Optional[float]) -> Deque[T]:
        if self._pump is None:
            self._pump = _Pump(self._items, self._close, asyncio.get_running_loop())
            await self._pump.start()
        batch = await self._pump.batch(seconds)
        if batch is None:
            return deque()
        if not batch:
            await self._pump.stop()
            self._pump.raise_failure()
            raise StopAsyncIteration
        return batch

    async def aclose(self) -> None:
        """End the thread and free the connection. Any number of times."""
        if self._pump is not None:
            await self._pump.stop()

    def close(self) -> None:
        """Have the thread end and the connection closed, without waiting for either. For any thread."""
        if self._pump is not None:
            self._pump.end()

    def __del__(self) -> None:
        # Where its loop was closed before it, nobody awaits aclose any more.
        self.close()
        if self._pump is not None:
            self._pump.drop_failure()


class _Pump:
    """The thread that reads, and what it has read.

    ``_run``, ``_read``, ``_wake`` and ``_has_room`` belong to the thread, the rest to the loop.
    """

    def __init__(self, items: Iterator[Any], close: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._close = close
        self._loop = loop
        self._shared = _LoopWaker.for_loop(loop)
        self._ready: Deque[Any] = deque()
        self._room = threading.Condition()
        self._full = False
        # Weak, so that the thread does not keep alive a task of a loop that was closed.
        self._waiter: Callable[[], Optional[asyncio.Future[bool]]] = _none
        self._woken = False
        self._closing = False
        self._ended = False
        # One at most. It is raised out of this list, so that no frame in its traceback holds it.
        self._failures: List[BaseException] = []
        self._done: asyncio.Future[None] = loop.create_future()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="copilot-sync-stream", daemon=True)

    async def start(self) -> None:
        """Start the thread. Many are started one after the other, and the loop gets its turn in between."""
        async with self._shared.turn():
            self._thread.start()
            await asyncio.sleep(0)

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the consumer gets it
            self._failures.append(error)
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
                    self._wait_for_room()
                if self._closing:
                    break
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._shared.wake(self)

    def _wait_for_room(self) -> None:
        self._full = True  # before it looks whether there is room: who makes some afterwards sees it
        with self._room:
            self._room.wait_for(self._has_room)
        self._full = False

    def _has_room(self) -> bool:
        return len(self._ready) < AHEAD or self._closing

    def on_wake(self) -> None:
        """Have the consumer take what is there."""
        self._woken = False
        _tell(self._waiter, True)

    def _on_done(self) -> None:
        self._done.set_result(None)

    async def batch(self, seconds: Optional[float]) -> Optional[Deque[Any]]:
        """Wait for what comes next: all that is there, nothing at the end, ``None`` where it does not come in time."""
        while True:
            ended = self._ended  # read first: what was appended before the end is then seen
            if self._ready:
                return self._taken()
            if ended:
                return deque()
            if not await self._wait_for_data(seconds):
                return None

    async def _wait_for_data(self, seconds: Optional[float]) -> bool:
        """Wait for the thread, and tell whether it was the thread that ended the wait."""
        waiter = self._loop.create_future()
        self._waiter = weakref.ref(waiter)
        timer = None if seconds is None else self._loop.call_later(seconds, _tell, self._waiter, False)
        try:
            return bool(await waiter)
        finally:
            if timer is not None:
                timer.cancel()

    def _taken(self) -> Deque[Any]:
        batch = deque(self._ready.popleft() for _ in range(len(self._ready)))
        if self._full:
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
        never_started = self._thread.ident is None
        if never_started or not self._loop.is_running():
            return
        await asyncio.wait({self._done}, timeout=PATIENCE)
        if self._done.done():
            self._thread.join()

    def raise_failure(self) -> None:
        """Raise what the thread ended with, if anything: once."""
        if self._failures:
            raise self._failures.pop()

    def drop_failure(self) -> None:
        """Forget what the thread ended with, because nobody wants it: its traceback holds this object."""
        self._failures.clear()


class _LoopWaker:
    """What the pumps of one loop share: how it is woken, and whose turn it is to start a thread.

    A thread wakes a loop through a socket, which costs more than an event does. Where many pumps have something within
    a moment, the loop looks by itself a moment later, until they are few again.

    ``wake`` is for any thread, the rest for the loop.
    """

    #: Both weak: what the pumps share holds their loop, and lives as long as they do.
    _by_loop: ClassVar[MutableMapping[Any, "weakref.ref[_LoopWaker]"]] = weakref.WeakKeyDictionary()

    @classmethod
    def for_loop(cls, loop: asyncio.AbstractEventLoop) -> "_LoopWaker":
        """Find what the pumps of a loop share; the first one makes it."""
        shared = cls._by_loop.get(loop, _none)()
        if shared is None:
            shared = cls(loop)
            cls._by_loop[loop] = weakref.ref(shared)
        return shared

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._with_news: List[_Pump] = []
        self._is_going_to_look = False
        self._recent: Set[int] = set()
        self._recent_since = 0.0
        self._last_turn: Optional[asyncio.Future[None]] = None
        # Else each look would hand on to the next the context of the reader that the first was for.
        self._nobodys_context = contextvars.Context()

    def wake(self, pump: _Pump) -> None:
        """Have the loop tell a pump's consumer that there is something.

        Raises:
            RuntimeError: The loop was closed.
        """
        with self._lock:
            self._with_news.append(pump)
            is_needed = not self._is_going_to_look
            self._is_going_to_look = True
        if is_needed or self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        with self._lock:
            pumps, self._with_news = self._with_news, []
            self._is_going_to_look = is_busy = self._is_busy_with(pumps)
        if is_busy:
            self._nobodys_context.run(self._loop.call_later, LOOK_STEP, self._look)
        for pump in pumps:
            pump.on_wake()

    def _is_busy_with(self, pumps: List[_Pump]) -> bool:
        now = self._loop.time()
        if now - self._recent_since > LOOK_STEP:
            self._recent, self._recent_since = set(), now
        self._recent.update(map(id, pumps))
        return len(self._recent) >= MANY and sys.platform != "win32"  # whose timers may be 16 ms late

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until everybody who came earlier has had their turn."""
        before, end = self._last_turn, self._loop.create_future()
        self._last_turn = end
        try:
            if before is not None and not before.done():
                await asyncio.wait({before})
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                end.set_result(None)


def _tell(waiter: "Callable[[], Optional[asyncio.Future[bool]]]", news: bool) -> None:
    """End a wait, unless it has ended."""
    future = waiter()
    if future is not None and not future.done():
        future.set_result(news)


def _none() -> None:
    """What waits for the thread where nothing does."""
