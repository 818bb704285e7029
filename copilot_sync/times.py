"""Reads moments in time, in every way in which the service, its proxies and browsers write them.

The one reader for the whole package: a token's end, a reply's ``Date`` and ``Retry-After``, a cookie's expiry. It is
made of regular expressions and arithmetic. ``strptime`` takes a lock and imports a module when it is first used, which
a thread that was forked or interrupted at that moment would wait for without an end.
"""

import math
import re
from datetime import datetime, timezone
from typing import Dict, Optional

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: Above it a number is in milliseconds, as Firefox has it from version 153 on: as seconds it would be the year 5138.
_MILLISECONDS_ABOVE = 1e11
_LONGEST_TEXT = 100
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
#: Hours from UTC of the zones that have names in dates of mail and HTTP (RFC 5322, 4.3).
_ZONES: Dict[str, int] = {
    **dict.fromkeys(("", "z", "ut", "utc", "gmt"), 0),
    "edt": -4,
    **dict.fromkeys(("est", "cdt"), -5),
    **dict.fromkeys(("cst", "mdt"), -6),
    **dict.fromkeys(("mst", "pdt"), -7),
    "pst": -8,
}

_CLOCK = r"(?P<hour>\d\d?):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,]\d+)?)?"
_ZONE = r"\s*(?P<zone>[a-z]{1,3}|(?:gmt|utc?)?[+-]\d\d(?::?\d\d)?)?(?:\s*\([^()]*\))?"
_FORMS = [
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        # 2026-06-27T13:15:06.000Z, 20260627T131506Z, 2026-06-27 15:15 +02:00, 2026-06-27
        rf"(?P<year>\d{{4}})-?(?P<month>\d\d)-?(?P<day>\d\d)(?:(?:t|\s+){_CLOCK}{_ZONE})?",
        # Sat, 27 Jun 2026 13:15:06 GMT; Saturday, 27-Jun-26 13:15:06 GMT
        rf"(?:[a-z]{{3,9}},?\s+)?(?P<day>\d\d?)[\s-]+(?P<name>[a-z]{{3}})[a-z]*[\s-]+(?P<year>\d{{4}}|\d\d)\s+{_CLOCK}{_ZONE}",
        # Sat Jun 27 13:15:06 2026
        rf"[a-z]{{3}}\s+(?P<name>[a-z]{{3}})\s+(?P<day>\d\d?)\s+{_CLOCK}\s+(?P<year>\d{{4}})(?P<zone>)",
        # Sat Jun 27 2026 13:15:06 GMT+0200 (Central European Summer Time)
        rf"[a-z]{{3}}\s+(?P<name>[a-z]{{3}})\s+(?P<day>\d\d?)\s+(?P<year>\d{{4}})\s+{_CLOCK}{_ZONE}",
    )
]


def read_time(value: object) -> Optional[float]:
    """Read a moment: a number of seconds or milliseconds, such a number as text, or a date.

    Returns:
        Seconds since 1970; ``None`` if it is no moment.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    except ValueError:
        return read_date(str(value))
    if not abs(number) < float("inf"):  # nor what is no number
        return None
    return number / 1000 if number > _MILLISECONDS_ABOVE else number


def read_date(text: str) -> Optional[float]:
    """Read a date as ISO 8601, HTTP, cookies, mail or JavaScript have it, without a zone in UTC.

    Returns:
        Seconds since 1970, fractions cut off; ``None`` if it is no date.
    """
    text = text.strip()
    if len(text) > _LONGEST_TEXT:
        return None
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is not None:
            return _moment(match.groupdict())
    return None


def in_words(moment: float) -> str:
    """Write a moment, in seconds since 1970, as a date and a time of day in UTC, such as ``2026-06-27 13:15 UTC``."""
    return f"{datetime.fromtimestamp(moment, timezone.utc).isoformat(' ', 'minutes')[:-6]} UTC"


def duration(seconds: float) -> str:
    """Write how long something takes, such as ``42 s``, ``1 min 30 s``, ``2 h 5 min`` or ``3 d 4 h``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def waiting_time(seconds: float) -> str:
    """Write how long to wait, as ``duration`` does: in whole seconds, of which the last one is waited for, too."""
    return duration(math.ceil(round(max(0.0, seconds), 1)))


def _moment(parts: Dict[str, Optional[str]]) -> Optional[float]:
    offset = _offset((parts["zone"] or "").lower())
    name = parts.get("name")
    number = {key: int(parts.get(key) or 0) for key in ("month", "day", "hour", "minute", "second")}
    if number["second"] == 60:  # a leap second, which datetime does not know
        number["second"] = 59
    try:
        if name is not None:
            number["month"] = _MONTHS.index(name.lower()) + 1
        moment = datetime(_year(str(parts["year"])), tzinfo=timezone.utc, **number)
    except ValueError:
        return None
    return None if offset is None else (moment - _EPOCH).total_seconds() - offset


def _year(digits: str) -> int:
    """The year; of two digits, as RFC 6265 has it for cookies."""
    year = int(digits)
    if len(digits) > 2:
        return year
    return year + (1900 if year >= 70 else 2000)


def _offset(zone: str) -> Optional[int]:
    """Seconds by which a zone is ahead of UTC; ``None`` for one that is not known or can't be."""
    if zone in _ZONES:
        return _ZONES[zone] * 3600
    sign, digits = zone.lstrip("gmtuc")[:1], zone.lstrip("gmtuc")[1:].replace(":", "")
    if sign not in ("+", "-"):
        return None
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:
        return None
    return (hours * 3600 + minutes * 60) * (-1 if sign == "-" else 1)
