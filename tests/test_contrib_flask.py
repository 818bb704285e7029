"""The Flask extension: answers that stream, conversations in the session, one client for each application."""

import io
import logging
import sys
import threading
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, Dict, Iterator, List

import pytest
from emulated import MISSING_REFERENCE
from support import PATIENCE, Trouble, Worker, events, nothing_left_open, variables_with

pytest.importorskip("flask")

import flask
from cachelib import SimpleCache
from flask.sessions import SessionInterface, SessionMixin
from flask_caching import Cache

from copilot_sync import Budget
from copilot_sync.contrib import sse
from copilot_sync.contrib.flask import KEY, CopilotSync
from copilot_sync.emulator import Emulator, Fault, Reply

YEAR = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            yield served


def configuration(emulator: Emulator) -> Dict[str, Any]:
    return {
        "SECRET_KEY": "a key for signing",
        "COPILOT_SYNC_COOKIES": emulator.cookies,
        "COPILOT_SYNC_GITHUB_URL": emulator.github_url,
        "COPILOT_SYNC_API_URL": emulator.api_url,
        "COPILOT_SYNC_RETRY": None,
    }


@pytest.fixture
def copilot() -> CopilotSync:
    return CopilotSync()


@pytest.fixture
def app(emulator: Emulator, copilot: CopilotSync) -> Iterator[flask.Flask]:
    """An application with a chat."""
    app = flask.Flask("chat")
    app.config.update(configuration(emulator))
    copilot.init_app(app)

    @app.post("/chat")
    def chat() -> flask.Response:
        form = flask.request.form
        return copilot.stream_response(
            form.get("prompt"), name=form.get("name"), parent_message_id=form.get("message_id")
        )

    @app.post("/retry")
    def retry() -> flask.Response:
        form = flask.request.form
        return copilot.retry_response(
            name=form.get("name"), conversation=form.get("conversation"), model=form.get("model")
        )

    @app.post("/data")
    def data() -> flask.Response:
        form = flask.request.form
        return copilot.ask_response(form.get("prompt"), name=form.get("name"), schema=YEAR, repairs=1)

    @app.post("/new")
    def new() -> str:
        copilot.forget(flask.request.form["name"])
        return ""

    @app.get("/conversations")
    def conversations() -> Dict[str, str]:
        return {name: each.conversation_id for name, each in copilot.conversations().items()}

    @app.get("/names")
    def names() -> List[str]:
        return list(copilot.conversations())

    yield app
    app.extensions[KEY].close()


@pytest.fixture
def page(app: flask.Flask) -> Any:
    """A browser with a session of its own."""
    return app.test_client()


def ask(page: Any, **form: str) -> List[Dict[str, Any]]:
    return events(page.post("/chat", data=form).get_data())


def again(page: Any, **form: str) -> List[Dict[str, Any]]:
    return events(page.post("/retry", data=form).get_data())


def test_the_last_question_is_answered_again(emulator: Emulator, page: Any) -> None:
    """Beside the first time, by another model for once; the next question follows the new answer."""
    ask(page, prompt="first", name="chat")
    *_, end = again(page, name="chat", model="o1-mini")
    assert (end["type"], end["model"]) == ("complete", "o1-mini")
    ask(page, prompt="next", name="chat", message_id=end["message_id"])
    (thread,) = emulator.threads.values()
    first, _, second, answer, third, _ = thread.messages
    assert (second["content"], second["parentMessageID"]) == ("first", first["parentMessageID"])
    assert (answer["id"], third["parentMessageID"]) == (end["message_id"], end["message_id"])
    *_, end = again(page, conversation=thread.id)
    assert end["type"] == "complete"
    assert thread.messages[-2]["content"] == "next"


