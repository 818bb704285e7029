"""The wire, without a network: requests as values, replies read, statuses and events turned into what they mean."""

import json
import math
import pickle
from email.utils import formatdate
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from copilot_sync import protocol
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    WrongHostError,
)
from copilot_sync.events import (
    AnnotationsEvent,
    CompleteEvent,
    ContentEvent,
    ErrorEvent,
    Event,
    RoutedModelEvent,
    UnknownEvent,
)
from copilot_sync.models import Message, Model, Thread, Usage
from copilot_sync.protocol import Form, Options, Reply, Request
from copilot_sync.settings import Urls

URLS = Urls("https://github.com", "https://api.individual.githubcopilot.com")
OTHER = Urls("https://ghe.example:8443/prefix", "https://api.example/copilot")
NOW = 1_782_566_106.0  # 2026-06-27T13:15:06Z

PAGE_HEADERS = {
    "Accept-Language": "en-US,en;q=0.5",
    "Origin": "https://github.com",
    "Referer": "https://github.com/copilot",
}
API_HEADERS = {"copilot-integration-id": "copilot-chat", "X-GitHub-Api-Version": "2025-05-01", **PAGE_HEADERS}
JSON = {"Content-Type": "application/json"}


def ask(
    urls: Urls = URLS, thread_id: str = "t1", content: str = "Hi", model: str = "gpt-4o", **options: Any
) -> Request:
    parent_id = options.pop("parent_id", None)
    return protocol.message_request(
        urls, thread_id, content, model=model, options=Options.coerce(**options), parent_id=parent_id, response_id="r1"
    )


def body_of(request: Request) -> Any:
    assert request.body is not None
    return json.loads(request.body.decode("utf-8"))


def plain(text: str) -> str:
    """Masks nothing."""
    return text


def sent(headers: Optional[Dict[str, str]] = None, **body: Any) -> Reply:
    return Reply(200, headers or {}, json.dumps(body).encode())


# Requests


@pytest.mark.parametrize(
    "request_, stage, method, path, template, body, headers",
    [
        (
            protocol.token_request(URLS),
            "token",
            "POST",
            "https://github.com/github-copilot/chat/token",
            "/github-copilot/chat/token",
            None,
            {
                "Accept": "application/json",
                "GitHub-Verified-Fetch": "true",
                "X-Requested-With": "XMLHttpRequest",
                **JSON,
                **PAGE_HEADERS,
            },
        ),
        (
            protocol.thread_request(URLS),
            "thread",
            "POST",
            "/github/chat/threads",
            "/github/chat/threads",
            None,
            {"Accept": "application/json", **API_HEADERS},
        ),
        (
            ask(),
            "message",
            "POST",
            "/github/chat/threads/t1/messages",
            "/github/chat/threads/{id}/messages",
            ...,
            {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity", **JSON, **API_HEADERS},
        ),
        (protocol.models_request(URLS), "models", "GET", "/models", "/models", None, API_HEADERS),
        (
            protocol.models_request(URLS, older=True),
            "models",
            "GET",
            "/github/chat/models",
            "/github/chat/models",
            None,
            API_HEADERS,
        ),
        (
            protocol.threads_request(URLS),
            "threads",
            "GET",
            "/github/chat/threads",
            "/github/chat/threads",
            None,
            API_HEADERS,
        ),
        (
            protocol.messages_request(URLS, "t1"),
            "messages",
            "GET",
            "/github/chat/threads/t1/messages",
            "/github/chat/threads/{id}/messages",
            None,
            API_HEADERS,
        ),
        (
            protocol.rename_request(URLS, "t1", "Über"),
            "rename",
            "PATCH",
            "/github/chat/threads/t1/name",
            "/github/chat/threads/{id}/name",
            {"name": "Über", "generate": False},
            {**JSON, **API_HEADERS},
        ),
        (
            protocol.delete_request(URLS, "t1"),
            "delete",
            "DELETE",
            "/github/chat/threads/t1",
            "/github/chat/threads/{id}",
            None,
            API_HEADERS,
        ),
    ],
    ids=["token", "thread", "message", "models", "older-models", "threads", "messages", "rename", "delete"],
)
def test_a_request_is_the_documented_one(
    request_: Request, stage: str, method: str, path: str, template: str, body: Any, headers: Dict[str, str]
) -> None:
    """Method, address, headers and body; the template names no conversation, for logs; no credentials are in it."""
    url = path if path.startswith("https:") else URLS.api + path
    assert (request_.stage, request_.method, request_.url, request_.template) == (stage, method, url, template)
    assert {**request_.headers, **headers} == request_.headers
    assert not {"authorization", "cookie"} & {name.lower() for name in request_.headers}
    assert ("Content-Type" in request_.headers) is ("Content-Type" in headers)
    assert request_.headers["User-Agent"].startswith("copilot-sync/")
    assert body is ... or request_.body is body or body_of(request_) == body
    assert request_.subject == ("t1" if "{id}" in template else None)


def test_a_message_has_the_ten_documented_fields_and_those_of_the_web_client() -> None:
    """The documented block is always sent, streaming whatever the caller wants; the rest is as captured in 2026."""
    assert body_of(ask(parent_id="root")) == {
        "content": "Hi",
        "intent": "conversation",
        "references": [],
        "context": [],
        "currentURL": "https://github.com/copilot/c/t1",
        "streaming": True,
        "confirmations": [],
        "customInstructions": [],
        "model": "gpt-4o",
        "mode": "immersive",
        "responseMessageID": "r1",
        "parentMessageID": "root",
        "mediaContent": [],
        "skillOptions": {"deepCodeSearch": False},
        "requestTrace": False,
    }


def test_a_message_without_a_known_parent_names_none() -> None:
    """An id would be a guess; ``null`` is not what the web client sends."""
    assert "parentMessageID" not in body_of(ask(parent_id=None))


def test_the_options_of_a_message_reach_its_body() -> None:
    """Each under its name on the wire, as it was given."""
    reference = {"type": "file", "path": "README.md", "repo": "octocat/Hello-World"}
    image = {"mediaType": "image/png", "name": "a.png", "url": "https://a", "width": 1, "height": 2}
    body = body_of(
        ask(
            model="o1-mini",
            references=[reference],
            context=({"a": 1},),
            intent="explain",
            mode="assistive",
            custom_instructions="Be brief",
            media=iter([image]),
        )
    )
    expected = {
        "model": "o1-mini",
        "references": [reference],
        "context": [{"a": 1}],
        "intent": "explain",
        "mode": "assistive",
        "customInstructions": ["Be brief"],
        "mediaContent": [image],
    }
    assert {name: body[name] for name in expected} == expected


def test_a_body_is_utf_8() -> None:
    """Text goes out as it is, not as escapes."""
    body = ask(content="Grüße 🎉\n\u2028").body
    assert body is not None
    assert '"content": "Grüße 🎉\\n\u2028"'.encode() in body


def test_the_page_follows_github_url() -> None:
    """``currentURL``, ``Origin`` and ``Referer`` name the host that the caller set; an origin has no path."""
    request = ask(OTHER)
    assert body_of(request)["currentURL"] == "https://ghe.example:8443/prefix/copilot/c/t1"
    assert request.url == "https://api.example/copilot/github/chat/threads/t1/messages"
    for page in (request, protocol.token_request(OTHER), protocol.threads_request(OTHER)):
        assert page.headers["Origin"] == "https://ghe.example:8443"
        assert page.headers["Referer"] == "https://ghe.example:8443/prefix/copilot"
    assert protocol.token_request(OTHER).url == "https://ghe.example:8443/prefix/github-copilot/chat/token"


IDS = [
    ("5a1c9c1e-8a0b-4a7e-9a51-0d4f2a3b4c5d", "5a1c9c1e-8a0b-4a7e-9a51-0d4f2a3b4c5d"),
    ("a/b", "a%2Fb"),
    ("../models", "..%2Fmodels"),
    ("a?b=c#d", "a%3Fb%3Dc%23d"),
    ("a b%20", "a%20b%2520"),
    ("...", "..."),
    ("a\r\nX: y", "a%0D%0AX%3A%20y"),
    ("ü", "%C3%BC"),
]


@pytest.mark.parametrize("identifier, quoted", IDS, ids=ascii)
def test_an_id_is_one_segment_of_a_path(identifier: str, quoted: str) -> None:
    """Whatever an id holds, it can't reach another address; the page's address quotes it the same way."""
    assert protocol.segment(identifier) == quoted
    assert ask(thread_id=identifier).url == f"{URLS.api}/github/chat/threads/{quoted}/messages"
    assert body_of(ask(thread_id=identifier))["currentURL"] == f"https://github.com/copilot/c/{quoted}"
    assert protocol.messages_request(URLS, identifier).url == f"{URLS.api}/github/chat/threads/{quoted}/messages"
    assert protocol.rename_request(URLS, identifier, "n").url == f"{URLS.api}/github/chat/threads/{quoted}/name"
    assert protocol.delete_request(URLS, identifier).url == f"{URLS.api}/github/chat/threads/{quoted}"


@pytest.mark.parametrize("identifier", ["", ".", "..", "a\ud800"], ids=ascii)
def test_what_is_no_segment_is_refused(identifier: str) -> None:
    """Clients and servers resolve dots, so that these would ask for something else."""
    with pytest.raises(ValueError, match="id"):
        protocol.delete_request(URLS, identifier)


def test_a_request_does_not_show_what_was_asked() -> None:
    """Prompts are private: a request in a log or a traceback names its address alone."""
    assert "private" not in repr(ask(content="private"))


def test_a_reply_does_not_show_what_was_answered() -> None:
    """Its body may hold a token, its headers cookies."""
    assert "private" not in repr(Reply(200, {"set-cookie": "user_session=private"}, b'{"token":"private"}'))


@pytest.mark.parametrize("request_, stage", [(ask(), "stream"), (protocol.models_request(URLS), "models")])
def test_reading_an_answer_is_a_stage_of_its_own(request_: Request, stage: str) -> None:
    """An error tells whether the message failed or its answer."""
    assert request_.body_stage == stage


# Options


def test_options_that_are_not_given_have_the_documented_defaults() -> None:
    """``None`` for each means the default too, because providers pass everything on."""
    nothing = dict.fromkeys(
        ["references", "context", "intent", "mode", "custom_instructions", "media", "parent_message_id"]
    )
    assert Options.coerce(**nothing) == Options.coerce() == Options()
    assert (Options().intent, Options().mode, Options().parent_message_id) == ("conversation", "immersive", None)
    assert Options.coerce(parent_message_id="") == Options()
    assert Options.coerce(parent_message_id="m1").parent_message_id == "m1"
    assert Options.coerce(custom_instructions=["a", "b"]).custom_instructions == ("a", "b")


CIRCLE: Dict[str, Any] = {}
CIRCLE["itself"] = CIRCLE


@pytest.mark.parametrize("name", ["references", "context", "media"])
@pytest.mark.parametrize(
    "value, kind, words",
    [
        ("README.md", TypeError, "must be a list, not str"),
        (b"README.md", TypeError, "must be a list, not bytes"),
        ({"type": "file"}, TypeError, "must be a list, not dict"),
        (5, TypeError, "must be a list, not int"),
        (["README.md"], TypeError, "must be a list of dictionaries, not of str"),
        ([{"a": 1}, None], TypeError, "must be a list of dictionaries, not of NoneType"),
        ([{"a": object()}], TypeError, "can't be sent as JSON: "),
        ([{"a": {1, 2}}], TypeError, "can't be sent as JSON: "),
        ([{("a", "b"): 1}], TypeError, "can't be sent as JSON: "),
        ([{"a": math.nan}], ValueError, "can't be sent as JSON: "),
        ([{"a": math.inf}], ValueError, "can't be sent as JSON: "),
        ([CIRCLE], ValueError, "can't be sent as JSON: "),
        ([{"a": "\ud800"}], ValueError, "holds text that is not valid Unicode"),
    ],
    ids=[
        "text",
        "bytes",
        "dictionary",
        "number",
        "list-of-text",
        "list-of-none",
        "object",
        "set",
        "key",
        "nan",
        "infinity",
        "circle",
        "surrogate",
    ],
)
def test_what_can_not_be_sent_is_refused_before_anything_goes_out(
    name: str, value: Any, kind: Type[Exception], words: str
) -> None:
    """The error is a ``TypeError`` or ``ValueError`` and names the argument."""
    with pytest.raises(kind, match=f"^{name} {words}") as caught:
        Options.coerce(**{name: value})
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "options, kind, words",
    [
        ({"intent": 5}, TypeError, "intent must be a string, not int"),
        ({"mode": b"x"}, TypeError, "mode must be a string, not bytes"),
        ({"parent_message_id": ["m1"]}, TypeError, "parent_message_id must be a string, not list"),
        ({"intent": "\ud800"}, ValueError, "intent holds text that is not valid Unicode"),
        ({"parent_message_id": "\udfff"}, ValueError, "parent_message_id holds text that is not valid Unicode"),
        ({"custom_instructions": 5}, TypeError, "custom_instructions must be a list, not int"),
        ({"custom_instructions": {"a": 1}}, TypeError, "custom_instructions must be a list, not dict"),
        ({"custom_instructions": ["a", 5]}, TypeError, "custom_instructions must be a list of strings, not of int"),
        ({"colour": "blue"}, TypeError, "colour"),
    ],
    ids=ascii,
)
def test_an_option_of_the_wrong_type_is_refused(options: Any, kind: Type[Exception], words: str) -> None:
    """The error names the argument, what was wanted and what came."""
    with pytest.raises(kind, match=words):
        Options.coerce(**options)


