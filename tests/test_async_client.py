"""``AsyncClient`` and ``AsyncChat``: all that ``Client`` and ``Chat`` can do, and the loop never waits."""

import asyncio
import inspect
import pickle
import threading
import typing
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Iterator, List

import pytest
from loops import KINDS, THREADS, Run, have_patience_with_threads, runner, until
from streams import AT_ONCE
from support import nothing_left_open, stages, wait_for

from copilot_sync import (
    AsyncChat,
    AsyncClient,
    AsyncStream,
    Chat,
    Client,
    Conversation,
    Model,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    Stream,
    StreamClosedError,
    Thread,
)
from copilot_sync.aio import client as client_module
from copilot_sync.aio import loop_watch
from copilot_sync.aio.loop_watch import LoopWatch
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.os_threads import ThreadResult

if TYPE_CHECKING:
    from typing_extensions import assert_type


def is_public(name: str) -> bool:
    return not name.startswith("_")


def client_of(emulator: Emulator, **options: Any) -> AsyncClient:
    urls = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    return AsyncClient(emulator.api_key, cookies=emulator.cookies, **{**urls, "retry": AT_ONCE, **options})


def helpers() -> List[str]:
    """The threads of the library that run now."""
    return [thread.name for thread in threading.enumerate() if thread.name == "copilot-sync-stream"]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one", "two"])) as served:
            yield served


#: What has another shape in an event loop: methods that wait for nothing, and what asyncio has itself.
PLAIN = {"chat", "close", "from_profile", "stream"}
TWINS = [(Client, AsyncClient), (Chat, AsyncChat), (Stream, AsyncStream)]
LEFT_OUT = {Stream: {"naming", "poll"}}  # AsyncClient.name_thread and asyncio.wait_for do the same
MEMBERS = [
    (blocking, twin, name)
    for blocking, twin in TWINS
    for name in dir(blocking)
    if is_public(name) and name not in LEFT_OUT.get(blocking, ())
]


@pytest.mark.parametrize("blocking, twin, name", MEMBERS, ids=[f"{twin.__name__}.{name}" for _, twin, name in MEMBERS])
def test_each_public_member_has_its_twin(blocking: Any, twin: Any, name: str) -> None:
    """A method has the same parameters and defaults, says the same of them, and is awaited if it waits."""
    original, member = getattr(blocking, name), getattr(twin, name)
    assert isinstance(member, property) == isinstance(original, property)
    if isinstance(member, property):
        return
    assert inspect.signature(member).parameters == inspect.signature(original).parameters
    assert inspect.iscoroutinefunction(member) == (name not in PLAIN and name != "events")
    assert member.__name__ == name
    for section in ("Args:", "Raises:"):
        assert (section in member.__doc__) >= (section in original.__doc__)


def test_what_comes_out_of_a_call_is_known() -> None:
    """For tools that look: the awaited value has the type that the blocking method returns."""
    assert inspect.signature(AsyncClient.models) == inspect.signature(Client.models)
    assert typing.get_type_hints(AsyncClient.models) == typing.get_type_hints(Client.models)
    assert typing.get_type_hints(AsyncClient.ask)["return"] is inspect.signature(AsyncClient.ask).return_annotation


def test_type_checkers_know_what_several_calls_at_once_return(run: Run, emulator: Emulator) -> None:
    """Each call keeps its own type in ``asyncio.gather``."""

    async def main() -> None:
        async with client_of(emulator) as client:
            models, threads = await asyncio.gather(client.models(), client.threads())
            if TYPE_CHECKING:
                assert_type(models, List[Model])
                assert_type(threads, List[Thread])
            assert (type(models[0]), threads) == (Model, [])

    run(main())


def test_nothing_is_in_one_face_alone() -> None:
    """But for ``aclose``, and for what is set in each blocking object instead of being one of its class."""
    own = {twin.__name__: {*filter(is_public, dir(twin))} - {*dir(blocking)} for blocking, twin in TWINS}
    assert own == {"AsyncClient": {"aclose"}, "AsyncChat": {"conversation"}, "AsyncStream": {"aclose", "is_new"}}


