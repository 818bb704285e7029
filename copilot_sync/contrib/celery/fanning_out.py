"""Many prompts for Celery's workers: how tasks are sent, and their results read."""

import json
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from celery.result import AsyncResult, GroupResult

from copilot_sync import errors
from copilot_sync.batch.intake import reading
from copilot_sync.batch.prompts import BadLine, Id, Prompt, PromptSource, with_json_schema
from copilot_sync.batch.results import Result, error_of, result_of_bad_line
from copilot_sync.contrib.celery.tasks import ask
from copilot_sync.inline_files import FileInput, NamedText, inline_files, read_files
from copilot_sync.models import Conversation
from copilot_sync.protocol.requests import MessageOptions
from copilot_sync.structured import REPAIRS, Expectation
from copilot_sync.usage import Usage


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
    schema: Optional[Mapping[str, Any]] = None,
    repairs: int = REPAIRS,
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
        schema: A JSON Schema that answers have to fit, for prompts that have none. The workers judge them, and need the
            extra ``schema`` as well.
        repairs: How often an answer that does not fit is asked for again, in the same conversation.
        **options: How tasks are sent, as ``Task.apply_async`` has it: ``queue``, ``priority``, ``expires`` and so on.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can't be sent, or the schema can't be used.
        ImportError: There is a schema, and what judges answers is not installed.
        OSError: A file can't be read.
        kombu.exceptions.OperationalError: The broker can't be reached.
    """
    attached = read_files(files)
    inline_files(attached)
    extra = MessageOptions.coerce(extra=extra).extra or None
    if schema is not None and not isinstance(schema, Mapping):
        raise TypeError(
            f"schema must be a JSON Schema, because the workers get it as JSON, not {type(schema).__name__}"
        )
    Expectation.from_values(schema, repairs)
    for_all = _known(extra=extra, timeout=timeout, label=label, user=user)
    sent: List[_Sent] = []
    with ask.app.producer_or_acquire() as producer, reading(prompts) as checked:
        for prompt in map(with_json_schema, checked):
            if isinstance(prompt, BadLine):
                sent.append((prompt.id, prompt))
                continue
            arguments = {**_arguments_of(prompt, model, system, attached, schema), **for_all}
            if "schema" in arguments:  # else a worker of an older release can answer
                arguments["repairs"] = repairs
            sent.append((prompt.id, ask.apply_async((prompt.prompt,), arguments, producer=producer, **options)))
    return FannedOut(sent)


#: What stands for a prompt: its id, and the task that asks it.
_Sent = Tuple[Id, Union[AsyncResult, BadLine]]


def _arguments_of(
    prompt: Prompt,
    model: Optional[str],
    system: Optional[str],
    attached: Sequence[NamedText],
    schema: Optional[Mapping[str, Any]],
) -> Dict[str, Any]:
    known = Conversation.from_value(prompt.conversation)
    conversation = None if known is None else known.to_dict()
    files = [*prompt.files, *attached] or None
    return _known(
        conversation=conversation,
        model=prompt.model or model,
        system=prompt.system or system,
        files=files,
        schema=schema if prompt.schema is None else prompt.schema,
    )


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
        answer = getattr(fields, "answer", None)  # the last one that does not fit
        return Result(
            id,
            text=getattr(fields, "partial", ""),
            model=answer.model if answer else "",
            usage=answer.usage if answer else None,
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
        parsed=fields.get("parsed"),
        parsed_json=json.dumps(fields["parsed"], ensure_ascii=False) if "parsed" in fields else None,
    )


def _conversation_id_of(error: Exception) -> Optional[str]:
    conversation = getattr(error, "conversation", None)
    return conversation.conversation_id if isinstance(conversation, Conversation) else None
