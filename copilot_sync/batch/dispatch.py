"""Many prompts, a few at a time: ``run``, the iterator of their results.

All decisions are made in the thread that iterates: which prompt is next, whether the gate lets it in, what is
recorded, what is handed out. Workers do one step of one prompt at a time and know nothing of each other. So nothing
is under way that the one who iterates did not begin, and nothing is begun while nobody asks for a result.

A prompt goes through up to three steps: its conversation is begun; then, when what finds the message again is recorded,
it is asked; at last, if wanted, the conversation is deleted. It holds one place of the gate from the first step to
the last.
"""

import concurrent.futures
import contextlib
import itertools
import logging
import math
import os
import queue
import threading
from collections import deque
from typing import Callable, Deque, Generator, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

from copilot_sync.batch.disk_dict import DiskDict
from copilot_sync.batch.failures import (
    is_fatal,
    is_global_failure,
    is_own_word,
    may_be_the_prompts,
    may_have_been_taken,
    shared_cause,
    was_in_answer,
)
from copilot_sync.batch.journal import Journal, NullJournal
from copilot_sync.batch.prompts import BadLine, Prompt, PromptSource, read_prompt
from copilot_sync.batch.results import Result, may_have_answer, result_of_bad_line
from copilot_sync.batch.sender import StepResult, Task
from copilot_sync.batch.work_items import CompletionOrder, ConversationQueues, FinishedItem, InputOrder, Tasks, WorkItem
from copilot_sync.batch.workers import WorkerPool, make_workers
from copilot_sync.client import Client, TimeoutValue
from copilot_sync.errors import (
    CopilotError,
    NotFoundError,
    PermissionDeniedError,
    StreamClosedError,
    StreamInterruptedError,
)
from copilot_sync.models import Answer, Conversation
from copilot_sync.pacing.limiter import BY_HOST, RateLimiter, checked_count, checked_rate, pace_for
from copilot_sync.protocol.requests import ROOT
from copilot_sync.settings import Timeout

logger = logging.getLogger(__name__)

#: Seconds that everybody waits at most for the service; where it asks for more, the batch ends.
_LONGEST_WAIT = 3600.0
#: Refusals and failures of the service without one answer between, with a pause for everybody after each, that end a
#: batch: some two minutes.
_MOST_IN_ROW = 8
#: How often a prompt is refused, or meets what looks like an outage, while others are answered, before it fails.
_MOST_REFUSALS = 10
_MOST_FAILURES = 3
#: Forbidden prompts without one answer between that end a batch: it is the account then, and not the prompts.
_MOST_FORBIDDEN = 5
#: Prompts that are under way or waiting for an earlier one, for each worker and at least.
_WINDOW_PER_WORKER = 8
_SMALLEST_WINDOW = 64
#: Seconds between two looks at a gate that others have filled, and between two chances for a Ctrl-C on Windows.
_LOOK = 0.05
_WAKE = 1.0


class TooManyFailuresError(CopilotError):
    """A batch ended because as many prompts had failed as it was allowed at most."""


