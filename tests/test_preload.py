"""What a call may need for the first time is loaded when a client is made."""

import logging
from typing import Any, Dict

import pytest

from copilot_sync.transport.preload import preload


def test_another_thread_may_make_a_logger_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loggers of the process are everybody's, and grow at any moment."""
    known: Dict[str, Any] = {}

    class Name(str):
        def startswith(self, *args: object) -> bool:
            known["of another thread"] = logging.getLogger()
            return False

    known[Name("a logger")] = logging.getLogger()
    monkeypatch.setattr(logging.root.manager, "loggerDict", known)
    preload()
    assert "of another thread" in known
