"""A connection that is made while the call waits for something else.

A cold call speaks with two hosts, one after the other. ``Preconnection`` makes the connection to the second one in a
thread, without sending anything over it, while the first is asked for a token: two round trips less until the answer
begins.
Whoever needs the connection then waits for it, and meets the failure that making it met, as if it had been made
there and then.

Threads: confined to the thread that connects until that ends, and then to the one that takes it out of its pool.
"""

import ssl
import threading
from typing import Any, List, Optional

from copilot_sync.os_threads import start_thread
from copilot_sync.settings import Timeout
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.openssl_errors import receive

#: Seconds between two looks at whether a call that waits for the connection has ended.
_WAIT_STEP = 0.05
#: Seconds that dropping waits for the thread. It ends at once but for a DNS look-up, which can't be interrupted.
_PATIENCE = 0.15


class Preconnection:
    """A connection on its way. For any thread; one of them may take it.

    Args:
        connection: A connection of ``urllib3`` that obeys the current call and is not connected yet.
        call: The call that it is made for. Its limits are those of connecting. ``abandon`` stops it.

    Raises:
        RuntimeError: There can't be another thread.
    """

    def __init__(self, connection: Any, call: CallContext) -> None:
        self._connection = connection
        self._made_for = call
        self._call = CallContext(Timeout(connect=call.timeout.connect, read=call.timeout.read))
        # One at most. It is raised out of this list, so that no frame in its traceback holds it; if nobody wants it
        # it is cleared, because its traceback holds this object.
        self._failures: List[BaseException] = []
        self._thread = threading.Thread(target=self._connect, name="copilot-sync-connect", daemon=True)
        start_thread(self._thread)

    def _connect(self) -> None:
        try:
            self._call.begin()
            with self._call.current():
                self._connection.connect()
            self._call.detach_socket()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who takes the connection gets it
            self._failures.append(error)
            self._connection.close()

    def claim(self, call: CallContext) -> Optional[Any]:
        """Wait for the connection, within the limits of a call.

        Returns:
            ``None`` if the call has to make its own: the server has closed this one already, or it could not be
            made for another call, which may have been long ago or under other limits.

        Raises:
            OSError: The call ended meanwhile.
            socket.timeout: The connection was not made within the call's limits.
            Exception: What connecting failed with.
        """
        try:
            while self._thread.is_alive():
                if call.cancelled:
                    raise OSError("the call ended while its connection was made")
                self._thread.join(min(_WAIT_STEP, call.read_seconds()))
            if self._failures:
                if call is self._made_for:
                    raise self._failures.pop()
                self._failures.clear()
                return None
            if _is_open(self._connection.sock):
                return self._connection
        except BaseException:  # Ctrl-C, say: whoever keeps it keeps what its frames hold
            self.abandon()
            raise
        self._connection.close()
        return None

    def abandon(self) -> None:
        """End connecting, or close the connection."""
        self._call.cancel()
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():  # else it ends by itself, with a connection that was never made
            self._connection.close()
            self._failures.clear()


def _is_open(sock: Any) -> bool:
    """Whether a connection over which nothing was sent yet is open; what TLS had to add to its handshake is read."""
    sock.settimeout(0)
    try:
        receive(sock, 1)
    except OSError as error:
        return isinstance(error, ssl.SSLWantReadError)
    return False
