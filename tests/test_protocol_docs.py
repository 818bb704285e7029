"""docs/protocol.rst is a promise: what is requested, sent and read stands on it, and what stands on it is so."""

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set

import pytest
from emulated import api, new_thread, post
from wire import URLS, failure

import copilot_sync
from copilot_sync import models, settings
from copilot_sync.emulator import Emulator
from copilot_sync.pacing.policy import Resend, verdict_of
from copilot_sync.protocol import errors, events, limits, requests
from copilot_sync.protocol.page import page_request
from copilot_sync.protocol.requests import MessageOptions, Request

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "protocol.rst").read_text(encoding="utf-8")
#: What each request of the library can be made of.
GIVEN: Dict[str, Any] = {
    "urls": URLS,
    "thread_id": "t1",
    "content": "Hi",
    "name": "n",
    "model": "auto",
    "options": MessageOptions(),
    "parent_id": "root",
    "response_id": "r1",
}


def all_requests() -> Iterator[Request]:
    """Each request that the library makes, in each of its forms."""
    makers: List[Any] = [*inspect.getmembers(requests, inspect.isfunction), ("page_request", page_request)]
    for name, make in makers:
        if name.startswith("_") or not name.endswith("_request"):
            continue
        parameters = inspect.signature(make).parameters.values()
        needed = {each.name: GIVEN[each.name] for each in parameters if each.default is each.empty}
        yield make(**needed)
        for switch in (each.name for each in parameters if each.default is False):
            yield make(**needed, **{switch: True})


REQUESTS = list(all_requests())


def table(head: str) -> List[List[str]]:
    """The rows of all tables whose first column has this head. A line without a first cell goes on with its row."""
    rows: List[List[str]] = []
    pattern = rf"^{re.escape(head)} .*\n(=[= ]+)\n((?:.+\n)*?)=[= ]+\n"
    for border, body in re.findall(pattern, PAGE, re.MULTILINE):
        starts = [column.start() for column in re.finditer("=+", border)]
        for line in body.splitlines():
            cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None])]
            rows.append(cells if cells[0] else [" ".join(pair).strip() for pair in zip(rows.pop(), cells)])
    assert rows
    return rows


def code(text: str) -> List[str]:
    return re.findall(r"``(.+?)``", text)


def test_every_request_stands_on_the_page() -> None:
    """By its method and path; and every row of the table is a request that is made."""
    made = {f"{request.method} {request.template}" for request in REQUESTS}
    assert len(made) >= 10
    assert {name for name in made if f"``{name}``" not in PAGE} == set()
    assert {name for first, *_ in table("request") for name in code(first)} <= made


def test_every_header_stands_on_the_page() -> None:
    """With its value, if that is fixed; and no other header does, but for those that carry credentials."""
    rows = {first: value for first, value, _ in table("header")}
    named = {name for first in rows for name in code(first)}
    sent = {name for request in REQUESTS for name in request.headers}
    assert named == sent | {"Cookie", "Authorization"}
    for name in ("GitHub-Verified-Fetch", "X-Requested-With", "copilot-integration-id", "X-GitHub-Api-Version"):
        (value,) = {request.headers[name] for request in REQUESTS if name in request.headers}
        assert f"``{value}``" in rows[f"``{name}``"]
    for name in ("Accept", "Accept-Encoding"):
        values = {value for request in REQUESTS for value in request.headers[name].split(", ")}
        assert set(code(rows[f"``{name}``"])) == values
    (page,) = (request for request in REQUESTS if request.template == requests.PAGE)
    (sentence,) = re.findall(r"The request for the page has (.*?) alone\.", PAGE)
    assert set(code(sentence)) == {"Cookie", *page.headers}


def test_every_field_of_a_message_stands_on_the_page() -> None:
    """And no other; with the values of those that are always the same."""
    (message,) = (request for request in REQUESTS if request.stage == "message")
    body = json.loads(message.body or b"")
    rows = {code(first)[0]: value for first, value, _ in table("field")}
    assert rows.keys() == body.keys()
    for name in ("intent", "context", "streaming", "confirmations", "mode", "skillOptions", "requestTrace"):
        assert f"``{json.dumps(body[name])}``" in rows[name]


