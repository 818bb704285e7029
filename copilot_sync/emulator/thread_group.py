"""The threads of one emulator: all are started here, and all have ended when it is closed.

Threads: locked.
"""

from __future__ import annotations

import contextvars
import threading
import time
from itertools import islice
from typing import Callable, Set

from copilot_sync.emulator.state import StoredAnswer

#: Seconds between two chances for a Ctrl-C in a wait, which it does not end everywhere.
CTRL_C_INTERVAL = 0.5
_JOIN_SECONDS = 5.0


class ThreadGroup:
    """Threads that are stopped together.

    Attributes:
        stopping: set when all threads are to end.
    """

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: Set[threading.Thread] = set()

    def start(self, work: Callable[[], None], name: str) -> bool:
        """Run ``work`` in a thread of its own; don't, and return ``False``, if the group is stopping."""
        thread = threading.Thread(target=work, name=f"copilot-emulator-{name}", daemon=True)
        with self._lock:
            if self.stopping.is_set():
                return False
            # A thread doesn't remove itself: join would not wait for what it does after that.
            self._threads = {each for each in self._threads if each.is_alive()}
            # The same context on every build: a free-threaded one would keep a copy of the caller's.
            contextvars.Context().run(thread.start)
            self._threads.add(thread)
        return True

    def stop(self) -> None:
        """Make all threads end; those that wait for the clock end at once."""
        with self._lock:
            self.stopping.set()

    def join(self) -> None:
        """Wait until all threads have ended, at most five seconds."""
        until = time.monotonic() + _JOIN_SECONDS
        with self._lock:
            threads = self._threads - {threading.current_thread()}
        for thread in threads:
            while thread.is_alive() and time.monotonic() < until:
                thread.join(max(0.0, min(until - time.monotonic(), CTRL_C_INTERVAL)))

    def finish_answer(self, answer: StoredAnswer) -> None:
        """Write an answer to its end in its thread, at its own pace, without a client that reads it."""
        if answer.reply.is_instant:
            for _ in answer.events:
                if self.stopping.is_set():
                    break
        else:
            self.start(lambda: self._write_slowly(answer), "writer")

    def _write_slowly(self, answer: StoredAnswer) -> None:
        reply = answer.reply
        delay = reply.pace if answer.started else reply.first_delay
        while not self.stopping.wait(delay):
            if not list(islice(answer.events, reply.per_write)):
                return
            delay = reply.pace
