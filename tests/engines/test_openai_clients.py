"""The gateway for OpenAI's API, with clients of that API: the official ones, and libraries that stand on them.

Each client is pinned. What it makes of each fault of the service is in a table; none may take half an answer, or
nothing, for a whole one.
"""

import json
import os
import re
import subprocess
import threading
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, Union

import pytest
from blocks import DOCS, texts_of
from openai_drivers import Driver, node_command, python_command
from support import PATIENCE

from copilot_sync import Client, Timeout
from copilot_sync.contrib.openai_gateway import Gateway
from copilot_sync.emulator import Emulator, Fault, Reply

waitress = pytest.importorskip("waitress")

KEY = "sk-test"
PAGE = (DOCS / "gateway.rst").read_text(encoding="utf-8")
#: Programs of openai_clients, and the requirements of each; the calls that it makes, but for lists of models.
OFFICIAL = ("plain", "raw", "stream", "helper", "async plain", "async stream")
RESPONSES = ("response", "response stream")
CLIENTS: Mapping[str, Tuple[Callable[[], List[str]], Tuple[str, ...]]] = {
    "openai 1": (lambda: python_command("openai_python", "openai1"), OFFICIAL),
    "openai 2": (lambda: python_command("openai_python", "openai2"), (*OFFICIAL, *RESPONSES)),
    "openai 3": (
        lambda: python_command("openai_python", "openai3"),
        (*OFFICIAL, *RESPONSES, "response helper", "async response stream"),
    ),
    "openai of npm": (node_command, ("plain", "stream", "helper", *RESPONSES)),
    "litellm": (lambda: python_command("litellm_calls", "openai2"), ("plain", "stream", "async stream")),
    "langchain": (lambda: python_command("langchain_calls", "openai2"), ("plain", "stream")),
    "pydantic-ai": (lambda: python_command("pydantic_ai_calls", "openai2"), ("plain", "stream")),
    "instructor": (lambda: python_command("instructor_calls", "openai2"), ("plain",)),
    "llm": (lambda: python_command("llm_calls", "openai3"), ("plain", "stream")),
}

WORDS = ["one ", "two"]
#: What goes wrong: with the answer, or with the question. An answer that was cut is looked for, and not found.
FAULTS: Mapping[str, Union[Reply, Fault]] = {
    "429, come again in 90 s": Fault.rate_limit(90),
    "429": Fault.rate_limit(),
    "500": Fault.status(500),
    "cut before the answer": Fault.cut(0),
    "cut in the answer": Fault.cut(1),
    "stall in the answer": Fault.stall(("after_events", 1)),
    "error in the answer": Reply(WORDS[:1], error="failed"),
    "empty answer": Reply([]),
}

Names = Tuple[str, str]


def raised(
    refused: Names, failed: Names, cut: Names, ended: Names, *, stalled: Names, error: Names
) -> Dict[str, Names]:
    """The classes for each fault: of a whole answer, and of a stream."""
    return dict(zip(FAULTS, (refused, refused, failed, cut, ended, stalled, error, ended)))


_OFFICIAL = raised(
    ("RateLimitError", "RateLimitError"),
    ("InternalServerError", "InternalServerError"),
    ("InternalServerError", "InternalServerError"),
    ("InternalServerError", "APIError"),
    stalled=("InternalServerError", "APIError"),
    error=("InternalServerError", "APIError"),
)
#: What each client raises: ``RAISED[client][fault]`` for a whole answer, and for a stream.
RAISED: Mapping[str, Mapping[str, Names]] = {
    **dict.fromkeys(("openai 1", "openai 2", "openai 3", "openai of npm"), _OFFICIAL),
    **dict.fromkeys(("langchain", "instructor", "llm"), _OFFICIAL),
    "litellm": raised(
        ("RateLimitError", "RateLimitError"),
        ("ServiceUnavailableError", "ServiceUnavailableError"),
        ("BadGatewayError", "BadGatewayError"),
        ("BadGatewayError", "MidStreamFallbackError"),
        stalled=("Timeout", "MidStreamFallbackError"),
        error=("ServiceUnavailableError", "MidStreamFallbackError"),
    ),
    "pydantic-ai": raised(
        ("ModelHTTPError", "ModelHTTPError"),
        ("ModelHTTPError", "ModelHTTPError"),
        ("ModelHTTPError", "ModelHTTPError"),
        ("ModelHTTPError", "APIError"),
        stalled=("ModelHTTPError", "APIError"),
        error=("ModelHTTPError", "APIError"),
    ),
}
#: What each of the page's calls needs.
IMPORTS = """
import instructor, litellm
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic_ai import Agent
messages = [{"role": "user", "content": "Explain WSGI"}]
"""
#: Calls that give the answer in one piece.
WHOLE = ("plain", "raw", "async plain", "response")


