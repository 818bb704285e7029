"""Stored logins: where they are, what is refused in their place, and that a program reads one only on purpose."""

import asyncio
import json
import os
import resource
import stat
import traceback
from pathlib import Path
from typing import Any, Callable

import pytest

from copilot_sync import AsyncClient, Client, MissingCredentialsError
from copilot_sync.auth.stored_logins import StoredLogin, load_login, login_file, remove_login, store_login
from copilot_sync.emulator import Emulator
from copilot_sync.secret import Secret

SECRET = "planted-session-value"
GITHUB = "https://github.com"


def a_login(secret: Any = None, **hosts: Any) -> StoredLogin:
    return StoredLogin(Secret(secret or {"user_session": SECRET, "dotcom_user": "octocat"}), GITHUB, **hosts)


@pytest.fixture
def place() -> Path:
    """The file of the default profile, whose folder is there."""
    path = Path(login_file("default"))
    path.parent.mkdir(parents=True)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_stored_comes_back() -> None:
    """Cookies or a token, the hosts and the moment; a profile of its own for each name; only its owner can read it."""
    work = a_login("token", api_url="https://api.example")
    path = Path(store_login("default", a_login()))
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    store_login("work", work)
    found = load_login("default")
    assert found is not None
    assert (found.user, found.has_cookies, found.api_url) == ("octocat", True, None)
    assert load_login("work") == work
    assert (work.user, work.has_cookies) == ("", False)
    assert load_login("third") is None
    assert sorted(os.listdir(path.parent)) == ["default.json", "work.json"]
    assert path.parents[2] == Path(os.environ["XDG_CONFIG_HOME"])


def test_a_login_takes_the_place_of_the_one_before() -> None:
    """As a whole."""
    store_login("default", a_login())
    store_login("default", a_login("token"))
    found = load_login("default")
    assert found is not None
    assert found.secret.reveal() == "token"


def test_a_login_is_removed_once(place: Path) -> None:
    """With what a killed process left of it, and nothing else."""
    store_login("default", a_login())
    store_login("work", a_login())
    (place.parent / ".copilot-sync-default.json.0123abcd").write_text(SECRET)
    assert remove_login("default") is True
    assert os.listdir(place.parent) == ["work.json"]
    assert remove_login("default") is False


@pytest.mark.parametrize("content", [b"", b"\0\0\0"])
def test_an_empty_file_is_no_login(content: bytes, place: Path) -> None:
    """A killed process leaves it, or a power cut. It may be replaced, and removed."""
    place.write_bytes(content)
    assert load_login("default") is None
    assert remove_login("default") is False
    assert not place.exists()
    place.write_bytes(content)
    store_login("default", a_login())
    assert load_login("default") is not None


def test_a_file_that_became_readable_is_closed_again(place: Path) -> None:
    """A backup may have opened it to everybody."""
    store_login("default", a_login())
    place.chmod(0o644)
    assert load_login("default") is not None
    assert mode(place) == 0o600


def _link(place: Path) -> None:
    target = place.with_name("elsewhere.json")
    target.write_text(json.dumps({"copilot_sync": "login"}))
    place.symlink_to(target)


def _dangling_link(place: Path) -> None:
    place.symlink_to(place.with_name("nowhere"))


FOREIGN = {
    "link": _link,
    "dangling link": _dangling_link,
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "text": lambda place: place.write_text(f"mine: {SECRET}"),
    "other JSON": lambda place: place.write_text(json.dumps({"key": SECRET})),
    "a list": lambda place: place.write_text(json.dumps([SECRET])),
    "no text": lambda place: place.write_bytes(b"\xff" + SECRET.encode()),
    "large": lambda place: place.write_text(json.dumps({"copilot_sync": "login", "x": "x" * 70000})),
}


@pytest.mark.parametrize("put", FOREIGN.values(), ids=FOREIGN)
def test_what_is_none_of_ours_stays_as_it_is(put: Callable[[Path], object], place: Path) -> None:
    """It is neither read nor written nor removed, and no error quotes it."""
    put(place)
    before = [(entry.name, entry.lstat().st_size, entry.lstat().st_mode) for entry in sorted(place.parent.iterdir())]
    with pytest.raises(MissingCredentialsError, match="can't be used: it is not") as caught:
        load_login("default")
    for change in (lambda: store_login("default", a_login()), lambda: remove_login("default")):
        with pytest.raises(OSError, match="it is not") as refused:
            change()
        assert SECRET not in "".join(traceback.format_exception(None, refused.value, refused.value.__traceback__))
    assert SECRET not in repr(_variables(caught.value))
    after = [(entry.name, entry.lstat().st_size, entry.lstat().st_mode) for entry in sorted(place.parent.iterdir())]
    assert after == before


