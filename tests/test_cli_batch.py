"""``copilot-sync batch``: files in and out, what is seen of it, its exit statuses, and how it is stopped."""

import contextlib
import errno
import importlib.util
import io
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
from support import Worker
from terminals import CTRL_C, Terminal

from copilot_sync import Usage, batch
from copilot_sync.batch.results import Result
from copilot_sync.cli import batch as cli_batch
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing.limiter import RateLimiter

KILL_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "batch_kill.py"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a file of three prompts in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text(
        '{"id": "a", "prompt": "one"}\n{"id": "b", "prompt": "two"}\n{"prompt": "three"}\n'
    )
    return tmp_path


KEYS = (
    *("id", "text", "parsed", "model", "usage", "conversation_id"),
    *("complete", "seconds", "attempts", "error"),
)


def results_of(path: Path) -> Dict[Any, Any]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
    return {line["id"]: line.get("text") for line in lines}


def sent(emulator: Emulator) -> List[str]:
    return [request.json["content"] for request in emulator.requests if request.stage == "message"]


def fail_on(emulator: Emulator, content: str, fault: Fault) -> None:
    def choose(stage: str, request: Any) -> Optional[Fault]:
        return fault if stage == "message" and request.json["content"] == content else None

    emulator.choose_fault = choose


