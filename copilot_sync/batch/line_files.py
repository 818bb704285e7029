"""Files of JSON objects, one a line, that are only ever added to: how they are opened, checked, mended and written.

Rules: a file is locked as long as it is open. Nothing of it is changed before it is known to be ours and all of it was
read. What a kill or a power cut leaves is at the end, and is cut off; what is cut is kept beside the file. Damage
anywhere else is a reason to refuse the file, because what stands behind it counts. A line counts when it is on the
disk. After an error nothing more is written.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import stat
from dataclasses import dataclass
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from copilot_sync.errors import CopilotError
from copilot_sync.safe_files import AT_ONCE, BINARY, has_name, remove_leftovers, replacing, sync_folder, try_lock
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

Fields = Dict[str, Any]

#: Bytes of a line that are read: more than the longest answer takes with every character escaped.
_LONGEST_LINE = 512 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JournalError(CopilotError):
    """The output of a batch, or the journal beside it, can't be written, is in use, or is none of ours."""


@dataclass(frozen=True)
class LineFormat:
    """What the lines of a file look like, without their ends.

    Attributes:
        write: Makes a line.
        read: Reads one; raises ``ValueError`` if it is none of ours.
        may_begin: Whether this may be the beginning of a line of ours, and is not the whole of something else.
        header: What the file begins with.
    """

    write: Callable[[Fields], bytes]
    read: Callable[[bytes], Fields]
    may_begin: Callable[[bytes], bool]
    header: bytes = b""

    def whole(self, line: bytes) -> Optional[Fields]:
        """Read a line that may be anything; ``None`` if it is none of ours."""
        try:
            return self.read(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


class LineFile:
    """One such file, open and locked. For one thread at a time.

    Args:
        path: The file, without links in it. It is made if it is missing.
        format: What its lines look like.
        output: What the lock is for, for the message of its being taken.

    Attributes:
        is_proven: Whether it is known to be ours, by its header or a whole line.

    Raises:
        JournalError: It can't be opened, or another batch has it open.
    """

    def __init__(self, path: str, format: LineFormat, output: str) -> None:
        self.path = path
        self.is_proven = False
        self._format = format
        self._size = 0  # up to the end of its last whole line
        self._needs_header = False
        self._needs_end = False  # its last line is whole but for the line end
        self._torn = 0  # bytes behind its last whole line
        self._is_sound = True
        with explained(path, "opened"):
            self._file, self._is_new = _open_locked(path, output)
        self._is_ours_to_remove = self._is_new
        reset_after_fork(self)
        remove_leftovers(path)

    def read(self, take: Callable[[int, Fields, bytes], None], has_journal: bool = False) -> None:
        """Hand over what stands in the file: the number of each line, what it holds, and its bytes. Change nothing.

        Args:
            take: Called for each line.
            has_journal: Whether a journal says that a batch which was writing to this file did not come to its end.

        Raises:
            JournalError: It can't be read, was not written by a batch, or is damaged.
        """
        with explained(self.path, "read"), self.reading() as file:
            self._read_header(file)
            self.is_proven = is_unfinished = self.is_proven or has_journal
            if not self.is_proven:
                self._check_beginning(file)
            has_lines = False
            for number, line in _numbered(file):
                body = _without_mark(line.strip()) if not self._size else line.strip()
                fields = self._format.whole(body)
                if fields is not None:
                    take(number, fields, body)
                    self.is_proven = has_lines = True
                elif body:
                    self._judge(number, line, file, is_unfinished)
                    break
                self._size += len(line)
                self._needs_end = not line.endswith(b"\n")
            if self._size > len(self._format.header) and not has_lines:
                raise _foreign(1, self.path)

    def _read_header(self, file: IO[bytes]) -> None:
        header = self._format.header
        beginning = file.read(len(header))
        if beginning == header:
            self._size = len(header)
            self.is_proven = bool(header)
        elif header.startswith(beginning.rstrip(b"\0")) and not file.read(1):
            self._needs_header = True  # a kill or a power cut came before anything was noted
        else:
            raise _foreign(1, self.path)

    def _check_beginning(self, file: IO[bytes]) -> None:
        """Refuse most of what is none of ours without reading it: a disk's image may be one line of many gigabytes."""
        place = file.tell()
        beginning = _without_mark(file.read(4096)).lstrip()
        file.seek(place)
        if beginning and not beginning.startswith(b"{"):
            raise _foreign(1, self.path)

    def _judge(self, number: int, line: bytes, rest: IO[bytes], is_unfinished: bool) -> None:
        """Decide about the first line that is not whole: it is torn, and the last one, or the file is refused."""
        head, zero, behind = line.partition(b"\0")
        if not self.is_proven or not self._format.may_begin(_without_mark(head)):
            raise _foreign(number, self.path)
        others = [behind.rpartition(b"\0")[2].strip()] if zero else []
        has_whole = any(self._format.whole(other) is not None for other in others)
        is_last = True
        for _, other in _numbered(rest):
            is_last = False
            has_whole = has_whole or self._format.whole(other.strip()) is not None
        is_end = is_last and not behind.strip(b"\0") and not line.endswith(b"\n")
        if has_whole or not (is_end or (zero and is_unfinished)):
            raise JournalError(
                f"line {number} of {self.path} is damaged, and a kill damages the last line alone, so nothing was "
                "changed: restore the file from a copy, or take that line out of it, and start the same batch again"
            )
        self._torn = os.fstat(self._file).st_size - self._size

    def mend(self) -> None:
        """Cut off a torn end, and keep it beside the file; add what is missing.

        Raises:
            JournalError: That can't be done; then the file is as it was.
        """
        with explained(self.path, "mended"):
            if self._torn:
                kept = _keep(self.path, self._size)
                os.ftruncate(self._file, self._size)
                os.fsync(self._file)
                logger.warning("the torn end of %s (%d bytes) was cut off and is in %s", self.path, self._torn, kept)
            if self._needs_header:
                os.ftruncate(self._file, 0)
        if self._needs_header:
            self._add(self._format.header, sync=True)
        elif self._needs_end and not self._torn:
            self._add(b"\n", sync=True)
        if self._is_new:
            with explained(self.path, "written"):
                sync_folder(self.path)
        self._is_ours_to_remove = True

    def append(self, lines: List[Fields], *, sync: bool) -> List[bytes]:
        """Add lines, and return them as they were written; with ``sync`` they are on the disk then.

        Raises:
            JournalError: They can't be written; then the file is as it was, and nothing can be added any more.
        """
        written = [self._format.write(line) for line in lines]
        if written:
            self._add(b"\n".join([*written, b""]), sync)
        return written

    def _add(self, data: bytes, sync: bool) -> None:
        self._check_unchanged()
        self._is_sound = False
        try:
            with explained(self.path, "written"):
                _write_all(self._file, data)
                if sync:
                    os.fsync(self._file)
        except JournalError:
            with contextlib.suppress(OSError):
                if os.fstat(self._file).st_size <= self._size + len(data):
                    os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        self._is_sound = True

    def _check_unchanged(self) -> None:
        if not self._is_sound:
            raise JournalError(f"{self.path} could not be written before: start the same batch again")
        with explained(self.path, "written"):
            is_same = os.fstat(self._file).st_size == self._size and has_name(self._file, self.path)
        if not is_same:
            raise JournalError(
                f"{self.path} was changed, moved or removed by somebody else while a batch was writing to it, and "
                "nothing was added to it: start the same batch again"
            )

    def reading(self) -> IO[bytes]:
        """Open the file for reading what it holds now."""
        with explained(self.path, "read"):
            return open(self.path, "rb")

    def replace(self, lines: Iterable[bytes]) -> None:
        """Write the file anew, in one step that either happens or does not. The lock goes over to the new one.

        Raises:
            JournalError: The lines can't be written; then the file is as it was.
        """
        self._check_unchanged()
        with explained(self.path, "written"), contextlib.ExitStack() as undo:
            with replacing(self.path, stat.S_IMODE(os.fstat(self._file).st_mode)) as file:
                new = os.dup(file.fileno())
                undo.callback(os.close, new)
                try_lock(new)
                file.writelines(lines)
                size = file.tell()
            undo.pop_all()
            old, self._file, self._size = self._file, new, size
            os.close(old)

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands in it but its header."""
        return self._size <= len(self._format.header) and not self._torn

    def remove(self) -> None:
        """Remove the file. Its lock lasts until it is closed."""
        with contextlib.suppress(OSError):  # Windows does not remove what is open; there it stays
            if self._is_ours_to_remove and has_name(self._file, self.path):
                os.unlink(self.path)

    def after_fork_in_child(self) -> None:
        """Leave the file and its lock to the parent: the lock would last as long as this child."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def close(self) -> None:
        """Close the file, and give its lock back. May be called more than once."""
        self.after_fork_in_child()

    def __enter__(self) -> "LineFile":
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], traceback: object) -> None:
        if error is not None and self._is_new and self.is_empty:
            self.remove()
        self.close()


