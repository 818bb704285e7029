"""The Celery task and what fans prompts out, on Celery's own broker and result backend in memory.

What needs real workers in real processes stands in ``tests/engines``.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
import uuid
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List

import pytest
from support import stages

from copilot_sync import Client, RetryPolicy, errors
from copilot_sync.batch import MemoryCache, Prompt
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.models import Answer, Conversation
from copilot_sync.pacing import cooldown, limiter
from copilot_sync.usage import Usage

with warnings.catch_warnings():
    # A library below warns, when it is imported, on each Python that it is going to leave behind.
    warnings.simplefilter("ignore")
    import celery

    from copilot_sync.contrib.celery import FannedOut, RedisCache, ask, fan_out, fanning_out
    from copilot_sync.contrib.celery import tasks as adapter

AT_ONCE = RetryPolicy(base=0.0)
#: What a task may name: a cache and a client of this module.
CACHE = MemoryCache(clock=time.time)


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(limiter, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(limiter, "_SPREAD", 0.0)
    monkeypatch.setattr(cooldown, "_FIRST_GAP", 0.0)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An application whose broker and results are this process's memory; the task belongs to it."""
    before = celery.current_app._get_current_object()
    with celery.Celery("test", broker="memory://", backend="cache+memory://") as made:
        made.conf.copilot_sync_client = impatient
        made.set_current()
        yield made
        task = made.tasks["copilot_sync.ask"]
        if "worker" in vars(task):
            task.worker._client.close()
        before.set_current()


def impatient() -> Client:
    """A client that does not wait between its attempts."""
    return Client(retry=AT_ONCE)


@pytest.fixture
def task(app: Any) -> Any:
    """The task, as a process has it."""
    return app.tasks["copilot_sync.ask"]


def run(task: Any, *arguments: Any, id: str = "", **options: Any) -> Dict[str, Any]:
    """Run the task as a worker does, without the worker: what it raises comes out. Each has its own id by default."""
    task.push_request(id=id or str(uuid.uuid4()))
    try:
        answer: Dict[str, Any] = task.run(*arguments, **options)
        return answer
    finally:
        task.pop_request()


def asked(emulator: Emulator) -> Dict[str, int]:
    """How often each prompt stands in a thread."""
    threads = list(emulator.threads.values())
    return Counter(message["content"] for thread in threads for message in thread.user_messages)


def sent(emulator: Emulator) -> Any:
    """The last message's body."""
    return [request.json for request in emulator.requests if request.stage == "message"][-1]


def test_a_task_gives_the_whole_answer_as_json(emulator: Emulator, task: Any) -> None:
    """With all that is known of it."""
    end = {"references": [{"path": "a.py"}]}
    emulator.script(Reply(["Hel", "lo"], usage={"inputTokens": 3, "outputTokens": 2}, model="gpt-4o", complete=end))
    answer = run(task, "Explain WSGI", model="o1-mini")
    assert json.loads(json.dumps(answer)) == answer
    (thread,) = emulator.threads.values()
    assert answer.pop("seconds") >= 0
    assert answer == {
        "text": "Hello",
        "conversation_id": thread.id,
        "message_id": thread.assistant_messages[0]["id"],
        "model": "gpt-4o",
        "usage": {"input_tokens": 3, "output_tokens": 2},
        "complete": True,
        "references": [{"path": "a.py"}],
        "attempts": 1,
    }
    assert "rename" not in [request.stage for request in emulator.requests]
    assert sent(emulator)["model"] == "o1-mini"


def test_a_client_with_a_cache_answers_without_a_request(emulator: Emulator, app: Any, tmp_path: Path) -> None:
    """And nobody goes on with such an answer."""
    app.conf.copilot_sync_client = lambda: Client(retry=AT_ONCE, answer_cache=tmp_path)
    task = app.tasks["copilot_sync.ask"]
    first, second = run(task, "Hello"), run(task, "Hello")
    assert (first["attempts"], second["attempts"], second["seconds"]) == (1, 0, 0.0)
    assert ("cached" in first, second["cached"], second["text"]) == (False, True, "Hello")
    for known in (second["conversation_id"], {"conversation_id": second["conversation_id"], "message_id": None}):
        with pytest.raises(ValueError, match="has no conversation to go on with"):
            run(task, "And?", conversation=known)
    assert asked(emulator) == {"Hello": 1}


