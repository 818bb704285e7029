"""What becomes of a message after a failure, by what happened before. The clock of the limiter is the test's."""

from typing import Any, List

import pytest

from copilot_sync.errors import (
    AuthenticationError,
    BudgetExceededError,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from copilot_sync.pacing.limiter import RateLimiter
from copilot_sync.pacing.triage import (
    LONGEST_WAIT,
    MAX_FAILURES_IN_ROW,
    MAX_FORBIDDEN,
    MAX_OUTAGES,
    MAX_REFUSALS,
    Decision,
    MessageHistory,
    Triage,
)

LIMIT = RateLimitError("", status=429, stage="message")
OUTAGE = ServerError("", status=500, stage="message")
OURS = RateLimitError("", retry_after=3.0, stage="message")
IN_ANSWER = RateLimitError("", stage="stream")
FORBIDDEN = PermissionDeniedError("", status=403, stage="message")
WRONG = InvalidRequestError("", status=400, stage="message")
EXPIRED = AuthenticationError("", status=401, stage="message")
GONE = NetworkError("", may_have_been_sent=False, stage="thread")


def new_limiter() -> RateLimiter:
    return RateLimiter(4, clock=lambda: 0.0)


def fresh(*, is_alone: bool = False) -> Triage:
    return Triage(new_limiter(), is_alone=is_alone)


def decisions(triage: Triage, error: CopilotError, times: int, **facts: Any) -> List[Decision]:
    """What becomes of one message that meets the same failure again and again."""
    history = MessageHistory()
    made = []
    for _ in range(times):
        triage.begin(history)
        made.append(triage.decide(error, history, **facts))
    return made


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (LIMIT, Decision.WAIT),
        (OUTAGE, Decision.WAIT),
        (GONE, Decision.WAIT),
        (OURS, Decision.WAIT),
        (WRONG, Decision.FAIL),
        (FORBIDDEN, Decision.FAIL),
        (ValueError("no text"), Decision.FAIL),
        (QuotaExceededError("", status=402, stage="message"), Decision.STOP),
        (RateLimitError("", status=429, stage="message", retry_after=LONGEST_WAIT + 1), Decision.STOP),
        (BudgetExceededError("", stage="limit", retry_after=LONGEST_WAIT + 1), Decision.STOP),
        (BudgetExceededError("", stage="limit", retry_after=LONGEST_WAIT - 1), Decision.WAIT),
    ],
    ids=repr,
)
def test_the_first_failure_of_a_batch(error: Exception, decision: Decision) -> None:
    """It waits for what concerns everybody, fails with what is its own, and stops if waiting is in vain."""
    assert fresh().decide(error, MessageHistory()) is decision


@pytest.mark.parametrize("error", [LIMIT, OUTAGE, GONE], ids=repr)
def test_a_service_that_is_not_there_ends_a_batch(error: CopilotError) -> None:
    """After so many failures in a row, each with a pause."""
    made = decisions(fresh(), error, MAX_FAILURES_IN_ROW)
    assert made == [Decision.WAIT] * (MAX_FAILURES_IN_ROW - 1) + [Decision.STOP]


def test_what_was_under_way_when_a_pause_began_counts_once() -> None:
    """Twenty requests that fail together are one failure of the service."""
    triage = fresh()
    histories = [MessageHistory() for _ in range(20)]
    for history in histories:
        triage.begin(history)
    assert {triage.decide(LIMIT, history) for history in histories} == {Decision.WAIT}


def test_an_answer_begins_the_count_anew() -> None:
    """The service is there."""
    triage = fresh()
    for _ in range(3):
        assert set(decisions(triage, LIMIT, MAX_FAILURES_IN_ROW - 1)) == {Decision.WAIT}
        triage.answered()


