"""What may begin by what is known of an account: arithmetic, at times that the tests choose."""

import json
import math
from typing import Any, List, Optional

import pytest

from copilot_sync.pacing.account_state import CAREFUL, GAP, HOUR, IS_CAREFUL, AccountState, RateRules

T = 1_000_000.0
FREE = RateRules()


def state_at(now: float = T) -> AccountState:
    state = AccountState()
    state.settle(now)
    return state


def at(state: AccountState, now: float) -> AccountState:
    state.settle(now)
    return state


def begun(state: AccountState, rules: RateRules, times: List[float]) -> List[float]:
    """Ask at each time; return what was answered."""
    return [at(state, T + seconds).admit(T + seconds, rules, f"s{seconds}") for seconds in times]


def test_without_limits_all_begin() -> None:
    """Nothing is kept of them."""
    state = state_at()
    assert begun(state, FREE, [0, 0, 0, 1]) == [0.0] * 4
    assert (state.starts, state.hours, state.slots) == ([], {}, {})


def test_so_many_begin_in_a_minute_and_a_margin() -> None:
    """The next one may when the first has counted long enough."""
    state = state_at()
    assert begun(state, RateRules(per_minute=2), [0, 10, 20, 61, 61.5, 61.6]) == [
        0,
        0,
        41.5,
        0.5,
        0,
        pytest.approx(9.9),
    ]


def test_what_counts_no_more_is_forgotten() -> None:
    """The state does not grow."""
    state = state_at()
    rules = RateRules(per_minute=1000)
    for number in range(300):
        assert at(state, T + number).admit(T + number, rules, "s") == 0
    assert len(state.starts) == 62


def test_so_many_hold_a_slot_until_it_is_given_back_or_its_lease_ends() -> None:
    """A renewed lease lasts from then on."""
    state, rules = state_at(), RateRules(concurrency=2, lease=30)
    assert begun(state, rules, [0, 1, 2]) == [0, 0, math.inf]
    state.leave(T + 3, rules, "s1", 0)
    assert begun(state, rules, [4, 5]) == [0, math.inf]
    state.renew(T + 20, rules, "s4")
    assert begun(state, rules, [29.9, 30, 45, 50]) == [math.inf, 0, math.inf, 0]


def test_a_message_that_was_sent_again_counts_again() -> None:
    """From when that is known."""
    state, rules = state_at(), RateRules(per_minute=3, concurrency=5)
    assert begun(state, rules, [0]) == [0]
    at(state, T + 5).leave(T + 5, rules, "s0", 2)
    assert begun(state, rules, [6]) == [55.5]


def test_a_call_that_sent_nothing_does_not_count() -> None:
    """As one that began a conversation alone. What is left is no older than what it stands for."""
    state, rules = state_at(), RateRules(per_minute=2, per_day=3)
    assert begun(state, rules, [0, 5, 6]) == [0, 0, 55.5]
    at(state, T + 6).leave(T + 6, rules, "s0", -1)
    assert (state.starts, sum(state.hours.values())) == ([T + 5], 1)
    state.leave(T + 6, rules, "s5", -1)
    state.leave(T + 6, rules, "s5", -1)
    assert (state.starts, state.hours) == ([], {})
    state.leave(T + 6, FREE, "s5", -1)
    assert begun(state, rules, [7]) == [0]
    assert begun(state, RateRules(per_day=3), [8]) == [0]
    state.leave(T + 8, RateRules(per_day=3), "s8", -1)
    assert sum(state.hours.values()) == 1


def test_so_many_begin_in_a_day() -> None:
    """Which is counted by hours: what began in one counts until that hour is a day ago."""
    state, rules = state_at(), RateRules(per_day=3)
    ends = (math.floor(T / HOUR) + 24) * HOUR - T
    assert begun(state, rules, [0, 0, HOUR, 5000, ends, ends, ends + 1]) == [0, 0, 0, ends - 5000, 0, 0, HOUR - 1]


def test_so_much_is_spent_in_a_day() -> None:
    """What reaches the limit is the last that is let in, however much it is; so much counts until its hour has gone."""
    state, rules = state_at(), RateRules(per_day=10)
    assert [state.spend(T, rules, number) for number in (0, 9, 5)] == [0, 0, 0]
    ends = (math.floor(T / HOUR) + 24) * HOUR - T
    assert [at(state, T + 5000).spend(T + 5000, rules, number) for number in (0, 1, -9)] == [ends - 5000] * 3
    assert state.spent(T + 5000) == 14
    assert state.spend(T + 5000, FREE, 3) == 0
    assert (state.spent(T + ends - 1), state.spent(T + ends)) == (17, 3)
    assert at(state, T + ends).spend(T + ends, rules, 1) == 0


def test_what_an_hour_has_spent_can_be_given_back() -> None:
    """No more than that, and what was spent before counts on."""
    state = state_at()
    state.spend(T, FREE, 3)
    later = T + HOUR
    for number, left in ((2, 5), (-1, 4), (-1, 3), (-1, 3)):
        at(state, later).spend(later, FREE, number)
        assert state.spent(later) == left
    assert len(state.hours) == 1


