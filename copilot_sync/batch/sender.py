"""How one prompt is sent: the steps that a worker does, what the prompt has met, and the loop that sends it by itself.

- ``Worker`` does one step for a prompt: begin a conversation, ask, or delete the conversation. It may run in another
  process: a ``Task`` goes to it and a ``StepResult`` comes back, and both can be pickled.
- ``Submission`` remembers where a prompt's message goes and what it has met, and judges its answer. The prompts of a
  batch are submissions.
- ``Sender`` sends one submission and waits when it has to. The tasks of Celery are senders.

Threads: the set of a ``Worker``'s steps is atomic. A submission is confined to the thread that decides about it.
"""

import abc
import contextvars
import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, Optional, Set, Tuple

from copilot_sync.client import Client
from copilot_sync.delivery.message import MessageHandle, new_id
from copilot_sync.delivery.repairs import check_complete, invalid_answer, log_misfit, total_usage
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer
from copilot_sync.pacing.limiter import LOOK_AGAIN, RateLimiter
from copilot_sync.pacing.policy import is_refusal, shared_cause, verdict_of
from copilot_sync.pacing.triage import Decision, MessageHistory, Triage
from copilot_sync.prompts import PromptText
from copilot_sync.protocol.replies import read_nothing
from copilot_sync.protocol.requests import ROOT, delete_request
from copilot_sync.settings import RetryPolicy, TimeoutValue
from copilot_sync.stream import Stream
from copilot_sync.structured import Expectation, MisfitError, repair_text
from copilot_sync.transport.call import CallContext
from copilot_sync.usage import Usage

#: Seconds until another attempt if the limiter of this process refused one and does not say for how long.
WITHOUT_ADVICE = 5.0


@dataclass(frozen=True)
class Task:
    """What to ask. Without a ``handle``, the worker begins a conversation and sends the message in one go."""

    content: PromptText
    model: Optional[str] = None
    timeout: TimeoutValue = None
    handle: Optional[MessageHandle] = None
    extra: Optional[Mapping[str, Any]] = None
    label: Optional[str] = None
    user: Optional[str] = None
    answer_cache: Optional[bool] = None


@dataclass(frozen=True)
class StepResult:
    """The result of one step: of beginning a conversation, of asking, or of deleting a conversation.

    Beginning a conversation has an answer if the cache has it; then there is no conversation.
    """

    conversation_id: Optional[str] = None
    answer: Optional[Answer] = None
    error: Optional[Exception] = None
    seconds: float = 0.0
    attempts: int = 0


