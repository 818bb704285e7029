"""``copilot-sync login`` and ``logout``: what is given, tried out, stored and removed, and what is never shown."""

import io
import json
import os
import sys
from http.cookiejar import Cookie
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, List

import pytest
from command_line import Keys

from copilot_sync.auth.browsers import browser_cookies
from copilot_sync.auth.stored_logins import load_login, login_file
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.secret import Secret


@pytest.fixture(autouse=True)
def _no_credentials_but_those_given(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts are the emulator's; nothing else gives cookies."""
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: iter(()))


@pytest.fixture
def cookies(tmp_path: Path, served: Emulator) -> str:
    """A file of cookies, of which some are of no use here."""
    path = tmp_path / "cookies.json"
    path.write_text(json.dumps({**served.cookies, "dotcom_user": "octocat", "_octo": "of no use"}))
    return str(path)


def stored(name: str = "default") -> Any:
    """What a profile holds; ``None`` if there is nothing."""
    found = load_login(name)
    return None if found is None else found.secret.reveal()


def session(emulator: Emulator) -> str:
    return f"user_session={emulator.cookies['user_session']}"


def test_a_file_is_tried_out_and_stored(cookies: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """One token, one list of models, one look at the quota; only the cookies that say who it is are kept."""
    assert run(["login", "--file", cookies]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"logged in as octocat (plan pro); stored in {login_file('default')}\n")
    assert stored() == {**served.cookies, "dotcom_user": "octocat"}
    assert served.tokens_issued == 1
    assert [run(["models"]), run(["ask", "hi"])] == [0, 0]
    assert os.stat(login_file("default")).st_mode & 0o777 == 0o600


def test_the_log_shows_no_secret(cookies: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even with everything that there is to say."""
    for arguments in (["login", "--file", cookies], ["login", "--status", "--check"], ["models"], ["logout"]):
        assert run(["--verbose", *arguments]) == 0
    shown = "".join(capsys.readouterr())
    assert served.cookies["user_session"] not in shown
    assert served.api_key not in shown


def test_a_login_that_is_refused_is_not_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what was stored before stays. Without the check it is stored all the same."""
    path = tmp_path / "cookies.json"
    path.write_text('{"user_session": "planted-session"}')
    assert run(["login", "--file", str(path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Error: nothing was stored: ")
    assert "planted-session" not in err
    assert "--no-check" not in err
    assert stored() is None
    assert run(["login", "--file", str(path), "--no-check"]) == 0
    assert stored() == {"user_session": "planted-session"}
    assert run(["models"]) == 1
    assert "log in with: copilot-sync login; check with" in capsys.readouterr().err


def test_a_service_that_fails_is_no_verdict(cookies: str, served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says how to store it untried."""
    served.fail("models", Fault.status(503, message="words"))
    assert run(["login", "--file", cookies]) == 1
    assert capsys.readouterr().err.endswith("; --no-check stores it untried\n")
    assert stored() is None


def test_a_plan_that_is_not_told_is_left_out(
    cookies: str, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is nothing that a login needs."""
    served.fail("quota", Fault.status(500))
    assert run(["login", "--file", cookies]) == 0
    assert capsys.readouterr().err.startswith("logged in as octocat; stored in ")


def test_the_host_of_another_plan_is_found(
    cookies: str, served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is stored with the login, unless another one was asked for. ``doctor`` says how to change it."""
    served.options.plan = "business"
    default = served.api_url
    monkeypatch.delenv("COPILOT_SYNC_API_URL")
    monkeypatch.setattr("copilot_sync.settings.API_URL", default)
    assert run(["login", "--file", cookies]) == 0
    found = load_login("default")
    assert found is not None
    assert found.api_url == served.plan_api_url
    assert run(["ask", "hi"]) == 0
    assert run(["login", "--file", cookies, "--api-url", default, "--profile", "wrong"]) == 1
    assert stored("wrong") is None
    assert run(["login", "--file", cookies, "--api-url", default, "--no-check"]) == 0
    capsys.readouterr()
    assert run(["doctor"]) == 1
    assert f"-> copilot-sync login --api-url {served.plan_api_url}\n" in capsys.readouterr().out


def test_a_profile_has_hosts_of_its_own(
    cookies: str, served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They go before those of the environment, and the variable chooses the profile for each command."""
    hosts = ["--github-url", served.github_url, "--api-url", served.api_url]
    monkeypatch.setenv("COPILOT_SYNC_GITHUB_URL", "https://github.example")
    monkeypatch.setenv("COPILOT_SYNC_API_URL", "https://api.example")
    assert run(["login", "--file", cookies, "--profile", "work", *hosts]) == 0
    monkeypatch.setenv("COPILOT_SYNC_PROFILE", "work")
    assert run(["ask", "hi"]) == 0
    assert run(["ask", "--continue", "again"]) == 0
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"credentials: cookies of copilot-sync login, from {login_file('work')}" in out
    assert f"settings: {served.github_url} and {served.api_url}" in out
    monkeypatch.setenv("COPILOT_SYNC_PROFILE", "home")
    assert [run(["ask", "hi"]), run(["doctor"])] == [1, 1]
    out, err = capsys.readouterr()
    assert "the profile home has no login: copilot-sync login --profile home" in err
    assert "the profile home has no login: copilot-sync login --profile home" in out
    monkeypatch.setenv("COPILOT_SYNC_PROFILE", "../home")
    assert [run(["ask", "hi"]), run(["doctor"]), run(["login"]), run(["logout"])] == [1, 1, 2, 2]
    assert "-> correct COPILOT_SYNC_PROFILE" in capsys.readouterr().out


def test_the_environment_goes_first(
    cookies: str, served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``login`` says so, and the login is not even read. A profile that is typed goes before the environment."""
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", session(served))
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", served.api_key)
    assert run(["login", "--file", cookies]) == 0
    err = capsys.readouterr().err
    for name in ("COPILOT_SYNC_API_KEY", "COPILOT_SYNC_COOKIES"):
        assert f"{name} is set and goes before the login" in err
    assert run(["login", "--file", cookies, "--profile", "work"]) == 0
    assert "goes before" not in capsys.readouterr().err
    Path(login_file("default")).write_text("none of ours")
    assert run(["ask", "hi"]) == 0
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    monkeypatch.delenv("COPILOT_SYNC_API_KEY")
    assert run(["ask", "hi"]) == 1
    assert "it is not a file of copilot-sync login" in capsys.readouterr().err


def test_the_login_goes_before_the_browsers(cookies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is searched if there is one."""
    assert run(["login", "--file", cookies]) == 0
    monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: pytest.fail("searched"))
    assert run(["models"]) == 0


def test_the_status_shows_all_but_the_secret(
    cookies: str, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """It asks nobody unless told to."""
    assert run(["login", "--status"]) == 1
    assert capsys.readouterr().err == "Error: the profile default has no login: copilot-sync login\n"
    assert run(["login", "--file", cookies]) == 0
    asked = len(served.requests)
    capsys.readouterr()
    assert run(["login", "--status"]) == 0
    out, err = capsys.readouterr()
    rows = dict(line.split("\t") for line in out.splitlines())
    assert list(rows) == ["profile", "kind", "user", "since", "github", "api", "file"]
    assert (rows["profile"], rows["kind"], rows["user"]) == ("default", "cookies", "octocat")
    assert served.cookies["user_session"] not in out
    assert (err, len(served.requests)) == ("", asked)
    assert run(["login", "--status", "--check"]) == 0
    assert capsys.readouterr().err == "it works (plan pro)\n"
    served.cookies["user_session"] = "another"
    assert run(["login", "--status", "--check"]) == 1
    assert capsys.readouterr().err.startswith("Error: the login does not work: ")
    assert stored() is not None


def test_a_token_is_stored_with_its_end(
    served: Emulator,
    piped: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """When it is over, ``doctor`` says so and what to type."""
    piped(json.dumps({"value": served.api_key, "expiration": "2100-01-01T00:00:00Z"}).encode())
    assert run(["login", "--stdin"]) == 0
    assert capsys.readouterr().err.startswith("logged in; stored in ")
    assert [run(["ask", "hi"]), run(["login", "--status", "--check"]), run(["doctor"])] == [0, 0, 0]
    out, err = capsys.readouterr()
    assert "kind\ttoken\n" in out
    assert "expires\t2100-01-01 00:00 UTC\n" in out
    assert "credentials: a token of copilot-sync login" in out
    assert err.endswith("it works\n")
    monkeypatch.setattr("copilot_sync.auth.credentials.time.time", lambda: 5e9)
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "the api_key expired on 2100-01-01" in out
    assert "-> copilot-sync login\n" in out


def test_a_session_that_ended_is_told_with_what_to_type(
    cookies: str, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """By ``doctor``."""
    assert run(["login", "--file", cookies]) == 0
    served.cookies["user_session"] = "another"
    capsys.readouterr()
    assert run(["doctor"]) == 1
    assert "-> copilot-sync login\n" in capsys.readouterr().out


def test_logout_removes_the_file_and_the_token(
    cookies: str, served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both the login's own; the second time there is nothing to remove."""
    assert [run(["login", "--file", cookies]), run(["models"])] == [0, 0]
    tokens = Path(os.environ["XDG_CACHE_HOME"], "copilot-sync", "tokens.json")
    assert "token" in tokens.read_text()
    capsys.readouterr()
    assert run(["logout"]) == 0
    assert capsys.readouterr().err == f"logged out; removed {login_file('default')}\n"
    assert not os.path.exists(login_file("default"))
    assert [entry["value"] for entry in json.loads(tokens.read_text()).values()] == [""]
    assert run(["logout"]) == 1
    assert capsys.readouterr().err == "Error: the profile default has no login: copilot-sync login\n"
    assert run(["models"]) == 1


def test_another_login_ends_the_token_of_the_one_before(cookies: str, served: Emulator) -> None:
    """The same one keeps it."""
    tokens = Path(os.environ["XDG_CACHE_HOME"], "copilot-sync", "tokens.json")
    for count in (1, 1):
        assert [run(["login", "--file", cookies]), run(["models"])] == [0, 0]
        assert len([entry for entry in json.loads(tokens.read_text()).values() if entry["value"]]) == count
    Path(cookies).write_text(json.dumps(served.cookies))
    assert run(["login", "--file", cookies]) == 0
    assert [entry["value"] for entry in json.loads(tokens.read_text()).values()] == [""]


def test_without_a_token_cache_there_is_none_to_remove(cookies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor if no command has fetched one."""
    assert [run(["login", "--file", cookies]), run(["logout"])] == [0, 0]
    monkeypatch.setenv("COPILOT_SYNC_TOKEN_CACHE", "off")
    assert [run(["login", "--file", cookies]), run(["logout"])] == [0, 0]


def test_a_damaged_login_can_be_removed(capsys: pytest.CaptureFixture[str]) -> None:
    """It has the mark, but something is missing. A file of somebody else's stays."""
    path = Path(login_file("default"))
    path.parent.mkdir(parents=True)
    path.write_text('{"copilot_sync": "login"}')
    assert run(["logout"]) == 0
    path.write_text("mine")
    capsys.readouterr()
    assert run(["logout"]) == 1
    assert "can't be removed: it is not a file of copilot-sync login" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_told(cookies: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is in its place."""
    Path(os.environ["XDG_CONFIG_HOME"]).parent.mkdir(parents=True, exist_ok=True)
    Path(os.environ["XDG_CONFIG_HOME"]).write_text("")
    assert run(["login", "--file", cookies]) == 1
    assert capsys.readouterr().err.startswith(f"Error: nothing was stored: {login_file('default')} can't be written: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "there is no terminal to ask on: use --file PATH, or --stdin"),
        (["--file", ".", "--stdin"], "--file and --stdin exclude each other"),
        (["--status", "--stdin"], "--status stores nothing"),
        (["--github-url", "http://github.example"], "github_url must begin with https://"),
        (["--profile", "a/b"], "the name of a profile has 1 to 64"),
    ],
)
def test_wrong_usage_is_told(
    arguments: List[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is asked."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run(["login", *arguments]) == 2
    assert words in capsys.readouterr().err


SESSION = "s" * 48
EXPORT = [{"name": "user_session", "value": SESSION, "domain": ".github.com"}, {"name": "x", "value": "y"}]
# fmt: off
PASTES: Dict[str, Any] = {
    f" {SESSION}\n": {"user_session": SESSION},
    f"user_session={SESSION}": {"user_session": SESSION},
    f"Cookie: a=b; user_session={SESSION}; logged_in=yes": {"user_session": SESSION, "logged_in": "yes"},
    f"_ga=x; user_session={SESSION}": {"user_session": SESSION},
    json.dumps({"user_session": SESSION, "a": "b"}): {"user_session": SESSION},
    json.dumps(EXPORT): {"user_session": SESSION},
    json.dumps({"cookies": EXPORT}): {"user_session": SESSION},
    "tid=abc;exp=1:" + "x" * 80: "tid=abc;exp=1:" + "x" * 80,
    '{"token": "a-token"}': '{"token": "a-token"}',
}
WRONG = {
    "": "that is neither",
    "two words": "that is neither",
    "short": "that is neither",
    "planted" + "x" * 30: "that may be a cookie's value or a token",
    "Cookie: logged_in=planted": "there is no user_session among the cookies",
    "Cookie: nonsense; user_session=planted": "is not 'name=value'",
    "user_session=planted\u20ac": "characters that can't stand in a Cookie header",
    '{"value": "planted': "that begins like JSON and is broken",
    '{"user_session": {"planted": 1}}': "must be a string, not dict",
    '{"value": 7, "x": "planted"}': "JSON without a token",
    '{"value": "planted", "expiration": "2020-01-01T00:00:00Z"}': "expired on 2020-01-01",
    "[1, 2]": "must be",
}
# fmt: on


@pytest.mark.parametrize("text", PASTES)
def test_what_is_pasted_is_told_apart(text: str, piped: Callable[[bytes], None]) -> None:
    """The cookie alone, headers, an extension's export, a token as it is and as the page keeps it."""
    piped(text.encode())
    assert run(["login", "--stdin", "--no-check"]) == 0
    assert stored() == PASTES[text]


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_used_is_told_and_not_quoted(
    text: str, piped: Callable[[bytes], None], served: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent, nothing is stored."""
    piped(text.encode())
    assert run(["login", "--stdin"]) in (1, 2)
    err = capsys.readouterr().err
    assert WRONG[text] in err
    assert "planted" not in err
    assert (stored(), served.requests) == (None, [])


def test_a_token_cannot_look_for_its_host(piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]) -> None:
    """``auto`` needs cookies."""
    piped(b'{"token": "a-token"}')
    assert run(["login", "--stdin", "--api-url", "auto"]) == 2
    assert 'api_url="auto" needs cookies' in capsys.readouterr().err


def browsers(monkeypatch: pytest.MonkeyPatch, *names: str, **values: str) -> None:
    """Install a library that knows these browsers. Each has these cookies."""

    def reader(name: str) -> Any:
        def read(domain_name: str) -> List[Cookie]:
            fixed: Any = (None, False, "github.com", False, False, "/", True, True, None, False, None, None, {})
            return [Cookie(0, key, value, *fixed) for key, value in values.items()]

        read.__name__ = name
        return read

    library = ModuleType("browser_cookie3")
    vars(library)["all_browsers"] = [reader(name) for name in names]
    monkeypatch.setitem(sys.modules, "browser_cookie3", library)
    monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", browser_cookies)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", Keys(*lines))


def test_browsers_are_named_before_they_are_read(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a yes, none is."""
    browsers(monkeypatch, "chrome", "firefox", **served.cookies, other="x")
    typed(monkeypatch, "3", "n")
    assert run(["login"]) == 130
    assert stored() is None
    typed(monkeypatch, "3", "y")
    assert run(["login"]) == 0
    assert "Read the cookies for github.com from chrome, firefox?" in capsys.readouterr().err
    assert stored() == served.cookies


def test_browsers_without_a_session_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so is a library that is missing."""
    browsers(monkeypatch, "chrome", logged_in="no")
    typed(monkeypatch, "3", "y")
    assert run(["login"]) == 1
    assert "no browser of this machine has a user_session for github.com" in capsys.readouterr().err
    browsers(monkeypatch)
    monkeypatch.setitem(sys.modules, "browser_cookie3", None)
    typed(monkeypatch, "3")
    assert run(["login"]) == 1
    assert "pip install 'copilot-sync[browser]'" in capsys.readouterr().err


def test_a_file_can_be_named_when_asked(cookies: str, served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong number, and a file that is not there, are asked for again."""
    typed(monkeypatch, "7", "2", "nowhere", cookies)
    assert run(["login"]) == 0
    assert stored() == {**served.cookies, "dotcom_user": "octocat"}


def test_a_paste_is_what_one_gets_without_choosing(served: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the ways; and with ``--stdin``, without being asked for one."""
    monkeypatch.setattr("copilot_sync.cli.login.read_hidden", lambda prompt: Secret(session(served)))
    for arguments, lines in ([], [""]), (["--stdin"], []):
        typed(monkeypatch, *lines)
        assert run(["login", *arguments]) == 0
        assert stored() == served.cookies
        assert run(["logout"]) == 0
