"""docs/limits.rst is a promise: its figures are those of the code."""

from pathlib import Path

import pytest

from copilot_sync.cli.backend import _limits
from copilot_sync.delivery import budget_guard
from copilot_sync.pacing import account_limiter, account_state, shared_state, triage
from copilot_sync.pacing.account_limiter import in_words
from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.limiter import BY_HOST
from copilot_sync.settings import AUTO, Urls

#: In one line, because a figure may stand at the end of one.
PAGE = " ".join((Path(__file__).parents[1] / "docs" / "limits.rst").read_text(encoding="utf-8").split())
WORDS = {0.5: "half a", 1: "a", 2: "two", 4: "four", 5: "five"}
USUAL = _limits(Urls("https://github.com", AUTO), (None, BY_HOST))["rate_limit"]


@pytest.mark.parametrize(
    "said",
    [
        f"its commands share {WORDS[USUAL.concurrency]} questions at once and {USUAL.per_minute} a minute",
        f"a call counts for {RateRules().window:g} s from its start",
        f"gives its slots back after {WORDS[account_state.LEASE / 60]} minute",
        f"calls of the last {account_state.HOURS} hours, counted by whole hours",
        f"keep a distance of {account_state.GAP:g} s for {WORDS[int(account_state.CAREFUL / 60)]} minute",
        f"A call that has waited for {WORDS[int(account_limiter._TELL_AFTER)]} seconds says so",
        f"``{in_words(42, 3)}``",
        f"in the log ``{account_limiter.logger.name}``",
        f"looks for the store again every {WORDS[int(account_limiter._AWAY)]} seconds",
        f"{WORDS[budget_guard._CHARACTERS]} characters of the text that came count as one",
        f"would have to wait for more than {'an hour' if triage.LONGEST_WAIT == 3600 else '?'} ends with the error",
    ],
)
def test_the_figures_are_those_of_the_code(said: str) -> None:
    """Whoever changes one changes the other."""
    assert said in PAGE


def test_a_process_that_goes_on_alone_has_a_quarter() -> None:
    """Of each limit, and one call at a time. A pause is seen within a tenth of a second."""
    assert account_limiter._SLOWER == 4
    assert "one call at a time and a quarter of the limits" in PAGE
    assert account_limiter._slower(RateRules(8, 8, 8))[:3] == (2, 1, 2)
    assert account_limiter.FRESH <= 0.1
    assert "within a tenth of a second" in PAGE


def test_the_caches_that_are_refused_are_named() -> None:
    """Those that keep nothing need no word."""
    names = [name for name, why in shared_state._UNSUITABLE.items() if why != "it keeps nothing"]
    assert [name for name in names if f"``{name}``" not in PAGE] == []
