"""The gateway's responses, as a program that speaks OpenAI's API sees them. No package of OpenAI's is needed."""

import io
import json
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import pytest
from streams import client_of
from support import Worker, nothing_left_open

from copilot_sync import Client, Timeout
from copilot_sync.contrib.openai_gateway import Gateway, answer_events
from copilot_sync.contrib.openai_gateway.response_events import ResponseWriter
from copilot_sync.contrib.openai_gateway.response_objects import ResponseObjects
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.openai_api.failures import ApiError

KEY = "sk-test"
PATH = "/v1/responses"


class Got(NamedTuple):
    """What a gateway answered, of which the body may still be on its way."""

    status: int
    headers: Dict[str, str]
    parts: Iterable[bytes]

    @property
    def json(self) -> Any:
        return json.loads(b"".join(self.parts))

    @property
    def error(self) -> Dict[str, Any]:
        error: Dict[str, Any] = self.json["error"]
        return error

    def events(self) -> List[Dict[str, Any]]:
        return events_of(b"".join(self.parts))

    def close(self) -> None:
        self.parts.close()  # type: ignore[attr-defined]


def events_of(body: bytes) -> List[Dict[str, Any]]:
    """The data of the events; comments are left out."""
    return [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]


def call(gateway: Gateway, method: str, path: str, body: object = None, **environ: object) -> Got:
    """Ask a gateway in process."""
    data = b"" if body is None else json.dumps(body).encode()
    path, _, query = path.partition("?")
    got: List[Any] = []
    parts = gateway(
        {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(data)),
            "HTTP_AUTHORIZATION": f"Bearer {KEY}",
            "wsgi.input": io.BytesIO(data),
            **environ,
        },
        lambda status, headers: got.extend((status, headers)),
    )
    return Got(int(got[0].split()[0]), dict(got[1]), parts)


def create(gateway: Gateway, given: object = "one two", **parameters: object) -> Got:
    return call(gateway, "POST", PATH, {"model": "gpt-4o", "input": given, **parameters})


def text_of(response: Dict[str, Any]) -> str:
    text: str = response["output"][0]["content"][0]["text"]
    return text


def begun(gateway: Gateway, *given: object, **parameters: object) -> Tuple[Got, str]:
    """Begin a streamed response; its first events are read."""
    got = create(gateway, *given, stream=True, **parameters)
    assert got.status == 200
    name: str = events_of(next(iter(got.parts)))[0]["response"]["id"]
    return got, name


def begun_with(gateway: Gateway, has_left: Callable[[], bool]) -> Tuple[Got, str]:
    """Begin a streamed response whose server says if its client has left."""
    environ = {"waitress.client_disconnected": has_left}
    got = call(gateway, "POST", PATH, {"input": "one two", "stream": True}, **environ)
    name: str = events_of(next(iter(got.parts)))[0]["response"]["id"]
    return got, name


def stalled(gateway: Gateway, emulator: Emulator, *given: object, **parameters: object) -> Tuple[Got, str]:
    """Begin a streamed response of which the service has written one word."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    got, name = begun(gateway, *given, **parameters)
    while not emulator.stalled:  # pragma: no branch - the question goes on as long as the answer is read
        next(iter(got.parts))  # pragma: no cover - on a busy machine alone
    return got, name


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open(), Emulator() as served:
        yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator, retry=None, resume=False) as made:
        yield made


@pytest.fixture
def gateway(client: Client) -> Gateway:
    return Gateway(client, key=KEY, concurrency=2, rate=None, patience=0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for: neither ahead of the first event, nor for a comment."""
    monkeypatch.setattr(answer_events, "PATIENCE", 0.02)
    monkeypatch.setattr(answer_events, "HEARTBEAT", 0.02)
    monkeypatch.setattr(answer_events, "SHORT_HEARTBEAT", 0.02)