@pytest.mark.parametrize(("status", "left"), [(422, 0), (402, 0), (424, 1)])
def test_a_refused_question_leaves_no_empty_conversation(emulator: Emulator, task: Any, status: int, left: int) -> None:
    """One that was begun for it is deleted, unless the question may be in there. One of the caller's stays."""
    emulator.fail("message", *[Fault.status(status)] * 2)
    with pytest.raises(errors.CopilotError):
        run(task, "Hi")
    assert len(emulator.threads) == left
    with Client() as client:
        mine = client.create_thread().conversation_id
    with contextlib.suppress(errors.CopilotError):
        run(task, "Hi", conversation=mine)
    assert mine in emulator.threads


def test_an_answer_may_have_cost_nothing_that_is_known(emulator: Emulator, task: Any) -> None:
    """Where the service does not say, neither does the task."""
    emulator.script(Reply("Hello", usage={}))
    assert run(task, "Hi")["usage"] is None


@pytest.mark.parametrize("whole", [True, False], ids=["as a dictionary", "as an id"])
def test_a_conversation_goes_on(emulator: Emulator, task: Any, whole: bool) -> None:
    """The ids in a result are what the next question takes; an id alone will do as well."""
    first = run(task, "one")
    known = {name: first[name] for name in ("conversation_id", "message_id")}
    second = run(task, "two", conversation=known if whole else first["conversation_id"])
    assert second["conversation_id"] == first["conversation_id"]
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["one", "two"]
    if whole:
        assert sent(emulator)["parentMessageID"] == first["message_id"]


def test_role_messages_and_instructions_are_taken(emulator: Emulator, task: Any) -> None:
    """As a batch takes them."""
    run(task, [{"role": "user", "content": "Hello"}], system="Be brief")
    assert "Be brief" in sent(emulator)["content"]
    assert "Hello" in sent(emulator)["content"]


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ([""], {}, ValueError),
        ([5], {}, TypeError),
        (["Hello"], {"timeout": "long"}, TypeError),
        (["Hello"], {"conversation": 5}, TypeError),
    ],
    ids=["nothing", "no text", "time-out", "conversation"],
)
def test_a_wrong_argument_is_told(emulator: Emulator, task: Any, arguments: Any, options: Any, error: type) -> None:
    """Before anything is sent."""
    with pytest.raises(error):
        run(task, *arguments, **options)
    assert emulator.requests == []


def test_an_error_of_the_client_is_the_tasks(emulator: Emulator, task: Any) -> None:
    """With all its facts."""
    emulator.fail("message", Fault.status(422))
    with pytest.raises(errors.InvalidRequestError) as caught:
        run(task, "Hello")
    assert (caught.value.stage, caught.value.status) == ("message", 422)


def test_a_task_that_runs_at_once_needs_no_backend(emulator: Emulator, app: Any) -> None:
    """``apply``, as tests of other projects use it."""
    assert ask.apply(("Hello",)).get()["text"] == "Hello"


def test_without_a_result_backend_it_still_asks(emulator: Emulator, app: Any, task: Any) -> None:
    """Only nothing is kept then."""
    app.conf.result_backend = "disabled://"
    assert run(task, "Hello")["text"] == "Hello"


def named_client() -> Client:
    return Client(model="o1-preview")


@pytest.mark.parametrize(
    ("value", "model"),
    [(None, "auto"), (named_client, "o1-preview"), (f"{__name__}.named_client", "o1-preview")],
    ids=["default", "function", "dotted name"],
)
def test_the_configuration_names_the_client(emulator: Emulator, app: Any, task: Any, value: Any, model: str) -> None:
    """Without it, the environment describes it."""
    app.conf.copilot_sync_client = value
    run(task, "Hello")
    assert sent(emulator)["model"] == model


