"""What the emulated service does, checks and refuses, asked over real HTTP."""

from __future__ import annotations

import re
import uuid
from typing import Any, Dict, Optional

import pytest
from emulated import NANOSECONDS, VERIFIED, api, ask, events_of, fetch_token, messages_of, new_thread, post
from support import MESSAGE, Worker

from copilot_sync.emulator import Emulator, EmulatorOptions, Fault, Reply, account_pages


def test_good_cookies_are_exchanged_for_a_token_that_the_api_takes(emulator: Emulator) -> None:
    """The way in: cookies at github, the token at the api."""
    reply = fetch_token(emulator)
    assert reply.status == 200
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z", reply.json["expiration"])
    bearer = {"Authorization": f"GitHub-Bearer {reply.json['token']}"}
    assert ask(emulator.api_url, "GET", "/models", None, bearer).status == 200
    assert emulator.tokens_issued == 1
    assert emulator.leaks == []


@pytest.mark.parametrize(("expiration", "digits"), [("milliseconds", 3), ("nanoseconds", 9), ("missing", None)])
def test_a_tokens_end_is_told_as_the_options_say(emulator: Emulator, expiration: Any, digits: Optional[int]) -> None:
    """Fractions of three or nine digits, or no expiration at all."""
    emulator.options.expiration = expiration
    reply = fetch_token(emulator).json
    told = reply.get("expiration")
    assert reply["token"]
    assert (told is None) if digits is None else len(told.partition(".")[2]) == digits + 1


@pytest.mark.parametrize("cookie", ["user_session=other", "unrelated=1", "nonsense", ""])
@pytest.mark.parametrize(
    ("manner", "status", "sign"),
    [
        ("redirect", 302, "/login"),
        ("html", 200, "Sign in to GitHub"),
        ("unauthorized", 401, "Requires authentication"),
    ],
)
def test_cookies_that_are_not_valid_lead_to_the_login(
    emulator: Emulator, cookie: str, manner: Any, status: int, sign: str
) -> None:
    """A redirect by default; the page itself, or 401, if the options say so."""
    emulator.options.bad_cookies = manner
    reply = fetch_token(emulator, Cookie=cookie)
    assert reply.status == status
    assert sign in reply.headers.get("Location", "") + reply.body.decode()
    assert emulator.tokens_issued == 0


def test_the_login_page_is_where_the_redirect_points(emulator: Emulator) -> None:
    """A client that follows the redirect gets HTML, as it would from github.com."""
    location = fetch_token(emulator, Cookie="").headers["Location"]
    reply = ask(emulator.github_url, "GET", location)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_without_cookies_to_compare_with_nobody_gets_in(emulator: Emulator) -> None:
    """An emulator that knows no cookies takes none, rather than any."""
    emulator.cookies.clear()
    assert fetch_token(emulator).status == 302


@pytest.mark.parametrize("header", sorted(VERIFIED))
@pytest.mark.parametrize("value", [None, "*/*"])
def test_the_token_wants_the_web_clients_headers(emulator: Emulator, header: str, value: Optional[str]) -> None:
    """Each is needed, with its value."""
    reply = fetch_token(emulator, **{header: value})
    assert reply.status == 422
    assert header in reply.json["message"]


@pytest.mark.parametrize("authorization", [None, "GitHub-Bearer", "GitHub-Bearer wrong", "Bearer {key}", "Basic eDp5"])
def test_the_api_wants_a_valid_bearer(emulator: Emulator, authorization: Optional[str]) -> None:
    """401, in the api's own words, for none, a wrong one, and the right one in a wrong scheme."""
    headers = {}
    if authorization is not None:
        headers["Authorization"] = authorization.format(key=emulator.api_key)
    reply = ask(emulator.api_url, "GET", "/models", None, headers)
    assert (reply.status, reply.json["error"]["code"]) == (401, "unauthorized")


def test_other_keys_are_taken_where_the_options_name_them(emulator: Emulator) -> None:
    """A key that a test makes up itself."""
    emulator.options.accept_api_keys = ["ghu_mine"]
    headers = {"Authorization": "GitHub-Bearer ghu_mine"}
    assert ask(emulator.api_url, "GET", "/models", None, headers).status == 200


def test_a_token_ends_with_its_lifetime() -> None:
    """One that lives for no time at all is refused at once."""
    with Emulator(options=EmulatorOptions(token_lifetime=0.0)) as emulator:
        bearer = {"Authorization": f"GitHub-Bearer {fetch_token(emulator).json['token']}"}
        assert ask(emulator.api_url, "GET", "/models", None, bearer).status == 401


