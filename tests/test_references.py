"""What an answer used: references, unknown events and raw data, from the service to whoever asked."""

import json
import logging
import pickle
import uuid
from typing import Any, Dict, Iterator, List

import pytest
from asking import AT_ONCE

from copilot_sync import Client, UnknownEvent, Usage
from copilot_sync.delivery import answer_builder
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.protocol.requests import ROOT

FILE = {"type": "file", "path": "README.md", "repoOwner": "octocat", "repoName": "Hello-World"}
PAGE = {"type": "web", "title": "PEP 3333", "url": "https://peps.python.org/pep-3333/"}
SKILL = {"type": "skillExecution", "name": "search", "status": "done"}


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    urls = emulator.github_url, emulator.api_url
    with Client(cookies=emulator.cookies, retry=AT_ONCE, github_url=urls[0], api_url=urls[1]) as opened:
        yield opened


def test_an_answer_has_what_it_used(emulator: Emulator, client: Client) -> None:
    """The references of the closing event, that event itself, and the events that nobody knows."""
    emulator.script(Reply([SKILL, "one ", {"type": "confirmation"}, "two"], complete={"references": [FILE, PAGE]}))
    answer = client.ask("hi")
    assert answer.text == "one two"
    assert answer.references == (FILE, PAGE)
    assert answer.events == (
        UnknownEvent("skillExecution", SKILL),
        UnknownEvent("confirmation", {"type": "confirmation"}),
    )
    assert (answer.data["type"], answer.data["role"]) == ("complete", "assistant")
    assert pickle.loads(pickle.dumps(answer)).data == answer.data
    assert json.loads(json.dumps(answer.to_dict()))["references"] == [FILE, PAGE]


def test_an_answer_that_used_nothing_says_so(emulator: Emulator, client: Client) -> None:
    """Also one whose end was not announced, of which there is no raw data."""
    emulator.script("one", Reply(["one"], complete=False, done=True))
    assert (client.ask("hi").references, client.ask("hi").events) == ((), ())
    emulator.script(Reply(["one"], complete=False, done=True))
    last = client.ask("hi")
    assert (last.references, last.events, last.data) == ((), (), {})


def test_a_document_is_the_raw_data_of_its_answer(emulator: Emulator, client: Client) -> None:
    """All of it, with what stands beside the message."""
    document = {"message": {"content": "one", "references": [FILE]}, "experiment": 7}
    emulator.script(Reply(raw=json.dumps(document).encode()))
    answer = client.ask("hi")
    assert (answer.text, answer.references, answer.data) == ("one", (FILE,), document)


@pytest.mark.parametrize(
    "references, expected",
    [
        (None, ()),
        ("README.md", ()),
        ({"path": "README.md"}, ()),
        ([None, 7, "x", [FILE], FILE], (FILE,)),
        ([{"path": "\ud800", "\udc00": [{"deep": "\ud800"}]}], ({"path": "\ufffd", "\ufffd": [{"deep": "\ufffd"}]},)),
    ],
    ids=["null", "text", "an object", "other types", "surrogates"],
)
def test_references_may_be_anything(emulator: Emulator, client: Client, references: Any, expected: Any) -> None:
    """What is no object is left out, and the rest can be written as JSON in UTF-8."""
    emulator.script(Reply(["one"], complete={"references": references}))
    answer = client.ask("hi")
    assert (answer.text, answer.references) == ("one", expected)
    json.dumps(answer.to_dict(), ensure_ascii=False, allow_nan=False).encode("utf-8")


def test_numbers_that_json_lacks_do_not_reach_other_programs(emulator: Emulator, client: Client) -> None:
    """Python reads ``NaN`` and numbers too large for a float; a page would choke on them."""
    end = b'data: {"type":"complete","references":[{"score":NaN,"rank":[1e999,-Infinity,2]}]}\n\n'
    emulator.script(Reply(raw=b'data: {"type":"content","body":"one"}\n\n' + end))
    assert client.ask("hi").references == ({"score": None, "rank": [None, None, 2]},)


def test_many_references_are_all_there(emulator: Emulator, client: Client) -> None:
    """As far as one event may hold them."""
    emulator.script(Reply(["one"], complete={"references": [{"path": f"{number}.py"} for number in range(5000)]}))
    assert len(client.ask("hi").references) == 5000


