"""``Ledger``: the entries in a SQLite file, which any number of threads and processes may write and read at once.

- The file has a number that says whose it is. A database that lacks it is never written.
- Each write and each read has a connection of its own, so that no thread and no forked child ever finds another's.
- It is in WAL mode: who reads does not hold up who writes, and a process that is killed leaves whole entries only.

``sqlite3`` is loaded when it is needed: it takes a while, and a Python may lack it.
"""

import contextlib
import os
import time
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, NoReturn, Optional, Sequence, Tuple, Union
from urllib.parse import quote

from copilot_sync.ledger.entries import ANSWERED, CLOSED, INCOMPLETE, LedgerEntry, LedgerError, LedgerUsage
from copilot_sync.ledger.recorder import Recorder
from copilot_sync.safe_files import make_folder
from copilot_sync.text_files import PathLike
from copilot_sync.user_folders import state_folder

if TYPE_CHECKING:
    import sqlite3

#: A moment: a ``datetime``, in UTC if it has no zone; the beginning of a ``date`` in UTC; seconds since 1970.
Moment = Union[date, float]

#: The number in the head of the file that says that it is a ledger: "CpSL".
_APPLICATION = 0x4370534C
_VERSION = 1
#: Seconds to wait for another process that writes. It takes milliseconds.
_PATIENCE = 5.0
_DAY = 86400.0
_KEEP_DAYS = 400.0

