"""The ledger: one entry for each call, with nothing of what was said, whatever happens to files and disks."""

import asyncio
import datetime
import logging
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from driven import DRIVERS
from support import PATIENCE, Worker, wait_for, wait_until

from copilot_sync import AsyncClient, Client, CopilotError, Ledger, LedgerEntry, LedgerError, LedgerUsage, batch
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.ledger import sqlite_ledger
from copilot_sync.ledger.recorder import Recorder

UTC = datetime.timezone.utc
#: The first of November 2026, in seconds since 1970.
NOVEMBER = 1793491200.0
DAY = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "ledger.sqlite3"


def keeping(path: "os.PathLike[str]") -> Ledger:
    """A ledger that keeps the calls of November 2026, however long ago that is."""
    return Ledger(path, keep_days=None)


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return keeping(path)


@pytest.fixture
def client(emulator: Emulator, ledger: Ledger) -> Iterator[Client]:
    with Client(emulator.api_key, api_url=emulator.api_url, retry=None, ledger=ledger) as client:
        yield client


def entry(days: float = 0.0, **fields: Any) -> LedgerEntry:
    """A call of November 2026."""
    return LedgerEntry(datetime.datetime.fromtimestamp(NOVEMBER + days * DAY, UTC), **{"model": "auto", **fields})


