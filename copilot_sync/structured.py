"""Answers as data: the schema that an answer has to fit, how it is read, and the words that ask for another one.

An answer is one JSON document. ``json`` reads it; a model of pydantic is judged by pydantic alone, a JSON Schema by
``jsonschema``. Both are loaded when a schema is given, and not before. What a schema refers to has to be inside of it:
nothing is ever fetched. Pure: no I/O, no clock and no thread.
"""

import inspect
import itertools
import json
import re
from dataclasses import replace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, NoReturn, Optional, Tuple, Type

from copilot_sync.models import Answer
from copilot_sync.prompts import PromptText
from copilot_sync.safe_text import json_bytes, loads, well_formed

#: How often an answer that does not fit is asked for again, unless the caller says otherwise.
REPAIRS = 2
#: Characters of the validator's words, of all problems and of one, and how many of them are told at most.
MOST_WORDS = 2000
_MOST_WORDS_OF_ONE = 400
_MOST_PROBLEMS = 20

_INSTRUCTIONS = (
    "Answer with one JSON document only: no words before or after it, and no Markdown. "
    "It has to fit this JSON Schema:\n"
)
_REPAIR = (
    "Your answer does not fit the JSON Schema:\n{problems}\nAnswer again: with the whole corrected JSON document only."
)
#: What ends a transcript of several messages. The instructions come before it.
_TURN_OF_MODEL = "\nAssistant:"
#: A line that begins or ends a block of code in Markdown.
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
#: The names under which a JSON Schema refers to another one.
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
#: The names under which it has others that judge the same value, and not a part of it.
_OF_THE_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")


