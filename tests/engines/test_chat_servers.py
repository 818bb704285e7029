"""The chat page behind the servers of the deployment page: what happens to an answer whose worker or proxy dies.

Two servers listen at one address, as two workers do, and share a Redis. The second starts when the first has begun to
answer, so that it is known which one to kill.
"""

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import requests
from chat_pages import Page as BrowserPage
from servers import BECOME, path_of, wait_for_port
from support import PATIENCE, events, reserved_port, wait_until

from copilot_sync.emulator import Emulator, Fault, Reply

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("gunicorn")
pytest.importorskip("redis")
pytest.importorskip("uvicorn")

ROOT = Path(__file__).parents[2]
DEPLOYMENT = ROOT / "docs" / "deployment"
GUNICORN = f"gunicorn --workers 1 --graceful-timeout 0 --config {DEPLOYMENT}/gunicorn_"
COMMANDS = {
    "Flask, gthread": f"{GUNICORN}gthread.conf.py examples.flask_chat.app:app",
    "Django, gevent": f"{GUNICORN}gevent.conf.py examples.django_chat.wsgi",
    "Django, ASGI": "uvicorn examples.django_chat.asgi:application",
}
NGINX = """
daemon off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
}}
"""

on_each = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)

Start = Callable[..., "subprocess.Popen[str]"]


