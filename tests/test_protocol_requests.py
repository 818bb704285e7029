"""What is sent: requests as values, ids as segments of a path, the options of a message."""

import json
import math
import re
from types import MappingProxyType
from typing import Any, Dict, Type

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wire import CHARACTERS, URLS, ask

from copilot_sync.protocol.requests import (
    MessageOptions,
    Request,
    delete_request,
    messages_request,
    models_request,
    quota_request,
    rename_request,
    segment,
    thread_request,
    threads_request,
    token_request,
)
from copilot_sync.settings import Urls

OTHER = Urls("https://ghe.example:8443/prefix", "https://api.example/copilot")
PAGE_HEADERS = {
    "Accept-Language": "en-US,en;q=0.5",
    "Origin": "https://github.com",
    "Referer": "https://github.com/copilot",
}
API_HEADERS = {"copilot-integration-id": "copilot-chat", "X-GitHub-Api-Version": "2025-05-01", **PAGE_HEADERS}
JSON = {"Content-Type": "application/json"}


def body_of(request: Request) -> Any:
    assert request.body is not None
    return json.loads(request.body.decode("utf-8"))


@pytest.mark.parametrize(
    "request_, stage, method, path, template, body, headers",
    [
        (
            token_request(URLS),
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
            thread_request(URLS),
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
        (
            quota_request(URLS),
            "quota",
            "GET",
            "https://github.com/github-copilot/chat/entitlement",
            "/github-copilot/chat/entitlement",
            None,
            {"GitHub-Verified-Fetch": "true", "X-Requested-With": "XMLHttpRequest", **JSON, **PAGE_HEADERS},
        ),
        (
            models_request(URLS),
            "models",
            "GET",
            "/github/chat/models",
            "/github/chat/models",
            None,
            API_HEADERS,
        ),
        (models_request(URLS, older=True), "models", "GET", "/models", "/models", None, API_HEADERS),
        (
            threads_request(URLS),
            "threads",
            "GET",
            "/github/chat/threads",
            "/github/chat/threads",
            None,
            API_HEADERS,
        ),
        (
            messages_request(URLS, "t1"),
            "messages",
            "GET",
            "/github/chat/threads/t1/messages",
            "/github/chat/threads/{id}/messages",
            None,
            API_HEADERS,
        ),
        (
            rename_request(URLS, "t1", "Über"),
            "rename",
            "PATCH",
            "/github/chat/threads/t1/name",
            "/github/chat/threads/{id}/name",
            {"name": "Über", "generate": False},
            {**JSON, **API_HEADERS},
        ),
        (
            rename_request(URLS, "t1", ""),
            "rename",
            "PATCH",
            "/github/chat/threads/t1/name",
            "/github/chat/threads/{id}/name",
            {"name": "", "generate": True},
            {**JSON, **API_HEADERS},
        ),
        (
            delete_request(URLS, "t1"),
            "delete",
            "DELETE",
            "/github/chat/threads/t1",
            "/github/chat/threads/{id}",
            None,
            API_HEADERS,
        ),
    ],
    ids=[
        "token",
        "thread",
        "message",
        "quota",
        "models",
        "older-models",
        "threads",
        "messages",
        "rename",
        "name",
        "delete",
    ],
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


def test_extra_fields_are_merged_into_the_body() -> None:
    """Beside all that is sent anyhow; two of the fixed values may be replaced."""
    extra = {"skills": ["web-search"], "customCopilotID": None, "confirmations": [{"ok": True}], "nested": {"a": [1]}}
    plain, body = body_of(ask()), body_of(ask(extra=MappingProxyType(extra)))
    assert body == {**plain, **extra}
    assert body_of(ask(extra={"skillOptions": {"deepCodeSearch": True}}))["skillOptions"] == {"deepCodeSearch": True}
    assert body_of(ask(extra={})) == plain


def test_extra_fields_are_those_of_the_call() -> None:
    """Whatever the caller does with them before the message is sent, or sent again."""
    extra: Dict[str, Any] = {"skills": ["web-search"]}
    options = MessageOptions.coerce(extra=extra)
    extra["skills"].append("other")
    assert options.extra == {"skills": ["web-search"]}


OWN = [name for name in body_of(ask(parent_id="root")) if name not in ("skillOptions", "confirmations")]


@pytest.mark.parametrize("name", [*OWN, "parentMessageId", "MODEL"])
def test_what_the_library_sends_itself_is_no_extra_field(name: str) -> None:
    """In any case: some servers do not tell them apart. The argument to use instead is named, if there is one."""
    with pytest.raises(TypeError, match=f"^extra can't hold {name}, which the library sends by itself") as raised:
        MessageOptions.coerce(extra={"skills": [], name: None})
    instead = re.findall(r": use (\w+)=", str(raised.value))
    assert not instead or instead[0] in ("github_url", "handle", "model", *MessageOptions.__dataclass_fields__)


def test_the_argument_to_use_instead_is_named() -> None:
    """As it is spelled."""
    for name, instead in (
        ("mediaContent", "media="),
        ("references", "references= or files="),
        ("content", "the prompt"),
    ):
        with pytest.raises(TypeError, match=f": use {instead} instead$"):
            MessageOptions.coerce(extra={name: 1})
    with pytest.raises(TypeError, match="by itself$"):
        MessageOptions.coerce(extra={"requestTrace": True})


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
    for page in (request, token_request(OTHER), threads_request(OTHER)):
        assert page.headers["Origin"] == "https://ghe.example:8443"
        assert page.headers["Referer"] == "https://ghe.example:8443/prefix/copilot"
    assert token_request(OTHER).url == "https://ghe.example:8443/prefix/github-copilot/chat/token"


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
    assert segment(identifier) == quoted
    assert ask(thread_id=identifier).url == f"{URLS.api}/github/chat/threads/{quoted}/messages"
    assert body_of(ask(thread_id=identifier))["currentURL"] == f"https://github.com/copilot/c/{quoted}"
    assert messages_request(URLS, identifier).url == f"{URLS.api}/github/chat/threads/{quoted}/messages"
    assert rename_request(URLS, identifier, "n").url == f"{URLS.api}/github/chat/threads/{quoted}/name"
    assert delete_request(URLS, identifier).url == f"{URLS.api}/github/chat/threads/{quoted}"


@pytest.mark.parametrize("identifier", ["", ".", "..", "a\ud800"], ids=ascii)
def test_what_is_no_segment_is_refused(identifier: str) -> None:
    """Clients and servers resolve dots, so that these would ask for something else."""
    with pytest.raises(ValueError, match="id"):
        delete_request(URLS, identifier)


def test_a_request_does_not_show_what_was_asked() -> None:
    """Prompts are private: a request in a log or a traceback names its address alone."""
    assert "private" not in repr(ask(content="private"))


@pytest.mark.parametrize("request_, stage", [(ask(), "stream"), (models_request(URLS), "models")])
def test_reading_an_answer_is_a_stage_of_its_own(request_: Request, stage: str) -> None:
    """An error tells whether the message failed or its answer."""
    assert request_.body_stage == stage


def test_options_that_are_not_given_have_the_documented_defaults() -> None:
    """``None`` for each means the default too, because providers pass everything on."""
    nothing = dict.fromkeys(
        ["references", "context", "intent", "mode", "custom_instructions", "media", "parent_message_id", "extra"]
    )
    assert MessageOptions.coerce(**nothing) == MessageOptions.coerce() == MessageOptions()
    assert (MessageOptions().intent, MessageOptions().mode, MessageOptions().parent_message_id) == (
        "conversation",
        "immersive",
        None,
    )
    assert MessageOptions.coerce(parent_message_id="") == MessageOptions()
    assert MessageOptions.coerce(parent_message_id="m1").parent_message_id == "m1"
    assert MessageOptions.coerce(custom_instructions=["a", "b"]).custom_instructions == ("a", "b")


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
        MessageOptions.coerce(**{name: value})
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
        ({"extra": ["skills"]}, TypeError, "extra must be a dictionary, not list"),
        ({"extra": "skills"}, TypeError, "extra must be a dictionary, not str"),
        ({"extra": {5: 1}}, TypeError, "a field of extra must have a string for its name, not int"),
        ({"extra": {None: 1}}, TypeError, "a field of extra must have a string for its name, not NoneType"),
        ({"extra": {"a": ...}}, TypeError, "extra can't be sent as JSON"),
        ({"extra": {"a": b"x"}}, TypeError, "extra can't be sent as JSON"),
        ({"extra": {"a": math.nan}}, ValueError, "extra can't be sent as JSON"),
        ({"extra": {"a": CIRCLE}}, ValueError, "extra can't be sent as JSON"),
        ({"extra": {"a": "\ud800"}}, ValueError, "extra holds text that is not valid Unicode"),
        ({"extra": {"\ud800": 1}}, ValueError, "extra holds text that is not valid Unicode"),
    ],
    ids=ascii,
)
def test_an_option_of_the_wrong_type_is_refused(options: Any, kind: Type[Exception], words: str) -> None:
    """The error names the argument, what was wanted and what came."""
    with pytest.raises(kind, match=words):
        MessageOptions.coerce(**options)


@given(st.text(CHARACTERS))
@example(".")
@example("a")
def test_any_id_is_one_segment_or_refused(identifier: str) -> None:
    """No id opens another path."""
    try:
        quoted = segment(identifier)
    except ValueError:
        return
    assert quoted.isascii()
    assert quoted not in ("", ".", "..")
    assert not set("/?#\\ ") & set(quoted)
