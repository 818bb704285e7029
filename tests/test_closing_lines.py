"""Closing or interrupting a stream at each line that reads it: the reader is told, or gets a whole answer."""

import contextlib
import functools
import inspect
import itertools
import sys
from typing import Any, Callable, Iterator, List, Optional, Sequence

import pytest
from closers import elsewhere, here
from streams import client_of
from support import Worker

from copilot_sync import Client, Conversation, Stream, StreamClosedError, stream_steps
from copilot_sync import stream as stream_module
from copilot_sync.delivery import answer, answer_builder, exchange
from copilot_sync.emulator import Emulator, Reply

TRACED = [module.__file__ for module in (exchange, answer, answer_builder, stream_module, stream_steps)]


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    emulator.reply = Reply(["one", "two"])
    with client_of(emulator) as opened:
        yield opened


class AtLine:
    """Runs something, and something else when it comes to its nth line of the modules that read streams."""

    def __init__(self, number: int, action: Callable[[], None], files: Sequence[Optional[str]] = TRACED) -> None:
        self._left = number
        self._action = action
        self._files = files
        self.happened = False

    def run(self, work: Callable[[], Any]) -> Any:
        """Run it in a thread of its own."""
        return Worker(lambda: self.watch(work)).result()

    # Coverage is a tracer itself, and sees nothing while there is another one.
    def watch(self, work: Callable[[], Any]) -> Any:  # pragma: no cover
        """Run it in this thread."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            return work()
        finally:
            sys.settrace(before)

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:  # pragma: no cover
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line" and not self.happened:
            self._left -= 1
            if self._left < 0:
                self.happened = True
                self._action()
        return self._trace


# It traces a whole call for each line. Without a GIL, all threads stand still whenever a tracer begins.
@pytest.mark.timeout(180)
@pytest.mark.parametrize("buffered", [False, True], ids=["in pieces", "at once"])
@pytest.mark.parametrize("close", [elsewhere, here], ids=["by another thread", "by a signal"])
def test_a_stream_closed_at_any_line_is_closed_or_whole(
    client: Client, close: Callable[[Stream], None], buffered: bool
) -> None:
    """A reader whose loop ends without an error has the whole answer, or has closed the stream itself."""
    conversation = client.create_thread().conversation_id
    closed = 0
    for line in itertools.count():  # pragma: no branch - it is left at the last line
        stream = client.stream("hi", conversation=conversation, buffered=buffered)
        hook = AtLine(line, functools.partial(close, stream))
        pieces: List[str] = []
        error = None
        try:
            hook.run(functools.partial(pieces.extend, stream))
        except StreamClosedError as caught:
            error = caught
        if stream.answer is not None:
            assert (pieces, error) == (["onetwo"] if buffered else ["one", "two"], None)
            assert (stream.answer.text, stream.answer.complete) == ("onetwo", True)
        else:
            closed += 1
            assert (error is None) is (close is here), f"closed at line {line}"
            assert "onetwo".startswith("".join(pieces))
            assert error is None or error.partial == stream.text
            with pytest.raises(StreamClosedError):
                stream.read()
        if not hook.happened:
            break
    assert closed > 20
    assert stream.answer is not None


@pytest.mark.parametrize("known", [False, True], ids=["a new conversation", "a known one"])
def test_a_stream_that_starts_may_be_closed_at_any_line(client: Client, known: bool) -> None:
    """Then there is no conversation to give, also if it was known before."""
    conversation = client.create_thread() if known else None
    outcomes = set()
    for line in itertools.count():  # pragma: no branch - it is left at the last line
        stream = client.stream("hi", conversation=conversation)
        hook = AtLine(line, stream.close)
        try:
            outcomes.add(type(hook.run(stream.start)))
        except StreamClosedError as error:
            outcomes.add(type(error))
        stream.close()
        if not hook.happened:
            break
    assert outcomes == {Conversation, StreamClosedError}


def interrupt() -> None:
    raise KeyboardInterrupt  # pragma: no cover - a tracer calls it, in which nothing is traced


@pytest.mark.parametrize("work", [next, Stream.close], ids=["that is read", "that is closed"])
def test_a_stream_interrupted_at_any_line_can_be_read_and_closed(client: Client, work: Callable[[Stream], Any]) -> None:
    """Its thread is not taken for a second reader, and closing frees the connection also while the stream is held."""
    conversation = client.create_thread().conversation_id

    def read_interrupted(hook: AtLine) -> str:
        stream = client.stream("hi", conversation=conversation)
        next(stream)
        with contextlib.suppress(KeyboardInterrupt):
            hook.watch(functools.partial(work, stream))
        with contextlib.suppress(StopIteration):
            next(stream)
        stream.close()
        return inspect.getgeneratorstate(stream._steps._driver)

    for line in itertools.count():  # pragma: no branch - it is left at the last line
        hook = AtLine(line, interrupt, [stream_module.__file__, stream_steps.__file__])
        assert Worker(functools.partial(read_interrupted, hook)).result() == inspect.GEN_CLOSED, f"at line {line}"
        if not hook.happened:
            break
    assert line > 5
