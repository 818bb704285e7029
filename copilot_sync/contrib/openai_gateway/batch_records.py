"""What is known of batches, kept in a folder: one JSON file for each.

- ``ID.json`` is what a client is told, and what the work needs. Only the process that runs batches writes it after its
  beginning, as a whole.
- ``ID.cancel`` says that a client wants no more. Any process may write it, so nothing is written by two.
- ``ID.results`` and its journal are those of the batch that runs, or that was killed.

Threads: any number of threads and processes may read, create and cancel; one changes records.
"""

import contextlib
import dataclasses
import json
import os
import re
import time
import uuid
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set

from copilot_sync.contrib.openai_gateway.file_store import KEPT, new_file_id
from copilot_sync.openai_api.failures import ApiError
from copilot_sync.safe_files import locked, make_folder, replacing

#: How many batches are kept, and how many of them may be unfinished.
MOST_KEPT, MOST_UNFINISHED = 1000, 100
#: Seconds that a batch has.
WINDOW = 24 * 3600
FINAL = ("completed", "failed", "expired", "cancelled")
_ID = re.compile(r"batch_[0-9a-f]{32}")
_PATIENCE = 10.0


@dataclasses.dataclass(frozen=True)
class BatchRecord:
    """A batch.

    Attributes:
        id: Its id.
        created: When it was made, in seconds since 1970.
        endpoint: What it asks.
        input_file_id: Its requests.
        metadata: What the client says of it.
        seconds_kept: For how long the files with its results are kept.
        output_id: The id of the file with its answers. It is chosen ahead, so that it is written once at most.
        error_id: That of the file with its failures.
        status: As OpenAI has it.
        times: When it came to each status.
        has_output: Whether there are answers.
        has_errors: Whether there are failures.
        total: How many requests there are.
        completed: How many were answered.
        failed: How many have failed.
        errors: What is wrong with its lines, or what keeps it from going on.
    """

    id: str
    created: float
    endpoint: str
    input_file_id: str
    metadata: Optional[Dict[str, str]]
    seconds_kept: int
    output_id: str
    error_id: str
    status: str = "validating"
    times: Mapping[str, int] = dataclasses.field(default_factory=dict)
    has_output: bool = False
    has_errors: bool = False
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: List[Dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in FINAL

    @property
    def expires_at(self) -> int:
        """When it ends, whatever has been answered by then."""
        return int(self.created) + WINDOW

    def moved(self, status: str, now: float, **changes: Any) -> "BatchRecord":
        """Return the batch in another status."""
        times = {**self.times, status: int(now)}
        return dataclasses.replace(self, status=status, times=times, **changes)

    def to_dict(self) -> Dict[str, Any]:
        """Return the object of OpenAI's API."""
        statuses = ("cancelled", "cancelling", "completed", "expired", "failed", "finalizing", "in_progress")
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_id if self.has_output else None,
            "error_file_id": self.error_id if self.has_errors else None,
            "created_at": int(self.created),
            "expires_at": self.expires_at,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.metadata,
            **{f"{status}_at": self.times.get(status) for status in statuses},
        }


