"""Exceptions out of a signal handler, at the instant that one wants: ``Alarm``."""

import random
import signal
import sys
from typing import Any, Callable


class InterruptionError(Exception):
    """What the handler raises in turn with ``KeyboardInterrupt``."""


RAISED = (InterruptionError, KeyboardInterrupt)


class Alarm:
    """Raises an exception during some work, after so many seconds or so many steps."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._armed = False
        self._steps = 0
        self.rang = False
        signal.signal(signal.SIGALRM, self._ring)

    def interrupts(self, work: Callable[[], Any], seconds: float, steps: int) -> bool:
        """Do the work; tell whether the exception came out of it. Other errors of it pass."""
        self._armed, self.rang, self._steps = True, False, steps
        try:
            try:
                if steps:
                    sys.setprofile(self._step)
                else:
                    signal.setitimer(signal.ITIMER_REAL, seconds)
                work()
            finally:
                self._armed = False
                sys.setprofile(None)
                signal.setitimer(signal.ITIMER_REAL, 0)
        except RAISED:
            return True
        return False

    def _ring(self, *arguments: object) -> None:
        if self._armed:
            self._armed, self.rang = False, True
            raise self._chance.choice(RAISED)

    def _step(self, frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_return"):
            self._steps -= 1
            if not self._steps:
                self._ring()
