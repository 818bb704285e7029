"""The config file: what it may hold, how each fault in it is told, and who reads it."""

import asyncio
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import pytest

from copilot_sync import AsyncClient, Client, RateLimit
from copilot_sync.auth.stored_logins import StoredLogin, store_login
from copilot_sync.emulator import Emulator
from copilot_sync.secret import Secret
from copilot_sync.settings import Environment
from copilot_sync.user_config import (
    UserConfig,
    UserConfigError,
    check_name,
    choose_settings,
    config_file,
    load_config,
    parse_config,
)

WHOLE = """\
model = "gpt-5-mini"
proxy = "http://name:planted-password@localhost:3128"
per_minute = 10

[profiles.work]
model = "o1-mini"  # for work
api_url = "auto"
concurrency = 4
"""


@pytest.fixture
def place() -> Path:
    """The file, whose folder is there."""
    path = Path(config_file())
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def chosen(profile: str, environ: Optional[Dict[str, str]] = None, **login_hosts: str) -> Dict[str, Any]:
    """What counts, as the value and the beginning of the origin."""
    found = choose_settings(Environment.read(environ or {}), load_config(), profile, login_hosts)
    return {name: (setting.value, setting.origin.partition(" ")[0]) for name, setting in found.items()}


def test_a_profile_goes_before_the_top_of_the_file(place: Path) -> None:
    """What the profile leaves open, the top decides, and nothing of another profile counts."""
    place.write_text(WHOLE)
    proxy = Secret("http://name:planted-password@localhost:3128")
    assert chosen("work") == {
        "model": ("o1-mini", "[profiles.work]"),
        "github_url": (None, "default"),
        "api_url": ("auto", "[profiles.work]"),
        "proxy": (proxy, str(place)),
        "per_minute": (10, str(place)),
        "concurrency": (4, "[profiles.work]"),
    }
    assert chosen("home")["model"] == ("gpt-5-mini", str(place))
    assert chosen("home")["concurrency"] == (None, "default")


def test_the_environment_goes_before_the_file(place: Path) -> None:
    """But for the hosts of a login, which go with it."""
    place.write_text(WHOLE)
    environ = {"COPILOT_SYNC_MODEL": "o3", "COPILOT_SYNC_API_URL": "https://api.example"}
    found = chosen("work", environ, github_url="https://github.example")
    assert found["model"] == ("o3", "COPILOT_SYNC_MODEL")
    assert found["api_url"] == ("https://api.example", "COPILOT_SYNC_API_URL")
    assert found["github_url"] == ("https://github.example", "login")
    assert chosen("work", environ, api_url="https://api.other")["api_url"] == ("https://api.other", "login")


