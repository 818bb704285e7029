"""What the addresses of the chat page answer, for any framework.

The conversations of a visitor are in the session, by names that the page makes up. No id of one is ever taken from the
page, because all visitors share one account.
"""

from contextlib import contextmanager, suppress
from typing import Any, Dict, Iterator, List, Mapping, Optional, Protocol

from copilot_sync.client import Client
from copilot_sync.contrib.chat.kept_answers import AnswerRecord, Asked, KeptAnswers
from copilot_sync.contrib.chat.page import LONGEST_TITLE, MOST_CONVERSATIONS
from copilot_sync.contrib.chat.readings import AnswerFollowing, AnswerReading, place_of
from copilot_sync.contrib.sse import log_failure
from copilot_sync.errors import CopilotError, NotFoundError
from copilot_sync.message_tree import newest_branch
from copilot_sync.models import Conversation, Message, Thread
from copilot_sync.pacing.caches import MemoryCache, shared_cache_of
from copilot_sync.stream import Stream

#: Characters that a site keeps in the memory of a process if it names no cache.
_LARGEST_MEMORY = 32_000_000


def kept_answers_of(cache: Any) -> KeptAnswers:
    """Return the answers that are kept in a cache.

    Args:
        cache: A Redis client, a cache with ``get``, ``set`` and ``add``, or ``None`` for the memory of this process.

    Raises:
        TypeError: It is none of these.
    """
    return KeptAnswers(MemoryCache(largest=_LARGEST_MEMORY) if cache is None else shared_cache_of(cache))


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
        kept: The answers that the site keeps.
    """

    def __init__(self, client: Client, visit: Visit, kept: KeptAnswers) -> None:
        self._client = client
        self._visit = visit
        self._kept = kept

    def reading(self, stream: Stream) -> AnswerReading:
        """Return the first reading of an answer, whose stream has begun its conversation."""
        return AnswerReading(stream, self._kept.record(Asked.from_stream(stream)))

    def answer(self, name: str, last_event_id: Optional[str]) -> Optional[AnswerFollowing]:
        """Return the answer that is under way in a conversation, or has ended lately; ``None`` if there is none.

        Args:
            name: The name of the conversation.
            last_event_id: The id of the last event that the page has got.
        """
        asked = self._asked(name)
        if asked is None:
            return None
        place = place_of(last_event_id)
        position = place.position if place.answer_id == asked.answer_id else 0
        return AnswerFollowing(self._kept, asked, position, self._read_on)

    def _asked(self, name: str) -> Optional[Asked]:
        conversation = self._visit.conversations().get(name)
        return None if conversation is None else self._kept.find(conversation.conversation_id)

    def _read_on(self, record: AnswerRecord, kept_text: str, position: int) -> AnswerReading:
        asked = record.asked

        def ask() -> Stream:
            return self._client.stream(asked.question, model=asked.model, user=asked.user or None, handle=asked.handle)

        return AnswerReading(ask(), record, kept_text=kept_text, position=position, ask_again=ask)

    def stop(self, name: str) -> Dict[str, Any]:
        """Stop the answer that is under way in a conversation, whichever process reads it."""
        asked = self._asked(name)
        if asked is not None:
            self._kept.stop(asked)
        return {}

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
        with self._forgetting(name):
            branch = newest_branch(self._client.messages(conversation))
        asked = self._kept.find(conversation.conversation_id)
        if asked is None or self._has_ended(asked, branch):
            return {"messages": [_shown(message) for message in branch], "answer": None}
        before = [_shown(message) for message in _before(branch, asked)]
        return {"messages": before, "answer": {"id": asked.answer_id, "question": asked.question}}

    def _has_ended(self, asked: Asked, branch: List[Message]) -> bool:
        """Whether there is nothing to go on with: the event of its end is kept, or all of it is in its conversation."""
        found = [message for message in branch if message.id == asked.answer_id]
        is_whole = any(message.content and not message.interrupted for message in found)
        return is_whole or self._kept.look(asked).end is not None

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
            with self._forgetting(name):
                self._client.rename_thread(conversation, title.strip())
        return self.conversations()

    @contextmanager
    def _forgetting(self, name: str) -> Iterator[None]:
        """Remove a conversation from the session if the service says that there is none."""
        try:
            yield
        except NotFoundError:
            self._visit.forget(name)
            raise

    def delete(self, name: str) -> Dict[str, Any]:
        """Delete a conversation, here and at the service. An answer that is under way in it ends.

        Raises:
            CopilotError: The service refused.
        """
        conversation = self._visit.conversations().get(name)
        if conversation is not None:
            with suppress(NotFoundError):  # somebody else was faster
                self._client.delete_thread(conversation)
            self.stop(name)
            self._visit.forget(name)
        return self.conversations()

    def forget_oldest(self) -> None:
        """Remove the oldest conversations from the session if there are too many."""
        for name in list(self._visit.conversations())[:-MOST_CONVERSATIONS]:
            self._visit.forget(name)

    def models(self) -> Dict[str, Any]:
        """List the models that can be asked.

        Raises:
            CopilotError: The service can't say them.
        """
        return {"models": [{"id": model.id, "name": model.name} for model in self._client.models()]}


def _before(branch: List[Message], asked: Asked) -> List[Message]:
    """Return the messages before the question whose answer is under way."""
    places = [place for place, message in enumerate(branch) if _is_question(message, asked)]
    if not places:
        return [message for message in branch if message.id != asked.answer_id]
    return branch[: places[-1]]


def _is_question(message: Message, asked: Asked) -> bool:
    is_same = message.role == "user" and message.content.strip() == asked.question.strip()
    return is_same and asked.parent_id in (None, message.parent_id)


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
