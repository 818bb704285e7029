"""Answers in a folder: one file each, for their owner alone, bounded, and never in the way of other files."""

import contextlib
import json
import multiprocessing
import os
import pickle
import resource
import stat
import threading
from pathlib import Path
from typing import Any, List

import pytest

from copilot_sync import answer_folder
from copilot_sync.answer_folder import AnswerFolder


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


def files(folder: Path) -> List[Path]:
    return sorted(folder.glob("answer-*.json"))


def age(folder: AnswerFolder, key: str, seconds: int) -> None:
    """Have a value be used so long ago."""
    os.utime(folder._path_of(key), (1_000_000_000 - seconds, 1_000_000_000 - seconds))


def kept(folder: AnswerFolder, keys: str) -> str:
    return "".join(key for key in keys if folder.get(key) is not None)


@pytest.mark.parametrize("value", ["text", "", "é😀\ud800\0\n", "x" * 1_000_000])
def test_what_is_set_is_got_until_its_time_is_over(tmp_path: Path, value: str) -> None:
    """Any text, under any key, to the second; also by another object, and by one that was pickled."""
    clock = Clock()
    folder = AnswerFolder(tmp_path / "answers", now=clock)
    assert folder.get("ké/..") is None
    folder.set("ké/..", value, 10)
    clock.now += 9.9
    assert folder.get("ké/..") == value
    assert folder.get("another") is None
    clock.now += 0.1
    assert folder.get("ké/..") is None
    folder.set("ké/..", value, 10)
    assert AnswerFolder(tmp_path / "answers", now=clock).get("ké/..") == value
    real = AnswerFolder(tmp_path / "real")
    real.set("key", value, 100)
    assert pickle.loads(pickle.dumps(real)).get("key") == value


def test_the_folder_and_its_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask; a value leaves one file, and nothing beside it."""
    before = os.umask(0)
    try:
        AnswerFolder(tmp_path / "new").set("key", "value", 10)
    finally:
        os.umask(before)
    (file,) = (tmp_path / "new").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe",
        b"not json",
        b"[" * 100_000,
        b"[]",
        b"5",
        b"{}",
        b'{"key": "key", "until": 9e99, "value": 5}',
        b'{"key": "key", "until": 9e99}',
        b'{"key": "other", "until": 9e99, "value": "x"}',
        b'{"key": "key", "until": "late", "value": "x"}',
        b'{"key": "key", "until": NaN, "value": "x"}',
        b'{"key": "key", "until": 1, "value": "x"}',
        b'{"key": "key", "until": 9e99, "value": "x"',
    ],
)
def test_a_file_that_holds_something_else_is_replaced(tmp_path: Path, content: bytes) -> None:
    """Zeros are left when the power fails, and half a file by a full disk of another program."""
    folder = AnswerFolder(tmp_path)
    Path(folder._path_of("key")).write_bytes(content)
    assert folder.get("key") is None
    folder.set("key", "value", 10)
    assert folder.get("key") == "value"


def test_the_values_that_were_used_longest_ago_make_room(tmp_path: Path) -> None:
    """A value is used when it is set, and when it is got."""
    folder = AnswerFolder(tmp_path, max_files=3)
    for number, key in enumerate("abc"):
        folder.set(key, key, 100)
        age(folder, key, 100 - number)
    assert folder.get("a") == "a"
    folder.set("d", "d", 100)
    assert kept(folder, "abcd") == "acd"


def test_their_bytes_are_bounded(tmp_path: Path) -> None:
    """The newest stay; a value larger than a file may be is not kept at all."""
    folder = AnswerFolder(tmp_path, max_bytes=2000)
    for number, key in enumerate("abc"):
        folder.set(key, key * 800, 100)
        age(folder, key, 100 - number)
    folder.set("d", "d" * 5000, 100)
    assert kept(folder, "abcd") == "bc"
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 2000


def test_they_are_counted_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first file of a process, and after each sixteenth of the limit: counting takes time."""
    counts: List[int] = []
    count = AnswerFolder._files
    monkeypatch.setattr(AnswerFolder, "_files", lambda self: counts.append(1) or count(self))
    folder = AnswerFolder(tmp_path, max_files=64)
    for number in range(64 + 8):
        folder.set(str(number), "x", 100)
        assert len(files(tmp_path)) <= 64 + 4
    assert len(counts) < 20


