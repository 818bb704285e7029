"""A reply that is no event stream: an answer or an error in JSON, whatever its label says."""

import gzip
import time
from typing import Any, Iterator, Optional, Type

import pytest
import responses
from streams import COMPLETE, DONE, ONE, TWO, URL, client_of, in_pieces
from support import Peer, Server, stages

from copilot_sync import (
    AuthenticationError,
    Client,
    CopilotError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ResponseTooLargeError,
    ServerError,
)
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.settings import Limits


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator) as opened:
        yield opened


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
    assert (
        Client("key", api_url="https://api.example").ask("hi", conversation="t-1", parent_message_id="root").text
        == "onetwo"
    )


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
            assert client.ask("hi", conversation="t-1", parent_message_id="root").text == "onetwo"
        else:
            with pytest.raises(ServerError, match=words):
                client.ask("hi", conversation="t-1", parent_message_id="root")
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
            client.ask("hi", conversation="t-1", parent_message_id="root")


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
            client.ask("hi", conversation="t-1", parent_message_id="root")


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
