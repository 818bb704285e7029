"""Markdown drawn in a terminal while it comes: what is on the screen in the end, and on the way there."""

import io
import os
import re
import sys
import threading
from typing import Any, List

import pytest
from command_line import MARKDOWN
from hypothesis import given
from hypothesis import strategies as st
from support import nothing_left_open, wait_for, wait_until
from terminals import OwnTerminal, Screen, has_colours

from copilot_sync.cli import live_markdown
from copilot_sync.cli.live_markdown import MarkdownView
from copilot_sync.cli.markdown_page import Renderer
from copilot_sync.terminal_text import printable

TEXT = """# Title

Some *words* and `code`.

- one
- two

```python
x = 1
```

| a | b |
|---|---|
| 1 | 2 |

The end."""


def drawn(pieces: List[str], rows: int = 24, columns: int = 40, colours: bool = True) -> List[str]:
    with OwnTerminal(rows, columns) as terminal:
        with MarkdownView(terminal.file, colours) as view:
            for piece in pieces:
                view.add(piece)
        return terminal.finish()


def test_an_answer_is_drawn_whole_and_once() -> None:
    """However it comes, in whatever pieces, the screen holds the same in the end: each line exactly once."""
    whole = drawn([TEXT])
    assert drawn(list(TEXT)) == whole
    assert drawn(TEXT.splitlines(keepends=True)) == whole
    text = "\n".join(whole)
    assert [text.count(word) for word in ("Title", "words", "• one", "x = 1", "1", "The end.")] == [1, 1, 1, 1, 2, 1]
    assert "```" not in text


def test_blocks_stand_apart() -> None:
    """One empty line is between two of them, and none at the beginning or the end."""
    lines = drawn(["one\n\n", "\n\ntwo\n\n- three\n", "\n1. four\n\n", "> five\n\n---\n\n"], columns=10)
    assert lines[:-1] == ["one", "", "two", "", " • three", "", " 1 four", "", "▌ five", ""]
    assert lines[-1]  # a rule, which releases of rich draw differently
    assert drawn(["", "\n \n"]) == [""]


@pytest.mark.parametrize("columns", [80, 20, 5])
def test_an_answer_that_is_longer_than_the_screen_scrolls(columns: int) -> None:
    """All lines are there in the end, each once, also those of a block that never fitted."""
    listing = "".join(f"L{number}\n" for number in range(100))
    lines = drawn(["```\n", *listing.splitlines(keepends=True), "```\n\nend"], rows=6, columns=columns)
    assert [line.strip() for line in lines if line.strip()] == [*listing.split(), "end"]


