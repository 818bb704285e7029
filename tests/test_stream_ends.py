"""How a stream ends: in good order, cut, with a hole, or with an error in it."""

import logging
from typing import Any, Iterator, List, Optional, Type

import pytest
import responses
from streams import COMPLETE, DONE, ONE, TWO, URL, client_of, in_pieces
from support import Worker, stages

from copilot_sync import (
    Answer,
    AuthenticationError,
    Client,
    CompleteEvent,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    Usage,
)
from copilot_sync.delivery import recovery
from copilot_sync.emulator import Emulator, Fault, Reply


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator, model="gpt-4o") as opened:
        yield opened


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
    with client_of(emulator, model="gpt-4o") as client:
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
    answer = Client("key", api_url="https://api.example").ask("hi", conversation="t-1", parent_message_id="root")
    assert (answer.text, answer.complete) == ("one", False)


@responses.activate
def test_pieces_of_a_mock_come_one_by_one() -> None:
    """A mock that hands over its body in reads of its own is read like a socket."""
    responses.post(URL, in_pieces([ONE[:7], ONE[7:] + TWO, COMPLETE]), content_type="text/event-stream")
    assert list(
        Client("key", api_url="https://api.example").stream("hi", conversation="t-1", parent_message_id="root")
    ) == ["one", "two"]


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
