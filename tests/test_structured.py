"""Schemas, without a server: what is one, what is sent of it, and how an answer is read."""

import contextlib
import dataclasses
import json
import pickle
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Callable, Dict, Iterable, List, Optional

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import Annotated

from copilot_sync.message_parts import NO_ATTACHMENTS
from copilot_sync.models import Answer, Conversation
from copilot_sync.prompts import prompt_text
from copilot_sync.structured import MOST_WORDS, Expectation, MisfitError, Schema, asking, repair_text


class Person(pydantic.BaseModel):
    name: str
    age: int


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Price(pydantic.BaseModel):
    amount: float = pydantic.Field(multiple_of=0.01)


class Endless(pydantic.BaseModel):
    """A model that is written with numbers that JSON does not have."""

    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")
    value: float


class Strange(pydantic.BaseModel):
    """A model that holds what it can't write."""

    value: Any

    @pydantic.field_validator("value")
    @classmethod
    def _made(cls, value: Any) -> Any:
        return object()


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
GOOD = '{"name": "Ada", "age": 36}'
#: How the names of the older drafts of JSON Schema begin.
DRAFTS = "http://json-schema.org/draft"


def schema(value: Any = PERSON) -> Schema:
    return Schema.from_value(value)


def problems(text: str, value: Any = PERSON) -> str:
    with pytest.raises(MisfitError) as caught:
        schema(value).parse(text)
    return "; ".join(caught.value.problems)


def answer(text: str) -> Answer:
    return Answer(text, Conversation("c1"), "gpt-4o")


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```",
        f"~~~ json title=x\r\n{GOOD}\r\n~~~\r\n",
        f"Here you are:\n\n```JSON\n{GOOD}\n```\n\nAnything else?",
        f"  ````json\n{GOOD}\n````",
        f"```json\n{GOOD}",
    ],
    ids=["bare", "spaces", "fence", "no info", "tildes and CRLF", "words around", "four marks", "no end"],
)
def test_a_document_is_read_bare_or_out_of_its_one_fence(text: str) -> None:
    """Models wrap JSON in Markdown, and words, however they are asked not to."""
    assert schema().parse(text) == {"name": "Ada", "age": 36}
    assert schema(Person).parse(text) == Person(name="Ada", age=36)


def test_a_fence_inside_of_a_string_is_text() -> None:
    """A document may hold Markdown itself. Its line breaks are escaped there, so no line begins with a fence."""
    document = json.dumps({"name": "```python\nprint()\n```", "age": 1})
    assert schema().parse(document)["name"] == "```python\nprint()\n```"
    assert schema().parse(f"```json\n{document}\n```")["name"] == "```python\nprint()\n```"


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not one JSON document"),
        ("I can't", "not one JSON document: Expecting value"),
        ('{"name": "Ada", "ag', "not one JSON document"),
        (f"{GOOD}\n{GOOD}", "not one JSON document: Extra data"),
        (f"```\n{GOOD}\n```\nor\n```\n{GOOD}\n```", "not one JSON document"),
        ('{"name": NaN}', "NaN is no JSON"),
        ("-Infinity", "-Infinity is no JSON"),
        ('{"name": 1e999}', "not one JSON document"),
        ('{"name": "\\ud800"}', "not valid Unicode"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ],
    ids=[
        "empty",
        "prose",
        "half",
        "two",
        "two fences",
        "NaN",
        "Infinity",
        "beyond a float",
        "lone surrogate",
        "open",
        "deep",
    ],
)
@pytest.mark.parametrize("value", [PERSON, Person], ids=["JSON Schema", "model"])
def test_what_is_no_json_does_not_fit(text: str, words: str, value: Any) -> None:
    """Whatever a model writes is an answer that does not fit, and never another error."""
    assert words in problems(text, value)


