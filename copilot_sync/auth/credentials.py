"""Which credentials are used: the argument, else the environment, else what can be found on the machine.

In this order: the ``api_key`` argument, the ``cookies`` argument, ``COPILOT_SYNC_API_KEY``, and then the search of
``get_cookies``. Nothing is read before a token is needed, so a client can be made before there is anything. Cookies
that were given in the same place as an ``api_key`` (both as arguments, or both in the environment) fetch what
github.com shows to cookies alone: the quota, and the page that names the host of the API.
"""

import contextlib
import functools
import json
import os
import time
from http.cookiejar import CookieJar
from typing import Any, Dict, List, Mapping, Optional, Union
from urllib.parse import urlsplit

from copilot_sync.auth.browsers import load_library
from copilot_sync.auth.caches import TokenCache
from copilot_sync.auth.cookie_formats import CookieSource, parse_jar
from copilot_sync.auth.cookies import get_cookies, login_cookies
from copilot_sync.auth.tokens import BOTH, ExchangedTokens, GivenToken, StaticToken, TokenSource, bare, fingerprint
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.protocol.untrusted import is_header_value
from copilot_sync.secret import Secret
from copilot_sync.settings import API_URL_VARIABLE, GITHUB_URL, Environment, Urls, is_loopback
from copilot_sync.times import read_time
from copilot_sync.transport.session import Transport

#: What no end of a token can be, in seconds since 1970: the zeros of clocks and languages, and the end of all dates.
_EARLIEST, _LATEST = 1e9, 1e11


class Credentials:
    """What the user gave, or the environment at this moment, and where else to look. Shows none of it.

    Args:
        api_key: A token to use as it is, or the JSON in which the page keeps it, with ``value`` and ``expiration``.
            ``""`` is none.
        cookies: What ``read_cookies`` reads, or a folder of cookie files.
        environment: The environment variables.

    Raises:
        TypeError: ``api_key`` is not a string.
        ValueError: ``api_key`` can't be sent in a header, or is JSON without a token in it.
    """

    def __init__(
        self,
        api_key: Union[None, str, Secret[Any]],
        cookies: Union[None, CookieSource, Secret[Any]],
        environment: Environment,
    ) -> None:
        api_key, cookies = Secret.coerce(api_key), Secret.coerce(cookies)
        is_given = cookies.reveal() is not None
        key = api_key or Secret(None if is_given else environment.api_key)
        self._cookies = _copied(cookies) if is_given else None
        self._api_key = _given_token(key) if key else None
        # Cookies belong to a token's account if they were given in the same place as it.
        self._has_both = is_given or (not api_key and environment.cookies is not None)
        self._found_at = environment.cookies
        if self._api_key is None and not is_given and environment.cookies is None:
            load_library()  # now, because a call must not be the first to import something

    def token_source(self, urls: Urls, transport: Transport, cache: Optional[TokenCache]) -> TokenSource:
        """Return the source of tokens with these credentials.

        Raises:
            ValueError: The API host is to be looked for with cookies, and there are none of the ``api_key``'s account.
        """
        self.check_urls(urls)
        with_cookies = ExchangedTokens(
            functools.partial(self.find_cookies, cookie_domain(urls)), urls, transport, cache
        )
        if self._api_key is None:
            return with_cookies
        return StaticToken(self._api_key, urls, with_cookies if self._has_both else None)

    def check_urls(self, urls: Urls) -> None:
        """Raise if the API host can't be found with these credentials.

        Raises:
            ValueError: It is to be looked for with cookies, and there are none of the ``api_key``'s account.
        """
        if urls.is_auto and self._api_key is not None and not self._has_both:
            raise ValueError(
                'api_url="auto" needs cookies, to look at the account\'s page, and there is only an api_key: '
                f"{BOTH}, or set api_url (or {API_URL_VARIABLE}) to the host of the plan"
            )

    def look(self, urls: Urls) -> None:
        """See whether there are any, as the first call would: a program can so tell of it before that.

        Raises:
            AuthenticationError: The ``api_key`` has expired.
            MissingCredentialsError: There are none.
            TypeError: The ``cookies`` argument has the wrong type.
            ValueError: The ``cookies`` argument can't be sent, or the API host can't be found with these credentials.
        """
        self.check_urls(urls)
        if self._api_key is None:
            self.find_cookies(cookie_domain(urls))
        self.check_api_key()

    def check_api_key(self) -> None:
        """Raise if there is an ``api_key`` whose time is over.

        Raises:
            AuthenticationError: It is.
        """
        if self._api_key is not None:
            self._api_key.check(time.time())

    @property
    def expires(self) -> Optional[float]:
        """When the ``api_key`` ends, in seconds since 1970; ``None`` if there is none or it does not say."""
        return None if self._api_key is None else self._api_key.expires

    def find_cookies(self, domain: str) -> Dict[str, str]:
        """Find the cookies now.

        Raises:
            MissingCredentialsError: There are none.
            TypeError: The ``cookies`` argument has the wrong type.
            ValueError: The ``cookies`` argument can't be sent.
        """
        try:
            if self._cookies is None:
                return get_cookies(domain)
            return login_cookies(self._cookies.reveal(), domain).cookies
        except (MissingCredentialsError, TypeError, ValueError) as error:
            failure = bare(error)
        raise failure

    def fingerprint(self) -> str:
        """Tell these credentials from others without showing them."""
        parts: List[str] = []
        if self._api_key is not None:
            parts += "api_key", self._api_key.token.reveal(), str(self._api_key.expires)
        if self._cookies is not None:
            parts += "cookies", repr(self._cookies.reveal())
        elif self._api_key is None or self._has_both:
            parts += "search", self._found_at or "", _folder()
        return fingerprint(*parts)

    def __repr__(self) -> str:
        return "Credentials(***)"


