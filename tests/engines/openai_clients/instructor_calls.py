"""instructor, as the client that it wraps, and for a model of the answer: by tools, by its format, or in its text."""

from typing import Any, Callable

import instructor
import openai
from answering_lines import QUESTION, answer_lines
from pydantic import create_model

Take = Callable[[str], None]
Person: Any = create_model("Person", name=(str, ...), born=(int, ...))


def client(retries: int, mode: instructor.Mode = instructor.Mode.TOOLS) -> Any:
    return instructor.from_openai(openai.OpenAI(max_retries=retries), mode=mode)


def asked(kind: Any) -> Any:
    message = {"role": "user", "content": QUESTION}
    return {"model": "auto", "messages": [message], "response_model": kind, "max_retries": 0}


def plain(retries: int, take: Take) -> Any:
    return client(retries).chat.completions.create(**asked(None)).choices[0].message.content


def tools(retries: int, take: Take) -> Any:
    return client(retries).chat.completions.create(**asked(Person)).name


def in_text(retries: int, take: Take) -> Any:
    return client(retries, instructor.Mode.MD_JSON).chat.completions.create(**asked(Person)).name


def by_schema(retries: int, take: Take) -> Any:
    return client(retries, instructor.Mode.JSON_SCHEMA).chat.completions.create(**asked(Person)).model_dump()


def by_json(retries: int, take: Take) -> Any:
    return client(retries, instructor.Mode.JSON).chat.completions.create(**asked(Person)).model_dump()


if __name__ == "__main__":
    answer_lines({"plain": plain, "tools": tools, "in text": in_text, "parsed": by_schema, "json object": by_json})
