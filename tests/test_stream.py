"""One reply being read: what a stream hands out, and how it ends."""

import gc
import gzip
import io
import itertools
import logging
import pickle
import platform
import sys
import threading
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple, Type

import pytest
import responses
from support import Peer, Server, Worker, stages

from copilot_sync import (
    Answer,
    AuthenticationError,
    Client,
    CompleteEvent,
    ContentEvent,
    Conversation,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ResponseTooLargeError,
    RetryPolicy,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    Usage,
)
from copilot_sync.delivery import recovery
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.settings import Limits

ONE = b'data: {"type":"content","body":"one"}\n\n'
TWO = b'data: {"type":"content","body":"two"}\n\n'
COMPLETE = b'data: {"type":"complete","id":"m-1"}\n\n'
DONE = b"data: [DONE]\n\n"
AT_ONCE = RetryPolicy(base=0.0, cap=0.0)
#: Where a mock is asked.
URL = "https://api.example/github/chat/threads/t-1/messages"


def in_pieces(pieces: Iterable[bytes]) -> io.BufferedReader:
    """A body that gives one piece for each read."""
    parts = iter(pieces)

    class Reads(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece = next(parts, b"")
            buffer[: len(piece)] = piece
            return len(piece)

    return io.BufferedReader(Reads())


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator) as opened:
        yield opened


def client_of(emulator: Emulator, **options: Any) -> Client:
    return Client(
        emulator.api_key, github_url=emulator.github_url, api_url=emulator.api_url, **{"retry": AT_ONCE, **options}
    )


# What it hands out


def test_a_stream_yields_each_piece_of_text_as_the_service_cut_it(emulator: Emulator, client: Client) -> None:
    """Iterating gives the pieces themselves, neither joined nor split."""
    emulator.script(["Hel", "lo", "\n", " 🎉"])
    assert list(client.stream("hi")) == ["Hel", "lo", "\n", " 🎉"]


def test_the_text_so_far_holds_the_piece_that_is_being_yielded(emulator: Emulator, client: Client) -> None:
    """``text`` is never behind the loop that reads."""
    emulator.script(["a", "b", "c"])
    stream = client.stream("hi")
    assert stream.text == ""
    assert [(piece, stream.text) for piece in stream] == [("a", "a"), ("b", "ab"), ("c", "abc")]
    assert stream.text == "abc"


def test_nothing_is_sent_before_the_first_item_is_asked_for(emulator: Emulator, client: Client) -> None:
    """A stream that nobody reads costs nothing."""
    stream = client.stream("hi")
    events = stream.events()
    assert (emulator.requests, stream.conversation, stream.answer) == ([], None, None)
    next(events)
    assert stages(emulator) == ["thread", "message"]


@pytest.mark.parametrize("taken", [0, 1, 4], ids=["of a new one", "of one that was begun", "of one that has ended"])
def test_reading_a_stream_gives_its_whole_answer(emulator: Emulator, client: Client, taken: int) -> None:
    """Whatever was iterated before; and again when it is asked again, also after the stream was closed."""
    emulator.script(["a", "b", "c"])
    with client.stream("hi") as stream:
        assert list(itertools.islice(stream, taken)) == ["a", "b", "c"][:taken]
        answer = stream.read()
    assert (answer.text, answer.complete, stream.text) == ("abc", True, "abc")
    assert stream.read() is stream.answer is answer
    assert (list(stream), stages(emulator)) == ([], ["thread", "message"])


def test_starting_begins_the_conversation_and_sends_nothing_of_the_message(emulator: Emulator, client: Client) -> None:
    """``start`` may be called again and gives the same conversation, without another request."""
    seen: List[Conversation] = []
    stream = client.stream("hi", on_start=seen.append)
    conversation = stream.start()
    assert stages(emulator) == ["thread"]
    assert stream.start() is stream.conversation is conversation
    assert "".join(stream) == "hi"
    assert stages(emulator) == ["thread", "message"]
    assert [known is conversation for known in seen] == [True]


def test_the_conversation_is_known_before_the_message_is_sent(emulator: Emulator, client: Client) -> None:
    """``on_start`` gets it in time to be stored, also where the caller brought it along."""
    known = client.create_thread()
    asked: List[Tuple[Conversation, List[str]]] = []
    client.ask("hi", conversation=known, on_start=lambda conversation: asked.append((conversation, stages(emulator))))
    assert asked == [(known, ["thread"])]


def test_events_give_everything_that_the_service_says(emulator: Emulator, client: Client) -> None:
    """All types come through in order, those that are not known as well."""
    emulator.script(
        Reply(
            ["Hel", {"type": "thinking", "step": 1}, "lo", {"type": "annotations", "copilotAnnotations": {"A": []}}],
            routed_model="mai-code-1.1-flash",
        )
    )
    events = list(client.stream("hi").events())
    assert [event.type for event in events] == [
        "routedModel",
        "content",
        "thinking",
        "content",
        "annotations",
        "complete",
    ]
    assert [event.body for event in events if isinstance(event, ContentEvent)] == ["Hel", "lo"]
    assert events[2].data == {"type": "thinking", "step": 1}


def test_events_and_text_are_two_views_of_one_reading(emulator: Emulator, client: Client) -> None:
    """What one of them has handed out, the other does not repeat."""
    emulator.script(["a", "b", "c"])
    stream = client.stream("hi")
    assert next(stream) == "a"
    assert [event.type for event in stream.events()] == ["content", "content", "complete"]
    assert list(stream) == []


@pytest.mark.parametrize(
    "reply, model",
    [
        pytest.param(Reply("x", routed_model="routed", model="named"), "routed", id="the routed one"),
        pytest.param(Reply("x", model="named"), "named", id="else the one that complete names"),
        pytest.param(Reply("x"), "o1-mini", id="else the one asked for"),
        pytest.param(Reply("x", routed_model="routed", model="named", as_json=True), "o1-mini", id="plain JSON"),
        pytest.param(
            Reply([{"type": "routedModel", "model": "routed"}, {"type": "threadAutoPickedModel"}, "x"]),
            "routed",
            id="a routing without a name says nothing",
        ),
    ],
)
def test_an_answer_names_the_model_that_wrote_it(emulator: Emulator, client: Client, reply: Reply, model: str) -> None:
    """The routed model, else ``complete``'s, else the one asked for."""
    emulator.script(reply)
    assert client.ask("hi", model="o1-mini").model == model


