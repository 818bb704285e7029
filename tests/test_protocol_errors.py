"""Statuses and error events become the errors they mean."""

import json
import pickle
from typing import Any, Dict, Optional, Type

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wire import BODIES, HEADERS, MESSAGE, NOW, THREAD, TOKEN, URLS, failure, plain

from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidRequestError,
    ModelNotAvailableError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    WrongHostError,
)
from copilot_sync.events import ErrorEvent
from copilot_sync.protocol.errors import error_of_event, error_of_status, server_words
from copilot_sync.protocol.events import read_error
from copilot_sync.protocol.replies import read_token
from copilot_sync.protocol.requests import Request, models_request, quota_request
from copilot_sync.protocol.untrusted import RawReply


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_success_is_no_error(status: int) -> None:
    """Any status of the two hundreds; the body is not looked at."""
    assert error_of_status(MESSAGE, RawReply(status, {}, b"garbage"), now=NOW, mask=plain) is None


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


@pytest.mark.parametrize("status", [401, 403, 422])
def test_a_quota_that_is_refused_means_the_same(status: int) -> None:
    """It is asked for with the same cookies."""
    error = failure(status, quota_request(URLS), b"nope")
    assert type(error) is AuthenticationError
    assert "github.com refused the cookies: sign in again and renew user_session" in str(error)
    assert (error.stage, error.status) == ("quota", status)


def test_an_account_without_copilot_has_no_quota() -> None:
    """That is no refusal of the cookies, and says nothing about an address of ours."""
    error = failure(404, quota_request(URLS), b'{"message": "Not Found"}')
    assert type(error) is NotFoundError
    assert "this account has no Copilot, or the cookies are not valid any more" in str(error)
    assert (error.stage, error.status) == ("quota", 404)


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
    (b"Something went wrong", True, "Something went wrong"),
]


@pytest.mark.parametrize("status", [200, 403, 404])
@pytest.mark.parametrize("body, signs_in, words", REFUSALS, ids=lambda value: ascii(value)[:40])
def test_the_reason_for_no_token_is_told(body: bytes, signs_in: bool, words: str, status: int) -> None:
    """In the service's words, under any status; to sign in again is advised only if that may mend it."""
    reply = RawReply(status, {"content-type": "text/html"}, body)
    if status == 200:
        with pytest.raises(AuthenticationError) as caught:
            read_token(reply, NOW, plain)
        error: Any = caught.value
    else:
        error = error_of_status(TOKEN, reply, now=NOW, mask=plain)
    assert type(error) is AuthenticationError
    assert (error.stage, error.status) == ("token", status)
    assert words in str(error)
    assert ("sign in again" in str(error)) is signs_in


@pytest.mark.parametrize("body", [b'["planted"]', b'"planted"', b"planted", b"{}"])
def test_what_may_be_a_token_in_another_form_is_not_told(body: bytes) -> None:
    """A reply of success without spaces is no sentence."""
    with pytest.raises(AuthenticationError, match="sign in again") as caught:
        read_token(RawReply(200, {}, body), NOW, plain)
    assert "planted" not in str(caught.value)


def test_a_secret_is_masked_in_the_reason() -> None:
    """The service may say back what it was sent."""
    body = b'{"message": "the session planted-secret is over"}'
    with pytest.raises(AuthenticationError, match=r"the session \*\*\* is over") as caught:
        read_token(RawReply(200, {}, body), NOW, lambda text: text.replace("planted-secret", "***"))
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "status, kind", [(400, InvalidRequestError), (402, QuotaExceededError), (429, RateLimitError), (500, ServerError)]
)
def test_the_cookies_are_not_blamed_for_everything(status: int, kind: Type[CopilotError]) -> None:
    """A failure of the service while it makes a token is one of the service."""
    assert type(failure(status, TOKEN)) is kind