@pytest.mark.parametrize(
    ("variable", "value", "origin"),
    [
        ("HTTPS_PROXY", "http://localhost:1", "HTTPS_PROXY"),
        ("all_proxy", "http://localhost:1", "ALL_PROXY"),
        ("NO_PROXY", "github.com", "NO_PROXY"),
        ("HTTP_PROXY", "http://localhost:1", "file"),
    ],
)
def test_a_proxy_of_the_environment_goes_before_the_files(
    variable: str, value: str, origin: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it says how the hosts are asked, by one or by none."""
    place.write_text(WHOLE)
    monkeypatch.setenv(variable, value)
    found = chosen("default")["proxy"]
    if origin == "file":
        assert found == (Secret("http://name:planted-password@localhost:3128"), str(place))
    else:
        assert found == (None, origin)


def test_a_proxy_of_the_system_is_one_of_the_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS and Windows have it: no variable names it."""
    place.write_text(WHOLE)
    monkeypatch.setattr("requests.utils.getproxies", lambda: {"https": "http://localhost:1"})
    assert chosen("default")["proxy"] == (None, "the")


@pytest.mark.parametrize("content", ["", " \n", "# model = 1\n", "\ufeff# model = 1\r\n"])
def test_an_empty_file_says_nothing(content: str, place: Path) -> None:
    """Nor does one of comments, or one that is not there."""
    assert load_config() == UserConfig(str(place), {})
    place.write_bytes(content.encode())
    assert load_config().data == {}


def test_a_mark_of_byte_order_does_not_matter(place: Path) -> None:
    """Editors on Windows write one, and line ends of their own."""
    place.write_bytes('\ufeffmodel = "auto"\r\nper_minute = 3\r\n'.encode())
    assert load_config().data == {"model": "auto", "per_minute": 3}


def test_a_file_where_its_folder_should_be_says_nothing() -> None:
    """There can't be a config file then."""
    folder = Path(config_file()).parent
    folder.parent.mkdir(parents=True)
    folder.write_text("")
    assert load_config().data == {}


def test_a_link_is_followed(place: Path) -> None:
    """Some keep such files elsewhere, and links to them."""
    target = place.with_name("elsewhere.toml")
    target.write_text(WHOLE)
    place.symlink_to(target)
    assert load_config().data["model"] == "gpt-5-mini"


# fmt: off
FAULTS = {
    'modle = "x"': "line 1: modle is no setting; did you mean model?",
    "\n\ncolour = 1": "line 3: colour is no setting; there are model, github_url, api_url, proxy, per_minute, concurr",
    "model = 7": "line 1: model must be a string, not int",
    'model = " "': "line 1: model must be the id of a model",
    'per_minute = "7"': "line 1: per_minute must be a whole number, not str",
    "per_minute = 1.5": "line 1: per_minute must be a whole number, not float",
    "concurrency = 0": "line 1: concurrency must be at least 1, not 0",
    "concurrency = true": "line 1: concurrency must be a whole number, not bool",
    'api_url = "ftp://planted-secret"': "line 1: api_url must begin with https:// and name a host",
    'api_url = ""': "line 1: api_url must be a URL",
    "github_url = 7": "line 1: github_url must be a string, not int",
    'github_url = "http://github.example"': "line 1: github_url must begin with https://: without it the cred",
    'proxy = "planted secret"': "line 1: proxy must be a URL such as",
    'proxy = ""': "line 1: proxy must be a URL such as",
    "proxy = 1": "line 1: proxy must be a URL, not int",
    'model = "a"\nprofiles = 1': "line 2: profiles must be tables, such as [profiles.work]",
    "[profiles]\n\nwork = 1": "line 3: a profile is a table, such as [profiles.work]",
    '[profiles."../x"]': "line 1: the name of a profile has 1 to 64 ASCII letters",
    '[profiles.a]\nmodel = "b"\n[profiles.b]\n# a comment\n\nmodel = [\n 1,\n]\n': "line 6: model must be a string",
    'profiles = {a = {b = """\n"""}}': "line 1: b is no setting",
    "[ profiles . work ]\nmodel=1": "line 2: model must be a string",
    'model = "a"\nmodel = "planted"': "line 2: this is no TOML: ",
    "model = gpt": "line 1: this is no TOML: ",
    "[[[[": "line 1: this is no TOML",
    "x = " + "[" * 1000: "is nested too deeply",
    "#" * 70000: "is larger than 64 KiB",
    "model = '\ud800'": "line 1: this is not UTF-8",
    "# a\n# b\nmodel = '\udcff'": "line 3: this is not UTF-8",
}
# fmt: on


@pytest.mark.parametrize("content", FAULTS, ids=lambda content: ascii(content)[:40])
def test_a_fault_is_told_with_its_line_and_what_to_type(content: str, place: Path) -> None:
    """And nothing of it is quoted that may be a secret."""
    place.write_bytes(content.encode("utf-8", "surrogatepass" if "\ud800" in content else "surrogateescape"))
    with pytest.raises(UserConfigError) as caught:
        load_config()
    words = str(caught.value)
    assert words.startswith(str(place))
    assert FAULTS[content] in words
    assert words.endswith("; correct it with: copilot-sync config edit")
    frames = [
        frame for frame, _ in traceback.walk_tb(caught.value.__traceback__) if "test_" not in frame.f_code.co_name
    ]
    assert "planted" not in f"{words}{[frame.f_locals for frame in frames]}"


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (os.mkfifo, "is not a plain file; move it away, then: copilot-sync config edit"),
        (Path.mkdir, "is a folder; move it away, then: copilot-sync config edit"),
        (lambda place: place.symlink_to(place), "can't be read: Too many levels of symbolic links; see: ls -l "),
    ],
)
def test_what_is_no_file_is_told(put: Callable[[Path], object], words: str, place: Path) -> None:
    """Nobody waits for the other end of a pipe."""
    put(place)
    with pytest.raises(UserConfigError, match=words):
        load_config()


