"""What becomes of a message that the service refuses: another model, another parent, a better error, no litter."""

import logging
import pickle
import re
import threading
from typing import Any, Dict, List

import pytest
from streams import client_of
from support import stages

from copilot_sync import (
    Client,
    Conversation,
    CopilotError,
    GithubCopilot,
    InvalidRequestError,
    ModelNotAvailableError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamClosedError,
    Timeout,
)
from copilot_sync.delivery import refusal
from copilot_sync.emulator import Emulator, Fault, Reply

HELLO = [{"role": "user", "content": "Hello"}]
GONE = Fault.status(400, body={"error": {"message": "The requested model is not supported", "code": "bad_request"}})


@pytest.fixture
def client(emulator: Emulator) -> Client:
    return client_of(emulator)


def sent(emulator: Emulator) -> List[Dict[str, Any]]:
    """The bodies of the messages, in order."""
    return [request.json for request in emulator.requests if request.stage == "message"]


def given(emulator: Emulator) -> Dict[str, Any]:
    return {"api_key": emulator.api_key, "github_url": emulator.github_url, "api_url": emulator.api_url}


def test_a_model_that_is_refused_is_named_with_its_nearest(emulator: Emulator, client: Client) -> None:
    """The error says which was refused, which exist, that ``auto`` does, and how to list them."""
    with pytest.raises(ModelNotAvailableError) as caught:
        client.ask("Hi", model="gpt-5.4-minii")
    error = caught.value
    assert (error.model, error.suggestions[0], error.status, error.stage) == (
        "gpt-5.4-minii",
        "gpt-5.4-mini",
        400,
        "message",
    )
    words = str(error)
    for part in ("'gpt-5.4-minii'", "did you mean gpt-5.4-mini", '"auto"', "Client.models()", "copilot-sync models"):
        assert part in words
    again = pickle.loads(pickle.dumps(error))
    assert (again.model, again.suggestions, str(again)) == (error.model, error.suggestions, words)


def test_a_model_that_was_retired_between_two_calls(emulator: Emulator, client: Client) -> None:
    """The second call says so; the conversation stays and goes on with another model."""
    chat = client.chat(model="gpt-5.5")
    chat.ask("One")
    emulator.options.models = [each for each in emulator.options.models if "gpt-5.5" not in str(each)]
    with pytest.raises(ModelNotAvailableError, match=re.escape("'gpt-5.5'")):
        chat.ask("Two")
    answer = chat.ask("Two", model="auto")
    assert answer.model == emulator.options.auto_model
    [thread] = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["One", "Two"]


def test_models_for_other_purposes_are_not_suggested(emulator: Emulator, client: Client) -> None:
    with pytest.raises(ModelNotAvailableError) as caught:
        client.ask("Hi", model="text-embedding-3-smalll")
    assert "text-embedding-3-small" not in caught.value.suggestions


def test_a_name_like_no_other_has_no_suggestion(emulator: Emulator, client: Client) -> None:
    with pytest.raises(ModelNotAvailableError) as caught:
        client.ask("Hi", model="?!")
    assert caught.value.suggestions == ()
    assert "did you mean" not in str(caught.value)


def test_a_model_that_is_listed_is_not_suggested_for_itself(emulator: Emulator, client: Client) -> None:
    """Nor is another one: the name was no slip of the pen."""
    emulator.fail("message", GONE)
    with pytest.raises(ModelNotAvailableError) as caught:
        client.ask("Hi", model="gpt-5.4-mini")
    assert caught.value.suggestions == ()


@pytest.mark.parametrize("id", ["gpt-5.5\x1b]0;x\x07", "gpt-5.5\n", "gpt-5.5\u202e", "gpt-5.5" * 20], ids=ascii)
def test_a_name_that_can_not_be_shown_is_not_suggested(emulator: Emulator, client: Client, id: str) -> None:
    """It would reach a terminal or a log inside of the error."""
    emulator.options.models = [id]
    with pytest.raises(ModelNotAvailableError) as caught:
        client.ask("Hi", model="gpt-5.5" if len(id) < 20 else id + "5")
    assert caught.value.suggestions == ()


