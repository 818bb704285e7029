"""Answers that are kept: whole ones of new conversations, handed out without a request, whichever way they are read."""

import asyncio
import dataclasses
import json
import multiprocessing
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
from asking import AT_ONCE
from driven import DRIVERS
from gateway import KEY, call, question
from support import Worker, configure_django, stages, wait_for

from copilot_sync import (
    Answer,
    AsyncClient,
    Client,
    Conversation,
    CopilotError,
    GithubCopilot,
    MessageHandle,
    RateLimitError,
    RequestTimeoutError,
    StreamClosedError,
    Timeout,
)
from copilot_sync.contrib.openai_gateway import Gateway
from copilot_sync.delivery.answer_cache import _answer_of
from copilot_sync.delivery.guards import CallGuard
from copilot_sync.delivery.message import new_id
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.errors import ResponseTooLargeError
from copilot_sync.settings import Limits
from copilot_sync.usage import Usage


class Memory(Dict[str, Any]):
    """A cache in memory, which knows how long it was to keep things."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.timeouts: List[int] = []

    def set(self, key: str, value: str, timeout: int) -> None:
        self[key] = value
        self.timeouts.append(timeout)


def client_of(emulator: Emulator, cache: Any, **options: Any) -> Client:
    arguments = {"retry": AT_ONCE, "api_url": emulator.api_url, "answer_cache": cache, **options}
    return Client(emulator.api_key, github_url=emulator.github_url, **arguments)


def sent(emulator: Emulator) -> int:
    return stages(emulator).count("message")


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_same_question_is_answered_without_a_request(
    driver: str, buffered: bool, emulator: Emulator, tmp_path: Path
) -> None:
    """Also by another client, which has no token yet; the text comes in one piece."""
    with client_of(emulator, tmp_path) as client:
        pieces: List[str] = []
        DRIVERS[driver](client.stream("One twö three", buffered=buffered), pieces)
        assert "".join(pieces) == "One twö three"
    before = len(emulator.requests)
    with Client(cookies=emulator.cookies, api_url=emulator.api_url, answer_cache=str(tmp_path)) as client:
        pieces = []
        stream = client.stream("One twö three", buffered=buffered)
        DRIVERS[driver](stream, pieces)
        assert (pieces, stream.text, stream.attempts) == (["One twö three"], "One twö three", 0)
        assert stream.answer is not None and stream.answer.cached
    assert len(emulator.requests) == before


def test_an_answer_from_the_cache_says_what_the_first_one_said(emulator: Emulator) -> None:
    """But for the ids, which belong to a thread that may be gone."""
    emulator.script(Reply("*hi* 😀", references=[{"type": "file", "path": "a.py"}]))
    with client_of(emulator, Memory()) as client:
        first, second = client.ask("Hi"), client.ask("Hi")
        events = list(client.stream("Hi").events())
    assert (first.cached, second.cached) == (False, True)
    for name in ("text", "model", "usage", "annotations", "references", "complete"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.usage is not None and first.references
    assert (second.message_id, second.events, second.data) == (None, (), {})
    assert "cached" not in first.to_dict()
    assert second.to_dict() == {
        **first.to_dict(),
        "cached": True,
        "message_id": None,
        "conversation_id": second.conversation.conversation_id,
    }
    assert pickle.loads(pickle.dumps(second)) == second
    assert [event.type for event in events] == ["content", "complete"]
    assert events[1].references == first.references
    assert sent(emulator) == 1


REFERENCE = {"type": "file", "path": "a.py"}


@pytest.mark.parametrize(
    "options",
    [
        {"model": "o1-mini"},
        {"system": "Be brief."},
        {"files": [("a.py", "print(1)")]},
        {"references": [REFERENCE]},
        {"context": [REFERENCE]},
        {"intent": "explain", "references": [REFERENCE]},
        {"mode": "assistive"},
        {"custom_instructions": "Be kind."},
        {"media": [{"name": "a.png", "url": "https://a.example/a.png"}]},
        {"fallback_model": "auto"},
        {"extra": {"other": [{5: None, "a": 1}]}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_everything_that_decides_an_answer_is_in_its_key(emulator: Emulator, options: Dict[str, Any]) -> None:
    """What differs is asked, and then kept as well."""
    with client_of(emulator, Memory()) as client:
        client.ask("Hi")
        answers = [client.stream("Hi", **options).read() for _ in range(2)]
    assert [answer.cached for answer in answers] == [False, True]
    assert sent(emulator) == 2


def test_what_decides_nothing_is_not_in_the_key(emulator: Emulator) -> None:
    """Nor is the order of names, or the account."""
    cache = Memory()
    with client_of(emulator, cache) as client:
        client.ask("Hi", extra={"a": 1, "b": 2})
        again = client.ask("Hi", extra={"b": 2, "a": 1}, timeout=5, retry=None, resume=False, label="l", user="u")
    assert again.cached
    assert len(cache) == 1
    (value,) = cache.values()
    assert emulator.api_key not in value
    with Client("another-key", api_url=emulator.api_url, answer_cache=cache) as client:
        assert client.ask("Hi", extra={"a": 1, "b": 2}).cached


def test_another_service_has_other_answers(emulator: Emulator) -> None:
    """Whether its API was named, or the account's page is to name it."""
    cache = Memory()
    with Emulator() as other:
        with client_of(emulator, cache) as client, client_of(other, cache) as elsewhere:
            assert [client.ask("Hi").cached, elsewhere.ask("Hi").cached, client.ask("Hi").cached] == [
                False,
                False,
                True,
            ]
        for number, service in enumerate((emulator, other)):
            options: Dict[str, Any] = {"cookies": service.cookies, "github_url": service.github_url, "api_url": "auto"}
            with Client(answer_cache=cache, **options) as client:
                assert not client.ask("Hi").cached
            before = len(service.requests)
            with Client(answer_cache=cache, **options) as client:
                assert client.ask("Hi").cached
            assert len(service.requests) == before
            assert len(cache) == 3 + number


