"""Everything that can go wrong, as one family under ``CopilotError``.

There is one class for each thing that a caller can *do* about a failure. An error is
plain data: where it happened (``stage``), what the server answered (``status``), how
many requests were made (``attempts``), what had been read before (``partial``). All of
it survives pickling, the cause included, so that Celery and multiprocessing can carry
errors from one process to another. No secret is ever put into one: what a server said
is masked before it comes here.
"""

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, Type

if TYPE_CHECKING:
    from copilot_sync.models import Answer, Conversation


class CopilotError(Exception):
    """The root of all errors of this library.

    Attributes:
        stage: The step that failed: ``credentials``, ``token`` (and the look at the account's page), ``thread``,
            ``message``, ``stream``, ``models``, ``threads``, ``messages``, ``rename``, ``delete`` or ``quota``;
            ``None`` if it is unknown.
        status: The HTTP status of the reply, ``None`` if there was none.
        attempts: How many requests were made for that stage.
        partial: The text of the answer that had come before the failure; ``""`` if none had.
        request_id: The server's name for the request, for its support; ``None`` if it gave none.
    """

    def __init__(
        self,
        message: str,
        *,
        stage: Optional[str] = None,
        status: Optional[int] = None,
        attempts: int = 0,
        partial: str = "",
        request_id: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.stage = stage
        self.status = status
        self.attempts = attempts
        self.partial = partial
        self.request_id = request_id

    def __str__(self) -> str:
        message = str(self.args[0]) if self.args else ""
        facts = ", ".join(self._facts())
        return f"{message} [{facts}]" if facts else message

    def _facts(self) -> List[str]:
        facts = []
        if self.stage is not None:
            facts.append(f"stage {self.stage}")
        if self.status is not None:
            facts.append(f"status {self.status}")
        if self.attempts > 1:
            facts.append(f"{self.attempts} attempts")
        if self.request_id is not None:
            facts.append(f"request {self.request_id}")
        return facts

    def __reduce__(self) -> Tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__), _portable(self.__cause__))


class MissingCredentialsError(CopilotError):
    """There is nothing to authenticate with: no credentials, or a file without a session. The message says why."""


class AuthenticationError(CopilotError):
    """The cookies or the token were refused, or the account may not use Copilot Chat."""


class PermissionDeniedError(AuthenticationError):
    """The service forbids this one message, such as its model, to credentials that it has accepted before (403)."""


class InvalidRequestError(CopilotError):
    """The service found the request wrong, such as an unknown model (400, 422)."""