@pytest.mark.parametrize("value", [CACHE, f"{__name__}.CACHE"], ids=["object", "dotted name"])
def test_the_configuration_names_the_cache(app: Any, task: Any, value: Any) -> None:
    """Which all workers see."""
    app.conf.copilot_sync_cache = value
    assert task.shared is CACHE


def test_names_have_a_prefix_in_djangos_settings(app: Any, task: Any) -> None:
    """As all of Celery's have."""

    class Settings:
        CELERY_COPILOT_SYNC_RATE = 60
        CELERY_COPILOT_SYNC_PLACES = 2
        CELERY_COPILOT_SYNC_CACHE = f"{__name__}.CACHE"

    app.config_from_object(Settings(), namespace="CELERY")
    assert (task.rate_limiter.concurrency, task.shared) == (2, CACHE)
    assert task.rate_limiter.try_acquire() == 0
    assert 0.5 < task.rate_limiter.try_acquire() <= 1


class Redis:
    """What of a Redis client is used."""

    def __init__(self) -> None:
        self.kept: Dict[str, bytes] = {}
        self.expirations: List[int] = []

    def get(self, key: str) -> Any:
        return self.kept.get(key)

    def set(self, key: str, value: str, *, ex: int, nx: bool = False) -> Any:
        if nx and key in self.kept:
            return None
        self.kept[key] = value.encode()
        self.expirations.append(ex)
        return True


def test_a_redis_result_backend_is_the_cache(app: Any, task: Any) -> None:
    """Nothing needs to be configured then."""
    redis_backend = type("RedisBackend", (), {"__module__": "celery.backends.redis", "client": Redis()})
    task.backend = redis_backend()
    assert isinstance(task.shared, RedisCache)


def test_a_cache_in_redis_keeps_values_for_their_time() -> None:
    """Values are strings, with ``decode_responses`` and without; a key is added once."""
    redis = Redis()
    cache = RedisCache(redis)
    assert cache.get("a") is None
    cache.set("a", "1", 10)
    assert (cache.get("a"), cache.add("a", "2", 20), cache.add("b", "3", 30)) == ("1", False, True)
    redis.kept["c"] = "text"  # type: ignore[assignment]
    assert cache.get("c") == "text"
    assert redis.expirations == [10, 30]


def test_a_refusal_is_waited_out(emulator: Emulator, task: Any) -> None:
    """The prompt is asked again after the pause that the service wants."""
    emulator.fail("thread", Fault.status(429, retry_after=1))
    assert run(task, "Hello")["text"] == "Hello"
    first, second = (request.time for request in emulator.requests if request.stage == "thread")
    assert second - first >= 0.99


def test_a_prompt_that_is_refused_again_and_again_fails(emulator: Emulator, task: Any) -> None:
    """After ten times."""
    emulator.fail("message", *[Fault.status(429, retry_after=0)] * 20)
    with pytest.raises(errors.RateLimitError):
        run(task, "Hello")
    assert Counter(stages(emulator)) == {"token": 1, "thread": 1, "message": 10, "delete": 1}


def test_a_pause_that_is_too_long_is_not_waited_for(emulator: Emulator, task: Any) -> None:
    """It would hold up a worker, and the broker would think it dead."""
    emulator.fail("thread", Fault.status(429, retry_after=7200))
    for _ in range(2):
        with pytest.raises(errors.RateLimitError) as caught:
            run(task, "Hello")
        assert caught.value.retry_after == pytest.approx(7200, abs=10)
    assert stages(emulator).count("thread") == 1


