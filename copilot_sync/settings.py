"""Defaults and limits, and the one place where environment variables are read.

Arguments win over the environment, the environment wins over the defaults here. The usual
variables of ``requests`` (``HTTPS_PROXY``, ``NO_PROXY``, ``REQUESTS_CA_BUNDLE``) are left to
``requests``. Nothing here touches the network or a file.
"""

import inspect
import ipaddress
import math
import os
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Tuple, Union
from urllib.parse import urlsplit

from copilot_sync.errors import CopilotError
from copilot_sync.secret import Secret

GITHUB_URL = "https://github.com"
#: The host of individual plans; business and enterprise plans have hosts of their own (public captures, 2026).
API_URL = "https://api.individual.githubcopilot.com"
#: What the page asks for; the service then chooses a model that the plan has (public captures, 2026).
MODEL = "auto"
#: In place of the API's URL: the host that the account's page names.
AUTO = "auto"

API_KEY_VARIABLE = "COPILOT_SYNC_API_KEY"
COOKIES_VARIABLE = "COPILOT_SYNC_COOKIES"
GITHUB_URL_VARIABLE = "COPILOT_SYNC_GITHUB_URL"
API_URL_VARIABLE = "COPILOT_SYNC_API_URL"
MODEL_VARIABLE = "COPILOT_SYNC_MODEL"
TOKEN_CACHE_VARIABLE = "COPILOT_SYNC_TOKEN_CACHE"
LEDGER_VARIABLE = "COPILOT_SYNC_LEDGER"
ALLOW_HTTP_VARIABLE = "COPILOT_SYNC_ALLOW_HTTP"
PROFILE_VARIABLE = "COPILOT_SYNC_PROFILE"

#: Seconds before a token's end at which a new one is fetched.
TOKEN_MARGIN = 60.0
#: Seconds that a token is taken to live if the service does not say.
TOKEN_LIFETIME = 600.0
#: Seconds that a lost answer is looked for in its thread, or ``Timeout.read`` if that is less.
RECOVERY_TIMEOUT = 30.0
#: Seconds after a failure before a message that isn't in its thread counts as not taken: it may still be on its way.
RECOVERY_DELAY = 2.0
#: What may follow the end of an answer before its connection is given up: bytes, and seconds.
DRAIN_BYTES = 64 * 1024
DRAIN_SECONDS = 0.05
#: Bytes of an error's body that are read for the server's words.
ERROR_BODY = 64 * 1024
#: Characters of the server's own words that an error quotes.
MAX_ERROR_TEXT = 500

#: Seconds. The system's sockets take no longer time-out than 24 days.
_LONGEST_TIMEOUT = 1_000_000.0


@dataclass(frozen=True)
class Timeout:
    """How long a call may take, in seconds.

    Args:
        connect: For a connection to be made, TLS included. Default 10.
        read: Of silence: before the head of a reply, and then between any two bytes, comments that keep the
            connection alive included. Default 60.
        stall: Without a piece of the answer once the head of its reply is there, whatever else arrives; for a reply
            that is no stream, until all of it is there. Default 600.
        total: For the whole call: token, thread, message, retries, waiting and reading. Default ``None``: no limit.

    ``None`` for ``connect``, ``read`` or ``stall`` means the default: no call waits for ever.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is not above zero, or above a million.
    """

    connect: Optional[float] = 10.0
    read: Optional[float] = 60.0
    stall: Optional[float] = 600.0
    total: Optional[float] = None

    def __post_init__(self) -> None:
        for name, default in (("connect", 10.0), ("read", 60.0), ("stall", 600.0)):
            value = getattr(self, name)
            object.__setattr__(self, name, _seconds(name, default if value is None else value))
        if self.total is not None:
            object.__setattr__(self, "total", _seconds("total", self.total))

    @classmethod
    def from_value(cls, value: "Union[None, int, float, Timeout]") -> "Timeout":
        """Read what callers may give: nothing (the defaults), a number (``connect`` and ``read``), or a ``Timeout``."""
        if value is None:
            return cls()
        if isinstance(value, Timeout):
            return value
        return cls(connect=value, read=value)


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"timeout {name} must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= _LONGEST_TIMEOUT:
        raise ValueError(f"timeout {name} must be a number of seconds above zero and of at most a million, not {value}")
    return float(value)


