"""A ``Stream`` as server-sent events for browsers, for ASGI servers: the asynchronous twin of ``sse``.

The events are those of ``sse``. The stream is read in the one thread that ``aio`` has for it; while nothing comes,
the event loop's clock says when a comment is due. It is a module of its own so that nothing of asyncio is loaded
where WSGI is served.
"""

import asyncio
from typing import AsyncIterator, Awaitable, Callable, Optional

from copilot_sync.aio import AsyncReader
from copilot_sync.contrib.sse import (
    COMMENT,
    HEARTBEAT,
    PREAMBLE,
    HeartbeatTimer,
    check_heartbeat,
    complete_event,
    content_event,
    error_event,
    log_failure,
    not_kept_event,
)
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer
from copilot_sync.stream import Stream


class AsyncEventStream(AsyncIterator[bytes]):
    """A blocking ``Stream`` as the body of a ``text/event-stream`` response under ASGI.

    Cancelling what waits for it, ``aclose()``, ``close()`` and garbage collection free the upstream connection at once.

    Args:
        stream: What is sent on. It may have been started; nothing else may read it.
        heartbeat: Seconds of silence after which a comment goes out. Default 10.
        on_complete: Awaited with the answer before the page is told that it is whole. If it raises an ``Exception``,
            that is logged, and the page gets an ``error`` with the code ``not_kept``.

    Raises:
        TypeError: ``heartbeat`` is no number.
        ValueError: ``heartbeat`` is not above zero.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        heartbeat: float = HEARTBEAT,
        on_complete: Optional[Callable[[Answer], Awaitable[object]]] = None,
    ) -> None:
        self._stream = stream
        self._heartbeat = HeartbeatTimer(check_heartbeat(heartbeat))
        self._on_complete = on_complete
        self._pieces: AsyncReader[str] = AsyncReader(stream, stream.close)
        self._begun = False
        self._ended = False

    async def __anext__(self) -> bytes:
        """Wait for what is to be sent next: one event, several that have come, or a comment.

        Raises:
            StopAsyncIteration: All has been sent, or it was closed.
        """
        if self._ended:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            return PREAMBLE
        try:
            pieces = await self._pieces.take(self._heartbeat.next_wait())
        except asyncio.CancelledError:
            self.close()
            raise
        except CopilotError as error:
            return self._failed(error)
        except StopAsyncIteration:
            return await self._last()
        if not pieces:
            return COMMENT
        self._heartbeat.reset()
        return b"".join(map(content_event, pieces))

    def _failed(self, error: CopilotError) -> bytes:
        if self._ended:
            raise StopAsyncIteration from None
        self.close()
        log_failure(error)
        return error_event(error, self._stream.conversation)

    async def _last(self) -> bytes:
        """The event that ends the response."""
        self.close()
        answer = self._stream.answer
        if answer is None:  # closed by what reads it, such as the function that is told of the conversation
            raise StopAsyncIteration
        try:
            if self._on_complete is not None:
                await self._on_complete(answer)
        except Exception as error:  # noqa: BLE001 - as in the blocking twin
            return not_kept_event(answer, error)
        return complete_event(answer)

    def close(self) -> None:
        """End the response and free the upstream connection, without waiting. From any thread, any number of times."""
        self._ended = True
        self._stream.close()
        self._pieces.close()

    async def aclose(self) -> None:
        """End the response, free the upstream connection, and wait for its thread to end. Any number of times."""
        self.close()
        await self._pieces.aclose()

    def __del__(self) -> None:
        # If __init__ refused its arguments, there is nothing to close.
        if hasattr(self, "_pieces"):
            self.close()
