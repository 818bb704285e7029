"""Events from bytes, as the WHATWG standard has it, however the bytes are cut."""

import re
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sseclient import SSEClient

from copilot_sync.errors import ResponseTooLargeError
from copilot_sync.transport import sse
from copilot_sync.transport.sse import ErrorData, EventParser

MARK = b"\xef\xbb\xbf"
LIMIT = 1024 * 1024

# The four streams that the standard itself explains ("9.2.6 Interpreting an event stream").
STOCKS = (b"data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"])
FOUR_BLOCKS = (
    b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
    ["first event", "second event"],
)
EMPTY_DATA = (b"data\n\ndata\ndata\n\ndata:", ["", "\n"])
OPTIONAL_SPACE = (b"data:test\n\ndata: test\n\n", ["test", "test"])

SAMPLES: Dict[str, Tuple[bytes, List[str]]] = {
    "stocks": STOCKS,
    "four blocks": FOUR_BLOCKS,
    "empty data": EMPTY_DATA,
    "optional space": OPTIONAL_SPACE,
    "nothing": (b"", []),
    "one event": (b"data: one\n\n", ["one"]),
    "two events": (b"data: one\n\ndata: two\n\n", ["one", "two"]),
    "an unfinished event": (b"data: one\n\ndata: two\n", ["one"]),
    "an unfinished line": (b"data: one\n\ndata: tw", ["one"]),
    "blank lines everywhere": (b"\n\n\ndata: one\n\n\n\n\ndata: two\n\n\n", ["one", "two"]),
    "one blank more": (b"data: one\n\n\ndata: two\n\n", ["one", "two"]),
    "comments": (b": hello\n:\ndata: one\n: in between\ndata: two\n\n: bye\n\n", ["one\ntwo"]),
    "two spaces": (b"data:  one \n\n", [" one "]),
    "a tab": (b"data:\tone\n\n", ["\tone"]),
    "colons": (b"data: a: b:c\n\ndata::\n\n", ["a: b:c", ":"]),
    "empty data lines": (b"data:\n\ndata: \n\ndata:\ndata: \n\n", ["", "", "\n"]),
    "other fields": (b"event: e\nid: 7\nretry: 10\ndata: one\nid: a\0b\nretry: soon\nfoo: bar\nbaz\n\n", ["one"]),
    "other fields alone": (b"event: e\n\nid: 7\n\nretry: 10\n\n", []),
    "the name of a field must match": (b"Data: a\n\n data: b\n\ndata : c\n\ndatax: d\n\ndata: e\n\n", ["e"]),
    "a line of blanks": (b"data: a\n  \ndata: b\n\n", ["a\nb"]),
    "NUL": (b"data: a\0b\n\n", ["a\0b"]),
    "text": ("data: Grüße 世界 🙂\n\n".encode(), ["Grüße 世界 🙂"]),
    "not UTF-8": (b"data: a\xffb\xe4\xb8\n\nid: \xff\ndata: \xc3\n\n", ["a\ufffdb\ufffd", "\ufffd"]),
    "other ends of lines": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(),
        ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"],
    ),
    "a mark": (MARK + b"data: one\n\n", ["one"]),
    "two marks": (MARK + MARK + b"data: one\n\ndata: two\n\n", ["two"]),
    "a mark in the middle": (b"data: one\n\n" + MARK + b"data: two\n\n", ["one"]),
    "half a mark": (b"\xef\xbbdata: one\n\ndata: two\n\n", ["two"]),
    "only half a mark": (b"\xef\xbb", []),
    "words by themselves": (b"Sorry, we are busy\n\ndata: one\n\n", ["Sorry, we are busy", "one"]),
    "words in front of data": (b"no way\ndata: one\n\n", ["no way", "one"]),
}

each_sample = pytest.mark.parametrize(("stream", "events"), SAMPLES.values(), ids=SAMPLES)
each_end = pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])


def parsed(pieces: Iterable[bytes], limit: int = LIMIT) -> List[str]:
    parser = EventParser(limit)
    events = []
    for piece in pieces:
        events += parser.feed(piece)
        parser.check()
    return events


