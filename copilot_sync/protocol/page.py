"""The account's page, ``{github_url}/copilot``: it names the API host of the account's plan.

The page is HTML with JSON embedded in it, and one of the fields is ``apiURL`` (public captures, 2026). Nothing else of
the page is read. It may hold anything, so the host is accepted only if it may get the token: see ``may_get_token``.
"""

import contextlib
import itertools
import json
import re
from typing import Optional
from urllib.parse import urlsplit

from copilot_sync.protocol.requests import PAGE, Request, browser_headers
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import Urls, is_loopback

#: The field, in a script or in an attribute, where the quotes are written as entities. Each part is bounded.
_FIELD = re.compile(
    rb"""(?P<quote>"|&quot;|&\#34;)apiURL(?P=quote)\s{0,20}:\s{0,20}(?P=quote)(?P<value>[^"<>\s]{1,500}?)(?P=quote)""",
    re.VERBOSE,
)
#: How many of the fields are looked at. The service's page has one.
_MOST_FIELDS = 20
#: Readers of URLs differ in what they take for a host. These characters all of them read in one way.
_PLAIN_URL = re.compile(r"(https?)://([a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?)((?:/[A-Za-z0-9._~-]+)*)/?", re.IGNORECASE)
#: The domain below which the API of every plan is (public captures, 2026), and the one of accounts with data residency.
_COPILOT, _RESIDENCY = "githubcopilot.com", "ghe.com"


def page_request(urls: Urls) -> Request:
    """Ask for the account's page; the cookies are added by whoever sends it.

    It belongs to the stage of the token: both ask ``github_url`` what the account may use.
    """
    headers = {"Accept": "text/html", **browser_headers()}
    return Request("token", "GET", urls.github + PAGE, PAGE, headers)


def read_api_url(reply: RawReply, github_url: str) -> Optional[str]:
    """Return the API host that a page names.

    Args:
        reply: The page.
        github_url: Where it comes from.

    Returns:
        A base URL without a slash at its end; ``None`` if the page names no host that may get the token.
    """
    for found in itertools.islice(_FIELD.finditer(reply.body), _MOST_FIELDS):
        url = _PLAIN_URL.fullmatch(_unescaped(found))
        if url is not None:
            scheme, host, path = url.groups()
            base = f"{scheme.lower()}://{host.lower()}{path}"
            if may_get_token(base, github_url):
                return base
    return None


def without_account(page: bytes) -> bytes:
    """Return a page that names the same API hosts and has nothing else of this one, which may say whose it is."""
    fields = itertools.islice(_FIELD.finditer(page), _MOST_FIELDS)
    return b"<html>" + b" ".join(found[0] for found in fields) + b"</html>"


def may_get_token(api_url: str, github_url: str) -> bool:
    """Whether a host that a page names may get the token that ``github_url`` issued.

    It must be reached by ``https://`` at the usual port, and be below ``githubcopilot.com``, below ``ghe.com`` if
    ``github_url`` is there, or below the host of a ``github_url`` other than github.com. If ``github_url`` is on this
    machine, any address of this machine will do as well.
    """
    try:
        api, github = urlsplit(api_url), urlsplit(github_url)
        port = api.port
    except ValueError:
        return False
    host, home = api.hostname or "", github.hostname or ""
    if is_loopback(home) and is_loopback(host):
        return True
    domains = [_COPILOT]
    if f".{home}".endswith(f".{_RESIDENCY}"):
        domains.append(_RESIDENCY)
    if home != "github.com":
        domains.append(home)
    return api.scheme == "https" and port in (None, 443) and any(host.endswith(f".{domain}") for domain in domains)


def _unescaped(found: "re.Match[bytes]") -> str:
    """The value of the field, without the escapes of JSON and of HTML; ``""`` if it can't be read."""
    value = found["value"].decode("ascii", "replace")
    if found["quote"] != b'"':
        import html  # loaded with the client

        value = html.unescape(value)
    with contextlib.suppress(ValueError):
        return str(json.loads(f'"{value}"'))
    return ""