@pytest.mark.parametrize(
    "pieces, complete, annotations",
    [
        pytest.param(["x"], {"copilotAnnotations": {"A": [1]}}, {"A": [1]}, id="in complete"),
        pytest.param(
            [{"type": "annotations", "copilotAnnotations": {"B": [2]}}, "x"],
            {"copilotAnnotations": {}},
            {"B": [2]},
            id="ahead of it",
        ),
        pytest.param(["x"], {"copilotAnnotations": None}, {}, id="none"),
    ],
)
def test_an_answer_carries_the_annotations_wherever_they_stood(
    emulator: Emulator, client: Client, pieces: List[Any], complete: Dict[str, Any], annotations: Dict[str, Any]
) -> None:
    """They may come in ``complete`` or in an event of their own ahead of it."""
    emulator.script(Reply(pieces, complete=complete))
    assert client.ask("hi").annotations == annotations


def test_an_answer_says_what_it_cost_and_what_it_is_called(emulator: Emulator, client: Client) -> None:
    """Its id is the one that the message asked for, and its usage is the service's count."""
    emulator.script(Reply(["Hel", "lo"], usage={"inputTokens": 12, "outputTokens": 2}))
    answer = client.ask("hi")
    assert (str(answer), answer.complete, answer.usage) == ("Hello", True, Usage(12, 2))
    assert answer.message_id == emulator.requests[-1].json["responseMessageID"]


def test_the_conversation_goes_on_from_the_id_that_complete_gave(emulator: Emulator, client: Client) -> None:
    """It is updated in place, and its last message becomes the next one's parent."""
    first = client.ask("one")
    conversation = first.conversation
    assert conversation.message_id == first.message_id
    second = client.ask("two", conversation=conversation)
    assert second.conversation is conversation
    parents = [request.json["parentMessageID"] for request in emulator.requests if request.stage == "message"]
    assert parents == ["root", first.message_id]


@pytest.mark.parametrize("end", [b'data: {"type":"complete"}\n\n', b"data: [DONE]\n\n"], ids=["complete", "DONE"])
def test_an_answer_whose_end_names_no_id_is_called_what_the_message_asked_for(
    emulator: Emulator, client: Client, end: bytes
) -> None:
    """And the next message of the conversation answers it under that name."""
    emulator.script(Reply(raw=ONE + end))
    answer = client.ask("hi")
    assert answer.message_id == emulator.requests[-1].json["responseMessageID"]
    assert answer.conversation.message_id == answer.message_id


def test_an_answer_that_may_not_be_whole_moves_no_conversation_on(emulator: Emulator, client: Client) -> None:
    """What its end did not vouch for is not what the next message answers."""
    emulator.script(Reply(raw=ONE))
    answer = client.ask("hi")
    assert not answer.complete
    assert answer.conversation.message_id is None


def test_a_number_of_any_length_costs_no_text(emulator: Emulator, client: Client) -> None:
    """Newer Pythons refuse to read very long numbers; the rest of the event is not theirs to take away."""
    emulator.script(Reply(raw=b'data: {"type":"content","n":' + b"9" * 5000 + b',"body":"kept"}\n\ndata: [DONE]\n\n'))
    assert client.ask("hi").text == "kept"


def test_a_whole_answer_comes_as_one_piece_and_its_end(client: Client) -> None:
    """Where only the whole is wanted, the events are its text and ``complete``, and no text has no event."""
    kinds = [[type(event) for event in client.stream(text, buffered=True).events()] for text in ("a b c",)]
    assert kinds == [[ContentEvent, CompleteEvent]]


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b""], ids=["DONE", "no word"])
def test_a_whole_answer_without_a_complete_event_is_its_text_alone(
    emulator: Emulator, client: Client, end: bytes
) -> None:
    """Nothing is made up that the service did not say."""
    emulator.script(Reply(raw=ONE + end))
    assert [type(event) for event in client.stream("hi", buffered=True).events()] == [ContentEvent]


# Plain JSON


@pytest.mark.parametrize("content", ["Hello", ""], ids=["text", "nothing"])
def test_a_plain_json_reply_is_an_answer_too(emulator: Emulator, client: Client, content: str) -> None:
    """Some versions of the service answer with one document instead of a stream."""
    emulator.script(Reply(content, as_json=True))
    stream = client.stream("hi")
    assert "".join(stream) == content
    assert stream.answer is not None and stream.answer.complete


def test_a_reply_that_holds_no_answer_is_told_at_once(emulator: Emulator, client: Client) -> None:
    """It would come again, so the message is not sent again."""
    emulator.fail("message", Fault.garbage('{"answer": 42}', "application/json"))
    with pytest.raises(ProtocolError):
        client.ask("hi")
    assert stages(emulator) == ["thread", "message"]


LABELS = ["text/event-stream", "application/json", "text/html; charset=utf-8", "text/plain", "image/png", None]
each_label = pytest.mark.parametrize("label", LABELS, ids=str)
DOCUMENT = b'{"message": {"content": "onetwo", "id": "m-1"}}'
MARK = b"\xef\xbb\xbf"


def labelled(body: bytes, label: Optional[str], encoding: str = "identity") -> Fault:
    """A reply of a good status, under whatever label."""
    headers = {} if label is None else {"Content-Type": label}
    if encoding == "gzip":
        body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
    return Fault.status(200, headers=headers, body=body, processed=True)


@each_label
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(ONE + TWO + COMPLETE, id="events"),
        pytest.param(MARK + b"\r\n\n : hello\n\n" + ONE + TWO + DONE, id="events behind blanks"),
        pytest.param(b"foo: bar\n" + ONE + TWO + DONE, id="events behind a field that means nothing"),
        pytest.param(b"event: message\n" + ONE + b"id: 7\n" + TWO + DONE, id="events with names"),
        pytest.param(DOCUMENT, id="a document"),
        pytest.param(MARK + b" \n" + DOCUMENT + b"\n", id="a document behind blanks"),
    ],
)
def test_a_reply_is_read_for_what_it_is(
    emulator: Emulator, client: Client, body: bytes, label: Optional[str], encoding: str
) -> None:
    """Its first bytes tell, and its label does not."""
    emulator.fail("message", labelled(body, label, encoding))
    answer = client.ask("hi")
    assert (answer.text, answer.complete) == ("onetwo", True)
    assert stages(emulator) == ["thread", "message"]


