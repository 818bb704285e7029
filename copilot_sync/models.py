"""The values that go in and come out: conversations, answers, and what the thread API lists.

All of them are plain data without I/O; all pickle and compare by value. ``Conversation`` is
the one that changes: its last message moves on with each answer.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from copilot_sync.events import UnknownEvent
from copilot_sync.usage import Usage

#: Role messages as chat programs keep them: ``{"role": "user", "content": "…"}``.
Messages = List[Dict[str, Any]]
#: Cookies by name.
Cookies = Dict[str, str]


class BaseConversation:
    """What ``GithubCopilot`` yields if a conversation is asked for."""


class Conversation(BaseConversation):
    """A thread of the service, to go on with: pass it to the next call.

    It is updated in place: when an answer is whole, ``message_id`` becomes that answer's id. Two conversations
    are equal if both ids are. ``to_dict`` gives what fits a JSON session.

    Args:
        conversation_id: The thread's id.

    Raises:
        TypeError: The id is not a string.
        ValueError: The id is empty.
    """

    conversation_id: str
    #: The id of the last message of the thread that is known, which the next one answers; ``None`` at the beginning.
    message_id: Optional[str]

    def __init__(self, conversation_id: str) -> None:
        if not isinstance(conversation_id, str):
            raise TypeError(f"conversation_id must be a string, not {type(conversation_id).__name__}")
        if not conversation_id:
            raise ValueError("conversation_id must not be empty")
        self.conversation_id = conversation_id
        self.message_id = None

    def to_dict(self) -> Dict[str, Optional[str]]:
        """Return the conversation as a JSON-safe dictionary."""
        return {"conversation_id": self.conversation_id, "message_id": self.message_id}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Conversation":
        """Make a conversation of what ``to_dict`` gave.

        Raises:
            TypeError: ``data`` is no mapping, or an id in it is no string.
            ValueError: ``data`` has no ``conversation_id``.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"a conversation is made of a mapping, not of {type(data).__name__}")
        if "conversation_id" not in data:
            raise ValueError("a conversation needs a conversation_id")
        message_id = data.get("message_id")
        if message_id is not None and not isinstance(message_id, str):
            raise TypeError(f"message_id must be a string, not {type(message_id).__name__}")
        conversation = cls(data["conversation_id"])
        conversation.message_id = message_id
        return conversation

    @classmethod
    def from_value(cls, value: "Union[None, str, Conversation]") -> "Optional[Conversation]":
        """Read what callers may give for a conversation: nothing (``None`` or ``""``), an id, or a conversation."""
        if value is None or value == "":
            return None
        if isinstance(value, Conversation):
            return value
        if isinstance(value, str):
            return cls(value)
        raise TypeError(f"conversation must be a Conversation or its id, not {type(value).__name__}")

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Conversation) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Conversation({self.conversation_id!r}, message_id={self.message_id!r})"


@dataclass(frozen=True)
class Answer:
    """A finished answer. ``str(answer)`` is its text.

    Attributes:
        text: The text.
        conversation: The conversation it belongs to, to go on with.
        model: The model that answered: the routed one, else what the service named, else the one asked for.
        usage: What it cost, ``None`` if the service did not say.
        message_id: The id of the answer in the thread.
        annotations: The service's code annotations as they came, ``{}`` if there were none.
        complete: Whether the service said that the answer is whole, and all of it could be read. ``False`` means that
            some of it may be missing, and that its thread could not tell.
        references: What the answer used, in the service's order: files (``type``, ``path``, ``repoOwner``,
            ``repoName``, ``url``, …), web results (public captures, 2026). Each is a JSON object as it came, but for
            what JSON can't carry: lone surrogates are U+FFFD, numbers beyond a float are ``None``. ``()`` if there
            were none.
        events: The events of types that are not known here, in order. At most 1000, and at most 1 MiB of JSON
            together; a warning says if more came. Not compared.
        data: The closing event as it came, the whole document if the reply was one, or the stored message if the
            answer was read from its thread. ``{}`` if none came. Not compared.
        cached: Whether it came from the ``answer_cache``. Then nothing was sent: there are no ``events``, no ``data``
            and no ``message_id``, ``usage`` is what the answer cost at first, and going on with the conversation
            raises ``ValueError``.
        parsed: The answer as data if it was asked for with a ``schema``, else ``None``. Then ``usage`` is that of all
            the answers that it took.
        parsed_json: The same as JSON; ``None`` if no schema was asked for. Not compared.
    """

    text: str
    conversation: Conversation
    model: str
    usage: Optional[Usage] = None
    message_id: Optional[str] = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = True
    references: Tuple[Mapping[str, Any], ...] = ()
    events: Tuple[UnknownEvent, ...] = field(default=(), compare=False, repr=False)
    data: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    cached: bool = False
    parsed: Any = None
    parsed_json: Optional[str] = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        """Return the text, which notebooks show as Markdown."""
        return self.text

    def to_dict(self) -> Dict[str, Any]:
        """Return the answer as plain JSON, with the id of its conversation.

        The annotations, the events and the raw data are left out. Only an answer from the cache has ``cached``, which
        is ``True`` then; only one that was asked for with a schema has ``parsed``.
        """
        return {
            "text": self.text,
            "conversation_id": self.conversation.conversation_id,
            "message_id": self.message_id,
            "model": self.model,
            "usage": None if self.usage is None else asdict(self.usage),
            "complete": self.complete,
            "references": [dict(reference) for reference in self.references],
            **({"cached": True} if self.cached else {}),
            **({} if self.parsed_json is None else {"parsed": json.loads(self.parsed_json)}),
        }


