"""``AsyncReader``: what a stream says, read by an asyncio event loop itself.

The stream's driver goes on in steps that wait for nothing. Where one pauses because nothing has arrived, the loop
watches the connection. Where what comes next blocks (a token, sending the question, a look at the thread, a pause), a
short-lived thread helps; from the moment the question is sent there is none. A loop that can't watch sockets has a
thread wait for each packet.

What was read is kept until somebody takes it, so that a wait that was cancelled, or timed out, loses nothing. A turn
reads 64 KiB, or up to 128 if they come in pieces, so it blocks the loop for no longer than it takes to read the events
in them.

Threads: confined to the loop, but for ``close``.
"""

import asyncio
import contextvars
from collections import deque
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Deque,
    Generic,
    List,
    Optional,
    TypeVar,
    Union,
)

from copilot_sync.aio.loop_watch import LoopWatch
from copilot_sync.errors import StreamClosedError
from copilot_sync.events import ContentEvent
from copilot_sync.models import Conversation
from copilot_sync.os_threads import JOIN_TIMEOUT, ThreadResult
from copilot_sync.stepping import Pause
from copilot_sync.stream import Stream
from copilot_sync.stream_steps import READ_AHEAD

T = TypeVar("T")


def text_of(item: Any) -> Optional[str]:
    """Pick the text of an answer."""
    return item.body if type(item) is ContentEvent else None


def text_or_conversation(item: Any) -> Union[None, str, Conversation]:
    """Pick the text of an answer, and before it the conversation."""
    return item if isinstance(item, Conversation) else text_of(item)


async def iterate_stream(stream: Stream) -> "AsyncGenerator[str, None]":
    """Iterate over a stream's text without blocking the event loop.

    >>> async for piece in iterate_stream(client.stream("Explain WSGI")):  # doctest: +SKIP
    ...     print(piece)

    Raises:
        CopilotError: The same errors as from iterating the stream.
    """
    pieces = AsyncReader(stream, text_of)
    try:
        async for piece in pieces:
            yield piece
    finally:
        await pieces.aclose()


