"""Where tokens are kept between clients and processes.

A cache is anything with ``get(key)`` and ``set(key, value, timeout)``, as Django's and cachelib's caches have;
keys are fingerprints and values are strings. ``FileCache`` is ours: a small JSON file that only its owner can
read.

A cache is a convenience and never a reason to fail. A file that can't be read is empty, one that can't be
written is left. A foreign cache may be somebody's server and raise whatever it likes: any ``Exception`` of its is
logged by its type alone (its words may hold a password) and taken for "nothing there". What a signal handler raises
while the cache works, such as the soft time limit of a task queue, is none of the cache's errors and passes.

Threads: a ``FileCache`` has no state but its file, which is locked.
"""

import errno
import json
import logging
import os
import stat
import time
from typing import Any, Callable, Dict, Optional, Protocol, Union

from copilot_sync.pacing.caches import is_interruption
from copilot_sync.safe_files import AT_ONCE, locked, make_folder, remove_leftovers, replacing

logger = logging.getLogger(__name__)

#: Bytes of a cache file that are read; a larger one is none of ours.
_LARGEST_FILE = 1024 * 1024
#: Seconds to wait for another process that writes. It takes milliseconds, unless that process was stopped meanwhile.
_PATIENCE = 2.0
#: What a file may hold and still be empty: zeros are left when the power fails.
_NOTHING = b"\0 \t\r\n"

_Entries = Dict[str, Dict[str, Any]]


class TokenCache(Protocol):
    """What a ``token_cache`` must offer. ``timeout`` is in seconds."""

    def get(self, key: str) -> Any:
        """Return what was set for a key, ``None`` if there is nothing."""

    def set(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value for so many seconds."""


def cache_of(value: Union[None, str, "os.PathLike[str]", TokenCache], variable: Optional[str]) -> Optional[TokenCache]:
    """Choose the cache: the argument, else the file that the environment names, else none beyond this client's memory.

    Raises:
        TypeError: The argument is neither a path nor something with ``get`` and ``set``.
        ValueError: The argument is a text that no path can be.
    """
    if value is None or value == "":
        return None if variable in (None, "off") else FileCache(str(variable))
    if isinstance(value, (str, os.PathLike)):
        return FileCache(value)
    if callable(getattr(value, "get", None)) and callable(getattr(value, "set", None)):
        return value
    raise TypeError(f"token_cache must be a path or have get and set, and {type(value).__name__} is neither")


def look_up(cache: TokenCache, key: str) -> Any:
    """Return what a cache holds for a key; ``None`` if there is nothing, or the cache is out of order."""
    return _tolerating(lambda: cache.get(key))


def keep(cache: TokenCache, key: str, value: str, timeout: int) -> None:
    """Put a value into a cache for so many seconds, unless it is out of order."""
    _tolerating(lambda: cache.set(key, value, timeout))


def _tolerating(use: Callable[[], Any]) -> Any:
    try:
        return use()
    except Exception as error:  # a foreign cache may be anything, and what it raises has no common root
        if is_interruption(error):
            raise
        logger.warning("the token cache failed and is done without: %s", type(error).__name__)
        return None


class FileCache:
    """Tokens in a file that several processes may share. Safe for any thread.

    The file has the mode 0600 and is replaced as a whole, so that nobody ever reads half of one; whoever writes holds
    its lock, so that nobody's entry is lost. Its folder is made with the mode 0700 if it is missing. A file that
    holds something else is left alone.

    Args:
        path: The file.
        now: The wall clock, in seconds since 1970.

    Raises:
        ValueError: No path can be like this.
    """

    def __init__(self, path: Union[str, "os.PathLike[str]"], *, now: Callable[[], float] = time.time) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fsdecode(path)))
        if "\0" in self.path:
            raise ValueError("token_cache must be a path, and no path holds a NUL character")
        self._now = now

    def get(self, key: str) -> Optional[str]:
        """Return what was set for a key, as long as its time is not over."""
        entry = self._live(_entries_of(self._content()) or {}).get(key)
        return entry["value"] if entry else None

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep a value for so many seconds, if the file can be written."""
        entry = {"value": value, "until": self._now() + timeout}
        try:
            self._add(key, entry)
        except OSError as error:
            logger.debug("the token cache was not written: %s", error.strerror)

    def _add(self, key: str, entry: Dict[str, Any]) -> None:
        place = os.path.realpath(self.path)  # if it is a link, what it leads to is replaced
        if os.path.exists(place) and not os.path.isfile(place):
            raise OSError(errno.EINVAL, "it is no file but a device, a pipe or a folder")
        make_folder(os.path.dirname(place))
        with locked(place, _PATIENCE) as is_alone:
            if is_alone:
                remove_leftovers(place)
            entries = _entries_of(self._content())
            if entries is None:
                logger.warning("%s is not a token cache and was left alone: name another file, or remove it", self.path)
                return
            content = _fitting({**self._live(entries), key: entry})
            with replacing(place, 0o600) as file:
                file.write(content)

    def _content(self) -> bytes:
        """What the file holds; nothing if it can't be read. One byte more than a cache has shows that it is none."""
        try:
            with open(self.path, "rb", opener=_open_at_once) as file:
                mode = os.fstat(file.fileno()).st_mode
                if not stat.S_ISREG(mode):
                    return b""
                if mode & 0o077:  # somebody else made it readable for others
                    os.chmod(self.path, 0o600)
                return file.read(_LARGEST_FILE + 1)
        except OSError:
            return b""

    def _live(self, entries: _Entries) -> _Entries:
        """Those that are well-formed and whose time is not over."""
        return {key: entry for key, entry in entries.items() if self._is_live(entry)}

    def _is_live(self, entry: Dict[str, Any]) -> bool:
        return (
            isinstance(entry["value"], str)
            and isinstance(entry.get("until"), (int, float))
            and entry["until"] > self._now()
        )


def _entries_of(content: bytes) -> Optional[_Entries]:
    """Read a cache's file: its entries, or ``None`` if it is something else."""
    if not content.strip(_NOTHING):
        return {}
    try:
        data = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not all(isinstance(entry, dict) and "value" in entry for entry in data.values()):
        return None
    return data


def _fitting(entries: _Entries) -> bytes:
    """Write entries down; the ones that end first are left out if a file could not hold all of them.

    Raises:
        OSError: Not even one fits.
    """
    kept = sorted(entries.items(), key=lambda item: float(item[1]["until"]))
    while kept:
        content = json.dumps(dict(kept)).encode("ascii")
        if len(content) <= _LARGEST_FILE:
            return content
        kept = kept[len(kept) // 2 + 1 :]
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; if it is a pipe, without waiting for somebody at its other end."""
    return os.open(path, flags | AT_ONCE)