class BatchRecords:
    """The batches of a folder. Safe for any thread and process, but for ``save``.

    Args:
        folder: The folder. It is made when it is first written to.
        clock: Returns the time, in seconds since 1970.
    """

    def __init__(self, folder: str, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._ended: Set[str] = set()  # ids of batches that were seen at their end, where they stay

    def make_folder(self) -> None:
        """Make the folder if it is missing.

        Raises:
            OSError: It can't be made.
        """
        make_folder(self._folder)

    def create(
        self, endpoint: str, input_file_id: str, metadata: Optional[Dict[str, str]], seconds_kept: int = KEPT
    ) -> BatchRecord:
        """Keep another batch.

        Raises:
            ApiError: There are too many that are unfinished (429).
            OSError: It can't be written.
        """
        self.make_folder()
        id = f"batch_{uuid.uuid4().hex}"
        record = BatchRecord(
            id, self._clock(), endpoint, input_file_id, metadata, seconds_kept, new_file_id(), new_file_id()
        )
        with locked(self._path("lock"), _PATIENCE):
            if len(self.unfinished()) >= MOST_UNFINISHED:
                raise ApiError(
                    429,
                    f"there are {MOST_UNFINISHED} unfinished batches",
                    kind="rate_limit_error",
                    code="too_many_batches",
                    headers=(("x-should-retry", "false"),),
                )
            self.save(record)
        return record

    def save(self, record: BatchRecord) -> None:
        """Write a batch. It is on the disk when this returns.

        Raises:
            OSError: It can't be written. What was there before still is.
        """
        with replacing(self._path(f"{record.id}.json"), 0o600) as file:
            file.write(json.dumps(dataclasses.asdict(record)).encode("ascii"))

    def get(self, id: str) -> BatchRecord:
        """Return a batch.

        Raises:
            ApiError: There is none (404).
        """
        found = self._read(id) if _ID.fullmatch(id) else None
        if found is None:
            raise ApiError(404, "there is no batch with this id", code="not_found", param="batch_id")
        return found

    def all(self) -> List[BatchRecord]:
        """Return all batches, the oldest first."""
        return self._records(self._ids())

    def unfinished(self) -> List[BatchRecord]:
        """Return the batches that are not at their end, the oldest first."""
        found = self._records(id for id in self._ids() if id not in self._ended)
        self._ended.update(record.id for record in found if record.is_final)
        return [record for record in found if not record.is_final]

    def _records(self, ids: Iterable[str]) -> List[BatchRecord]:
        found = [record for record in map(self._read, ids) if record is not None]
        return sorted(found, key=lambda record: (record.created, record.id))

    def _ids(self) -> List[str]:
        with contextlib.suppress(FileNotFoundError):
            return [name[: -len(".json")] for name in os.listdir(self._folder) if name.endswith(".json")]
        return []

    def cancel(self, id: str) -> BatchRecord:
        """Have a batch end, and return it.

        Raises:
            ApiError: There is none (404), or it is at its end (400).
            OSError: That can't be kept.
        """
        record = self.get(id)
        if record.is_final or record.status == "finalizing":
            raise ApiError(400, f"a batch that is {record.status} can't be cancelled", code="invalid_status")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path(f"{id}.cancel"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return self.get(id)

    def results_path(self, record: BatchRecord) -> str:
        """Return where the batch that runs keeps its results."""
        return self._path(f"{record.id}.results")

    def lock_path(self) -> str:
        """Return the file whose lock is held by the process that runs batches."""
        return self._path("running")

    def sweep(self) -> None:
        """Remove what belongs to batches that have ended, and the oldest of those beyond the number that is kept."""
        ended = [record for record in self.all() if record.is_final]
        for record in ended[: max(0, len(ended) - MOST_KEPT)]:
            _unlink(self._path(f"{record.id}.json"))
        for record in ended:
            self.forget_work(record)

    def forget_work(self, record: BatchRecord) -> None:
        """Remove what only the work for a batch needs."""
        for name in (f"{record.id}.results", f"{record.id}.results.journal", f"{record.id}.cancel"):
            _unlink(self._path(name))

    def _read(self, id: str) -> Optional[BatchRecord]:
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            with open(self._path(f"{id}.json"), "rb") as file:
                record = BatchRecord(**json.loads(file.read()))
            return record if record.is_final else self._with_cancellation(record)
        return None

    def _with_cancellation(self, record: BatchRecord) -> BatchRecord:
        if record.status == "finalizing":  # nobody was quick enough
            return record
        with contextlib.suppress(FileNotFoundError):
            since = os.stat(self._path(f"{record.id}.cancel")).st_mtime
            return record if record.status == "cancelling" else record.moved("cancelling", since)
        return record

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
