"""Secrets in the system's keyring, by the library ``keyring`` (extra ``keyring``).

It is imported when a secret is stored there or read from there, and never before. Whatever goes wrong with it becomes
a ``KeyringStoreError`` with what to type: a keyring is one of several services, which may be missing or locked.
"""

import errno
import json
from typing import Any, Callable, Optional

from copilot_sync.secret import MaskedText, Secret

_SERVICE = "copilot-sync"
_INSTEAD = "to keep the login in a file, type: copilot-sync login --no-keyring"


class KeyringStoreError(OSError):
    """The keyring is missing or locked, or it failed. ``strerror`` says what to type."""


def keyring_name() -> str:
    """Return what the keyring of this system is called.

    Raises:
        KeyringStoreError: There is none.
    """
    backend = _with_keyring(lambda keyring: keyring.get_keyring())
    return str(getattr(backend, "name", type(backend).__name__))


def read_secret(name: str) -> Optional[Secret[Any]]:
    """Return the secret of a profile; ``None`` if the keyring has none.

    Raises:
        KeyringStoreError: The keyring can't be read, or what it has is damaged.
    """
    found = Secret(_with_keyring(lambda keyring: keyring.get_password(_SERVICE, name)))
    if found.reveal() is None:
        return None
    try:
        return Secret(json.loads(found.reveal()))
    except ValueError:
        pass
    raise KeyringStoreError(errno.EINVAL, "what the keyring has for it is damaged; store it again: copilot-sync login")


def write_secret(name: str, secret: Secret[Any]) -> None:
    """Store the secret of a profile.

    Raises:
        KeyringStoreError: The keyring did not keep it.
    """
    text = MaskedText(json.dumps(secret.reveal()))
    _with_keyring(lambda keyring: keyring.set_password(_SERVICE, name, text))
    if read_secret(name) != secret:  # as one that is switched off does
        raise KeyringStoreError(errno.EIO, f"{keyring_name()} did not keep the login; {_INSTEAD}")


def remove_secret(name: str) -> None:
    """Remove the secret of a profile, if the keyring has one.

    Raises:
        KeyringStoreError: The keyring can't be changed.
    """

    def remove(keyring: Any) -> None:
        if keyring.get_password(_SERVICE, name) is not None:
            keyring.delete_password(_SERVICE, name)

    _with_keyring(remove)


def _with_keyring(use: Callable[[Any], Any]) -> Any:
    try:
        import keyring
        from keyring.errors import KeyringLocked, NoKeyringError
    except ImportError:
        problem = 'the system\'s keyring needs an extra: pip install "copilot-sync[keyring]"'
    else:
        try:
            return use(keyring)
        except NoKeyringError:
            problem = f"this system has no keyring, as a server without a desktop has none; {_INSTEAD}"
        except KeyringLocked:
            problem = f"the keyring is locked: unlock it; {_INSTEAD}"
        except Exception as error:  # noqa: BLE001 - each system's service has errors of its own, which may quote a secret
            problem = f"the keyring failed ({type(error).__name__}): see that it runs; {_INSTEAD}"
    raise KeyringStoreError(errno.ENODEV, problem)