# Prompts


def turn(role: str, content: Any) -> Dict[str, Any]:
    return {"role": role, "content": content}


PARTS = [
    {"type": "text", "text": "What is "},
    {"text": "this"},
    "?",
    {"type": "text"},
]
CHAT = [turn("system", "Be brief"), turn("user", "Hi"), turn("assistant", "Hello"), turn("user", " Why? ")]


@pytest.mark.parametrize(
    "messages, prompt",
    [
        ([turn("user", "Hi")], "Hi"),
        ([turn("system", " Hi\n")], " Hi\n"),
        ([turn("user", PARTS)], "What is this?"),
        ([turn("user", tuple(PARTS))], "What is this?"),
        ((turn("user", text) for text in ["Hi"]), "Hi"),
        (CHAT, "System: Be brief\nUser: Hi\nAssistant: Hello\nUser:  Why? \nAssistant:"),
        ([turn("USER", "a"), turn("toolResult", "b")], "User: a\nToolresult: b\nAssistant:"),
        ([turn("user", "a"), turn("assistant", " \n"), turn("user", "")], "User: a\nAssistant:"),
        ([turn("user", "a\nb"), turn("user", PARTS)], "User: a\nb\nUser: What is this?\nAssistant:"),
        ([turn("assistant", "a"), turn("assistant", "b")], "Assistant: a\nAssistant: b\nAssistant:"),
        ([turn("user", "a"), turn("assistant", None), turn("tool", "b")], "User: a\nTool: b\nAssistant:"),
        ([{"role": "user", "content": "a", "name": "me", "extra": object()}], "a"),
    ],
    ids=[
        "single",
        "single-as-it-is",
        "parts",
        "tuple-of-parts",
        "iterator",
        "transcript",
        "roles-capitalised",
        "blank-left-out",
        "lines-and-parts",
        "no-user",
        "null-left-out",
        "other-fields",
    ],
)
def test_a_transcript_becomes_one_string(messages: Any, prompt: str) -> None:
    """A single message is its content alone; several are ``Role: content`` lines closed by ``Assistant:``."""
    assert protocol.format_prompt(messages) == prompt


@pytest.mark.parametrize(
    "messages, prompt",
    [
        ([turn("user", "Hi")], "Hi"),
        (CHAT, "Why?"),
        ([*CHAT, turn("user", " And how?\n")], "Why?\nAnd how?"),
        ([*CHAT, turn("user", " "), turn("user", "And how?")], "Why?\nAnd how?"),
        ([*CHAT, turn("assistant", "Because")], "Why?"),
        ([*CHAT, turn("user", None), turn("assistant", None)], "Why?"),
        ([*CHAT, turn("assistant", "Because"), turn("system", "Stop")], "Why?"),
        ([turn("user", "a"), turn("user", "b"), turn("tool", "c")], "a\nb"),
        ([turn("user", PARTS), turn("user", "a\nb ")], "What is this?\na\nb"),
        (iter(CHAT), "Why?"),
    ],
    ids=["single", "last", "run", "blank-dropped", "answered", "null", "behind", "whole", "parts", "iterator"],
)
def test_a_known_conversation_gets_the_last_run_of_user_messages(messages: Any, prompt: str) -> None:
    """Each stripped, blank ones dropped, joined by newlines; what stands behind the run is left out."""
    assert protocol.last_user_turn(messages) == prompt


@pytest.mark.parametrize("read", [protocol.format_prompt, protocol.last_user_turn], ids=["transcript", "last turn"])
@pytest.mark.parametrize(
    "messages, kind, words",
    [
        (None, TypeError, "messages must be a list of dictionaries, not NoneType"),
        ("Hi", TypeError, "messages must be a list of dictionaries, not str"),
        (b"Hi", TypeError, "messages must be a list of dictionaries, not bytes"),
        (turn("user", "Hi"), TypeError, "messages must be a list of dictionaries, not dict"),
        ([], ValueError, "messages must not be empty"),
        pytest.param(iter([]), ValueError, "messages must not be empty", id="iterator of nothing"),
        (["Hi"], TypeError, "message 0 must be a dictionary, not str"),
        ([turn("user", "a"), None], TypeError, "message 1 must be a dictionary, not NoneType"),
        ([{"content": "Hi"}], ValueError, "message 0 has no role"),
        ([turn("user", "a"), {"role": "user"}], ValueError, "message 1 has no content"),
        ([turn("user", None)], ValueError, "the messages hold no text"),
        ([turn(None, "Hi")], ValueError, "message 0 has no role"),
        (
            [turn("user", [{"type": "image_url", "image_url": {"url": "https://a"}, "text": "not this"}])],
            ValueError,
            "message 0 has a part of type 'image_url', which can't be sent: only text can",
        ),
        (
            [turn("user", [{"type": "file"}]), turn("assistant", "a"), turn("user", "b")],
            ValueError,
            "message 0 has a part of type 'file'",
        ),
        (
            [turn("user", "a"), turn("user", ["b", {"image_url": {"url": "https://a"}}])],
            ValueError,
            "message 1 has a part without a type or text",
        ),
        ([turn("", "Hi")], ValueError, "message 0 has no role"),
        ([turn(" ", "Hi")], ValueError, "message 0 has no role"),
        ([{"role": 5, "content": "Hi"}], TypeError, "the role of message 0 must be a string, not int"),
        ([turn("user", 5)], TypeError, "the content of message 0 must be a string or a list of parts"),
        ([turn("user", {"text": "Hi"})], TypeError, "the content of message 0 must be a string or a list of parts"),
        ([turn("user", [5])], TypeError, "a part of message 0 must be a dictionary, not int"),
        ([turn("user", [{"text": None}])], TypeError, "a text part of message 0 must hold a string, not NoneType"),
        ([turn("user", "a\ud800")], ValueError, "messages holds text that is not valid Unicode"),
        ([turn("user", " \n")], ValueError, "the messages hold no text"),
        ([turn("user", ""), turn("user", [])], ValueError, "the messages hold no text"),
    ],
    ids=ascii,
)
def test_messages_that_can_not_be_sent_are_refused(
    read: Callable[[Any], str], messages: Any, kind: Type[Exception], words: str
) -> None:
    """Empty or malformed ones are told by their number, before anything goes out."""
    with pytest.raises(kind, match=words):
        read(messages)


@pytest.mark.parametrize(
    "messages",
    [
        [turn("system", "Be brief")],
        [turn("assistant", "Hello")],
        [turn("user", "Hi"), turn("assistant", "Hello"), turn("user", " ")],
    ],
    ids=["system", "assistant", "blank"],
)
def test_a_known_conversation_needs_something_the_user_says(messages: Any) -> None:
    """An earlier question must not be asked again in its place."""
    with pytest.raises(ValueError, match="the messages hold no text of the user's"):
        protocol.last_user_turn(messages)


@pytest.mark.parametrize(
    "prompt, kind, words",
    [
        (None, TypeError, "a prompt must be a string or a list of messages, not NoneType"),
        (b"Hi", TypeError, "a prompt must be a string or a list of messages, not bytes"),
        ("", ValueError, "the prompt is empty"),
        (" \n\t", ValueError, "the prompt is empty"),
        ("a\udc80", ValueError, "the prompt holds text that is not valid Unicode"),
    ],
    ids=ascii,
)
def test_a_prompt_must_be_text(prompt: Any, kind: Type[Exception], words: str) -> None:
    """A prompt that isn't text is told before anything goes out."""
    with pytest.raises(kind, match=words):
        protocol.check_prompt(prompt)


def test_a_prompt_is_sent_as_it_is() -> None:
    """Blanks around a text may matter, as in code."""
    assert protocol.check_prompt("  def f():\n") == "  def f():\n"


# The token


