"""A dictionary on the disk, so that a million ids do not stand in memory.

It is an SQLite database in a temporary file, which is removed when it is closed or when the process dies. Ids are
stored whole: two ids with the same fingerprint would lose a prompt.
"""

import errno
import sqlite3
from typing import Iterator, Optional, Tuple

_TABLE = "CREATE TABLE entries (id TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


class DiskDict:
    """Maps ids to values. For one thread at a time.

    Raises:
        OSError: There is no room on the disk. Every method may raise it.
    """

    def __init__(self) -> None:
        # No name means a temporary file. Nothing in it has to survive, so it needs no journal and no syncs.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _TABLE):
            self._execute(statement)

    def __len__(self) -> int:
        return int(self._execute("SELECT COUNT(*) FROM entries").fetchone()[0])

    def add(self, id: str, value: str = "") -> bool:
        """Set the value of an id that has none, and return whether it had none."""
        cursor = self._execute("INSERT OR IGNORE INTO entries VALUES (?, ?)", (id, value))
        return cursor.rowcount == 1

    def set(self, id: str, value: str) -> None:
        """Set the value of an id."""
        self._execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (id, value))

    def get(self, id: str) -> Optional[str]:
        """Return the value of an id; ``None`` if it has none."""
        row = self._execute("SELECT value FROM entries WHERE id = ?", (id,)).fetchone()
        return None if row is None else str(row[0])

    def remove(self, id: str) -> None:
        """Remove an id, if it is there."""
        self._execute("DELETE FROM entries WHERE id = ?", (id,))

    def items(self) -> Iterator[Tuple[str, str]]:
        """Iterate over all ids and values. Change nothing meanwhile."""
        yield from self._execute("SELECT id, value FROM entries")

    def close(self) -> None:
        """Remove the dictionary from the disk."""
        self._database.close()

    def __enter__(self) -> "DiskDict":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _execute(self, statement: str, values: Tuple[str, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise OSError(errno.ENOSPC, f"the folder for temporary files has no room for the ids ({error})") from error
