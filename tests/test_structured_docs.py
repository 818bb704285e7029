"""docs/structured.rst is a promise: its Python runs, and its numbers and names are those of the code."""

import builtins
import re
from pathlib import Path

import pytest
from blocks import DOCS, Block, blocks_of, name_of, type_block

import copilot_sync
from copilot_sync.emulator import Emulator, Reply
from copilot_sync.safe_text import DEEPEST
from copilot_sync.structured import MOST_WORDS, REPAIRS

PAGE = (DOCS / "structured.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", blocks_of(DOCS / "structured.rst", "python"), ids=name_of)
def test_each_python_block_runs(block: Block, served: Emulator, tmp_path: Path) -> None:
    """With nothing but the environment set, and a service that answers well."""
    served.reply = Reply('{"name": "Ada Lovelace", "born": 1815}')
    assert "Ada Lovelace" in type_block(block, tmp_path)


def test_the_numbers_are_those_of_the_code() -> None:
    """Repairs, the length of problems, and the depth of documents."""
    words = " ".join(PAGE.split())
    assert f"{REPAIRS} times by default, so a call sends at most {REPAIRS + 1} messages" in words
    assert f"{MOST_WORDS:,} characters" in words
    assert f"deeper than {DEEPEST} levels" in words


def test_the_errors_are_public() -> None:
    """Those of the table can be imported."""
    names = re.findall(r"^``(\w+)``  +", PAGE, re.MULTILINE)
    assert "InvalidAnswerError" in names
    for name in names:
        assert hasattr(copilot_sync, name) or hasattr(builtins, name)
