"""Celery's tasks that ask for data: what does not fit is asked for again, by whichever worker has the task."""

import json
import uuid
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from copilot_sync import Client, InvalidAnswerError, RetryPolicy, StreamInterruptedError
from copilot_sync.batch import Prompt
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.usage import Usage

pytest.importorskip("jsonschema", reason="jsonschema is not installed")

with warnings.catch_warnings():
    # A library below warns, when it is imported, on each Python that it is going to leave behind.
    warnings.simplefilter("ignore")
    import celery

    from copilot_sync.contrib.celery import fan_out
    from copilot_sync.contrib.celery import tasks as adapter

AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
GOOD, BAD = '{"age": 36}', '{"age": "old"}'


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def app() -> Iterator[Any]:
    """An application whose broker and results are this process's memory; the task belongs to it."""
    before = celery.current_app._get_current_object()
    with celery.Celery("test", broker="memory://", backend="cache+memory://") as made:
        made.conf.copilot_sync_client = lambda: Client(retry=RetryPolicy(base=0.0))
        made.set_current()
        yield made
        task = made.tasks["copilot_sync.ask"]
        if "worker" in vars(task):
            task.worker._client.close()
        before.set_current()


@pytest.fixture
def task(app: Any) -> Any:
    return app.tasks["copilot_sync.ask"]


def run(task: Any, *, id: str = "", **options: Any) -> Dict[str, Any]:
    """Run the task as a worker does, without the worker: what it raises comes out."""
    task.push_request(id=id or str(uuid.uuid4()))
    try:
        answer: Dict[str, Any] = task.run("Who?", **{"schema": AGE, **options})
        return answer
    finally:
        task.pop_request()


def contents(emulator: Emulator) -> List[str]:
    """What was sent, by the first words."""
    return [request.json["content"][:21] for request in emulator.requests if request.stage == "message"]


QUESTION, REPAIR = "Who?\n\nAnswer with one", "Your answer does not "


def test_an_answer_that_does_not_fit_is_asked_for_again(emulator: Emulator, task: Any) -> None:
    """In its conversation. The result is plain JSON, with the data and with what all messages cost."""
    usage = {"inputTokens": 3, "outputTokens": 2}
    emulator.script(Reply(BAD, usage=usage), Reply(GOOD, usage=usage))
    answer = run(task)
    assert json.loads(json.dumps(answer)) == answer
    assert (answer["parsed"], answer["text"], answer["attempts"]) == ({"age": 36}, GOOD, 2)
    assert answer["usage"] == {"input_tokens": 6, "output_tokens": 4}
    (thread,) = emulator.threads.values()
    assert answer["message_id"] == thread.messages[-1]["id"]
    assert contents(emulator) == [QUESTION, REPAIR]


def test_no_more_messages_are_sent_than_repairs_and_one(emulator: Emulator, task: Any) -> None:
    """Then the task fails, with what is wrong."""
    emulator.reply = Reply(BAD)
    with pytest.raises(InvalidAnswerError, match="none of 2 answers fits the schema: .*age: 'old' is not"):
        run(task, repairs=1)
    assert contents(emulator) == [QUESTION, REPAIR]


def test_a_repair_that_is_refused_leaves_the_conversation(emulator: Emulator, task: Any) -> None:
    """It holds the question and an answer."""
    emulator.script(BAD)
    emulator.fail("message", None, Fault.status(400))
    with pytest.raises(Exception, match="400"):
        run(task)
    assert len(emulator.threads) == 1


def test_an_answer_that_may_not_be_whole_is_no_data(emulator: Emulator, task: Any) -> None:
    """Even if it would fit."""
    emulator.script(Reply(GOOD, complete=False))
    emulator.fail("messages", *[Fault.status(404)] * 9)
    with pytest.raises(StreamInterruptedError, match="not read as data"):
        run(task)
    assert contents(emulator) == [QUESTION]


@pytest.mark.parametrize(
    "options", [{"schema": {"type": "objekt"}}, {"schema": [1]}, {"schema": {"$ref": "#"}}, {"repairs": -1}]
)
def test_a_schema_that_can_not_be_used_is_told(emulator: Emulator, task: Any, options: Any) -> None:
    """Before anything is sent, by the task and by what sends many."""
    for ask in (lambda: run(task, **options), lambda: fan_out(["Who?"], **options)):
        with pytest.raises((TypeError, ValueError)):
            ask()
    assert emulator.requests == []


