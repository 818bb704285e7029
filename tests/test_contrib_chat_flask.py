"""The chat page in Flask: its addresses, as its script uses them, over real connections."""

import json
import threading
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List

import pytest
from support import PATIENCE, events, nothing_left_open, wait_until

pytest.importorskip("flask")

import flask
import requests
from werkzeug.serving import make_server

from copilot_sync import RateLimit
from copilot_sync.contrib.chat import page as page_module
from copilot_sync.contrib.chat import readings
from copilot_sync.contrib.flask import KEY, CopilotSync
from copilot_sync.contrib.flask_chat import blueprint
from copilot_sync.emulator import Emulator, Fault, Reply


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            yield served


def make_app(emulator: Emulator, **settings: Any) -> flask.Flask:
    """An application with the chat page at /chat/, as its documentation has it."""
    app = flask.Flask("site")
    app.config.update(
        SECRET_KEY="a key for signing",
        COPILOT_SYNC_COOKIES=emulator.cookies,
        COPILOT_SYNC_GITHUB_URL=emulator.github_url,
        COPILOT_SYNC_API_URL=emulator.api_url,
        COPILOT_SYNC_RETRY=None,
        **settings,
    )
    CopilotSync(app)
    app.register_blueprint(blueprint, url_prefix="/chat")
    return app


@contextmanager
def serving(app: flask.Flask) -> Iterator[str]:
    """A server with threads; the address of the page."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/chat/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions[KEY].close()


@pytest.fixture
def site(emulator: Emulator) -> Iterator[str]:
    with serving(make_app(emulator)) as url:
        yield url


class Browser:
    """One visitor."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["X-CSRFToken"] = "same-origin"

    def get(self, place: str, **options: Any) -> Any:
        return self._session.get(self._url + place, timeout=3 * PATIENCE, **options)

    def post(self, place: str, form: Dict[str, str], **options: Any) -> Any:
        return self._session.post(self._url + place, data=form, timeout=3 * PATIENCE, **options)

    def ask(self, prompt: str, name: str = "chat", **more: str) -> List[Dict[str, Any]]:
        return events(self.post("ask", {"name": name, "prompt": prompt, **more}).content)

    def close(self) -> None:
        self._session.close()


@pytest.fixture
def browser(site: str) -> Iterator[Browser]:
    opened = Browser(site)
    yield opened
    opened.close()


@pytest.fixture
def stranger(site: str) -> Iterator[Browser]:
    opened = Browser(site)
    yield opened
    opened.close()


def text_of(found: List[Dict[str, Any]]) -> str:
    return "".join(event.get("text", "") for event in found)


def read_piece(lines: Iterator[bytes]) -> str:
    """Read until there is text, and return the id of its event."""
    last_id = next(line for line in lines if line.startswith(b"id: ") and not line.endswith(b":0"))
    assert b'"content"' in next(lines)
    return last_id[4:].decode()


def settings_of(html: str) -> Dict[str, Any]:
    start = html.index('id="settings">') + len('id="settings">')
    found: Dict[str, Any] = json.loads(html[start : html.index("</script>", start)])
    return found


def test_the_page_has_its_addresses_and_its_language(browser: Browser) -> None:
    """And its files; nothing but its own script runs there."""
    response = browser.get("", headers={"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.8"})
    settings = settings_of(response.text)
    assert settings["language"] == "ru"
    assert settings["csrf"] == {"header": "X-CSRFToken", "token": "same-origin"}
    assert settings["urls"]["ask"] == "ask"
    assert settings["stop_on_leave"] is False
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert browser.get("assets/index.html").status_code == 200
    assert browser.get("assets/../service.py").status_code == 404


def test_another_protection_gives_its_token(emulator: Emulator) -> None:
    """As Flask-WTF offers it to templates."""
    app = make_app(emulator)
    app.jinja_env.globals["csrf_token"] = lambda: "</script>&"
    html = app.test_client().get("/chat/").get_data(as_text=True)
    assert settings_of(html)["csrf"]["token"] == "</script>&"
    app.extensions[KEY].close()


