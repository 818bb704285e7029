"""The wire of GitHub Copilot Chat: requests as values, replies read, statuses turned into errors.

GitHub does not document this API. What stands here was put together from the documentation of the
``GithubCopilot`` module and from public captures of the web client (April and September 2026).
Everything is a pure function: no socket, no clock, no randomness; the time is passed in where it
matters. Nothing from the wire is trusted: unknown fields are ignored, a missing one never crashes,
and only errors of the ``CopilotError`` family come out of reading.
"""

import contextlib
import enum
import html
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set, Tuple, Type, Union
from urllib.parse import quote, urlsplit

from copilot_sync import errors
from copilot_sync._version import __version__
from copilot_sync.events import (
    AnnotationsEvent,
    CompleteEvent,
    ContentEvent,
    ErrorEvent,
    Event,
    RoutedModelEvent,
    UnknownEvent,
)
from copilot_sync.models import Message, Model, Thread, Usage
from copilot_sync.settings import MAX_ERROR_TEXT, TOKEN_LIFETIME, Urls
from copilot_sync.times import read_date

#: The parent of a thread's first message (public captures, 2026).
ROOT = "root"
#: What ``decode`` gives for the line ``data: [DONE]``, which ends a stream.
DONE = UnknownEvent(type="[DONE]", data={})

_API_VERSION = "2025-05-01"
_INTEGRATION = "copilot-chat"
_LANGUAGE = "en-US,en;q=0.5"
_JSON = "application/json"
_EVENT_STREAM = "text/event-stream"
_LONGEST_LIFETIME = 86400.0
#: In the host or the path of an address: the page where people sign in, the service's own or a company's.
_LOGIN = re.compile(r"(^|/)(login|sign[-_]?in|sso|saml2?|sessions?)([/.]|$)", re.IGNORECASE)


# Requests


@dataclass(frozen=True)
class Request:
    """One request, without its credentials.

    ``template`` is the path with its ids left out, for logs; ``subject`` is the conversation it is about.
    """

    stage: str
    method: str
    url: str
    template: str
    headers: Mapping[str, str]
    body: Optional[bytes] = field(default=None, repr=False)
    subject: Optional[str] = None

    @property
    def body_stage(self) -> str:
        """The stage that reading the reply's body belongs to: an answer is a stage of its own."""
        return "stream" if self.stage == "message" else self.stage


@dataclass(frozen=True)
class Options:
    """What a message carries besides its text.

    Args:
        references: Repositories, files or inline files, as the wire has them.
        context: Further context objects.
        intent: ``conversation``, or ``explain``, which wants at least one reference.
        mode: Where the chat is shown; ``immersive`` is the page of its own.
        custom_instructions: Instructions for the model.
        media: Images: ``{"mediaType", "name", "url", "width", "height"}``.
        parent_message_id: The message that this one answers; by default the conversation's last.
    """

    references: Tuple[Mapping[str, Any], ...] = ()
    context: Tuple[Mapping[str, Any], ...] = ()
    intent: str = "conversation"
    mode: str = "immersive"
    custom_instructions: Tuple[str, ...] = ()
    media: Tuple[Mapping[str, Any], ...] = ()
    parent_message_id: Optional[str] = None

    @classmethod
    def coerce(
        cls,
        references: Optional[Iterable[Mapping[str, Any]]] = None,
        context: Optional[Iterable[Mapping[str, Any]]] = None,
        intent: Optional[str] = None,
        mode: Optional[str] = None,
        custom_instructions: Union[None, str, Iterable[str]] = None,
        media: Optional[Iterable[Mapping[str, Any]]] = None,
        parent_message_id: Optional[str] = None,
    ) -> "Options":
        """Read what callers give, ``None`` meaning the default of each.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value can't be sent as JSON.
        """
        instructions = (custom_instructions,) if isinstance(custom_instructions, str) else custom_instructions
        return cls(
            references=_objects("references", references, Mapping),
            context=_objects("context", context, Mapping),
            intent=_word("intent", intent, cls.intent),
            mode=_word("mode", mode, cls.mode),
            custom_instructions=_objects("custom_instructions", instructions, str),
            media=_objects("media", media, Mapping),
            parent_message_id=_word("parent_message_id", parent_message_id, "") or None,
        )


def _objects(name: str, values: Optional[Iterable[Any]], kind: type) -> Tuple[Any, ...]:
    if values is None:
        return ()
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, not {type(values).__name__}")
    objects = tuple(values)
    for value in objects:
        if not isinstance(value, kind):
            wanted = "strings" if kind is str else "dictionaries"
            raise TypeError(f"{name} must be a list of {wanted}, not of {type(value).__name__}")
    _json_bytes(name, objects)
    return objects


def _word(name: str, value: Optional[str], default: str) -> str:
    if value is None:
        return default
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return check_text(name, value)


def token_request(urls: Urls) -> Request:
    """Ask for a token; the cookies are added by whoever sends it."""
    headers = {
        "Accept": _JSON,
        "Content-Type": _JSON,
        "GitHub-Verified-Fetch": "true",
        "X-Requested-With": "XMLHttpRequest",
        **_page_headers(urls),
    }
    path = "/github-copilot/chat/token"
    return Request("token", "POST", urls.github + path, path, headers)


