"""OpenAI's responses over one client: they are begun, retrieved, cancelled and deleted.

A response is an answer in a conversation of the service. With ``previous_response_id`` the conversation goes on after
that answer. What was answered is remembered in this process alone, and only the last of it: see ``response_memory``.

Threads: any number of threads may call.
"""

from typing import Any, Callable, Dict, Optional, Union

from copilot_sync.contrib.openai_gateway.answering import Answering
from copilot_sync.contrib.openai_gateway.pages import PageQuery, values_of
from copilot_sync.contrib.openai_gateway.response_events import ResponseEvents, ResponseWriter
from copilot_sync.contrib.openai_gateway.response_memory import KnownResponse, ResponseMemory
from copilot_sync.contrib.openai_gateway.response_objects import (
    ResponseObjects,
    deleted,
    input_items,
)
from copilot_sync.contrib.openai_gateway.response_request import ResponseRequest
from copilot_sync.openai_api.failures import ApiError


class Responses:
    """The responses of a gateway. Safe for any thread.

    Args:
        memory: Remembers them.
    """

    def __init__(self, memory: Optional[ResponseMemory] = None) -> None:
        self._memory = ResponseMemory() if memory is None else memory

    def create(
        self, request: ResponseRequest, model: str, ask: Callable[..., Answering]
    ) -> Union[Dict[str, Any], ResponseEvents]:
        """Begin a response.

        Args:
            request: What is asked for.
            model: The model if the request names none.
            ask: Begins a question. It takes the arguments of ``Client.stream``, of which it adds some.

        Returns:
            The response, or its events.

        Raises:
            ApiError: It can't be begun, or has failed.
            ClientLeftError: The client has left.
        """
        previous = request.previous_response_id
        conversation = None if previous is None else self._memory.conversation_after(previous)
        objects = ResponseObjects(
            request.model or model,
            instructions=request.instructions,
            previous_response_id=previous,
            is_stored=request.is_stored,
            text_format=request.text_format,
        )
        response = KnownResponse(objects, request.input if request.is_stored else "")
        answering = ask(
            request.prompt(),
            schema=request.schema,
            model=request.model,
            system=request.instructions,
            user=request.user,
            conversation=conversation,
            parent_message_id=conversation and conversation.message_id,
        )
        response.begin(answering)
        if not request.is_streamed:
            found = response.complete(answering.whole())
            self._keep(response, request)
            return found
        writer = ResponseWriter(objects, response, self._memory.note_end)
        events = ResponseEvents(answering, writer, response)
        events.begin()
        self._keep(response, request)
        return events

    def _keep(self, response: KnownResponse, request: ResponseRequest) -> None:
        if request.is_stored:
            self._memory.keep(response)

    def retrieve(self, name: str, query: str = "") -> Dict[str, Any]:
        """Return a response as it is now.

        Raises:
            ApiError: It is not known (404), or is to be streamed, which it can be but once (400).
        """
        if values_of(query).get("stream", "false") != "false":
            raise ApiError(
                400, "a response that was begun can't be streamed again", code="unsupported_parameter", param="stream"
            )
        return self._memory.get(name).value

    def cancel(self, name: str) -> Dict[str, Any]:
        """End the answer of a response that is under way. Its events end with an error.

        Raises:
            ApiError: It is not known (404), or has ended (400).
        """
        return self._memory.get(name).cancel()

    def delete(self, name: str) -> Dict[str, Any]:
        """Forget a response. Its conversation stays, and so does an answer that is under way.

        Raises:
            ApiError: It is not known (404).
        """
        self._memory.forget(name)
        return deleted(name)

    def input_items(self, name: str, query: str = "") -> Dict[str, Any]:
        """Return a page of what a response was asked, the last first, as OpenAI has it.

        Raises:
            ApiError: It is not known (404), or the query makes no sense (400).
        """
        page = PageQuery.from_values(values_of(query), usual=20, most=100)
        return page.page_of(input_items(name, self._memory.get(name).given))
