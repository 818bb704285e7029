"""``copilot-sync login``: store a cookie or a token that the other commands use.

It is asked for without being shown, or read from a file, from stdin, or from the browsers of this machine. It is never
an argument, because other programs can read those and shells keep them. It is stored after the service took it.
"""

import sys
from dataclasses import replace
from typing import Any, List, Optional, Tuple
from urllib.parse import urlsplit

import click

from copilot_sync.auth.credentials import cookie_domain
from copilot_sync.auth.keyring_store import KeyringStoreError, keyring_name
from copilot_sync.auth.stored_logins import (
    StoredLogin,
    is_in_keyring,
    load_login,
    login_file,
    no_login,
    store_login,
)
from copilot_sync.cli.backend import NullCache, report_usage_errors
from copilot_sync.cli.checks import CHECK_TIMEOUT
from copilot_sync.cli.given_login import read_browsers, read_login_file, read_paste
from copilot_sync.cli.hidden_input import LARGEST_SECRET, read_hidden
from copilot_sync.cli.language import _, for_reader_of, marked
from copilot_sync.cli.logout import forget_token, usable_login
from copilot_sync.cli.output import show_table
from copilot_sync.cli.profile_option import given_profile
from copilot_sync.cli.terminal import is_terminal
from copilot_sync.cli.user_settings import chosen_profile, read_config
from copilot_sync.client import Client
from copilot_sync.errors import AuthenticationError, CopilotError, WrongHostError
from copilot_sync.secret import Secret
from copilot_sync.settings import API_KEY_VARIABLE, COOKIES_VARIABLE, Environment, Urls, choose_urls
from copilot_sync.terminal_text import one_line
from copilot_sync.times import in_words
from copilot_sync.user_config import DEFAULT, choose_settings

_MENU = marked("""\
To log in to {host}, there are these ways:
  1  paste a cookie or a token: in a browser that is logged in, open the
     developer tools (F12), Application or Storage, Cookies, and copy the
     value of user_session
  2  name a file: cookies.txt, JSON or HAR
  3  read the cookies of this machine's browsers""")
_NOT_STORED = marked("nothing was stored")
_PASTE = marked("user_session, Cookie header or token (hidden): ")
#: What two options that exclude each other are told.
_ONE_OF_THEM = marked("{one} and {other} exclude each other: use one of them")


@click.command(
    epilog="""\b
Examples:
  copilot-sync login
  copilot-sync login --file ~/cookies.txt
  pass github/session | copilot-sync login --stdin
  copilot-sync login --profile work --api-url auto
  copilot-sync login --status --check
"""
)
@click.option(
    "--file",
    "path",
    metavar="PATH",
    type=click.Path(exists=True),
    help="A cookies.txt, JSON or HAR file.  [default: ask]",
)
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the cookie or token from stdin.")
@click.option("--github-url", metavar="URL", help="Where one logs in.  [default: https://github.com]")
@click.option("--api-url", metavar="URL", help='The API, or "auto".  [default: that of the plan]')
@click.option("--keyring", is_flag=True, help="Store it in the system's keyring.  [default: as before]")
@click.option("--no-keyring", is_flag=True, help="Store it in a file.  [default: as before]")
@click.option("--no-check", is_flag=True, help="Store it without trying it out.")
@click.option("--status", is_flag=True, help="Show what is stored, and store nothing.")
@click.option("--check", is_flag=True, help="With --status, try it out.")
def login(
    path: Optional[str],
    from_stdin: bool,
    github_url: Optional[str],
    api_url: Optional[str],
    keyring: bool,
    no_keyring: bool,
    no_check: bool,
    status: bool,
    check: bool,
) -> None:
    """Store a cookie or a token for the other commands.

    It is pasted without being shown, or comes from a file, from stdin, or from a browser of this machine. It is tried
    out, and then stored in a file that only you can read, or in the system's keyring. COPILOT_SYNC_COOKIES and
    COPILOT_SYNC_API_KEY go before it.
    """
    environment = Environment.read()
    if path is not None and from_stdin:
        raise click.UsageError(_(_ONE_OF_THEM).format(one="--file", other="--stdin"))
    if keyring and no_keyring:
        raise click.UsageError(_(_ONE_OF_THEM).format(one="--keyring", other="--no-keyring"))
    if status and (path, from_stdin, github_url, api_url, keyring or no_keyring) != (None, False, None, None, False):
        raise click.UsageError(_("--status stores nothing: use it with --profile and --check alone"))
    with report_usage_errors():
        name = chosen_profile(environment).value
        login_file(name)
        configured = choose_settings(environment, read_config(), name, {})
        urls = choose_urls(
            github_url or configured["github_url"].value, api_url or configured["api_url"].value, environment
        )
    if status:
        _show_status(name, environment, check=check)
        return
    secret = _given(path, from_stdin, urls)
    chosen = urls.api if api_url or configured["api_url"].origin != DEFAULT else None
    found = StoredLogin(secret, urls.github, chosen)
    with report_usage_errors():
        found.credentials().check_urls(urls)
    plan = ""
    if not no_check:
        found, plan = _tried(found, _NOT_STORED, configured["proxy"].value)
    place = _store(name, found, keyring if keyring or no_keyring else None, environment)
    who = _("logged in as {user}").format(user=one_line(found.user)) if found.user else _("logged in")
    click.echo(f"{who}{_of_plan(plan)}{_('; stored in {place}').format(place=place)}", err=True)
    _tell_what_goes_before(environment)