def test_an_answer_is_asked_for_kept_and_shown(emulator: Emulator, browser: Browser) -> None:
    """With its title; the next question follows, and a question can be edited or answered again."""
    first = browser.ask("Why?")
    assert (first[0]["type"], text_of(first), first[-1]["type"]) == ("started", "one two", "complete")
    ((listed),) = browser.get("conversations").json()["conversations"]
    assert (listed["name"], bool(listed["title"]), bool(listed["updated_at"])) == ("chat", True, True)
    shown = browser.get("messages", params={"name": "chat"}).json()
    assert shown["answer"] is None
    assert [(each["role"], each["text"]) for each in shown["messages"]] == [("user", "Why?"), ("assistant", "one two")]
    assert shown["messages"][1]["id"] == first[-1]["message_id"]
    browser.ask("And then?", parent_message_id=first[-1]["message_id"], model="gpt-5.4")
    again = events(browser.post("retry", {"name": "chat"}).content)
    assert again[0]["question"] == "And then?"
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["Why?", "And then?", "And then?"]
    assert len({message["parentMessageID"] for message in thread.user_messages[1:]}) == 1


def test_a_conversation_can_be_renamed_and_deleted(emulator: Emulator, browser: Browser) -> None:
    """Here and at the service; what is gone there already is no trouble."""
    browser.ask("Why?")
    renamed = browser.post("rename", {"name": "chat", "title": " Reasons "}).json()
    assert renamed["conversations"][0]["title"] == "Reasons"
    assert browser.post("rename", {"name": "another", "title": "x"}).json() == renamed
    emulator.fail("delete", Fault.status(404))
    assert browser.post("delete", {"name": "chat"}).json() == {"conversations": []}
    assert browser.post("delete", {"name": "chat"}).json() == {"conversations": []}
    assert browser.get("messages", params={"name": "chat"}).json() == {"messages": [], "answer": None}
    assert browser.get("models").json()["models"][0].keys() == {"id", "name"}


def test_the_newest_conversation_is_the_first(emulator: Emulator, browser: Browser) -> None:
    """Also without titles, which the service may not be able to say."""
    browser.ask("first", "a")
    browser.ask("second", "b")
    browser.ask("third", "a")
    listed = browser.get("conversations").json()["conversations"]
    assert [each["name"] for each in listed] == ["a", "b"]
    emulator.fail("threads", Fault.status(500))
    listed = browser.get("conversations").json()["conversations"]
    assert [(each["name"], each["title"]) for each in listed] == [("b", None), ("a", None)]


def test_a_visitor_keeps_twelve_conversations(browser: Browser) -> None:
    """As many as a cookie has room for; the oldest make room."""
    for number in range(13):
        browser.ask("Why?", f"chat {number}")
    names = {each["name"] for each in browser.get("conversations").json()["conversations"]}
    assert names == {f"chat {number}" for number in range(1, 13)}


def test_an_answer_goes_on_after_a_reload(emulator: Emulator, browser: Browser, stranger: Browser) -> None:
    """Its conversation says that it is under way; nobody but its visitor can follow or stop it."""
    go_on = threading.Semaphore(0)

    def halves(prompt: str) -> Iterator[str]:
        yield "one "
        go_on.acquire(timeout=PATIENCE)
        yield "two"

    browser.ask("first")
    emulator.reply = Reply(halves)
    response = browser.post("ask", {"name": "chat", "prompt": "Why?"}, stream=True)
    piece = read_piece(response.iter_lines(chunk_size=1))
    shown = browser.get("messages", params={"name": "chat"}).json()
    assert shown["answer"] == {"id": piece.split(":")[0], "question": "Why?"}
    assert [each["text"] for each in shown["messages"]] == ["first", "one two"]
    assert stranger.get("answer", params={"name": "chat"}).status_code == 204
    stranger.post("stop", {"name": "chat"})
    response.close()
    go_on.release()
    rest = browser.get("answer", params={"name": "chat"}, headers={"Last-Event-ID": piece})
    assert text_of(events(rest.content)) == "two"
    again = browser.get("answer", params={"name": "chat", "last_event_id": "x"})
    assert text_of(events(again.content)) == "one two"
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["first", "Why?"]


