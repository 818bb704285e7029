"""The limits of an account as a guard of its calls.

Threads: safe for any thread.
"""

import functools
from typing import Any, Generator, Optional

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.account_guard import AccountGuard
from copilot_sync.delivery.guards import CallEnd, Leave
from copilot_sync.delivery.message import PendingMessage
from copilot_sync.pacing.account_limiter import AccountLimiter
from copilot_sync.pacing.account_state import RateRules
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
        slot = limiter.try_admit()
        if slot is None:
            yield from call.until_may_block()
            slot = limiter.admit(call, policy)
        return functools.partial(_leave, limiter, slot)

    def _find(self, cooldown: Cooldown) -> AccountLimiter:
        limiter = super()._find(cooldown)
        if self._store is not in_memory:
            cooldown.board = limiter
        return limiter


def _leave(limiter: AccountLimiter, slot: str, end: CallEnd) -> None:
    again = max(0, end.call.attempts["message"] - 1)
    if end.call.pace is Pace.POLLING:
        limiter.leave_soon(slot, again)
    else:
        limiter.leave(slot, again)
