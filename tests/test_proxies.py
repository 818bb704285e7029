"""What the environment says counts at once, though what follows from it is kept."""

import pickle
import urllib.request
from typing import Any, Optional

import pytest
import requests

from copilot_sync.transport.proxies import ProxySettings, place_of

URL = "https://api.example/threads"
PROXY = "http://proxy.example:3128"


class Session(requests.Session):
    """A session that counts how often it reads the environment."""

    reads = 0

    def merge_environment_settings(self, *args: Any) -> Any:
        self.reads += 1
        return super().merge_environment_settings(*args)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    # As on systems that know no proxies but those of the environment.
    monkeypatch.setattr(urllib.request, "getproxies", urllib.request.getproxies_environment)
    return Session()


def test_what_was_worked_out_is_kept(session: Session) -> None:
    """The environment is read once for each host, whatever the paths of the requests."""
    route = ProxySettings(None, True)
    urls = [URL, "https://api.example/models", "https://github.example/token", URL]
    settings = [route.settings(session, url) for url in urls]
    assert settings == [{"proxies": {}, "stream": True, "verify": True, "cert": None}] * 4
    assert session.reads == 2


def proxy_of(route: ProxySettings, session: requests.Session, url: str) -> Any:
    return requests.utils.select_proxy(url, route.settings(session, url)["proxies"])


PLAIN = "http://localhost:8000/threads"
PROXIES = [
    ("https_proxy", URL, PLAIN),
    ("HTTPS_PROXY", URL, PLAIN),
    ("http_proxy", PLAIN, URL),
    ("HTTP_PROXY", PLAIN, URL),
    ("all_proxy", URL, None),
    ("ALL_PROXY", PLAIN, None),
]


@pytest.mark.parametrize(("name", "through", "direct"), PROXIES, ids=[row[0] for row in PROXIES])
def test_a_proxy_counts_from_the_next_request_on(
    session: Session, monkeypatch: pytest.MonkeyPatch, name: str, through: str, direct: Optional[str]
) -> None:
    """Set while the program runs, and unset again."""
    route = ProxySettings(None, True)
    assert proxy_of(route, session, through) is None
    monkeypatch.setenv(name, PROXY)
    assert proxy_of(route, session, through) == PROXY
    assert direct is None or proxy_of(route, session, direct) is None
    monkeypatch.delenv(name)
    assert proxy_of(route, session, through) is None


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authorities_count_from_the_next_request_on(
    session: Session, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Set while the program runs, and unset again."""
    route = ProxySettings(None, True)
    assert route.settings(session, URL)["verify"] is True
    monkeypatch.setenv(name, "/ca.pem")
    assert route.settings(session, URL)["verify"] == "/ca.pem"
    monkeypatch.delenv(name)
    assert route.settings(session, URL)["verify"] is True


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_a_host_that_is_left_out_is_left_out_at_once(
    session: Session, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And the other one still goes through the proxy."""
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    route = ProxySettings(None, True)
    other = "https://github.example/token"
    assert proxy_of(route, session, URL) == proxy_of(route, session, other) == PROXY
    monkeypatch.setenv(name, "api.example")
    assert proxy_of(route, session, URL) is None
    assert proxy_of(route, session, other) == PROXY


def test_in_a_cgi_program_the_proxy_header_of_a_request_counts_for_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, ``HTTP_PROXY`` is what a client sent."""
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    route = ProxySettings(None, True)
    assert proxy_of(route, session, PLAIN) == PROXY
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert proxy_of(route, session, PLAIN) is None


def test_a_systems_own_settings_are_asked_for_each_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells when they change."""
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    route = ProxySettings(None, True)
    route.settings(session, URL)
    route.settings(session, URL)
    assert session.reads == 2


def test_a_route_travels_with_its_client(session: Session) -> None:
    """A pickled one knows its proxy and its CA."""
    route = ProxySettings(PROXY, "/ca.pem")
    route.settings(session, URL)
    arrived = pickle.loads(pickle.dumps(route))
    settings = arrived.settings(session, URL)
    assert (settings["proxies"]["https"], settings["verify"]) == (PROXY, "/ca.pem")
    assert session.reads == 2  # what was worked out stays: another thread may add to it just then


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://github.com/path?q#f", "github.com:443"),
        ("https://GitHub.com:8443", "github.com:8443"),
        ("http://127.0.0.1:8000/x", "127.0.0.1:8000"),
        ("http://localhost", "localhost"),
        ("https://[::1]/", "[::1]:443"),
        ("proxy.example:3128", "proxy.example:3128"),
        ("proxy.example", "proxy.example"),
        ("socks5h://proxy.example", "proxy.example:1080"),
        ("http://me:planted@proxy.example:3128/", "proxy.example:3128"),
        ("me:planted@proxy.example:3128", "proxy.example:3128"),
        ("http://me:pl@nted@proxy.example:3128", "proxy.example:3128"),
        ("http://me:planted/more@proxy.example:3128", ""),
        ("http://me:123/planted@proxy.example:3128", ""),
        ("http://me:123?planted@proxy.example", ""),
        ("http://me:123#planted@proxy.example", ""),
        ("http://", ""),
        ("http://[bad", ""),
        ("http://proxy.example:port", ""),
        ("", ""),
    ],
)
def test_a_place_is_told_without_any_password(url: str, place: str) -> None:
    """Where it can't be told which part is the password, nothing is."""
    assert place_of(url) == place
    assert "planted" not in place
