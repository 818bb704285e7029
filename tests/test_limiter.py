"""The gate: places, pace, pauses, and how several processes share them. No test waits: the clock is the test's."""

import math
import threading
from typing import Any, Dict, List, Optional

import pytest
from support import Worker

from copilot_sync.pacing.caches import MemoryCache
from copilot_sync.pacing.limiter import BY_HOST, RateLimiter, pace_for
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


def entered(rate_limiter: RateLimiter, most: int = 100) -> int:
    """How many get in one after the other."""
    return next(count for count in range(most + 1) if count == most or rate_limiter.try_acquire() != 0)


def answered(rate_limiter: RateLimiter, times: int) -> None:
    for _ in range(times):
        rate_limiter.answered()


def test_pauses_are_counted(clock: Clock) -> None:
    """With the seconds that have passed of them. One that becomes longer is the same one."""
    rate_limiter = RateLimiter(clock=clock)
    assert rate_limiter.pauses == (0, 0.0)
    rate_limiter.penalize(10)
    clock.now += 4
    rate_limiter.penalize(10)
    assert rate_limiter.pauses == (1, 4.0)
    clock.now += 100
    assert rate_limiter.pauses == (1, 14.0)
    rate_limiter.penalize(5)
    clock.now += 5
    assert rate_limiter.pauses == (2, 19.0)


def test_so_many_may_be_inside_at_once(clock: Clock) -> None:
    """Whoever comes when all places are taken has to wait for somebody to leave."""
    rate_limiter = RateLimiter(3, clock=clock)
    assert entered(rate_limiter) == 3
    assert rate_limiter.try_acquire() == math.inf
    rate_limiter.release()
    assert (rate_limiter.try_acquire(), rate_limiter.try_acquire()) == (0.0, math.inf)


def test_a_rate_lets_in_at_equal_distances(clock: Clock) -> None:
    """30 a minute are one each two seconds, however many places are free, and waiting saves nothing up."""
    rate_limiter = RateLimiter(8, rate=30, clock=clock)
    assert rate_limiter.try_acquire() == 0
    assert rate_limiter.try_acquire() == 2.0
    clock.now += 1.5
    assert rate_limiter.try_acquire() == 0.5
    clock.now += 0.5
    assert rate_limiter.try_acquire() == 0
    clock.now += 60
    assert entered(rate_limiter) == 1


def test_a_rate_is_kept_over_a_long_time(clock: Clock) -> None:
    """In ten minutes ten times the rate get in, whatever the rate is."""
    rate_limiter = RateLimiter(10_000, rate=7, clock=clock)
    count = 0
    while clock.now < 1600:
        wait = rate_limiter.try_acquire()
        count += wait == 0
        clock.now += wait
    assert count in (70, 71)


def test_a_start_that_a_rounded_clock_just_misses_is_waited_for(clock: Clock) -> None:
    """The wait is never so short that it is none."""
    rate_limiter = RateLimiter(8, rate=30, clock=clock)
    rate_limiter.try_acquire()
    clock.now += 1.9999999
    assert rate_limiter.try_acquire() == 0.001


@pytest.mark.parametrize("idle", [0.0, 1.3, 1.999, 59.0, 119.99, 5000.7])
@pytest.mark.parametrize("processes", [1, 3])
def test_no_two_starts_are_closer_than_the_rate_has_it(clock: Clock, idle: float, processes: int) -> None:
    """Whenever the first one comes, after however long a time in which none began."""
    cache = MemoryCache(clock=clock)
    limiters = [RateLimiter(100, rate=30, cache=cache, clock=clock) for _ in range(processes)]
    starts: List[float] = []

    def begin(count: int) -> None:
        for _ in range(count):
            waits = [rate_limiter.try_acquire() for rate_limiter in limiters]
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
    rate_limiter = RateLimiter(8, rate=30, clock=clock)
    rate_limiter.try_acquire()
    clock.now -= 3600
    rate_limiter._cache = MemoryCache(clock=clock)
    assert rate_limiter.try_acquire() == 0


def test_a_start_that_another_process_just_took_is_respected(clock: Clock) -> None:
    """It had not yet said so where others look first."""
    cache = DjangoLike()
    limiters = [RateLimiter(8, rate=30, cache=cache, clock=clock) for _ in range(2)]
    limiters[0].try_acquire()
    del cache.values["copilot-sync-limiter-last"]
    assert limiters[1].try_acquire() == 2.0


