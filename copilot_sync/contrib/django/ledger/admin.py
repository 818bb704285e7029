"""The page of the calls in the admin: to be read, filtered and added up, not to be changed."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest

from copilot_sync.contrib.django.ledger.models import Call


class CallChangeList(ChangeList):
    """The list of calls, whose title is the total of those that are chosen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        total = self.queryset.total()
        self.title = (
            f"{total.calls:,} calls, {total.answered:,} answered, {total.failed:,} failed: "
            f"{total.input_tokens:,} tokens in, {total.output_tokens:,} out, {total.seconds:,.0f} seconds"
        )


@admin.register(Call)
class CallAdmin(admin.ModelAdmin):
    """The calls of the site."""

    date_hierarchy = "began_at"
    list_display = (
        "began_at", "model", "answered_model", "label", "user", "input_tokens", "output_tokens", "seconds", "attempts",
        "outcome",
    )  # fmt: skip
    list_filter = ("outcome", "answered_model", "label", "user")
    search_fields = ("label", "user", "conversation_id")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the list that adds up."""
        return CallChangeList

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Calls are noted by the client alone."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What was noted stays as it is."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The ledger deletes what is old."""
        return False
