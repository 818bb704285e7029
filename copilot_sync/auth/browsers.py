"""Cookies from the browsers of this machine, by way of ``browser-cookie3`` (the extra ``browser``).

The library is imported only if nothing else gives cookies. It is asked for one host and one browser after the
other, so that a browser that can't be read does not hide the next one (without D-Bus its own search
of all browsers ends at the first), and so that no browser is opened once the cookies are found. It
matches hosts by substring and does not look at expiry: what it gives is unfiltered, and ``cookies.py``
chooses from it. Nothing that it raises comes out of here.
"""

import importlib
import logging
from http.cookiejar import Cookie
from typing import Any, Callable, Iterator, List

logger = logging.getLogger(__name__)


def browser_cookies(host: str) -> Iterator[List[Cookie]]:
    """Read the cookies of one browser after the other, each when it is asked for.

    Args:
        host: The host whose cookies are asked for; those of similarly named hosts may come as well.

    Yields:
        The cookies of one browser that has any.
    """
    for reader in _readers():
        cookies = _cookies_of(reader, host)
        if cookies:
            yield cookies


def load_library() -> None:
    """Import what is going to be asked, if it is installed: the first call must not be the one to do so."""
    _readers()


def browser_names() -> List[str]:
    """Return the names of the browsers that would be read, installed or not; none without the library."""
    return [str(getattr(reader, "__name__", "a browser")) for reader in _readers()]


def _readers() -> List[Callable[..., Any]]:
    try:
        library = importlib.import_module("browser_cookie3")
        return list(getattr(library, "all_browsers", ())) or [library.load]
    except ImportError:
        logger.debug("the browsers are not searched for cookies: browser-cookie3 can't be imported")
    except Exception as error:  # noqa: BLE001 - it loads native libraries, which fail in ways of their own
        logger.info("the browsers are not searched for cookies: browser-cookie3 fails with %s", type(error).__name__)
    return []


def _cookies_of(reader: Callable[..., Any], host: str) -> List[Cookie]:
    """The cookies of one browser; none if it is not installed or can't be read, whatever the reason."""
    try:
        return list(reader(domain_name=host))
    except Exception as error:  # noqa: BLE001 - D-Bus, SQLite, ciphers and file systems have no common root
        # The name of the error alone: its words may quote what was read.
        logger.debug("no cookies from %s: %s", getattr(reader, "__name__", "a browser"), type(error).__name__)
        return []
