"""The gate: places, pace, pauses, and how several processes share them. No test waits: the clock is the test's."""

import math
import threading
from typing import Any, Dict, List, Optional

import pytest
from support import Worker

from copilot_sync.batch.gate import Gate, MemoryCache
from copilot_sync.transport import fork


class Clock:
    """A clock that is set by hand, and that sleeping sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: List[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def entered(gate: Gate, most: int = 100) -> int:
    """How many get in one after the other."""
    return next(count for count in range(most + 1) if count == most or gate.try_enter() != 0)


def answered(gate: Gate, times: int) -> None:
    for _ in range(times):
        gate.answered()


def test_so_many_may_be_inside_at_once(clock: Clock) -> None:
    """Whoever comes when all places are taken has to wait for somebody to leave."""
    gate = Gate(3, clock=clock)
    assert entered(gate) == 3
    assert gate.try_enter() == math.inf
    gate.leave()
    assert (gate.try_enter(), gate.try_enter()) == (0.0, math.inf)


def test_a_rate_lets_in_at_equal_distances(clock: Clock) -> None:
    """30 a minute are one each two seconds, however many places are free, and waiting saves nothing up."""
    gate = Gate(8, rate=30, clock=clock)
    assert gate.try_enter() == 0
    assert gate.try_enter() == 2.0
    clock.now += 1.5
    assert gate.try_enter() == 0.5
    clock.now += 0.5
    assert gate.try_enter() == 0
    clock.now += 60
    assert entered(gate) == 1


def test_a_rate_is_kept_over_a_long_time(clock: Clock) -> None:
    """In ten minutes ten times the rate get in, whatever the rate is."""
    gate = Gate(10_000, rate=7, clock=clock)
    count = 0
    while clock.now < 1600:
        wait = gate.try_enter()
        count += wait == 0
        clock.now += wait
    assert count in (70, 71)


def test_a_turn_that_a_rounded_clock_just_misses_is_waited_for(clock: Clock) -> None:
    """The wait is never so short that it is none."""
    clock.now = 1001.9999999
    gate = Gate(8, rate=30, clock=clock)
    gate.try_enter()
    assert gate.try_enter() == 0.001


def test_a_refusal_closes_the_gate_for_everybody(clock: Clock) -> None:
    """Nobody gets in before the time that the service has named."""
    gate = Gate(4, clock=clock)
    assert gate.try_enter() == 0
    assert gate.refused(30) == 30
    assert (gate.try_enter(), gate.pause) == (30, 30)
    clock.now += 29
    assert gate.try_enter() == 1
    clock.now += 1
    assert (gate.try_enter(), gate.pause) == (0, 0)


def test_a_refusal_is_one_however_short(clock: Clock) -> None:
    """``Retry-After: 0`` closes the gate for a moment, and halves the places."""
    gate = Gate(4, clock=clock)
    assert gate.refused(0) == pytest.approx(0.1)
    assert gate.limit == 2


def test_a_longer_pause_wins_over_a_shorter_one(clock: Clock) -> None:
    """Refusals of the same moment do not open the gate too early."""
    gate = Gate(4, clock=clock)
    assert [gate.refused(30), gate.refused(5), gate.refused(40)] == [30, 30, 40]


def test_a_refusal_halves_the_places_once(clock: Clock) -> None:
    """All that were under way are refused together, and that is one reason to slow down, not eight."""
    gate = Gate(8, clock=clock)
    for _ in range(8):
        gate.refused(1)
    assert gate.limit == 4
    clock.now += 2
    gate.refused(1)
    assert gate.limit == 2
    for _ in range(3):
        clock.now += 2
        gate.refused(1)
    assert gate.limit == 1


def test_places_come_back_slowly(clock: Clock) -> None:
    """Each takes more answers than the last, and there are never more than at first."""
    gate = Gate(4, clock=clock)
    gate.refused(1)
    clock.now += 2
    assert (entered(gate), gate.limit) == (2, 2)
    answered(gate, 7)
    assert gate.limit == 2
    answered(gate, 1)
    assert gate.limit == 3
    answered(gate, 11)
    assert gate.limit == 3
    answered(gate, 1)
    assert gate.limit == 4
    answered(gate, 100)
    assert gate.limit == 4


def test_a_refusal_makes_the_count_of_answers_begin_anew(clock: Clock) -> None:
    """Only answers in a row show that it goes well."""
    gate = Gate(4, clock=clock)
    gate.refused(1)
    answered(gate, 7)
    gate.refused(1)
    answered(gate, 7)
    assert gate.limit == 2


def test_pauses_that_nobody_told_grow_until_there_is_an_answer(clock: Clock) -> None:
    """One second, two, four, up to a minute; what is refused while a pause lasts does not make the next one longer."""
    gate = Gate(4, clock=clock)
    pauses = []
    for _ in range(8):
        pauses.append(gate.refused())
        assert gate.refused() == pauses[-1]
        clock.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    gate.answered()
    assert gate.refused() == 1


def test_enter_waits_for_pause_pace_and_place(clock: Clock) -> None:
    """It sleeps as long as the gate says, and looks again every so often where it can't say."""
    gate = Gate(1, rate=60, clock=clock)
    gate.refused(5)
    gate.enter(sleep=clock.sleep)
    assert clock.slept == [5]

    def somebody_leaves(seconds: float) -> None:
        clock.sleep(seconds)
        gate.leave()

    gate.enter(sleep=somebody_leaves)
    assert clock.slept[1] == 0.05
    assert sum(clock.slept[2:]) == pytest.approx(0.95)


