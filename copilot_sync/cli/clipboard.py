"""The clipboard of the terminal that somebody sits at, also at the other end of an ssh connection.

The text goes to the terminal in the control sequence OSC 52. A terminal does not say whether it took it.
"""

import base64
import sys

from copilot_sync.cli.language import _
from copilot_sync.cli.terminal import is_dumb, is_terminal
from copilot_sync.safe_text import well_formed

#: Bytes of a text at most. Terminals that take less than any length take 100,000 bytes of a sequence, hterm's limit.
LONGEST = 74_994


def copy_to_clipboard(text: str) -> str:
    """Copy a text, and return what to tell the user about it."""
    screen = next(filter(is_terminal, (sys.stdout, sys.stderr)), None)
    if screen is None or is_dumb():
        return _("there is no terminal here that has a clipboard")
    content = well_formed(text).encode()
    if len(content) > LONGEST:
        words = _("the answer is too long for a terminal's clipboard, which takes {count} bytes; /save writes a file")
        return words.format(count=LONGEST)
    screen.write(f"\x1b]52;c;{base64.b64encode(content).decode()}\x07")
    screen.flush()
    return _("the answer was sent to the clipboard of the terminal; some terminals have to be told to allow it")