def test_a_list_without_end_costs_no_time(emulator: Emulator, client: Client) -> None:
    """Only the first thousand names are compared."""
    emulator.options.models = [*[f"other-{number}" for number in range(1000)], "gpt-5.5"]
    with pytest.raises(ModelNotAvailableError) as caught:
        client.ask("Hi", model="gpt-5.55")
    assert "gpt-5.5" not in caught.value.suggestions


def test_auto_itself_may_be_refused(emulator: Emulator, client: Client) -> None:
    """Then it is not offered."""
    emulator.fail("message", GONE)
    with pytest.raises(ModelNotAvailableError) as caught:
        client.ask("Hi")
    assert caught.value.model == "auto"
    assert "every plan" not in str(caught.value)


def test_the_models_are_listed_once_for_many_refusals(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And anew when that list is old."""
    for _ in range(3):
        with pytest.raises(ModelNotAvailableError):
            client.ask("Hi", model="gpt-5.4-minii")
    assert stages(emulator).count("models") == 1
    monkeypatch.setattr(refusal, "_LIST_LIFETIME", 0.0)
    with pytest.raises(ModelNotAvailableError):
        client.ask("Hi", model="gpt-5.4-minii")
    assert stages(emulator).count("models") == 2


def test_the_refusal_is_told_though_the_models_can_not_be_listed(emulator: Emulator, client: Client) -> None:
    emulator.fail("models", *[Fault.status(500)] * 9)
    with pytest.raises(ModelNotAvailableError, match="'nothing'") as caught:
        client.ask("Hi", model="nothing")
    assert caught.value.suggestions == ()
    assert "copilot-sync models list what the account may use" in str(caught.value)
    assert stages(emulator).count("models") == 1


def test_a_client_that_is_closed_while_models_are_listed_ends_at_once(emulator: Emulator, client: Client) -> None:
    emulator.fail("models", Fault.stall(seconds=30.0))
    stream = client.stream("Hi", model="nothing")
    closer = threading.Timer(0.3, client.close)
    closer.start()
    with pytest.raises(StreamClosedError):
        stream.read()
    closer.join()
    emulator.release()


@pytest.mark.parametrize("status", [400, 404, 422])
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no", "code": "model_not_supported"}},
        {"error": {"message": "The requested model is not supported", "code": "bad_request"}},
        {"message": "unknown model"},
        {"message": "gpt-4o is retired"},
        {"error": "model gpt-4o does not exist"},
        {"error": {"message": "x", "type": "invalid_model"}},
    ],
)
def test_the_documented_default_falls_back_to_auto_once(
    emulator: Emulator, status: int, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal that names the model: nothing was processed, so the same message goes to ``auto``, with a warning."""
    emulator.fail("message", Fault.status(status, body=body))
    with caplog.at_level(logging.WARNING):
        assert GithubCopilot.create_completion("", HELLO, **given(emulator)) == "Hello"
    first, second = sent(emulator)
    assert (first.pop("model"), second.pop("model")) == ("gpt-4o", "auto")
    assert first == second
    assert [record.message for record in caplog.records if "auto" in record.message]
    assert len(emulator.threads) == 1


def test_the_answer_of_another_model_is_called_by_that(emulator: Emulator, client: Client) -> None:
    """Also if the service does not say who answered."""
    emulator.options.auto_model = ""
    emulator.fail("message", GONE)
    assert client.stream("Hi", model="gpt-4o", fallback_model="auto").read().model == "auto"


def test_the_fallback_is_tried_once(emulator: Emulator) -> None:
    emulator.fail("message", GONE, GONE, GONE)
    with pytest.raises(ModelNotAvailableError) as caught:
        GithubCopilot.create_completion("", HELLO, **given(emulator))
    assert [body["model"] for body in sent(emulator)] == ["gpt-4o", "auto"]
    assert caught.value.model == "auto"


def test_a_model_that_is_not_the_default_is_never_exchanged(emulator: Emulator) -> None:
    """The default is exchanged whether it was named or not, because many programs name it."""
    emulator.fail("message", GONE)
    with pytest.raises(ModelNotAvailableError):
        GithubCopilot.create_completion("o1-mini", HELLO, **given(emulator))
    emulator.fail("message", GONE)
    assert GithubCopilot.create_completion(GithubCopilot.default_model, HELLO, **given(emulator)) == "Hello"
    assert [body["model"] for body in sent(emulator)] == ["o1-mini", "gpt-4o", "auto"]


@pytest.mark.parametrize(
    "body",
    [
        {"message": "the prompt is too long for the context of gpt-4o"},
        {"error": {"message": "model: maximum number of tokens is not supported", "code": "bad_request"}},
        {"message": "gpt-4o-mini is retired"},
        {"message": "content is empty"},
        "",
    ],
)
def test_what_is_no_refusal_of_the_model_is_no_reason_for_another(emulator: Emulator, body: Any) -> None:
    emulator.fail("message", Fault.status(400, body=body))
    with pytest.raises(InvalidRequestError) as caught:
        GithubCopilot.create_completion("", HELLO, **given(emulator))
    assert not isinstance(caught.value, ModelNotAvailableError)
    assert len(sent(emulator)) == 1


def test_a_refusal_inside_of_an_answer_is_not_asked_again(emulator: Emulator) -> None:
    """The message is in its thread then. The error names the model all the same."""
    emulator.script(Reply([], error={"code": "model_not_supported", "message": "no"}))
    with pytest.raises(ModelNotAvailableError) as caught:
        GithubCopilot.create_completion("", HELLO, **given(emulator))
    assert (caught.value.model, len(sent(emulator))) == ("gpt-4o", 1)
    assert len(emulator.threads) == 1


REFUSALS = {
    "400": (Fault.status(400), InvalidRequestError),
    "402": (Fault.status(402), QuotaExceededError),
    "403": (Fault.status(403), CopilotError),
    "404": (Fault.status(404), NotFoundError),
    "422": (Fault.status(422), InvalidRequestError),
    "429": (Fault.status(429), RateLimitError),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_question_leaves_no_empty_thread(emulator: Emulator, name: str) -> None:
    """Its thread was begun for it, and nothing is in there."""
    fault, kind = REFUSALS[name]
    client = client_of(emulator, retry=None)
    emulator.fail("message", fault)
    stream = client.stream("Hi")
    with pytest.raises(kind):
        stream.read()
    assert (emulator.threads, stream.conversation) == ({}, None)
    assert stages(emulator)[-1] == "delete"


def test_a_thread_is_not_deleted_while_the_service_asks_to_wait(emulator: Emulator) -> None:
    """It is of no use all the same."""
    client = client_of(emulator, retry=None)
    emulator.fail("message", Fault.status(429, retry_after=60))
    stream = client.stream("Hi")
    with pytest.raises(RateLimitError):
        stream.read()
    assert "delete" not in stages(emulator)
    assert stream.conversation is None


@pytest.mark.parametrize("status", [401, 421])
def test_nothing_more_is_asked_with_a_token_that_is_refused(emulator: Emulator, status: int) -> None:
    client = client_of(emulator)
    emulator.fail("message", *[Fault.status(status)] * 9)
    stream = client.stream("Hi")
    with pytest.raises(CopilotError):
        stream.read()
    assert "delete" not in stages(emulator)
    assert stream.conversation is None


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(409),
        Fault.status(424),
        Fault.status(499),
        Fault.status(501),
        Fault.drop(),
        Fault.cut(after_events=1),
    ],
    ids=["409", "424", "499", "501", "no reply", "cut"],
)
def test_a_thread_that_may_hold_the_question_stays(emulator: Emulator, fault: Fault) -> None:
    client = client_of(emulator, retry=None, resume=False)
    emulator.fail("message", fault)
    stream = client.stream("Hi")
    with pytest.raises(CopilotError):
        stream.read()
    assert len(emulator.threads) == 1
    assert stream.conversation is not None
    assert "delete" not in stages(emulator)


