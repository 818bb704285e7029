"""What is known of each of a million ids, without a million ids in memory.

It lies in a database of its own in a temporary file, which SQLite removes when it is closed, or when the process dies.
Ids are exact: a fingerprint that two of them share would lose a prompt.
"""

import errno
import sqlite3
from typing import Iterator, Optional, Tuple

_TABLE = "CREATE TABLE entries (id TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


class DiskDict:
    """Values by id, on the disk. For one thread at a time.

    Raises:
        OSError: There is no room for it, from any method.
    """

    def __init__(self) -> None:
        # Without a name it is a temporary file; without a journal and syncs, because nothing of it is worth keeping.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _TABLE):
            self._execute(statement)

    def __len__(self) -> int:
        return int(self._execute("SELECT COUNT(*) FROM entries").fetchone()[0])

    def add(self, id: str, value: str = "") -> bool:
        """Keep a value for an id that has none yet, and tell whether it had none."""
        done = self._execute("INSERT OR IGNORE INTO entries VALUES (?, ?)", (id, value))
        return done.rowcount == 1

    def set(self, id: str, value: str) -> None:
        """Keep a value for an id, instead of any other."""
        self._execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (id, value))

    def get(self, id: str) -> Optional[str]:
        """Give the value of an id, ``None`` where there is none."""
        row = self._execute("SELECT value FROM entries WHERE id = ?", (id,)).fetchone()
        return None if row is None else str(row[0])

    def remove(self, id: str) -> None:
        """Forget an id."""
        self._execute("DELETE FROM entries WHERE id = ?", (id,))

    def _execute(self, statement: str, values: Tuple[str, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise OSError(errno.ENOSPC, f"the folder for temporary files has no room for the ids ({error})") from error

    def items(self) -> Iterator[Tuple[str, str]]:
        """All ids with their values. Nothing may be changed meanwhile."""
        yield from self._execute("SELECT id, value FROM entries")

    def close(self) -> None:
        """Remove all of it."""
        self._database.close()

    def __enter__(self) -> "DiskDict":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
