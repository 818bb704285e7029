"""The application for ``INSTALLED_APPS``, with system checks and a management command."""

from django.apps import AppConfig
from django.core import checks


class CopilotSyncConfig(AppConfig):
    """The application ``copilot_sync``, without models."""

    name = "copilot_sync.contrib.django"
    label = "copilot_sync"
    verbose_name = "GitHub Copilot Chat"

    def ready(self) -> None:
        """Register the checks."""
        from copilot_sync.contrib.django.checks import check_settings

        checks.register(check_settings)
