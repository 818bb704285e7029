"""The prompts of a batch on their way: what is known of each, and the queues in which they wait.

Plain state for the one thread that iterates a batch. Nothing here sends, waits or writes.

Threads: confined to the one that iterates.
"""

import dataclasses
import hashlib
import json
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, Optional

from copilot_sync.batch.journal import Intent
from copilot_sync.batch.prompts import Prompt
from copilot_sync.batch.results import Result, error_of
from copilot_sync.batch.sender import Submission, Task
from copilot_sync.batch.states import ItemEvent, ItemState, next_state
from copilot_sync.delivery.recovery import may_have_answer
from copilot_sync.errors import CopilotError, InvalidAnswerError
from copilot_sync.message_parts import NO_ATTACHMENTS, Attachments
from copilot_sync.models import Answer
from copilot_sync.pacing.policy import is_refusal
from copilot_sync.protocol.requests import ROOT
from copilot_sync.settings import TimeoutValue
from copilot_sync.structured import REPAIRS, Expectation, Schema


@dataclasses.dataclass(frozen=True)
class PromptDefaults:
    """What counts for prompts that don't say otherwise, and what goes with all of them."""

    model: Optional[str]
    system: Optional[str]
    timeout: TimeoutValue
    attachments: Attachments = NO_ATTACHMENTS
    extra: Optional[Mapping[str, Any]] = None
    label: Optional[str] = None
    schema: Optional[Schema] = None
    repairs: int = REPAIRS

    def expectation_of(self, prompt: Prompt) -> Optional[Expectation]:
        """Return what the answer to a prompt has to be; ``None`` for any text."""
        schema = prompt.checked_schema or self.schema
        return None if schema is None else Expectation(schema, self.repairs)

    def task_for(self, prompt: Prompt) -> Task:
        """Return the task that asks a prompt."""
        content = prompt.content(self.system).attach(self.attachments)
        expected = self.expectation_of(prompt)
        if expected is not None:
            content = expected.schema.added_to(content)
        return Task(content, prompt.model or self.model, self.timeout, extra=self.extra, label=self.label)


class WorkItem(Submission):
    """A prompt of a batch: its state, where its message goes, and what it has met.

    Attributes:
        index: The prompt's position among those that the batch asks, from 0.
        prompt: The prompt.
        state: Its state. ``move`` is the only way to change it.
        created_thread_id: The conversation that the batch began for it, in this run or an earlier one.
        is_recorded: Whether the journal knows where its message goes.
        may_restart: Whether it is asked in a new conversation if the one of an earlier run has no answer.
    """

    def __init__(self, index: int, prompt: Prompt, task: Task, expected: Optional[Expectation] = None) -> None:
        super().__init__(task, expected)
        self.index = index
        self.prompt = prompt
        self.state = ItemState.WAITING
        self.created_thread_id: Optional[str] = None
        self.is_recorded = False
        self.may_restart = False

    def move(self, event: ItemEvent) -> None:
        """Go to the next state.

        Raises:
            RuntimeError: The event can't happen in the present state.
        """
        self.state = next_state(self.state, event)

    @property
    def given_conversation_id(self) -> Optional[str]:
        """The conversation that the prompt names; ``None`` if it wants a new one."""
        given = self.prompt.conversation
        return given if given is None or isinstance(given, str) else given.conversation_id

    @property
    def needs_record(self) -> bool:
        """Whether the journal has to learn where its message goes before it is sent."""
        return self.handle is not None and not self.is_recorded

    def begun(self, conversation_id: str) -> None:
        """Send the message into a conversation that was begun for it."""
        self.created_thread_id = conversation_id
        self.target(conversation_id, ROOT)

    def resume(self, intent: Intent) -> None:
        """Continue with the message that an earlier run was about to send."""
        self.mark_maybe_sent(intent.handle)
        self.is_recorded, self.may_restart = True, intent.may_restart
        self.created_thread_id = intent.handle.conversation_id if intent.created_thread else None
        self.resume_repair(intent.misfits, intent.content)

    def restart(self) -> None:
        """Forget the conversation: no answer will come there. The prompt itself is asked again, in another one."""
        super().restart()
        if self.may_restart:  # somebody has had it asked again
            self.misfits, self._usages = 0, []
        self.created_thread_id, self.is_recorded, self.may_restart = None, False, False

    def digest(self) -> str:
        """Return a checksum that differs from that of another prompt with the same id."""
        task = self._question
        parts = [task.content, task.model or "", self.given_conversation_id or ""]
        if task.extra or task.content.attachments != NO_ATTACHMENTS:
            parts.append(json.dumps([task.content.attachments, task.extra], sort_keys=True))
        return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()[:16]

    def intent(self) -> Intent:
        """Return what the journal keeps to find the message again."""
        assert self.handle is not None  # noqa: S101 - asked for once it is known where the message goes
        return Intent(
            self.prompt.id,
            self.handle,
            self.digest(),
            created_thread=self.created_thread_id is not None,
            misfits=self.misfits,
            content=self.repair_content,
        )

    def recalled_result(self, answer: Answer) -> Optional[Result]:
        """Return the result for an answer that a cache had; ``None`` if it will not do: the service is asked then."""
        recalled = self.recalled(answer)
        return None if recalled is None else self.answer(recalled)

    def judged_result(self, answer: Answer) -> Optional[Result]:
        """Return the result for an answer; ``None`` if it does not fit, and another one is asked for next."""
        try:
            judged = self.judged(answer)
        except InvalidAnswerError as error:
            return self.failure(error)
        return None if judged is None else self.answer(judged)

    def _repair(self, answer: Answer, content: str) -> None:
        super()._repair(answer, content)
        self.is_recorded, self.may_restart = False, False

    def answer(self, answer: Answer) -> Result:
        """Return the result for an answer."""
        return Result(
            id=self.prompt.id,
            text=answer.text,
            model=answer.model,
            usage=answer.usage,
            conversation_id=None if answer.cached else answer.conversation.conversation_id,
            seconds=self.seconds,
            attempts=self.attempts,
            cached=answer.cached,
            parsed=answer.parsed,
            parsed_json=answer.parsed_json,
        )

    def is_refused(self, error: Exception) -> bool:
        """Whether a failure means that the message is certainly not in its conversation, from no attempt."""
        may_be_there = bool(self.misfits) or (self.handle is not None and self.handle.maybe_sent)
        return isinstance(error, CopilotError) and is_refusal(error) and not may_be_there

    def failure(self, error: Exception) -> Result:
        """Return the result for a failure."""
        answer = error.answer if isinstance(error, InvalidAnswerError) else None
        return Result(
            id=self.prompt.id,
            text=getattr(error, "partial", ""),
            model=answer.model if answer else "",
            usage=answer.usage if answer else None,
            conversation_id=(None if self.is_refused(error) else self.created_thread_id) or self.given_conversation_id,
            seconds=self.seconds,
            attempts=self.attempts,
            error=error_of(error, "input"),
        )


