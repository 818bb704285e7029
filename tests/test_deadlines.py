"""How long a call may take: silence, the whole of it, and what the error says."""

import contextlib
import itertools
import pickle
import socket
import threading
import time
from typing import Any, Callable, Iterator, List, Optional

import pytest
from loops import Read
from support import PATIENCE, Peer, Server, answering

from copilot_sync import (
    Client,
    CopilotError,
    NetworkError,
    RequestTimeoutError,
    ResponseTooLargeError,
    RetryPolicy,
    ServerError,
    StreamInterruptedError,
    Timeout,
)
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.settings import Limits

#: A limit that is reached, and one that is not. Between two steps of one call a busy machine may take 0.2 s.
SHORT, LONG = 0.4, 20.0
READ, TOTAL = Timeout(read=SHORT), Timeout(read=LONG, total=SHORT)
STALL = Timeout(read=LONG, stall=SHORT)
# For what has to get through earlier stages first, which takes a busy machine a while.
TOTAL_OF_ALL = Timeout(read=LONG, total=3 * SHORT)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
ONE = b'data: {"type":"content","body":"one"}\n\n'


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(reply=Reply(["one", "two"])) as served:
        yield served


def client_of(emulator: Emulator, timeout: Timeout, **options: Any) -> Client:
    options = {"retry": None, "resume": False, **options}
    urls = emulator.github_url, emulator.api_url
    return Client(cookies=emulator.cookies, timeout=timeout, github_url=urls[0], api_url=urls[1], **options)


@pytest.mark.parametrize(
    "asked, fault, timeout, phase, stage",
    [
        pytest.param("token", Fault.stall(), READ, "reply", "token", id="before the token's head"),
        pytest.param("token", Fault.stall(("after_events", 0)), READ, "read", "token", id="in the token"),
        pytest.param("thread", Fault.stall(), READ, "reply", "thread", id="before the thread's head"),
        pytest.param("message", Fault.stall(), READ, "reply", "message", id="before the answer's head"),
        pytest.param("message", Fault.stall("in_headers"), READ, "reply", "message", id="in the answer's head"),
        pytest.param("message", Fault.stall(("after_events", 0)), READ, "read", "stream", id="before the first piece"),
        pytest.param("message", Fault.stall(("after_events", 1)), READ, "read", "stream", id="between two pieces"),
        pytest.param(
            "message", Fault.stall(("after_events", 1), mid_event=True), READ, "read", "stream", id="inside an event"
        ),
        pytest.param("token", Fault.stall(), TOTAL, "total", "token", id="total, before the token's head"),
        pytest.param("message", Fault.stall(), TOTAL_OF_ALL, "total", "message", id="total, before the answer's head"),
        pytest.param(
            "message", Fault.stall(("after_events", 1)), TOTAL_OF_ALL, "total", "stream", id="total, between pieces"
        ),
    ],
)
def test_silence_ends_a_call_wherever_it_is(
    emulator: Emulator, asked: str, fault: Fault, timeout: Timeout, phase: str, stage: str
) -> None:
    """The error says what was waited for, for how long, at which stage and request, and what had come."""
    emulator.fail(asked, fault)
    with client_of(emulator, timeout) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            client.ask("hi")
    seconds = timeout.total or timeout.read
    # It pickles, for queues and pools, with all that it says.
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.phase, error.seconds, error.stage, error.attempts) == (phase, seconds, stage, 1)
        assert error.partial == ("one" if fault.after_events else "")
        assert f"{seconds:g} s" in str(error)
        assert isinstance(error, TimeoutError) and isinstance(error, NetworkError)