@pytest.mark.parametrize(
    "expiration, seconds",
    [
        ("2026-06-27T13:45:06.000Z", 1800.0),
        ("2026-06-27T13:45:06.123456789Z", 1800.0),
        ("2026-06-27T13:45:06,5Z", 1800.0),
        ("2026-06-27T13:45:06Z", 1800.0),
        ("2026-06-27 13:45:06z", 1800.0),
        (" 2026-06-27t13:45:06 \n", 1800.0),
        ("2026-06-27T15:45:06+02:00", 1800.0),
        ("2026-06-27T07:45:06.5-0600", 1800.0),
        ("2026-06-27T13:15:07Z", 1.0),
        ("2026-06-28T13:15:06Z", 86400.0),
        ("2026-06-28T13:15:07Z", 600.0),
        ("2026-06-27T13:15:06Z", 600.0),
        ("2020-01-01T00:00:00Z", 600.0),
        ("0001-01-01T00:00:00+23:59", 600.0),
        ("0000-01-01T00:00:00Z", 600.0),
        ("2026-06-27T25:00:00Z", 600.0),
        ("2026-02-30T00:00:00Z", 600.0),
        ("2026-06-27T13:45:06+99:00", 600.0),
        ("2026-06-27", 600.0),
        ("soon", 600.0),
        ("", 600.0),
        (None, 600.0),
        (1_782_567_906, 600.0),
        ([], 600.0),
    ],
    ids=ascii,
)
def test_a_token_lives_as_long_as_the_service_says(expiration: Any, seconds: float) -> None:
    """With fractions of any length and any zone; ten minutes where it does not say, or says what can't be."""
    assert protocol.read_token(sent(token="tok", expiration=expiration), NOW) == ("tok", seconds)


def test_a_token_may_come_without_an_expiration() -> None:
    """Then it is taken to live for ten minutes; unknown fields are ignored."""
    assert protocol.read_token(sent(token="tok", sku="free"), NOW) == ("tok", 600.0)


def test_a_token_may_come_behind_a_byte_order_mark() -> None:
    """Some gateways add one."""
    assert protocol.read_token(Reply(200, {}, b'\xef\xbb\xbf{"token":"tok"}'), NOW) == ("tok", 600.0)


def test_the_age_of_a_token_is_told_by_the_servers_clock() -> None:
    """A clock that is wrong here does no harm: the reply's own date counts."""
    reply = sent({"date": "Sat, 27 Jun 2026 13:15:06 GMT"}, token="tok", expiration="2026-06-27T13:45:06Z")
    assert protocol.read_token(reply, NOW - 5 * 3600) == ("tok", 1800.0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"token":null}',
        b'{"token":""}',
        b'{"token":5}',
        b'["token"]',
        b'"token"',
        b"null",
        b"<!DOCTYPE html><title>Sign in to GitHub</title>",
        b"\n <html>",
        b"Not signed in",
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_a_reply_without_a_token_means_that_the_cookies_are_not_valid(body: bytes) -> None:
    """Whether it is HTML, empty or JSON: the error says what to do about it."""
    with pytest.raises(AuthenticationError, match="cookies are not valid any more; sign in again") as caught:
        protocol.read_token(Reply(200, {"content-type": "application/json"}, body), NOW)
    assert (caught.value.stage, caught.value.status) == ("token", 200)


@pytest.mark.parametrize(
    "body",
    [
        b'{"token": "tok"',
        b"{token}",
        b"[" * 100_000,
        b'{"token":"a\\u0000b"}',
        b'{"token":"a\\r\\nX-Evil: 1"}',
        b'{"token":" tok"}',
        '{"token":"tök"}'.encode(),
    ],
    ids=lambda body: ascii(body[:30]),
)
def test_a_token_that_can_not_be_read_or_sent_is_not_the_cookies_fault(body: bytes) -> None:
    """Broken JSON and what would break a header are told apart from cookies that ran out; the token is not shown."""
    with pytest.raises(ProtocolError) as caught:
        protocol.read_token(Reply(200, {}, body), NOW)
    assert caught.value.stage == "token"
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize(
    "text, fits",
    [
        ("gho_abc123", True),
        ("a b;c=d", True),
        (" a", False),
        ("a ", False),
        ("a\nb", False),
        ("a\tb", False),
        ("\x7f", False),
        ("ä", False),
    ],
    ids=ascii,
)
def test_a_header_value_is_printable_ascii(text: str, fits: bool) -> None:
    """Nothing else can be sent in a header as it is."""
    assert protocol.is_header_value(text) is fits


# Threads, messages, models


@pytest.mark.parametrize(
    "body, thread_id",
    [
        (b'{"thread_id":"t1"}', "t1"),
        (b'{"thread_id":"t1","id":"other","thread":{"id":"other"}}', "t1"),
        (b'{"thread":{"id":"t1","name":""}}', "t1"),
        (b'{"thread":{"id":"t1"},"id":"other"}', "t1"),
        (b'{"id":"t1"}', "t1"),
        (b'{"thread_id":null,"thread":"x","id":"t1"}', "t1"),
        (b'{"thread_id":"","thread":{"id":7},"id":"t1"}', "t1"),
        (b'{"thread_id":"..","thread":{"id":"\\ud800"},"id":"t1"}', "t1"),
        (b'\xef\xbb\xbf{"id":"t1"}', "t1"),
    ],
    ids=ascii,
)
def test_the_id_of_a_thread_comes_in_three_shapes(body: bytes, thread_id: str) -> None:
    """Versions of the service differ; what can't be an id is passed over."""
    assert protocol.read_thread_id(Reply(201, {}, body)) == thread_id


NOT_JSON = [
    b"",
    b"<html><title>Bad Gateway</title>",
    b"oops",
    b"{",
    b"[" * 100_000,
    b"\xff\xfe{}",
    b"9" * 100_000 + b"x",
]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"null",
        b"5",
        b'{"thread":{}}',
        b'{"thread":[{"id":"t1"}]}',
        b'{"thread_id":7}',
        b'{"id":"."}',
        b'{"id":"\\ud800"}',
        *NOT_JSON,
    ],
    ids=lambda body: ascii(body[:30]),
)
def test_a_new_thread_without_an_id_can_not_be_used(body: bytes) -> None:
    """The error says where it happened; nothing else comes out."""
    with pytest.raises(ProtocolError) as caught:
        protocol.read_thread_id(Reply(201, {}, body))
    assert (caught.value.stage, caught.value.status) == ("thread", 201)


def test_threads_are_listed() -> None:
    """Broken entries are left out, missing fields empty, unknown ones ignored."""
    reply = sent(
        threads=[
            {"id": "t1", "name": "WSGI", "createdAt": "2026-04-15", "updatedAt": "2026-04-16", "sharedAt": None},
            {"id": "t2"},
            {"id": "t3", "name": None, "createdAt": 5, "updatedAt": ""},
            {"id": "t\ud800", "name": "a\udfff"},
            {"name": "no id"},
            {"id": ""},
            {"id": 7},
            None,
            "t4",
            [],
        ]
    )
    assert protocol.read_threads(reply) == [
        Thread("t1", "WSGI", "2026-04-15", "2026-04-16"),
        Thread("t2"),
        Thread("t3"),
        Thread("t\ufffd", "a\ufffd"),
    ]


def test_messages_are_listed() -> None:
    """Broken entries are left out, missing fields empty, unknown ones ignored."""
    reply = sent(
        thread={"id": "t1"},
        messages=[
            {"id": "m1", "role": "user", "content": "Hi", "createdAt": "2026-04-15", "intent": "conversation"},
            {"id": "m2", "role": "assistant", "content": "Hello", "parentMessageID": "m1", "interrupted": True},
            {"id": "m3", "role": None, "content": ["x"], "parentMessageID": "", "interrupted": "yes"},
            {"id": "m\ud800"},
            {"role": "user"},
            7,
        ],
    )
    assert protocol.read_messages(reply) == [
        Message("m1", "user", "Hi", None, "2026-04-15"),
        Message("m2", "assistant", "Hello", "m1", None, True),
        Message("m3", ""),
        Message("m\ufffd", ""),
    ]


def test_models_are_listed() -> None:
    """Broken entries are left out, missing fields empty, unknown ones ignored."""
    reply = sent(
        data=[
            {"id": "gpt-4o", "name": "GPT-4o", "vendor": "OpenAI", "preview": True, "capabilities": {"limits": {}}},
            {"id": "o1", "name": 5, "preview": 1},
            {"id": "m\ud800"},
            {"vendor": "OpenAI"},
            False,
        ]
    )
    assert protocol.read_models(reply) == [Model("gpt-4o", "GPT-4o", "OpenAI", True), Model("o1"), Model("m\ufffd")]


LISTS: List[Tuple[str, Callable[[Reply], List[Any]], str]] = [
    ("threads", protocol.read_threads, "threads"),
    ("messages", protocol.read_messages, "messages"),
    ("models", protocol.read_models, "data"),
]
each_list = pytest.mark.parametrize("stage, read, key", LISTS, ids=[stage for stage, _, _ in LISTS])


@each_list
@pytest.mark.parametrize("value", [[], None], ids=repr)
def test_an_empty_list_is_one(stage: str, read: Callable[[Reply], List[Any]], key: str, value: Any) -> None:
    """A new account has no threads."""
    assert read(Reply(200, {}, json.dumps({key: value}).encode())) == []


@each_list
@pytest.mark.parametrize("error", [{"error": {"message": "boom"}}, {"error": "boom"}, {"errors": ["boom"]}], ids=repr)
def test_an_error_is_no_empty_list(
    stage: str, read: Callable[[Reply], List[Any]], key: str, error: Dict[str, Any]
) -> None:
    """Whoever looks whether a message was taken must not hear that nothing is there."""
    with pytest.raises(ProtocolError, match=f"instead of a list of {stage}"):
        read(Reply(200, {}, json.dumps({key: None, **error}).encode()))


@pytest.mark.parametrize(
    "read, body",
    [
        (protocol.read_messages, {"thread": {"id": "t-1"}}),
        (protocol.read_messages, {"thread": None, "messages": None}),
        (protocol.read_models, {"object": "list"}),
    ],
    ids=["a thread", "nothing", "models"],
)
def test_a_list_that_is_absent_is_empty(read: Callable[[Reply], List[Any]], body: Dict[str, Any]) -> None:
    """If what stands beside it tells that this is the reply."""
    assert read(Reply(200, {}, json.dumps(body).encode())) == []


@each_list
@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"null", b'{"KEY":"x"}', b'{"KEY":{}}', b'{"other":null}', b'{"KEY":{"id":"a"}}', *NOT_JSON],
    ids=lambda body: ascii(body[:30]),
)
def test_a_reply_that_holds_no_list_is_told(
    stage: str, read: Callable[[Reply], List[Any]], key: str, body: bytes
) -> None:
    """An empty list must not be made up: what is in a thread decides whether a message is sent again."""
    with pytest.raises(ProtocolError) as caught:
        read(Reply(200, {}, body.replace(b"KEY", key.encode())))
    assert (caught.value.stage, caught.value.status) == (stage, 200)


@pytest.mark.parametrize(
    "headers, body, words",
    [
        ({}, b" <html>", "HTML"),
        ({"content-type": "text/plain"}, b"\xef\xbb\xbf\n<!doctype html>", "HTML"),
        ({"content-type": "Text/HTML"}, b"Sign in", "something else"),
        ({"content-type": "text/plain"}, b"Sign in", "something else"),
    ],
)
def test_what_came_instead_of_json_is_named(headers: Dict[str, str], body: bytes, words: str) -> None:
    """HTML hints at a proxy or a login page."""
    with pytest.raises(ProtocolError, match=f"JSON was expected and {words} came"):
        protocol.read_models(Reply(200, headers, body))


# Answers


