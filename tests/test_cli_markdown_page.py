"""Markdown on a narrow terminal: all of it is there."""

import io
import os
from collections import Counter
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_sync.cli.markdown_page import Renderer


def page(text: str, columns: int) -> List[str]:
    """The lines of a text that is drawn without colours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Renderer, "measure", lambda renderer: os.terminal_size((columns, 24)))
        drawn = Renderer(io.StringIO(), False).markdown(text)
    for code in ("0", "1", "1;2", "1;4", "2", "3", "4"):
        drawn = drawn.replace(f"\x1b[{code}m", "")
    return drawn.rstrip("\n").split("\n")


@pytest.mark.parametrize(
    "text, lines",
    [
        ("# One two three\n\n## Four five six\n", ["One two", "three", "", "Four five", "six"]),
        ("- [ ] one\n- [x] two\n- [X] 3\n- [y] 4\n", [" • ☐ one", " • ☑ two", " • ☑ 3", " • [y] 4"]),
        ("1. [x] one", [" 1 ☑ one"]),
        ("[ ] no task", ["[ ] no task"]),
        ("<http://a.b>", ["http://a.b"]),
        ("[a](/b)", ["a (/b)"]),
        ("![a](/b)", ["a (/b)"]),
        ("![](/b)", ["image (/b)"]),
        ("[![a](/b)](/c)", ["a (/b) (/c)"]),
        ("[a][1]\n\n[1]: http://b.c\n", ["[a][1]", "", "[1]:", "http://b.c"]),
        ("[a](http://b.example/c/d)", ["a", "(http://b.ex", "ample/c/d)"]),
        ("|A|B|\n|-|-|\n|1|two words|\n|2| |\n", ["A: 1", "B: two words", "", "A: 2", "B:"]),
        ("|One word|Another|\n|-|-|\n", ["One word", "Another"]),
        ("> > > > one", ["> > > > one"]),
    ],
)
def test_twelve_columns_are_enough(text: str, lines: List[str]) -> None:
    """Headings at the left, boxes for tasks, each target once, and cells below each other if they don't fit."""
    assert [line.strip() if "•" not in line and "☑" not in line else line for line in page(text, 12)] == lines


def test_a_table_stays_one_if_its_cells_can_be_wrapped() -> None:
    """On each line as much of a word as fits."""
    lines = page("|A|B|\n|-|-|\n|abcdefghijklmnop|x|\n", 16)
    assert lines[1].split() == ["A", "B"]
    assert "".join("".join(line.split()) for line in lines[3:]).replace("x", "") == "abcdefghijklmnop"


#: § stands for a word, ¶ for an address.
BLOCKS = [
    "# §",
    "## § §",
    "§",
    "§ § **§**",
    "- §\n  - §\n    1. §",
    "- [ ] §",
    "> > > > > > > > §",
    "* * * * * * * * * §",
    "1000000. §",
    "[§](/¶)",
    "![§](/¶)",
    "[§]: /¶",
    "| § | § |\n|-|-|\n| § | [§](/¶) |",
    "| § | § | § | § | § | § |\n|-|-|-|-|-|-|\n| § | § | § | § | § | § |",
    "> | § |\n> |-|\n> | § |",
    "```\n§\n§\n```",
]


@given(st.data(), st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3), st.sampled_from([5, 12, 20, 80]))
def test_nothing_is_lost_on_any_terminal(data: st.DataObject, blocks: List[str], columns: int) -> None:
    """Each letter of an answer is on the screen, once, and no line is longer than it is wide."""
    text = "\n\n".join(blocks)
    for mark, alphabet in (("§", "abcé漢"), ("¶", "abc")):
        while mark in text:
            text = text.replace(mark, data.draw(st.text(alphabet, min_size=1, max_size=30)), 1)
    lines = page(text, columns)
    letters = [Counter(filter(str.isalpha, each)) for each in (text, "".join(lines))]
    assert letters[0] == letters[1]
    assert max(map(len, lines)) <= columns
