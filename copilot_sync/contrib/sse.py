"""A ``Stream`` as server-sent events for browsers: bytes for any WSGI server, no framework needed.

Each event is one ``data:`` line with a JSON object, told apart by its ``type``:

- ``{"type": "content", "text": "…"}``: the next piece of the answer.
- ``{"type": "complete", "conversation_id": …, "message_id": …, "model": …, "usage": …, "complete": true}``: the end.
- ``{"type": "error", "code": "rate_limited", "message": "…", …}``: the end, otherwise. The message is for the person
  at the page and says nothing of the cause, which is in the log. With the code ``not_kept`` the answer is whole, and
  the event has what ``complete`` has as well, but the site failed to keep it for the next question.

While nothing comes, comments go out, because only what is written tells a server that the client has gone. What is
iterated can't be waited for with a time limit, so each response has a thread that reads; it ends with the response.
This module knows neither WSGI nor any framework, and nothing of asyncio.
"""

import json
import logging
import threading
import time
from typing import Any, Callable, Deque, Dict, Iterator, Mapping, NamedTuple, Optional, Type

from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidRequestError,
    MissingCredentialsError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    WrongHostError,
)
from copilot_sync.models import Answer, Conversation
from copilot_sync.reader_thread import ReaderThread
from copilot_sync.stream import Stream

logger = logging.getLogger(__name__)

#: The header fields of such a response. The last two keep proxies and compressing middleware from holding it back.
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "Content-Encoding": "identity",
}
#: Seconds of silence after which a comment goes out.
HEARTBEAT = 10.0
#: Seconds between the two comments of a heartbeat. The system takes the first write to a client that has gone as if
#: nothing were wrong, and refuses the second.
PROBE_DELAY = 0.5
#: What goes out at once, so that the head of the response does.
PREAMBLE = b": answering\n\n"
#: What goes out while nothing comes.
COMMENT = b": waiting\n\n"

_encode = json.JSONEncoder(separators=(",", ":")).encode


class PublicMessage(NamedTuple):
    """What the page is told of an error: a code for its program, and a sentence for a person."""

    code: str
    message: str


class NotKeptError(CopilotError):
    """An answer is whole, but ``on_complete`` failed to keep it."""


_WORDS: Mapping[Type[BaseException], PublicMessage] = {
    MissingCredentialsError: PublicMessage("not_configured", "The chat has not been set up on this server yet."),
    AuthenticationError: PublicMessage(
        "not_authorized", "The chat's account was refused. Whoever runs this site can fix it."
    ),
    PermissionDeniedError: PublicMessage("not_permitted", "The service does not allow this question."),
    WrongHostError: PublicMessage("not_configured", "The chat has not been set up rightly on this server."),
    InvalidRequestError: PublicMessage("invalid_request", "The service did not accept this question."),
    NotFoundError: PublicMessage("not_found", "This conversation does not exist any more. Please begin a new one."),
    QuotaExceededError: PublicMessage("quota_exceeded", "The allowance of answers is used up for now."),
    RateLimitError: PublicMessage(
        "rate_limited", "There are too many questions at the moment. Please try again later."
    ),
    RequestTimeoutError: PublicMessage("timeout", "The answer took too long. Please try again."),
    NetworkError: PublicMessage("unreachable", "The service can't be reached at the moment. Please try again later."),
    ServerError: PublicMessage("unavailable", "The service has a problem at the moment. Please try again later."),
    StreamInterruptedError: PublicMessage("interrupted", "The answer was cut off before its end."),
    StreamClosedError: PublicMessage("stopped", "The answer was stopped."),
    NotKeptError: PublicMessage(
        "not_kept", "The answer is complete, but this site could not keep it for the next question."
    ),
    CopilotError: PublicMessage("failed", "The answer could not be had. Please try again later."),
}


def public_message(error: CopilotError) -> PublicMessage:
    """Return what may be shown of an error to anybody: words for its kind, and nothing of what it says."""
    return next(_WORDS[kind] for kind in type(error).__mro__ if kind in _WORDS)


def content_event(text: str) -> bytes:
    """Return the event for a piece of text."""
    return _event({"type": "content", "text": text})


def complete_event(answer: Answer) -> bytes:
    """Return the event for the end of an answer, with what a page needs to go on with the conversation."""
    return _event({"type": "complete", **_details_of(answer)})


def _details_of(answer: Answer) -> Dict[str, Any]:
    """Return what a page needs of an answer whose text it has."""
    details = answer.to_dict()
    del details["text"]
    return details


def not_kept_event(answer: Answer, error: Exception) -> bytes:
    """Return the event for the end of an answer that ``on_complete`` failed to keep, and log why."""
    logger.error("an answer for a page is whole, but on_complete failed", exc_info=error)
    words = _WORDS[NotKeptError]
    return _event({**_details_of(answer), "type": "error", "code": words.code, "message": words.message})


