"""``ChatCopilot``: messages go in as the client takes them, and answers come out with what LangChain wants to know."""

import asyncio
import copy
import itertools
import pickle
import re
import threading
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from blocks import DOCS, Block, blocks_of, name_of
from hypothesis import given
from hypothesis import strategies as st
from support import PATIENCE, collect_garbage, nothing_left_open, wait_for
from typing_extensions import TypedDict

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of what langsmith calls, on Python 3.14
    pytest.importorskip("langchain_core.language_models.chat_models")

from langchain_core._api import LangChainBetaWarning
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.load import dumpd, dumps, load
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, ValidationError

from copilot_sync import CopilotError, InvalidAnswerError, StreamClosedError, Timeout
from copilot_sync.contrib.langchain import ChatCopilot, _CutText
from copilot_sync.emulator import Emulator, Fault, Reply

CAT = "https://a.example/cat.png"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A service to which the environment points."""
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            for name, value in served.environment.items():
                monkeypatch.setenv(name, value)
            yield served


@pytest.fixture
def model(emulator: Emulator) -> Iterator[Any]:
    model = ChatCopilot(model="gpt-4o")
    yield model
    model.close()


def invoked(model: Any, prompt: Any, **options: Any) -> Any:
    return model.invoke(prompt, **options)


def awaited(model: Any, prompt: Any, **options: Any) -> Any:
    return asyncio.run(model.ainvoke(prompt, **options))


def streamed(model: Any, prompt: Any, **options: Any) -> Any:
    return _sum(list(model.stream(prompt, **options)))


def streamed_in_a_loop(model: Any, prompt: Any, **options: Any) -> Any:
    async def read() -> List[Any]:
        return [chunk async for chunk in model.astream(prompt, **options)]

    return _sum(asyncio.run(read()))


def _sum(chunks: List[Any]) -> Any:
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    return sum(chunks[1:], chunks[0])


Ask = Callable[..., Any]
each_way = pytest.mark.parametrize("ask", [invoked, awaited, streamed, streamed_in_a_loop])


def sent(emulator: Emulator) -> List[Any]:
    return [request.json for request in emulator.requests if request.stage == "message"]


@each_way
def test_an_answer_says_what_it_is(emulator: Emulator, model: Any, ask: Ask) -> None:
    """Its text, what it cost, the model that answered, and its place at the service."""
    message = ask(model, "hi")
    (thread,) = emulator.threads.values()
    assert (message.content, message.usage_metadata) == (
        "one two",
        {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    )
    assert message.response_metadata == {
        "model_name": "gpt-4o",
        "finish_reason": "stop",
        "conversation_id": thread.id,
        "message_id": thread.messages[-1]["id"],
    }
    assert thread.user_messages[0]["content"] == "hi"


@each_way
def test_what_the_service_does_not_say_is_left_open(emulator: Emulator, model: Any, ask: Ask) -> None:
    """No cost is made up, and an answer that may lack its end is not called whole."""
    emulator.reply = Reply(["one ", "two"], complete=False, done=False)
    message = ask(model, "hi", resume=False)
    assert (message.content, message.usage_metadata) == ("one two", None)
    assert message.response_metadata["finish_reason"] == "incomplete"


def test_half_a_count_is_none(emulator: Emulator, model: Any) -> None:
    """LangChain wants both numbers."""
    emulator.reply = Reply(["one ", "two"], usage={"inputTokens": 3})
    assert model.invoke("hi").usage_metadata is None


@pytest.mark.parametrize("in_loop", [False, True], ids=["in a thread", "in a loop"])
def test_a_piece_is_there_before_the_next_one_is_written(emulator: Emulator, model: Any, in_loop: bool) -> None:
    """As a chunk of its own."""
    seen = threading.Event()

    def pieces() -> Iterator[str]:
        yield "one "
        wait_for(seen)
        yield "two"

    async def read() -> List[str]:
        return [note(chunk) async for chunk in model.astream("hi")]

    def note(chunk: Any) -> str:
        seen.set()
        return str(chunk.text)

    emulator.reply = Reply(pieces())
    assert (asyncio.run(read()) if in_loop else list(map(note, model.stream("hi")))) == ["one ", "two", ""]


@pytest.mark.parametrize(
    ("messages", "content"),
    [
        ("hi", "hi"),
        ([HumanMessage("hi", name="Ann")], "hi"),
        (
            [SystemMessage("be brief"), HumanMessage("one?"), AIMessage("two"), HumanMessage("three?")],
            "System: be brief\nUser: one?\nAssistant: two\nUser: three?\nAssistant:",
        ),
        (
            [
                HumanMessage("what is it like in Oslo?"),
                AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "1"}]),
                ToolMessage("rain", tool_call_id="1"),
            ],
            "User: what is it like in Oslo?\nTool: rain\nAssistant:",
        ),
        (
            [
                HumanMessage([{"type": "text", "text": "one?"}, "and?"]),
                AIMessage([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "two"}]),
                AIMessageChunk("three"),
            ],
            "User: one?\nand?\nAssistant: two\nAssistant: three\nAssistant:",
        ),
    ],
    ids=["a text", "one message", "a conversation", "a tool", "parts"],
)
def test_messages_become_one_text(emulator: Emulator, model: Any, messages: Any, content: str) -> None:
    """As the client writes role messages. What a model thought or called is left out."""
    model.invoke(messages)
    assert [body["content"] for body in sent(emulator)] == [content]


@pytest.mark.parametrize(
    "image",
    [{"type": "image", "url": CAT}, {"type": "image_url", "image_url": {"url": CAT}}],
    ids=["LangChain's part", "OpenAI's part"],
)
def test_an_image_is_sent_by_its_address(emulator: Emulator, model: Any, image: Any) -> None:
    """In each shape that LangChain has for it."""
    model.invoke([HumanMessage([{"type": "text", "text": "look"}, image])])
    (body,) = sent(emulator)
    assert (body["content"], body["mediaContent"]) == (
        "look",
        [{"mediaType": "image/png", "name": "cat.png", "url": CAT}],
    )


def test_a_text_file_is_sent(emulator: Emulator, model: Any) -> None:
    """One that is a part of a message."""
    file = {"type": "file", "base64": "w6k=", "mime_type": "text/markdown", "filename": "note.md"}
    model.invoke([HumanMessage([{"type": "text", "text": "look"}, file])])
    assert [(each["name"], each["text"]) for each in sent(emulator)[0]["references"]] == [("note.md", "é")]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
        {"type": "audio", "base64": "aGk=", "mime_type": "audio/wav"},
        {"type": "file", "url": "https://a.example/a.pdf"},
    ],
    ids=["an image without an address", "sound", "a file without its content"],
)
def test_what_can_not_be_sent_is_refused(emulator: Emulator, model: Any, part: Any) -> None:
    """Nothing is left out in silence."""
    with pytest.raises(ValueError, match=r"can't be sent|does not support"):
        model.invoke([HumanMessage([{"type": "text", "text": "look"}, part])])
    assert emulator.requests == []


def test_arguments_of_a_call_are_those_of_the_client(emulator: Emulator, model: Any) -> None:
    """Given with the call, or bound to the model; what is unknown is refused."""
    first = model.bind(mode="assistive", stream=True).invoke("one", model="o1-mini")
    model.invoke([HumanMessage("one"), AIMessage("two"), HumanMessage("three")], conversation=_place(first))
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["one", "three"]
    assert [(body["mode"], body["model"]) for body in sent(emulator)] == [
        ("assistive", "o1-mini"),
        ("immersive", "gpt-4o"),
    ]
    with pytest.raises(TypeError, match="tools is no option"):
        model.invoke("hi", tools=[])


def _place(message: Any) -> str:
    return str(message.response_metadata["conversation_id"])


def test_tools_are_refused(model: Any) -> None:
    """The service has none."""
    with pytest.raises(NotImplementedError):
        model.bind_tools([])


class Person(BaseModel):
    name: str
    age: int


class PersonDict(TypedDict):
    name: str
    age: int


PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["name", "age"]}
FUNCTION = {"type": "function", "function": {"name": "note", "description": "", "parameters": PERSON}}
ADA, GOOD = {"name": "Ada", "age": 36}, '{"name": "Ada", "age": 36}'


@each_way
@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (Person, Person(**ADA)),
        (PersonDict, ADA),
        (PERSON, ADA),
        (FUNCTION, ADA),
        (FUNCTION["function"], ADA),
    ],
    ids=["model", "TypedDict", "JSON Schema", "OpenAI's tool", "OpenAI's function"],
)
def test_an_answer_is_data(emulator: Emulator, model: Any, ask: Ask, schema: Any, data: Any) -> None:
    """In each form that LangChain has for a schema. It is asked for again if it does not fit."""
    emulator.script("{}", GOOD)
    runnable = model.with_structured_output(schema, method="json_mode", strict=True)
    assert _output(ask, runnable) == data
    assert len(sent(emulator)) == 2


def _output(ask: Ask, runnable: Any) -> Any:
    """Ask a runnable whose output is no message, and streams as one."""

    async def read() -> List[Any]:
        return [output async for output in runnable.astream("Who?")]

    if ask in (invoked, awaited):
        return ask(runnable, "Who?")
    (output,) = list(runnable.stream("Who?")) if ask is streamed else asyncio.run(read())
    return output


@each_way
def test_the_message_comes_with_the_data(emulator: Emulator, model: Any, ask: Ask) -> None:
    """If it is asked for, and the error instead of the data if there is one."""
    emulator.script(GOOD, "no", "never")
    runnable = model.with_structured_output(Person, include_raw=True, repairs=1)
    output = _output(ask, runnable)
    assert (output["raw"].content, output["parsed"], output["parsing_error"]) == (GOOD, Person(**ADA), None)
    assert output["raw"].response_metadata["model_name"] == "gpt-4o"
    output = _output(ask, runnable)
    assert (output["raw"].content, output["parsed"]) == ("never", None)
    assert isinstance(output["parsing_error"], InvalidAnswerError)
    assert len(sent(emulator)) == 3


@each_way
def test_data_is_not_cut(emulator: Emulator, ask: Ask) -> None:
    """By a stop sequence in it."""
    emulator.reply = Reply(GOOD)
    model = ChatCopilot(stop=["Ada"])
    output = _output(ask, model.with_structured_output(Person, include_raw=True))
    assert (output["raw"].content, output["parsed"]) == (GOOD, Person(**ADA))
    model.close()


@each_way
def test_an_answer_that_does_not_fit_is_an_error(emulator: Emulator, model: Any, ask: Ask) -> None:
    """Of the library's, after as many questions as were allowed."""
    emulator.reply = Reply("no")
    with pytest.raises(InvalidAnswerError, match="not one JSON document"):
        _output(ask, model.with_structured_output(Person, repairs=0))
    assert len(sent(emulator)) == 1


