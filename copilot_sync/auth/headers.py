"""Puts credentials into requests, and takes them out of what is shown.

The cookies go to ``github_url`` and the token to ``api_url``; what puts them into a request refuses any other host.
"""

from typing import Callable, Dict

import requests

from copilot_sync.secret import MaskedText, Secret
from copilot_sync.settings import Urls, origin_of
from copilot_sync.transport.session import Auth

#: Shorter values occur in ordinary words, and masking them would make a message unreadable.
_SHORTEST_MASKED = 6


def cookie_header(cookies: Dict[str, str]) -> Secret[str]:
    """The value of a ``Cookie`` header."""
    return Secret("; ".join(f"{name}={value}" for name, value in cookies.items()))


def send_cookies(cookies: Secret[str], urls: Urls) -> Auth:
    """Put cookies into a request to ``github_url``."""
    return _header("Cookie", cookies, urls.github)


def send_token(token: Secret[str], urls: Urls) -> Auth:
    """Put a token into a request to ``api_url``."""
    return _header("Authorization", Secret(f"GitHub-Bearer {token.reveal()}"), urls.api)


def _header(name: str, value: Secret[str], base: str) -> Auth:
    origin = origin_of(base)

    def authenticate(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if origin_of(str(request.url)) != origin:
            raise AssertionError("credentials were about to go to another host")
        request.headers[name] = MaskedText(value.reveal())
        return request

    return authenticate


def mask_of(secret: Secret[str]) -> Callable[[str], str]:
    """Return what takes a secret out of a text: the whole of it, and the values of the cookies in it."""
    header = secret.reveal()
    parts = [header, *(pair.partition("=")[2] for pair in header.split("; "))]
    hidden = sorted({part for part in parts if len(part) >= _SHORTEST_MASKED}, key=len, reverse=True)

    def mask(text: str) -> str:
        for part in hidden:
            text = text.replace(part, "***")
        return text

    return mask
