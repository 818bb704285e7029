"""``AsyncStream``: what ``Stream`` offers, read by an event loop; who closed it decides how it ends."""

import asyncio
import pickle
import threading
from typing import Iterator, List

import pytest
from loops import Run, until
from streams import AT_ONCE
from support import collect_garbage, nothing_left_open, stages

from copilot_sync import (
    AsyncClient,
    AsyncStream,
    CompleteEvent,
    ContentEvent,
    InvalidRequestError,
    StreamClosedError,
    StreamInterruptedError,
)
from copilot_sync.emulator import Emulator, Fault, Reply

STALLED = Fault.stall(("after_events", 1))


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one", "two"])) as served:
            yield served


@pytest.fixture
def client(emulator: Emulator) -> AsyncClient:
    return AsyncClient(emulator.api_key, api_url=emulator.api_url, retry=AT_ONCE)


def test_nothing_is_sent_before_the_first_piece(run: Run, emulator: Emulator, client: AsyncClient) -> None:
    """Then the pieces come as they are written, and what is known of the answer with them."""

    async def main() -> None:
        async with client, client.stream("hi") as stream:
            await asyncio.sleep(0)
            assert (emulator.requests, stream.is_new, stream.attempts, stream.conversation) == ([], True, 0, None)
            assert (stream.text, stream.answer, repr(stream)) == ("", None, "<AsyncStream open, 0 characters>")
            assert await stream.__anext__() == "one"
            assert stream.text.startswith("one")
            assert [piece async for piece in stream] == ["two"]
            assert stream.answer is not None and stream.answer.text == "onetwo"
            assert (stream.conversation, stream.attempts) == (stream.answer.conversation, 1)
            assert await stream.read() is await stream.read() is stream.answer
        assert (stream.closed, repr(stream)) == (False, "<AsyncStream finished, 6 characters>")
        assert [piece async for piece in stream] == []

    run(main())


def test_the_conversation_comes_before_the_question(run: Run, emulator: Emulator, client: AsyncClient) -> None:
    """``start`` gets it and sends no message; it is kept if the question is refused, and asked for once."""

    async def main() -> None:
        emulator.fail("message", Fault.status(400))
        async with client, client.stream("hi") as stream:
            conversation = await stream.start()
            await asyncio.sleep(0.05)  # time in which the message would be sent
            assert stages(emulator) == ["thread"]
            assert await stream.start() is stream.conversation is conversation
            with pytest.raises(InvalidRequestError):
                await stream.read()
            assert [*emulator.threads] == [conversation.conversation_id]
            with pytest.raises(StreamClosedError, match="had failed"):
                await stream.read()

    run(main())


def test_events_are_all_that_the_service_says(run: Run, emulator: Emulator, client: AsyncClient) -> None:
    """The conversation is none of them, and a stream may be read in all ways, one after the other."""

    async def main() -> None:
        async with client, client.stream("hi") as stream:
            first = [await stream.events().__anext__() for _ in range(2)]
            assert [type(event) for event in first][1:] == [ContentEvent]
            assert await stream.__anext__() == "two"
            assert [type(event) async for event in stream.events()] == [CompleteEvent]

    run(main())


def test_a_wait_that_is_given_up_loses_nothing(run: Run, emulator: Emulator, client: AsyncClient) -> None:
    """As with ``asyncio.wait_for``: ask again, and go on."""

    async def main() -> None:
        emulator.fail("thread", Fault.stall())
        emulator.fail("message", STALLED)
        async with client, client.stream("hi") as stream:
            starting = asyncio.ensure_future(stream.start())
            await until(lambda: emulator.stalled)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            emulator.release()
            await until(lambda: stream.conversation)
            assert await stream.start() is stream.conversation
            assert await stream.__anext__() == "one"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.__anext__(), 0.02)
            await until(lambda: emulator.stalled)
            emulator.release()
            assert await stream.__anext__() == "two"

    run(main())


