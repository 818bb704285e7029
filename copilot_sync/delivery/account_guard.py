"""What the guards of an account's calls have in common: they find the account, and what is known of it.

Threads: safe for any thread.
"""

from typing import Any, Generator, Optional, Tuple

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.guards import CallGuard
from copilot_sync.pacing.account_limiter import AccountLimiter, limiter_of
from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.cooldown import Cooldown
from copilot_sync.pacing.stores import store_of
from copilot_sync.stepping import Pause
from copilot_sync.transport.call import CallContext


class AccountGuard(CallGuard):
    """A guard that goes by what is known of an account.

    Args:
        session: Knows whose account it is.
        rules: The limits.
        shared: Where processes share what they know, as ``Client`` takes it.

    Raises:
        TypeError: ``shared`` is none of what it may be.
        ValueError: ``shared`` is a cache that can't be used for it.
    """

    #: What makes the same guard in another process. Whoever inherits sets it.
    _arguments: Tuple[Any, ...]

    def __init__(self, session: ApiSession, rules: RateRules, shared: Any) -> None:
        self._session = session
        self._store = store_of(shared)
        self._rules = rules
        self._limiter: Optional[AccountLimiter] = None
        self._account = ""

    def finding(self, call: CallContext) -> Generator[Pause, None, AccountLimiter]:
        """Find what is known of the account, in a step that may block unless all of it is in memory.

        Raises:
            CopilotError: There are no credentials, or the call was stopped.
        """
        limiter = self._limiter
        if limiter is None or self._account != self._session.account or not limiter.is_instant:
            yield from call.until_may_block()
            limiter = self._find(self._session.find_account())
        return limiter

    def _find(self, cooldown: Cooldown) -> AccountLimiter:
        limiter, account = self._limiter, cooldown.account
        if limiter is None or self._account != account:
            limiter = limiter_of(account, self._store, self._rules)
            self._limiter, self._account = limiter, account
        return limiter

    def close(self) -> None:
        """End what keeps the slots of this process, if there are none."""
        if self._limiter is not None:
            self._limiter.close()

    def __getstate__(self) -> Any:
        return self._arguments

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]
