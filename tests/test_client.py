"""``Client`` and ``Chat``: asking, conversations, the thread API, settings, wrong calls, and sharing a client."""

import logging
import multiprocessing
import os
import pickle
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from support import collect_garbage, fork, reserved_port, stages

import copilot_sync
from copilot_sync import (
    Answer,
    AuthenticationError,
    Client,
    Conversation,
    CopilotError,
    InvalidRequestError,
    MissingCredentialsError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    Timeout,
    Usage,
    WrongHostError,
)
from copilot_sync.client import _DEFAULT
from copilot_sync.emulator import Emulator, Fault, Reply

AT_ONCE = RetryPolicy(base=0.0)


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, no home and no variables of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("API_KEY", "COOKIES", "GITHUB_URL", "API_URL", "MODEL", "TOKEN_CACHE"):
        monkeypatch.delenv(f"COPILOT_SYNC_{name}", raising=False)


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator) as made:
        yield made


def client_of(emulator: Emulator, **options: Any) -> Client:
    given: Dict[str, Any] = {"github_url": emulator.github_url, "api_url": emulator.api_url, "retry": None}
    if "api_key" not in options:
        given["cookies"] = emulator.cookies
    return Client(**{**given, **options})


def sent(emulator: Emulator) -> Any:
    """The last message's body."""
    return [request.json for request in emulator.requests if request.stage == "message"][-1]


def test_a_question_gets_its_answer(emulator: Emulator, client: Client) -> None:
    """With all that the service said about it."""
    emulator.script(Reply(["Hel", "lo"], routed_model="mai-code", usage={"inputTokens": 3, "outputTokens": 2}))
    answer = client.ask("Explain WSGI")
    assert isinstance(answer, Answer)
    assert (str(answer), answer.text, answer.model) == ("Hello", "Hello", "mai-code")
    assert (answer.usage, answer.complete) == (Usage(3, 2), True)
    [thread] = emulator.threads.values()
    assert answer.conversation.conversation_id == thread.id
    assert answer.message_id == answer.conversation.message_id == thread.assistant_messages[0]["id"]
    assert stages(emulator) == ["token", "thread", "message"]
    assert sent(emulator)["content"] == "Explain WSGI"


def test_an_empty_answer_is_an_answer(emulator: Emulator, client: Client) -> None:
    """Of no text."""
    emulator.script(Reply([]))
    assert client.ask("Hi").text == ""


def test_a_stream_gives_each_piece(emulator: Emulator, client: Client) -> None:
    """And asks for nothing before the first one is wanted."""
    emulator.script(Reply(["Hel", "lo"]))
    with client.stream("Hi") as stream:
        assert emulator.requests == []
        assert list(stream) == ["Hel", "lo"]
        assert stream.answer is not None


@pytest.mark.parametrize(
    ("known", "content"),
    [(False, "System: Be short.\nUser: One\nUser: Two\nAssistant:"), (True, "One\nTwo")],
    ids=["new", "known"],
)
def test_role_messages_are_sent_as_the_conversation_needs_them(
    emulator: Emulator, client: Client, known: bool, content: str
) -> None:
    """The transcript to a new one, the user's last turn to one that knows the rest."""
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "One"},
        {"role": "user", "content": "Two"},
    ]
    conversation = client.create_thread() if known else None
    client.ask(iter(messages), conversation=conversation)
    assert sent(emulator)["content"] == content


def test_options_reach_the_wire(emulator: Emulator, client: Client) -> None:
    """Each in the field that the protocol has for it."""
    reference = {"type": "file", "path": "README.md", "repo": "octocat/Hello-World"}
    first = client.ask("One")
    client.ask(
        "Two",
        conversation=first.conversation.conversation_id,
        model="o1-mini",
        references=[reference],
        context=[{"a": 1}],
        intent="explain",
        mode="assistive",
        custom_instructions="Be kind.",
        media=[{"name": "a.png"}],
        parent_message_id=first.message_id,
    )
    body = sent(emulator)
    assert {name: body[name] for name in ("model", "references", "context", "intent", "mode")} == {
        "model": "o1-mini",
        "references": [reference],
        "context": [{"a": 1}],
        "intent": "explain",
        "mode": "assistive",
    }
    assert body["customInstructions"] == ["Be kind."]
    assert body["mediaContent"] == [{"name": "a.png"}]
    assert body["parentMessageID"] == first.message_id


