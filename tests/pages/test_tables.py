"""The tables of the pages are as their authors meant them: a simple table of reStructuredText tears rows in silence."""

import re
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.rst"))
#: Rows that have a first cell alone: the folders of the package, above their files.
ALONE = re.compile(r"``\w+/``")


def _tables(text: str) -> Iterator[Tuple[List[int], List[str], List[str]]]:
    """Yield where the columns of each table begin, the lines of its heading, if it has one, and those of its body."""
    parts: List[List[str]] = []
    for line, following in zip(text.splitlines(), [*text.splitlines()[1:], ""]):
        if re.fullmatch(r" *=+(  +=+)+ *", line):
            parts.append([line])
            if len(parts) > 1 and not following.strip():
                columns = [rule.start() for rule in re.finditer("=+", parts[0][0])]
                yield columns, [] if len(parts) == 2 else parts[0][1:], parts[-2][1:]
                parts = []
        elif parts:
            parts[-1].append(line)


def _torn(text: str) -> Iterator[str]:
    for columns, heading, body in _tables(text):
        yield from (line for line in heading[:1] if not line[columns[0] : columns[1]].strip())
        for line in body:
            first, rest = line[columns[0] : columns[1]].strip(), line[columns[1] :].strip()
            if first and not rest and not ALONE.fullmatch(first):
                yield line


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_no_row_of_a_table_is_torn(page: Path) -> None:
    """Each line with text in its first column is a row of its own, so none is the rest of the row above."""
    assert list(_torn(page.read_text(encoding="utf-8"))) == []


def test_a_torn_row_is_seen() -> None:
    """The rest of a first cell, and a heading whose first cell is empty, are found."""
    table = "====  ====\n      what\n====  ====\none   that\nmore\nthe   rest\n====  ====\n"
    assert list(_torn(table)) == ["      what", "more"]
