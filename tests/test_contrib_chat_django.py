"""The chat page in Django: its addresses, under WSGI and ASGI, in sessions of each kind."""

import asyncio
import gc
import json
import threading
from typing import Any, Dict, Iterator, List

import pytest
from support import PATIENCE, configure_django, events, nothing_left_open, wait_until

pytest.importorskip("django")

import django
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import include, path

from copilot_sync.contrib.chat import bodies, bodies_async, kept_answers
from copilot_sync.contrib.django import get_client
from copilot_sync.emulator import Emulator, Fault, Reply

needs_asynchronous_bodies = pytest.mark.skipif(django.VERSION < (4, 2), reason="Django 4.2 brought asynchronous bodies")

urlpatterns = [path("chat/", include("copilot_sync.contrib.django.chat_urls"))]


@pytest.fixture(scope="module", autouse=True)
def _tables(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A database with the table of the sessions, and the thread that asgiref keeps for blocking code."""
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


@pytest.fixture(params=["db", "signed_cookies"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where sessions are."""
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{request.param}"):
        yield request.param


def configuration(emulator: Emulator, **more: Any) -> Dict[str, Any]:
    return {
        "COOKIES": emulator.cookies,
        "GITHUB_URL": emulator.github_url,
        "API_URL": emulator.api_url,
        "RETRY": None,
        **more,
    }


@pytest.fixture(autouse=True)
def _site(emulator: Emulator) -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__, COPILOT_SYNC=configuration(emulator)):
        yield
        get_client().close()
        connections.close_all()
    caches["default"].clear()


@pytest.fixture
def browser() -> Client:
    return Client()


def ask(browser: Client, prompt: str, name: str = "chat", **more: str) -> List[Dict[str, Any]]:
    response: Any = browser.post("/chat/ask", {"name": name, "prompt": prompt, **more})
    found = events(b"".join(response.streaming_content))
    response.close()
    return found


def text_of(found: List[Dict[str, Any]]) -> str:
    return "".join(event.get("text", "") for event in found)


def messages(browser: Client) -> Dict[str, Any]:
    found: Dict[str, Any] = browser.get("/chat/messages", {"name": "chat"}).json()
    return found


def read_piece(parts: Iterator[bytes]) -> str:
    """Read until there is text, and return the id of its event."""
    received = b""
    while b'"content"' not in received:
        received += next(parts)
    return received.rpartition(b"\nid: ")[2].partition(b"\n")[0].decode()


def halves(emulator: Emulator) -> threading.Semaphore:
    """Have the answer come in two halves, the second when it is let."""
    go_on = threading.Semaphore(0)

    def said(prompt: str) -> Iterator[str]:
        yield "one "
        go_on.acquire(timeout=PATIENCE)
        yield "two"

    emulator.reply = Reply(said)
    return go_on


def test_the_page_has_its_addresses_and_its_files(browser: Client) -> None:
    """With the token of Django's protection, which each question needs."""
    response: Any = browser.get("/chat/", headers={"Accept-Language": "ru"}, HTTP_ACCEPT_LANGUAGE="ru")
    html = response.content.decode()
    start = html.index('id="settings">') + len('id="settings">')
    settings = json.loads(html[start : html.index("</script>", start)])
    assert settings["csrf"]["header"] == "X-CSRFTOKEN"
    assert settings["csrf"]["token"]
    assert settings["language"] == "ru"
    assert settings["stop_on_leave"] is False
    assert "script-src 'self'" in response["Content-Security-Policy"]
    file = browser.get("/chat/assets/index.html")
    assert (file.status_code, file["Cache-Control"]) == (200, "no-cache")
    assert browser.get("/chat/assets/../service.py").status_code == 400
    strict = Client(enforce_csrf_checks=True)
    assert strict.post("/chat/ask", {"name": "chat", "prompt": "Why?"}).status_code == 403


