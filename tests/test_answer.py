"""The reading of an answer: bytes and their end go in, events and a verdict come out. No server and no clock."""

import asyncio
import json
import socket
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Type, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_sync.delivery.answer import AnswerParser, ReplyEnd, ReplyVerdict
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    NetworkError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ResponseTooLargeError,
    ServerError,
    StreamClosedError,
)
from copilot_sync.models import Conversation
from copilot_sync.settings import ERROR_BODY, Limits
from copilot_sync.usage import Usage

ONE = b'data: {"type":"content","body":"one"}\n\n'
TWO = b'data: {"type":"content","body":"two"}\n\n'
COMPLETE = b'data: {"type":"complete","id":"m-1"}\n\n'
DONE = b"data: [DONE]\n\n"
HOLE = b"data: {nonsense\n\n"
ROUTED = b'data: {"type":"routedModel","model":"gpt-x"}\n\n'
NOTES = b'data: {"type":"annotations","copilotAnnotations":{"a":1}}\n\n'
UNKNOWN = b'data: {"type":"news"}\n\n'
FAILED = b'data: {"type":"error","message":"boom","code":"rate_limited"}\n\n'
EMPTY = b'data: {"type":"content","body":""}\n\n'
DOCUMENT = b'{"message":{"id":"m-1","content":"onetwo"}}'
PAGE = b"<html><title>Bad gateway</title></html>"
WORDS = b"upstream is away"

#: How a body ends: in good order, without a proof of it, or with a failure.
PROVED, BARE = "proved", "bare"
LOST = NetworkError("the connection was reset", stage="stream")
SILENT = RequestTimeoutError("nothing more came", phase="read", stage="stream")
BROKEN = ProtocolError("the chunks are broken", stage="stream")
BodyEnd = Union[str, CopilotError]

WHOLE, UNPROVEN, CUT, ERROR = ReplyVerdict.WHOLE, ReplyVerdict.UNPROVEN, ReplyVerdict.CUT, ReplyVerdict.ERROR


def new_builder() -> AnswerBuilder:
    return AnswerBuilder(Conversation("t-1"), "gpt-4o", "answer-1")


class Reading(NamedTuple):
    """What came of some bytes: the types of the events, the text, and the end."""

    types: Tuple[str, ...]
    text: str
    end: Optional[ReplyEnd]

    @property
    def facts(self) -> Tuple[Any, ...]:
        """All of it in a form that compares: errors don't."""
        assert self.end is not None
        error = self.end.error
        said = error and (type(error), error.args, error.stage)
        return (self.types, self.text, self.end.verdict, self.end.event, self.end.doubt, self.end.may_be_cut, said)


def read(pieces: Iterable[bytes], body_end: BodyEnd = PROVED, limits: Optional[Limits] = None) -> Reading:
    """Feed a body to a parser, to its end or to what the parser takes for it."""
    builder, events = new_builder(), []
    parser = AnswerParser(builder, limits or Limits())
    for piece in pieces:
        for event in parser.feed(piece):
            events.append(event)
            assert builder.text.endswith(getattr(event, "body", ""))  # it is noted before it is handed out
        if parser.end is not None:
            break
    else:
        if isinstance(body_end, CopilotError):
            parser.fail(body_end)
        else:
            events += parser.feed_eof(framing_complete=body_end == PROVED)
    return Reading(tuple(event.type for event in events), builder.text, parser.end)