def test_nothing_else_in_the_folder_is_touched(tmp_path: Path) -> None:
    """Other names, folders and links stay, however many there are."""
    digest = "0" * 64
    others = [
        "notes.txt",
        "answer-.json",
        f"answer-{digest}.json.bak",
        f"my-answer-{digest}.json",
        f"answer-{'g' * 64}.json",
    ]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / f"answer-{digest}.json").mkdir()
    (tmp_path / f"answer-{'1' * 64}.json").symlink_to(tmp_path / "notes.txt")
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1), follow_symlinks=False)
    before = sorted(os.listdir(tmp_path))
    folder = AnswerFolder(tmp_path, max_files=1)
    folder.set("a", "a", 100)
    age(folder, "a", 5)
    folder.set("b", "b", 100)
    assert kept(folder, "ab") == "b"
    assert sorted(set(os.listdir(tmp_path)) - {os.path.basename(folder._path_of("b"))}) == before


def test_what_killed_processes_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    """Not what another process may be writing just now."""
    names = [f".copilot-sync-answer-{'0' * 64}.json.{number:08x}" for number in range(2)]
    for name in names:
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / names[0], (1, 1))
    AnswerFolder(tmp_path).set("a", "a", 100)
    assert [name for name in names if (tmp_path / name).exists()] == names[1:]


def test_what_is_no_file_of_this_user_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe is not waited for, and another user may have put a text there that is no answer."""
    folder = AnswerFolder(tmp_path)
    os.mkfifo(folder._path_of("pipe"))
    assert folder.get("pipe") is None
    folder.set("key", "value", 100)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert folder.get("key") is None
    folder.set("another", "value", 100)
    assert len(files(tmp_path)) == 3  # the pipe too: what is not this user's is not removed either


def test_a_file_that_goes_while_it_is_counted_is_nobodys_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes may count and remove at once."""
    folder = AnswerFolder(tmp_path, max_files=1)
    unlink = os.unlink

    def gone_first(path: Any) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(answer_folder.os, "unlink", gone_first)
    for key in "abc":
        folder.set(key, key, 100)
    assert len(files(tmp_path)) == 1


def test_a_folder_that_can_not_be_used_raises(tmp_path: Path) -> None:
    """Whoever asks the cache does without."""
    (tmp_path / "file").write_text("mine")
    folder = AnswerFolder(tmp_path / "file")
    with pytest.raises(OSError, match="Not a directory"):
        folder.get("key")
    with pytest.raises(OSError, match="exists"):
        folder.set("key", "value", 10)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ValueError, match="answer_cache must be a path"):
        AnswerFolder("a\0b")


def test_a_full_disk_leaves_the_old_value(tmp_path: Path) -> None:
    """And nothing of the new one; whoever asks the cache does without."""
    folder = AnswerFolder(tmp_path)
    folder.set("key", "old", 10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            folder.set("key", "new" * 1000, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.get("key") == "old"
    assert len(os.listdir(tmp_path)) == 1


def test_a_use_that_can_not_be_noted_is_one_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is mounted for reading."""
    folder = AnswerFolder(tmp_path)
    folder.set("key", "value", 10)

    def refuse(path: Any) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(answer_folder.os, "utime", refuse)
    assert folder.get("key") == "value"


def test_a_home_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its tilde, and as bytes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert AnswerFolder("~/answers").path == str(tmp_path / "answers")
    assert AnswerFolder(Path("~/answers")).path == str(tmp_path / "answers")


def write(path: str, name: str) -> None:
    """Set and get many values, of which every process and thread has the same keys."""
    folder = AnswerFolder(path, max_files=20)
    for number in range(60):
        folder.set(str(number % 30), f"{name} {number % 30}", 100)
        value = folder.get(str(number % 30))
        assert value is None or value.split()[1] == str(number % 30)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_several_may_use_it_at_once(tmp_path: Path, kind: str) -> None:
    """Nobody reads half of a value, or another key's, and the folder stays bounded."""
    make: Any = threading.Thread if kind == "threads" else multiprocessing.get_context("spawn").Process
    workers = [make(target=write, args=(str(tmp_path), name)) for name in "abc"]
    with contextlib.ExitStack() as stack:
        for worker in workers:
            worker.start()
            stack.callback(worker.join)
    assert all(getattr(worker, "exitcode", 0) == 0 for worker in workers)
    assert 0 < len(files(tmp_path)) <= 20 + len(workers) * 2
    for file in files(tmp_path):
        fields = json.loads(file.read_bytes())
        assert fields["value"].split()[1] == fields["key"]
    assert not list(tmp_path.glob(".*"))
