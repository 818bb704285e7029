"""A ``Stream`` as server-sent events for browsers: bytes for any WSGI server, no framework needed.

``whole_answer`` is for a page that waits for the whole answer instead.

Each event is one ``data:`` line with a JSON object. Its ``type`` is one of these:

- ``{"type": "content", "text": "…"}``: the next piece of the answer.
- ``{"type": "waiting", "reason": "limit", "seconds": 42, "message": "…"}``: the question is not sent yet, because of
  the limits that were set for the account, or of a pause of the service (``service``). The seconds may be ``null``.
  The event comes again while that lasts.
- ``{"type": "complete", "conversation_id": …, "message_id": …, "model": …, "usage": …, "complete": true,
  "references": […]}``: the answer is complete. The references are what it used.
- ``{"type": "error", "code": "rate_limited", "message": "…", …}``: the answer failed. The message is for the person at
  the page and hides the cause, which is in the log. The code ``not_kept`` means that the answer is complete, but the
  site failed to save it for the next question; this event also has the fields of ``complete``.

During silence, comments go out, because a server notices only by writing that the client has gone. The server's own
thread polls the stream, so that a response has no other, but for the moments in which a question is sent. This module
knows neither WSGI, nor any framework, nor asyncio.

Threads: confined to the thread that iterates, but for the flag of the end, which is only ever set.
"""

import json
import logging
import math
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Type

from copilot_sync.errors import (
    AuthenticationError,
    BudgetExceededError,
    CopilotError,
    InvalidAnswerError,
    InvalidRequestError,
    MissingCredentialsError,
    ModelNotAvailableError,
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
from copilot_sync.naming import ThreadNaming
from copilot_sync.stream import Stream
from copilot_sync.times import waiting_time

__all__ = ["HEADERS", "HEARTBEAT", "EventFormat", "EventStream", "PublicMessage", "log_failure", "public_message"]

logger = logging.getLogger(__name__)

#: The header fields of such a response. The last two keep proxies and compressing middleware from buffering it.
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "Content-Encoding": "identity",
}
#: Seconds of silence after which a comment goes out.
HEARTBEAT = 10.0
#: Seconds between the two comments of a heartbeat. If the client has gone, the system still accepts the first write and
#: refuses the second.
PROBE_DELAY = 0.5
#: Seconds between two looks whether a question waits that was not sent yet.
LOOK = 2.0
#: Seconds that a response waits, before its head is sent, for the service to take a question in a conversation that it
#: may have forgotten, and seconds between two looks.
TAKING = 1.0
TAKING_LOOK = 0.05
#: Sent at once, so that the head of the response is sent too.
PREAMBLE = b": answering\n\n"
#: Sent during silence.
COMMENT = b": waiting\n\n"
_encode = json.JSONEncoder(separators=(",", ":")).encode


class PublicMessage(NamedTuple):
    """What a page may show of an error: a code for its program, and a sentence for a person."""

    code: str
    message: str


_MESSAGES: Mapping[Type[BaseException], PublicMessage] = {
    MissingCredentialsError: PublicMessage("not_configured", "The chat has not been set up on this server yet."),
    AuthenticationError: PublicMessage(
        "not_authorized", "The chat's account was refused. Whoever runs this site can fix it."
    ),
    PermissionDeniedError: PublicMessage("not_permitted", "The service does not allow this question."),
    WrongHostError: PublicMessage("not_configured", "The chat is not set up correctly on this server."),
    ModelNotAvailableError: PublicMessage("model_not_available", "The service does not answer with this model."),
    InvalidRequestError: PublicMessage("invalid_request", "The service did not accept this question."),
    NotFoundError: PublicMessage("not_found", "This conversation does not exist any more. Please begin a new one."),
    QuotaExceededError: PublicMessage("quota_exceeded", "The allowance of answers is used up for now."),
    BudgetExceededError: PublicMessage("quota_exceeded", "The allowance of answers is used up for now."),
    RateLimitError: PublicMessage(
        "rate_limited", "There are too many questions at the moment. Please try again later."
    ),
    RequestTimeoutError: PublicMessage("timeout", "The answer took too long. Please try again."),
    NetworkError: PublicMessage("unreachable", "The service can't be reached at the moment. Please try again later."),
    ServerError: PublicMessage("unavailable", "The service has a problem at the moment. Please try again later."),
    InvalidAnswerError: PublicMessage(
        "invalid_answer", "The answer was not in the form that this site needs. Please try again."
    ),
    StreamInterruptedError: PublicMessage("interrupted", "The answer was cut off before its end."),
    StreamClosedError: PublicMessage("stopped", "The answer was stopped."),
    CopilotError: PublicMessage("failed", "The answer failed. Please try again later."),
}

