"""A batch of a million lines whose answers come at once: how fast it goes without a service, and what memory it takes.

``python benchmarks/batch_memory.py --prompts 1000000``. Memory is what the process occupies, as the system counts it.
"""

import argparse
import concurrent.futures
import os
import resource
import tempfile
import time

from copilot_sync import batch
from copilot_sync.batch.sender import StepResult
from copilot_sync.models import Answer, Conversation


class Oracle(concurrent.futures.Executor):
    """Knows every answer at once."""

    def submit(self, fn, /, source, step, subject, unique):
        """Answer what a worker would be asked to do."""
        future = concurrent.futures.Future()
        if step == "begin":
            future.set_result(StepResult("conversation"))
        else:
            answer = Answer(f"An answer to {subject.content}", Conversation("conversation"), "gpt-4o")
            future.set_result(StepResult("conversation", answer, seconds=0.001, attempts=1))
        return future


def occupied():
    """The most memory that this process has occupied so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    """Run it, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--no-output", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, output = os.path.join(folder, "prompts.jsonl"), os.path.join(folder, "results.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            for number in range(arguments.prompts):
                file.write(f'{{"id": "prompt-{number}", "prompt": "What is the square of {number}?"}}\n')
        print(f"{arguments.prompts} prompts, {os.path.getsize(path) / 1e6:.0f} MB", flush=True)
        for what in ("first run", "second run, with nothing left to do"):
            began = time.monotonic()
            with batch.read(path) as prompts:
                results = batch.run(
                    prompts,
                    workers=arguments.workers,
                    executor=Oracle(),
                    output=None if arguments.no_output else output,
                )
                count = sum(1 for _ in results)
            seconds = time.monotonic() - began
            done = count + results.skipped
            print(f"{what}: {seconds:.0f} s, {done / seconds:.0f} a second, {occupied():.0f} MB at most", flush=True)


if __name__ == "__main__":
    main()
