"""What a call may need for the first time is loaded when a client is made."""

import logging

import pytest

from copilot_sync.transport.preload import preload


def test_another_thread_may_make_a_logger_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loggers of the process are everybody's, and grow at any moment."""
    known = dict(logging.root.manager.loggerDict)

    class Name(str):
        def startswith(self, *args: object) -> bool:
            known[f"another {len(known)}"] = logging.getLogger("another")
            return False

    known[Name("made by a thread")] = logging.getLogger("a thread's")
    monkeypatch.setattr(logging.root.manager, "loggerDict", known)
    preload()
    assert any(name.startswith("another ") for name in list(known))
