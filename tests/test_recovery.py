"""What became of a message whose answer was lost: a decision on a list of messages. No server, no socket, no clock."""

from typing import Any, Dict, List, Optional, Tuple, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_sync.delivery import recovery
from copilot_sync.delivery.message import MessageHandle, PendingMessage, SentMessage, new_id
from copilot_sync.delivery.recovery import (
    Action,
    LookState,
    Trace,
    decide,
    find_answer,
    reason_for,
    search_seconds,
    waiting_seconds,
)
from copilot_sync.models import Conversation, Message
from copilot_sync.protocol.requests import ROOT, MessageOptions

FIRST = SentMessage("hi", "t-1", ROOT, "answer", is_first=True)
SECOND = SentMessage("hi", "t-1", "a-1", "answer", is_first=False)
ANYWHERE = SentMessage("hi", "t-1", None, "answer", is_first=False)


def asked(content: str = "hi", id: str = "q-2", parent_id: Optional[str] = ROOT, role: str = "user") -> Message:
    return Message(id, role, content, parent_id)


def answered(content: str = "yes", id: str = "answer", parent_id: str = "q-2", **facts: Any) -> Message:
    return Message(id, "assistant", content, parent_id, **facts)


EARLIER = [asked("hello", "q-1"), answered("hello", "a-1", "q-1")]
OURS = asked(parent_id="a-1")


