"""A line that is typed or pasted and must not be seen.

The terminal hands a line over in one piece, and cuts it after 4,095 bytes. So the keys are read one by one here. What
a terminal marks as pasted may hold line ends, as the JSON of a page does. Nothing of it remains: what was typed ahead
is dropped, so that no rest of a paste gets to the shell and into its history.
"""

import contextlib
import getpass
import os
import re
import select
import sys
from typing import Iterator

import click

from copilot_sync.cli.language import _
from copilot_sync.cli.terminal import is_dumb, is_terminal
from copilot_sync.cli.terminal_modes import NOT_ANY_MORE, TO_BE_MARKED, restored_by_sigterm
from copilot_sync.secret import Secret

#: Bytes of a secret. A Cookie header has some thousands.
LARGEST_SECRET = 1024 * 1024
#: Seconds without a key after which a paste is over.
_QUIET = 0.05
_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"
#: What a key that is no character sends, such as an arrow, and the beginning of that.
_KEY, _BEGUN_KEY = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.)"), re.compile(rb"\x1b(\[[0-9;?]*[ -/]*|O)?")
_ENTER, _CTRL_C, _CTRL_D, _CTRL_U, _BACKSPACES = b"\r\n", b"\x03", b"\x04", b"\x15", b"\x08\x7f"


def read_hidden(prompt: str) -> Secret[str]:
    """Ask for a secret on the terminal that stdin is. Bytes that are no text come as surrogates.

    Raises:
        KeyboardInterrupt: Ctrl-C was typed.
        click.Abort: The input ended before anything was typed.
        click.ClickException: It is longer than any secret.
    """
    click.echo(prompt, nl=False, err=True)
    if sys.platform == "win32":  # pragma: no cover - Windows, whose console has no such limit
        return Secret(getpass.getpass(""))
    descriptor = sys.stdin.fileno()
    typed = _Typed()
    try:
        with restored_by_sigterm(sys.stdin, sys.stderr), _key_by_key(descriptor):
            while not typed.is_done:
                typed.take(os.read(descriptor, 65536))
            _drop_the_rest(descriptor)
    finally:
        click.echo(err=True)
    return typed.text()


@contextlib.contextmanager
def _key_by_key(descriptor: int) -> Iterator[None]:
    """Have the terminal hand over each key, and show none. Ctrl-C, Ctrl-Z and the like are plain keys then."""
    import termios

    before = termios.tcgetattr(descriptor)
    modes = termios.tcgetattr(descriptor)
    modes[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
    modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
    marks = is_terminal(sys.stderr) and not is_dumb()
    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, modes)
        click.echo(TO_BE_MARKED if marks else "", nl=False, err=True)
        yield
    finally:
        click.echo(NOT_ANY_MORE if marks else "", nl=False, err=True)
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def _drop_the_rest(descriptor: int) -> None:
    """Drop what follows at once: the further lines of a paste that the terminal did not mark."""
    while select.select([descriptor], [], [], _QUIET)[0]:
        rest = os.read(descriptor, 65536)
        if not rest or _CTRL_C in rest:
            raise KeyboardInterrupt


class _Typed:
    """What was typed so far. Shows none of it."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._unread = b""
        self._in_paste = False
        self.is_done = False

    def take(self, keys: bytes) -> None:
        """Take what the terminal sent; nothing is the end of input.

        Raises:
            KeyboardInterrupt: Ctrl-C is in it.
            click.Abort: It is the end, and nothing was typed.
            click.ClickException: It becomes too long.
        """
        self._unread += keys
        while self._unread and not self.is_done:
            key = _KEY.match(self._unread)
            if _BEGUN_KEY.fullmatch(self._unread):
                break  # the rest of it is still to come
            length = key.end() if key else 1
            found, self._unread = self._unread[:length], self._unread[length:]
            self._press(found)
        self.is_done = self.is_done or not keys
        if self.is_done and not self._bytes.strip() and not keys:
            raise click.Abort
        if len(self._bytes) > LARGEST_SECRET:
            raise click.ClickException(_("this is longer than any cookie or token"))

    def _press(self, key: bytes) -> None:
        if key in (_PASTE_BEGINS, _PASTE_ENDS):
            self._in_paste = key == _PASTE_BEGINS
        elif key == _CTRL_C:
            raise KeyboardInterrupt
        elif key in _ENTER and not self._in_paste and not self._is_open():
            self.is_done = True
        elif key == _CTRL_D:
            if not self._bytes:
                raise click.Abort
            self.is_done = True
        elif key == _CTRL_U:
            self._bytes.clear()
        elif key in _BACKSPACES:
            del self._bytes[-1:]
        elif key in _ENTER or key == b"\t" or (key >= b" " and len(key) == 1):
            self._bytes += key

    def _is_open(self) -> bool:
        """Whether it begins a JSON text, whose end is to follow: not every terminal marks what is pasted."""
        return self._bytes.lstrip()[:1] == b"{" and b"}" not in self._bytes

    def text(self) -> Secret[str]:
        """Return what was typed."""
        return Secret(self._bytes.decode("utf-8", "surrogateescape"))
