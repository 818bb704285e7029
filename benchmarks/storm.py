"""Programs that catch every error and ask again at once, against a service that refuses.

Prints how many requests came in the second and in the minute after the first refusal, for each endpoint, shape of
refusal and way of asking: ``python benchmarks/storm.py``. Ends with status 1 if there were more than four or thirty.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Tuple

from copilot_sync import Client, CopilotError, GithubCopilot, RetryPolicy, batch
from copilot_sync.emulator import Emulator, Fault

FAULTS = {
    "429": Fault.status(429),
    "429, Retry-After: 0": Fault.status(429, retry_after=0),
    "503, Retry-After: 0": Fault.status(503, retry_after=0),
    "403, secondary rate limit": Fault.status(403, message="You have exceeded a secondary rate limit"),
    "402": Fault.status(402),
}
STAGES = ("token", "thread", "message")
Options = Dict[str, Any]
#: What is called, and the clients to close in the end.
Plan = Tuple[Callable[[], Any], List[Client]]
MESSAGES = [{"role": "user", "content": "Hello"}]


def clients(options: Options) -> Plan:
    """Calls of several clients, in turn."""
    made = [Client(**options) for _ in range(4)]
    turn = itertools.count()
    return (lambda: made[next(turn) % 4].ask("Hello")), made


def hasty(options: Options) -> Plan:
    """Calls of a client that waits for nothing by itself."""
    client = Client(**{**options, "retry": None})
    return (lambda: client.ask("Hello")), [client]


def generators(options: Options) -> Plan:
    """The documented module, blocking."""
    return (lambda: list(GithubCopilot.create_generator("", MESSAGES, **options))), []


def asynchronous(options: Options) -> Plan:
    """The documented module, on an event loop."""

    async def ask() -> None:
        async for _ in GithubCopilot.create_async_generator("", MESSAGES, **options):
            pass

    return (lambda: asyncio.run(ask())), []


def batches(options: Options) -> Plan:
    """One batch after the other."""
    client = Client(**options)
    return (lambda: list(batch.run(["one", "two", "three", "four"], client=client, workers=4))), [client]


WAYS = (clients, hasty, generators, asynchronous, batches)


def storm(way: Callable[[Options], Plan], stage: str, fault: Fault, seconds: float, threads: int) -> Tuple[int, int]:
    """Let so many threads call in a loop; give the requests in the second and the minute after the first refusal."""
    with Emulator() as emulator:
        emulator.choose_fault = lambda asked, request: fault if asked == stage else None
        options: Options = {
            "cookies": emulator.cookies,
            "github_url": emulator.github_url,
            "api_url": emulator.api_url,
            "retry": RetryPolicy(base=0.0, cap=0.0),
        }
        ask, made = way(options)
        with contextlib.suppress(CopilotError):
            list(GithubCopilot.create_generator("", MESSAGES, **{**options, "retry": None}))
        refused = emulator.requests[-1].time
        end = time.monotonic() + seconds

        def loop() -> None:
            while time.monotonic() < end:
                with contextlib.suppress(CopilotError):
                    ask()

        workers = [threading.Thread(target=loop, daemon=True) for _ in range(threads)]
        for worker in workers:
            worker.start()
        time.sleep(seconds)
        for client in made:
            client.close()
        times = [request.time - refused for request in emulator.requests if 0 < request.time - refused <= 60]
    return len([each for each in times if each <= 1]), len(times)


def main() -> int:
    """Run the storms, several at once, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=61.0)
    parser.add_argument("--threads", type=int, default=8)
    arguments = parser.parse_args()
    plans = list(itertools.product(WAYS, STAGES, FAULTS))
    seen: Dict[Any, Tuple[int, int]] = {}

    def run(plan: Tuple[Callable[[Options], Plan], str, str]) -> None:
        way, stage, name = plan
        seen[plan] = storm(way, stage, FAULTS[name], arguments.seconds, arguments.threads)

    running = [threading.Thread(target=run, args=(plan,), daemon=True) for plan in plans]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    bad = 0
    for plan in plans:
        way, stage, name = plan
        second, minute = seen[plan]
        bad += second > 4 or minute > 30
        print(f"{way.__name__:<13} {stage:<8} {name:<26} second {second}, minute {minute}")
    print(f"{bad} of {len(plans)} storms were too many")
    return 1 if bad else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # the threads would go on