def test_every_event_stands_on_the_page() -> None:
    """Those that are read, the error, the mark of the end, and all others."""
    rows = [first for first, *_ in table("event")]
    assert sorted(rows) == sorted([*(f"``{name}``" for name in (*events._READERS, "error", "[DONE]")), "any other"])


def listed(emulator: Emulator, path: str, key: str) -> Set[str]:
    """The fields of the first entry of a list of the emulator, whose fields are those of the wire."""
    (entry, *_) = api(emulator, "GET", path).json[key]
    return set(entry)


#: What a list's entries become, where the list is, and its name there.
LISTS: Dict[str, Any] = {
    "threads": (models.Thread, "/github/chat/threads", "threads"),
    "messages": (models.Message, "/github/chat/threads/{id}/messages", "messages"),
    "models": (models.Model, "/github/chat/models", "data"),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_field_of_a_list_stands_on_the_page(emulator: Emulator, name: str) -> None:
    """Those of the wire on the left, and on the right those of the value that they become."""
    kind, path, key = LISTS[name]
    thread_id = new_thread(emulator)
    assert post(emulator, thread_id).status == 200
    rows = [(re.sub(r"\(.*?\)", "", first), becomes) for first, becomes, _ in table(f"``Client.{name}``")]
    assert {name for first, _ in rows for name in code(first)} == listed(emulator, path.format(id=thread_id), key)
    fields = {field.name for field in dataclasses.fields(kind)} - {"data"}
    assert {name for _, becomes in rows for name in code(becomes)} == fields


def test_every_field_of_the_quota_stands_on_the_page() -> None:
    """As it is named in Python."""
    fields = {field.name for field in dataclasses.fields(models.Quota)} - {"data"}
    assert {name for _, becomes, _ in table("``Client.quota``") for name in code(becomes)} == fields


def test_every_status_stands_on_the_page() -> None:
    """With the error that it becomes by itself, and whether the message is sent again."""
    rows = {int(code(status)[0]): (code(kind), what) for status, kind, what, _ in table("status")}
    assert rows.keys() == errors._STATUSES.keys() | {500, 502, 503, 504}
    signs = {Resend.FINAL: "", Resend.UNKNOWN: "looks whether|the same", Resend.NOT_PROCESSED: "sends again|waits"}
    for status, (kinds, what) in rows.items():
        error = failure(status)
        resend = verdict_of(error).resend
        assert kinds == [type(error).__name__]
        assert re.search(signs[resend], what)
        assert resend is not Resend.FINAL or not re.search("again|the same|waits", what)
        assert {name for name in code(what) if name.endswith("Error")} <= set(copilot_sync.__all__)


def test_the_fields_that_say_how_long_to_wait_stand_in_their_order() -> None:
    """The first that can be read counts."""
    named = re.findall(r"^\d\. ``([\w-]+)``", PAGE, re.MULTILINE)
    assert named == [*limits._WAIT_FIELDS, "x-ratelimit-reset"]


def test_figures_and_hosts_are_those_of_the_code() -> None:
    """How long a token lives, how much of a refusal is quoted, and where requests go."""
    assert f"takes the token to live {settings.TOKEN_LIFETIME / 60:.0f} minutes" in PAGE
    assert settings.TOKEN_MARGIN == 60
    assert f"quotes at most {settings.MAX_ERROR_TEXT} characters" in PAGE
    hosts = {url for first, *_ in table("host") for url in code(first)}
    assert {settings.GITHUB_URL, settings.API_URL} < hosts
    assert hosts - {settings.GITHUB_URL, settings.API_URL} == set(re.findall(r"https://\S+\.com", str(failure(421))))


def test_every_fact_has_a_source() -> None:
    """One of those that the page explains, in the last column or in parentheses; what is left out has a reason."""
    sources = {first.strip("*") for first, _ in table("source")}
    for head in ("request", "field", "event", "status", "host", *(f"``Client.{name}``" for name in LISTS)):
        assert {source for *_, last in table(head) for source in last.split(", ")} <= sources
    for _, what, *source in table("fact"):
        assert what
        assert set(source) <= sources
    assert "protocol" in (DOCS / "index.rst").read_text(encoding="utf-8").split()