@pytest.mark.parametrize("form", [{}, {"name": "gone"}, {"name": "chat"}])
def test_nothing_to_answer_again_is_a_bad_request(emulator: Emulator, page: Any, form: Dict[str, str]) -> None:
    """No conversation, one that the session does not hold, or one without a question."""
    ask(page, prompt="first", name="chat")
    (thread,) = emulator.threads.values()
    thread.messages.clear()
    sent = len(emulator.requests)
    assert page.post("/retry", data=form).status_code == 400
    assert [request.stage for request in emulator.requests[sent:]] == ["messages"] * (form == {"name": "chat"})


@pytest.mark.parametrize("stage", ["messages", "message"])
def test_a_retry_that_fails_is_told_to_the_page(emulator: Emulator, page: Any, stage: str) -> None:
    """As an ``error`` event, and the conversation stays."""
    ask(page, prompt="first", name="chat")
    emulator.fail(stage, Fault.status(402))
    *_, end = again(page, name="chat")
    assert (end["type"], end["code"]) == ("error", "quota_exceeded")
    assert end["conversation_id"] in emulator.threads
    assert again(page, name="chat")[-1]["type"] == "complete"


def test_an_answer_is_a_stream_of_events(page: Any) -> None:
    """With the headers that keep it from being held back."""
    response = page.post("/chat", data={"prompt": "hi"})
    assert [event["type"] for event in events(response.get_data())] == ["content", "content", "complete"]
    assert {name: response.headers[name] for name in sse.HEADERS} == dict(sse.HEADERS)
    assert response.mimetype == "text/event-stream"


def test_pieces_arrive_one_by_one(emulator: Emulator, page: Any) -> None:
    """The first is there while the service still writes."""
    go_on = threading.Event()

    def halves() -> Iterator[str]:
        yield "one "
        assert go_on.wait(PATIENCE)
        yield "two"

    emulator.reply = lambda prompt: halves()
    response = page.post("/chat", data={"prompt": "hi"}, buffered=False)
    parts = response.iter_encoded()
    assert next(parts) == sse.PREAMBLE
    assert b"one" in next(parts)
    go_on.set()
    assert b"two" in b"".join(parts)
    response.close()


def test_closing_the_response_closes_the_stream(emulator: Emulator, page: Any) -> None:
    """As a server does when the client has gone."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    response = page.post("/chat", data={"prompt": "hi"})
    parts = response.iter_encoded()
    assert (next(parts), b"one" in next(parts)) == (sse.PREAMBLE, True)
    response.close()
    assert emulator.wait_until(lambda: emulator.disconnects)


@pytest.mark.parametrize("form", [{}, {"prompt": ""}, {"prompt": " \n"}], ids=["nothing", "empty", "blank"])
def test_nothing_to_ask_is_a_bad_request(emulator: Emulator, page: Any, form: Dict[str, str]) -> None:
    """And nothing is sent."""
    assert page.post("/chat", data=form).status_code == 400
    assert emulator.requests == []


@pytest.mark.parametrize("name", [{}, {"name": "chat"}], ids=["not kept", "kept"])
def test_pages_and_logs_say_what_is_wrong_and_no_secret(
    app: flask.Flask, trouble: Trouble, page: Any, caplog: pytest.LogCaptureFixture, name: Dict[str, str]
) -> None:
    """The page in words for a person, the log with the error and its cause; and nothing is kept then."""
    app.config.update({f"COPILOT_SYNC_{key}": value for key, value in trouble.settings.items()})
    with caplog.at_level(logging.DEBUG):
        body = page.post("/chat", data={"prompt": "hi", **name}).get_data()
    trouble.check_told(body, caplog.text)
    assert page.get("/conversations").json == {}


def test_a_conversation_is_kept_by_name(emulator: Emulator, page: Any) -> None:
    """The next question goes on with it; another name, and no name, have others."""
    first = ask(page, prompt="one", name="chat")[-1]
    second = ask(page, prompt="two", name="chat", message_id=first["message_id"])[-1]
    other = ask(page, prompt="three", name="other")[-1]
    unnamed = ask(page, prompt="four")[-1]
    assert first["conversation_id"] == second["conversation_id"]
    assert len({each["conversation_id"] for each in (first, other, unnamed)}) == 3
    assert page.get("/conversations").json == {"chat": first["conversation_id"], "other": other["conversation_id"]}
    said = emulator.threads[first["conversation_id"]].user_messages
    assert [message["content"] for message in said] == ["one", "two"]
    assert said[1]["parentMessageID"] == first["message_id"]


def test_a_forgotten_conversation_is_begun_anew(emulator: Emulator, page: Any) -> None:
    """The old one stays where it is; forgetting what is not known changes nothing."""
    first = ask(page, prompt="one", name="chat")[-1]
    page.post("/new", data={"name": "unknown"})
    assert list(page.get("/conversations").json) == ["chat"]
    page.post("/new", data={"name": "chat"})
    assert page.get("/conversations").json == {}
    second = ask(page, prompt="two", name="chat")[-1]
    assert first["conversation_id"] != second["conversation_id"]
    assert len(emulator.threads) == 2


@pytest.mark.parametrize("place", ["/chat", "/retry", "/data"])
def test_a_conversation_that_the_service_has_forgotten_is_forgotten_here(
    emulator: Emulator, page: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The page is told; the next question begins a new one. Another failure changes nothing."""
    monkeypatch.setattr(sse, "TAKING", PATIENCE)  # a busy machine may take more than a second to refuse
    first = ask(page, prompt="one", name="chat")[-1]["conversation_id"]
    emulator.fail("message", Fault.status(402))
    assert ask(page, prompt="two", name="chat")[-1]["code"] == "quota_exceeded"
    assert page.get("/conversations").json == {"chat": first}
    emulator.threads.clear()
    response = page.post(place, data={"prompt": "three", "name": "chat"})
    end = response.json if response.is_json else events(response.get_data())[-1]
    assert (end["type"], end["code"], end["conversation_id"]) == ("error", "not_found", first)
    assert page.get("/conversations").json == {}
    assert ask(page, prompt="four", name="chat")[-1]["conversation_id"] in emulator.threads


