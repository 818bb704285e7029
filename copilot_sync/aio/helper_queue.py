"""Which readers of an event loop have a thread help them at once, and which wait for a moment.

Many threads that connect at the same time, as when a program begins, take the interpreter from the loop and from each
other, and memory for each. So ``AT_ONCE`` are started, and the next one when one of them has ended. They may as well
all be stuck, or far from the server, so another one is started after every ``MOMENT`` in any case.

Threads: confined to the loop.
"""

import asyncio
import contextvars
import weakref
from collections import deque
from typing import Any, Callable, Deque, TypeVar

T = TypeVar("T")

#: Threads that help in one loop without having waited.
AT_ONCE = 2
#: Seconds after which one more is started, though none has ended.
MOMENT = 0.002


class HelperQueue:
    """The threads that help in one loop. It holds neither the loop nor any reader."""

    def __init__(self) -> None:
        self._running = 0
        self._waiting: Deque[weakref.WeakMethod[Callable[[], bool]]] = deque()
        self._has_timer = False

    def may_start(self, start: "Callable[[], bool]") -> bool:
        """Whether a thread may be started now; ``leave`` follows in any case.

        Args:
            start: Called later if not, and starts it. ``leave`` follows if it returns ``True``. It is a method of an
                object that need not live until then.
        """
        if self._running < AT_ONCE and not self._waiting:
            self._running += 1
            return True
        self._waiting.append(weakref.WeakMethod(start))
        self._set_timer()
        return False

    def leave(self) -> None:
        """Note that a thread has ended, or was not started."""
        self._running -= 1
        if self._running < AT_ONCE:
            self._start_next()

    def _start_next(self) -> None:
        """Start the next one, past those that are over meanwhile."""
        while self._waiting:
            start = self._waiting.popleft()()
            if start is not None and start():
                self._running += 1
                return

    def _set_timer(self) -> None:
        if self._waiting and not self._has_timer:
            self._has_timer = True
            without_context(asyncio.get_running_loop().call_later, MOMENT, self._on_time)

    def _on_time(self) -> None:
        self._has_timer = False
        try:
            self._start_next()
        finally:
            self._set_timer()


_queues: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, HelperQueue]" = weakref.WeakKeyDictionary()


def queue_of(loop: asyncio.AbstractEventLoop) -> HelperQueue:
    """Return the queue of a loop."""
    return _queues.setdefault(loop, HelperQueue())


def without_context(tell: Callable[..., T], *args: Any) -> T:
    """Tell a loop to call something. It keeps the context of whoever tells it, which here is an empty one."""
    return contextvars.Context().run(tell, *args)
