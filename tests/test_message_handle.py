"""A message with a handle can be taken up again by whoever holds it, in another process too, without asking twice."""

import pickle
import uuid
from dataclasses import replace
from typing import Iterator, List, Optional

import pytest

from copilot_sync import Client, NotFoundError, RateLimitError, RetryPolicy, StreamInterruptedError
from copilot_sync.delivery import recovery
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.protocol.requests import ROOT
from copilot_sync.stream import Stream


@pytest.fixture
def emulator(copilot_emulator: Emulator) -> Emulator:
    copilot_emulator.reply = Reply(["one ", "two"])
    return copilot_emulator


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    urls = emulator.github_url, emulator.api_url
    at_once = RetryPolicy(base=0.0, cap=0.0)
    with Client(cookies=emulator.cookies, retry=at_once, github_url=urls[0], api_url=urls[1]) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_FIRST_LOOK", 0.001)
    monkeypatch.setattr(recovery, "_LONGEST_LOOK", 0.01)


def handle_of(client: Client, parent_id: Optional[str] = ROOT) -> MessageHandle:
    return MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), parent_id)


def finished(stream: Stream) -> Stream:
    stream.read()
    return stream


def stages(emulator: Emulator) -> List[str]:
    return [request.stage for request in emulator.requests if request.stage in ("message", "messages")]


def test_a_message_goes_where_its_handle_says(emulator: Emulator, client: Client) -> None:
    """With the ids that it has, and without a look, because it was not sent before."""
    handle = handle_of(client)
    stream = finished(client.stream("hi", handle=handle))
    assert stream.answer is not None
    assert (stream.answer.text, stream.answer.message_id, stream.attempts) == ("one two", handle.answer_id, 1)
    assert stream.answer.conversation.conversation_id == handle.conversation_id
    (sent,) = [request for request in emulator.requests if request.stage == "message"]
    assert sent.json["responseMessageID"] == handle.answer_id
    assert sent.json["parentMessageID"] == "root"
    assert stages(emulator) == ["message"]


def test_an_answer_that_is_there_is_not_asked_for_again(emulator: Emulator, client: Client) -> None:
    """The handle goes to another process, which finds the answer and sends nothing."""
    handle = handle_of(client)
    finished(client.stream("hi", handle=handle))
    taken_up = replace(pickle.loads(pickle.dumps(handle)), maybe_sent=True)
    stream = finished(client.stream("hi", handle=taken_up))
    assert stream.answer is not None
    assert (stream.answer.text, stream.answer.complete, stream.attempts) == ("one two", True, 0)
    assert stages(emulator) == ["message", "messages"]


@pytest.mark.parametrize("parent_id", [ROOT, None])
def test_a_message_that_is_not_there_is_sent(emulator: Emulator, client: Client, parent_id: Optional[str]) -> None:
    """After a second look, with the same ids, so that it can be taken up once more."""
    handle = replace(handle_of(client, parent_id), maybe_sent=True)
    stream = finished(client.stream("hi", handle=handle))
    assert (stream.text, stream.attempts) == ("one two", 1)
    looks = ["messages"] * (2 if parent_id else 3)  # the third one finds out what the message answers
    assert stages(emulator) == [*looks, "message"]
    finished(client.stream("hi", handle=handle))
    assert stages(emulator) == [*looks, "message", "messages"]


def test_an_answer_that_is_being_written_is_waited_for(emulator: Emulator, client: Client) -> None:
    """Whoever had sent the message is gone, and the service goes on writing."""

    def pieces() -> Iterator[str]:
        yield "one "
        emulator.wait_until(lambda: stages(emulator).count("messages") >= 3)
        yield "two"

    emulator.script(Reply(pieces()))
    handle = handle_of(client)
    with client.stream("hi", handle=handle) as left:
        assert next(left) == "one "
    stream = finished(client.stream("hi", handle=replace(handle, maybe_sent=True)))
    assert (stream.text, stream.attempts) == ("one two", 0)


def test_an_answer_that_never_comes_is_an_error(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is there, so it is not sent again."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.5)
    emulator.script(Reply(["half"], error="boom"))
    handle = handle_of(client)
    with client.stream("hi", handle=handle) as left:
        next(left)
    with pytest.raises(StreamInterruptedError, match="was taken, but its answer did not appear"):
        finished(client.stream("hi", handle=replace(handle, maybe_sent=True)))
    assert stages(emulator).count("message") == 1


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(Fault.status(404), NotFoundError), (Fault.status(429, retry_after=3600), RateLimitError)],
)
def test_where_nobody_can_look_nothing_is_sent(emulator: Emulator, client: Client, fault: Fault, cause: type) -> None:
    """It stays unknown whether the message was taken; the error says why."""
    emulator.fail("messages", fault)
    with pytest.raises(StreamInterruptedError, match="unknown whether the message was taken") as caught:
        finished(client.stream("hi", handle=replace(handle_of(client), maybe_sent=True)))
    assert isinstance(caught.value.__cause__, cause)
    assert stages(emulator) == ["messages"]


def test_a_conversation_that_is_not_empty_may_hold_it_in_another_form(emulator: Emulator, client: Client) -> None:
    """Where a message at the beginning should stand alone and something else stands there, it is not sent."""
    handle = handle_of(client)
    client.ask("something else", conversation=handle.conversation_id)
    with pytest.raises(StreamInterruptedError, match="unknown whether the message was taken"):
        finished(client.stream("hi", handle=replace(handle, maybe_sent=True)))


def test_the_conversation_of_a_handle_is_checked(client: Client) -> None:
    """As any other id is."""
    with pytest.raises(ValueError, match="is not an id"):
        client.stream("hi", handle=MessageHandle("..", "answer"))
