"""Text of the service's on its way to a terminal, which obeys some characters instead of showing them."""

from typing import Dict, Optional

#: Control characters of both sets but for tab and newline, and what embeds, overrides or isolates a direction. A
#: carriage return could overwrite its line and is dropped.
_CONTROLS: Dict[int, Optional[str]] = {
    **{code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"},
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\N{REPLACEMENT CHARACTER}"),
    ord("\r"): None,
}


def printable(text: str) -> str:
    """Take out of a text what a terminal would obey instead of showing it."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """Make one line of a name, an id or a message, with nothing in it that is not seen.

    Blanks of all kinds become one space. What is not printed, such as control characters, what turns the direction and
    what has no width, is shown as U+FFFD.
    """
    shown = (character if character.isprintable() else _stand_in(character) for character in text)
    return " ".join("".join(shown).split())


def _stand_in(character: str) -> str:
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
