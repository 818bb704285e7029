"""The user's GitHub cookies, from wherever they are kept: which places are searched, and which cookies are taken.

``cookie_formats.py`` reads a source into plain values; here one choice is made from them: what a browser would
send to the host now. The rules:

- A cookie goes to its own host and, unless it is a host-only one, to the hosts below it; names that merely look
  alike (``evilgithub.com``) are others, and those below which anybody can have a host (``com``, ``co.uk``) have no
  cookies. A cookie without a domain goes anywhere.
- An expired cookie is left out; one that lasts as long as the browser's session is kept.
- Of two cookies with one name, the one with the more specific domain wins, then the later one.
- An empty cookie is left out: a browser's store that can't be decrypted gives such.
- ``user_session`` is the cookie that matters. If it is there but expired or empty, the rest is worth nothing, and so is
  a file without it.
- What is not wanted is not judged: a line or an entry of another site may be as odd as it likes. In a file, one of the
  host's own that can't be read or sent is passed over as well, as long as there is a session without it.

A cookie's value never gets into an error, a log line or the context of an exception: where another exception may
carry one, ours is raised outside its ``except`` block.
"""

import logging
import os
import time
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional

from copilot_sync.auth.browsers import browser_cookies
from copilot_sync.auth.cookie_formats import CookieSource, Parsed, StoredCookie, file_of, parse, parse_file, parse_jar
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.settings import COOKIES_VARIABLE, Environment

logger = logging.getLogger(__name__)

_FOLDER_FILES = (".har", ".json", ".txt")
#: How many of the files of a folder an error lists, and how many characters it has for each.
_MOST_NOTES, _LONGEST_NOTE = 10, 300
_SESSION_COOKIE = "user_session"
_WAYS = (
    "no credentials found for {host}: pass api_key= or cookies=, or set COPILOT_SYNC_API_KEY or COPILOT_SYNC_COOKIES "
    "(a cookies.txt, JSON or HAR file, a folder of such files, or a 'name=value; …' header), or log in to {host} with "
    "a browser of this machine and pip install 'copilot-sync[browser]'"
)


class FoundCookies(NamedTuple):
    """Cookies, and where they were found: a variable, a file, or a browser, in words that may be shown."""

    place: str
    cookies: Dict[str, str]

    @property
    def has_session(self) -> bool:
        """Whether they can log in."""
        return _SESSION_COOKIE in self.cookies

    def __repr__(self) -> str:
        return f"FoundCookies({self.place!r}, ***)"


def get_cookies(domain: str = "github.com") -> Dict[str, str]:
    """Find the user's cookies if no argument has them.

    They come from ``COPILOT_SYNC_COOKIES``: a file, a header or a folder. If it is not set and the extra ``browser`` is
    installed, they come from the browsers of this machine. No other file and no folder is looked at.

    Of a folder, the ``.har``, ``.json`` and ``.txt`` files are read. Cookies of different files or browsers are never
    mixed, since they may belong to different accounts: the first file or browser with a ``user_session`` is taken, the
    files in reverse order of their names (so that the latest of dated names wins), and only if none has one, the first
    with any cookie. In a folder, a file that names no domains counts only if it holds a ``user_session``.

    Nothing is asked on the terminal, nothing is written (``browser-cookie3`` makes a copy of a browser's store for
    the moment of reading it), and there is no network access. Safe from any thread.

    Args:
        domain: The host to send them to, with or without a leading dot. Default ``github.com``.

    Returns:
        Values by name, never empty.

    Raises:
        MissingCredentialsError: There are none. The message says what can be set, or what is wrong with
            ``COPILOT_SYNC_COOKIES``: a setting that can't be used is not passed over in silence.
        TypeError: ``domain`` is not a string.
        ValueError: ``domain`` is empty.
    """
    return find_cookies(domain).cookies


def find_cookies(domain: str = "github.com") -> FoundCookies:
    """Find what ``get_cookies`` gives, and say where it was. Errors are those of ``get_cookies``."""
    host = _host(domain)
    setting = Environment.read().cookies
    if setting is not None:
        return _from_setting(setting, host)
    found = _best(_from_browsers(host))
    if found is None:
        raise MissingCredentialsError(_WAYS.format(host=host), stage="credentials")
    return found


def cookies_of_browsers(domain: str) -> FoundCookies:
    """Read the browsers of this machine, whatever the environment says, and take what ``get_cookies`` would.

    Raises:
        MissingCredentialsError: No browser has a session.
    """
    host = _host(domain)
    found = _best(_from_browsers(host))
    if found is None or not found.has_session:
        raise MissingCredentialsError(
            f"no browser of this machine has a {_SESSION_COOKIE} for {host}: log in to {host} with one of them",
            stage="credentials",
        )
    return found


