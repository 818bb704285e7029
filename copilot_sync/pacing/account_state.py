"""What is known of an account's calls, and what may begin by that: arithmetic alone, without a clock or a store.

Rules:

- A call counts for a minute and a margin from its start, because the service sees it later than it was let in, by how
  long it takes to create a thread. One whose message was sent again counts once more; one that sent none, not at all.
- A slot is held until it is given back, or its lease ends: that of a process that was killed.
- After a refusal nothing starts until the pause is over. From then on starts keep a distance, for a minute.
- A budget is a state of its own, which counts what is spent, by hours.
- Time that went backwards, as it does when a clock is set or a machine starts, has not gone by: everything that is
  known moves along.

Threads: confined to whoever holds the store's lock. The same rules are written once more for Redis, in ``redis_store``.
"""

import math
from typing import Any, Dict, List, NamedTuple, Optional

#: Seconds of a minute, and by how much longer a call counts.
WINDOW = 60.0
MARGIN = 0.025
#: Seconds of an hour: the starts of a day are counted by hours.
HOUR = 3600.0
HOURS = 24
#: Seconds for which a slot is held without a word of its holder.
LEASE = 30.0
#: Seconds for which starts keep a distance after a pause, and that distance.
CAREFUL = 60.0
GAP = 0.3
#: Seconds for which a pause lasts at most, and a number that is no time any more.
_LONGEST_PAUSE = 24 * HOUR
_END_OF_TIME = 1e300
#: What an operation says if nothing has to wait, but starts keep a distance.
IS_CAREFUL = -1.0


class RateRules(NamedTuple):
    """The limits of an account; ``None`` for none. The window and the lease are in seconds."""

    per_minute: Optional[int] = None
    concurrency: Optional[int] = None
    per_day: Optional[int] = None
    window: float = WINDOW * (1 + MARGIN)
    lease: float = LEASE


