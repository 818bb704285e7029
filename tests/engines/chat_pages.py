"""The chat page in a real browser without a window, and what a person does there and sees."""

import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from installed import made
from servers import path_of
from support import PATIENCE

from copilot_sync.emulator import Emulator

PACKAGES = Path(__file__).parent / "chat_page_packages" / "package.json"


@contextmanager
def running_chromium(profile: Path) -> Iterator[Any]:
    """A browser that starts without a past, and reaches this machine alone."""
    webdriver = pytest.importorskip("selenium.webdriver")
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
        "accept-lang=en",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(path_of("chromedriver")))
    driver.set_script_timeout(6 * PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


@contextmanager
def serving(emulator: Emulator, **settings: Any) -> Iterator[str]:
    """The page on a server of this process, at an address below the root; gives the address."""
    flask = pytest.importorskip("flask")
    from werkzeug.serving import make_server

    from copilot_sync.contrib.flask import KEY, CopilotSync
    from copilot_sync.contrib.flask_chat import blueprint

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
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    # Browsers send a cookie to all ports: one that comes late, of a site before this one, must not count here.
    app.config["SESSION_COOKIE_NAME"] = f"session-{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/chat/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions[KEY].close()


class Page:
    """The page in the browser."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url
        self._complaints: List[str] = []

    def show_as(self, scheme: str, *, width: int, height: int, motion: str = "no-preference") -> None:
        """Have a window of that size on a system that is light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        media = {"features": [{"name": name, "value": value} for name, value in features.items()]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def load(self, address: str = "") -> None:
        self.driver.get(self.url + address)
        self.wait_for_rest()

    def reload(self) -> None:
        self.driver.refresh()
        self.wait_for_rest()

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def run_async(self, script: str, *arguments: object) -> Any:
        """Run a script that may wait, and give what it returns."""
        body = f"const done = arguments[arguments.length - 1]; (async () => {{ {script} }})()"
        return self.driver.execute_async_script(f"{body}.then(done, (error) => done(error.stack))", *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        """Click on the last such element, also on one that shows only when it is pointed at."""
        self.run("[...document.querySelectorAll(arguments[0])].at(-1).click()", selector)

    def texts(self, selector: str) -> List[str]:
        texts = "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)"
        return list(self.run(texts, selector))

    def is_shown(self, selector: str) -> bool:
        return bool(self.run("return document.querySelector(arguments[0])?.checkVisibility() ?? false", selector))

    def requests(self, place: str) -> List[str]:
        """The requests that have been answered, to this place."""
        names = "return performance.getEntriesByType('resource').map(({ name }) => name)"
        return [name for name in self.run(names) if name.partition("?")[0].endswith(f"/{place}")]

    def focus(self) -> str:
        """The name of what has the focus, or its id."""
        here = "const here = document.activeElement"
        name = "here.getAttribute('aria-label') ?? (here.id || here.textContent)"
        return str(self.run(f"{here}; return {name}"))

    def wait(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 3 * PATIENCE
        while not condition():
            assert time.monotonic() < end, f"the page has {self.find('body').text!r}"
            time.sleep(0.02)

    @property
    def at_rest(self) -> bool:
        return self.run("return document.getElementById('turns').getAttribute('aria-busy')") == "false"

    def wait_for_rest(self) -> None:
        self.wait(lambda: self.at_rest)

    def press(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def ask(self, question: str) -> None:
        """Type a question, and do not wait for the answer."""
        self.find("#prompt").send_keys(question, "\ue007")

    def hear(self, question: str) -> None:
        """Ask, and wait for the answer's end."""
        turns = len(self.texts(".user"))
        self.ask(question)
        self.wait(lambda: len(self.texts(".user")) > turns and self.at_rest)

    def regenerate(self) -> None:
        """Ask for the last answer again, and wait for its end."""
        self.click('[aria-label="Answer again"]')
        self.wait_for_rest()

    @property
    def answers(self) -> List[str]:
        return [text.strip() for text in self.texts(".assistant:not([hidden]) .body")]

    @property
    def questions(self) -> List[str]:
        return self.texts(".user .body")

    @property
    def titles(self) -> List[str]:
        return self.texts("#conversations a")

    @property
    def notes(self) -> List[str]:
        return self.texts(".note p")

    def complaints(self) -> List[str]:
        """What the browser has noted so far: violations of the policy, errors of the script."""
        self._complaints += [entry["message"] for entry in self.driver.get_log("browser")]
        return self._complaints

    def pardon(self, *words: str) -> None:
        """Forget the complaints with these words in them, which a test has wanted."""
        self._complaints = [each for each in self.complaints() if not any(word in each for word in words)]

    def pardon_when_told(self, words: str) -> None:
        """Wait for a complaint with these words, which the browser may note late, and forget it."""
        self.wait(lambda: any(words in each for each in self.complaints()))
        self.pardon(words)

    def walk_back(self, name: str) -> None:
        """Go from one thing to the one before with the keyboard, until one is there, and see that one sees it."""
        for _ in range(30):
            self.press("\ue008\ue004", "\ue000")
            outline = "return getComputedStyle(document.activeElement).outlineStyle"
            here = self.run("return document.activeElement.id")
            assert self.run(outline) == "solid" or here == "prompt"  # that has a frame of its own
            if name in (here, self.focus()):
                return
        raise AssertionError(f"the keyboard does not lead to {name}")

    def accessibility_faults(self) -> List[str]:
        """What axe-core finds, with all of its rules."""
        source = (made(PACKAGES, "chat_page") / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
        if not self.run("return Boolean(window.axe)"):
            self.run(source)
        found = self.run_async("""
            const { violations } = await axe.run(document, { resultTypes: ["violations"] });
            return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) =>
                `${id}: ${html.slice(0, 150)} ${failureSummary}`))""")
        return list(found)

    def forget_all(self) -> None:
        """Leave the page and what the browser keeps of it."""
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        self.run("try { localStorage.clear() } catch {}")
        self.driver.get("about:blank")
        self.driver.delete_all_cookies()
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