def check_is_file(path: str) -> None:
    """Refuse what is there and no file: opening a device may do something to it.

    Raises:
        JournalError: It is refused.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise JournalError(f"{path} is a folder, a pipe or a device, and not a file that can be gone on with")


def _open_locked(path: str, output: str) -> Tuple[int, bool]:
    """Open a file and lock it; return the descriptor, and whether the file is new."""
    while True:
        file, is_new = _open_or_make(path)
        try:
            if not try_lock(file):
                raise JournalError(f"another batch is writing to {output}")
            # The one who had it before may have removed or replaced it since it was opened.
            if has_name(file, path):
                return file, is_new
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _open_or_make(path: str) -> Tuple[int, bool]:
    flags = os.O_RDWR | os.O_APPEND | AT_ONCE | BINARY
    check_is_file(path)
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, flags), False


def _numbered(file: IO[bytes]) -> Iterator[Tuple[int, bytes]]:
    """The lines from where a file stands, with numbers from 1."""
    number = 0
    while True:
        line = file.readline(_LONGEST_LINE)
        if not line:
            return
        number += 1
        yield number, line


def _without_mark(line: bytes) -> bytes:
    """A line without the byte order mark that an editor may have put in front of a file."""
    return line[len(_BOM) :] if line.startswith(_BOM) else line


def _foreign(number: int, path: str) -> JournalError:
    otherwise = ", or take that line out of it, and its prompt is asked again" if number > 1 else ""
    return JournalError(f"line {number} of {path} was not written by a batch: name another file{otherwise}")


def _keep(path: str, place: int) -> str:
    """Copy what stands behind a place of a file to a new file beside it, and return its name."""
    kept = _Unused(f"{path}.damaged")
    with open(path, "rb") as source, open(kept.path, "wb", opener=kept.open) as file:
        source.seek(place)
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(path, kept.path)
    sync_folder(path)
    return kept.path


class _Unused:
    """A name that no file has yet."""

    def __init__(self, path: str) -> None:
        self.path = path
        number = 1
        while os.path.lexists(self.path):
            number += 1
            self.path = f"{path}.{number}"

    @staticmethod
    def open(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_EXCL, 0o600)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def json_line(fields: Fields) -> bytes:
    """Write an object as one line."""
    try:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, as the service may send one, can only be escaped
        return json.dumps(fields).encode("ascii")


@contextlib.contextmanager
def explained(path: str, verb: str) -> Iterator[None]:
    """Tell what the system says in one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        hint = "; make room and start the same batch again" if error.errno in _NO_ROOM else ""
        raise JournalError(f"{path} can't be {verb}: {error.strerror}{hint}") from error
