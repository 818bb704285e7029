"""``copilot-sync batch --schema``: answers as data, from the command line."""

import json
import sys
from pathlib import Path
from typing import Any, Dict

import pytest

from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Reply

pytest.importorskip("jsonschema", reason="jsonschema is not installed")
pytestmark = pytest.mark.usefixtures("quick_batches")

GOOD, BAD = '{"age": 36}', '{"age": "old"}'


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b", "schema": {"type": "array"}}\n', encoding="utf-8")
    return path


def lines_of(name: str) -> Dict[Any, Any]:
    return {line["id"]: line for line in map(json.loads, Path(name).read_text(encoding="utf-8").splitlines())}


@pytest.mark.parametrize("schema", ["age int", "age.json"])
def test_answers_are_written_as_data(served: Emulator, prompts: Path, schema: str) -> None:
    """By the fields that are named, or a file; a line may have a schema of its own."""
    fields = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    prompts.with_name("age.json").write_text(json.dumps(fields), encoding="utf-8")
    served.script(Reply(BAD), Reply("[1]"), Reply(GOOD))
    assert run(["batch", str(prompts), "-o", "out.jsonl", "--schema", schema, "--workers", "1"]) == 0
    assert {id: line["parsed"] for id, line in lines_of("out.jsonl").items()} == {1: {"age": 36}, 2: [1]}


def test_the_emulator_answers_with_data(prompts: Path) -> None:
    """So that a batch can be tried without an account; each prompt by its own schema."""
    assert run(["batch", str(prompts), "-o", "out.jsonl", "--schema", "age int", "--emulator"]) == 0
    assert {id: line["parsed"] for id, line in lines_of("out.jsonl").items()} == {1: {"age": 1}, 2: [None]}


def test_repairs_are_as_many_as_it_says(served: Emulator, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prompt that none of its answers fits has failed."""
    served.reply = Reply(BAD)
    arguments = ["batch", str(prompts), "-o", "out.jsonl", "--schema", "age int", "--repairs", "0"]
    assert run(arguments) == 1
    assert "answered: 0, failed: 2" in capsys.readouterr().err
    assert [line["text"] for line in lines_of("out.jsonl").values()] == [BAD, BAD]
    assert sum(request.stage == "message" for request in served.requests) == 2


@pytest.mark.parametrize("arguments", [["--schema", "nothing.json"], ["--schema", "age integr"], ["--repairs", "-1"]])
def test_wrong_usage_asks_nothing(served: Emulator, prompts: Path, arguments: list) -> None:  # type: ignore[type-arg]
    """And writes nothing."""
    assert run(["batch", str(prompts), "-o", "out.jsonl", *arguments]) == 2
    assert served.requests == []
    assert not Path("out.jsonl").exists()


def test_without_what_judges_answers_it_says_what_to_install(
    served: Emulator, prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if only a line has a schema."""
    prompts.write_text('{"prompt": "a", "schema": {"type": "array", "title": "seen by none"}}\n', encoding="utf-8")
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert run(["batch", str(prompts), "-o", "out.jsonl"]) == 1
    told = capsys.readouterr().err
    assert 'pip install "copilot-sync[schema]"' in told
    assert "answered" not in told
    assert served.requests == []
