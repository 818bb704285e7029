"""An answer as server-sent events, the body of a response.

An answer that is not whole ends with an error object, and without the event that says that it is whole; the clients
raise then.

Threads: confined to the thread that iterates, but for ``close``.
"""

import logging
from typing import Iterator, List, Optional

from copilot_sync.contrib.openai_gateway.answering import Answering, ClientLeftError
from copilot_sync.openai_api.answer_writer import COMMENT, AnswerWriter
from copilot_sync.openai_api.failures import ApiError, internal

logger = logging.getLogger(__name__)

#: Seconds that the head of a response waits for the first text: an error that comes meanwhile has its own status, and
#: clients try again by themselves. A refusal may take more than a second: the empty thread is deleted first, and that
#: waits for up to a second if the service asks for it.
PATIENCE = 2.5
#: Seconds of silence after which a comment goes out.
HEARTBEAT = 10.0
#: The same if only writing tells that the client has left: the second write fails.
SHORT_HEARTBEAT = 0.4


class AnswerEvents(Iterator[bytes]):
    """The events of one answer. Dropping it ends the question, as ``close`` does.

    Args:
        answering: The question under way. It is closed in the end.
        writer: Writes the events.
    """

    def __init__(self, answering: Answering, writer: AnswerWriter) -> None:
        self._answering = answering
        self._writer = writer
        self._events: Iterator[bytes] = iter(())

    def begin(self) -> None:
        """Wait a moment for the first text. The question is closed if that fails.

        Raises:
            ApiError: The answer has failed already.
            ClientLeftError: The client has left.
        """
        try:
            pieces = self._answering.pieces(PATIENCE)
        except BaseException:
            self.close()
            raise
        self._events = _guarded(_events(self._answering, self._writer, pieces), self._writer)

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


def _guarded(events: Iterator[bytes], writer: AnswerWriter) -> Iterator[bytes]:
    """Yield events, and an error object if they fail."""
    try:
        yield from events
    except ClientLeftError:
        return
    except ApiError as error:
        logger.error("an answer failed while it was sent: %s", error)
        yield writer.failed(error)
    except Exception:
        logger.exception("the gateway failed while it sent an answer")
        yield writer.failed(internal())


def _events(answering: Answering, writer: AnswerWriter, pieces: Optional[List[str]]) -> Iterator[bytes]:
    heartbeat = HEARTBEAT if answering.sees_client else SHORT_HEARTBEAT
    yield b"".join([writer.first(), *map(writer.delta, pieces or ())])
    while pieces is not None:
        pieces = answering.pieces(heartbeat)
        if pieces is not None:
            yield b"".join(map(writer.delta, pieces)) or COMMENT
    yield writer.end(answering.answer())
