"""Scripts in files: what a line can say, and that a file is scripted as a whole or refused with a line's number."""

from __future__ import annotations

import inspect
import io
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, List

import pytest
from emulated import FAULTS, api, events_of, new_thread, post
from hypothesis import given
from hypothesis import strategies as st

from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.emulator.routes import STAGES
from copilot_sync.emulator.script_file import MAX_ENTRIES, MAX_FILE, MAX_LINE, load_script

#: An argument of each type that the class methods of ``Fault`` have, by its name.
ARGUMENTS: Dict[str, Any] = {
    "code": 502, "retry_after": 1.5, "headers": {"a": "b"}, "body": ["x"], "message": "words", "processed": True,
    "content_type": "text/plain", "data": "HTTP/1.1 200 OK\r\n\r\n", "location": "/x", "seconds": 2,
    "header": "x-ratelimit-user-retry-after", "statuses": [103], "then": {"fault": "drop"}, "reset": True,
    "when": "in_headers", "after_events": 1, "mid_event": True,
}  # fmt: skip
#: Where a name means something else.
OTHERS: Dict[str, Dict[str, Any]] = {
    "out_of_quota": {"code": "user_weekly_rate_limited", "status": 402},
    "rate_limit": {"status": 403},
    "garbage": {"status": 203},
    "redirect": {"status": 307},
}
#: A value of each field of ``Reply``, but for its pieces.
FIELDS: Dict[str, Any] = {
    "pace": 0.5, "first_delay": 1, "model": "m", "routed_model": "r", "references": [{"type": "file"}],
    "usage": {"inputTokens": 1}, "complete": {"turnId": "1"}, "done": True, "error": {"code": "x"},
    "framing": "close", "encoding": "gzip", "newline": "\r\n", "split": 3, "per_write": 2, "raw": "é", "as_json": False,
    "comments": 2.5, "content_type": "text/plain", "headers": {"a": "b"},
}  # fmt: skip


def load(emulator: Emulator, *lines: object, **options: Any) -> None:
    """Script an emulator with these lines: bytes as they are, and anything else as JSON."""
    rows = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    load_script(emulator, io.BytesIO(b"\n".join(rows)), **options)


def scripted(emulator: Emulator, count: int) -> List[object]:
    return [emulator.next_reply() for _ in range(count)]


def faults(emulator: Emulator, stage: str = "message") -> List[object]:
    return list(emulator._faults[stage])


def answer(emulator: Emulator) -> str:
    events = events_of(post(emulator, new_thread(emulator), content="the question"))
    return "".join(event["body"] for event in events if event["type"] == "content")


def refusal(*lines: object) -> str:
    """What is said of lines behind a good one, of which nothing may be scripted."""
    emulator = Emulator()
    default = emulator.reply
    good = ({"reply": "x"}, {"reply": "y", "always": True}, {"fault": "drop", "stage": "token"})
    with pytest.raises(ValueError, match=r"\Aline \d+: ") as caught:
        load(emulator, *good, {"fault": "drop", "stage": "models", "always": True}, *lines)
    assert scripted(emulator, 1) == [default]
    assert faults(emulator, "token") == []
    assert emulator.choose_fault is None
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_replies_answer_messages_in_order_and_then_the_default(emulator: Emulator) -> None:
    """The default repeats the question."""
    load(emulator, {"reply": "Hello there"}, {"reply": ["a", {"type": "x"}, "b"]}, {"reply": None}, {"reply": []})
    assert [answer(emulator) for _ in range(5)] == ["Hello there", "ab", "the question", "", "the question"]


def test_a_reply_can_be_repeated_and_one_can_be_the_default(emulator: Emulator) -> None:
    """Wherever the default stands in the file."""
    load(emulator, {"reply": "always", "always": True}, {"reply": "twice", "times": 2}, {"reply": "x", "always": False})
    assert [answer(emulator) for _ in range(5)] == ["twice", "twice", "x", "always", "always"]


