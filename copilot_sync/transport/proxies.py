"""Which proxy and which CAs a request uses, as the environment says at that moment.

``requests`` works that out anew for each request, out of every variable there is: a quarter of what a request
costs. ``ProxySettings`` keeps what it worked out for as long as the variables that decide it stay as they are. If a
system has proxy settings of its own besides, as macOS and Windows have, nothing is kept: they may change unseen.

Threads: what is known of hosts is atomic: replaced, never changed. If two threads come first at once, both work it
out.
"""

import os
import urllib.request
from typing import Any, Dict, Optional, Tuple, Union
from urllib.parse import urlsplit

import requests

from copilot_sync.secret import MaskedText, Secret
from copilot_sync.settings import origin_of

#: What decides it, beside the URL. ``REQUEST_METHOD`` is set in CGI programs, where ``HTTP_PROXY`` counts for nothing.
_VARIABLES = (
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "REQUEST_METHOD",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)


class ProxySettings:
    """Works out how requests of one client get to a host. Safe for any number of threads.

    Args:
        proxy: A proxy for all requests; ``None`` leaves the choice to ``HTTPS_PROXY`` and its relatives.
        verify: Whether certificates are checked, or the file of a CA to check them with.
    """

    def __init__(self, proxy: Optional[str], verify: Union[bool, str]) -> None:
        self._proxies: Dict[str, str] = {"http": proxy, "https": proxy} if proxy else {}
        self._verify = verify
        # By origin. It is replaced and never changed: a dictionary has a lock, which each of its readers needs if
        # another thread made its keys.
        self._known: Tuple[Tuple[str, object, Dict[str, Any]], ...] = ()

    def settings(self, session: requests.Session, url: str) -> Dict[str, Any]:
        """Return what ``session.send`` needs besides the request. It is shared and must not be changed."""
        origin = origin_of(url)
        environment = _environment()
        for known in self._known:
            if known[0] == origin and known[1] == environment and environment is not None:
                break
        else:
            settings = session.merge_environment_settings(url, dict(self._proxies), True, self._verify, None)
            # The URL of a proxy may have a password in it, and whatever sends the request has it in its variables.
            proxies = {name: MaskedText(place) for name, place in settings["proxies"].items() if place}
            known = origin, environment, {**settings, "proxies": proxies}
            self._known = (known, *(each for each in self._known if each[0] != origin))
        return known[2]

    def __reduce__(self) -> Tuple[object, ...]:
        # What is known may grow while it is pickled, and another process works it out by its own environment.
        return ProxySettings, (self._proxies.get("http"), self._verify)


def place_of(url: str) -> str:
    """Return the host of a URL and the port, but for that of plain HTTP; ``""`` if a password can't be told from them.

    A scheme may be missing, as it may in the URL of a proxy.
    """
    url = url if "://" in url else f"http://{url}"
    origin = origin_of(url)
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme[:5])
    except ValueError:
        return ""
    if not host or not host.isprintable() or "@" in url[len(origin) :]:
        return ""
    return (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def environment_proxy(url: str) -> Optional[str]:
    """Return the proxy that the environment sets for a URL, as ``requests`` finds it."""
    return requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))


def deciding_variable(url: str) -> str:
    """Return the variable that says how a URL is asked, by a proxy or by none; ``""`` if the environment does not."""
    if requests.utils.should_bypass_proxies(url, no_proxy=None):
        return "NO_PROXY"
    if environment_proxy(url) is None:
        return ""
    names = (f"{url.partition(':')[0].upper()}_PROXY", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name) or os.environ.get(name.lower())), "the system")


def shown_proxy(proxy: str) -> str:
    """Return the URL of a proxy without its user name and password; ``""`` if it is none."""
    place = place_of(proxy)
    scheme = proxy.partition("://")[0] if "://" in proxy else "http"
    return place and f"{scheme}://{'***@' if '@' in proxy else ''}{place}"


_PORTS = {"https": 443, "socks": 1080}


def _environment() -> Optional[Tuple[Optional[str], ...]]:
    """What the environment says; ``None`` if there is more to it than variables."""
    if urllib.request.getproxies is not urllib.request.getproxies_environment:
        return None
    return tuple(map(os.environ.get, _VARIABLES))


_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def check_proxy(proxy: Secret[Any]) -> Optional[str]:
    """Return the URL of a proxy as a caller passed it, checked; ``None`` for none.

    Raises:
        TypeError: It is no text.
        ValueError: It is no URL of a proxy.
    """
    if proxy.reveal() is not None and not isinstance(proxy.reveal(), str):
        raise TypeError(f"proxy must be a URL, not {type(proxy.reveal()).__name__}")
    if proxy and not _names_a_host(proxy.reveal()):
        raise ValueError("proxy must be a URL such as http://localhost:3128")
    return proxy.reveal() or None


def _names_a_host(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        names_a_server = parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
        return names_a_server and proxy.isprintable() and " " not in proxy
    except ValueError:
        return False


def check_verify(verify: "Union[bool, str, os.PathLike[str]]") -> Union[bool, str]:
    """Return whether, or with which file of a CA, certificates are checked, as a caller passed it.

    Raises:
        TypeError: It is neither.
        ValueError: There is no such file.
    """
    if isinstance(verify, bool):
        return verify
    if not isinstance(verify, (str, os.PathLike)):
        raise TypeError(f"verify must be True, False or the file of a CA, not {type(verify).__name__}")
    path = os.fspath(verify)
    if not os.path.exists(path):
        raise ValueError(f"verify names a CA file that does not exist: {path}")
    return path
