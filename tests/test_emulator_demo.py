"""The prepared answers for somebody who tries the library out."""

import json
from typing import Any

import pytest

from copilot_sync import Client
from copilot_sync.emulator import Emulator, Reply
from copilot_sync.emulator.demo import demo_answer
from copilot_sync.emulator.demo_data import demo_data, echo_or_data


@pytest.mark.parametrize(
    ("question", "beginning"),
    [
        ("Explain WSGI in one line", "**This is a demo.** The answer"),
        ("", "**This is a demo.** The answer"),
        ("Review this", "**This is a demo review.**"),
        ("Well?\n\ndiff --git a/app.py b/app.py\n+++ b/app.py", "**This is a demo review.**"),
        ("What is not tested in app.py?", "**This is a demo.** It was prepared: no model has read your file."),
        ("What does it do?", "**This is a demo.** It was prepared: no model has read your file."),
        ("And in Django?", "**Still the demo**"),
        ("Tell me more", "**Still the demo**"),
    ],
)
def test_each_kind_of_question_has_its_answer(question: str, beginning: str) -> None:
    """Each says at once that it is a demo."""
    assert demo_answer(question).startswith(beginning)


def test_an_answer_shows_what_answers_may_hold() -> None:
    """Bold text, code in a language, a table; and the next thing to type."""
    answer = demo_answer("Explain WSGI in one line")
    assert all(part in answer for part in ("**", "```python\n", "|---|", "`copilot-sync doctor`"))


def test_the_emulator_plays_it(emulator: Emulator) -> None:
    """As any other function of a prompt."""
    emulator.reply = Reply(demo_answer)
    with Client(emulator.api_key, api_url=emulator.api_url) as client:
        chat = client.chat()
        assert [chat.ask(question).text for question in ("Hello", "And now?")] == [
            demo_answer("Hello"),
            demo_answer("And now?"),
        ]


def data_for(schema: Any) -> Any:
    answer = demo_data(f"Who?\n\nIt has to fit this JSON Schema:\n{json.dumps(schema)}")
    return None if answer is None else json.loads(answer)


@pytest.mark.parametrize(
    "schema, data",
    [
        ({"properties": {"a": {"type": "string"}}, "required": ["a", "b"]}, {"a": "demo", "b": None}),
        ({"type": "string", "minLength": 6}, "demodemo"),
        ({"type": "string", "maxLength": 2}, "de"),
        ({}, "demo"),
        ({"type": ["integer", "null"]}, 1),
        ({"type": "integer", "minimum": 1900, "maximum": 2000}, 1900),
        ({"type": "number", "exclusiveMinimum": 7}, 8),
        ({"type": "number", "maximum": -1.5}, -1.5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"const": 7}, 7),
        ({"default": False}, False),
        ({"enum": ["red", "blue"]}, "red"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}}, [None]),
    ],
)
def test_a_question_for_data_gets_what_fits_its_schema(schema: Any, data: Any) -> None:
    """As most schemas are made."""
    assert data_for(schema) == data
    answer = f"Ada is?\nJSON Schema:\n{json.dumps(schema)}\nAssistant:"
    assert json.loads(demo_answer(answer)) == json.loads(echo_or_data(answer)) == data


def test_what_contains_itself_ends() -> None:
    """What may be missing is missing some levels down, and what may be something else is."""
    tree = data_for({"type": "object", "properties": {"parts": {"type": "array", "items": {"$ref": "#"}}}})
    assert json.dumps(tree).count("parts") in range(1, 9)
    part = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
    tree = data_for({"properties": dict.fromkeys("abcde", part), "required": list("abcde")})
    assert tree["a"]["e"]["c"] is None
    assert len(json.dumps(tree)) < 10_000


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {name: {"$ref": "#"} for name in "abc"}, "required": list("abc")},
        {"type": "array", "minItems": 10**12},
        {"type": "string", "minLength": 10**12},
    ],
)
def test_what_has_no_small_answer_gets_none(schema: Any) -> None:
    """It is not made up either, which would take all time or memory there is."""
    assert data_for(schema) is None


@pytest.mark.parametrize(
    "question",
    [
        "Hello",
        *[f"JSON Schema:\n{schema}" for schema in ("{", "7", "[1]", '"text"', '{"enum": []}')],
        'JSON Schema:\n{"type": "array", "items": [{"type": "string"}]}',
    ],
)
def test_any_other_question_gets_no_data(question: str) -> None:
    """Whatever stands in it."""
    assert demo_data(question) is None
    assert echo_or_data(question) == question
