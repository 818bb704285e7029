"""``copilot-sync quota``."""

import json
from typing import Any, Dict, Iterator

import pytest
from support import FORGERIES, Server, answering
from terminals import run_in_terminal

from copilot_sync.cli.program import run

ENTITLEMENT: Dict[str, Any] = {
    "plan": "individual",
    "licenseType": "licensed_full",
    "quotas": {
        "limits": {"chat": 1_500_000, "only limited": 7},
        "remaining": {"chat": 1_499_999, "chatPercentage": 99.5},
        "resetDate": "2026-12-01",
        "overagesEnabled": False,
    },
}


def reply(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
def entitlement() -> Any:
    return ENTITLEMENT


@pytest.fixture(autouse=True)
def _github(entitlement: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    body = entitlement if isinstance(entitlement, bytes) else json.dumps(entitlement).encode()
    with Server(answering(reply(body))) as server:
        monkeypatch.setenv("COPILOT_SYNC_GITHUB_URL", server.url)
        monkeypatch.setenv("COPILOT_SYNC_COOKIES", "user_session=x")
        yield


ROWS = [
    ("plan", "individual"),
    ("license", "licensed_full"),
    ("chat", "1499999 left of 1500000"),
    ("only limited", "limit 7"),
    ("chatPercentage", "99.5% left"),
    ("resets", "2026-12-01"),
    ("overages", "not allowed"),
]


def test_a_quota_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, with a tab behind its name."""
    assert run(["quota"]) == 0
    out, err = capsys.readouterr()
    assert [tuple(line.split("\t")) for line in out.splitlines()] == ROWS
    assert err == ""


def test_a_quota_in_a_terminal_is_aligned() -> None:
    """Without headings."""
    assert run_in_terminal(["quota"]) == [f"{name:14}  {value}" for name, value in ROWS]


def test_a_quota_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With all that github.com said."""
    assert run(["quota", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "plan": "individual",
        "license_type": "licensed_full",
        "limits": {"chat": 1_500_000, "only limited": 7},
        "remaining": {"chat": 1_499_999, "chatPercentage": 99.5},
        "resets_at": "2026-12-01",
        "overages_enabled": False,
        "data": ENTITLEMENT,
    }


@pytest.mark.parametrize("entitlement", [{"quotas": {"overagesEnabled": True}}])
def test_what_is_unknown_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Of each line."""
    assert run(["quota"]) == 0
    assert capsys.readouterr().out == "overages\tallowed\n"


@pytest.mark.parametrize("entitlement", [{"snapshots": [1]}])
@pytest.mark.parametrize("in_terminal", [False, True])
def test_another_shape_is_no_failure(in_terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said where to look, on stderr."""
    words = "github.com said nothing of it that is known here: see copilot-sync quota --json"
    if in_terminal:
        assert run_in_terminal(["quota"]) == [words]
    else:
        assert run(["quota"]) == 0
        assert capsys.readouterr() == ("", words + "\n")


@pytest.mark.parametrize("entitlement", [b'{"quotas": {"limits": {"a": NaN, "b": [1e999]}}, "x": "\\ud800"}'])
def test_json_is_valid_whatever_came(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has no name for a number that is none."""
    assert run(["quota", "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=pytest.fail)["data"]["quotas"]["limits"] == {"a": None, "b": [None]}


@pytest.mark.parametrize(
    "entitlement", [{"plan": text, "quotas": {"limits": {text: 1}, "resetDate": text}} for text in FORGERIES], ids=ascii
)
def test_no_field_passes_for_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines of two fields."""
    assert run(["quota"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("\t") for line in lines] == [1, 1, 1]
    assert "".join(lines).replace("\t", "").isprintable()


def test_a_key_alone_is_told_what_to_add(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1; the variable is named."""
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", "key")
    assert run(["quota"]) == 1
    assert "set COPILOT_SYNC_COOKIES beside COPILOT_SYNC_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize("entitlement", [b"<html>"])
def test_a_page_to_sign_in_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, and what to do."""
    assert run(["quota"]) == 1
    assert (
        "sign in again and renew user_session; correct or unset COPILOT_SYNC_COOKIES; check with"
        in capsys.readouterr().err
    )
