"""Copilot Chat in Celery: a task that asks, and many prompts at once over all workers.

    from copilot_sync import batch
    from copilot_sync.contrib.celery import ask, fan_out

    ask.delay("Explain WSGI").get()["text"]
    for result in fan_out(batch.read("prompts.jsonl")):
        print(result.id, result.text or result.error)

Workers use credentials of their own; none is ever in a task. The client and the limiter decide what is sent again.
Celery's own retry only serves to wait: a task that has to wait for long goes back to the broker, so that no delivery
lasts longer than the broker allows. Before a message is sent, its handle is kept in the result backend; another worker
that gets the task looks there first. ``app.conf`` has these settings:

``copilot_sync_client``
    A function that returns a client, or its dotted name. Default: ``copilot_sync.Client``, from the environment.
``copilot_sync_cache``
    The cache through which all workers share the pause and the pace: an object with ``get``, ``set`` and ``add`` such
    as Django's cache, or its dotted name. Default: the result backend if it is Redis, else each process's memory.
``copilot_sync_rate`` and ``copilot_sync_concurrency``
    How many prompts start in a minute, in all workers (``None``: no limit), and how many run at once in a process.
    Default: 20 and 2; if the API is on this machine, as an emulator's is, no limit and 8.
"""

import dataclasses
import json
import math
import random
import time
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NoReturn, Optional, Sequence, Tuple, Union

from copilot_sync import errors
from copilot_sync.batch.intake import reading
from copilot_sync.batch.prompts import BadLine, Id, Prompt, PromptSource, without_schema
from copilot_sync.batch.results import Result, error_of, result_of_bad_line
from copilot_sync.batch.sender import Sender, Submission, Task, Worker
from copilot_sync.client import Client
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.inline_files import FileInput, NamedText, inline_files, read_files
from copilot_sync.models import Conversation
from copilot_sync.pacing.caches import LimiterCache, MemoryCache, RedisCache
from copilot_sync.pacing.limiter import BY_HOST, RateLimiter, pace_for
from copilot_sync.pacing.triage import LONGEST_WAIT
from copilot_sync.protocol.requests import MessageOptions
from copilot_sync.usage import Usage

try:
    import celery
    from celery import states
    from celery.backends.base import DisabledBackend
    from celery.exceptions import Reject
    from celery.result import AsyncResult, GroupResult
    from celery.utils.imports import symbol_by_name
    from kombu.utils.objects import cached_property
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(f'this module needs {error.name}: pip install "copilot-sync[celery]"', name=error.name) from None

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

    def keep(self, handle: MessageHandle) -> None:
        """Keep what finds a message in the result backend, before it is sent."""
        if not self.request.is_eager:
            self.update_state(state=SENDING, meta=dataclasses.asdict(handle))

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
            raise errors.RateLimitError(f"the service asked everybody to wait for {pause:.0f} s", retry_after=pause)

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
            kept, own = MessageHandle(**known["result"]), self._submission.handle
            if own is None or kept.answer_id != own.answer_id or slept >= _LONG:
                self._submission.mark_maybe_sent(kept)

    def note(self, handle: MessageHandle) -> None:
        self._task.keep(handle)

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
            "handle": None if submission.handle is None else dataclasses.asdict(submission.handle),
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
        resumed: What an earlier delivery of the same task came to. Not for callers.

    Returns:
        ``text``, ``conversation_id``, ``message_id``, ``model``, ``usage``, ``complete``, ``seconds`` and ``attempts``.
        With the two ids as ``conversation``, the next question goes on.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is nothing to ask, or it can't be sent.
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
    content = Prompt("", prompt, conversation=known, files=files or ()).content(system)
    task = Task(content, model, timeout, extra=extra, label=label, user=user)
    submission = Submission(task, refusals=so_far.get("refusals", 0), attempts=so_far.get("attempts", 0))
    if earlier["status"] == SENDING:
        submission.mark_maybe_sent(MessageHandle(**earlier["result"]))
    elif so_far.get("handle"):
        self.keep(submission.mark_maybe_sent(MessageHandle(**so_far["handle"])))
    elif known is not None:
        self.keep(submission.target(known.conversation_id, known.message_id))
    return _Delivery(self, submission).run()


def _named(value: Any) -> Any:
    return symbol_by_name(value) if isinstance(value, str) else value


