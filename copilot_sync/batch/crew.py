"""Who works for a batch: threads of this process, or the workers of an executor, which may be anywhere.

Both take one step of one prompt at a time and promise a ``Step``. Neither decides anything, and neither knows
what else the batch is doing.
"""

import concurrent.futures
from typing import Callable, Optional, Set, Union

from copilot_sync.batch.asking import Asker, ClientSource, Step, Task, work
from copilot_sync.client import Client


class Threads:
    """Threads of this process over one client."""

    #: Whether a step may be done again by another worker without anybody here knowing.
    repeats = False

    def __init__(self, client: Union[Client, Callable[[], Client]], workers: int) -> None:
        self._client = client
        self._workers = workers

    def __enter__(self) -> "Threads":
        self._own = None if isinstance(self._client, Client) else self._client()
        self._asker = Asker(self._own or self._client)  # type: ignore[arg-type]
        self._pool = concurrent.futures.ThreadPoolExecutor(self._workers, "copilot-sync-batch")
        return self

    def submit(self, step: str, subject: Union[Task, str]) -> "concurrent.futures.Future[Step]":
        """Have a step done: ``begin`` or ``ask`` for a task, ``delete`` for a conversation's id."""
        return self._pool.submit(getattr(self._asker, step), subject)

    def __exit__(self, *exc_info: object) -> None:
        self._asker.stop()
        self._pool.shutdown()
        if self._own is not None:
            self._own.close()


class Elsewhere:
    """The workers of an executor, which may be other processes, and which may do a step twice when one dies."""

    repeats = True

    def __init__(self, executor: concurrent.futures.Executor, source: ClientSource) -> None:
        self._executor = executor
        self._source = source
        self._under_way: Set[concurrent.futures.Future[Step]] = set()

    def __enter__(self) -> "Elsewhere":
        return self

    def submit(self, step: str, subject: Union[Task, str]) -> "concurrent.futures.Future[Step]":
        """Have a step done, as ``Threads.submit`` does."""
        future = self._executor.submit(work, self._source, step, subject)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def __exit__(self, *exc_info: object) -> None:
        for future in list(self._under_way):
            future.cancel()


Crew = Union[Threads, Elsewhere]


def crew_of(
    client: Union[None, Client, Callable[[], Client]],
    executor: Optional[concurrent.futures.Executor],
    share_credentials: bool,
    workers: int,
) -> Crew:
    """Choose who works, as ``run`` is told.

    Raises:
        TypeError: ``client`` is none, or can't travel to the executor's workers.
        ValueError: It would travel with its credentials, and nobody said that it may.
    """
    if not (client is None or isinstance(client, Client) or callable(client)):
        raise TypeError(f"client must be a Client or a function that makes one, not {type(client).__name__}")
    if executor is None:
        return Threads(client or Client, workers)
    if not isinstance(client, Client):
        return Elsewhere(executor, ClientSource(client or Client))
    if not share_credentials:
        raise ValueError(
            "a Client would carry its credentials to the executor's workers: give a function that makes one there, "
            "or share_credentials=True"
        )
    return Elsewhere(executor, ClientSource(Given(client)))


class Given:
    """Makes the client that it was given: that one travels with its credentials."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self) -> Client:
        """Give it."""
        return self._client
