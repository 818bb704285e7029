"""OpenAI's API over a client: what is answered, and what never is."""

import io
import json
import math
import socket
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from gateway import KEY, Response, call, environ_of, gateway_of, open_response, question
from support import PATIENCE, Worker, collect_garbage, nothing_left_open, stages, wait_until
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from copilot_sync import Budget, Client, Ledger, RetryPolicy
from copilot_sync.contrib.openai_gateway import Gateway, answer_events, application, request_body
from copilot_sync.contrib.openai_gateway.answering import Answering
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.openai_api.chat_request import ChatRequest
from copilot_sync.openai_api.failures import too_busy

CHAT = "/v1/chat/completions"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            yield served


@pytest.fixture
def gateway(emulator: Emulator) -> Iterator[Gateway]:
    with gateway_of(emulator) as made:
        yield made


def texts(response: Response) -> str:
    """The text of a streamed completion."""
    chunks = [event for event in response.events if event != "[DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


def test_a_completion_has_all_that_clients_want(gateway: Gateway) -> None:
    """Ids, times as whole numbers, and what it cost."""
    response = call(gateway, CHAT, question())
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert response.headers["x-request-id"].startswith("req_")
    made = response.json
    assert made["id"].startswith("chatcmpl-")
    assert (made["object"], type(made["created"])) == ("chat.completion", int)
    assert made["model"]
    [choice] = made["choices"]
    assert choice["message"] == {"role": "assistant", "content": "one two", "refusal": None}
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert made["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_a_stream_says_who_speaks_then_the_text_then_the_end(gateway: Gateway) -> None:
    """All of it has one id, and the end comes once."""
    response = call(gateway, CHAT, question(stream=True))
    assert response.headers["Content-Type"].startswith("text/event-stream")
    first, *others, last, done = response.events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert texts(response) == "one two"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert [each["choices"][0]["finish_reason"] for each in (first, *others)] == [None] * (len(others) + 1)
    assert done == "[DONE]"
    assert len({(each["id"], each["object"], each["created"], each["model"]) for each in (first, *others, last)}) == 1


@pytest.mark.parametrize(
    "usage, expected",
    [(None, {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}), ({}, None)],
    ids=["told", "not told"],
)
def test_a_last_chunk_says_what_it_cost(emulator: Emulator, gateway: Gateway, usage: Any, expected: Any) -> None:
    """If it is asked for. It has no choices."""
    emulator.script(Reply(["one ", "two"], usage=usage))
    response = call(gateway, CHAT, question(stream=True, stream_options={"include_usage": True}))
    *_, cost, done = response.events
    assert (cost["choices"], cost["usage"], done) == ([], expected, "[DONE]")


def test_models_are_listed_and_looked_up(emulator: Emulator, gateway: Gateway) -> None:
    """The service is asked once in a while only."""
    listed = call(gateway, "/v1/models").json
    assert (listed["object"], listed["has_more"]) == ("list", False)
    one = listed["data"][0]
    assert set(one) == {"id", "object", "created", "owned_by"}
    assert call(gateway, f"/v1/models/{one['id']}").json == one
    unknown = call(gateway, "/v1/models/gpt-99")
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    assert stages(emulator) == ["models"]


def test_head_of_the_models_asks_nobody(emulator: Emulator, gateway: Gateway) -> None:
    """Frameworks answer it by running the whole request otherwise."""
    response = call(gateway, "/v1/models", method="HEAD")
    assert (response.status, response.body) == (200, b"")
    assert call(gateway, CHAT, question(), method="HEAD").status == 405
    assert emulator.requests == []


@pytest.mark.parametrize("name, status", [("gpt-4o", 200), ("gpt-99", 404)])
def test_head_of_a_model_tells_whether_it_is_there(gateway: Gateway, name: str, status: int) -> None:
    """As ``GET`` does, without the body."""
    head, got = (call(gateway, f"/v1/models/{name}", method=method) for method in ("HEAD", "GET"))
    assert (head.status, got.status, head.body) == (status, status, b"")
    assert head.headers["Content-Length"] == str(len(got.body))


@pytest.mark.parametrize(
    "path", ["/", "/chat/completions", "/v1", "/v1/completions", "/v1/chat/completions/x", "/v1/modelsx", "/v1/\xff"]
)
def test_what_is_not_there_is_not_found(gateway: Gateway, path: str) -> None:
    """In JSON, as everything. Whoever has forgotten half of the base URL is told so."""
    response = call(gateway, path)
    assert (response.status, response.error["type"]) == (404, "invalid_request_error")
    assert ("a base URL ends in /v1" in response.error["message"]) == (not path.startswith("/v1"))


def test_another_method_is_refused(gateway: Gateway) -> None:
    """And the right one is named."""
    response = call(gateway, CHAT, method="GET")
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert call(gateway, "/v1/models", b"{}").headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "given, words",
    [("", "missing"), ("Bearer", "not the gateway's"), ("Bearer other", "not the"), ("Bearer \xff\u20ac", "not the"),
     (f"Basic {KEY}", "not the")],
)  # fmt: skip
def test_the_key_is_needed(emulator: Emulator, gateway: Gateway, given: str, words: str) -> None:
    """Whatever is asked."""
    response = call(gateway, CHAT, question(), HTTP_AUTHORIZATION=given)
    assert (response.status, response.error["code"]) == (401, "invalid_api_key")
    assert words in response.error["message"]
    assert emulator.requests == []


@pytest.mark.parametrize(
    "host", ["", "localhost", "LOCALHOST:1", "127.0.0.1:8", "[::1]:8", "192.168.7.7", "chat.example"]
)
def test_this_machine_addresses_and_allowed_names_are_hosts(emulator: Emulator, host: str) -> None:
    """A page of a browser can't make its own name one of these."""
    with gateway_of(emulator, hosts=["Chat.example"]) as gateway:
        assert call(gateway, "/v1/models", HTTP_HOST=host).status == 200


@pytest.mark.parametrize(
    "page",
    [{"HTTP_HOST": "evil.example:8765"}, {"HTTP_HOST": "[::1"}, {"HTTP_ORIGIN": "https://evil.example"},
     {"HTTP_ORIGIN": "null"}],
)  # fmt: skip
def test_pages_of_browsers_are_refused(emulator: Emulator, gateway: Gateway, page: Dict[str, str]) -> None:
    """Also if they have the key."""
    assert call(gateway, CHAT, question(), **page).status == 403
    assert emulator.requests == []


def test_a_host_stays_refused(gateway: Gateway) -> None:
    """However often it is tried, and whatever was let in between."""
    names = ["evil.example", "evil.example", "127.0.0.1", "evil.example", "127.0.0.1"]
    assert [call(gateway, "/v1/models", HTTP_HOST=name).status for name in names] == [403, 403, 200, 403, 200]
    answers = [call(gateway, "/v1/models", HTTP_HOST="evil.example", HTTP_AUTHORIZATION="Bearer x") for _ in range(2)]
    assert [answer.status for answer in answers] == [403, 403]


@pytest.mark.parametrize(
    "body, code",
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"\xff", "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "hi", "x": [NaN]}]}', "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": -Infinity}', "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": 1e999}', "invalid_json"),
        ({}, "invalid_type"),
        ({"messages": "hi"}, "invalid_type"),
        ({"messages": []}, "invalid_type"),
        (question(model=5), "invalid_type"),
        (question(stream="yes"), "invalid_type"),
        (question(stream_options=5), "invalid_type"),
        (question(stream_options={"include_usage": 1}), "invalid_type"),
        ({"messages": [5]}, "invalid_value"),
        ({"messages": [{"role": "user", "content": ""}]}, "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "invalid_value"),
        (question(model="\ud800"), "invalid_value"),
        (question(tools=[{"type": "function"}]), "unsupported_parameter"),
        (question(n=2), "unsupported_parameter"),
        (question(n=True), "unsupported_parameter"),
        (question(stop="END"), "unsupported_parameter"),
        (question(logprobs=True), "unsupported_parameter"),
        (question(modalities=["text", "audio"]), "unsupported_parameter"),
    ],
)
def test_what_can_not_be_asked_is_refused(emulator: Emulator, gateway: Gateway, body: Any, code: str) -> None:
    """Before anything is sent."""
    response = call(gateway, CHAT, body)
    assert (response.status, response.error["code"]) == (400, code)
    assert emulator.requests == []


def test_what_changes_nothing_is_taken(gateway: Gateway) -> None:
    """As clients send it that send every parameter."""
    body = question(
        tools=[], tool_choice="none", n=1, stop=None, logprobs=False, response_format={"type": "text"}, audio=None
    )
    response = call(gateway, CHAT, {**body, "model": None})
    assert response.status == 200
    assert "x-copilot-sync-ignored" not in response.headers


def test_what_can_not_be_carried_is_named(gateway: Gateway) -> None:
    """As far as a name can stand in a header."""
    body = question(temperature=0.5, max_tokens=7, **{"bad\nname": 1, "x" * 100: 1})
    assert call(gateway, CHAT, body).headers["x-copilot-sync-ignored"] == "max_tokens, temperature, " + "x" * 40
    many = {f"name_{number}": 1 for number in range(100)}
    assert len(call(gateway, CHAT, question(**many)).headers["x-copilot-sync-ignored"]) < 1000
    assert "x-copilot-sync-ignored" not in call(gateway, CHAT, question(**{"\n": 1})).headers


USERS = [
    ({"user": "ann"}, "ann"),
    ({"safety_identifier": "ann"}, "ann"),
    ({"safety_identifier": "ann", "user": "bob"}, "ann"),
    ({"safety_identifier": "", "user": "bob"}, "bob"),
    ({"user": None}, ""),
]


@pytest.mark.parametrize(("path", "asked"), [(CHAT, question()), ("/v1/responses", {"input": "Hi"})])
@pytest.mark.parametrize(("fields", "user"), USERS)
def test_a_request_says_for_whom_it_is(
    emulator: Emulator, path: str, asked: Dict[str, Any], fields: Dict[str, Any], user: str, tmp_path: Path
) -> None:
    """The ledger knows, and a budget counts; the service is not told."""
    ledger, budget = Ledger(tmp_path / "ledger.db"), Budget(per_user={"requests": 1})
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None, ledger=ledger, budget=budget) as client:
        gateway = Gateway(client, key=KEY)
        first = call(gateway, path, {**asked, **fields})
        assert first.status == 200
        assert "x-copilot-sync-ignored" not in first.headers
        second = call(gateway, path, {**asked, **fields})
        assert (second.status, call(gateway, path, asked).status) == (429 if user else 200, 200)
    assert {entry.user for entry in ledger.entries(user=user)} == {user}
    assert user == "" or "ann" not in str([request.json for request in emulator.requests])


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
@pytest.mark.parametrize("name", ["user", "safety_identifier"])
def test_a_user_is_a_string(gateway: Gateway, path: str, name: str) -> None:
    """As at OpenAI."""
    response = call(gateway, path, {**question(), "input": "Hi", name: 5})
    assert (response.status, response.error["code"], response.error["param"]) == (400, "invalid_type", name)


