"""What a batch does next: which prompt is read, which one the rate limiter lets through, which step starts.

All decisions are made in the thread that iterates the results. Nothing starts unless that thread waits for a result.
Workers do one step of one prompt at a time and know nothing of each other.

A prompt goes through up to three steps. Its conversation is begun; its message is sent, once the journal knows how to
find it again; and its conversation is deleted, if that is wanted. ``states`` has the table of what can happen. What a
failure means, and who has to wait, is decided in ``pacing``.

Threads: confined to the one that iterates.
"""

import contextlib
import logging
import math
from collections import deque
from typing import Callable, Deque, Iterator, List, Optional, Union

from copilot_sync.batch.intake import Intake
from copilot_sync.batch.journal import AnyJournal
from copilot_sync.batch.results import Result
from copilot_sync.batch.sender import StepResult
from copilot_sync.batch.states import ItemEvent, ItemState
from copilot_sync.batch.steps import StepRunner
from copilot_sync.batch.work_items import CompletionOrder, ConversationQueues, FinishedItem, InputOrder, WorkItem
from copilot_sync.errors import CopilotError, NotFoundError, StreamInterruptedError
from copilot_sync.models import Answer
from copilot_sync.pacing.limiter import LOOK_AGAIN, RateLimiter
from copilot_sync.pacing.triage import Decision, Triage

logger = logging.getLogger(__name__)

#: How many prompts have been read but have no result yet: for each worker, and at least.
_WINDOW_PER_WORKER = 8
_SMALLEST_WINDOW = 64


class TooManyFailuresError(CopilotError):
    """A batch ended because ``max_failures`` prompts failed."""


