"""What a call passes before it sends anything, and what is told how it ended: a limit, a budget, a ledger.

A client has its guards in an order. A call enters them one after the other, and leaves them the other way round, in
whatever way it ends: with an answer, with an error, or because it was closed. One that is refused has sent nothing.

Threads: a guard is entered and left by many threads at once. One call enters each once, and leaves it once.
"""

from typing import Callable, Generator, List, NamedTuple, Optional, Sequence

from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.delivery.message import PendingMessage
from copilot_sync.errors import StreamClosedError
from copilot_sync.settings import RetryPolicy
from copilot_sync.stepping import Pause
from copilot_sync.transport.call import CallContext


class CallEnd(NamedTuple):
    """How a call ended.

    Attributes:
        message: What was asked.
        call: Its time, and how many requests it has made.
        builder: What came of the answer. Its ``answer`` is ``None`` if there is none.
        error: What ended the call, if it was an error; one that was closed may have been ended by its own.
    """

    message: PendingMessage
    call: CallContext
    builder: AnswerBuilder
    error: Optional[Exception]

    @property
    def failure(self) -> Optional[Exception]:
        """What the call failed with; ``None`` if it did not, or was closed."""
        return None if isinstance(self.error, StreamClosedError) else self.error


#: Told once how a call ended. It must neither raise nor wait for anything.
Leave = Callable[[CallEnd], None]


class CallGuard:
    """What lets calls begin."""

    def entering(
        self, message: PendingMessage, call: CallContext, policy: Optional[RetryPolicy]
    ) -> Generator[Pause, None, Leave]:
        """Wait, in steps, until the call may begin, and return what is to be told of its end.

        A step that polls may not block: ``call.until_may_block`` comes first. ``policy`` is how patient the call is.

        Raises:
            CopilotError: It may not begin.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End what it keeps going by itself. It may be entered again afterwards."""


class Passage:
    """The guards that one call has entered.

    Args:
        message: What is asked.
        call: The call.
        builder: What comes of the answer.
        policy: How patient it is.
    """

    def __init__(
        self, message: PendingMessage, call: CallContext, builder: AnswerBuilder, policy: Optional[RetryPolicy]
    ) -> None:
        self._message = message
        self._call = call
        self._policy = policy
        self._builder = builder
        self._leaving: List[Leave] = []

    def entering(self, guards: Sequence[CallGuard]) -> Generator[Pause, None, None]:
        """Enter all guards. Errors as in ``CallGuard.entering``."""
        for guard in guards:
            leave = yield from guard.entering(self._message, self._call, self._policy)
            self._leaving.append(leave)

    def leave(self, error: Optional[Exception] = None) -> None:
        """Leave those that were entered. After the first time it does nothing."""
        while self._leaving:
            self._leaving.pop()(CallEnd(self._message, self._call, self._builder, error))