def test_a_response_has_all_that_a_strict_client_asks_for(gateway: Gateway) -> None:
    """The fields are those of OpenAI's API, and none is missing."""
    before = int(time.time())
    got = create(gateway, "one two", instructions=" ")
    response = got.json
    assert (got.status, got.headers["Content-Type"]) == (200, "application/json")
    assert before <= response.pop("created_at") <= time.time()
    name, item = response.pop("id"), response["output"][0].pop("id")
    assert name.startswith("resp_")
    assert item.startswith("msg_")
    assert response == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": " ",
        "max_output_tokens": None,
        "metadata": {},
        "model": "gpt-4o",
        "output": [
            {
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "one two", "annotations": [], "logprobs": []}],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 2,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 4,
        },
        "user": None,
    }


def test_a_response_is_retrieved_as_it_was(gateway: Gateway) -> None:
    """The same object."""
    response = create(gateway).json
    got = call(gateway, "GET", f"{PATH}/{response['id']}")
    assert (got.status, got.json) == (200, response)


def test_usage_is_not_made_up(gateway: Gateway, emulator: Emulator) -> None:
    """The service may not say what an answer cost."""
    emulator.script(Reply("text", usage={}))
    assert create(gateway).json["usage"] is None


def test_the_model_may_be_left_to_the_gateway(gateway: Gateway, client: Client) -> None:
    """``null`` is none."""
    response = create(gateway, model=None, stream=True).events()[0]["response"]
    assert response["model"] == client._model


def test_events_come_in_the_order_that_clients_need(gateway: Gateway) -> None:
    """Each names its type twice and has its number; the last has the response that is retrieved later."""
    got = create(gateway, "one two three", stream=True)
    assert got.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    body = b"".join(got.parts)
    events = events_of(body)
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    named = [line[7:] for line in body.decode().splitlines() if line.startswith("event: ")]
    assert named == [event["type"] for event in events]
    created, last = events[0]["response"], events[-1]["response"]
    assert (created["status"], created["output"]) == ("in_progress", [])
    assert "".join(event["delta"] for event in events if "delta" in event) == text_of(last) == "one two three"
    assert events[-2]["item"] == last["output"][0]
    assert events[2]["item"] == {**last["output"][0], "status": "in_progress", "content": []}
    place = {"item_id": last["output"][0]["id"], "output_index": 0, "content_index": 0}
    assert [{name: event[name] for name in place} for event in events[3:-2]] == [place] * 6
    assert events[7]["text"] == events[8]["part"]["text"] == "one two three"
    assert call(gateway, "GET", f"{PATH}/{last['id']}").json == last


def test_a_conversation_goes_on_after_a_response(gateway: Gateway, emulator: Emulator) -> None:
    """Only the new input is sent, to the same thread, as what follows that answer."""
    first = create(gateway, "first").json
    second = create(gateway, [{"role": "user", "content": "second"}], previous_response_id=first["id"]).json
    third = create(gateway, "third", previous_response_id=second["id"], stream=True).events()[-1]["response"]
    assert (second["previous_response_id"], third["previous_response_id"]) == (first["id"], second["id"])
    (thread,) = emulator.threads.values()
    asked, answers = thread.user_messages, thread.assistant_messages
    assert [message["content"] for message in asked] == ["first", "second", "third"]
    assert [message["parentMessageID"] for message in asked] == ["root", answers[0]["id"], answers[1]["id"]]


def test_instructions_are_sent_with_each_request_that_has_them(gateway: Gateway, emulator: Emulator) -> None:
    """They are not carried on, as OpenAI has it."""
    first = create(gateway, "first", instructions="be brief").json
    second = create(gateway, "second", instructions="be kind", previous_response_id=first["id"]).json
    create(gateway, "third", previous_response_id=second["id"])
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == [
        "System: be brief\nUser: first\nAssistant:",
        "be kind\n\nsecond",
        "third",
    ]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        pytest.param([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "a\nb", id="user alone"),
        pytest.param(
            [{"role": "developer", "content": "a"}, {"role": "user", "content": [{"type": "input_text", "text": "b"}]}],
            "Developer: a\nUser: b\nAssistant:",
            id="developer first",
        ),
        pytest.param(
            [
                {"role": "user", "content": "a"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
                {"role": "user", "content": "c"},
            ],
            "User: a\nAssistant: b\nUser: c\nAssistant:",
            id="a transcript",
        ),
    ],
)
def test_all_of_the_new_input_is_sent(gateway: Gateway, emulator: Emulator, given: object, sent: str) -> None:
    """Also what is not the user's, in a conversation that goes on."""
    first = create(gateway, "first").json
    assert create(gateway, given, previous_response_id=first["id"]).status == 200
    (thread,) = emulator.threads.values()
    assert thread.user_messages[-1]["content"] == sent


