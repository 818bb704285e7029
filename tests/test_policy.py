"""The table that says what a failure means: each row, and the questions that batches and Celery's tasks ask of it."""

from typing import Any, List, Tuple

import pytest

from copilot_sync.errors import (
    AuthenticationError,
    BudgetExceededError,
    CopilotError,
    InvalidRequestError,
    MissingCredentialsError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ResponseTooLargeError,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    WrongHostError,
)
from copilot_sync.pacing.policy import RULES, Resend, Scope, Signal, Verdict, shared_cause, verdict_of

AGAIN, LOOK, NEVER = Resend.NOT_PROCESSED, Resend.UNKNOWN, Resend.FINAL
MINE, WAIT, STOP = Scope.MESSAGE, Scope.ALL_WAIT, Scope.ALL_STOP
NONE, REFUSED, QUOTA, DENIED, FAILING = Signal


def silence(**facts: Any) -> RequestTimeoutError:
    return RequestTimeoutError("", phase="reply", **facts)


def failed(status: int, **facts: Any) -> ServerError:
    return ServerError("", status=status, **facts)


#: The row, an error that it is for, the scope of the same error before a message is sent, and the rest of the verdict.
# fmt: off
ROWS: List[Tuple[str, CopilotError, Scope, Verdict]] = [
    ("a quota without a reply", QuotaExceededError("", stage="stream"), STOP, Verdict(NEVER, STOP)),
    ("a quota", QuotaExceededError("", status=402, stage="message"), STOP, Verdict(NEVER, STOP, QUOTA)),
    ("a quota", QuotaExceededError("", status=429, stage="message"), STOP, Verdict(NEVER, STOP, QUOTA)),
    ("our own limiter", RateLimitError("", stage="message"), WAIT, Verdict(NEVER, WAIT, not_asked=True)),
    ("our own limiter", BudgetExceededError("", stage="limit"), WAIT, Verdict(NEVER, WAIT, not_asked=True)),
    ("our own limiter", ServerError("", stage="message"), WAIT, Verdict(NEVER, WAIT, not_asked=True)),
    ("a limit in an answer", RateLimitError("", stage="stream"), WAIT, Verdict(NEVER, WAIT, in_answer=True)),
    ("a limit", RateLimitError("", status=429, stage="message"), WAIT, Verdict(AGAIN, WAIT, REFUSED)),
    ("a limit", RateLimitError("", status=403, stage="message"), WAIT, Verdict(AGAIN, WAIT, REFUSED)),
    ("this message is forbidden", PermissionDeniedError("", status=403, stage="message"), MINE, Verdict(NEVER, MINE)),
    ("a failure in an answer", AuthenticationError("", stage="stream"), STOP, Verdict(NEVER, MINE)),
    ("a failure in an answer", ServerError("", stage="stream"), WAIT, Verdict(NEVER, MINE)),
    ("credentials refused", AuthenticationError("", status=401, stage="message"), STOP, Verdict(NEVER, STOP, DENIED)),
    ("no way to ask here", AuthenticationError("", stage="message"), STOP, Verdict(NEVER, STOP)),
    ("the quota is not shown", AuthenticationError("", status=403, stage="quota"), MINE, Verdict(NEVER, MINE)),
    ("no way to ask here", MissingCredentialsError("", stage="credentials"), STOP, Verdict(NEVER, STOP)),
    ("no way to ask here", WrongHostError("", status=421, stage="message"), STOP, Verdict(NEVER, STOP)),
    ("no way to ask here", StreamClosedError("", stage="message"), STOP, Verdict(NEVER, STOP)),
    ("408, 409, 425", failed(408, stage="message"), WAIT, Verdict(AGAIN, MINE)),
    ("408, 409, 425", failed(409, stage="message"), WAIT, Verdict(AGAIN, MINE)),
    ("408, 409, 425", failed(425, stage="message"), WAIT, Verdict(AGAIN, MINE)),
    ("503 with Retry-After", failed(503, stage="message", not_processed=True), WAIT, Verdict(AGAIN, WAIT, REFUSED)),
    ("500, 502, 503, 504", failed(500, stage="message"), WAIT, Verdict(LOOK, WAIT, FAILING, may_be_processed=True)),
    ("500, 502, 503, 504", failed(503, stage="message"), WAIT, Verdict(LOOK, WAIT, FAILING, may_be_processed=True)),
    ("500, 502, 503, 504", failed(502, stage="message"), WAIT, Verdict(LOOK, WAIT, FAILING, may_be_processed=True)),
    ("500, 502, 503, 504", failed(504, stage="message"), WAIT, Verdict(LOOK, WAIT, FAILING, may_be_processed=True)),
    ("any other 5xx", failed(520, stage="message"), WAIT, Verdict(NEVER, WAIT, FAILING, may_be_processed=True)),
    ("any other server error", failed(424, stage="message"), WAIT, Verdict(NEVER, MINE)),
    ("any other server error", failed(499, stage="message"), WAIT, Verdict(NEVER, MINE)),
    ("a proxy's refusal", NetworkError("", status=407, stage="message"), WAIT, Verdict(NEVER, WAIT)),
    ("a certificate, an extra", NetworkError("", permanent=True, stage="message"), WAIT, Verdict(NEVER, WAIT, FAILING)),
    ("the call's time is over", RequestTimeoutError("", stage="message"), MINE, Verdict(NEVER, MINE)),
    ("an answer that broke off", NetworkError("", partial="He", stage="stream"), MINE,
     Verdict(LOOK, MINE, FAILING, may_be_processed=True)),
    ("no connection", NetworkError("", may_have_been_sent=False, stage="message"), WAIT, Verdict(AGAIN, WAIT, FAILING)),
    ("silence", silence(stage="message"), WAIT, Verdict(LOOK, MINE, FAILING, may_be_processed=True)),
    ("a broken connection", NetworkError("", stage="message"), WAIT,
     Verdict(LOOK, WAIT, FAILING, may_be_processed=True)),
    ("a reply nobody understands", ProtocolError("", stage="message"), WAIT, Verdict(NEVER, MINE)),
    ("a reply nobody understands", ResponseTooLargeError("", stage="message"), WAIT, Verdict(NEVER, MINE)),
    ("anything else", InvalidRequestError("", status=400, stage="message"), MINE, Verdict(NEVER, MINE)),
    ("anything else", NotFoundError("", status=404, stage="message"), MINE, Verdict(NEVER, MINE)),
    ("anything else", StreamInterruptedError("", stage="message"), MINE, Verdict(NEVER, MINE)),
]
# fmt: on
each_row = pytest.mark.parametrize(("name", "error", "early", "verdict"), ROWS, ids=[repr(row[1]) for row in ROWS])


