"""A response as server-sent events: the body of an HTTP response.

Threads: confined to the thread that iterates, but for ``close``.
"""

from typing import Callable

from copilot_sync.contrib.openai_gateway.answering import Answering
from copilot_sync.contrib.openai_gateway.chat_events import AnswerEvents, AnswerWriter
from copilot_sync.contrib.openai_gateway.response_memory import KnownResponse
from copilot_sync.contrib.openai_gateway.response_objects import EventObjects
from copilot_sync.models import Answer
from copilot_sync.openai_api.failures import ApiError


class ResponseWriter(AnswerWriter):
    """Writes the events of one response, and ends the response with its answer.

    Args:
        objects: The objects of the events.
        response: The response.
        on_end: Called when it is whole.
    """

    def __init__(
        self, objects: EventObjects, response: KnownResponse, on_end: Callable[[KnownResponse], object]
    ) -> None:
        self._objects = objects
        self._response = response
        self._on_end = on_end

    def first(self) -> bytes:
        """Return the events ahead of the text."""
        return self._objects.first()

    def delta(self, text: str) -> bytes:
        """Return the event for a piece of text."""
        return self._objects.delta(text)

    def end(self, answer: Answer) -> bytes:
        """Return the events that say that the answer is whole.

        Raises:
            ApiError: The response was cancelled.
        """
        value = self._response.complete(answer)
        self._on_end(self._response)
        return self._objects.end(value, answer.text)

    def failed(self, error: ApiError) -> bytes:
        """Return what says that the answer has failed."""
        said = self._response.fail(error)
        event = self._objects.failed(self._response.value) if said is error else b""
        return event + super().failed(said)


class ResponseEvents(AnswerEvents):
    """The events of one response. A response that has not ended when they are closed is cancelled.

    Args:
        answering: The question under way. It is closed in the end.
        writer: Writes the events.
        response: The response.
    """

    def __init__(self, answering: Answering, writer: ResponseWriter, response: KnownResponse) -> None:
        self._response = response
        super().__init__(answering, writer)

    def close(self) -> None:
        """End the question and the response. May be called any number of times, from any thread."""
        super().close()
        self._response.abandon()
