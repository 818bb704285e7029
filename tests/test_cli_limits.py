"""All commands of a user share one limit against the service; one that waits for it says why, and how long."""

import os
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
from command_line import Keys
from support import Worker, wait_until

from copilot_sync import Client, RateLimit
from copilot_sync.cli import backend
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator
from copilot_sync.pacing import account_limiter
from copilot_sync.pacing.limiter import BY_HOST
from copilot_sync.settings import AUTO, Urls
from copilot_sync.user_folders import state_folder


@pytest.mark.parametrize("api", ["https://api.individual.githubcopilot.com", AUTO])
@pytest.mark.parametrize(
    ("pace", "limit"),
    [
        ((None, BY_HOST), RateLimit(per_minute=20, concurrency=2)),
        ((4, 30.5), RateLimit(per_minute=31, concurrency=4)),
        ((None, None), RateLimit(concurrency=2)),
    ],
)
def test_against_the_service_there_is_a_careful_one(api: str, pace: Any, limit: RateLimit) -> None:
    """The options of a command count. It is kept in the user's state folder."""
    limits = backend._limits(Urls("https://github.com", api), pace)
    assert limits == {"rate_limit": limit, "shared": os.path.join(state_folder(), "limits")}


def test_against_this_machine_there_is_none() -> None:
    """Nobody is suspended here."""
    assert backend._limits(Urls("https://github.com", "http://127.0.0.1:8000"), (4, 30.0)) == {}


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dict[str, Any]:
    """A command that lets in one question at a time, as against the service."""
    limits: Dict[str, Any] = {"rate_limit": RateLimit(concurrency=1), "shared": tmp_path}
    monkeypatch.setattr(backend, "_limits", lambda urls, pace: limits)
    monkeypatch.setattr(account_limiter, "_TELL_AFTER", 0.0)
    monkeypatch.setattr(sys, "stdin", Keys())
    return limits


def test_a_question_that_waits_says_so(
    limited: Dict[str, Any], served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, and only as long as the command runs. Its answer comes when the other one has ended."""
    options: Any = {"github_url": served.github_url, "api_url": served.api_url}
    logger = account_limiter.logger
    before = logger.level, logger.propagate, list(logger.handlers)
    with Client(cookies=served.cookies, **limited, **options) as other:
        stream = other.stream("one two")
        next(stream)
        worker = Worker(lambda: run(["ask", "hi"]))
        said: List[str] = []

        def has_said_so() -> bool:
            said.append(capsys.readouterr().err)
            return bool(said[-1])

        wait_until(has_said_so)
        assert stream.read().text == "one two"
        assert worker.result() == 0
    assert "".join(said) == "copilot-sync: rate limited: waiting for others to end\n"
    assert capsys.readouterr() == ("hi\n", "")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_a_batch_has_its_own_options_for_it(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``serve`` has."""
    paces = []
    monkeypatch.setattr(backend, "_limits", lambda urls, pace: paces.append(pace) or {})
    (tmp_path / "in.txt").write_text("hi\n")
    for number, options in enumerate([[], ["--workers", "3", "--rate", "600"]]):
        assert run(["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / f"{number}.jsonl"), *options]) == 0
    assert paces == [(None, BY_HOST), (3, 600.0)]
