"""LangChain's model for OpenAI's API."""

from typing import Any, Callable

from answering_lines import QUESTION, answer_lines
from langchain_openai import ChatOpenAI

Take = Callable[[str], None]


def plain(retries: int, take: Take) -> Any:
    return ChatOpenAI(model="auto", max_retries=retries).invoke(QUESTION).content


def stream(retries: int, take: Take) -> Any:
    for chunk in ChatOpenAI(model="auto", max_retries=retries).stream(QUESTION):
        take(str(chunk.content))


if __name__ == "__main__":
    answer_lines({"plain": plain, "stream": stream})