def test_what_interrupts_the_sleep_ends_the_waiting(clock: Clock) -> None:
    """Ctrl-C and time limits get through, and no place is lost."""
    gate = Gate(1, clock=clock)
    gate.refused(5)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gate.enter(sleep=interrupted)
    clock.now += 5
    assert gate.try_enter() == 0


# Shared


class DjangoLike:
    """A cache of Django's shape, with nothing but the three methods, which notes the time-outs."""

    def __init__(self) -> None:
        self.values: Dict[str, Any] = {}
        self.timeouts: List[Any] = []

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: str, timeout: Optional[int]) -> None:
        self.values[key] = value
        self.timeouts.append(timeout)

    def add(self, key: str, value: str, timeout: Optional[int]) -> bool:
        if key in self.values:
            return False
        self.set(key, value, timeout)
        return True


def test_a_refusal_in_one_process_pauses_the_others(clock: Clock) -> None:
    """Also one that begins later, and all of them have fewer places then."""
    cache = DjangoLike()
    one, other = (Gate(8, cache=cache, clock=clock) for _ in range(2))
    one.refused(20)
    assert other.try_enter() == 20
    assert (one.limit, other.limit) == (4, 4)
    assert Gate(8, cache=cache, clock=clock).try_enter() == 20
    assert Gate(8, cache=cache, clock=clock, name="another").try_enter() == 0


def test_a_pause_that_another_process_has_overwritten_comes_back(clock: Clock) -> None:
    """The three methods can't change a value in one step, so whoever knows of a longer pause says so again."""
    cache = DjangoLike()
    one, other = (Gate(8, cache=cache, clock=clock) for _ in range(2))
    one.refused(60)
    cache.values.clear()  # the other one had looked before, and writes only now
    other.refused(5)
    assert one.pause == 60
    assert other.pause == 60


def test_a_pause_that_is_over_is_not_told_again(clock: Clock) -> None:
    """When the cache has forgotten it, it stays forgotten."""
    cache = DjangoLike()
    gate = Gate(8, cache=cache, clock=clock)
    gate.refused(5)
    clock.now += 100
    cache.values.clear()
    assert gate.try_enter() == 0
    assert cache.values == {}


def test_processes_share_one_pace(clock: Clock) -> None:
    """Each turn belongs to one of them; another rate has turns of its own."""
    cache = DjangoLike()
    gates = [Gate(8, rate=60, cache=cache, clock=clock) for _ in range(3)]
    assert [gate.try_enter() for gate in gates] == [0, 1, 1]
    clock.now += 1
    assert [gate.try_enter() for gate in gates] == [0, 1, 1]
    assert Gate(8, rate=30, cache=cache, clock=clock).try_enter() == 0


