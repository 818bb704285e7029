"""The emulated Copilot itself: what it knows, what it checks, and how it refuses.

A second reading of the protocol, made independently of the client's, so that a mistake in one shows
against the other. `Service.handle` takes a whole request and returns an ordinary `Response`, or the
`Answer` that is to be streamed. It has no sockets and never waits.

Rules: what the real service is known to check is checked here, and answered the way it answers
(public captures of April and September 2026); what isn't known is decided in one place and said so.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Literal,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Union,
)
from urllib.parse import unquote

from .http1 import MAX_BODY, HttpRequest, Response, json_response
from .replies import Event, Reply, Turn, render, unauthorized

Host = Literal["github", "api"]
DEFAULT_MODELS = ("gpt-4o", "o1-mini", "o1-preview", "claude-3.5-sonnet")


class _Endpoint(NamedTuple):
    stage: str
    host: Host
    method: str
    template: Tuple[str, ...]


_THREADS = ("github", "chat", "threads")
_ID = "{id}"
_ENDPOINTS = (
    _Endpoint("token", "github", "POST", ("github-copilot", "chat", "token")),
    _Endpoint("login", "github", "GET", ("login",)),
    _Endpoint("thread", "api", "POST", _THREADS),
    _Endpoint("threads", "api", "GET", _THREADS),
    _Endpoint("message", "api", "POST", (*_THREADS, _ID, "messages")),
    _Endpoint("messages", "api", "GET", (*_THREADS, _ID, "messages")),
    _Endpoint("rename", "api", "PATCH", (*_THREADS, _ID, "name")),
    _Endpoint("delete", "api", "DELETE", (*_THREADS, _ID)),
    _Endpoint("models", "api", "GET", ("models",)),
    _Endpoint("models", "api", "GET", ("github", "chat", "models")),
)
STAGES = (*dict.fromkeys(endpoint.stage for endpoint in _ENDPOINTS), "unknown")
"""The names of what can be asked for; `"unknown"` is everything that the protocol doesn't have."""

_REQUIRED = {
    "content": str,
    "intent": str,
    "references": list,
    "context": list,
    "currentURL": str,
    "streaming": bool,
    "confirmations": list,
    "customInstructions": list,
    "model": str,
    "mode": str,
}
_OPTIONAL = {
    "responseMessageID": str,
    "parentMessageID": str,
    "mediaContent": list,
    "skillOptions": dict,
    "requestTrace": bool,
}
#: Bytes that a request or a message takes besides its text.
_OVERHEAD = 1024
#: Tokens that are valid at the same time; the oldest of more are forgotten.
_MOST_TOKENS = 100_000
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_SIGN_IN = b"<!DOCTYPE html><html><title>Sign in to GitHub</title><h1>Sign in to GitHub</h1></html>"
_VERSION_HEADERS = {"copilot-integration-id": "copilot-chat", "X-GitHub-Api-Version": "2025-05-01"}


