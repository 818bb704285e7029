"""What goes to stdout, to a terminal and to a pipe."""

import json
import logging
import sys
from typing import Any, List

import pytest
from support import FORGERIES, Sink
from terminals import OwnTerminal

from copilot_sync.cli import output


@pytest.mark.parametrize("raw", [True, False])
def test_a_pipe_gets_every_character(raw: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """As it came, and a newline at its end where there is none."""
    output.show_answer(["\x1b[31m# ", "", "red\r"], raw)
    output.show_answer(["line\n", ""], raw)
    output.show_answer([], raw)
    assert capsys.readouterr().out == "\x1b[31m# red\r\nline\n"


def test_raw_text_in_a_terminal_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--raw`` shows Markdown as it is, and still nothing that the terminal would obey."""
    with OwnTerminal() as terminal:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal.file)
            output.show_answer(["# *a", "*\n\x1b]52;c;eA==\x07", "\x9b2J"], raw=True)
        assert terminal.finish() == ["# *a*", "\ufffd]52;c;eA==\ufffd\ufffd2J"]
    assert b"\x1b" not in terminal.seen


def test_markdown_is_drawn_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless raw text is asked for; and not where the terminal is dumb."""
    lines: List[List[str]] = []
    for term in ("xterm", "dumb"):
        with OwnTerminal() as terminal:
            with monkeypatch.context() as patch:
                patch.setenv("TERM", term)
                patch.setattr(sys, "stdout", terminal.file)
                output.show_answer(["**bold**"], raw=False)
            lines.append(terminal.finish())
    assert lines == [["bold"], ["**bold**"]]


def test_warnings_come_after_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, on stderr; what is less than a warning stays out, and afterwards all is as it was."""
    logger = logging.getLogger("copilot_sync.stream")

    def pieces() -> Any:
        yield "one"
        for _ in range(2):
            logger.warning("an event was %s", "skipped")
        logger.info("nothing to see")
        assert capsys.readouterr().err == ""
        yield " two"

    output.show_answer(pieces(), raw=False)
    assert capsys.readouterr() == (" two\n", "copilot-sync: an event was skipped\n")
    assert logging.getLogger("copilot_sync").handlers == []


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_survives_every_stdout(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads back as the same value, whatever the encoding, and holds nothing that a terminal obeys."""
    value = {"text": "é🙂\x1b[31m\x9b2J\x7f\ud800\n"}
    sink = Sink(encoding)
    monkeypatch.setattr(sys, "stdout", sink)
    output.show_json(value)
    written = sink.written()
    assert json.loads(written.decode(encoding)) == value
    assert written.count(b"\n") == 1
    assert all(character >= " " and not "\x7f" <= character < "\xa0" for character in written.decode(encoding)[:-1])
    assert ("é".encode() in written) is (encoding == "utf-8")


def test_a_table_is_aligned_in_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program gets tabs and no headings. No cell breaks a line or a column, whatever it holds."""
    rows = [("1", "one\ttwo\nthree\x1b[2J"), ("22", "")]
    output.show_table(("ID", "NAME"), rows)
    assert capsys.readouterr().out == "1\tone two three\ufffd[2J\n22\t\n"
    sink = Sink("utf-8", terminal=True)
    monkeypatch.setattr(sys, "stdout", sink)
    output.show_table(("ID", "NAME"), rows)
    assert sink.written().decode() == "ID  NAME\n1   one two three\ufffd[2J\n22\n"


def test_a_table_may_be_cut_where_the_line_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal: a program gets all of it."""
    sink = Sink("utf-8", terminal=True)
    monkeypatch.setattr(sys, "stdout", sink)
    output.show_table(("ID", "NAME"), [("1", "x" * 100), ("2", "y")], cuts=True)
    heading, first, second = sink.written().decode().splitlines()
    assert (heading, second) == ("ID  NAME", "2   y")
    assert first == f"1   {'x' * 75}…"


def test_a_heading_is_bold_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing but text elsewhere."""
    output.show_heading("user\x07:")
    assert capsys.readouterr().out == "user\x07:\n"
    monkeypatch.setenv("TERM", "xterm")
    sink = Sink("utf-8", terminal=True)
    monkeypatch.setattr(sys, "stdout", sink)
    output.show_heading("user\x07:")
    assert sink.written().decode() == "\x1b[1muser\ufffd:\x1b[0m\n"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_a_cell_stays_in_its_place(
    text: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a person and for a program."""
    monkeypatch.setattr(output, "is_terminal", lambda stream: terminal)
    output.show_table(("ID", "NAME"), [(f"1{text}", text), ("2", "x")])
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == (4 if terminal else 3)
    assert all(line.replace("\t", "").isprintable() for line in lines)
    assert [line.count("\t") for line in lines[:-1]] == ([0] * 3 if terminal else [1] * 2)


@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_json_shows_nothing_that_is_not_seen(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is escaped, and read back as it was."""
    output.show_json({"name": text})
    line = capsys.readouterr().out
    assert line[:-1].isprintable()
    assert json.loads(line) == {"name": text}
