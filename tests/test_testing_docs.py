"""The tests that docs/testing.rst begins with pass. Those with recorders and mocks run in ``tests/engines``."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[1].joinpath("docs", "testing.rst").read_text(encoding="utf-8")
SECTION = PAGE.partition("With the emulator\n")[2].partition("With recorders and mocks\n")[0]


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """As they stand, each block in a file of its own, with no other settings."""
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", SECTION, re.MULTILINE)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        (tmp_path / f"test_page_{number}.py").write_text(textwrap.dedent(block), encoding="utf-8")
    plugins = ["-p", "no:cacheprovider", "-p", "no:langsmith_plugin"]  # which LangChain brings: see tox.ini
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", *plugins, "--rootdir", str(tmp_path)],
        check=False,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout.decode() if done.returncode else "") == (0, "")
    assert b"3 passed" in done.stdout
