"""One message and its answer: the generator that goes through a whole call.

It goes through the stages of a call (token, thread, message, answer) and yields the conversation once it is known,
then the events. It moves the bytes of the reply to an ``AnswerParser`` and waits as that one says. In a step that polls
it yields a ``Pause`` if it would have to wait, or if what comes next may block.

A message that the service may already have processed is never blindly sent again. If the outcome of a message is
unknown, its thread is looked at first (``lookup``, ``recovery``). If an answer was cut, its rest is looked for there.

====================================================  ==========================================
what happened to the message                          then
====================================================  ==========================================
no connection; 408, 409, 425, 429;                    not processed: it is sent again
503 with ``Retry-After``; 401 after a new token
cut or silent before the whole head of a reply;       unknown: the thread is looked at, and it is sent
500, 502, 504, 503 without ``Retry-After``;           again only if it is not there
a reply that ended before its first content
400, 404, 422 that refuses the model, if there is     not processed: it is sent once more, to the other
another to ask, or a parent that is gone              model, or as the answer to another message
any other status; an error in the reply; anything     final: never sent again
after the first content
====================================================  ==========================================
"""

import logging
from dataclasses import replace
from typing import Generator, Iterator, Optional, Union

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.answer import AnswerParser, ReplyEnd, ReplyVerdict
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.delivery.guards import Passage
from copilot_sync.delivery.lookup import Lookup
from copilot_sync.delivery.message import CallOptions, PendingMessage, SentMessage
from copilot_sync.delivery.reading import Reading
from copilot_sync.delivery.refusal import discard_thread, name_models
from copilot_sync.delivery.reporter import reporters_of
from copilot_sync.errors import (
    CopilotError,
    InvalidRequestError,
    ModelNotAvailableError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    RequestTimeoutError,
    StreamClosedError,
    StreamInterruptedError,
)
from copilot_sync.events import CompleteEvent, ContentEvent, Event
from copilot_sync.models import Conversation, Message
from copilot_sync.pacing.backoff import Backoff
from copilot_sync.pacing.policy import Resend, is_refusal, verdict_of
from copilot_sync.protocol.replies import read_thread_id
from copilot_sync.protocol.requests import ROOT, Request, message_request, thread_request
from copilot_sync.stepping import Pause
from copilot_sync.transport.call import CallContext

logger = logging.getLogger(__name__)


#: What the driver yields.
Item = Union[Conversation, Event, Pause]
#: What goes through an exchange yields.
Step = Union[Event, Pause]


def drive(
    session: ApiSession,
    message: PendingMessage,
    options: CallOptions,
    call: CallContext,
    builder: AnswerBuilder,
    *,
    tells_begun: bool = False,
) -> Generator[Item, None, None]:
    """Go through a whole call: yield its conversation, then its events.

    ``tells_begun`` says that somebody is told of a new conversation, which may take long: in a step that may block.
    """
    call.begin()
    passage = Passage(message, call, builder, options.retry)
    guards = (*reporters_of(options, session, call, builder), *options.guards)
    try:
        if guards:
            yield from passage.entering(guards)
        if builder.conversation is None:
            if tells_begun:
                yield from call.until_may_block()
            steps = session.fetching(
                thread_request(session.urls), call, options.retry, read_thread_id, defers_reply=not tells_begun
            )
            builder.conversation = Conversation((yield from steps))
        yield builder.conversation
        exchange = _Exchange(session, message, options, call, builder, builder.conversation)
        events = exchange.events()
        yield from _buffered(events, builder) if message.buffered else events
    except CopilotError as error:
        call.counted(error)
        error.partial = error.partial or builder.text
        begun = builder.conversation if message.conversation is None and not builder.is_kept else None
        if isinstance(error, ModelNotAvailableError) or (begun is not None and is_refusal(error)):
            yield from call.until_may_block()
        if isinstance(error, ModelNotAvailableError):
            name_models(error, builder.model, session, call)
        # One that has an answer was used by somebody else meanwhile.
        if begun is not None and begun.message_id is None and discard_thread(error, begun, session, call):
            builder.conversation = None
        passage.leave(error)
        raise
    except Exception as error:  # out of a callback, or the handler of a signal
        passage.leave(error)
        raise
    finally:
        passage.leave()