@dataclasses.dataclass(frozen=True)
class FinishedItem:
    """A result that has not been handed out.

    Attributes:
        index: The position of its prompt, from 0.
        result: The result.
        item: The prompt; ``None`` for a line that is no prompt.
        is_refused: Whether its message certainly never got into its conversation.
    """

    index: int
    result: Result
    item: Optional[WorkItem] = None
    is_refused: bool = False

    @property
    def has_spare_thread(self) -> bool:
        """Whether the batch began a conversation for it, and no answer can come there any more."""
        if self.item is None or self.item.created_thread_id is None:
            return False
        return self.result.error is None or not may_have_answer(self.result.error)


class CompletionOrder:
    """Results that wait to be handed out in the order in which they come."""

    def __init__(self) -> None:
        self._finished: List[FinishedItem] = []

    def put(self, finished: FinishedItem) -> None:
        """Add one."""
        self._finished.append(finished)

    def take(self) -> List[FinishedItem]:
        """Remove and return all of them."""
        finished, self._finished = self._finished, []
        return finished


class InputOrder:
    """Results that wait to be handed out in the order of the prompts."""

    def __init__(self) -> None:
        self._finished: Dict[int, FinishedItem] = {}
        self._next_index = 0

    def put(self, finished: FinishedItem) -> None:
        """Add one."""
        self._finished[finished.index] = finished

    def take(self) -> List[FinishedItem]:
        """Remove and return those that have no gap before them."""
        finished = []
        while self._next_index in self._finished:
            finished.append(self._finished.pop(self._next_index))
            self._next_index += 1
        return finished


class ConversationQueues:
    """Prompts that wait for an earlier prompt of the same conversation."""

    def __init__(self) -> None:
        self._queues: Dict[str, Deque[WorkItem]] = {}

    def enter(self, item: WorkItem) -> bool:
        """Add a prompt, and return whether its turn is now. Otherwise ``leave`` returns it when its turn comes."""
        if item.given_conversation_id is None:
            return True
        if item.given_conversation_id in self._queues:
            self._queues[item.given_conversation_id].append(item)
            return False
        self._queues[item.given_conversation_id] = deque()
        return True

    def leave(self, item: WorkItem, message_id: Optional[str]) -> Optional[WorkItem]:
        """Remove a prompt, and return the one whose turn is next.

        Args:
            item: The prompt. It has a result.
            message_id: Its answer, which the next prompt replies to; ``None`` if it has none.
        """
        if item.given_conversation_id is None:
            return None
        if not self._queues[item.given_conversation_id]:
            del self._queues[item.given_conversation_id]
            return None
        follower = self._queues[item.given_conversation_id].popleft()
        if message_id is not None and not follower.is_recorded:
            follower.target(item.given_conversation_id, message_id)
        return follower
