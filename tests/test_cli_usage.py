"""``copilot-sync usage``, and what the other commands note for it."""

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, List

import pytest
from command_line import Keys
from support import FORGERIES, Sink
from terminals import run_in_terminal

from copilot_sync import Ledger, LedgerEntry
from copilot_sync.cli import usage as cli_usage
from copilot_sync.cli.backend import open_backend
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator

TODAY = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
DAYS = [f"{TODAY - timedelta(days):%Y-%m-%d}" for days in range(40)]


def entry(days: int, calls: int = 1, **fields: Any) -> List[LedgerEntry]:
    return [LedgerEntry(TODAY - timedelta(days), **{"model": "auto", **fields})] * calls


CALLS = [
    *entry(2, 2, label="nightly", input_tokens=600, output_tokens=400, seconds=1.5),
    *entry(1, 1, label="nightly", input_tokens=100, output_tokens=900, seconds=2.0, answered_model="gpt-5-mini"),
    *entry(1, 3, outcome="RateLimitError", user="ann"),
    *entry(0, 1, input_tokens=1, seconds=0.25),
    *entry(35, 1, label="old"),
]


@pytest.fixture(autouse=True)
def _it_stays_the_same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the tests run."""
    monkeypatch.setattr(cli_usage, "_today", lambda: TODAY)


def test_a_day_begins_at_midnight_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the user is."""
    monkeypatch.undo()
    before = datetime.now(timezone.utc)
    today = cli_usage._today()
    assert before - timedelta(1) < today <= datetime.now(timezone.utc)
    assert today.timestamp() % 86400 == 0


