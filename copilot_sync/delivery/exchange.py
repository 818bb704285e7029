"""One message and its answer: the generator that goes through a whole call.

It goes through the stages of a call (token, thread, message, answer) and yields what comes: the conversation once
it is known, then the events. What has come of the answer stands in a ``AnswerBuilder``.

What may have been taken by the service is never just sent again. Where the outcome of a message is
unknown, the thread is looked at first (``recovery``); where an answer was cut, its rest is looked for there.

====================================================  ==========================================
what happened to the message                          then
====================================================  ==========================================
no connection; 408, 409, 425, 429;                    not taken: it is sent again
503 with ``Retry-After``; 401 after a new token
cut or silent before the whole head of a reply;       unknown: the thread is looked at, and it is sent
500, 502, 504, 503 without ``Retry-After``;           again only where it is not there
a reply that ended before its first content
any other status; an error in the reply; anything     final: never sent again
after the first content
====================================================  ==========================================

How a reply ends decides whether its answer is whole:

====================================================  ==========================================
how it ends                                           then
====================================================  ==========================================
``complete``, ``[DONE]``                              whole, unless an event could not be read
the connection failed; it ended inside an event,      cut: the rest is looked for until it is
or without a word and with an event that could not    there, else it is an error
be read, or so that nothing proves the end
without a word, in good order; with a word, but an    the thread is looked at once; the answer
event could not be read                               is incomplete unless it is whole there
====================================================  ==========================================
"""

import contextlib
import itertools
import logging
from typing import Generator, Iterator, Optional, Tuple, Union

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.answer import AnswerBuilder, CallOptions, PendingMessage
from copilot_sync.delivery.recovery import Search, SentMessage
from copilot_sync.errors import (
    CopilotError,
    NetworkError,
    ProtocolError,
    RequestTimeoutError,
    ResponseTooLargeError,
    StreamInterruptedError,
)
from copilot_sync.events import AnnotationsEvent, CompleteEvent, ContentEvent, ErrorEvent, Event, RoutedModelEvent
from copilot_sync.models import Conversation, Message
from copilot_sync.pacing.backoff import Backoff
from copilot_sync.pacing.policy import Resend, verdict_of
from copilot_sync.protocol.errors import error_of_event
from copilot_sync.protocol.events import DONE, Form, decode, form_of, is_beginning_of_stream, read_document, read_error
from copilot_sync.protocol.replies import read_thread_id
from copilot_sync.protocol.requests import ROOT, message_request, thread_request
from copilot_sync.protocol.untrusted import decoded, without_leading
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import ERROR_BODY, Response
from copilot_sync.transport.sse import ErrorData, EventParser

logger = logging.getLogger(__name__)

#: Seconds that the rest of mere words is waited for.
_WORDS_SECONDS = 0.5


#: What the driver yields.
Item = Union[Conversation, Event]


def drive(
    access: ApiSession, turn: PendingMessage, rules: CallOptions, call: CallContext, reading: AnswerBuilder
) -> Generator[Item, None, None]:
    """Go through a whole call, yielding its conversation and then its events."""
    call.begin()
    try:
        if reading.conversation is None:
            thread = thread_request(access.urls)
            reading.conversation = Conversation(access.fetch(thread, call, rules.retry, read_thread_id))
        yield reading.conversation
        events = _Exchange(access, turn, rules, call, reading, reading.conversation).events()
        yield from _whole(events, reading) if turn.buffered else events
    except CopilotError as error:
        call.counted(error)
        error.partial = error.partial or reading.text
        raise


