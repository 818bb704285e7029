"""``copilot-sync serve``: answer programs that speak OpenAI's API."""

import contextlib
import functools
import logging
import os
import secrets
import shlex
import signal
import socket
import tempfile
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Tuple

import click

from copilot_sync.cli import options
from copilot_sync.cli.backend import open_backend
from copilot_sync.cli.emulator import apply_script
from copilot_sync.cli.language import _
from copilot_sync.cli.waits import WaitsIn
from copilot_sync.pacing.limiter import BY_HOST
from copilot_sync.settings import is_loopback
from copilot_sync.user_folders import state_folder

if TYPE_CHECKING:
    from copilot_sync.emulator import Emulator

#: Threads that answer at most: each question takes one to its end.
_THREADS = 128


@click.command(
    epilog="""\b
Examples:
  copilot-sync serve
  copilot-sync serve --port 0 --threads
  copilot-sync serve --emulator --key test --script faults.jsonl
"""
)
@click.option("--emulator", is_flag=True, help="Answer with a local Copilot that repeats.")
@options.script
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    metavar="PORT",
    help="Port; 0 for a free one.",
)
@click.option(
    "--key",
    envvar="COPILOT_SYNC_GATEWAY_KEY",
    metavar="KEY",
    show_default="one that is kept",
    help="Key of the programs.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Another name under which it may be asked.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    show_default="2; local API: 8",
    help="Questions at once.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    show_default="20; local API: any",
    help="Questions a minute.",
)
@click.option("--threads", is_flag=True, help="Go on with conversations of transcripts.")
@click.option(
    "--batches",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    show_default="user's state folder",
    help="Where batches are kept.",
)
def serve(
    emulator: bool,
    script: Optional[str],
    host: str,
    port: int,
    key: Optional[str],
    allow_host: Tuple[str, ...],
    concurrency: Optional[int],
    rate: Optional[float],
    threads: bool,
    batches: Optional[str],
) -> None:
    """Serve OpenAI's API with the answers of Copilot, until Ctrl-C.

    It prints environment variables. Set them in another shell, and the programs there ask here. Everybody who has the
    key asks with your account.
    """
    from copilot_sync.contrib.openai_gateway import Gateway
    from copilot_sync.contrib.openai_gateway.guard import key_of_user

    waitress = _waitress()
    if not is_loopback(host) and not key:
        raise click.UsageError(_("another address than this machine's needs --key: who has it asks with your account"))
    if script is not None and not emulator:
        raise click.UsageError(_("--script is for an emulator: use it with --emulator"))
    prepare = functools.partial(_apply, script)
    with contextlib.ExitStack() as stack:
        pace = concurrency, BY_HOST if rate is None else rate
        backend = stack.enter_context(open_backend(emulator, prepare=prepare, pace=pace, waits=WaitsIn.LOG))
        if batches is None and emulator:  # the account's batches are nothing for an emulator
            batches = stack.enter_context(tempfile.TemporaryDirectory())
        try:
            shown = key or (f"sk-copilot-sync-{secrets.token_urlsafe(32)}" if emulator else key_of_user().reveal())
            gateway = Gateway(
                backend.client,
                key=shown,
                hosts=allow_host,
                concurrency=backend.pace[0],
                rate=backend.pace[1],
                threads=threads,
                batches=os.path.join(state_folder(), "gateway-batches") if batches is None else batches,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        except OSError as error:
            raise click.ClickException(_("the key can't be kept: {reason}").format(reason=error.strerror)) from error
        stack.callback(gateway.close)
        with _listen(host, port) as listening:
            if not is_loopback(host):
                words = _(
                    "whoever reaches this address and has the key asks with your account; the key crosses the network "
                    "in the clear unless there is TLS in front"
                )
                click.echo(f"copilot-sync: {words}", err=True)
            click.echo(f"export OPENAI_BASE_URL={shlex.quote(f'http://{_address(listening)}/v1')}")
            click.echo(f"export OPENAI_API_KEY={shlex.quote(shown)}")
            with _stopping(gateway.close, backend.client.close):
                _begin_batches(gateway)
                _run(waitress, gateway, listening)
        click.echo(_("stopped"), err=True)


def _begin_batches(gateway: Any) -> None:
    try:
        gateway.begin_batches()
    except OSError as error:
        words = _("batches can't be kept in {folder}: {reason}").format(folder=error.filename, reason=error.strerror)
        raise click.ClickException(words) from error


def _run(waitress: Any, gateway: Any, listening: socket.socket) -> None:
    from copilot_sync.cli.serve_channel import StreamingChannel
    from copilot_sync.cli.serve_threads import GrowingDispatcher
    from copilot_sync.contrib.openai_gateway.request_body import LIMIT

    server = waitress.create_server(
        gateway,
        sockets=[listening],
        _dispatcher=GrowingDispatcher(_THREADS),
        # More than there are threads: one that sends nothing shall hold nobody up.
        connection_limit=8 * _THREADS,
        # Without it, waitress does not notice that a client has left while nothing is sent.
        channel_request_lookahead=1,
        # It takes a body in before the key is looked at, to the disk if it is large.
        max_request_body_size=LIMIT + 1,
        # select() knows no descriptor above 1023.
        asyncore_use_poll=True,
        ident=None,
        clear_untrusted_proxy_headers=True,
    )
    server.channel_class = StreamingChannel
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of each request that finds no thread free
    click.echo(_("serving until Ctrl-C"), err=True)
    try:
        server.run()
    finally:
        server.close()


def _apply(script: Optional[str], server: "Emulator", pace: float) -> None:
    if script is not None:
        apply_script(server, script, pace)


def _waitress() -> Any:
    try:
        import waitress
    except ImportError:
        raise click.ClickException(_("this needs waitress: pip install 'copilot-sync[serve]'")) from None
    return waitress


def _listen(host: str, port: int) -> socket.socket:
    """Open the socket: here, because waitress leaves one open if its port is taken (waitress 3.0.2)."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        words = _("{address} can't be used: {reason}")
        raise click.ClickException(words.format(address=f"{host}:{port}", reason=error.strerror or error)) from error


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if listening.family == socket.AF_INET6 else f"{host}:{port}"


@contextlib.contextmanager
def _stopping(*ends: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end what is under way, for which the server would wait, and then the server."""

    def stop(*args: object) -> None:
        for end in ends:
            end()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
