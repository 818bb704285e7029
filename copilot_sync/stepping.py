"""How a blocking call is made in steps, so that whoever makes it need not wait inside of it.

A call is made by a generator, which blocks wherever it has to wait. A step of it that *polls* pauses there instead: it
yields a ``Pause``, and whoever makes the call decides how to wait. Pure: no I/O, no clock and no thread.
"""

import enum
from typing import Any, Callable, Generator, NamedTuple, TypeVar

T = TypeVar("T")


class Pace(enum.Enum):
    """How a step may wait."""

    #: As long as the limits of the call allow.
    BLOCKING = "blocking"
    #: For bytes alone, and up to a moment. Where it would wait longer it yields a ``Pause``.
    POLLING = "polling"
    #: As if blocking, but only as far as a step that polls can go on: until the question is sent.
    HELPING = "helping"


class Pause(enum.Enum):
    """Why a step that polls goes no further."""

    #: The bytes that come next have not arrived.
    NOTHING_YET = "nothing yet"
    #: What comes next may block: a request, or a wait.
    BLOCKS = "blocks"


class Delay(NamedTuple):
    """What keeps a call from sending its question.

    Attributes:
        reason: ``limit``: the limits that were set for the account; ``service``: the service asked for a pause, or
            failed.
        seconds: How long it may take, as far as it is known; infinite if it is not.
        why: The words of the error that it waits after; ``""`` if there are none.
    """

    reason: str
    seconds: float
    why: str = ""


class NothingYet(Exception):  # noqa: N818 - it is no error
    """Nothing has arrived, and the step may not wait for it."""


class WouldBlockError(Exception):
    """What a step that polls has tried can't be done without waiting. Nothing of it was done."""


class Watch:
    """What watches a call's connection between two steps. This one watches nothing; an event loop has its own."""

    #: Whether a socket is being watched.
    is_watching = False
    #: Whether a step may leave bytes, or the failure of the connection, for later: it is told of them again.
    repeats = False

    def begin(self, sock: Any, time_left: Callable[[], float]) -> bool:
        """Watch a socket for bytes, and the time that is left. Return ``False`` if that can't be."""
        return False

    def call_soon(self) -> None:
        """Have the next step begin soon."""

    def end(self) -> None:
        """Stop watching, because the socket is about to be somebody else's, or closed."""

    def closes(self, close: Callable[[], None]) -> bool:
        """Whether ``close``, which ends a call, is called where the connection is watched, soon, and not here."""
        return False


def without_pauses(steps: "Generator[Pause, None, T]") -> T:
    """Go through steps that may block, and so never pause, and return what comes out.

    Raises:
        RuntimeError: One has paused.
    """
    try:
        next(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise RuntimeError("a step paused that may block")