def test_an_answer_can_be_stopped_from_another_tab(emulator: Emulator, browser: Browser) -> None:
    """Then there is nothing to go on with."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    response = browser.post("ask", {"name": "chat", "prompt": "Why?"}, stream=True)
    lines = response.iter_lines(chunk_size=1)
    read_piece(lines)
    assert browser.post("stop", {"name": "chat"}).json() == {}
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)
    assert b'"stopped"' in b"".join(lines)
    assert browser.get("messages", params={"name": "chat"}).json()["answer"] is None


def test_to_delete_a_conversation_ends_its_answer(emulator: Emulator, browser: Browser) -> None:
    """In another tab; nobody pays for what nobody can read any more."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    response = browser.post("ask", {"name": "chat", "prompt": "Why?"}, stream=True)
    lines = response.iter_lines(chunk_size=1)
    read_piece(lines)
    assert browser.post("delete", {"name": "chat"}).json() == {"conversations": []}
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)
    assert b'"stopped"' in b"".join(lines)


def test_a_question_that_waits_for_its_turn_says_so(emulator: Emulator) -> None:
    """In a conversation that is known; stop ends the wait as well."""
    with serving(make_app(emulator, COPILOT_SYNC_RATE_LIMIT=RateLimit(per_minute=1))) as url:
        browser = Browser(url)
        browser.ask("Why?")
        response = browser.post("ask", {"name": "chat", "prompt": "And then?"}, stream=True)
        lines = response.iter_lines(chunk_size=1)
        waiting = next(line for line in lines if b'"waiting"' in line)
        assert json.loads(waiting[6:])["reason"] == "limit"
        browser.post("stop", {"name": "chat"})
        assert b'"stopped"' in b"".join(lines)
        browser.close()
    (thread,) = emulator.threads.values()
    assert len(thread.user_messages) == 1


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
def test_the_messages_end_before_the_question_under_way(emulator: Emulator, browser: Browser, listed: bool) -> None:
    """Whether the service has it already or not, and whether or not it lists what there is of the answer."""
    emulator.options.list_partial = True
    emulator.fail("message", Fault.stall(("after_events", 1)))
    response = browser.post("ask", {"name": "chat", "prompt": "Why?"}, stream=True)
    read_piece(response.iter_lines(chunk_size=1))
    if not listed:
        (thread,) = emulator.threads.values()
        thread.messages[:] = [message for message in thread.messages if message["role"] != "user"]
    shown = browser.get("messages", params={"name": "chat"}).json()
    assert shown["messages"] == []
    assert shown["answer"]["question"] == "Why?"
    response.close()


def test_an_answer_is_read_on_in_the_background(emulator: Emulator) -> None:
    """If the site wants that."""
    go_on = threading.Semaphore(0)

    def halves(prompt: str) -> Iterator[str]:
        yield "one "
        go_on.acquire(timeout=PATIENCE)
        yield "two"

    emulator.reply = Reply(halves)
    with serving(make_app(emulator, COPILOT_SYNC_CHAT_BACKGROUND=PATIENCE)) as url:
        browser = Browser(url)
        response = browser.post("ask", {"name": "chat", "prompt": "Why?"}, stream=True)
        piece = read_piece(response.iter_lines(chunk_size=1))
        response.close()
        go_on.release()
        shown = {"name": "chat"}
        wait_until(lambda: browser.get("messages", params=shown).json()["answer"] is None)
        rest = browser.get("answer", params=shown, headers={"Last-Event-ID": piece})
        assert events(rest.content)[-1]["type"] == "complete"
        browser.close()
    assert not emulator.disconnects


