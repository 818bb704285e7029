"""What answers a message: events, documents, errors wherever they stand."""

import json
import pickle
from typing import Any, Dict, Optional, Type

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wire import JSON_VALUES, OBJECTS, plain, sent

from copilot_sync.errors import ProtocolError
from copilot_sync.events import (
    AnnotationsEvent,
    CompleteEvent,
    ContentEvent,
    ErrorEvent,
    Event,
    RoutedModelEvent,
    UnknownEvent,
)
from copilot_sync.protocol.errors import error_of_event, server_words
from copilot_sync.protocol.events import DONE, Form, decode, form_of, read_document, read_error
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.usage import Usage

EVENT = b'data: {"type":"content","body":"x"}\n\n'
MARK = b"\xef\xbb\xbf"
# fmt: off
FORMS = [
    # the first bytes                        what they tell, and what if no more come
    (b"data: {",                             Form.STREAM,   Form.STREAM),
    (b"data:",                               Form.STREAM,   Form.STREAM),
    (b"data\n",                              Form.STREAM,   Form.STREAM),
    (b": keep-alive",                        Form.STREAM,   Form.STREAM),
    (b":",                                   Form.STREAM,   Form.STREAM),
    (b"event: ping",                         Form.STREAM,   Form.STREAM),
    (b"id: 7",                               Form.STREAM,   Form.STREAM),
    (b"retry: 10",                           Form.STREAM,   Form.STREAM),
    (MARK + b"data:",                        Form.STREAM,   Form.STREAM),
    (b"\r\n\r\n data:",                      Form.STREAM,   Form.STREAM),
    (b"foo: bar\n" + EVENT,                  Form.STREAM,   Form.STREAM),
    (b'{"message": {',                       Form.DOCUMENT, Form.DOCUMENT),
    (b"[",                                   Form.DOCUMENT, Form.DOCUMENT),
    (MARK + b' \n{"error"',                  Form.DOCUMENT, Form.DOCUMENT),
    (b"\n" + MARK + b"{",                    Form.DOCUMENT, Form.DOCUMENT),
    (b"<!DOCTYPE html>",                     Form.WORDS,    Form.WORDS),
    (b" <html>\n" + EVENT,                   Form.WORDS,    Form.WORDS),
    (b"",                                    None,          Form.STREAM),
    (b" \r\n",                               None,          Form.STREAM),
    (MARK,                                   None,          Form.STREAM),
    (MARK[:1],                               None,          Form.STREAM),
    (b" " + MARK[:2],                        None,          Form.STREAM),
    (b"da",                                  None,          Form.STREAM),
    (b"retry",                               None,          Form.STREAM),
    (b"dat:",                                None,          Form.WORDS),
    (b"database is locked",                  None,          Form.WORDS),
    (b"identity: unknown",                   None,          Form.WORDS),
    (b"upstream timed out",                  None,          Form.WORDS),
    (b"error: data: missing",                None,          Form.WORDS),
    (b"\xef\xbc\x88\xe9",                     None,          Form.WORDS),
    (b"\x00\x01",                            None,          Form.WORDS),
    (b'"words"',                             None,          Form.WORDS),
]
# fmt: on


@pytest.mark.parametrize(("beginning", "form", "at_end"), FORMS, ids=lambda value: ascii(value)[:40])
def test_a_body_is_what_its_first_bytes_say(beginning: bytes, form: Optional[Form], at_end: Form) -> None:
    """Whatever its label says; where they don't tell yet, more has to come, unless that is all."""
    assert form_of(beginning) is form
    assert form_of(beginning, at_end=True) is at_end


@pytest.mark.parametrize(("beginning", "form", "at_end"), FORMS, ids=lambda value: ascii(value)[:40])
def test_a_body_of_single_bytes_is_never_taken_for_another_form(
    beginning: bytes, form: Optional[Form], at_end: Form
) -> None:
    """What its first bytes tell, further ones don't change."""
    told = [form_of(beginning[:length]) for length in range(len(beginning) + 1)]
    assert set(told) - {None} <= {form}


