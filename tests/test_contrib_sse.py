"""Streams as server-sent events for browsers: the same promises for the blocking body and its asynchronous twin."""

import asyncio
import contextlib
import gc
import logging
import platform
import socket
import subprocess
import sys
import threading
import time
import weakref
from typing import Any, Callable, Iterator, List, Optional, Tuple, Type
from wsgiref.simple_server import make_server

import pytest
from loops import KINDS, Run, in_thread, runner
from support import (
    PATIENCE,
    Peer,
    Server,
    Worker,
    collect_garbage,
    events,
    nothing_left_open,
    wait_for,
    wait_until,
)

from copilot_sync import (
    Answer,
    AsyncClient,
    AsyncStream,
    Client,
    Conversation,
    CopilotError,
    RateLimit,
    RateLimitError,
    StreamInterruptedError,
    errors,
)
from copilot_sync.contrib import sse
from copilot_sync.contrib.sse import COMMENT, PREAMBLE, EventStream, error_event, public_message
from copilot_sync.contrib.sse_async import AsyncEventStream
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.stream import Stream
from copilot_sync.stream_steps import READ_AHEAD
from copilot_sync.times import waiting_time
from copilot_sync.transport.body import PIECE

#: Longer than any test, so that no comment comes by chance.
NEVER = 1000.0


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None) as opened:
        yield opened


def blocking(stream: Stream, on_complete: Optional[Callable[[Answer], Any]] = None, heartbeat: float = NEVER) -> bytes:
    """The whole body, as a WSGI server gets it."""
    with EventStream(stream, heartbeat=heartbeat, on_complete=on_complete) as body:
        return b"".join(body)


async def asynchronous(
    stream: Stream, on_complete: Optional[Callable[[Answer], Any]] = None, heartbeat: float = NEVER
) -> bytes:
    """The whole body, as an ASGI server gets it."""

    async def told(answer: Answer) -> None:
        assert on_complete is not None
        on_complete(answer)

    body = AsyncEventStream(stream, heartbeat=heartbeat, on_complete=told if on_complete else None)
    return b"".join([part async for part in body])


Face = Callable[..., bytes]


@pytest.fixture(params=["WSGI", *KINDS])
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Face:
    """How the body is read: by a blocking server, or by one on a loop."""
    if request.param == "WSGI":
        return blocking
    run = runner(request.param, monkeypatch)
    return lambda *args, **options: run(asynchronous(*args, **options))


def test_an_answer_is_its_pieces_and_its_end(client: Client, face: Face) -> None:
    """With all that a page needs to go on."""
    conversation = client.create_thread()
    *pieces, end = events(face(client.stream("hi", conversation=conversation)))
    assert pieces == [{"type": "content", "text": "one "}, {"type": "content", "text": "two"}]
    assert end == {
        "type": "complete",
        "conversation_id": conversation.conversation_id,
        "message_id": conversation.message_id,
        "model": "mai-code-1.1-flash",
        "usage": {"input_tokens": 1, "output_tokens": 2},
        "complete": True,
        "references": [],
    }
    assert end["message_id"]


def test_an_end_that_was_not_announced_is_told(emulator: Emulator, client: Client, face: Face) -> None:
    """A page can say that something may be missing; and an answer without a bill has none."""
    emulator.reply = Reply(["one"], complete=False)
    emulator.fail("messages", Fault.status(404))
    end = events(face(client.stream("hi")))[-1]
    assert (end["type"], end["complete"], end["usage"]) == ("complete", False, None)


@pytest.mark.parametrize(
    "text",
    ["a\nb\r\nc\rd\n\n", "\u2028\u2029\x85\x00", "🎉 ñ 中", "data: x\n\ndata: y", "</script><b>&", "\ufeff"],
    ids=["line ends", "odd line ends", "beyond ASCII", "an event", "markup", "a byte order mark"],
)
def test_every_text_arrives_as_it_is(emulator: Emulator, client: Client, face: Face, text: str) -> None:
    """Nothing in it can end an event or begin one; on the wire it is ASCII."""
    emulator.reply = Reply([text])
    body = face(client.stream("hi"))
    assert [event["text"] for event in events(body)[:-1]] == [text]
    assert body.isascii()


def test_the_first_thing_sent_is_a_comment(client: Client) -> None:
    """It takes the head of the response along, before the service says anything."""
    with EventStream(client.stream("hi")) as body:
        assert next(body) == PREAMBLE
        assert PREAMBLE.startswith(b":")


