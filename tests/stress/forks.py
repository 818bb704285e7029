"""Forks at any instant of a busy process: no child and no parent hangs, and each gets the answers to its own questions.

Starts fresh processes in which eight threads use a client from their first call on (questions, models, errors, tokens
that were refused, back-off), while the main thread forks children at random instants: with ``os.fork`` and with
``multiprocessing``, that leave by ``os._exit`` or as programs do. Each child asks once with the client that it
inherited and once with a new one. Every second process switches its threads every 10 µs, every third uses TLS.

Run it with ``python tests/stress/forks.py [--short]``. It prints how many forks there were, how many children hung (and
where), failed or got another's answer, and the same of the parents' calls.
"""

import itertools
import multiprocessing
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from typing import Any, Callable, Dict, Optional, Tuple

from measuring import Figures, begin_worker, content_of, emulators, end_hung, settings, tell, watch

from copilot_sync import Client, CopilotError, NotFoundError, RetryPolicy, Timeout
from copilot_sync.emulator import Fault, RecordedRequest

FULL = {"processes": 400, "children": 10}
SHORT = {"processes": 6, "children": 8}
THREADS = 8
#: Seconds. A child that takes longer hangs; so does a process that says nothing for so long.
PATIENCE = 15.0
SILENCE = 60.0
#: Messages after which a token comes to its end. One that was never good looks like credentials that are not valid.
USES = 30
#: What can be wrong with a message in words that take more than usual to read.
REFUSALS = (
    Fault.status(503, retry_after="Wed, 01 Jan 2020 00:00:00 GMT"),
    Fault.garbage(status=400),
    Fault.status(422, body="näh", headers={"Content-Type": "text/plain; charset=iso-8859-1"}),
)
#: Seconds between two forks, on average.
PACE = 0.015
#: The exit statuses of children.
RIGHT, WRONG, FAILED = 0, 3, 4


class Child:
    """A child of ``os.fork`` that does some work and leaves with what it returns.

    Args:
        work: What it does.
        leave: How it leaves: ``os._exit``, or ``sys.exit`` as programs do.
    """

    def __init__(self, work: Callable[[], int], leave: Callable[[int], Any]) -> None:
        self.pid = os.fork()
        if not self.pid:
            leave(work())

    def status(self) -> Optional[int]:
        """Its exit status; ``None`` as long as it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.WEXITSTATUS(status) - os.WTERMSIG(status) if pid else None


class Process(Child):
    """A child of ``multiprocessing``."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(work()))
        self._process.start()
        self.pid = self._process.pid or 0

    def status(self) -> Optional[int]:
        """Its exit status; ``None`` as long as it runs."""
        return self._process.exitcode


WAYS: Dict[str, Callable[[Callable[[], int]], Child]] = {
    "os._exit": lambda work: Child(work, os._exit),
    "sys.exit": lambda work: Child(work, sys.exit),
    "multiprocessing": Process,
}


