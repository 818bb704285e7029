"""Hundreds of async generators in one event loop, stopped at random moments: nothing is left, no answer goes astray.

In each round, all ask at once on one client and a new loop, and each is stopped in one of these ways, or reads to its
end: its task is cancelled; its time is over, by ``wait_for`` or by ``asyncio.timeout``; it is closed by ``aclose``; its
loop is left, and garbage collection finds it; another thread closes its stream. A share of the rounds ends while all
still run: the loop cancels them, as ``asyncio.run`` does, or it is closed without a word. All this on asyncio's loop
and on uvloop, with TLS and without.

Run it with ``python tests/stress/cancelled.py [--short] [CASE ...]``. It prints how many were asked and how many were
read to their end, and in all what was left behind a round: threads, sockets, tasks and callbacks of the loop; how many
``ResourceWarning`` there were; how many got text of another's answer; how many prompts were asked twice.
"""

import asyncio
import contextlib
import gc
import os
import random
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from typing import Any, AsyncGenerator, Awaitable, Callable, Dict, List, Tuple

from measuring import Figures, asked_twice, begin_worker, emulators, settings, tell, watch

from copilot_sync import Client, CopilotError, Stream, StreamClosedError
from copilot_sync.aio import iterate_stream
from copilot_sync.emulator import Reply

FULL = {"rounds": 1000, "generators": 500}
SHORT = {"rounds": 12, "generators": 60}
#: The loop, and how the service is asked.
CASES = {f"{loop}, {wire}": (loop, wire) for loop in ("asyncio", "uvloop") for wire in ("plain", "TLS")}
#: Seconds after which a worker that says nothing hangs, and after which what is left of a round stays.
SILENCE, PATIENCE = 90.0, 10.0
#: Rounds on one client, which keeps connections from one to the next. Afterwards none may be open.
ON_ONE_CLIENT = 4
#: Seconds within which the generators of a round are stopped; each round has one of them.
SPANS = (0.02, 0.2, 0.7, 1.5)
#: How a round ends, and how often.
ENDS = ("by itself",) * 6 + ("cancelled",) * 3 + ("closed",)


async def read(generator: "AsyncGenerator[str, None]", into: List[str]) -> None:
    """Read to the end."""
    async for piece in generator:
        into.append(piece)


async def cancel(stream: Stream, into: List[str], moment: float) -> None:
    """Cancel a task."""
    task = asyncio.ensure_future(read(iterate_stream(stream), into))
    await asyncio.wait({task}, timeout=moment)
    task.cancel()
    await task


async def wait_for(stream: Stream, into: List[str], moment: float) -> None:
    """Wait for so long."""
    await asyncio.wait_for(read(iterate_stream(stream), into), moment)


async def timeout(stream: Stream, into: List[str], moment: float) -> None:
    """Read within ``asyncio.timeout``, which 3.11 has for the first time."""
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(moment):
            await read(iterate_stream(stream), into)


async def aclose(stream: Stream, into: List[str], moment: float) -> None:
    """Close the generator after some pieces."""
    generator = iterate_stream(stream)
    async for piece in generator:
        into.append(piece)
        if len(into) > 10 * moment:
            break
    await generator.aclose()


async def drop(stream: Stream, into: List[str], moment: float) -> None:
    """Leave the loop, and forget the generator."""
    async for piece in iterate_stream(stream):
        into.append(piece)
        if len(into) > 10 * moment:
            return


async def to_the_end(stream: Stream, into: List[str], moment: float) -> None:
    """Read all."""
    await read(iterate_stream(stream), into)


async def from_a_thread(stream: Stream, into: List[str], moment: float) -> None:
    """Read all, while a thread is about to close the stream."""
    with contextlib.suppress(StreamClosedError):
        await read(iterate_stream(stream), into)


Way = Callable[[Stream, List[str], float], Awaitable[None]]
WAYS: Tuple[Way, ...] = (cancel, wait_for, timeout, aclose, drop, to_the_end, from_a_thread)
#: What a stop may raise.
STOPPED = (asyncio.CancelledError, asyncio.TimeoutError)


