"""Moments in time are read in every way in which they are written, without what takes a lock or imports something."""

import subprocess
import sys
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_sync.times import duration, read_date, read_time, waiting_time

MOMENT = 1_782_566_106.0  # 2026-06-27T13:15:06Z


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-27T13:15:06Z",
        "2026-06-27t13:15:06z",
        "2026-06-27T13:15:06",
        " 2026-06-27 13:15:06 \n",
        "2026-06-27T13:15:06.627141074Z",
        "2026-06-27T13:15:06,5Z",
        "2026-06-27T15:15:06+02:00",
        "2026-06-27 15:15:06 +0200",
        "2026-06-27T15:15:06+02",
        "2026-06-27T07:45:06.5-05:30",
        "20260627T131506Z",
        "2026-06-27T13:15:06 UTC",
        "Sat, 27 Jun 2026 13:15:06 GMT",
        "27 Jun 2026 13:15:06 +0000",
        "Sat, 27 Jun 2026 08:15:06 EST",
        "Sat, 27-Jun-2026 13:15:06 GMT",
        "Saturday, 27-Jun-26 13:15:06 GMT",
        "Sat Jun 27 13:15:06 2026",
        "Sat Jun 27 2026 15:15:06 GMT+0200 (Central European Summer Time)",
    ],
)
def test_a_date_is_read_however_it_is_written(text: str) -> None:
    """As the service, HTTP, mail, cookies and browsers do it; fractions of a second are cut off."""
    assert read_date(text) == MOMENT
    assert read_time(text) == MOMENT


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (1_782_566_106, MOMENT),
        (1_782_566_106.0, MOMENT),
        (1_782_566_106_000, MOMENT),
        ("1782566106", MOMENT),
        ("1782566106000", MOMENT),
        ("2026-06-27", 1_782_518_400.0),
        ("2026-06-27T13:15Z", MOMENT - 6),
        ("Sat, 27 Jun 2026 13:15:60 GMT", MOMENT + 53),
        ("Thu, 01-Jan-70 00:00:00 GMT", 0.0),
        ("Tue, 31 Dec 69 23:59:59 GMT", 3_155_759_999.0),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140.0),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139.0),
        (0, 0.0),
        ("-1", -1.0),
    ],
    ids=repr,
)
def test_numbers_and_the_ends_of_the_calendar(value: Any, moment: float) -> None:
    """Seconds or milliseconds, numbers or text; a leap second is the second before it; years of two digits."""
    assert read_time(value) == moment


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [],
        "",
        "soon",
        "Session",
        float("nan"),
        float("inf"),
        "nan",
        "1e400",
        10**400,
        "Tue, 99 Foo 2026",
        "Sat, 27 Foo 2026 13:15:06 GMT",
        "Sat, 27 Jun 2026 13:15:06 CET",
        "2026-02-30T00:00:00Z",
        "2026-06-27T25:00:00Z",
        "2026-06-27T13:15:06+99:00",
        "2026-06-27T13:15:06+01:99",
        "2026-06-27T13:15:06mtg",
        "0000-01-01T00:00:00Z",
        "2026-06-27T13:15:06Z" * 1000,
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_no_moment_is_none(value: Any) -> None:
    """Nothing is raised, and nothing is guessed."""
    assert read_time(value) is None


@given(st.datetimes(), st.integers(-1439, 1439))
def test_every_moment_comes_back(moment: datetime, minutes: int) -> None:
    """In ISO 8601 with any zone, and as HTTP has it."""
    moment = moment.replace(microsecond=0, tzinfo=timezone.utc)
    seconds = (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds()
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    assert read_date(moment.replace(tzinfo=None).isoformat() + zone) == seconds - minutes * 60
    if moment.year >= 1000:  # the standard library writes earlier ones with fewer digits
        assert read_date(format_datetime(moment, usegmt=True)) == seconds


@given(st.one_of(st.text(), st.integers(), st.floats(), st.text("0123456789TZ:-+ JunGMT,")))
def test_nothing_else_comes_out(value: Any) -> None:
    """A number or nothing, whatever comes in."""
    moment: Optional[float] = read_time(value)
    assert moment is None or isinstance(moment, float)


def test_nothing_is_imported_by_reading() -> None:
    """``strptime`` imports a module when it is first used, and holds a lock whenever it is."""
    code = (
        "import sys; from copilot_sync.times import read_time; before = set(sys.modules);"
        "read_time('2026-06-27T13:15:06Z'); read_time('Sat, 27 Jun 2026 13:15:06 GMT');"
        "print(sorted(set(sys.modules) - before), '_strptime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.split() == [b"[]", b"False"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 1 min"),
        (266400, "3 d 2 h"),
    ],
)
def test_a_time_is_told_in_words(seconds: float, words: str) -> None:
    """As short as it can be."""
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-0.1, "0 s"), (0.3, "1 s"), (20.0000001, "20 s"), (41.6, "42 s"), (86400.0, "1 d 0 h"), (85000.2, "23 h 36 min")],
)
def test_a_wait_is_told_to_its_end(seconds: float, words: str) -> None:
    """Whoever comes back then does not come too soon; what a clock adds by rounding is no second."""
    assert waiting_time(seconds) == words
