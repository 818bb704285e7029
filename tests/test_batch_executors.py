"""Batches whose prompts are asked by the threads or processes of an executor."""

import concurrent.futures
import contextvars
import errno
import functools
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from batches import AT_ONCE, Waiting, by_id, fail_on, ids, sent, texts
from support import Worker, may_fork, stages

from copilot_sync import Client, MissingCredentialsError, Stream, StreamClosedError, batch
from copilot_sync.batch import sender, workers
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.pacing.limiter import RateLimiter

pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=AT_ONCE) as opened:
        yield opened


def make_client() -> Client:
    return Client(retry=AT_ONCE)


@pytest.fixture
def _fresh_askers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dict[bytes, sender.Worker]]:
    """The clients of this process as a worker, which are closed at the end."""
    askers: Dict[bytes, sender.Worker] = {}
    monkeypatch.setattr(workers, "_process_workers", askers)
    yield askers
    for worker in askers.values():
        worker._client.close()


@pytest.fixture
def executor() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield pool


Executor = concurrent.futures.Executor
#: How a process can begin; the pools of PyPy's own library know one way.
METHODS = multiprocessing.get_all_start_methods() if sys.implementation.name == "cpython" else ["fork"]


@may_fork
@pytest.mark.parametrize("method", METHODS)
def test_other_processes_may_do_the_asking(emulator: Emulator, output: Path, method: str) -> None:
    """Each finds the credentials by itself, and keeps one client for all of its prompts."""
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        results = by_id(batch.run(map(str, range(12)), executor=pool, workers=4, output=output, delete_threads=True))
    assert {id: result.text for id, result in results.items()} == {number: str(number) for number in range(12)}
    assert all(result.error is None for result in results.values())
    assert emulator.tokens_issued <= 2
    assert len(emulator.threads) == 0
    assert sorted(ids(output)) == list(range(12))


@pytest.mark.skipif(sys.version_info < (3, 14), reason="there is no pool of interpreters before Python 3.14")
def test_other_interpreters_may_do_the_asking(emulator: Emulator) -> None:  # pragma: some versions
    """Each keeps one client; none can load charset_normalizer, which requests warns of and which nothing needs."""
    ignoring = ("ignore", "Unable to find acceptable character detection")
    pool = concurrent.futures.InterpreterPoolExecutor(2, initializer=warnings.filterwarnings, initargs=ignoring)
    with pool:
        assert texts(batch.run(map(str, range(12)), executor=pool, workers=4)) == {id: str(id) for id in range(12)}
        # The program that was started is not there. Where pytest is that program, this module can be imported.
        program = functools.partial(eval, "__import__('no_such_module')")
        with pytest.raises(batch.ExecutorError, match="could not do a step: ModuleNotFoundError: .*no_such_module"):
            list(batch.run(["one"], client=program, executor=pool))
    assert emulator.tokens_issued <= 2


@pytest.mark.usefixtures("_fresh_askers")
def test_a_way_to_get_a_client_travels(emulator: Emulator, executor: Executor) -> None:
    """A function of a module, or a partial of one: what it does happens where the asking is done."""
    for way in (make_client, functools.partial(Client, retry=None)):
        assert texts(batch.run(["one"], client=way, executor=executor)) == {0: "one"}
    assert len(workers._process_workers) == 2
    assert texts(batch.run(["two"], client=make_client, executor=executor)) == {0: "two"}
    assert len(workers._process_workers) == 2
    assert emulator.tokens_issued == 2


@pytest.mark.usefixtures("_fresh_askers")
def test_credentials_travel_only_when_that_is_said(emulator: Emulator, client: Client, executor: Executor) -> None:
    """A client that was made here has them in it."""
    with pytest.raises(ValueError, match="would carry its credentials"):
        batch.run(["one"], client=client, executor=executor)
    assert texts(batch.run(["one"], client=client, executor=executor, share_credentials=True)) == {0: "one"}


def test_what_travels_shows_nothing(emulator: Emulator, client: Client) -> None:
    """An engine may log what it was given."""
    source = workers.ClientSource(workers.PickledClient(client))
    secret = emulator.cookies["user_session"]
    assert secret.encode() in source._pickled
    assert secret not in repr(source)
    assert repr(source) == "<ClientSource>"


def test_a_way_that_can_not_travel_is_told_at_once(executor: Executor) -> None:
    """Before anything is read."""
    with pytest.raises(TypeError, match="client must be a function of a module, which can be pickled"):
        batch.run(["one"], client=lambda: Client(), executor=executor)


