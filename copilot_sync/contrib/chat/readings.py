"""One answer on its way to the page, without the waiting: ``bodies`` and ``bodies_async`` do that.

An ``AnswerReading`` reads an answer from the service: the first one of its question, or one that takes over from a
reader that has died. An ``AnswerFollowing`` hands out what another reader has kept, and becomes a reading if that one
is gone. Their events are those of ``copilot_sync.contrib.sse``, with these differences:

- ``{"type": "started", "answer": …, "question": …, "position": …}`` comes first. The position is the number of
  characters that the page is taken to have. With 0, the page has to forget what it has of this answer. It may come
  again, if the answer that was found has another text than what was kept.
- ``started`` and ``content`` have the id ``<answer>:<characters so far>``, by which the page can go on behind them.
- ``complete`` has the ``seconds`` that the answer took, if one reader has read all of it.

Threads: confined to whoever reads or follows.
"""

import math
import re
import time
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional

from copilot_sync.contrib.chat.kept_answers import FOLLOWING_INTERVAL, AnswerRecord, Asked, KeptAnswers, stopped_data
from copilot_sync.contrib.sse import COMMENT, EventFormat, encode_event, error_data
from copilot_sync.errors import StreamInterruptedError
from copilot_sync.models import Conversation
from copilot_sync.stream import Stream

#: Seconds of silence after which a comment goes out. A server notices that a browser has gone by what it can't send.
HEARTBEAT = 0.3
#: Looks after which an answer that nobody reads, and nobody can take over, is given up.
MOST_MISSED = 20
#: Seconds for which an answer is looked for whose reader has died.
TAKE_OVER = 300.0

_EVENT_ID = re.compile(r"([\w-]{1,64}):(\d{1,9})", re.ASCII)


class EventPlace(NamedTuple):
    """How much of which answer the page has."""

    answer_id: str = ""
    position: int = 0


def place_of(event_id: Optional[str]) -> EventPlace:
    """Read the id of an event, as the page has sent it back."""
    found = _EVENT_ID.fullmatch(event_id or "")
    return EventPlace(found[1], int(found[2])) if found else EventPlace()


class _Events:
    """The events of one answer, with their ids."""

    def __init__(self, asked: Asked, position: int) -> None:
        self._asked = asked
        self.position = position

    def started(self) -> bytes:
        asked = self._asked
        data = {
            "type": "started",
            "answer": asked.answer_id,
            "question": asked.question,
            "position": self.position,
        }
        return encode_event(data, self._id)

    def content(self, text: str) -> bytes:
        """Return the event for the text behind the position, and move on."""
        self.position += len(text)
        return encode_event({"type": "content", "text": text}, self._id)

    @property
    def _id(self) -> str:
        return f"{self._asked.answer_id}:{self.position}"


