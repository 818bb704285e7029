"""What is asked, what has come of the answer so far, and how its stream ended.

An ``AnswerBuilder`` is shared by the thread that reads, by whoever looks at the text, and by whoever closes the
stream: each change to it is a single step.
"""

import io
from dataclasses import dataclass
from typing import Any, Dict, Optional, Union

from copilot_sync.errors import ResponseTooLargeError, StreamClosedError
from copilot_sync.events import CompleteEvent
from copilot_sync.models import Answer, Conversation, MessageHandle
from copilot_sync.protocol.requests import MessageOptions
from copilot_sync.settings import RetryPolicy, Timeout


@dataclass(frozen=True)
class PendingMessage:
    """What is asked.

    ``buffered`` says that nothing of the answer is handed out before all of it is there. A ``handle`` says where the
    message goes, what it answers and what its answer is called; without one, that is found out on the way.
    """

    content: str
    model: str
    options: MessageOptions
    conversation: Optional[Conversation]
    buffered: bool = False
    handle: Optional[MessageHandle] = None


@dataclass(frozen=True)
class CallOptions:
    """How a call behaves: its time limits, its retries, and whether the rest of a cut answer is fetched."""

    timeout: Timeout
    retry: Optional[RetryPolicy]
    resume: bool


@dataclass(frozen=True)
class Closed:
    """The end of a stream that was closed, and by which thread."""

    thread: int


#: The end of a stream that failed.
FAILED = "failed"
#: How a stream ended.
End = Union[Answer, Closed, str]


class AnswerBuilder:
    """What is known of an answer so far, and how its stream ended."""

    def __init__(self, turn: PendingMessage) -> None:
        self._turn = turn
        # Other threads ask for the text while pieces are added, so each step on it is a single one. A list of the
        # pieces would be twelve times as large.
        self._text = io.StringIO()
        self.size = 0  # of the text, in bytes
        self.conversation = turn.conversation
        self.response_id = _new_id() if turn.handle is None else turn.handle.answer_id
        self.routed_model = ""
        self.annotations: Any = {}
        self.complete: Optional[CompleteEvent] = None
        #: Whether an event could not be read, which may have held some of the text.
        self.has_hole = False
        #: Empty until the stream has ended, then how it ended, under ``first``.
        self.ends: Dict[str, End] = {}

    @property
    def end(self) -> Optional[End]:
        """How the stream ended, ``None`` while it has not."""
        return self.ends.get("first")

    def note_end(self, end: End) -> End:
        """Note how the stream ended, unless it had ended before, and give what is noted.

        It is a single step for all threads and for handlers of signals.
        """
        return self.ends.setdefault("first", end)

    @property
    def answer(self) -> Optional[Answer]:
        """The answer, ``None`` where the stream has not ended with one."""
        end = self.end
        return end if isinstance(end, Answer) else None

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

    def forget_text(self) -> None:
        """Begin anew, because the answer is another one."""
        self._text, self.size = io.StringIO(), 0

    def finish(self, complete: bool) -> None:
        """Note that the answer is there.

        Raises:
            StreamClosedError: The stream was closed before.
        """
        end = self.complete
        assert self.conversation is not None  # noqa: S101 - an answer comes after its conversation
        message_id = (end.id if end else None) or self.response_id
        answer = Answer(
            text=self.text,
            conversation=self.conversation,
            model=self.routed_model or (end.model if end else "") or self._turn.model,
            usage=end.usage if end else None,
            message_id=message_id,
            annotations=(end.annotations if end else None) or self.annotations,
            complete=complete,
        )
        if self.note_end(answer) is not answer:
            raise StreamClosedError("the stream was closed", stage="stream")
        if complete:
            self.conversation.message_id = message_id


def _new_id() -> str:
    import uuid  # here, because it takes a while

    return str(uuid.uuid4())
