"""Many threads, many faults: every answer right, nothing asked twice.

Run as a program it prints its figures: ``python tests/test_soak.py``.
"""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, Optional, Tuple

import copilot_sync
from copilot_sync import RetryPolicy
from copilot_sync.emulator import Emulator, EmulatorOptions, Fault, RecordedRequest

ASKS = 500
THREADS = 64
FAULT_RATE = 0.3

# A refusal is none of them: it slows the account for a minute, as it should.
_FAULTS = [
    Fault.drop("before_headers", processed=True),
    Fault.drop("before_headers", processed=False),
    Fault.drop("before_headers", reset=True, processed=True),
    Fault.drop("in_headers", processed=True),
    Fault.drop("in_headers", reset=True, processed=False),
    Fault.status(500, processed=True),
    Fault.status(502, processed=False),
    Fault.status(409),
    Fault.status(503, processed=True),
    Fault.status(504, processed=True),
    Fault.status(425),
    Fault.cut(0),
    Fault.cut(2),
    Fault.cut(2, reset=True),
    Fault.cut(1, mid_event=True),
]


class _Dice:
    """Chooses faults from a seed, safely for the emulator's threads. A token expires after some uses."""

    _USES_OF_A_TOKEN = 200

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._uses: Counter[str] = Counter()
        self.thrown: Counter[str] = Counter()
        self.expiries = 0

    def __call__(self, stage: str, request: RecordedRequest) -> Optional[Fault]:
        with self._lock:
            token = request.headers.get("authorization", "")
            self._uses[token] += 1
            if stage != "token" and self._uses[token] == self._USES_OF_A_TOKEN:
                self.expiries += 1
                return Fault.expired_token()
            if self._rng.random() >= FAULT_RATE:
                return None
            self.thrown[stage] += 1
            return self._rng.choice(_FAULTS)


def soak(seed: int) -> Tuple[Dict[str, str], Emulator, _Dice]:
    """Ask ``ASKS`` questions from ``THREADS`` threads; give what did not come out right."""
    dice = _Dice(seed)
    with Emulator(options=EmulatorOptions(token_lifetime=1800.0)) as emulator:
        emulator.choose_fault = dice
        with copilot_sync.Client(
            cookies=emulator.cookies,
            github_url=emulator.github_url,
            api_url=emulator.api_url,
            retry=RetryPolicy(attempts=30, base=0.01, cap=0.05),
        ) as client:
            prompts = [f"question {number} of many words that come back one by one" for number in range(ASKS)]
            with ThreadPoolExecutor(THREADS) as pool:
                answers = list(pool.map(client.ask, prompts))
    wrong = {
        prompt: answer.text for prompt, answer in zip(prompts, answers) if answer.text != prompt or not answer.complete
    }
    return wrong, emulator, dice


def _repeated(emulator: Emulator) -> int:
    """How many user messages stand in a thread more than once."""
    counts = Counter(
        (identifier, message["content"])
        for identifier, thread in emulator.threads.items()
        for message in thread.messages
        if message["role"] == "user"
    )
    return sum(count - 1 for count in counts.values())


def _fetched(emulator: Emulator, dice: _Dice) -> int:
    """How many token fetches got their token: each that met a fault did not."""
    return sum(request.stage == "token" for request in emulator.requests) - dice.thrown["token"]


def test_nothing_is_lost_and_nothing_is_asked_twice() -> None:
    """500 asks from 64 threads, a fault in 30 % of all requests: all right, none twice, one token for each expiry."""
    wrong, emulator, dice = soak(seed=1)
    assert wrong == {}
    assert _repeated(emulator) == 0
    assert dice.thrown["message"] > 100
    assert emulator.leaks == []
    assert dice.expiries > 3
    assert _fetched(emulator, dice) <= 1 + dice.expiries


if __name__ == "__main__":  # pragma: no cover - for people
    started = time.monotonic()
    found, server, faults = soak(seed=random.randrange(1000))
    seconds = time.monotonic() - started
    print(f"asks {ASKS}, threads {THREADS}, requests {len(server.requests)}, seconds {seconds:.1f}")
    print(f"faults {dict(faults.thrown)}, tokens expired {faults.expiries}")
    print(f"wrong {len(found)}, asked twice {_repeated(server)}, tokens fetched {_fetched(server, faults)}")