def test_role_messages_are_a_question_too(emulator: Emulator) -> None:
    """The text that is sent counts."""
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "?"},
    ]
    with client_of(emulator, Memory()) as client:
        assert [client.ask(messages).cached for _ in range(2)] == [False, True]
        assert [client.ask("Hi").cached, client.ask(messages[:1]).cached] == [False, True]


@pytest.mark.parametrize("way", ["conversation", "handle", "on_start", "start", "chat", "switched off"])
def test_whoever_wants_a_conversation_gets_one(way: str, emulator: Emulator) -> None:
    """The question is sent, because an answer from the cache has none to go on with."""
    with client_of(emulator, Memory()) as client:
        first = client.ask("Hi")
        ways: Dict[str, Dict[str, Any]] = {
            "conversation": {"conversation": first.conversation},
            "handle": {"handle": MessageHandle(client.create_thread().conversation_id, new_id(), "root")},
            "on_start": {"on_start": lambda conversation: None},
            "switched off": {"answer_cache": False},
        }
        options = ways.get(way, {})
        if way == "chat":
            chat = client.chat()
            answer = chat.ask("Hi")
            assert chat.ask("And?").conversation == answer.conversation
            assert chat.retry().complete
        else:
            with client.stream("Hi", **options) as stream:
                if way == "start":
                    assert stream.start().conversation_id in emulator.threads
                answer = stream.read()
        assert not answer.cached
        assert answer.conversation.conversation_id in emulator.threads


def test_the_first_message_of_a_thread_is_kept_whoever_wanted_it(emulator: Emulator) -> None:
    """A chat's, a handle's: the next plain question of the kind is answered; not what is said later in a thread."""
    cache = Memory()
    with client_of(emulator, cache) as client:
        chat = client.chat()
        thread_id = chat.ask("One").conversation.conversation_id
        chat.ask("Two")
        client.stream("Three", handle=MessageHandle(client.create_thread().conversation_id, new_id(), "root")).read()
        client.stream("Four", handle=MessageHandle(thread_id, new_id())).read()
        assert [client.ask(text).cached for text in ("One", "Two", "Three", "Four")] == [True, False, True, False]
        assert client.ask("Five", answer_cache=False).cached is False
        assert client.ask("Five", answer_cache=True).cached is False


