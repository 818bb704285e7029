"""The ways in which cookies are written down, each read into ``StoredCookie`` values. Nothing is chosen here.

Netscape's ``cookies.txt`` (its own lines, curl's ``#HttpOnly_`` ones, with or without the magic first line); JSON
as an object, as a browser extension's, Playwright's, Puppeteer's or Selenium's list, as a HAR; a ``Cookie`` header;
a cookie jar. A file's format is told from its first character, never from its name.

A line or an entry that can't be read spoils nothing: it becomes a ``Flaw``, and who chooses says what follows from it.
A file that can't be read at all is a ``MissingCredentialsError``; a Python object of the wrong type is a ``TypeError``,
and a header that is none a ``ValueError``. None of them ever holds a value, in its text or in its context: the
exceptions of ``json`` and of decoding carry the whole file, so ours are raised outside their ``except`` blocks. A name
is shown only if it can't be a secret in the wrong place.
"""

import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from http.cookiejar import Cookie, CookieJar
from typing import Any, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Union
from urllib.parse import urlsplit

from copilot_sync import text_files
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.settings import is_address
from copilot_sync.times import read_time

CookieSource = Union[str, text_files.PathLike, CookieJar, Mapping[str, Any], Sequence[Mapping[str, Any]]]

#: Bytes of a cookie file. An export of a whole browser has less than one MiB, but a HAR holds pages as well.
FILE_LIMIT = 32 * 1024 * 1024

# fmt: off
#: Under these names of a country's, anybody can register one of their own: their cookies belong to nobody.
_PUBLIC_LABELS = frozenset([
    "ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "gv", "ltd", "mil", "ne", "net", "nom", "or", "org", "plc",
])
#: Below these anybody can have a host. The list is not whole: neither github.com nor a company's GitHub is below one.
_PUBLIC_SUFFIXES = frozenset([
    "github.io", "githubusercontent.com", "gitlab.io", "pages.dev", "workers.dev", "netlify.app", "vercel.app",
    "web.app", "herokuapp.com", "appspot.com", "firebaseapp.com", "azurewebsites.net", "cloudfront.net",
    "amazonaws.com", "fly.dev",
])
# fmt: on
# What of Latin-1 is printed, but for "=" in names and ";". A class of what is left out takes long to compile.
_NAME = re.compile(r"[!-:<>-~\xa0-\xff]+")
_VALUE = re.compile(r"[ -:<-~\xa0-\xff]*")
#: GitHub's session values are 48 characters long.
_SHOWN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_HEADER_NAME = re.compile(r"cookie\s*:\s*", re.IGNORECASE)
_FILE_ENDINGS = (".har", ".json", ".txt")


@dataclass(frozen=True)
class StoredCookie:
    """One cookie of a source.

    Args:
        name: Its name.
        value: Its value, as it stands in the source.
        domain: In lower case and without a leading dot; ``""`` if the source names none.
        host_only: Whether it goes to that very host alone, not to the hosts below it.
        expires: Seconds since 1970; ``None``, 0 and -1 are the end of the browser's session.
    """

    name: str
    value: str = field(repr=False)
    domain: str = ""
    host_only: bool = True
    expires: Optional[float] = None

    def goes_to(self, host: str) -> bool:
        """Whether a browser would send it to a host (in lower case)."""
        return not self.domain or _belongs(self.domain, self.host_only, host)

    def is_expired(self, moment: float) -> bool:
        """Whether its time is over at a moment, in seconds since 1970."""
        return self.expires is not None and 0 < self.expires <= moment

    def fault(self) -> Optional[str]:
        """What keeps it out of a header, in words without its value; ``None`` if nothing does."""
        if not self.name:
            return "a cookie has an empty name"
        if not _NAME.fullmatch(self.name):
            return f"the name of {_shown(self.name)} has characters that can't stand in a Cookie header"
        if not _VALUE.fullmatch(self.value):
            return f"the value of {_shown(self.name)} has characters that can't stand in a Cookie header"
        return None


class Flaw(NamedTuple):
    """A line or an entry that can't be read.

    Args:
        domain: Whose it is; ``""`` if that can't be told.
        words: What is wrong with it, without its value.
    """

    domain: str
    words: str

    def concerns(self, host: str) -> bool:
        """Whether it may have been a cookie for a host."""
        return not self.domain or _belongs(self.domain, False, host)


class Parsed(NamedTuple):
    """What a source holds."""

    cookies: List[StoredCookie]
    flaws: List[Flaw]


def _belongs(domain: str, host_only: bool, host: str) -> bool:
    """Whether a domain's cookies go to a host: to itself, and to those below it unless that is everybody's."""
    if domain == host:
        return True
    if "." not in host and domain == f"{host}.local":
        return True  # http.cookiejar's way of writing a host without a dot
    return not host_only and host.endswith(f".{domain}") and not is_address(host) and not _is_public(domain)


