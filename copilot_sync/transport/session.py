"""Requests on their way out: the one place that uses ``requests``.

A request is prepared without the session, so that no cookie jar and no ``~/.netrc`` can put anything into it:
what authenticates it is the ``auth`` callable alone. Redirects are never followed, nothing is retried here
or below, cookies of replies are dropped, and each request says itself which proxy and which CA it uses,
because a session's own settings lose against the environment.

Threads: the session of a ``Transport`` is locked.
"""

import contextlib
import functools
import logging
import threading
from dataclasses import dataclass
from typing import Any, Callable, Dict, Generator, Iterator, Optional, TypeVar, Union, cast

import requests
from requests.structures import CaseInsensitiveDict

from copilot_sync.errors import CopilotError, ProtocolError
from copilot_sync.protocol.requests import Request
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import ERROR_BODY, Limits, origin_of
from copilot_sync.stepping import NothingYet, Pace, Pause, WouldBlockError, without_pauses
from copilot_sync.transport.body import Body, unread
from copilot_sync.transport.boundary import FAILURES, map_exception
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.connection import seams
from copilot_sync.transport.fork import abandoned, reset_after_fork
from copilot_sync.transport.pooled_session import PooledSession
from copilot_sync.transport.proxies import ProxySettings
from copilot_sync.transport.reply import WatchedResponse

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: The largest body of a request, in bytes, that an idle connection is sure to take at once: the buffer of the kernel is
#: empty, and has 16 KiB at least.
_AT_ONCE = 12 * 1024

#: Puts credentials into a prepared request. It gives the same request back.
Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]


@dataclass
class Response:
    """A reply whose body is still to be read. ``mask`` takes the request's credentials out of the server's words."""

    head: RawReply
    body: Body
    mask: Callable[[str], str] = str


def _log(request: Request, outcome: object, seconds: float) -> None:
    """Log a request by what shows neither ids nor secrets."""
    if logger.isEnabledFor(logging.DEBUG):
        place = f"{origin_of(request.url)}{request.template}"
        logger.debug("%s: %s %s: %s after %.3f s", request.stage, request.method, place, outcome, seconds)


def _as_it_is(reply: RawReply) -> RawReply:
    return reply


