"""What goes wrong below becomes one of our errors, and no secret travels with its cause."""

import http.client
import pickle
import socket
import ssl
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

import pytest
import requests
import urllib3.exceptions as u
from urllib3.connection import CertificateError

from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    NetworkError,
    ProtocolError,
    RequestTimeoutError,
    StreamClosedError,
)
from copilot_sync.settings import Timeout
from copilot_sync.transport.boundary import FAILURES, map_exception
from copilot_sync.transport.call import CallContext

SECRET = "s3cr3t-t0ken"
UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed")


class OwnError(OSError):
    """An error that keeps its facts from the system's class, which has them in its arguments alone."""

    def __new__(cls, *args: Any) -> "OwnError":
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        super().__init__()
        self.args = args


class Pool:
    """What libraries put into their exceptions."""

    def __init__(self) -> None:
        self.secret = SECRET


def wrapped(failure: BaseException) -> requests.RequestException:
    """A failure as it comes out of requests: in an error of urllib3, in an error of its own, with the request."""
    request = requests.Request("GET", "https://github.example/", headers={"Authorization": SECRET}).prepare()
    pool: Any = Pool()
    return requests.ConnectionError(u.MaxRetryError(pool, "/", failure), request=request, response=requests.Response())  # type: ignore[arg-type]


def test_an_error_names_host_and_proxy() -> None:
    """Whatever failed, and whatever passwords their URLs hold."""
    for failure in (ConnectionResetError(), socket.timeout("timed out"), http.client.BadStatusLine("x")):
        call = CallContext(Timeout(connect=1, read=2))
        call.route = ("https://github.com/path", {"proxies": {"https": f"http://me:{SECRET}@proxy.example:3128"}})
        error = translation(failure, call=call)
        assert str(error.args[0]).endswith("; host github.com:443, proxy proxy.example:3128")
        assert str(error.args[0]).count("host") == 1


def translation(failure: BaseException, phase: str = "read", call: Optional[CallContext] = None) -> CopilotError:
    call = call or CallContext(Timeout(connect=1, read=2, total=3))
    call.phase = phase
    return map_exception(failure, call, "message")


KINDS: List[Tuple[Callable[[], BaseException], Type[CopilotError], str]] = [
    (lambda: socket.gaierror(-2, "Name or service not known"), NetworkError, "host was not found: Name or service"),
    (
        lambda: ConnectionRefusedError(111, "Connection refused"),
        NetworkError,
        "nothing listens there: Connection refused",
    ),
    (lambda: ConnectionResetError(104, "reset by peer"), NetworkError, "the connection was reset"),
    (lambda: http.client.RemoteDisconnected("gone"), NetworkError, "closed the connection before its reply"),
    (lambda: http.client.IncompleteRead(SECRET.encode(), 9), NetworkError, "cut in the middle of a reply"),
    (lambda: UNTRUSTED, NetworkError, "certificate is not trusted: certificate"),
    (lambda: ssl.SSLError(1, "wrong version number"), NetworkError, "TLS failed: wrong version number"),
    (
        lambda: requests.exceptions.ProxyError(OSError(113, "No route to host")),
        NetworkError,
        "the proxy failed: No route to host",
    ),
    (lambda: requests.exceptions.InvalidSchema("Missing SOCKS"), NetworkError, "this proxy needs an extra"),
    (lambda: requests.exceptions.InvalidProxyURL("x"), NetworkError, "URL of the proxy can't be used"),
    (lambda: u.ProxySchemeUnknown("ftp"), NetworkError, "URL of the proxy can't be used"),
    (lambda: OSError("Tunnel connection failed: 407 " + SECRET), NetworkError, "the proxy wants a user name"),
    (lambda: OSError("Tunnel connection failed: 403 " + SECRET), NetworkError, "refused to connect, with status 403"),
    (lambda: OSError(113, "No route to host"), NetworkError, "the connection failed: No route to host"),
    (lambda: OSError("odd"), NetworkError, "the connection failed: odd"),
    (lambda: OSError(), NetworkError, "the connection failed: OSError"),
    (lambda: OSError(113, None), NetworkError, "the connection failed: No route to host (EHOSTUNREACH)"),
    (lambda: OwnError(113, "No way"), NetworkError, "the connection failed: No way (EHOSTUNREACH)"),
    (lambda: OwnError("line\nbreak\x1b[2J\u202e"), NetworkError, "the connection failed: line break [2J"),
    (lambda: socket.gaierror("odd"), NetworkError, "the host was not found: odd"),
    (
        lambda: requests.exceptions.ProxyError(socket.gaierror(-2, "unknown")),
        NetworkError,
        "proxy failed: the host was not",
    ),
    (
        lambda: requests.exceptions.ProxyError(ConnectionRefusedError(111, "Connection refused")),
        NetworkError,
        "the proxy failed: nothing listens there: Connection refused (ECONNREFUSED)",
    ),
    (lambda: ssl.SSLError("no cipher"), NetworkError, "TLS failed: no cipher"),
    (
        lambda: CertificateError("hostname 'a' doesn't match 'b'"),
        NetworkError,
        "certificate is not trusted: hostname 'a' doesn't match 'b'",
    ),
    (lambda: http.client.BadStatusLine(SECRET), ProtocolError, "not valid HTTP"),
    (lambda: http.client.LineTooLong("header line"), ProtocolError, "not valid HTTP"),
    (lambda: u.InvalidHeader(SECRET), ProtocolError, "not valid HTTP"),
    (lambda: requests.exceptions.InvalidHeader(SECRET), ProtocolError, "not valid HTTP"),
    (lambda: ValueError(SECRET), ProtocolError, "not valid HTTP"),
    (lambda: UnicodeDecodeError("ascii", SECRET.encode(), 0, 1, ""), ProtocolError, "not valid HTTP"),
    (lambda: socket.timeout("timed out"), RequestTimeoutError, "nothing more came for 2 s"),
    (lambda: TimeoutError(110, "Connection timed out"), RequestTimeoutError, "nothing more came for 2 s"),
    (lambda: requests.ReadTimeout("x"), RequestTimeoutError, "nothing more came for 2 s"),
    (lambda: u.ReadTimeoutError(Pool(), "/", "x"), RequestTimeoutError, "nothing more came for 2 s"),  # type: ignore[arg-type]
]

