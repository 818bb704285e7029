"""The events as values: frozen, picklable, and with nothing of the wire lost."""

import copy
import dataclasses
import pickle
from typing import Any, Dict

import pytest

from copilot_sync import events
from copilot_sync.events import (
    AnnotationsEvent,
    CompleteEvent,
    ContentEvent,
    ErrorEvent,
    Event,
    RoutedModelEvent,
    UnknownEvent,
)
from copilot_sync.usage import Usage

DATA: Dict[str, Any] = {"type": "x", "nested": [1, {"a": None}]}
EACH = [
    Event("x", DATA),
    ContentEvent("content", DATA, "Hel"),
    CompleteEvent("complete", DATA, "m1", "gpt-4o", Usage(12, 2), {"CodeVulnerability": []}, ({"path": "a.py"},)),
    RoutedModelEvent("routedModel", DATA, "o1-mini"),
    AnnotationsEvent("annotations", DATA, {"CodeVulnerability": []}),
    ErrorEvent("error", DATA, "overloaded", "503"),
    UnknownEvent("x", DATA),
]
each_event = pytest.mark.parametrize("event", EACH, ids=lambda event: type(event).__name__)


def test_the_table_here_holds_every_event() -> None:
    """A kind that is added must be added to the table, and so to the promises below."""
    defined = {value for value in vars(events).values() if isinstance(value, type) and issubclass(value, Event)}
    assert {type(event) for event in EACH} == defined


@each_event
def test_an_event_is_a_frozen_value_that_travels(event: Any) -> None:
    """It compares by value, copies and pickles, keeps the object that came, and can't be changed."""
    assert pickle.loads(pickle.dumps(event)) == copy.deepcopy(event) == event
    assert event.data is DATA
    for field in dataclasses.fields(event):
        assert dataclasses.replace(event, **{field.name: "other"}) != event
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, field.name, "other")


def test_events_of_different_kinds_are_never_equal() -> None:
    """The class is part of what an event says."""
    assert Event("x", DATA) != UnknownEvent("x", DATA)
