"""docs/gateway.rst is a promise: its figures are those of the code, its codes are those that are sent."""

import inspect
import json
import re
from pathlib import Path
from typing import Any, Dict, Iterable

import pytest

from copilot_sync.contrib.openai_gateway import (
    answer_events,
    answering,
    files,
    gateway,
    guard,
    response_memory,
    response_objects,
    response_request,
    responses,
)
from copilot_sync.openai_api import chat_request, failures
from copilot_sync.pacing.limiter import pace_for

ROOT = Path(__file__).parents[1]
#: In one line, because a figure may stand at the end of one.
PAGE = " ".join(ROOT.joinpath("docs", "gateway.rst").read_text(encoding="utf-8").split())
CLIENTS = ROOT / "tests" / "engines" / "openai_clients"
CONCURRENCY, RATE = pace_for(None)
WORDS = {2: "two", 5: "five"}


@pytest.mark.parametrize(
    "said",
    [
        f"an error that comes within the first {answer_events.PATIENCE:g} s has a status of its own",
        f"A question waits for its turn for up to {gateway.PATIENCE:g} s",
        f"the models of the account, asked for once in {WORDS[int(gateway._MODELS_KEPT / 60)]} minutes",
        f"its last {response_memory.MOST} responses, and at most {response_memory.MOST_BYTES >> 20} MiB of them",
        f"``Retry-After`` says when, up to {failures.LONGEST_RETRY_AFTER} s",
        f"{WORDS[CONCURRENCY]} questions at once and {RATE:g} a minute",
        guard.KEY_VARIABLE,
        f"``{guard._KEY_FILE}``",
    ],
)
def test_the_figures_are_those_of_the_code(said: str) -> None:
    """In the words of the page."""
    assert said in PAGE


def test_a_question_ends_within_a_second() -> None:
    """The gateway looks that often if a server tells; else the second comment fails."""
    assert "its question ends within a second" in PAGE
    assert max(answering.LOOK, 2 * answer_events.SHORT_HEARTBEAT) < 1


def test_every_parameter_that_is_refused_is_named() -> None:
    """Among them those that only say how a parameter is to be used that is refused itself."""
    chat, response = PAGE.split("A response is an answer in a conversation")
    assert [name for name in chat_request._UNSUPPORTED if f"``{name}``" not in chat] == [
        "function_call", "modalities", "tool_choice", "top_logprobs"
    ]  # fmt: skip
    names = *response_request._UNSUPPORTED, *response_request._READ
    assert [name for name in names if f"``{name}``" not in response] == []


def test_the_codes_are_those_that_are_sent() -> None:
    """None that the page names is gone."""
    modules: Iterable[Any] = (
        failures,
        files,
        gateway,
        guard,
        chat_request,
        response_memory,
        response_objects,
        responses,
    )
    source = "".join(map(inspect.getsource, modules))
    table = PAGE.split("status code meaning")[1].split("These clients")[0]
    codes = set(re.findall(r"``([a-z]+_[a-z_]+)``", table)) | {
        "unreachable",
        "cancelled",
        "previous_response_not_found",
    }
    assert len(codes) > 10
    assert [code for code in sorted(codes) if f'"{code}"' not in source] == []


def pinned(*names: str) -> Dict[str, str]:
    """The versions in the files of these names, by the names of packages."""
    lines = [line for name in names for line in (CLIENTS / name).read_text().splitlines()]
    return dict(re.findall(r"^([\w-]+)==([\d.]+\d)", "\n".join(lines), re.MULTILINE))


def test_the_clients_are_those_that_it_is_tried_with() -> None:
    """With the versions that the tests of tests/engines install."""
    tried = PAGE.split("These clients were tried")[1]
    openai = [pinned(f"openai{number}.txt")["openai"] for number in (1, 2, 3)]
    npm = json.loads((CLIENTS / "package.json").read_text())["dependencies"]["openai"]
    shown = ["{}.{}".format(*version.split(".")) for version in (*openai, npm)]
    assert "``openai`` {}, {} and {}, the ``openai`` package of npm {}".format(*shown) in tried
    others = pinned("openai2.txt", "openai3.txt")
    for name in ("litellm", "langchain-openai", "pydantic-ai-slim", "instructor", "llm"):
        assert "``{}`` {}.{}".format(name.replace("-slim", ""), *others[name].split(".")) in tried
