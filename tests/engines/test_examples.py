"""The examples as their visitors have them: real servers, and a real browser without a window."""

import os
import re
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
import requests
from chat_pages import Page
from servers import wait_for_port
from support import PATIENCE, reserved_port

from copilot_sync.emulator import Emulator, Fault

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("gunicorn")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "examples.rst").read_text(encoding="utf-8")
#: As the page has them: one that serves Flask with threads, one that serves Django with gevent.
COMMANDS = re.findall(r" (gunicorn .+)$", PAGE, re.MULTILINE)
(GTHREAD, FLASK), (GEVENT, DJANGO) = (command.rsplit(" ", 1) for command in COMMANDS)
IN_PRODUCTION = {
    "Flask, gthread": f"{GTHREAD} {FLASK}",
    "Flask, gevent": f"{GEVENT} {FLASK}",
    "Django, gthread": f"{GTHREAD} {DJANGO}",
    "Django, gevent": f"{GEVENT} {DJANGO}",
    "Django, ASGI": "uvicorn examples.django_chat.asgi:application",
}
SERVERS = {**IN_PRODUCTION, "Django, runserver": "python -m examples.django_chat runserver"}
CHATS = {"Flask": f"{GTHREAD} --workers 1 {FLASK}", "Django": f"{GTHREAD} --workers 1 {DJANGO}"}
#: What signs the sessions, and is to be seen nowhere.
SECRET_KEY = "the key that signs the sessions of the examples"
#: Seconds: far more than any of it takes, so that what holds an answer back is told from a machine that is busy.
AT_ONCE = 1.0

in_production = pytest.mark.parametrize("command", IN_PRODUCTION.values(), ids=IN_PRODUCTION)
on_all_servers = pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
in_both = pytest.mark.parametrize("command", CHATS.values(), ids=CHATS)

Serve = Callable[..., int]
Open = Callable[..., "Page"]

#: All texts that the answer's place has had, each with the time when it was there.
WATCH = """
window.seen = [];
new MutationObserver(() => {
    const answers = document.querySelectorAll(".assistant .body");
    if (answers.length) window.seen.push([Date.now() / 1000, answers[answers.length - 1].textContent]);
}).observe(document.getElementById("turns"), {childList: true, characterData: true, subtree: true});
"""


def has_had(page: Page, text: str) -> bool:
    """Whether the answer has been this text at some time, since the page is watched."""
    return text in [seen for _, seen in page.run("return window.seen")]


@pytest.fixture
def start_chat(serve: Serve, tmp_path: Path) -> Callable[..., str]:
    """Start a chat and give its address. What it logs goes into a file, and it ends without waiting for the browser."""

    def begin(command: str, **environment: str) -> str:
        at_end = ["--graceful-timeout", "0"] if command.startswith("gunicorn") else []
        with open(tmp_path / "log", "w", encoding="utf-8") as log:
            port = serve(command, *at_end, cwd=ROOT, stderr=log, env={"SECRET_KEY": SECRET_KEY, **environment})
        return f"http://127.0.0.1:{port}/"

    return begin


