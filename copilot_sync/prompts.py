"""Prompts: role messages and instructions become the one text that a message takes, and what goes with it.

A prompt is checked once. What comes of that is a ``CheckedPrompt`` while it is not known yet which conversation
it goes to, and a ``PromptText`` from then on; neither is checked again. ``message_parts`` reads the images and files
in role messages; a conversation gets those of the messages whose text it gets.
"""

import itertools
from typing import Any, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

from copilot_sync.message_parts import NO_ATTACHMENTS, Attachments, read_content
from copilot_sync.safe_text import check_text, json_bytes

#: What callers may pass for a prompt: a text, or role messages as chat programs keep them.
PromptInput = Union[str, Iterable[Mapping[str, Any]]]
_Turn = Tuple[str, str, Attachments]


class PromptText(str):
    """A prompt as it is sent. It can be pickled.

    Attributes:
        attachments: The files and images that go with the text.
    """

    attachments: Attachments = NO_ATTACHMENTS

    def attach(self, attachments: Attachments) -> "PromptText":
        """Return the same text with further attachments, behind those that it has."""
        if attachments == NO_ATTACHMENTS:
            return self
        text = PromptText(self)
        text.attachments = self.attachments.plus(attachments)
        return text


class CheckedPrompt(NamedTuple):
    """The turns of a prompt: a role, a text and its attachments each. A text alone is a turn of the user's."""

    turns: List[_Turn]
    is_text: bool

    @classmethod
    def from_value(cls, prompt: PromptInput) -> "CheckedPrompt":
        """Check a prompt.

        Raises:
            TypeError: It, or one of its messages, has the wrong type.
            ValueError: It is empty or not valid Unicode, or a message lacks its role or content, or holds a part that
                can't be sent.
        """
        if isinstance(prompt, Iterable) and not isinstance(prompt, (str, bytes, Mapping)):
            return cls(_turns(prompt), is_text=False)
        attachments = prompt.attachments if isinstance(prompt, PromptText) else NO_ATTACHMENTS
        return cls([("user", _checked_text(prompt), attachments)], is_text=True)

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
        instructions = checked_system(system)
        if self.is_text and not instructions:
            return PromptText(self.turns[0][1]).attach(self.turns[0][2])
        if is_new:
            return _transcript([("system", instructions, NO_ATTACHMENTS), *self.turns] if instructions else self.turns)
        text = self.text() if self.is_text else _last_user_turn(self.turns)
        return PromptText(f"{instructions}\n\n{text}").attach(text.attachments) if instructions else text


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


def format_prompt(messages: Iterable[Mapping[str, Any]], system: Optional[str] = None) -> PromptText:
    """Render a whole transcript as the one string that a message takes.

    A single message is its content alone; several become ``Role: content`` lines, blank ones left out, closed
    by a line ``Assistant:``. Content that is ``None`` is blank. Instructions are a role message in front.

    Raises:
        TypeError: The messages, one of them, or the instructions have the wrong type.
        ValueError: There are none, one lacks its role or content or holds a part that can't be sent, or all are blank.
    """
    return CheckedPrompt(_turns(messages), is_text=False).text(system)


def last_user_turn(
    messages: Iterable[Mapping[str, Any]], system: Optional[str] = None, *, is_new: bool = False
) -> PromptText:
    """Take what the user said last: the last run of user messages, whatever stands behind it left out.

    Each is stripped, blank ones are dropped, and the rest is joined by newlines. Instructions are a paragraph in front,
    and a role message if a conversation begins with it.

    Raises:
        TypeError: The messages, one of them, or the instructions have the wrong type.
        ValueError: There are none, one lacks its role or content or holds a part that can't be sent, or the user said
            nothing.
    """
    text = _last_user_turn(_turns(messages))
    return prompt_text(text, system, is_new=is_new)


def _transcript(turns: List[_Turn]) -> PromptText:
    if len(turns) == 1:
        text = turns[0][1]
    else:
        lines = [f"{role.capitalize()}: {content}" for role, content, _ in turns if content.strip()]
        text = "\n".join([*lines, "Assistant:"]) if lines else ""
    return _with_attachments(text, turns, "the messages hold no text")


def _last_user_turn(turns: List[_Turn]) -> PromptText:
    run: List[_Turn] = []
    for turn in reversed(turns):
        if turn[0] == "user":
            run.append(turn)
        elif run:
            break
    run.reverse()
    texts = [content.strip() for _, content, _ in run]
    return _with_attachments("\n".join(filter(None, texts)), run, "the messages hold no text of the user's to send")


def _with_attachments(text: str, turns: List[_Turn], complaint: str) -> PromptText:
    """Return a text with the attachments of some turns.

    Raises:
        ValueError: The text is blank, and the service refuses a message without text.
    """
    attached = [attachments for _, _, attachments in turns if attachments is not NO_ATTACHMENTS]
    if not text.strip():
        raise ValueError(f"{complaint}, and images and files can't be sent alone" if attached else complaint)
    references = itertools.chain.from_iterable(one.references for one in attached)
    media = itertools.chain.from_iterable(one.media for one in attached)
    return PromptText(text).attach(Attachments(tuple(references), tuple(media)))


def _checked_text(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise TypeError(f"a prompt must be a string or a list of messages, not {type(prompt).__name__}")
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    return check_text("the prompt", prompt)


def checked_system(system: object) -> str:
    """Check instructions, and return them; ``""`` for none or blank ones.

    Raises:
        TypeError: They are not a string.
        ValueError: They are not valid Unicode.
    """
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


def _turn(number: int, message: object) -> _Turn:
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
    return (role, *read_content(number, message["content"]))
