"""``copilot-sync models``: what the account may ask."""

from dataclasses import asdict

import click

from copilot_sync.cli import options
from copilot_sync.cli.output import show_json, show_table
from copilot_sync.cli.service import connected


@click.command(
    epilog="""\b
Examples:
  copilot-sync models
  copilot-sync models --json
"""
)
@options.as_json
def models(as_json: bool) -> None:
    """List the models that the account may use.

    In a terminal it is a table, for a program one line each with tabs: id, name, vendor, "preview" or nothing.
    """
    with connected() as service:
        found = service.client.models()
    if as_json:
        show_json([asdict(model) for model in found])
        return
    rows = [(model.id, model.name, model.vendor, "preview" if model.preview else "") for model in found]
    show_table(("ID", "NAME", "VENDOR", ""), rows)
