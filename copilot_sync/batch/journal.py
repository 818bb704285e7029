"""The output of a batch, and what lets a batch that was killed go on where it stopped.

Two files. The output has a line of JSON for each prompt that is done. Beside it lies the journal, named after it with
``.journal`` at its end: before a message is sent, a line there says where it goes and what its answer will be called,
so that whoever comes after a kill can look the answer up in its conversation instead of asking again.

Rules: a line is whole, or it is removed; it counts when it is on the disk (``fsync``), and not before. Whatever stands
in the output is done. Where writing fails, the files end after the last line that counted. The journal is locked as
long as a batch writes, and removed when nothing is left to do.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, Optional

from copilot_sync.batch.index import Index
from copilot_sync.batch.prompts import Id
from copilot_sync.batch.results import Result, may_have_answer
from copilot_sync.errors import CopilotError
from copilot_sync.models import Receipt
from copilot_sync.transport.fork import renew_in_child

_DONE = "done"
_FAILED = "failed"
_UNCERTAIN = "uncertain"  # failed, and its conversation may have the answer all the same
#: How each line of ours begins.
_BEGINNINGS = (b'{"id": ', b'{"deleted": ', b'{"dropped": ')
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BINARY = getattr(os, "O_BINARY", 0)
#: The lock is on a byte that nobody writes: where locks are mandatory, everybody may still read the rest.
_LOCKED_BYTE = 1 << 30


class JournalError(CopilotError):
    """The output of a batch, or the journal beside it, can't be written, is in use, or is none of ours."""


@dataclass(frozen=True)
class Intent:
    """A message that is about to be sent.

    Attributes:
        id: The id of its prompt.
        receipt: What finds it again.
        digest: Tells its prompt from another one that has the same id.
        made: Whether the conversation was begun for it.
        again: Whether its prompt had failed and may be asked in another conversation, if this one has no answer.
    """

    id: Id
    receipt: Receipt
    digest: str
    made: bool
    again: bool = False

    def to_dict(self) -> Dict[str, Any]:
        """Give what stands in the journal."""
        return {
            "id": self.id,
            "conversation": self.receipt.conversation_id,
            "parent": self.receipt.parent_id,
            "answer": self.receipt.answer_id,
            "digest": self.digest,
            "made": self.made,
            "again": self.again,
        }

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "Intent":
        """Read what ``to_dict`` gave."""
        receipt = Receipt(data["conversation"], data["answer"], data["parent"])
        return cls(data["id"], receipt, data["digest"], data["made"], data["again"])


class Unrecorded:
    """Stands for a journal where nothing is kept."""

    interrupted = False

    def failed(self, id: Id) -> Optional[bool]:
        """Nothing is done."""

    def intent(self, id: Id) -> Optional[Intent]:
        """There is none."""

    def intend(self, intents: List[Intent]) -> None:
        """Forget them."""

    def write(self, results: List[Result]) -> None:
        """Forget them."""

    def deleted(self, conversation_id: str) -> None:
        """Forget it."""

    def leftovers(self) -> List[str]:
        """There are none."""
        return []

    def put_in_order(self, ids: Iterable[Id]) -> None:
        """There is nothing to put in order."""

    def finish(self) -> None:
        """There is nothing to remove."""


