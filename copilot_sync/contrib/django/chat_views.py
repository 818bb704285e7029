"""The views of the chat page. They work under WSGI and ASGI, and need the session and Django's CSRF protection."""

import functools
from contextlib import closing
from typing import Any, Callable, Dict, Mapping, Optional, Union

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.signals import setting_changed
from django.db import close_old_connections, connections
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe
from django.views.static import serve

from copilot_sync.contrib.chat import page
from copilot_sync.contrib.chat.bodies import BodyOptions, body_of
from copilot_sync.contrib.chat.kept_answers import KeptAnswers
from copilot_sync.contrib.chat.readings import AnswerFollowing, AnswerReading
from copilot_sync.contrib.chat.service import ChatService, kept_answers_of
from copilot_sync.contrib.django.client import (
    SETTING,
    chat_background,
    chat_cache,
    chat_stop_on_leave,
    client_settings,
    get_client,
    name_threads,
)
from copilot_sync.contrib.django.responses import (
    OnComplete,
    is_asgi,
    respond,
    respond_again,
    saver_of,
    stream_of,
)
from copilot_sync.contrib.django.sessions import conversations, forget, session_of
from copilot_sync.contrib.sse import HEADERS, log_failure
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer, Conversation
from copilot_sync.stream import Stream

_View = Callable[..., HttpResponseBase]


class _DjangoVisit:
    """One request, with the conversations of its session."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def conversations(self) -> Dict[str, Conversation]:
        return conversations(self._request)

    def forget(self, name: str) -> None:
        forget(self._request, name)


@functools.lru_cache(maxsize=None)
def _kept_answers() -> KeptAnswers:
    return kept_answers_of(chat_cache())


def _forget_kept_answers(*, setting: str, **_: Any) -> None:
    if setting in (SETTING, "CACHES"):
        _kept_answers.cache_clear()


setting_changed.connect(_forget_kept_answers, dispatch_uid="copilot_sync.chat")


def _service(request: HttpRequest) -> ChatService:
    return ChatService(get_client(), _DjangoVisit(request), _kept_answers())


def _first_body(request: HttpRequest, stream: Stream, on_complete: Optional[OnComplete]) -> Any:
    assert on_complete is not None  # noqa: S101 - the page's conversations have names
    return _body(request, _service(request).reading(stream), on_complete)


def _body(request: HttpRequest, answer: Union[AnswerReading, AnswerFollowing], on_complete: OnComplete) -> Any:
    """Return the iterator that the server reads."""
    options = BodyOptions(chat_background(), on_complete, name_threads(), connections.close_all)
    if not is_asgi(request):
        return body_of(answer, options)
    from copilot_sync.contrib.chat.bodies_async import async_body_of

    saving = sync_to_async(functools.partial(_with_database, on_complete))
    return async_body_of(answer, options._replace(on_complete=saving))


def _with_database(on_complete: OnComplete, answer: Answer) -> None:
    """Call a function that may use the database, also when the request has ended, which would look after that."""
    close_old_connections()
    try:
        on_complete(answer)
    finally:
        close_old_connections()


def _secured(view: _View) -> _View:
    """Answer errors in the page's own form, and protect what is answered."""

    @functools.wraps(view)
    def secured(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
        response = _answered(view, request, arguments)
        for name, value in page.SECURITY_HEADERS.items():
            response[name] = value
        return response

    return secured


def _answered(view: _View, request: HttpRequest, arguments: Dict[str, Any]) -> HttpResponseBase:
    try:
        return view(request, **arguments)
    except BadRequest as error:
        return JsonResponse(page.bad_request(str(error)), status=400)
    except CopilotError as error:
        log_failure(error)
        return JsonResponse(page.error_of(error), status=502)


def _getting(view: _View) -> _View:
    return _secured(require_safe(view))


def _posting(view: _View) -> _View:
    return _secured(csrf_protect(require_POST(view)))


@_getting
def show_page(request: HttpRequest) -> HttpResponse:
    """The page."""
    header = settings.CSRF_HEADER_NAME[len("HTTP_") :].replace("_", "-")
    language, model = request.headers.get("Accept-Language"), client_settings().get("model")
    return HttpResponse(page.render(language, header, get_token(request), model, stop_on_leave=chat_stop_on_leave()))


@_posting
def ask(request: HttpRequest) -> HttpResponseBase:
    """Answer a question, in a conversation of that name or in a new one, while the answer is written."""
    form = request.POST
    name = _name(form)
    options = {
        "model": form.get("model") or None,
        "parent_message_id": form.get("parent_message_id") or None,
    }
    stream = stream_of(request, form.get("prompt"), name, None, options)
    response = respond(request, stream, name, _first_body)
    _service(request).forget_oldest()
    return response


@_posting
def retry(request: HttpRequest) -> HttpResponseBase:
    """Answer the last question of a conversation again."""
    return respond_again(request, _name(request.POST), None, request.POST.get("model") or None, {}, _first_body)


@_getting
def answer(request: HttpRequest) -> HttpResponseBase:
    """Go on with the answer that is under way, or has ended lately."""
    name = _name(request.GET)
    last_event_id = request.headers.get("Last-Event-ID") or request.GET.get("last_event_id")
    found = _service(request).answer(name, last_event_id)
    if found is None:
        return HttpResponse(status=204)
    body = _body(request, found, saver_of(session_of(request), name))
    return StreamingHttpResponse(body, headers=HEADERS)


@_posting
def stop(request: HttpRequest) -> JsonResponse:
    """Stop the answer that is under way."""
    return JsonResponse(_service(request).stop(_name(request.POST)))


@_getting
def list_conversations(request: HttpRequest) -> JsonResponse:
    """List this visitor's conversations."""
    return JsonResponse(_service(request).conversations())


@_getting
def messages(request: HttpRequest) -> JsonResponse:
    """Return what was said in a conversation."""
    return JsonResponse(_service(request).messages(_name(request.GET)))


@_posting
def rename(request: HttpRequest) -> JsonResponse:
    """Give a conversation another title."""
    try:
        return JsonResponse(_service(request).rename(_name(request.POST), request.POST.get("title", "")))
    except ValueError as error:
        raise BadRequest(str(error)) from None


@_posting
def delete(request: HttpRequest) -> JsonResponse:
    """Delete a conversation, here and at the service."""
    return JsonResponse(_service(request).delete(_name(request.POST)))


@_getting
def models(request: HttpRequest) -> JsonResponse:
    """List the models that can be asked."""
    return JsonResponse(_service(request).models())


@_getting
def asset(request: HttpRequest, path: str) -> HttpResponseBase:
    """Return one of the page's files."""
    with closing(serve(request, path, document_root=page.STATIC)) as found:
        # Whole, because what Django would read bit by bit can't be sent so under ASGI.
        response = HttpResponse(found.getvalue(), status=found.status_code, headers=dict(found.items()))
    response["Cache-Control"] = "no-cache"  # which means: ask whether it has changed
    return response


def _name(fields: Mapping[str, Any]) -> str:
    try:
        return page.check_name(fields.get("name", ""))
    except ValueError as error:
        raise BadRequest(str(error)) from None
