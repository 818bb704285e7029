"""The lesson about a night of prompts promises how long it is. The numbers follow from the defaults of the code."""

import re
from pathlib import Path

import pytest

from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.limiter import pace_for
from copilot_sync.times import duration

LESSON = (Path(__file__).parents[2] / "docs" / "lesson_overnight.rst").read_text(encoding="utf-8")
PROMPTS = 10_000
CONCURRENCY, RATE = pace_for(None)
ROWS = re.findall(r"^(\d+)(?: or less)? +(\d+) +(\d+ h \d+ min)$", LESSON, re.MULTILINE)


def test_the_table_of_the_night_is_found() -> None:
    """It begins with the default pace, and with the longest answer that keeps it."""
    assert len(ROWS) == 4
    assert ROWS[0][:2] == (f"{CONCURRENCY * 60 / RATE:g}", f"{RATE:g}")  # type: ignore[operator]


@pytest.mark.parametrize(("answer", "rate", "night"), ROWS)
def test_a_night_takes_what_the_lesson_says(answer: str, rate: str, night: str) -> None:
    """As long as the limit of the account asks for, or as long as the answers take if that is more."""
    by_limit = PROMPTS / int(rate) * RateRules().window
    by_answers = PROMPTS * int(answer) / CONCURRENCY
    assert duration(max(by_limit, by_answers)) == night


def test_the_window_of_the_lesson_is_that_of_the_limit() -> None:
    """A start counts for so long."""
    assert f"counts a start for {RateRules().window:g} seconds" in " ".join(LESSON.split())
