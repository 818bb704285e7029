"""Who may begin next: the calls of this process in their order, by the state that all processes share.

- The first in the queue asks the store; the others wait for it, so that a thousand threads ask no more than one does.
- A slot is held by a lease. A thread renews the leases of this process while there are any, and ends soon after. It
  gives slots back as well, and counts what was spent, where an event loop may not wait for the store.
- If the store fails, this process goes on by its memory at a quarter of the pace, one call at a time, and says so once.
  It asks the store again every few seconds.
- A signal handler and a destructor may give a slot back in the middle of anything, also of an operation of the store.
  What they give back then waits for the next one, or for the thread.

Threads: locked, except that the store is asked outside of the lock, by the first in the queue alone.
"""

import contextlib
import functools
import itertools
import logging
import math
import os
import queue
import threading
import time
import weakref
from collections import deque
from typing import Callable, Deque, Optional, Set, Tuple

from copilot_sync.errors import RateLimitError
from copilot_sync.os_threads import ItemQueue, start_thread
from copilot_sync.pacing.account_state import IS_CAREFUL, RateRules
from copilot_sync.pacing.shared_state import MemoryStore, Store, StoreError
from copilot_sync.settings import RetryPolicy
from copilot_sync.times import waiting_time
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

#: Seconds between two looks at the store while another process holds all slots.
_LOOK_AGAIN = 0.1
#: Seconds that the first in the queue sleeps at most, because what it waits for may be over sooner than it was told.
_LONGEST_SLEEP = 5.0
#: Seconds for which the state that was seen last is good for another request.
FRESH = 0.08
#: Seconds after which a store that failed is asked again.
_AWAY = 5.0
#: By how much the pace falls meanwhile.
_SLOWER = 4
#: The part of a lease after which it is renewed.
_RENEWAL = 3.0
#: Seconds after which a call that waits says so, and says so again.
_TELL_AFTER, _TELL_AGAIN = 2.0, 10.0
#: Seconds to wait for the thread that keeps the slots.
_JOIN = 1.0
#: Tells the slots of this process from those of others.
_slot_numbers = itertools.count()


class _Here(threading.local):
    """What this thread is doing."""

    #: Whether it is inside of a store.
    is_asking = False


_here = _Here()