def test_images_and_files_are_sent(gateway: Gateway, emulator: Emulator) -> None:
    """As the chat API's are."""
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="},
    ]
    assert create(gateway, [{"role": "user", "content": parts}]).status == 200
    body = json.loads([request for request in emulator.requests if request.stage == "message"][-1].body)
    assert body["mediaContent"][0]["url"] == "https://example.org/a.png"
    assert len(body["references"]) == 1


def test_two_that_go_on_after_one_response_at_once_are_two_branches(
    gateway: Gateway, emulator: Emulator, impatient: None
) -> None:
    """Neither waits for the other, and neither gets into the other's conversation."""
    first = create(gateway, "first").json
    slow, _ = stalled(gateway, emulator, "slow one", previous_response_id=first["id"])
    fast = create(gateway, "fast", previous_response_id=first["id"]).json
    emulator.release()
    done = slow.events()[-1]
    assert (text_of(fast), done["type"], text_of(done["response"])) == ("fast", "response.completed", "slow one")
    (thread,) = emulator.threads.values()
    root = thread.assistant_messages[0]["id"]
    parents = {message["content"]: message["parentMessageID"] for message in thread.user_messages}
    assert parents == {"first": "root", "slow one": root, "fast": root}
    assert create(gateway, "more", previous_response_id=fast["id"]).status == 200
    assert create(gateway, "again", previous_response_id=first["id"]).status == 200
    parents = {message["content"]: message["parentMessageID"] for message in thread.user_messages}
    answers = {message["content"]: message["id"] for message in thread.assistant_messages}
    assert (parents["more"], parents["again"]) == (answers["fast"], root)


def test_a_conversation_never_goes_on_without_the_answer_that_is_named(gateway: Gateway, emulator: Emulator) -> None:
    """If the service has lost it, that is an error."""
    first = create(gateway, "first").json
    (thread,) = emulator.threads.values()
    emulator.expire_messages(thread.id)
    got = create(gateway, "second", previous_response_id=first["id"])
    assert (got.status, got.error["type"]) == (400, "invalid_request_error")
    assert thread.user_messages == []


def test_what_is_not_stored_is_not_known_afterwards(gateway: Gateway) -> None:
    """It can be neither retrieved nor continued, streamed or not."""
    streamed = create(gateway, store=False, stream=True).events()[-1]["response"]
    for response in (create(gateway, store=False).json, streamed):
        assert (response["store"], response["status"]) == (False, "completed")
        assert call(gateway, "GET", f"{PATH}/{response['id']}").status == 404
        got = create(gateway, previous_response_id=response["id"])
        assert (got.status, got.error["code"]) == (400, "previous_response_not_found")


def test_a_deleted_response_is_forgotten(gateway: Gateway) -> None:
    """Its id is unknown from then on."""
    name = create(gateway).json["id"]
    got = call(gateway, "DELETE", f"{PATH}/{name}")
    assert (got.status, got.json) == (200, {"id": name, "object": "response", "deleted": True})
    assert call(gateway, "DELETE", f"{PATH}/{name}").status == 404
    assert create(gateway, previous_response_id=name).status == 400


def test_a_response_may_be_deleted_while_it_is_answered(gateway: Gateway, emulator: Emulator, impatient: None) -> None:
    """The answer goes on, and is not remembered."""
    got, name = stalled(gateway, emulator)
    assert call(gateway, "DELETE", f"{PATH}/{name}").status == 200
    emulator.release()
    assert got.events()[-1]["type"] == "response.completed"
    assert call(gateway, "GET", f"{PATH}/{name}").status == 404


