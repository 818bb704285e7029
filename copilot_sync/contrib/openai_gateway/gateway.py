"""``Gateway``: the WSGI application.

Threads: any number of threads call it. What they share is locked, or made once.
"""

import contextlib
import dataclasses
import functools
import logging
import threading
import time
import uuid
from http import HTTPStatus
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from copilot_sync.client import Client
from copilot_sync.contrib.lazy_client import LazyClient
from copilot_sync.contrib.openai_gateway.answer_events import AnswerEvents
from copilot_sync.contrib.openai_gateway.answering import Answering, ClientLeftError, HasLeft, take_turn
from copilot_sync.contrib.openai_gateway.batches import Batches, no_folder
from copilot_sync.contrib.openai_gateway.guard import Guard, checked_key, key_of_user
from copilot_sync.contrib.openai_gateway.presence import watcher_of
from copilot_sync.contrib.openai_gateway.request_body import read_json
from copilot_sync.contrib.openai_gateway.response_request import ResponseRequest
from copilot_sync.contrib.openai_gateway.responses import Responses
from copilot_sync.contrib.openai_gateway.thread_memory import ThreadMemory
from copilot_sync.contrib.openai_gateway.wsgi_response import (
    JSON,
    WsgiResponse,
    check_method,
    json_response,
    unknown_url,
)
from copilot_sync.errors import CopilotError
from copilot_sync.model_list import chat_models
from copilot_sync.models import Answer, Model
from copilot_sync.openai_api.chat_objects import ChatCompletion, model_list, model_object
from copilot_sync.openai_api.chat_request import ChatRequest, ignored_header
from copilot_sync.openai_api.failures import ApiError, Headers, from_copilot, internal
from copilot_sync.pacing.background import BackgroundLimiter
from copilot_sync.pacing.limiter import BY_HOST, RateLimiter, pace_for
from copilot_sync.secret import Secret
from copilot_sync.settings import RetryPolicy
from copilot_sync.structured import Expectation, Schema
from copilot_sync.text_files import PathLike
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

#: Seconds that a question waits for its turn.
PATIENCE = 5.0
#: Seconds for which the list of models is kept.
_MODELS_KEPT = 300.0

#: The fields of a response that streams. The last two keep proxies and compressing middleware from buffering it.
_STREAMED = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "X-Accel-Buffering": "no",
    "Content-Encoding": "identity",
}


