"""Which cookies are taken, and where they are looked for. No value ever gets into an error or a log."""

import json
import logging
import os
import pickle
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_sync.auth.cookie_formats import FILE_LIMIT
from copilot_sync.auth.cookies import find_cookies, get_cookies, read_cookies
from copilot_sync.errors import MissingCredentialsError

NOW = 1_800_000_000.0  # 2027-01-15
FUTURE = 4_102_444_800  # 2100-01-01
PAST = 946_684_800  # 2000-01-01
SECRET = "s3cr3t-value"


def read(source: Any, domain: str = "github.com") -> Dict[str, str]:
    return read_cookies(source, domain, now=lambda: NOW)


def listed(domain: Optional[str], name: str = "a", value: str = "1", **more: Any) -> Dict[str, Any]:
    return {"name": name, "value": value, "domain": domain, **more}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A current directory and an environment without any cookies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COPILOT_SYNC_COOKIES", raising=False)
    monkeypatch.setitem(sys.modules, "browser_cookie3", None)
    return tmp_path


@pytest.fixture
def folder(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes files into a folder that the variable names: names without their dot, and what JSON they hold."""
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "har_and_cookies")

    def write(**files: Any) -> None:
        (bare / "har_and_cookies").mkdir()
        for name, data in files.items():
            content = data if isinstance(data, bytes) else json.dumps(data).encode()
            (bare / "har_and_cookies" / name.replace("_", ".")).write_bytes(content)

    return write


# fmt: off
HOSTS = [
    # the cookie's domain    more             the host             goes there
    ("github.com",           {},                   "github.com",       True),
    (".github.com",          {},                   "github.com",       True),
    (".GitHub.com",          {},                   ".GITHUB.com",      True),
    (None,                   {},                   "github.com",       True),
    ("",                     {},                   "127.0.0.1",        True),
    (".github.com",          {},                   "gist.github.com",  True),
    ("github.com",           {"hostOnly": False},  "gist.github.com",  True),
    ("github.com",           {},                   "gist.github.com",  False),
    ("github.com",           {"hostOnly": True},   "gist.github.com",  False),
    (".github.com",          {"hostOnly": True},   "gist.github.com",  False),
    ("gist.github.com",      {},                   "github.com",       False),
    (".gist.github.com",     {},                   "github.com",       False),
    ("evilgithub.com",       {},                   "github.com",       False),
    (".evilgithub.com",      {},                   "github.com",       False),
    ("github.com",           {"hostOnly": False},  "notgithub.com",    False),
    ("github.com.evil.org",  {},                   "github.com",       False),
    ("github.co",            {"hostOnly": False},  "github.com",       False),
    ("com",                  {"hostOnly": False},  "github.com",       False),
    (".com",                 {},                   "github.com",       False),
    (".",                    {},                   "github.com",       True),
    (".co.uk",               {},                   "github.co.uk",     False),
    (".com.au",              {},                   "github.com.au",    False),
    (".octo.co.uk",          {},                   "github.octo.co.uk", True),
    ("co.uk",                {},                   "co.uk",            True),
    (".github.io",           {},                   "octo.github.io",   False),
    (".octo.github.io",      {},                   "x.octo.github.io", True),
    (".ghe.com",             {},                   "octo.ghe.com",     True),
    (".0.0.1",               {},                   "127.0.0.1",        False),
    ("0.0.1",                {"hostOnly": False},  "127.0.0.1",        False),
    (".localhost",           {},                   "a.localhost",      False),
    ("127.0.0.1",            {},                   "127.0.0.1",        True),
    ("localhost",            {},                   "localhost",        True),
    ("localhost",            {},                   "127.0.0.1",        False),
    ("github.com.local",     {},                   "github.com",       False),
]
# fmt: on


@pytest.mark.parametrize(("domain", "more", "host", "goes"), HOSTS)
def test_a_cookie_goes_where_a_browser_sends_it(domain: Optional[str], more: Any, host: str, goes: bool) -> None:
    """To its own host, and below it unless it is a host-only one; never to a name that looks alike."""
    cookies = read([listed(domain, **more), listed(host, "b", "2")], host)
    assert cookies == ({"a": "1", "b": "2"} if goes else {"b": "2"})


@given(st.text("abcgithu.-", min_size=1), st.booleans())
def test_no_name_that_merely_ends_alike_is_a_parent(before: str, host_only: bool) -> None:
    """Whatever stands in front of github.com, its cookies are not GitHub's, and GitHub's are not its own."""
    assert read([listed(f"x{before}github.com", hostOnly=host_only), listed("", "b", "2")]) == {"b": "2"}
    if not before.endswith("."):
        assert read([listed(".github.com"), listed("", "b", "2")], f"x{before}github.com") == {"b": "2"}


@pytest.mark.parametrize(
    ("cookies", "wanted"),
    [
        ([listed(".github.com", value="1"), listed("github.com", value="2")], "2"),
        ([listed("github.com", value="1"), listed(".github.com", value="2")], "1"),
        ([listed(None, value="1"), listed(".github.com", value="2")], "2"),
        ([listed(".github.com", value="1"), listed(None, value="2")], "1"),
        ([listed("github.com", value="1"), listed("github.com", value="2")], "2"),
        ([listed(None, value="1"), listed(None, value="2")], "2"),
        ([listed(".github.com", value="1"), listed("github.com", value="")], "1"),
        ([listed(".github.com", value="1"), listed("github.com", value="2", expires=PAST)], "1"),
    ],
    ids=["host", "host first", "any", "any last", "later", "later of any", "empty", "expired"],
)
def test_of_two_with_one_name_the_more_specific_then_the_later_wins(cookies: List[Any], wanted: str) -> None:
    """The host's own before a parent's before one of no domain; then the one further down."""
    assert read(cookies) == {"a": wanted}


def test_empty_cookies_are_left_out() -> None:
    """An empty value authenticates nobody."""
    assert read({"user_session": "abc", "a": ""}) == {"user_session": "abc"}
    assert read("user_session=abc; a=") == {"user_session": "abc"}


NOTHING = "there is no cookie in it"
ELSEWHERE = "only cookies of other sites in it, none for github"
NOTHING_LEFT = [
    ("", NOTHING),
    (" \n", NOTHING),
    ("Cookie: ", NOTHING),
    ({}, NOTHING),
    ([], NOTHING),
    ({"cookies": []}, NOTHING),
    ({"log": {"entries": []}}, NOTHING),
    ([listed("example.org")], ELSEWHERE),
    ([listed("example.org", "user_session", expires=PAST)], ELSEWHERE),
    ([listed("github.com", expires=PAST), listed("example.org")], r"every cookie for github.* has expired"),
    (
        [listed("github.com"), listed("github.com", "user_session", expires=PAST)],
        r"user_session for github.* has expired",
    ),
    ([listed("github.com"), listed("github.com", "user_session", "")], r"user_session for github.* is empty"),
    ({"user_session": ""}, r"user_session for github.* is empty"),
    ({"user_session": "", "logged_in": "yes"}, r"user_session for github.* is empty"),
    ("user_session=; logged_in=yes", r"user_session for github.* is empty"),
    ({"a": ""}, r"every cookie for github.* is empty"),
]


@pytest.mark.parametrize(("source", "reason"), NOTHING_LEFT)
def test_where_nothing_is_left_the_error_says_why(source: Any, reason: str) -> None:
    """Expired, another site's, or empty: each asks for something else of the user."""
    with pytest.raises(MissingCredentialsError, match=reason) as caught:
        read(source)
    assert caught.value.stage == "credentials"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_session_that_has_expired_elsewhere_does_not_matter() -> None:
    """Another site may have a cookie of that name."""
    assert read([listed("example.org", "user_session", expires=PAST), listed("github.com")]) == {"a": "1"}


@pytest.mark.parametrize(
    ("domain", "error"), [("", ValueError), (" . ", ValueError), (None, TypeError), (5, TypeError)]
)
def test_a_domain_that_is_none_is_refused(bare: Path, domain: Any, error: Any) -> None:
    """A wrong call is a wrong call, whether or not there are cookies."""
    with pytest.raises(error, match="domain must be"):
        get_cookies(domain)
    with pytest.raises(error, match="domain must be"):
        read({"a": "1"}, domain)


WAYS = [
    "api_key=",
    "cookies=",
    "COPILOT_SYNC_API_KEY",
    "COPILOT_SYNC_COOKIES",
    "a folder of such files",
    "pip install 'copilot-sync[browser]'",
]


@pytest.mark.parametrize("source", [{}, [], ""], ids=repr)
def test_empty_cookies_are_as_good_as_none_and_the_error_names_every_way(source: Any) -> None:
    """It also says that something was given, and that there was nothing in it."""
    with pytest.raises(MissingCredentialsError, match="cookies: empty") as caught:
        read(source)
    assert [way for way in WAYS if way not in str(caught.value)] == []


def test_without_any_cookies_the_error_names_every_way(bare: Path) -> None:
    """It comes within a second, and nothing is written."""
    started = time.monotonic()
    with pytest.raises(MissingCredentialsError) as caught:
        get_cookies()
    assert time.monotonic() - started < 5
    assert caught.value.stage == "credentials"
    assert [way for way in WAYS if way not in str(caught.value)] == []
    assert os.listdir(str(bare)) == []


def test_the_environment_may_hold_a_header(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COPILOT_SYNC_COOKIES as a ``name=value; …`` header."""
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", " user_session=abc; logged_in=yes\n")
    assert get_cookies() == {"user_session": "abc", "logged_in": "yes"}
    assert get_cookies("127.0.0.1") == {"user_session": "abc", "logged_in": "yes"}


def test_the_environment_may_name_a_file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COPILOT_SYNC_COOKIES as the path of a cookies.txt or JSON file."""
    (bare / "cookies.txt").write_bytes(b"github.com\tFALSE\t/\tTRUE\t4102444800\tuser_session\tabc\n")
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "cookies.txt")
    assert get_cookies(".github.com") == {"user_session": "abc"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("missing.json", "COPILOT_SYNC_COOKIES: there is no cookie file 'missing.json'"),
        (SECRET, "COPILOT_SYNC_COOKIES: expected the path of a cookie file, or a header"),
        ("user_session=", "COPILOT_SYNC_COOKIES: cookies: the user_session for github"),
        ("user_session=a\nb", "COPILOT_SYNC_COOKIES: cookies: the value of the cookie 'user_session' has characters"),
        ("har_and_cookies/b.json", "COPILOT_SYNC_COOKIES: 'har_and_cookies/b.json' holds no user_session for github"),
        (
            "empty",
            "COPILOT_SYNC_COOKIES: no cookies for github.com in the folder 'empty': there is no .har, .json, .txt",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_not_passed_over(
    folder: Callable[..., None], monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    """Whoever sets the variable means it: the error names it, and no other place is searched."""
    folder(a_json={"user_session": "abc"}, b_json={"logged_in": "yes"})
    Path("empty").mkdir()
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", setting)
    with pytest.raises(MissingCredentialsError, match=message) as caught:
        get_cookies()
    assert SECRET not in str(caught.value)


def test_a_folder_that_cannot_be_read_is_told(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's reason. (Permissions do not stop the tests' user if it is root.)"""

    def refuse(path: str) -> List[str]:
        raise PermissionError(13, "Permission denied", path)

    (bare / "exports").mkdir()
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "exports")
    monkeypatch.setattr("copilot_sync.auth.cookies.os.listdir", refuse)
    with pytest.raises(MissingCredentialsError, match="the folder 'exports' can't be read: Permission denied"):
        get_cookies()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"name": "user_session", "value": 5, "domain": "github.com"}, listed("github.com", "_octo")], "not int"),
        (
            [listed("github.com", "user_session", "line\nbreak"), listed("github.com", "_octo")],
            "can't stand in a Cookie",
        ),
        ([listed("github.com", "user_session", expires=PAST), None], "user_session for github.com has expired"),
    ],
    ids=["type", "unsendable", "expired"],
)
def test_a_file_without_a_session_says_what_is_wrong_with_it(bare: Path, entries: Any, words: str) -> None:
    """Only here does it matter what could not be read."""
    (bare / "cookies.json").write_text(json.dumps(entries))
    with pytest.raises(MissingCredentialsError, match=words) as caught:
        read(str(bare / "cookies.json"))
    assert "cookies.json" in str(caught.value)


def test_what_lies_about_is_not_looked_at(folder: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that happens to be where a program is started may be anybody's."""
    folder(a_json={"user_session": "from the folder"})
    assert get_cookies() == {"user_session": "from the folder"}
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    with pytest.raises(MissingCredentialsError):
        get_cookies()


HAR = {
    "log": {
        "entries": [{"request": {"url": "https://github.com/", "cookies": [{"name": "user_session", "value": "h"}]}}]
    }
}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"github_har": HAR}, {"user_session": "h"}),
        ({"github_TXT": b"github.com\tFALSE\t/\tTRUE\t0\tuser_session\tt\n"}, {"user_session": "t"}),
        ({"github_json": [listed("github.com", "user_session", "j")]}, {"user_session": "j"}),
        ({"github_json": {"user_session": "j", "logged_in": "yes"}}, {"user_session": "j", "logged_in": "yes"}),
        ({"a_json": {"user_session": "a"}, "b_json": {"user_session": "b"}}, {"user_session": "b"}),
        ({"a_json": {"user_session": "a"}, "b_json": [listed("github.com", "_octo")]}, {"user_session": "a"}),
        ({"a_json": [listed("github.com", "_octo")], "b_txt": b"notes"}, {"_octo": "1"}),
        (
            {"a_json": [listed("github.com", "_octo", "a")], "b_json": [listed("github.com", "_octo", "b")]},
            {"_octo": "b"},
        ),
        (
            {"a_json": {"user_session": "a"}, "b_json": [listed("github.com", "user_session", expires=PAST)]},
            {"user_session": "a"},
        ),
        (
            {"a_json": {"user_session": "a"}, "b_json": b"{", "c_har": b"\xff", "d_json": {"k": 1}},
            {"user_session": "a"},
        ),
        ({"a_json": {"user_session": "a"}, "b_md": {"user_session": "b"}}, {"user_session": "a"}),
        ({"a_json": [listed("github.com", "user_session", "a"), listed(None, "site")]}, {"user_session": "a"}),
    ],
    ids=[
        "HAR",
        "txt",
        "list",
        "object",
        "later",
        "not mixed",
        "no session",
        "no sessions",
        "expired",
        "broken",
        "ending",
        "no domain",
    ],
)
def test_a_folder_is_read(folder: Callable[..., None], files: Any, wanted: Dict[str, str]) -> None:
    """One file gives the cookies: the last by name that is logged in. The others do not get in its way."""
    folder(**files)
    assert get_cookies() == wanted