def thread_request(urls: Urls) -> Request:
    """Begin a thread."""
    return _api_request(urls, "thread", "POST", "/github/chat/threads")


def message_request(
    urls: Urls,
    thread_id: str,
    content: str,
    *,
    model: str,
    options: Options,
    parent_id: Optional[str],
    response_id: str,
) -> Request:
    """Send a message and ask for its answer as a stream.

    Args:
        urls: The two hosts.
        thread_id: The conversation.
        content: The prompt.
        model: The model's id.
        options: Everything else of the body.
        parent_id: The message that this one answers, ``root`` at a thread's beginning, ``None`` where it is unknown.
        response_id: A UUID that the answer will have as its id.
    """
    body: Dict[str, Any] = {
        "content": content,
        "intent": options.intent,
        "references": list(options.references),
        "context": list(options.context),
        "currentURL": f"{urls.github}/copilot/c/{segment(thread_id)}",
        "streaming": True,
        "confirmations": [],
        "customInstructions": list(options.custom_instructions),
        "model": model,
        "mode": options.mode,
        "responseMessageID": response_id,
        "mediaContent": list(options.media),
        "skillOptions": {"deepCodeSearch": False},
        "requestTrace": False,
    }
    if parent_id is not None:
        body["parentMessageID"] = parent_id
    request = _thread_call(urls, "message", "POST", thread_id, "/messages", body)
    headers = {**request.headers, "Accept": f"{_EVENT_STREAM}, {_JSON}", "Accept-Encoding": "identity"}
    return Request(request.stage, request.method, request.url, request.template, headers, request.body, request.subject)


def models_request(urls: Urls, *, older: bool = False) -> Request:
    """List the models; ``older`` asks at the address of earlier versions."""
    return _api_request(urls, "models", "GET", "/github/chat/models" if older else "/models")


def threads_request(urls: Urls) -> Request:
    """List the threads."""
    return _api_request(urls, "threads", "GET", "/github/chat/threads")


def messages_request(urls: Urls, thread_id: str) -> Request:
    """List a thread's messages."""
    return _thread_call(urls, "messages", "GET", thread_id, "/messages")


def rename_request(urls: Urls, thread_id: str, name: str) -> Request:
    """Give a thread a name."""
    return _thread_call(urls, "rename", "PATCH", thread_id, "/name", {"name": name, "generate": False})


def delete_request(urls: Urls, thread_id: str) -> Request:
    """Delete a thread."""
    return _thread_call(urls, "delete", "DELETE", thread_id, "")


def segment(identifier: str) -> str:
    """Percent-quote an id so that it is exactly one segment of a path.

    Raises:
        ValueError: The id is empty, a path of its own (``.``, ``..``), or not valid text.
    """
    if identifier in ("", ".", ".."):
        raise ValueError(f"{identifier!r} is not an id")
    try:
        return quote(identifier, safe="")
    except UnicodeEncodeError:
        raise ValueError("an id must be valid Unicode text") from None


def _thread_call(
    urls: Urls, stage: str, method: str, thread_id: str, rest: str, body: Optional[Mapping[str, Any]] = None
) -> Request:
    root = "/github/chat/threads"
    return _api_request(
        urls, stage, method, f"{root}/{segment(thread_id)}{rest}", f"{root}/{{id}}{rest}", body, thread_id
    )


def _api_request(
    urls: Urls,
    stage: str,
    method: str,
    path: str,
    template: Optional[str] = None,
    body: Optional[Mapping[str, Any]] = None,
    subject: Optional[str] = None,
) -> Request:
    headers = {
        "Accept": _JSON,
        "copilot-integration-id": _INTEGRATION,
        "X-GitHub-Api-Version": _API_VERSION,
        **_page_headers(urls),
    }
    payload = None
    if body is not None:
        headers["Content-Type"] = _JSON
        payload = _json_bytes("the request", body)
    return Request(stage, method, urls.api + path, template or path, headers, payload, subject)


def _page_headers(urls: Urls) -> Dict[str, str]:
    page = urlsplit(urls.github)
    return {
        "Accept-Encoding": "gzip",
        "Accept-Language": _LANGUAGE,
        "Origin": f"{page.scheme}://{page.netloc}",
        "Referer": f"{urls.github}/copilot",
        "User-Agent": f"copilot-sync/{__version__}",
    }


def check_text(name: str, text: str) -> str:
    """Check that a text can be sent, and give it back.

    Raises:
        ValueError: It is not valid Unicode.
    """
    _json_bytes(name, text)
    return text


def _json_bytes(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds text that is not valid Unicode (a lone surrogate)") from None
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} can't be sent as JSON: {error}") from None


# Prompts


def format_prompt(messages: Iterable[Mapping[str, Any]]) -> str:
    """Render a whole transcript as the one string that a message takes.

    A single message is its content alone; several become ``Role: content`` lines, blank ones left out, closed
    by a line ``Assistant:``. Content that is ``None`` is blank.

    Raises:
        TypeError: The messages, or one of them, have the wrong type.
        ValueError: There are none, one lacks its role or content or holds a part that is no text, or all are blank.
    """
    turns = _turns(messages)
    if not any(content.strip() for _, content in turns):
        raise ValueError("the messages hold no text")
    if len(turns) == 1:
        return turns[0][1]
    lines = [f"{role.capitalize()}: {content}" for role, content in turns if content.strip()]
    return "\n".join([*lines, "Assistant:"])