def test_a_plain_answer_is_read_as_events() -> None:
    """Its text, and its end with what is known of it: callers need not know that it was no stream."""
    used = {"type": "file", "path": "a.py"}
    message = {"content": "Hello", "references": [used], "id": "m1", "model": "gpt-4o", "usage": {"outputTokens": 2}}
    assert read_document(sent(message=message).body) == (
        ContentEvent("content", message, "Hello"),
        CompleteEvent("complete", {"message": message}, "m1", "gpt-4o", Usage(None, 2), {}, (used,)),
    )


def test_a_plain_answer_may_be_empty_or_badly_encoded() -> None:
    """No content event is ever empty, and lone surrogates are replaced."""
    events = read_document(sent(message={"content": ""}, error="").body)
    assert [type(event) for event in events or ()] == [CompleteEvent]
    content, _ = read_document(sent(message={"content": "a\ud800"}, error=None).body) or ()
    assert content == ContentEvent("content", {"content": "a\ud800"}, "a\ufffd")


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"message":null}', b'{"message":{}}', b'{"message":{"content":5}}', b'{"answer":42}', b'{"error":{}}'],
    ids=lambda body: ascii(body[:30]),
)
def test_a_plain_reply_without_an_answer_is_told(body: bytes) -> None:
    """It must not look like an empty answer."""
    with pytest.raises(ProtocolError) as caught:
        read_document(body)
    assert caught.value.stage == "message"


WHOLE = '{"message": {"content": "a\\u00e9\\n é", "n": -1.5e+3, "t": [true, false, null], "r": {}}}'


@pytest.mark.parametrize("length", range(1, len(WHOLE.encode())))
def test_a_torn_document_is_told_from_a_broken_one(length: int) -> None:
    """Wherever it ends, it is not whole, and not something else."""
    assert read_document(WHOLE.encode()[:length]) is None


@pytest.mark.parametrize(
    "body",
    [b"{nonsense", b'{"message" 42}', b"{oops}", b'{"a":1}}', b"[" * 1000, b"[1, 2]", b'{"a": abc', rb'{"a": "\u-123'],
)
def test_a_broken_document_is_words(body: bytes) -> None:
    """Somebody's, who does not speak this protocol."""
    (event,) = read_document(body) or ()
    assert isinstance(event, ErrorEvent)
    assert (event.message, event.code) == (body.decode(), "")


# fmt: off
TOLD = [
    # what is there                                                    its words     its code
    ({"error": {"message": "boom", "code": "rate_limited"}},            "boom",       "rate_limited"),
    ({"error": {"message": "boom", "code": 429}},                       "boom",       "429"),
    ({"error": {"message": "boom", "code": 429.0}},                     "boom",       "429"),
    ({"error": {"message": "boom", "code": " 429 "}},                   "boom",       "429"),
    ({"error": {"message": "boom", "status": 503}},                     "boom",       "503"),
    ({"error": {"message": "boom", "status": "503"}},                   "boom",       "503"),
    ({"error": {"message": "boom", "type": "insufficient_quota"}},      "boom",       "insufficient_quota"),
    ({"error": {"message": "boom", "code": None, "type": "quota"}},     "boom",       "quota"),
    ({"error": {"message": "boom", "code": True, "status": 0}},         "boom",       ""),
    ({"error": {"message": "boom", "type": "error"}},                   "boom",       ""),
    ({"error": {"message": "boom"}, "code": 402},                       "boom",       "402"),
    ({"error": {"message": "boom"}, "status": "401", "type": "error"},  "boom",       "401"),
    ({"error": {"description": "boom"}},                                "boom",       ""),
    ({"error": {"code": "overloaded"}},                                 "overloaded", "overloaded"),
    ({"error": {"x": 1}, "message": "boom"},                            "boom",       ""),
    ({"error": "something failed"},                                     "something failed", ""),
    ({"error": "rate_limited"},                                         "rate_limited", "rate_limited"),
    ({"error": "rate_limited", "error_description": "slow down"},       "slow down",  "rate_limited"),
    ({"error": "boom", "code": 429},                                    "boom",       "429"),
    ({"error": 429},                                                    "",           "429"),
    ({"error": True, "message": "boom"},                                "boom",       ""),
    ({"error": ["boom"], "detail": "bang"},                             "bang",       ""),
    ({"error": "boom", "message": {"content": "Hel"}},                  "boom",       "boom"),
    ({"type": "error", "message": "boom", "code": "x"},                 "boom",       "x"),
    ({"type": "error", "description": "boom"},                          "boom",       ""),
    ({"type": "error", "body": "boom"},                                 "boom",       ""),
    ({"type": "error", "error": {"type": "x", "message": "boom"}},      "boom",       "x"),
    ({"type": "error"},                                                 "",           ""),
    ({"type": "content", "body": "Hel", "error": "it broke"},           "it broke",   ""),
    ({"type": "complete", "error": {"message": "boom"}},                "boom",       ""),
    ({"type": "thinking", "error": {"message": "boom"}},                "boom",       "thinking"),
    ({"message": "boom", "status": "403"},                              "boom",       "403"),
    ({"message": "boom", "code": 500},                                  "boom",       "500"),
    ({"message": "boom", "documentation_url": "https://d"},             "boom",       ""),
    ({"type": "Error", "message": "boom"},                              "boom",       ""),
    ({"type": " ERROR ", "message": "boom"},                            "boom",       ""),
    ({"errors": [{"message": "boom", "code": "x"}]},                    "boom",       "x"),
    ({"errors": [{"message": "boom"}, {"message": "and more"}]},        "boom",       ""),
    ({"errors": ["boom"]},                                              "boom",       ""),
    ({"errors": {"message": "boom"}},                                   "boom",       ""),
    ({"message": "boom", "errors": [{"message": "why"}]},               "boom",       ""),
]
# fmt: on


