"""The examples as their visitors have them: real servers, and a real browser without a window."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
import requests
from servers import path_of, wait_for_port
from support import PATIENCE, reserved_port

from copilot_sync.emulator import Emulator, Fault

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("flask_wtf")
pytest.importorskip("gunicorn")
pytest.importorskip("markdown_it")
webdriver = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from examples.chat_page import as_html  # noqa: E402

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
#: For what the page does by itself: both have the same one.
ONE = CHATS["Flask"]

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


class Page:
    """The chat in the browser, and what a person does there and sees."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url
        self._complaints: List[str] = []

    def show_as(self, scheme: str, *, width: int, height: int) -> None:
        """Have a window of that size on a system that is light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

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
        end = time.monotonic() + 3 * PATIENCE
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

    def regenerate(self) -> None:
        """Ask for the last answer again, and wait for its end."""
        self.find("#again").click()
        self.wait(lambda: self.at_rest)

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

    def has_had(self, text: str) -> bool:
        """Whether the answer has been this text at some time, since the page is watched."""
        return text in [seen for _, seen in self.run("return window.seen")]

    def complaints(self) -> List[str]:
        """What the browser has noted so far: violations of the policy, errors of the script."""
        self._complaints += [entry["message"] for entry in self.driver.get_log("browser")]
        return self._complaints

    def pardon(self, *words: str) -> None:
        """Forget the complaints with these words in them, which a test has wanted."""
        self._complaints = [each for each in self.complaints() if not any(word in each for word in words)]

    def walk_back(self, name: str) -> None:
        """Go from one thing to the one before with the keyboard, until one is there, and see that one sees it."""
        for _ in range(20):
            self.press(Keys.SHIFT + Keys.TAB, Keys.NULL)
            outline = "return getComputedStyle(document.activeElement).outlineStyle"
            here = self.run("return document.activeElement.id")
            assert self.run(outline) == "solid" or here == "prompt"  # that has a frame of its own
            if name in (here, self.driver.switch_to.active_element.accessible_name):
                return
        raise AssertionError(f"the keyboard does not lead to {name}")


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
            port = serve(command, *at_end, cwd=ROOT, stderr=log, env={"SECRET_KEY": SECRET_KEY, **environment})
        return f"http://127.0.0.1:{port}/"

    return begin


@pytest.fixture
def open_page(chromium: Any, start_chat: Callable[..., str], tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Start a chat and open its page, as one who was never there. Neither browser nor server may complain."""
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
        assert "Warning: " not in (tmp_path / "log").read_text(encoding="utf-8")
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
        page.wait(partial(page.has_had, text))
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


@in_both
def test_an_answer_can_be_regenerated(emulator: Emulator, open_page: Open, command: str) -> None:
    """The new one stands in the place of the old one, also after a reload, and the next question follows it."""
    page = open_page(command)
    assert not page.find("#again").is_displayed()
    page.hear("one")
    emulator.script("another")
    page.regenerate()
    assert (page.questions, page.answers) == (["one"], ["another"])
    page.reload()
    page.wait(lambda: page.answers == ["another"])
    assert page.find("#again").is_displayed()
    page.hear("two")
    assert (page.questions, page.answers) == (["one", "two"], ["another", "two"])
    (thread,) = emulator.threads.values()
    first, _, again, answer, last, _ = thread.messages
    assert first["parentMessageID"] == again["parentMessageID"] == "root"
    assert last["parentMessageID"] == answer["id"]


def test_an_answer_that_is_not_regenerated_stays(emulator: Emulator, open_page: Open) -> None:
    """The next question follows it: after a failure, and after Stop; an answer that was stopped can be had anew."""
    page = open_page(ONE)
    page.hear("one")
    emulator.fail("message", Fault.status(402), Fault.stall(("after_events", 1)))
    page.regenerate()
    assert (page.answers, page.notes) == (["one"], ["The allowance of answers is used up for now."])
    page.find("#again").click()
    page.wait(lambda: page.find("#stop").is_displayed() and emulator.stalled)
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.at_rest)
    assert (page.answers, page.notes) == (["one"], ["Stopped."])
    emulator.fail("message", Fault.stall(("after_events", 2)))
    page.ask("two three four")
    page.wait(lambda: page.answers[-1].startswith("two"))
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.at_rest)
    page.regenerate()
    assert (page.questions, page.answers) == (["one", "two three four"], ["one", "two three four"])
    (thread,) = emulator.threads.values()
    first_answer = thread.messages[1]["id"]
    followed = [message["parentMessageID"] for message in thread.user_messages if message["content"] != "one"]
    assert followed == [first_answer, first_answer]


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


