"""Defaults, limits, URLs and the environment: what is taken, and what is refused with which words."""

import dataclasses
import math
import pickle
from typing import Any, Dict, Optional, Tuple
from urllib.parse import urlsplit

import pytest

from copilot_sync import settings
from copilot_sync.settings import (
    Environment,
    Limits,
    Timeout,
    Urls,
    address_of,
    choose_urls,
    is_loopback,
    origin_of,
)

BLANK = Environment.read({})


def test_the_defaults_are_the_documented_ones() -> None:
    """The two hosts, the model and the time limits stand in the documentation."""
    assert settings.GITHUB_URL == "https://github.com"
    assert settings.API_URL == "https://api.individual.githubcopilot.com"
    assert settings.MODEL == "auto"
    assert dataclasses.astuple(Timeout()) == (10.0, 60.0, 600.0, None)
    assert dataclasses.astuple(Limits()) == (16 * 1024**2, 64 * 1024**2, 8 * 1024**2)
    assert settings.MAX_ERROR_TEXT == 500
    assert (settings.RECOVERY_TIMEOUT, settings.RECOVERY_DELAY) == (30.0, 2.0)
    assert (settings.DRAIN_BYTES, settings.DRAIN_SECONDS) == (64 * 1024, 0.05)


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, (10.0, 60.0, 600.0, None)),
        (5, (5.0, 5.0, 600.0, None)),
        (0.25, (0.25, 0.25, 600.0, None)),
        (1_000_000, (1e6, 1e6, 600.0, None)),
        (Timeout(connect=1, total=3), (1.0, 60.0, 600.0, 3.0)),
        (Timeout(connect=None, read=None, stall=None, total=None), (10.0, 60.0, 600.0, None)),
    ],
)
def test_a_time_limit_may_be_given_in_three_ways(value: Any, expected: Any) -> None:
    """Nothing is the defaults and never endless, a number is both connect and read, a ``Timeout`` is itself."""
    assert dataclasses.astuple(Timeout.from_value(value)) == expected


@pytest.mark.parametrize("name", ["connect", "read", "stall", "total"])
@pytest.mark.parametrize("value", ["5", True, False, b"5", [5], 5j, Timeout()], ids=repr)
def test_a_time_limit_must_be_a_number(name: str, value: Any) -> None:
    """The error names the argument and what came."""
    with pytest.raises(TypeError, match=f"timeout {name} must be a number of seconds, not {type(value).__name__}"):
        Timeout(**{name: value})


@pytest.mark.parametrize("name", ["connect", "read", "stall", "total"])
@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, math.nan, math.inf, -math.inf, 1_000_001, 10**400], ids=str)
def test_a_time_limit_must_be_one_that_can_be_waited_for(name: str, value: float) -> None:
    """Zero, less, endless, and what no socket takes are refused at once and not when it is waited for."""
    with pytest.raises(ValueError, match=f"timeout {name} must be a number of seconds above zero"):
        Timeout(**{name: value})


@pytest.mark.parametrize("value", ["5", True, (1, 2)], ids=repr)
def test_what_is_no_time_limit_is_refused(value: Any) -> None:
    """The tuple of ``requests`` is not taken either: it has no total."""
    with pytest.raises(TypeError, match="timeout connect must be a number"):
        Timeout.from_value(value)


@pytest.mark.parametrize("name", ["event", "answer", "reply"])
@pytest.mark.parametrize(
    "value, kind, words",
    [
        (0, ValueError, "at least one byte, not 0"),
        (-5, ValueError, "at least one byte, not -5"),
        (1.5, TypeError, "a whole number of bytes, not float"),
        (True, TypeError, "a whole number of bytes, not bool"),
        (None, TypeError, "a whole number of bytes, not NoneType"),
    ],
    ids=str,
)
def test_a_limit_must_be_a_whole_number_of_bytes(name: str, value: Any, kind: Any, words: str) -> None:
    """A limit can't be switched off, only set."""
    with pytest.raises(kind, match=f"limit {name} must be {words}"):
        Limits(**{name: value})


def test_a_limit_may_be_as_small_as_one_byte() -> None:
    """Each of the three is settable by itself."""
    assert dataclasses.astuple(Limits(event=1, answer=2, reply=3)) == (1, 2, 3)


