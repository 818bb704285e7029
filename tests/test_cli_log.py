"""``--verbose``: the log on stderr, beside the answer on stdout."""

import logging
import re
from typing import List

import pytest

from copilot_sync.cli import log
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply


def test_the_log_shows_each_request_and_each_retry(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """With its method, its host, its status and its seconds, and neither ids nor secrets."""
    served.fail("message", Fault.status(503, retry_after=0))
    assert run(["ask", "--verbose", "planted-question"]) == 0
    out, err = capsys.readouterr()
    assert out == "planted-question\n"
    lines = [re.sub(r"\d+\.\d+ s", "N s", line.replace("127.0.0.1", "host")) for line in err.splitlines()]
    lines = [re.sub(r":\d+", ":port", line) for line in lines]
    message = "copilot-sync: message: POST http://host:port/github/chat/threads/{id}/messages"
    wanted = [
        "copilot-sync: token: POST http://host:port/github-copilot/chat/token: 200 after N s",
        "copilot-sync: thread: POST http://host:port/github/chat/threads: 201 after N s",
        f"{message}: 503 after N s",
        "copilot-sync: message: trying again in N s after ServerError (status 503, host)",
        f"{message}: 200 after N s",
    ]
    assert [line for line in lines if line in wanted] == wanted
    secrets = ["planted-question", served.api_key, *served.cookies.values(), *served.threads]
    assert [secret for secret in secrets if secret in err] == []


def test_there_is_none_without_it(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if an earlier command in this process had it."""
    level = logging.getLogger("copilot_sync").level
    assert run(["--verbose", "models", "--verbose"]) == 0
    assert len(re.findall("models: GET", capsys.readouterr().err)) == 1
    assert run(["models"]) == 0
    assert capsys.readouterr().err == ""
    assert not log.is_shown()
    assert logging.getLogger("copilot_sync").level == level


@pytest.mark.parametrize("flags", [[], ["--verbose"]], ids=["warnings alone", "the log"])
def test_a_warning_is_shown_once(flags: List[str], served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """After the answer, or among the other lines of the log."""
    served.reply = Reply("one two", complete=False)
    served.fail("messages", Fault.status(404))
    run(["ask", *flags, "Hi"])
    assert capsys.readouterr().err.count("the service did not say that the answer is complete") == 1
