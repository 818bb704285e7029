"""Blocks of pages are found where a reader sees them, and what they print is compared with what stands behind them."""

from pathlib import Path
from typing import List

import pytest
from blocks import Block, blocks_of, name_of, run_tests, shows, text_with, texts_of, type_block

PAGE = """
Title
=====

.. code-block:: python
   :caption: one.py

   print(1)

       # not dedented

.. code-block:: text

    1

.. code-block:: text

    not printed by the block of text

- A list:

  .. code-block:: sh

      echo 2

.. code-block:: text

    another indent

.. code-block:: sh

    echo 3

Prose.

.. code-block:: text

    behind prose

.. not run: it would fail

.. code-block:: sh

    exit 1

.. not printed: it is a file

.. code-block:: text

    a file

.. code-block:: sh

    echo 5

.. not run: nobody asks an output for that
.. code-block:: json

    5

.. image:: five.png

Prose.

.. not run: nothing comes
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with blocks of all kinds."""
    path = tmp_path / "page.rst"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_an_output_is_right_behind_its_block(page: Path) -> None:
    """Without prose between, at the same indent, and unless a comment says that it is none."""
    blocks = blocks_of(page, "python", "sh")
    assert [(block.line, block.shown, block.is_not_run) for block in blocks] == [
        (5, "1", False),
        (22, None, False),
        (30, None, False),
        (42, None, True),
        (52, "5", False),
    ]
    assert [block.language for block in blocks_of(page)].count("text") == 5
    assert texts_of(page, "python") == ["print(1)\n\n    # not dedented"]
    assert text_with("exit", page, "sh") == "exit 1"
    assert name_of(blocks[1]) == "page: echo 2"


@pytest.mark.parametrize(
    ("shown", "output", "expected"),
    [
        ([], "anything\n", True),
        (["one", "two"], "one\ntwo\n", True),
        (["one"], "one\ntwo\n", False),
        (["two"], "one\ntwo\n", False),
        (["one", "three"], "one\ntwo\nthree\n", False),
        (["one", "…", "three"], "one\ntwo\n2\nthree\n", True),
        (["…", "three"], "three\n", True),
        (["it took … s"], "it took 0.1 s\n", True),
        (["it took … s"], "it took 0.1\ns\n", False),
    ],
)
def test_output_is_compared_line_by_line(shown: List[str], output: str, expected: bool) -> None:
    """Nothing may be missing on either side but what the page leaves out with an ellipsis."""
    assert shows(shown, output) is expected


def test_what_differs_from_run_to_run_is_not_compared(tmp_path: Path) -> None:
    """Hosts, dates, ids and seconds; all else is."""
    printed = """\
GET http://127.0.0.1:8123/threads/0f0f0f0f-1111-2222-3333-444444444444 after 0.123 s
2026-12-01 08:00:00,123 DEBUG: 127.0.0.1:1, 3 s"""
    shown = """\
GET https://github.com/threads/01234567-89ab-cdef-0123-456789abcdef after 12.5 s
2027-01-31 09:59:59,999 DEBUG: proxy.example:3128, 3 s"""
    block = Block("page", 7, "sh", f"cat <<E\n{printed}\nE", shown=shown)
    assert type_block(block, tmp_path) == f"{printed}\n"
    for old, new in (("3 s", "4 s"), ("GET", "PUT"), ("/threads", "/thread"), ("DEBUG", "…"), ("github.com", "x.com")):
        other = block._replace(shown=shown.replace(old, new))
        if new == "…":
            type_block(other, tmp_path)
        else:
            with pytest.raises(AssertionError, match=r"(?s)page.rst, line 7: the page shows.*and this came:.*GET"):
                type_block(other, tmp_path)


@pytest.mark.parametrize("language", ["python", "sh"])
def test_a_block_that_does_not_end_well_is_told_of(language: str, tmp_path: Path) -> None:
    """With all that it printed, errors included."""
    text = "import os\nos.write(2, b'words')\nos._exit(3)" if language == "python" else "echo words >&2\nexit 3"
    with pytest.raises(AssertionError, match="page.rst, line 7: the status is 3\n\nwords"):
        type_block(Block("page", 7, language, text), tmp_path)


def test_the_tests_of_a_page_are_run(tmp_path: Path) -> None:
    """Each text is a module; one that fails is told of."""
    good, bad = "def test_good():\n    pass", "def test_bad():\n    assert 1 == 2"
    assert "1 passed" in run_tests([good], tmp_path)
    with pytest.raises(AssertionError, match="(?s)pytest: the status is 1.*1 failed, 1 passed"):
        run_tests([good, bad], tmp_path)
