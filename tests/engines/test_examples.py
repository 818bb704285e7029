"""The examples as their visitors have them: real servers, and a real browser without a window."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import requests
from servers import path_of
from support import PATIENCE

from copilot_sync.emulator import Emulator, Fault

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("flask_wtf")
pytest.importorskip("gunicorn")
pytest.importorskip("markdown_it")
webdriver = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

FLASK, DJANGO = "examples.flask_chat.app:app", "examples.django_chat.wsgi"
GTHREAD, GEVENT = (f"gunicorn --config gunicorn_{kind}.conf.py" for kind in ("gthread", "gevent"))
IN_PRODUCTION = {
    "Flask, gthread": f"{GTHREAD} {FLASK}",
    "Flask, gevent": f"{GEVENT} {FLASK}",
    "Django, gthread": f"{GTHREAD} {DJANGO}",
    "Django, gevent": f"{GEVENT} {DJANGO}",
    "Django, ASGI": "uvicorn examples.django_chat.asgi:application",
}
SERVERS = {**IN_PRODUCTION, "Django, runserver": "python -m examples.django_chat runserver"}
CHATS = {name: IN_PRODUCTION[f"{name}, gthread"] for name in ("Flask", "Django")}

#: What signs the sessions, and is to be seen nowhere.
SECRET_KEY = "the key that signs the sessions of the examples"
#: Seconds: far more than any of it takes, so that what holds an answer back is told from a machine that is busy.
AT_ONCE = 1.0

in_production = pytest.mark.parametrize("command", IN_PRODUCTION.values(), ids=IN_PRODUCTION)
on_all_servers = pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
in_both = pytest.mark.parametrize("command", CHATS.values(), ids=CHATS)

Serve = Callable[..., int]
Open = Callable[[str], "Page"]

#: All texts that the answer's place has had, each with the time when it was there.
WATCH = """
window.seen = [];
new MutationObserver(() => {
    const answers = document.querySelectorAll(".assistant .body");
    if (answers.length) window.seen.push([Date.now() / 1000, answers[answers.length - 1].textContent]);
}).observe(document.getElementById("turns"), {childList: true, characterData: true, subtree: true});
"""


class Page:
    """The chat in the browser, and what a person does there and sees."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url

    def load(self) -> None:
        self.driver.get(self.url)
        self.wait(lambda: self.at_rest)

    def reload(self) -> None:
        self.driver.refresh()
        self.wait(lambda: self.at_rest)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> List[str]:
        texts = "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)"
        return list(self.run(texts, selector))

    def wait(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"the page has {self.find('body').text!r}"
            time.sleep(0.02)

    @property
    def at_rest(self) -> bool:
        return self.run("return document.getElementById('turns').getAttribute('aria-busy')") == "false"

    def press(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def ask(self, question: str) -> None:
        """Type a question, and do not wait for the answer."""
        self.find("#prompt").send_keys(question, Keys.ENTER)

    def hear(self, question: str) -> None:
        """Ask, and wait for the answer's end."""
        turns = len(self.texts(".user"))
        self.ask(question)
        self.wait(lambda: len(self.texts(".user")) > turns and self.at_rest)

    @property
    def answers(self) -> List[str]:
        return [text.strip() for text in self.texts(".assistant .body")]

    @property
    def questions(self) -> List[str]:
        return self.texts(".user .body")

    @property
    def titles(self) -> List[str]:
        return self.texts("#conversations a")

    @property
    def notes(self) -> List[str]:
        return self.texts(".note")

    def complaints(self) -> List[str]:
        """What the browser has noted since it was asked last: violations of the policy, errors of the script."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that starts without a past, and reaches this machine alone."""
    profile = tmp_path_factory.mktemp("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = path_of("chromium")
    for argument in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "no-first-run",
        "no-proxy-server",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(path_of("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def start_chat(serve: Serve, tmp_path: Path) -> Callable[..., str]:
    """Start a chat and give its address. What it logs goes into a file, and it ends without waiting for the browser."""

    def begin(command: str, **environment: str) -> str:
        at_end = ["--graceful-timeout", "0"] if command.startswith("gunicorn") else []
        with open(tmp_path / "log", "w", encoding="utf-8") as log:
            port = serve(command, *at_end, stderr=log, env={"SECRET_KEY": SECRET_KEY, **environment})
        return f"http://127.0.0.1:{port}/"

    return begin


@pytest.fixture
def open_page(chromium: Any, start_chat: Callable[..., str]) -> Iterator[Callable[..., Page]]:
    """Start a chat and open its page, as one who was never there. Nothing that the browser complains of may be left."""
    pages: List[Page] = []

    def begin(command: str, **environment: str) -> Page:
        chromium.delete_all_cookies()
        chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
        page = Page(chromium, start_chat(command, **environment))
        page.load()
        pages.append(page)
        return page

    yield begin
    for page in pages:
        assert page.complaints() == []
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.get("about:blank")


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
    for text in ("one ", "one two ", "one two three"):
        page.wait(lambda text=text: text in [seen for _, seen in page.run("return window.seen")])
        assert page.find("#stop").is_displayed()
        go_on.release()
    page.wait(lambda: page.at_rest)
    first = next(at for at, text in page.run("return window.seen") if text == "one ")
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
    assert page.notes == ["Stopped."]
    page.hear("and now?")
    assert page.answers == ["one two", "and now?"]


@in_production
def test_conversations_stay_until_they_are_deleted(emulator: Emulator, open_page: Open, command: str) -> None:
    """A reload shows what was said; the list goes from one conversation to another; each goes on where it was."""
    page = open_page(command)
    page.hear("first question")
    page.hear("and **another**")
    page.find("#new").click()
    page.wait(lambda: not page.questions)
    page.hear("something else")
    page.wait(lambda: page.titles == ["something else", "first question"])

    page.reload()
    page.wait(lambda: page.answers == ["something else"])
    page.find("#conversations li:last-child a").click()
    page.wait(lambda: page.answers == ["first question", "and another"])
    assert page.questions == ["first question", "and **another**"]
    page.reload()
    page.wait(lambda: page.answers == ["first question", "and another"])
    page.hear("the third")
    thread = next(iter(emulator.threads.values()))
    followed = [question["parentMessageID"] for question in thread.user_messages[1:]]
    assert followed == [answer["id"] for answer in thread.assistant_messages[:-1]]

    page.find("#conversations li:last-child button").click()
    page.driver.switch_to.alert.accept()
    page.wait(lambda: page.titles == ["something else"])
    assert page.questions == []
    assert [thread.user_messages[0]["content"] for thread in emulator.threads.values()] == ["something else"]
    page.driver.back()  # to a conversation that is no more
    page.wait(lambda: page.find("#welcome").is_displayed())