def fan_out(
    prompts: PromptSource,
    *,
    model: Optional[str] = None,
    system: Optional[str] = None,
    files: Optional[Iterable[FileInput]] = None,
    extra: Optional[Mapping[str, Any]] = None,
    timeout: Optional[float] = None,
    label: Optional[str] = None,
    user: Optional[str] = None,
    **options: Any,
) -> "FannedOut":
    """Hand many prompts to the workers, a task each. Returns when the broker has all of them.

    Prompts are read one by one, and nothing of them is kept but their ids. Prompts that go on with the same
    conversation do not wait for each other here.

    Args:
        prompts: Texts, dictionaries, ``Prompt`` values, or what ``batch.read`` gives, as for ``batch.run``.
        model: The model of prompts that name none. Default: the workers' client's.
        system: Instructions for the model, for prompts that have none.
        files: Text files to attach to every prompt, behind its own: paths, which are read here and by no worker, or
            pairs of a name and a text. Each task carries their texts.
        extra: Further fields of every message, as ``Client.ask`` takes them.
        timeout: For each prompt: seconds of silence allowed. Default: the client's.
        label: What the prompts are for, in words of yours, for your own records. The service is not told.
        user: For whom they are, likewise. A ``Budget`` may limit each user.
        **options: How tasks are sent, as ``Task.apply_async`` has it: ``queue``, ``priority``, ``expires`` and so on.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can't be sent.
        OSError: A file can't be read.
        kombu.exceptions.OperationalError: The broker can't be reached.
    """
    attached = read_files(files)
    inline_files(attached)
    extra = MessageOptions.coerce(extra=extra).extra or None
    for_all = _known(extra=extra, timeout=timeout, label=label, user=user)
    sent: List[_Sent] = []
    with ask.app.producer_or_acquire() as producer, reading(prompts) as checked:
        for prompt in map(without_schema, checked):
            if isinstance(prompt, BadLine):
                sent.append((prompt.id, prompt))
                continue
            arguments = {**_arguments_of(prompt, model, system, attached), **for_all}
            sent.append((prompt.id, ask.apply_async((prompt.prompt,), arguments, producer=producer, **options)))
    return FannedOut(sent)


#: What stands for a prompt: its id, and the task that asks it.
_Sent = Tuple[Id, Union[AsyncResult, BadLine]]


def _arguments_of(
    prompt: Prompt, model: Optional[str], system: Optional[str], attached: Sequence[NamedText]
) -> Dict[str, Any]:
    known = Conversation.from_value(prompt.conversation)
    conversation = None if known is None else known.to_dict()
    files = [*prompt.files, *attached] or None
    return _known(conversation=conversation, model=prompt.model or model, system=prompt.system or system, files=files)


def _known(**arguments: Any) -> Dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


class FannedOut:
    """Prompts that workers are asking. Iterate it for their results, in the order of the prompts.

    Attributes:
        group: The tasks as a ``GroupResult``: to revoke them, to see how many are done, or to save it.
    """

    def __init__(self, sent: List[_Sent]) -> None:
        self._sent = sent
        tasks = [each for _, each in sent if not isinstance(each, BadLine)]
        self.group = GroupResult(str(uuid.uuid4()), tasks, app=ask.app)

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Result]:
        return self.in_order()

    def in_order(self, *, timeout: Optional[float] = None) -> Iterator[Result]:
        """Yield the results in the order of the prompts, each when it and all before it are there.

        Args:
            timeout: Seconds to wait for the next one. Default: for ever, also if there is no worker.

        Raises:
            celery.exceptions.TimeoutError: The next one did not come in time.
        """
        for id, each in self._sent:
            yield _result_of(id, each, timeout)

    def as_they_come(self, *, timeout: Optional[float] = None) -> Iterator[Result]:
        """Yield the results in the order of their coming.

        Args:
            timeout: Seconds to wait for all of them. Default: for ever, also if there is no worker.

        Raises:
            celery.exceptions.TimeoutError: Some did not come in time.
        """
        concurrency = {}
        for id, each in self._sent:
            if isinstance(each, BadLine):
                yield result_of_bad_line(each)
            else:
                concurrency[each.id] = (id, each)
        for task_id, _ in self.group.iter_native(timeout=timeout):
            yield _result_of(*concurrency[task_id], timeout)


def _result_of(id: Id, each: Union[AsyncResult, BadLine], timeout: Optional[float]) -> Result:
    if isinstance(each, BadLine):
        return result_of_bad_line(each)
    fields = each.get(timeout=timeout, propagate=False)
    if isinstance(fields, Exception):
        partial = getattr(fields, "partial", "")
        return Result(id, text=partial, conversation_id=_conversation_id_of(fields), error=error_of(fields))
    error = None
    if not fields["complete"]:
        words = "the service did not say that the answer is whole"
        error = error_of(errors.StreamInterruptedError(words, stage="stream"))
    usage = fields["usage"]
    return Result(
        id=id,
        text=fields["text"],
        model=fields["model"],
        usage=None if usage is None else Usage(**usage),
        conversation_id=fields["conversation_id"],
        seconds=fields["seconds"],
        attempts=fields["attempts"],
        error=error,
    )


def _conversation_id_of(error: Exception) -> Optional[str]:
    conversation = getattr(error, "conversation", None)
    return conversation.conversation_id if isinstance(conversation, Conversation) else None
