"""``copilot-sync quota``: the account's plan, and what is left of it."""

import sys
from dataclasses import asdict
from typing import List, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend
from copilot_sync.cli.language import _, for_reader_of, marked
from copilot_sync.cli.output import show_json, show_table
from copilot_sync.models import Quota

#: What is said of a reply in which there is nothing that is known.
UNKNOWN = marked("github.com said nothing of it that is known here")


@click.command(
    epilog="""\b
Examples:
  copilot-sync quota
  copilot-sync quota --json
"""
)
@options.as_json
def quota(as_json: bool) -> None:
    """Show the account's plan, and what is left of its limits.

    There is a line for the plan, the license, each limit, the reset and the overages, as far as they are known. A
    program gets a tab between name and value. With --json, "data" holds all that github.com said.

    This needs cookies: COPILOT_SYNC_API_KEY alone is not enough.
    """
    with open_backend() as backend:
        found = backend.client.quota()
    if as_json:
        show_json(asdict(found))
        return
    with for_reader_of(sys.stdout):
        rows = quota_rows(found)
    show_table((), rows)
    if not rows:
        click.echo(_("{what}: see copilot-sync quota --json").format(what=_(UNKNOWN)), err=True)


def quota_rows(quota: Quota) -> List[Tuple[str, str]]:
    """Return names and values in the words that people are shown; what is unknown is left out."""
    names = dict.fromkeys([*quota.limits, *quota.remaining])
    overages = {True: _("allowed"), False: _("not allowed"), None: ""}[quota.overages_enabled]
    rows = [
        (_("plan"), quota.plan),
        (_("license"), quota.license_type),
        *((name, _left(quota, name)) for name in names),
        (_("resets"), quota.resets_at or ""),
        (_("overages"), overages),
    ]
    return [(name, value) for name, value in rows if value]


def _left(quota: Quota, name: str) -> str:
    left, limit = quota.remaining.get(name), quota.limits.get(name)
    if left is None:
        return _("limit {limit:.10g}").format(limit=limit)
    unit = "%" if name.lower().endswith("percentage") else ""
    words = _("{left:.10g}{unit} left") if limit is None else _("{left:.10g}{unit} left of {limit:.10g}{unit}")
    return words.format(left=left, limit=limit, unit=unit)
