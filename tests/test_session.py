"""Requests as they go out, and replies as they come in: nothing gets in between that nobody asked for."""

import contextlib
import logging
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Union

import certifi
import pytest
import requests
from support import Peer, Server, answering, authority_file, collect_garbage, cutting, reserved_port, wait_for
from urllib3.exceptions import ClosedPoolError

from copilot_sync.errors import CopilotError, NetworkError, ResponseTooLargeError
from copilot_sync.protocol.requests import Request
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import ERROR_BODY, Limits, Timeout
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.pooled_session import PooledSession
from copilot_sync.transport.session import Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECRET = "s3cr3t-t0ken"


def with_token(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    prepared.headers["Authorization"] = f"GitHub-Bearer {SECRET}"
    return prepared


def request_to(server: Server, path: str = "/threads", **more: Any) -> Request:
    return Request(
        **{"stage": "threads", "method": "GET", "headers": {}, "template": path, **more}, url=server.url + path
    )


def fetch(transport: Transport, request: Request, call: Optional[CallContext] = None) -> RawReply:
    return transport.fetch(request, with_token, call or CallContext(Timeout(connect=10, read=10)))


def lines_of(request: bytes) -> List[bytes]:
    return sorted(line.lower() for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])


def test_a_request_goes_out_as_it_is_and_nothing_else(transport: Transport) -> None:
    """Its method, path, headers and body, the credentials, and what HTTP itself wants."""
    with Server(answering(OK)) as server:
        request = request_to(
            server, "/a%2Fb?c=d", method="POST", headers={"Accept": "text/event-stream"}, body="ü".encode()
        )
        reply = fetch(transport, request)
        assert (reply.status, reply.body) == (200, b"ok")
        assert server.received[0].startswith(b"POST /a%2Fb?c=d HTTP/1.1\r\n")
        assert server.received[0].endswith(b"\r\n\r\n" + "ü".encode())
        assert lines_of(server.received[0]) == [
            b"accept-encoding: identity",
            b"accept: text/event-stream",
            b"authorization: github-bearer s3cr3t-t0ken",
            b"content-length: 2",
            b"host: 127.0.0.1:%d" % server.port,
            *[line for line in lines_of(server.received[0]) if line.startswith(b"user-agent: python-urllib3")],
        ]


def test_the_head_of_a_reply_has_names_in_lower_case(transport: Transport) -> None:
    """Whoever reads one doesn't have to think of how the server writes them."""
    with Server(answering(b"HTTP/1.1 201 Made\r\nX-GitHub-Thing: A\r\nContent-Length: 0\r\n\r\n")) as server:
        reply = fetch(transport, request_to(server))
        assert reply == RawReply(201, {"x-github-thing": "A", "content-length": "0"}, b"")


def test_a_header_that_comes_twice_has_both_values(transport: Transport) -> None:
    """In one text, as HTTP reads it, whichever way its name is written."""
    headers = b"Link: <1>\r\nX-Other: 1\r\nlink: <2>\r\n"
    with Server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok" % headers)) as server:
        assert fetch(transport, request_to(server)).headers == {
            "content-length": "2",
            "link": "<1>, <2>",
            "x-other": "1",
        }


