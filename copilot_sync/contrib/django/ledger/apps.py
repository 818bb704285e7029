"""The application for ``INSTALLED_APPS``."""

from django.apps import AppConfig


class LedgerConfig(AppConfig):
    """The application ``copilot_sync_ledger``, with one model."""

    name = "copilot_sync.contrib.django.ledger"
    label = "copilot_sync_ledger"
    verbose_name = "GitHub Copilot Chat"
    default_auto_field = "django.db.models.BigAutoField"