@pytest.mark.parametrize("kept", ["nonsense", "nan", "-inf", None])
def test_a_cache_that_holds_nonsense_for_a_start_does_no_harm(clock: Clock, kept: Any) -> None:
    """It is asked again a moment later."""
    cache = DjangoLike()
    cache.values["copilot-sync-limiter-after--inf"] = kept
    rate_limiter = RateLimiter(8, rate=30, cache=cache, clock=clock)
    assert rate_limiter.try_acquire() == 0.001


def test_a_refusal_closes_the_gate_for_everybody(clock: Clock) -> None:
    """Nobody gets in before the time that the service has named."""
    rate_limiter = RateLimiter(4, clock=clock)
    assert rate_limiter.try_acquire() == 0
    assert rate_limiter.penalize(30) == 30
    assert (rate_limiter.try_acquire(), rate_limiter.pause) == (30, 30)
    clock.now += 29
    assert rate_limiter.try_acquire() == 1
    clock.now += 1
    assert (rate_limiter.try_acquire(), rate_limiter.pause) == (0, 0)


@pytest.mark.parametrize("told", [0, 0.001, -5, 0.9])
def test_a_refusal_is_one_however_short(clock: Clock, told: float) -> None:
    """Whatever the service calls a wait, it is never shorter than our own, which grows; and the places are halved."""
    rate_limiter = RateLimiter(4, clock=clock)
    pauses = []
    for _ in range(4):
        pauses.append(rate_limiter.penalize(told))
        clock.now += pauses[-1]
    assert pauses == [1, 2, 4, 8]
    assert rate_limiter.concurrency == 1


def test_after_a_pause_one_tries_and_the_others_wait_for_what_comes_of_it(clock: Clock) -> None:
    """Also those who come much later."""
    rate_limiter = RateLimiter(8, clock=clock)
    assert entered(rate_limiter) == 8
    for _ in range(8):
        rate_limiter.penalize(5)
        rate_limiter.release()
    clock.now += 5
    assert rate_limiter.try_acquire() == 0
    clock.now += 500
    assert rate_limiter.try_acquire() == math.inf
    rate_limiter.penalize()
    rate_limiter.release()
    clock.now += 2
    assert rate_limiter.try_acquire() == 0
    assert rate_limiter.try_acquire() == math.inf
    rate_limiter.answered()
    rate_limiter.release()
    clock.now += 100
    assert entered(rate_limiter) == rate_limiter.concurrency == 2


def test_one_that_tried_and_tells_nothing_lets_the_next_one_try(clock: Clock) -> None:
    """Its prompt may have been one that can't be sent."""
    rate_limiter = RateLimiter(8, clock=clock)
    rate_limiter.penalize(1)
    clock.now += 1
    rate_limiter.acquire()
    rate_limiter.release()
    clock.now += 2
    assert rate_limiter.try_acquire() == 0


def test_those_who_were_inside_do_not_count_as_the_one_that_tries(clock: Clock) -> None:
    """An answer that takes long is no reason for nobody to try."""
    rate_limiter = RateLimiter(8, clock=clock)
    assert [rate_limiter.try_acquire(), rate_limiter.try_acquire()] == [0, 0]
    rate_limiter.penalize(1)
    rate_limiter.release()
    clock.now += 1
    assert rate_limiter.try_acquire() == 0
    assert rate_limiter.try_acquire() == math.inf


def test_starts_after_a_pause_are_spread(clock: Clock) -> None:
    """For a minute, none is in the same instant as another, in no process; then it is as before."""
    cache = MemoryCache(clock=clock)
    limiters = [RateLimiter(50, cache=cache, clock=clock) for _ in range(3)]
    limiters[0].penalize(10)
    clock.now += 10
    starts: List[float] = []
    end = clock.now + 59.9
    while clock.now < end:
        for rate_limiter in limiters:
            if rate_limiter.try_acquire() == 0:
                starts.append(clock.now)
                rate_limiter.answered()
                rate_limiter.release()
        clock.now += 0.1
    assert min(later - sooner for sooner, later in zip(starts, starts[1:])) >= 2.0 - 1e-6
    assert 28 <= len(starts) <= 30
    clock.now += 1
    assert entered(limiters[0], 3) == 3


def test_a_longer_pause_wins_over_a_shorter_one(clock: Clock) -> None:
    """Refusals of the same moment do not open the gate too early."""
    rate_limiter = RateLimiter(4, clock=clock)
    assert [rate_limiter.penalize(30), rate_limiter.penalize(5), rate_limiter.penalize(40)] == [30, 30, 40]


