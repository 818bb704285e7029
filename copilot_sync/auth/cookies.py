"""The user's GitHub cookies, from wherever they are kept: which places are searched, and which cookies are taken.

``cookie_formats.py`` reads a source into plain values; here one choice is made from them: what a browser would
send to the host now. The rules:

- A cookie goes to its own host and, unless it is a host-only one, to the hosts below it; names that merely look
  alike (``evilgithub.com``) are others. A cookie without a domain goes anywhere.
- An expired cookie is left out; one that lasts as long as the browser's session is kept.
- Of two cookies with one name, the one with the more specific domain wins, then the later one.
- An empty cookie is left out: a browser's store that can't be decrypted gives such.
- ``user_session`` is the cookie that matters. Where it is there but expired or empty, the rest is worth nothing.

A cookie's value never gets into an error, a log line or the context of an exception: where another exception may
carry one, ours is raised outside its ``except`` block.
"""

import itertools
import logging
import os
import time
from typing import Callable, Dict, Iterable, Iterator, List

from copilot_sync.auth.browsers import browser_cookies
from copilot_sync.auth.cookie_formats import CookieSource, StoredCookie, parse, parse_file, parse_jar
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.settings import COOKIES_VARIABLE, Environment

logger = logging.getLogger(__name__)

#: gpt4free's folder of exported cookies and HAR files, looked for in the current directory.
FOLDER = "har_and_cookies"

_FOLDER_FILES = (".har", ".json", ".txt")
_SESSION_COOKIE = "user_session"
_WAYS = (
    "no credentials found for {host}: pass api_key= or cookies=, or set COPILOT_SYNC_API_KEY or COPILOT_SYNC_COOKIES "
    "(a cookies.txt or JSON file, or a 'name=value; …' header), or put a cookie or HAR file into a folder "
    "har_and_cookies, or log in to {host} with a browser of this machine and pip install copilot-sync[browser]"
)


def get_cookies(domain: str = "github.com") -> Dict[str, str]:
    """Find the user's cookies where no argument gives them.

    The first of these that there is: ``COPILOT_SYNC_COOKIES`` (what ``read_cookies`` takes as a string), the
    ``.har``, ``.json`` and ``.txt`` files of a folder ``har_and_cookies`` in the current directory, and, with the
    extra ``browser``, the browsers of this machine. Cookies of different files or browsers are never mixed, since
    they may belong to different accounts: the first file or browser with a ``user_session`` is taken, the files in
    reverse order of their names (so that the latest of dated names wins), and only where none has one, the first
    with any cookie. In the folder, a file that names no domains counts only where it holds a ``user_session``.

    Nothing is asked on the terminal, nothing is written (``browser-cookie3`` makes a copy of a browser's store for
    the moment of reading it), and there is no network access. Safe from any thread.

    Args:
        domain: The host to send them to, with or without a leading dot. Default ``github.com``.

    Returns:
        Values by name: never empty.

    Raises:
        MissingCredentialsError: There are none. The message says what can be set, or what is wrong with
            ``COPILOT_SYNC_COOKIES``: a setting that can't be used is not passed over in silence.
        TypeError: ``domain`` is not a string.
        ValueError: ``domain`` is empty.
    """
    host = _host(domain)
    setting = Environment.read().cookies
    if setting is not None:
        return _from_setting(setting, host)
    notes: List[str] = []
    found = _best(itertools.chain(_from_folder(host, notes), _from_browsers(host)))
    if found:
        return found
    in_vain = f" ({'; '.join(notes[:3])})" if notes else ""
    raise MissingCredentialsError(_WAYS.format(host=host) + in_vain, stage="credentials")


def read_cookies(
    source: CookieSource, domain: str = "github.com", *, now: Callable[[], float] = time.time
) -> Dict[str, str]:
    """Read the cookies for a host from whatever holds them.

    A string is the path of a file where there is such a file (``~`` is the home folder). Otherwise it is a header
    where it has a ``=`` with no slash before it; anything else is taken for the path of a file that is missing.

    >>> read_cookies("user_session=abc; logged_in=yes")
    {'user_session': 'abc', 'logged_in': 'yes'}

    There is no network access, and nothing is written. Safe from any thread.

    Args:
        source: A mapping of names to values, a cookie jar, a header such as ``a=b; c=d`` (``Cookie:`` may stand in
            front), a list of objects with ``name``, ``value`` and, where known, ``domain`` and ``expirationDate``
            (as browser extensions, Playwright, Puppeteer and Selenium have it), or a path. The file is a Netscape
            ``cookies.txt``, or JSON: an object of names and values, such a list, or a HAR; UTF-8, 32 MiB at most.
        domain: The host to send them to, with or without a leading dot. Default ``github.com``. Mappings and
            headers have no domains and are taken as they are.
        now: The clock, in seconds since 1970.

    Returns:
        Values by name, exactly as they stand in the source: never empty.

    Raises:
        MissingCredentialsError: No cookie is left, or ``user_session`` is expired or empty. The message says why.
        TypeError: ``source`` is none of these, or a name or value in it is not a string.
        ValueError: The file can't be read or understood, or a name or value can't stand in a header.
    """
    host = _host(domain)
    stored = parse(source)
    if not stored:
        raise MissingCredentialsError(
            f"{_WAYS.format(host=host)} (cookies: empty, there is no cookie in it)", stage="credentials"
        )
    return _choose("cookies", stored, host, now())


