"""What is to happen to an emulator, and what has happened: the script and the record.

A `Scenario` holds the replies and faults that were queued for coming requests, and keeps the
requests, leaks and disconnects that were seen. Tests read and write it from their own threads while
connections use it from theirs.

Rules: whatever changes is announced with `changed`, so that `wait_until` never has to sleep; the
announcement costs next to nothing while nobody waits, because it is made for every event sent.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, Dict, Literal, Optional

from .record import Record, RecordLimits
from .replies import Fault, Script, check_script
from .service import STAGES, Options, RecordedRequest

ChooseFault = Callable[[str, RecordedRequest], Optional[Fault]]


@dataclass(frozen=True)
class Leak:
    """A credential that came to a host that it doesn't belong to.

    Attributes:
        kind: `"cookie"` at the api, or `"authorization"` (of any scheme) at github.
        request: what it came with.
    """

    kind: Literal["cookie", "authorization"]
    request: RecordedRequest


@dataclass(frozen=True)
class Disconnect:
    """A client that went away before it had its whole reply.

    Attributes:
        request: what it had asked.
        events: how many events had been sent to it.
        time: when it was noticed, by `time.monotonic()`.
    """

    request: RecordedRequest
    events: int
    time: float


class Scenario:
    """The script and the record of one emulator; safe to use from any thread.

    Args:
        options: how the service behaves.
        reply: what is said where nothing is scripted.

    Attributes:
        options: the same; may be changed at any time.
        reply: the same; may be replaced at any time.
        choose_fault: called with the stage and the request where no fault is queued for that stage;
            returns the fault for this request, or `None`. Called from the connections' threads.
        requests: the requests received, in order; as many as `options` has it, the oldest are forgotten.
        leaks: credentials that came to the wrong host; as many.
        disconnects: clients that went away before their reply's end; as many.
    """

    def __init__(self, options: Options, reply: Script) -> None:
        check_script(reply)
        self.options = options
        self.reply = reply
        self.choose_fault: Optional[ChooseFault] = None
        self.requests: Record[RecordedRequest] = Record(self._limits, lambda request: request.size)
        self.leaks: Record[Leak] = Record(self._limits, lambda leak: leak.request.size)
        self.disconnects: Record[Disconnect] = Record(self._limits, lambda gone: gone.request.size)
        self._lock = threading.RLock()
        self._change = threading.Condition(self._lock)
        self._waiting = 0
        self._script: Deque[Script] = deque()
        self._faults: Dict[str, Deque[Optional[Fault]]] = {stage: deque() for stage in STAGES}

    def _limits(self) -> RecordLimits:
        return RecordLimits(self.options.max_records, self.options.max_record_bytes)

    def script(self, *replies: Script) -> None:
        """Queues replies for the next messages, one each, ahead of `reply`.

        Args:
            *replies: each a string (said word by word), a list of pieces, bytes (the raw body), a
                function of the prompt that returns one of these, or a `Reply`.
        """
        for reply in replies:
            check_script(reply)
        self._script.extend(replies)

    def fail(self, stage: str, *faults: Optional[Fault]) -> None:
        """Queues faults for the next requests of a stage, one each.

        Args:
            stage: one of `STAGES`; anything else is a `ValueError`.
            *faults: what goes wrong; `None` lets one request through.
        """
        if stage not in self._faults:
            raise ValueError(f"a stage is one of {', '.join(STAGES)}, not {stage!r}")
        self._faults[stage].extend(faults)

    def wait_until(self, predicate: Callable[[], object], timeout: float = 5.0) -> bool:
        """Waits until `predicate` holds; it is asked again at each request, event and disconnect.

        Args:
            predicate: called without arguments; it must not wait for anything itself.
            timeout: seconds to wait at most.

        Returns:
            Whether it held.
        """
        with self._change:
            self._waiting += 1
            try:
                return bool(self._change.wait_for(predicate, timeout))
            finally:
                self._waiting -= 1

    def changed(self) -> None:
        """Has everyone in `wait_until` look again."""
        if self._waiting:
            with self._change:
                self._change.notify_all()

    def next_reply(self) -> Script:
        """Takes the next scripted reply off the queue; `reply` where there is none."""
        with self._lock:
            return self._script.popleft() if self._script else self.reply

    def next_fault(self, request: RecordedRequest) -> Optional[Fault]:
        """Takes the fault for this request off its queue, or asks `choose_fault` for one."""
        queue = self._faults[request.stage]
        with self._lock:
            if queue:
                return queue.popleft()
        return self.choose_fault(request.stage, request) if self.choose_fault else None

    def record(self, request: RecordedRequest) -> None:
        """Keeps a request, and notes what it should not have carried."""
        with self._lock:
            self.requests.keep(request)
            if request.host == "api" and "cookie" in request.headers:
                self.leaks.keep(Leak("cookie", request))
            if request.host == "github" and "authorization" in request.headers:
                self.leaks.keep(Leak("authorization", request))
        self.changed()

    def record_disconnect(self, request: RecordedRequest, events: int) -> None:
        """Keeps that a client went away in mid-reply."""
        with self._lock:
            self.disconnects.keep(Disconnect(request, events, time.monotonic()))
        self.changed()