EVENT = b'data: {"type":"content","body":"x"}\n\n'
MARK = b"\xef\xbb\xbf"
# fmt: off
FORMS = [
    # the first bytes                        what they tell, and what if no more come
    (b"data: {",                             Form.STREAM,   Form.STREAM),
    (b"data:",                               Form.STREAM,   Form.STREAM),
    (b"data\n",                              Form.STREAM,   Form.STREAM),
    (b": keep-alive",                        Form.STREAM,   Form.STREAM),
    (b":",                                   Form.STREAM,   Form.STREAM),
    (b"event: ping",                         Form.STREAM,   Form.STREAM),
    (b"id: 7",                               Form.STREAM,   Form.STREAM),
    (b"retry: 10",                           Form.STREAM,   Form.STREAM),
    (MARK + b"data:",                        Form.STREAM,   Form.STREAM),
    (b"\r\n\r\n data:",                      Form.STREAM,   Form.STREAM),
    (b"foo: bar\n" + EVENT,                  Form.STREAM,   Form.STREAM),
    (b'{"message": {',                       Form.DOCUMENT, Form.DOCUMENT),
    (b"[",                                   Form.DOCUMENT, Form.DOCUMENT),
    (MARK + b' \n{"error"',                  Form.DOCUMENT, Form.DOCUMENT),
    (b"\n" + MARK + b"{",                    Form.DOCUMENT, Form.DOCUMENT),
    (b"<!DOCTYPE html>",                     Form.WORDS,    Form.WORDS),
    (b" <html>\n" + EVENT,                   Form.WORDS,    Form.WORDS),
    (b"",                                    None,          Form.STREAM),
    (b" \r\n",                               None,          Form.STREAM),
    (MARK,                                   None,          Form.STREAM),
    (MARK[:1],                               None,          Form.STREAM),
    (b" " + MARK[:2],                        None,          Form.STREAM),
    (b"da",                                  None,          Form.STREAM),
    (b"retry",                               None,          Form.STREAM),
    (b"dat:",                                None,          Form.WORDS),
    (b"database is locked",                  None,          Form.WORDS),
    (b"identity: unknown",                   None,          Form.WORDS),
    (b"upstream timed out",                  None,          Form.WORDS),
    (b"error: data: missing",                None,          Form.WORDS),
    (b"\xef\xbc\x88\xe9",                     None,          Form.WORDS),
    (b"\x00\x01",                            None,          Form.WORDS),
    (b'"words"',                             None,          Form.WORDS),
]
# fmt: on


@pytest.mark.parametrize(("beginning", "form", "at_end"), FORMS, ids=lambda value: ascii(value)[:40])
def test_a_body_is_what_its_first_bytes_say(beginning: bytes, form: Optional[Form], at_end: Form) -> None:
    """Whatever its label says; where they don't tell yet, more has to come, unless that is all."""
    assert protocol.form_of(beginning) is form
    assert protocol.form_of(beginning, at_end=True) is at_end


@pytest.mark.parametrize(("beginning", "form", "at_end"), FORMS, ids=lambda value: ascii(value)[:40])
def test_a_body_of_single_bytes_is_never_taken_for_another_form(
    beginning: bytes, form: Optional[Form], at_end: Form
) -> None:
    """What its first bytes tell, further ones don't change."""
    told = [protocol.form_of(beginning[:length]) for length in range(len(beginning) + 1)]
    assert set(told) - {None} <= {form}


def test_a_plain_answer_is_read_as_events() -> None:
    """Its text, and its end with what is known of it: callers need not know that it was no stream."""
    message = {"content": "Hello", "references": [], "id": "m1", "model": "gpt-4o", "usage": {"outputTokens": 2}}
    assert protocol.read_document(sent(message=message).body) == (
        ContentEvent("content", message, "Hello"),
        CompleteEvent("complete", message, "m1", "gpt-4o", Usage(None, 2), {}),
    )


def test_a_plain_answer_may_be_empty_or_badly_encoded() -> None:
    """No content event is ever empty, and lone surrogates are replaced."""
    events = protocol.read_document(sent(message={"content": ""}, error="").body)
    assert [type(event) for event in events or ()] == [CompleteEvent]
    content, _ = protocol.read_document(sent(message={"content": "a\ud800"}, error=None).body) or ()
    assert content == ContentEvent("content", {"content": "a\ud800"}, "a\ufffd")


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"message":null}', b'{"message":{}}', b'{"message":{"content":5}}', b'{"answer":42}', b'{"error":{}}'],
    ids=lambda body: ascii(body[:30]),
)
def test_a_plain_reply_without_an_answer_is_told(body: bytes) -> None:
    """It must not look like an empty answer."""
    with pytest.raises(ProtocolError) as caught:
        protocol.read_document(body)
    assert caught.value.stage == "message"


WHOLE = '{"message": {"content": "a\\u00e9\\n é", "n": -1.5e+3, "t": [true, false, null], "r": {}}}'


@pytest.mark.parametrize("length", range(1, len(WHOLE.encode())))
def test_a_torn_document_is_told_from_a_broken_one(length: int) -> None:
    """Wherever it ends, it is not whole, and not something else."""
    assert protocol.read_document(WHOLE.encode()[:length]) is None


@pytest.mark.parametrize(
    "body", [b"{nonsense", b'{"message" 42}', b"{oops}", b'{"a":1}}', b"[" * 1000, b"[1, 2]", b'{"a": abc']
)
def test_a_broken_document_is_words(body: bytes) -> None:
    """Somebody's, who does not speak this protocol."""
    (event,) = protocol.read_document(body) or ()
    assert isinstance(event, ErrorEvent)
    assert (event.message, event.code) == (body.decode(), "")


# Errors, wherever they stand


# fmt: off
TOLD = [
    # what is there                                                    its words     its code
    ({"error": {"message": "boom", "code": "rate_limited"}},            "boom",       "rate_limited"),
    ({"error": {"message": "boom", "code": 429}},                       "boom",       "429"),
    ({"error": {"message": "boom", "code": 429.0}},                     "boom",       "429"),
    ({"error": {"message": "boom", "code": " 429 "}},                   "boom",       "429"),
    ({"error": {"message": "boom", "status": 503}},                     "boom",       "503"),
    ({"error": {"message": "boom", "status": "503"}},                   "boom",       "503"),
    ({"error": {"message": "boom", "type": "insufficient_quota"}},      "boom",       "insufficient_quota"),
    ({"error": {"message": "boom", "code": None, "type": "quota"}},     "boom",       "quota"),
    ({"error": {"message": "boom", "code": True, "status": 0}},         "boom",       ""),
    ({"error": {"message": "boom", "type": "error"}},                   "boom",       ""),
    ({"error": {"message": "boom"}, "code": 402},                       "boom",       "402"),
    ({"error": {"message": "boom"}, "status": "401", "type": "error"},  "boom",       "401"),
    ({"error": {"description": "boom"}},                                "boom",       ""),
    ({"error": {"code": "overloaded"}},                                 "overloaded", "overloaded"),
    ({"error": {"x": 1}, "message": "boom"},                            "boom",       ""),
    ({"error": "something failed"},                                     "something failed", ""),
    ({"error": "rate_limited"},                                         "rate_limited", "rate_limited"),
    ({"error": "rate_limited", "error_description": "slow down"},       "slow down",  "rate_limited"),
    ({"error": "boom", "code": 429},                                    "boom",       "429"),
    ({"error": 429},                                                    "",           "429"),
    ({"error": True, "message": "boom"},                                "boom",       ""),
    ({"error": ["boom"], "detail": "bang"},                             "bang",       ""),
    ({"error": "boom", "message": {"content": "Hel"}},                  "boom",       "boom"),
    ({"type": "error", "message": "boom", "code": "x"},                 "boom",       "x"),
    ({"type": "error", "description": "boom"},                          "boom",       ""),
    ({"type": "error", "body": "boom"},                                 "boom",       ""),
    ({"type": "error", "error": {"type": "x", "message": "boom"}},      "boom",       "x"),
    ({"type": "error"},                                                 "",           ""),
    ({"type": "content", "body": "Hel", "error": "it broke"},           "it broke",   ""),
    ({"type": "complete", "error": {"message": "boom"}},                "boom",       ""),
    ({"type": "thinking", "error": {"message": "boom"}},                "boom",       "thinking"),
    ({"message": "boom", "status": "403"},                              "boom",       "403"),
    ({"message": "boom", "code": 500},                                  "boom",       "500"),
    ({"message": "boom", "documentation_url": "https://d"},             "boom",       ""),
    ({"type": "Error", "message": "boom"},                              "boom",       ""),
    ({"type": " ERROR ", "message": "boom"},                            "boom",       ""),
    ({"errors": [{"message": "boom", "code": "x"}]},                    "boom",       "x"),
    ({"errors": [{"message": "boom"}, {"message": "and more"}]},        "boom",       ""),
    ({"errors": ["boom"]},                                              "boom",       ""),
    ({"errors": {"message": "boom"}},                                   "boom",       ""),
    ({"message": "boom", "errors": [{"message": "why"}]},               "boom",       ""),
]
# fmt: on


@pytest.mark.parametrize(("value", "message", "code"), TOLD, ids=lambda value: str(value)[:60])
def test_an_error_is_read_wherever_it_stands(value: Dict[str, Any], message: str, code: str) -> None:
    """The same of it as an event, under ``event: error``, as a body of its own, and as the body of a bad status."""
    expected = ErrorEvent("error", value, message, code)
    text = json.dumps(value)
    assert protocol.decode(text) == expected
    assert protocol.read_error(text) == expected
    if message or code:
        assert protocol.read_document(text.encode()) == (expected,)
        assert protocol.server_words(Reply(500, {}, text.encode()), plain) == message


# fmt: off
NO_ERRORS = [
    {"type": "thinking", "error": None},
    {"type": "thinking", "error": ""},
    {"type": "thinking", "error": False},
    {"type": "thinking", "error": {}},
    {"type": "thinking", "message": "hm", "status": "500"},
    {"error": None, "step": 1},
    {"type": "thinking", "errors": [{"message": "hm"}]},
    {"errors": [], "step": 1},
    {"errors": None},
    {"message": "warming up", "status": "ok"},
    {"message": "warming up", "status": 200},
    {"message": "warming up"},
    {"message": {"text": "x"}, "status": "500"},
    {"status": "500"},
    {},
]
# fmt: on


@pytest.mark.parametrize("value", NO_ERRORS, ids=str)
def test_what_is_no_error_passes_on(value: Dict[str, Any]) -> None:
    """An event that is not known here is handed out as it is."""
    assert protocol.decode(json.dumps(value)) == UnknownEvent(value.get("type", ""), value)


@pytest.mark.parametrize("error", [None, "", False, {}, 0, []], ids=repr)
def test_an_error_that_is_empty_takes_nothing_from_an_event(error: Any) -> None:
    """Some services send the key in every event."""
    content = {"type": "content", "body": "x", "error": error}
    assert protocol.decode(json.dumps(content)) == ContentEvent("content", content, "x")
    complete = {"type": "complete", "id": "m", "error": error}
    assert isinstance(protocol.decode(json.dumps(complete)), CompleteEvent)


