"""Each way in which versions of the service are known to answer: an emulator that does so, and a client that copes."""

import json
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

import pytest
from asking import AT_ONCE
from support import stages

from copilot_sync import AuthenticationError, Client, Model, QuotaExceededError, RateLimitError, RetryPolicy
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.emulator.faults import RATE_LIMIT_HEADERS

#: What a client asks for: all that the emulator has, but for the pages that people look at.
STAGES = {"token", "quota", "models", "thread", "message", "messages", "threads", "rename", "delete"}


def client_of(emulator: Emulator, retry: Optional[RetryPolicy] = None) -> Client:
    urls = emulator.github_url, emulator.api_url
    return Client(cookies=emulator.cookies, retry=retry, github_url=urls[0], api_url=urls[1])


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator) as opened:
        yield opened


def use_everything(client: Client) -> None:
    """Make every call that there is, and see that each of them worked."""
    assert client.quota().plan == "pro"
    assert "gpt-5-mini" in [model.id for model in client.models()]
    chat = client.chat()
    assert chat.ask("one").text == "one"
    conversation = chat.conversation
    assert conversation is not None
    assert client.ask("two", conversation=conversation.conversation_id).text == "two"
    assert [message.content for message in client.messages(conversation)] == ["one", "one", "two", "two"]
    assert client.name_thread(conversation) == "one"
    client.rename_thread(conversation, "another")
    assert [(thread.name, thread.manually_named) for thread in client.threads()] == [("another", True)]
    client.delete_thread(conversation)
    assert client.threads() == []


def test_interim_replies_are_read_past_at_every_stage(emulator: Emulator, client: Client) -> None:
    """Whatever their number: none of them is the reply, and nothing is asked twice."""
    for stage in STAGES:
        emulator.fail(stage, *[Fault.interim(100, 102, 103, 103, 199)] * 4)
    use_everything(client)
    assert set(stages(emulator)) == STAGES
    assert (stages(emulator).count("token"), stages(emulator).count("message")) == (1, 2)


def test_every_request_has_what_the_service_may_insist_on(emulator: Emulator, client: Client) -> None:
    """The web client's headers; each credential at its own host, and at no other."""
    emulator.options.require_version_header = True
    use_everything(client)
    seen: Set[str] = set()
    for request in emulator.requests:
        seen.add(request.stage)
        is_page = request.host == "github"
        assert is_page is (request.stage in ("token", "quota"))
        assert "application/json" in request.headers["accept"]
        assert (request.headers.get("github-verified-fetch") == "true") is is_page
        assert (request.headers.get("copilot-integration-id") == "copilot-chat") is not is_page
        assert (request.headers.get("x-github-api-version") == "2025-05-01") is not is_page
        assert ("cookie" in request.headers) is is_page
        assert (request.headers.get("authorization", "").startswith("GitHub-Bearer ")) is not is_page
    assert seen == STAGES
    assert emulator.leaks == []


@pytest.mark.parametrize("expiration", ["milliseconds", "nanoseconds", "missing"])
@pytest.mark.parametrize("shape", ["thread_id", "thread", "id"])
def test_tokens_and_threads_come_in_more_than_one_form(
    emulator: Emulator, client: Client, expiration: Any, shape: Any
) -> None:
    """The time in three, the id in three; each conversation can be gone on with, with the same token."""
    emulator.options.expiration, emulator.options.thread_shape = expiration, shape
    use_everything(client)
    assert emulator.tokens_issued == 1


def test_an_empty_list_may_be_null(emulator: Emulator, client: Client) -> None:
    """It is no failure, and a question in a conversation without messages is its first."""
    emulator.options.null_lists, emulator.options.models = True, ()
    assert (client.models(), client.models(all=True), client.threads()) == ([], [], [])
    conversation = client.create_thread()
    assert client.messages(conversation) == []
    assert client.ask("one", conversation=conversation.conversation_id).text == "one"
    assert [request.json["parentMessageID"] for request in emulator.requests if request.stage == "message"] == ["root"]
    assert stages(emulator).count("models") == 2  # at one address alone


