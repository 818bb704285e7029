"""``close`` at any instant: the client's, a stream's and a batch's end whatever is under way, at once.

A call is made to hang in each of the ways in which one can wait: for a connection, a token, a reply, the rest of an
answer, the end of a pause, a conversation that is deleted. Then ``close`` is called from another thread, or in a
signal handler that interrupts the call, after a random time. Both have to return, the call with nothing but the
library's own errors.

Run it with ``python tests/stress/leaving.py [--short] [CASE ...]``. It prints the worst time of each case in seconds,
of the two ways the longer one, and in all how many took longer than two seconds, raised something else, or went on.
"""

import contextlib
import faulthandler
import functools
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

from measuring import Figures, begin_worker, leave, settings, tell, watch

from copilot_sync import Client, CopilotError, RetryPolicy
from copilot_sync.batch import run
from copilot_sync.emulator import Emulator, Fault, Reply

FULL = {"repeats": 25}
SHORT = {"repeats": 1}
#: Seconds within which everything has to return.
AT_ONCE = 2.0
#: Seconds after which nobody waits for a call any more, and after which a worker that says nothing hangs.
ENDLESS, SILENCE = 6.0, 20.0
#: How ``close`` is called, and how many workers run at the same time.
WAYS, PARALLEL = ("thread", "signal"), 2
#: Seconds, at most, that a call waits before it is closed.
WAITING = 0.3
#: Seconds that pauses of the service last, longer than anybody waits for a call.
PAUSE = 30

#: What is called and may hang, and what ends it.
Calls = Tuple[Callable[[], Any], Callable[[], None]]


def ask(client: Client) -> Calls:
    """Ask, and close the client."""
    return lambda: client.ask("Hello"), client.close


def models(client: Client) -> Calls:
    """List the models, and close the client."""
    return client.models, client.close


def delete(client: Client) -> Calls:
    """Delete a conversation, and close the client."""
    conversation = client.create_thread()
    return lambda: client.delete_thread(conversation), client.close


def stream(client: Client) -> Calls:
    """Read a stream, and close it."""
    reply = client.stream("Hello")
    return lambda: list(reply), reply.close


def batch(client: Client) -> Calls:
    """Go through a batch, and close it."""
    results = run([f"question {number}" for number in range(20)], client=client, workers=4, delete_threads=True)
    return lambda: list(results), results.close


def behind_another(client: Client) -> Calls:
    """Wait for the token that another thread waits for, and close the client."""
    threading.Thread(target=_quietly, args=(lambda: client.ask("first"),), daemon=True).start()
    return lambda: client.ask("second"), client.close


class Case(NamedTuple):
    """How a call comes to wait.

    Attributes:
        begin: What is called, and what ends it.
        stage: At which stage the service does something.
        faults: What it does there.
        requests: How many requests of that stage are seen before the call waits.
    """

    begin: Callable[[Client], Calls]
    stage: str
    faults: Tuple[Fault, ...]
    requests: int = 1


STALL = Fault.stall()
WAIT = Fault.status(429, retry_after=PAUSE)
CASES: Dict[str, Case] = {
    "ask, token": Case(ask, "token", (STALL,)),
    "ask, another's token": Case(behind_another, "token", (STALL,)),
    "ask, thread": Case(ask, "thread", (STALL,)),
    "ask, reply": Case(ask, "message", (STALL,)),
    "ask, in the head": Case(ask, "message", (Fault.stall("in_headers"),)),
    "ask, in the answer": Case(ask, "message", (Fault.stall(("after_events", 1)),)),
    "ask, pause": Case(ask, "message", (WAIT,) * 3),
    "ask, back-off": Case(ask, "token", (Fault.status(502),) * 9),
    "ask, look-up": Case(ask, "messages", (STALL,)),
    "ask, looking again": Case(ask, "messages", (), requests=2),
    "ask, connecting": Case(ask, "message", (), requests=0),
    "models": Case(models, "models", (STALL,)),
    "models, pause": Case(models, "models", (WAIT,) * 3),
    "delete": Case(delete, "delete", (STALL,)),
    "stream, reply": Case(stream, "message", (STALL,)),
    "stream, in the answer": Case(stream, "message", (Fault.stall(("after_events", 1)),)),
    "batch, reply": Case(batch, "message", (STALL,) * 9),
    "batch, delete": Case(batch, "delete", (STALL,) * 9),
    "batch, pause": Case(batch, "message", (WAIT,) * 9),
}


