"""docs/observability.rst is a promise: its Python runs, and its tables have what the code has.

The blocks that need OpenTelemetry or Prometheus run in ``tests/engines``.
"""

import inspect
import logging
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Dict, List

import pytest

import copilot_sync
from copilot_sync.delivery import reporter
from copilot_sync.emulator import Emulator, Fault

PAGE = Path(__file__).parents[1].joinpath("docs", "observability.rst").read_text(encoding="utf-8")
PROGRAMS = [
    textwrap.dedent(block).strip()
    for block in re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", PAGE, re.MULTILINE)
]
PLAIN = [program for program in PROGRAMS if not re.search("django|opentelemetry|prometheus", program)]


def ran(program: str) -> "subprocess.CompletedProcess[str]":
    """A program, with nothing but the environment set."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(copilot_sync.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_the_first_block_tells_of_a_retry_and_of_the_end(served: Emulator) -> None:
    """In the words of the page."""
    served.fail("message", Fault.status(503, retry_after=0))
    told = ran(PLAIN[0]).stdout.splitlines()
    assert re.fullmatch(r"call 1: ServerError, again in \d\.\d s", told[0])
    assert re.fullmatch(r"call 1: finished after \d+\.\d\d s, Usage\(.*\)", told[1])


def test_a_hook_of_the_process_is_told(served: Emulator) -> None:
    """Of the provider's calls, too."""
    assert ran(PLAIN[1]).stdout.count("CallEvent(kind=") == 3


def test_the_log_has_the_lines_of_the_page(served: Emulator) -> None:
    """But for the host and the seconds."""
    served.fail("message", Fault.status(503, retry_after=0))
    log = ran(PLAIN[2]).stderr
    shown = re.findall(r"^    (message: .*)$", PAGE, re.MULTILINE)
    assert len(shown) == 2
    for line in shown:
        pattern = re.escape(line).replace("https", "http").replace(r"api\.individual\.githubcopilot\.com", r"[\d.:]+")
        assert re.search(re.sub(r"\d\\\.\d+", r"\\d+\\.\\d+", pattern), log), line


def test_a_receiver_is_connected() -> None:
    """It is sent an event as the page says."""
    pytest.importorskip("django")
    from copilot_sync.contrib.django.signals import call_event

    (program,) = [program for program in PROGRAMS if "django" in program]
    names: Dict[str, Any] = {}
    before = list(call_event.receivers)
    exec(program, names)
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