class Worker:
    """Does steps with one client. Safe for any number of threads. ``stop`` takes no lock, so signal handlers may too.

    Args:
        client: The client.
        max_wait: Seconds that a call waits at most before another attempt. If it would have to wait longer, its error
            is the result. Default: ``max_wait`` of the client's policy.
    """

    def __init__(self, client: Client, *, max_wait: Optional[float] = None) -> None:
        self._client = client
        self._max_wait = max_wait
        self._under_way: Set[Callable[[], None]] = set()  # what ends it
        self._stopped = False

    @property
    def api_url(self) -> str:
        """The API that is asked."""
        return self._client.api_url

    def recall(self, task: Task) -> Optional[Answer]:
        """Return the answer if the client's cache has it. Nothing is sent."""
        if self._client._options.answers is None:
            return None
        try:
            return self._stream(dataclasses.replace(task, handle=None))._recall()
        except (TypeError, ValueError):  # whoever asks will meet it again
            return None

    def begin(self, task: Task) -> StepResult:
        """Begin an empty conversation, unless the cache has the answer."""
        return self._step(task, _begun)

    def ask(self, task: Task, hook_context: Optional[contextvars.Context] = None) -> StepResult:
        """Ask, and wait for the whole answer. Hooks are called in a context, by default in that of this thread."""

        def read(stream: Stream) -> Answer:
            stream._call.hook_context = hook_context
            return stream.read()

        return self._step(task, read)

    def delete(self, conversation_id: str) -> StepResult:
        """Delete a conversation."""
        session = self._client._session  # for a call of our own, which can be stopped
        call = CallContext(self._client._options.timeout)
        call.begin()
        try:
            self._note(call.cancel)
            request = delete_request(session.urls, conversation_id)
            session.fetch(request, call, self._client.retry, read_nothing)
        except CopilotError as error:
            return StepResult(conversation_id, error=error.with_traceback(None))
        finally:
            self._under_way.discard(call.cancel)
        return StepResult(conversation_id)

    def stop(self) -> None:
        """End all steps at once, and start no further one."""
        self._stopped = True
        for end in self._under_way.copy():
            end()

    def _step(self, task: Task, work: Callable[[Stream], Optional[Answer]]) -> StepResult:
        began = time.monotonic()
        try:
            stream = self._stream(task)
        except (TypeError, ValueError) as error:  # an id that is none, a text that can't be sent
            return StepResult(error=error)
        answer: Optional[Answer] = None
        failure: Optional[Exception] = None
        try:
            self._note(stream.close)
            answer = work(stream)
        except CopilotError as error:
            failure = error.with_traceback(None)
        finally:
            self._under_way.discard(stream.close)
            stream.close()
        known = stream.conversation
        conversation_id = None if known is None else known.conversation_id
        return StepResult(conversation_id, answer, failure, time.monotonic() - began, stream.attempts)

    def _stream(self, task: Task) -> Stream:
        return self._client.stream(
            task.content,
            model=task.model,
            timeout=task.timeout,
            retry=_without_waits_for_limits(self._client.retry, self._max_wait),
            buffered=True,
            handle=task.handle,
            extra=task.extra,
            label=task.label,
            user=task.user,
            answer_cache=task.answer_cache,
        )

    def _note(self, end: Callable[[], None]) -> None:
        self._under_way.add(end)
        if self._stopped:  # ``stop`` may have run just before this was noted
            end()


