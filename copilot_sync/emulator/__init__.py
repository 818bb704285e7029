"""A local Copilot that speaks the same protocol as the real one: to try things out, and for tests.

It serves the protocol on loopback, with state: cookies are exchanged for tokens that expire, threads hold
messages, models are listed. You can script what it answers, and what goes wrong.

    from copilot_sync.emulator import Emulator, Fault, Reply

    with Emulator() as emulator:
        emulator.script(Reply(["Hel", "lo"], pace=0.05))
        emulator.fail("message", Fault.status(502))
        ...  # point a client at emulator.github_url and emulator.api_url

This package imports nothing of the client: it is a second, independent reading of the protocol.
Names are loaded on first use, so that pytest can load the plugin in here at no cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List

if TYPE_CHECKING:
    from copilot_sync.emulator.fault_script import Disconnect as Disconnect
    from copilot_sync.emulator.fault_script import Leak as Leak
    from copilot_sync.emulator.faults import Fault as Fault
    from copilot_sync.emulator.http1 import Headers as Headers
    from copilot_sync.emulator.replies import Reply as Reply
    from copilot_sync.emulator.replies import Script as Script
    from copilot_sync.emulator.server import Emulator as Emulator
    from copilot_sync.emulator.state import EmulatorOptions as EmulatorOptions
    from copilot_sync.emulator.state import RecordedRequest as RecordedRequest
    from copilot_sync.emulator.state import StoredThread as StoredThread

_HOMES = {
    "Disconnect": "fault_script",
    "Emulator": "server",
    "EmulatorOptions": "state",
    "Fault": "faults",
    "Headers": "http1",
    "Leak": "fault_script",
    "RecordedRequest": "state",
    "Reply": "replies",
    "Script": "replies",
    "StoredThread": "state",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> List[str]:
    return sorted([*globals(), *__all__])