def last_user_turn(messages: Iterable[Mapping[str, Any]]) -> str:
    """Take what the user said last: the last run of user messages, whatever stands behind it left out.

    Each is stripped, blank ones are dropped, and the rest is joined by newlines.

    Raises:
        TypeError: The messages, or one of them, have the wrong type.
        ValueError: There are none, one lacks its role or content or holds a part that is no text, or the user said
            nothing.
    """
    run: List[str] = []
    for role, content in reversed(_turns(messages)):
        if role == "user":
            run.append(content.strip())
        elif run:
            break
    text = "\n".join(content for content in reversed(run) if content)
    if not text:
        raise ValueError("the messages hold no text of the user's to send")
    return text


def check_prompt(prompt: object) -> str:
    """Check a prompt that is a single string.

    Raises:
        TypeError: It is not a string.
        ValueError: It is blank, or not valid Unicode.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"a prompt must be a string or a list of messages, not {type(prompt).__name__}")
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    return check_text("the prompt", prompt)


def _turns(messages: Iterable[Mapping[str, Any]]) -> List[Tuple[str, str]]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise TypeError(f"messages must be a list of dictionaries, not {type(messages).__name__}")
    turns = [_turn(number, message) for number, message in enumerate(messages)]
    if not turns:
        raise ValueError("messages must not be empty")
    _json_bytes("messages", turns)
    return turns


def _turn(number: int, message: object) -> Tuple[str, str]:
    if not isinstance(message, Mapping):
        raise TypeError(f"message {number} must be a dictionary, not {type(message).__name__}")
    role = message.get("role")
    if role is None:
        raise ValueError(f"message {number} has no role")
    if "content" not in message:
        raise ValueError(f"message {number} has no content")
    if not isinstance(role, str):
        raise TypeError(f"the role of message {number} must be a string, not {type(role).__name__}")
    if not role.strip():
        raise ValueError(f"message {number} has no role")
    return role, _text_of(number, message["content"])


def _text_of(number: int, content: object) -> str:
    if content is None:  # as in an assistant's turn that only called a tool
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise TypeError(f"the content of message {number} must be a string or a list of parts")
    return "".join(_part_text(number, part) for part in content)


def _part_text(number: int, part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise TypeError(f"a part of message {number} must be a dictionary, not {type(part).__name__}")
    kind = part.get("type", "text" if "text" in part else None)
    if kind != "text":
        what = f"of type {kind!r}" if kind else "without a type or text"
        raise ValueError(f"message {number} has a part {what}, which can't be sent: only text can")
    text = part.get("text", "")
    if not isinstance(text, str):
        raise TypeError(f"a text part of message {number} must hold a string, not {type(text).__name__}")
    return text


# Replies


@dataclass(frozen=True)
class Reply:
    """The head of a reply, and its body where it was read. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


def read_token(reply: Reply, now: float, mask: Callable[[str], str] = str) -> Tuple[str, float]:
    """Read the token's reply.

    Args:
        reply: A reply with a status of success.
        now: The wall clock, in seconds since 1970, for a server that sends no ``Date``.
        mask: Takes the secrets out of the server's words.

    Returns:
        The token, and how many seconds it will live.

    Raises:
        AuthenticationError: There is no token in it: the cookies are not valid, or the account gets none. The error
            says why where the reply does.
        ProtocolError: It is broken JSON, or a token that can't be sent.
    """
    data = _read_json(reply, "token") if _first(reply) in (b"{", b"[") else None
    token = data.get("token") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(token, str) or not token:
        words = server_words(reply, mask)
        raise _no_token(
            "the reply held no token",
            "the github.com cookies are not valid any more; sign in again and renew user_session",
            words if " " in words and not isinstance(data, list) else "",  # it may be the token, in another form
            reply,
            {"stage": "token", "status": reply.status},
        )
    if not is_header_value(token):
        raise errors.ProtocolError("the token holds characters that can't be sent", stage="token", status=reply.status)
    return token, _lifetime(data.get("expiration"), _server_time(reply.headers, now))


def _first(reply: Reply) -> bytes:
    """What a body begins with, blanks and a byte order mark aside."""
    return reply.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]


#: Reasons that tell no more than the status does.
_SAYS_NOTHING = re.compile(r"\W*(null|error|unauthorized|forbidden|not found|unprocessable \w+)?\W*", re.IGNORECASE)
#: Reasons that signing in again takes away, and reasons that it does not, whatever else they say.
_SIGNED_OUT = re.compile(
    r"sign in|log in|(not|be) (sign|logg)ed in|authenticat|credential|session|expired", re.IGNORECASE
)
_NOT_ALLOWED = re.compile(
    r"saml|\bsso\b|single sign|organi[sz]ation|enterprise|access|polic|licen[cs]e|subscri|plan\b|seat|quota|limit"
    r"|disabled|enabled|suspend|block|billing|support|available",
    re.IGNORECASE,
)


