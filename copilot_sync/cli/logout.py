"""``copilot-sync logout``: remove what ``login`` has stored, and the token that was fetched with it."""

import contextlib
from typing import Optional

import click

from copilot_sync.auth.caches import cache_of
from copilot_sync.auth.headers import cookie_header
from copilot_sync.auth.stored_logins import StoredLogin, load_login, login_file, no_login, remove_login
from copilot_sync.auth.tokens import cache_key
from copilot_sync.cli.backend import report_usage_errors, token_cache_file
from copilot_sync.cli.language import _
from copilot_sync.cli.user_settings import chosen_profile
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.settings import Environment


@click.command(
    epilog="""\b
Examples:
  copilot-sync logout
  copilot-sync logout --profile work
"""
)
def logout() -> None:
    """Remove what login has stored, and the token that was fetched with it.

    The session at github.com goes on: sign out there to end it.
    """
    environment = Environment.read()
    with report_usage_errors():
        name = chosen_profile(environment).value
        path = login_file(name)
    found = usable_login(name)
    try:
        removed = remove_login(name)
    except OSError as error:
        words = _("{file} can't be removed: {reason}").format(file=path, reason=error.strerror or error)
        raise click.ClickException(words) from error
    if not removed:
        raise click.ClickException(no_login(name))
    if found is not None:
        forget_token(found, environment)
    click.echo(_("logged out; removed {file}").format(file=path), err=True)


def usable_login(name: str) -> Optional[StoredLogin]:
    """Return the login of a profile; ``None`` if it has none that can be used."""
    with contextlib.suppress(MissingCredentialsError):
        return load_login(name)
    return None


def forget_token(login: StoredLogin, environment: Environment) -> None:
    """Remove the token that was fetched with a login from where commands keep tokens."""
    cache = cache_of(token_cache_file(environment), environment.token_cache)
    if cache is not None and login.has_cookies:
        key = cache_key(login.github_url, cookie_header(login.secret.reveal()))
        if cache.get(key):
            cache.set(key, "", 0)
