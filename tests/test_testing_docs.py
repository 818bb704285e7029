"""The tests that docs/testing.rst begins with pass. Those with recorders and mocks run in ``tests/engines``."""

from pathlib import Path

import pytest
from blocks import DOCS, run_module, run_tests, text_with, texts_of

PAGE = DOCS / "testing.rst"
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


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """As they stand, each block in a file of its own, with no other settings."""
    blocks = [text for text in texts_of(PAGE, "python") if "(copilot_emulator" in text and "flask" not in text]
    assert len(blocks) == 2
    assert "3 passed" in run_tests(blocks, tmp_path)


def test_the_view_of_flask_is_tested(tmp_path: Path) -> None:
    """The block has the application and its test."""
    pytest.importorskip("flask")
    assert "1 passed" in run_tests([text_with("import flask", PAGE, "python")], tmp_path)


def test_the_view_of_django_is_tested(tmp_path: Path) -> None:
    """With the view of the page about web applications."""
    pytest.importorskip("django")
    site = tmp_path / "mysite"
    site.mkdir()
    view, tests = text_with("def new(", DOCS / "web.rst", "python"), text_with("import TestCase", PAGE, "python")
    for name, text in (("__init__", ""), ("settings", _SITE), ("views", view), ("tests", tests)):
        (site / f"{name}.py").write_text(text, encoding="utf-8")
    assert "Ran 1 test in" in run_module(tmp_path, "django", "test", "--settings", "mysite.settings")
