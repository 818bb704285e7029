"""What asks the requests of batches: a thread of one process, with the journal of ``copilot_sync.batch``.

- One process at a time runs the batches of a folder: the one that holds the lock of a file there. If it dies, another
  one takes over. The others create, cancel and show.
- Batches run one after the other, the oldest first. They use what of the account's pace no question needs.
- A batch that can't go on now, because a quota is used up or the credentials are refused, is tried again later, until
  its time is over. Meanwhile it says why.

Threads: ``begin``, ``wake`` and ``close`` may be called from any thread, ``close`` from a signal handler as well. The
rest is confined to the thread that ``begin`` starts, and what watches a run to one of its own.
"""

import atexit
import contextlib
import dataclasses
import itertools
import logging
import math
import os
import threading
import time
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from copilot_sync.batch.durable_file import JournalError
from copilot_sync.batch.openai_lines import LineFault, faults_of, read_requests
from copilot_sync.batch.prompt_files import read
from copilot_sync.batch.runs import Run, run
from copilot_sync.client import Client
from copilot_sync.contrib.openai_gateway.batch_records import BatchRecord, BatchRecords
from copilot_sync.contrib.openai_gateway.batch_results import answers_in, failures_in
from copilot_sync.contrib.openai_gateway.file_store import FileStore, Wanted
from copilot_sync.errors import CopilotError, StreamClosedError
from copilot_sync.openai_api.failures import ApiError, from_copilot
from copilot_sync.os_threads import join_within, start_thread
from copilot_sync.pacing.background import BackgroundLimiter
from copilot_sync.safe_files import BINARY, try_lock
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

#: How many requests a batch may have, and how many faulty lines are named.
MOST_REQUESTS, MOST_FAULTS = 50_000, 100
#: Seconds after which a batch that can't go on is tried again.
AGAIN = 600.0
#: Seconds between two looks for work, for a cancellation, and two notes of how far a batch is.
_LOOK, _WATCH, _NOTE = 1.0, 0.25, 1.0
#: Stands for all batches, in the place of an id.
_ALL = ""

#: Returns what asks, and its pace.
Ask = Callable[[], Tuple[Client, BackgroundLimiter]]


class _NoRoomError(Exception):
    """There is no more room for results."""


