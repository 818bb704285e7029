"""``copilot-sync doctor``: check everything that an answer needs, one by one."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from typing import Any, Dict, Iterator, List, Optional
from urllib.parse import urlsplit

import click

from copilot_sync._version import __version__
from copilot_sync.auth.cookies import find_cookies
from copilot_sync.auth.credentials import cookie_domain
from copilot_sync.cli import checks
from copilot_sync.cli.backend import open_backend, token_cache_file
from copilot_sync.cli.checks import Check, State
from copilot_sync.cli.language import _
from copilot_sync.cli.terminal import has_colours, is_utf8
from copilot_sync.secret import Secret
from copilot_sync.settings import Environment, Urls
from copilot_sync.terminal_text import one_line

_LIBRARIES = ("requests", "sseclient-py", "tenacity", "click", "rich", "markdown-it-py")
_MARKS = {State.OK: "✓", State.FAIL: "✗", State.SKIPPED: "-"}
_ASCII_MARKS = {State.OK: "ok", State.FAIL: "NO", State.SKIPPED: "--"}
_COLOURS = {State.OK: "green", State.FAIL: "red", State.SKIPPED: None}


@click.command(
    epilog="""\b
Examples:
  copilot-sync doctor
  HTTPS_PROXY=http://localhost:3128 copilot-sync doctor
"""
)
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check everything that an answer needs, and say how to fix what is wrong.

    The exit status is 0 if no check fails, else 1. Without a network, the other checks run all the same. The output
    holds no secrets, so you can share it.
    """
    has_failed = False
    for check in _run_checks(Environment.read()):
        _show(check)
        has_failed = has_failed or check.state is State.FAIL
    context.exit(1 if has_failed else 0)


def _show(check: Check) -> None:
    mark = (_MARKS if is_utf8(sys.stdout) else _ASCII_MARKS)[check.state]
    if has_colours(sys.stdout):
        mark = click.style(mark, fg=_COLOURS[check.state])
    advice = f" -> {check.advice}" if check.advice else ""
    click.echo(f"{mark} {one_line(f'{check.name}: {check.detail}{advice}')}")


def _run_checks(environment: Environment) -> Iterator[Check]:
    """Yield each result as soon as it is there: some take seconds."""
    yield Check("copilot-sync", State.OK, __version__)
    yield checks.check_python(sys.version_info[:3], platform.python_implementation(), _has_gil())
    lowest = _lowest_versions()
    for name in _LIBRARIES:
        yield checks.check_library(name, _installed(name), lowest.get(name, ""))
    yield checks.check_urllib3(_installed("urllib3"))
    config_check, config = checks.check_config()
    yield config_check
    stored = checks.check_stored_login(environment, config)
    environment = stored.environment
    settings, urls = checks.check_settings(environment)
    yield settings
    yield checks.check_certificates(os.environ)
    yield checks.check_token_cache(environment, token_cache_file(environment))
    if urls is not None:
        yield from _check_hosts(environment, urls, stored, has_config=config_check.state is State.OK)


def _has_gil() -> Optional[bool]:
    """Whether a free-threaded build runs with the GIL all the same; ``None`` for any other build."""
    is_on = getattr(sys, "_is_gil_enabled", None)
    return is_on() if is_on is not None and sysconfig.get_config_var("Py_GIL_DISABLED") else None


def _check_hosts(
    environment: Environment, urls: Urls, stored: checks.StoredCheck, *, has_config: bool
) -> Iterator[Check]:
    hosts = urls.hosts
    for url in hosts:
        yield checks.check_proxy(url, importlib.util.find_spec("socks") is not None, stored.proxy.reveal())
    yield checks.check_netrc(_netrc_file(), list(dict.fromkeys(str(urlsplit(url).hostname) for url in hosts)))
    credentials = stored.check or checks.check_credentials(environment, lambda: find_cookies(cookie_domain(urls)))
    yield credentials
    reached = True
    for url in hosts:
        for check in _check_route(url, stored.proxy):
            yield check
            reached = reached and check.state is not State.FAIL
    if not has_config:
        yield from checks.untried_account(_("the config file can't be used"))
    else:
        yield from _check_account(environment, credentials, reached, is_stored=stored.check is not None)


def _check_route(url: str, proxy: Secret[Any]) -> List[Check]:
    dns = checks.check_dns(url, proxy.reveal())
    return [dns] if dns.state is State.FAIL else [dns, checks.check_tls(url, proxy.reveal())]


def _check_account(environment: Environment, credentials: Check, reached: bool, *, is_stored: bool) -> List[Check]:
    if credentials.state is State.FAIL:
        return checks.untried_account(_("there are no credentials"))
    if not reached:
        return checks.untried_account(_("the service can't be reached"))
    with open_backend(timeout=checks.CHECK_TIMEOUT, retry=None) as backend:
        return checks.check_account(backend.client, environment, is_stored=is_stored)


def _netrc_file() -> Optional[str]:
    """Return the file in which other programs that use ``requests`` look for passwords."""
    named = os.environ.get("NETRC")
    places = [named] if named else ["~/.netrc", "~/_netrc"]
    return next((path for path in map(os.path.expanduser, places) if os.path.isfile(path)), None)


def _installed(name: str) -> Optional[str]:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lowest_versions() -> Dict[str, str]:
    """Return the lower bounds that the installed package declares; none if it runs from a source tree."""
    try:
        requirements = importlib.metadata.requires("copilot-sync") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return checks.lowest_versions(requirements)