class Named:
    """Something else, which hands out an executor, as a client of Dask does."""

    def submit(self, function: Any, *arguments: Any) -> Any: ...

    def get_executor(self) -> Any: ...


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        (object(), "not object$"),
        (concurrent.futures.ThreadPoolExecutor, "not the class ThreadPoolExecutor$"),
        (Named(), "not Named: pass its get_executor\\(\\)$"),
        (4, "not int$"),
    ],
    ids=["object", "class", "engine", "number"],
)
def test_what_is_no_executor_is_told_at_once(executor: Any, words: str) -> None:
    """Even if it can submit: what comes back would be something else."""
    with pytest.raises(TypeError, match=f"executor must be a concurrent.futures.Executor, {words}"):
        batch.run(["one"], executor=executor)


class Exhausted(concurrent.futures.Executor):
    """It can't start a worker, as a pool of processes can't if the system allows no more of them."""

    def submit(self, *arguments: Any, **options: Any) -> Any:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_an_executor_that_can_not_start_a_worker_takes_nothing(emulator: Emulator, output: Path) -> None:
    """It is an error of the executor, as all are."""
    with pytest.raises(batch.ExecutorError, match="takes no step: BlockingIOError: .*temporarily") as caught:
        list(batch.run(["one"], client=make_client, executor=Exhausted(), output=output))
    assert isinstance(caught.value.__cause__, BlockingIOError)
    assert sent(emulator) == []


def test_an_executor_that_was_shut_down_takes_nothing(emulator: Emulator, output: Path) -> None:
    """Nothing is sent."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pass
    with pytest.raises(batch.ExecutorError, match="takes no step: RuntimeError: cannot schedule new futures after sh"):
        list(batch.run(["one"], executor=pool, output=output))
    assert stages(emulator) == []
    assert ids(output) == []


def no_client() -> Client:
    raise MissingCredentialsError("where the worker runs, there is nothing", stage="credentials")


def wrong_client() -> Client:
    raise OSError("no such folder there")


class Unknown:
    """A way that can be pickled here and found nowhere else."""

    def __call__(self) -> Any: ...

    def __reduce__(self) -> Tuple[Any, ...]:
        return functools.partial(eval, "__import__('" + __name__ + "').gone"), ()


@pytest.mark.usefixtures("_fresh_askers")
@pytest.mark.parametrize(
    ("way", "kind", "words"),
    [
        (no_client, MissingCredentialsError, "where the worker runs, there is nothing"),
        (wrong_client, batch.ExecutorError, "could not do a step: OSError: no such folder there"),
        (Unknown(), batch.ExecutorError, "a worker of the executor can't import; put it into a module of its own"),
    ],
    ids=["no credentials", "an error", "not there"],
)
def test_a_client_that_can_not_be_made_ends_a_batch(
    emulator: Emulator, executor: Executor, way: Any, kind: Any, words: str
) -> None:
    """No prompt is to blame, and all the others would meet the same."""
    with pytest.raises(kind, match=words):
        list(batch.run(["one", "two"], client=way, executor=executor))
    assert stages(emulator) == []


@may_fork
def test_what_happened_in_another_process_is_told(emulator: Emulator) -> None:
    """By the first line of the traceback that its executor sends as text."""
    method = "spawn" if "spawn" in METHODS else "fork"
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        with pytest.raises(batch.ExecutorError, match="could not do a step: OSError: no such folder there$"):
            list(batch.run(["one"], client=wrong_client, executor=pool))


def test_an_executor_that_is_shut_down_meanwhile_ends_a_batch(emulator: Emulator) -> None:
    """What it has not begun is cancelled."""
    engine = Waiting()
    results = batch.run(["one", "two"], executor=engine)
    taking = Worker(lambda: next(results))
    assert emulator.wait_until(lambda: len(engine.futures) >= 2)
    for future in engine.futures[1:]:
        future.cancel()
    with pytest.raises(batch.ExecutorError, match="the executor cancelled a step: was it shut down?"):
        taking.result()


class OneForEqual(concurrent.futures.Executor):
    """Takes calls with equal arguments for one call, as Dask does unless it is told otherwise."""

    def __init__(self) -> None:
        self._known: Dict[bytes, concurrent.futures.Future[Any]] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "concurrent.futures.Future[Any]":  # type: ignore[override]
        key = pickle.dumps((fn, args, kwargs))
        self._known[key] = self._known.get(key) or self._done(fn(*args, **kwargs))
        return self._known[key]

    @staticmethod
    def _done(result: Any) -> "concurrent.futures.Future[Any]":
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(result)
        return future


@pytest.mark.usefixtures("_fresh_askers")
def test_equal_prompts_are_asked_one_by_one(emulator: Emulator) -> None:
    """Each in a conversation of its own."""
    results: List[batch.Result] = list(batch.run(["same", "same", "same"], executor=OneForEqual()))
    assert [result.text for result in results] == ["same"] * 3
    assert len({result.conversation_id for result in results}) == len(emulator.threads) == 3


class Repeating(concurrent.futures.Executor):
    """Does everything twice, as an engine does whose worker died after it had done the work."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "concurrent.futures.Future[Any]":  # type: ignore[override]
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        fn(*args, **kwargs)
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.usefixtures("_fresh_askers")
def test_work_that_is_done_again_asks_once(emulator: Emulator) -> None:
    """Whoever does it looks first whether somebody has done it before."""
    results = by_id(batch.run(["one", "two"], executor=Repeating()))
    assert {id: result.text for id, result in results.items()} == {0: "one", 1: "two"}
    assert sorted(sent(emulator)) == ["one", "two"]


