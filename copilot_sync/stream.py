"""One reply being read: ``Stream``, and the one generator that drives it.

The driver goes through the stages of a call (token, thread, message, answer) and yields what
comes: the conversation once it is known, then the events. Everything else is a view of it: iterating
a ``Stream`` gives the text, ``events()`` gives all events, ``read()`` runs it to its end, the asyncio adapter
runs it in a thread.

What may have been taken by the service is never just sent again. Where the outcome of a message is
unknown, the thread is looked at first; where an answer was cut, its rest is looked for there.

====================================================  ==========================================
what happened to the message                          then
====================================================  ==========================================
no connection; 408, 409, 425, 429;                    not taken: it is sent again
503 with ``Retry-After``; 401 after a new token
cut or silent before the whole head of a reply;       unknown: the thread is looked at, and it is sent
500, 502, 504, 503 without ``Retry-After``;           again only where it is not there
a reply that ended before its first content
any other status; an ``error`` event; anything        final: never sent again
after the first content
====================================================  ==========================================

The driver holds no reference to its ``Stream``, so that a stream that nobody holds any more closes at once.
"""

import contextlib
import io
import logging
import threading
import unicodedata
from dataclasses import dataclass
from typing import Any, Callable, Generator, Iterator, List, NoReturn, Optional, Tuple, Union

from copilot_sync import protocol
from copilot_sync.auth.access import Access
from copilot_sync.errors import (
    CopilotError,
    NetworkError,
    ProtocolError,
    RequestTimeoutError,
    ResponseTooLargeError,
    StreamClosedError,
    StreamInterruptedError,
)
from copilot_sync.events import AnnotationsEvent, CompleteEvent, ContentEvent, ErrorEvent, Event, RoutedModelEvent
from copilot_sync.models import Answer, Conversation, Message, Receipt
from copilot_sync.protocol import Options
from copilot_sync.settings import LOOK_PATIENCE, Timeout
from copilot_sync.transport.call import Call
from copilot_sync.transport.retry import Backoff, Outcome, RetryPolicy, outcome_of
from copilot_sync.transport.session import Response
from copilot_sync.transport.sse import EventParser

logger = logging.getLogger(__name__)

#: Seconds between the first two looks at a thread, and the longest between two.
_FIRST_LOOK = 0.25
_LONGEST_LOOK = 4.0
#: How much of the time that is left is spent waiting for an answer, so that a last look still fits.
_SHARE_OF_WAITING = 0.9


@dataclass(frozen=True)
class Turn:
    """What is asked.

    ``only_whole`` says that nothing of the answer is handed out before all of it is there. A ``receipt`` says where the
    message goes, what it answers and what its answer is called; without one, that is found out on the way.
    """

    content: str
    model: str
    options: Options
    conversation: Optional[Conversation]
    only_whole: bool = False
    receipt: Optional[Receipt] = None


@dataclass(frozen=True)
class Rules:
    """How a call behaves: its time limits, its retries, and whether the rest of a cut answer is fetched."""

    timeout: Timeout
    retry: Optional[RetryPolicy]
    resume: bool