def test_nobody_goes_on_with_an_answer_from_the_cache(emulator: Emulator) -> None:
    """It is refused in words that say what to do, in whichever form the conversation was kept, and nothing is sent."""
    with client_of(emulator, Memory()) as client:
        client.ask("Hi")
        stream = client.stream("Hi")
        conversation = stream.read().conversation
        assert stream.naming() is None
        before = len(emulator.requests)
        kept = Conversation.from_dict(json.loads(json.dumps(conversation.to_dict())))
        for known in (conversation, kept, conversation.conversation_id):
            with pytest.raises(ValueError, match="has no conversation to go on with: ask its question again with"):
                client.ask("And?", conversation=known)
            for call in (client.messages, client.name_thread, client.delete_thread):
                with pytest.raises(ValueError, match="has no conversation"):
                    call(known)
        with pytest.raises(ValueError, match="has no conversation"):
            client.chat(conversation).ask("And?")
    assert len(emulator.requests) == before


def test_only_whole_answers_are_kept(emulator: Emulator) -> None:
    """Nor one without any text, which would help nobody for a month."""
    cache = Memory()
    with client_of(emulator, cache, resume=False, retry=None) as client:
        emulator.script(Reply(["half"], complete=False), Reply(""))
        assert not client.ask("one two").complete
        assert client.ask("one two").text == ""
        emulator.fail("message", Fault.cut(1), Fault.status(400))
        for _ in range(2):
            with pytest.raises(CopilotError):
                client.ask("one two")
        with client.stream("one two") as stream:
            next(stream)
        assert cache == {}
        client.ask("one two")
        assert cache.timeouts == [30 * 24 * 60 * 60]


def test_a_guard_is_not_asked_for_what_is_not_sent(emulator: Emulator) -> None:
    """A limit, a budget or a ledger counts what is sent."""

    class Refusing(CallGuard):
        def entering(self, message: Any, call: Any, policy: Any) -> Any:
            raise RateLimitError("too much")

    with client_of(emulator, Memory()) as client:
        client.ask("Hi")
        client._options = dataclasses.replace(client._options, guards=(Refusing(),))
        assert client.ask("Hi").cached
        with pytest.raises(RateLimitError):
            client.ask("Ho")


class OutageError(Exception):
    """What the library below a cache raises."""


class TimeLimitError(Exception):
    """What a task queue's signal handler raises."""


def test_a_cache_that_fails_is_done_without(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of failure is one warning, without its words."""
    errors = [OutageError("planted"), OSError(28, "planted"), OutageError("planted"), OSError("planted")]

    def fail(*args: object) -> None:
        raise errors.pop(0)

    with client_of(emulator, SimpleNamespace(get=fail, set=fail)) as client:
        assert [client.ask("Hi").cached for _ in range(2)] == [False, False]
    words = "the answer cache failed and is done without: "
    assert [record.getMessage() for record in caplog.records] == [f"{words}OutageError", f"{words}OSError"]
    assert errors == []


def test_a_folder_that_can_not_be_used_is_done_without(
    emulator: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a file."""
    (tmp_path / "file").write_text("mine")
    with client_of(emulator, tmp_path / "file") as client:
        assert [client.ask("Hi").cached for _ in range(2)] == [False, False]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "NotADirectoryError" in caplog.text and "FileExistsError" in caplog.text


@pytest.mark.parametrize("way", ["get", "set"])
def test_a_time_limit_passes_through_a_cache(way: str, emulator: Emulator) -> None:
    """A signal handler raised it: it is no failure of the cache that was at work at that moment."""

    def expire(*args: object) -> None:
        raise TimeLimitError

    def work(*args: object) -> None:
        signal.raise_signal(signal.SIGUSR1)

    cache = SimpleNamespace(**{"get": lambda key: None, "set": lambda *args: None, way: work})
    before = signal.signal(signal.SIGUSR1, expire)
    try:
        with client_of(emulator, cache) as client, pytest.raises(TimeLimitError):
            client.ask("Hi")
    finally:
        signal.signal(signal.SIGUSR1, before)


WHOLE: Dict[str, Any] = {"text": "x", "model": "m", "usage": None, "annotations": {}, "references": []}


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "",
        "x",
        "[]",
        "[" * 100_000,
        b"\xff",
        *({name: value for name, value in WHOLE.items() if name != missing} for missing in WHOLE),
        {**WHOLE, "text": 5},
        {**WHOLE, "text": ""},
        {**WHOLE, "model": None},
        {**WHOLE, "usage": 5},
        {**WHOLE, "usage": {}},
        {**WHOLE, "usage": {"input_tokens": "1", "output_tokens": None}},
        {**WHOLE, "annotations": []},
        {**WHOLE, "references": 5},
        {**WHOLE, "references": ["x"]},
    ],
    ids=str,
)
def test_what_is_no_answer_is_asked_again(emulator: Emulator, value: Any) -> None:
    """And replaced."""
    cache = Memory()
    with client_of(emulator, cache) as client:
        client.ask("Hi")
        (key,) = cache
        cache[key] = json.dumps(value) if isinstance(value, dict) else value
        assert [client.ask("Hi").cached for _ in range(2)] == [False, True]


