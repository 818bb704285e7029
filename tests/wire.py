"""What the tests of the protocol share: requests, replies, and strategies for anything a server may send."""

import json
from typing import Any, Dict, Optional

from hypothesis import strategies as st

from copilot_sync.errors import CopilotError
from copilot_sync.protocol.errors import error_of_status
from copilot_sync.protocol.requests import MessageOptions, Request, message_request, thread_request, token_request
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import Urls

URLS = Urls("https://github.com", "https://api.individual.githubcopilot.com")
NOW = 1_782_566_106.0  # 2026-06-27T13:15:06Z


def ask(
    urls: Urls = URLS, thread_id: str = "t1", content: str = "Hi", model: str = "gpt-4o", **options: Any
) -> Request:
    parent_id = options.pop("parent_id", None)
    return message_request(
        urls,
        thread_id,
        content,
        model=model,
        options=MessageOptions.coerce(**options),
        parent_id=parent_id,
        response_id="r1",
    )


def plain(text: str) -> str:
    """Masks nothing."""
    return text


def sent(headers: Optional[Dict[str, str]] = None, **body: Any) -> RawReply:
    return RawReply(200, headers or {}, json.dumps(body).encode())


MESSAGE = ask(thread_id="t/1")
THREAD = thread_request(URLS)
TOKEN = token_request(URLS)


def failure(status: int, request: Request = MESSAGE, body: bytes = b"", **headers: str) -> CopilotError:
    reply = RawReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
    error = error_of_status(request, reply, now=NOW, mask=plain)
    assert error is not None
    return error


#: Characters, and halves of characters, which JSON may hold.
CHARACTERS = st.characters() | st.integers(0xD800, 0xDFFF).map(chr)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(CHARACTERS, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = """
    type body id model usage inputTokens copilotAnnotations annotations message description error code status
    thread thread_id threads messages data token expiration role content parentMessageID interrupted
"""
TYPES = "content complete routedModel annotations error other"
KNOWN_FIELDS = st.sampled_from(FIELDS.split())
KNOWN_TYPES = st.sampled_from(TYPES.split())
OBJECTS = st.dictionaries(
    KNOWN_FIELDS, JSON_VALUES | KNOWN_TYPES | st.dictionaries(KNOWN_FIELDS, JSON_VALUES, max_size=3), max_size=5
)
BODIES = st.binary(max_size=60) | (OBJECTS | JSON_VALUES).map(lambda value: json.dumps(value).encode())
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "content-type",
            "location",
            "retry-after",
            "x-ratelimit-reset",
            "x-ratelimit-remaining",
            "date",
            "x-request-id",
        ]
    ),
    st.text(st.characters(max_codepoint=255), max_size=30)
    | st.sampled_from(
        ["text/html", "application/json", "https://[a", "//a/login", "30", "Sat, 27 Jun 2026 25:15:06 +9"]
    ),
)
