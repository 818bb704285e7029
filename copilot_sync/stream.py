"""``Stream``: one reply while it is read.

A ``Stream`` is a view of one generator, the driver in ``delivery.exchange``. Iterating the stream yields the text,
``events()`` yields all events, ``read()`` runs the driver to its end. The asyncio adapter runs it in a thread.

How a stream ended is noted once, by whoever is first: the driver notes an answer or a failure, ``close`` notes the
thread that called it. All later calls go by that note, so no timing decides what a reader sees.

The driver holds no reference to its ``Stream``, so a stream that nobody holds any more closes at once.

Threads: a stream is confined to the thread that reads it, but for its end, which is atomic, and its driver, which is
locked.
"""

import contextlib
import threading
from typing import Any, Callable, Iterator, NoReturn, Optional

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.answer import FAILED, AnswerBuilder, Closed
from copilot_sync.delivery.exchange import drive
from copilot_sync.delivery.message import CallOptions, PendingMessage, new_id
from copilot_sync.errors import CopilotError, StreamClosedError
from copilot_sync.events import ContentEvent, Event
from copilot_sync.models import Answer, Conversation
from copilot_sync.naming import ThreadNaming
from copilot_sync.transport.call import CallContext


class Stream:
    """One reply, read while it is written.

    Iterate it for the pieces of text, or ``events()`` for everything the service says; ``read()`` returns the whole
    answer. Nothing is sent before you ask for the first item. One thread reads a stream; any thread may call
    ``close``. Leaving a ``with`` block, ``close()`` and garbage collection free the connection at once.

    ``Client.stream`` and ``Chat.stream`` make streams.
    """

    def __init__(
        self,
        session: ApiSession,
        message: PendingMessage,
        options: CallOptions,
        on_start: Optional[Callable[[Conversation], None]] = None,
        on_discard: Optional[Callable[[Conversation], None]] = None,
    ) -> None:
        answer_id = new_id() if message.handle is None else message.handle.answer_id
        #: What is asked. A chat remembers it.
        self._message = message
        self._call = CallContext(options.timeout)
        self._builder = AnswerBuilder(message.conversation, message.model, answer_id)
        self._ends = self._builder.ends
        self._driver = drive(session, message, options, self._call, self._builder)
        # Whoever holds it may enter the driver: without the GIL, two threads in one generator crash Python. Nobody
        # waits for it. If a signal handler raises just before it is released, its thread can still enter.
        self._inside = threading.RLock()
        # Whoever is told of a conversation, but not that it is discarded, relies on it.
        self._builder.is_kept = on_start is not None and on_discard is None
        self._on_start = on_start
        self._on_discard = on_discard
        self._started = False
        self._begun: Optional[Conversation] = None
        self._session = session
        self._naming: Optional[ThreadNaming] = None
        #: Whether this stream begins a new conversation.
        self.is_new: bool = message.conversation is None

    @property
    def text(self) -> str:
        """The text so far, including the piece that is being yielded."""
        return self._builder.text

    @property
    def conversation(self) -> Optional[Conversation]:
        """The conversation; ``None`` before ``start`` or the first item, if it is new, and when it was discarded."""
        return self._builder.conversation

    @property
    def answer(self) -> Optional[Answer]:
        """The finished answer; ``None`` until the end."""
        return self._builder.answer

    @property
    def attempts(self) -> int:
        """How many times the message was sent so far."""
        return self._call.attempts["message"]

    def start(self) -> Conversation:
        """Get as far as the conversation: fetch a token and begin a thread, if either is needed.

        The message is not sent yet. Uses the network only the first time. The conversation is the caller's from now
        on: it is not deleted if its first question is refused.

        Raises:
            StreamClosedError: The stream was closed.
            CopilotError: The conversation could not be begun.
        """
        self._builder.is_kept = True
        if not self._started:
            with contextlib.suppress(StopIteration):
                self._begin()
        if not self._started or self.conversation is None:
            raise StreamClosedError("the stream ended before its conversation began")
        return self.conversation

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> str:
        """Wait for the next piece of text.

        Raises:
            StopIteration: The answer has ended, or this thread closed the stream.
            StreamInterruptedError: The answer was cut; ``partial`` holds what had come.
            StreamClosedError: Another thread closed the stream.
            CopilotError: Anything else went wrong.
        """
        if not self._started:
            self._begin()
        while True:
            event = self._advance()
            if type(event) is ContentEvent:
                return event.body

    def events(self) -> Iterator[Event]:
        """Iterate over everything the service says, not the text alone.

        Raises:
            CopilotError: As when you iterate over the stream.
        """
        while True:
            try:
                event = self._next_event()
            except StopIteration:
                return
            yield event

    def read(self) -> Answer:
        """Read the rest of the answer, and return the whole of it.

        The answer includes text that you already iterated over. After the end, the same answer is returned again.

        >>> answer = client.stream("Explain WSGI").read()  # doctest: +SKIP

        Raises:
            StreamInterruptedError: The answer was cut; ``partial`` holds what had come.
            StreamClosedError: The stream was closed before its end, or had failed before; ``partial`` as above.
            RuntimeError: Another thread is reading the stream.
            CopilotError: Anything else went wrong.
        """
        if self.answer is None:
            for _ in self:
                pass
        if self.answer is None:
            words = "the stream ended before its answer was whole: it was closed, or had failed"
            raise StreamClosedError(words, stage="stream", partial=self.text)
        return self.answer

    def naming(self) -> Optional[ThreadNaming]:
        """Return what asks the service to name the conversation; ``None`` until there is a whole answer.

        Nothing is sent before its ``run``. A later ``close`` cancels it. ``Client.name_thread`` does the same at once,
        and raises errors.
        """
        answer = self.answer
        if answer is None or not answer.complete:
            return None
        self._naming = ThreadNaming(self._session, answer.conversation)
        return self._naming

    def _next_event(self) -> Event:
        if not self._started:
            self._begin()
        return self._advance()  # type: ignore[no-any-return] # after its conversation, the driver yields events alone

    def _begin(self) -> None:
        conversation = self._advance()
        self._started = True
        self._begun = conversation
        if self._on_start is not None:
            self._on_start(conversation)

    def _advance(self) -> Any:
        if self._ends and isinstance(self._builder.end, Closed):
            self._stop()
        if not self._inside.acquire(False):
            self._refuse_second_reader()
        try:
            return next(self._driver)
        except StopIteration:
            self._stop()
        except CopilotError:
            self._note_discard()
            if not isinstance(self._builder.note_end(FAILED), Closed):
                raise
            self._stop()
        except ValueError as error:
            if "already executing" not in str(error):
                raise
            self._refuse_second_reader()
        finally:
            self._inside.release()
            if self._ends and isinstance(self._builder.end, Closed):
                self._close_driver()

    def _refuse_second_reader(self) -> NoReturn:
        """End the iteration of a thread while another is inside the driver, or of a signal handler while its own is."""
        if not isinstance(self._builder.end, Closed):
            raise RuntimeError("a stream can be read by one thread at a time") from None
        self._stop()

    def _close_driver(self) -> None:
        """Close the driver, unless a thread is inside. That one does it when it comes out."""
        if self._inside.acquire(False):
            try:
                with contextlib.suppress(ValueError):  # a signal handler closes it while its own thread is inside
                    self._driver.close()
            finally:
                self._inside.release()

    def _note_discard(self) -> None:
        """Say that the conversation that this stream began is of no use any more."""
        if self._begun is not None and self.conversation is None and self._on_discard is not None:
            self._on_discard(self._begun)

    def _stop(self) -> NoReturn:
        """End the iteration: quietly, or with an error if another thread closed the stream."""
        end = self._builder.end
        if isinstance(end, Closed) and end.thread != threading.get_ident():
            error = StreamClosedError("the stream was closed by another thread", stage="stream")
            error.partial = self.text
            raise error from None
        raise StopIteration

    def close(self) -> None:
        """Stop reading and free the connection. An answer that is whole stays as it is.

        Any thread and any signal handler may call this, any number of times; it never blocks. A read that is blocked
        in another thread ends at once with ``StreamClosedError``.
        """
        self._builder.note_end(Closed(threading.get_ident()))
        self._call.cancel()
        if self._naming is not None:
            self._naming.cancel()
        self._close_driver()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Stream is a live connection and can't be pickled; pickle its answer or its conversation")

    def __repr__(self) -> str:
        end = self._builder.end
        state = "open" if end is None else "closed" if isinstance(end, Closed) else "finished"
        return f"<Stream {state}, {len(self.text)} characters>"
