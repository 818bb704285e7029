"""Which conversation a transcript belongs to, so that it goes on there instead of being sent again.

A client of OpenAI's API sends the whole transcript each time. If it begins as an earlier one did, up to an answer that
came from here, only what the user said since then is sent, to the conversation of that answer.

Threads: its memory is locked.
"""

import hashlib
import json
from typing import Any, List, Mapping, Optional

from copilot_sync.contrib.openai_gateway.bounded_memory import BoundedMemory
from copilot_sync.models import Conversation
from copilot_sync.prompts import CheckedPrompt

#: Conversations that are remembered. The one that was used least recently is forgotten first.
MOST = 1000


class ThreadMemory:
    """Remembers the conversations of transcripts. Safe for any thread.

    Args:
        most: How many.
    """

    def __init__(self, most: int = MOST) -> None:
        self._known: BoundedMemory[Conversation] = BoundedMemory(most)

    def take(self, model: Optional[str], messages: List[Any]) -> Optional[Conversation]:
        """Return the conversation that a transcript goes on with, and forget it: nothing else may go on there now.

        Raises:
            TypeError: A message has the wrong type.
            ValueError: A message can't be sent.
        """
        said = _up_to_answer(messages)
        return self._known.pop(_key(model, said)) if said else None

    def put_back(self, model: Optional[str], messages: List[Any], conversation: Conversation) -> None:
        """Remember again what was taken for a transcript: it was not asked there after all."""
        self._known.put(_key(model, _up_to_answer(messages)), conversation)

    def keep(self, model: Optional[str], messages: List[Any], text: str, conversation: Conversation) -> None:
        """Remember the conversation of a transcript and its answer."""
        self._known.put(_key(model, [*messages, {"role": "assistant", "content": text}]), conversation)


def _up_to_answer(messages: List[Any]) -> List[Any]:
    """Return a transcript without what the user said after the last answer; nothing if that is not how it ends."""
    end = len(messages)
    while end and _role(messages[end - 1]) == "user":
        end -= 1
    if end in (0, len(messages)) or _role(messages[end - 1]) != "assistant":
        return []
    return messages[:end]


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _key(model: Optional[str], messages: List[Any]) -> str:
    """Name a transcript by what was said in it. Contents of the same parts and text are the same."""
    said = CheckedPrompt.from_value(messages).turns
    return hashlib.sha256(json.dumps([model, said]).encode()).hexdigest()