def _no_token(what: str, advice: str, words: str, reply: Reply, facts: Mapping[str, Any]) -> errors.AuthenticationError:
    """The error for a token that was not given: with the service's reason, and with the advice where that mends it."""
    is_vague = bool(_SAYS_NOTHING.fullmatch(words) or _SIGNED_OUT.search(words)) or reply.status == 401
    is_reason = _first(reply) == b"{" and not is_vague
    if is_reason or _NOT_ALLOWED.search(words):
        advice = "github.com gives this account none"
    return errors.AuthenticationError(f"{what}: {advice}{_said(words)}", **facts)


def _lifetime(expiration: object, now: float) -> float:
    end = read_date(expiration) if isinstance(expiration, str) else None
    left = 0.0 if end is None else end - now
    # A new token that is over already, or lives for days, means that one of the clocks is wrong.
    return left if 0 < left <= _LONGEST_LIFETIME else TOKEN_LIFETIME


def _server_time(headers: Mapping[str, str], now: float) -> float:
    moment = read_date(headers.get("date", ""))
    return now if moment is None else moment


def read_thread_id(reply: Reply) -> str:
    """Read the id of a new thread, in any of the three forms that are known.

    Raises:
        ProtocolError: There is none in it.
    """
    data = _read_json(reply, "thread")
    if isinstance(data, Mapping):
        inner = data.get("thread")
        candidates = [data.get("thread_id"), inner.get("id") if isinstance(inner, Mapping) else None, data.get("id")]
        for candidate in candidates:
            if isinstance(candidate, str) and _is_segment(candidate):
                return candidate
    raise errors.ProtocolError("the reply to a new thread held no id of it", stage="thread", status=reply.status)


def _is_segment(identifier: str) -> bool:
    try:
        segment(identifier)
    except ValueError:
        return False
    return True


def read_nothing(reply: Reply) -> None:
    """Read the reply to what has no more to say than that it was done."""


def read_threads(reply: Reply) -> List[Thread]:
    """Read the list of threads; entries without an id are left out."""
    return [
        Thread(
            id=_text(entry, "id"),
            name=_text(entry, "name"),
            created_at=_optional_text(entry, "createdAt"),
            updated_at=_optional_text(entry, "updatedAt"),
        )
        for entry in _entries(reply, "threads", ("threads",))
    ]


def read_messages(reply: Reply, thread_id: Optional[str] = None) -> List[Message]:
    """Read a thread's messages; entries without an id are left out.

    Raises:
        ProtocolError: It is no list of messages, or one of another thread than the one that was asked for.
    """
    data = _read_json(reply, "messages")
    entries = _listed(data, reply, "messages", ("messages", "thread"))
    thread = data.get("thread")
    told = _text(thread, "id") if isinstance(thread, Mapping) else ""
    if thread_id is not None and told not in ("", thread_id):
        raise errors.ProtocolError("the messages of another conversation came", stage="messages", status=reply.status)
    return [
        Message(
            id=_text(entry, "id"),
            role=_text(entry, "role"),
            content=_text(entry, "content"),
            parent_id=_optional_text(entry, "parentMessageID"),
            created_at=_optional_text(entry, "createdAt"),
            interrupted=entry.get("interrupted") is True,
        )
        for entry in entries
    ]


def read_models(reply: Reply) -> List[Model]:
    """Read the list of models; entries without an id are left out."""
    return [
        Model(
            id=_text(entry, "id"),
            name=_text(entry, "name"),
            vendor=_text(entry, "vendor"),
            preview=entry.get("preview") is True,
        )
        for entry in _entries(reply, "models", ("data", "object"))
    ]


def _entries(reply: Reply, stage: str, keys: Tuple[str, ...]) -> List[Mapping[str, Any]]:
    return _listed(_read_json(reply, stage), reply, stage, keys)


def _listed(data: Any, reply: Reply, stage: str, keys: Tuple[str, ...]) -> List[Mapping[str, Any]]:
    """Read a list that stands under the first of the keys; the others, too, tell that this is the reply.

    An empty list may come as ``null``, or not at all; but what tells of an error is no list.
    """
    if isinstance(data, Mapping) and not isinstance(data.get(keys[0]), list) and _is_error(data):
        raise errors.ProtocolError(f"an error came instead of a list of {stage}", stage=stage, status=reply.status)
    fields = data if isinstance(data, Mapping) else {}
    entries = fields.get(keys[0])
    if entries is None and (keys[0] in fields or any(fields.get(key) is not None for key in keys)):
        return []
    if not isinstance(entries, list):
        raise errors.ProtocolError(f"the reply held no list of {stage}", stage=stage, status=reply.status)
    return [entry for entry in entries if isinstance(entry, Mapping) and _optional_text(entry, "id")]


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return well_formed(value) if isinstance(value, str) else ""


def _optional_text(entry: Mapping[str, Any], key: str) -> Optional[str]:
    return _text(entry, key) or None


