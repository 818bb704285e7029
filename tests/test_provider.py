"""``GithubCopilot``: the documented API, step by step, through its blocking and its async face."""

import asyncio
import inspect
import logging
import os
import threading
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Iterator, List, Union

import pytest
from loops import helpers
from support import collect_garbage, stages, wait_until

import copilot_sync
from copilot_sync import (
    AsyncGeneratorProvider,
    BaseConversation,
    Conversation,
    CopilotError,
    GithubCopilot,
    MissingCredentialsError,
    NotFoundError,
    ProviderModelMixin,
    RetryPolicy,
    ServerError,
    StreamInterruptedError,
    Timeout,
    provider,
)
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.secret import Secret

HELLO = [{"role": "user", "content": "Hello"}]
TRANSCRIPT = [
    {"role": "user", "content": "One"},
    {"role": "assistant", "content": "Two"},
    {"role": "user", "content": "Three"},
    {"role": "user", "content": " Four "},
]
PARAMETERS = (
    "(model: str, messages: List[Dict[str, Any]], stream: bool = False, api_key: str = None, proxy: str = None, "
    "cookies: Dict[str, str] = None, conversation_id: str = None, "
    "conversation: copilot_sync.models.Conversation = None, return_conversation: bool = False, **kwargs)"
)


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No folder and no variables of whoever runs the tests, and no clients of other tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("API_KEY", "COOKIES", "GITHUB_URL", "API_URL", "MODEL", "TOKEN_CACHE"):
        monkeypatch.delenv(f"COPILOT_SYNC_{name}", raising=False)
    yield
    provider._clients.close()


def given(emulator: Emulator, **options: Any) -> Dict[str, Any]:
    urls = {"github_url": emulator.github_url, "api_url": emulator.api_url, "retry": None}
    return {**urls, "cookies": emulator.cookies, **options}


def blocking(model: Any, messages: Any, **options: Any) -> List[Any]:
    return list(GithubCopilot.create_generator(model, messages, **options))


def asynchronous(model: Any, messages: Any, **options: Any) -> List[Any]:
    async def run() -> List[Any]:
        return [item async for item in GithubCopilot.create_async_generator(model, messages, **options)]

    return asyncio.run(run())


def completion(model: Any, messages: Any, **options: Any) -> List[Any]:
    return [GithubCopilot.create_completion(model, messages, **options)]


both = pytest.mark.parametrize("face", [blocking, asynchronous])
all_faces = pytest.mark.parametrize("face", [blocking, asynchronous, completion])


def messages_sent(emulator: Emulator) -> List[Any]:
    return [request.json for request in emulator.requests if request.stage == "message"]


def test_the_class_is_the_documented_one() -> None:
    """Its bases and attributes, to the letter."""
    assert issubclass(GithubCopilot, AsyncGeneratorProvider)
    assert issubclass(GithubCopilot, ProviderModelMixin)
    assert GithubCopilot.label == "GitHub Copilot"
    assert GithubCopilot.url == "https://github.com/copilot"
    assert (GithubCopilot.working, GithubCopilot.needs_auth, GithubCopilot.supports_stream) == (True, True, True)
    assert GithubCopilot.default_model == "gpt-4o"
    assert GithubCopilot.models == ["gpt-4o", "o1-mini", "o1-preview", "claude-3.5-sonnet"]


def test_the_signature_is_the_documented_one() -> None:
    """Parameters, order, defaults and annotations; the three methods have the same."""
    signature = inspect.signature(GithubCopilot.create_async_generator)
    shown = str(signature.replace(return_annotation=inspect.Signature.empty)).replace("typing.", "")
    assert shown == PARAMETERS
    assert signature.return_annotation == copilot_sync.AsyncResult == AsyncIterator[Union[str, BaseConversation]]
    for twin in (GithubCopilot.create_generator, GithubCopilot.create_completion):
        assert inspect.signature(twin).parameters == signature.parameters
    assert inspect.isasyncgenfunction(GithubCopilot.create_async_generator)
    assert inspect.isgeneratorfunction(GithubCopilot.create_generator)


def test_models_are_known_by_name() -> None:
    """None means the default; any other is taken; the list is the caller's own."""
    assert GithubCopilot.get_model("") == GithubCopilot.get_model(None) == "gpt-4o"
    assert GithubCopilot.get_model("o9", provider="any") == "o9"
    listed = GithubCopilot.get_models(provider="any")
    assert listed == GithubCopilot.models
    listed.clear()
    assert GithubCopilot.get_models() == GithubCopilot.models


