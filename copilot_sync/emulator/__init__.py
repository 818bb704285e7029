"""A local Copilot that speaks the real one's wire: for trying things out, and for tests.

It serves the protocol on loopback, with state: cookies become tokens that expire, threads hold
messages, models are listed. What it answers can be scripted, and so can what goes wrong.

    from copilot_sync.emulator import Emulator, Fault, Reply

    with Emulator() as emulator:
        emulator.script(Reply(["Hel", "lo"], pace=0.05))
        emulator.fail("message", Fault.status(502))
        ...  # point a client at emulator.github_url and emulator.api_url

This package imports nothing of the client: it is a second, independent reading of the protocol.
Names are loaded when they are first used, so that pytest can load the plugin in here at no cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List

if TYPE_CHECKING:
    from .http1 import Headers as Headers
    from .replies import Fault as Fault
    from .replies import Reply as Reply
    from .replies import Script as Script
    from .scenario import Disconnect as Disconnect
    from .scenario import Leak as Leak
    from .server import Emulator as Emulator
    from .service import Options as Options
    from .service import RecordedRequest as RecordedRequest
    from .service import StoredThread as StoredThread

_HOMES = {
    "Disconnect": "scenario",
    "Emulator": "server",
    "Fault": "replies",
    "Headers": "http1",
    "Leak": "scenario",
    "Options": "service",
    "RecordedRequest": "service",
    "Reply": "replies",
    "Script": "replies",
    "StoredThread": "service",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> List[str]:
    return sorted([*globals(), *__all__])