def test_images_and_roles_go_as_the_client_has_them(emulator: Emulator, gateway: Gateway) -> None:
    """The whole transcript is sent, because each request begins a conversation."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    messages = [
        {"role": "system", "content": "Be brief"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "See"}, picture]},
    ]
    assert call(gateway, CHAT, {"messages": messages}).status == 200
    sent = json.loads(emulator.requests[-1].body)
    assert "System: Be brief" in sent["content"]
    assert sent["mediaContent"][0]["url"] == "https://example.org/a.png"


@pytest.mark.parametrize(
    "more, code",
    [
        ({"CONTENT_LENGTH": "x"}, "invalid_length"),
        ({"CONTENT_LENGTH": "-1"}, "invalid_length"),
        ({"CONTENT_LENGTH": "9" * 30}, "body_too_large"),
        ({"CONTENT_LENGTH": "1000"}, "incomplete_body"),
        ({"CONTENT_LENGTH": ""}, "length_required"),
    ],
)
def test_a_body_that_is_not_all_there_is_refused(gateway: Gateway, more: Dict[str, str], code: str) -> None:
    """Whatever the server lets through."""
    response = call(gateway, CHAT, question(), **more)
    assert response.error["code"] == code
    assert response.status in (400, 411, 413)


@pytest.mark.parametrize("depth", [250, 960, 20_000])
def test_a_body_that_is_nested_too_deeply_is_refused(gateway: Gateway, depth: int) -> None:
    """What Python's stack just takes when it is read, it may not take when it is written."""
    message = '{"role": "user", "content": "hi", "x": %s}' % ("[" * depth + "]" * depth)
    response = call(gateway, "/v1/responses", f'{{"input": [{message}]}}'.encode())
    assert (response.status, response.error["code"]) == (400, "invalid_json")