class Gateways:
    """A server for one gateway after the other: their clients keep the address."""

    def __init__(self) -> None:
        self._gateway: Optional[Gateway] = None
        self._server = waitress.create_server(
            self._answer, host="127.0.0.1", port=0, threads=4, channel_request_lookahead=1, asyncore_use_poll=True
        )
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.effective_port}/v1"

    def _answer(self, environ: Dict[str, Any], start_response: Callable[..., Any]) -> Any:
        assert self._gateway is not None
        return self._gateway(environ, start_response)

    @contextmanager
    def over(self, fault: Union[None, Reply, Fault] = None, **options: Any) -> Iterator[Emulator]:
        """A gateway with these options over a service with this fault, which asks once."""
        with Emulator(reply=fault if isinstance(fault, Reply) else Reply(WORDS)) as emulator:
            places = {"cookies": emulator.cookies, "github_url": emulator.github_url, "api_url": emulator.api_url}
            timeout = None
            if isinstance(fault, Fault):
                lost = {"message": fault, "messages": Fault.status(500)}
                emulator.choose_fault = lambda stage, request: lost.get(stage)
                timeout = Timeout(read=0.5) if fault.action == "stall" else None
            with Client(**places, retry=None, timeout=timeout) as client:
                with closing(Gateway(client, key=KEY, **options)) as self._gateway:
                    yield emulator

    def close(self) -> None:
        """End the server."""
        self._server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(self._server._map))
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._server.task_dispatcher.shutdown()


@pytest.fixture(scope="module")
def gateways() -> Iterator[Gateways]:
    with closing(Gateways()) as served:
        yield served


DriverOf = Callable[[str], Driver]


@pytest.fixture(scope="module")
def driver_of(gateways: Gateways, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriverOf]:
    """Start the program of a client, once."""
    folder = tmp_path_factory.mktemp("llm")
    (models,) = texts_of(DOCS / "gateway.rst", "yaml")
    (folder / "extra-openai-models.yaml").write_text(models.replace("http://127.0.0.1:8765/v1", gateways.url))
    (folder / "keys.json").write_text(json.dumps({"copilot": KEY}))
    environment = {"OPENAI_BASE_URL": gateways.url, "OPENAI_API_KEY": KEY, "LLM_USER_PATH": str(folder)}
    known: Dict[str, Driver] = {}
    with ExitStack() as stack:

        def begin(name: str) -> Driver:
            if name not in known:
                known[name] = stack.enter_context(closing(Driver(CLIENTS[name][0](), environment)))
            return known[name]

        yield begin


def questions(emulator: Emulator) -> int:
    """How many have come to the service."""
    return [request.stage for request in emulator.requests].count("message")


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_gets_the_whole_answer(gateways: Gateways, driver_of: DriverOf, name: str) -> None:
    """Whole or as a stream, in the pieces of the service."""
    driver = driver_of(name)
    for call in CLIENTS[name][1]:
        with gateways.over() as emulator:
            told = driver.call(call)
            assert questions(emulator) == 1
        pieces = [piece for piece in told["pieces"] if piece]
        assert "raised" not in told, (call, told)
        if call in WHOLE:
            assert told["whole"] == (["temperature", "one two"] if call == "raw" else "one two")
        else:
            assert pieces == WORDS


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_raises(gateways: Gateways, driver_of: DriverOf, name: str, fault: str) -> None:
    """It takes no half of an answer, and not nothing, for a whole one; and the error says what is wrong."""
    driver = driver_of(name)
    found = {}
    for call in CLIENTS[name][1]:
        with gateways.over(FAULTS[fault]):
            found[call] = driver.call(call)
    whole, stream = RAISED[name][fault]
    raised = {call: told.get("raised", told) for call, told in found.items()}
    assert raised == {call: whole if call in WHOLE else stream for call in found}
    assert all(told["says"] for told in found.values())


