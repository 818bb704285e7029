"""docs/structured.rst is a promise: its Python runs, and its numbers and names are those of the code."""

import builtins
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import copilot_sync
from copilot_sync.emulator import Emulator, Reply
from copilot_sync.safe_text import DEEPEST
from copilot_sync.structured import MOST_WORDS, REPAIRS

PAGE = Path(__file__).parents[1].joinpath("docs", "structured.rst").read_text(encoding="utf-8")
PROGRAMS = [
    textwrap.dedent(block).strip()
    for block in re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", PAGE, re.MULTILINE)
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.splitlines()[-1][:40])
def test_each_python_block_runs(program: str, served: Emulator) -> None:
    """With nothing but the environment set, and a service that answers well."""
    served.reply = Reply('{"name": "Ada Lovelace", "born": 1815}')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = done.stdout.decode()
    assert (done.returncode, output if done.returncode else "") == (0, "")
    assert "Ada Lovelace" in output


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
