"""What is kept of an answer: in parts, for a time, by one reader, in a cache that may fail."""

import logging
import math
import signal
from dataclasses import replace
from typing import Any, Dict, List, Optional

import pytest

from copilot_sync.contrib.chat.kept_answers import (
    BROKEN,
    KEPT,
    LARGEST_ASKED,
    LEASE,
    LONGEST,
    PART,
    AnswerState,
    Asked,
    KeptAnswers,
)
from copilot_sync.contrib.chat.service import kept_answers_of
from copilot_sync.pacing.caches import MemoryCache, RedisCache, shared_cache_of

ASKED = Asked("thread", "answer", "root", "Why?", "auto")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FailingCache(MemoryCache):
    """A cache that raises what it is told to."""

    error: Optional[Exception] = None

    def get(self, key: str) -> Optional[str]:
        if self.error is not None:
            raise self.error
        return super().get(key)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> FailingCache:
    return FailingCache(clock=clock)


@pytest.fixture
def kept(cache: FailingCache, clock: Clock) -> KeptAnswers:
    return KeptAnswers(cache, clock=clock)


@pytest.mark.parametrize("length", [0, 1, PART - 1, PART, PART + 1, 3 * PART + 5])
def test_text_is_found_from_any_place(kept: KeptAnswers, clock: Clock, length: int) -> None:
    """However it was written, and however its parts lie."""
    text = "".join(chr(0x430 + place % 32) for place in range(length))
    record = kept.record(ASKED)
    for start in range(0, length, 5000):
        record.add(text[start : start + 5000])
        clock.now += 1
        assert record.write()
    assert kept.look(ASKED) == AnswerState(length)
    for start in (0, length // 2, max(0, length - 1), length):
        assert kept.text(ASKED, start, length) == text[start:]


def test_no_value_is_large(kept: KeptAnswers, cache: FailingCache) -> None:
    """So that each fits into memcached, whatever the text."""
    record = kept.record(ASKED)
    record.add("\ud800" * (3 * PART))
    record.write()
    assert kept.text(ASKED, 0, 3 * PART) == "\ud800" * (3 * PART)
    assert max(len(value) for value, _ in cache._entries.values()) < 100_000


@pytest.mark.parametrize("field", ["question", "model", "user", "parent_id"])
def test_nothing_that_a_visitor_sends_makes_a_value_large(kept: KeptAnswers, cache: FailingCache, field: str) -> None:
    """Memcached refuses one of a megabyte, and the answers of all visitors would count as not kept for a while."""
    record = kept.record(replace(ASKED, **{field: "\U0001f388" * 100_000}))
    assert not record.is_kept
    assert all(len(value) < 1_000_000 for value, _ in cache._entries.values())


def test_what_is_not_there_any_more_is_not_made_up(kept: KeptAnswers, clock: Clock) -> None:
    """A cache may drop any value; another program may have written one."""
    record = kept.record(ASKED)
    record.add("x" * (2 * PART))
    record.write()
    assert kept.text(ASKED, 0, 2 * PART + 1) is None
    kept.set('"short"', "text", "answer", 1)
    assert kept.text(ASKED, 0, 2 * PART) is None
    kept.set("no JSON", "text", "answer", 0)
    assert kept.text(ASKED, 0, PART) is None
    for state in ("[]", "[1]", "[1, null, 2]", '["1", null]', "[1, 2]", "[true, null]", "7", '{"length": 1}'):
        kept.set(state, "state", "answer")
        assert kept.look(ASKED) == AnswerState()
    for value in ("no JSON", "[]", '{"another": "version"}', 7):
        kept.set(value, "asked", "thread")
        assert kept.find("thread") is None
    clock.now += KEPT
    assert kept.look(ASKED) == AnswerState()


def test_what_was_asked_is_found_by_its_conversation(kept: KeptAnswers) -> None:
    """And by no other; the last question counts."""
    kept.record(ASKED)
    assert kept.find("thread") == ASKED
    assert kept.find("another") is None
    later = Asked("thread", "later", "answer", "And then?", "auto", "somebody")
    kept.record(later)
    assert kept.find("thread") == later
    assert later.handle.maybe_sent


def test_an_answer_that_takes_long_stays_there(kept: KeptAnswers, clock: Clock) -> None:
    """What does not change is renewed, unless another question was asked since."""
    record = kept.record(ASKED)
    for _ in range(4):
        clock.now += KEPT / 2
        assert record.write()
    assert kept.find("thread") == ASKED
    later = Asked("thread", "later", "answer", "And then?", "auto")
    kept.record(later)
    clock.now += KEPT / 2
    record.write()
    assert kept.find("thread") == later


def test_a_reader_is_followed_by_one_who_takes_over(kept: KeptAnswers, clock: Clock) -> None:
    """When it has said nothing for a while, and no earlier; what it writes later is not kept."""
    record = kept.record(ASKED)
    record.add("one ")
    clock.now += LEASE - 1
    assert kept.take_over(ASKED) is None
    assert record.is_due
    record.write()
    clock.now += LEASE - 1
    assert kept.take_over(ASKED) is None
    clock.now += 1
    second = kept.take_over(ASKED)
    assert second is not None
    assert kept.take_over(ASKED) is None
    record.add("late")
    assert record.write()
    assert not record.is_kept
    assert not record.is_due
    assert kept.look(ASKED).length == 4
    second.add("one two")
    second.end({"type": "complete"})
    assert second.write()
    assert kept.look(ASKED) == AnswerState(7, {"type": "complete"})
    assert kept.find("thread") == ASKED


def test_a_reader_that_leaves_makes_room_at_once(kept: KeptAnswers, clock: Clock) -> None:
    """All that it has read is there for the next one."""
    record = kept.record(ASKED)
    record.add("one ")
    record.leave()
    assert kept.text(ASKED, 0, 4) == "one "
    assert not record.is_kept
    clock.now += 1
    assert kept.take_over(ASKED) is not None
    record.leave()


def test_somebody_can_have_the_answer_end(kept: KeptAnswers) -> None:
    """The reader is told when it writes, all others at once; an answer that was whole before stays whole."""
    record = kept.record(ASKED)
    kept.stop(ASKED)
    assert not record.write()
    end = kept.look(ASKED).end
    assert end is not None
    assert end["code"] == "stopped"
    record.leave()
    record = kept.record(ASKED)
    record.end({"type": "complete"})
    assert record.write()
    assert kept.look(ASKED).end == {"type": "complete"}


def test_a_text_can_be_replaced(kept: KeptAnswers) -> None:
    """If another one was found."""
    record = kept.record(ASKED)
    record.add("x" * (2 * PART))
    record.write()
    record.replace("another")
    record.write()
    assert kept.text(ASKED, 0, kept.look(ASKED).length) == "another"


def test_a_long_answer_is_cut_where_it_is_kept(kept: KeptAnswers) -> None:
    """Its reader goes on; for others it ends."""
    record = kept.record(ASKED)
    record.add("x" * (LONGEST + 1))
    assert record.write()
    assert not record.is_kept
    end = kept.look(ASKED).end
    assert end is not None
    assert end["code"] == "interrupted"


def test_an_answer_to_a_long_question_is_not_kept(kept: KeptAnswers) -> None:
    """It ends with its reader."""
    record = kept.record(Asked("thread", "answer", "root", "x" * LARGEST_ASKED, "auto"))
    assert not record.is_kept
    assert kept.find("thread") is None


def test_a_cache_that_keeps_nothing_is_noticed(kept: KeptAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be full, or be there for tests alone: its answers end with their readers."""
    monkeypatch.setattr(kept._cache, "set", lambda *_: False)
    record = kept.record(ASKED)
    assert not record.is_kept
    assert not record.is_followed()


def test_a_cache_that_fails_is_logged_once_and_left_alone(
    kept: KeptAnswers, cache: FailingCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """For a while; an answer of that time ends with its reader, and the words of the error are nowhere."""
    record = kept.record(ASKED)
    cache.error = ConnectionError("redis://:secret@host")
    with caplog.at_level(logging.DEBUG):
        assert record.write()
        assert not record.is_kept
        cache.error = None
        assert not kept.works
        assert kept.find("thread") is None
        assert kept.take_over(ASKED) is None
        clock.now += BROKEN
        assert kept.works
        cache.error = ConnectionError("redis://:secret@host")
        assert kept.record(ASKED).write()
    (logged,) = caplog.messages
    assert "ConnectionError" in logged
    assert "secret" not in logged


def test_an_interruption_is_no_failure_of_the_cache(
    kept: KeptAnswers, cache: FailingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the handler of a signal raises goes to whoever asked."""

    def handle(*_: object) -> None:
        raise TimeoutError("the soft limit")

    def interrupted(key: str) -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        monkeypatch.setattr(cache, "get", interrupted)
        with pytest.raises(TimeoutError):
            kept.find("thread")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert kept.works


class Redis:
    """What a Redis client offers, as far as a cache needs it."""

    def __init__(self) -> None:
        self.values: Dict[str, bytes] = {}
        self.expiries: List[int] = []

    def evalsha(self) -> None:
        """It is a mark of such a client."""

    def get(self, key: str) -> Optional[bytes]:
        return self.values.get(key)

    def set(self, key: str, value: str, *, ex: int, nx: bool = False) -> Optional[bool]:
        if nx and key in self.values:
            return None
        self.values[key] = value.encode()
        self.expiries.append(ex)
        return True


def test_a_redis_client_is_a_cache(clock: Clock) -> None:
    """Of whatever version it is."""
    redis = Redis()
    assert isinstance(shared_cache_of(redis), RedisCache)
    record = kept_answers_of(redis).record(ASKED)
    record.add("one")
    record.write()
    kept = kept_answers_of(redis)
    assert kept.text(ASKED, 0, 3) == "one"
    assert kept.take_over(ASKED) is None
    assert max(redis.expiries) == KEPT


@pytest.mark.parametrize("value", [7, "redis://localhost", object()])
def test_what_is_no_cache_is_refused(value: Any) -> None:
    """With its kind, and not with what it says."""
    with pytest.raises(TypeError, match=type(value).__name__):
        kept_answers_of(value)


def test_without_a_cache_a_process_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a bound: the oldest answers make room."""
    kept = kept_answers_of(None)

    for number in range(40):
        asked = Asked(f"thread {number}", f"answer {number}", None, "Why?", "auto")
        record = kept.record(asked)
        record.add("x" * (LONGEST - 1))
        record.write()
    assert kept.find("thread 0") is None
    assert kept.text(asked, 0, LONGEST - 1) == "x" * (LONGEST - 1)
    assert isinstance(kept._cache, MemoryCache)
    sizes = [len(value) for value, _ in kept._cache._entries.values()]
    assert kept._cache._size == sum(sizes) <= 32_000_000 < math.inf
