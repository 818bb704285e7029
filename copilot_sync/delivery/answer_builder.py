"""What has come of one answer so far, and how its stream ended.

The thread that reads, whoever looks at the text and whoever closes the stream share an ``AnswerBuilder``, so each
change to it is a single step. It knows no socket, no clock and no thread.
"""

import io
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Union

from copilot_sync.errors import ResponseTooLargeError, StreamClosedError
from copilot_sync.events import CompleteEvent, UnknownEvent
from copilot_sync.models import Answer, Conversation
from copilot_sync.usage import Usage

#: How many unknown events an answer keeps, and how many bytes of JSON they are together.
MAX_EVENTS = 1000
MAX_EVENT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Closed:
    """The end of a stream that was closed, and by which thread."""

    thread: int


#: The end of a stream that failed.
FAILED = "failed"
#: How a stream ended.
StreamEnd = Union[Answer, Closed, str]


class AnswerBuilder:
    """What is known of an answer so far, and how its stream ended.

    Args:
        conversation: The conversation; ``None`` until it is known.
        model: The model that was asked.
        answer_id: The id that the answer is to have.
    """

    def __init__(self, conversation: Optional[Conversation], model: str, answer_id: str) -> None:
        # Other threads ask for the text while pieces are added, so each step on it is a single one. A list of the
        # pieces would be twelve times as large.
        self._text = io.StringIO()
        #: The model that is asked.
        self.model = model
        self.size = 0  # of the text, in bytes
        self.conversation = conversation
        self.answer_id = answer_id
        #: Whether the conversation was handed out for good, so that it is the caller's to delete.
        self.is_kept = False
        #: Called once, when the first text has come.
        self.on_text: Optional[Callable[[], None]] = None
        self.routed_model = ""
        self.annotations: Any = {}
        self._events: List[UnknownEvent] = []
        self._event_bytes = 0
        self.complete: Optional[CompleteEvent] = None
        #: The answer to the present message, ``None`` until all of it has come.
        self.written: Optional[Answer] = None
        #: Empty until the stream has ended, then how it ended, under ``first``.
        self.ends: Dict[str, StreamEnd] = {}

    @property
    def end(self) -> Optional[StreamEnd]:
        """How the stream ended, ``None`` while it has not."""
        return self.ends.get("first")

    def note_end(self, end: StreamEnd) -> StreamEnd:
        """Note how the stream ended, unless it had ended before, and return what is noted.

        It is a single step for all threads and for handlers of signals.
        """
        return self.ends.setdefault("first", end)

    @property
    def answer(self) -> Optional[Answer]:
        """The answer, ``None`` if the stream has not ended with one."""
        end = self.end
        return end if isinstance(end, Answer) else None

    @property
    def usage(self) -> Optional[Usage]:
        """The tokens that the service has counted so far; ``None`` if it has counted none."""
        return self.complete.usage if self.complete else None

    @property
    def text(self) -> str:
        """The text so far."""
        return self._text.getvalue()

    @property
    def begun(self) -> bool:
        """Whether any text has come."""
        return self._text.tell() > 0

    def add(self, piece: str, limit: int) -> None:
        """Add a piece of text.

        Raises:
            ResponseTooLargeError: The text is longer than ``limit`` bytes with it.
        """
        self.size += len(piece) if piece.isascii() else len(piece.encode("utf-8"))
        if self.size > limit:
            raise ResponseTooLargeError(f"the answer is longer than {limit} bytes", stage="stream")
        self._text.write(piece)
        tell = self.on_text
        if tell is not None:
            self.on_text = None
            tell()

    def forget_text(self) -> None:
        """Begin anew, because the answer is another one."""
        self._text, self.size = io.StringIO(), 0

    def keep(self, event: UnknownEvent, size: int) -> bool:
        """Keep an unknown event of ``size`` bytes, and return whether there was room for it."""
        if len(self._events) == MAX_EVENTS or self._event_bytes + size > MAX_EVENT_BYTES:
            return False
        self._events.append(event)
        self._event_bytes += size
        return True

    def forget_events(self) -> None:
        """Forget the unknown events, because another reply begins."""
        self._events, self._event_bytes = [], 0

    def finish(self, complete: bool) -> None:
        """Note that the answer is there.

        Raises:
            StreamClosedError: The stream was closed before.
        """
        end = self.complete
        assert self.conversation is not None  # noqa: S101 - an answer comes after its conversation
        message_id = (end.id if end else None) or self.answer_id
        answer = Answer(
            text=self.text,
            conversation=self.conversation,
            model=self.routed_model or (end.model if end else "") or self.model,
            usage=end.usage if end else None,
            message_id=message_id,
            annotations=(end.annotations if end else None) or self.annotations,
            complete=complete,
            references=end.references if end else (),
            events=tuple(self._events),
            data=end.data if end else {},
        )
        self.conclude(answer)
        if complete:
            self.conversation.message_id = message_id

    def conclude(self, answer: Answer) -> None:
        """Have the stream end with an answer. Errors as in ``finish``."""
        if self.note_end(answer) is not answer:
            raise StreamClosedError("the stream was closed", stage="stream")
        self.written = answer

    @property
    def has_begun_once(self) -> bool:
        """Whether an answer has begun."""
        return self.begun or self.answer is not None
