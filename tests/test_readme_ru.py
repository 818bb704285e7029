"""README.ru.rst is README.rst in Russian: the same sections, code, pictures and links, in the same order."""

import re
from pathlib import Path
from typing import List

import pytest
from blocks import blocks_of

HOME = Path(__file__).parents[1]
ENGLISH = HOME.joinpath("README.rst").read_text(encoding="utf-8")
RUSSIAN = HOME.joinpath("README.ru.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"^\.\. image:: .*$", id="pictures"),
        pytest.param(r"<((?!README)[\w/.]+)>`_", id="links"),
        pytest.param(r"^.+\n([=-])\1+$", id="sections"),
    ],
)
def test_both_pages_have_the_same(pattern: str) -> None:
    """What is no prose is letter by letter in the other page."""
    english = re.findall(pattern, ENGLISH, re.MULTILINE)
    assert len(english) > 1
    assert re.findall(pattern, RUSSIAN, re.MULTILINE) == english


def test_both_pages_have_the_same_blocks() -> None:
    """A block that runs in one page is letter by letter in the other."""
    english, russian = ([block[2:] for block in blocks_of(HOME / name)] for name in ("README.rst", "README.ru.rst"))
    assert len(english) > 1
    assert russian == english


def test_both_pages_name_the_same_code() -> None:
    """What stands in double backticks is the same, but for the command that builds the documentation in Russian."""
    russian = _prose_code(RUSSIAN)
    russian.remove("``python -m tox -e docs``")
    assert sorted(russian) == sorted(_prose_code(ENGLISH))


def _prose_code(page: str) -> List[str]:
    return re.findall(r"``[^`]+``", page)


def test_each_page_begins_with_a_link_to_the_other() -> None:
    """Whoever opens the wrong one is one click away."""
    assert "\n\n`По-русски <README.ru.rst>`_\n\n" in ENGLISH[:80]
    assert "\n\n`In English <README.rst>`_\n\n" in RUSSIAN[:80]