def _buffered(events: Iterator[Step], builder: AnswerBuilder) -> Iterator[Step]:
    """Read an answer to its end, and then yield its text in one piece."""
    for event in events:
        if type(event) is Pause:
            yield event
    if builder.text:
        yield ContentEvent("content", {"type": "content", "body": builder.text}, builder.text)
    if builder.complete is not None:
        yield builder.complete


class _Exchange:
    """One message and its answer."""

    def __init__(
        self,
        session: ApiSession,
        message: PendingMessage,
        options: CallOptions,
        call: CallContext,
        builder: AnswerBuilder,
        conversation: Conversation,
    ) -> None:
        self._session = session
        self._message = message
        self._buffered = message.buffered
        self._options = options
        self._call = call
        self._builder = builder
        self._conversation = conversation
        self._maybe_sent = message.handle is not None and message.handle.maybe_sent
        self._sent = SentMessage.from_pending(message, conversation, builder.answer_id)
        self._fallback_model = message.fallback_model
        self._is_place_unknown = False
        self._may_lose_parent = message.options.parent_message_id is None and self._sent.parent_id not in (None, ROOT)
        self._request = self._new_request()

    def _new_request(self) -> Request:
        sent = self._sent
        return message_request(
            self._session.urls,
            sent.conversation_id,
            sent.content,
            model=self._builder.model,
            options=self._message.options,
            parent_id=sent.parent_id,
            response_id=sent.answer_id,
        )

    def events(self) -> Iterator[Step]:
        """Send the message, as often as it is safe, and yield the events of its answer."""
        if self._maybe_sent:
            yield from self._call.until_may_block()
            stored = self._lookup().until_settled(_sent_earlier(), self._call.clock())
            if stored is not None:
                yield from self._deliver(stored)
                return
        if self._sent.parent_id is None:
            yield from self._call.until_may_block()
            self._find_parent()
        backoff = Backoff(self._options.retry, self._call)
        while True:
            try:
                end = yield from self._attempt()
            except CopilotError as error:
                failure = error
            else:
                if end.error is None:
                    yield from self._conclude(end)
                    return
                if end.verdict is ReplyVerdict.ERROR:
                    raise end.error
                failure = end.error
            if isinstance(failure, StreamClosedError):
                raise failure
            failed_at = self._call.clock()
            yield from self._call.until_may_block()
            self._call.counted(failure)
            if self._builder.begun:
                yield from self._rest(failure, failed_at)
                return
            if self._is_mended(failure):
                if self._call.reporter is not None:
                    self._call.reporter.retrying(failure, 0.0)
                continue
            stored = self._recovered(failure, failed_at, backoff)
            if stored is not None:
                yield from self._deliver(stored)
                return

    def _find_parent(self) -> None:
        """Find the message that ours answers, in a conversation of which nothing but its id is known."""
        parent_id = self._lookup().parent()
        if parent_id is None:
            self._is_place_unknown = True
            return
        self._sent = replace(self._sent, parent_id=parent_id)
        self._request = self._new_request()

    def _is_mended(self, failure: CopilotError) -> bool:
        """Whether a message that was refused can be sent again in another form. Each form is tried once."""
        if failure.stage != "message" or not isinstance(failure, (InvalidRequestError, NotFoundError)):
            return False
        if isinstance(failure, ModelNotAvailableError):
            model, self._fallback_model = self._fallback_model, ""
            if not model:
                return False
            logger.warning("the service does not answer with the model %r: asking %r", self._builder.model, model)
            self._builder.model = model
        else:
            parent_id = self._lookup().other_parent() if self._may_lose_parent else None
            self._may_lose_parent = False
            if parent_id is None:
                return False
            logger.warning("the last message of the conversation is gone: going on without what is lost")
            self._sent = replace(self._sent, parent_id=parent_id)
        self._request = self._new_request()
        return True

    def _attempt(self) -> Generator[Step, None, ReplyEnd]:
        """Send the message once, yield the events of its answer but the last, and return how the reply ended.

        Raises:
            CopilotError: There was no reply, or the stream was closed.
        """
        response = yield from self._session.opening(self._request, self._call, self._options.retry, defers_reply=True)
        if self._is_place_unknown:
            logger.warning("the messages of the conversation can't be listed: it may go on without what was said")
        body = response.body
        try:
            parser = AnswerParser(self._builder, self._session.limits, response.mask)
            try:
                yield from Reading(body, parser, self._call, buffered=self._buffered).events()
            except (NetworkError, ProtocolError) as error:
                parser.fail(error)
            end = parser.end
            assert end is not None  # noqa: S101 - the body has ended, or the parser wanted no more
            if end.verdict is ReplyVerdict.WHOLE:
                self._builder.finish(complete=True)
                yield from body.finishing()
        finally:
            body.close()
        return end

    def _recovered(self, failure: CopilotError, failed_at: float, backoff: Backoff) -> Optional[Message]:
        """Wait until the message may be sent again, or find the answer that was written all the same.

        Raises:
            StreamInterruptedError: It is not known whether the service has processed the message.
            CopilotError: The failure, if it is final.
        """
        if failure.stage == "token":
            raise failure  # it has had its own attempts, and the message was not sent
        resend = verdict_of(failure).resend
        if resend is Resend.FINAL or self._options.retry is None:
            raise failure
        gave_up: Optional[CopilotError] = None
        try:
            backoff.after(failure)
        except CopilotError as error:
            if resend is Resend.NOT_PROCESSED or error is not failure:
                raise
            gave_up = error
        stored = self._lookup().until_settled(failure, failed_at) if resend is Resend.UNKNOWN else None
        if stored is None and gave_up is not None:
            raise gave_up
        return stored

    def _conclude(self, end: ReplyEnd) -> Iterator[Step]:
        """Yield the last event of an answer; if the answer may not be whole, look first whether its thread has more."""
        if end.verdict is ReplyVerdict.UNPROVEN:
            yield from self._call.until_may_block()
            stored = self._lookup().once() if self._options.resume else None
            if stored is not None and self._fits(stored):
                yield from self._deliver(stored, end.event)
                return
            if stored is not None and end.may_be_cut:
                raise self._interrupted("the answer was cut before its end, and its thread has another text")
            logger.warning(end.doubt)
            self._builder.finish(complete=False)
        if end.event is not None:
            yield end.event

    def _lookup(self) -> Lookup:
        # Made when it is needed: it knows this object, which must be free as soon as nobody holds it.
        return Lookup(self._session, self._call, self._options.retry, self._sent, self._interrupted)

    def _rest(self, failure: CopilotError, failed_at: float) -> Iterator[Event]:
        """Yield the rest of an answer that was cut, as far as the thread has it."""
        if not isinstance(failure, NetworkError) or getattr(failure, "phase", "") == "total":
            raise failure
        interruption = self._interruption(failure)
        if not self._options.resume:
            raise interruption
        try:
            stored = self._lookup().until_settled(failure, failed_at)
        except StreamInterruptedError:
            stored = None
        if stored is None or not self._fits(stored):
            raise interruption
        yield from self._deliver(stored)

    def _fits(self, stored: Message) -> bool:
        """Whether an answer that the thread has can take the place of the text that has come."""
        return self._buffered or stored.content.startswith(self._builder.text)

    def _interruption(self, failure: NetworkError) -> CopilotError:
        if isinstance(failure, RequestTimeoutError):
            return failure
        return self._interrupted("the answer was cut before its end", failure)

    def _interrupted(self, message: str, cause: Optional[CopilotError] = None) -> StreamInterruptedError:
        error = StreamInterruptedError(
            message,
            stage="stream" if self._builder.begun else "message",
            status=cause and cause.status,
            partial=self._builder.text,
            conversation=self._conversation,
            request_id=cause and cause.request_id,
        )
        error.__cause__ = cause
        return error

    def _deliver(self, stored: Message, end: Optional[CompleteEvent] = None) -> Iterator[Event]:
        """Yield what was not yielded yet of an answer that the thread holds, and its end."""
        self._session.note_success("message")
        logger.info("the answer was looked up in its conversation, after %d characters of it", len(self._builder.text))
        if self._call.reporter is not None:
            self._call.reporter.resumed()
        if not stored.content.startswith(self._builder.text):
            self._builder.forget_text()  # of which nothing was handed out
        rest = stored.content[len(self._builder.text) :]
        if rest:
            self._builder.add(rest, self._session.limits.answer)
            yield ContentEvent("content", {"type": "content", "body": rest}, rest)
        end = end or CompleteEvent(
            "complete", stored.data, stored.id, stored.model, stored.usage, {}, stored.references
        )
        self._builder.complete = end
        self._builder.finish(complete=True)
        yield end


def _sent_earlier() -> CopilotError:
    """Make an error for the unknown failure that ended an earlier process, after it may have sent the message."""
    return StreamInterruptedError("whoever sent the message did not see its answer", stage="message")
