"""One question under way: it has a turn of the account's pace from its first moment to its end.

Threads: confined to the thread that answers the request, but for ``close``.
"""

import dataclasses
import math
import time
from typing import Callable, List, Optional

from copilot_sync.errors import CopilotError, InvalidAnswerError
from copilot_sync.models import Answer
from copilot_sync.openai_api.failures import empty, from_copilot, incomplete, too_busy
from copilot_sync.pacing.limiter import LOOK_AGAIN, RateLimiter
from copilot_sync.pacing.policy import Scope, verdict_of
from copilot_sync.stream import Stream

#: Seconds between two looks whether the client is still there.
LOOK = 0.25
#: Seconds of a wait that goes on afterwards.
_LONG = 60.0

HasLeft = Optional[Callable[[], bool]]


class ClientLeftError(Exception):
    """Nobody waits for the answer any more."""


def take_turn(limiter: RateLimiter, patience: float, has_left: HasLeft) -> None:
    """Wait until the account's pace allows another question.

    Args:
        limiter: The pace. Its slot is taken.
        patience: Seconds to wait at most.
        has_left: Tells whether the client has left; ``None`` if nothing does.

    Raises:
        ApiError: It would take longer (429).
        ClientLeftError: The client has left.
    """
    end = time.monotonic() + patience
    while True:
        seconds = limiter.try_acquire()
        if seconds == 0:
            return
        left = end - time.monotonic()
        if left <= 0 or (seconds > left and not math.isinf(seconds)):
            raise too_busy(seconds)
        _check_presence(has_left)
        time.sleep(min(seconds, LOOK_AGAIN))


def _check_presence(has_left: HasLeft) -> None:
    if has_left is not None and has_left():
        raise ClientLeftError


class Answering:
    """A stream with its turn. ``close`` ends both.

    Args:
        stream: The stream.
        limiter: The pace, of which a slot is taken.
        has_left: Tells whether the client has left; ``None`` if nothing does.
        is_data: Whether the answer has a schema: its text is the document in it then, in one piece.
    """

    def __init__(self, stream: Stream, limiter: RateLimiter, has_left: HasLeft, *, is_data: bool = False) -> None:
        self._stream = stream
        self._is_data = is_data
        self._is_told = not is_data  # of the document
        self._limiter = limiter
        self._has_left = has_left
        self._turns = [limiter]  # to be given back once, whoever closes

    @property
    def sees_client(self) -> bool:
        """Whether it is seen that the client leaves, without writing."""
        return self._has_left is not None

    def pieces(self, seconds: float) -> Optional[List[str]]:
        """Wait for text, up to so many seconds.

        Returns:
            What came at once; nothing if nothing came in time, ``None`` at the end.

        Raises:
            ApiError: The answer failed.
            ClientLeftError: The client has left.
        """
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            try:
                found = self._stream._steps.poll_all(max(0.0, min(left, LOOK)))
            except StopIteration:
                return self._last_pieces()
            except CopilotError as error:
                self._note(error)
                raise from_copilot(error) from error
            if self._is_data:
                found = []
            if found or left <= 0:
                return found
            _check_presence(self._has_left)

    def _last_pieces(self) -> Optional[List[str]]:
        """Return the document, the first time; ``None`` for an answer that is no data."""
        if self._is_told:
            return None
        self._is_told = True
        return [self.answer().text]

    def answer(self) -> Answer:
        """Return the answer after its end.

        Raises:
            ApiError: It may not be whole, there is nothing in it, or its stream was closed.
        """
        answer = self._stream.answer
        if answer is None or not answer.complete:
            raise incomplete()
        self._limiter.answered()
        if not answer.text.strip():
            raise empty()
        return answer if answer.parsed_json is None else dataclasses.replace(answer, text=answer.parsed_json)

    def whole(self) -> Answer:
        """Wait for the whole answer. The question is closed in any case.

        Raises:
            ApiError: The answer failed, or may not be whole.
            ClientLeftError: The client has left.
        """
        try:
            while self.pieces(_LONG) is not None:
                pass
            return self.answer()
        finally:
            self.close()

    def _note(self, error: CopilotError) -> None:
        """Tell the pace what a failure means for others."""
        verdict = verdict_of(error)
        if verdict.scope is Scope.MESSAGE:
            is_answer = isinstance(error, InvalidAnswerError)
            if is_answer or error.status is not None:  # the service was there, and did not ask to slow down
                self._limiter.answered()
        elif verdict.scope is not Scope.ALL_STOP and not verdict.not_asked:
            self._limiter.penalize(getattr(error, "retry_after", None))

    def close(self) -> None:
        """End the question. May be called any number of times, from any thread."""
        self._stream.close()
        self._stream._steps.join()
        try:
            limiter = self._turns.pop()
        except IndexError:
            return
        limiter.release()
