"""Where tokens are kept: the file that only its owner reads, and the choice between caches."""

import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List, Optional

import pytest
from support import may_fork

from copilot_sync import safe_files
from copilot_sync.auth import caches
from copilot_sync.auth.caches import FileCache, cache_of, keep, look_up


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_set_is_got_until_its_time_is_over(tmp_path: Path) -> None:
    """A value lives for its time-out, to the second."""
    clock = Clock()
    cache = FileCache(tmp_path / "tokens.json", now=clock)
    assert cache.get("key") is None
    cache.set("key", "value", 10)
    clock.now += 9.9
    assert cache.get("key") == "value"
    clock.now += 0.1
    assert cache.get("key") is None


def test_the_file_and_its_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    """The file is 0600 and a folder that is made is 0700, whatever the umask."""
    path = tmp_path / "new" / "tokens.json"
    before = os.umask(0)
    try:
        FileCache(path).set("key", "value", 10)
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert os.listdir(path.parent) == ["tokens.json"]


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """As soon as it is read: a backup or an editor may have opened it up."""
    cache = FileCache(tmp_path / "tokens.json")
    cache.set("key", "value", 10)
    (tmp_path / "tokens.json").chmod(0o644)
    assert cache.get("key") == "value"
    assert mode(tmp_path / "tokens.json") == 0o600


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """It may be shared with other programs."""
    tmp_path.chmod(0o755)
    FileCache(tmp_path / "tokens.json").set("key", "value", 10)
    assert mode(tmp_path) == 0o755


def test_entries_stay_side_by_side_and_old_ones_go(tmp_path: Path) -> None:
    """Setting a key keeps the others, but for those whose time is over."""
    clock = Clock()
    path = tmp_path / "tokens.json"
    FileCache(path, now=clock).set("short", "1", 10)
    FileCache(path, now=clock).set("long", "2", 100)
    clock.now += 50
    FileCache(path, now=clock).set("new", "3", 100)
    assert sorted(json.loads(path.read_bytes())) == ["long", "new"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b" \n",
        b"{}",
        b'{"key": {"value": "stale"}}',
        b'{"key": {"value": 5, "until": 9e99}}',
        b'{"key": {"value": "stale", "until": "late"}}',
        b'{"key": {"value": "stale", "until": NaN}}',
    ],
    ids=["empty", "zeros", "blank", "no entries", "no end", "no text", "no time", "no number"],
)
def test_nothing_in_the_file_is_an_empty_cache(tmp_path: Path, content: bytes) -> None:
    """Nor are entries that nobody can use; the next value replaces them."""
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    cache = FileCache(path)
    assert cache.get("key") is None
    cache.set("key", "value", 10)
    assert cache.get("key") == "value"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"not json",
        b"[" * 100_000,
        b'["key"]',
        b'"key"',
        b'{"key": "value"}',
        b'{"key": {"other": "value"}}',
        b'{"key": {"value": "' + b"x" * 1024 * 1024 + b'", "until": 9e99}}',
    ],
    ids=["binary", "text", "nested too deeply", "a list", "a string", "settings", "other objects", "too large"],
)
def test_a_file_of_something_else_is_left_alone(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever named it by mistake still needs it; a warning says what to do, and the cache is empty."""
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    cache = FileCache(path)
    cache.set("key", "planted-value", 10)
    assert cache.get("key") is None
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["tokens.json"]
    assert f"{path} is not a token cache and was left alone: name another file, or remove it" in caplog.text
    assert "planted" not in caplog.text


def test_a_cache_never_outgrows_what_is_read_of_it(tmp_path: Path) -> None:
    """What ends first is left out; a value that is too large for any file is not kept, and nothing else is lost."""
    cache = FileCache(tmp_path / "tokens.json")
    for number in range(5):
        cache.set(str(number), str(number) * 300_000, 1000 + number)
    assert [cache.get(str(number)) is not None for number in range(5)] == [False, False, False, True, True]
    cache.set("large", "x" * 2_000_000, 5000)
    assert cache.get("large") is None
    cache.set("small", "value", 10)
    assert cache.get("small") == "value"


@pytest.mark.parametrize("place", ["file/tokens.json", "folder", "/proc/tokens.json"], ids=["file", "folder", "proc"])
def test_a_file_that_cannot_be_written_is_left(tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
    """Below a file, in a folder's place, in a file system that takes no files: nothing is raised, nothing stays."""
    caplog.set_level("DEBUG")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    cache = FileCache(tmp_path / place)
    cache.set("key", "the value", 10)
    assert cache.get("key") is None
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert "was not written" in caplog.text
    assert "the value" not in caplog.text


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """There may be nobody at its other end, ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    cache = FileCache(path)
    cache.set("key", "value", 60)
    assert cache.get("key") is None
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_link_is_followed(tmp_path: Path) -> None:
    """It stays a link, and the file that it leads to is replaced, or made."""
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "tokens.json"
    link.symlink_to(target)
    cache = FileCache(link)
    for value in ("one", "two"):
        cache.set("key", value, 60)
        assert cache.get("key") == value
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_device_is_left_as_it_is(tmp_path: Path) -> None:
    """Who points the cache at ``/dev/null`` wants nothing kept, and needs the device afterwards."""
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:  # pragma: no cover - only the superuser makes devices
        pytest.skip("devices are for the superuser to make")
    path.chmod(0o666)
    cache = FileCache(path)
    cache.set("key", "value", 10)
    assert cache.get("key") is None
    assert stat.S_ISCHR(path.stat().st_mode)
    assert mode(path) == 0o666


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """Half of a file is never put in the place of a whole one."""
    path = tmp_path / "tokens.json"
    cache = FileCache(path)
    cache.set("key", "old", 10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        cache.set("key", "new" * 1000, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cache.get("key") == "old"
    assert os.listdir(tmp_path) == ["tokens.json"]


def test_nobody_ever_reads_half_a_file(tmp_path: Path) -> None:
    """A reader sees one whole file or the next, while others write."""
    path = tmp_path / "tokens.json"
    FileCache(path).set("key", "0", 100)
    seen: List[Optional[str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(FileCache(path).get("key"))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        FileCache(path).set("key", str(number) * 1000, 100)
    done.set()
    reader.join()
    assert None not in seen


ADD = """
import sys
from copilot_sync import safe_files
from copilot_sync.auth import caches
from copilot_sync.auth.caches import FileCache
cache = FileCache(sys.argv[1])
for number in range(int(sys.argv[3])):
    cache.set(f"{sys.argv[2]}-{number}", "planted-token", 1000)
"""


def adding(path: Path, name: str, count: int) -> "subprocess.Popen[bytes]":
    """Another process that adds entries."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", ADD, str(path), name, str(count)], env=environment)


