"""Event loops to run a test on, and a wait that lets them go on."""

import asyncio
import contextlib
import time
from typing import Any, Callable, Coroutine
from unittest import mock

import pytest
from support import PATIENCE

from copilot_sync.aio import loop_watch

with contextlib.suppress(ImportError):
    import uvloop

    uvloop.new_event_loop().close()  # the first one makes what all of them share

Main = Callable[[], Coroutine[Any, Any, None]]


def run_on_asyncio(main: Main) -> None:
    """Run a coroutine function on the loop that everybody has."""
    asyncio.run(main())


def run_on_uvloop(main: Main) -> None:
    """Run a coroutine function on uvloop, if it is there."""
    loop = pytest.importorskip("uvloop").new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def run_without_watching(main: Main) -> None:
    """Run a coroutine function on a loop that can't watch sockets, as that of Windows: threads wait for packets."""
    with mock.patch.object(loop_watch, "watches_sockets", return_value=False):
        asyncio.run(main())


_WATCHING = {"asyncio": run_on_asyncio, "uvloop": run_on_uvloop}
_ALL = {**_WATCHING, "threads": run_without_watching}
#: For tests of what holds on each loop, and on those that read by themselves.
every_loop = pytest.mark.parametrize("run", _ALL.values(), ids=[*_ALL])
watching_loops = pytest.mark.parametrize("run", _WATCHING.values(), ids=[*_WATCHING])


async def until(predicate: Callable[[], object]) -> None:
    """Wait for what only looking can tell, while the loop goes on."""
    end = time.monotonic() + PATIENCE
    while not predicate():
        assert time.monotonic() < end, "what was waited for did not happen"
        await asyncio.sleep(0.005)