@pytest.fixture
def open_page(chromium: Any, start_chat: Callable[..., str], tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Start a chat and open its page, as one who was never there. Neither browser nor server may complain."""
    pages: List[Page] = []

    def begin(command: str, **environment: str) -> Page:
        page = Page(chromium, start_chat(command, **environment))
        page.load()
        pages.append(page)
        return page

    yield begin
    for page in pages:
        complaints = page.complaints()
        page.forget_all()
        assert complaints == []
        assert "Warning: " not in (tmp_path / "log").read_text(encoding="utf-8")


@on_all_servers
def test_pieces_are_seen_one_after_another(emulator: Emulator, open_page: Open, command: str) -> None:
    """The service says a piece only when the one before stands on the page: nothing on the way waits for more."""
    page = open_page(command)
    page.hear("Are you there?")
    page.run(WATCH)
    go_on = threading.Semaphore(0)
    said: List[float] = []

    def words() -> Iterator[str]:
        for word in ("one ", "two ", "three"):
            said.append(time.time())
            yield word
            assert go_on.acquire(timeout=PATIENCE)

    emulator.reply = lambda prompt: words()
    page.ask("Count")
    for text in ("one", "one two", "one two three"):
        page.wait(partial(has_had, page, text))
        assert page.is_shown("#stop")
        go_on.release()
    page.wait(lambda: page.at_rest)
    first = next(at for at, text in page.run("return window.seen") if text == "one")
    print(f"{first - said[0]:.3f} s from the service's first event to the page")
    assert first - said[0] < AT_ONCE
    assert page.answers == ["Are you there?", "one two three"]


@in_production
def test_stop_is_noticed_by_the_service_within_a_second(emulator: Emulator, open_page: Open, command: str) -> None:
    """Although the model is silent; what it has said stays, and the next question is answered."""
    emulator.fail("message", Fault.stall(("after_events", 2)))
    page = open_page(command)
    page.ask("one two three")
    assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
    page.wait(lambda: page.answers == ["one two"])
    pressed = time.monotonic()
    page.find("#stop").click()
    assert emulator.wait_until(lambda: emulator.disconnects)
    print(f"{emulator.disconnects[0].time - pressed:.3f} s from Stop to the end of the connection to the service")
    assert emulator.disconnects[0].time - pressed < 1
    page.wait(lambda: page.at_rest)
    assert page.answers == ["one two"]
    assert page.notes == ["You stopped this answer."]
    page.hear("and now?")
    assert page.answers == ["one two", "and now?"]


@in_production
def test_conversations_stay_until_they_are_deleted(emulator: Emulator, open_page: Open, command: str) -> None:
    """A reload shows what was said; the list goes from one conversation to another; each goes on where it was."""
    page = open_page(command)
    page.hear("first question")
    page.hear("and **another**")
    page.click("#new")
    page.wait(lambda: not page.questions)
    page.hear("something else")
    page.wait(lambda: page.titles == ["something else", "first question"])

    page.reload()
    page.wait(lambda: page.answers == ["something else"])
    page.wait(lambda: page.titles == ["something else", "first question"])
    page.click("#conversations li:last-child a")
    page.wait(lambda: page.answers == ["first question", "and another"])
    assert page.questions == ["first question", "and **another**"]
    page.reload()
    page.wait(lambda: page.answers == ["first question", "and another"])
    page.hear("the third")
    thread = next(iter(emulator.threads.values()))
    followed = [question["parentMessageID"] for question in thread.user_messages[1:]]
    assert followed == [answer["id"] for answer in thread.assistant_messages[:-1]]

    page.wait(lambda: page.titles == ["first question", "something else"])
    page.click('[aria-label="Delete “first question”"]')
    assert page.titles == ["something else"]
    page.wait(lambda: page.questions == [])
    page.wait(lambda: page.requests("delete"))
    assert [thread.user_messages[0]["content"] for thread in emulator.threads.values()] == ["something else"]
    page.driver.back()  # to a conversation that is no more
    page.wait(lambda: page.find("#welcome").is_displayed())


@pytest.mark.parametrize(
    "arguments",
    [["examples.flask_chat", "--emulator", "--port"], ["examples.django_chat", "--emulator", "runserver"]],
    ids=["Flask", "Django"],
)
def test_one_command_shows_it_without_an_account(
    emulator: Emulator, start: Callable[..., Any], chromium: Any, arguments: List[str]
) -> None:
    """It brings an emulator of its own, whatever the environment says, and a key."""
    assert f"python -m {' '.join(arguments[:2])}\n" in PAGE
    with reserved_port() as port:
        start(["-m", *arguments, str(port)], env={"SECRET_KEY": ""})
        wait_for_port(port)
    page = Page(chromium, f"http://127.0.0.1:{port}/")
    page.load()
    page.hear("Are *you* there?")
    page.wait(lambda: page.answers[-1:] != [] and "copilot-sync doctor" in page.answers[-1])
    assert page.answers[-1].startswith("This is a demo.")
    assert emulator.requests == []


#: What a browser does behind a proxy that speaks HTTPS, on the way to the Django chat.
BEHIND_HTTPS = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "examples.django_chat.settings"
import django
django.setup()
from django.test import Client
browser = Client(enforce_csrf_checks=True, HTTP_HOST="localhost", HTTP_X_FORWARDED_PROTO="https")
token = browser.get("/").content.decode().split('"token": "')[1].split('"')[0]
asked = {"HTTP_X_CSRFTOKEN": token, "HTTP_ORIGIN": "https://localhost"}
print(browser.post("/stop", {"name": "a name"}, **asked).status_code, browser.cookies["csrftoken"]["secure"])
"""


def test_behind_https_the_page_may_ask() -> None:
    """What the proxy says counts, wherever the proxy is; the cookies go over HTTPS alone."""
    environment = {**os.environ, "HTTPS_ONLY": "1", "SECRET_KEY": SECRET_KEY}
    command = [sys.executable, "-c", BEHIND_HTTPS]
    assert subprocess.check_output(command, cwd=ROOT, env=environment, text=True, timeout=PATIENCE) == "200 True\n"


@in_both
def test_the_session_holds_as_many_conversations_as_a_cookie_can(
    emulator: Emulator, start_chat: Callable[..., str], command: str
) -> None:
    """The oldest is forgotten where there are more, so that a browser never refuses the cookie."""
    url = start_chat(command)
    words = ["".join(chr(0x4E00 + (each * 6151 + place * 7919) % 20000) for place in range(56)) for each in range(14)]
    names = [f"{number:03} {word}" for number, word in enumerate(words)]
    with requests.Session() as session:
        page = session.get(url)
        for answer in (page, session.get(url + "assets/chat.js"), session.get(url + "conversations")):
            policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        token = page.text.split('"token": "')[1].split('"')[0]
        for name in names:
            form = {"name": name, "prompt": "hi", "parent_message_id": ""}
            answer = session.post(url + "ask", form, headers={"X-CSRFToken": token})
            assert '"complete"' in answer.text
        form["name"] += "!"
        assert session.post(url + "ask", form, headers={"X-CSRFToken": token}).status_code == 400
        listed = session.get(url + "conversations").json()["conversations"]
        assert sorted(each["name"] for each in listed) == sorted(names[-12:])
        assert max(len(cookie.name + str(cookie.value)) for cookie in session.cookies) < 4000


@in_both
def test_a_service_that_is_down_is_told_as_that(
    emulator: Emulator, open_page: Open, tmp_path: Path, command: str
) -> None:
    """In words for a person; the log has the cause. The question is there to be asked again."""
    page = open_page(command)
    page.hear("Is it up?")
    token = secrets_of(emulator)
    emulator.close()
    page.hear("And now?")
    assert page.notes == ["The service can’t be reached at the moment."]
    assert page.texts(".failure button") == ["Try again"]
    assert page.answers == ["Is it up?"]
    nothing_secret(page, tmp_path, token, "NetworkError", "refused")


@in_both
def test_missing_credentials_are_told_as_that(
    emulator: Emulator, open_page: Open, tmp_path: Path, command: str
) -> None:
    """To the visitor nothing of what is missing is said, to the log all."""
    page = open_page(command, COPILOT_SYNC_COOKIES="")
    page.hear("Hello?")
    assert page.notes == ["The chat has not been set up on this server yet."]
    page.pardon_when_told("/models")
    nothing_secret(page, tmp_path, secrets_of(emulator), "MissingCredentialsError", "COPILOT_SYNC_COOKIES")


@in_both
def test_a_refusal_says_how_long_to_wait(emulator: Emulator, open_page: Open, tmp_path: Path, command: str) -> None:
    """Where the service does: in the answer's place, and where a conversation can't be shown."""
    page = open_page(command)
    emulator.fail("message", None, Fault.status(429, retry_after=50))
    page.hear("one")
    page.hear("too many")
    assert page.notes == ["There are too many questions at the moment."]
    assert re.fullmatch(r"Try again in 0:[45]\d", page.texts(".failure button")[0])
    emulator.fail("messages", Fault.status(429, retry_after=50))
    page.reload()
    page.wait(lambda: page.notes == ["There are too many questions at the moment."])
    page.pardon_when_told("502")
    nothing_secret(page, tmp_path, secrets_of(emulator), "RateLimitError", "429")


def secrets_of(emulator: Emulator) -> List[str]:
    """What is to be seen nowhere: the cookie, the key, and the tokens that were used."""
    headers = [request.headers.get("authorization") for request in emulator.requests]
    return [SECRET_KEY, *emulator.cookies.values(), *{header.split()[-1] for header in headers if header}]


def nothing_secret(page: Page, folder: Path, secrets: List[str], *causes: str) -> None:
    """Check that the log has the cause, and neither it nor the page a secret."""
    log = (folder / "log").read_text(encoding="utf-8")
    shown = page.run("return document.documentElement.outerHTML")
    for cause in causes:
        assert cause in log
        assert cause not in shown
    for secret in secrets:
        assert secret not in log
        assert secret not in shown
