"""The states of a prompt in a batch, and the table of the transitions between them.

A prompt is in one state at a time. What happens to it is an event; ``TRANSITIONS`` names the next state for each event
that can happen in a state. Any other event is a fault of the batch, and raises.

A prompt whose batch ends without it stays in its state. The next run starts it from the beginning, with what the
journal knows of it.
"""

import enum
from typing import Dict, Tuple


class ItemState(enum.Enum):
    """Where a prompt stands. The values are the names that the documentation uses."""

    #: An earlier prompt of the same conversation has no result yet.
    WAITING = "waiting"
    #: The rate limiter has to let it through.
    QUEUED = "queued"
    #: It holds a slot of the rate limiter. Its next step starts at once.
    READY = "ready"
    #: A worker begins its conversation.
    BEGINNING = "beginning"
    #: A worker sends its message and reads the answer.
    ASKING = "asking"
    #: It has a result, which is not written yet.
    FINISHED = "finished"
    #: Its result is written, and a worker deletes its conversation.
    DELETING = "deleting"
    #: Nothing is left to do.
    DONE = "done"
    #: It met what ends the batch, and has no result.
    STOPPED = "stopped"

    @property
    def holds_slot(self) -> bool:
        """Whether a prompt in this state holds a slot of the rate limiter."""
        return self in (ItemState.READY, ItemState.BEGINNING, ItemState.ASKING)


class ItemEvent(enum.Enum):
    """What happens to a prompt. The values are the words that the documentation uses."""

    TURN_CAME = "no earlier prompt of its conversation is left"
    ADMITTED = "the rate limiter lets it through"
    PAUSED = "a pause comes before its next step"
    BEGIN = "it has no conversation yet"
    ASK = "it has a conversation, and the journal knows of the message"
    BEGUN = "its conversation is there"
    RECALLED = "the cache has its answer"
    ANSWERED = "its answer is complete"
    MISFIT = "its answer does not fit the schema: another one is asked for"
    FAILED = "it fails"
    REFUSED = "everybody has to wait, and it is tried again"
    RESTARTED = "the conversation of a failed earlier run has no answer"
    STOPPED = "its failure ends the batch"
    WRITTEN = "its result is written"
    DELETE = "its result is written, and its conversation has to be deleted"
    DELETE_ENDED = "its conversation is deleted, or can't be"


_S, _E = ItemState, ItemEvent

#: The next state, by the present one and by what happens.
TRANSITIONS: Dict[Tuple[ItemState, ItemEvent], ItemState] = {
    (_S.WAITING, _E.TURN_CAME): _S.QUEUED,
    (_S.WAITING, _E.RECALLED): _S.FINISHED,
    (_S.QUEUED, _E.ADMITTED): _S.READY,
    (_S.READY, _E.PAUSED): _S.QUEUED,
    (_S.READY, _E.BEGIN): _S.BEGINNING,
    (_S.READY, _E.ASK): _S.ASKING,
    (_S.BEGINNING, _E.BEGUN): _S.READY,
    (_S.BEGINNING, _E.RECALLED): _S.FINISHED,
    (_S.BEGINNING, _E.MISFIT): _S.QUEUED,
    (_S.BEGINNING, _E.REFUSED): _S.QUEUED,
    (_S.BEGINNING, _E.FAILED): _S.FINISHED,
    (_S.BEGINNING, _E.STOPPED): _S.STOPPED,
    (_S.ASKING, _E.ANSWERED): _S.FINISHED,
    (_S.ASKING, _E.MISFIT): _S.QUEUED,
    (_S.ASKING, _E.RESTARTED): _S.READY,
    (_S.ASKING, _E.REFUSED): _S.QUEUED,
    (_S.ASKING, _E.FAILED): _S.FINISHED,
    (_S.ASKING, _E.STOPPED): _S.STOPPED,
    (_S.FINISHED, _E.WRITTEN): _S.DONE,
    (_S.FINISHED, _E.DELETE): _S.DELETING,
    (_S.DELETING, _E.DELETE_ENDED): _S.DONE,
}


def next_state(state: ItemState, event: ItemEvent) -> ItemState:
    """Return the state that follows.

    Raises:
        RuntimeError: The event can't happen in this state.
    """
    following = TRANSITIONS.get((state, event))
    if following is None:
        raise RuntimeError(f"a prompt that is {state.value} can't have the event {event.name}")
    return following
