"""``Stream``: one reply while it is read.

A ``Stream`` is a view of one generator, the driver in ``delivery.exchange``, which ``ThreadSteps`` goes on with.
Iterating the stream yields the text, ``events()`` yields all events, ``read()`` goes on to the end, and ``poll()``
waits no longer than it is told to.

Neither the driver nor its steps hold a reference to the ``Stream``, so a stream that nobody holds any more closes at
once.

Threads: a stream is confined to the thread that reads it, but for its end, which is atomic, and its steps, which are
locked.
"""

import contextlib
import threading
from typing import Callable, Generator, Iterator, NoReturn, Optional, Type

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.answer_builder import AnswerBuilder, Closed
from copilot_sync.delivery.answer_cache import CachedQuestion
from copilot_sync.delivery.exchange import Item, drive
from copilot_sync.delivery.message import CallOptions, PendingMessage, new_id
from copilot_sync.delivery.repairs import JudgedBuilder, drive_to_fit
from copilot_sync.errors import StreamClosedError
from copilot_sync.events import ContentEvent, Event
from copilot_sync.models import Answer, Conversation
from copilot_sync.naming import ThreadNaming
from copilot_sync.stepping import Delay
from copilot_sync.stream_steps import ThreadSteps
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
        is_judged = message.expected is not None
        make: Type[AnswerBuilder] = JudgedBuilder if is_judged else AnswerBuilder
        driven: Callable[..., Generator[Item, None, None]] = drive_to_fit if is_judged else drive
        self._builder = make(message.conversation, message.model, answer_id)
        # Whoever is told of a conversation, but not that it is discarded, relies on it.
        self._builder.is_kept = on_start is not None and on_discard is None
        driver = driven(session, message, options, self._call, self._builder, tells_begun=on_start is not None)
        self._cached = CachedQuestion.from_message(
            options.answers, session.urls, message, wants_conversation=on_start is not None
        )
        if self._cached is not None:
            driver = self._cached.driving(driver, self._call, self._builder, session.limits.answer)
        self._steps = ThreadSteps(driver, self._call, self._builder, on_start, on_discard)
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
    def closed(self) -> bool:
        """Whether the stream was closed before its end."""
        return isinstance(self._builder.end, Closed)

    @property
    def attempts(self) -> int:
        """How many times the message was sent so far."""
        return self._call.attempts["message"]

    @property
    def _is_taken(self) -> bool:
        """Whether the service has taken the question, and its answer is being read. For any thread."""
        return self._call.reading is not None

    @property
    def _delay(self) -> Optional[Delay]:
        """What keeps the question from being sent at this moment; ``None`` if nothing does. For any thread."""
        return self._call.delay

    def start(self) -> Conversation:
        """Get as far as the conversation: fetch a token and begin a thread, if either is needed.

        The message is not sent yet. Uses the network only the first time. The conversation is the caller's from now
        on: it is not deleted if its first question is refused.

        Raises:
            StreamClosedError: The stream was closed.
            CopilotError: The conversation could not be begun.
        """
        self._keep_conversation()
        with contextlib.suppress(StopIteration):
            while not self._steps.started:
                self._steps.block()
        return self._started_conversation()

    def _recall(self) -> Optional[Answer]:
        """Return the answer if the cache has it, without beginning anything. It may block."""
        return None if self._cached is None else self._cached.recall()

    def _started_conversation(self) -> Conversation:
        if not self._steps.started or self.conversation is None:
            raise StreamClosedError("the stream ended before its conversation began")
        return self.conversation

    def _keep_conversation(self) -> None:
        """Have a conversation that this stream begins stay, because somebody is told of it."""
        self._builder.is_kept = True

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
        while True:
            item = self._steps.block()
            if type(item) is ContentEvent:
                return item.body

    def poll(self, seconds: float) -> Optional[str]:
        """Wait for the next piece of text, but not for longer than so many seconds.

        For whoever has something else to do while the service thinks, such as to keep a connection of its own alive. A
        thread helps as long as the question is being sent; from then on there is none. The limits of the call hold
        while you poll, and the time from one ``poll`` to the next counts; what arrived meanwhile is never lost.

        >>> while (piece := stream.poll(10)) != "":  # doctest: +SKIP
        ...     print("…" if piece is None else piece, flush=True)

        Args:
            seconds: How long to wait; 0 for not at all.

        Returns:
            The piece, ``None`` if there is none yet, and ``""`` at the end of the answer.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is below zero.
            CopilotError: As when you iterate over the stream.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"poll takes a number of seconds, not {type(seconds).__name__}")
        if not seconds >= 0:
            raise ValueError(f"poll takes a number of seconds, zero at least, not {seconds}")
        try:
            return self._steps.poll(float(seconds))
        except StopIteration:
            return ""

    def events(self) -> Iterator[Event]:
        """Iterate over everything the service says, not the text alone.

        Raises:
            CopilotError: As when you iterate over the stream.
        """
        while True:
            try:
                item = self._steps.block()
            except StopIteration:
                return
            if type(item) is not Conversation:
                yield item

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
        return self._whole_answer()

    def _whole_answer(self) -> Answer:
        if self.answer is None:
            words = "the stream ended before its answer was whole: it was closed, or had failed"
            raise StreamClosedError(words, stage="stream", partial=self.text)
        return self.answer

    def naming(self) -> Optional[ThreadNaming]:
        """Return what asks the service to name the conversation; ``None`` until there is a whole answer of its own.

        Nothing is sent before its ``run``. A later ``close`` cancels it. ``Client.name_thread`` does the same at once,
        and raises errors.
        """
        answer = self.answer
        if answer is None or not answer.complete or answer.cached:
            return None
        self._naming = ThreadNaming(self._session, answer.conversation)
        return self._naming

    def close(self) -> None:
        """Stop reading and free the connection. An answer that is whole stays as it is.

        Any thread and any signal handler may call this, any number of times; it never blocks. A read that is blocked
        in another thread ends at once with ``StreamClosedError``.
        """
        self._builder.note_end(Closed(threading.get_ident()))
        self._call.cancel()
        if self._naming is not None:
            self._naming.cancel()
        self._steps.close_driver()

    def __del__(self) -> None:
        # The driver closes by itself when nobody holds it any more, but a thread that helps does. If __init__ raised,
        # there is none.
        if "is_new" in self.__dict__ and self._steps.is_helped:
            self.close()

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