@pytest.mark.parametrize(
    "body",
    [
        ONE + TWO + COMPLETE,
        b"foo: bar\nbaz\n" + ONE + TWO + DONE,
        b"\n" + MARK + ONE + TWO + DONE,
        DOCUMENT,
        MARK + b"\n" + DOCUMENT,
    ],
)
@responses.activate
def test_a_reply_may_come_byte_by_byte(body: bytes) -> None:
    """What it is is told by the first that means something."""
    responses.post(URL, in_pieces(body[at : at + 1] for at in range(len(body))))
    assert Client("key", api_url="https://api.example").ask("hi", conversation="t-1").text == "onetwo"


@each_label
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize(
    "body, kind, words",
    [
        pytest.param(
            b'{"error": {"message": "slow down", "code": "rate_limited"}}', RateLimitError, "slow down", id="JSON"
        ),
        pytest.param(b'{"error": "quota_exceeded"}', QuotaExceededError, "quota_exceeded", id="a code"),
        pytest.param(
            b'{"message": "Bad credentials", "status": "401"}', AuthenticationError, "Bad credentials", id="API"
        ),
        pytest.param(b'{"message": "no words of a code"}', ServerError, "no words of a code", id="a message"),
        pytest.param(b"{nonsense", ServerError, "{nonsense", id="broken JSON"),
        pytest.param(b"upstream timed out\nretry later", ServerError, "upstream timed out retry later", id="words"),
        pytest.param(MARK + b"\n no healthy upstream", ServerError, "no healthy upstream", id="words behind blanks"),
        pytest.param(b"<html><title>502 Bad Gateway</title>", ServerError, "502 Bad Gateway", id="a web page"),
        pytest.param(b'"just a string"', ServerError, "just a string", id="a string"),
        pytest.param(b'data: {"error": {"message": "boom"}}\n\n' + DONE, ServerError, "boom", id="an event"),
        pytest.param(b"event: error\ndata: it broke\n\n" + COMPLETE, ServerError, "it broke", id="a named event"),
    ],
)
def test_an_error_under_a_good_status_is_raised_whatever_its_label(
    emulator: Emulator,
    client: Client,
    body: bytes,
    kind: Type[CopilotError],
    words: str,
    label: Optional[str],
    encoding: str,
) -> None:
    """With the words that came; the service has answered, so the message is not sent again."""
    emulator.fail("message", labelled(body, label, encoding))
    with pytest.raises(kind) as caught:
        client.ask("hi")
    assert type(caught.value) is kind
    assert f"(the server said: {words})" in str(caught.value)
    assert stages(emulator) == ["thread", "message"]


@pytest.mark.parametrize(
    "body, words",
    [
        pytest.param(b'{"error": {"message": "boom"}}', "boom", id="a document"),
        pytest.param(b"no healthy upstream", "no healthy upstream", id="words"),
        pytest.param(b"<title>Bad Gateway</title>", "Bad Gateway", id="a web page"),
        pytest.param(b'data: {"error": "it broke"}\n\n', "it broke", id="an event"),
        pytest.param(DOCUMENT, None, id="an answer"),
    ],
)
def test_what_was_said_is_told_though_the_connection_stays_open(body: bytes, words: Optional[str]) -> None:
    """At once, and not when silence has lasted too long."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + body)
        peer.wait_closed()

    began = time.monotonic()
    with Server(script) as server, Client("key", api_url=server.url) as client:
        if words is None:
            assert client.ask("hi", conversation="t-1").text == "onetwo"
        else:
            with pytest.raises(ServerError, match=words):
                client.ask("hi", conversation="t-1")
    assert time.monotonic() - began < 3


def test_mere_words_without_an_end_are_not_read_for_ever() -> None:
    """They are cut like those of any error."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not peer.gone.is_set():
            peer.send(b"oops " * 1000)

    with Server(script) as server, Client("key", api_url=server.url) as client:
        with pytest.raises(ServerError, match="oops oops"):
            client.ask("hi", conversation="t-1")


