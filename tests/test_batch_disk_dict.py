"""What is known of each id: exact, on the disk, and gone at the end."""

import sqlite3
import threading
from typing import Any

import pytest

from copilot_sync.batch.disk_dict import DiskDict


def test_values_by_id() -> None:
    """Added once, set and removed at will; any text is an id."""
    with DiskDict() as index:
        assert (index.add("a", "1"), index.add("a", "2"), index.get("a")) == (True, False, "1")
        index.set("a", "3")
        index.set("é\u2028 '\"", "4")
        assert dict(index.items()) == {"a": "3", "é\u2028 '\"": "4"}
        assert len(index) == 2
        index.remove("a")
        assert (index.get("a"), len(index)) == (None, 1)


def test_many_ids_take_little_memory() -> None:
    """What SQLite itself keeps is bounded; nothing of an id stays in Python."""
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has none")
    tracemalloc.start()
    try:
        with DiskDict() as index:
            for number in range(30_000):
                index.add(f"an id of some length with a number {number}")
            assert len(index) == 30_000
            assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_another_thread_may_go_on() -> None:
    """As one does that drops an iterator it was given."""
    with DiskDict() as index:
        thread = threading.Thread(target=index.add, args=("a", "1"))
        thread.start()
        thread.join()
        assert index.get("a") == "1"


def test_no_room_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where the room is missing."""
    with DiskDict() as index:
        index._execute("PRAGMA max_page_count = 2")

        with pytest.raises(OSError, match="folder for temporary files has no room") as caught:
            index.add("a", "x" * 100_000)
    cause: Any = caught.value.__cause__
    assert isinstance(cause, sqlite3.OperationalError)
