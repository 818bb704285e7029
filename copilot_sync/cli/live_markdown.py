"""Markdown in a terminal, drawn while it is being written.

Finished blocks are printed once and scroll away like any output; only the lines of the last, unfinished block are
erased and drawn anew, and never more of them than the terminal is high. So the scroll-back holds each line of the
answer exactly once. A thread draws ten times a second, because the reader of the answer may be blocked while the last
piece it got has not been drawn yet. The cursor is never hidden, so nothing has to be put back when the process is
killed.
"""

import io
import os
import threading
from types import TracebackType
from typing import Optional, TextIO, Type

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.text import Text

from copilot_sync.cli.markdown_blocks import PARSER, Blocks
from copilot_sync.terminal_text import printable

#: Seconds between two drawings.
_INTERVAL = 0.1
#: Characters of an unfinished block that are drawn as Markdown; of a longer one its last lines are shown as they are.
_LONGEST_DRAWN = 16 * 1024
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class MarkdownView:
    """One answer in a terminal.

    Args:
        file: The terminal.
        colours: Whether it may be coloured.
    """

    def __init__(self, file: TextIO, colours: bool) -> None:
        self._file = file
        self._page = _Page(file, colours)
        self._blocks = Blocks()
        self._printed = False
        self._drawn = ""
        self._frame = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._artist = threading.Thread(target=self._draw_until_over, name="copilot-sync-markdown", daemon=True)

    def __enter__(self) -> "MarkdownView":
        self._artist.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._over.set()
        self._artist.join()
        self._show(self._settled(self._blocks.tail), "")

    def add(self, piece: str) -> None:
        """Take the next piece of the answer."""
        with self._lock:
            finished = self._blocks.add(printable(piece))
            if finished:
                self._show(self._settled(finished), self._region())

    def _draw_until_over(self) -> None:
        while not self._over.wait(_INTERVAL):
            with self._lock:
                try:
                    self._show("", self._region())
                except OSError:  # the thread that reads the answer meets it as well
                    return

    def _settled(self, text: str) -> str:
        """Finished blocks as they are printed for good, apart from those before."""
        drawn = self._page.markdown(text)
        if drawn and self._printed:
            drawn = "\n" + drawn
        self._printed = self._printed or bool(drawn)
        return drawn

    def _region(self) -> str:
        """The lines of the unfinished block that fit into the terminal, or a sign of life before there is any."""
        width, height = self._page.measure()
        tail = self._blocks.tail
        if not tail.strip():
            return "" if self._printed else self._sign_of_life()
        drawn = self._page.markdown(tail) if len(tail) <= _LONGEST_DRAWN else self._page.text(tail[-width * height :])
        lines = drawn.split("\n")[:-1]
        if self._printed:
            lines.insert(0, "")
        return "".join(f"{line}\n" for line in lines[-(height - 1) :])

    def _sign_of_life(self) -> str:
        self._frame += 1
        return f"{_FRAMES[self._frame % len(_FRAMES)]}\n"

    def _show(self, settled: str, region: str) -> None:
        """Replace what is drawn by finished lines and a new drawing, in one go."""
        if not settled and region == self._drawn:
            return
        count = self._drawn.count("\n")
        erase = f"\x1b[{count}A\r\x1b[J" if count else ""
        self._file.write(erase + settled + region)
        self._file.flush()
        self._drawn = region


class _Page:
    """Turns Markdown into the lines of a terminal."""

    def __init__(self, file: TextIO, colours: bool) -> None:
        self._file = file
        self._console = Console(file=io.StringIO(), force_terminal=True, no_color=not colours, highlight=False)

    def measure(self) -> "os.terminal_size":
        """Look up how large the terminal is now."""
        try:
            size = os.get_terminal_size(self._file.fileno())
        except (OSError, ValueError):
            size = os.terminal_size((0, 0))
        return os.terminal_size((size.columns or 80, max(size.lines or 24, 2)))

    def markdown(self, text: str) -> str:
        """Draw Markdown; blank text is nothing."""
        if not text.strip():
            return ""
        # A link is shown with its target: one that only shows its words may lead anywhere.
        page = Markdown("", hyperlinks=False)
        page.parsed = PARSER.parse(text)
        return self._drawn(page)

    def text(self, text: str) -> str:
        """Draw text as it is, in lines that fit."""
        return self._drawn(Text(text))

    def _drawn(self, page: RenderableType) -> str:
        self._console.width = self.measure().columns
        with self._console.capture() as captured:
            self._console.print(page)
        # Each block comes with other empty lines around it, and is filled up with blanks that would be copied along.
        lines = captured.get().strip("\n").split("\n")
        return "".join(f"{line.rstrip(' ')}\n" for line in lines)
