"""A chat completion as server-sent events: the body of a response.

An answer that is not whole ends with an error object and without ``[DONE]``; the clients raise then.

Threads: confined to the thread that iterates, but for ``close``.
"""

import logging
from typing import Callable, Iterator, List, Optional

from copilot_sync.contrib.openai_gateway.answering import Answering, ClientLeftError
from copilot_sync.contrib.openai_gateway.chat_objects import COMMENT, DONE, ChatObjects, data_event
from copilot_sync.contrib.openai_gateway.failures import ApiError, internal
from copilot_sync.models import Answer

logger = logging.getLogger(__name__)

#: Seconds that the head of a response waits for the first text: an error that comes meanwhile has its own status.
PATIENCE = 1.0
#: Seconds of silence after which a comment goes out.
HEARTBEAT = 10.0
#: The same if only writing tells that the client has left: the second write fails.
SHORT_HEARTBEAT = 0.4


class ChatEvents(Iterator[bytes]):
    """The events of one completion. Dropping it ends the question, as ``close`` does.

    Args:
        answering: The question under way. It is closed in the end.
        objects: The objects of the completion.
        includes_usage: Whether a last chunk says what it cost.
        on_answer: Called with the whole answer before its end is sent.
    """

    def __init__(
        self,
        answering: Answering,
        objects: ChatObjects,
        includes_usage: bool,
        on_answer: Callable[[Answer], object],
    ) -> None:
        self._answering = answering
        self._arguments = answering, objects, includes_usage, on_answer
        self._events: Iterator[bytes] = iter(())

    def begin(self) -> None:
        """Wait a moment for the first text.

        Raises:
            ApiError: The answer has failed already.
            ClientLeftError: The client has left.
        """
        self._events = _guarded(_events(*self._arguments, self._answering.pieces(PATIENCE)))

    def __next__(self) -> bytes:
        try:
            return next(self._events)
        except StopIteration:
            self.close()
            raise

    def close(self) -> None:
        """End the question. May be called any number of times, from any thread."""
        self._answering.close()

    def __del__(self) -> None:
        if "_answering" in self.__dict__:  # else __init__ raised
            self.close()


def _guarded(events: Iterator[bytes]) -> Iterator[bytes]:
    """Yield events, and an error object if they fail."""
    try:
        yield from events
    except ClientLeftError:
        return
    except ApiError as error:
        logger.error("an answer failed while it was sent: %s", error)
        yield data_event(error.to_dict())
    except Exception:
        logger.exception("the gateway failed while it sent an answer")
        yield data_event(internal().to_dict())


def _events(
    answering: Answering,
    objects: ChatObjects,
    includes_usage: bool,
    on_answer: Callable[[Answer], object],
    pieces: Optional[List[str]],
) -> Iterator[bytes]:
    heartbeat = HEARTBEAT if answering.sees_client else SHORT_HEARTBEAT
    yield b"".join([objects.first(), *map(objects.delta, pieces or ())])
    while pieces is not None:
        pieces = answering.pieces(heartbeat)
        if pieces is not None:
            yield b"".join(map(objects.delta, pieces)) or COMMENT
    answer = answering.answer()
    on_answer(answer)
    yield b"".join([objects.end(), objects.usage(answer.usage) if includes_usage else b"", DONE])