class Leaving:
    """One case, again and again.

    Attributes:
        asked: When ``close`` was called.
        closed: When it returned.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._case = name, CASES[name]
        self._chance = random.Random(seed)
        self._strange = 0
        self.asked = self.closed = self.ended = 0.0

    def work(self, way: str, repeats: int) -> None:
        """Leave so many times in one of the ``WAYS``."""
        close_by = self._by_thread if way == "thread" else self._by_signal
        for _ in range(repeats):
            self._strange = 0
            with Emulator() as emulator, _crowded(self._name) as crowded:
                self._prepare(emulator)
                with Client(
                    cookies=emulator.cookies,
                    github_url=crowded or emulator.github_url,
                    api_url=emulator.api_url,
                    retry=RetryPolicy(attempts=3, base=PAUSE),
                ) as client:
                    call, close = self._case.begin(client)
                    close_by(emulator, call, functools.partial(self._close, close))
            took = round(1000 * (max(self.closed, self.ended) - self.asked))
            tell(left=1, late=int(took > 1000 * AT_ONCE), strange=self._strange, **{f"ms {took}": 1})

    def _prepare(self, emulator: Emulator) -> None:
        if self._case.stage == "messages":
            emulator.reply = Reply(first_delay=3600)
            emulator.fail("message", Fault.drop(processed=True))
        emulator.fail(self._case.stage, *self._case.faults)

    def _by_thread(self, emulator: Emulator, call: Callable[[], Any], close: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._call, args=(call,), daemon=True)
        thread.start()
        self._wait(emulator)
        with self._bounded():
            close()
            thread.join()

    def _by_signal(self, emulator: Emulator, call: Callable[[], Any], close: Callable[[], None]) -> None:
        over = threading.Event()

        def interrupt() -> None:
            self._wait(emulator)
            with self._bounded():
                os.kill(os.getpid(), signal.SIGUSR2)
                over.wait()

        signal.signal(signal.SIGUSR2, lambda *_: close())
        interrupting = threading.Thread(target=interrupt, daemon=True)
        interrupting.start()
        self._call(call)
        over.set()
        interrupting.join()

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """End the worker if what is done in here takes too long."""
        timer = threading.Timer(ENDLESS, self._give_up)
        timer.daemon = True
        timer.start()
        yield
        timer.cancel()

    def _give_up(self) -> None:
        faulthandler.dump_traceback(all_threads=True)
        tell(left=1, late=1, endless=1, strange=self._strange, **{f"ms {round(1000 * ENDLESS)}": 1})
        leave(0)

    def _wait(self, emulator: Emulator) -> None:
        """Let the call come to where it waits, and a moment on."""

        def waits() -> bool:
            return sum(request.stage == self._case.stage for request in emulator.requests) >= self._case.requests

        if not emulator.wait_until(waits, timeout=SILENCE / 2):
            raise AssertionError(f"it did not come to wait: {[request.stage for request in emulator.requests]}")
        time.sleep(self._chance.uniform(0.05, WAITING))

    def _call(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except CopilotError:
            pass
        except Exception:  # noqa: BLE001 - whatever it is, it should not be
            traceback.print_exc()
            self._strange += 1
        self.ended = time.monotonic()

    def _close(self, close: Callable[[], None]) -> None:
        self.asked = time.monotonic()
        try:
            close()
        except Exception:  # noqa: BLE001 - whatever it is, it should not be
            traceback.print_exc()
            self._strange += 1
        self.closed = time.monotonic()


@contextlib.contextmanager
def _crowded(name: str) -> Iterator[Optional[str]]:
    """The URL of a server that takes no more connections, for the case that needs one."""
    if not name.endswith("connecting"):
        yield None
        return
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _quietly(call: Callable[[], Any]) -> None:
    with contextlib.suppress(CopilotError):
        call()


def main() -> int:
    """Go through the cases."""
    given = settings(__doc__, FULL, SHORT, list(CASES))
    figures = Figures()
    counts: Counter[str] = Counter()
    workers = [
        ["leaving.py", "--worker", name, way, str(given.repeats), str(given.seed)]
        for name in given.names
        for way in WAYS
    ]
    with ThreadPoolExecutor(PARALLEL) as pool:
        found = pool.map(lambda arguments: watch(arguments, SILENCE, {}), workers)
        for name in given.names:
            both = next(found) + next(found)
            counts.update(both)
            worst = max((int(key.split()[1]) for key in both if key.startswith("ms ")), default=0)
            figures.at_most(f"seconds, {name}", worst / 1000, AT_ONCE)
    figures.at_least("calls that were left", counts["left"], len(workers))
    figures.at_most("that took longer than two seconds", counts["late"], 0)
    figures.at_most("that raised something else", counts["strange"], 0)
    figures.at_most(f"that went on for {ENDLESS:g} seconds and longer", counts["endless"], 0)
    figures.at_most("workers that crashed or hung", counts["crashed"] + counts["hung"], 0)
    return figures.status


if __name__ == "__main__":
    if "--worker" in sys.argv:
        begin_worker()
        name, way, repeats, seed = sys.argv[2:]
        Leaving(name, int(seed)).work(way, int(repeats))
    else:
        sys.exit(main())
