"""What ``manage.py check`` says of the setting ``COPILOT_SYNC``, and of the credentials.

A setting that can't be used is an error. Missing credentials are a warning, because a site may be migrated
or tested without them. Nothing is asked of the network.
"""

from typing import Any, List

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from copilot_sync.auth.credentials import Credentials
from copilot_sync.contrib.django.client import SETTING, configured, heartbeat, make_client
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.settings import Environment, choose_urls


def check_settings(**_: Any) -> List[CheckMessage]:
    """Return what is wrong: nothing, one error, or one warning."""
    try:
        heartbeat()
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
        words = str(error)
        return [Error(words if words.startswith(SETTING) else f"{SETTING}: {words}", id="copilot_sync.E001")]
    return []


def _look_for_credentials() -> None:
    environment = Environment.read()
    urls = choose_urls(configured().get("github_url"), configured().get("api_url"), environment)
    Credentials(configured().get("api_key"), configured().get("cookies"), environment).look(urls)
