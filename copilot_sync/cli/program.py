"""The ``copilot-sync`` program: its commands, and what its exit statuses mean."""

import contextlib
import io
import os
import sys
from typing import List

import click

from copilot_sync._version import __version__
from copilot_sync.cli.ask import ask
from copilot_sync.cli.batch import batch
from copilot_sync.cli.emulator import emulator
from copilot_sync.errors import CopilotError

FAILED = 1
INTERRUPTED = 130


_HELP = """GitHub Copilot Chat in the terminal.

\b
Credentials come from the environment:
  COPILOT_SYNC_API_KEY   a token
  COPILOT_SYNC_COOKIES   a cookies.txt or JSON file, or a "name=value; …" header
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="copilot-sync", message="%(prog)s %(version)s")
def program() -> None:
    """Stand for the program as a whole; its commands do the work."""


program.add_command(ask)
program.add_command(batch)
program.add_command(emulator)


def run(arguments: List[str]) -> int:
    """Run the program and give its exit status."""
    if sys.stdout is None:  # started with it closed
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it lasts as long as the process
    _tolerate_narrow_encodings()
    try:
        status = program.main(args=arguments, prog_name="copilot-sync", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except CopilotError as error:
        click.echo(f"Error: {error}", err=True)
        return FAILED
    except OSError as error:
        _leave_output()
        if not isinstance(error, BrokenPipeError):
            click.echo(f"Error: the answer can't be written: {error.strerror}", err=True)
        return FAILED
    return status if isinstance(status, int) else 0


def _tolerate_narrow_encodings() -> None:
    """Print what a terminal's encoding does not have as ``?`` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _leave_output() -> None:
    """Keep the interpreter from flushing into what can't be written any more."""
    with contextlib.suppress(OSError):
        sys.stdout.close()
