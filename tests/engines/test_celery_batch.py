"""Prompts that are fanned out to Celery's workers: real processes, on a real Redis, that die and are refused."""

import os
import signal
from collections import Counter
from typing import Any, Callable, List

import pytest
from support import PATIENCE

from copilot_sync.batch import Result
from copilot_sync.emulator import Emulator, Fault

PROMPTS = 300
#: Seconds.
PAUSE = 2.0


@pytest.fixture
def fan_out(celery_workers: Callable[..., Any]) -> Callable[..., Any]:
    """What hands prompts to the processes of a worker."""
    celery_workers("celery_batch")
    from copilot_sync.contrib.celery import fan_out as given

    return given


def texts(count: int) -> List[str]:
    return [f"question {number}" for number in range(count)]


def once_each(emulator: Emulator, prompts: List[str]) -> bool:
    """Whether each prompt stands in one thread, once."""
    threads = list(emulator.threads.values())
    return Counter(message["content"] for each in threads for message in each.user_messages) == Counter(prompts)


def test_all_prompts_are_asked_once(emulator: Emulator, fan_out: Callable[..., Any]) -> None:
    """Their results come in their order, whatever came first."""
    prompts = texts(PROMPTS)
    results: List[Result] = list(fan_out(prompts).in_order(timeout=3 * PATIENCE))
    assert [(result.id, result.text, result.error) for result in results] == [
        (number, prompt, None) for number, prompt in enumerate(prompts)
    ]
    assert once_each(emulator, prompts)
    assert emulator.tokens_issued <= 2


def test_results_come_as_they_come(emulator: Emulator, fan_out: Callable[..., Any]) -> None:
    """One that takes long holds up none of the others."""
    emulator.fail("message", Fault.stall())
    out = fan_out(texts(20)).as_they_come(timeout=3 * PATIENCE)
    first = [next(out) for _ in range(19)]
    emulator.release()
    assert sorted(result.id for result in [*first, *out]) == list(range(20))


@pytest.mark.parametrize(
    "stall",
    [Fault.stall(("after_events", 1)), Fault.stall(), Fault.stall(processed=False)],
    ids=["in an answer", "before an answer", "before the message was taken"],
)
def test_processes_that_die_leave_nothing_undone_and_nothing_done_twice(
    emulator: Emulator, fan_out: Callable[..., Any], stall: Fault
) -> None:
    """Their prompts go to others, who look for the message before they send it."""
    from copilot_sync.contrib.celery import ask

    prompts = texts(60)
    emulator.fail("message", *[None] * 20, stall)
    out = fan_out(prompts)
    assert emulator.wait_until(lambda: emulator.stalled, 3 * PATIENCE)
    (worker,) = ask.app.control.inspect(timeout=PATIENCE, limit=1).stats().values()
    for process in worker["pool"]["processes"]:
        os.kill(process, signal.SIGKILL)
    results: List[Result] = list(out.in_order(timeout=3 * PATIENCE))
    assert [(result.text, result.error) for result in results] == [(prompt, None) for prompt in prompts]
    assert once_each(emulator, prompts)


def test_a_refusal_of_one_process_holds_back_the_other(emulator: Emulator, fan_out: Callable[..., Any]) -> None:
    """No prompt is begun by anybody before the pause is over; then all go on, one after the other for a minute."""
    emulator.fail("thread", *[None] * 20, Fault.status(429, retry_after=PAUSE))
    results: List[Result] = list(fan_out(texts(28)).in_order(timeout=12 * PATIENCE))
    assert [result.error for result in results] == [None] * 28
    begun = [request.time for request in emulator.requests if request.stage == "thread"]
    refused = begun[20]
    # What another process had begun at that very moment is on its way.
    assert [time - refused for time in begun[21:] if 0.3 < time - refused < PAUSE - 0.05] == []
    assert len(begun) == 29


def test_expired_credentials_are_tried_by_each_process_once(emulator: Emulator, fan_out: Callable[..., Any]) -> None:
    """All other prompts fail with what one of them met."""
    emulator.cookies["user_session"] = "another"
    results: List[Result] = list(fan_out(texts(60)).in_order(timeout=3 * PATIENCE))
    assert {str(result.error and result.error["type"]) for result in results} == {"AuthenticationError"}
    assert len(emulator.requests) <= 2
