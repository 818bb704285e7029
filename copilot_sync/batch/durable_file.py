"""A file that only grows, and whose content survives kills, full disks and power cuts.

Rules:

- The file is locked as long as it is open, so one batch at a time writes to it.
- An append happens completely or not at all. With ``sync`` it is on the disk when the call returns.
- After a failed write nothing more is written. Nothing is written either to a file that somebody else changed.
- Bytes that are cut off are kept in another file beside it.

This module knows bytes. What a line is, and whether the end of a file is torn, is known to ``line_files``.
"""

import contextlib
import errno
import logging
import os
import shutil
import stat
from typing import IO, Iterable, Iterator, Tuple

from copilot_sync.errors import CopilotError
from copilot_sync.safe_files import AT_ONCE, BINARY, has_name, remove_leftovers, replacing, sync_folder, try_lock
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JournalError(CopilotError):
    """The output of a batch, or its journal, can't be written, is in use, is damaged, or was not written by a batch."""


class DurableFile:
    """A file, open and locked. For one thread at a time.

    Args:
        path: The file, with links resolved. It is created if it is missing.
        output: The output that the lock is for. The message names it if another batch holds the lock.

    Attributes:
        path: The file.
        size: How many of its bytes count. Whoever reads the file sets it; ``append`` and ``replace`` keep it right.
        is_new: Whether the file was created by this object.
        may_remove: Whether ``remove`` may remove it: it is new, or it is known to be a batch's.

    Raises:
        JournalError: It can't be opened, or another batch has it open.
    """

    def __init__(self, path: str, output: str) -> None:
        self.path = path
        self.size = 0
        with explain_os_error(path, "opened"):
            self._descriptor, self.is_new = _open_locked(path, output)
        self.may_remove = self.is_new
        self._is_writable = True  # until a write fails
        reset_after_fork(self)
        remove_leftovers(path)

    def reading(self) -> IO[bytes]:
        """Open the file for reading, from its beginning."""
        with explain_os_error(self.path, "read"):
            return open(self.path, "rb")

    def append(self, data: bytes, *, sync: bool) -> None:
        """Add bytes. With ``sync`` they are on the disk when this returns.

        Raises:
            JournalError: They can't be written. The file is as it was, and nothing more can be added.
        """
        self._check_unchanged()
        self._is_writable = False
        try:
            with explain_os_error(self.path, "written"):
                _write_all(self._descriptor, data)
                if sync:
                    os.fsync(self._descriptor)
        except JournalError:
            with contextlib.suppress(OSError):
                if os.fstat(self._descriptor).st_size <= self.size + len(data):
                    os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)
        self._is_writable = True

    def cut_end(self) -> None:
        """Cut off what stands behind ``size``, and keep it in another file.

        Raises:
            JournalError: That fails. The file is as it was.
        """
        with explain_os_error(self.path, "mended"):
            count = os.fstat(self._descriptor).st_size - self.size
            kept = _copy_end(self.path, self.size)
            os.ftruncate(self._descriptor, self.size)
            os.fsync(self._descriptor)
            logger.warning("the torn end of %s (%d bytes) was cut off and is in %s", self.path, count, kept)

    def clear(self) -> None:
        """Remove all bytes.

        Raises:
            JournalError: That fails.
        """
        with explain_os_error(self.path, "mended"):
            os.ftruncate(self._descriptor, 0)
        self.size = 0

    def sync_name(self) -> None:
        """Bring the name of a new file to the disk.

        Raises:
            JournalError: That fails.
        """
        with explain_os_error(self.path, "written"):
            sync_folder(self.path)

    def replace(self, chunks: Iterable[bytes]) -> None:
        """Write the file anew. The new file takes the place and the lock of the old one in one step.

        Raises:
            JournalError: That fails. The file is as it was.
        """
        self._check_unchanged()
        with explain_os_error(self.path, "written"), contextlib.ExitStack() as undo:
            with replacing(self.path, stat.S_IMODE(os.fstat(self._descriptor).st_mode)) as file:
                new = os.dup(file.fileno())
                undo.callback(os.close, new)
                try_lock(new)
                file.writelines(chunks)
                size = file.tell()
            undo.pop_all()
            old, self._descriptor, self.size = self._descriptor, new, size
            os.close(old)

    def _check_unchanged(self) -> None:
        if not self._is_writable:
            raise JournalError(f"{self.path} could not be written before: start the same batch again")
        with explain_os_error(self.path, "written"):
            is_same = os.fstat(self._descriptor).st_size == self.size and has_name(self._descriptor, self.path)
        if not is_same:
            raise JournalError(
                f"{self.path} was changed, moved or removed by somebody else while a batch was writing to it, and "
                "nothing was added to it: start the same batch again"
            )

    def remove(self) -> None:
        """Remove the file if it is ours. The lock lasts until ``close``."""
        with contextlib.suppress(OSError):  # Windows does not remove an open file; it stays there
            if self.may_remove and has_name(self._descriptor, self.path):
                os.unlink(self.path)

    def after_fork_in_child(self) -> None:
        """Close the file in a child: the lock would last as long as the child otherwise."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def close(self) -> None:
        """Close the file and release the lock. May be called more than once."""
        self.after_fork_in_child()


def check_is_file(path: str) -> None:
    """Refuse a path that leads to something other than a file: opening a device may have effects.

    Raises:
        JournalError: The path is refused.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise JournalError(f"{path} is a folder, a pipe or a device, and not a file that can be gone on with")


@contextlib.contextmanager
def explain_os_error(path: str, verb: str) -> Iterator[None]:
    """Turn an ``OSError`` into a ``JournalError`` that says what can't be done, and what to do about it."""
    try:
        yield
    except OSError as error:
        hint = "; make room and start the same batch again" if error.errno in _NO_ROOM else ""
        raise JournalError(f"{path} can't be {verb}: {error.strerror}{hint}") from error


def _open_locked(path: str, output: str) -> Tuple[int, bool]:
    """Open a file and lock it. Return the descriptor, and whether the file is new."""
    while True:
        descriptor, is_new = _open_or_create(path)
        try:
            if not try_lock(descriptor):
                raise JournalError(f"another batch is writing to {output}")
            # The previous holder of the lock may have removed or replaced the file since it was opened here.
            if has_name(descriptor, path):
                return descriptor, is_new
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open_or_create(path: str) -> Tuple[int, bool]:
    flags = os.O_RDWR | os.O_APPEND | AT_ONCE | BINARY
    check_is_file(path)
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, flags), False


def _copy_end(path: str, start: int) -> str:
    """Copy the bytes of a file from ``start`` on to a new file beside it, and return its name."""
    name = _unused_name(f"{path}.damaged")
    with open(path, "rb") as source, open(name, "wb", opener=_create) as copy:
        source.seek(start)
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fsync(copy.fileno())
    shutil.copymode(path, name)
    sync_folder(path)
    return name


def _unused_name(path: str) -> str:
    """Return a name that no file has: the path, or the path with a number."""
    name, number = path, 1
    while os.path.lexists(name):
        number += 1
        name = f"{path}.{number}"
    return name


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL, 0o600)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
