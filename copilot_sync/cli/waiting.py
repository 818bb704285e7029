"""What a person sees at a terminal while a command waits for an answer that it shows only when it is whole.

It is on stderr, and gone when the answer comes. Nothing is shown that no person looks at.
"""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Type

from copilot_sync.cli.terminal import is_animated
from copilot_sync.errors import InvalidAnswerError
from copilot_sync.hooks import CallEvent

if TYPE_CHECKING:
    from rich.status import Status

_WORDS = "waiting for the answer"


class WaitingView:
    """Shows while its block lasts that an answer is awaited. ``note`` is a hook for the client that asks."""

    _status: "Optional[Status]" = None

    def note(self, event: CallEvent) -> None:
        """Show that an answer does not fit its schema, and is asked for again."""
        is_misfit = event.kind == "retrying" and event.error_type == InvalidAnswerError.__name__
        if self._status is not None and is_misfit:
            self._status.update(f"answer {event.attempts} does not fit the schema: waiting for another one")

    def __enter__(self) -> "WaitingView":
        if is_animated(sys.stderr):
            from rich.console import Console  # it takes time to load

            self._status = Console(stderr=True).status(_WORDS)
            self._status.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._status is not None:
            self._status.stop()
