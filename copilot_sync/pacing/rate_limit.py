"""The limits that a user sets for an account."""

from dataclasses import dataclass
from typing import Optional

from copilot_sync.pacing.limiter import checked_count


@dataclass(frozen=True)
class RateLimit:
    """How much of an account its calls may use, in all processes that share it.

    A call is a question: a new thread and the message that goes into it, or the message alone. One that has to wait
    waits until its time limit is over.

    >>> from copilot_sync import RateLimit
    >>> RateLimit(per_minute=20, concurrency=4)
    RateLimit(per_minute=20, concurrency=4, per_day=None)

    Attributes:
        per_minute: How many may begin in any minute; ``None`` for any number.
        concurrency: How many may be under way at once; ``None`` for any number.
        per_day: How many may begin in 24 hours, which are counted by whole hours; ``None`` for any number.

    Raises:
        TypeError: One is no whole number.
        ValueError: One is below 1.
    """

    per_minute: Optional[int] = None
    concurrency: Optional[int] = None
    per_day: Optional[int] = None

    def __post_init__(self) -> None:
        for name in ("per_minute", "concurrency", "per_day"):
            value = getattr(self, name)
            if value is not None:
                checked_count(name, value)
