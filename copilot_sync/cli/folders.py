"""Where a user's programs keep their files: what may be lost (the cache) and what goes on next time (the state).

``XDG_CACHE_HOME`` and ``XDG_STATE_HOME`` are obeyed on every system; without them each system's own custom is. Nothing
is made or touched here: whoever writes makes the folder, readable for its owner alone.
"""

import os
import sys
from typing import Mapping, Tuple

_NAME = "copilot-sync"


def cache_folder(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> str:
    """Give the folder for what can be fetched again, such as tokens."""
    return _folder("XDG_CACHE_HOME", _CACHES, platform, environ)


def state_folder(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> str:
    """Give the folder for what the next call goes on with: the history of lines, the last conversation."""
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
    if os.path.isabs(chosen):  # the specification has relative ones ignored
        return os.path.join(chosen, _NAME)
    base, *below = customs.get(platform, customs[_OTHERS])
    if platform == "win32":
        base = environ.get("LOCALAPPDATA") or base
    return os.path.join(os.path.expanduser(base), _NAME, *below)
