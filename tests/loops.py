"""The event loops that asynchronous tests run on, each of which reads a stream in its own way.

Tests take the fixture ``run``, once for each kind of loop, or ``read``, which reads streams without one as well.
"""

import asyncio
import functools
import threading
import time
from typing import Any, Callable, Coroutine, List, TypeVar

import pytest
from support import PATIENCE

try:
    import uvloop
except ImportError:  # pragma: no cover - there is none for each system
    uvloop = None  # type: ignore[assignment]

from copilot_sync import Stream, os_threads
from copilot_sync.aio import client as client_module
from copilot_sync.aio import iterate_stream, loop_watch
from copilot_sync.aio import reader as reader_module
from copilot_sync.aio import threads as threads_module

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]
Read = Callable[..., List[str]]

ASYNCIO, THREADS, UVLOOP = "asyncio", "asyncio with threads", "uvloop"
#: The loop reads by itself; a thread waits for each packet, as on Windows; the fast loop that many servers use.
KINDS = [
    ASYNCIO,
    THREADS,
    pytest.param(UVLOOP, marks=pytest.mark.skipif(uvloop is None, reason="there is no uvloop here")),
]
#: And none.
FACES = ["sync", *KINDS]


def runner(kind: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs a coroutine on a new loop of a kind, to its end."""
    if kind == UVLOOP:
        return functools.partial(run_on, uvloop.new_event_loop)
    if kind == THREADS:
        monkeypatch.setattr(loop_watch, "watches_sockets", lambda loop: False)
    return asyncio.run


def run_on(new_loop: Callable[[], asyncio.AbstractEventLoop], work: "Coroutine[Any, Any, T]") -> T:
    """Run a coroutine as ``asyncio.run`` does, which takes no loop before Python 3.12."""
    loop = new_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(_cancel_all(loop))
        loop.close()


async def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_asyncgens()


def helpers() -> List[threading.Thread]:
    """The threads that help streams."""
    return [thread for thread in threading.enumerate() if thread.name == "copilot-sync-stream"]


def have_patience_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what waits a moment for a thread wait for its end, however busy the machine is."""
    for module in (os_threads, client_module, reader_module, threads_module):
        monkeypatch.setattr(module, "JOIN_TIMEOUT", PATIENCE)


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Await what waits for a server, while the loop runs on: the loop itself reads what the server sends."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def until(predicate: Callable[[], object]) -> None:
    """Wait for what only looking can tell, while the loop runs on and without a thread."""
    end = time.monotonic() + PATIENCE
    while not predicate():
        assert time.monotonic() < end, "what was waited for did not happen"
        await asyncio.sleep(0.005)


def reader(face: str, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return what reads a stream to its end, and calls a function with each piece when it is there."""
    if face == "sync":
        return _read
    run = runner(face, monkeypatch)
    return lambda *args: run(_read_async(*args))


def _read(stream: Stream, on_piece: Callable[[str], object] = str) -> List[str]:
    pieces: List[str] = []
    for piece in stream:
        pieces.append(piece)
        on_piece(piece)
    return pieces


async def _read_async(stream: Stream, on_piece: Callable[[str], object] = str) -> List[str]:
    pieces: List[str] = []
    async for piece in iterate_stream(stream):
        pieces.append(piece)
        on_piece(piece)
    return pieces


if uvloop is not None:  # pragma: no branch - there is none for each system
    # It makes what all its loops share, which a test would take for something left open.
    run_on(uvloop.new_event_loop, asyncio.sleep(0))