#: There is no error class for this one: the answer itself is complete.
_NOT_KEPT = PublicMessage("not_kept", "The answer is complete, but this site could not save it for the next question.")


def public_message(error: CopilotError) -> PublicMessage:
    """Return what anybody may see of an error. It depends on the kind of the error, and hides its message."""
    return next(_MESSAGES[kind] for kind in type(error).__mro__ if kind in _MESSAGES)


def is_gone(error: Optional[BaseException]) -> bool:
    """Whether a question was refused because its conversation is gone. Within an answer, something else is."""
    return isinstance(error, NotFoundError) and error.status == 404


#: What keeps a question from being sent, by its reason.
_WAITS: Mapping[str, str] = {
    "limit": "There are many questions at the moment.",
    "service": "The service is busy at the moment.",
}


def content_event(text: str) -> bytes:
    """Return the event for a piece of text."""
    return encode_event({"type": "content", "text": text})


def waiting_event(stream: Stream) -> Optional[bytes]:
    """Return the event for a question that waits to be sent; ``None`` if it does not wait."""
    delay = stream._delay
    if delay is None:
        return None
    seconds = None if math.isinf(delay.seconds) else math.ceil(delay.seconds)
    when = "as soon as another one has been answered" if seconds is None else f"in {waiting_time(seconds)}"
    message = f"{_WAITS[delay.reason]} Yours is sent {when}."
    return encode_event({"type": "waiting", "reason": delay.reason, "seconds": seconds, "message": message})


def looks(stream: Stream, seconds: float) -> Iterator[float]:
    """Divide a wait for text: as long as the question is not sent, it is looked now and then why not."""
    while seconds > LOOK and not stream.attempts:
        yield LOOK
        seconds -= LOOK
    yield seconds


def looks_at_taking(stream: Stream) -> Iterator[float]:
    """Divide the wait for the service to take a question. It ends if the question is not sent before its end."""
    until = time.monotonic() + TAKING
    while not stream._is_taken:
        left, delay = until - time.monotonic(), stream._delay  # a thread that helps may change it at any moment
        if left <= 0 or (delay is not None and delay.seconds >= left):
            return
        yield TAKING_LOOK


def complete_data(answer: Answer) -> Dict[str, Any]:
    """Return the event for a complete answer, with what a page needs to continue the conversation."""
    return {"type": "complete", **_details_of(answer)}


def whole_answer(stream: Stream) -> Tuple[Dict[str, Any], int]:
    """Read a stream to its end, for a page that gets its answer at once, as JSON.

    Returns:
        The object that says how it ended: that of the last event, and if there is an answer, also its ``text``, and
        ``parsed`` if it had to fit a schema. And the HTTP status: 200, 404 if the conversation does not exist
        any more, or 503 if it failed otherwise. A failure is logged.
    """
    try:
        with stream:
            answer = stream.read()
    except CopilotError as error:
        return failed_answer(error, stream.conversation)
    return complete_answer(answer)


def complete_answer(answer: Answer) -> Tuple[Dict[str, Any], int]:
    """Return what ``whole_answer`` does for an answer."""
    return {"type": "complete", **answer.to_dict()}, 200


def failed_answer(error: CopilotError, conversation: Optional[Conversation]) -> Tuple[Dict[str, Any], int]:
    """Return what ``whole_answer`` does for an error, and log it."""
    log_failure(error)
    return error_data(error, conversation), 404 if is_gone(error) else 503


def _details_of(answer: Answer) -> Dict[str, Any]:
    """Return all fields of an answer except its text, which the page has."""
    return {name: value for name, value in answer.to_dict().items() if name != "text"}


