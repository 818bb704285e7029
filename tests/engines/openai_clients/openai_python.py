"""The official client for Python, of any version: sync and async, whole and as a stream."""

from typing import Any, Callable

import openai
from answering_lines import QUESTION, answer_lines

Take = Callable[[str], None]
ASKED: Any = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
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


def models(retries: int, take: Take) -> Any:
    asking = client(retries)
    names = [model.id for model in asking.models.list()]
    return [names, asking.models.retrieve(names[0]).id]


CALLS = {
    "plain": plain,
    "raw": raw,
    "stream": stream,
    "helper": helper,
    "async plain": async_plain,
    "async stream": async_stream,
    "models": models,
}

if __name__ == "__main__":
    answer_lines(CALLS)