def run(
    prompts: PromptSource,
    *,
    client: Union[None, Client, Callable[[], Client]] = None,
    workers: Optional[int] = None,
    rate: Optional[float] = BY_HOST,
    max_failures: Optional[int] = None,
    model: Optional[str] = None,
    system: Optional[str] = None,
    timeout: TimeoutValue = None,
    ordered: bool = False,
    delete_threads: bool = False,
    output: "Union[None, str, os.PathLike[str]]" = None,
    retry_failed: bool = False,
    rate_limiter: Optional[RateLimiter] = None,
    executor: Optional[concurrent.futures.Executor] = None,
    share_credentials: bool = False,
) -> "Run":
    """Ask many prompts, and iterate their results as they come.

    >>> for result in run(["Explain WSGI", "Explain ASGI"], workers=2):  # doctest: +SKIP
    ...     print(result.id, result.text or result.error)

    A prompt that fails gives a result with an ``error`` and does not stop the others. If the service asks to slow
    down, fails or can't be reached, all of them wait, one tries again, and the others follow. What would meet all of
    them ends the batch: credentials that are refused, a quota that is used up, a service that is not there after two
    minutes.

    Nothing is read or sent before the first result is asked for, and nothing new is begun between two of them.
    Closing the iterator, from wherever, or leaving its ``with`` block, ends what is under way; no thread is left.

    Args:
        prompts: Texts, dictionaries as lines of JSON have them, ``Prompt`` values, or what ``read`` gives. They are
            taken one by one as they are needed. Where they can be iterated twice, as a list or a file, their ids
            are checked before anything is sent. Prompts without an id have their place in a list, from 0, or
            their line's number as theirs.
        client: What is asked with, or a function that makes it. Default: a client of its own, from the environment.
        workers: How many prompts are under way at once, at most. Default: 2; 8 if the API is on this machine, such as
            an emulator's.
        rate: How many prompts may begin in a minute, at equal distances; ``None`` for any number. Default: 20; any
            number if the API is on this machine.
        max_failures: After so many failed prompts no further one is begun, and ``TooManyFailuresError`` is raised
            when those that are under way have ended. Default: any number may fail.
        model: The model of prompts that name none. Default: the client's.
        system: Instructions for the model, for prompts that have none.
        timeout: For each prompt: seconds of silence allowed, or a ``Timeout``. Default: the client's.
        ordered: Hand the results out in the order of the prompts. One that takes long holds up those behind it.
        delete_threads: Delete the conversations that the batch made, each when its answer is had.
        output: A file that keeps the results as JSON Lines. A result is handed out when it is on the disk. A
            prompt that has one there is not asked again. Beside the file lies a ``.journal`` as long as there is
            something left to do. A file that a batch did not write is refused and left as it is.
        retry_failed: Ask those prompts again whose result in ``output`` is a failure.
        rate_limiter: What lets prompts through, in place of ``workers`` and ``rate``, where batches share one.
        executor: Who does the asking, in place of threads of this process. Its workers may be processes anywhere; a
            process keeps one client. ``client`` is a function that can be pickled then, or ``None`` for the
            environment of the workers.
        share_credentials: Whether a ``Client`` may be pickled for ``executor``, with the credentials in it.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can't be used. While iterating: two prompts have the same id, or a file of prompts
            can't be relied on.
        JournalError: While iterating: the output can't be written, is in use, damaged, or not a batch's.
        TooManyFailuresError: While iterating: see ``max_failures``.
        CopilotError: While iterating: what would meet all prompts.
    """
    if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Iterable):
        raise TypeError(f"prompts must be a list or what read() gives, not {type(prompts).__name__}")
    if rate is not BY_HOST and rate is not None:
        if rate_limiter is not None:
            raise ValueError("a rate_limiter has its own rate: pass one of the two")
        checked_rate(rate)
    if max_failures is not None:
        checked_count("max_failures", max_failures)
    if retry_failed and output is None:
        raise ValueError("retry_failed needs the output that holds the failed results")
    for name, text in (("model", model), ("system", system)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} must be a string, not {type(text).__name__}")
    Timeout.from_value(timeout)
    if workers is not None:
        checked_count("workers", workers)
    pool = make_workers(client, executor, share_credentials)

    def pace(api_url: Optional[str]) -> Tuple[int, RateLimiter]:
        if rate_limiter is not None:
            return workers or rate_limiter.concurrency, rate_limiter
        concurrency, a_minute = pace_for(api_url, workers, rate)
        return concurrency, RateLimiter(concurrency, rate=a_minute)

    batch = Batch(
        prompts,
        Tasks(model, system, timeout),
        pool,
        pace,
        max_failures=math.inf if max_failures is None else max_failures,
        ordered=ordered,
        delete_threads=delete_threads,
    )
    return Run(batch, None if output is None else os.fsdecode(output), retry_failed)