def test_a_refusal_halves_the_places_once(clock: Clock) -> None:
    """All that were under way are refused together, and that is one reason to slow down, not eight."""
    rate_limiter = RateLimiter(8, clock=clock)
    for _ in range(8):
        rate_limiter.penalize(1)
    assert rate_limiter.concurrency == 4
    clock.now += 2
    rate_limiter.penalize(1)
    assert rate_limiter.concurrency == 2
    for _ in range(3):
        clock.now += 2
        rate_limiter.penalize(1)
    assert rate_limiter.concurrency == 1


def test_places_come_back_slowly(clock: Clock) -> None:
    """Each takes more answers than the last, and there are never more than at first."""
    rate_limiter = RateLimiter(4, clock=clock)
    rate_limiter.penalize(1)
    clock.now += 100
    answered(rate_limiter, 1)
    assert (entered(rate_limiter), rate_limiter.concurrency) == (2, 2)
    answered(rate_limiter, 6)
    assert rate_limiter.concurrency == 2
    answered(rate_limiter, 1)
    assert rate_limiter.concurrency == 3
    answered(rate_limiter, 11)
    assert rate_limiter.concurrency == 3
    answered(rate_limiter, 1)
    assert rate_limiter.concurrency == 4
    answered(rate_limiter, 100)
    assert rate_limiter.concurrency == 4


def test_a_refusal_makes_the_count_of_answers_begin_anew(clock: Clock) -> None:
    """Only answers in a row show that it goes well."""
    rate_limiter = RateLimiter(4, clock=clock)
    rate_limiter.penalize(1)
    answered(rate_limiter, 7)
    rate_limiter.penalize(1)
    answered(rate_limiter, 7)
    assert rate_limiter.concurrency == 2


def test_pauses_that_nobody_told_grow_until_there_is_an_answer(clock: Clock) -> None:
    """One second, two, four, up to a minute; what is refused while a pause lasts does not make the next one longer."""
    rate_limiter = RateLimiter(4, clock=clock)
    pauses = []
    for _ in range(8):
        pauses.append(rate_limiter.penalize())
        assert rate_limiter.penalize() == pauses[-1]
        clock.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    rate_limiter.answered()
    assert rate_limiter.penalize() == 1


def test_enter_waits_for_pause_pace_and_place(clock: Clock) -> None:
    """It sleeps as long as the gate says, and looks again every so often where it can't say."""
    rate_limiter = RateLimiter(1, rate=60, clock=clock)
    rate_limiter.penalize(5)
    rate_limiter.acquire(sleep=clock.sleep)
    assert clock.slept == [5]

    def somebody_leaves(seconds: float) -> None:
        clock.sleep(seconds)
        rate_limiter.release()

    rate_limiter.acquire(sleep=somebody_leaves)
    assert clock.slept[1] == 0.05
    assert sum(clock.slept[2:]) == pytest.approx(1.95)


def test_what_interrupts_the_sleep_ends_the_waiting(clock: Clock) -> None:
    """Ctrl-C and time limits get through, and no place is lost."""
    rate_limiter = RateLimiter(1, clock=clock)
    rate_limiter.penalize(5)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rate_limiter.acquire(sleep=interrupted)
    clock.now += 5
    assert rate_limiter.try_acquire() == 0


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
    one, other = (RateLimiter(8, cache=cache, clock=clock) for _ in range(2))
    one.penalize(20)
    assert other.try_acquire() == 20
    assert (one.concurrency, other.concurrency) == (4, 4)
    assert RateLimiter(8, cache=cache, clock=clock).try_acquire() == 20
    assert RateLimiter(8, cache=cache, clock=clock, name="another").try_acquire() == 0


def test_a_pause_that_another_process_has_overwritten_comes_back(clock: Clock) -> None:
    """The three methods can't change a value in one step, so whoever knows of a longer pause says so again."""
    cache = DjangoLike()
    one, other = (RateLimiter(8, cache=cache, clock=clock) for _ in range(2))
    one.penalize(60)
    cache.values.clear()  # the other one had looked before, and writes only now
    other.penalize(5)
    assert one.pause == 60
    assert other.pause == 60


def test_a_pause_that_is_over_is_not_told_again(clock: Clock) -> None:
    """When the cache has forgotten it, it stays forgotten."""
    cache = DjangoLike()
    rate_limiter = RateLimiter(8, cache=cache, clock=clock)
    rate_limiter.penalize(5)
    clock.now += 100
    cache.values.clear()
    assert rate_limiter.try_acquire() == 0
    assert cache.values == {}


