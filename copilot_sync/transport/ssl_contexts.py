"""Which CAs the connections trust, read once for the whole process.

By itself ``requests`` reads the file of CAs for each new connection, which costs more than everything else that a
call does. ``SSLContextCache`` keeps what was read, and reads it again when the file has changed.

OpenSSL holds locks of its own while it reads, and a child that is forked at that moment inherits them locked (seen
with OpenSSL 3.0 and CPython 3.11). So a fork waits for the end of the reading, and a child reads nothing that its
parent has read.

Threads: locked. To look up what was read is atomic.
"""

import contextlib
import errno
import math
import os
import socket
import ssl
import threading
import time
from typing import Dict, Optional, Tuple

from urllib3.util.ssl_ import create_urllib3_context
from urllib3.util.wait import wait_for_read, wait_for_write

from copilot_sync.os_threads import acquire_within

#: Held while CAs are read, and across a fork. A signal handler may fork in the middle of it, in the same thread.
_reading = threading.RLock()
#: Files and folders of CAs that are remembered. The one that was read first makes room.
_MOST = 16


class SSLContextCache:
    """The TLS settings of connections, by the CAs that they trust. Safe for any number of threads."""

    def __init__(self) -> None:
        self._contexts: Dict[str, Tuple[object, ssl.SSLContext]] = {}

    def context(self, place: str) -> ssl.SSLContext:
        """Return the settings for the CAs in a file or folder.

        Raises:
            OSError: There is no such file, or it holds no certificates (``ssl.SSLError``).
        """
        found = os.stat(place)
        state = found.st_ino, found.st_size, found.st_mtime_ns
        known = self._contexts.get(place)
        if known is None or known[0] != state:
            with _reading:
                known = self._contexts.get(place)
                if known is None or known[0] != state:
                    known = self._contexts[place] = state, _read(place)
                    if len(self._contexts) > _MOST:
                        del self._contexts[next(iter(self._contexts))]
        return known[1]


#: What all connections of this process use.
ssl_contexts = SSLContextCache()


class _Socket(ssl.SSLSocket):
    """A TLS socket during whose handshake a fork waits for the present step, but never for the other side.

    OpenSSL takes locks of the whole process in a handshake, with which a child could be left as with those above.

    CPython drops the socket, open, of a connection that was shut down and reset just before (3.8 to 3.14), so it closes
    itself then.
    """

    _has_begun = False

    def __del__(self) -> None:
        if not self._has_begun:
            with contextlib.suppress(AttributeError, OSError):  # it may not have got as far as to have anything
                self.close()
        getattr(super(), "__del__", bool)()  # which warns of one that is open; PyPy has none

    def do_handshake(self, block: bool = False) -> None:
        self._has_begun = True
        timeout = self.gettimeout()
        end = None if timeout is None else time.monotonic() + timeout
        self.settimeout(0)
        try:
            while True:
                try:
                    with _reading:
                        return super().do_handshake()
                except ssl.SSLWantReadError:
                    wait = wait_for_read
                except ssl.SSLWantWriteError:  # pragma: no cover - what a handshake sends fits into any buffer
                    wait = wait_for_write
                if not wait(self, None if end is None else max(0.0, end - time.monotonic())):
                    raise socket.timeout("the handshake took too long")
        finally:
            with contextlib.suppress(OSError):  # it was closed meanwhile
                self.settimeout(timeout)


class AuthoritiesError(OSError):
    """The file or folder of CAs can't be used; ``filename`` is its path."""


def fault_of(place: str) -> Optional[AuthoritiesError]:
    """Look what is wrong with a file or folder of CAs; ``None`` for nothing."""
    try:
        _read(place)
    except ssl.SSLError:
        return AuthoritiesError(errno.EINVAL, "it holds no certificates", place)
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)  # PyPy's ssl gives no words with it
        words = getattr(error, "strerror", None) or (os.strerror(number) if number else "no such path")
        return AuthoritiesError(number or errno.EINVAL, words, place)
    return None


def _read(place: str) -> ssl.SSLContext:
    with _reading:
        context = create_urllib3_context()
        if ssl.SSLSocket.__module__ == "ssl":  # pragma: no branch - gevent has sockets of its own
            context.sslsocket_class = _Socket
        if os.path.isdir(place):
            context.load_verify_locations(capath=place)
        else:
            context.load_verify_locations(cafile=place)
    return context


def _wait_for_reading() -> None:
    acquire_within(_reading, math.inf)


def _go_on_reading() -> None:
    with contextlib.suppress(RuntimeError):  # a signal handler's exception had ended the wait
        _reading.release()


def _read_for_itself() -> None:
    global _reading
    _reading = threading.RLock()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(before=_wait_for_reading, after_in_parent=_go_on_reading, after_in_child=_read_for_itself)
