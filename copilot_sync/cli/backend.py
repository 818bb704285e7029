"""The backend that a command talks to: the service, or an emulator inside this process.

The client for the service is configured as ``user_settings`` says. An emulator has no use for that. The client
keeps its token in the user's cache folder, because fetching one for each command looks like abuse;
``COPILOT_SYNC_TOKEN_CACHE`` changes that. Each question to the service is noted in the ledger of the user's state
folder; ``COPILOT_SYNC_LEDGER`` changes that. An emulator ends with the process, so nothing of it is saved.

All commands of the user's share one limit against the service, by a file in the state folder, and say so when they wait
for it. There is none against this machine.
"""

import contextlib
import logging
import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple
from urllib.parse import urlsplit

import click

from copilot_sync.auth.caches import FileCache
from copilot_sync.cli.language import _, ngettext
from copilot_sync.cli.last_conversation import LastConversation
from copilot_sync.cli.log import LineHandler
from copilot_sync.cli.user_settings import UserSettings, read_user_settings
from copilot_sync.cli.waits import WaitLine, WaitsIn
from copilot_sync.client import Client
from copilot_sync.models import Conversation, Thread
from copilot_sync.pacing import account_limiter
from copilot_sync.pacing.limiter import BY_HOST, pace_for
from copilot_sync.pacing.rate_limit import RateLimit
from copilot_sync.profiles import DEFAULT_PROFILE
from copilot_sync.safe_text import check_id
from copilot_sync.secret import Secret
from copilot_sync.settings import MODEL, Environment, Urls, choose_urls, is_loopback
from copilot_sync.transport.proxies import check_proxy
from copilot_sync.user_folders import cache_folder, state_folder

if TYPE_CHECKING:
    from copilot_sync.emulator import Emulator

#: The beginning of an id of the service's, as one types it. Whole ids have 36 characters (public captures, 2026).
_BEGINNING = re.compile("[0-9a-f][0-9a-f-]{3,34}")
#: Seconds between two words of the emulator, so that a person sees the answer stream in.
_EMULATED_PACE = 0.05


#: How many questions may be under way at once, and how many may begin in a minute, as ``pace_for`` takes it.
CommandPace = Tuple[Optional[int], Optional[float]]


@dataclass(frozen=True)
class Backend:
    """A client, and the storage of the last conversation that it had.

    Attributes:
        client: The client.
        last_conversation: The storage.
        model: The model that is asked if nobody names another one.
        pace: What the options and the config file say of it.
        waits: Shows what is waited for.
    """

    client: Client
    last_conversation: LastConversation
    model: str
    pace: CommandPace
    waits: WaitLine

    def conversation(self, identifier: Optional[str], go_on: bool) -> Optional[Conversation]:
        """Return the conversation that ``--conversation`` or ``--continue`` selects; ``None`` for a new one.

        Raises:
            click.ClickException: Both options were given, or there is no last conversation.
        """
        if identifier and go_on:
            raise click.UsageError(
                _("{one} and {other} exclude each other: use one of them").format(
                    one="--conversation", other="--continue"
                )
            )
        if not go_on:
            return Conversation(self.full_ids([identifier])[0]) if identifier else None
        conversation = self.last_conversation.load()
        if conversation is None:
            raise click.ClickException(
                _("there is no last conversation to continue: omit --continue, or choose one with --conversation")
            )
        return conversation

    def full_ids(self, identifiers: Sequence[str]) -> List[str]:
        """Return the ids that a person means, who may type the beginning of one. Only then the list is asked for.

        Raises:
            click.UsageError: One can't be an id, or is the beginning of none, or of several.
        """
        with report_usage_errors():
            for identifier in identifiers:
                check_id(identifier)
        beginnings = set(filter(_BEGINNING.fullmatch, identifiers))
        known = [thread.id for thread in self.client.threads()] if beginnings else []
        return [_full_id(each, known) if each in beginnings else each for each in identifiers]

    def threads_named(self, text: str) -> List[Thread]:
        """List the conversations that have a text in their names, in either case."""
        return [thread for thread in self.client.threads() if text.casefold() in thread.name.casefold()]

    def chosen_id(self, identifier: Optional[str], last: bool) -> str:
        """Return the id of the conversation that an argument or ``--last`` selects.

        Raises:
            click.ClickException: Both were given, or neither, or there is no last conversation; and as ``full_ids``.
        """
        if last == (identifier is not None):
            raise click.UsageError(_("name one conversation: by its ID, or by --last"))
        if identifier is not None:
            return self.full_ids([identifier])[0]
        conversation = self.last_conversation.load()
        if conversation is None:
            raise click.ClickException(_('there is no last conversation; see "copilot-sync threads list"'))
        return conversation.conversation_id