def test_an_error_of_the_answer_leaves_its_thread(emulator: Emulator, client: Client) -> None:
    emulator.script(Reply(["Hel"], error="it broke"))
    with pytest.raises(CopilotError):
        client.ask("Hi")
    assert len(emulator.threads) == 1


def test_a_conversation_of_the_callers_is_never_deleted(emulator: Emulator, client: Client) -> None:
    """One that was passed in, one that ``start`` handed out, and the one that the provider yields."""
    conversation = client.create_thread()
    emulator.fail("message", *[Fault.status(422)] * 3)
    with pytest.raises(InvalidRequestError):
        client.ask("Hi", conversation=conversation)
    stream = client.stream("Hi")
    started = stream.start()
    with pytest.raises(InvalidRequestError):
        stream.read()
    pieces = GithubCopilot.create_generator("", HELLO, return_conversation=True, **given(emulator))
    yielded = next(pieces)
    with pytest.raises(InvalidRequestError):
        next(pieces)
    assert isinstance(yielded, Conversation)
    assert set(emulator.threads) == {each.conversation_id for each in (conversation, started, yielded)}
    assert stream.conversation is started


def test_a_conversation_that_somebody_was_told_of_stays(emulator: Emulator, client: Client) -> None:
    """Who has its id, and would not learn that it is gone, may ask there again."""
    told: List[Conversation] = []
    emulator.fail("message", Fault.status(422))
    with pytest.raises(InvalidRequestError):
        client.ask("Hi", on_start=told.append)
    assert client.ask("Hi", conversation=told[0].conversation_id).text == "Hi"


