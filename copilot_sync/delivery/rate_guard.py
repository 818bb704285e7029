"""The limits of an account as a guard of its calls.

Threads: safe for any thread.
"""

import math
import os
from typing import Any, Generator, Optional

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.account_guard import AccountGuard
from copilot_sync.delivery.guards import CallEnd, Leave
from copilot_sync.delivery.message import PendingMessage
from copilot_sync.errors import CopilotError
from copilot_sync.pacing.account_limiter import AccountLimiter
from copilot_sync.pacing.account_state import WINDOW, RateRules
from copilot_sync.pacing.cooldown import Cooldown
from copilot_sync.pacing.rate_limit import RateLimit
from copilot_sync.pacing.shared_state import in_memory
from copilot_sync.settings import RetryPolicy
from copilot_sync.stepping import Pace, Pause
from copilot_sync.transport.call import CallContext


class RateGuard(AccountGuard):
    """Lets calls begin as the limits of their account have it.

    Args:
        session: Knows whose account it is.
        limit: The limits; ``None`` for none but the pauses that the service asks for.
        shared: Where processes share what they know, as ``Client`` takes it.

    Raises:
        TypeError: An argument is none of what it may be.
        ValueError: ``shared`` is a cache that can't be used for it.
    """

    def __init__(self, session: ApiSession, limit: Optional[RateLimit], shared: Any) -> None:
        if limit is not None and not isinstance(limit, RateLimit):
            raise TypeError(f"rate_limit must be a RateLimit, not {type(limit).__name__}")
        limits = limit or RateLimit()
        super().__init__(session, RateRules(limits.per_minute, limits.concurrency, limits.per_day), shared)
        self._arguments = (session, limit, shared)

    def entering(
        self, message: PendingMessage, call: CallContext, policy: Optional[RetryPolicy]
    ) -> Generator[Pause, None, Leave]:
        """Wait until the call may begin.

        Raises:
            RateLimitError: It may not begin soon enough.
            CopilotError: There are no credentials, or the call was stopped.
        """
        limiter = yield from self.finding(call)
        place = _Place(limiter)
        try:
            if limiter.try_admit(place.slot) is None:
                yield from call.until_may_block()
                limiter.admit(call, policy, place.slot)
        except BaseException as error:
            place.drop(was_taken=not isinstance(error, CopilotError))
            raise
        place.taken(call)
        return place

    def _find(self, cooldown: Cooldown) -> AccountLimiter:
        limiter = super()._find(cooldown)
        if self._store is not in_memory:
            cooldown.board = limiter
        return limiter


class _Place:
    """A call's place among those that are under way.

    It is there before it is taken, and one that is dropped is given back: whatever a call is interrupted by, and
    wherever, its slot is not lost.
    """

    _is_left = True  # as long as it is being made

    def __init__(self, limiter: AccountLimiter) -> None:
        self.slot = limiter.new_slot()
        self._limiter = limiter
        self._process = os.getpid()
        self._taken = math.inf
        self._is_left = False

    def __call__(self, end: CallEnd) -> None:
        """Give it back. A forked child has a copy: the place is its parent's."""
        try:
            if os.getpid() == self._process:
                again = end.call.attempts["message"] - 1
                if again < 0 and end.call.clock() - self._taken >= WINDOW:
                    again = 0  # its start counts no more
                if end.call.pace is Pace.POLLING:
                    self._limiter.leave_soon(self.slot, again)
                else:
                    self._limiter.leave(self.slot, again)
            self._is_left = True
        finally:
            self.drop()

    def taken(self, call: CallContext) -> None:
        """Note when it was taken."""
        self._taken = call.clock()

    def drop(self, was_taken: bool = True) -> None:
        """Have it given back soon, unless it was, or was never taken: the call may have been interrupted in between."""
        if was_taken and not self._is_left and os.getpid() == self._process:
            self._limiter.lose(self.slot)
        self._is_left = True

    def __del__(self) -> None:
        try:
            self.drop()
        finally:
            self.drop()  # the first time may have been interrupted
