"""The ways in which cookies are written down: each is read as it is found, and what is broken says so."""

import http.cookiejar
import json
import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from copilot_sync.auth import cookie_formats
from copilot_sync.auth.cookies import read_cookies
from copilot_sync.errors import MissingCredentialsError

NOW = 1_800_000_000.0  # 2027-01-15
FUTURE = 1_900_000_000
PAST = 1_700_000_000


def read(source: Any, domain: str = "github.com") -> Dict[str, str]:
    return read_cookies(source, domain, now=lambda: NOW)


Save = Callable[[bytes], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a file and gives its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "export"
        path.write_bytes(content)
        return path

    return write


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to be written over and over again."""
    return tmp_path_factory.mktemp("scratch") / "export"


@pytest.mark.parametrize(
    "header",
    [
        "user_session=abc; logged_in=yes",
        "Cookie: user_session=abc; logged_in=yes",
        "cookie:user_session=abc;logged_in=yes;",
        "  user_session = abc ;\tlogged_in = yes ; \r\n",
    ],
)
def test_a_header_is_read(header: str) -> None:
    """A header may carry its name, loose blanks, and the line end that copying adds."""
    assert read(header) == {"user_session": "abc", "logged_in": "yes"}


def test_a_value_stays_as_it_is() -> None:
    """Quotes, equals signs and percent signs belong to the value."""
    assert read('a="x y"; b=1=2==; c=%2F') == {"a": '"x y"', "b": "1=2==", "c": "%2F"}


def test_a_mapping_is_read() -> None:
    """Names and values, whatever the host."""
    assert read({"user_session": "abc"}, domain="127.0.0.1") == {"user_session": "abc"}


NETSCAPE = b"""\
# Netscape HTTP Cookie File
# https://curl.se/docs/http-cookies.html

#HttpOnly_github.com\tFALSE\t/\tTRUE\t1900000000\tuser_session\tabc
.github.com\tTRUE\t/\tTRUE\t1900000000\t_octo\tGH1.1
github.com\tFALSE\t/\tTRUE\t0\t_gh_sess\tdef
github.com\tFALSE\t/\tTRUE\tSession\tcolor\tdark
github.com\tFALSE\t/\tTRUE\t1700000000\told\t1
.example.org\tTRUE\t/\tTRUE\t1900000000\tother\t2
github.com\tFALSE\t/\tTRUE\t1900000000\tno_value
"""


@pytest.mark.parametrize(
    "content",
    [
        NETSCAPE,
        NETSCAPE.split(b"\n", 2)[2],
        NETSCAPE.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + NETSCAPE,
        b"\xef\xbb\xbf" + NETSCAPE.split(b"\n", 3)[3],
    ],
    ids=["as exported", "without the magic line", "CRLF", "byte order mark", "byte order mark on a cookie"],
)
def test_a_cookies_txt_is_read(save: Save, content: bytes) -> None:
    """Netscape's format, with curl's HttpOnly lines and with or without its first line."""
    wanted = {"user_session": "abc", "_octo": "GH1.1", "_gh_sess": "def", "color": "dark"}
    assert read(save(content)) == wanted
    assert read(str(save(content))) == wanted


EXTENSION = b"""\
[
  {"domain": ".github.com", "expirationDate": 1900000000.25, "hostOnly": false, "httpOnly": false, "name": "_octo",
   "path": "/", "sameSite": "lax", "secure": true, "session": false, "storeId": "0", "value": "GH1.1", "id": 1},
  {"domain": "github.com", "hostOnly": true, "name": "_gh_sess", "session": true, "value": "def"},
  {"domain": "github.com", "expirationDate": 1700000000, "name": "old", "value": "1"},
  {"domain": "evilgithub.com", "expirationDate": 1900000000, "name": "evil", "value": "2"},
  {"domain": "github.com", "expirationDate": 1900000000, "name": "user_session", "value": "abc"}
]
"""
SELENIUM = b"""\
[{"domain": "github.com", "expiry": 1900000000, "httpOnly": true, "name": "user_session", "value": "abc"},
 {"domain": "github.com", "expiry": 1700000000, "name": "old", "value": "1"},
 {"domain": ".github.com", "name": "_octo", "value": "GH1.1"},
 {"domain": "github.com", "name": "_gh_sess", "value": "def"}
]
"""
PLAYWRIGHT = b"""\
{"cookies": [
  {"name": "user_session", "value": "abc", "domain": "github.com", "path": "/", "expires": 1900000000.5},
  {"name": "_octo", "value": "GH1.1", "domain": ".github.com", "path": "/", "expires": 1900000000},
  {"name": "old", "value": "1", "domain": "github.com", "path": "/", "expires": 1700000000},
  {"name": "_gh_sess", "value": "def", "domain": "github.com", "path": "/", "expires": -1}], "origins": []}
"""
PLAIN = b'\xef\xbb\xbf\n {"user_session": "abc", "_octo": "GH1.1", "_gh_sess": "def"}'
HAR = b"""\
{"log": {"version": "1.2", "entries": [
  {"request": {"url": "https://github.com/login", "cookies": [{"name": "_gh_sess", "value": "before the login"}]}},
  {"request": {"url": "https://github.com/copilot", "cookies": [
    {"name": "_gh_sess", "value": "def"},
    {"name": "user_session", "value": "abc", "expires": "2030-03-17T17:46:40.000Z"},
    {"name": "old", "value": "1", "expires": "2023-11-14T22:13:20.000Z"}]}},
  {"request": {"url": "https://api.github.com/", "cookies": [
    {"name": "_octo", "value": "GH1.1", "domain": ".github.com"}, {"name": "api", "value": "2"}]}},
  {"request": {"url": "https://evilgithub.com/", "cookies": [{"name": "evil", "value": "3"}]}},
  {"request": {"url": "http://[broken", "cookies": [{"name": "nowhere", "value": "4"}]}},
  {"request": {"url": null, "cookies": [{"name": "nowhere", "value": "4"}]}},
  {"request": {"url": "https://github.com/", "cookies": null}}, {"request": null}, {}, null]}}
"""


@pytest.mark.parametrize("content", [EXTENSION, SELENIUM, PLAYWRIGHT, PLAIN, HAR])
def test_json_is_read(save: Save, content: bytes) -> None:
    """What browser extensions, Selenium, Playwright and developer tools export, and a plain object."""
    wanted = {"user_session": "abc", "_octo": "GH1.1", "_gh_sess": "def"}
    assert read(save(content)) == wanted
    assert read(json.loads(content.decode("utf-8-sig"))) == wanted


def test_a_tuple_of_cookies_is_read() -> None:
    """A list given directly may be a tuple; cookies that name no domain go to any host."""
    assert read(({"name": "a", "value": "1"}, {"name": "b", "value": "2", "domain": None})) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("expires", "kept"),
    [
        (FUTURE, True),
        (FUTURE * 1000, True),
        (PAST, False),
        (PAST * 1000, False),
        (NOW, False),
        (0, True),
        (-1, True),
        (None, True),
        (True, True),
        (float("nan"), True),
        (10**400, True),
        (str(FUTURE), True),
        (str(PAST), False),
        ("2030-03-17T17:46:40Z", True),
        ("2023-11-14T22:13:20.123456789Z", False),
        ("2027-01-15T10:00:01+02:00", True),
        ("2027-01-15T09:59:59+02:00", False),
        ("2027-01-15T03:00:01.5-0500", True),
        ("2027-01-15T02:59:59.5-0500", False),
        ("Sun, 17 Mar 2030 17:46:40 GMT", True),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", False),
        (str(PAST * 1000), False),
        ("Session", True),
        ([], True),
    ],
    ids=repr,
)
def test_an_expired_cookie_is_left_out(expires: Any, kept: bool) -> None:
    """Seconds, milliseconds and dates are understood; what is none of them lasts as long as the session."""
    cookies = read([{"name": "a", "value": "1"}, {"name": "b", "value": "2", "expirationDate": expires}])
    assert cookies == ({"a": "1", "b": "2"} if kept else {"a": "1"})


def test_a_cookie_jar_is_read() -> None:
    """A jar filled by http.cookiejar itself, from a server's Set-Cookie headers."""
    jar = http.cookiejar.CookieJar()
    for domain, host_only, name in (("github.com", True, "user_session"), (".github.com", False, "_octo")):
        jar.set_cookie(
            http.cookiejar.Cookie(
                0,
                name,
                "abc",
                None,
                False,
                domain,
                not host_only,
                not host_only,
                "/",
                True,
                True,
                None,
                True,
                None,
                None,
                {},
            )
        )
    assert read(jar) == {"user_session": "abc", "_octo": "abc"}
    assert read_cookies(jar, "gist.github.com") == {"_octo": "abc"}


def test_a_jar_of_requests_is_read_as_a_jar() -> None:
    """It is a mapping too, but its domains count; a cookie without one goes to any host."""
    jar = requests.cookies.RequestsCookieJar()
    jar.set("user_session", "abc", domain="github.com", expires=FUTURE)
    jar.set("old", "1", domain="github.com", expires=PAST)
    jar.set("evil", "2", domain="evilgithub.com")
    jar.set("anywhere", "3")
    assert read(jar) == {"anywhere": "3", "user_session": "abc"}
    assert read(jar, "localhost") == {"anywhere": "3"}


def test_a_jar_knows_hosts_without_a_dot() -> None:
    """http.cookiejar writes ``localhost`` as ``localhost.local``."""
    jar = requests.cookies.RequestsCookieJar()
    jar.set("user_session", "abc", domain="localhost.local")
    assert read(jar, "localhost") == {"user_session": "abc"}


#: What other sites leave in an export of a whole browser, in each of the formats.
ODD_LINES = b"""\
example.org\tTRUE\t/\tTRUE\t0\tname\tLatin-1: \xe4\xff
example.org\tTRUE\t/\tTRUE\tsoon\ta\tb
example.org\tFALSE\t/\tFALSE
example.org FALSE / TRUE 0 a b
\xe2\x80\xa6
example.org\tTRUE\t/\tTRUE\t0\ta\tb\tc\td
example.org\tTRUE\t/\tTRUE\t0\ta\tNUL: \0
"""
ODD_ENTRIES: List[Any] = [
    None,
    "a=b",
    {},
    {"name": 5, "value": "b", "domain": "example.org"},
    {"name": "a", "value": None, "domain": ".example.org"},
    {"name": "a", "value": {"b": 1}, "domain": "example.org", "expires": []},
    {"name": "a", "value": "b", "domain": ["example.org"]},
    {"name": "a\n", "value": "\u20ac", "domain": "example.org"},
    {"name": "a", "value": "line\nbreak", "domain": "github.com"},
]
SESSION = {"name": "user_session", "value": "abc", "domain": "github.com"}


@pytest.mark.parametrize(
    "content",
    [
        ODD_LINES + b"github.com\tFALSE\t/\tTRUE\t0\tuser_session\tabc\n" + ODD_LINES,
        json.dumps([*ODD_ENTRIES, SESSION, *ODD_ENTRIES]).encode(),
        json.dumps({"cookies": [*ODD_ENTRIES, SESSION], "origins": 5}).encode(),
        json.dumps({"user_session": "abc", "expires": 5, "a": None, "b": "line\nbreak"}).encode(),
        json.dumps(
            {
                "log": {
                    "entries": [
                        *ODD_ENTRIES,
                        {"request": {"url": "https://example.org/", "cookies": ODD_ENTRIES, "headers": ODD_ENTRIES}},
                        {"request": {"url": "https://github.com/", "cookies": [*ODD_ENTRIES, SESSION]}},
                        {"request": {"url": "https://github.com/", "cookies": 5, "headers": 5}},
                    ]
                }
            }
        ).encode(),
    ],
    ids=["lines", "list", "storage state", "object", "HAR"],
)
def test_what_cannot_be_read_spoils_no_file(save: Save, content: bytes) -> None:
    """A file holds the cookies of many sites, and an odd line of one costs nobody the session."""
    assert read(save(content)) == {"user_session": "abc"}


def test_a_list_that_was_given_is_judged_by_what_is_wanted_of_it() -> None:
    """What belongs to another site may be as odd as it likes; what may be ours has to be right."""
    odd = [entry for entry in ODD_ENTRIES if isinstance(entry, dict) and "example.org" in (entry.get("domain") or "")]
    assert read([*odd[:3], SESSION]) == {"user_session": "abc"}
    with pytest.raises(TypeError, match="the value of the cookie 'a' must be a string, not NoneType"):
        read([SESSION, {"name": "a", "value": None, "domain": ".github.com"}])


@pytest.mark.parametrize("name", ["Cookie", "cookie", "COOKIE "])
def test_a_har_may_have_its_cookies_in_the_header_alone(save: Save, name: str) -> None:
    """Some recorders fill the list of cookies, some leave it empty or out, some split the header."""
    requests_ = [
        {"url": "https://example.org/", "headers": [{"name": name, "value": "user_session=other"}]},
        {"url": "https://github.com/", "cookies": [], "headers": [{"name": name, "value": "user_session=old; a=1; b"}]},
        {
            "url": "https://github.com/copilot",
            "headers": [
                {"name": "Accept", "value": "user_session=wrong"},
                {"name": name, "value": "user_session=a=b"},
                {"name": name, "value": " _octo=GH1.1 ;"},
            ],
        },
    ]
    har = {"log": {"entries": [{"request": request} for request in requests_]}}
    assert read(save(json.dumps(har).encode())) == {"user_session": "a=b", "a": "1", "_octo": "GH1.1"}
    assert read(har) == {"user_session": "a=b", "a": "1", "_octo": "GH1.1"}


class Path8(os.PathLike):  # type: ignore[type-arg]
    """A path-like object whose path is bytes, as the standard library allows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


def test_a_path_may_be_any_path_like_object(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strings, ``Path``, path-likes of bytes, and ``~`` for the home folder in a string."""
    path = save(PLAIN)
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert read(str(path)) == read(path) == read(Path8(path)) == read(os.path.join("~", path.name))


def test_an_existing_file_wins_over_a_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A string is a path where there is such a file, even with a ``=`` in its name."""
    monkeypatch.chdir(tmp_path)
    Path("a=b").write_bytes(b'{"user_session": "from the file"}')
    assert read("a=b") == {"user_session": "from the file"}
    assert read("c=d") == {"c": "d"}


@pytest.mark.parametrize(
    "source", [None, 1, b"a=b", 1.5, {"a=b"}, object(), iter([])], ids=lambda value: type(value).__name__
)
def test_a_source_of_another_type_is_refused(source: Any) -> None:
    """The error names what it may be, and what came."""
    with pytest.raises(TypeError, match=f"mapping of names to values.* not {type(source).__name__}"):
        read(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"a": 1}, "the value of the cookie 'a' must be a string, not int"),
        ({"a": None}, "the value of the cookie 'a' must be a string, not NoneType"),
        ({1: "a"}, "the name of a cookie must be a string, not int"),
        ([{"name": "a"}], "the value of the cookie 'a' must be a string, not NoneType"),
        ([{"value": "a"}], "the name of a cookie must be a string, not NoneType"),
        ([{"name": "a", "value": "b", "domain": 1}], "the domain of the cookie 'a' must be a string, not int"),
        (["a=b"], "a cookie must be an object with name and value, not str"),
        ([None], "a cookie must be an object with name and value, not NoneType"),
    ],
)
def test_a_part_of_another_type_is_refused(source: Any, message: str, save: Save) -> None:
    """Given directly it is a wrong type; in a file it is a file that holds no cookies."""
    with pytest.raises(TypeError, match=message):
        read(source)
    if source != {1: "a"}:  # JSON has no such name
        path = save(json.dumps(source).encode())
        with pytest.raises(MissingCredentialsError, match=message) as caught:
            read(path)
        assert repr(str(path)) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "its JSON is broken"),
        (b'["a"', "its JSON is broken"),
        (b"[" * 100, "its JSON is broken"),
        (b"g\x00i\x00t\x00", "it has NUL characters"),
        (b"[" + b" " * 9 + b"\x00]", "it has NUL characters"),
        (b"user_session=abc", "line 1 does not have seven fields"),
        (b"# a comment\n\ngithub.com FALSE / TRUE 0 user_session abc\n", "line 3 does not have seven fields"),
        (b"github.com\tFALSE\t/\tTRUE\tsoon\tuser_session\tabc\n", "line 1 does not have seven fields"),
        (b"github.com\tFALSE\t/\tTRUE\t0\tuser_session\tabc\tdef\n", "line 1 does not have seven fields"),
        (b"<html>\n", "line 1 does not have seven fields"),
    ],
    ids=[
        "half an object",
        "half a list",
        "nested deeply",
        "UTF-16",
        "a NUL",
        "a header",
        "blanks",
        "a word",
        "eight",
        "HTML",
    ],
)
def test_a_file_that_is_not_one_of_cookies_is_refused(save: Save, content: bytes, message: str) -> None:
    """The error names the file and what was expected, and nothing that stands in it."""
    path = save(content)
    with pytest.raises(MissingCredentialsError, match=message) as caught:
        read(path)
    assert repr(str(path)) in str(caught.value)
    assert "abc" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    "text",
    [".github.com\tTRUE\t/\tTRUE\t0\tuser_session\tabc\n# a comment\n", '{\n"user_session":\n"abc"}'],
    ids=["text", "JSON"],
)
def test_a_file_may_be_saved_as_any_text_is(save: Save, text: str, encoding: str, end: str) -> None:
    """Editors and exports have their own ideas of encodings and line ends."""
    assert read(save(text.replace("\n", end).encode(encoding))) == {"user_session": "abc"}


def test_a_huge_file_is_refused(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file past the limit is not read into memory."""
    monkeypatch.setattr(cookie_formats, "FILE_LIMIT", 100)
    assert read(save(b'{"a": "%s"}' % (b"x" * 91))) == {"a": "x" * 91}
    with pytest.raises(MissingCredentialsError, match="larger than 100 bytes"):
        read(save(b'{"a": "%s"}' % (b"x" * 92)))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder is not a file, and is not taken for an empty one."""
    with pytest.raises(MissingCredentialsError, match="a folder, a pipe or a device"):
        read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe into which nobody writes would block for ever."""
    os.mkfifo(str(tmp_path / "pipe"))
    with pytest.raises(MissingCredentialsError, match="a folder, a pipe or a device"):
        read(tmp_path / "pipe")


def test_a_file_that_cannot_be_opened_is_refused(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason is told. (Permissions themselves do not stop the tests' user where it is root.)"""
    path = save(PLAIN)

    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cookie_formats, "open", refuse, raising=False)
    with pytest.raises(MissingCredentialsError, match="can't be read: Permission denied"):
        read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A path object is a path, whatever it looks like."""
    with pytest.raises(MissingCredentialsError, match=r"'.*a=b' can't be read: No such file"):
        read(tmp_path / "a=b")
    with pytest.raises(MissingCredentialsError, match="no path can be like this"):
        read(Path("a\0b"))


@pytest.mark.parametrize(
    "text",
    ["cookies.txt", "./sub/Cookies.JSON", "/no/where/a=b.har", "{folder}/cookies", "~/cookies.txt", "{folder}/a=b"],
)
def test_a_string_that_names_a_missing_file_is_told_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """What is plainly a path stands in the error: by its ending, or since its folder exists."""
    monkeypatch.chdir(tmp_path)
    path = text.format(folder=tmp_path)
    with pytest.raises(MissingCredentialsError, match="there is no cookie file") as caught:
        read(path)
    assert repr(os.path.expanduser(path)) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "zYxW9876543210",
        "/zYxW9876543210",
        "zYxW98/76543210",
        "zYxW98/765==",
        "Cookie: zYxW9876543210",
        "zYxW\n9876",
        "zYxW" * 5000,
    ],
    ids=["bare", "slash in front", "slash within", "base64", "labelled", "two lines", "long"],
)
def test_a_string_that_may_be_a_secret_is_not_told_back(text: str) -> None:
    """The bare value of a cookie is neither a path nor a header; it must not get into a log by way of the error."""
    with pytest.raises(MissingCredentialsError, match="expected the path of a cookie file, or a header") as caught:
        read(text)
    assert "zYxW" not in repr(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"": "x"}, "empty name"),
        ("=x", "empty name"),
        ({"a b": "x"}, "the name of a cookie has characters"),
        ({"a;b": "x"}, "the name of a cookie has characters"),
        ({"a=b": "x"}, "the name of a cookie has characters"),
        ({"a\u20ac": "x"}, "the name of a cookie has characters"),
        ({"a\n": "x"}, "the name of a cookie has characters"),
        ("a=b;\r\nc=d", "the name of a cookie has characters"),
        ({"user_session": "x\r\nX-Evil: 1"}, "the value of the cookie 'user_session' has characters"),
        ({"user_session": "x\n"}, "the value of the cookie 'user_session' has characters"),
        ({"user_session": "x\0"}, "the value of the cookie 'user_session' has characters"),
        ({"user_session": "x\x7f"}, "the value of the cookie 'user_session' has characters"),
        ({"user_session": "x\x85"}, "the value of the cookie 'user_session' has characters"),
        ({"user_session": "x; admin=1"}, "the value of the cookie 'user_session' has characters"),
        ({"user_session": "x\u20ac"}, "the value of the cookie 'user_session' has characters"),
        ({"user_session": "x\udc80"}, "the value of the cookie 'user_session' has characters"),
        ("a=b; garbage", "part 2 of the cookie header is not 'name=value'"),
        ('[{"name": "user_session", "value": "x=="}]', "the name of a cookie has characters"),
    ],
)
def test_what_cannot_stand_in_a_header_is_refused(source: Any, message: str) -> None:
    """Nothing can slip a second header or a second cookie in; the error names the cookie, never its value."""
    with pytest.raises(ValueError, match=message) as caught:
        read(source)
    assert "x" not in str(caught.value).replace("expected", "")


NAMES = st.text("abcXYZ019_-.!#$%&'*+^`|~", min_size=1, max_size=12)
VALUES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, blacklist_characters=";"), min_size=1, max_size=30
)


def as_netscape(cookies: Dict[str, str]) -> bytes:
    lines = [f".github.com\tTRUE\t/\tTRUE\t{FUTURE}\t{name}\t{value}\n" for name, value in cookies.items()]
    return "".join(lines).encode()


def as_list(cookies: Dict[str, str]) -> List[Dict[str, Any]]:
    return [{"name": name, "value": value, "domain": "github.com"} for name, value in cookies.items()]


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
def test_every_format_holds_every_cookie(scratch: Path, cookies: Dict[str, str]) -> None:
    """Whatever the names and values, they come back as they were written, from each of the formats."""
    for content in (as_netscape(cookies), json.dumps(cookies).encode(), json.dumps(as_list(cookies)).encode()):
        scratch.write_bytes(content)
        assert read(scratch) == cookies
    assert read(cookies) == cookies
    assert read(as_list(cookies)) == cookies
    assert read("Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items())) == cookies


@given(st.dictionaries(NAMES | st.text(), VALUES | st.text(), max_size=4))
@example({"a": "b", "c": ""})
@example({"a": "\r\n"})
def test_only_what_can_be_sent_comes_out(cookies: Dict[str, str]) -> None:
    """Any text at all is either refused or makes one single header line that reads back the same."""
    try:
        chosen = read(cookies)
    except (ValueError, MissingCredentialsError):
        return
    line = "; ".join(f"{name}={value}" for name, value in chosen.items()).encode("latin-1")
    assert not re.search(rb"[\x00-\x1f\x7f]", line)
    parts = [part.split(b"=", 1) for part in line.split(b"; ")]
    assert {name.decode("latin-1"): value.decode("latin-1") for name, value in parts} == chosen


PIECES = [
    b"{",
    b"[",
    b'"',
    b":",
    b",",
    b"}",
    b"]",
    b"null",
    b"\t",
    b"\n",
    b"github.com",
    b"1",
    b'"log"',
    b'"cookies"',
    b"\xff",
]


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=5)).map(b"".join))
@example(b'{"a": "b"}')
@example(b"[")
def test_no_file_causes_any_other_error(scratch: Path, content: bytes) -> None:
    """Whatever stands in a file, only the documented errors come out."""
    scratch.write_bytes(content)
    try:
        assert read(scratch)
    except (ValueError, MissingCredentialsError) as error:
        assert (error.__cause__, error.__context__) == (None, None)
