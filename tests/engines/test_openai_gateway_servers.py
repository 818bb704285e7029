"""The gateway for OpenAI's API under servers of WSGI: whoever leaves ends the question at the service."""

import http.client
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import requests
from support import PATIENCE, wait_until

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


def holders_of(path: Path) -> List[int]:
    """The processes that have a file open."""
    found = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(str(descriptor)) == str(path):
                found.append(int(descriptor.parts[2]))
    return found


@pytest.mark.parametrize("options", ["--worker-class gthread --threads 4 --preload", "--worker-class gevent"])
def test_another_worker_goes_on_with_the_batches_of_one_that_was_killed(
    emulator: Emulator, serve: Callable[..., int], tmp_path: Path, options: str
) -> None:
    """Whichever is asked knows of all files and batches; one runs them, and nothing is asked twice."""
    emulator.reply = lambda prompt: Reply([prompt], first_delay=0.1)
    variables = {"COPILOT_SYNC_GATEWAY_KEY": KEY, "BATCHES": str(tmp_path)}
    port = serve(f"gunicorn --workers 3 {options} batches_program:application", env=variables)

    def ask_any(method: str, path: str, **more: Any) -> Any:
        found: List[requests.Response] = []

        def is_answered() -> bool:
            with suppress(requests.ConnectionError):  # by the one that was killed
                url, headers = f"http://127.0.0.1:{port}/v1/{path}", {"Authorization": f"Bearer {KEY}"}
                found.append(requests.request(method, url, headers=headers, timeout=PATIENCE, **more))
            return bool(found)

        wait_until(is_answered)
        return found[0]

    prompts = [f"prompt {number}" for number in range(20)]
    lines = [
        json.dumps({"custom_id": text, "method": "POST", "url": "/v1/chat/completions", "body": body_of(text)})
        for text in prompts
    ]
    file = ask_any("POST", "files", files={"file": ("a.jsonl", "\n".join(lines))}, data={"purpose": "batch"}).json()
    wanted = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = ask_any("POST", "batches", json=wanted).json()
    assert emulator.wait_until(lambda: sent(emulator)[3:], PATIENCE)
    [holder] = holders_of(tmp_path / "batches" / "running")
    os.kill(holder, signal.SIGKILL)
    # A worker takes part from its first request on.
    wait_until(lambda: ask_any("GET", f"batches/{batch['id']}").json()["status"] == "completed")
    output = ask_any("GET", f"batches/{batch['id']}").json()["output_file_id"]
    answers = [json.loads(line)["custom_id"] for line in ask_any("GET", f"files/{output}/content").text.splitlines()]
    assert sorted(answers) == sorted(sent(emulator)) == sorted(prompts)


def body_of(text: str) -> Dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def sent(emulator: Emulator) -> List[str]:
    return [request.json["content"] for request in emulator.requests if request.stage == "message"]