@dataclass(frozen=True)
class Thread:
    """A thread as the service lists it. The times are ISO 8601 strings as they came.

    Attributes:
        id: The conversation's id.
        name: Its name, ``""`` while it has none (see ``Client.name_thread``).
        created_at: When it was created.
        updated_at: When it last changed.
        shared_at: When it was shared; ``None`` if it is not.
        manually_named: Whether a person chose the name.
        data: The JSON object as it came. Not compared.
    """

    id: str
    name: str = ""
    created_at: Optional[str] = None
    updated_at: Optional[str] = None
    shared_at: Optional[str] = None
    manually_named: bool = False
    data: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Message:
    """A message of a thread.

    Attributes:
        id: The message's id.
        role: ``user`` or ``assistant``.
        content: The text.
        parent_id: The message that this one answers; ``root`` for the first of a thread.
        created_at: When it was written, an ISO 8601 string as it came.
        interrupted: Whether the answer was stopped before its end.
        model: The model that answered or was asked; ``""`` if the service did not say.
        usage: What an answer cost, ``None`` if the service did not say.
        references: What an answer used, or a question carried, as in ``Answer.references``.
        data: The JSON object as it came. Not compared.
    """

    id: str
    role: str
    content: str = ""
    parent_id: Optional[str] = None
    created_at: Optional[str] = None
    interrupted: bool = False
    model: str = ""
    usage: Optional[Usage] = None
    references: Tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    data: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Model:
    """A model as the service lists it (public captures, 2026). What it does not say is empty, ``None`` or as below.

    Attributes:
        id: What ``model=`` takes.
        name: Its name for people.
        vendor: Who makes it, or runs it.
        preview: Whether it may change or go away soon.
        kind: What it is for: ``chat``, ``embeddings``, ``completion`` or another word; ``""`` if that is unknown.
        enabled: ``False`` if the service keeps it out of the page's list, or if a policy is not ``enabled``.
        picker_category: The group that the page lists it in.
        vision: Whether it reads images.
        premium_multiplier: How many premium requests a question costs.
        data: All that the service said of it. It counts neither for ``==`` nor for ``repr``.
    """

    id: str
    name: str = ""
    vendor: str = ""
    preview: bool = False
    kind: str = ""
    enabled: bool = True
    picker_category: str = ""
    vision: bool = False
    premium_multiplier: Optional[float] = None
    data: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Quota:
    """The account's plan, and what it has left of it, as github.com said (public captures, 2026).

    The names of the limits are the service's, such as ``chat``. What is no number is left out of both mappings.

    Attributes:
        plan: The plan; ``""`` if it is unknown.
        license_type: The license; ``""`` if it is unknown.
        limits: How much there is until the reset, by name.
        remaining: How much of it is left, by name.
        resets_at: When it begins anew, an ISO 8601 string as it came; ``None`` if it is unknown.
        overages_enabled: Whether more may be used and is paid for; ``None`` if it is unknown.
        data: All that the service said. It counts neither for ``==`` nor for ``repr``.
    """

    plan: str = ""
    license_type: str = ""
    limits: Mapping[str, Union[int, float]] = field(default_factory=dict)
    remaining: Mapping[str, Union[int, float]] = field(default_factory=dict)
    resets_at: Optional[str] = None
    overages_enabled: Optional[bool] = None
    data: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