def _given_token(api_key: Secret[Any]) -> GivenToken:
    """Read an ``api_key``, which may be the JSON that the page keeps in its local storage."""
    if not isinstance(api_key.reveal(), str):
        raise TypeError(f"api_key must be a string, not {type(api_key.reveal()).__name__}")
    given = _from_json(api_key) if api_key.reveal().lstrip().startswith("{") else GivenToken(api_key)
    if not given.token:
        raise ValueError('the api_key is JSON without a token: expected {"value": "…", "expiration": "…"}')
    if not is_header_value(given.token.reveal()):
        raise ValueError("the api_key holds characters that can't be sent in a header")
    return given


def _from_json(api_key: Secret[str]) -> GivenToken:
    data = None
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(api_key.reveal())
    tokens = [data.get(key) for key in ("value", "token")] if isinstance(data, dict) else []
    token = Secret(next((token for token in tokens if isinstance(token, str) and token), ""))
    expires = read_time(data.get("expiration")) if isinstance(data, dict) else None
    return GivenToken(token, expires if expires is not None and _EARLIEST < expires < _LATEST else None)


def _folder() -> str:
    """Where the search begins; ``""`` if that folder was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _copied(cookies: Secret[CookieSource]) -> Secret[CookieSource]:
    """Return what was given, as it is now and in a form that pickles."""
    source = cookies.reveal()
    if isinstance(source, CookieJar):
        listed: List[Mapping[str, Any]] = [
            {
                "name": cookie.name,
                "value": cookie.value,
                "domain": cookie.domain,
                "hostOnly": cookie.host_only,
                "expires": cookie.expires,
            }
            for cookie in parse_jar(source)
        ]
        return Secret(listed)
    return Secret(dict(source) if isinstance(source, Mapping) else source)


def cookie_domain(urls: Urls) -> str:
    """Whose cookies belong to ``github_url``: its host's, and a stand-in on this machine takes github.com's."""
    host = urlsplit(urls.github).hostname or ""
    return urlsplit(GITHUB_URL).netloc if is_loopback(host) else host
