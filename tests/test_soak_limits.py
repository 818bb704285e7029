"""The limits of an account in several processes for some seconds: whole processes, which are killed as well."""

import contextlib
import multiprocessing
import os
import signal
import time
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest
from support import PATIENCE, nothing_left_open, wait_until

from copilot_sync import Client, CopilotError, RateLimit, Timeout
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing import account_state

#: Seconds by which a message may come later than its call was let in, on a machine that does much else.
_LATE = 3.5


def messages(emulator: Emulator) -> int:
    return sum(request.stage == "message" for request in emulator.requests)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """One with an account that no other test has heard of."""
    resource_tracker.ensure_running()  # it stays until this process ends
    with nothing_left_open(), Emulator() as served:
        yield served


def _asks(
    places: Any, folder: str, seconds: float, limit: RateLimit, window: float, enough: Any, results: Any
) -> None:  # pragma: no cover - in other processes
    """Ask as fast as the limits let in; the window of a minute is a shorter one here."""
    account_state.RateRules.__new__.__defaults__ = (None, None, None, window + _LATE, 1.0)
    end = time.monotonic() + seconds
    with contextlib.suppress(CopilotError), Client(**places, rate_limit=limit, shared=folder) as client:
        while time.monotonic() < end and not enough.is_set():
            client.ask("hi", timeout=Timeout(total=max(0.1, end - time.monotonic())))
    results.put(os.getpid())


@contextlib.contextmanager
def asking(emulator: Emulator, folder: Path, count: int, *rest: Any) -> Iterator[Tuple[List[Any], Any]]:
    """Have processes ask for so many seconds, or until the event that comes with them is set."""
    context = multiprocessing.get_context("spawn")
    results, enough = context.Queue(), context.Event()
    places = {"cookies": emulator.cookies, "github_url": emulator.github_url, "api_url": emulator.api_url}
    args = (places, str(folder), *rest, enough, results)
    processes = [context.Process(target=_asks, args=args) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield processes, enough
    finally:
        for process in processes:
            process.join(6 * PATIENCE)
            process.close()
        results.close()
        results.join_thread()


def most_in(times: List[float], window: float) -> int:
    """How many there were in any window."""
    return max(sum(at <= other < at + window for other in times) for at in times)


@pytest.mark.parametrize("kills", [False, True], ids=["all live", "some are killed"])
def test_processes_share_the_pace(kills: bool, emulator: Emulator, tmp_path: Path) -> None:
    """They stay below the limit, and near it. The slots of one that was killed come back when its lease ends."""
    window, limit = 2.0, 20
    rules = (12.0, RateLimit(per_minute=limit, concurrency=3), window)
    with asking(emulator, tmp_path, 4, *rules) as (processes, _):
        if kills:
            emulator.reply = Reply(["a", "b"], pace=0.05)
            for victim in processes[:2]:
                wait_until(lambda: messages(emulator) > 5)
                time.sleep(0.5)
                os.kill(victim.pid, signal.SIGKILL)
    times = [request.time for request in emulator.requests if request.stage == "message"]
    assert most_in(times, window) <= limit
    assert len(times) > limit


def test_a_pause_holds_for_all_processes_and_its_end_is_spread(emulator: Emulator, tmp_path: Path) -> None:
    """Nobody sends from a moment after the refusal until its end; then one after the other does, every 0.3 s."""
    pause = 6
    with asking(emulator, tmp_path, 3, 40.0, RateLimit(), 60.0) as (_, enough):
        wait_until(lambda: messages(emulator) > 20)
        begun = time.monotonic()
        emulator.fail("message", Fault.rate_limit(pause))
        assert emulator.wait_until(lambda: len(times_since(emulator, begun + pause)) >= 10, 4 * PATIENCE)
        enough.set()
    refused = next(request.time for request in emulator.requests if request.stage == "message" and request.time > begun)
    later = times_since(emulator, refused + _LATE)
    assert later[0] >= refused + pause - 0.1
    assert later[9] >= refused + pause + 2


def times_since(emulator: Emulator, at: float) -> List[float]:
    return sorted(request.time for request in emulator.requests if request.time > at)
