"""The limits of one call: how long it may take in all, be silent, and come no further.

A read that blocks asks how long it may. One that polls asks how much time is left since the last bytes came, because it
is asked many times while nothing comes.

Threads: confined to the thread that makes the call.
"""

import contextlib
from typing import Callable, Iterator, Optional

from copilot_sync.errors import RequestTimeoutError
from copilot_sync.settings import Timeout

#: Seconds below which a time limit counts as reached: a socket's time-out of 0 would mean "do not block".
INSTANT = 0.001


class CallLimits:
    """What is left of the time of a call.

    Args:
        timeout: How long it may take.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, timeout: Timeout, clock: Callable[[], float]) -> None:
        self.timeout = timeout
        self.clock = clock
        #: What is being waited for, as ``RequestTimeoutError.phase`` names it.
        self.phase = "connect"
        self._deadline: Optional[float] = None
        self._total: Optional[float] = None  # how many seconds that deadline allowed
        self._quiet_since = clock()
        self._heard_at = self._quiet_since  # when the last bytes came; only steps that poll go by it
        self._is_overtime = False  # the time is over, and what arrived before was looked for once more
        self._limit: Optional[float] = None
        #: Whether a limit is nearer now than it was, so that whoever watches the time has to look again.
        self.has_nearer_limit = False

    def start_clock(self) -> None:
        """Begin the time of the whole call, unless it has begun: all messages of a call share it."""
        self.touch()
        if self.timeout.total is not None and self._total is None:
            self._deadline, self._total = self.clock() + self.timeout.total, self.timeout.total

    @contextlib.contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Limit everything inside, waiting included, to so many seconds, and to what is left of the call."""
        before = self._deadline, self._total
        end = self.clock() + seconds
        if self._deadline is None or end < self._deadline:
            self._deadline, self._total = end, seconds
        try:
            yield
        finally:
            self._deadline, self._total = before

    def remaining(self) -> Optional[float]:
        """Seconds left of the whole call; ``None`` for no limit."""
        return None if self._deadline is None else self._deadline - self.clock()

    @property
    def expired(self) -> bool:
        """Whether the limit of the whole call is reached."""
        left = self.remaining()
        return left is not None and left < INSTANT

    def timed_out(self, phase: str, seconds: Optional[float], stage: Optional[str]) -> RequestTimeoutError:
        """The error for a limit that was reached."""
        return RequestTimeoutError(
            _TIMEOUT_WORDS[phase].format(seconds=seconds), phase=phase, seconds=seconds, stage=stage
        )

    def silence_seconds(self) -> float:
        """How long the next step may block: what is left of the silence allowed, of the call, and of a ``window``.

        While a connection is being made, that is what is left of the time for making it. In a body, each read may be
        silent for as long as it is allowed, while there is progress.
        """
        now = self.clock()
        timeout = self.timeout
        if self.phase == "read":
            left: float = timeout.read  # type: ignore[assignment] # None has become the default
            end = self._quiet_since + timeout.stall  # type: ignore[operator]
            if end - now < left:
                left = end - now
        else:
            allowed = timeout.connect if self.phase == "connect" else timeout.read
            left = self._quiet_since + allowed - now  # type: ignore[operator]
        if self._deadline is not None and self._deadline - now < left:
            left = self._deadline - now
        if self._limit is not None and self._limit - now < left:
            left = self._limit - now
        return left if left > INSTANT else INSTANT

    def silence(self, stage: Optional[str] = None) -> RequestTimeoutError:
        """The error for a step that blocked for as long as it may."""
        if self.expired:
            return self.timed_out("total", self._total, stage)
        if self.phase == "connect":
            return self.timed_out("connect", self.timeout.connect, stage)
        stall = self.timeout.stall or 0.0
        if self.phase == "read" and self.clock() - self._quiet_since > stall - INSTANT:
            return self.timed_out("stall", stall, stage)
        return self.timed_out(self.phase, self.timeout.read, stage)

    def time_left(self) -> float:
        """How long a step that polls may go on to hear nothing, in seconds. Zero and less: its time is over."""
        now, timeout = self.clock(), self.timeout
        if self.phase == "read":
            left: float = self._heard_at + timeout.read - now  # type: ignore[operator] # None became the default
            left = min(left, self._quiet_since + timeout.stall - now)  # type: ignore[operator]
        else:
            left = self._quiet_since + timeout.read - now  # type: ignore[operator]
        if self._deadline is not None:
            left = min(left, self._deadline - now)
        if self._limit is not None:
            left = min(left, self._limit - now)
        return left

    def hear(self) -> None:
        """Note a sign of life: the time for silence begins anew, that for progress does not."""
        self._heard_at = self.clock()

    def leave_out(self, seconds: float) -> None:
        """Leave so many seconds, in which nobody waited, out of the time of the present step."""
        self._quiet_since += seconds
        self._heard_at += seconds

    def enter(self, phase: str) -> None:
        """Begin to wait for something else, as ``phase`` names it."""
        self.phase = phase
        self.touch()
        self.has_nearer_limit = True  # another limit may hold from now on

    def touch(self) -> None:
        """Note a step forward, in a body one of what is waited for: its limit begins anew."""
        self._quiet_since = self._heard_at = self.clock()
        self._is_overtime = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time that passes inside, which is the caller's, out of that of the present step."""
        began = self.clock()
        try:
            yield
        finally:
            self.leave_out(self.clock() - began)

    @contextlib.contextmanager
    def window(self, seconds: float) -> Iterator[None]:
        """Limit the reads inside to so many seconds altogether."""
        self._limit = self.clock() + seconds
        self.has_nearer_limit = True
        try:
            yield
        finally:
            self._limit = None

    @property
    def window_closed(self) -> bool:
        """Whether the time of the present ``window`` is over."""
        return self._limit is not None and self.clock() >= self._limit


_TIMEOUT_WORDS = {
    "connect": "no connection was made within {seconds:g} s",
    "send": "the request could not be sent within {seconds:g} s",
    "reply": "no reply came within {seconds:g} s",
    "read": "nothing more came for {seconds:g} s",
    "stall": "the reply came no further for {seconds:g} s, though the connection was alive",
    "total": "the call took longer than the {seconds:g} s that it may take in all",
}
