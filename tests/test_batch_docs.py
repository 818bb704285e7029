"""docs/batch.rst is a promise: its formats, options, statuses and names are those of the code."""

import re

import click
from blocks import DOCS, texts_of

from copilot_sync import settings
from copilot_sync.batch import prompt_files
from copilot_sync.cli.batch import batch as command
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
    assert len(blocks) == 4
    for block in blocks:
        compile(block, "docs/batch.rst", "exec")
