"""One thread fetches what many need, and the others wait for what comes of it.

No lock is held while something is fetched: an exception out of a signal handler could leave it locked for ever. A
thread that waits does so within the limits of its own call, and closing that call ends its wait.

Threads: a turn is taken under a lock. Its end is atomic.
"""

import copy
import threading
from typing import Callable, NamedTuple, Optional, TypeVar

from copilot_sync.errors import CopilotError, RequestTimeoutError, StreamClosedError
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.fork import reset_after_fork

T = TypeVar("T")

#: Seconds between the first two looks at whether another thread has fetched it, and the longest between two.
_FIRST_WAIT, _LONGEST_WAIT = 0.002, 0.05
#: Seconds after which whoever fetches it is not waited for any more.
_LONGEST_TURN = 300.0


class WaitingTurn(NamedTuple):
    """Whose turn it is to fetch. Each is told from the others by what it is, not by what it says."""

    thread: int
    until: float  # on the monotonic clock


class SingleFlight:
    """Lets one thread at a time fetch something. Safe for any thread; a copy and a forked child begin anew.

    Args:
        stage: The stage that waiting belongs to, for errors.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._rounds = 0
        self._failure: Optional[CopilotError] = None
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Begin with a lock of our own: an inherited one may be held by a thread that is not here."""
        self._lock = threading.RLock()
        self._turn: Optional[WaitingTurn] = None
        reset_after_fork(self)

    def run(self, call: CallContext, known: Callable[[], Optional[T]], fetch: Callable[[], T]) -> T:
        """Return what is known, or fetch it.

        Args:
            call: The call that needs it.
            known: Returns what was fetched earlier; ``None`` if there is nothing that can be used.
            fetch: Fetches it, and keeps it where ``known`` finds it.

        Raises:
            CopilotError: What ``fetch`` raised, here or in the thread that this one waited for.
            RequestTimeoutError: The call's time is over.
            StreamClosedError: The call was stopped.
        """
        rounds = self._rounds
        turn = WaitingTurn(threading.get_ident(), call.clock() + _LONGEST_TURN)
        try:
            self._wait_for(turn, call)
            found = known()
            if found is not None:
                return found
            if self._rounds != rounds and self._failure is not None:
                # Another thread asked while this one waited; asking again would bring the same.
                raise copy.copy(self._failure)
            return self._fetched(fetch)
        finally:
            # In these steps there is no room for a signal handler, so nobody waits for a turn that has ended.
            if self._turn is turn:
                self._turn = None

    def _wait_for(self, turn: WaitingTurn, call: CallContext) -> None:
        step = _FIRST_WAIT
        while not self._has_begun(turn, call):
            call.check(self._stage)
            call.sleep(step)
            step = min(2 * step, _LONGEST_WAIT)

    def _has_begun(self, turn: WaitingTurn, call: CallContext) -> bool:
        with self._lock:
            present = self._turn  # read once: a turn ends without the lock
            # The same thread asks again in a signal handler, or because an exception lost the end of its turn.
            if present is None or present.thread == turn.thread or present.until < call.clock():
                self._turn = turn
                return True
            return False

    def _fetched(self, fetch: Callable[[], T]) -> T:
        try:
            found = fetch()
        except (StreamClosedError, RequestTimeoutError):
            raise
        except CopilotError as error:
            self._rounds += 1
            self._failure = copy.copy(error)  # without the frames of this call, which it would keep alive
            raise
        self._failure = None
        return found

    def __getstate__(self) -> str:
        return self._stage

    def __setstate__(self, stage: str) -> None:
        self._stage, self._rounds, self._failure = stage, 0, None
        self.after_fork_in_child()
