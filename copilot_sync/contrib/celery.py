"""Copilot Chat in Celery: a task that asks, and many prompts at once over all workers.

    from copilot_sync import batch
    from copilot_sync.contrib.celery import ask, fan_out

    ask.delay("Explain WSGI").get()["text"]
    for result in fan_out(batch.read("prompts.jsonl")):
        print(result.id, result.text or result.error)

Workers ask with credentials of their own: none is ever in a task. What is tried again is for the client to know, so the
task has no retries. Whoever is about to send a message first keeps what finds it again, in the result backend; another
worker that gets the task looks there before it asks. ``app.conf`` says the rest:

``copilot_sync_client``
    A function that gives a client, or its dotted name. Default: ``copilot_sync.Client``, from the environment.
``copilot_sync_cache``
    What all workers share the pause after a refusal and the pace through: an object with ``get``, ``set`` and ``add``
    such as Django's cache, or its dotted name. Default: the result backend if it is Redis, else each process's memory.
``copilot_sync_rate`` and ``copilot_sync_places``
    How many prompts begin in a minute, in all workers; default: any. How many are under way in a process; default: 8.
"""

import dataclasses
import json
import time
import uuid
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from copilot_sync import errors
from copilot_sync.batch.asking import Asker, Step, Task
from copilot_sync.batch.gate import Gate, GateCache, MemoryCache
from copilot_sync.batch.prompts import BadLine, Id, Prompt, PromptSource, read_prompt
from copilot_sync.batch.results import Result, error_of, result_of_bad_line
from copilot_sync.client import Client
from copilot_sync.models import Conversation, Receipt, Usage, details_of
from copilot_sync.protocol import ROOT

try:
    import celery
    from celery import states
    from celery.backends.base import DisabledBackend
    from celery.result import AsyncResult, GroupResult
    from celery.utils.imports import symbol_by_name
    from kombu.utils.objects import cached_property
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(f'this module needs {error.name}: pip install "copilot-sync[celery]"', name=error.name) from None

#: The state of a task whose message may have been sent. Its result is the receipt.
SENDING = "COPILOT_SYNC_SENDING"

#: Where the result backends are that keep results in Redis. It can't be imported where there is no Redis client.
_REDIS = "celery.backends.redis"
#: Prompts that are under way at once in one process.
_PLACES = 8
#: Seconds that everybody waits at most for the service, and how often a prompt is refused before it fails. Redis gives
#: a task to another worker after an hour.
_LONGEST_WAIT = 1800.0
_MOST_REFUSALS = 10
#: What would meet every other prompt as well. Seconds for which the others fail with it instead of asking.
_HOPELESS = (
    errors.AuthenticationError,
    errors.MissingCredentialsError,
    errors.QuotaExceededError,
    errors.WrongHostError,
)
_HOPELESS_SECONDS = 60
_HOPELESS_KEY = "copilot-sync-hopeless"
#: Seconds that the message of a worker that died may still be on its way.
_SETTLE = 1.0


class RedisCache:
    """A cache in Redis, for what workers share. Safe for any thread.

    Args:
        redis: A ``redis.Redis``, or anything with its ``get`` and ``set``.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def get(self, key: str) -> Optional[str]:
        """Give what was set for a key, ``None`` where there is nothing or its time is over."""
        value = self._redis.get(key)
        return value.decode() if isinstance(value, bytes) else value

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep a value for so many seconds."""
        self._redis.set(key, value, ex=timeout)

    def add(self, key: str, value: str, timeout: int) -> bool:
        """Keep a value where the key has none yet, and tell whether it had none."""
        return bool(self._redis.set(key, value, ex=timeout, nx=True))