@pytest.mark.parametrize("face", ["ask", "stream"])
def test_the_conversation_is_told_before_the_message_is_sent(emulator: Emulator, client: Client, face: str) -> None:
    """So that it can be kept whatever comes of the answer."""
    told: List[Any] = []

    def note(conversation: Conversation) -> None:
        told.append((conversation, stages(emulator)))

    ask = client.ask if face == "ask" else lambda *a, **k: list(client.stream(*a, **k))
    ask("Hi", on_start=note)
    [(conversation, seen)] = told
    assert conversation.conversation_id in emulator.threads
    assert seen == ["token", "thread"]


@pytest.mark.parametrize("as_id", [False, True], ids=["object", "id"])
def test_a_known_conversation_goes_on(emulator: Emulator, client: Client, as_id: bool) -> None:
    """Its id will do; an object is updated in place, and its last message is the next one's parent."""
    conversation = client.create_thread()
    given: Any = conversation.conversation_id if as_id else conversation
    first = client.ask("One", conversation=given)
    assert sent(emulator)["parentMessageID"] == "root"
    second = client.ask("Two", conversation=first.conversation)
    assert sent(emulator)["parentMessageID"] == first.message_id
    assert second.conversation is first.conversation
    assert (first.conversation is conversation) is not as_id
    assert first.conversation.message_id == second.message_id
    assert len(emulator.threads) == 1


def test_no_conversation_by_any_name_is_a_new_one(emulator: Emulator, client: Client) -> None:
    """An empty id is none."""
    client.ask("One", conversation="")
    client.ask("Two", conversation=None)
    assert len(emulator.threads) == 2
    assert sent(emulator)["parentMessageID"] == "root"


def test_what_a_call_says_wins_over_what_its_client_says(emulator: Emulator) -> None:
    """Time limits, retries, resuming and the model; where it says nothing, the client's hold."""
    with client_of(emulator, retry=RetryPolicy(attempts=3, base=0.0), resume=False, model="o1-mini") as client:
        emulator.fail("thread", *[Fault.status(500)] * 3)
        with pytest.raises(ServerError) as caught:
            client.ask("Hi")
        assert caught.value.attempts == 3
        emulator.fail("thread", Fault.status(500))
        with pytest.raises(ServerError) as caught:
            client.ask("Hi", retry=None)
        assert caught.value.attempts == 1
        emulator.fail("message", Fault.cut(1))
        with pytest.raises(StreamInterruptedError):
            client.ask("Hello again")
        emulator.fail("message", Fault.cut(1))
        assert client.ask("Hello again", resume=True).text == "Hello again"
        assert sent(emulator)["model"] == "o1-mini"
        client.ask("Hi", model="gpt-4o")
        assert sent(emulator)["model"] == "gpt-4o"
        emulator.fail("message", Fault.stall())
        with pytest.raises(RequestTimeoutError, match=r"0\.6 s"):
            client.ask("Hi", timeout=Timeout(total=0.6))
    assert repr(_DEFAULT) == "<the client's>"


@pytest.mark.parametrize("way", ["on_start", "another thread"])
def test_an_answer_that_its_client_closes_is_an_error(emulator: Emulator, client: Client, way: str) -> None:
    """Whoever closed it, and with what had come."""
    if way == "on_start":
        with pytest.raises(StreamClosedError):
            client.ask("Hi", on_start=lambda conversation: client.close())
        return
    emulator.fail("message", Fault.stall(("after_events", 1)))

    def close() -> None:
        assert emulator.wait_until(lambda: emulator.stalled)
        client.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(StreamClosedError) as caught:
        client.ask("Hello there")
    closer.join()
    assert caught.value.partial in ("", "Hello")  # what was on its way may be lost
    emulator.release()