def test_the_headers_keep_others_from_holding_it_back() -> None:
    """Caches, nginx, and middleware that compresses."""
    assert dict(sse.HEADERS) == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",
        "Content-Encoding": "identity",
    }


def test_who_waits_for_the_end_is_told_before_the_page(client: Client, face: Face) -> None:
    """So that what is kept for the next question is there when the page asks it."""
    told: List[Answer] = []
    body = face(client.stream("hi"), told.append)
    assert [answer.text for answer in told] == ["one two"]
    assert events(body)[-1]["message_id"] == told[0].message_id


def test_who_waits_for_the_end_is_told_in_the_thread_that_iterates(client: Client) -> None:
    """A framework's connections belong to that one."""
    told: List[int] = []
    blocking(client.stream("hi"), lambda answer: told.append(threading.get_ident()))
    assert told == [threading.get_ident()]


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, OSError, errors.ServerError, StopIteration], ids=lambda e: e.__name__
)
def test_a_failure_to_keep_the_answer_is_logged_and_told(
    client: Client, face: Face, error: Type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is there, and so is what a page needs to go on; but it is not told that all is well, nor why not."""
    answers: List[Answer] = []

    def fail(answer: Answer) -> None:
        answers.append(answer)
        raise error("planted words")

    body = face(client.stream("hi"), fail)
    *pieces, end = events(body)
    assert "".join(piece["text"] for piece in pieces) == "one two"
    assert (end["type"], end["code"], end["complete"]) == ("error", "not_kept", True)
    assert end["message_id"] == answers[0].message_id
    assert end["conversation_id"] == answers[0].conversation.conversation_id
    assert b"planted" not in body
    (record,) = (each for each in caplog.records if each.name == "copilot_sync.contrib.sse")
    assert record.levelname == "ERROR"
    assert "planted words" in logging.Formatter().format(record)


def test_what_ends_a_program_gets_through_a_failure_to_keep(client: Client) -> None:
    """Only an ``Exception`` is a failure of what keeps answers."""

    def leave(answer: Answer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blocking(client.stream("hi"), leave)


ERRORS = [
    (errors.MissingCredentialsError, "not_configured"),
    (errors.AuthenticationError, "not_authorized"),
    (errors.PermissionDeniedError, "not_permitted"),
    (errors.WrongHostError, "not_configured"),
    (errors.ModelNotAvailableError, "model_not_available"),
    (errors.InvalidRequestError, "invalid_request"),
    (errors.NotFoundError, "not_found"),
    (errors.QuotaExceededError, "quota_exceeded"),
    (errors.RateLimitError, "rate_limited"),
    (errors.BudgetExceededError, "quota_exceeded"),
    (errors.RequestTimeoutError, "timeout"),
    (errors.NetworkError, "unreachable"),
    (errors.ServerError, "unavailable"),
    (errors.StreamInterruptedError, "interrupted"),
    (errors.InvalidAnswerError, "invalid_answer"),
    (errors.StreamClosedError, "stopped"),
    (errors.ProtocolError, "failed"),
    (errors.ResponseTooLargeError, "failed"),
    (errors.CopilotError, "failed"),
]


@pytest.mark.parametrize("kind, code", ERRORS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_kind_of_error_has_its_words(kind: Any, code: str) -> None:
    """They are for people, and hold nothing of what the error says."""
    error = kind("planted", stage="planted", partial="planted")
    words = public_message(error)
    assert words.code == code
    assert words.message.endswith(".")
    assert b"planted" not in error_event(error)


def test_the_table_of_errors_is_whole() -> None:
    """A new kind is given its words on purpose."""
    family = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CopilotError)}
    assert {kind for kind, _ in ERRORS} == family


@pytest.mark.parametrize(
    "stage, fault, code",
    [
        ("message", Fault.status(500, message="planted"), "unavailable"),
        ("message", Fault.status(401, message="planted"), "not_authorized"),
        ("message", Fault.status(429, message="planted", retry_after=30), "rate_limited"),
        ("thread", Fault.status(422, message="planted"), "invalid_request"),
        ("message", Fault.cut(1), "interrupted"),
    ],
    ids=["a status", "a refusal", "a limit", "no thread", "a cut"],
)
def test_an_error_ends_the_response_with_an_event(
    emulator: Emulator,
    client: Client,
    face: Face,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    fault: Fault,
    code: str,
) -> None:
    """The page is told its kind alone; the log has the words and the traceback."""
    emulator.fail(stage, fault)
    with caplog.at_level(logging.ERROR):
        body = face(client.stream("hi", resume=False))
    last = events(body)[-1]
    assert (last["type"], last["code"]) == ("error", code)
    assert b"planted" not in body
    assert b"Traceback" not in body
    assert last.get("retry_after") == (30 if code == "rate_limited" else None)
    assert ("conversation_id" in last) == (code in ("unavailable", "interrupted"))  # a refusal leaves none
    (record,) = caplog.records
    text = logging.Formatter().format(record)
    assert "an answer for a page failed" in text
    assert "Traceback" in text
    assert emulator.api_key not in text
    assert "planted" in text or code == "interrupted"


def test_an_error_in_the_answer_follows_what_had_come(emulator: Emulator, client: Client, face: Face) -> None:
    """The pieces before it are not lost."""
    emulator.reply = Reply(["one", "two"], error="planted")
    body = face(client.stream("hi"))
    assert [event["type"] for event in events(body)] == ["content", "content", "error"]
    assert b"planted" not in body


def test_a_client_that_is_closed_ends_its_pages(emulator: Emulator, client: Client, face: Face) -> None:
    """As when a program ends: the page is told."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    reading = Worker(lambda: face(client.stream("hi")))
    assert emulator.wait_until(lambda: emulator.stalled)
    client.close()
    assert events(reading.result())[-1]["code"] == "stopped"


def test_an_error_that_is_none_of_ours_comes_out(client: Client, face: Face) -> None:
    """It is a defect, and the server's to report."""

    def fail(conversation: Conversation) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        face(client.stream("hi", on_start=fail))


def test_a_stream_that_closes_itself_just_ends(client: Client, face: Face) -> None:
    """There is neither an answer nor an error to tell of."""
    stream: Any = None

    def close(conversation: Conversation) -> None:
        stream.close()

    stream = client.stream("hi", on_start=close)
    assert face(stream) == PREAMBLE


@pytest.mark.usefixtures("_three_comments")
def test_comments_come_while_nothing_else_does(client: Client, face: Face) -> None:
    """Until the answer goes on. They are none of its events."""
    body = face(client.stream("hi"), heartbeat=0.02)
    assert body.count(COMMENT) >= 3
    assert [event["type"] for event in events(body)] == ["content", "content", "complete"]


def test_a_heartbeat_is_two_comments_and_begins_anew_with_each_piece() -> None:
    """The second finds out that the client has gone, within a second of the first."""
    waits = sse.HeartbeatTimer(10.0)
    assert [waits.next_wait() for _ in range(4)] == [10.0, sse.PROBE_DELAY, 10.0, sse.PROBE_DELAY]
    waits.next_wait()
    waits.reset()
    assert waits.next_wait() == 10.0
    assert sse.PROBE_DELAY < 1
    short = sse.HeartbeatTimer(0.1)
    assert [short.next_wait(), short.next_wait()] == [0.1, 0.1]


@pytest.fixture
def told_to_wait(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a page has been told to wait. Whether a question waits is looked at all the time."""
    told, encode = threading.Event(), sse._encode

    def encoded(data: Any) -> str:
        if data["type"] == "waiting":
            told.set()
        return encode(data)

    monkeypatch.setattr(sse, "_encode", encoded)
    monkeypatch.setattr(sse, "LOOK", 0.01)
    return told


def test_a_page_is_told_that_its_question_waits_for_another_one(
    emulator: Emulator, face: Face, told_to_wait: threading.Event
) -> None:
    """For how long, nobody knows. It goes on when that one has ended."""
    limit = RateLimit(concurrency=1)
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None, rate_limit=limit) as client:
        with client.stream("first") as first:
            first.start()
            reading = Worker(lambda: face(client.stream("second")))
            assert told_to_wait.wait(PATIENCE)
        waiting, *_, end = events(reading.result())
    words = "There are many questions at the moment. Yours is sent as soon as another one has been answered."
    assert waiting == {"type": "waiting", "reason": "limit", "seconds": None, "message": words}
    assert end["type"] == "complete"


def test_a_page_is_told_how_long_its_question_waits_for_the_pace(
    emulator: Emulator, face: Face, told_to_wait: threading.Event
) -> None:
    """As long as nobody closes it."""
    limit = RateLimit(per_minute=1)
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None, rate_limit=limit) as client:
        client.ask("first")
        reading = Worker(lambda: face(client.stream("second")))
        assert told_to_wait.wait(PATIENCE)
        client.close()
        waiting = events(reading.result())[0]
    assert (waiting["type"], waiting["reason"]) == ("waiting", "limit")
    assert 0 < waiting["seconds"] <= 62
    assert waiting["message"].endswith(f"Yours is sent in {waiting_time(waiting['seconds'])}.")


def test_a_page_is_told_that_its_question_waits_for_the_service(
    emulator: Emulator, face: Face, told_to_wait: threading.Event
) -> None:
    """Which has asked an earlier one for a pause."""
    emulator.fail("thread", Fault.status(429, retry_after=1))
    with Client(emulator.api_key, api_url=emulator.api_url) as client:
        with pytest.raises(RateLimitError):
            client.stream("first", retry=None).read()
        told = events(face(client.stream("second")))
    waits = [event for event in told if event["type"] == "waiting"]
    assert {event["reason"] for event in waits} == {"service"}
    assert all(0 <= event["seconds"] <= PATIENCE for event in waits)
    assert waits[0]["message"].startswith("The service is busy at the moment. Yours is sent in ")
    assert [event["type"] for event in told if event not in waits] == ["content", "content", "complete"]


def test_who_does_not_wait_is_not_told_to(client: Client) -> None:
    """Nor is it looked while an answer is under way: a page without an end has a heartbeat, no more."""
    stream = client.stream("hi")
    assert sse.waiting_event(stream) is None
    assert [round(each, 1) for each in sse.looks(stream, 5.0)] == [2.0, 2.0, 1.0]
    stream.read()
    assert list(sse.looks(stream, 5.0)) == [5.0]


def test_what_is_sent_begins_the_heartbeat_anew(
    emulator: Emulator, client: Client, face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece tells as much of a client as a comment does."""
    called: List[str] = []
    monkeypatch.setattr(sse.HeartbeatTimer, "reset", lambda self: called.append("piece"))
    emulator.fail("message", Fault.stall(("after_events", 1), seconds=0.1))
    assert len(events(face(client.stream("hi")))) == 3
    assert called == ["piece", "piece"]


def test_what_is_no_stream_of_a_client_is_refused(emulator: Emulator) -> None:
    """At once, and by its name. Nothing else complains when the body is freed."""
    stream = AsyncClient(emulator.api_key, api_url=emulator.api_url).stream("hi")
    for body, given, name in (
        (EventStream, stream, "AsyncStream"),
        (EventStream, "x", "str"),
        (AsyncEventStream, 5, "int"),
    ):
        make: Any = body
        with pytest.raises(TypeError, match=f"stream must be a Stream, as Client.stream returns, not {name}"):
            make(given)
    assert emulator.requests == []


@pytest.mark.parametrize("started", [False, True])
def test_the_stream_of_an_asynchronous_client_is_sent_too(emulator: Emulator, run: Run, started: bool) -> None:
    """Nobody else holds it, and its conversation may be known. The client ends it as any other."""

    async def main() -> None:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url) as client:
            sent: List[Any] = []
            body = AsyncEventStream(await stream_of(client, started))
            collect_garbage()
            async for piece in body:
                sent += events(piece)
            assert [event.get("text") for event in sent] == ["one ", "two", None]
            emulator.fail("message", Fault.stall(("after_events", 1)))
            body = AsyncEventStream(await stream_of(client, started))
            assert await body.__anext__() == PREAMBLE
            assert await body.__anext__() != COMMENT
            waiting = asyncio.ensure_future(body.__anext__())
            await in_thread(emulator.wait_until, lambda: emulator.stalled)
            client.close()
            assert events(await waiting)[0]["code"] == "stopped"

    run(main())


async def stream_of(client: AsyncClient, started: bool) -> AsyncStream:
    stream = client.stream("hi")
    if started:
        await stream.start()
    return stream


def test_an_asynchronous_stream_that_was_read_from_is_refused(emulator: Emulator, run: Run) -> None:
    """Its reader has read ahead."""

    async def main() -> None:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url) as client:
            stream = client.stream("hi")
            assert await stream.__anext__() == "one "
            with pytest.raises(ValueError, match="has been read from"):
                AsyncEventStream(stream)

    run(main())