@pytest.mark.parametrize(("value", "message", "code"), TOLD, ids=lambda value: str(value)[:60])
def test_an_error_is_read_wherever_it_stands(value: Dict[str, Any], message: str, code: str) -> None:
    """The same of it as an event, under ``event: error``, as a body of its own, and as the body of a bad status."""
    expected = ErrorEvent("error", value, message, code)
    text = json.dumps(value)
    assert decode(text) == expected
    assert read_error(text) == expected
    if message or code:
        assert read_document(text.encode()) == (expected,)
        assert server_words(RawReply(500, {}, text.encode()), plain) == message


# fmt: off
NO_ERRORS = [
    {"type": "thinking", "error": None},
    {"type": "thinking", "error": ""},
    {"type": "thinking", "error": False},
    {"type": "thinking", "error": {}},
    {"type": "thinking", "message": "hm", "status": "500"},
    {"error": None, "step": 1},
    {"type": "thinking", "errors": [{"message": "hm"}]},
    {"errors": [], "step": 1},
    {"errors": None},
    {"message": "warming up", "status": "ok"},
    {"message": "warming up", "status": 200},
    {"message": "warming up"},
    {"message": {"text": "x"}, "status": "500"},
    {"status": "500"},
    {},
]
# fmt: on


@pytest.mark.parametrize("value", NO_ERRORS, ids=str)
def test_what_is_no_error_passes_on(value: Dict[str, Any]) -> None:
    """An event that is not known here is handed out as it is."""
    assert decode(json.dumps(value)) == UnknownEvent(value.get("type", ""), value)


@pytest.mark.parametrize("error", [None, "", False, {}, 0, []], ids=repr)
def test_an_error_that_is_empty_takes_nothing_from_an_event(error: Any) -> None:
    """Some services send the key in every event."""
    content = {"type": "content", "body": "x", "error": error}
    assert decode(json.dumps(content)) == ContentEvent("content", content, "x")
    complete = {"type": "complete", "id": "m", "error": error}
    assert isinstance(decode(json.dumps(complete)), CompleteEvent)


# fmt: off
WORDS = [
    ("upstream failed",                                  "upstream failed"),
    ('"upstream failed"',                                "upstream failed"),
    ("",                                                 ""),
    ("[1]",                                              "[1]"),
    ("null",                                             "null"),
    ("{half",                                            "{half"),
    ("<html><head><title>502 &amp; more</title></head>", "502 & more"),
    (" <p>no title",                                     ""),
]
# fmt: on


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_an_error_may_be_mere_words(text: str, words: str) -> None:
    """They are told as they are, and those of a web page by its title."""
    assert read_error(text) == ErrorEvent("error", {}, words, "")