def test_blanks_without_an_end_are_no_reply(emulator: Emulator) -> None:
    """Their bytes are counted, also where nothing has told yet what the reply is."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not peer.gone.is_set():
            peer.send(b"\n" * 10_000)

    limits = Limits(event=50_000, answer=50_000)
    with Server(script) as server, Client("key", api_url=server.url, limits=limits) as client:
        with pytest.raises(ResponseTooLargeError, match="50000 bytes came without any text"):
            client.ask("hi", conversation="t-1")


def test_a_document_has_a_largest_size(emulator: Emulator) -> None:
    """As any reply that is no stream."""
    emulator.script(Reply("x" * 1000, as_json=True))
    with client_of(emulator, limits=Limits(reply=500)) as client:
        with pytest.raises(ResponseTooLargeError, match="longer than 500 bytes"):
            client.ask("hi")


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("length", [1, 12, 25, len(DOCUMENT) - 1])
def test_a_torn_document_is_looked_up(emulator: Emulator, client: Client, framing: Any, length: int) -> None:
    """It is a cut, whatever the framing says, and its answer is in the thread."""
    emulator.script(Reply(raw=DOCUMENT[:length], pieces=["onetwo"], framing=framing))
    assert client.ask("hi").text == "onetwo"
    assert stages(emulator) == ["thread", "message", "messages"]


# How it ends


@pytest.mark.parametrize(
    "reply, complete",
    [
        pytest.param(Reply(raw=ONE + COMPLETE), True, id="complete"),
        pytest.param(Reply(raw=ONE + DONE), True, id="[DONE]"),
        pytest.param(Reply(raw=ONE + COMPLETE, framing="close"), True, id="complete, close-delimited"),
        pytest.param(Reply(raw=ONE + DONE, framing="length"), True, id="[DONE], Content-Length"),
        pytest.param(Reply(raw=ONE), False, id="the last chunk"),
        pytest.param(Reply(raw=ONE, framing="length"), False, id="Content-Length reached"),
        pytest.param(Reply(raw=ONE, encoding="gzip"), False, id="the last chunk of gzip"),
        pytest.param(Reply(raw=ONE + b": by"), False, id="the last chunk, inside a comment"),
    ],
)
def test_a_stream_that_ends_in_good_order_is_an_answer(
    emulator: Emulator, client: Client, caplog: pytest.LogCaptureFixture, reply: Reply, complete: bool
) -> None:
    """It is complete where the service said so; else the answer says that it is not, and a warning is logged."""
    emulator.script(reply)
    with caplog.at_level(logging.WARNING, "copilot_sync"):
        answer = client.ask("hi")
    assert (answer.text, answer.complete) == ("one", complete)
    assert ["did not say that the answer is complete" in record.message for record in caplog.records] == (
        [] if complete else [True]
    )
    assert stages(emulator) == ["thread", "message"] + ([] if complete else ["messages"])


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("whole", [False, True], ids=["stream", "ask"])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(ONE, id="without a word"),
        pytest.param(ONE + TWO[:-1], id="inside an event"),
        pytest.param(ONE + b"d", id="one byte of an event"),
        pytest.param(ONE + TWO + COMPLETE[:-1], id="inside complete"),
        pytest.param(ONE + b"data: {nonsense\n\n", id="behind an event that can't be read"),
    ],
)
def test_an_answer_without_its_end_is_the_one_in_the_thread(
    emulator: Emulator, client: Client, caplog: pytest.LogCaptureFixture, raw: bytes, framing: Any, whole: bool
) -> None:
    """Whatever the framing says: a proxy may put a last chunk behind what it cut."""
    emulator.script(Reply(raw=raw, pieces=["one", "two", "three"], framing=framing))
    stream = client.stream("hi", buffered=whole)
    pieces = list(stream)
    assert "".join(pieces) == "onetwothree"
    assert pieces[0] == ("onetwothree" if whole else "one")
    assert stream.answer is not None and stream.answer.complete
    assert stream.answer.message_id == stream.start().message_id == emulator.requests[1].json["responseMessageID"]
    assert stages(emulator) == ["thread", "message", "messages"]


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_another_text_in_the_thread_means_that_the_answer_was_cut(
    emulator: Emulator, client: Client, framing: Any
) -> None:
    """What was handed out can't be taken back; where nothing was, the thread is right."""
    other = Reply(raw=ONE, pieces=["quite another"], framing=framing)
    emulator.script(other, other)
    pieces: List[str] = []
    stream = client.stream("hi")
    with pytest.raises(StreamInterruptedError, match="its thread has another text") as caught:
        pieces.extend(stream)
    assert (pieces, caught.value.partial, caught.value.conversation) == (["one"], "one", stream.conversation)
    assert stream.answer is None
    answer = client.ask("hi")
    assert (answer.text, answer.complete) == ("quite another", True)


LOOKS = [
    pytest.param(Fault.status(404), id="404"),
    pytest.param(Fault.status(405), id="405"),
    pytest.param(Fault.status(501), id="501"),
    pytest.param(Fault.status(503), id="503"),
    pytest.param(Fault.status(429, retry_after=30), id="429"),
    pytest.param(Fault.drop(), id="cut"),
    pytest.param(Fault.garbage(), id="a web page"),
    pytest.param(Fault.garbage('{"messages": []}', "application/json"), id="not there"),
    pytest.param(Fault.garbage('{"thread": {}, "messages": null}', "application/json"), id="null"),
]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("whole", [False, True], ids=["stream", "ask"])
def test_an_answer_that_ended_in_good_order_needs_no_thread(
    emulator: Emulator, client: Client, caplog: pytest.LogCaptureFixture, look: Fault, whole: bool
) -> None:
    """One look that brings nothing leaves it as it is: not known to be complete. It is not tried again."""
    emulator.script(Reply(raw=ONE, pieces=["one", "two"]))
    emulator.fail("messages", look)
    answer = client.ask("hi") if whole else client.stream("hi").read()
    assert (answer.text, answer.complete) == ("one", False)
    assert stages(emulator) == ["thread", "message", "messages"]
    assert ["did not say that the answer is complete" in record.message for record in caplog.records] == [True]


