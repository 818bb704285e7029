"""What an emulator has seen, up to a limit: one that runs for days must not grow for days."""

from __future__ import annotations

from typing import Callable, List, NamedTuple, TypeVar

T = TypeVar("T")


class RecordLimits(NamedTuple):
    """How much is kept: entries, and bytes in all of them."""

    entries: int
    size: int


class Record(List[T]):
    """A list that forgets its oldest entries. Whoever adds one holds the emulator's lock.

    Args:
        limits: called for the limits of the moment.
        size_of: called with an entry for its bytes.
    """

    def __init__(self, limits: Callable[[], RecordLimits], size_of: Callable[[T], int]) -> None:
        super().__init__()
        self._limits = limits
        self._size_of = size_of
        self._size = 0

    def keep(self, entry: T) -> None:
        """Adds an entry."""
        limits = self._limits()
        self.append(entry)
        self._size += self._size_of(entry)
        if len(self) > limits.entries:
            del self[: len(self) - limits.entries]
        if self._size > limits.size:
            self._shrink(limits.size)

    def _shrink(self, most: int) -> None:
        """Forgets entries until a quarter of the room is free, so that this isn't done for each new one."""
        sizes = [self._size_of(entry) for entry in self]  # anybody may have taken some out meanwhile
        self._size = sum(sizes)
        count = 0
        if self._size > most:
            while self._size > most - most // 4:
                self._size -= sizes[count]
                count += 1
        del self[:count]
