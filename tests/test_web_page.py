"""The page on web applications: its Python runs, its tables are whole."""

import asyncio
import re
import sys
import types
from typing import Any, Dict, Iterator, List

import pytest
from blocks import DOCS, texts_of
from support import configure_django, nothing_left_open

from copilot_sync.contrib import sse
from copilot_sync.emulator import Emulator

PAGE = (DOCS / "web.rst").read_text(encoding="utf-8")
BLOCKS = texts_of(DOCS / "web.rst", "python")


def block_with(word: str) -> str:
    (found,) = [block for block in BLOCKS if word in block]
    return found


def run(word: str) -> Dict[str, Any]:
    """Run the block with a word in it, and give its names."""
    names: Dict[str, Any] = {"__name__": "page"}
    exec(block_with(word), names)
    return names


@pytest.fixture(autouse=True)
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The service to which the environment points."""
    with nothing_left_open():
        with Emulator() as served:
            for name, value in served.environment.items():
                monkeypatch.setenv(name, value)
            yield served


def test_the_application_of_any_framework_answers() -> None:
    """As a WSGI server calls it."""
    names = run("def application")
    started: List[Any] = []
    body = names["application"]({}, lambda *arguments: started.append(arguments))
    assert b"".join(body).endswith(b"}\n\n")
    assert started == [("200 OK", list(sse.HEADERS.items()))]
    names["client"].close()


def test_the_starlette_endpoint_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette is not needed for that: it sends what its response iterates over."""
    sent: List[Any] = []
    stand_in: Any = types.ModuleType("starlette")
    stand_in.Request = object
    stand_in.StreamingResponse = lambda body, headers: sent.extend((body, headers))
    for name in ("starlette", "starlette.requests", "starlette.responses"):
        monkeypatch.setitem(sys.modules, name, stand_in)
    names = run("import StreamingResponse")

    async def main() -> bytes:
        await names["answer"](types.SimpleNamespace(query_params={"prompt": "hi"}))
        return b"".join([part async for part in sent[0]])

    assert b'"text":"hi"' in asyncio.run(main())
    assert sent[1] == sse.HEADERS
    names["client"].close()


def test_the_flask_application_answers() -> None:
    """And keeps the conversation."""
    pytest.importorskip("flask")
    app = run("SECRET_KEY")["app"]
    page = app.test_client()
    for _ in range(2):
        assert b'"complete"' in page.post("/chat", data={"prompt": "hi"}).data
    with page.session_transaction() as session:
        assert [name for name, _ in session["copilot_sync"]] == ["chat"]
    app.extensions["copilot_sync"].close()


def test_the_flask_view_for_data_answers(emulator: Emulator) -> None:
    """With what was asked for, as JSON."""
    pytest.importorskip("flask")
    pytest.importorskip("pydantic")
    emulator.script('{"street": "12 St James\'s Square", "city": "London"}')
    app = run("class Address")["app"]
    answer = app.test_client().post("/address", data={"text": "She lived in London."}).get_json()
    assert answer["parsed"]["city"] == "London"
    app.extensions["copilot_sync"].close()


def test_the_django_settings_and_views_can_be_used(emulator: Emulator) -> None:
    """By a site that is set up otherwise already."""
    pytest.importorskip("django")
    configure_django()
    from django.core.checks import run_checks
    from django.test import RequestFactory, override_settings

    request: Any = RequestFactory().post("/chat", {"prompt": "hi"})
    request.session = {}
    setting = {**run("COPILOT_SYNC =")["COPILOT_SYNC"], "LEDGER": False}  # there are no tables
    with override_settings(COPILOT_SYNC=setting, CACHES=_CACHES):
        assert run_checks() == []
        views = run("def new(")
        for view in (views["chat"], views["new"]):
            response = view(request)
            response.close()
        assert list(request.session["copilot_sync"]) == ["chat"]
        assert len(emulator.threads) == 2
        assert callable(run("async def chat")["chat"])


_CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def test_the_table_of_codes_is_whole() -> None:
    """Each code is explained once."""
    [_, table] = re.split(r"^``code``  +what it means$", PAGE, flags=re.MULTILINE)
    codes = re.findall(r"^``(\w+)``  ", table, re.MULTILINE)
    assert sorted(codes) == sorted({message.code for message in (*sse._MESSAGES.values(), sse._NOT_KEPT)})


def test_every_block_is_run() -> None:
    """None was added without a test."""
    assert len(BLOCKS) == 7
