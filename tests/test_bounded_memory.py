"""A memory of so many values and so many bytes."""

import os

from support import fork

from copilot_sync.contrib.openai_gateway.bounded_memory import BoundedMemory


def remembered(memory: "BoundedMemory[str]", names: str) -> str:
    """Which of some names are remembered. Looking counts as use, so they are all looked at, in order."""
    return "".join(name for name in names if memory.get(name) is not None)


def test_what_was_used_least_recently_is_forgotten_first() -> None:
    """To look a value up is to use it, and to put it again is."""
    memory: BoundedMemory[str] = BoundedMemory(3)
    for name in "abc":
        memory.put(name, name)
    assert memory.get("a") == "a"
    memory.put("b", "again")
    memory.put("d", "d")
    assert remembered(memory, "abcd") == "abd"
    assert memory.get("b") == "again"


def test_a_value_can_be_taken_out_once() -> None:
    """And its bytes no longer count."""
    memory: BoundedMemory[str] = BoundedMemory(10, 10)
    memory.put("a", "a", 10)
    assert memory.pop("a") == "a"
    assert memory.pop("a") is None
    memory.put("b", "b", 10)
    assert remembered(memory, "ab") == "b"


def test_the_bytes_are_bounded() -> None:
    """Also when a value grows, and when one value takes the place of another."""
    memory: BoundedMemory[str] = BoundedMemory(10, 10)
    for name in "abc":
        memory.put(name, name, 3)
    memory.put("a", "a", 4)
    assert remembered(memory, "bca") == "bca"
    memory.resize("a", 5)
    assert remembered(memory, "bca") == "ca"
    memory.resize("c", 1)
    memory.put("d", "d", 4)
    assert remembered(memory, "cad") == "cad"


def test_a_value_that_is_larger_than_the_memory_is_not_kept() -> None:
    """And nothing is left of it."""
    memory: BoundedMemory[str] = BoundedMemory(10, 10)
    memory.put("a", "a", 11)
    memory.put("b", "b", 10)
    assert remembered(memory, "ab") == "b"


def test_what_was_forgotten_has_no_size() -> None:
    """A value that ends after it was forgotten does not come back."""
    memory: BoundedMemory[str] = BoundedMemory(10, 10)
    memory.resize("a", 10)
    memory.put("b", "b", 10)
    assert remembered(memory, "ab") == "b"


def test_a_forked_child_can_use_it_whatever_its_parent_did() -> None:
    """The lock may be held by a thread that the child does not have."""
    memory: BoundedMemory[str] = BoundedMemory(10)
    memory.put("a", "a")
    lock = memory._lock
    with lock:
        child = fork()
        if child == 0:  # pragma: no cover - coverage does not see the child
            os._exit(0 if memory._lock is not lock and memory.get("a") == "a" else 1)
    assert os.waitpid(child, 0)[1] == 0
