"""A thread that reads a blocking iterator ahead of its consumer.

The thread appends each item to a bounded buffer and calls ``notify``. How the consumer waits is its own business: a
blocking one on a ``threading.Event``, an asynchronous one on its event loop. The consumer takes everything that is
there at once. Closing interrupts a blocked read, so the thread ends with its consumer.

The thread holds this object and never its consumer: a consumer that nobody refers to any more can be collected, and
closes the thread when it is. This module knows neither streams nor asyncio.

Threads: the buffer is atomic and the wait for room in it is locked. Each flag is set by one side alone.
"""

import contextlib
import contextvars
import threading
from collections import deque
from typing import Callable, Deque, Generic, Iterable, List, Optional, TypeVar

T = TypeVar("T")

#: Items that are read ahead of the consumer.
READ_AHEAD = 256
#: Seconds to wait for a closed thread. It ends at once, except during a DNS look-up, which can't be interrupted.
JOIN_TIMEOUT = 0.15


class ReaderThread(Generic[T]):
    """A thread that reads ahead, and the items it has read.

    ``take`` and ``raise_failure`` are for one consumer; the other methods are safe from any thread.

    Args:
        items: The iterator to read. The thread sees the context variables of whoever creates this object.
        close: Interrupts a blocked read of ``items``. It must not block.
        notify: Called in the thread after each item and after the end. It must not raise.
    """

    def __init__(self, items: Iterable[T], close: Callable[[], None], notify: Callable[[], None]) -> None:
        self._items = items
        self._close = close
        self._notify = notify
        self._buffer: Deque[T] = deque()
        self._room = threading.Condition()
        self._is_full = False
        self._closing = False
        self._ended = False
        # One at most. It is raised out of this list, so that no frame in its traceback holds it.
        self._failures: List[BaseException] = []
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="copilot-sync-stream", daemon=True)

    @property
    def ended(self) -> bool:
        """Whether the last item was read. The buffer may still hold items."""
        return self._ended

    @property
    def is_alive(self) -> bool:
        """Whether the thread was started and still runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start to read."""
        # A free-threaded build copies the context of whoever starts a thread, and an ended thread keeps the copy.
        contextvars.Context().run(self._thread.start)

    def take(self) -> Optional[Deque[T]]:
        """Return all items in the buffer, which may be none yet; ``None`` after the last item."""
        ended = self._ended  # read first: an item that was appended before the end is seen below
        batch = deque([self._buffer.popleft() for _ in range(len(self._buffer))])
        if self._is_full:
            self._signal_room()
        return batch if batch or not ended else None

    def raise_failure(self) -> None:
        """Raise the exception that ended the thread, if there is one. Later calls raise nothing."""
        if self._failures:
            raise self._failures.pop()

    def drop_failure(self) -> None:
        """Forget the exception that ended the thread. Its traceback refers to this object."""
        self._failures.clear()

    def close(self) -> None:
        """Tell the thread to end, and interrupt what it waits for. Never blocks."""
        if not self._ended:
            self._closing = True
            self._close()
            self._signal_room()

    def join(self) -> None:
        """Wait for the end of the thread, up to ``JOIN_TIMEOUT``. Return at once in the thread itself."""
        # A thread can't join itself, which the garbage collector may ask of it, nor one that was never started.
        with contextlib.suppress(RuntimeError):
            self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 - the consumer gets it, whatever it is
            self._failures.append(error)
        self._ended = True
        self._notify()
        del self._notify  # it is not needed again, and what it belongs to usually refers to this object

    def _read(self) -> None:
        try:
            for item in self._items:
                self._buffer.append(item)
                self._notify()
                if len(self._buffer) >= READ_AHEAD:
                    self._wait_for_room()
                if self._closing:
                    break
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _wait_for_room(self) -> None:
        self._is_full = True  # set before the first look: a consumer that makes room afterwards sees it
        with self._room:
            self._room.wait_for(self._has_room)
        self._is_full = False

    def _has_room(self) -> bool:
        return len(self._buffer) < READ_AHEAD or self._closing

    def _signal_room(self) -> None:
        with self._room:
            self._room.notify()
