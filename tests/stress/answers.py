"""Replies through something between the client and the service: each prompt is asked once and gets its answer.

Eight threads share one client, each with questions of its own. A relay in front of the Copilot does to a share of the
requests what proxies and broken servers do: it cuts the client off or answers 504, and delivers the request half a
second later, or never; it puts interim replies in front of the real one; it answers 204 with a body that comes late; it
sends somebody else's answer behind the end of a reply; it cuts an answer and ends it with a proper last chunk.

Run it with ``python tests/stress/answers.py [--short]``. It prints how often each of these was done, how many answers
were another's or half of one that was called whole, how many prompts were asked twice, and how many failed.
"""

import logging
import random
import sys
import threading
from collections import Counter
from typing import Optional

from measuring import Figures, asked_twice, settings
from relay import Relay

from copilot_sync import Client, Conversation, CopilotError
from copilot_sync.emulator import Emulator, EmulatorOptions

FULL = {"calls": 10_000, "percent": 10}
SHORT = {"calls": 300, "percent": 25}
THREADS = 8
#: The share of prompts that may fail with an error, or be told to be incomplete.
FEW = 0.02
#: Questions that are asked in one conversation.
TURNS = 6


class Tally:
    """What became of the questions."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def ask(self, client: Client, number: int, count: int) -> None:
        """Ask so many questions, and delete some of the conversations."""
        conversation: Optional[Conversation] = None
        for turn in range(count):
            prompt = f"{number} asks {turn}: a question of many words that come back one by one"
            try:
                answer = client.ask(prompt, conversation=conversation)
                self.counts[_kind(answer.text, prompt, answer.complete)] += 1
                conversation = answer.conversation
                if turn % TURNS == 0:
                    client.delete_thread(client.create_thread())
                    conversation = None
            except CopilotError as error:
                self.counts["failed"] += 1
                self._errors[f"{type(error).__name__}: {error}"[:110]] += 1

    def show_errors(self) -> None:
        """Print the most frequent errors."""
        for words, times in self._errors.most_common(8):
            print(f"    | {times} × {words}")


def _kind(text: str, prompt: str, complete: bool) -> str:
    if text == prompt:
        return "right"
    if not prompt.startswith(text):
        return "another's"
    return "half, called whole" if complete else "half, called so"


def main() -> int:
    """Ask, and count."""
    given = settings(__doc__, FULL, SHORT)
    logging.getLogger("copilot_sync").setLevel(logging.ERROR)
    tally = Tally()
    with Emulator(options=EmulatorOptions(max_records=100)) as emulator:
        relay = Relay(emulator, random.Random(given.seed), given.percent / 100)
        with Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=relay.url) as client:
            each = given.calls // THREADS
            threads = [threading.Thread(target=tally.ask, args=(client, each_, each)) for each_ in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for delivery in relay.late:
            delivery.join()
        twice = asked_twice(emulator)
    tally.show_errors()
    figures = Figures()
    for name, times in sorted(relay.done.items()):
        figures.note(f"requests, {name.replace('_', ' ')}", times)
    figures.at_least("right answers", tally.counts["right"], int(given.calls * (1 - FEW)))
    figures.at_most("answers of another", tally.counts["another's"], 0)
    figures.at_most("half answers that were called whole", tally.counts["half, called whole"], 0)
    figures.at_most("prompts that were asked twice", twice, 0)
    figures.at_most("half answers that were called so", tally.counts["half, called so"], int(given.calls * FEW))
    figures.at_most("calls that failed", tally.counts["failed"], int(given.calls * FEW))
    return figures.status


if __name__ == "__main__":
    sys.exit(main())
