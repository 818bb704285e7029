"""Hooks: one event for each step of a call, in order, however the call goes, and nothing of what was said."""

import asyncio
import contextlib
import contextvars
import dataclasses
import gc
import itertools
import os
import pickle
import signal
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import pytest
from driven import BLOCKING, DRIVERS, Driver
from loops import until
from streams import client_of
from support import Server, wait_until

from copilot_sync import (
    AsyncClient,
    BudgetExceededError,
    CallEvent,
    Client,
    Conversation,
    CopilotError,
    InvalidAnswerError,
    RetryPolicy,
    ServerError,
    Stream,
    StreamClosedError,
    batch,
    hooks,
)
from copilot_sync.aio import iterate_stream
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.hooks import CallText, add_global_hook, add_text_hook, remove_global_hook, remove_text_hook
from copilot_sync.pacing.budget import Budget
from copilot_sync.structured import asking

ALL_DRIVERS: Dict[str, Driver] = {"blocking": BLOCKING, **DRIVERS}
PROMPT = "one two three"


def kinds(events: Sequence[CallEvent]) -> List[str]:
    return [event.kind for event in events]


def cut(emulator: Emulator) -> None:
    emulator.fail("message", Fault.cut(2))


def refuse_once(emulator: Emulator) -> None:
    emulator.fail("message", Fault.status(503, retry_after=0))


def lose_the_reply(emulator: Emulator) -> None:
    emulator.fail("message", Fault.drop())


def no_such_model(emulator: Emulator) -> None:
    emulator.fail("message", Fault.status(400, body={"error": {"message": "The requested model is not supported"}}))


def nothing(emulator: Emulator) -> None:
    pass


COURSES: List[Tuple[Callable[[Emulator], None], Dict[str, Any], List[str]]] = [
    (nothing, {}, ["started", "first_piece", "finished"]),
    (nothing, {"buffered": True}, ["started", "first_piece", "finished"]),
    (refuse_once, {}, ["started", "retrying", "first_piece", "finished"]),
    (no_such_model, {"fallback_model": "auto"}, ["started", "retrying", "first_piece", "finished"]),
    (cut, {}, ["started", "first_piece", "resumed", "finished"]),
    (lose_the_reply, {}, ["started", "retrying", "resumed", "first_piece", "finished"]),
]


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("driver", ALL_DRIVERS)
@pytest.mark.parametrize(
    "trouble, options, expected", COURSES, ids=["well", "buffered", "refused", "other model", "cut", "lost"]
)
def test_each_step_is_told_in_order(
    driver: str,
    trouble: Callable[[Emulator], None],
    options: Dict[str, Any],
    expected: List[str],
    emulator: Emulator,
) -> None:
    """Whichever way the answer is read. All events have the same number, and the time goes on."""
    events: List[CallEvent] = []
    trouble(emulator)
    with client_of(emulator, model="gpt-4o", hooks=events.append) as client:
        ALL_DRIVERS[driver](client.stream(PROMPT, **options), [])
    assert kinds(events) == expected
    assert len({event.call_id for event in events}) == 1
    times = [event.seconds for event in events]
    assert times == sorted(times) and times[0] >= 0