def test_tokens_can_be_expired_from_outside(emulator: Emulator) -> None:
    """All issued tokens end; the static key and later tokens don't."""
    old = fetch_token(emulator).json["token"]
    emulator.expire_tokens()
    new = fetch_token(emulator).json["token"]
    statuses = [
        ask(emulator.api_url, "GET", "/models", None, {"Authorization": f"GitHub-Bearer {key}"}).status
        for key in (old, new, emulator.api_key)
    ]
    assert statuses == [401, 200, 200]


def test_an_expired_token_fault_ends_that_token_for_good(emulator: Emulator) -> None:
    """A client that sends the same token again is refused again, without a further fault."""
    token = fetch_token(emulator).json["token"]
    bearer = {"Authorization": f"GitHub-Bearer {token}"}
    emulator.fail("models", Fault.expired_token())
    assert [ask(emulator.api_url, "GET", "/models", None, bearer).status for _ in range(2)] == [
        401,
        401,
    ]


def test_the_version_headers_can_be_made_a_must(emulator: Emulator) -> None:
    """400 that names the one which is missing."""
    emulator.options.require_version_header = True
    headers = {"Authorization": f"GitHub-Bearer {emulator.api_key}"}
    for name, value in [
        ("copilot-integration-id", "copilot-chat"),
        ("X-GitHub-Api-Version", "2025-05-01"),
    ]:
        reply = ask(emulator.api_url, "GET", "/models", None, headers)
        assert (reply.status, name in reply.json["error"]["message"]) == (400, True)
        headers[name] = value
    assert ask(emulator.api_url, "GET", "/models", None, headers).status == 200


def test_credentials_at_the_wrong_host_are_noted_and_the_request_served(emulator: Emulator) -> None:
    """A cookie at the api and a bearer at github are what a client must never let happen."""
    headers = {"Authorization": f"GitHub-Bearer {emulator.api_key}", "Cookie": "user_session=x"}
    assert ask(emulator.api_url, "GET", "/models", None, headers).status == 200
    assert fetch_token(emulator, Authorization="GitHub-Bearer secret").status == 200
    assert [(leak.kind, leak.request.stage) for leak in emulator.leaks] == [
        ("cookie", "models"),
        ("authorization", "token"),
    ]


@pytest.mark.parametrize("body", [None, {}], ids=["none", "empty"])
def test_a_thread_is_made_with_no_body_or_an_empty_one(emulator: Emulator, body: object) -> None:
    """201, and the thread exists."""
    reply = api(emulator, "POST", "/github/chat/threads", body)
    assert reply.status == 201
    assert list(emulator.threads) == [reply.json["thread_id"]]


@pytest.mark.parametrize("shape", ["thread_id", "id", "thread"])
def test_a_new_threads_id_stands_where_the_options_say(emulator: Emulator, shape: Any) -> None:
    """All three shapes that were seen."""
    emulator.options.thread_shape = shape
    reply = api(emulator, "POST", "/github/chat/threads").json
    thread_id = next(iter(emulator.threads))
    assert reply == ({"thread": {"id": thread_id}} if shape == "thread" else {shape: thread_id})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "not JSON"),
        (b"\xff", "not JSON"),
        ("[" * 100, "not JSON"),
        ("[]", "not a JSON object"),
    ],
    ids=["torn", "binary", "deep", "list"],
)
def test_a_body_that_is_no_json_object_is_refused(emulator: Emulator, body: object, words: str) -> None:
    """400, however strange the bytes."""
    reply = api(emulator, "POST", "/github/chat/threads", body)
    assert reply.status == 400
    assert words in reply.json["error"]["message"]


def test_a_message_is_answered_with_the_documented_events(emulator: Emulator) -> None:
    """Content events, one a word, then ``complete`` with everything that it carries on the wire."""
    thread_id, wanted = new_thread(emulator), str(uuid.uuid4())
    reply = post(emulator, thread_id, content="Hi  you", responseMessageID=wanted)
    *pieces, complete = events_of(reply)
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert pieces == [{"type": "content", "body": "Hi"}, {"type": "content", "body": "  you"}]
    assert NANOSECONDS.match(complete.pop("createdAt"))
    assert complete == {
        "type": "complete",
        "id": wanted,
        "parentMessageID": messages_of(emulator, thread_id)[0]["id"],
        "model": "",
        "turnId": "",
        "references": [],
        "role": "assistant",
        "intent": "conversation",
        "usage": {"inputTokens": 2, "outputTokens": 2},
        "copilotAnnotations": {"CodeVulnerability": [], "PublicCodeReference": []},
    }


