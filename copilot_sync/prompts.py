"""Prompts: role messages and instructions become the one text that a message takes."""

from typing import Any, Iterable, List, Mapping, Tuple

from copilot_sync.safe_text import check_text, json_bytes


def format_prompt(messages: Iterable[Mapping[str, Any]]) -> str:
    """Render a whole transcript as the one string that a message takes.

    A single message is its content alone; several become ``Role: content`` lines, blank ones left out, closed
    by a line ``Assistant:``. Content that is ``None`` is blank.

    Raises:
        TypeError: The messages, or one of them, have the wrong type.
        ValueError: There are none, one lacks its role or content or holds a part that is no text, or all are blank.
    """
    turns = _turns(messages)
    if not any(content.strip() for _, content in turns):
        raise ValueError("the messages hold no text")
    if len(turns) == 1:
        return turns[0][1]
    lines = [f"{role.capitalize()}: {content}" for role, content in turns if content.strip()]
    return "\n".join([*lines, "Assistant:"])


def last_user_turn(messages: Iterable[Mapping[str, Any]]) -> str:
    """Take what the user said last: the last run of user messages, whatever stands behind it left out.

    Each is stripped, blank ones are dropped, and the rest is joined by newlines.

    Raises:
        TypeError: The messages, or one of them, have the wrong type.
        ValueError: There are none, one lacks its role or content or holds a part that is no text, or the user said
            nothing.
    """
    run: List[str] = []
    for role, content in reversed(_turns(messages)):
        if role == "user":
            run.append(content.strip())
        elif run:
            break
    text = "\n".join(content for content in reversed(run) if content)
    if not text:
        raise ValueError("the messages hold no text of the user's to send")
    return text


def check_prompt(prompt: object) -> str:
    """Check a prompt that is a single string.

    Raises:
        TypeError: It is not a string.
        ValueError: It is blank, or not valid Unicode.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"a prompt must be a string or a list of messages, not {type(prompt).__name__}")
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    return check_text("the prompt", prompt)


def _turns(messages: Iterable[Mapping[str, Any]]) -> List[Tuple[str, str]]:
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
