"""``copilot-sync usage``: what the calls of this machine have used, from the ledger."""

import itertools
import math
import sys
from dataclasses import asdict, fields
from datetime import datetime, timedelta, timezone
from typing import List, Optional, Sequence

import click

from copilot_sync.cli import options
from copilot_sync.cli.language import _, marked
from copilot_sync.cli.output import show_json, show_table
from copilot_sync.cli.terminal import is_terminal, is_utf8, size_of
from copilot_sync.ledger.entries import LedgerUsage
from copilot_sync.ledger.sqlite_ledger import Ledger
from copilot_sync.settings import Environment
from copilot_sync.terminal_text import one_line
from copilot_sync.times import read_date

_DAYS = 30
#: From an eighth of a character to a whole one.
_BLOCKS = "▏▎▍▌▋▊▉█"
_PLAIN_BLOCKS = "#"
#: Characters that a bar has at least. A terminal with less room for them shows none.
_SHORTEST_BARS = 8
#: The headings behind the name. A narrow terminal does without the first of the last ones first.
_COUNTS = (marked("CALLS"), marked("FAILED"), marked("IN"), marked("OUT"), marked("SECONDS"))
_OPTIONAL = ("SECONDS", "FAILED", "IN", "OUT")
_NAMES = {"day": marked("DAY"), "model": marked("MODEL"), "label": marked("LABEL"), "user": marked("USER")}


@click.command(
    epilog="""\b
Examples:
  copilot-sync usage
  copilot-sync usage --by model --days 7
  copilot-sync usage --by label --since 2026-11-01 --json
"""
)
@click.option(
    "--by",
    type=click.Choice(list(_NAMES)),
    default="day",
    metavar="NAME",
    help="Add up by day (UTC), model, label or user.  [default: day]",
)
@click.option("--since", metavar="DATE", help="The first day (UTC), as 2026-11-30.  [default: see --days]")
@click.option(
    "--days",
    metavar="N",
    type=click.IntRange(1, 9999),
    help=f"The last N days, with today.  [default: {_DAYS}]",
)
@options.as_json
def usage(by: str, since: Optional[str], days: Optional[int], as_json: bool) -> None:
    """Show how much was asked, and how many tokens that took.

    Every question to the service is noted in a ledger on this machine, without
    its text. Tokens are those that the service has counted.

    A terminal shows a table and a bar for the tokens, or for the calls if no
    tokens were counted. A program gets one line each with tabs between name,
    calls, answered, failed, input tokens, output tokens and seconds.
    """
    first = _first_moment(since, days)
    path = Environment.read().ledger
    ledger = Ledger(None if path == "off" else path)
    rows = ledger.usage(by, since=first)
    if as_json:
        show_json([asdict(row) for row in rows])
    elif not rows:
        words = _("no calls are noted since {date:%Y-%m-%d} in {file}")
        click.echo(words.format(date=first, file=one_line(ledger.path)), err=True)
    elif is_terminal(sys.stdout):
        _show_plot(by, rows)
    else:
        show_table((), [(row.name, *_numbers(row), f"{row.seconds:.3f}") for row in rows])


def _first_moment(since: Optional[str], days: Optional[int]) -> datetime:
    if since is None:
        return _today() - timedelta((days or _DAYS) - 1)
    if days is not None:
        raise click.UsageError(
            _("{one} and {other} exclude each other: use one of them").format(one="--since", other="--days")
        )
    moment = read_date(since)
    if moment is None:
        words = _("--since takes a date such as 2026-11-30, not {date}")
        raise click.UsageError(words.format(date=one_line(since)))
    return datetime.fromtimestamp(moment, timezone.utc)


def _today() -> datetime:
    return datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


def _numbers(row: LedgerUsage) -> List[str]:
    return [str(count) for count in (row.calls, row.answered, row.failed, row.input_tokens, row.output_tokens)]


def _show_plot(by: str, rows: Sequence[LedgerUsage]) -> None:
    """Print a table with bars behind it, as far as the terminal has room."""
    shown = [*rows, _total(rows)] if len(rows) > 1 else list(rows)
    columns = _columns(by, shown)
    room = size_of(sys.stdout).columns
    for heading in _OPTIONAL:
        if _width(columns) > room:
            columns = [column for column in columns if column[0].strip() != _(heading)]
    left = room - _width(columns) - 2
    if left >= _SHORTEST_BARS:
        columns.append(_bar_column(rows, left))
    for line in itertools.zip_longest(*columns, fillvalue=""):
        click.echo("  ".join(line).rstrip())


def _columns(by: str, rows: Sequence[LedgerUsage]) -> List[List[str]]:
    """Return the columns with their headings, names flush left and numbers flush right."""
    names = [_(_NAMES[by]), *(one_line(row.name) or _("(none)") for row in rows)]
    longest = max(map(len, names))
    numbers = zip(*((row.calls, row.failed, row.input_tokens, row.output_tokens, round(row.seconds)) for row in rows))
    columns = [[_(heading), *(f"{number:,}" for number in column)] for heading, column in zip(_COUNTS, numbers)]
    return [
        [name.ljust(longest) for name in names],
        *([cell.rjust(max(map(len, column))) for cell in column] for column in columns),
    ]


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(len(column[0]) + 2 for column in columns) - 2


def _bar_column(rows: Sequence[LedgerUsage], width: int) -> List[str]:
    amounts = [row.input_tokens + row.output_tokens for row in rows]
    heading = _("TOKENS")
    if not any(amounts):
        amounts, heading = [row.calls for row in rows], _("CALLS")
    return [heading, *_bars(amounts, width, _BLOCKS if is_utf8(sys.stdout) else _PLAIN_BLOCKS)]


def _total(rows: Sequence[LedgerUsage]) -> LedgerUsage:
    names = [field.name for field in fields(LedgerUsage) if field.name != "name"]
    return LedgerUsage(_("total"), **{name: sum(getattr(row, name) for row in rows) for name in names})


def _bars(amounts: Sequence[int], width: int, blocks: str) -> List[str]:
    """Draw bars of which the longest has a width. One that stands for anything is never empty."""
    most = max(amounts)
    bars = []
    for amount in amounts:
        whole, rest = divmod(math.ceil(amount / most * width * len(blocks)), len(blocks))
        bars.append(blocks[-1] * whole + (blocks[rest - 1] if rest else ""))
    return bars
