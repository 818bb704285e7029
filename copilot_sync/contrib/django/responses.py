"""Answers as streaming responses, under WSGI and ASGI, and as JSON.

Under WSGI the body is a blocking iterator, under ASGI an asynchronous one, because there Django would read a blocking
one to its end before it sends anything. ``copilot_sync.contrib.sse`` decides what a page may see of errors.
"""

from functools import partial
from typing import Any, Callable, Dict, Mapping, Optional, Union

import django
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import BadRequest, ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.asyncio import async_unsafe

from copilot_sync.contrib.django.client import client_settings, get_client, heartbeat, name_threads
from copilot_sync.contrib.django.sessions import conversations, forget_gone, remember, session_of, update, user_of
from copilot_sync.contrib.lazy_client import limits_users
from copilot_sync.contrib.sse import HEADERS, EventStream, error_event, is_gone, log_failure, whole_answer
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer, Conversation
from copilot_sync.options import AskResponseOptions, StreamResponseOptions, StreamRetryOptions, Unpack
from copilot_sync.prompts import PromptInput
from copilot_sync.stream import Stream
from copilot_sync.structured import asking

#: Is called with an answer when it is complete.
OnComplete = Callable[[Answer], None]
#: Makes the iterator that the server reads.
MakeBody = Callable[[HttpRequest, Stream, Optional[OnComplete]], Any]


@async_unsafe("stream_response blocks; in an asynchronous view: return await astream_response(request, prompt)")
def stream_response(
    request: HttpRequest,
    prompt: Optional[PromptInput],
    *,
    name: Optional[str] = None,
    conversation: Union[None, str, Conversation] = None,
    **options: "Unpack[StreamResponseOptions]",
) -> HttpResponseBase:
    """Return a response that streams the answer to a prompt as ``text/event-stream``.

    Uses the network if ``name`` is set and a conversation has to be created first. If anything fails, including saving
    the session at the end, the page gets an ``error`` event, and the log gets the details.

    Args:
        request: The request.
        prompt: A text, or role messages.
        name: The name under which the session keeps the conversation. Default: it does not.
        conversation: A conversation or its id. Default: the one in the session, else a new one. Don't trust an id that
            comes from the page: all users of a site share one account.
        **options: Options of ``Client.stream``: ``model``, ``timeout``, ``parent_message_id`` … The last is ignored if
            the session does not hold the conversation (any more), so that a new one starts. ``user`` is who asks, if
            there is a budget for each user. Default: the key of the user who has logged in, else of the session.

    Raises:
        BadRequest: The prompt is empty.
        ImproperlyConfigured: The setting ``COPILOT_SYNC`` can't be used, there are no sessions although
            ``name`` is set, or Django is older than 4.2 under ASGI.
        SynchronousOnlyOperation: It was called from an asynchronous view.
        TypeError: An option has the wrong type or an unknown name.
        ValueError: An option can't be sent.
    """
    return respond(request, stream_of(request, prompt, name, conversation, {**options}), name, event_body)


def stream_of(
    request: HttpRequest,
    prompt: Optional[PromptInput],
    name: Optional[str],
    conversation: Union[None, str, Conversation],
    options: Dict[str, Any],
) -> Stream:
    """Return the stream that asks for ``stream_response``. Arguments and errors are the same."""
    if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
        raise BadRequest("there is nothing to ask")
    if conversation is None and name is not None:
        conversation = conversations(request).get(name)
        if conversation is None:  # the page may still show one that the session has lost
            options.pop("parent_message_id", None)
    return get_client().stream(prompt, conversation=conversation, **_with_user(request, options))


async def astream_response(
    request: HttpRequest,
    prompt: Optional[PromptInput],
    *,
    name: Optional[str] = None,
    conversation: Union[None, str, Conversation] = None,
    **options: "Unpack[StreamResponseOptions]",
) -> HttpResponseBase:
    """Do the same as ``stream_response`` in an asynchronous view. Arguments and errors are the same."""
    response: HttpResponseBase = await sync_to_async(stream_response)(
        request, prompt, name=name, conversation=conversation, **options
    )
    return response


