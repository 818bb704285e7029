"""What tests of batches share: results by id, prompts that were sent, faults for one prompt, blocked replies."""

import concurrent.futures
import json
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from support import PATIENCE

from copilot_sync import RetryPolicy
from copilot_sync.batch import sender
from copilot_sync.batch.results import Result
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing import cooldown

AT_ONCE = RetryPolicy(base=0.0, cap=0.0)


def by_id(results: Iterator[Result]) -> Dict[Any, Result]:
    return {result.id: result for result in results}


def texts(results: Iterator[Result]) -> Dict[Any, str]:
    return {result.id: result.text for result in results}


def sent(emulator: Emulator) -> List[str]:
    """The prompts that came, in order."""
    return [request.json["content"] for request in emulator.requests if request.stage == "message"]


def fail_on(emulator: Emulator, content: str, *faults: Fault) -> None:
    """Let the messages with a certain content fail, one after the other."""
    left = list(faults)

    def choose(stage: str, request: Any) -> Optional[Fault]:
        return left.pop(0) if stage == "message" and left and request.json["content"] == content else None

    emulator.choose_fault = choose


def forget_refusals() -> None:
    """Let clients to come know nothing of what those before were told, as in another process later."""
    cooldown._shared._known.clear()


class Blocked:
    """A reply that waits, and counts who waits with it."""

    def __init__(self, emulator: Emulator, *prompts: str) -> None:
        self.waiting: List[str] = []
        self.most = 0
        self._prompts = prompts
        self._emulator = emulator
        self._go = threading.Event()
        emulator.reply = Reply(self.pieces)

    def pieces(self, prompt: str) -> Iterator[str]:
        if not self._prompts or prompt in self._prompts:
            self.waiting.append(prompt)
            self.most = max(self.most, len(self.waiting))
            self._emulator.notify()
            self._go.wait(PATIENCE)
            self.waiting.remove(prompt)
        yield prompt

    def release(self) -> None:
        self._go.set()


def ids(output: Path) -> List[Any]:
    return [json.loads(line)["id"] for line in output.read_text().splitlines()]


class Waiting(concurrent.futures.Executor):
    """Never begins anything."""

    def __init__(self) -> None:
        self.futures: List[concurrent.futures.Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "concurrent.futures.Future[Any]":  # type: ignore[override]
        self.futures.append(concurrent.futures.Future())
        if len(self.futures) == 1:
            self.futures[0].set_result(sender.StepResult("t"))
        return self.futures[-1]