# fmt: off
ENDS: Dict[str, Tuple[bytes, BodyEnd, str, ReplyVerdict, str]] = {
    # what it is                     its bytes                             end     text      verdict   words
    "complete":                     (ONE + TWO + COMPLETE,                 PROVED, "onetwo", WHOLE,    ""),
    "[DONE]":                       (ONE + DONE,                           BARE,   "one",    WHOLE,    ""),
    "complete, then a reset":       (ONE + COMPLETE,                       LOST,   "one",    WHOLE,    ""),
    "unknown events":               (UNKNOWN + ONE + UNKNOWN + DONE,       PROVED, "one",    WHOLE,    ""),
    "complete without text":        (COMPLETE,                             PROVED, "",       WHOLE,    ""),
    "text behind complete":         (ONE + COMPLETE + TWO,                 PROVED, "one",    WHOLE,    ""),
    "a mark in front":              (b"\xef\xbb\xbf" + ONE + DONE,         BARE,   "one",    WHOLE,    ""),
    "blanks in front":              (b" \r\n\n" + ONE + DONE,              BARE,   "one",    WHOLE,    ""),
    "CRLF":                         ((ONE + DONE).replace(b"\n", b"\r\n"), BARE,   "one",    WHOLE,    ""),
    "a hole, complete":             (ONE + HOLE + COMPLETE,                PROVED, "one",    UNPROVEN, "not be read"),
    "a hole, [DONE]":               (HOLE + ONE + DONE,                    PROVED, "one",    UNPROVEN, "not be read"),
    "two holes":                    (HOLE + ONE + HOLE + DONE,             PROVED, "one",    UNPROVEN, "not be read"),
    "nothing but a hole":           (HOLE + COMPLETE,                      PROVED, "",       UNPROVEN, "not be read"),
    "in good order":                (ONE,                                  PROVED, "one",    UNPROVEN, "did not say"),
    "inside a comment":             (ONE + b": by",                        PROVED, "one",    UNPROVEN, "did not say"),
    "nothing proves the end":       (ONE,                                  BARE,   "one",    CUT,      "was whole"),
    "a reset":                      (ONE + TWO,                            LOST,   "onetwo", CUT,      "was reset"),
    "silence":                      (ONE,                                  SILENT, "one",    CUT,      "nothing more"),
    "inside an event":              (ONE + TWO[:-1],                       PROVED, "one",    CUT,      "was whole"),
    "inside complete":              (ONE + COMPLETE[:-1],                  PROVED, "one",    CUT,      "was whole"),
    "behind a hole":                (ONE + HOLE,                           PROVED, "one",    CUT,      "was whole"),
    "nothing":                      (b"",                                  PROVED, "",       CUT,      "began"),
    "blanks":                       (b" \n\n",                             PROVED, "",       CUT,      "began"),
    "nothing, a reset":             (b"",                                  LOST,   "",       CUT,      "was reset"),
    "the beginning of a field":     (b"dat",                               PROVED, "",       CUT,      "began"),
    "no text":                      (ROUTED + EMPTY,                       PROVED, "",       CUT,      "began"),
    "broken framing":               (ONE,                                  BROKEN, "one",    ERROR,    "are broken"),
    "an error":                     (ONE + FAILED + COMPLETE,              PROVED, "one",    ERROR,    "boom"),
    "an error before any text":     (FAILED,                               PROVED, "",       ERROR,    "boom"),
    "a torn error":                 (ONE + FAILED[:-1],                    PROVED, "one",    ERROR,    "boom"),
    "an error by name":             (b"event: error\ndata: boom\n\n",      LOST,   "",       ERROR,    "boom"),
    "a document":                   (DOCUMENT,                             PROVED, "onetwo", WHOLE,    ""),
    "a document, then silence":     (DOCUMENT,                             SILENT, "onetwo", WHOLE,    ""),
    "an empty document":            (b'{"message":{"content":""}}',        PROVED, "",       WHOLE,    ""),
    "a torn document":              (DOCUMENT[:-1],                        PROVED, "",       CUT,      "was whole"),
    "a document, a reset":          (DOCUMENT[:20],                        LOST,   "",       CUT,      "was reset"),
    "a document with an error":     (b'{"message":"boom"}',                PROVED, "",       ERROR,    "boom"),
    "a document without an answer": (b'{"a":1}',                           PROVED, "",       ERROR,    "no answer"),
    "a list":                       (b"[]",                                PROVED, "",       ERROR,    "[]"),
    "a page":                       (PAGE,                                 PROVED, "",       ERROR,    "Bad gateway"),
    "words":                        (WORDS,                                PROVED, "",       ERROR,    "is away"),
    "words, then a reset":          (WORDS,                                LOST,   "",       ERROR,    "is away"),
    "words, then silence":          (WORDS,                                SILENT, "",       ERROR,    "is away"),
    "a stream behind words":        (b"one moment\n\n" + ONE + DONE,       BARE,   "one",    UNPROVEN, "not be read"),
    "an error behind words":        (b"one moment\n\n" + FAILED,           LOST,   "",       ERROR,    "boom"),
}
# fmt: on


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_reply_decides_whether_its_answer_is_whole(name: str) -> None:
    """Each row of the module's table, and how its verdict reads: an error has words, a doubt too."""
    body, body_end, text, verdict, words = ENDS[name]
    seen = read([body], body_end)
    assert seen.end is not None
    assert (seen.text, seen.end.verdict) == (text, verdict)
    assert (seen.end.error is None) is (verdict in (WHOLE, UNPROVEN))
    assert words in (str(seen.end.error) if seen.end.error else seen.end.doubt)


