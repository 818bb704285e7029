"""Which limit a refusal speaks of, and how long it lasts.

The status says little: 402, 403 and 429 may each mean "for a moment" or "for the rest of the month". Codes and headers
count for more, and sentences are read if there is no code.
"""

import re
from typing import Any, Iterable, Mapping, Optional, Set, Type, Union

from copilot_sync.errors import QuotaExceededError, RateLimitError
from copilot_sync.events import ErrorEvent
from copilot_sync.protocol.untrusted import RawReply, server_time
from copilot_sync.times import read_date

#: Codes, in ``snake_case``, of what is used up for long, and of what is too much for a moment.
_USED_UP = re.compile(
    r"quota(?!tion)|weekly|monthly|(?:^|_)(?:weeks?|months?)(?:_|$)|usage_?limit|billing_(?:\w+_)?limit"
    r"|insufficient_?(?:credit|fund|balance)"
)
_TOO_MUCH = re.compile(r"(?:^|_)rate_?limit|too_?many_?requests")
#: The same in sentences, for replies without a code. A quota for each minute is no lasting one.
_SAYS_USED_UP = re.compile(
    r"\bquota\b.*\b(?:exceeded|exhausted|reached|used up)|\bexceeded\b.*\bquota\b|\bno quota\b"
    r"|\b(?:weekly|monthly)\b.*\blimit|\blimit\b.*\b(?:week|month)\b",
    re.IGNORECASE,
)
_SAYS_FOR_A_MOMENT = re.compile(r"\bper[ -](?:second|minute|hour)|\b(?:seconds?|minutes?)\b", re.IGNORECASE)
_SAYS_TOO_MUCH = re.compile(r"rate[ _-]?limit|abuse detection|too many requests", re.IGNORECASE)
#: All keys under which a code may stand.
_CODE_KEYS = ("code", "type", "error_code", "errorCode", "reason", "error")
#: Characters. What is longer is no code.
_LONGEST_CODE = 64
_SECONDS = re.compile(r"\d{1,18}(\.\d{1,9})?")
#: Where the seconds to wait may stand, the most telling one first.
_WAIT_FIELDS = ("retry-after", "x-ratelimit-user-retry-after", "x-ratelimit-quota-exceeded-retry-after")


def limit_of(reply: RawReply, codes: Set[str], words: str) -> Optional[Type[RateLimitError]]:
    """Return the limit that a refusal speaks of, by its codes and headers before its status; ``None`` for none."""
    status = reply.status
    if status < 400 or status == 401:
        return None
    said = limit_of_codes(codes)
    if status == 402 or said is QuotaExceededError:
        return QuotaExceededError
    if said or status == 429 or (status == 403 and _tells_when(reply.headers)):
        return QuotaExceededError if is_lasting(words) else RateLimitError
    return limit_of_words(words) if status == 403 else None


def _tells_when(headers: Mapping[str, str]) -> bool:
    """Whether a refusal says when to come again, or that nothing is left of what is allowed."""
    is_used_up = re.fullmatch(r"\s*(?:-\d+|0+(?:\.0+)?)\s*", headers.get("x-ratelimit-remaining", "")) is not None
    return is_used_up or any(name in headers for name in _WAIT_FIELDS)


def is_lasting(words: str) -> bool:
    """Whether a sentence speaks of something that is used up for days or longer."""
    return _SAYS_USED_UP.search(words) is not None and _SAYS_FOR_A_MOMENT.search(words) is None


def limit_of_words(words: str) -> Optional[Type[RateLimitError]]:
    """Return the limit that a sentence speaks of, if neither code nor status names one; ``None`` for none."""
    if is_lasting(words):
        return QuotaExceededError
    return RateLimitError if _SAYS_TOO_MUCH.search(words) else None


def limit_of_codes(codes: Iterable[str]) -> Optional[Type[RateLimitError]]:
    """Return the limit that the codes name; ``None`` if they name none."""
    snakes = [snake_case(code) for code in codes]
    if any(_USED_UP.search(code) for code in snakes):
        return QuotaExceededError
    return RateLimitError if any(_TOO_MUCH.search(code) for code in snakes) else None


def snake_case(code: str) -> str:
    """Write a code in one way, whichever of the usual ones it came in."""
    return re.sub(r"[^a-z]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", code).lower())


def codes_of(event: ErrorEvent) -> Set[str]:
    """All that may be a code in what tells of an error."""
    return {event.code, *(_codes_in(event.data) if event.data else _codes_in(event.message))}


def _codes_in(data: Union[str, Mapping[str, Any]]) -> Set[str]:
    if isinstance(data, str):
        code = data.strip()
        return {code} if 0 < len(code) <= _LONGEST_CODE and " " not in code else set()
    found: Set[str] = set()
    nested = data.get("errors")
    inner = [data.get("error"), *(nested[:10] if isinstance(nested, list) else [])]
    for entry in (data, *(each for each in inner if isinstance(each, Mapping))):
        for key in _CODE_KEYS:
            if isinstance(entry.get(key), str):
                found |= _codes_in(entry[key])
    return found


def asks_to_come_again(headers: Mapping[str, str]) -> bool:
    """Whether there is a ``Retry-After`` that can be understood."""
    said = headers.get("retry-after", "").strip()
    return _SECONDS.fullmatch(said) is not None or read_date(said) is not None


def retry_after(headers: Mapping[str, str], now: float) -> Optional[float]:
    """How many seconds the server asks to wait; ``None`` for no word.

    ``Retry-After`` comes first, then what GitHub says of the user's limit and of the quota (seconds, seen on the API of
    editors), then ``x-ratelimit-reset``. An HTTP date and an epoch are compared with the server's own ``Date`` if it
    sends one, so that a wrong clock here does no harm.
    """
    now = server_time(headers, now)
    said = headers.get("retry-after", "").strip()
    moment = None if _SECONDS.fullmatch(said) else read_date(said)
    if moment is not None:
        return max(0.0, moment - now)
    for name in _WAIT_FIELDS:
        seconds = headers.get(name, "").strip()
        if _SECONDS.fullmatch(seconds):
            return float(seconds)
    reset = headers.get("x-ratelimit-reset", "").strip()
    return max(0.0, float(reset) - now) if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", reset) else None
