"""Where the API of the account's plan is, as the account's page names it.

``Client(api_url="auto")`` looks there before its first request to the API, and keeps what it finds. After a host has
refused a token as another host's (421), the page is asked once more. A host that was set is asked as it is; there, the
page only helps to say which one is right.

The page is asked with the cookies, and never with the token. The host that it names is judged by ``protocol.page``.
"""

import functools
import time
from typing import Callable, Optional, Protocol, Union

from copilot_sync.auth.single_flight import SingleFlight
from copilot_sync.auth.tokens import bare, known_error, mask_of, send_cookies
from copilot_sync.errors import CopilotError, StreamClosedError, WrongHostError
from copilot_sync.pacing.backoff import retry
from copilot_sync.pacing.cooldown import Cooldown
from copilot_sync.protocol.errors import error_of_status
from copilot_sync.protocol.page import page_request, read_api_url
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.secret import Secret
from copilot_sync.settings import RetryPolicy, Urls
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Transport

#: Seconds that a failed call waits at most to learn which host is right.
_EXPLANATION_TIMEOUT = 10.0


class Account(Protocol):
    """Whose page is asked.

    Attributes:
        cooldown: What holds back the calls of the account.
    """

    cooldown: Cooldown

    def page_cookies(self) -> Optional[Secret[str]]:
        """Return the cookies that show the page, as a header; ``None`` if there are none."""


class ApiHost:
    """The base URL of the API. Safe for any thread; a copy and a forked child keep what was found.

    Args:
        urls: The two hosts.
        transport: What the page is asked with.
        now: The wall clock, in seconds since 1970.
    """

    def __init__(self, urls: Urls, transport: Transport, *, now: Callable[[], float] = time.time) -> None:
        self._urls = urls
        self._transport = transport
        self._now = now
        self._named: Optional[str] = None  # by the page
        self._flight = SingleFlight("token")

    @property
    def known(self) -> Optional[str]:
        """The base URL; ``None`` if the page has not named it yet."""
        return self._named if self._urls.is_auto else self._urls.api

    def find(self, account: Account, call: CallContext, policy: Optional[RetryPolicy]) -> str:
        """Return the base URL; ask the page if it is not known yet.

        Raises:
            AuthenticationError: The page wants a login.
            WrongHostError: The page names no host that may get the token.
            CopilotError: Whatever kept the page from being read.
        """
        known = self.known
        if known is not None:
            return known
        return self._flight.run(
            call, lambda: self.known, lambda: retry(lambda: self._ask(account, call, policy), policy, call)
        )

    def after_refusal(self, refused: str, account: Account, call: CallContext) -> Optional[str]:
        """Return the host that the page names, after one has refused the token. The page is asked once at most.

        Returns:
            A base URL, which may be the one that refused; ``None`` if none is found in time.

        Raises:
            StreamClosedError: The call was stopped.
        """
        try:
            with call.limited(_EXPLANATION_TIMEOUT):
                return self._flight.run(
                    call, lambda: self._other_than(refused), lambda: self._ask_for_another(refused, account, call)
                )
        except StreamClosedError:
            raise
        except WrongHostError as error:
            return error.api_url
        except (CopilotError, TypeError, ValueError):  # the cookies may be unusable as well
            return None

    def _other_than(self, refused: str) -> Optional[str]:
        return None if self._named == refused else self._named

    def _ask_for_another(self, refused: str, account: Account, call: CallContext) -> str:
        found = self._ask(account, call, None)
        if found == refused:  # an error, so that those who waited for it do not ask the same again
            raise WrongHostError("the page names the host that refused the token", api_url=found, stage="token")
        return found

    def _ask(self, account: Account, call: CallContext, policy: Optional[RetryPolicy]) -> str:
        cookies = account.page_cookies()
        request, cooldown = page_request(self._urls), account.cooldown
        if cookies is None:
            raise WrongHostError("without cookies, no page names the API host", stage=request.stage)
        if cooldown.active:
            cooldown.wait(policy, call, request.stage)
        read = functools.partial(self._read, mask=mask_of(cookies))
        try:
            found = self._transport.fetch(request, send_cookies(cookies, self._urls), call, read)
        except CopilotError as error:
            found = bare(error)
        if isinstance(found, CopilotError):
            cooldown.failed(found, policy, call)
            raise found
        if cooldown.active:
            cooldown.succeeded(request.stage)
        self._named = found
        return found

    def _read(self, reply: RawReply, mask: Callable[[str], str]) -> Union[CopilotError, str]:
        request = page_request(self._urls)
        error = error_of_status(request, reply, now=self._now(), mask=mask)
        if error is not None:
            return known_error(error)
        named = read_api_url(reply, self._urls.github)
        if named is not None:
            return named
        return WrongHostError(
            f"{request.url} names no API host that may get the token: set api_url (or COPILOT_SYNC_API_URL) to a URL",
            stage=request.stage,
            status=reply.status,
        )
