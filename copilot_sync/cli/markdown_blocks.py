"""Splits a growing Markdown text into finished blocks and the one that is still being written.

A finished block never changes again; only the last one changes with each piece. Markdown's own parser finds the end of
a block. It gets complete lines only, because half a line may still become anything: ``#`` may become a heading or
``#include``.
"""

import re
from typing import Any, Iterator, List, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

#: Brackets of a text in which to look for links: each may cost as much as a hundred words. Later ones stay text.
_MOST_BRACKETS = 2_000


def _read_inline(state: Any) -> None:
    """Parse the text inside of blocks. After too many brackets, leave the rest as it is."""
    brackets = 0
    for token in state.tokens:
        if token.type == "inline":
            brackets += token.content.count("[")
            token.children = []
            if brackets <= _MOST_BRACKETS:
                state.md.inline.parse(token.content, state.md, state.env, token.children)
            else:
                token.children.append(Token("text", "", 0, content=token.content))


def _mark_tasks(state: Any) -> None:
    """Make boxes of ``[ ]`` and ``[x]`` at the beginning of list items."""
    for before, token in zip(state.tokens, state.tokens[2:]):
        mark = _TASK.match(token.content) if before.type == "list_item_open" and token.type == "inline" else None
        if mark:
            text = token.children[0]
            text.content = f"{'☐' if mark.group(1) == ' ' else '☑'} {text.content[len(mark.group()) :]}"


def _show_targets(state: Any) -> None:
    """Make links of images, and text of links that are their own text. Then each target is shown, and once."""
    for token in state.tokens:
        if token.children:
            token.children = list(_with_targets(token.children))


def _with_targets(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        if token.type == "image":
            yield Token("link_open", "a", 1, attrs={"href": token.attrs["src"]})
            yield Token("text", "", 0, content=token.content or "image")
            yield Token("link_close", "a", -1)
        elif token.markup != "autolink":
            yield token


#: The beginning of an item that is a task.
_TASK = re.compile(r"\[([ xX])\] ")

#: Markdown as chat pages show it. HTML counts as text: a ``<name>`` in an answer is meant to be read. So do definitions
#: of links: if blocks are drawn one by one, they would be lost.
PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")

PARSER.core.ruler.at("inline", _read_inline)
PARSER.core.ruler.push("tasks", _mark_tasks)
PARSER.core.ruler.push("targets", _show_targets)

#: Finds the blocks without parsing the text inside of them.
_OUTLINE = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["inline", "reference"])
#: A block with more characters than this is parsed again only after it has grown by a fraction of its size, so that
#: the total time stays linear.
_ALWAYS_PARSED = 4096
#: That fraction is one over this.
_GROWTH_DIVISOR = 8


class BlockSplitter:
    """Takes pieces of text and returns finished blocks. For one thread."""

    def __init__(self) -> None:
        self._pieces: List[str] = []
        self._size = 0
        self._next_parse = 0

    @property
    def tail(self) -> str:
        """The block that is not finished yet."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def add(self, piece: str) -> str:
        """Add a piece.

        Returns:
            The text of the blocks that it finishes, often ``""``.
        """
        self._pieces.append(piece)
        self._size += len(piece)
        if "\n" not in piece or self._size < self._next_parse:
            return ""
        text = self.tail
        end = _end_of_finished(text)
        self._pieces, self._size = [text[end:]], len(text) - end
        self._next_parse = 0 if self._size < _ALWAYS_PARSED else self._size + self._size // _GROWTH_DIVISOR
        return text[:end]


def _end_of_finished(text: str) -> int:
    """Return where the last block of a text begins. Everything before it can't change any more."""
    whole = text[: text.rfind("\n") + 1]
    starts = [token.map[0] for token in _OUTLINE.parse(whole) if token.level == 0 and token.map]
    if len(starts) < 2:
        return 0
    return sum(len(line) + 1 for line in whole.split("\n")[: starts[-1]])
