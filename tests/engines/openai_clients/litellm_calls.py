"""litellm, with the gateway as a server of OpenAI's kind."""

import os
from typing import Any, Callable

import litellm
from answering_lines import QUESTION, answer_lines

Take = Callable[[str], None]
ASKED: Any = {
    "model": "openai/auto",
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": os.environ["OPENAI_API_KEY"],
    "messages": [{"role": "user", "content": QUESTION}],
}
litellm.suppress_debug_info = True


def plain(retries: int, take: Take) -> Any:
    return litellm.completion(**ASKED, max_retries=retries).choices[0].message.content


def stream(retries: int, take: Take) -> Any:
    for chunk in litellm.completion(**ASKED, max_retries=retries, stream=True):
        take(chunk.choices[0].delta.content or "")


async def async_stream(retries: int, take: Take) -> Any:
    async for chunk in await litellm.acompletion(**ASKED, max_retries=retries, stream=True):
        take(chunk.choices[0].delta.content or "")


if __name__ == "__main__":
    answer_lines({"plain": plain, "stream": stream, "async stream": async_stream})