class Scheduler:
    """Decides what a batch does next. For the one thread that iterates the results.

    Args:
        intake: The prompts.
        steps: Runs steps on the workers.
        journal: Keeps the results and what is about to be sent.
        rate_limiter: Lets prompts through.
        workers: How many workers there are.
        max_failures: After so many failures no further prompt starts.
        ordered: Whether results are handed out in the order of the prompts.
        delete_threads: Whether the conversations that the batch began are deleted.
        judge: Returns a result as it counts in the output.
    """

    def __init__(
        self,
        intake: Intake,
        steps: StepRunner,
        journal: AnyJournal,
        rate_limiter: RateLimiter,
        workers: int,
        *,
        max_failures: float,
        ordered: bool,
        delete_threads: bool,
        judge: Callable[[Result], Result],
    ) -> None:
        self._intake = intake
        self._source = intake.items(journal)
        self._steps = steps
        self._journal = journal
        self._rate_limiter = rate_limiter
        self._triage = Triage(rate_limiter)
        self._workers = workers
        self._window = max(_SMALLEST_WINDOW, _WINDOW_PER_WORKER * workers)
        self._failures_left = max_failures
        self._ordered = ordered
        self._delete_threads = delete_threads
        self._judge = judge
        self._unfinished = 0  # prompts that were read and whose result was not handed out
        self._slots = 0  # of the rate limiter, held by prompts
        self._ready: List[WorkItem] = []  # in the state READY
        self._queue: Deque[WorkItem] = deque()  # in the state QUEUED
        self._conversations = ConversationQueues()
        self._finished: Union[CompletionOrder, InputOrder] = InputOrder() if ordered else CompletionOrder()
        self._final_error: Optional[Exception] = None  # the reason why no further prompt starts

    def results(self) -> Iterator[Result]:
        """Run the batch and yield its results.

        Raises:
            CopilotError: The batch ended early.
        """
        try:
            with contextlib.closing(self._source):
                yield from self._run()
        finally:
            for _ in range(self._slots):
                self._rate_limiter.release()
        if self._final_error is not None:
            raise self._final_error
        if self._ordered and self._intake.skipped and self._intake.is_reiterable:
            # A result of an earlier run may stand behind one that belongs after it.
            with contextlib.closing(self._intake.ids()) as ids:
                self._journal.put_in_order(ids)
        if self._delete_threads and not self._delete_leftovers():
            return
        self._journal.finish()

    def _run(self) -> Iterator[Result]:
        while True:
            self._steps.check_stopped()
            wait = self._start_steps()
            finished = self._finished.take()
            if finished:
                yield from self._hand_out(finished)
            elif self._read_ahead():
                continue
            elif self._steps.running or not math.isinf(wait):
                self._wait_for_steps(wait)
            else:
                return

    def _read_ahead(self) -> bool:
        """Read more prompts, up to one for each worker, and return whether there were any.

        No result waits to be handed out at this point, so none is lost if the prompts raise an error.
        """
        before = self._unfinished
        while self._final_error is None and len(self._queue) < self._workers and self._unfinished < self._window:
            self._steps.check_stopped()
            try:
                item = next(self._source)
            except StopIteration:
                break
            self._unfinished += 1
            if isinstance(item, FinishedItem):
                self._finished.put(item)
                continue
            answer = self._steps.recall(item)
            recalled = None if answer is None else item.recalled_result(answer)
            if recalled is not None:
                self._finish(item, ItemEvent.RECALLED, recalled)
            elif self._conversations.enter(item):
                self._enqueue(item, ItemEvent.TURN_CAME)
        return self._unfinished > before

    def _move(self, item: WorkItem, event: ItemEvent) -> None:
        """Move a prompt to its next state. Its slot is released if that state holds none."""
        had_slot = item.state.holds_slot
        item.move(event)
        if had_slot and not item.state.holds_slot:
            self._slots -= 1
            self._rate_limiter.release()

    def _enqueue(self, item: WorkItem, event: ItemEvent) -> None:
        self._move(item, event)
        self._queue.append(item)

    def _make_ready(self, item: WorkItem, event: ItemEvent) -> None:
        self._move(item, event)
        self._ready.append(item)

    def _start_steps(self) -> float:
        """Start every step that can start. Return the seconds until more may start although no step has ended."""
        if self._final_error is not None:
            # No further prompt starts, but the next run has to find the conversations that were begun meanwhile.
            self._record(self._ready)
            return math.inf
        wait = self._admit()
        starting, self._ready = self._ready, []
        self._record(starting)
        for item in starting:
            self._start_step(item)
        return wait

    def _record(self, items: List[WorkItem]) -> None:
        """Make the journal know where the messages of prompts go."""
        unknown = [item for item in items if item.needs_record]
        self._journal.record_intents([item.intent() for item in unknown])
        for item in unknown:
            item.is_recorded = True

    def _admit(self) -> float:
        """Let prompts through as far as the rate limiter allows. Return the seconds until more may follow."""
        if self._ready and self._rate_limiter.pause > 0:
            # They queue first in line, and are let through one by one after the pause.
            for item in self._ready:
                self._move(item, ItemEvent.PAUSED)
            self._queue.extendleft(reversed(self._ready))
            self._ready = []
        while self._queue:
            wait = self._rate_limiter.try_acquire()
            if wait > 0:
                # If no step of ours ends, nobody wakes this thread when a slot becomes free. So it looks again soon.
                return wait if self._steps.running or self._ready else min(wait, LOOK_AGAIN)
            self._slots += 1
            self._make_ready(self._queue.popleft(), ItemEvent.ADMITTED)
        return math.inf

    def _start_step(self, item: WorkItem) -> None:
        self._triage.begin(item.history)
        if item.handle is None:
            self._move(item, ItemEvent.BEGIN)
            self._steps.submit(item, "begin", item.task)
            return
        if self._steps.may_duplicate:
            item.mark_maybe_sent()
        self._move(item, ItemEvent.ASK)
        self._steps.submit(item, "ask", item.task)

    def _wait_for_steps(self, seconds: float) -> None:
        """Wait for a step to end, and process every step that has ended."""
        ended = self._steps.next_ended(seconds)
        while ended is not None:
            item, step = ended
            self._process(item, step)
            ended = self._steps.next_ended(0)

    def _process(self, item: WorkItem, step: StepResult) -> None:
        item.count(step)
        if item.state is ItemState.BEGINNING:
            self._after_begin(item, step)
        elif item.state is ItemState.ASKING:
            self._after_ask(item, step)
        else:
            self._after_delete(item, step)

    def _after_begin(self, item: WorkItem, step: StepResult) -> None:
        if step.error is not None:
            self._failed(item, step.error)
            return
        if step.answer is not None:
            recalled = item.recalled_result(step.answer)
            if recalled is None:
                self._enqueue(item, ItemEvent.MISFIT)
            else:
                self._finish(item, ItemEvent.RECALLED, recalled)
            return
        item.begun(str(step.conversation_id))
        self._make_ready(item, ItemEvent.BEGUN)

    def _after_ask(self, item: WorkItem, step: StepResult) -> None:
        if step.answer is not None:
            self._answered(item, step.answer)
        elif item.may_restart and not step.attempts and isinstance(step.error, StreamInterruptedError):
            item.restart()
            self._make_ready(item, ItemEvent.RESTARTED)
        else:
            self._failed(item, step.error or AssertionError("a step has an answer or an error"))

    def _after_delete(self, item: WorkItem, step: StepResult) -> None:
        self._move(item, ItemEvent.DELETE_ENDED)
        if step.error is None or isinstance(step.error, NotFoundError):
            self._journal.record_deletion(str(item.created_thread_id))
        else:
            logger.warning("a conversation of the batch was not deleted: %s", step.error)

    def _answered(self, item: WorkItem, answer: Answer) -> None:
        self._triage.answered()
        if not answer.complete:
            reason = "the service did not say that the answer is whole"
            self._failed(item, StreamInterruptedError(reason, stage="stream", partial=answer.text))
            return
        result = item.judged_result(answer)
        if result is None:
            self._enqueue(item, ItemEvent.MISFIT)
        else:
            event = ItemEvent.ANSWERED if result.complete else ItemEvent.FAILED
            self._finish(item, event, result, answer.message_id)

    def _failed(self, item: WorkItem, failure: Exception) -> None:
        is_last = not self._queue and not self._steps.running
        can_restart = item.given_conversation_id is None
        decision, error = item.after_failure(failure, self._triage, is_last=is_last, can_restart=can_restart)
        if decision is Decision.WAIT:
            self._enqueue(item, ItemEvent.REFUSED)
        elif decision is Decision.STOP:
            self._move(item, ItemEvent.STOPPED)
            self._end(error)
        else:
            self._finish(item, ItemEvent.FAILED, item.failure(error), is_refused=item.is_refused(error))
            if decision is Decision.FAIL_AND_STOP:
                self._end(error)

    def _finish(
        self,
        item: WorkItem,
        event: ItemEvent,
        result: Result,
        message_id: Optional[str] = None,
        *,
        is_refused: bool = False,
    ) -> None:
        self._move(item, event)
        follower = self._conversations.leave(item, message_id)
        if follower is not None:
            self._enqueue(follower, ItemEvent.TURN_CAME)
        self._finished.put(FinishedItem(item.index, self._judge(result), item, is_refused))

    def _end(self, error: Exception) -> None:
        """Start no further prompt."""
        self._final_error = self._final_error or error

    def _hand_out(self, finished: List[FinishedItem]) -> Iterator[Result]:
        self._journal.write([each.result for each in finished])
        for each in finished:
            self._written(each)
        for each in finished:
            self._unfinished -= 1
            yield each.result

    def _written(self, finished: FinishedItem) -> None:
        item, error = finished.item, finished.result.error
        is_unwanted = self._delete_threads or finished.is_refused  # an empty one is of no use
        if item is not None and is_unwanted and finished.has_spare_thread:
            self._move(item, ItemEvent.DELETE)
            self._steps.submit(item, "delete", str(item.created_thread_id))
        elif item is not None:
            self._move(item, ItemEvent.WRITTEN)
        if error is not None:
            self._failures_left -= 1
            if self._failures_left == 0:
                self._end(TooManyFailuresError(f"too many prompts failed; the last one: {error['message']}"))

    def _delete_leftovers(self) -> bool:
        """Delete the conversations that earlier runs left or this one could not delete. Return whether all are gone."""
        for conversation_id in self._journal.leftovers():
            step = self._steps.delete(conversation_id)
            if step.error is None or isinstance(step.error, NotFoundError):
                self._journal.record_deletion(conversation_id)
        return not self._journal.leftovers()
