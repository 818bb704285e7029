"""What a stream can say, as frozen values.

``decode`` in ``protocol/events.py`` makes them of the wire's JSON. Every event keeps the object that
came in ``data``, so that nothing of it is lost, and its ``type`` as it stood there. An event that
is not known here comes through as ``UnknownEvent``.
"""

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Tuple

from copilot_sync.usage import Usage


@dataclass(frozen=True)
class Event:
    """The root of all events.

    Attributes:
        type: The event's type as the service named it.
        data: The whole object as it came.
    """

    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True, init=False)
class ContentEvent(Event):
    """The next piece of the answer, in ``body``; never empty."""

    body: str

    def __init__(self, type: str, data: Mapping[str, Any], body: str) -> None:
        # What a frozen dataclass would do by itself takes twice as long, and these come by the thousand.
        fields = self.__dict__
        fields["type"], fields["data"], fields["body"] = type, data, body


@dataclass(frozen=True)
class CompleteEvent(Event):
    """The answer is whole.

    Attributes:
        id: The id of the answer in the thread.
        model: The model as named here, ``""`` if it is not.
        usage: What it cost, if the service says so.
        annotations: Code annotations.
        references: What the answer used, as in ``Answer.references``.
    """

    id: Optional[str]
    model: str
    usage: Optional[Usage]
    annotations: Mapping[str, Any]
    references: Tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class RoutedModelEvent(Event):
    """Which model was chosen to answer (``routedModel``, ``threadAutoPickedModel``)."""

    model: str


@dataclass(frozen=True)
class AnnotationsEvent(Event):
    """Code annotations ahead of the end."""

    annotations: Mapping[str, Any]


@dataclass(frozen=True)
class ErrorEvent(Event):
    """The service failed after it had begun. A stream raises the error instead of handing this out."""

    message: str
    code: str


@dataclass(frozen=True)
class UnknownEvent(Event):
    """An event of a type that is not known here, to look at in ``data``."""
