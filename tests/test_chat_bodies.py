"""An answer on its way to the page: the same promises for the blocking body and its asynchronous twin."""

import abc
import asyncio
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
from support import PATIENCE, collect_garbage, nothing_left_open, wait_until

from copilot_sync import Answer, Client, Conversation
from copilot_sync.contrib.chat import bodies, bodies_async, kept_answers, readings
from copilot_sync.contrib.chat.bodies import BodyOptions, body_of
from copilot_sync.contrib.chat.bodies_async import async_body_of
from copilot_sync.contrib.chat.kept_answers import FOLLOWING, LEASE, KeptAnswers
from copilot_sync.contrib.chat.readings import AnswerReading, EventPlace, place_of
from copilot_sync.contrib.chat.service import ChatService
from copilot_sync.delivery import recovery
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing.caches import MemoryCache

NAME = "chat"


class Page(abc.ABC):
    """One reader of a body, which parses what it gets."""

    def __init__(self) -> None:
        self.received = b""

    @abc.abstractmethod
    def take(self) -> bool:
        """Read once; return whether there was anything."""

    @abc.abstractmethod
    def leave(self) -> None:
        """Go away, as the server of the page notices it."""

    def read_until(self, length: int) -> "Page":
        """Read until so many characters are there."""
        while len(self.text) < length:
            assert self.take(), f"it ended with {self.received!r}"
        return self

    def read_all(self) -> "Page":
        """Read to the end."""
        while self.take():
            pass
        return self

    @property
    def events(self) -> List[Dict[str, Any]]:
        return [json.loads(line[6:]) for line in self.received.split(b"\n") if line.startswith(b"data: ")]

    @property
    def last_id(self) -> str:
        ids = [line[4:] for line in self.received.split(b"\n") if line.startswith(b"id: ")]
        return ids[-1].decode()

    @property
    def text(self) -> str:
        """What the page shows: all that came after it was told to forget what it had."""
        text = ""
        for event in self.events:
            if event["type"] == "started" and event["position"] == 0:
                text = ""
            text += event.get("text", "")
        return text

    @property
    def end(self) -> Tuple[str, Optional[str]]:
        return self.events[-1]["type"], self.events[-1].get("code")


class BlockingPage(Page):
    """The page of a WSGI server."""

    def __init__(self, answer: Any, options: BodyOptions) -> None:
        super().__init__()
        self._body: Any = body_of(answer, options)

    def take(self) -> bool:
        data = next(self._body, None)
        self.received += data or b""
        return data is not None

    def leave(self) -> None:
        self._body.close()
        self._body.close()


