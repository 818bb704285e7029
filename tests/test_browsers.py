"""Cookies from the browsers of this machine: what browser-cookie3 gives is asked for sparingly and trusted little."""

import logging
import sqlite3
import sys
from http.cookiejar import Cookie, CookieJar
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterable, List, Optional

import pytest

from copilot_sync.auth.cookies import find_cookies, get_cookies
from copilot_sync.errors import MissingCredentialsError

FUTURE = 4102444800  # 2100-01-01
PAST = 946684800  # 2000-01-01


def cookie(name: str, value: Optional[str], domain: str, expires: Optional[int] = FUTURE) -> Cookie:
    """A cookie exactly as browser-cookie3 makes one."""
    dot = domain.startswith(".")
    return Cookie(0, name, value, None, False, domain, dot, dot, "/", True, True, expires, False, None, None, {})


def jar(*cookies: Cookie) -> CookieJar:
    filled = CookieJar()
    for each in cookies:
        filled.set_cookie(each)
    return filled


Browser = Callable[..., Iterable[Cookie]]
Install = Callable[..., None]


def browser(*cookies: Cookie, asked: Optional[List[str]] = None) -> Browser:
    def firefox(domain_name: str) -> CookieJar:
        if asked is not None:
            asked.append(domain_name)
        return jar(*cookies)

    return firefox


def failing(error: Exception) -> Browser:
    def chrome(domain_name: str) -> CookieJar:
        raise error

    return chrome


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Installs a browser_cookie3 that knows these browsers, in a place with no other cookies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COPILOT_SYNC_COOKIES", raising=False)

    def put(**attributes: Any) -> None:
        module = ModuleType("browser_cookie3")
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, "browser_cookie3", module)

    return put


def test_the_browser_is_asked_for_one_host_and_gives_its_cookies(install: Install) -> None:
    """Only the host's cookies are asked for, and they come as values by name."""
    asked: List[str] = []
    install(all_browsers=[browser(cookie("user_session", "abc", "github.com"), asked=asked)])
    assert get_cookies() == {"user_session": "abc"}
    assert asked == ["github.com"]
    assert find_cookies().place == "a browser of this machine"


def test_hosts_that_merely_look_alike_are_left_out(install: Install) -> None:
    """browser-cookie3 matches by substring; what it gives for other hosts never gets through."""
    install(
        all_browsers=[
            browser(
                cookie("user_session", "right", "github.com"),
                cookie("_octo", "parent", ".github.com"),
                cookie("evil", "1", "evilgithub.com"),
                cookie("evil2", "2", ".github.com.example.org"),
                cookie("gist", "3", "gist.github.com"),
            )
        ]
    )
    assert get_cookies() == {"user_session": "right", "_octo": "parent"}


@pytest.mark.parametrize(
    "spoilt",
    [
        cookie("user_session", "", "github.com"),
        cookie("user_session", None, "github.com"),
        cookie("user_session", "abc", "github.com", expires=PAST),
        cookie("user_session", "abc", "github.com", expires=PAST * 1000),
        cookie("user_session", "abc\r\nX-Evil: 1", "github.com"),
        cookie("user_session", "abc", "evilgithub.com"),
    ],
    ids=["empty", "no value", "expired", "expired in milliseconds", "unsendable", "another host"],
)
def test_a_spoilt_session_is_none(install: Install, spoilt: Cookie) -> None:
    """A session that can't be used is passed over, and the next browser is looked at."""
    install(all_browsers=[browser(spoilt), browser(cookie("user_session", "next", "github.com"))])
    assert get_cookies() == {"user_session": "next"}


@pytest.mark.parametrize("expires", [FUTURE, FUTURE * 1000, None, 0], ids=["s", "ms", "none", "zero"])
def test_both_units_of_firefox_are_understood(install: Install, expires: Optional[int]) -> None:
    """Firefox counts milliseconds from version 153 on; a session cookie has no expiry at all."""
    install(all_browsers=[browser(cookie("user_session", "abc", "github.com", expires))])
    assert get_cookies() == {"user_session": "abc"}


