"""What an emulated Copilot knows: its options, the requests it received, its threads and answers.

These are the values that ``EmulatedService`` works on, and that tests read. A ``StoredAnswer`` is the only
one with a rule: text is in the thread before the client can have read it.

Nothing here checks a request, touches a socket or waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Literal, Mapping, Optional, Sequence, get_args

from copilot_sync.emulator.http1 import MAX_BODY, HttpRequest
from copilot_sync.emulator.listed_models import AUTO, DEFAULT_MODELS, RETIRED_MODELS, ListedModel
from copilot_sync.emulator.rendering import AnswerContext, RenderedEvent, render, routed_model
from copilot_sync.emulator.replies import Reply

Host = Literal["github", "api", "plan_api"]
Plan = Literal["free", "pro", "business", "none"]
PLANS: Sequence[str] = get_args(Plan)
"""The plans that an emulated account can have."""

OVERHEAD = 1024
"""Bytes that a request or a message takes besides its text."""


@dataclass
class EmulatorOptions:
    """How the service behaves when it can behave in more than one way. You may change it at any time.

    The documentation's page "The emulator" says which of these behaviors were seen on the real service.

    Attributes:
        plan: the account's plan. On ``"pro"`` every listed model answers, on ``"free"`` only ``auto``. On
            ``"business"`` the host ``api_url`` answers 421, and ``plan_api_url`` answers in its place. ``"none"`` is
            an account without Copilot: it gets no token.
        quota: fields that replace those of ``quotas`` in the reply that states the quota, e.g.
            ``{"remaining": {"premiumInteractions": 0}}``.
        token_lifetime: seconds that a token is valid.
        expiration: how a reply states when its token expires: in ``"milliseconds"``, in ``"nanoseconds"``, or
            not at all (``"missing"``).
        bad_cookies: the answer to invalid cookies: a ``"redirect"`` to the login page, that page itself
            (``"html"``), or 401 (``"unauthorized"``).
        thread_shape: the field that holds a new thread's id: ``"thread_id"``, ``"id"``, or ``"thread"`` (an
            object with an ``id``).
        models: what is listed: ids, or mappings with an ``id`` and any other fields. Each of them answers if it is
            a model for chat that no policy disables.
        unlisted_models: ids that answer though they are not listed: by default the documented models that were
            retired. That is a convenience for tests; the real service answers no such model, as with ``()``.
        auto_model: the model that a ``routedModel`` event names if a message asks for ``auto``; ``""`` sends no
            such event.
        null_lists: whether an empty list of threads, messages or models is sent as ``null``.
        accept_api_keys: bearers that are valid besides the tokens and ``api_key``.
        require_version_header: whether the web client's two version headers are required.
        absent_parent: what a message without ``parentMessageID`` follows in a thread that has messages: nothing
            (``"root"``), or the ``"newest"`` message. It isn't known what the real service does.
        gone_parent: the status for a ``parentMessageID`` that the thread doesn't have (any more). It isn't known
            what the real service answers.
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

    plan: Plan = "pro"
    quota: Mapping[str, Any] = field(default_factory=dict)
    token_lifetime: float = 1800.0
    expiration: Literal["milliseconds", "nanoseconds", "missing"] = "milliseconds"
    bad_cookies: Literal["redirect", "html", "unauthorized"] = "redirect"
    thread_shape: Literal["thread_id", "thread", "id"] = "thread_id"
    models: Sequence[ListedModel] = DEFAULT_MODELS
    unlisted_models: Sequence[str] = RETIRED_MODELS
    auto_model: str = "mai-code-1.1-flash"
    null_lists: bool = False
    accept_api_keys: Sequence[str] = ()
    require_version_header: bool = False
    absent_parent: Literal["root", "newest"] = "root"
    gone_parent: Literal[400, 404] = 400
    list_partial: bool = False
    finish_when_disconnected: bool = True
    max_body: int = MAX_BODY
    max_records: int = 100_000
    max_record_bytes: int = 128 * 1024 * 1024
    max_threads: int = 100_000
    max_thread_bytes: int = 128 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.plan not in PLANS:
            raise ValueError(f"plan is one of {', '.join(PLANS)}, not {self.plan!r}")


@dataclass(frozen=True)
class RecordedRequest(HttpRequest):
    """A request as the emulator received it.

    Attributes:
        stage: what it asks for, one of ``STAGES``.
        host: which of the URLs it came to: ``"github"``, ``"api"`` or ``"plan_api"``.
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
        name: empty until a client names the thread or asks the service for a name.
        manually_named: whether a client chose the name.
        created_at, updated_at: times as the protocol writes them.
        messages: what ``GET .../messages`` lists, with the wire's fields, in order.
        unfinished: the answers that are still being written.
        size: bytes of its messages.
        auto_picked_model: the model that was last chosen for a message that asked for ``auto``.
    """

    id: str
    created_at: str
    updated_at: str
    name: str = ""
    manually_named: bool = False
    messages: List[Dict[str, Any]] = field(default_factory=list)
    unfinished: List[StoredAnswer] = field(default_factory=list)
    size: int = 0
    auto_picked_model: str = ""

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
            "autoPickedModel": self.auto_picked_model,
            "sharedAt": None,
            "sharedID": None,
            "repoID": None,
            "repoOwnerID": None,
            "associatedRepoIDs": [],
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
        self._end: Mapping[str, Any] = {}
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
        return {
            **self._message,
            "content": self.text,
            "model": routed_model(self.reply, self.context) or self.context.model,
            "generatedWithAuto": self.context.model == AUTO,
            "interrupted": not self.finished or self.reply.error is not None,
            "references": list(self.reply.references),
            **self._end,
        }

    def _write(self) -> Iterator[RenderedEvent]:
        self.started = True
        for event in render(self.reply, self.context):
            if event.text:
                self._texts.append(event.text)
            self._end = event.stored or self._end
            if event.is_last:
                self._finish()
            yield event
        self._finish()

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            self._on_finish(self)
