"""Logins in the system's keyring: what is where, what is told if there is none, and who imports the library."""

import errno
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, Dict, List

import keyring
import pytest
from command_line import Keys
from keyring.backends import fail, null
from keyrings import MemoryKeyring, memory_keyring

from copilot_sync import Client, MissingCredentialsError
from copilot_sync.auth.keyring_store import KeyringStoreError, read_secret, remove_secret, write_secret
from copilot_sync.auth.stored_logins import StoredLogin, load_login, login_file, remove_login, store_login
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator
from copilot_sync.secret import Secret

__all__ = ["memory_keyring"]

SECRET = "planted-session-value"
Capture = pytest.CaptureFixture[str]


def a_login(secret: Any = None, *, in_keyring: bool = True) -> StoredLogin:
    return StoredLogin(Secret(secret or {"user_session": SECRET}), "https://github.com", in_keyring=in_keyring)


def test_the_secret_is_in_the_keyring_and_not_in_the_file(memory_keyring: MemoryKeyring) -> None:
    """The file says only so. Cookies and tokens come back as they were, with their hosts."""
    for secret in ({"user_session": SECRET}, SECRET):
        path = Path(store_login("work", a_login(secret)))
        assert SECRET not in path.read_text()
        assert json.loads(path.read_text()) == {"copilot_sync": "login", "keyring": True}
        assert list(memory_keyring.kept) == [("copilot-sync", "work")]
        found = load_login("work")
        assert found is not None
        assert (found.secret.reveal(), found.github_url, found.in_keyring) == (secret, "https://github.com", True)
    assert remove_login("work") is True
    assert (memory_keyring.kept, path.exists()) == ({}, False)


def test_a_login_that_moves_to_a_file_leaves_the_keyring(memory_keyring: MemoryKeyring) -> None:
    """Also if the keyring does not answer any more: then it can't be helped."""
    store_login("default", a_login())
    store_login("default", a_login(in_keyring=False))
    assert memory_keyring.kept == {}
    store_login("default", a_login())
    memory_keyring.lock()
    store_login("default", a_login("token", in_keyring=False))
    found = load_login("default")
    assert found is not None
    assert found.secret.reveal() == "token"


def test_a_keyring_that_lost_the_login_is_told(memory_keyring: MemoryKeyring) -> None:
    """With what to type. It can be removed all the same."""
    store_login("work", a_login())
    memory_keyring.kept.clear()
    with pytest.raises(
        MissingCredentialsError, match="nothing for it; store it again: copilot-sync login --profile wo"
    ):
        load_login("work")
    assert remove_login("work") is True
    for damaged in ("{broken", "[]", "[" * 100_000):
        memory_keyring.kept["copilot-sync", "work"] = damaged
        assert read_secret("work") is None


ELSEWHERE = StoredLogin(Secret("another-token"), "https://other.example", in_keyring=True)


