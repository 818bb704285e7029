"""``copilot-sync models``."""

import json
from typing import Any, Dict, List

import pytest
from terminals import Terminal

from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault

MODELS: List[Dict[str, Any]] = [
    {"id": "gpt-4o", "name": "GPT 4o", "vendor": "Azure"},
    {"id": "o9", "name": "o9\x1b", "preview": True},
]


@pytest.fixture(autouse=True)
def _models(served: Emulator) -> None:
    served.options.models = MODELS


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each with tabs: id, name, vendor, preview."""
    assert run(["models"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "gpt-4o\tGPT 4o\tAzure\t"
    assert second.startswith("o9\to9\ufffd\t")
    assert second.endswith("\tpreview")


def test_models_are_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """All that is known of each."""
    assert run(["models", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == {"id": "gpt-4o", "name": "GPT 4o", "vendor": "Azure", "preview": False}
    assert second["preview"] is True


def test_a_list_in_a_terminal_has_headings() -> None:
    """And nothing that the terminal would obey."""
    with Terminal("models", environment={}) as terminal:
        assert terminal.status() == 0
        assert [line.split()[0] for line in terminal.lines()] == ["ID", "gpt-4o", "o9"]
    assert b"\x1b" not in terminal.seen


def test_a_failure_is_status_1(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """With its reason on stderr."""
    served.fail("models", Fault.status(403, message="not for you"))
    assert run(["models"]) == 1
    assert "not for you" in capsys.readouterr().err
