"""Where the command line keeps its files on each system."""

import os
from typing import Dict

import pytest

from copilot_sync.user_folders import cache_folder, config_folder, state_folder

XDG = {"XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"}
NO_XDG = {"XDG_CACHE_HOME": "c", "XDG_STATE_HOME": ""}
LIBRARY = ("~/Library/Caches/{}", "~/Library/Application Support/{}")
# fmt: off
PLACES = [
    # system    environment               cache                      state
    ("linux",   {},                       "~/.cache/{}",             "~/.local/state/{}"),
    ("freebsd", {},                       "~/.cache/{}",             "~/.local/state/{}"),
    ("darwin",  {},                       *LIBRARY),
    ("win32",   {},                       "~/AppData/Local/{}/Cache", "~/AppData/Local/{}"),
    ("win32",   {"LOCALAPPDATA": "/app"}, "/app/{}/Cache",           "/app/{}"),
    ("linux",   XDG,                      "/c/{}",                   "/s/{}"),
    ("darwin",  XDG,                      "/c/{}",                   "/s/{}"),
    ("linux",   NO_XDG,                   "~/.cache/{}",             "~/.local/state/{}"),
]
# fmt: on


@pytest.mark.parametrize("platform, environ, cache, state", PLACES)
def test_each_system_has_its_folders(platform: str, environ: Dict[str, str], cache: str, state: str) -> None:
    """The variables of the XDG specification win everywhere, unless they are relative; then comes the custom."""
    assert cache_folder(platform, environ) == os.path.expanduser(cache.format("copilot-sync"))
    assert state_folder(platform, environ) == os.path.expanduser(state.format("copilot-sync"))


@pytest.mark.parametrize(
    "platform, environ, config",
    [
        ("linux", {}, "~/.config/{}"),
        ("darwin", {}, "~/Library/Application Support/{}"),
        ("win32", {"LOCALAPPDATA": "/app"}, "/app/{}"),
        ("darwin", {"XDG_CONFIG_HOME": "/x"}, "/x/{}"),
    ],
)
def test_logins_have_a_folder_too(platform: str, environ: Dict[str, str], config: str) -> None:
    """By the same rules."""
    assert config_folder(platform, environ) == os.path.expanduser(config.format("copilot-sync"))
