"""Who may begin next among the calls of this process: in their order, and by what all processes know."""

import contextlib
import os
import signal
import threading
import time
from typing import Any, List, Optional

import pytest
from support import PATIENCE, Worker, fork, keepers_of, may_fork, wait_until

from copilot_sync import RateLimit, RateLimitError, RequestTimeoutError, RetryPolicy, StreamClosedError, Timeout
from copilot_sync.pacing import account_limiter
from copilot_sync.pacing.account_limiter import AccountLimiter, in_words, limiter_of
from copilot_sync.pacing.account_state import IS_CAREFUL, RateRules
from copilot_sync.pacing.shared_state import FolderStore, MemoryStore, StoreError
from copilot_sync.transport.call import CallContext


def call_of(total: Optional[float] = None) -> CallContext:
    call = CallContext(Timeout(total=total))
    call.begin()
    return call


def limiter(rules: RateRules, store: Any = None) -> AccountLimiter:
    return AccountLimiter("x", store or MemoryStore(), rules)


class Slow:
    """A store behind a network, as far as the limiter knows, which may be away."""

    is_instant = False

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.asked: List[str] = []
        self.is_away = False

    def apply(self, account: str, name: str, rules: RateRules, holder: str = "", number: float = 0.0) -> float:
        self.asked.append(name)
        if self.is_away:
            raise StoreError("ConnectionError")
        return self.memory.apply(account, name, rules, holder, number)


def test_calls_begin_in_the_order_in_which_they_came() -> None:
    """Each when the one before has ended."""
    one = limiter(RateRules(concurrency=1))
    slot = one.try_admit()
    assert slot is not None
    order: List[int] = []

    def take(number: int) -> None:
        mine = one.admit(call_of())
        order.append(number)
        one.leave(mine, 0)

    workers = []
    for number in range(20):
        workers.append(Worker(lambda number=number: take(number)))  # type: ignore[misc]
        wait_until(lambda: len(one._queue) == len(workers))
    assert one.try_admit() is None  # nobody overtakes them
    one.leave(slot, 0)
    for worker in workers:
        worker.result()
    assert order == list(range(20))