def whole(stops: List[str], pieces: List[str]) -> str:
    text = _CutText(stops)
    passed = []
    for piece in pieces:
        passed.append(text.add(piece))
        if text.is_cut:
            break
    return "".join([*passed, text.rest])


@pytest.mark.parametrize(
    ("stops", "text", "left"),
    [
        ([], "one two", "one two"),
        (["three"], "one two th", "one two th"),
        (["two"], "one two", "one "),
        (["e t", "one t"], "one two", ""),
        (["two", "one"], "one two", ""),
        (["abcd", "bc"], "xabcd", "xa"),
        (["aab"], "aaab", "a"),
    ],
    ids=["none", "none that comes", "one", "two that end together", "the first", "one within another", "again"],
)
def test_a_text_ends_in_front_of_a_stop_sequence(stops: List[str], text: str, left: str) -> None:
    """In front of the one that is complete first; the beginning of one alone is text."""
    assert whole(stops, [text]) == left
    assert whole(stops, list(text)) == left


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("ab", max_size=4), max_size=8),
)
def test_where_a_text_ends_does_not_depend_on_its_pieces(stops: List[str], pieces: List[str]) -> None:
    """Nor is a stop sequence ever passed on."""
    left = whole(stops, pieces)
    assert left == whole(stops, ["".join(pieces)])
    assert not any(stop in left for stop in stops)


