"""The lines that ``chat`` takes, and the history of those that were typed."""

import io
import os
import stat
import sys
from pathlib import Path
from typing import Any, Callable, List, Optional

import click
import pytest
from command_line import Keys
from terminals import OwnTerminal

from copilot_sync.cli.line_input import Entry, History, Keyboard, piped_line, read_entry


def entries(*lines: str) -> List[Optional[Entry]]:
    """What is read of these lines, up to the end of input."""
    waiting = list(lines)
    found: List[Optional[Entry]] = []
    while not found or found[-1] is not None:
        found.append(read_entry(lambda prompt: waiting.pop(0) if waiting else None))
    return found[:-1]


@pytest.mark.parametrize(
    "lines, expected",
    [
        ([], []),
        (["one", "", "/new"], [Entry("one"), Entry(""), Entry("/new")]),
        (['"""', "a", "", "b", '"""', "c"], [Entry("a\n\nb", True), Entry("c")]),
        (['  """a', ' b"""  '], [Entry("a\n b", True)]),
        (['"""one line"""'], [Entry("one line", True)]),
        (['"""', "/new", '"""'], [Entry("/new", True)]),
        (['"""', "never closed"], [Entry("never closed", True)]),
        (['"""', '"""'], [Entry("", True)]),
        (['say """'], [Entry('say """')]),
    ],
)
def test_three_quotes_make_a_block(lines: List[str], expected: List[Entry]) -> None:
    """From the beginning of a line to the end of one; the end of input closes it as well."""
    assert entries(*lines) == expected


def test_the_prompt_tells_a_block_from_a_question() -> None:
    """Whoever is inside of a block sees it."""
    prompts = []
    lines = ['"""', "a", '"""']

    def read(prompt: str) -> str:
        prompts.append(prompt)
        return lines[len(prompts) - 1]

    read_entry(read)
    assert prompts == ["> ", ". ", ". "]


def test_a_pipe_gives_its_lines(piped: Callable[[bytes], None]) -> None:
    """Without their ends, in UTF-8; the last one may lack its end."""
    piped(b"\xef\xbb\xbfone\r\ntwo \xc3\xa9\n\nthree")
    assert [piped_line("> ") for _ in range(5)] == ["one", "two é", "", "three", None]


def test_a_pipe_of_bytes_is_refused(piped: Callable[[bytes], None]) -> None:
    """What is not text is wrong usage."""
    piped(b"\xff\n")
    with pytest.raises(click.UsageError, match="not UTF-8"):
        piped_line("> ")


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(str(tmp_path / "new" / "history"))


@pytest.mark.parametrize("to_terminal", [True, False], ids=["terminal", "pipe"])
def test_typed_lines_are_read_and_kept(
    to_terminal: bool, history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prompt asks for them: never on a stdout that somebody else reads. Ctrl-D is the end."""
    with OwnTerminal() as terminal:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", Keys("one", "", "two \udcff"))
            if to_terminal:
                patch.setattr(sys, "stdout", terminal.file)
            keyboard = Keyboard(history)
            lines = [keyboard.line("> ") for _ in range(4)]
        shown = terminal.finish()
    assert lines == ["one", "", "two \ufffd", None]
    assert history.load() == ["one", "two \ufffd"]
    assert capsys.readouterr() == ("", "\n" if to_terminal else "> > > > \n")
    assert shown == ["> > > >" if to_terminal else ""]


def test_bytes_that_are_no_text_are_read(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in another encoding is no reason to fail."""
    stdin = io.TextIOWrapper(io.BytesIO(b"a\xffb\n\xff\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    keyboard = Keyboard(history)
    assert [keyboard.line("> ") for _ in range(2)] == ["a\ufffdb", "\ufffd"]


def test_ctrl_c_comes_out(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it means is for the chat to say; nothing is kept of the line."""
    monkeypatch.setattr(sys, "stdin", Keys(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        Keyboard(history).line("> ")
    assert history.load() == []


def test_the_history_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The file is 0600 and its folder 0700, whatever the umask; a file that was opened up is closed again."""
    path = tmp_path / "new" / "history"
    before = os.umask(0)
    try:
        History(str(path)).add("one")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)]
    path.chmod(0o644)
    History(str(path)).add("two\nand three")
    assert [*modes, stat.S_IMODE(path.stat().st_mode)] == [0o600, 0o700, 0o600]
    assert path.read_text() == "one\ntwo and three\n"


@pytest.mark.parametrize(
    "content, lines",
    [
        (b"", []),
        (b"whole\nhalf", ["whole"]),
        (b"\xff\x00\x1b[2J\n", ["\ufffd\ufffd\ufffd[2J"]),
        (b"".join(b"%d\n" % number for number in range(1500)), [str(number) for number in range(500, 1500)]),
    ],
    ids=["empty", "torn", "garbage", "long"],
)
def test_any_history_can_be_read(content: bytes, lines: List[str], tmp_path: Path) -> None:
    """The latest thousand whole lines of it, without anything that a terminal can't take."""
    path = tmp_path / "history"
    path.write_bytes(content)
    assert History(str(path)).load() == lines
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"x" * 600, b"x"], ids=["bytes", "lines"])
def test_a_history_does_not_grow_for_ever(line: bytes, tmp_path: Path) -> None:
    """A file of more than two thousand lines, or of more than a MiB, keeps the latest thousand."""
    path = tmp_path / "history"
    path.write_bytes((line + b"\n") * 2001 + b"last\n")
    loaded = History(str(path)).load()
    assert len(loaded) == 1000
    assert loaded[-1] == "last"
    assert path.read_text().splitlines() == loaded


@pytest.mark.parametrize("place", ["file/history", "folder", "/proc/history"])
def test_a_history_that_cannot_be_kept_is_no_reason_to_fail(place: str, tmp_path: Path) -> None:
    """Below a file, in a folder's place, in a file system that takes no files."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    history = History(str(tmp_path / place))
    history.add("one")
    assert history.load() == []
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_device_in_its_place_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who links it to ``/dev/null`` wants nothing kept, and needs the device afterwards."""
    path = tmp_path / "history"
    path.symlink_to(os.devnull)
    changed: List[Any] = []
    monkeypatch.setattr(os, "chmod", lambda *arguments: changed.append(arguments))
    history = History(str(path))
    history.add("one")
    assert history.load() == []
    assert changed == []
