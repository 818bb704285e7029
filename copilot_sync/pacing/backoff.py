"""When a request is tried again, and how long that waits.

What may be tried again is decided in one place, ``outcome_of``: whether a failed request was
taken by the service decides whether sending it again is safe. How long to wait is a policy of the
caller's, worked out with ``tenacity``'s strategies; what the server says can only make it longer. ``tenacity`` is
imported when a client is made, not before, and nothing of it shows outside of this module.
"""

import enum
import logging
import math
from dataclasses import dataclass
from typing import Callable, Optional, TypeVar

from copilot_sync.errors import (
    CopilotError,
    NetworkError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from copilot_sync.transport.boundary import is_permanent
from copilot_sync.transport.call import CallContext

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a failed request is tried again.

    Args:
        attempts: Requests in all for each stage. Default 4.
        base: Seconds; the first wait is anything up to it, and the bound doubles with each further one. Default 0.5.
        cap: The longest wait of our own, in seconds. Default 8.
        max_wait: The longest wait that the server may ask for, in seconds. Where it asks for more, the
            error is raised at once. Default 60.
        on_retry: Called as ``on_retry(error, seconds)`` before each wait; what it raises ends the call.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A number is out of its range.
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 8.0
    max_wait: float = 60.0
    on_retry: Optional[Callable[[CopilotError, float], None]] = None

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"attempts must be a whole number, not {type(self.attempts).__name__}")
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        for name in ("base", "cap", "max_wait"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
            if not value >= 0 or math.isinf(value):
                raise ValueError(f"{name} must be a number of seconds of at least zero, not {value}")
        if self.on_retry is not None and not callable(self.on_retry):
            raise TypeError("on_retry must be callable")

    @classmethod
    def from_value(cls, value: "Optional[RetryPolicy]") -> "Optional[RetryPolicy]":
        """Check what callers give: a policy, or ``None`` for no retries."""
        if value is not None and not isinstance(value, RetryPolicy):
            raise TypeError(f"retry must be a RetryPolicy or None, not {type(value).__name__}")
        return value


class Outcome(enum.Enum):
    """What became of a request that failed."""

    #: The service did not take it: it may be sent again.
    NOT_PROCESSED = "not taken"
    #: It may have been taken: only a request that does no harm twice may just be sent again.
    UNKNOWN = "unknown"
    #: Sending it again would not help.
    FINAL = "final"


def outcome_of(error: CopilotError) -> Outcome:
    """Judge a failure of a request, by what it was."""
    if isinstance(error, QuotaExceededError) or is_permanent(error):
        return Outcome.FINAL
    if isinstance(error, RateLimitError):
        # Without a status it is our own word: it has been waited for already.
        return Outcome.FINAL if error.status is None else Outcome.NOT_PROCESSED
    if isinstance(error, ServerError):
        return _outcome_of_status(error)
    if isinstance(error, NetworkError):
        if error.status is not None or getattr(error, "phase", "") == "total":
            return Outcome.FINAL
        return Outcome.UNKNOWN if error.may_have_been_sent else Outcome.NOT_PROCESSED
    return Outcome.FINAL


def _outcome_of_status(error: ServerError) -> Outcome:
    if error.status in (408, 409, 425) or error.not_processed:
        return Outcome.NOT_PROCESSED
    if error.status in (500, 502, 503, 504):
        return Outcome.UNKNOWN
    return Outcome.FINAL


class Backoff:
    """The attempts of one stage that are left, and the waits between them.

    Args:
        policy: How often and how patiently; ``None`` for never again.
        call: The call that waits.
    """

    def __init__(self, policy: Optional[RetryPolicy], call: CallContext) -> None:
        self._policy = policy
        self._call = call
        self._failures = 0

    def after(self, error: CopilotError) -> None:
        """Wait before the next attempt after a failure.

        Raises:
            CopilotError: The failure itself, where no attempt is left or the wait would not fit.
        """
        policy = self._policy
        self._failures += 1
        if policy is None or self._failures >= policy.attempts:
            raise error
        seconds = self._seconds(policy, error)
        remaining = self._call.remaining()
        if seconds is None or (remaining is not None and seconds >= remaining):
            raise error
        logger.info("%s: trying again in %.2f s after %s", error.stage, seconds, _reason(error))
        if policy.on_retry is not None:
            policy.on_retry(error, seconds)
        self._call.sleep(seconds)

    def _seconds(self, policy: RetryPolicy, error: CopilotError) -> Optional[float]:
        """How long to wait; ``None`` where the server asks for more than the policy allows."""
        told: Optional[float] = getattr(error, "retry_after", None)
        if told is not None and told > policy.max_wait:
            return None
        return max(told or 0.0, _jittered(policy, self._failures))


def _jittered(policy: RetryPolicy, failures: int) -> float:
    """Exponential back-off with full jitter: anything between nothing and a bound that doubles."""
    import tenacity  # loaded with the client

    state = tenacity.RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = failures
    return tenacity.wait_random_exponential(multiplier=policy.base, max=policy.cap)(state)


def _reason(error: CopilotError) -> str:
    return type(error).__name__ if error.status is None else f"{type(error).__name__} (status {error.status})"


def retry(
    attempt: Callable[[], T], policy: Optional[RetryPolicy], call: CallContext, *, stage: Optional[str] = None
) -> T:
    """Make attempts until one succeeds. For requests that do no harm where they are taken twice.

    Where a ``stage`` is named, failures of other stages are final: they have had attempts of their own.

    Raises:
        CopilotError: What the last attempt raised.
    """
    backoff = Backoff(policy, call)
    while True:
        try:
            return attempt()
        except CopilotError as error:
            call.counted(error)
            if stage not in (None, error.stage) or outcome_of(error) is Outcome.FINAL:
                raise
            backoff.after(error)
