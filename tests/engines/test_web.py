"""The deployment page as it stands: each command is run, with the files that it shows, and looked at from outside."""

import http.client
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List
from urllib.parse import urlencode

import pytest
from support import PATIENCE

from copilot_sync.emulator import Emulator, Fault

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("gunicorn")

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "deployment.rst"
FILES = PAGE.with_suffix("")

COMMANDS = re.findall(r"^\.\. code-block:: sh\n\n    (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
GTHREAD, GEVENT = COMMANDS[:2]
#: For Flask, as the page says.
FLASK_COMMANDS = [command.replace("mysite.wsgi", "myapp:app") for command in (GTHREAD, GEVENT)]

#: Seconds from the service's first event to the browser.
AT_ONCE = 0.1
TRIES = 5
HEARTBEAT = 1.0
CLIENTS = 100
VANISHING = 30

#: Becomes another program, so that one that is no Python is started and ended like the others.
BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"

Serve = Callable[..., int]


@pytest.fixture
def serve(start: Callable[..., Any]) -> Iterator[Serve]:
    """Run a command of the page, give the port where it serves."""
    with ExitStack() as stack:

        def begin(command: str, *more: str) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
            port, descriptor = listener.getsockname()[1], listener.fileno()
            program, *arguments = command.split()
            options: Dict[str, Any] = {"cwd": FILES, "env": {"HEARTBEAT": str(HEARTBEAT)}}
            if program in ("gunicorn", "hypercorn", "uvicorn"):
                place = ["--fd", str(descriptor)] if program == "uvicorn" else ["--bind", f"fd://{descriptor}"]
                start(["-m", program, *arguments, *place, *more], pass_fds=[descriptor], **options)
                return int(port)
            listener.close()
            if program == "python":
                start([str(HERE / arguments[0]), *arguments[1:], f"127.0.0.1:{port}", "--noreload", *more], **options)
            elif program == "flask":
                start(["-m", program, *arguments, "--port", str(port), *more], **options)
            else:
                moved = [argument.replace(":8000", f":{port}") for argument in arguments]
                start(["-c", BECOME, path_of(program), *moved, *more], **options)
            wait_for_port(port)
            return int(port)

        yield begin


def path_of(program: str) -> str:
    """Where a program is; a test that needs one which is not here is skipped."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    found = shutil.which(program, path=places)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def wait_for_port(port: int) -> None:
    """Wait until something listens there: it says so in no other way."""
    end = time.monotonic() + 3 * PATIENCE
    while time.monotonic() < end:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the server does not start")


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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", [*COMMANDS, *FLASK_COMMANDS])
def test_a_command_of_the_page_serves(emulator: Emulator, serve: Serve, command: str) -> None:
    """Pieces are at the browser at once, compression or not, and a browser that goes away is noticed in time."""
    port = serve(command)
    assert at_once(emulator, port)
    emulator.fail("message", Fault.stall(("after_events", 1)))
    browser = Browser(port, "good bye")
    browser.read_piece()
    assert emulator.wait_until(lambda: emulator.stalled)
    gone = time.monotonic()
    browser.close()
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert emulator.disconnects[0].time - gone < HEARTBEAT + 1


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
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, location=location))
    start(["-c", BECOME, program, "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
    wait_for_port(port)
    assert at_once(emulator, port)
    emulator.fail("message", Fault.stall(("after_events", 1)))
    browser = Browser(port, "good bye")
    browser.read_piece()
    assert emulator.wait_until(lambda: emulator.stalled)
    gone = time.monotonic()
    browser.close()
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert emulator.disconnects[0].time - gone < HEARTBEAT + 1
