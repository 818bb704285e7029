"""Files that several processes write: locks that end with their holder, and replacement in one step.

A lock is on the file itself, not on its name, so every way to a file leads to the same lock: a link, a second name,
another mount. The system takes it back from a process that dies. Whoever replaces a file holds its lock, and whoever
has got a lock looks whether the file still has its name.
"""

import contextlib
import os
import re
import stat
import sys
import time
from typing import IO, Iterator, Optional

BINARY = getattr(os, "O_BINARY", 0)
#: Opens a pipe without waiting for its other end.
AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_PREFIX = ".copilot-sync-"
#: What temporary files were called before they had the name of what they replace; nobody can tell whose they are.
_NAMELESS = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")
#: Seconds after which nobody writes to one of those any more.
_LONG_AGO = 3600.0
#: Seconds to wait for another process that writes. It takes milliseconds, unless that process was stopped meanwhile.
PATIENCE = 2.0
#: Seconds between two looks at a lock.
_LOOK = 0.01

if sys.platform == "win32":  # pragma: no cover - Windows
    import msvcrt

    #: A byte that nobody writes: locks are mandatory there, and everybody may still read the rest.
    _LOCKED_BYTE = (1 << 31) - 2

    def try_lock(descriptor: int) -> bool:
        """Take the lock of an open file, unless somebody else has it."""
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, place, os.SEEK_SET)
        return True

    def unlock(descriptor: int) -> None:
        """Closing the file unlocks it: no child inherits it."""

    def _lock_path(path: str) -> str:
        return f"{path}.lock"  # what is open can't be replaced

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Take the lock of an open file, unless somebody else has it.

        Raises:
            OSError: The file system has no locks.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Release a lock, also if a child of this process has inherited the file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _lock_path(path: str) -> str:
        return path


def make_folder(path: str) -> None:
    """Make a folder for its owner only, and those above it that are missing; ``os.makedirs`` gives those to all.

    Raises:
        OSError: It can't be made.
    """
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    if above not in ("", path) and not os.path.exists(above):  # above a drive that is missing is the drive itself
        make_folder(above)
    os.makedirs(path, mode=0o700, exist_ok=True)


def has_name(descriptor: int, path: str) -> bool:
    """Whether an open file is the one that a path leads to."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


@contextlib.contextmanager
def locked(path: str, patience: float) -> Iterator[bool]:
    """Hold the lock of a file; it is made, empty and for its owner alone, if it is missing.

    Yields whether the lock was got. A holder that was stopped must not stop everybody else, and some file systems have
    no locks: after ``patience`` seconds the block runs without.

    Raises:
        OSError: The file can't be opened.
    """
    deadline = time.monotonic() + patience
    while True:
        with open(_lock_path(path), "rb", opener=_open_or_make) as file:
            got = _tried(file.fileno())
            if got and not has_name(file.fileno(), _lock_path(path)):
                continue  # somebody has replaced it since it was opened
            if got or got is None or time.monotonic() >= deadline:
                try:
                    yield bool(got)
                finally:
                    if got:
                        unlock(file.fileno())
                return
        time.sleep(_LOOK)


def _open_or_make(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | AT_ONCE, 0o600)


def _tried(descriptor: int) -> Optional[bool]:
    try:
        return try_lock(descriptor)
    except OSError:
        return None


@contextlib.contextmanager
def replacing(path: str, mode: int) -> Iterator[IO[bytes]]:
    """Write a file anew, in one step that either happens or does not.

    The block writes to a file beside it, which takes its place, on the disk, when the block has ended without an
    error. Until then that file is its owner's alone.

    Args:
        path: The file; its lock is held.
        mode: The permissions of the new one.

    Raises:
        OSError: It can't be written; then the file is as it was.
    """
    folder, name = os.path.split(path)
    other = os.path.join(folder, f"{_PREFIX}{name}.{os.urandom(4).hex()}")
    descriptor = os.open(other, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | BINARY, 0o600)
    try:
        with os.fdopen(descriptor, "ab") as file:
            yield file
            file.flush()
            os.chmod(other, mode)
            os.fsync(file.fileno())
        os.replace(other, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(other)
        raise
    sync_folder(path)


@contextlib.contextmanager
def rewriting(path: str, mode: int) -> Iterator[IO[bytes]]:
    """Write a file of the user's anew, as ``replacing`` does, with its lock held. Its folder is made if it is missing.

    The block may read what the file holds. If there was none and the block fails, there is none afterwards.

    Raises:
        OSError: It can't be written; then it is as it was.
    """
    make_folder(os.path.dirname(path))
    with locked(path, PATIENCE) as is_alone:
        try:
            if is_alone:  # pragma: no branch - nobody holds it for longer than a moment
                remove_leftovers(path)
            with replacing(path, mode) as file:
                yield file
        except BaseException:
            _remove_if_empty(path)
            raise


def _remove_if_empty(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.stat(path).st_size == 0:
            os.unlink(path)


def remove_leftovers(path: str) -> None:
    """Remove what killed processes left of their attempts to replace a file. Its lock is held."""
    folder, name = os.path.split(path)
    own = re.compile(re.escape(f"{_PREFIX}{name}.") + "[0-9a-f]{8}")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if own.fullmatch(entry.name) or (_NAMELESS.fullmatch(entry.name) and _is_old(entry)):
                _remove_own_file(entry)


def _is_old(entry: "os.DirEntry[str]") -> bool:
    return entry.stat(follow_symlinks=False).st_mtime < time.time() - _LONG_AGO


def _remove_own_file(entry: "os.DirEntry[str]") -> None:
    info = entry.stat(follow_symlinks=False)
    is_own = not hasattr(os, "geteuid") or info.st_uid == os.geteuid()
    if is_own and stat.S_ISREG(info.st_mode):
        with contextlib.suppress(OSError):
            os.unlink(entry.path)


def sync_folder(path: str) -> None:
    """Sync a file's new name to the disk as well. Windows has no such thing."""
    if os.name == "posix":  # pragma: no branch - Windows
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
