"""The workers of a batch: threads of this process, or the workers of an executor, which may run anywhere.

Both kinds take one step of one prompt at a time and return a future of its ``StepResult``. They decide nothing, and
they know nothing of the other prompts.

What goes to an executor and comes back can be pickled. A process, or an interpreter, that works for others makes one
client for each ``ClientSource`` and keeps it for as long as it lives, so credentials need not travel.

Threads: what runs in an executor is a set, and the clients of a process are a dictionary; both are atomic. If two
threads come first at once, each makes a client, and one of them is used.
"""

import concurrent.futures
import contextvars
import pickle
import re

# Not when the first batch starts: it registers what a fork has to do, and a fork in that moment would do half of it.
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Dict, Optional, Set, Union

from copilot_sync.batch.sender import StepResult, Task, Worker
from copilot_sync.client import Client
from copilot_sync.delivery.message import new_id
from copilot_sync.errors import CopilotError
from copilot_sync.settings import Environment


class ExecutorError(CopilotError):
    """The executor of a batch takes no step, or one of its workers could not do one.

    The executor's own error is the ``__cause__``. Answers that were on their way are found by the next run.
    """


class ThreadWorkers:
    """Threads of this process that share one client. Enter it before ``start``."""

    #: Whether a step may be repeated by another worker without this process knowing.
    may_duplicate = False

    def __init__(self, client: Union[Client, Callable[[], Client]]) -> None:
        self._client = client
        self._worker: Optional[Worker] = None
        self._pool: Optional[ThreadPoolExecutor] = None
        self._stopped = False

    def __enter__(self) -> "ThreadWorkers":
        self._own_client = None if isinstance(self._client, Client) else self._client()
        self._worker = Worker(self._own_client or self._client)  # type: ignore[arg-type]
        if self._stopped:  # by another thread, while the client was made
            self._worker.stop()
        return self

    @property
    def api_url(self) -> Optional[str]:
        """The API that is asked; ``None`` if that is not known here."""
        assert self._worker is not None  # noqa: S101 - __enter__ makes it
        return self._worker.api_url

    def start(self, workers: int) -> None:
        """Start so many threads."""
        self._pool = ThreadPoolExecutor(workers, "copilot-sync-batch")

    def submit(self, step: str, subject: Union[Task, str]) -> "concurrent.futures.Future[StepResult]":
        """Start a step: ``begin`` or ``ask`` for a task, ``delete`` for the id of a conversation."""
        assert self._pool is not None  # noqa: S101 - start() makes it
        # It starts threads, which a free-threaded build would start in a copy of the caller's context.
        return contextvars.Context().run(self._pool.submit, getattr(self._worker, step), subject)

    def result(self, future: "concurrent.futures.Future[StepResult]") -> StepResult:
        """Return the result of a step that has ended."""
        return future.result()

    def stop(self) -> None:
        """End all steps that are running. Safe from any thread and from a signal handler."""
        self._stopped = True
        if self._worker is not None:
            self._worker.stop()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        if self._pool is not None:
            self._pool.shutdown()
        if self._own_client is not None:
            self._own_client.close()


class ExecutorWorkers:
    """The workers of an executor. They may be other processes, and a step may run twice if one of them dies."""

    may_duplicate = True

    def __init__(self, executor: concurrent.futures.Executor, source: "ClientSource", api_url: Optional[str]) -> None:
        self._executor = executor
        self._source = source
        self.api_url = api_url
        self._running: Set[concurrent.futures.Future[StepResult]] = set()

    def __enter__(self) -> "ExecutorWorkers":
        return self

    def start(self, workers: int) -> None:
        """Do nothing: the executor has its own workers."""

    def submit(self, step: str, subject: Union[Task, str]) -> "concurrent.futures.Future[StepResult]":
        """Start a step. See ``ThreadWorkers.submit``.

        Raises:
            ExecutorError: The executor takes none.
        """
        try:
            future = self._executor.submit(work, self._source, step, subject, new_id())
        except (RuntimeError, OSError) as error:  # it was shut down, it is broken, or it can't start a worker
            raise ExecutorError(f"the executor takes no step: {_description(error)}") from error
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def result(self, future: "concurrent.futures.Future[StepResult]") -> StepResult:
        """Return the result of a step that has ended.

        Raises:
            CopilotError: No client could be made where the step should run.
            ExecutorError: The step was cancelled, or its worker ended, or could not do it.
        """
        try:
            return future.result()
        except CopilotError:
            raise
        except concurrent.futures.CancelledError:
            raise ExecutorError("the executor cancelled a step: was it shut down?") from None
        except Exception as error:  # the step has ended; whatever it ended with is the executor's
            raise ExecutorError(f"a worker of the executor could not do a step: {_description(error)}") from error

    def stop(self) -> None:
        """Do nothing: steps in other processes can't be ended from here."""

    def __exit__(self, *exc_info: object) -> None:
        for future in self._running.copy():
            future.cancel()


