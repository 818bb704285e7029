"""Batches whose answers have to fit a schema: what is asked again, where, how often, and what is written of it."""

import concurrent.futures
import functools
import json
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from batches import AT_ONCE, ids, sent
from support import Worker, stages

from copilot_sync import Client, StreamClosedError, batch
from copilot_sync.batch import Prompt
from copilot_sync.batch.journal import Intent, Journal
from copilot_sync.batch.work_items import PromptDefaults, WorkItem
from copilot_sync.delivery import recovery
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing.limiter import RateLimiter
from copilot_sync.structured import Schema
from copilot_sync.usage import Usage

pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("jsonschema", reason="jsonschema is not installed")
pytestmark = pytest.mark.usefixtures("quick_batches")

AGE: Dict[str, Any] = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
GOOD, BAD, WORSE = '{"age": 36}', '{"age": "old"}', "I do not know"
#: How the message begins that asks for another answer.
AGAIN = "Your answer does not fit the JSON Schema:\n- "


class Person(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    age: int


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=AT_ONCE) as opened:
        yield opened


def replies(emulator: Emulator, *texts: str) -> None:
    emulator.script(*(Reply(text, usage={"inputTokens": 3, "outputTokens": 2}) for text in texts))


def bodies(emulator: Emulator) -> List[Dict[str, Any]]:
    return [request.json for request in emulator.requests if request.stage == "message"]