@pytest.mark.parametrize(
    "limit, phase", [(READ, "read"), (STALL, "stall"), (TOTAL_OF_ALL, "total")], ids=["read", "stall", "total"]
)
def test_a_task_meets_the_same_limits(emulator: Emulator, read: Read, limit: Timeout, phase: str) -> None:
    """The async face raises the very error, on any loop."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    with client_of(emulator, limit) as client:
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError) as caught:
            read(client.stream("hi"))
        assert time.monotonic() - began < LONG / 2
    assert (caught.value.phase, caught.value.partial) == (phase, "one")


def test_comments_are_no_silence_and_no_progress(emulator: Emulator) -> None:
    """A stream that is only kept alive ends at ``stall``, in words of its own."""
    emulator.script(Reply(["one", "two"], comments=0.02))
    emulator.fail("message", Fault.stall(("after_events", 1)))
    with client_of(emulator, Timeout(read=SHORT / 2, stall=2 * SHORT)) as client:
        with pytest.raises(RequestTimeoutError, match="came no further for 0.8 s, though") as caught:
            client.ask("hi")
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.phase, error.seconds, error.stage, error.partial) == ("stall", 2 * SHORT, "stream", "one")


@pytest.mark.parametrize("before", [0, 1], ids=["before the first piece", "between two pieces"])
def test_a_service_that_thinks_is_waited_for_while_it_is_alive(emulator: Emulator, before: int) -> None:
    """Comments keep a call alive for longer than it may be silent, and then the answer goes on."""

    def pieces() -> Iterator[Any]:
        yield from ["one"][:before]
        for _ in range(8):
            time.sleep(SHORT / 4)
            yield b": thinking\n\n"
        yield "two"

    emulator.script(Reply(pieces()))
    with client_of(emulator, READ) as client:
        assert client.ask("hi").text == ["two", "onetwo"][before]


@pytest.mark.parametrize("resume, expected", [(True, "onetwo"), (False, None)], ids=["looked up", "not looked up"])
def test_an_answer_that_stalls_is_cut(emulator: Emulator, resume: bool, expected: Optional[str]) -> None:
    """As one that fell silent is: its rest is fetched, or the error has what had come."""
    emulator.script(Reply(["one", "two"], comments=0.02))
    emulator.fail("message", Fault.stall(("after_events", 1)))
    with client_of(emulator, STALL, resume=resume) as client:
        stream = client.stream("hi")
        assert next(stream) == "one"
        if expected is None:
            with pytest.raises(RequestTimeoutError):
                stream.read()
        else:
            assert stream.read().text == expected


EVENTS = [
    pytest.param(b'data: {"type":"thinking","body":"hm"}\n\n', id="unknown events"),
    pytest.param(b'data: {"type":"content","body":""}\n\n', id="empty content"),
    pytest.param(b"data: {nonsense\n\n", id="events that can't be read"),
    pytest.param(b": x\n\n", id="comments"),
    pytest.param(b"\n\n", id="blank lines"),
]


@pytest.mark.parametrize("event", EVENTS)
def test_events_without_text_are_no_progress(event: bytes) -> None:
    """Whatever else a service says, the answer has to go on."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(HEAD + ONE)
        while not over.wait(0.01):
            peer.send(event)

    with Server(script) as server:
        with Client("key", api_url=server.url, timeout=STALL, retry=None, resume=False) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                client.ask("hi", conversation="t-1", parent_message_id="root")
        over.set()
    assert (caught.value.phase, caught.value.partial) == ("stall", "one")


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("begun", [True, False], ids=["behind text", "before any"])
def test_a_flood_of_events_without_text_is_bounded_in_bytes(event: bytes, begun: bool) -> None:
    """Without any limit of time as well."""
    limits = Limits(event=100_000, answer=60_000)
    script = flooding(HEAD + (ONE if begun else b""), event * (10_000 // len(event)))
    with Server(script) as server:
        with Client("key", api_url=server.url, limits=limits, retry=None, resume=False) as client:
            with pytest.raises(ResponseTooLargeError, match="100000 bytes came without any text") as caught:
                client.ask("hi", conversation="t", parent_message_id="root")
    assert (caught.value.partial, caught.value.stage) == ("one" if begun else "", "stream")


def test_what_lies_between_two_pieces_of_text_is_counted_for_itself() -> None:
    """A long answer with much around its text is no flood."""
    around = b": " + b"x" * 400 + b"\n\n"
    body = (around + ONE + around) * 20 + b"data: [DONE]\n\n"
    script = answering(HEAD.replace(b"Connection: close", b"Content-Length: %d" % len(body)) + body)
    with Server(script) as server:
        with Client("key", api_url=server.url, limits=Limits(event=100_000, answer=100), retry=None) as client:
            assert client.ask("hi", conversation="t", parent_message_id="root").text == "one" * 20


def test_a_reply_that_drips_is_given_up(emulator: Emulator) -> None:
    """A thread's id, a list, a token: each has to be there within ``stall``."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{")
        while not over.wait(0.01):
            peer.send(b" ")

    with Server(script) as server:
        with Client("key", api_url=server.url, timeout=STALL, retry=None) as client:
            for ask in (
                client.models,
                client.threads,
                client.create_thread,
                lambda: client.ask("hi", conversation="t", parent_message_id="root"),
            ):
                with pytest.raises(RequestTimeoutError) as caught:
                    ask()
                assert caught.value.phase == "stall"
        over.set()


def test_an_error_that_drips_hides_no_status() -> None:
    """Its words are waited for a moment, and its status is told."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99999\r\n\r\nNot you")
        while not over.wait(0.01):
            peer.send(b" ")

    with Server(script) as server, Client("key", api_url=server.url, retry=None) as client:
        with pytest.raises(CopilotError, match="Not you") as caught:
            client.models()
        over.set()
    assert caught.value.status == 403


def test_content_that_drips_for_ever_ends_at_total(emulator: Emulator) -> None:
    """Each piece comes in time, but the call as a whole does not end."""
    emulator.script(Reply(itertools.repeat("x"), pace=0.01))
    pieces: List[str] = []
    with client_of(emulator, TOTAL_OF_ALL) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            pieces.extend(client.stream("hi"))
    assert (caught.value.phase, caught.value.stage) == ("total", "stream")
    assert caught.value.partial.strip("x") == "" != caught.value.partial


@pytest.mark.parametrize(
    "beginning, drip, timeout, phase, partial",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", READ, "reply", "", id="a head"),
        pytest.param(HEAD + ONE, b":", STALL, "stall", "one", id="one long comment"),
        pytest.param(HEAD + ONE + b"data: ", b"x", STALL, "stall", "one", id="one long event"),
        pytest.param(HEAD + ONE + b"data: ", b"x", TOTAL_OF_ALL, "total", "one", id="an endless event"),
    ],
)
def test_bytes_that_drip_do_not_hold_a_call_up(
    beginning: bytes, drip: bytes, timeout: Timeout, phase: str, partial: str
) -> None:
    """What brings the answer no further ends at ``stall``; what does is bounded by ``total``."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(beginning)
        while not over.wait(0.01):
            peer.send(drip)

    with Server(script) as server:
        try:
            with Client("key", api_url=server.url, timeout=timeout, retry=None, resume=False) as client:
                with pytest.raises(RequestTimeoutError) as caught:
                    client.ask("hi", conversation="t-1", parent_message_id="root")
        finally:
            over.set()
    assert (caught.value.phase, caught.value.partial) == (phase, partial)


def test_a_long_answer_is_not_silence(emulator: Emulator) -> None:
    """``read`` is the time between two pieces, not that of all of them."""
    emulator.script(Reply(list("abcdefgh"), pace=SHORT / 4))
    with client_of(emulator, READ) as client:
        assert client.ask("hi").text == "abcdefgh"


def test_a_consumer_that_takes_its_time_is_not_silence(emulator: Emulator, read: Read) -> None:
    """The time between two pieces begins when the next one is asked for."""
    gate = threading.Event()

    def pieces() -> Iterator[str]:
        yield "one"
        gate.wait(PATIENCE)
        yield "two"

    emulator.script(Reply(pieces()))
    limit = Timeout(read=SHORT, stall=SHORT)
    with client_of(emulator, limit) as client, client.stream("hi") as stream:
        assert stream.start()
        time.sleep(1.5 * SHORT)  # before the message is sent
        assert next(stream) == "one"
        time.sleep(1.5 * SHORT)  # between two pieces
        gate.set()
        assert read(stream) == ["two"]


def test_a_consumer_of_events_that_takes_its_time_is_no_stall(emulator: Emulator) -> None:
    """Also at an event that is no piece of the answer."""
    gate = threading.Event()

    def pieces() -> Iterator[Any]:
        yield {"type": "thinking"}
        gate.wait(PATIENCE)
        yield "two"

    emulator.script(Reply(pieces()))
    with client_of(emulator, Timeout(read=SHORT, stall=SHORT)) as client, client.stream("hi", model="gpt-4o") as stream:
        events = stream.events()
        assert next(events).type == "thinking"
        time.sleep(1.5 * SHORT)
        gate.set()
        assert [event.type for event in events] == ["content", "complete"]


@contextlib.contextmanager
def full_queue() -> Iterator[str]:
    """A port at which connections are never made."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """A port at which connections are made, and nothing is read or said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "place, scheme, size, timeout, phase, sent",
    [
        pytest.param(full_queue, "http", 1, Timeout(connect=SHORT), "connect", False, id="connecting"),
        pytest.param(deaf, "https", 1, Timeout(connect=SHORT), "connect", False, id="TLS"),
        pytest.param(deaf, "http", 30_000_000, READ, "send", True, id="sending"),
        pytest.param(deaf, "http", 1, READ, "reply", True, id="waiting"),
        pytest.param(full_queue, "http", 1, Timeout(total=SHORT), "total", True, id="connecting, total"),
        pytest.param(deaf, "https", 1, Timeout(total=SHORT), "total", True, id="TLS, total"),
        pytest.param(deaf, "http", 30_000_000, Timeout(total=SHORT), "total", True, id="sending, total"),
    ],
)
def test_a_server_that_does_nothing_is_given_up(
    place: Any, scheme: str, size: int, timeout: Timeout, phase: str, sent: bool
) -> None:
    """Connecting, TLS and sending are under the same limits as reading."""
    with place() as url:
        with Client("key", api_url=url.replace("http", scheme), timeout=timeout, retry=None) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                client.ask("x" * size, conversation="t-1", parent_message_id="root")
    assert (caught.value.phase, caught.value.seconds, caught.value.may_have_been_sent) == (phase, SHORT, sent)


