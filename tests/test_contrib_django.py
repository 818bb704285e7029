"""The Django application: answers that stream under WSGI and ASGI, conversations in every kind of session."""

import asyncio
import gc
import io
import logging
import re
import threading
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List

import pytest
from support import (
    PATIENCE,
    Trouble,
    Worker,
    collect_garbage,
    configure_django,
    events,
    nothing_left_open,
    variables_with,
    wait_until,
)

pytest.importorskip("django")

import django
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.management import CommandError, call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path

from copilot_sync import Budget
from copilot_sync.contrib import sse
from copilot_sync.contrib.django import (
    aask_response,
    aretry_response,
    ask_response,
    astream_response,
    conversations,
    forget,
    get_client,
    retry_response,
    stream_response,
)
from copilot_sync.emulator import Emulator, Fault, Reply

needs_asynchronous_bodies = pytest.mark.skipif(django.VERSION < (4, 2), reason="Django 4.2 brought asynchronous bodies")

YEAR = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
ENGINES = ["db", "cache", "cached_db", "file", "signed_cookies"]


def chat(request: HttpRequest) -> Any:
    """The view of a chat."""
    form = request.POST
    return stream_response(request, form.get("prompt"), name=form.get("name"), parent_message_id=form.get("message_id"))


async def chat_asynchronously(request: HttpRequest) -> Any:
    """The same, as a coroutine."""
    return await astream_response(request, request.POST.get("prompt"), name=request.POST.get("name"))


async def chat_wrongly(request: HttpRequest) -> Any:
    """A coroutine that blocks."""
    return stream_response(request, "hi")


def retry(request: HttpRequest) -> Any:
    """Answer the last question again."""
    form = request.POST
    return retry_response(
        request, name=form.get("name"), conversation=form.get("conversation"), model=form.get("model")
    )


async def retry_asynchronously(request: HttpRequest) -> Any:
    """The same, as a coroutine."""
    return await aretry_response(request, conversation=request.POST.get("conversation"))


def data(request: HttpRequest) -> Any:
    """Ask for data."""
    form = request.POST
    return ask_response(request, form.get("prompt"), name=form.get("name"), schema=YEAR, repairs=1)


async def data_asynchronously(request: HttpRequest) -> Any:
    """The same, as a coroutine."""
    return await aask_response(request, request.POST.get("prompt"), name=request.POST.get("name"), schema=YEAR)


def new(request: HttpRequest) -> HttpResponse:
    """Forget."""
    forget(request, request.POST["name"])
    return HttpResponse()


def listed(request: HttpRequest) -> HttpResponse:
    """What the session holds."""
    return JsonResponse({name: each.to_dict() for name, each in conversations(request).items()})


def write(request: HttpRequest) -> HttpResponse:
    """Change something else in the session, or end it."""
    if "end" in request.POST:
        request.session.flush()
    else:
        request.session["other"] = request.session.get("other", 0) + 1
    return HttpResponse(str(request.session.get("other")))


urlpatterns = [
    path("chat", chat),
    path("async", chat_asynchronously),
    path("wrong", chat_wrongly),
    path("retry", retry),
    path("async-retry", retry_asynchronously),
    path("data", data),
    path("async-data", data_asynchronously),
    path("new", new),
    path("conversations", listed),
    path("write", write),
]


