"""A batch on Dask: real worker processes, of which one is killed in the middle."""

import collections
import os
import signal
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from copilot_sync import batch
from copilot_sync.emulator import Emulator, Reply

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it says about itself while it is imported
    distributed = pytest.importorskip("distributed")

#: ``benchmarks/batch_engines.py`` asks 1,000.
PROMPTS = 120

# The engine opens and drops sockets, loops and files of its own as it likes.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]


@pytest.fixture
def engine(served: Emulator, tmp_path: Path) -> Iterator[Any]:
    """A cluster of two processes with four threads each, and its client."""
    options: Dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": None, "local_directory": str(tmp_path)}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=4, processes=True, **options) as cluster:
        with distributed.Client(cluster) as client:
            yield client


def questions(emulator: Emulator) -> "collections.Counter[str]":
    """How often each prompt stands in the threads of the account."""
    threads = list(emulator.threads.values())
    return collections.Counter(message["content"] for thread in threads for message in thread.user_messages)


def check(emulator: Emulator, results: List[batch.Result]) -> None:
    """Every prompt has its answer, and none was asked twice."""
    assert [result for result in results if result.error is not None] == []
    assert {result.id: result.text for result in results} == {number: f"prompt {number}" for number in range(PROMPTS)}
    assert questions(emulator) == {f"prompt {number}": 1 for number in range(PROMPTS)}


def test_a_batch_runs_on_a_cluster(served: Emulator, engine: Any, tmp_path: Path) -> None:
    """Each process finds the credentials by itself and fetches one token for all of its prompts."""
    prompts = [f"prompt {number}" for number in range(PROMPTS)]
    executor = engine.get_executor(pure=False)
    results = list(batch.run(prompts, executor=executor, workers=8, output=tmp_path / "out.jsonl"))
    check(served, results)
    assert served.tokens_issued == 2
    assert list(batch.run(prompts, executor=executor, output=tmp_path / "out.jsonl")) == []


def test_a_worker_that_is_killed_takes_nothing_with_it(served: Emulator, engine: Any) -> None:
    """The engine gives its work to another process, which looks first whether it was done."""
    served.reply = Reply(pace=0.02)
    prompts = [f"prompt {number}" for number in range(PROMPTS)]
    workers = engine.run(os.getpid)
    results: List[batch.Result] = []
    for result in batch.run(prompts, executor=engine.get_executor(pure=False), workers=8):
        results.append(result)
        if len(results) == PROMPTS // 3:
            os.kill(next(iter(workers.values())), signal.SIGKILL)
    check(served, results)
    assert served.tokens_issued in (2, 3)  # whether the one that came for it was given work is the engine's affair


def test_leaving_early_leaves_the_cluster_as_it_is(served: Emulator, engine: Any) -> None:
    """What was not begun is cancelled, and the engine is there for others."""
    with batch.run(map(str, range(1000)), executor=engine.get_executor(pure=False), workers=8) as results:
        assert next(results).error is None
    assert engine.submit(abs, -1, pure=False).result() == 1
    assert len(questions(served)) < 50


def test_equal_prompts_are_asked_one_by_one(served: Emulator, engine: Any) -> None:
    """Also by an executor that would take equal calls for one, which is the engine's default."""
    results = list(batch.run(["same"] * 6, executor=engine.get_executor(), workers=4))
    assert [(result.text, result.error) for result in results] == [("same", None)] * 6
    assert questions(served) == {"same": 6}
    assert len({result.conversation_id for result in results}) == 6


def test_the_engine_itself_is_no_executor(engine: Any) -> None:
    """What its ``submit`` returns is something else."""
    with pytest.raises(TypeError, match=r"not Client: pass its get_executor\(\)"):
        batch.run(["one"], executor=engine)


def test_an_engine_that_was_shut_down_takes_nothing(served: Emulator, engine: Any) -> None:
    """It says so at the first prompt."""
    executor = engine.get_executor()
    executor.shutdown()
    with pytest.raises(batch.ExecutorError, match="takes no step: RuntimeError: cannot schedule new futures"):
        list(batch.run(["one"], executor=executor))
    assert questions(served) == {}