def data_of(event: Optional[Event]) -> Any:
    assert event is not None
    return event.data


CAPTURED_END = (
    '{"type":"complete","id":"95bc","parentMessageID":"fc07","model":"","turnId":"",'
    '"createdAt":"2026-04-15T09:16:31.627141074Z","references":[],"role":"assistant","intent":"conversation",'
    '"usage":{"inputTokens":12,"outputTokens":2},"copilotAnnotations":{"CodeVulnerability":[]}}'
)


@pytest.mark.parametrize(
    "data, kind, fields",
    [
        ('{"type":"content","body":"Hel"}', ContentEvent, {"body": "Hel"}),
        (' {"type":"content","body":" "} ', ContentEvent, {"body": " "}),
        ('{"type":"content","body":"\\ud83c\\udf89 \\ud800"}', ContentEvent, {"body": "🎉 \ufffd"}),
        ('{"type":"content","body":"a\tb\x00"}', ContentEvent, {"body": "a\tb\x00"}),
        ('{"body":"first","type":"content","body":"last"}', ContentEvent, {"body": "last"}),
        (
            CAPTURED_END,
            CompleteEvent,
            {"id": "95bc", "model": "", "usage": Usage(12, 2), "annotations": {"CodeVulnerability": []}},
        ),
        ('{"type":"complete"}', CompleteEvent, {"id": None, "model": "", "usage": None, "annotations": {}}),
        (
            '{"type":"complete","id":7,"model":null,"usage":[],"copilotAnnotations":"x"}',
            CompleteEvent,
            {"id": None, "model": "", "usage": None, "annotations": {}},
        ),
        (
            '{"type":"complete","id":"","model":"o1","usage":{}}',
            CompleteEvent,
            {"id": None, "model": "o1", "usage": Usage()},
        ),
        ('{"type":"complete","id":"m\\ud800"}', CompleteEvent, {"id": "m\ufffd"}),
        ('{"type":"complete","usage":{"inputTokens":true,"outputTokens":"2"}}', CompleteEvent, {"usage": Usage()}),
        ('{"type":"complete","usage":{"inputTokens":NaN,"outputTokens":1e9}}', CompleteEvent, {"usage": Usage()}),
        ('{"type":"complete","usage":{"inputTokens":' + "9" * 300 + "}}", CompleteEvent, {"usage": Usage(10**300 - 1)}),
        ('{"type":"routedModel","model":"mai-code"}', RoutedModelEvent, {"type": "routedModel", "model": "mai-code"}),
        (
            '{"type":"threadAutoPickedModel","model":"o1"}',
            RoutedModelEvent,
            {"type": "threadAutoPickedModel", "model": "o1"},
        ),
        ('{"type":"routedModel"}', RoutedModelEvent, {"model": ""}),
        ('{"type":"annotations","copilotAnnotations":{"a":[]}}', AnnotationsEvent, {"annotations": {"a": []}}),
        ('{"type":"annotations","annotations":{"a":[]}}', AnnotationsEvent, {"annotations": {"a": []}}),
        ('{"type":"annotations","annotations":[1]}', AnnotationsEvent, {"annotations": {}}),
        ('{"type":"annotations"}', AnnotationsEvent, {"annotations": {}}),
        ('{"type":"error","message":"m","code":"c"}', ErrorEvent, {"message": "m", "code": "c"}),
        ('{"type":"error","description":"d","status":503}', ErrorEvent, {"message": "d", "code": "503"}),
        ('{"type":"error","message":"","description":"d"}', ErrorEvent, {"message": "d", "code": ""}),
        ('{"type":"error","error":{"message":"m","code":429}}', ErrorEvent, {"message": "m", "code": "429"}),
        ('{"type":"error","error":"m n"}', ErrorEvent, {"message": "m n", "code": ""}),
        ('{"type":"error","body":"m","code":null}', ErrorEvent, {"message": "m", "code": ""}),
        ('{"type":"error","message":["m"],"code":{}}', ErrorEvent, {"message": "", "code": ""}),
        ('{"type":"error"}', ErrorEvent, {"message": "", "code": ""}),
        ('{"type":"telemetry","n":NaN}', UnknownEvent, {"type": "telemetry"}),
        ('{"type":"t\\ud800"}', UnknownEvent, {"type": "t\ufffd"}),
        ('{"type":"Content","body":"x"}', UnknownEvent, {"type": "Content"}),
        ('{"type":7}', UnknownEvent, {"type": ""}),
        ('{"type":["content"]}', UnknownEvent, {"type": ""}),
        ('{"type":null}', UnknownEvent, {"type": ""}),
        ("{}", UnknownEvent, {"type": "", "data": {}}),
    ],
    ids=lambda value: ascii(value)[:60] if isinstance(value, str) else "",
)
def test_an_event_is_read(data: str, kind: Type[Event], fields: Dict[str, Any]) -> None:
    """A missing or odd field never fails; what is not known is passed on; the object stays as it came."""
    event = decode(data)
    assert type(event) is kind
    assert {name: getattr(event, name) for name in fields} == fields
    assert repr(data_of(event)) == repr(json.loads(data, strict=False))


