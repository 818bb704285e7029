"""How the calls of one account are held back after the service refused one of them, or kept failing.

Rules: while nothing fails, a call looks at one flag and goes on. After a refusal (a rate limit, refused
credentials, or 503 with ``Retry-After``) nothing is sent for as long as the service said, and for a limit never for
less than the policy's first wait; then one request starts at a time, at distances that grow, until a minute has
passed without a refusal. In the second after a refusal no more than four requests start, in the minute no more than
thirty. A stage that fails again and again without one success is asked at the same distances. A quota that is used
up is told to everybody without asking again, but for a bare 402: other models may cost nothing.

One ``Cooldown`` is shared by everything in this process that uses the same credentials for the same hosts.

Threads: locked, but for ``active`` and ``proven``, each of which is atomic.
"""

import logging
import random
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, Optional, Protocol, Tuple

from copilot_sync.errors import AuthenticationError, CopilotError, QuotaExceededError, RateLimitError, ServerError
from copilot_sync.pacing.account_state import GAP, IS_CAREFUL
from copilot_sync.pacing.policy import PATIENT_STAGES, Signal, verdict_of
from copilot_sync.settings import RetryPolicy
from copilot_sync.times import waiting_time
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

#: Seconds for which requests are spread after a refusal.
_CAREFUL = 60.0
#: Seconds between the first two starts and the longest between two, how each distance follows from the one before, and
#: how much chance may add. At most three starts fit into the first second and 29 into the first minute.
_FIRST_GAP = 0.3
_LONGEST_GAP = 2.5
_GROWTH = 1.5
_JITTER = 0.25
#: Failures of a stage in a row, without a success, that make an outage.
_OUTAGE = 8
#: Seconds after which the service is asked again whatever it said: it may have said more than it meant.
_LONGEST_PAUSE = 3600.0
#: Seconds for which a quota counts as used up if the service did not say.
_QUOTA_PAUSE = 60.0
#: The part of the calls that uses the quota up, as processes call it.
_QUOTA = "quota"
#: What a process says of a quota that another one was told of.
_EXHAUSTED = "the quota of the account is used up, as another process was told"
#: The stages that use a quota up, or are of no use without it.
_ON_QUOTA = ("token", "thread", "message")
#: Accounts that are remembered though nothing uses them.
_KEPT = 256
#: Seconds by which two tell the end of the same pause differently.
_SAME_PAUSE = 0.5
#: Seconds that a call waits for its turn at least, however little its policy would wait for the service.
_PATIENCE = 5.0


class _Turns:
    """Starts of requests, one at a time, at growing distances."""

    def __init__(self, now: float) -> None:
        self.until = now + _CAREFUL
        self._gap = _FIRST_GAP
        self._next = now + _FIRST_GAP

    def wait(self, now: float) -> float:
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        self._next = now + self._gap * random.uniform(1.0, 1.0 + _JITTER)
        self._gap = min(_GROWTH * self._gap, _LONGEST_GAP)


@dataclass
class _Failing:
    """A stage that has failed in a row, and the turns that its requests take when that is an outage."""

    count: int
    until: float
    turns: Optional[_Turns] = None


@dataclass(frozen=True)
class _Hold:
    """What holds a request back.

    Attributes:
        seconds: For how long.
        allowed: How long its call waits at most, for this and for what held it back before.
        error: What the call fails with if that is too long.
        reason: What is waited for, for the log.
    """

    seconds: float
    allowed: float
    error: CopilotError
    reason: str


class PauseBoard(Protocol):
    """Tells other processes of the account's pauses, and of theirs."""

    @property
    def is_fresh(self) -> bool:
        """Whether it was looked at a moment ago."""

    def pause(self, seconds: float, part: str = "") -> None:
        """Tell them of a pause that begins now: of all calls, or of a part of them, which has a name."""

    def look(self, part: str = "") -> float:
        """Return the seconds that are left of a pause of anybody's, 0 for none, ``IS_CAREFUL`` soon after one."""

    def take_turn(self) -> float:
        """Let a request start, among those of all processes; else return the seconds until it may."""


