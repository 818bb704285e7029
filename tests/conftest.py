"""What all tests stand on: an environment in which nothing is set, and a command line that is at home nowhere."""

import contextlib
import gc
import os
import sys
import uuid
from typing import Callable, Iterator

import pytest

from copilot_sync import settings
from copilot_sync.emulator import Emulator

_VARIABLES = [value for name, value in vars(settings).items() if name.endswith("_VARIABLE")]
_PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
_CERTIFICATES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]
_TERMINAL = ["NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "WT_SESSION"]


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the settings, proxies, certificates and folders of whoever runs the tests out of them."""
    proxies = [*_PROXIES, *(name.lower() for name in _PROXIES)]
    for name in [*_VARIABLES, *_CERTIFICATES, *_TERMINAL, *proxies]:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.getbasetemp() / f"home-{uuid.uuid4()}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))


@pytest.fixture
def served(copilot_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An emulator that the environment points at."""
    for name, value in copilot_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return copilot_emulator


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


def pytest_collection_finish() -> None:
    """Keep what was imported out of each later look for garbage: many tests make one."""
    getattr(gc, "freeze", gc.collect)()  # PyPy has no need of it