class AccountState:
    """What is known. Times are by the clock of whoever keeps it.

    Args:
        kept: What ``to_dict`` gave before; anything else that it may be is nothing.
    """

    def __init__(self, kept: Optional[Dict[str, Any]] = None) -> None:
        kept = kept or {}
        self.at: float = kept.get("at", -math.inf)
        self.starts: List[float] = kept.get("starts", [])
        self.hours: Dict[str, int] = kept.get("hours", {})
        self.slots: Dict[str, float] = kept.get("slots", {})
        self.until: float = kept.get("until", -math.inf)
        self.turn: float = kept.get("turn", -math.inf)
        # The boot of the machine in which it was kept, and by how much the times are ahead of the uptime.
        self.boot: str = kept.get("boot", "")
        self.ahead: Optional[float] = kept.get("ahead")

    def to_dict(self) -> Dict[str, Any]:
        """Return all of it, for JSON."""
        return {name: value for name, value in self.__dict__.items() if value not in (-math.inf, "", None)}

    @classmethod
    def checked(cls, kept: Any) -> "AccountState":
        """Read what may be anything.

        Raises:
            ValueError: It is no state.
        """
        if not isinstance(kept, dict):
            raise ValueError("it is no object")
        if not isinstance(kept.get("boot", ""), str):
            raise ValueError("boot is no text")
        numbers = [kept.get(name, 0) for name in ("at", "until", "turn", "ahead")]
        for name, kind in (("starts", list), ("hours", dict), ("slots", dict)):
            values = kept.get(name, kind())
            if not isinstance(values, kind):
                raise ValueError(f"{name} is no {kind.__name__}")
            numbers.extend(values.values() if isinstance(values, dict) else values)
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < _END_OF_TIME:
                raise ValueError(f"{number!r:.20} is no time")
        for hour in kept.get("hours", {}):
            int(hour)
        state = cls(kept)
        if (
            max([*state.starts, state.until - _LONGEST_PAUSE, state.turn - _LONGEST_PAUSE], default=-math.inf)
            > state.at
        ):
            raise ValueError("it is of a time that has not come")
        return state

    def settle(self, now: float) -> None:
        """Go on to a time."""
        if now < self.at:
            self.restart(now)
        self.at = now

    def restart(self, now: float) -> None:
        """Go on at another time, as if none had gone by."""
        if self.at != -math.inf:
            self._move(now - self.at)
            self.at = now

    def _move(self, seconds: float) -> None:
        self.starts = [start + seconds for start in self.starts]
        self.slots = {holder: end + seconds for holder, end in self.slots.items()}
        self.until += seconds
        self.turn += seconds
        total = sum(self.hours.values())
        self.hours = {self._hour(self.at + seconds): total} if total else {}

    @staticmethod
    def _hour(at: float) -> str:
        return str(math.floor(at / HOUR))

    def admit(self, now: float, rules: RateRules, holder: str) -> float:
        """Let a call begin, if it may.

        Returns:
            0 if it has begun, ``IS_CAREFUL`` if it has and a pause is not long over; else the seconds until it may,
            infinity if a slot has to be given back first.
        """
        wait = max(self.until, self.turn if self.is_careful(now) else now) - now
        if wait > 0:
            return wait
        if rules.concurrency is not None:
            self.slots = {each: end for each, end in self.slots.items() if end > now}
            if len(self.slots) >= rules.concurrency:
                return math.inf
        if rules.per_minute is not None:
            self._forget(now, rules)
            if len(self.starts) >= rules.per_minute:
                return self.starts[-rules.per_minute] + rules.window - now
        if rules.per_day is not None and self.spent(now) >= rules.per_day:
            return self._oldest_leaves(now)
        self._start(now, rules)
        if rules.concurrency is not None:
            self.slots[holder] = now + rules.lease
        if self.is_careful(now):
            self.turn = now + GAP
            return IS_CAREFUL
        return 0.0

    def _forget(self, now: float, rules: RateRules) -> None:
        since = now - rules.window
        if self.starts and self.starts[0] <= since:
            self.starts = [start for start in self.starts if start > since]

    def spent(self, now: float) -> int:
        """Return how much of a day has been spent, or how many have begun."""
        first = math.floor(now / HOUR) - HOURS
        self.hours = {hour: count for hour, count in self.hours.items() if int(hour) > first}
        return sum(self.hours.values())

    def _oldest_leaves(self, now: float) -> float:
        return (min(map(int, self.hours)) + HOURS) * HOUR - now

    def _start(self, now: float, rules: RateRules) -> None:
        if rules.per_minute is not None:
            self.starts.append(now)
        if rules.per_day is not None:
            hour = self._hour(now)
            self.hours[hour] = self.hours.get(hour, 0) + 1

    def spend(self, now: float, rules: RateRules, number: int) -> float:
        """Spend a part of a day, if less than all of it has been spent.

        Without a limit of the day it is always spent. A number below zero gives back what this hour has spent.

        Returns:
            0 if it is spent; else the seconds until some of what was spent counts no more.
        """
        if rules.per_day is not None:
            if self.until > now:
                return self.until - now
            if self.spent(now) >= rules.per_day:
                return self._oldest_leaves(now)
        hour = self._hour(now)
        count = self.hours.get(hour, 0) + number
        if count > 0:
            self.hours[hour] = count
        else:
            self.hours.pop(hour, None)
        return 0.0

    def leave(self, now: float, rules: RateRules, holder: str, again: int) -> float:
        """Give a slot back. The message was sent so many times more than once; below zero if it was not sent.

        Then one start counts no more: the oldest, because what is left is then no older than what it stands for.
        """
        self.slots.pop(holder, None)
        for _ in range(again):
            self._start(now, rules)
        self._forget(now, rules)
        if again < 0:
            if rules.per_minute is not None:
                del self.starts[:1]
            if rules.per_day is not None and self.spent(now):
                oldest = min(self.hours, key=int)
                self.hours[oldest] -= 1
                if not self.hours[oldest]:
                    del self.hours[oldest]
        return 0.0

    def renew(self, now: float, rules: RateRules, holder: str) -> float:
        """Hold a slot for longer, also if its lease had ended meanwhile."""
        self.slots[holder] = now + rules.lease
        return 0.0

    def pause(self, now: float, seconds: float) -> float:
        """Let nothing start for so many seconds: the service said so."""
        self.until = max(self.until, now + seconds)
        self.turn = max(self.turn, self.until)
        return 0.0

    def is_careful(self, now: float) -> bool:
        """Whether a pause is not long over, so that starts keep a distance."""
        return now < self.until + CAREFUL

    def look(self, now: float) -> float:
        """Return the seconds that are left of the pause; 0 if there is none, and ``IS_CAREFUL`` soon after one."""
        return max(0.0, self.until - now) or (IS_CAREFUL if self.is_careful(now) else 0.0)

    def take_turn(self, now: float) -> float:
        """Let a request of a call that has begun start, if it may; else return the seconds until then."""
        wait = max(self.until, self.turn) - now
        if wait > 0:
            return wait
        if self.is_careful(now):
            self.turn = now + GAP
        return 0.0
