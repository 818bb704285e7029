"""``copilot-sync config``: show settings and where they come from, and change those of the config file.

``tomlkit`` changes the file, so that comments and the order of lines stay. What it has written is read again before it
takes the place of the file: behind dotted names, the table that it adds swallows the settings after it.
"""

import contextlib
import os
import sys
from typing import Any, Dict, Iterator, Mapping, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import report_usage_errors
from copilot_sync.cli.language import _
from copilot_sync.cli.output import show_json, show_table
from copilot_sync.cli.terminal import is_terminal
from copilot_sync.cli.user_settings import chosen_profile, read_config, read_user_settings
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.pacing.limiter import pace_for
from copilot_sync.safe_files import rewriting
from copilot_sync.secret import Secret
from copilot_sync.settings import API_URL, GITHUB_URL, MODEL, Environment, choose_urls
from copilot_sync.terminal_text import one_line
from copilot_sync.transport.proxies import environment_proxy, shown_proxy
from copilot_sync.user_config import (
    DEFAULT,
    NUMBERS,
    PROFILES,
    Setting,
    UserConfigError,
    check_name,
    check_setting,
    choose_settings,
    config_file,
    parse_config,
    read_text,
)

#: What a new file holds. Every line of it is a comment.
_TEMPLATE = """\
# Settings of copilot-sync. "copilot-sync config" shows which of them count.
# model = "gpt-5-mini"
# proxy = "http://localhost:3128"
# per_minute = 20
# concurrency = 2

# [profiles.work]
# api_url = "auto"
"""
_MODE = 0o600


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
    epilog="""\b
Examples:
  copilot-sync config
  copilot-sync config set model gpt-5-mini
  copilot-sync config set per_minute 10 --profile work
  copilot-sync config unset model
  copilot-sync config edit
""",
)
@options.as_json
@click.pass_context
def config(context: click.Context, as_json: bool) -> None:
    """Show and change settings that all commands use.

    The settings are model, github_url, api_url, proxy, per_minute and concurrency. Alone, this shows each with its
    value, and where that comes from: an option, the environment, the profile, the file, or the default. A program
    gets a line each with tabs between name, value and origin.
    """
    if context.invoked_subcommand is not None:
        return
    rows = [("profile", *_profile()[:2]), *((name, *_shown(name, setting)) for name, setting in _chosen().items())]
    if as_json:
        show_json([{"name": name, "value": value, "from": origin} for name, value, origin in rows])
    else:
        rows = [(*row[:2], _origin_for_person(row[2])) for row in rows] if is_terminal(sys.stdout) else rows
        headings = (_("NAME"), _("VALUE"), _("FROM"))
        show_table(headings, [(name, "" if v is None else str(v), origin) for name, v, origin in rows])


def _origin_for_person(origin: str) -> str:
    table, _of, file = origin.partition(" of ")
    if table.startswith("["):
        return _("{table} of {file}").format(table=table, file=file)
    return {DEFAULT: _("default"), "login": _("login")}.get(origin, origin)


def _profile() -> Setting:
    with report_usage_errors():
        return chosen_profile(Environment.read())


def _chosen() -> Dict[str, Setting]:
    """Return every setting. Without a login, the hosts are those that one would go to."""
    environment = Environment.read()
    with report_usage_errors():
        try:
            return read_user_settings(environment).chosen
        except MissingCredentialsError:
            return choose_settings(environment, read_config(), _profile().value, {})


def _default(name: str) -> Any:
    concurrency, per_minute = pace_for(None)
    defaults = {"model": MODEL, "github_url": GITHUB_URL, "api_url": API_URL}
    return {**defaults, "concurrency": concurrency, "per_minute": per_minute and int(per_minute)}.get(name)


def _shown(name: str, setting: Setting) -> Tuple[Any, str]:
    """Return a value without a password, and its origin."""
    value = _value(name, setting)
    return shown_proxy(value) if name == "proxy" and value else value, setting.origin


def _value(name: str, setting: Setting) -> Any:
    if setting.value is not None:
        return setting.value.reveal() if isinstance(setting.value, Secret) else setting.value
    if setting.origin == DEFAULT:
        return _default(name)
    github, api = (_value(each, _chosen()[each]) for each in ("github_url", "api_url"))  # the environment has a proxy
    return next(filter(None, map(environment_proxy, choose_urls(github, api, Environment.read()).hosts)), None)