class Journal:
    """The output of one batch and the journal beside it, open for writing. For one thread at a time.

    Args:
        path: The output.
        retry_failed: Remove the failed results from the output, so that their prompts are asked again.

    Raises:
        JournalError: Another batch writes to the output, a file can't be read or written, or holds something else.
    """

    def __init__(self, path: str, *, retry_failed: bool = False) -> None:
        self.path = os.path.realpath(path)
        self._journal_path = f"{self.path}.journal"
        with contextlib.ExitStack() as stack:
            self._lock = stack.enter_context(_Lock(self._journal_path, self.path))
            self._states = stack.enter_context(Index())  # by prompt: _DONE, _FAILED or _UNCERTAIN
            self._intents = stack.enter_context(Index())  # by prompt
            self._made = stack.enter_context(Index())  # by conversation: the prompt that it was begun for
            self._notes = stack.enter_context(_Lines(self._journal_path))
            self._output = stack.enter_context(_Lines(self.path))
            self._failures = 0
            self._notes.read(self._recall)
            self._output.read(self._count)
            if retry_failed and self._failures:
                self._forget_failures()
            self._files = stack.pop_all()

    @property
    def interrupted(self) -> bool:
        """Whether an earlier run was about to send something that has no result."""
        return any(self._states.get(id) is None for id, _ in self._intents.items())

    def failed(self, id: Id) -> Optional[bool]:
        """Whether a prompt has failed; ``None`` where the output has no result of it."""
        state = self._states.get(str(id))
        return None if state is None else state != _DONE

    def intent(self, id: Id) -> Optional[Intent]:
        """What an earlier run was about to send for a prompt that is not done."""
        kept = self._intents.get(str(id))
        return None if kept is None else Intent.from_dict(json.loads(kept))

    def intend(self, intents: List[Intent]) -> None:
        """Keep what is about to be sent. It is on the disk when this returns.

        Raises:
            JournalError: It can't be written.
        """
        notes = [intent.to_dict() for intent in intents]
        self._notes.append(notes, sync=True)
        for note in notes:
            self._recall(note)

    def write(self, results: List[Result]) -> None:
        """Add results to the output. They are on the disk when this returns.

        Raises:
            JournalError: They can't be written.
        """
        lines = [result.to_dict() for result in results]
        self._output.append(lines, sync=True)
        for line in lines:
            self._count(line)

    def deleted(self, conversation_id: str) -> None:
        """Note that a conversation that the batch made was deleted. A lost note does no harm."""
        self._notes.append([{"deleted": conversation_id}], sync=False)
        self._made.remove(conversation_id)

    def leftovers(self) -> List[str]:
        """The conversations that the batch made, in this run or an earlier one, and that nobody needs any more."""
        return [conversation for conversation, id in self._made.items() if self._is_over(conversation, id)]

    def put_in_order(self, ids: Iterable[Id]) -> None:
        """Write the output anew, with its results in a given order, and any others behind them.

        Raises:
            JournalError: There is no room for it; then the output is as it was.
        """
        with Index() as spans, self._output.reading() as file:
            place = 0
            for line in file:
                spans.set(str(_fields_of(line)["id"]), f"{place} {len(line)}")
                place += len(line)
            self._output.replace(_spans_in_order(file, spans, ids))

    def finish(self) -> None:
        """Remove the journal, where no prompt failed."""
        if not self._failures:
            self._lock.remove()

    def close(self) -> None:
        """Close the files and let others write. May be called more than once."""
        self._files.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _recall(self, note: Dict[str, Any]) -> None:
        if "deleted" in note:
            self._made.remove(note["deleted"])
        elif "dropped" in note:
            self._intents.remove(str(note["dropped"]))
        else:
            intent = Intent.from_dict(note)
            self._intents.set(str(intent.id), json.dumps(note))
            if intent.made:
                self._made.set(intent.receipt.conversation_id, str(intent.id))

    def _count(self, line: Dict[str, Any]) -> None:
        """Take note of a line of the output. What has neither a text nor an error is none of ours."""
        error = line.get("error")
        if isinstance(error, dict):
            state = _UNCERTAIN if may_have_answer(error) else _FAILED
        elif isinstance(line["text"], str):
            state = _DONE
        else:
            raise TypeError("a result has a text or an error")
        self._states.set(str(line["id"]), state)
        self._failures += state != _DONE

    def _is_over(self, conversation_id: str, id: str) -> bool:
        if self._states.get(id) in (_DONE, _FAILED):
            return True
        kept = self._intents.get(id)
        return kept is not None and Intent.from_dict(json.loads(kept)).receipt.conversation_id != conversation_id

    def _forget_failures(self) -> None:
        """Take the failed results out of the output, first noting what their conversations are good for."""
        notes: List[Dict[str, Any]] = []
        failed = [(id, state) for id, state in self._states.items() if state != _DONE]
        for id, state in failed:
            kept = self._intents.get(id)
            if kept is not None:
                note = json.loads(kept)
                notes.append({**note, "again": True} if state == _UNCERTAIN else {"dropped": note["id"]})
        self._notes.append(notes, sync=True)
        for note in notes:
            self._recall(note)
        with self._output.reading() as file:
            self._output.replace(line for line in file if _fields_of(line).get("error") is None)
        for id, _ in failed:
            self._states.remove(id)
        self._failures = 0