#: Seconds of silence allowed, or a ``Timeout``; ``None`` for the default.
TimeoutValue = Union[None, int, float, Timeout]


@dataclass(frozen=True)
class Limits:
    """How much of a reply is kept in memory, in bytes. A reply past one of them ends in ``ResponseTooLargeError``.

    Args:
        event: One event of a stream. Default 16 MiB, far above any piece of an answer or its closing event.
        answer: The text of one answer. Default 64 MiB, far above what any model writes.
        reply: A reply that is no stream, such as the list of messages. Default 8 MiB.
    """

    event: int = 16 * 1024 * 1024
    answer: int = 64 * 1024 * 1024
    reply: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("event", "answer", "reply"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"limit {name} must be a whole number of bytes, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"limit {name} must be at least one byte, not {value}")


@dataclass(frozen=True)
class Environment:
    """What the environment variables of this library say; ``None`` for one that is unset or blank.

    Secrets in it are plain text: it is read, used and dropped, and never shown.
    """

    api_key: Optional[str]
    cookies: Optional[str]
    github_url: Optional[str]
    api_url: Optional[str]
    model: Optional[str]
    token_cache: Optional[str]
    ledger: Optional[str]
    allow_http: Optional[str]
    profile: Optional[str]

    def __repr__(self) -> str:
        return "Environment(…)"

    @property
    def credentials_variable(self) -> Optional[str]:
        """The variable whose credentials are used, before those of a stored login; ``None`` if none is set."""
        return API_KEY_VARIABLE if self.api_key else COOKIES_VARIABLE if self.cookies else None

    @classmethod
    def read(cls, environ: Optional[Mapping[str, str]] = None) -> "Environment":
        """Read the variables now: nothing is remembered from one call to the next."""
        source = os.environ if environ is None else environ

        def value(name: str) -> Optional[str]:
            return source.get(name, "").strip() or None

        return cls(
            api_key=value(API_KEY_VARIABLE),
            cookies=value(COOKIES_VARIABLE),
            github_url=value(GITHUB_URL_VARIABLE),
            api_url=value(API_URL_VARIABLE),
            model=value(MODEL_VARIABLE),
            token_cache=value(TOKEN_CACHE_VARIABLE),
            ledger=value(LEDGER_VARIABLE),
            allow_http=value(ALLOW_HTTP_VARIABLE),
            profile=value(PROFILE_VARIABLE),
        )


@dataclass(frozen=True)
class Urls:
    """The two hosts. The cookies belong to the first, the token to the second; neither goes to the other.

    ``api`` is ``AUTO`` if the account's page is to name the host.
    """

    github: str
    api: str

    @property
    def is_auto(self) -> bool:
        """Whether the account's page is to name the API host."""
        return self.api == AUTO

    @property
    def hosts(self) -> Tuple[str, ...]:
        """The hosts that are known beforehand, each once."""
        return tuple(dict.fromkeys([self.github] if self.is_auto else [self.github, self.api]))


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)
_ADDRESS = re.compile(r"(https?)://(\[.*\]|[^:]+)(?::(\d+))?")
_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """Return the scheme and the host of a URL with its port, in lower case; what is no URL comes back as it is.

    ``urlsplit`` has one cache for the whole process, with a lock. Without the GIL, the threads of a program would wait
    for each other there with each request, and a child that is forked meanwhile can inherit the lock locked.
    """
    found = _ORIGIN.match(url)
    return url if found is None else found.group().lower()


def address_of(url: str) -> Tuple[str, Optional[int]]:
    """Return the host and the port of a base URL; ``("", None)`` for what is no URL, as ``auto`` is."""
    found = _ADDRESS.match(origin_of(url))
    if found is None:
        return "", None
    scheme, host, port = found.groups()
    return host.strip("[]"), int(port or _PORTS[scheme])


