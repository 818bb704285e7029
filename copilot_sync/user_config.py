"""The config file: what a person sets for the command line and for ``Client.from_profile``. ``Client`` never reads it.

It is TOML in the user's folder for configuration. Settings at its top are for every profile, those of a table such as
``[profiles.work]`` for one. What goes before what is decided here, in ``choose_settings``, and nowhere else.

A file that can't be used is an error that says where, and what to type; nothing in it is passed over.
"""

import contextlib
import difflib
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from copilot_sync.pacing.limiter import checked_count
from copilot_sync.profiles import check_profile
from copilot_sync.protocol.untrusted import clean
from copilot_sync.safe_files import AT_ONCE
from copilot_sync.safe_text import check_text, is_too_deep
from copilot_sync.secret import Secret
from copilot_sync.settings import (
    ALLOW_HTTP_VARIABLE,
    API_URL_VARIABLE,
    GITHUB_URL_VARIABLE,
    MODEL_VARIABLE,
    Environment,
    choose_urls,
)
from copilot_sync.transport.proxies import check_proxy, deciding_variable
from copilot_sync.user_folders import config_folder

PROFILES = "profiles"
#: Where a setting comes from if nobody has set it.
DEFAULT = "default"

#: Bytes of a file that are read. Nobody types as many.
_LARGEST_FILE = 64 * 1024


class UserConfigError(ValueError):
    """The config file can't be used. The message says where, and what to type."""


class Setting(NamedTuple):
    """A setting that counts.

    Attributes:
        value: Its value; ``None`` if there is none.
        origin: Where it comes from: a variable, a place in the config file, the login, or ``DEFAULT``.
        is_configured: Whether that is the config file.
    """

    value: Any
    origin: str = DEFAULT
    is_configured: bool = False


@dataclass(frozen=True)
class UserConfig:
    """What the config file holds, checked."""

    path: str
    data: Mapping[str, Any] = field(repr=False)  # the URL of a proxy may have a password in it

    def setting(self, name: str, profile: str) -> Optional[Setting]:
        """Return a setting as the file has it for a profile; ``None`` if it says nothing of it."""
        own = self.data.get(PROFILES, {}).get(profile, {})
        value, origin = own.get(name), f"[{PROFILES}.{profile}] of {self.path}"
        if value is None:
            value, origin = self.data.get(name), self.path
        return None if value is None else Setting(Secret(value) if name == "proxy" else value, origin, True)


def _check_model(value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"model must be a string, not {type(value).__name__}")
    if not value.strip():
        raise ValueError("model must be the id of a model")
    check_text("model", value)


def _check_url(name: str) -> Callable[[Any], object]:
    def check(value: Any) -> None:
        if not value:
            raise ValueError(f"{name} must be a URL")
        given = {"github_url": None, "api_url": None, name: value}
        allowed = {ALLOW_HTTP_VARIABLE: os.environ.get(ALLOW_HTTP_VARIABLE, "")}
        choose_urls(**given, environment=Environment.read(allowed))

    return check


def _check_proxy(value: Any) -> None:
    if not check_proxy(Secret(value)):
        raise ValueError("proxy must be a URL such as http://localhost:3128")


#: The settings, and what checks the value of each.
_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "model": _check_model,
    "github_url": _check_url("github_url"),
    "api_url": _check_url("api_url"),
    "proxy": _check_proxy,
    "per_minute": lambda value: checked_count("per_minute", value),
    "concurrency": lambda value: checked_count("concurrency", value),
}
NAMES = tuple(_CHECKS)
#: Those whose values are whole numbers.
NUMBERS = ("per_minute", "concurrency")


def check_name(name: str) -> None:
    """Check the name of a setting.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in _CHECKS:
        near = difflib.get_close_matches(name, NAMES, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
        raise ValueError(f"{clean(name)} is no setting; {hint}")


def check_setting(name: str, value: Any) -> None:
    """Check a setting. No error quotes its value, which may have a password in it.

    Raises:
        ValueError: There is none of that name, or it can't have that value.
    """
    check_name(name)
    try:
        _CHECKS[name](value)
    except TypeError as error:
        problem = str(error)
    else:
        return
    raise ValueError(problem)


def config_file() -> str:
    """Return the path of the config file."""
    return os.path.join(config_folder(), "config.toml")


def load_config() -> UserConfig:
    """Read the config file; one that is missing says nothing.

    Raises:
        UserConfigError: It can't be used.
        ImportError: What reads it is not installed.
    """
    path = config_file()
    return parse_config(path, read_text(path))


def read_text(path: str) -> Secret[str]:
    """Read the config file. It may be a link.

    Raises:
        UserConfigError: It can't be read.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserConfigError(f"{path} is not a plain file; move it away, then: copilot-sync config edit")
            content = Secret(file.read(_LARGEST_FILE + 1))
    except (FileNotFoundError, NotADirectoryError):
        return Secret("")
    except IsADirectoryError:
        raise UserConfigError(f"{path} is a folder; move it away, then: copilot-sync config edit") from None
    except OSError as error:
        raise UserConfigError(f"{path} can't be read: {error.strerror or error}; see: ls -l {path}") from error
    if len(content.reveal()) > _LARGEST_FILE:
        raise UserConfigError(f"{path} is larger than {_LARGEST_FILE // 1024} KiB: no config file is; {_EDIT}")
    try:
        return Secret(content.reveal().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.reveal().count(b"\n", 0, error.start) + 1
    raise UserConfigError(f"{path}, line {line}: this is not UTF-8: save it as UTF-8; {_EDIT}")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | AT_ONCE)