def _given(path: Optional[str], from_stdin: bool, urls: Urls) -> Secret[Any]:
    """Read what to log in with, from where the options say or a person chooses."""
    domain = cookie_domain(urls)
    if path is not None:
        return read_login_file(path, domain)
    if not is_terminal(sys.stdin):
        if not from_stdin:
            raise click.UsageError(_("there is no terminal to ask on: use --file PATH, or --stdin"))
        content = Secret(sys.stdin.buffer.read(LARGEST_SECRET + 1))
        return read_paste(Secret(content.reveal().decode("utf-8", "surrogateescape")), domain)
    if not from_stdin:
        click.echo(_(_MENU).format(host=urlsplit(urls.github).netloc), err=True)
        way = click.prompt(_("Which"), type=click.Choice(["1", "2", "3"]), default="1", show_choices=False, err=True)
        if way == "2":
            return read_login_file(str(click.prompt(_("File"), type=click.Path(exists=True), err=True)), domain)
        if way == "3":
            return read_browsers(domain)
    return read_paste(read_hidden(_(_PASTE)), domain)


def _tried(found: StoredLogin, outcome: str, proxy: Any) -> Tuple[StoredLogin, str]:
    """List the models with a login, and return it with the account's host, and the plan if that is known.

    Raises:
        click.ClickException: The service does not take it, or can't be reached. It begins with ``outcome``.
    """
    try:
        return found, _plan_of(found, proxy)
    except WrongHostError as error:
        if error.api_url is not None and found.api_url is None:
            return _tried(replace(found, api_url=error.api_url), outcome, proxy)
        problem = str(error.args[0])
    except CopilotError as error:
        problem = str(error.args[0])
        if isinstance(error, AuthenticationError):
            problem += _("; log in in a browser, and then again with: copilot-sync login")
        elif outcome == _NOT_STORED:
            problem += _("; --no-check stores it untried")
    raise click.ClickException(f"{_(outcome)}: {one_line(problem)}")


def _plan_of(found: StoredLogin, proxy: Any) -> str:
    """Fetch a token and list the models, and return the plan; ``""`` if it is not known."""
    limits: Any = {"timeout": CHECK_TIMEOUT, "retry": None}
    with Client(**found.options(), **limits, proxy=proxy, token_cache=NullCache(), ledger=False) as client:
        client.models()
        try:
            return one_line(client.quota().plan) if found.has_cookies else ""
        except CopilotError:
            return ""


def _store(name: str, found: StoredLogin, in_keyring: Optional[bool], environment: Environment) -> str:
    """Store a login in the keyring or in a file, as the one before if nobody says where, and return where."""
    before = usable_login(name)
    place = login_file(name)
    try:
        found = replace(found, in_keyring=is_in_keyring(name) if in_keyring is None else in_keyring)
        store_login(name, found)
        place = keyring_name(name) if found.in_keyring else place
    except KeyringStoreError as error:
        raise click.ClickException(f"{_(_NOT_STORED)}: {error.strerror}") from None
    except OSError as error:
        words = _("{file} can't be written: {reason}").format(file=place, reason=error.strerror or error)
        raise click.ClickException(f"{_(_NOT_STORED)}: {words}") from error
    if before is not None and before.secret != found.secret:
        forget_token(before, environment)
    return place


def _show_status(name: str, environment: Environment, *, check: bool) -> None:
    found = load_login(name)
    if found is None:
        raise click.ClickException(no_login(name))
    with for_reader_of(sys.stdout):
        rows = [
            (_("profile"), name),
            (_("kind"), _("cookies") if found.has_cookies else _("token")),
            (_("user"), found.user),
            (_("since"), in_words(found.since)),
            (_("expires"), _end_of(found)),
            ("github", found.github_url),
            ("api", found.api_url or ""),
            (_("keyring"), keyring_name(name) if found.in_keyring else ""),
            (_("file"), login_file(name)),
        ]
    show_table((), [row for row in rows if row[1]])
    _tell_what_goes_before(environment)
    if check:
        proxy = choose_settings(environment, read_config(), name, found.hosts)["proxy"].value
        plan = _tried(found, marked("the login does not work"), proxy)[1]
        click.echo(_("it works") + _of_plan(plan), err=True)


def _of_plan(plan: str) -> str:
    return _(" (plan {plan})").format(plan=plan) if plan else ""


def _end_of(found: StoredLogin) -> str:
    expires = found.credentials().expires
    return "" if expires is None else in_words(expires)


def _tell_what_goes_before(environment: Environment) -> None:
    if given_profile() is not None:  # who types it gets that login
        return
    names: List[str] = []
    names += [API_KEY_VARIABLE] if environment.api_key is not None else []
    names += [COOKIES_VARIABLE] if environment.cookies is not None else []
    for name in names:
        words = _("{name} is set and goes before the login: unset it to use the login")
        click.echo(words.format(name=name), err=True)
