"""The Celery task and what fans prompts out, on Celery's own broker and result backend in memory.

What needs real workers in real processes stands in ``tests/engines``.
"""

import json
import os
import subprocess
import sys
import time
import uuid
import warnings
from collections import Counter
from typing import Any, Callable, Dict, Iterator, List

import pytest
from support import stages

from copilot_sync import Client, RetryPolicy, errors
from copilot_sync.batch import MemoryCache, Prompt
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.models import Usage

with warnings.catch_warnings():
    # A library below warns, when it is imported, on each Python that it is going to leave behind.
    warnings.simplefilter("ignore")
    import celery

    from copilot_sync.contrib import celery as adapter
    from copilot_sync.contrib.celery import FannedOut, RedisCache, ask, fan_out

AT_ONCE = RetryPolicy(base=0.0)
#: What a task may name: a cache and a client of this module.
CACHE = MemoryCache(clock=time.time)


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An application whose broker and results are this process's memory; the task belongs to it."""
    before = celery.current_app._get_current_object()
    with celery.Celery("test", broker="memory://", backend="cache+memory://") as made:
        made.conf.copilot_sync_client = impatient
        made.set_current()
        yield made
        task = made.tasks["copilot_sync.ask"]
        if "asker" in vars(task):
            task.asker._client.close()
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


# One prompt


def test_a_task_gives_the_whole_answer_as_json(emulator: Emulator, task: Any) -> None:
    """With all that is known of it."""
    emulator.script(Reply(["Hel", "lo"], usage={"inputTokens": 3, "outputTokens": 2}, model="gpt-4o"))
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
        "attempts": 1,
    }
    assert sent(emulator)["model"] == "o1-mini"


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


# Where it is configured


def named_client() -> Client:
    return Client(model="o1-preview")


@pytest.mark.parametrize(
    ("value", "model"),
    [(None, "gpt-4o"), (named_client, "o1-preview"), (f"{__name__}.named_client", "o1-preview")],
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
    assert (task.gate.limit, task.shared) == (2, CACHE)
    assert task.gate.try_enter() == 0
    assert 0 < task.gate.try_enter() <= 1


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


# The gate


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
    assert Counter(stages(emulator)) == {"token": 1, "thread": 1, "message": 10}


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
    app.conf.copilot_sync_places = 2
    emulator.fail("thread", Fault.status(429, retry_after=0.01))
    run(task, "Hello")
    assert task.gate.limit == 1
    for _ in range(4):
        run(task, "Hello")
    assert task.gate.limit == 2


# Taken up by another worker


class KilledError(BaseException):
    """Stands for the end of a worker."""


Die = Callable[..., str]


@pytest.fixture
def die(task: Any, monkeypatch: pytest.MonkeyPatch) -> Die:
    """Run the task up to a point at which its worker dies, and give its id. What was kept stays in the backend."""
    monkeypatch.setattr(adapter, "_SETTLE", 0.0)

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
    answer = run(task, "Hello", id=die(adapter, "details_of", "Hello"))
    assert (answer["text"], answer["attempts"]) == ("Hello", 0)
    assert asked(emulator) == {"Hello": 1}


def test_a_message_that_was_not_sent_is_sent(emulator: Emulator, task: Any, die: Die) -> None:
    """In the conversation that was begun for it."""
    answer = run(task, "Hello", id=die(task.asker, "ask", "Hello"))
    assert answer["attempts"] == 1
    assert asked(emulator) == {"Hello": 1}
    assert len(emulator.threads) == 1


def test_a_message_in_a_known_conversation_is_looked_for_too(emulator: Emulator, task: Any, die: Die) -> None:
    """Behind the message that it answers: the same words stand there before."""
    first = run(task, "Hello")
    known = {name: first[name] for name in ("conversation_id", "message_id")}
    answer = run(task, "Hello", id=die(adapter, "details_of", "Hello", conversation=known), conversation=known)
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


# Many prompts


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


def test_an_answer_that_is_not_vouched_for_is_a_failure(emulator: Emulator, eager: Any) -> None:
    """As in a batch: it may be incomplete. An answer whose cost is unknown is one all the same."""
    emulator.script(Reply("half an", complete=False), Reply("Hello", usage={}))
    emulator.fail("messages", Fault.status(404))
    failed, well = fan_out(["one", "two"])
    assert failed.error is not None
    assert (failed.text, failed.error["type"]) == ("half an", "StreamInterruptedError")
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