def test_a_conversation_from_its_first_question_to_its_end(emulator: Emulator, browser: Client, engine: str) -> None:
    """Asked, answered again, shown, renamed and deleted."""
    first = ask(browser, "Why?")
    assert (first[0]["type"], text_of(first), first[-1]["type"]) == ("started", "one two", "complete")
    ask(browser, "And then?", parent_message_id=first[-1]["message_id"], model="gpt-5.4")
    response: Any = browser.post("/chat/retry", {"name": "chat"})
    again = events(b"".join(response.streaming_content))
    response.close()
    assert again[0]["question"] == "And then?"
    assert [each["text"] for each in messages(browser)["messages"]] == ["Why?", "one two", "And then?", "one two"]
    renamed = browser.post("/chat/rename", {"name": "chat", "title": "Reasons"}).json()
    assert renamed["conversations"][0]["title"] == "Reasons"
    assert browser.get("/chat/conversations").json() == renamed
    assert browser.get("/chat/models").json()["models"]
    assert browser.post("/chat/delete", {"name": "chat"}).json() == {"conversations": []}


def test_an_answer_goes_on_after_a_reload(emulator: Emulator, browser: Client, engine: str) -> None:
    """For its visitor, and for no other; the next question follows it."""
    go_on = halves(emulator)
    response: Any = browser.post("/chat/ask", {"name": "chat", "prompt": "Why?"})
    last_id = read_piece(response.streaming_content)
    assert messages(browser)["answer"]["question"] == "Why?"
    assert Client().get("/chat/answer", {"name": "chat"}).status_code == 204
    response.close()
    go_on.release()
    rest: Any = browser.get("/chat/answer", {"name": "chat"}, HTTP_LAST_EVENT_ID=last_id)
    found = events(b"".join(rest.streaming_content))
    rest.close()
    assert (text_of(found), found[-1]["type"]) == ("two", "complete")
    emulator.reply = Reply(["three"])
    ask(browser, "And then?", parent_message_id=found[-1]["message_id"])
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["Why?", "And then?"]


