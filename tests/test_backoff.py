"""When a request is tried again, and how long that waits: exact lists of waits, on a clock that nobody waits for."""

import asyncio
import logging
import random
from typing import Any, Callable, List, Optional, Type

import pytest

from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    WrongHostError,
)
from copilot_sync.pacing.backoff import Backoff, retry
from copilot_sync.pacing.policy import Resend, verdict_of
from copilot_sync.settings import RetryPolicy, Timeout
from copilot_sync.transport.call import CallContext

BROKEN = NetworkError("broken", stage="message")


class PatientCall(CallContext):
    """A call whose sleeps only move its clock."""

    def __init__(self, total: Optional[float] = None) -> None:
        self.now = 100.0
        self.slept: List[float] = []
        super().__init__(Timeout(total=total), clock=lambda: self.now)
        self.begin()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance always takes the longest wait there is."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)


def failing(*errors: CopilotError) -> Callable[[], str]:
    """An attempt that fails with one error after the other and then succeeds."""
    left = list(errors)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


def caused(error: CopilotError, cause: BaseException) -> CopilotError:
    error.__cause__ = cause
    return error


@pytest.mark.usefixtures("longest")
def test_the_bound_of_the_waits_doubles_up_to_the_cap() -> None:
    """Half a second, one, two, four, eight, and never more than eight."""
    call = PatientCall()
    assert retry(failing(*[BROKEN] * 7), RetryPolicy(attempts=8), call) == "done"
    assert call.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.usefixtures("longest")
def test_base_and_cap_are_the_callers() -> None:
    """A policy may be as hasty or as patient as its owner wants it."""
    call = PatientCall()
    retry(failing(*[BROKEN] * 4), RetryPolicy(attempts=5, base=3, cap=10), call)
    assert call.slept == [3.0, 6.0, 10.0, 10.0]


def test_the_waits_are_anything_up_to_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full jitter: clients that failed together don't come back together."""
    drawn = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return low + (high - low) / 4

    monkeypatch.setattr(random, "uniform", uniform)
    call = PatientCall()
    retry(failing(*[BROKEN] * 3), RetryPolicy(), call)
    assert drawn == [(0, 0.5), (0, 1.0), (0, 2.0)]
    assert call.slept == [0.125, 0.25, 0.5]


def test_a_success_is_not_tried_again() -> None:
    """One request, no wait."""
    call = PatientCall()
    assert retry(failing(), RetryPolicy(), call) == "done"
    assert call.slept == []


@pytest.mark.usefixtures("longest")
@pytest.mark.parametrize(
    ("policy", "waits"), [(RetryPolicy(attempts=3), 2), (RetryPolicy(attempts=1), 0), (None, 0)], ids=repr
)
def test_the_last_failure_comes_out_as_it_is(policy: Optional[RetryPolicy], waits: int) -> None:
    """Not an error about retrying: what went wrong, with the number of requests that were made."""
    errors = [NetworkError(str(number), stage="threads") for number in range(9)]
    call = PatientCall()
    attempts = failing(*errors)

    def attempt() -> str:
        call.attempts["threads"] += 1
        return attempts()

    with pytest.raises(NetworkError) as caught:
        retry(attempt, policy, call)
    assert caught.value is errors[waits]
    assert caught.value.attempts == waits + 1
    assert len(call.slept) == waits


@pytest.mark.usefixtures("longest")
@pytest.mark.parametrize("kind", [RateLimitError, ServerError])
def test_the_server_says_how_long_to_wait(kind: Type[Any]) -> None:
    """Retry-After makes our own wait longer and never shorter; without it ours is taken."""
    call = PatientCall()
    errors = [kind("slow", status=503, retry_after=seconds, stage="message") for seconds in (7.0, 0.0, 0.001, 60.0)]
    retry(failing(*errors, RateLimitError("slow", status=429)), RetryPolicy(attempts=6), call)
    assert call.slept == [7.0, 1.0, 2.0, 60.0, 8.0]


# fmt: off
FITS = [
    # Retry-After  max_wait  total  is waited for
    (60.0,         60.0,     None,  True),
    (60.5,         60.0,     None,  False),
    (5.0,          60.0,     5.5,   True),
    (5.0,          60.0,     5.0,   False),
    (0.5,           0.0,     None,  False),
]
# fmt: on


@pytest.mark.parametrize(("told", "max_wait", "total", "waits"), FITS)
def test_a_wait_that_does_not_fit_raises_at_once(
    told: float, max_wait: float, total: Optional[float], waits: bool
) -> None:
    """Rather than sleeping for an hour, or until the time of the call is over anyway."""
    call = PatientCall(total)
    error = RateLimitError("slow", status=429, retry_after=told)
    policy = RetryPolicy(base=0.1, max_wait=max_wait)
    if waits:
        assert retry(failing(error), policy, call) == "done"
        assert call.slept == [told]
    else:
        with pytest.raises(RateLimitError) as caught:
            retry(failing(error), policy, call)
        assert caught.value is error
        assert call.slept == []


