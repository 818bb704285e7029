"""The ``copilot-sync`` program: it finds the command, runs it, and turns errors into messages and exit statuses."""

import contextlib
import importlib
import io
import os
import sys
from typing import Any, Dict, List, Optional, Tuple

import click

from copilot_sync._version import __version__
from copilot_sync.cli.failures import describe_error, verbose
from copilot_sync.cli.help_texts import translated
from copilot_sync.cli.language import PLAIN, _, is_translated, marked
from copilot_sync.cli.profile_option import profile_option
from copilot_sync.errors import CopilotError

FAILED = 1
INTERRUPTED = 130

#: The commands and their summaries. Each command is the object of that name in the module of that name in this package,
#: which is imported when the command is used.
COMMANDS = {
    "ask": marked("Ask one question and print the answer."),
    "batch": marked("Ask every prompt of a file and write the answers to another."),
    "chat": marked("Hold a conversation."),
    "completion": marked("Print what has a shell complete commands."),
    "config": marked("Show and change settings that all commands use."),
    "doctor": marked("Check everything that an answer needs."),
    "emulator": marked("Run a local Copilot for experiments and tests."),
    "login": marked("Store a cookie or a token for the other commands."),
    "logout": marked("Remove what login has stored."),
    "models": marked("List the models that can be asked."),
    "quota": marked("Show the account's plan, and what is left of its limits."),
    "serve": marked("Serve OpenAI's API with the answers of Copilot."),
    "threads": marked("List, show, export, rename and delete conversations."),
    "usage": marked("Show how much was asked, and how many tokens that took."),
}

_HELP = """GitHub Copilot Chat in the terminal.

\b
Log in once with "copilot-sync login". These go before it:
  COPILOT_SYNC_COOKIES   a cookies.txt, JSON or HAR file, a folder of such
                         files, or a "name=value; …" header
  COPILOT_SYNC_API_KEY   a token
"""

_EXAMPLES = """\b
Examples:
  copilot-sync ask --emulator "Explain WSGI in one line"
  copilot-sync login
  copilot-sync doctor
  copilot-sync ask --help
"""


class _Program(click.Group):
    """A group that imports a command when it is used, so that listing the commands imports none."""

    def list_commands(self, ctx: click.Context) -> List[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"copilot_sync.cli.{cmd_name}"), cmd_name)
        _add_common(command)
        return translated(command)

    def resolve_command(
        self, ctx: click.Context, args: List[str]
    ) -> Tuple[Optional[str], Optional[click.Command], List[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:  # click knows none to suggest, because it lists what was imported
            from difflib import get_close_matches

            near = [] if args[0].startswith("-") else get_close_matches(args[0], COMMANDS)
            if not near:
                raise
            words = _("No such command {name!r}. Did you mean {near}?").format(name=args[0], near=_(" or ").join(near))
            raise click.UsageError(words, ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(_("Commands")):
            formatter.write_dl([(name, _(summary)) for name, summary in COMMANDS.items()])


def _add_common(command: click.Command) -> None:
    """Add the options of the program to a command and its subcommands, unless they have them."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    for each in (command, *below):
        if "verbose" not in [option.name for option in each.params]:
            each.params += [profile_option(), verbose()]


@click.command(
    cls=_Program,
    params=[profile_option(), verbose()],
    help=_HELP,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="copilot-sync", message="%(prog)s %(version)s")
def program() -> None:
    """Do nothing: the commands do the work."""


def run(arguments: List[str]) -> int:
    """Run the program and return its exit status."""
    # What was closed when the program started. It stays open until the process ends.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    _tolerate_narrow_encodings()
    flags: Dict[str, Any] = {"arguments": arguments}
    try:
        status = translated(program).main(args=arguments, prog_name="copilot-sync", standalone_mode=False, obj=flags)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except CopilotError as error:
        click.echo(_("Error: {message}").format(message=describe_error(error, flags)), err=True)
        return FAILED
    except OSError as error:
        _close_stdout()
        if not isinstance(error, BrokenPipeError):
            words = _("the answer can't be written: {reason}").format(reason=error.strerror or error)
            click.echo(_("Error: {message}").format(message=words), err=True)
        return FAILED
    return status if isinstance(status, int) else 0


def _tolerate_narrow_encodings() -> None:
    """Print ``?`` for characters that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN if is_translated() else "replace")


def _close_stdout() -> None:
    """Keep the interpreter from flushing into a stdout that can't be written any more."""
    with contextlib.suppress(OSError):
        sys.stdout.close()