@pytest.mark.parametrize("body", [EventStream, AsyncEventStream])
@pytest.mark.parametrize(
    "heartbeat, error", [(0, ValueError), (-1.5, ValueError), (True, TypeError), ("5", TypeError), (None, TypeError)]
)
def test_a_heartbeat_is_a_number_of_seconds(client: Client, body: Any, heartbeat: Any, error: Any) -> None:
    """Anything else is told before anything is sent."""
    with pytest.raises(error, match="heartbeat must be a number of seconds"):
        body(client.stream("hi"), heartbeat=heartbeat)


def test_closing_ends_everything_at_once(emulator: Emulator, client: Client) -> None:
    """The thread, the iteration, and the connection to the service."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    threads = threading.active_count()
    body = EventStream(client.stream("hi"))
    assert (next(body), events(next(body))) == (PREAMBLE, [{"type": "content", "text": "one "}])
    assert emulator.wait_until(lambda: emulator.stalled)
    begun = time.monotonic()
    body.close()
    body.close()
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert time.monotonic() - begun < 5
    wait_until(lambda: threading.active_count() <= threads + 1)  # the emulator's own
    assert list(body) == []


def test_closing_before_anything_was_asked_for_sends_nothing(emulator: Emulator, client: Client) -> None:
    """And there was never a thread."""
    body = EventStream(client.stream("hi"))
    body.close()
    assert list(body) == []
    assert emulator.requests == []


def test_closing_from_another_thread_ends_the_one_that_waits(emulator: Emulator, client: Client) -> None:
    """The page is not told that anything went wrong."""
    emulator.fail("message", Fault.stall())
    body = EventStream(client.stream("hi"), heartbeat=NEVER)
    reading = Worker(lambda: list(body))
    assert emulator.wait_until(lambda: emulator.stalled)
    body.close()
    assert reading.result() == [PREAMBLE]


@pytest.mark.parametrize("stage", ["thread", "message"])
def test_garbage_collection_closes(emulator: Emulator, client: Client, stage: str) -> None:
    """A server that forgets to close holds no connection, and the thread that helps it does not hold the body."""
    emulator.fail(stage, Fault.stall())
    body = EventStream(client.stream("hi"), heartbeat=0.05)
    assert next(body) == PREAMBLE
    while not emulator.stalled:
        assert next(body) == COMMENT
    del body
    collect_garbage()
    assert emulator.wait_until(lambda: emulator.disconnects)


def test_a_failure_that_was_dealt_with_is_freed(client: Client) -> None:
    """With all that its frames hold, such as the request of a page; on CPython that needs no garbage collection."""
    raised: List[Callable[[], object]] = []

    class PageError(Exception):
        def __init__(self) -> None:
            raised.append(weakref.ref(self))

    def fail(conversation: Conversation) -> None:
        raise PageError

    async def main() -> None:
        with contextlib.suppress(PageError):
            [part async for part in AsyncEventStream(client.stream("hi", on_start=fail))]

    gc.disable()
    try:
        with contextlib.suppress(PageError):
            list(EventStream(client.stream("hi", on_start=fail)))
        asyncio.run(main())
        if platform.python_implementation() != "CPython":  # pragma: no cover - only there it needs a collection
            collect_garbage()
        assert [error() for error in raised] == [None, None]
    finally:
        gc.enable()


class Torrent:
    """A service that sends without an end, for as long as somebody takes it, and says when nobody does."""

    EVENT = b'data: {"type":"content","body":"%s"}\n\n' % (b"x" * 4096)

    def __init__(self) -> None:
        self.blocked = threading.Event()

    def __call__(self, peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while not peer.gone.is_set() and peer.can_send(0.2):
            peer.send(self.EVENT)
        self.blocked.set()
        peer.wait_closed()


@pytest.fixture
def torrent() -> Iterator[Tuple[Torrent, Server, Stream]]:
    """A stream of such a service."""
    script = Torrent()
    with nothing_left_open(), Server(script) as server, Client("key", api_url=server.url) as client:
        yield script, server, client.stream("hi", conversation="t-1", parent_message_id="root")


def test_a_client_that_falls_behind_holds_the_service_back(torrent: Tuple[Torrent, Server, Stream]) -> None:
    """No more is read than goes out; closing ends everything at once."""
    script, server, stream = torrent
    body = EventStream(stream)
    assert next(body) == PREAMBLE
    first = events(next(body))
    assert {event["type"] for event in first} == {"content"}
    wait_for(script.blocked)
    assert len(stream.text) == sum(len(event["text"]) for event in first)
    body.close()
    wait_for(server.peer_closed)
    assert list(body) == []


def test_a_client_that_has_gone_is_noticed_by_the_heartbeat(emulator: Emulator, client: Client) -> None:
    """Under a plain WSGI server, whose only way to notice is to write."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    heartbeat = 0.5

    def application(environ: Any, start_response: Any) -> EventStream:
        start_response("200 OK", list(sse.HEADERS.items()))
        return EventStream(client.stream("hi"), heartbeat=heartbeat)

    with make_server("127.0.0.1", 0, application) as server:
        serving = Worker(server.handle_request)
        with socket.create_connection(server.server_address[:2], timeout=PATIENCE) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            received = b""
            while b"one" not in received:
                received += sock.recv(65536)
        gone = time.monotonic()
        assert emulator.wait_until(lambda: emulator.disconnects)
        assert emulator.disconnects[0].time - gone < heartbeat + 1
        serving.result()


