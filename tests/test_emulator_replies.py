"""Replies as they come over the wire, byte for byte, and the ways they can be scripted."""

from __future__ import annotations

import gzip
import http.client
import json
import queue
import socket
import time
import zlib
from typing import Any, Callable, List
from urllib.parse import urlsplit

import pytest
from support import MESSAGE

from copilot_sync.emulator import Emulator, Fault, Reply

HELLO = b'data: {"type":"content","body":"Hello"}\n\n'
WORLD = b'data: {"type":"content","body":" world"}\n\n'


def message(emulator: Emulator, prompt: str = "Hi", **fields: object) -> bytes:
    """A request that posts a message to a new thread, as bytes."""
    created = http.client.HTTPConnection(urlsplit(emulator.api_url).netloc, timeout=5)
    bearer = {"Authorization": f"GitHub-Bearer {emulator.api_key}"}
    created.request("POST", "/github/chat/threads", headers=bearer)
    thread_id = json.load(created.getresponse())["thread_id"]
    created.close()
    data = json.dumps({**MESSAGE, "content": prompt, **fields}).encode()
    head = (
        f"POST /github/chat/threads/{thread_id}/messages HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: GitHub-Bearer {emulator.api_key}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def connect(emulator: Emulator) -> socket.socket:
    parts = urlsplit(emulator.api_url)
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def fetch(emulator: Emulator, prompt: str = "Hi", **fields: object) -> http.client.HTTPResponse:
    """Post a message and read the whole reply; its ``.body`` is what http.client made of it."""
    with connect(emulator) as client:
        client.sendall(message(emulator, prompt, **fields))
        reply = http.client.HTTPResponse(client, method="POST")
        reply.begin()
        reply.body = reply.read()  # type: ignore[attr-defined]
        reply.close()
        return reply


def body_of(emulator: Emulator, prompt: str = "Hi", **fields: object) -> bytes:
    body: bytes = fetch(emulator, prompt, **fields).body  # type: ignore[attr-defined]
    return body


def texts(body: bytes) -> List[str]:
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    return [event["body"] for event in events if event["type"] == "content"]


def stored(emulator: Emulator) -> List[str]:
    """The contents of all finished answers."""
    threads = emulator.threads.values()
    return [answer["content"] for thread in threads for answer in thread.assistant_messages]


def read_until(client: socket.socket, wanted: bytes) -> bytes:
    received = b""
    while wanted not in received:
        data = client.recv(65_536)
        assert data, f"the connection ended before {wanted!r}: {received!r}"
        received += data
    return received


@pytest.mark.parametrize(
    "script",
    [
        "Hello world",
        ["Hello", " world"],
        ("Hello", " world"),
        iter(["Hello", " world"]),
        lambda prompt: "Hello world",
        lambda prompt: lambda again: ["Hello", " world"],
        lambda prompt: (piece for piece in ("Hello", " world")),
        Reply("Hello world"),
        Reply(lambda prompt: ["Hello", " world"]),
    ],
    ids=["str", "list", "tuple", "iterator", "function", "nested", "generator", "reply", "pieces"],
)
def test_an_answer_can_be_scripted_in_many_ways(emulator: Emulator, script: Any) -> None:
    """All of these say the same two pieces, and the thread keeps them."""
    emulator.script(script)
    assert body_of(emulator).startswith(HELLO + WORLD)
    assert stored(emulator) == ["Hello world"]


def test_scripted_replies_are_used_up_in_order_ahead_of_the_usual_one(emulator: Emulator) -> None:
    """One each; ``reply`` is for the rest."""
    emulator.script("one", "two")
    emulator.reply = lambda prompt: prompt.upper()
    assert [texts(body_of(emulator, "hi")) for _ in range(3)] == [["one"], ["two"], ["HI"]]


def test_the_usual_reply_can_be_given_from_the_start() -> None:
    """An emulator that always says the same."""
    with Emulator(reply=["Hello"]) as emulator:
        assert texts(body_of(emulator)) == ["Hello"]


@pytest.mark.parametrize("prompt", ["a", " a  b\n", "\n", "línea ☃ 𝄞"])
def test_an_echo_repeats_the_prompt_exactly(emulator: Emulator, prompt: str) -> None:
    """Word by word, white space included."""
    emulator.reply = Reply()
    assert "".join(texts(body_of(emulator, f"x{prompt}"))) == f"x{prompt}"


def test_half_of_a_surrogate_pair_is_escaped(emulator: Emulator) -> None:
    """It has no UTF-8, and must not end the connection."""
    emulator.script(["\ud834"])
    assert body_of(emulator).startswith(b'data: {"type":"content","body":"\\ud834"}\n\n')


def test_text_goes_out_as_utf8(emulator: Emulator) -> None:
    """Not escaped: torn characters can only be shown if there are some."""
    emulator.script(["☃"])
    assert body_of(emulator).startswith('data: {"type":"content","body":"☃"}\n\n'.encode())


def test_a_piece_may_be_any_event_or_any_bytes(emulator: Emulator) -> None:
    """Unknown events, content without a body, and bytes that are no event at all."""
    emulator.script(
        [
            {"type": "content", "body": None},
            b"",
            b": a comment\n\n",
            {"type": "brandNew", "x": 1},
            {"type": "content", "body": "Hello"},
        ]
    )
    assert body_of(emulator).startswith(
        b'data: {"type":"content","body":null}\n\n: a comment\n\ndata: {"type":"brandNew","x":1}\n\n' + HELLO
    )
    assert stored(emulator) == ["Hello"]


def test_raw_bytes_are_the_whole_body(emulator: Emulator) -> None:
    """As they stand; the thread keeps what the pieces say."""
    emulator.script(b"\xff\x00", Reply(raw=b"data: x", pieces=["He", "llo"]))
    assert [body_of(emulator), body_of(emulator)] == [b"\xff\x00", b"data: x"]
    assert stored(emulator) == ["", "Hello"]


@pytest.mark.parametrize(
    ("reply", "end"),
    [
        (Reply(["Hello"], complete=False), HELLO),
        (Reply(["Hello"], complete=False, done=True), HELLO + b"data: [DONE]\n\n"),
        (
            Reply(["Hello"], error="out of order"),
            HELLO + b'data: {"type":"error","message":"out of order"}\n\n',
        ),
        (
            Reply(["Hello"], error={"description": "no", "code": "x"}, done=True),
            HELLO + b'data: {"type":"error","description":"no","code":"x"}\n\ndata: [DONE]\n\n',
        ),
        (
            Reply(["Hello", {"type": "complete"}], complete=False),
            HELLO + b'data: {"type":"complete"}\n\n',
        ),
    ],
    ids=["nothing", "done", "error", "error and done", "a complete of one's own"],
)
def test_an_answer_ends_as_it_is_told_to(emulator: Emulator, reply: Reply, end: bytes) -> None:
    """With ``complete`` by default; with something else, or nothing, if the reply says so."""
    emulator.script(reply)
    assert body_of(emulator) == end
    assert stored(emulator) == ["Hello"]


def test_an_answer_that_ended_in_an_error_is_listed_as_interrupted(emulator: Emulator) -> None:
    """Its text so far stays."""
    emulator.script(Reply(["Hel"], error="out of order"))
    body_of(emulator)
    (thread,) = emulator.threads.values()
    assert [answer["interrupted"] for answer in thread.assistant_messages] == [True]


def test_the_complete_event_can_be_changed(emulator: Emulator) -> None:
    """Its model, its usage (none at all, too), and any other field."""
    emulator.script(
        Reply("Hello", model="gpt-4o-2024", usage={"inputTokens": 7}, complete={"id": None}),
        Reply("Hello", usage={}, done=True),
    )
    first = json.loads(body_of(emulator).split(b"data: ")[-1])
    assert (first["model"], first["usage"], first["id"]) == (
        "gpt-4o-2024",
        {"inputTokens": 7},
        None,
    )
    second = body_of(emulator)
    assert b'"complete"' in second
    assert b'"usage"' not in second
    assert second.endswith(b"data: [DONE]\n\n")


def test_a_routed_model_is_announced_first(emulator: Emulator) -> None:
    """Whatever model was asked for."""
    emulator.script(Reply(["Hello"], routed_model="mai-code"))
    assert body_of(emulator).startswith(b'data: {"type":"routedModel","model":"mai-code"}\n\n' + HELLO)


def test_a_document_can_be_sent_where_a_stream_was_asked_for(emulator: Emulator) -> None:
    """And the other way round."""
    emulator.script(Reply("Hello", as_json=True), Reply(["Hello"], as_json=False))
    assert json.loads(body_of(emulator))["message"]["content"] == "Hello"
    assert body_of(emulator, streaming=False).startswith(HELLO)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_end_as_they_are_told_to(emulator: Emulator, newline: str) -> None:
    """All three line ends of the event-stream standard."""
    emulator.script(Reply(["Hello"], newline=newline, done=True))
    body = body_of(emulator).decode()
    assert body.startswith(HELLO.decode().replace("\n", newline))
    assert body.endswith("data: [DONE]" + newline * 2)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("encoding", [None, "gzip"])
@pytest.mark.parametrize("split", [None, 1, 7])
@pytest.mark.parametrize("per_write", [1, 2, 10])
def test_the_same_events_come_in_every_framing(
    emulator: Emulator, framing: Any, encoding: Any, split: Any, per_write: int
) -> None:
    """Whatever the packets, the framing and the encoding, the body is the same."""
    pieces = ["Hello", " world", " ☃"]
    emulator.script(
        Reply(
            iter(pieces),
            framing=framing,
            encoding=encoding,
            split=split,
            per_write=per_write,
            usage={},
        )
    )
    reply = fetch(emulator)
    body: bytes = reply.body  # type: ignore[attr-defined]
    assert texts(gzip.decompress(body) if encoding else body) == pieces
    assert reply.headers["Transfer-Encoding"] == ("chunked" if framing == "chunked" else None)
    assert (reply.headers["Content-Length"] is not None) == (framing == "length")
    assert reply.headers["Content-Encoding"] == encoding
    assert reply.headers["Connection"] == ("close" if framing == "close" else None)


def test_a_packet_is_torn_into_chunks_of_the_size_told(emulator: Emulator) -> None:
    """Chunks don't care for characters."""
    emulator.script(Reply(["☃"], split=2, complete=False))
    with connect(emulator) as client:
        client.sendall(message(emulator))
        body = read_until(client, b"0\r\n\r\n").partition(b"\r\n\r\n")[2]
    chunks = body.split(b"\r\n")[1::2]
    assert {len(chunk) for chunk in chunks[:-2]} == {2}
    assert b"".join(chunks) == 'data: {"type":"content","body":"☃"}\n\n'.encode()


def test_gzip_is_flushed_after_each_event(emulator: Emulator) -> None:
    """The first event can be read before the second is there."""
    pieces: queue.Queue[str] = queue.Queue()
    emulator.script(Reply(iter(pieces.get, ""), encoding="gzip", framing="close"))
    body, event = zlib.decompressobj(wbits=31), b""
    with connect(emulator) as client:
        client.sendall(message(emulator))
        read_until(client, b"\r\n\r\n")
        pieces.put("Hello")
        while event != HELLO:
            event += body.decompress(client.recv(1000))
        pieces.put("")


def test_each_event_goes_out_before_the_next_is_asked_for(emulator: Emulator) -> None:
    """A generator may wait for the test: nothing is held back."""
    pieces: queue.Queue[str] = queue.Queue()
    emulator.script(iter(pieces.get, ""))
    with connect(emulator) as client:
        client.sendall(message(emulator))
        pieces.put("Hello")
        assert read_until(client, HELLO).count(b"data:") == 1
        pieces.put(" world")
        assert read_until(client, WORLD).count(b"data:") == 1
        pieces.put("")
        read_until(client, b'"complete"')


def test_the_thread_knows_of_the_end_before_the_client(emulator: Emulator) -> None:
    """A client that has seen ``complete`` finds the whole answer in the thread."""
    emulator.script(Reply(["Hello"], done=True))
    emulator.fail("message", Fault.stall(("after_events", 2)))
    with connect(emulator) as client:
        client.sendall(message(emulator))
        read_until(client, b'"complete"')
        assert stored(emulator) == ["Hello"]


@pytest.mark.parametrize(
    ("reply", "least"),
    [
        (Reply(["a", "b", "c"], pace=0.02), 0.06),
        (Reply(["a"], first_delay=0.05, complete=False), 0.05),
        (Reply(["a", "b", "c"], pace=60, per_write=4, done=True), 0.0),
    ],
    ids=["pace", "first delay", "not after complete"],
)
def test_time_passes_where_a_reply_says_so(emulator: Emulator, reply: Reply, least: float) -> None:
    """Between packets and before the first, but not after the last."""
    emulator.script(reply)
    request = message(emulator)
    with connect(emulator) as client:
        started = time.monotonic()
        client.sendall(request)
        read_until(client, b"0\r\n\r\n")
        assert time.monotonic() - started + 0.005 >= least


def test_comments_keep_a_silent_stream_alive(emulator: Emulator) -> None:
    """They go out while nothing else does, in the framing of the body."""
    emulator.script(Reply(["Hello"], first_delay=60, comments=0.01))
    with connect(emulator) as client:
        client.sendall(message(emulator))
        assert read_until(client, b"keep-alive\n\n\r\ne\r\n: keep-alive\n\n").count(b"data:") == 0


def test_further_headers_and_another_type_can_be_sent(emulator: Emulator) -> None:
    """As a proxy in between would."""
    emulator.script(Reply("Hi", content_type="text/event-stream; charset=utf-8", headers={"X-A": "ü"}))
    reply = fetch(emulator)
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["X-A"] == "ü"


def test_http_10_gets_no_chunks(emulator: Emulator) -> None:
    """The body ends with the connection."""
    with connect(emulator) as client:
        client.sendall(message(emulator).replace(b"HTTP/1.1", b"HTTP/1.0"))
        received = client.makefile("rb").read()
    assert b"Transfer-Encoding" not in received
    assert received.endswith(b"}\n\n")


def test_a_partial_answer_is_listed_where_the_options_say_so(emulator: Emulator) -> None:
    """By default it isn't there before it is whole; if listed, it is marked as interrupted."""
    pieces: queue.Queue[str] = queue.Queue()
    emulator.script(iter(pieces.get, ""))
    with connect(emulator) as client:
        client.sendall(message(emulator))
        pieces.put("Hello")
        read_until(client, HELLO)
        (thread,) = emulator.threads.values()
        (answer,) = thread.unfinished
        listed = {True: _listed(emulator, True), False: _listed(emulator, False)}
        pieces.put("")
        read_until(client, b"0\r\n\r\n")
    assert listed[False] == [("user", "Hi", False)]
    assert listed[True] == [("user", "Hi", False), ("assistant", "Hello", True)]
    assert (thread.unfinished, answer.finished) == ([], True)
    assert _listed(emulator, True)[1] == ("assistant", "Hello", False)


def _listed(emulator: Emulator, partial: bool) -> List[Any]:
    emulator.options.list_partial = partial
    (thread_id,) = emulator.threads
    connection = http.client.HTTPConnection(urlsplit(emulator.api_url).netloc, timeout=5)
    bearer = {"Authorization": f"GitHub-Bearer {emulator.api_key}"}
    connection.request("GET", f"/github/chat/threads/{thread_id}/messages", headers=bearer)
    messages = json.load(connection.getresponse())["messages"]
    connection.close()
    return [(each["role"], each["content"], each["interrupted"]) for each in messages]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Reply(framing="wide"),  # type: ignore[arg-type]
        lambda: Reply(encoding="br"),  # type: ignore[arg-type]
        lambda: Reply(newline="\n\n"),
        lambda: Reply(per_write=0),
        lambda: Reply(split=0),
        lambda: Reply(pace=-1),
        lambda: Reply(first_delay=-1),
        lambda: Reply(comments=0.0),
        lambda: Reply(comments=-1),
        lambda: Reply(comments=1, framing="length"),
        lambda: Fault.cut(-1),
        lambda: Fault.stall("later"),  # type: ignore[arg-type]
        lambda: Fault.stall(("after_events", -1)),
        lambda: Fault.drop("after"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_makes_no_sense_is_refused_at_once(wrong: Callable[[], object]) -> None:
    """``ValueError`` in the call, not later in some thread."""
    with pytest.raises(ValueError, match=r"is|are|fit"):
        wrong()


@pytest.mark.parametrize("wrong", [None, 7, {"type": "content"}], ids=str)
def test_what_is_no_reply_is_refused_at_once(emulator: Emulator, wrong: Any) -> None:
    """``TypeError`` when it is scripted; nothing of the same call is kept."""
    with pytest.raises(TypeError, match="a reply is"):
        emulator.script("fine", wrong)
    assert texts(body_of(emulator, "echo")) == ["echo"]


@pytest.mark.parametrize("pieces", [b"Hello", {"type": "content"}])
def test_pieces_are_no_single_event(pieces: Any) -> None:
    """Bytes would be said one number at a time, a mapping one key at a time."""
    with pytest.raises(TypeError, match="pieces"):
        Reply(pieces)