def test_a_chat_goes_on_in_a_conversation_that_somebody_was_told_of(emulator: Emulator, client: Client) -> None:
    """And discards it if whoever was told is told that, too."""
    told: List[Conversation] = []
    chat, other = client.chat(), client.chat()
    emulator.fail("message", *[Fault.status(422)] * 2)
    with pytest.raises(InvalidRequestError):
        chat.ask("Hi", on_start=told.append)
    with pytest.raises(InvalidRequestError):
        other.ask("Hi", on_start=told.append, on_discard=told.append)
    assert (chat.conversation, other.conversation) == (told[0], None)
    assert told[1] is told[2]
    assert chat.retry().conversation is told[0]
    assert len(emulator.threads) == 1


def test_a_conversation_that_has_an_answer_stays(emulator: Emulator, client: Client) -> None:
    """Somebody else asked there while the first question was under way."""
    emulator.fail("message", None, Fault.status(422))
    told: List[Conversation] = []
    with pytest.raises(InvalidRequestError):
        client.ask("Hi", on_start=lambda begun: client.ask("Me too", conversation=begun), on_discard=told.append)
    assert (len(emulator.threads), told) == (1, [])


def test_a_message_that_came_late_after_all_is_not_deleted(emulator: Emulator) -> None:
    """Its first attempt was lost, and the next ones conflict with something."""
    client = client_of(emulator)
    emulator.fail("message", Fault.status(502), *[Fault.status(409)] * 9)
    with pytest.raises(ServerError):
        client.ask("Hi")
    assert len(emulator.threads) == 1


def test_a_thread_that_can_not_be_deleted_hides_nothing(emulator: Emulator, client: Client) -> None:
    emulator.fail("message", Fault.status(422))
    emulator.fail("delete", *[Fault.status(500)] * 9)
    with pytest.raises(InvalidRequestError):
        client.ask("Hi")
    assert stages(emulator).count("delete") == 1


def test_who_is_told_of_a_conversation_is_told_when_it_is_discarded(emulator: Emulator, client: Client) -> None:
    emulator.fail("message", Fault.status(422))
    told: List[Conversation] = []
    with pytest.raises(InvalidRequestError):
        client.ask("Hi", on_start=told.append, on_discard=told.append)
    assert told[0] is told[1]
    emulator.script(Reply(["Hel"], error="it broke"))
    with pytest.raises(CopilotError):
        client.ask("Hi", on_start=told.append, on_discard=told.append)
    assert len(told) == 3


def test_a_refusal_costs_the_time_of_the_call_at_most(emulator: Emulator) -> None:
    """The deletion stalls, and the call's own limit ends it."""
    client = client_of(emulator)
    emulator.fail("message", Fault.status(422))
    emulator.fail("delete", Fault.stall(seconds=30.0))
    with pytest.raises(InvalidRequestError):
        client.ask("Hi", timeout=Timeout(total=1.0))
    emulator.release()


def test_a_copy_lists_the_models_anew(emulator: Emulator, client: Client) -> None:
    """When they were listed is told by a clock that another process, or another machine, does not have."""
    with pytest.raises(ModelNotAvailableError):
        client.ask("Hi", model="nothing")
    with pickle.loads(pickle.dumps(client)) as copied, pytest.raises(ModelNotAvailableError):
        copied.ask("Hi", model="nothing")
    assert stages(emulator).count("models") == 2
