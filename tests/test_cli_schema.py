"""``ask --schema``: what it takes, what it prints, and what it says of an answer that does not fit."""

import json
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List

import click
import pytest
from command_line import Keys
from support import PATIENCE, wait_until
from terminals import OwnTerminal, Terminal

from copilot_sync.cli.program import run
from copilot_sync.cli.schemas import read_schema
from copilot_sync.emulator import Emulator, Reply, Script

GOOD = '{"name": "Adé", "age": 36}'


@pytest.fixture(autouse=True)
def _nobody_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Keys())


def sent(emulator: Emulator) -> int:
    return sum(request.stage == "message" for request in emulator.requests)


@pytest.mark.parametrize(
    "value, properties",
    [
        ("name", {"name": {"type": "string"}}),
        ("name, age int", {"name": {"type": "string"}, "age": {"type": "integer"}}),
        ("price float,is-new bool, s str,", {n: {"type": t} for n, t in
            [("price", "number"), ("is-new", "boolean"), ("s", "string")]}),
        ("age int: in years, roughly\n bio : what it is: a life \n\n", {
            "age": {"type": "integer", "description": "in years, roughly"},
            "bio": {"type": "string", "description": "what it is: a life"},
        }),
        ("name:", {"name": {"type": "string"}}),
        ("straße: https://a.example/x.html", {"straße": {"type": "string", "description": "https://a.example/x.html"}}),
    ],
)  # fmt: skip
def test_the_short_form_is_an_object_of_fields(value: str, properties: Dict[str, Any]) -> None:
    """Divided by commas, or by line ends if there are any. All are required."""
    assert read_schema(value) == {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    "value, words",
    [
        ("", "there are no fields; write: name, age int"),
        (" , ", "there are no fields"),
        ("age integr", "'age integr' has the type 'integr'; there are int, float, str, bool"),
        ("the name int", "'the name int' is no field; write: name, age int, bio: what it is"),
        ('{"type": "object"}', "is no field; write: name, age int, bio: what it is; or the path of a file with a JSON"),
        ("name, name int", "there are two fields 'name'"),
        ("nothing.json", "--schema nothing.json: it can't be read: No such file"),
        ("some/where", "--schema some/where: it can't be read"),
    ],
)
def test_what_is_no_schema_is_named_with_what_to_write(
    value: str, words: str, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is wrong usage, and nothing is sent."""
    with pytest.raises(click.UsageError) as caught:
        read_schema(value)
    assert words in caught.value.message
    assert run(["ask", "--schema", value, "Who?"]) == 2
    assert served.requests == []
    assert "--schema" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, words",
    [
        (b"no", "it holds no JSON: Expecting value"),
        (b"\x00\xff", "it holds no JSON"),
        (b"[1]", "it holds no JSON Schema, which is an object"),
        (b'{"type": "objekt"}', "schema is no valid JSON Schema: $.type"),
        (b'{"$ref": "https://a.example/schema"}', "nothing is fetched"),
    ],
)
def test_a_file_without_a_schema_is_named(
    content: bytes, words: str, tmp_path: Path, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its path, and what is wrong with it."""
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    assert run(["ask", "--schema", str(path), "Who?"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"--schema {path}" in error
    assert words in error
    assert served.requests == []


def test_a_pipe_gets_one_line_of_json(
    served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The document alone, without the words and the fence that the model may have put around it."""
    path = tmp_path / "person.json"
    path.write_text('\ufeff{"required": ["name", "age"]}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for schema in ("name, age int", "person.json", str(path)):
        served.script(f"Here:\n```json\n{GOOD}\n```")
        assert run(["ask", "--schema", schema, "Who?"]) == 0
        output = capsys.readouterr()
        assert (json.loads(output.out), output.out.count("\n"), output.err) == (json.loads(GOOD), 1, "")


def test_a_terminal_gets_it_in_lines(served: Emulator) -> None:
    """For a person, and with nothing that the terminal would obey."""
    served.script("No.", '{"name": "A\\u009bda\\u001b[2J"}')
    with Terminal("ask", "--schema", "name", "Who?", environment={"TERM": "dumb"}) as terminal:
        assert terminal.status() == 0
        assert terminal.lines() == ["{", '  "name": "A\\u009bda\\u001b[2J"', "}"]
    assert b"\x1b" not in terminal.seen


def test_a_person_sees_that_an_answer_is_awaited_and_another_one(served: Emulator) -> None:
    """Nothing else moves until the answer fits; then that is gone."""
    go_on = threading.Event()
    served.script("No.", lambda prompt: go_on.wait(PATIENCE) and '{"name": "Ada"}')
    with Terminal("ask", "--schema", "name", "Who?", environment={}) as terminal:
        terminal.expect("answer 1 does not fit")
        go_on.set()
        assert terminal.status() == 0
        assert terminal.lines() == ["{", '  "name": "Ada"', "}"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_is_shown_while_an_answer_is_awaited_is_on_stderr(
    options: List[str], served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So a pipe gets the data alone. A person sees which answer did not fit, and nothing of that at the end."""
    monkeypatch.setenv("TERM", "xterm")
    with OwnTerminal() as terminal:

        def shown(words: bytes, answer: str) -> Script:
            return lambda prompt: wait_until(lambda: words in terminal.seen) or answer

        misfit = b"answer 1 does not fit the schema: waiting for another one"
        served.script(shown(b"waiting for the answer", "No."), shown(misfit, '{"name": "Ada"}'))
        monkeypatch.setattr(sys, "stderr", terminal.file)
        assert run(["ask", *options, "--schema", "name", "Who?"]) == 0
        assert terminal.finish() == [""]
    assert "Ada" in capsys.readouterr().out


def test_the_object_of_an_answer_has_the_data(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--json``, beside the text as it came."""
    served.script(GOOD)
    assert run(["ask", "--json", "--schema", "name, age int", "Who?"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["parsed"], printed["text"]) == (json.loads(GOOD), GOOD)


@pytest.mark.parametrize("repairs", [[], ["--repairs", "0"], ["--repairs", "1"]])
def test_an_answer_that_never_fits_is_a_failure(
    repairs: Any, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, and on stderr why; nothing of it on stdout. As many messages as ``--repairs`` allows, and one."""
    served.reply = Reply('{"name": 1}')
    assert run(["ask", "--schema", "name", *repairs, "Who?"]) == 1
    output = capsys.readouterr()
    (conversation,) = served.threads
    assert output.out == ""
    assert "schema: $.name: 1 is not of type 'string'" in output.err
    assert output.err.endswith(f"see the answers with: copilot-sync threads show {conversation}\n")
    assert sent(served) == 1 + int(repairs[1] if repairs else 2)


def test_the_demo_answers_with_data(capsys: pytest.CaptureFixture[str]) -> None:
    """So that ``--schema`` can be tried without an account."""
    assert run(["ask", "--emulator", "--schema", "name, age int", "Who?"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "demo", "age": 1}


@pytest.mark.parametrize("command", [["ask", "Who?"], ["batch", "-", "--format", "text", "-o", "-"]])
def test_the_demo_is_not_asked_for_data_that_it_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: List[str]
) -> None:
    """It would fail after three slow answers; the message says what does not."""
    path = tmp_path / "year.json"
    path.write_text('{"type": "string", "pattern": "^[0-9]{4}$"}', encoding="utf-8")
    assert run([*command, "--emulator", "--schema", str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "copilot-sync emulator --script FILE" in output.err


def test_repairs_without_a_schema_are_wrong_usage(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing that they could repair."""
    assert run(["ask", "--repairs", "2", "Who?"]) == 2
    assert "add --schema" in capsys.readouterr().err
    assert served.requests == []


def test_repairs_are_zero_at_least(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is wrong usage."""
    assert run(["ask", "--schema", "name", "--repairs", "-1", "Who?"]) == 2
    assert "--repairs" in capsys.readouterr().err


def test_a_missing_library_is_named_with_what_to_install(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is an extra, and nothing was sent."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert run(["ask", "--schema", "name", "Who?"]) == 1
    assert 'a schema needs jsonschema: pip install "copilot-sync[schema]"' in capsys.readouterr().err
    assert served.requests == []


def test_the_conversation_of_a_repaired_answer_goes_on(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind the answer that fits."""
    served.script("No.", '{"name": "Ada"}', "Yes.")
    assert run(["ask", "--schema", "name", "Who?"]) == 0
    assert run(["ask", "--continue", "Sure?"]) == 0
    first, second, third = [request.json for request in served.requests if request.stage == "message"]
    assert second["parentMessageID"] == first["responseMessageID"]
    assert third["parentMessageID"] == second["responseMessageID"]
