"""An answer as the body of a response, for ASGI servers: the asynchronous twin of ``bodies``.

The event loop reads the answer. The cache may block, so the executor of the loop talks to it. If the reader leaves, the
loop reads on, for the same bounded time.

Threads: confined to the loop, but for ``close``. What blocks runs in the executor, one call at a time.
"""

import asyncio
import contextlib
import contextvars
import time
from typing import Any, AsyncIterator, Callable, Optional, Set, TypeVar

from copilot_sync.contrib.chat.bodies import MOST_READ_ON, BodyOptions
from copilot_sync.contrib.chat.readings import HEARTBEAT, AnswerFollowing, AnswerReading
from copilot_sync.contrib.sse import COMMENT, PREAMBLE
from copilot_sync.contrib.sse_async import AsyncEventStream

T = TypeVar("T")

#: What reads on, or writes for the last time. The loop itself holds its tasks weakly.
_finishing: "Set[asyncio.Future[None]]" = set()


async def _in_executor(function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, function)


class AsyncChatBody(AsyncIterator[bytes]):
    """An answer that is read from the service.

    Args:
        reading: The answer.
        options: How it is sent. ``on_complete`` is awaited, and ``after`` is not needed: nothing here has a thread.
        begins: Whether it begins with the ``started`` event.
    """

    def __init__(self, reading: AnswerReading, options: BodyOptions, *, begins: bool = True) -> None:
        self._reading = reading
        self._options = options
        self._has_begun = not begins
        self._has_left = False
        self._step: Optional[asyncio.Future[Optional[bytes]]] = None
        self._body = self._new_body()

    def _new_body(self) -> AsyncEventStream:
        return AsyncEventStream(
            self._reading.stream,
            heartbeat=HEARTBEAT,
            on_complete=self._options.on_complete,  # type: ignore[arg-type]
            name_thread=self._options.name_thread,
            format=self._reading,
        )

    async def __anext__(self) -> bytes:
        """Wait for the next bytes to send.

        Raises:
            StopAsyncIteration: Everything has been sent.
        """
        if not self._has_begun:
            self._has_begun = True
            return PREAMBLE + self._reading.started()
        if self._has_left:
            raise StopAsyncIteration
        self._step = asyncio.ensure_future(self._next())
        try:
            events = await asyncio.shield(self._step)  # which goes on if the reader leaves
        except asyncio.CancelledError:
            if self._reading.has_ended:  # the conversation gets its name, which takes seconds
                await asyncio.wait({self._step})
            else:
                self.close()
            raise
        if events is None:
            raise StopAsyncIteration
        return events

    async def _next(self) -> Optional[bytes]:
        """Wait for the next bytes; ``None`` after the last."""
        reading = self._reading
        if reading.record.is_due and not await _in_executor(reading.record.write):
            await self._body.aclose()
            events = reading.stopped()
        else:
            try:
                events = await self._body.__anext__()
            except StopAsyncIteration:
                return None
        if reading.has_ended and reading.record.is_due:
            await _in_executor(reading.record.write)
        if reading.is_due_again:
            reading.look_again()
            self._body = self._new_body()
        return events

    def close(self) -> None:
        """Say that the reader has left, or has got everything. Safe from any thread, any number of times."""
        if self._has_left:
            return
        self._has_left = True
        until = time.monotonic() + self._options.background
        if self._step is None or not self._reading.is_of_use or len(_finishing) >= MOST_READ_ON:
            self._body.close()
        if self._step is None:  # nobody has read any of it
            self._reading.record.leave()
            return
        with contextlib.suppress(RuntimeError):  # the loop was closed
            # In a context of its own: that of the request, or of the thread that calls, is about to end.
            call = self._step.get_loop().call_soon_threadsafe
            contextvars.Context().run(call, self._begin_to_finish, self._step, until)

    def _begin_to_finish(self, step: "asyncio.Future[Optional[bytes]]", until: float) -> None:
        task = asyncio.ensure_future(self._finish(step, until))
        _finishing.add(task)
        task.add_done_callback(_finishing.discard)

    async def _finish(self, step: "asyncio.Future[Optional[bytes]]", until: float) -> None:
        if await self._may_go_on(until):
            await asyncio.wait({step})
            while await self._may_go_on(until) and await self._next() is not None:
                pass
        self._body.close()
        await asyncio.wait({step})
        if not self._reading.has_ended:
            await _in_executor(self._reading.record.leave)

    async def _may_go_on(self, until: float) -> bool:
        return await _in_executor(lambda: self._reading.may_go_on(until))

    async def aclose(self) -> None:
        """Do the same as ``close``."""
        self.close()

    def __del__(self) -> None:
        # If __init__ raised, there is nothing to close.
        if hasattr(self, "_body"):
            self.close()


class AsyncFollowingBody(AsyncIterator[bytes]):
    """An answer that another reader keeps, and that is taken over if that reader dies.

    Args:
        following: The answer.
        options: How it is sent if it is taken over.
    """

    def __init__(self, following: AnswerFollowing, options: BodyOptions) -> None:
        self._following = following
        self._options = options
        self._has_begun = False
        self._own: Optional[AsyncChatBody] = None

    async def __anext__(self) -> bytes:
        """Wait for the next bytes to send.

        Raises:
            StopAsyncIteration: Everything has been sent.
        """
        following = self._following
        if self._own is not None:
            return await self._own.__anext__()
        if not self._has_begun:
            self._has_begun = True
            return PREAMBLE + following.started()
        if following.has_ended:
            raise StopAsyncIteration
        events = await _in_executor(following.step)
        if following.reading is not None:
            self._own = AsyncChatBody(following.reading, self._options, begins=False)
        elif events is None:
            await asyncio.sleep(HEARTBEAT)
        return events or COMMENT

    def close(self) -> None:
        """Say that the reader has left, or has got everything. Safe from any thread, any number of times."""
        if self._own is not None:
            self._own.close()

    async def aclose(self) -> None:
        """Do the same as ``close``."""
        self.close()


def async_body_of(answer: Any, options: BodyOptions) -> AsyncIterator[bytes]:
    """Return the body for an ``AnswerReading`` or an ``AnswerFollowing``."""
    return AsyncChatBody(answer, options) if isinstance(answer, AnswerReading) else AsyncFollowingBody(answer, options)