@pytest.mark.parametrize("place", ["/chat", "/data"])
def test_a_conversation_in_which_something_else_is_gone_stays(emulator: Emulator, page: Any, place: str) -> None:
    """Such as a repository: the service has begun to answer in that conversation."""
    first = ask(page, prompt="one", name="chat")[-1]["conversation_id"]
    emulator.fail("message", MISSING_REFERENCE)
    response = page.post(place, data={"prompt": "two", "name": "chat"})
    assert response.status_code == (200 if place == "/chat" else 503)
    end = response.json if response.is_json else events(response.get_data())[-1]
    assert end["code"] == "not_found"
    assert page.get("/conversations").json == {"chat": first}


def test_only_the_conversation_that_is_gone_is_forgotten(emulator: Emulator, page: Any) -> None:
    """Not another one of that name, which the view has passed over."""
    kept = ask(page, prompt="one", name="chat")[-1]["conversation_id"]
    assert again(page, name="chat", conversation="gone")[-1]["code"] == "not_found"
    assert page.get("/conversations").json == {"chat": kept}


def test_the_conversation_begun_last_is_at_the_end(app: flask.Flask, page: Any) -> None:
    """Whatever their names are, and however often the session was written and read."""
    for name in ("zeta", "alpha", "mu"):
        ask(page, prompt="one", name=name)
    assert page.get("/names").json == ["zeta", "alpha", "mu"]


def test_a_page_that_was_left_open_begins_anew(emulator: Emulator, page: Any) -> None:
    """The message that it still follows is none of the new conversation's, once the session has lost the old one."""
    first = ask(page, prompt="one", name="chat")[-1]
    page.post("/new", data={"name": "chat"})
    second = ask(page, prompt="two", name="chat", message_id=first["message_id"])[-1]
    assert second["type"] == "complete"
    assert second["conversation_id"] != first["conversation_id"]


def test_sessions_are_kept_apart(app: flask.Flask) -> None:
    """Two browsers, two conversations under one name."""
    ids = {ask(app.test_client(), prompt="hi", name="chat")[-1]["conversation_id"] for _ in range(2)}
    assert len(ids) == 2


