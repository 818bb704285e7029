"""Files of lines that a batch writes: the check that a file is a batch's, and the repair of what a kill left.

Rules: nothing of a file is changed before all of it was read and it is known to be a batch's. A kill or a power cut
leaves a torn end, which is cut off. Damage anywhere else makes the file refused, because whole lines stand behind it.
How bytes get to the disk is in ``durable_file``; what a line looks like, in ``line_formats``.
"""

from typing import IO, Callable, Iterable, Iterator, List, Optional, Tuple

from copilot_sync.batch.durable_file import DurableFile, JournalError, explain_os_error
from copilot_sync.batch.line_formats import Fields, LineFormat

#: Bytes. The longest answer takes fewer, even with every character escaped.
_LONGEST_LINE = 512 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class LineFile:
    """A file of lines, open and locked. For one thread at a time.

    Args:
        path: The file, with links resolved. It is created if it is missing.
        format: The format of its lines.
        output: The output that the lock is for. The message names it if another batch holds the lock.

    Attributes:
        path: The file.
        is_proven: Whether it is known to be a batch's, by its header or by a whole line.

    Raises:
        JournalError: It can't be opened, or another batch has it open.
    """

    def __init__(self, path: str, format: LineFormat, output: str) -> None:
        self.path = path
        self.is_proven = False
        self._format = format
        self._needs_header = False
        self._needs_end = False  # its last line is whole, but has no line end
        self._is_torn = False  # something stands behind its last whole line
        self._file = DurableFile(path, output)

    def read(self, take: Callable[[int, Fields, bytes], None], has_journal: bool = False) -> None:
        """Read the file, and change nothing.

        Args:
            take: Called for each line, with its number, its fields and its bytes.
            has_journal: Whether there is a journal, which shows that the batch that wrote this file did not end.

        Raises:
            JournalError: The file can't be read, was not written by a batch, or is damaged.
        """
        with explain_os_error(self.path, "read"), self.reading() as file:
            self._read_header(file)
            self.is_proven = is_unfinished = self.is_proven or has_journal
            if not self.is_proven:
                self._check_start(file)
            has_lines = False
            for number, line in _numbered(file):
                body = line.strip() if self._file.size else _without_bom(line.strip())
                fields = self._format.parse(body)
                if fields is not None:
                    take(number, fields, body)
                    self.is_proven = has_lines = True
                elif body:
                    self._check_torn(number, line, file, is_unfinished)
                    self._is_torn = True
                    break
                self._file.size += len(line)
                self._needs_end = not line.endswith(b"\n")
            if self._file.size > len(self._format.header) and not has_lines:
                raise _foreign(1, self.path)

    def _read_header(self, file: IO[bytes]) -> None:
        header = self._format.header
        start = file.read(len(header))
        if start == header:
            self._file.size = len(header)
            self.is_proven = bool(header)
        elif header.startswith(start.rstrip(b"\0")) and not file.read(1):
            self._needs_header = True  # a kill or a power cut came before the first line
        else:
            raise _foreign(1, self.path)

    def _check_start(self, file: IO[bytes]) -> None:
        """Refuse most foreign files by their first bytes. A disk image may be one line of many gigabytes."""
        position = file.tell()
        start = _without_bom(file.read(4096)).lstrip()
        file.seek(position)
        if start and not start.startswith(b"{"):
            raise _foreign(1, self.path)

    def _check_torn(self, number: int, line: bytes, rest: IO[bytes], is_unfinished: bool) -> None:
        """Check that the first line that is not whole is a torn end. Otherwise refuse the file."""
        start, zero, behind = line.partition(b"\0")
        if not self.is_proven or not self._format.may_be_torn(_without_bom(start)):
            raise _foreign(number, self.path)
        others = [behind.rpartition(b"\0")[2].strip()] if zero else []
        has_whole = any(self._format.parse(other) is not None for other in others)
        is_last = True
        for _, other in _numbered(rest):
            is_last = False
            has_whole = has_whole or self._format.parse(other.strip()) is not None
        is_end = is_last and not behind.strip(b"\0") and not line.endswith(b"\n")
        if has_whole or not (is_end or (zero and is_unfinished)):
            raise JournalError(
                f"line {number} of {self.path} is damaged, and a kill damages the last line alone, so nothing was "
                "changed: restore the file from a copy, or take that line out of it, and start the same batch again"
            )

    def mend(self) -> None:
        """Cut off a torn end and keep it beside the file. Add a missing header or line end.

        Raises:
            JournalError: That fails. The file is as it was.
        """
        if self._is_torn:
            self._file.cut_end()
        if self._needs_header:
            self._file.clear()
            self._file.append(self._format.header, sync=True)
        elif self._needs_end and not self._is_torn:
            self._file.append(b"\n", sync=True)
        if self._file.is_new:
            self._file.sync_name()
        self._file.may_remove = True

    def append(self, lines: List[Fields], *, sync: bool) -> List[bytes]:
        """Add lines, and return them as they were written. With ``sync`` they are on the disk when this returns.

        Raises:
            JournalError: They can't be written. The file is as it was, and nothing more can be added.
        """
        written = [self._format.write(line) for line in lines]
        if written:
            self._file.append(b"\n".join([*written, b""]), sync=sync)
        return written

    def reading(self) -> IO[bytes]:
        """Open the file for reading, from its beginning."""
        return self._file.reading()

    def replace(self, lines: Iterable[bytes]) -> None:
        """Write the file anew, in one step.

        Raises:
            JournalError: That fails. The file is as it was.
        """
        self._file.replace(lines)

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands in it but its header."""
        return self._file.size <= len(self._format.header) and not self._is_torn

    def remove(self) -> None:
        """Remove the file if it is a batch's. The lock lasts until ``close``."""
        self._file.remove()

    def close(self) -> None:
        """Close the file and release the lock. May be called more than once."""
        self._file.close()

    def __enter__(self) -> "LineFile":
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], traceback: object) -> None:
        if error is not None and self._file.is_new and self.is_empty:
            self.remove()
        self.close()


def _numbered(file: IO[bytes]) -> Iterator[Tuple[int, bytes]]:
    """Yield the lines from the present position on, numbered from 1."""
    number = 0
    while True:
        line = file.readline(_LONGEST_LINE)
        if not line:
            return
        number += 1
        yield number, line


def _without_bom(line: bytes) -> bytes:
    """Return a line without the byte order mark that an editor may have written."""
    return line[len(_BOM) :] if line.startswith(_BOM) else line


def _foreign(number: int, path: str) -> JournalError:
    otherwise = ", or take that line out of it, and its prompt is asked again" if number > 1 else ""
    return JournalError(f"line {number} of {path} was not written by a batch: name another file{otherwise}")