@config.command(
    epilog="""\b
Examples:
  copilot-sync config get model
  copilot-sync config get api_url --profile work
"""
)
@click.argument("name")
def get(name: str) -> None:
    """Print the value of a setting that counts, wherever it comes from."""
    with report_usage_errors():
        check_name(name)
    value = _value(name, _chosen()[name])
    if value is None:
        words = _("there is no {name}; set one with: copilot-sync config set {name} VALUE")
        raise click.ClickException(words.format(name=name))
    click.echo(one_line(str(value)))


@config.command(
    "set",
    epilog="""\b
Examples:
  copilot-sync config set model gpt-5-mini
  copilot-sync config set api_url auto --profile work
""",
)
@click.argument("name")
@click.argument("value")
def set_value(name: str, value: str) -> None:
    """Write a setting, for all profiles or for the one that is chosen."""
    with report_usage_errors():
        given: Any = int(value) if name in NUMBERS and value.isdecimal() else value
        check_setting(name, given)
    with _changing() as table:
        table[name] = given


@config.command(
    epilog="""\b
Examples:
  copilot-sync config unset model
  copilot-sync config unset api_url --profile work
"""
)
@click.argument("name")
def unset(name: str) -> None:
    """Remove a setting from the config file."""
    with report_usage_errors():
        check_name(name)
    with _changing() as table:
        if name not in table:
            raise click.ClickException(_("{name} is not set there; see: copilot-sync config").format(name=name))
        del table[name]


@config.command(
    epilog="""\b
Examples:
  copilot-sync config path
  cat "$(copilot-sync config path)"
"""
)
def path() -> None:
    """Print the path of the config file, whether it is there or not."""
    click.echo(config_file())


@config.command(
    epilog="""\b
Examples:
  copilot-sync config edit
  EDITOR=nano copilot-sync config edit
"""
)
def edit() -> None:
    """Open the config file in the editor that VISUAL or EDITOR names."""
    place = os.path.realpath(config_file())
    if not os.path.exists(place):
        with _reported(place), rewriting(place, _MODE) as file:
            file.write(_TEMPLATE.encode())
    click.edit(filename=place)
    read_config()


@contextlib.contextmanager
def _changing() -> Iterator[Any]:
    """Change the table of the config file that the profile selects."""
    import tomlkit

    profile = _profile()
    is_for_all = profile.origin == DEFAULT
    place = os.path.realpath(config_file())
    read_config()
    mode = os.stat(place).st_mode & 0o777 if os.path.exists(place) else _MODE
    with _reported(place), rewriting(place, mode) as file:
        before = read_text(place).reveal()
        with _without_damage(place):
            document: Any = tomlkit.parse(before)
            table = document
            if not is_for_all:
                table = document.setdefault(PROFILES, tomlkit.table(True)).setdefault(profile.value, tomlkit.table())
            yield table
            text = document.as_string()
            if "\r\n" in before:  # tomlkit writes its own line ends between those that it found
                text = text.replace("\r\n", "\n").replace("\n", "\r\n")
            if _filled(parse_config(place, Secret(text)).data) != _filled(document.unwrap()):
                raise ValueError("something else was changed as well")
        file.write(text.encode())
    words = _("changed for all profiles, in {file}") if is_for_all else _("changed for the profile {name}, in {file}")
    click.echo(words.format(name=profile.value, file=config_file()), err=True)


@contextlib.contextmanager
def _without_damage(place: str) -> Iterator[None]:
    try:
        yield
    except ValueError:  # tomlkit can't do it, or what it wrote is something else
        pass
    else:
        return
    words = _("{file} can't be changed without damage; change it with: copilot-sync config edit")
    raise UserConfigError(words.format(file=place))


def _filled(data: Mapping[str, Any]) -> Dict[str, Any]:
    """Leave out tables with nothing in them."""
    inner = {name: _filled(value) if isinstance(value, dict) else value for name, value in data.items()}
    return {name: value for name, value in inner.items() if value != {}}


@contextlib.contextmanager
def _reported(place: str) -> Iterator[None]:
    try:
        yield
    except UserConfigError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        words = _("{file} can't be written: {reason}; see: ls -l {file}")
        raise click.ClickException(words.format(file=place, reason=error.strerror or error)) from error
