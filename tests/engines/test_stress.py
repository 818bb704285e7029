"""The programs that measure what a promise is worth under stress, at their small size: each figure is in its bounds."""

import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

ROOT = Path(__file__).parents[2]
STRESS = Path("tests", "stress")
PROGRAMS = (
    "answers",
    "cancelled",
    "forks",
    "free_threads",
    "interruptions",
    "leaving",
    "limits",
    "storms",
    "token_file",
)


def output_of(*command: str) -> str:
    """What a program prints; it has to end well."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def bounded(output: str) -> List[str]:
    """The lines of figures that have bounds."""
    return [line for line in output.splitlines() if "  at most " in line or "  at least " in line]


@pytest.mark.timeout(400)  # whole programs, beside other work
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_figure_is_in_its_bounds(program: str) -> None:
    """What could go wrong was tried, and none of it did."""
    figures = bounded(output_of(str(STRESS / f"{program}.py"), "--short"))
    assert len(figures) > 4
    assert [line for line in figures if "WRONG" in line] == []


def test_a_batch_that_is_killed_again_and_again_asks_each_prompt_once() -> None:
    """It leaves one result for each, and no file but the output."""
    output = output_of("benchmarks/batch_kill.py", "--prompts", "300", "--kills", "5")
    assert "every prompt has one result, and none was asked twice" in output
