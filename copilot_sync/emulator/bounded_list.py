"""A list with a limit, for what an emulator has seen: one that runs for days must not grow for days.

``BoundedList`` forgets its oldest entries when there are too many of them, or when they take too many
bytes. It knows nothing of requests, and it has no lock of its own.
"""

from __future__ import annotations

from typing import Callable, List, NamedTuple, TypeVar

T = TypeVar("T")


class ListLimits(NamedTuple):
    """How much a list keeps: a number of entries, and the bytes of all of them."""

    entries: int
    size: int


class BoundedList(List[T]):
    """A list that forgets its oldest entries. Hold the emulator's lock when you add one.

    Args:
        limits: returns the limits that hold now; called for each new entry.
        size_of: returns the bytes of an entry.
    """

    def __init__(self, limits: Callable[[], ListLimits], size_of: Callable[[T], int]) -> None:
        super().__init__()
        self._limits = limits
        self._size_of = size_of
        self._size = 0

    def add(self, entry: T) -> None:
        """Append an entry, and forget the oldest entries if a limit is exceeded."""
        limits = self._limits()
        self.append(entry)
        self._size += self._size_of(entry)
        if len(self) > limits.entries:
            del self[: len(self) - limits.entries]
        if self._size > limits.size:
            self._shrink(limits.size)

    def _shrink(self, max_size: int) -> None:
        """Forget entries until a quarter of the room is free, so that this isn't done for each new one."""
        sizes = [self._size_of(entry) for entry in self]  # a caller may have removed entries meanwhile
        self._size = sum(sizes)
        count = 0
        if self._size > max_size:
            while self._size > max_size - max_size // 4:
                self._size -= sizes[count]
                count += 1
        del self[:count]
