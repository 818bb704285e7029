"""The lines of a batch's output: the project's own results, or those of OpenAI's batches.

A form says how a result becomes a line, which lines are its own, and what a line says of its prompt. The journal knows
no more of them.

A line of OpenAI's is ``{"id": …, "custom_id": …, "response": {"status_code", "request_id", "body"}, "error": null}``,
its body a chat completion, or an error as the gateway answers with.
"""

import dataclasses
import uuid
from typing import Any, Callable, Dict, Mapping, Optional

from copilot_sync.batch.line_formats import OPENAI_OUTPUT, OUTPUT, Fields, LineFormat
from copilot_sync.batch.results import OPENAI_ID_PREFIX, Result
from copilot_sync.delivery.recovery import may_have_answer
from copilot_sync.openai_api.chat_objects import ChatCompletion
from copilot_sync.openai_api.failures import EMPTY_ANSWER, EMPTY_MESSAGE, from_record

#: What a line says of its prompt.
DONE = "done"
FAILED = "failed"
UNCERTAIN = "uncertain"  # failed, but the answer may be in its conversation
#: Statuses of errors after which the answer may be in its conversation: the connection broke, or nothing came in time.
_UNCERTAIN_STATUSES = (502, 504)


@dataclasses.dataclass(frozen=True)
class OutputForm:
    """A form of the lines.

    Attributes:
        lines: How a line is written and read.
        id_key: Under which key the prompt's id is.
        fields_of: Returns the fields of the line for a result.
        outcome_of: Returns what the fields of a line say of its prompt.
        judge: Returns a result as it counts in this form.
    """

    lines: LineFormat
    id_key: str
    fields_of: Callable[[Result], Fields]
    outcome_of: Callable[[Fields], str]
    judge: Callable[[Result], Result]


def _own_outcome(fields: Fields) -> str:
    error = fields.get("error")
    return DONE if error is None else UNCERTAIN if may_have_answer(error) else FAILED


def _as_it_is(result: Result) -> Result:
    return result


def _openai_fields(result: Result) -> Fields:
    status, body = 200, None
    if result.error is None:
        document = dataclasses.replace(result, text=result.parsed_json or result.text)
        body = ChatCompletion(result.model).completion(document)
    else:
        error = from_record(result.error)
        status, body = error.status, error.to_dict()
    response = {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": body}
    return openai_line(str(result.id), response=response)


def openai_line(
    custom_id: str, *, response: Optional[Mapping[str, Any]] = None, error: Optional[Mapping[str, Any]] = None
) -> Dict[str, Any]:
    """Return the fields of a line of OpenAI's.

    Args:
        custom_id: Which request it is about.
        response: What that was answered with; ``None`` if it was not asked.
        error: Why it was not asked: ``code`` and ``message``.
    """
    return {
        "id": f"{OPENAI_ID_PREFIX}{uuid.uuid4().hex}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }


def _openai_outcome(fields: Fields) -> str:
    response = fields["response"]
    if response is None:
        return FAILED
    if response["status_code"] == 200:
        return DONE
    is_empty = response["body"]["error"]["code"] == "empty_answer"
    return UNCERTAIN if response["status_code"] in _UNCERTAIN_STATUSES and not is_empty else FAILED


def _without_empty_answers(result: Result) -> Result:
    """Make an answer without text a failure, as in the gateway: clients would take it for a whole one."""
    if result.error is not None or result.text.strip():
        return result
    error = {"type": EMPTY_ANSWER, "message": EMPTY_MESSAGE, "stage": "stream", "status": None}
    return dataclasses.replace(result, error=error)


OWN = OutputForm(OUTPUT, "id", Result.to_dict, _own_outcome, _as_it_is)
OPENAI = OutputForm(OPENAI_OUTPUT, "custom_id", _openai_fields, _openai_outcome, _without_empty_answers)
#: By the name that callers give.
FORMS = {"jsonl": OWN, "openai": OPENAI}