@pytest.mark.usefixtures("_fresh_askers")
def test_refusals_of_other_processes_pause_everybody(emulator: Emulator, executor: Executor) -> None:
    """They come back to the one gate."""
    fail_on(emulator, "3", Fault.status(429, retry_after=0))
    rate_limiter = RateLimiter(8)
    results = by_id(batch.run(map(str, range(8)), client=make_client, executor=executor, rate_limiter=rate_limiter))
    assert all(result.error is None for result in results.values())
    assert rate_limiter.concurrency < 8


def end_process(*arguments: Any) -> None:
    os._exit(1)  # pragma: no cover - nothing of this process is measured


def test_an_engine_that_breaks_ends_a_batch(emulator: Emulator, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error tells why; the next run goes on."""
    monkeypatch.setattr(workers, "work", end_process)
    # Not forkserver, the default since 3.14: its children have the environment of the test that used it first.
    context = multiprocessing.get_context("spawn" if "spawn" in METHODS else "fork")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(batch.ExecutorError, match="could not do a step: BrokenProcessPool: ") as caught:
            list(batch.run(["one", "two"], executor=pool, output=output))
    assert isinstance(caught.value.__cause__, concurrent.futures.BrokenExecutor)
    assert ids(output) == []


def test_what_an_engine_has_not_begun_is_cancelled(output: Path) -> None:
    """When the iterator is closed; the engine itself is not ours to close."""
    engine = Waiting()

    def prompts() -> Iterator[str]:
        yield from ["one", "two"]
        yield ""
        yield from ["three"]

    with batch.run(prompts(), executor=engine) as results:
        assert next(results).error is not None
    assert [future.cancelled() for future in engine.futures[1:]] == [True] * (len(engine.futures) - 1)


def test_who_was_stopped_begins_nothing(emulator: Emulator, client: Client) -> None:
    """A worker that was about to ask does not."""
    worker = sender.Worker(client)
    worker.stop()
    step = worker.ask(sender.Task("one"))
    assert isinstance(step.error, StreamClosedError)
    assert isinstance(worker.delete("t").error, StreamClosedError)
    assert stages(emulator) == []


def test_threads_begin_with_an_empty_context(emulator: Emulator) -> None:
    """On all builds: a free-threaded one would give each a copy of the caller's, with all that this holds."""
    variable = contextvars.ContextVar[str]("variable")
    seen = []

    class Looking(Client):
        def stream(self, *args: Any, **kwargs: Any) -> Stream:
            seen.append(variable.get("nothing"))
            return super().stream(*args, **kwargs)

    def go() -> None:
        variable.set("the caller's")
        with Looking(retry=AT_ONCE) as client:
            assert len(list(batch.run(["one", "two"], client=client))) == 2

    contextvars.copy_context().run(go)
    assert set(seen) == {"nothing"}


def test_the_first_batch_imports_no_threads(emulator: Emulator) -> None:
    """A fork during that import would release a lock of the standard library that it never took."""
    command = (
        "import sys; from copilot_sync import batch; assert next(batch.run(['one'])).text == 'one'; "
        "assert 'concurrent.futures.thread' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", command], check=True, env={**os.environ, **emulator.environment})
