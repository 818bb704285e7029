"""Replies of one document: the token, a new thread, the lists."""

import json
import math
import pickle
from typing import Any, Callable, Dict, List, Tuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wire import BODIES, HEADERS, JSON_VALUES, NOW, sent

from copilot_sync.errors import AuthenticationError, CopilotError, ProtocolError
from copilot_sync.events import ContentEvent
from copilot_sync.models import Message, Model, Quota, Thread
from copilot_sync.protocol.events import form_of, read_document, read_error
from copilot_sync.protocol.replies import (
    read_messages,
    read_models,
    read_name,
    read_quota,
    read_thread_id,
    read_threads,
    read_token,
)
from copilot_sync.protocol.untrusted import RawReply, decoded
from copilot_sync.usage import Usage


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
    assert read_token(sent(token="tok", expiration=expiration), NOW) == ("tok", seconds)


def test_a_token_may_come_without_an_expiration() -> None:
    """Then it is taken to live for ten minutes; unknown fields are ignored."""
    assert read_token(sent(token="tok", sku="free"), NOW) == ("tok", 600.0)


def test_a_token_may_come_behind_a_byte_order_mark() -> None:
    """Some gateways add one."""
    assert read_token(RawReply(200, {}, b'\xef\xbb\xbf{"token":"tok"}'), NOW) == ("tok", 600.0)


