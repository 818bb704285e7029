"""``Stream.poll``: the next piece, if it comes in time, for whoever has something else to do."""

import contextlib
import contextvars
import os
import signal
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest
from driven import BODY, HEAD, LAST, chunk, ended, sent, service, silent
from streams import AT_ONCE, COMPLETE, ONE, TWO
from support import PATIENCE, Peer, Server, Worker, fork, nothing_left_open, wait_for, wait_until

from copilot_sync import (
    Client,
    ContentEvent,
    Conversation,
    RequestTimeoutError,
    ServerError,
    Stream,
    StreamClosedError,
    Timeout,
    stream_steps,
)
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.os_threads import ThreadResult
from copilot_sync.stepping import Watch

HELPER = "copilot-sync-stream"
ERROR = b'data: {"type":"error","code":"boom","message":"words"}\n\n'


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one", "two"])) as served:
            yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None) as opened:
        yield opened


def helpers() -> List[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == HELPER]


def polled(stream: Stream, seconds: float = 0.01) -> List[str]:
    """Poll to the end, and return the pieces."""
    return [piece for piece in iter(lambda: stream.poll(seconds), "") if piece is not None]


def until_stalled(stream: Stream, emulator: Emulator) -> None:
    """Poll until the service has the question, and the thread that sent it has ended."""
    wait_until(lambda: stream.poll(0) is None and bool(emulator.stalled))
    wait_until(lambda: stream.poll(0) is None and not helpers())


def test_nothing_is_sent_before_the_first_poll(emulator: Emulator, client: Client) -> None:
    """As with iterating."""
    stream = client.stream("hi")
    assert emulator.requests == []
    assert polled(stream) == ["one", "two"]


def test_the_pieces_come_and_then_nothing_for_ever(client: Client) -> None:
    """The end is no text, and stays the end. The answer is there."""
    stream = client.stream("hi")
    assert polled(stream) == ["one", "two"]
    assert [stream.poll(0), stream.poll(1.0), stream.poll(float("inf"))] == ["", "", ""]
    assert stream.read().text == "onetwo"


@pytest.mark.parametrize("seconds", [10, 10.0, float("inf"), 10**9])
def test_a_poll_waits_no_longer_than_for_the_piece(client: Client, seconds: float) -> None:
    """However long it might."""
    stream = client.stream("hi")
    assert [stream.poll(seconds) for _ in range(3)] == ["one", "two", ""]


@pytest.mark.parametrize("seconds", [None, "1", True, False, b"1"])
def test_seconds_that_are_no_number_are_refused(client: Client, seconds: Any) -> None:
    """With words that name what came. Nothing is sent."""
    with pytest.raises(TypeError, match=f"poll takes a number of seconds, not {type(seconds).__name__}"):
        client.stream("hi").poll(seconds)


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("-inf")])
def test_seconds_below_zero_are_refused(client: Client, seconds: float) -> None:
    """A number that is none too."""
    with pytest.raises(ValueError, match="poll takes a number of seconds, zero at least, not"):
        client.stream("hi").poll(seconds)


def test_there_is_nothing_yet_while_the_service_thinks(emulator: Emulator, client: Client) -> None:
    """Before the head of its reply. No thread waits for it."""
    emulator.fail("message", Fault.stall())
    with client.stream("hi") as stream:
        until_stalled(stream, emulator)
        threads = threading.active_count()
        assert [stream.poll(0.01), stream.poll(0)] == [None, None]
        assert (threading.active_count(), helpers()) == (threads, [])


