"""The pace of an account for work that nobody waits for: it lets questions go first, and leaves a slot for them.

Threads: locked.
"""

import contextlib
import math
import threading
from typing import Iterator, Optional

from copilot_sync.pacing.limiter import LOOK_AGAIN, RateLimiter
from copilot_sync.transport.fork import reset_after_fork


class BackgroundLimiter(RateLimiter):
    """A view of a limiter that takes second place. Safe for any thread.

    It takes all slots but one, and one if there is but one. It takes none while a question waits.

    Args:
        shared: The limiter of the account.

    Attributes:
        most: How many prompts may run at once here, as long as nothing was refused.
    """

    def __init__(self, shared: RateLimiter) -> None:
        # Nothing of the base class is used: all that it counts is counted by the other one.
        self._shared = shared
        self.most = self.concurrency
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Start with a new lock and no slot taken."""
        self._lock = threading.RLock()
        self._taken = self._waiting = 0

    @contextlib.contextmanager
    def ahead(self) -> Iterator[None]:
        """Take no slot here while the block runs, in which a question waits for one."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    @property
    def concurrency(self) -> int:
        """How many prompts may run at once here now."""
        return max(1, self._shared.concurrency - 1)

    @property
    def pause(self) -> float:
        """Seconds until the end of the pause; 0 if there is none."""
        return self._shared.pause

    def try_acquire(self) -> float:
        """Take a slot if that is possible now and no question waits. See ``RateLimiter.try_acquire``."""
        with self._lock:
            if self._waiting:
                return LOOK_AGAIN
            if self._taken >= self.concurrency:
                return math.inf
            seconds = self._shared.try_acquire()
            if seconds == 0:
                self._taken += 1
            return seconds

    def release(self) -> None:
        """Release a slot."""
        with self._lock:
            self._taken -= 1
            self._shared.release()

    def answered(self) -> None:
        """Take note of an answer."""
        self._shared.answered()

    def penalize(self, retry_after: Optional[float] = None) -> float:
        """Pause everybody. See ``RateLimiter.penalize``."""
        return self._shared.penalize(retry_after)
