"""How long a call may take, and how it is stopped."""

import os
import pickle
import socket
import sys
import threading
import time
from typing import Any, Iterator, Optional, Tuple

import pytest
from support import Worker

from copilot_sync.errors import CopilotError, RequestTimeoutError, StreamClosedError
from copilot_sync.settings import Timeout
from copilot_sync.transport import fork
from copilot_sync.transport.call import CallContext, current_call


class Clock:
    """A clock that only goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs


def is_shut_down(theirs: socket.socket) -> bool:
    """Whether the other end of a socket pair was shut down: its end of the stream can be read without waiting."""
    theirs.setblocking(False)
    try:
        return theirs.recv(1) == b""
    except BlockingIOError:
        return False


def begun(clock: Clock, total: Optional[float] = None) -> CallContext:
    call = CallContext(Timeout(connect=10, read=60, stall=90, total=total), clock=clock)
    call.begin()
    return call


# fmt: off
BOUNDS = [
    # phase       total  seconds gone  seconds left of what may block
    ("connect",   None,   0.0,          10.0),
    ("connect",   None,   4.0,           6.0),
    ("connect",   3.0,    1.0,           2.0),
    ("connect",   None,  11.0,         0.001),
    ("send",      None,   0.0,          60.0),
    ("reply",     None,  20.0,          40.0),
    ("reply",     None,  99.0,         0.001),
    ("read",      None,  20.0,          60.0),
    ("read",      None,  40.0,          50.0),
    ("read",      None,  99.0,         0.001),
    ("read",      30.0,  20.0,          10.0),
    ("read",      30.0,  40.0,         0.001),
    ("read",     300.0,  20.0,          60.0),
]
# fmt: on


@pytest.mark.parametrize(("phase", "total", "gone", "left"), BOUNDS)
def test_a_step_may_block_for_what_is_left(
    clock: Clock, phase: str, total: Optional[float], gone: float, left: float
) -> None:
    """The nearest limit counts, and none is ever 0, which would mean "don't block" to a socket."""
    call = begun(clock, total)
    call.phase = phase
    clock.now += gone
    assert call.silence_seconds() == pytest.approx(left)


def test_progress_begins_the_limits_anew_but_not_the_whole_call(clock: Clock) -> None:
    """An answer that keeps coming may take any time, unless there is a limit for all of it."""
    call = begun(clock, total=150)
    call.phase = "read"
    clock.now += 80
    assert call.silence_seconds() == pytest.approx(10)
    call.touch()
    assert call.silence_seconds() == pytest.approx(60)
    assert call.remaining() == pytest.approx(70)
    clock.now += 40
    call.touch()
    assert call.silence_seconds() == pytest.approx(30)


def test_the_clock_of_a_call_starts_once(clock: Clock) -> None:
    """A part of it that begins later has what is left; its silence is its own."""
    call = begun(clock, total=30)
    clock.now += 20
    call.begin()
    assert call.remaining() == pytest.approx(10)
    assert call.silence_seconds() == pytest.approx(10)


def test_the_time_of_the_caller_is_not_the_servers(clock: Clock) -> None:
    """What passes while something is handed out counts for no limit but that of the whole call."""
    call = begun(clock, total=300)
    call.phase = "read"
    clock.now += 10
    with call.paused():
        clock.now += 200
    clock.now += 10
    assert call.silence_seconds() == pytest.approx(60)
    clock.now += 20
    assert call.silence_seconds() == pytest.approx(50)
    assert call.remaining() == pytest.approx(60)


# fmt: off
REACHED = [
    # phase       seconds gone  the limit
    ("connect",   10.0,         ("connect", 10.0)),
    ("send",      60.0,         ("send", 60.0)),
    ("reply",     60.0,         ("reply", 60.0)),
    ("read",      60.0,         ("read", 60.0)),
    ("read",      90.0,         ("stall", 90.0)),
    ("read",     500.0,         ("total", 500.0)),
]
# fmt: on


@pytest.mark.parametrize(("phase", "gone", "limit"), REACHED)
def test_the_limit_that_was_reached_is_told(clock: Clock, phase: str, gone: float, limit: Tuple[str, float]) -> None:
    """A connection that is alive and brings nothing is told from one that is silent."""
    call = begun(clock, total=500)
    call.phase = phase
    clock.now += gone
    error = call.silence("stream")
    assert (error.phase, error.seconds, error.stage) == (*limit, "stream")


def test_a_part_of_a_call_can_be_limited(clock: Clock) -> None:
    """Waiting included; afterwards the limits are what they were, and they always count as well."""
    call = begun(clock)
    with call.limited(5.0):
        assert (call.remaining(), call.silence_seconds()) == (5.0, 5.0)
        with call.limited(7.0):
            assert call.remaining() == 5.0
        clock.now += 5.0
        with pytest.raises(RequestTimeoutError, match="longer than the 5 s"):
            call.check("messages")
    assert call.remaining() is None
    call.check("messages")


def test_a_part_of_a_call_lasts_no_longer_than_the_call(clock: Clock) -> None:
    """Its own limit is what an error tells where that is the nearer one."""
    call = begun(clock, total=3)
    with call.limited(5.0):
        clock.now += 3.0
        assert (call.silence().phase, call.silence().seconds) == ("total", 3.0)


def test_a_window_bounds_the_reads_inside_of_it_altogether(clock: Clock) -> None:
    """What may follow an answer is waited for so long, however it drips; afterwards nothing is left of the window."""
    call = begun(clock)
    call.phase = "read"
    with call.window(2.0):
        assert call.silence_seconds() == pytest.approx(2.0)
        clock.now += 1.5
        call.touch()
        assert call.silence_seconds() == pytest.approx(0.5)
        assert not call.window_closed
        clock.now += 0.5
        assert call.window_closed
    assert not call.window_closed
    assert call.silence_seconds() == pytest.approx(60)


@pytest.mark.parametrize("total", [2.0, None], ids=["the call's time", "a window's time"])
def test_a_read_is_not_begun_when_its_time_is_over(clock: Clock, total: Optional[float]) -> None:
    """What keeps arriving would never run into the time-out of a socket."""
    call = begun(clock, total)
    call.phase = "read"
    with call.window(3.0 if total else 2.0):
        clock.now += 1.5
        assert call.read_seconds() == pytest.approx(0.5)
        clock.now += 0.5
        with pytest.raises(socket.timeout):
            call.read_seconds()


def test_what_arrives_without_progress_is_too_late(clock: Clock) -> None:
    """A server that never pauses, and never says anything, runs into no time-out of a socket."""
    call = begun(clock)
    call.phase = "read"
    clock.now += 90
    with pytest.raises(socket.timeout):
        call.read_seconds()


def test_a_wait_may_be_longer_than_the_system_knows(clock: Clock) -> None:
    """It is cut to what it knows, which is some centuries."""
    call = begun(clock)
    call.cancel()
    with pytest.raises(StreamClosedError):
        call.sleep(1e30)


def test_a_child_does_not_read_from_its_parents_connection(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take from the parent what it reads."""
    call = begun(clock)
    call.phase = "read"
    assert call.read_seconds() == pytest.approx(60)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(StreamClosedError, match="belongs to the process"):
        call.read_seconds()


