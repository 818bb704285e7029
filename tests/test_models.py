"""The values: a conversation that goes on, plain frozen data, and a secret that never shows itself."""

import copy
import dataclasses
import json
import pickle
from typing import Any, Dict, List

import pytest

from copilot_sync.events import UnknownEvent
from copilot_sync.models import (
    Answer,
    BaseConversation,
    Conversation,
    Message,
    Model,
    Quota,
    Thread,
)
from copilot_sync.usage import Usage


def conversation(conversation_id: str = "c1", message_id: Any = "m1") -> Conversation:
    return Conversation.from_dict({"conversation_id": conversation_id, "message_id": message_id})


def test_a_conversation_is_made_of_its_id() -> None:
    """The documented constructor; no message of it is known yet."""
    made = Conversation("c1")
    assert isinstance(made, BaseConversation)
    assert (made.conversation_id, made.message_id) == ("c1", None)
    assert repr(made) == "Conversation('c1', message_id=None)"


@pytest.mark.parametrize(
    "value, kind", [("", ValueError), (None, TypeError), (5, TypeError), (b"c1", TypeError)], ids=repr
)
def test_a_conversation_needs_an_id_that_is_text(value: Any, kind: Any) -> None:
    """What can't be an id is told at once, not by the service."""
    with pytest.raises(kind, match="conversation_id must"):
        Conversation(value)


@pytest.mark.parametrize("message_id", [None, "m1"])
def test_a_conversation_fits_a_json_session(message_id: Any) -> None:
    """``from_dict`` of what a JSON session gives back is the conversation that was put in."""
    before = conversation("c1", message_id)
    assert Conversation.from_dict(json.loads(json.dumps(before.to_dict()))) == before
    assert before.to_dict() == {"conversation_id": "c1", "message_id": message_id}


def test_a_conversation_is_read_from_a_dictionary_of_another_version() -> None:
    """Unknown fields are ignored and the last message may be missing: sessions outlive releases."""
    read = Conversation.from_dict({"conversation_id": "c1", "colour": "blue"})
    assert read == Conversation("c1")


@pytest.mark.parametrize(
    "data, kind, words",
    [
        (None, TypeError, "a conversation is made of a mapping, not of NoneType"),
        ("c1", TypeError, "a conversation is made of a mapping, not of str"),
        ([("conversation_id", "c1")], TypeError, "a conversation is made of a mapping, not of list"),
        ({}, ValueError, "a conversation needs a conversation_id"),
        ({"conversation_id": None}, TypeError, "conversation_id must be a string, not NoneType"),
        ({"conversation_id": ""}, ValueError, "conversation_id must not be empty"),
        ({"conversation_id": "c1", "message_id": 7}, TypeError, "message_id must be a string, not int"),
    ],
    ids=repr,
)
def test_a_dictionary_that_is_no_conversation_is_refused(data: Any, kind: Any, words: str) -> None:
    """A broken session says what is wrong with it."""
    with pytest.raises(kind, match=words):
        Conversation.from_dict(data)


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_conversation_travels(travel: Any) -> None:
    """What arrives is equal and its own: going on with one does not move the other."""
    before = conversation()
    after = travel(before)
    assert after == before
    after.message_id = "m2"
    assert before.message_id == "m1"


@pytest.mark.parametrize(
    "other, equal",
    [
        (conversation("c1", "m1"), True),
        (conversation("c1", "m2"), False),
        (conversation("c1", None), False),
        (conversation("c2", "m1"), False),
        ("c1", False),
        ({"conversation_id": "c1", "message_id": "m1"}, False),
    ],
    ids=repr,
)
def test_conversations_are_equal_where_both_ids_are(other: Any, equal: bool) -> None:
    """They compare by value, and with nothing but another conversation."""
    assert (conversation("c1", "m1") == other) is equal
    assert (conversation("c1", "m1") != other) is not equal


def test_what_a_caller_hangs_on_a_conversation_does_not_count() -> None:
    """Providers of other services keep notes there; equality is about the two ids."""
    noted = conversation()
    noted.note = "mine"  # type: ignore[attr-defined]
    assert noted == conversation()


def test_a_conversation_can_not_be_hashed() -> None:
    """It changes with each answer, so it would be lost in a set."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(conversation())


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_conversation_may_be_said_in_two_ways(nothing: Any) -> None:
    """``conversation_id=""`` is none, as an empty form field is."""
    assert Conversation.from_value(nothing) is None


def test_an_id_will_do_for_a_conversation() -> None:
    """A string is read as an id; a conversation stays the very object, so that it is updated in place."""
    known = conversation()
    assert Conversation.from_value(known) is known
    assert Conversation.from_value("c1") == Conversation("c1")


@pytest.mark.parametrize(
    "value", [0, 5, b"c1", BaseConversation(), {"conversation_id": "c1"}], ids=lambda v: type(v).__name__
)
def test_what_is_no_conversation_is_refused(value: Any) -> None:
    """The error says what is wanted and what came."""
    with pytest.raises(TypeError, match=f"must be a Conversation or its id, not {type(value).__name__}"):
        Conversation.from_value(value)


ANSWER = Answer(
    text="Hello",
    conversation=conversation(),
    model="gpt-4o",
    usage=Usage(12, 2),
    message_id="m1",
    annotations={"CodeVulnerability": []},
    complete=False,
    references=({"path": "a.py"},),
    events=(UnknownEvent("news", {"type": "news"}),),
    data={"raw": [1]},
)


@pytest.mark.parametrize(
    "value",
    [
        ANSWER,
        Usage(),
        Thread("t1", "name", "2026-04-15T09:16:31Z", None, "2026-05-01", True, {"raw": [1]}),
        Message("m1", "user", "text", "root", None, True, "gpt-4o", Usage(), ({"path": "a.py"},), {"raw": [1]}),
        Model("gpt-4o", "GPT-4o", "OpenAI", True, "chat", False, "versatile", True, 0.33, {"id": "gpt-4o"}),
        Quota("pro", "licensed_full", {"chat": 50}, {"chat": 48}, "2026-12-01", True, {"plan": "pro"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_frozen_and_travels(value: Any) -> None:
    """It compares by value, copies and pickles, and can't be changed."""
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value
    name = dataclasses.fields(value)[0].name
    assert dataclasses.replace(value, **{name: "other"}) != value
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, "other")


