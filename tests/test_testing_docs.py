"""The tests that docs/testing.rst begins with pass. Those with recorders and mocks run in ``tests/engines``."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import List

import pytest

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)


def blocks_of(text: str) -> List[str]:
    """Return the blocks of Python."""
    return [textwrap.dedent(block) for block in _BLOCK.findall(text)]


_PAGE = (DOCS / "testing.rst").read_text(encoding="utf-8")
BLOCKS = blocks_of(_PAGE.partition("With the emulator\n")[2].partition("With recorders and mocks\n")[0])
#: A site around the view of docs/web.rst: its settings, which are its addresses too.
_SITE = """\
from django.urls import path

SECRET_KEY = "for tests"
ROOT_URLCONF = "mysite.settings"
INSTALLED_APPS = ["django.contrib.sessions", "copilot_sync.contrib.django"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True


def _chat(request):
    from mysite.views import chat

    return chat(request)


urlpatterns = [path("chat/", _chat)]
"""


def passes(folder: Path, *command: str) -> str:
    """Run a module of Python in a folder, which must succeed, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", *command],
        check=False,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout.decode() if done.returncode else "") == (0, "")
    return done.stdout.decode()


def run_pytest(folder: Path, *blocks: str) -> str:
    """Run blocks as they stand, each in a file of its own, with no other settings."""
    for number, block in enumerate(blocks):
        (folder / f"test_page_{number}.py").write_text(block, encoding="utf-8")
    plugins = ["-p", "no:cacheprovider", "-p", "no:langsmith_plugin"]  # which LangChain brings: see tox.ini
    return passes(folder, "pytest", "-q", *plugins, "--rootdir", str(folder))


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """As they stand, each block in a file of its own, with no other settings."""
    assert len(BLOCKS) == 4
    assert "3 passed" in run_pytest(tmp_path, *BLOCKS[:2])


def test_the_view_of_flask_is_tested(tmp_path: Path) -> None:
    """The block has the application and its test."""
    pytest.importorskip("flask")
    assert "1 passed" in run_pytest(tmp_path, BLOCKS[2])


def test_the_view_of_django_is_tested(tmp_path: Path) -> None:
    """With the view of the page about web applications."""
    pytest.importorskip("django")
    (view,) = [block for block in blocks_of((DOCS / "web.rst").read_text(encoding="utf-8")) if "def new(" in block]
    site = tmp_path / "mysite"
    site.mkdir()
    for name, text in (("__init__", ""), ("settings", _SITE), ("views", view), ("tests", BLOCKS[3])):
        (site / f"{name}.py").write_text(text, encoding="utf-8")
    told = passes(tmp_path, "django", "test", "--settings", "mysite.settings")
    assert "Ran 1 test in" in told