def test_a_provider_without_a_list_has_its_default_model() -> None:
    """As the mixin's other users may."""

    class Other(ProviderModelMixin):
        default_model = "one"

    assert Other.get_models() == ["one"]


def test_a_subclass_may_have_other_models(emulator: Emulator) -> None:
    """Its default is what is sent."""

    class Mini(GithubCopilot):
        default_model = "o1-mini"

    assert Mini.create_completion("", HELLO, **given(emulator)) == "Hello"
    assert messages_sent(emulator)[0]["model"] == "o1-mini"


@both
def test_the_documented_steps_in_their_order(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, face: Any) -> None:
    """Model, cookies, token, bearer, thread, conversation, messages, body, POST, lines, pieces: as they are listed."""
    emulator.script(Reply(["Hel", {"type": "content"}, "lo", {"type": "other"}, b"data: [1]\n\n"]))
    header = "; ".join(f"{name}={value}" for name, value in emulator.cookies.items())
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", header)
    options = given(emulator, cookies=None, stream=True, return_conversation=True)
    conversation, *pieces = face("", TRANSCRIPT, **options)
    token, thread, message, look = emulator.requests
    assert look.stage == "messages"  # one of the lines could not be read
    assert (token.method, token.path) == ("POST", "/github-copilot/chat/token")
    assert token.headers["Cookie"] == header
    assert (thread.method, thread.path, thread.body) == ("POST", "/github/chat/threads", b"")
    assert thread.headers["Authorization"].startswith("GitHub-Bearer emulated-")
    assert message.headers["Authorization"] == thread.headers["Authorization"]
    assert isinstance(conversation, Conversation)
    thread_id = conversation.conversation_id
    assert list(emulator.threads) == [thread_id]
    assert (message.method, message.path) == ("POST", f"/github/chat/threads/{thread_id}/messages")
    body = message.json
    documented = ("content", "intent", "references", "context", "currentURL", "streaming", "confirmations")
    assert {name: body[name] for name in (*documented, "customInstructions", "model", "mode")} == {
        "content": "Three\nFour",
        "intent": "conversation",
        "references": [],
        "context": [],
        "currentURL": f"{emulator.github_url}/copilot/c/{thread_id}",
        "streaming": True,
        "confirmations": [],
        "customInstructions": [],
        "model": "gpt-4o",
        "mode": "immersive",
    }
    assert pieces == ["Hel", "lo"]


@both
@pytest.mark.parametrize(("stream", "items"), [(True, ["Hel", "lo"]), (False, ["Hello"])])
def test_the_answer_comes_in_pieces_or_once(emulator: Emulator, face: Any, stream: bool, items: List[str]) -> None:
    """On the wire it is a stream either way."""
    emulator.script(Reply(["Hel", "lo"]))
    assert face("gpt-4o", HELLO, stream=stream, **given(emulator)) == items
    assert messages_sent(emulator)[0]["streaming"] is True


@both
def test_an_empty_answer_is_nothing(emulator: Emulator, face: Any) -> None:
    """Not an empty text."""
    emulator.script(Reply([]), Reply([]))
    assert face("", HELLO, **given(emulator)) == []
    assert GithubCopilot.create_completion("", HELLO, **given(emulator, reply=None)) == ""


def test_a_completion_is_the_whole_text(emulator: Emulator) -> None:
    """Whatever was said about streaming and the conversation."""
    options = given(emulator, stream=True, return_conversation=True)
    assert GithubCopilot.create_completion("gpt-4o", [{"role": "user", "content": "One two"}], **options) == "One two"


@all_faces
def test_a_given_key_needs_no_cookies(emulator: Emulator, face: Any) -> None:
    """None are looked up, and no token is fetched."""
    options = given(emulator, cookies=None, api_key=emulator.api_key)
    assert face("gpt-4o", HELLO, **options) == ["Hello"]
    assert stages(emulator) == ["thread", "message"]


@all_faces
@pytest.mark.parametrize(("model", "wanted"), [("", "gpt-4o"), (None, "gpt-4o"), ("o1-mini", "o1-mini"), ("o9", "o9")])
def test_the_model_is_sent_as_it_is(emulator: Emulator, face: Any, model: Any, wanted: str) -> None:
    """Also one that is not in the list; none means the default, whatever the environment says."""
    emulator.options.models = ("gpt-4o", "o1-mini", "o9")
    face(model, HELLO, **given(emulator))
    assert messages_sent(emulator)[0]["model"] == wanted


