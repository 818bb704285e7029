"""A service that limits a batch: pauses, quotas, and rate limiters that batches share."""

import contextlib
import functools
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from batches import AT_ONCE, by_id, fail_on, ids, sent, texts
from support import Worker

from copilot_sync import Client, CopilotError, QuotaExceededError, RateLimitError, RetryPolicy, batch
from copilot_sync.batch.prompts import Prompt
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing.limiter import RateLimiter

pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=AT_ONCE) as opened:
        yield opened


def test_a_refusal_pauses_everybody(emulator: Emulator, client: Client) -> None:
    """For as long as the service has named, nothing comes to it from anybody; then it goes on with fewer at once."""
    fail_on(emulator, "7", Fault.status(429, retry_after=1))
    rate_limiter = RateLimiter(8)
    results = by_id(batch.run(map(str, range(40)), client=client, rate_limiter=rate_limiter))
    assert len(results) == 40
    assert all(result.error is None for result in results.values())
    assert (results[7].attempts, results[6].attempts) == (2, 1)
    messages = [request for request in emulator.requests if request.stage == "message"]
    refused = next(request.time for request in messages if request.json["content"] == "7")
    # What was on its way when the refusal was on its way back could not know of it.
    assert [request for request in emulator.requests if 0.4 < request.time - refused < 1.0] == []
    assert 4 <= rate_limiter.concurrency <= 6


def test_what_was_begun_waits_for_the_pause_as_well(emulator: Emulator) -> None:
    """A refusal that another process was told, while a conversation was begun, holds its message back."""
    rate_limiter = RateLimiter(8)
    told: List[float] = []

    def choose(stage: str, request: Any) -> None:
        if stage == "thread":
            rate_limiter.penalize(0.5)
            told.append(time.monotonic())

    emulator.choose_fault = choose
    assert texts(batch.run(["one"], rate_limiter=rate_limiter)) == {0: "one"}
    assert emulator.requests[-1].time - told[0] >= 0.5


def test_a_refusal_of_a_new_conversation_is_one_as_well(emulator: Emulator, client: Client) -> None:
    """Nothing of the prompt is lost."""
    emulator.fail("thread", Fault.status(429, retry_after=0), Fault.status(429, retry_after=0))
    assert texts(batch.run(["one"], client=client)) == {0: "one"}
    assert len(emulator.threads) == 1


def test_a_service_that_keeps_refusing_ends_a_batch(emulator: Emulator, client: Client) -> None:
    """After eight refusals without an answer between, with a pause for everybody after each."""
    emulator.choose_fault = lambda stage, request: Fault.status(429, retry_after=0) if stage == "message" else None
    with pytest.raises(RateLimitError):
        list(batch.run(["one", "two", "three"], client=client, workers=1))
    assert sorted(map(sent(emulator).count, ["one", "two", "three"])) == [0, 4, 4]
    assert len(emulator.threads) == 2


def test_a_prompt_that_is_refused_alone_fails_alone(emulator: Emulator, client: Client) -> None:
    """Where others are answered between its refusals, it has to do with the prompt, such as its model."""
    fail_on(emulator, "bad", *[Fault.status(429, retry_after=0)] * 20)
    results = by_id(batch.run(["bad", *map(str, range(100))], client=client, workers=4))
    assert results[0].error is not None
    assert (results[0].error["type"], results[0].error["status"]) == ("RateLimitError", 429)
    assert results[0].attempts == sent(emulator).count("bad") == 10
    assert sum(result.error is None for result in results.values()) == 100


def test_a_client_without_retries_is_not_made_to_have_any(emulator: Emulator) -> None:
    """But for refusals, which concern everybody."""
    fail_on(emulator, "one", Fault.status(429, retry_after=0), Fault.status(409))
    with Client(retry=None) as client:
        (result,) = batch.run(["one"], client=client)
    assert result.error is not None
    assert (result.error["status"], result.attempts) == (409, 2)


def test_the_clients_own_hook_is_called(emulator: Emulator) -> None:
    """For what the client tries again by itself."""
    told: List[int] = []

    def note(error: CopilotError, seconds: float) -> None:
        told.append(error.status or 0)

    fail_on(emulator, "one", Fault.status(409), Fault.status(429, retry_after=0))
    with Client(retry=RetryPolicy(base=0.0, cap=0.0, on_retry=note)) as client:
        list(batch.run(["one"], client=client))
    assert told == [409]


