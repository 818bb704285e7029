"""OpenAI's formats of answers over a client: what is asked for, what comes back, and how often the service is asked."""

import json
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from gateway import KEY, Response, call, gateway_of, question
from support import nothing_left_open

from copilot_sync import Client, batch
from copilot_sync.contrib.openai_gateway import Gateway, answer_events
from copilot_sync.emulator import Emulator, Reply

pytest.importorskip("jsonschema", reason="jsonschema is not installed")

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
AGE: Dict[str, Any] = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
#: What a service writes, and the document in it.
FENCED, GOOD, BAD = 'Sure:\n```json\n{"age": 36}\n```\n', '{"age": 36}', '{"age": "old"}'
NAMED = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": AGE}}
FLAT = {"type": "json_schema", "name": "person", "strict": True, "schema": AGE}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator() as served:
            yield served


@pytest.fixture
def gateway(emulator: Emulator) -> Iterator[Gateway]:
    with gateway_of(emulator) as made:
        yield made


def body_of(path: str, form: Any, **more: Any) -> Dict[str, Any]:
    """A request for an answer in a format, as each API has it."""
    if path == CHAT:
        return question(response_format=form, **more)
    flat = {**form, **form.get("json_schema", {})} if isinstance(form, dict) else form
    if isinstance(flat, dict):
        flat.pop("json_schema", None)
    return {"input": "Who?", "text": {"format": flat}, **more}


