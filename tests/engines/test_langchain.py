"""``ChatCopilot`` in LangChain: the standard tests of chat models, chains, batches, events and callbacks.

The asynchronous ones are pytest-asyncio's, in its automatic mode: ``tox -e engines`` says so.
"""

import asyncio
import itertools
import json
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type
from unittest import mock

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from support import nothing_left_open

from copilot_sync import InvalidRequestError
from copilot_sync.contrib.langchain import ChatCopilot
from copilot_sync.emulator import Emulator, Fault, Reply

JOKE = {"setup": "Why do cats sit on keyboards?", "punchline": "To keep an eye on the mouse."}
ENVIRONMENT = {"COPILOT_SYNC_MODEL": "gpt-4o", "COPILOT_SYNC_API_KEY": "test"}


class StandardModel:
    """What the standard tests ask of the model that they test: what it is, and what it can do."""

    @property
    def chat_model_class(self) -> Type[ChatCopilot]:
        return ChatCopilot

    @property
    def chat_model_params(self) -> Dict[str, Any]:
        return {"model": "gpt-4o"}

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> Optional[str]:
        return "o1-mini"

    @property
    def returns_usage_metadata(self) -> bool:
        return True


# Skipped are the tests of what is not claimed: tools, files that are no text, and images without an address.
class TestStandardUnits(StandardModel, ChatModelUnitTests):  # type: ignore[misc, unused-ignore]
    """LangChain's tests of a model alone."""

    @property
    def init_from_env_params(self) -> Tuple[Dict[str, str], Dict[str, Any], Dict[str, Any]]:
        return ENVIRONMENT, {}, {"model": "gpt-4o"}

    @pytest.mark.xfail(
        reason='"all" means the classes of LangChain\'s own packages: others are named', raises=ValueError
    )
    def test_serdes(self, model: Any, snapshot: Any) -> None:
        super().test_serdes(model, lambda name: mock.ANY)


@pytest.fixture
def joker(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service to which the environment points. If it is asked for data, it answers with a joke."""
    emulator.reply = Reply(lambda prompt: json.dumps(JOKE) if "JSON" in prompt else "Hello to you")
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("joker")
class TestStandardIntegration(StandardModel, ChatModelIntegrationTests):  # type: ignore[misc, unused-ignore]
    """LangChain's tests of a model and its service."""


PROMPT = ChatPromptTemplate.from_messages([("system", "Translate to {language}."), ("human", "{text}")])
RENDERED = "System: Translate to French.\nUser: {}\nAssistant:"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A service to which the environment points. It repeats what the user said, letter by letter."""
    with nothing_left_open():
        with Emulator(reply=Reply(lambda prompt: [*prompt.splitlines()[1].partition(": ")[2]])) as served:
            for name, value in served.environment.items():
                monkeypatch.setenv(name, value)
            yield served


@pytest.fixture
def model(service: Emulator) -> Iterator[Any]:
    model = ChatCopilot(model="gpt-4o")
    yield model
    model.close()


@pytest.fixture
def chain(model: Any) -> Any:
    """A prompt, the model, and a parser."""
    return PROMPT | model | StrOutputParser()


def inputs(*texts: str) -> List[Dict[str, str]]:
    return [{"language": "French", "text": text} for text in texts]


def test_a_chain_passes_each_piece_on(service: Emulator, chain: Any) -> None:
    """From the prompt through the model to the parser, in a thread and in a loop."""

    async def read() -> List[str]:
        return [piece async for piece in chain.astream(inputs("yes")[0])]

    assert [list(chain.stream(inputs("yes")[0])), asyncio.run(read())] == [["y", "e", "s", ""]] * 2
    contents = [thread.user_messages[0]["content"] for thread in service.threads.values()]
    assert contents == [RENDERED.format("yes")] * 2


def test_a_batch_is_answered_in_order(service: Emulator, chain: Any) -> None:
    """By threads, and by tasks; one that fails leaves the others alone."""
    texts = [str(number) for number in range(20)]
    assert chain.batch(inputs(*texts)) == texts
    assert asyncio.run(chain.abatch(inputs(*texts))) == texts
    service.fail("message", Fault.status(422))
    results = chain.batch(inputs("1", "2", "3"), {"max_concurrency": 1}, return_exceptions=True)
    assert (type(results[0]).__name__, results[1:]) == ("InvalidRequestError", ["2", "3"])


def test_the_events_of_a_chain_tell_of_each_chunk(chain: Any) -> None:
    """Its beginning, its pieces, and its end with what it cost."""

    async def read() -> List[Any]:
        return [event async for event in chain.astream_events(inputs("yes")[0], version="v2")]

    events = [event for event in asyncio.run(read()) if event["event"].startswith("on_chat_model")]
    names = [event["event"].rpartition("_")[2] for event in events]
    assert names == ["start", *["stream"] * 4, "end"]
    assert [event["data"]["chunk"].text for event in events[1:-1]] == ["y", "e", "s", ""]
    assert events[-1]["data"]["output"].usage_metadata["output_tokens"] == 3
    assert events[0]["metadata"]["ls_provider"] == "copilot"


class Recorder(BaseCallbackHandler):  # type: ignore[misc, unused-ignore]
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: List[Any] = []

    def on_llm_new_token(self, token: str, **_: Any) -> None:
        self.told.append(token)

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self.told.append(type(error).__name__)


def test_callbacks_are_told_of_pieces_costs_and_failures(service: Emulator, model: Any, chain: Any) -> None:
    """Each once, also if ``invoke`` streams."""
    recorder, costs = Recorder(), UsageMetadataCallbackHandler()
    config = {"callbacks": [recorder, costs]}
    list(chain.stream(inputs("no")[0], config))
    model.model_copy(update={"streaming": True}).invoke("a: b\nc: d", config)
    assert recorder.told == ["n", "o", "", "d", ""]
    assert costs.usage_metadata["gpt-4o"]["output_tokens"] == 3
    service.fail("message", Fault.status(422))
    with pytest.raises(InvalidRequestError, match="422"):
        chain.invoke(inputs("no")[0], config)
    assert recorder.told[-1] == "InvalidRequestError"


def test_a_cancelled_batch_ends_all_its_calls(service: Emulator, chain: Any) -> None:
    """Though none of the answers has an end."""
    service.reply = Reply(lambda prompt: itertools.repeat("on and "))

    async def cancel() -> None:
        task = asyncio.ensure_future(chain.abatch(inputs(*"12345")))
        while len(service.threads) < 5:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