# fmt: off
WORDS = [
    ("upstream failed",                                  "upstream failed"),
    ('"upstream failed"',                                "upstream failed"),
    ("",                                                 ""),
    ("[1]",                                              "[1]"),
    ("null",                                             "null"),
    ("{half",                                            "{half"),
    ("<html><head><title>502 &amp; more</title></head>", "502 & more"),
    (" <p>no title",                                     ""),
]
# fmt: on


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_an_error_may_be_mere_words(text: str, words: str) -> None:
    """They are told as they are, and those of a web page by its title."""
    assert protocol.read_error(text) == ErrorEvent("error", {}, words, "")


# Events


def data_of(event: Optional[Event]) -> Any:
    assert event is not None
    return event.data


CAPTURED_END = (
    '{"type":"complete","id":"95bc","parentMessageID":"fc07","model":"","turnId":"",'
    '"createdAt":"2026-04-15T09:16:31.627141074Z","references":[],"role":"assistant","intent":"conversation",'
    '"usage":{"inputTokens":12,"outputTokens":2},"copilotAnnotations":{"CodeVulnerability":[]}}'
)


@pytest.mark.parametrize(
    "data, kind, fields",
    [
        ('{"type":"content","body":"Hel"}', ContentEvent, {"body": "Hel"}),
        (' {"type":"content","body":" "} ', ContentEvent, {"body": " "}),
        ('{"type":"content","body":"\\ud83c\\udf89 \\ud800"}', ContentEvent, {"body": "🎉 \ufffd"}),
        ('{"type":"content","body":"a\tb\x00"}', ContentEvent, {"body": "a\tb\x00"}),
        ('{"body":"first","type":"content","body":"last"}', ContentEvent, {"body": "last"}),
        (
            CAPTURED_END,
            CompleteEvent,
            {"id": "95bc", "model": "", "usage": Usage(12, 2), "annotations": {"CodeVulnerability": []}},
        ),
        ('{"type":"complete"}', CompleteEvent, {"id": None, "model": "", "usage": None, "annotations": {}}),
        (
            '{"type":"complete","id":7,"model":null,"usage":[],"copilotAnnotations":"x"}',
            CompleteEvent,
            {"id": None, "model": "", "usage": None, "annotations": {}},
        ),
        (
            '{"type":"complete","id":"","model":"o1","usage":{}}',
            CompleteEvent,
            {"id": None, "model": "o1", "usage": Usage()},
        ),
        ('{"type":"complete","id":"m\\ud800"}', CompleteEvent, {"id": "m\ufffd"}),
        ('{"type":"complete","usage":{"inputTokens":true,"outputTokens":"2"}}', CompleteEvent, {"usage": Usage()}),
        ('{"type":"complete","usage":{"inputTokens":NaN,"outputTokens":1e9}}', CompleteEvent, {"usage": Usage()}),
        ('{"type":"complete","usage":{"inputTokens":' + "9" * 300 + "}}", CompleteEvent, {"usage": Usage(10**300 - 1)}),
        ('{"type":"routedModel","model":"mai-code"}', RoutedModelEvent, {"type": "routedModel", "model": "mai-code"}),
        (
            '{"type":"threadAutoPickedModel","model":"o1"}',
            RoutedModelEvent,
            {"type": "threadAutoPickedModel", "model": "o1"},
        ),
        ('{"type":"routedModel"}', RoutedModelEvent, {"model": ""}),
        ('{"type":"annotations","copilotAnnotations":{"a":[]}}', AnnotationsEvent, {"annotations": {"a": []}}),
        ('{"type":"annotations","annotations":{"a":[]}}', AnnotationsEvent, {"annotations": {"a": []}}),
        ('{"type":"annotations","annotations":[1]}', AnnotationsEvent, {"annotations": {}}),
        ('{"type":"annotations"}', AnnotationsEvent, {"annotations": {}}),
        ('{"type":"error","message":"m","code":"c"}', ErrorEvent, {"message": "m", "code": "c"}),
        ('{"type":"error","description":"d","status":503}', ErrorEvent, {"message": "d", "code": "503"}),
        ('{"type":"error","message":"","description":"d"}', ErrorEvent, {"message": "d", "code": ""}),
        ('{"type":"error","error":{"message":"m","code":429}}', ErrorEvent, {"message": "m", "code": "429"}),
        ('{"type":"error","error":"m n"}', ErrorEvent, {"message": "m n", "code": ""}),
        ('{"type":"error","body":"m","code":null}', ErrorEvent, {"message": "m", "code": ""}),
        ('{"type":"error","message":["m"],"code":{}}', ErrorEvent, {"message": "", "code": ""}),
        ('{"type":"error"}', ErrorEvent, {"message": "", "code": ""}),
        ('{"type":"telemetry","n":NaN}', UnknownEvent, {"type": "telemetry"}),
        ('{"type":"t\\ud800"}', UnknownEvent, {"type": "t\ufffd"}),
        ('{"type":"Content","body":"x"}', UnknownEvent, {"type": "Content"}),
        ('{"type":7}', UnknownEvent, {"type": ""}),
        ('{"type":["content"]}', UnknownEvent, {"type": ""}),
        ('{"type":null}', UnknownEvent, {"type": ""}),
        ("{}", UnknownEvent, {"type": "", "data": {}}),
    ],
    ids=lambda value: ascii(value)[:60] if isinstance(value, str) else "",
)
def test_an_event_is_read(data: str, kind: Type[Event], fields: Dict[str, Any]) -> None:
    """A missing or odd field never fails; what is not known is passed on; the object stays as it came."""
    event = protocol.decode(data)
    assert type(event) is kind
    assert {name: getattr(event, name) for name in fields} == fields
    assert repr(data_of(event)) == repr(json.loads(data, strict=False))


@pytest.mark.parametrize(
    "data", ['{"type":"content"}', '{"type":"content","body":null}', '{"type":"content","body":""}']
)
def test_a_piece_without_text_is_no_event(data: str) -> None:
    """So that a content event is never empty."""
    assert protocol.decode(data) is None


@pytest.mark.parametrize("data", ["[DONE]", " [DONE] "])
def test_the_end_marker_is_one_event(data: str) -> None:
    """It ends the stream without saying anything about the answer."""
    assert protocol.decode(data) is protocol.DONE


@pytest.mark.parametrize("data", ["", " \n"], ids=ascii)
def test_an_event_without_data_is_nothing(data: str) -> None:
    """It keeps a connection alive, and nothing can be missing from it."""
    assert protocol.decode(data) is None


@pytest.mark.parametrize(
    "data",
    [
        "Hel",
        '{"type":"content","body":"Hel"',
        '{"type":"content","body":"Hel"}{"type":"content"}',
        '{"type":"content","body":"Hel"} [DONE]',
        "[done]",
        "[]",
        "[{}]",
        "null",
        "5",
        '"content"',
        "NaN",
        '{"type":"content","body":5}',
        '{"type":"content","body":0}',
        '{"type":"content","body":false}',
        '{"type":"content","body":[]}',
        '{"type":"content","body":{"text":"Hel"}}',
        '{"type":"content","body":NaN}',
        '{"a":' * 100_000,
        "[" * 100_000,
    ],
    ids=lambda data: ascii(data[:45]),
)
def test_what_is_no_event_is_a_protocol_error(data: str) -> None:
    """The stream skips it with a warning, which must not quote what came."""
    with pytest.raises(ProtocolError) as caught:
        protocol.decode(data)
    assert caught.value.stage == "stream"
    assert "Hel" not in str(caught.value)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("plain", "plain"),
        ("Grüße 🎉", "Grüße 🎉"),
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("\udf89\ud83c", "\ufffd\ufffd"),
        ("\ud83c\udf89", "🎉"),
    ],
    ids=ascii,
)
def test_a_lone_surrogate_is_replaced(text: str, expected: str) -> None:
    """No file, terminal or socket takes one; two halves that belong together become the character they are."""
    assert protocol.well_formed(text) == expected


# Errors by status


MESSAGE = ask(thread_id="t/1")
THREAD = protocol.thread_request(URLS)
TOKEN = protocol.token_request(URLS)


def failure(status: int, request: Request = MESSAGE, body: bytes = b"", **headers: str) -> CopilotError:
    reply = Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
    error = protocol.error_of_status(request, reply, now=NOW, mask=plain)
    assert error is not None
    return error


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_success_is_no_error(status: int) -> None:
    """Any status of the two hundreds; the body is not looked at."""
    assert protocol.error_of_status(MESSAGE, Reply(status, {}, b"garbage"), now=NOW, mask=plain) is None


@pytest.mark.parametrize(
    "status, kind, words",
    [
        (400, InvalidRequestError, "the service found the request wrong"),
        (401, AuthenticationError, "the token was refused: sign in again, or give another api_key"),
        (402, QuotaExceededError, "the account's quota is used up"),
        (403, AuthenticationError, "a policy may not allow Copilot Chat"),
        (404, NotFoundError, "there is no conversation 't/1'"),
        (405, InvalidRequestError, "the service refused the request"),
        (407, NetworkError, "the proxy wants a user name and a password"),
        (408, ServerError, "the service gave up waiting for the request"),
        (409, ServerError, "the service asks to try again"),
        (413, InvalidRequestError, "the request is too large for the service"),
        (418, InvalidRequestError, "the service refused the request"),
        (421, WrongHostError, "set api_url (or COPILOT_SYNC_API_URL) to https://api.business.githubcopilot.com"),
        (422, InvalidRequestError, "the service found the request wrong"),
        (424, ServerError, "something that the service depends on failed"),
        (425, ServerError, "the service asks to try again"),
        (429, RateLimitError, "too many requests: slow down"),
        (451, InvalidRequestError, "the service refused the request"),
        (466, InvalidRequestError, "too old: upgrade copilot-sync"),
        (499, ServerError, "the service cancelled the request"),
        (500, ServerError, "the service failed"),
        (501, ServerError, "the service failed"),
        (502, ServerError, "the service failed"),
        (503, ServerError, "the service failed"),
        (504, ServerError, "the service failed"),
        (520, ServerError, "the service failed"),
        (599, ServerError, "the service failed"),
        (101, ProtocolError, "the reply has a status that means nothing here"),
        (600, ProtocolError, "the reply has a status that means nothing here"),
        (999, ProtocolError, "the reply has a status that means nothing here"),
        (0, ProtocolError, "the reply has a status that means nothing here"),
        (-1, ProtocolError, "the reply has a status that means nothing here"),
    ],
)
def test_a_status_becomes_the_error_it_means(status: int, kind: Type[CopilotError], words: str) -> None:
    """One class for each thing that a caller can do about it, with the facts of where it happened."""
    error = failure(status, body=b'{"message":"because"}', x_github_request_id="A1:B2")
    assert type(error) is kind
    assert words in str(error)
    assert "(the server said: because)" in str(error)
    assert (error.stage, error.status, error.request_id) == ("message", status, "A1:B2")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_token_that_is_not_given_means_that_the_cookies_are_not_valid(status: int) -> None:
    """The service answers stale cookies in many ways; the error says what to renew."""
    error = failure(status, TOKEN, b"nope")
    assert type(error) is AuthenticationError
    assert "github.com refused the cookies: sign in again and renew user_session" in str(error)
    assert "(the server said: nope)" in str(error)
    assert (error.stage, error.status) == ("token", status)