@each_way
def test_reading_stops_with_a_stop_sequence(emulator: Emulator, ask: Ask) -> None:
    """An answer without an end ends there. What comes after it, such as its cost, is not known then."""
    emulator.reply = Reply(itertools.chain(["one ", "t"], itertools.repeat("wo ")))
    model = ChatCopilot(model="gpt-4o", stop=["", "never"])
    message = ask(model, "hi", stop=["wo wo"])
    assert (message.content, message.usage_metadata) == ("one t", None)
    (thread,) = emulator.threads.values()
    assert message.response_metadata == {
        "model_name": "gpt-4o",
        "finish_reason": "stop",
        "conversation_id": thread.id,
        "message_id": None,
    }


def test_a_model_may_have_stop_sequences_of_its_own(emulator: Emulator) -> None:
    """For calls that name none."""
    model = ChatCopilot(stop=["two"])
    assert (model.invoke("hi").content, model.invoke("hi", stop=["one"]).content) == ("one ", "")


@pytest.mark.parametrize("retries, attempts", [(1, 2), (0, 1)])
def test_a_failed_request_is_sent_again_as_often_as_allowed(emulator: Emulator, retries: Any, attempts: int) -> None:
    """And no more; the error is the library's."""
    emulator.fail("thread", *[Fault.status(502)] * 4)
    model = ChatCopilot(max_retries=retries)
    with pytest.raises(CopilotError, match="502"):
        model.invoke("hi")
    model.close()
    assert [request.stage for request in emulator.requests].count("thread") == attempts


