"""What a stream can show: whether a person looks at it, and which characters, colours and movements it takes.

All of these only look, at a stream and at the environment. Text from the service that goes to a terminal passes
``copilot_sync.terminal_text`` first.
"""

import os
import sys
from typing import Optional, TextIO

_DUMB_TERMINALS = ("", "dumb", "unknown")


def is_terminal(stream: Optional[TextIO]) -> bool:
    """Whether a person looks at a stream."""
    return stream is not None and stream.isatty()


def is_utf8(stream: TextIO) -> bool:
    """Whether a stream takes every character."""
    return (getattr(stream, "encoding", None) or "").lower().replace("_", "-") in ("utf-8", "utf8")


def is_dumb() -> bool:
    """Whether the terminal does not claim to know control sequences. Windows Terminal claims it in its own way."""
    return os.environ.get("TERM", "") in _DUMB_TERMINALS and "WT_SESSION" not in os.environ


def size_of(stream: TextIO) -> "os.terminal_size":
    """Return the current columns and lines of a terminal; 80 and 24 if it does not know them."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        size = os.terminal_size((0, 0))
    return os.terminal_size((size.columns or 80, size.lines or 24))


def is_animated(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can redraw lines and show every character."""
    return is_terminal(stream) and not is_dumb() and is_utf8(stream)


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that may be coloured."""
    return is_terminal(stream) and not is_dumb() and not os.environ.get("NO_COLOR")


def editing_screen() -> Optional[TextIO]:
    """Return the terminal on which a line that is being typed can be redrawn; ``None`` if there is none.

    It is stderr if stdout goes elsewhere.
    """
    try:
        sys.stdin.fileno()
    except (OSError, ValueError):
        return None
    return None if is_dumb() else next(filter(is_terminal, (sys.stdout, sys.stderr)), None)