async def begun(client: Client, emulator: Emulator) -> AsyncEventStream:
    """A body that waits for a service which has fallen silent."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    body = AsyncEventStream(client.stream("hi"), heartbeat=NEVER)
    assert await body.__anext__() == PREAMBLE
    assert events(await body.__anext__()) == [{"type": "content", "text": "one "}]
    return body


@pytest.mark.parametrize("end", ["aclose", "close", "cancel", "close elsewhere", "forget"])
def test_the_asynchronous_one_ends_at_once_too(emulator: Emulator, client: Client, run: Run, end: str) -> None:
    """Whichever way: the connection goes, the thread ends, and nothing is reported as lost."""
    reported: List[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        body: Any = await begun(client, emulator)
        waiting = asyncio.ensure_future(body.__anext__())
        await asyncio.sleep(0)
        if end == "cancel":
            waiting.cancel()
        elif end == "close elsewhere":
            await in_thread(body.close)
        elif end != "forget":
            await asyncio.gather(waiting, begin(body, end), return_exceptions=True)
        if end == "forget":
            waiting.cancel()
            await asyncio.wait({waiting})
            del body
            gc.collect()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
            await waiting
        del waiting
        seen = await in_thread(emulator.wait_until, lambda: emulator.disconnects)
        assert seen, "the service still sees the connection"

    run(main())
    collect_garbage()
    assert len(emulator.disconnects) == 1
    assert reported == []


def test_the_asynchronous_one_holds_the_service_back_too(torrent: Tuple[Torrent, Server, Stream], run: Run) -> None:
    """It reads so many pieces ahead, and what the turn brings that reads the last. Closing ends everything at once."""
    script, server, stream = torrent

    async def main() -> None:
        body = AsyncEventStream(stream)
        assert await body.__anext__() == PREAMBLE
        first = events(await body.__anext__())
        await in_thread(wait_for, script.blocked)
        assert len(first) <= len(stream.text) / 4096 <= len(first) + READ_AHEAD + 2 * PIECE / 4096
        body.close()
        await in_thread(wait_for, server.peer_closed)
        with pytest.raises(StopAsyncIteration):
            await body.__anext__()

    run(main())


def test_an_error_that_closing_caused_is_no_event(emulator: Emulator, client: Client, run: Run) -> None:
    """Nobody reads any more."""

    async def main() -> None:
        body = await begun(client, emulator)
        waiting = asyncio.ensure_future(body.__anext__())
        await in_thread(emulator.wait_until, lambda: emulator.stalled)
        body.close()
        with pytest.raises(StopAsyncIteration):
            await waiting

    run(main())


def test_an_error_that_came_just_before_closing_is_no_event(client: Client) -> None:
    """Whoever waits goes on a moment after the error was met, and the page may be closed in between."""
    body = AsyncEventStream(client.stream("hi"), heartbeat=NEVER)
    body.close()
    with pytest.raises(StopAsyncIteration):
        body._failed(StreamInterruptedError("cut"))


async def begin(body: AsyncEventStream, end: str) -> None:
    """Close it in this way."""
    if end == "close":
        body.close()
    else:
        await body.aclose()


@pytest.mark.parametrize("module", ["copilot_sync.contrib.sse", "copilot_sync.contrib.lazy_client"])
def test_the_blocking_one_loads_nothing_of_asyncio(module: str) -> None:
    """Nor any framework: it works where there is none."""
    look = f"import {module}, sys; print(*{{'asyncio', 'django', 'flask'}} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", look], stdout=subprocess.PIPE, check=True).stdout
    assert loaded.strip() == b""
