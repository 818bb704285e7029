"""The user's folders: the cache for what can be fetched again, and the state for what the next command continues.

``XDG_CACHE_HOME`` and ``XDG_STATE_HOME`` count on every system. Without them each system's own convention does. This
module creates nothing: whoever writes a file creates the folder, readable by its owner only.
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


_OTHERS = "other systems"
_CACHES = {"darwin": ("~/Library/Caches",), "win32": ("~/AppData/Local", "Cache"), _OTHERS: ("~/.cache",)}
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
    return os.path.join(os.path.expanduser(base), _NAME, *below)
