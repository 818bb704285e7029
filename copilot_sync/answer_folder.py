"""Answers in a folder: a cache of texts with one file for each, which threads and processes share.

The files have the mode 0600, and are replaced as a whole, so nobody ever reads half of one. A file that holds anything
else than what this module writes counts as missing, and the next value for its key replaces it. If there are too many
files, or too many bytes in them, those that were used longest ago are removed. Nothing is ever removed but files whose
whole name is one of ours and that belong to this user.

How many there are is counted now and then, not with each new file. So a process may exceed a limit by a sixteenth.

Threads: the counters may miss something, which delays the next count a little. The rest is the file system's.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from typing import Any, Callable, Iterator, NamedTuple, Optional, Union

from copilot_sync.safe_files import AT_ONCE, BINARY, make_folder, replacing
from copilot_sync.safe_text import loads

#: How many files a folder has at most, and how many bytes are in them.
MAX_FILES = 10_000
MAX_BYTES = 256 * 1024 * 1024
#: Bytes of the largest file.
MAX_FILE = 16 * 1024 * 1024
_NAME = re.compile(r"answer-[0-9a-f]{64}\.json")
#: What a process that was killed leaves of a file that it was writing.
_LEFTOVER = re.compile(r"\.copilot-sync-answer-[0-9a-f]{64}\.json\.[0-9a-f]{8}")
#: Seconds after which nobody writes to one of those any more.
_LONG_AGO = 3600.0
#: The share of a limit that may be exceeded before the files are counted again.
_SLACK = 16


class _File(NamedTuple):
    used: int
    size: int
    path: str


class AnswerFolder:
    """A cache in a folder. Safe for any thread and process.

    The folder is made with the mode 0700 if it is missing.

    Args:
        path: The folder.
        max_files: How many files it has at most.
        max_bytes: How many bytes are in them at most.
        now: The wall clock, in seconds since 1970.

    Raises:
        ValueError: No path can be like this.
    """

    def __init__(
        self,
        path: "Union[str, os.PathLike[str]]",
        *,
        max_files: int = MAX_FILES,
        max_bytes: int = MAX_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fsdecode(path)))
        if "\0" in self.path:
            raise ValueError("answer_cache must be a path, and no path holds a NUL character")
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._max_file = min(MAX_FILE, max_bytes)
        self._now = now
        # What was written since the files were counted. The first file of each process has them counted.
        self._new_files, self._new_bytes = max_files, 0

    def get(self, key: str) -> Optional[str]:
        """Return what was set for a key, as long as its time is not over.

        Raises:
            OSError: The folder can't be read.
        """
        path = self._path_of(key)
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                content = file.read(self._max_file + 1) if _is_own(os.fstat(file.fileno())) else b""
        except FileNotFoundError:
            return None
        value = self._value_in(content, key)
        if value is not None:
            with contextlib.suppress(OSError):  # it was used now, if this can be written down
                os.utime(path)
        return value

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep a value for so many seconds. One that is larger than a file may be is not kept.

        Raises:
            OSError: It can't be written.
        """
        fields = {"key": key, "until": self._now() + timeout, "value": value}
        content = json.dumps(fields).encode("ascii")
        if len(content) > self._max_file:
            return
        make_folder(self.path)
        with replacing(self._path_of(key), 0o600) as file:
            file.write(content)
        self._new_files += 1
        self._new_bytes += len(content)
        if self._new_files > self._max_files // _SLACK or self._new_bytes > self._max_bytes // _SLACK:
            self._remove_oldest()

    def _path_of(self, key: str) -> str:
        return os.path.join(self.path, f"answer-{hashlib.sha256(key.encode('utf-8')).hexdigest()}.json")

    def _value_in(self, content: bytes, key: str) -> Optional[str]:
        """Return the value that the content of a file has for a key, if it has one whose time is not over."""
        try:
            fields = loads(content.decode("ascii"))
            is_live = fields["key"] == key and fields["until"] > self._now()
            value = fields["value"]
        except (ValueError, TypeError, KeyError):
            return None
        return value if is_live and isinstance(value, str) else None

    def _remove_oldest(self) -> None:
        """Remove the files that were used longest ago until there are no more than there may be."""
        self._new_files = self._new_bytes = 0
        total = 0
        for number, file in enumerate(sorted(self._files(), reverse=True)):
            total += file.size
            if number >= self._max_files or total > self._max_bytes:
                _remove(file.path)

    def _files(self) -> Iterator[_File]:
        """Find the files of this folder. What killed processes left is removed on the way."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                is_leftover = bool(_LEFTOVER.fullmatch(entry.name))
                if not is_leftover and not _NAME.fullmatch(entry.name):
                    continue
                with contextlib.suppress(OSError):  # another process may have removed it just now
                    info = entry.stat(follow_symlinks=False)
                    if not _is_own(info):
                        continue
                    if not is_leftover:
                        yield _File(info.st_mtime_ns, info.st_size, entry.path)
                    elif info.st_mtime < self._now() - _LONG_AGO:
                        _remove(entry.path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _is_own(info: Any) -> bool:
    """Whether something is a file, and this user's: what another user put there is not trusted."""
    return stat.S_ISREG(info.st_mode) and (not hasattr(os, "geteuid") or info.st_uid == os.geteuid())


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; if it is a pipe, without waiting for somebody at its other end."""
    return os.open(path, flags | AT_ONCE | BINARY)