def test_what_would_meet_all_prompts_is_asked_once(emulator: Emulator, app: Any, task: Any) -> None:
    """Cookies that have expired are no reason to ask for a token a thousand times."""
    emulator.cookies["user_session"] = "another"
    for _ in range(3):
        with pytest.raises(errors.AuthenticationError) as caught:
            run(task, "Hello")
        assert caught.value.stage == "token"
    assert stages(emulator) == ["token"]


def test_answers_open_the_gate_again(emulator: Emulator, app: Any, task: Any) -> None:
    """A refusal leaves half the places, and answers give them back."""
    app.conf.copilot_sync_concurrency = 2
    emulator.fail("thread", Fault.status(429, retry_after=0.01))
    run(task, "Hello")
    assert task.rate_limiter.concurrency == 1
    for _ in range(4):
        run(task, "Hello")
    assert task.rate_limiter.concurrency == 2


class KilledError(BaseException):
    """Stands for the end of a worker."""


Die = Callable[..., str]


@pytest.fixture
def die(task: Any, monkeypatch: pytest.MonkeyPatch) -> Die:
    """Run the task up to a point at which its worker dies, and give its id. What was kept stays in the backend."""

    def end(*arguments: Any) -> None:
        raise KilledError

    def run_until(where: Any, name: str, *arguments: Any, **options: Any) -> str:
        id = str(uuid.uuid4())
        with monkeypatch.context() as context, pytest.raises(KilledError):
            context.setattr(where, name, end)
            run(task, *arguments, id=id, **options)
        return id

    return run_until


def test_a_message_that_was_sent_is_not_sent_again(emulator: Emulator, task: Any, die: Die) -> None:
    """Its answer is found in its conversation."""
    answer = run(task, "Hello", id=die(Answer, "to_dict", "Hello"))
    assert (answer["text"], answer["attempts"]) == ("Hello", 0)
    assert asked(emulator) == {"Hello": 1}


def test_a_message_that_was_not_sent_is_sent(emulator: Emulator, task: Any, die: Die) -> None:
    """In the conversation that was begun for it."""
    answer = run(task, "Hello", id=die(task.worker, "ask", "Hello"))
    assert answer["attempts"] == 1
    assert asked(emulator) == {"Hello": 1}
    assert len(emulator.threads) == 1


def test_a_message_in_a_known_conversation_is_looked_for_too(emulator: Emulator, task: Any, die: Die) -> None:
    """Behind the message that it answers: the same words stand there before."""
    first = run(task, "Hello")
    known = {name: first[name] for name in ("conversation_id", "message_id")}
    answer = run(task, "Hello", id=die(Answer, "to_dict", "Hello", conversation=known), conversation=known)
    assert asked(emulator) == {"Hello": 2}
    assert answer["message_id"] != first["message_id"]


def test_a_result_that_is_there_is_the_result(emulator: Emulator, task: Any) -> None:
    """The worker died after it had stored it, and before it told the broker."""
    id = str(uuid.uuid4())
    task.backend.store_result(id, {"text": "stored"}, "SUCCESS")
    assert run(task, "Hello", id=id) == {"text": "stored"}
    assert emulator.requests == []


def test_a_task_is_given_to_another_worker_when_its_own_dies(task: Any) -> None:
    """The settings that this needs are the task's own, whatever the application's are."""
    assert (task.acks_late, task.reject_on_worker_lost, task.track_started, task.ignore_result) == (
        True,
        True,
        False,
        False,
    )


@pytest.fixture
def eager(app: Any) -> Any:
    """The application, whose tasks run where they are sent."""
    app.conf.task_always_eager = True
    return app


PROMPTS = ["one", {"id": "b", "prompt": "two", "model": "o1-mini"}, {"prompt": ""}, Prompt("d", "four"), "five"]
TEXTS = {0: "one", "b": "two", 2: "", "d": "four", 4: "five"}


