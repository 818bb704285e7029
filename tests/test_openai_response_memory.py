"""What is remembered of the gateway's responses: each has one end, and the memory its bounds."""

import weakref
from typing import Any, Callable, Dict, Tuple

import pytest
from support import collect_garbage

from copilot_sync import Answer, Conversation
from copilot_sync.contrib.openai_gateway.response_memory import KnownResponse, ResponseMemory
from copilot_sync.contrib.openai_gateway.response_objects import ResponseObjects
from copilot_sync.openai_api.failures import ApiError


class Closings:
    """Counts how often it is closed."""

    def __init__(self) -> None:
        self.count = 0

    def close(self) -> None:
        self.count += 1


def known() -> Tuple[KnownResponse, Closings]:
    closings = Closings()
    response = KnownResponse(ResponseObjects("auto"), "")
    response.begin(closings)  # type: ignore[arg-type]
    return response, closings


def test_a_response_that_was_cancelled_at_its_end_does_not_complete() -> None:
    """Whoever comes first decides."""
    response, closings = known()
    assert response.cancel()["status"] == "cancelled"
    with pytest.raises(ApiError, match="cancelled"):
        response.complete(Answer("text", Conversation("c-1"), "auto"))
    assert response.fail(ApiError(500, "something else")).code == "cancelled"
    response.abandon()
    assert (response.value["status"], response.conversation(), closings.count) == ("cancelled", None, 1)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda response: response.fail(ApiError(500, "no")), id="failed"),
        pytest.param(lambda response: response.abandon(), id="left"),
        pytest.param(lambda response: response.complete(Answer("text", Conversation("c-1"), "auto")), id="whole"),
    ],
)
def test_a_response_that_has_ended_can_not_be_cancelled(end: Callable[[KnownResponse], object]) -> None:
    """However it ended; its status stays."""
    response, closings = known()
    end(response)
    status = response.value["status"]
    with pytest.raises(ApiError) as caught:
        response.cancel()
    assert (caught.value.status, response.value["status"], closings.count) == (400, status, 0)


class Message(Dict[str, Any]):
    """A message that can be seen to go."""


def test_what_was_asked_is_remembered_as_the_bytes_that_are_counted() -> None:
    """The objects of JSON take many times its bytes: an empty list alone takes fifty."""
    message = Message(role="user", content="text", other=[[], []])
    expected = [dict(message)]
    response = KnownResponse(ResponseObjects("auto"), [message])
    seen = weakref.ref(message)
    del message
    collect_garbage()
    assert seen() is None
    assert response.given == expected


def test_so_many_responses_are_remembered() -> None:
    """And so many bytes of what they were asked and answered; what was used least recently is forgotten first."""
    memory = ResponseMemory(2, 10_000)
    responses = [KnownResponse(ResponseObjects("auto"), "question") for _ in range(3)]
    names = [response.value["id"] for response in responses]
    for response in responses:
        memory.keep(response)
    with pytest.raises(ApiError):
        memory.get(names[0])
    assert memory.get(names[1]) is responses[1]
    responses[1].complete(Answer("a" * 9000, Conversation("c-1"), "auto"))
    memory.note_end(responses[1])
    with pytest.raises(ApiError):
        memory.get(names[2])
    assert memory.get(names[1]) is responses[1]
    large = KnownResponse(ResponseObjects("auto"), "a" * 10_000)
    memory.keep(large)
    with pytest.raises(ApiError):
        memory.get(large.value["id"])


def test_an_answer_that_has_ended_holds_no_stream() -> None:
    """What is remembered of a response is small."""
    response, _ = known()
    response.complete(Answer("text", Conversation("c-1"), "auto"))
    assert response._answering is None