@pytest.fixture(scope="module", autouse=True)
def _tables(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database with the one of the sessions, and the thread that asgiref keeps for blocking code."""
    configure_django()
    asyncio.run(sync_to_async(gc.collect)())
    connections["default"].settings_dict["NAME"] = str(tmp_path_factory.mktemp("django") / "sessions.sqlite3")
    call_command("migrate", verbosity=0)
    connections.close_all()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            yield served
        connections.close_all()
        collect_garbage()  # asgiref's threads for coroutines under WSGI end with what holds them


def configuration(emulator: Emulator, **options: Any) -> Dict[str, Any]:
    urls = {"GITHUB_URL": emulator.github_url, "API_URL": emulator.api_url}
    return {**urls, "COOKIES": emulator.cookies, "RETRY": None, "LEDGER": False, **options}


@pytest.fixture(autouse=True)
def _site(emulator: Emulator) -> Iterator[None]:
    """A site that asks the emulator."""
    for cache in caches.all():
        cache.clear()
    with override_settings(COPILOT_SYNC=configuration(emulator)):
        yield


@pytest.fixture
def page() -> Client:
    """A browser with a session of its own."""
    return Client()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    """Where sessions are kept."""
    with override_settings(
        SESSION_ENGINE=f"django.contrib.sessions.backends.{request.param}", SESSION_FILE_PATH=str(tmp_path)
    ):
        yield request.param


def ask(page: Client, place: str = "/chat", **form: str) -> List[Dict[str, Any]]:
    response = page.post(place, form)
    body = b"".join(response)
    response.close()
    return events(body)


def ask_asynchronously(page: AsyncClient, place: str, **form: str) -> List[Dict[str, Any]]:
    async def main() -> bytes:
        response = await page.post(place, form)
        body = b"".join([part async for part in response.streaming_content])
        await sync_to_async(response.close)()
        await sync_to_async(connections.close_all)()
        return body

    return events(asyncio.run(main()))


def test_the_last_question_is_answered_again(emulator: Emulator, page: Client, engine: str) -> None:
    """Beside the first time, by another model for once; the session has the new answer if it still can."""
    ask(page, prompt="first", name="chat")
    *_, end = ask(page, "/retry", name="chat", model="o1-mini")
    assert (end["type"], end["model"]) == ("complete", "o1-mini")
    (thread,) = emulator.threads.values()
    first, _, second, answer = thread.messages
    assert (second["content"], second["parentMessageID"]) == ("first", first["parentMessageID"])
    assert answer["id"] == end["message_id"]
    kept = page.get("/conversations").json()["chat"]
    assert kept["message_id"] == (None if engine == "signed_cookies" else end["message_id"])
    *_, end = ask(page, "/retry", conversation=thread.id)
    assert end["type"] == "complete"


@needs_asynchronous_bodies
def test_the_last_question_is_answered_again_under_asgi(emulator: Emulator) -> None:
    conversation = get_client().ask("first").conversation
    *_, end = ask_asynchronously(AsyncClient(), "/async-retry", conversation=conversation.conversation_id)
    assert end["type"] == "complete"
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["first", "first"]


@pytest.mark.parametrize("form", [{}, {"name": "gone"}, {"name": "chat"}])
def test_nothing_to_answer_again_is_a_bad_request(emulator: Emulator, page: Client, form: Dict[str, str]) -> None:
    """No conversation, one that the session does not hold, or one without a question."""
    ask(page, prompt="first", name="chat")
    (thread,) = emulator.threads.values()
    thread.messages.clear()
    assert page.post("/retry", form).status_code == 400
    assert thread.messages == []


@pytest.mark.parametrize("stage", ["messages", "message"])
def test_a_retry_that_fails_is_told_to_the_page(emulator: Emulator, page: Client, stage: str) -> None:
    """As an ``error`` event, and the conversation stays."""
    ask(page, prompt="first", name="chat")
    emulator.fail(stage, Fault.status(402))
    *_, end = ask(page, "/retry", name="chat")
    assert (end["type"], end["code"]) == ("error", "quota_exceeded")
    assert end["conversation_id"] in emulator.threads
    assert ask(page, "/retry", name="chat")[-1]["type"] == "complete"


def test_an_answer_is_a_stream_of_events(page: Client) -> None:
    """With the headers that keep it from being held back, also by Django's own compression."""
    response = page.post("/chat", {"prompt": "hi"}, HTTP_ACCEPT_ENCODING="gzip")
    parts = list(response.streaming_content)
    assert parts[0] == sse.PREAMBLE
    assert [event["type"] for event in events(b"".join(parts))] == ["content", "content", "complete"]
    assert {name: response[name] for name in sse.HEADERS} == dict(sse.HEADERS)
    response.close()


@pytest.mark.parametrize("asynchronous", [False, pytest.param(True, marks=needs_asynchronous_bodies)])
def test_pieces_arrive_one_by_one(emulator: Emulator, page: Client, asynchronous: bool) -> None:
    """The first is there while the service still writes."""
    go_on = threading.Event()

    def halves() -> Iterator[str]:
        yield "one "
        assert go_on.wait(PATIENCE)
        yield "two"

    async def main() -> bytes:
        response: Any = await AsyncClient().post("/async", {"prompt": "hi"})
        parts = response.streaming_content
        first = await parts.__anext__() + await parts.__anext__()
        assert b"one" in first
        go_on.set()
        rest = [part async for part in parts]
        await sync_to_async(response.close)()
        return first + b"".join(rest)

    emulator.reply = lambda prompt: halves()
    if asynchronous:
        assert events(asyncio.run(main()))[-1]["type"] == "complete"
        return
    response = page.post("/chat", {"prompt": "hi"})
    parts = iter(response)
    assert next(parts) == sse.PREAMBLE
    assert b"one" in next(parts)
    go_on.set()
    assert b"two" in b"".join(parts)
    response.close()


def test_closing_the_response_closes_the_stream(emulator: Emulator, page: Client) -> None:
    """As a server does when the client has gone."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    response = page.post("/chat", {"prompt": "hi"})
    parts = iter(response)
    assert (next(parts), b"one" in next(parts)) == (sse.PREAMBLE, True)
    response.close()
    assert emulator.wait_until(lambda: emulator.disconnects)


@needs_asynchronous_bodies
def test_closing_an_asynchronous_response_closes_the_stream(emulator: Emulator) -> None:
    """Django does it from another thread."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        response: Any = await AsyncClient().post("/async", {"prompt": "hi"})
        parts = response.streaming_content
        assert (await parts.__anext__(), b"one" in await parts.__anext__()) == (sse.PREAMBLE, True)
        await sync_to_async(response.close)()
        assert await sync_to_async(emulator.wait_until)(lambda: emulator.disconnects)
        await parts.aclose()

    asyncio.run(main())


@needs_asynchronous_bodies
@pytest.mark.parametrize("place", ["/chat", "/async"])
def test_under_asgi_views_of_both_kinds_answer(place: str) -> None:
    """And keep the conversation."""
    page = AsyncClient()
    first = ask_asynchronously(page, place, prompt="hi", name="chat")
    second = ask_asynchronously(page, place, prompt="hi", name="chat")
    unnamed = ask_asynchronously(page, place, prompt="hi")
    assert [event["type"] for event in first] == ["content", "content", "complete"]
    assert second[-1]["conversation_id"] == first[-1]["conversation_id"] != unnamed[-1]["conversation_id"]


@pytest.mark.skipif(django.VERSION >= (4, 2), reason="asynchronous bodies are there")
def test_old_djangos_say_that_they_can_not() -> None:  # pragma: some versions
    """Instead of having one answer block everybody's."""
    request: Any = RequestFactory().post("/chat")
    request.scope = {"type": "http"}
    with pytest.raises(ImproperlyConfigured, match="from Django 4.2 on"):
        stream_response(request, "hi")


def test_a_coroutine_that_would_block_is_told_what_to_do() -> None:
    """It would hold up everybody's requests."""

    async def main() -> None:
        await AsyncClient().post("/wrong")

    with pytest.raises(SynchronousOnlyOperation, match="await astream_response"):
        asyncio.run(main())


def test_a_coroutine_under_wsgi_answers_too(page: Client) -> None:
    """Its body is a blocking one."""
    response = page.post("/async", {"prompt": "hi"})
    assert events(b"".join(response))[-1]["type"] == "complete"
    response.close()


@pytest.mark.parametrize("form", [{}, {"prompt": ""}, {"prompt": " \n"}], ids=["nothing", "empty", "blank"])
def test_nothing_to_ask_is_a_bad_request(emulator: Emulator, page: Client, form: Dict[str, str]) -> None:
    """And nothing is sent."""
    assert page.post("/chat", form).status_code == 400
    assert emulator.requests == []


@pytest.mark.parametrize("name", [{}, {"name": "chat"}], ids=["not kept", "kept"])
def test_pages_and_logs_say_what_is_wrong_and_no_secret(
    emulator: Emulator, trouble: Trouble, page: Client, caplog: pytest.LogCaptureFixture, name: Dict[str, str]
) -> None:
    """The page in words for a person, the log with the error and its cause; and nothing is kept then."""
    setting = configuration(emulator, **trouble.settings)
    with override_settings(COPILOT_SYNC=setting), caplog.at_level(logging.DEBUG):
        response = page.post("/chat", {"prompt": "hi", **name})
        body = b"".join(response)
        response.close()
    trouble.check_told(body, caplog.text)
    assert page.get("/conversations").json() == {}


def test_a_conversation_is_kept_by_name(emulator: Emulator, page: Client, engine: str) -> None:
    """The next question goes on with it, behind the last answer where the session could still be told of that."""
    first = ask(page, prompt="one", name="chat")[-1]
    kept = page.get("/conversations").json()["chat"]
    in_time = None if engine == "signed_cookies" else first["message_id"]
    assert kept == {"conversation_id": first["conversation_id"], "message_id": in_time}
    second = ask(page, prompt="two", name="chat")[-1]
    other = ask(page, prompt="three", name="other")[-1]
    unnamed = ask(page, prompt="four")[-1]
    assert first["conversation_id"] == second["conversation_id"]
    assert len({each["conversation_id"] for each in (first, other, unnamed)}) == 3
    assert list(page.get("/conversations").json()) == ["chat", "other"]
    said = emulator.threads[first["conversation_id"]].user_messages
    assert [message["content"] for message in said] == ["one", "two"]
    assert engine == "signed_cookies" or said[1]["parentMessageID"] == first["message_id"]


def test_a_page_that_was_left_open_begins_anew(emulator: Emulator, page: Client) -> None:
    """The message that it still follows is none of the new conversation's, once the session has lost the old one."""
    first = ask(page, prompt="one", name="chat")[-1]
    page.post("/write", {"end": ""})
    second = ask(page, prompt="two", name="chat", message_id=first["message_id"])[-1]
    assert second["type"] == "complete"
    assert second["conversation_id"] != first["conversation_id"]


def test_what_others_write_meanwhile_stays(emulator: Emulator, page: Client, engine: str) -> None:
    """The end of an answer changes its conversation in the session, and nothing else."""
    page.post("/write")
    response = page.post("/chat", {"prompt": "hi", "name": "chat"})
    page.post("/write")
    ask(page, prompt="hi", name="other")
    assert events(b"".join(response))[-1]["type"] == "complete"
    response.close()
    assert page.post("/write").content == b"3"
    assert set(page.get("/conversations").json()) == {"chat", "other"}


@pytest.mark.parametrize("change", ["/new", "/write"], ids=["forgotten", "session ended"])
def test_what_is_gone_when_the_answer_ends_stays_gone(page: Client, engine: str, change: str) -> None:
    """A conversation that was forgotten, or a session that was ended, is not brought back."""
    response = page.post("/chat", {"prompt": "hi", "name": "chat"})
    page.post(change, {"name": "chat", "end": "1"})
    assert events(b"".join(response))[-1]["type"] == "complete"
    response.close()
    assert page.get("/conversations").json() == {}


def test_a_session_that_ends_while_it_is_written_to_stays_gone(page: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was there when it was read."""
    from django.contrib.sessions.backends.db import SessionStore

    response = page.post("/chat", {"prompt": "hi", "name": "chat"})
    save = SessionStore.save

    def late(self: Any, must_create: bool = False) -> None:
        SessionStore(self.session_key).delete()
        save(self, must_create)

    monkeypatch.setattr(SessionStore, "save", late)
    assert events(b"".join(response))[-1]["type"] == "complete"
    response.close()
    monkeypatch.undo()
    assert page.get("/conversations").json() == {}


def test_a_conversation_begun_anew_meanwhile_is_kept(page: Client, engine: str) -> None:
    """An older answer that ends later does not bring its own back."""
    response = page.post("/chat", {"prompt": "hi", "name": "chat"})
    page.post("/new", {"name": "chat"})
    second = ask(page, prompt="hi", name="chat")[-1]
    b"".join(response)
    response.close()
    assert page.get("/conversations").json()["chat"]["conversation_id"] == second["conversation_id"]


def test_forgetting_what_is_not_known_changes_nothing(page: Client) -> None:
    """Not even the session's life."""
    assert page.post("/new", {"name": "chat"}).cookies == {}


def test_a_given_conversation_wins_and_is_kept(page: Client) -> None:
    """As a string or a value."""
    known = get_client().create_thread()
    request = RequestFactory().post("/chat")
    request.session = page.session
    response: Any = stream_response(request, "hi", name="chat", conversation=known.conversation_id)
    assert events(b"".join(response))[-1]["conversation_id"] == known.conversation_id
    response.close()
    assert list(conversations(request)) == ["chat"]


def test_the_conversation_begun_last_is_at_the_end(page: Client) -> None:
    """Also where another one goes on under a name that the session had for one already."""
    request = RequestFactory().post("/chat")
    request.session = page.session
    for name, conversation in (("chat", None), ("other", None), ("chat", get_client().create_thread())):
        response: Any = stream_response(request, "hi", name=name, conversation=conversation)
        assert events(b"".join(response))[-1]["type"] == "complete"
        response.close()
    assert list(conversations(request)) == ["other", "chat"]


def test_without_sessions_there_is_nothing_to_keep_a_conversation_in() -> None:
    """Which is said; without a name, none are needed."""
    request = RequestFactory().post("/chat")
    with pytest.raises(ImproperlyConfigured, match="SessionMiddleware"):
        stream_response(request, "hi", name="chat")
    response: Any = stream_response(request, "hi")
    assert events(b"".join(response))[-1]["type"] == "complete"
    response.close()


@pytest.mark.parametrize("place", ["/chat", pytest.param("/async", marks=needs_asynchronous_bodies)])
def test_a_session_that_cannot_be_saved_at_the_end_is_told(
    page: Client, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is whole by then: the page gets it, and learns that the conversation was not kept."""

    def fail(*_: Any) -> None:
        raise OSError("planted words")

    monkeypatch.setattr("copilot_sync.contrib.django.responses.update", fail)
    if place == "/chat":
        response = page.post(place, {"prompt": "hi", "name": "chat"})
        end = events(b"".join(response.streaming_content))[-1]
        response.close()
    else:
        end = ask_asynchronously(AsyncClient(), place, prompt="hi", name="chat")[-1]
    assert (end["type"], end["code"], bool(end["message_id"])) == ("error", "not_kept", True)
    assert "planted" not in str(end)
    assert "planted words" in caplog.text


def test_one_client_serves_all_threads() -> None:
    """It is made with the first need."""
    assert len({id(worker.result()) for worker in [Worker(get_client) for _ in range(8)]}) == 1


def test_overridden_settings_make_another_client(emulator: Emulator) -> None:
    """So that a test gets what it says; the one before it is closed."""
    before = get_client()
    with override_settings(COPILOT_SYNC=configuration(emulator, MODEL="o1-mini")):
        assert "o1-mini" in repr(get_client())
    assert get_client() is not before
    with override_settings(DEBUG=True):
        assert get_client() is get_client()


@pytest.mark.parametrize(
    "setting, message",
    [
        ([], "COPILOT_SYNC must be a dictionary"),
        (
            {"MODLE": "gpt-4o"},
            r"COPILOT_SYNC has no 'MODLE'; there are ANSWER_CACHE, API_KEY, .*, HEARTBEAT, .*, VERIFY",
        ),
        ({"model": "gpt-4o"}, "COPILOT_SYNC has no 'model'"),
        ({"TIMEOUT": "long"}, "COPILOT_SYNC: timeout connect must be a number"),
        ({"TOKEN_CACHE": "elsewhere"}, "COPILOT_SYNC: there is no cache 'elsewhere' in CACHES"),
        ({"HEARTBEAT": 0}, "COPILOT_SYNC: heartbeat must be a number of seconds above zero"),
        ({"NAME_THREADS": "no"}, "COPILOT_SYNC: name_thread must be True or False, not str"),
        ({"COOKIES": {"user_session": 5}}, "COPILOT_SYNC: "),
    ],
    ids=[
        *("no dictionary", "a wrong name", "a small one", "a wrong value", "no cache", "no heartbeat", "no switch"),
        "no cookie",
    ],
)
def test_a_setting_that_can_not_be_used_is_told_by_the_check(setting: Any, message: str) -> None:
    """As an error, in the very words that the first use would raise."""
    with override_settings(COPILOT_SYNC=setting):
        (found,) = run_checks()
        assert (found.id, found.is_serious()) == ("copilot_sync.E001", True)
        assert re.match(message, found.msg)
        if "COOKIES" not in setting:
            with pytest.raises(ImproperlyConfigured, match=message):
                stream_response(RequestFactory().post("/chat"), "hi")


@pytest.mark.parametrize("name, value", [("MODLE", ""), ("TIMEOUT", "long"), ("HEARTBEAT", -1), ("TOKEN_CACHE", "no")])
def test_no_wrong_setting_shows_a_secret(name: str, value: Any) -> None:
    """Neither in an error nor in the variables with which Django's page for developers shows it."""
    with override_settings(COPILOT_SYNC={"COOKIES": {"user_session": "planted"}, name: value}):
        with pytest.raises(ImproperlyConfigured) as caught:
            stream_response(RequestFactory().post("/chat"), "hi")
    assert variables_with("planted", caught.value) == []


@pytest.mark.parametrize(
    ("cookies", "words"),
    [(None, "COPILOT_SYNC_COOKIES"), ("/no/such/cookies.txt", "there is no cookie file '/no/such/cookies.txt'")],
)
def test_missing_credentials_are_a_warning(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, cookies: Any, words: str
) -> None:
    """It names what can be set, or the file that is not there; a site may be built and tested without."""
    monkeypatch.chdir(tmp_path)
    with override_settings(COPILOT_SYNC={"COOKIES": cookies}):
        monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: iter(()))
        (found,) = run_checks()
    assert (found.id, found.is_serious()) == ("copilot_sync.W001", False)
    hint = str(found.hint)
    assert "COPILOT_SYNC['COOKIES']" in hint
    assert words in hint


@pytest.mark.parametrize("given", ["cookies", "key", "variable"])
def test_credentials_that_are_there_need_no_word(
    emulator: Emulator, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they are; and the service is not asked."""
    setting = {"cookies": {"COOKIES": emulator.cookies}, "key": {"API_KEY": emulator.api_key}, "variable": {}}[given]
    if given == "variable":
        monkeypatch.setenv("COPILOT_SYNC_API_KEY", emulator.api_key)
    with override_settings(COPILOT_SYNC=setting):
        assert run_checks() == []
    assert emulator.requests == []


@pytest.mark.parametrize("alias", ["default", "tokens"])
def test_tokens_are_kept_in_a_cache(emulator: Emulator, alias: str) -> None:
    """Two clients, as two processes have them, fetch one token."""
    options = {} if alias == "default" else {"TOKEN_CACHE": alias}
    for _ in range(2):
        with override_settings(COPILOT_SYNC=configuration(emulator, **options)):
            get_client().ask("hi")
    assert emulator.tokens_issued == 1
    with override_settings(COPILOT_SYNC=configuration(emulator, TOKEN_CACHE=None)):
        get_client().ask("hi")
    assert emulator.tokens_issued == 2


@pytest.mark.usefixtures("_three_comments")
def test_the_heartbeat_is_the_one_that_is_set(emulator: Emulator) -> None:
    """Comments come while the service is silent."""
    with override_settings(COPILOT_SYNC=configuration(emulator, HEARTBEAT=0.02)):
        response: Any = stream_response(RequestFactory().post("/chat"), "hi")
        assert b"".join(response).count(sse.COMMENT) >= 3
        response.close()


@pytest.mark.parametrize("asynchronous", [False, pytest.param(True, marks=needs_asynchronous_bodies)])
def test_a_new_conversation_gets_a_name(emulator: Emulator, asynchronous: bool) -> None:
    """After the first answer, unless the setting says otherwise."""
    page: Any = AsyncClient() if asynchronous else Client()

    def chat(name: str) -> None:
        if asynchronous:
            ask_asynchronously(page, "/async", prompt="hi", name=name)
        else:
            ask(page, prompt="hi", name=name)

    chat("chat")
    chat("chat")
    assert [request.stage for request in emulator.requests].count("rename") == 1
    with override_settings(COPILOT_SYNC=configuration(emulator, NAME_THREADS=False)):
        chat("other")
    assert [request.stage for request in emulator.requests].count("rename") == 1


def test_the_command_asks() -> None:
    """With the site's settings; the answer alone is on stdout."""
    out, err = io.StringIO(), io.StringIO()
    call_command("copilot_ask", "hi", "--model", "o1-mini", stdout=out, stderr=err)
    assert out.getvalue() == "one two\n"
    assert err.getvalue().startswith("conversation ")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_gets_nothing_from_the_command_to_obey(emulator: Emulator, terminal: bool) -> None:
    """A pipe gets every character."""

    class Out(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    emulator.reply = Reply(["one\x1b[2J", "\u202etwo"])
    out = Out()
    call_command("copilot_ask", "hi", stdout=out, stderr=io.StringIO())
    assert out.getvalue() == ("one\ufffd[2J\ufffdtwo\n" if terminal else "one\x1b[2J\u202etwo\n")


@pytest.mark.parametrize(
    "arguments, words", [(["hi"], "503"), (["hi", "--conversation", "a\nb"], "conversation"), ([" "], "empty")]
)
def test_the_command_says_what_is_wrong(emulator: Emulator, arguments: List[str], words: str) -> None:
    """In one sentence, without a traceback."""
    emulator.fail("thread", Fault.status(503))
    with pytest.raises(CommandError, match=words):
        call_command("copilot_ask", *arguments)


def test_each_visitor_of_a_site_has_a_budget(emulator: Emulator, engine: str) -> None:
    """Who has a session, that is. Without one, with one that was made up, or in a cookie, there is the site's alone."""
    with override_settings(COPILOT_SYNC=configuration(emulator, BUDGET=Budget(per_user={"requests": 1}))):
        ann, bob, mallory = Client(), Client(), Client()
        mallory.cookies["sessionid"] = "a" * 32
        assert [ask(page, prompt="hi")[-1]["type"] for page in (ann, ann, mallory, mallory)] == ["complete"] * 4
        for page in (ann, bob):
            page.post("/write")
            assert ask(page, prompt="hi")[-1]["type"] == "complete"
        *_, end = ask(ann, prompt="hi")
        assert end.get("code") == (None if engine == "signed_cookies" else "quota_exceeded")


def asked_by(who: Any, **options: Any) -> Dict[str, Any]:
    """The end of an answer, or of another one, to a user who may have logged in."""
    request = RequestFactory().post("/chat")
    request.user = who
    respond = retry_response(request, **options) if "conversation" in options else None
    response: Any = respond or stream_response(request, "hi", **options)
    body = b"".join(response)
    response.close()
    return events(body)[-1]


def test_each_user_who_has_logged_in_has_a_budget(emulator: Emulator) -> None:
    """Whatever the session. A view may say who it is."""
    ann, bob, nobody = (SimpleNamespace(is_authenticated=pk is not None, pk=pk) for pk in (1, 2, None))
    with override_settings(COPILOT_SYNC=configuration(emulator, BUDGET=Budget(per_user={"requests": 1}))):
        conversation = asked_by(ann)["conversation_id"]
        assert [asked_by(user)["type"] for user in (bob, nobody, nobody)] == ["complete"] * 3
        assert asked_by(ann)["code"] == "quota_exceeded"
        assert asked_by(ann, conversation=conversation)["code"] == "quota_exceeded"
        assert [asked_by(ann, user=user)["type"] for user in (None, "ann")] == ["complete"] * 2
        assert asked_by(bob, user="ann")["code"] == "quota_exceeded"


def test_without_a_budget_nobody_looks_who_asks(emulator: Emulator) -> None:
    """To look may ask the database."""

    class Unasked:
        is_authenticated: Any = property(lambda self: pytest.fail("it was asked"))

    for budget in (None, Budget(per_day={"requests": 9})):
        with override_settings(COPILOT_SYNC=configuration(emulator, BUDGET=budget)):
            assert asked_by(Unasked())["type"] == "complete"


def test_data_is_answered_as_json(emulator: Emulator, page: Client, engine: str) -> None:
    """What does not fit is asked for again. Every kind of session gets the id of the answer: it is saved after it."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    emulator.script("Well.", '{"year": 1843}', '{"year": 1852}')
    response = page.post("/data", {"prompt": "When?", "name": "chat"})
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    answer = response.json()
    assert (answer["type"], answer["parsed"], answer["text"]) == ("complete", {"year": 1843}, '{"year": 1843}')
    (thread,) = emulator.threads.values()
    place = {"conversation_id": thread.id, "message_id": thread.messages[-1]["id"]}
    assert {name: answer[name] for name in place} == place
    assert page.get("/conversations").json() == {"chat": place}
    assert page.post("/data", {"prompt": "And she?", "name": "chat"}).json()["conversation_id"] == thread.id
    assert page.post("/data", {"prompt": " "}).status_code == 400


def test_data_that_is_not_to_be_had_is_told_to_the_page(emulator: Emulator, page: Client) -> None:
    """With the words and the codes of a stream's events. The session stays as it was."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    emulator.fail("message", Fault.status(402))
    response = page.post("/data", {"prompt": "When?", "name": "chat"})
    assert (response.status_code, response.json()["code"]) == (503, "quota_exceeded")
    response = page.post("/data", {"prompt": "When?", "name": "chat"})
    assert (response.status_code, response.json()["code"]) == (503, "invalid_answer")
    assert response.json()["conversation_id"] in emulator.threads
    assert page.get("/conversations").json() == {}


@needs_asynchronous_bodies
def test_data_under_asgi(emulator: Emulator) -> None:
    """The view is a coroutine; the answer is the same, so is a failure, and the conversation gets its name."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    emulator.reply = Reply('{"year": 1}')

    async def main() -> List[Any]:
        page = AsyncClient()
        answered = await page.post("/async-data", {"prompt": "When?", "name": "chat"})
        emulator.fail("message", Fault.status(402))
        failed = await page.post("/async-data", {"prompt": "When?", "name": "chat"})
        await sync_to_async(connections.close_all)()
        return [answered.json()["parsed"], failed.status_code, failed.json()["code"]]

    assert asyncio.run(main()) == [{"year": 1}, 503, "quota_exceeded"]
    assert [request.stage for request in emulator.requests].count("rename") == 1


@needs_asynchronous_bodies
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_data_is_awaited_by_the_loop_alone(emulator: Emulator, is_cancelled: bool) -> None:
    """Django has one thread for all blocking code, and that is free meanwhile. A cancelled view ends its call."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    go_on = threading.Event()
    emulator.script(lambda prompt: go_on.wait(PATIENCE) and '{"year": 1}')

    def is_sent() -> bool:
        return "message" in [request.stage for request in emulator.requests]

    async def main() -> Any:
        view = asyncio.ensure_future(AsyncClient().post("/async-data", {"prompt": "When?", "name": "chat"}))
        await asyncio.get_running_loop().run_in_executor(None, wait_until, is_sent)
        if is_cancelled:
            view.cancel()
            await asyncio.wait([view])
        await sync_to_async(go_on.set)()
        await asyncio.wait([view])
        await sync_to_async(connections.close_all)()
        return None if view.cancelled() else view.result().json()["parsed"]

    assert asyncio.run(main()) == (None if is_cancelled else {"year": 1})


def test_a_conversation_begun_for_data_gets_a_name(emulator: Emulator) -> None:
    """When the page has its answer, unless the setting says otherwise, and without a name in the session too."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    emulator.reply = Reply('{"year": 1}')
    stages = []
    for named in (True, False):
        with override_settings(COPILOT_SYNC=configuration(emulator, NAME_THREADS=named)):
            response = data(RequestFactory().post("/data", {"prompt": "When?"}))
            stages.append([request.stage for request in emulator.requests].count("rename"))
            response.close()
            stages.append([request.stage for request in emulator.requests].count("rename"))
    assert stages == [0, 1, 1, 1]
