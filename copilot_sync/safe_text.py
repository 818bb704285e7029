"""Text that can be sent, and JSON that can be read, wherever they come from.

Python's strings may hold lone surrogates, which no encoding takes; JSON may be nested so deeply that reading it
exhausts the stack. Here both are found before they do harm.
"""

import json
import re
from typing import Any, Callable

#: Brackets inside of brackets; far more than any reply has, far fewer than Python's stack takes.
DEEPEST = 200
#: The brackets of JSON, and the strings, in which brackets mean nothing.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

#: Stands for the conversation of an answer that came from the cache.
CACHED_ID = "answer-from-cache"


def loads(text: str, decode: Callable[[str], Any] = json.loads) -> Any:
    """Read JSON of unknown origin.

    Args:
        text: The JSON.
        decode: Reads it.

    Raises:
        ValueError: It is none, or it is nested too deeply.
    """
    if is_too_deep(text):
        raise ValueError("the JSON is nested too deeply")
    return decode(text)


def is_too_deep(text: str) -> bool:
    """Whether JSON is nested deeper than anything the service sends.

    Reading such JSON ends in a ``RecursionError``. If garbage is collected at that depth, older Pythons abort the
    whole process.
    """
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth = 0
    for token in _TOKENS.findall(text):
        if token in ("[", "{"):
            depth += 1
        elif token in ("]", "}"):
            depth -= 1
        if depth > DEEPEST:
            return True
    return False


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON may carry and no encoding takes, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def check_id(identifier: str) -> str:
    """Check that an id can be one segment of a URL's path, and return it.

    Raises:
        ValueError: The id is empty, a path of its own (``.``, ``..``), not valid text, or that of no conversation.
    """
    if identifier == CACHED_ID:
        raise ValueError(
            "an answer from the answer cache has no conversation to go on with: ask its question again with "
            "answer_cache=False, or send the question and the answer along as role messages"
        )
    if identifier in ("", ".", ".."):
        raise ValueError(f"{identifier!r} is not an id")
    try:
        identifier.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("an id must be valid Unicode text") from None
    return identifier


def check_text(name: str, text: str) -> str:
    """Check that a text can be sent, and return it.

    Raises:
        ValueError: It is not valid Unicode.
    """
    json_bytes(name, text)
    return text


def json_bytes(name: str, value: Any) -> bytes:
    """Write a value as JSON in UTF-8.

    Raises:
        TypeError: It holds something that JSON does not have.
        ValueError: It holds text that is not valid Unicode, or something else that can't be sent.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds text that is not valid Unicode (a lone surrogate)") from None
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} can't be sent as JSON: {error}") from None
