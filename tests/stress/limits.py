"""One account, shared through a folder by gunicorn, Celery, jobs and a batch: the service never sees more than allowed.

All of them ask as fast as ``RateLimit(per_minute=n, concurrency=c)`` lets them: four workers of gunicorn with two
threads each, four children of a Celery worker on a Redis of its own, a new process every second, and a batch. Then the
same while one of these processes is killed every few seconds.

Run it with ``python tests/stress/limits.py [--short]``. It needs gunicorn, ``celery[redis]`` and ``redis-server``. It
prints how many messages came in the fullest window, how many were under way at once, and what part of the pace was
reached.
"""

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator, List

from measuring import Figures, content_of, settings

from copilot_sync.emulator import Emulator, EmulatorOptions, Fault, RecordedRequest, Reply

FULL = {"seconds": 120, "window": 60, "share": 0.9}
SHORT = {"seconds": 24, "window": 10, "share": 0.75}
#: Messages in a window, and calls at once.
PER_WINDOW, AT_ONCE = 120, 8
#: Threads that ask gunicorn, and tasks for Celery.
ASKING, TASKS = 8, 5000
#: Seconds between two kills, at random.
KILLS = (1.0, 4.0)
#: Seconds until all are there.
START = 30.0
#: Seconds that an answer takes.
ANSWER = 0.1
HERE = Path(__file__).parent


class Arrivals:
    """The messages that an emulator has received."""

    def __init__(self) -> None:
        self.times: List[float] = []
        self.kinds: Counter[str] = Counter()
        self._inside = 0
        self.most_inside = 0

    def __call__(self, stage: str, request: RecordedRequest) -> "Fault | None":
        """Note a message."""
        if stage == "message":
            self.times.append(time.monotonic())
            self.kinds[content_of(request).split()[0]] += 1
        return None

    def pieces(self, prompt: str) -> Iterator[str]:
        """Answer, and note how many are answered at once."""
        self._inside += 1
        self.most_inside = max(self.most_inside, self._inside)
        try:
            time.sleep(ANSWER)
            yield prompt
        finally:
            self._inside -= 1

    def most_in(self, window: float) -> int:
        """How many there were in the fullest window."""
        return max((sum(at <= other < at + window for other in self.times) for at in self.times), default=0)


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def program(*command: str, env: "dict[str, str]") -> "Iterator[subprocess.Popen[bytes]]":
    """Run a program until the block ends, with all that it has started."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=HERE, env=env, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def children_of(pid: int) -> List[int]:
    """The processes that one has started."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class Sharers:
    """The processes that share the account.

    Args:
        env: Their environment.
        port: Where gunicorn listens.
    """

    def __init__(self, env: "dict[str, str]", port: int) -> None:
        self._env, self._port = env, port
        self._over = threading.Event()
        self.killed = 0
        self._victims: List[Callable[[], List[int]]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have them ask until the block ends."""
        python = sys.executable
        with contextlib.ExitStack() as stack:
            bound = ("--bind", f"127.0.0.1:{self._port}")
            gunicorn = ("-m", "gunicorn", "-w", "4", "-k", "gthread", "--threads", "2", *bound, "sharing:application")
            worker = ("-m", "celery", "-A", "sharing", "worker", "-c", "4", "-l", "critical")
            for command in (gunicorn, worker):
                parent = stack.enter_context(program(python, *command, env=self._env))
                self._victims.append(lambda pid=parent.pid: children_of(pid))  # type: ignore[misc]
            threads = [threading.Thread(target=self._ask_gunicorn) for _ in range(ASKING)]
            threads += [threading.Thread(target=self._run, args=("job", 1.0))]
            threads += [threading.Thread(target=self._run, args=("batch", 0.0))]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self._over.set()
        for thread in threads:
            thread.join()

    def _ask_gunicorn(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=90)
                connection.request("GET", "/")
                connection.getresponse().read()
            self._over.wait(0.05)

    def _run(self, what: str, pause: float) -> None:
        """Run a process of one kind again and again."""
        while not self._over.is_set():
            with program(sys.executable, "sharing.py", what, env=self._env) as process:
                victim: Callable[[], List[int]] = lambda pid=process.pid: [pid]  # type: ignore[misc]  # noqa: E731
                self._victims.append(victim)
                while process.poll() is None and not self._over.wait(0.05):
                    pass
                self._victims.remove(victim)
            self._over.wait(pause)

    def kill(self, seconds: float, chance: random.Random) -> None:
        """Kill one at random every few seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(chance.uniform(*KILLS))
            pids = chance.choice(list(self._victims))()
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    self.killed += 1


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """Run a Redis with tasks for Celery in it; give its URL."""
    import redis

    port = free_port()
    server = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    with program(*server, env=dict(os.environ)):
        url = f"redis://127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as client:
            end = time.monotonic() + START
            while time.monotonic() < end:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
                time.sleep(0.05)
        import celery

        app = celery.Celery(broker=url)
        with app.connection_for_write() as connection:
            for _ in range(TASKS):
                app.send_task("ask", connection=connection, ignore_result=True)
        yield url


def measured(figures: Figures, name: str, seconds: float, window: int, share: float, seed: int, kills: bool) -> None:
    """Have all ask for so long."""
    arrivals = Arrivals()
    options = EmulatorOptions(max_records=1000)
    with tempfile.TemporaryDirectory() as folder, broker() as url, Emulator(options=options) as emulator:
        emulator.choose_fault, emulator.reply = arrivals, Reply(arrivals.pieces)
        limits = f"{window} {PER_WINDOW} {AT_ONCE}"
        env = {**os.environ, **emulator.environment, "SHARING_LIMITS": limits, "SHARING_FOLDER": folder}
        env["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        sharers = Sharers({**env, "REDIS_URL": url}, free_port())
        with sharers.running():
            end = time.monotonic() + START
            while not arrivals.times and time.monotonic() < end:
                time.sleep(0.05)
            if kills:
                sharers.kill(seconds, random.Random(seed))
            else:
                time.sleep(seconds)
            measured_until = time.monotonic()
    first = min(arrivals.times, default=measured_until)
    reached = sum(at <= measured_until for at in arrivals.times) * window / max(1.0, measured_until - first)
    figures.at_most(f"messages in the fullest window, {name}", arrivals.most_in(window), PER_WINDOW)
    figures.at_least(f"part of the pace that was reached, {name}", reached / PER_WINDOW, share)
    if kills:
        figures.at_least("processes that were killed", sharers.killed, 3)
    else:
        figures.at_most("messages under way at once", arrivals.most_inside, AT_ONCE)
        figures.at_least(f"kinds of processes that asked, {name}", len(arrivals.kinds), 4)
    figures.note(f"messages of each kind, {name}", dict(arrivals.kinds))


def main() -> int:
    """Measure without and with kills."""
    given = settings(__doc__, FULL, SHORT)
    figures = Figures()
    for name, kills in (("all live", False), ("some are killed", True)):
        measured(figures, name, given.seconds, given.window, given.share, given.seed, kills)
    return figures.status


if __name__ == "__main__":
    sys.exit(main())
