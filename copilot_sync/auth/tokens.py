"""Tokens: given as they are, or exchanged for cookies and kept until shortly before their end.

However many threads need a token, one of them fetches it and the others wait for what comes of it. A token's age is
measured with the monotonic clock, so a wall clock that jumps does no harm.

Threads: what is kept is atomic: it is replaced as a whole by the one thread that fetches, and never taken away.
"""

import hashlib
import json
import time
from contextlib import nullcontext
from typing import Callable, ContextManager, Dict, NamedTuple, Optional, Protocol, Tuple, TypeVar, Union

from copilot_sync.auth.caches import TokenCache, keep, look_up
from copilot_sync.auth.headers import cookie_header, mask_of, send_cookies
from copilot_sync.auth.single_flight import SingleFlight
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    MissingCredentialsError,
    ProtocolError,
)
from copilot_sync.pacing.backoff import retry
from copilot_sync.pacing.cooldown import Cooldown, cooldown_of
from copilot_sync.protocol.errors import error_of_status
from copilot_sync.protocol.replies import read_token
from copilot_sync.protocol.requests import Request, token_request
from copilot_sync.protocol.untrusted import RawReply, is_header_value
from copilot_sync.secret import Secret
from copilot_sync.settings import API_KEY_VARIABLE, COOKIES_VARIABLE, TOKEN_MARGIN, RetryPolicy, Urls
from copilot_sync.times import in_words
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Transport

#: Seconds. A cache that says that a token lives longer is wrong, or the clock is.
_LONGEST_KEPT = 86400.0
#: How to have cookies beside an ``api_key``.
BOTH = f"pass cookies= as well, or set {COOKIES_VARIABLE} beside {API_KEY_VARIABLE}"

E = TypeVar("E", bound=BaseException)
T = TypeVar("T")
#: Reads a reply; its second argument takes the secrets out of the server's words.
Understand = Callable[[RawReply, Callable[[str], str]], T]