def test_total_bounds_all_stages_together(emulator: Emulator) -> None:
    """Each of them is quick enough by itself."""
    # The last delay ends long after the total: a busy machine may notice late that time is up.
    for stage, seconds in (("token", SHORT), ("thread", SHORT), ("message", 2 * SHORT)):
        emulator.fail(stage, Fault.delay(seconds))
    with client_of(emulator, Timeout(total=2.9 * SHORT)) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            client.ask("hi")
    assert (caught.value.phase, caught.value.stage) == ("total", "message")


def test_the_two_addresses_of_the_models_share_one_total(emulator: Emulator) -> None:
    """Whoever asks has asked once."""

    def slow(stage: str, request: Any) -> Fault:
        time.sleep(0.7 * 3 * SHORT)
        return Fault.status(404)

    emulator.choose_fault = slow
    with Client(emulator.api_key, api_url=emulator.api_url, timeout=TOTAL_OF_ALL, retry=None) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            client.models()
    assert (caught.value.phase, caught.value.attempts) == ("total", 2)


@pytest.mark.parametrize("stage", ["token", "thread", "message"])
def test_total_bounds_retries_and_their_sleeps(emulator: Emulator, stage: str) -> None:
    """However many attempts a policy has, the call ends in time, with the last failure or the limit."""
    emulator.choose_fault = lambda asked, request: Fault.status(502) if asked == stage else None
    retry = RetryPolicy(attempts=1_000_000, base=0.01, cap=0.01)
    with client_of(emulator, Timeout(total=3 * SHORT), retry=retry) as client:
        with pytest.raises((ServerError, RequestTimeoutError, StreamInterruptedError)) as caught:
            client.ask("hi")
    assert 1 < [request.stage for request in emulator.requests].count(stage) < 1000
    assert caught.value.attempts > 1


