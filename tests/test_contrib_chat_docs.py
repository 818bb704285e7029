"""The documentation of the chat page: its Python runs, and its numbers are those of the code."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from support import configure_django, nothing_left_open

from copilot_sync.contrib.chat import bodies, kept_answers, readings, service
from copilot_sync.contrib.lazy_client import SITE_OPTIONS
from copilot_sync.emulator import Emulator

PAGE = (Path(__file__).parents[1] / "docs" / "chat_page.rst").read_text(encoding="utf-8")
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", PAGE, re.MULTILINE)
]


def run(word: str) -> Dict[str, Any]:
    """Run the block with a word in it, and give its names."""
    (block,) = [block for block in BLOCKS if word in block]
    names: Dict[str, Any] = {"__name__": "page"}
    exec(block, names)
    return names


@pytest.fixture(autouse=True)
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The service to which the environment points."""
    with nothing_left_open():
        with Emulator() as served:
            for name, value in served.environment.items():
                monkeypatch.setenv(name, value)
            yield served


def test_the_flask_application_answers() -> None:
    """At the address that it was given."""
    pytest.importorskip("flask")
    app = run("CopilotSync(app)")["app"]
    browser = app.test_client()
    assert browser.get("/chat/").status_code == 200
    form = {"name": "chat", "prompt": "hi"}
    assert b'"complete"' in browser.post("/chat/ask", data=form, headers={"X-CSRFToken": "x"}).data
    app.extensions["copilot_sync"].close()


def test_the_flask_page_requires_a_login() -> None:
    """Its own views, and no others. In another process, because all applications of this one share the blueprint."""
    pytest.importorskip("flask")
    (login,) = [block for block in BLOCKS if "before_request" in block]
    (site,) = [block for block in BLOCKS if "CopilotSync(app)" in block]
    visits = """
app.post("/login")(lambda: flask.session.update(user="anna") or "hello")
browser = app.test_client()
for answer in (
    browser.get("/chat/"),
    browser.post("/chat/ask", data={"name": "chat", "prompt": "hi"}, headers={"X-CSRFToken": "x"}),
    browser.post("/login"),
    browser.get("/chat/"),
):
    print(answer.status_code, answer.headers.get("Location"))
"""
    command = [sys.executable, "-W", "error", "-c", login + site + visits]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    assert done.stdout.splitlines() == ["302 /login", "302 /login", "200 None", "200 None"]


def test_the_django_settings_and_addresses_can_be_used() -> None:
    """By a site that is set up otherwise already."""
    pytest.importorskip("django")
    configure_django()
    from django.core.checks import run_checks
    from django.test import Client, override_settings

    from copilot_sync.contrib.django import get_client

    names = run("COPILOT_SYNC =")
    setting = {**names["COPILOT_SYNC"], "LEDGER": False}  # there are no tables
    urls: Any = type("urls", (), {"urlpatterns": run("urlpatterns =")["urlpatterns"]})
    engine = "django.contrib.sessions.backends.signed_cookies"
    with override_settings(
        COPILOT_SYNC=setting, MIDDLEWARE=names["MIDDLEWARE"], ROOT_URLCONF=urls, SESSION_ENGINE=engine
    ):
        assert [each for each in run_checks() if each.id.startswith("copilot_sync")] == []
        response: Any = Client().post("/chat/ask", {"name": "chat", "prompt": "hi"})
        assert b'"complete"' in b"".join(response.streaming_content)
        response.close()
        get_client().close()


def test_every_block_is_run() -> None:
    """None was added without a test."""
    assert len(BLOCKS) == 4


def test_every_setting_is_explained() -> None:
    """And the page names none that there is not."""
    named = set(re.findall(r"``((?:CHAT|NAME|HEARTBEAT)[A-Z_]*)``", PAGE))
    assert named == {name.upper() for name in SITE_OPTIONS}


def test_the_numbers_are_those_of_the_code() -> None:
    """Seconds, characters and answers."""
    assert "within five\n  seconds" in PAGE
    assert kept_answers.LEASE == 5
    assert "up to five minutes" in PAGE
    assert readings.TAKE_OVER == 300
    assert "kept for 15 minutes" in PAGE
    assert kept_answers.KEPT == 15 * 60
    assert "up to a million characters" in PAGE
    assert kept_answers.LONGEST == 1_000_000
    assert f"At most {bodies.MOST_READ_ON} answers" in PAGE
    assert f"{service._LARGEST_MEMORY // 1_000_000} million characters" in PAGE
    assert f"every {readings.HEARTBEAT} seconds" in PAGE