def test_a_response_under_way_is_known_and_can_be_cancelled(
    gateway: Gateway, emulator: Emulator, impatient: None
) -> None:
    """Its events end with an error, without any that says how it ended; the connection and its turn are free."""
    got, name = stalled(gateway, emulator)
    assert call(gateway, "GET", f"{PATH}/{name}").json["status"] == "in_progress"
    assert create(gateway, previous_response_id=name).error["param"] == "previous_response_id"
    cancelled = call(gateway, "POST", f"{PATH}/{name}/cancel")
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    events = got.events()
    assert events[-1] == {
        "error": {
            "message": "the response was cancelled",
            "type": "server_error",
            "param": None,
            "code": "cancelled",
        }
    }
    assert {event.get("type") for event in events[:-1]} <= {"response.output_text.delta"}
    assert call(gateway, "GET", f"{PATH}/{name}").json == cancelled.json
    again = call(gateway, "POST", f"{PATH}/{name}/cancel")
    assert (again.status, again.error["code"]) == (400, "response_ended")
    assert emulator.wait_until(lambda: emulator.disconnects)


def test_a_reader_that_waits_is_woken_when_its_response_is_cancelled(gateway: Gateway, emulator: Emulator) -> None:
    """Another thread reads the events meanwhile."""
    emulator.fail("message", Fault.stall(("after_events", 2)))
    got, name = begun(gateway)
    reader = Worker(got.events)
    assert emulator.wait_until(lambda: emulator.stalled)
    assert call(gateway, "POST", f"{PATH}/{name}/cancel").status == 200
    assert reader.result()[-1]["error"]["code"] == "cancelled"


def test_a_finished_response_can_not_be_cancelled(gateway: Gateway) -> None:
    """As OpenAI answers."""
    name = create(gateway).json["id"]
    got = call(gateway, "POST", f"{PATH}/{name}/cancel")
    assert (got.status, got.error["type"]) == (400, "invalid_request_error")


CUT = pytest.param(None, Fault.cut(2), id="cut")
RESET = pytest.param(None, Fault.cut(2, reset=True), id="reset")
STALLED = pytest.param(None, Fault.stall(("after_events", 2)), id="stalled")
SAID = pytest.param(Reply(["one ", "two"], error="it broke"), None, id="error event")
UNPROVEN = pytest.param(Reply(["one ", "two"], complete=False, done=False, framing="close"), None, id="not whole")


@pytest.mark.parametrize(("reply", "fault"), [CUT, RESET, STALLED, SAID, UNPROVEN])
@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "plain"])
def test_an_answer_that_may_not_be_whole_is_an_error(
    emulator: Emulator, reply: Optional[Reply], fault: Optional[Fault], is_streamed: bool
) -> None:
    """Never a response that is completed. Its turn is free afterwards."""
    with client_of(emulator, retry=None, resume=False, timeout=Timeout(read=0.3)) as client:
        gateway = Gateway(client, key=KEY, concurrency=1, rate=None, patience=0)
        emulator.script(reply or Reply(["one ", "two ", "three ", "four"]))
        emulator.fail("message", fault)
        got = create(gateway, stream=is_streamed)
        if is_streamed:
            events = got.events()
            assert [event.get("type") for event in events[-2:]] == ["response.failed", None]
            error, response = events[-1]["error"], events[-2]["response"]
            assert (response["status"], response["output"]) == ("failed", [])
            assert response["error"] == {"code": "server_error", "message": error["message"]}
            assert "response.completed" not in [event.get("type") for event in events]
            assert call(gateway, "GET", f"{PATH}/{response['id']}").json == response
            assert create(gateway, previous_response_id=response["id"]).status == 400
        else:
            assert got.status >= 500
            error = got.error
        assert error["message"]
        emulator.release()
        assert create(gateway).status == 200


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        pytest.param(Fault.status(400), 400, id="refused"),
        pytest.param(Fault.rate_limit(30), 429, id="too often"),
        pytest.param(Fault.status(503), 503, id="down"),
        pytest.param(Fault.drop(), 502, id="cut"),
    ],
)
def test_an_error_ahead_of_the_first_text_has_a_status(
    gateway: Gateway, emulator: Emulator, fault: Fault, status: int, is_streamed: bool
) -> None:
    """Also if the response was to be streamed."""
    emulator.fail("message", fault)
    got = create(gateway, stream=is_streamed)
    assert (got.status, got.headers["Content-Type"]) == (status, "application/json")
    assert got.error["message"]