def test_there_is_nothing_yet_between_two_pieces(emulator: Emulator, client: Client) -> None:
    """What came is in the text."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    with client.stream("hi") as stream:
        assert stream.poll(PATIENCE) == "one"
        assert [stream.poll(0.01), stream.poll(0)] == [None, None]
        assert stream.text == "one"
        wait_until(lambda: not helpers())  # the one that sent the question may need a moment on a busy machine


@pytest.mark.parametrize("fault", [Fault.stall(), Fault.stall(("after_events", 1))], ids=["head", "piece"])
@pytest.mark.parametrize(
    ("timeout", "phase"),
    [
        (Timeout(read=0.2, stall=9), None),
        (Timeout(read=9, total=0.3), "total"),
    ],
    ids=["read", "total"],
)
def test_the_limits_hold(emulator: Emulator, fault: Fault, timeout: Timeout, phase: Any) -> None:
    """Silence ends with the error that iterating ends with."""
    emulator.fail("message", fault)
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None, timeout=timeout) as client:
        stream = client.stream("hi", resume=False)
        with pytest.raises(RequestTimeoutError) as caught:
            polled(stream, 0.02)
    assert caught.value.phase in ((phase,) if phase else ("reply", "read"))
    assert caught.value.partial == stream.text


def test_comments_do_not_count_as_progress() -> None:
    """The service may say for so long that it is alive."""

    def comments(peer: Peer) -> None:
        while not peer.gone.wait(0.02):
            peer.send(chunk(b": waiting\n\n"))

    script = service([[sent(HEAD + chunk(ONE)), comments]], "")
    with Server(script) as server, client_of(server, Timeout(read=5, stall=0.3)) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            polled(client.stream("hi", conversation=conversation(), resume=False))
    assert (caught.value.phase, caught.value.partial) == ("stall", "one")


def test_the_limit_for_connecting_holds() -> None:
    """While a thread connects, too."""
    with Server(lambda peer: peer.wait_closed()) as server:
        url = server.url.replace("http:", "https:")
        timeout = Timeout(connect=0.2)
        with Client("key", api_url=url, retry=None, timeout=timeout) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                polled(client.stream("hi"))
    assert caught.value.phase == "connect"


def client_of(server: Server, timeout: Timeout) -> Client:
    return Client("key", api_url=server.url, github_url=server.url, retry=None, timeout=timeout, model="gpt-4o")


@pytest.mark.parametrize("how", ["poll", "poll_all", "next"])
@pytest.mark.parametrize(
    "before", [HEAD[:20], HEAD, HEAD + chunk(ONE)], ids=["in the head", "after it", "after a piece"]
)
def test_what_came_between_two_polls_is_there_however_late_it_is_taken(how: str, before: bytes) -> None:
    """Whoever polls may do something else meanwhile, for longer than the service may be silent."""
    go_on = threading.Event()

    def rest(peer: Peer) -> None:
        wait_for(go_on)
        peer.send((HEAD + chunk(BODY) + LAST)[len(before) :] if before in HEAD else chunk(TWO + COMPLETE) + LAST)

    script = service([[sent(before), rest]], "")
    with Server(script) as server, client_of(server, Timeout(read=0.3, stall=0.3)) as client:
        stream = client.stream("hi", conversation=conversation())

        def is_asked() -> bool:
            return bool(server.received) and not stream._steps.is_helped

        if how == "poll_all":
            is_silent = ONE not in before
            wait_until(lambda: bool(stream._steps.poll_all(0)) or (is_silent and is_asked()))
        else:
            wait_until(lambda: stream.poll(0) is None and is_asked())
        go_on.set()
        time.sleep(0.4)
        if how == "next":
            assert "".join(stream) in ("onetwo", "two")
        else:
            polled(stream, 1.0)
        assert stream.text == "onetwo"


@pytest.mark.parametrize(
    "timeout, phase, before",
    [
        (Timeout(read=0.3), "reply", b""),
        (Timeout(read=0.3), "read", HEAD + chunk(ONE)),
        (Timeout(read=5, stall=0.3), "stall", HEAD + chunk(ONE)),
    ],
    ids=["before the head", "silence", "no progress"],
)
def test_silence_counts_from_one_poll_to_the_next(timeout: Timeout, phase: str, before: bytes) -> None:
    """Somebody who looks now and then, and never waits, learns of a limit too."""
    script = service([[sent(before) if before else str, Peer.wait_closed]], "")
    with Server(script) as server, client_of(server, timeout) as client:
        stream = client.stream("hi", conversation=conversation(), resume=False)
        with pytest.raises(RequestTimeoutError) as caught:
            for _ in iter(lambda: stream.poll(0), ""):
                time.sleep(0.01)
    assert caught.value.phase == phase


def conversation() -> Conversation:
    known = Conversation("t-1")
    known.message_id = "m-0"
    return known


def test_polling_and_iterating_go_on_from_each_other(emulator: Emulator, client: Client) -> None:
    """And so do all the other ways to read."""
    emulator.reply = Reply(list("abcdef"))
    stream = client.stream("hi")
    stream.poll(0)
    assert stream.start() == stream.conversation
    assert stream.poll(PATIENCE) == "a"
    assert next(stream) == "b"
    event = next(stream.events())
    assert isinstance(event, ContentEvent)
    assert event.body == "c"
    assert stream.poll(PATIENCE) == "d"
    assert stream.read().text == "abcdef"
    assert stream.poll(0) == ""


def test_iterating_waits_for_the_thread_that_helps(emulator: Emulator, client: Client) -> None:
    """What it comes to is not lost."""
    emulator.fail("message", Fault.delay(0.1))
    stream = client.stream("hi")
    wait_until(
        lambda: stream.poll(0) is None and stream.attempts == 1
    )  # so that one sends the question, or has sent it
    assert list(stream) == ["one", "two"]


def test_iterating_goes_on_when_a_thread_has_sent_the_question(emulator: Emulator, client: Client) -> None:
    """What it came to is that there is nothing yet."""
    emulator.fail("message", Fault.stall())
    stream = client.stream("hi", conversation=client.create_thread(), timeout=Timeout(read=0.3))
    client._session.close()  # so that a thread has to connect
    assert stream.poll(0) is None
    wait_until(lambda: bool(emulator.stalled) and not helpers())
    with pytest.raises(RequestTimeoutError):
        next(stream)


class Waiting(Watch):
    """Notes that the next step is to begin."""

    def __init__(self) -> None:
        self.calls = 0

    def call_soon(self) -> None:
        self.calls += 1


def test_nothing_is_watched_while_another_thread_is_about_to_close_the_driver(client: Client) -> None:
    """The next step learns of it. Nor does a thread go on then."""
    stream, watch = client.stream("hi"), Waiting()
    steps = stream._steps
    steps.watched_by(watch)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with steps._inside:
            held.set()
            wait_for(release)

    worker = Worker(hold)
    wait_for(held)
    assert steps.wait()
    assert watch.calls == 1
    with pytest.raises(RuntimeError, match="one thread at a time"):
        steps.step()
    release.set()
    worker.result()


def test_another_thread_closes_the_stream_while_one_polls(emulator: Emulator, client: Client) -> None:
    """The poll ends at once, with an error."""
    emulator.fail("message", Fault.stall())
    stream = client.stream("hi")
    worker = Worker(lambda: stream.poll(float("inf")))
    assert emulator.wait_until(lambda: emulator.stalled)
    stream.close()
    with pytest.raises(StreamClosedError, match="another thread"):
        worker.result()


def test_another_thread_closes_the_stream_while_one_helps() -> None:
    """Whoever polls is told so."""
    with Server(lambda peer: peer.wait_closed()) as server:
        with Client("key", api_url=server.url.replace("http:", "https:"), retry=None) as client:
            stream = client.stream("hi")
            worker = Worker(lambda: stream.poll(float("inf")))
            wait_until(lambda: bool(helpers()))
            stream.close()
            with pytest.raises(StreamClosedError, match="another thread"):
                worker.result()


def test_whoever_polls_after_another_thread_has_closed_the_stream_is_told_so() -> None:
    """Whatever a thread that helps was doing."""
    with Server(lambda peer: peer.wait_closed()) as server:
        with Client("key", api_url=server.url.replace("http:", "https:"), retry=None) as client:
            stream = client.stream("hi")
            assert stream.poll(0) is None
            Worker(stream.close).result()
            with pytest.raises(StreamClosedError, match="another thread"):
                stream.poll(0)
            wait_until(lambda: not helpers())


def test_closing_ends_the_polling_of_its_own_thread_quietly(emulator: Emulator, client: Client) -> None:
    """As it ends iterating, whatever a thread that helps was doing."""
    emulator.fail("thread", Fault.stall())
    stream = client.stream("hi")
    assert stream.poll(0) is None
    wait_until(lambda: bool(emulator.stalled))
    stream.close()
    assert (stream.poll(0), list(stream), stream.closed) == ("", [], True)
    wait_until(lambda: not helpers())


READERS: Dict[str, Callable[[Stream], object]] = {
    "poll": lambda stream: stream.poll(0),
    "next": next,
    "events": lambda stream: next(stream.events()),
    "read": Stream.read,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("stage", ["thread", "message"])
def test_two_threads_can_not_read_at_once(emulator: Emulator, client: Client, stage: str, read: Any) -> None:
    """Neither while the reply is awaited nor while a thread helps. The first one goes on."""
    emulator.fail(stage, Fault.stall())
    stream = client.stream("hi", on_start=bool)  # so that a thread helps for as long as its thread is created
    worker = Worker(lambda: stream.poll(float("inf")))
    wait_until(lambda: bool(emulator.stalled) and (stage == "thread" or not helpers()))
    with pytest.raises(RuntimeError, match="one thread at a time"):
        read(stream)
    assert not worker.ended_within(0.02)
    stream.close()
    with pytest.raises(StreamClosedError):
        worker.result()


def test_a_second_reader_does_not_change_how_the_first_one_waits() -> None:
    """A thread that blocks gets its events and nothing else, however often another one tries to poll."""
    go_on = threading.Event()

    def rest(peer: Peer) -> None:
        wait_for(go_on)
        peer.send(chunk(b": waiting\n\n"))
        peer.gone.wait(0.05)
        peer.send(chunk(TWO + COMPLETE) + LAST)

    first = threading.Event()

    def read() -> Iterator[str]:
        for event in stream.events():
            first.set()
            yield type(event).__name__

    with Server(service([[sent(HEAD + chunk(ONE)), rest]], "")) as server:
        with client_of(server, Timeout(read=PATIENCE)) as client:
            stream = client.stream("hi", conversation=conversation())
            worker = Worker(lambda: list(read()))
            wait_for(first)
            wait_until(lambda: stream._steps._driver.gi_running)
            for _ in range(10):
                with pytest.raises(RuntimeError, match="one thread at a time"):
                    stream.poll(0)
            go_on.set()
            assert worker.result() == ["ContentEvent", "ContentEvent", "CompleteEvent"]


class Interruption(BaseException):
    """Comes out of a handler, as Ctrl-C does."""


@contextlib.contextmanager
def interrupting(when: Any) -> Iterator[None]:
    """Send this thread a signal when something is the case, and raise out of its handler."""

    def handle(number: int, frame: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, handle)
    target = threading.get_ident()

    def send() -> None:
        wait_until(when)
        time.sleep(0.05)  # it makes no difference where it is, but this is where it is most of the time
        signal.pthread_kill(target, signal.SIGUSR1)

    worker = Worker(send)
    try:
        yield
    finally:
        worker.result()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("stage", ["thread", "message"])
def test_an_interrupted_poll_leaves_a_stream_that_can_be_closed(emulator: Emulator, client: Client, stage: str) -> None:
    """Whether a thread helps or none. The connection is let go."""
    emulator.fail(stage, Fault.stall())
    stream = client.stream("hi")
    with pytest.raises(Interruption), interrupting(lambda: emulator.stalled):
        stream.poll(float("inf"))
    stream.close()
    assert stream.poll(0) == ""
    assert emulator.wait_until(lambda: len(emulator.disconnects) == 1)
    wait_until(lambda: not helpers())


def test_a_poll_that_was_interrupted_while_a_thread_helps_goes_on(emulator: Emulator, client: Client) -> None:
    """Nothing of what the thread comes to is lost."""
    emulator.fail("thread", Fault.delay(0.3))
    stream = client.stream("hi", on_start=bool)
    with pytest.raises(Interruption), interrupting(lambda: bool(helpers())):
        stream.poll(float("inf"))
    assert polled(stream) == ["one", "two"]


@pytest.mark.parametrize("fault", [Fault.cut(0), Fault.status(500)], ids=["a piece", "a failure"])
def test_what_a_thread_came_to_is_not_lost_if_an_interruption_had_it_forgotten(
    emulator: Emulator, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its start and the moment from which on the stream knows of it."""
    threads: List[ThreadResult[None]] = []

    def begin(function: Callable[[], None]) -> ThreadResult[None]:
        threads.append(ThreadResult(function))
        if len(threads) == 2:  # the first one sends the question
            assert threads[-1].wait(PATIENCE)
            raise Interruption
        return threads[-1]

    monkeypatch.setattr(stream_steps, "ThreadResult", begin)
    retry = AT_ONCE if fault == Fault.cut(0) else None
    with Client(emulator.api_key, api_url=emulator.api_url, retry=retry) as client:
        conversation = client.create_thread()
        emulator.fail("message", fault)
        stream = client.stream("hi", conversation=conversation)
        with pytest.raises(Interruption):
            polled(stream)
        if retry is not None:
            assert polled(stream) == ["onetwo"]
        else:
            with pytest.raises(ServerError):
                polled(stream)