def test_an_event_says_what_is_known(emulator: Emulator) -> None:
    """The conversation, the tokens and the model that answered, once they are."""
    events: List[CallEvent] = []
    with client_of(emulator, model="gpt-4o", hooks=[events.append]) as client:
        answer = client.ask(PROMPT)
    started, first, finished = events
    port = int(emulator.api_url.rpartition(":")[2])
    number = started.call_id
    assert started == CallEvent("started", number, started.seconds, None, 0, "gpt-4o", host="127.0.0.1", port=port)
    conversation_id = answer.conversation.conversation_id
    assert (first.stage, first.attempts, first.conversation_id, first.usage) == ("stream", 1, conversation_id, None)
    assert (finished.model, finished.usage, finished.attempts) == (answer.model, answer.usage, 1)
    assert (finished.error_type, finished.status, finished.wait) == (None, None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        finished.kind = "failed"  # type: ignore[misc]


def test_a_retry_says_why_and_how_long(emulator: Emulator) -> None:
    """By the name of the error and the status. A stage has attempts of its own."""
    events: List[CallEvent] = []
    emulator.fail("token", Fault.status(502))
    emulator.fail("message", Fault.status(503, retry_after=0))
    policy = RetryPolicy(base=0.001, cap=0.001)
    client = Client(
        cookies=emulator.cookies,
        github_url=emulator.github_url,
        api_url=emulator.api_url,
        retry=policy,
        hooks=events.append,
    )
    with client:
        client.ask(PROMPT)
    retries = [event for event in events if event.kind == "retrying"]
    said = [(event.stage, event.attempts, event.error_type, event.status) for event in retries]
    assert said == [("token", 1, "ServerError", 502), ("message", 1, "ServerError", 503)]
    assert all(event.wait is not None and 0 <= event.wait <= 0.001 for event in retries)
    assert events[-1].attempts == 2


@pytest.mark.parametrize("driver", ALL_DRIVERS)
def test_a_failure_is_the_last_event(driver: str, emulator: Emulator) -> None:
    """With its stage, its kind and its status."""
    events: List[CallEvent] = []
    emulator.fail("message", Fault.status(500))
    with client_of(emulator, retry=None, hooks=events.append) as client, pytest.raises(ServerError):
        ALL_DRIVERS[driver](client.stream(PROMPT), [])
    assert kinds(events) == ["started", "failed"]
    failed = events[-1]
    assert (failed.stage, failed.attempts, failed.error_type, failed.status) == ("message", 1, "ServerError", 500)


@pytest.mark.parametrize("driver", ALL_DRIVERS)
def test_a_question_for_data_is_one_call(driver: str, emulator: Emulator) -> None:
    """However often it is asked again. Its tokens are those of all its answers."""
    told: List[CallEvent] = []
    emulator.script("no data", "[1]", "no data", "none")
    options = asking({"schema": {"type": "array"}, "repairs": 1})
    with client_of(emulator, hooks=told.append) as client:
        ALL_DRIVERS[driver](client.stream(PROMPT, **options), [])
        with pytest.raises(InvalidAnswerError):
            ALL_DRIVERS[driver](client.stream(PROMPT, **options), [])
    assert kinds(told) == [
        "started",
        "first_piece",
        "retrying",
        "finished",
        *("started", "first_piece", "retrying", "failed"),
    ]
    assert len({event.call_id for event in told}) == 2
    assert told[2].error_type == told[-1].error_type == "InvalidAnswerError"
    finished = told[3].usage
    assert finished is not None and finished.output_tokens == 3


@pytest.mark.parametrize("driver", ALL_DRIVERS)
@pytest.mark.parametrize("status, output", [(None, 7), (400, 3)])
def test_a_question_for_data_that_fails_has_cost_what_all_its_answers_did(
    driver: str, status: Optional[int], output: int, emulator: Emulator
) -> None:
    """As far as the service has counted it when the last message fails."""
    told: List[CallEvent] = []
    emulator.script(*(Reply("no data", usage={"inputTokens": 1, "outputTokens": count}) for count in (3, 4)))
    if status is not None:
        emulator.fail("message", None, Fault.status(status))
    with client_of(emulator, hooks=told.append) as client, pytest.raises(CopilotError):
        ALL_DRIVERS[driver](client.stream(PROMPT, **asking({"schema": {"type": "array"}, "repairs": 1})), [])
    assert [(event.kind, event.usage and event.usage.output_tokens) for event in told] == [
        ("started", None),
        ("first_piece", None),
        ("retrying", 3),
        ("failed", output),
    ]


def test_what_a_guard_refuses_has_failed(emulator: Emulator) -> None:
    """The events hold what is before the first request."""
    events: List[CallEvent] = []
    budget = Budget(per_day={"requests": 1})
    with client_of(emulator, budget=budget, hooks=events.append) as client:
        client.ask(PROMPT)
        with pytest.raises(BudgetExceededError):
            client.ask(PROMPT)
    assert kinds(events[-2:]) == ["started", "failed"]
    assert (events[-1].error_type, events[-1].attempts) == ("BudgetExceededError", 0)
    assert events[-1].call_id > events[0].call_id


def broken_off(client: Client) -> None:
    for _ in client.stream(PROMPT):  # pragma: no branch - it is left
        break


def closed(client: Client) -> None:
    with client.stream(PROMPT) as stream:
        next(stream)


def dropped(client: Client) -> None:
    stream = client.stream(PROMPT)
    next(stream)
    del stream
    gc.collect()


def closed_with_the_client(client: Client) -> None:
    stream = client.stream(PROMPT)
    next(stream)
    client.close()


def closed_by_another_thread(client: Client) -> None:
    stream = client.stream(PROMPT)
    next(stream)
    closer = threading.Thread(target=stream.close)
    closer.start()
    closer.join()
    with pytest.raises(CopilotError):
        next(stream)


@pytest.mark.parametrize("leave", [broken_off, closed, dropped, closed_with_the_client, closed_by_another_thread])
def test_a_call_that_is_left_is_closed_and_has_not_failed(leave: Callable[[Client], None], emulator: Emulator) -> None:
    """However it is left."""
    events: List[CallEvent] = []
    with client_of(emulator, hooks=events.append) as client:
        leave(client)
        wait_until(lambda: len(events) == 3)
    assert kinds(events) == ["started", "first_piece", "closed"]
    assert (events[-1].error_type, events[-1].stage) == (None, "stream")


def test_a_read_that_another_thread_ends_is_closed() -> None:
    """The reader has an error; the call has none."""
    events: List[CallEvent] = []
    with Server(lambda peer: (peer.receive(), peer.wait_closed())) as server:
        with Client("k-1", api_url=server.url, hooks=events.append) as client:
            stream = client.stream(PROMPT, conversation=Conversation("t-1"))
            closer = threading.Thread(target=lambda: (server.asked.wait(), stream.close()))
            closer.start()
            with pytest.raises(CopilotError):
                stream.read()
            closer.join()
    assert kinds(events) == ["started", "closed"]


def test_a_stream_that_nobody_reads_has_no_events(emulator: Emulator) -> None:
    """Nothing has been asked."""
    events: List[CallEvent] = []
    with client_of(emulator, hooks=events.append) as client:
        client.stream(PROMPT).close()
        client.models()
    assert events == []


def test_a_stream_that_was_only_started_is_closed(emulator: Emulator) -> None:
    """It has sent no message."""
    events: List[CallEvent] = []
    with client_of(emulator, hooks=events.append) as client, client.stream(PROMPT) as stream:
        stream.start()
    assert [(event.kind, event.attempts, event.stage) for event in events] == [
        ("started", 0, None),
        ("closed", 0, None),
    ]


def test_an_async_client_tells_the_same(emulator: Emulator, run: Any) -> None:
    """On each kind of loop: an answer, a loop that is left, a task that is cancelled, a failure."""
    events: List[CallEvent] = []

    async def main() -> None:
        options: Any = {"api_url": emulator.api_url, "retry": None, "hooks": events.append}
        async with AsyncClient(emulator.api_key, **options) as client:
            assert (await client.ask(PROMPT)).text == PROMPT
            async with client.stream(PROMPT) as stream:
                async for _ in stream:
                    break
            emulator.fail("message", Fault.status(500))
            with pytest.raises(ServerError):
                await client.ask(PROMPT)
            emulator.fail("message", Fault.stall(("after_events", 2)))
            task = asyncio.ensure_future(client.ask(PROMPT))
            await until(lambda: len(events) == 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())
    calls = [kinds(list(group)) for _, group in itertools.groupby(events, lambda event: event.call_id)]
    assert calls[0] == ["started", "first_piece", "finished"]
    assert calls[1][-1] in ("closed", "finished")  # the loop may have read all of it ahead
    assert calls[2:] == [["started", "failed"], ["started", "first_piece", "closed"]]


@pytest.mark.parametrize("driver", ALL_DRIVERS)
def test_hooks_see_the_context_of_whoever_reads(driver: str, emulator: Emulator) -> None:
    """Also if a thread helps."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    seen: List[str] = []
    emulator.fail("message", Fault.status(503, retry_after=0))
    with client_of(emulator, hooks=lambda event: seen.append(variable.get())) as client:
        variable.set("the reader's")
        ALL_DRIVERS[driver](client.stream(PROMPT), [])
    assert seen == ["the reader's"] * 4


@pytest.mark.parametrize("kind", ["started", "retrying", "first_piece", "finished"])
def test_a_hook_may_use_the_client(kind: str, emulator: Emulator) -> None:
    """No lock is held: neither its own calls wait, nor those of a thread that it waits for."""
    texts: List[str] = []
    calls: List[int] = []

    def ask(event: CallEvent) -> None:
        calls.append(event.call_id)
        if event.kind == kind and event.call_id == calls[0]:
            texts.append(client.ask("in the hook").text)
            other = threading.Thread(target=lambda: texts.append(client.ask("in a thread").text))
            other.start()
            other.join()

    emulator.fail("message", Fault.status(503, retry_after=0))
    with client_of(emulator, hooks=ask) as client:
        assert client.ask(PROMPT).text == PROMPT
    assert texts == ["in the hook", "in a thread"]


def test_a_hook_may_use_the_client_while_a_token_is_fetched(emulator: Emulator) -> None:
    """In its own thread, which has the turn to fetch it."""
    texts: List[str] = []

    def ask(event: CallEvent) -> None:
        if event.kind == "retrying":
            texts.append(client.ask("in the hook").text)

    emulator.fail("token", Fault.status(502))
    options: Any = {"github_url": emulator.github_url, "api_url": emulator.api_url, "retry": RetryPolicy(base=0, cap=0)}
    with Client(cookies=emulator.cookies, hooks=ask, **options) as client:
        assert client.ask(PROMPT).text == PROMPT
    assert texts == ["in the hook"]


def test_a_hook_may_close_the_stream(emulator: Emulator) -> None:
    """It ends like one that was closed in a loop."""
    events: List[CallEvent] = []
    streams: List[Stream] = []

    def close(event: CallEvent) -> None:
        events.append(event)
        if event.kind == "first_piece":
            streams[0].close()

    with client_of(emulator, hooks=close) as client:
        streams.append(client.stream(PROMPT))
        assert list(streams[0]) in ([], ["one"])
    assert kinds(events) == ["started", "first_piece", "closed"]


def test_a_hook_may_close_a_stream_that_a_loop_reads(emulator: Emulator, run: Any) -> None:
    """In the middle of a turn of the loop: what reads is told, and the connection is free."""
    emulator.reply = Reply(["one", "two"], first_delay=0.1)
    opened: List[Stream] = []

    def close(event: CallEvent) -> None:
        if event.kind == "first_piece":
            opened[0].close()

    async def read() -> None:
        async for _ in iterate_stream(opened[0]):
            pass

    with client_of(emulator, hooks=close) as client:
        opened.append(client.stream(PROMPT))
        with pytest.raises(StreamClosedError):
            run(read())
        wait_until(lambda: emulator.idle_connections == emulator.open_connections)


def test_what_a_hook_raises_is_logged_once_and_passed_over(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer comes, and the other hooks are called."""

    class OddError(Exception):
        pass

    def fail(event: CallEvent) -> None:
        raise OddError("words of the hook")

    events: List[CallEvent] = []
    with client_of(emulator, hooks=[fail, events.append]) as client:
        assert [client.ask(PROMPT).text, client.ask(PROMPT).text] == [PROMPT] * 2
    assert kinds(events) == ["started", "first_piece", "finished"] * 2
    records = [record for record in caplog.records if record.name == hooks.logger.name]
    assert [record.args for record in records] == [("started",), ("first_piece",), ("finished",)]
    assert all(record.exc_info and record.exc_info[0] is OddError for record in records)


@pytest.mark.parametrize("kind", ["started", "first_piece", "finished"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_gets_through(kind: str, error: Any, emulator: Emulator) -> None:
    """The call ends, and the other hooks learn of it."""
    events: List[CallEvent] = []

    def interrupt(event: CallEvent) -> None:
        if event.kind == kind:
            raise error

    with client_of(emulator, hooks=[events.append, interrupt]) as client:
        with pytest.raises(error):
            client.ask(PROMPT)
        assert kinds(events)[0] == "started" and kinds(events)[-1] in ("closed", "finished")
        assert client.stream(PROMPT, conversation=None).attempts == 0


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signal")
def test_what_the_handler_of_a_signal_raises_gets_through(emulator: Emulator) -> None:
    """As Celery's soft time limits do. The call has failed with it."""

    class SoftLimitError(Exception):
        pass

    def handler(number: int, frame: Any) -> None:
        raise SoftLimitError

    events: List[CallEvent] = []

    def interrupted(event: CallEvent) -> None:
        if event.kind == "first_piece":
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with client_of(emulator, hooks=[events.append, interrupted]) as client, pytest.raises(SoftLimitError):
            client.ask(PROMPT)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert kinds(events) == ["started", "first_piece", "failed"]
    assert (events[-1].error_type, events[-1].stage) == ("SoftLimitError", None)


def test_what_a_callback_raises_has_failed(emulator: Emulator) -> None:
    """It is no error of ours, and has the name of its class."""
    events: List[CallEvent] = []

    def on_retry(error: CopilotError, seconds: float) -> None:
        raise LookupError("words of the callback")

    refuse_once(emulator)
    policy = RetryPolicy(base=0, cap=0, on_retry=on_retry)
    with client_of(emulator, retry=policy, hooks=events.append) as client, pytest.raises(LookupError):
        client.ask(PROMPT)
    assert [event.error_type for event in events] == [None, "ServerError", "LookupError"]


@pytest.mark.usefixtures("quick_looks")
def test_no_event_has_a_text_or_a_secret(emulator: Emulator) -> None:
    """Neither of the question, the answer, the credentials, nor of an error's words."""
    words = ["planted-question", "planted-answer", "planted-token", "planted-words", "planted-label", "planted-user"]
    events: List[CallEvent] = []
    emulator.reply = Reply("planted-answer and more")
    emulator.options.accept_api_keys = ("planted-token",)
    emulator.fail("message", Fault.status(503, message="planted-words", retry_after=0))
    emulator.fail("message", Fault.cut(2))
    options: Any = {"api_url": emulator.api_url, "retry": RetryPolicy(base=0, cap=0), "hooks": events.append}
    with Client("planted-token", **options) as client:
        client.ask("planted-question", label="planted-label", user="planted-user")
        emulator.fail("message", Fault.status(422, message="planted-words"))
        with pytest.raises(CopilotError, match="planted-words"):
            client.ask("planted-question")
    assert {"retrying", "resumed", "failed"} < set(kinds(events))
    assert [word for word in words if word in repr(events)] == []


@pytest.mark.parametrize("end", ["finished", "failed", "closed"])
def test_what_was_said_goes_to_those_alone_who_have_asked_for_it(end: str, emulator: Emulator) -> None:
    """The question as it was sent, and the answer as far as it came, before the last event."""
    told: List[Any] = []
    answers = {"failed": ""}
    if end == "failed":
        emulator.fail("message", Fault.status(422))
    with client_of(emulator, hooks=told.append) as client:
        add_text_hook(told.append)
        try:
            with contextlib.suppress(CopilotError), client.stream("one two", system="Be brief.") as stream:
                next(stream)
                if end == "finished":
                    stream.read()
                answers["closed"] = stream.text
        finally:
            remove_text_hook(told.append)
        remove_text_hook(told.append)
        client.ask("three")
    said = [each for each in told if isinstance(each, CallText)]
    sent = emulator.requests[[each.stage for each in emulator.requests].index("message")].json["content"]
    answers["finished"] = sent
    assert [(each.question, each.answer) for each in said] == [(sent, answers[end])]
    last = told[told.index(said[0]) + 1]
    assert (last.kind, last.call_id) == (end, said[0].call_id)
    assert "Be brief." in sent


@pytest.fixture
def global_events() -> Iterator[List[CallEvent]]:
    events: List[CallEvent] = []
    add_global_hook(events.append)
    yield events
    remove_global_hook(events.append)


def test_a_hook_of_the_process_hears_of_all_clients(emulator: Emulator) -> None:
    """Of those that were there before it, and of those that come; once, however often it was added."""
    heard: List[CallEvent] = []
    hear = heard.append
    with client_of(emulator) as before:
        add_global_hook(hear)
        add_global_hook(hear)
        with client_of(emulator) as after:
            before.ask(PROMPT)
            after.ask(PROMPT)
            remove_global_hook(hear)
            remove_global_hook(hear)
            before.ask(PROMPT)
    assert kinds(heard) == ["started", "first_piece", "finished"] * 2
    assert hooks.with_global_hooks(()) == ()


def test_a_call_that_has_started_tells_how_it_ends(emulator: Emulator) -> None:
    """Though the hook was removed meanwhile. One that is added meanwhile hears nothing of it."""
    heard: List[CallEvent] = []
    late: List[CallEvent] = []
    hear, hear_late = heard.append, late.append
    add_global_hook(hear)
    with client_of(emulator) as client, client.stream(PROMPT) as stream:
        next(stream)
        remove_global_hook(hear)
        add_global_hook(hear_late)
        stream.read()
    remove_global_hook(hear_late)
    assert kinds(heard) == ["started", "first_piece", "finished"]
    assert late == []


def test_a_batch_is_one_call_for_each_prompt(emulator: Emulator, output: Any, global_events: List[CallEvent]) -> None:
    """In the context of whoever runs it. The request for the conversation of a prompt is no call of its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    seen: List[str] = []
    variable.set("the batch's")
    with client_of(emulator, hooks=lambda event: seen.append(variable.get())) as client:
        assert len(list(batch.run(["a", "b"], output=output, client=client))) == 2
    assert sorted(kinds(global_events)) == sorted(["started", "first_piece", "finished"] * 2)
    assert seen == ["the batch's"] * 6


def test_an_answer_from_the_cache_has_no_events(emulator: Emulator, tmp_path: Any) -> None:
    """Nobody was asked."""
    events: List[CallEvent] = []
    with client_of(emulator, hooks=events.append, answer_cache=tmp_path / "answers") as client:
        assert not client.ask(PROMPT).cached
        assert client.ask(PROMPT).cached
    assert kinds(events) == ["started", "first_piece", "finished"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_tells_nothing_of_its_parents_call(emulator: Emulator) -> None:
    """Its copy of the call ends there, and not the call."""
    events: List[CallEvent] = []
    with client_of(emulator, hooks=events.append) as client:
        stream = client.stream(PROMPT)
        next(stream)
        child = os.fork()
        if child == 0:  # pragma: no cover - its coverage is not collected
            stream.close()
            del stream
            os._exit(len(events))
        assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 2
        stream.read()
    assert kinds(events) == ["started", "first_piece", "finished"]


def test_a_copy_of_a_call_tells_nothing_of_its_end(emulator: Emulator) -> None:
    """As above, seen from within the child."""
    events: List[CallEvent] = []
    with client_of(emulator, hooks=events.append) as client, client.stream(PROMPT) as stream:
        next(stream)
        stream._call.reporter._process = -1
        stream.close()
        assert stream._call.reporter is None
    assert kinds(events) == ["started", "first_piece"]


def note(event: CallEvent) -> None:
    """A hook that can be pickled."""


def test_a_client_is_pickled_with_its_hooks(emulator: Emulator) -> None:
    """For other processes, if the hooks can be."""
    with client_of(emulator, hooks=note) as client, pickle.loads(pickle.dumps(client)) as copy:
        assert copy._options.hooks == (note,)
        copy.ask(PROMPT)


async def not_plain(event: CallEvent) -> None:
    """Nobody would await it."""


@pytest.mark.parametrize(
    "value, words",
    [
        (5, "a hook must be a function that takes an event, not int"),
        (["log"], "a hook must be a function that takes an event, not str"),
        (not_plain, "a hook must be a plain function, not a coroutine function"),
    ],
    ids=["no function", "one that is none", "a coroutine function"],
)
def test_what_is_no_hook_is_refused(value: Any, words: str) -> None:
    """When the client is made, or the hook is added."""
    with pytest.raises(TypeError, match=words):
        Client("k-1", hooks=value)
    with pytest.raises(TypeError):
        add_global_hook(value)


def test_without_hooks_nothing_is_told(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody is made who would tell it."""
    monkeypatch.setattr("copilot_sync.delivery.reporter.CallReporter", None)
    with client_of(emulator) as client:
        stream = client.stream(PROMPT)
        assert stream.read().text == PROMPT
        assert (stream._call.reporter, stream._builder.on_text) == (None, None)


def test_a_call_holds_nothing_after_its_end(emulator: Emulator) -> None:
    """What told its events is gone with it, without the garbage collection."""
    with client_of(emulator, hooks=note) as client, client.stream(PROMPT) as stream:
        stream.read()
        assert (stream._call.reporter, stream._builder.on_text) == (None, None)