class Run:
    """The results of a batch, as they come. For one thread, but for ``close``.

    Runs are made by ``run``.
    """

    def __init__(self, batch: "Batch", output: Optional[str], retry_failed: bool) -> None:
        self._batch = batch
        self._results = _results(batch, output, retry_failed)
        # Re-entrant, because a signal's handler may close the very run whose next result its thread waits for.
        self._lock = threading.RLock()
        self._waiting = False  # whether a thread is inside of the generator
        self._ended = False
        self._closed_by: Optional[int] = None

    @property
    def total(self) -> Optional[int]:
        """How many prompts there are; ``None`` before the first result and where they can be gone through only once."""
        return self._batch.total

    @property
    def skipped(self) -> int:
        """How many prompts were not asked so far, because the output has a result of theirs."""
        return self._batch.skipped

    @property
    def skipped_failures(self) -> int:
        """How many of the ``skipped`` have a failure there."""
        return self._batch.skipped_failures

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
        """What ends the iteration of a run that was closed, for the thread that asks."""
        if self._ended or self._closed_by == threading.get_ident():
            return StopIteration()
        return StreamClosedError("the batch was closed by another thread")

    def close(self) -> None:
        """End what is under way and leave no thread. What had no result yet has none in the output either.

        May be called from any thread and from a signal's handler, any number of times. A thread that waits for a result
        gets ``StreamClosedError``, or the end of its loop if it is the one that closed.
        """
        if self._closed_by is None:
            self._closed_by = threading.get_ident()
        self._batch.stop()
        # A thread that is inside wakes up, and closes everything itself.
        if not self._waiting:
            with self._lock:
                self._results.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _results(batch: "Batch", output: Optional[str], retry_failed: bool) -> Generator[Result, None, None]:
    with contextlib.ExitStack() as stack:
        batch.check_ids(stack)
        if output is not None:
            batch.journal = stack.enter_context(Journal(output, retry_failed=retry_failed))
        stack.enter_context(batch.pool)
        batch.start()
        yield from batch.results()


