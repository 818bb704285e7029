"""Errors as OpenAI's API says them: a status, an object with ``message``, ``type``, ``param`` and ``code``.

The official clients try again by themselves after 408, 409, 429 and 5xx, unless ``x-should-retry`` says ``false``
(openai 3.57, November 2026). If this package has tried again already, or if that would be in vain, it says so. They
sleep for as long as ``Retry-After`` tells, up to two minutes, so it is sent up to a minute only.
"""

import math
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Type

from copilot_sync import errors
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidAnswerError,
    InvalidRequestError,
    MissingCredentialsError,
    ModelNotAvailableError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamClosedError,
    WrongHostError,
)
from copilot_sync.times import waiting_time

Headers = List[Tuple[str, str]]

#: The longest ``Retry-After``, in seconds.
LONGEST_RETRY_AFTER = 60
_DO_NOT_RETRY = ("x-should-retry", "false")


class ApiError(Exception):
    """What a request is answered with instead of what it asked for.

    Args:
        status: The HTTP status.
        message: For a person. It has no secret in it.
        kind: The ``type`` of the error object.
        code: For a program; ``None`` for none.
        param: The parameter that is wrong; ``None`` for none.
        headers: Further header fields.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: Optional[str] = None,
        param: Optional[str] = None,
        headers: Tuple[Tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = headers

    def to_dict(self) -> Dict[str, Any]:
        """Return the error object."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def again(self) -> "ApiError":
        """Return the same error for another request. One that was raised holds the frames it went through."""
        return ApiError(self.status, str(self), kind=self.kind, code=self.code, param=self.param, headers=self.headers)


class _ErrorForm(NamedTuple):
    status: int
    kind: str
    code: str
    param: Optional[str] = None


_FORMS: Mapping[Type[BaseException], _ErrorForm] = {
    MissingCredentialsError: _ErrorForm(500, "server_error", "not_configured"),
    AuthenticationError: _ErrorForm(401, "authentication_error", "account_refused"),
    PermissionDeniedError: _ErrorForm(403, "permission_error", "permission_denied"),
    WrongHostError: _ErrorForm(500, "server_error", "not_configured"),
    ModelNotAvailableError: _ErrorForm(404, "invalid_request_error", "model_not_found", "model"),
    InvalidRequestError: _ErrorForm(400, "invalid_request_error", "invalid_request"),
    NotFoundError: _ErrorForm(404, "invalid_request_error", "not_found"),
    QuotaExceededError: _ErrorForm(429, "insufficient_quota", "insufficient_quota"),
    RateLimitError: _ErrorForm(429, "rate_limit_error", "rate_limit_exceeded"),
    RequestTimeoutError: _ErrorForm(504, "server_error", "timeout"),
    NetworkError: _ErrorForm(502, "server_error", "unreachable"),
    ServerError: _ErrorForm(503, "server_error", "unavailable"),
    # Clients do not ask by themselves again after a 422: it took several messages already.
    InvalidAnswerError: _ErrorForm(422, "server_error", "invalid_answer"),
    StreamClosedError: _ErrorForm(503, "server_error", "stopped"),
    CopilotError: _ErrorForm(502, "server_error", "failed"),
}
#: What is no error of ours: a line, a text or an id that can't be sent.
_WRONG = _ErrorForm(400, "invalid_request_error", "invalid_request")
#: The name of the error of an answer without text, which is raised nowhere.
EMPTY_ANSWER = "EmptyAnswerError"
EMPTY_MESSAGE = "the answer is empty"
_BY_NAME: Mapping[str, _ErrorForm] = {EMPTY_ANSWER: _ErrorForm(502, "server_error", "empty_answer")}


def from_copilot(error: CopilotError) -> ApiError:
    """Translate an error of a call. Its message holds no secret."""
    form = _form_of(type(error))
    message = str(error.args[0]) if error.args else form.code
    headers = _waiting(error) if _may_come_again(error) else (_DO_NOT_RETRY,)
    return ApiError(form.status, message, kind=form.kind, code=form.code, param=form.param, headers=headers)


def _form_of(kind: Type[BaseException]) -> _ErrorForm:
    return next(_FORMS[base] for base in kind.__mro__ if base in _FORMS)


def from_record(record: Mapping[str, Any]) -> ApiError:
    """Translate what a batch has kept of an error.

    Args:
        record: Its ``type``, by name, and its ``message``. If it has a ``code`` and a ``param``, they count.
    """
    kind = getattr(errors, str(record["type"]), None)
    is_known = isinstance(kind, type) and issubclass(kind, CopilotError)
    form = _form_of(kind) if is_known else _BY_NAME.get(record["type"], _WRONG)  # type: ignore[arg-type]
    code, param = record.get("code", form.code), record.get("param", form.param)
    return ApiError(form.status, str(record["message"]), kind=form.kind, code=code, param=param)


def _may_come_again(error: CopilotError) -> bool:
    """Whether the service, or a budget, has asked to come later, which nobody here has waited for."""
    is_limit = isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError)
    return is_limit or (isinstance(error, ServerError) and error.not_processed)


def _waiting(error: CopilotError) -> Tuple[Tuple[str, str], ...]:
    seconds = getattr(error, "retry_after", None)
    return () if seconds is None else wait_headers(seconds)


def wait_headers(seconds: float) -> Tuple[Tuple[str, str], ...]:
    """Return the header fields that say when to come again; not before a minute has passed means: not by itself."""
    if seconds > LONGEST_RETRY_AFTER:
        return (_DO_NOT_RETRY,)
    return (("Retry-After", str(max(1, math.ceil(seconds)))),)


def too_busy(seconds: float) -> ApiError:
    """The error for a question that the account should not be asked now."""
    words = "too many questions at once"
    if not math.isinf(seconds):
        words = f"the next question may be asked in {waiting_time(seconds)}"
    return ApiError(
        429,
        f"the account's pace does not allow another question now: {words}",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers=wait_headers(1.0 if math.isinf(seconds) else seconds),
    )


def incomplete() -> ApiError:
    """The error for an answer of which some may be missing."""
    return ApiError(
        502,
        "the answer may not be whole: the service did not say that it is",
        kind="server_error",
        code="incomplete_answer",
        headers=(_DO_NOT_RETRY,),
    )


def cancelled() -> ApiError:
    """The error for an answer that another request has cancelled."""
    return ApiError(503, "the response was cancelled", kind="server_error", code="cancelled", headers=(_DO_NOT_RETRY,))


def empty() -> ApiError:
    """The error for an answer without text, which clients would take for a whole one."""
    return ApiError(
        502,
        EMPTY_MESSAGE,
        kind="server_error",
        code="empty_answer",
        headers=(_DO_NOT_RETRY,),
    )


def not_configured(message: str, param: Optional[str] = None) -> ApiError:
    """The error for what the gateway was not set up to do. The message says what is missing."""
    return ApiError(501, message, kind="server_error", code="not_configured", param=param, headers=(_DO_NOT_RETRY,))


def internal() -> ApiError:
    """The error for a fault of the gateway's own, which is in its log."""
    return ApiError(
        500,
        "the gateway failed; its log says why",
        kind="server_error",
        code="internal_error",
        headers=(_DO_NOT_RETRY,),
    )
