"""An event loop that is interrupted where it reads a stream: whoever reads is told, and nothing is watched any more."""

import asyncio
import contextlib
import itertools
import sys
from typing import Any, Callable, List, Optional

import pytest
from streams import client_of
from support import PATIENCE, nothing_left_open

from copilot_sync import Client, StreamClosedError, stream_steps
from copilot_sync.aio import AsyncReader, loop_watch, reader
from copilot_sync.aio.reader import text_of
from copilot_sync.emulator import Emulator, Reply


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


async def collect(client: Client, conversation: Any, pieces: List[str]) -> None:
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