def test_prompts_are_asked_and_results_come_back(emulator: Emulator, eager: Any) -> None:
    """Each with its id, in order or as they come; what is no prompt is a failure."""
    eager.conf.task_store_eager_result = True
    out = fan_out(PROMPTS)
    results = list(out)
    again = list(out.as_they_come(timeout=10))
    assert len(out) == len(results) == len(again) == 5
    assert [(result.id, result.text) for result in results] == list(TEXTS.items())
    assert {result.id: result.text for result in again} == TEXTS
    assert [result.error for result in results if result.error] == [
        {"type": "BadLineError", "message": "prompt 2: the prompt is empty", "stage": "input", "status": None}
    ]
    assert out.group.completed_count() == 4


def test_prompts_have_what_they_name_and_else_what_the_call_names(emulator: Emulator, eager: Any) -> None:
    """Models, instructions and conversations."""
    first = ask.delay("one").get()
    prompts = [
        {"id": "own", "prompt": "two", "model": "o1-mini", "system": "Be brief"},
        {"id": "none", "prompt": "three"},
        {"id": "on", "prompt": "four", "conversation": first["conversation_id"]},
    ]
    own, none, on = fan_out(prompts, model="claude-3.5-sonnet", system="Be long", timeout=5)
    bodies = [request.json for request in emulator.requests if request.stage == "message"]
    assert [body["model"] for body in bodies[1:]] == ["o1-mini", "claude-3.5-sonnet", "claude-3.5-sonnet"]
    assert ["Be brief" in bodies[1]["content"], "Be long" in bodies[2]["content"]] == [True, True]
    assert on.conversation_id == first["conversation_id"]
    assert isinstance(own.usage, Usage)
    assert none.seconds >= 0


def test_a_failure_is_a_result(emulator: Emulator, eager: Any) -> None:
    """With what is known of its error; the others go on."""
    emulator.fail("message", Fault.status(422, message="bad"), None)
    failed, well = fan_out(["one", "two"])
    assert failed.error is not None
    assert (failed.error["type"], failed.error["status"], well.text) == ("InvalidRequestError", 422, "two")


def test_what_had_come_of_a_failed_answer_is_in_its_result(emulator: Emulator, eager: Any) -> None:
    """As in a batch, with the conversation in which the rest may be."""
    emulator.script(Reply("half an", error="boom"))
    (failed,) = fan_out(["one"])
    assert (failed.text, failed.to_dict()["complete"], failed.conversation_id) == ("half an", False, None)
    cut = errors.StreamInterruptedError("cut", partial="half", conversation=Conversation("t"))
    result = fanning_out._result_of("a", SimpleNamespace(get=lambda **options: cut), None)
    assert (result.text, result.conversation_id, result.complete) == ("half", "t", False)


def test_an_answer_that_is_not_vouched_for_is_a_failure(emulator: Emulator, eager: Any) -> None:
    """As in a batch: it may be incomplete. An answer whose cost is unknown is one all the same."""
    emulator.script(Reply("half an", complete=False), Reply("Hello", usage={}))
    emulator.fail("messages", Fault.status(404))
    failed, well = fan_out(["one", "two"])
    assert failed.error is not None
    assert (failed.text, failed.error["type"], failed.complete) == ("half an", "StreamInterruptedError", False)
    assert failed.attempts == 1
    assert (well.text, well.usage) == ("Hello", None)


def test_no_secret_is_in_a_task(app: Any, emulator: Emulator) -> None:
    """What the broker and the result backend hold is prompts and answers."""
    emulator.cookies["user_session"] = "planted-cookie"
    fan_out(["one"], queue="looked-at")
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("looked-at").get(block=False)
    assert "one" in str(message.body)
    shown = [str(message.body), str(message.headers), str(message.properties)]
    assert [text for text in shown if "planted" in text or emulator.github_url in text] == []


def test_options_of_tasks_are_handed_on(app: Any) -> None:
    """A queue of one's own, for one."""
    out = fan_out(["one", "two"], queue="elsewhere")
    assert isinstance(out, FannedOut)
    with app.connection_for_read() as connection:
        assert connection.SimpleQueue("elsewhere").qsize() == 2


