"""What to do about a message whose answer was lost, judged by the messages of its thread. Pure: no I/O and no clock.

``decide`` follows these rules:

- A whole answer is the answer. An answer that is still being written is waited for.
- A message that is not there counts as not processed on the second look, ``RECOVERY_DELAY`` seconds after the failure
  at the earliest: something between the client and the service may still deliver it.
- Anything else leaves the outcome unknown, and then nothing is sent again.
- All looking together lasts ``RECOVERY_TIMEOUT`` seconds at most, and no longer than silence is allowed to last.

``lookup`` does the looking and the waiting.
"""

import enum
import unicodedata
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Union

from copilot_sync.delivery.message import SentMessage
from copilot_sync.errors import NetworkError, RequestTimeoutError, StreamInterruptedError
from copilot_sync.models import Message
from copilot_sync.protocol.requests import ROOT
from copilot_sync.settings import RECOVERY_DELAY, RECOVERY_TIMEOUT

#: Seconds between the first two looks at a thread, and the longest between two.
_FIRST_LOOK = 0.25
_LONGEST_LOOK = 4.0
#: Looks after which the time between two does not double any more.
_MOST_DOUBLINGS = 16
#: Errors that leave it open whether there is an answer, by name, as results have them.
_UNCERTAIN = [kind.__name__ for kind in (StreamInterruptedError, NetworkError, RequestTimeoutError)]
#: The share of the time that may be spent waiting, so that a last look still fits.
_SHARE_OF_WAITING = 0.9


class Trace(enum.Enum):
    """What a thread shows of a message whose whole answer is not there."""

    #: Nothing of it.
    ABSENT = "absent"
    #: The message, or the beginning of its answer.
    PRESENT = "present"
    #: Something that may be the message in another form.
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class LookState:
    """How far a search has come when it has looked once more.

    Attributes:
        looks: How many looks there were, this one included.
        since_failure: Seconds since the message failed.
        time_left: Seconds until the last look.
        was_present: Whether an earlier look found the message in its thread.
    """

    looks: int
    since_failure: float
    time_left: float
    was_present: bool = False


class Action(enum.Enum):
    """What to do next about a message whose answer was lost."""

    #: The answer is there: hand it out.
    DELIVER = "deliver"
    #: Wait, and look again.
    LOOK_AGAIN = "look again"
    #: The service has not processed the message: send it again.
    SEND_AGAIN = "send again"
    #: It can't be known: raise an error.
    GIVE_UP = "give up"


@dataclass(frozen=True)
class RecoveryDecision:
    """What to do next, and what is needed for it.

    Attributes:
        action: What to do.
        answer: The whole answer, to deliver.
        seconds: How long to wait before the next look.
        reason: Why it can't be known, in words for an error.
        is_present: Whether the message has been seen in its thread, now or earlier.
    """

    action: Action
    answer: Optional[Message] = None
    seconds: float = 0.0
    reason: str = ""
    is_present: bool = False


def decide(messages: List[Message], sent: SentMessage, state: LookState) -> RecoveryDecision:
    """Decide what to do about a message after a look at its thread."""
    found = find_answer(messages, sent)
    if isinstance(found, Message):
        return RecoveryDecision(Action.DELIVER, answer=found, is_present=True)
    if found is Trace.UNCLEAR:
        return RecoveryDecision(Action.GIVE_UP, reason=reason_for(state.was_present), is_present=state.was_present)
    is_present = state.was_present or found is Trace.PRESENT
    seconds = _pause_after(state.looks)
    give_up = RecoveryDecision(Action.GIVE_UP, reason=reason_for(is_present), is_present=is_present)
    if not is_present:
        if state.looks > 1 and state.since_failure >= RECOVERY_DELAY:
            return RecoveryDecision(Action.SEND_AGAIN)
        seconds = max(seconds, RECOVERY_DELAY - state.since_failure)
        if seconds > state.time_left:
            return give_up
    if state.time_left <= 0:
        return give_up
    return RecoveryDecision(Action.LOOK_AGAIN, seconds=min(seconds, state.time_left), is_present=is_present)


def reason_for(is_present: bool) -> str:
    """Say why a search ends without an answer: the message was seen in its thread, or it was not."""
    if is_present:
        return "the message was taken, but its answer did not appear in time"
    return "it is unknown whether the message was taken: look at the conversation before sending it again"


def search_seconds(silence: Optional[float], remaining: Optional[float]) -> float:
    """Work out how long all looking together may take.

    Args:
        silence: Seconds of silence that the call allows; ``None`` for the default.
        remaining: Seconds that are left of the call; ``None`` for no limit.
    """
    seconds = min(RECOVERY_TIMEOUT, silence or RECOVERY_TIMEOUT)
    return seconds if remaining is None else min(seconds, remaining)


def waiting_seconds(seconds: float) -> float:
    """Work out after which part of so many seconds the last look has to begin."""
    return seconds * _SHARE_OF_WAITING


def find_answer(messages: List[Message], sent: SentMessage) -> Union[Message, Trace]:
    """Find the whole answer of a message in its thread, or else what there is of the message."""
    for message in messages:
        if message.id == sent.answer_id:
            return message if message.content and not message.interrupted else Trace.PRESENT
    answered = {message.parent_id for message in messages if message.role == "assistant"}
    same = [message for message in messages if message.role != "assistant" and _is_same(message, sent)]
    if any(message.id not in answered for message in same):
        return Trace.PRESENT
    # The same question, answered under another id, or something behind the message that ours answers: it may be
    # ours, on a server that keeps it in another form.
    return Trace.UNCLEAR if same or _has_strangers(messages, sent) else Trace.ABSENT


def may_have_answer(error: Mapping[str, Any]) -> bool:
    """Whether a prompt with this error may have an answer in its conversation all the same."""
    return error.get("type") in _UNCERTAIN and error.get("stage") in ("message", "stream")


def _pause_after(looks: int) -> float:
    """Seconds from one look to the next: twice as many each time, up to a bound."""
    seconds: float = _FIRST_LOOK * 2 ** min(looks - 1, _MOST_DOUBLINGS)
    return _FIRST_LOOK if looks == 1 else min(seconds, _LONGEST_LOOK)


def _is_same(message: Message, sent: SentMessage) -> bool:
    if _comparable(message.content) != _comparable(sent.content):
        return False
    return sent.parent_id is None or (message.parent_id or ROOT) == sent.parent_id


def _comparable(text: str) -> str:
    """Return a text without the changes that a server may make when it stores it."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()


def _has_strangers(messages: List[Message], sent: SentMessage) -> bool:
    """Whether anything stands in the place that belongs to our message alone."""
    if sent.parent_id == ROOT:
        return sent.is_first and bool(messages)
    places = [place for place, message in enumerate(messages) if message.id == sent.parent_id]
    return bool(places) and places[-1] < len(messages) - 1