def test_a_given_conversation_wins_and_is_kept(app: flask.Flask, copilot: CopilotSync) -> None:
    """As a string or a value."""
    with app.test_request_context():
        known = copilot.client.create_thread()
        response = copilot.stream_response("hi", name="chat", conversation=known.conversation_id)
        assert events(response.get_data())[-1]["conversation_id"] == known.conversation_id
        assert list(copilot.conversations()) == ["chat"]


def test_one_client_serves_all_threads(app: flask.Flask, copilot: CopilotSync) -> None:
    """It is made with the first need."""

    def look() -> Any:
        with app.app_context():
            return copilot.client

    assert len({id(worker.result()) for worker in [Worker(look) for _ in range(8)]}) == 1


def test_each_application_has_its_own(emulator: Emulator, app: flask.Flask, copilot: CopilotSync) -> None:
    """One extension object may serve several."""
    other = flask.Flask("other")
    other.config.update(configuration(emulator), COPILOT_SYNC_MODEL="o1-mini")
    copilot.init_app(other)
    with app.app_context():
        first = copilot.client
    with other.app_context():
        second = copilot.client
        assert copilot.client is second is not first
    assert "o1-mini" in repr(second)


def test_without_init_app_there_is_no_client(copilot: CopilotSync) -> None:
    """The message says what was forgotten."""
    with flask.Flask("bare").app_context(), pytest.raises(RuntimeError, match="was not given to CopilotSync.init_app"):
        _ = copilot.client


def test_an_unknown_name_in_the_configuration_is_named() -> None:
    """At once, with those that there are."""
    app = flask.Flask("wrong")
    app.config["COPILOT_SYNC_MODLE"] = "gpt-4o"
    with pytest.raises(ValueError, match="COPILOT_SYNC_, has no 'MODLE'; there are ANSWER_CACHE, API_KEY, .*, MODEL, "):
        CopilotSync(app)


@pytest.mark.parametrize("name, value", [("MODLE", ""), ("TIMEOUT", "long"), ("HEARTBEAT", -1), ("TOKEN_CACHE", 5)])
def test_no_wrong_configuration_shows_a_secret(name: str, value: Any) -> None:
    """Neither in an error nor in the variables with which it may be reported."""
    app = flask.Flask("wrong")
    app.config.update({"COPILOT_SYNC_COOKIES": {"user_session": "planted"}, f"COPILOT_SYNC_{name}": value})
    with app.app_context(), pytest.raises((TypeError, ValueError)) as caught:
        _ = CopilotSync(app).client
    assert variables_with("planted", caught.value) == []


def test_a_wrong_heartbeat_is_told_at_once() -> None:
    """Not with the first answer."""
    app = flask.Flask("wrong")
    app.config["COPILOT_SYNC_HEARTBEAT"] = 0
    with pytest.raises(ValueError, match="heartbeat"):
        CopilotSync(app)


@pytest.mark.usefixtures("_three_comments")
def test_the_heartbeat_is_the_configured_one(app: flask.Flask, page: Any) -> None:
    """Comments come while the service is silent."""
    app.config["COPILOT_SYNC_HEARTBEAT"] = 0.02
    assert page.post("/chat", data={"prompt": "hi"}).get_data().count(sse.COMMENT) >= 3


@pytest.mark.parametrize("where", ["argument", "configuration"])
@pytest.mark.parametrize("kind", ["Flask-Caching", "cachelib", "file"])
def test_tokens_are_kept_in_a_cache(emulator: Emulator, tmp_path: Any, kind: str, where: str) -> None:
    """Two applications, as two processes have them, fetch one token; and threads need no context for it."""
    caches = {"Flask-Caching": Cache(config={"CACHE_TYPE": "SimpleCache"}), "cachelib": SimpleCache()}
    cache: Any = caches.get(kind, tmp_path / "tokens.json")
    for number in range(2):
        app = flask.Flask(f"application {number}")
        app.config.update(configuration(emulator))
        if where == "configuration":
            app.config["COPILOT_SYNC_TOKEN_CACHE"] = cache
        if kind == "Flask-Caching" and number == 0:
            cache.init_app(app)
            store = app.extensions["cache"]
        elif kind == "Flask-Caching":
            app.extensions["cache"] = store
        copilot = CopilotSync(app, token_cache=cache if where == "argument" else None)
        with app.test_request_context():
            ask_anywhere = copilot.client.ask
        assert Worker(partial(ask_anywhere, "hi")).result().text == "one two"
        app.extensions[KEY].close()
    assert emulator.tokens_issued == 1