@pytest.mark.parametrize("way", ["close", "aclose"])
def test_a_task_that_closes_its_stream_reads_no_more(
    run: Run, way: str, emulator: Emulator, client: AsyncClient
) -> None:
    """Quietly, also if more had arrived; the connection is free, and no whole answer is made up."""

    async def main() -> None:
        emulator.fail("message", STALLED)
        async with client:
            for stream in (client.stream("hi"), client.stream("hi")):
                pieces: List[str] = []
                async for piece in stream:
                    pieces.append(piece)
                    if way == "close":
                        stream.close()
                    else:
                        await stream.aclose()
                assert pieces == ["one"]
                await stream.aclose()
            unread = client.stream("hi")
            unread.close()
            with pytest.raises(StreamClosedError, match="before its conversation began"):
                await unread.start()
            await until(lambda: emulator.disconnects)

    run(main())


@pytest.mark.parametrize("by", ["task", "thread", "client"])
def test_a_task_learns_that_its_stream_was_closed(run: Run, by: str, emulator: Emulator, client: AsyncClient) -> None:
    """By whomever: a cut answer does not look whole, however often it is asked."""

    async def main() -> None:
        emulator.fail("message", STALLED)
        stream = client.stream("hi")

        async def read() -> str:
            return "".join([piece async for piece in stream])

        reading = asyncio.ensure_future(read())
        await until(lambda: stream.text)
        if by == "thread":
            closing = threading.Thread(target=stream.close)
            closing.start()
            closing.join()
        else:
            await (stream if by == "task" else client).aclose()
        for _ in range(2):
            with pytest.raises(StreamClosedError, match="another task or thread") as caught:
                await reading
            assert (caught.value.partial, caught.value.stage) == ("one", "stream")
            reading = asyncio.ensure_future(read())
        reading.cancel()
        assert (stream.closed, stream.answer) == (True, None)
        await client.aclose()

    run(main())


def test_what_has_arrived_is_kept_from_others_by_a_close(run: Run, emulator: Emulator, client: AsyncClient) -> None:
    """Although the answer is whole: who reads pieces would take those that it has for all of them."""

    async def main() -> None:
        async with client:
            stream = client.stream("hi")
            assert await stream.__anext__() == "one"
            await until(lambda: stream.answer)
            stream.close()

            async def read() -> List[str]:
                return [piece async for piece in stream]

            with pytest.raises(StreamClosedError):
                await asyncio.ensure_future(read())
            assert await read() == []
            assert (await stream.read()).text == "onetwo"

    run(main())


def test_errors_are_those_of_the_blocking_stream(emulator: Emulator, client: AsyncClient) -> None:
    """With what had come, and once; then there is no more to read."""

    async def main() -> None:
        emulator.fail("message", Fault.cut(1, mid_event=True))
        async with client, client.stream("hi", resume=False) as stream:
            with pytest.raises(StreamInterruptedError) as caught:
                await stream.read()
            assert caught.value.partial == "one"
            assert [piece async for piece in stream] == []

    asyncio.run(main())


def test_a_stream_is_read_by_one_task_in_one_loop(emulator: Emulator, client: AsyncClient) -> None:
    """Another one is refused, and does no harm."""
    emulator.fail("message", STALLED)
    held: List[AsyncStream] = []

    async def main() -> None:
        stream = client.stream("hi")
        held.append(stream)
        reading = asyncio.ensure_future(stream.read())
        await until(lambda: emulator.stalled)
        with pytest.raises(RuntimeError, match="one task at a time"):
            await stream.__anext__()
        emulator.release()
        assert (await reading).text == "onetwo"
        emulator.fail("message", STALLED)
        held.append(client.stream("hi"))
        assert await held[1].__anext__() == "one"

    async def other() -> None:
        with pytest.raises(RuntimeError, match="loop"):
            await held[1].__anext__()
        await client.aclose()

    asyncio.run(main())
    asyncio.run(other())


def test_a_stream_that_nobody_holds_is_closed(emulator: Emulator, client: AsyncClient) -> None:
    """As its connection is of no use to anybody; so is one of which only the events are dropped."""

    async def main() -> None:
        emulator.fail("message", STALLED, STALLED)
        async with client:
            async for _ in client.stream("hi"):
                break
            async for _ in client.stream("hi").events():
                break
            collect_garbage()
            await until(lambda: len(emulator.disconnects) == 2)
            assert not client._streams

    asyncio.run(main())


def test_a_stream_is_no_value(client: AsyncClient) -> None:
    """It can't be pickled, and says so."""
    with pytest.raises(TypeError, match="live connection"):
        pickle.dumps(client.stream("hi"))
