"""The threads of a batch: no interruption leaves one of them, and neither does a run that nobody closes."""

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import threading
from typing import Any, Callable, Iterator

import pytest
from support import PATIENCE, wait_until

from copilot_sync import Client
from copilot_sync.batch.sender import Task
from copilot_sync.batch.workers import ThreadWorkers
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.os_threads import start_thread


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=None) as opened:
        yield opened


class InterruptionError(Exception):
    """What a signal handler raises."""


def interrupted(work: Callable[[], None], step: int) -> bool:
    """Do the work, with an exception at one of its steps. Tell whether it had so many."""

    # Coverage does not measure what measures.
    def count(frame: object, event: str, argument: object) -> None:  # pragma: no cover
        nonlocal step
        if event in ("call", "c_return"):
            step -= 1
            if step == 0:
                raise InterruptionError

    with contextlib.suppress(InterruptionError):
        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(None)
    return step <= 0


def batch_threads() -> int:
    return sum(thread.name.startswith("copilot-sync-batch") for thread in threading.enumerate())


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may meet a destructor
def test_an_exception_at_any_step_leaves_no_thread(client: Client, emulator: Emulator) -> None:
    """Out of a signal handler it may come at any step of the thread that iterates, also when the threads start."""

    def work() -> None:
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pool = ThreadWorkers(client)
        with pool:
            pool.start(2)
            for _ in range(2):
                pool.submit("ask", Task("Hi"), ended.put)
            for _ in range(2):
                assert pool.result(ended.get()).error is None

    steps = next(step for step in itertools.count(1) if not interrupted_and_left(work, step))
    assert steps > 50
    assert emulator.wait_until(lambda: emulator.open_connections == emulator.idle_connections)


def interrupted_and_left(work: Callable[[], None], step: int) -> bool:
    came = interrupted(work, step)
    wait_until(lambda: not batch_threads())
    return came


def test_what_a_thread_meets_is_raised_where_its_result_is_asked_for(client: Client) -> None:
    """Whatever it is; and the thread goes on."""
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with ThreadWorkers(client) as pool:
        pool.start(1)
        pool.submit("ask", "no task", ended.put)
        pool.submit("ask", Task("Hi"), ended.put)
        with pytest.raises(AttributeError, match="content"):
            pool.result(ended.get(timeout=PATIENCE))
        assert pool.result(ended.get(timeout=PATIENCE)).error is None


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)"], ids=["at the end", "by an exception"])
def test_a_run_that_nobody_closes_ends_with_the_program(emulator: Emulator, ending: str) -> None:
    """What is still on its way then is stopped, and nothing is complained about."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    program = f"""
from copilot_sync import batch
results = batch.run(["one", "two", "three"], workers=2)
assert next(results).text in ("one", "two", "three")
{ending}
"""
    command = [sys.executable, "-W", "error", "-c", program]
    ended = subprocess.run(
        command, env={**os.environ, **emulator.environment}, capture_output=True, text=True, timeout=3 * PATIENCE
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert emulator.wait_until(lambda: not emulator.open_connections)


def test_a_thread_that_can_not_start_is_an_error_where_it_should() -> None:
    """Although another thread tried."""
    thread = threading.Thread(target=int)
    start_thread(thread)
    with pytest.raises(RuntimeError, match="only be started once"):
        start_thread(thread)
    thread.join()