WorkerPool = Union[ThreadWorkers, ExecutorWorkers]


def make_workers(
    client: Union[None, Client, Callable[[], Client]],
    executor: Optional[concurrent.futures.Executor],
    share_credentials: bool,
) -> WorkerPool:
    """Choose the workers by the arguments of ``run``.

    Raises:
        TypeError: ``client`` or ``executor`` has the wrong type, or ``client`` can't be pickled for the workers.
        ValueError: ``client`` would carry its credentials to the executor's workers without permission.
    """
    if not (client is None or isinstance(client, Client) or callable(client)):
        raise TypeError(f"client must be a Client or a function that makes one, not {type(client).__name__}")
    if executor is None:
        return ThreadWorkers(client or Client)
    if not isinstance(executor, concurrent.futures.Executor):
        kind = f"the class {executor.__name__}" if isinstance(executor, type) else type(executor).__name__
        advice = ": pass its get_executor()" if hasattr(executor, "get_executor") else ""
        raise TypeError(f"executor must be a concurrent.futures.Executor, not {kind}{advice}")
    if not isinstance(client, Client):
        # Nobody knows here which API a function's client asks. Without one, this process's environment counts.
        return ExecutorWorkers(executor, ClientSource(client or Client), None if client else Environment.read().api_url)
    if not share_credentials:
        raise ValueError(
            "a Client would carry its credentials to the executor's workers: pass a function that makes one there, "
            "or share_credentials=True"
        )
    return ExecutorWorkers(executor, ClientSource(PickledClient(client)), client.api_url)


class ClientSource:
    """A function that makes a client, pickled for other processes. Its ``repr`` shows nothing of what is inside.

    Args:
        make: Makes a client. It has to be picklable: a function or a class of a module, or a ``partial`` of one.

    Raises:
        TypeError: It can't be pickled.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        try:
            self._pickled = pickle.dumps(make)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"client must be a function of a module, which can be pickled, for other processes: {error}"
            ) from None

    def worker(self) -> Worker:
        """Return this process's worker for this source. All threads share it."""
        known = _process_workers.get(self._pickled)
        if known is not None:
            return known
        try:
            make = pickle.loads(self._pickled)  # noqa: S301 - pickled by the batch that this process works for
        except (AttributeError, ImportError) as error:
            words = "client is a function that a worker of the executor can't import; put it into a module of its own"
            raise TypeError(f"{words}, not into the program that is started: {error}") from None
        client = make()
        # If two threads come at once, one client is kept and the other is never used.
        return _process_workers.setdefault(self._pickled, Worker(client))

    def __repr__(self) -> str:
        return "<ClientSource>"


class PickledClient:
    """Returns a client that already exists. It is pickled with its credentials."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self) -> Client:
        """Return the client."""
        return self._client


#: The workers of this process by their pickled source. Connections and tokens last from one prompt to the next.
_process_workers: Dict[bytes, Worker] = {}


def work(source: ClientSource, step: str, subject: Union[Task, str], unique: str) -> StepResult:
    """Do one step in this process: ``begin``, ``ask`` or ``delete``.

    Args:
        source: Makes the client.
        step: The step.
        subject: What it is done with.
        unique: Differs from step to step. An engine may take two calls with equal arguments for one, as Dask does, but
            each of two prompts with the same text needs a conversation of its own.
    """
    result: StepResult = getattr(source.worker(), step)(subject)
    return result


#: The line of a traceback, as text, that names the exception.
_EXCEPTION_LINE = re.compile(r"^[\w.]+: .+", re.MULTILINE)


def _description(error: BaseException) -> str:
    """Return what an executor's error says, and what it came of: its cause may be a worker's traceback as text."""
    words = f"{type(error).__name__}: {error}"
    origin = _EXCEPTION_LINE.search(str(error.__cause__ or ""))
    return f"{words} ({origin.group()})" if origin and origin.group() not in words else words
