r"""Replies and faults for an emulator from a file of JSON Lines, for programs in other shells and languages.

A line is ``{"reply": ...}``, with the fields of ``Reply`` by name, or ``{"fault": ...}``, with the name of a class
method of ``Fault``, its arguments by name and a ``stage``. Which names there are, and of which types their values
must be, is read from the signatures of the two, so nothing of it is written here again.

Rules: a file is scripted as a whole or not at all. Whatever stands in it, the result is a script or a
``ValueError`` that names the line. Nothing but ``Reply`` and the public class methods of ``Fault`` can be called.

The page "The emulator" of the documentation describes the format.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import math
import os
from typing import (
    Any,
    BinaryIO,
    Callable,
    Dict,
    List,
    Literal,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from copilot_sync.emulator.fault_script import ChooseFault, FaultScript
from copilot_sync.emulator.faults import Fault
from copilot_sync.emulator.replies import Reply
from copilot_sync.emulator.routes import STAGES
from copilot_sync.emulator.state import RecordedRequest

MAX_FILE = 16 * 1024 * 1024
"""Bytes of a file."""

MAX_LINE = 1024 * 1024
"""Bytes of a line."""

MAX_ENTRIES = 100_000
"""Replies and faults of a file, with those that ``times`` repeats."""

_BOM = b"\xef\xbb\xbf"
_MAX_DIGITS = 20
_MAX_SHOWN = 60
_MISFIT = object()


class _ScriptedLine(NamedTuple):
    """What one line scripts: a fault of a stage, or ``None``, or a reply if it has no stage."""

    stage: Optional[str]
    value: Any
    times: int
    always: bool


class _ScriptedFile(NamedTuple):
    """What a file scripts. What holds for all requests is kept by stage, and the reply under ``None``."""

    replies: List[Reply]
    faults: List[Tuple[str, Optional[Fault]]]
    always: Dict[Optional[str], Any]


def load_script(emulator: FaultScript, source: Union[str, os.PathLike[str], BinaryIO], *, pace: float = 0.0) -> None:
    """Read a script and queue what it says, behind what is queued already.

    Call it before the emulator serves: requests that come meanwhile may see a part of the script.

    Args:
        emulator: an ``Emulator``.
        source: a path, or a binary stream, which is read to its end and not closed.
        pace: the ``pace`` of replies that state none, in seconds.

    Raises:
        OSError: the file can't be read.
        ValueError: a line is wrong; the message has its number and says why. Nothing is scripted then.
    """
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            content = file.read(MAX_FILE + 1)
    else:
        content = source.read(MAX_FILE + 1)
    script = _read(content, pace)
    emulator.script(*script.replies)
    for stage, fault in script.faults:
        emulator.fail(stage, fault)
    if None in script.always:
        emulator.reply = script.always.pop(None)
    if script.always:
        emulator.choose_fault = _choose_always(script.always, emulator.choose_fault)


def _choose_always(faults: Mapping[Optional[str], Any], otherwise: Optional[ChooseFault]) -> ChooseFault:
    def choose(stage: str, request: RecordedRequest) -> Optional[Fault]:
        if stage in faults:
            fault: Optional[Fault] = faults[stage]
            return fault
        return otherwise(stage, request) if otherwise else None

    return choose


def _read(content: bytes, pace: float) -> _ScriptedFile:
    if len(content) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    script = _ScriptedFile([], [], {})
    count = 0
    for number, line in enumerate(content[len(_BOM) * content.startswith(_BOM) :].splitlines(), 1):
        try:
            entry = _read_line(line, pace)
            if entry is None:
                continue
            count += entry.times
            if count > MAX_ENTRIES:
                raise ValueError(f'there are more than {MAX_ENTRIES} replies and faults up to here; try "always"')
            _add(entry, script)
        except UnicodeEncodeError:
            raise ValueError(f"line {number}: half of a surrogate pair can't be sent as UTF-8") from None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        except RecursionError:
            raise ValueError(f"line {number}: it is nested too deeply") from None
    return script


def _add(entry: _ScriptedLine, script: _ScriptedFile) -> None:
    if entry.always:
        if entry.stage in script.always:
            what = f"faults of the stage {entry.stage}" if entry.stage else "replies"
            raise ValueError(f'"always" is there for {what} already, in a line above')
        script.always[entry.stage] = entry.value
    elif entry.stage is None:
        script.replies.extend([entry.value] * entry.times)
    else:
        script.faults.extend([(entry.stage, entry.value)] * entry.times)


def _read_line(line: bytes, pace: float) -> Optional[_ScriptedLine]:
    """Return what a line scripts; ``None`` if it is blank or a comment."""
    if len(line) > MAX_LINE:
        raise ValueError(f"it has more than {MAX_LINE} bytes")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text; save the file as UTF-8") from None
    if not text.strip() or text.lstrip().startswith("#"):
        return None
    fields = _parse(text)
    if ("reply" in fields) == ("fault" in fields):
        raise ValueError('it needs "reply" or "fault", and not both')
    times = _argument("times", int, fields.pop("times", 1))
    always = _argument("always", bool, fields.pop("always", False))
    if times < 1 or (always and times > 1):
        raise ValueError('"times" is at least 1, and does not go with "always"')
    if "reply" in fields:
        return _ScriptedLine(None, _REPLY.make({"pace": pace, **fields}), times, always)
    if "stage" not in fields:
        raise ValueError(f'a fault needs "stage", one of {", ".join(STAGES)}')
    stage = _argument("stage", _STAGE, fields.pop("stage"))
    if fields == {"fault": None}:
        return _ScriptedLine(stage, None, times, always)
    return _ScriptedLine(stage, _make_fault(fields, also=("stage", "times", "always")), times, always)


def _parse(text: str) -> Dict[str, Any]:
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short_int,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} (column {error.colno})") from None
    if not isinstance(value, dict):
        raise ValueError(f"it must be a JSON object, not {_shown(value)}")
    return value


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    fields: Dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"{_shown(name)} is there twice")
        fields[name] = value
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:_MAX_SHOWN]} is too large")
    return value


def _short_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a whole number has more than {_MAX_DIGITS} digits")
    return int(text)


class _Maker:
    """Makes a value from the fields of a line, by the signature of what makes it.

    Args:
        name: what messages call it.
        make: a class, or one of its class methods.
        hints: the types of its parameters.
        aliases: what lines call a parameter, if not by its name.
    """

    def __init__(
        self, name: str, make: Callable[..., Any], hints: Mapping[str, Any], aliases: Mapping[str, str]
    ) -> None:
        self._name = name
        self._make = make
        self._parameters = {aliases.get(each.name, each.name): each for each in _parameters_of(make)}
        self._hints = hints

    def make(self, fields: Mapping[str, Any], also: Sequence[str] = ("times", "always")) -> Any:
        """Return what the fields describe.

        Args:
            fields: the arguments by name.
            also: what a line may hold besides, for the message about a name that doesn't exist.
        """
        for name in fields:
            if name not in self._parameters:
                known = ", ".join([*self._parameters, *also]) or "no arguments"
                raise ValueError(f"{self._name} takes {known}, not {_shown(name)}")
        positional: Sequence[Any] = ()
        named: Dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            is_list = parameter.kind is parameter.VAR_POSITIONAL
            if name in fields:
                hint = _LIST[self._hints[parameter.name]] if is_list else self._hints[parameter.name]
                value = _argument(name, hint, fields[name])
                if is_list:
                    positional = value
                else:
                    named[parameter.name] = value
            elif parameter.default is parameter.empty:
                raise ValueError(f"{self._name} needs {_shown(name)}")
        return self._make(*positional, **named)


def _parameters_of(make: Callable[..., Any]) -> List[inspect.Parameter]:
    return list(inspect.signature(make).parameters.values())


def _make_fault(fields: Mapping[str, Any], also: Sequence[str] = ()) -> Fault:
    arguments = dict(fields)
    name = arguments.pop("fault", None)
    maker = _FAULTS.get(name) if isinstance(name, str) else None
    if maker is None:
        raise ValueError(f"a fault is one of {', '.join(_FAULTS)}, not {_shown(name)}")
    fault: Fault = maker.make(arguments, also)
    return fault


def _argument(name: str, hint: Any, value: Any) -> Any:
    converted = _convert(hint, value)
    if converted is _MISFIT:
        raise ValueError(f"{_shown(name)} is {_describe(hint)}, not {_shown(value)}")
    return converted


def _convert(hint: Any, value: Any) -> Any:
    """Return a value of JSON as an argument of a type; ``_MISFIT`` if it is none. Bytes are text, tuples are lists."""
    if hint is Any:
        return value
    if hint is Fault:
        return _make_fault(value) if isinstance(value, dict) else _MISFIT
    if hint is bytes:
        return value.encode("utf-8") if isinstance(value, str) else _MISFIT
    if hint is float:
        return value if type(value) in (int, float) else _MISFIT
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Union:
        return next((each for each in (_convert(one, value) for one in inner) if each is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if any(type(value) is type(each) and value == each for each in inner) else _MISFIT
    if origin is collections.abc.Mapping:
        return _convert_object(inner[1], value)
    if origin is tuple:
        items = _convert_list(inner, value)
        return items if items is _MISFIT else tuple(items)
    if origin in (collections.abc.Sequence, collections.abc.Iterable):
        return _convert_list(inner * len(value), value) if isinstance(value, list) else _MISFIT
    return value if type(value) is hint else _MISFIT


def _convert_object(hint: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        return _MISFIT
    items = _convert_list([hint] * len(value), list(value.values()))
    return items if items is _MISFIT else dict(zip(value, items))


def _convert_list(hints: Sequence[Any], value: Any) -> Any:
    if not isinstance(value, list) or len(value) != len(hints):
        return _MISFIT
    items = [_convert(hint, each) for hint, each in zip(hints, value)]
    return _MISFIT if any(each is _MISFIT for each in items) else items


def _describe(hint: Any) -> str:
    """Say what a type is in JSON; ``""`` if JSON has no such thing."""
    if hint in _NOUNS:
        return _NOUNS[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        choices = [_shown(each) for each in inner]
        return " or ".join(choices) if len(choices) < 3 else f"one of {', '.join(choices)}"
    if origin is Union:
        return " or ".join(dict.fromkeys(filter(None, map(_describe, inner))))
    if origin is collections.abc.Mapping:
        return "an object" if inner[1] is Any else f"an object (each value {_describe(inner[1])})"
    if origin is tuple:
        return f"a list ({', '.join(map(_describe, inner))})"
    if origin in (collections.abc.Sequence, collections.abc.Iterable):
        return "a list" if inner[0] is Any else f"a list (each {_describe(inner[0])})"
    return ""


def _shown(value: object) -> str:
    """Return a value as JSON of one short line, in ASCII."""
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


_NOUNS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    bytes: "text",
    type(None): "null",
    Fault: 'an object with a "fault"',
}
_LIST: Any = Sequence
_LITERAL: Any = Literal
_STAGE = _LITERAL[STAGES]
_REPLY = _Maker("a reply", Reply, get_type_hints(Reply), {"pieces": "reply"})
_FAULTS = {
    name: _Maker(f"the fault {name}", make, get_type_hints(make), {})
    for name, make in inspect.getmembers(Fault, inspect.ismethod)
    if not name.startswith("_")
}