def test_nothing_is_spent_in_a_pause_but_what_was_used_already() -> None:
    """A state that could not be read begins with one."""
    state = state_at()
    state.pause(T, 30)
    assert state.spend(T, RateRules(per_day=5), 1) == 30
    assert state.spend(T, FREE, 2) == 0
    assert state.spend(T + 30, RateRules(per_day=5), 1) == 0
    assert state.spent(T + 30) == 3


def test_nothing_begins_in_a_pause() -> None:
    """A shorter one later takes nothing away."""
    state = state_at()
    state.pause(T, 30)
    state.pause(T + 1, 5)
    assert state.look(T + 10) == 20
    assert begun(state, FREE, [10]) == [20]
    assert at(state, T + 10).take_turn(T + 10) == 20


def test_after_a_pause_starts_keep_a_distance_for_a_while() -> None:
    """Calls and requests take the same turns."""
    state = state_at()
    state.pause(T, 30)
    assert begun(state, FREE, [30, 30.1]) == [IS_CAREFUL, pytest.approx(GAP - 0.1)]
    assert state.take_turn(T + 30.2) == pytest.approx(GAP - 0.2)
    assert state.take_turn(T + 30 + GAP) == 0
    assert begun(state, FREE, [30 + GAP]) == [pytest.approx(GAP)]
    assert state.look(T + 31) == IS_CAREFUL
    over = 30 + CAREFUL
    assert begun(state, FREE, [over, over]) == [0, 0]
    assert state.look(T + over) == 0
    assert [state.take_turn(T + over), state.take_turn(T + over)] == [0, 0]


def test_time_that_went_backwards_has_not_gone_by() -> None:
    """Everything that is known moves along, and what is left stays left."""
    state = state_at()
    rules = RateRules(per_minute=1, concurrency=1, per_day=2)
    state.pause(T, 100)
    assert begun(state, rules, [100]) == [IS_CAREFUL]
    moved = at(state, T - 5000)
    assert moved.look(T - 5000) == IS_CAREFUL
    assert moved.slots == {"s100": T - 5000 + 30}
    assert moved.starts == [T - 5000]
    assert sum(moved.hours.values()) == 1
    assert moved.admit(T - 5000, rules, "other") == pytest.approx(GAP)
    assert at(state, T - 4999).admit(T - 4999, rules, "other") == math.inf


def test_nothing_that_is_known_moves_along_either() -> None:
    """There are no hours then."""
    state = state_at()
    at(state, T - 10)
    assert (state.hours, state.until) == ({}, -math.inf)


def test_it_is_the_same_after_it_was_kept() -> None:
    """As JSON, which has no infinity."""
    state, rules = state_at(), RateRules(per_minute=5, concurrency=5, per_day=5)
    assert json.loads(json.dumps(state.to_dict(), allow_nan=False)) == {"at": T, "starts": [], "hours": {}, "slots": {}}
    begun(state, rules, [0, 1])
    state.pause(T + 1, 3)
    kept = json.loads(json.dumps(state.to_dict(), allow_nan=False))
    assert AccountState.checked(kept).to_dict() == state.to_dict()
    assert AccountState.checked({}).admit(T, rules, "s") == 0


@pytest.mark.parametrize(
    "kept",
    [
        [],
        None,
        {"starts": {}},
        {"hours": []},
        {"slots": 5},
        {"boot": 5},
        {"ahead": "of"},
        {"at": "now"},
        {"at": True},
        {"until": math.inf},
        {"turn": None},
        {"starts": [1.0, "x"]},
        {"slots": {"a": None}},
    ],
    ids=repr,
)
def test_what_is_no_state_is_refused(kept: Any) -> None:
    """It may be anybody's file."""
    with pytest.raises(ValueError, match="is no"):
        AccountState.checked(kept)


@pytest.mark.parametrize("limit", [None, 1])
def test_the_rules_of_another_process_may_differ(limit: Optional[int]) -> None:
    """What one counts is there for the others; what nobody counts is not."""
    state = state_at()
    assert begun(state, RateRules(per_minute=limit), [0]) == [0]
    assert begun(state, RateRules(per_minute=1), [1]) == [0 if limit is None else 60.5]


BROKEN = [
    {"hours": {"x": 1}},
    {"at": 10**400},
    {"at": 5.0, "starts": [6.0]},
    {"at": 5.0, "until": 90_000.0},
    {"at": 5.0, "turn": 90_000.0},
]


@pytest.mark.parametrize("kept", BROKEN, ids=str)
def test_a_state_that_can_not_be_is_none(kept: Any) -> None:
    """Or it would be an error of another kind, or keep all out for years."""
    with pytest.raises(ValueError, match=r"."):
        AccountState.checked(kept)
    AccountState.checked({"at": 5.0, "starts": [5.0], "until": 3605.0, "hours": {"-1": 2}})
