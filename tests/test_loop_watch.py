"""What watches a connection for an event loop, at moments that are hard to meet."""

import asyncio
import gc
import socket
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from copilot_sync.aio.loop_watch import LoopWatch, watches_sockets
from copilot_sync.aio.reader import _resolve


class Reader:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: List[str] = []

    def on_ready(self) -> None:
        self.told.append("ready")


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    ours, peers = socket.socketpair()
    with ours, peers:
        yield ours, peers


def run(main: Callable[[asyncio.AbstractEventLoop], Any]) -> None:
    async def called() -> None:
        main(asyncio.get_running_loop())

    asyncio.run(called())


def test_a_timer_that_goes_off_earlier_stays(pair: Any) -> None:
    """It looks how much time is left when it does, and moving it would cost more."""
    reader = Reader()

    def main(loop: asyncio.AbstractEventLoop) -> None:
        watch = LoopWatch(loop, reader)
        assert watch.begin(pair[0], lambda: 100.0)
        timer = watch._timer
        assert watch.begin(pair[0], lambda: 200.0)
        assert watch._timer is timer
        assert watch.begin(pair[0], lambda: 50.0)
        assert watch._timer is not timer
        watch.end()

    run(main)


def test_a_reader_that_is_gone_is_told_nothing(pair: Any) -> None:
    """Another thread may have dropped it a moment ago, and the loop has not been told yet."""
    readers = [Reader()]

    def main(loop: asyncio.AbstractEventLoop) -> None:
        watch = LoopWatch(loop, readers[0])
        assert watch.begin(pair[0], lambda: 100.0)
        watch._on_ready()
        assert readers[0].told == ["ready"]
        readers.clear()
        gc.collect()
        watch._on_ready()
        watch._run("on_ready")
        watch.end()

    run(main)


def test_a_socket_that_was_closed_is_not_watched(pair: Any) -> None:
    """It has no number any more, so a thread meets what has become of it."""
    reader = Reader()

    def main(loop: asyncio.AbstractEventLoop) -> None:
        watch = LoopWatch(loop, reader)
        pair[0].close()
        assert not watch.begin(pair[0], lambda: 100.0)
        assert not watch.is_watching

    run(main)


class Closing:
    """A loop that is closed just after one has looked whether it runs."""

    def is_closed(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_soon_threadsafe(self, *args: Any) -> None:
        raise RuntimeError("Event loop is closed")


def test_a_loop_that_is_closed_meanwhile_closes_nothing() -> None:
    """Whoever closed the stream closes its connection then."""
    loop: Any = Closing()
    watch = LoopWatch(loop, Reader())
    watch._number = 1000
    assert not watch.closes(str)


def test_a_wait_ends_once() -> None:
    """Its time may be over in the round in which something has come."""

    def main(loop: asyncio.AbstractEventLoop) -> None:
        waiter = loop.create_future()
        _resolve(waiter)
        _resolve(waiter)
        assert waiter.result() is None

    run(main)


def test_a_loop_of_no_kind_that_is_known_watches_nothing() -> None:
    """As that of Windows, whose method only says that there is none."""
    unknown: Any = asyncio.AbstractEventLoop
    assert not watches_sockets(unknown())
    loop = asyncio.new_event_loop()
    assert watches_sockets(loop)
    loop.close()
