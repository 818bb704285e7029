"""The guard that notes each call, and the thread that writes down what was noted.

A call may end in an event loop's thread, in a garbage collection, or in a handler of a signal. So its end only adds an
entry to a queue and starts a short-lived thread, which writes the queue down and ends. ``flush`` waits for that.
A ledger is a convenience and never a reason to fail: one that can't be written is logged once, by the type of the
error, and done without.

Threads: the queue is atomic. The lock is held by the thread that writes, and nobody waits for it inside of a call.
"""

import _thread
import atexit
import functools
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, Dict, Generator, List, Optional, Sequence, Tuple

from copilot_sync.delivery.guards import CallEnd, CallGuard, Leave
from copilot_sync.delivery.message import PendingMessage
from copilot_sync.ledger.entries import CLOSED, LedgerEntry, entry_of
from copilot_sync.os_threads import acquire_within
from copilot_sync.settings import RetryPolicy
from copilot_sync.stepping import Pause
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

#: Entries that wait to be written. More of them are dropped.
MOST_WAITING = 10_000
#: Entries that are written at once.
_AT_ONCE = 500
#: Seconds that ``flush`` waits. It takes milliseconds, unless the disk or another process holds everything up.
_PATIENCE = 10.0
#: Seconds that a fork waits for a thread that writes.
_FORK_PATIENCE = 2.0


class Recorder(CallGuard):
    """A ledger, but for where its entries are written: a subclass has ``write``.

    Args:
        now: The wall clock, in seconds since 1970.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._has_failed = False
        self._has_dropped = False
        self.after_fork_in_child()
        reset_after_fork(self)
        _recorders.add(self)

    def write(self, entries: Sequence[LedgerEntry]) -> None:
        """Write entries down. Called in a thread that ends afterwards. Whatever it raises is logged by its type."""
        raise NotImplementedError

    def after_fork_in_child(self) -> None:
        """Forget what waits: the parent writes it. And the lock, which a thread of the parent may hold."""
        self._waiting: Deque[LedgerEntry] = deque()
        self._writing = threading.Lock()
        self._is_worker = False  # of multiprocessing, as far as is known

    def entering(
        self, message: PendingMessage, call: CallContext, policy: Optional[RetryPolicy]
    ) -> Generator[Pause, None, Leave]:
        """Note when the call begins. It waits for nothing."""
        self._note_worker()
        yield from ()
        return functools.partial(self._leave, self._now(), call.clock())

    def _leave(self, began_at: float, began: float, end: CallEnd) -> None:
        entry = entry_of(end, began_at, end.call.clock() - began)
        if entry.outcome == CLOSED and not entry.attempts:
            return  # nothing was asked: a batch begins the conversation of each prompt in a call of its own
        if len(self._waiting) >= MOST_WAITING:
            if not self._has_dropped:
                self._has_dropped = True
                logger.warning("the ledger is written too slowly: calls are left out of it")
            return
        self._waiting.append(entry)
        self.write_soon()

    def write_soon(self) -> None:
        """Start a thread that writes what waits, unless there is one."""
        # Whoever holds the lock looks at the queue once more after it has released it.
        if not self._writing.locked():
            _start_thread(self._write_waiting)

    def try_to_hold(self) -> bool:
        """Wait a moment for the thread that writes, and have none write until ``release``. Return whether none does."""
        return acquire_within(self._writing, _FORK_PATIENCE)

    def release(self) -> None:
        """Let threads write again."""
        self._writing.release()
        if self._waiting:
            self.write_soon()

    def flush(self) -> None:
        """Wait until the calls that have ended are written down, or can't be. For ten seconds at most.

        ``Client.close`` and the end of the interpreter call it.
        """
        if not self._waiting and not self._writing.locked():
            return
        done = threading.Lock()
        done.acquire()
        # In another thread, so that what a handler of a signal raises here is not taken for a failure of the ledger.
        if _start_thread(self._write_all, done):
            acquire_within(done, _PATIENCE)
        else:
            self._write_all(done)

    def close(self) -> None:
        """Do what ``flush`` does."""
        self.flush()

    def _write_waiting(self) -> None:
        """Write what waits, unless another thread is doing that."""
        while self._waiting and self._writing.acquire(False):
            self._write_and_release()

    def _write_all(self, done: threading.Lock) -> None:
        """Write what waits after any other thread that does so, and release ``done``."""
        if acquire_within(self._writing, _PATIENCE):
            self._write_and_release()
            self._write_waiting()
        done.release()

    def _write_and_release(self) -> None:
        try:
            while self._waiting:
                self._try_to_write(self._take())
        finally:
            self._writing.release()

    def _take(self) -> List[LedgerEntry]:
        # Nobody else takes any, as long as the lock is held.
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]

    def _try_to_write(self, entries: List[LedgerEntry]) -> None:
        try:
            self.write(entries)
        except Exception as error:  # noqa: BLE001 - it may be any database's, and what they raise has no common root
            if not self._has_failed:
                self._has_failed = True
                logger.warning("the ledger can't be written and is done without: %s", type(error).__name__)

    def _note_worker(self) -> None:
        """Have a worker of ``multiprocessing`` write what waits when it ends: it skips what ``atexit`` knows of."""
        process, util = map(sys.modules.get, ("multiprocessing.process", "multiprocessing.util"))
        if not self._is_worker and process is not None and util is not None and process.parent_process() is not None:
            self._is_worker = True
            util.Finalize(None, flush_all, exitpriority=0)


def _start_thread(function: Callable[..., object], *args: Any) -> bool:
    """Start a thread, and return whether there is one.

    ``Thread.start`` waits for the thread, under a lock of its module that whoever ends a call may hold. So a thread
    calls it that is none of that module's.
    """
    try:
        _thread.start_new_thread(_start_and_end, (function, args))
    except RuntimeError:  # there can't be one more, or the interpreter ends: what waits is written later
        return False
    return True


def _start_and_end(function: Callable[..., object], args: Tuple[Any, ...]) -> None:
    try:
        threading.Thread(target=function, args=args, name="copilot-sync-ledger", daemon=False).start()
    except RuntimeError:
        function(*args)


_recorders: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


def flush_all() -> None:
    """Write down what waits, in all ledgers of this process."""
    for recorder in list(_recorders):
        recorder.flush()


#: The recorders whose threads wait while a thread forks, by that thread.
_held: Dict[int, List[Recorder]] = {}


def _hold_all() -> None:
    """Let no thread write while this one forks: the child would inherit SQLite's locks as such a thread held them."""
    _held[threading.get_ident()] = [recorder for recorder in list(_recorders) if recorder.try_to_hold()]


def _release_all() -> None:
    for recorder in _held.pop(threading.get_ident(), ()):
        recorder.release()


atexit.register(flush_all)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(before=_hold_all, after_in_parent=_release_all, after_in_child=_held.clear)
