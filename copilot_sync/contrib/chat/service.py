"""What the addresses of the chat page answer, for any framework.

The conversations of a visitor are in the session, by names that the page makes up. No id of one is ever taken from the
page, because all visitors share one account.
"""

from contextlib import suppress
from typing import Any, Dict, List, Mapping, Protocol

from copilot_sync.client import Client
from copilot_sync.contrib.chat.page import LONGEST_TITLE
from copilot_sync.contrib.sse import log_failure
from copilot_sync.errors import CopilotError, NotFoundError
from copilot_sync.message_tree import newest_branch
from copilot_sync.models import Conversation, Message, Thread


class Visit(Protocol):
    """One request of a visitor, with the conversations of the session."""

    def conversations(self) -> Dict[str, Conversation]:
        """Return the conversations by name, the newest last."""

    def forget(self, name: str) -> None:
        """Remove a conversation from the session."""


class ChatService:
    """Answers one request.

    Args:
        client: The site's client.
        visit: The request.
    """

    def __init__(self, client: Client, visit: Visit) -> None:
        self._client = client
        self._visit = visit

    def conversations(self) -> Dict[str, Any]:
        """List the visitor's conversations, the newest first. Without titles if the service can't say them now."""
        kept = self._visit.conversations()
        threads = {thread.id: thread for thread in self._threads()} if kept else {}
        listed = [_listed(name, threads.get(each.conversation_id)) for name, each in reversed(list(kept.items()))]
        return {"conversations": sorted(listed, key=lambda each: each["updated_at"] or "", reverse=True)}

    def _threads(self) -> List[Thread]:
        try:
            return self._client.threads()
        except CopilotError as error:
            log_failure(error)
            return []

    def messages(self, name: str) -> Dict[str, Any]:
        """Return what was said in a conversation: nothing if the session has none of that name.

        Raises:
            CopilotError: The conversation can't be looked up.
        """
        conversation = self._visit.conversations().get(name)
        if conversation is None:
            return {"messages": [], "answer": None}
        branch = newest_branch(self._client.messages(conversation))
        return {"messages": [_shown(message) for message in branch], "answer": None}

    def rename(self, name: str, title: str) -> Dict[str, Any]:
        """Give a conversation another title.

        Raises:
            ValueError: The title is blank or too long.
            CopilotError: The service refused.
        """
        if not title.strip() or len(title) > LONGEST_TITLE:
            raise ValueError(f"a title has between 1 and {LONGEST_TITLE} characters")
        conversation = self._visit.conversations().get(name)
        if conversation is not None:
            self._client.rename_thread(conversation, title.strip())
        return self.conversations()

    def delete(self, name: str) -> Dict[str, Any]:
        """Delete a conversation, here and at the service.

        Raises:
            CopilotError: The service refused.
        """
        conversation = self._visit.conversations().get(name)
        if conversation is not None:
            with suppress(NotFoundError):  # somebody else was faster
                self._client.delete_thread(conversation)
            self._visit.forget(name)
        return self.conversations()

    def models(self) -> Dict[str, Any]:
        """List the models that can be asked.

        Raises:
            CopilotError: The service can't say them.
        """
        return {"models": [{"id": model.id, "name": model.name} for model in self._client.models()]}


def _listed(name: str, thread: Any) -> Mapping[str, Any]:
    if thread is None:
        return {"name": name, "title": None, "updated_at": None}
    return {"name": name, "title": thread.name or None, "updated_at": thread.updated_at}


def _shown(message: Message) -> Dict[str, Any]:
    return {
        "id": message.id,
        "parent_id": message.parent_id,
        "role": message.role,
        "text": message.content,
        "model": message.model or None,
        "created_at": message.created_at,
    }