@pytest.fixture
def noted() -> Ledger:
    """The ledger of the user, which has calls."""
    ledger = Ledger()
    ledger.write(CALLS)
    return ledger


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> List[List[str]]:
    assert run(["usage", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [line.split("\t") for line in out.splitlines()]


def test_a_program_gets_a_line_for_each_day(noted: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the last thirty, with all numbers."""
    assert lines_of(capsys) == [
        [DAYS[2], "2", "2", "0", "1200", "800", "3.000"],
        [DAYS[1], "4", "1", "3", "100", "900", "2.000"],
        [DAYS[0], "1", "1", "0", "1", "0", "0.250"],
    ]


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["--by", "model"], ["auto", "gpt-5-mini"]),
        (["--by", "label"], ["", "nightly"]),
        (["--by", "user"], ["", "ann"]),
        (["--by", "label", "--days", "40"], ["", "nightly", "old"]),
        (["--since", DAYS[39], "--by", "label"], ["", "nightly", "old"]),
        (["--days", "1"], [DAYS[0]]),
        (["--days", "2"], [DAYS[1], DAYS[0]]),
        (["--since", DAYS[1]], [DAYS[1], DAYS[0]]),
    ],
)
def test_calls_are_chosen_and_added_up(
    arguments: List[str], names: List[str], noted: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what they have in common, and by their time."""
    assert [line[0] for line in lines_of(capsys, *arguments)] == names


def test_usage_is_json(noted: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """One list."""
    assert run(["usage", "--json", "--by", "user"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "ann",
        "calls": 3,
        "answered": 0,
        "failed": 3,
        "input_tokens": 0,
        "output_tokens": 0,
        "seconds": 0.0,
    }


def test_a_terminal_shows_bars(noted: Ledger) -> None:
    """The longest ends at the right edge, and the shortest can be seen. The last line is the sum."""
    assert run_in_terminal(["usage"], columns=70) == [
        "DAY         CALLS  FAILED     IN    OUT  SECONDS  TOKENS",
        f"{DAYS[2]}      2       0  1,200    800        3  " + "█" * 20,
        f"{DAYS[1]}      4       3    100    900        2  " + "█" * 10,
        f"{DAYS[0]}      1       0      1      0        0  ▏",
        "total           7       3  1,301  1,700        5",
    ]


def test_a_bar_is_of_calls_if_there_are_no_tokens() -> None:
    """The service does not always count them. A single line needs no sum."""
    Ledger().write(entry(0, 1250))
    shown = run_in_terminal(["usage", "--by", "user"], columns=52)
    assert shown == [
        "USER    CALLS  FAILED  IN  OUT  SECONDS  CALLS",
        "(none)  1,250       0   0    0        0  " + "█" * 11,
    ]


@pytest.mark.parametrize(
    "columns, heading",
    [
        (58, "DAY         CALLS  FAILED     IN    OUT  SECONDS  TOKENS"),
        (57, "DAY         CALLS  FAILED     IN    OUT  SECONDS"),
        (47, "DAY         CALLS  FAILED     IN    OUT"),
        (38, "DAY         CALLS     IN    OUT"),
        (29, "DAY         CALLS    OUT"),
        (20, "DAY         CALLS"),
    ],
)
def test_a_narrow_terminal_does_without(columns: int, heading: str, noted: Ledger) -> None:
    """The bars go first, and the calls stay."""
    shown = run_in_terminal(["usage"], columns=columns)
    assert shown[0] == heading
    assert len(shown) == 5
    assert all(len(line) <= columns for line in shown)


def test_a_terminal_without_blocks_draws_others(noted: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """In plain ASCII."""
    sink = Sink("ascii", terminal=True)
    monkeypatch.setattr("sys.stdout", sink)
    assert run(["usage"]) == 0
    lines = sink.written().decode("ascii").splitlines()
    assert [line.count("#") for line in lines] == [0, 30, 15, 1, 0]


@pytest.mark.parametrize("arguments", [[], ["--by", "model"]])
def test_an_empty_ledger_says_so(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr. The status is that of success."""
    assert run(["usage", *arguments]) == 0
    words = f"no calls are noted since {DAYS[29]} in {Ledger().path}\n"
    assert capsys.readouterr() == ("", words)
    assert run(["usage", "--json", *arguments]) == 0
    assert capsys.readouterr() == ("[]\n", "")
    assert not os.path.exists(Ledger().path)


@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_no_label_passes_for_something_else(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is one cell of one line."""
    Ledger().write(entry(0, label=text))
    (line,) = lines_of(capsys, "--by", "label")
    assert len(line) == 7
    assert line[0].isprintable()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--since", "soon\n"], "--since takes a date such as 2026-11-30, not soon"),
        (["--since", DAYS[0], "--days", "2"], "--since and --days exclude each other: use one of them"),
        (["--days", "0"], "0 is not in the range"),
        (["--by", "hour"], "'hour' is not one of"),
    ],
)
def test_wrong_usage_is_told(arguments: List[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2."""
    assert run(["usage", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_file_that_is_no_ledger_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1."""
    path = tmp_path / "notes"
    path.write_text("notes " * 1000)
    monkeypatch.setenv("COPILOT_SYNC_LEDGER", str(path))
    assert run(["usage"]) == 1
    assert f"{path} can't be read as a ledger: file is not a database" in capsys.readouterr().err


def test_commands_note_their_label(
    served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into the file that the environment names, whatever host is asked."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\n")
    monkeypatch.setenv("COPILOT_SYNC_LEDGER", str(tmp_path / "ledger"))
    assert run(["ask", "Hi", "--label", "a"]) == 0
    assert run(["batch", str(prompts), "-o", "-", "--label", "b"]) == 0
    monkeypatch.setattr("sys.stdin", Keys("Hi", "/retry", "/quit"))
    assert run(["chat", "--label", "c"]) == 0
    assert run(["ask", "Hi"]) == 0
    capsys.readouterr()
    assert [line[:3] for line in lines_of(capsys, "--by", "label")] == [
        ["b", "2", "2"],
        ["c", "2", "2"],
        ["", "1", "1"],
        ["a", "1", "1"],
    ]


@pytest.mark.parametrize(
    "variable, emulated, api_url, is_kept",
    [
        ("", False, "https://api.example", True),
        ("", False, "auto", True),
        ("", False, "http://127.0.0.1:9", False),
        ("off", False, "https://api.example", False),
        ("here", False, "http://127.0.0.1:9", True),
        ("here", True, "https://api.example", False),
    ],
)
def test_questions_to_the_service_are_noted(
    variable: str, emulated: bool, api_url: str, is_kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those to this machine only if somebody wants it. An emulator that ends with the command leaves nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COPILOT_SYNC_LEDGER", variable)
    monkeypatch.setenv("COPILOT_SYNC_API_URL", api_url)
    with open_backend(emulated) as backend:
        ledgers: Any = [guard for guard in backend.client._options.guards if isinstance(guard, Ledger)]
    expected = str(tmp_path / "here") if variable == "here" else Ledger().path
    assert [ledger.path for ledger in ledgers] == ([expected] if is_kept else [])


def test_a_service_at_github_on_this_machine_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both hosts count."""
    monkeypatch.setenv("COPILOT_SYNC_GITHUB_URL", "http://localhost:9")
    with open_backend() as backend:
        assert not any(isinstance(guard, Ledger) for guard in backend.client._options.guards)
