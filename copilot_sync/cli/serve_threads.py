"""The threads of ``copilot-sync serve``, which are started when they are needed.

Those of waitress take turns, however few requests there are. With a hundred of them, each has been away so long that
nothing of its is in the caches of the processor any more.

Threads: what is counted is locked.
"""

import contextlib
from typing import Any, Callable

from waitress.task import ThreadedTaskDispatcher

#: Threads to begin with.
_FIRST = 4


class GrowingDispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Has threads of waitress answer requests. There is another one whenever all are busy.

    Args:
        most: How many there are at most.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self.set_thread_count(min(_FIRST, most))

    def add_task(self, task: Any) -> None:
        """Have a thread answer a request."""
        with self.lock:
            count = len(self.threads)
            are_busy = len(self.queue) >= count - self.active_count
        if are_busy and count < self._most and not self.stop_count:
            with contextlib.suppress(RuntimeError):  # if there can't be another one, it waits for those there are
                self.set_thread_count(count + 1)
        super().add_task(task)

    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        """Start a thread, which is already counted, and count it no longer if that fails."""
        try:
            super().start_new_thread(target, thread_no)
        except RuntimeError:
            self.threads.discard(thread_no)
            raise
