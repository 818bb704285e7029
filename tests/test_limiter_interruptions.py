"""The limits of an account when calls are interrupted, dropped, closed or forked: no slot is lost, and nobody hangs."""

import contextlib
import gc
import itertools
import os
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest
from support import PATIENCE, Worker, fork, keepers_of, may_fork, wait_until

from copilot_sync import RequestTimeoutError, RetryPolicy, StreamClosedError, Timeout
from copilot_sync.delivery import rate_guard
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.delivery.guards import CallEnd
from copilot_sync.delivery.rate_guard import RateGuard
from copilot_sync.pacing import account_limiter, account_state, shared_state
from copilot_sync.pacing.account_limiter import AccountLimiter
from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.cooldown import Cooldown
from copilot_sync.pacing.machine_clock import MachineClock
from copilot_sync.pacing.rate_limit import RateLimit
from copilot_sync.pacing.shared_state import FolderStore, MemoryStore
from copilot_sync.stepping import Pace, without_pauses
from copilot_sync.transport.call import CallContext

TRACED = [module.__file__ for module in (rate_guard, account_limiter, account_state, shared_state)]
ONE = RateRules(concurrency=1)
MESSAGE: Any = None  # no limit looks at it


def call_of(total: Optional[float] = None) -> CallContext:
    call = CallContext(Timeout(total=total))
    call.begin()
    return call


def end_of(call: CallContext) -> CallEnd:
    return CallEnd(MESSAGE, call, AnswerBuilder(None, "auto", "id"), None)


class Session:
    """Knows an account."""

    def __init__(self, account: str) -> None:
        self.account = account

    def find_account(self) -> Cooldown:
        return Cooldown(self.account)


@pytest.fixture(params=["memory", "folder"])
def guard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RateGuard]:
    """Lets one call in at a time."""
    session: Any = Session(os.urandom(8).hex())
    one = RateGuard(session, RateLimit(concurrency=1), None if request.param == "memory" else tmp_path)
    yield one
    limiter: Any = one._limiter
    limiter._held.clear()
    one.close()

    limiter._later.put(None)  # an interruption may have had the thread forgotten
    wait_until(lambda: keepers_of(limiter) == [])


def entered(guard: RateGuard, call: CallContext) -> Callable[[CallEnd], None]:
    """Enter a guard, in a thread that may block."""
    return without_pauses(guard.entering(MESSAGE, call, RetryPolicy()))  # type: ignore[arg-type]


def is_free(guard: RateGuard) -> bool:
    """Whether a call gets in, and out again, within seconds."""
    call = call_of(8)
    entered(guard, call)(end_of(call))
    return True


class InterruptedAt:
    """Runs something, and raises at its nth step in the modules that keep limits.

    A step is the entry into a function, or the return from one that is written in C: there the interpreter runs the
    handlers of signals. Python 3.14 also does so between the entry of ``with lock`` and its block, where the lock then
    stays held: whatever has a lock is exposed to that, and it is no step here.
    """

    def __init__(self, number: int) -> None:
        self._later = number
        self.happened = False

    def run(self, work: Callable[[], Any]) -> Any:
        """Run it."""
        sys.setprofile(self._profile)
        try:
            return work()
        finally:
            sys.setprofile(None)

    def _profile(self, frame: Any, event: str, argument: Any) -> None:  # pragma: no cover - nothing is traced in here
        if getattr(argument, "__name__", "") == "__enter__":
            return
        if event in ("call", "c_return") and frame.f_code.co_filename in TRACED and not self.happened:
            self._later -= 1
            if self._later < 0:
                self.happened = True
                raise KeyboardInterrupt


@pytest.mark.timeout(120)
# An exception that meets a destructor is printed, and goes no further; one that meets ``open`` leaves a file to it.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
def test_a_call_may_be_interrupted_at_any_step(guard: RateGuard, waits: bool) -> None:
    """When it enters, waits, or leaves: the next one gets in."""

    def come_and_go() -> None:
        call = call_of()
        entered(guard, call)(end_of(call))

    assert is_free(guard)
    for step in itertools.count():  # pragma: no branch - it is left at the last step
        hook = InterruptedAt(step)
        if waits:
            first = call_of()
            leave = entered(guard, first)
            timer = threading.Timer(0.01, leave, [end_of(first)])
            timer.start()
        with contextlib.suppress(KeyboardInterrupt):
            hook.run(come_and_go)
        if waits:
            timer.join()
            del leave
        assert is_free(guard), f"after an interruption at step {step}"
        if not hook.happened:
            break
    assert step > 30