class AsyncPage(Page):
    """The page of an ASGI server."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, answer: Any, options: BodyOptions) -> None:
        super().__init__()
        on_complete = options.on_complete

        async def told(given: Answer) -> None:
            assert on_complete is not None
            on_complete(given)

        self._body: Any = async_body_of(answer, options._replace(on_complete=told if on_complete else None))

    def take(self) -> bool:
        try:
            self.received += self._run(self._body.__anext__())
        except StopAsyncIteration:
            return False
        return True

    def _run(self, coroutine: Any) -> Any:
        async def stepped() -> Any:  # a future can't hold the end of an iteration
            try:
                return await coroutine, None
            except StopAsyncIteration as error:
                return None, error

        value, error = asyncio.run_coroutine_threadsafe(stepped(), self.loop).result(3 * PATIENCE)
        if error is not None:
            raise error
        return value

    def leave(self) -> None:
        async def cancelled() -> None:
            task = asyncio.ensure_future(self._body.__anext__())
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await task
            await self._body.aclose()

        self._run(cancelled())


@pytest.fixture(params=["WSGI", "ASGI"])
def kind(request: pytest.FixtureRequest) -> Iterator[Any]:
    """How bodies are read."""
    if request.param == "WSGI":
        yield BlockingPage
        return
    loop = asyncio.new_event_loop()
    executor = ThreadPoolExecutor(4)
    loop.set_default_executor(executor)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    AsyncPage.loop = loop
    yield AsyncPage
    wait_until(lambda: not bodies_async._finishing)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    executor.shutdown()
    loop.close()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two ", "three"])) as served:
            yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None) as opened:
        yield opened


class Site:
    """Processes of one site, which share a cache whose time a test moves."""

    def __init__(self, client: Client, kind: Any) -> None:
        self.client = client
        self.now = 1000.0
        self.cache = MemoryCache(clock=lambda: self.now)
        self.kept = KeptAnswers(self.cache)
        self.names: Dict[str, Conversation] = {}
        self.completed: List[Answer] = []
        self._kind = kind

    def conversations(self) -> Dict[str, Conversation]:
        return self.names

    def forget(self, name: str) -> None:
        del self.names[name]

    @property
    def service(self) -> ChatService:
        """What another process of the site has."""
        return ChatService(self.client, self, KeptAnswers(self.cache))

    def ask(self, prompt: str = "Why?", *, background: float = 0.0) -> Page:
        """Ask in the conversation of the test."""
        stream = self.client.stream(prompt, conversation=self.names.get(NAME))
        self.names[NAME] = stream.start()
        page = self._kind(self.service.reading(stream), self._options(background))
        assert isinstance(page, Page)
        return page

    def follow(self, last_id: Optional[str] = None, *, background: float = 0.0) -> Page:
        """Come back, with the last id that the page has."""
        answer = self.service.answer(NAME, last_id)
        assert answer is not None
        page = self._kind(answer, self._options(background))
        assert isinstance(page, Page)
        return page

    def _options(self, background: float) -> BodyOptions:
        return BodyOptions(background, self.completed.append, name_thread=False)

    def let_die(self) -> None:
        """Move the time so far that a reader which says nothing counts as dead."""
        self.now += LEASE

    @property
    def state(self) -> Any:
        asked = self.kept.find(self.names[NAME].conversation_id)
        assert asked is not None
        return self.kept.look(asked)


@pytest.fixture
def site(client: Client, kind: Any, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose readers write at once."""
    monkeypatch.setattr(kept_answers, "INTERVAL", 0.0)
    monkeypatch.setattr(readings, "HEARTBEAT", 0.02)
    for module in (bodies, bodies_async):
        monkeypatch.setattr(module, "HEARTBEAT", 0.02)
    return Site(client, kind)


class Pieces:
    """An answer that comes as a test lets it."""

    def __init__(self, emulator: Emulator, *pieces: str) -> None:
        self._pieces = pieces
        self._go_on = threading.Semaphore(0)
        emulator.reply = Reply(self._said)

    def _said(self, prompt: str) -> Iterator[str]:
        for piece in self._pieces:
            yield piece
            assert self._go_on.acquire(timeout=PATIENCE)

    def go_on(self, count: int = 1) -> None:
        for _ in range(count):
            self._go_on.release()


def questions(emulator: Emulator) -> List[str]:
    """What was asked, in all conversations."""
    return [message["content"] for thread in emulator.threads.values() for message in thread.user_messages]


def test_events_have_ids_by_which_a_page_goes_on(site: Site, emulator: Emulator) -> None:
    """The first event says what was asked, and the last how long it took."""
    page = site.ask().read_all()
    first, *pieces, last = page.events
    assert first == {"type": "started", "answer": last["message_id"], "question": "Why?", "position": 0}
    assert [piece["text"] for piece in pieces] == ["one ", "two ", "three"] or page.text == "one two three"
    assert page.end == ("complete", None)
    assert last["seconds"] >= 0
    assert page.last_id == f"{last['message_id']}:13"
    assert [answer.text for answer in site.completed] == ["one two three"]
    page.leave()
    assert not page.take()