@pytest.mark.parametrize("request_", [THREAD, models_request(URLS)], ids=["thread", "models"])
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
    reply = RawReply(500, headers)
    error = error_of_status(MESSAGE, reply, now=NOW, mask=lambda text: text.replace("planted", "***"))
    assert error is not None
    assert error.request_id == request_id


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
    reply = RawReply(status, {"location": location})
    error = error_of_status(MESSAGE, reply, now=NOW, mask=lambda text: text.replace("planted", "***"))
    assert type(error) is ProtocolError
    assert f"the reply redirects to {place}, and redirects are not followed" in str(error)
    assert "planted" not in str(error)


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
    assert server_words(RawReply(500, {}, body), plain) == words
    assert (f"(the server said: {words})" in str(failure(500, body=body))) is bool(words)


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/html; charset=utf-8", "text/plain", "image/png", ""]
)
def test_the_servers_words_are_read_under_any_content_type(content_type: str) -> None:
    """Gateways label JSON as HTML and the other way round; the status is never hidden."""
    reply = RawReply(403, {"content-type": content_type}, b'{"message":"policy"}')
    assert server_words(reply, plain) == "policy"


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
    said = server_words(RawReply(503, {"content-type": "text/html; charset=UTF-8"}, body), plain)
    assert said.startswith(words)
    assert bool(said) is bool(words)


@pytest.mark.parametrize("content_type", ["text/html", "text/plain"])
def test_a_page_is_known_by_its_tags(content_type: str) -> None:
    """Text before the first one does not make a page quotable, and a label does not make words a page."""
    headers = {"content-type": content_type}
    page = RawReply(502, headers, b"\xef\xbb\xbf\n(gateway) <html><title>Bad Gateway</title>")
    assert server_words(page, plain) == "Bad Gateway"
    assert server_words(RawReply(403, headers, b"No seat: a < b"), plain) == "No seat: a < b"


@pytest.mark.parametrize("before", [0, 480, 495, 505, 1990, 5000])
@pytest.mark.parametrize("body", [b"%s", b'{"message":"%s"}', b"<title>%s</title>"], ids=["text", "json", "title"])
def test_a_secret_is_masked_before_the_words_are_cut(body: bytes, before: int) -> None:
    """A cut through the middle of an echoed token must not leave its first half behind."""
    reply = RawReply(500, {}, body % (b"x" * before + b"planted-secret"))
    words = server_words(reply, lambda text: text.replace("planted-secret", "***"))
    assert "plan" not in words
    assert words.startswith("x" * min(before, 499))
    assert len(words) <= 500


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
        ("model_not_supported", ModelNotAvailableError),
        ("bad_request", InvalidRequestError),
        ("invalid_request_body", InvalidRequestError),
    ],
    ids=lambda value: ascii(value[:30]) if isinstance(value, str) else "",
)
def test_an_error_event_is_the_error_its_code_says(code: str, kind: Type[CopilotError]) -> None:
    """A ``ServerError`` where it says nothing that is known; it has no status, for the reply had one of success."""
    event = ErrorEvent("error", {}, "it broke", code)
    error = error_of_event(event, plain)
    assert type(error) is kind
    what = "does not answer with this model" if kind is ModelNotAvailableError else "failed in the middle of the answer"
    assert error.args == (f"the service {what} (the server said: it broke)",)
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
    assert type(error_of_event(ErrorEvent("error", data, "it broke", ""), plain)) is kind
    expected = RateLimitError if kind is ServerError else kind
    assert type(error_of_event(ErrorEvent("error", data, "it broke", "429"), plain)) is expected


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
    assert type(error_of_event(read_error(json.dumps(event)), plain)) is kind


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
    error = error_of_event(event, lambda text: text.replace("planted-secret", "***"))
    assert error.args == ("the service failed in the middle of the answer" + words,)


@given(st.integers(0, 999), BODIES, HEADERS, st.sampled_from([MESSAGE, THREAD, TOKEN]))
@example(200, b"", {}, TOKEN)
@example(500, b"", {}, TOKEN)
def test_any_failing_reply_becomes_one_printable_error(
    status: int, body: bytes, headers: Dict[str, str], request_: Request
) -> None:
    """Whatever the body and the headers hold, the status is told, in a line that a terminal takes."""
    error = error_of_status(request_, RawReply(status, headers, body), now=NOW, mask=plain)
    assert (error is None) is (200 <= status < 300)
    if error is not None:
        assert error.status == status
        assert str(error).isprintable()
        assert len(str(error)) < 1200
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
