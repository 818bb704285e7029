"""Where the state of an account's limits is kept: one after the other gets in, whoever else wants to."""

import json
import math
import multiprocessing
import os
import signal
import stat
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest
from support import PATIENCE, Worker, fork, may_fork, wait_until

from copilot_sync.pacing import redis_state, shared_state
from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.redis_state import RedisStore
from copilot_sync.pacing.shared_state import (
    CacheStore,
    FolderStore,
    MemoryStore,
    SteadyClock,
    Store,
    StoreError,
)
from copilot_sync.pacing.stores import store_of
from copilot_sync.safe_files import locked

ONE = RateRules(concurrency=1)
MANY = RateRules(per_minute=50)


class Cache:
    """A cache as that of Django on memcached: ``add`` excludes others."""

    def __init__(self) -> None:
        self.kept: Dict[str, str] = {}
        self.lock = threading.Lock()

    def get(self, key: str) -> Optional[str]:
        return self.kept.get(key)

    def set(self, key: str, value: str, timeout: int) -> None:
        self.kept[key] = value

    def add(self, key: str, value: str, timeout: int) -> bool:
        with self.lock:
            return self.kept.setdefault(key, value) is value

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)


def stores(folder: Path) -> Dict[str, Callable[[], Store]]:
    return {"memory": MemoryStore, "file": lambda: FolderStore(folder / "limits"), "cache": lambda: CacheStore(Cache())}


