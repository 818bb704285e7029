"""Where the errors of ``requests``, ``urllib3``, ``http.client``, ``ssl`` and the system become ours.

What went wrong is asked of the call first: a socket that was shut down or ran into a deadline fails in many
ways, but the call knows why. It also knows which host and which proxy the request was for, and the error names both,
without user names and passwords. The foreign exception becomes the ``__cause__`` if it can't carry a secret: its
request, its frames (whose locals hold headers) and whatever quotes the server's bytes are taken away.
"""

import errno
import http.client
import os
import re
import ssl
from socket import gaierror
from socket import timeout as socket_timeout
from typing import Any, Iterator, List, Mapping, Optional, Tuple

import requests
import urllib3.exceptions
from urllib3.connection import CertificateError  # type: ignore[attr-defined]
from urllib3.exceptions import NewConnectionError

from copilot_sync.errors import CopilotError, NetworkError, ProtocolError, StreamClosedError
from copilot_sync.protocol.untrusted import clean
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.proxies import place_of
from copilot_sync.transport.ssl_contexts import AuthoritiesError, fault_of

#: Everything that may come out of using a connection.
FAILURES = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)

#: ``NewConnectionError`` is one of them by its ancestry, but says that a connection was refused.
_TIMEOUTS = (
    socket_timeout,
    TimeoutError,
    requests.Timeout,
    urllib3.exceptions.TimeoutError,
)
_GARBAGE = (
    http.client.HTTPException,
    urllib3.exceptions.InvalidHeader,
    requests.exceptions.InvalidHeader,
    ValueError,
)
#: What another attempt does not mend. Some are a ``ValueError`` by their ancestry, but quote no bytes.
_PERMANENT = (ssl.SSLCertVerificationError, CertificateError, requests.exceptions.InvalidSchema, AuthoritiesError)
#: How ``http.client`` tells that a proxy refused to connect; the proxy's own words follow.
_REFUSAL = re.compile(r"Tunnel connection failed: (\d{3})")


def map_exception(failure: BaseException, call: CallContext, stage: Optional[str]) -> CopilotError:
    """Return the error of ours for a failure of a connection that a call was using."""
    if isinstance(failure, CopilotError):
        return failure
    chain = list(_chain(failure))
    error = _why_stopped(chain, call, stage)
    fault = None if error is not None else _authorities_fault(chain, call)
    if fault is not None:
        chain = [fault]
    error = error or _what_failed(chain, call, stage)
    error.__cause__ = sanitize_cause(chain)
    if isinstance(error, NetworkError) and error.__cause__ is not None:
        error.permanent = any(isinstance(item, _PERMANENT) for item in _chain(error.__cause__))
    if call.route is not None and not isinstance(error, StreamClosedError):
        error.args = (f"{error.args[0]}; {_way(*call.route)}",)
    return error


def _way(url: str, settings: Mapping[str, Any]) -> str:
    """The host and the proxy of a request, in words that show no password."""
    proxy = requests.utils.select_proxy(url, settings["proxies"])
    through = f", proxy {place_of(proxy) or 'with a URL that is not shown'}" if proxy else ""
    return f"host {place_of(url)}{through}"


def _authorities_fault(chain: List[BaseException], call: CallContext) -> Optional[AuthoritiesError]:
    """What is wrong with the file of CAs that a connection was to be checked with; ``None`` for nothing.

    The libraries tell of it in as many ways as there are, most of them without its path, so it is looked at once more.
    """
    if call.route is None or call.phase != "connect" or not call.route[0].startswith("https:"):
        return None
    if any(isinstance(item, (gaierror, ConnectionError, ssl.SSLCertVerificationError)) for item in chain):
        return None
    verify = call.route[1]["verify"]
    place = requests.utils.DEFAULT_CA_BUNDLE_PATH if verify is True else verify
    return fault_of(os.fspath(place)) if place else None


def _chain(failure: BaseException) -> Iterator[BaseException]:
    """The failure and everything it is made of, the outermost first."""
    waiting: List[object] = [failure]
    seen = set()
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, BaseException) and id(item) not in seen:
            seen.add(id(item))
            yield item
            waiting.extend([*item.args, getattr(item, "reason", None), item.__cause__, item.__context__])


def _why_stopped(chain: List[BaseException], call: CallContext, stage: Optional[str]) -> Optional[CopilotError]:
    if call.cancelled:
        return StreamClosedError("the stream was closed", stage=stage)
    if call.expired:
        return call.silence(stage)
    if any(isinstance(item, _TIMEOUTS) and not isinstance(item, NewConnectionError) for item in chain):
        error = call.silence(stage)
        error.may_have_been_sent = call.phase != "connect"
        return error
    return None