@each_way
def test_arguments_of_the_client_are_passed_to_it(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ask: Ask
) -> None:
    """Credentials, addresses and whatever else it takes; a key wins over the environment."""
    for name in emulator.environment:
        monkeypatch.delenv(name)
    urls = {"api_url": emulator.api_url, "github_url": emulator.github_url}
    options = {"answer_cache": tmp_path / "answers"}
    model = ChatCopilot(cookies=emulator.cookies, timeout=Timeout(total=60), client_options=options, **urls)
    assert (ask(model, "hi").content, emulator.tokens_issued) == ("one two", 1)
    assert any(tmp_path.rglob("*"))
    model = ChatCopilot(api_key=emulator.api_key, timeout=60, **urls)
    assert (ask(model, "hi").content, emulator.tokens_issued) == ("one two", 1)


def test_the_environment_names_model_and_key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the client."""
    assert ChatCopilot().model == "auto"
    monkeypatch.setenv("COPILOT_SYNC_MODEL", "gpt-6-sol")
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", emulator.api_key)
    assert ChatCopilot().invoke("hi").content == "one two"
    assert (sent(emulator)[0]["model"], emulator.tokens_issued) == ("gpt-6-sol", 0)


SECRETS = {
    "api_key": "hush-1",
    "cookies": {"user_session": "hush-2"},
    "client_options": {"proxy": "http://ann:hush-3@127.0.0.1:9"},
}


def test_secrets_are_not_shown() -> None:
    """Neither by the model, nor where it is stored or traced."""
    model = ChatCopilot(**SECRETS)
    shown = [repr(model), str(model), dumps(model), repr(model._identifying_params), repr(model.model_dump())]
    assert [text for text in shown if "hush" in text] == []


@pytest.mark.parametrize(
    "wrong",
    [{"api_url": "ftp://a.example"}, {"api_key": 1}, {"timeout": -1}, {"max_retries": -1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_is_wrong_is_said_without_secrets(wrong: Any) -> None:
    """When the model is made."""
    with pytest.raises(ValidationError) as caught:
        ChatCopilot(**{**SECRETS, **wrong})
    assert "hush" not in str(caught.value)
    assert "1 validation error for ChatCopilot" in str(caught.value)


def test_a_model_is_stored_and_loaded(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its secrets come from the environment again."""
    stored = dumpd(ChatCopilot(model="o1-mini", api_key=emulator.api_key, max_retries=0, stop=["two"]))
    assert stored["id"] == ["copilot_sync", "contrib", "langchain", "ChatCopilot"]
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", emulator.api_key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainBetaWarning)
        loaded = load(stored, allowed_objects=[ChatCopilot], valid_namespaces=["copilot_sync"], secrets_from_env=True)
    assert (loaded.model, loaded.max_retries, loaded.stop) == ("o1-mini", 0, ["two"])
    assert loaded.invoke("hi").content == "one "
    assert emulator.tokens_issued == 0


