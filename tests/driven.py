"""Every way of reading a stream, and what comes of it, for tests that hold them against each other."""

import asyncio
import json
import re
import uuid
from typing import Any, AsyncGenerator, Callable, List, Mapping, NamedTuple, Optional, Sequence
from unittest import mock

import pytest
from streams import COMPLETE, ONE, TWO
from support import Peer, Server

from copilot_sync import Client, Conversation, CopilotError, Stream
from copilot_sync.aio import iterate_stream

#: A step of a server's script.
Act = Callable[[Peer], None]
#: Puts the pieces of a stream into a list, to its end.
Driver = Callable[[Stream, List[str]], None]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
#: Whoever asks again is answered with it.
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
TOKEN = json.dumps({"token": "t-1", "expiration": "2099-01-01T00:00:00Z"}).encode()


def chunk(data: bytes) -> bytes:
    """Frame a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


BODY = ONE + TWO + COMPLETE
#: A whole reply.
GOOD = HEAD + chunk(ONE) + chunk(TWO) + chunk(COMPLETE) + LAST


def trickled(data: bytes, size: int = 1) -> Act:
    """Send bytes a few at a time."""

    def act(peer: Peer) -> None:
        for place in range(0, len(data), size):
            peer.send(data[place : place + size])

    return act


def sent(data: bytes) -> Act:
    """Send bytes at once."""
    return trickled(data, len(data))


def ended(peer: Peer) -> None:
    """Close the connection."""
    raise ConnectionAbortedError


def reset(peer: Peer) -> None:
    """Have the client see a reset."""
    peer.reset()
    ended(peer)


def silent(peer: Peer) -> None:
    """Say nothing more until the client goes."""
    peer.wait_closed()


def service(answers: Sequence[Sequence[Act]], stored: str) -> Callable[[Peer], None]:
    """Make the script of a server that answers one message after the other. Further ones are answered well.

    Args:
        answers: What it does for each message.
        stored: The answer that the thread has to the last message; nothing if it has not even the message.
    """
    left = iter(answers)
    asked: List[Mapping[str, Any]] = []

    def script(peer: Peer) -> None:
        for request in iter(peer.receive, b""):
            if b"/token" in request.split(b"\r\n")[0]:
                peer.send(JSON % (len(TOKEN), TOKEN))
            elif request.startswith(b"GET"):
                messages = json.dumps({"messages": _thread(asked[-1], stored)}).encode()
                peer.send(JSON % (len(messages), messages))
            else:
                asked.append(json.loads(request.partition(b"\r\n\r\n")[2]))
                for act in next(left, [sent(GOOD)]):
                    act(peer)

    return script


def _thread(asked: Mapping[str, Any], stored: str) -> List[Mapping[str, Any]]:
    first = {"id": "m-0", "role": "assistant", "content": "Hello"}
    if not stored:
        return [first]
    question = {"id": "q-1", "role": "user", "content": asked["content"], "parentMessageID": "m-0"}
    answer = {"id": asked["responseMessageID"], "role": "assistant", "content": stored, "parentMessageID": "q-1"}
    return [first, question, answer]


class Outcome(NamedTuple):
    """What came of a call, and of the next one."""

    text: str
    error: Optional[str]
    words: str
    #: Stage, status, phase, attempts, the partial text, and whether the request may have been sent.
    details: Sequence[object]
    #: Whether the answer is complete; ``None`` if there is none.
    complete: Optional[bool]
    sent: int
    after: str
    connections: int


def outcome(server: Server, driver: Driver, url: str = "", **options: Any) -> Outcome:
    """Ask a server a question, and read the answer with a driver. Then ask once more."""
    key = {} if "cookies" in options else {"api_key": f"key-{uuid.uuid4()}"}
    hosts = dict.fromkeys(["github_url", "api_url"], url or server.url)
    pieces: List[str] = []
    failure: Optional[CopilotError] = None
    with Client(model="gpt-4o", **{**key, **hosts, **options}) as client:
        stream = client.stream("Hi", conversation=_conversation())
        try:
            driver(stream, pieces)
        except CopilotError as error:
            failure = error
        assert stream.text.startswith("".join(pieces))
        after = client.ask("Again", conversation=_conversation()).text
    names = ("stage", "status", "phase", "attempts", "partial", "may_have_been_sent")
    return Outcome(
        "".join(pieces),
        failure and type(failure).__name__,
        re.sub(r":\d+", "", " ".join(map(str, failure.args))) if failure else "",
        [getattr(failure, name, None) for name in names],
        stream.answer and stream.answer.complete,
        stream.attempts,
        after,
        server.connections,
    )


def _conversation() -> Conversation:
    conversation = Conversation("t-1")
    conversation.message_id = "m-0"
    return conversation


def _iterating(stream: Stream, pieces: List[str]) -> None:
    for piece in stream:
        pieces.append(piece)


def _polling(seconds: float) -> Driver:
    def drive(stream: Stream, pieces: List[str]) -> None:
        for piece in iter(lambda: stream.poll(seconds), ""):
            if piece is not None:
                pieces.append(piece)

    return drive


async def _collect(items: "AsyncGenerator[str, None]", pieces: List[str]) -> None:
    async for piece in items:
        pieces.append(piece)


def _on_asyncio(stream: Stream, pieces: List[str]) -> None:
    asyncio.run(_collect(iterate_stream(stream), pieces))


def _in_threads(stream: Stream, pieces: List[str]) -> None:
    with mock.patch("copilot_sync.aio.loop_watch.watches_sockets", return_value=False):
        _on_asyncio(stream, pieces)


def _on_uvloop(stream: Stream, pieces: List[str]) -> None:
    loop = pytest.importorskip("uvloop").new_event_loop()
    try:
        loop.run_until_complete(_collect(iterate_stream(stream), pieces))
    finally:
        loop.close()


#: The one that all others are held against.
BLOCKING: Driver = _iterating
DRIVERS: Mapping[str, Driver] = {
    "poll": _polling(0.01),
    "poll without waiting": _polling(0),
    "poll without an end": _polling(float("inf")),
    "asyncio": _on_asyncio,
    "asyncio in threads": _in_threads,
    "uvloop": _on_uvloop,
}
