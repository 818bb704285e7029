"""Threads that share everything: one client used by 32 threads, forked, closed and faulty, for ten minutes.

Made for builds of Python without a GIL; with ``--switch-interval 1e-6`` one with a GIL comes close to them. A round is
a fresh process with one client. Its threads ask, read streams, close each other's streams, and make the client's other
calls. Beside them a batch of 16 workers runs, children are forked that ask with the client and leave by ``os._exit``,
and the client is closed while all of them use it. The service, in a process of its own, does something bad to 30 % of
all requests: it cuts the connection at any place, answers 500 or a refusal, or stalls. Tokens expire all the time. At
the end of a round there are rate limits too, which slow everything down. Every second round uses TLS.

Run it with ``python tests/stress/free_threads.py [--short] [--seconds N] [--switch-interval S]``. It prints how many
questions were asked, answered and failed (and how), and what must be 0: wrong answers, messages that were processed
twice, errors that are none of the library's, hangs, crashes, threads and sockets that are left.
"""

import contextlib
import gc
import itertools
import json
import os
import random
import socket
import sys
import threading
import time
import traceback
from collections import Counter, deque
from dataclasses import replace
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

from measuring import Figures, asked_twice, begin_worker, emulators, end_hung, settings, tell, watch

from copilot_sync import Client, CopilotError, NotFoundError, RetryPolicy, Stream, StreamClosedError, Timeout
from copilot_sync.batch import run
from copilot_sync.emulator import Emulator, Fault, RecordedRequest

FULL = {"seconds": 600, "switch_interval": sys.getswitchinterval()}
SHORT = {"seconds": 8, "switch_interval": sys.getswitchinterval()}
THREADS, BATCH_WORKERS, BATCH_PROMPTS = 32, 16, 48
#: Seconds of a round, and the share of them at the end in which there are rate limits.
ROUND, LIMITED = 60.0, 0.1
#: The share of requests to which something bad happens.
FAULTS = 0.3
#: Seconds between two expiries of all tokens, two forks, and two times at which the client is closed, on average.
EXPIRY, FORKS, CLOSES = 5.0, 0.5, 5.0
#: Seconds that a call may take, and after which it, a child or a whole round hangs.
CALL = Timeout(connect=5, read=2, stall=10, total=20)
PATIENCE, SILENCE = 45.0, 90.0
#: Seconds after which a child hangs, and the share of children that may, without a GIL: in a child that is forked while
#: threads wait for an object, the interpreter itself can leave the lock of that object locked.
CHILD_PATIENCE = 20.0
HUNG_CHILDREN = 0.0 if getattr(sys, "_is_gil_enabled", lambda: True)() else 0.05
#: Seconds between two reports, and the longest that a stream is open before another thread closes it.
REPORT, OPEN = 0.5, 0.02
#: The exit statuses of children.
RIGHT, WRONG, RAISED, STRANGE = 0, 3, 4, 5
WORDS = " ".join(f"word{number}" for number in range(30))