@pytest.fixture(autouse=True)
def _delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is outside of tests."""
    monkeypatch.setattr(recovery, "RECOVERY_DELAY", 2.0)


ABSENT, PRESENT, UNCLEAR = Trace.ABSENT, Trace.PRESENT, Trace.UNCLEAR

# fmt: off
TRACES: Dict[str, Tuple[SentMessage, List[Message], Union[str, Trace]]] = {
    # what is in the thread                    sent      its messages                                   shown
    "nothing":                                (FIRST,    [],                                            ABSENT),
    "what was there before":                  (SECOND,   EARLIER,                                       ABSENT),
    "the answer":                             (FIRST,    [asked(), answered()],                         "yes"),
    "the answer alone":                       (FIRST,    [answered()],                                  "yes"),
    "the answer, behind others":              (SECOND,   [*EARLIER, OURS, answered()],                  "yes"),
    "an empty answer":                        (FIRST,    [asked(), answered("")],                       PRESENT),
    "an answer that was interrupted":         (FIRST,    [asked(), answered(interrupted=True)],         PRESENT),
    "the message":                            (FIRST,    [asked()],                                     PRESENT),
    "the message, without its parent":        (FIRST,    [asked(parent_id=None)],                       PRESENT),
    "the message, behind others":             (SECOND,   [*EARLIER, OURS],                              PRESENT),
    "the message with other line ends":       (SECOND,   [*EARLIER, asked(" hi\r\n", parent_id="a-1")], PRESENT),
    "the message in an unknown place":        (ANYWHERE, [*EARLIER, OURS],                              PRESENT),
    "the message, in another role's name":    (FIRST,    [asked(role="User")],                          PRESENT),
    "the message, answered under another id": (FIRST,    [asked(), answered(id="a-9")],                 UNCLEAR),
    "the message, answered elsewhere":        (ANYWHERE, [asked(), answered(id="a-9")],                 UNCLEAR),
    "another message at the beginning":       (FIRST,    [asked("hello")],                              UNCLEAR),
    "another message behind ours":            (SECOND,   [*EARLIER, asked("other", parent_id="a-1")],   UNCLEAR),
    "others, in an unknown place":            (ANYWHERE, EARLIER,                                       ABSENT),
    "no place for ours":                      (SECOND,   [asked("hello", "q-7")],                       ABSENT),
}
# fmt: on


@pytest.mark.parametrize("name", TRACES)
def test_a_thread_shows_what_it_has_of_a_message(name: str) -> None:
    """An answer goes by its id, a message by its text and its place."""
    sent, messages, shown = TRACES[name]
    found = find_answer(messages, sent)
    assert (found.content if isinstance(found, Message) else found) == shown


NOTHING: List[Message] = []
THERE = [asked()]
ODD = [asked("hello")]
UNKNOWN, TAKEN = reason_for(False), reason_for(True)
DELIVER, LOOK_AGAIN = Action.DELIVER, Action.LOOK_AGAIN
SEND_AGAIN, GIVE_UP = Action.SEND_AGAIN, Action.GIVE_UP

# fmt: off
DECISIONS: Dict[str, Tuple[List[Message], LookState, Action, Union[float, str, None]]] = {
    # what was seen                           messages      looks, since, left, there        what to do  how
    "the answer":                            ([answered()], LookState(1, 0.1, 27.0),         DELIVER,    None),
    "the answer, at the last moment":        ([answered()], LookState(9, 30.0, -1.0, True),  DELIVER,    None),
    "nothing, at first":                     (NOTHING,      LookState(1, 0.5, 27.0),         LOOK_AGAIN, 1.5),
    "nothing, late, but for the first time": (NOTHING,      LookState(1, 9.0, 27.0),         LOOK_AGAIN, 0.25),
    "nothing, twice, early":                 (NOTHING,      LookState(2, 1.0, 27.0),         LOOK_AGAIN, 1.0),
    "nothing, twice":                        (NOTHING,      LookState(2, 2.0, 27.0),         SEND_AGAIN, None),
    "nothing, twice, without time":          (NOTHING,      LookState(2, 2.0, -1.0),         SEND_AGAIN, None),
    "nothing, and no time to settle it":     (NOTHING,      LookState(1, 0.0, 1.0),          GIVE_UP,    UNKNOWN),
    "it is unclear":                         (ODD,          LookState(1, 0.1, 27.0),         GIVE_UP,    UNKNOWN),
    "the message became unclear":            (ODD,          LookState(2, 0.1, 27.0, True),   GIVE_UP,    TAKEN),
    "the message":                           (THERE,        LookState(1, 0.1, 27.0),         LOOK_AGAIN, 0.25),
    "the message, a third time":             (THERE,        LookState(3, 0.1, 27.0, True),   LOOK_AGAIN, 1.0),
    "the message, many times":               (THERE,        LookState(5000, 9.0, 9.0, True), LOOK_AGAIN, 4.0),
    "the message, and little time":          (THERE,        LookState(6, 25.0, 0.7, True),   LOOK_AGAIN, 0.7),
    "the message, and no time":              (THERE,        LookState(6, 25.0, 0.0, True),   GIVE_UP,    TAKEN),
    "the message is gone":                   (NOTHING,      LookState(2, 9.0, 20.0, True),   LOOK_AGAIN, 0.5),
    "the message is gone, and no time":      (NOTHING,      LookState(2, 9.0, 0.0, True),    GIVE_UP,    TAKEN),
}
# fmt: on


@pytest.mark.parametrize("name", DECISIONS)
def test_a_look_decides_what_is_done_next(name: str) -> None:
    """A message is sent again only if it was missing twice, and only after the delay."""
    messages, state, action, how = DECISIONS[name]
    decision = decide(messages, FIRST, state)
    assert decision.action is action
    assert (decision.answer is not None) is (action is DELIVER)
    assert (decision.seconds if action is LOOK_AGAIN else decision.reason or None) == how


def test_the_pauses_between_looks_double_up_to_a_bound() -> None:
    """Few requests, and yet an answer is found soon."""
    states = [LookState(looks, 9.0, 99.0, True) for looks in range(1, 8)]
    assert [decide(THERE, FIRST, state).seconds for state in states] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


MESSAGES = st.lists(
    st.builds(
        Message,
        id=st.sampled_from(["answer", "q-1", "q-2", "a-1"]),
        role=st.sampled_from(["user", "assistant"]),
        content=st.sampled_from(["hi", "hello", ""]),
        parent_id=st.sampled_from([None, ROOT, "q-1", "a-1"]),
        interrupted=st.booleans(),
    ),
    max_size=4,
)
STATES = st.builds(
    LookState, st.integers(1, 50), st.floats(-1.0, 40.0), st.floats(-5.0, 40.0), st.booleans()
)  # the clock that measures may be read a moment too early


@given(MESSAGES, st.sampled_from([FIRST, SECOND, ANYWHERE]), STATES)
def test_whatever_a_thread_holds_a_decision_is_safe(
    messages: List[Message], sent: SentMessage, state: LookState
) -> None:
    """Nothing is sent again that was seen, or too early. No wait goes beyond the time that is left."""
    decision = decide(messages, sent, state)
    if decision.action is SEND_AGAIN:
        assert state.looks > 1 and state.since_failure >= 2.0 and not state.was_present
        assert find_answer(messages, sent) is Trace.ABSENT
    if decision.action is LOOK_AGAIN:
        assert 0 < decision.seconds <= state.time_left
    assert decision.is_present >= state.was_present or decision.action is DELIVER
    assert bool(decision.reason) is (decision.action is GIVE_UP)


@pytest.mark.parametrize(
    "silence, remaining, seconds", [(None, None, 30.0), (60.0, None, 30.0), (5.0, None, 5.0), (5.0, 2.0, 2.0)]
)
def test_looking_lasts_as_long_as_the_call_allows(
    silence: Optional[float], remaining: Optional[float], seconds: float
) -> None:
    """The last look begins early enough to end in time."""
    assert search_seconds(silence, remaining) == seconds
    assert 0 < waiting_seconds(seconds) < seconds


def pending(
    conversation: Optional[Conversation] = None, handle: Optional[MessageHandle] = None, parent_id: Optional[str] = None
) -> PendingMessage:
    return PendingMessage("hi", "gpt-4o", MessageOptions(parent_message_id=parent_id), conversation, handle=handle)


def at(message_id: Optional[str] = None) -> Conversation:
    known = Conversation("t-1")
    known.message_id = message_id
    return known


def handle(parent_id: Optional[str] = None) -> MessageHandle:
    return MessageHandle("t-1", "answer", parent_id)


# fmt: off
PLACES: Dict[str, Tuple[PendingMessage, Conversation, Optional[str], bool]] = {
    # what is asked              the message                       in       parent first
    "a new conversation":        (pending(),                       at(),      ROOT,  True),
    "a known one":               (pending(at("a-1")),              at("a-1"), "a-1", False),
    "a known one by its id":     (pending(at()),                   at(),      None,  False),
    "a parent that is named":    (pending(at("a-1"), None, "a-0"), at("a-1"), "a-0", False),
    "a handle":                  (pending(None, handle("a-1")),    at(),      "a-1", False),
    "a handle at the beginning": (pending(None, handle(ROOT)),     at(),      ROOT,  True),
    "a handle without a parent": (pending(None, handle()),         at("a-1"), None,  False),
}
# fmt: on


@pytest.mark.parametrize("name", PLACES)
def test_a_message_is_found_by_its_place_and_its_answer(name: str) -> None:
    """The place comes from the caller, the handle or the conversation, in this order of what is known best."""
    message, where, parent_id, is_first = PLACES[name]
    sent = SentMessage.from_pending(message, where, "answer")
    assert sent == SentMessage("hi", "t-1", parent_id, "answer", is_first)


def test_new_ids_are_new() -> None:
    """Two answers never share one."""
    assert len({new_id() for _ in range(100)}) == 100
