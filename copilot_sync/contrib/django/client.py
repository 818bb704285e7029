"""The setting ``COPILOT_SYNC``, and the client that it configures. Each process creates its client when it needs it.

Django's cache keeps the token, so that all processes of a site share one. If the application of the ledger is
installed, calls are noted there. If a test overrides the settings, the next
use creates another client.
"""

from typing import Any, Callable, Dict, Optional, TypeVar

from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from copilot_sync.client import Client
from copilot_sync.contrib.django.ledger import DjangoLedger
from copilot_sync.contrib.django.signals import send_call_event
from copilot_sync.contrib.lazy_client import (
    SITE_OPTIONS,
    LazyClient,
    check_background,
    check_stop_on_leave,
    option_names,
)
from copilot_sync.contrib.sse import HEARTBEAT, check_heartbeat, check_name_thread
from copilot_sync.hooks import hooks_of
from copilot_sync.secret import Secret

T = TypeVar("T")

#: The name of the setting.
SETTING = "COPILOT_SYNC"
_LEDGER = "copilot_sync.contrib.django.ledger"


def get_client() -> Client:
    """Return the client of this process. Safe from any thread, and in forked processes.

    Raises:
        ImproperlyConfigured: The setting ``COPILOT_SYNC`` can't be used.
    """
    return _client.get()


def heartbeat() -> float:
    """Return the seconds of silence after which a comment goes out.

    Raises:
        ImproperlyConfigured: The setting can't be used.
    """
    return _checked("heartbeat", HEARTBEAT, check_heartbeat)


def name_threads() -> bool:
    """Return whether new conversations get a name from the service.

    Raises:
        ImproperlyConfigured: The setting can't be used.
    """
    return _checked("name_threads", True, check_name_thread)


def chat_background() -> float:
    """Return the seconds for which an answer is read on after its reader has left the chat page.

    Raises:
        ImproperlyConfigured: The setting can't be used.
    """
    return _checked("chat_background", 0.0, check_background)


def chat_stop_on_leave() -> bool:
    """Return whether an answer ends when its chat page is left.

    Raises:
        ImproperlyConfigured: The setting can't be used.
    """
    return _checked("chat_stop_on_leave", False, check_stop_on_leave)


def chat_cache() -> Any:
    """Return the cache that all processes share for the answers of the chat page that are under way.

    Raises:
        ImproperlyConfigured: The setting can't be used.
    """
    return _checked("chat_cache", "default", _cache)


def _checked(name: str, default: Any, check: Callable[[Any], T]) -> T:
    """Return a value of the setting as its check returns it."""
    try:
        return check(client_settings().get(name, default))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{SETTING}: {error}") from None


def client_settings() -> Dict[str, Any]:
    """Return the setting by the names of ``Client``'s arguments. It contains secrets.

    Raises:
        ImproperlyConfigured: It is not a dictionary, or contains an unknown name.
    """
    setting = Secret(getattr(settings, SETTING, {}))
    if not isinstance(setting.reveal(), dict):
        raise ImproperlyConfigured(f"{SETTING} must be a dictionary")
    try:
        names = option_names(list(setting.reveal()), SITE_OPTIONS, SETTING)
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None
    return {names[name]: value for name, value in setting.reveal().items()}


def make_client() -> Client:
    """Create a client from the setting.

    Raises:
        ImproperlyConfigured: The setting can't be used.
    """
    try:
        return Client(**_options())
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{SETTING}: {error}") from None


def _options() -> Dict[str, Any]:
    cache = _cache(client_settings().get("token_cache", "default"))
    options = {name: value for name, value in client_settings().items() if name not in SITE_OPTIONS}
    if "ledger" not in options and apps.is_installed(_LEDGER):
        options["ledger"] = DjangoLedger()
    hooks = (*hooks_of(options.get("hooks")), send_call_event)
    return {**options, "token_cache": cache, "hooks": hooks}


def _cache(value: Any) -> Any:
    return DjangoCache(value) if isinstance(value, str) else value


class DjangoCache:
    """Keeps tokens and answers in one of Django's caches.

    Django has one connection to a cache per thread, so each call looks the cache up.

    Args:
        alias: The name of the cache in ``CACHES``.

    Raises:
        ValueError: There is no such cache.
    """

    def __init__(self, alias: str) -> None:
        if alias not in settings.CACHES:
            raise ValueError(f"there is no cache {alias!r} in CACHES")
        self._alias = alias

    def get(self, key: str) -> Any:
        """Return the value of a key."""
        return caches[self._alias].get(_PREFIX + key)

    def set(self, key: str, value: str, timeout: int) -> None:
        """Store a value for ``timeout`` seconds."""
        caches[self._alias].set(_PREFIX + key, value, timeout)

    def add(self, key: str, value: str, timeout: int) -> bool:
        """Store a value for ``timeout`` seconds if the key has none, and return whether it had none."""
        return bool(caches[self._alias].add(_PREFIX + key, value, timeout))


_PREFIX = "copilot_sync:"
_client = LazyClient(make_client)


def _close_client(*, setting: Optional[str] = None, **_: Any) -> None:
    if setting in (SETTING, "CACHES"):
        _client.close()


setting_changed.connect(_close_client, dispatch_uid="copilot_sync")
