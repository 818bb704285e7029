"""``python -m benchmarks [QUESTION ...]``: tables on stdout, progress on stderr. ``--help`` lists the options."""

import argparse
import contextlib
import datetime
import os
import platform
import shlex
import sys
import tempfile
from importlib import metadata
from typing import Iterator, List, Optional, Tuple

from benchmarks.bench import FULL, SHORT, TINY, Bench
from benchmarks.measure import described
from benchmarks.peers import BEFORE, PEERS
from benchmarks.questions import QUESTIONS

_DISTRIBUTIONS = (
    "copilot-sync",
    "requests",
    "urllib3",
    "sseclient-py",
    "httpx",
    "httpx-sse",
    "aiohttp",
    "openai",
    "g4f",
)


def main(arguments: Optional[List[str]] = None) -> None:
    """Ask the questions and print their tables."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        pythons = described(given.python or [[sys.executable]])
    except ValueError as error:
        parser.error(str(error))
    names = given.only or [name for name in PEERS if given.against or not name.endswith(BEFORE)]
    if not given.against and any(name.endswith(BEFORE) for name in names):
        parser.error("--against has to say where the client of before is")
    with contextlib.ExitStack() as stack:
        scale = TINY if given.tiny else SHORT if given.short else FULL
        bench = Bench(names, scale, stack.enter_context(_certificate()), pythons, given.against)
        stack.callback(bench.close)
        print(_machine(), flush=True)
        for name in given.questions or list(QUESTIONS):
            print(f"asking: {name}", file=sys.stderr, flush=True)
            for title, sentence, table in QUESTIONS[name](bench):
                print(f"\n## {title}\n\n{sentence}\n\n{table}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare copilot_sync with its peers.")
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)}; default: all")
    parser.add_argument("--short", action="store_true", help="measure less: about two minutes, and a rough picture")
    parser.add_argument("--tiny", action="store_true", help="measure next to nothing: only to see that it runs")
    parser.add_argument(
        "--only", action="append", choices=list(PEERS), metavar="CLIENT", help=f"of {', '.join(PEERS)}; default: all"
    )
    parser.add_argument(
        "--against",
        type=os.path.abspath,
        metavar="FOLDER",
        help="another checkout of copilot_sync, whose clients take part as well; 'before' stands behind their names",
    )
    parser.add_argument(
        "--python",
        action="append",
        type=shlex.split,
        metavar="COMMAND",
        help="an interpreter to run the clients on, with the package's dependencies; it may have options, as in "
        "'python3.15t -X gil=1'. Several take turns, and the first is what others are compared with. Default: this one",
    )
    return parser


@contextlib.contextmanager
def _certificate() -> Iterator[Optional[Tuple[str, str]]]:
    """The files of a certificate for this machine and of its CA; ``None`` where trustme is not installed."""
    try:
        import trustme
    except ImportError:
        yield None
        return
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as folder:
        files = os.path.join(folder, "server.pem"), os.path.join(folder, "ca.pem")
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(files[0])
        authority.cert_pem.write_to_path(files[1])
        yield files


def _machine() -> str:
    """Where and with what it is measured."""
    versions = []
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{today}, {python}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores; {', '.join(versions)}"


if __name__ == "__main__":
    main()
