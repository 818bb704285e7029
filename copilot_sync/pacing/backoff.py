"""How long a call waits before it sends a failed request again.

Whether it may be sent again is for ``policy`` to say. How often and how long is the caller's ``RetryPolicy``, composed
of ``tenacity``'s strategies; what the server asks for can only make a wait longer. ``tenacity`` is loaded when a client
is made, not before, and nothing of it shows outside of this module. Its own loop is not used: it keeps the error and
the frames of the attempt in a cycle, so that a failed connection would stay open until the next garbage collection.
"""

import logging
from typing import TYPE_CHECKING, Callable, Generator, Optional, TypeVar

from copilot_sync.errors import CopilotError
from copilot_sync.pacing.policy import PATIENT_STAGES, Resend, Signal, verdict_of
from copilot_sync.settings import RetryPolicy, address_of
from copilot_sync.stepping import Pause, without_pauses
from copilot_sync.transport.call import CallContext

if TYPE_CHECKING:
    import tenacity

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Backoff:
    """The attempts of one stage that are left, and the waits between them.

    Args:
        policy: How often and how patiently; ``None`` for never again.
        call: The call that waits.
    """

    def __init__(self, policy: Optional[RetryPolicy], call: CallContext) -> None:
        self._policy = policy
        self._call = call
        self._state: Optional[tenacity.RetryCallState] = None

    def after(self, error: CopilotError) -> None:
        """Wait before the next attempt after a failure.

        Raises:
            CopilotError: The failure itself, if no attempt is left or the wait would not fit.
        """
        policy = self._policy
        seconds = None if policy is None else self._next_wait(policy)
        if policy is None or seconds is None:
            raise error
        if not _is_waited_for(error, policy):
            raise error
        asked_for: float = getattr(error, "retry_after", None) or 0.0
        seconds = max(asked_for, seconds)
        remaining = self._call.remaining()
        if asked_for > policy.max_wait or (remaining is not None and seconds >= remaining):
            raise error
        logger.info("%s: trying again in %.2f s after %s", error.stage, seconds, _reason(error, self._call))
        if self._call.reporter is not None:
            self._call.reporter.retrying(error, seconds)
        if policy.on_retry is not None:
            policy.on_retry(error, seconds)
        with self._call.delayed("service", seconds, error):
            self._call.sleep(seconds)

    def _next_wait(self, policy: RetryPolicy) -> Optional[float]:
        """Return the seconds until the next attempt; ``None`` if there is none left."""
        if self._state is None:
            self._state = _first_attempt(policy)
        else:
            self._state.attempt_number += 1
        retrying = self._state.retry_object
        return None if retrying.stop(self._state) else retrying.wait(self._state)


def _is_waited_for(error: CopilotError, policy: RetryPolicy) -> bool:
    if policy.wait_for_limits or error.stage in PATIENT_STAGES:
        return True
    return verdict_of(error).signal is not Signal.REFUSED


def _first_attempt(policy: RetryPolicy) -> "tenacity.RetryCallState":
    """Compose the strategies of a policy: so many attempts, exponential back-off with full jitter."""
    import tenacity  # loaded with the client

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=tenacity.wait_random_exponential(multiplier=policy.base, max=policy.cap),
    )
    return tenacity.RetryCallState(retrying, fn=None, args=(), kwargs={})


def _reason(error: CopilotError, call: CallContext) -> str:
    facts = [f"status {error.status}"] if error.status is not None else []
    if call.route is not None:
        facts.append(address_of(call.route[0])[0])
    return f"{type(error).__name__} ({', '.join(facts)})" if facts else type(error).__name__


def retry(
    attempt: Callable[[], T], policy: Optional[RetryPolicy], call: CallContext, *, stage: Optional[str] = None
) -> T:
    """Make attempts until one succeeds. For requests that do no harm if they are processed twice.

    If a ``stage`` is named, failures of other stages are final: they have had attempts of their own.

    Raises:
        CopilotError: What the last attempt raised.
    """

    def steps() -> Generator[Pause, None, T]:
        return attempt()
        yield  # pragma: no cover - it makes this a generator

    return without_pauses(retrying(steps, policy, call, stage=stage))


def retrying(
    attempt: Callable[[], Generator[Pause, None, T]],
    policy: Optional[RetryPolicy],
    call: CallContext,
    *,
    stage: Optional[str] = None,
) -> Generator[Pause, None, T]:
    """Do what ``retry`` does, and return the same, in steps, for attempts in steps."""
    backoff = Backoff(policy, call)
    while True:
        try:
            return (yield from attempt())
        except CopilotError as error:
            call.counted(error)
            if stage not in (None, error.stage) or verdict_of(error).resend is Resend.FINAL:
                raise
            failure = error
        try:
            yield from call.until_may_block()
            backoff.after(failure)
        finally:
            del failure  # or it would hold the frame that holds it
