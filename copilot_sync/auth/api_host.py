"""Where the API of the account's plan is, as the account's page names it.

``Client(api_url="auto")`` looks there before its first request to the API, and keeps what it finds. After a host has
refused a token as another host's (421), the page is asked once more. A host that was set is asked as it is; there, the
page only helps to say which one is right.

The page is asked with the cookies, and never with the token. The host that it names is judged by ``protocol.page``.

Threads: the host that was named is one attribute, which is atomic; ``SingleFlight`` lets one thread ask for it.
"""

from typing import Callable, Optional

from copilot_sync.auth.single_flight import SingleFlight
from copilot_sync.auth.tokens import TokenSource
from copilot_sync.errors import CopilotError, StreamClosedError, WrongHostError
from copilot_sync.protocol.page import page_request, read_api_url
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import API_URL_VARIABLE, RetryPolicy, Urls
from copilot_sync.transport.call import CallContext

#: Seconds that a failed call waits at most to learn which host is right.
_EXPLANATION_TIMEOUT = 10.0


class ApiHost:
    """The base URL of the API. Safe for any thread; a copy and a forked child keep what was found.

    Args:
        urls: The two hosts.
        tokens: What sends requests with the account's cookies.
    """

    def __init__(self, urls: Urls, tokens: TokenSource) -> None:
        self._urls = urls
        self._tokens = tokens
        self._named: Optional[str] = None  # by the page
        self._flight = SingleFlight("token")

    @property
    def known(self) -> Optional[str]:
        """The base URL; ``None`` if the page has not named it yet."""
        return self._named if self._urls.is_auto else self._urls.api

    def find(self, call: CallContext, policy: Optional[RetryPolicy]) -> str:
        """Return the base URL; ask the page if it is not known yet.

        Raises:
            AuthenticationError: The page wants a login.
            WrongHostError: The page names no host that may get the token.
            CopilotError: Whatever kept the page from being read.
        """
        known = self.known
        if known is not None:
            return known
        return self._flight.run(call, lambda: self.known, lambda: self._ask(call, policy))

    def after_refusal(self, refused: str, call: CallContext) -> Optional[str]:
        """Return the host that the page names, after one has refused the token. The page is asked once at most.

        Returns:
            A base URL, which may be the one that refused; ``None`` if none is found in time.

        Raises:
            StreamClosedError: The call was stopped.
        """
        try:
            with call.limited(_EXPLANATION_TIMEOUT):
                return self._flight.run(
                    call, lambda: self._other_than(refused), lambda: self._ask_for_another(refused, call)
                )
        except StreamClosedError:
            raise
        except WrongHostError as error:
            return error.api_url
        except (CopilotError, TypeError, ValueError):  # the cookies may be unusable as well
            return None

    def _other_than(self, refused: str) -> Optional[str]:
        return None if self._named == refused else self._named

    def _ask_for_another(self, refused: str, call: CallContext) -> str:
        found = self._ask(call, None)
        if found == refused:  # an error, so that those who waited for it do not ask the same again
            raise WrongHostError("the page names the host that refused the token", api_url=found, stage="token")
        return found

    def _ask(self, call: CallContext, policy: Optional[RetryPolicy]) -> str:
        self._named = found = self._tokens.fetch_with_cookies(page_request(self._urls), call, policy, self._read)
        return found

    def _read(self, reply: RawReply, mask: Callable[[str], str]) -> str:
        named = read_api_url(reply, self._urls.github)
        if named is None:
            request = page_request(self._urls)
            raise WrongHostError(
                f"{request.url} names no API host that may get the token: set api_url (or {API_URL_VARIABLE}) to a URL",
                stage=request.stage,
                status=reply.status,
            )
        return named