class Family:
    """A process and its children."""

    def __init__(self, seed: int, verify: str) -> None:
        self._chance = random.Random(seed)
        self._verify = verify or True
        self._client = Client(verify=self._verify)
        # Another account: what is refused to it holds up nobody else.
        retry = RetryPolicy(attempts=2, base=0.01, cap=0.01)
        self._refused = Client(api_key=f"account-{seed}", verify=self._verify, retry=retry)
        self._over = threading.Event()
        self._born: Dict[Child, float] = {}
        self._counts: Counter[str] = Counter()

    def run(self, children: int, way: str) -> None:
        """Be busy, and fork in one of the ``WAYS``."""
        threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for _ in range(children):
            time.sleep(self._chance.expovariate(1 / PACE))
            self._born[WAYS[way](self._child)] = time.monotonic()
            tell(forks=1)
        while self._born:
            self._look_after()
            time.sleep(0.01)
        self._over.set()
        self._refused.close()  # whose calls may be waiting for the end of a pause
        for thread in threads:
            thread.join()
        tell(**self._counts)

    def _child(self) -> int:
        prompt = f"child {os.getpid()}"
        try:
            inherited = self._client.ask(prompt).text
            own = Client(verify=self._verify).ask(prompt).text
        except BaseException:  # noqa: BLE001 - whatever it is, it must not go on as the parent
            traceback.print_exc()
            return FAILED
        return RIGHT if inherited == own == prompt else WRONG

    def _look_after(self) -> None:
        """Take note of the children that have ended, and end those that hang."""
        for child, born in list(self._born.items()):
            status, age = child.status(), time.monotonic() - born
            if status is None and age < PATIENCE:
                continue
            del self._born[child]
            if status is None:
                end_hung(child.pid)
                tell(hung_children=1)
            else:
                kinds = {RIGHT: "right_children", WRONG: "wrong_children"}
                tell(**{kinds.get(status, "failed_children"): 1})

    def _work(self, number: int) -> None:
        """Ask right, wrong and refused questions."""
        kinds: Tuple[Callable[[str], None], ...] = (
            self._ask,
            self._ask,
            self._ask,
            self._look_around,
            self._be_refused,
        )
        for count in itertools.count():
            if self._over.is_set():
                return
            try:
                kinds[(number + count) % len(kinds)](f"parent {os.getpid()} {number} {count}")
            except Exception:  # noqa: BLE001 - a thread that failed would be busy no longer
                traceback.print_exc()
                self._counts["failed"] += 1

    def _ask(self, prompt: str) -> None:
        self._counts["wrong"] += self._client.ask(prompt).text != prompt
        self._counts["asked"] += 1

    def _look_around(self, prompt: str) -> None:
        self._client.models()
        try:
            self._client.messages("no such conversation")
        except NotFoundError:
            return
        raise AssertionError("there is no such conversation")

    def _be_refused(self, prompt: str) -> None:
        try:
            self._refused.ask(f"refused {prompt}", timeout=Timeout(total=0.5))
        except CopilotError:
            return
        raise AssertionError("it was refused")


class Misfortune:
    """What goes wrong with requests: tokens come to their end, and what asks for it is refused in several ways."""

    def __init__(self) -> None:
        self._uses: Counter[Optional[str]] = Counter()

    def __call__(self, stage: str, request: RecordedRequest) -> Optional[Fault]:
        """Choose the fault of a request."""
        if stage != "message":
            return None
        if content_of(request).startswith("refused"):
            return random.choice(REFUSALS)
        self._uses[request.bearer] += 1
        return Fault.expired_token() if self._uses[request.bearer] == USES else None


def main() -> int:
    """Run the families one after the other."""
    given = settings(__doc__, FULL, SHORT)
    counts: Counter[str] = Counter()
    with emulators(expiration="nanoseconds") as (plain, secure, authority):
        for number in range(given.processes):
            emulator, verify = (secure, authority) if number % 3 == 2 else (plain, "")
            emulator.choose_fault = Misfortune()
            interval, way = ("0.005", "1e-5")[number % 2], list(WAYS)[number // 2 % len(WAYS)]
            arguments = [str(given.seed + number), str(given.children), way, interval, verify]
            counts += watch(["forks.py", "--family", *arguments], SILENCE, emulator.environment)
            emulator.threads.clear()
    figures = Figures()
    figures.note("fresh processes", given.processes)
    figures.at_least("forks", counts["forks"], int(given.processes * given.children * 0.9))
    figures.at_least("children that got their answers", counts["right_children"], 1)
    figures.at_most("children that hung", counts["hung_children"], 0)
    figures.at_most("children that got another's answer", counts["wrong_children"], 0)
    figures.at_most("children that failed", counts["failed_children"], 0)
    figures.at_most("parents that hung", counts["hung"], 0)
    figures.at_most("parents that crashed", counts["crashed"], 0)
    figures.at_least("answers to parents", counts["asked"], given.processes)
    figures.at_most("wrong answers to parents", counts["wrong"], 0)
    figures.at_most("calls of parents that failed", counts["failed"], 0)
    return figures.status


if __name__ == "__main__":
    if "--family" in sys.argv:
        begin_worker()
        seed, children, way, interval, verify = sys.argv[2:]
        sys.setswitchinterval(float(interval))
        Family(int(seed), verify).run(int(children), way)
    else:
        sys.exit(main())