@pytest.mark.parametrize("face", ["ask", "stream"])
def test_a_chat_of_three_turns(emulator: Emulator, client: Client, face: str) -> None:
    """One thread; each question answers the answer before it; its model is the chat's."""
    chat = client.chat(model="o1-mini")
    assert chat.conversation is None
    parents = ["root"]
    for question in ("One", "Two", "Three"):
        if face == "ask":
            assert chat.ask(question).text == question
        else:
            assert "".join(chat.stream(question)) == question
        body = sent(emulator)
        assert (body["content"], body["model"], body["parentMessageID"]) == (question, "o1-mini", parents[-1])
        known: Any = chat.conversation
        parents.append(known.message_id)
    [thread] = emulator.threads.values()
    assert thread.id == known.conversation_id
    assert len(thread.messages) == 6


@pytest.mark.parametrize("as_id", [False, True], ids=["object", "id"])
def test_a_chat_can_go_on_with_a_conversation(emulator: Emulator, client: Client, as_id: bool) -> None:
    """For example one that a web session kept."""
    known = client.ask("One").conversation
    stored: Any = known.conversation_id if as_id else Conversation.from_dict(known.to_dict())
    chat = client.chat(stored)
    chat.ask("Two")
    assert len(emulator.threads) == 1
    assert sent(emulator)["parentMessageID"] == known.message_id


def test_a_chat_keeps_its_conversation_where_the_first_answer_fails(emulator: Emulator, client: Client) -> None:
    """The thread exists, and the next question goes there."""
    chat = client.chat()
    emulator.script(Reply(["one"], error="it broke"))
    with pytest.raises(ServerError):
        chat.ask("One")
    assert chat.conversation is not None
    chat.ask("Two")
    assert len(emulator.threads) == 1


def test_a_chat_begins_anew_where_the_first_question_is_refused(emulator: Emulator, client: Client) -> None:
    """Its thread was empty and is deleted again; whoever was told of the conversation is told of that."""
    chat = client.chat()
    told: List[Conversation] = []
    emulator.fail("message", Fault.status(422))
    with pytest.raises(InvalidRequestError):
        chat.ask("One", on_start=told.append, on_discard=told.append)
    assert (chat.conversation, emulator.threads) == (None, {})
    chat.ask("Two")
    assert told[0] is told[1]
    [thread] = emulator.threads
    assert thread != told[0].conversation_id


def test_a_chat_passes_on_what_a_question_says(emulator: Emulator, client: Client) -> None:
    """Another model, another conversation, and an ``on_start`` of the caller's beside the chat's own."""
    told: List[Conversation] = []
    chat = client.chat()
    chat.ask("One", model="o1-mini", on_start=told.append)
    assert sent(emulator)["model"] == "o1-mini"
    assert told == [chat.conversation]
    other = client.create_thread()
    chat.ask("Two", conversation=other)
    assert chat.conversation is other


def test_threads_are_listed_renamed_and_deleted(emulator: Emulator, client: Client) -> None:
    """By conversation and by id."""
    first, second = client.create_thread(), client.create_thread()
    client.rename_thread(first, "By object")
    client.rename_thread(second.conversation_id, "By id")
    assert {thread.id: thread.name for thread in client.threads()} == {
        first.conversation_id: "By object",
        second.conversation_id: "By id",
    }
    client.delete_thread(first)
    client.delete_thread(second.conversation_id)
    assert client.threads() == []
    assert emulator.threads == {}


@pytest.mark.parametrize("as_id", [False, True], ids=["object", "id"])
def test_messages_are_listed(client: Client, as_id: bool) -> None:
    """Question and answer, and how they hang together."""
    conversation = client.ask("Hello").conversation
    question, answer = client.messages(conversation.conversation_id if as_id else conversation)
    assert (question.role, question.content) == ("user", "Hello")
    assert (answer.role, answer.content, answer.parent_id) == ("assistant", "Hello", question.id)
    assert answer.id == conversation.message_id


def test_a_thread_whose_deletion_was_not_confirmed_is_deleted(emulator: Emulator) -> None:
    """The second attempt finds it gone, which is what was wanted; a first one that does is an error."""
    with client_of(emulator, retry=AT_ONCE) as client:
        thread = client.create_thread()
        emulator.fail("delete", Fault.drop(processed=True))
        client.delete_thread(thread)
        with pytest.raises(NotFoundError):
            client.delete_thread(thread)