def error_event(error: CopilotError, conversation: Optional[Conversation] = None) -> bytes:
    """Return the event for an error: its kind in safe words, and never what it says."""
    words = public_message(error)
    data: Dict[str, Any] = {"type": "error", "code": words.code, "message": words.message}
    if conversation is not None:
        data["conversation_id"] = conversation.conversation_id
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        data["retry_after"] = retry_after
    return _event(data)


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % _encode(data).encode("ascii")


def log_failure(error: CopilotError) -> None:
    """Log what the page is not told. Neither the words nor the causes of these errors hold a secret."""
    logger.error("an answer for a page failed: %s", error, exc_info=error)


def check_heartbeat(seconds: float) -> float:
    """Check a heartbeat, in seconds.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above zero.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"heartbeat must be a number of seconds, not {type(seconds).__name__}")
    if not seconds > 0:
        raise ValueError(f"heartbeat must be a number of seconds above zero, not {seconds}")
    return float(seconds)


class EventStream(Iterator[bytes]):
    """A blocking ``Stream`` as the body of a ``text/event-stream`` response.

    Give it to a WSGI server, which closes it when the response has ended or the client has gone. Closing, garbage
    collection and the end of a ``with`` block free the upstream connection at once. It is iterated by one thread;
    ``close`` may be called from any.

    >>> body = EventStream(client.stream("Explain WSGI"))  # doctest: +SKIP
    >>> start_response("200 OK", list(HEADERS.items()))  # doctest: +SKIP
    >>> return body  # doctest: +SKIP

    Args:
        stream: What is sent on. It may have been started; nothing else may read it.
        heartbeat: Seconds of silence after which a comment goes out. A client that has gone is noticed, and
            its upstream connection closed, within a second after that. Default 10.
        on_complete: Called with the answer in the thread that iterates, before the page is told that it is whole. If it
            raises an ``Exception``, that is logged, and the page gets an ``error`` with the code ``not_kept``.

    Raises:
        TypeError: ``heartbeat`` is no number.
        ValueError: ``heartbeat`` is not above zero.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        heartbeat: float = HEARTBEAT,
        on_complete: Optional[Callable[[Answer], object]] = None,
    ) -> None:
        self._stream = stream
        self._heartbeat = HeartbeatTimer(check_heartbeat(heartbeat))
        self._on_complete = on_complete
        # The thread holds the event and never this object, which closes when nobody holds it any more.
        self._news = threading.Event()
        self._reader = ReaderThread(stream, stream.close, self._news.set)
        self._begun = False
        self._ended = False

    def __next__(self) -> bytes:
        """Wait for what is to be sent next: one event, several that have come, or a comment.

        Raises:
            StopIteration: All has been sent, or ``close`` was called.
        """
        if self._ended:
            raise StopIteration
        if not self._begun:
            self._begun = True
            self._reader.start()
            return PREAMBLE
        pieces = self._take(self._heartbeat.next_wait())
        if pieces is None:
            return self._last()
        if not pieces:
            return COMMENT
        self._heartbeat.reset()
        return b"".join(map(content_event, pieces))

    def _take(self, timeout: float) -> Optional[Deque[str]]:
        """Wait for pieces and return all there are; none if none came in time, ``None`` after the last piece."""
        deadline = time.monotonic() + timeout
        while True:
            self._news.clear()  # first: what comes after the look below sets it again
            pieces = self._reader.take()
            if pieces is None or pieces:
                return pieces
            if not self._news.wait(max(0.0, deadline - time.monotonic())):
                return pieces

    def _last(self) -> bytes:
        """The event that ends the response."""
        closed = self._ended
        self.close()
        try:
            self._reader.raise_failure()
        except CopilotError as error:
            if closed:
                raise StopIteration from None
            log_failure(error)
            return error_event(error, self._stream.conversation)
        answer = self._stream.answer
        if answer is None:  # closed by what reads it, such as the function that is told of the conversation
            raise StopIteration
        try:
            if self._on_complete is not None:
                self._on_complete(answer)
        except Exception as error:  # noqa: BLE001 - the response has begun, and what keeps answers may raise anything
            return not_kept_event(answer, error)
        return complete_event(answer)

    def close(self) -> None:
        """End the response: the thread ends and the upstream connection is free. Any number of times."""
        self._ended = True
        self._reader.close()
        self._reader.join()

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # If __init__ refused its arguments, there is nothing to close.
        if hasattr(self, "_reader"):
            self.close()


class HeartbeatTimer:
    """How long to wait for a piece before the next comment: a heartbeat has two, the second soon after the first."""

    def __init__(self, heartbeat: float) -> None:
        self._heartbeat = heartbeat
        self._comments = 0

    def next_wait(self) -> float:
        """Return the seconds until the comment after the last one."""
        self._comments += 1
        return self._heartbeat if self._comments % 2 else min(PROBE_DELAY, self._heartbeat)

    def reset(self) -> None:
        """Note that something was sent."""
        self._comments = 0