#: What github.com says instead of a token, whether signing in again is the advice, and the words that are told.
REFUSALS = [
    (
        b'{"token": null, "error_details": {"message": "No access to GitHub Copilot found"}}',
        False,
        "No access to GitHub",
    ),
    (b'{"message": "Resource protected by organization SAML enforcement. You must grant"}', False, "SAML enforcement"),
    (
        b'{"message": "x", "error_details": {"title": "Sign up", "message": "You have no seat"}}',
        False,
        "You have no seat",
    ),
    (b'{"error_details": "Contact your administrator"}', False, "Contact your administrator"),
    (b'{"token": "", "reason": "The trial is over"}', False, "The trial is over"),
    (b'{"error": {}, "message": "Copilot is disabled by a policy"}', False, "disabled by a policy"),
    (b"Access to this page is blocked by your company", False, "blocked by your company"),
    (b'{"message": "Requires authentication"}', True, "Requires authentication"),
    (b'{"message": "Bad credentials"}', True, "Bad credentials"),
    (b'{"message": "Not Found"}', True, "Not Found"),
    (b'\xef\xbb\xbf{"message": "You must be signed in to do this"}', True, "You must be signed in"),
    (b"<html><title>Sign in to GitHub</title>", True, "Sign in to GitHub"),
    (b"You are not logged in", True, "You are not logged in"),
]


@pytest.mark.parametrize("status", [200, 403, 404])
@pytest.mark.parametrize("body, signs_in, words", REFUSALS, ids=lambda value: ascii(value)[:40])
def test_the_reason_for_no_token_is_told(body: bytes, signs_in: bool, words: str, status: int) -> None:
    """In the service's words, under any status; to sign in again is advised only if that may mend it."""
    reply = Reply(status, {"content-type": "text/html"}, body)
    if status == 200:
        with pytest.raises(AuthenticationError) as caught:
            protocol.read_token(reply, NOW, plain)
        error: Any = caught.value
    else:
        error = protocol.error_of_status(TOKEN, reply, now=NOW, mask=plain)
    assert type(error) is AuthenticationError
    assert (error.stage, error.status) == ("token", status)
    assert words in str(error)
    assert ("sign in again" in str(error)) is signs_in


@pytest.mark.parametrize("body", [b'["planted"]', b'"planted"', b"planted", b"{}"])
def test_what_may_be_a_token_in_another_form_is_not_told(body: bytes) -> None:
    """A reply of success without spaces is no sentence."""
    with pytest.raises(AuthenticationError, match="sign in again") as caught:
        protocol.read_token(Reply(200, {}, body), NOW, plain)
    assert "planted" not in str(caught.value)


def test_a_secret_is_masked_in_the_reason() -> None:
    """The service may say back what it was sent."""
    body = b'{"message": "the session planted-secret is over"}'
    with pytest.raises(AuthenticationError, match=r"the session \*\*\* is over") as caught:
        protocol.read_token(Reply(200, {}, body), NOW, lambda text: text.replace("planted-secret", "***"))
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "status, kind", [(400, InvalidRequestError), (402, QuotaExceededError), (429, RateLimitError), (500, ServerError)]
)
def test_the_cookies_are_not_blamed_for_everything(status: int, kind: Type[CopilotError]) -> None:
    """A failure of the service while it makes a token is one of the service."""
    assert type(failure(status, TOKEN)) is kind


@pytest.mark.parametrize("request_", [THREAD, protocol.models_request(URLS)], ids=["thread", "models"])
def test_an_address_that_is_not_there_is_not_a_missing_conversation(request_: Request) -> None:
    """A wrong ``api_url`` answers 404 as well."""
    error = failure(404, request_)
    assert type(error) is NotFoundError
    assert "the service does not know this address" in str(error)


def test_a_proxy_that_wants_a_password_has_not_sent_anything() -> None:
    """So that the message is known not to have been taken."""
    error = failure(407)
    assert isinstance(error, NetworkError)
    assert error.may_have_been_sent is False


@pytest.mark.parametrize(
    "headers, request_id",
    [
        ({"x-github-request-id": "A1:B2", "x-request-id": "other"}, "A1:B2"),
        ({"x-request-id": "7f"}, "7f"),
        ({"x-github-request-id": "", "x-request-id": "7f"}, "7f"),
        ({"x-github-request-id": " a\tb\x7f "}, "a b"),
        ({"x-request-id": "planted"}, "***"),
        ({}, None),
    ],
    ids=ascii,
)
def test_the_servers_name_for_a_request_is_kept(headers: Dict[str, str], request_id: Optional[str]) -> None:
    """Its support asks for it; a server that echoes the token there does not get it into our error."""
    reply = Reply(500, headers)
    error = protocol.error_of_status(MESSAGE, reply, now=NOW, mask=lambda text: text.replace("planted", "***"))
    assert error is not None
    assert error.request_id == request_id


# Redirects


@pytest.mark.parametrize(
    "location",
    [
        "https://github.com/login?return_to=%2Fcopilot",
        "/login",
        "login",
        "https://github.com/login/oauth/authorize",
        "https://github.com/session",
        "https://github.com/sessions/two-factor",
        "https://github.com/orgs/octo/sso?authorization_request=x",
        "https://github.com/enterprises/octo/saml/initiate",
        "https://idp.example/Sign_In",
        "https://idp.example/sign-in.html",
        "https://idp.example/signin",
        "https://login.microsoftonline.com/tenant/saml2",
        "https://sso.company.example/start",
    ],
)
@pytest.mark.parametrize("request_", [TOKEN, THREAD, MESSAGE], ids=["token", "thread", "message"])
def test_a_redirect_to_a_login_page_means_that_the_credentials_are_not_valid(location: str, request_: Request) -> None:
    """Redirects are never followed; this one says what is wrong."""
    error = failure(302, request_, location=location)
    assert type(error) is AuthenticationError
    assert "sent the request to its login page" in str(error)
    assert (error.stage, error.status) == (request_.stage, 302)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
@pytest.mark.parametrize(
    "location, place",
    [
        ("https://elsewhere.example/a?token=planted", "elsewhere.example/a"),
        ("https://me:planted@elsewhere.example/a", "elsewhere.example/a"),
        ("https://elsewhere.example/planted/a", "elsewhere.example/***/a"),
        ("/blogin/loginfo", "/blogin/loginfo"),
        ("http://[::1", "nowhere"),
        ("?a=b", "nowhere"),
        ("", "nowhere"),
    ],
)
def test_any_other_redirect_is_a_protocol_error(status: int, location: str, place: str) -> None:
    """It names the place, without passwords and queries, and is not followed."""
    reply = Reply(status, {"location": location})
    error = protocol.error_of_status(MESSAGE, reply, now=NOW, mask=lambda text: text.replace("planted", "***"))
    assert type(error) is ProtocolError
    assert f"the reply redirects to {place}, and redirects are not followed" in str(error)
    assert "planted" not in str(error)


# Waiting


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "999999999"}, 999999999.0),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": "Saturday, 27-Jun-26 13:16:06 GMT"}, 60.0),
        ({"retry-after": "Sat, 27 Jun 2026 13:16:06 -0000"}, 60.0),
        ({"retry-after": "Sat Jun 27 13:16:06 2026"}, 60.0),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"retry-after": "5", "x-ratelimit-reset": str(int(NOW + 50))}, 5.0),
        ({"x-ratelimit-reset": str(int(NOW + 50))}, 50.0),
        ({"x-ratelimit-reset": f"{NOW + 50.5}"}, 50.5),
        ({"x-ratelimit-reset": "0"}, 0.0),
        ({"retry-after": "soon", "x-ratelimit-reset": str(int(NOW + 50))}, 50.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Sat, 99 Jun 2026 13:16:06 GMT"}, None),
        ({"retry-after": "Sat, 27 Jun 99999999999 13:16:06 GMT"}, None),
        ({"retry-after": "Sat, 27 Jun 2026 13:16:06 +99999999"}, None),
        ({"retry-after": ""}, None),
        ({"x-ratelimit-user-retry-after": "465000"}, 465000.0),
        ({"x-ratelimit-quota-exceeded-retry-after": "465000"}, 465000.0),
        (
            {"x-ratelimit-quota-exceeded-retry-after": "9", "x-ratelimit-user-retry-after": "8", "retry-after": "7"},
            7.0,
        ),
        ({"x-ratelimit-quota-exceeded-retry-after": "9", "x-ratelimit-user-retry-after": "8"}, 8.0),
        ({"x-ratelimit-user-retry-after": "8", "x-ratelimit-reset": str(int(NOW + 50))}, 8.0),
        ({"retry-after": "-1", "x-ratelimit-user-retry-after": "8"}, 8.0),
        ({"retry-after": "-1", "x-ratelimit-user-retry-after": "soon"}, None),
        ({"x-ratelimit-reset": str(int(NOW - 50))}, 0.0),
        ({"x-ratelimit-reset": "tomorrow"}, None),
        ({"x-ratelimit-reset": "-5"}, None),
        ({"x-ratelimit-reset": "9" * 13}, None),
        ({}, None),
    ],
    ids=ascii,
)
def test_the_server_says_how_long_to_wait(headers: Dict[str, str], seconds: Optional[float]) -> None:
    """In seconds or as a date, else as an epoch; what can't be read is no word, and the past is now."""
    assert protocol.retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    "headers", [{"retry-after": formatdate(NOW + 90, usegmt=True)}, {"x-ratelimit-reset": str(int(NOW + 90))}]
)
@pytest.mark.parametrize("here", [NOW - 86400, NOW + 86400], ids=["slow", "fast"])
def test_a_moment_is_told_by_the_servers_clock(headers: Dict[str, str], here: float) -> None:
    """A clock that is wrong here neither skips the wait nor makes it a day."""
    assert protocol.retry_after({"date": formatdate(NOW, usegmt=True), **headers}, here) == 90.0


@pytest.mark.parametrize(
    "status, seconds",
    [(429, 7.0), (503, 7.0), (402, 7.0), (403, 7.0), (500, None), (502, None), (409, None)],
)
def test_only_limits_and_503_say_how_long_to_wait(status: int, seconds: Optional[float]) -> None:
    """Elsewhere the header means nothing to a retry; for 503 it tells that the message was not taken."""
    error = failure(status, retry_after="7")
    assert isinstance(error, (RateLimitError, ServerError))
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    "headers, not_processed",
    [
        ({"retry-after": "7"}, True),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, True),
        ({"retry-after": "soon"}, False),
        ({"x-ratelimit-reset": "1"}, False),
        ({}, False),
    ],
    ids=repr,
)
def test_only_the_server_s_own_word_says_that_nothing_was_taken(headers: Dict[str, str], not_processed: bool) -> None:
    """Many replies tell when a limit is reset, whatever became of the request."""
    error = failure(503, **headers)
    assert isinstance(error, ServerError)
    assert error.not_processed is not_processed


