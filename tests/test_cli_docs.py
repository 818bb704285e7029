"""docs/cli.rst is a promise: its help texts are the program's, and its tables name what there is."""

import re
from typing import Any, Tuple

import click
import pytest
from blocks import DOCS, texts_of
from command_line import ALL, each_command

from copilot_sync.cli import chat
from copilot_sync.cli.program import run

PAGE = (DOCS / "cli.rst").read_text(encoding="utf-8")
HELP_TEXTS = texts_of(DOCS / "cli.rst", "text")


@each_command
def test_the_page_holds_the_help_of_every_command(
    path: Tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word for word, as a terminal of 80 columns shows it."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*path, "--help"]) == 0
    assert capsys.readouterr().out.strip("\n") in HELP_TEXTS


def test_the_page_holds_no_other_help() -> None:
    """A command that is gone leaves nothing behind."""
    assert len(HELP_TEXTS) == len(ALL)


def test_the_page_explains_every_command_of_a_chat() -> None:
    """As ``/help`` does."""
    commands = set(re.findall(r"^(/\w+)", chat._HELP, re.MULTILINE))
    assert commands == set(re.findall(r"``(/\w+)[^`]*``  ", PAGE))
    assert f"{chat._LISTED} at most" in PAGE


def test_every_option_is_in_the_page() -> None:
    """By its long name."""
    options: Any = [each for command in ALL.values() for each in command.params if isinstance(each, click.Option)]
    assert [name for option in options for name in option.opts if name not in PAGE] == []