@pytest.mark.parametrize("name", ENDS)
def test_a_reply_reads_the_same_however_it_is_cut(name: str) -> None:
    """In two pieces at every place, byte by byte, and with nothing in between."""
    body, body_end, *_ = ENDS[name]
    whole = read([body], body_end).facts
    for place in range(len(body) + 1):
        assert read([body[:place], body[place:]], body_end).facts == whole
    assert read([body[place : place + 1] for place in range(len(body))], body_end).facts == whole
    assert read([b"", body, b""], body_end).facts == whole


@given(st.sampled_from(sorted(ENDS)), st.lists(st.integers(0, 200)))
def test_a_reply_reads_the_same_in_any_number_of_pieces(name: str, places: List[int]) -> None:
    """The sizes of pieces are chance: they mean nothing."""
    body, body_end, *_ = ENDS[name]
    edges = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    pieces = [body[start:end] for start, end in zip(edges, edges[1:])]
    assert read(pieces, body_end).facts == read([body], body_end).facts


PARTS = [
    ONE,
    TWO,
    COMPLETE,
    DONE,
    HOLE,
    ROUTED,
    FAILED,
    EMPTY,
    WORDS,
    PAGE,
    DOCUMENT,
    b"\n",
    b"\r",
    b"{",
    b"data",
    b":",
]


@given(
    st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=20)), max_size=8),
    st.sampled_from([PROVED, BARE, LOST, SILENT, BROKEN]),
)
def test_any_bytes_come_to_an_end(pieces: List[bytes], body_end: BodyEnd) -> None:
    """Nothing is raised. What is called whole has been announced; an error is one of ours."""
    seen = read(pieces, body_end)
    assert seen.end is not None
    assert (seen.end.error is None) is (seen.end.verdict in (WHOLE, UNPROVEN))
    assert "content" in seen.types or not seen.text


def test_a_complete_answer_carries_what_the_service_said() -> None:
    """The last event comes with the end, so that the answer can be noted before it is handed out."""
    said = b'data: {"type":"complete","id":"m-1","model":"gpt-y","usage":{"inputTokens":1,"outputTokens":2}}\n\n'
    seen = read([ROUTED + NOTES + ONE + said])
    assert seen.types == ("routedModel", "annotations", "content")
    assert seen.end is not None and seen.end.event is not None
    assert (seen.end.event.id, seen.end.event.usage) == ("m-1", Usage(1, 2))


def test_an_answer_without_a_word_may_be_cut_and_one_with_a_hole_is_not() -> None:
    """Another text in the thread means different things for the two."""
    ends = [read([body]).end for body in (ONE, ONE + HOLE + COMPLETE, ONE + HOLE + DONE)]
    assert [end and end.may_be_cut for end in ends] == [True, False, False]
    assert [end is not None and end.event is not None for end in ends] == [False, True, False]


def test_the_failure_of_a_connection_is_the_error_itself() -> None:
    """With the cause that it has."""
    seen = read([ONE], SILENT)
    assert seen.end is not None and seen.end.error is SILENT