class MisfitError(ValueError):
    """A text does not fit a schema. ``problems`` says why, in the words of whoever has judged it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = _bounded(problems)
        super().__init__("; ".join(self.problems))


class Schema:
    """What an answer has to fit. ``Schema.from_value`` makes them; ``ask`` takes one in place of what it is made of.

    Threads: any number may use one.

    Args:
        text: The JSON Schema, as JSON.
        judge: Takes the value of a document, and its text, and returns the value that fits. Raises ``MisfitError``.
        write: Writes such a value as JSON. Raises ``ValueError`` if that can't be.
    """

    def __init__(self, text: str, judge: Callable[[Any, str], Any], write: Callable[[Any], str]) -> None:
        self.text = text
        self._judge = judge
        self._write = write

    @classmethod
    def from_value(cls, value: Any) -> "Schema":
        """Make a schema of what callers give: a JSON Schema as a mapping, or a type that pydantic takes.

        Raises:
            TypeError: It is neither.
            ValueError: It is a JSON Schema that is not valid, or refers to what is not in it; or there is no JSON
                Schema for the type.
            ImportError: The library that judges it is missing.
        """
        if isinstance(value, Schema):
            return value
        return _from_json_schema(value) if isinstance(value, Mapping) else _from_type(value)

    def instructions(self) -> str:
        """Return the text that is added to a prompt."""
        return f"{_INSTRUCTIONS}{self.text}"

    def added_to(self, prompt: PromptText) -> PromptText:
        """Return a prompt with the instructions at its end, unless it has them."""
        instructions = self.instructions()
        if instructions in prompt:
            return prompt
        is_transcript = prompt.endswith(_TURN_OF_MODEL)
        text = prompt[: -len(_TURN_OF_MODEL)] if is_transcript else prompt
        end = _TURN_OF_MODEL if is_transcript else ""
        return PromptText(f"{text}\n\n{instructions}{end}").attach(prompt.attachments)

    def removed_from(self, prompt: str) -> str:
        """Return a prompt without the instructions that ``added_to`` has added."""
        return prompt.replace(f"\n\n{self.instructions()}", "", 1)

    def parse(self, text: str) -> Any:
        """Read an answer.

        The whole text is the document. If there is one block of code in Markdown, that is the document, whatever stands
        around it.

        Raises:
            MisfitError: It is no JSON, or does not fit.
        """
        document = _document_in(text)
        try:
            value = loads(document, _loads_strictly)
            json_bytes("the document", value)  # no numbers and texts that JSON does not have
        except ValueError as error:
            raise MisfitError([f"the answer is not one JSON document: {error}"]) from None
        try:
            return self._judge(value, document)
        except BaseException as error:
            if not _is_end_of_stack(error):
                raise
            raise MisfitError(["the document is nested too deeply"]) from None

    def fitted(self, answer: Answer) -> Answer:
        """Return an answer with what is in it as data.

        Raises:
            MisfitError: It does not fit.
        """
        value = self.parse(answer.text)
        try:
            written = self._write(value)
        except ValueError:  # a model may hold what it can't write
            written = _document_in(answer.text)
        return replace(answer, parsed=value, parsed_json=written)

    def __repr__(self) -> str:
        return f"<Schema {self.text[:60]}>"


class Expectation(NamedTuple):
    """What the answer to a question has to be.

    Attributes:
        schema: What it has to fit.
        repairs: How often one that does not fit is asked for again.
    """

    schema: Schema
    repairs: int = REPAIRS

    @classmethod
    def from_values(cls, schema: Any, repairs: Any = REPAIRS) -> "Optional[Expectation]":
        """Read what callers give; ``None`` for no schema.

        Raises:
            TypeError: One has the wrong type.
            ValueError: One can't be used.
            ImportError: A library is missing.
        """
        if isinstance(repairs, bool) or not isinstance(repairs, int):
            raise TypeError(f"repairs must be a whole number, not {type(repairs).__name__}")
        if repairs < 0:
            raise ValueError(f"repairs must be a whole number, zero at least, not {repairs}")
        return None if schema is None else cls(Schema.from_value(schema), repairs)


def asking(options: Mapping[str, Any], asked_before: Optional[Expectation] = None) -> Dict[str, Any]:
    """Turn the options of ``ask`` into those of a stream that is read to its end.

    Args:
        options: The options. ``schema`` and ``repairs`` become one, ``expected``.
        asked_before: What the question had to fit that is asked again: the default of both.

    Raises:
        TypeError: As ``Expectation.from_values`` raises it; likewise ``ValueError`` and ``ImportError``.
    """
    default = asked_before or Expectation(None, REPAIRS)  # type: ignore[arg-type]
    schema, repairs = options.get("schema", default.schema), options.get("repairs", default.repairs)
    others = {name: value for name, value in options.items() if name not in ("schema", "repairs")}
    expected = Expectation.from_values(schema, repairs)
    return {**others, "buffered": True, **({} if expected is None else {"expected": expected})}


def repair_text(problems: Iterable[str]) -> str:
    """Return the message that asks for another answer."""
    return _REPAIR.format(problems="\n".join(f"- {problem}" for problem in problems))


def _bounded(problems: Iterable[str]) -> Tuple[str, ...]:
    kept: List[str] = []
    left = MOST_WORDS
    for problem in itertools.islice(problems, _MOST_PROBLEMS):
        words = well_formed(" ".join(problem.split()))
        if len(words) > _MOST_WORDS_OF_ONE:
            words = f"{words[:_MOST_WORDS_OF_ONE]}…"
        left -= len(words)
        if left < 0:
            break
        kept.append(words)
    return tuple(kept)


def _document_in(text: str) -> str:
    """Return the content of the one block of code in a text; the text itself if there is none, or several."""
    blocks: List[List[str]] = []
    fence = ""
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if not fence and match:
            fence = match[1]
            blocks.append([])
        elif fence and match and match[1].startswith(fence) and not match[2].strip():
            fence = ""
        elif fence:
            blocks[-1].append(line)
    return ("\n".join(blocks[0]) if len(blocks) == 1 else text).strip()


def _loads_strictly(document: str) -> Any:
    return json.loads(document, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _place(parts: Iterable[Any]) -> str:
    """Name a place in a document as JSONPath does."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _missing(error: ImportError) -> ImportError:
    words = f'a schema needs {error.name}: pip install "copilot-sync[schema]"'
    return ImportError(words, name=error.name)


