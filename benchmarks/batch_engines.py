"""The same batch by threads of one process and by the processes of a Dask cluster, one of which is killed half-way.

``python benchmarks/batch_engines.py`` (needs ``distributed``) asks an emulator in its own process, which counts with
it. Ends with status 1 where a prompt has no answer or was asked twice.
"""

import argparse
import collections
import contextlib
import os
import signal
import sys
import time

from copilot_sync import batch
from copilot_sync.emulator import Emulator, Reply


@contextlib.contextmanager
def cluster(processes, threads):
    """A Dask cluster of processes on this machine, as its client."""
    import distributed

    options = {"host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=processes, threads_per_worker=threads, **options) as made:
        with distributed.Client(made) as client:
            yield client


def measured(emulator, name, prompts, workers, executor=None, kill=None):
    """Run a batch, say how it went, and tell whether all is well."""
    before = set(emulator.threads)
    began, cpu = time.monotonic(), time.process_time()
    results = []
    for result in batch.run(prompts, workers=workers, executor=executor):
        results.append(result)
        if kill is not None and len(results) == len(prompts) // 2:
            os.kill(kill, signal.SIGKILL)
    seconds = time.monotonic() - began
    answered = sum(result.error is None for result in results)
    threads = [thread for id, thread in list(emulator.threads.items()) if id not in before]
    asked = collections.Counter(message["content"] for thread in threads for message in thread.user_messages)
    twice = sum(times > 1 for times in asked.values())
    rate = len(results) / seconds
    print(
        f"{name}: {answered} of {len(prompts)} answered, {twice} asked twice, {rate:.0f} a second, "
        f"{1000 * (time.process_time() - cpu) / len(results):.1f} ms of this process for each",
        flush=True,
    )
    return answered == len(prompts) and not twice


def main():
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--words", type=int, default=20, help="of an answer")
    parser.add_argument("--pace", type=float, default=0.02, help="seconds from one word to the next")
    arguments = parser.parse_args()
    prompts = [" ".join([f"prompt {number}", *["word"] * (arguments.words - 2)]) for number in range(arguments.prompts)]
    with Emulator(reply=Reply(pace=arguments.pace)) as emulator:
        os.environ.update(emulator.environment)
        well = [measured(emulator, "threads", prompts, arguments.workers)]
        with cluster(2, arguments.workers // 2) as client:
            executor = client.get_executor(pure=False)
            well.append(measured(emulator, "Dask, 2 processes", prompts, arguments.workers, executor))
            process = next(iter(client.run(os.getpid).values()))
            name = "Dask, one of them killed"
            well.append(measured(emulator, name, prompts, arguments.workers, executor, process))
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
