"""The rows of the ledger: ``Call`` has the fields of a ``LedgerEntry``."""

from datetime import timezone
from typing import Any, Dict, List

from django.db import models
from django.db.models import Case, Count, F, Q, Sum, Value, When
from django.db.models.functions import Coalesce, TruncDate

from copilot_sync.ledger.entries import ANSWERED, CLOSED, INCOMPLETE, LedgerUsage

_WHOLE_OR_NOT = (ANSWERED, INCOMPLETE)
_NAMES: Dict[str, Any] = {
    "day": TruncDate("began_at", tzinfo=timezone.utc),
    "model": Case(When(answered_model="", then=F("model")), default=F("answered_model")),
    "label": F("label"),
    "user": F("user"),
}


def _sum(field: str) -> Any:
    return Coalesce(Sum(field), Value(0), output_field=models.BigIntegerField())


_TOTALS: Dict[str, Any] = {
    "calls": Count("pk"),
    "answered": Count("pk", filter=Q(outcome__in=_WHOLE_OR_NOT)),
    "failed": Count("pk", filter=~Q(outcome__in=(*_WHOLE_OR_NOT, CLOSED))),
    "sum_of_input_tokens": _sum("input_tokens"),
    "sum_of_output_tokens": _sum("output_tokens"),
    "sum_of_seconds": Coalesce(Sum("seconds"), Value(0.0)),
}


class CallQuerySet(models.QuerySet):
    """Calls that can be added up: ``Call.objects.filter(user="ann").usage("model")``."""

    def total(self) -> LedgerUsage:
        """Add all of them up."""
        return LedgerUsage("total", **_fields(self.order_by().aggregate(**_TOTALS)))

    def usage(self, by: str = "day") -> List[LedgerUsage]:
        """Add them up: by ``day`` (UTC) in the order of the days, else those with the most calls first.

        Args:
            by: ``day``, ``model`` (that answered, else the one that was asked for), ``label`` or ``user``.

        Raises:
            ValueError: ``by`` is none of these.
        """
        if by not in _NAMES:
            raise ValueError(f"by must be one of {', '.join(_NAMES)}, not {by!r}")
        rows = self.annotate(name=_NAMES[by]).order_by().values("name").annotate(**_TOTALS)
        ordered = rows.order_by("name") if by == "day" else rows.order_by("-calls", "name")
        return [LedgerUsage(str(row.pop("name")), **_fields(row)) for row in ordered]


def _fields(row: Dict[str, Any]) -> Dict[str, Any]:
    # Old Djangos return None for the sums of ``none()``, whatever ``Coalesce`` says.
    return {name.replace("sum_of_", ""): value or 0 for name, value in row.items()}


class Call(models.Model):
    """One call, as ``LedgerEntry`` explains it."""

    began_at = models.DateTimeField(db_index=True)
    model = models.CharField(max_length=200)
    answered_model = models.CharField(max_length=200, blank=True)
    label = models.CharField(max_length=200, blank=True)
    user = models.CharField(max_length=200, blank=True)
    input_tokens = models.BigIntegerField(null=True, blank=True)
    output_tokens = models.BigIntegerField(null=True, blank=True)
    seconds = models.FloatField()
    attempts = models.IntegerField()
    outcome = models.CharField(max_length=200)
    conversation_id = models.CharField(max_length=200, blank=True)

    objects = CallQuerySet.as_manager()

    class Meta:
        """Calls are noted by the client alone."""

        ordering = ("-began_at", "-pk")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.began_at:%Y-%m-%d %H:%M} {self.model}: {self.outcome}"
