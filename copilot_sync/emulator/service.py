"""The emulated Copilot itself: what it does for a request, and when it refuses.

A second reading of the protocol, made independently of the client's, so that a mistake in one shows against
the other. ``EmulatedService.handle`` takes a whole request and returns an ordinary ``HttpResponse``, or the
``StoredAnswer`` to stream. It has no sockets and never waits.

Rules: what the real service is known to check is checked here, and answered the way it answers (public
captures of April and September 2026); what isn't known is decided in one place, which says so.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any, Callable, Dict, List, Mapping, NoReturn, Optional, Sequence, Union

from copilot_sync.emulator.http1 import HttpResponse, json_response
from copilot_sync.emulator.refusals import (
    RefusalError,
    api_error,
    check_message,
    github_error,
    read_json_object,
    unauthorized,
)
from copilot_sync.emulator.rendering import AnswerContext
from copilot_sync.emulator.routes import match_route
from copilot_sync.emulator.state import OVERHEAD, EmulatorOptions, RecordedRequest, StoredAnswer, StoredThread

#: Tokens that are valid at the same time; the oldest of more are forgotten.
_MAX_TOKENS = 100_000
_LOGIN_PAGE = b"<!DOCTYPE html><html><title>Sign in to GitHub</title><h1>Sign in to GitHub</h1></html>"
_VERSION_HEADERS = {"copilot-integration-id": "copilot-chat", "X-GitHub-Api-Version": "2025-05-01"}

ServiceResult = Union[HttpResponse, StoredAnswer]


class EmulatedService:
    """The state of one emulated Copilot; safe to use from any thread.

    Args:
        options: how it behaves.
        cookies: the cookies that are valid.
        api_key: a bearer that is always valid.
        lock: held while state changes.
        notify: called when an answer is finished.
    """

    def __init__(
        self,
        options: EmulatorOptions,
        cookies: Dict[str, str],
        api_key: str,
        lock: threading.RLock,
        notify: Callable[[], None],
    ) -> None:
        self.options = options
        self.cookies = cookies
        self.api_key = api_key
        self.threads: Dict[str, StoredThread] = {}
        self.tokens_issued = 0
        self._tokens: Dict[str, float] = {}
        self._stored_bytes = 0
        self._lock = lock
        self._notify = notify
        self._handlers: Dict[str, Callable[[RecordedRequest], ServiceResult]] = {
            "token": self._issue_token,
            "login": self._show_login,
            "thread": self._create_thread,
            "threads": self._list_threads,
            "message": self._post_message,
            "messages": self._list_messages,
            "rename": self._rename_thread,
            "delete": self._delete_thread,
            "models": self._list_models,
        }

    def handle(self, request: RecordedRequest) -> ServiceResult:
        """Do what a request asks for, or refuse it as the real service would."""
        try:
            if request.stage == "unknown":
                self._refuse_unknown(request)
            if request.host == "api":
                self._check_bearer(request)
            with self._lock:
                return self._handlers[request.stage](request)
        except RefusalError as refusal:
            return refusal.response

    def expire_tokens(self) -> None:
        """Make all tokens issued so far invalid."""
        with self._lock:
            self._tokens.clear()

    def revoke(self, token: Optional[str]) -> None:
        """Make one token invalid; ``api_key`` and the keys of the options stay valid."""
        with self._lock:
            self._tokens.pop(token or "", None)

    def _refuse_unknown(self, request: RecordedRequest) -> NoReturn:
        methods = match_route(request.host, request.method, request.path).methods
        if not methods:
            raise github_error(404, "Not Found")
        fields = [("Allow", ", ".join(methods))]
        raise RefusalError(json_response(405, {"message": "Method Not Allowed"}, fields))

    def _issue_token(self, request: RecordedRequest) -> HttpResponse:
        sent = request.cookies
        if not self.cookies or any(sent.get(name) != self.cookies[name] for name in self.cookies):
            raise RefusalError(self._login_response())
        if request.headers.get("github-verified-fetch") != "true":
            raise github_error(422, "GitHub-Verified-Fetch: true is missing")
        if request.headers.get("x-requested-with") != "XMLHttpRequest":
            raise github_error(422, "X-Requested-With: XMLHttpRequest is missing")
        token = f"emulated-{uuid.uuid4().hex}"
        lifetime = self.options.token_lifetime
        self._forget_tokens()
        self._tokens[token] = time.monotonic() + lifetime
        self.tokens_issued += 1
        reply = {"token": token, "expiration": _timestamp(lifetime, self.options.expiration)}
        return json_response(200, {name: value for name, value in reply.items() if value})

    def _forget_tokens(self) -> None:
        if len(self._tokens) < _MAX_TOKENS:
            return
        now = time.monotonic()
        valid = [(token, end) for token, end in self._tokens.items() if end > now]
        self._tokens = dict(valid[-_MAX_TOKENS // 2 :])

    def _login_response(self) -> HttpResponse:
        behavior = self.options.bad_cookies
        if behavior == "html":
            return HttpResponse(200, _LOGIN_PAGE, (("Content-Type", "text/html; charset=utf-8"),))
        if behavior == "unauthorized":
            return github_error(401, "Requires authentication").response
        location = "/login?return_to=%2Fgithub-copilot%2Fchat%2Ftoken"
        return HttpResponse(302, b"", (("Location", location), ("Content-Type", "text/html")))

    def _show_login(self, request: RecordedRequest) -> HttpResponse:
        return HttpResponse(200, _LOGIN_PAGE, (("Content-Type", "text/html; charset=utf-8"),))

    def _check_bearer(self, request: RecordedRequest) -> None:
        token = request.bearer
        if token is None:
            raise RefusalError(unauthorized("Authorization: GitHub-Bearer <token> is missing"))
        if not self._is_valid(token):
            raise RefusalError(unauthorized("the token is invalid or has expired"))
        if self.options.wrong_plan:
            body = b"Misdirected Request: this seat belongs to another plan's host\n"
            raise RefusalError(HttpResponse(421, body, (("Content-Type", "text/plain; charset=utf-8"),)))
        if self.options.require_version_header:
            for name, value in _VERSION_HEADERS.items():
                if request.headers.get(name) != value:
                    raise api_error(400, f"{name}: {value} is missing")

    def _is_valid(self, token: str) -> bool:
        if token == self.api_key or token in self.options.accept_api_keys:
            return True
        return self._tokens.get(token, 0.0) > time.monotonic()

    def _create_thread(self, request: RecordedRequest) -> HttpResponse:
        if request.body:
            read_json_object(request)
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

    def _list_threads(self, request: RecordedRequest) -> HttpResponse:
        threads = sorted(self.threads.values(), key=lambda each: each.updated_at, reverse=True)
        return json_response(200, {"threads": [thread.to_dict() for thread in threads]})

    def _list_messages(self, request: RecordedRequest) -> HttpResponse:
        thread = self._find_thread(request)
        messages = list(thread.messages)
        if self.options.list_partial:
            for answer in thread.unfinished:
                _insert_answer(messages, answer.to_dict())
        return json_response(200, {"thread": thread.to_dict(), "messages": messages})

    def _rename_thread(self, request: RecordedRequest) -> HttpResponse:
        thread = self._find_thread(request)
        body = read_json_object(request)
        if body.get("generate") is True:
            thread.name = _name_from(thread.messages)
        elif isinstance(body.get("name"), str) and body["name"].strip():
            thread.name = body["name"]
        else:
            raise api_error(422, "name is missing or empty")
        thread.manually_named = body.get("generate") is not True
        thread.updated_at = _timestamp()
        return json_response(200, {"name": thread.name})

    def _delete_thread(self, request: RecordedRequest) -> HttpResponse:
        self._forget_thread(self._find_thread(request).id)
        return HttpResponse(204)

    def _forget_thread(self, thread_id: str) -> None:
        self._stored_bytes -= self.threads.pop(thread_id).size

    def _add_size(self, thread: StoredThread, size: int) -> None:
        """Add to a thread's size, and forget the oldest other threads if all together are too large."""
        thread.size += size
        if self.threads.get(thread.id) is not thread:
            return  # it was forgotten while its answer was written
        self._stored_bytes += size
        if self._stored_bytes <= self.options.max_thread_bytes:
            return
        self._stored_bytes = sum(each.size for each in self.threads.values())  # a caller may have removed some
        for oldest in [each for each in self.threads if each != thread.id]:
            if self._stored_bytes <= self.options.max_thread_bytes:
                break
            self._forget_thread(oldest)

    def _list_models(self, request: RecordedRequest) -> HttpResponse:
        return json_response(200, {"data": [_model(model) for model in self.options.models]})

    def _post_message(self, request: RecordedRequest) -> StoredAnswer:
        thread = self._find_thread(request)
        body = read_json_object(request)
        check_message(body)
        self._check_model(body["model"])
        parent = body.get("parentMessageID") or "root"
        if parent != "root" and not _has_message(thread, parent):
            raise api_error(400, f"parentMessageID: no message {parent} in this thread")
        if thread.size + len(request.body) > self.options.max_thread_bytes:
            raise api_error(422, "this conversation is too long")
        question = _message(thread, "user", body, parent)
        self._add_size(thread, OVERHEAD + len(request.body))
        thread.messages.append(question)
        thread.name = thread.name or _name_from(thread.messages)
        thread.updated_at = question["createdAt"]
        return self._start_answer(thread, body, question)

    def _start_answer(self, thread: StoredThread, body: Mapping[str, Any], question: Mapping[str, Any]) -> StoredAnswer:
        message = _message(thread, "assistant", body, question["id"])
        response_id = body.get("responseMessageID")
        in_use = response_id in [answer.context.message_id for answer in thread.unfinished]
        if response_id and not in_use and not _has_message(thread, response_id):
            message["id"] = response_id
        context = AnswerContext(
            prompt=body["content"],
            model=body["model"],
            intent=body["intent"],
            streaming=body["streaming"],
            message_id=message["id"],
            parent_id=question["id"],
            created_at=message["createdAt"],
            default_model=next(iter(self._model_ids()), ""),
        )
        answer = StoredAnswer(context, message, lambda finished: self._finish_answer(thread, finished))
        thread.unfinished.append(answer)
        return answer

    def _finish_answer(self, thread: StoredThread, answer: StoredAnswer) -> None:
        with self._lock:
            thread.unfinished.remove(answer)
            _insert_answer(thread.messages, answer.to_dict())
            self._add_size(thread, OVERHEAD + len(answer.text))
            thread.updated_at = _timestamp()
        self._notify()

    def _find_thread(self, request: RecordedRequest) -> StoredThread:
        thread = self.threads.get(request.thread_id or "")
        if thread is None:
            raise api_error(404, f"no thread {request.thread_id}")
        return thread

    def _model_ids(self) -> List[str]:
        return [_model(model)["id"] for model in self.options.models]

    def _check_model(self, model: str) -> None:
        if model != "auto" and model not in self._model_ids():
            raise api_error(400, f"model: {model!r} is not available")


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
    """Insert an answer behind the message that it answers, even if others came in between."""
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
    """Return the time ``offset`` seconds from now as the protocol writes it."""
    if precision == "missing":
        return ""
    now = time.time_ns() + int(offset * 1e9)
    seconds, nanoseconds = divmod(now, 1_000_000_000)
    digits = f"{nanoseconds:09d}"[: 3 if precision == "milliseconds" else 9]
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{digits}Z"