def test_a_model_has_the_same_fields_at_both_addresses(emulator: Emulator, client: Client) -> None:
    """The page's own, and the one of editors and earlier clients; all that came is there as it came."""
    listed = client.models(all=True)
    emulator.fail("models", Fault.status(404))
    assert client.models(all=True) == listed
    paths = [request.path for request in emulator.requests if request.stage == "models"]
    assert paths == ["/github/chat/models", "/github/chat/models", "/models"]
    models = {model.id: model for model in listed}
    assert models["claude-opus-5.5"] == Model(
        id="claude-opus-5.5",
        name="Claude Opus 5.5",
        vendor="Anthropic",
        kind="chat",
        enabled=True,
        picker_category="powerful",
        vision=True,
        premium_multiplier=3.0,
    )
    assert models["claude-opus-5.5"].data["billing"]["restricted_to"] == ["pro", "pro_plus", "business", "enterprise"]
    assert (models["gemini-3.8-flash"].preview, models["gpt-4o-mini"].enabled) == (True, False)
    assert models["text-embedding-3-small"].kind == "embeddings"


def test_a_thread_says_who_named_it_and_whether_it_is_shared(emulator: Emulator, client: Client) -> None:
    """The other fields are there as they came, known or not."""
    emulator.fail(
        "threads",
        Fault.status(
            200,
            body={
                "threads": [
                    {"id": "t1", "name": "WSGI", "manuallyNamed": True, "sharedAt": "2026-10-01T00:00:00Z", "new": 1},
                    {"id": "t2", "manuallyNamed": "yes", "sharedAt": 7, "autoPickedModel": "gpt-5-mini"},
                ]
            },
        ),
    )
    first, second = client.threads()
    assert (first.name, first.manually_named, first.shared_at) == ("WSGI", True, "2026-10-01T00:00:00Z")
    assert (second.name, second.manually_named, second.shared_at) == ("", False, None)
    assert (first.data["new"], second.data["autoPickedModel"]) == (1, "gpt-5-mini")


def test_a_message_says_what_made_it(emulator: Emulator, client: Client) -> None:
    """The model that auto chose, what it cost, what it used; of the question, what was asked for."""
    used = {"type": "file", "path": "README.md", "repoOwner": "octocat", "repoName": "Hello-World", "sha": "95bc"}
    emulator.script(Reply(["one"], references=[used], routed_model="gpt-5-mini"))
    answer = client.ask("hi", model="auto", references=[{"type": "repository", "owner": "octocat", "repo": "x"}])
    question, stored = client.messages(answer.conversation)
    assert (stored.id, stored.parent_id, stored.interrupted) == (answer.message_id, question.id, False)
    assert (stored.model, stored.usage, stored.references) == ("gpt-5-mini", answer.usage, (used,))
    assert (question.model, question.usage, question.parent_id) == ("auto", None, "root")
    assert question.references == ({"type": "repository", "owner": "octocat", "repo": "x"},)
    assert (stored.data["generatedWithAuto"], stored.data["threadID"]) == (True, answer.conversation.conversation_id)


@pytest.mark.parametrize("kind", ["routedModel", "threadAutoPickedModel"])
def test_the_model_that_was_chosen_and_annotations_come_ahead_of_the_end(
    emulator: Emulator, client: Client, kind: str
) -> None:
    """Under two names, in any order; the end may be empty of both."""
    found = {"PublicCodeReference": [{"license": "MIT"}]}
    ahead: List[Any] = [{"type": kind, "model": "gpt-5-mini"}, "one"]
    ahead.append({"type": "annotations", "copilotAnnotations": found})
    emulator.script(Reply(ahead, complete={"model": "", "copilotAnnotations": {}}))
    answer = client.ask("hi", model="gpt-5.4")
    assert (answer.text, answer.model, answer.annotations, answer.events) == ("one", "gpt-5-mini", found, ())


