"""What calls pass before they send anything: in order, once each, and left the other way round however a call ends."""

import dataclasses
import threading
from typing import Any, Generator, List, Optional, Tuple

import pytest
from driven import DRIVERS
from support import wait_until

from copilot_sync import Client, CopilotError, RateLimitError
from copilot_sync.delivery.guards import CallEnd, CallGuard, Leave
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.stepping import Pause


class Noted(CallGuard):
    """Notes who enters and leaves, and may refuse, or wait."""

    def __init__(self, name: str, notes: List[str], refusal: Optional[CopilotError] = None) -> None:
        self.name, self.notes, self.refusal = name, notes, refusal
        self.ends: List[CallEnd] = []
        self.waits: Optional[threading.Event] = None

    def entering(self, message: Any, call: Any, policy: Any) -> Generator[Pause, None, Leave]:
        yield from call.until_may_block()
        if self.waits is not None:
            self.waits.set()
            call.sleep(60)
        self.notes.append(f"into {self.name} for {message.label} of {message.user}")
        if self.refusal is not None:
            raise self.refusal
        return self.leave

    def leave(self, end: CallEnd) -> None:
        self.notes.append(f"out of {self.name}")
        self.ends.append(end)


def guarded(emulator: Emulator, **refusals: Optional[CopilotError]) -> Tuple[Client, List[Noted], List[str]]:
    """A client with guards, and what they note."""
    notes: List[str] = []
    guards = [Noted(name, notes, refusal) for name, refusal in refusals.items()]
    client = Client(emulator.api_key, api_url=emulator.api_url, retry=None)
    client._options = dataclasses.replace(client._options, guards=tuple(guards))
    return client, guards, notes


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_call_enters_and_leaves_them_in_order(driver: str, emulator: Emulator) -> None:
    """They are told what came of it."""
    client, guards, notes = guarded(emulator, a=None, b=None)
    pieces: List[str] = []
    with client:
        DRIVERS[driver](client.stream("Hi", label="nightly", user="ann"), pieces)
    of = "for nightly of ann"
    assert notes == [f"into a {of}", f"into b {of}", "out of b", "out of a"]
    for guard in guards:
        (end,) = guard.ends
        assert (end.error, end.call.attempts["message"], end.message.content) == (None, 1, "Hi")
        assert end.builder.answer is not None and end.builder.answer.text == "".join(pieces)


@pytest.mark.parametrize("driver", DRIVERS)
def test_one_that_is_refused_has_sent_nothing(driver: str, emulator: Emulator) -> None:
    """It leaves those that it had entered."""
    refusal = RateLimitError("too much", retry_after=5)
    client, guards, notes = guarded(emulator, a=None, b=refusal, c=None)
    with client, pytest.raises(RateLimitError, match="too much"):
        DRIVERS[driver](client.stream("Hi"), [])
    assert notes == ["into a for  of ", "into b for  of ", "out of a"]
    assert guards[0].ends[0].error is refusal
    assert emulator.requests == []


def test_a_failure_is_told(emulator: Emulator) -> None:
    """Once."""
    client, (guard,), notes = guarded(emulator, a=None)
    emulator.fail("message", Fault.status(500))
    with client, pytest.raises(CopilotError) as caught:
        client.ask("Hi")
    assert guard.ends[0].error is caught.value
    assert notes == ["into a for  of ", "out of a"]


def test_one_that_is_closed_leaves_them(emulator: Emulator) -> None:
    """There is neither an answer nor an error."""
    client, (guard,), notes = guarded(emulator, a=None)
    with client:
        with client.stream("one two") as stream:
            next(stream)
        client.stream("never begun").close()
    wait_until(lambda: bool(guard.ends))
    assert (guard.ends[0].error, guard.ends[0].builder.answer) == (None, None)
    assert notes == ["into a for  of ", "out of a"]


def test_a_wait_in_one_ends_with_the_stream(emulator: Emulator) -> None:
    """Whoever closes it."""
    client, (_, second), notes = guarded(emulator, a=None, b=None)
    second.waits = threading.Event()
    with client:
        stream = client.stream("Hi")
        closer = threading.Thread(target=lambda: (second.waits.wait(), stream.close()))  # type: ignore[union-attr]
        closer.start()
        with pytest.raises(CopilotError, match="closed by another thread"):
            stream.read()
        closer.join()
    assert notes == ["into a for  of ", "out of a"]
    assert emulator.requests == []


@pytest.mark.parametrize("name", ["label", "user"])
def test_what_a_call_is_for_is_a_string(name: str, emulator: Emulator) -> None:
    """Or nothing."""
    arguments: Any = {name: 5}
    with Client(emulator.api_key, api_url=emulator.api_url) as client:
        with pytest.raises(TypeError, match=f"{name} must be a string, not int"):
            client.stream("Hi", **arguments)


def test_a_guard_has_to_say_how_it_is_entered(emulator: Emulator) -> None:
    """There is no default."""
    client, _, _ = guarded(emulator)
    client._options = dataclasses.replace(client._options, guards=(CallGuard(),))
    with client, pytest.raises(NotImplementedError):
        client.ask("Hi")