def test_a_look_that_takes_too_long_is_given_up(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an answer that ended in good order there is no more time than for one that was lost."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.3)
    emulator.script(Reply(raw=ONE))
    emulator.fail("messages", Fault.stall())
    with client_of(emulator) as client:
        assert client.ask("hi").text == "one"


def test_a_stream_that_is_closed_while_it_looks_for_its_end_is_closed(emulator: Emulator, client: Client) -> None:
    """It does not become an answer that way."""
    emulator.script(Reply(raw=ONE))
    emulator.fail("messages", Fault.stall())
    stream = client.stream("hi")
    reader = Worker(stream.read)
    assert emulator.wait_until(lambda: emulator.stalled)
    stream.close()
    with pytest.raises(StreamClosedError):
        reader.result()
    assert stream.answer is None


def test_nothing_is_looked_for_where_that_is_not_wanted(emulator: Emulator, client: Client) -> None:
    """``resume=False`` gives what came."""
    hole = ONE + b"data: {nonsense\n\n" + COMPLETE
    emulator.script(Reply(raw=ONE), Reply(raw=hole))
    answers = [client.ask("hi", resume=False) for _ in range(2)]
    assert [(answer.text, answer.complete) for answer in answers] == [("one", False)] * 2
    assert "messages" not in stages(emulator)


@responses.activate
def test_a_body_with_no_connection_behind_it_ends_in_good_order() -> None:
    """The body of a mock is taken as it is, at once, though nobody can look at its thread."""
    responses.post("https://api.example/github/chat/threads/t-1/messages", ONE, content_type="text/event-stream")
    answer = Client("key", api_url="https://api.example").ask("hi", conversation="t-1")
    assert (answer.text, answer.complete) == ("one", False)


@responses.activate
def test_pieces_of_a_mock_come_one_by_one() -> None:
    """A mock that hands over its body in reads of its own is read like a socket."""
    responses.post(URL, in_pieces([ONE[:7], ONE[7:] + TWO, COMPLETE]), content_type="text/event-stream")
    assert list(Client("key", api_url="https://api.example").stream("hi", conversation="t-1")) == ["one", "two"]


@pytest.mark.parametrize(
    "reply, fault",
    [
        pytest.param(Reply(raw=ONE, framing="close"), None, id="a close-delimited body"),
        pytest.param(Reply(["one", "two"]), Fault.cut(1), id="a missing chunk"),
        pytest.param(Reply(["one", "two"]), Fault.cut(1, mid_event=True), id="a torn chunk"),
        pytest.param(Reply(["one", "two"], framing="length"), Fault.cut(1, mid_event=True), id="a short body"),
        pytest.param(Reply(["one", "two"], framing="close"), Fault.cut(1, mid_event=True), id="a torn event"),
        pytest.param(Reply(["one", "two"]), Fault.cut(1, reset=True), id="a reset"),
        pytest.param(Reply(["one", "two"], encoding="gzip"), Fault.cut(1), id="gzip"),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["stream", "ask"])
def test_a_cut_stream_is_never_taken_for_an_answer(
    emulator: Emulator, client: Client, reply: Reply, fault: Optional[Fault], whole: bool
) -> None:
    """The error carries exactly what had come, and the conversation to look at."""
    emulator.script(reply)
    emulator.fail("message", fault)
    conversation = client.create_thread()
    pieces: List[str] = []
    with pytest.raises(StreamInterruptedError, match="cut before its end") as caught:
        if whole:
            client.ask("hi", conversation=conversation, resume=False)
        else:
            pieces.extend(client.stream("hi", conversation=conversation, resume=False))
    error = caught.value
    assert (error.partial, error.stage, error.attempts) == ("one", "stream", 1)
    assert error.conversation is conversation
    assert isinstance(error.__cause__, NetworkError)


def test_after_its_end_a_stream_stays_ended(emulator: Emulator, client: Client) -> None:
    """Asking again neither raises again nor sends anything."""
    emulator.script(Reply(["one"], error="boom"))
    stream = client.stream("hi")
    with pytest.raises(ServerError):
        list(stream)
    assert (list(stream), list(stream.events()), stream.answer) == ([], [], None)
    stream.close()
    assert list(stream) == []
    assert stages(emulator) == ["thread", "message"]


@pytest.mark.parametrize("before", [["one"], []], ids=["after content", "before any content"])
@pytest.mark.parametrize(
    "event, kind",
    [
        pytest.param("boom", ServerError, id="no code"),
        pytest.param({"message": "boom", "code": "internal"}, ServerError, id="a code that says nothing"),
        pytest.param({"message": "boom", "code": 502}, ServerError, id="a status that may be tried again"),
        pytest.param({"message": "boom", "code": "rate_limited"}, RateLimitError, id="rate limit"),
        pytest.param({"message": "boom", "code": 429}, RateLimitError, id="429"),
        pytest.param({"message": "boom", "code": "quota_exceeded"}, QuotaExceededError, id="quota"),
        pytest.param({"description": "boom", "code": "unauthorized"}, AuthenticationError, id="authentication"),
        pytest.param({"error": {"message": "boom", "code": "bad_request"}}, InvalidRequestError, id="nested"),
    ],
)
def test_an_error_event_is_raised_and_the_message_not_sent_again(
    emulator: Emulator, client: Client, before: List[str], event: Any, kind: Type[CopilotError]
) -> None:
    """It is of the kind that its code says, with the text so far: the service took the message, whatever it says."""
    emulator.script(Reply(before, error=event))
    stream = client.stream("hi")
    with pytest.raises(kind, match="boom") as caught:
        list(stream)
    assert type(caught.value) is kind
    assert (caught.value.partial, caught.value.stage, caught.value.attempts) == ("".join(before), "stream", 1)
    assert stream.answer is None
    assert stages(emulator) == ["thread", "message"]


def test_an_error_event_does_not_echo_the_token(emulator: Emulator, client: Client) -> None:
    """The service's words are masked before they become a message."""
    emulator.script(Reply([], error=f"bad token {emulator.api_key}"))
    with pytest.raises(ServerError) as caught:
        client.ask("hi")
    assert emulator.api_key not in str(caught.value)


HOLES = [
    pytest.param(b"data: {nonsense\n\n", id="not JSON"),
    pytest.param(b"data: [1, 2]\n\n", id="a list"),
    pytest.param(b'data: "text"\n\n', id="a string"),
    pytest.param(b"data: null\n\n", id="null"),
    pytest.param(b'data: {"type":"content","body":"a"} {"type":"content","body":"b"}\n\n', id="two objects"),
    pytest.param(b'data: {"type":"content","body":7}\n\n', id="a body that is no string"),
    pytest.param(b'data: {"type":"content","body":{"text":"x"}}\n\n', id="a body that is an object"),
    pytest.param(b"data: " + b"[" * 100_000 + b"\n\n", id="nested without end"),
]


@pytest.mark.parametrize("event", HOLES)
@pytest.mark.parametrize("end", [COMPLETE, DONE], ids=["complete", "[DONE]"])
@pytest.mark.parametrize("whole", [False, True], ids=["stream", "ask"])
def test_an_answer_with_a_hole_is_not_complete(
    emulator: Emulator, client: Client, caplog: pytest.LogCaptureFixture, event: bytes, end: bytes, whole: bool
) -> None:
    """An event that can't be read may have held some of the text. It is told, and does not cost the rest."""
    emulator.script(Reply(raw=ONE + event + TWO + end))
    stream = client.stream("hi", buffered=whole)
    with caplog.at_level(logging.WARNING, "copilot_sync"):
        events = list(stream.events())
    assert [event.type for event in events[-2:]] == (["content", "complete"] if end is COMPLETE else ["content"] * 2)[
        -2 if not whole or end is COMPLETE else -1 :
    ]
    assert stream.answer is not None
    assert (stream.text, stream.answer.complete) == ("onetwo", False)
    assert stream.answer.conversation.message_id is None
    assert ["was skipped" in record.message for record in caplog.records] == [True, False]
    assert "could not be read" in caplog.text


@pytest.mark.parametrize("end", [COMPLETE, DONE], ids=["complete", "[DONE]"])
@pytest.mark.parametrize(
    "stored, whole, text, complete",
    [
        pytest.param("onetwo", False, "onetwo", True, id="nothing was in it"),
        pytest.param("onetwo", True, "onetwo", True, id="nothing was in it, ask"),
        pytest.param("onetwothree", False, "onetwothree", True, id="it was the last"),
        pytest.param("one and two", True, "one and two", True, id="in the middle, ask"),
        pytest.param("one and two", False, "onetwo", False, id="in the middle"),
    ],
)
def test_a_hole_is_mended_from_the_thread(
    emulator: Emulator, client: Client, stored: str, whole: bool, text: str, complete: bool, end: bytes
) -> None:
    """As far as what was handed out is the beginning of it; what the service said at the end is kept."""
    said = end.replace(b'"m-1"', b'"m-1","usage":{"inputTokens":1,"outputTokens":2}')
    emulator.script(Reply(raw=ONE + TWO + b"data: {nonsense\n\n" + said, pieces=[stored]))
    stream = client.stream("hi", buffered=whole)
    assert "".join(stream) == text
    assert stream.answer is not None
    assert (stream.answer.text, stream.answer.complete) == (text, complete)
    if end is COMPLETE:
        assert (stream.answer.message_id, stream.answer.usage) == ("m-1", Usage(1, 2))
    assert stages(emulator) == ["thread", "message", "messages"]


def test_a_hole_of_one_attempt_is_none_of_the_next(emulator: Emulator, client: Client) -> None:
    """What was sent again begins anew."""
    emulator.fail("message", Fault.garbage("data: {nonsense\n\n", "text/event-stream"))
    answer = client.ask("hi")
    assert (answer.text, answer.complete) == ("hi", True)


def test_an_answer_that_is_nothing_but_a_hole_is_not_complete(emulator: Emulator, client: Client) -> None:
    """It looks like an empty answer, and may have been any."""
    emulator.script(Reply(raw=b"data: {nonsense\n\n" + COMPLETE))
    answer = client.ask("hi")
    assert (answer.text, answer.complete) == ("", False)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b'data: {"type":"content"}\n\n', id="no body"),
        pytest.param(b'data: {"type":"content","body":null}\n\n', id="null"),
        pytest.param(b'data: {"type":"content","body":""}\n\n', id="an empty body"),
        pytest.param(b": keep-alive\n\n", id="a comment"),
        pytest.param(b"retry: 10\nid: 7\n\n", id="fields that mean nothing here"),
    ],
)
def test_an_event_without_text_is_passed_over_quietly(
    emulator: Emulator, client: Client, caplog: pytest.LogCaptureFixture, event: bytes
) -> None:
    """The service sends such events; they are nothing to worry about and no piece of text."""
    emulator.script(Reply(raw=event + ONE + event + COMPLETE))
    with caplog.at_level(logging.WARNING, "copilot_sync"):
        assert list(client.stream("hi")) == ["one"]
    assert caplog.records == []


