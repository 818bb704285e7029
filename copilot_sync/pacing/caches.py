"""What several limiters share: a cache with ``get``, ``set`` and ``add``, as Django's caches have.

Threads: locked. To look a value up is atomic.
"""

import math
import threading
import time
import traceback
from typing import Any, Callable, Dict, Optional, Protocol, Tuple

from copilot_sync.transport.fork import reset_after_fork


class LimiterCache(Protocol):
    """Shares a limiter between processes. Keys and values are strings, ``timeout`` is in seconds."""

    def get(self, key: str) -> Any:
        """Return the value of a key, ``None`` if there is none or its time is over."""

    def set(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value for so many seconds."""

    def add(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value if the key has none yet. Return whether it had none, which is true for one caller alone."""


class MemoryCache:
    """A cache in this process's memory. Safe for any thread.

    Args:
        clock: Gives the time, in seconds.
        largest: Characters that all values have together at most. The oldest make room for a new one. Default: any
            number.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, largest: float = math.inf) -> None:
        self._clock = clock
        self._largest = largest
        self._size = 0
        self._entries: Dict[str, Tuple[str, float]] = {}
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Start with a new lock: a thread that is not here may hold the inherited one."""
        self._lock = threading.RLock()
        reset_after_fork(self)

    def get(self, key: str) -> Optional[str]:
        """Return the value of a key, ``None`` if there is none or its time is over."""
        value, until = self._entries.get(key, (None, 0.0))
        return value if self._clock() < until else None

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep a value for so many seconds."""
        with self._lock:
            self._put(key, value, timeout)

    def add(self, key: str, value: str, timeout: int) -> bool:
        """Keep a value if the key has none yet, and return whether it had none."""
        with self._lock:
            if self.get(key) is not None:
                return False
            self._put(key, value, timeout)
            return True

    def _put(self, key: str, value: str, timeout: int) -> None:
        now = self._clock()
        if len(self._entries) >= 1024:
            self._entries = {name: entry for name, entry in self._entries.items() if now < entry[1]}
            self._size = sum(len(kept) for kept, _ in self._entries.values())
        self._drop(key)
        while self._entries and self._size + len(value) > self._largest:
            self._drop(next(iter(self._entries)))
        self._entries[key] = (value, now + timeout)
        self._size += len(value)

    def _drop(self, key: str) -> None:
        self._size -= len(self._entries.pop(key, ("", 0.0))[0])


class RedisCache:
    """A cache in Redis, for what workers share. Safe for any thread.

    Args:
        redis: A ``redis.Redis``, or anything with its ``get`` and ``set``.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def get(self, key: str) -> Optional[str]:
        """Return the value of a key, ``None`` if there is none or its time is over."""
        value = self._redis.get(key)
        return value.decode() if isinstance(value, bytes) else value

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep a value for so many seconds."""
        self._redis.set(key, value, ex=timeout)

    def add(self, key: str, value: str, timeout: int) -> bool:
        """Keep a value if the key has none yet, and return whether it had none."""
        return bool(self._redis.set(key, value, ex=timeout, nx=True))


def shared_cache_of(value: Any) -> LimiterCache:
    """Return a cache of strings: one that is given as such, or a Redis client as one.

    Raises:
        TypeError: It is neither.
    """
    if callable(getattr(value, "evalsha", None)):
        return RedisCache(value)
    if all(callable(getattr(value, name, None)) for name in ("get", "set", "add")):
        return value  # type: ignore[no-any-return]
    raise TypeError(f"this is neither a Redis client nor a cache with get, set and add: {type(value).__name__}")


def is_interruption(error: Exception) -> bool:
    """Whether it was a signal handler that raised an exception, which then came in here by chance."""
    import signal  # here, because it takes a while

    handlers = [getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()]
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))