@pytest.mark.parametrize(
    "data", ['{"type":"content"}', '{"type":"content","body":null}', '{"type":"content","body":""}']
)
def test_a_piece_without_text_is_no_event(data: str) -> None:
    """So that a content event is never empty."""
    assert decode(data) is None


@pytest.mark.parametrize("data", ["[DONE]", " [DONE] "])
def test_the_end_marker_is_one_event(data: str) -> None:
    """It ends the stream without saying anything about the answer."""
    assert decode(data) is DONE


@pytest.mark.parametrize("data", ["", " \n"], ids=ascii)
def test_an_event_without_data_is_nothing(data: str) -> None:
    """It keeps a connection alive, and nothing can be missing from it."""
    assert decode(data) is None


@pytest.mark.parametrize(
    "data",
    [
        "Hel",
        '{"type":"content","body":"Hel"',
        '{"type":"content","body":"Hel"}{"type":"content"}',
        '{"type":"content","body":"Hel"} [DONE]',
        "[done]",
        "[]",
        "[{}]",
        "null",
        "5",
        '"content"',
        "NaN",
        '{"type":"content","body":5}',
        '{"type":"content","body":0}',
        '{"type":"content","body":false}',
        '{"type":"content","body":[]}',
        '{"type":"content","body":{"text":"Hel"}}',
        '{"type":"content","body":NaN}',
        '{"a":' * 100_000,
        "[" * 100_000,
    ],
    ids=lambda data: ascii(data[:45]),
)
def test_what_is_no_event_is_a_protocol_error(data: str) -> None:
    """The stream skips it with a warning, which must not quote what came."""
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert caught.value.stage == "stream"
    assert "Hel" not in str(caught.value)


@given((OBJECTS | JSON_VALUES).map(json.dumps) | st.text(max_size=30))
@example('{"type":"content","n":' + "9" * 5000 + "}")
@example('{"type":"error","code":' + "9" * 4000 + "}")
@example('{"type":"other"}')
def test_decoding_any_event_raises_nothing_but_a_protocol_error(data: str) -> None:
    """The stream skips what it can't read; an error event becomes an error that travels."""
    try:
        event = decode(data)
    except ProtocolError:
        return
    assert not isinstance(event, ContentEvent) or (event.body and event.body.encode("utf-8"))
    if isinstance(event, ErrorEvent):
        str(pickle.loads(pickle.dumps(error_of_event(event, plain)))).encode("utf-8")


def test_brackets_in_texts_are_no_nesting() -> None:
    """An answer may be full of them, and a reply may have many side by side."""
    body = "[{" * 5000 + '\\" ]'
    event = decode(json.dumps({"type": "content", "body": body, "others": [[]] * 1000}))
    assert isinstance(event, ContentEvent) and event.body == body
    twice = "[" * 150 + "]" * 150
    assert decode(f'{{"type":"content","body":"x","one":{twice},"other":{twice}}}')