def single_bytes(stream: bytes) -> List[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


#: A line that is no field: the beginning of a document, or words.
NO_FIELD = re.compile(r"[{\[<]|[A-Za-z][\w'-]*,? +[\w('\"]", re.ASCII)


def standard(stream: bytes) -> List[str]:
    """The standard's own steps, line by line, with no thought of speed; and lines that are no field, as an event."""
    text = stream.decode("utf-8", "replace")
    lines = re.split("\r\n|\n|\r", text[1:] if text.startswith("\ufeff") else text)
    events, block = [], []
    for line in lines[:-1]:
        if line:
            block.append(line)
            continue
        fields = [each.partition(":") for each in block]
        data = [value[1:] if value.startswith(" ") else value for name, _, value in fields if name == "data"]
        words = [each for each in block if NO_FIELD.match(each)]
        if words:
            events.append("\n".join(words if data else block))
        if data:
            events.append("\n".join(data))
        block = []
    return events


@each_sample
def test_a_stream_in_one_piece_gives_its_events(stream: bytes, events: List[str]) -> None:
    """What the standard says of each kind of line, the unfinished last event left out."""
    assert parsed([stream]) == events == standard(stream)


@each_end
@each_sample
def test_a_stream_cut_in_two_anywhere_gives_the_same_events(stream: bytes, events: List[str], end: bytes) -> None:
    """Where the network cuts and how lines end makes no difference."""
    stream = stream.replace(b"\n", end)
    for at in range(len(stream) + 1):
        assert parsed([stream[:at], stream[at:]]) == events, f"cut at {at}"


@each_end
@each_sample
def test_a_stream_of_single_bytes_gives_the_same_events(stream: bytes, events: List[str], end: bytes) -> None:
    """Even a byte order mark or a character may come in several pieces, and pieces may be empty."""
    pieces = single_bytes(stream.replace(b"\n", end))
    assert parsed(pieces) == events
    assert parsed(part for piece in pieces for part in (b"", piece, b"")) == events


@pytest.mark.parametrize("blank", [b"\n\r\n", b"\r\n\n", b"\r\n\r", b"\r\r\n", b"\n\r", b"\r\n\r\n"])
def test_line_ends_may_be_mixed(blank: bytes) -> None:
    """An event ends at a blank line, whatever ends that line and the one before."""
    stream = b"data: one" + blank + b"data: two" + blank
    for at in range(len(stream) + 1):
        assert parsed([stream[:at], stream[at:]]) == ["one", "two"], f"cut at {at}"


def test_a_carriage_return_ends_an_event_at_once() -> None:
    """An event isn't held back until it is known whether a line feed follows, and that one is no blank line."""
    parser = EventParser(LIMIT)
    assert parser.feed(b"data: one\r\r") == ["one"]
    assert parser.feed(b"\ndata: two\r") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\r") == ["two"]


@each_sample
def test_both_readings_of_an_event_agree(stream: bytes, events: List[str]) -> None:
    """The short reading of plain events is an economy, not another meaning."""
    blocks = [block for block in stream.split(b"\n\n")[:-1] if block.startswith(b"data:") and b"\n" not in block]
    short = [parsed([block + b"\n\n"]) for block in blocks]
    assert short == [sse._general(block) for block in blocks]


def test_plain_events_take_the_short_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nearly all events are never costs the general reading."""
    monkeypatch.delattr(sse, "_general")
    assert parsed([b"data: one\n\ndata:  two\n\n", b"data: thr", b"ee\n\n"]) == ["one", " two", "three"]


LINES = st.sampled_from(
    [
        b"",
        b"\n",
        b"\r",
        b"\r\n",
        b"data",
        b"data:",
        b"data: ",
        b":",
        b"x",
        MARK,
        "ü🙂\u2028".encode(),
        b"\xff",
        b"id: 1",
        b"[",
        b"no way",
    ]
)


@given(st.lists(LINES | st.binary(max_size=6), max_size=30).map(b"".join), st.data())
def test_any_cutting_of_any_bytes_gives_what_the_standard_says(stream: bytes, data: st.DataObject) -> None:
    """The parser is the standard's algorithm, whatever it is fed, but for words, which it hands on."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)])]
    assert parsed(pieces) == parsed(single_bytes(stream)) == standard(stream)


@pytest.mark.parametrize("stream", [b"\n[\n\n", b"\r\n[\n\n", b"\n\n\n[\n\n", b"[\n\n\n"])
def test_blank_lines_around_words_are_none_of_them(stream: bytes) -> None:
    """However many, and wherever the network cuts."""
    assert parsed([stream]) == parsed(single_bytes(stream)) == ["["]


# fmt: off
ENDS = [
    # the end of a stream                       is torn   what has come of its last event
    (b"",                                       False,    None),
    (b"data: one\n\n",                          False,    None),
    (b"data: one\n\n: bye",                     False,    None),
    (b"data: one\n\n: bye\n",                   False,    None),
    (b"data: one\n\n\n",                        False,    None),
    (b"data: one\n\nd",                         True,     ["d"]),
    (b"data: one\n\nda",                        True,     ["da"]),
    (b"data: one\n\ndata: tw",                  True,     ["tw"]),
    (b"data: one\n\ndata: two\n",               True,     ["two"]),
    (b"data: one\r\rdata: two\r",               True,     ["two"]),
    (b"data: one\n\ndata: two\n: bye",          True,     ["two"]),
    (b"data: one\n\n: hello\nid: 7\n",          True,     [": hello\nid: 7\n"]),
    (b"data: one\n\n{}",                        True,     ["{}"]),
    (MARK[:2],                                  True,     ["\ufffd"]),
]
# fmt: on


@pytest.mark.parametrize(("stream", "torn", "unfinished"), ENDS, ids=repr)
def test_a_stream_that_ends_inside_an_event_is_torn(stream: bytes, torn: bool, unfinished: Optional[List[str]]) -> None:
    """However it was cut into pieces; a comment is no event."""
    for pieces in ([stream], single_bytes(stream)):
        parser = EventParser(LIMIT)
        for piece in pieces:
            parser.feed(piece)
        assert parser.torn is torn
        assert not torn or parser.unfinished() == unfinished


# fmt: off
NAMED = [
    # an event                                     its data, if its name is error
    (b"event: error\ndata: boom\n\n",              "boom"),
    (b"event:error\ndata:boom\n\n",                "boom"),
    (b"data: boom\nevent: error\n\n",              "boom"),
    (b"event:  Error \nid: 7\ndata: a\ndata: b\n\n", "a\nb"),
    (b"event: error\n\n",                          ""),
    (b"event: error\ndata:\n\n",                   ""),
    (b"event: error\nevent: ping\ndata: x\n\n",    None),
    (b"event: errors\ndata: x\n\n",                None),
    (b"event\ndata: error\n\n",                    None),
    (b": event: error\ndata: x\n\n",               None),
    (b"data: event: error\n\n",                    None),
]
# fmt: on


@each_end
@pytest.mark.parametrize(("stream", "data"), NAMED, ids=repr)
def test_an_event_that_is_named_error_is_told(stream: bytes, data: Optional[str], end: bytes) -> None:
    """Its name is the last one, blanks and capitals aside; whatever it holds, and also if it holds nothing."""
    stream = b"data: before\n\n" + stream + b"data: after\n\n"
    for pieces in ([stream.replace(b"\n", end)], single_bytes(stream.replace(b"\n", end))):
        events = parsed(pieces)
        assert [event for event in events if isinstance(event, ErrorData)] == ([] if data is None else [data])
        assert (events[0], events[-1], len(events)) == ("before", "after", 3)


# fmt: off
SIZES = [
    # the pieces                                                 a limit of 10 is kept
    ([b"data: 1234\n\n"],                                        True),
    ([b"data: 1234\n\n"] * 5,                                    True),
    ([b"data: 12345\n\n"],                                       False),
    ([b"data: 1234", b"5"],                                      False),
    ([b"data: 1\n", b"data"],                                    False),
    ([b":comment", b":comment"],                                 False),
    ([b"data: 1\n\ndata: 12345\n\n"],                            False),
    ([b"data: 1\n\ndata: 12345"],                                False),
    ([b"data: 1\n\ndata: 1234"],                                 True),
]
# fmt: on


@pytest.mark.parametrize(("pieces", "kept"), SIZES, ids=repr)
def test_an_event_has_a_largest_size(pieces: List[bytes], kept: bool) -> None:
    """A server can't fill the memory, be it with one event, one line, comments, or an event that never ends."""
    if kept:
        parsed(pieces, limit=10)
        return
    with pytest.raises(ResponseTooLargeError, match="an event is longer than 10 bytes") as caught:
        parsed(pieces, limit=10)
    assert caught.value.stage == "stream"


def test_what_comes_before_an_event_that_is_too_large_is_given() -> None:
    """Also where both arrive at once."""
    parser = EventParser(10)
    assert parser.feed(b"data: 1\n\n:\n\ndata: 2\n\ndata: 12345\n\ndata: 3\n\n") == ["1", "2"]
    with pytest.raises(ResponseTooLargeError):
        parser.check()


class _Counted(bytearray):
    """A buffer that counts the bytes that a search for something in it may look at."""

    looked_at = 0

    def rfind(self, what: bytes, start: int) -> int:  # type: ignore[override]
        type(self).looked_at += len(self) - start
        return super().rfind(what, start)


@pytest.mark.parametrize("size", [1, 7], ids=["in single bytes", "in small pieces"])
def test_a_long_event_is_looked_through_once(size: int) -> None:
    """The work grows with the length of an event, not with its square, in pieces of any size."""
    parser = EventParser(LIMIT)
    parser._buffer = _Counted()
    _Counted.looked_at = 0
    stream = b"data: " + b"x" * 50_000 + b"\n\n"
    events = [data for at in range(0, len(stream), size) for data in parser.feed(stream[at : at + size])]
    assert events == ["x" * 50_000]
    assert _Counted.looked_at < 4 * len(stream)


def test_many_lines_are_handed_on_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``sseclient-py`` does with one line more grows with the lines that it has, so it gets few at once."""
    handed: List[int] = []

    def counting(texts: Iterator[bytes]) -> SSEClient:
        whole = list(texts)
        handed.extend(text.count(b"\n") for text in whole)
        return SSEClient(iter(whole))

    monkeypatch.setattr(sse, "SSEClient", counting)
    lines = [str(number) for number in range(1000)] + [""] * 600
    stream = "".join(f"data: {line}\n: comment\nid: 1\n" for line in lines).encode() + b"\n"
    assert parsed([stream]) == ["\n".join(lines)]
    assert max(handed) < 300


def test_any_number_of_blank_lines_is_one() -> None:
    """They end an event, and there is nothing between them."""
    assert parsed([b"data: 1" + b"\n" * 100_000 + b"data: 2\n\n" + b"\n" * 5 + b"data: 3\n\n"]) == ["1", "2", "3"]