def test_a_page_that_comes_back_is_told_the_rest(site: Site, emulator: Emulator) -> None:
    """Also if the answer has ended meanwhile; without an id it is told all."""
    page = site.ask().read_all()
    answer_id = page.events[0]["answer"]
    assert site.follow(f"{answer_id}:4").read_all().text == "two three"
    assert site.follow(f"{answer_id}:13").read_all().text == ""
    for last_id in (None, "", "nonsense", "other:4", f"{answer_id}:x"):
        again = site.follow(last_id).read_all()
        assert again.text == "one two three"
        assert again.events[-1] == page.events[-1]
    assert questions(emulator) == ["Why?"]


def test_two_pages_follow_one_answer(site: Site, emulator: Emulator) -> None:
    """While it is written, each from where it is."""
    pieces = Pieces(emulator, "one ", "two ", "three")
    first = site.ask().read_until(4)
    second = site.follow()
    first.take()
    second.read_until(4)
    pieces.go_on(3)
    first.read_all()
    assert second.read_all().text == first.text == "one two three"
    assert questions(emulator) == ["Why?"]
    assert len(site.completed) == 1


@pytest.mark.usefixtures("quick_looks")
def test_a_page_goes_on_when_its_reader_was_killed(site: Site, emulator: Emulator) -> None:
    """One of those who come back reads on, by the message's handle; the prompt is asked once."""
    pieces = Pieces(emulator, "one ", "two ", "three")
    killed = site.ask().read_until(4)
    killed.take()
    page, other = site.follow(killed.last_id), site.follow()
    page.take()
    other.read_until(4)
    site.let_die()
    page.take()
    other.take()
    pieces.go_on(3)
    assert page.read_all().text == "two three"
    assert other.read_all().text == "one two three"
    assert page.end == other.end == ("complete", None)
    assert "seconds" not in page.events[-1]
    assert questions(emulator) == ["Why?"]
    assert [answer.text for answer in site.completed] == ["one two three"]
    killed.leave()


@pytest.mark.usefixtures("quick_looks")
def test_a_question_that_was_never_sent_is_sent_by_the_next_reader(site: Site, emulator: Emulator) -> None:
    """A process may be killed just before; the question is asked once also then."""
    killed = site.ask()
    site.let_die()
    page = site.follow().read_all()
    assert (page.text, page.end) == ("one two three", ("complete", None))
    assert questions(emulator) == ["Why?"]
    killed.leave()