def test_processes_share_one_pace(clock: Clock) -> None:
    """Each start is one of theirs, also of one that has another rate."""
    cache = DjangoLike()
    limiters = [RateLimiter(8, rate=60, cache=cache, clock=clock) for _ in range(3)]
    assert [rate_limiter.try_acquire() for rate_limiter in limiters] == [0, 1, 1]
    clock.now += 1
    assert [rate_limiter.try_acquire() for rate_limiter in limiters] == [0, 1, 1]
    assert RateLimiter(8, rate=30, cache=cache, clock=clock).try_acquire() == 2


def test_nothing_stays_in_the_cache_for_ever(clock: Clock) -> None:
    """Every value has a time-out, of whole seconds, that is longer than it matters."""
    cache = DjangoLike()
    rate_limiter = RateLimiter(8, rate=7, cache=cache, clock=clock)
    rate_limiter.try_acquire()
    rate_limiter.penalize(20.5)
    assert [type(timeout) for timeout in cache.timeouts] == [int, int, int]
    assert min(cache.timeouts[:2]) > 60 / 7
    assert cache.timeouts[2] > 20.5


@pytest.mark.parametrize("nonsense", ["soon", b"\xff", [], object()], ids=["text", "bytes", "list", "object"])
def test_a_cache_that_holds_something_else_does_no_harm(clock: Clock, nonsense: Any) -> None:
    """It counts for nothing, and a refusal writes over it."""
    cache = DjangoLike()
    cache.values["copilot-sync-limiter-pause"] = nonsense
    rate_limiter = RateLimiter(8, cache=cache, clock=clock)
    assert rate_limiter.try_acquire() == 0
    rate_limiter.penalize(3)
    assert RateLimiter(8, cache=cache, clock=clock).pause == 3


def test_with_a_cache_the_clock_is_one_that_others_have() -> None:
    """What processes share is told in the time of day; without a cache the clock never jumps."""
    cache = DjangoLike()
    RateLimiter(8, cache=cache).penalize(100)
    assert 1e9 < float(cache.values["copilot-sync-limiter-pause"]) < 1e11
    rate_limiter = RateLimiter(8)
    rate_limiter.penalize(100)
    assert 99 < rate_limiter.pause <= 100


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


def test_no_two_threads_get_the_same_place() -> None:
    """However many come at once, so many get in as there are places."""
    rate_limiter = RateLimiter(16)
    together = threading.Barrier(8)

    def come() -> int:
        together.wait()
        return entered(rate_limiter)

    workers = [Worker(come) for _ in range(8)]
    assert sum(worker.result() for worker in workers) == 16


@pytest.mark.usefixtures("registered")
def test_a_child_begins_with_an_empty_gate() -> None:
    """Whoever was inside, or was just about to enter, is in the parent; the pause holds for the child as well."""
    rate_limiter = RateLimiter(1)
    rate_limiter.acquire()
    rate_limiter.penalize(100)
    rate_limiter._lock.acquire()
    fork._reset_all()
    assert 99 < rate_limiter.try_acquire() <= 100
    assert rate_limiter._inside == 0


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"concurrency": 0}, ValueError, "concurrency must be at least 1, not 0"),
        ({"concurrency": 1.5}, TypeError, "concurrency must be a whole number, not float"),
        ({"concurrency": True}, TypeError, "concurrency must be a whole number, not bool"),
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
        RateLimiter(**arguments)


@pytest.mark.parametrize(
    ("url", "said", "pace"),
    [
        (None, {}, (2, 20.0)),
        ("auto", {}, (2, 20.0)),
        ("https://api.individual.githubcopilot.com", {}, (2, 20.0)),
        ("https://api.individual.githubcopilot.com", {"concurrency": 5}, (5, 20.0)),
        ("https://api.individual.githubcopilot.com", {"rate": None}, (2, None)),
        ("https://api.individual.githubcopilot.com", {"rate": 7}, (2, 7)),
        ("http://127.0.0.1:8080", {}, (8, None)),
        ("http://[::1]:8080", {}, (8, None)),
        ("http://localhost", {"concurrency": 1, "rate": 3}, (1, 3)),
        ("https://localhost.example.com", {}, (2, 20.0)),
    ],
)
def test_the_defaults_are_careful_against_the_service(url: Optional[str], said: Any, pace: Any) -> None:
    """Two prompts at once and twenty a minute; an emulator on this machine has no account to lose."""
    assert pace_for(url, **said) == pace


def test_the_default_rate_shows_what_it_is() -> None:
    """In signatures."""
    assert repr(BY_HOST) == "<by the host>"
