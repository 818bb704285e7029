"""The errors that OpenSSL keeps for a thread, and that Python takes for those of another connection.

OpenSSL keeps a queue of errors for each thread, and wants it empty before a read or a write (its manual, under
``SSL_get_error``). Python does not empty it (``python/cpython`` 148594, open in November 2026). With Python 3.14.10 and
3.15.2, and OpenSSL 3.5 and 3.6, a connection that breaks leaves its error there. From then on each TLS connection of
the thread that has to wait for bytes ends with that error instead, until a handshake empties the queue.

So a read that failed is tried once more with an empty queue, and a connection that is closed leaves nothing behind for
connections that are not ours.

Threads: the queue is the thread's own.
"""

import contextlib
import socket
import ssl
from typing import Any

#: What a read raises if it has to wait.
WAITING = (socket.timeout, BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def forget_errors() -> None:
    """Empty this thread's queue."""
    # OpenSSL does so when a handshake begins. This one ends there: nothing has come.
    with contextlib.suppress(ssl.SSLWantReadError):
        _context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True).do_handshake()


def receive(sock: Any, size: int) -> bytes:
    """Receive from a connection, as its ``recv`` does. An error of another connection is none of this one.

    Args:
        sock: The connection.
        size: The most that is received, in bytes.

    Raises:
        OSError: The connection broke, or nothing came in time.
    """
    try:
        return sock.recv(size) or b""  # urllib3's TLS inside of TLS says 0 at its end
    except WAITING:
        raise
    except OSError:
        forget_errors()
        data = b""
        try:
            data = sock.recv(size) or b""
        except WAITING:
            raise
        except OSError:  # the first one says more: after it, the connection only says that it ended
            pass
        if not data:
            raise
        return data
