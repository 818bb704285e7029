"""The time by which a file goes that outlives the boots of its machine.

- While the machine runs, its uptime counts, which nobody sets. The time while it sleeps counts if the system tells.
- How long it was off, the wall clock alone knows. It is asked once a boot, and only believed if it goes forward.

Each file notes how its time follows from the uptime, so that all processes go by the same.

Threads: confined to whoever holds the file's lock.
"""

import functools
import time
from typing import Callable, Optional

from copilot_sync.pacing.account_state import AccountState

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@functools.lru_cache(maxsize=1)
def _boot_of_linux() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read(100).strip()
    except (OSError, ValueError):
        return ""


def _uptime() -> float:
    clock: Optional[int] = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class MachineClock:
    """The clock of a machine, in seconds since 1970.

    Args:
        boot: Names the boot; ``""`` if that can't be known. Then a boot is noticed by an uptime that went backwards.
        uptime: Gives the seconds since the boot.
        wall: Gives the time as the machine believes it is.
    """

    def __init__(
        self,
        boot: Callable[[], str] = _boot_of_linux,
        uptime: Callable[[], float] = _uptime,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._boot = boot
        self._uptime = uptime
        self._wall = wall

    def is_noted(self, state: AccountState) -> bool:
        """Whether a state tells how its time follows from the uptime of this boot."""
        if state.ahead is None or state.boot != self._boot():
            return False
        return bool(state.boot) or state.ahead + self._uptime() >= state.at

    def now(self, state: AccountState) -> float:
        """Return the time by which a state goes, and note there how it follows from the uptime."""
        if state.ahead is None or not self.is_noted(state):
            now = self._wall()
            if state.ahead is None:  # it is new, or of a version that went by the uptime alone
                state.restart(now)
            state.boot, state.ahead = self._boot(), max(now, state.at) - self._uptime()
        return state.ahead + self._uptime()
