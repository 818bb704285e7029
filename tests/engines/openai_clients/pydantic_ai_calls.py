"""An agent of Pydantic AI that answers with text."""

from typing import Any, Callable

from answering_lines import QUESTION, answer_lines
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

Take = Callable[[str], None]


def agent(client: AsyncOpenAI) -> "Agent[None, str]":
    return Agent(OpenAIChatModel("auto", provider=OpenAIProvider(openai_client=client)))


async def plain(retries: int, take: Take) -> Any:
    async with AsyncOpenAI(max_retries=retries) as client:
        return (await agent(client).run(QUESTION)).output


async def stream(retries: int, take: Take) -> Any:
    async with AsyncOpenAI(max_retries=retries) as client:
        async with agent(client).run_stream(QUESTION) as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                take(piece)


if __name__ == "__main__":
    answer_lines({"plain": plain, "stream": stream})