@dataclass
class Options:
    """How the service behaves where it can behave in more than one way; may be changed at any time.

    Attributes:
        token_lifetime: seconds that a token is valid.
        expiration: how a token's end is told: with `"milliseconds"`, with `"nanoseconds"`, or not
            at all (`"missing"`).
        bad_cookies: the answer to cookies that aren't valid: a `"redirect"` to the login page, that
            page itself (`"html"`), or 401 (`"unauthorized"`).
        thread_shape: where a new thread's id stands: `"thread_id"`, `"id"`, or `"thread"` (and its
            `id`).
        models: ids, or mappings with an `id` and whatever else is to be listed.
        accept_api_keys: bearers that are valid beside the tokens and `api_key`.
        require_version_header: whether the web client's two version headers are wanted.
        wrong_plan: whether every token belongs to another plan's host (421).
        list_partial: whether an answer is listed, as interrupted, before it is whole. What the real
            service does isn't known; by default only whole ones are.
        finish_when_disconnected: whether an answer that nobody reads any more is written to its end
            in its thread.
        max_body: bytes allowed in a request's body.
        max_records: requests that are kept for inspection; older ones are forgotten.
        max_record_bytes: bytes of those requests, headers and bodies; older ones are forgotten.
        max_threads: threads that are kept; the oldest are forgotten.
        max_thread_bytes: bytes of all messages; the oldest threads are forgotten, and a thread as large
            as that takes no more messages.
    """

    token_lifetime: float = 1800.0
    expiration: Literal["milliseconds", "nanoseconds", "missing"] = "milliseconds"
    bad_cookies: Literal["redirect", "html", "unauthorized"] = "redirect"
    thread_shape: Literal["thread_id", "thread", "id"] = "thread_id"
    models: Sequence[Union[str, Mapping[str, Any]]] = DEFAULT_MODELS
    accept_api_keys: Sequence[str] = ()
    require_version_header: bool = False
    wrong_plan: bool = False
    list_partial: bool = False
    finish_when_disconnected: bool = True
    max_body: int = MAX_BODY
    max_records: int = 100_000
    max_record_bytes: int = 128 * 1024 * 1024
    max_threads: int = 100_000
    max_thread_bytes: int = 128 * 1024 * 1024


@dataclass(frozen=True)
class RecordedRequest(HttpRequest):
    """A request as the emulator received it.

    Attributes:
        stage: what it asks for, one of `STAGES`.
        host: which of the two URLs it came to, `"github"` or `"api"`.
        thread_id: the thread that its path names, or `None`.
        connection: the number of the connection that it came over, from 1.
        time: when it was whole, by `time.monotonic()`.
        request_id: the `x-github-request-id` of its reply.
    """

    stage: str = "unknown"
    host: Host = "api"
    thread_id: Optional[str] = None
    connection: int = 0
    time: float = 0.0
    request_id: str = ""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        fields = sum(len(name) + len(value) for name, value in self.headers.items())
        return _OVERHEAD + len(self.body) + len(self.path) + fields


@dataclass
class StoredThread:
    """A thread as the service keeps it.

    Attributes:
        id: its id.
        name: given by the first message, until it is renamed.
        manually_named: whether it was renamed.
        created_at, updated_at: times as the protocol writes them.
        messages: what `GET .../messages` lists, with the wire's fields, in order.
        writing: the answers that aren't whole yet.
        size: bytes of its messages.
    """

    id: str
    created_at: str
    updated_at: str
    name: str = ""
    manually_named: bool = False
    messages: List[Dict[str, Any]] = field(default_factory=list)
    writing: List[Answer] = field(default_factory=list)
    size: int = 0

    @property
    def user_messages(self) -> List[Dict[str, Any]]:
        """The messages that were sent."""
        return [message for message in self.messages if message["role"] == "user"]

    @property
    def assistant_messages(self) -> List[Dict[str, Any]]:
        """The answers that are whole."""
        return [message for message in self.messages if message["role"] == "assistant"]

    def as_json(self) -> Dict[str, Any]:
        """Returns the thread as the wire lists it."""
        return {
            "id": self.id,
            "name": self.name,
            "manuallyNamed": self.manually_named,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "autoPickedModel": "",
            "sharedAt": None,
        }


class Route(NamedTuple):
    """What a method and a path ask for; `methods` are the ones that the path has."""

    stage: str
    thread_id: Optional[str]
    methods: Tuple[str, ...]


def find_route(host: Host, method: str, path: str) -> Route:
    """Returns what a request is for; its stage is `"unknown"` where there is no such thing."""
    parts = tuple(unquote(part) for part in path.split("/")[1:])
    fitting = [each for each in _ENDPOINTS if each.host == host and _fits(each.template, parts)]
    methods = tuple(each.method for each in fitting)
    stage = fitting[methods.index(method)].stage if method in methods else "unknown"
    thread_id = parts[3] if len(parts) > 3 and parts[:3] == _THREADS else None
    return Route(stage, thread_id, methods)


