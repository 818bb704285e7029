"""What the commands talk to: a client for the account that the environment names, or for an emulator in this process.

The client keeps its token in the user's cache folder from one invocation to the next, unless
``COPILOT_SYNC_TOKEN_CACHE`` says otherwise: a token fetched for each call looks like abuse. An emulator is gone with
the process, so nothing of it is kept anywhere.
"""

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Iterator, Optional

import click

from copilot_sync.auth.caches import FileCache
from copilot_sync.cli.folders import cache_folder, state_folder
from copilot_sync.cli.last_conversation import LastConversation
from copilot_sync.client import Client
from copilot_sync.models import Conversation
from copilot_sync.safe_text import check_id
from copilot_sync.settings import Environment, choose_urls

#: Seconds between two words of the embedded emulator, so that one sees the answer stream in.
_EMULATED_PACE = 0.05


@dataclass(frozen=True)
class Service:
    """A client, and where the last conversation with its service is kept."""

    client: Client
    last: LastConversation

    def conversation(self, identifier: Optional[str], go_on: bool) -> Optional[Conversation]:
        """Give the conversation that ``--conversation`` or ``--continue`` asks for; ``None`` for a new one.

        Raises:
            click.ClickException: Both were given, or there is nothing to go on with.
        """
        if identifier and go_on:
            raise click.UsageError("--conversation and --continue exclude each other")
        if not go_on:
            return _named(identifier) if identifier else None
        conversation = self.last.load()
        if conversation is None:
            raise click.ClickException(
                "there is no last conversation to go on with: leave out --continue, or name one with --conversation"
            )
        return conversation


def _named(identifier: str) -> Conversation:
    with usage_checked():
        check_id(identifier)
    return Conversation(identifier)


@contextlib.contextmanager
def connected(emulated: bool = False, **options: Any) -> Iterator[Service]:
    """Open a client and close it at the end.

    Args:
        emulated: Whether to talk to an emulator inside this process.
        **options: Further arguments of ``Client``.

    Raises:
        click.ClickException: The environment can't be used.
    """
    with contextlib.ExitStack() as stack:
        yield _emulated(stack, **options) if emulated else _real(stack, **options)


@contextlib.contextmanager
def usage_checked() -> Iterator[None]:
    """Tell arguments that the library refuses as wrong usage: it refuses them before anything is sent."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _real(stack: contextlib.ExitStack, **options: Any) -> Service:
    environment = Environment.read()
    try:
        client = Client(token_cache=token_cache_file(environment), **options)
        api_url = choose_urls(None, None, environment).api
    except (TypeError, ValueError) as error:
        raise click.ClickException(f"the environment is not right: {error}") from error
    store = FileCache(os.path.join(state_folder(), "conversations.json"))
    return Service(stack.enter_context(client), LastConversation(store, api_url))


def token_cache_file(environment: Environment) -> Optional[str]:
    """Give the file in which the command line keeps tokens; ``None`` where ``COPILOT_SYNC_TOKEN_CACHE`` has its say."""
    return None if environment.token_cache else os.path.join(cache_folder(), "tokens.json")


def _emulated(stack: contextlib.ExitStack, **options: Any) -> Service:
    from copilot_sync.emulator import Emulator, Reply

    stack.enter_context(_without_proxy())
    emulator = stack.enter_context(Emulator(reply=Reply(pace=_EMULATED_PACE)))
    click.echo("copilot-sync: this is the emulator, which repeats what it is asked; no model is involved", err=True)
    client = Client(
        cookies=emulator.cookies,
        github_url=emulator.github_url,
        api_url=emulator.api_url,
        token_cache=_Nowhere(),
        **options,
    )
    return Service(stack.enter_context(client), LastConversation(_Nowhere(), emulator.api_url))


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    """Keep the proxies of the environment out: none could reach a server inside this process."""
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


class _Nowhere:
    """A cache that keeps nothing."""

    def get(self, key: str) -> None:
        return None

    def set(self, key: str, value: str, timeout: int) -> None:
        return None