class Batch:
    """The state of a run. For the one thread that iterates it, but for ``stop``.

    Args:
        prompts: What is asked.
        tasks: What they have in common.
        crew: Who asks.
        pace: Gives, for the API that is asked, how many workers there are and the gate.
        max_failures: After so many failures no further prompt is begun.
        ordered: Whether results are handed out in the order of the prompts.
        delete_threads: Whether conversations are deleted in the end.
    """

    def __init__(
        self,
        prompts: PromptSource,
        tasks: Tasks,
        pool: WorkerPool,
        pace: Callable[[Optional[str]], Tuple[int, RateLimiter]],
        *,
        max_failures: float,
        ordered: bool,
        delete_threads: bool,
    ) -> None:
        self.pool = pool
        self.journal: Union[Journal, NullJournal] = NullJournal()
        self.total: Optional[int] = None
        self.skipped = 0
        self.skipped_failures = 0
        self._prompts = prompts
        self._tasks = tasks
        self._pace = pace
        self._failures_left = max_failures
        self._ordered = ordered
        self._delete_threads = delete_threads
        self._source = self._items()
        self._ids: Optional[DiskDict] = None
        self._done: queue.SimpleQueue[Optional[_Done]] = queue.SimpleQueue()  # None wakes who waits
        self._stopped = False
        self._under_way = 0  # steps
        self._open = 0  # prompts that were taken and whose result was not handed out
        self._answers = 0
        self._in_row = 0  # refusals and failures of the service since the last answer
        self._pauses = 0  # that they have begun
        self._forbidden = 0  # prompts since the last answer
        self._places = 0  # of the gate, that are taken
        self._ready: List[WorkItem] = []  # hold a place and wait for their next step
        self._waiting: Deque[WorkItem] = deque()  # for a place
        self._conversations = ConversationQueues()
        self._outcomes: Union[CompletionOrder, InputOrder] = InputOrder() if ordered else CompletionOrder()
        self._final: Optional[CopilotError] = None  # why no further prompt is begun

    def start(self) -> None:
        """Choose how many work, now that it is known who is asked."""
        self._ahead, self._rate_limiter = self._pace(self.pool.api_url)
        self._window = max(_SMALLEST_WINDOW, _WINDOW_PER_WORKER * self._ahead)
        self.pool.start(self._ahead)

    def stop(self) -> None:
        """End what is under way, and wake the thread that iterates. Safe from anywhere."""
        self._stopped = True
        self.pool.stop()
        self._done.put(None)

    def _check_stopped(self) -> None:
        if self._stopped:
            raise StreamClosedError("the batch was closed")

    def check_ids(self, stack: contextlib.ExitStack) -> None:
        """Refuse prompts of the same id: before anything is sent where they can be gone through twice.

        Raises:
            ValueError: There are some.
        """
        ids = stack.enter_context(DiskDict())
        prompts = iter(self._prompts)
        if prompts is self._prompts:
            self._ids = ids
            return
        for number, value in enumerate(prompts):
            self._check_stopped()
            _check_new(ids, read_prompt(value, number))
        self.total = len(ids)

    def results(self) -> Iterator[Result]:
        """Go through all of it."""
        try:
            yield from self._steps()
        finally:
            self._release(self._places)
        if self._final is not None:
            raise self._final
        if self._ordered and self.skipped and self._ids is None:
            # What an earlier run wrote may stand behind what belongs before it.
            self.journal.put_in_order(read_prompt(value, place).id for place, value in enumerate(self._prompts))
        if self._delete_threads and not self._deleted_leftovers():
            return
        self.journal.finish()

    def _steps(self) -> Iterator[Result]:
        while True:
            self._check_stopped()
            wait = self._begin_steps()
            outcomes = self._outcomes.take()
            if outcomes:
                yield from self._handed_out(outcomes)
            elif self._looked_ahead():
                continue
            elif self._under_way or not math.isinf(wait):
                self._finish_steps(min(wait, _WAKE))
            else:
                return

    # What is next

    def _items(self) -> Iterator[Optional[WorkItem]]:
        """The prompts that have no result yet; ``None`` for each that has one at once, because it is none."""
        place = itertools.count()
        for number, value in enumerate(self._prompts):
            prompt = read_prompt(value, number)
            if self._ids is not None:
                _check_new(self._ids, prompt)
            failed_before = self.journal.failed(prompt.id)
            if failed_before is not None:
                self.skipped += 1
                self.skipped_failures += failed_before
                continue
            self._open += 1
            if isinstance(prompt, BadLine):
                self._outcomes.put(next(place), FinishedItem(result_of_bad_line(prompt)))
                yield None
            else:
                yield self._item(next(place), prompt)

    def _item(self, place: int, prompt: Prompt) -> WorkItem:
        item = WorkItem(place, prompt, self._tasks.task_of(prompt))
        intent = self.journal.intent(prompt.id)
        if intent is not None and intent.digest == item.digest():
            item.resume(intent)
        elif item.conversation_id is not None:
            known = prompt.conversation
            item.target(item.conversation_id, known.message_id if isinstance(known, Conversation) else None)
        return item

    def _looked_ahead(self) -> bool:
        """Take further prompts, as many as there are workers, and tell whether there were any.

        Nothing waits to be handed out then: what the prompts raise does not lose it.
        """
        open_before = self._open
        while self._final is None and len(self._waiting) < self._ahead and self._open < self._window:
            self._check_stopped()
            try:
                item = next(self._source)
            except StopIteration:
                break
            if item is not None and self._conversations.enter(item):
                self._waiting.append(item)
        return self._open > open_before

    # Steps

    def _begin_steps(self) -> float:
        """Begin what can be begun; give the seconds after which there may be more, without anything having ended."""
        starting, wait = self._admitted()
        self.journal.intend([item.intent() for item in starting if item.step == "ask" and not item.recorded])
        for item in starting:
            self._submit(item)
        return wait

    def _admitted(self) -> Tuple[List[WorkItem], float]:
        if self._final is not None:
            return [], math.inf
        if self._ready and self._rate_limiter.pause > 0:
            # After the pause, they go in again one by one.
            self._release(len(self._ready))
            self._waiting.extendleft(reversed(self._ready))
            self._ready = []
        starting, self._ready = self._ready, []
        while self._waiting:
            wait = self._rate_limiter.try_acquire()
            if wait > 0:
                # Where none of the places is ours, it is not us who will notice that one is free.
                return starting, wait if self._under_way or starting else min(wait, _LOOK)
            self._places += 1
            starting.append(self._waiting.popleft())
        return starting, math.inf

    def _submit(self, item: WorkItem) -> None:
        if item.step == "ask":
            item.recorded = True
            if self.pool.may_duplicate:
                item.mark_maybe_sent()
        subject: Union[Task, str] = str(item.made) if item.step == "delete" else item.task
        item.pauses_before = self._pauses
        self._under_way += 1
        future = self.pool.submit(item.step, subject)
        future.add_done_callback(lambda future: self._done.put((item, future)))

    def _finish_steps(self, seconds: float) -> None:
        """Wait for the end of a step, and go on with all that have ended."""
        after = {"begin": self._after_begin, "ask": self._after_ask, "delete": self._after_delete}
        done = self._next_done(seconds)
        while done is not None:
            item, future = done
            self._under_way -= 1
            step = future.result()
            item.count(step)
            after[item.step](item, step)
            done = self._next_done(0)

    def _next_done(self, seconds: float) -> "Optional[_Done]":
        """Wait so long for the end of a step; ``None`` if none came.

        Raises:
            StreamClosedError: The batch was closed.
        """
        done = None
        with contextlib.suppress(queue.Empty):
            done = self._done.get(timeout=seconds) if seconds else self._done.get_nowait()
        self._check_stopped()
        return done

    def _after_begin(self, item: WorkItem, step: StepResult) -> None:
        if step.error is not None:
            self._failed(item, step.error)
            return
        item.made = step.conversation_id
        item.target(str(step.conversation_id), ROOT)
        self._ready.append(item)

    def _after_ask(self, item: WorkItem, step: StepResult) -> None:
        if step.answer is not None:
            self._answered(item, step.answer)
        elif item.anew and not step.attempts and isinstance(step.error, StreamInterruptedError):
            item.restart()
            self._ready.append(item)
        else:
            self._failed(item, step.error or AssertionError("a step has an answer or an error"))

    def _after_delete(self, item: WorkItem, step: StepResult) -> None:
        if step.error is None or isinstance(step.error, NotFoundError):
            self.journal.deleted(str(item.made))
        else:
            logger.warning("a conversation of the batch was not deleted: %s", step.error)

    # What comes of them

    def _answered(self, item: WorkItem, answer: Answer) -> None:
        self._rate_limiter.answered()
        self._answers += 1
        self._in_row = self._forbidden = 0
        if not answer.complete:
            words = "the service did not say that the answer is whole"
            self._failed(item, StreamInterruptedError(words, stage="stream", partial=answer.text))
            return
        self._finish(item, item.answer(answer), answer.message_id)

    def _failed(self, item: WorkItem, error: Exception) -> None:
        cause = shared_cause(error)
        if cause is not None:
            # The message may have been sent, and nobody could look whether it was.
            item.mark_maybe_sent()
            error = cause
        # A 401 is believed the second time: the service may have ended a token early, and then another one.
        is_first_401 = getattr(error, "status", None) == 401 and not item.refusals
        if isinstance(error, CopilotError) and is_fatal(error) and not is_first_401:
            self._end(error)
        elif isinstance(error, CopilotError) and is_global_failure(error):
            self._refused(item, error)
        else:
            self._fail(item, error)

    def _refused(self, item: WorkItem, error: CopilotError) -> None:
        """Have everybody wait, and ask again then."""
        if may_have_been_taken(error):
            item.mark_maybe_sent()
        if not is_own_word(error):
            if not item.refusals:
                item.answers_before = self._answers
            item.refusals += 1
            # What else was under way when a pause began says nothing new, however late it comes.
            if item.pauses_before == self._pauses:
                self._pauses += 1
                self._in_row += 1
        pause = self._rate_limiter.penalize(getattr(error, "retry_after", None))
        if self._is_its_own(item, error):
            self._fail(item, error)
        elif self._in_row >= _MOST_IN_ROW or pause > _LONGEST_WAIT:
            self._end(error)
        else:
            if was_in_answer(error):  # the message is there: it goes into another conversation
                item.restart()
            self._release(1)
            self._waiting.append(item)

    def _is_its_own(self, item: WorkItem, error: CopilotError) -> bool:
        """Whether what looks like everybody's failure has to do with this prompt alone."""
        if was_in_answer(error) and item.conversation_id is not None:
            return True  # it can't be asked again
        most = _MOST_FAILURES if may_be_the_prompts(error) else _MOST_REFUSALS
        if item.refusals >= most and self._answers > item.answers_before:
            return True  # others were answered meanwhile
        is_last = not self._waiting and not self._under_way
        return is_last and self._in_row >= _MOST_IN_ROW and self._answers > 0 and may_be_the_prompts(error)

    def _fail(self, item: WorkItem, error: Exception) -> None:
        """Give a prompt up: it is its own failure."""
        if getattr(error, "status", None) is not None and not is_global_failure(error):
            self._rate_limiter.answered()  # the service was there, and did not ask to slow down
        self._finish(item, item.failure(error), None)
        if isinstance(error, PermissionDeniedError):
            self._forbidden += 1
            if self._forbidden >= _MOST_FORBIDDEN:
                self._end(error)

    def _end(self, error: CopilotError) -> None:
        """Begin no further prompt. This one has no result: it was not its fault, and it is asked by the next run."""
        self._final = self._final or error

    def _release(self, places: int) -> None:
        self._places -= places
        for _ in range(places):
            self._rate_limiter.release()

    def _finish(self, item: WorkItem, result: Result, message_id: Optional[str]) -> None:
        self._release(1)
        item.keep = result.error is not None and may_have_answer(result.error)
        follower = self._conversations.leave(item, message_id)
        if follower is not None:
            self._waiting.append(follower)
        self._outcomes.put(item.place, FinishedItem(result, item))

    def _handed_out(self, outcomes: List[FinishedItem]) -> Iterator[Result]:
        self.journal.write([outcome.result for outcome in outcomes])
        for outcome in outcomes:
            item = outcome.item
            if self._delete_threads and item is not None and item.made is not None and not item.keep:
                item.step = "delete"
                self._submit(item)
            self._count(outcome.result)
        for outcome in outcomes:
            self._open -= 1
            yield outcome.result

    def _count(self, result: Result) -> None:
        if result.error is None:
            return
        self._failures_left -= 1
        if self._failures_left == 0 and self._final is None:
            self._final = TooManyFailuresError(f"too many prompts failed; the last one: {result.error['message']}")

    def _deleted_leftovers(self) -> bool:
        """Delete, one by one, what earlier runs left and what this one could not; tell whether all is gone."""
        for conversation_id in self.journal.leftovers():
            step = self._deleted(conversation_id)
            if step.error is None or isinstance(step.error, NotFoundError):
                self.journal.deleted(conversation_id)
        return not self.journal.leftovers()

    def _deleted(self, conversation_id: str) -> StepResult:
        future = self.pool.submit("delete", conversation_id)
        future.add_done_callback(lambda future: self._done.put(None))
        while not future.done():
            self._next_done(_WAKE)
        return future.result()


#: A job, and the step of it that has ended.
_Done = Tuple[WorkItem, "concurrent.futures.Future[StepResult]"]


def _check_new(ids: DiskDict, prompt: Union[Prompt, BadLine]) -> None:
    if not ids.add(str(prompt.id)):
        raise ValueError(f"two prompts have the id {prompt.id!r}: their results could not be told apart")
