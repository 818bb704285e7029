"""A conversation goes on from the right place: known by its id alone, or with a last message that is gone."""

import logging
import threading
import time
from typing import Any, Dict, List

import pytest
from streams import COMPLETE, ONE, client_of
from support import PATIENCE, Peer, Server, stages

from copilot_sync import (
    AuthenticationError,
    Client,
    Conversation,
    GithubCopilot,
    InvalidRequestError,
    MessageHandle,
    NetworkError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamClosedError,
    Timeout,
    batch,
)
from copilot_sync.delivery import lookup
from copilot_sync.emulator import Emulator, Fault


@pytest.fixture
def client(emulator: Emulator) -> Client:
    return client_of(emulator)


def parents(emulator: Emulator) -> List[Any]:
    """What the messages said that they answer, in order."""
    return [request.json.get("parentMessageID") for request in emulator.requests if request.stage == "message"]


def three_branches(client: Client) -> Conversation:
    """A thread whose newest branch is neither the first nor the longest: known by its id alone."""
    chat = client.chat()
    chat.ask("first")
    chat.ask("second")
    chat.retry()
    chat.edit("third")
    assert chat.conversation is not None
    return chat.conversation


def test_an_id_alone_goes_on_from_the_newest_leaf(emulator: Emulator, client: Client) -> None:
    """With one look; from then on the conversation knows its last message."""
    branch = three_branches(client)
    emulator.requests.clear()
    known = Conversation(branch.conversation_id)
    client.ask("fourth", conversation=known)
    client.ask("fifth", conversation=known)
    assert stages(emulator) == ["messages", "message", "message"]
    assert parents(emulator)[0] == branch.message_id


def test_a_question_without_an_answer_is_passed_over(emulator: Emulator, client: Client) -> None:
    """A question follows an answer."""
    first = client.ask("first")
    emulator.fail("message", Fault.drop())
    emulator.options.finish_when_disconnected = False
    known = first.conversation.conversation_id
    with pytest.raises(NetworkError):
        client.ask("second", conversation=known, retry=None)
    emulator.wait_until(lambda: len(emulator.threads[known].user_messages) == 2)
    client.ask("third", conversation=known)
    assert parents(emulator)[-1] == first.message_id


def test_an_empty_thread_is_begun(emulator: Emulator, client: Client) -> None:
    client.ask("first", conversation=client.create_thread())
    assert parents(emulator) == ["root"]


def test_a_place_that_is_named_is_not_looked_for(emulator: Emulator, client: Client) -> None:
    first = client.ask("first")
    emulator.requests.clear()
    known = first.conversation.conversation_id
    client.ask("second", conversation=known, parent_message_id="root")
    client.ask("third", conversation=known, parent_message_id=first.message_id)
    assert stages(emulator) == ["message", "message"]
    assert parents(emulator) == ["root", first.message_id]


def test_a_new_conversation_needs_no_look(emulator: Emulator, client: Client) -> None:
    client.ask("first")
    assert stages(emulator) == ["thread", "message"]


def test_every_face_looks(emulator: Emulator, client: Client) -> None:
    """The documented class and batches as well."""
    first = client.ask("first")
    known = first.conversation.conversation_id
    given: Dict[str, Any] = {
        "api_key": emulator.api_key,
        "github_url": emulator.github_url,
        "api_url": emulator.api_url,
    }
    messages = [{"role": "user", "content": "second"}]
    GithubCopilot.create_completion("", messages, conversation_id=known, **given)
    newest = client.messages(known)[-1].id
    [result] = batch.run([batch.Prompt("a", "third", conversation=known)], client=client)
    assert result.error is None
    assert parents(emulator)[1:] == [first.message_id, newest]


NO_LIST = {
    "404": Fault.status(404),
    "405": Fault.status(405),
    "500 again and again": Fault.status(500),
    "501": Fault.status(501),
    "another thing": Fault.status(200, body="<html>"),
    "no reply": Fault.drop(),
}


