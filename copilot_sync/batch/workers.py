"""Who works for a batch: threads of this process, or the workers of an executor, which may be anywhere.

Both take one step of one prompt at a time and promise a ``StepResult``. Neither decides anything, and neither knows
what else the batch is doing.
"""

import concurrent.futures
from typing import Callable, Optional, Set, Union

from copilot_sync.batch.sender import ClientSource, StepResult, Task, Worker, work
from copilot_sync.client import Client
from copilot_sync.settings import Environment


class ThreadWorkers:
    """Threads of this process over one client. ``start`` is called once it was entered."""

    #: Whether a step may be done again by another worker without anybody here knowing.
    may_duplicate = False

    def __init__(self, client: Union[Client, Callable[[], Client]]) -> None:
        self._client = client
        self._worker: Optional[Worker] = None
        self._pool: Optional[concurrent.futures.ThreadPoolExecutor] = None
        self._stopped = False

    def __enter__(self) -> "ThreadWorkers":
        self._own = None if isinstance(self._client, Client) else self._client()
        self._worker = Worker(self._own or self._client)  # type: ignore[arg-type]
        if self._stopped:  # meanwhile
            self._worker.stop()
        return self

    @property
    def api_url(self) -> Optional[str]:
        """Who is asked, where that is known here."""
        assert self._worker is not None  # noqa: S101 - it is made on entering
        return self._worker.api_url

    def start(self, workers: int) -> None:
        """Have so many steps done at once."""
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, "copilot-sync-batch")

    def submit(self, step: str, subject: Union[Task, str]) -> "concurrent.futures.Future[StepResult]":
        """Have a step done: ``begin`` or ``ask`` for a task, ``delete`` for a conversation's id."""
        assert self._pool is not None  # noqa: S101 - it is there from start on
        return self._pool.submit(getattr(self._worker, step), subject)

    def stop(self) -> None:
        """End what is under way. May be called from any thread and from a signal's handler."""
        self._stopped = True
        if self._worker is not None:
            self._worker.stop()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        if self._pool is not None:
            self._pool.shutdown()
        if self._own is not None:
            self._own.close()


class ExecutorWorkers:
    """The workers of an executor, which may be other processes, and which may do a step twice when one dies."""

    may_duplicate = True

    def __init__(self, executor: concurrent.futures.Executor, source: ClientSource, api_url: Optional[str]) -> None:
        self._executor = executor
        self._source = source
        self.api_url = api_url
        self._under_way: Set[concurrent.futures.Future[StepResult]] = set()

    def __enter__(self) -> "ExecutorWorkers":
        return self

    def start(self, workers: int) -> None:
        """Nothing is to be started: the executor has its workers."""

    def submit(self, step: str, subject: Union[Task, str]) -> "concurrent.futures.Future[StepResult]":
        """Have a step done, as ``ThreadWorkers.submit`` does."""
        future = self._executor.submit(work, self._source, step, subject)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def stop(self) -> None:
        """Nothing that can be ended from here is under way."""

    def __exit__(self, *exc_info: object) -> None:
        for future in self._under_way.copy():
            future.cancel()


WorkerPool = Union[ThreadWorkers, ExecutorWorkers]


def make_workers(
    client: Union[None, Client, Callable[[], Client]],
    executor: Optional[concurrent.futures.Executor],
    share_credentials: bool,
) -> WorkerPool:
    """Choose who works, as ``run`` is told.

    Raises:
        TypeError: ``client`` is none, or can't travel to the executor's workers.
        ValueError: It would travel with its credentials, and nobody said that it may.
    """
    if not (client is None or isinstance(client, Client) or callable(client)):
        raise TypeError(f"client must be a Client or a function that makes one, not {type(client).__name__}")
    if executor is None:
        return ThreadWorkers(client or Client)
    if not isinstance(client, Client):
        # Workers have this process's environment, or one of their own; what a function makes is not known here.
        return ExecutorWorkers(executor, ClientSource(client or Client), None if client else Environment.read().api_url)
    if not share_credentials:
        raise ValueError(
            "a Client would carry its credentials to the executor's workers: give a function that makes one there, "
            "or share_credentials=True"
        )
    return ExecutorWorkers(executor, ClientSource(Given(client)), client.api_url)


class Given:
    """Makes the client that it was given: that one travels with its credentials."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self) -> Client:
        """Give it."""
        return self._client
