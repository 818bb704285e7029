"""The thread that reads ahead of a consumer: bounded, interruptible, and gone with its consumer."""

import contextvars
import threading
import weakref
from typing import Any, Iterator, List

import pytest
from support import collect_garbage, nothing_left_open, wait_for

from copilot_sync.reader_thread import READ_AHEAD, ReaderThread


def do_nothing() -> None:
    """Closes nothing, and wakes nobody."""


def read_all(reader: "ReaderThread[Any]", news: threading.Event) -> List[Any]:
    """Take until the end, as a blocking consumer does."""
    taken: List[Any] = []
    while True:
        news.clear()
        batch = reader.take()
        if batch is None:
            return taken
        taken += batch
        if not batch:
            wait_for(news)


def test_all_items_come_once_and_in_order() -> None:
    """However the thread and the consumer fall behind each other."""
    news = threading.Event()
    reader = ReaderThread(iter(range(20 * READ_AHEAD)), do_nothing, news.set)
    with nothing_left_open():
        reader.start()
        assert read_all(reader, news) == list(range(20 * READ_AHEAD))
        reader.join()


def test_items_before_the_end_are_taken_before_the_end() -> None:
    """A thread that ended while nobody looked has lost nothing."""
    reader = ReaderThread(iter("ab"), do_nothing, do_nothing)
    assert reader.take() is not None  # it was not started yet
    reader.start()
    reader.join()
    assert reader.ended
    assert (list(reader.take() or ()), reader.take()) == (["a", "b"], None)


def test_the_consumer_is_notified_of_each_item_and_of_the_end() -> None:
    """At the end it is told after the end, so that it finds it."""
    told: List[bool] = []
    reader = ReaderThread(iter("ab"), do_nothing, lambda: told.append(reader.ended))
    reader.start()
    reader.join()
    assert told == [False, False, True]


def test_it_reads_no_further_ahead_than_agreed_and_closing_ends_the_wait() -> None:
    """The iterator is closed as well, in the thread that reads it."""
    full, closed = threading.Event(), threading.Event()
    made: List[int] = []

    def items() -> Iterator[int]:
        try:
            while True:
                made.append(1)
                if len(made) == READ_AHEAD:
                    full.set()
                yield 1
        finally:
            closed.set()

    reader = ReaderThread(items(), do_nothing, do_nothing)
    with nothing_left_open():
        reader.start()
        wait_for(full)
        reader.join()  # were the thread not waiting, it would go on during this wait
        assert len(made) == READ_AHEAD
        assert reader.is_alive
        reader.close()
        wait_for(closed)
        reader.join()
    assert not reader.is_alive


def test_a_failure_is_raised_once_after_the_items() -> None:
    """It is the very exception, whatever its kind."""
    error = KeyboardInterrupt()

    def items() -> Iterator[int]:
        yield 1
        raise error

    reader = ReaderThread(items(), do_nothing, do_nothing)
    reader.start()
    reader.join()
    assert (list(reader.take() or ()), reader.take()) == ([1], None)
    with pytest.raises(KeyboardInterrupt) as caught:
        reader.raise_failure()
    assert caught.value is error
    reader.raise_failure()


def test_a_failure_that_nobody_wants_is_dropped() -> None:
    """Its traceback would keep everything alive that the frames in it hold."""

    def items() -> Iterator[int]:
        raise ValueError("nobody wants this")
        yield 1  # pragma: no cover - makes it a generator

    reader = ReaderThread(items(), do_nothing, do_nothing)
    reader.start()
    reader.join()
    reader.drop_failure()
    reader.raise_failure()


def test_closing_interrupts_a_blocked_read() -> None:
    """By the function that was given for it, and only as long as there is something to interrupt."""
    go_on = threading.Event()
    closed: List[int] = []

    def items() -> Iterator[int]:
        wait_for(go_on)
        yield 1

    def close() -> None:
        closed.append(1)
        go_on.set()

    reader = ReaderThread(items(), close, do_nothing)
    reader.start()
    reader.close()
    reader.join()
    reader.close()
    assert (closed, reader.is_alive) == ([1], False)


def test_the_thread_sees_the_context_of_whoever_made_it() -> None:
    """Context variables are those of that moment."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("before")
    reader = ReaderThread((variable.get() for _ in range(1)), do_nothing, do_nothing)
    variable.set("after")
    reader.start()
    reader.join()
    assert list(reader.take() or ()) == ["before"]


def test_an_ended_thread_keeps_no_context() -> None:
    """What a context variable held can be freed while the reader is still there."""

    class Value:
        pass

    def start_with(value: Value) -> "ReaderThread[int]":
        contextvars.ContextVar[Value]("variable").set(value)
        reader = ReaderThread(iter([1]), do_nothing, do_nothing)
        reader.start()
        reader.join()
        return reader

    value = Value()
    freed = weakref.ref(value)
    reader = contextvars.copy_context().run(start_with, value)
    assert reader.ended
    del value
    collect_garbage()
    assert freed() is None


def test_joining_never_fails() -> None:
    """Neither a thread that was never started, nor the thread itself, which the garbage collector may do."""
    readers: List[ReaderThread[int]] = []

    def items() -> Iterator[int]:
        readers[0].join()
        yield 1

    readers.append(ReaderThread(items(), do_nothing, do_nothing))
    readers[0].join()
    readers[0].start()
    readers[0].join()
    readers[0].raise_failure()
    assert list(readers[0].take() or ()) == [1]
