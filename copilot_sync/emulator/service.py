"""The emulated Copilot itself: what it does for a request, and when it refuses.

A second reading of the protocol, made independently of the client's, so that a mistake in one shows against
the other. ``EmulatedService.handle`` takes a whole request and returns an ordinary ``HttpResponse``, or the
``StoredAnswer`` to stream. It has no sockets and never waits.

Rules: what the real service is known to check is checked here, and answered the way it answers (public
captures of April and September 2026); what isn't known is decided in one place, which says so.

Threads: locked, with the lock of the emulator.
"""

from __future__ import annotations

import threading
import uuid
from typing import Any, Callable, Dict, List, Mapping, NoReturn, Optional, Union

from copilot_sync.emulator.account_pages import API_VERSION, AccountPages, home_of
from copilot_sync.emulator.http1 import HttpResponse, json_response
from copilot_sync.emulator.listed_models import AUTO, can_chat, list_models
from copilot_sync.emulator.messages import (
    ROOT,
    has_message,
    insert_answer,
    name_from,
    new_answer,
    new_question,
    newest_id,
)
from copilot_sync.emulator.refusals import (
    RefusalError,
    api_error,
    check_message,
    github_error,
    model_not_supported,
    read_json_object,
    unauthorized,
)
from copilot_sync.emulator.rendering import AnswerContext, routed_model
from copilot_sync.emulator.routes import match_route
from copilot_sync.emulator.state import OVERHEAD, EmulatorOptions, RecordedRequest, StoredAnswer, StoredThread
from copilot_sync.emulator.timestamps import timestamp

_VERSION_HEADERS = {"copilot-integration-id": "copilot-chat", "X-GitHub-Api-Version": API_VERSION}

ServiceResult = Union[HttpResponse, StoredAnswer]