def test_the_age_of_a_token_is_told_by_the_servers_clock() -> None:
    """A clock that is wrong here does no harm: the reply's own date counts."""
    reply = sent({"date": "Sat, 27 Jun 2026 13:15:06 GMT"}, token="tok", expiration="2026-06-27T13:45:06Z")
    assert read_token(reply, NOW - 5 * 3600) == ("tok", 1800.0)


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
        read_token(RawReply(200, {"content-type": "application/json"}, body), NOW)
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
        read_token(RawReply(200, {}, body), NOW)
    assert caught.value.stage == "token"
    assert "Evil" not in str(caught.value)


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
    assert read_thread_id(RawReply(201, {}, body)) == thread_id


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
        read_thread_id(RawReply(201, {}, body))
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
    assert read_threads(reply) == [
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
    assert read_messages(reply) == [
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
    assert read_models(reply) == [Model("gpt-4o", "GPT-4o", "OpenAI", True), Model("o1"), Model("m\ufffd")]


def test_a_model_says_what_it_is_for_and_what_it_costs() -> None:
    """As the page of 2026 lists it; all of it stands in ``data`` as it came."""
    entry = {
        "id": "gpt-5-mini",
        "model_picker_enabled": True,
        "model_picker_category": "versatile",
        "capabilities": {"type": "chat", "supports": {"vision": True}, "limits": {"max_output_tokens": 64_000}},
        "billing": {"is_premium": True, "multiplier": 1},
        "policy": {"state": "enabled", "terms": "…"},
    }
    (model,) = read_models(sent(data=[entry]))
    assert model == Model(
        "gpt-5-mini", kind="chat", picker_category="versatile", vision=True, premium_multiplier=1.0, enabled=True
    )
    assert isinstance(model.premium_multiplier, float)
    assert model.data == entry


@pytest.mark.parametrize(
    "fields, enabled",
    [
        ({}, True),
        ({"model_picker_enabled": None, "policy": None}, True),
        ({"model_picker_enabled": 0, "policy": "disabled"}, True),
        ({"policy": {}}, True),
        ({"policy": {"state": 0}}, True),
        ({"model_picker_enabled": False}, False),
        ({"model_picker_enabled": True, "policy": {"state": "disabled"}}, False),
        ({"model_picker_enabled": True, "policy": {"state": "unconfigured"}}, False),
    ],
    ids=repr,
)
def test_a_model_is_enabled_unless_something_says_that_it_is_not(fields: Dict[str, Any], enabled: bool) -> None:
    """What is unknown forbids nothing."""
    (model,) = read_models(sent(data=[{"id": "m", **fields}]))
    assert model.enabled is enabled


@pytest.mark.parametrize(
    "multiplier, expected",
    [(0, 0.0), (0.33, 0.33), (-1, -1.0), (True, None), ("1", None), (None, None), ([], None), (10**400, None)],
    ids=lambda value: repr(value)[:9],
)
def test_a_multiplier_is_a_number_or_nothing(multiplier: Any, expected: Any) -> None:
    """Whatever stands there."""
    (model,) = read_models(sent(data=[{"id": "m", "billing": {"multiplier": multiplier}}]))
    assert model.premium_multiplier == expected


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_left_out(number: str) -> None:
    """JSON has no name for them, and many writers of it do."""
    body = f'{{"data": [{{"id": "m", "billing": {{"multiplier": {number}}}}}]}}'
    (model,) = read_models(RawReply(200, {}, body.encode()))
    assert model.premium_multiplier is None
    quota = read_quota(RawReply(200, {}, f'{{"quotas": {{"limits": {{"chat": {number}, "other": 1}}}}}}'.encode()))
    assert quota.limits == {"other": 1}


NAMES_IN_MODELS = """
    id name vendor preview capabilities type supports vision billing multiplier policy state model_picker_enabled
    model_picker_category
"""
OBJECTS_IN_MODELS = st.dictionaries(st.sampled_from(["type", "supports", "vision", "multiplier", "state"]), JSON_VALUES)
MODEL_FIELDS = st.dictionaries(st.sampled_from(NAMES_IN_MODELS.split()), JSON_VALUES | OBJECTS_IN_MODELS)


@given(st.lists(MODEL_FIELDS | JSON_VALUES, max_size=4))
@example([{"id": "m", "billing": {"multiplier": 1}}])
def test_any_list_of_models_is_read(entries: List[Any]) -> None:
    """Each field has its type, whatever came; a model hashes, pickles, and can be printed."""
    for model in read_models(sent(data=entries)):
        sendable(model)
        hash(model)
        assert pickle.loads(pickle.dumps(model)) == model
        texts = (model.id, model.name, model.vendor, model.kind, model.picker_category)
        assert {type(text) for text in texts} == {str}
        assert {type(flag) for flag in (model.preview, model.enabled, model.vision)} == {bool}
        assert model.premium_multiplier is None or math.isfinite(model.premium_multiplier)
        assert isinstance(model.data, dict)


ENTITLEMENT: Dict[str, Any] = {
    "licenseType": "licensed_full",
    "plan": "individual",
    "quotas": {
        "limits": {"chat": 50, "premium": 1.5},
        "remaining": {"chat": 48, "premium": 0},
        "resetDate": "2026-12-01T00:00:00Z",
        "overagesEnabled": False,
    },
}


def test_a_quota_is_read() -> None:
    """The plan, what there is of it, and when it begins anew."""
    quota = read_quota(sent(**ENTITLEMENT))
    assert quota == Quota(
        "individual",
        "licensed_full",
        {"chat": 50, "premium": 1.5},
        {"chat": 48, "premium": 0},
        "2026-12-01T00:00:00Z",
        False,
    )
    assert quota.data == ENTITLEMENT


@pytest.mark.parametrize(
    "body, expected",
    [
        ({}, Quota()),
        ({"other": {"shape": 1}}, Quota()),
        ({"plan": None, "licenseType": 5, "quotas": []}, Quota()),
        ({"plan": "free", "message": "words"}, Quota(plan="free")),
        ({"quotas": {"limits": None, "remaining": [1], "resetDate": 1, "overagesEnabled": "no"}}, Quota()),
        (
            {"quotas": {"limits": {"a": None, "b": {"x": 1}, "c": True, "d": "5", "e": 7}}},
            Quota(limits={"e": 7}),
        ),
        ({"quotas": {"remaining": {"\ud800": 1, "": 2}}}, Quota(remaining={"\ufffd": 1, "": 2})),
    ],
    ids=ascii,
)
def test_an_unknown_shape_of_a_quota_is_data(body: Dict[str, Any], expected: Quota) -> None:
    """GitHub does not document it, and may change it."""
    quota = read_quota(sent(**body))
    assert quota == expected
    assert quota.data == body


@pytest.mark.parametrize(
    "body, words",
    [
        (b"<html><title>Sign in to GitHub</title>", "sign in again and renew user_session"),
        (b"", "sign in again and renew user_session"),
        (b"null", "sign in again and renew user_session"),
        (b'[{"plan": "free"}]', "sign in again and renew user_session"),
        (b'{"message": "Resource protected by organization SAML enforcement"}', "organization SAML enforcement"),
        (b'{"error_details": {"message": "No access to GitHub Copilot found"}}', "No access to GitHub Copilot found"),
    ],
    ids=ascii,
)
def test_what_came_instead_of_a_quota_is_a_refusal(body: bytes, words: str) -> None:
    """As for the token: a page to sign in, or the reason."""
    with pytest.raises(AuthenticationError, match=f"the reply held no quota: .*{words}") as caught:
        read_quota(RawReply(200, {}, body))
    assert (caught.value.stage, caught.value.status) == ("quota", 200)


def test_a_broken_quota_is_told() -> None:
    """It is neither a page nor anything that is known."""
    with pytest.raises(ProtocolError) as caught:
        read_quota(RawReply(200, {}, b'{"plan": '))
    assert caught.value.stage == "quota"


OBJECTS_IN_QUOTAS = st.dictionaries(
    st.sampled_from(["limits", "remaining", "resetDate", "overagesEnabled"]),
    JSON_VALUES | st.dictionaries(st.text(max_size=3), JSON_VALUES),
)
QUOTAS = st.dictionaries(
    st.sampled_from(["plan", "licenseType", "quotas", "message", "other"]), JSON_VALUES | OBJECTS_IN_QUOTAS
)


@given(QUOTAS)
@example({})
@example(ENTITLEMENT)
@example({"message": "no access"})
def test_any_quota_is_read(body: Dict[str, Any]) -> None:
    """Each field has its type, whatever came; words alone are a refusal."""
    try:
        quota = read_quota(sent(**body))
    except AuthenticationError:
        assert "message" in body
        return
    sendable(quota)
    pickle.dumps(quota)
    for number in (*quota.limits.values(), *quota.remaining.values()):
        assert math.isfinite(number)
    assert quota.overages_enabled in (None, False, True)
    assert quota.resets_at is None or isinstance(quota.resets_at, str)


LISTS: List[Tuple[str, Callable[[RawReply], List[Any]], str]] = [
    ("threads", read_threads, "threads"),
    ("messages", read_messages, "messages"),
    ("models", read_models, "data"),
]
each_list = pytest.mark.parametrize("stage, read, key", LISTS, ids=[stage for stage, _, _ in LISTS])


@each_list
@pytest.mark.parametrize("value", [[], None], ids=repr)
def test_an_empty_list_is_one(stage: str, read: Callable[[RawReply], List[Any]], key: str, value: Any) -> None:
    """A new account has no threads."""
    assert read(RawReply(200, {}, json.dumps({key: value}).encode())) == []


@each_list
@pytest.mark.parametrize("error", [{"error": {"message": "boom"}}, {"error": "boom"}, {"errors": ["boom"]}], ids=repr)
def test_an_error_is_no_empty_list(
    stage: str, read: Callable[[RawReply], List[Any]], key: str, error: Dict[str, Any]
) -> None:
    """Whoever looks whether a message was taken must not hear that nothing is there."""
    with pytest.raises(ProtocolError, match=f"instead of a list of {stage}"):
        read(RawReply(200, {}, json.dumps({key: None, **error}).encode()))


@pytest.mark.parametrize(
    "read, body",
    [
        (read_messages, {"thread": {"id": "t-1"}}),
        (read_messages, {"thread": None, "messages": None}),
        (read_models, {"object": "list"}),
    ],
    ids=["a thread", "nothing", "models"],
)
def test_a_list_that_is_absent_is_empty(read: Callable[[RawReply], List[Any]], body: Dict[str, Any]) -> None:
    """If what stands beside it tells that this is the reply."""
    assert read(RawReply(200, {}, json.dumps(body).encode())) == []


@each_list
@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"null", b'{"KEY":"x"}', b'{"KEY":{}}', b'{"other":null}', b'{"KEY":{"id":"a"}}', *NOT_JSON],
    ids=lambda body: ascii(body[:30]),
)
def test_a_reply_that_holds_no_list_is_told(
    stage: str, read: Callable[[RawReply], List[Any]], key: str, body: bytes
) -> None:
    """An empty list must not be made up: what is in a thread decides whether a message is sent again."""
    with pytest.raises(ProtocolError) as caught:
        read(RawReply(200, {}, body.replace(b"KEY", key.encode())))
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
        read_models(RawReply(200, headers, body))