def _slower(rules: RateRules) -> RateRules:
    return rules._replace(
        per_minute=None if rules.per_minute is None else max(1, rules.per_minute // _SLOWER),
        concurrency=1,
        per_day=None if rules.per_day is None else max(1, rules.per_day // _SLOWER),
        lease=math.inf,
    )


class AccountLimiter:
    """The limits of one account, for the calls of this process. Safe for any thread.

    Args:
        account: A name of the account that shows nothing of its secrets.
        store: Where the state is.
        rules: The limits.
        clock: Gives the time by which calls are made, in seconds.
    """

    def __init__(
        self, account: str, store: Store, rules: RateRules, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._account = account
        self._store = store
        # What is in memory ends with the process: its leases need neither an end nor a renewal.
        self._rules = rules._replace(lease=math.inf) if store.is_instant else rules
        self._clock = clock
        # What this process goes by while the store is away.
        self._spare = MemoryStore(clock=clock)
        self._spare_rules = _slower(rules)
        self._was_alone = False
        self._away_until = -math.inf
        self._is_told = False
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Begin with nobody in the queue, and no slot: those who are there are the parent's."""
        self._lock = threading.RLock()
        self._mark = f"{os.getpid()}-{os.urandom(8).hex()}"  # a system call, so not for each slot
        self._queue: Deque[CallContext] = deque()
        self._held: Set[str] = set()  # slots
        self._keeper: Optional[threading.Thread] = None
        self._is_closing = False
        self._later: ItemQueue[Optional[Callable[[], None]]] = ItemQueue()  # may wait for the store
        self._seen_at = -math.inf
        self._next_at = math.inf  # when the first in the queue may begin, as far as it is known
        reset_after_fork(self)

    @property
    def is_instant(self) -> bool:
        """Whether to ask waits for nothing."""
        return self._store.is_instant

    @property
    def is_fresh(self) -> bool:
        """Whether the state was seen a moment ago."""
        return self._clock() - self._seen_at < FRESH

    def new_slot(self) -> str:
        """Make up the name of a slot that nobody has."""
        return f"{self._mark}-{next(_slot_numbers)}"

    def try_admit(self, slot: str = "") -> Optional[str]:
        """Let a call begin if it may at once, and nobody waits. Return its slot, else ``None``."""
        if self._queue:
            return None
        slot = slot or self.new_slot()
        return slot if self._ask("admit", slot) <= 0 else None

    def admit(self, call: CallContext, policy: Optional[RetryPolicy] = None, slot: str = "") -> str:
        """Wait until a call may begin, and return its slot.

        Args:
            call: The call. Its limit of time holds.
            policy: How patient it is. It waits for the others of the account for any time, and for a longer pause, or
                for the next day, as long as for the service.
            slot: The name of the slot that it is to get, from ``new_slot``. Default: a new one.

        Raises:
            RateLimitError: It may not begin soon enough.
            RequestTimeoutError: Its time is over.
            StreamClosedError: It was stopped.
        """
        slot = slot or self.new_slot()
        tell_at = self._clock() + _TELL_AFTER
        try:
            with self._lock:
                self._queue.append(call)
            while True:
                ahead = self._ahead_of(call)
                seconds = math.inf if ahead else self._ask("admit", slot)
                if seconds <= 0:
                    return slot
                _check_patience(seconds, self._rules, policy, call)
                if not ahead:
                    self._next_at = self._clock() + seconds
                if self._clock() >= tell_at:
                    tell_at = self._clock() + _TELL_AGAIN
                    logger.info("%s", in_words(self._next_at - self._clock(), ahead))
                longest = _LOOK_AGAIN if not ahead and math.isinf(seconds) else _LONGEST_SLEEP
                left = call.remaining()
                with call.delayed("limit", self._next_at - self._clock()):
                    call.sleep_until_woken(min(seconds, longest, longest if left is None else left))
                call.check("limit")
        finally:
            try:
                self._leave_queue(call)
            finally:
                self._leave_queue(call)  # the first time may have been interrupted, and all would wait for ever

    def _ahead_of(self, call: CallContext) -> int:
        with self._lock:
            return self._queue.index(call)

    def _leave_queue(self, call: CallContext) -> None:
        """Leave it, if the call is in there. It is not in that of a forked child."""
        with self._lock:
            was_first = bool(self._queue) and self._queue[0] is call
            with contextlib.suppress(ValueError):
                self._queue.remove(call)
            call.forget_wake()
            if was_first:
                self._wake_first()

    def _wake_first(self) -> None:
        if self._queue:
            self._queue[0].wake()

    def leave(self, slot: str, again: int) -> None:
        """Give a slot back.

        Args:
            slot: What ``admit`` has returned.
            again: How many times the message was sent beyond the first; below zero if it was not sent.
        """
        if not again and self._rules.concurrency is None and not self._was_alone:
            return  # there is nothing to give, and nobody waits for it
        self._held.discard(slot)  # first, or it may be renewed when it was given back
        if _here.is_asking:
            self._later.put(functools.partial(self.leave, slot, again))
            return
        self._ask("leave", slot, again)
        if self._was_alone:  # it may be there
            self._spare.apply(self._account, "leave", self._spare_rules, slot)
        with self._lock:
            self._wake_first()
            if self._is_closing and not self._held:
                self._later.put(None)

    def lose(self, slot: str) -> None:
        """Have a slot given back that may never have been taken. It may be called anywhere, and waits for nothing."""
        if self._rules.concurrency is not None:
            self._held.discard(slot)
            self._later.put(functools.partial(self.leave, slot, 0))

    def _find_lost(self) -> None:
        """Give back what was left in a hurry, if there is no thread that does."""
        while self._keeper is None and not self._later.empty():
            with contextlib.suppress(queue.Empty):  # another thread was faster
                work = self._later.get(0.0)
                if work is not None:
                    work()

    def leave_soon(self, slot: str, again: int) -> None:
        """Give a slot back, and wait for nothing: a thread does it, unless the store is instant."""
        if again or self._rules.concurrency is not None:
            self.soon(functools.partial(self.leave, slot, again))
        else:
            self.leave(slot, again)

    def soon(self, work: Callable[[], None]) -> None:
        """Do what may wait for the store, and wait for nothing: a thread does it, unless the store is instant."""
        if self.is_instant:
            work()
            return
        self._later.put(work)
        self._start_keeper()

    def pause(self, seconds: float, part: str = "") -> None:
        """Tell all who share the account that the service wants so many seconds of silence, of all or of some calls."""
        self._ask("pause", number=max(0.0, seconds), budget=part)

    def look(self, part: str = "") -> float:
        """Return the seconds that are left of a pause, 0 for none, ``IS_CAREFUL`` if requests take turns."""
        return self._ask("look", budget=part)

    def take_turn(self) -> float:
        """Let a request start, among those of all processes; else return the seconds until it may."""
        return self._ask("turn")

    def spend(self, budget: str, limit: Optional[int], number: int) -> float:
        """Spend a part of a budget of the account, or give it back, if it is below zero.

        ``limit`` is how much there is in a day; ``None`` for any number. Returns 0 if it is spent; else, if it is used
        up, the seconds until some of what was spent counts no more.
        """
        return self._ask("spend", number=number, budget=budget, rules=RateRules(per_day=limit))

    def spent(self, budget: str) -> int:
        """Return how much of a budget was spent in a day."""
        return int(self._ask("spent", budget=budget, rules=RateRules()))

    @property
    def is_away(self) -> bool:
        """Whether the store has failed a moment ago, so that this process goes on alone."""
        return self._away_until != -math.inf and self._clock() < self._away_until

    def _ask(
        self, name: str, slot: str = "", number: float = 0.0, *, budget: str = "", rules: Optional[RateRules] = None
    ) -> float:
        if name == "admit" and not self._later.empty():
            self._find_lost()
        account = f"{self._account}-{budget}" if budget else self._account
        try:
            _here.is_asking = True
            return self._asked(account, name, slot, number, rules, is_budget=bool(budget))
        finally:
            _here.is_asking = False

    def _asked(
        self, account: str, name: str, slot: str, number: float, rules: Optional[RateRules], *, is_budget: bool
    ) -> float:
        if not self.is_away:
            try:
                seconds = self._store.apply(account, name, rules or self._rules, slot, number)
            except StoreError as error:
                self._note_failure(error)
            else:
                self._is_told = False
                if not is_budget:
                    self._note_success(name, slot, seconds)
                return seconds
        self._was_alone = True
        spare_rules = self._spare_rules if rules is None else _slower(rules)
        return self._spare.apply(account, name, spare_rules, slot, number)

    def _note_failure(self, error: StoreError) -> None:
        self._away_until = self._clock() + _AWAY
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "the limits of the account can't be shared (%s): this process goes on alone, at a quarter of the pace",
                error,
            )

    def _note_success(self, name: str, slot: str, seconds: float) -> None:
        # Soon after a pause, each request takes a turn, so what was seen is good for none.
        self._seen_at = -math.inf if seconds == IS_CAREFUL else self._clock()
        if name == "admit" and seconds <= 0 and self._rules.concurrency is not None and not self.is_instant:
            with self._lock:
                self._held.add(slot)
            self._start_keeper()

    def _start_keeper(self) -> None:
        thread: Optional[threading.Thread] = None
        try:
            with self._lock:
                if self._keeper is not None:
                    return
                self._is_closing = False
                thread = self._keeper = threading.Thread(target=self._keep, name="copilot-sync-limits", daemon=True)
            start_thread(thread)
        except BaseException as error:
            with self._lock:  # or it may begin between the look at it and the next line
                if thread is self._keeper and thread is not None and not thread.is_alive():
                    self._keeper = None
            if not isinstance(error, RuntimeError):  # an interruption
                raise
            # There can't be another thread: the leases end by themselves.

    def _keep(self) -> None:
        """Give slots back, and renew the others, as long as there are any."""
        this = threading.current_thread()
        with self._lock:
            self._keeper = self._keeper or this  # an interruption had it forgotten while it was started
            if self._keeper is not this:
                return
        pause = self._rules.lease / _RENEWAL
        due = self._clock() + pause
        while True:
            try:
                work = self._later.get(due - self._clock())
            except queue.Empty:
                with self._lock:
                    slots = list(self._held)
                    if not slots and self._later.empty():
                        self._keeper = None
                        return
                for slot in slots:
                    with contextlib.suppress(StoreError):
                        self._store.apply(self._account, "renew", self._rules, slot)
                        if slot not in self._held:  # it was given back meanwhile
                            self._store.apply(self._account, "leave", self._rules, slot)
                due = self._clock() + pause
                continue
            if work is not None:
                work()
            else:
                due = self._clock()

    def close(self) -> None:
        """End the thread that keeps the slots, and wait for it a moment. If there are some, it ends after the last."""
        with self._lock:
            keeper, self._is_closing = self._keeper, True
        if keeper is not None and keeper is not threading.current_thread():
            self._later.put(None)
            if not self._held:
                keeper.join(_JOIN)


class _Limiters:
    """The limiters of this process. Safe for any thread."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[Tuple[str, object, RateRules], AccountLimiter]
        self._known = weakref.WeakValueDictionary()
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Begin with a lock of our own."""
        self._lock = threading.RLock()

    def get(self, account: str, store: Store, rules: RateRules) -> AccountLimiter:
        """Return the limiter that all of this process share who go by the same limits."""
        key = (account, getattr(store, "place", store), rules)
        with self._lock:
            found = self._known.get(key)
            if found is None:  # a signal handler may make it as well, in the meantime
                found = self._known.setdefault(key, AccountLimiter(account, store, rules))
            return found


limiter_of = _Limiters().get


def in_words(seconds: float, ahead: int) -> str:
    """Say why a call waits, and how long."""
    when = "waiting for others to end" if math.isinf(seconds) else f"next in {waiting_time(seconds)}"
    return f"rate limited: {when}, {ahead} ahead of you" if ahead else f"rate limited: {when}"


def _check_patience(seconds: float, rules: RateRules, policy: Optional[RetryPolicy], call: CallContext) -> None:
    """Raise if a wait is longer than the call may take."""
    left = call.remaining()
    if policy is not None and not policy.wait_for_limits:
        raise _too_long(seconds)
    most = max(rules.window, policy.max_wait if policy is not None else 0.0)
    if not math.isinf(seconds) and (seconds > most or (left is not None and left <= seconds)):
        raise _too_long(seconds)


def _too_long(seconds: float) -> RateLimitError:
    when = "before another one has ended" if math.isinf(seconds) else f"for another {waiting_time(seconds)}"
    words = f"the limits that were set for the account allow no call {when}"
    return RateLimitError(words, retry_after=None if math.isinf(seconds) else seconds, stage="limit")
