"""Blocking functions awaited: each runs in a thread of its own, which ends with it.

Threads: the function runs in one, everything else in the event loop.
"""

import asyncio
import contextlib
import contextvars
from typing import Callable, TypeVar

from copilot_sync.os_threads import JOIN_TIMEOUT, ThreadResult

T = TypeVar("T")


async def run_in_thread(function: Callable[[], T], cancel: Callable[[], object]) -> T:
    """Await what a blocking function returns, or raise what it raises.

    If the task is cancelled, the thread has ended in most cases before this does.

    Args:
        function: The function. It sees the context variables of the task.
        cancel: Has the function end soon. Called if the task is cancelled.

    Raises:
        RuntimeError: There can't be another thread.
    """
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    context = contextvars.Context()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, so nobody waits
            context.run(loop.call_soon_threadsafe, ended.set_result, None)

    result = ThreadResult(function, tell)
    try:
        await asyncio.shield(ended)
    except BaseException:
        cancel()
        if not result.wait(0.0):
            await asyncio.wait({ended}, timeout=JOIN_TIMEOUT)
        if result.wait(0.0):  # else the loop would wait inside of it
            result.join()
        raise
    result.join()
    return result.take()
