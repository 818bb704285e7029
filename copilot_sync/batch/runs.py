"""``run``, which checks the arguments of a batch, and ``Run``, the iterator that it returns.

Nothing is opened or sent before the first result is asked for, and nothing is read but the files to attach.

Threads: the generator of the results is locked. Its other parts are confined to the thread that iterates.
"""

import concurrent.futures
import contextlib
import functools
import math
import os
import threading
from typing import Any, Callable, Generator, Iterable, Mapping, Optional, Tuple, Union

from copilot_sync.batch.disk_dict import DiskDict
from copilot_sync.batch.intake import Intake
from copilot_sync.batch.journal import AnyJournal, Journal, NullJournal
from copilot_sync.batch.output_forms import FORMS
from copilot_sync.batch.prompts import PromptSource
from copilot_sync.batch.results import Result
from copilot_sync.batch.scheduler import Scheduler
from copilot_sync.batch.steps import StepRunner
from copilot_sync.batch.work_items import PromptDefaults
from copilot_sync.batch.workers import make_workers
from copilot_sync.client import Client
from copilot_sync.errors import CopilotError, StreamClosedError
from copilot_sync.inline_files import FileInput, inline_files, read_files
from copilot_sync.message_parts import Attachments
from copilot_sync.pacing.limiter import BY_HOST, RateLimiter, checked_count, checked_rate, pace_for
from copilot_sync.protocol.requests import MessageOptions
from copilot_sync.settings import Timeout, TimeoutValue
from copilot_sync.structured import REPAIRS, Expectation
from copilot_sync.text_files import PathLike


def run(
    prompts: PromptSource,
    *,
    client: Union[None, Client, Callable[[], Client]] = None,
    workers: Optional[int] = None,
    rate: Optional[float] = BY_HOST,
    max_failures: Optional[int] = None,
    model: Optional[str] = None,
    system: Optional[str] = None,
    files: Optional[Iterable[FileInput]] = None,
    extra: Optional[Mapping[str, Any]] = None,
    label: Optional[str] = None,
    schema: Any = None,
    repairs: int = REPAIRS,
    timeout: TimeoutValue = None,
    ordered: bool = False,
    delete_threads: bool = False,
    output: Union[None, str, PathLike] = None,
    output_format: str = "jsonl",
    retry_failed: bool = False,
    rate_limiter: Optional[RateLimiter] = None,
    executor: Optional[concurrent.futures.Executor] = None,
    share_credentials: bool = False,
) -> "Run":
    """Ask many prompts, and iterate over their results as they come.

    >>> for result in run(["Explain WSGI", "Explain ASGI"], workers=2):  # doctest: +SKIP
    ...     print(result.id, result.text or result.error)

    A prompt that fails has a result with an ``error`` and does not stop the others. If the service asks to slow down,
    fails, or can't be reached, all prompts wait. Then one is tried, and if it is answered, the others follow. A failure
    that every prompt would meet ends the batch: refused credentials, a used-up quota, a service that has not answered
    for two minutes.

    No prompt is read and nothing is sent before you ask for the first result, and nothing new starts between two
    results. ``close``, or the end of the ``with`` block, ends everything that is running and leaves no thread.

    Args:
        prompts: Texts, dictionaries with the keys of a JSON line, ``Prompt`` values, or what ``read`` returns. They are
            read one by one, as they are needed. If they can be iterated twice, as a list or a file can, their ids are
            checked before anything is sent. A prompt without an id gets its position in the list, from 0, or the number
            of its line.
        client: The client to ask with, or a function that makes one. Default: a new client, from the environment.
        workers: How many prompts are asked at once, at most. Default: 2; 8 if the API is on this machine, such as an
            emulator's.
        rate: How many prompts may start in a minute, at equal distances; ``None`` for any number. Default: 20; any
            number if the API is on this machine.
        max_failures: How many prompts may fail. When so many have failed, no further prompt starts, and
            ``TooManyFailuresError`` is raised once the running ones have ended. Default: any number.
        model: The model for prompts that name none. Default: the client's.
        system: Instructions for the model, for prompts that have none.
        files: Text files to attach to every prompt, behind its own, of at most 1 MiB each: paths, which are read by
            this call, or pairs of a name and a text.
        extra: Further fields of every message, as ``Client.ask`` takes them.
        label: What the batch is for, in words of yours, for your own records. The service is not told.
        schema: What answers have to fit, to become ``Result.parsed``, for prompts that have no schema of their own: a
            JSON Schema, or a type that pydantic takes. Its JSON Schema is added to the prompt. Default: any text.
        repairs: How often an answer that does not fit is asked for again, in the same conversation. If none fits, the
            prompt has failed. Default 2.
        timeout: The timeout of each prompt: seconds of silence, or a ``Timeout``. Default: the client's.
        ordered: Return the results in the order of the prompts. A slow prompt holds up the results behind it.
        delete_threads: Delete the conversations that the batch began, each once its answer is written.
        output: A file that keeps the results as JSON Lines. A result is returned once it is on the disk. A prompt that
            has a result in the file is not asked again, even if its text has changed, and the result is not returned
            again. A ``.journal`` lies beside the file until nothing is left to do. A file that was not written by a
            batch is refused and not changed.
        output_format: What the lines of ``output`` are like: ``jsonl``, as ``Result.to_dict`` has them, or ``openai``,
            the results of OpenAI's batches. There, an answer without text is a failure.
        retry_failed: Ask those prompts again whose result in ``output`` is a failure.
        rate_limiter: A limiter that several batches share. It replaces ``rate``, and ``workers`` defaults to its
            concurrency.
        executor: Runs the steps instead of threads of this process: a ``concurrent.futures.Executor``, such as a pool
            of threads, processes or interpreters, or Dask's. It is not shut down. Its workers may be processes
            anywhere; each process or interpreter keeps one client. ``client`` has to be a function that can be pickled
            and that the workers can import, or ``None`` for the environment of the workers.
        share_credentials: Whether a ``Client`` may be pickled for ``executor``, together with its credentials.

    Raises:
        TypeError: An argument has the wrong type.
        OSError: A file can't be read.
        ImportError: What judges the ``schema`` is not installed.
        ValueError: An argument can't be used. While iterating: two prompts have the same id, or a file of prompts is
            faulty as a whole.
        JournalError: While iterating: the output can't be written, is in use, is damaged, or is not a batch's.
        TooManyFailuresError: While iterating: see ``max_failures``.
        ExecutorError: While iterating: the executor was shut down, its workers ended, or they can't do a step.
        CopilotError: While iterating: a failure that every prompt would meet.
    """
    if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Iterable):
        raise TypeError(f"prompts must be a list or what read() returns, not {type(prompts).__name__}")
    if rate is not BY_HOST and rate is not None:
        if rate_limiter is not None:
            raise ValueError("a rate_limiter has its own rate: pass one of the two")
        checked_rate(rate)
    if max_failures is not None:
        checked_count("max_failures", max_failures)
    if retry_failed and output is None:
        raise ValueError("retry_failed needs the output that holds the failed results")
    if output_format not in FORMS:
        raise ValueError(f"an output_format is one of {', '.join(FORMS)}, not {output_format!r}")
    form = FORMS[output_format]
    for name, text in (("model", model), ("system", system), ("label", label)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} must be a string, not {type(text).__name__}")
    Timeout.from_value(timeout)
    expected = Expectation.from_values(schema, repairs)
    extra = MessageOptions.coerce(extra=extra).extra
    attachments = Attachments(inline_files(read_files(files)))
    if workers is not None:
        checked_count("workers", workers)
    output = None if output is None else os.fsdecode(output)
    pool = make_workers(client, executor, share_credentials)

    def pace(api_url: Optional[str]) -> Tuple[int, RateLimiter]:
        """Choose the number of workers and the limiter, once it is known which API is asked."""
        if rate_limiter is not None:
            return workers or rate_limiter.concurrency, rate_limiter
        concurrency, per_minute = pace_for(api_url, workers, rate)
        return concurrency, RateLimiter(concurrency, rate=per_minute)

    expected_schema = expected and expected.schema
    defaults = PromptDefaults(model, system, timeout, attachments, extra, label, expected_schema, repairs)
    intake = Intake(prompts, defaults)
    steps = StepRunner(pool)
    make_scheduler = functools.partial(
        Scheduler,
        intake,
        steps,
        max_failures=math.inf if max_failures is None else max_failures,
        ordered=ordered,
        delete_threads=delete_threads,
        judge=form.judge,
    )

    def results() -> Generator[Result, None, None]:
        with contextlib.ExitStack() as stack:
            intake.check_ids(stack.enter_context(DiskDict()), steps.check_stopped)
            journal: AnyJournal = NullJournal()
            if output is not None:
                journal = stack.enter_context(Journal(output, retry_failed=retry_failed, form=form))
            stack.enter_context(pool)
            concurrency, limiter = pace(pool.api_url)
            pool.start(concurrency)
            yield from make_scheduler(journal, limiter, concurrency).results()

    return Run(intake, steps, results())


