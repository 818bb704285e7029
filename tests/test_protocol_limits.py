"""Which limit a refusal speaks of, and how long the server asks to wait."""

import json
import math
from email.utils import formatdate
from typing import Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import MESSAGE, NOW, THREAD, TOKEN, failure, plain

from copilot_sync.errors import (
    AuthenticationError,
    InvalidRequestError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from copilot_sync.protocol.errors import error_of_status
from copilot_sync.protocol.limits import retry_after
from copilot_sync.protocol.requests import Request
from copilot_sync.protocol.untrusted import RawReply


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
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    "headers", [{"retry-after": formatdate(NOW + 90, usegmt=True)}, {"x-ratelimit-reset": str(int(NOW + 90))}]
)
@pytest.mark.parametrize("here", [NOW - 86400, NOW + 86400], ids=["slow", "fast"])
def test_a_moment_is_told_by_the_servers_clock(headers: Dict[str, str], here: float) -> None:
    """A clock that is wrong here neither skips the wait nor makes it a day."""
    assert retry_after({"date": formatdate(NOW, usegmt=True), **headers}, here) == 90.0


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
    error = error_of_status(request_, RawReply(status, headers, body), now=NOW, mask=plain, proven=True)
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
    (429, b'{"errorCode":"weeklyLimit"}'),
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
    reply = RawReply(403, headers, body)
    for request_, proven, kind in (
        (MESSAGE, False, AuthenticationError),
        (MESSAGE, True, PermissionDeniedError),
        (THREAD, True, AuthenticationError),
        (TOKEN, True, AuthenticationError),
    ):
        error = error_of_status(request_, reply, now=NOW, mask=plain, proven=proven)
        assert type(error) is kind


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("code", ["content_filter", "ContentFilterError", "responsible_ai_policy_violation"])
def test_a_filtered_message_is_told_as_one(status: int, code: str) -> None:
    """It is no mistake of the program."""
    error = failure(status, body=json.dumps({"error": {"code": code, "message": "no"}}).encode())
    assert type(error) is InvalidRequestError
    assert "the service's content filter refused the message (the server said: no)" in str(error)


@given(
    st.text(st.characters(max_codepoint=255))
    | st.from_regex(r"\w{3}, \d+ Jun \d+ \d+:\d+:\d+ [+-]?\w+", fullmatch=True)
)
def test_any_header_is_a_wait_or_none(value: str) -> None:
    """A wait is a number of seconds that can be compared and slept."""
    for name in ("retry-after", "x-ratelimit-reset", "date"):
        seconds = retry_after({"retry-after": "Sat, 27 Jun 2026 13:16:06 GMT", name: value}, NOW)
        assert seconds is None or (seconds >= 0 and math.isfinite(seconds))
