"""What the examples need besides a chat: a key for their sessions, and how they start by themselves."""

import atexit
import os
import secrets

from copilot_sync import RetryPolicy
from copilot_sync.emulator import Emulator, Reply
from copilot_sync.emulator.demo import demo_answer

#: Somebody is looking on: better be told soon that it does not work than be kept waiting.
RETRY = RetryPolicy(attempts=3, max_wait=5.0)
#: Where several processes share what they keep; ``None`` if each keeps its own.
REDIS_URL = os.environ.get("REDIS_URL")
#: Seconds for which an answer is read on after its reader has left.
CHAT_BACKGROUND = float(os.environ.get("CHAT_BACKGROUND", "0"))
#: Seconds between two words, so that one sees the answer stream in.
_PACE = 0.05


def secret_key() -> str:
    """Return the key that signs the sessions. All processes of a site need the same one.

    Raises:
        RuntimeError: There is none in the environment.
    """
    key = os.environ.get("SECRET_KEY")
    if not key:
        raise RuntimeError("set SECRET_KEY to a long random text, such as that of: openssl rand -hex 32")
    return key


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
