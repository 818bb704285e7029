"""What goes wrong when it is told to, as a client on a plain socket sees it."""

from __future__ import annotations

import http.client
import json
import queue
import socket
import struct
import threading
import time
from typing import Any, Iterator, List, NamedTuple, Optional
from urllib.parse import urlsplit

import pytest
from support import MESSAGE

from copilot_sync.emulator import Emulator, Fault, RecordedRequest, Reply

ONE = b'data: {"type":"content","body":"one"}\n\n'
TWO = b'data: {"type":"content","body":"two"}\n\n'
RESET = struct.pack("ii", 1, 0)
HALF = TWO[: len(TWO) // 2]


class Heard(NamedTuple):
    """What a client saw of a reply: all bytes, and how the connection ended."""

    data: bytes
    end: str

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(reply=Reply(["one", "two"], framing="close")) as served:
        yield served


def connect(emulator: Emulator) -> socket.socket:
    parts = urlsplit(emulator.api_url)
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def request_of(emulator: Emulator, method: str, path: str, body: object = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
        f"Authorization: GitHub-Bearer {emulator.api_key}\r\n\r\n"
    )
    return head.encode() + data


def hear(client: socket.socket) -> Heard:
    data = b""
    try:
        while True:
            more = client.recv(65_536)
            if not more:
                return Heard(data, "fin")
            data += more
    except ConnectionResetError:
        return Heard(data, "reset")


def ask(emulator: Emulator, method: str, path: str, body: object = None) -> Heard:
    with connect(emulator) as client:
        client.sendall(request_of(emulator, method, path, body))
        return hear(client)


def new_thread(emulator: Emulator) -> str:
    reply = ask(emulator, "POST", "/github/chat/threads")
    thread_id: str = json.loads(reply.body)["thread_id"]
    return thread_id


def message(emulator: Emulator, thread_id: str) -> bytes:
    return request_of(emulator, "POST", f"/github/chat/threads/{thread_id}/messages", MESSAGE)


def post(emulator: Emulator) -> Heard:
    with connect(emulator) as client:
        client.sendall(message(emulator, new_thread(emulator)))
        return hear(client)


def stored(emulator: Emulator) -> List[Any]:
    """Role and content of all that stands in the threads."""
    threads = list(emulator.threads.values())
    return [(each["role"], each["content"]) for thread in threads for each in thread.messages]


WHOLE = [("user", "Hi"), ("assistant", "onetwo")]


@pytest.mark.parametrize(
    ("fault", "data", "end"),
    [
        (Fault.drop(), b"", "fin"),
        (Fault.drop(reset=True), b"", "reset"),
        (Fault.drop("in_headers"), b"HTTP/1.1 200 OK\r\nContent-Type", "fin"),
        (Fault.drop("in_headers", reset=True), b"HTTP/1.1 200 OK\r\nContent-Type", "reset"),
    ],
    ids=["before, fin", "before, reset", "in, fin", "in, reset"],
)
def test_a_connection_can_be_dropped_around_the_headers(
    emulator: Emulator, fault: Fault, data: bytes, end: str
) -> None:
    """With a FIN or a real RST; the message is processed, and answered although nobody reads it."""
    emulator.fail("message", fault)
    heard = post(emulator)
    assert (heard.data[: len(data)], heard.end) == (data, end)
    assert b"\r\n\r\n" not in heard.data
    assert stored(emulator) == WHOLE
    assert emulator.disconnects == []


@pytest.mark.parametrize("when", ["before_headers", "in_headers"])
@pytest.mark.parametrize("stage", ["message", "thread"])
def test_what_is_dropped_need_not_be_processed(emulator: Emulator, when: Any, stage: str) -> None:
    """Then it never happened."""
    thread_id = new_thread(emulator)
    emulator.fail(stage, Fault.drop(when, processed=False))
    with connect(emulator) as client:
        if stage == "message":
            client.sendall(message(emulator, thread_id))
        else:
            client.sendall(request_of(emulator, "POST", "/github/chat/threads"))
        assert b"\r\n\r\n" not in hear(client).data
    assert stored(emulator) == []
    assert list(emulator.threads) == [thread_id]


@pytest.mark.parametrize(
    ("after", "mid_event", "body"),
    [
        (0, False, b""),
        (1, False, ONE),
        (2, False, ONE + TWO),
        (0, True, HALF),
        (1, True, ONE + HALF),
    ],
    ids=["at once", "after one", "after two", "in the first", "in the second"],
)
@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("per_write", [1, 5])
def test_a_stream_can_be_cut_anywhere(
    emulator: Emulator, after: int, mid_event: bool, body: bytes, end: str, per_write: int
) -> None:
    """After a number of events, or in the middle of one; the thread has the whole answer."""
    emulator.reply = Reply(["one", "two"], framing="close", per_write=per_write)
    emulator.fail("message", Fault.cut(after, reset=end == "reset", mid_event=mid_event))
    heard = post(emulator)
    assert (heard.body, heard.end) == (body, end)
    assert stored(emulator) == WHOLE
    assert emulator.disconnects == []


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("mid_event", [False, True])
def test_a_cut_after_more_events_than_there_are_takes_the_end_away(
    emulator: Emulator, framing: Any, mid_event: bool
) -> None:
    """All events come, but not the last chunk."""
    emulator.reply = Reply(["one", "two"], framing=framing)
    emulator.fail("message", Fault.cut(9, mid_event=mid_event), Fault.cut(3, mid_event=mid_event))
    for _ in range(2):
        heard = post(emulator)
        assert b'"complete"' in heard.body
        assert b"0\r\n\r\n" not in heard.body


def test_a_cut_chunk_is_torn(emulator: Emulator) -> None:
    """Its size promises more than comes."""
    emulator.reply = Reply(["one", "two"])
    emulator.fail("message", Fault.cut(1, mid_event=True))
    body = post(emulator).body
    assert body.startswith(b"27\r\n" + ONE + b"\r\n27\r\n")
    assert len(body.partition(b"\r\n27\r\n")[2]) < 0x27


@pytest.mark.parametrize("stage", ["thread", "threads", "models"])
def test_an_ordinary_reply_is_cut_in_its_body(emulator: Emulator, stage: str) -> None:
    """Half of it comes, however long it said it would be."""
    emulator.fail(stage, Fault.cut())
    path = "/models" if stage == "models" else "/github/chat/threads"
    heard = ask(emulator, "POST" if stage == "thread" else "GET", path)
    promised = int(heard.data.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    assert (len(heard.body), heard.end) == (promised // 2, "fin")


@pytest.mark.parametrize(
    ("fault", "status", "pieces"),
    [
        (Fault.status(503), b"503 Service Unavailable", [b"emulated status 503"]),
        (Fault.status(520), b"520 Unknown", [b'"status": "520"']),
        (Fault.status(429, retry_after=2), b"429 Too Many Requests", [b"Retry-After: 2\r\n"]),
        (
            Fault.status(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT", message="Slow down"),
            b"429 Too Many Requests",
            [b"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", b'{"message": "Slow down"'],
        ),
        (
            Fault.status(429, headers={"x-ratelimit-reset": "1782566106"}, body={"error": "no"}),
            b"429 Too Many Requests",
            [b"x-ratelimit-reset: 1782566106\r\n", b'\r\n\r\n{"error": "no"}'],
        ),
        (
            Fault.status(502, headers={"Content-Type": "text/plain"}, body="Bad gateway ☃"),
            b"502 Bad Gateway",
            [b"Content-Type: text/plain\r\n", "Bad gateway ☃".encode()],
        ),
        (Fault.status(500, body=b"\xff\x00"), b"500 Internal Server Error", [b"\r\n\r\n\xff\x00"]),
        (Fault.garbage(), b"200 OK", [b"Content-Type: text/html; charset=utf-8\r\n", b"<title>"]),
        (
            Fault.garbage([1], "application/json", status=201, headers={"X-A": "1"}),
            b"201 Created",
            [b"Content-Type: application/json\r\n", b"X-A: 1\r\n", b"\r\n\r\n[1]"],
        ),
        (Fault.garbage(None), b"200 OK", [b"Content-Length: 0\r\n"]),
        (Fault.redirect(), b"302 Found", [b"Location: /login?return_to=%2Fcopilot\r\n"]),
        (
            Fault.redirect("https://example.org/", status=307),
            b"307 Temporary Redirect",
            [b"Location: https://example.org/\r\n", b"Content-Length: 0\r\n"],
        ),
        (Fault.expired_token(), b"401 Unauthorized", [b"expired"]),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else None,
)
@pytest.mark.parametrize("stage", ["message", "models"])
def test_a_reply_can_be_replaced(
    emulator: Emulator, stage: str, fault: Fault, status: bytes, pieces: List[bytes]
) -> None:
    """By a status, or by something that has no place here; nothing is processed."""
    emulator.fail(stage, fault)
    heard = post(emulator) if stage == "message" else ask(emulator, "GET", "/models")
    assert heard.data.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert [piece for piece in pieces if piece not in heard.data] == []
    assert stored(emulator) == []


def test_the_bytes_on_the_wire_can_be_anything(emulator: Emulator) -> None:
    """They need not even be HTTP."""
    emulator.fail("message", Fault.wire(b"HTTP/9 lots\r\n\r\n"))
    assert post(emulator) == (b"HTTP/9 lots\r\n\r\n", "fin")


@pytest.mark.parametrize(
    "fault", [Fault.status(502, processed=True), Fault.garbage(processed=True), Fault.wire(b"", processed=True)]
)
def test_a_message_can_be_processed_although_the_reply_denies_it(emulator: Emulator, fault: Fault) -> None:
    """The answer stands in the thread before the client knows of the fault."""
    emulator.fail("message", fault)
    assert b"one" not in post(emulator).data
    assert stored(emulator) == WHOLE


def test_a_processed_message_is_answered_before_the_client_can_look(emulator: Emulator) -> None:
    """If nothing takes time, the answer is there before the client sees the fault."""
    emulator.reply = ["word "] * 30_000
    emulator.fail("message", Fault.status(502, processed=True))
    with connect(emulator) as client:
        request = message(emulator, new_thread(emulator))
        client.sendall(request.replace(b"Connection: close\r\n", b""))
        assert client.recv(1000).startswith(b"HTTP/1.1 502")
        assert [role for role, _ in stored(emulator)] == ["user", "assistant"]


def test_an_answer_stands_behind_its_own_question(emulator: Emulator) -> None:
    """Also when another question came in between."""
    hold = threading.Event()
    emulator.script(lambda prompt: (text for text in ["late"] if hold.wait(5)), "early")
    emulator.fail("message", Fault.status(504, processed=True))
    thread_id = new_thread(emulator)
    for _ in range(2):
        with connect(emulator) as client:
            client.sendall(message(emulator, thread_id))
            hear(client)
    hold.set()
    assert emulator.wait_until(lambda: len(stored(emulator)) == 4)
    assert [content for _, content in stored(emulator)] == ["Hi", "late", "Hi", "early"]


def test_an_answer_that_nobody_hears_takes_its_time(emulator: Emulator) -> None:
    """A slow reply is written on at its own pace: the question stands there first."""
    hold = threading.Event()
    emulator.reply = Reply(
        lambda prompt: (piece for piece in ("one", "two") if hold.wait(5)),
        first_delay=0.01,
        pace=0.001,
    )
    emulator.fail("message", Fault.status(504, processed=True))
    post(emulator)
    (thread,) = emulator.threads.values()
    assert stored(emulator) == [("user", "Hi")]
    (answer,) = thread.unfinished
    hold.set()
    assert emulator.wait_until(lambda: answer.finished)
    assert stored(emulator) == WHOLE


def test_an_answer_that_nobody_hears_can_be_left_unfinished(emulator: Emulator) -> None:
    """If the options say so, it is never listed."""
    emulator.options.finish_when_disconnected = False
    emulator.fail("message", Fault.cut(1))
    assert post(emulator).body == ONE
    assert stored(emulator) == [("user", "Hi")]
    (thread,) = emulator.threads.values()
    assert [answer.text for answer in thread.unfinished] == ["one"]


def test_a_document_can_be_cut_as_well(emulator: Emulator) -> None:
    """Half of the JSON comes, and the whole answer stands in the thread."""
    emulator.reply = Reply(["one", "two"], as_json=True)
    emulator.fail("message", Fault.cut())
    heard = post(emulator)
    assert heard.body.startswith(b'{"message": ')
    assert not heard.body.endswith(b"}}")
    assert stored(emulator) == WHOLE


@pytest.mark.parametrize(
    ("fault", "heard_before"),
    [
        (Fault.stall(), b""),
        (Fault.stall(processed=False), b""),
        (Fault.stall("in_headers"), b"HTTP/1.1 200 OK\r\nContent-Type"),
        (Fault.stall(("after_events", 0)), b"\r\n\r\n"),
        (Fault.stall(("after_events", 1)), ONE),
        (Fault.stall(("after_events", 1), mid_event=True), ONE + HALF),
        (Fault.stall(("after_events", 9)), b'"complete"'),
    ],
    ids=["before", "not processed", "headers", "at once", "after one", "in the second", "at the end"],
)
def test_a_reply_can_stall_anywhere_and_go_on(emulator: Emulator, fault: Fault, heard_before: bytes) -> None:
    """Silence until ``release``, then the rest, as if nothing had been."""
    emulator.fail("message", fault)
    with connect(emulator) as client:
        client.sendall(message(emulator, new_thread(emulator)))
        assert emulator.wait_until(lambda: emulator.stalled == 1)
        data = b""
        while heard_before not in data:
            data += client.recv(1000)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        assert (stored(emulator) == []) == (fault == Fault.stall(processed=False))
        client.settimeout(5)
        emulator.release()
        heard = Heard(data + hear(client).data, "fin")
    assert heard.body.startswith(ONE + TWO)
    assert heard.body.endswith(b"}\n\n")
    assert stored(emulator) == WHOLE


@pytest.mark.parametrize(
    "fault",
    [Fault.stall(seconds=0.03), Fault.stall(("after_events", 1), 0.03), Fault.delay(0.03)],
    ids=["before the headers", "in mid-stream", "delay"],
)
def test_a_stall_can_have_a_length(emulator: Emulator, fault: Fault) -> None:
    """It ends by itself."""
    thread_id = new_thread(emulator)
    emulator.fail("message", fault)
    with connect(emulator) as client:
        started = time.monotonic()
        client.sendall(message(emulator, thread_id))
        assert hear(client).body.startswith(ONE + TWO)
        assert time.monotonic() - started + 0.005 >= 0.03


@pytest.mark.parametrize(
    "fault", [Fault.stall(seconds=1e300), Fault.stall(("after_events", 1), 1e300)], ids=["before", "after one"]
)
def test_a_stall_can_be_longer_than_the_system_waits(emulator: Emulator, fault: Fault) -> None:
    """And ``release`` ends it as any other."""
    thread_id = new_thread(emulator)
    emulator.fail("message", fault)
    with connect(emulator) as client:
        client.sendall(message(emulator, thread_id))
        assert emulator.wait_until(lambda: emulator.stalled == 1)
        emulator.release()
        assert hear(client).body.startswith(ONE + TWO)


def test_an_ordinary_reply_can_stall_in_its_body(emulator: Emulator) -> None:
    """In the middle, and then the rest comes."""
    emulator.fail("models", Fault.stall(("after_events", 0), 0.01))
    assert json.loads(ask(emulator, "GET", "/models").body)["data"]


def test_comments_go_on_while_a_stream_stalls(emulator: Emulator) -> None:
    """The connection is alive, the answer isn't."""
    emulator.reply = Reply(["one"], comments=0.005)
    emulator.fail("message", Fault.stall(("after_events", 1)))
    with connect(emulator) as client:
        client.sendall(message(emulator, new_thread(emulator)))
        data = b""
        while data.count(b": keep-alive\n\n") < 2:
            data += client.recv(1000)
        emulator.release()
        assert b'"complete"' in hear(client).data


@pytest.mark.parametrize(
    ("fault", "events", "left"),
    [
        (Fault.stall(), 0, WHOLE),
        (Fault.stall(processed=False), 0, []),
        (Fault.stall("in_headers"), 0, WHOLE),
        (Fault.stall(("after_events", 1)), 1, WHOLE),
    ],
    ids=["before the headers", "not processed", "in the headers", "in mid-stream"],
)
def test_a_client_that_leaves_a_stall_is_noticed(
    emulator: Emulator, fault: Fault, events: int, left: List[Any]
) -> None:
    """At once, with what it had asked; a message that was processed is answered all the same."""
    emulator.fail("message", fault)
    with connect(emulator) as client:
        client.sendall(message(emulator, new_thread(emulator)))
        assert emulator.wait_until(lambda: emulator.stalled == 1)
    assert emulator.wait_until(lambda: emulator.open_connections == 0)
    (disconnect,) = emulator.disconnects
    assert (disconnect.request.stage, disconnect.events) == ("message", events)
    assert disconnect.time >= disconnect.request.time
    assert stored(emulator) == left


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize(("as_json", "events"), [(False, 1), (True, 0)], ids=["stream", "document"])
def test_a_client_that_leaves_between_two_events_is_noticed(
    emulator: Emulator, how: str, as_json: bool, events: int
) -> None:
    """Well before the next event, whether it says goodbye or not."""
    emulator.reply = Reply(["one", "two"], pace=60, as_json=as_json)
    client = connect(emulator)
    client.sendall(message(emulator, new_thread(emulator)))
    assert emulator.wait_until(lambda: _is_started(emulator) and emulator.events_sent == events)
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    left = time.monotonic()
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert emulator.disconnects[0].time - left < 5
    assert emulator.disconnects[0].events == events


def _is_started(emulator: Emulator) -> bool:
    answers = [answer for thread in emulator.threads.values() for answer in thread.unfinished]
    return any(answer.started for answer in answers)


def test_a_client_that_leaves_a_flood_is_noticed(emulator: Emulator) -> None:
    """Also one that never read: the next packet has nowhere to go."""
    emulator.reply = Reply(["x" * 1_000_000] * 50)
    with connect(emulator) as client:
        client.sendall(message(emulator, new_thread(emulator)))
        assert emulator.wait_until(lambda: emulator.events_sent)
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert emulator.disconnects[0].events < 51


def test_a_client_that_leaves_after_the_last_event_has_missed_nothing(emulator: Emulator) -> None:
    """That isn't a disconnect, although the body's end can't be sent any more."""
    left = threading.Event()

    def pieces(prompt: str) -> Iterator[str]:
        yield "one"
        left.wait(5)

    emulator.reply = Reply(pieces, complete=False)
    with connect(emulator) as client:
        client.sendall(message(emulator, new_thread(emulator)))
        assert emulator.wait_until(lambda: emulator.events_sent == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    left.set()
    assert emulator.wait_until(lambda: emulator.open_connections == 0)
    assert emulator.disconnects == []


def test_faults_are_used_up_in_order_and_none_lets_one_pass(emulator: Emulator) -> None:
    """One each, and each stage has its own."""
    emulator.fail("models", Fault.status(500), None, Fault.status(502))
    emulator.fail("threads", Fault.status(503))
    statuses = [ask(emulator, "GET", "/models").data[9:12] for _ in range(4)]
    assert statuses == [b"500", b"200", b"502", b"200"]
    assert ask(emulator, "GET", "/github/chat/threads").data[9:12] == b"503"


def test_a_stage_that_does_not_exist_is_refused(emulator: Emulator) -> None:
    """With the names that do."""
    with pytest.raises(ValueError, match="token, login, page, quota, thread, threads, message"):
        emulator.fail("stream", Fault.status(500))


def test_faults_can_be_chosen_as_requests_come(emulator: Emulator) -> None:
    """A function may decide, after what was queued."""
    asked = []

    def choose(stage: str, request: RecordedRequest) -> Optional[Fault]:
        asked.append((stage, request.path))
        return Fault.status(503) if len(asked) == 1 else None

    emulator.choose_fault = choose
    emulator.fail("models", Fault.status(500))
    statuses = [ask(emulator, "GET", "/models").data[9:12] for _ in range(3)]
    assert statuses == [b"500", b"503", b"200"]
    assert asked == [("models", "/models")] * 2


def test_a_token_can_be_issued_although_the_client_never_sees_it(emulator: Emulator) -> None:
    """What ``processed`` means for requests that are no messages."""
    headers = {
        "Cookie": f"user_session={emulator.cookies['user_session']}",
        "Accept": "application/json",
        "GitHub-Verified-Fetch": "true",
        "X-Requested-With": "XMLHttpRequest",
    }
    emulator.fail("token", Fault.status(500, processed=True))
    connection = http.client.HTTPConnection(urlsplit(emulator.github_url).netloc, timeout=5)
    connection.request("POST", "/github-copilot/chat/token", headers=headers)
    assert connection.getresponse().status == 500
    connection.close()
    assert emulator.tokens_issued == 1


@pytest.mark.parametrize("broken", ["function", "generator"])
def test_a_defect_in_a_tests_own_function_shows(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """It ends the connection, and comes out of the thread as the exception it is."""
    seen: queue.Queue[Any] = queue.Queue()
    monkeypatch.setattr(threading, "excepthook", seen.put)

    def script(prompt: str) -> Iterator[str]:
        if broken == "function":
            raise ZeroDivisionError
        return (str(1 // number) for number in (1, 0))

    emulator.script(script)
    assert b'"complete"' not in post(emulator).data
    assert emulator.wait_until(lambda: emulator.open_connections == 0)
    assert seen.get(timeout=5).exc_type is ZeroDivisionError
