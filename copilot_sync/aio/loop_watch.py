"""How an asyncio event loop watches the connection of a stream, and the time.

The loop holds a ``LoopWatch``, and that holds the reader weakly: a reader that nobody holds closes its stream. While
somebody waits for the reader, the watch holds it too, because a task that waits has nobody else. While a thread helps,
which holds the watch, a timer of the loop does so instead: a loop that is closed lets go of it, and the thread ends.

Rules:

- The loop stops watching a connection before it is closed, by its number: otherwise it would go on to watch what gets
  that number next. A stream that another thread closes is shut down there, and closed in the loop.
- In a process that was forked the loop is not touched, because it shares the kernel's watch with its parent.

Threads: confined to the loop. Others tell the loop to call, and ``closes`` says when.
"""

import asyncio
import os
import weakref
from typing import Any, Callable, Optional

from copilot_sync.aio.helper_queue import queue_of, without_context
from copilot_sync.stepping import Watch

#: Seconds that nothing waits for.
_LATE = 24 * 3600.0


def watches_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop can watch a socket. That of Windows, ``ProactorEventLoop``, can't."""
    return getattr(type(loop), "add_reader", None) not in (None, asyncio.AbstractEventLoop.add_reader)


class LoopWatch(Watch):
    """The connection of one reader, and the time that it has.

    Args:
        loop: The running loop.
        reader: What goes on when there is something to read. It has ``context``, ``close`` and what is called here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, reader: Any) -> None:
        self._loop = loop
        self._reader = weakref.ref(reader)
        # uvloop stops watching a connection that was reset, which may have bytes left to read (libuv's uv__poll_io).
        self.repeats = isinstance(loop, asyncio.SelectorEventLoop)
        self._process = os.getpid()
        self._number = -1
        self.is_watching = False
        self._timer: Optional[asyncio.TimerHandle] = None
        self._timer_at = 0.0
        self._time_left: Callable[[], float] = float
        self._queue = queue_of(loop)
        self._is_queued = False  # it is told when the thread has ended
        #: The reader, while somebody waits for it.
        self.holder: Any = None

    def begin(self, sock: Any, time_left: Callable[[], float]) -> bool:
        """Have the reader go on when there is something to read, or its time is over."""
        if not watches_sockets(self._loop):
            return False
        number = sock.fileno()
        if number != self._number or not self.is_watching:
            self.end()
            self._number, self.is_watching = number, True  # first, so that an interruption leaves nothing watched
            try:
                self._loop.add_reader(number, self._on_ready)  # it runs in the present context, which is the reader's
            except (OSError, ValueError, RuntimeError):  # there are too many, or it is none
                self._number, self.is_watching = -1, False
                return False
        self._time_left = time_left
        self._set_timer(self._loop.time() + time_left())
        return True

    def _set_timer(self, at: float) -> None:
        """Have the timer go off at a time at the latest. It stays if it goes off earlier, which costs nothing."""
        if self._timer is None or at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = without_context(self._loop.call_at, at, self._on_time), at

    def _on_time(self) -> None:
        self._timer = None
        self._run("on_time")

    def set_timer_anew(self) -> bool:
        """Have the timer go off when the time is over; return ``False`` if it is."""
        left = self._time_left()
        if left > 0:
            self._set_timer(self._loop.time() + left)
        return left > 0

    def _on_ready(self) -> None:
        try:
            reader = self._reader()
            if reader is not None:
                reader.on_ready()
        except BaseException:
            self._tell_interruption()
            raise

    def _run(self, method: str, *args: Any) -> Any:
        try:
            reader = self._reader()
            return None if reader is None else reader.context.run(getattr(reader, method), *args)
        except BaseException:
            self._tell_interruption()
            raise

    def _tell_interruption(self) -> None:
        """Tell the reader that a handler of a signal has raised. The exception goes on through the loop."""
        reader = self._reader()
        if reader is not None:  # pragma: no branch - else it was interrupted before it found out that there is none
            reader.on_interruption()

    def call_soon(self) -> None:
        """Have the reader go on in the next round of the loop."""
        without_context(self._loop.call_soon, self._run, "on_ready")

    def may_start(self) -> bool:
        """Whether a thread may be started now. If not, the reader's ``start_help`` is called when its turn has come."""
        self._is_queued = self._queue.may_start(self._start_help)
        return self._is_queued

    def _start_help(self) -> bool:
        self._is_queued = bool(self._run("start_help"))
        return self._is_queued

    def note_no_help(self) -> None:
        """Note that no thread was started."""
        if self._is_queued:
            self._is_queued = False
            self._queue.leave()

    def call_late(self, held: Any) -> asyncio.TimerHandle:
        """Have the loop hold an object until the timer is cancelled, or the loop closed."""
        return without_context(self._loop.call_later, _LATE, bool, held)

    def call_on_help(self) -> None:
        """Have the reader go on, in the loop. For the thread that helped, when it ends."""
        try:
            without_context(self._loop.call_soon_threadsafe, self._on_help)
        except RuntimeError:  # the loop was closed, so nobody will read any more
            reader = self._reader()
            if reader is not None:
                reader.close()

    def _on_help(self) -> None:
        was_queued, self._is_queued = self._is_queued, False  # the reader may want another one
        try:
            self._run("on_help")
        finally:
            if was_queued:
                self._queue.leave()

    def end(self) -> None:
        """Stop watching. The number of the socket is free for something else from now on."""
        self._time_left = float  # it holds the call, which holds this object
        # Each is forgotten after it has ended: an interruption in between has it ended once more.
        if self._number >= 0 and self._is_usable():
            self._loop.remove_reader(self._number)
        self._number, self.is_watching = -1, False
        timer = self._timer
        if timer is not None and self._is_usable():
            timer.cancel()
        self._timer = None

    def _is_usable(self) -> bool:
        return os.getpid() == self._process and not self._loop.is_closed()

    def closes(self, close: Callable[[], None]) -> bool:
        """Leave closing to the loop, if another thread asks and the loop watches the connection."""
        if not self._is_usable():
            return False
        if asyncio._get_running_loop() is self._loop:
            self.call_soon()  # whoever waits is told
        elif self._loop.is_running():
            is_watched = self._number >= 0
            tell = (close,) if is_watched else (self._run, "on_ready")
            try:
                without_context(self._loop.call_soon_threadsafe, *tell)
            except RuntimeError:  # the loop was closed meanwhile
                return False
            return is_watched
        return False