class Submission:
    """One prompt on its way: what is asked, where its message goes, and what it has met. For one thread at a time.

    Attributes:
        task: What is asked. Its ``handle`` is there as soon as it is known where the message goes.
        history: What it has met.
        seconds: How long the asking took so far, without the time that the prompt waited for its turn.
        attempts: How often its messages were sent.
        misfits: How many answers did not fit, for each of which another one was asked for.

    Args:
        task: The question.
        expected: What its answer has to be; ``None`` for any text.
        refusals: How often it was refused before.
        attempts: How often it was sent before.
    """

    def __init__(
        self, task: Task, expected: Optional[Expectation] = None, *, refusals: int = 0, attempts: int = 0
    ) -> None:
        self._question = task
        self._expected = expected
        self._usages: List[Optional[Usage]] = []  # of the answers that did not fit
        self.task = task
        self.history = MessageHistory(refusals=refusals)
        self.seconds = 0.0
        self.attempts = attempts
        self.misfits = 0

    @property
    def is_judged(self) -> bool:
        """Whether its answer has to fit a schema."""
        return self._expected is not None

    @property
    def handle(self) -> Optional[MessageHandle]:
        """What finds its message; ``None`` as long as it is not known where the message goes."""
        return self.task.handle

    def target(self, conversation_id: str, parent_id: Optional[str]) -> MessageHandle:
        """Send the message into a conversation, as the answer to a message there."""
        handle = MessageHandle(conversation_id, new_id(), parent_id)
        self.task = dataclasses.replace(self.task, handle=handle)
        return handle

    def mark_maybe_sent(self, handle: Optional[MessageHandle] = None) -> MessageHandle:
        """Look for the message before it is sent; for that of another handle, if one is passed."""
        handle = handle or self.handle
        assert handle is not None  # noqa: S101 - nothing is sent without
        handle = dataclasses.replace(handle, maybe_sent=True)
        self.task = dataclasses.replace(self.task, handle=handle)
        return handle

    def count(self, step: StepResult) -> None:
        """Add what a step took to ``seconds`` and ``attempts``. A step that sends no message has no attempts."""
        self.seconds += step.seconds
        self.attempts += step.attempts

    def restart(self) -> None:
        """Forget the conversation: no answer will come there. The question is asked again, in another one."""
        self.task = dataclasses.replace(self.task, handle=None, content=self._question.content)

    @property
    def repair_content(self) -> Optional[str]:
        """The text that asks for a better answer; ``None`` if the question itself is asked."""
        return None if self.task.content == self._question.content else str(self.task.content)

    def resume_repair(self, misfits: int, content: Optional[str]) -> None:
        """Go on behind answers that did not fit, with the text that asked for a better one."""
        self.misfits, self._usages = misfits, [None] * misfits
        if content is not None:
            self.task = dataclasses.replace(self.task, content=PromptText(content))

    def recalled(self, answer: Answer) -> Optional[Answer]:
        """Return an answer that a cache had, as data if it has to fit a schema.

        Returns:
            The answer; ``None`` if it will not do: the service is asked then.
        """
        try:
            return self._fitted(answer)
        except Exception:  # noqa: BLE001 - whoever asks the service will meet it again
            self.task = self._question = dataclasses.replace(self._question, answer_cache=False)
            return None

    def judged(self, answer: Answer) -> Optional[Answer]:
        """Return an answer, as data if it has to fit a schema.

        Returns:
            The answer; ``None`` if it does not fit, and ``task`` is to ask for another one.

        Raises:
            InvalidAnswerError: It does not fit, and was the last one.
        """
        try:
            return self._fitted(answer)
        except MisfitError as misfit:
            problems = misfit.problems
            if self._expected is not None and self.misfits < self._expected.repairs:
                self._repair(answer, repair_text(problems))
                return None
        except Exception as error:  # noqa: BLE001 - of a validator of the user's own; it stops no other prompt
            problems = (f"the validator raised {type(error).__name__}: {error}",)
        raise invalid_answer(self._with_total_usage(answer), problems, self.misfits + 1)

    def _fitted(self, answer: Answer) -> Answer:
        return self._expected.schema.fitted(self._with_total_usage(answer)) if self._expected else answer

    def _with_total_usage(self, answer: Answer) -> Answer:
        return dataclasses.replace(answer, usage=total_usage([*self._usages, answer.usage]))

    def _repair(self, answer: Answer, content: str) -> None:
        """Ask for another answer, behind one that does not fit."""
        self.misfits += 1
        log_misfit(self.misfits)
        self._usages.append(answer.usage)
        self.history = MessageHistory()  # it is another message
        self.task = dataclasses.replace(self.task, content=PromptText(content))
        self.target(answer.conversation.conversation_id, answer.message_id)

    def after_failure(
        self, error: Exception, triage: Triage, *, is_last: bool = False, can_restart: bool = False
    ) -> "Tuple[Decision, Exception]":
        """Decide what becomes of the prompt, and get it ready to be sent again.

        Args:
            error: What it failed with.
            triage: Decides.
            is_last: Whether no other prompt is left.
            can_restart: Whether it may be sent into another conversation.

        Returns:
            The decision, and the error that it is about: the one that kept everybody from looking, if there is one.
        """
        cause = shared_cause(error)
        if self.handle is not None and (cause is not None or verdict_of(error).may_be_processed):
            self.mark_maybe_sent()
        error = cause or error
        decision = triage.decide(error, self.history, is_last=is_last, can_restart=can_restart)
        if decision is Decision.WAIT and verdict_of(error).in_answer:
            self.restart()
        return decision, error