def test_a_place_that_is_dropped_is_given_back(guard: RateGuard) -> None:
    """By garbage collection, too."""
    place = [entered(guard, call_of())]
    place.append(place)  # type: ignore[arg-type]
    del place
    gc.collect()
    assert is_free(guard)


def test_a_slot_in_memory_is_held_however_long_the_call_takes() -> None:
    """There is no lease: nobody would renew it."""
    now = [1000.0]
    one = AccountLimiter("x", MemoryStore(clock=lambda: now[0]), ONE, clock=lambda: now[0])
    slot = one.try_admit()
    now[0] += 100_000
    assert one.try_admit() is None
    one.leave(str(slot), 0)
    assert one.try_admit() is not None


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_slot_may_be_given_back_in_the_middle_of_an_operation(kind: str, tmp_path: Path) -> None:
    """By a handler of a signal that closes a stream, or by the garbage collection that drops one."""
    held: List[str] = []

    def clock() -> float:
        while held:
            one.leave(held.pop(), 0)
        return 1000.0

    folder = FolderStore(tmp_path, clock=MachineClock(uptime=clock))
    store: Any = MemoryStore(clock=clock) if kind == "memory" else folder
    one = AccountLimiter("x", store, ONE)
    slot = str(one.try_admit())
    held.append(slot)
    other = Worker(one.try_admit)
    assert other.ended_within(5), "it waits for itself"
    wait_until(lambda: other.result() is not None or one.try_admit() is not None)
    one._held.clear()
    one.close()