class Round:
    """One loop, and all that ask on it at once.

    Attributes:
        counts: What has come of it.
    """

    def __init__(self, client: Client, name: str, chance: random.Random) -> None:
        self._client, self._name, self._chance = client, name, chance
        self._end, self._span = chance.choice(ENDS), chance.choice(SPANS)
        self._to_close: List[Tuple[float, Stream]] = []
        self.counts: Counter[str] = Counter(rounds=1)

    def run(self, loop: asyncio.AbstractEventLoop, generators: int) -> None:
        """Ask, and stop; close the loop."""
        loop.set_exception_handler(self._note_complaint)
        try:
            loop.run_until_complete(self._ask_all(generators))
            if self._end == "cancelled":
                loop.run_until_complete(_cancel_all())
            if self._end != "closed":
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(self._note_what_is_left(loop))
        finally:
            loop.close()

    def _note_complaint(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        """Count what the loop complains of. One that is closed without a word complains of its tasks."""
        if self._end != "closed":
            print(context, file=sys.stderr)
            self.counts["strange"] += 1

    async def _ask_all(self, generators: int) -> None:
        tasks = [asyncio.ensure_future(self._ask(number)) for number in range(generators)]
        closer = threading.Thread(target=self._close_in_thread)
        closer.start()
        if self._end == "by itself":
            await asyncio.wait(tasks)
        else:
            await asyncio.wait(tasks, timeout=self._chance.uniform(0, self._span))
        await asyncio.get_running_loop().run_in_executor(None, closer.join)
        await _shutdown_executor()

    async def _ask(self, number: int) -> None:
        prompt = f"{self._name} asks {number}: a question of some words"
        way = WAYS[number % len(WAYS)]
        moment = self._chance.uniform(0, self._span)
        into: List[str] = []
        stream = self._client.stream(prompt)
        if way is from_a_thread:
            self._to_close.append((time.monotonic() + moment, stream))
        self.counts["asked"] += 1
        try:
            await way(stream, into, moment)
        except STOPPED:
            pass
        except CopilotError as error:
            print(f"{way.__name__}: {error!r}", file=sys.stderr)
            self.counts["failed"] += 1
        except Exception:  # noqa: BLE001 - whatever it is, it should not be
            print(f"{way.__name__}, in a round that was {self._end}:", file=sys.stderr)
            traceback.print_exc()
            self.counts["strange"] += 1
        finally:
            text = "".join(into)
            self.counts["whole"] += text == prompt
            self.counts["astray"] += not prompt.startswith(text)
            self.counts["half"] += stream.answer is not None and stream.answer.text != prompt

    def _close_in_thread(self) -> None:
        end = time.monotonic() + self._span
        while time.monotonic() < end:
            time.sleep(0.005)
            now = time.monotonic()
            for moment, stream in list(self._to_close):
                if moment <= now:
                    self._to_close.remove((moment, stream))
                    stream.close()
        for _, stream in self._to_close:
            stream.close()
        self._to_close.clear()

    async def _note_what_is_left(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until all tasks have ended and all callbacks were called; count those that stay."""
        end = loop.time() + PATIENCE
        while (len(asyncio.all_tasks()) > 1 or _callbacks(loop)) and loop.time() < end:
            await asyncio.sleep(0.01)
        self.counts["tasks"] += len(asyncio.all_tasks()) - 1
        self.counts["callbacks"] += _callbacks(loop)


async def _cancel_all() -> None:
    """Cancel all other tasks, as ``asyncio.run`` does at its end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _shutdown_executor() -> None:
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 9):
        await loop.shutdown_default_executor()
    else:
        loop._default_executor.shutdown()


def _callbacks(loop: Any) -> int:
    """How many callbacks a loop still has. That of uvloop does not say."""
    if not hasattr(loop, "_scheduled"):
        return 0
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]
    watched = len(loop._selector.get_map()) - 1  # its own
    return len(timers) + len(loop._ready) + watched