def test_nothing_stays_in_the_cache_for_ever(clock: Clock) -> None:
    """Every value has a time-out, of whole seconds, that is longer than it matters."""
    cache = DjangoLike()
    gate = Gate(8, rate=7, cache=cache, clock=clock)
    gate.try_enter()
    gate.refused(20.5)
    assert [type(timeout) for timeout in cache.timeouts] == [int, int]
    assert cache.timeouts[0] > 60 / 7
    assert cache.timeouts[1] > 20.5


@pytest.mark.parametrize("nonsense", ["soon", b"\xff", [], object()], ids=["text", "bytes", "list", "object"])
def test_a_cache_that_holds_something_else_does_no_harm(clock: Clock, nonsense: Any) -> None:
    """It counts for nothing, and a refusal writes over it."""
    cache = DjangoLike()
    cache.values["copilot-sync-gate-pause"] = nonsense
    gate = Gate(8, cache=cache, clock=clock)
    assert gate.try_enter() == 0
    gate.refused(3)
    assert Gate(8, cache=cache, clock=clock).pause == 3


def test_with_a_cache_the_clock_is_one_that_others_have() -> None:
    """What processes share is told in the time of day; without a cache the clock never jumps."""
    cache = DjangoLike()
    Gate(8, cache=cache).refused(100)
    assert 1e9 < float(cache.values["copilot-sync-gate-pause"]) < 1e11
    gate = Gate(8)
    gate.refused(100)
    assert 99 < gate.pause <= 100


# The memory


def test_the_memory_forgets_what_is_over(clock: Clock) -> None:
    """A value lasts as long as was said, and its place is free again then."""
    cache = MemoryCache(clock=clock)
    assert (cache.get("a"), cache.add("a", "1", 10), cache.add("a", "2", 10), cache.get("a")) == (
        None,
        True,
        False,
        "1",
    )
    cache.set("a", "3", 5)
    assert cache.get("a") == "3"
    clock.now += 5
    assert cache.get("a") is None
    assert cache.add("a", "4", 1)


def test_the_memory_stays_small(clock: Clock) -> None:
    """A batch of a million prompts takes a million turns."""
    cache = MemoryCache(clock=clock)
    for number in range(20_000):
        cache.add(str(number), "taken", 61)
        clock.now += 1
    assert len(cache._entries) <= 1024


# Threads, forks, arguments


def test_no_two_threads_get_the_same_place() -> None:
    """However many come at once, so many get in as there are places."""
    gate = Gate(16)
    together = threading.Barrier(8)

    def come() -> int:
        together.wait()
        return entered(gate)

    workers = [Worker(come) for _ in range(8)]
    assert sum(worker.result() for worker in workers) == 16


def test_a_child_begins_with_an_empty_gate() -> None:
    """Whoever was inside, or was just about to enter, is in the parent; the pause holds for the child as well."""
    gate = Gate(1)
    gate.enter()
    gate.refused(100)
    gate._lock.acquire()
    fork._renew_all()
    assert 99 < gate.try_enter() <= 100
    assert gate._inside == 0


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"places": 0}, ValueError, "workers must be at least 1, not 0"),
        ({"places": 1.5}, TypeError, "workers must be a whole number, not float"),
        ({"places": True}, TypeError, "workers must be a whole number, not bool"),
        ({"rate": 0}, ValueError, "above zero, not 0"),
        ({"rate": math.inf}, ValueError, "above zero, not inf"),
        ({"rate": math.nan}, ValueError, "above zero, not nan"),
        ({"rate": "fast"}, TypeError, "rate must be a number of prompts a minute, not str"),
        ({"rate": False}, TypeError, "rate must be a number of prompts a minute, not bool"),
    ],
)
def test_wrong_arguments_are_told_at_once(arguments: Any, kind: Any, words: str) -> None:
    """With what was expected and what came."""
    with pytest.raises(kind, match=words):
        Gate(**arguments)
