"""The page: its files, the HTML with the settings of one visit, and the header fields that protect it.

The model's words are hostile input, and the page's script makes HTML of them. ``SECURITY_HEADERS`` keep a browser from
running any of it should the script ever be wrong. Nothing here knows a framework.
"""

import json
from pathlib import Path
from string import Template
from typing import Any, Dict, Mapping, Optional

from copilot_sync.contrib.sse import public_message
from copilot_sync.errors import CopilotError

#: The files of the page. ``index.html`` is its template.
STATIC = Path(__file__).parent / "static"

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'none'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types dompurify"
    ),
    "X-Content-Type-Options": "nosniff",
    # Over HTTPS the CSRF protections want to see that a request comes from this site.
    "Referrer-Policy": "same-origin",
}
#: The languages that the page has texts in. The first is for all who read none of them.
LANGUAGES = ("en", "ru")
#: Of the names that the page makes up for its conversations.
LONGEST_NAME = 60
#: Conversations of one visitor: a session in a cookie has 4 KB.
MOST_CONVERSATIONS = 12
#: Of the titles that visitors give.
LONGEST_TITLE = 200

_URLS = ("conversations", "ask", "retry", "answer", "stop", "messages", "rename", "delete", "models")


def render(
    accept_language: Optional[str],
    csrf_header: str,
    csrf_token: str,
    default_model: Optional[str],
    *,
    stop_on_leave: bool = False,
) -> str:
    """Return the page's HTML for one visit.

    Args:
        accept_language: The header field of the request.
        csrf_header: The name of the header field that the page sends with each POST.
        csrf_token: Its value.
        default_model: The model that is asked if the visitor chooses none; ``None`` if the site does
            not say.
        stop_on_leave: Whether the page ends its answer when it is left.
    """
    language = language_of(accept_language)
    settings = {
        "urls": {name: name for name in _URLS},
        "csrf": {"header": csrf_header, "token": csrf_token},
        "language": language,
        "default_model": default_model,
        "stop_on_leave": stop_on_leave,
    }
    template = Template((STATIC / "index.html").read_text(encoding="utf-8"))
    return template.safe_substitute(language=language, settings=_json_in_html(settings))


def _json_in_html(value: Any) -> str:
    """Return JSON that can't end the element that it stands in."""
    text = json.dumps(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def language_of(accept_language: Optional[str]) -> str:
    """Choose one of ``LANGUAGES`` by the header field of a request."""
    wishes: Dict[str, float] = {}
    for wish in (accept_language or "").split(","):
        name, _, parameter = wish.partition(";")
        language = name.strip().lower().partition("-")[0]
        wishes[language] = max(wishes.get(language, 0.0), _quality(parameter))
    return max(LANGUAGES, key=lambda language: wishes.get(language, 0.0))


def _quality(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if not parameter.strip():
        return 1.0
    try:
        return float(value) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0


def check_name(name: str) -> str:
    """Return the name of a conversation, which the page has made up, if the session may keep one under it.

    Raises:
        ValueError: It may not.
    """
    if not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(f"a name has between 1 and {LONGEST_NAME} characters")
    return name


def error_of(error: CopilotError) -> Dict[str, Any]:
    """Return what the page may know of an error: a code for its script, words for a person, and no cause."""
    words = public_message(error)
    retry_after = getattr(error, "retry_after", None)
    return {"code": words.code, "message": words.message, "retry_after": retry_after}


def bad_request(message: str) -> Dict[str, Any]:
    """Return what the page is told of a request that it should not have made."""
    return {"code": "invalid_request", "message": message, "retry_after": None}
