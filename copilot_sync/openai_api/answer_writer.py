"""How an answer is written: as JSON, or as server-sent events. Pure."""

import abc
import json
from typing import Any, Dict

from copilot_sync.models import Answer
from copilot_sync.openai_api.failures import ApiError

#: Sent while nothing else is. Clients stumble over an event of another type, but not over a comment.
COMMENT = b": waiting\n\n"

_encode = json.JSONEncoder(separators=(",", ":")).encode


def data_event(value: Dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: %b\n\n" % _encode(value).encode("ascii")


def json_body(value: Dict[str, Any]) -> bytes:
    """Return the body of a response."""
    return _encode(value).encode("ascii")


class AnswerWriter(abc.ABC):
    """What the events of an answer look like."""

    @abc.abstractmethod
    def first(self) -> bytes:
        """Return what goes ahead of the text."""

    @abc.abstractmethod
    def delta(self, text: str) -> bytes:
        """Return the event for a piece of text."""

    @abc.abstractmethod
    def end(self, answer: Answer) -> bytes:
        """Return what says that the answer is whole.

        Raises:
            ApiError: It is not to be sent after all.
        """

    def failed(self, error: ApiError) -> bytes:
        """Return what says that the answer has failed."""
        return data_event(error.to_dict())