def test_a_quota_that_is_used_up_ends_a_batch(emulator: Emulator, client: Client, output: Path) -> None:
    """It says until when, and nobody else asks."""
    body = {"error": {"message": "enough", "code": "user_weekly_rate_limited"}}
    emulator.choose_fault = lambda stage, request: (
        Fault.status(429, body=body, retry_after=465000) if stage == "message" else None
    )
    with pytest.raises(QuotaExceededError, match=r"used up, not before \d{4}-\d\d-\d\d \d\d:\d\d UTC") as caught:
        list(batch.run(map(str, range(100)), client=client, workers=1, output=output))
    assert caught.value.retry_after == 465000
    assert (ids(output), len(sent(emulator))) == ([], 1)
    with pytest.raises(QuotaExceededError, match="not before"):
        list(batch.run(["one"], output=output.with_name("other.jsonl")))
    assert len(sent(emulator)) == 1


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_a_limit_that_an_answer_speaks_of_is_no_message_twice(emulator: Emulator, client: Client, known: bool) -> None:
    """The message is in its conversation: it goes into another one, or fails where it has to be that one."""
    conversation = client.create_thread() if known else None
    emulator.script(Reply(error={"message": "slow", "code": "rate_limited"}))
    (result,) = batch.run([Prompt("a", "one", conversation=conversation)], client=client)
    assert (result.error is None) is not known
    for thread in emulator.threads.values():
        assert len(thread.user_messages) <= 1


def test_what_the_account_was_told_elsewhere_is_waited_for(emulator: Emulator, client: Client) -> None:
    """It is no refusal of the prompt that meets it, however often."""
    client.models()
    account = client._session._tokens.cooldown
    account._until, account._told, account.active = time.monotonic() + 0.5, True, True
    impatient = functools.partial(Client, retry=RetryPolicy(max_wait=0.01))
    assert texts(batch.run(["one"], client=impatient)) == {0: "one"}


def test_batches_may_share_a_gate(emulator: Emulator) -> None:
    """One waits while the other has all the places, and notices when there is one."""
    rate_limiter = RateLimiter(1)
    rate_limiter.acquire()
    results = batch.run(["one"], rate_limiter=rate_limiter)
    run = Worker(lambda: texts(results))
    with batch.run(["two"]) as other:
        assert next(other).text == "two"
    assert sent(emulator) == ["two"]
    rate_limiter.release()
    assert run.result() == {0: "one"}
    assert rate_limiter.try_acquire() == 0


@pytest.mark.parametrize("how", ["closed", "failed", "refused"])
def test_a_batch_gives_its_places_back(emulator: Emulator, client: Client, how: str) -> None:
    """However it ends."""
    rate_limiter = RateLimiter(3)
    if how == "closed":
        with batch.run(map(str, range(9)), client=client, rate_limiter=rate_limiter) as results:
            next(results)
    else:
        fault = Fault.status(400) if how == "failed" else Fault.status(402)
        emulator.choose_fault = lambda stage, request: fault if stage == "message" else None
        with contextlib.suppress(CopilotError):
            list(batch.run(map(str, range(9)), client=client, rate_limiter=rate_limiter))
    assert [rate_limiter.try_acquire() for _ in range(3)] == [0, 0, 0]


def test_a_refused_prompt_leaves_no_empty_conversation(emulator: Emulator, client: Client) -> None:
    """The conversation that the batch created for it is deleted. One of the caller's stays, and so does one that may
    hold the message."""
    mine = client.create_thread().conversation_id
    emulator.fail("message", Fault.status(422), Fault.status(422), Fault.status(424))
    prompts = [Prompt("a", "one"), Prompt("b", "two", conversation=mine), Prompt("c", "three"), Prompt("d", "four")]
    results = by_id(batch.run(prompts, client=client, workers=1))
    assert [results[id].error is None for id in "abcd"] == [False, False, False, True]
    assert (results["a"].conversation_id, results["b"].conversation_id) == (None, mine)
    assert set(emulator.threads) == {mine, results["c"].conversation_id, results["d"].conversation_id}


def test_the_conversation_of_a_prompt_that_may_be_there_stays(emulator: Emulator, client: Client) -> None:
    """An earlier attempt may have got through, though the last one was refused."""
    emulator.fail("message", Fault.drop(processed=False), Fault.status(422))
    emulator.fail("messages", *[Fault.status(500)] * AT_ONCE.attempts)
    (result,) = batch.run([Prompt("a", "one")], client=client, workers=1)
    assert result.error is not None
    assert result.error["status"] == 422
    assert list(emulator.threads) == [result.conversation_id]
