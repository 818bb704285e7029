"""The client of a web application, configured by its framework.

``LazyClient`` creates the client when it is first used, because configurations are read late and workers are forked
early. ``option_names`` checks the names in a configuration. This module knows no framework.

Threads: the client is locked.
"""

import hashlib
import inspect
import threading
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Tuple

from copilot_sync.client import Client
from copilot_sync.transport.fork import reset_after_fork

#: The names of the arguments of ``Client``.
CLIENT_OPTIONS = tuple(inspect.signature(Client).parameters)
#: The names of what a site sets beside them.
SITE_OPTIONS = ("chat_background", "chat_cache", "chat_stop_on_leave", "heartbeat", "name_threads")
#: Seconds for which an answer may be read on after its reader has left the chat page.
LONGEST_BACKGROUND = 3600.0


def option_names(given: Iterable[str], others: Tuple[str, ...], place: str) -> Dict[str, str]:
    """Map the upper-case names in a configuration to arguments of ``Client``.

    This function takes no values: some are secrets, and an error report may include the variables of its frame.

    Args:
        given: The names in the configuration.
        others: Further names that are allowed, in lower case.
        place: What to call the configuration in an error message.

    Returns:
        The argument for each name.

    Raises:
        ValueError: A name is unknown. The message lists the known ones.
    """
    known = {name.upper(): name for name in (*CLIENT_OPTIONS, *others)}
    names = list(given)
    for name in names:
        if name not in known:
            raise ValueError(f"{place} has no {name!r}; there are {', '.join(sorted(known))}")
    return {name: known[name] for name in names}


def check_background(seconds: float) -> float:
    """Return for how many seconds an answer is read on after its reader has left the chat page, if that is valid.

    Raises:
        TypeError: It is not a number.
        ValueError: It is below zero or above an hour.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"chat_background must be a number of seconds, not {type(seconds).__name__}")
    if not 0 <= seconds <= LONGEST_BACKGROUND:
        raise ValueError(f"chat_background must be between 0 and {LONGEST_BACKGROUND:.0f} seconds, not {seconds}")
    return float(seconds)


def check_stop_on_leave(value: bool) -> bool:
    """Return whether an answer ends when its chat page is left, if the value says so.

    Raises:
        TypeError: It is neither ``True`` nor ``False``.
    """
    if not isinstance(value, bool):
        raise TypeError(f"chat_stop_on_leave must be True or False, not {type(value).__name__}")
    return value


def limits_users(settings: Mapping[str, Any]) -> bool:
    """Whether the arguments of a client have a budget for each user. If not, nobody looks who asks."""
    return bool(getattr(settings.get("budget"), "per_user", None))


def user_of_session(key: Optional[str]) -> Optional[str]:
    """Name the user of a session by its key, which is a secret and not shown; ``None`` if there is none."""
    return f"session-{hashlib.sha256(key.encode()).hexdigest()[:32]}" if key else None


class LazyClient:
    """A client that is created when it is first used, and then kept. Safe from any thread and in forked children.

    Args:
        make: Creates the client. If it raises, so does ``get``, and the next ``get`` tries again.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._client: Optional[Client] = None
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Replace the lock: a thread that does not exist in the child may hold the inherited one."""
        self._lock = threading.RLock()

    def get(self) -> Client:
        """Return the client."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def close(self) -> None:
        """Close the client and forget it. The next ``get`` creates another one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
