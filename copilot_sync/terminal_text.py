"""Text from the service on its way to a terminal, which obeys some characters instead of showing them.

What comes from the service is never trusted with a terminal. Control characters could rewrite the screen or the
clipboard; those that turn the direction of writing could make a text show something else than it says. A terminal gets
U+FFFD in their place. A pipe or a file gets every character as it came.
"""

import unicodedata
from typing import Dict, Iterable, Optional, TextIO

#: Control characters of both sets except tab and newline, and all that embed, override or isolate a direction. A
#: carriage return could overwrite its line, and is dropped.
_CONTROLS: Dict[int, Optional[str]] = {
    **{code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"},
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\N{REPLACEMENT CHARACTER}"),
    ord("\r"): None,
}


def printable(text: str) -> str:
    """Replace the characters of a text that a terminal would obey instead of showing them."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """Turn a name, an id or a message into one line in which every character can be seen.

    White space of any kind becomes one space. Control characters, those that turn the direction and those without a
    width become U+FFFD. So no text can pass for another line, another cell or another question.
    """
    shown = (character if character.isprintable() else _substitute(character) for character in text)
    return " ".join("".join(shown).split())


def shortened(text: str, width: int) -> str:
    """Cut a text to so many columns of a terminal."""
    if columns_of(text) <= max(width, 0):
        return text
    end, left = 0, width - 1
    while columns_of(text[end]) <= left:
        left -= columns_of(text[end])
        end += 1
    return text[:end].rstrip() + "…"


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: none, one or two for each character."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def write_pieces(pieces: Iterable[str], file: TextIO) -> None:
    """Write the pieces of an answer while they come, and end the line even if the answer breaks off.

    Args:
        pieces: The answer. What it raises is raised after the line was ended.
        file: Where to write, such as ``sys.stdout``. If it is a terminal, it gets printable text.
    """
    is_terminal = file.isatty()
    last = "\n"
    try:
        for piece in pieces:
            file.write(printable(piece) if is_terminal else piece)
            file.flush()
            last = piece or last
    finally:
        if not last.endswith("\n"):
            file.write("\n")
            file.flush()


def _substitute(character: str) -> str:
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
