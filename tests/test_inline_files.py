"""Files that a message carries with it: how they are read and named, and which are refused."""

import os
import threading
from pathlib import Path
from typing import Any, Type

import pytest

from copilot_sync.inline_files import FILE_LIMIT, inline_files, read_files


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name, language", [("app.py", "py"), ("Makefile", ""), ("a.tar.gz", "gz"), (".bashrc", ""), ("sub/app.js", "js")]
)
def test_a_file_becomes_a_reference(name: str, language: str) -> None:
    """With its name, the language that its ending says, and its text without a byte order mark."""
    Path("sub").mkdir()
    Path(name).write_bytes(b"\xef\xbb\xbfprint('\xc3\xa9')\r\n")
    expected = {"type": "thread-scoped-file", "name": name, "text": "print('é')\r\n", "language": language}
    for path in (name, os.path.join(".", name), Path(name)):
        assert inline_files(read_files([path])) == (expected,)


def test_a_pair_is_sent_as_it_is() -> None:
    """Its name too; nothing of that name is opened. A list is a pair as well, as JSON has it."""
    expected = {"type": "thread-scoped-file", "name": "/not/here.c", "text": "int x;", "language": "c"}
    for pair in (("/not/here.c", "int x;"), ["/not/here.c", "int x;"]):
        assert inline_files(read_files(iter([pair]))) == (expected,)


@pytest.mark.parametrize("text", ["a\0", "\ud800", "x" * (FILE_LIMIT + 1)], ids=["NUL", "surrogate", "large"])
def test_an_error_does_not_repeat_a_name_without_end(text: str) -> None:
    """Such a name is data, as a batch has it, and the error gets into its results."""
    with pytest.raises(ValueError, match="^aaa") as raised:
        inline_files([("a" * 100_000, text)])
    assert len(str(raised.value)) < 500


def test_no_files_are_none() -> None:
    """Whoever passes everything on passes ``None``."""
    assert read_files(None) == []
    assert inline_files(None) == ()


def test_no_folder_of_this_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a path leads out of the current folder, the file's own name is all that is sent."""
    (tmp_path / "here").mkdir()
    (tmp_path / "app.py").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    for path in (os.path.join("..", "app.py"), str(tmp_path / "app.py"), tmp_path / "here" / ".." / "app.py"):
        assert read_files([path]) == [("app.py", "x")]


def test_a_file_may_be_a_pipe(tmp_path: Path) -> None:
    """It is read to its end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"+ x = 1\n",))
    writer.start()
    assert read_files([path]) == [("pipe", "+ x = 1\n")]
    writer.join()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\x89PNG\r\n\x1a\n", "logo.png: it is not UTF-8 text"),
        (b"text\0text", "logo.png: it has NUL characters: it is binary"),
        (b"x" * (FILE_LIMIT + 1), "logo.png: it is larger than 1024 KiB"),
        ("\ufeff".encode("utf-16-le") + "é€".encode("utf-16-le") * (FILE_LIMIT // 4 - 1), "larger than 1024 KiB"),
    ],
    ids=["bytes", "NUL", "large", "large as UTF-8"],
)
def test_a_file_that_is_no_text_is_refused_by_name(content: bytes, words: str) -> None:
    """With the reason."""
    Path("logo.png").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        inline_files(read_files(["logo.png"]))


def test_an_endless_file_is_too_large() -> None:
    """No more of it is read than may be sent."""
    with pytest.raises(ValueError, match="/dev/zero: it is larger"):
        read_files(["/dev/zero"])


def test_the_largest_file_is_taken() -> None:
    """To the byte."""
    Path("large.txt").write_bytes(b"x" * FILE_LIMIT)
    (reference,) = inline_files(read_files(["large.txt"]))
    assert len(reference["text"]) == FILE_LIMIT


@pytest.mark.parametrize(("path", "kind"), [("missing", FileNotFoundError), (".", IsADirectoryError)])
def test_a_file_that_can_not_be_read_is_an_error_of_the_system(path: str, kind: Type[Exception]) -> None:
    """As ``open`` raises it, with its path."""
    with pytest.raises(kind, match=path):
        read_files([path])


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ("app.py", TypeError, "files must be a list, not str"),
        (b"app.py", TypeError, "files must be a list, not bytes"),
        (Path("app.py"), TypeError, "files must be a list, not PosixPath"),
        ({"app.py": "x"}, TypeError, "files must be a list, not dict"),
        (5, TypeError, "files must be a list, not int"),
        ([5], TypeError, "a file must be a path, or a pair of its name and its text, not int"),
        ([None], TypeError, "not NoneType"),
        ([{"name": "a", "text": "b"}], TypeError, "not dict"),
        ([("a", "b", "c")], TypeError, "must be a pair of two strings"),
        ([("a",)], TypeError, "must be a pair of two strings"),
        ([[]], TypeError, "must be a pair of two strings"),
        ([("a", b"b")], TypeError, "must be a pair of two strings"),
        ([("a", None)], TypeError, "must be a pair of two strings"),
        ([["a", ["b"]]], TypeError, "must be a pair of two strings"),
        ([("", "b")], ValueError, "a file must have a name"),
        ([(" ", "b")], ValueError, "a file must have a name"),
        ([("a\udcff", "b")], ValueError, "the name of a file holds text that is not valid Unicode"),
        ([("a", "b\udcff")], ValueError, "a holds text that is not valid Unicode"),
        ([("a", "b\0")], ValueError, "a: it has NUL characters"),
        ([("a", "é" * (FILE_LIMIT // 2 + 1))], ValueError, "a: it is larger than 1024 KiB"),
        (["a\0b"], ValueError, "a path holds a NUL character"),
    ],
    ids=ascii,
)
def test_what_is_no_file_is_refused(files: Any, kind: Type[Exception], words: str) -> None:
    """In words that name what was wanted."""
    with pytest.raises(kind, match=words):
        inline_files(read_files(files))


@pytest.mark.parametrize("file", ["app.py", Path("app.py")], ids=["text", "path"])
def test_a_path_is_no_pair(file: Any) -> None:
    """What comes out of a file of prompts or a queue opens nothing, also if the file is there."""
    Path("app.py").write_text("secret")
    with pytest.raises(TypeError, match="no path is opened"):
        inline_files([file])