def not_kept_data(answer: Answer, error: Exception) -> Dict[str, Any]:
    """Return the event for a complete answer that ``on_complete`` failed to save, and log the error."""
    logger.error("an answer for a page is complete, but on_complete failed", exc_info=error)
    words = _NOT_KEPT
    return {**_details_of(answer), "type": "error", "code": words.code, "message": words.message}


def error_data(error: CopilotError, conversation: Optional[Conversation] = None) -> Dict[str, Any]:
    """Return the event for an error: its public message, and never its own."""
    words = public_message(error)
    data: Dict[str, Any] = {"type": "error", "code": words.code, "message": words.message}
    if conversation is not None:
        data["conversation_id"] = conversation.conversation_id
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        data["retry_after"] = retry_after
    return data


def error_event(error: CopilotError, conversation: Optional[Conversation] = None) -> bytes:
    """Return the bytes of the event for an error."""
    return encode_event(error_data(error, conversation))


def encode_event(data: Mapping[str, Any], id: str = "") -> bytes:
    """Return the bytes of an event, with an id by which a reader can go on behind it."""
    line = b"data: %b\n\n" % _encode(data).encode("ascii")
    return b"id: %b\n%b" % (id.encode("ascii"), line) if id else line


class EventFormat:
    """Turns what comes of an answer into bytes. Subclasses do more with it."""

    def content(self, pieces: Iterable[str]) -> bytes:
        """Return the events for pieces of text."""
        return b"".join(map(content_event, pieces))

    def last(self, data: Mapping[str, Any]) -> bytes:
        """Return the event that ends an answer."""
        return encode_event(data)


def log_failure(error: CopilotError) -> None:
    """Log an error in full. Neither the messages nor the causes of these errors hold a secret."""
    logger.error("an answer for a page failed: %s", error, exc_info=error)


def check_stream(stream: Stream) -> Stream:
    """Return a stream, if it is one that can be sent.

    Raises:
        TypeError: It is something else, such as the stream of an ``AsyncClient``.
    """
    if not isinstance(stream, Stream):
        raise TypeError(f"stream must be a Stream, as Client.stream returns, not {type(stream).__name__}")
    return stream