def login_cookies(source: CookieSource, domain: str = "github.com") -> FoundCookies:
    """Read cookies that can log in, from what ``read_cookies`` takes or from a folder of files.

    Raises:
        MissingCredentialsError: As ``read_cookies``; or a file holds no ``user_session``, or a folder no cookies.
        TypeError: As ``read_cookies``.
        ValueError: As ``read_cookies``.
    """
    host = _host(domain)
    path = file_of(source)
    if path is not None and os.path.isdir(path):
        return _from_folder(path, host)
    found = FoundCookies(path or "cookies", read_cookies(source, domain))
    if path is not None and not found.has_session:
        raise MissingCredentialsError(
            f"{path!r} holds no {_SESSION_COOKIE} for {host}: log in with a browser and export its cookies",
            stage="credentials",
        )
    return found


def read_cookies(
    source: CookieSource, domain: str = "github.com", *, now: Callable[[], float] = time.time
) -> Dict[str, str]:
    """Read the cookies for a host from whatever holds them.

    A string is the path of a file if there is such a file (``~`` is the home folder). Otherwise it is a header
    if it has a ``=`` with no slash before it; anything else is taken for the path of a file that is missing.

    >>> read_cookies("user_session=abc; logged_in=yes")
    {'user_session': 'abc', 'logged_in': 'yes'}

    There is no network access, and nothing is written. Safe from any thread.

    Args:
        source: A mapping of names to values, a cookie jar, a header such as ``a=b; c=d`` (``Cookie:`` may stand in
            front), a list of objects with ``name``, ``value`` and, if known, ``domain`` and ``expirationDate``
            (as browser extensions, Playwright, Puppeteer and Selenium have it), or a path. The file is a Netscape
            ``cookies.txt``, or JSON: an object of names and values, such a list, or a HAR; UTF-8, 32 MiB at most.
            Its lines and entries that can't be read are passed over.
        domain: The host to send them to, with or without a leading dot. Default ``github.com``. Mappings and
            headers have no domains and are taken as they are.
        now: The clock, in seconds since 1970.

    Returns:
        Values by name, exactly as they stand in the source, never empty.

    Raises:
        MissingCredentialsError: No cookie is left, ``user_session`` is expired or empty, or the file is missing or
            can't be understood. The message says why.
        TypeError: ``source`` is none of these, or a name or value in it is not a string.
        ValueError: A name or value can't stand in a header.
    """
    host = _host(domain)
    path = file_of(source)
    if path is not None:
        return _choose_from_file(path, parse_file(path), host, now())
    parsed = parse(source)
    for flaw in parsed.flaws:
        if flaw.concerns(host):
            raise TypeError(flaw.words)
    if not parsed.cookies:
        raise MissingCredentialsError(
            f"{_WAYS.format(host=host)} (cookies: empty, there is no cookie in it)", stage="credentials"
        )
    for fault in filter(None, (cookie.fault() for cookie in _alive(parsed.cookies, host, now()))):
        raise ValueError(f"cookies: {fault}")
    return _choose("cookies", parsed.cookies, host, now())


def _host(domain: str) -> str:
    if not isinstance(domain, str):
        raise TypeError(f"domain must be a string, not {type(domain).__name__}")
    host = domain.strip().lstrip(".").lower()
    if not host:
        raise ValueError("domain must be the name of a host, such as github.com")
    return host


def _choose_from_file(path: str, parsed: Parsed, host: str, moment: float) -> Dict[str, str]:
    """The cookies of a file to send to a host; what can't be read or sent is told only if there is nothing else."""
    faulty = [(cookie, cookie.fault()) for cookie in parsed.cookies]
    sendable = [cookie for cookie, fault in faulty if fault is None or not cookie.goes_to(host)]
    problems = [flaw.words for flaw in parsed.flaws if flaw.concerns(host)]
    problems += [fault for cookie, fault in faulty if fault is not None and cookie.goes_to(host)]
    try:
        chosen = _choose(path, sendable, host, moment)
        if _SESSION_COOKIE in chosen or not problems:
            return chosen
        why = f"{path!r} holds no {_SESSION_COOKIE} that can be read"
    except MissingCredentialsError as error:
        why = str(error.args[0])
    # Out here, so that no other error is the context of this one.
    raise MissingCredentialsError("; ".join([why, *problems[:1]]), stage="credentials")


def _alive(cookies: List[StoredCookie], host: str, moment: float) -> List[StoredCookie]:
    return [cookie for cookie in cookies if cookie.goes_to(host) and not cookie.is_expired(moment)]


def _choose(label: str, cookies: List[StoredCookie], host: str, moment: float) -> Dict[str, str]:
    """The cookies to send to a host, under the rules at the top of this module."""
    ours = [cookie for cookie in cookies if cookie.goes_to(host)]
    alive = _alive(ours, host, moment)
    ranked = sorted(alive, key=lambda cookie: (len(cookie.domain), cookie.host_only))
    chosen = {cookie.name: cookie.value for cookie in ranked if cookie.value}
    session_lost = _SESSION_COOKIE not in chosen and any(cookie.name == _SESSION_COOKIE for cookie in ours)
    if not chosen or session_lost:
        raise MissingCredentialsError(f"{label}: {_why_none(cookies, ours, alive, host)}", stage="credentials")
    logger.debug("%s: %d cookies for %s", label, len(chosen), host)
    return chosen


