"""What somebody gives to log in with: a paste that is looked at, a file, or the browsers of this machine.

Of cookies, those that say who it is are taken. No error quotes what was given.
"""

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Dict

import click

from copilot_sync.auth.browsers import browser_names
from copilot_sync.auth.cookies import FoundCookies, cookies_of_browsers, login_cookies, read_cookies
from copilot_sync.auth.credentials import Credentials
from copilot_sync.auth.stored_logins import SESSION_COOKIES
from copilot_sync.cli.language import _
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.secret import Secret
from copilot_sync.settings import Environment

#: GitHub's session values have 48 characters. Others of about that length may be either. Nothing is tried then: a token
#: does not go to the host of the cookies, nor the other way round.
_SESSION, _EITHER = re.compile(r"[A-Za-z0-9_-]{48}"), re.compile(r"[A-Za-z0-9_-]{16,64}")
_TOKEN = re.compile(r"[!-~]{16,}")
_HEADER = re.compile(r"cookie\s*:|(.*;\s*)?user_session\s*=", re.IGNORECASE | re.DOTALL)


def read_paste(text: Secret[str], domain: str) -> Secret[Any]:
    """Tell what was pasted: the cookie's value, a ``Cookie`` header, a JSON text, or a token.

    Returns:
        Cookies by name, or a token as ``Client`` takes it.

    Raises:
        click.UsageError: It is none of these.
        MissingCredentialsError: There is no session among the cookies.
    """
    plain = Secret(text.reveal().strip())
    if plain.reveal()[:1] in ("{", "["):
        data = _json_of(plain)
        is_token = isinstance(data.reveal(), dict) and any(data.reveal().get(key) for key in ("value", "token"))
        return _checked_token(plain) if is_token else _checked_cookies(data, domain)
    if _HEADER.match(plain.reveal()):
        return _checked_cookies(plain, domain)
    if _SESSION.fullmatch(plain.reveal()):
        return Secret({SESSION_COOKIES[0]: plain.reveal()})
    if _EITHER.fullmatch(plain.reveal()):
        raise click.UsageError(
            _('that may be a cookie\'s value or a token: paste it as user_session=VALUE, or as {"token": "VALUE"}')
        )
    if _TOKEN.fullmatch(plain.reveal()):
        return _checked_token(plain)
    raise click.UsageError(
        _("that is neither the value of user_session nor a Cookie header nor a token; for a file, use --file PATH")
    )


def read_login_file(path: str, domain: str) -> Secret[Any]:
    """Read the cookies of a file, or of a folder of files.

    Raises:
        MissingCredentialsError: There is no session in it.
    """
    return _session_of(login_cookies(Path(path), domain))


def read_browsers(domain: str) -> Secret[Any]:
    """Read the cookies of this machine's browsers, after asking.

    Raises:
        click.Abort: The answer is no.
        click.ClickException: The library for it is missing.
        MissingCredentialsError: No browser has a session.
    """
    names = browser_names()
    if not names:
        raise click.ClickException(_("to read browsers, type: pip install 'copilot-sync[browser]'"))
    words = _("Read the cookies for {host} from {browsers}?").format(host=domain, browsers=", ".join(names))
    click.confirm(words, abort=True, err=True)
    return _session_of(cookies_of_browsers(domain))


def _session_of(found: FoundCookies) -> Secret[Any]:
    """Keep the cookies that say who it is."""
    if not found.has_session:
        raise MissingCredentialsError("there is no user_session among the cookies", stage="credentials")
    kept: Dict[str, str] = {name: found.cookies[name] for name in SESSION_COOKIES if name in found.cookies}
    return Secret(kept)


def _json_of(text: Secret[str]) -> Secret[Any]:
    with contextlib.suppress(ValueError, RecursionError):
        return Secret(json.loads(text.reveal()))
    raise click.UsageError(_("that begins like JSON and is broken: copy all of it"))


def _checked_cookies(source: Secret[Any], domain: str) -> Secret[Any]:
    try:
        return _session_of(FoundCookies("", read_cookies(source.reveal(), domain)))
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise click.UsageError(problem)


def _checked_token(token: Secret[str]) -> Secret[Any]:
    try:
        Credentials(token, None, Environment.read({})).check_api_key()
    except ValueError as error:
        problem = str(error)
    else:
        return token
    raise click.UsageError(problem)
