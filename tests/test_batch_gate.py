"""The gate: places, pace, pauses, and how several processes share them. No test waits: the clock is the test's."""

import math
import threading
from typing import Any, Dict, List, Optional

import pytest
from support import Worker

from copilot_sync.batch.gate import BY_HOST, Gate, MemoryCache, pace_for
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


def test_a_start_that_a_rounded_clock_just_misses_is_waited_for(clock: Clock) -> None:
    """The wait is never so short that it is none."""
    gate = Gate(8, rate=30, clock=clock)
    gate.try_enter()
    clock.now += 1.9999999
    assert gate.try_enter() == 0.001


@pytest.mark.parametrize("idle", [0.0, 1.3, 1.999, 59.0, 119.99, 5000.7])
@pytest.mark.parametrize("processes", [1, 3])
def test_no_two_starts_are_closer_than_the_rate_has_it(clock: Clock, idle: float, processes: int) -> None:
    """Whenever the first one comes, after however long a time in which none began."""
    cache = MemoryCache(clock=clock)
    gates = [Gate(100, rate=30, cache=cache, clock=clock) for _ in range(processes)]
    starts: List[float] = []

    def begin(count: int) -> None:
        for _ in range(count):
            waits = [gate.try_enter() for gate in gates]
            starts.extend([clock.now] * waits.count(0.0))
            clock.now += 0.1

    begin(35)
    clock.now += idle
    begin(70)
    distances = [later - sooner for sooner, later in zip(starts, starts[1:])]
    assert min(distances) >= 2.0 - 1e-6
    assert len(starts) >= 5


def test_a_clock_that_is_set_back_stops_nobody(clock: Clock) -> None:
    """A start that lies ahead is none of this hour."""
    clock.now = 1e9
    gate = Gate(8, rate=30, clock=clock)
    gate.try_enter()
    clock.now -= 3600
    gate._cache = MemoryCache(clock=clock)
    assert gate.try_enter() == 0


def test_a_start_that_another_process_just_took_is_respected(clock: Clock) -> None:
    """It had not yet said so where others look first."""
    cache = DjangoLike()
    gates = [Gate(8, rate=30, cache=cache, clock=clock) for _ in range(2)]
    gates[0].try_enter()
    del cache.values["copilot-sync-gate-last"]
    assert gates[1].try_enter() == 2.0


@pytest.mark.parametrize("kept", ["nonsense", "nan", "-inf", None])
def test_a_cache_that_holds_nonsense_for_a_start_does_no_harm(clock: Clock, kept: Any) -> None:
    """It is asked again a moment later."""
    cache = DjangoLike()
    cache.values["copilot-sync-gate-after--inf"] = kept
    gate = Gate(8, rate=30, cache=cache, clock=clock)
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


@pytest.mark.parametrize("told", [0, 0.001, -5, 0.9])
def test_a_refusal_is_one_however_short(clock: Clock, told: float) -> None:
    """Whatever the service calls a wait, it is never shorter than our own, which grows; and the places are halved."""
    gate = Gate(4, clock=clock)
    pauses = []
    for _ in range(4):
        pauses.append(gate.refused(told))
        clock.now += pauses[-1]
    assert pauses == [1, 2, 4, 8]
    assert gate.limit == 1


def test_after_a_pause_one_tries_and_the_others_wait_for_what_comes_of_it(clock: Clock) -> None:
    """Also those who come much later."""
    gate = Gate(8, clock=clock)
    assert entered(gate) == 8
    for _ in range(8):
        gate.refused(5)
        gate.leave()
    clock.now += 5
    assert gate.try_enter() == 0
    clock.now += 500
    assert gate.try_enter() == math.inf
    gate.refused()
    gate.leave()
    clock.now += 2
    assert gate.try_enter() == 0
    assert gate.try_enter() == math.inf
    gate.answered()
    gate.leave()
    clock.now += 100
    assert entered(gate) == gate.limit == 2


