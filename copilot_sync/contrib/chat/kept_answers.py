"""What is kept of an answer while it is read, so that any process can go on with it for its reader.

A site's processes share it in a cache. Whoever reads an answer from the service writes to an ``AnswerRecord``; whoever
wants to follow it looks at the ``KeptAnswers``. For each conversation the cache has what was asked last, and for each
answer these values:

``state``
    How many characters are kept, and the event that ended the answer, if it has ended.
``text``
    The text, in parts of ``PART`` characters, so that no value is large and little is written again.
``reader``
    Who reads it. The value lives for ``LEASE`` seconds and is renewed meanwhile. If it is gone, the reader has left or
    has died, and whoever ``add`` says has put it there reads on.
``follower``
    There while somebody follows the answer. As long as it is, the reader reads on, also when its own page has gone.
``stop``
    There if somebody wants the answer to end.

An answer is kept for ``KEPT`` seconds and up to ``LONGEST`` characters. A cache that fails is logged once, and for
``BROKEN`` seconds everything goes on as if nothing were kept. Names of conversations play no part here: the key is the
conversation's id, which a visitor has in the session and can't choose.

Threads: a record is confined to whoever reads the answer. All else is in the cache, but for the flags of its failures,
which are only set.
"""

import json
import logging
import math
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, TypeVar

from copilot_sync.contrib.sse import error_data
from copilot_sync.delivery.message import MessageHandle, SentMessage
from copilot_sync.errors import StreamClosedError, StreamInterruptedError
from copilot_sync.models import Conversation
from copilot_sync.pacing.caches import LimiterCache, is_interruption
from copilot_sync.stream import Stream

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for which an answer is kept after it was last written to.
KEPT = 900
#: Characters of an answer that are kept, and of one part of it.
LONGEST = 1_000_000
PART = 8192
#: Characters of the JSON that says what was asked, if the answer is kept: 100,000 letters of any language. Memcached
#: takes no value of a megabyte.
LARGEST_ASKED = 600_000
#: Seconds after which a reader that says nothing counts as dead.
LEASE = 5
#: Seconds between two times that a reader writes.
INTERVAL = 0.5
#: Seconds for which a follower counts as one, and between two times that it says so.
FOLLOWING = 3
FOLLOWING_INTERVAL = 1.0
#: Seconds for which a cache that failed is left alone.
BROKEN = 30.0
#: Seconds between two times that the values are renewed that don't change.
_RENEWAL = KEPT / 3
_PREFIX = "copilot_sync-chat"


@dataclass(frozen=True)
class Asked:
    """What was asked, and what finds its answer at the service."""

    conversation_id: str
    answer_id: str
    parent_id: Optional[str]
    question: str
    model: str
    user: str = ""

    @classmethod
    def from_stream(cls, stream: Stream) -> "Asked":
        """Return what a stream asks. Its conversation has begun, and its question need not be sent."""
        message, conversation = stream._message, stream.conversation
        assert conversation is not None  # noqa: S101 - it has begun
        sent = SentMessage.from_pending(message, conversation, stream._builder.answer_id)
        return cls(sent.conversation_id, sent.answer_id, sent.parent_id, str(sent.content), message.model, message.user)

    def to_json(self) -> str:
        """Return it as the cache has it."""
        return json.dumps(asdict(self))

    @property
    def handle(self) -> MessageHandle:
        """What finds the message, which may have been sent."""
        return MessageHandle(self.conversation_id, self.answer_id, self.parent_id, maybe_sent=True)


class AnswerState(NamedTuple):
    """How far an answer is kept, and the event that ended it: ``None`` if it has not ended, or was cut."""

    length: int = 0
    end: Optional[Dict[str, Any]] = None