class AsyncReader(AsyncIterator[T], Generic[T]):
    """Reads a stream, as far as it can be read without waiting, whenever there is something to read.

    Nothing is read before the first item is asked for. If the conversation is handed out, the question is not sent
    before the next item is asked for. What the stream calls sees the context variables of whoever asks for it. This is
    no async generator: an event loop that ends closes all of those at once, and one inside another twice. A reader that
    nobody holds any more closes its stream.

    Args:
        stream: The stream. Nothing else may read it.
        pick: Chooses what is handed out of an event, or of the conversation, which comes first; ``None`` for nothing.
    """

    def __init__(self, stream: Stream, pick: Callable[[Any], Optional[T]]) -> None:
        self._stream = stream
        self._steps = stream._steps
        self._pick = pick
        self._items: Deque[T] = deque()
        self._loop: Optional[asyncio.AbstractEventLoop] = None  # that of whoever asks first
        self._waiter: Optional[asyncio.Future[None]] = None
        self._hold_timer: Optional[asyncio.TimerHandle] = None  # by it the loop holds this object
        self._helper: Optional[ThreadResult[List[Any]]] = None
        self._is_starting = False  # a thread is to help soon
        self._helper_ended: Optional[asyncio.Future[None]] = None
        self._is_idle = True  # nobody will say when to go on
        self._read_ahead = READ_AHEAD  # how many items may wait
        self._has_ended = False
        # One at most. It is raised out of this list, so that no frame in its traceback holds it.
        self._failures: List[BaseException] = []
        self._is_closing = False

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is read ahead, and nothing will be before the next item is asked for."""
        return self._is_idle and not self._items and not self._has_ended

    async def __anext__(self) -> T:
        items = self._items
        while not items:
            waiter = self._begin_wait()
            if waiter is not None:
                try:
                    self._wait_by(waiter)
                    await waiter
                finally:
                    self._end_wait()
        return items.popleft()

    async def take(self, timeout: float) -> "List[T]":
        """Wait up to ``timeout`` seconds for items, and return all there are: an empty list if none came in time.

        Raises:
            StopAsyncIteration: There are no more items.
            RuntimeError: Another task is waiting, or another event loop has begun to read.
            CopilotError: What ended the stream, once.
        """
        waiter = None if self._items else self._begin_wait()
        if waiter is not None:
            timer = waiter.get_loop().call_later(timeout, _resolve, waiter)
            try:
                self._wait_by(waiter)
                await waiter
            finally:
                timer.cancel()
                self._end_wait()
            if self._has_ended and not self._items:
                self._begin_wait()
        items = list(self._items)
        self._items.clear()
        return items

    def _begin_wait(self) -> "Optional[asyncio.Future[None]]":
        """Return what is to end when there are items, or no more of them; ``None`` if there are some already."""
        loop = self._loop or self._bind()
        if asyncio.get_running_loop() is not loop:
            raise RuntimeError("another event loop has begun to read this stream")
        if self._waiter is not None:
            raise RuntimeError("a stream can be read by one task at a time")
        self._read_ahead = READ_AHEAD
        if self._is_idle:
            self._steps.note_patience()
            self.context.run(self._take_turn, True)
        if self._items:
            return None
        if self._has_ended:
            if self._failures:
                raise self._failures.pop()
            raise StopAsyncIteration
        return loop.create_future()

    def _wait_by(self, waiter: "asyncio.Future[None]") -> None:
        self._waiter = waiter
        self._hold()

    def _hold(self) -> None:
        """Have this object live while somebody waits, as ``loop_watch`` says."""
        if self._waiter is None:
            return
        if self._helper is None and not self._is_starting:
            self._let_go()
            self._watch.holder = self
        elif self._hold_timer is None:
            self._watch.holder = None
            self._hold_timer = self._watch.call_late(self)

    def _let_go(self) -> None:
        timer = self._hold_timer
        if timer is not None:
            timer.cancel()
        self._hold_timer = None

    def _end_wait(self) -> None:
        self._waiter = self._watch.holder = None
        if self._hold_timer is not None:
            self._let_go()

    def _bind(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        self._watch = LoopWatch(loop, self)
        self._steps.watched_by(self._watch)
        return loop

    def on_ready(self, looks_at_time: bool = False) -> None:
        """Go on, in this object's context: bytes have arrived, or a thread has closed the stream, or time is over."""
        if (self._helper is not None or self._is_starting) and not self._stream.closed:
            return  # what the thread comes to goes on
        if len(self._items) >= self._read_ahead:  # whoever takes what is there goes on
            self._watch.end()
            self._is_idle = True
            self._wake()
            return
        try:
            if not self._has_ended:
                self._take_turn(looks_at_time)
        finally:
            self._wake()

    def on_time(self) -> None:
        """Go on if the time is over."""
        if not self._watch.set_timer_anew():
            self.on_ready(looks_at_time=True)

    def on_interruption(self) -> None:
        """Close the stream, because a handler of a signal has raised anywhere in here, and tell whoever waits."""
        if not self._has_ended:
            self._end(StreamClosedError("the stream was closed by an interruption", stage="stream"))
        self.close()
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and (self._items or self._has_ended) and not waiter.done():
            waiter.set_result(None)

    def start_help(self) -> bool:
        """Have a thread do what blocks. It holds the steps, and never this object.

        Returns:
            Whether one was started; not if the stream is over, or if there can't be another thread.
        """
        self._is_starting = False
        if self._has_ended or self._stream.closed:
            self.on_ready()
            return False
        try:
            self._helper = ThreadResult(self._steps.help, self._watch.call_on_help)
        except RuntimeError as error:
            self._end(error)
            self._wake()
            return False
        self._hold()
        return True

    def on_help(self) -> None:
        """Go on after a thread that helped has ended."""
        helper, self._helper = self._helper, None
        if self._helper_ended is not None:
            _resolve(self._helper_ended)
        if helper is None or self._has_ended:
            return
        try:
            for item in helper.take():
                if type(item) is not Pause:
                    self._add(item)
        except StopIteration:
            self._end(None)
        except BaseException as error:  # noqa: BLE001 - whoever reads gets it, whatever it is: no handler of a signal ran
            self._end(error)
        self.on_ready()
        self._hold()

    def _take_turn(self, looks_at_time: bool) -> None:
        """Go on until there is nothing more to read."""
        steps, items = self._steps, self._items
        self._is_idle = True
        try:
            if steps.begin_turn(self._add, looks_at_time) and steps.wait():
                self._is_idle = False
                return
            while len(items) < self._read_ahead:
                item = steps.step()
                if type(item) is Pause:
                    self._is_idle = False
                    if item is Pause.BLOCKS or not steps.wait():
                        self._watch.end()
                        self._is_starting = True
                        may_start = item is not Pause.BLOCKS or self._watch.may_start()
                        if may_start and not self.start_help():
                            self._watch.note_no_help()
                    return
                self._add(item)
            self._watch.end()
        except StopIteration:
            self._end(None)
        except Exception as error:  # noqa: BLE001 - whoever reads gets it, whatever it is
            self._end(error)
        except BaseException:  # out of the handler of a signal: it goes through the loop
            self._watch.note_no_help()
            self._end(StreamClosedError("the stream was closed by an interruption", stage="stream"))
            self.close()
            raise

    def _add(self, item: Any) -> None:
        picked = self._pick(item)
        if picked is not None:
            self._items.append(picked)
            if type(item) is Conversation:
                self._read_ahead = 1

    def _end(self, error: Optional[BaseException]) -> None:
        self._has_ended = True
        self._steps.end_watch()
        if isinstance(error, StreamClosedError):
            self._stream.close()  # here, because another thread leaves that to the loop
            error = None if self._is_closing else error
        if error is not None:
            self._failures.append(error)

    async def aclose(self) -> None:
        """Close the stream, and wait for a thread that helps. May be called any number of times."""
        self.close()
        await self.join()

    def join(self) -> Awaitable[None]:
        """Wait a moment for the thread that helps when this is called, after the stream was closed."""
        return self._join(self._helper)

    async def _join(self, helper: Optional[ThreadResult[List[Any]]]) -> None:
        loop = self._loop
        if helper is None or loop is None or asyncio._get_running_loop() is not loop:
            return
        if self._helper is helper:  # else what it came to was taken meanwhile
            self._helper_ended = self._helper_ended or loop.create_future()
            await asyncio.wait({self._helper_ended}, timeout=JOIN_TIMEOUT)
        if helper.wait(0.0):  # else the loop would wait inside of it
            helper.join()

    def close(self) -> None:
        """Close the stream, and wait for nothing. Safe from any thread."""
        self._is_closing = True
        self._stream.close()

    def __del__(self) -> None:
        # If its loop was closed first, nobody awaits aclose any more. An interruption may end __init__ anywhere.
        if "_is_closing" in self.__dict__:
            self.close()


def _resolve(waiter: "asyncio.Future[None]") -> None:
    """End a wait, unless it has ended."""
    if not waiter.done():
        waiter.set_result(None)