class Worker:
    """Round after round, in a process of its own."""

    def __init__(self, kind: str, url: str, authority: str, seed: int) -> None:
        self._chance = random.Random(seed)
        self._kind, self._url, self._authority = kind, url, authority
        self._warnings = 0

    def work(self, rounds: int, generators: int) -> None:
        """Go through so many rounds on one client."""
        warnings.simplefilter("always", ResourceWarning)
        warnings.showwarning = self._note_warning
        sys.unraisablehook = self._note_unraisable
        new_loop = _loops()[self._kind]
        new_loop().close()  # imports what it needs
        threads, descriptors = threading.active_count(), _descriptors()
        for start in range(0, rounds, ON_ONE_CLIENT):
            with Client("account-1", api_url=self._url, verify=self._authority) as client:
                for number in range(start, min(start + ON_ONE_CLIENT, rounds)):
                    one = Round(client, f"{self._kind} {self._url[:5]} {number}", self._chance)
                    one.run(new_loop(), generators)
                    counts = one.counts
                    del one
                    gc.collect()
                    counts["threads"] += _left(threading.active_count, threads)
                    counts["warnings"], self._warnings = self._warnings, 0
                    tell(**counts)
            tell(sockets=_left(_descriptors, descriptors))

    def _note_warning(self, message: Any, category: Any, *where: Any, **more: Any) -> None:
        if issubclass(category, ResourceWarning):
            print(message, file=sys.stderr)
            self._warnings += 1

    def _note_unraisable(self, unraisable: Any) -> None:
        traceback.print_exception(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback)
        self._warnings += 1


def _left(count: Callable[[], int], expected: int) -> int:
    """How many more than expected there still are after a while."""
    end = time.monotonic() + PATIENCE
    while count() > expected and time.monotonic() < end:
        time.sleep(0.005)
    return max(0, count() - expected)


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def _loops() -> Dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What makes a loop, of each kind that is installed."""
    found: Dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    with contextlib.suppress(ImportError):
        import uvloop

        found["uvloop"] = uvloop.new_event_loop
    return found


def main() -> int:
    """Go through the cases."""
    given = settings(__doc__, FULL, SHORT, list(CASES))
    figures = Figures()
    counts: Counter[str] = Counter()
    names = [name for name in given.names if CASES[name][0] in _loops()]
    with emulators() as (plain, secure, authority):
        for emulator in (plain, secure):
            emulator.reply = Reply(pace=0.004)
        for name in names:
            loop, wire = CASES[name]
            emulator = secure if wire == "TLS" else plain
            numbers = [str(number) for number in (given.rounds, given.generators, given.seed)]
            found = watch(["cancelled.py", "--worker", loop, emulator.api_url, authority, *numbers], SILENCE, {})
            figures.at_least(f"rounds, {name}", found["rounds"], given.rounds)
            counts.update(found)
        twice = asked_twice(plain) + asked_twice(secure)
    asked = given.rounds * given.generators * len(names)
    figures.note("generators", counts["asked"])
    figures.at_least("answers that were read to their end", counts["whole"], asked // 20)
    figures.at_most("that got text of another's answer", counts["astray"], 0)
    figures.at_most("half answers that were called whole", counts["half"], 0)
    figures.at_most("prompts that were asked twice", twice, 0)
    figures.at_most("that failed", counts["failed"], 0)
    figures.at_most("that raised something else, and complaints of a loop", counts["strange"], 0)
    for what in ("threads", "sockets", "tasks", "callbacks"):
        figures.at_most(f"{what} that were left", counts[what], 0)
    figures.at_most("warnings, and errors that nobody could catch", counts["warnings"], 0)
    figures.at_most("workers that crashed or hung", counts["crashed"] + counts["hung"], 0)
    return figures.status


if __name__ == "__main__":
    if "--worker" in sys.argv:
        begin_worker()
        kind, url, authority, rounds, generators, seed = sys.argv[2:]
        Worker(kind, url, authority, int(seed)).work(int(rounds), int(generators))
    else:
        sys.exit(main())