def test_a_file_of_prompts_becomes_a_file_of_results(
    served: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With status 0, nothing on stdout, and on stderr what there is to say."""
    served.reply = Reply(usage={"inputTokens": 3, "outputTokens": 2})
    assert run(["batch", "in.jsonl", "-o", "out.jsonl"]) == 0
    assert results_of(folder / "out.jsonl") == {"a": "one", "b": "two", 3: "three"}
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"answered: 3, failed: 0, in \d+ s\nseconds for an answer: p50 [\d.e-]+, p95 [\d.e-]+\n"
        r"tokens: 9 in, 6 out\nresults: out.jsonl\n",
        err,
    )


def test_some_failures_are_status_3(served: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when they are those of an earlier run, until they were asked again."""
    fail_on(served, "two", Fault.status(400))
    assert run(["batch", "in.jsonl", "-o", "out.jsonl"]) == 3
    assert "answered: 2, failed: 1, in" in capsys.readouterr().err
    assert run(["batch", "in.jsonl", "-o", "out.jsonl"]) == 3
    assert capsys.readouterr().err == (
        "answered: 0, failed: 0, done before: 3 (1 failed), in 0 s\n"
        "results: out.jsonl\n"
        "why prompts failed stands in the results; ask them again with: "
        "copilot-sync batch in.jsonl -o out.jsonl --retry-failed\n"
    )
    served.choose_fault = None
    assert run(["batch", "in.jsonl", "-o", "out.jsonl", "--retry-failed"]) == 0
    assert results_of(folder / "out.jsonl") == {"a": "one", "b": "two", 3: "three"}
    assert len(sent(served)) == 4
    assert run(["batch", "in.jsonl", "-o", "out.jsonl"]) == 0


def test_a_batch_without_an_answer_is_status_1_again(served: Emulator, folder: Path) -> None:
    """Results of an earlier run that are failures are no answers."""
    served.choose_fault = lambda stage, request: Fault.status(400) if stage == "message" else None
    assert [run(["batch", "in.jsonl", "-o", "out.jsonl"]) for _ in range(2)] == [1, 1]


def test_only_failures_are_status_1(served: Emulator, folder: Path) -> None:
    """Nothing came of it."""
    served.choose_fault = lambda stage, request: Fault.status(400) if stage == "message" else None
    assert run(["batch", "in.jsonl", "-o", "out.jsonl"]) == 1
    assert len(results_of(folder / "out.jsonl")) == 3


def test_what_ends_a_batch_is_status_1(served: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason, and what is still to be done."""
    fail_on(served, "one", Fault.status(402))
    assert run(["batch", "in.jsonl", "-o", "out.jsonl", "--workers", "1"]) == 1
    err = capsys.readouterr().err
    assert "not done: 3; go on with: copilot-sync batch in.jsonl -o out.jsonl --workers 1\n" in err
    assert "Error: the account's quota is used up" in err
    assert run(["batch", "in.jsonl", "-o", "out.jsonl", "--workers", "1", "--max-failures", "1"]) == 1
    served.choose_fault = lambda stage, request: Fault.status(400) if stage == "message" else None
    assert run(["batch", "in.jsonl", "-o", "out.jsonl", "--workers", "1", "--max-failures", "1"]) == 1
    assert "Error: too many prompts failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batch"], "Missing argument 'IN'"),
        (["batch", "in.jsonl"], "Missing option '-o'"),
        (["batch", "missing.jsonl", "-o", "x"], "does not exist"),
        (["batch", "in.jsonl", "-o", "."], "is a directory"),
        (["batch", "in.jsonl", "-o", "x", "--workers", "0"], "--workers"),
        (["batch", "in.jsonl", "-o", "x", "--rate", "0"], "--rate"),
        (["batch", "in.jsonl", "-o", "x", "--timeout", "0"], "--timeout"),
        (["batch", "in.jsonl", "-o", "x", "--timeout", "1e9"], "of at most a million"),
        (["batch", "in.jsonl", "-o", "x", "--max-failures", "0"], "--max-failures"),
        (["batch", "in.jsonl", "-o", "x", "--format", "xml"], "--format"),
        (["batch", "in.jsonl", "-o", "x", "--format", "csv"], "in.jsonl: line 1: the first line of a CSV must name"),
        (["batch", "in.jsonl", "-o", "in.jsonl"], "in.jsonl is the file of the prompts: name another one"),
        (["batch", "in.jsonl", "-o", "link.jsonl"], "link.jsonl is the file of the prompts: name another one"),
        (["batch", "in.jsonl", "-o", "-", "--retry-failed"], "--retry-failed needs the file that holds the failed"),
        (["batch", "stray.csv", "-o", "x"], "stray.csv: line 3: a quote opens a cell here and none closes it"),
        (["batch", "in.unknown", "-o", "x"], "the suffix '.unknown' does not tell the format"),
        (["batch", "twice.jsonl", "-o", "x"], "two prompts have the id 'a'"),
    ],
)
def test_wrong_usage_is_status_2(
    served: Emulator, folder: Path, capsys: pytest.CaptureFixture[str], arguments: List[str], words: str
) -> None:
    """Told before anything is sent."""
    (folder / "in.unknown").touch()
    (folder / "twice.jsonl").write_text('{"id": "a", "prompt": "x"}\n' * 2)
    (folder / "stray.csv").write_text('prompt\none\n"two\n' + "three\n" * 1000)
    (folder / "link.jsonl").symlink_to("in.jsonl")
    before = (folder / "in.jsonl").read_bytes()
    assert run(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "answered" not in err  # nothing was begun
    assert served.requests == []
    assert (folder / "in.jsonl").read_bytes() == before
    assert not (folder / "x").exists()


def test_a_wrong_environment_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that can't be used is named."""
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "ftp://example.com")
    assert run(["batch", "in.jsonl", "-o", "out.jsonl"]) == 1
    assert "api_url" in capsys.readouterr().err


def test_an_output_that_is_something_else_is_left_alone(
    served: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database, for one: told before anything is sent, and nothing lies beside it."""
    database = sqlite3.connect(folder / "mine.db")
    with contextlib.closing(database), database:
        database.execute("CREATE TABLE things (id, text)")
        database.executemany("INSERT INTO things VALUES (?, ?)", [(n, "x" * 100) for n in range(1000)])
    before = (folder / "mine.db").read_bytes()
    assert run(["batch", "in.jsonl", "-o", "mine.db"]) == 1
    err = capsys.readouterr().err
    assert "mine.db was not written by a batch: name another file" in err
    assert "go on with" not in err  # the same command would be refused again
    assert (folder / "mine.db").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "mine.db"]
    assert sent(served) == []


def test_results_may_go_to_stdout(served: Emulator, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A line of JSON each, and all else on stderr; nothing is kept, so nothing is said of going on."""
    fail_on(served, "two", Fault.status(400))
    assert run(["batch", "in.jsonl", "-o", "-"]) == 3
    out, err = capfd.readouterr()
    lines = {line["id"]: line for line in map(json.loads, out.splitlines())}
    assert {id: line["text"] for id, line in lines.items()} == {"a": "one", "b": None, 3: "three"}
    assert {tuple(line) for line in lines.values()} == {KEYS}
    assert lines["b"]["error"]["type"] == "InvalidRequestError"
    assert err.splitlines()[0].startswith("answered: 2, failed: 1, in ")
    assert "--retry-failed" not in err
    assert os.listdir(folder) == ["in.jsonl"]
    fail_on(served, "one", Fault.status(402))
    assert run(["batch", "in.jsonl", "-o", "-", "--workers", "1"]) == 1
    assert "not done: 3\n" in capfd.readouterr().err


def test_results_come_to_stdout_as_they_are_there(served: Emulator, folder: Path) -> None:
    """The first one can be read while the second prompt is being answered; the text is as the service sent it."""
    served.script(Reply(["\x85 \u2028 \x1b[31m"]), Reply(["slow"], first_delay=30))
    with started("in.jsonl", "-o", "-", "--workers", "1") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["text"] == "\x85 \u2028 \x1b[31m"
        process.kill()


def test_who_reads_no_more_ends_it_quietly(served: Emulator, folder: Path) -> None:
    """As with ``| head``."""
    (folder / "in.txt").write_text("".join(f"prompt {number}\n" for number in range(500)))
    with started("in.txt", "-o", "-", "--workers", "1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == b""
    assert len(sent(served)) < 500


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EPIPE, ""), (errno.ENOSPC, "not done: 3\nError: the answer can't be written: No space left on device\n")],
)
def test_a_broken_pipe_has_no_summary(
    *,
    served: Emulator,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    words: str,
) -> None:
    """Nobody is there who would want one; a disk that is full is told."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "stdout", Broken())
    with contextlib.suppress(SystemExit):  # click's own way of ending at a broken pipe
        assert run(["batch", "in.jsonl", "-o", "-"]) == 1
    err = capsys.readouterr().err
    assert err.endswith(words)
    assert bool(err) == bool(words)


def test_a_file_may_be_called_as_stdout_is(served: Emulator, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If its folder is named as well."""
    assert run(["batch", "in.jsonl", "-o", "./-"]) == 0
    assert capfd.readouterr().out == ""
    assert results_of(folder / "-") == {"a": "one", "b": "two", 3: "three"}