@pytest.mark.parametrize(
    ("stage", "work"),
    [
        ("models", lambda client: client.models()),
        ("threads", lambda client: client.threads()),
        ("messages", lambda client: client.messages("gone")),
        ("rename", lambda client: client.rename_thread("gone", "name")),
        ("rename", lambda client: client.name_thread("gone")),
        ("delete", lambda client: client.delete_thread("gone")),
        ("thread", lambda client: client.create_thread()),
        ("thread", lambda client: client.ask("Hi")),
        ("message", lambda client: client.ask("Hi", conversation="gone")),
        ("token", lambda client: client.threads()),
        ("quota", lambda client: client.quota()),
    ],
    ids=["models", "threads", "messages", "rename", "name", "delete", "create", "ask", "ask on", "token", "quota"],
)
def test_a_failure_tells_where_it_was(emulator: Emulator, stage: str, work: Callable[[Client], Any]) -> None:
    """Stage, status, and how many requests were made for it."""
    with client_of(emulator, retry=RetryPolicy(attempts=2, base=0.0)) as client:
        emulator.fail(stage, *[Fault.status(429, retry_after=0)] * 2)
        with pytest.raises(CopilotError) as caught:
            work(client)
    assert (caught.value.stage, caught.value.status, caught.value.attempts) == (stage, 429, 2)


@pytest.mark.parametrize("known", [False, True], ids=["new conversation", "known conversation"])
@pytest.mark.parametrize("expired", [False, True], ids=["no token yet", "token expired"])
def test_a_token_that_cannot_be_had_is_told_as_such(emulator: Emulator, known: bool, expired: bool) -> None:
    """After its own attempts, at once: no message was sent, so none is looked for."""
    with client_of(emulator) as first:
        conversation = first.create_thread() if known else None
    with client_of(emulator, retry=AT_ONCE) as client:
        if expired:
            client.models()
            emulator.expire_tokens()
        emulator.requests.clear()
        emulator.fail("token", *[Fault.status(503)] * 20)
        with pytest.raises(ServerError) as caught:
            client.ask("Hi", conversation=conversation)
    assert caught.value.stage == "token"
    assert stages(emulator).count("token") == AT_ONCE.attempts
    assert stages(emulator).count("messages") == (known and expired)  # for what the message would have answered


