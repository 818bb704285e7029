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

from copilot_sync.cli.question import FILE_LIMIT, read_question, read_reference


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


def test_a_missing_stdin_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program may be started with it closed."""
    monkeypatch.setattr(sys, "stdin", None)
    assert read_question(["alone"]) == "alone"
    with pytest.raises(click.UsageError, match="nothing to ask"):
        read_question([])


def test_dev_null_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stdin is no pipe and no file, the argument is the whole question."""
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert read_question(["alone"]) == "alone"


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


@pytest.mark.parametrize(
    "name, language", [("app.py", "py"), ("Makefile", ""), ("a.tar.gz", "gz"), (".bashrc", ""), ("sub/app.js", "js")]
)
def test_a_file_becomes_a_reference(name: str, language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name, the language that its ending says, and its text without a byte order mark."""
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path(name).write_bytes(b"\xef\xbb\xbfprint('\xc3\xa9')\r\n")
    expected = {"type": "thread-scoped-file", "name": name, "text": "print('é')\r\n", "language": language}
    assert read_reference(name) == expected
    assert read_reference(os.path.join(".", name))["name"] == name


def test_no_folder_of_this_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a path leads out of the current folder, the file's own name is all that is sent."""
    (tmp_path / "here").mkdir()
    (tmp_path / "app.py").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    for path in (os.path.join("..", "app.py"), str(tmp_path / "app.py")):
        assert read_reference(path)["name"] == "app.py"


def test_a_file_may_be_a_pipe(tmp_path: Path) -> None:
    """As with ``--file <(git diff)`` in a shell."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"+ x = 1\n",))
    writer.start()
    assert read_reference(str(path))["text"] == "+ x = 1\n"
    writer.join()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\x89PNG\r\n\x1a\n", "not UTF-8 text"),
        (b"text\0text", "binary"),
        (b"x" * (FILE_LIMIT + 1), "larger than 1024 KiB"),
        (None, "No such file"),
    ],
    ids=["bytes", "NUL", "large", "missing"],
)
def test_a_file_that_cannot_be_sent_is_refused_by_name(content: Optional[bytes], words: str, tmp_path: Path) -> None:
    """With the reason."""
    path = tmp_path / "logo.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(click.UsageError, match=words) as raised:
        read_reference(str(path))
    assert str(path) in str(raised.value)


def test_the_largest_file_is_taken(tmp_path: Path) -> None:
    """To the byte."""
    path = tmp_path / "large.txt"
    path.write_bytes(b"x" * FILE_LIMIT)
    assert len(read_reference(str(path))["text"]) == FILE_LIMIT
