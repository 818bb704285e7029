"""What a command goes by: the profile, its login, the environment and the config file.

An option goes before the environment, that before the profile's part of the file, that before the file's top. The hosts
of a login go with it, because its cookies belong to them.
"""

from dataclasses import replace
from typing import Any, Dict, NamedTuple, Optional

import click

from copilot_sync.auth.stored_logins import StoredLogin, load_login, no_login
from copilot_sync.cli.profile_option import NAME, given_profile
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.profiles import DEFAULT_PROFILE, check_profile
from copilot_sync.settings import PROFILE_VARIABLE, Environment
from copilot_sync.user_config import (
    Setting,
    UserConfig,
    UserConfigError,
    choose_settings,
    load_config,
)


class UserSettings(NamedTuple):
    """What a command goes by.

    Attributes:
        profile: The profile.
        login: Its login; ``None`` if it has none, or if the environment has credentials and no option names a profile.
        environment: The variables; what they leave open is filled in, and credentials that do not count are left out.
        chosen: Every setting, with its origin.
    """

    profile: str
    login: Optional[StoredLogin]
    environment: Environment
    chosen: Dict[str, Setting]

    @property
    def proxy(self) -> Any:
        """The proxy of the config file; ``None`` if it has none, or the environment decides."""
        return self.chosen["proxy"].value


def read_user_settings(environment: Environment, config: Optional[UserConfig] = None) -> UserSettings:
    """Find out what a command goes by.

    Args:
        environment: The variables.
        config: What the config file holds. Default: it is read.

    Raises:
        MissingCredentialsError: The profile that was chosen has no login, or its file can't be used.
        ValueError: What the environment names can't be a profile, or a host.
        click.ClickException: The config file can't be used.
    """
    profile = chosen_profile(environment)
    login = None
    if profile.origin == NAME:  # who types it means that account, whatever was exported long ago
        environment = replace(environment, api_key=None, cookies=None)
    if environment.credentials_variable is None:
        login = load_login(profile.value)
        if login is None and profile != Setting(DEFAULT_PROFILE):
            raise MissingCredentialsError(no_login(profile.value), stage="credentials")
    hosts = {} if login is None else login.hosts
    chosen = choose_settings(environment, config or read_config(), profile.value, hosts)
    filled = {name: chosen[name].value for name in ("model", "github_url", "api_url")}
    return UserSettings(profile.value, login, replace(environment, **filled), chosen)


def chosen_profile(environment: Environment) -> Setting:
    """Return the profile that an option or the environment names, or the default one.

    Raises:
        ValueError: What the environment names can't be one.
    """
    named = given_profile()
    if named is not None:
        return Setting(named, NAME)
    if environment.profile is None:
        return Setting(DEFAULT_PROFILE)
    try:
        return Setting(check_profile(environment.profile), PROFILE_VARIABLE)
    except ValueError as error:
        raise ValueError(f"{PROFILE_VARIABLE}: {error}") from error


def read_config() -> UserConfig:
    """Read the config file.

    Raises:
        click.ClickException: It can't be used.
    """
    try:
        return load_config()
    except UserConfigError as error:
        raise click.ClickException(str(error)) from error