# fmt: off
KINDS: Dict[str, Tuple[bytes, Type[CopilotError]]] = {
    "a limit":        (FAILED,                                                             RateLimitError),
    "a status":       (b'data: {"error":{"message":"boom","code":401}}\n\n',               AuthenticationError),
    "words":          (WORDS,                                                              ServerError),
    "no answer":      (b'{"a":1}',                                                         ProtocolError),
    "a cut":          (ONE[:9],                                                            NetworkError),
}
# fmt: on


@pytest.mark.parametrize("name", KINDS)
def test_an_error_is_of_the_kind_that_its_code_says(name: str) -> None:
    """Whoever raises it need not look at it."""
    body, kind = KINDS[name]
    end = read([body]).end
    assert end is not None and type(end.error) is kind
    assert end.error.__traceback__ is None  # which would hold the parser


def test_secrets_are_masked_in_the_words_of_a_server() -> None:
    """In those of an event, and in those of a gateway."""
    for body in (b'data: {"error":"token s3cret is bad"}\n\n', b"token s3cret is bad"):
        parser = AnswerParser(new_builder(), Limits(), lambda text: text.replace("s3cret", "***"))
        assert [*parser.feed(body), *parser.feed_eof(framing_complete=True)] == []
        assert parser.end is not None and "token *** is bad" in str(parser.end.error)


# fmt: off
LIMITS: Dict[str, Tuple[List[bytes], Limits, str, str]] = {
    # what is too large      pieces                      limits                       text   words
    "an event":             ([ONE, TWO[:30]],            Limits(event=25),            "",    "event is longer than 25"),
    "an unfinished event":  ([b'data: {"x"', b"x" * 50], Limits(event=50, answer=50), "",    "event is longer than 50"),
    "the answer":           ([ONE + TWO + DONE],         Limits(answer=5),            "one", "answer is longer than 5"),
    "the document":         ([DOCUMENT],                 Limits(reply=20),            "",    "reply is longer than 20"),
    "its answer":           ([DOCUMENT],                 Limits(answer=5),            "",    "answer is longer than 5"),
    "no text":              ([ONE, *[EMPTY] * 3],        Limits(event=90, answer=90), "one", "90 bytes came without"),
    "blanks":               ([b" " * 60, b" " * 60],     Limits(event=90, answer=90), "",    "90 bytes came without"),
}
# fmt: on


@pytest.mark.parametrize("name", LIMITS)
def test_a_reply_past_a_limit_is_an_error(name: str) -> None:
    """What came before the limit was handed out."""
    pieces, limits, text, words = LIMITS[name]
    seen = read(pieces, LOST, limits)
    assert seen.end is not None and isinstance(seen.end.error, ResponseTooLargeError)
    assert (seen.text, seen.end.verdict) == (text, ERROR)
    assert words in str(seen.end.error)


def test_text_lets_the_count_of_bytes_without_text_begin_anew() -> None:
    """A long answer has many events without any."""
    assert read([EMPTY, ONE, EMPTY, TWO, EMPTY, DONE], limits=Limits(event=90, answer=90)).text == "onetwo"


def test_a_large_document_is_read_at_its_end() -> None:
    """To try whether it is whole after each piece would cost more and more."""
    document = json.dumps({"message": {"content": "x" * ERROR_BODY}}).encode()
    parser = AnswerParser(new_builder(), Limits())
    assert (list(parser.feed(document)), parser.end) == ([], None)
    assert [event.type for event in parser.feed_eof(framing_complete=True)] == ["content"]
    assert parser.end is not None and parser.end.verdict is WHOLE


def test_words_without_an_end_are_read_up_to_a_limit() -> None:
    """Nobody's error is that long."""
    parser = AnswerParser(new_builder(), Limits())
    fed = 0
    while parser.end is None:
        assert list(parser.feed(WORDS * 100)) == []
        fed += len(WORDS * 100)
    assert ERROR_BODY < fed < 2 * ERROR_BODY
    assert parser.end.verdict is ERROR


def test_the_rest_of_mere_words_is_waited_for_half_a_second() -> None:
    """From the first words on, and no longer when a stream turns up behind them."""
    parser = AnswerParser(new_builder(), Limits())
    wanted = []
    for piece in (b"", b"dat", b"e: unknown", b", wait", b"\n\n" + ONE, TWO):
        list(parser.feed(piece))
        wanted.append(parser.patience)
    assert wanted == [None, None, 0.5, 0.5, None, None]


