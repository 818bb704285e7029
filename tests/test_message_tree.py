"""The branches of a thread: which leaf is the newest, and which answer the next question follows."""

import random
from typing import List, Optional

import pytest

from copilot_sync import Message
from copilot_sync.message_tree import answer_to_go_on_from, branch_to, count_branches, newest_branch, newest_leaf


def message(identifier: str, parent: Optional[str], second: Optional[str] = None, role: str = "") -> Message:
    """Make a message whose role is told by its id: questions begin with q."""
    created = None if second is None else f"2026-09-01T12:00:{second}Z"
    role = role or ("user" if identifier.startswith("q") else "assistant")
    return Message(id=identifier, role=role, parent_id=parent, created_at=created)


def ids(messages: List[Message]) -> List[str]:
    return [each.id for each in messages]


#: Two questions under the root, the first of which was answered twice.
THREE_BRANCHES = [
    message("q1", "root", "01"),
    message("a1", "q1", "02"),
    message("q2", "a1", "03"),
    message("a2", "q2", "04"),
    message("q1'", "root", "05"),
    message("a1'", "q1'", "06"),
    message("q3", "a1", "07"),
    message("a3", "q3", "08"),
]


def test_the_newest_leaf_is_the_one_that_was_created_last_in_whatever_order_they_are_listed() -> None:
    for seed in range(20):
        shuffled = random.Random(seed).sample(THREE_BRANCHES, len(THREE_BRANCHES))
        leaf = newest_leaf(shuffled)
        assert leaf is not None and leaf.id == "a3"
        assert ids(branch_to(shuffled, leaf)) == ["q1", "a1", "q3", "a3"]


def test_an_older_branch_with_a_newer_answer_wins() -> None:
    answered_again = [*THREE_BRANCHES, message("q2'", "a2", "09"), message("a2'", "q2'", "10")]
    leaf = newest_leaf(answered_again)
    assert leaf is not None and ids(branch_to(answered_again, leaf)) == ["q1", "a1", "q2", "a2", "q2'", "a2'"]


def test_no_messages_have_no_leaf() -> None:
    assert newest_leaf([]) is None
    assert answer_to_go_on_from([]) is None


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("06.1", "06.2"),
        ("06.19", "06.2"),
        ("06", "06.000000001"),
        ("06.123456788", "06.123456789"),
        ("06,5", "07"),
    ],
)
def test_dates_are_compared_to_the_last_digit(earlier: str, later: str) -> None:
    pair = [message("a1", "root", earlier), message("a2", "root", later)]
    for listed in (pair, pair[::-1]):
        leaf = newest_leaf(listed)
        assert leaf is not None and leaf.id == "a2"


@pytest.mark.parametrize("second", [None, "99", "06"])
def test_without_dates_or_with_equal_ones_the_last_in_the_list_is_the_newest(second: Optional[str]) -> None:
    leaf = newest_leaf([message("a1", "root", second), message("a2", "root", second)])
    assert leaf is not None and leaf.id == "a2"


def test_a_date_is_newer_than_none() -> None:
    leaf = newest_leaf([message("a1", "root", "06"), message("a2", "root")])
    assert leaf is not None and leaf.id == "a1"


def test_a_tree_that_goes_round_ends_all_the_same() -> None:
    circle = [message("q1", "a1", "01"), message("a1", "q1", "02")]
    leaf = newest_leaf(circle)
    assert leaf is not None and leaf.id == "a1"
    assert ids(branch_to(circle, leaf)) == ["q1", "a1"]
    itself = [message("a1", "a1", "01")]
    assert ids(branch_to(itself, itself[0])) == ["a1"]


def test_messages_whose_parents_are_gone_begin_a_branch() -> None:
    rest = THREE_BRANCHES[3:4]
    assert ids(branch_to(rest, rest[0])) == ["a2"]
    answer = answer_to_go_on_from(rest)
    assert answer is not None and answer.id == "a2"


def test_the_next_question_follows_an_answer_and_never_a_question() -> None:
    unanswered = [*THREE_BRANCHES, message("q4", "a3", "09")]
    answer = answer_to_go_on_from(unanswered)
    assert answer is not None and answer.id == "a3"
    assert answer_to_go_on_from([message("q1", "root", "01")]) is None


def test_a_long_thread_takes_no_stack() -> None:
    long = [message(f"{'qa'[number % 2]}{number}", f"{'aq'[number % 2]}{number - 1}") for number in range(20_000)]
    leaf = newest_leaf(long)
    assert leaf is not None and len(branch_to(long, leaf)) == len(long)
    assert len(newest_branch(long, "q0")) == len(long)


@pytest.mark.parametrize(
    ("through", "branch"),
    [
        (None, ["q1", "a1", "q3", "a3"]),
        ("", ["q1", "a1", "q3", "a3"]),
        ("a1", ["q1", "a1", "q3", "a3"]),
        ("a2", ["q1", "a1", "q2", "a2"]),
        ("q2", ["q1", "a1", "q2", "a2"]),
        ("q1'", ["q1'", "a1'"]),
        ("root", ["q1", "a1", "q3", "a3"]),
        ("gone", ["q1", "a1", "q3", "a3"]),
    ],
)
def test_the_branch_that_goes_on_is_the_newest_or_the_newest_through_a_message(
    through: Optional[str], branch: List[str]
) -> None:
    assert ids(newest_branch(THREE_BRANCHES, through)) == branch
    assert count_branches(THREE_BRANCHES) == 3


def test_a_question_that_is_not_answered_ends_its_branch() -> None:
    assert ids(newest_branch([*THREE_BRANCHES, message("q4", "a3", "09")]))[-2:] == ["a3", "q4"]


def test_messages_without_parents_follow_one_another() -> None:
    linear = [message("q1", None), message("a1", None), message("q2", None), message("a2", None)]
    assert ids(newest_branch(linear)) == ["q1", "a1", "q2", "a2"]
    assert ids(newest_branch(linear, "q1")) == ["q1", "a1", "q2", "a2"]
    assert count_branches(linear) == 1
    mixed = [message("q1", "root"), message("a1", "q1"), message("q2", None), message("a2", "q2")]
    assert ids(newest_branch(mixed)) == ["q1", "a1", "q2", "a2"]
    answer = answer_to_go_on_from(linear[:3])
    assert answer is not None and answer.id == "a1"


def test_no_messages_are_no_branch() -> None:
    assert newest_branch([]) == []
    assert newest_branch([], "gone") == []
    assert count_branches([]) == 0


def test_the_branch_of_a_tree_that_goes_round_ends_all_the_same() -> None:
    circle = [message("q1", "a1", "01"), message("a1", "q1", "02")]
    assert ids(newest_branch(circle, "q1")) == ["q1", "a1"]
    assert count_branches(circle) == 0
