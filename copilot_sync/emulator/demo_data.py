"""An answer that fits the JSON Schema in a question, for somebody who tries out answers as data.

It has what most schemas ask for: types, properties, items, lists of values, bounds, and references into the schema.
What else a schema says is passed over, so the answer need not fit.
"""

from __future__ import annotations

import json
from typing import Any, Optional

#: What comes before the schema in a question.
_BEFORE = "JSON Schema:\n"
#: Levels below which an answer has nothing that may be missing, and those after which it has no end.
_OPTIONAL_LEVELS, _LEVELS = 4, 40
#: The most items of a list, and characters of a text.
_MOST = 10_000
_TEXT = "demo"


def demo_data(prompt: str) -> Optional[str]:
    """Return JSON for the JSON Schema that a question ends with; ``None`` if there is none in it."""
    _, found, rest = prompt.rpartition(_BEFORE)
    if not found:
        return None
    try:
        schema, _ = json.JSONDecoder().raw_decode(rest)
        return json.dumps(_sample(schema, schema, 0), ensure_ascii=False)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):  # it is no schema, or a wrong one
        return None


def echo_or_data(prompt: str) -> str:
    """Repeat a question, unless it asks for data: then return some."""
    return demo_data(prompt) or prompt


def _sample(schema: Any, root: Any, level: int) -> Any:
    if schema is True:
        return None
    if level > _LEVELS or max(schema.get("minItems", 0), schema.get("minLength", 0)) > _MOST:
        raise ValueError("there is no small answer that fits")
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        return _sample(_referred(schema["$ref"], root), root, level + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            is_deep = level > _OPTIONAL_LEVELS and name != "allOf"
            choices = sorted(schema[name], key=lambda choice: is_deep and "$ref" in choice)
            return _sample(choices[0], root, level + 1)
    kinds = schema.get("type", "object" if "properties" in schema or "required" in schema else "string")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        properties, required = schema.get("properties", {}), schema.get("required", [])
        names = required if level > _OPTIONAL_LEVELS else dict.fromkeys([*properties, *required])
        return {name: _sample(properties.get(name, True), root, level + 1) for name in names}
    if kind == "array":
        count = max(schema.get("minItems", 0), level <= _OPTIONAL_LEVELS)
        return [_sample(schema.get("items", True), root, level + 1)] * min(count, schema.get("maxItems", count))
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "string":
        return (_TEXT * (schema.get("minLength", 0) // len(_TEXT) + 1))[: schema.get("maxLength")]
    return True if kind == "boolean" else None


def _number(schema: Any) -> Any:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + 1
    if low is not None:
        return low
    return 1 if high is None else min(1, high)


def _referred(reference: str, root: Any) -> Any:
    found = root
    for part in reference.split("/")[1:]:
        found = found[part]
    return found
