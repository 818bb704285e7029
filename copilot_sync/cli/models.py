"""``copilot-sync models``: the models that the account may use."""

from dataclasses import asdict

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend
from copilot_sync.cli.output import show_json, show_table


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

    A terminal shows a table. A program gets one line per model with tabs between id, name, vendor and "preview" or
    nothing.
    """
    with open_backend() as backend:
        found = backend.client.models()
    if as_json:
        show_json([asdict(model) for model in found])
        return
    rows = [(model.id, model.name, model.vendor, "preview" if model.preview else "") for model in found]
    show_table(("ID", "NAME", "VENDOR", ""), rows)