def _read_json(reply: Reply, stage: str) -> Any:
    try:
        return loads(decoded(reply.body))
    except ValueError:
        kind = "HTML" if _is_html(reply.body) else "something else"
    # Raised out here: the error of json carries the whole reply.
    raise errors.ProtocolError(f"JSON was expected and {kind} came", stage=stage, status=reply.status)


def _is_html(body: bytes) -> bool:
    return without_leading(body).startswith(b"<")


# What answers a message


class Form(enum.Enum):
    """What the body of a message's reply is, whatever its label says."""

    #: Events, as they should be.
    STREAM = "stream"
    #: One JSON document, as some versions of the service answer, and as errors come.
    DOCUMENT = "document"
    #: Anything else: a web page, the words of a gateway.
    WORDS = "words"


#: What may stand in front of a body: blanks and a byte order mark, which may come in single bytes.
_LEADING = re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf|\xef\xbb?\Z)*")
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
        The form; ``None`` where more has to come to tell, which ``at_end`` rules out.
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


def without_leading(body: bytes) -> bytes:
    """Take off what may stand in front of a body: blanks and a byte order mark."""
    leading = _LEADING.match(body)
    return body[leading.end() :] if leading else body


def read_document(body: bytes) -> Optional[Tuple[Event, ...]]:
    """Read the one JSON document that some versions answer with as the events of a stream.

    Returns:
        The answer's text and its end, or an error; ``None`` where the document is not whole.

    Raises:
        ProtocolError: There is neither a message in it nor an error.
    """
    text = decoded(body)
    try:
        data = loads(text)
    except ValueError as failure:
        return None if _is_torn(failure, text) else (read_error(text),)
    message = data.get("message") if isinstance(data, Mapping) else None
    if isinstance(message, Mapping) and isinstance(message.get("content"), str) and not data.get("error"):
        complete = _complete(message)
        content = well_formed(message["content"])
        return (ContentEvent("content", message, content), complete) if content else (complete,)
    failed = read_error(text)
    if failed.message or failed.code:
        return (failed,)
    raise errors.ProtocolError("the reply held no answer", stage="message")


def decoded(body: bytes) -> str:
    """The text of a body."""
    return without_leading(body).decode("utf-8", "replace")


#: The beginning of a word, a number or an escape of JSON, or nothing.
_TORN = re.compile(r"(?:t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?|-|\.|[eE][+-]?|u[0-9a-fA-F]{0,4}|)\s*")


def _is_torn(failure: ValueError, text: str) -> bool:
    """Whether JSON can't be read because its end is missing, and not for what is there."""
    if not isinstance(failure, json.JSONDecodeError):
        return False
    return failure.msg.startswith("Unterminated") or _TORN.fullmatch(text, failure.pos) is not None


# Events

#: Brackets inside of brackets; far more than any reply has, far fewer than Python's stack takes.
_DEEPEST = 200
#: The brackets of JSON, and the strings, in which brackets mean nothing.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_read_json_at_start = json.JSONDecoder(strict=False).raw_decode
#: Takes numbers of any length, which newer Pythons refuse, for what they are about.
_read_lenient_json_at_start = json.JSONDecoder(strict=False, parse_int=float).raw_decode


def decode(data: str) -> Optional[Event]:
    """Read one event's data.

    Returns:
        The event; ``DONE`` at the stream's end; ``None`` where there is nothing in it, such as content without text.

    Raises:
        ProtocolError: It is not a JSON object, or its ``body`` is not a string.
    """
    text = data.strip()
    if text == "[DONE]":
        return DONE
    if len(text) > _DEEPEST and _is_too_deep(text):  # most are short, and then a call would cost as much as reading
        raise errors.ProtocolError("an event was nested too deeply", stage="stream")
    try:
        value, end = _read_json_at_start(text)
    except ValueError:
        value = None
    if value is None:  # out here, because the error of json carries the whole event
        if not text:
            return None
        value, end = _read_again(text)
    if end != len(text) or not isinstance(value, dict):
        raise errors.ProtocolError("an event was not one JSON object", stage="stream")
    kind = value.get("type")
    if kind == "content" and "error" not in value:
        return _content(value)
    if _is_error(value):
        return _error(value)
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is not None:
        return reader(value)
    return UnknownEvent(well_formed(kind) if isinstance(kind, str) else "", value)


def _read_again(text: str) -> Tuple[Any, int]:
    with contextlib.suppress(ValueError):
        return _read_lenient_json_at_start(text)
    raise errors.ProtocolError("an event was not JSON", stage="stream")


def loads(text: str) -> Any:
    """Read JSON of unknown origin.

    Raises:
        ValueError: It is none, or it is nested too deeply.
    """
    if _is_too_deep(text):
        raise ValueError("the JSON is nested too deeply")
    return json.loads(text)


def _is_too_deep(text: str) -> bool:
    """Whether JSON is nested deeper than anything the service sends.

    Reading such JSON would end in a ``RecursionError``, and where garbage happens to be collected at that depth,
    older Pythons abort the whole process.
    """
    if text.count("[") + text.count("{") <= _DEEPEST:
        return False
    depth = 0
    for token in _TOKENS.findall(text):
        if token in ("[", "{"):
            depth += 1
        elif token in ("]", "}"):
            depth -= 1
        if depth > _DEEPEST:
            return True
    return False