@pytest.mark.parametrize("value", [Timeout(1, 2, 3, 4), Limits(1, 2, 3), Urls("https://a", "https://b")], ids=repr)
def test_settings_are_frozen_values(value: Any) -> None:
    """They compare by value, pickle, can be keys of a dictionary, and can't be changed behind a client's back."""
    assert pickle.loads(pickle.dumps(value)) == value
    assert {value: 1}[pickle.loads(pickle.dumps(value))] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, 5)


ALL = {
    "COPILOT_SYNC_API_KEY": "key",
    "COPILOT_SYNC_COOKIES": "user_session=abc",
    "COPILOT_SYNC_GITHUB_URL": "https://git.example",
    "COPILOT_SYNC_API_URL": "https://api.example",
    "COPILOT_SYNC_MODEL": "o1-mini",
    "COPILOT_SYNC_TOKEN_CACHE": "off",
    "COPILOT_SYNC_LEDGER": "off",
    "COPILOT_SYNC_ALLOW_HTTP": "1",
    "COPILOT_SYNC_PROFILE": "work",
}


def test_all_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are the documented ones, and the process's environment is read at the time of the call."""
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    assert dataclasses.astuple(Environment.read()) == tuple(ALL.values())
    monkeypatch.delenv("COPILOT_SYNC_MODEL")
    assert Environment.read().model is None


@pytest.mark.parametrize("blank", ["", " ", "\t\n"], ids=repr)
def test_a_blank_variable_is_none(blank: str) -> None:
    """``COPILOT_SYNC_API_KEY= program`` unsets it, as people expect; blanks around a value are dropped."""
    assert Environment.read(dict.fromkeys(ALL, blank)) == BLANK == Environment(*[None] * len(ALL))
    assert Environment.read({name: f" {value}{blank}" for name, value in ALL.items()}) == Environment.read(ALL)


def test_an_environment_shows_none_of_its_secrets() -> None:
    """It holds a key and cookies in the clear, so that it is never printed with them."""
    environment = Environment.read(ALL)
    for shown in (repr(environment), str(environment), f"{environment}", f"{[environment]!r}"):
        assert "key" not in shown
        assert "abc" not in shown


@pytest.mark.parametrize(
    "arguments, variables, expected",
    [
        ((None, None), {}, ("https://github.com", "https://api.individual.githubcopilot.com")),
        (("", ""), {}, ("https://github.com", "https://api.individual.githubcopilot.com")),
        ((None, None), ALL, ("https://git.example", "https://api.example")),
        (("https://a.example/", "https://b.example"), ALL, ("https://a.example", "https://b.example")),
        ((None, "https://b.example"), ALL, ("https://git.example", "https://b.example")),
    ],
    ids=["defaults", "blank arguments", "environment", "arguments", "one of each"],
)
def test_arguments_win_over_the_environment_and_that_over_the_defaults(
    arguments: Tuple[Optional[str], Optional[str]], variables: Dict[str, str], expected: Any
) -> None:
    """Each of the two URLs is chosen by itself."""
    assert dataclasses.astuple(choose_urls(*arguments, Environment.read(variables))) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        ("https://github.com", None),
        ("https://github.com/", "https://github.com"),
        ("https://github.com///", "https://github.com"),
        ("https://ghe.example:8443/prefix/", "https://ghe.example:8443/prefix"),
        ("HTTPS://GitHub.com", None),
        ("https://[2001:db8::1]:8443", None),
        ("http://localhost:8080", None),
        ("http://LOCALHOST:8080", None),
        ("http://copilot.localhost", None),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://127.8.9.10", None),
        ("http://[::1]:8080", None),
    ],
)
def test_a_base_url_is_taken_without_its_trailing_slash(value: str, expected: Optional[str]) -> None:
    """https anywhere, and http on this machine, for the emulator and for tests."""
    assert choose_urls(None, value, BLANK).api == (expected or value)


