"""A blocking client of GitHub Copilot Chat, and the documented ``GithubCopilot`` module on top of it.

>>> import copilot_sync
>>> with copilot_sync.Client() as client:  # doctest: +SKIP
...     print(client.ask("Explain WSGI in one line"))
"""

import importlib
import types

from copilot_sync._version import __version__
from copilot_sync.auth.cookies import get_cookies
from copilot_sync.client import Chat, Client
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidRequestError,
    MissingCredentialsError,
    NetworkError,
    NotFoundError,
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
from copilot_sync.models import (
    Answer,
    BaseConversation,
    Conversation,
    Cookies,
    Message,
    Messages,
    Model,
    Receipt,
    Thread,
    Usage,
)
from copilot_sync.provider import AsyncGeneratorProvider, AsyncResult, GithubCopilot, ProviderModelMixin
from copilot_sync.settings import Limits, Timeout
from copilot_sync.stream import Stream
from copilot_sync.transport.retry import RetryPolicy

__all__ = [
    "AnnotationsEvent",
    "Answer",
    "AsyncGeneratorProvider",
    "AsyncResult",
    "AuthenticationError",
    "BaseConversation",
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
    "InvalidRequestError",
    "Limits",
    "Message",
    "Messages",
    "MissingCredentialsError",
    "Model",
    "NetworkError",
    "NotFoundError",
    "ProtocolError",
    "ProviderModelMixin",
    "QuotaExceededError",
    "RateLimitError",
    "Receipt",
    "RequestTimeoutError",
    "ResponseTooLargeError",
    "RetryPolicy",
    "RoutedModelEvent",
    "ServerError",
    "Stream",
    "StreamClosedError",
    "StreamInterruptedError",
    "Thread",
    "Timeout",
    "UnknownEvent",
    "Usage",
    "WrongHostError",
    "__version__",
    "get_cookies",
]


def __getattr__(name: str) -> types.ModuleType:
    """Load what is a package of its own when it is first used, such as ``copilot_sync.batch``."""
    if name in ("aio", "batch", "emulator"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