class EmulatedService:
    """The state of one emulated Copilot; safe to use from any thread.

    Args:
        options: how it behaves.
        account: what github.com has for the account.
        lock: held while state changes.
        notify: called when an answer is finished.
    """

    def __init__(
        self,
        options: EmulatorOptions,
        account: AccountPages,
        lock: threading.RLock,
        notify: Callable[[], None],
    ) -> None:
        self.options = options
        self.account = account
        self.threads: Dict[str, StoredThread] = {}
        self._stored_bytes = 0
        self._lock = lock
        self._notify = notify
        self._handlers: Dict[str, Callable[[RecordedRequest], ServiceResult]] = {
            "token": account.issue_token,
            "login": account.show_login,
            "page": account.show_chat,
            "quota": account.show_quota,
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
            with self._lock:
                if request.host != "github":
                    self._check_bearer(request)
                return self._handlers[request.stage](request)
        except RefusalError as refusal:
            return refusal.response

    def expire_tokens(self) -> None:
        """Make all tokens issued so far invalid."""
        with self._lock:
            self.account.expire_tokens()

    def revoke(self, token: Optional[str]) -> None:
        """Make one token invalid; ``api_key`` and the keys of the options stay valid."""
        with self._lock:
            self.account.revoke(token)

    def expire_messages(self, thread_id: str, keep: int) -> None:
        """Forget the oldest messages of a thread, all but ``keep``."""
        with self._lock:
            thread = self.threads[thread_id]
            del thread.messages[: max(0, len(thread.messages) - keep)]
            size = sum(OVERHEAD + len(message["content"]) for message in thread.messages)
            self._add_size(thread, size - thread.size)

    def _refuse_unknown(self, request: RecordedRequest) -> NoReturn:
        methods = match_route(request.host, request.method, request.path).methods
        if not methods:
            raise github_error(404, "Not Found")
        fields = [("Allow", ", ".join(methods))]
        raise RefusalError(json_response(405, {"message": "Method Not Allowed"}, fields))

    def _check_bearer(self, request: RecordedRequest) -> None:
        token = request.bearer
        if token is None:
            raise RefusalError(unauthorized("Authorization: GitHub-Bearer <token> is missing"))
        if not self.account.is_valid(token):
            raise RefusalError(unauthorized("the token is invalid or has expired"))
        if request.host != home_of(self.options.plan):
            body = b"Misdirected Request: this seat belongs to another plan's host\n"
            raise RefusalError(HttpResponse(421, body, (("Content-Type", "text/plain; charset=utf-8"),)))
        if self.options.require_version_header:
            for name, value in _VERSION_HEADERS.items():
                if request.headers.get(name) != value:
                    raise api_error(400, f"{name}: {value} is missing")

    def _create_thread(self, request: RecordedRequest) -> HttpResponse:
        if request.body:
            read_json_object(request)
        now = timestamp()
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
        return json_response(200, {"threads": self._wire_list([thread.to_dict() for thread in threads])})

    def _list_messages(self, request: RecordedRequest) -> HttpResponse:
        thread = self._find_thread(request)
        messages = list(thread.messages)
        if self.options.list_partial:
            for answer in thread.unfinished:
                insert_answer(messages, answer.to_dict())
        return json_response(200, {"thread": thread.to_dict(), "messages": self._wire_list(messages)})

    def _rename_thread(self, request: RecordedRequest) -> HttpResponse:
        thread = self._find_thread(request)
        body = read_json_object(request)
        if body.get("generate") is True:
            thread.name = name_from(thread.messages) or thread.name
        elif isinstance(body.get("name"), str) and body["name"].strip():
            thread.name = body["name"]
        else:
            raise api_error(422, "name is missing or empty")
        thread.manually_named = body.get("generate") is not True
        thread.updated_at = timestamp()
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
        models = list_models(self.options.models, self.options.plan)
        return json_response(200, {"data": self._wire_list(models)})

    def _wire_list(self, values: List[Dict[str, Any]]) -> Optional[List[Dict[str, Any]]]:
        return None if self.options.null_lists and not values else values

    def _post_message(self, request: RecordedRequest) -> StoredAnswer:
        thread = self._find_thread(request)
        body = read_json_object(request)
        check_message(body)
        if not can_chat(body["model"], self.options.models, self.options.unlisted_models, self.options.plan):
            raise model_not_supported(body["model"])
        parent = self._find_parent(thread, body.get("parentMessageID"))
        if thread.size + len(request.body) > self.options.max_thread_bytes:
            raise api_error(422, "this conversation is too long")
        question = new_question(thread.id, body, parent)
        self._add_size(thread, OVERHEAD + len(request.body))
        thread.messages.append(question)
        thread.updated_at = question["createdAt"]
        return self._start_answer(thread, body, question)

    def _find_parent(self, thread: StoredThread, parent: Optional[str]) -> str:
        if not parent:
            return newest_id(thread.messages) if self.options.absent_parent == "newest" else ROOT
        if parent != ROOT and not has_message(thread.messages, parent):
            raise api_error(self.options.gone_parent, f"parentMessageID: no message {parent} in this thread")
        return parent

    def _start_answer(self, thread: StoredThread, body: Mapping[str, Any], question: Mapping[str, Any]) -> StoredAnswer:
        message = new_answer(thread.id, body, question["id"])
        response_id = body.get("responseMessageID")
        in_use = response_id in [answer.context.message_id for answer in thread.unfinished]
        if response_id and not in_use and not has_message(thread.messages, response_id):
            message["id"] = response_id
        context = AnswerContext(
            prompt=body["content"],
            model=body["model"],
            intent=body["intent"],
            streaming=body["streaming"],
            message_id=message["id"],
            parent_id=question["id"],
            created_at=message["createdAt"],
            auto_model=self.options.auto_model,
        )
        answer = StoredAnswer(context, message, lambda finished: self._finish_answer(thread, finished))
        thread.unfinished.append(answer)
        return answer

    def _finish_answer(self, thread: StoredThread, answer: StoredAnswer) -> None:
        with self._lock:
            thread.unfinished.remove(answer)
            insert_answer(thread.messages, answer.to_dict())
            if answer.context.model == AUTO:
                thread.auto_picked_model = routed_model(answer.reply, answer.context)
            self._add_size(thread, OVERHEAD + len(answer.text))
            thread.updated_at = timestamp()
        self._notify()

    def _find_thread(self, request: RecordedRequest) -> StoredThread:
        thread = self.threads.get(request.thread_id or "")
        if thread is None:
            raise api_error(404, f"no thread {request.thread_id}")
        return thread