class Transport:
    """Connections to the two hosts. Safe for any number of threads; a forked child gets connections of its own.

    Args:
        proxy: A proxy for all requests; ``None`` leaves the choice to ``HTTPS_PROXY`` and its relatives.
        verify: Whether certificates are checked, or the file of a CA to check them with.
        limits: How much of a reply is read.
    """

    def __init__(
        self, *, proxy: Optional[str] = None, verify: Union[bool, str] = True, limits: Optional[Limits] = None
    ) -> None:
        self._route = ProxySettings(proxy, verify)
        self.limits = limits or Limits()
        self._lock = threading.RLock()
        self._session: Optional[PooledSession] = None
        reset_after_fork(self)

    def open(self, request: Request, auth: Auth, call: CallContext) -> Response:
        """Send a request and read the head of its reply. The caller closes ``response.body``.

        Raises:
            NetworkError: The connection failed.
            RequestTimeoutError: A limit of the call was reached.
            StreamClosedError: The call was stopped.
            ProtocolError: The reply is not HTTP.
        """
        return without_pauses(self.opening(request, auth, call))

    def opening(
        self, request: Request, auth: Auth, call: CallContext, *, defers_reply: bool = False
    ) -> Generator[Pause, None, Response]:
        """Do what ``open`` does, and return the same, in steps.

        Args:
            request: The request.
            auth: What authenticates it.
            call: The call that it is made for.
            defers_reply: Whether a step that helps ends when the request is sent. The next one waits for the reply.
        """
        started = call.clock()
        try:
            reply = yield from self._replied(request, auth, call, defers_reply)
        except CopilotError as error:
            _log(request, type(error).__name__, call.clock() - started)
            raise
        headers = {name.lower(): reply.headers[name] for name in reply.headers}
        head = RawReply(reply.status_code, headers)
        _log(request, head.status, call.clock() - started)
        return Response(head, Body(unread(reply), call, request.body_stage))

    def _replied(
        self, request: Request, auth: Auth, call: CallContext, defers_reply: bool
    ) -> Generator[Pause, None, requests.Response]:
        """Send a request, in steps, and return its reply when the head is there."""
        reply = None
        while reply is None:
            settings = self._warm_settings(request) if defers_reply and call.pace is Pace.POLLING else None
            if settings is None:
                yield from call.until_may_block()
            reply = self._requested(request, auth, call, defers_reply, settings)
            if reply is None:
                yield from call.until_may_block()
        source = getattr(reply.raw, "_fp", None)
        if isinstance(source, WatchedResponse) and source.is_deferred:
            yield from _arrival(source, reply, call, request.stage)
        return reply

    def _requested(
        self, request: Request, auth: Auth, call: CallContext, defers_reply: bool, settings: Optional[Dict[str, Any]]
    ) -> Optional[requests.Response]:
        """Send a request; ``None`` if a step that polls can't, because a connection would have to be made."""
        call.check(request.stage)
        call.attempts[request.stage] += 1
        call.enter("connect")
        error = None
        defers_reply = defers_reply and call.pace is not Pace.BLOCKING
        call.defers_reply = defers_reply and self._opened().sends_itself(request.url)
        call.may_connect = call.pace is not Pace.POLLING
        try:
            with call.current():
                return self._send(request, auth, call, settings)
        except WouldBlockError:
            call.attempts[request.stage] -= 1
            return None
        except FAILURES as failure:
            error = map_exception(failure, call, request.stage)
        finally:
            call.defers_reply = False
        raise error  # out here, so that the foreign error is not its context

    def _warm_settings(self, request: Request) -> Optional[Dict[str, Any]]:
        """What a request is sent with, if it need not wait: it is small, and a connection of ours waits for it."""
        session = self._session
        if session is None or session.seams != seams() or len(request.body or b"") > _AT_ONCE:
            return None
        settings = self._route.settings(session, request.url)
        return settings if session.has_idle(request.url, **settings) else None

    def _send(
        self, request: Request, auth: Auth, call: CallContext, settings: Optional[Dict[str, Any]]
    ) -> requests.Response:
        session = self._opened()
        settings = settings or self._route.settings(session, request.url)
        call.route = request.url, settings  # so that an error can name it
        return session.send(
            _prepared(request, auth),
            allow_redirects=False,
            timeout=(call.silence_seconds(), call.timeout.read or 0.0),
            **settings,
        )

    @contextlib.contextmanager
    def connecting(self, url: str, call: CallContext) -> Iterator[None]:
        """Connect to a host in a thread, so that its first request, after what is done meanwhile, needn't wait for it.

        Nothing is sent over the connection. It is closed if what is done meanwhile fails. Nothing happens if
        there are connections to the host, if a proxy leads to it, or without TLS.
        """
        pool: Any = None
        with contextlib.suppress(*FAILURES):  # the request meets the same, and tells it as its own failure
            session = self._opened()
            pool = session.pool_of(url, **self._route.settings(session, url))
            if pool is not None:
                pool.connect_ahead(call)
        try:
            yield
        except BaseException:
            if pool is not None:
                pool.drop_ahead()
            raise

    def fetch(
        self,
        request: Request,
        auth: Auth,
        call: CallContext,
        understand: Callable[[RawReply], T] = _as_it_is,  # type: ignore[assignment]
    ) -> T:
        """Send a request, read its whole reply, whatever its status, and give what is made of it.

        Raises:
            ResponseTooLargeError: The reply is larger than the limit.
            CopilotError: As ``open`` and ``understand`` raise them.
        """
        return self.read(self.open(request, auth, call), understand)

    def read(
        self,
        response: Response,
        understand: Callable[[RawReply], T] = _as_it_is,  # type: ignore[assignment]
    ) -> T:
        """Read the rest of a reply, and give what is made of it. An error's body that can't be read hides no status.

        After a reply that was not understood, nothing that its connection brings is trusted: it is closed. A stream of
        events is no document, and may have no end, so that nothing of it is read.
        """
        return without_pauses(self.reading(response, understand))

    def reading(
        self,
        response: Response,
        understand: Callable[[RawReply], T] = _as_it_is,  # type: ignore[assignment]
    ) -> Generator[Pause, None, T]:
        """Do what ``read`` does, and return the same, in steps. An error's body is read in one that may block."""
        head, body = response.head, response.body

        def whole(content: bytes) -> T:
            return understand(RawReply(head.status, head.headers, content))

        if 200 <= head.status < 300:
            if head.headers.get("content-type", "").strip().lower().startswith("text/event-stream"):
                body.close()
                raise ProtocolError(
                    "a stream of events came instead of a document", stage=body.stage, status=head.status
                )
            return (yield from body.reading(self.limits.reply, whole))
        return body.read_some(ERROR_BODY, whole)

    def close(self) -> None:
        """Close the idle connections. The transport can be used again afterwards."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _opened(self) -> PooledSession:
        session = self._session
        if session is not None and session.seams == seams():
            return session
        with self._lock:
            if self._session is None or self._session.seams != seams():
                self._session = PooledSession()
            return self._session

    def after_fork_in_child(self) -> None:
        """Leave all connections to the process that this one was forked from."""
        self._lock = threading.RLock()
        session, self._session = self._session, None
        if session is not None:
            abandoned.append(session)
            session.leave_to_parent()

    def __getstate__(self) -> Any:
        return {"route": self._route, "limits": self.limits}

    def __setstate__(self, state: Any) -> None:
        self._route, self.limits, self._session = state["route"], state["limits"], None
        self.after_fork_in_child()
        reset_after_fork(self)


def _arrival(
    source: WatchedResponse, reply: requests.Response, call: CallContext, stage: str
) -> Generator[Pause, None, None]:
    """Pause until the head of a reply that was left to a later step is there, and put it where it belongs."""
    error = None
    try:
        yield Pause.NOTHING_YET  # the step that has sent the request ends, or a loop begins to watch
        while source.is_deferred:
            try:
                source.arrive()
            except NothingYet:
                yield Pause.NOTHING_YET
    except FAILURES as failure:
        error = map_exception(failure, call, stage)
    finally:
        if source.is_deferred:
            call.detach_socket()
            reply.raw.close()
    if error is not None:
        raise error
    reply.status_code = source.status
    reply.raw.headers = type(reply.raw.headers)(source.msg.items())  # urllib3's, whose place differs by release
    reply.headers = cast(Any, reply.raw.headers)


@functools.lru_cache(maxsize=64)
def _prepared_url(url: str) -> Optional[str]:
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    return prepared.url


def _prepared(request: Request, auth: Auth) -> requests.PreparedRequest:
    """Prepare a request step by step, as ``requests`` does but for the steps that look for cookies and for files.

    Nor are the headers checked here: the connection and ``http.client`` do that.
    """
    prepared = requests.PreparedRequest()
    prepared.prepare_method(request.method)
    prepared.url = _prepared_url(request.url)
    prepared.headers = CaseInsensitiveDict(request.headers)
    prepared.body = request.body or None
    prepared.prepare_content_length(prepared.body)
    return auth(prepared)
