"""A batch from the first prompt to the last: what it returns, and who is asked when."""

import itertools
import sys
import time
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest
from batches import AT_ONCE, Blocked, by_id, fail_on, sent
from support import PATIENCE, Worker, collect_garbage, nothing_left_open, stages

import copilot_sync
from copilot_sync import Client, Conversation, Timeout, Usage, batch
from copilot_sync.batch import runs as runs_module
from copilot_sync.batch.prompts import BadLine, Prompt
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


def test_every_prompt_has_a_result(emulator: Emulator) -> None:
    """With its place for an id, the answer, and all about it; the credentials come from the environment."""
    emulator.reply = Reply(usage={"inputTokens": 3, "outputTokens": 1})
    results = by_id(batch.run(["one", "two", "three"]))
    assert {id: result.text for id, result in results.items()} == {0: "one", 1: "two", 2: "three"}
    result = results[1]
    assert (result.usage, result.attempts, result.error) == (Usage(3, 1), 1, None)
    assert result.model == emulator.options.auto_model
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
    assert bad.conversation_id is None
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
