"""What goes wrong in a batch: one prompt's own failure, and what ends the batch for all of them."""

import itertools
import json
import pickle
import threading
from pathlib import Path
from typing import Any, Iterator, List, Optional

import pytest
from batches import AT_ONCE, Blocked, by_id, fail_on, forget_refusals, sent, texts
from support import Worker, nothing_left_open, wait_for

import copilot_sync
from copilot_sync import (
    AuthenticationError,
    Client,
    CopilotError,
    MissingCredentialsError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    StreamClosedError,
    WrongHostError,
    batch,
)
from copilot_sync.batch import scheduler
from copilot_sync.batch.results import Result
from copilot_sync.emulator import Emulator, Fault, Reply

pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=AT_ONCE) as opened:
        yield opened


def test_a_client_that_can_not_be_made_is_told(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own error, when the first result is asked for."""
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "ftp://x")
    with nothing_left_open(), pytest.raises(ValueError, match="api_url"):
        next(batch.run(["one"]))


def test_too_many_failures_end_a_batch(emulator: Emulator) -> None:
    """Those that are under way are still handed out, the failures included."""
    emulator.choose_fault = lambda stage, request: Fault.status(400) if stage == "message" else None
    results = batch.run(map(str, itertools.count()), workers=2, max_failures=3)
    seen: List[Result] = []
    with pytest.raises(batch.TooManyFailuresError, match="too many prompts failed; the last one: .*400") as caught:
        seen.extend(results)
    assert len(seen) >= 3 or len(sent(emulator)) <= 5
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), batch.TooManyFailuresError)
    assert len(sent(emulator)) <= 6


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.status(402), QuotaExceededError),
        (Fault.status(421), copilot_sync.WrongHostError),
        (Fault.status(429, retry_after=4000), RateLimitError),
    ],
)
def test_what_would_meet_all_prompts_ends_a_batch(
    emulator: Emulator, client: Client, output: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, kind: Any
) -> None:
    """The prompt that met it has no result, so that it is asked by the next run; those under way are handed out."""
    blocked, ended = Blocked(emulator, "slow"), threading.Event()
    end = scheduler.Scheduler._end

    def choose(stage: str, request: Any) -> Optional[Fault]:
        if stage != "message" or request.json["content"] != "bad":
            return None
        emulator.wait_until(lambda: blocked.waiting)
        return fault

    def note_end(self: scheduler.Scheduler, error: CopilotError) -> None:
        end(self, error)
        ended.set()

    monkeypatch.setattr(scheduler.Scheduler, "_end", note_end)
    emulator.choose_fault = choose
    prompts = ["slow", "bad", "never", "never 2"]
    seen: List[str] = []

    def collect() -> None:
        seen.extend(result.text for result in batch.run(prompts, client=client, workers=2, output=output))

    run = Worker(collect)
    wait_for(ended)
    blocked.release()
    with pytest.raises(kind):
        run.result()
    assert sorted(sent(emulator)) == ["bad", "slow"]
    assert seen == [json.loads(line)["text"] for line in output.read_text().splitlines()] == ["slow"]
    emulator.choose_fault = None
    forget_refusals()
    assert sorted(texts(batch.run(prompts, output=output)).values()) == ["bad", "never", "never 2"]


def test_tokens_that_end_early_do_not_end_a_batch(emulator: Emulator, client: Client) -> None:
    """Two in a row are believed to be no more than that; then the credentials are at fault."""
    emulator.fail("message", Fault.status(401), Fault.status(401))
    assert texts(batch.run(["one"], client=client)) == {0: "one"}
    emulator.fail("message", *[Fault.status(401)] * 4)
    with pytest.raises(AuthenticationError):
        list(batch.run(["one"], client=client))
    assert len(sent(emulator)) == 7


def test_missing_credentials_end_a_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before a thousand prompts have failed for the same reason."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(MissingCredentialsError):
        list(batch.run(["one", "two"]))


def test_a_client_that_is_closed_ends_a_batch(emulator: Emulator, client: Client) -> None:
    """Nobody wants the rest."""
    blocked = Blocked(emulator)
    results = batch.run(map(str, itertools.count()), client=client, workers=2)
    run = Worker(lambda: list(results))
    assert emulator.wait_until(lambda: len(blocked.waiting) == 2)
    client.close()
    blocked.release()
    with pytest.raises(StreamClosedError):
        run.result()


def test_a_prompt_at_which_the_service_fails_fails_alone(emulator: Emulator, client: Client) -> None:
    """Where others are answered meanwhile; a few times are enough."""
    sent_beside, sent_again, answered = threading.Event(), threading.Event(), threading.Event()
    attempts = itertools.count()

    def choose(stage: str, request: Any) -> Optional[Fault]:
        prompt = request.json["content"] if stage == "message" else None
        if prompt == "beside":  # is under way when the bad one fails, and answered before it fails for the last time
            sent_beside.set()
            wait_for(sent_again)
        if prompt != "bad":
            return None
        attempt = next(attempts)
        if attempt == 0:
            wait_for(sent_beside)
        elif attempt == AT_ONCE.attempts:
            sent_again.set()
        elif attempt == 2 * AT_ONCE.attempts:
            wait_for(answered)
        return Fault.status(500)

    emulator.choose_fault = choose
    results = {}
    for result in batch.run([*map(str, range(10)), "bad", "beside", *map(str, range(29))], client=client, workers=4):
        results[result.id] = result
        if result.id == 11:
            answered.set()
    error = results[10].error
    assert error is not None
    assert (error["type"], error["status"]) == ("ServerError", 500)
    assert sum(result.error is None for result in results.values()) == 40
    assert sent(emulator).count("bad") == 3 * AT_ONCE.attempts


def test_the_last_prompt_may_be_the_one_at_which_the_service_fails(emulator: Emulator) -> None:
    """Nobody is left to be answered meanwhile, but the others were."""
    emulator.choose_fault = lambda stage, request: (
        Fault.status(500) if stage == "message" and request.json["content"] == "bad" else None
    )
    with Client(retry=None) as client:
        results = by_id(batch.run(["one", "two", "bad"], client=client, workers=1))
    assert results[2].error is not None
    assert sent(emulator).count("bad") == 8


def test_a_forbidden_prompt_fails_alone(emulator: Emulator, client: Client) -> None:
    """Its model may be one that a policy forbids; the credentials have just worked."""
    fail_on(emulator, "bad", Fault.status(403, message="model forbidden"))
    results = by_id(batch.run(["bad", "one", "two"], client=client, workers=1))
    assert results[0].error is not None
    assert (results[0].error["type"], results[0].error["status"]) == ("PermissionDeniedError", 403)
    assert (results[1].text, results[2].text) == ("one", "two")


def test_prompts_that_are_all_forbidden_end_a_batch(emulator: Emulator, client: Client) -> None:
    """It is the account then."""
    emulator.choose_fault = lambda stage, request: Fault.status(403) if stage == "message" else None
    seen: List[Result] = []
    with pytest.raises(PermissionDeniedError):
        seen.extend(batch.run(map(str, range(100)), client=client, workers=1))
    assert len(sent(emulator)) == 5
    assert [result.error and result.error["status"] for result in seen] == [403] * 5


def test_an_error_event_that_forbids_is_one_prompts_own(emulator: Emulator, client: Client) -> None:
    """Its token was accepted for this very message."""
    emulator.script(Reply(error={"message": "no", "code": "forbidden"}))
    results = by_id(batch.run(["one", "two"], client=client, workers=1))
    assert [results[0].error is None, results[1].text] == [False, "two"]


def test_a_conversation_that_comes_as_a_batch_ends_is_found_by_the_next_run(
    emulator: Emulator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked in then, and deleted: none is left behind, and none is begun twice."""
    ended, end = threading.Event(), scheduler.Scheduler._end
    threads: List[Any] = []

    def note_end(self: scheduler.Scheduler, error: Exception) -> None:
        end(self, error)
        ended.set()

    def choose(stage: str, request: Any) -> Optional[Fault]:
        if stage == "thread":
            threads.append(request)
            if len(threads) == 2:
                wait_for(ended)
        return Fault.status(421) if stage == "message" and not ended.is_set() else None

    monkeypatch.setattr(scheduler.Scheduler, "_end", note_end)
    emulator.choose_fault = choose
    options: Any = {"output": output, "delete_threads": True}
    with pytest.raises(WrongHostError):
        list(batch.run(["one", "two"], workers=2, **options))
    assert len(emulator.threads) == 2
    assert texts(batch.run(["one", "two"], **options)) == {0: "one", 1: "two"}
    assert (len(threads), emulator.threads) == (2, {})