def test_a_handler_of_a_signal_may_poll_while_a_thread_helps(emulator: Emulator, client: Client) -> None:
    """Which of the two gets what the thread comes to does not matter: neither waits for ever.

    At the moment in which the thread is started, the handler is refused.
    """
    emulator.fail("thread", Fault.delay(0.3))
    stream = client.stream("hi", on_start=bool)
    seen: List[Any] = []

    def handle(*_: object) -> None:
        with contextlib.suppress(RuntimeError):
            seen.append(stream.poll(PATIENCE))

    before = signal.signal(signal.SIGUSR1, handle)
    target = threading.get_ident()

    def is_known() -> bool:
        """Whether the stream knows of its thread. Before that, a handler would be a second reader beside it."""
        return stream._steps._helper is not None

    try:
        worker = Worker(lambda: (wait_until(is_known), signal.pthread_kill(target, signal.SIGUSR1)))
        seen += polled(stream, PATIENCE)
        worker.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted(seen) == ["one", "two"]


_variable: "contextvars.ContextVar[str]" = contextvars.ContextVar("_variable", default="")


def test_what_a_stream_calls_sees_the_context_of_whoever_polls(emulator: Emulator, client: Client) -> None:
    """Although a thread begins the conversation."""
    seen: List[str] = []
    _variable.set("mine")
    stream = client.stream("hi")
    stream._steps._on_start = lambda conversation: seen.append(_variable.get())
    assert polled(stream) == ["one", "two"]
    assert seen == ["mine"]


