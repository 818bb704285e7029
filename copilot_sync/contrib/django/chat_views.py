"""The views of the chat page. They work under WSGI and ASGI, and need the session and Django's CSRF protection."""

import functools
from contextlib import closing
from typing import Any, Callable, Dict, Mapping

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe
from django.views.static import serve

from copilot_sync.contrib.chat import page
from copilot_sync.contrib.chat.service import ChatService
from copilot_sync.contrib.django.client import get_client
from copilot_sync.contrib.django.responses import retry_response, stream_response
from copilot_sync.contrib.django.sessions import conversations, forget
from copilot_sync.contrib.sse import log_failure
from copilot_sync.errors import CopilotError
from copilot_sync.models import Conversation

#: Most conversations of a visitor: a session in a cookie has 4 KB.
_MOST_CONVERSATIONS = 12

_View = Callable[..., HttpResponseBase]


class _Visit:
    """One request, with the conversations of its session."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def conversations(self) -> Dict[str, Conversation]:
        return conversations(self._request)

    def forget(self, name: str) -> None:
        forget(self._request, name)


def _service(request: HttpRequest) -> ChatService:
    return ChatService(get_client(), _Visit(request))


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
    return HttpResponse(page.render(request.headers.get("Accept-Language"), header, get_token(request)))


@_posting
def ask(request: HttpRequest) -> HttpResponseBase:
    """Answer a question, in a conversation of that name or in a new one, while the answer is written."""
    form = request.POST
    response = stream_response(
        request,
        form.get("prompt"),
        name=_name(form),
        model=form.get("model") or None,
        parent_message_id=form.get("parent_message_id") or None,
    )
    for old in list(conversations(request))[:-_MOST_CONVERSATIONS]:
        forget(request, old)
    return response


@_posting
def retry(request: HttpRequest) -> HttpResponseBase:
    """Answer the last question of a conversation again."""
    return retry_response(request, name=_name(request.POST), model=request.POST.get("model") or None)


@_getting
def answer(request: HttpRequest) -> HttpResponseBase:
    """Go on with the answer that is under way."""
    return HttpResponse(status=204)


@_posting
def stop(request: HttpRequest) -> JsonResponse:
    """Stop the answer that is under way."""
    return JsonResponse({})


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
    name: str = fields.get("name", "")
    if not page.is_name(name):
        raise BadRequest("this is no name for a conversation")
    return name
