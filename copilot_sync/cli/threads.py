"""``copilot-sync threads``: list, show, export, rename and delete the account's conversations.

An id may be typed as its beginning. One that is whole is sent as it is, without a look at the list.
"""

import sys
from typing import List, Optional, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend, report_usage_errors
from copilot_sync.cli.language import _, ngettext
from copilot_sync.cli.output import (
    ago,
    author_of,
    fields_of,
    markdown_of,
    minute_of,
    show_answer,
    show_heading,
    show_json,
    show_table,
)
from copilot_sync.cli.terminal import is_terminal
from copilot_sync.client import Client
from copilot_sync.message_tree import count_branches, newest_branch
from copilot_sync.models import Message
from copilot_sync.terminal_text import one_line

_last = click.option("--last", is_flag=True, help="The last conversation of ask or chat.")


@click.group(
    epilog="""\b
Examples:
  copilot-sync threads list
  copilot-sync threads show 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
  copilot-sync threads show 0b0f
  copilot-sync threads delete --yes 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
"""
)
def threads() -> None:
    """List, show, export, rename and delete the account's conversations.

    The first characters of an ID will do, four at least.
    """


@threads.command(
    "list",
    epilog="""\b
Examples:
  copilot-sync threads list
  copilot-sync threads list --search wsgi --limit 5
  copilot-sync threads list --json
""",
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="List the first N.  [default: all]")
@click.option("--search", metavar="TEXT", help="List those with it in their names.  [default: all]")
@options.as_json
def list_threads(limit: Optional[int], search: Optional[str], as_json: bool) -> None:
    """List the conversations.

    A terminal shows a table. A program gets one line per conversation with tabs between id, last change (UTC) and
    name.
    """
    with open_backend() as backend:
        found = backend.threads_named(search or "")[:limit]
    if as_json:
        show_json([fields_of(thread) for thread in found])
        return
    when = ago if is_terminal(sys.stdout) else minute_of
    rows = [(thread.id, when(thread.updated_at), thread.name) for thread in found]
    show_table(("ID", _("CHANGED"), _("NAME")), rows, cuts=True)


@threads.command(
    epilog="""\b
Examples:
  copilot-sync threads show 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
  copilot-sync threads show --all 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
  copilot-sync threads show --json 0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d
  copilot-sync threads show --last
"""
)
@click.argument("identifier", metavar="[ID]", required=False)
@_last
@click.option("--all", "show_all", is_flag=True, help="Show every message.  [default: the newest branch]")
@options.as_json
@options.raw
def show(identifier: Optional[str], last: bool, show_all: bool, as_json: bool, raw: bool) -> None:
    """Show the messages of a conversation.

    A question that was edited and an answer that was asked for again begin
    branches. Shown is the newest, which the next question continues. With
    --json, every message is printed; parent_id is the message before it.
    """
    messages = _messages(identifier, last)
    if as_json:
        show_json([fields_of(message) for message in messages])
        return
    shown = messages if show_all else newest_branch(messages)
    for number, message in enumerate(shown):
        if number:
            click.echo()
        show_heading(f"{author_of(message.role)}:")
        show_answer([message.content], raw)
    if len(shown) < len(messages):
        others = max(count_branches(messages) - 1, 1)
        words = ngettext(
            "{count} other branch; --all shows every message",
            "{count} other branches; --all shows every message",
            others,
        )
        click.echo(words.format(count=others), err=True)


def _messages(identifier: Optional[str], last: bool) -> List[Message]:
    with open_backend() as backend, report_usage_errors():
        return backend.client.messages(backend.chosen_id(identifier, last))


@threads.command(
    epilog="""\b
Examples:
  copilot-sync threads export --last > answer.md
  copilot-sync threads export --format openai 0b0fa5b2
"""
)
@click.argument("identifier", metavar="[ID]", required=False)
@_last
@click.option(
    *("--format", "form"),
    metavar="NAME",
    type=click.Choice(["md", "json", "openai"]),
    default="md",
    help="md, json or openai.  [default: md]",
)
def export(identifier: Optional[str], last: bool, form: str) -> None:
    """Write the newest branch of a conversation to stdout.

    The formats are Markdown, the messages as JSON, and role messages as
    programs for OpenAI's API take them.
    """
    messages = newest_branch(_messages(identifier, last))
    if form == "md":
        click.echo("\n".join(markdown_of(message.role, message.content) for message in messages), nl=False)
    elif form == "json":
        show_json([fields_of(message) for message in messages])
    else:
        show_json({"messages": [{"role": message.role, "content": message.content} for message in messages]})


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
        raise click.UsageError(_("a name is needed, or --generate to let the service choose one; not both"))
    with open_backend() as backend, report_usage_errors():
        (identifier,) = backend.full_ids([identifier])
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
        raise click.ClickException(_("the service returned no name for this conversation; pass one yourself"))
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
    with open_backend() as backend:
        chosen = backend.full_ids(identifiers)
        if not yes and not _is_confirmed(backend.client, chosen):
            raise click.ClickException(_("nothing was deleted"))
        for identifier in chosen:
            backend.client.delete_thread(identifier)
            if as_json:
                show_json({"id": identifier, "deleted": True})


def _is_confirmed(client: Client, identifiers: List[str]) -> bool:
    if not is_terminal(sys.stdin):
        raise click.UsageError(_("there is no terminal to ask on: use --yes to delete without asking"))
    names = {thread.id: thread.name for thread in client.threads()}
    for identifier in identifiers:
        click.echo(f"{one_line(identifier)}  {one_line(names.get(identifier, ''))}".rstrip(), err=True)
    click.echo(_("Delete for good? [y/N] "), nl=False, err=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