class Run:
    """The results of a batch, as they come. For one thread, except for ``close``. Made by ``run``."""

    def __init__(self, intake: Intake, steps: StepRunner, results: Generator[Result, None, None]) -> None:
        self._intake = intake
        self._steps = steps
        self._results = results
        # Reentrant, because a signal handler may close the run whose next result its own thread waits for.
        self._lock = threading.RLock()
        self._waiting = False  # whether a thread is inside the generator
        self._ended = False
        self._closed_by: Optional[int] = None

    @property
    def total(self) -> Optional[int]:
        """How many prompts there are; ``None`` before the first result, and if they can be iterated only once."""
        return self._intake.total

    @property
    def skipped(self) -> int:
        """How many prompts have not been asked so far because the output has their result."""
        return self._intake.skipped

    @property
    def skipped_failures(self) -> int:
        """How many of the ``skipped`` have a failure there."""
        return self._intake.skipped_failures

    def __iter__(self) -> "Run":
        return self

    def __next__(self) -> Result:
        """Wait for the next result.

        Raises:
            StreamClosedError: Another thread closed the run.
        """
        if self._closed_by is not None:
            raise self._end_of_closed()
        with self._lock:
            self._waiting = True
            try:
                return next(self._results)
            except (StopIteration, CopilotError):
                if self._closed_by is None:
                    self._ended = True
                    raise
            finally:
                self._waiting = False
                if self._closed_by is not None:
                    self._results.close()
        raise self._end_of_closed()

    def _end_of_closed(self) -> Exception:
        """Return the exception with which a closed run ends for the calling thread."""
        if self._ended or self._closed_by == threading.get_ident():
            return StopIteration()
        return StreamClosedError("the batch was closed by another thread")

    def close(self) -> None:
        """End everything that is running, and leave no thread. Prompts without a result have none in the output either.

        Safe from any thread and from a signal handler, any number of times. If another thread waits for a result, it
        gets ``StreamClosedError``. If the same thread does, its loop ends.
        """
        if self._closed_by is None:
            self._closed_by = threading.get_ident()
        self._steps.stop()
        # A thread that is inside the generator wakes up and closes it.
        if not self._waiting:
            with self._lock:
                self._results.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
