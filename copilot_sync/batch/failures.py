"""What a failure of one prompt says about the others: questions to ``pacing.policy``."""

from copilot_sync.pacing.policy import Scope, shared_cause, verdict_of

__all__ = ["shared_cause"]


def is_fatal(error: Exception) -> bool:
    """Whether every other prompt would meet the same, however long it waited."""
    return verdict_of(error).scope is Scope.ALL_STOP


def is_global_failure(error: Exception) -> bool:
    """Whether others would meet the same failure now."""
    return verdict_of(error).scope is not Scope.MESSAGE


def is_own_word(error: Exception) -> bool:
    """Whether nothing was asked."""
    return verdict_of(error).not_asked


def was_in_answer(error: Exception) -> bool:
    """Whether it is an answer that speaks of the limit, so that its message was taken."""
    return verdict_of(error).in_answer


def may_be_the_prompts(error: Exception) -> bool:
    """Whether a failure that looks like an outage may be one prompt's own, if others are answered meanwhile."""
    return verdict_of(error).may_be_the_messages_fault


def may_have_been_taken(error: Exception) -> bool:
    """Whether the message may be in its conversation, so that it is looked for before it is sent again."""
    return verdict_of(error).may_be_processed
