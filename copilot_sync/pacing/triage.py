"""What becomes of a message after a failure: it failed, everybody waits and it is sent again, or everybody stops.

``policy`` judges one failure by itself. Here is what only history can tell: a service that fails for the eighth time
in a row is not there; a message that is refused for the tenth time while others are answered is itself the reason; a
401 is believed the second time, because the service may have ended a token early; the fifth forbidden message in a row
means the account, not the messages.

A batch has one ``Triage`` for all of its messages. A task of Celery's has one for itself: it can't see what others
are answered.

Threads: confined to the one that iterates a batch, or runs a task.
"""

import enum
from dataclasses import dataclass

from copilot_sync.errors import BudgetExceededError, PermissionDeniedError
from copilot_sync.pacing.limiter import RateLimiter
from copilot_sync.pacing.policy import Scope, Verdict, verdict_of

#: Failures of the service in a row, with a pause for everybody after each, that end a batch: some two minutes.
MAX_FAILURES_IN_ROW = 8
#: How often a message is refused, or meets what looks like an outage, while others are answered, before it fails.
MAX_REFUSALS = 10
MAX_OUTAGES = 3
#: Forbidden messages without one answer between them that end a batch.
MAX_FORBIDDEN = 5
#: Seconds that a batch waits at most; if the service asks for more, or a budget is used up for longer, it ends.
LONGEST_WAIT = 3600.0


class Decision(enum.Enum):
    """What becomes of a message that failed."""

    #: The failure is its result.
    FAIL = "fail"
    #: The same, and no further message is sent.
    FAIL_AND_STOP = "fail and stop"
    #: Everybody waits for the limiter; then the message is sent again.
    WAIT = "wait"
    #: This message alone waits, because nothing was asked: the cool-down of its process said so.
    WAIT_ALONE = "wait alone"
    #: No further message is sent, and this one has no result: it is not its fault.
    STOP = "stop"


@dataclass
class MessageHistory:
    """What one message has met so far.

    Attributes:
        refusals: How often it was refused, or met an outage.
        answers_before: How many messages had been answered when that happened for the first time.
        pauses_before: How many pauses there had been when its present request began.
    """

    refusals: int = 0
    answers_before: int = 0
    pauses_before: int = 0


class Triage:
    """Decides by a failure and by what happened before. Tells the limiter what it has to know. For one thread.

    Args:
        limiter: What lets messages through.
        is_alone: Whether it sees one message only, so that others may be answered without its knowing.
    """

    def __init__(self, limiter: RateLimiter, *, is_alone: bool = False) -> None:
        self._limiter = limiter
        self._is_alone = is_alone
        self._answers = 0
        self._in_row = 0  # failures of the service since the last answer
        self._pauses = 0  # that they have begun
        self._forbidden = 0  # messages since the last answer

    def begin(self, history: MessageHistory) -> None:
        """Take note that a request for a message begins."""
        history.pauses_before = self._pauses

    def answered(self) -> None:
        """Take note of an answer."""
        self._limiter.answered()
        self._answers += 1
        self._in_row = self._forbidden = 0

    def decide(
        self, error: Exception, history: MessageHistory, *, is_last: bool = False, can_restart: bool = False
    ) -> Decision:
        """Decide what becomes of a message.

        Args:
            error: What it failed with.
            history: What it has met before. Updated.
            is_last: Whether no other message is left.
            can_restart: Whether it may be sent into another conversation.
        """
        verdict = verdict_of(error)
        may_be_early_end = getattr(error, "status", None) == 401 and not history.refusals and not self._is_alone
        if verdict.scope is Scope.MESSAGE:
            return self._failed(error)
        if verdict.scope is Scope.ALL_STOP and not may_be_early_end:
            return Decision.STOP
        if isinstance(error, BudgetExceededError) and (error.retry_after or 0.0) > LONGEST_WAIT:
            # One that is alone may have the budget of its own user; others find out without asking the service.
            return Decision.FAIL if self._is_alone else Decision.STOP
        if verdict.not_asked and self._is_alone:
            return Decision.WAIT_ALONE
        if not verdict.not_asked:
            self._count(history)
        pause = self._limiter.penalize(getattr(error, "retry_after", None))
        if self._is_its_own(verdict, history, is_last=is_last, can_restart=can_restart):
            return Decision.FAIL
        if not self._is_alone and (self._in_row >= MAX_FAILURES_IN_ROW or pause > LONGEST_WAIT):
            return Decision.STOP
        return Decision.WAIT

    def _failed(self, error: Exception) -> Decision:
        if getattr(error, "status", None) is not None:
            self._limiter.answered()  # the service was there, and did not ask to slow down
        if isinstance(error, PermissionDeniedError):
            self._forbidden += 1
            if self._forbidden >= MAX_FORBIDDEN:
                return Decision.FAIL_AND_STOP
        return Decision.FAIL

    def _count(self, history: MessageHistory) -> None:
        if not history.refusals:
            history.answers_before = self._answers
        history.refusals += 1
        # What else was under way when a pause began says nothing new, however late it comes.
        if history.pauses_before == self._pauses:
            self._pauses += 1
            self._in_row += 1

    def _is_its_own(self, verdict: Verdict, history: MessageHistory, *, is_last: bool, can_restart: bool) -> bool:
        """Whether what looks like everybody's failure concerns this message alone."""
        if verdict.in_answer and not can_restart:
            return True  # it is in its conversation, so it can't be sent again
        limit = MAX_OUTAGES if verdict.may_be_the_messages_fault else MAX_REFUSALS
        others_were_answered = self._is_alone or self._answers > history.answers_before
        if history.refusals >= limit and others_were_answered:
            return True
        is_outage = self._in_row >= MAX_FAILURES_IN_ROW and verdict.may_be_the_messages_fault
        return is_last and is_outage and self._answers > 0