class Gateway:
    """A WSGI application that answers as OpenAI's API does, with the answers of a ``Client``.

    It serves ``POST /v1/chat/completions``, ``GET /v1/models``, ``GET /v1/models/{id}``, ``/v1/responses`` with its
    ``{id}``, ``{id}/cancel`` and ``{id}/input_items``, and ``/v1/files`` and ``/v1/batches``. Each request has to carry
    the key, ``Authorization: Bearer KEY``. Pages of browsers are refused. Safe for any number of threads and for
    servers that fork, but each process knows its own responses only.

    >>> application = Gateway(Client())  # doctest: +SKIP

    Args:
        client: Asks. Default: one that is configured by the environment, made with the first request.
        key: What requests have to carry. Default: ``COPILOT_SYNC_GATEWAY_KEY``, else the one in the file
            ``gateway-key`` of the user's state folder, which is made with the first request and readable by its owner
            alone.
        hosts: Names under which the gateway may be asked, besides addresses and the names of this machine: each
            without a port.
        concurrency: How many questions may be under way at once in this process. Default: 2, and 8 if the API is on
            this machine.
        rate: How many may begin in a minute; ``None`` for any number. Default: 20, and any if the API is on this
            machine.
        patience: Seconds that a question waits for its turn, before it is answered with 429. Default 5.
        threads: Whether a transcript that begins as an earlier one did goes on in its conversation. Then only what the
            user said last is sent. Default ``False``: each request begins a conversation with the whole transcript.
        batches: A folder for batches and their files. One process at a time runs the batches of a folder, in a thread
            that begins with the first request, or with ``begin_batches``. Default: there are no batches.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``key`` can't be sent in a header, or a number is out of its range.
    """

    def __init__(
        self,
        client: Optional[Client] = None,
        *,
        key: Union[None, str, "Secret[str]"] = None,
        hosts: Iterable[str] = (),
        concurrency: Optional[int] = None,
        rate: Optional[float] = BY_HOST,
        patience: float = PATIENCE,
        threads: bool = False,
        batches: Union[None, str, PathLike] = None,
    ) -> None:
        if client is not None and not isinstance(client, Client):
            raise TypeError(f"client must be a Client, not {type(client).__name__}")

        def make() -> Client:
            return Client() if client is None else client

        self._client = LazyClient(make)
        self._has_own_client = client is None
        self._key = None if key is None else checked_key(key)
        self._hosts = _checked_hosts(hosts)
        self._pace = concurrency, rate
        _limiter_for(None, concurrency, rate)  # checks them
        self._patience = _checked_patience(patience)
        self._memory = ThreadMemory() if threads else None
        self._responses = Responses()
        self._guard: Optional[Guard] = None
        self._limiter: Optional[RateLimiter] = None
        self._background: Optional[BackgroundLimiter] = None
        self._batches = None if batches is None else Batches(batches, self._asking_batches)
        self._retries: Tuple[Optional[RetryPolicy], Optional[RetryPolicy]] = None, None  # the client's, and those here
        self._models: Optional[Tuple[float, List[Model]]] = None
        self._models_failure: Optional[ApiError] = None  # the last one
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Begin with new locks."""
        self._lock = threading.RLock()
        self._models_lock = threading.RLock()  # held while they are fetched

    def __call__(self, environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        request_id = f"req_{uuid.uuid4().hex}"
        response = self._response(environ)
        headers: Headers = [*response.headers.items(), ("Cache-Control", "no-store"), ("x-request-id", request_id)]
        if response.status >= 400:
            logger.info("%s: %s %s", request_id, response.status, HTTPStatus(response.status).phrase)
        try:
            start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
        except BaseException:
            getattr(response.body, "close", bool)()
            raise
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else response.body

    def _response(self, environ: Mapping[str, Any]) -> WsgiResponse:
        try:
            self._known_guard().check(environ)
            with contextlib.suppress(OSError):  # requests for batches are told
                self.begin_batches()
            return self._routed(environ)
        except ApiError as error:
            found = error
        except CopilotError as error:
            found = from_copilot(error)
        except ClientLeftError:
            return WsgiResponse(HTTPStatus.REQUEST_TIMEOUT, {}, [])  # nobody reads it
        except Exception:
            logger.exception("the gateway failed")
            found = internal()
        return json_response(found.to_dict(), dict(found.headers), found.status)

    def _known_guard(self) -> Guard:
        with self._lock:
            if self._guard is None:
                self._guard = Guard(key_of_user() if self._key is None else self._key, self._hosts)
            return self._guard

    def _routed(self, environ: Mapping[str, Any]) -> WsgiResponse:
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace").rstrip("/")
        method = environ.get("REQUEST_METHOD", "GET")
        if path == "/v1/chat/completions":
            check_method(method, "POST")
            return self._chat(environ)
        if path == "/v1/models" or path.startswith("/v1/models/"):
            check_method(method, "GET", "HEAD")
            name = path[len("/v1/models/") :]
            return self._model(name) if name or method == "GET" else WsgiResponse(200, JSON, [])
        if path == "/v1/responses":
            check_method(method, "POST")
            return self._new_response(environ)
        if path.startswith("/v1/responses/"):
            return json_response(self._known_response(path[len("/v1/responses/") :], method, environ))
        if path.split("/")[1:3] in (["v1", "files"], ["v1", "batches"]):
            if self._batches is None:
                raise no_folder()
            self.begin_batches()
            return self._batches.respond(path[len("/v1/") :], method, environ)
        raise unknown_url(path)

    def _model(self, name: str) -> WsgiResponse:
        models = self._known_models()
        if not name:
            return json_response(model_list(models))
        for model in models:
            if model.id == name:
                return json_response(model_object(model))
        raise ApiError(404, "there is no model of this name", code="model_not_found", param="model")

    def _known_models(self) -> List[Model]:
        known = self._models_failure
        with self._models_lock:
            if self._models is None or time.monotonic() - self._models[0] > _MODELS_KEPT:
                failure = self._models_failure
                if failure is not None and failure is not known:
                    raise failure.again()  # else each that has waited tries for as long, one by one
                self._models = time.monotonic(), self._fetched_models()
            return self._models[1]

    def _fetched_models(self) -> List[Model]:
        client = self._client.get()
        try:
            return chat_models(client._models_with(self._impatient(client.retry)))
        except CopilotError as error:
            self._models_failure = from_copilot(error)
            raise

    def _chat(self, environ: Mapping[str, Any]) -> WsgiResponse:
        request = ChatRequest.from_json(read_json(environ))
        headers = ignored_header(request.ignored)
        has_left = watcher_of(environ)
        memory = self._memory
        try:
            conversation = None if memory is None else memory.take(request.model, request.messages)
        except (TypeError, ValueError) as error:
            raise _wrong_prompt(error, "messages") from None

        def keep(answer: Answer) -> None:
            if memory is not None and not answer.cached:  # else there is no conversation to go on with
                memory.keep(request.model, request.messages, answer.text, answer.conversation)

        completion = ChatCompletion(request.model or self._client.get()._model, request.includes_usage, keep)
        ask = functools.partial(self._answering, has_left, "messages", request.is_streamed, request.messages)
        try:
            answering = ask(request.schema, model=request.model, conversation=conversation, user=request.user)
        except BaseException:
            if memory is not None and conversation is not None:
                memory.put_back(request.model, request.messages, conversation)
            raise
        if request.is_streamed:
            events = AnswerEvents(answering, completion)
            events.begin()
            return WsgiResponse(200, {**_STREAMED, **headers}, events)
        return json_response(completion.whole(answering.whole()), headers)

    def _new_response(self, environ: Mapping[str, Any]) -> WsgiResponse:
        request = ResponseRequest.from_json(read_json(environ))
        headers = ignored_header(request.ignored)
        ask = functools.partial(
            self._answering, watcher_of(environ), "input", request.is_streamed, answer_cache=False
        )  # a response may be gone on with, and one from the cache has no conversation
        found = self._responses.create(request, self._client.get()._model, ask)
        if isinstance(found, AnswerEvents):
            return WsgiResponse(200, {**_STREAMED, **headers}, found)
        return json_response(found, headers)

    def _known_response(self, path: str, method: str, environ: Mapping[str, Any]) -> Dict[str, Any]:
        name, _, rest = path.partition("/")
        query = str(environ.get("QUERY_STRING", ""))
        if not rest:
            check_method(method, "GET", "DELETE")
            return self._responses.delete(name) if method == "DELETE" else self._responses.retrieve(name, query)
        if rest == "cancel":
            check_method(method, "POST")
            return self._responses.cancel(name)
        if rest == "input_items":
            check_method(method, "GET")
            return self._responses.input_items(name, query)
        raise unknown_url("/v1/responses")

    def _answering(
        self, has_left: HasLeft, param: str, is_streamed: bool, prompt: Any, schema: Optional[Schema], **options: Any
    ) -> Answering:
        """Begin a question: ``param`` is the parameter that is wrong if the prompt is."""
        client, limiter = self._client.get(), self._known_limiter()
        options.update(retry=self._impatient(client.retry), expected=None if schema is None else Expectation(schema))
        try:
            stream = client.stream(prompt, buffered=not is_streamed, **options)
        except (TypeError, ValueError) as error:
            raise _wrong_prompt(error, param) from None
        with self._known_background().ahead():
            take_turn(limiter, self._patience, has_left)
        return Answering(stream, limiter, has_left, is_data=schema is not None)

    def _impatient(self, retry: Optional[RetryPolicy]) -> Optional[RetryPolicy]:
        """The client's retries, but for the waits that the service asks for: who asks here is told of them at once."""
        if retry is not self._retries[0]:
            self._retries = retry, retry and dataclasses.replace(retry, wait_for_limits=False)
        return self._retries[1]

    def _known_limiter(self) -> RateLimiter:
        with self._lock:
            if self._limiter is None:
                self._limiter = _limiter_for(self._client.get().api_url, *self._pace)
            return self._limiter

    def _known_background(self) -> BackgroundLimiter:
        with self._lock:
            if self._background is None:
                self._background = BackgroundLimiter(self._known_limiter())
            return self._background

    def _asking_batches(self) -> Tuple[Client, BackgroundLimiter]:
        return self._client.get(), self._known_background()

    def begin_batches(self) -> None:
        """Go on with batches that are unfinished, as the first request does. May be called any number of times.

        Raises:
            OSError: The folder can't be made.
        """
        if self._batches is not None:
            self._batches.begin()

    def close(self) -> None:
        """End what is under way of batches, and close the client if the gateway has made it. It can be used again.

        A batch goes on when the gateway is used again, in this process or another.
        """
        if self._batches is not None:
            self._batches.close()
        if self._has_own_client:
            self._client.close()


def _checked_hosts(hosts: object) -> Tuple[str, ...]:
    if isinstance(hosts, str) or not isinstance(hosts, Iterable):
        raise TypeError(f"hosts must be a list of names, not {type(hosts).__name__}")
    names = tuple(hosts)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"hosts must be a list of strings, not of {type(name).__name__}")
        if ":" in name or "/" in name:
            raise ValueError("hosts must be names, without a port")
    return names


def _checked_patience(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"patience must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"patience must be a number of seconds, zero at least, not {value}")
    return float(value)


def _limiter_for(api_url: Optional[str], concurrency: Optional[int], rate: Optional[float]) -> RateLimiter:
    at_once, a_minute = pace_for(api_url, concurrency, rate)
    return RateLimiter(at_once, rate=a_minute)


def _wrong_prompt(error: Exception, param: str) -> ApiError:
    return ApiError(400, str(error), code="invalid_value", param=param)
