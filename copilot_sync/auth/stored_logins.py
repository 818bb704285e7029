"""The logins that ``copilot-sync login`` stores: one file for each profile, in the user's folder for configuration.

The command line uses them. The library reads one only if a program says so, by ``from_profile``: a server must never
pick up the login of the person who started it.

A file has the mode 0600 in a folder of the mode 0700, and is replaced as a whole. It has a mark by which it is known.
Anything else in its place is neither read nor written nor removed: a link, a device, a file of another user's, a file
without the mark. An empty file is what a login leaves that was killed, and counts as none.

A login may be in the system's keyring instead; the file then says only so. ``keyring_store`` has it.

A login goes with the host that its cookies belong to, and is never sent to another one: both are in the same place, and
are written in one step. No error and no ``repr`` shows any of it.
"""

import contextlib
import errno
import json
import os
import stat
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Type, TypeVar

from copilot_sync.auth.credentials import Credentials
from copilot_sync.auth.keyring_store import KeyringStoreError, read_secret, remove_secret, write_secret
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.pacing.rate_limit import RateLimit
from copilot_sync.profiles import DEFAULT_PROFILE, check_profile, login_command
from copilot_sync.safe_files import AT_ONCE, PATIENCE, locked, remove_leftovers, rewriting
from copilot_sync.secret import Secret
from copilot_sync.settings import Environment
from copilot_sync.user_config import NUMBERS, choose_settings, load_config
from copilot_sync.user_folders import config_folder

T = TypeVar("T", bound="MadeFromProfile")

#: Of github.com's cookies, those that say who it is. Nothing else is stored.
SESSION_COOKIES = ("user_session", "__Host-user_session_same_site", "logged_in", "dotcom_user")

#: What a file of ours begins with.
_MARK = {"copilot_sync": "login"}
#: Says in such a file that the login is in the keyring.
_IN_KEYRING = "keyring"
#: Bytes of a file that are read; a larger one is none of ours.
_LARGEST_FILE = 64 * 1024
#: Arguments that would send a login to a host that it does not belong to, or mix it with another one.
_FIXED = ("api_key", "cookies", "github_url")


@dataclass(frozen=True)
class StoredLogin:
    """What a profile holds: cookies or a token, and the hosts that they are for.

    Args:
        secret: Cookies by name, or a token as ``Client`` takes it.
        github_url: Where the cookies are exchanged.
        api_url: The API of the account's plan; ``None`` for the one of the environment, or the default.
        since: When it was stored, in seconds since 1970.
        in_keyring: Whether it is in the system's keyring, and not in the file.
    """

    secret: Secret[Any] = field(repr=False)
    github_url: str
    api_url: Optional[str] = None
    since: float = field(default_factory=time.time)
    in_keyring: bool = False

    @property
    def has_cookies(self) -> bool:
        """Whether it is cookies, which get new tokens, and not a token."""
        return not isinstance(self.secret.reveal(), str)

    @property
    def user(self) -> str:
        """The name of the account as the cookies have it; ``""`` if that is not known."""
        return str(self.secret.reveal().get("dotcom_user", "")) if self.has_cookies else ""

    @property
    def hosts(self) -> Dict[str, Optional[str]]:
        """The hosts, as the arguments of ``Client``."""
        return {"github_url": self.github_url, "api_url": self.api_url}

    def options(self) -> Dict[str, Any]:
        """Return the arguments of ``Client`` for it."""
        kind = "cookies" if self.has_cookies else "api_key"
        return {kind: self.secret, **self.hosts}

    def credentials(self) -> Credentials:
        """Return what a client makes of it."""
        options = self.options()
        return Credentials(options.get("api_key"), options.get("cookies"), Environment.read({}))


class MadeFromProfile:
    """The way to make a client with the login of a profile."""

    @classmethod
    def from_profile(cls: Type[T], name: str = DEFAULT_PROFILE, **options: Any) -> T:
        """Make a client with the login that ``copilot-sync login`` has stored. It is read now, and only now.

        What the user's config file says of the model, the API, the proxy and the pace counts as well, unless an
        argument or a variable says otherwise. The pace becomes the ``rate_limit``.

        Args:
            name: The profile. The environment is not asked for it.
            **options: Further arguments of the client, but for ``api_key``, ``cookies`` and ``github_url``, which
                are the profile's. An ``api_url`` takes the place of the profile's.

        Raises:
            MissingCredentialsError: The profile has no login, or its file can't be used.
            TypeError: An argument has the wrong type, or is the profile's.
            ValueError: The name can't be one of a profile, an argument can't be used, or the config file can't.
            ImportError: What reads the login or the config file is not installed.
        """
        fixed = [option for option in _FIXED if option in options]
        options = {key: Secret.coerce(value) if key in _FIXED else value for key, value in options.items()}
        if fixed:
            raise TypeError(f"{' and '.join(fixed)} can't be passed: the profile has them")
        login = load_login(name)
        if login is None:
            raise MissingCredentialsError(no_login(name), stage="credentials")
        make: Callable[..., T] = cls
        return make(**{**login.options(), **_configured(name, login), **options})


def _configured(name: str, login: StoredLogin) -> Dict[str, Any]:
    """Return the arguments of ``Client`` that the config file has for a profile."""
    chosen = choose_settings(Environment.read(), load_config(), name, login.hosts)
    found = {name: setting.value for name, setting in chosen.items() if setting.is_configured}
    pace = {name: found.pop(name) for name in NUMBERS if name in found}
    return {**found, "rate_limit": RateLimit(**pace)} if pace else found


def no_login(name: str) -> str:
    """Say that a profile has no login, and what to type."""
    return f"the profile {name} has no login: {login_command(name)}"


