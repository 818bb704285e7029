"""A batch from the first prompt to the last: who is asked when, what comes of it, and what is left when it ends."""

import concurrent.futures
import contextlib
import functools
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from support import PATIENCE, Worker, collect_garbage, nothing_left_open, stages, wait_for

import copilot_sync
from copilot_sync import (
    AuthenticationError,
    Client,
    Conversation,
    CopilotError,
    MissingCredentialsError,
    NetworkError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RetryPolicy,
    StreamClosedError,
    Timeout,
    Usage,
    batch,
)
from copilot_sync.batch import runs as runs_module
from copilot_sync.batch import scheduler, sender, work_items, workers
from copilot_sync.batch.journal import Intent, Journal
from copilot_sync.batch.prompts import BadLine, Prompt
from copilot_sync.batch.results import Result
from copilot_sync.delivery import recovery
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.models import MessageHandle
from copilot_sync.pacing import cooldown, triage
from copilot_sync.pacing import limiter as limiter_module
from copilot_sync.pacing.limiter import RateLimiter

AT_ONCE = RetryPolicy(base=0.0, cap=0.0)


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=AT_ONCE) as opened:
        yield opened


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_FIRST_LOOK", 0.001)
    monkeypatch.setattr(recovery, "_LONGEST_LOOK", 0.01)
    monkeypatch.setattr(limiter_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(limiter_module, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(limiter_module, "_SPREAD", 0.0)
    monkeypatch.setattr(cooldown, "_FIRST_GAP", 0.0)


def by_id(results: Iterator[Result]) -> Dict[Any, Result]:
    return {result.id: result for result in results}


def texts(results: Iterator[Result]) -> Dict[Any, str]:
    return {result.id: result.text for result in results}


def sent(emulator: Emulator) -> List[str]:
    """The prompts that came, in order."""
    return [request.json["content"] for request in emulator.requests if request.stage == "message"]


def fail_on(emulator: Emulator, content: str, *faults: Fault) -> None:
    """Let the messages with a certain content fail, one after the other."""
    left = list(faults)

    def choose(stage: str, request: Any) -> Optional[Fault]:
        return left.pop(0) if stage == "message" and left and request.json["content"] == content else None

    emulator.choose_fault = choose


def forget_refusals() -> None:
    """Let clients to come know nothing of what those before were told, as in another process later."""
    cooldown._shared._known.clear()


class Blocked:
    """A reply that waits, and counts who waits with it."""

    def __init__(self, emulator: Emulator, *prompts: str) -> None:
        self.waiting: List[str] = []
        self.most = 0
        self._prompts = prompts
        self._emulator = emulator
        self._go = threading.Event()
        emulator.reply = Reply(self.pieces)

    def pieces(self, prompt: str) -> Iterator[str]:
        if not self._prompts or prompt in self._prompts:
            self.waiting.append(prompt)
            self.most = max(self.most, len(self.waiting))
            self._emulator.changed()
            self._go.wait(PATIENCE)
            self.waiting.remove(prompt)
        yield prompt

    def release(self) -> None:
        self._go.set()


# Results


def test_every_prompt_has_a_result(emulator: Emulator) -> None:
    """With its place for an id, the answer, and all about it; the credentials come from the environment."""
    emulator.reply = Reply(usage={"inputTokens": 3, "outputTokens": 1})
    results = by_id(batch.run(["one", "two", "three"]))
    assert {id: result.text for id, result in results.items()} == {0: "one", 1: "two", 2: "three"}
    result = results[1]
    assert (result.model, result.usage, result.attempts, result.error) == ("gpt-4o", Usage(3, 1), 1, None)
    assert 0 < result.seconds < PATIENCE
    assert emulator.threads[str(result.conversation_id)].user_messages[0]["content"] == "two"
    assert emulator.tokens_issued == 1


def test_prompts_may_be_of_many_kinds(emulator: Emulator) -> None:
    """Values, dictionaries and texts; what names no model or instructions has those of the batch."""
    prompts = [
        Prompt("a", "one", model="o1-mini", system="be nice"),
        {"id": "b", "messages": [{"role": "user", "content": "two"}]},
        "three",
    ]
    results = by_id(batch.run(prompts, model="o1-preview", system="be brief"))
    assert {id: result.model for id, result in results.items()} == {"a": "o1-mini", "b": "o1-preview", 2: "o1-preview"}
    assert set(sent(emulator)) == {
        "System: be nice\nUser: one\nAssistant:",
        "System: be brief\nUser: two\nAssistant:",
        "System: be brief\nUser: three\nAssistant:",
    }


def test_the_package_knows_its_batches() -> None:
    """``copilot_sync.batch`` is there without an import of its own."""
    assert copilot_sync.__getattr__("batch") is batch
    assert sorted(batch.__all__) == batch.__all__
    assert all(hasattr(batch, name) for name in batch.__all__)


def test_what_is_no_prompt_fails_alone(emulator: Emulator) -> None:
    """It has a result that says why, and nothing of it is sent."""
    results = by_id(batch.run(["one", "", {"id": "x"}, BadLine(9, 9, "line 9: why"), {"id": "c", "prompt": "two"}]))
    assert {id for id, result in results.items() if result.error is None} == {0, "c"}
    assert results[1].error == {
        "type": "BadLineError",
        "message": "prompt 1: the prompt is empty",
        "stage": "input",
        "status": None,
    }
    assert (results["x"].complete, results["x"].to_dict()["text"]) == (False, None)
    assert results[9].error is not None
    assert sorted(sent(emulator)) == ["one", "two"]


def test_what_can_not_be_sent_fails_alone(emulator: Emulator) -> None:
    """A conversation that is none shows only when it is used."""
    results = by_id(batch.run([Prompt("a", "one", conversation=".."), Prompt("b", "two")]))
    error = results["a"].error
    assert error is not None
    assert (error["type"], error["stage"], error["status"]) == ("ValueError", "input", None)
    assert results["b"].text == "two"


def test_a_prompt_that_fails_does_not_stop_the_others(emulator: Emulator, client: Client) -> None:
    """Its result has the kind of the error, its stage and its status, and what had come of the answer."""
    fail_on(emulator, "bad", Fault.status(400, message="no such thing"))
    emulator.script(Reply(["half"], error="boom"))
    prompts = [{"id": "torn", "prompt": "torn"}, {"id": "bad", "prompt": "bad"}, {"id": "good", "prompt": "good"}]
    results = by_id(batch.run(prompts, client=client, workers=1))
    torn, bad, good = results["torn"], results["bad"], results["good"]
    assert torn.error is not None
    assert (torn.text, torn.error["type"], torn.error["stage"]) == ("half", "ServerError", "stream")
    assert bad.error is not None
    assert (bad.error["type"], bad.error["stage"], bad.error["status"]) == ("InvalidRequestError", "message", 400)
    assert "no such thing" in bad.error["message"]
    assert bad.conversation_id in emulator.threads
    assert (good.text, good.error) == ("good", None)


def test_an_answer_that_is_not_complete_is_a_failure(emulator: Emulator) -> None:
    """The connection ended in good order, but nobody said that this was all, nor does the thread."""
    emulator.reply = Reply(["half"], complete=False)
    emulator.fail("messages", Fault.status(404))
    (result,) = batch.run(["one"])
    assert result.text == "half"
    assert result.error is not None
    assert (result.error["type"], result.error["stage"]) == ("StreamInterruptedError", "stream")
    assert "did not say that the answer is whole" in result.error["message"]


def test_a_time_limit_is_one_prompts_own(emulator: Emulator, client: Client) -> None:
    """An answer that takes longer than it may fails, and those behind it are asked."""
    blocked = Blocked(emulator, "slow")
    results = by_id(batch.run(["slow", "quick"], client=client, timeout=Timeout(total=0.8), workers=1))
    blocked.release()
    assert results[0].error is not None
    assert results[0].error["type"] == "RequestTimeoutError"
    assert results[1].text == "quick"


def test_attempts_are_counted(emulator: Emulator, client: Client) -> None:
    """Each time that the message was sent, by the client itself or after a pause of the batch."""
    fail_on(emulator, "one", Fault.status(409), Fault.status(429, retry_after=0), Fault.status(502))
    (result,) = batch.run(["one"], client=client)
    assert (result.text, result.attempts) == ("one", 4)
    assert len(emulator.threads) == 1


# Who is asked when


@pytest.mark.parametrize("workers", [1, 3])
def test_so_many_are_under_way_at_once(emulator: Emulator, workers: int) -> None:
    """Never more, and no fewer while there are prompts."""
    blocked = Blocked(emulator)
    results = batch.run([f"{number}" for number in range(9)], workers=workers)
    rest = Worker(lambda: len(list(results)))
    assert emulator.wait_until(lambda: len(blocked.waiting) == workers)
    blocked.release()
    assert rest.result() == 9
    assert blocked.most == workers


def test_nothing_is_sent_before_a_result_is_asked_for(emulator: Emulator) -> None:
    """Making the iterator costs nothing, and neither does dropping it."""
    with nothing_left_open():
        results = batch.run(iter(["one"]), output="/nowhere/out.jsonl")
        assert iter(results) is results
        results.close()
        assert list(results) == []
    assert stages(emulator) == []


def test_prompts_are_taken_as_they_are_needed(emulator: Emulator) -> None:
    """An endless source is no harm."""
    taken = itertools.count()
    with batch.run((f"{next(taken)}" for _ in itertools.count()), workers=2) as results:
        for _ in range(20):
            next(results)
    assert next(taken) <= 26
    assert len(sent(emulator)) <= 26


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="what nobody holds is freed later there")
def test_a_million_prompts_are_not_held(emulator: Emulator) -> None:
    """Neither those that are done nor those to come: only what is under way is there."""
    living: List[Any] = []

    class Counted(str):
        def __init__(self, value: str) -> None:
            living.append(None)

        def __del__(self) -> None:
            living.pop()

    most = 0
    for _ in batch.run(Counted(f"{number}") for number in range(150)):
        most = max(most, len(living))
    collect_garbage()
    assert most <= 40
    assert not living


def test_results_come_as_they_are_done(emulator: Emulator) -> None:
    """One that takes long holds nobody up."""
    blocked = Blocked(emulator, "slow")
    results = batch.run(["slow", *map(str, range(30))], workers=2)
    first = [next(results).text for _ in range(30)]
    assert "slow" not in first
    blocked.release()
    assert [result.text for result in results] == ["slow"]


def test_results_may_come_in_order(emulator: Emulator) -> None:
    """One that takes long holds up those behind it, of which only so many are begun."""
    blocked = Blocked(emulator, "slow")
    results = batch.run(["slow", "", *map(str, range(100))], workers=2, ordered=True)
    rest = Worker(lambda: [result.id for result in results])
    assert emulator.wait_until(lambda: len(sent(emulator)) >= 63, timeout=30)
    blocked.release()
    assert rest.result() == list(range(102))
    assert len(sent(emulator)) == 101


def test_no_more_than_a_window_is_begun_ahead_of_one_that_is_slow(emulator: Emulator) -> None:
    """What is held back lies in memory."""
    blocked = Blocked(emulator, "slow")
    taken: List[int] = []

    def prompts() -> Iterator[str]:
        yield "slow"
        for number in range(100):
            taken.append(number)
            yield str(number)

    results = batch.run(prompts(), workers=2, ordered=True)
    rest = Worker(lambda: sum(1 for _ in results))
    assert emulator.wait_until(lambda: len(sent(emulator)) == 64)
    assert len(taken) == 63
    blocked.release()
    assert rest.result() == 101


def test_a_rate_spreads_the_prompts(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 a minute are one each tenth of a second."""
    times: List[float] = []

    class Noting(RateLimiter):
        def try_acquire(self) -> float:
            wait = super().try_acquire()
            times.extend([time.monotonic()] * (not wait))
            return wait

    monkeypatch.setattr(runs_module, "RateLimiter", Noting)
    assert len(list(batch.run(map(str, range(5)), rate=600))) == len(times) == 5
    assert times[-1] - times[0] > 0.29  # the first turn may have begun before it


def test_prompts_of_a_conversation_follow_each_other(emulator: Emulator, client: Client) -> None:
    """Each answers the answer before it, and other prompts don't wait for them."""
    known = client.ask("before").conversation
    known = Conversation.from_dict(known.to_dict())
    other = client.create_thread()
    prompts = [
        *(Prompt(f"a{number}", f"a{number}", conversation=known) for number in range(4)),
        *(Prompt(f"b{number}", f"b{number}", conversation=other.conversation_id) for number in range(3)),
        Prompt("c", "c"),
    ]
    results = by_id(batch.run(prompts, client=client))
    assert all(result.error is None for result in results.values())
    messages = emulator.threads[known.conversation_id].messages
    assert [message["content"] for message in messages[::2]] == ["before", "a0", "a1", "a2", "a3"]
    assert [message["parentMessageID"] for message in messages[1:]] == [message["id"] for message in messages[:-1]]
    assert [message["content"] for message in emulator.threads[other.conversation_id].user_messages] == [
        "b0",
        "b1",
        "b2",
    ]
    assert len(emulator.threads) == 3


def test_a_conversation_goes_on_behind_a_failure(emulator: Emulator, client: Client) -> None:
    """The next prompt answers what was there before."""
    known = client.ask("before").conversation
    fail_on(emulator, "bad", Fault.status(400))
    prompts = [Prompt(word, word, conversation=known) for word in ("bad", "good")]
    results = by_id(batch.run(prompts, client=client))
    assert results["bad"].error is not None
    assert results["good"].text == "good"


@pytest.mark.parametrize("how", ["list", "file"])
def test_two_prompts_of_one_id_are_refused_before_anything_is_sent(
    emulator: Emulator, tmp_path: Path, how: str
) -> None:
    """A number is the same as its digits; a bad line counts as well."""
    prompts: Any = ["zero", "one", {"id": "1", "prompt": ""}]
    if how == "file":
        path = tmp_path / "in.jsonl"
        path.write_text('{"id": "1", "prompt": "a"}\n{"id": 1}\n')
        prompts = batch.read(str(path))
    with pytest.raises(ValueError, match="two prompts have the id '?1'?: their results could not be told apart"):
        list(batch.run(prompts))
    assert stages(emulator) == []


def test_a_stream_of_prompts_is_checked_as_it_comes(emulator: Emulator) -> None:
    """It can be gone through only once."""
    with nothing_left_open():
        results = batch.run(iter(["zero", "one", {"id": 0, "prompt": "x"}, "three"]), workers=1)
        seen = []
        with pytest.raises(ValueError, match="two prompts have the id 0"):
            for result in results:
                seen.append(result.text)
    assert seen == ["zero"]
    assert "three" not in sent(emulator)


# The end


def test_leaving_early_leaves_nothing(emulator: Emulator) -> None:
    """Answers that are being written are given up, no further prompt is sent, and no thread or connection is left."""
    blocked = Blocked(emulator)
    with nothing_left_open():
        results = batch.run(itertools.chain(["first"], map(str, itertools.count())), workers=4)
        taking = Worker(lambda: next(results))
        assert emulator.wait_until(lambda: len(blocked.waiting) == 4)
        blocked.release()
        taking.result()
        results.close()
        results.close()
    count = len(sent(emulator))
    assert list(results) == []
    assert len(sent(emulator)) == count


def test_closing_gives_up_answers_that_are_being_written(emulator: Emulator) -> None:
    """It does not wait for them."""
    slow = [f"slow {number}" for number in range(3)]
    blocked = Blocked(emulator, *slow)

    def pieces(prompt: str) -> Iterator[str]:
        if prompt == "quick":
            emulator.wait_until(lambda: len(blocked.waiting) == 3)
        yield from blocked.pieces(prompt)

    emulator.reply = Reply(pieces)
    with batch.run(["quick", *slow], workers=4) as results:
        assert next(results).text == "quick"
        assert len(blocked.waiting) == 3
    assert len(blocked.waiting) == 3
    blocked.release()
    assert emulator.wait_until(lambda: not emulator.open_connections)


def test_an_iterator_that_is_dropped_is_closed(emulator: Emulator) -> None:
    """As one is that a ``break`` leaves behind."""
    with nothing_left_open():
        results = batch.run(map(str, itertools.count()), workers=2)
        next(results)
        del results
        collect_garbage()


# Closed from anywhere


class Held:
    """A run whose thread is in the middle of something, and how long it takes to be closed from elsewhere."""

    def __init__(self, results: batch.Run) -> None:
        self.results = results
        self.iterating = Worker(lambda: list(results))

    def close(self) -> None:
        began = time.monotonic()
        self.results.close()
        self.results.close()
        assert time.monotonic() - began < 1
        assert self.iterating.ended_within(1)
        with pytest.raises(StreamClosedError, match="closed by another thread"):
            self.iterating.result()
        with pytest.raises(StopIteration):
            next(self.results)


@pytest.mark.parametrize("stage", ["token", "thread", "message", "answer"])
def test_another_thread_may_close_a_run_at_any_step(emulator: Emulator, output: Path, stage: str) -> None:
    """What is under way ends at once, the files are closed, and no thread is left."""
    blocked = Blocked(emulator)
    if stage != "answer":
        emulator.fail(stage, Fault.stall())
    prompts = ["one", "two", "three"]
    with nothing_left_open():
        held = Held(batch.run(prompts, output=output))
        assert emulator.wait_until(lambda: emulator.stalled or len(blocked.waiting) == 3)
        held.close()
        blocked.release()
        emulator.release()
        emulator.wait_until(lambda: not emulator.open_connections)
    assert len(list(batch.run(prompts, output=output))) == 3


@pytest.mark.parametrize("at_the_end", [False, True], ids=["meanwhile", "at the end"])
def test_a_run_may_be_closed_while_a_conversation_is_deleted(
    emulator: Emulator, output: Path, at_the_end: bool
) -> None:
    """Today it may take minutes; the next run deletes it."""
    emulator.fail("delete", *[Fault.status(500)] * at_the_end, Fault.stall())
    with nothing_left_open():
        client = Client(retry=None)
        held = Held(batch.run(["one"], client=client, delete_threads=True, output=output))
        assert emulator.wait_until(lambda: emulator.stalled)
        held.close()
        emulator.release()
        client.close()
        emulator.wait_until(lambda: not emulator.open_connections)
    assert list(batch.run(["one"], delete_threads=True, output=output)) == []
    assert len(emulator.threads) == 0


def test_a_run_may_be_closed_while_it_waits(emulator: Emulator) -> None:
    """At a gate that others have filled, and in a pause."""
    rate_limiter = RateLimiter(1)
    rate_limiter.penalize(1000)
    held = Held(batch.run(["one"], rate_limiter=rate_limiter))
    held.close()
    assert stages(emulator) == []
    full = RateLimiter(1)
    full.acquire()
    held = Held(batch.run(["one"], rate_limiter=full))
    held.close()
    full.release()
    assert full.try_acquire() == 0


def test_a_run_may_be_closed_while_its_prompts_are_read(emulator: Emulator) -> None:
    """They are taken no further."""
    closed = threading.Event()

    def prompts(*, endless: bool) -> Iterator[str]:
        for number in itertools.count():  # pragma: no branch - it has no end
            if number == 20:
                runs[-1].close() if endless else None
                closed.set()
            yield str(number)

    class Again:
        def __iter__(self) -> Iterator[str]:
            return prompts(endless=True)

    runs = [batch.run(Again())]  # type: ignore[arg-type]
    assert list(runs[-1]) == []
    assert closed.is_set()
    assert stages(emulator) == []
    runs.append(batch.run(prompts(endless=True), workers=30))
    assert list(runs[-1]) == []


def test_a_signals_handler_may_close_the_run_that_it_interrupts(emulator: Emulator) -> None:
    """The loop just ends."""
    blocked = Blocked(emulator)
    with nothing_left_open():
        results = batch.run(["one", "two"])
        before = signal.signal(signal.SIGALRM, lambda *_: results.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            assert list(results) == []
        finally:
            signal.signal(signal.SIGALRM, before)
        blocked.release()
        emulator.wait_until(lambda: not emulator.open_connections)


def test_a_run_may_be_closed_between_two_results(emulator: Emulator) -> None:
    """By its own thread or another one; closing frees everything."""
    for way in (lambda close: close(), lambda close: Worker(close).result()):
        with nothing_left_open():
            results = batch.run(map(str, range(20)), workers=2)
            next(results)
            way(results.close)
            emulator.wait_until(lambda: not emulator.open_connections)
        if results._closed_by == threading.get_ident():
            assert list(results) == []
        else:
            with pytest.raises(StreamClosedError):
                next(results)


def test_a_run_that_has_ended_may_be_closed_by_anybody(emulator: Emulator) -> None:
    """It had its end."""
    results = batch.run(["one"])
    assert len(list(results)) == 1
    Worker(results.close).result()
    assert list(results) == []


def test_a_client_that_is_made_too_late_is_stopped(emulator: Emulator) -> None:
    """Closing may come while a run makes its client."""

    def make() -> Client:
        results.close()
        return Client()

    results = batch.run(["one"], client=make)
    assert list(results) == []
    assert stages(emulator) == []


def test_a_run_over_an_executor_may_be_closed(emulator: Emulator) -> None:
    """What its workers do can't be ended from here, and is not waited for."""
    engine = Waiting()
    held = Held(batch.run(["one", "two"], executor=engine))
    assert emulator.wait_until(lambda: len(engine.futures) >= 2)
    held.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_the_prompts_raise_gets_through(emulator: Emulator, error: Any) -> None:
    """Nothing of it is swallowed, nothing stays behind, and no result is lost that was there before."""
    seen: List[str] = []

    def prompts() -> Iterator[str]:
        yield "one"
        emulator.wait_until(lambda: [thread.assistant_messages for thread in emulator.threads.values()])
        yield "two"
        raise error

    with nothing_left_open(), pytest.raises(error):
        seen.extend(result.text for result in batch.run(prompts(), workers=1))
    assert seen == ["one"]


def test_a_client_is_closed_by_whoever_made_it(emulator: Emulator, client: Client) -> None:
    """One that was given goes on; one that the batch made is closed."""
    made: List[Client] = []

    def make() -> Client:
        made.append(Client())
        return made[0]

    assert texts(batch.run(["one"], client=make)) == {0: "one"}
    assert emulator.wait_until(lambda: not emulator.open_connections)
    assert texts(batch.run(["one"], client=client)) == {0: "one"}
    assert emulator.open_connections > 0


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


# Refusals


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
        Fault.drop(taken=False),
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


def test_workers_that_never_started_leave_in_peace(client: Client) -> None:
    """A run may be closed before it comes to that."""
    with nothing_left_open(), workers.make_workers(client, None, False):
        pass


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
        under_way.append(request.json["content"])
        if len(most) == 12:
            down[0] = False
        try:
            emulator.wait_until(lambda: len(under_way) > 1, timeout=0.03)
        finally:
            under_way.pop()
        return Fault.status(503, retry_after=0)

    emulator.choose_fault = choose
    results = by_id(batch.run(map(str, range(40)), workers=8, client=functools.partial(Client, retry=None)))
    assert all(result.error is None for result in results.values())
    assert set(most[8:]) == {0}
    assert len(emulator.threads) == 40


def test_a_prompt_at_which_the_service_fails_fails_alone(emulator: Emulator, client: Client) -> None:
    """Where others are answered meanwhile; a few times are enough."""
    emulator.choose_fault = lambda stage, request: (
        Fault.status(500) if stage == "message" and request.json["content"] == "bad" else None
    )
    prompts = [*map(str, range(10)), "bad", *map(str, range(10, 40))]
    results = by_id(batch.run(prompts, client=client, workers=4))
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


def test_an_error_event_that_forbids_is_one_prompts_own(emulator: Emulator, client: Client) -> None:
    """Its token was accepted for this very message."""
    emulator.script(Reply(error={"message": "no", "code": "forbidden"}))
    results = by_id(batch.run(["one", "two"], client=client, workers=1))
    assert [results[0].error is None, results[1].text] == [False, "two"]


def test_what_the_account_was_told_elsewhere_is_waited_for(emulator: Emulator, client: Client) -> None:
    """It is no refusal of the prompt that meets it, however often."""
    client.models()
    account = client._access._tokens.cooldown
    account._until, account._told, account.active = time.monotonic() + 0.5, True, True
    impatient = functools.partial(Client, retry=RetryPolicy(max_wait=0.01))
    assert texts(batch.run(["one"], client=impatient)) == {0: "one"}


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


# Gates


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


# Conversations that are deleted


def test_conversations_may_be_deleted(emulator: Emulator, output: Path) -> None:
    """Those that the batch made, failed prompts' included; not those that were there."""
    with Client() as client:
        known = client.create_thread()
        fail_on(emulator, "bad", Fault.status(400))
        prompts = ["one", "bad", Prompt("c", "more", conversation=known.conversation_id)]
        assert len(list(batch.run(prompts, client=client, delete_threads=True))) == 3
        assert list(emulator.threads) == [known.conversation_id]
        prompts[1] = "two"
        assert len(list(batch.run(prompts, client=client, delete_threads=True, output=output))) == 3
    assert list(emulator.threads) == [known.conversation_id]
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_a_conversation_in_which_the_answer_may_come_is_kept(emulator: Emulator, output: Path) -> None:
    """Until the prompt is asked again: then the answer is found there, and the conversation deleted."""
    emulator.script(Reply(["half"], complete=False))
    emulator.fail("messages", Fault.status(503))
    (result,) = batch.run(["one"], delete_threads=True, output=output)
    assert result.error is not None
    assert list(emulator.threads) == [result.conversation_id]
    (result,) = batch.run(["one"], delete_threads=True, output=output, retry_failed=True)
    assert (result.text, result.attempts, result.error) == ("half", 0, None)
    assert (len(sent(emulator)), len(emulator.threads)) == (1, 0)
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_what_could_not_be_deleted_is_told_and_tried_again(
    emulator: Emulator, client: Client, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once more at the end, and by the next run, as long as there is an output that remembers it."""
    emulator.fail("delete", Fault.status(403), Fault.status(403))
    with caplog.at_level(logging.WARNING):
        assert texts(batch.run(["one"], client=client, delete_threads=True, output=output)) == {0: "one"}
    assert "a conversation of the batch was not deleted" in caplog.text
    assert len(emulator.threads) == 1
    assert list(batch.run(["one"], client=client, delete_threads=True, output=output)) == []
    assert len(emulator.threads) == 0
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_a_conversation_that_is_gone_is_deleted(emulator: Emulator, client: Client, output: Path) -> None:
    """Whoever did it."""
    emulator.fail("delete", Fault.status(404))
    assert texts(batch.run(["one"], client=client, delete_threads=True, output=output)) == {0: "one"}
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


# Outputs


def ids(output: Path) -> List[Any]:
    return [json.loads(line)["id"] for line in output.read_text().splitlines()]


def test_results_are_in_the_output_when_they_are_handed_out(emulator: Emulator, output: Path) -> None:
    """And the next run goes on behind them."""
    results = batch.run(map(str, range(20)), output=output, workers=2)
    seen = [next(results).id for _ in range(5)]
    assert set(seen) <= set(ids(output))
    results.close()
    done = ids(output)
    rest = batch.run([str(number) for number in range(20)], output=str(output))
    assert rest.total is None
    others = [result.id for result in rest]
    assert (rest.total, rest.skipped, rest.skipped_failures) == (20, len(done), 0)  # type: ignore[comparison-overlap]
    assert sorted(done + others) == sorted(ids(output)) == list(range(20))
    assert len(set(sent(emulator))) == len(sent(emulator)) == 20
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_failed_prompts_are_asked_again_when_it_is_said_so(emulator: Emulator, output: Path) -> None:
    """Else they count as done; each has one result, whichever way."""
    fail_on(emulator, "one", Fault.status(400), Fault.status(400))
    prompts = ["zero", "one", ""]
    assert len(list(batch.run(prompts, output=output))) == 3
    again = batch.run(prompts, output=output)
    assert list(again) == []
    assert (again.skipped, again.skipped_failures) == (3, 2)
    failed = by_id(batch.run(prompts, output=output, retry_failed=True))
    assert sorted(failed) == [1, 2]
    assert sorted(ids(output)) == [0, 1, 2]
    assert texts(batch.run(["zero", "one", "two"], output=output, retry_failed=True)) == {1: "one", 2: "two"}
    assert sorted(ids(output)) == [0, 1, 2]
    assert sent(emulator).count("zero") == 1
    assert not output.with_name("out.jsonl.journal").exists()


def test_an_ordered_output_stays_in_order(emulator: Emulator, output: Path) -> None:
    """Also where failed prompts are asked again, and where an earlier run was not ordered."""
    fail_on(emulator, "1", Fault.status(400))
    prompts = [str(number) for number in range(6)]
    assert [result.id for result in batch.run(prompts, output=output, ordered=True)] == list(range(6))
    assert [result.id for result in batch.run(prompts, output=output, ordered=True, retry_failed=True)] == [1]
    assert ids(output) == list(range(6))
    assert list(batch.run(reversed(prompts), output=output, ordered=True)) == []


def test_an_ordered_run_that_stops_writes_nothing_out_of_order(
    emulator: Emulator, client: Client, output: Path
) -> None:
    """What it had is found again in the conversations."""
    prompts = ["0", "stop", *map(str, range(2, 8))]
    fail_on(emulator, "stop", Fault.status(402))
    with pytest.raises(QuotaExceededError):
        list(batch.run(prompts, client=client, output=output, ordered=True, workers=8))
    assert ids(output) in ([], [0])
    assert len(list(batch.run(prompts, client=client, output=output, ordered=True))) >= 7
    assert ids(output) == list(range(8))
    assert sent(emulator).count("stop") == 2
    assert {sent(emulator).count(prompt) for prompt in prompts if prompt != "stop"} == {1}


def test_two_batches_on_one_output_refuse_each_other(emulator: Emulator, output: Path) -> None:
    """When the second one begins; the first one goes on."""
    with batch.run(map(str, range(9)), output=output) as results:
        next(results)
        with pytest.raises(batch.JournalError, match="another batch is writing"):
            next(batch.run(["x"], output=output))
        assert len(list(results)) == 8


def test_a_full_disk_ends_a_batch_that_goes_on_later(
    emulator: Emulator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that were had and not written are found again in their conversations."""
    results = batch.run([str(number) for number in range(20)], output=output, workers=2)
    next(results)
    real = os.write

    def full(file: int, data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", full)
    with nothing_left_open(), pytest.raises(batch.JournalError, match="No space left on device; make room"):
        list(results)
    monkeypatch.setattr(os, "write", real)
    list(batch.run([str(number) for number in range(20)], output=output))
    assert sorted(ids(output)) == list(range(20))
    assert len(set(sent(emulator))) == len(sent(emulator)) == 20


def test_nothing_secret_is_written(emulator: Emulator, output: Path) -> None:
    """Neither the cookies nor a token, also where the service repeats them."""
    cookie = emulator.cookies["user_session"]

    def choose(stage: str, request: Any) -> Optional[Fault]:
        return Fault.status(400, message=f"no: {request.bearer}") if stage == "message" else None

    emulator.choose_fault = choose
    list(batch.run(["one", "two"], output=output))
    written = output.read_text() + output.with_name("out.jsonl.journal").read_text()
    assert written.count("no: ***") == 2
    assert "emulated-" not in written
    assert cookie not in written


# What a killed run leaves


class Left:
    """What a run that was killed has left: an intent for one prompt, and perhaps its message."""

    def __init__(self, output: Path, client: Client) -> None:
        self._output = output
        self._client = client
        self.handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), "root")

    def intend(self, prompt: str = "one", model: str = "") -> "Left":
        item = work_items.WorkItem(0, Prompt(0, prompt), sender.Task(prompt, model or None))
        with Journal(str(self._output)) as journal:
            journal.record_intents([Intent(0, self.handle, item.digest(), created_thread=True)])
        return self

    def send(self) -> "Left":
        with self._client.stream("one", handle=self.handle) as stream:
            with contextlib.suppress(CopilotError):
                next(stream)
        return self


@pytest.fixture
def left(output: Path, client: Client) -> Left:
    return Left(output, client)


def test_an_answer_of_a_killed_run_is_not_asked_for_again(emulator: Emulator, output: Path, left: Left) -> None:
    """It is where the journal says."""
    left.intend().send()
    (result,) = batch.run(["one"], output=output)
    assert (result.text, result.attempts, result.conversation_id) == ("one", 0, left.handle.conversation_id)
    assert len(sent(emulator)) == 1


def test_a_message_that_a_killed_run_did_not_send_is_sent(emulator: Emulator, output: Path, left: Left) -> None:
    """Into the conversation that was begun for it."""
    left.intend()
    (result,) = batch.run(["one"], output=output)
    assert (result.text, result.attempts, result.conversation_id) == ("one", 1, left.handle.conversation_id)
    assert len(emulator.threads) == 1


def test_a_message_of_a_killed_run_is_given_time_to_arrive(
    emulator: Emulator, output: Path, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still be on its way when the next run begins: what is not there at first is looked for again."""
    monkeypatch.setattr(recovery, "RECOVERY_DELAY", 1.0)
    left.intend()

    def arrive() -> None:
        assert emulator.wait_until(lambda: "messages" in stages(emulator))
        left.send()

    arriving = Worker(arrive)
    (result,) = batch.run(["one"], output=output)
    arriving.result()
    assert (result.text, result.attempts, len(sent(emulator))) == ("one", 0, 1)


@pytest.mark.parametrize(("prompt", "model"), [("another", ""), ("one", "o1-mini")])
def test_a_prompt_that_was_changed_is_asked(
    emulator: Emulator, output: Path, left: Left, prompt: str, model: str
) -> None:
    """What had been sent under its id was something else."""
    left.intend().send()
    (result,) = batch.run([prompt], output=output, model=model or None)
    assert (result.text, result.attempts) == (prompt, 1)


def test_an_answer_that_a_killed_run_lost_is_a_failure(
    emulator: Emulator, output: Path, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service may have given it up; only when that is said, the prompt is asked in another conversation."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.5)
    emulator.options.finish_when_disconnected = False
    emulator.script(Reply(["one ", "two"], pace=0.05))
    left.intend().send()
    assert emulator.wait_until(lambda: not emulator.idle_connections or emulator.disconnects)
    (result,) = batch.run(["one"], output=output)
    assert result.error is not None
    assert result.error["type"] == "StreamInterruptedError"
    assert "was taken, but its answer did not appear" in result.error["message"]
    assert len(sent(emulator)) == 1
    (result,) = batch.run(["one"], output=output, retry_failed=True, delete_threads=True)
    assert (result.text, result.error) == ("one", None)
    assert len(sent(emulator)) == 2
    assert len(emulator.threads) == 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault.status(403), AuthenticationError), (Fault.status(429, retry_after=4000), RateLimitError)],
)
def test_what_keeps_everybody_from_looking_ends_a_batch(
    emulator: Emulator, client: Client, output: Path, left: Left, fault: Fault, kind: Any
) -> None:
    """The prompt has no result, and the next run looks again."""
    left.intend().send()
    emulator.fail("messages", fault)
    with pytest.raises(kind):
        list(batch.run(["one"], client=client, output=output))
    assert ids(output) == []
    (result,) = batch.run(["one"], output=output)
    assert (result.attempts, len(sent(emulator))) == (0, 1)


def test_an_outage_while_looking_is_waited_out(
    emulator: Emulator, output: Path, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then it looks again, instead of sending."""
    left.intend().send()
    emulator.fail("messages", Fault.drop(), Fault.drop())
    rate_limiter = RateLimiter(4)
    monkeypatch.setattr(rate_limiter, "penalize", lambda seconds=None: 0.0)
    with Client(retry=None) as client:
        (result,) = batch.run(["one"], client=client, output=output, rate_limiter=rate_limiter)
    assert (result.text, result.attempts, len(sent(emulator))) == ("one", 0, 1)


def test_a_look_that_fails_for_one_conversation_alone_is_a_failure(
    emulator: Emulator, client: Client, output: Path, left: Left
) -> None:
    """Somebody may have deleted it; asked again, the prompt begins another one."""
    left.intend()
    emulator.threads.clear()
    (result,) = batch.run(["one"], client=client, output=output)
    assert result.error is not None
    assert "unknown whether the message was taken" in result.error["message"]
    (result,) = batch.run(["one"], client=client, output=output, retry_failed=True)
    assert (result.text, result.attempts) == ("one", 1)


# Executors


def make_client() -> Client:
    return Client(retry=AT_ONCE)


@pytest.fixture
def _fresh_askers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dict[bytes, sender.Worker]]:
    """The clients of this process as a worker, which are closed at the end."""
    askers: Dict[bytes, sender.Worker] = {}
    monkeypatch.setattr(workers, "_process_workers", askers)
    yield askers
    for worker in askers.values():
        worker._client.close()


@pytest.fixture
def executor() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield pool


Executor = concurrent.futures.Executor


#: How a process can begin; the pools of PyPy's own library know one way.
METHODS = multiprocessing.get_all_start_methods() if sys.implementation.name == "cpython" else ["fork"]


@pytest.mark.parametrize("method", METHODS)
def test_other_processes_may_do_the_asking(emulator: Emulator, output: Path, method: str) -> None:
    """Each finds the credentials by itself, and keeps one client for all of its prompts."""
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        results = by_id(batch.run(map(str, range(12)), executor=pool, workers=4, output=output, delete_threads=True))
    assert {id: result.text for id, result in results.items()} == {number: str(number) for number in range(12)}
    assert all(result.error is None for result in results.values())
    assert emulator.tokens_issued <= 2
    assert len(emulator.threads) == 0
    assert sorted(ids(output)) == list(range(12))


@pytest.mark.usefixtures("_fresh_askers")
def test_a_way_to_get_a_client_travels(emulator: Emulator, executor: Executor) -> None:
    """A function of a module, or a partial of one: what it does happens where the asking is done."""
    for way in (make_client, functools.partial(Client, retry=None)):
        assert texts(batch.run(["one"], client=way, executor=executor)) == {0: "one"}
    assert len(workers._process_workers) == 2
    assert texts(batch.run(["two"], client=make_client, executor=executor)) == {0: "two"}
    assert len(workers._process_workers) == 2
    assert emulator.tokens_issued == 2


@pytest.mark.usefixtures("_fresh_askers")
def test_credentials_travel_only_when_that_is_said(emulator: Emulator, client: Client, executor: Executor) -> None:
    """A client that was made here has them in it."""
    with pytest.raises(ValueError, match="would carry its credentials"):
        batch.run(["one"], client=client, executor=executor)
    assert texts(batch.run(["one"], client=client, executor=executor, share_credentials=True)) == {0: "one"}


def test_what_travels_shows_nothing(emulator: Emulator, client: Client) -> None:
    """An engine may log what it was given."""
    source = workers.ClientSource(workers.PickledClient(client))
    secret = emulator.cookies["user_session"]
    assert secret.encode() in source._pickled
    assert secret not in repr(source)
    assert repr(source) == "<ClientSource>"


def test_a_way_that_can_not_travel_is_told_at_once(executor: Executor) -> None:
    """Before anything is read."""
    with pytest.raises(TypeError, match="client must be a function of a module, which can be pickled"):
        batch.run(["one"], client=lambda: Client(), executor=executor)


class Repeating(concurrent.futures.Executor):
    """Does everything twice, as an engine does whose worker died after it had done the work."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "concurrent.futures.Future[Any]":  # type: ignore[override]
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        fn(*args, **kwargs)
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.usefixtures("_fresh_askers")
def test_work_that_is_done_again_asks_once(emulator: Emulator) -> None:
    """Whoever does it looks first whether somebody has done it before."""
    results = by_id(batch.run(["one", "two"], executor=Repeating()))
    assert {id: result.text for id, result in results.items()} == {0: "one", 1: "two"}
    assert sorted(sent(emulator)) == ["one", "two"]


@pytest.mark.usefixtures("_fresh_askers")
def test_refusals_of_other_processes_pause_everybody(emulator: Emulator, executor: Executor) -> None:
    """They come back to the one gate."""
    fail_on(emulator, "3", Fault.status(429, retry_after=0))
    rate_limiter = RateLimiter(8)
    results = by_id(batch.run(map(str, range(8)), client=make_client, executor=executor, rate_limiter=rate_limiter))
    assert all(result.error is None for result in results.values())
    assert rate_limiter.concurrency < 8


def end_process(*arguments: Any) -> None:
    os._exit(1)  # pragma: no cover - nothing of this process is measured


def test_an_engine_that_breaks_ends_a_batch(emulator: Emulator, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error tells why; the next run goes on."""
    monkeypatch.setattr(workers, "work", end_process)
    with concurrent.futures.ProcessPoolExecutor(1) as pool, pytest.raises(concurrent.futures.BrokenExecutor):
        list(batch.run(["one", "two"], executor=pool, output=output))
    assert ids(output) == []


class Waiting(concurrent.futures.Executor):
    """Never begins anything."""

    def __init__(self) -> None:
        self.futures: List[concurrent.futures.Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "concurrent.futures.Future[Any]":  # type: ignore[override]
        self.futures.append(concurrent.futures.Future())
        if len(self.futures) == 1:
            self.futures[0].set_result(sender.StepResult("t"))
        return self.futures[-1]


def test_what_an_engine_has_not_begun_is_cancelled(output: Path) -> None:
    """When the iterator is closed; the engine itself is not ours to close."""
    engine = Waiting()

    def prompts() -> Iterator[str]:
        yield from ["one", "two"]
        yield ""
        yield from ["three"]

    with batch.run(prompts(), executor=engine) as results:
        assert next(results).error is not None
    assert [future.cancelled() for future in engine.futures[1:]] == [True] * (len(engine.futures) - 1)


def test_who_was_stopped_begins_nothing(emulator: Emulator, client: Client) -> None:
    """A worker that was about to ask does not."""
    worker = sender.Worker(client)
    worker.stop()
    step = worker.ask(sender.Task("one"))
    assert isinstance(step.error, StreamClosedError)
    assert isinstance(worker.delete("t").error, StreamClosedError)
    assert stages(emulator) == []


# Arguments


WRONG: List[Tuple[Any, Any, Any, str]] = [
    ("one text", {}, TypeError, "prompts must be a list or what read\\(\\) returns, not str"),
    ({"prompt": "x"}, {}, TypeError, "not dict"),
    (5, {}, TypeError, "not int"),
    (["x"], {"workers": 0}, ValueError, "workers must be at least 1"),
    (["x"], {"workers": "many"}, TypeError, "workers must be a whole number"),
    (["x"], {"rate": -1}, ValueError, "rate must be"),
    (["x"], {"rate": 5, "rate_limiter": RateLimiter(1)}, ValueError, "a rate_limiter has its own rate"),
    (["x"], {"max_failures": 0}, ValueError, "max_failures must be at least 1"),
    (["x"], {"timeout": -1}, ValueError, "timeout"),
    (["x"], {"timeout": "long"}, TypeError, "timeout"),
    (["x"], {"model": 4}, TypeError, "model must be a string, not int"),
    (["x"], {"system": ["x"]}, TypeError, "system must be a string, not list"),
    (["x"], {"client": "me"}, TypeError, "client must be a Client or a function that makes one, not str"),
    (["x"], {"retry_failed": True}, ValueError, "retry_failed needs the output"),
]


@pytest.mark.parametrize(("prompts", "options", "kind", "words"), WRONG)
def test_wrong_arguments_are_told_before_anything_is_done(prompts: Any, options: Any, kind: Any, words: str) -> None:
    """With what was expected and what came."""
    with pytest.raises(kind, match=words):
        batch.run(prompts, **options)