def test_no_process_and_no_thread_loses_the_entry_of_another(tmp_path: Path) -> None:
    """Each reads what is there and adds to it, one after the other."""
    path = tmp_path / "tokens.json"
    processes = [adding(path, f"process{number}", 25) for number in range(3)]
    threads = [
        threading.Thread(target=lambda name=name: [FileCache(path).set(f"{name}-{n}", "v", 1000) for n in range(25)])
        for name in ("thread0", "thread1")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert len(json.loads(path.read_bytes())) == 5 * 25
    assert os.listdir(tmp_path) == ["tokens.json"]


def test_a_kill_leaves_no_token_behind(tmp_path: Path) -> None:
    """At any moment: the next one who writes removes the temporary file, and what had been kept is there."""
    path = tmp_path / "tokens.json"
    FileCache(path).set("first", "value", 1000)
    for number in range(10):
        process = adding(path, f"killed{number}", 100_000)
        while f"killed{number}-{number}" not in path.read_text():
            assert process.poll() is None
        process.kill()
        process.wait()
        FileCache(path).set("after", "value", 1000)
        assert FileCache(path).get("first") == "value"
        assert os.listdir(tmp_path) == ["tokens.json"]


def test_what_is_not_ours_is_not_removed(tmp_path: Path) -> None:
    """A temporary file of the same cache is a dead process's; of others nobody can say, until they are old."""
    names = {
        ".copilot-sync-tokens.json.0123abcd": False,
        ".copilot-sync-tokens.json.mine": True,
        ".copilot-sync-other.json.0123abcd": True,
        ".copilot-sync-abcd_123": True,
        ".copilot-sync-old_1234": False,
        ".copilot-sync-old_file_of_mine": True,
    }
    for name in names:
        (tmp_path / name).touch()
        if "old" in name:
            os.utime(tmp_path / name, (1, 1))
    (tmp_path / ".copilot-sync-tokens.json.0000beef").mkdir()
    (tmp_path / ".copilot-sync-tokens.json.0000cafe").symlink_to("elsewhere")
    FileCache(tmp_path / "tokens.json").set("key", "value", 10)
    stay = {name for name, stays in names.items() if stays}
    folder = {".copilot-sync-tokens.json.0000beef", ".copilot-sync-tokens.json.0000cafe"}
    assert set(os.listdir(tmp_path)) == {"tokens.json", *stay, *folder}


def test_a_file_of_somebody_else_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that many write to, such as ``/tmp``."""
    left = tmp_path / ".copilot-sync-tokens.json.0123abcd"
    left.touch()
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    FileCache(tmp_path / "tokens.json").set("key", "value", 10)
    assert left.exists()


def test_a_process_that_stands_still_holds_nobody_up_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can't have the lock in time writes without it, and removes nothing that may still be needed."""
    monkeypatch.setattr(caches, "_PATIENCE", 0.05)
    path = tmp_path / "tokens.json"
    left = tmp_path / ".copilot-sync-tokens.json.0123abcd"
    FileCache(path).set("first", "value", 10)
    left.touch()
    with safe_files.locked(str(path), 0) as got:
        assert got
        FileCache(path).set("second", "value", 10)
    assert (FileCache(path).get("first"), FileCache(path).get("second")) == ("value", "value")
    assert left.exists()


def test_the_lock_of_a_file_that_was_replaced_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who waited reads what is there now."""
    path = tmp_path / "tokens.json"
    locked = safe_files.try_lock
    meanwhile = [lambda: FileCache(path).set("other", "value", 10)]

    def slowly(file: int) -> bool:
        if meanwhile:
            meanwhile.pop()()
        return locked(file)

    monkeypatch.setattr(safe_files, "try_lock", slowly)
    FileCache(path).set("key", "value", 10)
    assert (FileCache(path).get("key"), FileCache(path).get("other")) == ("value", "value")


def test_a_file_system_without_locks_has_a_cache_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting."""
    monkeypatch.setattr(caches, "_PATIENCE", 1000)

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(safe_files, "try_lock", fail)
    cache = FileCache(tmp_path / "tokens.json")
    cache.set("key", "value", 10)
    assert cache.get("key") == "value"


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_what_a_signal_handler_raises_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """And no temporary file; the old entries are there, and the next one waits for nobody."""
    path = tmp_path / "tokens.json"
    cache = FileCache(path)
    cache.set("key", "value", 10)

    def interrupt(*arguments: Any) -> None:
        raise TimeLimitError

    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupt)
        with pytest.raises(TimeLimitError):
            cache.set("other", "value", 10)
    assert os.listdir(tmp_path) == ["tokens.json"]
    with safe_files.locked(str(path), 0) as got:
        assert got
    assert cache.get("key") == "value"