class TokenSource(Protocol):
    """Where the token of a request comes from.

    Attributes:
        cooldown: What holds back the calls of the account that the token belongs to.
    """

    cooldown: Cooldown

    def find_account(self) -> Cooldown:
        """Look for the credentials, and return ``cooldown``, which is that of their account from then on."""

    def get(self, call: CallContext, policy: Optional[RetryPolicy]) -> Secret[str]:
        """Return a token that should be valid."""

    def known(self, call: CallContext) -> Optional[Secret[str]]:
        """Return a token that should be valid; ``None`` if ``get`` may have to wait for one, or has none."""

    def accepted(self, token: Secret[str]) -> None:
        """Take note that the service knows a token."""

    def refused(self, token: Secret[str], *, renewed: bool) -> bool:
        """Take note that the service refused a token.

        ``renewed`` says that the same request had been refused with an earlier one. Gives whether it makes sense to
        send it with yet another one, which ``get`` comes up with.
        """

    def fetch_with_cookies(
        self, request: Request, call: CallContext, policy: Optional[RetryPolicy], understand: Understand[T]
    ) -> T:
        """Send a request to ``github_url`` with the cookies, as often as the policy has it, and read the reply."""


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
        with_cookies: Sends what needs cookies, if the user gave these as well.
        now: The wall clock, in seconds since 1970.
    """

    def __init__(
        self,
        given: GivenToken,
        urls: Optional[Urls] = None,
        with_cookies: "Optional[ExchangedTokens]" = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._given = given
        self._urls = urls
        self._with_cookies = with_cookies
        self._now = now
        self._share()

    def _share(self) -> None:
        self.cooldown = Cooldown() if self._urls is None else _cooldown("api_key", self._given.token, self._urls)

    def find_account(self) -> Cooldown:
        """Return the cool-down of the token's account."""
        return self.cooldown

    def get(self, call: CallContext, policy: Optional[RetryPolicy]) -> Secret[str]:
        """Return the token.

        Raises:
            AuthenticationError: It has expired.
        """
        self._given.check(self._now())
        return self._given.token

    def known(self, call: CallContext) -> Optional[Secret[str]]:
        """Return the token; ``None`` if it has expired."""
        try:
            return self.get(call, None)
        except AuthenticationError:
            return None

    def accepted(self, token: Secret[str]) -> None:
        """It is the only one, so nothing follows from it."""

    def refused(self, token: Secret[str], *, renewed: bool) -> bool:
        """There is no other one."""
        return False

    def fetch_with_cookies(
        self, request: Request, call: CallContext, policy: Optional[RetryPolicy], understand: Understand[T]
    ) -> T:
        """Send a request with the cookies that were given beside the token.

        Raises:
            MissingCredentialsError: There are none.
            CopilotError: What the last attempt failed with.
        """
        if self._with_cookies is None:
            raise MissingCredentialsError(
                f"the {request.stage} is asked for with the github.com cookies, and there is only an api_key: {BOTH}",
                stage="credentials",
            )
        return self._with_cookies.fetch_with_cookies(request, call, policy, understand)

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
        # What was kept when a token was refused. What was kept is not taken away: another thread may have renewed it.
        self._ended: Optional[_Kept] = None
        self._refused: Optional[Secret[str]] = None
        self._proven: Optional[Secret[str]] = None
        self._flight = SingleFlight("token")
        self.cooldown = Cooldown()  # of nobody yet, because it is not known whose cookies there are

    def find_account(self) -> Cooldown:
        """Look for the cookies, and return the cool-down of their account.

        Raises:
            MissingCredentialsError: There are none.
        """
        self._look_for_cookies()
        return self.cooldown

    def get(self, call: CallContext, policy: Optional[RetryPolicy]) -> Secret[str]:
        """Return a token that should be valid, fetching one if there is none.

        Raises:
            MissingCredentialsError: There are no cookies.
            AuthenticationError: The cookies were refused.
            CopilotError: Whatever kept the token from being fetched.
        """
        token = self.known(call)
        if token is not None:
            return token
        return self._flight.run(call, lambda: self.known(call), lambda: self._renewed(call, policy))

    def accepted(self, token: Secret[str]) -> None:
        """Take note that the service knows a token. Late words about an earlier one count for nothing."""
        kept = self._present()
        if kept is not None and kept.token == token:
            self._proven = token

    def refused(self, token: Secret[str], *, renewed: bool) -> bool:
        """Take note that the service refused a token, wherever it is kept.

        A request is sent anew once. If the new token is refused as well, the credentials are at fault, unless that
        token was good for another request, or refused to one, meanwhile: then it only came to its end too soon.
        """
        kept = self._present()
        current = kept is not None and kept.token == token
        if current:
            self._ended, self._refused = kept, token
        return not (renewed and current) or token == self._proven

    def _present(self) -> Optional[_Kept]:
        """What is kept, unless it was refused."""
        kept = self._kept
        return None if kept is self._ended else kept

    def known(self, call: CallContext) -> Optional[Secret[str]]:
        """Return what is kept, as long as it should be valid."""
        kept = self._present()
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
        def read(reply: RawReply, mask: Callable[[str], str]) -> Tuple[Secret[str], float]:
            token, lifetime = read_token(reply, self._now(), mask)
            return Secret(token), lifetime

        # Found first, because another call that is refused meanwhile forgets them.
        cookies = self._look_for_cookies()
        with self._connecting(call):
            token, lifetime = self._fetch(token_request(self._urls), cookies, call, policy, read)
        if self._cache is not None:
            keep(self._cache, self._key(cookies), self._entry(token, lifetime), max(1, int(lifetime)))
        return token, lifetime

    def _look_for_cookies(self) -> Secret[str]:
        cookies = self._cookies
        if cookies is None:
            cookies = cookie_header(self._find_cookies())
            self.cooldown = _cooldown("cookies", _session_of(cookies), self._urls)
            self._cookies = cookies
        return cookies

    def fetch_with_cookies(
        self, request: Request, call: CallContext, policy: Optional[RetryPolicy], understand: Understand[T]
    ) -> T:
        """Send a request that does no harm if it is taken twice to ``github_url``, with the cookies.

        Args:
            request: The request.
            call: The call that it is made for.
            policy: How often it is sent at most.
            understand: Reads a whole reply of success. What it returns comes out.

        Raises:
            MissingCredentialsError: There are no cookies.
            AuthenticationError: The cookies were refused.
            CopilotError: What the last attempt failed with.
        """
        return self._fetch(request, self._look_for_cookies(), call, policy, understand)

    def _fetch(
        self,
        request: Request,
        cookies: Secret[str],
        call: CallContext,
        policy: Optional[RetryPolicy],
        understand: Understand[T],
    ) -> T:
        try:
            return retry(lambda: self._send(request, cookies, call, policy, understand), policy, call)
        except AuthenticationError:
            # The user may renew the file or the browser's session meanwhile.
            self._cookies = None
            raise

    def _connecting(self, call: CallContext) -> ContextManager[None]:
        """Connect to the other host, which the token is for, if it is known which one that is."""
        return nullcontext() if self._urls.is_auto else self._transport.connecting(self._urls.api, call)

    def _send(
        self,
        request: Request,
        cookies: Secret[str],
        call: CallContext,
        policy: Optional[RetryPolicy],
        understand: Understand[T],
    ) -> T:
        cooldown = self.cooldown
        if not cooldown.is_open:
            cooldown.wait(policy, call, request.stage)
        now, mask = self._now(), mask_of(cookies)

        def read(reply: RawReply) -> Union[CopilotError, T]:
            error = error_of_status(request, reply, now=now, mask=mask)
            return understand(reply, mask) if error is None else known_error(error)

        try:
            found = self._transport.fetch(request, send_cookies(cookies, self._urls), call, read)
        except CopilotError as error:
            found = bare(error)
        if isinstance(found, CopilotError):
            cooldown.failed(found, policy, call)
            raise found
        if cooldown.active:
            cooldown.succeeded(request.stage)
        return found

    def _entry(self, token: Secret[str], lifetime: float) -> str:
        return json.dumps({"token": token.reveal(), "until": self._now() + lifetime})

    def _cached(self) -> Optional[Tuple[Secret[str], float]]:
        if self._cache is None:
            return None
        kept = look_up(self._cache, self._key(self._look_for_cookies()))
        try:
            data = json.loads(kept) if isinstance(kept, str) else None
            value, lifetime = data["token"], float(data["until"]) - self._now()  # type: ignore[index]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        if not isinstance(value, str) or not is_header_value(value) or Secret(value) == self._refused:
            return None
        return (Secret(value), lifetime) if 1 < lifetime <= _LONGEST_KEPT else None

    def _key(self, cookies: Secret[str]) -> str:
        return cache_key(self._urls.github, cookies)

    def __getstate__(self) -> Dict[str, object]:
        # What is kept goes by this process's clock.
        left_behind = ("_kept", "_ended", "cooldown")
        return {name: value for name, value in self.__dict__.items() if name not in left_behind}

    def __setstate__(self, state: Dict[str, object]) -> None:
        self.__dict__.update(state)
        self._kept = self._ended = None
        self.cooldown = Cooldown()
        if self._cookies is not None:
            self.cooldown = _cooldown("cookies", _session_of(self._cookies), self._urls)


def cache_key(github_url: str, cookies: Secret[str]) -> str:
    """Return what a token is kept under: a fingerprint of the cookies and the host, from which neither can be read."""
    return "copilot-sync-" + fingerprint(github_url, cookies.reveal())


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