@pytest.mark.parametrize("total, max_wait", [(SHORT, 60.0), (None, SHORT)], ids=["total", "max_wait"])
def test_a_wait_that_would_not_fit_is_not_begun(emulator: Emulator, total: Optional[float], max_wait: float) -> None:
    """The error comes at once, and not after a part of the wait."""
    emulator.fail("message", Fault.status(503, retry_after=50))
    with client_of(emulator, Timeout(total=total), retry=RetryPolicy(max_wait=max_wait)) as client:
        with pytest.raises(ServerError) as caught:
            client.ask("hi")
    assert (caught.value.status, caught.value.attempts) == (503, 1)


def test_total_bounds_the_search_for_the_rest_of_an_answer(emulator: Emulator) -> None:
    """What had come is in the error, whatever it says."""
    emulator.fail("message", Fault.cut(1))
    emulator.fail("messages", Fault.stall())
    with client_of(emulator, Timeout(total=2 * SHORT), resume=True) as client:
        with pytest.raises(CopilotError) as caught:
            client.ask("hi")
    assert caught.value.partial == "one"


def test_the_time_of_a_call_begins_with_its_first_request(emulator: Emulator) -> None:
    """A stream that is made and kept for later has all its time left."""
    with client_of(emulator, Timeout(total=SHORT)) as client:
        stream = client.stream("hi")
        time.sleep(1.5 * SHORT)
        assert list(stream) == ["one", "two"]


def flooding(start: bytes, more: bytes) -> Callable[[Peer], None]:
    """Sends a beginning and then the same for as long as anybody listens."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(start)
        while not peer.gone.is_set():
            peer.send(more)

    return script


@pytest.mark.parametrize("more", [b": x\n\n" * 5000, b"\n" * 50_000], ids=["comments", "blank lines"])
@pytest.mark.parametrize("limit, phase", [(STALL, "stall"), (TOTAL, "total")], ids=["stall", "total"])
def test_a_flood_of_nothing_ends_in_time(more: bytes, limit: Timeout, phase: str) -> None:
    """However fast it comes, and though no read ever has to wait."""
    limits = Limits(answer=10**12)
    with Server(flooding(HEAD + ONE, more)) as server:
        with Client("key", api_url=server.url, timeout=limit, limits=limits, retry=None, resume=False) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                client.ask("hi", conversation="t", parent_message_id="root")
    assert (caught.value.phase, caught.value.partial) == (phase, "one")


def test_a_flood_behind_the_answer_is_not_drunk_up() -> None:
    """The answer is whole, and the connection is given up for it."""
    head = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
    answer = ONE + b"data: [DONE]\n\n"
    start = head + b"%x\r\n" % len(answer) + answer + b"\r\n0\r\n"
    with Server(flooding(start, b"X-Trailer: x\r\n" * 1000)) as server:
        with Client("key", api_url=server.url, retry=None) as client:
            assert client.ask("hi", conversation="t", parent_message_id="root").text == "one"
