"""Answers as streaming responses, under WSGI and ASGI.

Under WSGI the body is a blocking iterator, under ASGI an asynchronous one: Django would read a blocking one to its
end before it sends any of it. What a page is told of errors is ``copilot_sync.contrib.sse``'s.
"""

from functools import partial
from typing import Any, Callable, Optional, Union

import django
from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import BadRequest, ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.asyncio import async_unsafe

from copilot_sync.contrib.django.client import get_client, heartbeat
from copilot_sync.contrib.django.sessions import conversations, remember, session_of, update
from copilot_sync.contrib.sse import HEADERS, EventStream, error_event, log_failure
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer, Conversation
from copilot_sync.prompts import PromptInput
from copilot_sync.stream import Stream


@async_unsafe("stream_response blocks; in an asynchronous view: return await astream_response(request, prompt)")
def stream_response(
    request: HttpRequest,
    prompt: Optional[PromptInput],
    *,
    name: Optional[str] = None,
    conversation: Union[None, str, Conversation] = None,
    **options: Any,
) -> HttpResponseBase:
    """Answer a request with the answer to a prompt, as ``text/event-stream``, while it is written.

    Uses the network if a conversation is to be kept and has to be begun first. Whatever fails, also there, the
    page is told in an ``error`` event, and the log in full; so is a session that can't be saved at the end.

    Args:
        request: The request.
        prompt: A text, or role messages.
        name: The name under which the session keeps the conversation. Default: it is not kept.
        conversation: A conversation or its id. Default: the one that the session keeps, else a new one. An id that
            comes from the page is the page's word: all users of a site share one account.
        **options: As ``Client.stream`` takes them: ``model``, ``timeout``, ``parent_message_id`` … The last is
            passed over if the session does not keep the conversation (any more) and a new one is begun.

    Raises:
        BadRequest: There is nothing to ask.
        ImproperlyConfigured: The setting ``COPILOT_SYNC`` can't be used, there are no sessions to keep a
            conversation in, or Django is older than 4.2 and serves ASGI.
        SynchronousOnlyOperation: It was called from an asynchronous view.
        TypeError: An option has the wrong type or a name that is not known.
        ValueError: An option can't be sent.
    """
    if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
        raise BadRequest("there is nothing to ask")
    if conversation is None and name is not None:
        conversation = conversations(request).get(name)
        if conversation is None:  # the page may still show one that the session has lost
            options.pop("parent_message_id", None)
    stream = get_client().stream(prompt, conversation=conversation, **options)
    if name is None:
        return StreamingHttpResponse(_body(request, stream, None), headers=HEADERS)
    session = session_of(request)
    body = _body(request, stream, partial(_note, session, name))
    try:
        remember(session, name, stream.start())
    except CopilotError as error:
        log_failure(error)
        return HttpResponse(error_event(error, stream.conversation), headers=HEADERS)
    return StreamingHttpResponse(body, headers=HEADERS)


async def astream_response(request: HttpRequest, prompt: Optional[PromptInput], **options: Any) -> HttpResponseBase:
    """Do what ``stream_response`` does, in an asynchronous view. Arguments and errors are the same."""
    response: HttpResponseBase = await sync_to_async(stream_response)(request, prompt, **options)
    return response


def _note(session: SessionBase, name: str, answer: Answer) -> None:
    update(session, name, answer.conversation)


def _body(request: HttpRequest, stream: Stream, on_complete: Optional[Callable[[Answer], None]]) -> Any:
    """What the server iterates."""
    if not hasattr(request, "scope"):
        return EventStream(stream, heartbeat=heartbeat(), on_complete=on_complete)
    if django.VERSION < (4, 2):  # pragma: some versions
        raise ImproperlyConfigured("answers can be streamed under ASGI from Django 4.2 on, and under WSGI with any")
    from copilot_sync.contrib.sse_async import AsyncEventStream

    told = None if on_complete is None else sync_to_async(on_complete)
    return AsyncEventStream(stream, heartbeat=heartbeat(), on_complete=told)
