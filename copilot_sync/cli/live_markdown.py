"""Markdown in a terminal, formatted while it is being written.

Finished blocks are printed once and scroll away like any output. Only the last, unfinished block is erased and
redrawn, and never more of its lines than fit into the terminal. So the scroll-back holds each line of the answer
exactly once. A thread redraws ten times a second, because the reader of the answer may block while its last piece has
not been drawn yet. The cursor is never hidden, so there is nothing to restore if the process is killed.

Threads: what is drawn is locked.
"""

import functools
import importlib
import math
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Callable, Optional, TextIO, Type

from copilot_sync.os_threads import join_within
from copilot_sync.terminal_text import printable

if TYPE_CHECKING:
    from copilot_sync.cli.markdown_blocks import BlockSplitter
    from copilot_sync.cli.markdown_page import Renderer

#: Seconds between two drawings.
_INTERVAL = 0.1
#: Characters up to which an unfinished block is formatted. Of a longer one, the last lines are shown as they are.
_LONGEST_DRAWN = 16 * 1024
#: What loads rich and its parser, which takes as long as the rest of the program.
_PAGE = "copilot_sync.cli.markdown_page"
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class MarkdownView:
    """Shows one answer in a terminal.

    Args:
        file: The terminal.
        colours: Whether to use colours.
        waits: Says what the answer waits for; ``""`` if it does not wait.
    """

    def __init__(self, file: TextIO, colours: bool, *, waits: Callable[[], str] = str) -> None:
        self._file = file
        self._colours = colours
        self._waits = waits
        self._printed = False
        self._drawn = ""
        self._frame = 0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._redraw_until_done, name="copilot-sync-markdown", daemon=True)

    @functools.cached_property
    def _renderer(self) -> "Renderer":
        from copilot_sync.cli.markdown_page import Renderer

        return Renderer(self._file, self._colours)

    @functools.cached_property
    def _blocks(self) -> "BlockSplitter":
        from copilot_sync.cli.markdown_blocks import BlockSplitter

        return BlockSplitter()

    def __enter__(self) -> "MarkdownView":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._done.set()
        join_within(self._thread, math.inf)
        self._redraw(self._render_finished(self._blocks.tail), "")

    def add(self, piece: str) -> None:
        """Show the next piece of the answer."""
        with self._lock:
            finished = self._blocks.add(printable(piece))
            if finished:
                self._redraw(self._render_finished(finished), self._render_tail())

    def _redraw_until_done(self) -> None:
        with self._lock:
            try:
                self._load()
            except (ImportError, OSError):  # the thread that adds pieces gets it as well
                return
        while not self._done.wait(_INTERVAL):
            with self._lock:
                try:
                    self._redraw("", self._render_tail())
                except OSError:  # the thread that adds pieces gets it as well
                    return

    def _load(self) -> None:
        """Show a sign of life, and load what draws: the answer is still on its way."""
        if _PAGE not in sys.modules:
            self._redraw("", f"{self._spinner()}\n")
            importlib.import_module(_PAGE)

    def _render_finished(self, text: str) -> str:
        """Format finished blocks, which are printed once, with an empty line between them and those before."""
        drawn = self._renderer.markdown(text)
        if drawn and self._printed:
            drawn = "\n" + drawn
        self._printed = self._printed or bool(drawn)
        return drawn

    def _render_tail(self) -> str:
        """Format the lines of the unfinished block that fit into the terminal; a spinner before the first block."""
        width, height = self._renderer.measure()
        tail = self._blocks.tail
        drawn = (
            self._renderer.markdown(tail)
            if len(tail) <= _LONGEST_DRAWN
            else self._renderer.text(tail[-width * height :])
        )
        lines = drawn.split("\n")[:-1]
        if lines and self._printed:
            lines.insert(0, "")
        words = self._waits()
        if words or not (lines or self._printed):
            lines.append(self._spinner(words, width))
        return "".join(f"{line}\n" for line in lines[-(height - 1) :])

    def _spinner(self, words: str = "", width: int = 2) -> str:
        self._frame += 1
        return f"{_SPINNER[self._frame % len(_SPINNER)]} {words}"[: width - 1].rstrip()

    def _redraw(self, finished: str, tail: str) -> None:
        """Replace the drawn tail by finished lines and a new tail, in one write."""
        if not finished and tail == self._drawn:
            return
        count = self._drawn.count("\n")
        erase = f"\x1b[{count}A\r\x1b[J" if count else ""
        self._file.write(erase + finished + tail)
        self._file.flush()
        self._drawn = tail
