"""The ``copilot-sync`` program: its commands, and what its exit statuses mean."""

import contextlib
import importlib
import io
import os
import sys
from typing import Dict, List, Optional

import click

from copilot_sync._version import __version__
from copilot_sync.cli.failures import in_words, verbose
from copilot_sync.errors import CopilotError

FAILED = 1
INTERRUPTED = 130

#: The commands, each with what the list of them says of it. A command is the object of that name in the module of that
#: name beside this one, which is imported when the command is used.
COMMANDS = {
    "ask": "Ask one question and print the answer.",
    "batch": "Ask many questions from a file and keep the answers in another.",
    "chat": "Hold a conversation.",
    "doctor": "Check everything that an answer needs.",
    "emulator": "Serve a local Copilot for trying out and for tests.",
    "models": "List the models that the account may use.",
    "threads": "List, show, rename and delete conversations.",
}

_HELP = """GitHub Copilot Chat in the terminal.

\b
Credentials come from the environment:
  COPILOT_SYNC_COOKIES   a cookies.txt, JSON or HAR file, a folder of such
                         files, or a "name=value; …" header
  COPILOT_SYNC_API_KEY   a token
"""

_EXAMPLES = """\b
Examples:
  copilot-sync ask --emulator "Explain WSGI in one line"
  copilot-sync doctor
  copilot-sync ask --help
"""


class _Program(click.Group):
    """A group that imports a command when it is used: each needs something else, and the list of them nothing."""

    def list_commands(self, ctx: click.Context) -> List[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"copilot_sync.cli.{cmd_name}"), cmd_name)
        _let_be_verbose(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _let_be_verbose(command: click.Command) -> None:
    """Let a command and those below it take ``--verbose``, once."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    for each in (command, *below):
        if "verbose" not in [option.name for option in each.params]:
            each.params.append(verbose())


@click.command(
    cls=_Program,
    params=[verbose()],
    help=_HELP,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="copilot-sync", message="%(prog)s %(version)s")
def program() -> None:
    """Stand for the program as a whole; its commands do the work."""


def run(arguments: List[str]) -> int:
    """Run the program and give its exit status."""
    if sys.stdout is None:  # started with it closed
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it lasts as long as the process
    _tolerate_narrow_encodings()
    flags: Dict[str, bool] = {}
    try:
        status = program.main(args=arguments, prog_name="copilot-sync", standalone_mode=False, obj=flags)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except CopilotError as error:
        click.echo(f"Error: {in_words(error, flags)}", err=True)
        return FAILED
    except OSError as error:
        _leave_output()
        if not isinstance(error, BrokenPipeError):
            click.echo(f"Error: the answer can't be written: {error.strerror or error}", err=True)
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