def run(code: str, *arguments: object, **environment: str) -> str:
    """Run a program, and return what it printed."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env=variables,
        timeout=60,
        check=True,
    )
    return done.stdout.decode()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_call_has_an_entry(driver: str, client: Client, ledger: Ledger) -> None:
    """However its answer is read."""
    before = datetime.datetime.now(UTC)
    DRIVERS[driver](client.stream("Hi", model="o1-mini", label="nightly", user="ann"), [])
    (found,) = ledger.entries()
    assert before <= found.began_at <= datetime.datetime.now(UTC)
    assert 0 < found.seconds < PATIENCE
    assert (found.model, found.answered_model) == ("o1-mini", "o1-mini")
    assert (found.label, found.user, found.outcome, found.attempts) == ("nightly", "ann", "answered", 1)
    assert (found.input_tokens, found.output_tokens) == (1, 1)


def test_every_kind_of_question_has_an_entry(client: Client, ledger: Ledger, emulator: Emulator) -> None:
    """Chats, batches and the client for asyncio."""

    async def ask() -> None:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url, ledger=ledger) as other:
            await other.ask("Hi", label="loop")
        assert [found.label for found in ledger.entries(label="loop")] == ["loop"]

    chat = client.chat()
    chat.ask("Hi", label="chat")
    chat.ask("Hi", label="chat")
    assert len(list(batch.run(["Hi", "Ho"], client=client))) == 2
    asyncio.run(ask())
    found = list(ledger.entries())
    assert sorted(each.label for each in found) == ["", "", "chat", "chat", "loop"]
    chats = {each.conversation_id for each in found if each.label == "chat"}
    assert chats == {chat.conversation.conversation_id}  # type: ignore[union-attr]


def test_nothing_of_what_was_said_is_in_the_file(client: Client, ledger: Ledger, emulator: Emulator) -> None:
    """Nor the key."""
    emulator.script(Reply("an answer to find"))
    client.ask("a question to find", system="instructions to find")
    emulator.fail("message", Fault.status(500, message="words to find"))
    with pytest.raises(CopilotError):
        client.ask("another to find")
    ledger.flush()
    content = b"".join(each.read_bytes() for each in Path(ledger.path).parent.iterdir())
    assert len(list(ledger.entries())) == 2
    assert b"to find" not in content
    assert emulator.api_key.encode() not in content


def fails(emulator: Emulator, client: Client) -> None:
    emulator.fail("message", Fault.status(400))
    with pytest.raises(CopilotError):
        client.ask("Hi")


def ends_early(emulator: Emulator, client: Client) -> None:
    emulator.script(Reply(["half"], complete=False))
    client.ask("Hi", resume=False)


def is_left(emulator: Emulator, client: Client) -> None:
    with client.stream("one two") as stream:
        next(stream)


def is_closed_elsewhere(emulator: Emulator, client: Client) -> None:
    asked = threading.Event()

    def pieces(prompt: str) -> Iterator[str]:
        yield "one "
        asked.set()
        closed.wait(PATIENCE)

    closed = threading.Event()
    emulator.reply = Reply(pieces)
    stream = client.stream("Hi")
    reader = Worker(stream.read)
    wait_for(asked)
    stream.close()
    closed.set()
    with pytest.raises(CopilotError):
        reader.result()


def closes_unasked(emulator: Emulator, client: Client) -> None:
    with client.stream("one two") as stream:
        stream.start()
    client.ask("Hi", model="o1-mini")


def has_no_key(emulator: Emulator, client: Client) -> None:
    emulator.fail("thread", Fault.status(401), Fault.status(401))
    with pytest.raises(CopilotError):
        client.ask("Hi")


@pytest.mark.parametrize(
    "act, outcome, attempts",
    [
        (fails, "InvalidRequestError", 1),
        (ends_early, "incomplete", 1),
        (is_left, "closed", 1),
        (is_closed_elsewhere, "closed", 1),
        (closes_unasked, "answered", 1),
        (has_no_key, "AuthenticationError", 0),
    ],
)
def test_an_entry_says_how_a_call_ended(
    act: Callable[[Emulator, Client], None],
    outcome: str,
    attempts: int,
    client: Client,
    ledger: Ledger,
    emulator: Emulator,
) -> None:
    """One that has asked nothing has none. Without an answer nobody has counted tokens."""
    act(emulator, client)
    wait_until(lambda: bool(list(ledger.entries())))
    (found,) = ledger.entries()
    assert (found.outcome, found.attempts) == (outcome, attempts)
    assert (found.input_tokens is None) == (outcome != "answered")
    assert bool(found.conversation_id) == (attempts > 0 and outcome != "InvalidRequestError")


def test_attempts_are_counted(emulator: Emulator, ledger: Ledger) -> None:
    """Each message that was sent."""
    emulator.fail("message", Fault.status(429, retry_after=0))
    with Client(emulator.api_key, api_url=emulator.api_url, ledger=ledger) as client:
        client.ask("Hi")
    assert [found.attempts for found in ledger.entries()] == [2]


@pytest.mark.parametrize("counts", [{"inputTokens": -1, "outputTokens": 10**30}, {}], ids=repr)
def test_what_can_be_no_number_of_tokens_is_unknown(
    counts: Dict[str, int], client: Client, ledger: Ledger, emulator: Emulator
) -> None:
    """Sums stay sums."""
    emulator.reply = Reply("Hi", usage=counts)
    client.ask("Hi", label="\ud800" + "x" * 1000)
    (found,) = ledger.entries()
    assert (found.input_tokens, found.output_tokens) == (None, None)
    assert found.label == "\ufffd" + "x" * 199
    assert ledger.usage()[0].output_tokens == 0


def test_without_a_ledger_nothing_is_written(emulator: Emulator) -> None:
    """It is off, if nobody wants it."""
    with Client(emulator.api_key, api_url=emulator.api_url) as client:
        client.ask("Hi")
    assert not os.path.exists(Ledger().path)
    assert Ledger().usage() == []
    assert list(Ledger().entries()) == []


def ledger_in(client: Client) -> Any:
    """The ledger of a client; ``None`` if it has none."""
    return next((guard for guard in client._options.guards if isinstance(guard, Recorder)), None)


@pytest.mark.parametrize(
    "argument, variable, name",
    [
        (None, None, None),
        (None, "off", None),
        (None, "there", "there"),
        (False, "there", None),
        ("here", "there", "here"),
        (Path("here"), "off", "here"),
    ],
)
def test_a_ledger_is_named_by_the_argument_or_the_environment(
    argument: Any, variable: Optional[str], name: Optional[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order. It is off by default."""
    monkeypatch.chdir(tmp_path)
    if variable is not None:
        monkeypatch.setenv("COPILOT_SYNC_LEDGER", variable)
    found: Any = ledger_in(Client("key", ledger=argument))
    assert (None if found is None else found.path) == (None if name is None else str(tmp_path / name))


