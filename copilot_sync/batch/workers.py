"""The workers of a batch: threads of this process, or the workers of an executor, which may run anywhere.

Both kinds take one step of one prompt at a time and tell when it has ended, with a future of its ``StepResult``. They
decide nothing, and they know nothing of the other prompts.

The threads are our own and not a ``ThreadPoolExecutor``: an exception out of a signal handler, as soft time limits and
Ctrl-C are, can leave the locks of one taken for ever (of its semaphore, or of a future that is given a callback), and
then no thread of it could end. Steps go to ours through a queue that no exception leaves locked.

What goes to an executor and comes back can be pickled. A process, or an interpreter, that works for others makes one
client for each ``ClientSource`` and keeps it for as long as it lives, so credentials need not travel.

Threads: steps go to them through an atomic queue, and how many there are concerns the thread that iterates alone. What
runs in an executor is a set, and the clients of a process are a dictionary; both are atomic. If two threads come first
at once, each makes a client, and one of them is used.
"""

import atexit
import concurrent.futures
import contextlib
import contextvars
import functools
import pickle
import queue
import re
import threading
import weakref
from typing import Callable, Dict, List, Optional, Set, Tuple, Union

from copilot_sync.batch.sender import StepResult, Task, Worker
from copilot_sync.client import Client
from copilot_sync.delivery.message import new_id
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer
from copilot_sync.os_threads import start_thread
from copilot_sync.settings import Environment

#: Seconds between two looks at whether a thread ends.
_JOIN_STEP = 0.1


class ExecutorError(CopilotError):
    """The executor of a batch takes no step, or one of its workers could not do one.

    The executor's own error is the ``__cause__``. Answers that were on their way are found by the next run.
    """


#: Is called in some thread when a step has ended.
Ended = Callable[["concurrent.futures.Future[StepResult]"], object]


class ThreadWorkers:
    """Threads of this process that share one client. Enter it before ``start``."""

    #: Whether a step may be repeated by another worker without this process knowing.
    may_duplicate = False

    def __init__(self, client: Union[Client, Callable[[], Client]]) -> None:
        self._client = client
        self._worker: Optional[Worker] = None
        self._most = 0
        self._busy = 0  # steps whose result was not asked for yet
        self._threads: List[_WorkerThread] = []
        self._steps: queue.SimpleQueue[Optional[_Step]] = queue.SimpleQueue()  # None ends the threads
        self._stopped = False

    def __enter__(self) -> "ThreadWorkers":
        self._own_client = None if isinstance(self._client, Client) else self._client()
        worker = self._worker = Worker(self._own_client or self._client)  # type: ignore[arg-type]
        if self._stopped:  # by another thread, while the client was made
            worker.stop()
        # If an exception or a caller keeps this object from being left, threads end with it, or with the interpreter;
        # there they do so before pools close their connections, which finalizers of their own see to.
        self._finalizer = weakref.finalize(self, _end_threads, worker, self._steps, self._threads)
        atexit.register(self._finalizer)
        return self

    @property
    def api_url(self) -> Optional[str]:
        """The API that is asked; ``None`` if that is not known here."""
        assert self._worker is not None  # noqa: S101 - __enter__ makes it
        return self._worker.api_url

    def recall(self, task: Task) -> Optional[Answer]:
        """Return the answer to a task if the client's cache has it. It may block for a moment."""
        assert self._worker is not None  # noqa: S101 - __enter__ makes it
        return self._worker.recall(task)

    def start(self, workers: int) -> None:
        """Allow so many threads. Each starts when there is a step for it."""
        self._most = workers

    def submit(self, step: str, subject: Union[Task, str], ended: Ended) -> None:
        """Start a step: ``begin`` or ``ask`` for a task, ``delete`` for the id of a conversation.

        Hooks are told of it in the context of whoever calls this, so that what is traced has its parent.

        Args:
            step: The step.
            subject: What it is done with.
            ended: Called when it has ended, in any thread.

        Raises:
            RuntimeError: There can't be another thread.
        """
        self._busy += 1
        work = getattr(self._worker, step)
        if step == "ask":
            work = functools.partial(work, hook_context=contextvars.copy_context())
        self._steps.put((work, subject, ended))
        if len(self._threads) < min(self._busy, self._most):
            self._threads.append(_WorkerThread(self._steps, f"copilot-sync-batch_{len(self._threads)}"))
            start_thread(self._threads[-1])

    def result(self, future: "concurrent.futures.Future[StepResult]") -> StepResult:
        """Return the result of a step that has ended."""
        self._busy -= 1
        return future.result()

    def stop(self) -> None:
        """End all steps that are running. Safe from any thread and from a signal handler."""
        self._stopped = True
        if self._worker is not None:
            self._worker.stop()

    def __exit__(self, *exc_info: object) -> None:
        assert self._worker is not None  # noqa: S101 - __enter__ made it
        _end_threads(self._worker, self._steps, self._threads)
        self._finalizer.detach()  # not before: an exception may come out of a join
        atexit.unregister(self._finalizer)
        if self._own_client is not None:
            self._own_client.close()


_Step = Tuple[Callable[..., StepResult], Union[Task, str], Ended]


class _WorkerThread(threading.Thread):
    """Does one step after the other until one is ``None``.

    Attributes:
        done: Whether it ends or has ended.
    """

    def __init__(self, steps: "queue.SimpleQueue[Optional[_Step]]", name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._steps = steps
        self.done = False

    def run(self) -> None:
        """Do the steps."""
        while True:
            step = self._steps.get()
            if step is None:
                break
            work, subject, ended = step
            future: concurrent.futures.Future[StepResult] = concurrent.futures.Future()
            try:
                future.set_result(work(subject))
            except BaseException as error:  # noqa: BLE001 - the thread that iterates gets it, whatever it is
                future.set_exception(error)
            ended(future)
            del step, work, subject, ended, future  # what a batch holds does not stay while the thread waits
        self._steps.put(None)  # for the next thread
        self.done = True


def _end_threads(worker: Worker, steps: "queue.SimpleQueue[Optional[_Step]]", threads: List[_WorkerThread]) -> None:
    """End the steps of threads, and the threads."""
    worker.stop()
    steps.put(None)
    for thread in threads:
        with contextlib.suppress(RuntimeError):  # it did not start, or whoever started it was interrupted
            # In Python 3.8, an exception out of a join can leave a lock taken, and the thread alive for ever.
            while thread.is_alive() and not thread.done:
                thread.join(_JOIN_STEP)
            thread.join(_JOIN_STEP)


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

    def recall(self, task: Task) -> Optional[Answer]:
        """Return ``None``: only the executor's workers have clients, which look when they begin a conversation."""
        return None

    def start(self, workers: int) -> None:
        """Do nothing: the executor has its own workers."""

    def submit(self, step: str, subject: Union[Task, str], ended: Ended) -> None:
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
        future.add_done_callback(ended)

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
