"""What the package offers by its own name; its ``__init__`` loads it when the first is asked for."""

from copilot_sync._version import __version__
from copilot_sync.auth.cookies import get_cookies
from copilot_sync.chat import Chat
from copilot_sync.client import Client
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.errors import (
    AuthenticationError,
    BudgetExceededError,
    CopilotError,
    InvalidAnswerError,
    InvalidRequestError,
    MissingCredentialsError,
    ModelNotAvailableError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ResponseTooLargeError,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    WrongHostError,
)
from copilot_sync.events import (
    AnnotationsEvent,
    CompleteEvent,
    ContentEvent,
    ErrorEvent,
    Event,
    RoutedModelEvent,
    UnknownEvent,
)
from copilot_sync.hooks import CallEvent
from copilot_sync.ledger.entries import LedgerEntry, LedgerError, LedgerUsage
from copilot_sync.ledger.sqlite_ledger import Ledger
from copilot_sync.models import (
    Answer,
    BaseConversation,
    Conversation,
    Cookies,
    Message,
    Messages,
    Model,
    Quota,
    Thread,
)
from copilot_sync.options import Options, StreamOptions
from copilot_sync.pacing.budget import Budget
from copilot_sync.pacing.rate_limit import RateLimit
from copilot_sync.provider import AsyncGeneratorProvider, AsyncResult, GithubCopilot, ProviderModelMixin
from copilot_sync.settings import Limits, RetryPolicy, Timeout
from copilot_sync.stream import Stream
from copilot_sync.usage import Usage

__all__ = [
    "AnnotationsEvent",
    "Answer",
    "AsyncGeneratorProvider",
    "AsyncResult",
    "AuthenticationError",
    "BaseConversation",
    "Budget",
    "BudgetExceededError",
    "CallEvent",
    "Chat",
    "Client",
    "CompleteEvent",
    "ContentEvent",
    "Conversation",
    "Cookies",
    "CopilotError",
    "ErrorEvent",
    "Event",
    "GithubCopilot",
    "InvalidAnswerError",
    "InvalidRequestError",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "LedgerUsage",
    "Limits",
    "Message",
    "MessageHandle",
    "Messages",
    "MissingCredentialsError",
    "Model",
    "ModelNotAvailableError",
    "NetworkError",
    "NotFoundError",
    "Options",
    "PermissionDeniedError",
    "ProtocolError",
    "ProviderModelMixin",
    "Quota",
    "QuotaExceededError",
    "RateLimit",
    "RateLimitError",
    "RequestTimeoutError",
    "ResponseTooLargeError",
    "RetryPolicy",
    "RoutedModelEvent",
    "ServerError",
    "Stream",
    "StreamClosedError",
    "StreamInterruptedError",
    "StreamOptions",
    "Thread",
    "Timeout",
    "UnknownEvent",
    "Usage",
    "WrongHostError",
    "__version__",
    "get_cookies",
]