class _Lines:
    """A file of JSON objects, one a line, that is only ever added to.

    Args:
        path: The file. It is made where it is missing.

    Raises:
        JournalError: It can't be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._size = 0
        self._file = self._opened()

    def _opened(self) -> int:
        with _explained(self._path, "opened"):
            is_new = not os.path.exists(self._path)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                os.close(file)
                raise JournalError(f"{self._path} is not a file that can be gone on with")
            if is_new:
                _sync_folder(self._path)
        return file

    def read(self, take: Callable[[Dict[str, Any]], None]) -> None:
        """Hand over what the file holds, and cut off what a kill left of its last line.

        Raises:
            JournalError: It can't be read, or holds a line that nobody here has written.
        """
        with _explained(self._path, "read"), self.reading() as file:
            for number, line in enumerate(file, 1):
                if not self._taken(line, take):
                    if not _is_torn(line, file):
                        raise JournalError(
                            f"line {number} of {self._path} was not written by a batch: name another file"
                        )
                    os.ftruncate(self._file, self._size)
                    return
                self._size += len(line)

    def _taken(self, line: bytes, take: Callable[[Dict[str, Any]], None]) -> bool:
        if not line.endswith(b"\n"):
            return False
        try:
            take(_fields_of(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return True

    def append(self, objects: List[Dict[str, Any]], *, sync: bool) -> None:
        """Add lines; with ``sync`` they are on the disk when this returns.

        Raises:
            JournalError: They can't be written; then the file is as it was.
        """
        if not objects:
            return
        data = b"".join(map(_line_of, objects))
        try:
            with _explained(self._path, "written"):
                _write_all(self._file, data)
                if sync:
                    os.fsync(self._file)
        except JournalError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def reading(self) -> IO[bytes]:
        """Open the file for reading what it holds now."""
        with _explained(self._path, "read"):
            return open(self._path, "rb")

    def replace(self, lines: Iterable[bytes]) -> None:
        """Write the file anew, in one step that either happens or does not.

        Raises:
            JournalError: The lines can't be written; then the file is as it was.
        """
        other = f"{self._path}.new"
        with _explained(self._path, "written"):
            try:
                size = _write_other(other, lines)
                shutil.copymode(self._path, other)
                os.replace(other, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(other)
                raise
            _sync_folder(self._path)
        os.close(self._file)
        self._file, self._size = self._opened(), size

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _line_of(fields: Dict[str, Any]) -> bytes:
    try:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, as the service may send one, can only be escaped
        return json.dumps(fields).encode("ascii") + b"\n"


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _is_torn(line: bytes, rest: IO[bytes]) -> bool:
    """Whether a line that can't be read is what a kill or a power cut left of one.

    A kill leaves the beginning of the last line. A power cut may leave zeros where something was not on the disk yet,
    and whole lines behind them; none of them counted.
    """
    if b"\0" in line:
        return True
    if line.endswith(b"\n") or rest.read(1):
        return False
    return line.startswith(_BEGINNINGS) or any(beginning.startswith(line) for beginning in _BEGINNINGS)


def _fields_of(line: bytes) -> Dict[str, Any]:
    fields = json.loads(line.decode("utf-8"))
    if not isinstance(fields, dict):
        raise TypeError("a line holds an object")
    return fields


def _spans_in_order(file: IO[bytes], spans: Index, ids: Iterable[Id]) -> Iterator[bytes]:
    """The lines of a file: first those of the ids, then the rest."""
    for id in ids:
        span = spans.get(str(id))
        if span is not None:
            spans.remove(str(id))
            yield _line_at(file, span)
    for _, span in spans.items():
        yield _line_at(file, span)


def _line_at(file: IO[bytes], span: str) -> bytes:
    place, length = map(int, span.split())
    file.seek(place)
    return file.read(length)


def _write_other(path: str, lines: Iterable[bytes]) -> int:
    with open(path, "wb") as file:
        file.writelines(lines)
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())
    return size


def _sync_folder(path: str) -> None:
    """Have a new name of a file on the disk as well. Windows has no such thing."""
    if os.name == "posix":  # pragma: no branch - Windows
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _explained(path: str, verb: str) -> Iterator[None]:
    """Tell what the system says in one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        hint = "; make room and start the same batch again" if error.errno in _NO_ROOM else ""
        raise JournalError(f"{path} can't be {verb}: {error.strerror}{hint}") from error


class _Lock:
    """The right to write, as long as it is open. The system takes it back from a process that dies.

    Args:
        path: The file that is locked. It is made where it is missing.
        output: What the right is for.

    Raises:
        JournalError: Somebody else has it.
    """

    def __init__(self, path: str, output: str) -> None:
        self._path = path
        self._file = -1
        with _explained(path, "opened"):
            while self._file < 0:
                self._try(output)
        renew_in_child(self)

    def _try(self, output: str) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
        try:
            if not _locked(file):
                raise JournalError(f"another batch is writing to {output}")
            # The one who had it before may have removed the file since it was opened.
            if self._is_there(file):
                self._file, file = file, -1
        finally:
            if file >= 0:
                os.close(file)

    def _is_there(self, file: int) -> bool:
        """Whether an open file still has its name."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        return False

    def renew(self) -> None:
        """Leave the lock to the parent: it would last as long as this child."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def remove(self) -> None:
        """Remove the file. The lock lasts until it is closed."""
        with contextlib.suppress(OSError):  # Windows does not remove what is open; there it stays
            os.unlink(self._path)

    def close(self) -> None:
        """Give the lock back, and remove the file where nothing is in it. May be called more than once."""
        if self._file >= 0 and not os.fstat(self._file).st_size and self._is_there(self._file):
            self.remove()
        self.renew()

    def __enter__(self) -> "_Lock":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


if sys.platform == "win32":  # pragma: no cover - Windows
    import msvcrt

    def _locked(file: int) -> bool:
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _locked(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
