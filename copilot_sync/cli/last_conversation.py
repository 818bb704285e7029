"""The conversation that ``--continue`` continues: the last one with each API host, saved between commands.

This is a convenience and never a reason to fail: a conversation that can't be written is not saved, and one that
can't be read counts as missing.
"""

import json
from typing import Optional

from copilot_sync.auth.caches import TokenCache
from copilot_sync.models import Conversation

#: Seconds for which a conversation is kept: a year.
_LIFETIME = 365 * 86400


class LastConversation:
    """The last conversation with one API host.

    Args:
        store: Where to save it. Any cache for tokens will do.
        api_url: The host, or another name for it. The other hosts don't know its conversations.
    """

    def __init__(self, store: TokenCache, api_url: str) -> None:
        self._store = store
        self._api_url = api_url
        self._saved: Optional[Conversation] = None
        self._before = ""  # what was saved in its place

    def load(self) -> Optional[Conversation]:
        """Return the last conversation; ``None`` if there is none that can be read."""
        kept = self._store.get(self._api_url)
        try:
            return None if kept is None else Conversation.from_dict(json.loads(kept))
        except (TypeError, ValueError, RecursionError):
            return None

    def save(self, conversation: Conversation) -> None:
        """Save a conversation in place of the one before, if possible."""
        if self._saved is None or self._saved.conversation_id != conversation.conversation_id:
            self._before = self._store.get(self._api_url) or ""
        self._saved = conversation
        self._store.set(self._api_url, json.dumps(conversation.to_dict()), _LIFETIME)

    def discard(self, conversation: Conversation) -> None:
        """Save again what was there before a conversation that turned out to be empty."""
        if self._saved is not None and self._saved.conversation_id == conversation.conversation_id:
            self._saved = None
            self._store.set(self._api_url, self._before, _LIFETIME)
