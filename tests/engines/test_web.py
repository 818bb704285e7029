"""The deployment page as it stands: each command is run, with the files that it shows, and looked at from outside."""

import http.client
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, List, Set
from urllib.parse import urlencode

import pytest
from blocks import DOCS, texts_of
from servers import BECOME, path_of, wait_for_port
from support import PATIENCE, reserved_port

from copilot_sync.emulator import Emulator, Fault

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("gunicorn")

HERE = Path(__file__).parent
FILES = DOCS / "deployment"

COMMANDS = texts_of(DOCS / "deployment.rst", "sh")
GTHREAD, GEVENT = COMMANDS[:2]
#: For Flask, as the page says.
FLASK_COMMANDS = [command.replace("mysite.wsgi", "myapp:app") for command in (GTHREAD, GEVENT)]

#: They let answers go on if they are told to end. waitress does not, as the page says; the others are for development.
GRACEFUL = [command for command in COMMANDS if command.split()[0] not in ("waitress-serve", "python", "flask")]

#: Seconds from the service's first event to the browser.
AT_ONCE = 0.1
TRIES = 5
#: Seconds after which a server may have noticed that a browser has gone.
NOTICED = 0.5
#: Seconds, as mysite and myapp have it.
HEARTBEAT = 1.0
CLIENTS = 100
VANISHING = 30

Serve = Callable[..., int]


class Browser:
    """One client, which asks and reads as far as it is told to."""

    def __init__(self, port: int, prompt: str, **form: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3 * PATIENCE)
        place = "/chat?" + urlencode({"prompt": prompt, **form})
        self._connection.request("GET", place, headers={"Accept-Encoding": "gzip, deflate, br"})
        self._response = self._connection.getresponse()
        assert self._response.status == 200
        assert self._response.headers["Content-Type"].startswith("text/event-stream")
        self._received = b""

    def read_piece(self) -> float:
        """Read until a first piece is here, and tell when it was."""
        while b'"content"' not in self._received:
            self._more()
        return time.monotonic()

    def read_comments(self, count: int) -> None:
        """Read until so many comments of heartbeats are here."""
        while self._received.count(b": waiting") < count:
            self._more()

    def read_all(self) -> str:
        """Read to the end, and give the text."""
        while b'"complete"' not in self._received:
            self._more()
        self.close()
        lines = [line for line in self._received.decode().splitlines() if line.startswith("data: ")]
        return "".join(json.loads(line[6:]).get("text", "") for line in lines)

    def _more(self) -> None:
        data = self._response.read1(65536)
        assert data, f"it ended with {self._received!r}"
        self._received += data

    def close(self) -> None:
        """Go away."""
        self._response.close()
        self._connection.close()


def delay(emulator: Emulator, port: int) -> float:
    """Seconds from the service's first event to the browser, while the service holds the rest back."""
    go_on = threading.Event()
    sent: List[float] = []

    def halves() -> Iterator[str]:
        sent.append(time.monotonic())
        yield "one "
        assert go_on.wait(3 * PATIENCE)
        yield "two"

    emulator.reply = lambda prompt: halves()
    browser = Browser(port, "hi")
    arrived = browser.read_piece()
    go_on.set()
    assert browser.read_all() == "one two"
    return arrived - sent[0]


