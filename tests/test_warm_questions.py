"""A question over a connection that is open goes out without a thread, and only if nothing of it can block."""

import socket
import threading
from typing import Any, Dict, List

import pytest
from driven import DRIVERS, GOOD, JSON, service
from loops import Run
from support import PATIENCE, Peer, Server, stages, wait_for, wait_until

from copilot_sync import Client, Conversation, RetryPolicy, StreamClosedError
from copilot_sync.aio import iterate_stream
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.os_threads import ThreadResult
from copilot_sync.stepping import Pause

HELLO = "hi"


def known() -> Dict[str, Any]:
    """A question whose place is known, so that it is the first thing to be sent."""
    conversation = Conversation("t-1")
    conversation.message_id = "m-0"
    return {"conversation": conversation}


class Threads:
    """Notes the threads that send."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from copilot_sync.transport.session import Transport

        self.senders: List[str] = []
        here = threading.get_ident()
        send = Transport._send

        def noted(transport: Transport, request: Any, *args: Any) -> Any:
            self.senders.append("here" if threading.get_ident() == here else "elsewhere")
            return send(transport, request, *args)

        monkeypatch.setattr(Transport, "_send", noted)


async def read(client: Client, prompt: str, **options: Any) -> str:
    return "".join([piece async for piece in iterate_stream(client.stream(prompt, **options))])


def polled(client: Client, prompt: str, **options: Any) -> str:
    stream = client.stream(prompt, **options)
    return "".join(piece or "" for piece in iter(lambda: stream.poll(5), ""))


@pytest.mark.parametrize("size, sender", [(100, "here"), (20_000, "elsewhere")], ids=["small", "large"])
def test_a_warm_question_is_sent_by_the_loop_itself(
    monkeypatch: pytest.MonkeyPatch, run: Run, size: int, sender: str
) -> None:
    """A thread sends the first one, because it has to connect, and one that may not fit into the kernel's buffer."""
    threads = Threads(monkeypatch)
    with Server(service([], "")) as server, Client("key", api_url=server.url) as client:

        async def main() -> None:
            assert await read(client, HELLO, **known()) == "onetwo"
            assert await read(client, HELLO * (size // 2), **known()) == "onetwo"

        run(main())
    assert threads.senders == ["elsewhere", sender]


def test_a_warm_question_that_is_polled_for_is_sent_by_whoever_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the loop."""
    threads = Threads(monkeypatch)
    with Server(service([], "")) as server, Client("key", api_url=server.url) as client:
        assert polled(client, HELLO, **known()) == polled(client, HELLO, **known()) == "onetwo"
    assert threads.senders == ["elsewhere", "here"]


def test_a_connection_that_the_server_has_closed_is_made_anew_by_a_thread(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """What waits in its pool may be of no use. The question is sent once."""
    threads = Threads(monkeypatch)
    sent: List[bytes] = []

    def script(peer: Peer) -> None:
        sent.append(peer.receive())
        peer.send(GOOD)

    with Server(script) as server, Client("key", api_url=server.url, retry=None) as client:

        async def main() -> None:
            assert await read(client, HELLO, **known()) == "onetwo"
            _wait_for_its_end(client)
            stream = client.stream(HELLO, **known())
            assert [piece async for piece in iterate_stream(stream)] == ["one", "two"]
            assert stream.attempts == 1

        run(main())
    assert len(sent) == 2
    assert threads.senders == ["elsewhere", "here", "elsewhere"]


def _wait_for_its_end(client: Client) -> None:
    """Wait until the server has closed the connection that waits in its pool."""
    session: Any = client._session._transport._session
    ((_, find),) = session._ours._pools
    (connection,) = find()._idle
    connection.sock.settimeout(PATIENCE)
    assert connection.sock.recv(1, socket.MSG_PEEK) == b""


def test_a_refusal_of_a_warm_question_is_read_by_a_thread(run: Run) -> None:
    """A token that has come to its end is renewed, and the question is sent again."""
    with Emulator() as emulator:
        urls = {"github_url": emulator.github_url, "api_url": emulator.api_url}
        with Client(cookies=emulator.cookies, **urls) as client:
            conversation = client.create_thread()

            async def main() -> None:
                assert await read(client, "one", conversation=conversation) == "one"
                emulator.expire_tokens()
                assert await read(client, "two", conversation=conversation) == "two"

            run(main())
        assert [request.stage for request in emulator.requests] == [
            *["token", "thread", "messages", "message"],
            *["message", "token", "message"],
        ]


@pytest.mark.parametrize("status", [401, 500])
def test_a_stream_that_is_closed_before_its_refusal_is_read_frees_the_connection(status: int) -> None:
    """Nobody reads it then."""
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(GOOD)
        peer.receive()
        peer.send(b"HTTP/1.1 %d No\r\nContent-Length: 5\r\n\r\n" % status)
        peer.wait_closed()
        gone.set()

    with Server(script) as server, Client("key", api_url=server.url, retry=None) as client:
        assert "".join(client.stream(HELLO, **known())) == "onetwo"
        stream = client.stream(HELLO, **known())
        steps = stream._steps
        items: List[Any] = []

        def has_to_block() -> bool:
            assert not steps.begin_turn(items.append, True)
            items.append(steps.step())
            return items[-1] is Pause.BLOCKS

        wait_until(has_to_block)
        stream.close()
        wait_for(gone)
        assert Pause.NOTHING_YET in items  # the question went out


def first_questions(peer: Peer) -> None:
    """Create threads, and answer questions."""
    created = b'{"thread_id":"t-2"}'
    for request in iter(peer.receive, b""):
        peer.send(GOOD if b"/messages" in request.split(b"\r\n")[0] else JSON % (len(created), created))


@pytest.mark.parametrize("driver", [name for name in DRIVERS if name != "asyncio in threads"])
@pytest.mark.parametrize("tells", [False, True], ids=["nobody is told", "somebody is told"])
def test_a_warm_first_question_needs_no_thread(driver: str, tells: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody is told of the conversation, in words of theirs that may block."""
    begun: List[object] = []
    begin = ThreadResult.__init__

    def noted(result: "ThreadResult[Any]", *args: Any) -> None:
        begun.append(result)
        begin(result, *args)

    with Server(first_questions) as server, Client("key", api_url=server.url, model="m") as client:
        client.ask("Warm", **known())
        monkeypatch.setattr(ThreadResult, "__init__", noted)
        pieces: List[str] = []
        DRIVERS[driver](client.stream("Hi", on_start=bool if tells else None), pieces)
        assert "".join(pieces) == "onetwo"
        assert len(begun) == tells
        assert server.connections == 1


@pytest.mark.parametrize("read_by", ["poll", "asyncio"])
def test_another_attempt_to_create_a_thread_is_made_elsewhere(
    read_by: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because it comes after a pause, and so does the question, which an outage may have to wait for."""
    threads = Threads(monkeypatch)
    with Client(emulator.api_key, api_url=emulator.api_url, retry=RetryPolicy(base=0.001)) as client:
        client.threads()
        emulator.fail("thread", Fault.status(503))
        pieces: List[str] = []
        DRIVERS[read_by](client.stream("Hi"), pieces)
    assert threads.senders == ["here", "here", "elsewhere", "elsewhere"]


def test_a_stream_can_be_closed_while_its_thread_is_created() -> None:
    """The connection is closed at once, and the next question has another one."""
    with Emulator() as emulator, Client(emulator.api_key, api_url=emulator.api_url, retry=None) as client:
        client.threads()
        emulator.fail("thread", Fault.stall())
        stream = client.stream("Hi")
        wait_until(lambda: stream.poll(0) is None and bool(emulator.stalled))
        closer = threading.Thread(target=stream.close)
        closer.start()
        closer.join()
        with pytest.raises(StreamClosedError, match="another thread"):
            stream.poll(0)
        wait_until(lambda: not emulator.stalled)
        assert client.ask("Hi").text == "Hi"
        assert stages(emulator).count("message") == 1