def _from_type(kind: Any) -> Schema:
    try:
        from pydantic import BaseModel, TypeAdapter, ValidationError
        from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation, PydanticUserError
        from pydantic.json_schema import GenerateJsonSchema
        from pydantic_core import SchemaError
    except ImportError as error:
        raise _missing(error) from None
    # Of a text pydantic would look up the name, and a function it would call. Old ones take a value for its model.
    if isinstance(kind, (str, BaseModel)) or inspect.isroutine(kind):
        raise TypeError(f"schema must be a JSON Schema or a type, and {kind!r:.60} is neither")

    class Eager(GenerateJsonSchema):
        def generator_schema(self, schema: Any) -> NoReturn:
            words = "the items of an Iterable are judged only when somebody takes them, so make it a List"
            raise PydanticUserError(words, code=None)

    try:
        adapter = TypeAdapter(kind)
        text = json_bytes("the schema", adapter.json_schema(schema_generator=Eager)).decode()
    except SchemaError as error:  # such as a pattern that is none
        words = " ".join(str(error).split())
        raise ValueError(f"schema must be a JSON Schema or a type that pydantic takes: {words}") from None
    except (PydanticUndefinedAnnotation, PydanticUserError) as error:
        refusal: Type[Exception] = ValueError if isinstance(error, PydanticInvalidForJsonSchema) else TypeError
        words = error.message.partition("\n")[0]  # the rest is for those who write types
        raise refusal(f"schema must be a JSON Schema or a type that pydantic takes: {words}") from None

    def judge(value: Any, document: str) -> Any:
        try:
            return adapter.validate_json(document)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise MisfitError(f"{_place(problem['loc'])}: {problem['msg']}" for problem in problems) from None

    def write(value: Any) -> str:
        written: str = adapter.dump_json(value, by_alias=True, warnings=False).decode()  # by the names of the schema
        _loads_strictly(written)  # a model may have pydantic write Infinity
        return written

    return Schema(text, judge, write)


def _from_json_schema(value: Mapping[str, Any]) -> Schema:
    try:
        import jsonschema
        import jsonschema_specifications
        from referencing.jsonschema import DRAFT202012, specification_with
    except ImportError as error:
        raise _missing(error) from None
    text = json_bytes("the schema", dict(value)).decode()
    schema = loads(text)  # a copy, so that nobody changes it
    dialect = schema.get("$schema", "")
    if not isinstance(dialect, str):
        raise ValueError("schema is no JSON Schema: its $schema is no text")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    _check_valid(schema, kind, "schema")
    registry = jsonschema_specifications.REGISTRY  # with which nothing is fetched
    _check_parts(specification_with(dialect, default=DRAFT202012).create_resource(schema), registry, kind)
    validator = kind(schema, registry=registry)

    def judge(value: Any, document: str) -> Any:
        try:
            errors = list(itertools.islice(validator.iter_errors(value), _MOST_PROBLEMS))
        except OverflowError:  # out of multipleOf, which divides
            raise MisfitError(["a number in the document is too large to be judged"]) from None
        if errors:
            raise MisfitError(f"{_place(error.absolute_path)}: {error.message}" for error in errors)
        return value

    return Schema(text, judge, lambda value: json_bytes("the document", value).decode())


def _check_valid(schema: Any, kind: Any, name: str) -> None:
    """Check a JSON Schema, or a part of one, by the schema of its draft.

    Raises:
        ValueError: It is not valid.
    """
    from jsonschema import Draft3Validator, SchemaError
    from jsonschema.validators import validator_for

    kind = validator_for(schema, default=kind)
    if kind is Draft3Validator:  # the schema of its draft lets too much pass that breaks when it judges
        raise ValueError(f"{name} is of draft 3, which is too old: JSON Schemas are taken from draft 4 on")
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        place = _place(error.absolute_path)
        raise ValueError(f"{name} is no valid JSON Schema: {place}: {error.message:.{_MOST_WORDS_OF_ONE}}") from None
    except BaseException as error:
        if not _is_end_of_stack(error):
            raise
        raise ValueError(f"{name} is nested too deeply") from None