def test_browsers_are_never_mixed_and_none_is_opened_in_vain(install: Install) -> None:
    """The first browser that is logged in is taken alone; those after it are not even read."""
    asked: List[str] = []
    install(
        all_browsers=[
            browser(cookie("_octo", "visitor", "github.com")),
            browser(cookie("user_session", "abc", "github.com")),
            browser(cookie("user_session", "other", "github.com"), asked=asked),
        ]
    )
    assert get_cookies() == {"user_session": "abc"}
    assert asked == []


def test_a_browser_that_fails_does_not_hide_the_next_one(install: Install) -> None:
    """Whatever goes wrong with one browser, the others are still read."""
    install(all_browsers=[failing(KeyError("DBUS")), browser(cookie("user_session", "abc", "github.com"))])
    assert get_cookies() == {"user_session": "abc"}


def test_a_library_without_a_list_of_browsers_is_asked_for_all(install: Install) -> None:
    """``load`` is what browser-cookie3 documents; the list of browsers is not, and may go."""
    install(load=browser(cookie("user_session", "abc", "github.com")))
    assert get_cookies() == {"user_session": "abc"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"all_browsers": [failing(RuntimeError("the cookie user_session=s3cr3t-value can't be decrypted"))]},
        {"all_browsers": [failing(type("Odd", (Exception,), {})("s3cr3t-value"))]},
        {"all_browsers": [lambda domain_name: 42]},
        {"all_browsers": [browser()]},
        {"all_browsers": [browser(cookie("user_session", "s3cr3t-value", "evilgithub.com"))]},
        {},
    ],
    ids=["RuntimeError", "its own error", "not a jar", "an empty jar", "another host", "nothing in the module"],
)
def test_a_failure_of_the_library_means_no_cookies_there(
    install: Install, caplog: pytest.LogCaptureFixture, attributes: Any
) -> None:
    """The caller sees one error, which names what to set, and neither it nor the log quotes the library."""
    install(**attributes)
    with caplog.at_level(logging.DEBUG), pytest.raises(MissingCredentialsError) as caught:
        get_cookies()
    assert caught.value.stage == "credentials"
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "s3cr3t-value" not in str(caught.value) + caplog.text
    assert caplog.records or attributes.get("all_browsers")


def test_without_the_extra_the_error_names_it(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """browser-cookie3 is not needed; the error says how to install it."""
    monkeypatch.setitem(sys.modules, "browser_cookie3", None)
    with pytest.raises(MissingCredentialsError, match=r"pip install 'copilot-sync\[browser\]'"):
        get_cookies()


def test_a_real_firefox_profile_is_read(  # pragma: no cover - needs the extra ``browser``
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real browser-cookie3 on a profile as Firefox writes it, with expiries in both units."""
    pytest.importorskip("browser_cookie3")
    if not sys.platform.startswith("linux"):
        pytest.skip("the profile is laid out as on Linux")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    monkeypatch.delenv("COPILOT_SYNC_COOKIES", raising=False)
    profile = tmp_path / ".mozilla" / "firefox" / "abc.default"
    profile.mkdir(parents=True)
    (profile.parent / "profiles.ini").write_text("[Profile0]\nPath=abc.default\nIsRelative=1\nDefault=1\n")
    database = sqlite3.connect(str(profile / "cookies.sqlite"))
    database.execute("CREATE TABLE moz_cookies (host, path, isSecure, expiry, name, value, isHttpOnly)")
    database.executemany(
        "INSERT INTO moz_cookies VALUES (?, '/', 1, ?, ?, ?, 1)",
        [
            ("github.com", FUTURE, "user_session", "abc"),
            (".github.com", FUTURE * 1000, "_octo", "def"),
            (".github.com", PAST, "old", "1"),
            (".github.com", PAST * 1000, "old_too", "2"),
            (".evilgithub.com", FUTURE, "evil", "3"),
        ],
    )
    database.commit()
    database.close()
    assert get_cookies() == {"user_session": "abc", "_octo": "def"}