@pytest.mark.usefixtures("longest")
def test_our_own_wait_has_to_fit_the_call_as_well() -> None:
    """The error that is known now is better than a time-out later."""
    call = PatientCall(total=1.2)
    with pytest.raises(NetworkError):
        retry(failing(*[BROKEN] * 3), RetryPolicy(), call)
    assert call.slept == [0.5]


@pytest.mark.usefixtures("longest")
def test_on_retry_is_told_before_each_wait() -> None:
    """With the error and the seconds, for logs and metrics."""
    call = PatientCall()
    told: List[Any] = []
    errors = [NetworkError("one"), RateLimitError("two", status=429, retry_after=9.0)]
    policy = RetryPolicy(on_retry=lambda error, seconds: told.append((error, seconds, list(call.slept))))
    retry(failing(*errors), policy, call)
    assert told == [(errors[0], 0.5, []), (errors[1], 9.0, [0.5])]


def test_what_on_retry_raises_ends_the_call() -> None:
    """Celery's time limits and a caller's own stop get through."""

    class StopError(Exception):
        pass

    def on_retry(error: CopilotError, seconds: float) -> None:
        raise StopError

    call = PatientCall()
    with pytest.raises(StopError):
        retry(failing(BROKEN), RetryPolicy(on_retry=on_retry), call)
    assert call.slept == []


@pytest.mark.usefixtures("longest")
def test_a_retry_is_logged_without_the_servers_words(caplog: pytest.LogCaptureFixture) -> None:
    """Stage, wait, kind and status are enough to follow it."""
    caplog.set_level(logging.INFO, "copilot_sync")
    errors = [NetworkError("s3cret", stage="threads"), ServerError("s3cret", status=502, stage="threads")]
    retry(failing(*errors), RetryPolicy(), PatientCall())
    assert [record.getMessage() for record in caplog.records] == [
        "threads: trying again in 0.50 s after NetworkError",
        "threads: trying again in 1.00 s after ServerError (status 502)",
    ]


@pytest.mark.usefixtures("longest")
def test_a_retry_names_the_host(caplog: pytest.LogCaptureFixture) -> None:
    """The one that was asked last, and nothing more of its URL."""
    caplog.set_level(logging.INFO, "copilot_sync")
    call = PatientCall()
    call.route = "https://api.example:8443/threads/t-1", {}
    errors = [NetworkError("s3cret", stage="threads"), ServerError("s3cret", status=502, stage="threads")]
    retry(failing(*errors), RetryPolicy(), call)
    assert [record.getMessage() for record in caplog.records] == [
        "threads: trying again in 0.50 s after NetworkError (api.example)",
        "threads: trying again in 1.00 s after ServerError (status 502, api.example)",
    ]


@pytest.mark.usefixtures("longest")
def test_a_stage_counts_its_own_failures() -> None:
    """Each stage has all the attempts of the policy."""
    call = PatientCall()
    first, second = Backoff(RetryPolicy(), call), Backoff(RetryPolicy(), call)
    for backoff in (first, first, second):
        backoff.after(BROKEN)
    assert call.slept == [0.5, 1.0, 0.5]


def test_a_wait_ends_when_the_call_is_stopped() -> None:
    """Closing a stream doesn't have to wait for a wait."""
    call = CallContext(Timeout())
    call.cancel()
    with pytest.raises(StreamClosedError):
        Backoff(RetryPolicy(base=3600, cap=3600), call).after(BROKEN)


