"""The setting ``COPILOT_SYNC``, and the client that it describes: one for each process, made when it is first needed.

Tokens are kept in Django's cache, so that all processes of a site share one. The settings are read anew when
a test overrides them.
"""

from typing import Any, Dict, Optional

from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from copilot_sync.client import Client
from copilot_sync.contrib.lazy_client import LazyClient, option_names
from copilot_sync.contrib.sse import HEARTBEAT, check_heartbeat
from copilot_sync.secret import Secret

#: The name of the setting.
SETTING = "COPILOT_SYNC"
_OTHERS = ("heartbeat",)


def get_client() -> Client:
    """Return this process's client. Safe from any thread, and in processes that were forked from one that had it.

    Raises:
        ImproperlyConfigured: The setting ``COPILOT_SYNC`` can't be used.
    """
    return _client.get()


def heartbeat() -> float:
    """Return the seconds of silence after which a comment goes out.

    Raises:
        ImproperlyConfigured: The setting can't be used.
    """
    try:
        return check_heartbeat(configured().get("heartbeat", HEARTBEAT))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{SETTING}: {error}") from None


def configured() -> Dict[str, Any]:
    """Read the setting: its values by the names of ``Client``'s arguments. Secrets stand in it.

    Raises:
        ImproperlyConfigured: It is no dictionary, or has a name in it that is not known.
    """
    setting = Secret(getattr(settings, SETTING, {}))
    if not isinstance(setting.reveal(), dict):
        raise ImproperlyConfigured(f"{SETTING} must be a dictionary")
    try:
        names = option_names(list(setting.reveal()), _OTHERS, SETTING)
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None
    return {names[name]: value for name, value in setting.reveal().items()}


def make_client() -> Client:
    """Make a client as the setting describes it.

    Raises:
        ImproperlyConfigured: The setting can't be used.
    """
    try:
        return Client(**_options())
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{SETTING}: {error}") from None


def _options() -> Dict[str, Any]:
    cache = _cache(configured().get("token_cache", "default"))
    options = {name: value for name, value in configured().items() if name not in _OTHERS}
    return {**options, "token_cache": cache}


def _cache(value: Any) -> Any:
    return DjangoTokenCache(value) if isinstance(value, str) else value


class DjangoTokenCache:
    """One of Django's caches, as a place for tokens.

    Django has a connection to a cache for each thread, so it is looked up each time.

    Args:
        alias: Its name in ``CACHES``.

    Raises:
        ValueError: There is no such cache.
    """

    def __init__(self, alias: str) -> None:
        if alias not in settings.CACHES:
            raise ValueError(f"there is no cache {alias!r} in CACHES")
        self._alias = alias

    def get(self, key: str) -> Any:
        """Return what was set for a key."""
        return caches[self._alias].get(_PREFIX + key)

    def set(self, key: str, value: str, timeout: int) -> None:
        """Keep a value for so many seconds."""
        caches[self._alias].set(_PREFIX + key, value, timeout)


_PREFIX = "copilot_sync:"
_client = LazyClient(make_client)


def _begin_anew(*, setting: Optional[str] = None, **_: Any) -> None:
    if setting in (SETTING, "CACHES"):
        _client.close()


setting_changed.connect(_begin_anew, dispatch_uid="copilot_sync")