@pytest.mark.parametrize(
    "other",
    [lambda model: pickle.loads(pickle.dumps(model)), copy.copy, copy.deepcopy],
    ids=["pickled", "copied", "deeply copied"],
)
@each_way
def test_a_copy_answers_as_well(emulator: Emulator, model: Any, other: Callable[[Any], Any], ask: Ask) -> None:
    """Also after the original went."""
    ask(model, "hi")
    made = other(model)
    del model
    assert ask(made, "hi").content == "one two"


@each_way
def test_a_model_that_is_dropped_leaves_nothing_open(emulator: Emulator, ask: Ask) -> None:
    """Its connections are closed with it, as a chain that is made for one call wants it."""
    with nothing_left_open():
        assert ask(ChatCopilot(), "hi").content == "one two"


@pytest.mark.parametrize(
    "close", [lambda model: model.close(), lambda model: asyncio.run(model.aclose())], ids=["close", "aclose"]
)
@pytest.mark.parametrize("in_loop", [False, True], ids=["in a thread", "in a loop"])
def test_closing_ends_what_is_under_way(emulator: Emulator, model: Any, close: Ask, in_loop: bool) -> None:
    """And the model can be used again."""
    emulator.reply = Reply(itertools.repeat("on and "))
    begun = threading.Event()

    def closing() -> None:
        wait_for(begun)
        close(model)

    async def read() -> None:
        async for _ in model.astream("hi"):
            begun.set()

    closer = threading.Thread(target=closing)
    closer.start()
    with pytest.raises(StreamClosedError):
        if in_loop:
            asyncio.run(read())
        else:
            for _ in model.stream("hi"):  # pragma: no branch - it has no end
                begun.set()
    closer.join()
    emulator.reply = Reply(["fine"])
    assert model.invoke("hi").content == "fine"


def test_a_cancelled_task_ends_its_call(emulator: Emulator, model: Any) -> None:
    """At once, though the answer has no end; nothing of it stays."""
    emulator.reply = Reply(itertools.repeat("on and "))

    async def cancel() -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in model.astream("hi"):
                begun.set()

        task = asyncio.ensure_future(read())
        await asyncio.wait_for(begun.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    (message,) = [request for request in emulator.requests if request.stage == "message"]
    assert message.thread_id in emulator.threads


PAGE = (DOCS / "langchain.rst").read_text(encoding="utf-8")
REFERENCE = (DOCS / "api_contrib.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", blocks_of(DOCS / "langchain.rst", "python"), ids=name_of)
def test_each_python_block_of_the_page_runs(
    block: Block, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With nothing but the environment set."""
    emulator.reply = Reply(lambda prompt: '{"name": "Ada", "born": 1815}' if "JSON" in prompt else prompt)
    monkeypatch.chdir(tmp_path)
    exec(block.text, {"__name__": "page"})
    collect_garbage()  # of a program that ends, with its classes
    assert sent(emulator)


def test_the_page_has_each_argument_and_each_thing_that_is_said(emulator: Emulator, model: Any) -> None:
    """In the words of the code."""
    described = r"ChatCopilot\(\*, (.*)\)\n   :members: (.*)$"
    [(signature, members)] = re.findall(described, REFERENCE, re.MULTILINE)
    own = [name for name in ChatCopilot.model_fields if name not in BaseChatModel.model_fields]
    assert re.findall(r"(\w+)(?:=[^,]+)?(?:, |$)", signature) == own
    assert members.split(", ")[: len(own)] == own
    said = re.findall(r"^``(\w+)``  ", PAGE, re.MULTILINE)
    assert said == list(model.invoke("hi").response_metadata)
