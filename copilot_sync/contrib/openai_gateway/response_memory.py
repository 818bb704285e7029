"""The responses that were begun here: what they are now, and where their conversations go on.

A response has one end. Whoever comes first decides which: the answer is whole, it failed, or it was cancelled. So a
response that was cancelled never completes.

The service's messages form a tree. A request that goes on after a response names that answer as its parent, with a
conversation of its own, so that several can go on after the same answer: each begins a branch.

Threads: the memory is locked. The end of a response is a single step.
"""

import json
from typing import Any, Dict, List, Optional, Union

from copilot_sync.contrib.openai_gateway.answering import Answering
from copilot_sync.contrib.openai_gateway.bounded_memory import BoundedMemory
from copilot_sync.contrib.openai_gateway.response_objects import ResponseObjects
from copilot_sync.models import Answer, Conversation
from copilot_sync.openai_api.answer_writer import json_body
from copilot_sync.openai_api.failures import ApiError, cancelled

#: Responses that are remembered, and bytes of their JSON and of what they were asked.
MOST, MOST_BYTES = 1000, 64 * 1024 * 1024


class KnownResponse:
    """A response from its first moment on. Safe for any thread.

    Args:
        objects: The objects of the response.
        given: What it is asked.
    """

    def __init__(self, objects: ResponseObjects, given: Union[str, List[Dict[str, Any]]]) -> None:
        self._objects = objects
        self._answering: Optional[Answering] = None
        self._given = json_body({"input": given})  # objects take many times the bytes
        self._ends = [True]  # taken by whoever ends it
        self._conversation: Optional[Conversation] = None
        #: The response as it is now.
        self.value = objects.in_progress()

    @property
    def size(self) -> int:
        """Its bytes, about."""
        return len(self._given) + len(json_body(self.value))

    @property
    def given(self) -> Union[str, List[Dict[str, Any]]]:
        """What it was asked."""
        return json.loads(self._given)["input"]  # type: ignore[no-any-return]

    def begin(self, answering: Answering) -> None:
        """Say which question is under way, so that it can be cancelled."""
        self._answering = answering

    def complete(self, answer: Answer) -> Dict[str, Any]:
        """End with a whole answer, and return the response.

        Raises:
            ApiError: It was cancelled.
        """
        if not self._may_end():
            raise cancelled()
        self._conversation = _copy_of(answer.conversation)
        self.value = self._objects.completed(answer)
        return self.value

    def fail(self, error: ApiError) -> ApiError:
        """End with an error, and return what has to be said: another one if the response was cancelled."""
        if not self._may_end():
            return cancelled()
        self.value = self._objects.failed(error)
        return error

    def abandon(self) -> None:
        """End it if it has not ended: nobody waits for it any more."""
        if self._may_end():
            self.value = self._objects.cancelled()

    def cancel(self) -> Dict[str, Any]:
        """Cancel it, and return the response.

        Raises:
            ApiError: It has ended already (400).
        """
        answering = self._answering
        if answering is None or not self._may_end():
            raise ApiError(400, "the response has ended already", code="response_ended")
        self.value = self._objects.cancelled()
        answering.close()
        return self.value

    def conversation(self) -> Optional[Conversation]:
        """Return a conversation that goes on after this answer; ``None`` if the response is not whole."""
        known = self._conversation
        return None if known is None else _copy_of(known)

    def _may_end(self) -> bool:
        try:
            self._ends.pop()
        except IndexError:
            return False
        self._answering = None
        return True


def _copy_of(conversation: Conversation) -> Conversation:
    """Return the same place in the same thread. The original is moved on by whoever goes on with it."""
    return Conversation.from_dict(conversation.to_dict())


class ResponseMemory:
    """Remembers responses. Safe for any thread, and for processes that fork.

    Args:
        most: How many.
        most_bytes: How many bytes of them.
    """

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._known: BoundedMemory[KnownResponse] = BoundedMemory(most, most_bytes)

    def keep(self, response: KnownResponse) -> None:
        """Remember a response."""
        self._known.put(response.value["id"], response, response.size)

    def note_end(self, response: KnownResponse) -> None:
        """Count what a response has become, unless it was forgotten."""
        self._known.resize(response.value["id"], response.size)

    def get(self, name: str) -> KnownResponse:
        """Return a response.

        Raises:
            ApiError: It is not known (404).
        """
        found = self._known.get(name)
        if found is None:
            raise _unknown()
        return found

    def forget(self, name: str) -> None:
        """Forget a response. Its conversation stays, and so does an answer that is under way.

        Raises:
            ApiError: It is not known (404).
        """
        if self._known.pop(name) is None:
            raise _unknown()

    def conversation_after(self, name: str) -> Conversation:
        """Return a conversation that goes on after a response.

        Raises:
            ApiError: It is not known, or not whole (400).
        """
        found = self._known.get(name)
        conversation = None if found is None else found.conversation()
        if conversation is None:
            words = "is not known here" if found is None else "has no whole answer to go on after"
            raise ApiError(
                400,
                f"the previous response {words}",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return conversation


def _unknown() -> ApiError:
    return ApiError(404, "there is no response of this id", code="response_not_found")