# Limits


LIMITED: List[Tuple[int, Dict[str, str], bytes]] = [
    (429, {}, b""),
    (429, {}, b'{"error":{"code":"rate_limited","message":"Sorry, you have been rate-limited."}}'),
    (429, {}, b'{"code":"user_global_rate_limited"}'),
    (429, {}, b'{"error":{"code":"weakly_typed","message":"try the month view"}}'),
    (429, {}, b'{"message":"Quota exceeded for requests per minute"}'),
    (403, {"retry-after": "0"}, b""),
    (403, {"retry-after": "soon"}, b""),
    (403, {"x-ratelimit-remaining": "0"}, b""),
    (403, {"x-ratelimit-remaining": "-1"}, b""),
    (403, {"x-ratelimit-user-retry-after": "9"}, b""),
    (403, {"x-ratelimit-quota-exceeded-retry-after": "9"}, b""),
    (403, {}, b'{"errors":[{"message":"secondary rate limit"}]}'),
    (403, {}, b'{"message":"You have exceeded a secondary rate limit. Please wait a few minutes."}'),
    (403, {}, b"You have triggered an abuse detection mechanism."),
    (403, {}, b"<title>Too Many Requests</title>"),
    (403, {}, b'{"message":"API rate limit exceeded for user ID 1."}'),
    (403, {}, b'{"error":"rate_limited"}'),
    (400, {}, b'{"error":{"type":"RateLimitError","code":"RateLimitReached"}}'),
    (503, {}, b'{"errors":[{"code":"too_many_requests"}]}'),
]


@pytest.mark.parametrize("request_", [TOKEN, THREAD, MESSAGE], ids=["token", "thread", "message"])
@pytest.mark.parametrize(("status", "headers", "body"), LIMITED, ids=str)
def test_a_rate_limit_is_one_whatever_its_shape(
    request_: Request, status: int, headers: Dict[str, str], body: bytes
) -> None:
    """Codes, headers and words count for more than the status, at every stage."""
    error = protocol.error_of_status(request_, Reply(status, headers, body), now=NOW, mask=plain, proven=True)
    assert type(error) is RateLimitError
    assert "too many requests: slow down" in str(error)


USED_UP: List[Tuple[int, bytes]] = [
    (402, b""),
    (402, b'{"error":{"code":"rate_limited"}}'),
    (429, b'{"error":{"code":"quota_exceeded","message":"You have exceeded your quota"}}'),
    (429, b'{"error":{"code":"user_weekly_rate_limited"}}'),
    (429, b'{"code":"userMonthlyRateLimited"}'),
    (429, b'{"error":{"type":"insufficient_quota","code":null}}'),
    (429, b'{"error_code":"WEEKLY-LIMIT"}'),
    (429, b'{"error":{"code":"free_quota_exceeded","type":"rate_limited"}}'),
    (429, b'{"error":"monthly_limit_reached"}'),
    (429, b'"quota_exceeded"'),
    (429, b"quota exceeded"),
    (429, b'{"message":"You\'ve reached your monthly chat messages limit."}'),
    (429, b'{"message":"limit of this week reached"}'),
    (429, b'{"error":{"code":"usage_limit_reached"}}'),
    (403, b'{"error":{"code":"quota_exceeded"}}'),
    (403, b'{"message":"You have exceeded your monthly quota"}'),
    (403, b'{"error":{"reason":"billing_hard_limit_reached"}}'),
    (400, b'{"error":{"code":"insufficient_credits"}}'),
    (503, b'{"errors":[{"type":"month"}]}'),
]


@pytest.mark.parametrize(("status", "body"), USED_UP, ids=str)
def test_what_is_used_up_for_long_is_no_mere_rate_limit(status: int, body: bytes) -> None:
    """A quota, a week, a month: waiting a moment does not help, so it is final, and how long it will be is kept."""
    error = failure(status, MESSAGE, body, retry_after="465000")
    assert type(error) is QuotaExceededError
    assert error.retry_after == 465000.0
    assert "the account's quota is used up, not before 2026-07-02 22:" in str(error)


@pytest.mark.parametrize("seconds", ["7", "59", "999999999999999999"])
def test_only_a_wait_that_means_something_is_told_by_the_clock(seconds: str) -> None:
    """Neither a moment nor the end of time."""
    assert "not before" not in str(failure(402, retry_after=seconds))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({"x-ratelimit-remaining": "10"}, b"policy"),
        ({"x-ratelimit-reset": "1"}, b'{"message":"Your organization has disabled this model"}'),
        ({}, b'{"error":{"code":"corporate_limit","message":"weak months"}}'),
        ({}, b'{"error":{"code":"quotation_forbidden"}}'),
        ({}, b'{"type":7,"errors":"x","code":["quota"],"reason":"' + b"quota" * 20 + b'"}'),
    ],
    ids=str,
)
def test_a_plain_403_is_no_limit(headers: Dict[str, str], body: bytes) -> None:
    """Of a message, it is the message's own where the credentials were accepted before; else they are refused."""
    reply = Reply(403, headers, body)
    for request_, proven, kind in (
        (MESSAGE, False, AuthenticationError),
        (MESSAGE, True, PermissionDeniedError),
        (THREAD, True, AuthenticationError),
        (TOKEN, True, AuthenticationError),
    ):
        error = protocol.error_of_status(request_, reply, now=NOW, mask=plain, proven=proven)
        assert type(error) is kind


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("code", ["content_filter", "ContentFilterError", "responsible_ai_policy_violation"])
def test_a_filtered_message_is_told_as_one(status: int, code: str) -> None:
    """It is no mistake of the program."""
    error = failure(status, body=json.dumps({"error": {"code": code, "message": "no"}}).encode())
    assert type(error) is InvalidRequestError
    assert "the service's content filter refused the message (the server said: no)" in str(error)


# The server's words


@pytest.mark.parametrize(
    "body, words",
    [
        (b'{"message":"Bad credentials","documentation_url":"https://docs","status":"401"}', "Bad credentials"),
        (b'{"error":{"message":"no such model","code":"model_not_supported"}}', "no such model"),
        (b'{"error":{"code":"model_not_supported"}}', "model_not_supported"),
        (b'{"error":{}}', ""),
        (b'{"error":"unauthorized"}', "unauthorized"),
        (b'{"error":"invalid_grant","message":"The grant"}', "The grant"),
        (b'{"error_description":"The grant"}', "The grant"),
        (b'{"message":["x"],"error":7}', ""),
        (b'{"other":"x"}', ""),
        (b'\xef\xbb\xbf{"message":"Bad"}', "Bad"),
        (b'{"message":"a\\u0000b\\u001b[31mc\\r\\nd\\u202ee\\ud800"}', "a b [31mc d e\ufffd"),
        (b'["not", "an object"]', '["not", "an object"]'),
        (b'"quoted"', "quoted"),
        (b"upstream connect error\n  reset\x00", "upstream connect error reset"),
        (b'{"message":"cut', '{"message":"cut'),
        (b"\xff\xfeoops", "\ufffd\ufffdoops"),
        (b"[" * 3000, "[" * 499 + "…"),
        (b"<html><head><TITLE lang=en>502 &amp; Bad\nGateway</TITLE></head><p>Not this", "502 & Bad Gateway"),
        (b"<title>Cut in the middle", "Cut in the middle"),
        (b"<html><titles>Not this</titles>", ""),
        (b"<html>Nothing to quote", ""),
        (b"<![bogus[<title>Odd</title>", "Odd"),
        (b"<title" * 20_000, ""),
        (b"<title>" * 20_000, ""),
        (b"x" * 500, "x" * 500),
        (b"x" * 501, "x" * 499 + "…"),
        (b"", ""),
        (b" \n", ""),
    ],
    ids=lambda value: ascii(value[:40]),
)
def test_the_servers_words_are_one_printable_line(body: bytes, words: str) -> None:
    """JSON of three forms, text, or a page's title; control characters out; at most 500 characters."""
    assert protocol.server_words(Reply(500, {}, body), plain) == words
    assert (f"(the server said: {words})" in str(failure(500, body=body))) is bool(words)


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/html; charset=utf-8", "text/plain", "image/png", ""]
)
def test_the_servers_words_are_read_under_any_content_type(content_type: str) -> None:
    """Gateways label JSON as HTML and the other way round; the status is never hidden."""
    reply = Reply(403, {"content-type": content_type}, b'{"message":"policy"}')
    assert protocol.server_words(reply, plain) == "policy"


@pytest.mark.parametrize(
    "body, words",
    [
        (
            b"upstream connect error or disconnect/reset before headers",
            "upstream connect error or disconnect/reset before",
        ),
        (b"expected a < b but got <nothing>", "expected a < b but got <nothing>"),
        (b"<p>Sorry", ""),
        (b"Error <br> again", ""),
    ],
)
def test_a_label_of_html_does_not_hide_plain_words(body: bytes, words: str) -> None:
    """Gateways put it on whatever they say; only a page's tags are not quoted."""
    said = protocol.server_words(Reply(503, {"content-type": "text/html; charset=UTF-8"}, body), plain)
    assert said.startswith(words)
    assert bool(said) is bool(words)


@pytest.mark.parametrize("content_type", ["text/html", "text/plain"])
def test_a_page_is_known_by_its_tags(content_type: str) -> None:
    """Text before the first one does not make a page quotable, and a label does not make words a page."""
    headers = {"content-type": content_type}
    page = Reply(502, headers, b"\xef\xbb\xbf\n(gateway) <html><title>Bad Gateway</title>")
    assert protocol.server_words(page, plain) == "Bad Gateway"
    assert protocol.server_words(Reply(403, headers, b"No seat: a < b"), plain) == "No seat: a < b"


@pytest.mark.parametrize("before", [0, 480, 495, 505, 1990, 5000])
@pytest.mark.parametrize("body", [b"%s", b'{"message":"%s"}', b"<title>%s</title>"], ids=["text", "json", "title"])
def test_a_secret_is_masked_before_the_words_are_cut(body: bytes, before: int) -> None:
    """A cut through the middle of an echoed token must not leave its first half behind."""
    reply = Reply(500, {}, body % (b"x" * before + b"planted-secret"))
    words = protocol.server_words(reply, lambda text: text.replace("planted-secret", "***"))
    assert "plan" not in words
    assert words.startswith("x" * min(before, 499))
    assert len(words) <= 500


# Errors in a stream