def test_a_login_has_its_hosts_with_it(memory_keyring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two folders for configuration share a keyring, none sends what the other one stored to its own hosts."""
    store_login("default", a_login())
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", "{XDG_CONFIG_HOME}/other".format(**os.environ))
        store_login("default", ELSEWHERE)
    found = load_login("default")
    assert found is not None
    assert (found.secret.reveal(), found.github_url) == ("another-token", "https://other.example")


@pytest.mark.parametrize("in_keyring", [True, False])
def test_a_full_disk_mixes_no_logins(
    in_keyring: bool, memory_keyring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login is stored with its hosts, or what was there is as it was."""

    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store_login("default", a_login(in_keyring=in_keyring))
    with monkeypatch.context() as patch:
        patch.setattr("copilot_sync.auth.stored_logins.rewriting", full)
        if in_keyring:
            store_login("default", ELSEWHERE)
        else:
            with pytest.raises(OSError, match="No space"):
                store_login("default", ELSEWHERE)
            assert memory_keyring.kept == {}
    found = load_login("default")
    assert found is not None
    assert found.github_url == (ELSEWHERE.github_url if in_keyring else "https://github.com")
    assert found.secret.reveal() == (ELSEWHERE.secret.reveal() if in_keyring else {"user_session": SECRET})


def _locked(own: MemoryKeyring) -> None:
    own.lock()


def _none(_: MemoryKeyring) -> None:
    keyring.set_keyring(fail.Keyring())


def _off(_: MemoryKeyring) -> None:
    keyring.set_keyring(null.Keyring())


def _failing(own: MemoryKeyring) -> None:
    own.failure = RuntimeError(f"a bus error with {SECRET}")


TROUBLE: Dict[str, Any] = {
    "this system has no keyring, as a server without a desktop": _none,
    "the keyring is locked: unlock it; to keep": _locked,
    "did not keep the login; to keep the login in a file": _off,
    "the keyring failed (RuntimeError): see that it runs": _failing,
}


@pytest.mark.parametrize("words", TROUBLE)
def test_a_keyring_that_cannot_be_used_is_told(words: str, memory_keyring: MemoryKeyring) -> None:
    """With what to type for this profile, and without the secret. Nothing is stored then."""
    TROUBLE[words](memory_keyring)
    with pytest.raises(KeyringStoreError) as caught:
        store_login("work", a_login())
    assert words in str(caught.value)
    assert str(caught.value).endswith("type: copilot-sync login --no-keyring --profile work")
    assert caught.value.__context__ is None
    frames = [
        frame for frame, _ in traceback.walk_tb(caught.value.__traceback__) if frame.f_code.co_filename != __file__
    ]
    assert SECRET not in f"{caught.value}{[frame.f_locals for frame in frames]}"
    assert not os.path.exists(login_file("work"))


def test_a_missing_library_is_named(memory_keyring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    store_login("default", a_login())
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(MissingCredentialsError, match=r'needs an extra: pip install "copilot-sync\[keyring\]"'):
        Client.from_profile()


def test_what_is_not_there_is_removed_without_a_word(memory_keyring: MemoryKeyring) -> None:
    """It is what was wanted."""
    remove_secret("work")
    write_secret("work", Secret({"api_key": "x"}))
    remove_secret("work")
    assert memory_keyring.kept == {}


@pytest.fixture
def cookies(served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file to log in with; nothing else gives cookies."""
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: iter(()))
    monkeypatch.setattr(sys, "stdin", Keys())
    path = tmp_path / "cookies.json"
    path.write_text(json.dumps(served.cookies))
    return str(path)


def test_a_login_goes_to_the_keyring_if_asked_to(
    cookies: str, memory_keyring: MemoryKeyring, served: Emulator, capsys: Capture
) -> None:
    """All commands use it; the status says where it is. The next login goes where this one was."""
    assert run(["login", "--file", cookies, "--keyring"]) == 0
    assert capsys.readouterr().err.endswith("; stored in a keyring in memory\n")
    assert served.cookies["user_session"] not in Path(login_file("default")).read_text()
    assert [run(["models"]), run(["ask", "hi"]), run(["login", "--status", "--check"]), run(["doctor"])] == [0] * 4
    out = capsys.readouterr().out
    assert "keyring\ta keyring in memory\n" in out
    assert "credentials: cookies of copilot-sync login, from the system's keyring\n" in out
    assert run(["login", "--file", cookies]) == 0
    assert memory_keyring.kept
    assert run(["login", "--file", cookies, "--no-keyring"]) == 0
    assert memory_keyring.kept == {}
    assert run(["login", "--file", cookies, "--keyring"]) == 0
    assert run(["logout"]) == 0
    assert memory_keyring.kept == {}


def test_a_command_says_what_is_wrong_with_the_keyring(
    cookies: str, memory_keyring: MemoryKeyring, capsys: Capture
) -> None:
    """And nothing is stored, nor removed."""
    assert run(["login", "--file", cookies, "--keyring"]) == 0
    memory_keyring.lock()
    capsys.readouterr()
    for arguments in (["login", "--file", cookies], ["models"], ["login", "--status"], ["logout"]):
        assert run(arguments) == 1
        assert "the keyring is locked: unlock it" in capsys.readouterr().err
    assert run(["doctor"]) == 1
    assert "the keyring is locked" in capsys.readouterr().out
    assert memory_keyring.kept
    assert os.path.exists(login_file("default"))


@pytest.mark.parametrize("arguments", [["--keyring", "--no-keyring"], ["--status", "--keyring"]])
def test_what_excludes_each_other_is_wrong_usage(arguments: List[str], capsys: Capture) -> None:
    """As for the other options."""
    assert run(["login", *arguments]) == 2
    err = capsys.readouterr().err
    assert "exclude each other" in err or "--status stores nothing" in err


def test_nobody_else_imports_the_library(cookies: str) -> None:
    """A login in a file needs none."""
    assert run(["login", "--file", cookies]) == 0
    code = (
        "import sys; from copilot_sync.cli.program import run; assert run(['models']) == 0;"
        "assert run(['login', '--status']) == 0; assert run(['logout']) == 0; print('keyring' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
    assert done.stdout.endswith(b"False\n")