def test_the_name_of_an_event_does_not_matter(emulator: Emulator, client: Client) -> None:
    """Only ``data`` counts, unless ``event:`` says that it is an error."""
    emulator.script(Reply(raw=b"event: content\n" + ONE + b"event: ping\n" + COMPLETE))
    assert client.ask("hi").text == "one"


# fmt: off
FAILURES = [
    # what comes behind a piece of the answer                                   its kind              its words
    (b'data: {"error":{"message":"boom","code":"rate_limited"}}\n\n',           RateLimitError,       "boom"),
    (b'data: {"error":{"message":"boom","code":"server_error"}}\n\n',           ServerError,          "boom"),
    (b'data: {"error":{"message":"boom","type":"insufficient_quota"}}\n\n',     QuotaExceededError,   "boom"),
    (b'data: {"error":{"message":"boom","status":401}}\n\n',                    AuthenticationError,  "boom"),
    (b'data: {"error":{"message":"boom"},"code":"429"}\n\n',                    RateLimitError,       "boom"),
    (b'data: {"error":"it broke"}\n\n',                                         ServerError,          "it broke"),
    (b'data: {"type":"content","body":"x","error":"it broke"}\n\n',             ServerError,          "it broke"),
    (b'data: {"type":"complete","error":{"message":"boom"}}\n\n',               ServerError,          "boom"),
    (b'data: {"type":"error","message":"boom","code":"bad_request"}\n\n',       InvalidRequestError,  "boom"),
    (b'data: {"message":"Not you","status":"401"}\n\n',                         AuthenticationError,  "Not you"),
    (b"event: error\ndata: it broke\n\n",                                      ServerError,          "it broke"),
    (b"event:error\ndata:it broke\n\n",                                        ServerError,          "it broke"),
    (b'event: error\ndata: {"message":"boom","code":"rate_limited"}\n\n',      RateLimitError,       "boom"),
    (b'event: error\ndata: {"type":"content","body":"boom"}\n\n',              ServerError,          "boom"),
    (b'event: error\ndata: {"type":"complete","message":"boom"}\n\n',          ServerError,          "boom"),
    (b'event: error\ndata: {"error":{"message":"boom"}}\n\n',                  ServerError,          "boom"),
    (b"event: error\ndata: [DONE]\n\n",                                        ServerError,          "[DONE]"),
    (b"event: error\ndata: " + b"[" * 5000 + b"\n\n",                          ServerError,          "[[["),
    (b"event: error\n\n",                                                      ServerError,          ""),
]
# fmt: on


@pytest.mark.parametrize("end", [COMPLETE, DONE, b""], ids=["complete", "[DONE]", "no word"])
@pytest.mark.parametrize("before", [ONE, b""], ids=["after content", "before any content"])
@pytest.mark.parametrize(("event", "kind", "words"), FAILURES, ids=lambda value: str(value)[:60])
def test_an_error_in_a_stream_is_raised_in_every_shape(
    emulator: Emulator,
    client: Client,
    event: bytes,
    kind: Type[CopilotError],
    words: str,
    before: bytes,
    end: bytes,
) -> None:
    """Whatever follows: with its words, as what its code says, and with the text that had come."""
    emulator.script(Reply(raw=before + event + end))
    stream = client.stream("hi")
    with pytest.raises(kind) as caught:
        list(stream)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert (caught.value.partial, stream.answer) == ("one" if before else "", None)
    assert stages(emulator) == ["thread", "message"]


@pytest.mark.parametrize(
    "last, words",
    [
        pytest.param(b'data: {"error":{"message":"boom"}}\n', "boom", id="a line"),
        pytest.param(b'data: {"error":{"message":"boom"}}', "boom", id="half a line"),
        pytest.param(b"event: error\ndata: it bro", "it bro", id="half of its words"),
        pytest.param(b'{"error":{"message":"boom"}}', "boom", id="no event at all"),
    ],
)
def test_an_error_is_told_though_it_is_not_a_whole_event(
    emulator: Emulator, client: Client, last: bytes, words: str
) -> None:
    """A server that fails may not get as far as the blank line."""
    emulator.script(Reply(raw=ONE + last))
    with pytest.raises(ServerError, match=words) as caught:
        client.ask("hi")
    assert caught.value.partial == "one"


