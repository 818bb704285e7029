"""What tests of journals share: journals that are opened and written, and what their files hold."""

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from copilot_sync.batch.durable_file import JournalError
from copilot_sync.batch.journal import Intent, Journal
from copilot_sync.batch.results import Result
from copilot_sync.delivery.message import MessageHandle

LINE = (
    b'{"id": "a", "text": "one", "parsed": null, "model": "auto", "usage": null, "conversation_id": "t", '
    b'"complete": true, "seconds": 1, "attempts": 1, "error": null}\n'
)
FAILURE = {"type": "ServerError", "message": "boom", "stage": "stream", "status": None}


def journal_of(output: Path) -> Path:
    return output.with_name(output.name + ".journal")


def opened(output: Path, retry_failed: bool = False) -> Journal:
    return Journal(str(output), retry_failed=retry_failed)


def failure(id: str, error: Dict[str, Any] = FAILURE) -> Result:
    return Result(id, error=error)


def intent(id: str, conversation: str = "t", *, created_thread: bool = True) -> Intent:
    return Intent(id, MessageHandle(conversation, f"answer-of-{id}", "root"), "digest", created_thread)


def write(output: Path, *results: Result, finish: bool = False) -> None:
    with opened(output) as journal:
        journal.write(list(results))
        if finish:
            journal.finish()


def ids(output: Path) -> List[Any]:
    return [json.loads(line)["id"] for line in output.read_bytes().splitlines()]


def names(output: Path) -> List[str]:
    return sorted(path.name for path in output.parent.iterdir())


def refused(output: Path, words: str) -> None:
    """Opening it is refused, and changes nothing and leaves nothing."""
    before = {path: path.read_bytes() for path in output.parent.iterdir()}
    with pytest.raises(JournalError, match=words):
        opened(output)
    assert {path: path.read_bytes() for path in output.parent.iterdir()} == before