class Cooldown:
    """What the calls of one account know of refusals. Safe for any thread.

    Args:
        account: A name of the account that shows nothing of its secrets; ``""`` for that of nobody yet.

    Attributes:
        account: The name.
        board: Shares pauses with other processes; ``None`` if nothing does.
        active: Whether there is anything to obey. As long as nothing has failed, that is all that a call looks at.
        proven: Whether the service has accepted the credentials, for two calls at least.
    """

    def __init__(self, account: str = "") -> None:
        self.account = account
        self.board: Optional[PauseBoard] = None
        self.active = False
        self.proven = False
        self._first: Optional[weakref.ref[CallContext]] = None  # the first call for which it has
        self._until, self._told = 0.0, False  # the end of the pause, and whether the service said how long it is
        self._turns: Optional[_Turns] = None  # after a refusal
        self._failing: Dict[str, _Failing] = {}  # by stage
        self._denied: Optional[Tuple[str, str]] = None  # where and why credentials were refused, if nothing else was
        self._quota: Optional[Tuple[str, float, float]] = None  # words, when to ask again, when it ends
        self._has_looked = False  # whether others may have told of a quota before
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Begin with a lock of our own: an inherited one may be held by a thread that is not here."""
        self._lock = threading.RLock()
        reset_after_fork(self)

    @property
    def is_open(self) -> bool:
        """Whether a request may start without ``wait``: there is nothing to obey, nor to look for."""
        return not self.active and not self._has_to_look

    @property
    def _has_to_look(self) -> bool:
        """Whether others may have been told something. A call that has just begun saw a pause, but no quota."""
        return self.board is not None and not (self._has_looked and self.board.is_fresh)

    def failed(self, error: CopilotError, policy: Optional[RetryPolicy], call: CallContext) -> None:
        """Take note of a request that failed."""
        signal = verdict_of(error).signal
        if error.stage is None or signal is Signal.NONE:
            return
        now = call.clock()
        told: Optional[float] = getattr(error, "retry_after", None)
        self._note_failure(error, error.stage, signal, told, policy, now)
        if self.board is not None and signal in (Signal.QUOTA, Signal.REFUSED):
            with self._lock:
                seconds = max(self._until - now, told or 0.0 if signal is Signal.REFUSED else 0.0)
                exhausted = 0.0 if self._quota is None else self._quota[1] - now
            if exhausted > 0 and signal is Signal.QUOTA:
                self.board.pause(exhausted, _QUOTA)
            self.board.pause(min(seconds, _LONGEST_PAUSE))

    def _note_failure(
        self,
        error: CopilotError,
        stage: str,
        signal: Signal,
        told: Optional[float],
        policy: Optional[RetryPolicy],
        now: float,
    ) -> None:
        with self._lock:
            if signal is Signal.QUOTA:
                self._refused(stage, now, 0.0, told=False)
                if stage in _ON_QUOTA and (error.status != 402 or told is not None):
                    left = _QUOTA_PAUSE if told is None else told
                    self._quota = (str(error.args[0]), now + min(left, _LONGEST_PAUSE), now + left)
            elif signal is Signal.REFUSED:
                floor = 0.0 if policy is None else min(policy.base, policy.cap)
                seconds = max(floor, min(told or 0.0, _LONGEST_PAUSE))
                self._refused(stage, now, seconds, told=told is not None)
            elif signal is Signal.DENIED:
                self._deny(stage, str(error.args[0]), now)
            else:
                self._count(stage, now)

    def _deny(self, stage: str, words: str, now: float) -> None:
        """Slow down like after a limit, until a request of this stage gets through: tokens may just have ended soon."""
        if self._turns is None or self._denied is not None:
            self._refused(stage, now, 0.0, told=False)
            self._denied = stage, words

    def _refused(self, stage: str, now: float, seconds: float, *, told: bool) -> None:
        self._denied = None
        if now + seconds > self._until:
            self._until, self._told = now + seconds, told
        if self._turns is None:
            self._turns = _Turns(now)
        self._turns.until = now + seconds + _CAREFUL
        self.active = True

    def _count(self, stage: str, now: float) -> None:
        failing = self._failing.setdefault(stage, _Failing(0, now))
        failing.count += 1
        failing.until = now + _CAREFUL
        if failing.count >= _OUTAGE and failing.turns is None:
            failing.turns = _Turns(now)
        self.active = True

    def accepted(self, call: CallContext) -> None:
        """Take note that the service accepted the credentials; only needed until they are ``proven``."""
        if self.is_proven_to(call):
            self.proven = True
        elif self._first is None:
            self._first = weakref.ref(call)

    def is_proven_to(self, call: CallContext) -> bool:
        """Whether the service has accepted the credentials for another call than this one."""
        return self.proven or (self._first is not None and self._first() is not call)

    def succeeded(self, stage: str) -> None:
        """Take note of a request that did not fail; only needed while ``active``."""
        with self._lock:
            if self._denied is not None and self._denied[0] == stage:
                self._denied = self._turns = None
            self._failing.pop(stage, None)

    def wait(self, policy: Optional[RetryPolicy], call: CallContext, stage: str) -> None:
        """Wait until a request may start, and take its turn.

        Raises:
            QuotaExceededError: The quota was used up a moment ago.
            AuthenticationError: The credentials were refused a moment ago, and the wait does not fit.
            RateLimitError: The wait does not fit what the policy and the call allow.
            ServerError: The same, and what is waited for is the end of an outage.
            StreamClosedError: The call was stopped.
        """
        waited, has_turn = 0.0, False
        while True:
            now = call.clock()
            self._look(now)
            if not self.active:
                return
            hold = self._try_turn(now, policy, stage, has_turn=has_turn)
            if hold is None:
                has_turn = True
                hold = self._try_turn_of_all(now, policy, stage)
                if hold is None:
                    return
            seconds, left = hold.seconds, call.remaining()
            if waited + seconds > hold.allowed or (left is not None and seconds >= left):
                raise hold.error
            logger.info("%s: waiting %.2f s for %s", stage, seconds, hold.reason)
            with call.delayed("service", seconds, hold.error):
                call.sleep(seconds)
            waited += seconds

    def _look(self, now: float) -> None:
        """Take note of what other processes were told."""
        if self.board is None or not self._has_to_look:
            return
        seconds = self.board.look()
        exhausted = self.board.look(_QUOTA) if seconds or not self._has_looked else 0.0
        self._has_looked = True
        with self._lock:
            if exhausted > 0 and self._quota is None:
                self._quota = _EXHAUSTED, now + exhausted, now + exhausted
                self.active = True
            if seconds > 0 and now + seconds > self._until + _SAME_PAUSE:
                self._refused("", now, seconds, told=True)
            elif seconds == IS_CAREFUL and self._turns is None:
                self._turns = _Turns(now)
                self.active = True

    def _try_turn_of_all(self, now: float, policy: Optional[RetryPolicy], stage: str) -> "Optional[_Hold]":
        """Take the turn among the requests of other processes, too, if it is there; else say what holds it back."""
        seconds = 0.0 if self.board is None else self.board.take_turn()
        if seconds > GAP:  # more than a turn takes: another process was told of a pause since the last look
            with self._lock:
                self._refused("", now, seconds, told=True)
                return self._pause(now, policy, stage)
        return _turn(seconds, policy, stage) if seconds > 0 else None

    def _try_turn(self, now: float, policy: Optional[RetryPolicy], stage: str, *, has_turn: bool) -> "Optional[_Hold]":
        """Take the turn, if it is there or was taken already; else say what holds the request back."""
        with self._lock:
            self._forget(now)
            if self._quota is not None and stage in _ON_QUOTA:
                words, _, end = self._quota
                exhausted = QuotaExceededError(words, retry_after=max(0.0, end - now), stage=stage)
                return _Hold(0.0, -1.0, exhausted, "a quota")
            if now < self._until:
                return self._pause(now, policy, stage)
            refused, outages = self._turns, self._outages_of(stage)
            turns = [*outages, *([] if refused is None else [refused])]
            seconds = 0.0 if has_turn else max((each.wait(now) for each in turns), default=0.0)
            if seconds > 0 and refused is None:
                return _Hold(seconds, _patience_of(policy), _gone(seconds, stage), "the end of an outage")
            if seconds > 0 and self._denied is not None:
                words = f"{self._denied[1]}; asked again in {waiting_time(seconds)} at the earliest"
                denied = AuthenticationError(words, stage=stage)
                return _Hold(seconds, _patience_of(policy), denied, "credentials that are accepted")
            if seconds > 0:
                return _turn(seconds, policy, stage)
            for each in () if has_turn else turns:
                each.take(now)
            return None

    def _pause(self, now: float, policy: Optional[RetryPolicy], stage: str) -> "_Hold":
        """What holds a request back until the end of the pause, and for how long its policy lets it."""
        seconds = self._until - now
        allowed = _patience_of(policy)
        if policy is None or not (policy.wait_for_limits or stage in PATIENT_STAGES):
            allowed = -1.0
        elif self._told:
            allowed = policy.max_wait
        words = f"the service asked to slow down for another {waiting_time(seconds)}"
        return _Hold(seconds, allowed, _limited(words, seconds, stage), "the end of a pause")

    def _outages_of(self, stage: str) -> Tuple[_Turns, ...]:
        """The turns of a stage. If no message goes through, there is no use for new conversations."""
        stages = ("thread", "message") if stage == "thread" else (stage,)
        known = [self._failing[each].turns for each in stages if each in self._failing]
        return tuple(turns for turns in known if turns is not None)

    def _forget(self, now: float) -> None:
        """Forget what is over."""
        if self._turns is not None and now >= self._turns.until:
            self._turns = None
        if self._quota is not None and now >= self._quota[1]:
            self._quota = None
        self._failing = {stage: each for stage, each in self._failing.items() if now < each.until}
        self.active = now < self._until or bool(self._turns or self._quota or self._failing)


def _patience_of(policy: Optional[RetryPolicy]) -> float:
    """How long a call waits for its turn."""
    return _PATIENCE if policy is None else max(policy.max_wait, _PATIENCE)


def _turn(seconds: float, policy: Optional[RetryPolicy], stage: str) -> _Hold:
    """What holds a request back that keeps its distance from others after a pause."""
    words = f"the service asked to slow down, so requests take turns: the next one is sent in {waiting_time(seconds)}"
    return _Hold(seconds, _patience_of(policy), _limited(words, seconds, stage), "its turn")


def _limited(words: str, seconds: float, stage: str) -> RateLimitError:
    return RateLimitError(words, retry_after=seconds, stage=stage)


def _gone(seconds: float, stage: str) -> CopilotError:
    words = f"the service failed again and again, and is asked again in {waiting_time(seconds)}"
    return ServerError(words, retry_after=seconds, stage=stage)


class _Accounts:
    """The accounts that this process uses or has used lately. Safe for any thread.

    A program may make a client for each call: what the last one was told has to outlive it.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[str, Cooldown] = weakref.WeakValueDictionary()
        self._lately: Deque[Cooldown] = deque(maxlen=_KEPT)
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Begin with a lock of our own."""
        self._lock = threading.RLock()

    def get(self, account: str) -> Cooldown:
        """Return the cool-down of an account."""
        with self._lock:
            found = self._known.get(account)
            if found is None:
                found = self._known[account] = Cooldown(account)
                self._lately.append(found)
            return found


_shared = _Accounts()
#: Gives the ``Cooldown`` of an account, by a name that shows none of its secrets.
cooldown_of = _shared.get