def choose_urls(github_url: object, api_url: object, environment: Environment) -> Urls:
    """Choose from what was given, the environment and the defaults, in this order. The API may be ``AUTO``.

    Raises:
        TypeError: A URL is not a string.
        ValueError: A URL is not one of a web server, or it would send credentials in the clear.
    """
    # A password may stand in a URL, if wrongly.
    github_url, api_url = Secret.coerce(github_url), Secret.coerce(api_url)
    github = github_url or Secret(environment.github_url or GITHUB_URL)
    api = api_url or Secret(environment.api_url or API_URL)
    in_the_clear = environment.allow_http == "1"
    fault = _fault_of("github_url", github.reveal(), in_the_clear)
    if api.reveal() != AUTO:
        fault = fault or _fault_of("api_url", api.reveal(), in_the_clear)
    if fault is not None:
        raise fault
    return Urls(github.reveal().rstrip("/"), api.reveal().rstrip("/"))


def _fault_of(name: str, value: object, in_the_clear: bool) -> Optional[Exception]:
    """What is wrong with a base URL, in words that quote nothing of it."""
    if not isinstance(value, str):
        return TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not (value.isascii() and value.isprintable()) or " " in value:
        return ValueError(f"{name} must be plain ASCII without blanks")
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return ValueError(f"{name} is not a valid URL: its host or its port makes no sense")
    if parts.scheme not in ("http", "https") or not host:
        words = f', or be "{AUTO}"' if name == "api_url" else ""
        return ValueError(f"{name} must begin with https:// and name a host{words}")
    if parts.username is not None or "?" in value or "#" in value:
        return ValueError(f"{name} must be a plain base URL without a user name, a query or a fragment")
    if parts.scheme == "http" and not (in_the_clear or is_loopback(host)):
        return ValueError(
            f"{name} must begin with https://: without it the credentials would cross the network in the clear "
            f"(http:// is for this machine alone, localhost or 127.0.0.1, unless {ALLOW_HTTP_VARIABLE}=1 is set)"
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name is one of this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def is_address(host: str) -> bool:
    """Whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_plain(name: str, function: Any) -> None:
    """Check a function that is called from inside a call.

    Raises:
        TypeError: It is a coroutine function.
    """
    if any(map(inspect.iscoroutinefunction, (function, getattr(type(function), "__call__", None)))):  # noqa: B004
        raise TypeError(f"{name} must be a plain function, not a coroutine function: nobody would await it")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a failed request is sent again.

    Args:
        attempts: Requests in all for each stage. Default 4.
        base: Seconds; the first wait is anything up to it, and the bound doubles with each further one. Default 0.5.
        cap: The longest wait of our own, in seconds. Default 8.
        max_wait: The longest wait that the server may ask for, in seconds. If it asks for more, the error is raised
            at once. Default 60.
        on_retry: Called as ``on_retry(error, seconds)`` before each wait; what it raises ends the call.
        wait_for_limits: Whether a call waits when the service asks to slow down (429, or 503 with ``Retry-After``). If
            not, the error is raised at once, with ``retry_after``. Default ``True``.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A number is out of its range.
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 8.0
    max_wait: float = 60.0
    on_retry: Optional[Callable[[CopilotError, float], None]] = None
    wait_for_limits: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"attempts must be a whole number, not {type(self.attempts).__name__}")
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        for name in ("base", "cap", "max_wait"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
            if not value >= 0 or math.isinf(value):
                raise ValueError(f"{name} must be a number of seconds of at least zero, not {value}")
        if self.on_retry is not None and not callable(self.on_retry):
            raise TypeError("on_retry must be callable")
        check_plain("on_retry", self.on_retry)
        if not isinstance(self.wait_for_limits, bool):
            raise TypeError(f"wait_for_limits must be True or False, not {type(self.wait_for_limits).__name__}")

    @classmethod
    def from_value(cls, value: "Optional[RetryPolicy]") -> "Optional[RetryPolicy]":
        """Check what a caller passes: a policy, or ``None`` for no retries."""
        if value is not None and not isinstance(value, RetryPolicy):
            raise TypeError(f"retry must be a RetryPolicy or None, not {type(value).__name__}")
        return value
