"""Which credentials are used, and that they are found when they are needed and shown to nobody."""

import json
import os
import pickle
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Dict, Optional

import pytest
from requests.cookies import RequestsCookieJar

from copilot_sync.auth.credentials import Credentials
from copilot_sync.auth.tokens import ExchangedTokens, StaticToken
from copilot_sync.errors import AuthenticationError, MissingCredentialsError
from copilot_sync.settings import Environment, Timeout, Urls
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Transport

COOKIES = {"user_session": "argument"}


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder and no variable of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("COPILOT_SYNC_API_KEY", "COPILOT_SYNC_COOKIES"):
        monkeypatch.delenv(name, raising=False)


def credentials(api_key: Optional[str] = None, cookies: Any = None) -> Credentials:
    return Credentials(api_key, cookies, Environment.read())


def jar(value: str = "in-a-jar") -> CookieJar:
    cookies = RequestsCookieJar()
    cookies.set("user_session", value, domain=".github.com")
    return cookies


@pytest.mark.parametrize(
    ("api_key", "cookies", "variables", "found"),
    [
        ("argument", COOKIES, ["API_KEY", "COOKIES"], "argument"),
        (None, COOKIES, ["API_KEY", "COOKIES"], COOKIES),
        ("", COOKIES, ["API_KEY"], COOKIES),
        (None, None, ["API_KEY", "COOKIES"], "variable"),
        ("", None, ["API_KEY"], "variable"),
        (None, None, ["COOKIES"], {"user_session": "variable"}),
        (None, None, ["FOLDER"], {"user_session": "folder"}),
    ],
)
def test_what_was_given_wins_over_what_is_found(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    api_key: Optional[str],
    cookies: Any,
    variables: Any,
    found: Any,
) -> None:
    """The key, the cookies, the key's variable, the cookies' variable, which may name a folder: in this order."""
    (tmp_path / "har_and_cookies").mkdir()
    (tmp_path / "har_and_cookies" / "github.json").write_text('{"user_session": "folder"}')
    values = {
        "API_KEY": ("API_KEY", "variable"),
        "COOKIES": ("COOKIES", "user_session=variable"),
        "FOLDER": ("COOKIES", "har_and_cookies"),
    }
    for name, value in map(values.__getitem__, variables):
        monkeypatch.setenv(f"COPILOT_SYNC_{name}", value)
    given = credentials(api_key, cookies)
    source = given.token_source(Urls("https://github.com", "https://api.example"), Transport(), None)
    if isinstance(found, str):
        assert isinstance(source, StaticToken)
        assert source.get(CallContext(Timeout()), None).reveal() == found
    else:
        assert isinstance(source, ExchangedTokens)
        assert given.find_cookies("github.com") == found


