"""The command ``llm``, with the plugin as it is declared."""

import configparser
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from blocks import DOCS, text_with
from support import PATIENCE

from copilot_sync.emulator import Emulator, Fault, Reply

pytest.importorskip("llm")

SETUP = Path(__file__).parents[2] / "setup.cfg"

Command = Callable[..., Any]


@pytest.fixture
def command(emulator: Emulator, start: Callable[..., Any], tmp_path: Path) -> Command:
    """Run ``llm`` to its end, in a folder of its own; it finds the plugin also where the package is not installed."""
    emulator.reply = Reply(["one ", "two"])
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    metadata = tmp_path / "copilot_sync_declared-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: copilot-sync-declared\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[llm]{setup['options.entry_points']['llm']}\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from llm.cli import cli; cli()"

    def run(*arguments: str) -> Any:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = start(["-c", code, *arguments], env={"LLM_USER_PATH": str(tmp_path)}, **pipes)
        process.wait(6 * PATIENCE)
        return process

    return run


def test_the_command_answers_and_goes_on(emulator: Emulator, command: Command) -> None:
    """``llm -m copilot-sync/gpt-4o "hello"``, and ``llm -c`` in the same thread, with the same token."""
    for arguments in (["-m", "copilot-sync/gpt-4o", "hello"], ["-c", "and?"]):
        done = command(*arguments)
        assert (done.stdout.read(), done.returncode) == ("one two\n", 0), done.stderr.read()
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["hello", "and?"]
    assert emulator.tokens_issued == 1


def test_the_commands_of_the_page_answer(emulator: Emulator, command: Command) -> None:
    """Those that docs/migrating.rst has for users of other plug-ins."""
    lines = text_with("llm -m", DOCS / "migrating.rst", "sh").splitlines()
    calls = [shlex.split(line)[1:] for line in lines if line.startswith("llm ")]
    for arguments in calls:
        done = command(*arguments)
        assert (done.stdout.read(), done.returncode) == ("one two\n", 0), done.stderr.read()
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == [arguments[-1] for arguments in calls]
    assert len(calls) == 2


def test_the_asynchronous_model_goes_on_in_the_same_thread(emulator: Emulator, command: Command) -> None:
    """``llm --async``, and ``llm -c`` with either kind of model."""
    for arguments in (["--async", "-m", "copilot-sync/gpt-4o", "one"], ["-c", "two"], ["--async", "-c", "three"]):
        done = command(*arguments)
        assert (done.stdout.read(), done.returncode) == ("one two\n", 0), done.stderr.read()
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["one", "two", "three"]


OTHER = """
import llm

@llm.hookimpl
def register_models(register):
    register(Other())

class Other(llm.Model):
    model_id = "other"

    def execute(self, *arguments, **options):
        yield "fine, thanks"
"""


def test_what_another_model_was_told_is_told_first(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """With ``llm -c -m``, as the log of ``llm`` has it."""
    (tmp_path / "other.py").write_text(OTHER)
    with (tmp_path / "copilot_sync_declared-0.dist-info" / "entry_points.txt").open("a") as declared:
        declared.write("other = other\n")
    assert command("-m", "other", "how are you?").stdout.read() == "fine, thanks\n"
    assert command("-c", "-m", "copilot-sync/gpt-4o", "why?").stdout.read() == "one two\n"
    (thread,) = emulator.threads.values()
    said = "User: how are you?\nAssistant: fine, thanks\nUser: why?\nAssistant:"
    assert [message["content"] for message in thread.user_messages] == [said]


def test_the_command_answers_with_data(emulator: Emulator, command: Command) -> None:
    """``llm --schema``, by either kind of model; the options are there."""
    emulator.reply = Reply('```json\n{"name": "Ada", "age": 36}\n```')
    for kind in ([], ["--async"]):
        done = command(*kind, "-m", "copilot-sync/gpt-4o", "--schema", "name, age int", "-o", "repairs", "0", "Who?")
        assert json.loads(done.stdout.read()) == {"name": "Ada", "age": 36}
    assert [request.stage for request in emulator.requests].count("message") == 2


def test_the_command_lists_what_the_models_can_do(command: Command) -> None:
    """Their options, schemas, and both kinds."""
    listed = command("models", "list", "--options", "-m", "copilot-sync/gpt-4o").stdout.read()
    assert all(word in listed for word in ("timeout:", "repairs:", "- schemas", "- async", "image/png"))


def test_the_command_takes_a_key_of_llm(emulator: Emulator, command: Command, tmp_path: Path) -> None:
    """``llm keys`` keeps it; then no token is fetched."""
    (tmp_path / "keys.json").write_text(json.dumps({"copilot-sync": emulator.api_key}))
    assert command("-m", "copilot-sync/gpt-4o", "hello").stdout.read() == "one two\n"
    assert emulator.tokens_issued == 0


def test_the_command_says_what_is_wrong(emulator: Emulator, command: Command) -> None:
    """In a line, without a traceback."""
    emulator.fail("message", Fault.status(422))
    done = command("-m", "copilot-sync/gpt-4o", "hello")
    told = done.stderr.read()
    assert done.returncode == 1
    assert told.startswith("Error: ")
    assert "Traceback" not in told
