"""An answer as server-sent events, the body of a response; and those of a chat completion.

An answer that is not whole ends with an error object, and without the event that says that it is whole; the clients
raise then.

Threads: confined to the thread that iterates, but for ``close``.
"""

import abc
import logging
from typing import Callable, Iterator, List, Optional

from copilot_sync.contrib.openai_gateway.answering import Answering, ClientLeftError
from copilot_sync.models import Answer
from copilot_sync.openai_api.chat_objects import COMMENT, DONE, ChatObjects, data_event
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


class ChatWriter(AnswerWriter):
    """Writes the events of one completion.

    Args:
        objects: The objects of the completion.
        includes_usage: Whether a last chunk says what it cost.
        on_answer: Called with the whole answer before its end is sent.
    """

    def __init__(self, objects: ChatObjects, includes_usage: bool, on_answer: Callable[[Answer], object]) -> None:
        self._objects = objects
        self._includes_usage = includes_usage
        self._on_answer = on_answer

    def first(self) -> bytes:
        """Return the chunk that says who speaks."""
        return self._objects.first()

    def delta(self, text: str) -> bytes:
        """Return the chunk for a piece of text."""
        return self._objects.delta(text)

    def end(self, answer: Answer) -> bytes:
        """Return the last chunks, and the end of the stream."""
        self._on_answer(answer)
        usage = self._objects.usage(answer.usage) if self._includes_usage else b""
        return b"".join([self._objects.end(), usage, DONE])