def _why_none(cookies: List[StoredCookie], ours: List[StoredCookie], alive: List[StoredCookie], host: str) -> str:
    advice = _advice(host)
    if not cookies:
        return f"empty, there is no cookie in it: {advice}"
    if not ours:
        return f"there are only cookies of other sites in it, none for {host}: {advice}"
    session = [cookie for cookie in ours if cookie.name == _SESSION_COOKIE]
    what = f"the {_SESSION_COOKIE} for {host}" if session else f"every cookie for {host}"
    state = "is empty" if any(cookie in alive for cookie in session or ours) else "has expired"
    return f"{what} {state}: {advice}"


def _advice(host: str) -> str:
    return f"log in to {host} with a browser and copy its cookies"


def _best(candidates: Iterable[FoundCookies]) -> Optional[FoundCookies]:
    """The first that can log in, else the first; nothing is read from the candidates after it."""
    fallback: Optional[FoundCookies] = None
    for found in candidates:
        if found.has_session:
            return found
        fallback = fallback or found
    return fallback


def _from_setting(setting: str, host: str) -> FoundCookies:
    try:
        found = login_cookies(setting, host)
        return found if os.path.isdir(os.path.expanduser(setting)) else FoundCookies(COOKIES_VARIABLE, found.cookies)
    except (ValueError, MissingCredentialsError) as error:
        problem = str(error.args[0])
    raise MissingCredentialsError(f"{COOKIES_VARIABLE}: {problem}", stage="credentials")


def _from_folder(folder: str, host: str) -> FoundCookies:
    """The cookies of the file that is to be taken.

    Raises:
        MissingCredentialsError: No file has any. The message lists what was looked at, and what is wrong with each.
    """
    notes: List[str] = []
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except OSError as error:
        raise MissingCredentialsError(
            f"the folder {folder!r} can't be read: {error.strerror}", stage="credentials"
        ) from error
    paths = [os.path.join(folder, name) for name in names if name.lower().endswith(_FOLDER_FILES)]
    found = _best(_from_files(paths, host, notes))
    if found is None:
        why = _what_was_looked_at(notes, host) if notes else f"there is no {', '.join(_FOLDER_FILES)} file in it"
        raise MissingCredentialsError(f"no cookies for {host} in the folder {folder!r}: {why}", stage="credentials")
    return found


def _what_was_looked_at(notes: List[str], host: str) -> str:
    advice = _advice(host)
    # The same advice helps against each of them.
    listed = [note.replace(f": {advice}", "")[:_LONGEST_NOTE] for note in notes[:_MOST_NOTES]]
    if len(notes) > _MOST_NOTES:
        listed.append(f"and {len(notes) - _MOST_NOTES} more")
    return f"{'; '.join(listed)}: {advice}"


def _from_files(paths: List[str], host: str, notes: List[str]) -> Iterator[FoundCookies]:
    """The cookies of each file that has some; what is wrong with the others goes into ``notes``."""
    for path in paths:
        try:
            parsed = _attributable(path, parse_file(path))
            cookies = _choose_from_file(path, parsed, host, time.time())
        except MissingCredentialsError as error:
            notes.append(f"{os.path.basename(path)!r}: {_without_path(str(error.args[0]), path)}")
            logger.debug("passed over: %s", notes[-1])
        else:
            yield FoundCookies(path, cookies)


def _without_path(problem: str, path: str) -> str:
    """What is wrong with a file, without the file: its name stands before that already."""
    for label in (f"the cookie file {path!r} ", f"{path!r} ", f"{path}: "):
        problem = problem.replace(label, "", 1)
    return problem


def _attributable(path: str, parsed: Parsed) -> Parsed:
    """Without the cookies that name no domain, unless GitHub's session is among them.

    A folder may be shared with other sites, whose secrets must not be sent to GitHub.
    """
    if any(cookie.name == _SESSION_COOKIE and not cookie.domain for cookie in parsed.cookies):
        return parsed
    named = [cookie for cookie in parsed.cookies if cookie.domain]
    if parsed.cookies and not named:
        problem = f"it names no domains and has no {_SESSION_COOKIE}, so it may belong to any site"
        raise MissingCredentialsError(f"{path}: {problem}", stage="credentials")
    return Parsed(named, parsed.flaws)


def _from_browsers(host: str) -> Iterator[FoundCookies]:
    for jar in browser_cookies(host):
        sendable = [cookie for cookie in parse_jar(jar) if cookie.fault() is None]
        try:
            cookies = _choose("a browser", sendable, host, time.time())
        except MissingCredentialsError as error:
            logger.debug("passed over: %s", error.args[0])
        else:
            yield FoundCookies("a browser of this machine", cookies)