@pytest.mark.parametrize("value", [PERSON, Person], ids=["JSON Schema", "model"])
def test_the_words_of_the_validator_name_the_place(value: Any) -> None:
    """The model is told where it went wrong, and so is the caller."""
    assert "$.age" in problems('{"name": "Ada", "age": "old"}', value)
    assert "age" in problems('{"name": "Ada"}', value)
    assert "$[1].age" in problems(
        f'[{GOOD}, {{"name": "B", "age": []}}]', {"items": PERSON} if value is PERSON else List[Person]
    )


def test_all_sorts_of_types_are_judged_by_pydantic() -> None:
    """Models, dataclasses, and whatever else ``TypeAdapter`` takes. In its JSON mode, a text may be a number."""
    assert schema(Point).parse('{"x": "1.5"}') == Point(1.5)
    assert schema(List[Person]).parse(f"[{GOOD}]") == [Person(name="Ada", age=36)]
    assert schema(Optional[int]).parse("null") is None
    assert schema(Price).parse('{"amount": 19.99}') == Price(amount=19.99)


def test_a_json_schema_is_judged_by_jsonschema() -> None:
    """The page on schemas says what that library does other than pydantic: this is it."""
    assert "multiple" in problems("19.99", {"multipleOf": 0.01})
    assert schema({"type": "string", "format": "date-time"}).parse('"yesterday"') == "yesterday"
    assert schema({"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 1}).parse("1") == 1
    assert schema({"$schema": "http://127.0.0.1:9/unknown"}).parse("1") == 1


def test_a_number_that_no_float_holds_does_not_fit_what_divides_it() -> None:
    """Whatever the model writes, no other error comes out."""
    assert "too large to be judged" in problems(f"1{'0' * 400}", {"multipleOf": 0.01})


def test_the_last_of_two_equal_keys_counts() -> None:
    """As ``json`` has it."""
    assert schema().parse('{"name": "a", "name": "b", "age": 1}')["name"] == "b"


def test_a_document_as_deep_as_allowed_fits_or_does_not_and_no_stack_ends() -> None:
    """A schema that refers to itself is judged through all levels that a document may have."""
    tree = {"type": "array", "items": {"$ref": "#"}}
    steps = {str(step): {"$ref": f"#/$defs/{step + 1}"} for step in range(1500)}
    assert "nested too deeply" in problems("[]", {"$ref": "#/$defs/0", "$defs": {**steps, "1500": {}}})
    with contextlib.suppress(MisfitError):  # the stack of some Pythons is shorter
        assert schema(tree).parse("[" * 190 + "]" * 190)


@pytest.mark.parametrize(
    "value, kind, words",
    [
        ("Person", TypeError, "neither"),
        (len, TypeError, "neither"),
        (lambda: 1, TypeError, "neither"),
        (True, TypeError, "pydantic takes"),
        ([1], TypeError, "pydantic takes"),
        (Person(name="a", age=1), TypeError, "neither"),
        (List["Nobody"], TypeError, "pydantic takes"),  # type: ignore[name-defined] # noqa: F821
        (Callable[[], int], ValueError, "pydantic takes"),
        (Iterable[int], TypeError, "make it a List"),
        (Optional[List[Iterable[Person]]], TypeError, "make it a List"),
        (Annotated[str, pydantic.Field(pattern="(")], ValueError, "pydantic takes"),
        ({"type": "objekt"}, ValueError, "no valid JSON Schema: $.type"),
        ({"pattern": "["}, ValueError, "no valid JSON Schema: $.pattern"),
        ({"$schema": {}}, ValueError, "no text"),
        ({"const": object()}, TypeError, "can't be sent"),
        ({"const": float("nan")}, ValueError, "can't be sent"),
        ({"$ref": "#/$defs/nothing"}, ValueError, "nothing is fetched"),
        ({"$ref": "other.json"}, ValueError, "nothing is fetched"),
        ({"items": {"anyOf": [{"$ref": "#nowhere"}]}}, ValueError, "nothing is fetched"),
        ({"title": "x", "$ref": "#/title"}, ValueError, "no schema"),
        ({"$ref": "#/mine", "mine": {"$ref": "gone.json"}}, ValueError, "nothing is fetched"),
        ({"$ref": "#/mine", "mine": {"type": "objekt"}}, ValueError, "by '#/mine' is no valid JSON Schema: $.type"),
        ({"$ref": "#/mine", "mine": {"pattern": "("}}, ValueError, "by '#/mine' is no valid JSON Schema: $.pattern"),
        ({"$ref": "#/mine/a", "mine": True}, ValueError, "nothing is fetched"),
        ({"$schema": f"{DRAFTS}-04/schema#", "$ref": 1}, ValueError, "which is no text"),
        ({"$schema": f"{DRAFTS}-04/schema#", "patternProperties": {"(": {}}}, ValueError, "is not a 'regex'"),
        ({"$schema": f"{DRAFTS}-03/schema#", "type": "objekt"}, ValueError, "too old"),
        ({"items": {"$schema": f"{DRAFTS}-03/schema#"}}, ValueError, "too old"),
        ({"items": {"$schema": f"{DRAFTS}-04/schema#", "allOf": [False]}}, ValueError, "a part of schema is no valid"),
    ],
)
def test_a_schema_that_can_not_be_used_is_refused(value: Any, kind: type, words: str) -> None:
    """Before anything is sent, in one line."""
    with pytest.raises(kind, match=re.escape(words)) as caught:
        schema(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value, reference",
    [
        ({"$ref": "#"}, "#"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "#/$defs/a"),
        ({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"if": True, "then": {"$ref": "#/$defs/a"}}}}, "#/$defs/a"),
        ({"anyOf": [{"type": "string"}, {"not": {"$ref": "#"}}]}, "#"),
        ({"$ref": "#/allOf/0", "allOf": [{"$ref": "#"}]}, "#"),
        ({"dependentSchemas": {"a": {"oneOf": [{"$ref": "#"}]}}}, "#"),
        ({"$schema": f"{DRAFTS}-07/schema#", "dependencies": {"a": {"$ref": "#"}, "b": ["c"]}}, "#"),
        ({"$id": "http://127.0.0.1:9/a", "allOf": [{"$ref": "a"}]}, "a"),
        ({"$dynamicAnchor": "node", "allOf": [{"$dynamicRef": "#node"}]}, "#node"),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema", "else": {"$recursiveRef": "#"}}, "#"),
    ],
)
def test_a_schema_that_judges_a_value_by_itself_without_end_is_refused(value: Any, reference: str) -> None:
    """Each of its answers would fail, and cost messages, so that is found before any is sent."""
    with pytest.raises(ValueError, match=re.escape(f"refers by {reference!r} to what leads back")):
        schema(value)


