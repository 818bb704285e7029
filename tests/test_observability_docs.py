"""docs/observability.rst is a promise: its Python runs, and its tables have what the code has.

The blocks that need OpenTelemetry or Prometheus run in ``tests/engines``.
"""

import inspect
import logging
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest
from blocks import DOCS, blocks_of, text_with, type_block

import copilot_sync
from copilot_sync.delivery import reporter
from copilot_sync.emulator import Emulator, Fault

PAGE = (DOCS / "observability.rst").read_text(encoding="utf-8")
BLOCKS = blocks_of(DOCS / "observability.rst", "python")
PLAIN = [block for block in BLOCKS if not re.search("django|opentelemetry|prometheus", block.text)]


def test_the_first_block_tells_of_a_retry_and_of_the_end(served: Emulator, tmp_path: Path) -> None:
    """In the words of the page."""
    served.fail("message", Fault.status(503, retry_after=0))
    told = type_block(PLAIN[0], tmp_path).splitlines()
    assert re.fullmatch(r"call 1: ServerError, again in \d\.\d s", told[0])
    assert re.fullmatch(r"call 1: finished after \d+\.\d\d s, Usage\(.*\)", told[1])


@pytest.mark.usefixtures("served")
def test_a_hook_of_the_process_is_told(tmp_path: Path) -> None:
    """Of the provider's calls, too."""
    assert type_block(PLAIN[1], tmp_path).count("CallEvent(kind=") == 3


@pytest.mark.usefixtures("served")
def test_the_log_has_the_lines_of_the_page(tmp_path: Path) -> None:
    """All of them, in their order."""
    assert len(type_block(PLAIN[2], tmp_path).splitlines()) == len(str(PLAIN[2].shown).splitlines()) == 4


def test_a_receiver_is_connected() -> None:
    """It is sent an event as the page says."""
    pytest.importorskip("django")
    from copilot_sync.contrib.django.signals import call_event

    names: Dict[str, Any] = {}
    before = list(call_event.receivers)
    exec(text_with("django", DOCS / "observability.rst", "python"), names)
    try:
        assert len(call_event.receivers) == len(before) + 1
    finally:
        call_event.disconnect(names["note"])


def test_all_kinds_of_events_are_named() -> None:
    """And no others, on the page as in the docstring of the event."""
    rows: List[str] = re.findall(r"^``(\w+)`` +[A-Z]", PAGE, re.MULTILINE)
    told = re.findall(r'_(?:tell|end)\("(\w+)"', inspect.getsource(reporter))
    levels = [name for name in rows if name.isupper()]
    assert set(rows) - set(levels) == set(told)
    assert all(f"``{kind}``" in (copilot_sync.CallEvent.__doc__ or "") for kind in told)
    assert all(hasattr(logging, level) for level in levels) and len(levels) == 3