class Round:
    """A process in which threads share one client."""

    def __init__(self, seed: int, verify: str, seconds: float) -> None:
        self._seed = seed
        self._chance = random.Random(seed)
        self._end = time.monotonic() + seconds
        retry = RetryPolicy(attempts=4, base=0.02, cap=0.2)
        self._client = Client(verify=verify or True, timeout=CALL, retry=retry)
        self._numbers = itertools.count()
        self._open: Deque[Stream] = deque(maxlen=THREADS)
        self._since: Dict[str, float] = {}  # when each thread began what it does now
        self._children: Dict[int, float] = {}
        self._counts: Deque[Tuple[str, int]] = deque()
        threading.excepthook = lambda report: self._strange(report.exc_value)
        sys.unraisablehook = lambda report: self._strange(report.exc_value)

    def run(self) -> None:
        """Be busy until the time is over, and see what is left."""
        sockets = len(_sockets())
        threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(THREADS)]
        threads.append(threading.Thread(target=self._go_through_batches, daemon=True))
        for thread in threads:
            thread.start()
        self._look_after(threads)
        self._client.close()
        gc.collect()
        left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        self._count("threads_left", len(left))
        self._count("sockets_left", max(0, len(_sockets()) - sockets))
        objects = [each for each in gc.get_objects() if isinstance(each, socket.socket)]
        left += [repr(each) for each in objects if each.fileno() >= 0]
        for name in left:
            print("left:", name, file=sys.stderr)
        self._report()

    def _look_after(self, threads: List[threading.Thread]) -> None:
        """Fork, close the client, and look whether anything hangs, as long as threads run."""
        due = dict.fromkeys((self._fork, self._close, self._report, self._look_for_hangs), 0.0)
        pace = {self._fork: FORKS, self._close: CLOSES, self._report: REPORT, self._look_for_hangs: REPORT}
        while any(thread.is_alive() for thread in threads) or self._children:
            if self._is_over:
                pace[self._close] = 0.5  # calls that wait for the end of a limit
            for action, moment in due.items():
                if time.monotonic() >= moment:
                    due[action] = time.monotonic() + self._chance.uniform(0.5, 1.5) * pace[action]
                    action()
            self._look_after_children()
            time.sleep(0.005)

    @property
    def _is_over(self) -> bool:
        return time.monotonic() >= self._end

    def _count(self, name: str, times: int = 1) -> None:
        self._counts.append((name, times))

    def _report(self) -> None:
        counts: Counter[str] = Counter()
        with contextlib.suppress(IndexError):
            while True:
                name, times = self._counts.popleft()
                counts[name] += times
        tell(**counts)

    def _strange(self, error: Optional[BaseException]) -> None:
        self._count("strange")
        traceback.print_exception(type(error), error, error.__traceback__ if error else None)

    def _look_for_hangs(self) -> None:
        for name, since in list(self._since.items()):
            if time.monotonic() - since > PATIENCE:
                self._since[name] = time.monotonic()
                self._count("hung")
                print("hangs:", name, file=sys.stderr)
                _show_stacks()

    # What the main thread does.

    def _close(self) -> None:
        self._client.close()
        self._count("closes")

    def _fork(self) -> None:
        if self._is_over:
            return
        pid = os.fork()
        if not pid:
            os._exit(self._in_child())
        self._children[pid] = time.monotonic()
        self._count("forks")

    def _in_child(self) -> int:
        prompt = self._prompt()  # no other process has this one: its number is given out in the parent
        try:
            return RIGHT if self._client.ask(prompt, timeout=replace(CALL, total=8)).text == prompt else WRONG
        except CopilotError:
            return RAISED
        except BaseException:  # noqa: BLE001 - whatever it is, it must not go on as the parent
            traceback.print_exc()
            return STRANGE

    def _look_after_children(self) -> None:
        kinds = {RIGHT: "child_right", RAISED: "child_raised", WRONG: "wrong"}
        for pid, born in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                kind = "crashed" if os.WIFSIGNALED(status) else kinds.get(os.WEXITSTATUS(status), "strange")
                self._count(kind)
            elif time.monotonic() - born > CHILD_PATIENCE:
                end_hung(pid)
                os.waitpid(pid, 0)
                self._count("child_hung")
            else:
                continue
            self._children.pop(pid)

    # What the other threads do.

    def _work(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        actions: Tuple[Callable[[random.Random], None], ...]
        actions = (
            self._ask,
            self._ask,
            self._converse,
            self._read,
            self._be_closed,
            self._be_closed,
            self._look_around,
        )
        name = threading.current_thread().name
        while not self._is_over:
            self._since[name] = time.monotonic()
            with self._counted():
                chance.choice(actions)(chance)
            if chance.random() < 0.5:
                self._close_another(chance)
        self._since.pop(name, None)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except CopilotError as error:
            self._count(f"raised {type(error).__name__}")
        except Exception as error:  # noqa: BLE001 - a thread that failed would be busy no longer
            self._strange(error)

    def _prompt(self) -> str:
        return f"{os.getpid()} {next(self._numbers)} asks {WORDS}"

    def _judge(self, text: str, prompt: str, whole: bool) -> None:
        if text == prompt:
            self._count("right")
        elif not whole and prompt.startswith(text):
            self._count("half")
        else:
            self._count("wrong")
            print(f"wrong: {text!r} for {prompt!r}", file=sys.stderr)

    def _ask(self, chance: random.Random) -> None:
        prompt = self._prompt()
        self._count("asked")
        answer = self._client.ask(prompt)
        self._judge(answer.text, prompt, answer.complete)

    def _converse(self, chance: random.Random) -> None:
        chat = self._client.chat()
        for _ in range(2):
            prompt = self._prompt()
            self._count("asked")
            answer = chat.ask(prompt)
            self._judge(answer.text, prompt, answer.complete)

    def _read(self, chance: random.Random) -> None:
        prompt = self._prompt()
        self._count("asked")
        with self._client.stream(prompt) as stream:
            text = "".join(stream)
        answer = stream.answer
        self._judge(text, prompt, answer is not None and answer.complete)

    def _be_closed(self, chance: random.Random) -> None:
        """Read a stream that other threads may close."""
        prompt = self._prompt()
        self._count("asked")
        stream = self._client.stream(prompt)
        self._open.append(stream)
        pieces = []
        try:
            for piece in stream:
                pieces.append(piece)
        except StreamClosedError:
            self._count("streams_closed")
            if not prompt.startswith(stream.text) or not stream.text.startswith("".join(pieces)):
                self._judge(stream.text, prompt, whole=True)
            raise
        finally:
            stream.close()
        self._judge("".join(pieces), prompt, stream.answer is not None and stream.answer.complete)

    def _close_another(self, chance: random.Random) -> None:
        with contextlib.suppress(IndexError):
            stream = self._open.popleft()
            wait = chance.choice((0.0, chance.uniform(0, OPEN)))
            until = time.monotonic() + 10
            while not stream.text and stream.answer is None and time.monotonic() < until and chance.random() < 0.999:
                time.sleep(0.001)  # mostly until pieces come, one upon the other
            time.sleep(wait)
            stream.close()

    def _look_around(self, chance: random.Random) -> None:
        if chance.random() < 0.3:
            self._count("right" if self._client.models() else "wrong")
            self._client.delete_thread(self._client.create_thread())
        with contextlib.suppress(NotFoundError):
            self._client.messages("no such conversation")
            self._count("wrong")

    def _go_through_batches(self) -> None:
        name = threading.current_thread().name
        chance = random.Random(f"{self._seed} batch")
        while not self._is_over:
            self._since[name] = time.monotonic()
            with self._counted():
                self._go_through_one(chance)
        self._since.pop(name, None)

    def _go_through_one(self, chance: random.Random) -> None:
        prompts = {number: self._prompt() for number in range(BATCH_PROMPTS)}
        results = run(list(prompts.values()), client=self._client, workers=BATCH_WORKERS, rate=None)
        seconds = min(chance.uniform(0.5, 10), max(0.0, self._end - time.monotonic()))
        closing = threading.Timer(seconds, results.close)
        closing.start()
        self._count("batches")
        try:
            for result in results:
                self._since[threading.current_thread().name] = time.monotonic()
                self._count("asked")
                if result.error is None:
                    self._judge(str(result.text), prompts[int(result.id)], result.complete)
                else:
                    self._count(f"raised {result.error['type']}")
            self._count("whole batches")
        finally:
            closing.cancel()
            closing.join()
            results.close()


def _sockets() -> List[str]:
    """The sockets of this process."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [place for place in found if place.startswith("socket:")]


def _show_stacks() -> None:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        print(f"--- {names.get(ident)}", *traceback.format_stack(frame)[-6:], file=sys.stderr, sep="\n")


class Misfortune:
    """What goes wrong with requests.

    Args:
        limits_from: When there begin to be rate limits, by the monotonic clock.
    """

    def __init__(self, limits_from: float) -> None:
        self._limits_from = limits_from
        #: How often each kind was chosen.
        self.done: Counter[str] = Counter()

    def __call__(self, stage: str, request: RecordedRequest) -> Optional[Fault]:
        """Choose the fault of a request."""
        if random.random() >= FAULTS:
            return None
        kinds = [_drop, _drop, _cut, _cut, _server_error, _stall]
        if stage == "message":
            kinds += [_cut, _refusal]
        if stage != "token" and time.monotonic() > self._limits_from:
            kinds += [_limit]
        kind = random.choice(kinds)
        self.done[kind.__name__[1:].replace("_", " ")] += 1
        return kind()


def _drop() -> Fault:
    when: Any = random.choice(("before_headers", "in_headers"))
    return Fault.drop(when, reset=_maybe(), processed=_maybe())


def _cut() -> Fault:
    return Fault.cut(random.randrange(36), reset=_maybe(), mid_event=_maybe())


def _server_error() -> Fault:
    return Fault.status(random.choice((500, 502, 503, 504)), processed=_maybe())


def _stall() -> Fault:
    when: Any = random.choice(("before_headers", "in_headers", ("after_events", random.randrange(36))))
    return Fault.stall(when, random.choice((0.05, 0.2, 0.5, 3.0)), mid_event=_maybe(), processed=_maybe())


def _refusal() -> Fault:
    return Fault.status(random.choice((400, 408, 409, 422, 425)))


def _limit() -> Fault:
    return random.choice((Fault.rate_limit(0.2), Fault.rate_limit(0.2, status=403), Fault.status(503, retry_after=0)))


def _maybe() -> bool:
    return random.random() < 0.5


@contextlib.contextmanager
def _expiring(emulator: Emulator) -> Iterator[None]:
    """Make tokens expire all the time."""
    over = threading.Event()

    def expire() -> None:
        while not over.wait(random.uniform(0.5, 1.5) * EXPIRY):
            emulator.expire_tokens()

    thread = threading.Thread(target=expire)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main() -> int:
    """Run rounds until the time is over, and count."""
    given = settings(__doc__, FULL, SHORT)
    random.seed(given.seed)
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    rounds = twice = 0
    end = time.monotonic() + given.seconds
    with emulators() as (plain, secure, authority):
        while rounds == 0 or time.monotonic() < end - 1:
            emulator, verify = (secure, authority) if rounds % 2 else (plain, "")
            seconds = min(ROUND, end - time.monotonic())
            emulator.choose_fault = misfortune = Misfortune(time.monotonic() + seconds * (1 - LIMITED))
            arguments = [str(given.seed + rounds), str(seconds), str(given.switch_interval), verify]
            with _expiring(emulator):
                counts += watch(["free_threads.py", "--round", *arguments], SILENCE, emulator.environment)
            twice += asked_twice(emulator)
            faults += misfortune.done
            emulator.threads.clear()
            rounds += 1
            print(f"    round {rounds}: {json.dumps(counts)}", flush=True)
    return _show(rounds, counts, faults, twice)


def _show(rounds: int, counts: "Counter[str]", faults: "Counter[str]", twice: int) -> int:
    figures = Figures()
    figures.note("rounds", rounds)
    for name, times in sorted(faults.items()):
        figures.note(f"requests with a fault: {name}", times)
    for name in ("closes", "forks", "batches"):
        figures.at_least({"closes": "times the client was closed"}.get(name, name), counts[name], 1)
    figures.note("questions", counts["asked"])
    for name, times in sorted(counts.items()):
        if name.startswith("raised "):
            figures.note(name, times)
    figures.at_least("right answers", counts["right"], counts["asked"] // 4)
    figures.note("half answers that were called so", counts["half"])
    figures.at_least("streams that another thread closed", counts["streams_closed"], 1)
    figures.at_least("children that got their answer", counts["child_right"], 1)
    figures.note("children whose question failed", counts["child_raised"])
    figures.at_most("wrong answers", counts["wrong"], 0)
    figures.at_most("messages that were processed twice", twice, 0)
    figures.at_most("errors that are none of the library's", counts["strange"], 0)
    figures.at_most("hangs", counts["hung"], 0)
    figures.at_most("children that hung", counts["child_hung"], counts["forks"] * HUNG_CHILDREN)
    figures.at_most("crashes", counts["crashed"], 0)
    figures.at_most("threads left", counts["threads_left"], 0)
    figures.at_most("sockets left", counts["sockets_left"], 0)
    return figures.status


if __name__ == "__main__":
    if "--round" in sys.argv:
        begin_worker()
        seed, seconds, interval, verify = sys.argv[2:]
        sys.setswitchinterval(float(interval))
        Round(int(seed), verify, float(seconds)).run()
    else:
        sys.exit(main())
