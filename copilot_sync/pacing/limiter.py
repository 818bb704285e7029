"""How many prompts run at once, how many start in a minute, and when none may start.

Rules:

- A refusal pauses everybody: for as long as the service says, and at least for a back-off of our own. It halves the
  concurrency; each run of answers without a refusal raises it by one.
- After a pause one prompt tries first. The others follow at a distance.
- Processes share the end of the pause and the time of the last start through a cache. Slots are counted in each process
  by itself, because a worker that dies could not release a shared one.

Nothing here sends anything. ``try_acquire`` says how long to wait; ``acquire`` waits.

Threads: locked.
"""

import math
import threading
import time
from typing import Any, Callable, Optional, Tuple
from urllib.parse import urlsplit

from copilot_sync.pacing.caches import LimiterCache, MemoryCache
from copilot_sync.settings import is_loopback
from copilot_sync.transport.fork import reset_after_fork

#: Seconds: the shortest pause and the longest of our own. Each pause is twice the last one, until there is an answer.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
#: Seconds between two starts after a pause, and for how long.
_SPREAD = 2.0
_CAREFUL = 60.0
#: Answers in a row, for each slot, that raise the concurrency by one.
_ANSWERS_PER_SLOT = 4
#: Seconds for which a shared value outlives its meaning, because clocks differ.
_GRACE = 60
#: Seconds between two attempts to acquire a slot while all of them are taken.
LOOK_AGAIN = 0.05