@pytest.mark.parametrize("name", NO_LIST)
def test_a_thread_that_can_not_be_listed_goes_on_all_the_same(
    emulator: Emulator, client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning: the service chooses what the message answers."""
    known = client.ask("first").conversation.conversation_id
    emulator.fail("messages", *[NO_LIST[name]] * 9)
    with caplog.at_level(logging.WARNING):
        assert client.ask("second", conversation=known).text == "second"
    assert parents(emulator)[-1] is None
    assert "can't be listed" in caplog.text


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.status(401), AuthenticationError),
        (Fault.status(403), AuthenticationError),
        (Fault.status(429, retry_after=3600), RateLimitError),
    ],
)
def test_what_would_keep_the_message_back_as_well_is_raised(
    emulator: Emulator, client: Client, fault: Fault, kind: Any
) -> None:
    known = client.ask("first").conversation.conversation_id
    emulator.fail("messages", *[fault] * 20)
    with pytest.raises(kind) as caught:
        client.ask("second", conversation=known)
    assert caught.value.stage == "messages"
    assert len(parents(emulator)) == 1


def test_a_token_that_can_not_be_had_is_raised(emulator: Emulator) -> None:
    with Client(
        cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=None
    ) as client:
        emulator.fail("token", Fault.status(503))
        with pytest.raises(ServerError) as caught:
            client.ask("second", conversation="t-1")
    assert caught.value.stage == "token"


def test_a_call_whose_time_is_over_while_it_looks_ends(emulator: Emulator, client: Client) -> None:
    known = client.ask("first").conversation.conversation_id
    emulator.fail("messages", Fault.stall())
    with pytest.raises(RequestTimeoutError) as caught:
        client.ask("second", conversation=known, timeout=Timeout(total=0.3))
    assert caught.value.phase == "total"
    emulator.release()
    assert len(parents(emulator)) == 1


def test_a_look_that_takes_too_long_is_given_up(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the message is sent all the same."""
    monkeypatch.setattr(lookup, "_PARENT_SECONDS", 0.2)
    known = client.ask("first").conversation.conversation_id
    emulator.fail("messages", Fault.stall())
    assert client.ask("second", conversation=known).text == "second"
    emulator.release()
    assert "can't be listed" in caplog.text


def test_a_stream_that_is_closed_while_it_looks_ends(emulator: Emulator, client: Client) -> None:
    known = client.ask("first").conversation.conversation_id
    emulator.fail("messages", Fault.stall())
    stream = client.stream("second", conversation=known)
    closer = threading.Timer(0.2, stream.close)
    closer.start()
    with pytest.raises(StreamClosedError):
        stream.read()
    closer.join()
    emulator.release()


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize("keep", [0, 2], ids=["all gone", "some gone"])
def test_a_stored_conversation_whose_last_message_is_gone_goes_on(
    emulator: Emulator, client: Client, status: Any, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In its thread, with a warning; messages live for 28 days."""
    emulator.options.gone_parent = status
    chat = client.chat()
    first = chat.ask("first")
    chat.ask("second")
    chat.ask("third")
    thread_id = first.conversation.conversation_id
    stored = Conversation.from_dict({"conversation_id": thread_id, "message_id": first.message_id})
    emulator.expire_messages(thread_id, keep)
    with caplog.at_level(logging.WARNING):
        answer = client.ask("fourth", conversation=stored)
    assert answer.text == "fourth"
    assert stored.message_id == answer.message_id
    assert parents(emulator)[-1] == (emulator.threads[thread_id].messages[keep - 1]["id"] if keep else "root")
    assert "is gone" in caplog.text


def test_a_refusal_for_another_reason_is_raised_after_one_look(emulator: Emulator, client: Client) -> None:
    """The last message is there, so it is not what was wrong."""
    chat = client.chat()
    chat.ask("first")
    emulator.requests.clear()
    emulator.fail("message", Fault.status(422))
    with pytest.raises(InvalidRequestError):
        chat.ask("second")
    assert stages(emulator) == ["message", "messages"]


def test_a_refusal_is_raised_though_the_look_fails(emulator: Emulator, client: Client) -> None:
    chat = client.chat()
    chat.ask("first")
    emulator.fail("message", Fault.status(422))
    emulator.fail("messages", Fault.status(500))
    with pytest.raises(InvalidRequestError):
        chat.ask("second")


def test_a_stream_that_is_closed_in_the_look_after_a_refusal_ends(emulator: Emulator, client: Client) -> None:
    chat = client.chat()
    chat.ask("first")
    emulator.fail("message", Fault.status(422))
    emulator.fail("messages", Fault.stall())
    stream = chat.stream("second")
    closer = threading.Timer(0.2, stream.close)
    closer.start()
    with pytest.raises(StreamClosedError):
        stream.read()
    closer.join()
    emulator.release()


def test_a_thread_that_is_gone_is_not_found(emulator: Emulator, client: Client) -> None:
    chat = client.chat()
    answer = chat.ask("first")
    client.delete_thread(answer.conversation)
    with pytest.raises(NotFoundError, match=answer.conversation.conversation_id):
        chat.ask("second")
    with pytest.raises(NotFoundError, match=answer.conversation.conversation_id):
        client.ask("second", conversation=answer.conversation.conversation_id)


def test_a_place_that_somebody_named_is_never_exchanged(emulator: Emulator, client: Client) -> None:
    first = client.ask("first")
    emulator.requests.clear()
    with pytest.raises(InvalidRequestError):
        client.ask("second", conversation=first.conversation, parent_message_id="gone")
    assert stages(emulator) == ["message"]


def test_the_other_place_is_tried_once(emulator: Emulator, client: Client) -> None:
    first = client.ask("first")
    thread_id = first.conversation.conversation_id
    emulator.expire_messages(thread_id)
    emulator.requests.clear()
    emulator.fail("message", *[Fault.status(400)] * 3)
    with pytest.raises(InvalidRequestError):
        client.ask("second", conversation=first.conversation)
    assert stages(emulator) == ["message", "messages", "message"]


def test_a_handle_whose_parent_is_gone_goes_on_too(emulator: Emulator, client: Client) -> None:
    """As a batch has it."""
    first = client.ask("first")
    emulator.expire_messages(first.conversation.conversation_id)
    handle = MessageHandle(first.conversation.conversation_id, "6e0bd3a2-30f3-4c35-8a34-2a9b6c2a2f5e", first.message_id)
    assert client.stream("second", handle=handle).read().text == "second"
    assert parents(emulator)[-1] == "root"


def test_a_server_that_answers_everything_with_a_stream_holds_nothing_up() -> None:
    """What came in place of the list may have no end, so nothing of it is read."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        asked = peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + ONE)
        if asked.startswith(b"GET"):
            over.wait(PATIENCE)
        else:
            peer.send(COMPLETE)

    began = time.monotonic()
    with Server(script) as server, Client("key", api_url=server.url) as client:
        assert client.ask("hi", conversation="t-1").text == "one"
        over.set()
    assert time.monotonic() - began < PATIENCE
