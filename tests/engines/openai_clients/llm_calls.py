"""The library of ``llm``, with a model of its file ``extra-openai-models.yaml``."""

from typing import Any, Callable

import llm
import openai
from answering_lines import QUESTION, answer_lines

Take = Callable[[str], None]


def model(retries: int) -> Any:
    defaults: Any = openai.OpenAI.__init__.__kwdefaults__  # llm has no setting for it
    defaults["max_retries"] = retries
    return llm.get_model("copilot")


def plain(retries: int, take: Take) -> Any:
    return model(retries).prompt(QUESTION, stream=False).text()


def stream(retries: int, take: Take) -> Any:
    for piece in model(retries).prompt(QUESTION):
        take(piece)


if __name__ == "__main__":
    answer_lines({"plain": plain, "stream": stream})