def test_a_ledger_is_in_the_state_folder_by_default() -> None:
    """As ``True`` says."""
    found: Any = ledger_in(Client("key", ledger=True))
    assert found.path == os.path.join(os.environ["XDG_STATE_HOME"], "copilot-sync", "ledger.sqlite3")
    assert repr(found) == f"<Ledger {found.path}>"


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Client("key", ledger=5), "ledger must be a Ledger, a path, True or None, not int"),
        (lambda: Ledger(keep_days="1"), "keep_days must be a number or None, not str"),
        (lambda: Ledger(keep_days=True), "keep_days must be a number or None, not bool"),
        (lambda: Ledger(keep_days=0), "keep_days must be above zero, not 0"),
        (lambda: Ledger("a\0b"), "ledger must be a path, and no path holds a NUL character"),
        (lambda: Ledger().entries(since="today"), "since must be a datetime, a date or seconds since 1970, not str"),
        (lambda: Ledger().entries(until=True), "until must be a datetime, a date or seconds since 1970, not bool"),
        (lambda: Ledger().usage("hour"), "by must be one of day, model, label, user, not 'hour'"),
    ],
)
def test_wrong_arguments_are_told(make: Callable[[], object], words: str) -> None:
    """By name."""
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert str(caught.value) == words


def test_the_file_is_its_owners_alone(ledger: Ledger, path: Path) -> None:
    """And so is its folder, if it is new."""
    ledger.write([entry()])
    with sqlite3.connect(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        ledger_files = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    connection.close()
    assert set(ledger_files.values()) == {0o600}
    assert "ledger.sqlite3-wal" in ledger_files
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


MANY = [
    entry(0.0, model="a", label="x", user="ann", input_tokens=1, output_tokens=10, seconds=0.5),
    entry(0.5, model="a", answered_model="b", label="y", user="ann", input_tokens=2, output_tokens=20, seconds=1.0),
    entry(1.0, model="c", answered_model="b", user="bob", outcome="incomplete", seconds=2.0, conversation_id="1"),
    entry(1.5, model="c", user="bob", outcome="RateLimitError", seconds=4.0, attempts=4),
    entry(2.5, model="c", outcome="closed", seconds=8.0),
]


def test_entries_are_returned_as_they_were_written(ledger: Ledger) -> None:
    """The oldest first, whenever they were written."""
    ledger.write(MANY[3:])
    ledger.write(MANY[:3])
    assert list(ledger.entries()) == MANY


@pytest.mark.parametrize(
    "condition, numbers",
    [
        ({"since": NOVEMBER + DAY}, [2, 3, 4]),
        ({"until": NOVEMBER + DAY}, [0, 1]),
        ({"since": datetime.date(2026, 11, 2), "until": datetime.date(2026, 11, 3)}, [2, 3]),
        ({"since": datetime.datetime(2026, 11, 2, 12)}, [3, 4]),  # noqa: DTZ001 - it is in UTC
        ({"since": datetime.datetime(2026, 11, 2, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))}, [3, 4]),
        ({"label": "x"}, [0]),
        ({"label": ""}, [2, 3, 4]),
        ({"user": "ann", "model": "b"}, [1]),
        ({"model": "a"}, [0, 1]),
        ({"model": "b"}, [1, 2]),
        ({"outcome": "closed"}, [4]),
        ({"outcome": "'; DROP TABLE calls"}, []),
    ],
)
def test_entries_can_be_chosen(condition: Dict[str, Any], numbers: List[int], ledger: Ledger) -> None:
    """By each of their conditions, and by several."""
    ledger.write(MANY)
    assert list(ledger.entries(**condition)) == [MANY[number] for number in numbers]


@pytest.mark.parametrize(
    "by, rows",
    [
        (
            "day",
            [
                LedgerUsage("2026-11-01", 2, 2, 0, 3, 30, 1.5),
                LedgerUsage("2026-11-02", 2, 1, 1, 0, 0, 6.0),
                LedgerUsage("2026-11-03", 1, 0, 0, 0, 0, 8.0),
            ],
        ),
        (
            "model",
            [
                LedgerUsage("b", 2, 2, 0, 2, 20, 3.0),
                LedgerUsage("c", 2, 0, 1, 0, 0, 12.0),
                LedgerUsage("a", 1, 1, 0, 1, 10, 0.5),
            ],
        ),
        (
            "label",
            [
                LedgerUsage("", 3, 1, 1, 0, 0, 14.0),
                LedgerUsage("x", 1, 1, 0, 1, 10, 0.5),
                LedgerUsage("y", 1, 1, 0, 2, 20, 1.0),
            ],
        ),
        (
            "user",
            [
                LedgerUsage("ann", 2, 2, 0, 3, 30, 1.5),
                LedgerUsage("bob", 2, 1, 1, 0, 0, 6.0),
                LedgerUsage("", 1, 0, 0, 0, 0, 8.0),
            ],
        ),
    ],
)
def test_calls_are_added_up(by: str, rows: List[LedgerUsage], ledger: Ledger) -> None:
    """By what they have in common."""
    ledger.write(MANY)
    assert ledger.usage(by) == rows
    assert ledger.usage(by, since=NOVEMBER + 5 * DAY) == []


