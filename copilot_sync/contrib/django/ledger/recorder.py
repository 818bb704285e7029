"""``DjangoLedger``: the client's calls, written to the site's database.

They are written by a short-lived thread with a connection of its own. So neither a view nor an event loop waits, and a
transaction that is rolled back takes no call with it.
"""

import time
from datetime import datetime, timedelta
from datetime import timezone as zones
from typing import Any, Callable, Optional, Sequence

from django.conf import settings
from django.db import connections, router
from django.db.models import Min
from django.utils import timezone

from copilot_sync.ledger.entries import LedgerEntry
from copilot_sync.ledger.recorder import Recorder


class DjangoLedger(Recorder):
    """The ledger in the site's database: ``Client(ledger=DjangoLedger())``. Safe for any number of threads.

    The site's client has one if ``copilot_sync.contrib.django.ledger`` is in ``INSTALLED_APPS``. A database that can't
    be written is logged once, and calls go on without it.

    Args:
        using: The database, by its name in ``DATABASES``. Default: the routers choose.
        keep_days: Calls that are older are deleted, once a day at most. Default 400; ``None`` keeps all.
        now: The wall clock, in seconds since 1970.
    """

    def __init__(
        self,
        *,
        using: Optional[str] = None,
        keep_days: Optional[float] = 400,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(now=now)
        self._using = using
        self._keep_days = keep_days

    def write(self, entries: Sequence[LedgerEntry]) -> None:
        """Write calls down, and delete those that are too old.

        Raises:
            Exception: That fails.
        """
        from copilot_sync.contrib.django.ledger.models import Call  # when the applications are loaded

        alias = self._using or router.db_for_write(Call)
        was_closed = connections[alias].connection is None
        try:
            calls = Call.objects.using(alias)
            calls.bulk_create([Call(**{**vars(entry), "began_at": _stored(entry.began_at)}) for entry in entries])
            self._prune(calls)
        finally:
            if was_closed:  # else it is that of a thread that goes on
                connections[alias].close()

    def _prune(self, calls: Any) -> None:
        if self._keep_days is None:
            return
        limit = datetime.fromtimestamp(self._now(), zones.utc) - timedelta(self._keep_days)
        if calls.aggregate(oldest=Min("began_at"))["oldest"] < _stored(limit - timedelta(1)):
            calls.filter(began_at__lt=_stored(limit)).delete()

    def __reduce__(self) -> Any:
        return _unpickled, (type(self), self._using, self._keep_days, self._now)


def _unpickled(kind: Any, using: Optional[str], keep_days: Optional[float], now: Callable[[], float]) -> Any:
    return kind(using=using, keep_days=keep_days, now=now)


def _stored(moment: datetime) -> datetime:
    """Return a moment as the database takes it."""
    if settings.USE_TZ:
        return moment
    naive: datetime = timezone.make_naive(moment, timezone.get_default_timezone())
    return naive