def test_a_call_without_a_total_never_expires(clock: Clock) -> None:
    """No limit was set, so none is reached."""
    call = begun(clock)
    clock.now += 1e9
    assert call.remaining() is None
    assert not call.expired
    call.check("message")


def test_a_call_whose_time_is_over_says_so(clock: Clock) -> None:
    """The error names the limit, its seconds and the stage."""
    call = begun(clock, total=5)
    clock.now += 4.99
    call.check()
    clock.now += 0.01
    assert call.expired
    with pytest.raises(
        RequestTimeoutError, match=r"longer than the 5 s that it may take in all \[stage token\]"
    ) as caught:
        call.check("token")
    assert (caught.value.phase, caught.value.seconds, caught.value.stage) == ("total", 5.0, "token")


@pytest.mark.parametrize("phase", ["connect", "send", "reply", "read", "stall", "total"])
def test_a_time_out_names_its_phase_and_its_seconds(clock: Clock, phase: str) -> None:
    """Users see at once which limit to raise."""
    error = begun(clock).timed_out(phase, 2.5, "message")
    assert isinstance(error, TimeoutError)
    assert (error.phase, error.seconds) == (phase, 2.5)
    assert "2.5 s" in str(error)


def test_a_cancelled_call_stays_cancelled(clock: Clock) -> None:
    """Stopping comes before all limits, and any number of times is the same as once."""
    call = begun(clock, total=1)
    clock.now += 5
    assert not call.cancelled
    call.cancel()
    call.cancel()
    assert call.cancelled
    with pytest.raises(StreamClosedError, match=r"closed \[stage message\]"):
        call.check("message")