@async_unsafe("ask_response blocks; in an asynchronous view: return await aask_response(request, prompt)")
def ask_response(
    request: HttpRequest,
    prompt: Optional[PromptInput],
    *,
    name: Optional[str] = None,
    conversation: Union[None, str, Conversation] = None,
    **options: "Unpack[AskResponseOptions]",
) -> HttpResponseBase:
    """Ask, wait for the whole answer, and return a response with it as JSON.

    This is the way to data: a stream takes no ``schema``. The object is that of the ``complete`` event, with the
    ``text``, and with ``parsed`` if there is a schema. If anything fails, it is that of the ``error`` event, with the
    status 503, or 404 if the service does not know the conversation any more.

    Args:
        request: The request.
        prompt: A text, or role messages.
        name: As for ``stream_response``. Every kind of session gets the id of the answer.
        conversation: As for ``stream_response``.
        **options: Options of ``Client.ask``: ``schema``, ``repairs``, ``timeout``, ``model``, and as for
            ``stream_response``.

    Raises:
        BadRequest: The prompt is empty.
        ImproperlyConfigured: The setting ``COPILOT_SYNC`` can't be used, or there are no sessions although ``name`` is
            set.
        SynchronousOnlyOperation: It was called from an asynchronous view.
        TypeError: An option has the wrong type or an unknown name.
        ValueError: An option can't be used.
        ImportError: What judges the ``schema`` is not installed.
    """
    stream = _whole_stream(request, prompt, name, conversation, **options)
    return _JsonAnswer(request, stream, name, *whole_answer(stream))


async def aask_response(
    request: HttpRequest,
    prompt: Optional[PromptInput],
    *,
    name: Optional[str] = None,
    conversation: Union[None, str, Conversation] = None,
    **options: "Unpack[AskResponseOptions]",
) -> HttpResponseBase:
    """Do the same as ``ask_response`` in an asynchronous view, whose event loop waits for the answer.

    Arguments and errors are the same. A view that is cancelled, as Django does from 5.0 on if the client has gone, ends
    the call.
    """
    from copilot_sync.contrib import sse_async

    # The session may be in a database, for which Django has one thread: nobody waits for an answer in that.
    stream = await sync_to_async(_whole_stream)(request, prompt, name, conversation, **options)
    data, status = await sse_async.whole_answer(stream)
    response: HttpResponseBase = await sync_to_async(_JsonAnswer)(request, stream, name, data, status)
    return response


def _whole_stream(
    request: HttpRequest,
    prompt: Optional[PromptInput],
    name: Optional[str],
    conversation: Union[None, str, Conversation],
    **options: "Unpack[AskResponseOptions]",
) -> Stream:
    """Return the stream of an answer that is sent when it is whole."""
    if name is not None:
        session_of(request)  # found missing before anything is asked
    name_threads()  # likewise wrong
    return stream_of(request, prompt, name, conversation, asking(options))


class _JsonAnswer(JsonResponse):
    """An answer as JSON. The session gets its conversation under the name, which gets a name when the page has it."""

    def __init__(
        self, request: HttpRequest, stream: Stream, name: Optional[str], data: Dict[str, Any], status: int
    ) -> None:
        if name is not None and stream.answer is not None:
            remember(session_of(request), name, stream.answer.conversation)
        elif name is not None and status == 404:
            forget_gone(request, name, stream.conversation)
        self.naming = stream.naming() if stream.is_new and name_threads() else None
        super().__init__(data, status=status)

    def close(self) -> None:
        super().close()
        if self.naming is not None:
            self.naming.run()


@async_unsafe("retry_response blocks; in an asynchronous view: return await aretry_response(request)")
def retry_response(
    request: HttpRequest,
    *,
    name: Optional[str] = None,
    conversation: Union[None, str, Conversation] = None,
    model: Optional[str] = None,
    **options: "Unpack[StreamRetryOptions]",
) -> HttpResponseBase:
    """Return a response that answers the last question of a conversation again, as ``stream_response`` does.

    Uses the network: the thread is looked up first. The question is the last one of the newest branch behind the
    conversation's last message. The next question follows the new answer.

    Args:
        request: The request.
        name: The name under which the session keeps the conversation.
        conversation: A conversation or its id, instead of ``name``.
        model: The model for this one answer. Default: the client's.
        **options: Options of ``Chat.stream_retry``.

    Raises:
        BadRequest: There is no such conversation in the session, or no question in it.
        ImproperlyConfigured: As for ``stream_response``.
        SynchronousOnlyOperation: It was called from an asynchronous view.
        TypeError: An option has the wrong type or an unknown name.
    """
    return respond_again(request, name, conversation, model, options, event_body)


