"""A growing Markdown text and its finished blocks."""

from typing import List

import pytest
from command_line import MARKDOWN
from hypothesis import given
from hypothesis import strategies as st

from copilot_sync.cli import markdown_blocks
from copilot_sync.cli.markdown_blocks import PARSER, BlockSplitter


def cut(text: str, blocks: BlockSplitter, pieces: List[str]) -> List[str]:
    """The chunks that a text falls into, the unfinished one last."""
    finished = [blocks.add(piece) for piece in pieces]
    return [*filter(None, finished), blocks.tail]


def outline(text: str) -> List[str]:
    return [token.type for token in PARSER.parse(text)]


@given(st.lists(MARKDOWN, max_size=40))
def test_blocks_that_are_finished_never_change(parts: List[str]) -> None:
    """However the text comes: its chunks make the whole text, and each by itself is what it is in the whole."""
    text = "".join(parts)
    for pieces in (parts, list(text), [text]):
        chunks = cut(text, BlockSplitter(), pieces)
        assert "".join(chunks) == text
        assert [kind for chunk in chunks for kind in outline(chunk)] == outline(text)


@pytest.mark.parametrize(
    "pieces, finished",
    [
        (["one", "\n\n", "two"], []),
        (["one\n\ntwo", "\n"], ["one\n\n"]),
        (["para\n#", "include <x>\n"], []),
        (["para\n# heading\n"], ["para\n"]),
        (["- a\n\n", "  b\n\n", "- c\n\n", "end\n"], ["- a\n\n  b\n\n- c\n\n"]),
        (["```\n\n# no heading\n\n", "```\n", "x\n"], ["```\n\n# no heading\n\n```\n"]),
        (["|a|\n|-|\n|1|\n", "\n", "x\n"], ["|a|\n|-|\n|1|\n\n"]),
        (["title\n", "===\n", "x\n"], ["title\n===\n"]),
    ],
)
def test_a_block_is_finished_when_the_next_one_has_begun(pieces: List[str], finished: List[str]) -> None:
    """Not before, and half a line begins nothing."""
    blocks = BlockSplitter()
    assert [*filter(None, (blocks.add(piece) for piece in pieces))] == finished
    assert "".join(finished) + blocks.tail == "".join(pieces)


def test_a_long_block_stays_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of 20,000 lines, line by line, is not parsed anew for each of them."""
    look, looked_at = markdown_blocks._end_of_finished, []

    def counted(text: str) -> int:
        looked_at.append(len(text))
        return look(text)

    monkeypatch.setattr(markdown_blocks, "_end_of_finished", counted)
    blocks = BlockSplitter()
    blocks.add("```\n")
    for number in range(20_000):
        blocks.add(f"line {number}\n")
    assert len(blocks.tail) > 200_000
    assert sum(looked_at) < 20 * len(blocks.tail)