def test_cancelling_shuts_the_socket_down_that_is_held(pair: Tuple[socket.socket, socket.socket]) -> None:
    """A read that is blocked in another thread ends, and the peer sees the end of the connection."""
    ours, theirs = pair
    call = CallContext(Timeout())
    call.attach_socket(ours)
    reading = Worker(lambda: ours.recv(1))
    call.cancel()
    assert reading.result() == b""
    assert is_shut_down(theirs)


def test_a_socket_held_after_the_stop_is_shut_down_at_once(pair: Tuple[socket.socket, socket.socket]) -> None:
    """Whoever comes late to block doesn't."""
    ours, theirs = pair
    call = CallContext(Timeout())
    call.cancel()
    call.attach_socket(ours)
    assert is_shut_down(theirs)


def test_a_released_socket_is_left_alone(pair: Tuple[socket.socket, socket.socket]) -> None:
    """After the connection was given back it may already serve somebody else."""
    ours, theirs = pair
    call = CallContext(Timeout())
    call.attach_socket(ours)
    call.detach_socket()
    call.cancel()
    assert not is_shut_down(theirs)


def test_cancelling_bears_a_socket_that_is_closed_already(pair: Tuple[socket.socket, socket.socket]) -> None:
    """The connection may end at the very moment at which it is stopped."""
    call = CallContext(Timeout())
    call.attach_socket(pair[0])
    pair[0].close()
    call.cancel()
    assert call.cancelled


def test_a_call_may_be_cancelled_by_what_interrupts_it(pair: Tuple[socket.socket, socket.socket]) -> None:
    """A signal handler runs in the middle of anything, also where the call's own lock is held."""
    call = CallContext(Timeout())
    with call._lock:
        call.cancel()
        call.attach_socket(pair[0])
    assert is_shut_down(pair[1])