@pytest.mark.parametrize("is_another_there", [False, True])
def test_there_is_one_thread_though_its_start_was_interrupted(
    is_another_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes its place if it is free, else it ends: two would take each other's work."""
    threads: List[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        raise KeyboardInterrupt

    one = AccountLimiter("x", FolderStore(tmp_path), ONE)
    with monkeypatch.context() as patch:
        patch.setattr(account_limiter, "start_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            one.try_admit()
    if is_another_there:
        one._start_keeper()
    (late,) = threads
    late.start()
    if is_another_there:
        late.join(PATIENCE)
    wait_until(lambda: len(keepers_of(one)) == 1 and one._keeper is keepers_of(one)[0])
    assert (one._keeper is late) != is_another_there
    one._held.clear()
    one.close()
    assert keepers_of(one) == []


def test_a_thread_that_begins_while_it_is_given_up_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not forgotten while it runs: another one would take its work."""
    one = AccountLimiter("x", FolderStore(tmp_path), ONE)

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(thread, "is_alive", lambda: begins(thread))
        raise KeyboardInterrupt

    def begins(thread: threading.Thread) -> bool:
        thread.start()
        thread.join(0.2)  # until it waits for work, or for whoever looks at it
        return False

    monkeypatch.setattr(account_limiter, "start_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.try_admit()
    (late,) = keepers_of(one)
    wait_until(lambda: one._keeper is late)
    one._held.clear()
    one.close()
    assert keepers_of(one) == []


def test_a_slot_is_forgotten_before_it_is_given_back(tmp_path: Path) -> None:
    """Or the thread might renew it afterwards, and it would be held for a lease."""
    seen: List[bool] = []

    class Watched(FolderStore):
        def apply(self, account: str, name: str, *rest: Any, **more: Any) -> float:
            if name == "leave":
                seen.append(bool(one._held))
            return super().apply(account, name, *rest, **more)

    one = AccountLimiter("x", Watched(tmp_path), ONE)
    one.leave(str(one.try_admit()), 0)
    assert seen == [False]
    one.close()


@may_fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("way", ["closed", "dropped"])
def test_a_forked_child_gives_back_no_place_of_its_parent_s(way: str, tmp_path: Path) -> None:
    """Its copy of the call ends there, and the parent's goes on."""
    session: Any = Session("x")
    guard = RateGuard(session, RateLimit(concurrency=1), tmp_path)
    call = call_of()
    leave = entered(guard, call)
    child = fork()
    if child == 0:  # pragma: no cover - in the child
        if way == "closed":
            leave(end_of(call))
        del leave
        limiter: Any = guard._limiter
        os._exit(0 if limiter.try_admit() is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    leave(end_of(call))
    assert is_free(guard)
    guard.close()


def test_a_greenlet_that_waited_is_told_that_it_is_a_copy() -> None:
    """Those of gevent go on in a forked child as well, where nobody is in the queue."""
    one = AccountLimiter("x", MemoryStore(), ONE)
    slot = one.try_admit()
    call = call_of()
    waiting = Worker(lambda: one.admit(call))
    wait_until(lambda: len(one._queue) == 1)
    one.after_fork_in_child()
    call.after_fork_in_child()
    with pytest.raises(StreamClosedError):
        waiting.result()
    one.leave(str(slot), 0)


def test_the_time_of_a_call_ends_behind_others_too() -> None:
    """It is not found out with the next look at who is ahead."""
    one = AccountLimiter("x", MemoryStore(), ONE)
    slot = one.try_admit()
    first = call_of()
    ahead = Worker(lambda: one.admit(first))
    wait_until(lambda: len(one._queue) == 1)
    behind = Worker(lambda: one.admit(call_of(0.1)))
    assert behind.ended_within(4)
    first.cancel()
    with pytest.raises(StreamClosedError):
        ahead.result()
    with pytest.raises(RequestTimeoutError):
        behind.result()
    one.leave(str(slot), 0)


def test_the_thread_ends_with_the_last_slot_after_close(tmp_path: Path) -> None:
    """A call that was closed gives its slot back a moment later, in its own thread."""
    one = AccountLimiter("x", FolderStore(tmp_path), ONE)
    slot = one.try_admit()
    keeper: Any = one._keeper
    one.close()
    assert keeper.is_alive()
    one.leave(str(slot), 0)
    keeper.join(5)
    assert not keeper.is_alive()


def test_what_was_left_in_a_hurry_waits_for_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there can't be one, the next call gives it back. Without slots there is nothing to give."""
    monkeypatch.setattr(AccountLimiter, "_start_keeper", lambda self: None)
    one = AccountLimiter("x", FolderStore(tmp_path), ONE)
    one.lose(str(one.try_admit()))
    assert one.try_admit() is not None
    one._later.put(None)  # as ``close`` does, when the thread has just ended
    assert one.try_admit() is None
    free = AccountLimiter("x", MemoryStore(), RateRules())
    free.lose("slot")
    assert free._later.empty()


def test_a_slot_that_was_taken_without_the_store_is_given_back_to_memory() -> None:
    """However long the call took, and whether or not the store is there again."""
    now = [1000.0]

    class Away(MemoryStore):
        is_instant = False
        is_away = True

        def apply(self, *args: Any, **more: Any) -> float:
            if self.is_away:
                raise shared_state.StoreError("ConnectionError")
            return super().apply(*args, **more)

    store = Away()
    one = AccountLimiter("x", store, ONE, clock=lambda: now[0])
    slot = str(one.try_admit())
    now[0] += 60
    assert one.try_admit() is None
    store.is_away = False
    now[0] += 6
    one.leave(slot, 0)
    store.is_away = True
    assert one.try_admit() is not None


def test_a_poll_gives_its_place_back_soon(guard: RateGuard) -> None:
    """By a thread, if to give it back takes time."""
    call = call_of()
    leave = entered(guard, call)
    call.pace = Pace.POLLING
    leave(end_of(call))
    assert is_free(guard)


def test_a_copy_of_a_place_gives_nothing_back(guard: RateGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is left or dropped."""
    call = call_of()
    leave = entered(guard, call)
    with monkeypatch.context() as patch:
        patch.setattr(rate_guard.os, "getpid", lambda: -1)
        leave(end_of(call))
        del leave
    limiter: Any = guard._limiter
    assert limiter.try_admit() is None


def test_a_start_is_taken_back_only_while_it_counts(guard: RateGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later it would be the start of another call."""
    left: List[int] = []
    call = call_of()
    monkeypatch.setattr(AccountLimiter, "leave", lambda self, slot, again: left.append(again))
    entered(guard, call)(end_of(call))
    assert left == [-1]
    monkeypatch.setattr(rate_guard, "WINDOW", 0.0)
    place: Any = rate_guard._Place(guard._limiter)  # type: ignore[arg-type]
    place.taken(call)
    place(end_of(call))
    assert left == [-1, 0]
