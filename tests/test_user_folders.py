"""Where the command line keeps its files on each system."""

import os
from typing import Any, Dict, Optional

import pytest

from copilot_sync.user_folders import cache_folder, completion_file, config_folder, state_folder

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


@pytest.mark.parametrize("home", ["relative", ".", None])
def test_without_a_home_there_is_no_folder(home: Optional[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Above all not one in the current folder, where anybody may have put a config file."""

    def nobody(_: object) -> Any:
        raise KeyError("a user without an entry, as in a container")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("os.environ", {} if home is None else {"HOME": home})
    for path in (cache_folder("linux", {}), state_folder("linux", {}), config_folder("darwin", {})):
        assert os.path.isabs(path)
        with pytest.raises(NotADirectoryError):
            os.makedirs(path)
    assert os.path.isabs(completion_file("zsh", {}))
