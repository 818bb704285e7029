"""What a request for a chat completion asks for: its parameters, checked. Pure.

The wire carries messages and a model, and nothing of what OpenAI's other parameters say. Those that only advise, such
as ``temperature``, are ignored, and the response names them. Those that would change what comes back are refused.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from copilot_sync.openai_api.failures import ApiError, not_configured
from copilot_sync.structured import Schema

#: What says nothing, whatever it is a value of.
NOTHING: Tuple[Any, ...] = (None, False, [], {}, "")
#: Parameters that would change what comes back, and the values with which they change nothing.
_UNSUPPORTED: Mapping[str, Tuple[Any, ...]] = {
    "audio": NOTHING,
    "function_call": (*NOTHING, "none", "auto"),
    "functions": NOTHING,
    "logprobs": NOTHING,
    "modalities": (*NOTHING, ["text"]),
    "n": (*NOTHING, 1),
    "stop": NOTHING,
    "tool_choice": (*NOTHING, "none", "auto"),
    "tools": NOTHING,
    "top_logprobs": (*NOTHING, 0),
    "web_search_options": (None,),
}
#: The parameters that say for whom a request is made. The first that says it counts: the other one is going to end.
USER = ("safety_identifier", "user")
_READ = ("messages", "model", "response_format", "stream", "stream_options", *USER)
#: What an answer fits that only has to be an object.
_ANY_OBJECT = {"type": "object"}
#: Names of ignored parameters that a response repeats, and characters of each: they are the client's.
_MOST_NAMES, _LONGEST_NAME = 20, 40


class ChatRequest(NamedTuple):
    """A request for a chat completion.

    Attributes:
        messages: The role messages.
        model: The model; ``None`` for the gateway's.
        is_streamed: Whether the answer comes as it is written.
        includes_usage: Whether a last chunk says what it cost.
        user: For whom the request is made, in the client's words; ``None`` for nobody.
        schema: What the answer has to fit; ``None`` for any text.
        ignored: The parameters that have no effect.
    """

    messages: List[Any]
    model: Optional[str]
    is_streamed: bool
    includes_usage: bool
    user: Optional[str]
    schema: Optional[Schema]
    ignored: Tuple[str, ...]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "ChatRequest":
        """Read the body of a request.

        Raises:
            ApiError: A parameter has the wrong type, or can't be met (400).
        """
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise wrong_type("messages", "a list of messages, and not empty")
        options = body.get("stream_options") or {}
        if not isinstance(options, dict):
            raise wrong_type("stream_options", "an object")
        return cls(
            messages=messages,
            model=read_model(body),
            is_streamed=read_flag(body, "stream"),
            includes_usage=read_flag(options, "include_usage"),
            user=read_user(body),
            schema=_read_response_format(body.get("response_format")),
            ignored=ignored_of(body, _READ, _UNSUPPORTED),
        )


def read_model(body: Mapping[str, Any]) -> Optional[str]:
    """Return the model of a request; ``None`` if it names none."""
    return read_text(body, "model") or None


def _read_response_format(value: Any) -> Optional[Schema]:
    """Read what the answer has to be; ``None`` for any text."""
    name = "response_format"
    inner = value.get("json_schema") if isinstance(value, dict) and value.get("type") == "json_schema" else {}
    if not isinstance(inner, dict):
        raise wrong_type(f"{name}.json_schema", "an object")
    return read_format(value, inner.get("schema"), name)


def read_format(value: Any, schema: Any, name: str) -> Optional[Schema]:
    """Read the format of an answer; ``None`` for text.

    Args:
        value: The format.
        schema: The JSON Schema in it, if it has one.
        name: What to call the format in an error.

    Raises:
        ApiError: It is none that there is, or can't be met (400), or nothing here judges answers (501).
    """
    if any(value == nothing for nothing in NOTHING):
        return None
    if not isinstance(value, dict):
        raise wrong_type(name, "an object")
    kind = value.get("type")
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        words = f"the type of {name} must be text, json_object or json_schema"
        raise ApiError(400, words, code="invalid_value", param=name)
    if kind == "json_object" or schema is None:
        schema = _ANY_OBJECT
    if not isinstance(schema, dict):
        raise wrong_type(name, "a JSON Schema, which is an object")
    try:
        return Schema.from_value(schema)
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_value", param=name) from None
    except ImportError as error:
        raise not_configured(str(error), name) from None


def read_user(body: Mapping[str, Any]) -> Optional[str]:
    """Return for whom a request is made; ``None`` if it does not say so."""
    return next(filter(None, [read_text(body, name) for name in USER]), None)


def read_text(body: Mapping[str, Any], name: str) -> Optional[str]:
    """Return a parameter that is a string, ``null`` or missing."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong_type(name, "a string")
    return value


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """Return a parameter that is ``true``, ``false`` or missing."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong_type(name, "true or false")
    return bool(value)


def ignored_of(
    body: Mapping[str, Any], read: Tuple[str, ...], unsupported: Mapping[str, Tuple[Any, ...]]
) -> Tuple[str, ...]:
    """Return the parameters that have no effect, in order.

    Raises:
        ApiError: One would change what comes back.
    """
    ignored = []
    for name, value in body.items():
        if name in unsupported:
            if not _is_among(value, unsupported[name]):
                raise ApiError(400, f"{name} can't be met by this service", code="unsupported_parameter", param=name)
        elif name not in read and value is not None:
            ignored.append(name)
    return tuple(sorted(ignored))


def _is_among(value: Any, harmless: Tuple[Any, ...]) -> bool:
    """Whether a value is one of some. ``1`` is not ``True`` here, and ``0`` is not ``False``."""
    return any(type(value) is type(one) and value == one for one in harmless)


def ignored_header(names: Tuple[str, ...]) -> Dict[str, str]:
    """Return the header field that names the parameters without effect; none if there are none."""
    shown = [name[:_LONGEST_NAME] for name in names if name.isascii() and name.replace("_", "").isalnum()]
    return {"x-copilot-sync-ignored": ", ".join(shown[:_MOST_NAMES])} if shown else {}


def wrong_type(name: str, kind: str) -> ApiError:
    """The error for a parameter of the wrong type."""
    return ApiError(400, f"{name} must be {kind}", code="invalid_type", param=name)
