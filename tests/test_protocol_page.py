"""The account's page: which API host it names, and which hosts it can't talk a client into."""

import json
import time
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import URLS

from copilot_sync.protocol.page import may_get_token, page_request, read_api_url
from copilot_sync.protocol.untrusted import RawReply

GITHUB = "https://github.com"
BUSINESS = "https://api.business.githubcopilot.com"


def named(page: bytes, github_url: str = GITHUB) -> Optional[str]:
    return read_api_url(RawReply(200, {}, page), github_url)


def script(url: str) -> bytes:
    data = json.dumps({"payload": {"apiURL": url, "apiVersion": "2025-05-01"}}, separators=(",", ":"))
    return f'<!DOCTYPE html><html><script type="application/json">{data}</script></html>'.encode()


def test_the_page_is_asked_as_a_browser_asks_for_a_page() -> None:
    """Its request has nothing of the API's."""
    request = page_request(URLS)
    assert (request.stage, request.method, request.url, request.body) == ("token", "GET", f"{GITHUB}/copilot", None)
    assert set(request.headers) == {"Accept", "Accept-Encoding", "Accept-Language", "User-Agent"}
    assert request.headers["Accept"] == "text/html"


@pytest.mark.parametrize(
    "page",
    [
        script(BUSINESS),
        script(BUSINESS + "/"),
        script("https://API.Business.GitHubCopilot.com"),
        b'{"apiURL" : "https:\\/\\/api.business.githubcopilot.com"}',
        b'{"apiURL":\n  "https:\\u002f\\u002fapi.business.githubcopilot.com"}',
        b"<a data-x='&quot;apiURL&quot;:&quot;https://api.business.githubcopilot.com&quot;'>",
        b"<a data-x='&#34;apiURL&#34;:&#34;https:&#x2F;&#x2F;api.business.githubcopilot.com&#34;'>",
        b'\xff\x00<"apiURL":null,"apiURL":"","apiURL":"' + BUSINESS.encode() + b'"',
        b'"apiURL":"https://evil.example" ' + script(BUSINESS),
        b"x" * 5_000_000 + script(BUSINESS),
    ],
    ids=["plain", "slash", "case", "\\/", "\\u002f", "&quot;", "&#34;", "others", "evil first", "large"],
)
def test_the_host_is_found_however_it_is_written(page: bytes) -> None:
    """In a script, with the escapes of JSON, or in an attribute, with those of HTML."""
    assert named(page) == BUSINESS


def test_a_base_may_have_a_path() -> None:
    """As the setting may."""
    assert named(script(BUSINESS + "/v2/x")) == BUSINESS + "/v2/x"


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>Sign in</html>",
        b'"apiURL":null',
        b'"apiURL":5',
        b'"apiURL":["https://api.business.githubcopilot.com"]',
        b'"apiURL":"\\"',
        b'"apiURL":"https://api.business.githubcopilot.com\\"',
        b'"apiURL":"\\ud800https://api.business.githubcopilot.com"',
        b'"apiURL":"https://api.business.githubcopilot.com',
        b'\\"apiURL\\":\\"https://api.business.githubcopilot.com\\"',
        script("https://api." + "a" * 600 + ".githubcopilot.com"),
        script("https://\u0430pi.githubcopilot.com"),
    ],
)
def test_a_page_that_names_none_is_no_error(page: bytes) -> None:
    """Whatever stands in it. What users wrote is quoted in the page's data and counts for nothing."""
    assert named(page) is None