def test_the_environment_alone_is_enough(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs and cookies from the variables, as the emulator's command prints them."""
    monkeypatch.setenv("COPILOT_SYNC_MODEL", "o1-mini")
    with Client() as client:
        assert client.ask("Hello").text == "Hello"
    assert sent(served)["model"] == "o1-mini"


def test_credentials_cross_a_network_in_the_clear_only_where_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable nothing is sent to a host that is not this machine; with it, the bearer goes there."""
    with Emulator(hostname="0.0.0.0") as emulator:  # leads to this machine, but is no name of loopback
        with pytest.raises(ValueError, match="COPILOT_SYNC_ALLOW_HTTP=1"):
            client_of(emulator)
        assert emulator.requests == []
        monkeypatch.setenv("COPILOT_SYNC_ALLOW_HTTP", "1")
        with client_of(emulator) as client:
            assert client.ask("Hello").text == "Hello"
        assert {request.headers["host"].partition(":")[0] for request in emulator.requests} == {"0.0.0.0"}
        assert sent_with(emulator) == ["", "GitHub-Bearer", "GitHub-Bearer"]


def sent_with(emulator: Emulator) -> List[str]:
    """How each request was authorized."""
    return [request.headers.get("authorization", "").partition(" ")[0] for request in emulator.requests]


def test_the_token_cache_variable_names_a_file(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two clients fetch one token; ``off`` is none."""
    monkeypatch.setenv("COPILOT_SYNC_TOKEN_CACHE", str(tmp_path / "cache" / "tokens.json"))
    for _ in range(2):
        with client_of(emulator) as client:
            client.models()
    assert emulator.tokens_issued == 1
    monkeypatch.setenv("COPILOT_SYNC_TOKEN_CACHE", "off")
    with client_of(emulator) as client:
        client.models()
    assert emulator.tokens_issued == 2


def test_arguments_win_over_the_environment(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each of them."""
    for name in ("GITHUB_URL", "API_URL"):
        monkeypatch.setenv(f"COPILOT_SYNC_{name}", "http://127.0.0.1:1")
    for name in ("API_KEY", "MODEL"):
        monkeypatch.setenv(f"COPILOT_SYNC_{name}", "from-the-environment")
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "user_session=from-the-environment")
    monkeypatch.setenv("COPILOT_SYNC_TOKEN_CACHE", str(tmp_path / "unused"))
    with client_of(emulator, model="o1-mini", token_cache=tmp_path / "used") as client:
        client.ask("Hello")
    assert sent(emulator)["model"] == "o1-mini"
    assert os.listdir(tmp_path) == ["used"]


def test_a_given_key_fetches_no_token(emulator: Emulator) -> None:
    """And looks for no cookies."""
    with client_of(emulator, api_key=emulator.api_key) as client:
        client.models()
    assert stages(emulator) == ["models"]


def test_without_credentials_every_way_to_give_them_is_named(tmp_path: Path) -> None:
    """At once, without a prompt, a request or a file; a client can be made all the same."""
    began = time.monotonic()
    with Client() as client, pytest.raises(MissingCredentialsError) as caught:
        client.ask("Hi")
    assert time.monotonic() - began < 5
    for way in ("api_key=", "cookies=", "COPILOT_SYNC_API_KEY", "COPILOT_SYNC_COOKIES", "a folder", "[browser]"):
        assert way in str(caught.value)
    assert (caught.value.stage, caught.value.status) == ("credentials", None)
    assert os.listdir(tmp_path) == []


def test_a_client_tells_where_it_goes_and_no_more(emulator: Emulator, client: Client) -> None:
    """No credentials."""
    assert repr(client) == f"<Client of {emulator.api_url}, model 'auto'>"


@pytest.mark.parametrize(
    ("stage", "fault", "error", "status"),
    [
        ("token", Fault.redirect(), AuthenticationError, 302),
        ("token", Fault.status(401), AuthenticationError, 401),
        ("token", Fault.garbage(), AuthenticationError, 200),
        ("token", Fault.status(200, body={}), AuthenticationError, 200),
        ("thread", Fault.garbage(), ProtocolError, 200),
        ("thread", Fault.status(201, body={}), ProtocolError, 201),
        ("thread", Fault.status(421), WrongHostError, 421),
        ("message", Fault.status(403), AuthenticationError, 403),
        ("message", Fault.redirect("https://elsewhere.example/x"), ProtocolError, 302),
    ],
    ids=[
        "cookies refused: login",
        "cookies refused: 401",
        "HTML for a token",
        "no token",
        "HTML for a thread",
        "no thread id",
        "wrong host",
        "not allowed",
        "redirect",
    ],
)
def test_a_bad_reply_is_its_own_clear_error(
    emulator: Emulator, client: Client, stage: str, fault: Fault, error: Any, status: int
) -> None:
    """With stage and status."""
    emulator.fail(stage, fault)
    with pytest.raises(error) as caught:
        client.ask("Hi")
    assert (caught.value.stage, caught.value.status, caught.value.attempts) == (stage, status, 1)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": "no-such-model"}, InvalidRequestError, "no-such-model"),
        ({"conversation": "gone"}, NotFoundError, "gone"),
        ({"intent": "explain"}, InvalidRequestError, "reference"),
    ],
    ids=["unknown model", "unknown conversation", "nothing to explain"],
)
def test_what_the_service_refuses_is_told_in_its_words(
    client: Client, options: Dict[str, Any], error: Any, words: str
) -> None:
    """At the stage where it was refused."""
    with pytest.raises(error, match=words) as caught:
        client.ask("Hi", **options)
    assert caught.value.stage == "message"
    assert caught.value.status in (400, 404, 422)


def test_a_port_where_nothing_listens_is_told() -> None:
    """As a network error of the first request, without a status."""
    with reserved_port() as port:
        url = f"http://127.0.0.1:{port}"
        with Client(cookies={"user_session": "any"}, github_url=url, api_url=url, retry=None) as client:
            with pytest.raises(NetworkError, match="nothing listens there") as caught:
                client.ask("Hi")
    assert (caught.value.stage, caught.value.status, caught.value.attempts) == ("token", None, 1)


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (lambda client: client.ask(""), ValueError),
        (lambda client: client.ask(" \n"), ValueError),
        (lambda client: client.ask("\ud800"), ValueError),
        (lambda client: client.ask(None), TypeError),
        (lambda client: client.ask(5), TypeError),
        (lambda client: client.ask(b"bytes"), TypeError),
        (lambda client: client.ask({"role": "user", "content": "Hi"}), TypeError),
        (lambda client: client.ask([]), ValueError),
        (lambda client: client.ask(["Hi"]), TypeError),
        (lambda client: client.ask([{"content": "Hi"}]), ValueError),
        (lambda client: client.ask([{"role": "user"}]), ValueError),
        (lambda client: client.ask([{"role": "user", "content": " "}]), ValueError),
        (lambda client: client.ask([{"role": "user", "content": 5}]), TypeError),
        (lambda client: client.ask([{"role": "assistant", "content": "Hi"}], conversation="known"), ValueError),
        (lambda client: client.ask("Hi", model=5), TypeError),
        (lambda client: client.ask("Hi", conversation=5), TypeError),
        (lambda client: client.ask("Hi", conversation=".."), ValueError),
        (lambda client: client.ask("Hi", conversation="\ud800"), ValueError),
        (lambda client: client.ask("Hi", timeout="long"), TypeError),
        (lambda client: client.ask("Hi", timeout=0), ValueError),
        (lambda client: client.ask("Hi", retry=3), TypeError),
        (lambda client: client.ask("Hi", references="README.md"), TypeError),
        (lambda client: client.ask("Hi", references=[{"a": object()}]), TypeError),
        (lambda client: client.ask("Hi", temperature=1), TypeError),
        (lambda client: client.chat(5), TypeError),
        (lambda client: client.messages(""), ValueError),
        (lambda client: client.messages(5), TypeError),
        (lambda client: client.rename_thread("known", 5), TypeError),
        (lambda client: client.rename_thread("known", " "), ValueError),
        (lambda client: client.rename_thread("known", "\ud800"), ValueError),
        (lambda client: client.delete_thread("."), ValueError),
        (lambda client: client.delete_thread(None), ValueError),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_sent(
    emulator: Emulator, client: Client, work: Callable[[Any], Any], error: Any
) -> None:
    """As the error that Python has for it."""
    with pytest.raises(error) as caught:
        work(client)
    assert not isinstance(caught.value, CopilotError)
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"api_key": 5}, TypeError),
        ({"api_key": "line\nbreak"}, ValueError),
        ({"model": 5}, TypeError),
        ({"proxy": 5}, TypeError),
        ({"proxy": ["http://localhost"]}, TypeError),
        ({"proxy": "http://"}, ValueError),
        ({"proxy": "http://localhost:port"}, ValueError),
        ({"proxy": "http://local host"}, ValueError),
        ({"timeout": True}, TypeError),
        ({"timeout": float("inf")}, ValueError),
        ({"retry": 3}, TypeError),
        ({"token_cache": 5}, TypeError),
        ({"github_url": "github.com"}, ValueError),
        ({"github_url": "http://github.com"}, ValueError),
        ({"api_url": 5}, TypeError),
        ({"verify": "/no/such/file"}, ValueError),
        ({"verify": 1}, TypeError),
    ],
)
def test_a_client_cannot_be_made_of_wrong_arguments(options: Dict[str, Any], error: Any) -> None:
    """They are told when it is made."""
    with pytest.raises(error):
        Client(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": ""},
        {"proxy": "localhost:3128"},
        {"proxy": "http://user:password@[::1]:3128"},
        {"proxy": "socks5h://localhost"},
        {"timeout": None, "retry": None},
        {"timeout": 5},
        {"verify": False},
        {"verify": __file__},
        {"verify": Path(__file__)},
    ],
)
def test_what_else_a_client_can_be_made_of(options: Dict[str, Any]) -> None:
    """Making one touches no network."""
    Client(**options).close()


def test_a_proxy_is_gone_through(emulator: Emulator) -> None:
    """It sees the whole URL of the request; github.com is not asked directly."""
    with client_of(emulator, proxy=emulator.api_url) as client:
        with pytest.raises(CopilotError):
            client.models()
    [request] = emulator.requests
    assert request.path.endswith("/github-copilot/chat/token")
    assert request.host == "api"


def test_threads_share_a_client(emulator: Emulator, client: Client) -> None:
    """One token for all, and each gets its own answer."""
    answers: Dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = client.ask(f"Question {number}").text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {number: f"Question {number}" for number in range(12)}
    assert emulator.tokens_issued == 1


def test_calls_one_after_another_keep_the_connections_warm(emulator: Emulator, client: Client) -> None:
    """One to each host."""
    for _ in range(3):
        client.ask("Hi")
    assert emulator.connections == 2


def test_closing_ends_the_open_streams(emulator: Emulator, client: Client) -> None:
    """Their readers are told, the service sees the connection go; the client can be used again."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    stream = client.stream("One two")
    assert next(stream) == "One"
    errors: List[Optional[CopilotError]] = []

    def read() -> None:
        with pytest.raises(StreamClosedError) as caught:
            next(stream)
        errors.append(caught.value)

    reader = threading.Thread(target=read)
    reader.start()
    client.close()
    client.close()
    reader.join(10)
    assert len(errors) == 1
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert client.ask("Hi").text == "Hi"


def test_a_client_keeps_no_stream_alive(emulator: Emulator, client: Client) -> None:
    """One that nobody holds any more frees its connection."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    stream = client.stream("One two")
    next(stream)
    reference = weakref.ref(stream)
    del stream
    collect_garbage()
    assert reference() is None
    assert emulator.wait_until(lambda: emulator.disconnects)
    client.close()


def in_another_process(client: Client, answers: Any) -> None:  # pragma: no cover - runs in the child
    with client:
        answers.put(client.ask("Hello from afar").text)


def test_a_client_works_in_a_spawned_process(emulator: Emulator, client: Client) -> None:
    """It pickles, with open streams and all; the copy has its own connections and token."""
    client.ask("Hi")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=in_another_process, args=(client, answers))
    child.start()
    assert answers.get(timeout=30) == "Hello from afar"
    child.join(30)
    answers.close()
    assert emulator.tokens_issued == 2


def test_a_client_works_in_a_forked_process(emulator: Emulator, client: Client) -> None:
    """The child gets connections of its own, and its parent's go on."""
    client.ask("Hi")
    before = emulator.connections
    child = fork()
    if child == 0:  # pragma: no cover - the child's lines are counted in the child
        os._exit(0 if client.ask("Child").text == "Child" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert emulator.connections == before + 1
    assert client.ask("Parent").text == "Parent"
    assert emulator.connections == before + 1


def test_a_copy_keeps_the_settings(emulator: Emulator) -> None:
    """The model, and how patient it is."""
    with client_of(emulator, model="o1-mini", timeout=5) as client:
        stream = client.stream("Hi")
        with pickle.loads(pickle.dumps(client)) as copied:
            copied.ask("Hello")
            assert repr(copied) == repr(client)
        stream.close()
    assert sent(emulator)["model"] == "o1-mini"


def test_nothing_is_written_to_the_log_of_a_call_that_goes_well(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Above the level that is for debugging."""
    caplog.set_level(logging.DEBUG, "copilot_sync")
    client.ask("Hello")
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert copilot_sync.__version__


@pytest.mark.parametrize("method", ["ask", "stream"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 3}, "temperature is no option of a message; there are model, system, files, timeout, ref"),
        ({"resume": "yes"}, "resume must be True or False, not str"),
    ],
    ids=["unknown", "resume"],
)
def test_an_option_that_is_none_is_named(method: str, options: Any, message: str) -> None:
    """At once, and in the words of the caller."""
    with Client("key", api_url="http://127.0.0.1:9") as client:
        with pytest.raises(TypeError, match=message):
            getattr(client, method)("hi", **options)
