"""The user's folders.

There are the cache for what can be fetched again, the state for what the next command continues, the configuration for
logins, and those in which shells look for completions.

``XDG_CACHE_HOME``, ``XDG_STATE_HOME`` and ``XDG_CONFIG_HOME`` count on every system. Without them each system's own
convention does. Without a home directory there is no folder, and no file of any name can be there. This module creates
nothing: whoever writes a file creates the folder, readable by its owner only.
"""

import os
import sys
from typing import Mapping, Tuple

_NAME = "copilot-sync"


def cache_folder(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> str:
    """Return the folder for what can be fetched again, such as tokens."""
    return _folder("XDG_CACHE_HOME", _CACHES, platform, environ)


def state_folder(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> str:
    """Return the folder for what the next command continues: typed lines and the last conversation."""
    return _folder("XDG_STATE_HOME", _STATES, platform, environ)


def config_folder(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> str:
    """Return the folder for what a person sets up, such as logins."""
    return _folder("XDG_CONFIG_HOME", _CONFIGS, platform, environ)


#: Where each shell looks for what completes the commands of a program: a variable, its default, and what is below.
COMPLETIONS: Mapping[str, Tuple[str, ...]] = {
    "bash": ("XDG_DATA_HOME", "~/.local/share", "bash-completion", "completions", _NAME),
    "fish": ("XDG_CONFIG_HOME", "~/.config", "fish", "completions", f"{_NAME}.fish"),
    "zsh": ("", "~/.zfunc", f"_{_NAME}"),
}


def completion_file(shell: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the file in which a shell looks for what completes the program's commands."""
    variable, custom, *below = COMPLETIONS[shell]
    chosen = environ.get(variable, "")
    return os.path.join(chosen if os.path.isabs(chosen) else _expanded(custom), *below)


_OTHERS = "other systems"
_CACHES = {"darwin": ("~/Library/Caches",), "win32": ("~/AppData/Local", "Cache"), _OTHERS: ("~/.cache",)}
_CONFIGS = {
    "darwin": ("~/Library/Application Support",),
    "win32": ("~/AppData/Local",),
    _OTHERS: ("~/.config",),
}
_STATES = {
    "darwin": ("~/Library/Application Support",),
    "win32": ("~/AppData/Local",),
    _OTHERS: ("~/.local/state",),
}


def _folder(variable: str, customs: Mapping[str, Tuple[str, ...]], platform: str, environ: Mapping[str, str]) -> str:
    chosen = environ.get(variable, "")
    if os.path.isabs(chosen):  # the specification says to ignore relative ones
        return os.path.join(chosen, _NAME)
    base, *below = customs.get(platform, customs[_OTHERS])
    if platform == "win32":
        base = environ.get("LOCALAPPDATA") or base
    return os.path.join(_expanded(base), _NAME, *below)


def _expanded(path: str) -> str:
    """Expand ``~``. What does not become absolute must not lead to the current folder, which may be anybody's."""
    expanded = os.path.expanduser(path)
    return expanded if os.path.isabs(expanded) else os.path.join(os.devnull, path)