@pytest.mark.parametrize(
    "code, kind",
    [
        ("", ServerError),
        ("400", InvalidRequestError),
        ("401", AuthenticationError),
        ("402", QuotaExceededError),
        ("403", AuthenticationError),
        ("404", NotFoundError),
        ("421", WrongHostError),
        ("422", InvalidRequestError),
        ("429", RateLimitError),
        ("500", ServerError),
        ("503", ServerError),
        ("418", ServerError),
        ("999", ServerError),
        ("4290", ServerError),
        ("²²²", ServerError),
        ("٤٢٩", ServerError),
        ("9" * 5000, ServerError),
        ("internal_error", ServerError),
        ("rate_limited", RateLimitError),
        ("RateLimitExceeded", RateLimitError),
        ("too_many_requests", RateLimitError),
        ("quota_exceeded", QuotaExceededError),
        ("insufficient-quota", QuotaExceededError),
        ("user_weekly_rate_limited", QuotaExceededError),
        ("monthlyLimitReached", QuotaExceededError),
        ("weakly_limited", ServerError),
        ("content_filter", InvalidRequestError),
        ("unauthorized", AuthenticationError),
        ("FORBIDDEN", AuthenticationError),
        ("thread_not_found", NotFoundError),
        ("model_not_supported", InvalidRequestError),
        ("bad_request", InvalidRequestError),
        ("invalid_request_body", InvalidRequestError),
    ],
    ids=lambda value: ascii(value[:30]) if isinstance(value, str) else "",
)
def test_an_error_event_is_the_error_its_code_says(code: str, kind: Type[CopilotError]) -> None:
    """A ``ServerError`` where it says nothing that is known; it has no status, for the reply had one of success."""
    event = ErrorEvent("error", {}, "it broke", code)
    error = protocol.error_of_event(event, plain)
    assert type(error) is kind
    assert error.args == ("the service failed in the middle of the answer (the server said: it broke)",)
    assert (error.stage, error.status) == ("stream", None)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"error": {"type": "insufficient_quota"}}, QuotaExceededError),
        ({"type": "error", "error": {"type": "rate_limit_error"}}, RateLimitError),
        ({"error": "user_weekly_rate_limited"}, QuotaExceededError),
        ({"type": "error", "message": "quota"}, ServerError),
    ],
    ids=str,
)
def test_an_error_event_may_say_its_code_in_other_places(data: Dict[str, Any], kind: Type[CopilotError]) -> None:
    """As a refusal may; a status that stands beside it says less."""
    assert type(protocol.error_of_event(ErrorEvent("error", data, "it broke", ""), plain)) is kind
    expected = RateLimitError if kind is ServerError else kind
    assert type(protocol.error_of_event(ErrorEvent("error", data, "it broke", "429"), plain)) is expected


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": "You have exceeded your monthly quota"}, QuotaExceededError),
        ({"error": {"code": 429, "message": "You have reached your monthly limit"}}, QuotaExceededError),
        ({"error": {"message": "too many requests"}}, RateLimitError),
        ({"error": {"code": "invalid", "message": "too many requests"}}, InvalidRequestError),
    ],
    ids=str,
)
def test_the_words_of_an_error_event_tell_a_limit_as_those_of_a_reply_do(
    event: Dict[str, Any], kind: Type[CopilotError]
) -> None:
    """Where there is no code that says something else."""
    assert type(protocol.error_of_event(protocol.read_error(json.dumps(event)), plain)) is kind


@pytest.mark.parametrize(
    "message, words",
    [
        ("", ""),
        ("a\x00b\nc", " (the server said: a b c)"),
        ("x" * 495 + "planted-secret", " (the server said: " + "x" * 495 + "***)"),
        ("x" * 9999, " (the server said: " + "x" * 499 + "…)"),
    ],
    ids=["none", "control", "secret", "long"],
)
def test_the_words_of_an_error_event_are_tamed_like_any_others(message: str, words: str) -> None:
    """One printable line, masked before it is cut."""
    event = ErrorEvent("error", {}, message, "")
    error = protocol.error_of_event(event, lambda text: text.replace("planted-secret", "***"))
    assert error.args == ("the service failed in the middle of the answer" + words,)


# Whatever comes


#: Characters, and halves of characters, which JSON may hold.
CHARACTERS = st.characters() | st.integers(0xD800, 0xDFFF).map(chr)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(CHARACTERS, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = """
    type body id model usage inputTokens copilotAnnotations annotations message description error code status
    thread thread_id threads messages data token expiration role content parentMessageID interrupted
"""
TYPES = "content complete routedModel annotations error other"
KNOWN_FIELDS = st.sampled_from(FIELDS.split())
KNOWN_TYPES = st.sampled_from(TYPES.split())
OBJECTS = st.dictionaries(
    KNOWN_FIELDS, JSON_VALUES | KNOWN_TYPES | st.dictionaries(KNOWN_FIELDS, JSON_VALUES, max_size=3), max_size=5
)
BODIES = st.binary(max_size=60) | (OBJECTS | JSON_VALUES).map(lambda value: json.dumps(value).encode())
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "content-type",
            "location",
            "retry-after",
            "x-ratelimit-reset",
            "x-ratelimit-remaining",
            "date",
            "x-request-id",
        ]
    ),
    st.text(st.characters(max_codepoint=255), max_size=30)
    | st.sampled_from(
        ["text/html", "application/json", "https://[a", "//a/login", "30", "Sat, 27 Jun 2026 25:15:06 +9"]
    ),
)
READERS: List[Callable[[Reply], Any]] = [
    lambda reply: protocol.read_token(reply, NOW),
    protocol.read_thread_id,
    protocol.read_threads,
    protocol.read_messages,
    protocol.read_models,
    lambda reply: protocol.read_document(reply.body),
    lambda reply: protocol.read_error(protocol.decoded(reply.body)),
    lambda reply: protocol.form_of(reply.body),
]


def sendable(value: Any) -> None:
    """A value holds no text that could not be sent or printed; what is kept as it came is left out."""
    shown = repr([value.body, value.type] if isinstance(value, ContentEvent) else value)
    shown.encode("utf-8")


@given(BODIES, HEADERS, st.sampled_from(READERS))
@example(b'{"token":"a","expiration":"9999-12-31T23:59:59-23:59"}', {}, READERS[0])
@example(b'{"thread_id":"\\ud800"}', {}, READERS[1])
@example(b'{"n":' + b"9" * 5000 + b"}", {}, READERS[2])
def test_reading_any_reply_raises_nothing_but_a_copilot_error(
    body: bytes, headers: Dict[str, str], read: Callable[[Reply], Any]
) -> None:
    """Servers, gateways and proxies send anything."""
    try:
        value = read(Reply(200, headers, body))
    except CopilotError as error:
        assert error.stage is not None
    else:
        sendable(value)


@given((OBJECTS | JSON_VALUES).map(json.dumps) | st.text(max_size=30))
@example('{"type":"content","n":' + "9" * 5000 + "}")
@example('{"type":"error","code":' + "9" * 4000 + "}")
@example('{"type":"other"}')
def test_decoding_any_event_raises_nothing_but_a_protocol_error(data: str) -> None:
    """The stream skips what it can't read; an error event becomes an error that travels."""
    try:
        event = protocol.decode(data)
    except ProtocolError:
        return
    assert not isinstance(event, ContentEvent) or (event.body and event.body.encode("utf-8"))
    if isinstance(event, ErrorEvent):
        str(pickle.loads(pickle.dumps(protocol.error_of_event(event, plain)))).encode("utf-8")


@given(st.integers(0, 999), BODIES, HEADERS, st.sampled_from([MESSAGE, THREAD, TOKEN]))
@example(200, b"", {}, TOKEN)
@example(500, b"", {}, TOKEN)
def test_any_failing_reply_becomes_one_printable_error(
    status: int, body: bytes, headers: Dict[str, str], request_: Request
) -> None:
    """Whatever the body and the headers hold, the status is told, in a line that a terminal takes."""
    error = protocol.error_of_status(request_, Reply(status, headers, body), now=NOW, mask=plain)
    assert (error is None) is (200 <= status < 300)
    if error is not None:
        assert error.status == status
        assert str(error).isprintable()
        assert len(str(error)) < 1200
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@given(
    st.text(st.characters(max_codepoint=255))
    | st.from_regex(r"\w{3}, \d+ Jun \d+ \d+:\d+:\d+ [+-]?\w+", fullmatch=True)
)
def test_any_header_is_a_wait_or_none(value: str) -> None:
    """A wait is a number of seconds that can be compared and slept."""
    for name in ("retry-after", "x-ratelimit-reset", "date"):
        seconds = protocol.retry_after({"retry-after": "Sat, 27 Jun 2026 13:16:06 GMT", name: value}, NOW)
        assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@given(st.text(CHARACTERS), st.text())
def test_well_formed_text_can_be_encoded_and_whole_text_is_left_alone(text: str, whole: str) -> None:
    """Only what no encoding takes is changed."""
    assert protocol.well_formed(text).encode("utf-8").decode("utf-8") == protocol.well_formed(text)
    assert protocol.well_formed(whole) == whole


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]) | JSON_VALUES, "content": JSON_VALUES})
    | JSON_VALUES,
    max_size=3,
)


@given(MESSAGES | JSON_VALUES)
@example([turn("user", "Hi")])
def test_any_messages_are_a_prompt_or_a_mistake_of_the_callers(messages: Any) -> None:
    """What comes out of reading arguments is text that can be sent, a ``TypeError`` or a ``ValueError``."""
    for read in (protocol.format_prompt, protocol.last_user_turn):
        try:
            prompt = read(messages)
        except (TypeError, ValueError) as error:
            assert str(error)
        else:
            assert prompt.strip()
            assert prompt.encode("utf-8")


@given(st.text(CHARACTERS))
@example(".")
@example("a")
def test_any_id_is_one_segment_or_refused(identifier: str) -> None:
    """No id opens another path."""
    try:
        quoted = protocol.segment(identifier)
    except ValueError:
        return
    assert quoted.isascii()
    assert quoted not in ("", ".", "..")
    assert not set("/?#\\ ") & set(quoted)


def test_brackets_in_texts_are_no_nesting() -> None:
    """An answer may be full of them, and a reply may have many side by side."""
    body = "[{" * 5000 + '\\" ]'
    event = protocol.decode(json.dumps({"type": "content", "body": body, "others": [[]] * 1000}))
    assert isinstance(event, ContentEvent) and event.body == body
    twice = "[" * 150 + "]" * 150
    assert protocol.decode(f'{{"type":"content","body":"x","one":{twice},"other":{twice}}}')


@pytest.mark.parametrize(
    "body",
    [{"thread": {"id": "other"}, "messages": []}, {"thread": None, "message": "boom"}, {"thread": None}],
    ids=["another conversation", "words", "nothing"],
)
def test_what_is_no_list_of_these_messages_is_not_an_empty_one(body: Dict[str, Any]) -> None:
    """An empty one would say that a message may be sent again."""
    with pytest.raises(ProtocolError):
        protocol.read_messages(Reply(200, {}, json.dumps(body).encode()), "mine")


@pytest.mark.parametrize(
    "body", [{"thread": {"id": "mine"}}, {"messages": None}, {"thread": {}, "messages": []}], ids=repr
)
def test_an_empty_list_of_messages_may_be_told_in_several_ways(body: Dict[str, Any]) -> None:
    """``null``, nothing, or a list without anything in it."""
    assert protocol.read_messages(Reply(200, {}, json.dumps(body).encode()), "mine") == []
