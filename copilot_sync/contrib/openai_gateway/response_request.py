"""What a request for a response asks for: its parameters, checked. Pure.

====================================  ================================================================
parameter                             what becomes of it
====================================  ================================================================
``input``                             sent; a response that goes on sends this alone
``instructions``                      sent in front of it
``model``, ``stream``                 as they say
``previous_response_id``              the conversation goes on after that answer
``safety_identifier``, ``user``       for whom the request is made: for budgets and the ledger
``store``                             ``false``: the response can't be retrieved, continued or cancelled
``background``, ``conversation``,     refused (400 ``unsupported_parameter``) unless they say nothing
``include``, ``prompt``, ``tools``,
``tool_choice``, ``top_logprobs``
``text``                              its ``format`` as it says; the rest of it is ignored
anything else                         ignored, and named in ``x-copilot-sync-ignored``
====================================  ================================================================

An item of ``input`` has to be a message; its parts are those that ``message_parts`` reads.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from copilot_sync.openai_api.chat_request import (
    NOTHING,
    USER,
    ignored_of,
    read_flag,
    read_format,
    read_model,
    read_text,
    read_user,
    wrong_type,
)
from copilot_sync.openai_api.failures import ApiError
from copilot_sync.prompts import PromptInput, format_prompt
from copilot_sync.structured import Schema

#: Parameters that would change what comes back, and the values with which they change nothing.
_UNSUPPORTED: Mapping[str, Tuple[Any, ...]] = {
    "background": NOTHING,
    "conversation": NOTHING,
    "include": NOTHING,
    "prompt": NOTHING,
    "tool_choice": (*NOTHING, "none", "auto"),
    "tools": NOTHING,
    "top_logprobs": (*NOTHING, 0),
}
_READ = ("input", "instructions", "model", "previous_response_id", "store", "stream", *USER)
_ROLES = ("user", "assistant", "system", "developer")


class ResponseRequest(NamedTuple):
    """A request for a response.

    Attributes:
        input: A text, or messages.
        instructions: Instructions for the model; ``None`` for none.
        model: The model; ``None`` for the gateway's.
        previous_response_id: The response to go on after; ``None`` for none.
        is_streamed: Whether the answer comes as it is written.
        is_stored: Whether the response can be retrieved and continued.
        user: For whom the request is made, in the client's words; ``None`` for nobody.
        text_format: What the answer has to be, as the request says it.
        schema: What it has to fit; ``None`` for any text.
        ignored: The parameters that have no effect.
    """

    input: Union[str, List[Dict[str, Any]]]
    instructions: Optional[str]
    model: Optional[str]
    previous_response_id: Optional[str]
    is_streamed: bool
    is_stored: bool
    user: Optional[str]
    text_format: Dict[str, Any]
    schema: Optional[Schema]
    ignored: Tuple[str, ...]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "ResponseRequest":
        """Read the body of a request.

        Raises:
            ApiError: A parameter has the wrong type, or can't be met (400).
        """
        store = body.get("store")
        text_format = _text_format_of(body)
        return cls(
            input=_read_input(body.get("input")),
            instructions=read_text(body, "instructions"),
            model=read_model(body),
            previous_response_id=read_text(body, "previous_response_id"),
            is_streamed=read_flag(body, "stream"),
            is_stored=store is None or read_flag(body, "store"),
            user=read_user(body),
            text_format=text_format,
            schema=read_format(text_format, text_format.get("schema"), "text.format"),
            ignored=ignored_of(_without_text_format(body), _READ, _UNSUPPORTED),
        )

    def prompt(self) -> PromptInput:
        """Return what is sent to the client's ``stream``: all of the input, also if a conversation goes on with it.

        Raises:
            ApiError: The input can't be sent (400).
        """
        if self.previous_response_id is None or isinstance(self.input, str):
            return self.input
        if all(message["role"] == "user" for message in self.input):
            return self.input
        try:
            return format_prompt(self.input)  # else only what the user said last would be sent
        except (TypeError, ValueError) as error:
            raise ApiError(400, str(error), code="invalid_value", param="input") from None


def _read_input(value: object) -> Union[str, List[Dict[str, Any]]]:
    if not isinstance(value, (str, list)) or not value:
        raise wrong_type("input", "a string or a list of messages, and not empty")
    return value if isinstance(value, str) else [_read_message(item) for item in value]


def _read_message(item: object) -> Dict[str, Any]:
    if not isinstance(item, dict):
        raise wrong_type("input", "a list of objects, if it is a list")
    kind = item.get("type")
    if kind is not None and kind != "message":
        raise ApiError(
            400,
            "an item of input is not a message, and only messages can be sent",
            code="unsupported_value",
            param="input",
        )
    if item.get("role") not in _ROLES:
        raise ApiError(
            400, f"the role of a message must be one of {', '.join(_ROLES)}", code="invalid_value", param="input"
        )
    return item


def _text_format_of(body: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the format of the text.

    Raises:
        ApiError: It, or what it is in, is no object (400).
    """
    text = body.get("text")
    if text is not None and not isinstance(text, dict):
        raise wrong_type("text", "an object")
    found = (text or {}).get("format")
    if found is not None and not isinstance(found, dict):
        raise wrong_type("text.format", "an object")
    return found or {"type": "text"}


def _without_text_format(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters without ``text`` if that says nothing but a format."""
    if set(body.get("text") or {}) <= {"format"}:
        return {name: value for name, value in body.items() if name != "text"}
    return body