def _is_public(domain: str) -> bool:
    """Whether anybody can have a host below a domain, as far as is known without the list of all such."""
    labels = domain.split(".")
    is_country_wide = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _PUBLIC_LABELS
    return len(labels) < 2 or is_country_wide or domain in _PUBLIC_SUFFIXES


def file_of(source: CookieSource) -> Optional[str]:
    """Return the path of the file that a source names; ``None`` if it is no file.

    Raises:
        MissingCredentialsError: It is a string that is neither a file nor a header.
    """
    if isinstance(source, os.PathLike):
        return os.fsdecode(source)
    if not isinstance(source, str) or not source.strip():
        return None
    path = os.path.expanduser(source.strip())
    if os.path.exists(path):
        return path
    header = _without_label(source.strip())
    before, equals, _ = header.partition("=")
    if header and not (equals and not re.search(r"[/\\]", before)):
        raise MissingCredentialsError(_no_such_file(path), stage="credentials")
    return None


def parse(source: CookieSource) -> Parsed:
    """Read what the argument ``cookies`` may be besides a file.

    Raises:
        TypeError: It is none of what it may be.
        ValueError: It is a header that is none.
    """
    if isinstance(source, str):
        return Parsed(_parse_header(_without_label(source.strip())), [])
    if isinstance(source, CookieJar):  # ahead of mappings: the jar of requests is one too
        return Parsed(parse_jar(source), [])
    return _parse_data(source)


def parse_jar(jar: Iterable[Cookie]) -> List[StoredCookie]:
    """Read a cookie jar, or the cookies of one."""
    return [
        StoredCookie(
            name=cookie.name,
            value=cookie.value or "",
            domain=_bare(cookie.domain),
            host_only=not (cookie.domain_specified or cookie.domain.startswith(".")),
            expires=read_time(cookie.expires),
        )
        for cookie in list(jar)
    ]


def parse_file(path: str) -> Parsed:
    """Read a file of any of the formats.

    Raises:
        MissingCredentialsError: It can't be read, or nothing of it can be understood.
    """
    text = _text_of(path)
    if not text.lstrip().startswith(("{", "[")):
        parsed = _parse_netscape(text)
        if parsed.flaws and not parsed.cookies:
            raise _no_cookie_file(path, f"expected JSON or a cookies.txt, but {parsed.flaws[0].words}")
        return parsed
    parsed = _parse_data(_json_of(path, text))
    if parsed.flaws and not parsed.cookies:
        raise _no_cookie_file(path, parsed.flaws[0].words)
    return parsed


def _no_cookie_file(path: str, problem: str) -> MissingCredentialsError:
    return MissingCredentialsError(f"{path!r} is not a cookie file: {problem}", stage="credentials")


def _without_label(text: str) -> str:
    label = _HEADER_NAME.match(text)
    return text[label.end() :] if label else text


def _no_such_file(path: str) -> str:
    folder = os.path.dirname(path)
    if path.lower().endswith(_FILE_ENDINGS) or (len(folder) > 1 and os.path.isdir(folder)):
        return f"there is no cookie file {path!r}"
    return (
        "expected the path of a cookie file, or a header such as 'user_session=…', but there is no such file "
        "(what came is not shown, as it may be a secret)"
    )


def _parse_header(header: str) -> List[StoredCookie]:
    cookies = []
    for number, part in enumerate(header.split(";"), 1):
        name, equals, value = part.partition("=")
        if equals:
            # Blanks and tabs alone are stripped: a line break would begin another header, and is to be refused.
            cookies.append(StoredCookie(name.strip(" \t"), value.strip(" \t")))
        elif part.strip():
            raise ValueError(f"part {number} of the cookie header is not 'name=value'")
    return cookies


def _text_of(path: str) -> str:
    """Read a file and decode it."""
    content = _content_of(path)
    try:
        encoding = text_files.encoding_of(content[:4])
    except ValueError as error:
        problem = str(error)
    else:
        # A byte that is none of UTF-8 may stand in another site's line. In one of ours it can't be sent.
        text = content.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")
        # So may a NUL, but not in JSON.
        if "\0" not in text or not text.lstrip().startswith(("{", "[")):
            return text_files.with_plain_ends(text)
        problem = text_files.HAS_NULS
    raise _no_cookie_file(path, problem)


def _content_of(path: str) -> bytes:
    problem = "it is a folder, a pipe or a device"  # a pipe would be waited for, for ever
    try:
        if not os.path.exists(path) or os.path.isfile(path):
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size <= FILE_LIMIT:
                    return file.read()
            problem = f"it is larger than {FILE_LIMIT} bytes"
    except (OSError, ValueError) as error:  # no path holds a NUL
        reason = getattr(error, "strerror", None) or "no path can be like this"
        raise MissingCredentialsError(
            f"the cookie file {path!r} can't be read: {reason}", stage="credentials"
        ) from error
    raise _no_cookie_file(path, problem)


