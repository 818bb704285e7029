"""The plugin of ``llm``: its asynchronous models, answers as data, options, and histories of all kinds."""

import asyncio
import itertools
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from support import PATIENCE, nothing_left_open

pytest.importorskip("llm")

import llm
from pydantic import BaseModel, ValidationError

from copilot_sync import CopilotError, InvalidAnswerError, RequestTimeoutError
from copilot_sync.contrib.llm import AsyncCopilotModel, CopilotModel, register_models
from copilot_sync.emulator import Emulator, Fault, Reply


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """A service to which the environment points, and an empty folder of ``llm``."""
    with nothing_left_open():
        with Emulator(reply=Reply(["one ", "two"])) as served:
            for name, value in served.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
            yield served


async_models = pytest.mark.skipif(not hasattr(llm, "AsyncModel"), reason="this llm has no asynchronous models")
schemas = pytest.mark.skipif(not hasattr(llm.Model, "supports_schema"), reason="this llm has no schemas")
chains = pytest.mark.skipif(not hasattr(llm, "parts"), reason="this llm has no chains of messages")
both = pytest.mark.parametrize(
    "kind", [CopilotModel, pytest.param(AsyncCopilotModel, marks=async_models)], ids=["sync", "async"]
)


@pytest.fixture
def model(emulator: Emulator, kind: Any) -> Iterator[Any]:
    model = kind("gpt-4o")
    yield model
    model._client_for(None).close()


@pytest.fixture
def async_model(emulator: Emulator) -> Iterator[Any]:
    model: Any = AsyncCopilotModel("gpt-4o")
    yield model
    model._client_for(None).close()


def asked(model: Any, *prompt: str, **options: Any) -> Tuple[Any, List[str]]:
    """Prompt a model or a conversation, and return the response with its pieces."""

    async def read() -> Tuple[Any, List[str]]:
        response = model.prompt(*prompt, **options)
        return response, [piece async for piece in response]

    if isinstance(getattr(model, "model", model), AsyncCopilotModel):
        return asyncio.run(read())
    response = model.prompt(*prompt, **options)
    return response, list(response)


def sent(emulator: Emulator) -> List[Any]:
    return [request.json for request in emulator.requests if request.stage == "message"]


@async_models
def test_each_model_is_registered_in_both_kinds() -> None:
    """Under one name."""
    pairs: List[Tuple[Any, Any]] = []
    register_models(lambda *models: pairs.append(models))
    assert [model.model_id for model, _ in pairs] == [other.model_id for _, other in pairs]
    assert {(type(model), type(other)) for model, other in pairs} == {(CopilotModel, AsyncCopilotModel)}


@async_models
@pytest.mark.parametrize("stream, pieces", [(True, ["one ", "two"]), (False, ["one two"])], ids=["stream", "whole"])
def test_an_asynchronous_model_answers(emulator: Emulator, async_model: Any, stream: bool, pieces: List[str]) -> None:
    """Piece by piece, or in one; what it cost and which model it was is told where this llm asks for it."""
    response, told = asked(async_model, "hi", system="be brief", stream=stream)
    assert told == pieces
    (body,) = sent(emulator)
    assert (body["content"], body["model"], body["customInstructions"]) == ("hi", "gpt-4o", ["be brief"])
    assert response.response_json["conversation_id"] in emulator.threads
    if hasattr(response, "input_tokens"):  # pragma: some versions
        assert (response.input_tokens, response.output_tokens) == (1, 2)
    if hasattr(response, "set_resolved_model"):  # pragma: some versions
        assert response.resolved_model == "gpt-4o"


@async_models
def test_a_thread_belongs_to_both_kinds_of_models(emulator: Emulator, async_model: Any) -> None:
    """A conversation goes on in it, whichever of them asks."""
    conversation = async_model.conversation()
    asked(conversation, "one")
    asked(conversation, "two")
    other: Any = CopilotModel("gpt-4o")
    later = other.conversation()
    later.id = conversation.id
    later.prompt("three").text()
    other._client_for(None).close()
    asked(conversation, "four")
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["one", "two", "three", "four"]
    assert len({message["parentMessageID"] for message in thread.user_messages}) == 4
    asked(async_model.conversation(), "other")
    assert len(emulator.threads) == 2


@async_models
def test_a_refused_question_takes_the_earlier_answers_along_again(emulator: Emulator, async_model: Any) -> None:
    """Those of another asynchronous model, to which the conversation belonged."""

    class OtherAsyncModel(llm.AsyncModel):  # type: ignore[misc, unused-ignore]
        model_id = "other"

        async def execute(self, *arguments: Any, **options: Any) -> Any:
            yield "fine, thanks"

    async def begin() -> Any:
        conversation: Any = OtherAsyncModel().conversation()
        await conversation.prompt("how are you?").text()
        return conversation

    conversation = asyncio.run(begin())
    conversation.model = async_model
    emulator.fail("message", Fault.status(422))
    with pytest.raises(CopilotError, match="422"):
        asked(conversation, "why?")
    assert not emulator.threads
    asked(conversation, "why?")
    assert sent(emulator)[-1]["content"] == "User: how are you?\nAssistant: fine, thanks\nUser: why?\nAssistant:"


