"""Threads of the operating system, as opposed to the service's, which are conversations.

Threads: nothing is shared but a queue, which is atomic.
"""

import _thread
import contextvars
import queue
import threading
from typing import Optional


def start_thread(thread: threading.Thread) -> None:
    """Start a thread, such that an exception out of a signal handler does it no harm.

    ``Thread.start`` waits for the thread, under a lock that such an exception can leave locked. The thread would then
    wait for that lock for ever. So a short-lived thread calls it, which no signal handler runs in. It does so in a
    context of its own, because a free-threaded build starts a thread in a copy of the caller's context.

    Args:
        thread: The thread, which has not been started.

    Raises:
        RuntimeError: There can't be another thread.
    """
    failures: queue.SimpleQueue[Optional[RuntimeError]] = queue.SimpleQueue()

    def start() -> None:
        failure = None
        try:
            contextvars.Context().run(thread.start)
        except RuntimeError as error:
            failure = error
        failures.put(failure)

    _thread.start_new_thread(start, ())
    failure = failures.get()
    if failure is not None:
        raise failure
