"""Questions whose answers have to fit a schema, on an emulator: what is sent, how often, and what comes of it."""

import asyncio
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pydantic
import pytest
from asking import AT_ONCE
from driven import DRIVERS
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import until
from support import PATIENCE, Worker, nothing_left_open, wait_until_blocked

from copilot_sync import (
    Answer,
    AsyncClient,
    Budget,
    BudgetExceededError,
    Client,
    Conversation,
    InvalidAnswerError,
    InvalidRequestError,
    Ledger,
    RateLimit,
    RateLimitError,
    RequestTimeoutError,
    StreamClosedError,
    StreamInterruptedError,
    Timeout,
    Usage,
)
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.structured import asking


class Person(pydantic.BaseModel):
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


def test_the_log_says_that_it_is_asked_again_and_quotes_no_answer(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A line on the level INFO for each. The last failure is the error's business."""
    caplog.set_level("INFO", "copilot_sync")
    emulator.reply = Reply(BAD)
    with pytest.raises(InvalidAnswerError):
        ask(emulator, schema=Person)
    words = "message: asking again: answer {} does not fit the schema"
    assert caplog.messages == [words.format(1), words.format(2)]


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


@every_way
@pytest.mark.parametrize(
    "options, kind",
    [
        ({"schema": {"type": "objekt"}}, ValueError),
        ({"schema": "Person"}, TypeError),
        ({"schema": Person, "repairs": -1}, ValueError),
        ({"schema": Person, "repairs": True}, TypeError),
    ],
)
def test_what_can_not_be_used_is_refused_before_anything_is_sent(
    emulator: Emulator, asked: Any, options: Dict[str, Any], kind: type
) -> None:
    """Not even a token is fetched."""
    with pytest.raises(kind):
        asked(emulator, **options)
    assert emulator.requests == []


def test_a_stream_takes_no_schema_and_names_what_does(emulator: Emulator) -> None:
    """Nobody may see an answer of which it is not known yet whether it fits."""
    with client_of(emulator) as client:
        chat = client.chat()
        chat.ask("Who?")
        for begin in (client.stream, chat.stream, chat.stream_edit):
            for options in ({"schema": Person}, {"repairs": 1}):
                with pytest.raises(TypeError, match=f"{next(iter(options))} is an option of ask"):
                    begin("Who?", **options)
        with pytest.raises(TypeError, match="schema is an option of ask"):
            chat.stream_retry(schema=Person)  # type: ignore[call-arg]
    assert len(sent(emulator)) == 1


def test_instructions_files_and_images_go_with_the_question_alone(emulator: Emulator) -> None:
    """A repair is in the same thread, which has them. What holds for each message is sent with each."""
    emulator.script(BAD, GOOD)
    picture = {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Who?"}, picture]}]
    options: Dict[str, Any] = {"files": [("a.py", "1")], "custom_instructions": "Be kind.", "extra": {"more": 1}}
    with client_of(emulator) as client:
        client.ask(messages, schema=Person, system="Be brief.", **options)
    first, second = sent(emulator)
    assert first["content"].startswith("System: Be brief.\nUser: Who?\n\nAnswer with one JSON")
    assert first["content"].endswith("\nAssistant:")
    assert first["references"] and first["mediaContent"]
    assert not second["references"] and not second.get("mediaContent")
    for message in (first, second):
        assert (message["customInstructions"], message["more"]) == (["Be kind."], 1)


def test_a_repaired_answer_has_the_usage_of_all(emulator: Emulator) -> None:
    """It is what the call cost. What the service did not say of each answer is not known of all."""
    first = {"inputTokens": 10, "outputTokens": 1}
    for second, total in (
        ({"inputTokens": 20, "outputTokens": 2}, Usage(30, 3)),
        ({"inputTokens": 20}, Usage(30, None)),
        ({}, None),
    ):
        emulator.script(Reply(BAD, usage=first), Reply(GOOD, usage=second))
        assert ask(emulator, schema=Person).usage == total
    emulator.script(Reply(BAD, usage=first), Reply(BAD, usage=first))
    with pytest.raises(InvalidAnswerError) as caught:
        ask(emulator, schema=Person, repairs=1)
    assert caught.value.answer is not None
    assert caught.value.answer.usage == Usage(20, 2)


def test_the_model_that_took_the_place_of_another_is_asked_again(emulator: Emulator) -> None:
    """The first question finds out which one answers, and the repair is not refused once more."""
    emulator.fail("message", Fault.status(400, message="The requested model is not supported."))
    emulator.script(BAD, GOOD)
    with client_of(emulator) as client:
        answer = client.stream("Who?", model="gpt-9", fallback_model="o1-mini", **asking({"schema": Person})).read()
    assert answer.parsed == ADA
    assert [message["model"] for message in sent(emulator)] == ["gpt-9", "o1-mini", "o1-mini"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_whoever_reads_it_as_a_stream_gets_the_answer_that_fits(emulator: Emulator, driver: str) -> None:
    """In one piece, and nothing of the others: what builds on streams may use the same options as ``ask``."""
    emulator.script(BAD, "No.", GOOD)
    told: List[Conversation] = []
    with client_of(emulator) as client:
        stream = client.stream("Who?", on_start=told.append, **asking({"schema": Person}))
        pieces: List[str] = []
        DRIVERS[driver](stream, pieces)
        assert (pieces, stream.text) == ([GOOD], GOOD)
        assert stream.answer is not None and stream.answer.parsed == ADA
        assert told == [stream.answer.conversation]
    assert len(sent(emulator)) == 3


@every_way
def test_an_answer_that_may_not_be_whole_is_an_error_and_no_repair(emulator: Emulator, asked: Any) -> None:
    """Even if it fits. Nothing is wrong with what the model wrote, so it is not told so."""
    emulator.reply = Reply(GOOD, complete=False)
    emulator.fail("messages", *[Fault.status(404)] * 9)
    with pytest.raises(StreamInterruptedError, match="not read as data") as caught:
        asked(emulator, schema=Person)
    assert caught.value.partial == GOOD
    assert caught.value.conversation is not None
    assert len(sent(emulator)) == 1


@every_way
def test_the_failure_of_a_repair_is_raised_as_it_is(emulator: Emulator, asked: Any) -> None:
    """It says nothing of the schema, and is retried as any other: an overload was waited for, the end is final."""
    emulator.script(BAD)
    emulator.fail("message", None, Fault.status(409), Fault.status(400, message="flagged"))
    with pytest.raises(InvalidRequestError, match="flagged") as caught:
        asked(emulator, schema=Person)
    assert (caught.value.attempts, caught.value.partial) == (2, "")
    assert len(sent(emulator)) == 3
    assert len(emulator.threads) == 1


@every_way
def test_all_messages_share_the_limit_of_the_whole_call(emulator: Emulator, asked: Any) -> None:
    """``Timeout.total`` begins with the first one, and no repair begins it anew."""
    emulator.reply = Reply(BAD, first_delay=0.5)
    with pytest.raises(RequestTimeoutError) as caught:
        asked(emulator, schema=Person, repairs=20, timeout=Timeout(total=1.2))
    assert (caught.value.phase, caught.value.seconds) == ("total", 1.2)
    assert 1 <= len(sent(emulator)) <= 3


def test_each_message_passes_the_limit_of_the_account(emulator: Emulator) -> None:
    """One that may not begin is not sent. One that may does not wait for the call that it belongs to."""
    emulator.script("No.", GOOD)
    with client_of(emulator, rate_limit=RateLimit(concurrency=1)) as client:
        assert client.ask("Who?", schema=Person).parsed == ADA
    emulator.script("No.", "No.")
    with client_of(emulator, rate_limit=RateLimit(per_day=2)) as client, pytest.raises(RateLimitError):
        client.ask("Who?", schema=Person)
    assert len(sent(emulator)) == 4


def test_each_message_is_paid_out_of_the_budget(emulator: Emulator) -> None:
    """For the account, and for the user that the call is made for."""
    emulator.reply = Reply(BAD)
    with client_of(emulator, budget=Budget(per_user={"requests": 2})) as client:
        with pytest.raises(BudgetExceededError, match=r"of the user 'ann' is used up \(2 of 2 requests"):
            client.ask("Who?", schema=Person, user="ann")
    assert len(sent(emulator)) == 2


def test_each_message_is_an_entry_of_the_ledger(emulator: Emulator, tmp_path: Path) -> None:
    """With its own attempts and tokens, and all under the label of the call."""
    emulator.fail("message", Fault.status(409))
    emulator.script(Reply(BAD, usage={"inputTokens": 5, "outputTokens": 1}), Reply(GOOD, usage={"outputTokens": 2}))
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    with client_of(emulator, ledger=ledger) as client:
        client.ask("Who?", schema=Person, label="people")
        emulator.script(BAD)
        emulator.fail("message", None, Fault.status(400))
        with pytest.raises(InvalidRequestError):
            client.ask("Who?", schema=Person, label="people")
    entries = sorted(ledger.entries(label="people"), key=lambda entry: entry.began_at)
    assert [(entry.attempts, entry.outcome) for entry in entries] == [
        (2, "answered"),
        (1, "answered"),
        (1, "answered"),
        (1, "InvalidRequestError"),
    ]
    assert [entry.output_tokens for entry in entries[:2]] == [1, 2]


class Memory(Dict[str, Any]):
    """A cache in memory."""

    def set(self, key: str, value: str, timeout: int) -> None:
        self[key] = value


def test_the_answer_that_fits_is_kept_and_handed_out(emulator: Emulator) -> None:
    """For the question, whatever it took. What it cost is what it cost at first."""
    cache = Memory()
    emulator.script(BAD, GOOD)
    with client_of(emulator, answer_cache=cache) as client:
        first, second = client.ask("Who?", schema=Person), client.ask("Who?", schema=Person)
        assert (first.cached, second.cached) == (False, True)
        assert second.parsed == first.parsed == ADA
        assert second.usage == first.usage
        assert second.to_dict()["parsed"] == {"name": "Ada", "age": 36}
        assert len(sent(emulator)) == 2
        emulator.script(GOOD, '"x"')
        assert not client.ask("Who?", schema=PERSON).cached  # another schema is another question
        assert client.ask("Who?").text == '"x"'


def test_a_kept_answer_that_does_not_fit_is_asked_afresh(emulator: Emulator) -> None:
    """It has no thread in which a better one could be asked for. The better one takes its place."""
    cache = Memory()
    with client_of(emulator, answer_cache=cache) as client:
        emulator.script(GOOD, BAD, GOOD)
        client.ask("Who?", schema=Person)
        (key,) = cache
        cache[key] = json.dumps({**json.loads(cache[key]), "text": "Ada is 36."})
        answer = client.ask("Who?", schema=Person)
        assert (answer.parsed, answer.cached) == (ADA, False)
        assert answer.conversation.conversation_id in emulator.threads
        assert client.ask("Who?", schema=Person).cached
    assert len(sent(emulator)) == 3


def test_an_answer_that_does_not_fit_is_not_kept(emulator: Emulator) -> None:
    """Nobody could use it."""
    cache = Memory()
    emulator.script(BAD)
    with client_of(emulator, answer_cache=cache) as client, pytest.raises(InvalidAnswerError):
        client.ask("Who?", schema=Person, repairs=0)
    assert cache == {}


def test_a_chat_goes_on_after_a_repair_and_remembers_the_question(emulator: Emulator) -> None:
    """Not what asked for a better answer. The next question follows the answer that fits."""
    emulator.script(BAD, GOOD, "Yes.", BAD, GOOD, "Prose.")
    with client_of(emulator) as client:
        chat = client.chat(system="Be brief.")
        answer = chat.ask("Who?", schema=Person)
        assert chat.question is not None
        assert "Who?\n\nAnswer with one JSON document" in chat.question
        assert chat.ask("Sure?").text == "Yes."
        chat.ask("Who else?", schema=Person)
        again = chat.retry(schema=None)
        assert (again.text, again.parsed) == ("Prose.", None)
    messages = sent(emulator)
    assert messages[2]["parentMessageID"] == answer.message_id
    assert messages[2]["content"] == "Sure?"  # the instructions of the chat are in its conversation
    assert messages[5]["content"] == messages[3]["content"]  # the text that was sent
    assert messages[5]["parentMessageID"] == messages[3]["parentMessageID"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_question_that_is_asked_again_has_to_fit_the_same_schema(emulator: Emulator, is_async: bool) -> None:
    """Unless another one is given, whose instructions take the place. An edited question has to fit what it is told."""
    emulator.script(GOOD, BAD, GOOD, "36", "Ada.", GOOD)
    options: List[Dict[str, Any]] = [{}, {"schema": int}]
    answers: List[Answer] = []
    if is_async:

        async def main() -> None:
            async with AsyncClient(emulator.api_key, api_url=emulator.api_url) as client:
                chat = client.chat()
                await chat.ask("Who?", schema=Person, repairs=1)
                answers.extend([await chat.retry(**each) for each in options])
                answers.append(await chat.edit("Who is it?"))
                answers.append(await chat.edit("Who?", schema=Person))

        asyncio.run(main())
    else:
        with client_of(emulator) as client:
            chat = client.chat()
            chat.ask("Who?", schema=Person, repairs=1)
            answers.extend([chat.retry(**each) for each in options])
            answers.append(chat.edit("Who is it?"))
            answers.append(chat.edit("Who?", schema=Person))
    assert [answer.parsed for answer in answers] == [ADA, 36, None, ADA]
    messages = sent(emulator)
    contents = [message["content"] for message in messages]
    assert contents[0] == contents[1] == contents[5]
    assert messages[0]["parentMessageID"] == messages[1]["parentMessageID"]  # it takes the place of the question
    assert contents[2].startswith("Your answer does not fit")
    assert messages[2]["parentMessageID"] == messages[1]["responseMessageID"]
    assert contents[3].count("JSON Schema") == 1 and contents[3].endswith('{"type": "integer"}')
    assert contents[4] == "Who is it?"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_question_for_data_is_not_asked_again_as_a_stream(emulator: Emulator, is_async: bool) -> None:
    """Its schema would be forgotten. The chat still knows it afterwards."""
    emulator.script(GOOD, GOOD)
    refused = pytest.raises(ValueError, match="has to fit a schema, so it can't be streamed: use retry")
    if is_async:

        async def main() -> Answer:
            async with AsyncClient(emulator.api_key, api_url=emulator.api_url) as client:
                chat = client.chat()
                await chat.ask("Who?", schema=Person)
                with refused:
                    await chat.stream_retry()
                return await chat.retry()

        answer = asyncio.run(main())
    else:
        with client_of(emulator) as client:
            chat = client.chat()
            chat.ask("Who?", schema=Person)
            with refused:
                chat.stream_retry(buffered=True)
            answer = chat.retry()
    assert answer.parsed == ADA
    assert len(sent(emulator)) == 2


def test_a_chat_whose_repair_failed_does_not_open_twice(emulator: Emulator) -> None:
    """An answer had begun to the question that brought the instructions of the chat, so the conversation has them."""
    emulator.script(BAD)
    emulator.fail("message", None, Fault.status(400))
    with client_of(emulator) as client:
        chat = client.chat(system="Be brief.")
        with pytest.raises(InvalidRequestError):
            chat.ask("Who?", schema=Person)
        chat.ask("Hello?")
    assert sent(emulator)[-1]["content"] == "Hello?"


def test_closing_the_client_ends_a_repair(emulator: Emulator) -> None:
    """As it ends any call: the thread that waits is told at once."""
    emulator.script(BAD)
    emulator.fail("message", None, Fault.stall())
    with nothing_left_open(), client_of(emulator) as client:
        asking_thread = Worker(lambda: client.ask("Who?", schema=Person))
        assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
        client.close()
        with pytest.raises(StreamClosedError):
            asking_thread.result()
        assert client.ask("Hi")


def test_ctrl_c_gets_through_a_repair(emulator: Emulator) -> None:
    """What a handler of a signal raises ends the call, and its connection."""
    emulator.script(BAD)
    emulator.fail("message", None, Fault.stall())
    caller = threading.current_thread()

    def interrupt() -> None:
        assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
        assert caller.ident is not None and caller.native_id is not None
        wait_until_blocked(os.getpid(), caller.native_id)
        signal.pthread_kill(caller.ident, signal.SIGINT)

    with nothing_left_open(), client_of(emulator) as client:
        interrupter = Worker(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.ask("Who?", schema=Person)
        interrupter.result()
        assert client.ask("Hi")
    assert len(sent(emulator)) == 3


def test_a_task_that_is_cancelled_ends_a_repair(emulator: Emulator) -> None:
    """At once, and nothing is left: neither the connection nor a thread."""

    async def main() -> None:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url) as client:
            task = asyncio.ensure_future(client.ask("Who?", schema=Person))
            await until(lambda: emulator.stalled)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: len(emulator.disconnects) == 1)
            assert await client.ask("Hi")

    emulator.script(BAD)
    emulator.fail("message", None, Fault.stall())
    with nothing_left_open():
        asyncio.run(main())


def test_closing_while_an_answer_is_judged_is_not_lost(emulator: Emulator) -> None:
    """A validator may take long. Whoever closed the client meanwhile is not answered."""
    clients: List[Client] = []

    class Closing(pydantic.BaseModel):
        value: int

        @pydantic.field_validator("value")
        @classmethod
        def _close(cls, value: int) -> int:
            Worker(clients[0].close).result()
            return value

    emulator.script('{"value": 1}')
    with client_of(emulator) as client:
        clients.append(client)
        with pytest.raises(StreamClosedError):
            client.ask("Which?", schema=Closing)


def test_what_a_validator_raises_by_mistake_comes_out(emulator: Emulator) -> None:
    """It is a fault of the program, and no answer mends it."""

    class Faulty(pydantic.BaseModel):
        value: int

        @pydantic.field_validator("value")
        @classmethod
        def _fail(cls, value: int) -> int:
            raise KeyError(value)

    emulator.script('{"value": 1}', "Hello.")
    with client_of(emulator) as client:
        with pytest.raises(KeyError):
            client.ask("Which?", schema=Faulty)
        assert client.ask("Hi").text == "Hello."
    assert len(sent(emulator)) == 2


#: A value, a JSON Schema that it fits, and one that it does not.
Case = Tuple[Any, Dict[str, Any]]


def _fitting(schemas: "st.SearchStrategy[Case]") -> "st.SearchStrategy[Case]":
    lists = schemas.map(lambda case: ([case[0]], {"type": "array", "items": case[1], "minItems": 1}))
    named = st.dictionaries(st.text(max_size=3), schemas, min_size=1, max_size=3)
    objects = named.map(
        lambda cases: (
            {name: value for name, (value, _) in cases.items()},
            {
                "type": "object",
                "properties": {name: schema for name, (_, schema) in cases.items()},
                "required": sorted(cases),
            },
        )
    )
    return lists | objects


scalars = st.one_of(
    st.integers().map(lambda value: (value, {"type": "integer"})),
    st.text(st.characters(exclude_categories=["Cs"])).map(lambda value: (value, {"type": "string"})),
    st.booleans().map(lambda value: (value, {"type": "boolean"})),
    st.none().map(lambda value: (value, {"type": "null"})),
)
cases = _fitting(st.recursive(scalars, _fitting, max_leaves=4))
#: What a model does to a document: nothing, or what the service's models have been seen to do.
FORMS: Dict[str, Callable[[str], str]] = {
    "bare": str,
    "fence": lambda text: f"```json\n{text}\n```",
    "prose around": lambda text: f"Sure! Here it is:\n\n```\n{text}\n```\nAnything else?",
    "prose": lambda text: "I think that it is nice.",
    "half": lambda text: text[: len(text) // 2],
    "wrong type": lambda text: '"nothing of the kind"',
    "twice": lambda text: f"{text}\n{text}",
}
GOOD_FORMS = ("bare", "fence", "prose around")


@pytest.fixture(scope="module")
def shared_client() -> Iterator[Tuple[Emulator, Client]]:
    with Emulator() as emulator, client_of(emulator) as client:
        yield emulator, client


@settings(deadline=None, max_examples=60)
@given(case=cases, forms=st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=4), repairs=st.integers(0, 3))
def test_whatever_is_answered_the_first_that_fits_is_parsed(
    shared_client: Tuple[Emulator, Client], case: Case, forms: List[str], repairs: int
) -> None:
    """And no more is sent than until then, or than the repairs allow."""
    emulator, client = shared_client
    value, schema = case
    document = json.dumps(value, ensure_ascii=False)
    forms = [*forms, *["prose"] * repairs][: repairs + 1]
    fitting = [place for place, form in enumerate(forms) if form in GOOD_FORMS]
    forms = forms[: fitting[0] + 1] if fitting else forms
    before = len(sent(emulator))
    emulator.script(*([FORMS[form](document)] for form in forms))
    if fitting:
        assert client.ask("Which?", schema=schema, repairs=repairs).parsed == value
    else:
        with pytest.raises(InvalidAnswerError):
            client.ask("Which?", schema=schema, repairs=repairs)
    assert len(sent(emulator)) - before == len(forms)