@pytest.mark.parametrize("as_bytes", [False, True])
def test_texts_may_come_as_bytes(as_bytes: bool) -> None:
    """As Redis returns them."""
    value = json.dumps({**WHOLE, "usage": {"input_tokens": 1, "output_tokens": None}})
    answer = _answer_of(value.encode() if as_bytes else value)
    assert answer is not None
    assert (answer.text, answer.usage, answer.cached) == ("x", Usage(1, None), True)


def test_an_answer_longer_than_the_limit_is_refused(emulator: Emulator) -> None:
    """As if it came from the service."""
    cache = Memory()
    with client_of(emulator, cache) as client:
        client.ask("x" * 2000)
    with client_of(emulator, cache, limits=Limits(answer=1000)) as client:
        with pytest.raises(ResponseTooLargeError):
            client.ask("x" * 2000)


@pytest.mark.parametrize("value", [5, True, object(), {}])
def test_what_can_be_no_cache_is_told_at_once(value: Any) -> None:
    """By the client."""
    with pytest.raises(
        TypeError, match=f"answer_cache must be a folder or have get and set, and {type(value).__name__}"
    ):
        Client("key", answer_cache=value)


def test_a_wrong_choice_is_told_at_once(emulator: Emulator, tmp_path: Path) -> None:
    """By the call; nothing is a cache by an empty name."""
    choice: Any = tmp_path
    with client_of(emulator, "") as client:
        with pytest.raises(TypeError, match="answer_cache of a call must be True or False, not PosixPath"):
            client.ask("Hi", answer_cache=choice)
        assert [client.ask("Hi", answer_cache=True).cached for _ in range(2)] == [False, False]


