"""The page, and the addresses that its script talks to.

The conversations of a visitor are kept in the session, by names that the page makes up; no id of one is ever taken
from the page, because all visitors share one account.
"""

from contextlib import closing, suppress

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_POST, require_safe
from django.views.static import serve

from copilot_sync import NotFoundError
from copilot_sync.contrib.django import conversations, forget, get_client, retry_response, stream_response
from examples import chat_page


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """The page."""
    return render(request, "chat.html")


@require_POST
def ask(request: HttpRequest) -> HttpResponseBase:
    """Answer a question, in a conversation of that name or in a new one, while the answer is written."""
    name = request.POST.get("name", "")
    if not chat_page.is_name(name):
        raise BadRequest("this is no name for a conversation")
    response = stream_response(
        request,
        request.POST.get("prompt"),
        name=name,
        parent_message_id=request.POST.get("parent_message_id") or None,
    )
    for old in list(conversations(request))[: -chat_page.MOST_CONVERSATIONS]:
        forget(request, old)
    return response


@require_POST
def retry(request: HttpRequest) -> HttpResponseBase:
    """Answer the last question of a conversation again."""
    return retry_response(request, name=request.POST.get("name", ""))


@require_safe
def names(request: HttpRequest) -> JsonResponse:
    """The names of this visitor's conversations."""
    return _names(request)


@require_safe
def messages(request: HttpRequest) -> JsonResponse:
    """What was said in a conversation: nothing where there is none of that name."""
    conversation = conversations(request).get(request.GET.get("name", ""))
    found = get_client().messages(conversation) if conversation else []
    return JsonResponse({"messages": chat_page.shown(found)})


@require_POST
def delete(request: HttpRequest) -> JsonResponse:
    """Delete a conversation, here and at the service."""
    name = request.POST.get("name", "")
    conversation = conversations(request).get(name)
    if conversation:
        with suppress(NotFoundError):  # somebody else was faster
            get_client().delete_thread(conversation)
        forget(request, name)
    return _names(request)


@require_POST
def markdown(request: HttpRequest) -> JsonResponse:
    """Give an answer that is complete as HTML."""
    return JsonResponse({"html": chat_page.as_html(request.POST.get("text", ""))})


@require_safe
def static(request: HttpRequest, path: str) -> HttpResponseBase:
    """Give one of the page's files. A site that has more of them leaves that to WhiteNoise or nginx."""
    with closing(serve(request, path, document_root=chat_page.STATIC)) as found:
        # Whole, because what Django would read bit by bit can't be sent so under ASGI.
        return HttpResponse(found.getvalue(), status=found.status_code, headers=dict(found.items()))


def _names(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"names": list(conversations(request))})