def test_the_constructor_is_that_of_the_client() -> None:
    """Parameters and defaults, and what is said of them, for ``help`` and ``inspect`` alike."""
    assert inspect.signature(AsyncClient).parameters == inspect.signature(Client).parameters
    assert AsyncClient.__doc__ is not None and "api_key: A token to use as it is" in AsyncClient.__doc__
    with pytest.raises(TypeError, match="nonsense"):
        AsyncClient(nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="blank|empty|sent"):
        AsyncClient("a\nb")


def test_making_one_sends_nothing(emulator: Emulator) -> None:
    """Nor does it need a loop; it shows itself, also while it is being made, and has what the client has."""
    client = client_of(emulator, model="m")
    assert repr(client) == f"<AsyncClient of {emulator.api_url}, model 'm'>"
    assert repr(AsyncClient.__new__(AsyncClient)) == "<AsyncClient that is being made>"
    assert (client.api_url, client.retry) == (emulator.api_url, AT_ONCE)
    assert emulator.requests == []
    client.close()


def test_each_call_does_what_its_twin_does(run: Run, emulator: Emulator) -> None:
    """And returns or raises the same."""

    async def main() -> None:
        async with client_of(emulator) as client:
            with Client(emulator.api_key, cookies=emulator.cookies, github_url=emulator.github_url, **urls) as blocking:
                assert await client.models() == blocking.models()
                assert await client.models(all=True) == blocking.models(all=True)
                assert await client.quota() == blocking.quota()
                conversation = await client.create_thread()
                await client.rename_thread(conversation, "a name")
                assert await client.threads() == blocking.threads()
                await client.ask("hi", conversation=conversation)
                assert await client.name_thread(conversation) == blocking.name_thread(conversation)
                assert await client.messages(conversation) == blocking.messages(conversation)
                await client.delete_thread(id=conversation)
                with pytest.raises(NotFoundError):
                    await client.messages(conversation)
                with pytest.raises(ValueError, match="blank"):
                    await client.rename_thread(conversation, " ")

    urls: Any = {"api_url": emulator.api_url}
    run(main())


def test_a_question_is_answered(run: Run, emulator: Emulator) -> None:
    """Whole, in one piece as of the blocking client, and with all that is known of the answer."""

    async def main() -> None:
        told: List[Conversation] = []
        async with client_of(emulator) as client:
            answer = await client.ask("hi", on_start=told.append)
            assert (answer.text, answer.complete, told) == ("onetwo", True, [answer.conversation])
            assert (await client.ask([{"role": "user", "content": "hi"}], system="Be brief")).text == "onetwo"

    run(main())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != THREADS])
