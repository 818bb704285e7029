"""``copilot-sync emulator``: run a local Copilot for programs in other shells."""

import shlex
import sys
from typing import TYPE_CHECKING, Optional

import click

from copilot_sync.cli import options
from copilot_sync.cli.language import _

if TYPE_CHECKING:
    from copilot_sync.emulator import Emulator
    from copilot_sync.emulator.state import Plan


@click.command(
    epilog="""\b
Examples:
  copilot-sync emulator
  copilot-sync emulator --port 8001 --api-port 8002 --pace 0.05
  copilot-sync emulator --plan free
  copilot-sync emulator --script script.jsonl
  copilot-sync emulator --script - < script.jsonl
"""
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    metavar="PORT",
    help="Port for github_url.",
)
@click.option(
    "--api-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    metavar="PORT",
    help="Port for api_url.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two words.",
)
@click.option(
    "--plan",
    type=click.Choice(["free", "pro", "business", "none"]),
    default="pro",
    show_default=True,
    metavar="PLAN",
    help="free, pro, business or none.",
)
@options.script
def emulator(port: int, api_port: int, pace: float, plan: "Plan", script: Optional[str]) -> None:
    """Run a local Copilot that repeats what it is asked, until Ctrl-C.

    It prints environment variables. Set them in another shell, and every client there talks to it.

    Each line of the script is one reply or fault, such as {"reply": "Hello"} or
    {"fault": "rate_limit", "seconds": 2, "stage": "message"}.
    """
    from copilot_sync.emulator import Emulator, EmulatorOptions, Reply

    server = Emulator(port=port, api_port=api_port, reply=Reply(pace=pace), options=EmulatorOptions(plan=plan))
    if script is not None:
        apply_script(server, script, pace)
    try:
        server.start()
    except OSError as error:
        raise click.ClickException(_("the port can't be used: {reason}").format(reason=error.strerror)) from error
    try:
        for name, value in server.environment.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo(_("serving until Ctrl-C"), err=True)
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo(_("stopped"), err=True)
    finally:
        server.close()


def apply_script(server: "Emulator", script: str, pace: float) -> None:
    """Script an emulator that does not serve yet with what ``--script`` names.

    Args:
        server: The emulator.
        script: A path, or ``-`` for stdin, which is read to its end.
        pace: Seconds between two words of the replies that state no pace.

    Raises:
        click.UsageError: The file can't be read, or a line of it is wrong. Nothing is scripted then.
    """
    from copilot_sync.emulator.script_file import load_script

    try:
        load_script(server, sys.stdin.buffer if script == "-" else script, pace=pace)
    except OSError as error:
        raise click.UsageError(f"--script {script}: {error.strerror or error}") from error
    except ValueError as error:
        raise click.UsageError(f"--script {script}: {error}") from error
