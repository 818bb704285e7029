"""What the limits of an account cost a call, beside ``limits`` and ``pyrate-limiter`` on the same work, in one run.

``python benchmarks/limits.py [--rounds 300] [--threads 1000]`` prints the CPU time of a call that is let in and ends,
of this process: in memory, by a thousand threads, in a folder (a file of SQLite for ``pyrate-limiter``; ``limits`` has
none), and in a Redis, if ``redis-server`` is there. Each round is an account of its own with room for sixty calls in a
minute, which all begin. It needs ``pip install limits==5.8.0 pyrate-limiter==4.5.1 redis``.

The peers know no limit of calls at once: "pace" is the work that all do, "and slots" is what ours do beside it. The
file of SQLite has no lock among processes here, which would cost more: that of ``pyrate-limiter`` 4.5.1 fails with the
``filelock`` of November 2026.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # the folder has modules with the names of the peers

import limits  # noqa: E402 - found by the line before
import limits.storage  # noqa: E402
import limits.strategies  # noqa: E402
import pyrate_limiter  # noqa: E402

from copilot_sync.pacing.account_limiter import AccountLimiter  # noqa: E402
from copilot_sync.pacing.account_state import RateRules  # noqa: E402
from copilot_sync.pacing.redis_state import RedisStore  # noqa: E402
from copilot_sync.pacing.shared_state import FolderStore, MemoryStore, Store  # noqa: E402

#: Calls of a round, and how many may begin in a minute.
CALLS = 60
OURS = "copilot_sync, pace"

#: Begins and ends a call.
Call = Callable[[], object]
#: Makes the calls of an account that no other round has, with room for so many.
Make = Callable[[int], Call]

names = (f"account-{os.getpid()}-{number}" for number in itertools.count())


def ours(store: Store, has_slots: bool) -> Make:
    """Our limiter."""

    def make(room: int) -> Call:
        limiter = AccountLimiter(next(names), store, RateRules(room, room if has_slots else None))

        def call() -> None:
            slot = limiter.try_admit()
            assert slot is not None
            limiter.leave(slot, 0)

        return call

    return make


def of_limits(storage: "limits.storage.Storage", strategy: "type[limits.strategies.RateLimiter]") -> Make:
    """A strategy of ``limits``."""
    limiter = strategy(storage)

    def make(room: int) -> Call:
        item, name = limits.RateLimitItemPerMinute(room), next(names)

        def call() -> None:
            assert limiter.hit(item, name)

        return call

    return make


def of_pyrate(bucket: "Callable[[List[pyrate_limiter.Rate], str], pyrate_limiter.AbstractBucket]") -> Make:
    """A bucket of ``pyrate-limiter``."""

    def make(room: int) -> Call:
        name = next(names)
        limiter = pyrate_limiter.Limiter(bucket([pyrate_limiter.Rate(room, pyrate_limiter.Duration.MINUTE)], name))

        def call() -> None:
            assert limiter.try_acquire(name, blocking=False)

        return call

    return make


def in_turn(call: Call, threads: int) -> int:
    """Sixty calls, one after the other."""
    for _ in range(CALLS):
        call()
    return CALLS


def at_once(call: Call, threads: int) -> int:
    """A call of each of many threads."""
    started = [threading.Thread(target=call) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return threads


def compare(title: str, makers: Dict[str, Make], work: Callable[[Call, int], int], rounds: int, threads: int) -> None:
    """Take turns, a round each; print the CPU time of a call and its ratio to that of the cheapest peer."""
    found: Dict[str, List[float]] = {name: [] for name in makers}
    room = max(CALLS, threads)
    for _ in range(rounds):
        for name, make in makers.items():
            call = make(CALLS if work is in_turn else room)
            begun = time.process_time()
            done = work(call, threads)
            found[name].append((time.process_time() - begun) / done)
    costs = {name: 1e6 * statistics.median(values) for name, values in found.items()}
    cheapest = min(cost for name, cost in costs.items() if not name.startswith("copilot_sync"))
    for name, cost in costs.items():
        print(f"{title:14} {name:34} {cost:8.1f} µs a call   {cost / cheapest:5.2f} of the cheapest peer")


@contextlib.contextmanager
def server() -> Iterator[int]:
    """Run a Redis; give its port."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(["redis-server", "--port", str(port), "--save", ""], stdout=quiet, stderr=quiet)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def strategies(storage: "limits.storage.Storage") -> List[Tuple[str, Make]]:
    """Those of ``limits`` that let no more in than a limit in any minute, exactly and nearly."""
    return [
        ("limits, moving window", of_limits(storage, limits.strategies.MovingWindowRateLimiter)),
        ("limits, sliding counter", of_limits(storage, limits.strategies.SlidingWindowCounterRateLimiter)),
    ]


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1000)
    given = parser.parse_args()
    pyrate = pyrate_limiter
    memory, folder = MemoryStore(), tempfile.mkdtemp()
    makers = {
        OURS: ours(memory, False),
        "copilot_sync, pace and slots": ours(memory, True),
        **dict(strategies(limits.storage.MemoryStorage())),
        "pyrate-limiter": of_pyrate(lambda rates, name: pyrate.InMemoryBucket(rates)),
    }
    compare("memory", makers, in_turn, given.rounds, given.threads)
    compare(f"{given.threads} threads", makers, at_once, max(3, given.rounds // 30), given.threads)
    files = FolderStore(folder)
    makers = {
        OURS: ours(files, False),
        "copilot_sync, pace and slots": ours(files, True),
        "pyrate-limiter, SQLite": of_pyrate(
            lambda rates, name: pyrate.SQLiteBucket.init_from_file(
                rates, table=name.replace("-", "_"), db_path=os.path.join(folder, f"{name}.sqlite")
            )
        ),
    }
    compare("folder", makers, in_turn, max(3, given.rounds // 10), given.threads)
    shutil.rmtree(folder)
    if shutil.which("redis-server") is None:
        return
    import redis

    with server() as port, redis.Redis(port=port) as client:
        makers = {
            OURS: ours(RedisStore(client), False),
            "copilot_sync, pace and slots": ours(RedisStore(client), True),
            **dict(strategies(limits.storage.RedisStorage(f"redis://127.0.0.1:{port}"))),
            "pyrate-limiter": of_pyrate(lambda rates, name: pyrate.RedisBucket.init(rates, client, name)),
        }
        compare("Redis", makers, in_turn, max(3, given.rounds // 3), given.threads)


if __name__ == "__main__":
    main()
