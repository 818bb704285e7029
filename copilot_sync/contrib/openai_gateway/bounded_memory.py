"""A memory of so many values and so many bytes. What was used least recently is forgotten first.

Threads: locked.
"""

import math
import threading
from collections import OrderedDict
from typing import Dict, Generic, Optional, TypeVar

from copilot_sync.transport.fork import reset_after_fork

Value = TypeVar("Value")


class BoundedMemory(Generic[Value]):
    """Remembers values by their keys. Safe for any thread, and for processes that fork.

    Args:
        most: How many values.
        most_bytes: How many bytes, as ``put`` and ``resize`` count them. Default: any number.
    """

    def __init__(self, most: int, most_bytes: float = math.inf) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._sizes: Dict[str, int] = {}
        self._bytes = 0
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Begin with a new lock."""
        self._lock = threading.RLock()

    def get(self, key: str) -> Optional[Value]:
        """Return a value, which counts as used now; ``None`` if there is none."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def pop(self, key: str) -> Optional[Value]:
        """Return a value, and forget it; ``None`` if there is none."""
        with self._lock:
            self._bytes -= self._sizes.pop(key, 0)
            return self._values.pop(key, None)

    def put(self, key: str, value: Value, size: int = 0) -> None:
        """Remember a value.

        Args:
            key: Its name. What had this name is forgotten.
            value: The value.
            size: Its bytes.
        """
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            self._set_size(key, size)

    def resize(self, key: str, size: int) -> None:
        """Say how many bytes a value has now. Nothing happens if it was forgotten."""
        with self._lock:
            if key in self._values:
                self._set_size(key, size)

    def _set_size(self, key: str, size: int) -> None:
        self._bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        while len(self._values) > self._most or self._bytes > self._most_bytes:
            oldest, _ = self._values.popitem(last=False)
            self._bytes -= self._sizes.pop(oldest)
