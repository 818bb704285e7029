"""Tokens: given as they are, or exchanged for cookies and kept until shortly before their end.

However many threads need a token, one of them fetches it and the others wait for what comes of it. A token's age is
measured with the monotonic clock, so a wall clock that jumps does no harm. The cookies go to ``github_url`` and the
token to ``api_url``; the two callables here that put them into a request refuse any other host.
"""

import hashlib
import json
import time
from contextlib import nullcontext
from typing import Callable, ContextManager, Dict, NamedTuple, Optional, Protocol, Tuple, TypeVar, Union
from urllib.parse import urlsplit

import requests

from copilot_sync.auth.caches import TokenCache, keep, look_up
from copilot_sync.auth.single_flight import SingleFlight
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    ProtocolError,
)
from copilot_sync.pacing.backoff import retry
from copilot_sync.pacing.cooldown import Cooldown, cooldown_of
from copilot_sync.protocol.errors import error_of_status
from copilot_sync.protocol.replies import read_token
from copilot_sync.protocol.requests import token_request
from copilot_sync.protocol.untrusted import RawReply, is_header_value
from copilot_sync.secret import MaskedText, Secret
from copilot_sync.settings import TOKEN_MARGIN, RetryPolicy, Urls
from copilot_sync.times import in_words
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Auth, Transport

#: Seconds. A cache that says that a token lives longer is wrong, or the clock is.
_LONGEST_KEPT = 86400.0
#: Shorter values occur in ordinary words, and masking them would make a message unreadable.
_SHORTEST_MASKED = 6

E = TypeVar("E", bound=BaseException)


class TokenSource(Protocol):
    """Where the token of a request comes from.

    Attributes:
        cooldown: What holds back the calls of the account that the token belongs to.
    """

    cooldown: Cooldown

    def get(self, call: CallContext, policy: Optional[RetryPolicy]) -> Secret[str]:
        """Return a token that should be valid."""

    def page_cookies(self) -> Optional[Secret[str]]:
        """Return the cookies that show the account's page, as a header; ``None`` if there are none."""

    def accepted(self, token: Secret[str]) -> None:
        """Take note that the service knows a token."""

    def refused(self, token: Secret[str], *, renewed: bool) -> bool:
        """Take note that the service refused a token.

        ``renewed`` says that the same request had been refused with an earlier one. Gives whether it makes sense to
        send it with yet another one, which ``get`` comes up with.
        """


class GivenToken(NamedTuple):
    """A token that the user gave.

    Args:
        token: The token.
        expires: When it ends, in seconds since 1970 by the wall clock; ``None`` if that is not known.
    """

    token: Secret[str]
    expires: Optional[float] = None

    def check(self, now: float) -> None:
        """Raise if its time is over.

        Raises:
            AuthenticationError: It is.
        """
        if self.expires is not None and now >= self.expires:
            moment = in_words(self.expires)
            raise AuthenticationError(
                f"the api_key expired on {moment}: copy a new one from the page's local storage (COPILOT_AUTH_TOKEN), "
                "or pass cookies, with which tokens are renewed",
                stage="credentials",
            )


class StaticToken:
    """A token that the user gave. It is used as it is until it expires, and can't be renewed.

    Args:
        given: The token.
        urls: The two hosts: with them it is known who else in this process uses the same account.
        find_cookies: Returns the cookies that were given besides; ``None`` if there are none.
        now: The wall clock, in seconds since 1970.
    """

    def __init__(
        self,
        given: GivenToken,
        urls: Optional[Urls] = None,
        find_cookies: Optional[Callable[[], Dict[str, str]]] = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._given = given
        self._urls = urls
        self._find_cookies = find_cookies
        self._now = now
        self._share()

    def _share(self) -> None:
        self.cooldown = Cooldown() if self._urls is None else _cooldown("api_key", self._given.token, self._urls)

    def get(self, call: CallContext, policy: Optional[RetryPolicy]) -> Secret[str]:
        """Return the token.

        Raises:
            AuthenticationError: It has expired.
        """
        self._given.check(self._now())
        return self._given.token

    def page_cookies(self) -> Optional[Secret[str]]:
        """Return the cookies that were given besides the token, as a header; ``None`` if there are none."""
        return None if self._find_cookies is None else cookie_header(self._find_cookies())

    def accepted(self, token: Secret[str]) -> None:
        """It is the only one, so nothing follows from it."""

    def refused(self, token: Secret[str], *, renewed: bool) -> bool:
        """There is no other one."""
        return False

    def __getstate__(self) -> Dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "cooldown"}

    def __setstate__(self, state: Dict[str, object]) -> None:
        self.__dict__.update(state)
        self._share()


