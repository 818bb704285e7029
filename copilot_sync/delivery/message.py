"""A message before and after it is sent: plain values, without I/O.

``PendingMessage`` is what a caller wants to ask, ``CallOptions`` is how the call behaves, and ``SentMessage`` is what
the message can be found by in its thread. A ``MessageHandle`` holds the ids of a message, so that another process can
find its answer. The client itself chooses the id of the answer (``new_id``), which is how a lost answer is found.
"""

from dataclasses import dataclass
from typing import Any, Optional, Tuple

from copilot_sync.models import Conversation
from copilot_sync.protocol.requests import ROOT, MessageOptions
from copilot_sync.settings import RetryPolicy, Timeout
from copilot_sync.structured import Expectation


@dataclass(frozen=True)
class MessageHandle:
    """What a message can be found by again, also by another process. Make and keep it before you send the message.

    Attributes:
        conversation_id: The conversation that the message goes into.
        answer_id: A UUID, which becomes the id of the answer.
        parent_id: The message that this one answers; ``root`` at the beginning of a conversation, ``None`` if it is
            unknown.
        maybe_sent: Whether the message may have been sent before. If so, the conversation is looked at first.
    """

    conversation_id: str
    answer_id: str
    parent_id: Optional[str] = None
    maybe_sent: bool = False


@dataclass(frozen=True)
class PendingMessage:
    """What to ask.

    Attributes:
        content: The text.
        model: The model's id.
        options: Further fields of the request.
        conversation: The conversation that the message goes into; ``None`` for a new one.
        buffered: Whether to hand out nothing of the answer before all of it is there.
        handle: The ids of the message and of its answer; ``None`` to find them out on the way.
        fallback_model: The model to ask instead, once, if the service does not answer with ``model``; ``""`` for none.
        label: What the call is for, in the caller's words; ``""`` for none. The service is not told.
        user: For whom it is made, of those that the caller serves; ``""`` for nobody. The service is not told.
        expected: What the answer has to be; ``None`` for any text. The text already says so.
    """

    content: str
    model: str
    options: MessageOptions
    conversation: Optional[Conversation]
    buffered: bool = False
    handle: Optional[MessageHandle] = None
    fallback_model: str = ""
    label: str = ""
    user: str = ""
    expected: Optional[Expectation] = None


@dataclass(frozen=True)
class CallOptions:
    """How a call behaves: its time limits, its retries, whether the rest of a cut answer is fetched, what it passes.

    ``answers`` is where whole answers are kept, if anywhere, and ``hooks`` is who is told how it goes.
    """

    timeout: Timeout
    retry: Optional[RetryPolicy]
    resume: bool
    guards: Tuple[Any, ...] = ()  # each is a ``CallGuard``
    answers: Any = None  # an ``AnswerCache``
    hooks: Tuple[Any, ...] = ()  # each is a ``Hook``


@dataclass(frozen=True)
class SentMessage:
    """What is known of a message that the service may have processed.

    Attributes:
        content: Its text.
        conversation_id: The thread that it went to.
        parent_id: The message that it answers; ``root`` at the beginning of a thread, ``None`` if it is unknown.
        answer_id: The id that its answer will have.
        is_first: Whether the thread was empty before it.
    """

    content: str
    conversation_id: str
    parent_id: Optional[str]
    answer_id: str
    is_first: bool

    @classmethod
    def from_pending(cls, message: PendingMessage, conversation: Conversation, answer_id: str) -> "SentMessage":
        """Work out what a message can be found by, once its conversation is known."""
        parent_id = message.options.parent_message_id or conversation.message_id
        is_first = message.conversation is None
        if message.handle is not None:
            parent_id = message.handle.parent_id
            is_first = parent_id == ROOT
        elif parent_id is None and is_first:
            parent_id = ROOT
        return cls(message.content, conversation.conversation_id, parent_id, answer_id, is_first)


def new_id() -> str:
    """Make an id for an answer that does not exist yet."""
    import uuid  # here, because it takes a while

    return str(uuid.uuid4())
