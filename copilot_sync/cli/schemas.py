"""What ``--schema`` takes: a file with a JSON Schema, or a few words, in the short form that ``llm`` has as well.

The short form is a list of fields, divided by commas, or by line ends if there are any: a name, a type (``str`` if
there is none), and behind a colon what the field is. ``name, age int, bio: what it is`` is an object of three.
"""

import os
import re
from typing import Any, Dict, List, Optional

import click

from copilot_sync.cli.language import _, marked
from copilot_sync.safe_text import loads, well_formed
from copilot_sync.structured import REPAIRS, Expectation, MisfitError, Schema
from copilot_sync.text_files import text_of

_TYPES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}
_NAME_AND_TYPE = re.compile(r"([\w-]+)(?:\s+(\w+))?")
#: What the name of a file has and a list of fields has not.
_OF_PATHS = re.compile(r"[/\\]|\.\w+$")
_WHAT_TO_WRITE = marked("write: name, age int, bio: what it is; or the path of a file with a JSON Schema")


def read_schema(value: str) -> Dict[str, Any]:
    """Return the JSON Schema that ``--schema`` names.

    Raises:
        click.UsageError: It is neither a file with a JSON Schema, nor the short form.
    """
    if os.path.isfile(value) or (":" not in value and _OF_PATHS.search(value)):
        return _from_file(value)
    fields = [field.strip() for field in value.split("\n" if "\n" in value.strip() else ",")]
    return _object_of([field for field in fields if field])


def read_expectation(value: Optional[str], repairs: Optional[int], *, emulated: bool) -> Optional[Expectation]:
    """Return what an answer has to be, of the options of a command; ``None`` if there is no ``--schema``.

    Raises:
        click.UsageError: As ``read_schema`` raises it; also if the JSON Schema is not valid, or the emulator's answer
            would not fit it.
        click.ClickException: What judges answers is not installed.
    """
    if value is None:
        return None
    try:
        schema = Schema.from_value(read_schema(value))
        if emulated:
            _check_demo(schema)
        return Expectation(schema, REPAIRS if repairs is None else repairs)
    except ValueError as error:
        raise click.UsageError(f"--schema {value}: {error}") from error
    except ImportError as error:
        raise click.ClickException(str(error)) from error


def _check_demo(schema: Schema) -> None:
    from copilot_sync.emulator.demo_data import echo_or_data

    try:
        schema.parse(echo_or_data(schema.instructions()))
    except MisfitError as error:
        words = _("--emulator has no answer that fits it; script one with: copilot-sync emulator --script FILE")
        raise ValueError(words) from error


def _from_file(path: str) -> Dict[str, Any]:
    try:
        with open(path, "rb") as file:
            schema = loads(text_of(file.read()))
    except OSError as error:
        words = _("it can't be read: {reason}").format(reason=error.strerror)
        raise click.UsageError(f"--schema {path}: {words}") from error
    except ValueError as error:
        words = _("it holds no JSON: {error}").format(error=error)
        raise click.UsageError(f"--schema {path}: {words}") from error
    if not isinstance(schema, dict):
        raise click.UsageError(f"--schema {path}: {_('it holds no JSON Schema, which is an object')}")
    return schema


def _object_of(fields: List[str]) -> Dict[str, Any]:
    properties: Dict[str, Any] = {}
    for field in fields:
        typed, _colon, description = (part.strip() for part in well_formed(field).partition(":"))
        match = _NAME_AND_TYPE.fullmatch(typed)
        if match is None:
            raise _no_schema(_("{field!r} is no field; {advice}"), field=field, advice=_(_WHAT_TO_WRITE))
        name, kind = match[1], match[2] or "str"
        if kind not in _TYPES:
            words = _("{field!r} has the type {kind!r}; there are {names}")
            raise _no_schema(words, field=field, kind=kind, names=", ".join(_TYPES))
        if name in properties:
            raise _no_schema(_("there are two fields {name!r}"), name=name)
        properties[name] = {"type": _TYPES[kind], **({"description": description} if description else {})}
    if not properties:
        raise _no_schema(_("there are no fields; {advice}"), advice=_(_WHAT_TO_WRITE))
    return {"type": "object", "properties": properties, "required": list(properties)}


def _no_schema(words: str, **values: str) -> click.UsageError:
    return click.UsageError(f"--schema: {words.format(**values)}")
