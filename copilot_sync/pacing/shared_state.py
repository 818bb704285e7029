"""Where the state of an account's limits is kept, so that all who use the account go by one: memory, a file, a cache.

A store applies one operation of ``AccountState`` at a time, whoever else wants to. All who share it have one clock.

- Memory: this process.
- A folder: this machine. The file is written under the lock of the system, which ends with its holder.
- A cache, such as Django's on Redis or memcached: many machines, by a lock that only an ``add`` which excludes others
  can make. Caches whose ``add`` excludes nobody, or that are of one process, are refused.

A state that can't be read is taken for a full one: nothing begins for a window.

Threads: locked.
"""

import json
import logging
import os
import random
import threading
import time
from typing import Any, Callable, Dict, Optional, Protocol, Tuple

from copilot_sync.pacing.account_state import AccountState, RateRules
from copilot_sync.pacing.caches import is_interruption
from copilot_sync.pacing.machine_clock import MachineClock
from copilot_sync.safe_files import locked, make_folder
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

#: Bytes of a file or of a cache's value that are read. A larger one is none of ours.
_LARGEST = 4 * 1024 * 1024
#: Seconds to wait for the lock of a file. It is held for a millisecond, unless its holder was stopped.
_PATIENCE = 1.0
#: Seconds for which the lock of a cache is held at most, and that it is waited for.
_LOCK_LEASE = 5
_LOCK_PATIENCE = 6.0
#: Seconds for which a cache keeps a state that nobody changes: the starts of a day count.
_KEPT = 25 * 3600
#: States that memory knows: of accounts, and of the users who have budgets.
_MOST = 16384


class StoreError(Exception):
    """The state can be neither read nor written."""


class Store(Protocol):
    """Keeps states by the names of accounts, which show nothing of their secrets."""

    #: Whether it waits for nothing: no disk, no network.
    is_instant: bool

    def apply(self, account: str, name: str, rules: RateRules, holder: str = "", number: float = 0.0) -> float:
        """Do one operation, and return what it returns.

        Args:
            account: Whose state.
            name: One of ``OPERATIONS``.
            rules: The limits.
            holder: Who takes a slot, or has it.
            number: What else the operation takes.

        Raises:
            StoreError: It could not be done.
        """


OPERATIONS: Dict[str, Callable[[AccountState, float, RateRules, str, float], float]] = {
    "admit": lambda state, now, rules, holder, number: state.admit(now, rules, holder),
    "leave": lambda state, now, rules, holder, number: state.leave(now, rules, holder, int(number)),
    "renew": lambda state, now, rules, holder, number: state.renew(now, rules, holder),
    "pause": lambda state, now, rules, holder, number: state.pause(now, number),
    "look": lambda state, now, rules, holder, number: state.look(now),
    "turn": lambda state, now, rules, holder, number: state.take_turn(now),
    "spend": lambda state, now, rules, holder, number: state.spend(now, rules, int(number)),
    "spent": lambda state, now, rules, holder, number: state.spent(now),
}
#: What changes nothing.
_LOOKS = ("look", "spent")


def _applied(state: AccountState, now: float, name: str, rules: RateRules, holder: str, number: float) -> float:
    state.settle(now)
    return OPERATIONS[name](state, now, rules, holder, number)


class MemoryStore:
    """The memory of this process.

    Args:
        clock: Gives the time, in seconds.
    """

    is_instant = True

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: Dict[str, AccountState] = {}
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Begin with a lock of our own, and without the slots that the parent holds."""
        self._lock = threading.RLock()
        for state in self._states.values():
            state.slots = {}
        reset_after_fork(self)

    def apply(self, account: str, name: str, rules: RateRules, holder: str = "", number: float = 0.0) -> float:
        """Do one operation."""
        with self._lock:
            state = self._states.pop(account, None)
            if state is None:
                while len(self._states) >= _MOST:
                    del self._states[next(iter(self._states))]
                state = AccountState()
            self._states[account] = state  # the last one, because the first is forgotten first
            return _applied(state, self._clock(), name, rules, holder, number)


def _parsed(content: bytes) -> Optional[AccountState]:
    """Parse a state that somebody else may have written; ``None`` if it can't be."""
    try:
        return AccountState.checked(json.loads(content)) if content.strip() else AccountState()
    except (ValueError, RecursionError):
        return None


def _read(content: bytes, clock: Callable[[AccountState], float], rules: RateRules) -> "Tuple[AccountState, float]":
    """Read a state, and the time by which it goes. One that can't be parsed is full."""
    state = _parsed(content)
    if state is not None:
        return state, clock(state)
    logger.warning("the state of the account's limits can't be read: nothing begins for %.0f s", rules.window)
    state = AccountState()
    now = clock(state)
    state.settle(now)
    state.pause(now, rules.window)
    return state, now


def _open_or_make(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o600)