@pytest.mark.parametrize(
    "place, form",
    [
        ("ask", {"prompt": "Why?"}),
        ("ask", {"name": "", "prompt": "Why?"}),
        ("ask", {"name": "x" * 61, "prompt": "Why?"}),
        ("ask", {"name": "chat", "prompt": " "}),
        ("retry", {"name": "chat"}),
        ("rename", {"name": "chat", "title": " "}),
        ("rename", {"name": "chat", "title": "x" * 201}),
    ],
)
def test_what_the_page_never_sends_is_refused(browser: Browser, place: str, form: Dict[str, str]) -> None:
    """In the form that it knows."""
    response = browser.post(place, form)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


def test_another_site_can_not_ask(emulator: Emulator, site: str) -> None:
    """The header field is missing then."""
    with requests.Session() as session:
        session.trust_env = False
        response = session.post(f"{site}ask", data={"name": "chat", "prompt": "Why?"})
    assert response.status_code == 403
    assert emulator.requests == []


def test_failures_have_a_code(emulator: Emulator, browser: Browser) -> None:
    """And words for a person; the rest is in the log."""
    browser.ask("Why?")
    emulator.fail("messages", Fault.status(429, message="words of the service", retry_after=7))
    response = browser.get("messages", params={"name": "chat"})
    assert response.status_code == 502
    assert (response.json()["code"], response.json()["retry_after"]) == ("rate_limited", 7)
    assert "words of the service" not in response.text


@pytest.mark.parametrize("place", ["messages", "rename"])
def test_a_conversation_that_the_service_has_forgotten_leaves_the_list(
    emulator: Emulator, browser: Browser, place: str
) -> None:
    """As soon as the site finds out. Another failure changes nothing."""
    browser.ask("Why?")

    def look() -> Any:
        if place == "rename":
            return browser.post("rename", {"name": "chat", "title": "Reasons"}).json()
        return browser.get("messages", params={"name": "chat"}).json()

    emulator.fail(place, Fault.status(402))
    assert look()["code"] == "quota_exceeded"
    assert len(browser.get("conversations").json()["conversations"]) == 1
    emulator.threads.clear()
    assert look()["code"] == "not_found"
    assert browser.get("conversations").json() == {"conversations": []}


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("CHAT_BACKGROUND", -1, ValueError),
        ("CHAT_BACKGROUND", True, TypeError),
        ("CHAT_STOP_ON_LEAVE", "no", TypeError),
    ],
)
def test_settings_that_can_not_be_used_are_refused_at_once(
    emulator: Emulator, name: str, value: Any, error: Any
) -> None:
    """When the application is made."""
    with pytest.raises(error, match=name.lower()):
        make_app(emulator, **{f"COPILOT_SYNC_{name}": value})


def test_the_page_is_told_to_end_its_answer_when_it_is_left(emulator: Emulator) -> None:
    """If the site says so."""
    page = make_app(emulator, COPILOT_SYNC_CHAT_STOP_ON_LEAVE=True).test_client().get("/chat/")
    assert settings_of(page.text)["stop_on_leave"] is True


@pytest.mark.parametrize(
    "accepted, language",
    [
        (None, "en"),
        ("", "en"),
        ("de", "en"),
        ("ru", "ru"),
        ("de,ru;q=0.5", "ru"),
        ("en;q=0.8,ru;q=0.9", "ru"),
        ("en-GB,ru", "en"),
        ("ru;q=x", "en"),
        ("ru;level=1", "en"),
    ],
)
def test_the_page_is_in_a_language_that_its_visitor_reads(accepted: Any, language: str) -> None:
    """English for all others."""
    assert page_module.language_of(accepted) == language


def test_comments_come_often_enough_for_stop() -> None:
    """A browser that has gone is noticed within a second."""
    assert readings.HEARTBEAT < 0.5