def text_of(response: Response) -> str:
    """The text of an answer that is whole: of either API, streamed or not."""
    if response.headers["Content-Type"] == "application/json":
        body = response.json
        return str(
            body["choices"][0]["message"]["content"] if "choices" in body else body["output"][0]["content"][0]["text"]
        )
    events = [event for event in response.events if event != "[DONE]"]
    if "type" not in events[0]:
        return "".join(choice["delta"].get("content", "") for event in events for choice in event["choices"])
    assert events[-1]["type"] == "response.completed"
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def sent(emulator: Emulator) -> List[str]:
    return [request.json["content"] for request in emulator.requests if request.stage == "message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_an_answer_is_the_document_alone(emulator: Emulator, gateway: Gateway, path: str, stream: bool) -> None:
    """In one piece, whatever the service wrote around it; the schema goes with the question."""
    emulator.script(Reply(FENCED))
    response = call(gateway, path, body_of(path, NAMED, stream=stream))
    assert (response.status, text_of(response)) == (200, GOOD)
    assert "x-copilot-sync-ignored" not in response.headers
    [text] = sent(emulator)
    assert json.dumps(AGE) in text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_an_answer_that_does_not_fit_is_asked_for_again(
    emulator: Emulator, gateway: Gateway, path: str, stream: bool
) -> None:
    """In the same conversation. The client learns nothing of it but what all cost."""
    usage = {"inputTokens": 3, "outputTokens": 2}
    emulator.script(Reply("none", usage=usage), Reply(BAD, usage=usage), Reply(GOOD, usage=usage))
    options = {"stream": stream, **({"stream_options": {"include_usage": True}} if stream and path == CHAT else {})}
    response = call(gateway, path, body_of(path, NAMED, **options))
    assert (response.status, text_of(response)) == (200, GOOD)
    assert len(sent(emulator)) == 3
    assert len(emulator.threads) == 1
    assert b'_tokens":15' in response.body.replace(b" ", b"")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_no_answer_that_fits_is_an_error_that_clients_do_not_retry(
    emulator: Emulator, gateway: Gateway, path: str, stream: bool
) -> None:
    """A 422, after three messages, with what was wrong with the last answer."""
    emulator.reply = Reply(BAD)
    response = call(gateway, path, body_of(path, NAMED, stream=stream))
    assert (response.status, response.error["code"]) == (422, "invalid_answer")
    assert response.error["message"].startswith("none of 3 answers fits the schema: $.age: 'old' is not")
    assert response.headers["x-should-retry"] == "false"
    assert len(sent(emulator)) == 3


def test_a_stream_has_comments_until_the_answer_fits(
    emulator: Emulator, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head may be sent by then; an answer that fails is an error in it."""
    monkeypatch.setattr(answer_events, "PATIENCE", 0.0)
    monkeypatch.setattr(answer_events, "SHORT_HEARTBEAT", 0.01)
    emulator.reply = Reply(BAD, pace=0.05)
    response = call(gateway, CHAT, body_of(CHAT, NAMED, stream=True))
    assert response.status == 200
    assert b": waiting\n\n" in response.body
    assert response.events[-1]["error"]["code"] == "invalid_answer"
    assert "old" not in str(response.events[:-1])


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    "form", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "anything"}}]
)
def test_any_object_will_do_without_a_schema(
    emulator: Emulator, gateway: Gateway, path: str, form: Dict[str, Any]
) -> None:
    """But nothing else than an object."""
    emulator.script(Reply("[1]"), Reply('{"a": [1, 2.50]}'))
    response = call(gateway, path, body_of(path, form))
    assert json.loads(text_of(response)) == {"a": [1, 2.5]}
    assert len(sent(emulator)) == 2


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"type": "grammar"}, "invalid_value"),
        ({}, None),
        ({"type": None}, "invalid_value"),
        ("json", "invalid_type"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": []}}, "invalid_type"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 5}}}, "invalid_value"),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "https://a.example/"}}},
            "invalid_value",
        ),
        ({"type": "text"}, None),
        (None, None),
    ],
)
def test_a_format_that_can_not_be_met_is_refused(
    emulator: Emulator, gateway: Gateway, path: str, form: Any, code: Any
) -> None:
    """Before anything is sent. Text, or nothing, is no format."""
    response = call(gateway, path, body_of(path, form))
    if code is None:
        assert response.status == 200
        return
    param = "response_format" if path == CHAT else "text.format"
    assert (response.status, response.error["code"]) == (400, code)
    assert response.error["param"] in (param, "response_format.json_schema")
    assert emulator.requests == []


def test_a_schema_in_no_object_is_refused(emulator: Emulator, gateway: Gateway) -> None:
    """It has a name, too."""
    response = call(gateway, CHAT, question(response_format={"type": "json_schema", "json_schema": 5}))
    assert (response.status, response.error["param"]) == (400, "response_format.json_schema")
    assert emulator.requests == []


def test_without_what_judges_answers_the_client_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is whoever runs the gateway."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    response = call(gateway, CHAT, question(response_format=NAMED))
    assert (response.status, response.error["code"]) == (501, "not_configured")
    assert "copilot-sync[schema]" in response.error["message"]
    assert response.headers["x-should-retry"] == "false"


def test_a_transcript_goes_on_behind_the_document(emulator: Emulator) -> None:
    """The client knows the answer as the gateway sent it."""
    emulator.script(Reply(BAD), Reply(FENCED), Reply("fine"))
    with gateway_of(emulator, threads=True) as gateway:
        first = call(gateway, CHAT, question(response_format=NAMED))
        [asked] = question()["messages"]
        messages = [asked, first.json["choices"][0]["message"], {"role": "user", "content": "Sure?"}]
        assert call(gateway, CHAT, {**question(), "messages": messages}).status == 200
    assert sent(emulator)[-1] == "Sure?"
    assert len(emulator.threads) == 1


def test_a_response_says_what_it_had_to_be(emulator: Emulator, gateway: Gateway) -> None:
    """As its request did. Another one goes on after it, in its conversation."""
    emulator.script(Reply(BAD), Reply(FENCED), Reply("fine"))
    first = call(gateway, RESPONSES, body_of(RESPONSES, NAMED)).json
    assert first["text"] == {"format": FLAT}
    second = call(gateway, RESPONSES, {"input": "Sure?", "previous_response_id": first["id"]}).json
    assert second["text"] == {"format": {"type": "text"}}
    assert len(emulator.threads) == 1
    bodies = [request.json for request in emulator.requests if request.stage == "message"]
    assert bodies[2]["parentMessageID"] == bodies[1]["responseMessageID"]


def test_what_else_the_text_is_to_be_is_ignored(emulator: Emulator, gateway: Gateway) -> None:
    """As before."""
    emulator.script(Reply(GOOD))
    response = call(gateway, RESPONSES, {"input": "Who?", "text": {"format": FLAT, "verbosity": "low"}})
    assert (response.status, response.headers["x-copilot-sync-ignored"]) == (200, "text")


def test_an_answer_that_does_not_fit_is_an_answer_to_the_pace(
    emulator: Emulator, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows that the service answers."""
    emulator.reply = Reply(BAD)
    answered: List[bool] = []
    monkeypatch.setattr(gateway._known_limiter(), "answered", lambda: answered.append(True))
    assert call(gateway, CHAT, question(response_format=NAMED)).status == 422
    assert answered == [True]


def test_requests_of_a_batch_may_have_a_format(emulator: Emulator, tmp_path: Path) -> None:
    """Each line has the document, or the same error."""
    emulator.script(Reply(FENCED), *[Reply(BAD)] * 3)
    path, output = tmp_path / "requests.jsonl", tmp_path / "out.jsonl"
    forms = [NAMED, NAMED, {"type": "grammar"}]
    lines = [
        {"custom_id": str(number), "method": "POST", "url": CHAT, "body": question(response_format=form)}
        for number, form in enumerate(forms)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with Client(emulator.api_key, api_url=emulator.api_url) as client, batch.read(path, "openai") as requests:
        run = batch.run(requests, client=client, output=output, output_format="openai", workers=1)
        assert len(list(run)) == 3
    written = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    found = {line["custom_id"]: line["response"] for line in written}
    assert found["0"]["body"]["choices"][0]["message"]["content"] == GOOD
    assert (found["1"]["status_code"], found["1"]["body"]["error"]["code"]) == (422, "invalid_answer")
    assert (found["2"]["status_code"], found["2"]["body"]["error"]["param"]) == (400, "response_format")
    assert len(sent(emulator)) == 4


def test_a_cached_answer_is_a_document_too(emulator: Emulator, tmp_path: Path) -> None:
    """One that was kept for the same question and schema."""
    emulator.script(Reply(FENCED))
    with Client(emulator.api_key, api_url=emulator.api_url, answer_cache=tmp_path) as client:
        gateway = Gateway(client, key=KEY)
        texts = [text_of(call(gateway, CHAT, question(response_format=NAMED))) for _ in range(2)]
    assert texts == [GOOD, GOOD]
    assert len(sent(emulator)) == 1