def _variables(error: BaseException) -> Any:
    """What a report of an error may show of its frames, those of this module left out."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename != __file__]
    return [error.args, error.__context__, *(frame.f_locals for frame in frames)]


def test_a_file_of_another_user_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write the folder could have others log in to an account of theirs."""
    store_login("default", a_login())
    monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    with pytest.raises(MissingCredentialsError, match="it belongs to another user"):
        load_login("default")


@pytest.mark.parametrize(
    "data",
    [{}, {"cookies": {"user_session": SECRET}}, {"github_url": GITHUB}, {"cookies": SECRET, "github_url": GITHUB}],
)
def test_a_damaged_login_is_told_and_may_be_replaced(data: Any, place: Path) -> None:
    """Something is missing in it, but it is ours."""
    place.write_text(json.dumps({"copilot_sync": "login", **data}))
    with pytest.raises(MissingCredentialsError, match="something is missing in it") as caught:
        load_login("default")
    assert SECRET not in repr(_variables(caught.value))
    store_login("default", a_login())
    assert load_login("default") is not None


def test_a_full_disk_leaves_the_old_login(place: Path) -> None:
    """And if there was none, there is none, nor any other file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for names in ([], ["default.json"]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                store_login("default", a_login("new" * 1000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.listdir(place.parent) == names
        store_login("default", a_login())
    found = load_login("default")
    assert found is not None
    assert found.user == "octocat"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "ä", "x" * 65, "a\n"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    """Before any file is looked at."""
    with pytest.raises(ValueError, match="the name of a profile"):
        login_file(name)


def test_a_name_is_a_text() -> None:
    """Anything else is a mistake of the program."""
    with pytest.raises(TypeError, match="must be a string, not int"):
        Client.from_profile(1)  # type: ignore[arg-type]


def test_a_program_reads_a_login_only_on_purpose(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that nobody tells of it has no credentials, also if a variable names the profile."""
    monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: iter(()))
    monkeypatch.setenv("COPILOT_SYNC_PROFILE", "default")
    store_login("default", StoredLogin(Secret(emulator.cookies), emulator.github_url, emulator.api_url))
    with Client(github_url=emulator.github_url, api_url=emulator.api_url) as client, pytest.raises(
        MissingCredentialsError
    ):
        client.models()
    assert emulator.requests == []
    with Client.from_profile(model="gpt-4o") as client:
        assert client.ask("hi").model == "gpt-4o"


def test_the_asynchronous_client_does_the_same(emulator: Emulator) -> None:
    """With a token as well."""
    store_login("work", StoredLogin(Secret(emulator.api_key), emulator.github_url, emulator.api_url))

    async def main() -> None:
        async with AsyncClient.from_profile("work") as client:
            assert await client.models()

    asyncio.run(main())


def test_an_argument_takes_the_place_of_the_stored_host(emulator: Emulator) -> None:
    """But only of the one that cookies never go to."""
    store_login("default", StoredLogin(Secret(emulator.cookies), emulator.github_url, "https://api.example"))
    with Client.from_profile(api_url="auto") as client:
        assert client.models()


@pytest.mark.parametrize(
    "options", [{"cookies": {"a": SECRET}}, {"api_key": SECRET}, {"github_url": "https://x.example"}]
)
def test_what_the_profile_has_cannot_be_passed(options: Any) -> None:
    """A login would go to a host that it does not belong to, or be mixed with another."""
    store_login("default", a_login())
    with pytest.raises(TypeError, match="can't be passed: the profile has them") as caught:
        Client.from_profile(**options)
    assert SECRET not in repr(_variables(caught.value))


def test_a_profile_without_a_login_is_told() -> None:
    """With what to type."""
    with pytest.raises(MissingCredentialsError, match="the profile default has no login: copilot-sync login \\[stage"):
        Client.from_profile()
    with pytest.raises(MissingCredentialsError, match="no login: copilot-sync login --profile work \\[stage"):
        Client.from_profile("work")


def test_a_login_shows_nothing_of_itself() -> None:
    """However it is printed."""
    assert SECRET not in f"{a_login()!r} {a_login()} {a_login().options()} {a_login().credentials()!r}"
