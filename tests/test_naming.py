"""The names of conversations: asked for by a call, and by itself after the first whole answer of a page."""

import asyncio
import logging
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest
from support import PATIENCE, Worker, events, nothing_left_open

from copilot_sync import Client, NotFoundError, ProtocolError, naming
from copilot_sync.contrib.sse import EventStream
from copilot_sync.contrib.sse_async import AsyncEventStream
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.stream import Stream

GENERATED = Fault.status(200, body={"name": "A question about WSGI"})


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None) as opened:
        yield opened


def namings(emulator: Emulator) -> List[Any]:
    """What was sent to name conversations, with the ids of those."""
    return [(request.thread_id, request.json) for request in emulator.requests if request.stage == "rename"]


def test_the_service_is_asked_for_a_name(emulator: Emulator, client: Client) -> None:
    """By conversation or by id; the name comes back, and a person did not choose it."""
    conversation = client.ask("What is WSGI?").conversation
    emulator.fail("rename", GENERATED)
    assert client.name_thread(conversation) == "A question about WSGI"
    client.name_thread(conversation.conversation_id)
    assert namings(emulator) == [(conversation.conversation_id, {"name": "", "generate": True})] * 2
    (thread,) = client.threads()
    assert thread.name
    assert not thread.manually_named
    client.rename_thread(conversation, "Mine")
    assert [(each.name, each.manually_named) for each in client.threads()] == [("Mine", True)]


@pytest.mark.parametrize("body", ["", "{}", '{"name": null}', "<html>"], ids=["nothing", "no name", "null", "a page"])
def test_a_service_that_returns_no_name_is_no_failure(emulator: Emulator, client: Client, body: str) -> None:
    """It may have named the conversation all the same."""
    emulator.fail("rename", Fault.status(200, body=body))
    assert client.name_thread(client.create_thread()) == ""


def test_a_name_that_could_not_be_had_is_an_error(emulator: Emulator, client: Client) -> None:
    """As with every call of the client."""
    with pytest.raises(NotFoundError) as caught:
        client.name_thread("gone")
    assert caught.value.stage == "rename"
    emulator.fail("rename", Fault.status(200, body={"error": {"message": "boom"}}))
    with pytest.raises(ProtocolError):
        client.name_thread(client.create_thread())
    with pytest.raises(ValueError, match="a conversation or its id is needed"):
        client.name_thread("")


def test_a_question_alone_names_nothing(emulator: Emulator, client: Client) -> None:
    """It would be one request more than the caller asked for."""
    client.ask("hi")
    client.stream("hi").read()
    assert namings(emulator) == []


def test_nothing_is_named_before_there_is_a_whole_answer(emulator: Emulator, client: Client) -> None:
    """A name says what a conversation is about."""
    stream = client.stream("hi")
    assert stream.naming() is None
    next(stream)
    assert stream.naming() is None
    emulator.script(Reply(["one"], complete=False))
    emulator.fail("messages", Fault.status(404))
    unproven = client.stream("hi")
    assert not unproven.read().complete
    assert unproven.naming() is None
    stream.close()


def test_a_naming_asks_once(emulator: Emulator, client: Client) -> None:
    """However often it is run."""
    stream = client.stream("hi")
    stream.read()
    emulator.fail("rename", GENERATED)
    wanted = stream.naming()
    assert wanted is not None
    assert [wanted.run(), wanted.run()] == ["A question about WSGI", ""]
    assert len(namings(emulator)) == 1


