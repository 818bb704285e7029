"""What a failure means: may the message be sent again, whom does it concern, what does the limiter learn.

All of it is decided by one table, ``RULES``, and by what an error is: no clock, no memory, no other module has an
opinion. ``verdict_of`` returns the verdict of the first rule that matches. A client's retries, the search for a lost
answer, the cool-down, batches and Celery's tasks all ask it.
"""

import enum
from dataclasses import dataclass
from typing import Callable, Optional, Tuple, Type

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

#: Stages in which a call always waits for limits: a search for a message may not be given up half-way.
PATIENT_STAGES = ("messages",)


class Resend(enum.Enum):
    """Whether a call sends a failed request again by itself."""

    #: The service did not process it: send it again.
    NOT_PROCESSED = "send again"
    #: The service may have processed it. A request that does no harm twice is sent again; for a message, look first.
    UNKNOWN = "look first"
    #: Another attempt would not help.
    FINAL = "never"


class Scope(enum.Enum):
    """Whom a failure concerns."""

    #: This message alone.
    MESSAGE = "this message"
    #: Everybody has to wait; then the message is sent again.
    ALL_WAIT = "all wait"
    #: Everybody would meet it, however long they waited.
    ALL_STOP = "all stop"


class Signal(enum.Enum):
    """What the cool-down of an account learns from a failure."""

    NONE = "nothing"
    #: The service asked to slow down.
    REFUSED = "refused"
    #: The account's quota is used up.
    QUOTA = "quota"
    #: The credentials were refused.
    DENIED = "denied"
    #: The service failed, or was not there.
    FAILING = "failing"