def test_http_may_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the hosts of the environment."""
    monkeypatch.setenv("COPILOT_SYNC_ALLOW_HTTP", "1")
    assert parse_config("x", Secret('api_url = "http://api.example"')).data == {"api_url": "http://api.example"}


def test_a_name_that_nobody_knows_gets_one_line() -> None:
    """Whatever is in it."""
    with pytest.raises(ValueError, match="two lines is no setting"):
        check_name("two\nlines")


def test_a_client_never_reads_it(place: Path, emulator: Emulator) -> None:
    """Not even a broken one."""
    place.write_text("broken")
    with Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        assert client.ask("hi").text == "hi"


@pytest.fixture
def work(emulator: Emulator) -> None:
    """A profile with a login."""
    store_login("work", StoredLogin(Secret(emulator.cookies), emulator.github_url, emulator.api_url))


def test_a_client_of_a_profile_goes_by_it(
    work: None, place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model and its pace; a variable and an argument go before it."""
    place.write_text('model = "o3"\n[profiles.work]\nmodel = "gpt-4o"\nper_minute = 600\nconcurrency = 1\n')
    made = []
    guards = "copilot_sync.client._guards"
    real = sys.modules["copilot_sync.client"]._guards  # type: ignore[attr-defined]
    monkeypatch.setattr(guards, lambda *values: made.append(values[3]) or real(*values))
    with Client.from_profile("work") as client:
        assert client.ask("hi").model == "gpt-4o"
    with Client.from_profile("work", model="o1-mini", rate_limit=RateLimit(per_minute=60)) as client:
        assert client.ask("hi").model == "o1-mini"
    monkeypatch.setenv("COPILOT_SYNC_MODEL", "o1-preview")
    with Client.from_profile("work") as client:
        assert client.ask("hi").model == "o1-preview"
    assert made == [RateLimit(per_minute=600, concurrency=1), RateLimit(per_minute=60), RateLimit(600, 1)]


def test_a_proxy_of_the_file_is_used(work: None, place: Path) -> None:
    """By clients of the profile."""
    place.write_text('proxy = "http://127.0.0.1:1"')
    with Client.from_profile("work", retry=None) as client, pytest.raises(Exception, match="proxy 127.0.0.1:1"):
        client.models()


def test_the_asynchronous_client_goes_by_it_too(work: None, place: Path) -> None:
    """It is made in the same way."""
    place.write_text('model = "gpt-4o"')

    async def main() -> None:
        async with AsyncClient.from_profile("work") as client:
            assert (await client.ask("hi")).model == "gpt-4o"

    asyncio.run(main())


def test_a_broken_file_is_told_to_a_program(work: None, place: Path) -> None:
    """It is a ``ValueError``."""
    place.write_text("model = 7")
    with pytest.raises(ValueError, match="line 1: model must be a string"):
        Client.from_profile("work")


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="the reader is part of Python")
def test_a_missing_reader_is_named(  # pragma: some versions
    work: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to type; but only if there is something to read."""
    monkeypatch.setitem(sys.modules, "tomli", None)
    Client.from_profile("work").close()
    place.write_text("model = 7")
    with pytest.raises(ImportError, match=r'type: pip install "copilot-sync\[cli\]"'):
        Client.from_profile("work")
