"""What a command waits for is shown with a countdown, to a terminal alone, and nothing of it stays."""

import contextlib
import io
import math
import sys
from typing import Any, Iterator, List

import pytest
from support import Worker, wait_until
from terminals import CTRL_C, OwnTerminal, Terminal

from copilot_sync import Client, StreamClosedError
from copilot_sync.cli import waits
from copilot_sync.cli.output import show_answer
from copilot_sync.cli.waits import WaitLine, WaitsIn, words_of
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.stepping import Delay

#: Seconds that the service asks to wait. A test ends sooner.
ASKED = 59
WHY = "too many requests: slow down"


@pytest.fixture(autouse=True)
def _a_terminal_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


def slow_down(emulator: Emulator) -> None:
    for stage in ("models", "threads", "message"):
        emulator.fail(stage, Fault.status(429, retry_after=ASKED))


@pytest.mark.parametrize(
    "arguments",
    [["models"], ["threads", "list"], ["ask", "hi"], ["ask", "--raw", "hi"], ["ask", "--json", "hi"]],
    ids=" ".join,
)
def test_a_terminal_counts_down(arguments: List[str], served: Emulator) -> None:
    """The reason is beside it. It is drawn anew when the number changes. After Ctrl-C, nothing of it is left."""
    slow_down(served)
    with Terminal(*arguments, environment={}) as terminal:
        terminal.expect("waiting ")
        terminal.expect(f" s: {WHY}")
        terminal.expect("waiting ")
        terminal.send(CTRL_C)
        assert terminal.status() == 130
        assert "waiting" not in "".join(terminal.lines())


def test_a_chat_counts_down_too(served: Emulator) -> None:
    """For each question, and for its commands."""
    slow_down(served)
    with Terminal("chat", environment={}) as terminal:
        terminal.expect("Ctrl-D ends")
        terminal.line("hi")
        terminal.expect("waiting ")
        terminal.expect(f" s: {WHY}")
        terminal.send(CTRL_C)
        terminal.expect("(stopped)")
        terminal.line("/quit")
        assert terminal.status() == 0
        assert "waiting" not in "".join(terminal.lines())


def test_a_dumb_terminal_gets_one_line(served: Emulator) -> None:
    """It stays, and there is no control sequence in it."""
    slow_down(served)
    with Terminal("models", environment={"TERM": "dumb"}) as terminal:
        terminal.expect("waiting ")
        terminal.expect(f" s: {WHY}")
        terminal.send(CTRL_C)
        assert terminal.status() == 130
        assert sum("waiting" in line for line in terminal.lines()) == 1
    assert b"\x1b" not in terminal.seen


def test_with_the_log_there_is_no_countdown(served: Emulator) -> None:
    """It says the same, and would be torn apart."""
    slow_down(served)
    with Terminal("models", "--verbose", environment={}) as terminal:
        terminal.expect("trying again in ")
        terminal.send(CTRL_C)
        assert terminal.status() == 130
    assert b"waiting" not in terminal.seen


@pytest.mark.parametrize(
    ("delay", "words"),
    [
        (None, ""),
        (Delay("service", 0.9, "x"), ""),
        (Delay("service", 59.2, "two\nlines"), "waiting 1 min 0 s: two lines"),
        (Delay("service", 3.0), "waiting 3 s: the service"),
        (Delay("limit", 3.0), "waiting 3 s: the limit that all commands share"),
        (Delay("limit", math.inf), "waiting: another question has to end first"),
    ],
)
def test_a_wait_is_told_in_words(delay: Any, words: str) -> None:
    """In one line. A short one is not worth it."""
    assert words_of(delay) == words


def test_a_wait_that_goes_on_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a dumb terminal, also if there is a moment between two of its parts."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    line = WaitLine(Client())
    delay = Delay("service", 9.0, "one")
    for each in [
        delay,
        delay._replace(seconds=8.0),
        None,
        delay,
        Delay("limit", 5.0),
        *[None] * 6,
        Delay("limit", 4.0),
    ]:
        line._print(each)
    assert shown.getvalue().splitlines() == [
        "waiting 9 s: one",
        "waiting 5 s: the limit that all commands share",
        "waiting 4 s: the limit that all commands share",
    ]


