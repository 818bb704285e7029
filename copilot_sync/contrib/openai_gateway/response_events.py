"""A response as server-sent events, as OpenAI's API has them (openai 1.66 to 3.57, November 2026).

Every event has a ``sequence_number``. An answer that failed ends with ``response.failed``, which is an event as any
other for the official clients, and then with an error object, which is what makes them raise.

Threads: confined to the thread that iterates, but for ``close``.
"""

from typing import Any, Callable

from copilot_sync.contrib.openai_gateway.answer_events import AnswerEvents
from copilot_sync.contrib.openai_gateway.answering import Answering
from copilot_sync.contrib.openai_gateway.response_memory import KnownResponse
from copilot_sync.contrib.openai_gateway.response_objects import ResponseObjects, text_part
from copilot_sync.models import Answer
from copilot_sync.openai_api.answer_writer import AnswerWriter, data_event
from copilot_sync.openai_api.failures import ApiError


class ResponseWriter(AnswerWriter):
    """Writes the events of one response, in order, and ends the response with its answer.

    Args:
        objects: The objects of the response.
        response: The response.
        on_end: Called when it is whole.
    """

    def __init__(
        self, objects: ResponseObjects, response: KnownResponse, on_end: Callable[[KnownResponse], object]
    ) -> None:
        self._objects = objects
        self._response = response
        self._on_end = on_end
        self._place = {"item_id": objects.message_id, "output_index": 0, "content_index": 0}
        self._number = 0

    def first(self) -> bytes:
        """Return the events ahead of the text."""
        response = self._objects.in_progress()
        return b"".join(
            [
                self._event("response.created", response=response),
                self._event("response.in_progress", response=response),
                self._event("response.output_item.added", output_index=0, item=self._objects.message()),
                self._event("response.content_part.added", **self._place, part=text_part("")),
            ]
        )

    def delta(self, text: str) -> bytes:
        """Return the event for a piece of text."""
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def end(self, answer: Answer) -> bytes:
        """Return the events that say that the answer is whole.

        Raises:
            ApiError: The response was cancelled.
        """
        response, text = self._response.complete(answer), answer.text
        self._on_end(self._response)
        return b"".join(
            [
                self._event("response.output_text.done", **self._place, text=text, logprobs=[]),
                self._event("response.content_part.done", **self._place, part=text_part(text)),
                self._event("response.output_item.done", output_index=0, item=self._objects.message(text)),
                self._event("response.completed", response=response),
            ]
        )

    def failed(self, error: ApiError) -> bytes:
        """Return what says that the answer has failed."""
        said = self._response.fail(error)
        event = self._event("response.failed", response=self._response.value) if said is error else b""
        return event + super().failed(said)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = data_event({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: %b\n%b" % (kind.encode("ascii"), event)


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
