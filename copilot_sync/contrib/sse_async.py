"""A ``Stream`` as server-sent events for browsers, for ASGI servers: the asynchronous twin of ``sse``.

The events are those of ``sse``. The event loop itself reads the stream, and wakes up when a comment is due.
This is a separate module so that a WSGI server does not load asyncio.
"""

import asyncio
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List, Optional, Tuple, Union

from copilot_sync.aio.reader import AsyncReader, text_of
from copilot_sync.aio.stream import AsyncStream
from copilot_sync.aio.threads import run_in_thread
from copilot_sync.contrib.sse import (
    COMMENT,
    HEARTBEAT,
    PREAMBLE,
    EventFormat,
    HeartbeatTimer,
    check_heartbeat,
    check_name_thread,
    check_stream,
    complete_answer,
    complete_data,
    error_data,
    failed_answer,
    is_gone,
    log_failure,
    looks,
    looks_at_taking,
    not_kept_data,
    waiting_event,
)
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer
from copilot_sync.naming import ThreadNaming
from copilot_sync.stream import Stream

__all__ = ["AsyncEventStream"]


class AsyncEventStream(AsyncIterator[bytes]):
    """A ``Stream`` as the body of a ``text/event-stream`` response under ASGI, read by the event loop.

    Cancelling the task that waits for it, ``aclose()``, ``close()`` and garbage collection free the upstream connection
    at once.

    Args:
        stream: The stream to send, of a ``Client`` or an ``AsyncClient``. It may have been started; nothing else may
            read it.
        heartbeat: Seconds of silence after which a comment goes out. Default 10.
        on_complete: Awaited with the answer before the ``complete`` event. If it raises an ``Exception``, that is
            logged, and the page gets an ``error`` event with the code ``not_kept`` instead.
        name_thread: As for ``EventStream``. Default ``True``.
        format: As for ``EventStream``.

    Raises:
        TypeError: ``stream`` is neither a ``Stream`` nor an ``AsyncStream``, ``heartbeat`` is not a number, or
            ``name_thread`` neither ``True`` nor ``False``.
        ValueError: ``heartbeat`` is not above zero, or some of the answer of an ``AsyncStream`` was read already.
    """

    def __init__(
        self,
        stream: Union[Stream, AsyncStream],
        *,
        heartbeat: float = HEARTBEAT,
        on_complete: Optional[Callable[[Answer], Awaitable[object]]] = None,
        name_thread: bool = True,
        format: Optional[EventFormat] = None,
    ) -> None:
        self._given = stream  # an AsyncStream that nobody holds closes
        self._stream = stream = check_stream(stream._handed_over() if isinstance(stream, AsyncStream) else stream)
        self._heartbeat = HeartbeatTimer(check_heartbeat(heartbeat))
        self._on_complete = on_complete
        self._name_thread = check_name_thread(name_thread)
        self._format = format or EventFormat()
        self._naming: Optional[ThreadNaming] = None
        self._pieces: AsyncReader[str] = AsyncReader(stream, text_of)
        self._early_pieces: List[str] = []
        self._early_failure: Optional[CopilotError] = None
        self._begun = False
        self._ended = False

    async def finds_conversation(self) -> bool:
        """Do the same as ``EventStream.finds_conversation``."""
        try:
            for seconds in looks_at_taking(self._stream):
                self._early_pieces = await self._pieces.take(seconds)
                if self._early_pieces:
                    break
        except StopAsyncIteration:  # which comes again
            pass
        except CopilotError as error:
            self._early_failure = error
        except BaseException:  # such as a cancellation: nobody has this yet who would close it
            self.close()
            raise
        return not is_gone(self._early_failure)

    async def _take(self, seconds: float) -> List[str]:
        if self._early_failure is not None:
            raise self._early_failure
        pieces, self._early_pieces = self._early_pieces, []
        return pieces or await self._pieces.take(seconds)

    async def __anext__(self) -> bytes:
        """Wait for the next bytes to send: one or several events, or a comment.

        Raises:
            StopAsyncIteration: Everything has been sent, or it was closed.
        """
        if self._ended:
            if self._naming is not None:  # the server asks for more, so it has sent the last event
                await _run(self._naming)
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            return PREAMBLE
        try:
            for seconds in looks(self._stream, self._heartbeat.next_wait()):
                pieces = await self._take(seconds)
                if pieces:
                    self._heartbeat.reset()
                    return self._format.content(pieces)
                waiting = waiting_event(self._stream)
                if waiting is not None:
                    return waiting
        except asyncio.CancelledError:
            self.close()
            raise
        except CopilotError as error:
            return self._failed(error)
        except StopAsyncIteration:
            return await self._last()
        return COMMENT

    def _failed(self, error: CopilotError) -> bytes:
        if self._ended:
            raise StopAsyncIteration from None
        self.close()
        log_failure(error)
        return self._format.last(error_data(error, self._stream.conversation))

    async def _last(self) -> bytes:
        """Return the event that ends the response."""
        self.close()
        answer = self._stream.answer
        if answer is None:  # its own reader closed the stream, such as the ``on_start`` function
            raise StopAsyncIteration
        if self._name_thread and self._stream.is_new:
            self._naming = self._stream.naming()
        try:
            if self._on_complete is not None:
                await self._on_complete(answer)
        except Exception as error:  # noqa: BLE001 - as in the blocking twin
            return self._format.last(not_kept_data(answer, error))
        return self._format.last(complete_data(answer))

    def close(self) -> None:
        """End the response and the upstream connection without waiting. Safe from any thread, any number of times."""
        self._ended = True
        self._stream.close()
        self._pieces.close()

    async def aclose(self) -> None:
        """End the response and the upstream connection, and wait for a thread that sends the question.

        May be called any number of times.
        """
        self.close()
        await self._pieces.aclose()

    def __del__(self) -> None:
        # If __init__ raised, there is nothing to close.
        if hasattr(self, "_pieces"):
            self.close()


async def whole_answer(stream: Stream) -> Tuple[Dict[str, Any], int]:
    """Do the same as ``sse.whole_answer``, without blocking the event loop. A task that is cancelled ends the call."""
    try:
        async with AsyncStream(stream) as reading:
            answer = await reading.read()
    except CopilotError as error:
        return failed_answer(error, stream.conversation)
    return complete_answer(answer)


async def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that runs this."""
    return asyncio.get_running_loop()


async def _run(naming: ThreadNaming) -> None:
    """Run a naming in a thread and wait for its end, which comes within seconds.

    Many pages close the connection at the last event, and many servers then cancel the task that sends. That ends the
    naming the second time only: it has just begun.
    """
    running = asyncio.ensure_future(run_in_thread(naming.run, naming.cancel))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await running
        raise