def test_faults_strike_their_stage_in_order(emulator: Emulator) -> None:
    """``null`` lets a request through, and other stages are left alone."""
    load(
        emulator,
        {"fault": None, "stage": "models"},
        {"fault": "rate_limit", "stage": "models", "seconds": 30, "times": 2},
        {"fault": "status", "stage": "models", "code": 503},
        {"reply": "fine"},
    )
    heard = [api(emulator, "GET", "/models") for _ in range(5)]
    assert [each.status for each in heard] == [200, 429, 429, 503, 200]
    assert heard[1].headers["Retry-After"] == "30"
    assert answer(emulator) == "fine"


def test_a_fault_can_strike_always(emulator: Emulator) -> None:
    """Behind those of its stage that are queued; what the program chooses holds for the other stages."""
    chosen = Fault.status(500)
    emulator.choose_fault = lambda stage, request: chosen
    load(
        emulator,
        {"fault": "status", "code": 503, "stage": "models", "always": True},
        {"fault": "status", "code": 501, "stage": "models"},
    )
    assert [api(emulator, "GET", "/models").status for _ in range(3)] == [501, 503, 503]
    assert api(emulator, "GET", "/github/chat/threads").status == 500
    emulator.choose_fault = None
    load(emulator, {"fault": "status", "code": 503, "stage": "models", "always": True})
    assert api(emulator, "GET", "/models").status == 503
    assert api(emulator, "GET", "/github/chat/threads").status == 200


def test_a_script_comes_behind_what_is_queued() -> None:
    """As ``script`` and ``fail`` queue it."""
    emulator = Emulator()
    emulator.script("first")
    emulator.fail("message", None)
    load(emulator, {"reply": "second"}, {"fault": "drop", "stage": "message"})
    assert scripted(emulator, 2) == ["first", Reply("second")]
    assert faults(emulator) == [None, Fault.drop()]


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_takes_its_arguments_by_name(name: str) -> None:
    """All of them; the fault is the one that the call in Python makes."""
    maker = getattr(Fault, name)
    parameters = inspect.signature(maker).parameters
    known = {**ARGUMENTS, **OTHERS.get(name, {})}
    values = {each: known[each] for each in parameters}
    emulator = Emulator()
    load(emulator, {"fault": name, "stage": "message", **values})
    if name == "wire":
        values["data"] = values["data"].encode()
    if name == "interim":
        assert faults(emulator) == [Fault.interim(103, then=Fault.drop())]
    else:
        assert faults(emulator) == [maker(**values)]
    assert not {"fault", "stage", "times", "always"} & set(parameters)


def test_a_place_behind_events_is_a_list() -> None:
    """JSON has no tuples."""
    emulator = Emulator()
    load(emulator, {"fault": "stall", "stage": "message", "when": ["after_events", 2], "seconds": 1})
    assert faults(emulator) == [Fault.stall(("after_events", 2), 1)]


@pytest.mark.parametrize("name", [field.name for field in fields(Reply) if field.name != "pieces"])
def test_every_field_of_a_reply_can_be_set(name: str) -> None:
    """By its name; the pieces are the reply itself. Bytes are written as text, and sent as UTF-8."""
    emulator = Emulator()
    load(emulator, {"reply": ["a"], name: FIELDS[name]})
    value = FIELDS[name].encode() if name == "raw" else FIELDS[name]
    assert scripted(emulator, 1) == [Reply(["a"], **{name: value})]


def test_the_pace_holds_for_replies_that_state_none() -> None:
    """It is 0 unless it is given."""
    emulator = Emulator()
    load(emulator, {"reply": "a"}, {"reply": "b", "pace": 0}, pace=0.5)
    load(emulator, {"reply": "c"})
    assert scripted(emulator, 3) == [Reply("a", pace=0.5), Reply("b"), Reply("c")]


@pytest.mark.parametrize(
    "content",
    [b"", b"\n \n\r\n", b"# {", b"  # indented\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf# a comment"],
    ids=["empty", "blank", "comment", "indented", "BOM", "BOM and comment"],
)
def test_a_file_may_script_nothing(content: bytes) -> None:
    """Then the emulator is as it was."""
    emulator = Emulator()
    default = emulator.reply
    load_script(emulator, io.BytesIO(content))
    assert scripted(emulator, 1) == [default]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_any_line_end_and_a_byte_order_mark_will_do(end: bytes, bom: bytes) -> None:
    """Nothing else ends a line: other separators may stand in a text."""
    emulator = Emulator()
    lines = [b"# h\xc3\xa9", b"", '{"reply": "a\u2028é"}'.encode(), b'{"reply": "b"}']
    load_script(emulator, io.BytesIO(bom + end.join(lines)))
    assert scripted(emulator, 2) == [Reply("a\u2028é"), Reply("b")]