@pytest.mark.parametrize(("error", "most"), [(LIMIT, MAX_REFUSALS), (OUTAGE, MAX_OUTAGES)], ids=["limit", "outage"])
def test_a_message_that_is_refused_while_others_are_answered_fails(error: CopilotError, most: int) -> None:
    """It is the message then, and not the service."""
    triage, history = fresh(), MessageHistory()
    for _ in range(most - 1):
        triage.begin(history)
        assert triage.decide(error, history) is Decision.WAIT
        triage.answered()
    assert triage.decide(error, history) is Decision.FAIL


def test_the_last_message_of_a_batch_may_be_the_reason_of_an_outage() -> None:
    """Others were answered, and there is nobody left to tell by."""
    triage = fresh()
    triage.answered()
    made = decisions(triage, OUTAGE, MAX_FAILURES_IN_ROW, is_last=True)
    assert made == [Decision.WAIT] * (MAX_FAILURES_IN_ROW - 1) + [Decision.FAIL]


def test_a_401_is_believed_the_second_time() -> None:
    """The service may have ended a token early."""
    assert decisions(fresh(), EXPIRED, 2) == [Decision.WAIT, Decision.STOP]


def test_forbidden_messages_in_a_row_are_the_account() -> None:
    """Each fails by itself, and the last one ends the batch; an answer between them shows that it was the messages."""
    triage = fresh()
    made = [triage.decide(FORBIDDEN, MessageHistory()) for _ in range(MAX_FORBIDDEN)]
    assert made == [Decision.FAIL] * (MAX_FORBIDDEN - 1) + [Decision.FAIL_AND_STOP]
    triage.answered()
    assert triage.decide(FORBIDDEN, MessageHistory()) is Decision.FAIL


@pytest.mark.parametrize(("can_restart", "decision"), [(True, Decision.WAIT), (False, Decision.FAIL)])
def test_a_limit_in_an_answer_needs_another_conversation(can_restart: bool, decision: Decision) -> None:
    """The message is in this one."""
    assert fresh().decide(IN_ANSWER, MessageHistory(), can_restart=can_restart) is decision


@pytest.mark.parametrize(
    ("error", "made"),
    [
        (OURS, [Decision.WAIT_ALONE] * 20),
        (BudgetExceededError("", stage="limit", retry_after=LONGEST_WAIT - 1), [Decision.WAIT_ALONE] * 20),
        (BudgetExceededError("", stage="limit", retry_after=LONGEST_WAIT + 1), [Decision.FAIL]),
        (EXPIRED, [Decision.STOP]),
        (OUTAGE, [*[Decision.WAIT] * (MAX_OUTAGES - 1), Decision.FAIL]),
        (LIMIT, [*[Decision.WAIT] * (MAX_REFUSALS - 1), Decision.FAIL]),
        (IN_ANSWER, [Decision.FAIL]),
    ],
    ids=["our own limiter", "a budget", "a budget for hours", "401", "outage", "limit", "limit in an answer"],
)
def test_a_message_alone_can_not_see_what_others_meet(error: CopilotError, made: List[Decision]) -> None:
    """It takes them for answered, never ends a batch, and waits by itself if nothing was asked."""
    assert decisions(fresh(is_alone=True), error, len(made)) == made


@pytest.mark.parametrize(
    ("error", "pauses"),
    [(LIMIT, True), (OUTAGE, True), (WRONG, False), (ValueError("no text"), False), (FORBIDDEN, False)],
    ids=repr,
)
def test_only_what_concerns_everybody_makes_everybody_wait(error: Exception, pauses: bool) -> None:
    """The limiter learns of it."""
    limiter = new_limiter()
    Triage(limiter).decide(error, MessageHistory())
    assert (limiter.pause > 0) is pauses


def test_a_failure_of_its_own_shows_that_the_service_is_there() -> None:
    """So the one message that tries after a pause opens the way for the others."""
    now = [0.0]
    limiter = RateLimiter(4, clock=lambda: now[0])
    triage = Triage(limiter)
    triage.decide(LIMIT, MessageHistory())
    now[0] = 100.0
    assert [limiter.try_acquire() == 0 for _ in range(2)] == [True, False]
    triage.decide(WRONG, MessageHistory())
    assert limiter.try_acquire() == 0