def test_a_body_without_a_length_is_read_to_its_end(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server says where that is. It is bounded all the same."""
    chunked = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert call(gateway, CHAT, question(), **chunked).status == 200
    monkeypatch.setattr(request_body, "LIMIT", 10)
    assert call(gateway, CHAT, question(), **chunked).status == 413


def test_a_client_that_leaves_while_it_asks_is_not_answered(emulator: Emulator, gateway: Gateway) -> None:
    """Some servers raise then."""

    class Broken(io.BytesIO):
        def read(self, size: Any = -1) -> bytes:
            raise ConnectionResetError

    assert call(gateway, CHAT, question(), **{"wsgi.input": Broken()}).error["code"] == "incomplete_body"
    assert emulator.requests == []


FAULTS = [
    pytest.param(Fault.status(400), 400, "invalid_request", False, id="refused"),
    pytest.param(Fault.status(403), 401, "account_refused", False, id="forbidden"),
    pytest.param(Fault.status(404), 404, "not_found", False, id="not found"),
    pytest.param(Fault.status(402), 429, "insufficient_quota", False, id="used up"),
    pytest.param(Fault.rate_limit(30), 429, "rate_limit_exceeded", True, id="too many, with a time"),
    pytest.param(Fault.rate_limit(), 429, "rate_limit_exceeded", True, id="too many"),
    pytest.param(Fault.rate_limit(3600), 429, "rate_limit_exceeded", False, id="too many for an hour"),
    pytest.param(Fault.status(503, retry_after=30), 503, "unavailable", True, id="away for a while"),
    pytest.param(Fault.status(500), 503, "unavailable", False, id="failed"),
    pytest.param(Fault.garbage(), 503, "unavailable", False, id="a web page"),
    pytest.param(Fault.drop(reset=True), 502, "unreachable", False, id="reset"),
]


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault, status, code, may_retry", FAULTS)
def test_a_failure_has_the_status_that_clients_go_by(
    emulator: Emulator, gateway: Gateway, fault: Fault, status: int, code: str, may_retry: bool, is_streamed: bool
) -> None:
    """Also a streamed one, if it comes before the text. They try again only if that can help."""
    emulator.fail("message", fault)
    response = call(gateway, CHAT, question(stream=is_streamed))
    assert (response.status, response.error["code"]) == (status, code)
    assert (response.headers.get("x-should-retry") != "false") == may_retry
    asked_to_wait = fault in (Fault.rate_limit(30), Fault.status(503, retry_after=30))
    assert response.headers.get("Retry-After") == ("30" if asked_to_wait else None)
    assert "Traceback" not in response.body.decode()


@pytest.mark.parametrize("fault", [Fault.cut(1), Fault.cut(1, reset=True)], ids=["cut", "reset"])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_half_an_answer_is_never_whole(emulator: Emulator, gateway: Gateway, fault: Fault, is_streamed: bool) -> None:
    """It ends in an error object, and the marker of the end does not come."""
    emulator.fail("message", fault, fault, fault, fault)
    emulator.fail("messages", *[Fault.status(500)] * 9)
    response = call(gateway, CHAT, question(stream=is_streamed))
    if is_streamed:
        assert "error" in response.events[-1]
        assert "[DONE]" not in response.events
    else:
        assert response.status >= 500
        assert response.error["message"]


def test_an_answer_that_may_not_be_whole_is_an_error(emulator: Emulator, gateway: Gateway) -> None:
    """The service has not said that it is, and its thread does not tell either."""
    emulator.script(Reply(["one "], complete=False), Reply(["one "], complete=False))
    emulator.fail("messages", *[Fault.status(404)] * 9)
    for is_streamed in (False, True):
        response = call(gateway, CHAT, question(stream=is_streamed))
        error = response.events[-1]["error"] if is_streamed and response.status == 200 else response.error
        assert error["code"] in ("incomplete_answer", "failed")
        assert "[DONE]" not in response.body.decode()


def test_a_refusal_pauses_everybody(emulator: Emulator) -> None:
    """The next question is refused here, before the service has to."""
    with gateway_of(emulator, patience=0) as gateway:
        emulator.fail("message", Fault.rate_limit(40))
        assert call(gateway, CHAT, question()).status == 429
        before = len(emulator.requests)
        response = call(gateway, CHAT, question())
        assert (response.status, response.error["code"]) == (429, "rate_limit_exceeded")
        assert 30 <= int(response.headers["Retry-After"]) <= 40
        assert len(emulator.requests) == before


def test_a_question_waits_for_its_turn(emulator: Emulator) -> None:
    """As long as it may; then it is told to come again."""
    with gateway_of(emulator, concurrency=1, patience=PATIENCE) as gateway:
        status, _, body = open_response(gateway, environ_of(CHAT, question(stream=True)))
        waiting = Worker(lambda: call(gateway, CHAT, question()))
        assert not waiting.ended_within(0.2)
        assert b"[DONE]" in b"".join(body)
        assert (status, waiting.result().status) == (200, 200)
    with gateway_of(emulator, concurrency=1, patience=0.1) as gateway:
        _, _, body = open_response(gateway, environ_of(CHAT, question(stream=True)))
        refused = call(gateway, CHAT, question())
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        body.close()
        body.close()
        assert call(gateway, CHAT, question()).status == 200


def test_the_client_is_not_asked_to_wait_for_limits(emulator: Emulator) -> None:
    """The gateway's own client may be patient: programs here are told at once."""
    with gateway_of(emulator, retry=RetryPolicy()) as gateway:
        emulator.fail("message", Fault.rate_limit(30))
        assert call(gateway, CHAT, question()).status == 429


def test_the_list_of_models_is_not_waited_for_either(emulator: Emulator) -> None:
    """Everybody who asks for it waits for the one who fetches it."""
    with gateway_of(emulator, retry=RetryPolicy()) as gateway:
        emulator.fail("models", Fault.rate_limit(2))
        response = call(gateway, "/v1/models")
    assert (response.status, response.headers["Retry-After"]) == (429, "2")
    assert stages(emulator) == ["models"]


def test_whoever_waits_for_the_list_of_models_fails_with_it(emulator: Emulator) -> None:
    """Each would try for as long as the first, one by one. Whoever comes later asks anew."""
    with gateway_of(emulator) as gateway:
        emulator.fail("models", Fault.stall())
        first = Worker(lambda: call(gateway, "/v1/models"))
        wait_until(lambda: emulator.stalled)
        second = Worker(lambda: call(gateway, "/v1/models"))
        assert not second.ended_within(0.5)
        gateway._client.get().close()
        assert first.result().status == second.result().status == 503
        assert stages(emulator) == ["models"]
        assert call(gateway, "/v1/models").status == 200


def test_a_fault_of_its_own_is_in_the_log_alone(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns that there was one."""

    def fail(*args: Any) -> Any:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(ChatRequest, "from_json", fail)
    response = call(gateway, CHAT, question())
    assert (response.status, response.error["code"]) == (500, "internal_error")
    assert b"secret" not in response.body
    assert "ZeroDivisionError" in caplog.text


def test_a_fault_in_the_middle_of_a_stream_ends_it_with_an_error(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And never with the marker of the end."""

    def fail(*args: Any) -> Any:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Answering, "answer", fail)
    response = call(gateway, CHAT, question(stream=True))
    assert response.events[-1]["error"]["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text


def test_it_can_be_mounted_under_a_path(gateway: Gateway) -> None:
    """Beside the site that is there."""
    application = DispatcherMiddleware(lambda *_: [b""], {"/copilot": gateway})
    assert call(application, f"/copilot{CHAT}", question(), SCRIPT_NAME="").status == 200


def test_credentials_that_are_missing_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The gateway of the process makes its client and its key with the first request."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    gateway = Gateway()
    assert call(gateway, "/v1/models").status == 401
    [kept] = (tmp_path / "copilot-sync").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    key = kept.read_text().strip()
    response = call(gateway, "/v1/models", HTTP_AUTHORIZATION=f"bearer {key}")
    assert (response.status, response.error["code"]) == (500, "not_configured")
    assert call(Gateway(), "/v1/models", HTTP_AUTHORIZATION=f"Bearer {key}").status == 500
    kept.chmod(0o644)
    assert call(Gateway(), "/v1/models", HTTP_AUTHORIZATION=f"Bearer {key}").status == 500
    assert kept.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("COPILOT_SYNC_GATEWAY_KEY", "mine")
    assert call(Gateway(), "/v1/models", HTTP_AUTHORIZATION="Bearer mine").status == 500
    gateway.close()
    assert isinstance(application, Gateway)


def test_a_client_that_was_given_stays_open(emulator: Emulator) -> None:
    """Whoever made it closes it."""
    with gateway_of(emulator) as gateway:
        gateway.close()
        assert call(gateway, CHAT, question()).status == 200


@pytest.mark.parametrize(
    "options, error",
    [({"client": 5}, TypeError), ({"key": 5}, TypeError), ({"key": ""}, ValueError), ({"key": "a b"}, ValueError),
     ({"key": "\xff"}, ValueError), ({"concurrency": 0}, ValueError), ({"rate": "5"}, TypeError),
     ({"hosts": ["a:80"]}, ValueError),
     ({"patience": "5"}, TypeError), ({"patience": None}, TypeError), ({"patience": -1}, ValueError),
     ({"patience": float("nan")}, ValueError), ({"hosts": "example.org"}, TypeError), ({"hosts": 5}, TypeError),
     ({"hosts": [None]}, TypeError)],
)  # fmt: skip
def test_wrong_settings_are_refused_at_once(options: Any, error: Any) -> None:
    """Not with the first request."""
    with pytest.raises(error):
        Gateway(**options)


def stalled(emulator: Emulator) -> None:
    emulator.fail("message", Fault.stall(("after_events", 1)))


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_a_client_that_has_left_ends_the_question(emulator: Emulator, gateway: Gateway, is_streamed: bool) -> None:
    """If the server can tell, without writing."""
    stalled(emulator)
    gone = threading.Event()
    more = {"waitress.client_disconnected": gone.is_set}
    asking = Worker(lambda: call(gateway, CHAT, question(stream=is_streamed), **more))
    wait_until(lambda: bool(emulator.stalled))
    gone.set()
    response = asking.result()
    assert b"error" not in response.body
    assert emulator.wait_until(lambda: emulator.disconnects)


def test_a_client_that_leaves_the_queue_asks_nothing(emulator: Emulator) -> None:
    """It had no turn yet."""
    with gateway_of(emulator, concurrency=1) as gateway:
        _, _, body = open_response(gateway, environ_of(CHAT, question(stream=True)))
        before = len(emulator.requests)
        call(gateway, CHAT, question(), **{"waitress.client_disconnected": lambda: True})
        assert len(emulator.requests) == before
        body.close()


def test_a_connection_of_gunicorns_tells_that_its_client_has_left(emulator: Emulator, gateway: Gateway) -> None:
    """What the client may have sent for its next request stays unread."""
    stalled(emulator)
    ours, peers = socket.socketpair()
    ours.settimeout(PATIENCE)
    with ours:
        asking = Worker(lambda: call(gateway, CHAT, question(), **{"gunicorn.socket": ours}))
        wait_until(lambda: bool(emulator.stalled))
        assert not asking.ended_within(0.6)
        peers.close()
        asking.result()
        assert emulator.wait_until(lambda: emulator.disconnects)
        stalled(emulator)
    closed = Worker(lambda: call(gateway, CHAT, question(), **{"gunicorn.socket": ours}))
    closed.result()


def test_silence_is_filled_with_comments(emulator: Emulator, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """By which the server learns that the client has left. They are no events, over which clients stumble."""
    monkeypatch.setattr(answer_events, "PATIENCE", 0.0)
    monkeypatch.setattr(answer_events, "SHORT_HEARTBEAT", 0.01)
    stalled(emulator)
    _, _, body = open_response(gateway, environ_of(CHAT, question(stream=True)))
    parts = [next(body)]
    while not emulator.stalled:  # pragma: no branch - it comes of going on, as a server does
        parts.append(next(body))  # pragma: no cover - on a busy machine alone
    while parts[-3:] != [b": waiting\n\n"] * 3:
        parts.append(next(body))
    body.close()
    assert emulator.wait_until(lambda: emulator.disconnects)
    parts += list(body)
    assert b'"error"' in parts[-1]
    assert b"event:" not in b"".join(parts)
    assert b"[DONE]" not in b"".join(parts)


def test_a_body_that_nobody_wants_frees_its_turn(emulator: Emulator) -> None:
    """Whether the server fails to begin the response, or drops it."""
    with gateway_of(emulator, concurrency=1, patience=PATIENCE) as gateway:

        def refuse(*args: Any) -> Any:
            raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            gateway(environ_of(CHAT, question(stream=True)), refuse)
        with pytest.raises(BrokenPipeError):
            gateway(environ_of("/v1/models"), refuse)
        dropped = open_response(gateway, environ_of(CHAT, question(stream=True)))
        del dropped
        collect_garbage()  # which CPython does not need
        assert call(gateway, CHAT, question()).status == 200
    assert answer_events.AnswerEvents.__new__(answer_events.AnswerEvents).__del__() is None  # type: ignore[func-returns-value]


def test_a_transcript_goes_on_in_its_conversation(emulator: Emulator) -> None:
    """Only what the user said last is sent. One that was changed begins anew, and so does one that is in use."""
    with gateway_of(emulator, threads=True) as gateway:
        transcript: List[Any] = [{"role": "user", "content": "first"}]

        def ask(*messages: Any) -> str:
            reply = call(gateway, CHAT, {"messages": list(messages)}).json["choices"][0]["message"]
            return str(reply["content"])

        answer = ask(*transcript)
        transcript += [{"role": "assistant", "content": answer}, {"role": "user", "content": "second"}]
        ask(*transcript)
        ask(*transcript)
        threads = [request.path for request in emulator.requests if request.stage == "message"]
        assert threads[0] == threads[1] != threads[2]
        sent = [json.loads(request.body)["content"] for request in emulator.requests if request.stage == "message"]
        assert sent[1] == "second"
        assert "first" in sent[2]
        ask({"role": "assistant", "content": "never said"}, {"role": "user", "content": "third"})
        ask({"role": "user", "content": "x"}, {"role": "system", "content": "y"}, {"role": "user", "content": "z"})
        assert len({request.path for request in emulator.requests if request.stage == "message"}) == 4


def test_a_transcript_that_had_no_turn_goes_on_in_its_conversation_later(emulator: Emulator) -> None:
    """Clients ask again by themselves after 429: nothing was asked yet, so nothing has changed."""
    with gateway_of(emulator, threads=True, concurrency=1, patience=0) as gateway:
        transcript: List[Any] = [{"role": "user", "content": "first"}]
        answer = call(gateway, CHAT, {"messages": transcript}).json["choices"][0]["message"]
        transcript += [answer, {"role": "user", "content": "second"}]
        _, _, other = open_response(gateway, environ_of(CHAT, question(stream=True)))
        assert call(gateway, CHAT, {"messages": transcript}).status == 429
        other.close()
        assert call(gateway, CHAT, {"messages": transcript}).status == 200
    sent = [request for request in emulator.requests if request.stage == "message"]
    assert sent[-1].path == sent[0].path
    assert json.loads(sent[-1].body)["content"] == "second"


@pytest.mark.parametrize("message", ["text", None, {"role": "user", "content": 5}, {"role": "user", "content": [{}]}])
def test_a_transcript_that_can_not_be_read_is_refused(emulator: Emulator, message: Any) -> None:
    """It is the request that is wrong, and not the gateway, also if transcripts are looked up."""
    messages = [message, {"role": "assistant", "content": "one"}, {"role": "user", "content": "two"}]
    with gateway_of(emulator, threads=True) as gateway:
        response = call(gateway, "/v1/chat/completions", {"messages": messages})
    assert (response.status, response.error["param"]) == (400, "messages")
    assert not emulator.requests


def test_only_so_many_conversations_are_remembered() -> None:
    """The oldest is forgotten."""
    from copilot_sync import Conversation
    from copilot_sync.contrib.openai_gateway.thread_memory import ThreadMemory

    memory = ThreadMemory(2)
    for number in range(3):
        memory.keep(None, [{"role": "user", "content": str(number)}], "a", Conversation(f"c{number}"))

    def found(number: int) -> Any:
        said = [{"role": "user", "content": str(number)}, {"role": "assistant", "content": "a"}]
        return memory.take(None, [*said, {"role": "user", "content": "more"}])

    assert (found(0), found(1), found(2)) == (None, Conversation("c1"), Conversation("c2"))
    assert memory.take(None, [5, {"role": "user", "content": "more"}]) is None


@pytest.mark.parametrize(
    ("seconds", "words", "headers"),
    [
        (math.inf, "too many questions at once", [("Retry-After", "1")]),
        (42.0, "the next question may be asked in 42 s", [("Retry-After", "42")]),
        (4000.0, "the next question may be asked in 1 h 6 min", [("x-should-retry", "false")]),
    ],
)
def test_whoever_asks_too_fast_is_told_when_to_ask_again(
    seconds: float, words: str, headers: List[Tuple[str, str]]
) -> None:
    """In hours, if it takes that long. Clients sleep for what the header says, so a long wait is none for them."""
    error = too_busy(seconds)
    assert (error.status, list(error.headers)) == (429, headers)
    assert str(error) == f"the account's pace does not allow another question now: {words}"