def _what_failed(chain: List[BaseException], call: CallContext, stage: Optional[str]) -> CopilotError:
    refusal = _refusal(chain)
    if refusal == 407:
        return NetworkError(
            "the proxy wants a user name and a password", stage=stage, status=refusal, may_have_been_sent=False
        )
    if refusal is not None:
        return NetworkError(
            f"the proxy refused to connect, with status {refusal}", stage=stage, may_have_been_sent=False
        )
    for kind, words in _WORDS:
        for item in chain:
            if isinstance(item, kind):
                if isinstance(item, (gaierror, ConnectionRefusedError)) and _is_proxys(chain):
                    words = f"the proxy failed: {words}"
                return NetworkError(
                    words.format(reason=_reason(item)), stage=stage, may_have_been_sent=call.phase != "connect"
                )
    if any(isinstance(item, _GARBAGE) for item in chain):
        return ProtocolError("the reply is not valid HTTP", stage=stage)
    what = "proxy" if _is_proxys(chain) else "connection"
    return NetworkError(
        f"the {what} failed: {_innermost_reason(chain)}", stage=stage, may_have_been_sent=call.phase != "connect"
    )


def _is_proxys(chain: List[BaseException]) -> bool:
    return any(isinstance(item, requests.exceptions.ProxyError) or type(item).__module__ == "socks" for item in chain)


_NOT_TRUSTED = "the server's certificate is not trusted: {reason}; give verify= the file of your company's CA"
#: What is told of a failure, the most telling first.
_WORDS: Tuple[Tuple[type, str], ...] = (
    (AuthoritiesError, "TLS failed: the certificates to check servers with can't be used: {reason}"),
    (ssl.SSLCertVerificationError, _NOT_TRUSTED),
    (CertificateError, _NOT_TRUSTED),
    (requests.exceptions.InvalidSchema, 'this proxy needs an extra: pip install "copilot-sync[socks]"'),
    (requests.exceptions.InvalidURL, "the URL of the proxy can't be used"),
    (urllib3.exceptions.LocationValueError, "the URL of the proxy can't be used"),
    (gaierror, "the host was not found: {reason}"),
    (ConnectionRefusedError, "nothing listens there: {reason}"),
    (ssl.SSLError, "TLS failed: {reason}"),
    (http.client.RemoteDisconnected, "the server closed the connection before its reply was whole"),
    (http.client.IncompleteRead, "the connection was cut in the middle of a reply"),
    (ConnectionResetError, "the connection was reset"),
)


def _refusal(chain: List[BaseException]) -> Optional[int]:
    """The status with which a proxy refused to connect."""
    refusals = [_REFUSAL.match(str(item)) for item in chain]
    return next((int(refusal.group(1)) for refusal in refusals if refusal), None)


def _reason(item: BaseException) -> str:
    """A short reason: the system's words and its name for them, without the wrapping of the libraries."""
    if isinstance(item, AuthoritiesError):
        return f"{item.filename}: {item.strerror}; see verify=, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE"
    if not isinstance(item, (OSError, CertificateError)):
        return type(item).__name__
    numbers = [part for part in (getattr(item, "errno", None), *item.args) if isinstance(part, int)]
    texts = [part for part in (getattr(item, "strerror", None), *reversed(item.args)) if part and isinstance(part, str)]
    # The numbers of a look-up and of TLS are numbers of their own.
    is_systems = numbers and not isinstance(item, (gaierror, ssl.SSLError))
    name = errno.errorcode.get(numbers[0], "") if is_systems else ""
    words = texts[0] if texts else os.strerror(numbers[0]) if is_systems else ""
    if not words:
        return type(item).__name__
    return clean(f"{words} ({name})" if name and name not in words else words)


def _innermost_reason(chain: List[BaseException]) -> str:
    """The reason of what all else came of: of an error of the system's if there is one."""
    systems = [item for item in chain if isinstance(item, OSError) and not isinstance(item, _WRAPPINGS)]
    return _reason((systems or chain)[-1])


_WRAPPINGS = (requests.RequestException, urllib3.exceptions.HTTPError)


def sanitize_cause(chain: List[BaseException]) -> Optional[BaseException]:
    """Return the outermost of the causes without what may show a secret; ``None`` if its words may."""
    if any(isinstance(item, http.client.IncompleteRead) for item in chain):
        return http.client.IncompleteRead(b"")
    if any(_quotes(item) for item in chain) or _refusal(chain):
        return None
    for item in chain:
        item.__traceback__ = item.__cause__ = item.__context__ = None
        for name in _CARRIERS.intersection(vars(item)):
            setattr(item, name, None)
    return chain[0]


def _quotes(item: BaseException) -> bool:
    """Whether an exception may quote bytes of the server's or a header of ours."""
    return isinstance(item, _GARBAGE) and not isinstance(item, (http.client.RemoteDisconnected, *_PERMANENT))


_CARRIERS = frozenset(["request", "response", "pool", "conn", "_pool", "_conn"])