def test_a_flood_of_unknown_events_is_bounded_by_number(
    emulator: Emulator, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The first ones are kept, one warning speaks of the rest, and the answer is whole."""
    emulator.script(Reply([*({"type": "news", "number": number} for number in range(20_000)), "one"]))
    with caplog.at_level(logging.WARNING):
        answer = client.ask("hi")
    assert (answer.text, answer.complete) == ("one", True)
    assert [event.data["number"] for event in answer.events] == list(range(answer_builder.MAX_EVENTS))
    (record,) = caplog.records
    assert "more unknown events than are kept" in record.getMessage()


def test_large_unknown_events_are_bounded_by_size(
    emulator: Emulator, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is too large is left out, and smaller ones after it are kept."""
    huge = {"type": "huge", "text": "é" * answer_builder.MAX_EVENT_BYTES}
    half = {"type": "half", "text": "x" * (answer_builder.MAX_EVENT_BYTES // 2)}
    emulator.script(Reply([huge, half, half, SKILL, "one"]))
    with caplog.at_level(logging.WARNING):
        answer = client.ask("hi")
    assert [event.type for event in answer.events] == ["half", "skillExecution"]
    assert len(caplog.records) == 1


def test_a_stream_yields_the_events_that_are_not_kept(emulator: Emulator, client: Client) -> None:
    """Whoever iterates over everything gets everything."""
    emulator.script(Reply([*[SKILL] * (answer_builder.MAX_EVENTS + 1), "one"]))
    unknown = [event for event in client.stream("hi").events() if isinstance(event, UnknownEvent)]
    assert len(unknown) == answer_builder.MAX_EVENTS + 1


def test_the_events_of_a_reply_that_failed_are_not_those_of_the_answer(emulator: Emulator, client: Client) -> None:
    """A message that was sent again has another reply."""
    emulator.script(Reply([{"type": "first"}, "one"]), Reply([{"type": "second"}, "one"]))
    emulator.fail("message", Fault.cut(1))
    emulator.fail("messages", *[Fault.status(200, body={"messages": []})] * 2)
    assert [event.type for event in client.ask("hi").events] == ["second"]


def stored(handle: MessageHandle, **fields: Any) -> Dict[str, Any]:
    """A thread's messages, in which the answer of a handle has these fields."""
    question: Dict[str, Any] = {"id": "q-1", "role": "user", "content": "hi", "parentMessageID": ROOT}
    answer = {"id": handle.answer_id, "role": "assistant", "content": "one two", "parentMessageID": "q-1"}
    return {"thread": {"id": handle.conversation_id}, "messages": [question, {**answer, **fields}]}


HOSTILE: List[Any] = [
    pytest.param({}, ("gpt-4o", None, ()), id="nothing"),
    pytest.param(
        {"model": "gpt-5-mini", "usage": {"inputTokens": 3, "outputTokens": 2}, "references": [FILE]},
        ("gpt-5-mini", Usage(3, 2), (FILE,)),
        id="all",
    ),
    pytest.param({"model": 7, "usage": "much", "references": "some"}, ("gpt-4o", None, ()), id="other types"),
    pytest.param(
        {"model": "", "usage": {"inputTokens": -1.5}, "references": [None, {"a": "\ud800"}]},
        ("gpt-4o", Usage(None, None), ({"a": "\ufffd"},)),
        id="odd values",
    ),
]


@pytest.mark.parametrize("fields, expected", HOSTILE)
def test_an_answer_from_its_thread_has_what_the_thread_knows(
    emulator: Emulator, client: Client, quick_looks: None, fields: Dict[str, Any], expected: Any
) -> None:
    """Its model, what it cost and what it used, and the stored message as raw data."""
    handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), ROOT)
    emulator.script(Reply(["one ", "two"]))
    emulator.fail("message", Fault.cut(1))
    body = stored(handle, **fields)
    emulator.fail("messages", Fault.status(200, body=body))
    answer = client.stream("hi", model="gpt-4o", handle=handle).read()
    assert (answer.text, answer.complete) == ("one two", True)
    assert (answer.model, answer.usage, answer.references) == expected
    assert answer.data == body["messages"][1]
