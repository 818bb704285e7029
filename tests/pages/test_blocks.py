"""Each block of code in the documentation runs as it stands, with nothing but the environment set.

Those in tabs and lists count too. A page is here unless a module of ``tests`` of its own runs its blocks, or types it
from the first line to the last. A block that can't run stands behind the comment ``.. not run: REASON``.
"""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import List, NamedTuple, Tuple

import pytest

from copilot_sync.auth.stored_logins import StoredLogin, store_login
from copilot_sync.emulator import Emulator
from copilot_sync.profiles import DEFAULT_PROFILE
from copilot_sync.secret import Secret

DOCS = Path(__file__).parents[2] / "docs"
#: Pages whose blocks other tests run.
_ELSEWHERE = {
    "batch",
    "celery",
    "chat_page",
    "cli",
    "contributing",
    "data",
    "deployment",
    "emulator",
    "examples",
    "gateway",
    "jupyter",
    "langchain",
    "limits",
    "messages",
    "observability",
    "protocol",
    "structured",
    "testing",
    "usage",
    "web",
}


class Block(NamedTuple):
    """A block of code: its page, language and text."""

    page: str
    language: str
    text: str


def _blocks(path: Path) -> List[Block]:
    found: List[Tuple[str, str, str, str]] = re.findall(
        r"((?:^ *\.\. not run: .*\n\n)?)^( *)\.\. code-block:: (python|sh)\n\n((?:(?:\2 {3,}.*)?\n)+)",
        path.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return [Block(path.stem, language, textwrap.dedent(text).strip()) for mark, _, language, text in found if not mark]


BLOCKS = [
    block
    for path in sorted(DOCS.glob("*.rst"))
    if path.stem not in _ELSEWHERE and not path.stem.startswith("lesson_")
    for block in _blocks(path)
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}: {block.text.splitlines()[-1][:40]}")
def test_each_block_runs(block: Block, served: Emulator, tmp_path: Path) -> None:
    """In an empty folder, with a login, and with the files that pages name."""
    for profile in (DEFAULT_PROFILE, "work"):
        store_login(profile, StoredLogin(Secret(dict(served.cookies)), served.github_url))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in (("copilot-sync", "-W error -m copilot_sync "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "app.py").write_text("x = 1\n")
    (tmp_path / "prompts.jsonl").write_text('{"id": "one", "prompt": "Hello"}\n')
    command = [sys.executable, "-W", "error", "-c"] if block.language == "python" else ["/bin/sh", "-e", "-x", "-c"]
    done = subprocess.run(
        [*command, block.text],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout.decode() if done.returncode else "") == (0, "")