READERS: List[Callable[[RawReply], Any]] = [
    lambda reply: read_token(reply, NOW),
    read_thread_id,
    read_threads,
    read_messages,
    read_models,
    read_quota,
    lambda reply: read_document(reply.body),
    lambda reply: read_error(decoded(reply.body)),
    lambda reply: form_of(reply.body),
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
    body: bytes, headers: Dict[str, str], read: Callable[[RawReply], Any]
) -> None:
    """Servers, gateways and proxies send anything."""
    try:
        value = read(RawReply(200, headers, body))
    except CopilotError as error:
        assert error.stage is not None
    else:
        sendable(value)


@pytest.mark.parametrize(
    "body",
    [{"thread": {"id": "other"}, "messages": []}, {"thread": None, "message": "boom"}, {"thread": None}],
    ids=["another conversation", "words", "nothing"],
)
def test_what_is_no_list_of_these_messages_is_not_an_empty_one(body: Dict[str, Any]) -> None:
    """An empty one would say that a message may be sent again."""
    with pytest.raises(ProtocolError):
        read_messages(RawReply(200, {}, json.dumps(body).encode()), "mine")


@pytest.mark.parametrize(
    "body", [{"thread": {"id": "mine"}}, {"messages": None}, {"thread": {}, "messages": []}], ids=repr
)
def test_an_empty_list_of_messages_may_be_told_in_several_ways(body: Dict[str, Any]) -> None:
    """``null``, nothing, or a list without anything in it."""
    assert read_messages(RawReply(200, {}, json.dumps(body).encode()), "mine") == []