_COLUMNS = (
    "began_at", "model", "answered_model", "label", "user", "input_tokens", "output_tokens", "seconds", "attempts",
    "outcome", "conversation_id",
)  # fmt: skip
_CREATE = (
    f"CREATE TABLE IF NOT EXISTS calls ({', '.join(_COLUMNS)})",
    "CREATE INDEX IF NOT EXISTS calls_began_at ON calls (began_at)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)
_INSERT = f"INSERT INTO calls VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - question marks alone
_NAMES = {
    "day": "date(began_at, 'unixepoch')",
    "model": "CASE answered_model WHEN '' THEN model ELSE answered_model END",
    "label": "label",
    "user": "user",
}
_TOTALS = f"""
    SELECT %s AS name, count(*) AS calls, sum(outcome IN ('{ANSWERED}', '{INCOMPLETE}')),
        sum(outcome NOT IN ('{ANSWERED}', '{INCOMPLETE}', '{CLOSED}')),
        coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), sum(seconds)
    FROM calls WHERE %s GROUP BY name ORDER BY %s
"""  # noqa: S608 - what is put in stands in this module


class Ledger(Recorder):
    """A record of every call of one or more clients, in a SQLite file: ``Client(ledger=Ledger())``.

    An entry holds when a call began, its models, label, user, tokens, seconds, attempts, outcome and conversation. It
    never holds any text of a prompt or an answer. It is written when the call has ended, by a short-lived thread;
    ``Client.close`` waits for that. A call that was closed before its question was sent has none. A file that can't be
    written is logged once, and calls go on without it.

    It may be shared by any number of threads, clients and processes, and by forked children; it pickles. Making one
    touches no file.

    Args:
        path: The file. Default: ``ledger.sqlite3`` in the user's state folder. It is created for its owner only, and so
            is its folder.
        keep_days: Entries that are older are deleted, once a day at most. Default 400; ``None`` keeps all.
        now: The wall clock, in seconds since 1970.

    Raises:
        TypeError: ``keep_days`` is not a number.
        ValueError: ``keep_days`` is not above zero, or no path can be like this.
    """

    def __init__(
        self,
        path: Union[None, str, PathLike] = None,
        *,
        keep_days: Optional[float] = _KEEP_DAYS,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(now=now)
        chosen = os.path.join(state_folder(), "ledger.sqlite3") if path is None else os.fsdecode(path)
        #: The file.
        self.path: str = os.path.abspath(os.path.expanduser(chosen))
        if "\0" in self.path:
            raise ValueError("ledger must be a path, and no path holds a NUL character")
        if isinstance(keep_days, bool) or not isinstance(keep_days, (int, float, type(None))):
            raise TypeError(f"keep_days must be a number or None, not {type(keep_days).__name__}")
        if keep_days is not None and not keep_days > 0:
            raise ValueError(f"keep_days must be above zero, not {keep_days}")
        self._keep_days = keep_days

    def write(self, entries: Sequence[LedgerEntry]) -> None:
        """Write entries down, and delete those that are too old.

        Raises:
            Exception: That fails.
        """
        with _writing(self.path) as connection:
            connection.executemany(_INSERT, [_row_of(entry) for entry in entries])
            self._prune(connection)

    def _prune(self, connection: "sqlite3.Connection") -> None:
        if self._keep_days is None:
            return
        limit = self._now() - self._keep_days * _DAY
        if _value(connection, "SELECT min(began_at) FROM calls") < limit - _DAY:
            connection.execute("DELETE FROM calls WHERE began_at < ?", (limit,))

    def entries(
        self,
        since: Optional[Moment] = None,
        until: Optional[Moment] = None,
        *,
        label: Optional[str] = None,
        user: Optional[str] = None,
        model: Optional[str] = None,
        outcome: Optional[str] = None,
    ) -> Iterator[LedgerEntry]:
        """Iterate over the calls, the oldest first. There are none if there is no file.

        >>> for entry in Ledger().entries(label="nightly"):  # doctest: +SKIP
        ...     print(entry.began_at, entry.model, entry.outcome)

        Args:
            since: The first moment: a ``datetime``, in UTC if it has no zone, a ``date`` in UTC, or seconds since 1970.
            until: The moment before which they began.
            label: The label that they have.
            user: The user that they have.
            model: The model that was asked for, or that answered.
            outcome: The outcome that they have.

        Raises:
            LedgerError: The file can't be read, or is not a ledger.
            TypeError: ``since`` or ``until`` is not a moment.
        """
        where, values = _condition(since, until, label=label, user=user, outcome=outcome)
        if model is not None:
            where, values = f"{where} AND ? IN (model, answered_model)", [*values, model]
        columns = ", ".join(_COLUMNS)
        query = f"SELECT {columns} FROM calls WHERE {where} ORDER BY began_at, rowid"  # noqa: S608 - as above
        return (
            LedgerEntry(datetime.fromtimestamp(row[0], timezone.utc), *row[1:]) for row in self._select(query, values)
        )

    def usage(
        self, by: str = "day", since: Optional[Moment] = None, until: Optional[Moment] = None
    ) -> List[LedgerUsage]:
        """Add the calls up: by day in the order of the days, else those with the most calls first.

        Args:
            by: ``day`` (of UTC), ``model`` (that answered, else the one that was asked for), ``label`` or ``user``.
            since: As for ``entries``.
            until: As for ``entries``.

        Raises:
            LedgerError: The file can't be read, or is not a ledger.
            TypeError: ``since`` or ``until`` is not a moment.
            ValueError: ``by`` is none of these.
        """
        if by not in _NAMES:
            raise ValueError(f"by must be one of {', '.join(_NAMES)}, not {by!r}")
        where, values = _condition(since, until)
        query = _TOTALS % (_NAMES[by], where, "name" if by == "day" else "calls DESC, name")
        return [LedgerUsage(*row) for row in self._select(query, values)]

    def _select(self, query: str, values: Sequence[Any]) -> Iterator[Tuple[Any, ...]]:
        self.flush()
        if os.path.exists(self.path):
            _check_is_file(self.path)
            with _reading(self.path) as connection:
                if not _is_empty(connection):
                    _check(connection, self.path)
                    yield from connection.execute(query, values)

    def __reduce__(self) -> Any:
        return _unpickled, (type(self), self.path, self._keep_days, self._now)

    def __repr__(self) -> str:
        return f"<Ledger {self.path}>"


def ledger_of(value: Union[None, bool, str, PathLike, Recorder], variable: Optional[str]) -> Optional[Recorder]:
    """Choose the ledger: the argument, else the file that the environment names, else none.

    Raises:
        TypeError: The argument is neither a ledger nor a path.
        ValueError: The argument is a text that no path can be.
    """
    if value is None:
        value = False if variable in (None, "off") else str(variable)
    if isinstance(value, Recorder):
        return value
    if isinstance(value, bool):
        return Ledger() if value else None
    if isinstance(value, (str, os.PathLike)):
        return Ledger(value)
    raise TypeError(f"ledger must be a Ledger, a path, True or None, not {type(value).__name__}")


def _unpickled(kind: Any, path: str, keep_days: Optional[float], now: Callable[[], float]) -> Any:
    return kind(path, keep_days=keep_days, now=now)


def _row_of(entry: LedgerEntry) -> List[Any]:
    return [entry.began_at.timestamp(), *(getattr(entry, name) for name in _COLUMNS[1:])]


def _condition(since: Optional[Moment], until: Optional[Moment], **words: Optional[str]) -> Tuple[str, List[Any]]:
    """Return what a query asks for, and its values."""
    asked = [("began_at >= ?", _seconds("since", since)), ("began_at < ?", _seconds("until", until))]
    asked += [(f"{name} = ?", word) for name, word in words.items()]
    asked = [(term, value) for term, value in asked if value is not None]
    return " AND ".join(["1", *(term for term, _ in asked)]), [value for _, value in asked]


def _seconds(name: str, moment: Optional[Moment]) -> Any:
    if moment is None or (isinstance(moment, (int, float)) and not isinstance(moment, bool)):
        return moment
    if not isinstance(moment, date):
        raise TypeError(f"{name} must be a datetime, a date or seconds since 1970, not {type(moment).__name__}")
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=timezone.utc)
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


@contextlib.contextmanager
def _writing(path: str) -> Iterator["sqlite3.Connection"]:
    """Open a ledger for one transaction, which happens as a whole or not at all. It is created if it is missing."""
    import sqlite3

    is_missing = not os.path.exists(path)
    if is_missing:
        make_folder(os.path.dirname(path))
    else:
        _check_is_file(path)
    with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
        if is_missing:  # it is empty now; what SQLite puts beside it gets the same permissions
            os.chmod(path, 0o600)
        is_new = _is_empty(connection)
        if is_new:
            _use_wal(connection)
        else:
            _check(connection, path)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        if is_new:
            for statement in _CREATE:
                connection.execute(statement)
        yield connection
        connection.execute("COMMIT")


def _use_wal(connection: "sqlite3.Connection") -> None:
    """Switch to WAL. SQLite does not wait for another process that does the same."""
    import sqlite3

    until = time.monotonic() + _PATIENCE
    while True:
        try:
            _value(connection, "PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
        time.sleep(0.01)


@contextlib.contextmanager
def _reading(path: str) -> Iterator["sqlite3.Connection"]:
    try:
        import sqlite3
    except ImportError as error:
        raise LedgerError("this Python has no sqlite3, in which the ledger is written") from error
    # Without a place for its files beside it, SQLite reads only what nobody writes.
    is_fixed = not os.access(os.path.dirname(path), os.W_OK) and not os.path.exists(f"{path}-wal")
    address = f"file:{quote(path)}?mode=rw{'&immutable=1' if is_fixed else ''}"
    try:
        with contextlib.closing(
            # An iterator may be closed by another thread, as by a garbage collection.
            sqlite3.connect(address, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        ) as connection:
            yield connection
    except sqlite3.Error as error:
        raise LedgerError(f"{path} can't be read as a ledger: {error}") from error


def _is_empty(connection: "sqlite3.Connection") -> bool:
    return not _value(connection, "SELECT count(*) FROM sqlite_master")


def _value(connection: "sqlite3.Connection", query: str) -> Any:
    """Return the one value of a query. A statement whose rows are not read to their end would hold up others."""
    ((value,),) = connection.execute(query).fetchall()
    return value


def _check_is_file(path: str) -> None:
    """Refuse a folder, a pipe and a device: opening one may have effects."""
    if not os.path.isfile(path):
        _refuse(path)


def _check(connection: "sqlite3.Connection", path: str) -> None:
    if _value(connection, "PRAGMA application_id") != _APPLICATION:
        _refuse(path)
    if _value(connection, "PRAGMA user_version") > _VERSION:
        raise LedgerError(f"{path} was written by a later version of copilot_sync: update it, or name another file")


def _refuse(path: str) -> NoReturn:
    raise LedgerError(f"{path} is not a ledger, and is left as it is: name another file")
