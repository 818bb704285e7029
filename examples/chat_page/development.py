"""How the examples start by themselves, on this machine: with a key of the moment, and with an emulator if wanted."""

import atexit
import os
import secrets

from copilot_sync.emulator import Emulator, Reply
from copilot_sync.emulator.demo import demo_answer

#: Seconds between two words, so that one sees the answer stream in.
_PACE = 0.05


def prepare(*, emulated: bool) -> None:
    """Set up the environment of this process and of those that it starts.

    Args:
        emulated: Whether to serve an emulator, which has prepared answers, in place of the real Copilot.
    """
    if not os.environ.get("SECRET_KEY"):
        os.environ["SECRET_KEY"] = secrets.token_hex(32)
    if emulated:
        emulator = Emulator(reply=Reply(demo_answer, pace=_PACE)).start()
        atexit.register(emulator.close)
        # No proxy of the environment could reach a server of this machine.
        os.environ.update(emulator.environment, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
        print("This is the emulator: its answers are prepared, no model is involved.")