def test_a_child_leaves_the_socket_of_its_parent_alone(
    pair: Tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shutting it down would end the parent's stream: the connection is the same one."""
    call = CallContext(Timeout())
    call.attach_socket(pair[0])
    call.check_process()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    call.cancel()
    assert call.cancelled
    assert not is_shut_down(pair[1])
    with pytest.raises(StreamClosedError, match="belongs to the process"):
        call.check_process()


def test_sleeping_ends_when_the_call_is_stopped() -> None:
    """A wait for the next attempt doesn't hold anybody up who closes the stream."""
    call = CallContext(Timeout())
    sleeping = Worker(lambda: call.sleep(3600))
    call.cancel()
    with pytest.raises(StreamClosedError):
        sleeping.result()


class Interrupted:
    """A sleep in which the very thread that sleeps stops the call at one step, as a signal's handler does."""

    def __init__(self, step: int) -> None:
        self.call = CallContext(Timeout())
        self.was_stopped = False
        self._steps_left = step
        self.call.begin()
        self.sleeping = Worker(self._sleep)

    def _sleep(self) -> None:  # pragma: no cover - one tracer hides another
        sys.settrace(self._trace)
        try:
            self.call.sleep(3600)
        finally:
            sys.settrace(None)

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:  # pragma: no cover - one tracer hides another
        self._steps_left -= 1
        if not self._steps_left:
            self.call.cancel()
            self.was_stopped = True
        return self._trace


def test_a_signals_handler_may_stop_the_call_at_any_step_of_a_sleep() -> None:
    """It must neither wait for what the sleep holds nor be missed by it."""
    step, interrupted = 1, Interrupted(1)
    while interrupted.sleeping.ended_within(0.5):
        with pytest.raises(StreamClosedError):
            interrupted.sleeping.result()
        assert interrupted.was_stopped
        step += 1
        interrupted = Interrupted(step)
    assert step > 1 and not interrupted.was_stopped, "it sleeps, though it was stopped"
    interrupted.call.cancel()
    with pytest.raises(StreamClosedError):
        interrupted.sleeping.result()


def test_sleeping_that_nobody_disturbs_just_ends() -> None:
    """A wait that is over is no failure."""
    call = CallContext(Timeout())
    call.sleep(0)
    call.check()


# fmt: off
COUNTS = [
    # the stage   its count before  after
    ("message",   0,                2),
    ("stream",    0,                2),
    ("token",     0,                1),
    ("threads",   0,                0),
    ("message",   7,                7),
    (None,        0,                0),
]
# fmt: on


@pytest.mark.parametrize(("stage", "before", "after"), COUNTS)
def test_an_error_learns_how_many_requests_were_made(stage: Optional[str], before: int, after: int) -> None:
    """For its stage; reading an answer belongs to the request of the message. A number that is there stays."""
    call = CallContext(Timeout())
    call.attempts.update(message=2, token=1)
    error = CopilotError("broken", stage=stage, attempts=before)
    assert call.counted(error) is error
    assert pickle.loads(pickle.dumps(error)).attempts == after


def test_a_thread_knows_the_call_that_it_is_making() -> None:
    """Calls nest, as a token's request does in a message's, and other threads see nothing of it."""
    outer, inner = CallContext(Timeout()), CallContext(Timeout())
    with outer.current():
        with inner.current():
            assert current_call() is inner
        assert current_call() is outer
        with pytest.raises(RuntimeError):
            Worker(current_call).result()
    with pytest.raises(RuntimeError, match="outside of a call"):
        current_call()


def test_a_call_can_be_cancelled_by_many_threads_at_once(pair: Tuple[socket.socket, socket.socket]) -> None:
    """Nobody waits for anybody."""
    call = CallContext(Timeout())
    call.attach_socket(pair[0])
    together = threading.Barrier(8)

    def cancel() -> None:
        together.wait(10)
        call.cancel()

    workers = [Worker(cancel) for _ in range(8)]
    for worker in workers:
        worker.result()
    assert is_shut_down(pair[1])


@pytest.mark.usefixtures("registered")
def test_the_copy_of_a_call_in_a_child_is_off_its_parents_connection(
    clock: Clock, pair: Tuple[socket.socket, socket.socket]
) -> None:
    """It has ended, its descriptor leads nowhere, and the connection is whole for the parent."""
    inherited, theirs = pair
    call = begun(clock)
    call.attach_socket(inherited)
    with inherited.dup() as parents:  # the parent's own descriptor
        fork._reset_all()
        with pytest.raises(OSError, match="ocket"):
            inherited.send(b"from the child")
        theirs.sendall(b"for the parent")
        assert parents.recv(100) == b"for the parent"
    with pytest.raises(StreamClosedError):
        call.check()


def test_the_copy_of_a_call_may_hold_a_socket_that_is_closed(
    clock: Clock, pair: Tuple[socket.socket, socket.socket]
) -> None:
    """Its number is somebody else's by now."""
    call = begun(clock)
    call.attach_socket(pair[0])
    pair[0].close()
    call.after_fork_in_child()
    assert call.cancelled


def test_a_wait_in_pieces_is_as_long_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two of them a Ctrl-C that came too early for one gets its chance."""
    monkeypatch.setattr("copilot_sync.os_threads.WAKE", 0.01)
    call = CallContext(Timeout())
    begun = time.monotonic()
    call.sleep(0.05)
    assert time.monotonic() - begun >= 0.05
    call.cancel()
    with pytest.raises(StreamClosedError):
        call.sleep(60)