class Stream:
    """One reply, read while it is written.

    Iterate it for the pieces of text, or ``events()`` for everything the service says; ``read()`` gives the whole
    answer. Nothing is sent before the first item is asked for. One thread reads a stream; ``close`` may be called
    from any. Leaving a ``with`` block, ``close()`` and garbage collection free the connection at once.

    Streams are made by ``Client.stream`` and ``Chat.stream``.
    """

    def __init__(
        self,
        access: Access,
        turn: Turn,
        rules: Rules,
        on_start: Optional[Callable[[Conversation], None]] = None,
    ) -> None:
        self._call = Call(rules.timeout)
        self._reading = _Reading(turn)
        self._driver = _drive(access, turn, rules, self._call, self._reading)
        self._on_start = on_start
        self._started = False
        self._finished = False
        self._closed_by: Optional[int] = None

    @property
    def text(self) -> str:
        """The text so far, the piece that is being yielded included."""
        return self._reading.text

    @property
    def conversation(self) -> Optional[Conversation]:
        """The conversation, ``None`` before ``start`` or the first item."""
        return self._reading.conversation

    @property
    def answer(self) -> Optional[Answer]:
        """The finished answer, ``None`` until the end."""
        return self._reading.answer

    @property
    def attempts(self) -> int:
        """How many times the message was sent so far."""
        return self._call.attempts["message"]

    def start(self) -> Conversation:
        """Get as far as the conversation: fetch the token and begin a thread where they are needed.

        Nothing of the message is sent yet. Uses the network, once.

        Raises:
            StreamClosedError: The stream was closed.
            CopilotError: Whatever kept the conversation from being begun.
        """
        if not self._started:
            with contextlib.suppress(StopIteration):
                self._begin()
        if self.conversation is None:
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
            CopilotError: Whatever else went wrong.
        """
        if not self._started:
            self._begin()
        while True:
            event = self._advance()
            if type(event) is ContentEvent:
                return event.body

    def events(self) -> Iterator[Event]:
        """Iterate everything the service says instead of the text alone.

        Raises:
            CopilotError: As iterating the stream does.
        """
        while True:
            try:
                event = self._next_event()
            except StopIteration:
                return
            yield event

    def read(self) -> Answer:
        """Read what is left of the answer, and give the whole of it.

        What was iterated before is in the answer too. After the end, it gives the same answer again.

        >>> answer = client.stream("Explain WSGI").read()  # doctest: +SKIP

        Raises:
            StreamInterruptedError: The answer was cut; ``partial`` holds what had come.
            StreamClosedError: The stream was closed before its end, or had failed before; ``partial`` likewise.
            RuntimeError: Another thread is reading the stream.
            CopilotError: Whatever else went wrong.
        """
        if self.answer is None:
            for _ in self:
                pass
        if self.answer is None:
            words = "the stream ended before its answer was whole: it was closed, or had failed"
            raise StreamClosedError(words, stage="stream", partial=self.text)
        return self.answer

    def _next_event(self) -> Event:
        if not self._started:
            self._begin()
        return self._advance()  # type: ignore[no-any-return] # after its conversation, the driver yields events alone

    def _begin(self) -> None:
        conversation = self._advance()
        self._started = True
        if self._on_start is not None:
            self._on_start(conversation)

    def _advance(self) -> Any:
        if self._closed_by is not None:
            self._stop()
        try:
            return next(self._driver)
        except StopIteration:
            self._finished = True
            raise
        except StreamClosedError:
            if self._closed_by is None:  # a forked child has no part in its parent's streams
                raise
            self._stop()
        except CopilotError:
            self._finished = True
            raise
        except ValueError as error:
            if "already executing" not in str(error):
                raise
            raise RuntimeError("a stream can be read by one thread at a time") from None

    def _stop(self) -> NoReturn:
        """End the iteration of a stream that was closed, as the thread that asks should see it."""
        if self._closed_by == threading.get_ident() or self._finished:
            raise StopIteration
        error = StreamClosedError("the stream was closed by another thread", stage="stream")
        error.partial = self.text
        raise error

    def close(self) -> None:
        """Stop reading and free the connection.

        May be called from any thread, any number of times; never blocks. A read that is blocked in another thread
        ends at once with ``StreamClosedError``.
        """
        if self._closed_by is None and not self._finished:
            self._closed_by = threading.get_ident()
        self._call.cancel()
        # A thread that is inside the driver finds its socket shut down and closes everything itself.
        with contextlib.suppress(ValueError):
            self._driver.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Stream is a live connection and can't be pickled; pickle its answer or its conversation")

    def __repr__(self) -> str:
        state = "closed" if self._closed_by is not None else "finished" if self._finished else "open"
        return f"<Stream {state}, {len(self.text)} characters>"


#: What the driver yields.
_Item = Union[Conversation, Event]


class _Reading:
    """What is known of an answer so far."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        # Other threads ask for the text while pieces are added, so each step on it is a single one. A list of the
        # pieces would be twelve times as large.
        self._text = io.StringIO()
        self._size = 0
        self.conversation = turn.conversation
        self.response_id = _new_id() if turn.receipt is None else turn.receipt.answer_id
        self.routed_model = ""
        self.annotations: Any = {}
        self.complete: Optional[CompleteEvent] = None
        self.answer: Optional[Answer] = None

    @property
    def text(self) -> str:
        return self._text.getvalue()

    @property
    def begun(self) -> bool:
        return self._text.tell() > 0

    def add(self, piece: str, limit: int) -> None:
        self._size += len(piece) if piece.isascii() else len(piece.encode("utf-8"))
        if self._size > limit:
            raise ResponseTooLargeError(f"the answer is longer than {limit} bytes", stage="stream")
        self._text.write(piece)

    def forget_text(self) -> None:
        self._text, self._size = io.StringIO(), 0

    def finish(self, complete: bool) -> None:
        end = self.complete
        assert self.conversation is not None  # noqa: S101 - an answer comes after its conversation
        message_id = (end.id if end else None) or self.response_id
        if complete:
            self.conversation.message_id = message_id
        self.answer = Answer(
            text=self.text,
            conversation=self.conversation,
            model=self.routed_model or (end.model if end else "") or self._turn.model,
            usage=end.usage if end else None,
            message_id=message_id,
            annotations=(end.annotations if end else None) or self.annotations,
            complete=complete,
        )