def _host(domain: str) -> str:
    if not isinstance(domain, str):
        raise TypeError(f"domain must be a string, not {type(domain).__name__}")
    host = domain.strip().lstrip(".").lower()
    if not host:
        raise ValueError("domain must be the name of a host, such as github.com")
    return host


def _choose(label: str, cookies: List[StoredCookie], host: str, moment: float) -> Dict[str, str]:
    """The cookies to send to a host, under the rules at the top of this module."""
    ours = [cookie for cookie in cookies if cookie.goes_to(host)]
    alive = [cookie for cookie in ours if not cookie.is_expired(moment)]
    for fault in filter(None, (cookie.fault() for cookie in alive)):
        raise ValueError(f"{label}: {fault}")
    ranked = sorted(alive, key=lambda cookie: (len(cookie.domain), cookie.host_only))
    chosen = {cookie.name: cookie.value for cookie in ranked if cookie.value}
    session_lost = _SESSION_COOKIE not in chosen and any(cookie.name == _SESSION_COOKIE for cookie in ours)
    if not chosen or session_lost:
        raise MissingCredentialsError(f"{label}: {_why_none(cookies, ours, alive, host)}", stage="credentials")
    logger.debug("%s: %d cookies for %s", label, len(chosen), host)
    return chosen


def _why_none(cookies: List[StoredCookie], ours: List[StoredCookie], alive: List[StoredCookie], host: str) -> str:
    advice = f"log in to {host} with a browser and copy its cookies"
    if not cookies:
        return f"empty, there is no cookie in it: {advice}"
    if not ours:
        return f"all of it belongs to another domain than {host}: {advice}"
    session = [cookie for cookie in ours if cookie.name == _SESSION_COOKIE]
    what = f"the {_SESSION_COOKIE} for {host}" if session else f"every cookie for {host}"
    state = "is empty" if any(cookie in alive for cookie in session or ours) else "has expired"
    return f"{what} {state}: {advice}"


def _best(candidates: Iterable[Dict[str, str]]) -> Dict[str, str]:
    """The first that can log in, else the first; nothing is read from the candidates after it."""
    fallback: Dict[str, str] = {}
    for cookies in candidates:
        if _SESSION_COOKIE in cookies:
            return cookies
        fallback = fallback or cookies
    return fallback


def _from_setting(setting: str, host: str) -> Dict[str, str]:
    try:
        return read_cookies(setting, host)
    except (ValueError, MissingCredentialsError) as error:
        problem = str(error.args[0])
    raise MissingCredentialsError(f"{COOKIES_VARIABLE}: {problem}", stage="credentials")


def _from_folder(host: str, notes: List[str]) -> Iterator[Dict[str, str]]:
    """The cookies of each file that has some; what is wrong with the others goes into ``notes``."""
    for path in _folder_files():
        try:
            cookies = _choose(path, _attributable(path, parse_file(path)), host, time.time())
        except (ValueError, MissingCredentialsError) as error:
            notes.append(str(error.args[0]))
            logger.debug("passed over: %s", notes[-1])
        else:
            yield cookies


def _folder_files() -> List[str]:
    try:
        names = os.listdir(FOLDER)
    except OSError:
        return []
    return [os.path.join(FOLDER, name) for name in sorted(names, reverse=True) if name.lower().endswith(_FOLDER_FILES)]


def _attributable(path: str, cookies: List[StoredCookie]) -> List[StoredCookie]:
    """Without the cookies that name no domain, unless GitHub's session is among them.

    The folder is shared with other sites, whose secrets must not be sent to GitHub.
    """
    if any(cookie.name == _SESSION_COOKIE and not cookie.domain for cookie in cookies):
        return cookies
    named = [cookie for cookie in cookies if cookie.domain]
    if cookies and not named:
        raise ValueError(f"{path}: it names no domains and has no {_SESSION_COOKIE}, so it may belong to any site")
    return named


def _from_browsers(host: str) -> Iterator[Dict[str, str]]:
    for jar in browser_cookies(host):
        sendable = [cookie for cookie in parse_jar(jar) if cookie.fault() is None]
        try:
            cookies = _choose("a browser", sendable, host, time.time())
        except MissingCredentialsError as error:
            logger.debug("passed over: %s", error.args[0])
        else:
            yield cookies
