"""Times as the protocol writes them. A pure function of the clock."""

from __future__ import annotations

import time


def timestamp(offset: float = 0.0, precision: str = "nanoseconds") -> str:
    """Return the time ``offset`` seconds from now as the protocol writes it; ``""`` if the precision is "missing"."""
    if precision == "missing":
        return ""
    now = time.time_ns() + int(offset * 1e9)
    seconds, nanoseconds = divmod(now, 1_000_000_000)
    digits = f"{nanoseconds:09d}"[: 3 if precision == "milliseconds" else 9]
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{digits}Z"