def _whole(events: Iterator[Event], reading: AnswerBuilder) -> Iterator[Event]:
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
        access: ApiSession,
        turn: PendingMessage,
        rules: CallOptions,
        call: CallContext,
        reading: AnswerBuilder,
        conversation: Conversation,
    ) -> None:
        self._access = access
        self._buffered = turn.buffered
        self._rules = rules
        self._call = call
        self._reading = reading
        self._conversation = conversation
        self._maybe_sent = turn.handle is not None and turn.handle.maybe_sent
        self._sent = sent = _message_of(turn, conversation, reading.response_id)
        self._request = message_request(
            access.urls,
            sent.conversation_id,
            sent.content,
            model=turn.model,
            options=turn.options,
            parent_id=sent.parent_id,
            response_id=sent.answer_id,
        )

    def events(self) -> Iterator[Event]:
        """Send the message, as often as it is safe, and yield the events of its answer."""
        stored = self._search().until_settled(_sent_earlier(), self._call.clock()) if self._maybe_sent else None
        if stored is not None:
            yield from self._deliver(stored)
            return
        backoff = Backoff(self._rules.retry, self._call)
        while True:
            try:
                yield from self._attempt()
                return
            except CopilotError as error:
                failure, failed_at = self._call.counted(error), self._call.clock()
            if self._reading.begun:
                yield from self._rest(failure, failed_at)
                return
            stored = self._recovered(failure, failed_at, backoff)
            if stored is not None:
                yield from self._deliver(stored)
                return

    def _recovered(self, failure: CopilotError, failed_at: float, backoff: Backoff) -> Optional[Message]:
        """Wait until the message may be sent again, or find the answer that was written all the same.

        Raises:
            StreamInterruptedError: It is not known whether the message was taken.
            CopilotError: The failure, where it is final.
        """
        if failure.stage == "token":
            raise failure  # it has had its own attempts, and the message was not sent
        resend = verdict_of(failure).resend
        if resend is Resend.FINAL or self._rules.retry is None or _was_told(failure):
            raise failure
        gave_up: Optional[CopilotError] = None
        try:
            backoff.after(failure)
        except CopilotError as error:
            if resend is Resend.NOT_PROCESSED or error is not failure:
                raise
            gave_up = error
        stored = self._search().until_settled(failure, failed_at) if resend is Resend.UNKNOWN else None
        if stored is None and gave_up is not None:
            raise gave_up
        self._reading.has_hole = False  # whatever came of this attempt, the next one begins anew
        return stored

    # Reading

    def _attempt(self) -> Iterator[Event]:
        response = self._access.open(self._request, self._call, self._rules.retry)
        try:
            pieces = response.body.pieces()
            form, beginning = self._opening(pieces)
            if form is Form.STREAM:
                yield from self._streamed(response, itertools.chain([beginning], pieces))
            elif form is Form.DOCUMENT:
                yield from self._document(response, beginning, pieces)
            else:
                what = "no answer came, but the words of something in between, such as a gateway"
                words = read_error(decoded(beginning))
                raise error_of_event(words, response.mask, what)
        finally:
            response.body.close()

    def _opening(self, pieces: Iterator[bytes]) -> Tuple[Optional[Form], bytes]:
        """Read as much of a body as it takes to tell what it is: all of it, within bounds, if it is but words."""
        beginning, size = b"", 0
        for piece in pieces:
            beginning, size = (beginning + piece).lstrip(), size + len(piece)
            form = form_of(beginning)
            if form is Form.STREAM or form is Form.DOCUMENT:
                return form, without_leading(beginning)
            if not is_beginning_of_stream(beginning):
                return self._words(beginning, pieces)
            self._check_idle(size)
        return Form.STREAM, beginning

    def _words(self, beginning: bytes, pieces: Iterator[bytes]) -> Tuple[Optional[Form], bytes]:
        """Read words to their end, which may never come; a stream may turn up behind them."""
        with self._call.window(_WORDS_SECONDS), contextlib.suppress(NetworkError, ProtocolError):
            for piece in pieces:
                beginning += piece
                if form_of(beginning) is Form.STREAM or len(beginning) > ERROR_BODY:
                    break
        return form_of(beginning, at_end=True), beginning

    def _document(self, response: Response, beginning: bytes, pieces: Iterator[bytes]) -> Iterator[Event]:
        for event in self._whole_document(beginning, pieces):
            self._note(event, response)
            yield event
        self._reading.finish(complete=True)
        response.body.finish()

    def _whole_document(self, beginning: bytes, pieces: Iterator[bytes]) -> Tuple[Event, ...]:
        """Read a document; one that is as short as errors are, as soon as it is whole, though its body may go on."""
        limit = self._access.limits.reply
        document = bytearray()
        for piece in itertools.chain([beginning], pieces):
            document += piece
            if len(document) > limit:
                raise ResponseTooLargeError(f"the reply is longer than {limit} bytes", stage="stream")
            if len(document) <= ERROR_BODY and piece.rstrip().endswith((b"}", b"]")):
                events = read_document(bytes(document))
                if events is not None:
                    return events
        events = read_document(bytes(document))
        if events is None:
            raise NetworkError("the reply ended before the answer was whole", stage="stream")
        return events

    def _streamed(self, response: Response, pieces: Iterator[bytes]) -> Iterator[Event]:
        parser = EventParser(self._access.limits.event)
        reading, limit = self._reading, self._access.limits.answer
        size, idle = reading.size, 0
        for piece in pieces:
            for data in parser.feed(piece):
                try:
                    event = decode(data) if type(data) is str else _event_of(data)
                except ProtocolError as error:
                    if not reading.has_hole:  # told once, for there may be thousands
                        logger.warning("an event of the answer was skipped: %s", error)
                    reading.has_hole = True
                    continue
                if type(event) is ContentEvent:
                    reading.add(event.body, limit)
                    yield event
                elif event is DONE or type(event) is CompleteEvent:
                    yield from self._ended(event, response)
                    return
                elif event is not None:
                    self._note(event, response)
                    with self._call.paused():
                        yield event
            parser.check()
            if reading.size != size:
                size, idle = reading.size, 0
                self._call.touch()
            else:
                idle += len(piece)
                self._check_idle(idle)
        yield from self._ended_without_a_word(response, parser)

    def _check_idle(self, size: int) -> None:
        """Raise where more has come without any text than the largest event, or answer, may have."""
        limit = max(self._access.limits.event, self._access.limits.answer)
        if size > limit:
            raise ResponseTooLargeError(f"{limit} bytes came without any text of the answer", stage="stream")

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
            raise error_of_event(event, response.mask)

    # How it ends

    def _ended(self, event: Event, response: Response) -> Iterator[Event]:
        self._note(event, response)
        end = event if isinstance(event, CompleteEvent) else None
        if self._reading.has_hole:
            response.body.close()
            yield from self._mended("an event of the answer could not be read: some of it may be missing", end)
            return
        self._reading.finish(complete=True)
        response.body.finish()
        if end is not None:
            yield end

    def _ended_without_a_word(self, response: Response, parser: EventParser) -> Iterator[Event]:
        if parser.torn:
            self._check_unfinished(parser, response)
        if not self._reading.begun:
            raise NetworkError("the reply ended before the answer began", stage="stream")
        if parser.torn or self._reading.has_hole or not response.body.framing_complete:
            raise NetworkError("the connection ended before the answer was whole", stage="stream")
        response.body.close()
        doubt = "the reply ended in good order, but the service did not say that the answer is complete"
        yield from self._mended(doubt, None, is_cut=True)

    def _check_unfinished(self, parser: EventParser, response: Response) -> None:
        """Raise where the event that is not whole says enough: that the service failed."""
        for data in parser.unfinished():
            with contextlib.suppress(ProtocolError):
                event = _event_of(data)
                if isinstance(event, ErrorEvent):
                    self._note(event, response)

    def _mended(self, doubt: str, end: Optional[CompleteEvent], *, is_cut: bool = False) -> Iterator[Event]:
        """Look once whether the thread has the whole of an answer that may not be; else it is an incomplete one.

        Args:
            doubt: Why it may not be, to warn with.
            end: What the service said at its end.
            is_cut: Whether another text in the thread means that this one was cut.

        Raises:
            StreamInterruptedError: It was cut, and what was handed out is not how the answer begins.
        """
        stored = self._search().once() if self._rules.resume else None
        if stored is not None and self._fits(stored):
            yield from self._deliver(stored, end)
            return
        if stored is not None and is_cut:
            raise self._interrupted("the answer was cut before its end, and its thread has another text")
        logger.warning(doubt)
        self._reading.finish(complete=False)
        if end is not None:
            yield end

    # What the thread knows

    def _search(self) -> Search:
        # Made when it is needed: it knows this object, which must be free as soon as nobody holds it.
        return Search(self._access, self._call, self._rules.retry, self._sent, self._interrupted)

    def _rest(self, failure: CopilotError, failed_at: float) -> Iterator[Event]:
        """Yield the rest of an answer that was cut, as far as the thread has it."""
        if not isinstance(failure, NetworkError) or getattr(failure, "phase", "") == "total":
            raise failure
        interruption = self._interruption(failure)
        if not self._rules.resume:
            raise interruption
        try:
            stored = self._search().until_settled(failure, failed_at)
        except StreamInterruptedError:
            stored = None
        if stored is None or not self._fits(stored):
            raise interruption
        yield from self._deliver(stored)

    def _fits(self, stored: Message) -> bool:
        """Whether an answer that the thread has can take the place of the text that has come."""
        return self._buffered or stored.content.startswith(self._reading.text)

    def _interruption(self, failure: NetworkError) -> CopilotError:
        if isinstance(failure, RequestTimeoutError):
            return failure
        return self._interrupted("the answer was cut before its end", failure)

    def _interrupted(self, message: str, cause: Optional[CopilotError] = None) -> StreamInterruptedError:
        error = StreamInterruptedError(
            message,
            stage="stream" if self._reading.begun else "message",
            status=cause and cause.status,
            partial=self._reading.text,
            conversation=self._conversation,
            request_id=cause and cause.request_id,
        )
        error.__cause__ = cause
        return error

    def _deliver(self, stored: Message, end: Optional[CompleteEvent] = None) -> Iterator[Event]:
        """Yield what of an answer that the thread holds was not yielded yet, and its end."""
        self._access.note_success("message")
        if not stored.content.startswith(self._reading.text):
            self._reading.forget_text()  # of which nothing was handed out
        rest = stored.content[len(self._reading.text) :]
        if rest:
            self._reading.add(rest, self._access.limits.answer)
            yield ContentEvent("content", {"type": "content", "body": rest}, rest)
        end = end or CompleteEvent("complete", {"type": "complete", "id": stored.id}, stored.id, "", None, {})
        self._reading.complete = end
        self._reading.finish(complete=True)
        yield end


def _event_of(data: str) -> Optional[Event]:
    """Read the data of an event, whatever its name is."""
    return read_error(data) if isinstance(data, ErrorData) else decode(data)


def _message_of(turn: PendingMessage, conversation: Conversation, answer_id: str) -> SentMessage:
    """What a message can be found by in its thread."""
    parent_id = turn.options.parent_message_id or conversation.message_id
    is_new = turn.conversation is None
    if turn.handle is not None:
        parent_id = turn.handle.parent_id
        is_new = parent_id == ROOT
    elif parent_id is None and is_new:
        parent_id = ROOT
    return SentMessage(turn.content, conversation.conversation_id, parent_id, answer_id, is_new)


def _sent_earlier() -> CopilotError:
    """Stands for the failure after which a message is taken up again: whatever ended the process that had sent it."""
    return StreamInterruptedError("whoever sent the message did not see its answer", stage="message")


def _was_told(failure: CopilotError) -> bool:
    """Whether the answer itself said that it failed: then the message was taken, whatever the kind of the error."""
    return failure.stage == "stream" and not isinstance(failure, NetworkError)