class Site:
    """Servers at one address."""

    def __init__(self, start: Start, command: str, redis_url: str) -> None:
        self._start = start
        self._command = command.split()
        self._environment = {"SECRET_KEY": "a key for signing", "REDIS_URL": redis_url}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        """Start one more server."""
        descriptor = self._listener.fileno()
        is_uvicorn = self._command[0] == "uvicorn"
        place = ["--fd", str(descriptor)] if is_uvicorn else ["--bind", f"fd://{descriptor}"]
        arguments = ["-m", *self._command, *place]
        environment = {**self._environment, **environment}
        return self._start(arguments, cwd=ROOT, env=environment, pass_fds=[descriptor])

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def site(start: Start, redis_url: str, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(start, request.getfixturevalue("command"), redis_url)
    yield made
    made.close()


class Page:
    """The page in a browser, without the browser."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        html = self._session.get(url, timeout=3 * PATIENCE).text
        self._token = html.partition('"token": "')[2].partition('"')[0]

    def ask(self, prompt: str) -> Any:
        return self._session.post(
            f"{self._url}ask",
            data={"name": "chat", "prompt": prompt},
            headers={"X-CSRFToken": self._token},
            timeout=3 * PATIENCE,
            stream=True,
        )

    def get(self, place: str, **headers: str) -> Any:
        """Ask until a server answers: one that was killed may still have taken the connection."""
        for _ in range(3):
            try:
                return self._session.get(f"{self._url}{place}?name=chat", headers=headers, timeout=3 * PATIENCE)
            except requests.ConnectionError:
                continue
        raise AssertionError("no server answers")

    def begin(self, place: str, **headers: str) -> Any:
        """Ask, and read later."""
        return self._session.get(f"{self._url}{place}?name=chat", headers=headers, timeout=3 * PATIENCE, stream=True)

    def stop(self) -> None:
        headers = {"X-CSRFToken": self._token}
        self._session.post(f"{self._url}stop", data={"name": "chat"}, headers=headers, timeout=3 * PATIENCE)

    def close(self) -> None:
        self._session.close()


@pytest.fixture
def open_page() -> Iterator[Callable[[str], Page]]:
    pages: List[Page] = []

    def begin(url: str) -> Page:
        pages.append(Page(url))
        return pages[-1]

    yield begin
    for page in pages:
        page.close()


def read_piece(response: Any) -> str:
    """Read until there is text, and return the id of its event."""
    lines = response.iter_lines(chunk_size=1)
    last_id = next(line for line in lines if line.startswith(b"id: ") and not line.endswith(b":0"))
    assert b'"content"' in next(lines)
    return str(last_id[4:].decode())


@pytest.fixture
def go_on(emulator: Emulator) -> threading.Semaphore:
    """Have answers come in two halves, the second when it is let."""
    lets = threading.Semaphore(0)

    def said(prompt: str) -> Iterator[str]:
        yield "one "
        lets.acquire(timeout=3 * PATIENCE)
        yield "two"

    emulator.reply = Reply(said)
    return lets


def text_of(found: List[Dict[str, Any]]) -> str:
    return "".join(event.get("text", "") for event in found)


def questions(emulator: Emulator) -> List[str]:
    return [message["content"] for thread in emulator.threads.values() for message in thread.user_messages]


@on_each
def test_an_answer_survives_its_worker(
    emulator: Emulator, site: Site, open_page: Callable[[str], Page], go_on: threading.Semaphore, command: str
) -> None:
    """It is killed in mid-answer; another one goes on behind the last event, and the prompt is asked once."""
    first = site.start()
    page = open_page(site.url)
    response = page.ask("Why?")
    last_id = read_piece(response)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    site.start()
    assert page.get("messages").json()["answer"]["question"] == "Why?"
    go_on.release()
    found = events(page.get("answer", **{"Last-Event-ID": last_id}).content)
    assert (text_of(found), found[-1]["type"]) == ("two", "complete")
    again = events(page.get("answer").content)
    assert text_of(again) == "one two"
    assert questions(emulator) == ["Why?"]
    assert page.get("messages").json()["answer"] is None


@on_each
def test_an_answer_can_be_followed_by_any_worker(
    emulator: Emulator, site: Site, open_page: Callable[[str], Page], go_on: threading.Semaphore, command: str
) -> None:
    """While one of them reads it, and after the page was reloaded."""
    site.start()
    page = open_page(site.url)
    response = page.ask("Why?")
    last_id = read_piece(response)
    site.start()
    follower = page.begin("answer", **{"Last-Event-ID": last_id})
    response.close()
    go_on.release()
    found = events(follower.content)
    assert (text_of(found), found[-1]["type"]) == ("two", "complete")
    assert questions(emulator) == ["Why?"]


@on_each
def test_an_answer_is_read_on_and_can_be_stopped(
    emulator: Emulator, site: Site, open_page: Callable[[str], Page], go_on: threading.Semaphore, command: str
) -> None:
    """After its reader has left, as long as the site wants that, and from any worker."""
    site.start(CHAT_BACKGROUND="60")
    page = open_page(site.url)
    response = page.ask("Why?")
    read_piece(response)
    response.close()
    go_on.release()
    wait_until(lambda: page.get("messages").json()["answer"] is None)
    assert not emulator.disconnects
    assert text_of(events(page.get("answer").content)) == "one two"
    emulator.reply = Reply(["one ", "two"])
    emulator.fail("message", Fault.stall(("after_events", 1)))
    response = page.ask("And then?")
    read_piece(response)
    response.close()
    site.start(CHAT_BACKGROUND="60")
    page.stop()
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)
    assert page.get("messages").json()["answer"] is None


@pytest.fixture
def visitor(chromium: Any, site: Site) -> Iterator[Callable[[str], BrowserPage]]:
    """Opens the page in Chromium, for a visitor who was never there."""
    opened: List[BrowserPage] = []

    def visit(url: str) -> BrowserPage:
        page = BrowserPage(chromium, url)
        page.load()
        opened.append(page)
        return page

    yield visit
    for page in opened:
        page.complaints()  # of connections that were lost
        page.forget_all()


@on_each
def test_a_browser_loses_no_answer(
    emulator: Emulator,
    site: Site,
    visitor: Callable[[str], BrowserPage],
    go_on: threading.Semaphore,
    command: str,
) -> None:
    """The page is reloaded in mid-answer, left and come back to, and its worker killed; another window shows it too."""
    first = site.start()
    page = visitor(site.url)
    page.ask("Why?")
    page.wait(lambda: page.answers == ["one"])
    page.driver.refresh()
    page.wait(lambda: page.answers == ["one"])
    page.driver.get("about:blank")
    page.driver.back()
    page.wait(lambda: page.answers == ["one"])
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    site.start()
    address, window = page.driver.current_url, page.driver.current_window_handle
    page.driver.switch_to.new_window("window")
    page.driver.get(address)
    page.wait(lambda: page.answers == ["one"])
    go_on.release()
    for each in (page.driver.current_window_handle, window):
        page.driver.switch_to.window(each)
        page.wait(lambda: page.at_rest and page.answers == ["one two"])
        assert page.questions == ["Why?"]
        if each != window:
            page.driver.close()
    assert questions(emulator) == ["Why?"]


@on_each
def test_an_answer_survives_its_proxy(
    emulator: Emulator,
    site: Site,
    start: Start,
    visitor: Callable[[str], BrowserPage],
    go_on: threading.Semaphore,
    tmp_path: Path,
    command: str,
) -> None:
    """Nginx is restarted in mid-answer: the worker sees its reader leave, and the page goes on all the same."""
    program = path_of("nginx")
    site.start()
    location = (DEPLOYMENT / "nginx.conf").read_text().replace(":8000", f":{site.port}")
    location = location.replace("$host", "$http_host")  # the port is not that of the scheme, so it belongs to the name
    with reserved_port() as port:
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, location=location))
        place = ["-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]

        def start_nginx() -> "subprocess.Popen[str]":
            process = start(["-c", BECOME, program, *place])
            wait_for_port(port)
            return process

        first = start_nginx()
        page = visitor(f"http://127.0.0.1:{port}/")
        page.ask("Why?")
        page.wait(lambda: page.answers == ["one"])
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        start_nginx()
        go_on.release()
        page.wait(lambda: page.at_rest and page.answers == ["one two"])
    assert questions(emulator) == ["Why?"]