@pytest.mark.parametrize("point", ["before", "helped", "head", "piece", "end"])
@pytest.mark.parametrize("read", [lambda stream: stream.poll(0.01), lambda stream: next(stream)], ids=["poll", "next"])
def test_a_forked_child_can_not_go_on(emulator: Emulator, client: Client, point: str, read: Any) -> None:
    """The connection is the parent's, who goes on as if nothing had happened. What has ended has ended for both."""
    stage = "thread" if point == "helped" else "message"
    if point in ("helped", "head", "piece"):
        emulator.fail(stage, Fault.stall(("after_events", 1)) if point == "piece" else Fault.stall())
    stream = client.stream("hi")
    if point in ("head", "piece"):
        until_stalled(stream, emulator) if point == "head" else stream.poll(PATIENCE)
    elif point == "helped":
        assert stream.poll(0) is None
        wait_until(lambda: bool(emulator.stalled))
    elif point == "end":
        polled(stream)
    child = fork()
    if child == 0:  # pragma: no cover - in a process of its own
        code = 1
        with contextlib.suppress(BaseException):
            try:
                code = 2 if read(stream) in ("", None) else 3
            except StopIteration:
                code = 2
            except StreamClosedError:
                code = 4
        os._exit(code)
    expected = {"end": [2], "before": [2, 3]}.get(point, [4])
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) in expected
    assert stream.poll(0) == ("" if point == "end" else None)
    stream.close()