class BatchRunner:
    """Runs the batches of a folder. Safe for any thread, and for servers that fork.

    Args:
        files: The files of the folder.
        records: Its batches.
        ask: As above. Called when there is something to ask.
        clock: Returns the time, in seconds since 1970.
    """

    def __init__(
        self, files: FileStore, records: BatchRecords, ask: Ask, clock: Callable[[], float] = time.time
    ) -> None:
        self._files = files
        self._records = records
        self._ask = ask
        self._clock = clock
        self._locks: Set[int] = set()  # descriptors of the file whose lock is held
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Begin without a thread, and without the lock, which is the parent's."""
        self._mutex = threading.RLock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._run: Optional[Run] = None
        self._later: Dict[str, float] = {}  # when, by the monotonic clock, a batch is tried again; _ALL for all of them
        for descriptor in self._locks.copy():
            self._unlock(descriptor)  # pragma: no cover - in a forked child alone

    def _unlock(self, descriptor: int) -> None:
        self._locks.discard(descriptor)
        os.close(descriptor)

    @property
    def has_begun(self) -> bool:
        """Whether the thread is there."""
        return self._thread is not None

    def begin(self) -> None:
        """Start the thread, unless it is there.

        Raises:
            OSError: The folders can't be made.
        """
        with self._mutex:
            if self._thread is None:
                self._files.make_folder()
                self._records.make_folder()
                self._stop, self._wake = threading.Event(), threading.Event()
                arguments = (self._stop, self._wake)
                self._thread = threading.Thread(target=self._loop, args=arguments, name="copilot-sync-batches")
                self._thread.daemon = True
                atexit.register(self.close)
                start_thread(self._thread)

    def wake(self) -> None:
        """Have the thread look for work at once."""
        self._wake.set()

    def close(self) -> None:
        """End what is under way, and the thread. The next ``begin`` goes on with it. May be called more than once."""
        with self._mutex:
            thread, self._thread = self._thread, None
            self._stop.set()
            self._wake.set()
            running = self._run
        if running is not None:
            running.close()
        if thread is not None:
            atexit.unregister(self.close)
            join_within(thread, math.inf)

    def _loop(self, stop: threading.Event, wake: threading.Event) -> None:
        has_lock = False
        with contextlib.ExitStack() as held:
            while not stop.is_set():
                try:
                    has_lock = has_lock or self._took_lock(held)
                    if has_lock:
                        self._look(stop)
                except Exception:
                    logger.exception("the gateway can't run batches now")
                    self._later[_ALL] = time.monotonic() + AGAIN
                wake.wait(_LOOK)
                wake.clear()

    def _took_lock(self, held: contextlib.ExitStack) -> bool:
        """Become the process that runs batches, if there is none, until ``held`` is left."""
        descriptor = os.open(self._records.lock_path(), os.O_RDWR | os.O_CREAT | BINARY, 0o600)
        if not try_lock(descriptor):
            os.close(descriptor)
            return False
        self._locks.add(descriptor)
        held.callback(self._unlock, descriptor)
        self._files.sweep()
        self._records.sweep()
        return True

    def _look(self, stop: threading.Event) -> None:
        for record in self._records.unfinished():
            status = self._end_of(record)
            if stop.is_set():
                return
            if status is not None:
                self._finish(record, status)
            elif time.monotonic() >= max(self._later.get(_ALL, 0.0), self._later.get(record.id, 0.0)):
                self._work(record, stop)

    def _end_of(self, record: BatchRecord) -> Optional[str]:
        """Return in which status a batch has to end now; ``None`` if it may go on."""
        if record.status == "cancelling":
            return "cancelled"
        return "expired" if self._clock() >= record.expires_at and record.status != "finalizing" else None

    def _work(self, record: BatchRecord, stop: threading.Event) -> None:
        """Go on with a batch, until its end if nothing keeps it from that."""
        if record.status == "validating":
            record = self._validated(record)
        if record.is_final:
            return
        try:
            self._asked(record, stop)
        except ApiError as error:  # somebody has removed its requests
            self._fail(record, [LineFault(error.code or "", str(error), "input_file_id", None)])
        except StreamClosedError as error:
            now = self._records.get(record.id)
            status = self._end_of(now)
            if status is not None:
                self._finish(now, status)
            elif not stop.is_set():
                self._wait(now, from_copilot(error), _ALL)
        except JournalError as error:
            self._wait(record, ApiError(500, str(error), code="storage_failed"), record.id)
        except CopilotError as error:
            self._wait(record, from_copilot(error), _ALL)
        except _NoRoomError:
            self._wait(record, ApiError(400, "there is no more room: delete some files", code="storage_full"), _ALL)
        except (OSError, ValueError) as error:
            logger.exception("the gateway can't go on with a batch")
            self._wait(record, ApiError(500, str(error), code="internal_error"), record.id)
        else:
            self._finish(self._records.get(record.id), "completed")

    def _validated(self, record: BatchRecord) -> BatchRecord:
        """Return a batch that may be asked, or that has failed, because of its lines."""
        try:
            with open(self._files.path(record.input_file_id), "rb") as file:
                total = sum(1 for _ in read_requests(file))
            with open(self._files.path(record.input_file_id), "rb") as file:
                faults = list(itertools.islice(faults_of(file), MOST_FAULTS))
        except ApiError as error:
            return self._fail(record, [LineFault(error.code or "", str(error), "input_file_id", None)])
        except ValueError as error:
            return self._fail(record, [LineFault("invalid_file", str(error), None, None)])
        if total > MOST_REQUESTS:
            faults = [LineFault("too_many_requests", f"a batch has at most {MOST_REQUESTS} requests", None, None)]
        if faults:
            return self._fail(record, faults)
        return self._saved(record.moved("in_progress", self._clock(), total=total))

    def _fail(self, record: BatchRecord, faults: List[LineFault]) -> BatchRecord:
        found = self._saved(record.moved("failed", self._clock(), errors=[fault._asdict() for fault in faults]))
        self._records.forget_work(found)
        return found

    def _saved(self, record: BatchRecord) -> BatchRecord:
        self._records.save(record)
        return record

    def _asked(self, record: BatchRecord, stop: threading.Event) -> None:
        """Ask the requests of a batch that have no result yet.

        Raises:
            CopilotError: The batch can't go on now, or was closed.
        """
        client, limiter = self._ask()
        output = self._records.results_path(record)
        os.close(os.open(output, os.O_WRONLY | os.O_CREAT, 0o600))
        with read(self._files.path(record.input_file_id), "openai") as requests:
            arguments: Dict[str, Any] = {"rate_limiter": limiter, "workers": limiter.most}
            with run(requests, client=client, output=output, output_format="openai", **arguments) as results:
                with self._watched(record, results, stop):
                    self._read(record, results, output)

    def _read(self, record: BatchRecord, results: Run, output: str) -> None:
        answered = failed = 0
        next_note = 0.0
        for result in results:
            answered += result.error is None
            failed += result.error is not None
            if time.monotonic() >= next_note:
                next_note = time.monotonic() + _NOTE
                before = results.skipped - results.skipped_failures, results.skipped_failures
                self._note(record, before[0] + answered, before[1] + failed)
                # The results are copied in the end.
                if self._files.room() < 2 * os.path.getsize(output):
                    raise _NoRoomError

    def _note(self, record: BatchRecord, completed: int, failed: int) -> None:
        """Note how far a batch is. It only ever grows, though what is skipped is counted anew in each run."""
        known = self._records.get(record.id)
        changes: Dict[str, Any] = {
            "completed": max(completed, known.completed),
            "failed": max(failed, known.failed),
            "errors": [],
        }
        if known.status == "in_progress":
            self._records.save(dataclasses.replace(known, **changes))

    @contextlib.contextmanager
    def _watched(self, record: BatchRecord, results: Run, stop: threading.Event) -> Iterator[None]:
        """Close a run when its batch has to end. Batches that wait behind it and have to end, do so at once."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_WATCH):
                with contextlib.suppress(OSError, ApiError):
                    for each in self._records.unfinished():
                        status = self._end_of(each)
                        if status is not None and each.id == record.id:
                            results.close()
                        elif status is not None:
                            self._finish(each, status)

        watching = threading.Thread(target=watch, name="copilot-sync-batch-watch", daemon=True)
        with self._mutex:
            self._run = results
            if stop.is_set():  # before this run was known
                raise StreamClosedError("the gateway was closed")
        start_thread(watching)
        try:
            yield
        finally:
            self._run = None
            ended.set()
            watching.join()

    def _wait(self, record: BatchRecord, error: ApiError, who: str) -> None:
        """Note why a batch can't go on now, and let it wait, or all of them."""
        logger.warning("a batch of the gateway can't go on now: %s", error)
        self._later[who] = time.monotonic() + AGAIN
        known = self._records.get(record.id)
        reason = LineFault(error.code or "", str(error), error.param, None)
        if known.status == "in_progress":
            self._records.save(dataclasses.replace(known, errors=[reason._asdict()]))

    def _finish(self, record: BatchRecord, status: str) -> None:
        """Write the files with the results of a batch, and end it in a status."""
        if status == "completed":
            record = self._saved(record.moved("finalizing", self._clock()))
        with self._opened(record) as (results, requests):
            completed = self._put(record, record.output_id, "output", answers_in(results))
            failed = self._put(record, record.error_id, "error", failures_in(results, requests, status))
        has = {"has_output": completed > 0, "has_errors": failed > 0}
        counts = {"completed": completed, "failed": failed if status == "completed" else record.failed}
        self._saved(record.moved(status, self._clock(), errors=[], **has, **counts))
        self._records.forget_work(record)

    @contextlib.contextmanager
    def _opened(self, record: BatchRecord) -> "Iterator[Tuple[IO[bytes], IO[bytes]]]":
        """Open the results and the requests of a batch. What is missing is empty."""
        with contextlib.ExitStack() as stack:
            results = requests = stack.enter_context(open(os.devnull, "rb"))
            with contextlib.suppress(FileNotFoundError):
                results = stack.enter_context(open(self._records.results_path(record), "rb"))
            with contextlib.suppress(FileNotFoundError, ApiError):
                requests = stack.enter_context(open(self._files.path(record.input_file_id), "rb"))
            yield results, requests

    def _put(self, record: BatchRecord, id: str, kind: str, lines: Iterator[bytes]) -> int:
        """Keep a file of results if there are any, and return how many there are."""
        first = next(lines, None)
        if first is None:
            return 0
        counted = _Counted(itertools.chain([first], lines))
        self._files.put(id, Wanted(f"{record.id}_{kind}.jsonl", "batch_output", record.seconds_kept), counted)
        return counted.count


class _Counted(Iterable[bytes]):
    """Lines that are counted while they are read."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.count += 1
            yield line
