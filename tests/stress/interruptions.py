"""Exceptions out of a signal handler at any instant: the client that was interrupted answers the next question.

The main thread of a worker uses a client in one of several ways while a timer raises an exception (an ``Exception``, as
soft time limits are, or a ``KeyboardInterrupt``) at a random instant. After each the same client is asked again. One
that does not answer within seconds hangs: the worker is killed, and another goes on.

In the ways called "every step" nothing is left to chance: a call is interrupted at its first step, at its second (with
``--stride N``, N steps on), and so on to its last, a step being the entry into a function or the return from one that
is written in C, after which the interpreter runs signal handlers.

Run it with ``python tests/stress/interruptions.py [--short] [WAY ...]``. It prints, for each way, how many
interruptions there were, and in all how many calls hung (and where), were wrong, or made another error of the
exception, and how many threads and file descriptors were left.
"""

import gc
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Dict, NamedTuple, Optional, Set

from alarm import Alarm
from measuring import Figures, begin_worker, content_of, emulators, settings, tell, watch

from copilot_sync import Client, CopilotError, RetryPolicy
from copilot_sync.batch import run
from copilot_sync.emulator import Fault, RecordedRequest

FULL = {"interruptions": 250, "stride": 1}
SHORT = {"interruptions": 20, "stride": 41}
#: Seconds of silence after which a call hangs.
PATIENCE = 10.0
#: Hangs in one way after which it is left.
MOST_HANGS = 5
#: Threads and descriptors may take so many seconds to go.
PARTING = 3.0
#: Steps that each call has, and interruptions after which none is followed step by step any longer.
STEPS, MANY = 1000, 20_000
#: Workers that run at the same time.
PARALLEL = 2
#: What stays of interruptions between the opening of a file and the note of its number.
FEW = 2


def ask(client: Client, prompt: str) -> bool:
    """Ask and wait."""
    return client.ask(prompt).text == prompt


def stream(client: Client, prompt: str) -> bool:
    """Read piece by piece."""
    return "".join(client.stream(prompt)) == prompt


def look_around(client: Client, prompt: str) -> bool:
    """Make a conversation and delete it, and list the models."""
    client.delete_thread(client.create_thread())
    return bool(client.models())


def batch(client: Client, prompt: str) -> bool:
    """Ask several at once."""
    with run([f"{prompt} {number}" for number in range(4)], client=client, workers=2) as results:
        return {result.text for result in results} == {f"{prompt} {number}" for number in range(4)}


class Way(NamedTuple):
    """How the client is used.

    Attributes:
        use: What is interrupted.
        share: Of the interruptions of the other ways.
        fresh: Whether each client is used for one interruption alone, from its first call on.
        tls: Whether it goes over TLS.
        every_step: Whether the interruptions go by steps, and not by time.
    """

    use: Callable[[Client, str], bool]
    share: float = 1.0
    fresh: bool = False
    tls: bool = False
    every_step: bool = False


#: The emulator knows the prompts of some ways by their first word.
WAYS: Dict[str, Way] = {
    "plain": Way(ask),
    "stream": Way(stream),
    "expired token": Way(ask),
    "kept token": Way(ask),
    "TLS": Way(ask, tls=True),
    "first call": Way(ask, fresh=True),
    "first call over TLS": Way(ask, fresh=True, tls=True),
    "threads and models": Way(look_around),
    "batch": Way(batch),
    "refused": Way(ask, share=0.1, fresh=True),
    "every step": Way(ask, every_step=True),
    "every step, expired token": Way(ask, every_step=True),
    "every step, first call": Way(ask, share=0.2, fresh=True, every_step=True),
    "every step, first call over TLS": Way(ask, share=0.2, fresh=True, tls=True, every_step=True),
    "every step, batch": Way(batch, every_step=True),
}


