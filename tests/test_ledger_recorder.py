"""The thread that writes the ledger: no call waits for it, and processes that fork or end lose nothing."""

import _thread
import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Any, List, Sequence

import pytest
from support import PATIENCE, Worker, fork, may_fork, nothing_left_open, wait_for, wait_until

from copilot_sync import AsyncClient, Client, Ledger, LedgerEntry
from copilot_sync.emulator import Emulator
from copilot_sync.ledger import recorder as recording
from copilot_sync.ledger.recorder import Recorder

#: Without the GIL, Python itself is no safe place to fork in while there are threads, such as an emulator's.
METHODS = ["spawn"] if sysconfig.get_config_var("Py_GIL_DISABLED") else ["fork", "spawn"]


class Kept(Recorder):
    """Keeps entries in memory, and may be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: List[int] = []
        self.labels: List[str] = []
        self.writes, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def write(self, entries: Sequence[LedgerEntry]) -> None:
        self.writes.set()
        self.may_go_on.wait(PATIENCE)
        self.batches.append(len(entries))
        self.labels += [entry.label for entry in entries]


def asking(emulator: Emulator, recorder: Any) -> Client:
    return Client(emulator.api_key, api_url=emulator.api_url, ledger=recorder)


def ask_unclosed(environment: Any, path: str, count: int) -> None:
    """What a worker of ``multiprocessing`` does, which closes nothing."""
    client = Client(environment["COPILOT_SYNC_API_KEY"], api_url=environment["COPILOT_SYNC_API_URL"], ledger=path)
    for _ in range(count):
        client.ask("Hi", label=str(os.getpid()))


def environment_of(emulator: Emulator) -> Any:
    return {"COPILOT_SYNC_API_KEY": emulator.api_key, "COPILOT_SYNC_API_URL": emulator.api_url}


def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread start, as at the end of an interpreter."""

    def start(*arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", start)


@pytest.mark.parametrize("has_threads", [True, False])
def test_a_recorder_has_to_say_where_it_writes(
    has_threads: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no default. What is raised is logged by its type, once."""
    if not has_threads:
        refuse_threads(monkeypatch)
    recorder = Recorder()
    with asking(emulator, recorder) as client:
        for _ in range(3):
            client.ask("Hi")
            recorder.flush()
    assert caplog.messages == ["the ledger can't be written and is done without: NotImplementedError"]


def test_a_thread_that_can_not_start_another_writes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits in vain."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    seen: List[str] = []
    recording._start_and_end(seen.append, ("written",))
    assert seen == ["written"]


def test_one_thread_writes_all_that_waits(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes too late finds nothing, and one that comes too soon waits for nobody."""
    threads: List[Any] = []
    monkeypatch.setattr(_thread, "start_new_thread", lambda _, arguments: threads.append(arguments[0]))
    recorder = Kept()
    client = asking(emulator, recorder)
    for label in "ab":
        client.ask("Hi", label=label)
    first, second = threads
    assert recorder.try_to_hold()
    first()
    assert recorder.batches == []
    recorder.release()
    second()
    first()
    assert recorder.batches == [2]
    assert len(threads) == 3  # whoever releases the lock looks at what waits
    client.close()


def test_a_call_does_not_wait_for_the_ledger(emulator: Emulator) -> None:
    """What has ended meanwhile is written at once. ``close`` waits for it."""
    recorder = Kept()
    recorder.may_go_on.clear()
    with nothing_left_open(), asking(emulator, recorder) as client:
        client.ask("Hi", label="first")
        wait_for(recorder.writes)
        for _ in range(4):
            client.ask("Hi")
        assert recorder.batches == []
        closing = Worker(client.close)
        assert not closing.ended_within(0.1)
        recorder.may_go_on.set()
        closing.result()
        assert recorder.batches == [1, 4]


def test_an_event_loop_does_not_wait_for_the_ledger(emulator: Emulator) -> None:
    """``close`` waits for nothing, and ``aclose`` lets others go on."""
    recorder = Kept()
    recorder.may_go_on.clear()

    async def main() -> None:
        client = AsyncClient(emulator.api_key, api_url=emulator.api_url, ledger=recorder)
        await client.ask("Hi", label="first")
        await client.ask("Hi", label="second")
        client.close()
        assert recorder.labels == []
        closing = asyncio.ensure_future(client.aclose())
        await asyncio.sleep(0)
        recorder.may_go_on.set()
        await closing
        assert recorder.labels == ["first", "second"]

    asyncio.run(main())


def test_a_ledger_that_takes_too_long_holds_nobody_up_for_ever(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ``close`` nor the thread that it has started."""
    monkeypatch.setattr(recording, "_PATIENCE", 0.01)
    recorder = Kept()
    recorder.may_go_on.clear()
    with asking(emulator, recorder) as client:
        client.ask("Hi")
        wait_for(recorder.writes)
        client.close()
        assert recorder.batches == []
        done = threading.Lock()
        done.acquire()
        recorder._write_all(done)
        assert not done.locked()
        recorder.may_go_on.set()
        wait_until(lambda: recorder.batches == [1])


def test_what_waits_has_a_bound(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left out is logged once."""
    monkeypatch.setattr(recording, "MOST_WAITING", 2)
    recorder = Kept()
    recorder.may_go_on.clear()
    with asking(emulator, recorder) as client:
        client.ask("Hi", label="written")
        wait_for(recorder.writes)
        for label in "abcd":
            client.ask("Hi", label=label)
        recorder.may_go_on.set()
    assert recorder.labels == ["written", "a", "b"]
    assert caplog.messages == ["the ledger is written too slowly: calls are left out of it"]


def test_without_another_thread_it_is_written_by_whoever_waits(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of an interpreter there are none."""
    refuse_threads(monkeypatch)
    recorder = Kept()
    with asking(emulator, recorder) as client:
        client.ask("Hi", label="a")
        assert recorder.labels == []
    assert recorder.labels == ["a"]


def ended(client: Client) -> Any:
    """How a call ended."""
    from copilot_sync.delivery.guards import CallEnd

    stream = client.stream("Hi", label="b")
    stream._call.attempts["message"] = 1
    return CallEnd(stream._message, stream._call, stream._builder, None)


def test_a_fork_waits_for_the_thread_that_writes(emulator: Emulator) -> None:
    """A child would inherit the locks of SQLite as that thread held them. What ends meanwhile is written afterwards."""
    recorder = Kept()
    recorder.may_go_on.clear()
    with asking(emulator, recorder) as client:
        client.ask("Hi", label="before")
        wait_for(recorder.writes)
        end = ended(client)
        holding = Worker(recording._hold_all)
        assert not holding.ended_within(0.1)
        recorder.may_go_on.set()
        holding.result()
        recorder._leave(0.0, 0.0, end)
        assert recorder.labels == ["before"]
        (held,) = recording._held.values()
        assert recorder in held
        recording._held[threading.get_ident()] = recording._held.popitem()[1]
        recording._release_all()
        wait_until(lambda: recorder.labels == ["before", "b"])


@may_fork
def test_a_child_writes_what_it_asked_and_no_more(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in the parent is the parent's. A fork does not wait for ever."""
    monkeypatch.setattr(recording, "_FORK_PATIENCE", 0.05)
    path = tmp_path / "ledger.sqlite3"
    ledger, other = Ledger(path), Kept()
    other.may_go_on.clear()
    with asking(emulator, ledger) as client, asking(emulator, other) as second:
        client.ask("Hi", label="parent")
        second.ask("Hi", label="held")
        wait_for(other.writes)
        second.ask("Hi", label="waits")
        child = fork()
        if child == 0:  # pragma: no cover - in the child
            other.may_go_on.set()
            client.ask("Hi", label="child")
            client.close()
            second.close()
            os._exit(len(other.labels))
        assert os.waitpid(child, 0)[1] == 0
        other.may_go_on.set()
    assert sorted(entry.label for entry in ledger.entries()) == ["child", "parent"]
    assert other.labels == ["held", "waits"]


@may_fork
@pytest.mark.parametrize("method", METHODS)
def test_processes_write_at_the_same_time(method: str, emulator: Emulator, tmp_path: Path) -> None:
    """The file is new for all of them. Nothing is lost, though they close nothing."""
    context: Any = multiprocessing.get_context(method)
    path = str(tmp_path / "new" / "ledger.sqlite3")
    work = [context.Process(target=ask_unclosed, args=(environment_of(emulator), path, 5)) for _ in range(4)]
    for process in work:
        process.start()
    for process in work:
        process.join(PATIENCE * 3)
        assert process.exitcode == 0
    assert [row.calls for row in Ledger(path).usage("label")] == [5] * 4


UNCLOSED = """
import atexit, sys
from copilot_sync import Client
client = Client(ledger=sys.argv[1])
atexit.register(lambda: client.ask("Hi", label="at the end"))
client.ask("Hi", label="before")
"""


def test_the_end_of_a_program_waits_for_the_ledger(served: Emulator, tmp_path: Path) -> None:
    """Nothing is lost, though it closes nothing."""
    path = tmp_path / "ledger.sqlite3"
    subprocess.run([sys.executable, "-W", "error", "-c", UNCLOSED, str(path)], timeout=60, check=True)
    assert [entry.label for entry in Ledger(path).entries()] == ["before", "at the end"]


KILLED = """
import sys
from datetime import datetime, timezone
from copilot_sync import Ledger, LedgerEntry
ledger = Ledger(sys.argv[1])
for number in range(1_000_000):
    ledger.write([LedgerEntry(datetime.fromtimestamp(number, timezone.utc), "auto")] * 10)
    print(number + 1, flush=True)
"""


@pytest.mark.parametrize("rounds", [1, 20, 57])
def test_a_process_that_is_killed_leaves_whole_entries(rounds: int, tmp_path: Path) -> None:
    """All that were written, and the next process goes on."""
    path = tmp_path / "ledger.sqlite3"
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED.replace("Ledger(sys.argv[1])", "Ledger(sys.argv[1], keep_days=None)"), str(path)],
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(rounds)]
    os.kill(writer.pid, signal.SIGKILL)
    with writer.stdout as rest:  # ``communicate`` would pass over what has been buffered
        written = len(lines) + len(rest.readlines())
    writer.wait(PATIENCE)
    ledger = Ledger(path, keep_days=None)
    assert len(list(ledger.entries())) in (10 * written, 10 * written + 10)
    ledger.write([LedgerEntry(next(ledger.entries()).began_at, "auto")])
    assert len(list(ledger.entries())) % 10 == 1


def test_the_end_of_a_process_writes_what_waits_in_all_ledgers(emulator: Emulator) -> None:
    """Python calls this then."""
    kept = [Kept(), Kept()]
    clients = [asking(emulator, each) for each in kept]
    for client in clients:
        client.ask("Hi", label="here")
    recording.flush_all()
    assert [each.labels for each in kept] == [["here"], ["here"]]
    for client in clients:
        client.close()
