"""Requests of OpenAI's batches, a line of JSON each, and the faults of their files.

A line is ``{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {…}}``. As at OpenAI, a file of
which any line is no such request is refused as a whole, before anything is asked. A ``body`` that can't be met fails
alone: its line becomes a ``BadLine``.

The codes of faults are OpenAI's, as far as they are known (November 2026).
"""

from typing import IO, Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Union

from copilot_sync.batch.disk_dict import DiskDict
from copilot_sync.batch.prompts import BadLine, Prompt, checked_prompt
from copilot_sync.openai_api.chat_request import ChatRequest
from copilot_sync.openai_api.failures import ApiError
from copilot_sync.safe_text import check_text, loads
from copilot_sync.text_files import Line, lines_of

#: The path that requests of a batch may have.
URL = "/v1/chat/completions"
#: Bytes. A longer line is no request that any model would read.
_LONGEST_LINE = 16 * 1024 * 1024
#: Faults that a message names.
_MOST_NAMED = 3


class LineFault(NamedTuple):
    """What is wrong with a line, as OpenAI's batches say it.

    Attributes:
        code: For a program.
        message: For a person.
        param: The field that is wrong; ``None`` for the whole line.
        line: The number of the line, from 1; ``None`` for the whole file.
    """

    code: str
    message: str
    param: Optional[str]
    line: Optional[int]


class _FaultError(Exception):
    """A line is no request."""

    def __init__(self, code: str, message: str, param: Optional[str] = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def faults_of(file: IO[bytes]) -> Iterator[LineFault]:
    """Yield what is wrong with a file of requests, in the order of its lines; nothing if it can be asked.

    Raises:
        ValueError: The file is not text.
    """
    count = 0
    with DiskDict() as ids:
        for line in lines_of(file, _LONGEST_LINE):
            if line.is_blank:
                continue
            count += 1
            try:
                custom_id = _read_request(line)["custom_id"]
                if not ids.add(custom_id):
                    raise _FaultError("duplicate_custom_id", "another line has the same custom_id", "custom_id")
            except _FaultError as fault:
                yield LineFault(fault.code, str(fault), fault.param, line.number)
    if not count:
        yield LineFault("empty_file", "there is no request in the file", None, None)


def check_requests(file: IO[bytes]) -> None:
    """Refuse a file of which any line is no request.

    Raises:
        ValueError: It is refused. The message names the first lines.
    """
    named: List[str] = []
    count = 0
    for fault in faults_of(file):
        count += 1
        if len(named) < _MOST_NAMED:
            named.append(str(fault.message) if fault.line is None else f"line {fault.line}: {fault.message}")
    if count:
        more = f"; and {count - len(named)} more" if count > len(named) else ""
        raise ValueError("; ".join(named) + more)


def read_requests(file: IO[bytes]) -> Iterator[Union[Prompt, BadLine]]:
    """Yield the prompts of a file that was checked."""
    for line in lines_of(file, _LONGEST_LINE):
        if not line.is_blank:
            try:
                yield _prompt_of(_read_request(line), line.number)
            except _FaultError as fault:  # the file was changed since it was checked
                yield BadLine(line.number, line.number, str(fault), fault.code, fault.param)


def _read_request(line: Line) -> Dict[str, Any]:
    """Read a line as far as its file has to be right.

    Raises:
        _FaultError: It is no request.
    """
    fields = _read_object(line)
    custom_id, body = fields.get("custom_id"), fields.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        raise _FaultError("missing_required_parameter", "custom_id must be a string, and not empty", "custom_id")
    try:
        check_text("custom_id", custom_id)
    except ValueError as error:
        raise _FaultError("invalid_custom_id", str(error), "custom_id") from None
    if fields.get("method") != "POST":
        raise _FaultError("invalid_method", "method must be POST", "method")
    if fields.get("url") != URL:
        raise _FaultError("invalid_url", f"url must be {URL}", "url")
    if not isinstance(body, dict):
        raise _FaultError("missing_required_parameter", "body must be an object", "body")
    return fields


def _read_object(line: Line) -> Dict[str, Any]:
    if line.too_long:
        raise _FaultError("invalid_json_line", f"it is longer than {_LONGEST_LINE} bytes")
    try:
        fields = loads(line.text) if line.is_text else None
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise _FaultError("invalid_json_line", "it is not a JSON object")
    return fields


def _prompt_of(fields: Mapping[str, Any], number: int) -> Union[Prompt, BadLine]:
    custom_id: str = fields["custom_id"]
    body: Dict[str, Any] = fields["body"]
    try:
        request = ChatRequest.from_json(body)
        if request.is_streamed:
            raise ApiError(400, "a batch streams nothing", code="unsupported_parameter", param="stream")
    except ApiError as error:
        return BadLine(custom_id, number, str(error), error.code, error.param)
    prompt = Prompt(custom_id, request.messages, request.model, schema=request.schema)
    found = checked_prompt(prompt, number, "messages")
    return (
        BadLine(custom_id, number, found.reason, "invalid_value", "messages") if isinstance(found, BadLine) else found
    )