class Worker:
    """Interrupts one way of using a client again and again."""

    def __init__(self, name: str, seed: int, verify: str, folder: str) -> None:
        self._name, self._way = name, WAYS[name]
        self._chance = random.Random(seed)
        self._alarm = Alarm(self._chance)
        self._verify = verify
        self._cache = os.path.join(folder, "tokens.json") if name == "kept token" else None
        self._made = seed
        self._seconds = 0.0

    def work(self, count: int, first: int, stride: int) -> None:
        """Interrupt a client so many times; in steps, the first after ``first`` of them."""
        with self._client() as client:
            self._check(client, "warm")
        threads, descriptors = threading.active_count(), len(os.listdir("/dev/fd"))
        client, done = self._client(), 0
        while done < count:
            if self._way.fresh:
                client.close()
                client = self._client()
            elif not done:
                self._check(client, "warm")
            steps = first + done * stride if self._way.every_step else 0
            if self._interrupted(client, f"{self._name} {os.getpid()} {done} {time.monotonic()}", steps):
                self._check(client, "checking")
                done += 1
                tell(interruptions=1)
            else:
                tell(missed=1)
                if steps:  # the call has no more
                    tell(over=1)
                    break
        client.close()
        del client
        tell(**self._left(threads, descriptors))

    def _client(self) -> Client:
        self._made += 1
        refused = self._name == "refused"
        return Client(
            # What is refused to one account holds up no other.
            api_key=f"account-{self._made}" if refused else None,
            retry=RetryPolicy(base=0.2),
            verify=self._verify or True,
            token_cache=self._cache,
        )

    def _interrupted(self, client: Client, prompt: str, steps: int) -> bool:
        began, right = time.monotonic(), [True]
        seconds = max(1e-6, self._chance.uniform(0, 1.2 * self._seconds))
        try:
            came_out = self._alarm.interrupts(lambda: right.append(self._way.use(client, prompt)), seconds, steps)
        except Exception:  # noqa: BLE001 - what the exception was turned into is what counts
            traceback.print_exc()
            tell(**{"masked" if self._alarm.rang else "failed": 1})
            return self._alarm.rang
        if not came_out:
            tell(wrong=int(not right[-1]), swallowed=int(self._alarm.rang))
            self._seconds = time.monotonic() - began
        return self._alarm.rang

    def _check(self, client: Client, word: str) -> None:
        prompt = f"{word} {time.monotonic()}"
        began = time.monotonic()
        try:
            tell(wrong=int(not ask(client, prompt)))
        except CopilotError:
            traceback.print_exc()
            tell(failed=1)
        self._seconds = self._seconds or time.monotonic() - began

    def _left(self, threads: int, descriptors: int) -> Dict[str, int]:
        end = time.monotonic() + PARTING
        while True:
            gc.collect()
            left = threading.active_count() - threads, len(os.listdir("/dev/fd")) - descriptors
            if max(left) <= 0 or time.monotonic() > end:
                return {"threads": max(left[0], 0), "descriptors": max(left[1], 0)}
            time.sleep(0.05)


class Misfortune:
    """What goes wrong with messages by their first word; with each once."""

    def __init__(self) -> None:
        self._seen: Set[str] = set()

    def __call__(self, stage: str, request: RecordedRequest) -> Optional[Fault]:
        """Choose the fault of a request."""
        if stage != "message":
            return None
        prompt = content_of(request)
        if prompt in self._seen:
            return None
        self._seen.add(prompt)
        if "token" in prompt:
            return Fault.expired_token()
        return Fault.status(503, retry_after=0) if prompt.startswith("refused") else None


def measured(name: str, count: int, stride: int, seed: int, env: Dict[str, str], verify: str) -> "Counter[str]":
    """Have workers interrupt one way so many times."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        while counts["interruptions"] + counts["hung"] < count and counts["hung"] < MOST_HANGS:
            done = counts["interruptions"] + counts["hung"]
            numbers = [count - done, 1 + done * stride, stride, seed + done]
            arguments = ["interruptions.py", "--worker", name, *map(str, numbers), verify, folder]
            counts.update(watch(arguments, PATIENCE, env))
            if counts["crashed"] or counts["over"]:
                break
    return counts


def main() -> int:
    """Go through the ways."""
    given = settings(__doc__, FULL, SHORT, list(WAYS))
    figures = Figures()
    counts: Counter[str] = Counter()
    with emulators() as (plain, secure, authority):
        plain.choose_fault = secure.choose_fault = Misfortune()

        def of(name: str) -> "Counter[str]":
            way = WAYS[name]
            emulator, verify = (secure, authority) if way.tls else (plain, "")
            count = MANY if way.every_step else max(1, int(given.interruptions * way.share))
            return measured(name, count, int(given.stride / way.share), given.seed, emulator.environment, verify)

        with ThreadPoolExecutor(PARALLEL) as pool:
            for name, found in zip(given.names, pool.map(of, given.names)):
                least = STEPS // given.stride if WAYS[name].every_step else given.interruptions
                share = WAYS[name].share
                figures.at_least(f"interruptions, {name}", found["interruptions"] + found["hung"], int(least * share))
                counts.update(found)
    figures.note("uses that ended before they were interrupted", counts["missed"])
    figures.note("exceptions that met a destructor, or that got lost", counts["swallowed"])
    figures.at_most("calls that hung afterwards", counts["hung"], 0)
    figures.at_most("wrong answers", counts["wrong"], 0)
    figures.at_most("calls that failed", counts["failed"], 0)
    figures.at_most("exceptions that another error took the place of", counts["masked"], 0)
    figures.at_most("workers that crashed", counts["crashed"], 0)
    figures.at_most("threads that were left", counts["threads"], 0)
    figures.at_most("file descriptors that were left", counts["descriptors"], FEW)
    return figures.status


if __name__ == "__main__":
    if "--worker" in sys.argv:
        begin_worker()
        name, count, first, stride, seed, verify, folder = sys.argv[2:]
        Worker(name, int(seed), verify, folder).work(int(count), int(first), int(stride))
    else:
        sys.exit(main())