@pytest.mark.parametrize("form", ["{}", "{}\n", "{}\n\n", "{}\n\ndata: [DONE]\n\n", "{}\ndata: [DONE]\n\n"])
@pytest.mark.parametrize("text", ['{"error":{"message":"boom"}}', '{"errors":[{"message":"boom"}]}'])
def test_an_error_is_told_though_nothing_says_that_it_is_an_event(
    emulator: Emulator, client: Client, text: str, form: str
) -> None:
    """Something in between writes its own words into the stream, whatever follows them."""
    emulator.script(Reply(raw=ONE + form.replace("{}", text).encode()))
    with pytest.raises(ServerError, match="boom") as caught:
        client.ask("hi")
    assert caught.value.partial == "one"


@pytest.mark.parametrize("words", [b"Internal Server Error\n\n", b"<html>\n<title>Bad gateway</title>\n\n"])
def test_words_in_the_middle_are_a_hole(emulator: Emulator, client: Client, words: bytes) -> None:
    """Whoever wrote them may have left something out."""
    emulator.script(Reply(raw=ONE + words + b"data: [DONE]\n\n"))
    assert not client.ask("hi", resume=False).complete


def test_an_event_that_is_no_error_passes_on(emulator: Emulator, client: Client) -> None:
    """Though it has a place for one."""
    others: List[Any] = [{"type": "thinking", "error": None}, {"error": "", "step": 1}]
    emulator.script(Reply(["one", *others]))
    events = list(client.stream("hi").events())
    assert [event.data for event in events[1:3]] == others
    assert [event.type for event in events] == ["content", "thinking", "", "complete"]


@pytest.mark.parametrize("end", [COMPLETE, DONE], ids=["complete", "[DONE]"])
@pytest.mark.parametrize(
    "after",
    [
        pytest.param(TWO, id="more text"),
        pytest.param(b'data: {"type":"error","message":"boom"}\n\n', id="an error"),
        pytest.param(b'data: {"type":"complete","id":"m-2"}\n\n', id="another complete"),
        pytest.param(b"data: {nonsense\n\n", id="nonsense"),
        pytest.param(b"x" * 200_000, id="more than is drained"),
    ],
)
def test_nothing_counts_after_the_end(emulator: Emulator, client: Client, end: bytes, after: bytes) -> None:
    """What follows is neither handed out nor raised, in the same packet or in a later one."""
    for reply in (Reply(raw=ONE + end + after), Reply([ONE, end, after])):
        emulator.script(reply)
        events = list(client.stream("hi").events())
        assert [event.type for event in events] == (["content", "complete"] if end is COMPLETE else ["content"])
        assert isinstance(events[-1], CompleteEvent) == (end is COMPLETE)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(raw=COMPLETE), id="complete"),
        pytest.param(Reply(raw=DONE), id="[DONE]"),
        pytest.param(Reply("", as_json=True), id="plain JSON"),
    ],
)
def test_an_empty_answer_is_an_answer(emulator: Emulator, client: Client, reply: Reply) -> None:
    """``ask`` gives an empty text and a stream no piece, and the message is not sent again."""
    emulator.script(reply, reply)
    assert client.ask("hi").text == ""
    stream = client.stream("hi")
    assert list(stream) == []
    assert stream.answer == Answer(
        "", stream.start(), "gpt-4o", None, stream.answer.message_id if stream.answer else "", {}, True
    )
    assert stages(emulator).count("message") == 2


# Its connection


@pytest.mark.parametrize(
    "reply, connections",
    [
        pytest.param(Reply(), 1, id="chunked"),
        pytest.param(Reply(framing="length"), 1, id="Content-Length"),
        pytest.param(Reply(encoding="gzip"), 1, id="gzip"),
        pytest.param(Reply(done=True), 1, id="[DONE] after complete"),
        pytest.param(Reply(complete=False, done=True), 1, id="[DONE] alone"),
        pytest.param(Reply(complete=False), 4, id="an end without complete"),
        pytest.param(Reply(as_json=True), 1, id="plain JSON"),
        pytest.param(Reply([COMPLETE, b"x" * 10_000]), 1, id="a little after the end"),
        pytest.param(Reply([COMPLETE, b"x" * 200_000]), 3, id="too much after the end"),
        pytest.param(Reply(framing="close"), 3, id="close-delimited"),
    ],
)
def test_a_finished_answer_gives_its_connection_back(
    emulator: Emulator, client: Client, reply: Reply, connections: int
) -> None:
    """The next question needs no new connection, unless this one is used up, or was not understood to its end."""
    conversation = client.create_thread()
    emulator.reply = reply
    for _ in range(3):
        client.ask("hi there", conversation=conversation.conversation_id)
    assert emulator.connections == connections


def test_an_answer_does_not_wait_for_a_body_that_stays_open(emulator: Emulator, client: Client) -> None:
    """After ``complete`` the connection is given up where the body does not end."""
    emulator.script(["one"])
    emulator.fail("message", Fault.stall(("after_events", 2)))
    assert client.ask("hi").complete
    assert emulator.wait_until(lambda: emulator.stalled == 0 and emulator.idle_connections == 0)
    assert client.ask("again").text == "again"


# Its bounds


@pytest.mark.parametrize(
    "limits, pieces, partial",
    [
        pytest.param(Limits(answer=6), ["abc", "def", "g"], "abcdef", id="an answer"),
        pytest.param(Limits(answer=6), ["aé", "ßü", "x"], "aé", id="bytes, not characters"),
        pytest.param(Limits(event=100), ["abc", "x" * 100], "abc", id="an event"),
    ],
)
def test_an_answer_past_its_bounds_is_given_up(
    emulator: Emulator, limits: Limits, pieces: List[str], partial: str
) -> None:
    """The text so far is in the error, the connection is closed, and nothing is fetched from the thread."""
    emulator.script(pieces)
    with client_of(emulator, limits=limits) as client:
        with pytest.raises(ResponseTooLargeError) as caught:
            client.ask("hi")
        assert (caught.value.partial, caught.value.stage) == (partial, "stream")
        assert emulator.wait_until(lambda: emulator.open_connections == 0)
    assert stages(emulator) == ["thread", "message"]


# Its life