HOSTILE = """\
<script>window.hacked = 1</script>

<img src="/static/none" onerror="window.hacked = 2"> <b onclick="window.hacked = 3">bold</b>

[one](javascript:window.hacked=4) [two](https://example.org/?a=1&b=2) [three](/delete) ![four](/static/none)
[five](http:/delete)

<iframe srcdoc="<script>parent.hacked = 5</script>"></iframe>

- a list
"""


#: What a browser does behind a proxy that speaks HTTPS, on the way to the Django chat.
BEHIND_HTTPS = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "examples.django_chat.settings"
import django
django.setup()
from django.test import Client
browser = Client(enforce_csrf_checks=True, HTTP_HOST="localhost", HTTP_X_FORWARDED_PROTO="https")
token = browser.get("/").content.decode().split('name="csrf-token" content="')[1].split('"')[0]
asked = {"HTTP_X_CSRFTOKEN": token, "HTTP_ORIGIN": "https://localhost"}
print(browser.post("/markdown", {"text": "*hi*"}, **asked).status_code, browser.cookies["csrftoken"]["secure"])
"""


def test_behind_https_the_page_may_ask() -> None:
    """What the proxy says counts, wherever the proxy is; the cookies go over HTTPS alone."""
    environment = {**os.environ, "HTTPS_ONLY": "1", "SECRET_KEY": SECRET_KEY}
    command = [sys.executable, "-c", BEHIND_HTTPS]
    assert subprocess.check_output(command, cwd=ROOT, env=environment, text=True, timeout=PATIENCE) == "200 True\n"


@in_both
def test_nothing_of_the_models_html_gets_through(emulator: Emulator, open_page: Open, command: str) -> None:
    """It is text while it comes, when it is complete, and after a reload; and so is what was asked."""
    emulator.script(HOSTILE)
    page = open_page(command)
    page.hear("<img src=/ onerror=hacked()>")
    for _ in range(2):
        page.wait(lambda: page.texts(".body li") == ["a list"])
        assert page.run("return window.hacked") is None
        assert page.run("return document.querySelectorAll('#turns :is(script, img, iframe, b)').length") == 0
        links = page.run("return [...document.querySelectorAll('.body a')].map(a => [a.href, a.rel])")
        assert links == [["https://example.org/?a=1&b=2", "noopener noreferrer nofollow"]]
        assert "<script>window.hacked = 1</script>" in page.answers[0]
        assert "[one](javascript:window.hacked=4)" in page.answers[0]
        assert page.questions == ["<img src=/ onerror=hacked()>"]
        assert page.titles == ["<img src=/ onerror=hacked()>"]
        page.reload()


def test_a_column_is_aligned_as_the_model_wants_it(emulator: Emulator, open_page: Open) -> None:
    """Without a style in the HTML, which the policy would refuse and the browser complain of."""
    emulator.script("|a|b|c|\n|-|:-:|-:|\n|1|2|3|\n")
    page = open_page(ONE)
    page.hear("A table, please")
    aligned = "return [...document.querySelectorAll('.body td')].map((each) => getComputedStyle(each).textAlign)"
    page.wait(lambda: page.run(aligned) == ["left", "center", "right"])


@pytest.mark.parametrize(
    "markdown",
    [
        "[a]: http://example.org/" + "a" * 10_000 + "\n\n" + "[a] " * 1000,
        "|a" * 1000 + "|\n" + "|-" * 1000 + "|\n" + "|\n" * 1000,
        "[" * 1_000_000,
        "[" * 99_000,
        "![[" * 33_000,
        ("[" * 100 + "\n\n") * 900,
        "[[[a](b)" * 12_000,
    ],
    ids=["references", "table", "very many brackets", "brackets", "images", "paragraphs", "links"],
)
def test_a_little_markdown_does_not_become_very_much_html(markdown: str) -> None:
    """Nor takes it long: what is large is shown as it came."""
    began = time.monotonic()
    html = as_html(f"<b>\n\n{markdown}")
    assert len(html) < 3 * len(markdown)
    assert time.monotonic() - began < 1
    assert "&lt;b&gt;" in html


@in_both
def test_the_policy_stops_what_should_get_through_nevertheless(open_page: Open, command: str) -> None:
    """A script inside the page, one of another place, a style and an image are refused by the browser."""
    page = open_page(command)
    page.run("""
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", `<img src="http://127.0.0.2/"><p style="color: red">
            <script src="http://127.0.0.2/"></script><button onclick="window.hacked = 2" id="hostile">`);
        document.getElementById("hostile").click();
    """)
    page.wait(lambda: sum("Content Security Policy" in each for each in page.complaints()) >= 4)
    assert page.run("return window.hacked") is None
    page.pardon("Content Security Policy")


@in_both
def test_requests_from_elsewhere_are_refused(emulator: Emulator, start_chat: Callable[..., str], command: str) -> None:
    """What changes something wants the token of the page. All answers carry the fields that protect it."""
    url = start_chat(command)
    with requests.Session() as session:
        page = session.get(url)
        token = page.text.split('name="csrf-token" content="')[1].split('"')[0]
        for place in ("ask", "delete", "markdown"):
            form = {"name": "a name", "prompt": "a question", "parent_message_id": "", "text": "**words**"}
            for headers in ({}, {"X-CSRFToken": "wrong"}, {"X-CSRFToken": token[::-1]}):
                refused = session.post(url + place, form, headers=headers)
                assert refused.status_code in (400, 403)
                assert "Content-Security-Policy" in refused.headers
            assert session.get(url + place).status_code == 405
        assert emulator.requests == []
        assert session.post(url + "markdown", form, headers={"X-CSRFToken": token}).json() == {
            "html": "<p><strong>words</strong></p>\n"
        }
        for answer in (page, session.get(url + "static/chat.js"), session.get(url + "conversations")):
            policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"


@in_both
def test_the_session_holds_as_many_conversations_as_a_cookie_can(
    emulator: Emulator, start_chat: Callable[..., str], command: str
) -> None:
    """The oldest is forgotten where there are more, so that a browser never refuses the cookie."""
    url = start_chat(command)
    words = ["".join(chr(0x4E00 + (each * 6151 + place * 7919) % 20000) for place in range(56)) for each in range(14)]
    names = [f"{number:03} {word}" for number, word in enumerate(words)]
    with requests.Session() as session:
        token = session.get(url).text.split('name="csrf-token" content="')[1].split('"')[0]
        for name in names:
            form = {"name": name, "prompt": "hi", "parent_message_id": ""}
            answer = session.post(url + "ask", form, headers={"X-CSRFToken": token})
            assert '"complete"' in answer.text
        form["name"] += "!"
        assert session.post(url + "ask", form, headers={"X-CSRFToken": token}).status_code == 400
        assert session.get(url + "conversations").json()["names"] == names[-12:]
        assert max(len(cookie.name + str(cookie.value)) for cookie in session.cookies) < 4000


def test_the_keyboard_is_enough(emulator: Emulator, open_page: Open) -> None:
    """One types at once; Escape stops; the list and its buttons are reached, and one sees where one is."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    page = open_page(ONE)
    page.press("two", Keys.SHIFT + Keys.ENTER, Keys.NULL, "lines", Keys.ENTER)
    assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.notes == ["Stopped."])
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert page.questions == ["two\nlines"]
    page.press(Keys.ENTER)  # nothing to ask
    page.walk_back("new")
    page.press(Keys.ENTER)
    page.wait(lambda: not page.questions)
    page.press("more", Keys.ENTER)
    page.wait(lambda: page.at_rest and page.answers == ["more"])
    page.walk_back("two lines")
    page.press(Keys.ENTER)
    page.wait(lambda: page.questions == ["two\nlines"])
    page.walk_back("Delete “more”")
    page.press(Keys.ENTER)
    page.driver.switch_to.alert.accept()
    page.wait(lambda: page.titles == ["two lines"])
    page.wait(lambda: page.driver.switch_to.active_element.text == "two lines")  # not at the page's beginning
    page.press(Keys.TAB, Keys.ENTER)
    page.driver.switch_to.alert.accept()
    page.wait(lambda: page.titles == [])


def test_a_phone_shows_all_of_it(emulator: Emulator, open_page: Open) -> None:
    """At a width of 360 pixels nothing sticks out, whatever the answer; the list opens and closes."""
    page = open_page(ONE)
    page.show_as("light", width=360, height=640)
    wide = "wide " * 40
    emulator.script(
        f"# A heading\n\n{'long' * 50}\n\n```\n{wide}\n```\n\n|{'|'.join('abcdefghij')}|\n{'|-' * 10}|\n|{wide}|\n"
    )
    page.hear("question" * 30)
    page.wait(lambda: page.texts(".body table"))
    for _ in range(2):
        outside = """
            const scrolls = (each) => each.closest("pre, table, nav, .unseen");
            return [...document.querySelectorAll("body *")].filter((each) => !scrolls(each.parentElement)
                && each.getBoundingClientRect().right > 360).map((each) => each.outerHTML.slice(0, 80))"""
        assert page.run(outside) == []
        assert page.run("return document.scrollingElement.scrollWidth") == 360
        assert page.run("return turns.parentElement.scrollWidth - turns.parentElement.clientWidth") == 0
        assert page.find("#send").is_displayed()
        assert page.find(".body h1").is_displayed()
        page.find("#toggle").click()
    assert not page.find("#sidebar").is_displayed()
    page.find("#toggle").click()
    page.find("#conversations a").click()
    page.wait(lambda: page.find("#toggle").get_attribute("aria-expanded") == "false")


def test_a_long_conversation_scrolls_above_the_question(emulator: Emulator, open_page: Open) -> None:
    """The page itself stays where it is, and the end of the answer is in sight, also when it has become HTML."""
    page = open_page(ONE)
    page.show_as("light", width=1000, height=500)
    emulator.script("# A heading is higher than its text\n" * 40)
    page.hear("first")
    page.hear("second")
    assert page.run("return document.scrollingElement.scrollHeight - window.innerHeight") == 0
    emulator.script("# A heading is higher than its text\n" * 40)
    page.hear("third")
    to_the_end = "const box = document.getElementById('scroll'); return box.scrollHeight - box.scrollTop"
    page.wait(lambda: page.run(to_the_end + " - box.clientHeight") < 1)


def test_an_answer_in_many_pieces_does_not_keep_the_page_busy(emulator: Emulator, open_page: Open) -> None:
    """What a piece costs does not grow with the answer, so that Stop and all else can be used meanwhile."""
    page = open_page(ONE)
    emulator.reply = lambda prompt: ("piece " for _ in range(10_000))
    asked = time.monotonic()
    page.hear("Much, please")
    assert time.monotonic() - asked < PATIENCE
    assert page.answers == [("piece " * 10_000).strip()]


#: The contrast, as WCAG reckons it, of a text with what is behind it.
CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => channels(colour).slice(0, 3)
    .map((each) => each / 255).map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, index) => sum + each * [0.2126, 0.7152, 0.0722][index], 0);
const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return channels(colour)[3] === 0 ? behind(element.parentElement) : colour;
};
const element = document.querySelector(arguments[0]);
const [less, more] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => a - b);
return (more + 0.05) / (less + 0.05);
"""


def test_light_and_dark_are_both_readable(emulator: Emulator, open_page: Open) -> None:
    """The page is as the visitor's system is; all text has the contrast that WCAG wants of it."""
    page = open_page(ONE)
    emulator.fail("message", None, Fault.status(429, retry_after=50))
    emulator.script("`code` and [a link](https://example.org)\n\n> a quotation")
    page.hear("a question")
    page.hear("one too many")
    grounds = {}
    for scheme in ("light", "dark"):
        page.show_as(scheme, width=1000, height=700)
        grounds[scheme] = page.run("return getComputedStyle(document.body).backgroundColor")
        for place in ("body", ".user .body", ".body code", ".body a", "blockquote", ".failure", "nav a", "nav button"):
            assert page.run(CONTRAST, place) >= 4.5, f"{place}, {scheme}"
        for place in ("#send", "#new", "#again", "#welcome p", "h1"):
            assert page.run(CONTRAST, place) >= 4.5, f"{place}, {scheme}"
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(26, 26, 25)"}


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
    assert page.notes == ["The service can't be reached at the moment. Please try again later."]
    assert page.find("#prompt").get_attribute("value") == "And now?"
    assert page.answers == ["Is it up?"]
    nothing_secret(page, tmp_path, token, "NetworkError", "refused")


def test_what_is_no_answer_of_the_site_is_told(emulator: Emulator, open_page: Open) -> None:
    """Such as the page of a log-in that has expired: the page can be used again, and an answer keeps its lines."""
    page = open_page(ONE)
    page.hear("first")
    page.run("""
        const real = window.fetch;
        const asked = (path) => path === "/ask" || path.startsWith("/static");
        window.fetch = (path, ...more) => asked(path) ? real(path, ...more) : Promise.resolve(new Response("<html>"));
    """)
    emulator.script("two\nlines")
    page.hear("second")
    assert page.find(".assistant:last-child .body").text == "two\nlines"
    assert page.run("return document.querySelectorAll('.coming').length") == 0
    page.find("#conversations button").click()
    page.driver.switch_to.alert.accept()
    page.wait(lambda: page.notes == ["The site did not answer as it should. Reload the page and try again."])
    page.hear("third")
    assert page.answers[-1] == "third"


@in_both
def test_missing_credentials_are_told_as_that(
    emulator: Emulator, open_page: Open, tmp_path: Path, command: str
) -> None:
    """To the visitor nothing of what is missing is said, to the log all."""
    page = open_page(command, COPILOT_SYNC_COOKIES="")
    page.hear("Hello?")
    assert page.notes == ["The chat has not been set up on this server yet."]
    nothing_secret(page, tmp_path, secrets_of(emulator), "MissingCredentialsError", "COPILOT_SYNC_COOKIES")


@in_both
def test_a_refusal_says_how_long_to_wait(emulator: Emulator, open_page: Open, tmp_path: Path, command: str) -> None:
    """Where the service does: in the answer's place, and where a conversation can't be shown."""
    page = open_page(command)
    emulator.fail("message", None, Fault.status(429, retry_after=50))
    page.hear("one")
    page.hear("too many")
    words = (
        "There are too many questions at the moment. Please try again later. The service asks to wait for 50 seconds."
    )
    assert page.notes == [words]
    emulator.fail("messages", Fault.status(429, retry_after=50))
    page.reload()
    page.wait(lambda: page.notes == [words])
    assert "502" in "".join(page.complaints())
    page.pardon("502")
    nothing_secret(page, tmp_path, secrets_of(emulator), "RateLimitError", "429")


ANSWER = """\
A view may return a **generator**. The server sends each piece as soon as it is there:

```python
@app.post("/ask")
def ask():
    return copilot.stream_response(request.form["prompt"], name="chat")
```

- The first words are on the page while the last ones are still being thought of.
- A visitor who goes away ends the answer: see [the documentation](https://flask.palletsprojects.com/).
"""


@pytest.mark.parametrize(
    "command, picture, scheme",
    [(CHATS["Flask"], "flask_chat", "light"), (CHATS["Django"], "django_chat", "dark")],
    ids=CHATS,
)
def test_a_picture_for_the_documentation(
    emulator: Emulator, open_page: Open, tmp_path: Path, command: str, picture: str, scheme: str
) -> None:
    """It is small, and what is on it comes from the example; ``PICTURES`` names the folder for those that are kept."""
    page = open_page(command)
    page.show_as(scheme, width=1040, height=620)
    page.hear("What is a WSGI server?")
    page.run("document.getElementById('new').click()")  # no pointer is to be seen
    page.wait(lambda: not page.questions)
    emulator.script(ANSWER)
    page.hear("How do answers stream?")
    page.wait(lambda: len(page.titles) == 2 and page.texts(".body pre"))
    file = Path(os.environ.get("PICTURES", tmp_path)) / f"{picture}.png"
    assert page.driver.save_screenshot(str(file))
    assert file.stat().st_size < 100_000


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