class _Ask(celery.Task):
    """What the task is made with, and what a process has one of."""

    throws = (errors.CopilotError,)  # an answer that is not to be had is no defect of the task
    acks_late = True
    reject_on_worker_lost = True
    # They would be written over the receipt, or leave none.
    track_started = False
    ignore_result = False

    @cached_property
    def asker(self) -> Asker:
        return Asker(_named(self.app.conf.get("copilot_sync_client") or Client)())

    @cached_property
    def shared(self) -> GateCache:
        cache = _named(self.app.conf.get("copilot_sync_cache"))
        if cache is None and type(self.backend).__module__ == _REDIS:
            cache = RedisCache(self.backend.client)
        return cache or MemoryCache(clock=time.time)

    @cached_property
    def gate(self) -> Gate:
        conf = self.app.conf
        return Gate(conf.get("copilot_sync_places", _PLACES), rate=conf.get("copilot_sync_rate"), cache=self.shared)

    def earlier(self) -> Mapping[str, Any]:
        """What the result backend knows of this task: more than nothing where it was given to a worker before."""
        if self.request.is_eager or isinstance(self.backend, DisabledBackend):
            return {"status": None}
        known: Mapping[str, Any] = self.backend.get_task_meta(self.request.id)
        return known

    def keep(self, receipt: Receipt) -> Receipt:
        """Have the result backend keep what finds a message again, before it is sent."""
        if not self.request.is_eager:
            self.update_state(state=SENDING, meta=dataclasses.asdict(receipt))
        return receipt

    def step(self, task: Task) -> Step:
        """Begin a conversation where there is none yet, and ask, when the gate lets it in."""
        step = Step()
        for _ in range(_MOST_REFUSALS):
            self.check()
            self.gate.enter()
            try:
                if task.receipt is None:
                    step = self.asker.begin(task)
                    if step.error is None:
                        receipt = Receipt(str(step.conversation_id), str(uuid.uuid4()), ROOT)
                        task = dataclasses.replace(task, receipt=self.keep(receipt))
                if task.receipt is not None:
                    step = self.asker.ask(task)
            finally:
                self.gate.leave()
            if not isinstance(step.error, errors.RateLimitError) or isinstance(step.error, _HOPELESS):
                break
            self.gate.refused(step.error.retry_after)
        return self.noted(step)

    def check(self) -> None:
        """Refuse to ask what would be in vain.

        Raises:
            CopilotError: What another prompt met a moment ago, and this one would meet as well.
            RateLimitError: The service asked everybody to wait for too long.
        """
        told = self.shared.get(_HOPELESS_KEY)
        if told is not None:
            error = json.loads(told)
            raise getattr(errors, error.pop("type"))(error.pop("message"), **error)
        pause = self.gate.pause
        if pause > _LONGEST_WAIT:
            raise errors.RateLimitError(f"the service asked everybody to wait for {pause:.0f} s", retry_after=pause)

    def noted(self, step: Step) -> Step:
        """Have the other prompts know what this one met."""
        if step.answer is not None:
            self.gate.answered()
        if isinstance(step.error, _HOPELESS):
            self.shared.set(_HOPELESS_KEY, json.dumps(error_of(step.error)), _HOPELESS_SECONDS)
        return step