@pytest.fixture(params=["memory", "file", "cache"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return stores(tmp_path)[request.param]()


def test_it_keeps_what_was_done(store: Store) -> None:
    """For each account by itself."""
    assert store.apply("a", "admit", ONE, "s1") == 0
    assert store.apply("a", "admit", ONE, "s2") == math.inf
    assert store.apply("b", "admit", ONE, "s2") == 0
    assert store.apply("a", "renew", ONE, "s1") == 0
    assert store.apply("a", "leave", ONE, "s1") == 0
    assert store.apply("a", "admit", ONE, "s2") == 0
    assert store.apply("a", "look", ONE) == 0
    assert store.apply("a", "turn", ONE) == 0
    assert store.apply("c", "spent", ONE) == 0
    assert store.apply("c", "spend", ONE, number=3) == 0
    assert store.apply("c", "spend", RateRules(per_day=3), number=1) > 0
    assert store.apply("c", "spent", ONE) == 3
    assert store.apply("a", "pause", ONE, number=30) == 0
    assert 29 < store.apply("a", "look", ONE) <= 30
    assert 29 < store.apply("a", "turn", ONE) <= 30


def test_threads_get_in_one_after_the_other(store: Store) -> None:
    """No more than the limit of them."""
    got: List[float] = []

    def ask() -> None:
        for number in range(20):
            got.append(store.apply("a", "admit", MANY, f"{threading.get_ident()}-{number}"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count(0) == 50


def _asked(folder: str, count: int, results: Any) -> None:  # pragma: no cover - in other processes
    store = FolderStore(folder)
    results.put([store.apply("a", "admit", MANY, f"{os.getpid()}-{number}") for number in range(count)].count(0))


@may_fork
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_get_in_one_after_the_other(method: str, tmp_path: Path) -> None:
    """By a folder."""
    context: Any = multiprocessing.get_context(method)
    results = context.Queue()
    processes = [context.Process(target=_asked, args=(str(tmp_path / "new"), 30, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert sum(results.get(timeout=PATIENCE) for _ in processes) == 50
    for process in processes:
        process.join()


def test_a_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    """So is its folder. It is made with the first operation, not before."""
    store = FolderStore(tmp_path / "a" / "limits")
    assert not (tmp_path / "a").exists()
    assert store.apply("x", "look", ONE) == 0
    assert os.listdir(tmp_path / "a" / "limits") == []
    store.apply("x", "admit", ONE, "s1")
    path = tmp_path / "a" / "limits" / "limits-x.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("first", ["admit", "look"])
@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"at":"x"}', b"\xff\xfe", b"[" * 100_000, b"null"], ids=lambda it: repr(it[:9])
)
def test_a_file_that_can_not_be_read_counts_as_full(
    content: bytes, first: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For a window, whoever comes first. Nobody knows what began."""
    (tmp_path / "limits-x.json").write_bytes(content)
    store = FolderStore(tmp_path)
    assert 60 < store.apply("x", first, ONE, "s1") < 62
    assert "can't be read: nothing begins for 6" in caplog.text
    assert json.loads((tmp_path / "limits-x.json").read_bytes())["slots"] == {}
    assert 60 < store.apply("x", "look", ONE) < 62
    assert 60 < store.apply("x", "admit", ONE, "s1") < 62
    assert len(caplog.records) == 1


def test_what_is_being_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    """A look that meets half a file waits for whoever is writing it."""
    store = FolderStore(tmp_path)
    store.apply("x", "pause", ONE, number=30.0)
    path = tmp_path / "limits-x.json"
    whole = path.read_bytes()
    with locked(str(path), PATIENCE):
        path.write_bytes(whole[:-5])
        looking = Worker(lambda: FolderStore(tmp_path).apply("x", "look", ONE))
        assert not looking.ended_within(0.05)
        path.write_bytes(whole)
    assert 0 < looking.result() < 31


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    """A process may have been killed when it had made it."""
    (tmp_path / "limits-x.json").write_bytes(b"\n")
    store = FolderStore(tmp_path)
    assert store.apply("x", "look", ONE) == 0
    assert store.apply("x", "admit", ONE, "s1") == 0


@pytest.mark.parametrize("name", ["admit", "look"])
def test_a_folder_that_can_not_be_made_is_an_error(name: str, tmp_path: Path) -> None:
    """Its type alone is told."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"^(NotADirectoryError|FileExistsError)$"):
        FolderStore(tmp_path / "file" / "limits").apply("x", name, ONE, "s1")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no disk that is always full")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """Whatever the system says then."""
    (tmp_path / "limits-x.json").symlink_to("/dev/full")
    with pytest.raises(StoreError):
        FolderStore(tmp_path).apply("x", "admit", ONE, "s1")


def test_a_write_that_was_cut_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may take a part of it."""

    class Short:
        def __init__(self, path: str, *args: Any, **options: Any) -> None:
            self.file = open(path, *args, **options)  # noqa: SIM115 - it is closed by the block below

        def __enter__(self) -> "Short":
            return self

        def __exit__(self, *exc_info: object) -> None:
            self.file.close()

        def read(self, size: int) -> Any:
            return self.file.read(size)

        def seek(self, place: int) -> Any:
            return self.file.seek(place)

        def write(self, content: bytes) -> int:
            return int(self.file.write(content[:3]))

    monkeypatch.setattr(shared_state, "open", Short, raising=False)
    with pytest.raises(StoreError, match="the disk is full"):
        FolderStore(tmp_path).apply("x", "admit", ONE, "s1")


@may_fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_one_that_was_stopped_does_not_stop_the_others_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not get its lock goes on without the file."""
    from copilot_sync.safe_files import locked

    monkeypatch.setattr(shared_state, "_PATIENCE", 0.05)
    store = FolderStore(tmp_path)
    store.apply("x", "admit", ONE, "s1")
    child = fork()
    if child == 0:  # pragma: no cover - in the child
        with locked(str(tmp_path / "limits-x.json"), 5):
            (tmp_path / "locked").write_bytes(b"")
            time.sleep(60)
        os._exit(0)
    try:
        wait_until((tmp_path / "locked").exists)
        with pytest.raises(StoreError, match="does not let go of its lock"):
            store.apply("x", "leave", ONE, "s1")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert store.apply("x", "leave", ONE, "s1") == 0


@may_fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_forked_child_has_a_lock_of_its_own(kind: str, tmp_path: Path) -> None:
    """And none of its parent's slots, if the memory is all there is."""
    store = stores(tmp_path)[kind]()
    assert store.apply("x", "admit", ONE, "s1") == 0
    with store._lock:  # type: ignore[attr-defined]
        child = fork()
        if child == 0:  # pragma: no cover - in the child
            os._exit(0 if store.apply("x", "admit", ONE, "s2") == (0 if kind == "memory" else math.inf) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.apply("x", "admit", ONE, "s2") == math.inf


def test_memory_that_is_forked_has_no_slots() -> None:
    """As the child sees it: what holds them is not there."""
    store = MemoryStore()
    store.apply("x", "admit", ONE, "s1")
    store.after_fork_in_child()
    assert store.apply("x", "admit", ONE, "s2") == 0


def test_memory_forgets_the_oldest_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are renewed each hour would fill it."""
    monkeypatch.setattr(shared_state, "_MOST", 2)
    store = MemoryStore()
    for account in ("a", "b", "c"):
        store.apply(account, "admit", ONE, "s1")
    assert store.apply("b", "admit", ONE, "s2") == math.inf
    assert store.apply("a", "admit", ONE, "s2") == 0


def test_memory_keeps_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many users with budgets of their own push out one who has not asked for long, and not the account."""
    monkeypatch.setattr(shared_state, "_MOST", 2)
    store = MemoryStore()
    for name in ("account", "ann", "account", "bob"):
        store.apply(name, "spend", MANY, number=1)
    assert [store.apply(name, "spent", MANY) for name in ("account", "ann")] == [2, 0]


def test_a_cache_whose_add_excludes_nobody_is_found_out() -> None:
    """If its name did not give it away."""

    class Lax(Cache):
        def add(self, key: str, value: str, timeout: int) -> bool:
            self.kept[key] = "somebody else's"
            return True

    with pytest.raises(StoreError, match="excludes nobody"):
        CacheStore(Lax()).apply("x", "admit", ONE, "s1")


def test_the_lock_of_a_cache_that_nobody_gives_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it can last."""
    monkeypatch.setattr(shared_state, "_LOCK_PATIENCE", 0.02)
    cache = Cache()
    cache.set("copilot-sync-limits-x-lock", "theirs", 5)
    with pytest.raises(StoreError, match="does not let go"):
        CacheStore(cache).apply("x", "admit", ONE, "s1")
    assert cache.get("copilot-sync-limits-x-lock") == "theirs"


def test_a_lock_that_ended_meanwhile_is_not_taken_from_its_next_holder() -> None:
    """It is somebody else's by then."""

    class Slow(Cache):
        def set(self, key: str, value: str, timeout: int) -> None:
            super().set(key, value, timeout)
            self.kept[f"{key}-lock"] = "theirs"

    cache = Slow()
    CacheStore(cache).apply("x", "admit", ONE, "s1")
    assert cache.get("copilot-sync-limits-x-lock") == "theirs"


def test_what_a_cache_kept_may_be_anything() -> None:
    """Bytes are read as text."""
    cache = Cache()
    store = CacheStore(cache)
    cache.kept["copilot-sync-limits-x"] = b'{"slots":{"s1":1e18}}'  # type: ignore[assignment]
    assert store.apply("x", "admit", ONE, "s2") == math.inf
    cache.kept["copilot-sync-limits-x"] = 5  # type: ignore[assignment]
    assert 60 < store.apply("x", "admit", ONE, "s2") < 62


def test_a_cache_that_fails_is_an_error_and_an_interruption_passes() -> None:
    """What it says is not repeated: it may hold a password."""

    class Broken(Cache):
        def get(self, key: str) -> Optional[str]:
            raise ConnectionError("redis://:secret@host")

    with pytest.raises(StoreError, match="^ConnectionError$"):
        CacheStore(Broken()).apply("x", "look", ONE)

    class Interrupted(Cache):
        get: Any = staticmethod(lambda key: signal.raise_signal(signal.SIGUSR1))

    with interrupting(), pytest.raises(InterruptedHereError):
        CacheStore(Interrupted()).apply("x", "look", ONE)


class InterruptedHereError(Exception):
    """Out of a handler."""


class interrupting:  # noqa: N801 - it is used as a function
    """A handler of a signal raises as long as the block lasts."""

    def __enter__(self) -> None:
        def handle(*_: object) -> None:
            raise InterruptedHereError

        self._before = signal.signal(signal.SIGUSR1, handle)

    def __exit__(self, *exc_info: object) -> None:
        signal.signal(signal.SIGUSR1, self._before)


@pytest.mark.parametrize("name", ["FileBasedCache", "FileSystemCache", "LocMemCache", "SimpleCache", "DummyCache"])
def test_caches_that_do_not_do_are_refused_by_name(name: str) -> None:
    """And what is made of them."""
    kind = type("Mine", (type(name, (Cache,), {}),), {})
    with pytest.raises(ValueError, match="shared can't be a Mine: its add|shared can't be a Mine: it "):
        store_of(kind())


def test_shared_may_be_one_of_these(tmp_path: Path) -> None:
    """Nothing else."""
    assert isinstance(store_of(None), MemoryStore)
    assert isinstance(store_of(tmp_path), FolderStore)
    assert isinstance(store_of(str(tmp_path)), FolderStore)
    assert isinstance(store_of(Cache()), CacheStore)
    assert isinstance(store_of(Redis()), RedisStore)
    mine = MemoryStore()
    assert store_of(mine) is mine
    for other in (5, object(), {}):
        with pytest.raises(TypeError, match="shared must be a folder, a Redis client, or a cache"):
            store_of(other)


def test_a_clock_that_is_set_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment on in which a process first looked."""
    clock = SteadyClock()
    assert abs(clock() - time.time()) < 1
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock() > 1e9


class Redis:
    """Notes what it is asked; the real one is asked by other tests."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.asked: List[Tuple[Any, ...]] = []

    def evalsha(self, *args: Any) -> Any:
        return self._next("evalsha", *args)

    def eval(self, *args: Any) -> Any:
        return self._next("eval", *args)

    def _next(self, *asked: Any) -> Any:
        self.asked.append(asked)
        result = self.results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result


NoScriptError = type("NoScriptError", (Exception,), {})


def test_redis_is_asked_once_and_told_the_script_if_it_lacks_it() -> None:
    """By the keys of one account, which a cluster keeps together."""
    redis = Redis(b"0", NoScriptError(), b"inf", b"-1")
    store = RedisStore(redis)
    assert [store.apply("x", "admit", ONE, "s1") for _ in range(2)] == [0, math.inf]
    assert store.apply("x", "look", ONE) == -1
    assert [asked[0] for asked in redis.asked] == ["evalsha", "evalsha", "eval", "evalsha"]
    assert redis.asked[2][1] == redis_state._SCRIPT
    count = redis.asked[0][2]
    assert {key.split(b"{")[1].split(b"}")[0] for key in redis.asked[0][3 : 3 + count]} == {b"x"}


def test_a_redis_that_fails_is_an_error_and_an_interruption_passes() -> None:
    """Its type is told, not its words."""
    for failure in (ConnectionError("redis://:secret@host"), TimeoutError()):
        with pytest.raises(StoreError, match=f"^{type(failure).__name__}$"):
            RedisStore(Redis(failure)).apply("x", "look", ONE)

    class Interrupted(Redis):
        def evalsha(self, *args: Any) -> Any:
            signal.raise_signal(signal.SIGUSR1)

    with interrupting(), pytest.raises(InterruptedHereError):
        RedisStore(Interrupted()).apply("x", "look", ONE)


def test_who_is_killed_while_it_writes_leaves_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter one is there before the file is cut."""
    store = FolderStore(tmp_path)
    for number in range(5):
        store.apply("x", "admit", RateRules(concurrency=9), f"s{number}")

    class Uncut:
        def __init__(self, *args: Any, **options: Any) -> None:
            self._file = open(*args, **options)  # noqa: SIM115 - it is closed by the block below

        def __enter__(self) -> "Uncut":
            return self

        def __exit__(self, *exc_info: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            if name == "truncate":
                raise OSError("it was killed")
            return getattr(self._file, name)

    with monkeypatch.context() as patch:
        patch.setattr(shared_state, "open", Uncut, raising=False)
        with pytest.raises(StoreError):
            store.apply("x", "leave", RateRules(concurrency=9), "s0")
    rules = RateRules(concurrency=5)
    assert store.apply("x", "admit", rules, "s5") == 0
    assert store.apply("x", "admit", rules, "s6") == math.inf
