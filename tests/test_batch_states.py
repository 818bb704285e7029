"""The states of a prompt in a batch: one table, which nothing goes around, and which the documentation prints."""

import re
from pathlib import Path

import pytest

from copilot_sync.batch.prompts import Prompt
from copilot_sync.batch.sender import Task
from copilot_sync.batch.states import TRANSITIONS, ItemEvent, ItemState, next_state
from copilot_sync.batch.work_items import WorkItem

DOCS = Path(__file__).parents[1].joinpath("docs", "batch.rst").read_text(encoding="utf-8")
ILLEGAL = [(state, event) for state in ItemState for event in ItemEvent if (state, event) not in TRANSITIONS]


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=[f"{state.value}-{event.name}" for state, event in ILLEGAL])
def test_an_event_that_can_not_happen_raises(state: ItemState, event: ItemEvent) -> None:
    """It is a fault of the batch, and going on could ask a prompt twice."""
    with pytest.raises(RuntimeError, match=f"a prompt that is {state.value} can't have the event {event.name}"):
        next_state(state, event)


def test_a_prompt_moves_as_the_table_says() -> None:
    """From its first state to its last; an illegal event changes nothing."""
    item = WorkItem(0, Prompt("a", "one"), Task("one"))
    seen = [item.state]
    for event in (ItemEvent.TURN_CAME, ItemEvent.ADMITTED, ItemEvent.ASK, ItemEvent.ANSWERED, ItemEvent.WRITTEN):
        item.move(event)
        seen.append(item.state)
    assert [state.value for state in seen] == ["waiting", "queued", "ready", "asking", "finished", "done"]
    with pytest.raises(RuntimeError):
        item.move(ItemEvent.ADMITTED)
    assert item.state is ItemState.DONE


def test_every_state_can_be_reached_and_has_an_end() -> None:
    """Two states are ends; each event can happen somewhere."""
    reached, before = {ItemState.WAITING}, 0
    while len(reached) > before:
        before = len(reached)
        reached |= {following for (state, _), following in TRANSITIONS.items() if state in reached}
    assert reached == set(ItemState)
    assert set(ItemState) - {state for state, _ in TRANSITIONS} == {ItemState.DONE, ItemState.STOPPED}
    assert {event for _, event in TRANSITIONS} == set(ItemEvent)


def test_a_slot_is_held_from_the_limiter_to_the_end_of_a_step() -> None:
    """It is taken by one event alone, and given back on each way out."""
    holding = {state for state in ItemState if state.holds_slot}
    taken = {event for (state, event), after in TRANSITIONS.items() if state not in holding and after in holding}
    assert taken == {ItemEvent.ADMITTED}
    assert holding == {ItemState.READY, ItemState.BEGINNING, ItemState.ASKING}


def test_the_documentation_prints_the_table() -> None:
    """Row by row, in its order."""
    section = DOCS.partition("\nStates of a prompt\n")[2].partition("\nReference\n")[0]
    table = [row for row in section.splitlines() if row.startswith(("``", " ")) and "``" in row]
    rows = [re.fullmatch(r"``(\w+)`` +(\S.*?) {2,}``(\w+)``", row) for row in table]
    printed = [row.groups() for row in rows if row is not None]
    assert printed == [(state.value, event.value, after.value) for (state, event), after in TRANSITIONS.items()]