class FolderStore:
    """A file for each account in a folder, readable by its owner alone.

    Args:
        folder: The folder. It is made if it is missing.
        clock: Gives the time: one for all processes of a machine, which nobody sets.
    """

    is_instant = False

    def __init__(self, folder: "str | os.PathLike[str]", *, clock: Optional[MachineClock] = None) -> None:
        self._folder = os.path.abspath(os.fspath(folder))
        #: Whoever has the same goes by the same state.
        self.place = self._folder
        self._clock = clock or MachineClock()
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Begin with a lock of our own: a thread that is not here may hold the inherited one."""
        self._lock = threading.Lock()  # threads wait here in order, and not for the file's
        reset_after_fork(self)

    def apply(self, account: str, name: str, rules: RateRules, holder: str = "", number: float = 0.0) -> float:
        """Do one operation.

        Raises:
            StoreError: The file can't be opened, read, locked or written.
        """
        path = os.path.join(self._folder, f"limits-{account}.json")
        try:
            make_folder(self._folder)
            state = self._looked(path) if name in _LOOKS else None
            if state is not None:
                return _applied(state, self._clock.now(state), name, rules, "", 0.0)
            with self._lock, locked(path, _PATIENCE) as got:
                if not got:
                    raise StoreError("another process does not let go of its lock")
                with open(path, "r+b", buffering=0, opener=_open_or_make) as file:
                    before = file.read(_LARGEST)
                    state, now = _read(before, self._clock.now, rules)
                    result = _applied(state, now, name, rules, holder, number)
                    content = json.dumps(state.to_dict(), separators=(",", ":")).encode()
                    # A longer one is overwritten whole: this process may be killed before the next step.
                    whole = content.ljust(len(before))
                    file.seek(0)
                    if file.write(whole) != len(whole):
                        raise StoreError("the disk is full")
                    file.truncate(len(content))
                    return result
        except OSError as error:
            raise StoreError(type(error).__name__) from None

    def _looked(self, path: str) -> Optional[AccountState]:
        """Read the state without the lock.

        ``None`` if that can't be: another process may be writing it just now, or it is of another boot.
        """
        try:
            with open(path, "rb", buffering=0) as file:
                state = _parsed(file.read(_LARGEST))
        except FileNotFoundError:
            return AccountState()
        return state if state is not None and self._clock.is_noted(state) else None


class SharedCache(Protocol):
    """What a cache has to have: that of Django, cachelib's, or one like them. ``timeout`` is in whole seconds."""

    def get(self, key: str) -> Any:
        """Return the value of a key, ``None`` if there is none."""

    def set(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value for so many seconds."""

    def add(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value if the key has none. Return whether it had none, which is true for one caller alone."""

    def delete(self, key: str) -> Any:
        """Forget a key."""


#: The memory of this process.
in_memory = MemoryStore()

#: Caches that don't do, by the names of their classes, and why.
_UNSUITABLE = {
    "FileBasedCache": "its add lets several processes in at once",
    "FileSystemCache": "its add lets several processes in at once",
    "LocMemCache": "it is of one process",
    "SimpleCache": "it is of one process",
    "DummyCache": "it keeps nothing",
    "NullCache": "it keeps nothing",
}


class SteadyClock:
    """The wall clock as it was when this process began to look, and from then on one that nobody sets."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Return the time, in seconds since 1970."""
        return self._ahead + time.monotonic()


class CacheStore:
    """A cache that several machines may share.

    Args:
        cache: The cache.
        clock: Gives the time, in seconds: one for all who share the cache.

    Raises:
        ValueError: It excludes nobody.
    """

    is_instant = False

    def __init__(self, cache: SharedCache, *, clock: Optional[Callable[[], float]] = None) -> None:
        self._cache = cache
        self._clock = clock or SteadyClock()
        for kind in type(cache).__mro__:
            if kind.__name__ in _UNSUITABLE:
                raise ValueError(f"shared can't be a {type(cache).__name__}: {_UNSUITABLE[kind.__name__]}")

    def apply(self, account: str, name: str, rules: RateRules, holder: str = "", number: float = 0.0) -> float:
        """Do one operation.

        Raises:
            StoreError: The cache failed, or its lock excludes nobody, or is not to be had.
        """
        key = f"copilot-sync-limits-{account}"
        try:
            if name in _LOOKS:
                state, now = self._state(key, rules)
                return _applied(state, now, name, rules, "", 0.0)
            mark = self._locked(f"{key}-lock")
            try:
                state, now = self._state(key, rules)
                result = _applied(state, now, name, rules, holder, number)
                self._cache.set(key, json.dumps(state.to_dict()), _KEPT)
                return result
            finally:
                if self._cache.get(f"{key}-lock") == mark:
                    self._cache.delete(f"{key}-lock")
        except StoreError:
            raise
        except Exception as error:  # a foreign cache may be anything, and what it raises has no common root
            if is_interruption(error):
                raise
            raise StoreError(type(error).__name__) from None

    def _state(self, key: str, rules: RateRules) -> "Tuple[AccountState, float]":
        kept = self._cache.get(key)
        if kept is None:
            kept = b""
        content = kept if isinstance(kept, bytes) else str(kept).encode("utf-8", "replace")
        return _read(content[:_LARGEST], lambda state: self._clock(), rules)

    def _locked(self, key: str) -> str:
        mark = os.urandom(8).hex()
        end = time.monotonic() + _LOCK_PATIENCE
        while not self._cache.add(key, mark, _LOCK_LEASE):
            if time.monotonic() >= end:
                raise StoreError("another process does not let go of its lock")
            time.sleep(random.uniform(0.001, 0.01))
        if self._cache.get(key) != mark:
            raise StoreError("its add excludes nobody")
        return mark