def output_of(gateways: Gateways, program: str, requirements: str) -> str:
    """What a program prints that knows nothing but the two variables."""
    command = [python_command("openai_python", requirements)[0], "-c", program]
    variables = {"OPENAI_BASE_URL": gateways.url, "OPENAI_API_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, env={**os.environ, **variables}, check=False, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("page", ["gateway", "migrating"])
def test_the_first_program_of_the_page_prints_the_answer(gateways: Gateways, page: str) -> None:
    """The first that uses ``openai``. It stands there whole."""
    program = next(text for text in texts_of(DOCS / f"{page}.rst", "python") if "from openai import" in text)
    with gateways.over():
        assert output_of(gateways, program, "openai3") == "one two\n"


def test_the_calls_of_the_page_are_answered(gateways: Gateways) -> None:
    """As they stand in its table, with the two variables alone."""
    calls = re.findall(r"^``[\w-]+`` +``(.*\(.*\))``$", PAGE, re.MULTILINE)
    program = IMPORTS + "".join(f"print(repr({call}))\n" for call in calls)
    with gateways.over() as emulator:
        told = output_of(gateways, program, "openai2").splitlines()
        assert questions(emulator) == len(calls) - 1
    assert ["one two" in line for line in told] == [True, True, True, False]
    assert "instructor" in told[-1]


def sent(emulator: Emulator) -> List[str]:
    """What has come to the service, in order. All of it has gone to one thread."""
    asked = [request for request in emulator.requests if request.stage == "message"]
    assert len({request.path for request in asked}) == 1
    return [json.loads(request.body)["content"] for request in asked]


@pytest.mark.parametrize("name", ["openai 1", "openai 2", "openai 3", "openai of npm"])
def test_a_transcript_of_an_official_client_goes_on_in_its_thread(
    gateways: Gateways, driver_of: DriverOf, name: str
) -> None:
    """With the answers as the client has them, each with more fields than the gateway sent."""
    with gateways.over(threads=True) as emulator:
        told = driver_of(name).call("transcript")
        assert told.get("whole") == "one two", told
        assert sent(emulator) == ["first", "second", "third"]


@pytest.mark.parametrize("name", ["openai 2", "openai 3"])
def test_an_official_client_reads_the_events_of_a_response(gateways: Gateways, driver_of: DriverOf, name: str) -> None:
    """It takes them for what they are, in their order."""
    with gateways.over():
        told = driver_of(name).call("response stream")
    text, events = told["whole"]
    assert text == "one two"
    assert [number for number, _ in events] == list(range(len(events)))
    assert [kind for _, kind in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(WORDS),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


@pytest.mark.parametrize("name", ["openai 2", "openai 3"])
def test_an_official_client_follows_a_response(gateways: Gateways, driver_of: DriverOf, name: str) -> None:
    """It goes on after it, finds it as it was, reads what it was asked page by page, and has it forgotten."""
    with gateways.over() as emulator:
        told = driver_of(name).call("response life")
        assert "whole" in told, told
        assert told["whole"] == {
            "goes on": True,
            "is same": True,
            "items": ["second", "third", "fourth"],
            "gone": ["response_not_found"] * 4,
        }
        first, second = sent(emulator)
    assert "first" in first
    assert "first" not in second
    assert "fourth" in second


@pytest.mark.parametrize("name", ["openai 2", "openai 3"])
def test_an_official_client_cancels_a_response(gateways: Gateways, driver_of: DriverOf, name: str) -> None:
    """The stream raises, and the question has ended at the service."""
    with gateways.over() as emulator:
        emulator.fail("message", Fault.stall(("after_events", 1)))
        told = driver_of(name).call("response cancelled")
        assert told.get("whole") == ["cancelled", "APIError", "cancelled", "cancelled"], told
        assert told["pieces"] == WORDS[:1]
        assert emulator.wait_until(lambda: emulator.disconnects, PATIENCE)


@pytest.mark.parametrize("name", ["openai 1", "openai 2", "openai 3", "openai of npm"])
def test_an_official_client_lists_models(gateways: Gateways, driver_of: DriverOf, name: str) -> None:
    """And it gets each by its name."""
    with gateways.over():
        told = driver_of(name).call("models")
        names, first = told["whole"]
        assert names[0] == first
        assert len(set(names)) == len(names) > 1


@pytest.mark.parametrize("name", ["openai 1", "openai 2", "openai 3", "openai of npm"])
def test_an_official_client_gets_the_results_of_a_batch(
    gateways: Gateways, driver_of: DriverOf, tmp_path: Path, name: str
) -> None:
    """From the upload to the files with answers and failures, each of the shape that it checks."""
    driver = driver_of(name)
    with gateways.over(batches=tmp_path) as emulator:
        told = driver.call("batch")
        assert questions(emulator) == 1
    assert told.get("whole") == {
        "answers": {"good": "one two"},
        "failures": {"bad": "n"},
        "counts": [2, 1, 1],
        "metadata": {"for": "test"},
        "deleted": True,
    }, told


@pytest.mark.parametrize("name", ["openai 1", "openai 2", "openai 3"])
def test_an_official_client_is_told_which_lines_are_wrong(
    gateways: Gateways, driver_of: DriverOf, tmp_path: Path, name: str
) -> None:
    """In the batch, which has failed and can't be cancelled."""
    driver = driver_of(name)
    with gateways.over(batches=tmp_path) as emulator:
        told = driver.call("async batch")
        assert questions(emulator) == 0
    assert told.get("whole") == ["failed", 2, "missing_required_parameter", "invalid_status"], told


@pytest.mark.parametrize("name", ["openai 1", "openai 2", "openai 3", "openai of npm"])
def test_an_official_client_raises_if_there_is_no_folder_for_batches(
    gateways: Gateways, driver_of: DriverOf, name: str
) -> None:
    """And it says what is missing."""
    with gateways.over():
        told = driver_of(name).call("batch", retries=2)
    assert told["raised"] == "InternalServerError"
    assert "batches=" in told["says"]


@pytest.mark.parametrize(
    ("fault", "asked", "raised"),
    [
        (Fault.rate_limit(1), 2, None),
        (Fault.out_of_quota(), 1, "RateLimitError"),
        (Fault.status(500), 1, "InternalServerError"),
        (Fault.cut(1), 1, "InternalServerError"),
    ],
    ids=["slow down", "quota", "500", "cut"],
)
@pytest.mark.parametrize("name", ["openai 1", "openai 2", "openai 3", "openai of npm"])
def test_an_official_client_asks_again_only_when_it_helps(
    gateways: Gateways, driver_of: DriverOf, name: str, fault: Fault, asked: int, raised: Optional[str]
) -> None:
    """They try twice more by themselves. A message that may have been processed is not sent again."""
    with gateways.over() as emulator:
        emulator.fail("message", fault)
        emulator.choose_fault = lambda stage, request: Fault.status(500) if stage == "messages" else None
        told = driver_of(name).call("plain", retries=2)
        assert questions(emulator) == asked
    assert told.get("raised") == raised, told


#: What a service writes for a person, in its own way; what is in that; and what does not fit.
ADA = {"name": "Ada", "born": 1815}
WRITTEN, WRONG = f"Sure:\n```json\n{json.dumps(ADA)}\n```", '{"name": "Ada"}'
#: Calls that ask for data: whole, and as a stream, whose client may show the text before its end.
PARSED = ("parsed", "async parsed", "json object")
PARSED_RESPONSES = ("parsed response", "parsed response stream")
DATA: Mapping[str, Tuple[str, ...]] = {
    "openai 1": (*PARSED, "parsed stream"),
    "openai 2": (*PARSED, "parsed stream", *PARSED_RESPONSES),
    "openai 3": (*PARSED, "parsed stream", *PARSED_RESPONSES),
    "instructor": ("parsed", "json object"),
    "langchain": ("parsed",),
}


@pytest.mark.parametrize("name", DATA)
def test_a_client_gets_data(gateways: Gateways, driver_of: DriverOf, name: str) -> None:
    """Objects of its own classes. An answer that does not fit costs one more message, and the client none of it."""
    driver = driver_of(name)
    for call in DATA[name]:
        with gateways.over() as emulator:
            refused = "[1]" if call == "json object" else WRONG
            emulator.script(Reply(refused), Reply(WRITTEN))
            told = driver.call(call, retries=2)
            assert told.get("whole") == ADA, (call, told)
            assert questions(emulator) == 2
        assert "".join(told["pieces"]) in ("", json.dumps(ADA))


@pytest.mark.parametrize("name", DATA)
def test_a_client_raises_if_no_answer_fits(gateways: Gateways, driver_of: DriverOf, name: str) -> None:
    """After three messages, and no client asks once more by itself."""
    driver = driver_of(name)
    for call in DATA[name]:
        with gateways.over(Reply("I do not know")) as emulator:
            told = driver.call(call, retries=2)
            assert questions(emulator) == 3, (call, told)
        assert told.get("raised") in ("UnprocessableEntityError", "InstructorRetryException"), (call, told)
        assert "none of 3 answers fits" in told["says"]


@pytest.mark.parametrize("call", ["tools", "in text"])
def test_instructor_gets_no_objects(gateways: Gateways, driver_of: DriverOf, call: str) -> None:
    """With tools the gateway says that it has none. Without, the text of the answer is read, and here it is prose."""
    with gateways.over() as emulator:
        told = driver_of("instructor").call(call)
        assert questions(emulator) == (0 if call == "tools" else 1)
    assert told["raised"] == "InstructorRetryException"
    assert ("unsupported_parameter" in told["says"]) == (call == "tools")
