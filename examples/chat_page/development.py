"""How the examples start by themselves, on this machine: with a key of the moment, and with an emulator if wanted."""

import atexit
import os
import secrets

from copilot_sync.emulator import Emulator, Reply

#: Seconds between two words, so that one sees the answer stream in.
_PACE = 0.05


def prepare(*, emulated: bool) -> None:
    """Set up the environment of this process and of those that it starts.

    Args:
        emulated: Whether to serve an emulator, which repeats what it is asked, in place of the real Copilot.
    """
    if not os.environ.get("SECRET_KEY"):
        os.environ["SECRET_KEY"] = secrets.token_hex(32)
    if emulated:
        emulator = Emulator(reply=Reply(pace=_PACE)).start()
        atexit.register(emulator.close)
        # No proxy of the environment could reach a server of this machine.
        os.environ.update(emulator.environment, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
        print("This is the emulator, which repeats what it is asked; no model is involved.")
