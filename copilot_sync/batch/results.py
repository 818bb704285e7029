"""The result of a prompt: its answer or its error, as a value and as a line of JSON.

Nothing here knows where results come from or where they are kept.
"""

import dataclasses
import json
from typing import Any, Dict, Mapping, Optional

from copilot_sync.batch.prompts import BadLine, Id
from copilot_sync.errors import CopilotError
from copilot_sync.usage import Usage

#: The error type of a line that is no prompt.
BAD_LINE = "BadLineError"
#: The keys of a line of the output, in their order. Earlier versions wrote some of them only.
KEYS = (
    *("id", "text", "parsed", "model", "usage", "conversation_id"),
    *("complete", "seconds", "attempts", "error"),
)
_EARLIER_KEYS = {*KEYS} - {"parsed", "complete", "error"}
#: How the ids of lines of OpenAI's begin. It tells them from those that OpenAI wrote.
OPENAI_ID_PREFIX = "batch_req_copilot_"
_OPENAI_KEYS = {"id", "custom_id", "response", "error"}
_ERROR_KEYS = {"type", "message", "stage", "status"}


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one prompt.

    Attributes:
        id: The prompt's id.
        text: The answer. If there is an error, the part of the answer that had come.
        model: The model that answered.
        usage: The tokens used; ``None`` if the service did not say.
        conversation_id: The conversation that has the answer.
        seconds: How long the asking took, without the time that the prompt waited for its turn.
        attempts: How often this run sent the message. 0 if an earlier run had sent it and its answer was found in the
            conversation.
        cached: Whether the answer came from the client's ``answer_cache``, without a request.
        parsed: The answer as data if the prompt has a schema, else ``None``. Then ``text`` is the last answer, and
            ``usage`` and ``attempts`` are those of all.
        parsed_json: The same as JSON; ``None`` if there is no schema. Not compared.
        error: ``None`` for an answer. Otherwise a mapping with ``type``, ``message``, ``stage`` and ``status``, and for
            a faulty line of OpenAI's ``code`` and ``param``.
    """

    id: Id
    text: str = ""
    model: str = ""
    usage: Optional[Usage] = None
    conversation_id: Optional[str] = None
    seconds: float = 0.0
    attempts: int = 0
    error: Optional[Mapping[str, Any]] = None
    cached: bool = False
    parsed: Any = None
    parsed_json: Optional[str] = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def complete(self) -> bool:
        """Whether ``text`` is the whole answer. A batch counts everything else as failed."""
        return self.error is None

    def to_dict(self) -> Dict[str, Any]:
        """Return the fields of a line of the output. Every line has the same keys; missing values are ``None``.

        Only a line whose answer came from the cache has one more, ``cached``, which is ``True``.
        """
        return {
            "id": self.id,
            "text": self.text if self.text or self.complete else None,
            "parsed": None if self.parsed_json is None else json.loads(self.parsed_json),
            "model": self.model or None,
            "usage": None if self.usage is None else dataclasses.asdict(self.usage),
            "conversation_id": self.conversation_id,
            "complete": self.complete,
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
            "error": None if self.error is None else dict(self.error),
            **({"cached": True} if self.cached else {}),
        }


def is_result(fields: object) -> bool:
    """Whether a JSON value is a line of an output, as ``to_dict`` or an earlier version writes it.

    Further keys are allowed, because people add to their results. An id and a text alone are not enough, because lines
    of data sets have them too.
    """
    if not isinstance(fields, dict) or not _is_id(fields.get("id")):
        return False
    error = fields.get("error")
    if error is not None and not (isinstance(error, dict) and set(error) >= _ERROR_KEYS):
        return False
    if error is not None and not set(fields) & _EARLIER_KEYS - {"id"}:
        return True
    return set(fields) >= _EARLIER_KEYS and isinstance(fields["text"], (str, type(None)) if error else str)


def is_openai_result(fields: object) -> bool:
    """Whether a JSON value is a line of an output in the form of OpenAI's batches, as this package writes it."""
    if not isinstance(fields, dict) or not set(fields) >= _OPENAI_KEYS:
        return False
    if not (isinstance(fields["custom_id"], str) and str(fields["id"]).startswith(OPENAI_ID_PREFIX)):
        return False
    response, error = fields["response"], fields["error"]
    if response is None:
        return isinstance(error, dict)
    body = response.get("body") if isinstance(response, dict) else None
    if not isinstance(body, dict):
        return False
    return response.get("status_code") == 200 or (isinstance(body.get("error"), dict) and "code" in body["error"])


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def error_of(error: Exception, stage: Optional[str] = None) -> Dict[str, Any]:
    """Return the fields of an error. The messages of our errors hold no secrets."""
    return {
        "type": type(error).__name__,
        "message": str(error.args[0]) if isinstance(error, CopilotError) and error.args else str(error),
        "stage": getattr(error, "stage", None) or stage,
        "status": getattr(error, "status", None),
    }


def result_of_bad_line(line: BadLine) -> Result:
    """Return the failure of a line that is no prompt."""
    error: Dict[str, Any] = {"type": BAD_LINE, "message": line.reason, "stage": "input", "status": None}
    if line.code is not None:
        error.update(code=line.code, param=line.param)
    return Result(line.id, error=error)