def test_an_entry_is_json() -> None:
    """With its time in ISO 8601."""
    data = entry(0.5, label="x").to_dict()
    assert data["began_at"] == "2026-11-01T12:00:00.000Z"
    assert data["label"] == "x"
    assert list(data) == list(sqlite_ledger._COLUMNS)


@pytest.mark.parametrize("keep_days, left", [(400, 3), (2.0, 2), (None, 4)])
def test_old_entries_are_deleted(keep_days: Optional[float], left: int, path: Path) -> None:
    """When the next is written, and when a day's worth of them is too old."""
    ledger = Ledger(path, keep_days=keep_days, now=lambda: NOVEMBER)
    ledger.write([entry(-500), entry(-3.5), entry(-1), entry()])
    assert len(list(ledger.entries())) == left


def test_old_entries_are_deleted_once_a_day(path: Path) -> None:
    """Not with each call."""
    now = [NOVEMBER]
    ledger = Ledger(path, keep_days=10, now=lambda: now[0])
    ledger.write([entry(day / 4) for day in range(8)])
    seen: List[int] = []
    for hour in range(0, 73, 6):
        now[0] = NOVEMBER + 10 * DAY + hour * 3600
        ledger.write([entry(10)])
        seen.append(len(list(ledger.entries(until=NOVEMBER + 9 * DAY))))
    assert seen == [8, 8, 8, 8, 8, 3, 3, 3, 3, 3, 0, 0, 0]


def test_a_clock_that_is_set_back_does_no_harm(emulator: Emulator, path: Path) -> None:
    """The seconds of a call are of another clock."""
    times = iter([NOVEMBER, NOVEMBER, NOVEMBER - DAY, NOVEMBER - DAY])
    ledger = Ledger(path, now=lambda: next(times))
    with Client(emulator.api_key, api_url=emulator.api_url, ledger=ledger) as client:
        for label in "ab":
            client.ask("Hi", label=label)
            ledger.flush()
    assert [found.label for found in ledger.entries()] == ["b", "a"]
    assert all(found.seconds < PATIENCE for found in ledger.entries())


def test_a_ledger_and_its_client_pickle(client: Client, ledger: Ledger, path: Path) -> None:
    """For ``spawn``. What waits to be written stays here."""
    assert isinstance(pickle.loads(pickle.dumps(client)), Client)
    pickle.loads(pickle.dumps(client)).ask("Hi")
    other = pickle.loads(pickle.dumps(Ledger(path, keep_days=3)))
    assert (other.path, other._keep_days) == (str(path), 3)
    wait_until(lambda: len(list(ledger.entries())) == 1)


def test_threads_and_ledgers_write_at_the_same_time(path: Path) -> None:
    """The file is new for all of them. No entry is lost."""
    together = threading.Barrier(8)

    def write(number: int) -> None:
        ledger = keeping(path)
        together.wait(PATIENCE)
        for _ in range(10):
            ledger.write([entry(number)])

    workers = [Worker(lambda number=number: write(number)) for number in range(8)]  # type: ignore[misc]
    for worker in workers:
        worker.result()
    assert [row.calls for row in Ledger(path).usage()] == [10] * 8


def test_whoever_reads_holds_nobody_up(ledger: Ledger, path: Path) -> None:
    """An iteration sees what was there when it began."""
    ledger.write(MANY)
    entries = ledger.entries()
    next(entries)
    ledger.write([entry(30)])
    assert len(list(entries)) == len(MANY) - 1
    unread = ledger.entries()
    next(unread)
    assert Worker(unread.close).result() is None  # type: ignore[attr-defined]


FULL = """
import resource, sys
from copilot_sync import Client, Ledger
ledger = Ledger(sys.argv[1])
client = Client(ledger=ledger)
client.ask("Hi")
ledger.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if len(sys.argv) > 2 else 4096, -1))
for _ in range(3):
    print(client.ask("Hi").text)
client.close()
"""


