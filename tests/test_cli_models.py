"""``copilot-sync models``."""

import json
from typing import Any, Dict, List

import pytest
from support import FORGERIES
from terminals import run_in_terminal

from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault

#: What the emulator would make up.
UNSAID: Dict[str, Any] = {"model_picker_category": None, "billing": None}
MODELS: List[Dict[str, Any]] = [
    {
        "id": "gpt-5-mini",
        "name": "GPT-5 mini",
        "vendor": "OpenAI",
        "model_picker_category": "versatile",
        "capabilities": {"type": "chat", "supports": {"vision": True}},
        "billing": {"multiplier": 0.33},
    },
    {"id": "o9", "name": "o9\x1b", "vendor": "Azure", "preview": True, **UNSAID},
    {"id": "embeds", "name": "Embeds", "vendor": "Azure", "capabilities": {"type": "embeddings"}, **UNSAID},
    {"id": "off", "name": "Off", "vendor": "Azure", "model_picker_enabled": False, "billing": {"multiplier": 10}},
]


@pytest.fixture(autouse=True)
def _models(served: Emulator) -> None:
    served.options.models = MODELS


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, always of eight fields, the id first; stderr stays empty, for a program."""
    assert run(["models"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t") for line in out.splitlines()] == [
        ["gpt-5-mini", "GPT-5 mini", "OpenAI", "", "versatile", "0.33x", "chat", ""],
        ["o9", "o9\ufffd", "Azure", "preview", "", "", "chat", ""],
    ]
    assert err == ""


def test_all_models_are_listed_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """What they are for, and whether they are enabled, stands at the end."""
    assert run(["models", "--all"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], *line[5:]) for line in lines[2:]] == [
        ("embeds", "", "embeddings", ""),
        ("off", "10x", "chat", "disabled"),
    ]


def test_models_are_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """All that is known of each; what the service said stays out, because its shape is no promise."""
    assert run(["models", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == {
        "id": "gpt-5-mini",
        "name": "GPT-5 mini",
        "vendor": "OpenAI",
        "preview": False,
        "kind": "chat",
        "enabled": True,
        "picker_category": "versatile",
        "vision": True,
        "premium_multiplier": 0.33,
    }
    assert (second["preview"], second["premium_multiplier"]) == (True, None)
    assert run(["models", "--json", "--all"]) == 0
    assert [model["id"] for model in json.loads(capsys.readouterr().out)] == [model["id"] for model in MODELS]


def test_a_list_in_a_terminal_has_headings() -> None:
    """And nothing that the terminal would obey. ``auto`` is named below it, on stderr."""
    lines = run_in_terminal(["models"])
    assert lines[0].split() == ["ID", "COST", "CATEGORY", "VENDOR", "NAME", "NOTES"]
    assert [line.split()[0] for line in lines[1:3]] == ["gpt-5-mini", "o9"]
    assert lines[2].split()[-1] == "preview"
    assert lines[3:] == ['There is also "auto": the service then chooses (copilot-sync ask -m auto)']


@pytest.mark.parametrize(
    "columns, headings",
    [
        (45, ["ID", "COST", "CATEGORY", "VENDOR", "NOTES"]),
        (37, ["ID", "COST", "CATEGORY", "NOTES"]),
        (30, ["ID", "COST", "NOTES"]),
        (20, ["ID", "COST"]),
        (12, ["ID"]),
    ],
)
def test_a_narrow_terminal_does_without_columns(columns: int, headings: List[str]) -> None:
    """Each model stays on its line, and its id is whole: that is what one types."""
    lines = run_in_terminal(["models"], columns=columns)
    assert lines[0].split() == headings
    assert [line.split()[0] for line in lines[1:3]] == ["gpt-5-mini", "o9"]


def test_a_column_without_anything_in_it_is_not_shown(served: Emulator) -> None:
    """A service may say nothing of costs and categories."""
    served.options.models = [{"id": "o9", **UNSAID}]
    assert run_in_terminal(["models"])[0].split() == ["ID", "VENDOR", "NAME"]


def test_an_account_that_has_auto_alone_is_told_so(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, and instead of a table without rows. A program that reads JSON gets an empty list."""
    served.options.models = [{"id": "off", "model_picker_enabled": False}]
    assert run(["models"]) == 0
    only = 'There is only "auto": the service then chooses (--all lists the other models)'
    assert capsys.readouterr() == ("", f"{only}\n")
    assert run_in_terminal(["models"]) == [only]
    assert run(["models", "--json"]) == 0
    assert capsys.readouterr() == ("[]\n", "")


def test_auto_is_not_named_twice(served: Emulator) -> None:
    """Once the service lists it."""
    served.options.models = [{"id": "auto"}]
    assert len(run_in_terminal(["models"])) == 2


@pytest.mark.parametrize("forgery", FORGERIES, ids=ascii)
def test_no_field_passes_for_something_else(forgery: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each model, of eight fields, whatever the service calls it."""
    fields = {"name": forgery, "vendor": forgery, "model_picker_category": forgery, "capabilities": {"type": forgery}}
    served.options.models = [{"id": f"m{forgery}", **fields}]
    assert run(["models", "--all"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.count("\t") == 7
    assert line.replace("\t", "").isprintable()


def test_a_failure_is_status_1(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """With its reason on stderr."""
    served.fail("models", Fault.status(403, message="not for you"))
    assert run(["models"]) == 1
    assert "not for you" in capsys.readouterr().err
