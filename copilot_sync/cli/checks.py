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
from copilot_sync.cli.failures import advice_on_variable
from copilot_sync.cli.language import _, marked, ngettext
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
#: What ``find_cookies`` calls one. Its other places have names.
_BROWSER = marked("a browser of this machine")
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
        detail += _(", free-threaded, with the GIL on") if has_gil else _(", free-threaded, with the GIL off")
    if tuple(version[:2]) < _OLDEST_PYTHON:
        return Check("Python", State.FAIL, detail, _("use Python 3.8 or newer"))
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
        return Check(name, State.FAIL, _("is not installed"), advice)
    if _parse_version(version) < _parse_version(lowest):
        return Check(name, State.FAIL, _("{version} is too old").format(version=version), advice)
    return Check(name, State.OK, version)


def check_urllib3(version: Optional[str]) -> Check:
    """Check the dependency of ``requests`` that old releases of ``boto3`` pin to 1.26."""
    if version is None or _parse_version(version) < _OLDEST_URLLIB3:
        return check_library("urllib3", version, ".".join(map(str, _OLDEST_URLLIB3)))
    return Check(
        "urllib3", State.OK, _("{version}, with {openssl}").format(version=version, openssl=ssl.OPENSSL_VERSION)
    )


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
        advice = _("correct {one} or {other}").format(one=GITHUB_URL_VARIABLE, other=API_URL_VARIABLE)
        return Check(_("settings"), State.FAIL, str(error), advice), None
    api = _("the API host that its page names (auto)") if urls.is_auto else urls.api
    detail = _("{github} and {api}, model {model}")
    detail = detail.format(github=urls.github, api=api, model=environment.model or MODEL)
    return Check(_("settings"), State.OK, detail), urls


def check_proxy(url: str, has_socks: bool, configured: Optional[str] = None) -> Check:
    """Check the proxy of the config file, or the one that the environment sets for a URL."""
    name = _("proxy for {host}").format(host=_host(url))
    proxy = configured or environment_proxy(url)
    if proxy is None:
        return Check(name, State.OK, _("none"))
    detail = shown_proxy(proxy)
    if not detail:
        return Check(name, State.FAIL, _("is set to what is no URL"), _("correct HTTPS_PROXY: http://host:port"))
    if detail.startswith("socks") and not has_socks:
        return Check(
            name, State.FAIL, _("{proxy} needs an extra").format(proxy=detail), 'pip install "copilot-sync[socks]"'
        )
    return Check(name, State.OK, detail)


def check_certificates(environ: Mapping[str, str]) -> Check:
    """Check the CA certificates that verify servers."""
    for variable in _CA_VARIABLES:
        path = environ.get(variable)
        if path:
            return _check_bundle(f"{path} ({variable})", path, _("correct or unset {name}").format(name=variable))
    path = str(requests.utils.DEFAULT_CA_BUNDLE_PATH)
    return _check_bundle(path, path, "pip install --force-reinstall certifi")


def _check_bundle(detail: str, path: str, advice: str) -> Check:
    if not os.path.exists(path):
        return Check(_("certificates"), State.FAIL, _("{file} is not there").format(file=detail), advice)
    try:
        if not os.path.isdir(path):
            ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        words = _("{file} can't be read, or holds no certificates").format(file=detail)
        return Check(_("certificates"), State.FAIL, words, advice)
    return Check(_("certificates"), State.OK, detail)


def check_netrc(path: Optional[str], hosts: Sequence[str]) -> Check:
    """Check whether other programs would send a password from ``~/.netrc`` to our hosts. This library never does.

    Args:
        path: The file, ``None`` if there is none.
        hosts: The hosts.
    """
    if path is None:
        return Check("netrc", State.OK, _("none"))
    try:
        entries = netrc.netrc(path).hosts
    except (OSError, ValueError, netrc.NetrcParseError):
        return Check("netrc", State.SKIPPED, _("{file} can't be read; it is not used here").format(file=path))
    found = [host for host in hosts if host in entries or "default" in entries]
    if not found:
        return Check("netrc", State.OK, _("{file} has no entry for our hosts").format(file=path))
    words = _("{file} has an entry for {hosts}; it would interfere and is ignored")
    return Check("netrc", State.OK, words.format(file=path, hosts=_(" and ").join(found)))


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
        advice = advice_on_variable(environment) or "copilot-sync login"
        return Check(_("credentials"), State.FAIL, str(error.args[0]), advice)
    count = len(found.cookies)
    detail = ngettext("{count} cookie from {place}", "{count} cookies from {place}", count)
    detail = detail.format(count=count, place=_(_BROWSER) if found.place == _BROWSER else found.place)
    if not found.has_session:
        advice = _("sign in at github.com, export its cookies, point {name} at them").format(name=COOKIES_VARIABLE)
        detail += _(", but no user_session among them")
        return Check(_("credentials"), State.FAIL, detail, advice)
    return Check(_("credentials"), State.OK, detail)