@pytest.mark.parametrize(
    "fault",
    [Fault.status(500), Fault.status(429), Fault.status(404), Fault.drop()],
    ids=["500", "429", "404", "dropped"],
)
def test_a_naming_never_raises(
    emulator: Emulator, client: Client, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it try again; why there is no name is for those who debug."""
    stream = client.stream("hi")
    stream.read()
    emulator.fail("rename", fault)
    wanted = stream.naming()
    assert wanted is not None
    with caplog.at_level(logging.DEBUG, logger="copilot_sync.naming"):
        assert wanted.run() == ""
    assert [record.levelname for record in caplog.records if record.name == "copilot_sync.naming"] == ["DEBUG"]
    assert len(namings(emulator)) == 1


def test_a_naming_is_over_within_its_time(emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the service thinks."""
    monkeypatch.setattr(naming, "NAMING_TIMEOUT", 0.1)
    stream = client.stream("hi")
    stream.read()
    emulator.fail("rename", Fault.stall())
    wanted = stream.naming()
    assert wanted is not None
    began = time.monotonic()
    assert wanted.run() == ""
    assert time.monotonic() - began < PATIENCE / 2


@pytest.mark.parametrize("end", ["naming", "stream", "client"])
def test_a_naming_under_way_ends_with_what_it_belongs_to(emulator: Emulator, client: Client, end: str) -> None:
    """At once: it holds up nobody who leaves."""
    stream = client.stream("hi")
    stream.read()
    emulator.fail("rename", Fault.stall())
    wanted = stream.naming()
    assert wanted is not None
    running = Worker(wanted.run)
    assert emulator.wait_until(lambda: emulator.stalled)
    {"naming": wanted.cancel, "stream": stream.close, "client": client.close}[end]()
    assert running.ended_within(naming.NAMING_TIMEOUT / 2)
    assert running.result() == ""


def test_a_naming_that_was_cancelled_sends_nothing(emulator: Emulator, client: Client) -> None:
    """Also one that had not begun."""
    stream = client.stream("hi")
    stream.read()
    wanted = stream.naming()
    assert wanted is not None
    stream.close()
    assert wanted.run() == ""
    assert namings(emulator) == []


def blocking(stream: Stream, **options: Any) -> bytes:
    with EventStream(stream, **options) as body:
        return b"".join(body)


def asynchronous(stream: Stream, **options: Any) -> bytes:
    async def main() -> bytes:
        body = AsyncEventStream(stream, **options)
        try:
            return b"".join([part async for part in body])
        finally:
            await body.aclose()

    return asyncio.run(main())


Face = Callable[..., bytes]
both_faces = pytest.mark.parametrize("face", [blocking, asynchronous])


@both_faces
def test_a_page_gets_its_new_conversation_named(emulator: Emulator, client: Client, face: Face) -> None:
    """After the first answer, and not after the next one."""
    (conversation_id,) = {event["conversation_id"] for event in events(face(client.stream("hi")))[-1:]}
    assert namings(emulator) == [(conversation_id, {"name": "", "generate": True})]
    face(client.stream("and?", conversation=conversation_id))
    assert len(namings(emulator)) == 1


@both_faces
def test_the_closing_event_is_delivered_before_the_name_is_asked_for(
    emulator: Emulator, client: Client, face: Face
) -> None:
    """Whoever reads the page has the answer; the name only holds up the end of the response."""
    emulator.fail("rename", Fault.stall())
    parts: List[bytes] = []
    delivered = threading.Event()

    async def read_asynchronously() -> None:
        async for part in AsyncEventStream(stream):
            note(part)

    def read() -> None:
        for part in EventStream(stream):
            note(part)

    def note(part: bytes) -> None:
        parts.append(part)
        if b'"complete"' in part:
            assert namings(emulator) == []
            delivered.set()

    stream = client.stream("hi")

    reading = Worker(read if face is blocking else lambda: asyncio.run(read_asynchronously()))
    assert delivered.wait(PATIENCE)
    assert emulator.wait_until(lambda: emulator.stalled)
    assert not reading.ended_within(0.05)
    emulator.release()
    reading.result()
    assert events(b"".join(parts))[-1]["type"] == "complete"


@both_faces
@pytest.mark.parametrize("fault", [Fault.status(500), Fault.drop(), Fault.status(403)], ids=["500", "dropped", "403"])
def test_a_page_hears_nothing_of_a_name_that_failed(
    emulator: Emulator, client: Client, face: Face, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is all that it asked for."""
    emulator.fail("rename", fault)
    with caplog.at_level(logging.INFO):
        body = face(client.stream("hi"))
    assert [event["type"] for event in events(body)] == ["content", "content", "complete"]
    assert caplog.records == []
    assert len(namings(emulator)) == 1


@both_faces
def test_names_can_be_switched_off(emulator: Emulator, client: Client, face: Face) -> None:
    """By each body."""
    face(client.stream("hi"), name_thread=False)
    assert namings(emulator) == []


@both_faces
def test_an_answer_that_is_not_whole_names_nothing(emulator: Emulator, client: Client, face: Face) -> None:
    """Neither one that failed nor one whose end nobody confirmed."""
    emulator.script(Reply(["one"], error="boom"), Reply(["one"], complete=False))
    emulator.fail("messages", Fault.status(404))
    assert events(face(client.stream("hi")))[-1]["type"] == "error"
    assert events(face(client.stream("hi")))[-1]["complete"] is False
    assert namings(emulator) == []


@pytest.mark.parametrize("body", [EventStream, AsyncEventStream])
@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_the_switch_is_true_or_false(client: Client, body: Any, value: Any) -> None:
    """Anything else is told before anything is sent."""
    with pytest.raises(TypeError, match="name_thread must be True or False"):
        body(client.stream("hi"), name_thread=value)


def test_a_body_that_is_closed_ends_its_naming(emulator: Emulator, client: Client) -> None:
    """The client has gone: the server's thread is free at once."""
    emulator.fail("rename", Fault.stall())
    body = EventStream(client.stream("hi"))
    reading = Worker(lambda: list(body))
    assert emulator.wait_until(lambda: emulator.stalled)
    body.close()
    assert reading.ended_within(naming.NAMING_TIMEOUT / 2)
    reading.result()


def test_a_body_that_is_closed_after_its_last_event_names_nothing(emulator: Emulator, client: Client) -> None:
    """A server that asks for no more does not wait."""
    body = EventStream(client.stream("hi"))
    parts = [part for part, _ in zip(body, range(10)) if b'"complete"' not in part or body.close()]
    assert parts
    assert next(body, None) is None
    assert namings(emulator) == []


@pytest.mark.parametrize("end", ["release", "cancel", "close"])
def test_a_page_that_leaves_at_the_last_event_gets_its_conversation_named(
    emulator: Emulator, client: Client, end: str
) -> None:
    """A server then cancels the task; that ends the naming the second time only, or when the body is closed."""
    emulator.fail("rename", Fault.stall())

    async def main() -> float:
        body = AsyncEventStream(client.stream("hi"))

        async def read() -> None:
            async for _ in body:
                pass

        reading = asyncio.ensure_future(read())
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, emulator.wait_until, lambda: emulator.stalled)
        reading.cancel()
        await asyncio.wait({reading}, timeout=0.05)
        assert not reading.done()
        began = loop.time()
        ends: Dict[str, Callable[[], object]] = {
            "release": emulator.release,
            "cancel": reading.cancel,
            "close": body.close,
        }
        ends[end]()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await body.aclose()
        return loop.time() - began

    assert asyncio.run(main()) < naming.NAMING_TIMEOUT / 2