def lines_of(output: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_answers_come_as_data(emulator: Emulator, output: Path) -> None:
    """As the batch's schema has it, or the prompt's own; a fence around it is none of it."""
    replies(emulator, f"```json\n{GOOD}\n```", "[1]", "3")
    prompts = ["a", {"prompt": "b", "schema": {"type": "array"}}, Prompt(2, "c", schema=int)]
    results = list(batch.run(prompts, schema=AGE, output=output, workers=1))
    assert [result.parsed for result in results] == [{"age": 36}, [1], 3]
    assert results[0].text == f"```json\n{GOOD}\n```"
    assert [line["parsed"] for line in lines_of(output)] == [{"age": 36}, [1], 3]
    assert ['"integer"' in text for text in sent(emulator)] == [True, False, True]
    assert list(batch.run(prompts, schema=AGE, output=output)) == []


def test_the_log_says_that_a_prompt_is_asked_again(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """As it does outside of batches, and without a word of the answer."""
    caplog.set_level("INFO", "copilot_sync")
    replies(emulator, BAD, GOOD)
    (result,) = batch.run(["a"], schema=AGE)
    assert result.parsed == {"age": 36}
    assert caplog.messages == ["message: asking again: answer 1 does not fit the schema"]


def test_a_model_makes_its_values(emulator: Emulator, output: Path) -> None:
    """The line has their JSON. Without a schema there is no data."""
    replies(emulator, GOOD)
    (result,) = batch.run(["a"], schema=Person, output=output)
    assert result.parsed == Person(age=36)
    (line,) = lines_of(output)
    assert line["parsed"] == {"age": 36}
    (result,) = batch.run(["a"])
    assert result.parsed is None
    assert result.to_dict()["parsed"] is None


def test_an_answer_that_does_not_fit_is_asked_for_again(emulator: Emulator, output: Path) -> None:
    """In its conversation, behind it, with what is wrong, and in a turn of the limiter."""
    replies(emulator, WORSE, BAD, GOOD)
    limiter = RateLimiter(1)
    turns: List[float] = []
    limiter.try_acquire = lambda: turns.append(0.0) or RateLimiter.try_acquire(limiter)  # type: ignore[method-assign]
    prompts = [{"prompt": "a", "model": "o1-mini", "files": [["a.txt", "b"]]}]
    (result,) = batch.run(prompts, schema=AGE, output=output, rate_limiter=limiter)
    assert (result.parsed, result.attempts, result.error) == ({"age": 36}, 3, None)
    assert result.usage == Usage(9, 6)
    first, second, third = bodies(emulator)
    assert second["content"].startswith(AGAIN)
    assert "is not of type 'integer'" in third["content"]
    assert (first["parentMessageID"], second["parentMessageID"]) == ("root", first["responseMessageID"])
    assert third["parentMessageID"] == second["responseMessageID"]
    assert [len(body["references"]) for body in (first, second, third)] == [1, 0, 0]
    assert {body["model"] for body in (first, second, third)} == {"o1-mini"}
    assert len(emulator.threads) == 1
    assert result.conversation_id in emulator.threads
    assert len(turns) == 3


@pytest.mark.parametrize("repairs", [0, 1, 2])
def test_nothing_is_asked_more_often_than_it_may_be(emulator: Emulator, output: Path, repairs: int) -> None:
    """Then the prompt has failed, and its last answer is kept. It may be asked again from the start."""
    replies(emulator, *[BAD] * (1 + repairs), GOOD)
    (result,) = batch.run(["a"], schema=AGE, repairs=repairs, output=output)
    assert len(sent(emulator)) == 1 + repairs
    assert result.error is not None
    assert (result.error["type"], result.error["stage"]) == ("InvalidAnswerError", "stream")
    assert "'old' is not of type 'integer'" in result.error["message"]
    assert (result.text, result.parsed, result.model != "") == (BAD, None, True)
    assert result.usage == Usage(3 * (1 + repairs), 2 * (1 + repairs))
    (line,) = lines_of(output)
    assert (line["text"], line["parsed"], line["complete"]) == (BAD, None, False)
    assert line["conversation_id"] in emulator.threads
    (result,) = batch.run(["a"], schema=AGE, repairs=repairs, output=output, retry_failed=True)
    assert (result.parsed, result.attempts) == ({"age": 36}, 1)
    assert len(emulator.threads) == 2


def interrupted(emulator: Emulator, output: Path, **options: Any) -> None:
    """Run a batch of one prompt, and close it while the answer to its first repair is on its way."""

    seen: List[str] = []

    def pieces(prompt: str) -> Iterator[str]:
        seen.append(prompt)
        emulator.notify()
        yield BAD

    emulator.script(Reply(BAD), Reply(pieces, pace=0.2))
    run = batch.run(["a"], schema=AGE, output=output, **options)
    running = Worker(lambda: list(run))
    assert emulator.wait_until(lambda: bool(seen))
    run.close()
    with pytest.raises(StreamClosedError):
        running.result()


@pytest.mark.parametrize("repairs", [1, 2])
def test_a_batch_goes_on_within_a_repair(emulator: Emulator, output: Path, repairs: int) -> None:
    """The answer on its way is found, nothing is sent twice, and no prompt is asked too often over all runs."""
    interrupted(emulator, output, repairs=repairs)
    assert ids(output) == []
    assert len(sent(emulator)) == 2
    replies(emulator, BAD, GOOD)
    (result,) = batch.run(["a"], schema=AGE, output=output, repairs=repairs)
    assert result.error is not None
    assert result.error["message"].startswith(f"none of {1 + repairs} answers fits")
    assert len(sent(emulator)) == len(set(map(str, bodies(emulator)))) == 1 + repairs
    assert (result.attempts, result.usage) == (repairs - 1, None)
    assert len(emulator.threads) == 1


def test_an_answer_of_a_killed_run_is_judged_by_the_next(emulator: Emulator, client: Client, output: Path) -> None:
    """The message that it answers is not sent again; one that asks for another answer is."""
    handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), "root")
    prompt, defaults = Prompt(0, "a"), PromptDefaults(None, None, None, schema=Schema.from_value(AGE))
    task = defaults.task_for(prompt)
    with Journal(str(output)) as journal:
        journal.record_intents([Intent(0, handle, WorkItem(0, prompt, task).digest(), created_thread=True)])
    replies(emulator, BAD, GOOD)
    with client.stream(task.content, handle=handle) as stream:
        stream.read()
    (result,) = batch.run(["a"], schema=AGE, output=output)
    assert (result.parsed, result.attempts) == ({"age": 36}, 1)
    assert [text.startswith(AGAIN) for text in sent(emulator)] == [False, True]
    assert not output.with_name(f"{output.name}.journal").exists()


