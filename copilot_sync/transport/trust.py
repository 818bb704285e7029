"""Which CAs the connections trust, read once.

By itself ``requests`` reads the file of CAs for each new connection, which costs more than everything else that a
call does. ``Trust`` keeps what was read, and reads it again when the file has changed.
"""

import errno
import os
import ssl
import threading
from typing import Dict, Optional, Tuple

from urllib3.util.ssl_ import create_urllib3_context


class Trust:
    """The TLS settings of connections, by the CAs that they trust. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: Dict[str, Tuple[object, ssl.SSLContext]] = {}

    def context(self, place: str) -> ssl.SSLContext:
        """Give the settings for the CAs in a file or folder.

        Raises:
            OSError: There is no such file, or it holds no certificates (``ssl.SSLError``).
        """
        found = os.stat(place)
        state = found.st_ino, found.st_size, found.st_mtime_ns
        with self._lock:
            known = self._contexts.get(place)
            if known is None or known[0] != state:
                known = self._contexts[place] = state, _read(place)
            return known[1]


class AuthoritiesError(OSError):
    """The file or folder of CAs can't be used; ``filename`` is its path."""


def fault_of(place: str) -> Optional[AuthoritiesError]:
    """Look what is wrong with a file or folder of CAs; ``None`` for nothing."""
    try:
        _read(place)
    except ssl.SSLError:
        return AuthoritiesError(errno.EINVAL, "it holds no certificates", place)
    except (OSError, ValueError) as error:
        return AuthoritiesError(
            getattr(error, "errno", None) or errno.EINVAL, getattr(error, "strerror", None) or "no such path", place
        )
    return None


def _read(place: str) -> ssl.SSLContext:
    context = create_urllib3_context()
    if os.path.isdir(place):
        context.load_verify_locations(capath=place)
    else:
        context.load_verify_locations(cafile=place)
    return context
