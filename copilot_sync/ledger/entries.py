"""What a ledger holds: plain values. No part of a prompt or of an answer is among them, and no secret.

Models, ids and numbers come from the service, labels and users from the caller: each is cut to what a ledger takes.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, Dict, Optional

from copilot_sync.delivery.guards import CallEnd
from copilot_sync.errors import CopilotError
from copilot_sync.safe_text import well_formed
from copilot_sync.usage import Usage

#: Outcomes that are not the class of an error.
ANSWERED, INCOMPLETE, CLOSED = "answered", "incomplete", "closed"

_LONGEST_WORD = 200
#: Above it a number of tokens is none. The sum of any number of calls has to fit into 64 bits.
_MOST_TOKENS = 10**12


class LedgerError(CopilotError):
    """A ledger can't be read, or the file is not a ledger."""


@dataclass(frozen=True)
class LedgerEntry:
    """One call.

    Attributes:
        began_at: When it began, in UTC.
        model: The model that was asked for.
        answered_model: The model that answered; ``""`` if none did.
        label: What the call was for, in the caller's words; ``""`` for none.
        user: For whom it was made, of those that the caller serves; ``""`` for nobody.
        input_tokens: As the service counted them; ``None`` if it did not say.
        output_tokens: The same.
        seconds: From its beginning to its end. Whoever reads a stream slowly makes its call longer.
        attempts: How many times the message was sent.
        outcome: ``answered``, ``incomplete`` if the service did not confirm that the answer is whole, ``closed`` if the
            caller ended the call, else the name of the error's class.
        conversation_id: The conversation; ``""`` if there is none.
    """

    began_at: datetime
    model: str
    answered_model: str = ""
    label: str = ""
    user: str = ""
    input_tokens: Optional[int] = None
    output_tokens: Optional[int] = None
    seconds: float = 0.0
    attempts: int = 0
    outcome: str = ANSWERED
    conversation_id: str = ""

    def to_dict(self) -> Dict[str, Any]:
        """Return the entry as JSON has it. The time is in ISO 8601."""
        return {**asdict(self), "began_at": self.began_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}


@dataclass(frozen=True)
class LedgerUsage:
    """The total of some calls.

    Attributes:
        name: The day (UTC), model, label or user that they have in common.
        calls: How many there were.
        answered: How many of them have an answer, whole or not.
        failed: How many ended in an error. The rest was closed by the caller.
        input_tokens: The sum of what the service counted.
        output_tokens: The same.
        seconds: The sum of their seconds.
    """

    name: str
    calls: int
    answered: int
    failed: int
    input_tokens: int
    output_tokens: int
    seconds: float


def entry_of(end: CallEnd, began_at: float, seconds: float) -> LedgerEntry:
    """Make the entry of a call that has ended.

    Args:
        end: How it ended.
        began_at: When it began, in seconds since 1970.
        seconds: How long it took.
    """
    builder = end.builder
    complete, conversation = builder.complete, builder.conversation
    usage = (complete and complete.usage) or Usage()
    return LedgerEntry(
        began_at=datetime.fromtimestamp(began_at, timezone.utc),
        model=_word(end.message.model),
        answered_model=_word(builder.written.model if builder.written else builder.routed_model),
        label=_word(end.message.label),
        user=_word(end.message.user),
        input_tokens=_tokens(usage.input_tokens),
        output_tokens=_tokens(usage.output_tokens),
        seconds=round(seconds, 3),
        attempts=end.call.attempts["message"],
        outcome=_outcome(end),
        conversation_id=_word(conversation.conversation_id if conversation else ""),
    )


def _outcome(end: CallEnd) -> str:
    answer = end.builder.written
    if answer is not None:
        return ANSWERED if answer.complete else INCOMPLETE
    return CLOSED if end.failure is None else type(end.failure).__name__


def _word(text: str) -> str:
    return well_formed(text[:_LONGEST_WORD])


def _tokens(count: Optional[int]) -> Optional[int]:
    return count if count is not None and 0 <= count <= _MOST_TOKENS else None
