"""What the programs of this folder share: figures with their bounds, settings, and processes that may hang.

A program prints each figure beside what it has to be, and ends with status 1 if one is out of its bounds. What may
hang runs in a process of its own, a worker, which tells line by line what it has counted. One that falls silent is
asked where it stands, then killed and counted.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import queue
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, TextIO, Tuple

from copilot_sync.emulator import Emulator, EmulatorOptions, RecordedRequest

#: Lines of a worker's complaints that are printed.
_REPORT_LINES = 60
#: Seconds that a hung process gets to say where it stands.
_LAST_WORDS = 1.0


class Figures:
    """The figures of a program, printed as they are noted.

    Attributes:
        status: The exit status that they mean.
    """

    def __init__(self) -> None:
        self.status = 0

    def note(self, name: str, value: object) -> None:
        """Print what has no bounds."""
        self._print(name, value, "")

    def at_most(self, name: str, value: float, bound: float) -> None:
        """Print what must not be above a bound."""
        self._check(value <= bound, name, value, f"at most {bound:g}")

    def at_least(self, name: str, value: float, bound: float) -> None:
        """Print what must not be below a bound."""
        self._check(value >= bound, name, value, f"at least {bound:g}")

    def _check(self, good: bool, name: str, value: float, bound: str) -> None:
        if not good:
            self.status = 1
        self._print(name, value, bound if good else f"{bound}: WRONG")

    def _print(self, name: str, value: object, bound: str) -> None:
        shown = f"{value:.2f}" if isinstance(value, float) else value
        print(f"{name:<60} {shown!s:>8}  {bound}".rstrip(), flush=True)


def settings(
    description: Optional[str], full: Mapping[str, float], short: Mapping[str, float], names: Sequence[str] = ()
) -> argparse.Namespace:
    """Read the command line: ``--short``, ``--seed``, an option for each setting, and names of what is measured.

    Args:
        description: The docstring of the program.
        full: The settings by name.
        short: What they are with ``--short``.
        names: What can be measured by itself.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="measure less: a minute at most")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    for name, value in full.items():
        words = f"default {value}, with --short {short[name]}"
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), metavar="N", help=words)
    if names:
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all")
    given = parser.parse_args()
    if names and not given.names:
        given.names = list(names)
    for name, value in (short if given.short else full).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    print(f"seed {given.seed}", flush=True)
    return given


def leave(status: int) -> None:
    """End this process at once, whatever its threads are still doing."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def content_of(request: RecordedRequest) -> str:
    """The prompt of a message that an emulator received."""
    return str(json.loads(request.body)["content"])


def asked_twice(emulator: Emulator) -> int:
    """How many prompts an emulator has in its threads more than once."""
    threads = list(emulator.threads.values())
    asked = Counter(message["content"] for thread in threads for message in thread.user_messages)
    return sum(times > 1 for times in asked.values())


class Accounts(Sequence[str]):
    """The API keys of any number of accounts, for ``EmulatorOptions.accept_api_keys``."""

    def __contains__(self, key: object) -> bool:
        return str(key).startswith("account-")

    def __getitem__(self, index: Any) -> Any:
        raise IndexError(index)

    def __len__(self) -> int:
        return 0


@contextlib.contextmanager
def emulators(**options: Any) -> Iterator[Tuple[Emulator, Emulator, str]]:
    """Run an emulator without and one with TLS; give both and the file of the CA. They keep few requests."""
    with warnings.catch_warnings():
        # trustme's cryptography warns, when it is imported, on each Python that it is going to leave behind.
        warnings.simplefilter("ignore")
        import trustme
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    kept = EmulatorOptions(max_records=1000, accept_api_keys=Accounts(), **options)
    with tempfile.TemporaryDirectory() as folder, Emulator(options=kept) as plain:
        file = os.path.join(folder, "ca.pem")
        authority.cert_pem.write_to_path(file)
        with Emulator(options=kept, ssl_context=context) as secure:
            yield plain, secure, file


def begin_worker() -> None:
    """Prepare a process that is watched. To be called before anything else."""
    # Written in C, so it answers whatever lock the process waits for; forked children inherit it.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Python 3.12 and later warn of a fork beside threads, which is what is tried here.
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def tell(**counts: int) -> None:
    """Tell the program what this worker has counted since it last told something."""
    sys.stdout.write(json.dumps(counts) + "\n")
    sys.stdout.flush()


def end_hung(pid: int) -> None:
    """Have a hung process write to stderr where it stands; kill it."""
    os.kill(pid, signal.SIGUSR1)
    time.sleep(_LAST_WORDS)
    os.kill(pid, signal.SIGKILL)


def watch(arguments: Sequence[str], patience: float, env: Dict[str, str]) -> "Counter[str]":
    """Run a worker to its end and add up what it tells.

    Args:
        arguments: A script of this folder, and its arguments.
        patience: Seconds of silence after which it is killed and counted as ``hung``.
        env: Environment variables that it has beside ours.

    Returns:
        The sums; ``crashed`` is 1 if its exit status wasn't 0.
    """
    command = [sys.executable, str(Path(__file__).parent / arguments[0]), *arguments[1:]]
    counts: Counter[str] = Counter()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    with tempfile.TemporaryFile("w+", errors="replace") as report, subprocess.Popen(
        command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=report, text=True, start_new_session=True
    ) as process:
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        try:
            for line in iter(lambda: lines.get(timeout=patience), ""):
                counts.update(json.loads(line))
        except queue.Empty:
            counts["hung"] += 1
            end_hung(process.pid)
            os.killpg(process.pid, signal.SIGKILL)  # its children
        counts["crashed"] += process.wait() != 0 and not counts["hung"]
        _print_report(report)
    return counts


def _read(stdout: TextIO, lines: "queue.SimpleQueue[str]") -> None:
    for line in stdout:
        lines.put(line)
    lines.put("")


def _print_report(report: TextIO) -> None:
    report.seek(0)
    lines = report.read().splitlines()
    for line in lines[:_REPORT_LINES]:
        print(f"    | {line}")
    if len(lines) > _REPORT_LINES:
        print(f"    | … and {len(lines) - _REPORT_LINES} lines more")
