"""What a person is told of an error: one line with what happened and what to type next, and details if they ask."""

import io
from typing import List

import pytest
from terminals import Terminal

from copilot_sync import errors
from copilot_sync.cli.failures import describe_error
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.models import Answer, Conversation

# fmt: off
NEXT = [
    (errors.MissingCredentialsError("none"), "none; log in with: copilot-sync login; check with: copilot-sync doctor"),
    (errors.MissingCredentialsError("no login: copilot-sync login --profile work"),
     "no login: copilot-sync login --profile work; check with: copilot-sync doctor"),
    (errors.AuthenticationError("refused"),
     "refused; log in with: copilot-sync login; check with: copilot-sync doctor"),
    (errors.PermissionDeniedError("forbidden"), "forbidden; see the models with: copilot-sync models"),
    (errors.NotFoundError("gone"), "gone; see what there is with: copilot-sync threads list"),
    (errors.NotFoundError("gone", stage="delete"), "gone; see what there is with: copilot-sync threads list"),
    (errors.NotFoundError("no such address", stage="threads"), "no such address; check with: copilot-sync doctor"),
    (errors.InvalidRequestError("too long", status=413), "too long; send a shorter question, or fewer files"),
    (errors.InvalidRequestError("odd", status=418), "odd; check with: copilot-sync doctor"),
    (errors.InvalidRequestError("wrong", status=422), "wrong; see the models with: copilot-sync models"),
    (errors.InvalidRequestError("wrong"), "wrong; see the models with: copilot-sync models"),
    (errors.InvalidAnswerError("it does not fit", answer=Answer("x", Conversation("abc"), "auto")),
     "it does not fit; see the answers with: copilot-sync threads show abc"),
    (errors.QuotaExceededError("used up"), "used up; see what is left with: copilot-sync quota"),
    (errors.QuotaExceededError("used up", retry_after=200000.0),
     "used up; try again in 2 d 7 h; see what is left with: copilot-sync quota"),
    (errors.RateLimitError("slow down"), "slow down; try again later"),
    (errors.RateLimitError("slow down", retry_after=7.4), "slow down; try again in 7 s"),
    (errors.NetworkError("cut"), "cut; check with: copilot-sync doctor"),
    (errors.NetworkError("nothing listens there: Connection refused (ECONNREFUSED); host a.example"),
     "nothing listens there: Connection refused; host a.example; check with: copilot-sync doctor"),
    (errors.RequestTimeoutError("late"), "late; check with: copilot-sync doctor"),
    (errors.ServerError("failed"), "failed; try again later; check with: copilot-sync doctor"),
    (errors.ServerError("failed", retry_after=90.0), "failed; try again in 1 min 30 s"),
    (errors.StreamInterruptedError("cut", conversation=Conversation("abc")),
     "cut; see what there is of it with: copilot-sync threads show abc"),
    (errors.StreamInterruptedError("cut"), "cut; see what there is with: copilot-sync threads list"),
    (errors.StreamClosedError("closed"), "closed"),
    (errors.ServerError("two\nlines\x1b[2J\u202e"),
     "two lines\ufffd[2J\ufffd; try again later; check with: copilot-sync doctor"),
]
# fmt: on


@pytest.mark.parametrize(("error", "words"), NEXT, ids=lambda value: ascii(value)[:40])
def test_an_error_ends_with_what_to_type_next(error: errors.CopilotError, words: str) -> None:
    """If there is something that helps; and it is one line, whoever wrote it."""
    assert describe_error(error, {}) == words


@pytest.mark.parametrize(
    "arguments",
    [
        ["--verbose", "models"],
        ["models", "--verbose"],
        ["--verbose", "threads", "list"],
        ["threads", "list", "--verbose"],
    ],
)
def test_the_details_are_for_those_who_ask(
    arguments: List[str], served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """At either end of the command: the stage, the status and the id of the request."""
    fault = Fault.status(403, message="not for you", headers={"X-GitHub-Request-Id": "A1:B2"})
    for details in (True, False):
        served.fail("models", fault)
        served.fail("threads", fault)
        assert run([each for each in arguments if details or each != "--verbose"]) == 1
        err = capsys.readouterr().err
        assert "not for you" in err
        assert ("[stage " in err and "status 403" in err) is details
        assert err.endswith("; check with: copilot-sync doctor\n")


def test_a_chat_tells_of_an_error_as_all_commands_do(served: Emulator) -> None:
    """And goes on."""
    served.fail("message", Fault.status(403, message="not for you"), Fault.status(403, message="not for you"))
    with Terminal("chat", "--verbose", environment={}) as terminal:
        terminal.expect("Ctrl-D ends")
        terminal.line("hi")
        terminal.expect("[stage message, status 403")
        terminal.expect("check with: copilot-sync doctor")
        terminal.line("/quit")
        assert terminal.status() == 0


@pytest.mark.parametrize("variable", ["COPILOT_SYNC_API_KEY", "COPILOT_SYNC_COOKIES"])
def test_a_variable_that_goes_before_a_login_is_named(
    copilot_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    """Another login would not help. Without the variable the stored one is used."""
    monkeypatch.setenv("COPILOT_SYNC_GITHUB_URL", copilot_emulator.github_url)
    monkeypatch.setenv("COPILOT_SYNC_API_URL", copilot_emulator.api_url)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(cookie_of(copilot_emulator).encode())))
    assert run(["login", "--stdin"]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"user_session=old")))
    for value in ("user_session=wrong", "/there/is/no/such/file"):
        monkeypatch.setenv(variable, value)
        capsys.readouterr()
        assert run(["ask", "Why?"]) == 1
        err = capsys.readouterr().err
        assert f"correct or unset {variable}" in err
        assert "copilot-sync login" not in err
    if variable == "COPILOT_SYNC_COOKIES":
        assert run(["doctor"]) == 1
        shown = capsys.readouterr().out
        assert f"correct or unset {variable}" in shown
        assert "copilot-sync login" not in shown
    assert run(["login", "--stdin", "--no-check", "--profile", "old"]) == 0
    assert run(["ask", "Why?", "--profile", "old"]) == 1  # which goes before the variable
    assert "log in with: copilot-sync login --profile old" in capsys.readouterr().err
    monkeypatch.delenv(variable)
    assert run(["ask", "Why?"]) == 0


def cookie_of(emulator: Emulator) -> str:
    return "; ".join(f"{name}={value}" for name, value in emulator.cookies.items())
