"""What answers a message: a stream of events, one JSON document, or something that tells of an error.

The body decides, whatever its label says. An error is read in the same way wherever it stands: in a stream, under
``event: error``, or in a body of its own.
"""

import contextlib
import enum
import html
import json
import re
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from copilot_sync.errors import ProtocolError
from copilot_sync.events import (
    AnnotationsEvent,
    CompleteEvent,
    ContentEvent,
    ErrorEvent,
    Event,
    RoutedModelEvent,
    UnknownEvent,
)
from copilot_sync.protocol.untrusted import decoded, mappings_in, optional_text_in, text_in, without_leading
from copilot_sync.safe_text import DEEPEST, is_too_deep, loads, well_formed
from copilot_sync.usage import Usage

#: What ``decode`` gives for the line ``data: [DONE]``, which ends a stream.
DONE = UnknownEvent(type="[DONE]", data={})


class Form(enum.Enum):
    """What the body of a message's reply is, whatever its label says."""

    #: Events, as they should be.
    STREAM = "stream"
    #: One JSON document, as some versions of the service answer, and as errors come.
    DOCUMENT = "document"
    #: Anything else: a web page, the words of a gateway.
    WORDS = "words"


_FIELDS = (b"data", b"event", b"id", b"retry")
_FIELD = re.compile(rb"(?:data|event|id|retry|)[:\r\n]")
#: An event behind lines that mean nothing.
_LATER_EVENT = re.compile(rb"^data: ?\{", re.MULTILINE)


def form_of(beginning: bytes, *, at_end: bool = False) -> Optional[Form]:
    """Tell what a body is by its first bytes.

    Args:
        beginning: What has come of it.
        at_end: Whether that is all that will be looked at.

    Returns:
        The form; ``None`` if more has to come to tell, which ``at_end`` rules out.
    """
    text = without_leading(beginning)
    if _FIELD.match(text):
        return Form.STREAM
    if text.startswith((b"{", b"[")):
        return Form.DOCUMENT
    if text.startswith(b"<"):
        return Form.WORDS
    if _LATER_EVENT.search(text):
        return Form.STREAM
    if not at_end:
        return None
    return Form.STREAM if is_beginning_of_stream(text) else Form.WORDS


def is_beginning_of_stream(beginning: bytes) -> bool:
    """Whether the first bytes of a body, which may be none, are the beginning of a stream's first field."""
    text = without_leading(beginning)
    return any(field.startswith(text) for field in _FIELDS)


def read_document(body: bytes) -> Optional[Tuple[Event, ...]]:
    """Read the one JSON document that some versions answer with as the events of a stream.

    Returns:
        The answer's text and its end, or an error; ``None`` if the document is not whole.

    Raises:
        ProtocolError: There is neither a message in it nor an error.
    """
    text = decoded(body)
    try:
        data = loads(text)
    except ValueError:
        return None if _is_torn(text) else (read_error(text),)
    message = data.get("message") if isinstance(data, Mapping) else None
    if isinstance(message, Mapping) and isinstance(message.get("content"), str) and not data.get("error"):
        complete = _complete(message, data)
        content = well_formed(message["content"])
        return (ContentEvent("content", message, content), complete) if content else (complete,)
    failed = read_error(text)
    if failed.message or failed.code:
        return (failed,)
    raise ProtocolError("the reply held no answer", stage="message")


#: The beginning of a word, a number or an escape of JSON, or nothing.
_TORN = re.compile(r"(?:t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?|-|\.|[eE][+-]?|u[0-9a-fA-F]{0,4}|)\s*")

#: On PyPy, the errors of ``json.loads`` have other words, and other places.
_find_json_error = json.JSONDecoder(parse_int=float).raw_decode


def _is_torn(text: str) -> bool:
    """Whether JSON that can't be read is good as far as it goes."""
    if is_too_deep(text):
        return False
    try:
        _find_json_error(text)
    except ValueError as failure:  # on PyPy, "\u-123" raises one that is not of JSON
        return isinstance(failure, json.JSONDecodeError) and (
            failure.msg.startswith("Unterminated") or _TORN.fullmatch(text, failure.pos) is not None
        )
    return False


_read_json_at_start = json.JSONDecoder(strict=False).raw_decode
#: Takes numbers of any length, which newer Pythons refuse, for what they are about.
_read_lenient_json_at_start = json.JSONDecoder(strict=False, parse_int=float).raw_decode


def decode(data: str) -> Optional[Event]:
    """Read one event's data.

    Returns:
        The event; ``DONE`` at the stream's end; ``None`` if there is nothing in it, such as content without text.

    Raises:
        ProtocolError: It is not a JSON object, or its ``body`` is not a string.
    """
    text = data.strip()
    if text == "[DONE]":
        return DONE
    if len(text) > DEEPEST and is_too_deep(text):  # most are short, and then a call would cost as much as reading
        raise ProtocolError("an event was nested too deeply", stage="stream")
    try:
        value, end = _read_json_at_start(text)
    except ValueError:
        value = None
    if value is None:  # out here, because the error of json carries the whole event
        if not text:
            return None
        value, end = _read_again(text)
    if end != len(text) or not isinstance(value, dict):
        raise ProtocolError("an event was not one JSON object", stage="stream")
    kind = value.get("type")
    if kind == "content" and "error" not in value:
        return _content(value)
    if is_error(value):
        return _error(value)
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is not None:
        return reader(value)
    return UnknownEvent(well_formed(kind) if isinstance(kind, str) else "", value)