class _Kept(NamedTuple):
    token: Secret[str]
    until: float  # on the monotonic clock


class ExchangedTokens:
    """Tokens that github.com gives for the user's cookies. Safe for any thread.

    Args:
        find_cookies: Gives the cookies. Called when a token is needed, and again after they were refused.
        urls: The two hosts.
        transport: What the exchange is sent with.
        cache: Where tokens outlive this object; ``None`` for nowhere.
        now: The wall clock, in seconds since 1970.
    """

    def __init__(
        self,
        find_cookies: Callable[[], Dict[str, str]],
        urls: Urls,
        transport: Transport,
        cache: Optional[TokenCache],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._find_cookies = find_cookies
        self._urls = urls
        self._transport = transport
        self._cache = cache
        self._now = now
        self._cookies: Optional[Secret[str]] = None
        self._kept: Optional[_Kept] = None
        self._refused: Optional[Secret[str]] = None
        self._proven: Optional[Secret[str]] = None
        self._flight = SingleFlight("token")
        self.cooldown = Cooldown()  # of nobody yet, because it is not known whose cookies there are

    def get(self, call: CallContext, policy: Optional[RetryPolicy]) -> Secret[str]:
        """Return a token that should be valid, fetching one if there is none.

        Raises:
            MissingCredentialsError: There are no cookies.
            AuthenticationError: The cookies were refused.
            CopilotError: Whatever kept the token from being fetched.
        """
        token = self._valid(call)
        if token is not None:
            return token
        return self._flight.run(call, lambda: self._valid(call), lambda: self._renewed(call, policy))

    def page_cookies(self) -> Optional[Secret[str]]:
        """Return the cookies, as a header."""
        self._look_for_cookies()
        return self._cookies

    def accepted(self, token: Secret[str]) -> None:
        """Take note that the service knows a token. Late words about an earlier one count for nothing."""
        if self._is_current(token):
            self._proven = token

    def refused(self, token: Secret[str], *, renewed: bool) -> bool:
        """Take note that the service refused a token, wherever it is kept.

        A request is sent anew once. If the new token is refused as well, the credentials are at fault, unless that
        token was good for another request, or refused to one, meanwhile: then it only came to its end too soon.
        """
        current = self._is_current(token)
        if current:
            self._kept = None
            self._refused = token
        return not (renewed and current) or token == self._proven

    def _is_current(self, token: Secret[str]) -> bool:
        kept = self._kept
        return kept is not None and kept.token == token

    def _valid(self, call: CallContext) -> Optional[Secret[str]]:
        kept = self._kept
        if kept is None or call.clock() >= kept.until:
            return None
        return kept.token

    def _renewed(self, call: CallContext, policy: Optional[RetryPolicy]) -> Secret[str]:
        token, lifetime = self._cached() or self._fetched(call, policy)
        margin = min(TOKEN_MARGIN, lifetime / 10)
        self._proven = None
        self._kept = _Kept(token, call.clock() + lifetime - margin)
        return token

    def _fetched(self, call: CallContext, policy: Optional[RetryPolicy]) -> Tuple[Secret[str], float]:
        self._look_for_cookies()
        try:
            with self._connecting(call):
                token, lifetime = retry(lambda: self._exchange(call, policy), policy, call)
        except AuthenticationError:
            # The user may renew the file or the browser's session meanwhile.
            self._cookies = None
            raise
        if self._cache is not None:
            keep(self._cache, self._key(), self._entry(token, lifetime), max(1, int(lifetime)))
        return token, lifetime

    def _connecting(self, call: CallContext) -> ContextManager[None]:
        """Connect to the other host, which the token is for, if it is known which one that is."""
        return nullcontext() if self._urls.is_auto else self._transport.connecting(self._urls.api, call)

    def _look_for_cookies(self) -> None:
        if self._cookies is None:
            self._cookies = cookie_header(self._find_cookies())
            self.cooldown = _cooldown("cookies", _session_of(self._cookies), self._urls)

    def _exchange(self, call: CallContext, policy: Optional[RetryPolicy]) -> Tuple[Secret[str], float]:
        cookies, cooldown = self._cookies or Secret(""), self.cooldown
        request = token_request(self._urls)
        if cooldown.active:
            cooldown.wait(policy, call, request.stage)
        now, mask = self._now(), mask_of(cookies)

        def read(reply: RawReply) -> Union[CopilotError, Tuple[str, float]]:
            error = error_of_status(request, reply, now=now, mask=mask)
            return read_token(reply, now, mask) if error is None else known_error(error)

        try:
            found = self._transport.fetch(request, send_cookies(cookies, self._urls), call, read)
        except CopilotError as error:
            found = bare(error)
        if isinstance(found, CopilotError):
            cooldown.failed(found, policy, call)
            raise found
        if cooldown.active:
            cooldown.succeeded(request.stage)
        return Secret(found[0]), found[1]

    def _entry(self, token: Secret[str], lifetime: float) -> str:
        return json.dumps({"token": token.reveal(), "until": self._now() + lifetime})

    def _cached(self) -> Optional[Tuple[Secret[str], float]]:
        if self._cache is None:
            return None
        self._look_for_cookies()
        kept = look_up(self._cache, self._key())
        try:
            data = json.loads(kept) if isinstance(kept, str) else None
            value, lifetime = data["token"], float(data["until"]) - self._now()  # type: ignore[index]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        if not isinstance(value, str) or not is_header_value(value) or Secret(value) == self._refused:
            return None
        return (Secret(value), lifetime) if 1 < lifetime <= _LONGEST_KEPT else None

    def _key(self) -> str:
        """A fingerprint of the credentials and the host, from which neither can be read."""
        cookies = self._cookies or Secret("")
        return "copilot-sync-" + fingerprint(self._urls.github, cookies.reveal())

    def __getstate__(self) -> Dict[str, object]:
        # What is kept goes by this process's clock.
        left_behind = ("_kept", "cooldown")
        return {name: value for name, value in self.__dict__.items() if name not in left_behind}

    def __setstate__(self, state: Dict[str, object]) -> None:
        self.__dict__.update(state)
        self._kept = None
        self.cooldown = Cooldown()
        if self._cookies is not None:
            self.cooldown = _cooldown("cookies", _session_of(self._cookies), self._urls)


def _cooldown(kind: str, secret: Secret[str], urls: Urls) -> Cooldown:
    """The one that everything in this process shares that uses the same account on the same hosts."""
    return cooldown_of(fingerprint(kind, secret.reveal(), urls.github, urls.api))


def _session_of(cookies: Secret[str]) -> Secret[str]:
    """What of the cookies says whose they are: the others come and go."""
    pairs = dict(pair.partition("=")[::2] for pair in cookies.reveal().split("; "))
    return Secret(pairs.get("user_session") or cookies.reveal())


def fingerprint(*parts: str) -> str:
    """A short name for what must not be shown itself."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def known_error(error: CopilotError) -> CopilotError:
    """Return what a reply was understood to say; one that means nothing known is raised."""
    if isinstance(error, ProtocolError):
        raise error
    return error


def bare(error: E) -> E:
    """Take the frames and the context off an error: their variables hold what a report of it must not show."""
    error.__traceback__ = error.__context__ = None
    return error


def cookie_header(cookies: Dict[str, str]) -> Secret[str]:
    """The value of a ``Cookie`` header."""
    return Secret("; ".join(f"{name}={value}" for name, value in cookies.items()))


def send_cookies(cookies: Secret[str], urls: Urls) -> Auth:
    """Put cookies into a request to ``github_url``."""
    return _header("Cookie", cookies, urls.github)


def send_token(token: Secret[str], urls: Urls) -> Auth:
    """Put a token into a request to ``api_url``."""
    return _header("Authorization", Secret(f"GitHub-Bearer {token.reveal()}"), urls.api)


def _header(name: str, value: Secret[str], base: str) -> Auth:
    host = urlsplit(base)[:2]

    def authenticate(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if tuple(urlsplit(str(request.url))[:2]) != tuple(part.lower() for part in host):
            raise AssertionError("credentials were about to go to another host")
        request.headers[name] = MaskedText(value.reveal())
        return request

    return authenticate


def mask_of(secret: Secret[str]) -> Callable[[str], str]:
    """Return what takes a secret out of a text: the whole of it, and the values of the cookies in it."""
    header = secret.reveal()
    parts = [header, *(pair.partition("=")[2] for pair in header.split("; "))]
    hidden = sorted({part for part in parts if len(part) >= _SHORTEST_MASKED}, key=len, reverse=True)

    def mask(text: str) -> str:
        for part in hidden:
            text = text.replace(part, "***")
        return text

    return mask