@async_models
def test_a_cancelled_prompt_ends_its_call(emulator: Emulator, async_model: Any) -> None:
    """At once, though the answer has no end."""
    emulator.reply = Reply(itertools.repeat("on and "))

    async def cancel() -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in async_model.prompt("hi"):
                begun.set()

        task = asyncio.ensure_future(read())
        await asyncio.wait_for(begun.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


class Person(BaseModel):
    name: str
    age: int


PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["name", "age"]}
FENCED = 'Here it is:\n```json\n{"name": "Ada", "age": 36}\n```'


@both
@schemas
@pytest.mark.parametrize("schema", [Person, PERSON], ids=["model", "JSON Schema"])
def test_an_answer_fits_a_schema(emulator: Emulator, model: Any, schema: Any) -> None:
    """It is the JSON document alone, asked for again until it fits, in one thread that goes on."""
    emulator.script("{}", FENCED)
    conversation = model.conversation()
    _, pieces = asked(conversation, "Who?", schema=schema)
    assert [Person.model_validate_json(piece) for piece in pieces] == [Person(name="Ada", age=36)]
    assert len(sent(emulator)) == 2
    asked(conversation, "And who else?")
    (thread,) = emulator.threads.values()
    assert len(thread.user_messages) == 3


@both
@schemas
@pytest.mark.parametrize("options, questions", [({}, 3), ({"repairs": 0}, 1)], ids=["by default", "never"])
def test_no_answer_that_fits_is_an_error(emulator: Emulator, model: Any, options: Any, questions: int) -> None:
    """After as many questions as the option allows."""
    emulator.reply = Reply("no")
    with pytest.raises(InvalidAnswerError):
        asked(model, "Who?", schema=PERSON, **options)
    assert len(sent(emulator)) == questions


@both
def test_an_answer_may_take_so_many_seconds(emulator: Emulator, model: Any) -> None:
    """As the option says."""
    assert asked(model, "hi", timeout=60)[1] == ["one ", "two"]
    emulator.fail("message", Fault.stall())
    with pytest.raises(RequestTimeoutError):
        asked(model, "hi", timeout=0.2)


@both
@pytest.mark.parametrize("option", [{"timeout": 0}, {"repairs": -1}, {"temperature": 1}], ids=str)
def test_an_option_that_can_not_be_is_refused(emulator: Emulator, model: Any, option: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(ValidationError):
        asked(model, "hi", **option)
    assert emulator.requests == []


def chain() -> List[Any]:  # pragma: some versions
    """What was said before: to an assistant that thinks and calls tools."""
    parts, message = llm.parts, llm.parts.Message
    image = llm.Attachment(type="image/png", url="https://a.example/cat.png")
    return [
        message("system", [parts.TextPart("be brief")]),
        message("user", [parts.TextPart("look"), parts.AttachmentPart(image)]),
        message("assistant", [parts.ReasoningPart("hm"), parts.ToolCallPart("see", {"it": 1}, "1")]),
        message("tool", [parts.ToolResultPart("see", "a cat", "1")]),
        message("assistant", [parts.TextPart("a cat")]),
    ]


TOLD = "System: be brief\nUser: look\nTool: a cat\nAssistant: a cat\nUser: why?\nAssistant:"


@both
@chains
@pytest.mark.parametrize(
    "given",
    [
        lambda model: asked(model, "why?", messages=chain()),
        lambda model: asked(model, messages=[*chain(), llm.parts.Message("user", [llm.parts.TextPart("why?")])]),
        lambda model: asked(_loaded(model), "why?"),
    ],
    ids=["before a prompt", "instead of a prompt", "read back"],
)
def test_a_chain_of_messages_is_told(
    emulator: Emulator, model: Any, given: Callable[[Any], Any]
) -> None:  # pragma: some versions
    """Also if it comes from the log of ``llm``. What was thought or called is left out."""
    given(model)
    (body,) = sent(emulator)
    assert (body["content"], [each["name"] for each in body["mediaContent"]]) == (TOLD, ["cat.png"])


def _loaded(model: Any) -> Any:  # pragma: some versions
    conversation = model.conversation()
    conversation.loaded_messages = chain()
    return conversation


@both
@chains
def test_a_chain_for_a_known_thread_ends_with_the_question(
    emulator: Emulator, model: Any
) -> None:  # pragma: some versions
    """That alone is sent, and an instruction is one."""
    conversation = model.conversation()
    asked(conversation, "one")
    asked(conversation, messages=[*chain(), llm.parts.Message("user", [llm.parts.TextPart("why?")])])
    asked(model, "two", system="be brief", messages=chain()[:1])
    assert [(body["content"], body["customInstructions"]) for body in sent(emulator)][1:] == [
        ("why?", []),
        ("two", ["be brief"]),
    ]