def test_without_celery_the_module_says_what_to_install() -> None:
    """In one line."""
    program = "import sys; sys.modules['celery'] = None; import copilot_sync.contrib.celery"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'pip install "copilot-sync[celery]"' in done.stderr.splitlines()[-1]


class Delivery:
    """Gives the task to a worker of this process, as a broker does, and has what the task gave back to the broker."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.countdowns: List[float] = []
        self.id = str(uuid.uuid4())
        self.retries = 0

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Run it; where it goes back to the broker, give what it is called with next."""
        self.task.push_request(
            id=self.id,
            args=list(arguments),
            kwargs=options,
            called_directly=False,
            is_eager=False,
            retries=self.retries,
            delivery_info={"exchange": "", "routing_key": "celery"},
        )
        try:
            return self.task.run(*arguments, **options)
        except celery.exceptions.Retry as retry:
            self.task.backend.mark_as_retry(self.id, retry.exc or retry)
            self.countdowns.append(retry.when)
            self.retries += 1
            return self._given_back()
        finally:
            self.task.pop_request()

    def _given_back(self) -> Any:
        with self.task.app.connection_for_read() as connection:
            message = connection.SimpleQueue("celery").get(block=False)
            message.ack()
        args, kwargs, _ = message.payload
        assert (message.headers["id"], message.headers["retries"]) == (self.id, self.retries)
        return args, kwargs


@pytest.fixture
def delivery(task: Any) -> Delivery:
    return Delivery(task)


def sleep_like(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], Any]) -> None:
    """Let the task, and nothing else, sleep in another way."""
    monkeypatch.setattr(adapter, "time", SimpleNamespace(sleep=sleep, time=time.time))


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> List[float]:
    """What the task would have slept."""
    times: List[float] = []
    sleep_like(monkeypatch, times.append)
    return times


def test_a_long_pause_is_waited_for_by_the_broker(emulator: Emulator, delivery: Delivery, slept: List[float]) -> None:
    """The worker is free meanwhile; the conversation and what finds the message go along, so nothing is asked twice."""
    emulator.fail("message", Fault.status(429, retry_after=100))
    args, kwargs = delivery.run("Hello")
    assert slept == []
    assert 99 <= delivery.countdowns[0] <= 121
    assert (args, kwargs["resumed"]["refusals"]) == (["Hello"], 1)
    (thread,) = emulator.threads.values()
    assert kwargs["resumed"]["handle"]["conversation_id"] == thread.id
    delivery.task.rate_limiter._until = 0.0
    delivery.task.shared.set("copilot-sync-limiter-pause", "0", 1)
    delivery.task.worker._client._session._tokens.cooldown._until = 0.0
    answer = delivery.run(*args, **kwargs)
    assert (answer["text"], answer["attempts"]) == ("Hello", 2)
    assert stages(emulator) == ["token", "thread", "message", "messages", "messages", "message"]
    assert asked(emulator) == {"Hello": 1}


