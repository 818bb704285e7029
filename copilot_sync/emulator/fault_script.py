"""What will happen to an emulator, and what has happened: the script and the record.

A ``FaultScript`` holds the replies and faults that are queued for coming requests, and keeps the requests,
leaks and disconnects that were seen. Tests read and write it from their own threads while connections use
it from theirs.

Rules: every change is announced with ``notify``, so that ``wait_until`` never has to sleep. The announcement
costs next to nothing while nobody waits, because every event sent makes one.

Threads: the record is locked, and so is the choice of what comes next. To queue something is atomic.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, Dict, Literal, Optional

from copilot_sync.emulator.bounded_list import BoundedList, ListLimits
from copilot_sync.emulator.faults import Fault
from copilot_sync.emulator.replies import Script, check_script
from copilot_sync.emulator.routes import STAGES
from copilot_sync.emulator.state import EmulatorOptions, RecordedRequest
from copilot_sync.emulator.thread_group import CTRL_C_INTERVAL

ChooseFault = Callable[[str, RecordedRequest], Optional[Fault]]


@dataclass(frozen=True)
class Leak:
    """A credential that came to a host that it doesn't belong to.

    Attributes:
        kind: ``"cookie"`` at a host of the api, or ``"authorization"`` (of any scheme) at github.
        request: the request that carried it.
    """

    kind: Literal["cookie", "authorization"]
    request: RecordedRequest


@dataclass(frozen=True)
class Disconnect:
    """A client that went away before it had its whole reply.

    Attributes:
        request: its request.
        events: how many events it had been sent.
        time: when this was noticed, by ``time.monotonic()``.
    """

    request: RecordedRequest
    events: int
    time: float


class FaultScript:
    """The script and the record of one emulator; safe to use from any thread.

    Args:
        options: how the service behaves.
        reply: the answer to messages for which nothing is scripted.

    Attributes:
        options: the same; you may change it at any time.
        reply: the same; you may replace it at any time.
        choose_fault: called with the stage and the request if no fault is queued for that stage; returns the
            fault for this request, or ``None``. Called from the connections' threads.
        requests: the requests received, in order, up to the limits in ``options``; the oldest are forgotten.
        leaks: credentials that came to the wrong host, within the same limits.
        disconnects: clients that went away before their reply's end, within the same limits.
    """

    def __init__(self, options: EmulatorOptions, reply: Script) -> None:
        check_script(reply)
        self.options = options
        self.reply = reply
        self.choose_fault: Optional[ChooseFault] = None
        self.requests: BoundedList[RecordedRequest] = BoundedList(self._limits, lambda request: request.size)
        self.leaks: BoundedList[Leak] = BoundedList(self._limits, lambda leak: leak.request.size)
        self.disconnects: BoundedList[Disconnect] = BoundedList(self._limits, lambda each: each.request.size)
        self._lock = threading.RLock()
        self._change = threading.Condition(self._lock)
        self._waiting = 0
        self._replies: Deque[Script] = deque()
        self._faults: Dict[str, Deque[Optional[Fault]]] = {stage: deque() for stage in STAGES}

    def _limits(self) -> ListLimits:
        return ListLimits(self.options.max_records, self.options.max_record_bytes)

    def script(self, *replies: Script) -> None:
        """Queue replies for the next messages, one each, ahead of ``reply``.

        Args:
            *replies: each a string (said word by word), a list of pieces, bytes (the raw body), a function
                that takes the prompt and returns one of these, or a ``Reply``.
        """
        for reply in replies:
            check_script(reply)
        self._replies.extend(replies)

    def fail(self, stage: str, *faults: Optional[Fault]) -> None:
        """Queue faults for the next requests of a stage, one each.

        Args:
            stage: one of ``STAGES``; anything else is a ``ValueError``.
            *faults: what goes wrong; ``None`` lets one request through.
        """
        if stage not in self._faults:
            raise ValueError(f"a stage is one of {', '.join(STAGES)}, not {stage!r}")
        self._faults[stage].extend(faults)

    def wait_until(self, predicate: Callable[[], object], timeout: float = 5.0) -> bool:
        """Wait until ``predicate`` holds. It is called again at each request, event and disconnect.

        Args:
            predicate: called without arguments; it must not wait for anything itself.
            timeout: seconds to wait at most.

        Returns:
            Whether it held.
        """
        with self._change:
            self._waiting += 1
            try:
                until = time.monotonic() + timeout
                while time.monotonic() + CTRL_C_INTERVAL < until:
                    if self._change.wait_for(predicate, CTRL_C_INTERVAL):
                        return True
                return bool(self._change.wait_for(predicate, until - time.monotonic()))
            finally:
                self._waiting -= 1

    def notify(self) -> None:
        """Wake all threads in ``wait_until``, so that they call their predicate again."""
        if self._waiting:
            with self._change:
                self._change.notify_all()

    def next_reply(self) -> Script:
        """Remove the next scripted reply from the queue and return it; ``reply`` if the queue is empty."""
        with self._lock:
            return self._replies.popleft() if self._replies else self.reply

    def next_fault(self, request: RecordedRequest) -> Optional[Fault]:
        """Remove the fault for this request from its queue and return it, or ask ``choose_fault`` for one."""
        queue = self._faults[request.stage]
        with self._lock:
            if queue:
                return queue.popleft()
        return self.choose_fault(request.stage, request) if self.choose_fault else None

    def record(self, request: RecordedRequest) -> None:
        """Keep a request, and the credentials that it should not have carried."""
        with self._lock:
            self.requests.add(request)
            if request.host != "github" and "cookie" in request.headers:
                self.leaks.add(Leak("cookie", request))
            if request.host == "github" and "authorization" in request.headers:
                self.leaks.add(Leak("authorization", request))
        self.notify()

    def record_disconnect(self, request: RecordedRequest, events: int) -> None:
        """Keep that a client went away before its reply's end."""
        with self._lock:
            self.disconnects.add(Disconnect(request, events, time.monotonic()))
        self.notify()
