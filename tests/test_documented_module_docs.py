"""docs/documented_module.rst has the signature, the attributes and the options of the class."""

import inspect
import itertools
import re
from pathlib import Path
from typing import List

import pytest

from copilot_sync import GithubCopilot, provider

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS.joinpath("documented_module.rst").read_text(encoding="utf-8")
PARAMETERS = list(inspect.signature(GithubCopilot.create_async_generator).parameters.values())


def _table(first: str) -> List[List[str]]:
    """The cells of each row of the table whose head begins with a word; lines that go on are joined."""
    lines = PAGE.splitlines()
    head = next(number for number, line in enumerate(lines) if line.split("  ")[0] == first)
    edges = [(match.start(), match.end()) for match in re.finditer("=+", lines[head - 1])]
    rows: List[List[str]] = []
    for line in itertools.takewhile(lambda line: not line.startswith("="), lines[head + 2 :]):
        cells = [line[start : None if end == edges[-1][1] else end].strip() for start, end in edges]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [f"{before} {cell}".strip() for before, cell in zip(rows[-1], cells)]
    return rows


def test_the_signature_is_that_of_the_class() -> None:
    """Each parameter in its order, with its default, on a line of its own."""
    (shown,) = re.findall(r"async def create_async_generator\(\n(.*?)\n    \) ->", PAGE, re.DOTALL)
    lines = [line.strip().rstrip(",") for line in shown.splitlines()]
    expected = [
        f"{each}".replace("'", "").replace("Optional[", "").replace("copilot_sync.models.", "") for each in PARAMETERS
    ]
    assert [line.split(":")[0] for line in lines] == [line.split(":")[0] for line in expected]
    assert [line.partition("=")[2] for line in lines] == [line.partition("=")[2] for line in expected]


def test_the_table_has_each_parameter_with_its_default() -> None:
    """In the order of the signature."""
    rows = _table("parameter")
    assert [row[0].strip("`") for row in rows] == [f"{each}".split(":")[0] for each in PARAMETERS]
    for row, parameter in zip(rows, PARAMETERS):
        default = "required" if parameter.default is parameter.empty else f"``{parameter.default!r}``"
        assert row[2] == ("" if parameter.kind is parameter.VAR_KEYWORD else default)


def test_the_table_has_each_option() -> None:
    """None that is ignored, and none is left out."""
    named = {name for row in _table("option") for name in re.findall(r"``(\w+)``", row[0])}
    known = {*provider._CALL_OPTIONS, *provider._CLIENT_OPTIONS, "system"}
    assert named == known - {each.name for each in PARAMETERS}


@pytest.mark.parametrize("row", _table("attribute"), ids=lambda row: row[0].strip("`"))
def test_the_attributes_have_these_values(row: List[str]) -> None:
    """As documented."""
    name, value = (cell.strip("`") for cell in row[:2])
    shown = repr(getattr(GithubCopilot, name)).replace("'", '"')
    assert shown == value


def test_there_are_twelve_steps() -> None:
    """As the page says."""
    section = PAGE.partition("What happens in a call")[2].partition("Examples\n--------")[0]
    assert re.findall(r"^(\d+)\. \*\*", section, re.MULTILINE) == [str(number) for number in range(1, 13)]
