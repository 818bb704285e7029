"""System checks of the setting ``COPILOT_SYNC`` and of the credentials, for ``manage.py check``.

A setting that can't be used is an error. Missing credentials are a warning, because a site may be migrated or tested
without them. The checks don't use the network.
"""

from typing import Any, List

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from copilot_sync.auth.credentials import Credentials
from copilot_sync.contrib.django.client import (
    SETTING,
    chat_background,
    chat_cache,
    chat_stop_on_leave,
    client_settings,
    heartbeat,
    make_client,
    name_threads,
)
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.settings import Environment, choose_urls


def check_settings(**_: Any) -> List[CheckMessage]:
    """Return one error, one warning, or nothing."""
    try:
        heartbeat()
        name_threads()
        chat_background()
        chat_cache()
        chat_stop_on_leave()
        make_client().close()
        _look_for_credentials()
    except MissingCredentialsError as error:
        return [
            Warning(
                "There are no credentials for GitHub Copilot.",
                hint=f"Set COPILOT_SYNC['COOKIES'] or COPILOT_SYNC['API_KEY']. {error}",
                id="copilot_sync.W001",
            )
        ]
    except (ImproperlyConfigured, TypeError, ValueError) as error:
        message = str(error)
        return [Error(message if message.startswith(SETTING) else f"{SETTING}: {message}", id="copilot_sync.E001")]
    return []


def _look_for_credentials() -> None:
    environment = Environment.read()
    urls = choose_urls(client_settings().get("github_url"), client_settings().get("api_url"), environment)
    Credentials(client_settings().get("api_key"), client_settings().get("cookies"), environment).look(urls)
