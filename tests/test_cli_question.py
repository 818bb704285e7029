"""The question: what is asked, put together from arguments, stdin, files and instructions."""

import io
import os
import sys
import threading
from pathlib import Path
from typing import Callable, List, Optional

import click
import pytest
from command_line import Keys

from copilot_sync.cli.question import read_attachments, read_question


@pytest.mark.parametrize(
    "words, stdin, question",
    [
        (["one", "question"], None, "one question"),
        (["Review this"], b"+ x = 1\n", "Review this\n\n+ x = 1\n"),
        (["-"], b"in \xc3\xa9", "in é"),
        ([], b"\xef\xbb\xbfin", "in"),
        (["a", "-"], b"b", "a\n\nb"),
        ([" "], b"b", "b"),
        (["a"], b" \n", "a"),
        (["a\udcffb"], None, "a\ufffdb"),
    ],
    ids=["words", "both", "dash", "BOM", "both with a dash", "blank argument", "blank stdin", "no Unicode"],
)
def test_arguments_and_stdin_make_the_question(
    words: List[str],
    stdin: Optional[bytes],
    question: str,
    piped: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The argument, an empty line, the input; in UTF-8 whatever the locale."""
    if stdin is None:
        monkeypatch.setattr(sys, "stdin", Keys())
    else:
        piped(stdin)
    assert read_question(words) == question


@pytest.mark.parametrize(
    ("stdin", "words"),
    [(b"", "nothing to ask"), (b" \n", "nothing to ask"), (b"\xff\xfe\x00", "not UTF-8")],
    ids=["empty", "blank", "binary"],
)
def test_nothing_to_ask_is_wrong_usage(stdin: bytes, words: str, piped: Callable[[bytes], None]) -> None:
    """And so is what is not text."""
    piped(stdin)
    with pytest.raises(click.UsageError, match=words):
        read_question([])


def test_dev_null_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stdin is no pipe and no file, the argument is the whole question."""
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert read_question(["alone"]) == "alone"
        with pytest.raises(click.UsageError, match="nothing to ask"):
            read_question([])


@pytest.mark.parametrize("words, hint", [([], True), (["-"], False)])
def test_whoever_types_the_question_is_told_how_it_ends(
    words: List[str], hint: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless stdin was named: who does that knows."""
    keyboard = Keys()
    keyboard.buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", keyboard)
    with pytest.raises(click.UsageError, match="nothing to ask"):
        read_question(words)
    assert ("Ctrl-D" in capsys.readouterr().err) is hint


def test_a_file_is_read_with_the_name_that_is_sent(tmp_path: Path) -> None:
    """As with ``--file <(git diff)`` in a shell, it may be a pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"+ x = 1\n",))
    writer.start()
    assert read_attachments([str(path)]) == [("pipe", "+ x = 1\n")]
    writer.join()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\x89PNG\r\n\x1a\n", "it is not UTF-8 text"), (None, "it can't be read: No such file")],
    ids=["bytes", "missing"],
)
def test_a_file_that_cannot_be_sent_is_wrong_usage(content: Optional[bytes], words: str, tmp_path: Path) -> None:
    """With its path as it was typed, and the reason."""
    path = tmp_path / "logo.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(click.UsageError, match=f"--file {path}: {words}"):
        read_attachments([str(path)])
