"""The pace of work that nobody waits for."""

import math
from typing import List

import pytest
from support import fork

from copilot_sync.pacing.background import BackgroundLimiter
from copilot_sync.pacing.limiter import LOOK_AGAIN, RateLimiter


def test_it_leaves_a_slot() -> None:
    """For a question, which need not wait until an answer of the batch is whole."""
    shared = RateLimiter(3)
    background = BackgroundLimiter(shared)
    assert (background.most, background.concurrency) == (2, 2)
    assert [background.try_acquire() for _ in range(3)] == [0, 0, math.inf]
    assert shared.try_acquire() == 0
    assert shared.try_acquire() == math.inf
    background.release()
    assert background.try_acquire() == 0


def test_it_may_have_the_only_slot() -> None:
    """Else nothing would ever be done."""
    background = BackgroundLimiter(RateLimiter(1))
    assert (background.most, background.try_acquire()) == (1, 0)


def test_it_takes_nothing_while_a_question_waits() -> None:
    """Also if the pace would allow it; and it goes on afterwards."""
    background = BackgroundLimiter(RateLimiter(2))
    with pytest.raises(KeyError), background.ahead():
        assert background.try_acquire() == LOOK_AGAIN
        raise KeyError
    assert background.try_acquire() == 0


def test_what_it_meets_counts_for_everybody() -> None:
    """A refusal pauses questions as well, and halves the concurrency; answers raise it again."""
    now: List[float] = [0.0]
    shared = RateLimiter(4, clock=lambda: now[0])
    background = BackgroundLimiter(shared)
    assert background.penalize(30) == 30
    assert (shared.pause, background.pause) == (30, 30)
    assert (background.concurrency, background.most) == (1, 3)
    assert background.try_acquire() == 30
    now[0] = 100
    for _ in range(8):
        background.answered()
    assert shared.concurrency == 3


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="Windows has no fork")
def test_a_forked_child_has_taken_nothing() -> None:
    """What its parent holds is not in it."""
    import os

    background = BackgroundLimiter(RateLimiter(2))
    assert background.try_acquire() == 0
    child = fork()
    if child == 0:  # pragma: no cover - the child ends without a report
        os._exit(0 if background.try_acquire() == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