def _content(value: Dict[str, Any]) -> Optional[Event]:
    body = value.get("body")
    if isinstance(body, str):
        return ContentEvent("content", value, body if body.isascii() else well_formed(body)) if body else None
    if body is None:
        return None
    raise errors.ProtocolError("the body of a content event was not a string", stage="stream")


def _complete(value: Mapping[str, Any]) -> CompleteEvent:
    annotations = value.get("copilotAnnotations")
    return CompleteEvent(
        type="complete",
        data=value,
        id=_optional_text(value, "id"),
        model=_text(value, "model"),
        usage=_usage(value.get("usage")),
        annotations=annotations if isinstance(annotations, dict) else {},
    )


def _usage(value: object) -> Optional[Usage]:
    if not isinstance(value, dict):
        return None
    return Usage(_count(value.get("inputTokens")), _count(value.get("outputTokens")))


def _count(value: object) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _routed_model(value: Mapping[str, Any]) -> Event:
    return RoutedModelEvent(value["type"], value, _text(value, "model"))


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


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON may carry and no encoding takes, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


# Errors


def is_header_value(text: str) -> bool:
    """Whether a text can stand in a header as it is: printable ASCII without blanks at its ends."""
    return text.isascii() and text.isprintable() and text == text.strip()


def error_of_status(
    request: Request, reply: Reply, *, now: float, mask: Callable[[str], str], proven: bool = False
) -> Optional[errors.CopilotError]:
    """Turn a reply's status into the error it means; ``None`` for success.

    Args:
        request: What was asked.
        reply: What came; its body may be empty or cut.
        now: The wall clock, in seconds since 1970, for a server that sends no ``Date``.
        mask: Takes the secrets out of the server's words.
        proven: Whether the service has accepted the credentials before.
    """
    status = reply.status
    if 200 <= status < 300:
        return None
    told = read_error(decoded(reply.body))
    words, codes = clean(mask(told.message)), _codes_of(told)
    facts: Dict[str, Any] = {
        "stage": request.stage,
        "status": status,
        "request_id": _request_id(reply, mask),
    }
    if 300 <= status < 400:
        return _redirect_error(reply, mask, facts)
    if status == 407:
        return errors.NetworkError(
            "the proxy wants a user name and a password" + _said(words), may_have_been_sent=False, **facts
        )
    limit = _limit_of(reply, codes, words)
    if limit is not None:
        seconds = retry_after(reply.headers, now)
        return limit(_LIMITS[limit] + _not_before(seconds, now) + _said(words), retry_after=seconds, **facts)
    if request.stage == "token" and status in (401, 403, 404, 422):
        return _no_token(
            "github.com refused the cookies",
            "sign in again and renew user_session, and see that the account may use Copilot Chat",
            words,
            reply,
            facts,
        )
    if status == 503:
        facts["retry_after"] = retry_after(reply.headers, now)
        facts["not_processed"] = asks_to_come_again(reply.headers)
    if status == 403 and proven and request.stage == "message":
        words_of_ours = "the service forbids this message: a policy may not allow its model"
        return errors.PermissionDeniedError(words_of_ours + _said(words), **facts)
    if status in (400, 422) and any(_FILTERED.search(_snake(code)) for code in codes):
        return errors.InvalidRequestError("the service's content filter refused the message" + _said(words), **facts)
    if status == 404 and request.subject is not None:
        return errors.NotFoundError(f"there is no conversation {clean(request.subject)!r}" + _said(words), **facts)
    kind, message = _kind_of_status(status)
    return kind(message + _said(words), **facts)


def _kind_of_status(status: int) -> Tuple[Callable[..., errors.CopilotError], str]:
    if status in _STATUSES:
        return _STATUSES[status]
    if 400 <= status < 500:
        return errors.InvalidRequestError, "the service refused the request"
    if 500 <= status < 600:
        return errors.ServerError, "the service failed"
    return errors.ProtocolError, "the reply has a status that means nothing here"


#: What limits are called.
_LIMITS: Dict[Type[errors.RateLimitError], str] = {
    errors.RateLimitError: "too many requests: slow down",
    errors.QuotaExceededError: "the account's quota is used up",
}

_STATUSES: Dict[int, Tuple[Callable[..., errors.CopilotError], str]] = {
    400: (errors.InvalidRequestError, "the service found the request wrong"),
    401: (errors.AuthenticationError, "the token was refused: sign in again, or give another api_key"),
    402: (errors.QuotaExceededError, _LIMITS[errors.QuotaExceededError]),
    403: (errors.AuthenticationError, "access was denied: the account's plan or a policy may not allow Copilot Chat"),
    404: (errors.NotFoundError, "the service does not know this address"),
    408: (errors.ServerError, "the service gave up waiting for the request"),
    409: (errors.ServerError, "the service asks to try again"),
    413: (errors.InvalidRequestError, "the request is too large for the service"),
    421: (
        errors.WrongHostError,
        "the token belongs to another API host: set api_url (or COPILOT_SYNC_API_URL) to "
        "https://api.business.githubcopilot.com or https://api.enterprise.githubcopilot.com, as the plan is",
    ),
    422: (errors.InvalidRequestError, "the service found the request wrong"),
    424: (errors.ServerError, "something that the service depends on failed"),
    425: (errors.ServerError, "the service asks to try again"),
    429: (errors.RateLimitError, _LIMITS[errors.RateLimitError]),
    466: (errors.InvalidRequestError, "the service finds this client too old: upgrade copilot-sync"),
    499: (errors.ServerError, "the service cancelled the request"),
}