@pytest.mark.usefixtures("quick_looks")
def test_an_answer_that_takes_longer_than_one_look_is_waited_for(
    site: Site, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again, for a bounded time."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.01)  # for some four looks
    pieces = Pieces(emulator, "one ", "two")
    killed = site.ask().read_until(4)
    site.let_die()
    page = site.follow(killed.last_id)
    sent = len(emulator.requests)
    while len([request for request in emulator.requests[sent:] if request.stage == "messages"]) < 64:
        page.take()
    pieces.go_on(2)
    assert page.read_all().text == "two"
    monkeypatch.setattr(readings, "TAKE_OVER", 0.0)
    pieces = Pieces(emulator, "one ", "two")
    killed = site.ask().read_until(4)
    site.let_die()
    assert site.follow(killed.last_id).read_all().end == ("error", "interrupted")
    pieces.go_on(2)


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("text", ["ONE two three", "on"], ids=["another", "shorter"])
def test_another_text_than_was_kept_takes_its_place(site: Site, emulator: Emulator, text: str) -> None:
    """The page is told to forget what it has, and so is whoever follows later."""
    pieces = Pieces(emulator, "one ", "two")
    killed = site.ask().read_until(4)
    answer_id = killed.events[0]["answer"]
    killed.take()
    assert site.state.length >= 4
    killed.leave()
    wait_until(lambda: not bodies_async._finishing)  # it was the last to write
    pieces.go_on(2)
    (thread,) = emulator.threads.values()
    wait_until(lambda: [message["content"] for message in thread.assistant_messages] == ["one two"])
    thread.assistant_messages[0]["content"] = text
    site.let_die()
    page = site.follow(killed.last_id).read_all()
    assert page.text == text
    assert [event["position"] for event in page.events if event["type"] == "started"][-1] == 0
    assert site.follow(f"{answer_id}:0").read_all().text == text


def test_without_a_background_an_answer_ends_with_its_reader(site: Site, emulator: Emulator) -> None:
    """The connection to the service is closed; whoever comes back goes on all the same."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    page = site.ask().read_until(4)
    page.leave()
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)
    wait_until(lambda: site.state.length == 4)
    assert site.state.end is None


def test_an_answer_is_read_on_in_the_background(site: Site, emulator: Emulator) -> None:
    """After its reader has left; then it is kept to its end."""
    pieces = Pieces(emulator, "one ", "two")
    page = site.ask(background=PATIENCE).read_until(4)
    page.leave()
    pieces.go_on(2)
    wait_until(lambda: site.state.end is not None)
    assert not emulator.disconnects
    assert site.follow(page.last_id).read_all().text == "two"
    assert [answer.text for answer in site.completed] == ["one two"]
    wait_until(lambda: not bodies._reading_on)


def test_an_answer_is_read_on_as_long_as_another_page_follows_it(site: Site, emulator: Emulator) -> None:
    """Also if the site wants no background: after a reload, the new page takes the place of the old one."""
    pieces = Pieces(emulator, "one ", "two", " three")
    first = site.ask().read_until(4)
    second = site.follow(first.last_id)
    second.take()
    second.take()
    first.leave()
    pieces.go_on()
    second.read_until(3)
    assert not emulator.disconnects
    second.leave()
    site.now += FOLLOWING
    wait_until(lambda: not bodies._reading_on and not bodies_async._finishing)
    assert site.state.length == 7
    assert site.state.end is None
    pieces.go_on(2)


def test_the_background_is_bounded(site: Site, emulator: Emulator) -> None:
    """In time."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    site.ask(background=0.1).read_until(4).leave()
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)
    wait_until(lambda: not bodies._reading_on)


def test_only_so_many_answers_are_read_on(site: Site, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others end with their readers."""
    for module in (bodies, bodies_async):
        monkeypatch.setattr(module, "MOST_READ_ON", 0)
    emulator.fail("message", Fault.stall(("after_events", 1)))
    site.ask(background=PATIENCE).read_until(4).leave()
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)


@pytest.mark.parametrize("background", [0.0, PATIENCE])
def test_stop_ends_an_answer_in_whatever_process(site: Site, emulator: Emulator, background: float) -> None:
    """Whether its reader is still there or it is read on in the background."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    page, follower = site.ask(background=background).read_until(4), site.follow()
    if background:
        page.leave()
    assert site.service.stop(NAME) == {}
    if not background:
        assert page.read_all().end == ("error", "stopped")
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)
    assert follower.read_all().end == ("error", "stopped")
    assert site.service.stop("another") == {}


def test_a_failure_is_told_to_all_who_follow(site: Site, emulator: Emulator) -> None:
    """As the first reader was told."""
    emulator.fail("message", Fault.status(429, retry_after=7))
    page = site.ask().read_all()
    assert page.end == ("error", "rate_limited")
    assert site.follow().read_all().events[-1] == page.events[-1]
    assert page.events[-1]["retry_after"] == 7


