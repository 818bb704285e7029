"""The gateway for OpenAI's API under servers of WSGI: whoever leaves ends the question at the service."""

import http.client
import json
import time
from typing import Any, Callable

import pytest
from support import PATIENCE

from copilot_sync.emulator import Emulator, Fault, Reply

pytest.importorskip("gunicorn")
pytest.importorskip("waitress")

KEY = "sk-test"
APPLICATION = "copilot_sync.contrib.openai_gateway:application"
#: They tell whether the client is there.
SEEING = {
    "waitress": f"waitress-serve --listen=127.0.0.1:8000 --channel-request-lookahead=1 {APPLICATION}",
    "gthread": f"gunicorn --worker-class gthread --threads 8 {APPLICATION}",
    "gevent": f"gunicorn --worker-class gevent {APPLICATION}",
}
#: Only writing tells.
BLIND = {"uWSGI": f"uwsgi --http-socket 127.0.0.1:8000 --master --die-on-term --threads 8 --module {APPLICATION}"}
#: Seconds, far more than it takes, and far fewer than to the comment after which any server would notice.
SOON = PATIENCE / 2


def ask(port: int, *, is_streamed: bool) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3 * PATIENCE)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": is_streamed})
    fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, fields)
    return connection


def served(emulator: Emulator, serve: Callable[..., int], command: str) -> int:
    emulator.reply = Reply(["one ", "two"])
    emulator.choose_fault = lambda stage, request: Fault.stall(("after_events", 1)) if stage == "message" else None
    return serve(command, env={"COPILOT_SYNC_GATEWAY_KEY": KEY})


def check_end(emulator: Emulator, leave: Callable[[], Any]) -> None:
    """The question ends soon after the client has left."""
    assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
    assert emulator.disconnects == []
    gone = time.monotonic()
    leave()
    assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)
    assert emulator.disconnects[0].time - gone < SOON


@pytest.mark.parametrize("name", [*SEEING, *BLIND])
def test_a_client_that_leaves_a_stream_ends_the_question(
    emulator: Emulator, serve: Callable[..., int], name: str
) -> None:
    """The service says nothing meanwhile."""
    connection = ask(served(emulator, serve, {**SEEING, **BLIND}[name]), is_streamed=True)
    response = connection.getresponse()
    received = b""
    while b'"one "' not in received:
        received += response.read1(65536)

    def leave() -> None:
        response.close()
        connection.close()

    check_end(emulator, leave)


@pytest.mark.parametrize("name", SEEING)
def test_a_client_that_leaves_while_it_waits_ends_the_question(
    emulator: Emulator, serve: Callable[..., int], name: str
) -> None:
    """Nothing has been written to it, and nothing will be."""
    connection = ask(served(emulator, serve, SEEING[name]), is_streamed=False)
    check_end(emulator, connection.close)
