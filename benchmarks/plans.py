"""What an answer is to look like on the wire. The prompt says it, so that every client can ask for it."""

import re
from dataclasses import dataclass

#: Characters of text in an event that says when it was sent: nanoseconds of the monotonic clock.
STAMP = 19

_PLAN = re.compile(rb"plan:(\w+):(\d+):(\d+):(\d+):(\d+)")


@dataclass(frozen=True)
class Plan:
    """An answer.

    Attributes:
        framing: ``chunked`` (an event a chunk), ``halves`` (an event over two chunks), ``whole`` (all events in one
            chunk), ``length``, ``close`` (it ends with the connection), or ``gzip`` (chunked as well).
        events: How many events with text it has.
        batch: How many of them are sent at once.
        gap: Microseconds from one sending to the next; 0 for as fast as it goes. Then, and only then, the text of an
            event is not the moment at which it was sent.
        size: Characters of text in an event where it is not that moment.
    """

    framing: str = "chunked"
    events: int = 1
    batch: int = 1
    gap: int = 0
    size: int = 6

    @property
    def characters(self) -> int:
        """How long the whole text is."""
        return self.events * (STAMP if self.gap else self.size)

    def prompt(self) -> str:
        """The prompt that asks for it."""
        return f"plan:{self.framing}:{self.events}:{self.batch}:{self.gap}:{self.size}"

    @classmethod
    def of(cls, request: bytes) -> "Plan":
        """Find the plan in a request."""
        found = _PLAN.search(request)
        if found is None:
            raise ValueError("the request asks for nothing that is known here")
        framing, *numbers = found.groups()
        return cls(framing.decode(), *map(int, numbers))
