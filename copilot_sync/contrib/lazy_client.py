"""The one client of a process, as the configuration of a web framework describes it.

``LazyClient`` makes it when it is first asked for: configurations are read late, and workers are forked early.
``option_names`` checks the names in a configuration. Nothing here knows a framework.
"""

import inspect
import threading
from typing import Callable, Dict, Iterable, Optional, Tuple

from copilot_sync.client import Client
from copilot_sync.transport.fork import reset_after_fork

#: What a client can be made with, by name.
CLIENT_OPTIONS = tuple(inspect.signature(Client).parameters)


def option_names(given: Iterable[str], others: Tuple[str, ...], place: str) -> Dict[str, str]:
    """Find the arguments of ``Client`` that upper-case names stand for.

    It is given no values: among them are secrets, and an error may be reported with the variables of this frame.

    Args:
        given: The names in a configuration.
        others: What there is to configure besides, in lower case.
        place: What an error calls the configuration.

    Returns:
        The argument by the name.

    Raises:
        ValueError: There is no such name. The message lists those that there are.
    """
    known = {name.upper(): name for name in (*CLIENT_OPTIONS, *others)}
    names = list(given)
    for name in names:
        if name not in known:
            raise ValueError(f"{place} has no {name!r}; there are {', '.join(sorted(known))}")
    return {name: known[name] for name in names}


class LazyClient:
    """A client that is made when it is first needed, and then kept. Safe for any thread and for forked children.

    Args:
        make: Makes it. What it raises comes out of ``get``, which then tries again the next time.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._client: Optional[Client] = None
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Begin with a lock of our own: an inherited one may be held by a thread that is not here."""
        self._lock = threading.RLock()

    def get(self) -> Client:
        """Return the client."""
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
