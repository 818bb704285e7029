"""Whether the client of a request is still there, as far as its server can tell without writing.

- waitress has a function for it, if it looks ahead (``channel_request_lookahead``).
- gunicorn hands out the connection: it has ended if a read sees its end.

A server that says nothing notices only by writing.
"""

import _socket
import contextlib
import os
from typing import Any, Callable, Mapping, Optional


def watcher_of(environ: Mapping[str, Any]) -> "Optional[Callable[[], bool]]":
    """Return what tells whether the client has left; ``None`` if the server can't tell."""
    function = environ.get("waitress.client_disconnected")
    if function is not None:
        return function  # type: ignore[no-any-return]
    connection = environ.get("gunicorn.socket")
    if hasattr(connection, "fileno") and not hasattr(connection, "selected_alpn_protocol"):  # which TLS has
        return lambda: _has_ended(connection)
    return None


def _has_ended(connection: Any) -> bool:
    """Whether the peer has closed. What it has sent for later, if anything, stays where it is."""
    with contextlib.suppress(OSError):
        # A socket of C's, which has neither the time-out of the server's own nor, with gevent, a hub that waits.
        copy = _socket.socket(fileno=os.dup(connection.fileno()))
        try:
            return copy.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        finally:
            copy.close()
    return True