@each_row
def test_a_row_of_the_table(name: str, error: CopilotError, early: Scope, verdict: Verdict) -> None:
    """The first rule that matches is the one that is meant, and says what a failed message means."""
    assert next(rule.name for rule in RULES if rule.matches(error)) == name
    assert verdict_of(error) == verdict


@each_row
def test_before_a_message_is_sent_more_failures_are_everybodys(
    name: str, error: CopilotError, early: Scope, verdict: Verdict
) -> None:
    """Nothing of the message was in the request, so the message is not at fault and is not looked for."""
    rule = next(rule for rule in RULES if rule.name == name)
    if name in ("a limit in an answer", "a failure in an answer", "a quota without a reply", "the quota is not shown"):
        return  # there is no answer yet, or no message at all
    stage = error.stage
    try:
        for error.stage in ("token", "thread", "messages"):
            assert verdict_of(error).scope is early is rule.early
            assert not verdict_of(error).may_be_processed
    finally:
        error.stage = stage


def test_every_row_has_an_example() -> None:
    """A rule that nothing can reach would be a rule that nobody has checked."""
    assert {row[0] for row in ROWS} == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_what_is_no_error_of_ours_is_the_messages_own() -> None:
    """Such as a text that can't be sent."""
    assert verdict_of(ValueError("no text")) == Verdict(NEVER, MINE)


@pytest.mark.parametrize(
    ("error", "may_be"),
    [
        (failed(500, stage="message"), True),
        (NetworkError("", stage="message"), True),
        (failed(500, stage="thread"), False),
        (failed(503, stage="message", not_processed=True), False),
        (RateLimitError("", status=429, stage="message"), False),
        (InvalidRequestError("", status=400, stage="message"), False),
    ],
    ids=repr,
)
def test_an_outage_may_be_one_messages_fault(error: CopilotError, may_be: bool) -> None:
    """Only if its own request failed, and the service did not say that it is busy."""
    assert verdict_of(error).may_be_the_messages_fault is may_be


@pytest.mark.parametrize(
    ("error", "stage", "is_shared"),
    [
        (StreamInterruptedError, "messages", True),
        (StreamInterruptedError, "message", False),
        (ServerError, "messages", False),
    ],
)
def test_a_look_that_failed_may_be_everybodys_failure(error: Any, stage: str, is_shared: bool) -> None:
    """What kept one call from looking for its message keeps the others as well."""
    outer, inner = error("it is unknown"), RateLimitError("", status=429, stage=stage)
    outer.__cause__ = inner
    assert shared_cause(outer) is (inner if is_shared else None)


def test_a_look_that_found_no_conversation_is_nobody_elses_failure() -> None:
    """It concerns that conversation alone."""
    outer = StreamInterruptedError("it is unknown")
    assert shared_cause(outer) is None
    outer.__cause__ = NotFoundError("", status=404, stage="messages")
    assert shared_cause(outer) is None