def login_file(name: str) -> str:
    """Return the file of a profile's login.

    Raises:
        TypeError: The name is not a string.
        ValueError: It can't be one of a profile.
    """
    return os.path.join(config_folder(), "credentials", f"{check_profile(name)}.json")


def load_login(name: str) -> Optional[StoredLogin]:
    """Read the login of a profile; ``None`` if it has none.

    Raises:
        MissingCredentialsError: There is a file that can't be read, or that is none of ours.
        TypeError: As ``login_file``.
        ValueError: As ``login_file``.
    """
    path = login_file(name)
    try:
        data = _data_of(path)
        login = None if data is None else _login_of(name, data)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    else:
        return login
    raise MissingCredentialsError(f"the login in {path!r} can't be used: {problem}", stage="credentials")


def store_login(name: str, login: StoredLogin) -> str:
    """Store the login of a profile in place of what it had, and return the file.

    Raises:
        OSError: It can't be written, the keyring does not take it, or what is in its place is none of ours. Then that
            is as it was.
        TypeError: As ``login_file``.
        ValueError: As ``login_file``.
    """
    path = login_file(name)
    was_in_keyring = is_in_keyring(name)
    content = _content_of(login)
    if not login.in_keyring:
        _write(path, content)
        if was_in_keyring:
            _forget_secret(name)
        return path
    write_secret(name, content)
    if not was_in_keyring:  # or the file says so already
        try:
            _write(path, Secret({**_MARK, _IN_KEYRING: True}))
        except BaseException:
            _forget_secret(name)
            raise
    return path


def _write(path: str, content: Secret[Dict[str, Any]]) -> None:
    with rewriting(path, 0o600) as file:
        file.write(json.dumps(content.reveal(), indent=1).encode("ascii"))


def _forget_secret(name: str) -> None:
    with contextlib.suppress(KeyringStoreError):  # it may be the reason for the change
        remove_secret(name)


def remove_login(name: str) -> bool:
    """Remove the login of a profile, and say whether it had one.

    Raises:
        OSError: It can't be removed, or what is in its place is none of ours.
        TypeError: As ``login_file``.
        ValueError: As ``login_file``.
    """
    path = login_file(name)
    if not os.path.lexists(path):
        return False
    data = _data_of(path)
    if data is not None and _keyring_has(data):
        remove_secret(name)
    with locked(path, PATIENCE) as is_alone:
        if is_alone:  # pragma: no branch - nobody holds it for longer than a moment
            remove_leftovers(path)
        os.unlink(path)
    return data is not None


def is_in_keyring(name: str) -> bool:
    """Whether the login of a profile is in the keyring, which is not asked.

    Raises:
        OSError: What is in the place of its file is none of ours.
        TypeError: As ``login_file``.
        ValueError: As ``login_file``.
    """
    data = _data_of(login_file(name))
    return data is not None and _keyring_has(data)


def _keyring_has(data: "Secret[Mapping[str, Any]]") -> bool:
    return data.reveal().get(_IN_KEYRING) is True


def _data_of(path: str) -> "Optional[Secret[Mapping[str, Any]]]":
    """What a file of ours holds; ``None`` if it is missing or empty.

    Raises:
        OSError: It can't be read, or is none of ours.
    """
    try:
        _check_own(os.lstat(path))
        with open(path, "rb", opener=_open_itself) as file:
            _check_own(os.fstat(file.fileno()))
            content = Secret(file.read(_LARGEST_FILE + 1))
            found = _marked(content) if content.reveal().strip(b"\0") else None
            _close_to_others(file.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def _check_own(info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file but a link, a folder, a pipe or a device")
    if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "it belongs to another user")


def _open_itself(path: str, flags: int) -> int:
    """Open a file, but neither what a link leads to nor, waiting for its other end, a pipe."""
    return os.open(path, flags | AT_ONCE | getattr(os, "O_NOFOLLOW", 0))


def _close_to_others(descriptor: int) -> None:
    if os.name == "posix" and os.fstat(descriptor).st_mode & 0o077:  # a backup or an editor may have changed it
        os.fchmod(descriptor, 0o600)


def _marked(content: Secret[bytes]) -> "Secret[Mapping[str, Any]]":
    data: Any = None
    if len(content.reveal()) <= _LARGEST_FILE:
        with contextlib.suppress(ValueError, RecursionError):
            data = json.loads(content.reveal().decode("utf-8"))
    is_ours = isinstance(data, dict) and _MARK.items() <= {key: data.get(key) for key in _MARK}.items()
    found, data = Secret(data), None  # the frame of the error below must not show what the file holds
    if not is_ours:
        raise OSError(errno.EINVAL, "it is not a file of copilot-sync login")
    return found


def _login_of(name: str, data: "Secret[Mapping[str, Any]]") -> StoredLogin:
    in_keyring = _keyring_has(data)
    found = read_secret(name) if in_keyring else data
    if found is None:
        raise OSError(errno.ENOENT, f"the keyring has nothing for it; store it again: {login_command(name)}")

    def value(name: str, *kinds: type) -> Any:
        content = found.reveal().get(name)
        return content if isinstance(content, kinds) else None

    secret = Secret(value("api_key", str) or value("cookies", dict))
    github_url, since = value("github_url", str), value("since", int, float)
    if not secret or not github_url:
        raise OSError(errno.EINVAL, "something is missing in it")
    return StoredLogin(secret, github_url, value("api_url", str), float(since or 0.0), in_keyring)


def _content_of(login: StoredLogin) -> Secret[Dict[str, Any]]:
    kind = "cookies" if login.has_cookies else "api_key"
    return Secret({**_MARK, kind: login.secret.reveal(), **login.hosts, "since": login.since})