class Answer:
    """The assistant's message while it is being written.

    Drawing an event from `events` writes that event's text into the thread; the message is whole,
    and listed, before the event that says so is handed out. So a client can never know of an end
    that the thread doesn't know of.

    Attributes:
        turn: what is answered.
        reply: how, once `begin` was called.
        events: the events not drawn yet. They may be drawn by one thread after another.
        begun: whether any event was drawn.
        whole: whether the message is finished.
    """

    def __init__(self, turn: Turn, message: Dict[str, Any], finish: Callable[[Answer], None]) -> None:
        self.turn = turn
        self.reply = Reply(pieces=())
        self.events: Iterator[Event] = iter(())
        self.begun = False
        self.whole = False
        self._message = message
        self._texts: List[str] = []
        self._finish = finish

    def begin(self, reply: Reply) -> None:
        """Says what the answer is to be."""
        self.reply = reply
        self.events = self._write()

    @property
    def text(self) -> str:
        """What is written so far."""
        return "".join(self._texts)

    def as_json(self) -> Dict[str, Any]:
        """Returns the message as the wire lists it; interrupted, while it isn't whole."""
        interrupted = not self.whole or self.reply.error is not None
        return {**self._message, "content": self.text, "interrupted": interrupted}

    def _write(self) -> Iterator[Event]:
        self.begun = True
        for event in render(self.reply, self.turn):
            if event.text:
                self._texts.append(event.text)
            if event.ends:
                self._end()
            yield event
        self._end()

    def _end(self) -> None:
        if not self.whole:
            self.whole = True
            self._finish(self)


Outcome = Union[Response, Answer]