@pytest.mark.parametrize("cut", [ended, silent])
def test_an_error_right_behind_pieces_comes_after_them(cut: Any) -> None:
    """Also if all came in one packet, and whoever polls takes all there is."""
    script = service([[sent(HEAD + chunk(ONE + TWO + ERROR)), cut]] * 2, "")
    with Server(script) as server, client_of(server, Timeout(read=PATIENCE)) as client:
        stream = client.stream("hi", conversation=conversation())
        pieces: List[str] = []
        wait_until(lambda: pieces.extend(stream._steps.poll_all(0.01)) or bool(pieces))  # type: ignore[func-returns-value]
        while len(pieces) < 2:  # pragma: no cover - if the packet was torn
            pieces += stream._steps.poll_all(0.01)
        assert pieces == ["one", "two"]
        with pytest.raises(ServerError, match="words"):
            stream._steps.poll_all(PATIENCE)
        stream = client.stream("hi", conversation=conversation())
        assert [stream.poll(PATIENCE), stream.poll(PATIENCE)] == ["one", "two"]
        with pytest.raises(ServerError, match="words"):
            stream.poll(PATIENCE)


def helped(stream: Stream, emulator: Emulator) -> None:
    """Poll until a thread creates the conversation's thread, because somebody is told of it."""
    wait_until(lambda: stream.poll(0) is None and bool(emulator.stalled))
    assert len(helpers()) == 1


def test_iterating_goes_on_with_what_a_thread_came_to(emulator: Emulator, client: Client) -> None:
    """The conversation, here."""
    emulator.fail("thread", Fault.delay(0.2))
    begun: List[object] = []
    stream = client.stream("hi", on_start=begun.append)
    assert stream.poll(0) is None
    assert list(stream) == ["one", "two"]
    assert len(begun) == 1


def test_two_threads_can_not_wait_for_a_thread_that_helps(emulator: Emulator, client: Client) -> None:
    """As they can't read."""
    emulator.fail("thread", Fault.stall())
    stream = client.stream("hi", on_start=bool)
    helped(stream, emulator)
    worker = Worker(lambda: stream.poll(PATIENCE))
    wait_until(lambda: not stream._steps._waiting.acquire(False) or stream._steps._waiting.release())
    with pytest.raises(RuntimeError, match="one thread at a time"):
        stream.poll(0)
    stream.close()
    assert worker.result() == ""  # this thread has read before, and closed it


def test_whoever_closes_can_wait_for_a_thread_that_helps(emulator: Emulator, client: Client) -> None:
    """A moment."""
    emulator.fail("thread", Fault.stall())
    stream = client.stream("hi", on_start=bool)
    helped(stream, emulator)
    stream.close()
    stream._steps.join()
    wait_until(lambda: helpers() == [])
