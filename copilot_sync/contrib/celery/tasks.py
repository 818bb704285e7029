"""The task that asks: one prompt, in one worker or in one after the other."""

import dataclasses
import json
import math
import random
import time
from typing import Any, Dict, Mapping, NoReturn, Optional, Sequence, Union

import celery
from celery import states
from celery.backends.base import DisabledBackend
from celery.exceptions import Reject
from celery.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from copilot_sync import errors
from copilot_sync.batch.prompts import Prompt
from copilot_sync.batch.results import error_of
from copilot_sync.batch.sender import Sender, Submission, Task, Worker
from copilot_sync.client import Client
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.inline_files import NamedText
from copilot_sync.models import Conversation
from copilot_sync.pacing.caches import LimiterCache, MemoryCache, RedisCache
from copilot_sync.pacing.limiter import BY_HOST, RateLimiter, pace_for
from copilot_sync.pacing.triage import LONGEST_WAIT
from copilot_sync.structured import REPAIRS, Expectation
from copilot_sync.times import waiting_time

#: The state of a task whose message may have been sent. Its result is the message's handle, as a dictionary.
SENDING = "COPILOT_SYNC_SENDING"

#: Where the result backends are that keep results in Redis. It can't be imported if there is no Redis client.
_REDIS = "celery.backends.redis"
#: Seconds after which a broker gives a task that is not done to another worker, if the application does not say:
#: Redis' hour, RabbitMQ's and SQS' half of it.
_VISIBILITY = 1800.0
#: Of them: how much a task sleeps at most, how long the broker is asked to keep it, and what a call waits by itself.
_SLEEPING, _KEPT, _IN_CALLS = 0.1, 0.25, 0.02
#: Seconds that a task sleeps at most, however patient the broker is.
_LONGEST_SLEEP = 60.0
#: Seconds of sleep after which it is looked whether another delivery has sent the message.
_LONG = 10.0
#: Seconds until a task comes back that found no slot of the limiter.
_NO_SLOT = 5.0
#: Seconds for which the others fail with what would meet them as well, instead of asking; at least, and at most.
_STOPPED_SECONDS = 60
_STOPPED_LONGEST = 3600
_STOPPED_KEY = "copilot-sync-stopped"


class _Ask(celery.Task):
    """What the task is made with, and what a process has one of."""

    throws = (errors.CopilotError,)  # an answer that is not to be had is no defect of the task
    acks_late = True
    reject_on_worker_lost = True
    # They would be written over the handle, or leave none.
    track_started = False
    ignore_result = False

    #: Waiting for the service is no attempt, so no number of it is too many.
    max_retries = None

    @cached_property
    def worker(self) -> Worker:
        client = _named(self.app.conf.get("copilot_sync_client") or Client)()
        return Worker(client, max_wait=_IN_CALLS * self.visibility)

    @property
    def visibility(self) -> float:
        """Seconds that the broker leaves a task with a worker."""
        said = (self.app.conf.broker_transport_options or {}).get("visibility_timeout")
        return float(said) if isinstance(said, (int, float)) and said > 0 else _VISIBILITY

    @cached_property
    def shared(self) -> LimiterCache:
        cache = _named(self.app.conf.get("copilot_sync_cache"))
        if cache is None and type(self.backend).__module__ == _REDIS:
            cache = RedisCache(self.backend.client)
        return cache or MemoryCache(clock=time.time)

    @cached_property
    def rate_limiter(self) -> RateLimiter:
        conf = self.app.conf
        concurrency, rate = pace_for(
            self.worker.api_url, conf.get("copilot_sync_concurrency"), conf.get("copilot_sync_rate", BY_HOST)
        )
        return RateLimiter(concurrency, rate=rate, cache=self.shared)

    def earlier(self) -> Mapping[str, Any]:
        """What the result backend knows of this task: more than nothing if it was given to a worker before."""
        if self.request.is_eager or isinstance(self.backend, DisabledBackend):
            return {"status": None}
        known: Mapping[str, Any] = self.backend.get_task_meta(self.request.id)
        return known

    def keep(self, submission: Submission) -> None:
        """Keep what finds a message in the result backend, before it is sent."""
        if not self.request.is_eager:
            self.update_state(state=SENDING, meta=_kept(submission))

    def check(self) -> None:
        """Refuse to ask what would be in vain.

        Raises:
            CopilotError: What another prompt met a moment ago, and this one would meet as well.
            RateLimitError: The service asked everybody to wait for too long.
        """
        told = self.shared.get(_STOPPED_KEY)
        if told is not None:
            error = json.loads(told)
            raise getattr(errors, error.pop("type"))(error.pop("message"), **error)
        pause = self.rate_limiter.pause
        if pause > LONGEST_WAIT:
            words = f"the service asked everybody to wait for {waiting_time(pause)}"
            raise errors.RateLimitError(words, retry_after=pause)

    def stop_others(self, error: errors.CopilotError) -> None:
        """Keep what this prompt met, so that the others fail with it instead of asking."""
        told = error_of(error)
        seconds = float(_STOPPED_SECONDS)
        if isinstance(error, errors.RateLimitError):
            told["retry_after"] = error.retry_after
            seconds = max(seconds, error.retry_after or 0.0)
        self.shared.set(_STOPPED_KEY, json.dumps(told), math.ceil(min(seconds, _STOPPED_LONGEST)))


