"""The results of a batch, divided as OpenAI has them: a file of answers, and one of failures.

What was asked for and has no result, because the batch has ended early, is a failure as well.
"""

from typing import IO, Iterator, Tuple

from copilot_sync.batch.disk_dict import DiskDict
from copilot_sync.batch.line_formats import OPENAI_OUTPUT, Fields
from copilot_sync.batch.openai_lines import read_requests
from copilot_sync.batch.output_forms import DONE, OPENAI, openai_line

#: Why a request has no result, by the status in which its batch ended.
_WHY = {
    "cancelled": {"code": "batch_cancelled", "message": "the batch was cancelled before this request was asked"},
    "expired": {"code": "batch_expired", "message": "the time of the batch was over before this request was asked"},
}


def answers_in(results: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of the requests that were answered."""
    for line, fields in _lines_in(results):
        if OPENAI.outcome_of(fields) == DONE:
            yield line


def failures_in(results: IO[bytes], requests: IO[bytes], status: str) -> Iterator[bytes]:
    """Yield the lines of the requests that were not answered.

    Args:
        results: The results.
        requests: The file that was asked.
        status: The status in which the batch has ended.
    """
    with DiskDict() as known:
        for line, fields in _lines_in(results):
            known.add(fields["custom_id"])
            if OPENAI.outcome_of(fields) != DONE:
                yield line
        why = _WHY.get(status)
        for request in read_requests(requests) if why is not None else ():
            if known.add(str(request.id)):
                yield OPENAI_OUTPUT.write(openai_line(str(request.id), error=why)) + b"\n"


def _lines_in(results: IO[bytes]) -> Iterator[Tuple[bytes, Fields]]:
    """Yield the whole lines of an output. A kill may have torn the last one."""
    results.seek(0)
    for line in results:
        fields = OPENAI_OUTPUT.parse(line.strip())
        if fields is not None:
            yield line, fields
