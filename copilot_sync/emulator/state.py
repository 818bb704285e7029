"""What an emulated Copilot knows: its options, the requests it received, its threads and answers.

These are the values that ``EmulatedService`` works on, and that tests read. A ``StoredAnswer`` is the only
one with a rule: text is in the thread before the client can have read it.

Nothing here checks a request, touches a socket or waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Literal, Mapping, Optional, Sequence, Union

from copilot_sync.emulator.http1 import MAX_BODY, HttpRequest
from copilot_sync.emulator.rendering import AnswerContext, RenderedEvent, render
from copilot_sync.emulator.replies import Reply

Host = Literal["github", "api"]
DEFAULT_MODELS = ("gpt-4o", "o1-mini", "o1-preview", "claude-3.5-sonnet")
OVERHEAD = 1024
"""Bytes that a request or a message takes besides its text."""


@dataclass
class EmulatorOptions:
    """How the service behaves when it can behave in more than one way. You may change it at any time.

    Attributes:
        token_lifetime: seconds that a token is valid.
        expiration: how a reply states when its token expires: in ``"milliseconds"``, in ``"nanoseconds"``, or
            not at all (``"missing"``).
        bad_cookies: the answer to invalid cookies: a ``"redirect"`` to the login page, that page itself
            (``"html"``), or 401 (``"unauthorized"``).
        thread_shape: the field that holds a new thread's id: ``"thread_id"``, ``"id"``, or ``"thread"`` (an
            object with an ``id``).
        models: ids, or mappings with an ``id`` and any other fields to list.
        accept_api_keys: bearers that are valid besides the tokens and ``api_key``.
        require_version_header: whether the web client's two version headers are required.
        wrong_plan: whether every token belongs to another plan's host (421).
        list_partial: whether an unfinished answer is listed, as interrupted. It isn't known what the real
            service does; by default only finished answers are listed.
        finish_when_disconnected: whether an answer is finished in its thread after its client has gone.
        max_body: bytes allowed in a request's body.
        max_records: requests to keep for inspection; older ones are forgotten.
        max_record_bytes: bytes of those requests, headers and bodies; older ones are forgotten.
        max_threads: threads to keep; the oldest are forgotten.
        max_thread_bytes: bytes of all messages; the oldest threads are forgotten, and a thread of that size
            accepts no more messages.
    """

    token_lifetime: float = 1800.0
    expiration: Literal["milliseconds", "nanoseconds", "missing"] = "milliseconds"
    bad_cookies: Literal["redirect", "html", "unauthorized"] = "redirect"
    thread_shape: Literal["thread_id", "thread", "id"] = "thread_id"
    models: Sequence[Union[str, Mapping[str, Any]]] = DEFAULT_MODELS
    accept_api_keys: Sequence[str] = ()
    require_version_header: bool = False
    wrong_plan: bool = False
    list_partial: bool = False
    finish_when_disconnected: bool = True
    max_body: int = MAX_BODY
    max_records: int = 100_000
    max_record_bytes: int = 128 * 1024 * 1024
    max_threads: int = 100_000
    max_thread_bytes: int = 128 * 1024 * 1024


@dataclass(frozen=True)
class RecordedRequest(HttpRequest):
    """A request as the emulator received it.

    Attributes:
        stage: what it asks for, one of ``STAGES``.
        host: which of the two URLs it came to, ``"github"`` or ``"api"``.
        thread_id: the thread that its path names, or ``None``.
        connection: the number of the connection that it came over, from 1.
        time: when it was complete, by ``time.monotonic()``.
        request_id: the ``x-github-request-id`` of its reply.
    """

    stage: str = "unknown"
    host: Host = "api"
    thread_id: Optional[str] = None
    connection: int = 0
    time: float = 0.0
    request_id: str = ""

    @property
    def size(self) -> int:
        """The bytes that it takes in memory, roughly."""
        fields = sum(len(name) + len(value) for name, value in self.headers.items())
        return OVERHEAD + len(self.body) + len(self.path) + fields


@dataclass
class StoredThread:
    """A thread as the service keeps it.

    Attributes:
        id: its id.
        name: taken from the first message, until the thread is renamed.
        manually_named: whether it was renamed.
        created_at, updated_at: times as the protocol writes them.
        messages: what ``GET .../messages`` lists, with the wire's fields, in order.
        unfinished: the answers that are still being written.
        size: bytes of its messages.
    """

    id: str
    created_at: str
    updated_at: str
    name: str = ""
    manually_named: bool = False
    messages: List[Dict[str, Any]] = field(default_factory=list)
    unfinished: List[StoredAnswer] = field(default_factory=list)
    size: int = 0

    @property
    def user_messages(self) -> List[Dict[str, Any]]:
        """The user's messages."""
        return [message for message in self.messages if message["role"] == "user"]

    @property
    def assistant_messages(self) -> List[Dict[str, Any]]:
        """The finished answers."""
        return [message for message in self.messages if message["role"] == "assistant"]

    def to_dict(self) -> Dict[str, Any]:
        """Return the thread as the wire lists it."""
        return {
            "id": self.id,
            "name": self.name,
            "manuallyNamed": self.manually_named,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "autoPickedModel": "",
            "sharedAt": None,
        }


class StoredAnswer:
    """The assistant's message in a thread, while it is being written and afterwards.

    Reading an event from ``events`` writes that event's text into the thread. The message is finished, and
    listed, before the event that ends it is yielded. So a client never knows of an end that the thread
    doesn't know of.

    Args:
        context: what is answered.
        message: the message as the wire lists it, without its text.
        on_finish: called with the answer when it is finished.

    Attributes:
        context: the same.
        reply: how it is answered, once ``start`` was called.
        events: the events not read yet. One thread after another may read them.
        started: whether any event was read.
        finished: whether the message is finished.
    """

    def __init__(
        self, context: AnswerContext, message: Dict[str, Any], on_finish: Callable[[StoredAnswer], None]
    ) -> None:
        self.context = context
        self.reply = Reply(pieces=())
        self.events: Iterator[RenderedEvent] = iter(())
        self.started = False
        self.finished = False
        self._message = message
        self._texts: List[str] = []
        self._on_finish = on_finish

    def start(self, reply: Reply) -> None:
        """Set the reply that the events are rendered from."""
        self.reply = reply
        self.events = self._write()

    @property
    def text(self) -> str:
        """The text written so far."""
        return "".join(self._texts)

    def to_dict(self) -> Dict[str, Any]:
        """Return the message as the wire lists it; an unfinished one is marked as interrupted."""
        interrupted = not self.finished or self.reply.error is not None
        return {**self._message, "content": self.text, "interrupted": interrupted}

    def _write(self) -> Iterator[RenderedEvent]:
        self.started = True
        for event in render(self.reply, self.context):
            if event.text:
                self._texts.append(event.text)
            if event.is_last:
                self._finish()
            yield event
        self._finish()

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            self._on_finish(self)
