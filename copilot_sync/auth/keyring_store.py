"""Logins in the system's keyring, by the library ``keyring`` (extra ``keyring``).

It is imported when a login is stored there or read from there, and never before. Whatever goes wrong with it becomes
a ``KeyringStoreError`` with what to type: a keyring is one of several services, which may be missing or locked.
"""

import contextlib
import errno
import json
from typing import Any, Callable, Dict, Optional

from copilot_sync.profiles import login_command
from copilot_sync.secret import MaskedText, Secret

_SERVICE = "copilot-sync"


class KeyringStoreError(OSError):
    """The keyring is missing or locked, or it failed. ``strerror`` says what to type."""


def keyring_name(name: str) -> str:
    """Return what the keyring of this system is called; errors are for a profile.

    Raises:
        KeyringStoreError: There is none.
    """
    backend = _with_keyring(name, lambda keyring: keyring.get_keyring())
    return str(getattr(backend, "name", type(backend).__name__))


def read_secret(name: str) -> Optional[Secret[Dict[str, Any]]]:
    """Return what the keyring has for a profile; ``None`` if that is nothing, or damaged.

    Raises:
        KeyringStoreError: The keyring can't be read.
    """
    found = Secret(_with_keyring(name, lambda keyring: keyring.get_password(_SERVICE, name)))
    with contextlib.suppress(ValueError, RecursionError):
        found = Secret(json.loads(found.reveal() or ""))
    return found if isinstance(found.reveal(), dict) else None


def write_secret(name: str, secret: Secret[Dict[str, Any]]) -> None:
    """Store the login of a profile.

    Raises:
        KeyringStoreError: The keyring did not keep it.
    """
    text = MaskedText(json.dumps(secret.reveal()))
    _with_keyring(name, lambda keyring: keyring.set_password(_SERVICE, name, text))
    if read_secret(name) != secret:  # as one that is switched off does
        raise KeyringStoreError(errno.EIO, f"{keyring_name(name)} did not keep the login; {_instead(name)}")


def remove_secret(name: str) -> None:
    """Remove the login of a profile, if the keyring has it.

    Raises:
        KeyringStoreError: The keyring can't be changed.
    """

    def remove(keyring: Any) -> None:
        if keyring.get_password(_SERVICE, name) is not None:
            keyring.delete_password(_SERVICE, name)

    _with_keyring(name, remove)


def _instead(name: str) -> str:
    return f"to keep the login in a file, type: {login_command(name, '--no-keyring')}"


def _with_keyring(name: str, use: Callable[[Any], Any]) -> Any:
    try:
        import keyring
        from keyring.errors import KeyringLocked, NoKeyringError
    except ImportError:
        problem = 'the system\'s keyring needs an extra: pip install "copilot-sync[keyring]"'
    else:
        try:
            return use(keyring)
        except NoKeyringError:
            problem = f"this system has no keyring, as a server without a desktop has none; {_instead(name)}"
        except KeyringLocked:
            problem = f"the keyring is locked: unlock it; {_instead(name)}"
        except Exception as error:  # noqa: BLE001 - each system's service has errors of its own, which may quote a secret
            problem = f"the keyring failed ({type(error).__name__}): see that it runs; {_instead(name)}"
    raise KeyringStoreError(errno.ENODEV, problem)