class Sender(abc.ABC):
    """Sends one prompt, and waits as often as it has to: for the limiter, and after a refusal. For one thread.

    A subclass says how to wait and where to keep things.

    Args:
        worker: Asks.
        limiter: Lets prompts through.
        submission: The prompt.
    """

    def __init__(self, worker: Worker, limiter: RateLimiter, submission: Submission) -> None:
        self._worker = worker
        self._limiter = limiter
        self._submission = submission
        self._triage = Triage(limiter, is_alone=True)
        self._has_begun = False  # a conversation for the prompt

    def send(self) -> Answer:
        """Ask until there is an answer that fits.

        Raises:
            InvalidAnswerError: No answer fits.
            CopilotError: The prompt failed.
        """
        submission = self._submission
        recalled = None if submission.handle else self._worker.recall(submission.task)
        answer = recalled and submission.recalled(recalled)
        while answer is None:
            self._acquire()
            try:
                step = self._begin_and_ask()
            finally:
                self._limiter.release()
            if step.answer is None:
                self._failed(step.error or AssertionError("a step has an answer or an error"))
            elif step.answer.cached:
                answer = submission.recalled(step.answer)
            else:
                self._triage.answered()
                answer = self._judged(step.answer)
        return answer

    def _judged(self, answer: Answer) -> Optional[Answer]:
        if self._submission.is_judged:
            check_complete(answer)
        judged = self._submission.judged(answer)
        if judged is None:
            self.note()
        return judged

    @abc.abstractmethod
    def check(self) -> None:
        """Raise if asking would be in vain."""

    @abc.abstractmethod
    def wait(self, seconds: float, *, for_a_slot: bool = False) -> None:
        """Wait for so long; for as long as it takes until somebody releases a slot of the limiter."""

    @abc.abstractmethod
    def entered(self) -> None:
        """Take note that the limiter let the prompt through. Whatever is raised gives its slot back."""

    @abc.abstractmethod
    def note(self) -> None:
        """Keep what finds the message of the submission, before it is sent."""

    @abc.abstractmethod
    def stop_others(self, error: CopilotError) -> None:
        """Take note of what everybody else would meet as well."""

    def _acquire(self) -> None:
        self.check()
        while True:
            seconds = self._limiter.try_acquire()
            if seconds == 0:
                break
            self.wait(LOOK_AGAIN if math.isinf(seconds) else seconds, for_a_slot=math.isinf(seconds))
            self.check()
        try:
            self.entered()
        except BaseException:
            self._limiter.release()
            raise

    def _begin_and_ask(self) -> StepResult:
        submission = self._submission
        if submission.handle is None:
            step = self._worker.begin(submission.task)
            submission.count(step)
            if step.error is not None or step.answer is not None:
                return step
            self._has_begun = True
            submission.target(str(step.conversation_id), ROOT)
            self.note()
        step = self._worker.ask(submission.task)
        submission.count(step)
        return step

    def _failed(self, failure: Exception) -> None:
        decision, error = self._submission.after_failure(failure, self._triage)
        if decision is Decision.WAIT_ALONE:
            self.wait(getattr(error, "retry_after", None) or WITHOUT_ADVICE)
        elif decision is not Decision.WAIT:
            self._discard_thread(error)
            if decision is Decision.STOP and isinstance(error, CopilotError):
                self.stop_others(error)
            raise error

    def _discard_thread(self, error: Exception) -> None:
        """Delete the conversation that was begun for the prompt, if the prompt is certainly not in it."""
        handle = self._submission.handle
        is_refused = isinstance(error, CopilotError) and is_refusal(error) and not self._submission.misfits
        if self._has_begun and is_refused and handle is not None and not handle.maybe_sent:
            self._worker.delete(handle.conversation_id)


def _begun(stream: Stream) -> Optional[Answer]:
    answer = stream._recall()
    if answer is None:
        stream._call.is_reported = False  # hooks are told of the call that asks
        stream.start()
    return answer


def _without_waits_for_limits(policy: Optional[RetryPolicy], max_wait: Optional[float]) -> Optional[RetryPolicy]:
    """Make limits end a call instead of being waited for, so that whoever sends prompts learns of them."""
    if policy is None:
        return None
    longest = policy.max_wait if max_wait is None else min(policy.max_wait, max_wait)
    return dataclasses.replace(policy, wait_for_limits=False, max_wait=longest)