each_kind = pytest.mark.parametrize(
    ("failing", "kind", "words"), KINDS, ids=[f"{type(make()).__name__}-{words}" for make, _, words in KINDS]
)


@each_kind
@pytest.mark.parametrize("wrap", [lambda failure: failure, wrapped], ids=["bare", "wrapped"])
def test_each_failure_becomes_the_error_that_tells_of_it(
    failing: Callable[[], BaseException], kind: Type[CopilotError], words: str, wrap: Callable[..., BaseException]
) -> None:
    """Bare, as http.client raises it, and in the wrapping of the libraries."""
    failure = wrap(failing())
    assert isinstance(failure, FAILURES)
    error = translation(failure)
    assert type(error) is kind
    assert words in str(error)
    assert error.stage == "message"


@each_kind
@pytest.mark.parametrize("wrap", [lambda failure: failure, wrapped], ids=["bare", "wrapped"])
def test_a_cause_is_tamed(
    failing: Callable[[], BaseException], kind: Type[CopilotError], words: str, wrap: Callable[..., BaseException]
) -> None:
    """No request, no reply, no frames with their variables, no bytes of the server's; and it survives pickling."""
    try:
        local = SECRET
        raise wrap(failing()) from OSError(local[:0])
    except FAILURES as failure:
        error = translation(failure)
    assert SECRET not in known_of(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.__cause__ is None) == (error.__cause__ is None)


def known_of(error: BaseException) -> str:
    """All that can be got at from an error: its words and its state, and those of everything it is made of."""
    told, waiting = [], [error]
    while waiting:
        item = waiting.pop()
        assert item.__traceback__ is None
        told.append(f"{item!r} {item}")
        parts = [*item.args, *vars(item).values(), item.__cause__, item.__context__]
        told.extend(f"{part!r} {getattr(part, '__dict__', '')}" for part in parts)
        waiting.extend(part for part in parts if isinstance(part, BaseException))
    return "\n".join(told)


# fmt: off
PHASES = [
    # phase      seconds  may it have been sent
    ("connect",  1.0,     False),
    ("send",     2.0,     True),
    ("reply",    2.0,     True),
    ("read",     2.0,     True),
]
# fmt: on


@pytest.mark.parametrize(("phase", "seconds", "sent"), PHASES)
def test_an_error_says_whether_anything_may_have_been_sent(phase: str, seconds: float, sent: bool) -> None:
    """Which decides whether the request may just be sent again."""
    timeout = translation(wrapped(socket.timeout("timed out")), phase)
    assert isinstance(timeout, RequestTimeoutError)
    assert (timeout.phase, timeout.seconds, timeout.may_have_been_sent) == (phase, seconds, sent)
    for failure in (ConnectionResetError(), OSError("odd")):
        error = translation(wrapped(failure), phase)
        assert isinstance(error, NetworkError)
        assert error.may_have_been_sent is sent


def test_a_refused_connection_is_no_time_out() -> None:
    """Though urllib3 derives the one from the other."""
    refusal = u.NewConnectionError(Pool(), "no connection")  # type: ignore[arg-type]
    refusal.__cause__ = ConnectionRefusedError(111, "Connection refused")
    error = translation(wrapped(refusal), "connect")
    assert type(error) is NetworkError
    assert "nothing listens there" in str(error)


def test_the_call_is_asked_first() -> None:
    """A socket that was shut down fails in many ways, but the call knows why: it was stopped, or its time is over."""
    now = [0.0]
    call = CallContext(Timeout(total=3), clock=lambda: now[0])
    call.begin()
    now[0] = 5.0
    error = translation(ConnectionResetError(), call=call)
    assert isinstance(error, RequestTimeoutError)
    assert (error.phase, error.seconds) == ("total", 3.0)
    call.cancel()
    assert isinstance(translation(ConnectionResetError(), call=call), StreamClosedError)


def test_an_error_of_ours_is_left_as_it_is() -> None:
    """It comes through libraries that know nothing of it."""
    error = AuthenticationError("refused")
    assert translation(error) is error


# fmt: off
LASTING: Dict[str, Any] = {
    "untrusted":        (lambda: wrapped(u.SSLError(UNTRUSTED)),                    True),
    "no SOCKS":         (lambda: requests.exceptions.InvalidSchema("no SOCKS"),     True),
    "other TLS":        (lambda: wrapped(u.SSLError(ssl.SSLError(1, "handshake"))), False),
    "reset":            (lambda: ConnectionResetError(),                            False),
    "not HTTP":         (lambda: http.client.BadStatusLine("x"),                    False),
}
# fmt: on


@pytest.mark.parametrize(("failing", "lasting"), LASTING.values(), ids=LASTING)
def test_some_failures_do_not_mend_by_trying_again(failing: Callable[[], BaseException], lasting: bool) -> None:
    """A certificate that isn't trusted now isn't in a second either."""
    assert getattr(translation(failing(), "connect"), "permanent", False) is lasting


def test_a_failure_that_is_its_own_cause_ends_all_the_same() -> None:
    """Chains of exceptions may have circles."""
    failure, other = OSError("one"), OSError("two")
    failure.__context__, other.__context__ = other, failure
    assert "the connection failed" in str(translation(failure))
