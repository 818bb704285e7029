"""The names of profiles: a person has one for each account, with a login and settings of its own."""

import re

DEFAULT_PROFILE = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_profile(name: str) -> str:
    """Return the name of a profile, checked.

    Raises:
        TypeError: It is not a string.
        ValueError: It can't be one of a profile.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a profile must be a string, not {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise ValueError("the name of a profile has 1 to 64 ASCII letters, digits, dots, dashes and underscores")
    return name


def login_command(name: str, *options: str) -> str:
    """Return what to type to log in to a profile."""
    return " ".join(["copilot-sync login", *options, *([] if name == DEFAULT_PROFILE else [f"--profile {name}"])])