def check_config() -> Tuple[Check, UserConfig]:
    """Check the config file, and return what it holds; nothing if it can't be used."""
    path = config_file()
    try:
        config = load_config()
    except UserConfigError as error:
        return Check(_("config file"), State.FAIL, str(error)), UserConfig(path, {})
    words = path if config.data else _("nothing is set in {file}").format(file=path)
    return Check(_("config file"), State.OK, words), config


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
        advice = "copilot-sync login"
        if not isinstance(error, MissingCredentialsError):
            advice = _("correct {name}").format(name=PROFILE_VARIABLE)
        return StoredCheck(environment, Check(_("credentials"), State.FAIL, str(error.args[0]), advice))
    proxy = Secret.coerce(chosen["proxy"].value)
    if login is None:
        return StoredCheck(filled, None, proxy)
    try:
        login.credentials().check_api_key()
    except (ValueError, AuthenticationError) as error:
        return StoredCheck(filled, Check(_("credentials"), State.FAIL, str(error.args[0]), "copilot-sync login"), proxy)
    place = _("the system's keyring") if login.in_keyring else login_file(profile)
    words = _("cookies of copilot-sync login, from {place}")
    if not login.has_cookies:
        words = _("a token of copilot-sync login, from {place}")
    return StoredCheck(filled, Check(_("credentials"), State.OK, words.format(place=place)), proxy)


def _check_api_key(environment: Environment) -> Check:
    try:
        credentials = Credentials(None, None, environment)
        credentials.check_api_key()
    except (ValueError, AuthenticationError) as error:
        detail = str(error.args[0]).replace("the api_key", API_KEY_VARIABLE)
        return Check(_("credentials"), State.FAIL, detail, _("set {name} anew").format(name=API_KEY_VARIABLE))
    try:
        credentials.check_urls(choose_urls(None, None, environment))
    except ValueError as error:
        advice = _("set {one}, or unset {other}").format(one=COOKIES_VARIABLE, other=API_URL_VARIABLE)
        return Check(_("credentials"), State.FAIL, str(error), advice)
    detail = _("a token from {name}").format(name=API_KEY_VARIABLE)
    if credentials.expires is not None:
        detail += _(", which expires on {date}").format(date=in_words(credentials.expires))
    return Check(_("credentials"), State.OK, detail)


def check_token_cache(environment: Environment, path: Optional[str]) -> Check:
    """Check where tokens are kept between commands.

    Args:
        environment: The environment variables.
        path: The file of the command line, ``None`` if the variable names another file or none.
    """
    if environment.token_cache == "off":
        words = _("off: each command fetches a token ({name})").format(name=TOKEN_CACHE_VARIABLE)
        return Check(_("token cache"), State.SKIPPED, words)
    file = os.path.abspath(os.path.expanduser(path or str(environment.token_cache)))
    folder = os.path.dirname(file)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        words = _("{file} can't be written: each command fetches a token").format(file=file)
        return Check(_("token cache"), State.SKIPPED, words)
    return Check(_("token cache"), State.OK, file)


def check_dns(url: str, configured: Optional[str] = None) -> Check:
    """Check whether DNS knows the host of a URL."""
    parts = urlsplit(url)
    name = _("DNS of {host}").format(host=parts.hostname)
    if configured or environment_proxy(url) is not None:
        return Check(name, State.SKIPPED, _("left to the proxy"))
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or _("no valid name")
        advice = _("go online, or set HTTPS_PROXY if the way out is a proxy")
        return Check(name, State.FAIL, _("not found ({reason}); there may be no network").format(reason=reason), advice)
    return Check(name, State.OK, str(found[0][4][0]))


