"""The one client of a process, as the configuration of a web framework describes it.

``OneClient`` makes it when it is first asked for: configurations are read late, and workers are forked early.
``named`` checks the names in a configuration. Nothing here knows a framework.
"""

import inspect
import threading
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from copilot_sync.client import Client
from copilot_sync.transport.fork import renew_in_child

#: What a client can be made with, by name.
CLIENT_OPTIONS = tuple(inspect.signature(Client).parameters)


def named(given: Mapping[str, Any], others: Tuple[str, ...] = (), place: str = "configuration") -> Dict[str, Any]:
    """Turn a configuration's upper-case names into those of ``Client``'s arguments.

    Args:
        given: What is configured, by upper-case name.
        others: Further names that there are.
        place: What an error calls the configuration.

    Raises:
        ValueError: There is no such name. The message lists those that there are.
    """
    known = {name.upper(): name for name in (*CLIENT_OPTIONS, *others)}
    for name in given:
        if name not in known:
            raise ValueError(f"{place} has no {name!r}; there are {', '.join(sorted(known))}")
    return {known[name]: value for name, value in given.items()}


class OneClient:
    """A client that is made when it is first needed, and then kept. Safe for any thread and for forked children.

    Args:
        make: Makes it. What it raises comes out of ``get``, which then tries again the next time.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._client: Optional[Client] = None
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Begin with a lock of our own: an inherited one may be held by a thread that is not here."""
        self._lock = threading.Lock()

    def get(self) -> Client:
        """Give the client."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def close(self) -> None:
        """Close the client and forget it: the next one is made anew."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