@pytest.mark.parametrize(
    "value",
    [
        {"items": {"$ref": "#"}, "properties": {"a": {"allOf": [{"$ref": "#"}]}}, "propertyNames": {"$ref": "#"}},
        {"$dynamicAnchor": "node", "contains": {"$dynamicRef": "#node"}},
        {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {}}},
        {"properties": {"$ref": {"type": "string"}, "allOf": {"$ref": "#"}}},
        {"const": {"$ref": "#"}, "enum": [{"allOf": [{"$ref": "#"}]}]},
        {"$schema": f"{DRAFTS}-07/schema#", "dependencies": {"a": {"required": ["b"]}, "b": ["c"]}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$ref": "https://json-schema.org/draft/2019-09/schema"},
        {"$ref": f"{DRAFTS}-04/schema#"},
    ],
)
def test_a_schema_that_comes_back_to_itself_with_a_part_of_the_value_is_judged(value: Any) -> None:
    """A value has an end, and so has judging its parts. What only looks like a reference is none."""
    with contextlib.suppress(MisfitError):
        schema(value).parse('{"a": {"a": []}}')


class PanicException(BaseException):
    """As libraries in Rust raise it."""


def test_a_library_that_panics_at_the_end_of_the_stack_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What jsonschema keeps schemas in does, if the stack ends just there: no thread of a server ends by an answer."""

    def fail(*args: Any) -> Any:
        raise failures.pop()

    failures: List[BaseException] = [KeyboardInterrupt(), PanicException(), KeyboardInterrupt(), PanicException()]
    with pytest.raises(MisfitError, match="nested too deeply"):
        Schema("{}", fail, str).parse("[]")
    with pytest.raises(KeyboardInterrupt):
        Schema("{}", fail, str).parse("[]")
    monkeypatch.setattr("jsonschema.Draft202012Validator.check_schema", fail)
    with pytest.raises(ValueError, match="nested too deeply"):
        schema({})
    with pytest.raises(KeyboardInterrupt):
        schema({})


def test_a_schema_that_is_too_deep_to_be_checked_is_refused() -> None:
    """The gateway gets schemas from others: one is no reason to fail with an error of another kind."""
    deep: Dict[str, Any] = {}
    for _ in range(190):
        deep = {"items": deep}
    with pytest.raises(ValueError, match="schema is nested too deeply"):
        schema(deep)


def test_a_schema_may_refer_to_what_is_in_it() -> None:
    """By pointer, by anchor, by its own address, and to the schema of schemas, which the library brings."""
    value = {
        "$id": "http://127.0.0.1:9/person",
        "$defs": {"name": {"$anchor": "name", "type": "string"}, "loop": {"items": {"$ref": "#/$defs/loop"}}},
        "properties": {
            "a": {"$ref": "#/$defs/name"},
            "b": {"$ref": "#name"},
            "c": {"$ref": "http://127.0.0.1:9/person#/$defs/name"},
            "d": {"$ref": "https://json-schema.org/draft/2020-12/schema"},
            "e": {"$ref": "#/$defs/loop"},
            "f": True,
            "g": {"$ref": f"{DRAFTS}-07/schema#"},
        },
    }
    assert schema(value).parse('{"a": "x", "d": {"type": "string"}, "e": [[]]}')
    for name in "abc":
        assert f"$.{name}" in problems(f'{{"{name}": 1}}', value)
    assert "$.d" in problems('{"d": {"type": 1}}', value)


def test_nothing_is_fetched_that_a_schema_refers_to() -> None:
    """A schema may come from anybody: one that names a server must not have it asked."""
    seen: List[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # pragma: no cover - nobody asks
            seen.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            for value in ({"$ref": f"{address}/a"}, {"$id": f"{address}/x", "$ref": "b"}, {"$schema": f"{address}/c"}):
                try:
                    schema(value).parse("{}")
                except ValueError as error:
                    assert "nothing is fetched" in str(error)
        finally:
            server.shutdown()
            thread.join()
    assert seen == []


def test_problems_are_bounded() -> None:
    """What goes into the next message, and into an error, is no longer than 2,000 characters."""
    wrong = json.dumps([{"name": "x" * 5000}] * 500)
    for value in ({"items": {"properties": {"name": {"type": "integer"}}}}, List[Dict[str, int]]):
        assert 300 < len(problems(wrong, value)) <= MOST_WORDS + 50
    error = MisfitError(["a\n\nb", "\ud800"])
    assert error.problems == ("a b", "\N{REPLACEMENT CHARACTER}")
    assert repair_text(error.problems).splitlines()[1:3] == ["- a b", "- \N{REPLACEMENT CHARACTER}"]


def test_an_answer_gets_its_data_and_writes_it() -> None:
    """``to_dict`` has ``parsed`` if a schema was asked for, as JSON has it, and even if it is null."""
    fitted = schema(Person).fitted(answer(GOOD))
    assert fitted.parsed == Person(name="Ada", age=36)
    assert fitted.to_dict()["parsed"] == {"name": "Ada", "age": 36}
    assert pickle.loads(pickle.dumps(fitted)) == fitted
    assert schema().fitted(answer(GOOD)).to_dict()["parsed"] == {"name": "Ada", "age": 36}
    assert schema({}).fitted(answer("null")).to_dict()["parsed"] is None
    assert "parsed" not in answer(GOOD).to_dict()


def test_what_a_model_can_not_write_is_written_as_it_came() -> None:
    """A model may make anything of a value: the answer is still an answer."""
    assert schema(Strange).fitted(answer('{"value": [1]}')).to_dict()["parsed"] == {"value": [1]}
    assert "Infinity" not in str(schema(Endless).fitted(answer('{"value": "inf"}')).parsed_json)


def test_data_has_the_names_that_the_schema_asks_for() -> None:
    """So what was written is read again by the model; its attributes have names of their own."""

    class Aliased(pydantic.BaseModel):
        first_name: str = pydantic.Field(alias="firstName")

    fitted = schema(Aliased).fitted(answer('{"firstName": "Ada"}'))
    assert fitted.parsed.first_name == "Ada"
    assert fitted.to_dict()["parsed"] == {"firstName": "Ada"}
    assert Aliased.model_validate(fitted.to_dict()["parsed"]) == fitted.parsed


def test_the_instructions_stand_at_the_end_of_a_prompt_once() -> None:
    """In a transcript that is before the line that ends it. Attachments stay."""
    one = schema()
    text = one.added_to(prompt_text("Who?"))
    assert text == f"Who?\n\n{one.instructions()}"
    assert one.added_to(text) is text
    assert one.removed_from(text) == "Who?"
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    question = [{"type": "text", "text": "Who?"}, picture]
    prompt = prompt_text([{"role": "system", "content": "Short."}, {"role": "user", "content": question}])
    transcript = one.added_to(prompt)
    assert transcript == f"System: Short.\nUser: Who?\n\n{one.instructions()}\nAssistant:"
    assert transcript.attachments == prompt.attachments != NO_ATTACHMENTS
    assert one.removed_from(transcript) == prompt


def test_the_instructions_hold_the_schema() -> None:
    """As JSON that a program can read again."""
    for value, name in ((PERSON, "age"), (Person, "age"), (Point, "x")):
        assert name in json.loads(schema(value).instructions().split("\n", 1)[1])["properties"]
    assert "<Schema {" in repr(schema())
    one = schema()
    assert schema(one) is one


@pytest.mark.parametrize("repairs, kind", [(True, TypeError), ("1", TypeError), (None, TypeError), (-1, ValueError)])
def test_repairs_are_a_whole_number(repairs: Any, kind: type) -> None:
    """Also if there is no schema."""
    with pytest.raises(kind, match="repairs must be a whole number"):
        asking({"repairs": repairs})


def test_options_of_ask_become_those_of_a_stream() -> None:
    """A question that is asked again has to fit what it had to fit before, unless that is given anew."""
    assert asking({"label": "x"}) == {"label": "x", "buffered": True}
    one = Expectation(schema(), 1)
    assert asking({}, one)["expected"] == one
    assert asking({"repairs": 0}, one)["expected"] == one._replace(repairs=0)
    assert "expected" not in asking({"schema": None}, one)


@pytest.mark.parametrize("missing, value", [("pydantic", Person), ("jsonschema", PERSON)])
def test_a_missing_library_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str, value: Any
) -> None:
    """Both are extras."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'a schema needs {missing}: pip install "copilot-sync\[schema\]"'):
        schema(value)


#: JSON, as a service may write it.
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_every_json_value_comes_back_out_of_a_fence(value: Any) -> None:
    """Whatever is in its strings, fences and line separators included."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    for wrapped in (text, f"```json\n{text}\n```", f"So:\n~~~\n{text}\n~~~\nDone."):
        fitted = schema({}).fitted(answer(wrapped))
        assert fitted.parsed == value
        assert fitted.to_dict()["parsed"] == value


@given(st.text(alphabet='`~{}[]",:0a \n\\') | st.text())
def test_no_text_ends_in_anything_but_a_value_or_a_misfit(text: str) -> None:
    """Only ``MisfitError`` ever comes out."""
    for value in (PERSON, Person):
        try:
            schema(value).parse(text)
        except MisfitError as error:
            assert error.problems
