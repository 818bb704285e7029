"""A terminal that is as it was before, although the program is ended while somebody types.

SIGTERM ends a program without its ``finally`` blocks. The shell behind it would then show nothing of what is typed.

Threads: confined to the one that reads the keyboard. Only the main one can handle signals; in others nothing is done.
"""

import contextlib
import os
import signal
import sys
import threading
from typing import Any, Iterator, TextIO

from copilot_sync.cli.terminal import is_dumb, is_terminal

#: Has a terminal mark what is pasted, and not any more.
TO_BE_MARKED, NOT_ANY_MORE = "\x1b[?2004h", "\x1b[?2004l"


@contextlib.contextmanager
def restored_by_sigterm(keyboard: TextIO, screen: TextIO) -> Iterator[None]:
    """Have SIGTERM restore the present modes of a terminal before it ends the program. The block changes them.

    Args:
        keyboard: What is read. Nothing is done if it is no terminal.
        screen: What is drawn on.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL or not is_terminal(keyboard):
        yield
        return
    if sys.platform == "win32":  # pragma: no cover - Windows, which ends programs in another way
        yield
        return
    import termios

    descriptor = keyboard.fileno()
    modes = termios.tcgetattr(descriptor)

    def end(number: int, frame: Any) -> None:
        try:
            with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
                termios.tcsetattr(descriptor, termios.TCSAFLUSH, modes)
                os.write(screen.fileno(), f"{NOT_ANY_MORE if _takes_marks(screen) else ''}\n".encode())
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _takes_marks(screen: TextIO) -> bool:
    return is_terminal(screen) and not is_dumb()
