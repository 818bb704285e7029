"""A budget as a guard of calls: what is used up refuses them, and what they cost is counted.

A call pays for its request when it begins, so that no two pay with the last one, and gets it back if its message was
not sent. It pays for the tokens of its answer at the end.

Threads: safe for any thread.
"""

import functools
from typing import Any, Generator, List, Optional, Sequence, Tuple

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.account_guard import AccountGuard
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.delivery.guards import CallEnd, Leave
from copilot_sync.delivery.message import PendingMessage
from copilot_sync.errors import BudgetExceededError
from copilot_sync.pacing.account_limiter import AccountLimiter
from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.budget import REQUESTS, Budget, Purse
from copilot_sync.settings import RetryPolicy
from copilot_sync.stepping import Pace, Pause
from copilot_sync.times import waiting_time
from copilot_sync.transport.call import CallContext

#: Characters of a token, if the service does not say how many tokens there were.
_CHARACTERS = 4
#: Tokens of an answer that are believed. More would be no number of tokens.
_MOST = 10**9


class BudgetGuard(AccountGuard):
    """Lets calls begin as long as their budget is not used up.

    Args:
        session: Knows whose account it is.
        budget: The budget.
        shared: Where processes share what they have spent, as ``Client`` takes it.

    Raises:
        TypeError: An argument is none of what it may be.
        ValueError: ``shared`` is a cache that can't be used for it.
    """

    def __init__(self, session: ApiSession, budget: Budget, shared: Any) -> None:
        if not isinstance(budget, Budget):
            raise TypeError(f"budget must be a Budget, not {type(budget).__name__}")
        super().__init__(session, RateRules(), shared)
        self._budget = budget
        self._arguments = (session, budget, shared)

    def entering(
        self, message: PendingMessage, call: CallContext, policy: Optional[RetryPolicy]
    ) -> Generator[Pause, None, Leave]:
        """Pay for the call.

        Raises:
            BudgetExceededError: There is nothing left to pay with.
            CopilotError: There are no credentials, or the call was stopped.
        """
        limiter = yield from self.finding(call)
        purses = list(self._budget.purses(message.user))
        for place, purse in enumerate(purses):
            seconds = limiter.spend(purse.name, purse.limit, 1 if purse.unit == REQUESTS else 0)
            if seconds > 0:
                _pay(limiter, _prices(purses[:place], requests=-1))
                raise _used_up(limiter, purse, seconds)
        return functools.partial(_leave, limiter, purses)


#: What is taken from purses, by their names.
_Prices = List[Tuple[str, int]]


def _prices(purses: Sequence[Purse], *, requests: int, tokens: int = 0) -> _Prices:
    prices = [(purse.name, requests if purse.unit == REQUESTS else tokens) for purse in purses]
    return [(name, number) for name, number in prices if number]


def _pay(limiter: AccountLimiter, prices: _Prices) -> None:
    for name, number in prices:
        limiter.spend(name, None, number)


def _leave(limiter: AccountLimiter, purses: Sequence[Purse], end: CallEnd) -> None:
    is_sent = end.call.attempts["message"] > 0
    pay = functools.partial(_pay, limiter, _prices(purses, requests=0 if is_sent else -1, tokens=_tokens(end.builder)))
    if end.call.pace is Pace.POLLING:
        limiter.soon(pay)
    else:
        pay()


def _tokens(builder: AnswerBuilder) -> int:
    """Return the tokens of an answer as the service counted them, else an estimate."""
    usage = None if builder.complete is None else builder.complete.usage
    if usage is not None and usage.output_tokens is not None:
        return min(max(0, usage.output_tokens), _MOST)
    return -(-len(builder.text) // _CHARACTERS)


def _used_up(limiter: AccountLimiter, purse: Purse, seconds: float) -> BudgetExceededError:
    unit = purse.unit.replace("_", " ")
    part = ", a quarter of which counts as long as it can't be shared" if limiter.is_away else ""
    used = f"{limiter.spent(purse.name)} of {purse.limit} {unit} in 24 hours{part}"
    words = f"the budget of {purse.owner} is used up ({used}); some of it is free again in {waiting_time(seconds)}"
    return BudgetExceededError(words, retry_after=seconds, stage="limit")