def test_a_pace_that_is_exceeded_in_mid_answer_is_said_so() -> None:
    """Of the codes that a response may have there is one for it."""
    error = ApiError(429, "slow down", code="rate_limit_exceeded")
    assert ResponseObjects("auto").failed(error)["error"]["code"] == "rate_limit_exceeded"


def test_silence_is_filled_with_comments(gateway: Gateway, emulator: Emulator, impatient: None) -> None:
    """No event of another type is among them."""
    got, _ = stalled(gateway, emulator)
    parts = [next(iter(got.parts)) for _ in range(4)]
    assert parts[-1] == b": waiting\n\n"
    emulator.release()
    assert got.events()[-1]["type"] == "response.completed"


def test_closing_in_mid_answer_frees_the_connection_and_the_turn(
    client: Client, emulator: Emulator, impatient: None
) -> None:
    """And the response is cancelled."""
    gateway = Gateway(client, key=KEY, concurrency=1, rate=None, patience=0)
    got, name = stalled(gateway, emulator)
    assert create(gateway).status == 429
    got.close()
    got.close()
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert call(gateway, "GET", f"{PATH}/{name}").json["status"] == "cancelled"
    assert call(gateway, "POST", f"{PATH}/{name}/cancel").status == 400
    assert create(gateway).status == 200


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "plain"])
def test_a_client_that_leaves_ahead_of_the_first_text_frees_the_turn(
    client: Client, emulator: Emulator, is_streamed: bool
) -> None:
    """As its server notices."""
    gateway = Gateway(client, key=KEY, concurrency=1, rate=None, patience=0)
    emulator.fail("message", Fault.stall())
    has_left = {"waitress.client_disconnected": lambda: True}
    got = call(gateway, "POST", PATH, {"input": "a", "stream": is_streamed}, **has_left)
    assert (got.status, list(got.parts)) == (408, [])
    emulator.release()
    assert create(gateway).status == 200


def test_a_client_that_leaves_in_mid_answer_ends_the_response(
    gateway: Gateway, emulator: Emulator, impatient: None
) -> None:
    """Nothing more is written."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    gone: List[bool] = []
    got, name = begun_with(gateway, lambda: bool(gone))
    gone.append(True)
    assert {event.get("type") for event in got.events()} <= {"response.output_text.delta"}
    assert call(gateway, "GET", f"{PATH}/{name}").json["status"] == "cancelled"


def test_a_fault_of_the_gateways_own_ends_the_response(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error that says nothing of its inside."""

    def broken(*args: object) -> bytes:
        raise KeyError("inside")

    monkeypatch.setattr(ResponseWriter, "delta", broken)
    for _ in range(3):  # each turn is given back
        body = b"".join(create(gateway, stream=True).parts)
        failed, error = events_of(body)[-2:]
        assert (failed["response"]["status"], error["error"]["code"]) == ("failed", "internal_error")
        assert b"inside" not in body