def _json_of(path: str, text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    raise _no_cookie_file(path, "its JSON is broken")


def _parse_netscape(text: str) -> Parsed:
    parsed = Parsed([], [])
    for number, line in enumerate(text.split("\n"), 1):
        fields = re.sub("^#HttpOnly_", "", line.rstrip("\r"))
        if not fields.strip() or fields.startswith("#"):
            continue
        has_nuls = "\0" in fields
        cookie = None if has_nuls else _netscape_cookie(fields.split("\t"))
        if cookie is not None:
            parsed.cookies.append(cookie)
        else:
            domain = _bare(fields.split("\t")[0]) if "\t" in fields else ""
            problem = text_files.HAS_NULS if has_nuls else "does not have seven fields with tabs between them"
            parsed.flaws.append(Flaw(domain, f"line {number}{':' if has_nuls else ''} {problem}"))
    return parsed


def _netscape_cookie(fields: List[str]) -> Optional[StoredCookie]:
    if len(fields) == 6:  # an empty value, whose tab an editor took away
        fields = [*fields, ""]
    if len(fields) != 7:
        return None
    domain, goes_below, _, _, expires, name, value = fields
    moment = 0.0 if expires.strip().lower() in ("", "session") else read_time(expires)
    if moment is None:
        return None
    host_only = goes_below.upper() != "TRUE" and not domain.startswith(".")
    return StoredCookie(name, value, _bare(domain), host_only, moment)


def _parse_data(data: object) -> Parsed:
    """Read what JSON can hold: names and values, a list of cookies, that list in a wrapping, a HAR."""
    if isinstance(data, Mapping):
        return _parse_mapping(data)
    if isinstance(data, (list, tuple)):
        return _sorted_out(_listed_cookie(item) for item in data)
    raise TypeError(
        "cookies must be a mapping of names to values, a cookie jar, a header, a path or a list of cookies, "
        f"not {type(data).__name__}"
    )


def _sorted_out(found: Iterable[Union[StoredCookie, Flaw]]) -> Parsed:
    parsed = Parsed([], [])
    for item in found:
        if isinstance(item, Flaw):
            parsed.flaws.append(item)
        else:
            parsed.cookies.append(item)
    return parsed


def _parse_mapping(data: Mapping[Any, Any]) -> Parsed:
    if isinstance(data.get("cookies"), list):  # Playwright's storage state
        return _parse_data(data["cookies"])
    if isinstance(data.get("log"), Mapping):
        return _sorted_out(_listed_cookie(item) for item in _har_cookies(data["log"]))
    return _sorted_out(_named_cookie(name, value) for name, value in data.items())


def _named_cookie(name: object, value: object) -> Union[StoredCookie, Flaw]:
    if not isinstance(name, str):
        return Flaw("", f"the name of a cookie must be a string, not {type(name).__name__}")
    if not isinstance(value, str):
        return Flaw("", f"the value of {_shown(name)} must be a string, not {type(value).__name__}")
    return StoredCookie(name, value)


def _har_cookies(log: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """The cookies of the recorded requests. One without a domain belongs to the host that it was sent to.

    Some recorders leave them in the ``Cookie`` header alone.
    """
    for entry in _objects(log.get("entries")):
        for request in _objects([entry.get("request")]):
            host = _host_of(request.get("url"))
            listed = [*_header_cookies(request.get("headers")), *_objects(request.get("cookies"))]
            for item in listed if host else ():
                yield item if item.get("domain") else {**item, "domain": host}


def _header_cookies(headers: object) -> Iterator[Mapping[str, str]]:
    for header in _objects(headers):
        name, value = header.get("name"), header.get("value")
        if isinstance(name, str) and name.strip().lower() == "cookie" and isinstance(value, str):
            for pair in value.split(";"):
                before, equals, after = pair.partition("=")
                if equals:
                    yield {"name": before.strip(), "value": after.strip()}


def _objects(value: object) -> Sequence[Mapping[Any, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else ()


def _host_of(url: object) -> str:
    with contextlib.suppress(ValueError):
        return (isinstance(url, str) and urlsplit(url).hostname) or ""
    return ""


def _listed_cookie(item: object) -> Union[StoredCookie, Flaw]:
    if not isinstance(item, Mapping):
        return Flaw("", f"a cookie must be an object with name and value, not {type(item).__name__}")
    name, value, domain = item.get("name"), item.get("value"), item.get("domain") or ""
    for what, text in (("name", name), ("value", value), ("domain", domain)):
        if not isinstance(text, str):
            words = f"the {what} of {_shown(name)} must be a string, not {type(text).__name__}"
            return Flaw(_bare(domain) if isinstance(domain, str) else "", words)
    host_only = item.get("hostOnly")
    return StoredCookie(
        name=str(name),
        value=str(value),
        domain=_bare(str(domain)),
        host_only=host_only if isinstance(host_only, bool) else not str(domain).startswith("."),
        expires=read_time(next((item[key] for key in ("expirationDate", "expires", "expiry") if key in item), None)),
    )


def _bare(domain: str) -> str:
    return domain.strip().lstrip(".").lower()


def _shown(name: object) -> str:
    return f"the cookie {name!r}" if isinstance(name, str) and _SHOWN_NAME.fullmatch(name) else "a cookie"
