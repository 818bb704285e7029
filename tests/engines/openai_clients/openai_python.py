"""The official client for Python, of any version: sync and async, whole and as a stream."""

import asyncio
import json
import time
from typing import Any, Callable

import openai
import pydantic
from answering_lines import QUESTION, answer_lines

Take = Callable[[str], None]
ASKED: Any = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
GIVEN: Any = {"model": "auto", "input": QUESTION}
#: Answers of the wrong shape are errors then.
STRICT: Any = {"_strict_response_validation": True}


def client(retries: int) -> openai.OpenAI:
    return openai.OpenAI(max_retries=retries, **STRICT)


def async_client(retries: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(max_retries=retries, **STRICT)


def plain(retries: int, take: Take) -> Any:
    return client(retries).chat.completions.create(**ASKED).choices[0].message.content


def raw(retries: int, take: Take) -> Any:
    response = client(retries).chat.completions.with_raw_response.create(**ASKED, temperature=0)
    return [response.headers["x-copilot-sync-ignored"], response.parse().choices[0].message.content]


def stream(retries: int, take: Take) -> Any:
    usage = None
    for chunk in client(retries).chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        if chunk.choices:
            take(chunk.choices[0].delta.content or "")
    assert usage is not None
    return [usage.prompt_tokens > 0, usage.completion_tokens > 0]


def helper(retries: int, take: Take) -> Any:
    place: Any = client(retries).chat.completions
    if not hasattr(place, "stream"):
        place = client(retries).beta.chat.completions  # where version 1 has it
    with place.stream(**ASKED) as events:
        for event in events:
            if event.type == "content.delta":
                take(event.delta)
        return events.get_final_completion().choices[0].message.content


async def async_plain(retries: int, take: Take) -> Any:
    async with async_client(retries) as asking:
        return (await asking.chat.completions.create(**ASKED)).choices[0].message.content


async def async_stream(retries: int, take: Take) -> Any:
    async with async_client(retries) as asking:
        async for chunk in await asking.chat.completions.create(**ASKED, stream=True):
            take(chunk.choices[0].delta.content or "")


def transcript(retries: int, take: Take) -> Any:
    """Three questions, each with all that was said before: answers as they came, and put together."""
    place: Any = client(retries).chat.completions
    messages: Any = [{"role": "user", "content": "first"}]
    first = place.create(model="auto", messages=messages).choices[0].message
    messages += [first, {"role": "user", "content": "second"}]
    pieces = [
        chunk.choices[0].delta.content or "" for chunk in place.create(model="auto", messages=messages, stream=True)
    ]
    messages += [{"role": "assistant", "content": "".join(pieces)}, {"role": "user", "content": "third"}]
    return place.create(model="auto", messages=messages).choices[0].message.content


def response(retries: int, take: Take) -> Any:
    return client(retries).responses.create(**GIVEN).output_text


def response_stream(retries: int, take: Take) -> Any:
    seen = []
    for event in client(retries).responses.create(**GIVEN, stream=True):
        seen.append(event)
        if event.type == "response.output_text.delta":
            take(event.delta)
    return [seen[-1].response.output_text, [[event.sequence_number, event.type] for event in seen]]


def response_helper(retries: int, take: Take) -> Any:
    with client(retries).responses.stream(**GIVEN) as events:
        for event in events:
            if event.type == "response.output_text.delta":
                take(event.delta)
        return events.get_final_response().output_text


async def async_response_stream(retries: int, take: Take) -> Any:
    async with async_client(retries) as asking:
        async for event in await asking.responses.create(**GIVEN, stream=True):
            if event.type == "response.output_text.delta":
                take(event.delta)


def response_life(retries: int, take: Take) -> Any:
    """Two responses, one after the other: what they are later, what they were asked, and that they are forgotten."""
    place: Any = client(retries).responses
    first = place.create(model="auto", input="first", instructions="Be brief")
    given: Any = [{"role": "user", "content": text} for text in ("second", "third", "fourth")]
    second = place.create(model="auto", input=given, previous_response_id=first.id)
    items = [item.content[0].text for item in place.input_items.list(second.id, limit=1, order="asc")]
    is_same = place.retrieve(second.id) == second
    place.delete(second.id)
    gone = []
    for asked in (place.retrieve, place.delete, place.cancel, place.input_items.list):
        try:
            asked(second.id)
        except openai.NotFoundError as error:
            gone.append(error.code)
    return {"goes on": second.previous_response_id == first.id, "is same": is_same, "items": items, "gone": gone}


def response_cancelled(retries: int, take: Take) -> Any:
    """One that is cancelled in the middle: what cancelling returns, what the stream raises, what it is then."""
    place, name, status = client(retries).responses, "", None
    try:
        for event in place.create(**GIVEN, stream=True):
            if event.type == "response.created":
                name = event.response.id
            elif event.type == "response.output_text.delta":
                take(event.delta)
                status = place.cancel(name).status
    except openai.APIError as error:
        return [status, type(error).__name__, error.code, place.retrieve(name).status]


class Person(pydantic.BaseModel):
    name: str
    born: int


def parsed(retries: int, take: Take) -> Any:
    place: Any = client(retries).chat.completions
    if not hasattr(place, "parse"):
        place = client(retries).beta.chat.completions  # where version 1 has it
    return fields_of(place.parse(**ASKED, response_format=Person).choices[0].message.parsed)


def parsed_stream(retries: int, take: Take) -> Any:
    place: Any = client(retries).chat.completions
    if not hasattr(place, "stream"):
        place = client(retries).beta.chat.completions
    with place.stream(**ASKED, response_format=Person) as events:
        for event in events:
            if event.type == "content.delta":
                take(event.delta)
        return fields_of(events.get_final_completion().choices[0].message.parsed)


async def async_parsed(retries: int, take: Take) -> Any:
    async with async_client(retries) as asking:
        place: Any = asking.chat.completions
        place = place if hasattr(place, "parse") else asking.beta.chat.completions
        return fields_of((await place.parse(**ASKED, response_format=Person)).choices[0].message.parsed)


def json_object(retries: int, take: Take) -> Any:
    form: Any = {"type": "json_object"}
    completion = client(retries).chat.completions.create(**ASKED, response_format=form)
    return json.loads(completion.choices[0].message.content or "")


def parsed_response(retries: int, take: Take) -> Any:
    return fields_of(client(retries).responses.parse(**GIVEN, text_format=Person).output_parsed)


def parsed_response_stream(retries: int, take: Take) -> Any:
    with client(retries).responses.stream(**GIVEN, text_format=Person) as events:
        for event in events:
            if event.type == "response.output_text.delta":
                take(event.delta)
        return fields_of(events.get_final_response().output_parsed)


def fields_of(person: Any) -> Any:
    assert type(person) is Person
    return person.model_dump()


def models(retries: int, take: Take) -> Any:
    asking = client(retries)
    names = [model.id for model in asking.models.list()]
    return [names, asking.models.retrieve(names[0]).id]


LINES = [
    {"custom_id": "good", "method": "POST", "url": "/v1/chat/completions", "body": ASKED},
    {"custom_id": "bad", "method": "POST", "url": "/v1/chat/completions", "body": {**ASKED, "n": 2}},
]
BATCH: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
ENDED = ("completed", "failed")


def jsonl(*lines: Any) -> Any:
    return ("requests.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())


def batch(retries: int, take: Take) -> Any:
    asking = client(retries)
    file = asking.files.create(file=jsonl(*LINES), purpose="batch")
    asking.files.wait_for_processing(file.id)
    made = asking.batches.create(input_file_id=file.id, metadata={"for": "test"}, **BATCH)
    while made.status not in ENDED:
        time.sleep(0.02)
        made = asking.batches.retrieve(made.id)
    assert made.output_file_id is not None
    assert made.error_file_id is not None
    [answer] = map(json.loads, asking.files.content(made.output_file_id).text.splitlines())
    [failure] = map(json.loads, asking.files.content(made.error_file_id).text.splitlines())
    parsed = openai.types.chat.ChatCompletion.model_validate(answer["response"]["body"], strict=True)
    assert made.id in [each.id for each in asking.batches.list(limit=1)]
    names = {each.id for each in asking.files.list(limit=1)}
    assert {file.id, made.output_file_id, made.error_file_id} <= names
    assert asking.files.retrieve(file.id) == file
    deleted = asking.files.delete(file.id)
    counts = made.request_counts
    assert counts is not None
    return {
        "answers": {answer["custom_id"]: parsed.choices[0].message.content},
        "failures": {failure["custom_id"]: failure["response"]["body"]["error"]["param"]},
        "counts": [counts.total, counts.completed, counts.failed],
        "metadata": made.metadata,
        "deleted": deleted.deleted,
    }


async def async_batch(retries: int, take: Take) -> Any:
    async with async_client(retries) as asking:
        file = await asking.files.create(file=jsonl(LINES[0], {}), purpose="batch")
        made = await asking.batches.create(input_file_id=file.id, **BATCH)
        while made.status not in ENDED:
            await asyncio.sleep(0.02)
            made = await asking.batches.retrieve(made.id)
        assert made.errors is not None
        assert made.errors.data is not None
        try:
            await asking.batches.cancel(made.id)
        except openai.BadRequestError as error:
            return [made.status, made.errors.data[0].line, made.errors.data[0].code, error.code]


CALLS = {
    "plain": plain,
    "raw": raw,
    "stream": stream,
    "helper": helper,
    "async plain": async_plain,
    "async stream": async_stream,
    "transcript": transcript,
    "response": response,
    "response stream": response_stream,
    "response helper": response_helper,
    "async response stream": async_response_stream,
    "response life": response_life,
    "response cancelled": response_cancelled,
    "parsed": parsed,
    "parsed stream": parsed_stream,
    "async parsed": async_parsed,
    "json object": json_object,
    "parsed response": parsed_response,
    "parsed response stream": parsed_response_stream,
    "models": models,
    "batch": batch,
    "async batch": async_batch,
}

if __name__ == "__main__":
    answer_lines(CALLS)
