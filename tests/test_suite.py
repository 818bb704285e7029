"""The suite itself: it passes however it is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment, in_background

#: Tests that press Ctrl-C: in this process, in programs, and in a terminal.
INTERRUPTED = [
    "test_emulator.py::test_ctrl_c_ends_serving_for_ever_and_everything_with_it",
    "test_stopping.py::test_ctrl_c_gets_through_wherever_the_call_is[before the head-plain-sync]",
    "test_cli_ask.py::test_ctrl_c_is_status_130",
    "test_cli_ask.py::test_a_typed_ctrl_c_leaves_the_terminal_in_order",
    "test_cli_chat.py::test_an_interrupted_chat_in_this_process_is_130",
]


@pytest.mark.timeout(180)  # a whole run of pytest
def test_ctrl_c_is_pressed_though_the_suite_was_started_in_the_background() -> None:
    """A shell makes the suite ignore Ctrl-C then, and what the suite starts would inherit that."""
    arguments = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "30", *INTERRUPTED]
    done = subprocess.run(
        in_background(arguments),
        cwd=Path(__file__).parent,
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(INTERRUPTED)} passed" in done.stdout