class AnswerReading(EventFormat):
    """An answer that is read from the service, written to its record on the way.

    Args:
        stream: The answer. Its conversation has begun.
        record: Where it is kept.
        kept_text: What a reader before this one has kept of it.
        position: How many characters the page has.
        ask_again: Makes another stream for the same message. Default: what fails is not tried again.
    """

    def __init__(
        self,
        stream: Stream,
        record: AnswerRecord,
        *,
        kept_text: str = "",
        position: int = 0,
        ask_again: Optional[Callable[[], Stream]] = None,
    ) -> None:
        self.stream = stream
        self.record = record
        self._events = _Events(record.asked, position)
        self._ask_again = ask_again
        self._kept_text = kept_text
        self._received = 0  # characters
        self._began = time.monotonic()
        self._is_new = ask_again is None
        #: Whether another stream is to be read from here on.
        self.is_due_again = False
        #: Whether the event that ends the answer was made.
        self.has_ended = False
        if kept_text:
            record.add(kept_text)

    @property
    def is_of_use(self) -> bool:
        """Whether it is worth reading if nobody listens: somebody may follow what is kept."""
        return not self.has_ended and self.record.is_kept

    def may_go_on(self, until: float) -> bool:
        """Whether to read on though nobody listens: up to a time, and as long as somebody follows. Asks the cache."""
        return self.is_of_use and (time.monotonic() < until or self.record.is_followed())

    def started(self) -> bytes:
        """Return the first event."""
        return self._events.started()

    def content(self, pieces: Iterable[str]) -> bytes:
        """Return the events for text that has come: nothing but a comment if the page has it already."""
        text = "".join(pieces)
        kept = self._kept_text[self._received : self._received + len(text)]
        if not text.startswith(kept):
            return self._restarted()
        ahead = self._events.position - self._received
        self._received += len(text)
        self.record.add(text[len(kept) :])
        new = text[max(0, ahead) :]
        return self._events.content(new) if new else COMMENT

    def _restarted(self) -> bytes:
        """Begin anew with the text that has come, because it is another one than what was kept."""
        text = self.stream.text
        self._kept_text, self._received, self._events.position = "", len(text), 0
        self.record.replace(text)
        return self._events.started() + self._events.content(text)

    def last(self, data: Mapping[str, Any]) -> bytes:
        """Return the event that ends the answer: nothing but a comment if it is looked for again."""
        if data.get("code") == "interrupted" and self._may_look_again():
            self.is_due_again = True
            return COMMENT
        corrected = b""
        if data["type"] == "complete":
            if self._received < max(len(self._kept_text), self._events.position):
                corrected = self._restarted()
            if self._is_new:
                data = {**data, "seconds": round(time.monotonic() - self._began, 1)}
        return corrected + self._end(data)

    def _may_look_again(self) -> bool:
        is_unread = self._ask_again is not None and not self.stream.text
        return is_unread and time.monotonic() - self._began < TAKE_OVER

    def look_again(self) -> Stream:
        """Return another stream for the same message."""
        assert self._ask_again is not None  # noqa: S101 - else it is never due
        self.is_due_again = False
        self.stream = self._ask_again()
        return self.stream

    def stopped(self) -> bytes:
        """Return the event for an answer that somebody wants to end."""
        return self._end(stopped_data(self.record.asked))

    def _end(self, data: Mapping[str, Any]) -> bytes:
        self.has_ended = True
        self.record.end(data)
        return encode_event(data)


class AnswerFollowing:
    """An answer that another reader keeps.

    Args:
        kept: Where it is kept.
        asked: What was asked.
        position: How many characters the page has.
        read_on: Makes the reading that takes over, out of the record, the kept text and the position.
    """

    def __init__(
        self, kept: KeptAnswers, asked: Asked, position: int, read_on: Callable[[AnswerRecord, str, int], AnswerReading]
    ) -> None:
        self._kept = kept
        self._asked = asked
        self._events = _Events(asked, position)
        self._read_on = read_on
        self._next_note = -math.inf
        self._missed = 0  # looks in a row that have found no reader, and could not make one
        #: The reading that has taken over.
        self.reading: Optional[AnswerReading] = None
        self.has_ended = False

    def started(self) -> bytes:
        """Return the first event."""
        return self._events.started()

    def step(self) -> Optional[bytes]:
        """Look once, and return the events for what there is; ``None`` if there is nothing new."""
        if not self._kept.works:
            return self._cut()
        if self._kept.clock() >= self._next_note:
            self._next_note = self._kept.clock() + FOLLOWING_INTERVAL
            self._kept.note_follower(self._asked)
        state = self._kept.look(self._asked)
        if state.length > self._events.position:
            text = self._kept.text(self._asked, self._events.position, state.length)
            return self._cut() if text is None else self._events.content(text)
        if state.end is not None:
            return self._last(state.end)
        record = self._kept.take_over(self._asked)
        if record is not None:
            text = self._kept.text(self._asked, 0, state.length)
            self.reading = self._read_on(record, text or "", self._events.position)
        elif self._kept.is_read(self._asked):
            self._missed = 0
        else:  # a cache that is full keeps no reader
            self._missed += 1
        return self._cut() if self._missed >= MOST_MISSED else None

    def _cut(self) -> bytes:
        conversation = Conversation(self._asked.conversation_id)
        return self._last(error_data(StreamInterruptedError("what was kept of the answer is gone"), conversation))

    def _last(self, data: Dict[str, Any]) -> bytes:
        self.has_ended = True
        return encode_event(data)
