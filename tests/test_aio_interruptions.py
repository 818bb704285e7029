"""An event loop that is interrupted where it reads a stream: whoever reads is told, and nothing is watched any more."""

import asyncio
import contextlib
import contextvars
import itertools
import sys
from typing import Any, Callable, List, Optional

import pytest
from loops import until
from streams import client_of
from support import PATIENCE, nothing_left_open

from copilot_sync import Client, StreamClosedError, stream_steps
from copilot_sync.aio import AsyncReader, helper_queue, loop_watch, reader
from copilot_sync.aio.reader import text_of
from copilot_sync.emulator import Emulator, Fault, Reply


class InterruptedAt:
    """Interrupts what it runs at its nth line of some modules."""

    def __init__(self, number: int, files: List[Optional[str]]) -> None:
        self._left = number
        self._files = files
        self.happened = False

    # Coverage is a tracer itself, and sees nothing while there is another one.
    def run(self, work: Callable[[], Any]) -> None:  # pragma: no cover
        """Run it; whatever ends it is of no interest."""
        before = sys.gettrace()
        trace = self._trace  # held here: else it is gone while Python 3.11 still calls it
        sys.settrace(trace)
        try:
            work()
        except (KeyboardInterrupt, StreamClosedError):
            pass
        finally:
            sys.settrace(before)

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:  # pragma: no cover
        if self.happened or frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            self._left -= 1
            if self._left < 0:
                self.happened = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


# It begins where there is another tracer.
async def collect(client: Client, conversation: Any, pieces: List[str]) -> None:  # pragma: no cover
    items = AsyncReader(client.stream("hi", conversation=conversation), text_of)
    try:
        async for piece in items:
            pieces.append(piece)
    finally:
        await items.aclose()


def read_interrupted(interrupted: InterruptedAt, client: Client, conversation: Any, is_cancelled: bool) -> None:
    """Read in a loop that is interrupted, and have it run on until the task has ended."""
    loop = asyncio.new_event_loop()
    pieces: List[str] = []
    task = loop.create_task(collect(client, conversation, pieces))
    interrupted.run(lambda: loop.run_until_complete(task))
    loop.call_soon(loop.stop)  # the one that ended may have left another one behind
    loop.run_forever()
    if is_cancelled:
        task.cancel()
    with contextlib.suppress(KeyboardInterrupt, StreamClosedError, asyncio.CancelledError):
        loop.run_until_complete(asyncio.wait_for(task, PATIENCE))
        assert pieces == ["one", "two"]
    assert len(loop._selector.get_map()) == 1  # type: ignore[attr-defined] # what wakes the loop itself
    loop.close()


# It traces a whole call for each line. What interrupts the garbage collector is shown, and goes no further.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("modules", "is_cancelled"),
    # An event loop itself loses what is interrupted before its first line, and then the task has nobody to tell it.
    [([reader, stream_steps], False), ([loop_watch], True)],
    ids=["it runs on", "its tasks are cancelled"],
)
def test_a_loop_that_is_interrupted_at_any_line_can_go_on(modules: List[Any], is_cancelled: bool) -> None:
    """The task that waits gets an error or a whole answer."""
    files: List[Optional[str]] = [module.__file__ for module in modules]
    with nothing_left_open(), Emulator(reply=Reply(["one", "two"])) as emulator, client_of(emulator) as client:
        conversation = client.create_thread().conversation_id
        for line in itertools.count():  # pragma: no branch - it is left at the last line
            interrupted = InterruptedAt(line, files)
            read_interrupted(interrupted, client, conversation, is_cancelled)
            if not interrupted.happened:
                break
    assert line > 20


def test_an_interruption_goes_through_the_loop_and_the_task_is_told(emulator: Emulator) -> None:
    """Whoever runs the loop gets it, and the task does not wait for ever."""
    emulator.reply = Reply(["one", "two"])
    emulator.fail("message", Fault.stall(("after_events", 1)))
    loop = asyncio.new_event_loop()

    def pick(item: Any) -> Any:
        if text_of(item) == "two":
            raise KeyboardInterrupt
        return text_of(item)

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), pick)
        assert await pieces.__anext__() == "one"
        await until(lambda: emulator.stalled)
        emulator.release()
        await pieces.__anext__()

    with client_of(emulator) as client:
        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        with pytest.raises(StreamClosedError, match="interruption"):
            loop.run_until_complete(asyncio.wait_for(task, PATIENCE))
    loop.close()


class Interrupted:
    """A reader that is interrupted whenever it is to go on."""

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.told = 0

    def on_ready(self) -> None:
        raise KeyboardInterrupt

    def on_interruption(self) -> None:
        self.told += 1


def test_an_interruption_of_what_was_to_be_called_soon_is_told() -> None:
    """It goes through the loop as well."""
    loop, interrupted = asyncio.new_event_loop(), Interrupted()
    loop_watch.LoopWatch(loop, interrupted).call_soon()
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert interrupted.told == 1
    loop.close()


def test_a_task_is_told_wherever_its_reader_was_interrupted(emulator: Emulator) -> None:
    """Also where nothing had ended yet."""
    emulator.fail("message", Fault.stall())

    async def main() -> None:
        pieces = AsyncReader(client.stream("hi"), text_of)
        task = asyncio.ensure_future(pieces.__anext__())
        await until(lambda: emulator.stalled)
        pieces.on_interruption()
        with pytest.raises(StreamClosedError, match="interruption"):
            await task
        await pieces.aclose()

    with client_of(emulator) as client:
        asyncio.run(main())


def test_a_reader_whose_making_was_interrupted_is_freed_in_silence() -> None:
    """It has nothing to close yet."""
    assert AsyncReader.__new__(AsyncReader).__del__() is None  # type: ignore[func-returns-value]


def test_readers_that_wait_for_their_turn_start_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """It came while another one's thread was being started."""
    started: List[Any] = []

    def begin(*args: Any) -> Any:
        started.append(args)
        if len(started) == 2:
            raise KeyboardInterrupt
        return thread_result(*args)

    async def read(client: Client) -> List[str]:
        return [piece async for piece in AsyncReader(client.stream("hi"), text_of)]

    thread_result = reader.ThreadResult
    monkeypatch.setattr(reader, "ThreadResult", begin)
    monkeypatch.setattr(helper_queue, "AT_ONCE", 1)
    with Emulator(reply=Reply(["one"])) as emulator, client_of(emulator) as client:
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(read(client)) for _ in range(3)]
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait(tasks))
        outcomes = loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
    assert [type(outcome) for outcome in outcomes] == [list, StreamClosedError, list]
