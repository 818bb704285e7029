"""What a command waits for, while it waits: a line on stderr with the reason and a countdown, which is gone afterwards.

Only a terminal gets one. A dumb terminal gets a line for each wait instead, which stays. While something else draws on
the terminal, the line is hidden.

Threads: what is drawn is locked. A thread of its own looks at the calls, which block the one that makes them.
"""

import contextlib
import enum
import math
import sys
import threading
from typing import Callable, Iterator, Optional

from copilot_sync.cli import log
from copilot_sync.cli.durations import duration
from copilot_sync.cli.language import _, marked
from copilot_sync.cli.terminal import is_dumb, is_terminal, size_of
from copilot_sync.client import Client
from copilot_sync.os_threads import JOIN_TIMEOUT
from copilot_sync.stepping import Delay
from copilot_sync.terminal_text import one_line, shortened

#: Seconds between two looks, and the shortest wait that is shown.
_INTERVAL, _SHORTEST = 0.2, 1.0
#: Looks without a wait after which the next one is another one: between two looks a call may have tried in vain.
_LOOKS_BETWEEN = 5
_ERASE = "\r\x1b[K"
#: Columns that stay free: a terminal shows a Ctrl-C as ^C, and the line must not go on below.
ROOM = 3
_REASONS = {"limit": marked("the limit that all commands share"), "service": marked("the service")}


class WaitsIn(enum.Enum):
    """Where a terminal shows what is waited for."""

    #: In a line of its own.
    LINE = "line"
    #: In the progress bar of a batch.
    BAR = "bar"
    #: In the log, as elsewhere.
    LOG = "log"


class WaitLine:
    """Shows what the calls of a client wait for.

    Args:
        client: The client.
        waits: Where it is to be shown.

    Attributes:
        is_shown: Whether it is shown somewhere. With ``--verbose`` the log says more.
    """

    def __init__(self, client: Client, waits: WaitsIn = WaitsIn.LINE) -> None:
        self._client = client
        self._file = sys.stderr
        self._has_line = waits is WaitsIn.LINE
        self.is_shown = waits is not WaitsIn.LOG and is_terminal(sys.stderr) and not log.is_shown()
        self._hidden = 0
        self._otherwise: Callable[[], str] = str
        self._shown = ""
        self._looks_without = 0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> "WaitLine":
        if self.is_shown and self._has_line:
            self._thread = threading.Thread(target=self._show_until_done, name="copilot-sync-waits", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT)
        with self._lock:
            self._show("")

    def words(self) -> str:
        """Say what is waited for at this moment, and for how long; ``""`` if nothing is."""
        return words_of(delay_of(self._client))

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the line while the block lasts, which may write to the terminal."""
        with self._lock:
            self._hidden += 1
            self._show("")
        try:
            yield
        finally:
            with self._lock:
                self._hidden -= 1

    @contextlib.contextmanager
    def otherwise(self, words: Callable[[], str]) -> Iterator[None]:
        """Show other words while the block lasts and nothing is waited for. A dumb terminal gets none."""
        self._otherwise = words
        try:
            yield
        finally:
            self._otherwise = str
            with self._lock:
                self._show("")

    def _show_until_done(self) -> None:
        while not self._done.wait(_INTERVAL):
            with self._lock:
                delay = None if self._hidden else delay_of(self._client)
                if is_dumb():
                    self._print(delay)
                else:
                    words = "" if self._hidden else words_of(delay) or self._otherwise()
                    self._show(shortened(words, size_of(self._file).columns - ROOM))

    def _show(self, words: str) -> None:
        if words != self._shown and not is_dumb():
            self._write(_ERASE + words)
            self._shown = words

    def _print(self, delay: Optional[Delay]) -> None:
        """Print a line for a wait, unless it goes on."""
        words = words_of(delay)
        reason = words.partition(": ")[2]
        self._looks_without = 0 if words else self._looks_without + 1
        if words and reason != self._shown:
            self._write(f"{words}\n")
            self._shown = reason
        elif self._looks_without > _LOOKS_BETWEEN:
            self._shown = ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            self._file.write(text)
            self._file.flush()


def delay_of(client: Client) -> Optional[Delay]:
    """Return what the calls of a client wait for: the shortest of their waits; ``None`` if none waits."""
    streams = filter(None, [reference() for reference in list(client._streams)])
    delays = [*(stream._delay for stream in streams), *(call.delay for call in list(client._calls))]
    waiting = sorted([delay for delay in delays if delay is not None], key=lambda delay: delay.seconds)
    return waiting[0] if waiting else None


def words_of(delay: Optional[Delay]) -> str:
    """Say why a call waits, and how long; ``""`` for none and for a short one."""
    if delay is None or delay.seconds < _SHORTEST:
        return ""
    if math.isinf(delay.seconds):
        return _("waiting: another question has to end first")
    reason = delay.why or _(_REASONS[delay.reason])
    return one_line(_("waiting {time}: {reason}").format(time=duration(math.ceil(delay.seconds)), reason=reason))
