"""The checks of ``doctor``. Each is a function that returns a ``Check`` and changes nothing.

Checks of the installation and the settings are functions of values. Checks that use the network come last, and take
what they talk to as arguments. No result holds a credential: it says where one comes from, never what it is.
"""

import enum
import netrc
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import urlsplit

import requests

from copilot_sync.auth.cookies import FoundCookies
from copilot_sync.auth.credentials import Credentials
from copilot_sync.auth.stored_logins import login_file
from copilot_sync.cli.quota import UNKNOWN, quota_rows
from copilot_sync.cli.user_settings import read_user_settings
from copilot_sync.client import Client
from copilot_sync.errors import AuthenticationError, CopilotError, MissingCredentialsError, WrongHostError
from copilot_sync.protocol.requests import Request
from copilot_sync.secret import Secret
from copilot_sync.settings import (
    API_KEY_VARIABLE,
    API_URL_VARIABLE,
    AUTO,
    COOKIES_VARIABLE,
    GITHUB_URL_VARIABLE,
    MODEL,
    MODEL_VARIABLE,
    PROFILE_VARIABLE,
    TOKEN_CACHE_VARIABLE,
    Environment,
    Timeout,
    Urls,
    choose_urls,
)
from copilot_sync.times import in_words
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.proxies import environment_proxy, shown_proxy
from copilot_sync.transport.session import Transport
from copilot_sync.user_config import UserConfig, UserConfigError, config_file, load_config

_OLDEST_PYTHON = (3, 8)
_OLDEST_URLLIB3 = (1, 26)
#: How long a check that uses the network may take.
CHECK_TIMEOUT = Timeout(connect=10.0, read=10.0, total=20.0)
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class State(enum.Enum):
    """How a check went."""

    OK = "ok"
    FAIL = "fail"
    SKIPPED = "skipped"  # not checked, or neither good nor bad


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Args:
        name: What was checked.
        state: How it went.
        detail: What was found.
        advice: What to do about it; ``""`` if there is nothing to do.
    """

    name: str
    state: State
    detail: str
    advice: str = ""


def check_python(version: Sequence[int], implementation: str, has_gil: Optional[bool] = None) -> Check:
    """Check the interpreter.

    Args:
        version: Its release.
        implementation: Its name, such as ``CPython``.
        has_gil: Whether a free-threaded build runs with the GIL all the same; ``None`` for any other build.
    """
    detail = f"{implementation} {'.'.join(map(str, version[:3]))}"
    if has_gil is not None:
        detail += f", free-threaded, with the GIL {'on' if has_gil else 'off'}"
    if tuple(version[:2]) < _OLDEST_PYTHON:
        return Check("Python", State.FAIL, detail, "use Python 3.8 or newer")
    return Check("Python", State.OK, detail)


def check_library(name: str, version: Optional[str], lowest: str) -> Check:
    """Check the version of a library.

    Args:
        name: Its name on the package index.
        version: The installed version, ``None`` if there is none.
        lowest: The oldest version that works, ``""`` if it is unknown.
    """
    advice = f'pip install --upgrade "{name}{f">={lowest}" if lowest else ""}"'
    if version is None:
        return Check(name, State.FAIL, "is not installed", advice)
    if _parse_version(version) < _parse_version(lowest):
        return Check(name, State.FAIL, f"{version} is too old", advice)
    return Check(name, State.OK, version)


def check_urllib3(version: Optional[str]) -> Check:
    """Check the dependency of ``requests`` that old releases of ``boto3`` pin to 1.26."""
    if version is None or _parse_version(version) < _OLDEST_URLLIB3:
        return check_library("urllib3", version, ".".join(map(str, _OLDEST_URLLIB3)))
    return Check("urllib3", State.OK, f"{version}, with {ssl.OPENSSL_VERSION}")


def lowest_versions(requirements: Iterable[str]) -> Dict[str, str]:
    """Return the lower bounds of requirements such as ``requests>=2.32.4`` by name."""
    found: Dict[str, str] = {}
    for requirement in requirements:
        bound = re.match(r"([\w.-]+)[^;]*>=\s*([\d.]+)", requirement)
        if bound:
            found.setdefault(bound.group(1), bound.group(2))
    return found


def _parse_version(version: str) -> Tuple[int, ...]:
    """Return the numbers at the beginning of a version."""
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
    api = f"the API host that its page names ({AUTO})" if urls.is_auto else urls.api
    detail = f"{urls.github} and {api}, model {environment.model or MODEL}"
    return Check("settings", State.OK, detail), urls


def check_proxy(url: str, has_socks: bool, configured: Optional[str] = None) -> Check:
    """Check the proxy of the config file, or the one that the environment sets for a URL."""
    name = f"proxy for {_host(url)}"
    proxy = configured or environment_proxy(url)
    if proxy is None:
        return Check(name, State.OK, "none")
    detail = shown_proxy(proxy)
    if not detail:
        return Check(name, State.FAIL, "is set to what is no URL", "correct HTTPS_PROXY: http://host:port")
    if detail.startswith("socks") and not has_socks:
        return Check(name, State.FAIL, f"{detail} needs an extra", 'pip install "copilot-sync[socks]"')
    return Check(name, State.OK, detail)


def check_certificates(environ: Mapping[str, str]) -> Check:
    """Check the CA certificates that verify servers."""
    for variable in _CA_VARIABLES:
        path = environ.get(variable)
        if path:
            return _check_bundle(f"{path} ({variable})", path, f"correct or unset {variable}")
    path = str(requests.utils.DEFAULT_CA_BUNDLE_PATH)
    return _check_bundle(path, path, "pip install --force-reinstall certifi")


def _check_bundle(detail: str, path: str, advice: str) -> Check:
    if not os.path.exists(path):
        return Check("certificates", State.FAIL, f"{detail} is not there", advice)
    try:
        if not os.path.isdir(path):
            ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        return Check("certificates", State.FAIL, f"{detail} can't be read, or holds no certificates", advice)
    return Check("certificates", State.OK, detail)


def check_netrc(path: Optional[str], hosts: Sequence[str]) -> Check:
    """Check whether other programs would send a password from ``~/.netrc`` to our hosts. This library never does.

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
        environment: The environment variables.
        find: Searches for cookies.
    """
    if environment.api_key is not None:
        return _check_api_key(environment)
    try:
        found = find()
    except MissingCredentialsError as error:
        return Check("credentials", State.FAIL, str(error.args[0]), "copilot-sync login")
    count = len(found.cookies)
    detail = f"{count} cookie{'s' if count > 1 else ''} from {found.place}"
    if not found.has_session:
        advice = f"sign in at github.com, export its cookies, point {COOKIES_VARIABLE} at them"
        return Check("credentials", State.FAIL, f"{detail}, but no user_session among them", advice)
    return Check("credentials", State.OK, detail)


def check_config() -> Tuple[Check, UserConfig]:
    """Check the config file, and return what it holds; nothing if it can't be used."""
    path = config_file()
    try:
        config = load_config()
    except UserConfigError as error:
        return Check("config file", State.FAIL, str(error)), UserConfig(path, {})
    return Check("config file", State.OK, path if config.data else f"nothing is set in {path}"), config


