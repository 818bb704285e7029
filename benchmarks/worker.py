"""One client in a process of its own: ``python -m benchmarks.worker NAME [CHECKOUT]``.

It reads jobs from its input, a JSON object a line, does them and prints what it measured, likewise. A job names a
function of this module, the server, and the function's arguments. Times are in seconds, memory in bytes.
"""

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Awaitable, Callable, Dict, Iterator, List, TextIO, Union, cast

from benchmarks.measure import sampled
from benchmarks.peers import PEERS, AsyncClient, Client, Target
from benchmarks.plans import Plan

#: What is measured.
Result = Dict[str, Any]
#: Takes one piece of text.
Taker = Callable[[str], Any]


class Peer:
    """A client, blocking or not, driven in one way."""

    def __init__(self, client: Union[Client, AsyncClient]) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop() if isinstance(client, AsyncClient) else None

    def ask(self, plan: Plan, known: bool, take: Taker) -> None:
        """Ask once, and read the answer to its end."""
        if self._loop is None:
            for piece in cast(Client, self._client).pieces(plan, known):
                take(piece)
        else:
            self._loop.run_until_complete(self._asked(plan, known, take))

    async def _asked(self, plan: Plan, known: bool, take: Taker) -> None:
        async for piece in cast(AsyncClient, self._client).pieces(plan, known):
            take(piece)

    def ask_at_once(self, plan: Plan, takers: List[Taker]) -> None:
        """Ask many times at once: in threads, or in tasks of one loop."""
        if self._loop is not None:
            self._loop.run_until_complete(_all([self._asked(plan, True, take) for take in takers]))
            return
        threads = [threading.Thread(target=self.ask, args=(plan, True, take)) for take in takers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def batch(self, plan: Plan, count: int, threads: int) -> int:
        """Ask so often in new conversations, with so many threads, and give the length of all texts."""
        return sum(map(len, cast(Client, self._client).batch(plan, count, threads)))


async def _all(tasks: List[Awaitable[None]]) -> None:
    await asyncio.gather(*tasks)


# Jobs


def calls(peer: Peer, plan: Plan, count: int) -> Result:
    """Ask in a known conversation, one call after the other, and gather the text."""
    size = 0

    def one() -> None:
        nonlocal size
        pieces: List[str] = []
        peer.ask(plan, True, pieces.append)
        size += len("".join(pieces))

    with _measured() as result:
        for _ in range(count):
            one()
    _expect(size, plan.characters * count)
    return result


#: Calls that each thread makes before it is measured: a free-threaded build specializes code in each thread by itself.
_WARMING = 20


def calls_in_threads(peer: Peer, plan: Plan, count: int, threads: int) -> Result:
    """Ask in a known conversation, so often in all, in so many threads at once."""
    ready = threading.Barrier(threads + 1, timeout=60)

    def ask(times: int) -> int:
        size = 0
        for _ in range(times):
            pieces: List[str] = []
            peer.ask(plan, True, pieces.append)
            size += len("".join(pieces))
        return size

    def work() -> int:
        try:
            ask(min(_WARMING, count // threads))
        except BaseException:
            ready.abort()
            raise
        try:
            ready.wait()  # all are warm
            ready.wait()  # the clock runs
        except threading.BrokenBarrierError:
            return 0  # another thread has failed, and says how
        return ask(count // threads)

    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(work) for _ in range(threads)]
        with contextlib.suppress(threading.BrokenBarrierError):
            ready.wait()
        with _measured() as result:
            with contextlib.suppress(threading.BrokenBarrierError):
                ready.wait()
            size = sum(done.result() for done in working)
    _expect(size, plan.characters * (count // threads) * threads)
    return result


def batch(peer: Peer, plan: Plan, count: int, threads: int) -> Result:
    """Ask so often in new conversations, in so many threads, as a batch does."""
    peer.batch(plan, threads, threads)  # imports what it needs
    with _measured() as result:
        size = peer.batch(plan, count, threads)
    _expect(size, plan.characters * count)
    return result


def volume(peer: Peer, plan: Plan) -> Result:
    """Ask once and keep nothing but the length; tell by how much the process grew meanwhile."""
    size = 0

    def take(piece: str) -> None:
        nonlocal size
        size += len(piece)

    before = _begin_peak()
    with _measured() as result:
        peer.ask(plan, True, take)
    _expect(size, plan.characters)
    return {**result, "memory": _grown(before)}


def delays(peer: Peer, plan: Plan) -> Result:
    """Ask for an answer whose pieces say when they were sent, and tell how long they were on their way."""
    found: List[int] = []
    with _measured() as result:
        peer.ask(plan, True, lambda piece: found.append(time.monotonic_ns() - int(piece)))
    _expect(len(found), plan.events)
    return {**result, "delays": [delay / 1e9 for delay in found]}


def streams(peer: Peer, plan: Plan, count: int) -> Result:
    """Ask for many such answers at once. Tell what one takes in memory at most until halfway, and the threads then.

    ``settled`` are the delays of the second half alone, when all connections have long been made.
    """
    found: List[List[int]] = [[] for _ in range(count)]
    takers = [_noting(into) for into in found]
    before = _begin_peak()
    after: List[int] = []
    threads_before = threading.active_count() + 1  # and the timer

    def look() -> None:
        after.extend([_grown(before), threading.active_count() - threads_before])

    halfway = threading.Timer(plan.events * plan.gap / 1e6 / 2, look)
    with _measured() as result:
        halfway.start()
        peer.ask_at_once(plan, takers)
    halfway.join()
    _expect(sum(map(len, found)), plan.events * count)
    everything = [delay / 1e9 for one in found for delay in one]
    settled = [delay / 1e9 for one in found for delay in one[len(one) // 2 :]]
    return {
        **result,
        "delays": sampled(everything),
        "settled": sampled(settled),
        "memory": after[0] / count,
        "threads": after[1],
    }


def _noting(into: List[int]) -> Taker:
    return lambda piece: into.append(time.monotonic_ns() - int(piece))


def first_text(peer: Peer, plan: Plan, known: bool) -> Result:
    """Ask once and tell how long the first piece of text took."""
    moments: List[float] = []
    started = time.monotonic()
    peer.ask(plan, known, lambda piece: moments.append(time.monotonic() - started))
    return {"first": moments[0]}


def _expect(found: int, expected: int) -> None:
    """Raise where a client did not get all of what was sent."""
    if found != expected:
        raise ValueError(f"{found} of {expected} came")


@contextlib.contextmanager
def _measured() -> Iterator[Result]:
    result: Result = {}
    gc.collect()
    cpu, started = _cpu(), time.monotonic()
    yield result
    result.update(cpu=_cpu() - cpu, wall=time.monotonic() - started)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory(field: str) -> int:
    """A field of this process's status, in bytes; 0 where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0


def _begin_peak() -> int:
    """Forget the peak of memory so far, and return the one that begins, in bytes."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
        refs.write("5")
    return _memory("VmHWM")


def _grown(before: int) -> int:
    """By how much the peak is above an earlier one. The system counts some pages late, so it can seem to be below."""
    return max(0, _memory("VmHWM") - before)


_JOBS: Dict[str, Callable[..., Result]] = {
    job.__name__: job for job in (calls, calls_in_threads, batch, volume, delays, streams, first_text)
}


class Worker:
    """The clients of one kind that this process has, one for each server."""

    def __init__(self, name: str) -> None:
        self._new = PEERS[name]
        self._peers: Dict[str, Peer] = {}

    def done(self, job: Dict[str, Any]) -> Result:
        """Do a job; tell what was measured, or why it can't be."""
        try:
            peer = self._peer(job.pop("target"), job.pop("fresh", False))
            plan = Plan(**job.pop("plan"))
            measure = _JOBS[job.pop("job")]
            if measure is not first_text:
                peer.ask(Plan(), True, str)  # so that what is done once is done
            return measure(peer, plan, **job)
        except ImportError as error:
            return {"failure": f"{error.name} is not installed"}
        except Exception as error:  # noqa: BLE001 - a client that can't do it is a result too
            return {"failure": " ".join(f"{type(error).__name__}: {error}".split())[:60]}

    def _peer(self, target: Dict[str, Any], fresh: bool) -> Peer:
        key = json.dumps(target)
        if fresh or key not in self._peers:
            self._peers[key] = Peer(self._new(Target(**target)))
        return self._peers[key]


def main(name: str, replies: TextIO) -> None:
    """Do the jobs that come, until no more do."""
    worker = Worker(name)
    for line in sys.stdin:
        print(json.dumps(worker.done(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as own_output:
        os.dup2(2, 1)  # whatever a library prints
        sys.path[:0] = sys.argv[2:]
        main(sys.argv[1], own_output)
        own_output.flush()
        os._exit(0)  # without waiting for the threads of whatever did not end