def test_both_messages_of_a_turn_stand_in_the_thread(emulator: Emulator) -> None:
    """With the wire's fields, each pointing at the one before."""
    thread_id, wanted = new_thread(emulator), str(uuid.uuid4())
    reference = {"type": "repository", "owner": "octocat", "repo": "Hello-World"}
    emulator.script("An interface.")
    post(emulator, thread_id, references=[reference], responseMessageID=wanted)
    question, answer = messages_of(emulator, thread_id)
    assert NANOSECONDS.match(answer.pop("createdAt"))
    assert answer == {
        "id": wanted,
        "threadID": thread_id,
        "parentMessageID": question["id"],
        "role": "assistant",
        "content": "An interface.",
        "contentParts": [],
        "intent": "conversation",
        "model": "gpt-4o",
        "generatedWithAuto": False,
        "interrupted": False,
        "references": [],
        "skillExecutions": [],
        "usage": {"inputTokens": 1, "outputTokens": 2},
    }
    assert (question["role"], question["content"]) == ("user", MESSAGE["content"])
    assert (question["parentMessageID"], question["references"]) == ("root", [reference])
    assert question.keys() == {*answer, "createdAt"}
    assert (question["usage"], question["model"]) == (None, "gpt-4o")


def test_a_turn_may_name_the_answer_that_it_follows(emulator: Emulator) -> None:
    """``parentMessageID``: root, nothing, or a message of this thread; any other is refused."""
    thread_id, wanted = new_thread(emulator), str(uuid.uuid4())
    assert post(emulator, thread_id, parentMessageID="root", responseMessageID=wanted).status == 200
    assert post(emulator, thread_id, parentMessageID=wanted).status == 200
    assert post(emulator, thread_id, parentMessageID=None).status == 200
    reply = post(emulator, thread_id, parentMessageID=str(uuid.uuid4()))
    assert (reply.status, reply.json["error"]["code"]) == (400, "bad_request")
    sent = emulator.threads[thread_id].user_messages
    assert [message["parentMessageID"] for message in sent] == ["root", wanted, "root"]


def test_a_message_sent_twice_stands_there_twice(emulator: Emulator) -> None:
    """The same ``responseMessageID`` doesn't make it once: a client that sends again bills again."""
    thread_id, wanted = new_thread(emulator), str(uuid.uuid4())
    post(emulator, thread_id, responseMessageID=wanted)
    post(emulator, thread_id, responseMessageID=wanted)
    thread = emulator.threads[thread_id]
    assert len(thread.user_messages) == 2
    assert [message["id"] == wanted for message in thread.assistant_messages] == [True, False]


