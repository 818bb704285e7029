"""Which conversation a transcript belongs to, so that it goes on there instead of being sent again.

A client of OpenAI's API sends the whole transcript each time. If it begins as an earlier one did, up to an answer that
came from here, only what the user said since then is sent, to the conversation of that answer.

Threads: locked.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from typing import Any, List, Mapping, Optional, Tuple

from copilot_sync.message_parts import read_content
from copilot_sync.models import Conversation
from copilot_sync.transport.fork import reset_after_fork

#: Conversations that are remembered. The one that was used least recently is forgotten first.
MOST = 1000


class ThreadMemory:
    """Remembers the conversations of transcripts. Safe for any thread.

    Args:
        most: How many.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[str, Conversation] = OrderedDict()
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Begin with a new lock."""
        self._lock = threading.RLock()

    def take(self, model: Optional[str], messages: List[Any]) -> Optional[Conversation]:
        """Return the conversation that a transcript goes on with, and forget it: nothing else may go on there now."""
        end = len(messages)
        while end and _role(messages[end - 1]) == "user":
            end -= 1
        if end in (0, len(messages)) or _role(messages[end - 1]) != "assistant":
            return None
        with self._lock:
            return self._known.pop(_key(model, messages[:end]), None)

    def keep(self, model: Optional[str], messages: List[Any], text: str, conversation: Conversation) -> None:
        """Remember the conversation of a transcript and its answer."""
        key = _key(model, [*messages, {"role": "assistant", "content": text}])
        with self._lock:
            self._known[key] = conversation
            if len(self._known) > self._most:
                self._known.popitem(last=False)


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _key(model: Optional[str], messages: List[Any]) -> str:
    """Name a transcript by what was said in it. Contents of the same parts and text are the same."""
    said: List[Tuple[Any, ...]] = []
    for number, message in enumerate(messages):
        text, attachments = read_content(number, message.get("content"))
        said.append((_role(message), text, attachments))
    return hashlib.sha256(json.dumps([model, said]).encode()).hexdigest()
