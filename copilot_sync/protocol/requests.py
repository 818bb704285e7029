"""What is sent: each request as a value, without its credentials."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterable, Mapping, Optional, Tuple, Union
from urllib.parse import quote

from copilot_sync._version import __version__
from copilot_sync.safe_text import check_id, check_text, json_bytes
from copilot_sync.settings import Urls, origin_of

#: The parent of a thread's first message (public captures, 2026).
ROOT = "root"
#: The path of the account's page.
PAGE = "/copilot"
_API_VERSION = "2025-05-01"
_INTEGRATION = "copilot-chat"
_LANGUAGE = "en-US,en;q=0.5"
_JSON = "application/json"
_EVENT_STREAM = "text/event-stream"
#: The fields of a message that the library fills by itself, in lower case, and what callers use instead.
_OWN_FIELDS = {
    "content": "the prompt",
    "intent": "intent=",
    "references": "references= or files=",
    "context": "context=",
    "currenturl": "github_url= of the client",
    "streaming": "ask() or stream()",
    "custominstructions": "custom_instructions=",
    "model": "model=",
    "mode": "mode=",
    "responsemessageid": "handle=",
    "parentmessageid": "parent_message_id=",
    "mediacontent": "media=",
    "requesttrace": "",
}


@dataclass(frozen=True)
class Request:
    """One request, without its credentials.

    ``template`` is the path with its ids left out, for logs; ``subject`` is the conversation it is about, and ``model``
    the model that is to answer.
    """

    stage: str
    method: str
    url: str
    template: str
    headers: Mapping[str, str]
    body: Optional[bytes] = field(default=None, repr=False)
    subject: Optional[str] = None
    model: str = ""

    @property
    def body_stage(self) -> str:
        """The stage that reading the reply's body belongs to: an answer is a stage of its own."""
        return "stream" if self.stage == "message" else self.stage


@dataclass(frozen=True)
class MessageOptions:
    """What a message carries besides its text.

    Args:
        references: Repositories, files or inline files, as the wire has them.
        context: Further context objects.
        intent: ``conversation``, or ``explain``, which wants at least one reference.
        mode: Where the chat is shown; ``immersive`` is the page of its own.
        custom_instructions: Instructions for the model.
        media: Images: ``{"mediaType", "name", "url", "width", "height"}``.
        parent_message_id: The message that this one answers; by default the conversation's last.
        extra: Further fields of the body. ``skills``, ``customCopilotID``, ``skillOptions`` and ``confirmations`` are
            known by name alone (public captures, 2026); the last two replace the fixed value that is sent otherwise.
    """

    references: Tuple[Mapping[str, Any], ...] = ()
    context: Tuple[Mapping[str, Any], ...] = ()
    intent: str = "conversation"
    mode: str = "immersive"
    custom_instructions: Tuple[str, ...] = ()
    media: Tuple[Mapping[str, Any], ...] = ()
    parent_message_id: Optional[str] = None
    extra: Mapping[str, Any] = field(default_factory=dict)

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
        extra: Optional[Mapping[str, Any]] = None,
    ) -> "MessageOptions":
        """Read what callers give, ``None`` meaning the default of each.

        Raises:
            TypeError: A value has the wrong type, or ``extra`` has a field that the library fills by itself.
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
            extra={} if extra is None else _fields(extra),
        )

    def attach(self, references: Iterable[Mapping[str, Any]], media: Iterable[Mapping[str, Any]]) -> "MessageOptions":
        """Return the same options with more references and images. Those are not checked and come last."""
        return replace(self, references=(*self.references, *references), media=(*self.media, *media))


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
    json_bytes(name, objects)
    return objects


def _word(name: str, value: Optional[str], default: str) -> str:
    if value is None:
        return default
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return check_text(name, value)


def _fields(extra: Mapping[str, Any]) -> Dict[str, Any]:
    if not isinstance(extra, Mapping):
        raise TypeError(f"extra must be a dictionary, not {type(extra).__name__}")
    for name in extra:
        if not isinstance(name, str):
            raise TypeError(f"a field of extra must have a string for its name, not {type(name).__name__}")
        instead = _OWN_FIELDS.get(name.lower())
        if instead is not None:
            advice = f": use {instead} instead" if instead else ""
            raise TypeError(f"extra can't hold {name}, which the library sends by itself{advice}")
    # A copy, in the form in which it is sent: the caller's may change before it is.
    fields: Dict[str, Any] = json.loads(json_bytes("extra", dict(extra)))
    return fields


def token_request(urls: Urls) -> Request:
    """Ask for a token; the cookies are added by whoever sends it."""
    return _page_request(urls, "token", "POST", "/github-copilot/chat/token")


def quota_request(urls: Urls) -> Request:
    """Ask for the account's plan and quota (public captures, 2026); the cookies are added by whoever sends it."""
    return _page_request(urls, "quota", "GET", "/github-copilot/chat/entitlement")


def _page_request(urls: Urls, stage: str, method: str, path: str) -> Request:
    headers = {
        "Accept": _JSON,
        "Content-Type": _JSON,
        "GitHub-Verified-Fetch": "true",
        "X-Requested-With": "XMLHttpRequest",
        **_page_headers(urls),
    }
    return Request(stage, method, urls.github + path, path, headers)


def thread_request(urls: Urls) -> Request:
    """Begin a thread."""
    return _api_request(urls, "thread", "POST", "/github/chat/threads")


def message_request(
    urls: Urls,
    thread_id: str,
    content: str,
    *,
    model: str,
    options: MessageOptions,
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
        parent_id: The message that this one answers, ``root`` at a thread's beginning, ``None`` if it is unknown.
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
    body.update(options.extra)
    request = _thread_call(urls, "message", "POST", thread_id, "/messages", body)
    headers = {**request.headers, "Accept": f"{_EVENT_STREAM}, {_JSON}", "Accept-Encoding": "identity"}
    return replace(request, headers=headers, model=model)


def models_request(urls: Urls, *, older: bool = False) -> Request:
    """List the models where the page does (public captures, 2026); ``older`` asks where editors do."""
    return _api_request(urls, "models", "GET", "/models" if older else "/github/chat/models")


def threads_request(urls: Urls) -> Request:
    """List the threads."""
    return _api_request(urls, "threads", "GET", "/github/chat/threads")


def messages_request(urls: Urls, thread_id: str) -> Request:
    """List a thread's messages."""
    return _thread_call(urls, "messages", "GET", thread_id, "/messages")


def rename_request(urls: Urls, thread_id: str, name: str) -> Request:
    """Rename a thread; ``""`` asks the service for a name (public captures, 2026)."""
    return _thread_call(urls, "rename", "PATCH", thread_id, "/name", {"name": name, "generate": not name})


def delete_request(urls: Urls, thread_id: str) -> Request:
    """Delete a thread."""
    return _thread_call(urls, "delete", "DELETE", thread_id, "")


def segment(identifier: str) -> str:
    """Percent-quote an id so that it is exactly one segment of a path.

    Raises:
        ValueError: The id can't be one.
    """
    return quote(check_id(identifier), safe="")


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
        payload = json_bytes("the request", body)
    return Request(stage, method, urls.api + path, template or path, headers, payload, subject)


def _page_headers(urls: Urls) -> Dict[str, str]:
    return {
        **browser_headers(),
        "Origin": origin_of(urls.github),
        "Referer": urls.github + PAGE,
    }


def browser_headers() -> Dict[str, str]:
    """Return what every request carries, wherever it goes."""
    return {
        "Accept-Encoding": "gzip",
        "Accept-Language": _LANGUAGE,
        "User-Agent": f"copilot-sync/{__version__}",
    }
