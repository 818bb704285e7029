"""Who may use the gateway: programs that have its key, and no page of a browser.

- The key is compared in constant time.
- A browser names the page's origin and the host that it believes to talk to. An ``Origin`` is refused, and so is a
  ``Host`` that is a name somebody else could point at this machine (DNS rebinding): it has to be an address, a name of
  this machine, or one that was allowed.
"""

import contextlib
import hmac
import os
import secrets
import stat
from typing import FrozenSet, Iterable, Mapping, Optional
from urllib.parse import urlsplit

from copilot_sync.openai_api.failures import ApiError
from copilot_sync.safe_files import locked, make_folder, replacing
from copilot_sync.secret import Secret
from copilot_sync.settings import is_address, is_loopback
from copilot_sync.user_folders import state_folder

#: The environment variable with the key. Without it the key is in a file, made with the first start.
KEY_VARIABLE = "COPILOT_SYNC_GATEWAY_KEY"
_KEY_FILE = "gateway-key"
#: Seconds to wait for another process that makes the key at the same time.
_PATIENCE = 5.0


class Guard:
    """Decides whether a request may be answered. Safe for any thread.

    Args:
        key: The key.
        hosts: Names of hosts, without a port, under which the gateway may be asked besides this machine's own.
    """

    def __init__(self, key: "Secret[str]", hosts: Iterable[str] = ()) -> None:
        self._key = key
        self._hosts: FrozenSet[str] = frozenset(name.lower() for name in hosts)
        self._known_host: Optional[str] = None  # that of the last request that was let in, and mostly of the next

    def check(self, environ: Mapping[str, object]) -> None:
        """Raise if a request is not to be answered.

        Raises:
            ApiError: It comes from a page of a browser (403), or its key is missing or wrong (401).
        """
        if environ.get("HTTP_ORIGIN"):
            raise ApiError(403, "pages of browsers may not use this gateway", code="origin_refused")
        host = str(environ.get("HTTP_HOST", ""))
        if host != self._known_host and not self._knows(host):
            raise ApiError(403, "the gateway is not asked under this name of a host", code="host_refused")
        given = str(environ.get("HTTP_AUTHORIZATION", ""))
        scheme, _, key = given.partition(" ")
        is_right = hmac.compare_digest(key.strip().encode("latin-1", "replace"), self._key.reveal().encode())
        if scheme.lower() != "bearer" or not is_right:
            raise ApiError(
                401,
                "the key is missing" if not given else "the key is not the gateway's",
                kind="authentication_error",
                code="invalid_api_key",
                headers=(("WWW-Authenticate", "Bearer"),),
            )
        self._known_host = host

    def _knows(self, host: str) -> bool:
        if not host:  # HTTP/1.0, which no browser speaks
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return is_address(name) or is_loopback(name) or name in self._hosts


def checked_key(key: object) -> "Secret[str]":
    """Check a key that was given.

    Raises:
        TypeError: It is not a string.
        ValueError: It can't be sent in a header field.
    """
    value = Secret.coerce(key).reveal()
    if not isinstance(value, str):
        raise TypeError(f"key must be a string, not {type(value).__name__}")
    if not value or not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError("key must be plain ASCII without blanks")
    return Secret(value)


def key_of_user(environ: Mapping[str, str] = os.environ, folder: Optional[str] = None) -> "Secret[str]":
    """Return the key of the environment, else the one in the user's state folder, which is made if it is missing.

    Raises:
        OSError: The file can't be read or made.
        ValueError: What is there can't be a key.
    """
    given = environ.get(KEY_VARIABLE, "").strip()
    if given:
        return checked_key(given)
    place = state_folder() if folder is None else folder
    make_folder(place)
    path = os.path.join(place, _KEY_FILE)
    with locked(path, _PATIENCE):
        with open(path, encoding="ascii", errors="replace") as file:
            found = file.read(1024).strip()
        if found:
            _keep_private(path)
        else:
            found = f"sk-copilot-sync-{secrets.token_urlsafe(32)}"
            with replacing(path, 0o600) as anew:
                anew.write(f"{found}\n".encode("ascii"))
    return checked_key(found)


def _keep_private(path: str) -> None:
    """Take the file away from everybody but its owner, who may have copied it from somewhere."""
    if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        with contextlib.suppress(OSError):  # somebody else's, or a file system without permissions
            os.chmod(path, 0o600)
