"""The limits of an account in a real Redis: the script there and the rules here are the same."""

import contextlib
import itertools
import math
import random
import threading
from typing import Any, Iterator, List, Tuple

import pytest

from copilot_sync import Budget, BudgetExceededError, Client, RateLimit
from copilot_sync.emulator import Emulator
from copilot_sync.pacing.account_state import AccountState, RateRules
from copilot_sync.pacing.redis_state import RedisStore
from copilot_sync.pacing.shared_state import OPERATIONS, CacheStore, StoreError

RULES = [
    RateRules(),
    RateRules(per_minute=3),
    RateRules(concurrency=2),
    RateRules(per_day=5),
    RateRules(per_minute=5, concurrency=3, per_day=9),
]


@pytest.fixture
def redis(redis_url: str) -> Iterator[Any]:
    """A client, as a user makes one."""
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        yield client


def operations(seed: int) -> Iterator[Tuple[float, str, str, float]]:
    """What processes might do, with a clock that goes backwards now and then."""
    chance = random.Random(seed)
    now = 1_000_000.0
    for _ in range(120):
        now += chance.choice([0.0, 0.001, 0.3, 1.0, 10.0, 61.5, 4000.0, -0.5, -5000.0, 0.1, 0.2])
        name = chance.choice(["admit", "admit", "admit", "leave", "renew", "pause", "look", "turn"])
        number = {"leave": chance.randrange(-1, 3), "pause": chance.choice([0.2, 5.0, 90.0])}.get(name, 0)
        if chance.randrange(3) == 0:
            name = chance.choice(["spend", "spend", "spent"])
            number = chance.choice([0, 1, 1, 2, 5, -1, -2])
        yield now, name, f"s{chance.randrange(4)}", float(number)


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_the_script_does_what_the_rules_say(rules: RateRules, redis: Any) -> None:
    """Operation by operation."""
    for seed in range(10):
        state, store = AccountState(), RedisStore(redis)
        for number, (now, name, holder, value) in enumerate(operations(seed)):
            state.settle(now)
            expected = OPERATIONS[name](state, now, rules, holder, value)
            found = store.apply_at(now, f"a{seed}", name, rules, holder, value)
            assert found == pytest.approx(expected, abs=1e-6), (seed, number, name)


@pytest.mark.parametrize("rules", [RateRules(), RateRules(per_day=40)], ids=str)
def test_budgets_in_the_script_are_those_of_the_rules(rules: RateRules, redis: Any) -> None:
    """Also if they are large, and if the clock goes backwards."""
    chance = random.Random(5)
    for seed in range(10):
        state, store, now = AccountState(), RedisStore(redis), 1_000_000.0
        for number in range(120):
            now += chance.choice([0.0, 1.0, 600.0, 4000.0, -0.5, -5000.0])
            name = chance.choice(["spend", "spend", "spend", "spent", "pause"])
            value = float(chance.choice([0, 1, 1, 7, -1, -3, 10**9]) if name == "spend" else 2)
            limit = chance.choice([rules, RateRules()])
            state.settle(now)
            expected = OPERATIONS[name](state, now, limit, "", value)
            found = store.apply_at(now, f"b{seed}", name, limit, "", value)
            assert found == pytest.approx(expected, abs=1e-6), (seed, number, name)


def test_clients_share_a_budget_in_it(redis: Any) -> None:
    """Of threads with clients of their own, as many are answered as it has requests."""
    with Emulator() as emulator:
        places = {"cookies": emulator.cookies, "github_url": emulator.github_url, "api_url": emulator.api_url}
        answers: List[str] = []

        def ask() -> None:
            with Client(**places, budget=Budget({"requests": 7, "output_tokens": 90}), shared=redis) as client:
                for _ in range(4):
                    with contextlib.suppress(BudgetExceededError):
                        answers.append(client.ask("hi", user="ann").text)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == ["hi"] * 7
    (spent,) = redis.keys("*-day-output_tokens}-times")
    assert [field for field in redis.hkeys(spent) if field.isdigit()]  # an hour


def test_it_goes_by_the_clock_of_the_server(redis: Any) -> None:
    """All who ask have the same, and it takes one round trip."""
    store = RedisStore(redis)
    one = RateRules(concurrency=1, lease=0.2)
    assert store.apply("x", "admit", one, "s1") == 0
    assert store.apply("x", "admit", one, "s2") == math.inf
    threading.Event().wait(0.25)
    assert store.apply("x", "admit", one, "s2") == 0
    commands = redis.info("commandstats")
    assert commands["cmdstat_eval"]["calls"] == 1
    assert commands["cmdstat_evalsha"]["calls"] == 3
    assert all(0 < redis.ttl(key) <= 25 * 3600 for key in redis.keys("copilot-sync-limits-*x*"))


def test_clients_share_their_limits_in_it(redis: Any) -> None:
    """Of threads with clients of their own, one is under way at a time."""
    with Emulator() as emulator:
        places = {"cookies": emulator.cookies, "github_url": emulator.github_url, "api_url": emulator.api_url}

        def ask(inside: List[int] = []) -> None:  # noqa: B006 - all threads share it
            with Client(**places, rate_limit=RateLimit(concurrency=1), shared=redis) as client:
                for _ in range(3):
                    with client.stream("hi") as stream:
                        next(stream)
                        inside.append(1)
                        seen.append(len(inside))
                        inside.pop()
                        stream.read()

        seen: List[int] = []
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [1] * 12


def test_a_redis_that_has_gone_is_an_error(redis: Any) -> None:
    """Not an answer."""
    store = RedisStore(redis)
    store.apply("x", "look", RateRules())
    redis.shutdown(nosave=True)
    with pytest.raises(StoreError):
        store.apply("x", "look", RateRules())


@pytest.fixture
def cache(redis_url: str) -> Any:
    """Django's cache, as a site has it."""
    caches = pytest.importorskip("django.core.cache.backends.redis")
    return caches.RedisCache(redis_url, {})


def test_a_cache_of_django_in_it_lets_in_no_more_than_the_limit(cache: Any) -> None:
    """By its lock."""
    stores = [CacheStore(cache) for _ in range(4)]
    got: List[float] = []
    numbers = itertools.count()

    def ask(store: CacheStore) -> None:
        for _ in range(10):
            got.append(store.apply("y", "admit", RateRules(per_minute=15), f"s{next(numbers)}"))

    threads = [threading.Thread(target=ask, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count(0) == 15