def test_other_sites_secrets_in_the_folder_do_not_go_to_github(folder: Callable[..., None]) -> None:
    """A plain object names no site. Without GitHub's own cookie in it, it is not GitHub's."""
    folder(
        auth_json={"api_key": SECRET, "access_token": SECRET},
        other_json=[listed("example.org", "user_session", SECRET)],
    )
    with pytest.raises(MissingCredentialsError, match="it may belong to any site") as caught:
        get_cookies()
    assert SECRET not in str(caught.value)


def test_the_search_says_where_it_found_them(folder: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, or the file: in words that show no value, whether they can log in or not."""
    folder(a_json={"user_session": SECRET}, b_json=[listed("github.com")])
    found = find_cookies()
    assert (found.place, found.cookies) == (os.path.join("har_and_cookies", "a.json"), {"user_session": SECRET})
    assert found.has_session
    assert SECRET not in repr(found)
    monkeypatch.setenv("COPILOT_SYNC_COOKIES", "a=1")
    found = find_cookies()
    assert (found.place, found.has_session) == ("COPILOT_SYNC_COOKIES", False)


def test_the_error_says_what_was_wrong_with_the_folder(folder: Callable[..., None]) -> None:
    """Every file that was looked at, with the reason why it did not help; the same advice helps against each."""
    folder(
        a_json=[listed("github.com", "user_session", SECRET, expires=PAST)],
        b_har=b'{"log": {"entries": [' + SECRET.encode(),
        c_txt=b"",
        d_json=[],
        e_json={"log": {"entries": [{"request": {"url": "https://other.example", "cookies": [listed(None)]}}]}},
        f_md=b"not looked at",
        g_txt=SECRET.encode(),
        h_json={"other_site": SECRET},
        i_json=[listed("github.com", "user_session", "line\nbreak" + SECRET)],
        j_json=b"[" * 100_000,
    )
    place = Path("har_and_cookies")
    (place / "k.har").symlink_to("l.har")
    (place / "l.har").symlink_to("k.har")
    with (place / "m.json").open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    (place / "n.json").mkdir()
    with pytest.raises(MissingCredentialsError) as caught:
        get_cookies()
    words = str(caught.value)
    for name, why in [
        ("e.json", "there are only cookies of other sites"),
        ("g.txt", "is not a cookie file: expected JSON or a cookies.txt"),
        ("h.json", "it names no domains and has no user_session, so it may belong to any site"),
        ("i.json", "empty, there is no cookie in it; the value of the cookie 'user_session' has characters that can't"),
        ("j.json", "is not a cookie file: its JSON is broken"),
        ("k.har", "can't be read: Too many levels of symbolic links"),
        ("m.json", f"is not a cookie file: it is larger than {FILE_LIMIT} bytes"),
        ("n.json", "is not a cookie file: it is a folder, a pipe or a device"),
    ]:
        assert f"'{name}': {why}" in words
    assert "; and 3 more: log in to github.com" in words
    assert (words.count("log in to github.com"), SECRET in words, "f.md" in words) == (1, False, False)
    for name in "defghijkmn":
        next(place.glob(f"{name}.*")).rename(place / f"{name}.md")
    (place / "l.har").unlink()
    with pytest.raises(MissingCredentialsError, match="'a.json': the user_session for github.com has expired") as few:
        get_cookies()
    assert "'b.har': is not a cookie file: its JSON is broken; 'a.json'" in str(few.value)
    assert "'c.txt': empty, there is no cookie in it; 'b.har'" in str(few.value)


def test_a_crowded_folder_makes_no_long_error(folder: Callable[..., None]) -> None:
    """However many files it has, and however long their names are."""
    folder(**{f"{'x' * 200}{number}_json": b"{" for number in range(300)})
    with pytest.raises(MissingCredentialsError, match="and 290 more") as caught:
        get_cookies()
    assert len(str(caught.value)) < 4000


def planted(folder: Path) -> Iterator[Any]:
    """Sources that all fail, each with a secret in it."""
    (folder / "ten").write_bytes(b"\xff\xfe" + SECRET.encode("utf-16-le") + SECRET.encode())
    contents = [
        f'{{"user_session": "{SECRET}",',
        f'["{SECRET}"]',
        f'{{"user_session": ["{SECRET}"]}}',
        f'[{{"name": ["{SECRET}"], "value": "{SECRET}"}}]',
        f'[{{"name": "a", "value": "{SECRET}\\n"}}]',
        f'[{{"name": "a", "value": "{SECRET}", "domain": "example.org"}}]',
        f"github.com\tFALSE\t/\tTRUE\t{SECRET}\tuser_session\t{SECRET}\n",
        f"github.com\tFALSE\t/\tTRUE\t1\tuser_session\t{SECRET}\n",
        f"user_session={SECRET}\n",
        f"Cookie: user_session={SECRET}\n",
    ]
    for number, content in enumerate(contents):
        path = folder / str(number)
        path.write_bytes(content.encode())
        yield path
        yield str(path)
    yield from (folder / "ten", str(folder / "ten"), folder / "missing")
    yield from (
        SECRET,
        f"/{SECRET}",
        f"/{SECRET}=",
        f"user_session={SECRET}\r\nX: y",
        f"a=b; {SECRET}",
        f"{{'a': '{SECRET}='}}",
    )
    yield from (
        {"user_session": SECRET + "\n"},
        {SECRET * 5 + "=": "x"},
        {"user_session": [SECRET]},
        {"a": SECRET.encode()},
    )
    yield from ([SECRET], [listed("example.org", value=SECRET)], [listed("github.com", value=SECRET, expires=PAST)])
    yield from (SECRET.encode(), [listed("github.com", value=SECRET + "\0")], [listed(SECRET.encode(), value=SECRET)])  # type: ignore[arg-type]


def everything_about(error: BaseException) -> str:
    """All that a log, a tracker or a debugger would show of an error and of those behind it."""
    parts = [str(error), repr(error), repr(error.args), repr(vars(error))]
    parts += [repr(getattr(error, name, None)) for name in ("doc", "object", "filename")]
    parts += traceback.format_exception(type(error), error, error.__traceback__)
    for behind in filter(None, (error.__cause__, error.__context__)):
        parts.append(everything_about(behind))
    return "\n".join(parts)


def test_no_value_gets_into_an_error_or_a_log(
    bare: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A planted secret is found in no text, argument, cause, context or traceback, and in no log record."""
    sources = list(planted(bare))
    with caplog.at_level(logging.DEBUG):
        for source in sources:
            with pytest.raises((ValueError, TypeError, MissingCredentialsError)) as caught:
                read(source)
            assert SECRET not in everything_about(caught.value), source
            if isinstance(source, str):
                monkeypatch.setenv("COPILOT_SYNC_COOKIES", source)
                with pytest.raises(MissingCredentialsError) as missing:
                    get_cookies()
                assert SECRET not in everything_about(missing.value), source
        assert read({"user_session": SECRET}) == {"user_session": SECRET}
    assert caplog.records
    assert SECRET not in caplog.text
