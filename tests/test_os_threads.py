"""What comes of a function in a thread of its own: it is taken once, and nothing of the thread stays behind."""

import contextvars
import gc
import platform
import queue
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any, Callable, List

import pytest
from support import PATIENCE, Worker, collect_garbage, nothing_left_open, wait_for

from copilot_sync.os_threads import ItemQueue, ThreadResult


def test_what_a_function_returns_can_be_taken() -> None:
    """After a wait for as long as it takes. The thread is gone then."""
    with nothing_left_open():
        result = ThreadResult(lambda: [1, 2])
        assert result.wait(None)
        result.join()
    assert result.take() == [1, 2]


def test_a_wait_ends_with_its_time() -> None:
    """It says whether the function has ended, also to whoever does not wait at all, and afterwards each time."""
    go_on = threading.Event()
    result = ThreadResult(go_on.wait)
    assert not result.wait(0.0)
    assert not result.wait(-1.0)
    assert not result.wait(0.01)
    go_on.set()
    assert result.wait(threading.TIMEOUT_MAX * 2)
    assert result.wait(0.0)
    assert result.take() is True


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3), StopIteration()], ids=repr)
def test_a_failure_is_raised_where_the_result_is_taken(error: BaseException) -> None:
    """It is the very exception, whatever its kind."""

    def fail() -> None:
        raise error

    result = ThreadResult(fail)
    result.wait(None)
    with pytest.raises(type(error)) as caught:
        result.take()
    assert caught.value is error


@pytest.mark.parametrize("is_taken", [True, False], ids=["that was taken", "that nobody takes"])
def test_a_failure_is_freed(is_taken: bool) -> None:
    """With all that its frames hold; on CPython that needs no garbage collection."""
    raised: List[Callable[[], object]] = []

    class LostError(Exception):
        def __init__(self) -> None:
            raised.append(weakref.ref(self))

    def fail() -> None:
        raise LostError

    gc.disable()
    try:
        result = ThreadResult(fail)
        result.wait(None)
        result.join()
        if is_taken:
            with pytest.raises(LostError):
                result.take()
        else:
            del result
        if platform.python_implementation() != "CPython":  # pragma: no cover - only there it needs a collection
            collect_garbage()
        assert [error() for error in raised] == [None]
    finally:
        gc.enable()


def test_who_is_told_of_the_end_finds_it() -> None:
    """In the thread, and after the end, also if the function failed."""
    told: List[Any] = []
    both = threading.Event()
    begun = threading.Event()

    def note() -> None:
        wait_for(begun)
        told.append((threading.current_thread().name, result.wait(0.0)))
        both.set()

    functions: List[Callable[[], Any]] = [list, lambda: [][0]]
    for function in functions:
        both.clear()
        begun.clear()
        result: ThreadResult[Any] = ThreadResult(function, note)
        begun.set()
        wait_for(both)
    assert told == [("copilot-sync-stream", True)] * 2


def test_the_function_sees_the_context_of_whoever_made_it() -> None:
    """Context variables are those of that moment, and what the thread sets stays its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    begin = threading.Event()

    def look() -> str:
        wait_for(begin)
        seen = variable.get()
        variable.set("the thread's")
        return seen

    variable.set("before")
    result = ThreadResult(look)
    variable.set("after")
    begin.set()
    result.wait(None)
    assert (result.take(), variable.get()) == ("before", "after")


def test_an_ended_thread_keeps_no_context() -> None:
    """What a context variable held, such as the request of a page, can be freed while the result is still there."""

    class Value:
        pass

    def start_with(value: Value) -> "ThreadResult[int]":
        contextvars.ContextVar[Value]("variable").set(value)
        return ThreadResult(lambda: 1)

    value = Value()
    freed = weakref.ref(value)
    result = contextvars.copy_context().run(start_with, value)
    result.wait(None)
    result.join()
    del value
    collect_garbage()
    assert freed() is None
    assert result.take() == 1


def test_joining_does_not_wait_for_ever() -> None:
    """A look-up of DNS can't be interrupted. Its thread is left to end by itself."""
    go_on = threading.Event()
    with nothing_left_open():
        result = ThreadResult(lambda: go_on.wait(PATIENCE))
        result.join()
        assert not result.wait(0.0)
        go_on.set()
        assert result.wait(PATIENCE)
        assert result.take()


def test_a_thread_may_join_itself() -> None:
    """The garbage collector may close a stream in the very thread that helps it."""
    begun = threading.Event()

    def join() -> str:
        wait_for(begun)
        result.join()
        return "joined"

    result = ThreadResult(join)
    begun.set()
    assert result.wait(PATIENCE)
    assert result.take() == "joined"


@pytest.mark.parametrize("call", [lambda work: work(), lambda work: Worker(work).result()], ids=["main", "another"])
def test_who_can_have_no_thread_is_told(monkeypatch: pytest.MonkeyPatch, call: Callable[[Any], Any]) -> None:
    """By ``threading``'s own error. The main thread does not wait for the start: it is told with the result."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def begin() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        result: ThreadResult[List[Any]] = ThreadResult(list)
        assert result.wait(PATIENCE)
        result.take()

    with pytest.raises(RuntimeError, match="can't start new thread"):
        call(begin)


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_a_wait_for_an_item_ends_with_its_time(seconds: float) -> None:
    """However little time that is, and however long the thread has to wait for its turn in between."""
    items: ItemQueue[int] = ItemQueue()

    def take_all() -> None:
        for number in range(20_000):
            items.put(number)
            assert items.get(PATIENCE) == number
            if number % 100 == 0 or not seconds:  # a wait takes milliseconds
                with pytest.raises(queue.Empty):
                    items.get(seconds)

    assert Worker(take_all).ended_within(PATIENCE), "it waits for ever"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such signals")
def test_a_wait_for_an_item_ends_though_a_signal_was_handled_for_longer() -> None:
    """What is left of its time then is less than nothing, which is no time without end."""
    program = """
import queue, signal, time
from copilot_sync.os_threads import ItemQueue

handled = []


def handle(*_):
    time.sleep(0.4)
    handled.append(1)


signal.signal(signal.SIGALRM, handle)
items = ItemQueue()
while not handled:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        items.get(0.3)
    except queue.Empty:
        pass
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=3 * PATIENCE)
