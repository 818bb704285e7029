"""One batch at a time: the lock on an output, across processes, forks and names."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from journals import failure, journal_of, opened, write
from support import collect_garbage, may_fork, nothing_left_open

from copilot_sync.batch import durable_file
from copilot_sync.batch.durable_file import JournalError
from copilot_sync.batch.results import Result
from copilot_sync.transport import fork


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    with nothing_left_open():
        yield
        collect_garbage()


HOLD = """
import sys
from copilot_sync.batch.journal import Journal
with Journal(sys.argv[1]) as journal:
    print("open", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_elsewhere(output: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that has the output open."""
    arguments = [sys.executable, "-c", HOLD, str(output)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process


def test_two_runs_on_the_same_output_refuse_each_other(output: Path) -> None:
    """In the same process and in another one, through any name of the file; the first one does not notice."""
    link = output.with_name("link.jsonl")
    link.symlink_to(output)
    with held_elsewhere(output):
        for path in (output, link, output.parent / "." / output.name):
            with pytest.raises(JournalError, match="another batch is writing to .*out.jsonl"):
                opened(path)
    with opened(output), pytest.raises(JournalError, match="another batch is writing"):
        opened(output)
    opened(output).close()


def test_the_lock_ends_with_the_process(output: Path) -> None:
    """However it ends."""
    with held_elsewhere(output) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        opened(output).close()


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lose its name between another one's opening and locking it; that one takes the new file."""
    locked: Callable[[int], bool] = durable_file.try_lock
    meanwhile = [lambda: os.unlink(output), lambda: (os.unlink(output), output.touch())]

    def slowly(file: int) -> bool:
        if meanwhile:
            meanwhile.pop()()
        return locked(file)

    monkeypatch.setattr(durable_file, "try_lock", slowly)
    with opened(output):
        assert not meanwhile
        with pytest.raises(JournalError, match="another batch"):
            opened(output)


def test_two_names_of_one_file_have_one_lock(output: Path) -> None:
    """A hard link's journal has another name, and yet they refuse each other; so they do after writing it anew."""
    write(output, Result("a"), failure("b"))
    other = output.with_name("other.jsonl")
    other.hardlink_to(output) if sys.version_info >= (3, 10) else os.link(output, other)
    with held_elsewhere(output):
        with pytest.raises(JournalError, match="another batch is writing to .*other.jsonl"):
            opened(other)
        assert not journal_of(other).exists()
    with opened(output, retry_failed=True), pytest.raises(JournalError, match="another batch"):
        opened(output)


def test_an_output_in_the_place_of_a_removed_one_is_not_begun(output: Path) -> None:
    """Its journal is still somebody's."""
    with held_elsewhere(output):
        output.unlink()
        with pytest.raises(JournalError, match="another batch is writing"):
            opened(output)
        assert not output.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda output: output.unlink(),
        lambda output: output.rename(output.with_name("moved.jsonl")),
        lambda output: output.write_bytes(output.read_bytes() + b"mine\n"),
        lambda output: os.truncate(output, 10),
    ],
    ids=["removed", "moved", "added to", "shortened"],
)
def test_a_file_that_somebody_changes_meanwhile_is_not_written_to(output: Path, change: Callable[[Path], Any]) -> None:
    """The result would be lost, or stand behind half a line; it is looked up by the next run."""
    with opened(output) as journal:
        journal.write([Result("a", "one")])
        change(output)
        before = {path: path.read_bytes() for path in output.parent.iterdir()}
        for _ in range(2):
            with pytest.raises(JournalError, match="was changed, moved or removed by somebody else while a batch was"):
                journal.write([Result("b", "two")])
        assert {path: path.read_bytes() for path in output.parent.iterdir()} == before


def wait_for_word(started: Any, end: Any) -> None:
    started.set()
    end.wait()


@may_fork
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_a_forked_child_does_not_keep_the_lock(output: Path) -> None:
    """A pool's processes may live on when the one who made them was killed."""
    context = multiprocessing.get_context("fork")
    started, end = context.Event(), context.Event()
    with opened(output):
        child = context.Process(target=wait_for_word, args=(started, end))
        child.start()
        assert started.wait(10)
    opened(output).close()
    end.set()
    child.join()
    child.close()


@pytest.mark.usefixtures("registered")
def test_a_child_gives_back_what_it_inherited(output: Path) -> None:
    """Leaving it is not the same as unlocking it."""
    with opened(output) as journal:
        fork._reset_all()
        assert (journal._output._file._descriptor, journal._notes._file._descriptor) == (-1, -1)
        with pytest.raises(JournalError, match="can't be written: Bad file descriptor"):
            journal.write([Result("a")])