@dataclass(frozen=True)
class Verdict:
    """What a failure means.

    Attributes:
        resend: Whether the call itself sends the request again.
        scope: Whom the failure concerns.
        signal: What the cool-down learns.
        may_be_processed: Whether the message may be in its conversation, so that it has to be looked for before it is
            sent again. Always ``False`` for requests that carry no message.
        in_answer: Whether an answer said it, so that the message is in its conversation.
        not_asked: Whether nothing was sent: our own limiter made the error.
    """

    resend: Resend
    scope: Scope
    signal: Signal = Signal.NONE
    may_be_processed: bool = False
    in_answer: bool = False
    not_asked: bool = False

    @property
    def may_be_the_messages_fault(self) -> bool:
        """Whether what looks like an outage may be caused by this one message, if others are answered meanwhile."""
        return self.scope is Scope.ALL_WAIT and self.may_be_processed


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    Attributes:
        name: The failure, in words.
        matches: Whether an error is one.
        resend: See ``Verdict``.
        early: The scope of requests that carry no message: for the token, the thread and its messages.
        late: The scope of a message and of its answer.
        signal: See ``Verdict``.
        processed: Whether the service may have processed a request that the call itself does not send again.
    """

    name: str
    matches: Callable[[CopilotError], bool]
    resend: Resend
    early: Scope
    late: Scope
    signal: Signal = Signal.NONE
    processed: bool = False


#: The stages before anything of a message is sent, and the one in which it is looked up.
_EARLY = ("token", "thread", "messages")
_AGAIN, _LOOK, _NEVER = Resend.NOT_PROCESSED, Resend.UNKNOWN, Resend.FINAL
_OWN, _WAIT, _STOP = Scope.MESSAGE, Scope.ALL_WAIT, Scope.ALL_STOP
_REFUSED, _QUOTA, _DENIED, _FAILING = Signal.REFUSED, Signal.QUOTA, Signal.DENIED, Signal.FAILING


def _is(*kinds: Type[CopilotError]) -> Callable[[CopilotError], bool]:
    return lambda error: isinstance(error, kinds)


def _has_status(kind: Type[CopilotError], *statuses: int) -> Callable[[CopilotError], bool]:
    """Match errors of a kind that a reply had as its status: one of these, or any if there are none."""

    def matches(error: CopilotError) -> bool:
        return isinstance(error, kind) and error.status is not None and (not statuses or error.status in statuses)

    return matches


def _is_local(error: CopilotError) -> bool:
    return isinstance(error, (RateLimitError, ServerError)) and error.status is None and error.stage != "stream"


def _is_quota_without_reply(error: CopilotError) -> bool:
    return isinstance(error, QuotaExceededError) and error.status is None


def _is_limit_in_answer(error: CopilotError) -> bool:
    return isinstance(error, RateLimitError) and error.stage == "stream"


def _is_failure_in_answer(error: CopilotError) -> bool:
    return isinstance(error, (AuthenticationError, ServerError)) and error.stage == "stream" and error.status is None


def _is_quota_refused(error: CopilotError) -> bool:
    return isinstance(error, AuthenticationError) and error.stage == "quota"


def _is_overload(error: CopilotError) -> bool:
    return isinstance(error, ServerError) and error.not_processed


def _is_5xx(error: CopilotError) -> bool:
    return isinstance(error, ServerError) and (error.status or 0) >= 500


def _is_permanent(error: CopilotError) -> bool:
    return isinstance(error, NetworkError) and error.permanent


def _is_whole_call_over(error: CopilotError) -> bool:
    return isinstance(error, RequestTimeoutError) and error.phase == "total"


def _is_broken_answer(error: CopilotError) -> bool:
    return isinstance(error, NetworkError) and bool(error.partial)


def _is_no_connection(error: CopilotError) -> bool:
    return isinstance(error, NetworkError) and not error.may_have_been_sent


#: Statuses of a server, or of a gateway, that failed for a moment.
_TRANSIENT = (500, 502, 503, 504)
_UNUSABLE = (AuthenticationError, MissingCredentialsError, StreamClosedError, WrongHostError)

#: The first rule that matches counts. Its columns: name, condition, resend, scope early, scope late, signal.
# fmt: off
RULES: Tuple[Rule, ...] = (
    Rule("a quota without a reply",    _is_quota_without_reply,                 _NEVER, _STOP, _STOP),
    Rule("a quota",                    _is(QuotaExceededError),                 _NEVER, _STOP, _STOP, _QUOTA),
    Rule("our own limiter",            _is_local,                               _NEVER, _WAIT, _WAIT),
    Rule("a limit in an answer",       _is_limit_in_answer,                     _NEVER, _WAIT, _WAIT),
    Rule("a limit",                    _is(RateLimitError),                     _AGAIN, _WAIT, _WAIT, _REFUSED),
    Rule("this message is forbidden",  _is(PermissionDeniedError),              _NEVER, _OWN,  _OWN),
    Rule("a failure in an answer",     _is_failure_in_answer,                   _NEVER, _OWN,  _OWN),
    Rule("the quota is not shown",     _is_quota_refused,                       _NEVER, _OWN,  _OWN),
    Rule("credentials refused",        _has_status(AuthenticationError),        _NEVER, _STOP, _STOP, _DENIED),
    Rule("no way to ask here",         _is(*_UNUSABLE),                         _NEVER, _STOP, _STOP),
    Rule("408, 409, 425",              _has_status(ServerError, 408, 409, 425), _AGAIN, _WAIT, _OWN),
    Rule("503 with Retry-After",       _is_overload,                            _AGAIN, _WAIT, _WAIT, _REFUSED),
    Rule("500, 502, 503, 504",         _has_status(ServerError, *_TRANSIENT),   _LOOK,  _WAIT, _WAIT, _FAILING),
    Rule("any other 5xx",              _is_5xx,                                 _NEVER, _WAIT, _WAIT, _FAILING, True),
    Rule("any other server error",     _is(ServerError),                        _NEVER, _WAIT, _OWN),
    Rule("a proxy's refusal",          _has_status(NetworkError),               _NEVER, _WAIT, _WAIT),
    Rule("a certificate, an extra",    _is_permanent,                           _NEVER, _WAIT, _WAIT, _FAILING),
    Rule("the call's time is over",    _is_whole_call_over,                     _NEVER, _OWN,  _OWN),
    Rule("an answer that broke off",   _is_broken_answer,                       _LOOK,  _OWN,  _OWN,  _FAILING),
    Rule("no connection",              _is_no_connection,                       _AGAIN, _WAIT, _WAIT, _FAILING),
    Rule("silence",                    _is(RequestTimeoutError),                _LOOK,  _WAIT, _OWN,  _FAILING),
    Rule("a broken connection",        _is(NetworkError),                       _LOOK,  _WAIT, _WAIT, _FAILING),
    Rule("a reply nobody understands", _is(ProtocolError),                      _NEVER, _WAIT, _OWN),
    Rule("anything else",              _is(CopilotError),                       _NEVER, _OWN,  _OWN),
)
# fmt: on


def verdict_of(error: Exception) -> Verdict:
    """Judge a failure by what it is. Whatever is no ``CopilotError`` is the message's own."""
    if not isinstance(error, CopilotError):
        return Verdict(Resend.FINAL, Scope.MESSAGE)
    rule = next(rule for rule in RULES if rule.matches(error))
    carries_message = error.stage in ("message", "stream")
    return Verdict(
        resend=rule.resend,
        scope=rule.early if error.stage in _EARLY else rule.late,
        signal=rule.signal,
        may_be_processed=carries_message and (rule.processed or rule.resend is Resend.UNKNOWN),
        in_answer=rule.matches is _is_limit_in_answer,
        not_asked=rule.matches is _is_local,
    )


#: Statuses of a reply after which a message may have been processed all the same. A conflict may be one with an
#: earlier attempt, whose message arrived late.
_OPEN_STATUSES = (409, 424, 499)


def is_refusal(error: CopilotError) -> bool:
    """Whether a message is certainly not in its conversation: it was refused, or never got to the service."""
    if error.stage == "token":
        return True
    if error.stage != "message" or error.status in _OPEN_STATUSES:
        return False
    verdict = verdict_of(error)
    refused = 400 <= (error.status or 0) < 500
    return refused or verdict.resend is Resend.NOT_PROCESSED or verdict.not_asked


def shared_cause(error: Exception) -> Optional[CopilotError]:
    """Return what kept a call from looking for its message, if it would keep everybody else as well."""
    cause = error.__cause__
    if not isinstance(error, StreamInterruptedError) or not isinstance(cause, CopilotError):
        return None
    return cause if cause.stage == "messages" and verdict_of(cause).scope is not Scope.MESSAGE else None