def test_a_thousand_threads_all_get_their_turn() -> None:
    """No more than the limit of them at a time."""
    many = limiter(RateRules(concurrency=5))
    inside: List[int] = []
    most: List[int] = []

    def take() -> None:
        slot = many.admit(call_of())
        inside.append(1)
        most.append(len(inside))
        inside.pop()
        many.leave(slot, 0)

    threads = [threading.Thread(target=take) for _ in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(most) == 1000
    assert max(most) <= 5


def test_one_that_is_closed_leaves_the_queue() -> None:
    """The next one goes on at once, and sleeps of its own are as long as they were."""
    one = limiter(RateRules(concurrency=1))
    slot = one.try_admit()
    assert slot is not None
    first, second = call_of(), call_of()
    workers = [Worker(lambda: one.admit(first))]
    wait_until(lambda: len(one._queue) == 1)
    workers.append(Worker(lambda: one.admit(second)))
    wait_until(lambda: list(one._queue) == [first, second])
    second.cancel()
    wait_until(lambda: list(one._queue) == [first])
    first.cancel()
    for worker in workers:
        with pytest.raises(StreamClosedError):
            worker.result()
    assert not one._queue
    one.leave(slot, 0)
    third = call_of()
    third.wake()
    one.leave(one.admit(third), 0)
    begun = time.monotonic()
    third.sleep(0.1)
    assert time.monotonic() - begun > 0.09


def test_a_wait_ends_with_the_time_of_the_call() -> None:
    """At once, if it is known that the time is not enough."""
    one = limiter(RateRules(concurrency=1))
    slot = one.try_admit()
    with pytest.raises(RequestTimeoutError):
        one.admit(call_of(0.2))
    one.leave(str(slot), 0)
    few = limiter(RateRules(per_minute=1))
    few.admit(call_of())
    with pytest.raises(RateLimitError, match=r"no call for another 1 min [0-2] s .stage limit.") as caught:
        few.admit(call_of(5))
    assert caught.value.retry_after is not None and 55 < caught.value.retry_after < 62


@pytest.mark.parametrize("rules", [RateRules(concurrency=1), RateRules(per_minute=1)], ids=["slots", "pace"])
def test_who_waits_for_no_limits_is_refused(rules: RateRules) -> None:
    """As by the service."""
    one = limiter(rules)
    one.admit(call_of())
    with pytest.raises(RateLimitError, match="the limits that were set for the account allow no call") as caught:
        one.admit(call_of(), RetryPolicy(wait_for_limits=False))
    assert (caught.value.retry_after is None) == (rules.concurrency is not None)


def test_nobody_waits_for_the_next_day() -> None:
    """Nor longer for a pause than for the service."""
    one = limiter(RateRules(per_day=1))
    one.admit(call_of(), RetryPolicy())
    with pytest.raises(RateLimitError) as caught:
        one.admit(call_of(), None)
    assert caught.value.retry_after is not None and caught.value.retry_after > 3600
    paused = limiter(RateRules())
    paused.pause(100)
    with pytest.raises(RateLimitError):
        paused.admit(call_of(), RetryPolicy(max_wait=90))
    waiting = Worker(lambda: paused.admit(call := call_of(), RetryPolicy(max_wait=110)) or call)
    wait_until(lambda: len(paused._queue) == 1)
    paused._queue[0].cancel()
    with pytest.raises(StreamClosedError):
        waiting.result()


def test_a_pause_is_seen_and_its_end_is_spread() -> None:
    """By whoever asks."""
    one = limiter(RateRules())
    assert (one.look(), one.take_turn()) == (0, 0)
    one.pause(0.05)
    assert 0 < one.look() <= 0.05
    time.sleep(0.06)
    assert one.look() == IS_CAREFUL
    assert one.take_turn() == 0
    assert one.take_turn() > 0.2


def test_who_waits_says_why_and_how_long(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment, and again once in a while."""
    monkeypatch.setattr(account_limiter, "_TELL_AFTER", 0.05)
    caplog.set_level("INFO", logger="copilot_sync")
    one = limiter(RateRules(concurrency=1))
    slot = one.try_admit()
    workers = []
    for number in range(2):
        workers.append(Worker(lambda: one.leave(one.admit(call_of()), 0)))
        wait_until(lambda number=number: len(one._queue) == number + 1)  # type: ignore[misc]
    first = one._queue[0]
    wait_until(lambda: "rate limited: waiting for others to end" in caplog.text)
    one._queue[1].wake()
    wait_until(lambda: one._queue[1].wake() or "waiting for others to end, 1 ahead of you" in caplog.text)  # type: ignore[func-returns-value]
    assert one._queue[0] is first
    one.leave(str(slot), 0)
    for worker in workers:
        worker.result()
    assert in_words(41.6, 3) == "rate limited: next in 42 s, 3 ahead of you"
    assert in_words(-0.1, 0) == "rate limited: next in 0 s"


def test_slots_are_renewed_while_they_are_held() -> None:
    """And one that was given back is not renewed."""
    store = Slow()
    one = AccountLimiter("x", store, RateRules(concurrency=1, lease=0.3))
    slot = one.try_admit()
    assert slot is not None
    assert len(keepers_of(one)) == 1
    wait_until(lambda: store.asked.count("renew") >= 4)
    assert one.try_admit() is None
    one.leave(slot, 0)
    other = one.try_admit()
    assert other is not None
    one.leave(other, 0)
    wait_until(lambda: keepers_of(one) == [])
    one.close()


def test_a_slot_that_is_given_back_while_it_is_renewed_is_free() -> None:
    """Or it would be held for a lease."""
    store = Slow()
    one = AccountLimiter("x", store, RateRules(concurrency=1, lease=0.15))
    slot = str(one.try_admit())
    apply = store.memory.apply

    def left_meanwhile(account: str, name: str, *rest: Any, **more: Any) -> float:
        if name == "renew":
            one._held.discard(slot)
            apply(account, "leave", RateRules(concurrency=1), slot)
        return apply(account, name, *rest, **more)

    store.memory.apply = left_meanwhile  # type: ignore[method-assign]
    wait_until(lambda: "leave" in store.asked)
    assert one.try_admit() is not None
    one._held.clear()
    one.close()
    assert keepers_of(one) == []


def test_an_event_loop_gives_slots_back_by_a_thread() -> None:
    """It does not wait for the store; one that is instant is told at once."""
    store = Slow()
    one = AccountLimiter("x", store, RateRules(concurrency=1))
    slot = str(one.try_admit())
    one.leave_soon(slot, 0)
    assert one.admit(call_of())
    one.close()
    one._held.clear()
    one.close()
    assert keepers_of(one) == []
    free = AccountLimiter("x", store, RateRules())
    asked = len(store.asked)
    free.leave_soon("slot", 0)
    assert len(store.asked) == asked
    quick = limiter(RateRules(concurrency=1))
    quick.leave_soon(str(quick.try_admit()), 0)
    assert quick.try_admit() is not None


def test_without_another_thread_the_leases_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call goes on."""

    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(account_limiter, "start_thread", none)
    one = AccountLimiter("x", Slow(), RateRules(concurrency=1))
    assert one.try_admit() is not None
    assert one._keeper is None


def test_without_its_store_a_process_goes_on_alone_and_slowly(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so once, and asks the store again after a while."""
    now = [1000.0]
    store = Slow()
    one = AccountLimiter("x", store, RateRules(per_minute=8, concurrency=4, per_day=100), clock=lambda: now[0])
    store.is_away = True
    slots = []
    for _ in range(2):
        slot = str(one.try_admit())
        assert one.try_admit() is None  # one at a time
        one.leave(slot, 0)
        slots.append(slot)
    assert one.try_admit() is None  # two a minute are a quarter
    assert store.asked == ["admit"]
    now[0] += 6
    assert one.try_admit() is None
    assert store.asked == ["admit"] * 2
    assert caplog.text.count("this process goes on alone, at a quarter of the pace") == 1
    assert "(ConnectionError)" in caplog.text
    now[0] += 6
    store.is_away = False
    assert one.try_admit() is not None
    store.is_away = True
    assert one.look() == 0
    assert caplog.text.count("goes on alone") == 2
    one._held.clear()
    one.close()


def test_what_is_spent_says_nothing_of_a_pause() -> None:
    """A budget is a state of its own, so the next request looks for a pause all the same."""
    one = limiter(RateRules())
    assert (one.spend("day", 5, 2), one.spent("day")) == (0, 2)
    assert not one.is_fresh
    one.look()
    assert one.is_fresh


def test_while_the_store_is_away_a_slot_comes_back_whatever_the_limits_are() -> None:
    """It is taken then even if there is no limit of what may be under way."""
    store = Slow()
    store.is_away = True
    one = limiter(RateRules(), store)
    for _ in range(3):
        slot = one.try_admit()
        assert slot is not None
        assert one.try_admit() is None
        one.leave_soon(slot, 0)


@may_fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_no_slot_of_its_parent_s(tmp_path: Any) -> None:
    """It renews none, and nobody waits there."""
    one = AccountLimiter("x", FolderStore(tmp_path), RateRules(concurrency=1))
    slot = one.try_admit()
    with one._lock:
        child = fork()
        if child == 0:  # pragma: no cover - in the child
            is_new = not one._held and one._keeper is None and not one._queue
            os._exit(0 if is_new and one.try_admit() is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    one.leave(str(slot), 0)
    one.close()


def test_all_who_have_the_same_limits_share_a_queue(tmp_path: Any) -> None:
    """By the place of a store."""
    rules = RateRules(concurrency=1)
    one = limiter_of("x", FolderStore(tmp_path), rules)
    assert limiter_of("x", FolderStore(str(tmp_path)), rules) is one
    assert limiter_of("y", FolderStore(tmp_path), rules) is not one
    assert limiter_of("x", FolderStore(tmp_path), RateRules()) is not one
    store = MemoryStore()
    assert limiter_of("x", store, rules) is limiter_of("x", store, rules)


def test_two_threads_at_once_share_a_queue() -> None:
    """Whoever comes second waits for the first one's, and does not make another."""
    both, made = threading.Barrier(2), []

    class Meeting(MemoryStore):
        @property
        def is_instant(self) -> bool:  # type: ignore[override]
            made.append("limiter")
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.2)  # for another thread that makes one
            return True

    store = Meeting()
    first, second = (Worker(lambda: limiter_of("x", store, RateRules())) for _ in range(2))
    assert first.result() is second.result()
    assert made == ["limiter"]


def test_a_limiter_is_made_when_there_is_none() -> None:
    """And not each time, to be thrown away."""
    made: List[str] = []

    class Counting(MemoryStore):
        @property
        def is_instant(self) -> bool:  # type: ignore[override]
            made.append("limiter")
            return True

    store = Counting()
    assert limiter_of("x", store, RateRules()) is not None
    kept = [limiter_of("x", store, RateRules()) for _ in range(3)]
    assert made == ["limiter"] * 2
    assert len(set(kept)) == 1


@may_fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_waits_for_no_thread_that_finds_a_limiter() -> None:
    """Such a thread is its parent's."""
    is_held, may_end = threading.Event(), threading.Event()
    limiters = limiter_of.__self__  # type: ignore[attr-defined]

    def hold() -> None:
        with limiters._lock:
            is_held.set()
            may_end.wait(PATIENCE)

    holding = Worker(hold)
    assert is_held.wait(PATIENCE)
    child = fork()
    if child == 0:  # pragma: no cover - in the child
        signal.alarm(int(PATIENCE))
        limiter_of("x", MemoryStore(), RateRules())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    may_end.set()
    holding.result()


@pytest.mark.parametrize("name", ["per_minute", "concurrency", "per_day"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5"])
def test_a_limit_is_a_whole_number(name: str, value: Any) -> None:
    """Of one at least."""
    with pytest.raises((TypeError, ValueError), match=name):
        RateLimit(**{name: value})
    assert getattr(RateLimit(**{name: 3}), name) == 3
