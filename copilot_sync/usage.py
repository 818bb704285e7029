"""What an answer cost. Events, answers and stored messages have it."""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Usage:
    """What an answer cost, in tokens, as the service counted them; ``None`` if it did not say."""

    input_tokens: Optional[int] = None
    output_tokens: Optional[int] = None