class _RefusalError(Exception):
    """A request that the service won't do, with the reply that says so."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Service:
    """The state of one emulated Copilot; safe to use from any thread.

    Args:
        options: how it behaves.
        cookies: the cookies that it takes for valid.
        api_key: a bearer that is always valid.
        lock: held while state changes.
        announce: called when an answer is whole.
    """

    def __init__(
        self,
        options: Options,
        cookies: Dict[str, str],
        api_key: str,
        lock: threading.RLock,
        announce: Callable[[], None],
    ) -> None:
        self.options = options
        self.cookies = cookies
        self.api_key = api_key
        self.threads: Dict[str, StoredThread] = {}
        self.tokens_issued = 0
        self._tokens: Dict[str, float] = {}
        self._stored = 0
        self._lock = lock
        self._announce = announce
        self._stages: Dict[str, Callable[[RecordedRequest], Outcome]] = {
            "token": self._issue_token,
            "login": self._show_login,
            "thread": self._create_thread,
            "threads": self._list_threads,
            "message": self._take_message,
            "messages": self._list_messages,
            "rename": self._rename_thread,
            "delete": self._delete_thread,
            "models": self._list_models,
        }

    def handle(self, request: RecordedRequest) -> Outcome:
        """Does what a request asks for, or refuses it as the real service would."""
        try:
            if request.stage == "unknown":
                self._refuse_unknown(request)
            if request.host == "api":
                self._check_bearer(request)
            with self._lock:
                return self._stages[request.stage](request)
        except _RefusalError as refusal:
            return refusal.response

    def expire_tokens(self) -> None:
        """Makes all tokens issued so far invalid."""
        with self._lock:
            self._tokens.clear()

    def revoke(self, token: Optional[str]) -> None:
        """Makes one token invalid; `api_key` and the like stay valid."""
        with self._lock:
            self._tokens.pop(token or "", None)

    def _refuse_unknown(self, request: RecordedRequest) -> NoReturn:
        methods = find_route(request.host, request.method, request.path).methods
        if not methods:
            raise _github_error(404, "Not Found")
        fields = [("Allow", ", ".join(methods))]
        raise _RefusalError(json_response(405, {"message": "Method Not Allowed"}, fields))

    def _issue_token(self, request: RecordedRequest) -> Response:
        sent = request.cookies
        if not self.cookies or any(sent.get(name) != self.cookies[name] for name in self.cookies):
            raise _RefusalError(self._login_wanted())
        if request.headers.get("github-verified-fetch") != "true":
            raise _github_error(422, "GitHub-Verified-Fetch: true is missing")
        if request.headers.get("x-requested-with") != "XMLHttpRequest":
            raise _github_error(422, "X-Requested-With: XMLHttpRequest is missing")
        token = f"emulated-{uuid.uuid4().hex}"
        lifetime = self.options.token_lifetime
        self._forget_tokens()
        self._tokens[token] = time.monotonic() + lifetime
        self.tokens_issued += 1
        reply = {"token": token, "expiration": _timestamp(lifetime, self.options.expiration)}
        return json_response(200, {name: value for name, value in reply.items() if value})

    def _forget_tokens(self) -> None:
        if len(self._tokens) < _MOST_TOKENS:
            return
        now = time.monotonic()
        valid = [(token, end) for token, end in self._tokens.items() if end > now]
        self._tokens = dict(valid[-_MOST_TOKENS // 2 :])

    def _login_wanted(self) -> Response:
        manner = self.options.bad_cookies
        if manner == "html":
            return Response(200, _SIGN_IN, (("Content-Type", "text/html; charset=utf-8"),))
        if manner == "unauthorized":
            return _github_error(401, "Requires authentication").response
        location = "/login?return_to=%2Fgithub-copilot%2Fchat%2Ftoken"
        return Response(302, b"", (("Location", location), ("Content-Type", "text/html")))

    def _show_login(self, request: RecordedRequest) -> Response:
        return Response(200, _SIGN_IN, (("Content-Type", "text/html; charset=utf-8"),))

    def _check_bearer(self, request: RecordedRequest) -> None:
        token = request.bearer
        if token is None:
            raise _RefusalError(unauthorized("Authorization: GitHub-Bearer <token> is missing"))
        if not self._is_valid(token):
            raise _RefusalError(unauthorized("the token is invalid or has expired"))
        if self.options.wrong_plan:
            body = b"Misdirected Request: this seat belongs to another plan's host\n"
            raise _RefusalError(Response(421, body, (("Content-Type", "text/plain; charset=utf-8"),)))
        if self.options.require_version_header:
            for name, value in _VERSION_HEADERS.items():
                if request.headers.get(name) != value:
                    raise _api_error(400, f"{name}: {value} is missing")

    def _is_valid(self, token: str) -> bool:
        if token == self.api_key or token in self.options.accept_api_keys:
            return True
        return self._tokens.get(token, 0.0) > time.monotonic()

    def _create_thread(self, request: RecordedRequest) -> Response:
        if request.body:
            _json_object(request)
        now = _timestamp()
        thread = StoredThread(str(uuid.uuid4()), now, now)
        self.threads[thread.id] = thread
        while len(self.threads) > self.options.max_threads:
            self._forget_thread(next(iter(self.threads)))
        shape = self.options.thread_shape
        reply: Dict[str, object] = {shape: thread.id}
        if shape == "thread":
            reply = {"thread": {"id": thread.id}}
        return json_response(201, reply)

    def _list_threads(self, request: RecordedRequest) -> Response:
        threads = sorted(self.threads.values(), key=lambda each: each.updated_at, reverse=True)
        return json_response(200, {"threads": [thread.as_json() for thread in threads]})

    def _list_messages(self, request: RecordedRequest) -> Response:
        thread = self._thread(request)
        messages = list(thread.messages)
        if self.options.list_partial:
            for answer in thread.writing:
                _insert_answer(messages, answer.as_json())
        return json_response(200, {"thread": thread.as_json(), "messages": messages})

    def _rename_thread(self, request: RecordedRequest) -> Response:
        thread = self._thread(request)
        body = _json_object(request)
        if body.get("generate") is True:
            thread.name = _name_from(thread.messages)
        elif isinstance(body.get("name"), str) and body["name"].strip():
            thread.name = body["name"]
        else:
            raise _api_error(422, "name is missing or empty")
        thread.manually_named = body.get("generate") is not True
        thread.updated_at = _timestamp()
        return json_response(200, {"name": thread.name})

    def _delete_thread(self, request: RecordedRequest) -> Response:
        self._forget_thread(self._thread(request).id)
        return Response(204)

    def _forget_thread(self, thread_id: str) -> None:
        self._stored -= self.threads.pop(thread_id).size

    def _grow(self, thread: StoredThread, size: int) -> None:
        """Notes that a thread has become larger, and forgets the oldest others if all are too large."""
        thread.size += size
        if self.threads.get(thread.id) is not thread:
            return  # it was forgotten while its answer was written
        self._stored += size
        if self._stored <= self.options.max_thread_bytes:
            return
        self._stored = sum(each.size for each in self.threads.values())  # anybody may have taken some out
        for oldest in [each for each in self.threads if each != thread.id]:
            if self._stored <= self.options.max_thread_bytes:
                break
            self._forget_thread(oldest)

    def _list_models(self, request: RecordedRequest) -> Response:
        return json_response(200, {"data": [_model(model) for model in self.options.models]})

    def _take_message(self, request: RecordedRequest) -> Answer:
        thread = self._thread(request)
        body = _json_object(request)
        _check_message(body)
        self._check_model(body["model"])
        parent = body.get("parentMessageID") or "root"
        if parent != "root" and not _has_message(thread, parent):
            raise _api_error(400, f"parentMessageID: no message {parent} in this thread")
        if thread.size + len(request.body) > self.options.max_thread_bytes:
            raise _api_error(422, "this conversation is too long")
        question = _message(thread, "user", body, parent)
        self._grow(thread, _OVERHEAD + len(request.body))
        thread.messages.append(question)
        thread.name = thread.name or _name_from(thread.messages)
        thread.updated_at = question["createdAt"]
        return self._begin_answer(thread, body, question)

    def _begin_answer(self, thread: StoredThread, body: Mapping[str, Any], question: Mapping[str, Any]) -> Answer:
        message = _message(thread, "assistant", body, question["id"])
        wanted = body.get("responseMessageID")
        taken = wanted in [answer.turn.message_id for answer in thread.writing]
        if wanted and not taken and not _has_message(thread, wanted):
            message["id"] = wanted
        turn = Turn(
            prompt=body["content"],
            model=body["model"],
            intent=body["intent"],
            streaming=body["streaming"],
            message_id=message["id"],
            parent_id=question["id"],
            created_at=message["createdAt"],
            default_model=next(iter(self._model_ids()), ""),
        )
        answer = Answer(turn, message, lambda whole: self._finish_answer(thread, whole))
        thread.writing.append(answer)
        return answer

    def _finish_answer(self, thread: StoredThread, answer: Answer) -> None:
        with self._lock:
            thread.writing.remove(answer)
            _insert_answer(thread.messages, answer.as_json())
            self._grow(thread, _OVERHEAD + len(answer.text))
            thread.updated_at = _timestamp()
        self._announce()

    def _thread(self, request: RecordedRequest) -> StoredThread:
        thread = self.threads.get(request.thread_id or "")
        if thread is None:
            raise _api_error(404, f"no thread {request.thread_id}")
        return thread

    def _model_ids(self) -> List[str]:
        return [_model(model)["id"] for model in self.options.models]

    def _check_model(self, model: str) -> None:
        if model != "auto" and model not in self._model_ids():
            raise _api_error(400, f"model: {model!r} is not available")


def _fits(template: Sequence[str], parts: Sequence[str]) -> bool:
    if len(template) != len(parts):
        return False
    pairs = zip(template, parts)
    return all(part != "" if want == _ID else part == want for want, part in pairs)


def _github_error(status: int, message: str) -> _RefusalError:
    url = "https://docs.github.com/rest"
    payload = {"message": message, "documentation_url": url, "status": str(status)}
    return _RefusalError(json_response(status, payload))


def _api_error(status: int, message: str) -> _RefusalError:
    codes = {400: "bad_request", 404: "not_found", 422: "unprocessable_entity"}
    error = {"message": message, "code": codes[status]}
    return _RefusalError(json_response(status, {"error": error}))


def _json_object(request: RecordedRequest) -> Dict[str, Any]:
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        raise _api_error(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise _api_error(400, "the body is not a JSON object")
    return body


def _check_message(body: Mapping[str, Any]) -> None:
    for name, kind in _REQUIRED.items():
        if name not in body:
            raise _api_error(422, f"{name} is missing")
        _check_kind(name, body[name], kind)
    for name, kind in _OPTIONAL.items():
        if body.get(name) is not None:
            _check_kind(name, body[name], kind)
    if not body["content"].strip():
        raise _api_error(422, "content is empty")
    _check_intent(body)
    if not all(isinstance(text, str) for text in body["customInstructions"]):
        raise _api_error(422, "customInstructions: not a list of strings")
    wanted = body.get("responseMessageID")
    if wanted is not None and not _UUID.match(wanted):
        raise _api_error(422, "responseMessageID is not a UUID")


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise _api_error(422, f"{name}: {kind.__name__} wanted, {type(value).__name__} given")


def _check_intent(body: Mapping[str, Any]) -> None:
    if body["intent"] not in ("conversation", "explain"):
        raise _api_error(422, f"intent: {body['intent']!r} is unknown")
    references = body["references"]
    if not all(isinstance(each, dict) and isinstance(each.get("type"), str) for each in references):
        raise _api_error(422, "references: an object with a type wanted")
    if body["intent"] == "explain" and not references:
        raise _api_error(422, "intent 'explain' wants at least one reference")


def _has_message(thread: StoredThread, message_id: str) -> bool:
    return any(message["id"] == message_id for message in thread.messages)


def _message(thread: StoredThread, role: str, body: Mapping[str, Any], parent: str) -> Dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "threadID": thread.id,
        "parentMessageID": parent,
        "role": role,
        "content": body["content"] if role == "user" else "",
        "createdAt": _timestamp(),
        "intent": body["intent"],
        "model": body["model"],
        "interrupted": False,
        "references": body["references"] if role == "user" else [],
    }


def _insert_answer(messages: List[Dict[str, Any]], answer: Dict[str, Any]) -> None:
    """Puts an answer behind the message that it answers, whatever came in between."""
    ids = [message["id"] for message in messages]
    messages.insert(ids.index(answer["parentMessageID"]) + 1, answer)


def _name_from(messages: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(messages[0]["content"].split())[:60] if messages else ""


def _model(model: Union[str, Mapping[str, Any]]) -> Dict[str, Any]:
    given = {"id": model} if isinstance(model, str) else model
    name = given["id"]
    return {
        "name": name,
        "vendor": "Anthropic" if name.startswith("claude") else "Azure OpenAI",
        "version": name,
        "preview": name.endswith("-preview"),
        "capabilities": {
            "type": "chat",
            "family": name,
            "limits": {"max_context_window_tokens": 128_000, "max_output_tokens": 4_096},
            "supports": {"streaming": True, "tool_calls": True},
        },
        "model_picker_enabled": True,
        "policy": {"state": "enabled"},
        **given,
    }


def _timestamp(offset: float = 0.0, precision: str = "nanoseconds") -> str:
    """Returns the time `offset` seconds from now as the protocol writes it."""
    if precision == "missing":
        return ""
    now = time.time_ns() + int(offset * 1e9)
    seconds, nanoseconds = divmod(now, 1_000_000_000)
    digits = f"{nanoseconds:09d}"[: 3 if precision == "milliseconds" else 9]
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{digits}Z"