_EDIT = "correct it with: copilot-sync config edit"


def parse_config(path: str, text: Secret[str]) -> UserConfig:
    """Read what the config file holds, and check it.

    Raises:
        UserConfigError: It is no TOML, or a setting in it is unknown or has a wrong value.
        ImportError: What reads it is not installed.
    """
    if not text.reveal().strip():
        return UserConfig(path, {})
    if is_too_deep(text.reveal()):
        raise UserConfigError(f"{path} is nested too deeply; {_EDIT}")
    loads = _reader()
    try:
        data = Secret(loads(text.reveal()))
    except ValueError as error:
        problem, _, position = clean(str(error)).partition(" (at ")  # such as "(at line 1, column 3)"
        line = int(
            next(iter(re.findall(r"\d+", position)), text.reveal().count("\n") + 1)
        )  # else "(at end of document)"
    else:
        fault = _first_fault(data.reveal())
        if fault is None:
            return UserConfig(path, data.reveal())
        place, problem = fault
        line = _line_of(place, text, loads)
        raise UserConfigError(f"{path}, line {line}: {problem}; {_EDIT}")
    raise UserConfigError(f"{path}, line {line}: this is no TOML: {problem}; {_EDIT}")


def _reader() -> Callable[[str], Dict[str, Any]]:
    if sys.version_info >= (3, 11):
        from tomllib import loads
    else:  # pragma: some versions
        try:
            from tomli import loads
        except ImportError as error:
            raise ImportError(
                f'to read {config_file()}, type: pip install "copilot-sync[cli]"', name="tomli"
            ) from error
    return loads


#: Names of tables and of the settings in them.
_Place = Tuple[str, ...]


def _first_fault(data: Mapping[str, Any]) -> Optional[Tuple[_Place, str]]:
    """Return where something is wrong, and what; ``None`` if nothing is."""
    profiles = data.get(PROFILES, {})
    if not isinstance(profiles, dict):
        return (PROFILES,), f"{PROFILES} must be tables, such as [{PROFILES}.work]"
    tables: Dict[_Place, Any] = {(): {name: value for name, value in data.items() if name != PROFILES}}
    tables.update(((PROFILES, name), table) for name, table in profiles.items())
    for place, table in tables.items():
        if not isinstance(table, dict):
            return place, f"a profile is a table, such as [{PROFILES}.work]"
        checked = place
        try:
            for name in place[1:]:
                check_profile(name)
            for name, value in table.items():
                checked = (*place, name)
                check_setting(name, value)
        except ValueError as error:
            return checked, str(error)
    return None


def _line_of(place: _Place, text: Secret[str], loads: Callable[[str], Dict[str, Any]]) -> int:
    """Return the number of the line in which a setting or a table begins.

    The reader does not tell. So it is asked for the shortest beginning of the file that has it.
    """
    lines = text.reveal().split("\n")

    def is_within(count: int) -> bool:
        """Whether the setting is in so many lines, and in as many more as end what the last of them begins."""
        while True:
            with contextlib.suppress(ValueError):
                return _has(loads("\n".join(lines[:count])), place)
            count += 1

    least, most = 1, len(lines)
    while least < most:
        middle = (least + most) // 2
        if is_within(middle):
            most = middle
        else:
            least = middle + 1
    return least


def _has(data: Any, place: _Place) -> bool:
    for name in place:
        if not isinstance(data, dict) or name not in data:
            return False
        data = data[name]
    return True


def choose_settings(
    environment: Environment, config: UserConfig, profile: str, login_hosts: Mapping[str, Optional[str]]
) -> Dict[str, Setting]:
    """Choose each setting: the hosts of the login, the environment, the profile in the file, the file.

    A value of ``None`` stands for the default, and for a proxy that the environment chooses.

    Args:
        environment: The variables.
        config: The file.
        profile: The profile.
        login_hosts: ``github_url`` and ``api_url`` of its login: cookies go to no other host than theirs.

    Raises:
        ValueError: A variable has a host that can't be used.
    """
    given = {
        "model": (environment.model, MODEL_VARIABLE),
        "github_url": (environment.github_url, GITHUB_URL_VARIABLE),
        "api_url": (environment.api_url, API_URL_VARIABLE),
    }
    chosen: Dict[str, Setting] = {}
    for name in NAMES:
        value, variable = given.get(name, (None, ""))
        if login_hosts.get(name):
            chosen[name] = Setting(login_hosts[name], "login")
        elif value is not None:
            chosen[name] = Setting(value, variable)
        else:
            chosen[name] = config.setting(name, profile) or Setting(None)
    urls = choose_urls(chosen["github_url"].value, chosen["api_url"].value, environment)
    variable = next(filter(None, map(deciding_variable, urls.hosts)), "")
    if variable:
        chosen["proxy"] = Setting(None, variable)
    return chosen
