"""The ways in which cookies are written down, each read into ``StoredCookie`` values. Nothing is chosen here.

Netscape's ``cookies.txt`` (its own lines, curl's ``#HttpOnly_`` ones, with or without the magic first line); JSON
as an object, as a browser extension's, Playwright's, Puppeteer's or Selenium's list, as a HAR; a ``Cookie`` header;
a cookie jar. A file's format is told from its first character, never from its name.

What can't be understood is a ``ValueError``; a Python object of the wrong type is a ``TypeError``. Neither ever
holds a value, in its text or in its context: the exceptions of ``json`` and of decoding carry the whole file, so
ours are raised outside their ``except`` blocks. A name is shown only where it can't be a secret in the wrong place.
"""

import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.cookiejar import Cookie, CookieJar
from typing import Any, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import urlsplit

CookieSource = Union[str, "os.PathLike[str]", CookieJar, Mapping[str, Any], Sequence[Mapping[str, Any]]]

#: Bytes of a cookie file. An export of a whole browser has less than one MiB, but a HAR holds pages as well.
FILE_LIMIT = 32 * 1024 * 1024

#: Above it an expiry is in milliseconds, as Firefox has it from version 153 on: as seconds it would be the year 5138.
_MILLISECONDS_ABOVE = 1e11
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
        domain: In lower case and without a leading dot; ``""`` where the source names none.
        host_only: Whether it goes to that very host alone, not to the hosts below it.
        expires: Seconds or milliseconds since 1970; ``None``, 0 and -1 are the end of the browser's session.
    """

    name: str
    value: str = field(repr=False)
    domain: str = ""
    host_only: bool = True
    expires: Optional[float] = None

    def goes_to(self, host: str) -> bool:
        """Whether a browser would send it to a host (in lower case)."""
        if not self.domain or self.domain == host:
            return True
        if "." not in host and self.domain == f"{host}.local":
            return True  # http.cookiejar's way of writing a host without a dot
        return not self.host_only and host.endswith(f".{self.domain}")

    def is_expired(self, moment: float) -> bool:
        """Whether its time is over at a moment, in seconds since 1970."""
        if self.expires is None or self.expires <= 0:
            return False
        return self.expires <= (moment * 1000 if self.expires > _MILLISECONDS_ABOVE else moment)

    def fault(self) -> Optional[str]:
        """What keeps it out of a header, in words without its value; ``None`` where nothing does."""
        if not self.name:
            return "a cookie has an empty name"
        if not _NAME.fullmatch(self.name):
            return f"the name of {_shown(self.name)} has characters that can't stand in a Cookie header"
        if not _VALUE.fullmatch(self.value):
            return f"the value of {_shown(self.name)} has characters that can't stand in a Cookie header"
        return None


def parse(source: CookieSource) -> List[StoredCookie]:
    """Read what the argument ``cookies`` may be."""
    if isinstance(source, str):
        return _parse_text(source.strip())
    if isinstance(source, os.PathLike):
        return parse_file(os.fsdecode(source))
    if isinstance(source, CookieJar):  # ahead of mappings: the jar of requests is one too
        return parse_jar(source)
    return _parse_data(source)


def parse_jar(jar: Iterable[Cookie]) -> List[StoredCookie]:
    """Read a cookie jar, or the cookies of one."""
    return [
        StoredCookie(
            name=cookie.name,
            value=cookie.value or "",
            domain=_bare(cookie.domain),
            host_only=not (cookie.domain_specified or cookie.domain.startswith(".")),
            expires=_expiry(cookie.expires),
        )
        for cookie in list(jar)
    ]


def parse_file(path: str) -> List[StoredCookie]:
    """Read a file of any of the formats."""
    text = _text_of(path)
    if not text.lstrip().startswith(("{", "[")):
        return _parse_netscape(path, text)
    data = _json_of(path, text)
    try:
        return _parse_data(data)
    except TypeError as error:
        problem = str(error)
    raise ValueError(f"{path!r} is not a cookie file: {problem}")


def _parse_text(text: str) -> List[StoredCookie]:
    path = os.path.expanduser(text)
    if os.path.exists(path):
        return parse_file(path)
    label = _HEADER_NAME.match(text)
    header = text[label.end() :] if label else text
    if not header:
        return []
    before, equals, _ = header.partition("=")
    if equals and not re.search(r"[/\\]", before):
        return _parse_header(header)
    raise ValueError(_no_such_file(path))


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
    content = _content_of(path)
    with contextlib.suppress(UnicodeDecodeError):
        return content.decode("utf-8-sig")
    raise ValueError(f"{path!r} is not a cookie file: it is not UTF-8 text")


def _content_of(path: str) -> bytes:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for, for ever
        raise ValueError(f"{path!r} is not a cookie file: it is a folder, a pipe or a device")
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size <= FILE_LIMIT:
                return file.read()
    except OSError as error:
        raise ValueError(f"the cookie file {path!r} can't be read: {error.strerror}") from error
    raise ValueError(f"{path!r} is not a cookie file: it is larger than {FILE_LIMIT} bytes")


def _json_of(path: str, text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    raise ValueError(f"{path!r} is not a cookie file: its JSON is broken")


def _parse_netscape(path: str, text: str) -> List[StoredCookie]:
    cookies = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = re.sub("^#HttpOnly_", "", line.rstrip("\r"))
        if not fields.strip() or fields.startswith("#"):
            continue
        cookie = _netscape_cookie(fields.split("\t"))
        if cookie is None:
            raise ValueError(
                f"{path!r} is not a cookie file: expected JSON or a cookies.txt, "
                f"but line {number} does not have seven fields with tabs between them"
            )
        cookies.append(cookie)
    return cookies


def _netscape_cookie(fields: List[str]) -> Optional[StoredCookie]:
    if len(fields) == 6:  # an empty value, whose tab an editor took away
        fields = [*fields, ""]
    if len(fields) != 7:
        return None
    domain, goes_below, _, _, expires, name, value = fields
    try:
        moment = float(expires or 0)
    except ValueError:
        return None
    host_only = goes_below.upper() != "TRUE" and not domain.startswith(".")
    return StoredCookie(name, value, _bare(domain), host_only, moment)


def _parse_data(data: object) -> List[StoredCookie]:
    """Read what JSON can hold: names and values, a list of cookies, that list in a wrapping, a HAR."""
    if isinstance(data, Mapping):
        return _parse_mapping(data)
    if isinstance(data, (list, tuple)):
        return [_listed_cookie(item) for item in data]
    raise TypeError(
        "cookies must be a mapping of names to values, a cookie jar, a header, a path or a list of cookies, "
        f"not {type(data).__name__}"
    )


def _parse_mapping(data: Mapping[Any, Any]) -> List[StoredCookie]:
    if isinstance(data.get("cookies"), list):  # Playwright's storage state
        return _parse_data(data["cookies"])
    if isinstance(data.get("log"), Mapping):
        return [_listed_cookie(item) for item in _har_cookies(data["log"])]
    for name, value in data.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a cookie must be a string, not {type(name).__name__}")
        if not isinstance(value, str):
            raise TypeError(f"the value of {_shown(name)} must be a string, not {type(value).__name__}")
    return [StoredCookie(name, value) for name, value in data.items()]


def _har_cookies(log: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """The cookies of the recorded requests. One without a domain belongs to the host that it was sent to."""
    for entry in _objects(log.get("entries")):
        for request in _objects([entry.get("request")]):
            host = _host_of(request.get("url"))
            for item in _objects(request.get("cookies")) if host else ():
                yield item if item.get("domain") else {**item, "domain": host}


def _objects(value: object) -> Sequence[Mapping[Any, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else ()


def _host_of(url: object) -> str:
    with contextlib.suppress(ValueError):
        return (isinstance(url, str) and urlsplit(url).hostname) or ""
    return ""


def _listed_cookie(item: object) -> StoredCookie:
    if not isinstance(item, Mapping):
        raise TypeError(f"a cookie must be an object with name and value, not {type(item).__name__}")
    name, value, domain = _texts(item)
    host_only = item.get("hostOnly")
    return StoredCookie(
        name=name,
        value=value,
        domain=_bare(domain),
        host_only=host_only if isinstance(host_only, bool) else not domain.startswith("."),
        expires=_expiry(next((item[key] for key in ("expirationDate", "expires", "expiry") if key in item), None)),
    )


def _texts(item: Mapping[Any, Any]) -> Tuple[str, str, str]:
    texts = {"name": item.get("name"), "value": item.get("value"), "domain": item.get("domain") or ""}
    for what, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"the {what} of {_shown(texts['name'])} must be a string, not {type(text).__name__}")
    return str(texts["name"]), str(texts["value"]), str(texts["domain"])


def _expiry(value: object) -> Optional[float]:
    """A number, or a date such as a HAR has; ``None``, the end of the session, where it can't be read."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    with contextlib.suppress(ValueError):
        return float(value)
    with contextlib.suppress(ValueError):
        return datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return None


def _bare(domain: str) -> str:
    return domain.strip().lstrip(".").lower()


def _shown(name: object) -> str:
    return f"the cookie {name!r}" if isinstance(name, str) and _SHOWN_NAME.fullmatch(name) else "a cookie"