def test_a_stream_closes_as_soon_as_nobody_holds_it(emulator: Emulator, client: Client) -> None:
    """Dropping it is enough; on CPython that needs no garbage collection."""
    emulator.script(Reply(iter(["one", "two"])))
    emulator.fail("message", Fault.status(409), Fault.stall(("after_events", 1)))
    gc.disable()
    try:
        stream = client.stream("hi")
        assert next(stream) == "one"
        del stream
        if platform.python_implementation() != "CPython":  # pragma: no cover - only there it needs a collection
            gc.collect()
        assert emulator.wait_until(lambda: emulator.disconnects)
    finally:
        gc.enable()


def test_a_stream_closed_before_it_began_is_just_over(emulator: Emulator, client: Client) -> None:
    """For the thread that closed it there is nothing to read; another one is told why."""
    stream = client.stream("hi")
    stream.close()
    stream.close()
    assert (list(stream), list(stream.events()), emulator.requests) == ([], [], [])
    with pytest.raises(StreamClosedError, match="before its conversation began"):
        stream.start()
    errors: List[BaseException] = []

    def read() -> None:
        with pytest.raises(StreamClosedError, match="closed by another thread") as caught:
            next(stream)
        errors.append(caught.value)

    in_thread(read)
    assert len(errors) == 1


def test_reading_a_stream_that_was_closed_raises_what_had_come(emulator: Emulator, client: Client) -> None:
    """There is no answer to give, whichever thread closed it."""
    emulator.script(["one", "two"], ["one", "two"])
    mine, another = client.stream("hi"), client.stream("hi")
    assert (next(mine), next(another)) == ("one", "one")
    mine.close()
    in_thread(another.close)
    for stream in (mine, another, another):
        with pytest.raises(StreamClosedError) as caught:
            stream.read()
        assert (caught.value.partial, caught.value.stage) == ("one", "stream")


def test_an_answer_that_is_whole_is_given_whoever_closed_the_stream(emulator: Emulator, client: Client) -> None:
    """Once its last event was seen, there is nothing more to come."""
    emulator.script(["one", "two"])
    stream = client.stream("hi")
    assert next(event for event in stream.events() if event.type == "complete")
    in_thread(stream.close)
    assert stream.read().text == "onetwo"


def test_reading_ends_when_another_thread_closes_the_stream(emulator: Emulator, client: Client) -> None:
    """At once, also while it waits for the service."""
    emulator.script(["one", "two"])
    emulator.fail("message", Fault.stall(("after_events", 1)))
    stream = client.stream("hi")
    reading = Worker(stream.read)
    assert emulator.wait_until(lambda: emulator.stalled)
    stream.close()
    with pytest.raises(StreamClosedError, match="closed by another thread"):
        reading.result()


def test_reading_a_stream_that_has_failed_says_so(emulator: Emulator, client: Client) -> None:
    """The first time with what went wrong, from then on that there is no answer; nothing is asked again."""
    emulator.script(["one", "two"])
    emulator.fail("message", Fault.cut(1, reset=True))
    stream = client.stream("hi", resume=False)
    with pytest.raises(StreamInterruptedError) as caught:
        stream.read()
    assert caught.value.partial == "one"
    with pytest.raises(StreamClosedError, match="or had failed") as again:
        stream.read()
    assert (again.value.partial, stages(emulator)) == ("one", ["thread", "message"])


def test_a_stream_that_could_not_begin_says_so_when_it_is_asked_again(emulator: Emulator, client: Client) -> None:
    """The first call raises what went wrong; there is no conversation to give afterwards."""
    emulator.fail("thread", Fault.status(403))
    stream = client.stream("hi")
    with pytest.raises(AuthenticationError):
        stream.start()
    with pytest.raises(StreamClosedError):
        stream.start()
    assert list(stream) == []


def test_a_stream_is_read_by_one_thread_at_a_time(emulator: Emulator, client: Client) -> None:
    """A second reader is told, and the first one is not disturbed."""
    emulator.script(["one", "two"])
    emulator.fail("message", Fault.stall(("after_events", 1)))
    stream = client.stream("hi")
    pieces: List[str] = []
    reader = threading.Thread(target=lambda: pieces.extend(stream))
    reader.start()
    assert emulator.wait_until(lambda: emulator.stalled)
    with pytest.raises(RuntimeError, match="one thread at a time"):
        next(stream)
    with pytest.raises(RuntimeError, match="one thread at a time"):
        stream.read()
    emulator.release()
    reader.join(5)
    assert pieces == ["one", "two"]


def test_the_text_may_be_looked_at_from_any_thread(emulator: Emulator, client: Client) -> None:
    """Looking never loses a piece that comes at the same time."""
    pieces = [f"{number} " for number in range(10_000)]
    emulator.script(Reply(pieces, per_write=1000))
    stream = client.stream("hi")
    interval = sys.getswitchinterval()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            repr(stream)

    watcher = threading.Thread(target=look)
    watcher.start()
    sys.setswitchinterval(1e-6)
    try:
        assert list(stream) == pieces
    finally:
        sys.setswitchinterval(interval)
        over.set()
        watcher.join(5)
    assert stream.text == "".join(pieces)


def test_an_argument_that_turns_out_wrong_is_no_error_of_the_stream(emulator: Emulator) -> None:
    """Credentials are looked at when the first token is needed; what is wrong with them comes through as it is."""

    def refuse(conversation: Conversation) -> None:
        raise ValueError("not this one")

    with client_of(emulator) as client:
        stream = client.stream("hi", on_start=refuse)
        with pytest.raises(ValueError, match="not this one"):
            next(stream)
    with Client(cookies={"user_session": "a\nb"}, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        with pytest.raises(ValueError, match="user_session"):
            next(client.stream("hi"))


def test_a_stream_shows_its_state(emulator: Emulator, client: Client) -> None:
    """Its ``repr`` says how far it is, and nothing of what was said."""
    emulator.script(["secret", "!"], "done")
    stream = client.stream("hi")
    next(stream)
    assert repr(stream) == "<Stream open, 6 characters>"
    stream.close()
    assert repr(stream) == "<Stream closed, 6 characters>"
    with client.stream("hi") as finished:
        assert list(finished) == ["done"]
    assert repr(finished) == "<Stream finished, 4 characters>"


def test_a_stream_does_not_pickle_and_says_what_does(client: Client) -> None:
    """A live connection can't travel."""
    with pytest.raises(TypeError, match="pickle its answer or its conversation"):
        pickle.dumps(client.stream("hi"))


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