@pytest.mark.parametrize(
    "value, words",
    [
        ("github.com", "must begin with https:// and name a host"),
        ("//github.com", "must begin with https:// and name a host"),
        ("ftp://github.com", "must begin with https:// and name a host"),
        ("https://", "must begin with https:// and name a host"),
        ("https:///path", "must begin with https:// and name a host"),
        ("https://:8443", "must begin with https:// and name a host"),
        ("https://host:99999", "is not a valid URL: its host or its port"),
        ("https://host:port", "is not a valid URL: its host or its port"),
        ("https://me:hunter2/slashed@host", "is not a valid URL: its host or its port"),
        ("https://[::1", "is not a valid URL: its host or its port"),
        ("https://me:hunter2@host", "a plain base URL without a user name"),
        ("https://@host", "a plain base URL without a user name"),
        ("https://host?a=b", "a plain base URL without a user name, a query"),
        ("https://host/?", "a plain base URL without a user name, a query"),
        ("https://host/#top", "a plain base URL without a user name, a query or a fragment"),
        ("https://host#", "a plain base URL without a user name, a query or a fragment"),
        ("https://g\u00f6thub.example", "must be plain ASCII without blanks"),
        ("https://me:hunter2\u2100@host", "must be plain ASCII without blanks"),
        (" https://github.com", "must be plain ASCII without blanks"),
        ("https://github.com\n", "must be plain ASCII without blanks"),
        ("https://git hub.com", "must be plain ASCII without blanks"),
        ("https://github.com\x00", "must be plain ASCII without blanks"),
        ("http://github.com", "must begin with https://: without it the credentials would cross the network"),
        ("http://192.168.1.5", "must begin with https://: without it"),
        ("http://0.0.0.0", "must begin with https://: without it"),
        ("http://127.0.0.1.evil.example", "must begin with https://: without it"),
        ("http://localhost.evil.example", "must begin with https://: without it"),
        ("http://notlocalhost", "must begin with https://: without it"),
    ],
    ids=ascii,
)
def test_a_url_that_credentials_must_not_go_to_is_refused(value: str, words: str) -> None:
    """The error names the argument and what is wrong with it, and never quotes a password."""
    with pytest.raises(ValueError, match="^github_url ") as caught:
        choose_urls(value, None, BLANK)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", ["0", "true", "yes", "11"])
def test_http_is_allowed_by_one_value_alone(value: str) -> None:
    """What sends credentials in the clear has to be meant: the error says how."""
    given = ("http://proxy.example/", "http://192.168.1.5:8080")
    allowed = choose_urls(*given, Environment.read({"COPILOT_SYNC_ALLOW_HTTP": "1"}))
    assert dataclasses.astuple(allowed) == ("http://proxy.example", "http://192.168.1.5:8080")
    with pytest.raises(ValueError, match="unless COPILOT_SYNC_ALLOW_HTTP=1 is set"):
        choose_urls(*given, Environment.read({"COPILOT_SYNC_ALLOW_HTTP": value}))


def test_each_url_is_named_by_the_argument_it_comes_from() -> None:
    """Also where it came from the environment, whose variable has the same name in capitals."""
    with pytest.raises(ValueError, match='^api_url must begin with https:// and name a host, or be "auto"$'):
        choose_urls(None, None, Environment.read({"COPILOT_SYNC_API_URL": "nowhere"}))


@pytest.mark.parametrize("value", [5, b"https://github.com", ["https://github.com"]], ids=repr)
def test_a_url_must_be_a_string(value: Any) -> None:
    """The error names the argument and what came."""
    with pytest.raises(TypeError, match=f"github_url must be a string, not {type(value).__name__}"):
        choose_urls(value, None, BLANK)


@pytest.mark.parametrize(
    "host, expected",
    [
        ("localhost", True),
        ("a.b.localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_a_loopback_host_is_known_without_asking_dns(host: str, expected: bool) -> None:
    """A name that merely resolves to this machine does not count."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.example/threads", "https://api.example"),
        ("HTTPS://API.Example:8443", "https://api.example:8443"),
        ("http://[::1]:8000/a://b", "http://[::1]:8000"),
        ("https://api.example?@evil.example/", "https://api.example"),
        ("https://api.example#@evil.example/", "https://api.example"),
        ("https://api.example@evil.example/", "https://api.example@evil.example"),
        ("no URL at all", "no URL at all"),
        ("", ""),
    ],
)
def test_the_origin_of_a_url_is_all_that_comes_before_its_path(url: str, origin: str) -> None:
    """As ``urlsplit`` has it, but for capital letters."""
    assert origin_of(url) == origin
    parts = urlsplit(url)
    assert not parts.scheme or f"{parts.scheme}://{parts.netloc}".lower() == origin


@pytest.mark.parametrize(
    "url, address",
    [
        ("https://api.example/base", ("api.example", 443)),
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("HTTP://Localhost/a", ("localhost", 80)),
        ("http://[::1]:81/a", ("::1", 81)),
        ("https://[fe80::1]", ("fe80::1", 443)),
        (settings.AUTO, ("", None)),
    ],
)
def test_an_address_is_a_host_and_a_port(url: str, address: Tuple[str, Optional[int]]) -> None:
    """With the usual port of the scheme, and without the brackets of IPv6."""
    assert address_of(url) == address
