"""What goes to the clipboard of a terminal."""

import sys
from base64 import b64decode

import pytest
from terminals import OwnTerminal

from copilot_sync.cli.clipboard import LONGEST, copy_to_clipboard


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_terminal_gets_the_whole_text(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded, so that nothing in it can talk to the terminal; it is stderr if stdout goes elsewhere."""
    monkeypatch.setenv("TERM", "xterm")
    for text in ("é\n\x1b]0;title\x07", "x" * LONGEST, "lone \udcff"):
        with OwnTerminal() as terminal:
            with monkeypatch.context() as patch:
                patch.setattr(sys, stream, terminal.file)
                assert "was sent to the clipboard" in copy_to_clipboard(text)
            terminal.finish()
        assert terminal.seen.startswith(b"\x1b]52;c;")
        assert terminal.seen.endswith(b"\x07")
        assert b64decode(terminal.seen[7:-1]).decode() == text.replace("\udcff", "\ufffd")


def test_what_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it would be of no use."""
    monkeypatch.setenv("TERM", "xterm")
    with OwnTerminal() as terminal:
        monkeypatch.setattr(sys, "stdout", terminal.file)
        assert "too long" in copy_to_clipboard("é" * (LONGEST // 2 + 1))
        assert terminal.finish() == [""]


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_without_a_terminal_there_is_no_clipboard(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe gets nothing of it, nor does a terminal without control sequences."""
    monkeypatch.setenv("TERM", kind)
    with OwnTerminal() as terminal:
        if kind == "dumb":
            monkeypatch.setattr(sys, "stdout", terminal.file)
        assert "no terminal" in copy_to_clipboard("text")
        assert terminal.finish() == [""]
    assert capsys.readouterr() == ("", "")
