"""``copilot-sync emulator``: run a local Copilot for programs in other shells."""

import shlex
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from copilot_sync.emulator.state import Plan


@click.command(
    epilog="""\b
Examples:
  copilot-sync emulator
  copilot-sync emulator --port 8001 --api-port 8002 --pace 0.05
  copilot-sync emulator --plan free
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
def emulator(port: int, api_port: int, pace: float, plan: "Plan") -> None:
    """Run a local Copilot that repeats what it is asked, until Ctrl-C.

    It prints environment variables. Set them in another shell, and every client there talks to it.
    """
    from copilot_sync.emulator import Emulator, EmulatorOptions, Reply

    options = EmulatorOptions(plan=plan)
    try:
        server = Emulator(port=port, api_port=api_port, reply=Reply(pace=pace), options=options).start()
    except OSError as error:
        raise click.ClickException(f"the port can't be used: {error.strerror}") from error
    try:
        for name, value in server.environment.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo("serving until Ctrl-C", err=True)
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    finally:
        server.close()
