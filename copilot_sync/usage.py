"""What an answer cost. Events, answers and stored messages have it."""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Usage:
    """What an answer cost, as the service counted it.

    Attributes:
        input_tokens: Tokens of the question and what went with it; ``None`` if the service did not say.
        output_tokens: Tokens of the answer; ``None`` if the service did not say.
    """

    input_tokens: Optional[int] = None
    output_tokens: Optional[int] = None
