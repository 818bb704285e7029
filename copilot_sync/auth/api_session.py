"""Requests to ``api_url``: sent with a token, checked for success, held back if the service asked for it.

A token that is refused is renewed once and the request sent again: a request that was refused was not taken. With
``api_url="auto"``, this is the one place that puts the host that was found into a request, and sends the request again
if the account has moved to another. All calls of one account share one ``Cooldown``, which lets requests start after a
refusal.

Threads: what was listed is one attribute, which is atomic. Everything else is set when the session is made.
"""

import time
from dataclasses import replace
from typing import Any, Callable, Dict, Generator, Optional, Tuple, TypeVar

from copilot_sync.auth.api_host import ApiHost
from copilot_sync.auth.headers import mask_of, send_token
from copilot_sync.auth.tokens import TokenSource, Understand, known_error
from copilot_sync.errors import CopilotError, WrongHostError
from copilot_sync.pacing.backoff import retrying
from copilot_sync.pacing.cooldown import Cooldown
from copilot_sync.protocol.errors import error_of_status, name_host
from copilot_sync.protocol.requests import Request
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import AUTO, Limits, RetryPolicy, Timeout, Urls
from copilot_sync.stepping import Pause, without_pauses
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.preload import preload
from copilot_sync.transport.session import Response, Transport

T = TypeVar("T")

#: How often a request is sent with yet another token while many calls see tokens come to their end.
_RENEWALS = 8