#: Bodies that can't be read, or not to their end.
UNREADABLE = {
    "cut": b'Content-Length: 1000\r\n\r\n{"mess',
    "no gzip": b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "an unknown coding": b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
    "no chunks": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    "another charset": b"Content-Type: application/json; charset=utf-16\r\nContent-Length: 4\r\n\r\n\xff\xfe{\x00",
    "a bot check": b"Content-Type: text/html\r\nContent-Length: 36\r\n\r\n<html><title>Just a moment...</title>",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("stage", sorted(STAGES))
def test_no_body_hides_a_status(emulator: Emulator, client: Client, stage: str, body: bytes) -> None:
    """Whatever came behind it; to sign in again is the advice if the service gave no reason that can be read."""
    calls: Dict[str, Callable[[Client], object]] = {
        "quota": Client.quota,
        "models": Client.models,
        "messages": lambda client: client.messages("t1"),
        "threads": Client.threads,
        "rename": lambda client: client.rename_thread("t1", "another"),
        "delete": lambda client: client.delete_thread("t1"),
    }
    emulator.fail(stage, Fault.wire(b"HTTP/1.1 403 Forbidden\r\n" + body))
    with pytest.raises(AuthenticationError) as caught:
        calls.get(stage, lambda client: client.ask("hi"))(client)
    assert (caught.value.stage, caught.value.status) == (stage, 403)
    assert ("sign in again" in str(caught.value)) is (stage in ("token", "quota"))
    assert ("Just a moment..." in str(caught.value)) is (b"Just" in body)


@pytest.mark.parametrize("status", [429, 403])
@pytest.mark.parametrize("header", RATE_LIMIT_HEADERS)
@pytest.mark.parametrize("stage", ["token", "thread", "message"])
def test_a_limit_says_how_long_it_lasts(
    emulator: Emulator, client: Client, stage: str, header: str, status: Any
) -> None:
    """In four fields, at any stage. Nobody asks again before that."""
    emulator.fail(stage, Fault.rate_limit(465_000, header=header, status=status))
    with pytest.raises(RateLimitError) as caught:
        client.ask("hi")
    assert (type(caught.value), caught.value.stage, caught.value.status) == (RateLimitError, stage, status)
    assert caught.value.retry_after == pytest.approx(465_000, abs=30)
    assert stages(emulator).count(stage) == 1


@pytest.mark.parametrize("header", RATE_LIMIT_HEADERS)
def test_a_short_limit_is_waited_for(emulator: Emulator, header: str) -> None:
    """Whatever field says so. The time of the day is in whole seconds, so one of them may be over already."""
    emulator.fail("message", Fault.rate_limit(2 if header == "x-ratelimit-reset" else 0.5, header=header))
    with client_of(emulator, AT_ONCE) as client:
        began = time.monotonic()
        assert client.ask("hi").text == "hi"
    assert time.monotonic() - began >= 0.45
    assert stages(emulator).count("message") == 2


@pytest.mark.parametrize("status", [402, 429])
@pytest.mark.parametrize("code", ["quota_exceeded", "user_weekly_rate_limited", "free_monthly_limit"])
def test_what_is_used_up_is_asked_for_once(emulator: Emulator, code: str, status: Any) -> None:
    """Though the policy would try again; who uses the same account next is told without a request."""
    emulator.fail("message", Fault.out_of_quota(code, seconds=465_000, status=status))
    retry_after: List[Any] = []
    for _ in range(2):
        with client_of(emulator, AT_ONCE) as client, pytest.raises(QuotaExceededError) as caught:
            client.ask("hi")
        retry_after.append(caught.value.retry_after)
    assert retry_after == [pytest.approx(465_000, abs=30)] * 2
    assert stages(emulator).count("message") == 1


@pytest.mark.parametrize("references", [None, []])
def test_a_reply_without_a_stream_is_an_answer_too(emulator: Emulator, client: Client, references: Any) -> None:
    """One document, though a stream was asked for; it has little more than the text."""
    document = {"message": {"content": "one", "references": references}}
    emulator.script(Reply(raw=json.dumps(document).encode(), pieces=["one"], content_type="application/json"))
    answer = client.ask("hi", model="gpt-5.4")
    assert (answer.text, answer.complete, answer.model, answer.references) == ("one", True, "gpt-5.4", ())
    assert answer.message_id == answer.conversation.message_id
