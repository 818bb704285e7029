"""Closing a stream that is being read: at every point, the reader learns that it was closed, or gets a whole answer."""

import contextlib
import threading
from typing import Any, Callable, Iterator, List

import pytest
from closers import elsewhere, here
from loops import Run
from streams import client_of
from support import PATIENCE, Worker, events, wait_for

from copilot_sync import Client, Stream, StreamClosedError
from copilot_sync.aio import iterate_stream
from copilot_sync.contrib.sse import EventStream
from copilot_sync.contrib.sse_async import AsyncEventStream
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.stepping import Pause
from copilot_sync.transport.body import Body


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    emulator.reply = Reply(["one", "two"])
    with client_of(emulator) as opened:
        yield opened


class Hooked:
    """The driver of a stream, with something done just before it is asked for the next item."""

    def __init__(self, stream: Stream, action: Callable[[], object], asked: int = 2) -> None:
        self._driver = stream._steps._driver
        self._action = action
        self._asked = asked
        self._call = stream._call
        self._has_paused = False
        stream._steps._driver = self  # type: ignore[assignment]

    def __next__(self) -> Any:
        if not self._has_paused:
            self._asked -= 1
            if not self._asked:
                self._action()
        item = next(self._driver)
        self._has_paused = isinstance(item, Pause)
        self._call.reading = None  # so that each item comes through here
        return item

    def close(self) -> None:
        self._driver.close()


class HookedLock:
    """The lock of a stream's driver, with something done just before it is taken for the first time."""

    def __init__(self, stream: Stream, action: Callable[[], object]) -> None:
        self._lock = stream._steps._inside
        self._actions = [action]
        self.release = self._lock.release
        stream._steps._inside = self  # type: ignore[assignment]

    def acquire(self, blocking: bool) -> bool:
        if self._actions:
            self._actions.pop()()
        return self._lock.acquire(blocking)