def at_once(emulator: Emulator, port: int) -> bool:
    """Whether the usual delay is none that a person notices, on a machine that does other things as well."""
    return sorted(delay(emulator, port) for _ in range(TRIES))[TRIES // 2] < AT_ONCE


def check_streaming(emulator: Emulator, port: int) -> None:
    """Nothing is held back on the way to the browser, and a browser that goes away ends its answer in time."""
    assert at_once(emulator, port)
    emulator.fail("message", Fault.stall(("after_events", 1)))
    browser = Browser(port, "good bye")
    browser.read_piece()
    assert emulator.wait_until(lambda: emulator.stalled)
    gone = time.monotonic()
    browser.close()
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert emulator.disconnects[0].time - gone < HEARTBEAT + 1


def check_names(emulator: Emulator, port: int) -> None:
    """A browser that goes away at the last event does not keep its conversation from getting a name."""
    emulator.reply = "hi"
    left, named = len(emulator.disconnects), namings(emulator)
    emulator.fail("rename", Fault.delay(NOTICED))
    assert Browser(port, "hi").read_all() == "hi"
    assert emulator.wait_until(lambda: namings(emulator) == named + 1)
    assert emulator.wait_until(lambda: emulator.idle_connections == emulator.open_connections)
    assert len(emulator.disconnects) == left


def namings(emulator: Emulator) -> int:
    return [request.stage for request in emulator.requests].count("rename")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", [*COMMANDS, *FLASK_COMMANDS])
def test_a_command_of_the_page_serves(emulator: Emulator, serve: Serve, command: str) -> None:
    """Pieces are at the browser at once, compression or not, and a browser that goes away is noticed in time."""
    port = serve(command)
    check_streaming(emulator, port)
    check_names(emulator, port)


def children() -> Set[int]:
    """The processes that this thread has started."""
    return set(map(int, Path("/proc/thread-self/children").read_text().split()))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", GRACEFUL)
def test_an_answer_outlives_the_end_of_its_server(emulator: Emulator, serve: Serve, command: str) -> None:
    """The server is told to end while it streams; heartbeats still come, and then the rest."""
    go_on = threading.Event()

    def halves() -> Iterator[str]:
        yield "one "
        assert go_on.wait(3 * PATIENCE)
        yield "two"

    emulator.reply = lambda prompt: halves()
    others = children()
    port = serve(command)
    (server,) = children() - others
    browser = Browser(port, "hi")
    browser.read_piece()
    os.kill(server, signal.SIGTERM)
    browser.read_comments(3)
    go_on.set()
    assert browser.read_all() == "one two"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", [GTHREAD, FLASK_COMMANDS[0]], ids=["Django", "Flask"])
def test_a_process_with_threads_serves_a_hundred_at_once(emulator: Emulator, serve: Serve, command: str) -> None:
    """None is mixed up with another; of those that vanish, no connection to the service is left."""
    emulator.choose_fault = lambda stage, request: Fault.stall(("after_events", 1)) if stage == "message" else None
    port = serve(command, "--workers", "1", "--threads", str(CLIENTS))
    questions = [f"{number} is the number of this question" for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        browsers = list(pool.map(lambda question: Browser(port, question, name="chat"), questions))
        list(pool.map(Browser.read_piece, browsers))
        assert emulator.wait_until(lambda: emulator.stalled == CLIENTS)
        gone = time.monotonic()
        for browser in browsers[:VANISHING]:
            browser.close()
        assert emulator.wait_until(lambda: len(emulator.disconnects) == VANISHING)
        assert max(each.time for each in emulator.disconnects) - gone < HEARTBEAT + 1
        assert emulator.stalled == CLIENTS - VANISHING
        emulator.release()
        assert list(pool.map(Browser.read_all, browsers[VANISHING:])) == questions[VANISHING:]
    assert emulator.wait_until(lambda: emulator.idle_connections == emulator.open_connections)
    threads = [emulator.threads[str(each.request.thread_id)] for each in emulator.disconnects]
    vanished = {thread.user_messages[0]["content"] for thread in threads}
    assert vanished == set(questions[:VANISHING])
    assert emulator.tokens_issued == 1


NGINX = """
daemon off;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_types *;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
}}
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("left_out", ["", "proxy_http_version 1.1;"], ids=["as on the page", "HTTP 1.0"])
def test_nginx_in_front_holds_nothing_back(
    emulator: Emulator, serve: Serve, start: Callable[..., Any], tmp_path: Path, left_out: str
) -> None:
    """Although it buffers and compresses everything else; and it passes on that the browser has gone.

    With HTTP 1.0, as it speaks by itself, it would fill its buffers first.
    """
    program = path_of("nginx")
    location = (FILES / "nginx.conf").read_text().replace(":8000", f":{serve(GTHREAD)}").replace(left_out, "")
    with reserved_port() as port:
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, location=location))
        start(["-c", BECOME, program, "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
        wait_for_port(port)
        check_streaming(emulator, port)
