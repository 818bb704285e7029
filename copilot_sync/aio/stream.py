"""``AsyncStream``: one reply while it is read, by an asyncio event loop.

A view of a ``Stream``, whose items an ``AsyncReader`` reads. What it adds is who closed it: a task that closes its own
stream reads no more, any other one learns that the answer was cut off.

Threads: confined to the loop, but for ``close`` and what only looks.
"""

import asyncio
import contextlib
import weakref
from typing import Any, AsyncIterator, NoReturn, Optional

from copilot_sync.aio.reader import AsyncReader
from copilot_sync.errors import StreamClosedError
from copilot_sync.events import ContentEvent, Event
from copilot_sync.models import Answer, Conversation
from copilot_sync.stream import Stream


class AsyncStream:
    """One reply, read while it is written, without blocking the event loop.

    >>> async with client.stream("Explain WSGI") as stream:  # doctest: +SKIP
    ...     async for piece in stream:
    ...         print(piece)

    Iterate it for the pieces of text, or ``events()`` for everything the service says; ``await stream.read()`` returns
    the whole answer. Nothing is sent before you ask for the first item. From then on the loop reads what arrives, up to
    256 items ahead of you. One task at a time reads a stream, in one event loop. A wait that is cancelled, as by
    ``asyncio.wait_for``, loses nothing: ask again. Leaving an ``async with`` block, ``close()`` and garbage collection
    free the connection at once.

    ``AsyncClient.stream`` and ``AsyncChat.stream`` make streams.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._items: AsyncReader[Any] = AsyncReader(stream, _everything)
        self._has_ended = False
        self._is_closed = False
        self._closer: Optional[weakref.ref[asyncio.Task[Any]]] = None

    @property
    def text(self) -> str:
        """The text that has arrived so far. It may be ahead of the pieces that you were handed."""
        return self._stream.text

    @property
    def conversation(self) -> Optional[Conversation]:
        """The conversation; ``None`` before ``start`` or the first item, if it is new, and when it was discarded."""
        return self._stream.conversation

    @property
    def answer(self) -> Optional[Answer]:
        """The finished answer; ``None`` until all of it has arrived."""
        return self._stream.answer

    @property
    def closed(self) -> bool:
        """Whether the stream was closed before all of its answer had arrived."""
        return self._stream.closed

    @property
    def attempts(self) -> int:
        """How many times the message was sent so far."""
        return self._stream.attempts

    @property
    def is_new(self) -> bool:
        """Whether this stream begins a new conversation."""
        return self._stream.is_new

    async def start(self) -> Conversation:
        """Get as far as the conversation: fetch a token and begin a thread, if either is needed.

        The message is not sent yet. Uses the network only the first time. The conversation is the caller's from now
        on: it is not deleted if its first question is refused.

        Raises:
            StreamClosedError: The stream was closed.
            RuntimeError: Another task is reading the stream.
            CopilotError: The conversation could not be begun.
        """
        self._stream._keep_conversation()
        if not self._stream._steps.started:
            with contextlib.suppress(StopAsyncIteration):
                await self._next()
        return self._stream._started_conversation()

    def __aiter__(self) -> "AsyncStream":
        return self

    async def __anext__(self) -> str:
        """Wait for the next piece of text.

        Raises:
            StopAsyncIteration: The answer has ended, or this task closed the stream.
            StreamInterruptedError: The answer was cut; ``partial`` holds what had come.
            StreamClosedError: Another task, or a thread, closed the stream.
            RuntimeError: Another task is reading the stream, or it was begun in another event loop.
            CopilotError: Anything else went wrong.
        """
        while True:
            item = await self._next()
            if type(item) is ContentEvent:
                return item.body

    def events(self) -> AsyncIterator[Event]:
        """Iterate over everything the service says, not the text alone.

        Raises:
            CopilotError: As when you iterate over the stream.
        """
        return _StreamEvents(self)

    async def read(self) -> Answer:
        """Read the rest of the answer, and return the whole of it.

        The answer includes text that you already iterated over. After the end, the same answer is returned again.

        Raises:
            StreamInterruptedError: The answer was cut; ``partial`` holds what had come.
            StreamClosedError: The stream was closed before its end, or had failed before; ``partial`` as above.
            RuntimeError: Another task is reading the stream, or it was begun in another event loop.
            CopilotError: Anything else went wrong.
        """
        if self.answer is None:
            async for _ in self:
                pass
        return self._stream._whole_answer()

    def _handed_over(self) -> Stream:
        """Return the stream under this one, for somebody else to read. This object has to live as long as that one.

        Raises:
            ValueError: Some of the answer was read already.
        """
        if not self._items.is_at_rest or self.text:
            raise ValueError("the stream has been read from: pass one of which nothing but start() was awaited")
        return self._stream

    async def _next(self) -> Any:
        self._check_closed()
        try:
            return await self._items.__anext__()
        except (StopAsyncIteration, StreamClosedError):
            self._check_closed()
            self._has_ended = True
            raise

    def _check_closed(self) -> None:
        """End the iteration if the stream was closed: quietly, or with an error if this task did not close it."""
        if self._has_ended or not (self._is_closed or self._stream.closed):
            return
        if self._closer is not None and self._closer() is asyncio.current_task():
            raise StopAsyncIteration
        error = StreamClosedError("the stream was closed by another task or thread", stage="stream")
        error.partial = self.text
        raise error from None

    async def aclose(self) -> None:
        """Close the stream, and wait a moment for the thread that sends the question, if there is one.

        May be called any number of times.
        """
        self.close()
        await self._items.join()

    def close(self) -> None:
        """Stop reading and free the connection. An answer that is whole stays as it is.

        Any task, thread and signal handler may call this, any number of times; it never blocks. Another task that
        reads the stream gets ``StreamClosedError`` at once.
        """
        if not self._is_closed:
            task = _current_task()
            self._closer = None if task is None else weakref.ref(task)
            self._is_closed = True
        self._stream.close()

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AsyncStream is a live connection and can't be pickled; pickle its answer")

    def __repr__(self) -> str:
        return repr(self._stream).replace("Stream", "AsyncStream", 1)


class _StreamEvents(AsyncIterator[Event]):
    """The events of a stream. No async generator, so that one that nobody holds any more is gone at once."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Event:
        while True:
            item = await self._stream._next()
            if type(item) is not Conversation:
                return item  # type: ignore[no-any-return]


def _everything(item: Any) -> Any:
    return item


def _current_task() -> "Optional[asyncio.Task[Any]]":
    """Return the task that runs in this thread; ``None`` if there is none."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return None
