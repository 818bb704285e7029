"""Prompts fanned out to Celery's workers on Redis, whose processes are killed at random moments.

Shows that every prompt has its answer and that none was asked twice: ``python benchmarks/batch_celery.py``. Needs
``celery[redis]`` and ``redis-server``. Ends with status 1 where that is not so.
"""

import argparse
import collections
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

import celery

from copilot_sync.contrib.celery import ask, fan_out
from copilot_sync.emulator import Emulator, EmulatorOptions, Fault, Reply

#: What the workers are started with, too: they import this file.
app = celery.Celery("batch_celery", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)

FAULTS = [
    Fault.status(502),
    Fault.status(502, processed=True),
    Fault.status(425),
    Fault.drop(),
    Fault.cut(1),
]


@contextlib.contextmanager
def running(command, **options):
    """A program that is told to end with the block."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


def redis_server(stack):
    """Start an empty Redis, and give its URL when it listens."""
    folder, reserved = stack.enter_context(tempfile.TemporaryDirectory()), stack.enter_context(socket.socket())
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # Redis does the same, so it can listen there
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    server = stack.enter_context(running(["redis-server", *options], stdout=subprocess.PIPE, text=True))
    for line in server.stdout:
        if "eady to accept connections" in line:
            return f"redis://127.0.0.1:{port}/0"
    raise SystemExit("redis-server does not start")


def kill_one(chance):
    """Kill one of the worker's processes."""
    (worker,) = ask.app.control.inspect(timeout=10, limit=1).stats().values()
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(worker["pool"]["processes"]), signal.SIGKILL)


def gather(out, kills, chance):
    """Take the results as they come, killing a process after so many."""
    results = []
    for result in out.as_they_come(timeout=600):
        results.append(result)
        if len(results) in kills:
            kill_one(chance)
    return results


def check(emulator, results, prompts):
    """Tell what is wrong, in words; nothing where all is well."""
    failed = [result for result in results if result.error is not None]
    if failed:
        yield f"{len(failed)} prompts failed, such as {failed[0]}"
    if sorted(result.text for result in results if not result.error) != sorted(prompts):
        yield "some results are not the answer"
    threads = list(emulator.threads.values())
    asked = collections.Counter(message["content"] for thread in threads for message in thread.user_messages)
    if set(asked) != set(prompts):
        yield f"{len(asked)} of {len(prompts)} prompts were asked"
    twice = [prompt for prompt, times in asked.items() if times > 1]
    if twice:
        yield f"{len(twice)} prompts were asked twice, such as {twice[0]!r}"


def main():
    """Run it, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--faults", type=float, default=0.05, help="the share of messages that fail")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    prompts = [f"this is p{number}" for number in range(arguments.prompts)]
    kills = sorted(chance.sample(range(1, arguments.prompts), arguments.kills))
    with contextlib.ExitStack() as stack:
        # An answer takes a while, or nobody would be killed in the middle of one.
        emulator = stack.enter_context(Emulator(reply=Reply(pace=0.01), options=EmulatorOptions(max_records=10)))
        failing = random.Random(arguments.seed)
        emulator.choose_fault = lambda stage, request: (
            failing.choice(FAULTS) if stage == "message" and failing.random() < arguments.faults else None
        )
        url = redis_server(stack)
        environment = {**os.environ, **emulator.environment, "REDIS_URL": url}
        environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(os.path.abspath(__file__)), *sys.path])
        pool = [
            "--concurrency",
            str(arguments.processes),
            "--loglevel",
            "ERROR",
            "--without-gossip",
            "--without-mingle",
        ]
        worker = [sys.executable, "-m", "celery", "--quiet", "-A", "batch_celery", "worker", *pool]
        stack.enter_context(running(worker, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        app.conf.update(broker_url=url, result_backend=url)
        app.set_current()
        began = time.monotonic()
        out = fan_out(prompts)
        results = gather(out, kills, chance)
        seconds = time.monotonic() - began
        wrong = list(check(emulator, results, prompts))
    print(f"{len(results)} results of {arguments.processes} processes in {seconds:.0f} s; killed after {kills}")
    print("\n".join(wrong) or "every prompt has its answer, and none was asked twice")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
