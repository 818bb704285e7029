"""A new conversation's thread is created in steps as well: however one reads, the same comes of each reply to that."""

import uuid
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import pytest
from driven import BLOCKING, DRIVERS, GOOD, JSON, Act, Driver, ended, reset, sent, silent, trickled
from streams import AT_ONCE
from support import Peer, Server

from copilot_sync import Client, Conversation, CopilotError, Timeout
from copilot_sync.settings import Limits

CREATED = b'{"thread":{"id":"t-2"},"thread_id":"t-2"}'
MADE = JSON % (len(CREATED), CREATED)
SHORT = Timeout(connect=10, read=0.3, stall=0.3)
PATIENT = Timeout(connect=10, read=20, stall=20)
SILENT = Timeout(connect=10, read=0.6, stall=20)


class Case(NamedTuple):
    """What the service answers to the attempts to create the thread; further ones are answered well."""

    replies: Sequence[Sequence[Act]]
    error: Optional[str] = None
    retries: bool = False
    timeout: Timeout = PATIENT


def reply(status: bytes, body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"Content-Length: %d" % len(body), b"", body])


def a_part(data: bytes) -> Act:
    """Send a part of a reply, and wait for less than ``SILENT``."""

    def act(peer: Peer) -> None:
        peer.send(data)
        peer.gone.wait(0.15)

    return act


SLOWLY = [a_part(CREATED[place : place + 9]) for place in range(0, len(CREATED), 9)]
CHUNKS = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
    b"1\r\n%c\r\n" % byte for byte in CREATED
)
REFUSED = reply(b"503 No", b'{"message":"words"}')
CASES: Dict[str, Case] = {
    "at once": Case([[sent(MADE)]]),
    "byte by byte": Case([[trickled(MADE)]]),
    "chunks of one byte": Case([[trickled(CHUNKS + b"0\r\n\r\n")]]),
    "an interim reply": Case([[sent(b"HTTP/1.1 103 Early Hints\r\n\r\n"), sent(MADE)]]),
    "up to the end": Case([[sent(b"HTTP/1.1 201 Created\r\n\r\n" + CREATED), ended]]),
    "cut in the head": Case([[sent(MADE[:20]), ended]], "NetworkError"),
    "cut in the body": Case([[sent(MADE[:-5]), ended]], "NetworkError"),
    "cut in a chunk": Case([[sent(CHUNKS[:-7]), ended]], "NetworkError"),
    "reset": Case([[sent(MADE[:-5]), reset]], "NetworkError"),
    "cut, and well": Case([[sent(MADE[:-5]), ended]], retries=True),
    "cut, no reply, and well": Case([[sent(MADE[:20]), ended], [ended]], retries=True),
    "cut for ever": Case([[ended]] * 5, "NetworkError", retries=True),
    "silence": Case([[silent]], "RequestTimeoutError", timeout=SHORT),
    "silence in the body": Case([[sent(MADE[:-5]), silent]], "RequestTimeoutError", timeout=SHORT),
    "silence, and well": Case([[sent(MADE[:-5]), silent]], retries=True, timeout=SHORT),
    "slower than silence may last": Case([[sent(JSON % (len(CREATED), b"")), *SLOWLY]], timeout=SILENT),
    "refused": Case([[sent(REFUSED)]], "ServerError"),
    "refused, and well": Case([[sent(REFUSED)], [trickled(REFUSED)]], retries=True),
    "the key is refused": Case([[sent(reply(b"401 No", b"{}"))]], "AuthenticationError"),
    "not found": Case([[sent(reply(b"404 No", b"{}"))]], "NotFoundError"),
    "a page": Case([[sent(reply(b"200 OK", b"<html>"))]], "ProtocolError"),
    "no thread": Case([[sent(reply(b"200 OK", b"{}"))]], "ProtocolError"),
    "too long": Case([[sent(reply(b"200 OK", b" " * 5000))]], "ResponseTooLargeError"),
    "a stream": Case([[sent(reply(b"200 OK", b"", b"Content-Type: text/event-stream"))]], "ProtocolError"),
    "no http": Case([[sent(b"SSH-2.0-x\r\n")]], "ProtocolError"),
}


def service(replies: Sequence[Sequence[Act]]) -> Callable[[Peer], None]:
    left = iter(replies)

    def script(peer: Peer) -> None:
        for request in iter(peer.receive, b""):
            line = request.split(b"\r\n")[0]
            if b"/messages" in line:
                peer.send(GOOD)
            else:
                for act in next(left, [sent(MADE)]):
                    act(peer)

    return script


def known() -> Conversation:
    conversation = Conversation("t-1")
    conversation.message_id = "m-0"
    return conversation


def client_of(server: Server, **options: Any) -> Client:
    """A client whose key no other test has told anything of."""
    return Client(f"key-{uuid.uuid4()}", api_url=server.url, model="m", **options)


def outcome(case: Case, driver: Driver, *, is_warm: bool) -> List[object]:
    """Ask a first question with a driver; say what came, and of the next question too."""
    pieces: List[str] = []
    failure: Any = None
    retry = AT_ONCE if case.retries else None
    options: Dict[str, Any] = {"timeout": case.timeout, "retry": retry, "limits": Limits(reply=4000)}
    with Server(service(case.replies)) as server, client_of(server, **options) as client:
        if is_warm:
            assert client.ask("Warm", conversation=known()).text == "onetwo"
        stream = client.stream("Hi")
        try:
            driver(stream, pieces)
        except CopilotError as error:
            failure = error
        after = client.ask("Again", conversation=known()).text
        names = ("stage", "status", "phase", "attempts", "partial", "may_have_been_sent")
        told = [getattr(failure, name, None) for name in names]
        return ["".join(pieces), failure and type(failure).__name__, told, after, server.connections]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_a_thread_that_blocks_sees_it(name: str, is_warm: bool) -> None:
    """All others are held against it."""
    seen = outcome(CASES[name], BLOCKING, is_warm=is_warm)
    assert seen[:2] == ["" if CASES[name].error else "onetwo", CASES[name].error]
    assert seen[3] == "onetwo"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_all_see_the_same(name: str, driver: str, is_warm: bool) -> None:
    """Text, error and what it carries, and the connections that were made."""
    case = CASES[name]
    assert outcome(case, DRIVERS[driver], is_warm=is_warm) == outcome(case, BLOCKING, is_warm=is_warm)
