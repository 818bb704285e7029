"""A service that is down while a batch runs: the batch waits, and no prompt fails for it."""

import functools
from pathlib import Path
from typing import Any, List, Optional

import pytest
from batches import by_id, forget_refusals, ids, sent, texts
from support import stages

from copilot_sync import Client, CopilotError, NetworkError, ProtocolError, Timeout, batch
from copilot_sync.batch.results import Result
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.pacing import triage
from copilot_sync.pacing.limiter import RateLimiter

pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


def test_an_outage_holds_a_batch_up(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No prompt fails because of it: all wait, and go on when the service is there again."""
    rate_limiter = RateLimiter(4)
    waits: List[Optional[float]] = []
    refused = rate_limiter.penalize

    def note(seconds: Optional[float] = None) -> float:
        waits.append(seconds)
        if len(waits) == 3:
            emulator.start()
        refused(0.01)
        return 0.01

    monkeypatch.setattr(rate_limiter, "penalize", note)
    emulator.close()
    with Client(retry=None) as client:
        assert sorted(texts(batch.run(["one", "two"], client=client, rate_limiter=rate_limiter)).values()) == [
            "one",
            "two",
        ]
    assert len(waits) >= 3


@pytest.mark.parametrize("stage", ["token", "thread", "message"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(503, retry_after=0),
        Fault.status(500),
        Fault.status(502),
        Fault.drop(processed=False),
        Fault.status(429),
    ],
    ids=["503 at once", "500", "502", "no reply", "429"],
)
def test_an_outage_of_any_endpoint_is_nobodys_failure(
    emulator: Emulator, output: Path, stage: str, fault: Fault
) -> None:
    """It is tried by one, a few times, in the conversation it has; then the batch ends, and the next run goes on."""
    emulator.choose_fault = lambda asked, request: fault if asked == stage else None
    prompts = [str(number) for number in range(100)]
    seen: List[Result] = []
    with Client(retry=None) as client, pytest.raises(CopilotError):
        seen.extend(batch.run(prompts, client=client, workers=4, output=output))
    assert seen == []
    assert ids(output) == []
    # Four began at once; after that one at a time.
    assert stages(emulator).count(stage) <= 4 + 8
    assert len(emulator.threads) <= 4 + 8
    emulator.choose_fault = None
    forget_refusals()
    assert len(list(batch.run(prompts, output=output))) == 100
    assert sorted(sent(emulator).count(prompt) for prompt in prompts)[0] >= 1
    assert sum(len(thread.user_messages) for thread in emulator.threads.values()) == 100


def test_a_page_in_place_of_a_conversation_is_nobodys_failure(emulator: Emulator) -> None:
    """Somebody in between answers: a captive portal, a notice of maintenance. Nothing of a prompt was sent."""
    emulator.choose_fault = lambda asked, request: Fault.garbage() if asked == "thread" else None
    with Client() as client, pytest.raises(ProtocolError):
        list(batch.run([str(number) for number in range(100)], client=client, workers=4))
    assert stages(emulator).count("thread") <= 4 + 8


def test_one_tries_while_the_others_wait(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one comes when it is known what came of that."""
    # Pauses are so short here that each failure has one of its own.
    monkeypatch.setattr(triage, "MAX_FAILURES_IN_ROW", 100)
    under_way: List[str] = []
    most: List[int] = []
    down = [True]

    def choose(stage: str, request: Any) -> Optional[Fault]:
        if stage != "message" or not down[0]:
            return None
        most.append(len(under_way))
        if len(most) > 8:  # the first ones may still be on their way when the first pause begins
            under_way.append(request.json["content"])
        if len(most) == 12:
            down[0] = False
        try:
            emulator.wait_until(lambda: len(under_way) > 1, timeout=0.03)
        finally:
            if request.json["content"] in under_way:
                under_way.remove(request.json["content"])
        return Fault.status(503, retry_after=0)

    emulator.choose_fault = choose
    results = by_id(batch.run(map(str, range(40)), workers=8, client=functools.partial(Client, retry=None)))
    assert all(result.error is None for result in results.values())
    assert set(most[8:]) == {0}
    assert len(emulator.threads) == 40


def test_a_service_that_is_not_there_ends_a_batch(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some minutes, and without a result for any prompt."""
    rate_limiter = RateLimiter(4)
    monkeypatch.setattr(rate_limiter, "penalize", lambda seconds=None: 0.0)
    emulator.close()
    with Client(retry=None) as client, pytest.raises(NetworkError):
        list(batch.run(["one", "two"], client=client, rate_limiter=rate_limiter))


def test_a_time_limit_is_no_outage(emulator: Emulator) -> None:
    """A prompt whose time was over before its conversation began has failed."""
    emulator.fail("thread", Fault.stall())
    with Client() as client:
        (result,) = batch.run(["one"], client=client, timeout=Timeout(total=0.8))
    assert result.error is not None
    assert (result.error["type"], result.error["stage"]) == ("RequestTimeoutError", "thread")


@pytest.mark.parametrize("stage", ["token", "thread"])
def test_a_server_that_fails_before_the_message_is_an_outage(
    emulator: Emulator, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has nothing to do with the prompt."""
    rate_limiter = RateLimiter(4)
    monkeypatch.setattr(rate_limiter, "penalize", lambda seconds=None: 0.0)
    emulator.fail(stage, Fault.status(500), Fault.status(500))
    with Client(retry=None) as client:
        assert texts(batch.run(["one"], client=client, rate_limiter=rate_limiter)) == {0: "one"}