MESSAGE = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        pytest.param({"input": None}, "input", id="no input"),
        pytest.param({"input": ""}, "input", id="empty input"),
        pytest.param({"input": []}, "input", id="empty list"),
        pytest.param({"input": 5}, "input", id="number as input"),
        pytest.param({"input": {"role": "user", "content": "a"}}, "input", id="object as input"),
        pytest.param({"input": " "}, "input", id="blank input"),
        pytest.param({"input": ["a"]}, "input", id="text as item"),
        pytest.param({"input": [{"type": "function_call_output", "output": "a"}]}, "input", id="no message"),
        pytest.param({"input": [{**MESSAGE, "type": []}]}, "input", id="type of a wrong type"),
        pytest.param({"input": [{"content": "a"}]}, "input", id="no role"),
        pytest.param({"input": [{"role": "tool", "content": "a"}]}, "input", id="role not known"),
        pytest.param({"input": [{"role": [], "content": "a"}]}, "input", id="role of a wrong type"),
        pytest.param({"input": [{"role": "user"}]}, "input", id="no content"),
        pytest.param({"input": [{"role": "user", "content": 5}]}, "input", id="number as content"),
        pytest.param({"input": [{"role": "user", "content": [5]}]}, "input", id="number as part"),
        pytest.param({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input", id="blank part"),
        pytest.param({"input": [{"role": "user", "content": [{"text": 5}]}]}, "input", id="number as text"),
        pytest.param({"input": [{"role": "user", "content": [{"type": "refusal"}]}]}, "input", id="part not known"),
        pytest.param(
            {"input": [MESSAGE, {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input",
            id="image without address",
        ),
        pytest.param(
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input",
            id="file that is elsewhere",
        ),
        pytest.param({"instructions": 5}, "instructions", id="number as instructions"),
        pytest.param({"instructions": [MESSAGE]}, "instructions", id="messages as instructions"),
        pytest.param({"model": 5}, "model", id="number as model"),
        pytest.param({"stream": "yes"}, "stream", id="text as flag"),
        pytest.param({"store": 1}, "store", id="number as flag"),
        pytest.param({"previous_response_id": 5}, "previous_response_id", id="number as id"),
        pytest.param({"previous_response_id": ""}, "previous_response_id", id="empty id"),
        pytest.param({"previous_response_id": "resp_0"}, "previous_response_id", id="unknown id"),
        pytest.param({"previous_response_id": "chatcmpl-0"}, "previous_response_id", id="id of another kind"),
        pytest.param({"text": "plain"}, "text", id="text as text"),
        pytest.param({"text": {"format": {"type": "grammar"}}}, "text.format", id="a format that is none"),
        pytest.param({"text": {"format": "text"}}, "text.format", id="format of a wrong type"),
        pytest.param({"tools": [{"type": "web_search"}]}, "tools", id="tools"),
        pytest.param({"tools": 5}, "tools", id="number as tools"),
        pytest.param({"tool_choice": "required"}, "tool_choice", id="tool choice"),
        pytest.param({"background": True}, "background", id="background"),
        pytest.param({"include": ["reasoning.encrypted_content"]}, "include", id="include"),
        pytest.param({"conversation": "conv_0"}, "conversation", id="conversation"),
        pytest.param({"prompt": {"id": "pmpt_0"}}, "prompt", id="stored prompt"),
        pytest.param({"top_logprobs": 1}, "top_logprobs", id="probabilities"),
        pytest.param({"top_logprobs": True}, "top_logprobs", id="flag as number"),
    ],
)
def test_what_can_not_be_met_is_refused(
    gateway: Gateway, emulator: Emulator, parameters: Dict[str, object], param: str
) -> None:
    """With a 400 that names the parameter. Nothing is sent, and no turn is taken."""
    for is_streamed in (False, True):
        got = call(gateway, "POST", PATH, {"input": "a", "stream": is_streamed, **parameters})
        error = got.error
        assert (got.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert emulator.threads == {}
    assert [create(gateway).status for _ in range(3)] == [200] * 3


def test_new_input_that_can_not_be_sent_is_refused(gateway: Gateway) -> None:
    """Also if it is not the user's alone, in a conversation that goes on."""
    first = create(gateway).json
    got = create(gateway, [{"role": "system", "content": 5}, MESSAGE], previous_response_id=first["id"])
    assert (got.status, got.error["param"]) == (400, "input")


def test_what_has_no_effect_is_named(gateway: Gateway) -> None:
    """What says nothing is not."""
    harmless: Dict[str, object] = {
        "background": False,
        "include": [],
        "instructions": None,
        "store": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "user": None,
    }
    got = create(gateway, **harmless)
    assert (got.status, got.headers.get("x-copilot-sync-ignored")) == (200, None)
    without_effect: Dict[str, object] = {
        "metadata": {"a": "b"},
        "reasoning": {"effort": "low"},
        "temperature": 0,
        "text": {"verbosity": "low"},
        "truncation": "auto",
    }
    for is_streamed in (False, True):
        got = create(gateway, stream=is_streamed, **without_effect)
        assert got.headers["x-copilot-sync-ignored"] == "metadata, reasoning, temperature, text, truncation"
        assert b"".join(got.parts)


@pytest.mark.parametrize("name", ["resp_0", "chatcmpl-0", "msg_0", "%00", "\u00e9", "..", "input_tokens"])
@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
)
def test_an_id_that_is_not_known_is_not_found(gateway: Gateway, name: str, method: str, rest: str) -> None:
    """Of whatever kind it is; the error does not repeat it."""
    got = call(gateway, method, f"{PATH}/{name}{rest}")
    error = got.error
    assert (got.status, error["code"]) == (404, "response_not_found")
    assert name not in error["message"]


@pytest.mark.parametrize(
    ("method", "rest", "allowed"),
    [
        ("GET", "", "POST"),
        ("HEAD", "", "POST"),
        ("POST", "/resp_0", "GET, DELETE"),
        ("GET", "/resp_0/cancel", "POST"),
        ("POST", "/resp_0/input_items", "GET"),
    ],
)
def test_each_path_has_its_methods(gateway: Gateway, method: str, rest: str, allowed: str) -> None:
    """Another one is refused, and the response says which there are."""
    got = call(gateway, method, f"{PATH}{rest}", {})
    assert (got.status, got.headers["Allow"]) == (405, allowed)


def test_there_is_nothing_else_below_a_response(gateway: Gateway) -> None:
    """Nor beside them."""
    for path in (f"{PATH}/resp_0/more", f"{PATH}/resp_0/cancel/more", f"{PATH}es"):
        got = call(gateway, "POST", path, {})
        assert (got.status, got.error["code"]) == (404, "unknown_url")


def test_a_response_can_not_be_streamed_again(gateway: Gateway) -> None:
    """A client that asks for events would take an object for a stream without any."""
    name = create(gateway).json["id"]
    got = call(gateway, "GET", f"{PATH}/{name}?stream=true&starting_after=3")
    assert (got.status, got.error["code"]) == (400, "unsupported_parameter")
    assert call(gateway, "GET", f"{PATH}/{name}?stream=false&include_obfuscation=").status == 200


def test_the_items_of_an_input_are_listed(gateway: Gateway) -> None:
    """In the form in which OpenAI keeps them, the last first."""
    image = {"type": "input_image", "image_url": "https://example.org/a.png"}
    file = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}
    given = [
        {"role": "user", "content": ["a", {"text": "b"}, image, file]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "c"}, {"type": "output_text"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "d"},
    ]
    name = create(gateway, given).json["id"]
    page = call(gateway, "GET", f"{PATH}/{name}/input_items").json
    items = page["data"][::-1]
    assert [item["role"] for item in items] == ["user", "assistant", "assistant", "user"]
    assert [item["content"] for item in items] == [
        [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}, {"detail": "auto", **image}, file],
        [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in ("c", "")],
        [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}],
        [{"type": "input_text", "text": "d"}],
    ]
    assert {(item["type"], item["status"]) for item in items} == {("message", "completed")}
    assert (page["first_id"], page["last_id"], page["has_more"]) == (items[3]["id"], items[0]["id"], False)


def test_the_items_come_in_pages(gateway: Gateway) -> None:
    """A client goes on after the last item of a page until there are no more."""
    name = create(gateway, [{"role": "user", "content": text} for text in "abc"]).json["id"]
    path, found, after = f"{PATH}/{name}/input_items?order=asc&limit=2", "", ""
    while True:
        page = call(gateway, "GET", path + after).json
        found += "".join(item["content"][0]["text"] for item in page["data"])
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert found == "abc"
    beyond = call(gateway, "GET", f"{path}&after={page['last_id']}").json
    assert (beyond["data"], beyond["first_id"], beyond["last_id"], beyond["has_more"]) == ([], None, None, False)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=%C2%B2", "limit"),
        (f"limit={'9' * 5000}", "limit"),
        ("order=up", "order"),
        ("after=msg_0", "after"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(gateway: Gateway, query: str, param: str) -> None:
    """With a 400 that names the parameter."""
    name = create(gateway).json["id"]
    got = call(gateway, "GET", f"{PATH}/{name}/input_items?{query}")
    assert (got.status, got.error["param"]) == (400, param)