class Waiting(Memory):
    """A cache that takes its time when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = threading.Event(), threading.Event()
        self.threads: List[Any] = []

    def get(self, key: str) -> Any:  # type: ignore[override]
        self.threads.append(threading.current_thread())
        self.asked.set()
        wait_for(self.go)
        return super().get(key)

    def set(self, key: str, value: str, timeout: int) -> None:
        self.threads.append(threading.current_thread())
        super().set(key, value, timeout)


def kept_answer(emulator: Emulator) -> Waiting:
    """A slow cache that has an answer."""
    cache = Waiting()
    cache.go.set()
    with client_of(emulator, cache) as client:
        client.ask("Hi")
    for event in (cache.asked, cache.go):
        event.clear()
    cache.threads.clear()
    return cache


def test_a_cache_does_not_hold_up_the_event_loop(emulator: Emulator) -> None:
    """A thread asks it; the loop goes on meanwhile."""
    cache = kept_answer(emulator)

    async def ask() -> Answer:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url, answer_cache=cache) as client:
            asking = asyncio.ensure_future(client.ask("Hi"))
            while not cache.asked.is_set():
                await asyncio.sleep(0.001)
            cache.go.set()
            assert not (await client.ask("Ho")).cached
            return await asking

    assert asyncio.run(ask()).cached
    assert len(cache.threads) == 3
    assert threading.main_thread() not in cache.threads


def test_a_cache_does_not_hold_up_a_poll(emulator: Emulator) -> None:
    """There is nothing yet, and then the whole text."""
    cache = kept_answer(emulator)
    with client_of(emulator, cache) as client, client.stream("Hi") as stream:
        assert stream.poll(0) is None
        wait_for(cache.asked)
        assert stream.poll(0) is None
        cache.go.set()
        assert stream.poll(60) == "Hi"
        assert stream.poll(60) == ""
    assert threading.main_thread() not in cache.threads


def test_a_message_that_answers_another_is_sent(emulator: Emulator) -> None:
    """Whether or not there is such a message in a new conversation, which the service decides."""
    with client_of(emulator, Memory()) as client:
        first = client.ask("Hi")
        with pytest.raises(CopilotError, match="no message"):
            client.ask("Hi", parent_message_id=first.message_id)


FORKED = """
import os, sys
from copilot_sync import Client

folder, api_url = sys.argv[1:]
stream = Client("key", api_url=api_url, answer_cache=folder).stream("Hi")
child = os.fork()
if not child:
    pieces = [stream.poll(60), stream.poll(60)]
    os._exit(0 if pieces == ["Hi", ""] else 1)
