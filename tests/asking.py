"""Two ways to ask one message, and what came of it: for tests of messages that may have been taken."""

from typing import Any, Callable, List, Tuple

import pytest

from copilot_sync import Client, RetryPolicy
from copilot_sync.emulator import Emulator, Fault

AT_ONCE = RetryPolicy(base=0.0, cap=0.0)
ONE = b'data: {"type":"content","body":"one"}\n\n'


def silence(fault: Fault) -> float:
    """Seconds of silence to allow: few if silence is what goes wrong, and more than a busy machine needs to answer."""
    return 0.6 if fault.action == "stall" else 10.0


def sent(emulator: Emulator) -> List[Any]:
    return [request.json for request in emulator.requests if request.stage == "message"]


def looks(emulator: Emulator) -> int:
    return [request.stage for request in emulator.requests].count("messages")


def questions(emulator: Emulator) -> List[str]:
    """What stands in all threads as said by the user."""
    messages = [message for thread in emulator.threads.values() for message in thread.messages]
    return [message["content"] for message in messages if message["role"] == "user"]


def asked(client: Client, **options: Any) -> Tuple[str, bool]:
    answer = client.ask("hi", **options)
    return answer.text, answer.complete


def streamed(client: Client, **options: Any) -> Tuple[str, bool]:
    stream = client.stream("hi", **options)
    text = "".join(stream)
    assert stream.answer is not None and stream.answer.text == text
    return text, stream.answer.complete


both_ways = pytest.mark.parametrize("ask", [asked, streamed])
Ask = Callable[..., Tuple[str, bool]]
TEXT = "one two three"
