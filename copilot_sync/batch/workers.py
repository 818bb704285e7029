"""The workers of a batch: threads of this process, or the workers of an executor, which may run anywhere.

Both kinds take one step of one prompt at a time and return a future of its ``StepResult``. They decide nothing, and
they know nothing of the other prompts.

What goes to an executor and comes back can be pickled. A process that works for others makes one client for each
``ClientSource`` and keeps it for as long as the process lives, so credentials need not travel.

Threads: what runs in an executor is a set and the clients of a process a dictionary, and both are atomic. If two
threads come first at once, each makes a client, and one of them is used.
"""

import concurrent.futures
import contextvars
import pickle

# Not when the first batch starts: it registers what a fork has to do, and a fork in that moment would do half of it.
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Dict, Optional, Set, Union

from copilot_sync.batch.sender import StepResult, Task, Worker
from copilot_sync.client import Client
from copilot_sync.settings import Environment


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
        """Start a step. See ``ThreadWorkers.submit``."""
        future = self._executor.submit(work, self._source, step, subject)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

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
        TypeError: ``client`` has the wrong type, or can't be pickled for the executor's workers.
        ValueError: ``client`` would carry its credentials to the executor's workers without permission.
    """
    if not (client is None or isinstance(client, Client) or callable(client)):
        raise TypeError(f"client must be a Client or a function that makes one, not {type(client).__name__}")
    if executor is None:
        return ThreadWorkers(client or Client)
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
        client = pickle.loads(self._pickled)()  # noqa: S301 - pickled by the batch that this process works for
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


def work(source: ClientSource, step: str, subject: Union[Task, str]) -> StepResult:
    """Do one step in this process: ``begin``, ``ask`` or ``delete``."""
    result: StepResult = getattr(source.worker(), step)(subject)
    return result