def _redirect_error(reply: Reply, mask: Callable[[str], str], facts: Dict[str, Any]) -> errors.CopilotError:
    try:
        target = urlsplit(reply.headers.get("location", ""))
    except ValueError:
        target = urlsplit("")
    if _LOGIN.search(target.netloc) or _LOGIN.search(target.path):
        return errors.AuthenticationError(
            "the service sent the request to its login page: the credentials are not valid any more", **facts
        )
    place = clean(mask(f"{target.netloc.rpartition('@')[2]}{target.path}")) or "nowhere"
    return errors.ProtocolError(f"the reply redirects to {place}, and redirects are not followed", **facts)


def _request_id(reply: Reply, mask: Callable[[str], str]) -> Optional[str]:
    return clean(mask(reply.headers.get("x-github-request-id") or reply.headers.get("x-request-id") or "")) or None


def _said(words: str) -> str:
    return f" (the server said: {words})" if words else ""


def error_of_event(
    event: ErrorEvent, mask: Callable[[str], str], what: str = "the service failed in the middle of the answer"
) -> errors.CopilotError:
    """Turn an error event into the error that its code says, a ``ServerError`` where it says nothing."""
    kind = _limit_of_codes(_codes_of(event)) or _kind_of_code(event.code)
    if kind is errors.ServerError:
        kind = _limit_of_words(event.message) or kind
    elif kind is errors.RateLimitError and _is_lasting(event.message):
        kind = errors.QuotaExceededError
    return kind(what + _said(clean(mask(event.message))), stage="stream")


def _kind_of_code(code: str) -> Callable[..., errors.CopilotError]:
    if re.fullmatch(r"[0-9]{3}", code):
        return _STATUSES.get(int(code), (errors.ServerError,))[0]
    letters = re.sub(r"[^a-z]", "", code.lower())
    return next((kind for word, kind in _CODES if word in letters), errors.ServerError)


_CODES: Tuple[Tuple[str, Callable[..., errors.CopilotError]], ...] = (
    ("unauthorized", errors.AuthenticationError),
    ("forbidden", errors.AuthenticationError),
    ("notfound", errors.NotFoundError),
    ("modelnotsupported", errors.InvalidRequestError),
    ("contentfilter", errors.InvalidRequestError),
    ("responsibleai", errors.InvalidRequestError),
    ("badrequest", errors.InvalidRequestError),
    ("invalid", errors.InvalidRequestError),
)


# Limits. The status says little: 402, 403 and 429 may each mean "for a moment" or "for the rest of the month".


#: Codes, in ``snake_case``, of what is used up for long, and of what is too much for a moment.
_USED_UP = re.compile(
    r"quota(?!tion)|weekly|monthly|(?:^|_)(?:weeks?|months?)(?:_|$)|usage_?limit|billing_(?:\w+_)?limit"
    r"|insufficient_?(?:credit|fund|balance)"
)
_TOO_MUCH = re.compile(r"(?:^|_)rate_?limit|too_?many_?requests")
_FILTERED = re.compile(r"content_?(?:filter|policy)|responsible_?ai")
#: The same in sentences, for replies without a code. A quota for each minute is no lasting one.
_SAYS_USED_UP = re.compile(
    r"\bquota\b.*\b(?:exceeded|exhausted|reached|used up)|\bexceeded\b.*\bquota\b|\bno quota\b"
    r"|\b(?:weekly|monthly)\b.*\blimit|\blimit\b.*\b(?:week|month)\b",
    re.IGNORECASE,
)
_SAYS_FOR_A_MOMENT = re.compile(r"\bper[ -](?:second|minute|hour)|\b(?:seconds?|minutes?)\b", re.IGNORECASE)
_SAYS_TOO_MUCH = re.compile(r"rate[ _-]?limit|abuse detection|too many requests", re.IGNORECASE)
#: All keys under which a code may stand.
_CODE_KEYS = ("code", "type", "error_code", "errorCode", "reason", "error")


def _limit_of(reply: Reply, codes: Set[str], words: str) -> Optional[Type[errors.RateLimitError]]:
    """Tell which limit a refusal speaks of: codes and headers count for more than the status; ``None`` for no limit."""
    status = reply.status
    if status < 400 or status == 401:
        return None
    said = _limit_of_codes(codes)
    if status == 402 or said is errors.QuotaExceededError:
        return errors.QuotaExceededError
    if said or status == 429 or (status == 403 and _tells_when(reply.headers)):
        return errors.QuotaExceededError if _is_lasting(words) else errors.RateLimitError
    return _limit_of_words(words) if status == 403 else None