@pytest.mark.parametrize("named", ["argument", "variable"])
def test_nothing_is_looked_for_before_it_is_needed(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials can be made where there is nothing yet, and find what came meanwhile."""
    place = str(tmp_path / "har_and_cookies")
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "" if named == "argument" else place)
    given = credentials(cookies=place if named == "argument" else None)
    with pytest.raises(MissingCredentialsError):
        given.find_cookies("github.com")
    (tmp_path / "har_and_cookies").mkdir()
    (tmp_path / "har_and_cookies" / "github.json").write_text('{"user_session": "new"}')
    assert given.find_cookies("github.com") == {"user_session": "new"}


@pytest.mark.parametrize(
    ("github_url", "domain"),
    [
        ("https://github.com", "github.com"),
        ("https://GitHub.com:443/base", "github.com"),
        ("https://octo.ghe.example", "octo.ghe.example"),
        ("http://127.0.0.1:8000", "github.com"),
        ("http://localhost:8000", "github.com"),
    ],
)
def test_cookies_are_looked_for_by_the_host_they_go_to(github_url: str, domain: str) -> None:
    """A stand-in on this machine gets github.com's."""
    listed = [
        {"name": "user_session", "value": "dotcom", "domain": "github.com"},
        {"name": "user_session", "value": "enterprise", "domain": "octo.ghe.example"},
    ]
    source = credentials(cookies=listed).token_source(Urls(github_url, "https://api.example"), Transport(), None)
    assert isinstance(source, ExchangedTokens)
    value = "dotcom" if domain == "github.com" else "enterprise"
    assert source._find_cookies() == {"user_session": value}


@pytest.mark.parametrize(
    ("cookies", "error"),
    [
        ({"user_session": "planted\nvalue"}, ValueError),
        ({"user_session": "", "other": "planted"}, MissingCredentialsError),
        ({"user_session": 5, "other": "planted"}, TypeError),
        ("/no/such/file", MissingCredentialsError),
        (5, TypeError),
        (Path("gone/cookies.txt"), MissingCredentialsError),
        ("no-session.json", MissingCredentialsError),
        ("empty-folder", MissingCredentialsError),
        ({}, MissingCredentialsError),
        ("", MissingCredentialsError),
    ],
    ids=[
        "unsendable",
        "empty value",
        "number",
        "no file",
        "no source",
        "no file of a path",
        "no session",
        "no files",
        "none",
        "blank",
    ],
)
def test_cookies_that_cannot_be_used_are_told(cookies: Any, error: Any) -> None:
    """When they are needed, without their values, and without the frames that hold them."""
    Path("no-session.json").write_text('{"logged_in": "planted"}')
    Path("empty-folder").mkdir()
    given = credentials(cookies=cookies)
    with pytest.raises(error) as caught:
        given.find_cookies("github.com")
    assert "planted" not in str(caught.value)
    assert caught.value.__context__ is None
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "find_cookies"


@pytest.mark.parametrize(
    ("api_key", "error"),
    [
        ("line\nbreak", ValueError),
        ("\u20ac", ValueError),
        (" blank", ValueError),
        (5, TypeError),
        (b"bytes", TypeError),
        ('{"value": 5}', ValueError),
        ('{"value": "", "expiration": "2026-06-27T13:15:06.000Z"}', ValueError),
        ('{"expiration": "2026-06-27T13:15:06.000Z"}', ValueError),
        ('{"value": "line\\nbreak"}', ValueError),
        ('{"value": ' * 50_000, ValueError),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_key_that_cannot_be_sent_is_told(api_key: Any, error: Any) -> None:
    """Before anything is sent, and without showing it."""
    with pytest.raises(error) as caught:
        credentials(api_key)
    assert str(api_key) not in str(caught.value)


@pytest.mark.parametrize("named", ["argument", "variable"])
@pytest.mark.parametrize(
    "text",
    [
        '{"value": "token", "expiration": "2999-06-27T13:15:06.000Z"}',
        ' {"value":"token"}\n',
        '{"token": "token", "expiration": "2999-06-27T13:15:06.000Z"}',
    ],
    ids=["storage", "value alone", "reply"],
)
def test_a_key_may_be_the_json_in_which_the_page_keeps_it(
    named: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what people find in the page's local storage: the token is taken out of it."""
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", "" if named == "argument" else text)
    given = credentials(text if named == "argument" else None)
    source = given.token_source(Urls("https://github.com", "https://api.example"), Transport(), None)
    assert source.get(CallContext(Timeout()), None).reveal() == "token"
    # Clients of the same token are not shared if it ends for one of them alone.
    assert (given.fingerprint() == credentials("token").fingerprint()) is ("expiration" not in text)


@pytest.mark.parametrize(
    ("expiration", "expires"),
    [
        ("2026-06-27T13:15:06.000Z", 1782566106.0),
        ("2026-06-27T13:15:06.123456789Z", 1782566106.0),
        ("2026-06-27T15:15:06+02:00", 1782566106.0),
        (1782566106, 1782566106.0),
        (1782566106000, 1782566106.0),
        ("1782566106000", 1782566106.0),
        (None, None),
        ("", None),
        ("soon", None),
        (True, None),
        (["2026-06-27T13:15:06.000Z"], None),
        ({}, None),
        (0, None),
        (-1, None),
        (1800, None),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        (10**400, None),
        (float("inf"), None),
        (float("nan"), None),
        ("2026-06-27T13:15:06.000Z" * 100, None),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_key_says_when_it_expires(expiration: Any, expires: Optional[float]) -> None:
    """As the page writes it, or in another way; what is no moment of a token's end is as if it were not there."""
    assert credentials(json.dumps({"value": "token", "expiration": expiration})).expires == expires
    assert credentials("token").expires is None
    assert credentials(cookies=COOKIES).expires is None


@pytest.mark.parametrize("named", ["argument", "variable"])
def test_a_key_that_expired_is_told_when_it_is_needed(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before: whoever makes a client need not ask anything of it."""
    text = '{"value": "planted-token", "expiration": "2026-06-27T13:15:06.000Z"}'
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", "" if named == "argument" else text)
    given = credentials(text if named == "argument" else None)
    urls = Urls("https://github.com", "https://api.example")
    with pytest.raises(AuthenticationError, match="the api_key expired on 2026-06-27 13:15 UTC") as caught:
        given.look(urls)
    source = given.token_source(urls, Transport(), None)
    with pytest.raises(AuthenticationError, match="COPILOT_AUTH_TOKEN") as needed:
        source.get(CallContext(Timeout()), None)
    for error in (caught.value, needed.value):
        assert (error.stage, error.status, error.attempts) == ("credentials", None, 0)
        assert "planted" not in str(error)


@pytest.mark.parametrize(
    "cookies",
    [{"user_session": "value"}, jar("value"), "user_session=value", [{"name": "user_session", "value": "value"}]],
    ids=["mapping", "jar", "header", "list"],
)
def test_they_pickle_whatever_they_were_made_of(cookies: Any) -> None:
    """For a process that is spawned."""
    copied = pickle.loads(pickle.dumps(credentials(cookies=cookies)))
    assert copied.find_cookies("github.com") == {"user_session": "value"}


@pytest.mark.parametrize("cookies", [{"user_session": "value"}, jar("value")], ids=["mapping", "jar"])
def test_what_was_given_is_taken_as_it_was(cookies: Any) -> None:
    """Clearing it afterwards changes nothing."""
    given = credentials(cookies=cookies)
    cookies.clear()
    assert given.find_cookies("github.com") == {"user_session": "value"}


def test_fingerprints_tell_credentials_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By kind and value, and searches by where they look; the same ones have the same."""
    seen: Dict[str, str] = {
        "key": credentials("secret").fingerprint(),
        "other key": credentials("other").fingerprint(),
        "header": credentials(cookies="secret").fingerprint(),
        "mapping": credentials(cookies={"user_session": "secret"}).fingerprint(),
        "other mapping": credentials(cookies={"user_session": "other"}).fingerprint(),
        "jar": credentials(cookies=jar("secret")).fingerprint(),
        "other jar": credentials(cookies=jar("other")).fingerprint(),
        "search": credentials().fingerprint(),
        "key beside cookies": credentials("secret", "secret").fingerprint(),
        "key beside other cookies": credentials("secret", "other").fingerprint(),
    }
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "user_session=secret")
    assert credentials("secret").fingerprint() == seen["key"]
    with monkeypatch.context() as patch:
        patch.setenv("COPILOT_SYNC_API_KEY", "secret")
        seen["both variables"] = credentials().fingerprint()
    seen["variable"] = credentials().fingerprint()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    seen["variable, elsewhere"] = credentials().fingerprint()
    assert len(set(seen.values())) == len(seen)
    assert "secret" not in "".join(seen.values())
    assert credentials(cookies=jar("secret")).fingerprint() == seen["jar"]


def test_a_folder_that_was_deleted_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long-lived process may stand in one."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    assert credentials().fingerprint()
    with pytest.raises(MissingCredentialsError):
        credentials().find_cookies("github.com")


def test_they_show_nothing() -> None:
    """Neither they nor what finds the cookies."""
    given = credentials(cookies={"user_session": "secret"})
    source = given.token_source(Urls("https://github.com", "https://api.example"), Transport(), None)
    assert isinstance(source, ExchangedTokens)
    assert "secret" not in f"{given} {given!r} {source!r} {source._find_cookies!r}"


@pytest.mark.parametrize("given", [("key", None), (None, COOKIES), (None, None)], ids=["key", "cookies", "nothing"])
def test_whether_there_are_any_can_be_asked_beforehand(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a check of a program's settings does; it is told as the first call would tell it."""
    monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: iter(()))
    urls = Urls("https://github.com", "https://api.example")
    if any(given):
        credentials(*given).look(urls)
    if given[0]:
        with pytest.raises(ValueError, match='^api_url="auto" needs cookies'):
            credentials(*given).look(Urls(urls.github, "auto"))
    if any(given):
        return
    with pytest.raises(MissingCredentialsError, match="COPILOT_SYNC_COOKIES"):
        credentials(*given).look(urls)