def _full_id(beginning: str, known: Sequence[str]) -> str:
    if beginning in known:
        return beginning
    found = [each for each in known if each.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if not found:
        words = _('no conversation has an id that begins with {beginning}; see "copilot-sync threads list"')
    else:
        words = ngettext(
            "{count} conversation has an id that begins with {beginning}: type more of it",
            "{count} conversations have ids that begin with {beginning}: type more of it",
            len(found),
        )
    raise click.UsageError(words.format(count=len(found), beginning=beginning))


@contextlib.contextmanager
def open_backend(
    emulated: bool = False,
    *,
    prepare: "Callable[[Emulator, float], object]" = lambda *_: None,
    pace: CommandPace = (None, BY_HOST),
    waits: WaitsIn = WaitsIn.LINE,
    **options: Any,
) -> Iterator[Backend]:
    """Open a client, and close it at the end.

    Args:
        emulated: Talk to an emulator inside this process.
        prepare: Called with the emulator before it serves, and with the seconds between two of its words.
        pace: What the options of the command say of it; the config file is asked for the rest.
        waits: Where a terminal shows what is waited for.
        **options: Further arguments of ``Client``.

    Raises:
        click.ClickException: The environment holds a value that can't be used, or the config file does.
    """
    with contextlib.ExitStack() as stack:
        if emulated:
            yield _emulated(stack, prepare, pace, waits, **options)
        else:
            yield _real(stack, pace, waits, **options)


@contextlib.contextmanager
def report_usage_errors() -> Iterator[None]:
    """Report a ``ValueError`` as wrong usage: the library rejects such arguments before it sends anything.

    An ``ImportError`` is reported as well: its message says what to install.
    """
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except ImportError as error:
        raise click.ClickException(str(error)) from error


def read_proxy(proxy: Optional[str]) -> Optional[str]:
    """Return the proxy of ``--proxy``, checked here, because what a client refuses comes from the environment."""
    with report_usage_errors():
        return check_proxy(Secret.coerce(proxy))


def _real(stack: contextlib.ExitStack, pace: CommandPace, waits: WaitsIn, **options: Any) -> Backend:
    try:
        settings = read_user_settings(Environment.read())
        environment, login = settings.environment, settings.login
        urls = choose_urls(None, None, environment)
        pace = _pace(pace, settings)
        # One that the environment names is the client's own business, and so is "off".
        ledger = None if environment.ledger else _is_service(urls)
        given = {"model": environment.model, "proxy": settings.proxy, **(login.options() if login else {})}
        given.update(github_url=environment.github_url, api_url=environment.api_url)
        given.update((name, value) for name, value in options.items() if name != "proxy" or value)
        client = Client(token_cache=token_cache_file(environment), ledger=ledger, **_limits(urls, pace), **given)
    except (TypeError, ValueError) as error:
        raise click.ClickException(_("an environment variable is wrong: {error}").format(error=error)) from error
    line = stack.enter_context(WaitLine(stack.enter_context(client), waits))
    stack.enter_context(_told_of_limits(logging.INFO if waits is WaitsIn.LOG or not line.is_shown else logging.WARNING))
    store = FileCache(os.path.join(state_folder(), "conversations.json"))
    # The host that the page names is not known yet: the account's page stands for it.
    service = f"{urls.api} {urls.github}" if urls.is_auto else urls.api
    if login and settings.profile != DEFAULT_PROFILE:
        service += f" {settings.profile}"  # of another account, which has other conversations
    return Backend(client, LastConversation(store, service), environment.model or MODEL, pace, line)


def _pace(pace: CommandPace, settings: UserSettings) -> CommandPace:
    """Return what the options say, and for the rest what the config file does."""
    concurrency, rate = (settings.chosen[name].value for name in ("concurrency", "per_minute"))
    return pace[0] or concurrency, rate if pace[1] is BY_HOST and rate is not None else pace[1]


def _is_service(urls: Urls) -> bool:
    """Whether these are hosts of the service, and not of an emulator on this machine."""
    return not any(is_loopback(urlsplit(url).hostname or "") for url in urls.hosts)


def _limits(urls: Urls, pace: CommandPace) -> Dict[str, Any]:
    """Return the arguments of ``Client`` for the limit that all commands share."""
    if not _is_service(urls):
        return {}
    concurrency, rate = pace_for(None, *pace)
    limit = RateLimit(per_minute=None if rate is None else math.ceil(rate), concurrency=concurrency)
    return {"rate_limit": limit, "shared": os.path.join(state_folder(), "limits")}


@contextlib.contextmanager
def _told_of_limits(level: int) -> Iterator[None]:
    """Have the user told of waits for the limits while the block lasts, or of warnings alone."""
    logger, teller = account_limiter.logger, LineHandler()
    before, passes_on = logger.level, logger.propagate
    logger.addHandler(teller)
    logger.setLevel(level)
    logger.propagate = False  # or its warnings would come twice
    try:
        yield
    finally:
        logger.removeHandler(teller)
        logger.setLevel(before)
        logger.propagate = passes_on


def token_cache_file(environment: Environment) -> Optional[str]:
    """Return the file in which the command line keeps tokens; ``None`` if ``COPILOT_SYNC_TOKEN_CACHE`` decides."""
    return None if environment.token_cache else os.path.join(cache_folder(), "tokens.json")


def _emulated(
    stack: contextlib.ExitStack,
    prepare: "Callable[[Emulator, float], object]",
    pace: CommandPace,
    waits: WaitsIn,
    **options: Any,
) -> Backend:
    from copilot_sync.emulator import Emulator, Reply
    from copilot_sync.emulator.demo_data import echo_or_data

    stack.enter_context(_without_proxy())
    echo = Reply(echo_or_data, pace=_EMULATED_PACE)
    emulator = Emulator(reply=echo)
    prepare(emulator, _EMULATED_PACE)
    stack.enter_context(emulator)
    if emulator.reply is echo:
        words = _("this is the emulator: it repeats your question, no model is involved")
    else:
        words = _("this is the emulator: its answers are prepared, no model is involved")
    click.echo(f"copilot-sync: {words}", err=True)
    client = Client(
        cookies=emulator.cookies,
        github_url=emulator.github_url,
        api_url=emulator.api_url,
        token_cache=NullCache(),
        ledger=False,
        **options,
    )
    last_conversation = LastConversation(NullCache(), emulator.api_url)
    line = stack.enter_context(WaitLine(stack.enter_context(client), waits))
    return Backend(client, last_conversation, Environment.read().model or MODEL, pace, line)


def play_demo(emulator: "Emulator", pace: float) -> None:
    """Have the emulator of ``open_backend`` answer as somebody wants to see it who tries it out."""
    from copilot_sync.emulator import Reply
    from copilot_sync.emulator.demo import demo_answer

    emulator.reply = Reply(demo_answer, pace=pace)


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    """Bypass the proxies of the environment: none could reach a server inside this process."""
    names = ("NO_PROXY", "no_proxy")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "127.0.0.1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class NullCache:
    """A cache that keeps nothing."""

    def get(self, key: str) -> None:
        """Return nothing."""

    def set(self, key: str, value: str, timeout: int) -> None:
        """Do nothing."""