def test_with_a_cache_that_fails_an_answer_is_read_all_the_same(
    site: Site, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with its reader then, and whoever follows is told that it was cut."""

    def fail(*_: object) -> None:
        raise ConnectionError

    emulator.fail("message", Fault.stall(("after_events", 1)))
    page = site.ask(background=PATIENCE).read_until(4)
    follower = site.follow()
    follower.take()
    monkeypatch.setattr(site.cache, "get", fail)
    follower.take()
    assert follower.read_all().end == ("error", "interrupted")
    page.leave()
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)


def test_a_text_that_the_cache_has_dropped_can_not_be_followed(site: Site, emulator: Emulator) -> None:
    """The page is told that the answer was cut, and finds all of it in the conversation."""
    page = site.ask().read_all()
    site.kept.set("gone", "text", page.events[0]["answer"], 0)
    assert site.follow().read_all().end == ("error", "interrupted")


def test_an_answer_that_a_full_cache_lets_nobody_take_over_is_given_up(
    site: Site, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of being waited for without end."""
    pieces = Pieces(emulator, "one ", "two")
    killed = site.ask().read_until(4)
    page = site.follow(killed.last_id)
    page.take()
    page.take()
    monkeypatch.setattr(site.cache, "add", lambda *_: False)
    site.let_die()
    assert page.read_all().end == ("error", "interrupted")
    pieces.go_on(2)


def test_a_body_that_nobody_reads_lets_go_of_its_answer(site: Site, emulator: Emulator) -> None:
    """As soon as nobody holds it."""
    site.ask()
    collect_garbage()
    site.now += 1
    assert site.kept.take_over(site.kept.find(site.names[NAME].conversation_id)) is not None  # type: ignore[arg-type]
    site.follow().leave()


def test_an_answer_of_a_conversation_that_was_deleted_is_not_found(site: Site) -> None:
    """Nobody has it in the session any more."""
    site.ask().read_all()
    site.service.delete(NAME)
    assert site.service.answer(NAME, None) is None


@pytest.mark.parametrize(
    "event_id, place",
    [
        ("a-b:12", EventPlace("a-b", 12)),
        (None, EventPlace()),
        ("a", EventPlace()),
        ("a:-1", EventPlace()),
        ("a:" + "1" * 10, EventPlace()),
    ],
)
def test_the_id_of_an_event_says_where_the_page_is(event_id: Optional[str], place: EventPlace) -> None:
    """What is none counts as nothing."""
    assert place_of(event_id) == place


def test_a_body_needs_an_answer_of_the_client(site: Site, kind: Any) -> None:
    """Anything else is refused, and leaves nothing to close."""
    site.ask()
    asked = site.kept.find(site.names[NAME].conversation_id)
    assert asked is not None
    with pytest.raises(TypeError, match="Stream"):
        kind(AnswerReading(object(), site.kept.record(asked)), BodyOptions())


def test_a_page_that_leaves_at_the_end_does_not_keep_its_conversation_from_a_name(
    client: Client, emulator: Emulator
) -> None:
    """Many servers cancel what sends when the connection is closed, which many pages do at the last event."""
    emulator.fail("rename", Fault.stall())
    site = Site(client, AsyncPage)

    async def main() -> None:
        run = asyncio.get_running_loop().run_in_executor
        stream = client.stream("Why?")
        await run(None, stream.start)
        body = async_body_of(site.service.reading(stream), BodyOptions())
        while b'"complete"' not in await body.__anext__():
            pass
        ending = asyncio.ensure_future(body.__anext__())
        assert await run(None, emulator.wait_until, lambda: emulator.stalled)
        ending.cancel()
        await run(None, emulator.release)
        with pytest.raises(asyncio.CancelledError):
            await ending
        await body.aclose()  # type: ignore[attr-defined]
        await run(None, wait_until, lambda: not bodies_async._finishing)

    asyncio.run(main())
    (thread,) = emulator.threads.values()
    assert thread.name


def test_without_a_thread_an_answer_ends_with_its_reader(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the system has none to give."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(bodies, "start_thread", refuse)
    site = Site(client, BlockingPage)
    emulator.fail("message", Fault.stall(("after_events", 1)))
    site.ask(background=PATIENCE).read_until(4).leave()
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)


def test_a_thread_that_has_read_on_says_so(client: Client, emulator: Emulator) -> None:
    """To whoever has something to close in it."""
    ended = threading.Event()
    stream = client.stream("Why?")
    stream.start()
    site = Site(client, BlockingPage)
    body = body_of(site.service.reading(stream), BodyOptions(PATIENCE, after=ended.set))
    next(body)
    body.close()  # type: ignore[attr-defined]
    assert ended.wait(PATIENCE)