def test_one_that_tried_and_tells_nothing_lets_the_next_one_try(clock: Clock) -> None:
    """Its prompt may have been one that can't be sent."""
    gate = Gate(8, clock=clock)
    gate.refused(1)
    clock.now += 1
    gate.enter()
    gate.leave()
    clock.now += 2
    assert gate.try_enter() == 0


def test_those_who_were_inside_do_not_count_as_the_one_that_tries(clock: Clock) -> None:
    """An answer that takes long is no reason for nobody to try."""
    gate = Gate(8, clock=clock)
    assert [gate.try_enter(), gate.try_enter()] == [0, 0]
    gate.refused(1)
    gate.leave()
    clock.now += 1
    assert gate.try_enter() == 0
    assert gate.try_enter() == math.inf


def test_starts_after_a_pause_are_spread(clock: Clock) -> None:
    """For a minute, none is in the same instant as another, in no process; then it is as before."""
    cache = MemoryCache(clock=clock)
    gates = [Gate(50, cache=cache, clock=clock) for _ in range(3)]
    gates[0].refused(10)
    clock.now += 10
    starts: List[float] = []
    end = clock.now + 59.9
    while clock.now < end:
        for gate in gates:
            if gate.try_enter() == 0:
                starts.append(clock.now)
                gate.answered()
                gate.leave()
        clock.now += 0.1
    assert min(later - sooner for sooner, later in zip(starts, starts[1:])) >= 2.0 - 1e-6
    assert 28 <= len(starts) <= 30
    clock.now += 1
    assert entered(gates[0], 3) == 3


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
    clock.now += 100
    answered(gate, 1)
    assert (entered(gate), gate.limit) == (2, 2)
    answered(gate, 6)
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
    assert sum(clock.slept[2:]) == pytest.approx(1.95)


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
    """Each start is one of theirs, also of one that has another rate."""
    cache = DjangoLike()
    gates = [Gate(8, rate=60, cache=cache, clock=clock) for _ in range(3)]
    assert [gate.try_enter() for gate in gates] == [0, 1, 1]
    clock.now += 1
    assert [gate.try_enter() for gate in gates] == [0, 1, 1]
    assert Gate(8, rate=30, cache=cache, clock=clock).try_enter() == 2


def test_nothing_stays_in_the_cache_for_ever(clock: Clock) -> None:
    """Every value has a time-out, of whole seconds, that is longer than it matters."""
    cache = DjangoLike()
    gate = Gate(8, rate=7, cache=cache, clock=clock)
    gate.try_enter()
    gate.refused(20.5)
    assert [type(timeout) for timeout in cache.timeouts] == [int, int, int]
    assert min(cache.timeouts[:2]) > 60 / 7
    assert cache.timeouts[2] > 20.5


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


@pytest.mark.parametrize(
    ("url", "said", "pace"),
    [
        (None, {}, (2, 20.0)),
        ("https://api.individual.githubcopilot.com", {}, (2, 20.0)),
        ("https://api.individual.githubcopilot.com", {"places": 5}, (5, 20.0)),
        ("https://api.individual.githubcopilot.com", {"rate": None}, (2, None)),
        ("https://api.individual.githubcopilot.com", {"rate": 7}, (2, 7)),
        ("http://127.0.0.1:8080", {}, (8, None)),
        ("http://[::1]:8080", {}, (8, None)),
        ("http://localhost", {"places": 1, "rate": 3}, (1, 3)),
        ("https://localhost.example.com", {}, (2, 20.0)),
    ],
)
def test_the_defaults_are_careful_against_the_service(url: Optional[str], said: Any, pace: Any) -> None:
    """Two prompts at once and twenty a minute; an emulator on this machine has no account to lose."""
    assert pace_for(url, **said) == pace


def test_the_default_rate_shows_what_it_is() -> None:
    """In signatures."""
    assert repr(BY_HOST) == "<by the host>"