def test_a_close_that_is_under_way_is_no_second_reader(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The closing thread is inside the driver, freeing the connection, when the reader asks for the next item."""
    stream = client.stream("hi")
    assert next(stream) == "one"
    inside, over = threading.Event(), threading.Event()
    close = Body.close

    def slow(body: Body) -> None:
        inside.set()
        wait_for(over)
        close(body)

    monkeypatch.setattr(Body, "close", slow)
    closers: List[Worker] = []

    def begin_to_close() -> None:
        closers.append(Worker(stream.close))
        wait_for(inside)

    HookedLock(stream, begin_to_close)
    try:
        with pytest.raises(StreamClosedError, match="closed by another thread"):
            next(stream)
        stream.close()  # and neither is another one that closes it
    finally:
        over.set()
    closers[0].result()
    assert stream.answer is None


class Guarded:
    """The driver of a stream, which another thread closes while this one is inside. Notes where it is closed itself."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._driver = stream._steps._driver
        self._is_inside = False
        self.closed_by: List[int] = []
        self.closed_while_read: List[bool] = []
        stream._steps._driver = self  # type: ignore[assignment]

    def __next__(self) -> Any:
        self._is_inside = True
        elsewhere(self._stream)
        try:
            return next(self._driver)
        finally:
            self._is_inside = False

    def close(self) -> None:
        self.closed_by.append(threading.get_ident())
        self.closed_while_read.append(self._is_inside)
        self._driver.close()


def test_no_two_threads_are_inside_the_driver(client: Client) -> None:
    """Without the GIL that crashes the interpreter. The thread that reads closes the driver when it comes out."""
    stream = client.stream("hi")
    assert next(stream) == "one"
    driver = Guarded(stream)
    with contextlib.suppress(StreamClosedError):  # the next piece may have come before
        next(stream)
    assert (driver.closed_by, driver.closed_while_read) == ([threading.get_ident()], [False])


def test_a_signal_handler_that_reads_the_stream_it_interrupts_is_a_second_reader(client: Client) -> None:
    """It gets an error, as another thread would, and the interrupted reading goes on."""
    stream = client.stream("hi")
    errors: List[Exception] = []

    def read_in_between() -> None:
        try:
            next(stream)
        except RuntimeError as error:
            errors.append(error)

    add, signals = AnswerBuilder.add, iter([read_in_between])

    def interrupted(self: AnswerBuilder, piece: str, limit: int) -> None:
        next(signals, str)()  # once, however many pieces have come together
        add(self, piece, limit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnswerBuilder, "add", interrupted)
        assert next(stream) == "one"
    assert [str(error) for error in errors] == ["a stream can be read by one thread at a time"]
    assert list(stream) == ["two"]


def test_a_thread_that_closes_a_stream_at_its_end_is_no_second_reader(client: Client) -> None:
    """It is inside for a moment, to close what is left. Whoever reads has read everything."""
    stream = client.stream("hi")
    assert list(stream) == ["one", "two"]
    assert Worker(stream._steps._inside.acquire).result()
    assert list(stream) == []
    assert stream.read().complete


@pytest.mark.parametrize("close", [elsewhere, here], ids=["by another thread", "by a signal"])
def test_of_an_end_and_a_close_the_first_counts(
    client: Client, monkeypatch: pytest.MonkeyPatch, close: Callable[[Stream], None]
) -> None:
    """An answer that would be whole a moment after the close is none; a close behind it changes nothing."""
    note = AnswerBuilder.note_end
    before, after = client.stream("hi"), client.stream("hi")

    def noting(self: AnswerBuilder, end: Any) -> Any:
        if self is not before._builder and self is not after._builder:
            return note(self, end)  # pragma: no cover - of another test, which the garbage collector ends just now
        monkeypatch.setattr(AnswerBuilder, "note_end", note)
        if self is before._builder:
            close(before)
            return note(self, end)
        noted = note(self, end)
        close(after)
        return noted

    monkeypatch.setattr(AnswerBuilder, "note_end", noting)
    with pytest.raises(StreamClosedError):
        before.read()
    assert (before.text, before.answer) == ("onetwo", None)
    assert before.start().message_id is None
    monkeypatch.setattr(AnswerBuilder, "note_end", noting)
    answer = after.read()
    assert (answer.text, answer.complete, after.answer) == ("onetwo", True, answer)
    assert answer.conversation.message_id == answer.message_id


def test_a_stream_that_has_ended_is_not_closed_any_more(emulator: Emulator, client: Client) -> None:
    """Neither one that is whole, nor one that has failed: who asks again gets what came of it."""
    whole, failed = client.stream("hi"), client.stream("hi")
    assert list(whole) == ["one", "two"]
    emulator.script(Reply(["one"], error="boom"))
    with pytest.raises(Exception, match="boom"):
        list(failed)
    for stream in (whole, failed):
        elsewhere(stream)
        assert (list(stream), repr(stream)[:17]) == ([], "<Stream finished,")
    assert whole.read().text == "onetwo"


def test_a_failure_behind_a_close_is_the_close(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a connection that was shut down says is nobody's business."""
    stream = client.stream("hi")
    add = AnswerBuilder.add

    def failing(self: AnswerBuilder, piece: str, limit: int) -> None:
        elsewhere(stream)
        add(self, piece, 1)

    monkeypatch.setattr(AnswerBuilder, "add", failing)
    with pytest.raises(StreamClosedError, match="closed by another thread"):
        next(stream)


def test_an_interruption_ends_a_stream_for_good(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C inside the reading leaves no stream that could be taken for a whole one."""
    stream = client.stream("hi")

    def interrupted(self: AnswerBuilder, piece: str, limit: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AnswerBuilder, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert (list(stream), stream.answer) == ([], None)
    with pytest.raises(StreamClosedError):
        stream.read()


@pytest.mark.parametrize("asked", [1, 2, 3, 4], ids="before item {}".format)
def test_a_task_learns_that_its_stream_was_closed(client: Client, run: Run, asked: int) -> None:
    """Its loop does not end as if the answer were whole."""

    async def read(stream: Stream) -> List[str]:
        return [piece async for piece in iterate_stream(stream)]

    stream = client.stream("hi")
    Hooked(stream, lambda: elsewhere(stream), asked)
    with pytest.raises(StreamClosedError):
        run(read(stream))
    assert stream.answer is None


@pytest.mark.parametrize("asked", [1, 2, 3, 4], ids="before item {}".format)
def test_a_page_is_not_told_that_a_closed_answer_is_complete(client: Client, asked: int) -> None:
    """It is told that the answer was stopped."""
    told: List[Any] = []
    stream = client.stream("hi")
    Hooked(stream, lambda: elsewhere(stream), asked)
    last = events(b"".join(EventStream(stream, on_complete=told.append)))[-1]
    assert (last["type"], last["code"], told, stream.answer) == ("error", "stopped", [], None)


@pytest.mark.parametrize("asked", [1, 2, 3, 4], ids="before item {}".format)
def test_a_page_under_asgi_is_not_told_so_either(client: Client, run: Run, asked: int) -> None:
    """On any loop."""
    told: List[Any] = []

    async def note(answer: Any) -> None:  # pragma: no cover - nothing is complete
        told.append(answer)

    async def gathered(stream: Stream) -> bytes:
        return b"".join([part async for part in AsyncEventStream(stream, on_complete=note)])

    stream = client.stream("hi")
    Hooked(stream, lambda: elsewhere(stream), asked)
    last = events(run(gathered(stream)))[-1]
    assert (last["type"], last["code"], told, stream.answer) == ("error", "stopped", [], None)


def test_a_page_that_closes_its_answer_hears_no_more(emulator: Emulator, client: Client) -> None:
    """The response ends at once: closing is what its reader wanted."""
    emulator.fail("message", Fault.stall(("after_events", 1)))  # or it might be whole before it is closed
    stream = client.stream("hi")
    body = EventStream(stream, heartbeat=PATIENCE)
    assert next(body) == b": answering\n\n"
    body.close()
    assert (list(body), stream.answer) == ([], None)
