"""Conversations in Django's session that the service does not know any more."""

import asyncio
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

import pytest
from emulated import MISSING_REFERENCE
from support import PATIENCE, configure_django, events

pytest.importorskip("django")

import django
from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, override_settings
from django.urls import path

from copilot_sync.contrib import sse
from copilot_sync.contrib.django import (
    aask_response,
    ask_response,
    astream_response,
    conversations,
    forget,
    retry_response,
    stream_response,
)
from copilot_sync.emulator import Emulator, Fault

needs_asynchronous_bodies = pytest.mark.skipif(django.VERSION < (4, 2), reason="Django 4.2 brought asynchronous bodies")
configure_django()


def chat(request: HttpRequest) -> Any:
    return stream_response(request, request.POST["prompt"], name="chat")


async def chat_asynchronously(request: HttpRequest) -> Any:
    return await astream_response(request, request.POST["prompt"], name="chat")


def whole(request: HttpRequest) -> Any:
    return ask_response(request, request.POST["prompt"], name="chat")


async def whole_asynchronously(request: HttpRequest) -> Any:
    return await aask_response(request, request.POST["prompt"], name="chat")


def retry(request: HttpRequest) -> Any:
    return retry_response(request, name="chat", conversation=request.POST.get("conversation"))


def listed(request: HttpRequest) -> HttpResponse:
    return JsonResponse({name: each.conversation_id for name, each in conversations(request).items()})


def put(request: HttpRequest) -> HttpResponse:
    for name, value in request.POST.items():
        request.session[name] = value
    return HttpResponse()


