"""What a failure of one prompt says about the others: nothing, that all have to wait, or that going on is in vain.

Judged by what the error is, without a clock and without memory; batches and Celery's tasks ask the same questions.
"""

from typing import Optional

from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    MissingCredentialsError,
    NetworkError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    WrongHostError,
)

_FATAL = (AuthenticationError, MissingCredentialsError, QuotaExceededError, StreamClosedError, WrongHostError)
#: What is asked before anything of a prompt is sent, and what is looked up afterwards.
_NOT_THE_PROMPTS = ("token", "thread", "messages")


def is_fatal(error: Exception) -> bool:
    """Whether every other prompt would meet the same, however long it waited."""
    if isinstance(error, PermissionDeniedError):
        return False
    if isinstance(error, AuthenticationError) and error.stage == "stream":
        return False  # the token was accepted for this very message
    return isinstance(error, _FATAL)


def is_global_failure(error: Exception) -> bool:
    """Whether others would meet the same failure now."""
    return isinstance(error, RateLimitError) or is_fatal(error) or is_outage(error)


def is_outage(error: Exception) -> bool:
    """Whether the service seems to be at fault, or not to be there. Of one message it may also be the message."""
    if isinstance(error, ProtocolError):
        return error.stage in _NOT_THE_PROMPTS  # a page of somebody in between; nothing of the prompt was sent
    if isinstance(error, ServerError):
        if error.status is None:
            return error.stage != "stream"  # there it is an event of an answer
        return error.stage in _NOT_THE_PROMPTS or (error.stage == "message" and error.status >= 500)
    if not isinstance(error, NetworkError) or error.partial:
        return False
    if not error.may_have_been_sent or error.stage in _NOT_THE_PROMPTS:
        return not _is_over(error)
    return not isinstance(error, RequestTimeoutError)


def _is_over(error: NetworkError) -> bool:
    """Whether the time of one prompt was over, which says nothing about the others."""
    return isinstance(error, RequestTimeoutError) and error.phase == "total"


def is_own_word(error: Exception) -> bool:
    """Whether nothing was asked: this process waits for the end of a pause, and it would have lasted too long."""
    if isinstance(error, QuotaExceededError) or not isinstance(error, (RateLimitError, ServerError)):
        return False
    return error.status is None and error.stage != "stream"


def was_in_answer(error: Exception) -> bool:
    """Whether it is an answer that speaks of the limit, so that its message was taken."""
    return isinstance(error, RateLimitError) and error.stage == "stream"


def may_be_the_prompts(error: Exception) -> bool:
    """Whether a failure that looks like an outage may be one prompt's own, if others are answered meanwhile.

    Not so where the service was not there, or turned the message away and said to come again.
    """
    return is_outage(error) and may_have_been_taken(error)


def may_have_been_taken(error: Exception) -> bool:
    """Whether the message may be in its conversation, so that it is looked for before it is sent again."""
    if isinstance(error, RateLimitError) or getattr(error, "stage", None) not in ("message", "stream"):
        return False
    if isinstance(error, NetworkError):
        return error.may_have_been_sent
    return isinstance(error, ServerError) and error.status is not None and not error.not_processed


def shared_cause(error: Exception) -> Optional[CopilotError]:
    """What kept everybody from looking for a message, if it would keep the others as well."""
    cause = error.__cause__
    if not isinstance(error, StreamInterruptedError) or not isinstance(cause, CopilotError):
        return None
    return cause if cause.stage == "messages" and is_global_failure(cause) else None
