"""Celery's prefork workers on a real Redis, their client made and warm before they were forked."""

from typing import Any, Callable, Dict, List, Optional, Set

import pytest
from support import PATIENCE, collect_garbage

from copilot_sync.emulator import Emulator, Fault

celery = pytest.importorskip("celery")

TASKS = 200
PROCESSES = 2


@pytest.fixture
def worker(emulator: Emulator, redis_url: str, start: Callable[..., Any]) -> Any:
    """An application whose tasks a worker runs in two processes."""
    pool = ["--pool", "prefork", "--concurrency", str(PROCESSES), "--without-gossip", "--without-mingle"]
    start(
        ["-m", "celery", "-A", "celery_program", "worker", "--loglevel", "WARNING", *pool],
        env={"REDIS_URL": redis_url},
    )
    with celery.Celery("test", broker=redis_url, backend=redis_url) as app:
        yield app
        collect_garbage()  # a result that goes later would look for the Redis that has gone by then


def test_processes_forked_from_a_warm_client_share_no_connection(
    emulator: Emulator, worker: Any, users_of_connections: Callable[[], Dict[int, Set[str]]]
) -> None:
    """Many tasks over two processes: all answers right, each process on connections of its own."""
    told = ask_often(worker)
    assert all(each["right"] for each in told)
    pids = {str(each["pid"]) for each in told}
    users = users_of_connections()
    assert [names for names in users.values() if len(names) > 1] == []
    assert {name for names in users.values() for name in names} == {"main", *pids}
    assert len(pids) == PROCESSES
    assert emulator.tokens_issued == 1


@pytest.mark.parametrize(
    ("fault", "client"),
    [
        (Fault.stall(("after_events", 1)), "client"),
        (Fault.stall(), "client"),
        (Fault.status(503, retry_after=30), "client"),
        (None, "client with a slow cache"),
    ],
    ids=["a blocked stream", "a missing reply", "a wait before a retry", "a token cache"],
)
def test_a_soft_time_limit_passes_through(emulator: Emulator, worker: Any, fault: Optional[Fault], client: str) -> None:
    """Wherever it comes: the task gets the exception, the connection is closed, and the process goes on."""
    worker.send_task("ask", ["warm"]).get(timeout=3 * PATIENCE)
    emulator.fail("message", fault)
    told = worker.send_task("limited", [client]).get(timeout=PATIENCE)
    assert told["limited"]
    if fault is not None and fault.action == "stall":
        assert emulator.wait_until(lambda: len(emulator.disconnects) == 1)
    after = ask_often(worker)
    assert all(each["right"] for each in after)
    assert told["pid"] in {each["pid"] for each in after}


def ask_often(worker: Any) -> List[Dict[str, Any]]:
    """Have many tasks done at once, so that no process is left out; give what they return."""
    results = [worker.send_task("ask", [f"task {number}"]) for number in range(TASKS)]
    return [result.get(timeout=3 * PATIENCE) for result in results]