@celery.shared_task(bind=True, base=_Ask, name="copilot_sync.ask")
def ask(  # noqa: D417 - Celery gives self
    self: _Ask,
    prompt: Union[str, Sequence[Mapping[str, Any]]],
    *,
    conversation: Union[None, str, Mapping[str, Any]] = None,
    model: Optional[str] = None,
    system: Optional[str] = None,
    timeout: Optional[float] = None,
) -> Dict[str, Any]:
    """Ask, and give the whole answer. Arguments and result are plain JSON.

    Celery's time limits end it at once, wherever it is.

    Args:
        prompt: A text, or role messages.
        conversation: The id of a conversation to go on with, or what ``Conversation.to_dict`` gives.
        model: The model's id. Default: the client's.
        system: Instructions for the model.
        timeout: Seconds of silence allowed. Default: the client's.

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
    known = Conversation.from_dict(conversation) if isinstance(conversation, Mapping) else Conversation.of(conversation)
    task = Task(Prompt("", prompt, conversation=known).content(system), model, timeout)
    if earlier["status"] == SENDING:
        time.sleep(_SETTLE)
        task = dataclasses.replace(task, receipt=Receipt(**{**earlier["result"], "maybe_sent": True}))
    elif known is not None:
        receipt = Receipt(known.conversation_id, str(uuid.uuid4()), known.message_id)
        task = dataclasses.replace(task, receipt=self.keep(receipt))
    step = self.step(task)
    if step.answer is None:
        raise step.error or AssertionError("a step has an answer or an error")
    answer = step.answer
    return {
        "text": answer.text,
        **details_of(answer),
        "seconds": round(step.seconds, 3),
        "attempts": step.attempts,
    }


def _named(value: Any) -> Any:
    return symbol_by_name(value) if isinstance(value, str) else value


# Many prompts


def fan_out(
    prompts: PromptSource,
    *,
    model: Optional[str] = None,
    system: Optional[str] = None,
    timeout: Optional[float] = None,
    **options: Any,
) -> "FannedOut":
    """Hand many prompts to the workers, a task each. Returns when the broker has all of them.

    Prompts are read one by one, and nothing of them is kept but their ids. Prompts that go on with the same
    conversation do not wait for each other here.

    Args:
        prompts: Texts, dictionaries, ``Prompt`` values, or what ``batch.read`` gives, as for ``batch.run``.
        model: The model of prompts that name none. Default: the workers' client's.
        system: Instructions for the model, for prompts that have none.
        timeout: For each prompt: seconds of silence allowed. Default: the client's.
        **options: How tasks are sent, as ``Task.apply_async`` has it: ``queue``, ``priority``, ``expires`` and so on.

    Raises:
        kombu.exceptions.OperationalError: The broker can't be reached.
    """
    sent: List[_Sent] = []
    with ask.app.producer_or_acquire() as producer:
        for number, value in enumerate(prompts):
            prompt = read_prompt(value, number)
            if isinstance(prompt, BadLine):
                sent.append((prompt.id, prompt))
                continue
            arguments = _arguments_of(prompt, model, system, timeout)
            sent.append((prompt.id, ask.apply_async((prompt.prompt,), arguments, producer=producer, **options)))
    return FannedOut(sent)


#: What stands for a prompt: its id, and the task that asks it.
_Sent = Tuple[Id, Union[AsyncResult, BadLine]]


def _arguments_of(
    prompt: Prompt, model: Optional[str], system: Optional[str], timeout: Optional[float]
) -> Dict[str, Any]:
    known = Conversation.of(prompt.conversation)
    arguments = {
        "conversation": None if known is None else known.to_dict(),
        "model": prompt.model or model,
        "system": prompt.system or system,
        "timeout": timeout,
    }
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
            timeout: Seconds to wait for the next one. Default: for ever, also where no worker is.

        Raises:
            celery.exceptions.TimeoutError: The next one did not come in time.
        """
        for id, each in self._sent:
            yield _result_of(id, each, timeout)

    def as_they_come(self, *, timeout: Optional[float] = None) -> Iterator[Result]:
        """Yield the results in the order of their coming.

        Args:
            timeout: Seconds to wait for all of them. Default: for ever, also where no worker is.

        Raises:
            celery.exceptions.TimeoutError: Some did not come in time.
        """
        places = {}
        for id, each in self._sent:
            if isinstance(each, BadLine):
                yield result_of_bad_line(each)
            else:
                places[each.id] = (id, each)
        for task_id, _ in self.group.iter_native(timeout=timeout):
            yield _result_of(*places[task_id], timeout)


def _result_of(id: Id, each: Union[AsyncResult, BadLine], timeout: Optional[float]) -> Result:
    if isinstance(each, BadLine):
        return result_of_bad_line(each)
    fields = each.get(timeout=timeout, propagate=False)
    if isinstance(fields, Exception):
        return Result(
            id,
            text=getattr(fields, "partial", ""),
            conversation_id=_conversation_id_of(fields),
            error=error_of(fields),
        )
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
