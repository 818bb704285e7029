"""Questions whose answers have to fit a schema, on an emulator: what is sent, how often, and what comes of it."""

import asyncio
import json
from typing import Any, Dict, List

import pytest
from asking import AT_ONCE

from copilot_sync import (
    Answer,
    AsyncClient,
    Client,
    InvalidAnswerError,
)
from copilot_sync.emulator import Emulator, Reply

pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("jsonschema", reason="jsonschema is not installed")


class Person(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    name: str
    age: int


PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["name", "age"]}
GOOD = '{"name": "Ada", "age": 36}'
BAD = '{"name": "Ada", "age": "old"}'
ADA = Person(name="Ada", age=36)


def client_of(emulator: Emulator, **options: Any) -> Client:
    arguments = {"retry": AT_ONCE, "api_url": emulator.api_url, "github_url": emulator.github_url, **options}
    return Client(emulator.api_key, **arguments)


def sent(emulator: Emulator) -> List[Dict[str, Any]]:
    return [request.json for request in emulator.requests if request.stage == "message"]


def ask(emulator: Emulator, prompt: str = "Who?", **options: Any) -> Answer:
    with client_of(emulator) as client:
        return client.ask(prompt, **options)


def ask_asynchronously(emulator: Emulator, prompt: str = "Who?", **options: Any) -> Answer:
    async def main() -> Answer:
        async with AsyncClient(
            emulator.api_key, retry=AT_ONCE, api_url=emulator.api_url, github_url=emulator.github_url
        ) as client:
            return await client.ask(prompt, **options)

    return asyncio.run(main())


def ask_in_chat(emulator: Emulator, prompt: str = "Who?", **options: Any) -> Answer:
    with client_of(emulator) as client:
        return client.chat().ask(prompt, **options)


def ask_in_async_chat(emulator: Emulator, prompt: str = "Who?", **options: Any) -> Answer:
    async def main() -> Answer:
        async with AsyncClient(
            emulator.api_key, retry=AT_ONCE, api_url=emulator.api_url, github_url=emulator.github_url
        ) as client:
            return await client.chat().ask(prompt, **options)

    return asyncio.run(main())


every_way = pytest.mark.parametrize("asked", [ask, ask_asynchronously, ask_in_chat, ask_in_async_chat])


@every_way
def test_an_answer_that_fits_is_data(emulator: Emulator, asked: Any) -> None:
    """One message, with the schema at its end."""
    emulator.script(GOOD)
    answer = asked(emulator, schema=Person)
    assert (answer.parsed, answer.text) == (ADA, GOOD)
    (message,) = sent(emulator)
    assert message["content"].startswith("Who?\n\nAnswer with one JSON document only")
    assert json.loads(message["content"].splitlines()[-1])["required"] == ["name", "age"]


@every_way
def test_an_answer_that_does_not_fit_is_asked_for_again_in_its_thread(emulator: Emulator, asked: Any) -> None:
    """With the words of the validator, as the answer to the answer that they are about."""
    emulator.script("Ada is 36.", BAD, f"```json\n{GOOD}\n```")
    answer = asked(emulator, schema=PERSON)
    assert answer.parsed == json.loads(GOOD)
    first, second, third = sent(emulator)
    assert "not one JSON document" in second["content"]
    assert "$.age: 'old' is not of type 'integer'" in third["content"]
    assert len(emulator.threads) == 1
    (thread,) = emulator.threads.values()
    assert [message["role"] for message in thread.messages] == ["user", "assistant"] * 3
    assert second["parentMessageID"] == first["responseMessageID"]
    assert third["parentMessageID"] == second["responseMessageID"]
    assert answer.message_id == answer.conversation.message_id == third["responseMessageID"]


@every_way
@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_no_more_messages_are_sent_than_repairs_and_one(emulator: Emulator, asked: Any, repairs: int) -> None:
    """Then the error has the last text, what was wrong with it, and the conversation."""
    emulator.reply = Reply("Ada is 36.")
    with pytest.raises(InvalidAnswerError, match="not one JSON document") as caught:
        asked(emulator, schema=Person, repairs=repairs)
    error = caught.value
    assert len(sent(emulator)) == 1 + repairs == error.attempts
    assert (error.text, error.partial) == ("Ada is 36.", "Ada is 36.")
    assert len(error.problems) == 1
    assert error.answer is not None and error.answer.complete and error.answer.parsed is None
    assert error.conversation is not None and error.conversation.conversation_id in emulator.threads