def test_an_answer_can_be_stopped(emulator: Emulator, browser: Client) -> None:
    """From another tab."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    response: Any = browser.post("/chat/ask", {"name": "chat", "prompt": "Why?"})
    read_piece(response.streaming_content)
    assert browser.post("/chat/stop", {"name": "chat"}).json() == {}
    assert b'"stopped"' in b"".join(response.streaming_content)
    response.close()
    assert messages(browser)["answer"] is None


def test_an_answer_is_read_on_in_the_background(emulator: Emulator, browser: Client) -> None:
    """It is saved in the session at its end, and the thread leaves no connection to the database open."""
    go_on = halves(emulator)
    with override_settings(COPILOT_SYNC=configuration(emulator, CHAT_BACKGROUND=PATIENCE)):
        response: Any = browser.post("/chat/ask", {"name": "chat", "prompt": "Why?"})
        read_piece(response.streaming_content)
        response.close()
        go_on.release()
        wait_until(lambda: messages(browser)["answer"] is None)
        wait_until(lambda: not bodies._reading_on)
        get_client().close()
    (thread,) = emulator.threads.values()
    kept = browser.session["copilot_sync"]["chat"]
    assert kept["message_id"] == thread.assistant_messages[0]["id"]


@needs_asynchronous_bodies
@pytest.mark.parametrize("background", [0.0, PATIENCE])
def test_under_asgi_an_answer_goes_on_too(emulator: Emulator, background: float) -> None:
    """Whether it was stopped when its reader left or read on."""
    go_on = halves(emulator)

    async def main() -> List[Dict[str, Any]]:
        browser = AsyncClient()
        response: Any = await browser.post("/chat/ask", {"name": "chat", "prompt": "Why?"})
        received = b""
        parts = response.streaming_content.__aiter__()
        while b'"content"' not in received:
            received += await parts.__anext__()
        await parts.aclose()
        await sync_to_async(response.close)()
        go_on.release()
        rest: Any = await browser.get("/chat/answer", {"name": "chat"})
        body = b"".join([part async for part in rest.streaming_content])
        await sync_to_async(rest.close)()
        await asyncio.get_running_loop().run_in_executor(None, wait_until, lambda: not bodies_async._finishing)
        return events(body)

    with override_settings(COPILOT_SYNC=configuration(emulator, CHAT_BACKGROUND=background)):
        found = asyncio.run(main())
        get_client().close()
    assert (text_of(found), found[-1]["type"]) == ("one two", "complete")
    (thread,) = emulator.threads.values()
    assert len(thread.user_messages) == 1


@pytest.mark.skipif(django.VERSION >= (4, 2), reason="asynchronous bodies are there")
def test_old_djangos_say_that_they_can_not(emulator: Emulator) -> None:  # pragma: some versions
    """Before anything is begun."""
    from copilot_sync.contrib.django import chat_views

    request: Any = RequestFactory().post("/chat/ask", {"name": "chat", "prompt": "Why?"})
    request.scope = {"type": "http"}
    request._dont_enforce_csrf_checks = True
    request.session = {}
    with pytest.raises(ImproperlyConfigured, match="from Django 4.2 on"):
        chat_views.ask(request)
    assert emulator.requests == []


@pytest.mark.parametrize(
    "place, form",
    [
        ("ask", {"prompt": "Why?"}),
        ("ask", {"name": "chat"}),
        ("retry", {"name": "chat"}),
        ("rename", {"name": "chat"}),
    ],
)
def test_what_the_page_never_sends_is_refused(browser: Client, place: str, form: Dict[str, str]) -> None:
    """In the form that it knows."""
    response = browser.post(f"/chat/{place}", form)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


def test_failures_have_a_code(emulator: Emulator, browser: Client) -> None:
    """And words for a person."""
    ask(browser, "Why?")
    emulator.fail("messages", Fault.status(429, retry_after=7))
    response = browser.get("/chat/messages", {"name": "chat"})
    assert (response.status_code, response.json()["code"]) == (502, "rate_limited")


def test_a_visitor_keeps_twelve_conversations(browser: Client) -> None:
    """As many as a cookie has room for; the oldest make room."""
    for number in range(13):
        ask(browser, "Why?", f"chat {number}")
    names = {each["name"] for each in browser.get("/chat/conversations").json()["conversations"]}
    assert names == {f"chat {number}" for number in range(1, 13)}


def test_the_cache_that_the_site_names_keeps_the_answers(emulator: Emulator, browser: Client) -> None:
    """By its name in ``CACHES``; a test that overrides the setting is heeded."""
    with override_settings(COPILOT_SYNC=configuration(emulator, CHAT_CACHE="tokens")):
        ask(browser, "Why?")
        get_client().close()
    (thread_id,) = emulator.threads
    key = f"copilot_sync:{kept_answers._PREFIX}:asked:{thread_id}"
    assert caches["tokens"].get(key)
    assert caches["default"].get(key) is None
    caches["tokens"].clear()
    assert browser.get("/chat/answer", {"name": "chat"}).status_code == 204
    with override_settings(ALLOWED_HOSTS=["testserver"]):
        assert browser.get("/chat/answer", {"name": "chat"}).status_code == 204


def test_the_page_is_told_to_end_its_answer_when_it_is_left(browser: Client, emulator: Emulator) -> None:
    """If the site says so."""
    with override_settings(COPILOT_SYNC=configuration(emulator, CHAT_STOP_ON_LEAVE=True)):
        assert '"stop_on_leave": true' in browser.get("/chat/").content.decode()


@pytest.mark.parametrize(
    "setting",
    [{"CHAT_BACKGROUND": -1}, {"CHAT_BACKGROUND": "long"}, {"CHAT_CACHE": "nowhere"}, {"CHAT_STOP_ON_LEAVE": "no"}],
    ids=["too short", "no number", "no cache", "no switch"],
)
def test_settings_that_can_not_be_used_are_found_by_a_check(emulator: Emulator, setting: Dict[str, Any]) -> None:
    """As ``manage.py check`` does it."""
    with override_settings(COPILOT_SYNC=configuration(emulator, **setting)):
        (error,) = [each for each in run_checks() if each.id == "copilot_sync.E001"]
    assert "COPILOT_SYNC" in error.msg