def test_a_script_is_read_from_a_path(tmp_path: Path) -> None:
    """As text or as a ``Path``; what the system says of a path that can't be read is passed on."""
    emulator = Emulator()
    path = tmp_path / "script.jsonl"
    path.write_bytes(b'{"reply": "a"}\n')
    load_script(emulator, path)
    load_script(emulator, os.fspath(path))
    assert scripted(emulator, 2) == [Reply("a"), Reply("a")]
    for wrong in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError, match=str(wrong.name)):
            load_script(emulator, wrong)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\xff", "it is not UTF-8 text"),
        (b"reply", "it is not JSON: Expecting value (column 1)"),
        (b'{"reply": "a"} {"reply": "b"}', "it is not JSON: Extra data (column 16)"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b" " * MAX_LINE + b"#", f"it has more than {MAX_LINE} bytes"),
        (b'{"reply": "a", "pace": NaN}', "NaN is not JSON"),
        (b'{"reply": ["a", {"x": -Infinity}]}', "-Infinity is not JSON"),
        (b'{"reply": "a", "pace": 1e999}', "the number 1e999 is too large"),
        (b'{"reply": "a", "pace": ' + b"9" * 5000 + b"}", "more than 20 digits"),
        (b'{"reply": [{"a": 1, "a": 2}]}', '"a" is there twice'),
        (b'{"reply": "a", "raw": "\\ud800"}', "half of a surrogate pair"),
        (b'{"fault": "status", "code": 1, "body": "\\ud800", "stage": "message"}', "half of a surrogate pair"),
        ([], "it must be a JSON object, not []"),
        ("reply", 'it must be a JSON object, not "reply"'),
        ({}, 'it needs "reply" or "fault", and not both'),
        ({"reply": "a", "fault": "drop"}, 'it needs "reply" or "fault", and not both'),
        ({"reply": 1}, '"reply" is text or a list (each text or an object) or null, not 1'),
        ({"reply": {"type": "x"}}, 'or null, not {"type": "x"}'),
        ({"reply": ["a", 1]}, 'or null, not ["a", 1]'),
        ({"reply": ["x" * 99, 1]}, 'or null, not ["' + "x" * 58 + "..."),
        ({"reply": "a", "pace": True}, '"pace" is a number, not true'),
        ({"reply": "a", "pace": -1}, "pace and first_delay are seconds, and not negative"),
        ({"reply": "a", "done": 1}, '"done" is true or false, not 1'),
        ({"reply": "a", "split": 1.5}, '"split" is a whole number or null, not 1.5'),
        ({"reply": "a", "framing": "x"}, '"framing" is one of "chunked", "length", "close", not "x"'),
        ({"reply": "a", "newline": "x"}, "newline is one of"),
        ({"reply": "a", "headers": {"a": 1}}, '"headers" is an object (each value text), not {"a": 1}'),
        ({"reply": "a", "headers": ["a"]}, '"headers" is an object (each value text), not ["a"]'),
        ({"reply": "a", "complete": "x"}, '"complete" is true or false or an object, not "x"'),
        ({"reply": "a", "raw": 1}, '"raw" is text or null, not 1'),
        ({"reply": "a", "pieces": "b"}, "a reply takes reply, pace, first_delay, "),
        ({"reply": "a", "stage": "message"}, 'headers, times, always, not "stage"'),
        ({"reply": "a", "times": 0}, '"times" is at least 1'),
        ({"reply": "a", "times": "2"}, '"times" is a whole number, not "2"'),
        ({"reply": "a", "times": 2, "always": True}, 'does not go with "always"'),
        ({"reply": "a", "always": 1}, '"always" is true or false, not 1'),
        ({"reply": "a", "always": True}, '"always" is there for replies already'),
        ({"fault": "drop", "stage": "models", "always": True}, '"always" is there for faults of the stage models'),
        ({"reply": "a", "times": MAX_ENTRIES}, f"more than {MAX_ENTRIES} replies and faults"),
        ({"fault": "drop"}, f'a fault needs "stage", one of {", ".join(STAGES)}'),
        ({"fault": "drop", "stage": "tokens"}, f'"stage" is one of {json.dumps(STAGES)[1:-1]}, not "tokens"'),
        ({"fault": "dorp", "stage": "token"}, "a fault is one of cut, delay, drop, expired_token, "),
        ({"fault": ["drop"], "stage": "token"}, 'wire, not ["drop"]'),
        ({"fault": None, "stage": "token", "seconds": 1}, "wire, not null"),
        ({"fault": "__init__", "stage": "token"}, 'wire, not "__init__"'),
        ({"fault": "expired_token", "stage": "token", "x": 1}, 'expired_token takes stage, times, always, not "x"'),
        (
            {"fault": "cut", "stage": "token", "seconds": 1},
            "the fault cut takes after_events, reset, mid_event, stage, ",
        ),
        ({"fault": "status", "stage": "token"}, 'the fault status needs "code"'),
        ({"fault": "status", "stage": "token", "code": True}, '"code" is a whole number, not true'),
        ({"fault": "status", "stage": "token", "code": 1, "body": 1}, "is null or text or an object or a list, not 1"),
        ({"fault": "rate_limit", "stage": "token", "status": 429.0}, '"status" is 429 or 403, not 429.0'),
        ({"fault": "rate_limit", "stage": "token", "header": "x"}, "header is one of Retry-After, "),
        ({"fault": "stall", "stage": "token", "when": ["after_events"]}, "or a list (text, a whole number), not ["),
        ({"fault": "stall", "stage": "token", "when": ["x", 1]}, "when is 'before_headers', 'in_headers' or ("),
        (
            {"fault": "interim", "stage": "token", "statuses": 103},
            '"statuses" is a list (each a whole number), not 103',
        ),
        ({"fault": "interim", "stage": "token", "statuses": [200]}, "an interim status is from 100 to 199"),
        ({"fault": "interim", "stage": "token"}, 'the fault interim needs "statuses"'),
        (
            {"fault": "interim", "stage": "token", "statuses": [103], "then": "drop"},
            '"then" is an object with a "fault" or null, not "drop"',
        ),
        (
            {"fault": "interim", "stage": "token", "statuses": [103], "then": {"fault": "expired_token", "stage": 1}},
            'the fault expired_token takes no arguments, not "stage"',
        ),
    ],
    ids=lambda value: "" if isinstance(value, (bytes, dict, list)) else value[-40:],
)
def test_a_wrong_line_is_refused_with_its_number(line: object, words: str) -> None:
    """And with what is wrong in it. Nothing of the file is scripted."""
    message = refusal({"reply": "good"}, b"", line, {"reply": 1})
    assert message.startswith("line 7: ")
    assert words in message
    assert message.isascii()


