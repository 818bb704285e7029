"""Responses as OpenAI's API has them (openai 1.66 to 3.57, November 2026). Pure."""

import time
import uuid
from typing import Any, Callable, Dict, List, Optional, Union

from copilot_sync.models import Answer
from copilot_sync.openai_api.failures import ApiError
from copilot_sync.usage import Usage

#: The codes that an error of a response may have.
_CODES = ("server_error", "rate_limit_exceeded")


class ResponseObjects:
    """The objects of one response.

    Args:
        model: The model that was asked for.
        instructions: What the request says.
        previous_response_id: What the request says.
        is_stored: What the request says.
        text_format: What the request says.
        clock: Returns the time, in seconds since 1970.
    """

    def __init__(
        self,
        model: str,
        *,
        instructions: Optional[str] = None,
        previous_response_id: Optional[str] = None,
        is_stored: bool = True,
        text_format: Optional[Dict[str, Any]] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.id = f"resp_{uuid.uuid4().hex}"
        self.message_id = f"msg_{uuid.uuid4().hex}"
        self._common: Dict[str, Any] = {
            "id": self.id,
            "object": "response",
            "created_at": int(clock()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": instructions,
            "max_output_tokens": None,
            "metadata": {},
            "model": model,
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "store": is_stored,
            "temperature": None,
            "text": {"format": text_format or {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "truncation": "disabled",
            "usage": None,
            "user": None,
        }

    def in_progress(self) -> Dict[str, Any]:
        """Return the response before its end."""
        return self._common

    def completed(self, answer: Answer) -> Dict[str, Any]:
        """Return the whole response."""
        return {
            **self._common,
            "status": "completed",
            "model": answer.model,
            "output": [self.message(answer.text)],
            "usage": _usage_object(answer.usage),
        }

    def failed(self, error: ApiError) -> Dict[str, Any]:
        """Return the response whose answer has failed."""
        code = error.code if error.code in _CODES else "server_error"
        return {**self._common, "status": "failed", "error": {"code": code, "message": str(error)}}

    def cancelled(self) -> Dict[str, Any]:
        """Return the response whose answer was cancelled."""
        return {**self._common, "status": "cancelled"}

    def message(self, text: Optional[str] = None) -> Dict[str, Any]:
        """Return the item with the text; ``None`` for the one that has none yet."""
        return {
            "id": self.message_id,
            "type": "message",
            "status": "in_progress" if text is None else "completed",
            "role": "assistant",
            "content": [] if text is None else [text_part(text)],
        }


def text_part(text: str) -> Dict[str, Any]:
    """Return the part of a message that is its text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage_object(usage: Optional[Usage]) -> Optional[Dict[str, Any]]:
    """Return what an answer cost; ``None`` if the service did not say. It says nothing of caches and reasoning."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def deleted(name: str) -> Dict[str, Any]:
    """Return what says that a response was deleted."""
    return {"id": name, "object": "response", "deleted": True}


def input_items(name: str, given: Union[str, List[Dict[str, Any]]]) -> List[Dict[str, Any]]:
    """Return the items of an input, each with an id.

    Args:
        name: The id of the response.
        given: What its request had as input: a text, or messages.
    """
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return [
        {
            "id": f"msg_{name[len('resp_') :]}_{number}",
            "type": "message",
            "status": "completed",
            "role": message["role"],
            "content": _stored_parts(message["content"], message["role"]),
        }
        for number, message in enumerate(messages)
    ]


def _stored_parts(content: Any, role: str) -> List[Dict[str, Any]]:
    parts = content if isinstance(content, list) else [content or ""]
    return [_stored_part(part if isinstance(part, dict) else {"text": part}, role) for part in parts]


def _stored_part(part: Dict[str, Any], role: str) -> Dict[str, Any]:
    """Return a part as a stored item has it."""
    kind = part.get("type")
    if not kind or kind in ("text", "input_text", "output_text"):
        text = part.get("text", "")
        return text_part(text) if role == "assistant" else {"type": "input_text", "text": text}
    return {"detail": "auto", **part} if kind == "input_image" else part
