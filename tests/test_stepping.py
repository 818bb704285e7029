"""How a call goes on in steps: how long one that polls may wait, and when the time of the call is over."""

import socket
from typing import Iterator, Optional

import pytest

from copilot_sync.errors import StreamClosedError
from copilot_sync.settings import Timeout
from copilot_sync.stepping import NothingYet, Pace, Pause, Watch, without_pauses
from copilot_sync.transport.call import CallContext


class Clock:
    """A clock that only goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def begun(clock: Clock, phase: str, total: Optional[float] = None) -> CallContext:
    call = CallContext(Timeout(connect=10, read=60, stall=90, total=total), clock=clock)
    call.begin()
    call.phase = phase
    call.begin_poll()
    return call


@pytest.mark.parametrize(
    ("phase", "total", "gone", "left"),
    [
        ("reply", None, 0, 60),
        ("reply", None, 59, 1),
        ("reply", None, 61, -1),
        ("reply", 30, 10, 20),
        ("read", None, 0, 60),
        ("read", None, 59, 1),
        ("read", 30, 31, -1),
    ],
)
def test_so_much_time_is_left(clock: Clock, phase: str, total: Optional[float], gone: float, left: float) -> None:
    """Of the silence that is allowed, or of the whole call."""
    call = begun(clock, phase, total)
    clock.now += gone
    assert call.time_left() == left


def test_bytes_without_progress_do_not_put_off_the_stall(clock: Clock) -> None:
    """In a body each of them is a sign of life, but no more."""
    call = begun(clock, "read")
    clock.now += 40
    call.hear()
    assert call.time_left() == 50
    clock.now += 40
    call.hear()
    assert call.time_left() == 10
    call.touch()
    assert call.time_left() == 60


def test_bytes_do_not_put_off_the_reply(clock: Clock) -> None:
    """A head that trickles has no longer than one that comes at once."""
    call = begun(clock, "reply")
    clock.now += 40
    call.hear()
    assert call.time_left() == 20


def test_a_window_limits_what_is_left(clock: Clock) -> None:
    """As it limits reads that block."""
    call = begun(clock, "read")
    with call.window(5):
        clock.now += 2
        assert call.time_left() == 3
    assert call.time_left() == 58


@pytest.mark.parametrize(("until", "seconds"), [(0, 0), (1002, 2), (2000, 60), (990, 0)])
def test_a_read_waits_as_long_as_the_step(clock: Clock, until: float, seconds: float) -> None:
    """And no longer than the call may."""
    call = begun(clock, "read")
    call.begin_poll(until)
    assert call.poll_seconds() == seconds


def test_what_has_arrived_is_read_when_the_time_is_over(clock: Clock) -> None:
    """Nobody may have looked for a while. If there is nothing, the time is over."""
    call = begun(clock, "read")
    clock.now += 61
    assert call.poll_seconds() == 0.0
    with pytest.raises(socket.timeout):
        call.heard_nothing()


def test_time_that_is_over_is_over_for_what_trickles(clock: Clock) -> None:
    """It is looked for once: what goes on to come is no reason to go on."""
    call = begun(clock, "read")
    clock.now += 91
    assert call.poll_seconds() == 0.0
    call.hear()
    with pytest.raises(socket.timeout):
        call.poll_seconds()


def test_progress_begins_the_time_anew(clock: Clock) -> None:
    """After a look when it was over, too."""
    call = begun(clock, "read")
    clock.now += 91
    assert call.poll_seconds() == 0.0
    call.touch()
    assert isinstance(call.heard_nothing(), NothingYet)
    clock.now += 61
    assert call.poll_seconds() == 0.0


def test_a_turn_is_over_when_it_has_read_its_share(clock: Clock) -> None:
    """There may be more then."""
    call = begun(clock, "read")
    call.note_read(99, 100)
    assert (call.turn_is_over, call.has_more) == (False, False)
    call.note_read(1, 100)
    assert (call.turn_is_over, call.has_more) == (True, True)
    call.begin_poll()
    assert (call.turn_is_over, call.has_more) == (False, False)


def test_a_step_that_waits_reads_what_it_can(clock: Clock) -> None:
    """Whoever polls has nothing else to do until then."""
    call = begun(clock, "read")
    call.begin_poll(1005)
    call.note_read(1000, 100)
    assert (call.turn_is_over, call.has_more) == (False, False)


def test_a_turn_can_be_ended(clock: Clock) -> None:
    """Nothing more is read in it, and there need not be more."""
    call = begun(clock, "read")
    call.end_turn()
    assert (call.turn_is_over, call.has_more) == (True, False)


def test_time_that_is_left_out_does_not_count(clock: Clock) -> None:
    """Of the whole call it does."""
    call = begun(clock, "read", total=100)
    clock.now += 80
    call.leave_out(79)
    assert call.time_left() == 20
    assert begun(clock, "reply").time_left() == 60


def test_a_step_that_blocked_has_heard_something(clock: Clock) -> None:
    """It does not say when. What it returned may be no progress."""
    call = begun(clock, "read")
    call.pace = Pace.BLOCKING
    clock.now += 80
    call.begin_poll()
    assert call.time_left() == 10
    clock.now += 5
    call.begin_poll()
    assert call.time_left() == 5


def test_a_forked_child_may_not_poll(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is the parent's."""
    call = begun(clock, "read")
    monkeypatch.setattr(call, "_process", -1)
    with pytest.raises(StreamClosedError, match="forked"):
        call.poll_seconds()


def test_what_may_block_waits_for_a_step_that_may(clock: Clock) -> None:
    """However often one polls before."""
    call = begun(clock, "connect")
    waiting = call.until_may_block()
    assert [next(waiting), next(waiting)] == [Pause.BLOCKS, Pause.BLOCKS]
    call.pace = Pace.HELPING
    assert list(waiting) == []
    call.pace = Pace.BLOCKING
    assert list(call.until_may_block()) == []


def test_steps_without_pauses_return_what_comes_of_them() -> None:
    """And one that pauses is a mistake of ours."""

    def steps(pauses: int) -> "Iterator[Pause]":
        yield from [Pause.BLOCKS] * pauses
        return 5  # type: ignore[return-value]

    assert without_pauses(steps(0)) == 5
    with pytest.raises(RuntimeError, match="a step paused"):
        without_pauses(steps(1))


def test_a_watch_that_watches_nothing_says_so() -> None:
    """Whoever makes the call waits then."""
    watch = Watch()
    assert (watch.begin(None, float), watch.closes(int), watch.repeats) == (False, False, False)
    watch.call_soon()
    watch.end()
