"""A Ctrl-C ends each wait of the main thread soon, even if it does not end the wait of the system."""

import _thread
import ast
import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Set

import pytest
from support import PATIENCE

import copilot_sync
from copilot_sync.emulator import Emulator
from copilot_sync.os_threads import ItemQueue, ThreadResult, acquire_within, join_within
from copilot_sync.settings import Timeout
from copilot_sync.transport.call import CallContext

PACKAGE = Path(copilot_sync.__file__).parent
#: Far longer than a Ctrl-C takes.
LONG = 6 * PATIENCE


def _held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _wait_for_an_emulator() -> None:
    with Emulator() as emulator:
        emulator.wait_until(bool, LONG)


def _wait_for_a_thread() -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, args=(LONG,), daemon=True)
    thread.start()
    try:
        join_within(thread, LONG)
    finally:
        go_on.set()


def _wait_for_a_result() -> None:
    go_on = threading.Event()
    try:
        ThreadResult(lambda: go_on.wait(LONG)).wait(LONG)
    finally:
        go_on.set()


WAITS: Dict[str, Callable[[], Any]] = {
    "a lock": lambda: acquire_within(_held(), LONG),
    "an item": lambda: ItemQueue[int]().get(LONG),
    "a thread": _wait_for_a_thread,
    "the result of a thread": _wait_for_a_result,
    "the next attempt of a call": lambda: CallContext(Timeout()).sleep(LONG),
    "a slot": lambda: CallContext(Timeout()).sleep_until_woken(LONG),
    "an emulator": _wait_for_an_emulator,
}


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Has a Ctrl-C come that is noted, and interrupts nothing."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    yield
    timer.cancel()
    timer.join()
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.usefixtures("ctrl_c")
def test_a_ctrl_c_that_interrupts_no_wait_ends_it_soon(name: str) -> None:
    """Within a second, which is forgiven a slow machine."""
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        WAITS[name]()
    assert time.monotonic() - began < LONG / 2


def test_a_wait_in_pieces_is_as_long_as_it_should_be() -> None:
    """For a thread and for an emulator; other modules have this test for what they wait for."""
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, args=(LONG,), daemon=True)
    thread.start()
    began = time.monotonic()
    join_within(thread, 0.05)
    with Emulator() as emulator:
        assert not emulator.wait_until(bool, 0.6)
    assert time.monotonic() - began >= 0.65
    go_on.set()
    join_within(thread, LONG)
    assert not thread.is_alive()


#: What can wait in one piece, by the modules that use it, and why nobody waits there for long.
KNOWN: Dict[str, Set[str]] = {
    # They are waited for in pieces, here, or nobody else has the lock yet.
    "os_threads.py": {"lock.acquire", "thread.join", "self._thread.join", "self._running.acquire"},
    "emulator/fault_script.py": {"threading.Condition"},
    "transport/call.py": {"lock.acquire"},
    "ledger/recorder.py": {"done.acquire"},
    # Threads of ours wait for them, and the main thread for a moment at most.
    "batch/workers.py": {"queue.SimpleQueue", "thread.join"},
    "cli/live_markdown.py": {"threading.Event"},
    "cli/waits.py": {"threading.Event", "self._thread.join"},
    "cli/chat.py": {"self._thread.join"},
    "contrib/openai_gateway/batch_runner.py": {"threading.Event"},
    "emulator/server.py": {"threading.Event"},
    "emulator/thread_group.py": {"threading.Event", "thread.join"},
    "pacing/account_limiter.py": {"keeper.join"},
    "transport/preconnection.py": {"self._thread.join"},
}
_MADE = ("Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "Queue", "SimpleQueue", "LifoQueue")


def _waits(path: Path) -> Iterator[str]:
    """The calls in a module that wait in one piece, or make what is waited for so."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in (*_MADE, "acquire", "join"):
            continue
        name = str(ast.get_source_segment(source, node.func))
        owner, _, method = name.rpartition(".")
        never_waits = [getattr(argument, "value", None) for argument in node.args] == [False]
        is_thread = owner.rpartition(".")[2].lstrip("_") in ("thread", "keeper", "process", "worker")
        if (
            (owner in ("threading", "queue") and method in _MADE)
            or (method == "acquire" and not never_waits)
            or (method == "join" and is_thread)
        ):
            yield name


def test_nothing_else_waits_in_one_piece() -> None:
    """Whoever adds such a wait uses ``os_threads``, or says here why it is short."""
    found = {path.relative_to(PACKAGE).as_posix(): set(_waits(path)) for path in PACKAGE.rglob("*.py")}
    assert {name: waits for name, waits in found.items() if waits} == KNOWN