def test_the_command_asks(app: flask.Flask) -> None:
    """With the application's configuration."""
    result = app.test_cli_runner().invoke(args=["copilot", "ask", "hi", "--model", "o1-mini"])
    assert (result.exit_code, result.output) == (0, "one two\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_gets_nothing_from_the_command_to_obey(
    app: flask.Flask, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """A pipe gets every character."""

    class Out(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    emulator.reply = Reply(["one\x07", "\u202etwo"])
    out = Out()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        application = flask.cli.ScriptInfo(create_app=lambda: app)
        app.cli.main(["copilot", "ask", "hi"], standalone_mode=False, obj=application)
    assert out.getvalue() == ("one\ufffd\ufffdtwo\n" if terminal else "one\x07\u202etwo\n")


@pytest.mark.parametrize(
    "arguments, words", [(["hi"], "503"), (["hi", "--conversation", "a\nb"], "conversation"), ([" "], "empty")]
)
def test_the_command_says_what_is_wrong(emulator: Emulator, app: flask.Flask, arguments: Any, words: str) -> None:
    """On one line, without a traceback."""
    emulator.fail("thread", Fault.status(503))
    result = app.test_cli_runner().invoke(args=["copilot", "ask", *arguments])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert words in result.output


def test_a_new_conversation_gets_a_name(emulator: Emulator, app: flask.Flask, page: Any) -> None:
    """After the first answer, unless the configuration says otherwise."""
    ask(page, prompt="hi", name="chat")
    ask(page, prompt="and?", name="chat")
    assert [request.stage for request in emulator.requests].count("rename") == 1
    app.config["COPILOT_SYNC_NAME_THREADS"] = False
    ask(page, prompt="hi", name="other")
    assert [request.stage for request in emulator.requests].count("rename") == 1


def test_a_switch_that_is_none_is_found_when_the_application_starts(emulator: Emulator, copilot: CopilotSync) -> None:
    """Like any other value that can't be used."""
    app = flask.Flask("chat")
    app.config.update(configuration(emulator), COPILOT_SYNC_NAME_THREADS="no")
    with pytest.raises(TypeError, match="name_thread must be True or False, not str"):
        copilot.init_app(app)


class KeptSession(Dict[str, Any], SessionMixin):
    """A session that the server keeps."""

    sid: str = ""


class KeptSessions(SessionInterface):
    """Sessions by the key in a cookie, as Flask-Session has them."""

    def __init__(self) -> None:
        self.kept: Dict[str, Dict[str, Any]] = {}

    def open_session(self, app: flask.Flask, request: Any) -> Any:
        sid = request.cookies.get("sid", "")
        session = KeptSession(self.kept.get(sid, {}))
        session.sid = sid or "a new one for each request"
        return session

    def save_session(self, app: flask.Flask, session: Any, response: Any) -> None:
        if session:
            self.kept[session.sid] = dict(session)


def test_each_visitor_has_a_budget_if_the_server_keeps_the_sessions(app: flask.Flask) -> None:
    """One that is empty is not kept, and so nobody's."""
    app.config["COPILOT_SYNC_BUDGET"] = Budget(per_user={"requests": 2})
    app.session_interface = KeptSessions()
    ann, bob, nobody = (app.test_client(use_cookies=False) for _ in range(3))
    for page, sid in ((ann, "1"), (bob, "2")):
        page.environ_base["HTTP_COOKIE"] = f"sid={sid}"
        ask(page, prompt="hi", name="chat")  # this one's session is empty
        assert [ask(page, prompt="hi", name="chat")[-1]["type"] for _ in range(2)] == ["complete"] * 2
    assert again(ann, name="chat")[-1]["code"] == "quota_exceeded"
    assert [ask(nobody, prompt="hi")[-1]["type"] for _ in range(4)] == ["complete"] * 4


def test_each_user_who_has_logged_in_has_a_budget(app: flask.Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Flask-Login knows them. Others are nobody, if the session is in a cookie."""
    app.config["COPILOT_SYNC_BUDGET"] = Budget(per_user={"requests": 1})
    login: Any = ModuleType("flask_login")
    monkeypatch.setitem(sys.modules, "flask_login", login)
    app.login_manager = login  # type: ignore[attr-defined]
    page = app.test_client()
    for number in (1, 2):
        login.current_user = SimpleNamespace(is_authenticated=True, get_id=lambda number=number: number)
        assert ask(page, prompt="hi", name="chat")[-1]["type"] == "complete"
        assert ask(page, prompt="hi", name="chat")[-1]["code"] == "quota_exceeded"
    login.current_user = SimpleNamespace(is_authenticated=False)
    assert [ask(page, prompt="hi", name="chat")[-1]["type"] for _ in range(3)] == ["complete"] * 3


def test_a_view_may_say_who_asks(app: flask.Flask, copilot: CopilotSync) -> None:
    """Whoever that is."""
    app.config["COPILOT_SYNC_BUDGET"] = Budget(per_user={"requests": 1})
    with app.test_request_context():
        ends = [events(copilot.stream_response("hi", user="ann").get_data())[-1] for _ in range(2)]
    assert [end.get("code") for end in ends] == [None, "quota_exceeded"]


def test_data_is_answered_as_json(emulator: Emulator, page: Any) -> None:
    """What does not fit is asked for again, and the next question goes on with the conversation."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    emulator.script("Well.", '{"year": 1843}', '{"year": 1852}')
    response = page.post("/data", data={"prompt": "When?", "name": "chat"})
    assert (response.status_code, response.mimetype) == (200, "application/json")
    answer = response.get_json()
    assert (answer["type"], answer["parsed"], answer["text"]) == ("complete", {"year": 1843}, '{"year": 1843}')
    (thread,) = emulator.threads.values()
    assert (answer["conversation_id"], answer["message_id"]) == (thread.id, thread.messages[-1]["id"])
    assert page.get("/conversations").get_json() == {"chat": thread.id}
    assert page.post("/data", data={"prompt": "And she?", "name": "chat"}).get_json()["conversation_id"] == thread.id
    assert page.post("/data", data={"prompt": " "}).status_code == 400


def test_data_that_is_not_to_be_had_is_told_to_the_page(emulator: Emulator, page: Any) -> None:
    """With the words and the codes of a stream's events. The session stays as it was."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    emulator.fail("message", Fault.status(402))
    response = page.post("/data", data={"prompt": "When?", "name": "chat"})
    assert (response.status_code, response.get_json()["code"]) == (503, "quota_exceeded")
    response = page.post("/data", data={"prompt": "When?", "name": "chat"})
    assert (response.status_code, response.get_json()["code"]) == (503, "invalid_answer")
    assert response.get_json()["conversation_id"] in emulator.threads
    assert page.get("/conversations").get_json() == {}


def test_a_conversation_begun_for_data_gets_a_name(emulator: Emulator, app: flask.Flask, page: Any) -> None:
    """When the page has its answer, unless the configuration says otherwise, and without a name in the session too."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    emulator.reply = Reply('{"year": 1}')
    stages = []
    for named in (True, False):
        app.config["COPILOT_SYNC_NAME_THREADS"] = named
        response = page.post("/data", data={"prompt": "When?"})
        stages.append([request.stage for request in emulator.requests].count("rename"))
        response.close()
        stages.append([request.stage for request in emulator.requests].count("rename"))
    assert stages == [0, 1, 1, 1]