def test_repairs_are_counted_over_all_workers(emulator: Emulator, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that dies takes none of the count with it."""
    emulator.reply = Reply(BAD)
    id = str(uuid.uuid4())
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(adapter._Delivery, "_judged", killed_at(2, adapter._Delivery._judged))
        run(task, id=id, repairs=1)
    with pytest.raises(InvalidAnswerError, match="none of 2 answers"):
        run(task, id=id, repairs=1)
    assert contents(emulator) == [QUESTION, REPAIR]


class KilledError(BaseException):
    """The worker dies."""


def killed_at(number: int, function: Any) -> Any:
    """The function, but the worker dies when it is called for that time."""
    calls: List[Any] = []

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            raise KilledError
        return function(*arguments)

    return call


@pytest.mark.parametrize(
    "killed", range(4), ids=["with the answer", "before the repair", "when it is kept", "with its answer"]
)
def test_a_repair_whose_worker_dies_is_not_sent_twice(
    emulator: Emulator, task: Any, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    """The next worker finds what was sent, and goes on from there."""
    emulator.script(BAD, GOOD)
    id = str(uuid.uuid4())
    where, name, number = [
        (adapter._Delivery, "_judged", 1),
        (adapter._Delivery, "note", 2),
        (adapter.Worker, "ask", 2),
        (adapter._Delivery, "_judged", 2),
    ][killed]
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(where, name, killed_at(number, getattr(where, name)))
        run(task, id=id)
    answer = run(task, id=id)
    assert answer["parsed"] == {"age": 36}
    assert contents(emulator) == [QUESTION, REPAIR]
    assert len(emulator.threads) == 1


def test_an_answer_from_the_cache_has_to_fit(emulator: Emulator, app: Any, tmp_path: Path) -> None:
    """The one that fits is kept, and is data again when it is handed out."""
    app.conf.copilot_sync_client = lambda: Client(answer_cache=tmp_path)
    task = app.tasks["copilot_sync.ask"]
    emulator.script(GOOD)
    assert [run(task)["parsed"] for _ in range(2)] == [{"age": 36}] * 2
    assert contents(emulator) == [QUESTION]


def test_many_prompts_have_the_schema_of_the_call_or_their_own(emulator: Emulator, app: Any) -> None:
    """Their results have the data, as those of a batch. A type can't go to a worker, and is a failed result."""
    app.conf.task_always_eager = True
    emulator.script(BAD, GOOD, "[1]")
    prompts = [
        "Who?",
        {"id": "own", "prompt": "What?", "schema": {"type": "array"}},
        Prompt("type", "Why?", schema=int),
    ]
    first, own, refused = fan_out(prompts, schema=AGE)
    assert (first.parsed, first.to_dict()["parsed"], first.attempts) == ({"age": 36}, {"age": 36}, 2)
    assert (own.parsed, own.to_dict()["parsed"]) == ([1], [1])
    assert refused.error is not None and "is no JSON Schema" in refused.error["message"]


def test_a_prompt_for_text_is_sent_as_it_always_was(app: Any) -> None:
    """While a program is updated, a worker of an older release may get it, which knows no schema."""
    fan_out(["Who?", {"id": "own", "prompt": "What?", "schema": {"type": "array"}}], queue="looked-at")
    with app.connection_for_read() as connection, connection.SimpleQueue("looked-at") as queue:
        sent = [queue.get(block=False).payload[1] for _ in range(2)]
    assert sent == [{}, {"schema": {"type": "array"}, "repairs": 2}]


def test_a_prompt_that_no_answer_fits_is_a_failed_result(emulator: Emulator, app: Any) -> None:
    """With the last answer, if the result backend keeps the whole error."""
    app.conf.task_always_eager = True
    emulator.reply = Reply(BAD, usage={"inputTokens": 3, "outputTokens": 2})
    (result,) = fan_out(["Who?"], schema=AGE, repairs=1, model="gpt-4o")
    assert result.error is not None
    assert (result.error["type"], result.text, result.model) == ("InvalidAnswerError", BAD, "gpt-4o")
    assert (result.usage, result.parsed) == (Usage(6, 4), None)
    assert result.conversation_id in emulator.threads
