"""The last question of a chat: what it takes to ask it again, or to ask another one in its place. Pure.

A question has a place in its thread: the message that it follows. What is asked again there becomes a sibling of the
question, and so begins a branch.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Dict, List, Optional

from copilot_sync.delivery.message import PendingMessage, SentMessage
from copilot_sync.message_tree import newest_branch
from copilot_sync.models import Conversation, Message
from copilot_sync.protocol.requests import ROOT, MessageOptions
from copilot_sync.structured import Expectation

#: What belongs to the place of a question, and not to the question.
_PLACE = "parent_message_id"


@dataclass(frozen=True)
class Question:
    """A question that can be asked again.

    Attributes:
        content: Its text as it was sent.
        model: The model that it was meant for; ``None`` if it is unknown.
        options: The further fields of its request.
        system: The instructions that went with it, as part of its text.
        expected: What its answer has to be; ``None`` for any text.
        opens: Whether it brought the instructions and files of its chat.
        conversation_id: The thread that it went to; ``None`` if that had not begun.
        parent_id: The message that it follows; ``root`` at the beginning of a thread, ``None`` if it is unknown.
    """

    content: str
    model: Optional[str] = None
    options: MessageOptions = field(default_factory=MessageOptions)
    system: str = ""
    expected: Optional[Expectation] = None
    opens: bool = False
    conversation_id: Optional[str] = None
    parent_id: Optional[str] = None

    @classmethod
    def from_pending(cls, message: PendingMessage, conversation: Optional[Conversation] = None) -> "Question":
        """Make a question of a message.

        Args:
            message: The message.
            conversation: Where it goes; ``None`` if that has not begun.
        """
        question = cls(message.content, message.model, message.options, expected=message.expected)
        if conversation is None:
            return question
        sent = SentMessage.from_pending(message, conversation, "")
        return replace(question, conversation_id=sent.conversation_id, parent_id=sent.parent_id)

    @property
    def begins_thread(self) -> bool:
        """Whether nothing comes before the question."""
        return self.conversation_id is None or self.parent_id == ROOT

    def streamed(self) -> "Question":
        """Return the question, if its answer can be streamed.

        Raises:
            ValueError: The answer has to fit a schema.
        """
        if self.expected is not None:
            raise ValueError("the answer to the last question has to fit a schema, so it can't be streamed: use retry")
        return self

    def to_options(self) -> Dict[str, Any]:
        """Return what ``Client.stream`` takes for the same further fields, without the place."""
        names = [each.name for each in fields(self.options) if each.name != _PLACE]
        return {name: getattr(self.options, name) for name in names}


def find_question(
    messages: List[Message], conversation: Conversation, asked: Optional[Question] = None
) -> Optional[Question]:
    """Find the last question of a conversation, on the newest branch through its last message that is known.

    Args:
        messages: The messages of its thread.
        conversation: The conversation.
        asked: The question, if only its place is unknown. If it is not in the thread, the service did not keep it, and
            its place stays unknown.

    Returns:
        The question; ``None`` if there is none.
    """
    branch = newest_branch(messages, conversation.message_id)
    stored = next((message for message in reversed(branch) if message.role == "user"), None)
    if asked is not None and (stored is None or stored.content.split() != asked.content.split()):
        return asked
    if stored is None:
        return None
    question = asked or Question(stored.content)
    return replace(question, conversation_id=conversation.conversation_id, parent_id=stored.parent_id or ROOT)
