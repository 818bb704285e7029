"""Prompts: role messages and instructions become the one text that a message takes.

A prompt is checked once. What comes of that is a ``CheckedPrompt`` while it is not known yet which conversation
it goes to, and a ``PromptText`` from then on; neither is checked again.
"""

from typing import Any, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

from copilot_sync.safe_text import check_text, json_bytes

#: What callers may pass for a prompt: a text, or role messages as chat programs keep them.
PromptInput = Union[str, Iterable[Mapping[str, Any]]]
_Turn = Tuple[str, str]


class PromptText(str):
    """A prompt as it is sent."""

    __slots__ = ()


class CheckedPrompt(NamedTuple):
    """The turns of a prompt: pairs of a role and a text. A prompt that is a text is a turn of the user's."""

    turns: List[_Turn]
    is_text: bool

    @classmethod
    def from_value(cls, prompt: PromptInput) -> "CheckedPrompt":
        """Check a prompt.

        Raises:
            TypeError: It, or one of its messages, has the wrong type.
            ValueError: It is empty or not valid Unicode, or a message lacks its role or content, or holds a part that
                is no text.
        """
        if isinstance(prompt, Iterable) and not isinstance(prompt, (str, bytes, Mapping)):
            return cls(_turns(prompt), is_text=False)
        return cls([("user", _checked_text(prompt))], is_text=True)

    def text(self, system: Optional[str] = None, *, is_new: bool = True) -> PromptText:
        """Return the one text that is sent.

        A new conversation gets all of the prompt, and instructions are a role message in front of it. A conversation
        that goes on gets what the user said last, and instructions are a paragraph in front of it.

        Args:
            system: Instructions for the model. Blank ones are none.
            is_new: Whether the prompt begins a conversation.

        Raises:
            TypeError: The instructions are not a string.
            ValueError: There is nothing to send, or the instructions are not valid Unicode.
        """
        instructions = _checked_system(system)
        if is_new:
            return _transcript([("system", instructions), *self.turns] if instructions else self.turns)
        text = self.turns[0][1] if self.is_text else _last_user_turn(self.turns)
        return PromptText(f"{instructions}\n\n{text}" if instructions else text)


def prompt_text(prompt: PromptInput, system: Optional[str] = None, *, is_new: bool = True) -> PromptText:
    """Check a prompt, and return the one text that is sent, as ``CheckedPrompt.text`` does.

    A ``PromptText`` without instructions is returned as it is.

    Raises:
        TypeError: The prompt, one of its messages, or the instructions have the wrong type.
        ValueError: There is nothing to send, or it can't be sent.
    """
    if isinstance(prompt, PromptText) and not system:
        return prompt
    return CheckedPrompt.from_value(prompt).text(system, is_new=is_new)


def format_prompt(messages: Iterable[Mapping[str, Any]]) -> PromptText:
    """Render a whole transcript as the one string that a message takes.

    A single message is its content alone; several become ``Role: content`` lines, blank ones left out, closed
    by a line ``Assistant:``. Content that is ``None`` is blank.

    Raises:
        TypeError: The messages, or one of them, have the wrong type.
        ValueError: There are none, one lacks its role or content or holds a part that is no text, or all are blank.
    """
    return _transcript(_turns(messages))


def last_user_turn(messages: Iterable[Mapping[str, Any]]) -> PromptText:
    """Take what the user said last: the last run of user messages, whatever stands behind it left out.

    Each is stripped, blank ones are dropped, and the rest is joined by newlines.

    Raises:
        TypeError: The messages, or one of them, have the wrong type.
        ValueError: There are none, one lacks its role or content or holds a part that is no text, or the user said
            nothing.
    """
    return _last_user_turn(_turns(messages))


def _transcript(turns: List[_Turn]) -> PromptText:
    if not any(content.strip() for _, content in turns):
        raise ValueError("the messages hold no text")
    if len(turns) == 1:
        return PromptText(turns[0][1])
    lines = [f"{role.capitalize()}: {content}" for role, content in turns if content.strip()]
    return PromptText("\n".join([*lines, "Assistant:"]))


def _last_user_turn(turns: List[_Turn]) -> PromptText:
    run: List[str] = []
    for role, content in reversed(turns):
        if role == "user":
            run.append(content.strip())
        elif run:
            break
    text = "\n".join(content for content in reversed(run) if content)
    if not text:
        raise ValueError("the messages hold no text of the user's to send")
    return PromptText(text)


def _checked_text(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise TypeError(f"a prompt must be a string or a list of messages, not {type(prompt).__name__}")
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    return check_text("the prompt", prompt)


def _checked_system(system: object) -> str:
    """Return the instructions; ``""`` for none."""
    if system is not None and not isinstance(system, str):
        raise TypeError(f"system must be a string, not {type(system).__name__}")
    return check_text("system", system) if system and system.strip() else ""


def _turns(messages: object) -> List[_Turn]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise TypeError(f"messages must be a list of dictionaries, not {type(messages).__name__}")
    turns = [_turn(number, message) for number, message in enumerate(messages)]
    if not turns:
        raise ValueError("messages must not be empty")
    json_bytes("messages", turns)
    return turns


def _turn(number: int, message: object) -> Tuple[str, str]:
    if not isinstance(message, Mapping):
        raise TypeError(f"message {number} must be a dictionary, not {type(message).__name__}")
    role = message.get("role")
    if role is None:
        raise ValueError(f"message {number} has no role")
    if "content" not in message:
        raise ValueError(f"message {number} has no content")
    if not isinstance(role, str):
        raise TypeError(f"the role of message {number} must be a string, not {type(role).__name__}")
    if not role.strip():
        raise ValueError(f"message {number} has no role")
    return role, _text_of(number, message["content"])


def _text_of(number: int, content: object) -> str:
    if content is None:  # as in an assistant's turn that only called a tool
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise TypeError(f"the content of message {number} must be a string or a list of parts")
    return "".join(_part_text(number, part) for part in content)


def _part_text(number: int, part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise TypeError(f"a part of message {number} must be a dictionary, not {type(part).__name__}")
    kind = part.get("type", "text" if "text" in part else None)
    if kind != "text":
        what = f"of type {kind!r}" if kind else "without a type or text"
        raise ValueError(f"message {number} has a part {what}, which can't be sent: only text can")
    text = part.get("text", "")
    if not isinstance(text, str):
        raise TypeError(f"a text part of message {number} must hold a string, not {type(text).__name__}")
    return text
