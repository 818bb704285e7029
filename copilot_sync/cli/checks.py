"""What ``doctor`` looks at: each check is a function that gives one ``Check`` and changes nothing.

Checks of what is installed and set are functions of values; those that use the network come last and take what they
talk to as arguments. No finding holds a credential: it says where one comes from, never what it is.
"""

import enum
import netrc
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

import requests

from copilot_sync.auth.cookies import FoundCookies
from copilot_sync.auth.credentials import Credentials
from copilot_sync.client import Client
from copilot_sync.errors import AuthenticationError, CopilotError, MissingCredentialsError
from copilot_sync.protocol.requests import Request
from copilot_sync.settings import (
    API_KEY_VARIABLE,
    API_URL_VARIABLE,
    COOKIES_VARIABLE,
    GITHUB_URL_VARIABLE,
    MODEL,
    TOKEN_CACHE_VARIABLE,
    Environment,
    Timeout,
    Urls,
    choose_urls,
)
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.proxies import place_of
from copilot_sync.transport.session import Transport

_OLDEST_PYTHON = (3, 8)
_OLDEST_URLLIB3 = (1, 26)
#: Seconds: for a connection, for silence, and in all. Nobody waits longer for a check.
CHECK_TIMEOUT = Timeout(connect=10.0, read=10.0, total=20.0)
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class State(enum.Enum):
    """How a check went."""

    OK = "well"
    FAIL = "wrong"
    SKIPPED = "open"  # not checked, or neither good nor bad


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Args:
        name: What was checked.
        state: How it went.
        words: What was found.
        advice: What to do about it; ``""`` for nothing.
    """

    name: str
    state: State
    words: str
    advice: str = ""


def check_python(version: Sequence[int], implementation: str) -> Check:
    """Check the interpreter."""
    words = f"{implementation} {'.'.join(map(str, version[:3]))}"
    if tuple(version[:2]) < _OLDEST_PYTHON:
        return Check("Python", State.FAIL, words, "use Python 3.8 or newer")
    return Check("Python", State.OK, words)


def check_library(name: str, version: Optional[str], lowest: str) -> Check:
    """Check the version of a library.

    Args:
        name: Its name on the package index.
        version: What is installed, ``None`` for nothing.
        lowest: The oldest version that will do, ``""`` if none is known.
    """
    advice = f'pip install --upgrade "{name}{f">={lowest}" if lowest else ""}"'
    if version is None:
        return Check(name, State.FAIL, "is not installed", advice)
    if _parse_version(version) < _parse_version(lowest):
        return Check(name, State.FAIL, f"{version} is too old", advice)
    return Check(name, State.OK, version)


def check_urllib3(version: Optional[str]) -> Check:
    """Check ``requests``' own dependency, which old releases of ``boto3`` pin to 1.26."""
    if version is None or _parse_version(version) < _OLDEST_URLLIB3:
        return check_library("urllib3", version, ".".join(map(str, _OLDEST_URLLIB3)))
    return Check("urllib3", State.OK, f"{version}, with {ssl.OPENSSL_VERSION}")


def lowest_versions(requirements: Iterable[str]) -> Dict[str, str]:
    """Read the lower bounds of requirements such as ``requests>=2.32.4``, by name."""
    found: Dict[str, str] = {}
    for requirement in requirements:
        bound = re.match(r"([\w.-]+)[^;]*>=\s*([\d.]+)", requirement)
        if bound:
            found.setdefault(bound.group(1), bound.group(2))
    return found