def check_heartbeat(seconds: float) -> float:
    """Return a heartbeat as seconds, if it is valid.

    Raises:
        TypeError: It is not a number.
        ValueError: It is not above zero.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"heartbeat must be a number of seconds, not {type(seconds).__name__}")
    if not seconds > 0:
        raise ValueError(f"heartbeat must be a number of seconds above zero, not {seconds}")
    return float(seconds)


def check_name_thread(value: bool) -> bool:
    """Return whether new conversations get a name, if the value says so.

    Raises:
        TypeError: It is neither ``True`` nor ``False``.
    """
    if not isinstance(value, bool):
        raise TypeError(f"name_thread must be True or False, not {type(value).__name__}")
    return value


class EventStream(Iterator[bytes]):
    """A blocking ``Stream`` as the body of a ``text/event-stream`` response.

    Return it to a WSGI server, which closes it when the response has ended or the client has gone. Closing, garbage
    collection and the end of a ``with`` block free the upstream connection at once. Iterate it in one thread;
    ``close`` is safe from any thread.

    >>> body = EventStream(client.stream("Explain WSGI"))  # doctest: +SKIP
    >>> start_response("200 OK", list(HEADERS.items()))  # doctest: +SKIP
    >>> return body  # doctest: +SKIP

    Args:
        stream: The stream to send. It may have been started; nothing else may read it.
        heartbeat: Seconds of silence after which a comment goes out. If the client has gone, the upstream connection is
            closed within a second after that. Default 10.
        on_complete: Called with the answer before the ``complete`` event, in the thread that iterates. If it raises an
            ``Exception``, that is logged, and the page gets an ``error`` event with the code ``not_kept`` instead.
        name_thread: Whether a new conversation gets a name from the service after its first whole answer. Then the
            response lasts up to 5 seconds longer than its last event. A failure is in the debug log only. Default
            ``True``.
        format: What turns the answer into bytes. Default: the events above.

    Raises:
        TypeError: ``stream`` is not a ``Stream``, ``heartbeat`` is not a number, or ``name_thread`` neither ``True``
            nor ``False``.
        ValueError: ``heartbeat`` is not above zero.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        heartbeat: float = HEARTBEAT,
        on_complete: Optional[Callable[[Answer], object]] = None,
        name_thread: bool = True,
        format: Optional[EventFormat] = None,
    ) -> None:
        self._stream = check_stream(stream)
        self._heartbeat = HeartbeatTimer(check_heartbeat(heartbeat))
        self._on_complete = on_complete
        self._name_thread = check_name_thread(name_thread)
        self._format = format or EventFormat()
        self._naming: Optional[ThreadNaming] = None
        # What came before the head of the response was sent.
        self._early_pieces: List[str] = []
        self._early_failure: Optional[CopilotError] = None
        self._begun = False
        self._ended = False

    def finds_conversation(self) -> bool:
        """Send the question before anything is iterated, and wait a moment for the service to take it.

        Returns:
            Whether there is such a conversation, as far as the service has said. The events are those of any answer.
        """
        try:
            for seconds in looks_at_taking(self._stream):
                self._early_pieces = self._stream._steps.poll_all(seconds)
                if self._early_pieces:
                    break
        except StopIteration:  # which comes again
            pass
        except CopilotError as error:
            self._early_failure = error
        except BaseException:  # nobody has this yet who would close it
            self.close()
            raise
        return not is_gone(self._early_failure)

    def _take(self, seconds: float) -> List[str]:
        if self._early_failure is not None:
            raise self._early_failure
        pieces, self._early_pieces = self._early_pieces, []
        return pieces or self._stream._steps.poll_all(seconds)

    def __next__(self) -> bytes:
        """Wait for the next bytes to send: one or several events, or a comment.

        Raises:
            StopIteration: Everything has been sent, or ``close`` was called.
        """
        if self._ended:
            if self._naming is not None:  # the server asks for more, so it has sent the last event
                self._naming.run()
            raise StopIteration
        if not self._begun:
            self._begun = True
            return PREAMBLE
        try:
            for seconds in looks(self._stream, self._heartbeat.next_wait()):
                pieces = self._take(seconds)
                if pieces:
                    self._heartbeat.reset()
                    return self._format.content(pieces)
                waiting = waiting_event(self._stream)
                if waiting is not None:
                    return waiting
        except CopilotError as error:
            return self._failed(error)
        except StopIteration:
            return self._last()
        return COMMENT

    def _failed(self, error: CopilotError) -> bytes:
        if self._ended:
            raise StopIteration from None
        self.close()
        log_failure(error)
        return self._format.last(error_data(error, self._stream.conversation))

    def _last(self) -> bytes:
        """Return the event that ends the response."""
        self.close()
        answer = self._stream.answer
        if answer is None:  # its own reader closed the stream, such as the ``on_start`` function
            raise StopIteration
        if self._name_thread and self._stream.is_new:
            self._naming = self._stream.naming()
        try:
            if self._on_complete is not None:
                self._on_complete(answer)
        except Exception as error:  # noqa: BLE001 - the response has begun, and on_complete may raise anything
            return self._format.last(not_kept_data(answer, error))
        return self._format.last(complete_data(answer))

    def close(self) -> None:
        """End the response and the upstream connection. May be called any number of times."""
        self._ended = True
        if self._naming is not None:
            self._naming.cancel()
        self._stream.close()
        self._stream._steps.join()

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # If __init__ raised, there is nothing to close.
        if hasattr(self, "_ended"):
            self.close()


class HeartbeatTimer:
    """Says when the next comment is due. A heartbeat has two comments, the second soon after the first."""

    def __init__(self, heartbeat: float) -> None:
        self._heartbeat = heartbeat
        self._comments = 0  # since something else was sent

    def next_wait(self) -> float:
        """Return the seconds from the last comment to the next one."""
        self._comments += 1
        return self._heartbeat if self._comments % 2 else min(PROBE_DELAY, self._heartbeat)

    def reset(self) -> None:
        """Start again, because something was sent."""
        self._comments = 0
