"""The conversation that ``--continue`` goes on with: the last one of each API host, kept between invocations.

It is a convenience: where nothing can be written nothing is kept, and what can't be read is as good as nothing.
"""

import json
from typing import Optional

from copilot_sync.auth.caches import TokenCache
from copilot_sync.models import Conversation

#: Seconds after which nobody means "the last conversation" any more: a year.
_KEPT = 365 * 86400


class LastConversation:
    """The last conversation with one API host.

    Args:
        store: Where it is kept: what keeps tokens keeps it as well.
        api_url: The host. A conversation with one is unknown to the others.
    """

    def __init__(self, store: TokenCache, api_url: str) -> None:
        self._store = store
        self._api_url = api_url

    def load(self) -> Optional[Conversation]:
        """Give the last conversation; ``None`` where there is none that can be read."""
        kept = self._store.get(self._api_url)
        try:
            return None if kept is None else Conversation.from_dict(json.loads(kept))
        except (TypeError, ValueError, RecursionError):
            return None

    def save(self, conversation: Conversation) -> None:
        """Keep a conversation in place of the one before, where it can be kept."""
        self._store.set(self._api_url, json.dumps(conversation.to_dict()), _KEPT)
