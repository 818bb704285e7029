"""One answer: how its bytes are read.

``AnswerParser`` takes the bytes of a reply and their end, and yields events. It knows no socket, no clock and no
thread: threads and event loops drive it alike. What has come goes to an ``AnswerBuilder``.

How a reply ends decides whether its answer is whole:

====================================================  ============  ==========================================
how it ends                                           verdict       then
====================================================  ============  ==========================================
``complete``, ``[DONE]``                              ``WHOLE``     the answer is there
``complete``, ``[DONE]``, but an event could not be   ``UNPROVEN``  the thread is looked at once; the answer
read; in good order after some text, but without an                 is incomplete unless it is whole there
event that says so
the connection failed; nothing proves the end; the    ``CUT``       the rest is looked for until it is there,
end is inside an event, behind one that could not be                else it is an error
read, or before any text
an error of the service, a limit, no answer           ``ERROR``     final
====================================================  ============  ==========================================
"""

import contextlib
import enum
import logging
from dataclasses import dataclass
from typing import Callable, Iterator, Optional

from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.errors import (
    CopilotError,
    NetworkError,
    ProtocolError,
    ResponseTooLargeError,
)
from copilot_sync.events import (
    AnnotationsEvent,
    CompleteEvent,
    ContentEvent,
    ErrorEvent,
    Event,
    RoutedModelEvent,
    UnknownEvent,
)
from copilot_sync.protocol.errors import error_of_event
from copilot_sync.protocol.events import DONE, Form, decode, form_of, is_beginning_of_stream, read_document, read_error
from copilot_sync.protocol.untrusted import decoded, without_leading
from copilot_sync.settings import ERROR_BODY, Limits
from copilot_sync.transport.sse import ErrorData, EventParser

logger = logging.getLogger(__name__)

#: Seconds that the rest of mere words is waited for.
_WORDS_SECONDS = 0.5


class ReplyVerdict(enum.Enum):
    """What the end of a reply says about the answer in it."""

    #: All of it is there.
    WHOLE = "whole"
    #: Some of it may be missing: look once at the thread.
    UNPROVEN = "unproven"
    #: Some of it, or all, is missing: the thread may have it.
    CUT = "cut"
    #: There is none, or it is of no use.
    ERROR = "error"


@dataclass(frozen=True)
class ReplyEnd:
    """How a reply ended.

    Attributes:
        verdict: What that says about the answer.
        event: What the service said at the end of the answer, ``None`` if it said nothing.
        error: Why it is ``CUT`` or an ``ERROR``, else ``None``.
        doubt: Why it is ``UNPROVEN``.
        may_be_cut: Whether another text in the thread means that this one was cut.
    """

    verdict: ReplyVerdict
    event: Optional[CompleteEvent] = None
    error: Optional[CopilotError] = None
    doubt: str = ""
    may_be_cut: bool = False


