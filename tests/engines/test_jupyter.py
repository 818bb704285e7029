"""``%%copilot`` in the shells of IPython as they are, with and without a notebook's display."""

import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Iterator, List

import nbformat
import pytest
from blocks import DOCS, texts_of
from emulated import MISSING_REFERENCE
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from nbclient import NotebookClient
from support import PATIENCE, wait_until
from traitlets.config import Config

from copilot_sync import Client
from copilot_sync.emulator import Emulator, Fault, Reply

EXTENSION = "copilot_sync.contrib.jupyter"


@pytest.fixture
def quiet(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The settings of a shell that keeps nothing, where the environment points at the emulator."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    return Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "nocolor"})


@pytest.fixture
def shell(quiet: Config) -> Iterator[InteractiveShell]:
    """A shell whose output is kept, as a notebook's is by its front end."""
    made = InteractiveShell.instance(config=quiet)
    made.display_pub = CapturingDisplayPublisher()
    yield from loaded(made)


@pytest.fixture
def terminal(quiet: Config) -> Iterator[TerminalInteractiveShell]:
    quiet.TerminalInteractiveShell.simple_prompt = True
    yield from loaded(TerminalInteractiveShell.instance(config=quiet))


def loaded(shell: Any) -> Iterator[Any]:
    shell.run_line_magic("load_ext", EXTENSION)
    yield shell
    if EXTENSION in shell.extension_manager.loaded:
        shell.run_line_magic("unload_ext", EXTENSION)
    type(shell).clear_instance()


def shown(shell: Any) -> List[str]:
    """What the front end was told to show, one after the other."""
    return [output["data"]["text/markdown"] for output in shell.display_pub.outputs]


def prompts(emulator: Emulator) -> List[Any]:
    return [request.json["content"] for request in emulator.requests if request.path.endswith("/messages")]


def test_an_answer_is_shown_in_place_while_it_comes(emulator: Emulator, shell: Any) -> None:
    """As Markdown, by updates of one display."""
    emulator.script(Reply(["*Hel", "lo*", " there"], pace=0.15))
    assert shell.run_cell("%%copilot\nSay hello.\n").success
    texts = shown(shell)
    assert (texts[0], texts[-1]) == ("", "*Hello* there")
    assert "*Hel" in texts or "*Hello*" in texts
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:]))
    displays = {output["transient"]["display_id"] for output in shell.display_pub.outputs}
    assert len(displays) == 1
    assert [output.get("update", False) for output in shell.display_pub.outputs] == [False] + [True] * (len(texts) - 1)
    assert prompts(emulator) == ["Say hello."]


def test_cells_go_on_with_the_conversation_of_the_notebook(emulator: Emulator, shell: Any) -> None:
    """Until one begins a new one, or names another."""
    with Client() as client:
        known = client.ask("known").conversation
    cells = ["", "", "--conversation new", "", f"-c {known.conversation_id}", ""]
    threads = []
    for number, line in enumerate(cells):
        assert shell.run_cell(f"%%copilot {line} -o answer\n{number}").success
        threads.append(shell.user_ns["answer"].conversation.conversation_id)
    assert [threads.index(thread) for thread in threads] == [0, 0, 2, 2, 4, 4]
    assert threads[4] == known.conversation_id


def test_the_answer_is_stored_and_the_model_is_chosen(emulator: Emulator, shell: Any) -> None:
    """An answer in a variable shows itself as Markdown."""
    assert shell.run_cell("%%copilot --model gpt-4o --output answer\n**a**").success
    answer = shell.user_ns["answer"]
    assert (answer.text, answer.complete, answer._repr_markdown_()) == ("**a**", True, "**a**")
    assert emulator.requests[-1].json["model"] == "gpt-4o"
    formatted, _ = shell.display_formatter.format(answer)
    assert formatted["text/markdown"] == "**a**"


