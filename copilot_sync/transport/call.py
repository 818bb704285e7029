"""One call of a user's: how long it may take, and how it is stopped.

A ``CallContext`` lasts from the first request for a token to the last byte of the answer. Whatever
blocks on its behalf asks it first how long it may block, and tells it which socket it
blocks on. ``cancel`` may then be called from any thread: it shuts that socket down, which ends
a blocked read at once (closing it would wait for the very lock that the reader holds).

A connection has no argument through which a call could reach it, so the call that a thread is
making is noted in a thread-local for the time of ``Transport.open``.

Threads: a call is confined to the thread that makes it, but for its stop and its delay, which are atomic, and its
socket, which is locked.
"""

import contextlib
import contextvars
import os
import socket
import ssl
import threading
import time
import weakref
from collections import Counter
from typing import Any, Callable, Dict, Generator, Iterator, Optional, Tuple
from typing import Counter as CounterType

from copilot_sync.errors import CopilotError, StreamClosedError
from copilot_sync.os_threads import acquire_within
from copilot_sync.settings import Timeout
from copilot_sync.stepping import Delay, NothingYet, Pace, Pause, Watch
from copilot_sync.transport.call_limits import INSTANT, CallLimits
from copilot_sync.transport.fork import reset_after_fork


class CallContext(CallLimits):
    """The deadline and the stop of one call. ``cancel`` is for any thread, the rest for the one that makes the call.

    Args:
        timeout: How long it may take.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, timeout: Timeout, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(timeout, clock)
        #: Where the last request went: its URL, and the proxy and the CAs as ``requests`` is told of them.
        self.route: Optional[Tuple[str, Dict[str, Any]]] = None
        #: How many requests were made, by stage.
        self.attempts: CounterType[str] = Counter()
        #: Tells hooks how the call goes; ``None`` if there are none.
        self.reporter: Any = None
        #: Whether hooks are told of it at all, and in which context; ``None`` is that of whoever goes on with it.
        self.is_reported = True
        self.hook_context: Optional[contextvars.Context] = None
        #: How the present step may wait. Whoever begins a step sets it, by ``begin_poll`` for one that polls.
        self.pace = Pace.BLOCKING
        #: Whether the reply that is asked for may be left to a later step, its head included.
        self.defers_reply = False
        #: Whether a connection may be made, which takes time. If not, there has to be one that waits in its pool.
        self.may_connect = True
        #: Whether a step paused though there may be more that has arrived.
        self.has_more = False
        #: Whether the present step has read as much as it may.
        self.turn_is_over = False
        self._turn_size = 0
        self._poll_until = 0.0
        #: Whether a read of a step that polls asks for ``poll_seconds``. If not, it waits for nothing.
        self.looks_at_time = False
        #: What takes the events of the reply, while the driver is paused because nothing has arrived.
        self.reading: Any = None
        #: What watches the socket between two steps.
        self.watch = Watch()
        # Re-entrant, because a signal handler may cancel the very call that it interrupts.
        self._lock = threading.RLock()
        self._stopped = False
        # Held until the call is stopped. An event would be waited for with a lock of its own held now and then,
        # which such a handler would wait for without an end.
        self._running = _held_lock()
        self._socket: Optional[socket.socket] = None
        self._process = os.getpid()
        self._delay: Optional[Delay] = None  # its end in place of its seconds

    def begin(self) -> None:
        """Start the clock of the call, in this process. Whoever makes a part of it may say so again."""
        self._process = os.getpid()
        reset_after_fork(self)
        self.start_clock()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._stopped

    def check(self, stage: Optional[str] = None) -> None:
        """Raise if the call was stopped or its time is over.

        Raises:
            StreamClosedError: It was stopped.
            RequestTimeoutError: The limit of the whole call is reached.
        """
        if self._stopped:
            self.check_process()
            raise StreamClosedError("the stream was closed", stage=stage)
        if self._deadline is not None and self.expired:
            raise self.timed_out("total", self._total, stage)

    def read_seconds(self) -> float:
        """How long the next read may block. Asked before each one, so it takes the fewest steps that it can.

        Raises:
            StreamClosedError: This is a forked child.
            socket.timeout: The time is over: what keeps arriving never runs into the time-out of a socket.
        """
        if os.getpid() != self._process:
            self.check_process()
        seconds = self.silence_seconds()
        if seconds <= INSTANT:
            raise socket.timeout("the time is over")
        return seconds

    def begin_poll(self, until: float = 0.0, looks_at_time: bool = True) -> None:
        """Begin steps that poll.

        Args:
            until: How long they wait for bytes, by the call's clock; 0 for not at all.
            looks_at_time: Whether a read first looks if the time is over, and if this is a forked child. An event loop
                watches the time, and in a child ``after_fork_in_child`` has taken the connection away.
        """
        if self.pace is not Pace.POLLING:
            self.hear()  # a step that may block keeps no account of what it hears
        self.pace, self._poll_until, self.looks_at_time = Pace.POLLING, until, looks_at_time
        self.has_more = self.turn_is_over = False
        self._turn_size = 0

    def end_turn(self) -> None:
        """Have the present step read nothing more, and wait for nothing."""
        self.turn_is_over = True

    def until_may_block(self) -> Generator[Pause, None, None]:
        """Pause until a step may block."""
        while self.pace is Pace.POLLING:
            yield Pause.BLOCKS

    def poll_seconds(self) -> float:
        """How long the next read of a step that polls may block.

        What arrived while nobody asked is read once more when the time is over.

        Raises:
            StreamClosedError: This is a forked child.
            socket.timeout: The time is over.
        """
        self.check_process()
        left = self.time_left()
        if left > 0:
            self._is_overtime = False
            return max(0.0, min(left, self._poll_until - self.clock())) if self._poll_until else 0.0
        if self._is_overtime:
            raise socket.timeout("the time is over")
        self._is_overtime = True
        return 0.0

    def heard_nothing(self) -> NothingYet:
        """Return what a read of a step that polls raises if nothing has arrived.

        Raises:
            socket.timeout: The time is over.
        """
        if self.time_left() <= 0:
            raise socket.timeout("the time is over")
        return NothingYet()

    def note_read(self, size: int, at_most: int) -> None:
        """Note that a step that polls has read so many bytes. It may read more, up to ``at_most`` in all."""
        self._turn_size += size
        if self._poll_until == 0.0 and self._turn_size >= at_most:
            self.turn_is_over = self.has_more = True

    def check_process(self) -> None:
        """Raise if this is a forked child: the connection belongs to the parent."""
        if os.getpid() != self._process:
            raise StreamClosedError("the stream belongs to the process that this one was forked from")

    def attach_socket(self, sock: socket.socket) -> None:
        """Note the socket that the call is about to block on; if the call was stopped it is shut down at once."""
        _held[self] = sock
        with self._lock:
            self._socket = sock
            if self._stopped:
                shut_down(sock)

    def detach_socket(self) -> None:
        """Forget the socket: from here on it is somebody else's."""
        self.watch.end()
        with self._lock:
            self._socket = None
        _held.pop(self, None)

    @property
    def attached(self) -> Any:
        """The socket that the call blocks on, or would; ``None`` if there is none."""
        return self._socket

    def cancel(self) -> None:
        """Stop the call, whatever it is doing. May be called from any thread, any number of times; never blocks.

        In a process that was forked from the one that makes the call, the socket is left alone: it is the parent's.
        """
        self._stopped = True
        self._end_sleep()
        if os.getpid() != self._process:
            return
        with self._lock:
            if self._socket is not None:
                shut_down(self._socket)

    def after_fork_in_child(self) -> None:
        """End the copy of this call that a forked child has: what it was doing, the parent does.

        Such a copy may well run: gevent's greenlets go on in both processes.
        """
        self._lock, self._running, self._stopped = threading.RLock(), _held_lock(), True
        self._end_sleep()
        sock, self._socket = self._socket, None
        if sock is not None:
            leave_to_parent(sock)

    @property
    def delay(self) -> Optional[Delay]:
        """What the call waits for at this moment, other than bytes; ``None`` if it does not. For any thread."""
        delay = self._delay
        return delay and delay._replace(seconds=max(0.0, delay.seconds - self.clock()))

    @contextlib.contextmanager
    def delayed(self, reason: str, seconds: float, error: Optional[CopilotError] = None) -> Iterator[None]:
        """Say why the call waits inside, and for how long. See ``Delay``."""
        self._delay = Delay(reason, self.clock() + seconds, "" if error is None else str(error.args[0]))
        try:
            yield
        finally:
            self._delay = None

    def sleep(self, seconds: float) -> None:
        """Wait, unless the call is stopped meanwhile.

        Raises:
            StreamClosedError: It was stopped.
        """
        if acquire_within(self._running, seconds):  # or woken
            self._end_sleep()
            self.check()

    def sleep_until_woken(self, seconds: float) -> None:
        """Wait, unless the call is stopped or woken meanwhile. It raises nothing."""
        if acquire_within(self._running, seconds):
            self.forget_wake(is_held=True)

    def wake(self) -> None:
        """End a ``sleep_until_woken``, or the next one."""
        self._end_sleep()

    def forget_wake(self, *, is_held: bool = False) -> None:
        """Have no sleep end for having been woken before. ``is_held`` says that the lock was taken for it."""
        if (is_held or self._running.acquire(False)) and self._stopped:
            self._end_sleep()

    def _end_sleep(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was released already
            self._running.release()

    def counted(self, error: CopilotError) -> CopilotError:
        """Put the number of requests made for its stage into an error that does not carry one yet."""
        if error.stage is not None and not error.attempts:
            error.attempts = self.attempts["message" if error.stage == "stream" else error.stage]
        return error

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this the call that connections used inside obey."""
        previous = getattr(_thread, "call", None)
        _thread.call = self
        try:
            yield
        finally:
            _thread.call = previous


def _held_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


_thread = threading.local()
#: The socket of each call, so that garbage collection, which goes in no order, never finds one before the call that
#: closes it, and warns of it.
_held: "weakref.WeakKeyDictionary[CallContext, socket.socket]" = weakref.WeakKeyDictionary()


def current_call() -> CallContext:
    """The call that this thread is making."""
    call = getattr(_thread, "call", None)
    if call is None:
        raise RuntimeError("a connection was used outside of a call")
    return call  # type: ignore[no-any-return]


def leave_to_parent(sock: Any) -> None:
    """Take a forked child's descriptor off its parent's connection, so that nothing is read from or written to it.

    Closing it would set its number free for something else, while there still are objects that use it.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it was closed, or never made
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(nowhere, getattr(sock, "socket", sock).fileno(), inheritable=False)
        finally:
            os.close(nowhere)


def shut_down(sock: Any) -> None:
    """End all reads and writes on a socket.

    A TLS socket's own ``shutdown`` drops its TLS state first, and a thread that is inside a read would go on
    in the clear; the plain one only tells the kernel. What ``urllib3`` makes for TLS inside of TLS is no socket,
    but has one. What tools for tests put in place of sockets may have nothing to shut down.
    """
    with contextlib.suppress(OSError, AttributeError):
        plain = getattr(sock, "socket", sock)  # which a socket of gevent's that is closed answers with an OSError
        if isinstance(plain, ssl.SSLSocket):
            super(ssl.SSLSocket, plain).shutdown(socket.SHUT_RDWR)
        else:
            plain.shutdown(socket.SHUT_RDWR)