@pytest.fixture
def waiting(emulator: Emulator) -> Iterator[Client]:
    """A client of which a call waits."""
    slow_down(emulator)
    options: Any = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    with Client(cookies=emulator.cookies, **options) as client:
        worker = Worker(client.models)
        wait_until(lambda: words_of(waits.delay_of(client)) != "")
        yield client
    with pytest.raises(StreamClosedError):
        worker.result()


@contextlib.contextmanager
def in_terminal(*names: str) -> Iterator[OwnTerminal]:
    """A terminal that stdout and stderr are, or only one of them."""
    with OwnTerminal() as own, pytest.MonkeyPatch.context() as patch:
        for name in names or ("stdout", "stderr"):
            patch.setattr(sys, name, own.file)
        yield own


def test_what_is_hidden_comes_back(waiting: Client) -> None:
    """And is gone in the end."""
    with in_terminal() as terminal:
        with WaitLine(waiting) as line:
            wait_until(lambda: WHY.encode() in terminal.seen)
            with line.hidden():
                terminal.file.write("between\n")
                terminal.file.flush()
                wait_until(lambda: b"between" in terminal.seen)
                before = len(terminal.seen)
            wait_until(lambda: WHY.encode() in terminal.seen[before:])
        assert terminal.finish()[:2] == ["between"]


def test_wide_characters_stay_in_the_line() -> None:
    """Each takes two columns. Below the line, nothing would be erased."""
    with in_terminal() as terminal:
        with WaitLine(Client()) as line, line.otherwise(lambda: "\u5f85" * 60):
            wait_until(lambda: "\u5f85".encode() in terminal.seen)
        assert terminal.finish() == [""]


@pytest.mark.parametrize("raw", [True, False])
def test_an_answer_takes_its_place(raw: bool, waiting: Client) -> None:
    """On the same terminal, in plain text and in Markdown; then no wait is shown any more among the text."""

    def pieces() -> Iterator[str]:
        wait_until(lambda: WHY.encode() in terminal.seen)
        yield "one "
        yield "two"

    with in_terminal() as terminal:
        with WaitLine(waiting) as line:
            show_answer(pieces(), raw, line)
        assert terminal.finish() == ["one two"]


@pytest.mark.parametrize("raw", [True, False])
def test_an_answer_that_waits_for_nothing_is_printed_as_ever(raw: bool) -> None:
    """Without a line for it as well."""
    with in_terminal() as terminal:
        show_answer(["one"], raw)
        assert terminal.finish() == ["one"]


def test_a_pipe_gets_the_answer_while_the_terminal_counts(waiting: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """What goes to a pipe does not disturb the line."""
    with in_terminal("stderr") as terminal, WaitLine(waiting) as line:
        show_answer(["one"], False, line)
        wait_until(lambda: WHY.encode() in terminal.seen)
    assert capsys.readouterr().out == "one\n"


@pytest.mark.parametrize(("place", "term"), [(WaitsIn.BAR, "xterm"), (WaitsIn.LOG, "xterm"), (WaitsIn.LINE, "dumb")])
def test_others_show_it_elsewhere(place: WaitsIn, term: str, waiting: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch in its bar, ``serve`` in its log, a dumb terminal in a line that stays."""
    monkeypatch.setenv("TERM", term)
    with in_terminal() as terminal:
        with WaitLine(waiting, place) as line:
            if place is WaitsIn.LINE:
                wait_until(lambda: WHY.encode() in terminal.seen)
            with line.hidden():
                assert line.is_shown is (place is not WaitsIn.LOG)
            assert WHY in line.words()
        assert (WHY.encode() in terminal.seen) is (place is WaitsIn.LINE)
        assert b"\x1b" not in terminal.seen


def test_a_terminal_that_is_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command goes on."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    WaitLine(Client())._show("words")