def test_no_thread_waits_for_an_answer(kind: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop reads it itself, as soon as the question is sent, and has time for other tasks."""

    async def main() -> None:
        emulator.fail("message", Fault.stall(("after_events", 1)))
        async with client_of(emulator) as client:
            task = asyncio.ensure_future(client.ask("hi"))
            await until(lambda: emulator.stalled and not helpers())
            emulator.release()
            assert (await task).text == "onetwo"

    runner(kind, monkeypatch)(main())


CALLS = {
    "models": lambda client: client.models(),
    "messages": lambda client: client.messages("t-1"),
    "thread": lambda client: client.create_thread(),
    "message": lambda client: client.ask("hi"),
}


@pytest.mark.parametrize("stage", CALLS)
def test_a_cancelled_call_ends_its_request(run: Run, stage: str, emulator: Emulator) -> None:
    """At once, and nothing is left: neither the connection nor a thread."""

    async def main() -> None:
        emulator.fail(stage, Fault.stall())
        async with client_of(emulator) as client:
            task = asyncio.ensure_future(CALLS[stage](client))
            await until(lambda: emulator.stalled)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: len(emulator.disconnects) == 1)
            assert await client.models()

    run(main())


def test_calls_take_turns(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many threads at once and no more; the others follow, and one that gives up lets them pass."""
    monkeypatch.setattr(client_module, "MAX_CALLS", 2)

    async def main() -> None:
        emulator.fail("threads", Fault.stall(), Fault.stall())
        async with client_of(emulator) as client:
            tasks = [asyncio.ensure_future(client.threads()) for _ in range(5)]
            await until(lambda: emulator.stalled == 2)
            assert len(helpers()) == 2
            tasks[2].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[2]
            assert stages(emulator) == ["threads"] * 2
            emulator.release()
            assert await asyncio.gather(*tasks[:2], *tasks[3:]) == [[]] * 4

    run(main())


@pytest.mark.parametrize("way", ["close", "aclose", "another thread"])
def test_closing_ends_every_call(run: Run, way: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those under way and those that wait for their turn raise the same; the client can be used again."""
    monkeypatch.setattr(client_module, "MAX_CALLS", 2)
    have_patience_with_threads(monkeypatch)

    async def main() -> None:
        emulator.fail("threads", Fault.stall(), Fault.stall())
        emulator.fail("message", Fault.stall(("after_events", 1)))
        client = client_of(emulator)
        stream = client.stream("hi")
        assert await stream.__anext__() == "one"
        emulator.fail("thread", Fault.stall())
        calls: List[Any] = [client.threads() for _ in range(4)]
        tasks = list(map(asyncio.ensure_future, [*calls, stream.read(), client.ask("hi", on_start=bool)]))
        # Each call has a thread, and so has a stream that the loop can't read. Another one may be about to end.
        threads = 3 if loop_watch.watches_sockets(asyncio.get_running_loop()) else 4
        await until(lambda: emulator.stalled == 4 and len(helpers()) == threads)
        if way == "aclose":
            await client.aclose()
            assert helpers() == []
        elif way == "close":
            client.close()
        else:
            closing = threading.Thread(target=client.close)
            closing.start()
            closing.join()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [StreamClosedError] * 6
        assert stages(emulator).count("threads") == 2
        assert (await client.ask("hi")).text == "onetwo"
        await client.aclose()
        await client.aclose()

    run(main())


def test_no_thread_outlives_a_client(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that helps a question on its way."""
    have_patience_with_threads(monkeypatch)

    async def main() -> None:
        emulator.fail("thread", Fault.stall())
        async with client_of(emulator) as client:
            asking = asyncio.ensure_future(client.ask("hi", on_start=bool))
            await until(lambda: emulator.stalled)
            assert helpers() != []
        assert helpers() == []
        with pytest.raises(StreamClosedError):
            await asking

    run(main())


def test_a_thread_that_has_nothing_more_to_do_is_waited_for(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells the loop what it came to before it ends, and closing the client may come in between."""
    told, is_joined = threading.Event(), threading.Event()

    def tell(watch: LoopWatch, tell: Callable[[LoopWatch], None] = LoopWatch.call_on_help) -> None:
        tell(watch)
        told.set()
        wait_for(is_joined)

    def join(result: "ThreadResult[Any]", join: Callable[[Any], None] = ThreadResult.join) -> None:
        is_joined.set()
        join(result)

    def close(client: AsyncClient, close: Callable[[AsyncClient], None] = AsyncClient.close) -> None:
        close(client)
        wait_for(told)

    async def main() -> None:
        emulator.fail("thread", Fault.stall())
        async with client_of(emulator) as client:
            asking = asyncio.ensure_future(client.ask("hi", on_start=bool))
            await until(lambda: emulator.stalled)
        assert helpers() == []
        with pytest.raises(StreamClosedError):
            await asking

    have_patience_with_threads(monkeypatch)
    monkeypatch.setattr(LoopWatch, "call_on_help", tell)
    monkeypatch.setattr(ThreadResult, "join", join)
    monkeypatch.setattr(AsyncClient, "close", close)
    asyncio.run(main())


def test_a_client_serves_one_loop_after_the_other(emulator: Emulator) -> None:
    """And several at once, each in its thread."""
    client = client_of(emulator)

    async def main() -> None:
        texts = [answer.text for answer in await asyncio.gather(*(client.ask("hi") for _ in range(3)))]
        assert texts == ["onetwo"] * 3
        assert len(await asyncio.gather(*(client.threads() for _ in range(3)))) == 3

    asyncio.run(main())
    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert stages(emulator).count("message") == 9


def test_a_client_can_be_pickled(emulator: Emulator) -> None:
    """As the blocking one can; the other one has everything but the calls under way."""

    async def main() -> None:
        async with client_of(emulator) as client, pickle.loads(pickle.dumps(client)) as other:
            assert (await other.ask("hi")).text == "onetwo"

    asyncio.run(main())


async def told(conversation: Conversation) -> None:
    """Nobody calls it."""


class Told:
    async def __call__(self, conversation: Conversation) -> None:
        """Nobody calls it."""


@pytest.mark.parametrize("function", [told, Told()], ids=["function", "object"])
@pytest.mark.parametrize("name", ["on_start", "on_discard"])
def test_what_is_called_must_be_a_plain_function(name: str, function: Any, emulator: Emulator) -> None:
    """Nobody would await another one, so it is refused before anything is sent."""
    options = {name: function}
    refused = pytest.raises(TypeError, match=f"{name} must be a plain function")

    async def main() -> None:
        async with client_of(emulator) as client:
            chat = client.chat("t-1")
            with refused:
                client.stream("hi", **options)
            with refused:
                chat.stream("hi", **options)
            asks: List[Coroutine[Any, Any, Any]] = [
                client.ask("hi", **options),
                chat.ask("hi", **options),
                chat.retry(**options),
                chat.edit("hi", **options),
            ]
            for ask in asks:
                with refused:
                    await ask

    asyncio.run(main())
    assert emulator.requests == []


def test_limits_are_those_of_the_client(emulator: Emulator) -> None:
    """Attempts and errors are counted as ever."""

    async def main() -> None:
        emulator.fail("models", *[Fault.status(429, retry_after=0)] * 2)
        async with client_of(emulator, retry=RetryPolicy(attempts=2, base=0.0, cap=0.0)) as client:
            with pytest.raises(RateLimitError) as caught:
                await client.models()
            assert (caught.value.stage, caught.value.attempts) == ("models", 2)

    asyncio.run(main())


def test_a_chat_goes_on_with_its_conversation(run: Run, emulator: Emulator) -> None:
    """Question by question, and the last one again or edited, whole or in pieces."""

    async def main() -> None:
        async with client_of(emulator) as client:
            chat = client.chat(system="Be brief")
            assert (chat.conversation, chat.question) == (None, None)
            first = await chat.ask("hi")
            assert chat.conversation is first.conversation
            assert [piece async for piece in chat.stream("and")] == ["one", "two"]
            assert (await chat.retry()).text == (await chat.edit("or")).text == "onetwo"
            assert chat.question == "or"
            async with await chat.stream_retry() as stream:
                assert [piece async for piece in stream] == ["one", "two"]
            async with await chat.stream_edit("nor") as stream:
                assert (await stream.read()).text == "onetwo"
            assert len(emulator.threads) == 1
            assert "messages" not in stages(emulator)

    run(main())


@pytest.mark.parametrize("way", ["retry", "edit"])
def test_a_look_up_does_not_block_the_loop(run: Run, way: str, emulator: Emulator) -> None:
    """A stored conversation is looked up, once, while other tasks go on; cancelled, it ends at once."""

    async def main() -> None:
        emulator.fail("messages", Fault.stall(), Fault.stall(processed=False))
        async with client_of(emulator) as client:
            stored = (await client.ask("hi")).conversation.conversation_id
            chat = client.chat(stored)
            again = chat.retry if way == "retry" else lambda: chat.edit("or")
            task = asyncio.ensure_future(again())
            await until(lambda: emulator.stalled)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert chat.question is None
            await until(lambda: emulator.disconnects and not emulator.stalled)
            task = asyncio.ensure_future(again())
            await until(lambda: emulator.stalled)
            emulator.release()
            assert (await task).text == "onetwo"
            assert stages(emulator).count("messages") == 2

    run(main())


def test_a_chat_without_a_question_has_none_to_ask_again(emulator: Emulator) -> None:
    """Also if its conversation was looked up."""

    async def main() -> None:
        async with client_of(emulator) as client:
            for chat in (client.chat(), client.chat(await client.create_thread())):
                with pytest.raises(ValueError, match="no question yet"):
                    await chat.retry()

    asyncio.run(main())