def check_tls(url: str, configured: Optional[str] = None) -> Check:
    """Check whether a host can be reached and its certificate is trusted, through the transport that requests use."""
    name = _("TLS to {host}").format(host=_host(url))
    if not url.startswith("https:"):
        return Check(name, State.SKIPPED, _("skipped: http:// on this machine"))
    transport = Transport(proxy=configured)
    try:
        response = transport.open(Request("doctor", "HEAD", f"{url}/", "/", {}), lambda request: request, _call())
        response.body.close()
    except CopilotError as error:
        advice = _(
            "see to the network and the proxy; if a company's own CA signs, point REQUESTS_CA_BUNDLE at its file"
        )
        return Check(name, State.FAIL, str(error.args[0]), advice)
    finally:
        transport.close()
    return Check(name, State.OK, _("connected, the certificate is trusted"))


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
            models = Check(_("models"), State.SKIPPED, _("not tried"))
            return [_token_found(environment), _check_host(client, error, is_stored), models, _check_quota(client)]
        if error.stage in ("credentials", "token"):
            signed_out = isinstance(error, AuthenticationError) and (error.status == 302 or "sign in again" in detail)
            # Signing in again is no use if the service says that the account gets no token.
            anew = "copilot-sync login" if is_stored else _("sign in at github.com and export its cookies anew")
            advice = anew if signed_out else ""
            if "No access to GitHub Copilot" in detail:
                advice = _("get Copilot for this account, or export the cookies of one that has it")
            untried = [Check(name, State.SKIPPED, _("not tried")) for name in (_("models"), _("quota"))]
            return [Check(_("token"), State.FAIL, detail, advice), *untried]
        models = Check(_("models"), State.FAIL, detail)
    host = [_check_host(client)] if environment.api_url == AUTO else []
    return [_token_found(environment), *host, models, _check_quota(client)]


def _check_host(client: Client, error: Optional[WrongHostError] = None, is_stored: bool = False) -> Check:
    """Say which API host is asked, and what to set if it is not the one of the account's plan."""
    if error is None:
        words = _("{url}, which the account's page names").format(url=client.api_url)
        return Check(_("API host"), State.OK, words)
    better = error.api_url if error.api_url != client.api_url else None
    setting = "copilot-sync login --api-url " if is_stored else f"export {API_URL_VARIABLE}="
    return Check(_("API host"), State.FAIL, str(error), f"{setting}{better}" if better else "")


def _check_models(client: Client, wanted: str) -> Check:
    found = client.models()
    available = _("{count} available").format(count=len(found)) if found else _("none but auto available")
    if wanted == "auto" or wanted in [model.id for model in found]:
        return Check(_("models"), State.OK, available)
    hidden = next((model for model in client.models(all=True) if model.id == wanted), None)
    if hidden is not None and hidden.kind in ("chat", ""):
        words = _("; {model} is not enabled, and may be refused").format(model=wanted)
        return Check(_("models"), State.SKIPPED, available + words)
    advice = _("choose another: copilot-sync models lists them, {name}=auto lets the service choose")
    words = _(", but {model} is not among them") if hidden is None else _(", but {model} is for {kind}")
    detail = available + words.format(model=wanted, kind=hidden and hidden.kind)
    return Check(_("models"), State.FAIL, detail, advice.format(name=MODEL_VARIABLE))


def _check_quota(client: Client) -> Check:
    """Show the quota. If it can't be had, that is nothing wrong: an answer does not need it."""
    try:
        rows = quota_rows(client.quota())
    except CopilotError as error:
        return Check(_("quota"), State.SKIPPED, str(error.args[0]))
    return Check(_("quota"), State.OK, ", ".join(f"{name} {value}" for name, value in rows) or _(UNKNOWN))


def untried_account(reason: str) -> List[Check]:
    """Return the results of ``check_account`` if it makes no sense to try."""
    detail = _("not tried: {reason}").format(reason=reason)
    return [Check(name, State.SKIPPED, detail) for name in (_("token"), _("models"), _("quota"))]


def _token_found(environment: Environment) -> Check:
    detail = _("{name} is used as it is").format(name=API_KEY_VARIABLE) if environment.api_key else _("received")
    return Check(_("token"), State.OK, detail)


def _host(url: str) -> str:
    return urlsplit(url).netloc
