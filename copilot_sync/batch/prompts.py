"""Prompts as they come in: values, and what stands in the place of one that can't be read.

Files of them are read by ``prompt_files``.
"""

import functools
import json
from dataclasses import dataclass
from typing import Any, Iterable, List, Mapping, Optional, Sequence, Union

from copilot_sync.inline_files import NamedText, inline_files
from copilot_sync.message_parts import Attachments
from copilot_sync.models import Conversation
from copilot_sync.prompts import CheckedPrompt, PromptText
from copilot_sync.safe_text import check_id, check_text, loads
from copilot_sync.structured import Schema

#: What tells a prompt from the others of its batch.
Id = Union[str, int]


@dataclass(frozen=True)
class Prompt:
    """One prompt of a batch.

    Args:
        id: What tells it from the others, a string or a whole number; its result has the same.
        prompt: A text, or a list of role messages.
        model: The model's id. Default: the batch's, else the client's.
        system: Instructions for the model. Default: the batch's.
        conversation: A conversation or its id, to go on with it. Default: a new one. Prompts of the same conversation
            are asked one after the other.
        files: Text files to attach: pairs of a name and a text, of at most 1 MiB each. No path is opened, because
            prompts come out of files that must not choose what is read on this machine.
        schema: What its answer has to fit, as ``Client.ask`` takes it. Default: the batch's.
    """

    id: Id
    prompt: Union[str, Sequence[Mapping[str, Any]]]
    model: Optional[str] = None
    system: Optional[str] = None
    conversation: Union[None, str, Conversation] = None
    files: Sequence[NamedText] = ()
    schema: Any = None

    def content(self, system: Optional[str] = None) -> PromptText:
        """Return the one text that is sent. The prompt is checked the first time.

        Args:
            system: Instructions if the prompt has none of its own.

        Raises:
            TypeError: The prompt has the wrong type.
            ValueError: There is nothing in it to send.
        """
        is_new = Conversation.from_value(self.conversation) is None
        text = self._checked_prompt.text(self.system or system, is_new=is_new)
        return text.attach(Attachments(inline_files(self.files))) if self.files else text

    @functools.cached_property
    def checked_schema(self) -> Optional[Schema]:
        """What the answer has to fit; ``None`` if the prompt does not say. It is checked the first time.

        Raises:
            TypeError: It has the wrong type.
            ValueError: It is no valid JSON Schema.
            ImportError: What judges it is not installed.
        """
        if not isinstance(self.schema, Mapping):
            return None if self.schema is None else Schema.from_value(self.schema)
        return _json_schema(json.dumps(self.schema))

    @functools.cached_property
    def _checked_prompt(self) -> CheckedPrompt:
        return CheckedPrompt.from_value(self.prompt)


@functools.lru_cache(maxsize=64)
def _json_schema(text: str) -> Schema:
    """Make a schema once for the many prompts of a file that have the same."""
    return Schema.from_value(loads(text))


@dataclass(frozen=True)
class BadLine:
    """What stands in the place of a prompt.

    Attributes:
        id: Its id, if that much could be read, else the number of the line.
        number: The number of the line, from 1.
        reason: Where it stands, and what is wrong with it.
        code: The same for a program, if the format has codes.
        param: The parameter that is wrong, if the format has parameters.
    """

    id: Id
    number: int
    reason: str
    code: Optional[str] = None
    param: Optional[str] = None


#: What a batch is made of.
PromptSource = Iterable[Union[str, Mapping[str, Any], Prompt, BadLine]]


def read_prompt(value: object, number: int) -> Union[Prompt, BadLine]:
    """Read what callers may give for a prompt: a text, a mapping as a line of JSON has it, or a ``Prompt``.

    Args:
        value: The prompt.
        number: Its place among the others, which is its id if it has none.
    """
    if isinstance(value, BadLine):
        return value
    if isinstance(value, str):
        value = Prompt(number, value)
    if isinstance(value, Mapping):
        return read_fields(value, number, f"prompt {number}")
    if not isinstance(value, Prompt):
        kind = type(value).__name__
        return BadLine(number, number, f"prompt {number} must be a string, a dictionary or a Prompt, not {kind}")
    return checked_prompt(value, number, f"prompt {number}")


def checked_prompt(prompt: Prompt, number: int, place: str) -> Union[Prompt, BadLine]:
    """Return a prompt, or what stands in its place if it can't be sent.

    Args:
        prompt: The prompt.
        number: Its place among the others.
        place: What to call that in words.
    """
    try:
        _checked_id(prompt.id)
        prompt.content()
        prompt.checked_schema  # noqa: B018 - it is checked now
    except (TypeError, ValueError) as error:
        return BadLine(_readable_id(prompt.id, number), number, f"{place}: {error}")
    return prompt


def with_json_schema(prompt: Union[Prompt, BadLine]) -> Union[Prompt, BadLine]:
    """Return a prompt, or what stands in its place if its schema is a type: for senders of plain JSON."""
    if isinstance(prompt, BadLine) or prompt.schema is None or isinstance(prompt.schema, Mapping):
        return prompt
    return BadLine(prompt.id, 0, "a prompt whose schema is no JSON Schema has to be asked by batch.run or Client.ask")


def read_fields(fields: Mapping[str, Any], number: int, place: str) -> Union[Prompt, BadLine]:
    """Read a prompt from the fields of a JSON line or of a row. See ``checked_prompt``."""
    id = fields.get("id")
    id = number if id is None or id == "" else id
    try:
        return checked_prompt(_prompt_of_fields(fields, id), number, place)
    except (TypeError, ValueError) as error:
        return BadLine(_readable_id(id, number), number, f"{place}: {error}")


def _readable_id(id: object, number: int) -> Id:
    try:
        return _checked_id(id)
    except (TypeError, ValueError):
        return number


def _checked_id(id: object) -> Id:
    if isinstance(id, bool) or not isinstance(id, (str, int)):
        raise TypeError(f"id must be a string or a whole number, not {type(id).__name__}")
    return check_text("id", id) if isinstance(id, str) else id


def _prompt_of_fields(fields: Mapping[str, Any], id: Id) -> Prompt:
    given = [name for name in ("prompt", "messages") if fields.get(name) is not None]
    if len(given) != 1:
        raise ValueError(f"a prompt has either prompt or messages, and this one has {' and '.join(given) or 'neither'}")
    return Prompt(
        id=id,
        prompt=_content_of(fields, given[0]),
        model=_text_of(fields, "model"),
        system=_text_of(fields, "system"),
        conversation=_conversation_of(fields),
        files=fields.get("files") or (),
        schema=fields.get("schema"),
    )


def _content_of(fields: Mapping[str, Any], name: str) -> Union[str, List[Mapping[str, Any]]]:
    value: Union[str, List[Mapping[str, Any]]] = fields[name]
    kind, words = (str, "a string") if name == "prompt" else (list, "a list")
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {words}, not {type(value).__name__}")
    return value


def _text_of(fields: Mapping[str, Any], name: str) -> Optional[str]:
    value = fields.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return check_text(name, value)


def _conversation_of(fields: Mapping[str, Any]) -> Optional[Conversation]:
    value = fields.get("conversation")
    known = Conversation.from_dict(value) if isinstance(value, Mapping) else Conversation.from_value(value)
    if known is not None:
        check_id(known.conversation_id)
    return known