class AnswerParser:
    """Reads one reply to a message: takes its bytes and their end, and yields the events of the answer.

    The first bytes say what a body is: events, one JSON document, or mere words. No method raises a
    ``CopilotError``: what is wrong with a reply is in ``end``.

    Args:
        builder: Where the answer is noted. An event's text is in it when the event is yielded.
        limits: How much of a reply is read.
        mask: Takes secrets out of the server's words.

    Attributes:
        end: How the reply ended, ``None`` while more is to be fed.
        has_progressed: Whether the last piece had any text in it. If so, the time without progress begins anew.
        patience: Seconds that all further bytes together may take, from when it is set; ``None`` for no such limit.
    """

    def __init__(self, builder: AnswerBuilder, limits: Limits, mask: Callable[[str], str] = str) -> None:
        builder.forget_events()
        self._builder = builder
        self._limits = limits
        self._mask = mask
        self._form: Optional[Form] = None
        self._head = b""  # all that has come, until the form is known
        self._document = bytearray()
        self._events = EventParser(limits.event)
        self._idle = 0  # bytes since the last text
        self._has_hole = False  # whether an event could not be read, which may have held some of the text
        self._has_dropped = False  # whether there was an unknown event too many
        self.end: Optional[ReplyEnd] = None
        self.has_progressed = False
        self.patience: Optional[float] = None

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Take the next piece, and yield the events that are whole with it. Exhaust it before the next step."""
        if self._form is Form.STREAM:
            return self._feed_stream(piece)
        if self._form is Form.DOCUMENT:
            return self._feed_document(piece)
        return self._feed_head(piece)

    def feed_eof(self, *, framing_complete: bool) -> Iterator[Event]:
        """Take the end of the bytes, and yield the events that are whole with it. Afterwards ``end`` is set.

        Args:
            framing_complete: Whether the framing of the reply proves that nothing is missing.
        """
        if self._form is Form.WORDS:
            self._end_words()
        elif self._form is Form.DOCUMENT:
            yield from self._read_document()
            if self.end is None:
                self._end_cut("the reply ended before the answer was whole")
        elif self.end is None:
            if self._form is None:
                yield from self._feed_stream(self._head)
            self._end_unannounced(framing_complete)

    def fail(self, error: CopilotError) -> None:
        """Take the failure of the connection, or of its time, in place of further bytes. Afterwards ``end`` is set."""
        if self._form is Form.WORDS:
            self._end_words()
        elif self.end is None:
            verdict = ReplyVerdict.CUT if isinstance(error, NetworkError) else ReplyVerdict.ERROR
            self._end(ReplyEnd(verdict, error=error))

    def _feed_head(self, piece: bytes) -> Iterator[Event]:
        """Take the beginning of a body until it says what it is. A stream may turn up behind mere words."""
        if self.end is not None:
            return
        self._head = head = (self._head + piece).lstrip()
        self._idle += len(piece)
        form = form_of(head)
        if form is Form.STREAM:
            self._form, self._head, self._idle, self.patience = form, b"", 0, None
            yield from self._feed_stream(without_leading(head))
        elif form is Form.DOCUMENT:
            self._form, self._head = form, b""
            yield from self._feed_document(without_leading(head))
        elif is_beginning_of_stream(head):
            self._check_idle()
        elif self._form is None:
            self._form, self.patience = Form.WORDS, _WORDS_SECONDS
        elif len(head) > ERROR_BODY:
            self._end_words()

    def _feed_stream(self, piece: bytes) -> Iterator[Event]:
        builder, limit = self._builder, self._limits.answer
        size = builder.size
        try:
            for data in self._events.feed(piece):
                try:
                    event = decode(data) if type(data) is str else _event_of(data)
                except ProtocolError as error:
                    self._note_hole(error)
                    continue
                if type(event) is ContentEvent:
                    builder.add(event.body, limit)
                    yield event
                elif event is not None:
                    self._note(event)
                    if self.end is not None:
                        return
                    if type(event) is UnknownEvent:
                        self._keep(event, data)
                    yield event
            self._events.check()
        except ResponseTooLargeError as error:
            self._end_with(error)
            return
        if builder.size != size:
            self.has_progressed, self._idle = True, 0
        else:
            self.has_progressed = False
            self._idle += len(piece)
            self._check_idle()

    def _feed_document(self, piece: bytes) -> Iterator[Event]:
        """Take a piece of a document. One as short as errors are is read as soon as it is whole."""
        limit, document = self._limits.reply, self._document
        document += piece
        if len(document) > limit:
            self._end_with(ResponseTooLargeError(f"the reply is longer than {limit} bytes", stage="stream"))
        elif len(document) <= ERROR_BODY and piece.rstrip().endswith((b"}", b"]")):
            yield from self._read_document()

    def _read_document(self) -> Iterator[Event]:
        """Yield the events that a document stands for, if it is whole."""
        try:
            for event in read_document(bytes(self._document)) or ():
                if type(event) is ContentEvent:
                    self._builder.add(event.body, self._limits.answer)
                else:
                    self._note(event)
                if self.end is not None:
                    return
                yield event
        except ProtocolError as error:
            self._end_with(error)

    def _note(self, event: Event) -> None:
        """Take note of an event without text. The reply may end with it."""
        if event is DONE:
            self._end_announced(None)
        elif isinstance(event, CompleteEvent):
            self._builder.complete = event
            self._end_announced(event)
        elif isinstance(event, ErrorEvent):
            self._end_with(error_of_event(event, self._mask))
        elif isinstance(event, RoutedModelEvent):
            self._builder.routed_model = event.model or self._builder.routed_model
        elif isinstance(event, AnnotationsEvent):
            self._builder.annotations = event.annotations

    def _keep(self, event: UnknownEvent, data: str) -> None:
        if not self._builder.keep(event, len(data.encode("utf-8"))) and not self._has_dropped:
            self._has_dropped = True
            logger.warning("the answer came with more unknown events than are kept: some are left out of its events")

    def _note_hole(self, error: ProtocolError) -> None:
        if not self._has_hole:  # logged once, for there may be thousands
            logger.warning("an event of the answer was skipped: %s", error)
        self._has_hole = True

    def _check_idle(self) -> None:
        """End the reply if more has come without any text than the largest event, or answer, may have."""
        limit = max(self._limits.event, self._limits.answer)
        if self._idle > limit:
            words = f"{limit} bytes came without any text of the answer"
            self._end_with(ResponseTooLargeError(words, stage="stream"))

    def _end_announced(self, event: Optional[CompleteEvent]) -> None:
        if self._has_hole:
            doubt = "an event of the answer could not be read: some of it may be missing"
            self._end(ReplyEnd(ReplyVerdict.UNPROVEN, event, doubt=doubt))
        else:
            self._end(ReplyEnd(ReplyVerdict.WHOLE, event))

    def _end_unannounced(self, framing_complete: bool) -> None:
        """End a stream whose bytes ended without an event that says so."""
        is_torn = self._events.torn
        if is_torn:
            self._find_error_in_torn_event()
        if self.end is not None:
            return
        if not self._builder.begun:
            self._end_cut("the reply ended before the answer began")
        elif is_torn or self._has_hole or not framing_complete:
            self._end_cut("the connection ended before the answer was whole")
        else:
            doubt = "the reply ended in good order, but the service did not say that the answer is complete"
            self._end(ReplyEnd(ReplyVerdict.UNPROVEN, doubt=doubt, may_be_cut=True))

    def _find_error_in_torn_event(self) -> None:
        """End the reply with an error if the event that is not whole says enough: that the service failed."""
        for data in self._events.unfinished():
            with contextlib.suppress(ProtocolError):
                event = _event_of(data)
                if isinstance(event, ErrorEvent):
                    self._note(event)
                    return

    def _end_words(self) -> None:
        what = "no answer came, but the words of something in between, such as a gateway"
        self._end_with(error_of_event(read_error(decoded(self._head)), self._mask, what))

    def _end_cut(self, words: str) -> None:
        self._end(ReplyEnd(ReplyVerdict.CUT, error=NetworkError(words, stage="stream")))

    def _end_with(self, error: CopilotError) -> None:
        # Its traceback would hold this object, which holds it.
        self._end(ReplyEnd(ReplyVerdict.ERROR, error=error.with_traceback(None)))

    def _end(self, end: ReplyEnd) -> None:
        self.end = end
        self._form, self.patience, self.has_progressed = None, None, False


def _event_of(data: str) -> Optional[Event]:
    """Read the data of an event, whatever its name is."""
    return read_error(data) if isinstance(data, ErrorData) else decode(data)