@pytest.mark.parametrize("name", sorted(MESSAGE))
def test_every_documented_field_is_wanted(emulator: Emulator, name: str) -> None:
    """422 that names the field, and nothing is stored."""
    thread_id = new_thread(emulator)
    body = {field: value for field, value in MESSAGE.items() if field != name}
    reply = api(emulator, "POST", f"/github/chat/threads/{thread_id}/messages", body)
    assert reply.status == 422
    assert reply.json["error"]["message"] == f"{name} is missing"
    assert emulator.threads[thread_id].messages == []


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"content": ["a"]}, 422, "content: str wanted, list given"),
        ({"content": " \n"}, 422, "content is empty"),
        ({"references": {}}, 422, "references: list wanted, dict given"),
        ({"references": ["x"]}, 422, "references: an object with a type wanted"),
        ({"references": [{"type": 1}]}, 422, "references: an object with a type wanted"),
        ({"streaming": 1}, 422, "streaming: bool wanted, int given"),
        ({"customInstructions": [1]}, 422, "customInstructions: not a list of strings"),
        ({"intent": "guess"}, 422, "intent: 'guess' is unknown"),
        ({"intent": "explain"}, 422, "intent 'explain' wants at least one reference"),
        ({"model": "gpt-99"}, 400, "The requested model is not supported: gpt-99"),
        ({"responseMessageID": "7"}, 422, "responseMessageID is not a UUID"),
        ({"parentMessageID": 7}, 422, "parentMessageID: str wanted, int given"),
        ({"mediaContent": "x"}, 422, "mediaContent: list wanted, str given"),
        ({"skillOptions": []}, 422, "skillOptions: dict wanted, list given"),
        ({"requestTrace": "no"}, 422, "requestTrace: bool wanted, str given"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_message_that_is_wrong_is_refused(
    emulator: Emulator, fields: Dict[str, object], status: int, words: str
) -> None:
    """With the status the real service has for it, and the field's name."""
    thread_id = new_thread(emulator)
    reply = post(emulator, thread_id, **fields)
    assert (reply.status, reply.json["error"]["message"]) == (status, words)
    assert emulator.threads[thread_id].messages == []


def test_what_the_web_client_adds_is_taken(emulator: Emulator) -> None:
    """The fields of 2026, an explanation of a file, and fields that nobody knows yet."""
    reply = post(
        emulator,
        new_thread(emulator),
        intent="explain",
        references=[{"type": "file", "path": "README.md", "repo": "octocat/Hello-World"}],
        mediaContent=[],
        skillOptions={"deepCodeSearch": False},
        requestTrace=False,
        brandNew=True,
    )
    assert reply.status == 200


def test_a_request_for_no_stream_gets_a_document(emulator: Emulator) -> None:
    """``streaming: false`` is answered with plain JSON."""
    emulator.script(Reply(["Hel", "lo"], first_delay=0.001, pace=0.001))
    reply = post(emulator, new_thread(emulator), streaming=False)
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert reply.json == {"message": {"content": "Hello", "references": []}}


@pytest.mark.parametrize(
    ("method", "tail"),
    [("POST", "/messages"), ("GET", "/messages"), ("PATCH", "/name"), ("DELETE", "")],
)
def test_a_thread_that_does_not_exist_is_not_found(emulator: Emulator, method: str, tail: str) -> None:
    """404 that names it, whatever is wanted of it."""
    reply = api(emulator, method, f"/github/chat/threads/no%20such{tail}", dict(MESSAGE))
    assert (reply.status, reply.json["error"]["message"]) == (404, "no thread no such")


def test_threads_are_listed_the_latest_first(emulator: Emulator) -> None:
    """With all fields that the wire has; nobody has named them yet."""
    first, second = new_thread(emulator), new_thread(emulator)
    post(emulator, first, content="What\nis   WSGI?")
    listed = api(emulator, "GET", "/github/chat/threads").json["threads"]
    assert [thread["id"] for thread in listed] == [first, second]
    assert NANOSECONDS.match(listed[0].pop("updatedAt"))
    assert NANOSECONDS.match(listed[0].pop("createdAt"))
    assert listed[0] == {
        "id": first,
        "name": "",
        "manuallyNamed": False,
        "autoPickedModel": "",
        "sharedAt": None,
        "sharedID": None,
        "repoID": None,
        "repoOwnerID": None,
        "associatedRepoIDs": [],
    }


def test_a_thread_is_nameless_until_the_service_is_asked_for_a_name(emulator: Emulator) -> None:
    """The first question gives the name; later ones don't change it."""
    thread_id = new_thread(emulator)
    path = f"/github/chat/threads/{thread_id}/name"
    post(emulator, thread_id, content="What\nis   WSGI?")
    post(emulator, thread_id, content="And ASGI?")
    thread = emulator.threads[thread_id]
    assert thread.name == ""
    named = api(emulator, "PATCH", path, {"name": "", "generate": True})
    assert (named.status, named.json) == (200, {"name": "What is WSGI?"})
    assert (thread.name, thread.manually_named) == ("What is WSGI?", False)


def test_a_name_that_was_given_is_marked_as_given(emulator: Emulator) -> None:
    """It stays through further messages, until the service is asked for one."""
    thread_id = new_thread(emulator)
    path = f"/github/chat/threads/{thread_id}/name"
    renamed = api(emulator, "PATCH", path, {"name": "Mine", "generate": False})
    assert (renamed.status, renamed.json) == (200, {"name": "Mine"})
    thread = emulator.threads[thread_id]
    assert api(emulator, "PATCH", path, {"name": "", "generate": True}).json == {
        "name": "Mine"
    }  # nothing to name it by
    assert api(emulator, "PATCH", path, {"name": "Mine"}).status == 200
    post(emulator, thread_id, content="Hello there")
    assert (thread.name, thread.manually_named) == ("Mine", True)
    assert api(emulator, "PATCH", path, {"generate": True}).json == {"name": "Hello there"}
    assert not thread.manually_named


@pytest.mark.parametrize("body", [{}, {"name": " "}, {"name": 7}], ids=str)
def test_a_thread_is_not_renamed_to_nothing(emulator: Emulator, body: object) -> None:
    """422 for a name that is missing, blank or no text."""
    path = f"/github/chat/threads/{new_thread(emulator)}/name"
    assert api(emulator, "PATCH", path, body).status == 422


def test_a_deleted_thread_is_gone(emulator: Emulator) -> None:
    """204 without a body or a length, then 404."""
    path = f"/github/chat/threads/{new_thread(emulator)}"
    reply = api(emulator, "DELETE", path)
    assert (reply.status, reply.body, "Content-Length" in reply.headers) == (204, b"", False)
    assert api(emulator, "DELETE", path).status == 404
    assert emulator.threads == {}


@pytest.mark.parametrize(
    ("host", "method", "path"),
    [
        ("github", "POST", "/github/chat/threads"),
        ("github", "GET", "/"),
        ("api", "POST", "/github-copilot/chat/token"),
        ("api", "GET", "/github/chat/threads/"),
        ("api", "GET", "/github/chat/threads//messages"),
        ("api", "GET", "/elsewhere"),
    ],
)
def test_what_a_host_does_not_have_is_not_found(emulator: Emulator, host: str, method: str, path: str) -> None:
    """404 in JSON: neither host serves what is the other's."""
    url = emulator.github_url if host == "github" else emulator.api_url
    reply = ask(url, method, path)
    assert (reply.status, reply.json["message"]) == (404, "Not Found")
    assert [request.stage for request in emulator.requests] == ["unknown"]


@pytest.mark.parametrize(
    ("host", "method", "path", "allowed"),
    [
        ("github", "GET", "/github-copilot/chat/token", "POST"),
        ("api", "PUT", "/github/chat/threads", "POST, GET"),
        ("api", "GET", "/github/chat/threads/1", "DELETE"),
        ("api", "HEAD", "/models", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    emulator: Emulator, host: str, method: str, path: str, allowed: str
) -> None:
    """405 with ``Allow``."""
    reply = ask(emulator.github_url if host == "github" else emulator.api_url, method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)


def test_the_oldest_threads_are_forgotten() -> None:
    """One that runs for days must not grow for days."""
    with Emulator(options=EmulatorOptions(max_threads=3)) as emulator:
        made = [new_thread(emulator) for _ in range(5)]
        assert list(emulator.threads) == made[2:]


def test_what_is_kept_of_messages_is_bounded_in_bytes() -> None:
    """The oldest threads go; a thread that is as large as all may be takes no more."""
    with Emulator(options=EmulatorOptions(max_thread_bytes=100_000), reply=Reply("ok")) as emulator:
        made = [new_thread(emulator) for _ in range(6)]
        for thread_id in made:
            assert post(emulator, thread_id, content="x" * 30_000).status == 200
        assert list(emulator.threads) == made[3:]
        emulator.threads.clear()
        last = new_thread(emulator)
        statuses = [post(emulator, last, content="x" * 30_000).status for _ in range(5)]
        assert statuses == [200, 200, 200, 422, 422]
        assert list(emulator.threads) == [last]
        assert api(emulator, "DELETE", f"/github/chat/threads/{last}").status == 204
        assert emulator._service._stored_bytes == 0


def test_an_answer_may_end_after_its_thread_was_forgotten() -> None:
    """It is nobody's any more."""
    with Emulator(options=EmulatorOptions(max_threads=1)) as emulator:
        emulator.fail("message", Fault.stall(("after_events", 1)))
        asking = Worker(lambda: post(emulator, new_thread(emulator)).status)
        assert emulator.wait_until(lambda: emulator.stalled)
        second = new_thread(emulator)
        emulator.release()
        assert asking.result() == 200
        assert list(emulator.threads) == [second]
        assert emulator._service._stored_bytes == 0


def test_the_oldest_tokens_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are over first."""
    monkeypatch.setattr(account_pages, "_MAX_TOKENS", 4)
    with Emulator(options=EmulatorOptions(token_lifetime=0.0)) as emulator:
        for _ in range(3):
            fetch_token(emulator)
        emulator.options.token_lifetime = 1800.0
        tokens = [fetch_token(emulator).json["token"] for _ in range(8)]
        assert list(emulator._account._tokens) == tokens[-3:] or list(emulator._account._tokens) == tokens[-4:]
        assert emulator.tokens_issued == 11