class StoredCheck(NamedTuple):
    """What is found in a profile, with the environment and the proxy that follow; no check if nothing is stored."""

    environment: Environment
    check: Optional[Check]
    proxy: Secret[Any] = Secret(None)


def check_stored_login(environment: Environment, config: UserConfig) -> StoredCheck:
    """Check the stored login, if it is the one that commands use."""
    try:
        choose_urls(None, None, environment)
    except ValueError:  # as ``check_settings`` says
        return StoredCheck(environment, None)
    try:
        profile, login, filled, chosen = read_user_settings(environment, config)
    except (MissingCredentialsError, ValueError) as error:
        advice = "copilot-sync login" if isinstance(error, MissingCredentialsError) else f"correct {PROFILE_VARIABLE}"
        return StoredCheck(environment, Check("credentials", State.FAIL, str(error.args[0]), advice))
    proxy = Secret.coerce(chosen["proxy"].value)
    if login is None:
        return StoredCheck(filled, None, proxy)
    try:
        login.credentials().check_api_key()
    except (ValueError, AuthenticationError) as error:
        return StoredCheck(filled, Check("credentials", State.FAIL, str(error.args[0]), "copilot-sync login"), proxy)
    place = "the system's keyring" if login.in_keyring else login_file(profile)
    words = f"{'cookies' if login.has_cookies else 'a token'} of copilot-sync login, from {place}"
    return StoredCheck(filled, Check("credentials", State.OK, words), proxy)


def _check_api_key(environment: Environment) -> Check:
    try:
        credentials = Credentials(None, None, environment)
        credentials.check_api_key()
    except (ValueError, AuthenticationError) as error:
        detail = str(error.args[0]).replace("the api_key", API_KEY_VARIABLE)
        return Check("credentials", State.FAIL, detail, f"set {API_KEY_VARIABLE} anew")
    try:
        credentials.check_urls(choose_urls(None, None, environment))
    except ValueError as error:
        return Check("credentials", State.FAIL, str(error), f"set {COOKIES_VARIABLE}, or unset {API_URL_VARIABLE}")
    until = "" if credentials.expires is None else f", which expires on {in_words(credentials.expires)}"
    return Check("credentials", State.OK, f"a token from {API_KEY_VARIABLE}{until}")


