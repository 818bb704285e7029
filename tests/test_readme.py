"""README.rst and docs/usage.rst are promises: their Python runs, and their commands work."""

import html
import os
import re
from pathlib import Path

import pytest
from blocks import DOCS, Block, blocks_of, name_of, prepare, run_tests, text_with, texts_of, type_block
from terminals import Terminal

from copilot_sync.emulator import Emulator

HOME = Path(__file__).parents[1]
README = HOME.joinpath("README.rst").read_text(encoding="utf-8")
COMMANDS = texts_of(HOME / "README.rst", "sh")


PROGRAMS = [
    block
    for page in (HOME / "README.rst", DOCS / "usage.rst")
    for block in blocks_of(page, "python")
    if "def test_" not in block.text
]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("block", PROGRAMS, ids=name_of)
def test_each_python_block_runs(block: Block, tmp_path: Path) -> None:
    """What the pages show can be typed as it stands, with nothing but the environment set."""
    type_block(block, tmp_path)


def test_the_test_in_the_page_passes(tmp_path: Path) -> None:
    """pytest finds the fixture by itself: the test needs no import and no conftest."""
    block = text_with("def test_", DOCS / "usage.rst", "python")
    assert "1 passed" in run_tests([block], tmp_path)


def test_the_first_command_is_the_one_that_shows_an_answer() -> None:
    """The first command asks the emulator, the last runs the tests; another test runs what they start."""
    first, *_, last = COMMANDS
    assert first == 'python -m pip install ".[cli]" && copilot-sync ask --emulator "Explain WSGI in one line"'
    assert last == "python -m pip install tox && python -m tox"


def test_the_picture_of_the_terminal_is_what_the_first_command_shows(tmp_path: Path) -> None:
    """Drawn by this test; ``PICTURES`` names the folder for the one that is kept."""
    question = "Explain WSGI in one line"
    with Terminal("ask", "--emulator", question, environment={"COLORTERM": ""}, rows=30, columns=84) as terminal:
        assert terminal.status() == 0
        image = terminal.picture()
    file = Path(os.environ.get("PICTURES", tmp_path)) / "terminal.svg"
    file.write_text(image, encoding="utf-8")
    kept = _words(HOME.joinpath("docs", "images", "terminal.svg").read_text(encoding="utf-8"))
    assert _words(image) == kept
    assert "Thisisademo." in kept
    assert len(image) < 50_000
    assert re.findall(r"https?://[^\s\"]*", image) == ["http://www.w3.org/2000/svg"]


def _words(image: str) -> str:
    """Return the text of a picture, without blanks and lines, which releases of rich draw in other ways."""
    text = html.unescape("".join(re.findall(r"<text[^>]*>([^<]*)</text>", image)))
    return re.sub(r"[\s\u2500-\u257f]+", "", text)


def test_the_first_page_is_short() -> None:
    """And each page that it links to exists."""
    assert len(README.splitlines()) <= 150
    links = re.findall(r"<([\w/.]+)>`_", README)
    assert {"docs/usage.rst", "docs/credentials.rst", "docs/errors.rst", "docs/timeouts.rst"} <= set(links)
    assert [link for link in links if not (HOME / link).exists()] == []


def test_the_commands_run(served: Emulator, tmp_path: Path) -> None:
    """What README types can be typed, one line after the other, in a folder with the files that it names."""
    prepare(tmp_path, served)
    lines = [line for text in COMMANDS[1:] for line in text.splitlines() if "copilot-sync" in line]
    type_block(Block("README", 0, "sh", "\n".join(lines)), tmp_path)
    assert len(lines) == 7
    assert len(served.threads) == 4