def respond_again(
    request: HttpRequest,
    name: Optional[str],
    conversation: Union[None, str, Conversation],
    model: Optional[str],
    options: Mapping[str, Any],
    make_body: MakeBody,
) -> HttpResponseBase:
    """Return the response for ``retry_response`` with a body of one's own. Arguments and errors are the same."""
    if conversation is None and name is not None:
        conversation = conversations(request).get(name)
    if conversation is None:
        raise BadRequest("there is no question to answer again")
    try:
        stream = get_client().chat(conversation).stream_retry(model, **_with_user(request, options))
    except CopilotError as error:
        log_failure(error)
        if name is not None and is_gone(error):
            forget_gone(request, name, conversation)
        return HttpResponse(error_event(error, Conversation.from_value(conversation)), headers=HEADERS)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return respond(request, stream, name, make_body)


async def aretry_response(
    request: HttpRequest,
    *,
    name: Optional[str] = None,
    conversation: Union[None, str, Conversation] = None,
    model: Optional[str] = None,
    **options: "Unpack[StreamRetryOptions]",
) -> HttpResponseBase:
    """Do the same as ``retry_response`` in an asynchronous view. Arguments and errors are the same."""
    response: HttpResponseBase = await sync_to_async(retry_response)(
        request, name=name, conversation=conversation, model=model, **options
    )
    return response


def _with_user(request: HttpRequest, options: Mapping[str, Any]) -> Dict[str, Any]:
    if "user" in options or not limits_users(client_settings()):
        return {**options}
    return {**options, "user": user_of(request)}


def respond(request: HttpRequest, stream: Stream, name: Optional[str], make_body: MakeBody) -> HttpResponseBase:
    """Return the response that streams an answer. The session gets its conversation under the name."""
    is_asgi(request)  # before anything is begun
    if name is None:
        return StreamingHttpResponse(make_body(request, stream, None), headers=HEADERS)
    session = session_of(request)
    try:
        # A page that waits for its turn is told so in the stream, if its conversation is known.
        remember(session, name, stream.conversation or stream.start())
    except CopilotError as error:
        log_failure(error)
        return HttpResponse(error_event(error, stream.conversation), headers=HEADERS)
    body = make_body(request, stream, saver_of(session, name))
    # The chat page looks itself.
    if hasattr(body, "finds_conversation") and not stream.is_new and not _finds_conversation(request, body):
        forget_gone(request, name, stream.conversation)
    return StreamingHttpResponse(body, headers=HEADERS)


def _finds_conversation(request: HttpRequest, body: Any) -> bool:
    """Whether the service knows the conversation of a question, as far as that can be seen before the response."""
    if not is_asgi(request):
        return bool(body.finds_conversation())
    from copilot_sync.contrib.sse_async import running_loop

    # The loop that reads the body has to ask. If this view was called from none, as in a test, nobody knows which one.
    is_called_by_loop = async_to_sync(running_loop)().is_running()
    return not is_called_by_loop or bool(async_to_sync(body.finds_conversation)())


def saver_of(session: SessionBase, name: str) -> OnComplete:
    """Return what saves the last message of a conversation when its answer is complete."""
    return partial(_save_last_message, session, name)


def _save_last_message(session: SessionBase, name: str, answer: Answer) -> None:
    update(session, name, answer.conversation)


def is_asgi(request: HttpRequest) -> bool:
    """Whether the body of the response is read by an event loop.

    Raises:
        ImproperlyConfigured: It is, and Django is older than 4.2.
    """
    if not hasattr(request, "scope"):
        return False
    if django.VERSION < (4, 2):  # pragma: some versions
        raise ImproperlyConfigured("answers can be streamed under ASGI from Django 4.2 on, and under WSGI with any")
    return True


def event_body(request: HttpRequest, stream: Stream, on_complete: Optional[OnComplete]) -> Any:
    """Return the iterator that the server reads."""
    if not is_asgi(request):
        return EventStream(stream, heartbeat=heartbeat(), on_complete=on_complete, name_thread=name_threads())
    from copilot_sync.contrib.sse_async import AsyncEventStream

    on_complete_async = None if on_complete is None else sync_to_async(on_complete)
    return AsyncEventStream(stream, heartbeat=heartbeat(), on_complete=on_complete_async, name_thread=name_threads())