class _TakenOverError(Exception):
    """Another delivery of the task has the result."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        super().__init__()
        self.result = result


class _Delivery(Sender):
    """One delivery of a task: it sends the prompt, and goes back to the broker if that takes too long.

    Args:
        task: The task as this process has it.
        submission: The prompt.
    """

    def __init__(self, task: _Ask, submission: Submission) -> None:
        super().__init__(task.worker, task.rate_limiter, submission)
        self._task = task
        self._slept = 0.0
        self._slept_before = 0.0  # when the limiter let the prompt through, or when it began to wait for it
        by_hand = task.request.is_eager or task.request.called_directly  # then there is no broker
        self._longest = math.inf if by_hand else min(_LONGEST_SLEEP, _SLEEPING * task.visibility)

    def run(self) -> Dict[str, Any]:
        """Ask until there is an answer, and return it as plain JSON.

        Raises:
            CopilotError: The answer could not be had.
            celery.exceptions.Retry: The task comes back later.
        """
        try:
            answer = self.send()
        except _TakenOverError as error:
            return dict(error.result)
        submission = self._submission
        return {**answer.to_dict(), "seconds": round(submission.seconds, 3), "attempts": submission.attempts}

    def check(self) -> None:
        self._task.check()

    def entered(self) -> None:
        """Look whether another delivery came to the prompt while this one slept."""
        slept, self._slept_before = self._slept - self._slept_before, self._slept
        if not slept:
            return
        known = self._task.earlier()
        if known["status"] == states.SUCCESS:
            raise _TakenOverError(known["result"])
        if known["status"] == SENDING:
            kept, own = known["result"], self._submission.handle
            if own is None or kept["answer_id"] != own.answer_id or slept >= _LONG:
                _resume(self._submission, kept)

    def note(self) -> None:
        self._task.keep(self._submission)

    def stop_others(self, error: errors.CopilotError) -> None:
        self._task.stop_others(error)

    def wait(self, seconds: float, *, for_a_slot: bool = False) -> None:
        """Sleep, if this delivery may still last so long; else make the broker deliver the task again later."""
        if self._slept + seconds <= self._longest:
            self._slept += seconds
            time.sleep(seconds)
            return
        self._come_back(_NO_SLOT if for_a_slot else seconds)

    def _come_back(self, seconds: float) -> NoReturn:
        submission = self._submission
        so_far = {
            "handle": _kept(submission),
            "refusals": submission.history.refusals,
            "attempts": submission.attempts,
        }
        request = self._task.request
        # Not all in the same instant, and sooner than the broker would take it for lost.
        countdown = min(max(1.0, seconds) * random.uniform(1.0, 1.2), _KEPT * self._task.visibility)
        try:
            raise self._task.retry(args=request.args, kwargs={**request.kwargs, "resumed": so_far}, countdown=countdown)
        except Reject as error:
            raise Reject(error.reason, requeue=True) from None  # the broker could not be reached: it still has the task


@celery.shared_task(bind=True, base=_Ask, name="copilot_sync.ask")
def ask(  # noqa: D417 - Celery gives self
    self: _Ask,
    prompt: Union[str, Sequence[Mapping[str, Any]]],
    *,
    conversation: Union[None, str, Mapping[str, Any]] = None,
    model: Optional[str] = None,
    system: Optional[str] = None,
    files: Optional[Sequence[NamedText]] = None,
    extra: Optional[Mapping[str, Any]] = None,
    timeout: Optional[float] = None,
    label: Optional[str] = None,
    user: Optional[str] = None,
    schema: Optional[Mapping[str, Any]] = None,
    repairs: int = REPAIRS,
    resumed: Optional[Mapping[str, Any]] = None,
) -> Dict[str, Any]:
    """Ask, and give the whole answer. Arguments and result are plain JSON.

    Celery's time limits end it at once, wherever it is.

    Args:
        prompt: A text, or role messages.
        conversation: The id of a conversation to go on with, or what ``Conversation.to_dict`` gives.
        model: The model's id. Default: the client's.
        system: Instructions for the model.
        files: Text files to attach: pairs of a name and a text. The worker opens no path that a task names.
        extra: Further fields of the message, as ``Client.ask`` takes them.
        timeout: Seconds of silence allowed. Default: the client's.
        label: What the task is for, in words of yours, for your own records. The service is not told.
        user: For whom it is, likewise. A ``Budget`` may limit each user.
        schema: A JSON Schema that the answer has to fit, to become ``parsed``. Default: any text will do.
        repairs: How often an answer that does not fit is asked for again, in the same conversation.
        resumed: What an earlier delivery of the same task came to. Not for callers.

    Returns:
        ``text``, ``conversation_id``, ``message_id``, ``model``, ``usage``, ``complete``, ``references``, ``seconds``
        and ``attempts``; ``parsed`` if there is a schema. With the two ids as ``conversation``, the next question goes
        on. ``cached`` is there if the client's ``answer_cache`` had the answer: such an answer has no conversation.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is nothing to ask, or it can't be sent, or the schema can't be used.
        ImportError: There is a schema, and what judges answers is not installed.
        InvalidAnswerError: No answer fits the schema.
        CopilotError: The answer could not be had.
    """
    earlier = self.earlier()
    if earlier["status"] == states.SUCCESS:
        return dict(earlier["result"])  # the worker before died between its answer and its word to the broker
    known = (
        Conversation.from_dict(conversation)
        if isinstance(conversation, Mapping)
        else Conversation.from_value(conversation)
    )
    so_far: Mapping[str, Any] = resumed or {}
    given = Prompt("", prompt, conversation=known, files=files or (), schema=schema)
    content, expected = given.content(system), Expectation.from_values(given.checked_schema, repairs)
    if expected is not None:
        content = expected.schema.added_to(content)
    task = Task(content, model, timeout, extra=extra, label=label, user=user)
    counts = {name: so_far.get(name, 0) for name in ("refusals", "attempts")}
    submission = Submission(task, expected, **counts)
    if earlier["status"] == SENDING:
        _resume(submission, earlier["result"])
    elif so_far.get("handle"):
        _resume(submission, so_far["handle"])
        self.keep(submission)
    elif known is not None:
        submission.target(known.conversation_id, known.message_id)
        self.keep(submission)
    return _Delivery(self, submission).run()


def _kept(submission: Submission) -> Optional[Dict[str, Any]]:
    """Return what finds a message again, as plain JSON; ``None`` as long as it is not known where it goes."""
    if submission.handle is None:
        return None
    repair = {"misfits": submission.misfits, "content": submission.repair_content} if submission.misfits else {}
    return {**dataclasses.asdict(submission.handle), **repair}


def _resume(submission: Submission, kept: Mapping[str, Any]) -> None:
    """Have a message looked for that may have been sent: the question, or what asked for a better answer."""
    handle = {name: value for name, value in kept.items() if name not in ("misfits", "content")}
    submission.mark_maybe_sent(MessageHandle(**handle))
    submission.resume_repair(kept.get("misfits", 0), kept.get("content"))


def _named(value: Any) -> Any:
    return symbol_by_name(value) if isinstance(value, str) else value