def test_a_message_says_what_it_used_and_what_it_cost() -> None:
    """As its thread holds it, with the whole object in ``data``; what is not as expected counts as missing."""
    known = {
        "id": "m1",
        "role": "assistant",
        "model": "gpt-5-mini",
        "usage": {"inputTokens": 1, "outputTokens": 2},
        "references": [{"type": "file", "path": "a.py"}],
        "skillExecutions": [{"name": "search"}],
    }
    odd = {"id": "m2", "role": "user", "model": 7, "usage": [1], "references": {"path": "a.py"}}
    first, second = read_messages(sent(messages=[known, odd]))
    assert (first.model, first.usage, first.references) == (
        "gpt-5-mini",
        Usage(1, 2),
        ({"type": "file", "path": "a.py"},),
    )
    assert (first.data, second.data) == (known, odd)
    assert second == Message("m2", "user")


def test_a_thread_says_whether_it_is_shared_and_who_named_it() -> None:
    """With the whole object in ``data``; what is not as expected counts as missing."""
    known = {"id": "t1", "sharedAt": "2026-09-01T00:00:00Z", "manuallyNamed": True, "repoID": 7}
    odd = {"id": "t2", "sharedAt": 7, "manuallyNamed": "yes"}
    first, second = read_threads(sent(threads=[known, odd]))
    assert first == Thread("t1", shared_at="2026-09-01T00:00:00Z", manually_named=True)
    assert (first.data, second.data) == (known, odd)
    assert second == Thread("t2")


@pytest.mark.parametrize(
    "body, expected",
    [
        (b'{"name": "WSGI"}', "WSGI"),
        (b'{"name": "\\ud800"}', "\ufffd"),
        (b'{"name": null}', ""),
        (b'{"name": ["WSGI"]}', ""),
        (b"{}", ""),
        (b"[]", ""),
        (b'"WSGI"', ""),
        (b"", ""),
        (b"<html>", ""),
        (b"[" * 5000, ""),
    ],
    ids=["a name", "a surrogate", "null", "a list", "nothing", "an array", "text", "no body", "HTML", "too deep"],
)
def test_a_name_is_read_if_there_is_one(body: bytes, expected: str) -> None:
    """The thread has its name all the same, so nothing else is an error."""
    assert read_name(RawReply(200, {}, body)) == expected


def test_an_error_is_no_name() -> None:
    """Whatever the status said."""
    with pytest.raises(ProtocolError, match="an error came instead of the conversation's name") as caught:
        read_name(sent(error={"message": "boom"}, name="WSGI"))
    assert caught.value.stage == "rename"
