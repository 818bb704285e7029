"""Threads of the operating system, as opposed to the service's, which are conversations.

Threads: what is shared is atomic: a queue, a lock that is held until a thread has ended, and what came of it.
"""

import _thread
import contextlib
import contextvars
import math
import queue
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, Generic, List, Optional, Protocol, TypeVar

T = TypeVar("T")

#: Seconds to wait for a thread of a closed connection. It ends at once, except in a look-up of DNS, which can't be
#: interrupted.
JOIN_TIMEOUT = 0.15
#: Seconds between two chances for a Ctrl-C in a wait. It ends none on Windows, nor on CPython 3.14t and 3.15 if it came
#: just before. So what the main thread may wait for longer is waited for in pieces, by the functions below.
WAKE = 1.0


def is_main_thread() -> bool:
    """Whether handlers of signals run in this thread."""
    return threading.get_ident() == threading.main_thread().ident


class AnyLock(Protocol):
    """A lock, be it reentrant or not."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:
        """Acquire it."""


def acquire_within(lock: AnyLock, seconds: float) -> bool:
    """Acquire a lock, and wait up to so many seconds for it; infinity is no limit. Return whether it was acquired."""
    end = time.monotonic() + seconds
    while not lock.acquire(timeout=max(0.0, min(end - time.monotonic(), WAKE))):
        if time.monotonic() >= end:
            return False
    return True


def join_within(thread: threading.Thread, seconds: float) -> None:
    """Wait for the end of a thread, up to so many seconds; infinity is no limit."""
    end = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < end:
        thread.join(max(0.0, min(end - time.monotonic(), WAKE)))


def start_thread(thread: threading.Thread) -> None:
    """Start a thread, such that an exception out of a signal handler does it no harm.

    ``Thread.start`` waits for the thread, under a lock that such an exception can leave locked. The thread would then
    wait for that lock for ever. So in the main thread, where handlers run, a short-lived thread calls it. The thread
    starts in a context of its own, because a free-threaded build starts one in a copy of the caller's context.

    Args:
        thread: The thread, which has not been started.

    Raises:
        RuntimeError: There can't be another thread.
    """
    if not is_main_thread():
        contextvars.Context().run(thread.start)
        return
    failures: ItemQueue[Optional[RuntimeError]] = ItemQueue()

    def start() -> None:
        failure = None
        try:
            contextvars.Context().run(thread.start)
        except RuntimeError as error:
            failure = error
        failures.put(failure)

    _thread.start_new_thread(start, ())
    failure = failures.get(math.inf)
    if failure is not None:
        raise failure


class ItemQueue(Generic[T]):
    """Items for a thread that waits for the next one up to some time.

    Any thread, a handler of a signal and a destructor may put one. The ``SimpleQueue`` of Python before 3.13 can wait
    for ever instead: if a wait was interrupted, or came late to its turn, what is left of its time may be negative,
    which is no limit there.
    """

    def __init__(self) -> None:
        self._items: Deque[T] = deque()
        self._wake = threading.Lock()  # released if there may be another item

    def empty(self) -> bool:
        """Whether there is no item now."""
        return not self._items

    def put(self, item: T) -> None:
        """Add an item, and wait for nothing."""
        self._items.append(item)
        with contextlib.suppress(RuntimeError):  # it was released
            self._wake.release()

    def get(self, timeout: float) -> T:
        """Take the next item, and wait up to so many seconds for it; infinity is no limit. Only one thread may wait.

        Raises:
            queue.Empty: None came in time.
        """
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(IndexError):
                return self._items.popleft()
            left = end - time.monotonic()
            if left <= 0:
                raise queue.Empty
            acquire_within(self._wake, left)


class ThreadResult(Generic[T]):
    """What comes of a function that runs in a thread of its own. One thread waits for it, and takes it.

    Args:
        function: It runs in a copy of the context of whoever creates this object.
        on_end: Called in the thread after the end. It must not raise.

    Raises:
        RuntimeError: There can't be another thread. In the main thread, ``take`` may raise it.
    """

    def __init__(self, function: Callable[[], T], on_end: Callable[[], object] = bool) -> None:
        self._results: List[T] = []
        # One at most. It is raised out of this list, so that no frame in its traceback holds it.
        self._failures: List[BaseException] = []
        self._ended = False
        # Held until the end. An event would be waited for with a lock of its own held now and then, which a handler of
        # a signal can leave locked.
        self._running = threading.Lock()
        self._running.acquire()
        context = contextvars.copy_context()
        self._on_end = on_end
        self._thread = threading.Thread(
            target=context.run, args=(self._run, function), name="copilot-sync-stream", daemon=True
        )
        if is_main_thread():  # see ``start_thread``; the main thread need not wait for the start
            _thread.start_new_thread(_start, (self._thread, weakref.ref(self)))
        else:
            contextvars.Context().run(self._thread.start)

    def _run(self, function: Callable[[], T]) -> None:
        try:
            self._results.append(function())
        except BaseException as error:  # noqa: BLE001 - whoever takes the result gets it, whatever it is
            self._failures.append(error)
        on_end = self._note_end()
        del self  # a failure holds this frame: it goes with this object, even if nobody takes it
        on_end()

    def _note_end(self) -> Callable[[], object]:
        """Note the end, and return what is called at the end, which is forgotten."""
        on_end, self._on_end = self._on_end, bool
        self._ended = True
        self._running.release()
        return on_end

    def _fail(self, error: RuntimeError) -> None:
        self._failures.append(error)
        self._note_end()()

    def wait(self, seconds: Optional[float]) -> bool:
        """Wait for the end, up to so many seconds; ``None`` for no limit. Return whether it has ended."""
        if not self._ended and acquire_within(self._running, math.inf if seconds is None else seconds):
            self._running.release()  # a handler of a signal may have interrupted a wait, and wait here itself
        return self._ended

    def take(self) -> T:
        """Return what the function returned, or raise what it raised. For once, after the end."""
        if self._failures:
            raise self._failures.pop()
        return self._results.pop()

    def join(self) -> None:
        """Wait for the end of the thread itself, up to ``JOIN_TIMEOUT``. Return at once in the thread itself."""
        with contextlib.suppress(RuntimeError):  # a thread can't join itself, which the garbage collector may ask of it
            self._thread.join(JOIN_TIMEOUT)


def _start(thread: threading.Thread, find: "Callable[[], Optional[ThreadResult[Any]]]") -> None:
    """Start a thread in place of the main thread. Holds nothing that whoever waits for it wants to be free of."""
    try:
        contextvars.Context().run(thread.start)
    except RuntimeError as error:
        result = find()
        if result is not None:  # pragma: no branch - else nobody waits for it any more
            result._fail(error)
