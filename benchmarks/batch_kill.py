"""A batch against an emulator that fails now and then, killed at random moments and started again until it is done.

Shows that every prompt has exactly one result, that none was asked twice, and that nothing but the output is left:
``python benchmarks/batch_kill.py``. Ends with status 1 if that is not so. Refusals (429, 503 with ``Retry-After``) slow
a batch down on purpose, so requests are refused only with ``--refusals``.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

from copilot_sync.emulator import Emulator, EmulatorOptions, Fault

#: The share of kills that come early, and the seconds within which they do.
EARLY, EARLY_SECONDS = 0.3, 2.0


def faults(refusals):
    """What goes wrong, by the stage in which it does."""
    anywhere = [Fault.status(502), Fault.drop(processed=False), Fault.drop()]
    refused = [Fault.expired_token()]
    if refusals:
        anywhere.append(Fault.status(503, retry_after=0))
        refused.append(Fault.status(429, retry_after=0))
    answer = [
        Fault.status(409),
        Fault.status(502, processed=True),
        Fault.drop("in_headers"),
        Fault.cut(0),
        Fault.cut(1),
    ]
    reset = [Fault.cut(0, reset=True), Fault.cut(1, mid_event=True)]
    return {"message": [*anywhere, *refused, *answer, *reset], "thread": [*anywhere, *refused], "messages": anywhere}


def command(folder, workers):
    """The batch as it is typed."""
    return [
        *[sys.executable, "-m", "copilot_sync", "batch", os.path.join(folder, "prompts.jsonl")],
        *["-o", os.path.join(folder, "results.jsonl"), "--workers", str(workers)],
    ]


def killed_run(emulator, start, kills, chance):
    """Start the batch, kill it when it has asked so often, and so on; at last let it end. Give its exit statuses.

    Some are killed before that, while they start or look at what was left.
    """
    statuses = []
    for asked in [*kills, float("inf")]:
        early = asked < float("inf") and chance.random() < EARLY
        end = time.monotonic() + (chance.uniform(0, EARLY_SECONDS) if early else float("inf"))
        with start() as process:
            while process.poll() is None and emulator.asked < asked and time.monotonic() < end:
                emulator.wait_until(lambda asked=asked: emulator.asked >= asked, timeout=0.02)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            statuses.append(process.wait())
    return statuses


def check(emulator, folder, count):
    """Tell what is wrong, in words; nothing where all is well."""
    with open(os.path.join(folder, "results.jsonl"), encoding="utf-8") as file:
        results = [json.loads(line) for line in file]
    times = collections.Counter(result["id"] for result in results)
    if sorted(times) != sorted(f"p{number}" for number in range(count)) or set(times.values()) != {1}:
        yield f"{count - len(times)} prompts have no result, {sum(times.values()) - len(times)} results too many"
    wrong = [result for result in results if result.get("text") != f"this is {result['id']}"]
    if wrong:
        yield f"{len(wrong)} results are not the answer, such as {wrong[0]}"
    threads = list(emulator.threads.values())
    questions = collections.Counter(message["content"] for thread in threads for message in thread.user_messages)
    twice = [question for question, asked in questions.items() if asked > 1]
    if twice:
        yield f"{len(twice)} prompts were asked twice, such as {twice[0]!r}"
    if len(questions) != count:
        yield f"{len(questions)} of {count} prompts were asked"
    left = sorted(set(os.listdir(folder)) - {"prompts.jsonl", "results.jsonl"})
    if left:
        yield f"more than the output is left: {', '.join(left)}"


class CountingEmulator(Emulator):
    """Counts the messages that it was sent, and fails by chance."""

    def __init__(self, chance, share, refusals):
        super().__init__(options=EmulatorOptions(max_records=10))
        self.asked = 0
        self.failed = 0
        self._chance, self._share, self._kinds = chance, share, faults(refusals)
        self.choose_fault = self._choose

    def _choose(self, stage, request):
        self.asked += stage == "message"
        if stage not in self._kinds or self._chance.random() >= self._share:
            return None
        self.failed += 1
        return self._chance.choice(self._kinds[stage])


def main():
    """Run it, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--faults", type=float, default=0.05, help="the share of requests that fail")
    parser.add_argument("--refusals", action="store_true", help="fail with refusals as well")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, CountingEmulator(
        chance, arguments.faults, arguments.refusals
    ) as emulator:
        with open(os.path.join(folder, "prompts.jsonl"), "w", encoding="utf-8") as file:
            for number in range(arguments.prompts):
                file.write(json.dumps({"id": f"p{number}", "prompt": f"this is p{number}"}) + "\n")
        environment = {**os.environ, **emulator.environment}

        def start():
            return subprocess.Popen(command(folder, arguments.workers), env=environment)

        kills = sorted(chance.randrange(1, arguments.prompts) for _ in range(arguments.kills))
        began = time.monotonic()
        statuses = killed_run(emulator, start, kills, chance)
        seconds = time.monotonic() - began
        print(f"killed after {kills} messages; exit statuses {statuses}; {seconds:.0f} s")
        print(f"{emulator.failed} requests failed")
        wrong = list(check(emulator, folder, arguments.prompts))
    print("\n".join(wrong) or "every prompt has one result, and none was asked twice")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