def test_a_repair_that_has_to_wait_for_long_goes_back_to_the_broker(
    emulator: Emulator, delivery: Delivery, slept: List[float]
) -> None:
    """With what is needed to go on, so that the question is not asked again."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    emulator.script("Well.", "36")
    emulator.fail("message", None, Fault.status(429, retry_after=100))
    _, kwargs = delivery.run("Age?", schema={"type": "integer"})
    assert kwargs["resumed"]["handle"]["misfits"] == 1
    delivery.task.rate_limiter._until = 0.0
    delivery.task.shared.set("copilot-sync-limiter-pause", "0", 1)
    delivery.task.worker._client._session._tokens.cooldown._until = 0.0
    answer = delivery.run("Age?", **kwargs)
    assert (answer["parsed"], answer["usage"], answer["attempts"]) == (36, None, 3)
    assert [text.split()[0] for text in asked(emulator)] == ["Age?", "Your"]


def test_no_delivery_waits_for_longer_than_a_part_of_what_the_broker_allows(
    emulator: Emulator, app: Any, delivery: Delivery, slept: List[float]
) -> None:
    """A pause of half an hour is many deliveries, each far shorter than the time after which another worker gets it."""
    app.conf.broker_transport_options = {"visibility_timeout": 200}
    emulator.fail("thread", Fault.status(429, retry_after=1700))
    args, kwargs = delivery.run("Hello")
    for _ in range(5):
        args, kwargs = delivery.run(*args, **kwargs)
    assert delivery.countdowns == [50.0] * 6
    assert slept == []
    assert kwargs["resumed"] == {"handle": None, "refusals": 1, "attempts": 0}
    assert stages(emulator) == ["token", "thread"]


def test_short_waits_stay_with_the_worker_until_they_add_up(
    emulator: Emulator, app: Any, delivery: Delivery, slept: List[float]
) -> None:
    """A tenth of what the broker allows."""
    app.conf.broker_transport_options = {"visibility_timeout": 100}
    app.conf.copilot_sync_concurrency = 1
    delivery.task.rate_limiter.acquire()
    delivery.run("Hello")
    assert 9.5 <= sum(slept) <= 10
    assert 5 <= delivery.countdowns[0] <= 6
    assert emulator.requests == []


@pytest.mark.parametrize("options", [{}, None, {"visibility_timeout": 0}, {"visibility_timeout": "long"}])
def test_a_broker_of_which_nothing_is_known_is_taken_for_an_impatient_one(app: Any, task: Any, options: Any) -> None:
    """Half an hour, as RabbitMQ and SQS have it."""
    app.conf.broker_transport_options = options
    assert task.visibility == 1800


def test_a_broker_that_can_not_be_reached_keeps_the_task(
    emulator: Emulator, app: Any, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given out, and not acknowledged."""

    def gone(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("gone")

    emulator.fail("thread", Fault.status(429, retry_after=100))
    monkeypatch.setattr("celery.canvas.Signature.apply_async", gone)
    with pytest.raises(celery.exceptions.Reject) as caught:
        delivery.run("Hello")
    assert caught.value.requeue is True


@pytest.mark.parametrize("seconds", [5.0, 20.0], ids=["short", "long"])
def test_what_another_delivery_did_meanwhile_is_noticed(
    emulator: Emulator, task: Any, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """After a wait, the result is taken from it, or its message looked for."""
    id, other = str(uuid.uuid4()), {"text": "from another"}
    task.rate_limiter.penalize(seconds)

    def sleep(slept: float) -> None:
        task.backend.store_result(id, other, "SUCCESS")
        task.rate_limiter._until = 0.0
        task.shared.set("copilot-sync-limiter-pause", "0", 1)

    sleep_like(monkeypatch, sleep)
    assert run(task, "Hello", id=id) == other
    assert emulator.requests == []
    assert task.rate_limiter.concurrency == task.rate_limiter._limit
    assert task.rate_limiter._inside == 0


def test_a_message_that_another_delivery_sent_meanwhile_is_looked_for(
    emulator: Emulator, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker gave the task out twice, because the first worker seemed dead."""
    id = str(uuid.uuid4())
    first = run(task, "Hello")
    (thread,) = emulator.threads.values()
    handle = {"conversation_id": thread.id, "answer_id": first["message_id"], "parent_id": "root"}
    task.rate_limiter.penalize(5)

    def sleep(slept: float) -> None:
        task.backend.store_result(id, handle, adapter.SENDING)
        task.rate_limiter._until = 0.0
        task.shared.set("copilot-sync-limiter-pause", "0", 1)

    sleep_like(monkeypatch, sleep)
    answer = run(task, "Hello", id=id)
    assert (answer["text"], answer["attempts"]) == ("Hello", 0)
    assert asked(emulator) == {"Hello": 1}


def test_an_outage_is_waited_out(emulator: Emulator, task: Any) -> None:
    """In the conversation that was begun, after a look at it."""
    task.worker._client._options = dataclasses.replace(task.worker._client._options, retry=None)
    emulator.fail("message", Fault.status(502), Fault.status(502))
    answer = run(task, "Hello")
    assert (answer["text"], answer["attempts"]) == ("Hello", 3)
    assert asked(emulator) == {"Hello": 1}
    assert len(emulator.threads) == 1


def test_a_message_that_is_turned_away_is_waited_for(emulator: Emulator, task: Any) -> None:
    """The service says that it is busy, however often: that is not the prompt's failure."""
    task.worker._client._options = dataclasses.replace(task.worker._client._options, retry=None)
    emulator.fail("message", *[Fault.status(503, retry_after=0)] * 5)
    assert run(task, "Hello")["attempts"] == 6


def test_a_prompt_that_the_service_fails_at_fails(emulator: Emulator, task: Any) -> None:
    """After three times: it may be the prompt."""
    task.worker._client._options = dataclasses.replace(task.worker._client._options, retry=None)
    emulator.fail("message", *[Fault.status(500)] * 9)
    with pytest.raises(errors.ServerError):
        run(task, "Hello")
    assert stages(emulator).count("message") == 3


def test_a_forbidden_prompt_fails_alone(emulator: Emulator, task: Any) -> None:
    """The credentials have just worked."""
    run(task, "one")
    emulator.fail("message", Fault.status(403))
    with pytest.raises(errors.PermissionDeniedError):
        run(task, "two")
    assert run(task, "three")["text"] == "three"


def test_a_quota_that_is_used_up_is_told_to_all(emulator: Emulator, task: Any) -> None:
    """With how long it will be."""
    body = {"error": {"code": "user_weekly_rate_limited", "message": "enough for this week"}}
    emulator.fail("message", Fault.status(429, body=body, retry_after=465000))
    for _ in range(3):
        with pytest.raises(errors.QuotaExceededError, match="not before") as caught:
            run(task, "Hello")
        assert caught.value.retry_after == 465000
    assert stages(emulator).count("message") == 1


def test_a_limit_that_an_answer_speaks_of_holds_the_others_back(emulator: Emulator, task: Any) -> None:
    """The message was taken, so it is not sent again."""
    emulator.script(Reply(error={"message": "slow down", "code": "rate_limited"}))
    with pytest.raises(errors.RateLimitError):
        run(task, "Hello")
    assert task.rate_limiter.concurrency == 4
    assert stages(emulator).count("message") == 1


def test_a_cooldown_of_the_account_is_waited_for(
    emulator: Emulator, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody else in this process was told counts, and is no refusal of this prompt."""
    run(task, "one")
    tokens = task.worker._client._session._tokens
    tokens.cooldown._until = time.monotonic() + 1000
    tokens.cooldown.active = True
    slept: List[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        tokens.cooldown._until = 0.0

    sleep_like(monkeypatch, sleep)
    assert run(task, "two")["text"] == "two"
    assert len(slept) == 1
    assert 990 < slept[0] <= 1000


@pytest.mark.parametrize(
    ("url", "settings", "places", "is_paced"),
    [
        ("https://api.individual.githubcopilot.com", {}, 2, True),
        (
            "https://api.individual.githubcopilot.com",
            {"copilot_sync_rate": None, "copilot_sync_concurrency": 3},
            3,
            False,
        ),
        ("http://127.0.0.1:1", {}, 8, False),
        ("http://127.0.0.1:1", {"copilot_sync_rate": 60}, 8, True),
    ],
)
def test_the_defaults_are_careful_against_the_service(
    app: Any, task: Any, url: str, settings: Dict[str, Any], places: int, is_paced: bool
) -> None:
    """Two prompts at once and twenty a minute; against an emulator on this machine more."""
    app.conf.copilot_sync_client = lambda: Client("key", api_url=url)
    app.conf.update(settings)
    assert task.rate_limiter.concurrency == places
    assert task.rate_limiter.try_acquire() == 0
    assert bool(task.rate_limiter.try_acquire()) is is_paced