# fmt: off
HOSTS = [
    # github_url               what the page names                           accepted
    (GITHUB,                   "https://api.enterprise.githubcopilot.com",   True),
    (GITHUB,                   "https://api.githubcopilot.com:443",          True),
    (GITHUB,                   "http://api.business.githubcopilot.com",      False),
    (GITHUB,                   "https://api.business.githubcopilot.com:8443", False),
    (GITHUB,                   "https://githubcopilot.com.evil.example",     False),
    (GITHUB,                   "https://evilgithubcopilot.com",              False),
    (GITHUB,                   "https://githubcopilot.com",                  False),
    (GITHUB,                   "https://api.githubcopilot.com.",             False),
    (GITHUB,                   "https://api.githubcopilot.com@evil.example", False),
    (GITHUB,                   "https://evil.example#.githubcopilot.com",    False),
    (GITHUB,                   "https://evil.example?.githubcopilot.com",    False),
    (GITHUB,                   "https://evil.example/.githubcopilot.com",    False),
    (GITHUB,                   "https://evil.example\\.githubcopilot.com",   False),
    (GITHUB,                   "https://evil.example%2f.githubcopilot.com",  False),
    (GITHUB,                   "https://api.githubcopilot.com?x=1",          False),
    (GITHUB,                   "https://api.githubcopilot.com:99999",        False),
    (GITHUB,                   "https://github.com",                         False),
    (GITHUB,                   "https://api.github.com",                     False),
    (GITHUB,                   "https://copilot-api.octo.ghe.com",           False),
    (GITHUB,                   "http://127.0.0.1:1",                         False),
    (GITHUB,                   "https://localhost",                          False),
    (GITHUB,                   "file:///etc/passwd",                         False),
    (GITHUB,                   "//api.githubcopilot.com",                    False),
    ("https://octo.ghe.com",   "https://copilot-api.octo.ghe.com",           True),
    ("https://octo.ghe.com",   "https://copilot.ghe.com",                    True),
    ("https://octo.ghe.com",   "https://evilghe.com",                        False),
    ("https://evilghe.com",    "https://copilot.ghe.com",                    False),
    ("https://git.corp.example", "https://copilot.git.corp.example",         True),
    ("https://git.corp.example", "https://api.business.githubcopilot.com",   True),
    ("https://git.corp.example", "https://corp.example",                     False),
    ("https://git.corp.example", "http://127.0.0.1",                         False),
    ("http://127.0.0.1:5000",  "http://127.0.0.1:6000",                      True),
    ("http://localhost:5000",  "http://127.0.0.1:6000",                      True),
    ("http://127.0.0.1:5000",  "http://10.0.0.1:6000",                       False),
    ("http://127.0.0.1:5000",  "http://127.0.0.1.evil.example",              False),
]
# fmt: on


@pytest.mark.parametrize(("github_url", "url", "accepted"), HOSTS)
def test_a_host_is_accepted_only_if_it_may_get_the_token(github_url: str, url: str, accepted: bool) -> None:
    """The page is not trusted: it can't send the token to just anybody."""
    assert named(script(url), github_url) == (url if accepted else None)


def test_an_address_that_makes_no_sense_may_get_nothing() -> None:
    """Whoever asks."""
    assert may_get_token("https://[api.githubcopilot.com", GITHUB) is False
    assert may_get_token("https://api.githubcopilot.com:99999", GITHUB) is False


@pytest.mark.parametrize(
    "part",
    [
        b'"apiURL":"',
        b'"apiURL":"https://evil.example"',
        b"&quot;apiURL&quot;:&quot;",
        b'"apiURL":"' + b"x" * 499,
        b'"apiURL"' + b" " * 21,
    ],
)
def test_a_hostile_page_costs_little(part: bytes) -> None:
    """However often it begins to name a host: eight MiB are read in seconds at the very most."""
    began = time.process_time()
    assert named(part * (8 * 1024 * 1024 // len(part))) is None
    assert time.process_time() - began < 5.0


@given(st.binary(max_size=80), st.text(max_size=40))
def test_anything_may_stand_there(noise: bytes, value: str) -> None:
    """What comes out may get the token, or is nothing."""
    page = noise + b'"apiURL":"' + value.encode("utf-8", "surrogatepass") + b'"' + noise
    found = named(page)
    assert found is None or may_get_token(found, GITHUB)
