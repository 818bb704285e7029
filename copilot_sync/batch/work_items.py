"""Prompts on their way through a batch, and their results on the way out.

Plain state, for the one thread that iterates a batch. Nothing here sends, waits or writes.
"""

import dataclasses
import hashlib
import uuid
from collections import deque
from typing import Deque, Dict, List, Optional

from copilot_sync.batch.journal import Intent
from copilot_sync.batch.prompts import Prompt
from copilot_sync.batch.results import Result, error_of
from copilot_sync.batch.sender import StepResult, Task
from copilot_sync.client import TimeoutValue
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.models import Answer


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What all prompts have in common."""

    model: Optional[str]
    system: Optional[str]
    timeout: TimeoutValue

    def task_of(self, prompt: Prompt) -> Task:
        """What is to be asked for a prompt."""
        return Task(prompt.content(self.system), prompt.model or self.model, self.timeout)


class WorkItem:
    """A prompt on its way."""

    def __init__(self, place: int, prompt: Prompt, task: Task) -> None:
        self.place = place
        self.prompt = prompt
        self.task = task
        self.step = "begin"
        self.made: Optional[str] = None  # the conversation that was begun for it
        self.anew = False  # whether it is asked in another conversation where the old one has no answer
        self.recorded = False  # whether what finds its message is
        self.keep = False  # its conversation, because the answer may come there
        self.seconds = 0.0
        self.attempts = 0
        self.refusals = 0
        self.pauses_before = 0  # its present step
        self.answers_before = 0  # the first of them

    @property
    def conversation_id(self) -> Optional[str]:
        """The conversation in which it waits for its turn."""
        given = self.prompt.conversation
        return given if given is None or isinstance(given, str) else given.conversation_id

    def target(self, conversation_id: str, parent_id: Optional[str]) -> None:
        """Send its message into a conversation, as an answer to a message there."""
        self.task = dataclasses.replace(self.task, handle=MessageHandle(conversation_id, str(uuid.uuid4()), parent_id))
        self.step = "ask"

    def mark_maybe_sent(self) -> None:
        """Look for its message before it is sent."""
        assert self.task.handle is not None  # noqa: S101 - nothing is sent without
        handle = dataclasses.replace(self.task.handle, maybe_sent=True)
        self.task = dataclasses.replace(self.task, handle=handle)

    def resume(self, intent: Intent) -> None:
        """Go on with what an earlier run was about to send."""
        self.task = dataclasses.replace(self.task, handle=intent.handle)
        self.mark_maybe_sent()
        self.step, self.recorded, self.anew = "ask", True, intent.again
        self.made = intent.handle.conversation_id if intent.made else None

    def count(self, step: StepResult) -> None:
        """Take note of what a step has cost."""
        self.seconds += step.seconds
        self.attempts += step.attempts if self.step == "ask" else 0

    def restart(self) -> None:
        """Forget its conversation: there is no answer to be had in it."""
        self.task = dataclasses.replace(self.task, handle=None)
        self.step, self.made, self.anew, self.recorded = "begin", None, False, False

    def digest(self) -> str:
        """Tells the prompt from another one that has its id."""
        parts = [self.task.content, self.task.model or "", self.conversation_id or ""]
        return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()[:16]

    def intent(self) -> Intent:
        """What finds its message again, for the journal."""
        handle = self.task.handle
        assert handle is not None  # noqa: S101 - it is recorded when it is known where it goes
        return Intent(self.prompt.id, handle, self.digest(), made=self.made is not None)

    def answer(self, answer: Answer) -> Result:
        """The result of a prompt that was answered."""
        return Result(
            id=self.prompt.id,
            text=answer.text,
            model=answer.model,
            usage=answer.usage,
            conversation_id=answer.conversation.conversation_id,
            seconds=self.seconds,
            attempts=self.attempts,
        )

    def failure(self, error: Exception) -> Result:
        """The result of a prompt that failed."""
        return Result(
            id=self.prompt.id,
            text=getattr(error, "partial", ""),
            conversation_id=self.made or self.conversation_id,
            seconds=self.seconds,
            attempts=self.attempts,
            error=error_of(error, "input"),
        )


@dataclasses.dataclass(frozen=True)
class FinishedItem:
    """A result, and the job that it ends; there is none for a line that is no prompt."""

    result: Result
    item: Optional[WorkItem] = None


class CompletionOrder:
    """Outcomes on their way out, in the order of their coming."""

    def __init__(self) -> None:
        self._outcomes: List[FinishedItem] = []

    def put(self, place: int, outcome: FinishedItem) -> None:
        """Add one; its place does not matter."""
        self._outcomes.append(outcome)

    def take(self) -> List[FinishedItem]:
        """Give all there are."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes


class InputOrder:
    """Outcomes on their way out, each held back until all before it are out."""

    def __init__(self) -> None:
        self._outcomes: Dict[int, FinishedItem] = {}
        self._place = 0

    def put(self, place: int, outcome: FinishedItem) -> None:
        """Add one with its place."""
        self._outcomes[place] = outcome

    def take(self) -> List[FinishedItem]:
        """Give those before which nothing is missing."""
        outcomes = []
        while self._place in self._outcomes:
            outcomes.append(self._outcomes.pop(self._place))
            self._place += 1
        return outcomes


class ConversationQueues:
    """Prompts of the same conversation, of which one is asked after the other."""

    def __init__(self) -> None:
        self._queues: Dict[str, Deque[WorkItem]] = {}

    def enter(self, item: WorkItem) -> bool:
        """Whether it may be asked; else ``leave`` gives it out when it may."""
        if item.conversation_id is None:
            return True
        if item.conversation_id in self._queues:
            self._queues[item.conversation_id].append(item)
            return False
        self._queues[item.conversation_id] = deque()
        return True

    def leave(self, item: WorkItem, message_id: Optional[str]) -> Optional[WorkItem]:
        """Give the one that follows; it answers the message that ended the one before it."""
        if item.conversation_id is None:
            return None
        if not self._queues[item.conversation_id]:
            del self._queues[item.conversation_id]
            return None
        follower = self._queues[item.conversation_id].popleft()
        if message_id is not None and not follower.recorded:
            follower.target(item.conversation_id, message_id)
        return follower
