"""``copilot-sync models``: the models that can be asked."""

import sys
from typing import List, Optional

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend
from copilot_sync.cli.language import _, marked
from copilot_sync.cli.output import fields_of, show_json, show_table
from copilot_sync.cli.terminal import is_terminal
from copilot_sync.models import Model

_ABOUT_AUTO = marked('There is also "auto": the service then chooses (copilot-sync ask -m auto)')
_ONLY_AUTO = marked('There is only "auto": the service then chooses (--all lists the other models)')


@click.command(
    epilog="""\b
Examples:
  copilot-sync models
  copilot-sync models --all --json
"""
)
@click.option("--all", "all_models", is_flag=True, help="List also what can't be chatted with.")
@options.as_json
def models(all_models: bool, as_json: bool) -> None:
    """List the models that can be asked.

    A terminal shows a table. COST is how many premium requests a question takes.

    A program gets one line per model with tabs between id, name, vendor, "preview" or nothing, category, cost, kind,
    and "disabled" or nothing.

    The model "auto" can be asked though it is not listed: the service then chooses.
    """
    with open_backend() as backend:
        found = backend.client.models(all=all_models)
    if as_json:
        show_json([fields_of(model) for model in found])
    elif not found and not all_models:
        click.echo(_(_ONLY_AUTO), err=True)
    elif is_terminal(sys.stdout):
        _show_to_person(found)
    else:
        show_table((), [_fields(model) for model in found])


def _show_to_person(models: List[Model]) -> None:
    rows = [
        (model.id, _cost(model.premium_multiplier), model.picker_category, model.vendor, model.name, _notes(model))
        for model in models
    ]
    cost, category, vendor, name, notes = _("COST"), _("CATEGORY"), _("VENDOR"), _("NAME"), _("NOTES")
    show_table(("ID", cost, category, vendor, name, notes), rows, optional=(name, vendor, category, notes, cost))
    if "auto" not in [model.id for model in models]:
        click.echo(_(_ABOUT_AUTO), err=True)


def _fields(model: Model) -> List[str]:
    return [
        model.id,
        model.name,
        model.vendor,
        "preview" if model.preview else "",
        model.picker_category,
        _cost(model.premium_multiplier),
        model.kind,
        "" if model.enabled else "disabled",
    ]


def _cost(multiplier: Optional[float]) -> str:
    return "" if multiplier is None else f"{multiplier:g}x"


def _notes(model: Model) -> str:
    kind = "" if model.kind == "chat" else model.kind
    return ", ".join(
        filter(None, [kind, _("preview") if model.preview else "", "" if model.enabled else _("disabled")])
    )
