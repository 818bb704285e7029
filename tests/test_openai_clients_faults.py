"""The gateway's answers to what clients of OpenAI's API would otherwise take for a whole answer.

What the clients themselves make of them, the tests in tests/engines show.
"""

import io
import json
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from copilot_sync import Client
from copilot_sync.contrib.openai_gateway import Gateway
from copilot_sync.emulator import Emulator, Fault, Reply

KEY = "sk-test"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as served:
        yield served


def answered(emulator: Emulator, **parameters: Any) -> Tuple[str, Dict[str, str], bytes]:
    """Ask a gateway, without a server between."""
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **parameters}).encode()
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/chat/completions",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": f"Bearer {KEY}",
        "wsgi.input": io.BytesIO(body),
    }
    begun: List[Any] = []
    with Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        found = b"".join(Gateway(client, key=KEY)(environ, lambda *head: begun.extend(head)))
    return begun[0], dict(begun[1]), found


@pytest.mark.parametrize("text", ["", " \n"], ids=["nothing", "blanks"])
def test_an_empty_answer_is_an_error(emulator: Emulator, text: str) -> None:
    """Clients take an empty completion for a whole answer. They are told not to ask again by themselves."""
    emulator.reply = Reply([text] if text else [])
    status, headers, body = answered(emulator)
    assert status == "502 Bad Gateway"
    assert headers["x-should-retry"] == "false"
    assert json.loads(body)["error"]["code"] == "empty_answer"


@pytest.mark.parametrize("text", ["", " \n"], ids=["nothing", "blanks"])
def test_an_empty_stream_ends_with_an_error(emulator: Emulator, text: str) -> None:
    """No chunk says that it is whole, and nothing follows the error."""
    emulator.reply = Reply([text] if text else [])
    status, _, body = answered(emulator, stream=True)
    *chunks, last = [json.loads(event[len("data: ") :]) for event in body.decode().strip().split("\n\n")]
    assert status == "200 OK"
    assert last["error"]["code"] == "empty_answer"
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks} == {None}


def test_a_stream_that_is_refused_has_the_status_of_the_refusal(emulator: Emulator) -> None:
    """Also if the service asks to wait for a second: clients come again by themselves only if the status says so."""
    emulator.fail("message", Fault.rate_limit(1))
    status, headers, body = answered(emulator, stream=True)
    assert status == "429 Too Many Requests"
    assert headers["Retry-After"] == "1"
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