@all_faces
@pytest.mark.parametrize(
    ("return_conversation", "content"),
    [(False, "User: One\nAssistant: Two\nUser: Three\nUser:  Four \nAssistant:"), (True, "Three\nFour")],
)
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_what_is_sent_of_the_messages(
    emulator: Emulator, face: Any, return_conversation: bool, content: str, known: bool
) -> None:
    """The transcript, or the last turn where the caller keeps the conversation."""
    options = given(emulator, return_conversation=return_conversation)
    if known:
        options["conversation"] = GithubCopilot.create_generator("", HELLO, **{**options, "return_conversation": True})
        options["conversation"] = next(options["conversation"])
    face("", TRANSCRIPT, **options)
    assert messages_sent(emulator)[-1]["content"] == content


def test_the_conversation_comes_before_the_message_is_sent(emulator: Emulator) -> None:
    """And nothing at all is requested before it is asked for."""
    items = GithubCopilot.create_generator("", HELLO, return_conversation=True, **given(emulator))
    assert emulator.requests == []
    conversation = next(items)
    assert isinstance(conversation, Conversation)
    assert stages(emulator) == ["token", "thread"]
    assert list(items) == ["Hello"]
    assert conversation.message_id == emulator.threads[conversation.conversation_id].messages[-1]["id"]


def test_the_async_conversation_comes_first_too(emulator: Emulator) -> None:
    """Nothing is requested before it, and it is updated in place as well."""

    async def run() -> None:
        items = GithubCopilot.create_async_generator("", HELLO, return_conversation=True, **given(emulator))
        assert emulator.requests == []
        conversation = await items.__anext__()
        assert isinstance(conversation, Conversation)
        assert [item async for item in items] == ["Hello"]
        assert conversation.message_id is not None

    asyncio.run(run())


def test_the_async_conversation_comes_before_the_message_is_sent(emulator: Emulator) -> None:
    """As in the blocking generator: whoever gets it may keep it first, or not go on at all."""

    async def run() -> None:
        items = GithubCopilot.create_async_generator("", HELLO, return_conversation=True, **given(emulator))
        await items.__anext__()
        await asyncio.sleep(0.05)  # time in which the message would be sent
        assert stages(emulator) == ["token", "thread"]
        assert [item async for item in items] == ["Hello"]

    asyncio.run(run())


@both
def test_turn_follows_turn(emulator: Emulator, face: Any) -> None:
    """Each answers the one before, in one thread, with the object that was given."""
    conversation, _ = face("", HELLO, return_conversation=True, **given(emulator))
    answered = conversation.message_id
    again, _ = face("", HELLO, return_conversation=True, conversation=conversation, **given(emulator))
    assert again is conversation
    assert messages_sent(emulator)[1]["parentMessageID"] == answered
    assert len(emulator.threads) == 1


@all_faces
def test_the_conversation_wins_over_its_id(emulator: Emulator, face: Any) -> None:
    """An empty one of either is none; an id alone will do, for either."""
    first, _ = blocking("", HELLO, return_conversation=True, **given(emulator))
    second, _ = blocking("", HELLO, return_conversation=True, **given(emulator))
    for options, thread in (
        ({"conversation": first, "conversation_id": second.conversation_id}, first),
        ({"conversation": first.conversation_id, "conversation_id": second.conversation_id}, first),
        ({"conversation": "", "conversation_id": second.conversation_id}, second),
        ({"conversation_id": second.conversation_id}, second),
    ):
        face("", HELLO, **given(emulator), **options)
        assert emulator.requests[-1].thread_id == thread.conversation_id
    face("", HELLO, conversation="", conversation_id="", **given(emulator))
    assert len(emulator.threads) == 3