@given(st.lists(MARKDOWN | st.text(max_size=5), max_size=20), st.sampled_from([8, 20, 80]))
def test_any_answer_can_be_drawn(parts: List[str], columns: int) -> None:
    """Whatever the model writes, on a terminal however narrow, nothing is raised and nothing is swallowed."""
    answer = printable("".join([*parts, "\n\nlast"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Renderer, "measure", lambda page: os.terminal_size((columns, 24)))
        text = Renderer(io.StringIO(), True).markdown(answer)
    assert re.sub(r"\x1b\[[\d;]*m|\s", "", text).endswith("last")


def test_html_is_text() -> None:
    """A placeholder in an answer is meant to be read."""
    assert drawn(["replace <name> & <b>run</b>\n\n<div>\nx\n</div>"]) == [
        "replace <name> & <b>run</b>",
        "",
        "<div> x </div>",
    ]


def test_a_link_shows_where_it_leads() -> None:
    """Its target stands in the text: no hidden link that a terminal would open."""
    with OwnTerminal() as terminal:
        with MarkdownView(terminal.file, True) as view:
            view.add("[github.com](https://evil.example/)")
        assert terminal.finish() == ["github.com (https://evil.example/)"]
    assert b"\x1b]8" not in terminal.seen


def test_the_answer_cannot_talk_to_the_terminal() -> None:
    """Control characters are shown, split over pieces or not, in text, in code, in targets."""
    with OwnTerminal() as terminal:
        with MarkdownView(terminal.file, False) as view:
            for piece in ("\x1b", "]0;title\x07 `\x9b2J` [a](http://b/\x1b[5m)\n\n```\n\x1b[5m\n```\n"):
                view.add(piece)
        text = "\n".join(terminal.finish())
    assert "\ufffd]0;title\ufffd" in text
    assert "\ufffd2J" in text
    for forbidden in (b"\x07", b"\x1b]", b"[5m"):
        assert b"\x1b" + forbidden not in terminal.seen
    assert "\x9b".encode() not in terminal.seen


@pytest.mark.parametrize("colours", [True, False])
def test_without_colours_there_is_none(colours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bold and italics may stay."""
    monkeypatch.setenv("TERM", "xterm-256color")
    with OwnTerminal() as terminal:
        with MarkdownView(terminal.file, colours) as view:
            view.add(TEXT)
        terminal.finish()
    assert has_colours(terminal.seen) is colours


class _Seen(io.StringIO):
    """A terminal without a descriptor, of 80 columns and 24 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.drawings = 0

    def write(self, text: str) -> int:
        self.drawings += 1
        return super().write(text)

    def lines(self) -> List[str]:
        screen = Screen(24, 80)
        screen.feed(self.getvalue().replace("\n", "\r\n").encode())
        return screen.lines()

    def wait_for_last_line(self, *lines: str) -> None:
        """Wait until it is one of these."""
        wait_until(lambda: self.lines()[-1:] in [[line] for line in lines])


def test_the_last_piece_is_drawn_while_the_next_one_is_waited_for() -> None:
    """Whoever reads the answer is blocked then; a sign of life comes before the first piece."""
    seen = _Seen()
    with MarkdownView(seen, True) as view:
        for piece, shown in (("", live_markdown._SPINNER), ("one **tw", ["one **tw"]), ("o**", ["one two"])):
            view.add(piece)
            seen.wait_for_last_line(*shown)
            assert len(seen.lines()) == 1
    assert seen.lines() == ["one two"]


def test_what_stays_the_same_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing comes, a terminal far away gets nothing."""
    monkeypatch.setattr(live_markdown, "_INTERVAL", 0.001)
    looks = []
    measure = Renderer.measure

    def counted(page: Any) -> Any:
        looks.append(page)
        if len(looks) == 50:
            enough.set()
        return measure(page)

    enough = threading.Event()
    monkeypatch.setattr(Renderer, "measure", counted)
    seen = _Seen()
    with MarkdownView(seen, True) as view:
        view.add("text")
        wait_for(enough)
        drawings = seen.drawings
        enough.clear()
        looks.clear()
        wait_for(enough)
        assert seen.drawings == drawings


def test_a_block_too_long_to_be_drawn_shows_its_end() -> None:
    """As it is, as much as fits; when it is finished it is drawn like any other."""
    seen = _Seen()
    with MarkdownView(seen, True) as view:
        view.add("```\n" + f"{'x' * 70} = 1\n" * 250 + "y = 2\n")
        seen.wait_for_last_line("y = 2")
        assert len(seen.lines()) < 24
        view.add("```\n")
    assert seen.lines().count(" y = 2") == 1


def test_nothing_is_left_of_it() -> None:
    """No thread, whether the answer ended or broke off; what had come of it stays on the screen."""
    seen = _Seen()
    with nothing_left_open():
        with pytest.raises(KeyboardInterrupt), MarkdownView(seen, True) as view:
            view.add("half a **sen")
            raise KeyboardInterrupt
        assert not view._thread.is_alive()
    assert seen.lines() == ["half a **sen"]


class _Gone(io.StringIO):
    """A terminal that has been closed, and tells when something was to be drawn on it."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = threading.Event()

    def write(self, text: str) -> int:
        self.drawn.set()
        raise OSError(5, "Input/output error")


def test_a_terminal_that_is_gone_ends_the_drawing() -> None:
    """The thread ends without a word, and the error comes out where the answer is read."""
    gone = _Gone()
    with nothing_left_open(), pytest.raises(OSError, match="Input/output"):
        with MarkdownView(gone, True) as view:
            view.add("text")
            wait_for(gone.drawn)


def test_what_draws_is_loaded_while_the_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign of life comes before that."""
    monkeypatch.delitem(sys.modules, live_markdown._PAGE)
    seen = _Seen()
    with MarkdownView(seen, True) as view:
        wait_until(lambda: live_markdown._PAGE in sys.modules)
        assert seen.lines()[-1] in live_markdown._SPINNER
        view.add("**text**")
    assert seen.lines() == ["text"]


def test_a_library_that_is_missing_is_told_by_whoever_reads_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that draws ends without a word."""
    monkeypatch.delitem(sys.modules, live_markdown._PAGE)
    monkeypatch.setitem(sys.modules, "rich.markdown", None)
    with pytest.raises(ImportError, match="rich"), MarkdownView(_Seen(), True) as view:
        wait_until(lambda: not view._thread.is_alive())
        view.add("text")