def test_programs_that_watch_requests_see_each_request(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing wraps ``requests.Session.send``."""
    seen: List[Optional[str]] = []
    real = requests.Session.send

    def send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        seen.append(request.url)
        return real(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", send)
    with Server(answering(OK)) as server:
        fetch(transport, request_to(server))
        assert seen == [f"{server.url}/threads"]


def test_an_empty_body_is_none(transport: Transport) -> None:
    """It is not sent in chunks."""
    with Server(answering(OK)) as server:
        fetch(transport, request_to(server, method="POST", body=b""))
        assert b"content-length: 0" in lines_of(server.received[0])
        assert server.received[0].endswith(b"\r\n\r\n")


def test_a_path_is_no_host(transport: Transport) -> None:
    """Not even one that begins as a host without a scheme does. Some releases of requests leave one slash out."""
    with Server(answering(OK)) as server:
        assert fetch(transport, request_to(server, "//elsewhere/b")).status == 200
        assert b"/elsewhere/b HTTP/1.1\r\n" in server.received[0]


def test_a_netrc_changes_nothing(transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By itself, requests puts a password from there in the place of the token."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert requests.utils.get_netrc_auth("http://127.0.0.1") == ("me", "hunter2")
    with Server(answering(OK)) as server:
        fetch(transport, request_to(server))
        assert b"Authorization: GitHub-Bearer s3cr3t-t0ken\r\n" in server.received[0]
        assert b"Basic" not in server.received[0]


def test_cookies_of_a_reply_are_not_kept(transport: Transport) -> None:
    """They would go along with every later request, to either host."""
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
    with Server(answering(cookie, OK)) as server:
        fetch(transport, request_to(server))
        fetch(transport, request_to(server))
        assert server.connections == 1
        assert b"ookie" not in server.received[1]
        assert len(transport._opened().cookies) == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_reply_like_any_other(transport: Transport, status: int) -> None:
    """It isn't followed, and its body, which may never end, isn't read to find out where it leads."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 %d Moved\r\nLocation: /elsewhere\r\n\r\n" % status)
        while not peer.gone.is_set():
            peer.send(bytes(1000))

    with Server(script) as server:
        reply = fetch(transport, request_to(server))
        assert (reply.status, reply.headers["location"]) == (status, "/elsewhere")
        assert len(reply.body) == ERROR_BODY
        assert len(server.received) == 1