def check_token_cache(environment: Environment, path: Optional[str]) -> Check:
    """Check where tokens are kept between commands.

    Args:
        environment: The environment variables.
        path: The file of the command line, ``None`` if the variable names another file or none.
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


def check_dns(url: str, configured: Optional[str] = None) -> Check:
    """Check whether DNS knows the host of a URL."""
    parts = urlsplit(url)
    name = f"DNS of {parts.hostname}"
    if configured or environment_proxy(url) is not None:
        return Check(name, State.SKIPPED, "left to the proxy")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no valid name"
        advice = "go online, or set HTTPS_PROXY if the way out is a proxy"
        return Check(name, State.FAIL, f"not found ({reason}); there may be no network", advice)
    return Check(name, State.OK, str(found[0][4][0]))


def check_tls(url: str, configured: Optional[str] = None) -> Check:
    """Check whether a host can be reached and its certificate is trusted, through the transport that requests use."""
    name = f"TLS to {_host(url)}"
    if not url.startswith("https:"):
        return Check(name, State.SKIPPED, "skipped: http:// on this machine")
    transport = Transport(proxy=configured)
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


def check_account(client: Client, environment: Environment, *, is_stored: bool = False) -> List[Check]:
    """Check whether the service accepts the credentials, and has the model; show what is left of the quota.

    Args:
        client: What is asked.
        environment: The environment variables.
        is_stored: Whether the credentials and the hosts are those of a stored login.
    """
    try:
        models = _check_models(client, environment.model or MODEL)
    except CopilotError as error:
        detail = str(error)
        if isinstance(error, WrongHostError):
            models = Check("models", State.SKIPPED, "not tried")
            return [_token_found(environment), _check_host(client, error, is_stored), models, _check_quota(client)]
        if error.stage in ("credentials", "token"):
            signed_out = isinstance(error, AuthenticationError) and (error.status == 302 or "sign in again" in detail)
            # Signing in again is no use if the service says that the account gets no token.
            anew = "copilot-sync login" if is_stored else "sign in at github.com and export its cookies anew"
            advice = anew if signed_out else ""
            if "No access to GitHub Copilot" in detail:
                advice = "get Copilot for this account, or export the cookies of one that has it"
            untried = [Check(name, State.SKIPPED, "not tried") for name in ("models", "quota")]
            return [Check("token", State.FAIL, detail, advice), *untried]
        models = Check("models", State.FAIL, detail)
    host = [_check_host(client)] if environment.api_url == AUTO else []
    return [_token_found(environment), *host, models, _check_quota(client)]


def _check_host(client: Client, error: Optional[WrongHostError] = None, is_stored: bool = False) -> Check:
    """Say which API host is asked, and what to set if it is not the one of the account's plan."""
    if error is None:
        return Check("API host", State.OK, f"{client.api_url}, which the account's page names")
    better = error.api_url if error.api_url != client.api_url else None
    setting = "copilot-sync login --api-url " if is_stored else f"export {API_URL_VARIABLE}="
    return Check("API host", State.FAIL, str(error), f"{setting}{better}" if better else "")


def _check_models(client: Client, wanted: str) -> Check:
    found = client.models()
    available = f"{len(found) or 'none but auto'} available"
    if wanted == "auto" or wanted in [model.id for model in found]:
        return Check("models", State.OK, available)
    hidden = next((model for model in client.models(all=True) if model.id == wanted), None)
    if hidden is not None and hidden.kind in ("chat", ""):
        return Check("models", State.SKIPPED, f"{available}; {wanted} is not enabled, and may be refused")
    advice = f"choose another: copilot-sync models lists them, {MODEL_VARIABLE}=auto lets the service choose"
    reason = "not among them" if hidden is None else f"for {hidden.kind}"
    return Check("models", State.FAIL, f"{available}, but {wanted} is {reason}", advice)


def _check_quota(client: Client) -> Check:
    """Show the quota. If it can't be had, that is nothing wrong: an answer does not need it."""
    try:
        rows = quota_rows(client.quota())
    except CopilotError as error:
        return Check("quota", State.SKIPPED, str(error.args[0]))
    return Check("quota", State.OK, ", ".join(f"{name} {value}" for name, value in rows) or UNKNOWN)


def untried_account(reason: str) -> List[Check]:
    """Return the results of ``check_account`` if it makes no sense to try."""
    return [Check(name, State.SKIPPED, f"not tried: {reason}") for name in ("token", "models", "quota")]


def _token_found(environment: Environment) -> Check:
    detail = f"{API_KEY_VARIABLE} is used as it is" if environment.api_key else "received"
    return Check("token", State.OK, detail)


def _host(url: str) -> str:
    return urlsplit(url).netloc
