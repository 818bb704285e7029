"""How much of a day a user of the library allows an account, and each of those whom it serves: plain values."""

import hashlib
from dataclasses import dataclass
from typing import Iterator, Mapping, NamedTuple, Optional

from copilot_sync.pacing.limiter import checked_count

#: What a budget limits. Tokens come first: to look at them changes nothing.
TOKENS = "output_tokens"
REQUESTS = "requests"
_UNITS = (TOKENS, REQUESTS)


class Purse(NamedTuple):
    """One number of a budget.

    Attributes:
        name: What it is called where it is counted. It names no user.
        owner: Whose it is, in words.
        unit: What it limits.
        limit: How much of that.
    """

    name: str
    owner: str
    unit: str
    limit: int


@dataclass(frozen=True)
class Budget:
    """How much calls may use in 24 hours, which are counted by whole hours.

    A call is a question. It counts when it begins, and not at all if its message was not sent; one that the answer
    cache answers costs nothing. The tokens of an answer are known at its end: a call is refused if they have reached
    the limit by then. If the service does not say how many there were, each four characters of the text that came
    count as one, and any text as one at least. The tokens of an answer whose process was killed are lost.

    >>> from copilot_sync import Budget
    >>> Budget(per_day={"requests": 500}, per_user={"output_tokens": 20_000})
    Budget(per_day={'requests': 500}, per_user={'output_tokens': 20000})

    Attributes:
        per_day: How many ``requests`` and ``output_tokens`` the account may use; ``None`` for any number.
        per_user: The same for each ``user`` of ``Client.ask``; calls without one count for the account alone.

    Raises:
        TypeError: One is no mapping of whole numbers.
        ValueError: A name is unknown, or a number is below 1.
    """

    per_day: Optional[Mapping[str, int]] = None
    per_user: Optional[Mapping[str, int]] = None

    def __post_init__(self) -> None:
        for field in ("per_day", "per_user"):
            limits = getattr(self, field)
            if limits is None:
                continue
            if not isinstance(limits, Mapping):
                raise TypeError(f"{field} must be a mapping, not {type(limits).__name__}")
            for name, limit in limits.items():
                if name not in _UNITS:
                    raise ValueError(f"{field} has no {name!r:.40}; there are {REQUESTS} and {TOKENS}")
                checked_count(f"{name} of {field}", limit)
            object.__setattr__(self, field, dict(limits))  # nobody changes it from now on

    def purses(self, user: str) -> Iterator[Purse]:
        """Yield what a call has to pay from. ``user`` is for whom it is made, ``""`` for nobody."""
        owners = [("day", "the account", self.per_day)]
        if user:
            name = hashlib.sha256(user.encode("utf-8", "backslashreplace")).hexdigest()[:32]
            owners.append((f"user-{name}", f"the user {user!r:.80}", self.per_user))
        for unit in _UNITS:
            for name, owner, limits in owners:
                limit = (limits or {}).get(unit)
                if limit is not None:
                    yield Purse(f"{name}-{unit}", owner, unit, limit)