def _tells_when(headers: Mapping[str, str]) -> bool:
    """Whether a refusal says when to come again, or that nothing is left of what is allowed."""
    is_used_up = re.fullmatch(r"\s*(?:-\d+|0+(?:\.0+)?)\s*", headers.get("x-ratelimit-remaining", "")) is not None
    return is_used_up or any(name in headers for name in _WAIT_FIELDS)


def _is_lasting(words: str) -> bool:
    return _SAYS_USED_UP.search(words) is not None and _SAYS_FOR_A_MOMENT.search(words) is None


def _limit_of_words(words: str) -> Optional[Type[errors.RateLimitError]]:
    """Tell which limit a sentence speaks of, where there is no code and the status does not say; ``None`` for none."""
    if _is_lasting(words):
        return errors.QuotaExceededError
    return errors.RateLimitError if _SAYS_TOO_MUCH.search(words) else None


def _limit_of_codes(codes: Iterable[str]) -> Optional[Type[errors.RateLimitError]]:
    snakes = [_snake(code) for code in codes]
    if any(_USED_UP.search(code) for code in snakes):
        return errors.QuotaExceededError
    return errors.RateLimitError if any(_TOO_MUCH.search(code) for code in snakes) else None


def _snake(code: str) -> str:
    """Write a code in one way, whichever of the usual ones it came in."""
    return re.sub(r"[^a-z]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", code).lower())


def _codes_of(event: ErrorEvent) -> Set[str]:
    """All that may be a code in what tells of an error."""
    return {event.code, *(_codes_in(event.data) if event.data else _codes_in(event.message))}


def _codes_in(data: Union[str, Mapping[str, Any]]) -> Set[str]:
    if isinstance(data, str):
        code = data.strip()
        return {code} if 0 < len(code) <= _LONGEST_CODE and " " not in code else set()
    found: Set[str] = set()
    nested = data.get("errors")
    inner = [data.get("error"), *(nested[:10] if isinstance(nested, list) else [])]
    for entry in (data, *(each for each in inner if isinstance(each, Mapping))):
        for key in _CODE_KEYS:
            if isinstance(entry.get(key), str):
                found |= _codes_in(entry[key])
    return found


#: Characters. What is longer is no code.
_LONGEST_CODE = 64


def _not_before(seconds: Optional[float], now: float) -> str:
    """Say when a long wait ends, by the clock."""
    if seconds is None or not _LONG_WAIT <= seconds < _ENDLESS:
        return ""
    moment = datetime.fromtimestamp(now + seconds, timezone.utc)
    return f", not before {moment.isoformat(' ', 'minutes')[:-6]} UTC"


#: Seconds: the shortest wait whose end is told, and what is no time that anybody means.
_LONG_WAIT = 60.0
_ENDLESS = 10 * 366 * 86400.0


_SECONDS = re.compile(r"\d{1,18}(\.\d{1,9})?")


#: Where the seconds to wait may stand, the most telling one first.
_WAIT_FIELDS = ("retry-after", "x-ratelimit-user-retry-after", "x-ratelimit-quota-exceeded-retry-after")


def asks_to_come_again(headers: Mapping[str, str]) -> bool:
    """Whether there is a ``Retry-After`` that can be understood."""
    said = headers.get("retry-after", "").strip()
    return _SECONDS.fullmatch(said) is not None or read_date(said) is not None


def retry_after(headers: Mapping[str, str], now: float) -> Optional[float]:
    """How many seconds the server asks to wait; ``None`` for no word.

    ``Retry-After`` comes first, then what GitHub says of the user's limit and of the quota (seconds, seen on the API of
    editors), then ``x-ratelimit-reset``. An HTTP date and an epoch are compared with the server's own ``Date`` where it
    sends one, so that a clock that is wrong here does no harm.
    """
    now = _server_time(headers, now)
    said = headers.get("retry-after", "").strip()
    moment = None if _SECONDS.fullmatch(said) else read_date(said)
    if moment is not None:
        return max(0.0, moment - now)
    for name in _WAIT_FIELDS:
        seconds = headers.get(name, "").strip()
        if _SECONDS.fullmatch(seconds):
            return float(seconds)
    reset = headers.get("x-ratelimit-reset", "").strip()
    return max(0.0, float(reset) - now) if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", reset) else None


def server_words(reply: Reply, mask: Callable[[str], str]) -> str:
    """What the server said about a failure, without secrets and control characters, bounded in length."""
    return clean(mask(read_error(decoded(reply.body)).message))


# What says that something failed, wherever it stands: in a stream, under ``event: error``, in a body of its own

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


def _is_error(value: Mapping[str, Any]) -> bool:
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
    found = (_text(source, key) for source in (inner, value, listed) for key in _WORDS)
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


def clean(text: str) -> str:
    """Make a server's text fit for a message: one line, printable, at most 500 characters."""
    printable = "".join(character if character.isprintable() else " " for character in text[: MAX_ERROR_TEXT * 4])
    line = " ".join(printable.split())
    return line if len(line) <= MAX_ERROR_TEXT else line[: MAX_ERROR_TEXT - 1] + "…"


def _page_title(text: str) -> str:
    title = re.search(r"<title\b[^<>]*>([^<]*)", text, re.IGNORECASE)
    return html.unescape(title.group(1)) if title else ""
