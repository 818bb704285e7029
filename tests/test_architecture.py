"""docs/architecture.rst is a promise: every file that it names exists, and every room of the package is in it."""

import re
from pathlib import Path
from typing import Iterator, Set

import copilot_sync

PAGE = Path(__file__).parents[1].joinpath("docs", "architecture.rst").read_text(encoding="utf-8")
PACKAGE = Path(copilot_sync.__file__).parent


def _named_files() -> Iterator[Path]:
    """The files and folders of the table; an entry with a dash is in the folder before it."""
    folder = PACKAGE
    for first in re.findall(r"^(``.*?) {2,}|^(``[\w/]+``)$", PAGE, re.MULTILINE):
        for dash, name in re.findall(r"``(- )?([\w./]+)``", "".join(first)):
            path = (folder if dash or folder.name in name else PACKAGE) / name
            if name.endswith("/"):
                folder = path
            elif not name.endswith(".py"):
                path = (folder if "/" not in name else PACKAGE) / f"{name}.py"
            yield path


def test_every_file_that_is_named_exists() -> None:
    """And the table has some fifty of them."""
    named = list(_named_files())
    assert [str(path.relative_to(PACKAGE)) for path in named if not path.exists()] == []
    assert len(named) >= 50


def test_every_room_is_in_the_picture() -> None:
    """The folders and the modules that people use."""
    rooms: Set[str] = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert [room for room in sorted(rooms) if f"{room}/" not in PAGE] == []


def test_it_is_short() -> None:
    """It is read before anything else."""
    assert len(PAGE.splitlines()) <= 120