def test_an_end_wants_nothing_more() -> None:
    """Neither time nor bytes, nor another end."""
    for body in (WORDS, ONE + DONE, DOCUMENT):
        parser = AnswerParser(new_builder(), Limits())
        list(parser.feed(body))
        list(parser.feed_eof(framing_complete=True))
        end = parser.end
        assert end is not None
        assert (parser.patience, parser.has_progressed) == (None, False)
        assert [*parser.feed(ONE), *parser.feed_eof(framing_complete=False)] == []
        parser.fail(LOST)
        assert parser.end is end


def test_text_alone_is_progress() -> None:
    """Comments and other events keep the connection alive, and bring the answer no further."""
    parser = AnswerParser(new_builder(), Limits())
    progress = []
    for piece in (b": hello\n\n", ONE, b": hello\n\n", ROUTED, EMPTY, TWO[:9], TWO[9:] + ROUTED, HOLE):
        list(parser.feed(piece))
        progress.append(parser.has_progressed)
    assert progress == [False, True, False, False, False, False, True, False]


def test_a_document_is_no_progress() -> None:
    """It has to be whole within the time for one piece of an answer."""
    parser = AnswerParser(new_builder(), Limits())
    assert [list(parser.feed(piece)) and parser.has_progressed for piece in (DOCUMENT[:10], DOCUMENT[10:])] == [
        [],
        False,
    ]


def test_an_event_loop_can_drive_the_parser() -> None:
    """Bytes are pushed into it as they arrive, without a thread."""

    async def gathered(send: Callable[[socket.socket], None]) -> Tuple[List[str], Optional[ReplyEnd]]:
        loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
        ours.setblocking(False)
        parser, over = AnswerParser(new_builder(), Limits()), loop.create_future()
        types: List[str] = []

        def on_readable() -> None:
            data = ours.recv(16)
            events = parser.feed(data) if data else parser.feed_eof(framing_complete=True)
            types.extend(event.type for event in events)
            if parser.end is not None:
                loop.remove_reader(ours)
                over.set_result(None)

        with ours, theirs:
            loop.add_reader(ours, on_readable)
            send(theirs)
            await asyncio.wait_for(over, 10)
        return types, parser.end

    def whole(peer: socket.socket) -> None:
        peer.sendall(ONE + TWO + COMPLETE)

    def cut(peer: socket.socket) -> None:
        peer.sendall(ONE + TWO[:-5])
        peer.shutdown(socket.SHUT_WR)

    types, end = asyncio.run(gathered(whole))
    assert (types, end and end.verdict) == (["content", "content"], WHOLE)
    types, end = asyncio.run(gathered(cut))
    assert (types, end and end.verdict) == (["content"], CUT)


def test_a_finished_answer_moves_its_conversation_on() -> None:
    """To the id that the service says, else to the one that was asked for."""
    builder = new_builder()
    parser = AnswerParser(builder, Limits())
    list(parser.feed(ROUTED + NOTES + ONE + DONE))
    builder.finish(complete=True)
    answer = builder.answer
    assert answer is not None
    assert (answer.text, answer.model, answer.message_id) == ("one", "gpt-x", "answer-1")
    assert (answer.annotations, answer.conversation.message_id) == ({"a": 1}, "answer-1")


def test_an_incomplete_answer_leaves_its_conversation_where_it_was() -> None:
    """Nobody knows whether the thread has it."""
    builder = new_builder()
    builder.add("one", 10)
    builder.finish(complete=False)
    assert builder.answer is not None
    assert (builder.answer.complete, builder.answer.conversation.message_id) == (False, None)


def test_the_first_end_of_a_stream_counts() -> None:
    """An answer that comes behind another end is none."""
    builder = new_builder()
    assert builder.note_end("failed") == "failed"
    with pytest.raises(StreamClosedError):
        builder.finish(complete=True)
    assert (builder.end, builder.answer) == ("failed", None)