def _read_again(text: str) -> Tuple[Any, int]:
    with contextlib.suppress(ValueError):
        return _read_lenient_json_at_start(text)
    raise ProtocolError("an event was not JSON", stage="stream")


def _content(value: Dict[str, Any]) -> Optional[Event]:
    body = value.get("body")
    if isinstance(body, str):
        return ContentEvent("content", value, body if body.isascii() else well_formed(body)) if body else None
    if body is None:
        return None
    raise ProtocolError("the body of a content event was not a string", stage="stream")


def _complete(value: Mapping[str, Any], data: Optional[Mapping[str, Any]] = None) -> CompleteEvent:
    annotations = value.get("copilotAnnotations")
    return CompleteEvent(
        type="complete",
        data=value if data is None else data,
        id=optional_text_in(value, "id"),
        model=text_in(value, "model"),
        usage=usage_in(value),
        annotations=annotations if isinstance(annotations, dict) else {},
        references=mappings_in(value, "references"),
    )


def usage_in(entry: Mapping[str, Any]) -> Optional[Usage]:
    """Return what an answer cost, as its closing event or its stored message has it."""
    usage = entry.get("usage")
    if not isinstance(usage, dict):
        return None
    return Usage(_count(usage.get("inputTokens")), _count(usage.get("outputTokens")))


def _count(value: object) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _routed_model(value: Mapping[str, Any]) -> Event:
    return RoutedModelEvent(value["type"], value, text_in(value, "model"))


def _annotations(value: Mapping[str, Any]) -> Event:
    found = value.get("copilotAnnotations", value.get("annotations"))
    return AnnotationsEvent("annotations", value, found if isinstance(found, dict) else {})


_READERS: Dict[str, Callable[[Dict[str, Any]], Optional[Event]]] = {
    "content": _content,
    "complete": _complete,
    "routedModel": _routed_model,
    "threadAutoPickedModel": _routed_model,
    "annotations": _annotations,
}
#: What tells a web page from words, whatever its label says. A ``<`` by itself stands in many a text.
_PAGE = re.compile(
    r"\A\s*<|<(?:!doctype|/?(?:html|head|title|meta|body|h[1-6]|p|div|center|pre|br|hr|script|style)\b)", re.IGNORECASE
)
#: Where an error has its words, in the order of how telling they are.
_WORDS = (
    "message",
    "description",
    "error_description",
    "detail",
    "title",
    "error",
    "error_details",
    "reason",
    "body",
    "code",
)
#: Where an error has the code that names its kind.
_MAIN_CODE_KEYS = ("code", "status", "type")


def read_error(text: str) -> ErrorEvent:
    """Read what is known to tell of an error: JSON of any shape, a web page, or plain words."""
    try:
        value = loads(text)
    except ValueError:
        value = _page_title(text) if _PAGE.search(text) else text
    if isinstance(value, Mapping):
        return _error(value)
    return ErrorEvent("error", {}, well_formed(value if isinstance(value, str) else text), "")


def is_error(value: Mapping[str, Any]) -> bool:
    """Whether an event tells of an error: by its type, by an ``error`` in it, or as the service's API words one."""
    kind = value.get("type")
    if value.get("error") or (isinstance(kind, str) and kind.strip().lower() == "error"):
        return True
    if kind:
        return False
    if value.get("errors"):
        return True
    if not isinstance(value.get("message"), str):
        return False
    code = _code_in(value)
    return "documentation_url" in value or (code.isdigit() and len(code) == 3 and code >= "400")


def _error(value: Mapping[str, Any]) -> ErrorEvent:
    nested, details = value.get("error"), value.get("error_details")
    inner = nested if isinstance(nested, Mapping) else details if isinstance(details, Mapping) else {}
    listed = _first_listed(value.get("errors"))
    found = (text_in(source, key) for source in (inner, value, listed) for key in _WORDS)
    code = _code_in(inner) or _code_in(value) or (_code_of(nested) if _is_code(nested) else "") or _code_in(listed)
    return ErrorEvent("error", value, next(filter(None, found), ""), code)


def _first_listed(errors: object) -> Mapping[str, Any]:
    """The first of several errors, in the same form wherever it stands."""
    first = errors[0] if isinstance(errors, list) and errors else errors
    if isinstance(first, str):
        return {"message": first}
    return first if isinstance(first, Mapping) else {}


def _code_in(source: Mapping[str, Any]) -> str:
    """The code of an error, which may be a word or a number; ``""`` for none."""
    codes = (_code_of(source.get(key)) for key in _MAIN_CODE_KEYS)
    return next((code for code in codes if code and code not in _READERS and code.lower() != "error"), "")


def _code_of(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not value:
        return ""
    return well_formed(str(value).strip())


def _is_code(value: object) -> bool:
    """Whether what stands under ``error`` is a code by itself, and no sentence."""
    return not isinstance(value, str) or (value.isascii() and " " not in value.strip())


def _page_title(text: str) -> str:
    title = re.search(r"<title\b[^<>]*>([^<]*)", text, re.IGNORECASE)
    return html.unescape(title.group(1)) if title else ""