def test_a_full_disk_is_done_without(served: Emulator, path: Path) -> None:
    """Calls are answered, what was written stays, and the next process writes again."""
    assert run(FULL, path) == "Hi\n" * 3
    assert len(list(Ledger(path).entries())) == 1
    assert run(FULL, path, "roomy") == "Hi\n" * 3
    assert len(list(Ledger(path).entries())) == 5


READ_ONLY = """
import os, sqlite3, sys
from copilot_sync import Client, Ledger
with Client() as client:
    client.ask("Hi")  # what may be read by the superuser alone is loaded now
if os.geteuid() == 0:
    os.setuid(65534)
ledger = Ledger(sys.argv[1])
with Client(ledger=ledger) as client:
    print(client.ask("Hi").text)
print(len(list(ledger.entries())))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter. pytest closes its own, and closes them again for each run that begins."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_read_only_folder_is_done_without(served: Emulator, open_folder: Path) -> None:
    """What stands there can still be read."""
    folder = open_folder / "fixed"
    ledger = keeping(folder / "ledger.sqlite3")
    ledger.write(MANY)
    os.chmod(ledger.path, 0o444)
    folder.chmod(0o555)
    try:
        assert run(READ_ONLY, ledger.path) == "Hi\n5\n"
        assert run(READ_ONLY, folder / "missing" / "ledger.sqlite3") == "Hi\n0\n"
    finally:
        folder.chmod(0o755)


def a_text(path: Path) -> None:
    path.write_text("notes\n" * 1000)


def another_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE calls (began_at)")
    connection.close()


def a_later_ledger(path: Path) -> None:
    keeping(path).write([entry()])
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()


def a_damaged_ledger(path: Path) -> None:
    keeping(path).write([entry()] * 100)
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 5000)


NO_LEDGERS = [
    (a_text, "can't be read as a ledger: file is not a database"),
    (another_database, "is not a ledger, and is left as it is: name another file"),
    (a_later_ledger, "was written by a later version of copilot_sync: update it, or name another file"),
    (a_damaged_ledger, "can't be read as a ledger: database disk image is malformed"),
    (os.mkdir, "is not a ledger, and is left as it is: name another file"),
    (os.mkfifo, "is not a ledger, and is left as it is: name another file"),
]


@pytest.mark.parametrize("make, words", NO_LEDGERS)
def test_what_is_no_ledger_is_left_as_it_is(
    make: Callable[[Path], object],
    words: str,
    emulator: Emulator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever reads it is told, and calls are answered: the log says so once."""
    path = tmp_path / "ledger.sqlite3"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with Client(emulator.api_key, api_url=emulator.api_url, ledger=path) as client:
        client.ask("Hi")
        client.close()
        client.ask("Hi")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("the ledger can't be written and is done without: ")
    with pytest.raises((LedgerError, sqlite3.Error)):
        keeping(path).write([entry()])
    for read in (lambda: list(Ledger(path).entries()), Ledger(path).usage):
        with pytest.raises(LedgerError) as caught:
            read()
        assert str(caught.value) == f"{path} {words}"
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert os.listdir(tmp_path) == ["ledger.sqlite3"]


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    """As what a program leaves that was killed before it wrote anything."""
    path.parent.mkdir()
    path.touch()
    assert list(Ledger(path).entries()) == []
    keeping(path).write([entry()])
    assert list(Ledger(path).entries()) == [entry()]


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    """It is no address."""
    ledger = keeping(tmp_path / "a ?mode=memory#é%41")
    ledger.write([entry()])
    assert list(ledger.entries()) == [entry()]
    assert os.path.exists(ledger.path)


def test_without_sqlite_calls_are_answered(
    client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some Pythons are built without it."""
    ledger.write([entry()])
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    client.ask("Hi")
    client.close()
    assert "done without: ModuleNotFoundError" in caplog.text
    with pytest.raises(LedgerError, match="this Python has no sqlite3"):
        list(ledger.entries())


def test_whoever_writes_a_new_file_waits_for_another(path: Path) -> None:
    """SQLite itself would not, because both switch to WAL."""
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    writer = Worker(lambda: keeping(path).write([entry()]))
    assert not writer.ended_within(0.2)
    other.execute("ROLLBACK")
    other.close()
    writer.result()
    assert list(Ledger(path).entries()) == [entry()]


def test_nobody_waits_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped may hold the file."""
    monkeypatch.setattr(sqlite_ledger, "_PATIENCE", 0.0)
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        keeping(path).write([entry()])
    other.close()
