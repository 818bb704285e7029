"""What all tests stand on: an environment in which nothing is set, and a command line that is at home nowhere."""

import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import uuid
import weakref
from pathlib import Path
from typing import Callable, Iterator

import hypothesis
import pytest
from loops import FACES, KINDS, Read, Run, reader, runner
from support import PATIENCE, Trouble, reserved_port

from copilot_sync import settings
from copilot_sync.contrib import sse
from copilot_sync.delivery import recovery
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing import cooldown, limiter
from copilot_sync.transport import fork
from copilot_sync.transport.session import Transport

# A shell has what it starts in the background ignore Ctrl-C, and so do its children. The tests press it for themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGQUIT"):  # pragma: no branch - not on Windows
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# The command line speaks English here, whatever the locale is. A test of its languages sets these variables itself.
os.environ["LANGUAGE"] = "en"

_VARIABLES = [value for name, value in vars(settings).items() if name.endswith("_VARIABLE")]
_PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
_CERTIFICATES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]
_TERMINAL = ["NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "WT_SESSION"]

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the settings, proxies, certificates and folders of whoever runs the tests out of them."""
    proxies = [*_PROXIES, *(name.lower() for name in _PROXIES)]
    for name in [*_VARIABLES, *_CERTIFICATES, *_TERMINAL, *proxies]:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.getbasetemp() / f"home-{uuid.uuid4()}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))


@pytest.fixture(autouse=True)
def _nothing_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe a second look at once: no test but the one about it has anything between client and service."""
    monkeypatch.setattr(recovery, "RECOVERY_DELAY", 0.0)


@pytest.fixture
def emulator(copilot_emulator: Emulator) -> Emulator:
    """The emulator of most tests; where it has to be another one, a module has a fixture of its own."""
    return copilot_emulator


@pytest.fixture
def served(copilot_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An emulator that the environment points at, which child processes inherit."""
    for name, value in copilot_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return copilot_emulator


@pytest.fixture
def transport() -> Iterator[Transport]:
    opened = Transport()
    yield opened
    opened.close()


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a coroutine to its end, as ``asyncio.run`` does, on each kind of loop."""
    return runner(request.param, monkeypatch)


@pytest.fixture(params=FACES)
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads a stream to its end and returns the pieces, without a loop and on each kind of loop."""
    return reader(request.param, monkeypatch)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The output of a batch, which is not there yet."""
    return tmp_path / "out.jsonl"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> "weakref.WeakSet[object]":
    """What is renewed: nothing of other tests'."""
    things: weakref.WeakSet[object] = weakref.WeakSet()
    monkeypatch.setattr(fork, "_registered", things)
    monkeypatch.setattr(fork, "abandoned", [])
    return things


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for an answer in its thread every few milliseconds."""
    monkeypatch.setattr(recovery, "_FIRST_LOOK", 0.001)
    monkeypatch.setattr(recovery, "_LONGEST_LOOK", 0.01)


@pytest.fixture
def quick_batches(quick_looks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches wait for milliseconds where they wait for seconds."""
    monkeypatch.setattr(limiter, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(limiter, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(limiter, "_SPREAD", 0.0)
    monkeypatch.setattr(cooldown, "_FIRST_GAP", 0.0)


@pytest.fixture
def _three_comments(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the service be silent in mid-answer until three comments have been sent to the page."""
    due, next_wait, calls = threading.Event(), sse.HeartbeatTimer.next_wait, itertools.count(1)

    def counted(timer: sse.HeartbeatTimer) -> float:
        if next(calls) == 5:  # of the four before, one may have brought the first piece and three brought comments
            due.set()
        return next_wait(timer)

    def pieces(prompt: str) -> Iterator[str]:
        yield "one "
        due.wait(PATIENCE)
        yield "two"

    monkeypatch.setattr(sse.HeartbeatTimer, "next_wait", counted)
    emulator.reply = Reply(pieces)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Puts bytes into a real pipe that is stdin."""
    with contextlib.ExitStack() as stack:

        def put(content: bytes) -> None:
            reading, writing = os.pipe()
            os.write(writing, content)
            os.close(writing)
            monkeypatch.setattr(sys, "stdin", stack.enter_context(open(reading, encoding="ascii")))

        yield put


@pytest.fixture(params=["down", "no credentials", "limit", "outage"])
def trouble(
    request: pytest.FixtureRequest, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Trouble]:
    """What keeps the pages of a site from their answers, while the service knows secrets and tells them."""
    emulator.fail("token", Fault.status(200, body={"token": "planted-token"}))
    emulator.options.accept_api_keys = ("planted-token",)
    secrets = ["planted-token", *emulator.cookies.values()]
    with reserved_port() as port:
        if request.param == "down":
            settings = {"API_URL": f"http://127.0.0.1:{port}"}
            yield Trouble(settings, "unreachable", "NetworkError: ", secrets)
        elif request.param == "no credentials":
            monkeypatch.chdir(tmp_path)
            monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: iter(()))
            yield Trouble({"COOKIES": None}, "not_configured", "MissingCredentialsError: ", secrets)
        elif request.param == "limit":
            emulator.fail("thread", Fault.status(429, message="planted-token", retry_after=7))
            yield Trouble({}, "rate_limited", "RateLimitError: ", secrets, retry_after=7)
        else:
            emulator.fail("thread", Fault.status(503, message="words of the service"))
            yield Trouble({}, "unavailable", "words of the service", secrets)


def pytest_collection_finish() -> None:
    """Keep what was imported out of each later look for garbage: many tests make one."""
    _draw_nothing()
    _freeze()


@hypothesis.settings(derandomize=True, database=None)
@hypothesis.given(hypothesis.strategies.none())
def _draw_nothing(nothing: None) -> None:
    """Let Hypothesis register its random numbers now: later it would look in vain for who refers to them."""


@pytest.fixture(autouse=True, scope="module")
def _what_stays_is_frozen() -> Iterator[None]:
    """Keep what pytest remembers of earlier modules out of these looks too: it grows with each test."""
    yield
    _freeze()


def _freeze() -> None:
    gc.collect()
    getattr(gc, "freeze", gc.collect)()  # PyPy has no need of it
