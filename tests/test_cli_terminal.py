"""What a stream can show is read off the stream and the environment."""

import io
import os
import sys
from typing import Dict, Optional, Tuple

import pytest
from support import Sink
from terminals import OwnTerminal

from copilot_sync.cli.terminal import editing_screen, has_colours, is_animated, is_terminal, size_of


@pytest.mark.parametrize(
    "encoding, terminal, variables, animated, coloured",
    [
        ("utf-8", True, {}, True, True),
        ("UTF8", True, {}, True, True),
        ("utf-8", False, {}, False, False),
        ("utf-8", True, {"TERM": "dumb"}, False, False),
        ("utf-8", True, {"TERM": "unknown"}, False, False),
        ("utf-8", True, {"TERM": ""}, False, False),
        ("utf-8", True, {"TERM": "", "WT_SESSION": "x"}, True, True),
        ("utf-8", True, {"NO_COLOR": "1"}, True, False),
        ("utf-8", True, {"NO_COLOR": ""}, True, True),
        ("latin-1", True, {}, False, True),
        ("ascii", True, {}, False, True),
    ],
)
def test_only_a_capable_terminal_is_drawn_on(
    encoding: str,
    terminal: bool,
    variables: Dict[str, str],
    animated: bool,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Drawing takes a terminal, control sequences and every character; colours a terminal and no NO_COLOR."""
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sink = Sink(encoding, terminal)
    assert (is_animated(sink), has_colours(sink)) == (animated, coloured)


@pytest.mark.parametrize("size, expected", [((12, 34), (34, 12)), ((0, 0), (80, 24))])
def test_a_terminal_has_a_size(size: Tuple[int, int], expected: Tuple[int, int]) -> None:
    """Or the usual one, if it does not know its own; what is no terminal has that as well."""
    with OwnTerminal(*size) as terminal:
        assert size_of(terminal.file) == expected
    assert size_of(Sink("utf-8")) == (80, 24)


def test_a_stream_that_is_missing_is_no_terminal() -> None:
    """Windows starts programs without any."""
    assert not is_terminal(None)


@pytest.mark.parametrize(
    "kind, stdin, stdout, stderr, expected",
    [
        ("xterm", True, True, True, "stdout"),
        ("xterm", True, False, True, "stderr"),
        ("xterm", True, False, False, None),
        ("xterm", False, True, True, None),
        ("dumb", True, True, True, None),
    ],
)
def test_a_line_can_be_edited_on_a_terminal(
    kind: str, stdin: bool, stdout: bool, stderr: bool, expected: Optional[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of stdout and stderr is one that can be redrawn, if the keys come from a real file."""
    monkeypatch.setenv("TERM", kind)
    with open(os.devnull) as device:
        monkeypatch.setattr(sys, "stdin", device if stdin else io.StringIO())
        for name, terminal in (("stdout", stdout), ("stderr", stderr)):
            monkeypatch.setattr(sys, name, Sink("utf-8", terminal))
        assert editing_screen() is (None if expected is None else getattr(sys, expected))