sys.exit(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
"""


def test_a_child_is_answered_from_the_cache(emulator: Emulator, tmp_path: Path) -> None:
    """Through a stream that was made before the fork."""
    with client_of(emulator, tmp_path) as client:
        client.ask("Hi")
    arguments = [sys.executable, "-W", "error", "-c", FORKED, str(tmp_path), emulator.api_url]
    done = subprocess.run(arguments, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (0, b"")
    assert sent(emulator) == 1


@pytest.mark.parametrize("is_read", [False, True])
def test_a_stream_that_is_closed_has_no_answer(emulator: Emulator, is_read: bool) -> None:
    """While the cache is asked, and when the text was read, until the answer is whole."""
    cache = kept_answer(emulator)
    with client_of(emulator, cache) as client:
        stream = client.stream("Hi")
        reader = Worker(lambda: next(stream) if is_read else stream.read())
        wait_for(cache.asked)
        if not is_read:
            stream.close()
        cache.go.set()
        if is_read:
            assert reader.result() == "Hi"
            stream.close()
            assert list(stream) == []
        else:
            with pytest.raises(StreamClosedError):
                reader.result()
        assert (stream.answer, stream.closed) == (None, True)


def test_the_provider_has_it_too(emulator: Emulator, tmp_path: Path) -> None:
    """Unless a conversation is wanted; with the model that stands in for the default one."""
    messages = [{"role": "user", "content": "Hi"}]
    options: Dict[str, Any] = {"api_key": emulator.api_key, "api_url": emulator.api_url}

    def ask(model: str = "", **others: Any) -> int:
        before = len(emulator.requests)
        items = GithubCopilot.create_generator(model, messages, **options, **others)
        assert [item for item in items if isinstance(item, str)] == ["Hi"]
        return len(emulator.requests) - before

    assert [ask(answer_cache=tmp_path) > 0 for _ in range(2)] == [True, False]
    assert ask(answer_cache=tmp_path, return_conversation=True) > 0
    assert ask("o1-mini", answer_cache=tmp_path) > 0
    assert ask() > 0


def test_the_gateway_goes_on_after_an_answer_from_the_cache(emulator: Emulator) -> None:
    """In a new conversation, which gets all that was said. A response, which may be gone on with, is always new."""
    user, more = {"role": "user", "content": "Hi"}, {"role": "user", "content": "And?"}
    with client_of(emulator, Memory()) as client:
        gateway = Gateway(client, key=KEY, threads=True)
        replies = [call(gateway, "/v1/chat/completions", question("Hi")).json for _ in range(2)]
        assert [reply["choices"][0]["message"]["content"] for reply in replies] == ["Hi", "Hi"]
        assert sent(emulator) == 1
        for _ in range(2):  # the first goes on in the conversation of the first answer
            body = {"model": "auto", "messages": [user, {"role": "assistant", "content": "Hi"}, more]}
            assert call(gateway, "/v1/chat/completions", body).status == 200
        asked = [request.json["content"] for request in emulator.requests if request.stage == "message"]
        assert asked == ["Hi", "And?", "User: Hi\nAssistant: Hi\nUser: And?\nAssistant:"]
        first = call(gateway, "/v1/responses", {"model": "auto", "input": "Hi"}).json
        after = {"model": "auto", "input": "And?", "previous_response_id": first["id"]}
        assert call(gateway, "/v1/responses", after).status == 200
    assert sent(emulator) == 5


def django_cache(folder: Path) -> Any:
    configure_django()
    from django.core.cache.backends.filebased import FileBasedCache

    return FileBasedCache(str(folder), {})


def cachelib_cache(folder: Path) -> Any:
    from cachelib import FileSystemCache

    return FileSystemCache(str(folder))


@pytest.mark.parametrize("make", [django_cache, cachelib_cache, str])
def test_the_caches_of_frameworks_will_do(emulator: Emulator, tmp_path: Path, make: Any) -> None:
    """Django's and cachelib's; as large as an answer may be."""
    text = "é😀 " * 100_000
    emulator.reply = Reply([text])
    with client_of(emulator, make(tmp_path / "cache")) as client:
        assert not client.ask(text).cached
    with client_of(emulator, make(tmp_path / "cache")) as client:
        answer = client.ask(text)
    assert (answer.cached, answer.text) == (True, text)
    assert sent(emulator) == 1


def test_the_time_of_a_look_up_counts_for_the_call(emulator: Emulator) -> None:
    """One that takes as long as the whole call may leaves nothing to send the question in."""

    class Slow(Memory):
        def get(self, key: str, default: Any = None) -> Any:
            time.sleep(0.3)
            return super().get(key, default)

    with client_of(emulator, Slow(), timeout=Timeout(total=0.2)) as client:
        with pytest.raises(RequestTimeoutError, match=r"longer than the 0\.2 s") as caught:
            client.ask("Hi")
    assert caught.value.phase == "total"
    assert not emulator.requests


def ask_for_all(emulator: Emulator, folder: str, texts: List[str]) -> List[str]:
    with client_of(emulator, folder) as client:
        return [client.ask(text).text for text in texts]


def test_threads_share_it(emulator: Emulator, tmp_path: Path) -> None:
    """Each gets the answer to its own question; if several ask the same at once, each may have asked the service."""
    texts = [f"question {number}" for number in range(10)]
    workers = [Worker(lambda: ask_for_all(emulator, str(tmp_path), texts)) for _ in range(4)]
    assert [worker.result() for worker in workers] == [texts] * 4
    assert 10 <= sent(emulator) <= 40
    before = len(emulator.requests)
    assert ask_for_all(emulator, str(tmp_path), texts) == texts
    assert len(emulator.requests) == before


def ask_in_a_process(client: Client, text: str, results: Any) -> None:
    answer = client.ask(text)
    results.put((answer.text, answer.cached))


def test_processes_share_it(emulator: Emulator, tmp_path: Path) -> None:
    """Also a client that was pickled."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with client_of(emulator, tmp_path) as client:
        client.ask("known")
        before = len(emulator.requests)
        workers = [context.Process(target=ask_in_a_process, args=(client, text, results)) for text in ("known", "new")]
        for worker in workers:
            worker.start()
        assert sorted(results.get(timeout=60) for _ in workers) == [("known", True), ("new", False)]
        for worker in workers:
            worker.join()
        assert len(emulator.requests) > before
        before = len(emulator.requests)
        assert client.ask("new").cached
    assert len(emulator.requests) == before