def test_a_prompt_that_is_asked_again_by_hand_has_all_its_repairs(
    emulator: Emulator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its last run lost an answer in the middle, which is looked for first."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.5)
    emulator.options.finish_when_disconnected = False
    emulator.script(Reply(BAD), Reply([GOOD[:4], GOOD[4:]]), Reply(BAD), Reply(GOOD))
    emulator.fail("message", None, Fault.cut(1))
    (result,) = batch.run(["a"], schema=AGE, repairs=1, output=output)
    assert result.error is not None
    assert result.error["type"] == "StreamInterruptedError"
    (result,) = batch.run(["a"], schema=AGE, repairs=1, output=output, retry_failed=True)
    assert (result.parsed, result.attempts) == ({"age": 36}, 2)
    assert [text.startswith(AGAIN) for text in sent(emulator)] == [False, True, False, True]
    assert len(emulator.threads) == 2


def test_a_repair_that_was_refused_is_sent_again(emulator: Emulator) -> None:
    """As any message is."""
    replies(emulator, BAD, GOOD)
    emulator.fail("message", None, Fault.status(429), None)
    (result,) = batch.run(["a"], schema=AGE, client=Client(retry=None))
    assert (result.parsed, result.attempts) == ({"age": 36}, 3)
    _, second, third = bodies(emulator)
    assert second["content"] == third["content"]


@pytest.mark.parametrize("status", [403, 422])
def test_a_conversation_with_an_answer_is_kept_if_a_repair_is_refused(emulator: Emulator, status: int) -> None:
    """It is not empty, unlike that of a prompt that is refused."""
    replies(emulator, BAD)
    emulator.fail("message", None, Fault.status(status))
    (result,) = batch.run(["a"], schema=AGE)
    assert result.error is not None
    assert result.error["status"] == status
    assert list(emulator.threads) == [result.conversation_id]


def test_a_limit_in_a_repair_begins_the_prompt_anew(emulator: Emulator, output: Path) -> None:
    """In another conversation, because the message is in this one. What was asked so far counts."""
    emulator.script(Reply(BAD), Reply(error={"message": "slow", "code": "rate_limited"}), Reply(BAD), Reply(BAD))
    (result,) = batch.run(["a"], schema=AGE, output=output, client=Client(retry=None))
    assert result.error is not None
    assert result.error["message"].startswith("none of 3 answers fits")
    assert [text.startswith(AGAIN) for text in sent(emulator)] == [False, True, False, True]
    assert len(emulator.threads) == 2


@pytest.mark.parametrize("texts", [(BAD, GOOD), (BAD, BAD)])
def test_the_next_prompt_of_a_conversation_follows_the_last_answer(
    emulator: Emulator, client: Client, texts: List[str]
) -> None:
    """Be it one that fits or not."""
    conversation = client.create_thread().conversation_id
    prompts = [{"prompt": name, "conversation": conversation} for name in "ab"]
    replies(emulator, *texts, GOOD)
    results = list(batch.run(prompts, client=client, schema=AGE, repairs=1))
    assert (results[0].error is None, results[1].parsed) == (texts[1] == GOOD, {"age": 36})
    _, second, third = bodies(emulator)
    assert third["parentMessageID"] == second["responseMessageID"]
    assert "messages" not in stages(emulator)[-2:]


def test_a_validator_that_breaks_fails_its_prompt_alone(emulator: Emulator, tmp_path: Path) -> None:
    """At once, because the model can't mend it. A kept answer is no other case."""

    class Broken(Person):
        @pydantic.field_validator("age")
        @classmethod
        def divide(cls, age: int) -> float:
            return 1 / age

    replies(emulator, '{"age": 0}', '{"age": 2}', '{"age": 0}')
    with Client(retry=AT_ONCE, answer_cache=tmp_path) as client:
        first, second = batch.run(["a", "b"], schema=Broken, client=client, workers=1)
        (again,) = batch.run(["a"], schema=Broken, client=client)
    assert first.error is not None
    assert first.error["type"] == "InvalidAnswerError"
    assert "the validator raised ZeroDivisionError: division by zero" in first.error["message"]
    assert (first.text, second.parsed.age) == ('{"age": 0}', 0.5)
    assert (again.error, again.attempts) == (first.error, 1)
    assert len(sent(emulator)) == 3


def test_a_schema_that_is_none_fails_its_line(emulator: Emulator) -> None:
    """The others are asked. For the whole batch it is wrong usage."""
    replies(emulator, GOOD)
    prompts = [{"prompt": "a", "schema": {"type": "number of things"}}, {"prompt": "b", "schema": "age int"}, "c"]
    results = {result.id: result for result in batch.run(prompts, schema=AGE)}
    assert "prompt 0: schema is no valid JSON Schema: $.type" in results[0].error["message"]  # type: ignore[index]
    assert "prompt 1: schema must be" in results[1].error["message"]  # type: ignore[index]
    assert results[2].parsed == {"age": 36}
    with pytest.raises(ValueError, match="no valid JSON Schema"):
        batch.run([], schema={"type": 5})
    with pytest.raises(TypeError, match="repairs must be"):
        batch.run([], repairs="2")  # type: ignore[arg-type]


def test_a_row_of_a_table_has_no_schema(emulator: Emulator, tmp_path: Path) -> None:
    """A column of that name is as good as any other that is not known."""
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,schema\na,public\n", encoding="utf-8")
    (result,) = batch.run(batch.read(path))
    assert (result.text, result.error) == ("a", None)


def test_without_what_judges_it_nothing_is_asked(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch as a whole says what to install."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ImportError, match=r"copilot-sync\[schema\]"):
        list(batch.run([{"prompt": "a", "schema": {"type": "string", "title": "never seen"}}]))
    assert emulator.requests == []


def with_cache(folder: Path) -> Client:
    return Client(retry=AT_ONCE, answer_cache=folder)


@pytest.fixture(params=["threads", "an executor"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Dict[str, Any]]:
    """Workers of this process, or of an executor, who look into the cache by themselves."""
    make = functools.partial(with_cache, tmp_path)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        yield {"client": make} if request.param == "threads" else {"client": make, "executor": executor}


def test_kept_answers_are_judged(emulator: Emulator, workers: Dict[str, Any]) -> None:
    """One that fits is the answer. One that does not has no conversation to ask in, so the prompt is asked anew."""
    replies(emulator, BAD, GOOD, GOOD, BAD, GOOD)
    for prompt in ("first", "second"):
        (result,) = batch.run([prompt], schema=AGE, **workers)
        assert (result.parsed, result.cached) == ({"age": 36}, False)
    (result,) = batch.run(["second"], schema=AGE, **workers)
    assert (result.parsed, result.cached, result.attempts) == ({"age": 36}, True, 0)
    (result,) = batch.run(["first"], schema=AGE, **workers)
    assert (result.parsed, result.cached, result.attempts) == ({"age": 36}, False, 2)
    assert len(sent(emulator)) == 5


def test_prompts_are_asked_while_others_are_repaired(emulator: Emulator) -> None:
    """A repair waits for its turn, as every message does, and holds up nobody."""
    emulator.script(Reply(BAD), Reply(BAD), Reply(GOOD), Reply(GOOD))
    results = list(batch.run(["a", "b"], schema=AGE, workers=2))
    assert {result.id: result.parsed for result in results} == {0: {"age": 36}, 1: {"age": 36}}