def leave(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse()


def begin_anew(request: HttpRequest) -> HttpResponse:
    forget(request, "chat")
    conversation = stream_response(request, "another", name="chat")
    conversation.close()
    return HttpResponse()


urlpatterns = [
    path("put", put),
    path("leave", leave),
    path("new", begin_anew),
    path("chat", chat),
    path("async", chat_asynchronously),
    path("whole", whole),
    path("async-whole", whole_asynchronously),
    path("retry", retry),
    path("conversations", listed),
]


@pytest.fixture(autouse=True)
def _site(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A site whose sessions are in cookies: they can't change any more when an answer streams."""
    monkeypatch.setattr(sse, "TAKING", PATIENCE)  # a busy machine may take more than a second to refuse
    options = {"API_KEY": emulator.api_key, "API_URL": emulator.api_url, "RETRY": None, "LEDGER": False}
    engine = "django.contrib.sessions.backends.signed_cookies"
    with override_settings(COPILOT_SYNC=options, ROOT_URLCONF=__name__, SESSION_ENGINE=engine):
        yield


def end_of(response: Any) -> Dict[str, Any]:
    """Return the last event of a stream, or the object of a response that is whole."""
    if response["Content-Type"] == "application/json":
        found: Dict[str, Any] = response.json()
        return found
    return events(response.getvalue())[-1]


@pytest.mark.parametrize("place", ["/chat", "/whole", "/async-whole", "/retry"])
def test_a_conversation_that_is_gone_is_forgotten(emulator: Emulator, place: str) -> None:
    """The page is told, and its next question begins a new one. Another failure changes nothing."""
    page = Client()
    first = end_of(page.post("/chat", {"prompt": "one"}))["conversation_id"]
    emulator.fail("message", Fault.status(402))
    assert end_of(page.post("/chat", {"prompt": "two"}))["code"] == "quota_exceeded"
    assert page.get("/conversations").json() == {"chat": first}
    emulator.threads.clear()
    end = end_of(page.post(place, {"prompt": "three"}))
    assert (end["type"], end["code"], end["conversation_id"]) == ("error", "not_found", first)
    assert page.get("/conversations").json() == {}
    assert end_of(page.post("/chat", {"prompt": "four"}))["conversation_id"] in emulator.threads


@pytest.mark.parametrize("place", ["/chat", "/whole", "/async-whole"])
def test_a_conversation_in_which_something_else_is_gone_stays(emulator: Emulator, place: str) -> None:
    """Such as a repository: the service has begun to answer in that conversation."""
    page = Client()
    first = end_of(page.post("/chat", {"prompt": "one"}))["conversation_id"]
    emulator.fail("message", MISSING_REFERENCE)
    response = page.post(place, {"prompt": "two"})
    assert response.status_code == (200 if place == "/chat" else 503)
    assert end_of(response)["code"] == "not_found"
    assert page.get("/conversations").json() == {"chat": first}


def test_only_the_conversation_that_is_gone_is_forgotten(emulator: Emulator) -> None:
    """Not another one of that name, which the view has passed over."""
    page = Client()
    kept = end_of(page.post("/chat", {"prompt": "one"}))["conversation_id"]
    assert end_of(page.post("/retry", {"conversation": "gone"}))["code"] == "not_found"
    assert page.get("/conversations").json() == {"chat": kept}


class Meanwhile:
    """A page of one session, whose question has other requests of the same session made before it is refused."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.page = Client(raise_request_exception=False)
        self.conversation = end_of(self.page.post("/chat", {"prompt": "one"}))["conversation_id"]

    def ask(self, place: str, then: Callable[[Client], object], *, is_gone: bool = True) -> Any:
        """Ask at a place, and let the other requests be made while it waits for the service."""
        another = Client()
        another.cookies.load(self.page.cookies.output(attrs=[], header="", sep=";"))
        if is_gone:
            del self.emulator.threads[self.conversation]
        asking = threading.Event()

        def choose_fault(stage: str, request: Any) -> Optional[Fault]:
            if not asking.is_set():
                asking.set()
                then(another)
            return None

        self.emulator.choose_fault = choose_fault
        response = self.page.post(place, {"prompt": "two"})
        if response.status_code != 400:
            end_of(response)
        self.emulator.choose_fault = None
        assert asking.is_set()
        return response


@pytest.fixture
def meanwhile(emulator: Emulator, tmp_path: Path) -> Iterator[Meanwhile]:
    engine = "django.contrib.sessions.backends.file"
    with override_settings(SESSION_ENGINE=engine, SESSION_FILE_PATH=str(tmp_path)):
        yield Meanwhile(emulator)


@pytest.mark.parametrize("place", ["/chat", "/whole", "/async-whole", "/retry"])
@pytest.mark.parametrize("is_gone", [True, False])
def test_what_other_requests_kept_meanwhile_stays(meanwhile: Meanwhile, place: str, is_gone: bool) -> None:
    """Django saves a session as a whole, and a view that waits for the service was given it long before."""
    meanwhile.ask(place, lambda another: another.post("/put", {"cart": "full"}), is_gone=is_gone)
    session = meanwhile.page.session
    assert session["cart"] == "full"
    assert list(session["copilot_sync"]) == ([] if is_gone else ["chat"])


def test_a_conversation_that_was_begun_meanwhile_is_not_forgotten(meanwhile: Meanwhile) -> None:
    """It has the same name, and another request has begun it in the place of the one that is gone."""
    meanwhile.ask("/chat", lambda another: another.post("/new"))
    (kept,) = meanwhile.page.get("/conversations").json().values()
    assert kept != meanwhile.conversation
    assert kept in meanwhile.emulator.threads


def test_a_session_that_was_deleted_meanwhile_stays_deleted(meanwhile: Meanwhile) -> None:
    """Its visitor has logged out, which Django says."""
    response = meanwhile.ask("/chat", lambda another: another.post("/leave"))
    assert response.status_code == 400
    assert not meanwhile.page.session.keys()


@needs_asynchronous_bodies
def test_under_asgi_a_conversation_that_is_gone_is_forgotten_too(emulator: Emulator) -> None:
    """The event loop asks before the session is sent, and what came meanwhile comes with the rest."""

    async def ask(page: AsyncClient) -> Any:
        response: Any = await page.post("/async", {"prompt": "hi there"})
        body = b"".join([part async for part in response.streaming_content])
        await sync_to_async(response.close)()
        return events(body)

    async def visit() -> Any:
        page, found = AsyncClient(), []
        for is_gone in (False, False, True, False):
            if is_gone:
                emulator.threads.clear()
            found.append(await ask(page))
        return found

    first, second, third, fourth = asyncio.run(visit())
    assert "".join(event.get("text", "") for event in second) == "hi there"
    ids = [each[-1]["conversation_id"] for each in (first, second, third, fourth)]
    assert ids[:3] == [ids[0]] * 3
    assert third[-1]["code"] == "not_found"
    assert (fourth[-1]["type"], ids[3] in emulator.threads) == ("complete", True)


@needs_asynchronous_bodies
def test_a_response_that_no_loop_has_asked_for_is_read_by_any(emulator: Emulator) -> None:
    """Such as that of a view that a test calls. Nobody knows then which loop would have to ask before."""
    request = AsyncRequestFactory().post("/chat")
    request.session = SessionStore()

    async def read(response: Any) -> Any:
        return events(b"".join([part async for part in response.streaming_content]))

    for number in (1, 2):
        *pieces, end = asyncio.run(read(stream_response(request, "hi there", name="chat")))
        assert "".join(piece["text"] for piece in pieces) == "hi there"
        assert len(emulator.threads[end["conversation_id"]].user_messages) == number
