"""Tools that replay requests in tests replace the connections of urllib3, or sockets, and then they have the say."""

import asyncio
import gzip
import http.client
import io
import socket
from email.message import Message
from typing import Any, Iterator, List, Type

import pytest
from responses._recorder import Recorder
from support import nothing_left_open
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from copilot_sync import AsyncClient, Client
from copilot_sync.emulator import Emulator

EVENTS = b'data: {"type":"content","body":"replayed"}\n\ndata: {"type":"complete","id":"1"}\n\n'
BODIES = {"/token": b'{"token": "replayed"}', "/threads": b'{"thread_id": "replayed"}', "/messages": EVENTS}


class ReplayedResponse(http.client.HTTPResponse):
    """A reply of ``http.client`` by its class alone: it has no socket, no framing, and a length that never changes."""

    # What urllib3 itself asks of it.
    version, version_string, length_remaining = 11, "HTTP/1.1", None

    def __init__(self, path: str) -> None:
        body = next(body for end, body in BODIES.items() if path.endswith(end))
        self._content = io.BytesIO(body)
        self.fp = None  # type: ignore[assignment]
        self.status, self.reason, self.length = 200, "OK", len(body)
        self.headers = self.msg = Message()  # type: ignore[assignment]

    def read1(self, n: int = -1) -> bytes:
        return self._content.read1(n)

    def close(self) -> None:
        """There is nothing to close."""

    def release_conn(self) -> None:
        """There is no pool."""


class LabelledResponse(ReplayedResponse):
    """A reply that was unpacked when it was recorded, and still says how it had been packed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.headers["Content-Encoding"] = "gzip"


class PackedResponse(LabelledResponse):
    """A reply that was recorded as it came."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._content = io.BytesIO(gzip.compress(self._content.read()))


class ReplayedConnection(HTTPConnection):
    """A connection over which nothing goes out."""

    asked: List[str] = []  # noqa: RUF012 - of all of them
    reply_class = ReplayedResponse

    def connect(self) -> None:
        """There is nobody to connect to."""

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:
        self.asked.append(url)

    def getresponse(self, *args: Any, **options: Any) -> Any:
        return self.reply_class(self.asked[-1])


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(
        cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=None, timeout=10
    ) as made:
        yield made


@pytest.mark.parametrize("used_before", [False, True], ids=["a new client", "one that was used before"])
def test_what_is_replayed_is_not_asked(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, used_before: bool
) -> None:
    """No request leaves while a tool replays, and none is replayed when it is done."""
    if used_before:
        assert client.ask("asked before").text == "asked before"
    before = len(emulator.requests)
    with monkeypatch.context() as patched:
        patched.setattr(HTTPConnectionPool, "ConnectionCls", ReplayedConnection)
        patched.setattr(ReplayedConnection, "asked", [])
        assert client.ask("asked never").text == "replayed"
        assert len(ReplayedConnection.asked) == (2 if used_before else 3)
    assert len(emulator.requests) == before
    emulator.options.accept_api_keys = ("replayed",)  # the token that the client has now
    assert client.ask("asked after").text == "asked after"


@pytest.mark.parametrize("reply", [LabelledResponse, PackedResponse])
def test_recorded_replies_may_be_unpacked_already(
    client: Client, monkeypatch: pytest.MonkeyPatch, reply: Type[ReplayedResponse]
) -> None:
    """Some recorders keep a reply's bytes unpacked, with the label of how they were packed; others as they came."""
    monkeypatch.setattr(HTTPConnectionPool, "ConnectionCls", ReplayedConnection)
    monkeypatch.setattr(ReplayedConnection, "asked", [])
    monkeypatch.setattr(ReplayedConnection, "reply_class", reply)
    assert client.ask("asked never").text == "replayed"


class ReplayedSocket:
    """What stands in the place of a socket, with as little of it as a request needs."""

    sent: List[bytes] = []  # noqa: RUF012 - of all of them

    def __init__(self, *args: Any, **options: Any) -> None:
        self._reply = io.BytesIO()

    def __getattr__(self, name: str) -> Any:
        """Whatever has an effect on a socket has none here; but there is no ``shutdown`` to be found."""
        if name in ("shutdown", "dup", "socket"):
            raise AttributeError(name)
        return lambda *args, **options: None

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)
        path = data.split(b" ")[1].decode()
        if not path.startswith("/"):  # it is the body of a request
            return
        body = next(body for end, body in BODIES.items() if path.endswith(end))
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._reply = io.BytesIO(head + body)

    def makefile(self, *args: Any, **options: Any) -> Any:
        return io.BufferedReader(self._reply)  # type: ignore[arg-type]


def test_replayed_sockets_will_do(client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are there, and when they are gone."""
    assert client.ask("asked before").text == "asked before"
    before = len(emulator.requests)
    with monkeypatch.context() as patched:
        patched.setattr(ReplayedSocket, "sent", [])
        patched.setattr(socket, "socket", ReplayedSocket)
        patched.setattr("urllib3.util.connection.create_connection", lambda *_, **__: ReplayedSocket())
        assert client.ask("asked never").text == "replayed"
        client.close()
    assert len(emulator.requests) == before
    assert client.ask("asked after").text == "asked after"


def test_pools_of_before_are_not_kept_open(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that met a tool leaves no more than any other."""
    with nothing_left_open(), Client(
        cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url
    ) as client:
        client.ask("one")
        with monkeypatch.context() as patched:
            patched.setattr(HTTPConnectionPool, "ConnectionCls", ReplayedConnection)
            client.ask("two")
        emulator.options.accept_api_keys = ("replayed",)
        client.ask("three")
        emulator.drop_idle_connections()


def test_a_recorder_may_read_replies_before_the_client(client: Client) -> None:
    """It returns them when it has read them, and the client has all of them nevertheless."""
    with Recorder() as recorder:
        assert client.ask("recorded").text == "recorded"
        assert [reply.status for reply in recorder.get_registry().registered] == [200, 201, 200]
    assert client.ask("after").text == "after"


def test_a_recorder_has_whole_replies_to_read_from_an_event_loop(emulator: Emulator) -> None:
    """A client in an event loop comes back later for the head of a reply, but not if a tool reads the reply first."""

    async def ask() -> "List[str]":
        async with AsyncClient(
            cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=None, timeout=10
        ) as client:
            with Recorder():
                recorded = [(await client.ask(prompt)).text for prompt in ("first", "second")]
            return [*recorded, (await client.ask("after")).text]

    assert asyncio.run(ask()) == ["first", "second", "after"]
