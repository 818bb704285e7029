"""The heads of replies are read here as ``http.client`` reads them, whichever of the two takes the fields apart."""

import http.client
import io
import socket
from typing import Any, Dict, List
from unittest.mock import Mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from copilot_sync.settings import Timeout
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.reply import WatchedResponse

ATTRIBUTES = ("version", "status", "reason", "chunked", "length", "will_close")

#: The fields of heads, and whether they are ordinary.
FIELDS: Dict[str, "tuple[bytes, bool]"] = {
    "a length": (b"Content-Length: 2\r\n", True),
    "chunks": (b"Transfer-Encoding: chunked\r\n", True),
    "chunks in capitals, and a length": (b"TRANSFER-ENCODING: Chunked\r\ncontent-length: 2\r\n", True),
    "another encoding": (b"Transfer-Encoding: gzip\r\nContent-Length: 2\r\n", True),
    "a length below zero": (b"Content-Length: -2\r\n", True),
    "a length that is none": (b"Content-Length: two\r\n", True),
    "an empty length": (b"Content-Length:\r\n", True),
    "two lengths": (b"Content-Length: 2\r\nContent-Length: 3\r\n", True),
    "neither": (b"Server: x\r\n", True),
    "an end of the connection": (b"Connection: Close\r\nContent-Length: 2\r\n", True),
    "a connection that is kept": (b"Connection: keep-alive\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n", True),
    "blanks around a value": (b"Content-Length: \t 2 \t\r\n", True),
    "no blank": (b"Content-Length:2\r\n", True),
    "colons": (b"Date: 10:11:12\r\nA::\r\n", True),
    "Latin-1": (b"Server: caf\xe9 \xa0\x85\r\n", True),
    "99 of them": (b"A: b\r\n" * 99, True),
    "none": (b"", False),
    "bare line ends": (b"Server: x\nContent-Length: 2\n", False),
    "a value that goes on": (b"Server: x\r\n and more\r\nContent-Length: 2\r\n", False),
    "a long value": (b"Server: " + b"x" * 65000 + b"\r\nContent-Length: 2\r\n", False),
    "a long name": (b"x" * 1001 + b": y\r\nContent-Length: 2\r\n", False),
}
#: Fields that nobody can make sense of.
NONSENSE: Dict[str, bytes] = {
    "no colon": b"Content-Length 2\r\n",
    "a blank ahead": b" Content-Length: 2\r\n",
    "a blank in a name": b"Content Length: 2\r\nContent-Length 2\r\n",
    "a hundred and one": b"A: b\r\n" * 101,
    "a bare carriage return": b"Server: x\rContent-Length: 2\r\n",
    "a carriage return too many": b"Server: x\r\r\nContent-Length: 2\r\n",
    "a blank ahead of the colon": b"Content-Length : 2\r\n",
    "no name": b": x\r\nContent-Length: 2\r\n",
    "a mail's first line": b"Content-Length: 2\r\nFrom x:y\r\nA: b\r\n",
    "an endless line": b"Server: " + b"x" * 65536 + b"\r\n",
}


def ours(head: bytes, method: str = "GET", debuglevel: int = 0) -> WatchedResponse:
    """Read a head from a connection, on which a body follows."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(head + b"ok")
        call = CallContext(Timeout(connect=60, read=60))
        call.begin()
        with call.current():
            reply = WatchedResponse(near, debuglevel, method=method)
            reply.begin()
        assert reply.fp.read(2) == b"ok"
        reply.close()
    return reply


def theirs(head: bytes, method: str = "GET", debuglevel: int = 0) -> http.client.HTTPResponse:
    reply = http.client.HTTPResponse(Mock(makefile=lambda mode: io.BytesIO(head)), debuglevel, method=method)
    reply.begin()
    reply.close()
    return reply


def seen(reply: http.client.HTTPResponse) -> List[Any]:
    """What a head says."""
    return [reply.msg.items(), *(getattr(reply, name) for name in ATTRIBUTES)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> List[object]:
    """Notes each head that is left to ``http.client``."""
    left: List[object] = []
    parse = http.client.parse_headers

    def parse_and_count(source: Any, **options: Any) -> http.client.HTTPMessage:
        left.append(source)
        return parse(source, **options)

    monkeypatch.setattr(http.client, "parse_headers", parse_and_count)
    return left


@pytest.mark.parametrize("fields, is_ordinary", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204  No  Content ", b"HTTP/1.2 304"]
)
def test_a_head_says_the_same_here(line: bytes, fields: bytes, is_ordinary: bool, counted: List[object]) -> None:
    """Its fields, and how the end of the body is known. Ordinary ones are not left to ``http.client``."""
    head = b"%b\r\n%b\r\n" % (line, fields)
    found = seen(ours(head))
    assert counted == [] if is_ordinary else counted
    assert found == seen(theirs(head))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_body_follows_what_asks_for_a_head_alone(method: str) -> None:
    """Whatever the length says."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert seen(ours(head, method)) == seen(theirs(head, method))


@pytest.mark.parametrize("ends", [b"\r\n", b"\n"], ids=["ordinary", "not ordinary"])
def test_a_head_is_printed_if_it_is_asked_for(ends: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """As ``http.client`` prints it, whose ``debuglevel`` asks for it."""
    head = ends.join([b"HTTP/1.1 200 OK", b"Content-Length: 2", b"X: y: z", b"", b""])
    ours(head, debuglevel=1)
    printed = capsys.readouterr().out
    assert "header: X: y: z" in printed
    theirs(head, debuglevel=1)
    assert printed == capsys.readouterr().out


@pytest.mark.parametrize("kind", ["mixed", "mixed; boundary=a"])
@pytest.mark.parametrize("ends", [b"\r\n", b"\n"], ids=["ordinary", "not ordinary"])
def test_a_head_is_none_of_a_mail(ends: bytes, kind: str) -> None:
    """No parts of a mail are missed, whoever takes the fields apart. It may depend on how they arrive."""
    fields = [b"Content-Type: multipart/" + kind.encode(), b"Content-Transfer-Encoding: base64", b"Content-Length: 2"]
    assert ours(ends.join([b"HTTP/1.1 200 OK", *fields, b"", b""])).length == 2


@pytest.mark.parametrize("fields", NONSENSE.values(), ids=NONSENSE)
def test_fields_that_make_no_sense_are_refused(fields: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(http.client.HTTPException):
        ours(b"HTTP/1.1 200 OK\r\n%b\r\n" % fields)


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/1.7"])
def test_versions_are_those_of_http_client(version: bytes) -> None:
    """Old ones are 1.0, and later ones 1.1."""
    head = version + b" 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert seen(ours(head)) == seen(theirs(head))


def test_another_version_is_refused() -> None:
    """It may be anything."""
    with pytest.raises(http.client.UnknownProtocol):
        ours(b"HTTP/2.0 200 OK\r\n\r\n")


NAMES = st.sampled_from(["Content-Length", "transfer-encoding", "Connection", "Server", "x-y", "Set-Cookie"])
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)


@given(st.lists(st.tuples(NAMES, VALUES | st.sampled_from(["1", "0", "chunked", "close"])), max_size=8))
@example([("Server", "\x85")])
def test_any_fields_are_the_same_here(fields: "list[tuple[str, str]]") -> None:
    """Of any bytes that a value may have."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    head = f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode("iso-8859-1")
    assert seen(ours(head)) == seen(theirs(head))
