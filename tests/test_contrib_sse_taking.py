"""A question in a kept conversation is sent before the response begins: whether there is such a conversation."""

import asyncio
import threading
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest
from emulated import MISSING_REFERENCE
from support import PATIENCE, collect_garbage, events, nothing_left_open, wait_for

from copilot_sync import Client, Conversation
from copilot_sync.contrib import sse, sse_async
from copilot_sync.contrib.sse import EventStream
from copilot_sync.contrib.sse_async import AsyncEventStream
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.stepping import Delay
from copilot_sync.stream import Stream

#: Longer than any test, so that no comment comes by chance.
NEVER = 1000.0


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            yield served
        collect_garbage()


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(api_key=emulator.api_key, api_url=emulator.api_url, retry=None) as made:
        yield made


@pytest.fixture
def conversation(client: Client) -> Conversation:
    return client.ask("Hi").conversation


#: What was found, the text when that was known, and the whole body.
Found = Tuple[bool, str, Any]
Then = Callable[[], object]


def blocking(stream: Stream, then: Then) -> Found:
    with EventStream(stream, heartbeat=NEVER) as body:
        found, text = body.finds_conversation(), stream.text
        then()
        return found, text, events(b"".join(body))


def asynchronous(stream: Stream, then: Then) -> Found:
    async def read() -> Found:
        body = AsyncEventStream(stream, heartbeat=NEVER)
        found, text = await body.finds_conversation(), stream.text
        then()
        parts = [part async for part in body]
        await body.aclose()
        return found, text, events(b"".join(parts))

    return asyncio.run(read())


Read = Callable[[Stream, Then], Found]
either_way = pytest.mark.parametrize("read", [blocking, asynchronous])


def text_of(pieces: List[Any]) -> str:
    return "".join(piece["text"] for piece in pieces if piece["type"] == "content")


@either_way
@pytest.mark.parametrize("pieces", [["one ", "two"], []], ids=["text", "nothing"])
def test_an_answer_is_the_same(
    emulator: Emulator, client: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch,
    read: Read, pieces: List[str],
) -> None:  # fmt: skip
    """Though some of it came before the response began. The question is asked once."""
    monkeypatch.setattr(sse, "TAKING_LOOK", PATIENCE)
    emulator.reply = Reply(pieces)
    is_found, known, (*sent, end) = read(client.stream("Why?", conversation=conversation), bool)
    assert (is_found, text_of(sent)) == (True, "".join(pieces))
    assert bool(known) == bool(pieces)
    assert (end["type"], end["complete"]) == ("complete", True)
    assert len(emulator.threads[conversation.conversation_id].user_messages) == 2


@either_way
def test_nobody_waits_for_text_once_the_service_has_taken_the_question(
    emulator: Emulator, client: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    """The response begins, and the text comes in it."""
    monkeypatch.setattr(sse, "TAKING", NEVER)
    go_on = threading.Event()

    def late(prompt: str) -> Iterator[str]:
        wait_for(go_on)
        yield "late"

    emulator.reply = Reply(late)
    is_found, known, (*pieces, end) = read(client.stream("Why?", conversation=conversation), go_on.set)
    assert (is_found, known, text_of(pieces), end["type"]) == (True, "", "late", "complete")


@either_way
@pytest.mark.parametrize(
    "fault, code",
    [(None, "not_found"), (Fault.status(402), "quota_exceeded"), (MISSING_REFERENCE, "not_found")],
    ids=["gone", "another", "something else is gone"],
)
def test_a_failure_is_told_in_the_response(
    emulator: Emulator, client: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch,
    read: Read, fault: Optional[Fault], code: str,
) -> None:  # fmt: skip
    """As if it had come later. Only one of them says that the conversation is gone."""
    monkeypatch.setattr(sse, "TAKING", PATIENCE)
    if fault is None:
        emulator.threads.clear()
    else:
        emulator.fail("message", fault)
    is_found, _, (end,) = read(client.stream("Why?", conversation=conversation), bool)
    assert is_found == (fault is not None)
    assert (end["type"], end["code"]) == ("error", code)


@either_way
def test_a_service_that_says_nothing_is_waited_for_in_the_response(
    emulator: Emulator, client: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    """The page gets the head of the response meanwhile, and comments."""
    monkeypatch.setattr(sse, "TAKING", 0.1)
    emulator.fail("message", Fault.stall(seconds=2))
    is_found, known, (*pieces, end) = read(client.stream("Why?", conversation=conversation), bool)
    assert (is_found, known, text_of(pieces), end["type"]) == (True, "", "one two", "complete")


def test_a_task_that_is_cancelled_meanwhile_ends_the_call(
    emulator: Emulator, client: Client, conversation: Conversation
) -> None:
    """As later: the service's end of the connection closes."""
    emulator.fail("message", Fault.stall())
    stream = client.stream("Why?", conversation=conversation)

    async def leave() -> None:
        body = AsyncEventStream(stream, heartbeat=NEVER)
        looking = asyncio.ensure_future(body.finds_conversation())
        while not emulator.stalled:
            await asyncio.sleep(0.01)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        await body.aclose()

    asyncio.run(asyncio.wait_for(leave(), PATIENCE))
    assert stream.closed


class Interruption(BaseException):
    """What a handler of a signal raises, or a time limit of gevent."""


def look(stream: Stream) -> object:
    return EventStream(stream, heartbeat=NEVER).finds_conversation()


def look_asynchronously(stream: Stream) -> object:
    async def find() -> bool:
        return await AsyncEventStream(stream, heartbeat=NEVER).finds_conversation()

    return asyncio.run(find())


@pytest.mark.parametrize("find", [look, look_asynchronously])
def test_a_wait_that_is_interrupted_ends_the_call(
    emulator: Emulator, client: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch,
    find: Callable[[Stream], object],
) -> None:  # fmt: skip
    """No server has the response yet, so none closes it. An error report may hold it for long."""
    emulator.fail("message", Fault.stall())
    stream = client.stream("Why?", conversation=conversation)

    def looks(stream: Stream) -> Iterator[float]:
        while not emulator.stalled:
            yield 0.01
        raise Interruption

    for module in (sse, sse_async):
        monkeypatch.setattr(module, "looks_at_taking", looks)
    with pytest.raises(Interruption) as caught:
        find(stream)
    assert stream.closed
    assert caught.tb is not None  # it holds the response


def test_a_wait_that_ends_while_it_is_looked_at_is_no_trouble() -> None:
    """A thread that helps changes it. One that is longer than the look ends the look."""
    delays = iter([Delay("limit", 0.01, "why"), None, Delay("limit", NEVER, "why")])

    class Waiting:
        _is_taken = False

        @property
        def _delay(self) -> Optional[Delay]:
            return next(delays)

    stream: Any = Waiting()
    assert list(sse.looks_at_taking(stream)) == [sse.TAKING_LOOK] * 2