class ApiSession:
    """What a credential opens. Safe for any number of threads.

    Args:
        urls: The two hosts.
        transport: What requests are sent with.
        tokens: Where tokens come from.
        now: The wall clock, in seconds since 1970.
    """

    def __init__(
        self, urls: Urls, transport: Transport, tokens: TokenSource, *, now: Callable[[], float] = time.time
    ) -> None:
        self.urls = urls
        self._transport = transport
        self._tokens = tokens
        self._now = now
        self._host = ApiHost(urls, tokens)
        #: When the models were listed last, by a call's clock, and their ids; ``None`` if they were not.
        self.listed_models: Optional[Tuple[float, Tuple[str, ...]]] = None
        preload()

    @property
    def api_url(self) -> str:
        """The base URL of the API; ``auto`` as long as the account's page has not named it."""
        return self._host.known or AUTO

    @property
    def limits(self) -> Limits:
        """How much of a reply is read."""
        return self._transport.limits

    @property
    def account(self) -> str:
        """A name of the account that shows nothing of its secrets; ``""`` as long as nobody has looked whose it is."""
        return self._tokens.cooldown.account

    def find_account(self) -> Cooldown:
        """Look for the credentials, and return what holds back the calls of their account.

        Raises:
            MissingCredentialsError: There are none.
        """
        return self._tokens.find_account()

    def opening(
        self, request: Request, call: CallContext, policy: Optional[RetryPolicy], *, defers_reply: bool = False
    ) -> Generator[Pause, None, Response]:
        """Send a request once, in steps, and return its successful reply, with the body still to be read.

        ``policy`` is for the token alone, ``defers_reply`` that of ``Transport.opening``.

        Raises:
            CopilotError: There was no reply, or it was not one of success.
        """
        try:
            return (yield from self._sent(request, call, policy, defers_reply))
        except CopilotError as error:
            if error.stage == request.stage:  # else the token's source has taken note of it
                self._tokens.cooldown.failed(error, policy, call)
            raise

    def _sent(
        self, request: Request, call: CallContext, policy: Optional[RetryPolicy], defers_reply: bool
    ) -> Generator[Pause, None, Response]:
        """Send a request, and once more if the account's page names another host than the one that refused the token.

        A request that was refused as another host's (421) was not taken.
        """
        has_moved = False
        while True:
            if self.urls.is_auto and self._host.known is None:
                yield from call.until_may_block()
            urls = self._resolved(call, policy)
            try:
                placed = replace(request, url=urls.api + request.url[len(AUTO) :]) if self.urls.is_auto else request
                response = yield from self._accepted(placed, urls, call, policy, defers_reply)
                return (yield from self._successful(placed, response, call))
            except WrongHostError as error:
                if error.stage != request.stage:
                    raise
                named = urls.api if has_moved else self._host.after_refusal(urls.api, call)
                name_host(error, named, urls.api)
                if not self.urls.is_auto or named in (None, urls.api):
                    raise
            has_moved = True

    def _resolved(self, call: CallContext, policy: Optional[RetryPolicy]) -> Urls:
        """Return the two hosts. If the account's page is to name one, it is asked after the cookies got a token."""
        if not self.urls.is_auto:
            return self.urls
        if self._host.known is None:
            self._tokens.get(call, policy)
        return Urls(self.urls.github, self._host.find(call, policy))

    def _accepted(
        self, request: Request, urls: Urls, call: CallContext, policy: Optional[RetryPolicy], defers_reply: bool
    ) -> Generator[Pause, None, Response]:
        """Send a request with a token, and with a new one if the token was refused."""
        renewals = 0
        while True:
            token = self._tokens.known(call)
            if token is None or not self._tokens.cooldown.is_open:
                yield from call.until_may_block()
                token = self._tokens.get(call, policy)
            if not self._tokens.cooldown.is_open:
                yield from call.until_may_block()  # another call may have set it off just now
                self._tokens.cooldown.wait(policy, call, request.stage)
            auth = send_token(token, urls)
            response = yield from self._transport.opening(request, auth, call, defers_reply=defers_reply)
            response.mask = mask_of(token)
            if response.head.status != 401:
                self._tokens.accepted(token)
                return response
            yield from _until_read(response, call)
            if renewals == _RENEWALS or not self._tokens.refused(token, renewed=renewals > 0):
                return response
            self._transport.read(response, _known)  # so that the connection serves the next request
            renewals += 1

    def _successful(self, request: Request, response: Response, call: CallContext) -> Generator[Pause, None, Response]:
        cooldown = self._tokens.cooldown
        if 200 <= response.head.status < 300:
            if not cooldown.proven:
                cooldown.accepted(call)
            self.note_success(request.stage)
            return response
        now, proven = self._now(), cooldown.is_proven_to(call)

        def error_of(reply: RawReply) -> CopilotError:
            error = error_of_status(request, reply, now=now, mask=response.mask, proven=proven)
            assert error is not None  # noqa: S101 - it is one for every status but success
            return known_error(error)

        yield from _until_read(response, call)
        raise self._transport.read(response, error_of)

    def note_success(self, stage: str) -> None:
        """Take note that the service did what it was asked to, whatever its reply was like."""
        if self._tokens.cooldown.active:
            self._tokens.cooldown.succeeded(stage)

    def fetch(
        self, request: Request, call: CallContext, policy: Optional[RetryPolicy], understand: Callable[[RawReply], T]
    ) -> T:
        """Send a request that does no harm if it is taken twice, as often as the policy has it.

        Args:
            request: The request.
            call: The call that it is made for.
            policy: How often it is sent at most.
            understand: Reads the whole reply. What it returns comes out.

        Raises:
            CopilotError: What the last attempt failed with.
        """
        return without_pauses(self.fetching(request, call, policy, understand, defers_reply=False))

    def fetching(
        self,
        request: Request,
        call: CallContext,
        policy: Optional[RetryPolicy],
        understand: Callable[[RawReply], T],
        *,
        defers_reply: bool,
    ) -> Generator[Pause, None, T]:
        """Do what ``fetch`` does, and return the same, in steps. ``defers_reply`` is that of ``Transport.opening``."""

        def attempt() -> Generator[Pause, None, T]:
            response = yield from self.opening(request, call, policy, defers_reply=defers_reply)
            return (yield from self._transport.reading(response, understand))

        return retrying(attempt, policy, call, stage=request.stage)

    def fetch_with_cookies(
        self, request: Request, call: CallContext, policy: Optional[RetryPolicy], understand: Understand[T]
    ) -> T:
        """Send a request to ``github_url`` with the cookies and without a token. Otherwise like ``fetch``.

        ``understand`` takes the reply, and what takes the secrets out of the server's words.

        Raises:
            MissingCredentialsError: There are no cookies.
            CopilotError: What the last attempt failed with.
        """
        return self._tokens.fetch_with_cookies(request, call, policy, understand)

    def forget_token(self) -> None:
        """Take the token for refused, so that the next request fetches another one, if it was not given."""
        token = self._tokens.known(CallContext(Timeout()))
        if token is not None:
            self._tokens.refused(token, renewed=False)

    @property
    def transport(self) -> Transport:
        """What requests are sent with."""
        return self._transport

    def close(self) -> None:
        """Close the idle connections."""
        self._transport.close()

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state, listed_models=None)  # its time is by the clock of another process
        preload()


def _until_read(response: Response, call: CallContext) -> Generator[Pause, None, None]:
    """Pause until the rest of a reply may be read."""
    try:
        yield from call.until_may_block()
    except GeneratorExit:
        response.body.close()
        raise


def _known(reply: RawReply) -> None:
    """All that is to be known of a reply is its status."""