class RateLimiter:
    """Limits how many prompts run at once and how many start in a minute. Safe for any thread.

    Call ``release`` when a prompt is done. Before that, call ``answered`` if it was answered, or ``penalize`` if the
    service asked to slow down or was not there.

    >>> from copilot_sync.batch import RateLimiter
    >>> limiter = RateLimiter(4, rate=60)
    >>> limiter.try_acquire()
    0.0
    >>> limiter.release()

    Args:
        concurrency: How many prompts may be under way at once in this process.
        rate: How many may start in a minute, in all processes that share the cache. They start at equal distances, also
            after a while in which none started. Default: no limit.
        cache: Shares the pause and the pace between processes: an object with ``get``, ``set`` and ``add``, such as
            Django's cache on Redis or memcached. Its ``add`` must be atomic: those of Django's caches in files and in
            local memory are not. Default: this process's memory.
        name: Prefix of the keys in the cache. Limiters of the same name share a pause and a pace.
        clock: Returns the time, in seconds. Default: the wall clock with a cache, else one that never jumps.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        concurrency: int = 2,
        *,
        rate: Optional[float] = None,
        cache: Optional[LimiterCache] = None,
        name: str = "copilot-sync-limiter",
        clock: Optional[Callable[[], float]] = None,
    ) -> None:
        self._most = checked_count("concurrency", concurrency)
        self._interval = 60.0 / checked_rate(rate) if rate is not None else 0.0
        self._clock = clock or (time.monotonic if cache is None else time.time)
        self._cache: LimiterCache = MemoryCache(clock=self._clock) if cache is None else cache
        self._name = name
        self._limit = self._most
        self._until = 0.0  # the end of the last pause that is known here
        self._answers = 0  # in a row
        self._pauses = 0  # in a row, without an answer between
        self._all_pauses = 0
        self._all_seconds = 0.0  # of them, to the end of the last one
        self._last = -math.inf  # the last start that is known here
        self._trying = False  # whether nothing was answered since the last pause began
        self._before = 0  # how many of those inside began before it
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Start with a new lock and no slot taken: what holds the inherited slots is not in this process."""
        self._lock = threading.RLock()
        self._inside = self._before = 0
        reset_after_fork(self)

    @property
    def concurrency(self) -> int:
        """How many prompts may run at once now. After a refusal, fewer than at first."""
        return self._limit

    @property
    def pause(self) -> float:
        """Seconds until the end of the pause; 0 if there is none."""
        with self._lock:
            return max(0.0, self._paused_until() - self._clock())

    @property
    def pauses(self) -> Tuple[int, float]:
        """How many pauses there were so far, and the seconds of all of them together."""
        with self._lock:
            return self._all_pauses, self._all_seconds - max(0.0, self._until - self._clock())

    def try_acquire(self) -> float:
        """Take a slot if that is possible now.

        Returns:
            0 if the slot is taken, else the seconds after which to try again; infinity if all slots are taken and one
            has to be released first.
        """
        with self._lock:
            now = self._clock()
            pause = self._paused_until() - now
            if pause > 0:
                return pause
            if self._inside >= self._limit or (self._trying and self._inside > self._before):
                return math.inf
            wait = self._wait_for_turn(now)
            if wait == 0:
                self._inside += 1
            return wait

    def acquire(self, *, sleep: Callable[[float], object] = time.sleep) -> float:
        """Wait for a slot and take it.

        Args:
            sleep: Waits for so many seconds. If it raises, no slot is taken.

        Returns:
            The seconds that were waited.
        """
        waited = 0.0
        while True:
            seconds = self.try_acquire()
            if seconds == 0:
                return waited
            seconds = LOOK_AGAIN if math.isinf(seconds) else seconds
            sleep(seconds)
            waited += seconds

    def release(self) -> None:
        """Release a slot."""
        with self._lock:
            self._inside -= 1
            if self._before:
                self._before -= 1

    def answered(self) -> None:
        """Take note of an answer. Enough of them raise the concurrency by one, up to what it was at first."""
        with self._lock:
            self._pauses = 0
            self._trying = False
            if self._limit == self._most:
                return
            self._answers += 1
            if self._answers >= _ANSWERS_PER_SLOT * self._limit:
                self._limit += 1
                self._answers = 0

    def penalize(self, retry_after: Optional[float] = None) -> float:
        """Pause everybody: the service asked to slow down, or was not there.

        The first pause lasts a second, each further one twice as long, until there is an answer.

        Args:
            retry_after: Seconds that the service asked for. The longer of the two pauses counts.

        Returns:
            Seconds until the end of the pause.
        """
        with self._lock:
            now = self._clock()
            known = self._paused_until()
            # What else was under way when the pause began says nothing new.
            if known <= now:
                self._pauses += 1
            own = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (max(1, self._pauses) - 1))
            self._pause_until(max(known, now + max(own, retry_after or 0.0)), now)
            return self._until - now

    def _paused_until(self) -> float:
        """The end of the pause, as far as any process knows."""
        shared = _moment(self._cache.get(f"{self._name}-pause")) or 0.0
        if shared > self._until:
            self._notice(shared, self._clock())
        elif shared < self._until:
            # Another process, which began its pause at the same moment, may have overwritten a longer one.
            self._share(self._clock())
        return self._until

    def _pause_until(self, until: float, now: float) -> None:
        self._notice(until, now)
        self._share(now)

    def _notice(self, until: float, now: float) -> None:
        self._all_seconds += max(0.0, until - max(self._until, now))
        if self._until <= now < until:
            self._all_pauses += 1
            self._limit = max(1, self._limit // 2)
            self._trying, self._before = True, self._inside
        self._answers = 0
        self._until = until

    def _share(self, now: float) -> None:
        if self._until > now:
            self._cache.set(f"{self._name}-pause", repr(self._until), math.ceil(self._until - now) + _GRACE)

    def _wait_for_turn(self, now: float) -> float:
        """Start now, if the last start of any process is long enough ago; else give the seconds until then.

        Each start leaves its time under a key that the one before it names: whoever adds that key starts, nobody else.
        """
        careful = self._until <= now < self._until + _CAREFUL and self._until > 0
        interval = max(self._interval, _SPREAD if careful else 0.0)
        if not interval:
            return 0.0
        keep = math.ceil(interval) + _GRACE
        last = self._last_start(now, interval)
        while True:
            if now < last + interval:
                return max(last + interval - now, 0.001)
            key = f"{self._name}-after-{last!r}"
            if self._cache.add(key, repr(now), keep):
                self._last = now
                self._cache.set(f"{self._name}-last", repr(now), keep)
                return 0.0
            following = _moment(self._cache.get(key))
            if following is None or following <= last:  # it is over just now, or it is none
                return 0.001
            last = following

    def _last_start(self, now: float, interval: float) -> float:
        # What lies ahead is left from before the clock was set back; what lies far back, the others have forgotten.
        is_known = now - math.ceil(interval) - _GRACE < self._last <= now + interval
        own = self._last if is_known else -math.inf
        shared = _moment(self._cache.get(f"{self._name}-last"))
        return own if shared is None else max(own, shared)


def _moment(kept: object) -> Optional[float]:
    """Read a time that another process may have left; ``None`` for what is none."""
    try:
        moment = float(kept)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return moment if math.isfinite(moment) else None


#: How many prompts are under way at once and how many begin in a minute, if nobody says: against the service, whose
#: limits are not known and which suspends accounts, and against an emulator on this machine.
_AGAINST_THE_SERVICE: "Tuple[int, Optional[float]]" = (2, 20.0)
_ON_THIS_MACHINE: "Tuple[int, Optional[float]]" = (8, None)


class _ByHost:
    def __repr__(self) -> str:
        return "<by the host>"


#: Stands for the rate that goes with the host; ``None`` means "any".
BY_HOST: Any = _ByHost()


def pace_for(
    api_url: Optional[str], concurrency: Optional[int] = None, rate: Optional[float] = BY_HOST
) -> Tuple[int, Optional[float]]:
    """Choose concurrency and rate for an API: what the caller said, else careful defaults.

    Args:
        api_url: Who is asked; ``None`` if that is not known here.
        concurrency: How many prompts may be under way at once; ``None`` for the default.
        rate: How many may begin in a minute, ``None`` for any.
    """
    is_local = api_url is not None and is_loopback(urlsplit(api_url).hostname or "")
    usual = _ON_THIS_MACHINE if is_local else _AGAINST_THE_SERVICE
    return usual[0] if concurrency is None else concurrency, usual[1] if rate is BY_HOST else rate


def checked_count(name: str, value: object) -> int:
    """Check a number of things of which there must be one at least."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value


def checked_rate(value: object) -> float:
    """Check a number of prompts a minute."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"rate must be a number of prompts a minute, not {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"rate must be a number of prompts a minute above zero, not {value}")
    return float(value)