# fmt: off
OUTCOMES = [
    (NetworkError("", may_have_been_sent=False),                            Resend.NOT_PROCESSED),
    (NetworkError("", may_have_been_sent=True),                             Resend.UNKNOWN),
    (NetworkError("", may_have_been_sent=False, status=407),                Resend.FINAL),
    (caused(NetworkError(""), ConnectionResetError()),        Resend.UNKNOWN),
    (NetworkError("", permanent=True),                     Resend.FINAL),
    (RequestTimeoutError("", phase="connect", may_have_been_sent=False),    Resend.NOT_PROCESSED),
    (RequestTimeoutError("", phase="reply"),                  Resend.UNKNOWN),
    (RequestTimeoutError("", phase="read"),                   Resend.UNKNOWN),
    (RequestTimeoutError("", phase="total"),                  Resend.FINAL),
    (RateLimitError("", status=429),                          Resend.NOT_PROCESSED),
    (RateLimitError("", status=403),                          Resend.NOT_PROCESSED),
    (RateLimitError("we have waited for it"),                 Resend.FINAL),
    (QuotaExceededError("", status=402),                      Resend.FINAL),
    (ServerError("", status=408),                             Resend.NOT_PROCESSED),
    (ServerError("", status=409),                             Resend.NOT_PROCESSED),
    (ServerError("", status=425),                             Resend.NOT_PROCESSED),
    (ServerError("", status=503, not_processed=True),           Resend.NOT_PROCESSED),
    (ServerError("", status=503, retry_after=0.0),            Resend.UNKNOWN),
    (ServerError("", status=503),                             Resend.UNKNOWN),
    (ServerError("", status=500),                             Resend.UNKNOWN),
    (ServerError("", status=502),                             Resend.UNKNOWN),
    (ServerError("", status=502, retry_after=1.0),            Resend.UNKNOWN),
    (ServerError("", status=504),                             Resend.UNKNOWN),
    (ServerError("", status=501),                             Resend.FINAL),
    (ServerError("", status=520),                             Resend.FINAL),
    (ServerError("an error event"),                           Resend.FINAL),
    (AuthenticationError("", status=401),                     Resend.FINAL),
    (InvalidRequestError("", status=422),                     Resend.FINAL),
    (NotFoundError("", status=404),                           Resend.FINAL),
    (WrongHostError("", status=421),                          Resend.FINAL),
    (ProtocolError(""),                                       Resend.FINAL),
    (StreamInterruptedError(""),                              Resend.FINAL),
    (StreamClosedError(""),                                   Resend.FINAL),
]
# fmt: on


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (RateLimitError("", status=429, stage="message"), False),
        (RateLimitError("", status=429, stage="thread"), False),
        (ServerError("", status=503, not_processed=True, stage="message"), False),
        (RateLimitError("", status=429, stage="messages"), True),
        (ServerError("", status=500, stage="message"), True),
        (NetworkError("", stage="message"), True),
    ],
    ids=repr,
)
def test_a_policy_may_leave_limits_to_the_caller(error: CopilotError, waits: bool) -> None:
    """Then a limit is raised at once, but for that of a look for a message, which may not be given up half-way."""
    call = PatientCall()
    backoff = Backoff(RetryPolicy(wait_for_limits=False), call)
    if waits:
        backoff.after(error)
    else:
        with pytest.raises(CopilotError) as caught:
            backoff.after(error)
        assert caught.value is error
    assert len(call.slept) == waits


@pytest.mark.parametrize(("error", "resend"), OUTCOMES, ids=repr)
def test_a_failure_tells_whether_the_request_was_taken(error: CopilotError, resend: Resend) -> None:
    """Whether it may be sent again, has to be looked for first, or is lost."""
    assert verdict_of(error).resend is resend


@pytest.mark.parametrize(("error", "resend"), OUTCOMES, ids=repr)
def test_only_what_is_not_final_is_tried_again(error: CopilotError, resend: Resend) -> None:
    """Of requests that do no harm twice."""
    call = PatientCall()
    if resend is Resend.FINAL:
        with pytest.raises(CopilotError) as caught:
            retry(failing(error), RetryPolicy(), call)
        assert caught.value is error
    else:
        assert retry(failing(error), RetryPolicy(), call) == "done"
    assert len(call.slept) == (resend is not Resend.FINAL)


# fmt: off
WRONG = [
    ({"attempts": 0},               ValueError, "attempts must be at least 1, not 0"),
    ({"attempts": 1.5},             TypeError,  "attempts must be a whole number, not float"),
    ({"attempts": True},            TypeError,  "attempts must be a whole number, not bool"),
    ({"base": -1},                  ValueError, "base must be a number of seconds of at least zero, not -1"),
    ({"cap": "8"},                  TypeError,  "cap must be a number of seconds, not str"),
    ({"base": False},               TypeError,  "base must be a number of seconds, not bool"),
    ({"max_wait": float("inf")},    ValueError, "max_wait must be a number of seconds of at least zero, not inf"),
    ({"max_wait": float("nan")},    ValueError, "max_wait must be a number of seconds of at least zero, not nan"),
    ({"on_retry": "print"},         TypeError,  "on_retry must be callable"),
    ({"wait_for_limits": 1},        TypeError,  "wait_for_limits must be True or False"),
]
# fmt: on


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG, ids=lambda value: str(value))
def test_a_policy_that_makes_no_sense_is_refused(arguments: Any, kind: Type[Exception], words: str) -> None:
    """When it is made, not when something fails."""
    with pytest.raises(kind, match=words):
        RetryPolicy(**arguments)


def test_a_policy_refuses_a_coroutine_function() -> None:
    """Nobody would await it, and the message says so."""
    on_retry: Any = asyncio.sleep
    with pytest.raises(TypeError, match="on_retry must be a plain function, not a coroutine function: nobody"):
        RetryPolicy(on_retry=on_retry)


def test_a_policy_is_a_policy_or_none() -> None:
    """``retry=3`` would be a guess; ``None`` switches retries off."""
    policy = RetryPolicy(attempts=2, base=0, cap=0, max_wait=0, on_retry=print)
    assert RetryPolicy.from_value(policy) is policy
    assert RetryPolicy.from_value(None) is None
    with pytest.raises(TypeError, match="retry must be a RetryPolicy or None, not int"):
        RetryPolicy.from_value(3)  # type: ignore[arg-type]