def _parse_version(version: str) -> Tuple[int, ...]:
    """The numbers that a version begins with."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def check_settings(environment: Environment) -> Tuple[Check, Optional[Urls]]:
    """Check the URLs, and return them if they can be used."""
    try:
        urls = choose_urls(None, None, environment)
    except ValueError as error:
        advice = f"correct {GITHUB_URL_VARIABLE} or {API_URL_VARIABLE}"
        return Check("settings", State.FAIL, str(error), advice), None
    words = f"{urls.github} and {urls.api}, model {environment.model or MODEL}"
    return Check("settings", State.OK, words), urls


def check_proxy(url: str, has_socks: bool) -> Check:
    """Check which proxy the environment has for a URL."""
    name = f"proxy for {_host(url)}"
    proxy = proxy_of(url)
    if proxy is None:
        return Check(name, State.OK, "none")
    place = place_of(proxy)
    if not place:
        return Check(name, State.FAIL, "is set to what is no URL", "correct HTTPS_PROXY: http://host:port")
    scheme = proxy.partition("://")[0] if "://" in proxy else "http"
    words = f"{scheme}://{'***@' if '@' in proxy else ''}{place}"
    if scheme.startswith("socks") and not has_socks:
        return Check(name, State.FAIL, f"{words} needs an extra", 'pip install "copilot-sync[socks]"')
    return Check(name, State.OK, words)


def proxy_of(url: str) -> Optional[str]:
    """The proxy that the environment has for a URL, as ``requests`` finds it."""
    proxies = requests.utils.get_environ_proxies(url)
    return requests.utils.select_proxy(url, proxies)


def check_certificates(environ: Mapping[str, str]) -> Check:
    """Check the CA certificates that servers are checked with."""
    for variable in _CA_VARIABLES:
        path = environ.get(variable)
        if path:
            return _check_bundle(f"{path} ({variable})", path, f"correct or unset {variable}")
    path = str(requests.utils.DEFAULT_CA_BUNDLE_PATH)
    return _check_bundle(path, path, "pip install --force-reinstall certifi")


def _check_bundle(words: str, path: str, advice: str) -> Check:
    if not os.path.exists(path):
        return Check("certificates", State.FAIL, f"{words} is not there", advice)
    try:
        if not os.path.isdir(path):
            ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        return Check("certificates", State.FAIL, f"{words} can't be read, or holds no certificates", advice)
    return Check("certificates", State.OK, words)


def check_netrc(path: Optional[str], hosts: Sequence[str]) -> Check:
    """Check whether other programs would send a password of ``~/.netrc`` to our hosts. Ours never does.

    Args:
        path: The file, ``None`` if there is none.
        hosts: The hosts.
    """
    if path is None:
        return Check("netrc", State.OK, "none")
    try:
        entries = netrc.netrc(path).hosts
    except (OSError, ValueError, netrc.NetrcParseError):
        return Check("netrc", State.SKIPPED, f"{path} can't be read; it is not used here")
    found = [host for host in hosts if host in entries or "default" in entries]
    if not found:
        return Check("netrc", State.OK, f"{path} has no entry for our hosts")
    return Check("netrc", State.OK, f"{path} has an entry for {' and '.join(found)}; it would interfere and is ignored")


def check_credentials(environment: Environment, find: Callable[[], FoundCookies]) -> Check:
    """Check where credentials come from.

    Args:
        environment: The variables.
        find: Searches for cookies.
    """
    if environment.api_key is not None:
        try:
            Credentials(None, None, environment)
        except ValueError as error:
            words = str(error).replace("the api_key", API_KEY_VARIABLE)
            return Check("credentials", State.FAIL, words, f"set {API_KEY_VARIABLE} anew")
        return Check("credentials", State.OK, f"a token from {API_KEY_VARIABLE}")
    try:
        found = find()
    except MissingCredentialsError as error:
        return Check("credentials", State.FAIL, str(error.args[0]))
    count = len(found.cookies)
    words = f"{count} cookie{'s' if count > 1 else ''} from {found.place}"
    if not found.has_session:
        advice = f"sign in at github.com, export its cookies, point {COOKIES_VARIABLE} at them"
        return Check("credentials", State.FAIL, f"{words}, but no user_session among them", advice)
    return Check("credentials", State.OK, words)


def check_token_cache(environment: Environment, path: Optional[str]) -> Check:
    """Check where tokens are kept between invocations.

    Args:
        environment: The variables.
        path: The file of the command line, ``None`` if the variable names another or none.
    """
    if environment.token_cache == "off":
        return Check("token cache", State.SKIPPED, f"off: each command fetches a token ({TOKEN_CACHE_VARIABLE})")
    file = os.path.abspath(os.path.expanduser(path or str(environment.token_cache)))
    folder = os.path.dirname(file)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        return Check("token cache", State.SKIPPED, f"{file} can't be written: each command fetches a token")
    return Check("token cache", State.OK, file)


def check_dns(url: str) -> Check:
    """Check whether the name of a host is known."""
    parts = urlsplit(url)
    name = f"DNS of {parts.hostname}"
    if proxy_of(url) is not None:
        return Check(name, State.SKIPPED, "left to the proxy")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no valid name"
        advice = "go online, or set HTTPS_PROXY if the way out is a proxy"
        return Check(name, State.FAIL, f"not found ({reason}); there may be no network", advice)
    return Check(name, State.OK, str(found[0][4][0]))


def check_tls(url: str) -> Check:
    """Check whether a host is reached and its certificate trusted, on the very way that requests take."""
    name = f"TLS to {_host(url)}"
    if not url.startswith("https:"):
        return Check(name, State.SKIPPED, "not used: an http:// URL, for this machine alone")
    transport = Transport()
    try:
        response = transport.open(Request("doctor", "HEAD", f"{url}/", "/", {}), lambda request: request, _call())
        response.body.close()
    except CopilotError as error:
        advice = "see to the network and the proxy; if a company's own CA signs, point REQUESTS_CA_BUNDLE at its file"
        return Check(name, State.FAIL, str(error.args[0]), advice)
    finally:
        transport.close()
    return Check(name, State.OK, "connected, the certificate is trusted")


def _call() -> CallContext:
    call = CallContext(CHECK_TIMEOUT)
    call.begin()
    return call


def check_account(client: Client, environment: Environment) -> List[Check]:
    """Check whether the service takes the credentials, and lists models."""
    try:
        models = client.models()
    except CopilotError as error:
        words = str(error)
        if error.stage in ("credentials", "token"):
            # If the service says that the account gets no token, it is no use.
            signed_out = isinstance(error, AuthenticationError) and (error.status == 302 or "sign in again" in words)
            advice = "sign in at github.com and export its cookies anew" if signed_out else ""
            return [Check("token", State.FAIL, words, advice), Check("models", State.SKIPPED, "not tried")]
        return [_token_found(environment), Check("models", State.FAIL, words)]
    wanted = environment.model or MODEL
    listed = "" if wanted in [model.id for model in models] else f"; {wanted} is not among them"
    return [_token_found(environment), Check("models", State.OK, f"{len(models)} to choose from{listed}")]


def untried_account(reason: str) -> List[Check]:
    """The findings of ``check_account`` if it makes no sense to try."""
    return [Check(name, State.SKIPPED, f"not tried: {reason}") for name in ("token", "models")]


def _token_found(environment: Environment) -> Check:
    words = f"{API_KEY_VARIABLE} is used as it is" if environment.api_key else "there is one"
    return Check("token", State.OK, words)


def _host(url: str) -> str:
    return urlsplit(url).netloc