class KeptAnswers:
    """The answers that a site keeps.

    Args:
        cache: What its processes share.
        clock: Gives the time, in seconds.
    """

    def __init__(self, cache: LimiterCache, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self.clock = clock
        self._broken_until = -math.inf
        self._was_broken = False

    @property
    def works(self) -> bool:
        """Whether the cache can be used now, as far as is known."""
        return self.clock() >= self._broken_until

    def record(self, asked: Asked) -> "AnswerRecord":
        """Begin to keep an answer. It becomes the one of its conversation that can be followed."""
        record = AnswerRecord(self, asked)
        record.begin()
        return record

    def find(self, conversation_id: str) -> Optional[Asked]:
        """Return what was asked last in a conversation, if that is kept."""
        found = self._loaded(self.get("asked", conversation_id))
        try:
            return Asked(**found) if isinstance(found, dict) else None
        except TypeError:  # of another version
            return None

    def look(self, asked: Asked) -> AnswerState:
        """Return how far an answer is kept."""
        found = self._loaded(self.get("state", asked.answer_id))
        state = _state_of(found)
        if state.end is None and self.is_stopping(asked):
            return state._replace(end=stopped_data(asked))
        return state

    def text(self, asked: Asked, start: int, end: int) -> Optional[str]:
        """Return the kept text between two places; ``None`` if it is not there any more."""
        parts: List[str] = []
        first = start // PART
        for number in range(first, math.ceil(end / PART)):
            part = self._loaded(self.get("text", asked.answer_id, number))
            if not isinstance(part, str):
                return None
            parts.append(part)
        text = "".join(parts)[start - first * PART : end - first * PART]
        return text if len(text) == end - start else None

    def stop(self, asked: Asked) -> None:
        """Have an answer end, whichever process reads it."""
        self.set("1", "stop", asked.answer_id)

    def is_stopping(self, asked: Asked) -> bool:
        """Whether somebody wants the answer to end."""
        return self.get("stop", asked.answer_id) is not None

    def note_follower(self, asked: Asked) -> None:
        """Say that somebody follows an answer."""
        self.set("1", "follower", asked.answer_id, timeout=FOLLOWING)

    def take_over(self, asked: Asked) -> "Optional[AnswerRecord]":
        """Become the one who reads an answer that nobody reads any more; ``None`` if somebody does."""
        record = AnswerRecord(self, asked)
        return record if self._add(record.reader, "reader", asked.answer_id) else None

    def is_read(self, asked: Asked) -> bool:
        """Whether somebody reads an answer, as far as is known."""
        return self.get("reader", asked.answer_id) is not None

    def get(self, *name: object) -> Any:
        """Return a value; ``None`` if there is none or the cache fails."""
        return self._use(lambda: self._cache.get(_key(name)), None)

    def set(self, value: Any, *name: object, timeout: int = KEPT) -> None:
        """Keep a value, unless the cache fails."""
        self._use(lambda: self._cache.set(_key(name), value, timeout), None)

    def _add(self, value: str, *name: object) -> bool:
        return bool(self._use(lambda: self._cache.add(_key(name), value, LEASE), False))

    def _use(self, use: Callable[[], T], otherwise: T) -> T:
        if not self.works:
            return otherwise
        try:
            return use()
        except Exception as error:
            if is_interruption(error):
                raise
            self._broken_until = self.clock() + BROKEN
            if not self._was_broken:
                self._was_broken = True
                logger.warning("the cache of answers fails, so they end with their readers: %s", type(error).__name__)
            return otherwise

    @staticmethod
    def _loaded(value: Any) -> Any:
        try:
            return None if value is None else json.loads(value)
        except (TypeError, ValueError):
            return None


class AnswerRecord:
    """What is kept of one answer, for whoever reads it from the service.

    Args:
        kept: Where.
        asked: What was asked.
    """

    def __init__(self, kept: KeptAnswers, asked: Asked) -> None:
        self._kept = kept
        self.asked = asked
        self.reader = uuid.uuid4().hex
        self._parts = 0  # that are full, and written
        self._open = ""  # what is behind them
        self._added: List[str] = []  # and not yet a part of that
        self._written = AnswerState()
        self._end: Optional[Dict[str, Any]] = None
        self._next_write = self._next_renewal = -math.inf
        self._is_over = False

    def begin(self) -> None:
        """Write what was asked, before it is sent."""
        if len(self.asked.to_json()) <= LARGEST_ASKED:
            self._kept.set(self.reader, "reader", self.asked.answer_id, timeout=LEASE)
            self._write_asked()
        # A cache that is full, or keeps nothing, need not say so.
        self._is_over = self._kept.find(self.asked.conversation_id) != self.asked

    @property
    def is_kept(self) -> bool:
        """Whether somebody else may follow the answer here."""
        return not self._is_over

    @property
    def is_due(self) -> bool:
        """Whether it is time to write."""
        return not self._is_over and (self._end is not None or self._kept.clock() >= self._next_write)

    def is_followed(self) -> bool:
        """Look whether somebody follows the answer."""
        return not self._is_over and self._kept.get("follower", self.asked.answer_id) is not None

    def add(self, text: str) -> None:
        """Note text. It is written later."""
        self._added.append(text)

    def replace(self, text: str) -> None:
        """Note another text in place of all there was."""
        self._parts, self._open, self._added = 0, "", [text]

    def end(self, data: Mapping[str, Any]) -> None:
        """Note the event that ended the answer. It is written later."""
        self._end = dict(data)

    def write(self) -> bool:
        """Write what was noted, and that the reader lives.

        Returns:
            Whether to read on: not if somebody wants the answer to end.
        """
        if self._is_over:
            return True
        self._next_write = self._kept.clock() + INTERVAL
        if self._kept.is_stopping(self.asked) and self._end is None:
            return False
        if self._kept.get("reader", self.asked.answer_id) not in (self.reader, None):
            self._is_over = True  # somebody has taken this reader for dead, and reads on
            return True
        self._write_text()
        self._write_state()
        self._renew()
        self._kept.set(self.reader, "reader", self.asked.answer_id, timeout=LEASE if self._end is None else 1)
        self._is_over = self._end is not None or not self._kept.works
        return True

    def leave(self) -> None:
        """Write what was noted, and that nobody reads the answer any more."""
        if self.write() and not self._is_over:
            self._kept.set(self.reader, "reader", self.asked.answer_id, timeout=1)
        self._is_over = True

    @property
    def length(self) -> int:
        """How many characters were noted."""
        return self._parts * PART + len(self._open) + sum(map(len, self._added))

    def _write_text(self) -> None:
        if not self._added:
            return
        self._open += "".join(self._added)
        self._added = []
        if self.length > LONGEST and self._end is None:
            interrupted = StreamInterruptedError("the answer is too long to be kept")
            self._end = error_data(interrupted, Conversation(self.asked.conversation_id))
        while len(self._open) >= PART:
            self._write_part(self._open[:PART])
            self._parts, self._open = self._parts + 1, self._open[PART:]
        self._write_part(self._open)

    def _write_part(self, text: str) -> None:
        self._kept.set(json.dumps(text), "text", self.asked.answer_id, self._parts)

    def _write_state(self) -> None:
        state = AnswerState(self.length, self._end)
        if state != self._written:
            self._kept.set(json.dumps(state), "state", self.asked.answer_id)
            self._written = state

    def _renew(self) -> None:
        """Write what was asked, unless another question in the conversation was asked since."""
        now = self._kept.clock()
        if now < self._next_renewal and self._end is None:
            return
        if self._kept.find(self.asked.conversation_id) == self.asked:
            self._write_asked()

    def _write_asked(self) -> None:
        self._kept.set(self.asked.to_json(), "asked", self.asked.conversation_id)
        self._next_renewal = self._kept.clock() + _RENEWAL


def _state_of(found: Any) -> AnswerState:
    """Return a state as it was read. What another version or program has written is none."""
    if isinstance(found, list) and len(found) == len(AnswerState._fields):
        length, end = found
        if type(length) is int and (end is None or isinstance(end, dict)):
            return AnswerState(length, end)
    return AnswerState()


def stopped_data(asked: Asked) -> Dict[str, Any]:
    """Return the event of an answer that somebody wanted to end."""
    return error_data(StreamClosedError("the answer was stopped"), Conversation(asked.conversation_id))


def _key(name: Any) -> str:
    return ":".join((_PREFIX, *map(str, name)))
