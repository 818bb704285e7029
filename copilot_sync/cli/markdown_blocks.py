"""A growing Markdown text, cut into the blocks that are finished and the one that is still being written.

A finished block can be drawn once and for all; only the last one changes with each piece. Where a block ends is for
Markdown's own parser to say, and it is asked about whole lines alone: what half a line will be nobody knows (``#`` may
become a heading or ``#include``).
"""

from typing import Any, List

from markdown_it import MarkdownIt
from markdown_it.token import Token

#: Brackets of a text in which a link is looked for: each may take as long as a hundred words. Those after are shown.
_MOST_BRACKETS = 2_000


def _read_inline(state: Any) -> None:
    """Read the text inside of blocks, and leave the rest as it is once there were too many brackets."""
    brackets = 0
    for token in state.tokens:
        if token.type == "inline":
            brackets += token.content.count("[")
            token.children = []
            if brackets <= _MOST_BRACKETS:
                state.md.inline.parse(token.content, state.md, state.env, token.children)
            else:
                token.children.append(Token("text", "", 0, content=token.content))


#: Headings to tables as chat pages show them. HTML is text: a ``<name>`` in an answer is meant to be read.
PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])

PARSER.core.ruler.at("inline", _read_inline)

#: Which blocks there are can be told without looking into them.
_OUTLINE = MarkdownIt("commonmark", {"html": False}).enable("table").disable("inline")
#: Characters from which on a block is looked at only when it has grown by a part, so that a long one stays linear.
_SMALL = 4096
_PART = 8


class Blocks:
    """Takes pieces of text, gives finished blocks. For one thread."""

    def __init__(self) -> None:
        self._pieces: List[str] = []
        self._size = 0
        self._next_look = 0

    @property
    def tail(self) -> str:
        """The text that is not finished yet."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def add(self, piece: str) -> str:
        """Take a piece.

        Returns:
            The text of the blocks that are finished with it, often ``""``.
        """
        self._pieces.append(piece)
        self._size += len(piece)
        if "\n" not in piece or self._size < self._next_look:
            return ""
        text = self.tail
        end = _end_of_finished(text)
        self._pieces, self._size = [text[end:]], len(text) - end
        self._next_look = 0 if self._size < _SMALL else self._size + self._size // _PART
        return text[:end]


def _end_of_finished(text: str) -> int:
    """Where the last block of a text begins: all before it can't change any more."""
    whole = text[: text.rfind("\n") + 1]
    starts = [token.map[0] for token in _OUTLINE.parse(whole) if token.level == 0 and token.map]
    if len(starts) < 2:
        return 0
    return sum(len(line) + 1 for line in whole.split("\n")[: starts[-1]])