def test_prompts_may_come_from_stdin(served: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON Lines, or as the format says."""

    def given(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    given(b'{"id": "a", "prompt": "one"}\n')
    assert run(["batch", "-", "-o", "a.jsonl"]) == 0
    assert results_of(folder / "a.jsonl") == {"a": "one"}
    given("zwei\n\ndreié\n".encode())
    assert run(["batch", "-", "-o", "b.jsonl", "--format", "text"]) == 0
    assert results_of(folder / "b.jsonl") == {1: "zwei", 3: "dreié"}


def test_options_reach_the_batch(served: Emulator, folder: Path) -> None:
    """The model, the instructions, the order, and what is deleted."""
    options = ["--model", "o1-mini", "--system", "be brief", "--ordered", "--delete-threads", "--rate", "6000"]
    assert run(["batch", "in.jsonl", "-o", "out.jsonl", *options, "--timeout", "30"]) == 0
    assert list(results_of(folder / "out.jsonl")) == ["a", "b", 3]
    (first, *_) = [request.json for request in served.requests if request.stage == "message"]
    assert first["model"] == "o1-mini"
    assert first["content"].startswith("System: be brief\nUser: ")
    assert len(served.threads) == 0


def test_a_time_limit_is_one_answers(served: Emulator, folder: Path) -> None:
    """Told in seconds, for all of it."""
    served.choose_fault = lambda stage, request: (
        Fault.stall() if stage == "message" and request.json["content"] == "two" else None
    )
    assert run(["batch", "in.jsonl", "-o", "out.jsonl", "--timeout", "2"]) == 3
    assert results_of(folder / "out.jsonl") == {"a": "one", "b": None, 3: "three"}


def test_the_embedded_emulator_needs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--emulator`` answers without account and network, behind a dead proxy too, and says on stderr what it is."""
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run(["batch", "--emulator", "in.jsonl", "-o", "out.jsonl"]) == 0
    assert results_of(folder / "out.jsonl") == {"a": "one", "b": "two", 3: "three"}
    assert "emulator" in capsys.readouterr().err


@contextlib.contextmanager
def started(*arguments: str, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "copilot_sync", "batch", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command, env=environment, **options) as process:
        yield process


def test_ctrl_c_is_status_130_and_leaves_everything_in_order(served: Emulator, folder: Path) -> None:
    """Answers that are being written are given up at once, the summary is printed, and the same command goes on."""
    (folder / "in.txt").write_text("".join(f"prompt {number}\n" for number in range(60)))
    served.reply = Reply(pace=0.02)
    with started("in.txt", "-o", "out.jsonl", "--workers", "4") as process:
        assert served.wait_until(lambda: len(sent(served)) >= 20, timeout=30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert re.search(rb"answered: \d+, failed: 0, in \d+ s\n", err)
    assert re.search(rb"not done: \d+; go on with: copilot-sync batch in.txt -o out.jsonl --workers 4\n", err)
    done = len(results_of(folder / "out.jsonl"))
    assert 0 < done < 60
    assert run(["batch", "in.txt", "-o", "out.jsonl"]) == 0
    assert results_of(folder / "out.jsonl") == {number + 1: f"prompt {number}" for number in range(60)}
    assert sorted(sent(served)) == sorted(set(sent(served)))


def test_two_runs_refuse_each_other(served: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second one says so and fails; the first one does not notice."""
    served.script(Reply(["slow"], first_delay=30))
    with started("in.jsonl", "-o", "out.jsonl", "--workers", "1") as process:
        assert served.wait_until(lambda: bool(sent(served)), timeout=30)
        assert run(["batch", "in.jsonl", "-o", "out.jsonl"]) == 1
        assert "Error: another batch is writing to" in capsys.readouterr().err
        assert process.poll() is None
        process.kill()


def test_killed_again_and_again_it_asks_every_prompt_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With requests that fail in between: one result for each prompt, and no prompt in two conversations."""
    spec = importlib.util.spec_from_file_location("batch_kill", KILL_SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["batch_kill.py", "--prompts", "150", "--kills", "2"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    status = script.main()
    out = capsys.readouterr().out
    assert (status, "every prompt has one result, and none was asked twice" in out) == (0, True), out
    assert "exit statuses [-9, -9, 0]" in out


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], stderr=subprocess.DEVNULL)
    if done.returncode:
        pytest.skip("this user may not mount anything")  # pragma: no cover - where that is so
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="what is mounted here is Linux's")
def test_a_full_disk_ends_it_and_it_goes_on_when_there_is_room(
    served: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the reason and what to do; what had been written stays, and nothing is asked twice."""
    (folder / "in.txt").write_text("".join(f"prompt {number} {'x' * 2000}\n" for number in range(40)))
    with small_disk(folder) as disk:
        output = disk / "out.jsonl"
        assert run(["batch", "in.txt", "-o", str(output)]) == 1
        err = capsys.readouterr().err
        assert f"{output}" in err
        assert "No space left on device; make room and start the same batch again" in err
        assert 0 < len(results_of(output)) < 40
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert run(["batch", "in.txt", "-o", str(output)]) == 0
        assert len(results_of(output)) == 40
    assert sorted(sent(served)) == sorted(set(sent(served)))


def read_all(descriptor: int) -> bytes:
    shown = b""
    with contextlib.suppress(OSError):  # what Linux says when the other end is closed
        while True:
            shown += os.read(descriptor, 65536)
    os.close(descriptor)
    return shown


def test_a_terminal_shows_a_bar(served: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is done, what failed, how fast it goes and how long it will take; at the end only the summary stays."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    reading = Worker(lambda: read_all(ours))
    with open(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert run(["batch", "in.jsonl", "-o", "out.jsonl"]) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", reading.result().decode())
    assert re.search(r"3/3 0 failed, \d+ a minute, 0 s left", text)
    assert [line.split(": ")[0] for line in text.rstrip().splitlines()[-2:]] == ["tokens", "results"]


class _Terminal(io.StringIO):
    """Stands for a stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("why", ["dumb", "without rich", "with results"])
def test_a_terminal_that_can_not_draw_gets_lines(
    served: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """If it says so, if nothing is there to draw with, or if results go to a terminal as well."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(cli_batch, "_BETWEEN_LINES", 0.0)
    output = "out.jsonl"
    if why == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    elif why == "with results":
        output = "-"
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stdout", _Terminal())
    else:
        monkeypatch.setenv("TERM", "xterm")
        for name in ("rich", "rich.console", "rich.progress"):
            monkeypatch.setitem(sys.modules, name, None)
    assert run(["batch", "in.jsonl", "-o", output, "--workers", "1"]) == 0
    assert "\x1b" not in terminal.getvalue()
    assert "1 of 3 done, 0 failed" in terminal.getvalue()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Results:
    """Stands for a batch of which so much is known."""

    def __init__(self, total: Optional[int] = None, skipped: int = 0, skipped_failures: int = 0) -> None:
        self.total = total
        self.skipped = skipped
        self.skipped_failures = skipped_failures


def tally_of(results: Results, clock: Clock) -> cli_batch.Tally:
    return cli_batch.Tally(results, RateLimiter(clock=clock), clock=clock)  # type: ignore[arg-type]


def test_a_line_comes_every_so_often(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten seconds after the last one, however many results there were."""
    clock = Clock()
    tally = tally_of(Results(total=100, skipped=10), clock)
    show = cli_batch._LineProgress(tally, clock=clock)
    for second in range(1, 26):
        clock.now = second
        tally.count(Result(second, error={}) if second == 3 else Result(second))
        show()
    assert capsys.readouterr().err == (
        "20 of 100 done, 1 failed, 60 a minute, 1 min 20 s left\n"
        "30 of 100 done, 1 failed, 60 a minute, 1 min 10 s left\n"
    )


def test_where_nobody_knows_how_many_there_are_no_end_is_told() -> None:
    """A number that is made up would be worse."""
    clock = Clock()
    tally = tally_of(Results(), clock)
    assert tally.seconds_left is None
    assert tally.line() == "0 done, 0 failed, 0 a minute"
    assert tally_of(Results(total=5), clock).line() == "0 of 5 done, 0 failed, 0 a minute"


def test_the_summary_has_percentiles_and_tokens() -> None:
    """Of the answers alone; where tokens are not told they count as none."""
    clock = Clock()
    tally = tally_of(Results(total=1000, skipped=898), clock)
    for number in range(1, 101):
        tally.count(Result(number, seconds=number / 100, usage=Usage(2, None) if number % 2 else None))
    tally.count(Result("x", seconds=500, error={}))
    clock.now = 5000
    assert (tally.percentile(0.5), tally.percentile(0.95), tally.percentile(1)) == (0.5, 0.95, 1.0)
    assert list(tally.summary("out file.jsonl", ["copilot-sync", "batch", "in", "-o", "out file.jsonl"])) == [
        "answered: 100, failed: 1, done before: 898, in 1 h 23 min",
        "seconds for an answer: p50 0.5, p95 0.95",
        "tokens: 100 in, 0 out",
        "results: out file.jsonl",
        "not done: 1; go on with: copilot-sync batch in -o 'out file.jsonl'",
    ]
    assert tally_of(Results(), clock).percentile(0.5) == 0


def test_failures_of_earlier_runs_are_told_apart() -> None:
    """While it runs they are among those that are done, so they are among those that failed."""
    clock = Clock()
    tally = tally_of(Results(total=10, skipped=8, skipped_failures=2), clock)
    tally.count(Result("x", error={}))
    clock.now = 60
    assert tally.line() == "9 of 10 done, 3 failed, 1 a minute, 1 min 0 s left"
    assert next(iter(tally.summary("-", []))) == "answered: 0, failed: 1, done before: 8 (2 failed), in 1 min 0 s"


@pytest.mark.parametrize("typed", [[], ["--retry-failed"]])
def test_the_next_command_is_what_was_typed(typed: List[str]) -> None:
    """With all of its words, those that are there twice as well, and asks once for what failed."""
    tally = tally_of(Results(), Clock())
    tally.count(Result("x", error={}))
    command = ["copilot-sync", "batch", "-f", "a", "-f", "b", "in", "-o", "out"]
    assert list(tally.summary("out", [*command, *typed]))[-1].endswith(f": {' '.join(command)} --retry-failed")


def test_a_pause_is_shown_while_it_lasts_and_summed_up() -> None:
    """It takes the place of the time that is left. Else what the client waits for does."""
    clock = Clock()
    limiter = RateLimiter(clock=clock)
    waits = ["waiting: another question has to end first", ""]
    results: Any = Results(total=5, skipped=1)
    tally = cli_batch.Tally(results, limiter, waits=lambda: waits[0], clock=clock)
    assert tally.line() == f"1 of 5 done, 0 failed, 0 a minute, {waits[0]}"
    limiter.penalize(60.0)
    clock.now = 15.0
    why = "the service asked to slow down, or failed"
    assert tally.line() == f"1 of 5 done, 0 failed, 0 a minute, waiting 45 s: {why}"
    assert list(tally.summary("-", []))[1:] == [f"pauses: 1, 15 s in all, because {why}", "not done: 4"]


def test_a_bar_shows_a_pause(served: Emulator, folder: Path) -> None:
    """Also if there are no results meanwhile."""
    served.choose_fault = lambda stage, request: Fault.status(429, retry_after=59) if stage == "message" else None
    with Terminal("batch", "in.jsonl", "-o", "out.jsonl", environment={}, columns=120) as terminal:
        terminal.expect("0 failed, 0 a minute, waiting ")
        terminal.expect(" s: ")
        terminal.expect("0 failed, 0 a minute, waiting ")
        terminal.send(CTRL_C)
        assert terminal.status() == 130
        shown = "\n".join(terminal.lines())
    assert "waiting" not in shown
    assert "pauses: 1, " in shown
    assert "not done: 3; go on with: copilot-sync batch in.jsonl -o out.jsonl\n" in f"{shown}\n"


def test_what_is_counted_stays_small() -> None:
    """A million answers take as long as they take."""
    tally = tally_of(Results(), Clock())
    for number in range(50_000):
        tally.count(Result(number, seconds=number / 7919))
    assert len(tally._seconds) < 4000


def test_help_has_a_line_for_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    """With its default, and examples at the end; the program lists the command."""
    assert run(["batch", "--help"]) == 0
    out = capsys.readouterr().out
    for name in cli_batch.batch.params:
        assert name.opts[-1] in out or name.metavar == "IN"
    assert len(re.findall(r"\[default:|\[required\]", re.sub(r"\s+", " ", out))) == 16
    assert "Examples:\n  copilot-sync batch prompts.jsonl -o results.jsonl --rate 20\n" in out.replace("\n    ", "\n  ")
    assert run(["--help"]) == 0
    assert "batch " in capsys.readouterr().out


def test_the_command_line_is_the_library(served: Emulator, folder: Path) -> None:
    """An output that one has begun is finished by the other."""
    fail_on(served, "two", Fault.status(402))
    assert run(["batch", "in.jsonl", "-o", "out.jsonl", "--workers", "1"]) == 1
    served.choose_fault = None
    with batch.read("in.jsonl") as prompts:
        results = batch.run(prompts, output="out.jsonl")
        assert {result.id for result in results} == {"b", 3}