@pytest.mark.parametrize("kind", [lambda **facts: Model("m", **facts), Quota], ids=["model", "quota"])
def test_what_came_on_the_wire_counts_for_nothing_else(kind: Any) -> None:
    """Two lists of the same models are equal though the service added a field, and a report stays short."""
    assert kind(data={"new": []}) == kind()
    assert "new" not in repr(kind(data={"new": []}))
    assert pickle.loads(pickle.dumps(kind(data={"new": []}))).data == {"new": []}


def test_a_model_is_hashable() -> None:
    """Whatever the service said of it."""
    assert len({Model("m", data={"a": []}), Model("m"), Model("n")}) == 2


def test_an_answer_is_its_text() -> None:
    """``print(answer)`` prints what was said; the rest is there by name."""
    assert str(ANSWER) == f"{ANSWER}" == ANSWER.text == "Hello"


def test_a_notebook_shows_an_answer_as_markdown() -> None:
    """Its text is that, as it came."""
    assert Answer("**a**", Conversation("t"), "m")._repr_markdown_() == "**a**"


@pytest.mark.parametrize(
    "answer, expected",
    [
        (ANSWER, ["c1", "m1", "gpt-4o", {"input_tokens": 12, "output_tokens": 2}, False, [{"path": "a.py"}]]),
        (Answer("x", conversation("c2"), "m"), ["c2", None, "m", None, True, []]),
    ],
    ids=["all", "little"],
)
def test_the_details_of_an_answer_are_plain_json(answer: Answer, expected: List[Any]) -> None:
    """Always the same fields, in the same order."""
    names = ["conversation_id", "message_id", "model", "usage", "complete", "references"]
    assert json.dumps(answer.to_dict()) == json.dumps({"text": answer.text, **dict(zip(names, expected))})


@pytest.mark.parametrize(
    "value, expected",
    [
        (Answer("x", conversation(), "m"), {"usage": None, "message_id": None, "annotations": {}, "complete": True}),
        (Usage(), {"input_tokens": None, "output_tokens": None}),
        (Answer("x", conversation(), "m"), {"references": (), "events": (), "data": {}}),
        (Thread("t1"), {"id": "t1", "name": "", "created_at": None, "updated_at": None}),
        (Thread("t1"), {"shared_at": None, "manually_named": False, "data": {}}),
        (
            Message("m1", "user"),
            {"id": "m1", "role": "user", "content": "", "parent_id": None, "created_at": None, "interrupted": False},
        ),
        (Message("m1", "user"), {"model": "", "usage": None, "references": (), "data": {}}),
        (Model("m"), {"id": "m", "name": "", "vendor": "", "preview": False}),
        (Model("m"), {"kind": "", "enabled": True, "picker_category": "", "vision": False}),
        (Model("m"), {"premium_multiplier": None, "data": {}}),
        (Quota(), {"plan": "", "license_type": "", "limits": {}, "remaining": {}}),
        (Quota(), {"resets_at": None, "overages_enabled": None, "data": {}}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_has_the_documented_fields_and_defaults(value: Any, expected: Dict[str, Any]) -> None:
    """What the service did not say is ``None``, empty, or false."""
    assert {name: getattr(value, name) for name in expected} == expected


@pytest.mark.parametrize(
    "value",
    [ANSWER, Thread("t1", data={"raw": [1]}), Message("m1", "user", data={"raw": [1]})],
    ids=lambda v: type(v).__name__,
)
def test_raw_data_travels_but_is_neither_compared_nor_shown(value: Any) -> None:
    """What the service sent beside the fields may be anything, and may be large."""
    assert pickle.loads(pickle.dumps(value)).data == value.data == {"raw": [1]}
    assert dataclasses.replace(value, data={}) == value
    assert "raw" not in repr(value)


def test_the_events_of_an_answer_are_raw_data_too() -> None:
    """They travel with it."""
    assert pickle.loads(pickle.dumps(ANSWER)).events == ANSWER.events
    assert dataclasses.replace(ANSWER, events=()) == ANSWER
    assert "news" not in repr(ANSWER)


def test_threads_and_messages_can_be_members_of_sets() -> None:
    """Whatever the service sent with them."""
    assert len({Thread("t1", data={"raw": [1]}), Thread("t1")}) == 1
    assert len({Message("m1", "user", references=({"path": "a.py"},), data={"raw": [1]}), Message("m1", "user")}) == 2
