"""Files that clients have uploaded, and those with the results of batches, in a folder.

- A file is there as soon as its description is: ``ID.json`` beside ``ID.data``. Both are on the disk then, complete.
- Files are their owner's alone, as their folder is. Their names are ids; what a client calls a file is never a path.
- How many there may be, and of how many bytes, is bounded. A file is removed when its time has passed.

Threads: any number of threads and processes; what they do one after the other is done under a lock of the folder.
"""

import contextlib
import json
import os
import re
import time
import uuid
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional

from copilot_sync.openai_api.failures import ApiError
from copilot_sync.safe_files import locked, make_folder, replacing

#: How many files there may be, and how many bytes all of them may have, before nothing more may be uploaded.
MOST_FILES, MOST_BYTES = 1000, 1024 * 1024 * 1024
#: Seconds for which a file is kept, if nobody says: 30 days, as OpenAI has it for files of batches.
KEPT = 30 * 24 * 3600
_ID = re.compile(r"file-[0-9a-f]{32}")
_PIECE = 65536
#: Seconds to wait for another process.
_PATIENCE = 10.0
#: Seconds after which nobody writes any more to a file that has no description.
_LONG_AGO = 3600.0


class StoredFile(NamedTuple):
    """The description of a file.

    Attributes:
        id: Its id.
        bytes: Its size.
        created: When it was made, in seconds since 1970.
        expires_at: When it is removed.
        filename: What the client calls it.
        purpose: ``batch``, or ``batch_output``.
    """

    id: str
    bytes: int
    created: float
    expires_at: int
    filename: str
    purpose: str

    def to_dict(self) -> Dict[str, Any]:
        """Return the object of OpenAI's API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created),
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


def new_file_id() -> str:
    """Return an id that no file has."""
    return f"file-{uuid.uuid4().hex}"


class FileStore:
    """The files of a folder. Safe for any thread and process.

    Args:
        folder: The folder. It is made when it is first written to.
        clock: Returns the time, in seconds since 1970.
    """

    def __init__(self, folder: str, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def make_folder(self) -> None:
        """Make the folder if it is missing.

        Raises:
            OSError: It can't be made.
        """
        make_folder(self._folder)

    def create(self, write: "Callable[[IO[bytes]], Wanted]") -> StoredFile:
        """Keep another file.

        Args:
            write: Writes it, and says what is wanted of it.

        Raises:
            ApiError: There is no room, or ``write`` raises it.
            OSError: It can't be written. Nothing is left of it.
        """
        self.make_folder()
        id = new_file_id()
        with contextlib.ExitStack() as held:
            with replacing(self._data(id), 0o600) as file:
                wanted = write(file)
                held.enter_context(locked(self._path("lock"), _PATIENCE))
                size = file.tell()
                self._check_room(size)
            return self._describe(id, size, wanted)

    def put(self, id: str, wanted: "Wanted", pieces: Iterable[bytes]) -> StoredFile:
        """Keep a file under an id of ours, in the place of what is there, and also if there is no more room.

        Raises:
            OSError: It can't be written.
        """
        self.make_folder()
        with replacing(self._data(id), 0o600) as file:
            file.writelines(pieces)
            size = file.tell()
        return self._describe(id, size, wanted)

    def _describe(self, id: str, size: int, wanted: "Wanted") -> StoredFile:
        now = self._clock()
        stored = StoredFile(id, size, now, int(now + wanted.seconds), wanted.filename, wanted.purpose)
        with replacing(self._path(f"{id}.json"), 0o600) as file:
            file.write(json.dumps(stored._asdict()).encode("ascii"))
        return stored

    def get(self, id: str) -> StoredFile:
        """Return the description of a file.

        Raises:
            ApiError: There is none (404).
        """
        found = self._read(id) if _ID.fullmatch(id) else None
        if found is None or found.expires_at <= self._clock():
            raise _not_found()
        return found

    def open(self, id: str) -> "FileBody":
        """Open the content of a file.

        Raises:
            ApiError: There is no such file (404).
        """
        path = self.path(id)
        try:
            return FileBody(path)
        except FileNotFoundError:  # it was removed just now
            raise _not_found() from None

    def path(self, id: str) -> str:
        """Return the path of a file's content.

        Raises:
            ApiError: There is no such file (404).
        """
        self.get(id)
        return self._data(id)

    def delete(self, id: str) -> None:
        """Remove a file.

        Raises:
            ApiError: There is none (404).
        """
        self.get(id)
        self._remove(id)

    def all(self) -> List[StoredFile]:
        """Return all files, the oldest first. Those whose time has passed are removed."""
        found = []
        for id in self._ids():
            stored = self._read(id)
            if stored is not None and stored.expires_at <= self._clock():
                self._remove(id)
            elif stored is not None:
                found.append(stored)
        return sorted(found, key=lambda stored: (stored.created, stored.id))

    def room(self) -> int:
        """Return how many bytes more there may be."""
        return MOST_BYTES - sum(stored.bytes for stored in self.all())

    def sweep(self) -> None:
        """Remove what processes that were killed have left."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            known = {f"{id}.data" for id in self._ids()}
            for entry in entries:
                is_left = entry.name.startswith(".copilot-sync-") or entry.name.endswith(".data")
                if is_left and entry.name not in known and self._is_old(entry):
                    _unlink(entry.path)

    def _is_old(self, entry: "os.DirEntry[str]") -> bool:
        return entry.stat(follow_symlinks=False).st_mtime < self._clock() - _LONG_AGO

    def _check_room(self, size: int) -> None:
        files = self.all()
        if len(files) >= MOST_FILES:
            raise _no_room(f"there are {MOST_FILES} files")
        if sum(stored.bytes for stored in files) + size > MOST_BYTES:
            raise _no_room(f"the files have {MOST_BYTES} bytes together")

    def _ids(self) -> List[str]:
        with contextlib.suppress(FileNotFoundError):
            names = os.listdir(self._folder)
            return [name[: -len(".json")] for name in names if name.endswith(".json")]
        return []

    def _read(self, id: str) -> Optional[StoredFile]:
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            with open(self._path(f"{id}.json"), "rb") as file:
                return StoredFile(**json.loads(file.read()))
        return None

    def _remove(self, id: str) -> None:
        _unlink(self._path(f"{id}.json"))
        _unlink(self._data(id))

    def _data(self, id: str) -> str:
        return self._path(f"{id}.data")

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


class Wanted(NamedTuple):
    """What is wanted of a new file.

    Attributes:
        filename: What the client calls it.
        purpose: What it is for.
        seconds: For how long it is kept.
    """

    filename: str
    purpose: str
    seconds: int = KEPT


class FileBody(Iterator[bytes]):
    """The content of a file, as the body of a response.

    Args:
        path: The file.

    Attributes:
        size: Its bytes.

    Raises:
        OSError: It can't be opened.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - close() closes it
        self.size = os.fstat(self._file.fileno()).st_size

    def __next__(self) -> bytes:
        piece = self._file.read(_PIECE)
        if not piece:
            self.close()
            raise StopIteration
        return piece

    def close(self) -> None:
        """Close the file. May be called any number of times."""
        self._file.close()


def _not_found() -> ApiError:
    return ApiError(404, "there is no file with this id", code="not_found", param="id")


def _no_room(words: str) -> ApiError:
    return ApiError(400, f"{words}: delete some of them first", code="storage_full")


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