def test_an_interrupt_keeps_what_has_come(emulator: Emulator, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends the request at once and says so in a line; the next cell goes on."""
    emulator.script(Reply(["half", " of it"], pace=60))

    def interrupt() -> None:
        wait_until(lambda: "half" in shown(shell))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = shell.run_cell("%%copilot -o answer\nquestion")
    thread.join()
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert shown(shell)[-1] == "half"
    assert (shell.user_ns["answer"].text, shell.user_ns["answer"].complete) == ("half", False)
    printed = capsys.readouterr()
    assert printed.out + printed.err == "interrupted: this is the part of the answer that had come\n"
    assert shell.run_cell("%%copilot -o answer\nnext").success
    assert shell.user_ns["answer"].text == "next"


def test_a_failure_is_an_error_of_the_cell(emulator: Emulator, shell: Any) -> None:
    """What had come stays. An answer of an earlier cell stays in its variable if nothing came."""
    assert shell.run_cell("%%copilot -o answer\nfirst").success
    emulator.script(Reply(["half"], error="no"))
    assert type(shell.run_cell("%%copilot -o part\nsecond").error_in_exec).__name__ == "ServerError"
    assert (shell.user_ns["part"].text, shell.user_ns["part"].complete) == ("half", False)
    emulator.fail("message", Fault.status(400))
    assert type(shell.run_cell("%%copilot -o answer\nthird").error_in_exec).__name__ == "InvalidRequestError"
    assert shell.user_ns["answer"].text == "first"


def test_a_failure_shows_its_words_and_no_frames_of_the_library(
    emulator: Emulator, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The traceback ends in the magic, so that the message is seen at once."""
    result = shell.run_cell("%%copilot --model nothing\nquestion")
    assert type(result.error_in_exec).__name__ == "ModelNotAvailableError"
    frames = traceback.extract_tb(result.error_in_exec.__traceback__)
    assert [frame.name for frame in frames if "copilot_sync" in frame.filename] == ["copilot"]
    assert "does not answer with the model 'nothing'" in capsys.readouterr().out


def test_a_conversation_that_is_not_there_does_not_take_the_place_of_the_notebooks(
    emulator: Emulator, shell: Any
) -> None:
    """After a mistyped id the next cell goes on as before."""
    assert shell.run_cell("%%copilot -o first\nquestion").success
    assert type(shell.run_cell("%%copilot -c nothing\nquestion").error_in_exec).__name__ == "NotFoundError"
    assert shell.run_cell("%%copilot -o second\nquestion").success
    first, second = (shell.user_ns[name].conversation.conversation_id for name in ("first", "second"))
    assert first == second


def test_a_conversation_that_the_service_has_forgotten_is_not_gone_on_with(emulator: Emulator, shell: Any) -> None:
    """The cell says so, and the next one begins a new conversation."""
    assert shell.run_cell("%%copilot\nquestion").success
    emulator.threads.clear()
    assert type(shell.run_cell("%%copilot\nquestion").error_in_exec).__name__ == "NotFoundError"
    assert shell.run_cell("%%copilot\nquestion").success


def test_a_conversation_in_which_something_else_is_gone_goes_on(emulator: Emulator, shell: Any) -> None:
    """Such as a repository: the service has begun to answer in that conversation."""
    assert shell.run_cell("%%copilot\nquestion").success
    emulator.fail("message", MISSING_REFERENCE)
    assert type(shell.run_cell("%%copilot\nquestion").error_in_exec).__name__ == "NotFoundError"
    assert shell.run_cell("%%copilot\nquestion").success
    assert len(emulator.threads) == 1


@pytest.mark.parametrize("line", ["-o 1a", "--temperature 1"])
def test_a_wrong_option_sends_nothing(emulator: Emulator, shell: Any, line: str) -> None:
    """It is told as a mistake in the use of the magic."""
    assert type(shell.run_cell(f"%%copilot {line}\nquestion").error_in_exec).__name__ == "UsageError"
    assert emulator.requests == []


def test_a_terminal_gets_plain_text(emulator: Emulator, terminal: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Its line is ended."""
    assert terminal.run_cell("%%copilot -o answer\n**a**").success
    assert capsys.readouterr().out == "**a**\n"
    assert terminal.user_ns["answer"].text == "**a**"


def test_the_extension_can_be_reloaded_and_unloaded(emulator: Emulator, shell: Any) -> None:
    """Afterwards there is no magic, and a cell before the first question leaves nothing to close."""
    for _ in range(2):
        shell.run_line_magic("reload_ext", EXTENSION)
        assert shell.run_cell("%%copilot\na").success
    shell.run_line_magic("unload_ext", EXTENSION)
    assert shell.find_cell_magic("copilot") is None
    assert shell.find_cell_magic("time") is not None


def test_the_cells_of_the_page_run(emulator: Emulator, quiet: Config) -> None:
    """One after the other, as they stand there."""
    cells = texts_of(DOCS / "jupyter.rst", "text")
    shell = InteractiveShell.instance(config=quiet)
    for cell in cells:
        assert shell.run_cell(cell).success
    assert len(prompts(emulator)) == len(cells) - 1 == 3
    assert shell.user_ns["answer"].text == "Write a WSGI application that says hello."
    shell.run_line_magic("unload_ext", EXTENSION)
    InteractiveShell.clear_instance()


def test_a_missing_extra_is_named() -> None:
    """Instead of a traceback out of the middle of things."""
    code = f"import sys; sys.modules['IPython.core.error'] = None; import {EXTENSION}"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, env={**os.environ}, check=False)
    last = done.stderr.decode().splitlines()[-1]
    assert last == 'ImportError: this module needs IPython: pip install "copilot-sync[jupyter]"'


def test_a_notebook_runs_in_a_kernel_of_its_own(emulator: Emulator, tmp_path: Path) -> None:
    """As Jupyter runs it: the answer is in the notebook as Markdown, and a cell that fails has an error of ours."""
    emulator.script("*Hello* there", "**Hello** again")
    sources = [
        f"%load_ext {EXTENSION}",
        "%%copilot -o answer\nSay hello.",
        "answer",
        "%%copilot\nAgain.",
        "%%copilot --model nothing\nAgain.",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    kernel = NotebookClient(notebook, timeout=PATIENCE, allow_errors=True, resources={"metadata": {"path": tmp_path}})
    environment = {**os.environ, **emulator.environment, "IPYTHONDIR": str(tmp_path)}
    kernel.execute(env=environment)
    _, said, stored, again, failed = [cell.outputs for cell in notebook.cells]
    assert [output.data["text/markdown"] for output in (*said, *stored, *again)] == [
        "*Hello* there",
        "*Hello* there",
        "**Hello** again",
    ]
    assert [output.output_type for output in (*said, *stored)] == ["display_data", "execute_result"]
    assert failed[-1].ename == "ModelNotAvailableError"
    assert len({request.path for request in emulator.requests if request.stage == "message"}) == 1