@all_faces
def test_options_are_passed_on(emulator: Emulator, face: Any, tmp_path: Path) -> None:
    """Those of the message to the wire, those of the call and of the client to them."""
    conversation, _ = blocking("", HELLO, return_conversation=True, **given(emulator))
    reference = {"type": "repository", "owner": "octocat", "repo": "Hello-World"}
    options = {
        "references": [reference],
        "context": [{"a": 1}],
        "intent": "explain",
        "mode": "assistive",
        "custom_instructions": ["Be kind."],
        "media": [{"name": "a.png"}],
        "parent_message_id": conversation.message_id,
        "timeout": Timeout(total=30),
        "retry": RetryPolicy(attempts=2, base=0.0),
        "resume": False,
        "token_cache": tmp_path / "tokens.json",
        "verify": False,
    }
    emulator.fail("message", Fault.status(429, retry_after=0))
    face("", HELLO, conversation_id=conversation.conversation_id, **{**given(emulator), **options})
    body = messages_sent(emulator)[-1]
    assert body["references"] == [reference]
    assert (body["context"], body["intent"], body["mode"]) == ([{"a": 1}], "explain", "assistive")
    assert (body["customInstructions"], body["mediaContent"]) == (["Be kind."], [{"name": "a.png"}])
    assert body["parentMessageID"] == conversation.message_id
    assert len(messages_sent(emulator)) == 3
    assert os.listdir(tmp_path) == ["tokens.json"]
    emulator.fail("message", Fault.cut(1))
    with pytest.raises(StreamInterruptedError):
        face("", TRANSCRIPT, **given(emulator, resume=False))


@all_faces
def test_other_options_are_ignored(emulator: Emulator, face: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Callers pass what other providers know; their names go to the log for debugging, not their values."""
    caplog.set_level(logging.DEBUG, "copilot_sync.provider")
    assert face("", HELLO, temperature=0.7, action="next-value", **given(emulator)) == ["Hello"]
    assert [record.getMessage() for record in caplog.records] == ["ignored options: action, temperature"]


@all_faces
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"messages": []}, ValueError),
        ({"messages": "Hello"}, TypeError),
        ({"messages": [{"role": "user"}]}, ValueError),
        ({"messages": [{"content": "Hello"}]}, ValueError),
        ({"messages": [{"role": "user", "content": ""}]}, ValueError),
        ({"messages": [{"role": "assistant", "content": "Hi"}], "return_conversation": True}, ValueError),
        ({"model": 5}, TypeError),
        ({"api_key": 5}, TypeError),
        ({"api_key": "line\nbreak"}, ValueError),
        ({"proxy": ["http://localhost"]}, TypeError),
        ({"proxy": "http://"}, ValueError),
        ({"conversation": 5}, TypeError),
        ({"conversation_id": 5}, TypeError),
        ({"conversation_id": ".."}, ValueError),
        ({"timeout": "long"}, TypeError),
        ({"retry": 5}, TypeError),
        ({"references": "README.md"}, TypeError),
        ({"github_url": "ftp://github.com"}, ValueError),
        ({"token_cache": 5}, TypeError),
        ({"verify": "/no/such/file"}, ValueError),
        ({"cookies": {"user_session": "line\nbreak"}}, ValueError),
        ({"cookies": {"user_session": 5}}, TypeError),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_sent(
    emulator: Emulator, face: Any, options: Dict[str, Any], error: Any
) -> None:
    """When the first item is asked for, as a generator can."""
    arguments = {"model": "", "messages": HELLO, **given(emulator), **options}
    with pytest.raises(error) as caught:
        face(**arguments)
    assert not isinstance(caught.value, CopilotError)
    assert emulator.requests == []


@all_faces
def test_without_credentials_it_says_so(emulator: Emulator, face: Any) -> None:
    """And sends nothing."""
    with pytest.raises(MissingCredentialsError, match="COPILOT_SYNC_COOKIES") as caught:
        face("", HELLO, **given(emulator, cookies=None))
    assert caught.value.stage == "credentials"
    assert emulator.requests == []


@all_faces
@pytest.mark.parametrize(
    ("stage", "fault", "error", "partial"),
    [
        ("token", Fault.status(500), ServerError, ""),
        ("thread", Fault.status(500), ServerError, ""),
        ("message", Fault.status(404), NotFoundError, ""),
        ("message", Fault.cut(2), StreamInterruptedError, "One two"),
    ],
)
def test_failures_come_out_with_what_had_come(
    emulator: Emulator, face: Any, stage: str, fault: Fault, error: Any, partial: str
) -> None:
    """The same ones whichever face asked."""
    emulator.fail(stage, fault)
    with pytest.raises(error) as caught:
        face("", [{"role": "user", "content": "One two three"}], **given(emulator, resume=False))
    assert caught.value.partial == partial
    assert caught.value.stage == ("stream" if partial else stage)


@pytest.mark.parametrize("way", ["close", "drop", "throw"])
@pytest.mark.parametrize("item", ["conversation", "text"])
def test_leaving_early_frees_the_connection(emulator: Emulator, way: str, item: str) -> None:
    """By closing, by forgetting, by an exception in the loop; a message that was not sent stays unsent."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    items: Any = GithubCopilot.create_generator(
        "", TRANSCRIPT, stream=True, return_conversation=item == "conversation", **given(emulator)
    )
    next(items)
    if way == "close":
        items.close()
    elif way == "throw":
        with pytest.raises(KeyError):
            items.throw(KeyError())
    del items
    collect_garbage()
    if item == "text":
        assert emulator.wait_until(lambda: emulator.disconnects)
    else:
        assert stages(emulator) == ["token", "thread"]


