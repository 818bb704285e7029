"""docs/batch.rst is a promise: its formats, options, statuses and names are those of the code."""

import json
import re
from pathlib import Path
from typing import List

import click
import pytest
from blocks import DOCS, text_with, texts_of
from support import nothing_left_open

from copilot_sync import settings
from copilot_sync.batch import prompt_files
from copilot_sync.cli.batch import batch as command
from copilot_sync.emulator import Emulator
from copilot_sync.pacing import triage

PAGE = (DOCS / "batch.rst").read_text(encoding="utf-8")


def test_every_suffix_stands_beside_its_format() -> None:
    """And every format has a row."""
    rows = dict(re.findall(r"^``(\w+)`` +(\S.*?)   ", PAGE, re.MULTILINE))
    told = {suffix: form for form in prompt_files.FORMATS for suffix in re.findall(r"``(\.\w+)``", rows[form])}
    assert told == prompt_files._SUFFIXES


def test_every_option_that_is_named_exists() -> None:
    """By the names that it has on the command line."""
    options = {name for option in command.params for name in option.opts if isinstance(option, click.Option)}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= options


def test_figures_are_those_of_the_code() -> None:
    """What is waited for, and how long."""
    assert f"waited for, {settings.RECOVERY_TIMEOUT:.0f} seconds at most" in PAGE
    assert triage.LONGEST_WAIT == 3600
    assert "to wait for more than an hour" in PAGE


def test_the_examples_are_python() -> None:
    """What runs them is in other tests: they name files and servers that are not here."""
    blocks = texts_of(DOCS / "batch.rst", "python")
    assert len(blocks) == 5
    for block in blocks:
        compile(block, "docs/batch.rst", "exec")


def test_a_folder_of_files_is_asked_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each night the new ones alone, also if another text has changed. One that is too large fails alone."""
    block = text_with("pathlib", DOCS / "batch.rst", "python")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()

    def night() -> List[str]:
        exec(block, {})
        return sorted(line.partition(" ")[0] for line in capsys.readouterr().out.splitlines())

    with nothing_left_open(), Emulator() as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        (folder / "a.txt").write_text("one", encoding="utf-8")
        assert night() == ["a.txt"]
        (folder / "a.txt").write_text("another", encoding="utf-8")
        (folder / "b.txt").write_text("two", encoding="utf-8")
        (folder / "large.txt").write_text("x" * (1 << 20) + "x", encoding="utf-8")
        assert night() == ["b.txt", "large.txt"]
        assert night() == []
        files = [thread.user_messages[0]["references"] for thread in emulator.threads.values()]
    assert [[(file["name"], file["text"]) for file in each] for each in files] == [
        [("a.txt", "one")],
        [("b.txt", "two")],
    ]
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["id"]: (line["error"] or {}).get("type") for line in lines} == {
        "a.txt": None,
        "b.txt": None,
        "large.txt": "BadLineError",
    }
