"""``copilot-sync emulator``: run a local Copilot for programs in other shells."""

import shlex

import click


@click.command(
    epilog="""\b
Examples:
  copilot-sync emulator
  copilot-sync emulator --port 8001 --api-port 8002 --pace 0.05
"""
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    metavar="PORT",
    help="Port of github_url.",
)
@click.option(
    "--api-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    metavar="PORT",
    help="Port of api_url.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two words.",
)
def emulator(port: int, api_port: int, pace: float) -> None:
    """Run a local Copilot that repeats what it is asked, until Ctrl-C.

    It prints environment variables. Set them in another shell, and every client there talks to it.
    """
    from copilot_sync.emulator import Emulator, Reply

    try:
        server = Emulator(port=port, api_port=api_port, reply=Reply(pace=pace)).start()
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