# fmt: off
ERRORS: Dict[str, Any] = {
    # what comes after the head of the error            the words that are left
    "whole":           (b"Content-Length: 5\r\n\r\noops!",                                b"oops!"),
    "nothing":         (b"Content-Length: 0\r\n\r\n",                                     b""),
    "cut":             (b"Content-Length: 99\r\n\r\noops!",                               b"oops!"),
    "garbage":         (b"Transfer-Encoding: chunked\r\n\r\nnot a chunk",                 b""),
    "an odd encoding": (b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\noops!",         b""),
    "not its encoding": (b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\noops!",      b""),
    "too long":        (b"\r\n" + bytes(2 * ERROR_BODY),                                  bytes(ERROR_BODY)),
}
# fmt: on


@pytest.mark.parametrize(("rest", "words"), ERRORS.values(), ids=ERRORS)
def test_the_body_of_an_error_never_hides_its_status(transport: Transport, rest: bytes, words: bytes) -> None:
    """Broken, cut or endless: a 503 is a 503."""
    with Server(cutting(b"HTTP/1.1 503 Busy\r\n" + rest)) as server:
        reply = fetch(transport, request_to(server))
        assert (reply.status, reply.body) == (503, words)


def test_a_reply_has_a_largest_size(transport: Transport) -> None:
    """8 MiB by default; here less."""
    small = Transport(limits=Limits(reply=1))
    with Server(answering(OK)) as server, pytest.raises(ResponseTooLargeError):
        fetch(small, request_to(server))


# fmt: off
TRUST: Dict[str, Any] = {
    # verify      REQUESTS_CA_BUNDLE   trusted
    "a file":                 ("file",  False, True),
    "no checks":              (False,   False, True),
    "no checks, a bundle":    (False,   True,  True),
    "the bundle":             (True,    True,  True),
    "the usual authorities":  (True,    False, False),
}
# fmt: on


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize(("verify", "bundle", "trusted"), TRUST.values(), ids=TRUST)
def test_certificates_are_checked_as_the_caller_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verify: Union[bool, str], bundle: bool, trusted: bool
) -> None:
    """``verify`` is a file, or says whether to check; the environment only fills in which authorities."""
    file = authority_file(tmp_path)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if bundle:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", file)
    transport = Transport(verify=file if verify == "file" else verify)
    with Server(answering(OK), tls=True) as server:
        if trusted:
            assert fetch(transport, request_to(server)).status == 200
        else:
            with pytest.raises(NetworkError, match="certificate is not trusted.*give verify= the file") as caught:
                fetch(transport, request_to(server))
            assert not caught.value.may_have_been_sent
        transport.close()


def test_a_connection_is_not_used_on_where_its_certificate_would_not_be_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is trusted counts for each request, not for each connection."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority_file(tmp_path))
    transport = Transport()
    with Server(answering(OK, OK), tls=True) as server:
        assert fetch(transport, request_to(server)).status == 200
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
        with pytest.raises(NetworkError, match="certificate is not trusted"):
            fetch(transport, request_to(server))
        transport.close()


def test_a_file_of_authorities_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An argument always does."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    transport = Transport(verify=authority_file(tmp_path))
    with Server(answering(OK), tls=True) as server:
        assert fetch(transport, request_to(server)).status == 200
        transport.close()


def test_a_file_that_is_missing_is_a_network_error(tmp_path: Path) -> None:
    """And nothing else gets out."""
    with Server(answering(OK), tls=True) as server, pytest.raises(NetworkError):
        fetch(Transport(verify=str(tmp_path / "missing.pem")), request_to(server))


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxy"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_could_not_be_reached_is_named(scheme: str, proxied: bool) -> None:
    """The host with its port, and the proxy without its password; the system's words and its name for them."""
    with reserved_port() as port:
        place = f"127.0.0.1:{port}"
        url = f"{scheme}://host.invalid:9" if proxied else f"{scheme}://{place}"
        transport = Transport(proxy=f"http://me:planted@{place}" if proxied else None)
        with pytest.raises(NetworkError) as caught:
            fetch(transport, Request("threads", "GET", f"{url}/threads", "/threads", {}))
        transport.close()
    proxy = f", proxy {place}" if proxied else ""
    words = f"nothing listens there: Connection refused (ECONNREFUSED); host {url.partition('//')[2]}{proxy}"
    assert caught.value.args[0] == ("the proxy failed: " if proxied else "") + words
    assert "planted" not in str(caught.value)


# fmt: off
PROXIES: Dict[str, Any] = {
    # argument  HTTP_PROXY  NO_PROXY     which one is asked
    "none":                     (None,    None,     None,        "server"),
    "the argument":             ("mine",  None,     None,        "mine"),
    "the environment":          (None,    "theirs", None,        "theirs"),
    "the argument wins":        ("mine",  "theirs", None,        "mine"),
    "left out there":           (None,    "theirs", "127.0.0.1", "server"),
    "but not for the argument": ("mine",  "theirs", "127.0.0.1", "mine"),
}
# fmt: on


@pytest.mark.parametrize(("argument", "environment", "left_out", "asked"), PROXIES.values(), ids=PROXIES)
def test_the_proxy_is_the_callers_else_the_environments(
    monkeypatch: pytest.MonkeyPatch,
    argument: Optional[str],
    environment: Optional[str],
    left_out: Optional[str],
    asked: str,
) -> None:
    """A session's own proxies would lose against the environment."""
    with Server(answering(OK, OK)) as server, Server(answering(OK)) as mine, Server(answering(OK)) as theirs:
        servers = {"server": server, "mine": mine, "theirs": theirs}
        transport = Transport(proxy=servers[argument].url if argument else None)
        if not argument:
            fetch(transport, request_to(server))  # before, it was not there
            server.received.clear()
        if environment:
            monkeypatch.setenv("http_proxy", servers[environment].url)
        if left_out:
            monkeypatch.setenv("no_proxy", left_out)
        fetch(transport, request_to(server))
        transport.close()
        assert [name for name, each in servers.items() if each.received] == [asked]
        line = b"GET /threads HTTP/1.1" if asked == "server" else b"GET %b/threads HTTP/1.1" % server.url.encode()
        assert servers[asked].received[0].splitlines()[0] == line


def test_a_failed_request_is_counted(transport: Transport) -> None:
    """Whether a reply came or not."""
    call = CallContext(Timeout(connect=10, read=10))
    with Server(cutting(b"")) as server:
        for _ in range(2):
            with pytest.raises(NetworkError):
                fetch(transport, request_to(server), call)
    assert call.attempts == {"threads": 2}


def test_a_header_that_can_not_be_sent_does_not_get_into_the_error(transport: Transport) -> None:
    """The library's own message quotes it."""

    def auth(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        raise requests.exceptions.InvalidHeader(f"Invalid header value: {SECRET}")

    with Server(answering()) as server, pytest.raises(CopilotError) as caught:
        transport.open(request_to(server), auth, CallContext(Timeout()))
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\rb", b"a\r\nX-Other: b", "\u0416"])
def test_a_value_makes_no_header_of_its_own(transport: Transport, value: Any) -> None:
    """What has a line break in it, or can't be written, is refused before anything goes out."""
    with Server(answering(OK)) as server:
        with pytest.raises((ValueError, CopilotError)):
            fetch(transport, request_to(server, headers={"X-One": "1", "X-Two": value}))
        assert b"".join(server.received) == b""


def test_bytes_are_sent_as_they_are(transport: Transport) -> None:
    """``requests`` takes them as the value of a header, so a tool may have put them there."""
    with Server(answering(OK)) as server:
        fetch(transport, request_to(server, headers={"X-One": "1", "X-Two": b"2"}))
        assert {b"x-one: 1", b"x-two: 2"} <= set(lines_of(server.received[0]))


def test_requests_are_logged_without_ids_and_secrets(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    """Stage, method, the path without its ids, status and time."""
    caplog.set_level(logging.DEBUG, "copilot_sync")
    now = [0.0]

    def auth(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        now[0] += 1.5
        return with_token(prepared)

    with Server(answering(OK)) as server:
        request = request_to(server, "/threads/my-id", template="/threads/{id}")
        transport.fetch(request, auth, CallContext(Timeout(), clock=lambda: now[0]))
    (record,) = [record for record in caplog.records if record.name.startswith("copilot_sync")]
    assert record.getMessage() == f"threads: GET {server.url}/threads/{{id}}: 200 after 1.500 s"
    assert SECRET not in caplog.text


def test_a_request_without_a_reply_is_logged_too(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    """By the kind of its error."""
    caplog.set_level(logging.DEBUG, "copilot_sync")
    with Server(Peer.receive) as server, pytest.raises(NetworkError):
        transport.fetch(request_to(server), with_token, CallContext(Timeout()))
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("copilot_sync")]
    assert re.fullmatch(rf"threads: GET {server.url}/\S*: NetworkError after 0\.\d{{3}} s", message)


def test_a_closed_transport_can_be_used_again(transport: Transport) -> None:
    """Closing gives the idle connections up, any number of times, and nothing else."""
    with Server(answering(OK, OK)) as server:
        transport.close()
        for _ in range(2):
            assert fetch(transport, request_to(server)).status == 200
        assert server.connections == 1
        transport.close()
        transport.close()
        assert fetch(transport, request_to(server)).status == 200
        assert server.connections == 2


@pytest.mark.parametrize("is_held", [False, True], ids=["idle", "in use"])
def test_a_host_is_asked_again_after_many_others(transport: Transport, is_held: bool) -> None:
    """Connections are kept for a few hosts only, but for those that are in use."""
    with contextlib.ExitStack() as stack:
        first, *others = (stack.enter_context(Server(answering(OK, OK))) for _ in range(20))
        response = transport.open(request_to(first), with_token, CallContext(Timeout()))
        if not is_held:
            transport.read(response)
        for server in others:
            assert fetch(transport, request_to(server)).status == 200
        if is_held:
            assert transport.read(response).body == b"ok"
        else:
            del response
            collect_garbage()
            wait_for(first.peer_closed)
        assert fetch(transport, request_to(first)).status == 200


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "through a proxy"])
def test_closing_closes_what_somebody_still_holds(proxied: bool) -> None:
    """A finished reply in the traceback of an error, for one, doesn't keep its connection open."""
    with Server(answering(OK)) as server:
        transport = Transport(proxy=server.url if proxied else None)
        response = transport.open(request_to(server), with_token, CallContext(Timeout()))
        assert transport.read(response).body == b"ok"
        assert not server.peer_closed.is_set()
        transport.close()
        wait_for(server.peer_closed)


def test_threads_share_a_transport(transport: Transport) -> None:
    """Each has a connection of its own while it needs one."""
    together = threading.Barrier(4)

    def script(peer: Peer) -> None:
        peer.receive()
        together.wait(10)
        peer.send(OK)
        peer.wait_closed()

    with Server(script) as server:
        threads = [threading.Thread(target=fetch, args=(transport, request_to(server))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert server.connections == 4


def test_a_transport_travels_without_its_connections(transport: Transport, tmp_path: Path) -> None:
    """A client inside of what is sent to another process keeps its settings there."""
    sent = Transport(proxy=None, verify=authority_file(tmp_path), limits=Limits(reply=2))
    with Server(answering(OK), tls=True) as server:
        fetch(sent, request_to(server))
        arrived = pickle.loads(pickle.dumps(sent))
        assert arrived.limits == Limits(reply=2)
        assert fetch(arrived, request_to(server)).body == b"ok"
        assert server.connections == 2
        sent.close()
        arrived.close()


class Meddling:
    """A lock that somebody else had until something was done."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile

    def __enter__(self) -> None:
        self._meanwhile()

    def __exit__(self, *exc_info: object) -> None:
        """There is nothing to give back."""


def test_a_session_that_another_thread_made_meanwhile_is_used() -> None:
    """Threads that meet at the first request share its connections."""
    transport, other = Transport(), Transport()
    made = other._opened()
    transport._lock = Meddling(lambda: setattr(transport, "_session", made))  # type: ignore[assignment]
    assert transport._opened() is made
    transport.__init__()  # type: ignore[misc]
    other.close()


def test_a_session_whose_making_was_interrupted_is_freed_in_silence() -> None:
    """Its destructor runs all the same."""
    PooledSession.__new__(PooledSession).__del__()


AT_THE_END = """
import codecs, sys
import copilot_sync

client = copilot_sync.Client()
client.models()
codecs.register_error("keeps this module", lambda error, module=sys.modules[__name__]: module)
"""


@pytest.mark.usefixtures("served")
def test_a_client_that_is_kept_to_the_end_of_the_program_is_freed_in_silence() -> None:
    """A web site keeps one in a module. If something holds that module, others are cleared before the client."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", AT_THE_END],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout.decode()) == (0, "")


def test_a_session_is_closed_while_another_thread_begins_to_use_a_proxy() -> None:
    """What that thread adds to the proxies does not disturb the closing."""
    adapter: Any = PooledSession().get_adapter("https://api.example")
    manager = adapter.proxy_manager_for("http://one.example")
    manager.clear = lambda: adapter.proxy_manager_for("http://two.example")
    adapter.close()
    assert len(adapter.proxy_manager) == 2


def test_a_pool_that_was_closed_to_make_room_is_made_anew(transport: Transport) -> None:
    """It is remembered as long as ``urllib3`` keeps it."""
    with Server(answering(OK)) as server:
        fetch(transport, request_to(server))
        adapter = transport._opened()._ours
        adapter.get_connection_with_tls_context(requests.Request("GET", server.url).prepare(), True).close()
        adapter.poolmanager.clear()
        assert fetch(transport, request_to(server)).status == 200
        assert (server.connections, len(adapter._pools)) == (2, 1)


def test_a_pool_that_was_closed_meanwhile_makes_no_connection(transport: Transport) -> None:
    """Nobody would close it."""
    with Server(answering(OK)) as server:
        fetch(transport, request_to(server))
        session = transport._opened()
        pool = session.pool_of(server.url, verify=True, cert=None, proxies=None, stream=True)
        pool.close()
        with pytest.raises(ClosedPoolError):
            pool._get_conn()
