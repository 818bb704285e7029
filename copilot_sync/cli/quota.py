"""``copilot-sync quota``: the account's plan, and what is left of it."""

from dataclasses import asdict
from typing import List, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend
from copilot_sync.cli.output import show_json, show_table
from copilot_sync.models import Quota

#: What is said of a reply in which there is nothing that is known.
UNKNOWN = "github.com said nothing of it that is known here"


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
    rows = quota_rows(found)
    show_table((), rows)
    if not rows:
        click.echo(f"{UNKNOWN}: see copilot-sync quota --json", err=True)


def quota_rows(quota: Quota) -> List[Tuple[str, str]]:
    """Return names and values in the words that people are shown; what is unknown is left out."""
    names = dict.fromkeys([*quota.limits, *quota.remaining])
    overages = {True: "allowed", False: "not allowed", None: ""}[quota.overages_enabled]
    rows = [
        ("plan", quota.plan),
        ("license", quota.license_type),
        *((name, _left(quota, name)) for name in names),
        ("resets", quota.resets_at or ""),
        ("overages", overages),
    ]
    return [(name, value) for name, value in rows if value]


def _left(quota: Quota, name: str) -> str:
    left, limit = quota.remaining.get(name), quota.limits.get(name)
    if left is None:
        return f"limit {limit:.10g}"
    unit = "%" if name.lower().endswith("percentage") else ""
    return f"{left:.10g}{unit} left" + ("" if limit is None else f" of {limit:.10g}{unit}")