def _new_id() -> str:
    import uuid  # here, because it takes a while

    return str(uuid.uuid4())


def _drive(access: Access, turn: Turn, rules: Rules, call: Call, reading: _Reading) -> Generator[_Item, None, None]:
    """Go through a whole call, yielding its conversation and then its events."""
    call.begin()
    try:
        if reading.conversation is None:
            reply = access.fetch(protocol.thread_request(access.urls), call, rules.retry)
            reading.conversation = Conversation(protocol.read_thread_id(reply))
        yield reading.conversation
        events = _Exchange(access, turn, rules, call, reading, reading.conversation).events()
        yield from _whole(events, reading) if turn.only_whole else events
    except CopilotError as error:
        call.counted(error)
        error.partial = error.partial or reading.text
        raise


def _whole(events: Iterator[Event], reading: _Reading) -> Iterator[Event]:
    """Read an answer to its end, and then hand it out in one piece."""
    for _ in events:
        pass
    if reading.text:
        yield ContentEvent("content", {"type": "content", "body": reading.text}, reading.text)
    if reading.complete is not None:
        yield reading.complete


class _Exchange:
    """One message and its answer."""

    def __init__(
        self,
        access: Access,
        turn: Turn,
        rules: Rules,
        call: Call,
        reading: _Reading,
        conversation: Conversation,
    ) -> None:
        self._access = access
        self._only_whole = turn.only_whole
        self._rules = rules
        self._call = call
        self._reading = reading
        self._conversation = conversation
        self._content = turn.content
        self._parent_id = turn.options.parent_message_id or conversation.message_id
        self._is_new = turn.conversation is None
        self._maybe_sent = False
        if turn.receipt is not None:
            self._parent_id = turn.receipt.parent_id
            self._is_new = turn.receipt.parent_id == protocol.ROOT
            self._maybe_sent = turn.receipt.maybe_sent
        elif self._parent_id is None and self._is_new:
            self._parent_id = protocol.ROOT
        self._request = protocol.message_request(
            access.urls,
            conversation.conversation_id,
            turn.content,
            model=turn.model,
            options=turn.options,
            parent_id=self._parent_id,
            response_id=reading.response_id,
        )

    def events(self) -> Iterator[Event]:
        """Send the message, as often as it is safe, and yield the events of its answer."""
        stored = self._look(_sent_earlier()) if self._maybe_sent else None
        if stored is not None:
            yield from self._deliver(stored)
            return
        backoff = Backoff(self._rules.retry, self._call)
        while True:
            try:
                yield from self._attempt()
                return
            except CopilotError as error:
                failure = self._call.counted(error)
            if self._reading.begun:
                yield from self._rest(failure)
                return
            stored = self._recovered(failure, backoff)
            if stored is not None:
                yield from self._deliver(stored)
                return

    def _recovered(self, failure: CopilotError, backoff: Backoff) -> Optional[Message]:
        """Wait until the message may be sent again, or find the answer that was written all the same.

        Raises:
            StreamInterruptedError: It is not known whether the message was taken.
            CopilotError: The failure, where it is final.
        """
        if failure.stage == "token":
            raise failure  # it has had its own attempts, and the message was not sent
        outcome = outcome_of(failure)
        if outcome is Outcome.FINAL or self._rules.retry is None or _was_told(failure):
            raise failure
        gave_up: Optional[CopilotError] = None
        try:
            backoff.after(failure)
        except CopilotError as error:
            if outcome is Outcome.NOT_TAKEN or error is not failure:
                raise
            gave_up = error
        stored = self._look(failure) if outcome is Outcome.UNKNOWN else None
        if stored is None and gave_up is not None:
            raise gave_up
        return stored

    # Reading

    def _attempt(self) -> Iterator[Event]:
        response = self._access.open(self._request, self._call, self._rules.retry)
        try:
            if protocol.is_event_stream(response.head):
                yield from self._streamed(response)
            else:
                yield from self._plain(response)
        finally:
            response.body.close()

    def _plain(self, response: Response) -> Iterator[Event]:
        for event in protocol.read_plain_answer(self._access.read(response)):
            self._note(event, response)
            yield event
        self._reading.finish(complete=True)

    def _streamed(self, response: Response) -> Iterator[Event]:
        parser = EventParser(self._access.limits.event)
        decode, reading, limit = protocol.decode, self._reading, self._access.limits.answer
        for piece in response.body.pieces():
            for data in parser.feed(piece):
                try:
                    event = decode(data)
                except ProtocolError as error:
                    logger.warning("an event of the answer was skipped: %s", error)
                    continue
                if type(event) is ContentEvent:
                    reading.add(event.body, limit)
                    yield event
                elif event is protocol.DONE or type(event) is CompleteEvent:
                    yield from self._ended(event, response)
                    return
                elif event is not None:
                    self._note(event, response)
                    yield event
            parser.check()
            if parser.progressed:
                self._call.progress()
            else:
                self._call.check_quiet("stream")
        self._ended_without_a_word(response)

    def _note(self, event: Event, response: Response) -> None:
        reading = self._reading
        if type(event) is ContentEvent:
            reading.add(event.body, self._access.limits.answer)
        elif isinstance(event, CompleteEvent):
            reading.complete = event
        elif isinstance(event, RoutedModelEvent):
            reading.routed_model = event.model or reading.routed_model
        elif isinstance(event, AnnotationsEvent):
            reading.annotations = event.annotations
        elif isinstance(event, ErrorEvent):
            raise protocol.error_of_event(event, response.mask)

    def _ended(self, event: Event, response: Response) -> Iterator[Event]:
        response.body.finish()
        self._note(event, response)
        self._reading.finish(complete=True)
        if event is not protocol.DONE:
            yield event

    def _ended_without_a_word(self, response: Response) -> None:
        if not self._reading.begun:
            raise NetworkError("the reply ended before the answer began", stage="stream")
        if not response.body.vouched:
            raise NetworkError("the connection ended before the answer was whole", stage="stream")
        logger.warning("the reply ended in good order, but the service did not say that the answer is complete")
        response.body.finish()
        self._reading.finish(complete=False)

    # What the thread knows

    def _rest(self, failure: CopilotError) -> Iterator[Event]:
        """Yield the rest of an answer that was cut, as far as the thread has it."""
        if not isinstance(failure, NetworkError) or getattr(failure, "phase", "") == "total":
            raise failure
        interruption = self._interruption(failure)
        if not self._rules.resume:
            raise interruption
        try:
            stored = self._look(failure)
        except StreamInterruptedError:
            stored = None
        if stored is None:
            raise interruption
        if stored.content.startswith(self._reading.text):
            yield from self._deliver(stored)
        elif self._only_whole:
            self._reading.forget_text()
            yield from self._deliver(stored)
        else:
            raise interruption

    def _interruption(self, failure: NetworkError) -> CopilotError:
        if isinstance(failure, RequestTimeoutError):
            return failure
        return self._interrupted("the answer was cut before its end", failure)

    def _interrupted(self, message: str, cause: CopilotError) -> StreamInterruptedError:
        error = StreamInterruptedError(
            message,
            stage="stream" if self._reading.begun else "message",
            status=cause.status,
            partial=self._reading.text,
            conversation=self._conversation,
            request_id=cause.request_id,
        )
        error.__cause__ = cause
        return error

    def _deliver(self, stored: Message) -> Iterator[Event]:
        """Yield what of an answer that the thread holds was not yielded yet, and its end."""
        self._access.note_success("message")
        rest = stored.content[len(self._reading.text) :]
        if rest:
            self._reading.add(rest, self._access.limits.answer)
            yield ContentEvent("content", {"type": "content", "body": rest}, rest)
        end = CompleteEvent("complete", {"type": "complete", "id": stored.id}, stored.id, "", None, {})
        self._reading.complete = end
        self._reading.finish(complete=True)
        yield end

    def _look(self, failure: CopilotError) -> Optional[Message]:
        """Look for the answer in the thread, and wait for it while it is being written.

        Returns:
            The whole answer; ``None`` where the thread does not hold the message.

        Raises:
            StreamInterruptedError: It can't be told, or the answer did not come in time.
        """
        call = self._call
        remaining = call.remaining()
        patience = LOOK_PATIENCE if remaining is None else min(LOOK_PATIENCE, remaining * _SHARE_OF_WAITING)
        end = call.clock() + patience
        pause = _FIRST_LOOK
        doubt = self._unknown(failure)
        while True:
            taken, answer = self._find(self._messages(doubt), failure)
            if answer is not None or not taken:
                return answer
            doubt = self._interrupted("the message was taken, but its answer did not appear in time", failure)
            left = end - call.clock()
            if left <= 0:
                raise doubt
            call.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_LOOK)

    def _messages(self, doubt: StreamInterruptedError) -> List[Message]:
        request = protocol.messages_request(self._access.urls, self._conversation.conversation_id)
        try:
            return protocol.read_messages(self._access.fetch(request, self._call, self._rules.retry))
        except StreamClosedError:
            raise
        except CopilotError as error:
            raise doubt from error

    def _unknown(self, failure: CopilotError) -> StreamInterruptedError:
        return self._interrupted(
            "it is unknown whether the message was taken: look at the conversation before sending it again", failure
        )

    def _find(self, messages: List[Message], failure: CopilotError) -> Tuple[bool, Optional[Message]]:
        """Tell whether a thread holds our message, and its whole answer where that is there."""
        for message in messages:
            if message.id == self._reading.response_id:
                return True, message if message.content and not message.interrupted else None
        answered = {message.parent_id for message in messages if message.role == "assistant"}
        same = [message for message in messages if message.role != "assistant" and self._is_ours(message)]
        if any(message.id not in answered for message in same):
            return True, None
        if same or self._has_strangers(messages):
            # The same question, answered under another id, or something behind the message that ours answers: it
            # may be ours, on a server that keeps it in another form.
            raise self._unknown(failure)
        return False, None

    def _is_ours(self, message: Message) -> bool:
        if _comparable(message.content) != _comparable(self._content):
            return False
        if self._parent_id is None:
            return True
        return (message.parent_id or protocol.ROOT) == self._parent_id

    def _has_strangers(self, messages: List[Message]) -> bool:
        """Whether anything stands where only our message should."""
        if self._parent_id == protocol.ROOT:
            return self._is_new and bool(messages)
        places = [place for place, message in enumerate(messages) if message.id == self._parent_id]
        return bool(places) and places[-1] < len(messages) - 1


def _comparable(text: str) -> str:
    """A text without what a server may make of it while it keeps it."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()


def _sent_earlier() -> CopilotError:
    """Stands for the failure after which a message is taken up again: whatever ended the process that had sent it."""
    return StreamInterruptedError("whoever sent the message did not see its answer", stage="message")


def _was_told(failure: CopilotError) -> bool:
    """Whether the answer itself said that it failed: then the message was taken, whatever the kind of the error."""
    return failure.stage == "stream" and not isinstance(failure, NetworkError)
