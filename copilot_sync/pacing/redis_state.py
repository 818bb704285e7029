"""The state of an account's limits in Redis: one script, which goes by the server's clock, and one round trip.

The script has the rules of ``account_state`` once more, in the server's language, because nothing else is atomic there
in one round trip. A test holds the two to each other, operation by operation.

Threads: what the script does is atomic; a ``redis.Redis`` may be shared by threads.
"""

import functools
import hashlib
import math
from typing import Any, Sequence

from copilot_sync.pacing.account_state import CAREFUL, GAP, HOUR, HOURS, IS_CAREFUL, RateRules
from copilot_sync.pacing.caches import is_interruption
from copilot_sync.pacing.shared_state import StoreError

_SCRIPT = f"""
local starts, slots, times = KEYS[1], KEYS[2], KEYS[3]
local name, numbers, holder = string.match(ARGV[1], '^(%S+) (.*);(.*)$')
local words = {{}}
for word in string.gmatch(numbers, '%S+') do words[#words + 1] = tonumber(word) or false end
local number, per_minute, concurrency, per_day, window, lease, given = unpack(words)
local function exact(value) return string.format('%.17g', value) end

local now = given
if now < 0 then
    local clock = redis.call('TIME')
    now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
end
local known, hours = {{}}, {{}}
local fields = redis.call('HGETALL', times)
for place = 1, #fields, 2 do
    (tonumber(fields[place]) and hours or known)[fields[place]] = tonumber(fields[place + 1])
end
local at, until_, turn = known['at'] or -math.huge, known['until'] or -math.huge, known['turn'] or -math.huge
local last = known['last'] or 0
local function put(key, score, member)
    redis.call('ZADD', key, exact(score), member)
    redis.call('EXPIRE', key, {25 * HOUR:.0f})
end
local function count(hour, by)
    local total = (hours[hour] or 0) + by
    hours[hour] = total > 0 and total or nil
    if total > 0 then redis.call('HSET', times, hour, exact(total)) else redis.call('HDEL', times, hour) end
end
if now < at then
    local by = now - at
    for _, key in ipairs({{starts, slots}}) do
        local members = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
        for place = 1, #members, 2 do
            redis.call('ZADD', key, exact(tonumber(members[place + 1]) + by), members[place])
        end
    end
    until_, turn = until_ + by, turn + by
    local total = 0
    for hour, part in pairs(hours) do
        total = total + part
        redis.call('HDEL', times, hour)
    end
    hours = {{}}
    if total > 0 then count(exact(math.floor((at + by) / {HOUR})), total) end
end

local function forget()
    redis.call('ZREMRANGEBYSCORE', starts, '-inf', exact(now - window))
end
local function start()
    if per_minute then
        last = last + 1
        put(starts, now, last)
    end
    if per_day then count(exact(math.floor(now / {HOUR})), 1) end
end
local function is_careful() return now < until_ + {CAREFUL} end

local function spent()
    local first, total, oldest = math.floor(now / {HOUR}) - {HOURS}, 0, math.huge
    for hour, part in pairs(hours) do
        if tonumber(hour) > first then
            total = total + part
            oldest = math.min(oldest, tonumber(hour))
        else
            count(hour, -part)
        end
    end
    return total, (oldest + {HOURS}) * {HOUR} - now, exact(oldest)
end

local function admit()
    local wait = math.max(until_, is_careful() and turn or now) - now
    if wait > 0 then return wait end
    if concurrency then
        redis.call('ZREMRANGEBYSCORE', slots, '-inf', exact(now))
        if redis.call('ZCARD', slots) >= concurrency then return math.huge end
    end
    if per_minute then
        forget()
        if redis.call('ZCARD', starts) >= per_minute then
            local first = redis.call('ZRANGE', starts, -per_minute, -per_minute, 'WITHSCORES')
            return tonumber(first[2]) + window - now
        end
    end
    if per_day then
        local total, seconds = spent()
        if total >= per_day then return seconds end
    end
    start()
    if concurrency then put(slots, now + lease, holder) end
    if is_careful() then
        turn = now + {GAP}
        return {IS_CAREFUL}
    end
    return 0
end

local function spend()
    if per_day then
        if until_ > now then return until_ - now end
        local total, seconds = spent()
        if total >= per_day then return seconds end
    end
    count(exact(math.floor(now / {HOUR})), number)
    return 0
end

local result = 0
if name == 'admit' then
    result = admit()
elseif name == 'leave' then
    redis.call('ZREM', slots, holder)
    for _ = 1, number do start() end
    forget()
    if number < 0 and per_minute then redis.call('ZREMRANGEBYRANK', starts, 0, 0) end
    if number < 0 and per_day then
        local total, _, oldest = spent()
        if total > 0 then count(oldest, -1) end
    end
elseif name == 'renew' then
    put(slots, now + lease, holder)
elseif name == 'pause' then
    until_ = math.max(until_, now + number)
    turn = math.max(turn, until_)
elseif name == 'look' then
    result = math.max(0, until_ - now)
    if result == 0 and is_careful() then result = {IS_CAREFUL} end
elseif name == 'spend' then
    result = spend()
elseif name == 'spent' then
    result = spent()
elseif name == 'turn' then
    local wait = math.max(until_, turn) - now
    if wait > 0 then
        result = wait
    elseif is_careful() then
        turn = now + {GAP}
    end
end
redis.call('HSET', times, 'at', exact(now), 'until', exact(until_), 'turn', exact(turn), 'last', exact(last))
redis.call('EXPIRE', times, math.ceil(math.max(25 * {HOUR}, until_ - now + {CAREFUL})))
return result == 0 and 0 or exact(result)
"""
_SHA = hashlib.sha1(_SCRIPT.encode()).hexdigest()  # noqa: S324 - it is how Redis names scripts


@functools.lru_cache(maxsize=64)
def _keys_of(account: str) -> Sequence[bytes]:
    """The keys of an account, which a cluster keeps together: few, and in bytes, as the client needs them."""
    return [f"copilot-sync-limits-{{{account}}}-{kind}".encode() for kind in ("starts", "slots", "times")]


@functools.lru_cache(maxsize=64)
def _in_words(name: str, number: float, rules: RateRules, now: float) -> bytes:
    """What the script is told, but for the holder. What is no number is no limit."""
    return f"{name} {number} {' '.join(map(str, rules))} {now};".encode()


class RedisStore:
    """A Redis that several machines may share.

    Args:
        redis: A ``redis.Redis``. Its ``socket_timeout`` is how long a call can be held up if the server is away.
    """

    is_instant = False

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def apply(self, account: str, name: str, rules: RateRules, holder: str = "", number: float = 0.0) -> float:
        """Do one operation.

        Raises:
            StoreError: Redis failed.
        """
        return self.apply_at(-1.0, account, name, rules, holder, number)

    def apply_at(self, now: float, account: str, name: str, rules: RateRules, holder: str, number: float) -> float:
        """Do one operation at a time that is given, instead of by the server's clock."""
        # One argument, because the client takes longer over each than the server over its parts.
        words = _in_words(name, number, rules, now) + holder.encode()
        try:
            try:
                result = self._redis.evalsha(_SHA, 3, *_keys_of(account), words)
            except Exception as error:  # its class is in a package that need not be there
                if type(error).__name__ != "NoScriptError":
                    raise
                result = self._redis.eval(_SCRIPT, 3, *_keys_of(account), words)
        except Exception as error:  # so is the class of these
            if is_interruption(error):
                raise
            raise StoreError(type(error).__name__) from None
        seconds = float(result)
        return seconds if math.isfinite(seconds) or seconds > 0 else 0.0
