"""LangChain's model for OpenAI's API."""

from typing import Any, Callable

from answering_lines import QUESTION, answer_lines
from langchain_openai import ChatOpenAI
from pydantic import create_model

Take = Callable[[str], None]
Person: Any = create_model("Person", name=(str, ...), born=(int, ...))


def plain(retries: int, take: Take) -> Any:
    return ChatOpenAI(model="auto", max_retries=retries).invoke(QUESTION).content


def stream(retries: int, take: Take) -> Any:
    for chunk in ChatOpenAI(model="auto", max_retries=retries).stream(QUESTION):
        take(str(chunk.content))


def parsed(retries: int, take: Take) -> Any:
    model = ChatOpenAI(model="auto", max_retries=retries).with_structured_output(Person, method="json_schema")
    found: Any = model.invoke(QUESTION)
    return found.model_dump()


if __name__ == "__main__":
    answer_lines({"plain": plain, "stream": stream, "parsed": parsed})