class ModelNotAvailableError(InvalidRequestError):
    """The service does not answer with the model that was asked for: it is retired, unknown, or not in the plan.

    Attributes:
        model: The model that was asked for; ``""`` if that is not known.
        suggestions: Models that the account may use and that have a similar name, the nearest first.
    """

    def __init__(self, message: str, *, model: str = "", suggestions: Tuple[str, ...] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.model = model
        self.suggestions = suggestions


class NotFoundError(CopilotError):
    """The conversation does not exist, or not any more; or an account without Copilot has no quota (404)."""


class WrongHostError(CopilotError):
    """The API host is not the account's: set ``api_url`` (421, or ``api_url="auto"`` finds no host).

    Attributes:
        api_url: The host that the account's page names, ``None`` if it is not known. Without cookies it never is.
    """

    def __init__(self, message: str, *, api_url: Optional[str] = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.api_url = api_url


class RateLimitError(CopilotError):
    """Too many requests (429, or 403 in GitHub's way of saying it).

    Attributes:
        retry_after: Seconds to wait as the server told them, ``None`` if it did not.
    """

    def __init__(self, message: str, *, retry_after: Optional[float] = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class QuotaExceededError(RateLimitError):
    """The account's quota is used up (402, or a code that speaks of a quota, a week or a month).

    Waiting a moment does not help, so it is never retried.
    """


class BudgetExceededError(RateLimitError):
    """A ``Budget`` of the client's is used up. Nothing was sent.

    ``retry_after`` is how long it takes until some of what was spent counts no more.
    """


class ServerError(CopilotError):
    """The service failed (5xx), or said so in the middle of an answer.

    Attributes:
        retry_after: Seconds to wait as the server told them, ``None`` if it did not.
        not_processed: Whether the server said with ``Retry-After`` that it has not taken the request.
    """

    def __init__(
        self, message: str, *, retry_after: Optional[float] = None, not_processed: bool = False, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after
        self.not_processed = not_processed


class NetworkError(CopilotError):
    """No connection, a reset, TLS, DNS or a proxy.

    Attributes:
        may_have_been_sent: Whether any of the request may have reached the server.
        permanent: Whether another attempt can't help: the server's certificate is not trusted, or an extra is missing.
    """

    def __init__(self, message: str, *, may_have_been_sent: bool = True, permanent: bool = False, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.may_have_been_sent = may_have_been_sent
        self.permanent = permanent


class RequestTimeoutError(NetworkError, TimeoutError):
    """A limit of ``Timeout`` was reached. It is a builtin ``TimeoutError`` as well.

    Attributes:
        phase: What was being waited for: ``connect``, ``send``, ``reply``, ``read``, ``stall`` if bytes came but
            nothing of the answer, or ``total`` if the limit of the whole call was reached.
        seconds: The limit, in seconds.
    """

    def __init__(self, message: str, *, phase: str = "total", seconds: Optional[float] = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.phase = phase
        self.seconds = seconds


class ProtocolError(CopilotError):
    """The reply can't be understood: not HTTP, not JSON, or without what it must hold."""


class ResponseTooLargeError(ProtocolError):
    """A reply, an event or an answer is larger than the limit set for it."""


class StreamInterruptedError(CopilotError):
    """An answer ended early, or it is not known whether the message was taken.

    Attributes:
        partial: Exactly the text that had come (and had been yielded, if the answer was streamed).
        conversation: The conversation, in which the whole answer may appear later.
    """

    def __init__(self, message: str, *, conversation: "Optional[Conversation]" = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.conversation = conversation


class InvalidAnswerError(CopilotError):
    """No answer fits the schema that was asked for. The last one is in ``partial`` and ``text``.

    Attributes:
        problems: What is wrong with the last answer, in the words of whoever has judged it. At most 2,000 characters.
        answer: The last answer. Its ``usage`` is that of all answers.
    """

    def __init__(
        self, message: str, *, problems: Tuple[str, ...] = (), answer: "Optional[Answer]" = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.problems = problems
        self.answer = answer

    @property
    def text(self) -> str:
        """The text of the last answer."""
        return self.partial

    @property
    def conversation(self) -> "Optional[Conversation]":
        """The conversation, to go on with."""
        return None if self.answer is None else self.answer.conversation


class StreamClosedError(CopilotError):
    """The stream, or the client, was closed by another thread while this one was waiting."""


#: Causes of causes that travel with an error.
_LONGEST_CHAIN = 50


def _restore(kind: Type[CopilotError], args: Tuple[Any, ...], state: Dict[str, Any], cause: bytes) -> CopilotError:
    import pickle

    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = pickle.loads(cause)  # noqa: S301 - made by _portable, and part of a pickle itself
    return error


def _portable(cause: Optional[BaseException]) -> bytes:
    """The cause as it can travel: itself if it pickles, else its words in a ``CopilotError``.

    As bytes, so that a chain of causes is pickled once for each and not twice as often with each further one.
    """
    import pickle  # here, because few errors travel, and it takes a while

    if _is_endless(cause):
        return _words_of(cause)
    try:
        portable = pickle.dumps(cause)
        pickle.loads(portable)  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a foreign __reduce__ may raise anything
        return _words_of(cause)
    return portable


def _is_endless(cause: Optional[BaseException]) -> bool:
    """Whether a chain of causes leads back to itself, or is longer than any that is worth keeping.

    To find out by running into the end of the stack is no way: CPython 3.8 may abort the process there.
    """
    for _ in range(_LONGEST_CHAIN):
        if cause is None:
            return False
        cause = cause.__cause__
    return True


def _words_of(cause: Optional[BaseException]) -> bytes:
    return _portable(CopilotError(f"{type(cause).__name__}: {cause}"))