@may_fork
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_a_child_that_was_forked_meanwhile_holds_no_lock(tmp_path: Path) -> None:
    """It inherits the open file for as long as it lives; the lock is given back all the same."""
    path = str(tmp_path / "tokens.json")
    context = multiprocessing.get_context("fork")
    end = context.Event()
    with safe_files.locked(path, 0):
        child = context.Process(target=end.wait)
        child.start()
    with safe_files.locked(path, 0) as got:
        assert got
    end.set()
    child.join()
    child.close()


def test_the_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    FileCache("~/tokens.json").set("key", "value", 10)
    assert os.listdir(tmp_path) == ["tokens.json"]


@pytest.mark.parametrize(
    ("value", "variable", "path"),
    [
        (None, None, None),
        (None, "off", None),
        ("", "off", None),
        (None, "/a/variable", "/a/variable"),
        ("", "/a/variable", "/a/variable"),
        ("/an/argument", "/a/variable", "/an/argument"),
        ("/an/argument", "off", "/an/argument"),
        (Path("/an/argument"), None, "/an/argument"),
    ],
)
def test_the_argument_wins_over_the_variable(value: Any, variable: Optional[str], path: Optional[str]) -> None:
    """Without either there is no cache, and ``off`` is none."""
    cache = cache_of(value, variable)
    assert getattr(cache, "path", None) == path


def test_an_object_with_get_and_set_is_taken_as_it_is() -> None:
    """Django's and cachelib's caches do."""
    cache = SimpleNamespace(get=print, set=print)
    assert cache_of(cache, "/a/variable") is cache


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (5, TypeError, "int is neither"),
        (True, TypeError, "bool is neither"),
        (object(), TypeError, "object is neither"),
        ({}, TypeError, "dict is neither"),
        ("a\0b", ValueError, "NUL"),
    ],
)
def test_what_can_be_no_cache_is_told_at_once(value: Any, error: type, words: str) -> None:
    """A dictionary is none either: it can't forget."""
    with pytest.raises(error, match=words):
        cache_of(value, None)


class OutageError(Exception):
    """What the library below a cache raises; Redis's and memcached's errors are of no class that we know either."""


class TimeLimitError(Exception):
    """What a task queue's signal handler raises."""


def failing(error: BaseException) -> Any:
    """A cache that is out of order."""

    def fail(*args: object) -> None:
        raise error

    return SimpleNamespace(get=fail, set=fail)


def use(cache: Any, way: str) -> Any:
    """Ask a cache, or fill it."""
    return look_up(cache, "key") if way == "get" else keep(cache, "key", "planted-value", 10)


ways = pytest.mark.parametrize("way", ["get", "set"])


@ways
@pytest.mark.parametrize(
    "error", [OutageError("redis://:planted@host"), ConnectionError("planted"), TypeError()], ids=repr
)
def test_a_cache_that_is_out_of_order_is_done_without(
    way: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failure is one warning, which has its type and none of its words."""
    assert use(failing(error), way) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert type(error).__name__ in caplog.text
    assert "planted" not in caplog.text


@ways
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_error_passes_through_a_cache(way: str, error: Any) -> None:
    """Ctrl-C ends the call, wherever it comes."""
    with pytest.raises(error):
        use(failing(error()), way)


@ways
@pytest.mark.parametrize("method", [False, True], ids=["function", "method"])
def test_a_time_limit_passes_through_a_cache(way: str, method: bool) -> None:
    """A signal handler raised it: it is no failure of the cache that was at work at that moment."""

    class Queue:
        def expire(self, *args: object) -> None:
            raise TimeLimitError

    def expire(*args: object) -> None:
        raise TimeLimitError

    def work(*args: object) -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, Queue().expire if method else expire)
    try:
        with pytest.raises(TimeLimitError):
            use(SimpleNamespace(get=work, set=work), way)
    finally:
        signal.signal(signal.SIGUSR1, before)