def test_a_file_that_is_too_large_is_refused() -> None:
    """An input without an end is not read for ever."""

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"#" * size

    emulator = Emulator()
    with pytest.raises(ValueError, match=f"it has more than {MAX_FILE} bytes"):
        load_script(emulator, Endless())
    assert scripted(emulator, 1) == [emulator.reply]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ARGUMENTS, "fault"]), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = [*ARGUMENTS, *FIELDS, "stage", "times", "always"]
LINES = st.builds(
    lambda kind, name, stage, more: {kind: name, "stage": stage, **more} if kind == "fault" else {kind: name, **more},
    st.sampled_from(["reply", "fault"]),
    st.sampled_from(["status", "rate_limit", "interim", "stall", "wire"]) | JSON,
    st.sampled_from(STAGES),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=2),
)


@given(st.lists(LINES.map(lambda line: json.dumps(line).encode()) | st.binary(max_size=30), max_size=3))
def test_whatever_stands_in_a_file_it_is_scripted_or_refused(lines: List[bytes]) -> None:
    """No other error comes out, and what is refused leaves nothing behind."""
    emulator = Emulator()
    default = emulator.reply
    try:
        load(emulator, *lines)
    except ValueError as error:
        assert str(error).startswith("line ")
        assert not any(map(faults, [emulator] * len(STAGES), STAGES))
        assert (scripted(emulator, 1), emulator.choose_fault) == ([default], None)