def _is_end_of_stack(error: BaseException) -> bool:
    """Whether something is nested too deeply. A library in Rust panics if the stack ends just there."""
    return isinstance(error, RecursionError) or type(error).__name__ == "PanicException"


def _check_parts(resource: Any, registry: Any, kind: Any) -> None:
    """Check what the schemas of the drafts do not: everything that a JSON Schema refers to, and all its patterns.

    Raises:
        ValueError: Something can't be used, or judging by it need not end.
    """
    from referencing.exceptions import NoSuchResource, Unresolvable

    pending, seen = [(resource, registry.resolver_with_root(resource))], set()
    leads_to: Dict[int, Dict[int, str]] = {}  # by what else a schema judges the same value, and by which reference
    while pending:
        resource, resolver = pending.pop()
        contents = resource.contents
        if id(contents) in seen:
            continue
        seen.add(id(contents))
        same_value = leads_to[id(contents)] = {id(inner): "" for inner in _judging_the_same(contents)}
        for pattern in contents.get("patternProperties", ()):
            try:
                re.compile(pattern)
            except re.error:
                raise ValueError(f"schema is no valid JSON Schema: {pattern!r:.200} is not a 'regex'") from None
        for reference in (contents[name] for name in _REFERENCES if name in contents):
            if not isinstance(reference, str):
                raise ValueError(f"schema refers to {reference!r:.200}, which is no text")
            try:
                found = resolver.lookup(reference)
            except (Unresolvable, NoSuchResource, TypeError):  # the last if the way leads through what is no object
                words = f"schema refers to {reference!r:.200}, which is not in it, and nothing is fetched"
                raise ValueError(words) from None
            if not isinstance(found.contents, (dict, bool)):
                raise ValueError(f"schema refers to {reference!r:.200}, which is no schema")
            same_value[id(found.contents)] = reference
            if isinstance(found.contents, dict) and id(found.contents) not in seen:
                _check_valid(found.contents, kind, f"what schema refers to by {reference!r:.200}")
                inner = resource.from_contents(found.contents, default_specification=resource._specification)
                pending.append((inner, found.resolver))
        for inner in resource.subresources():
            if not isinstance(inner.contents, dict):  # such as the names in what old drafts call dependencies
                continue
            if "$schema" in inner.contents:
                _check_valid(inner.contents, kind, "a part of schema")
            pending.append((inner, resolver.in_subresource(inner)))
    _check_ends(leads_to)


def _judging_the_same(contents: Dict[str, Any]) -> Iterator[Any]:
    """Yield the schemas in a schema that judge the same value as it does."""
    for name in _OF_THE_SAME_VALUE:
        inner = contents.get(name)
        if isinstance(inner, list):
            yield from inner
        elif isinstance(inner, dict):
            yield from (inner.values() if name.startswith("depend") else [inner])


def _check_ends(leads_to: Dict[int, Dict[int, str]]) -> None:
    """Check that no schema comes back to itself with the same value, which would be judged without end.

    Raises:
        ValueError: One does.
    """
    ended = set()
    for start in leads_to:
        way = {start: ""}  # the schemas under way, each with the reference that led to it
        left = [iter(leads_to[start].items())]
        while left:
            for schema, reference in left[-1]:
                if schema in way:
                    in_cycle = list(way)[list(way).index(schema) + 1 :]
                    name = next(filter(None, [reference, *map(way.get, in_cycle)]))
                    words = f"schema refers by {name!r:.200} to what leads back there"
                    raise ValueError(f"{words} and to no part of the value, so judging by it would not end")
                if schema in leads_to and schema not in ended:
                    way[schema] = reference
                    left.append(iter(leads_to[schema].items()))
                    break
            else:
                left.pop()
                ended.add(way.popitem()[0])
