"""Chat completions, chunks and models as OpenAI's API has them (openai 3.57, November 2026). Pure.

Every object has ``id``, ``object``, ``created`` as a whole number and ``model``: clients that check strictly, or that
put pieces together, need them all.
"""

import time
import uuid
from typing import Any, Callable, Dict, List, Optional, Protocol

from copilot_sync.models import Answer, Model
from copilot_sync.openai_api.answer_writer import AnswerWriter, data_event
from copilot_sync.usage import Usage

#: The end of a stream. Whoever got this has got all of it.
DONE = b"data: [DONE]\n\n"


class WholeAnswer(Protocol):
    """What a completion is made of: an ``Answer``, or what a batch has kept of one."""

    @property
    def text(self) -> str:
        """The answer."""
        ...

    @property
    def model(self) -> str:
        """The model that answered; empty if that is not known."""
        ...

    @property
    def usage(self) -> Optional[Usage]:
        """What it cost; ``None`` if that is not known."""
        ...


class ChatCompletion(AnswerWriter):
    """One completion, whole or as the events of a stream.

    Args:
        model: The model that was asked for.
        includes_usage: Whether a last chunk says what it cost.
        on_answer: Called with the whole answer before its end is written.
    """

    def __init__(self, model: str, includes_usage: bool = False, on_answer: Callable[[Answer], object] = bool) -> None:
        self._common = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._includes_usage = includes_usage
        self._on_answer = on_answer

    def whole(self, answer: Answer) -> Dict[str, Any]:
        """Return the completion, after ``on_answer``."""
        self._on_answer(answer)
        return self.completion(answer)

    def completion(self, answer: WholeAnswer) -> Dict[str, Any]:
        """Return a whole completion."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {
            **self._common,
            "object": "chat.completion",
            "model": answer.model,
            "choices": [choice],
            "usage": usage_object(answer.usage),
        }

    def first(self) -> bytes:
        """Return the chunk that says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, text: str) -> bytes:
        """Return the chunk for a piece of text."""
        return self._chunk({"content": text})

    def end(self, answer: Answer) -> bytes:
        """Return the last chunks, and the end of the stream."""
        self._on_answer(answer)
        chunks = [self._chunk({}, "stop")]
        if self._includes_usage:
            chunks.append(self._event(choices=[], usage=usage_object(answer.usage)))
        return b"".join([*chunks, DONE])

    def _chunk(self, delta: Dict[str, Any], finish_reason: Optional[str] = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event(choices=[choice])

    def _event(self, **fields: Any) -> bytes:
        return data_event({**self._common, "object": "chat.completion.chunk", **fields})


def usage_object(usage: Optional[Usage]) -> Optional[Dict[str, int]]:
    """Return what an answer cost; ``None`` if the service did not say."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    tokens = usage.input_tokens, usage.output_tokens
    return {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}


def model_object(model: Model) -> Dict[str, Any]:
    """Return a model. When it was made, the service does not say."""
    return {"id": model.id, "object": "model", "created": 0, "owned_by": model.vendor or "github-copilot"}


def model_list(models: List[Model]) -> Dict[str, Any]:
    """Return a list of models."""
    return {"object": "list", "data": [model_object(model) for model in models], "has_more": False}
