"""``copilot-sync threads``: list, show, rename and delete the account's conversations."""

import sys
from typing import Optional, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend, report_usage_errors
from copilot_sync.cli.output import fields_of, show_answer, show_heading, show_json, show_table
from copilot_sync.cli.terminal import is_terminal
from copilot_sync.client import Client
from copilot_sync.message_tree import count_branches, newest_branch
from copilot_sync.safe_text import check_id
from copilot_sync.terminal_text import one_line


@click.group(
    epilog="""\b
Examples:
  copilot-sync threads list
  copilot-sync threads show 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
  copilot-sync threads delete --yes 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
"""
)
def threads() -> None:
    """List, show, rename and delete the account's conversations."""


@threads.command(
    "list",
    epilog="""\b
Examples:
  copilot-sync threads list
  copilot-sync threads list --json
""",
)
@options.as_json
def list_threads(as_json: bool) -> None:
    """List the conversations.

    A terminal shows a table. A program gets one line per conversation with tabs between id, last change (UTC) and
    name.
    """
    with open_backend() as backend:
        found = backend.client.threads()
    if as_json:
        show_json([fields_of(thread) for thread in found])
        return
    show_table(("ID", "CHANGED", "NAME"), [(item.id, _minute(item.updated_at), item.name) for item in found])


def _minute(time: Optional[str]) -> str:
    """Return the date, hour and minute of a time in ISO 8601."""
    return (time or "")[:16].replace("T", " ")


@threads.command(
    epilog="""\b
Examples:
  copilot-sync threads show 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
  copilot-sync threads show --all 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
  copilot-sync threads show --json 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
"""
)
@click.argument("identifier", metavar="ID")
@click.option("--all", "show_all", is_flag=True, help="Show every message.  [default: the newest branch]")
@options.as_json
@options.raw
def show(identifier: str, show_all: bool, as_json: bool, raw: bool) -> None:
    """Show the messages of a conversation.

    A question that was edited and an answer that was asked for again begin
    branches. Shown is the newest, which the next question continues. With
    --json, every message is printed; parent_id is the message before it.
    """
    with open_backend() as backend, report_usage_errors():
        messages = backend.client.messages(identifier)
    if as_json:
        show_json([fields_of(message) for message in messages])
        return
    shown = messages if show_all else newest_branch(messages)
    for number, message in enumerate(shown):
        if number:
            click.echo()
        show_heading(f"{message.role}:")
        show_answer([message.content], raw)
    if len(shown) < len(messages):
        others = max(count_branches(messages) - 1, 1)
        click.echo(f"{others} other {'branch' if others == 1 else 'branches'}; --all shows every message", err=True)


@threads.command(
    epilog="""\b
Examples:
  copilot-sync threads rename 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d "WSGI"
  copilot-sync threads rename 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d --generate
"""
)
@click.argument("identifier", metavar="ID")
@click.argument("name", required=False)
@click.option("--generate", is_flag=True, help="Let the service choose the name, and print it.")
@options.as_json
def rename(identifier: str, name: Optional[str], generate: bool, as_json: bool) -> None:
    """Rename a conversation."""
    if generate == (name is not None):
        raise click.UsageError("a name is needed, or --generate to let the service choose one; not both")
    with open_backend() as backend, report_usage_errors():
        if name is None:
            name = _generated_name(backend.client, identifier)
        else:
            backend.client.rename_thread(identifier, name)
    if as_json:
        show_json({"id": identifier, "name": name})
    elif generate:
        click.echo(one_line(name))


def _generated_name(client: Client, identifier: str) -> str:
    name = client.name_thread(identifier)
    if not name:
        raise click.ClickException("the service returned no name for this conversation; pass one yourself")
    return name


@threads.command(
    epilog="""\b
Examples:
  copilot-sync threads delete 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
  copilot-sync threads delete --yes 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
"""
)
@click.argument("identifiers", metavar="ID...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.  [default: ask; fail without a terminal]")
@options.as_json
def delete(identifiers: Tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete conversations permanently.

    With --json, print an object for each conversation when it is deleted.
    """
    with report_usage_errors():
        for identifier in identifiers:
            check_id(identifier)
    with open_backend() as backend:
        if not yes and not _is_confirmed(backend.client, identifiers):
            raise click.ClickException("nothing was deleted")
        for identifier in identifiers:
            backend.client.delete_thread(identifier)
            if as_json:
                show_json({"id": identifier, "deleted": True})


def _is_confirmed(client: Client, identifiers: Tuple[str, ...]) -> bool:
    if not is_terminal(sys.stdin):
        raise click.UsageError("there is no terminal to ask on: use --yes to delete without asking")
    names = {thread.id: thread.name for thread in client.threads()}
    for identifier in identifiers:
        click.echo(f"{one_line(identifier)}  {one_line(names.get(identifier, ''))}".rstrip(), err=True)
    click.echo("Delete for good? [y/N] ", nl=False, err=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
