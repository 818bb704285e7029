"""The steps of a batch that run on its workers: how they start, and how the batch learns that one has ended.

Threads: the queue of ended steps and the flag of a stop are atomic. The rest is confined to the thread that iterates.
"""

import concurrent.futures
import contextlib
import queue
from typing import List, Optional, Tuple, Union

from copilot_sync.batch.sender import StepResult, Task
from copilot_sync.batch.work_items import WorkItem
from copilot_sync.batch.workers import WorkerPool
from copilot_sync.errors import StreamClosedError
from copilot_sync.models import Answer
from copilot_sync.os_threads import WAKE, ItemQueue


class StepRunner:
    """Starts steps and waits for their ends. For the thread that iterates a batch, except for ``stop``.

    Args:
        pool: The workers.

    Attributes:
        running: How many steps of prompts have started and not been returned by ``next_ended``.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self.running = 0
        self._pool = pool
        self._stopped = False
        self._ended: ItemQueue[Optional[_EndedStep]] = ItemQueue()  # None wakes the thread that waits

    @property
    def may_duplicate(self) -> bool:
        """Whether a step may run twice without this process knowing."""
        return self._pool.may_duplicate

    def recall(self, item: WorkItem) -> Optional[Answer]:
        """Return the answer to a prompt that begins a conversation, if a cache in this process has it."""
        return None if item.given_conversation_id is not None else self._pool.recall(item.task)

    def submit(self, item: WorkItem, step: str, subject: Union[Task, str]) -> None:
        """Start a step of a prompt: ``begin`` or ``ask`` for a task, ``delete`` for the id of a conversation."""
        self.running += 1
        self._pool.submit(step, subject, lambda future: self._ended.put((item, future)))

    def next_ended(self, seconds: float) -> Optional[Tuple[WorkItem, StepResult]]:
        """Wait for a step to end. Return its prompt and its result, or ``None`` if none ended.

        Args:
            seconds: How long to wait. Longer waits return ``None`` early, so call again.

        Raises:
            StreamClosedError: The batch was closed.
            CopilotError: An executor could not do the step.
        """
        ended = self._wait(min(seconds, WAKE))
        if ended is None:
            return None
        self.running -= 1
        item, future = ended
        return item, self._pool.result(future)

    def delete(self, conversation_id: str) -> StepResult:
        """Delete a conversation that belongs to no prompt of this run, and wait for it. No other step may be running.

        Raises:
            StreamClosedError: The batch was closed.
            CopilotError: An executor could not do the step.
        """
        ended: List[concurrent.futures.Future[StepResult]] = []

        def note(future: "concurrent.futures.Future[StepResult]") -> None:
            ended.append(future)
            self._ended.put(None)

        self._pool.submit("delete", conversation_id, note)
        while not ended:
            self._wait(WAKE)
        return self._pool.result(ended[0])

    def stop(self) -> None:
        """End all running steps and wake the thread that waits. Safe from any thread and from a signal handler."""
        self._stopped = True
        self._pool.stop()
        self._ended.put(None)

    def check_stopped(self) -> None:
        """Raise if the batch was closed.

        Raises:
            StreamClosedError: It was.
        """
        if self._stopped:
            raise StreamClosedError("the batch was closed")

    def _wait(self, seconds: float) -> "Optional[_EndedStep]":
        ended = None
        with contextlib.suppress(queue.Empty):
            ended = self._ended.get(seconds)
        self.check_stopped()
        return ended


#: A prompt, and the step of it that has ended.
_EndedStep = Tuple[WorkItem, "concurrent.futures.Future[StepResult]"]