@pytest.mark.parametrize("way", ["aclose", "cancel"])
def test_leaving_the_async_loop_frees_the_connection(emulator: Emulator, way: str) -> None:
    """And ends its thread."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def run() -> None:
        items: Any = GithubCopilot.create_async_generator("", TRANSCRIPT, stream=True, **given(emulator))
        await items.__anext__()
        if way == "aclose":
            await items.aclose()
            return
        task = asyncio.ensure_future(items.__anext__())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert emulator.wait_until(lambda: emulator.disconnects)
    wait_until(lambda: not helpers())


def test_calls_with_the_same_credentials_share_a_client(emulator: Emulator) -> None:
    """One token and one connection to each host, through all faces."""
    for face in (blocking, asynchronous, completion):
        face("", HELLO, **given(emulator))
        face(
            "o1-mini",
            HELLO,
            stream=True,
            timeout=5,
            retry=RetryPolicy(),
            resume=False,
            **{name: value for name, value in given(emulator).items() if name != "retry"},
        )
    assert emulator.tokens_issued == 1
    assert emulator.connections == 2


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "other-key"},
        {"cookies": {"user_session": "other"}},
        {"cookies": "user_session=other"},
        {"proxy": "http://localhost:3128"},
        {"github_url": "http://localhost:1"},
        {"api_url": "http://localhost:1"},
        {"verify": False},
        {"verify": __file__},
        {"token_cache": "/a/file"},
        {"token_cache": Path("/another/file")},
    ],
)
def test_calls_that_differ_have_clients_of_their_own(emulator: Emulator, options: Dict[str, Any]) -> None:
    """In credentials, URLs, proxy, certificates or token cache."""

    def client_for(**other: Any) -> Any:
        values = {"api_key": None, "proxy": None, **given(emulator), **other}
        secrets = {name: Secret(values[name]) for name in ("api_key", "cookies", "proxy")}
        return provider._clients.get(
            {name: value for name, value in {**values, **secrets}.items() if name in provider._CLIENT_OPTIONS}
        )

    assert client_for() is client_for()
    assert client_for(**options) is client_for(**options)
    assert client_for(**options) is not client_for()


def test_the_environment_tells_clients_apart(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read for each call: what was set since counts."""
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", "refused-key")
    options = {"retry": None, "github_url": emulator.github_url}
    with pytest.raises(CopilotError) as caught:
        blocking("", HELLO, **options)
    assert caught.value.status is None
    monkeypatch.setenv("COPILOT_SYNC_API_URL", emulator.api_url)
    with pytest.raises(CopilotError) as caught:
        blocking("", HELLO, **options)
    assert caught.value.status == 401
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", emulator.api_key)
    assert blocking("", HELLO, **options) == ["Hello"]


def test_a_bounded_number_of_clients_is_kept(emulator: Emulator) -> None:
    """The one that was used longest ago makes room, and its connections go with it; an open stream of it goes on."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    items: Any = GithubCopilot.create_generator("", TRANSCRIPT, stream=True, **given(emulator))
    first = next(items)
    blocking("", HELLO, **given(emulator))
    for number in range(provider._KEPT_CLIENTS):
        with pytest.raises(ValueError, match="empty"):
            blocking("", [], **given(emulator, api_key=f"key-{number}"))
    blocking("", HELLO, **given(emulator))
    assert emulator.tokens_issued == 2
    emulator.release()
    assert [first, *items][-1].endswith("\nAssistant:")
    del items
    collect_garbage()
    assert emulator.wait_until(lambda: emulator.open_connections == 2)


def test_threads_that_begin_together_share_a_client(emulator: Emulator) -> None:
    """One token for all."""
    answers: List[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(blocking("", HELLO, **given(emulator)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == ["Hello"] * 8
    assert emulator.tokens_issued == 1
